"""Heads of HTTP/1.1 requests: encoding, the Host field, and a host with its port.

Pure functions that decide as http.client does. No I/O, no clock. Layer: the wire.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from ..exceptions import InvalidURL, redact, shown_refused
from ..types import exact
from .grammar import (
    AUTHORITY_FORM,
    DIGITS,
    HOST_FIELD,
    TOKEN,
    ascii_host,
    check_field,
    check_host_field,
    check_method,
    check_target,
)
from .semantics import SINGLE

__all__ = [
    "bracketed",
    "check_single_fields",
    "encode_fields",
    "encode_request_line",
    "host_field",
    "split_host_port",
]

_VALUES = re.compile(r"[\t\n\x20-\x7e\x80-\xff]*+")


# ----------------------------------------------------------------------------- encoding


@lru_cache(maxsize=1024)
def _lower_name(name: str) -> str:
    """Return a field name in lower case; ``ValueError`` unless it is a token."""
    if not TOKEN.fullmatch(name):
        check_field(name, "")
    return name.lower()


@lru_cache(maxsize=64)
def _checked_method(method: str) -> str:
    check_method(method)
    return method


def encode_request_line(method: str, url: str) -> str:
    """Return ``METHOD url``. Raises as ``check_method`` and ``check_target`` do."""
    _checked_method(method)
    check_target(url)
    if method == "CONNECT" and not AUTHORITY_FORM.fullmatch(url):
        raise InvalidURL(f"CONNECT takes host:port as its URL (RFC 9110 §9.3.6), got {url!r}")
    return f"{method} {url}"


def encode_fields(headers: Any) -> tuple[str, dict[str, str]]:
    """Return (field lines, {lower-case name: value}) of a mapping or an iterable of pairs.

    Raises as ``check_field`` does, and ``ValueError`` for a second Host, Content-Length or
    Transfer-Encoding, for Content-Length beside Transfer-Encoding, and for a bad Host.
    """
    items: Iterable[tuple[Any, Any]] = headers.items() if hasattr(headers, "items") else headers
    lines: list[str] = []
    values: list[str] = []
    names: dict[str, str] = {}
    for name, value in items:
        if type(name) is not str or type(value) is not str:
            name, value = check_field(name, value)
        lower = _lower_name(name)
        if lower in SINGLE and lower in names:
            raise ValueError(f"{name} is given twice: {names[lower]!r} and {value!r}")
        names[lower] = f"{names[lower]}, {value}" if lower in names else value
        values.append(value)
        lines.append(f"{name}: {value}\r\n")
    # One match checks all values. A line end within a value shows in the count.
    joined = "\n".join(values)
    if not _VALUES.fullmatch(joined) or joined.count("\n") >= max(len(values), 1):
        for line, value in zip(lines, values, strict=True):
            check_field(line.partition(":")[0], value)
    if not SINGLE.isdisjoint(names):
        check_single_fields(names)
    return "".join(lines), names


def check_single_fields(names: dict[str, str]) -> None:
    """Raise ``ValueError`` for a bad Host or Content-Length, or for both framing fields at once."""
    if "host" in names:
        check_host_field(names["host"])
    if "content-length" in names:
        if "transfer-encoding" in names:
            raise ValueError("Content-Length and Transfer-Encoding are both given (RFC 9112 §6.2)")
        if not DIGITS.fullmatch(names["content-length"]):
            raise ValueError(f"Content-Length must be digits, got {names['content-length']!r}")


# ------------------------------------------------------------------------------ meaning


def split_host_port(host: str, port: int | None, default: int) -> tuple[str, int]:
    """Return *host* without its port and brackets, and the port: *port*, its own, or *default*.

    Raises ``InvalidURL`` for a host that is neither a name nor an address, and for a bad port.
    Mirrors how ``http.client.HTTPConnection`` reads its *host*; an IPv6 address without brackets
    counts as one.
    """
    host, port = exact(host), exact(port)
    if port is None:
        port = default
        colon = host.rfind(":")
        if colon > host.rfind("]") and (host.count(":") == 1 or "]" in host):
            digits = host[colon + 1 :]
            host = host[:colon]
            if digits and not DIGITS.fullmatch(digits):
                raise InvalidURL(f"nonnumeric port: {shown_refused(digits)}")
            # http://foo.com:/ is http://foo.com/
            port = int(digits or port)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise InvalidURL(f"not an IPv6 address in brackets: {shown_refused(host)}")
    ascii_host(host)
    if not 0 <= int(port) <= 65535:
        raise InvalidURL(f"a port must be 0 to 65535, got {port}")
    return host, port


def host_field(url: str, host: str, port: int, default_port: int) -> str:
    """Return the value of Host: the authority of *url* if it is absolute, else *host* and *port*.

    Raises ``InvalidURL`` for an authority that is not allowed there, such as one with credentials.
    """
    netloc = urlsplit(url).netloc if url.startswith("http") else ""
    if netloc:
        if "@" in netloc:
            raise InvalidURL(
                f"a URL that is sent must not have credentials ({redact(url)!r} without them): "
                "send an Authorization field"
            )
        field = _without_zone(netloc)
        if not HOST_FIELD.fullmatch(field):
            raise InvalidURL(f"no host, or host:port, in the URL {shown_refused(url)}")
        return field
    host = _without_zone(bracketed(ascii_host(host)))
    return host if port == default_port else f"{host}:{port}"


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _without_zone(host: str) -> str:
    """Return a Host value without an IPv6 zone id: it means nothing on another machine."""
    zone = host.find("%")
    end = host.find("]", zone)
    return host[:zone] + host[end:] if host.startswith("[") and 0 < zone < end else host
