"""URLs: what a caller or a Location gives, taken apart, and made fit for a request line.

A URL goes out byte for byte as it was given; only what RFC 3986 does not allow is escaped. Where
parsers are known to disagree about the host, it is refused: a program that checks a URL must not
be led to another host than the one it has checked. Pure. Layer: above net, below the pool.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import unquote, urlencode

from .exceptions import InvalidURL, redact
from .http11.grammar import check_host
from .request_head import bracketed

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

MAX_SHOWN = 300
"""Characters of a URL that an error text shows."""

MAX_HOST = 253
"""Characters of a host's name in the DNS, without a dot at its end (RFC 1035 §2.3.4)."""

MAX_LABEL = 63
"""Characters of each of its labels, between two dots."""

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
_BEYOND_ASCII = re.compile(r"[\x80-\xff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NOT_IN_USERINFO = re.compile(r"[@\[\]]")
_HOST_PORT = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]*)(?::([0-9]{0,5}))?")

# A last label like these makes a name an IPv4 address for inet_aton, in whatever notation.
_NUMERIC_LABEL = re.compile(r"(?:0[xX][0-9A-Fa-f]*|[0-9]+)")
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")

# A percent sign in a host that does not escape a byte of a character outside ASCII.
_ODD_ESCAPE = re.compile(r"%(?![89A-Fa-f][0-9A-Fa-f])")

# What IDNA takes for a dot (RFC 3490 §3.1).
_DOTS = re.compile("[.\u3002\uff0e\uff61]")

# Characters that IDNA2003, the standard library's, maps otherwise than IDNA2008.
_DEVIATIONS = re.compile(
    "[\u00df\u03c2\u115f\u1160\u17b4\u17b5\u1806\u200c\u200d"
    "\U0002f868\U0002f874\U0002f91f\U0002f95f\U0002f9bf]"
)

# Unicode's categories of what IDNA2008 allows without a rule for single characters (RFC 5892 §2.1).
_LETTERS = frozenset({"Ll", "Lm", "Lo", "Mc", "Mn", "Nd"})

# RFC 3986 appendix B: scheme, authority, path and query of a reference, without its fragment.
_REFERENCE = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.\-]*):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?")


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
        """The URL as others may see it: without user, password, zone and fragment."""
        return f"{self.scheme}://{self.authority}{self.target}"


def split_url(url: str) -> SplitURL:
    """Return the parts of the absolute URL *url*; ``InvalidURL`` says what is wrong with it.

    In path and query, what is not legal is escaped as UTF-8. The fragment is dropped.
    """
    _check_str(url)
    if found := _CONTROL.search(url):
        raise _invalid(url, f"it has the control character {found[0]!r}")
    if url.strip() != url:
        raise _invalid(url, "it begins or ends with a blank")
    scheme, authority, path, query = _reference(url)
    scheme = (scheme or "").lower()
    if not scheme or authority is None:
        if scheme in PORTS:
            raise _invalid(url, f"{scheme}: must be followed by //")
        raise _invalid(
            url,
            "it has no scheme: write it with http:// or https://, or give the client a base_url=",
        )
    if scheme not in PORTS:
        raise _invalid(url, f"the scheme {scheme!r} is not supported, http and https are")
    userinfo, _, host_port = authority.rpartition("@")
    if "\\" in authority or _NOT_IN_USERINFO.search(userinfo):
        raise _invalid(url, "what stands before the path is ambiguous")
    split = _HOST_PORT.fullmatch(host_port)
    if split is None:
        # With an '@' behind it, it may be a password that has a '/'.
        shown = "what stands before the path" if "@" in redact(url) else repr(host_port)[:MAX_SHOWN]
        raise _invalid(url, f"{shown} is not a host, or a host and a port")
    if not split[1]:
        raise _invalid(url, "it has no host")
    port = int(split[2]) if split[2] else PORTS[scheme]
    if port > 65535:
        raise _invalid(url, f"a port must be 0 to 65535, got {port}")
    try:
        host = encode_host(split[1])
    except InvalidURL as exc:
        raise _invalid(url, str(exc)[:MAX_SHOWN]) from None
    target = path or "/"
    if query is not None:
        target = f"{target}?{query}"
    if PLAIN_TARGET.fullmatch(target) is None:
        target = _escaped(target)
    return SplitURL(scheme, host, port, target, userinfo)


