"""URLs: what a caller or a Location gives, taken apart, and made fit for a request line.

A URL goes out byte for byte as it was given; only what RFC 3986 does not allow is escaped. Where
parsers are known to disagree about the host, it is refused: a program that checks a URL must not
be led to another host than the one it has checked. Pure. Layer: client.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import unquote, urlencode

from ..exceptions import InvalidURL, redact
from ..http11.grammar import check_host
from ..request_head import bracketed

__all__ = [
    "PLAIN_TARGET",
    "PORTS",
    "Origin",
    "ParamsLike",
    "SplitURL",
    "add_params",
    "encode_host",
    "encode_param",
    "join_base",
    "join_location",
    "split_url",
]

PORTS = {"http": 80, "https": 443}
"""The default ports of the schemes that there are."""

Origin: TypeAlias = tuple[str, str, int]
"""(scheme, host, port), as RFC 6454 compares them: lower case, the port always there."""

ParamsLike: TypeAlias = "Mapping[str, Any] | Iterable[tuple[str, Any]]"
"""Query parameters. A list gives several of one name, None leaves one out."""

# RFC 3986 §3.3, §3.4: what may stand in a path and a query, percent signs apart.
_LEGAL = r"A-Za-z0-9\-._~!$&'()*+,;=:@/?"

# RFC 9112 §3.2.1: origin-form = absolute-path [ "?" query ], of legal characters only.
PLAIN_TARGET = re.compile(rf"/[{_LEGAL}]*+(?:%[0-9A-Fa-f]{{2}}[{_LEGAL}]*+)*+")

_ILLEGAL = re.compile(rb"%(?![0-9A-Fa-f]{2})|[^" + _LEGAL.encode() + rb"%]")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HOST_PORT = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]*)(?::([0-9]{0,5}))?")

# A last label like these makes a name an IPv4 address for inet_aton, in whatever notation.
_NUMERIC_LABEL = re.compile(r"(?:0[xX][0-9A-Fa-f]*|[0-9]+)")
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")

# Characters that IDNA2003, the standard library's, maps to others, and IDNA2008 does not.
_DEVIATIONS = re.compile("[\u00df\u03c2\u200c\u200d]")


class SplitURL(NamedTuple):
    """A URL's parts: *host* without brackets, in lower case and ASCII; *target* as it is sent."""

    scheme: str
    host: str
    port: int
    target: str
    userinfo: str = ""

    @property
    def origin(self) -> Origin:
        """(scheme, host, port)."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """``host`` or ``host:port`` as a Host field has it: no default port, no zone."""
        host = bracketed(self.host.partition("%")[0])
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def text(self) -> str:
        """The URL, without user, password and fragment."""
        return f"{self.scheme}://{self.authority}{self.target}"


def split_url(url: str) -> SplitURL:
    """Return the parts of the absolute URL *url*; ``InvalidURL`` says what is wrong with it.

    In path and query, what is not legal is escaped as UTF-8. The fragment is dropped.
    """
    if not isinstance(url, str):
        raise TypeError(f"a URL must be a str, not {type(url).__name__}: {url!r}")
    if found := _CONTROL.search(url):
        raise _invalid(url, f"it has the control character {found[0]!r}")
    if url.strip() != url:
        raise _invalid(url, "it begins or ends with a blank")
    match = _SCHEME.match(url)
    scheme = match[1].lower() if match is not None else ""
    if match is None or not url.startswith("//", match.end()):
        if match is not None and scheme in PORTS:
            raise _invalid(url, f"{scheme}: must be followed by //")
        raise _invalid(url, "it has no scheme: write it with http:// or https://")
    if scheme not in PORTS:
        raise _invalid(url, f"the scheme {scheme!r} is not supported, http and https are")
    rest = url[match.end() + 2 :].partition("#")[0]
    end = next((i for i, char in enumerate(rest) if char in "/?"), len(rest))
    authority, tail = rest[:end], rest[end:]
    userinfo, at, host_port = authority.rpartition("@")
    if "@" in userinfo or "\\" in authority:
        raise _invalid(url, "what stands before the path is ambiguous")
    split = _HOST_PORT.fullmatch(host_port)
    if split is None:
        raise _invalid(url, f"{host_port!r} is not a host, or a host and a port")
    if not split[1]:
        raise _invalid(url, "it has no host")
    port = int(split[2]) if split[2] else PORTS[scheme]
    if port > 65535:
        raise _invalid(url, f"a port must be 0 to 65535, got {port}")
    try:
        host = encode_host(split[1])
    except InvalidURL as exc:
        raise _invalid(url, str(exc)) from None
    target = tail if tail.startswith("/") else f"/{tail}"
    if PLAIN_TARGET.fullmatch(target) is None:
        target = _escaped(target)
    return SplitURL(scheme, host, port, target, userinfo if at else "")


def encode_host(text: str) -> str:
    """Return a URL's host without brackets, in lower-case ASCII; ``InvalidURL`` if it is none.

    IPv4 addresses only in their usual notation: 0x7f.1 or 2130706433 are addresses for some
    programs and names for others. Names outside ASCII are encoded by ``idna``, if that is
    installed, else by the standard library as far as its older IDNA does the same.
    """
    if text.startswith("["):
        host = text[1:-1].replace("%25", "%", 1)  # RFC 6874: the zone's percent sign
        address, percent, zone = host.partition("%")
        try:
            socket.inet_pton(socket.AF_INET6, address)
        except (OSError, ValueError):
            raise InvalidURL(f"not an IPv6 address in brackets: {text!r}") from None
        check_host(host)
        return f"{address.lower()}{percent}{zone}"
    host = text
    if "%" in host:
        host = unquote(host, errors="strict") if _percent_is_legal(host) else ""
    if not host.isascii():
        host = _to_ascii(host)
    host = host.lower()
    if not host or "%" in host or ":" in host:
        raise InvalidURL(f"not a host name: {text!r}")
    # After the encoding: it turns some characters into '/' and '@'.
    check_host(host)
    last = host.removesuffix(".").rpartition(".")[2]
    if _NUMERIC_LABEL.fullmatch(last) and not _IPV4.fullmatch(host):
        raise InvalidURL(f"not an IPv4 address of four decimal numbers: {text!r}")
    return host


def _percent_is_legal(host: str) -> bool:
    try:
        unquote(host, errors="strict")
    except UnicodeDecodeError:
        return False
    return True


def _to_ascii(host: str) -> str:
    """Return an internationalised name as A-labels (RFC 5890)."""
    try:
        import idna
    except ImportError:
        return _to_ascii_2003(host)
    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError as exc:
        raise InvalidURL(f"not a host name: {host!r} ({exc})") from None


def _to_ascii_2003(host: str) -> str:
    """Encode with the standard library's IDNA2003, where IDNA2008 would give the same."""
    from unicodedata import ucd_3_2_0

    if _DEVIATIONS.search(host) or any(ucd_3_2_0.category(char) == "Cn" for char in host):
        raise InvalidURL(
            f"{host!r} needs a newer IDNA than the standard library's: "
            'pip install "aiohttpconn[idna]"'
        )
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError as exc:
        raise InvalidURL(f"not a host name: {host!r} ({exc})") from None


