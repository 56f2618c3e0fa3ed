"""URLs as people type them on a command line, taken apart (RFC 3986, appendix B)."""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass
from urllib.parse import unquote, unquote_to_bytes

from ..exceptions import InvalidURL
from ..http11.grammar import check_host

__all__ = ["Location", "locate"]

PORTS = {"http": 80, "https": 443}

_URL = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.\-]*)://)?([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?")
_HOST_PORT = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]+)(?::([0-9]{0,9}))?")


@dataclass(frozen=True, slots=True)
class Location:
    """Where a URL leads. ``authorization`` is its user and password as a field value, or ""."""

    scheme: str
    host: str
    port: int
    target: str
    authorization: str

    @property
    def authority(self) -> str:
        """``host:port`` as Host has it: no default port, no zone of an IPv6 address."""
        host = self.host
        if ":" in host:
            host = f"[{host.partition('%')[0]}]"
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def absolute(self) -> str:
        """The URL without user, password and fragment: what a proxy is asked for."""
        return f"{self.scheme}://{self.authority}{self.target}"


def locate(url: str, *, ports: dict[str, int] = PORTS) -> Location:
    """Return where *url* leads; without a scheme it is ``http``. *ports* are the defaults.

    Characters outside ASCII are encoded, nothing else is changed: the target goes out as it was
    typed. Raises ``InvalidURL``; a scheme that is unknown is not looked at here.
    """
    if found := re.search(r"[\x00-\x20\x7f]", url):
        raise InvalidURL(
            f"{_shown(url)!r} has {found[0]!r} in it: write a space as %20, and quote the URL"
        )
    match = _URL.fullmatch(url)
    assert match is not None, "every part of the pattern may be empty"
    scheme = (match[1] or "http").lower()
    userinfo, at, host_port = match[2].rpartition("@")
    split = _HOST_PORT.fullmatch(host_port)
    if split is None or "\\" in userinfo:
        raise InvalidURL(f"no host, or no valid one, in the URL {_shown(url)!r}")
    port = int(split[2] or ports.get(scheme, 0))
    if port > 65535:
        raise InvalidURL(f"a port must be 0 to 65535, got {port}")
    target = os.fsencode((match[3] or "/") + (match[4] or ""))
    return Location(
        scheme,
        _host(split[1]),
        port,
        re.sub(rb"[\x80-\xff]", lambda byte: b"%%%02X" % byte[0][0], target).decode("ascii"),
        _basic(userinfo) if at else "",
    )


def _host(text: str) -> str:
    """Return a host without brackets, in ASCII."""
    if text.startswith("["):
        host = text[1:-1].replace("%25", "%")  # RFC 6874: the zone's percent sign
        if ":" not in host:
            raise InvalidURL(f"not an IPv6 address: {text!r}")
    else:
        host = unquote(text)
        if not host.isascii():
            try:
                host = host.encode("idna").decode("ascii")
            except UnicodeError as exc:
                raise InvalidURL(f"not a valid host name: {host!r} ({exc})") from exc
    # After the encoding: it turns some characters into '/' and '@'.
    check_host(host)
    return host


def _basic(userinfo: str) -> str:
    """Return ``user:password`` as the value of Authorization (RFC 7617)."""
    user, _, password = userinfo.partition(":")
    pair = b"%b:%b" % (_raw(user), _raw(password))
    return f"Basic {base64.b64encode(pair).decode('ascii')}"


def _raw(text: str) -> bytes:
    return unquote_to_bytes(os.fsencode(text))


def _shown(url: str) -> str:
    """Return *url* without whatever may be a password."""
    head, at, tail = url.rpartition("@")
    scheme, colon, _ = head.rpartition("://")
    return f"{scheme}{colon}{tail}" if at else url