def encode_host(text: str) -> str:
    """Return a URL's host without brackets, in lower-case ASCII; ``InvalidURL`` if it is none.

    IPv4 addresses only in their usual notation: 0x7f.1 or 2130706433 are addresses for some
    programs and names for others. A name has 253 characters at most, each label 63. Names
    outside ASCII are encoded by ``idna``, if that is installed, else by the standard library as
    far as its older IDNA does the same.
    """
    if text.startswith("["):
        host = text[1:-1].replace("%25", "%", 1)  # RFC 6874: the zone's percent sign
        address, percent, zone = host.partition("%")
        try:
            socket.inet_pton(socket.AF_INET6, address)
        except (OSError, ValueError):
            raise InvalidURL(f"not an IPv6 address in brackets: {text!r}") from None
        _check_length(host)
        check_host(host)
        return f"{address.lower()}{percent}{zone}"
    host = text
    if "%" in host:
        host = _unescaped(host)
    # Before the encoding, which takes seconds for a long name. Its labels only after it: many
    # characters may become one.
    _check_length(host)
    if not host.isascii():
        host = _to_ascii(host)
        _check_length(host)
    host = host.lower()
    if not host or "%" in host or ":" in host:
        raise InvalidURL(f"not a host name: {text!r}")
    # After the encoding: it turns some characters into '/' and '@'.
    check_host(host)
    if "*" in host:
        # RFC 3986 allows it, no name has it, and getaddrinfo takes "*" for this machine.
        raise InvalidURL(f"not a host name, it has a '*': {text!r}")
    if len(host) > MAX_LABEL and (longest := max(host.split("."), key=len))[MAX_LABEL:]:
        raise InvalidURL(
            f"not a host name: a label has at most {MAX_LABEL} characters, "
            f"got {len(longest)}: {text!r}"
        )
    last = host.removesuffix(".").rpartition(".")[2]
    # As it was given: a number may be written with characters outside ASCII, too.
    if _NUMERIC_LABEL.fullmatch(last) and not _IPV4.fullmatch(text):
        raise InvalidURL(f"not an IPv4 address of four decimal numbers: {text!r}")
    return host


def _check_length(host: str) -> None:
    """Raise ``InvalidURL`` for what is too long to be a name, or an address with its zone."""
    length = len(host.removesuffix("."))
    if length > MAX_HOST:
        raise InvalidURL(
            f"not a host name: it may have {MAX_HOST} characters, got {length}: {host[:50]!r}..."
        )


def _unescaped(host: str) -> str:
    """Return *host* with its percent-encoded UTF-8 decoded (RFC 3986 §3.2.2); "" if it has other.

    ASCII characters need no escapes, and parsers disagree about them.
    """
    if _ODD_ESCAPE.search(host):
        return ""
    try:
        return unquote(host, errors="strict")
    except UnicodeDecodeError:
        return ""


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
    from unicodedata import category, ucd_3_2_0

    try:
        encoded = host.encode("idna")
        # What it has made of the characters; labels in ASCII it leaves as they are.
        mapped = encoded.decode("idna").lower()
    except UnicodeError as exc:
        raise InvalidURL(f"not a host name: {host!r} ({exc})") from None
    if (
        _DEVIATIONS.search(host + mapped)
        or any(ucd_3_2_0.category(char) == "Cn" for char in host + mapped)
        or any(char not in "-." and category(char) not in _LETTERS for char in mapped)
        or mapped.count(".") != len(_DOTS.findall(host))
    ):
        raise InvalidURL(
            f"{host!r} needs a newer IDNA than the standard library's: "
            'pip install "aiohttpconn[idna]"'
        )
    return encoded.decode("ascii")


def _escaped(target: str) -> str:
    """Percent-encode what may not stand in a path or query, non-ASCII characters as UTF-8."""
    # Names of files may have bytes that are not UTF-8: they keep their values.
    try:
        raw = target.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as exc:
        raise InvalidURL(f"a URL must be encodable as UTF-8: {target[:100]!r} ({exc})") from None
    return _ILLEGAL.sub(lambda byte: b"%%%02X" % byte[0][0], raw).decode("ascii")


