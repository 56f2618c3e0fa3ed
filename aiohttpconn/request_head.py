"""What a request's head says by itself: whom it is for, and how its body is delimited.

Decisions are http.client's, as pure functions. Layer: above the wire and body, below protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .exceptions import InvalidURL, redact
from .http11.grammar import DIGITS, check_host, check_host_field
from .http11.semantics import BODY_METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .body import Body

__all__ = ["body_framing", "bracketed", "host_field", "split_host_port"]


def split_host_port(host: str, port: int | None, default: int) -> tuple[str, int]:
    """Return *host* without its port and brackets, and the port: *port*, its own, or *default*.

    Raises ``InvalidURL`` for what is neither a name nor an address, or no port.
    Mirrors ``http.client.HTTPConnection``'s reading of its *host*; an IPv6 address without
    brackets is taken for what it is.
    """
    if port is None:
        port = default
        colon = host.rfind(":")
        if colon > host.rfind("]") and (host.count(":") == 1 or "]" in host):
            digits = host[colon + 1 :]
            host = host[:colon]
            if digits and not DIGITS.fullmatch(digits):
                raise InvalidURL(f"nonnumeric port: {digits!r}")
            # http://foo.com:/ is http://foo.com/
            port = int(digits or port)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise InvalidURL(f"not an IPv6 address in brackets: {host!r}")
    check_host(host)
    if not 0 <= int(port) <= 65535:
        raise InvalidURL(f"a port must be 0 to 65535, got {port}")
    return host, port


def host_field(url: str, host: str, port: int, default_port: int) -> str:
    """Return the value of Host: the authority of *url* if it is absolute, else *host* and *port*.

    Raises ``InvalidURL`` for an authority that may not stand there, credentials among them.
    """
    netloc = urlsplit(url).netloc if url.startswith("http") else ""
    if netloc:
        if "@" in netloc:
            raise InvalidURL(
                f"a URL that is sent must not have credentials ({redact(url)!r} without them): "
                "send an Authorization field"
            )
        field = _without_zone(netloc)
        try:
            check_host_field(field)
        except ValueError as exc:
            raise InvalidURL(f"{exc} in the URL {url!r}") from None
        return field
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    host = _without_zone(bracketed(host))
    return host if port == default_port else f"{host}:{port}"


def body_framing(
    method: str,
    body: Body | None,
    names: Mapping[str, str],
    encode_chunked: bool,
    may_chunk: bool,
) -> tuple[bool, int | None, str]:
    """Return (chunked, length, the field line to add) for *body*, beside the caller's fields."""
    if "content-length" in names:
        return False, int(names["content-length"]), ""
    if "transfer-encoding" in names:
        if body is None:
            raise ValueError("the request has a Transfer-Encoding but no body")
        return encode_chunked and may_chunk, None, ""
    if body is None:
        return False, 0, "Content-Length: 0\r\n" if method.upper() in BODY_METHODS else ""
    if body.length is not None:
        return False, body.length, f"Content-Length: {body.length}\r\n"
    return may_chunk, None, "Transfer-Encoding: chunked\r\n"


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _without_zone(host: str) -> str:
    """Return a Host value without an IPv6 zone id: it means nothing on another machine."""
    zone = host.find("%")
    end = host.find("]", zone)
    return host[:zone] + host[end:] if host.startswith("[") and 0 < zone < end else host