def _escaped(target: str) -> str:
    """Percent-encode what may not stand in a path or query, non-ASCII characters as UTF-8."""
    # Names of files may have bytes that are not UTF-8: they keep their values.
    try:
        raw = target.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as exc:
        raise InvalidURL(f"a URL must be encodable as UTF-8: {target[:100]!r} ({exc})") from None
    return _ILLEGAL.sub(lambda byte: b"%%%02X" % byte[0][0], raw).decode("ascii")


def _invalid(url: str, why: str) -> InvalidURL:
    return InvalidURL(f"cannot use the URL {redact(url)[:300]!r}: {why}")


def join_base(base: str, url: str) -> str:
    """Return *url* under *base*, which is taken for a folder; an absolute *url* stays as it is.

    The base's host always stays: ``//host`` and ``http:x`` are ``InvalidURL``, whatever RFC 3986
    would make of them. "/a" and "a" are the same: both go below the base's path.
    """
    match = _SCHEME.match(url)
    if match is not None and match[1].lower() in PORTS:
        return url
    if url.startswith(("//", "\\")) or (match is not None and "/" not in url[: match.end()]):
        raise InvalidURL(f"{url[:300]!r} is neither a path below {redact(base)!r} nor a whole URL")
    if not url or url.startswith("?"):
        return f"{base.rstrip('/')}{url}" if url else base
    return f"{base.rstrip('/')}/{url.lstrip('/')}"


def join_location(url: str, location: str) -> str:
    """Return the absolute URL that a ``Location`` of the response for *url* leads to.

    RFC 3986 §5.2. *location* is a field value, ISO-8859-1 as received: bytes beyond ASCII,
    mostly UTF-8, keep their values as percent-encoded. Raises ``InvalidURL``, for other schemes
    than http and https too, and ``ValueError`` for what the standard library cannot parse.
    """
    from urllib.parse import urljoin

    location = location.strip(" \t")
    if not location.isascii():
        authority_end = _authority_end(location)
        head, tail = location[:authority_end], location[authority_end:]
        # In a host they are a name, for IDNA; elsewhere they are bytes.
        head = head.encode("latin-1").decode("utf-8", "replace")
        location = head + re.sub(r"[\x80-\xff]", lambda char: f"%{ord(char[0]):02X}", tail)
    match = _SCHEME.match(location)
    if match is not None and not location.startswith("//", match.end()):
        raise InvalidURL(f"not a URL to be redirected to: {location[:300]!r}")
    return urljoin(url, location)


def _authority_end(location: str) -> int:
    """Return where path, query or fragment begin; 0 if there is no authority before them."""
    start = location.find("//")
    if start < 0 or "/" in location[:start] or "?" in location[:start] or "#" in location[:start]:
        return 0
    ends = [at for at in (location.find(mark, start + 2) for mark in "/?#") if at >= 0]
    return min(ends, default=len(location))


def add_params(url: str, params: ParamsLike) -> str:
    """Return *url* with *params* at the end of its query, form-encoded; its fragment is dropped."""
    items = params.items() if isinstance(params, Mapping) else params
    pairs: list[tuple[str, str | bytes]] = []
    for name, value in items:
        values = value if isinstance(value, (list, tuple)) else (value,)
        pairs += [(name, encode_param(name, each)) for each in values if each is not None]
    url = url.partition("#")[0]
    if not pairs:
        return url
    joint = "?" if "?" not in url else "" if url.endswith(("?", "&")) else "&"
    return f"{url}{joint}{urlencode(pairs)}"


def encode_param(name: str, value: Any) -> str | bytes:
    """Return a parameter's value as ``urlencode`` takes it; ``TypeError`` if it is none."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # An Enum of str formats itself as something else than its value.
        return str.__str__(value)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, (int, float)):
        return str(value)
    raise TypeError(
        f"the parameter {name!r} must be str, bytes, int, float, bool, None or a list of them, "
        f"not {type(value).__name__}"
    )