def _check_str(url: object) -> None:
    if not isinstance(url, str):
        raise TypeError(f"a URL must be a str, not {type(url).__name__}: {url!r}")


def _invalid(url: str, why: str) -> InvalidURL:
    return InvalidURL(f"cannot use the URL {_shown(url)}: {why}")


def _shown(url: str) -> str:
    """Return *url* as an error may show it: not if what stands before an '@' may be a password."""
    shown = redact(url)
    return "(not shown, it may have a password)" if "@" in shown else repr(shown[:MAX_SHOWN])


def join_base(base: str, url: str) -> str:
    """Return *url* under *base*, which is taken for a folder; an absolute *url* stays as it is.

    The base's host always stays: ``//host`` and ``http:x`` are ``InvalidURL``, whatever RFC 3986
    would make of them, and so is a *base* with a query or fragment. "/a" and "a" are the same:
    both go below the base's path.
    """
    _check_str(url)
    match = _SCHEME.match(url)
    if match is not None and match[1].lower() in PORTS:
        return url
    if match is not None or url.startswith(("//", "\\")):
        raise InvalidURL(f"{_shown(url)} is neither a path below {_shown(base)} nor a whole URL")
    if "?" in base or "#" in base:
        raise InvalidURL(f"{_shown(base)} has a query or fragment, so nothing can be below it")
    if not url or url.startswith("?"):
        return f"{base.rstrip('/')}{url}" if url else base
    return f"{base.rstrip('/')}/{url.lstrip('/')}"


def join_location(url: str, location: str) -> str:
    """Return the URL that a ``Location`` of the response for *url* leads to, without a fragment.

    RFC 3986 §5.2, for a *url* that has a host and a path. *location* is a field value, ISO-8859-1
    as received: bytes beyond ASCII, mostly UTF-8, keep their values as percent-encoded. Raises
    ``InvalidURL`` for what has a scheme and no host.
    """
    base_scheme, base_authority, base_path, base_query = _reference(url)
    scheme, authority, path, query = _reference(location.strip(" \t"))
    if scheme is not None and authority is None:
        raise InvalidURL(f"not a URL to be redirected to: {location[:MAX_SHOWN]!r}")
    if authority is not None:
        # In a host they are a name, for IDNA; elsewhere they are bytes.
        authority = authority.encode("latin-1", "replace").decode("utf-8", "replace")
    elif not path:
        path, query = base_path, base_query if query is None else query
    elif not path.startswith("/"):
        path = f"{base_path[: base_path.rfind('/') + 1]}{path}"
    rest = _without_dots(path) + ("" if query is None else f"?{query}")
    rest = _BEYOND_ASCII.sub(lambda char: f"%{ord(char[0]):02X}", rest)
    return f"{scheme or base_scheme}://{base_authority if authority is None else authority}{rest}"


def _reference(text: str) -> tuple[str | None, str | None, str, str | None]:
    """Return scheme, authority, path and query, None for what is not there."""
    match = _REFERENCE.match(text)
    assert match is not None, "the pattern matches nothing, too"
    return match[1], match[2], match[3], match[4]


def _without_dots(path: str) -> str:
    """Return *path* without "." and ".." segments (RFC 3986 §5.2.4)."""
    segments = path.split("/")[1:]
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments and segments[-1] in (".", ".."):
        kept.append("")
    return "".join(f"/{segment}" for segment in kept)


def add_params(url: str, params: ParamsLike) -> str:
    """Return *url* with *params* at the end of its query, form-encoded; its fragment is dropped."""
    items: Any = params
    if isinstance(items, (str, bytes)):
        raise TypeError(f"params must be a mapping or pairs, not {type(items).__name__}: {items!r}")
    if isinstance(items, Mapping):
        items = items.items()
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
    # Not str(): an Enum formats itself as something else than its value.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value)
    raise TypeError(
        f"the parameter {name!r} must be str, bytes, int, float, bool, None or a list of them, "
        f"not {type(value).__name__}"
    )
