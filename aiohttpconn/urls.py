"""URLs: split those of a caller or a Location, and make them fit for a request line.

A URL goes out byte for byte as it was given, except that the characters that a browser escapes are
escaped: the percent-encode sets of the WHATWG URL standard, one for paths and one for queries. A
URL about whose host parsers disagree is refused: a program that checks a URL must not connect to
another host than it has checked. Pure. Layer: above net, below the pool.
"""

from __future__ import annotations

import re
import socket
from typing import NamedTuple, TypeAlias
from urllib.parse import unquote

from .exceptions import InvalidURL, redact, shown_refused
from .http11.grammar import check_host, check_target
from .http11.request_head import bracketed
from .types import exact

__all__ = [
    "PLAIN_TARGET",
    "PORTS",
    "Origin",
    "SplitURL",
    "check_raw_target",
    "encode_host",
    "join_base",
    "join_location",
    "split_url",
]

MAX_SHOWN = 300
"""Characters of a URL that an error text shows."""

MAX_HOST = 253
"""Characters of a host name in the DNS, without a final dot (RFC 1035 §2.3.4)."""

MAX_LABEL = 63
"""Characters of each label of a host name."""

PORTS = {"http": 80, "https": 443}
"""The supported schemes and their default ports."""

Origin: TypeAlias = tuple[str, str, int]
"""(scheme, host, port), as RFC 6454 compares them: in lower case, always with a port."""

# https://url.spec.whatwg.org/#path-percent-encode-set: the visible ASCII characters that a path may
# have. A browser turns a backslash into a slash; escaped, it is neither for anyone.
_IN_PATH = r"!$-;=@-\[\]_a-z|~"

# https://url.spec.whatwg.org/#special-query-percent-encode-set: those that a query may have.
_IN_QUERY = r"!$-&(-;=?-~"

# RFC 9112 §3.2.1: origin-form = absolute-path [ "?" query ]
PLAIN_TARGET = re.compile(rf"/[{_IN_PATH}]*+(?:\?[{_IN_QUERY}]*+)?")

_NOT_IN_PATH = re.compile(rb"[^%b]" % _IN_PATH.encode())
_NOT_IN_QUERY = re.compile(rb"[^%b]" % _IN_QUERY.encode())

# https://url.spec.whatwg.org/#fragment-percent-encode-set
_NOT_IN_FRAGMENT = re.compile(rb"[^!#-;=?-_a-~]")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_BEYOND_ASCII = re.compile(r"[\x80-\xff]")
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\xff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NOT_IN_USERINFO = re.compile(r"[@\[\]]")
_HOST_PORT = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]*)(?::([0-9]{0,5}))?")

# With a last label like these, inet_aton takes a name for an IPv4 address.
_NUMERIC_LABEL = re.compile(r"(?:0[xX][0-9A-Fa-f]*|[0-9]+)")
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")

# A percent sign in a host that does not escape a byte of a non-ASCII character.
_ODD_ESCAPE = re.compile(r"%(?![89A-Fa-f][0-9A-Fa-f])")

# The characters that IDNA takes for a dot (RFC 3490 §3.1).
_DOTS = re.compile("[.\u3002\uff0e\uff61]")

# Characters that the standard library's IDNA2003 maps differently from IDNA2008.
_DEVIATIONS = re.compile(
    "[\u00df\u03c2\u115f\u1160\u17b4\u17b5\u1806\u200c\u200d"
    "\U0002f868\U0002f874\U0002f91f\U0002f95f\U0002f9bf]"
)

# Unicode categories whose characters IDNA2008 allows without individual rules (RFC 5892 §2.1).
_LETTERS = frozenset({"Ll", "Lm", "Lo", "Mc", "Mn", "Nd"})

# RFC 3986 appendix B: scheme, authority, path, query and fragment of a reference.
_REFERENCE = re.compile(
    r"(?:([A-Za-z][A-Za-z0-9+.\-]*):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(#[\s\S]*)?"
)


class SplitURL(NamedTuple):
    """The parts of a URL: *host* without brackets, in lower-case ASCII; *target* as it is sent.

    *fragment* begins with its "#", and is "" in a URL that has none.
    """

    scheme: str
    host: str
    port: int
    target: str
    userinfo: str = ""
    fragment: str = ""

    @property
    def origin(self) -> Origin:
        """(scheme, host, port)."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """The value of a Host field: ``host`` or ``host:port``, without default port and zone."""
        host = bracketed(self.host.partition("%")[0])
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def text(self) -> str:
        """The URL without user, password, zone and fragment."""
        return f"{self.scheme}://{self.authority}{self.target}"


def split_url(url: str) -> SplitURL:
    """Return the parts of the absolute URL *url*; raise ``InvalidURL`` if it is not valid.

    What a browser escapes in path, query and fragment is escaped, non-ASCII characters as UTF-8.
    """
    url = _exact(url)
    if found := _CONTROL.search(url):
        raise _invalid(url, f"it has the control character {found[0]!r}")
    if url.strip() != url:
        raise _invalid(url, "it begins or ends with a blank")
    scheme, authority, path, query, fragment = _reference(url)
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
        # With an '@' in the rest, it may be a password that contains a '/'.
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
        target = _escaped(path or "/", _NOT_IN_PATH)
        if query is not None:
            target = f"{target}?{_escaped(query, _NOT_IN_QUERY)}"
    if fragment:
        fragment = _escaped(fragment, _NOT_IN_FRAGMENT)
    return SplitURL(scheme, host, port, target, userinfo, fragment)


def check_raw_target(target: str) -> str:
    """Return *target*, the ``target=`` of a request, which goes out byte for byte.

    Raises ``InvalidURL`` unless it begins with a slash and is visible ASCII: anything else could be
    read as a part of the host, or as more than one request.
    """
    if not isinstance(target, str):
        raise TypeError(f"target must be a str, not {type(target).__name__}: {target!r}")
    target = exact(target)
    if not target.startswith("/"):
        raise InvalidURL(
            f"target must begin with '/', got {target[:MAX_SHOWN]!r}: a connection sends any other "
            "one, client.pool.connection(url)"
        )
    if not target.isascii():
        raise InvalidURL(f"target must be ASCII, got {target[:MAX_SHOWN]!r}")
    check_target(target)
    return target


def encode_host(text: str) -> str:
    """Return a URL's host without brackets, in lower-case ASCII; raise ``InvalidURL`` if invalid.

    IPv4 addresses must be in their usual notation: 0x7f.1 and 2130706433 are addresses for some
    programs and names for others. A name has at most 253 characters, each label 63. Non-ASCII
    names are encoded by ``idna`` if that is installed, else by the standard library's older IDNA
    if the result is the same.
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
    # Check before the encoding, which takes seconds for a long name. Labels are checked after it,
    # because it may map many characters to one.
    _check_length(host)
    if not host.isascii():
        host = _to_ascii(host)
        _check_length(host)
    host = host.lower()
    if not host or "%" in host or ":" in host:
        raise InvalidURL(f"not a host name: {text!r}")
    # Check after the encoding, which turns some characters into '/' and '@'.
    check_host(host)
    if "*" in host:
        # RFC 3986 allows it, but no name has it, and getaddrinfo takes "*" for this machine.
        raise InvalidURL(f"not a host name, it has a '*': {text!r}")
    if len(host) > MAX_LABEL and (longest := max(host.split("."), key=len))[MAX_LABEL:]:
        raise InvalidURL(
            f"not a host name: a label has at most {MAX_LABEL} characters, "
            f"got {len(longest)}: {text!r}"
        )
    last = host.removesuffix(".").rpartition(".")[2]
    # Match the given text: a number may be written with non-ASCII characters, too.
    if _NUMERIC_LABEL.fullmatch(last) and not _IPV4.fullmatch(text):
        raise InvalidURL(f"not an IPv4 address of four decimal numbers: {text!r}")
    return host


def _check_length(host: str) -> None:
    """Raise ``InvalidURL`` if *host* is too long for a name, or for an address with its zone."""
    length = len(host.removesuffix("."))
    if length > MAX_HOST:
        raise InvalidURL(
            f"not a host name: at most {MAX_HOST} characters, got {length}: {host[:50]!r}..."
        )


def _unescaped(host: str) -> str:
    """Return *host* with its percent-encoded UTF-8 decoded (RFC 3986 §3.2.2); "" if invalid.

    Escaped ASCII characters are invalid, too: they need no escapes, and parsers disagree on them.
    """
    if _ODD_ESCAPE.search(host):
        return ""
    try:
        return unquote(host, errors="strict")
    except UnicodeDecodeError:
        return ""


def _to_ascii(host: str) -> str:
    """Return an internationalized name as A-labels (RFC 5890)."""
    try:
        import idna
    except ImportError:
        return _to_ascii_2003(host)
    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError as exc:
        raise InvalidURL(f"not a host name: {host!r} ({exc})") from None


def _to_ascii_2003(host: str) -> str:
    """Encode with the standard library's IDNA2003; ``InvalidURL`` if IDNA2008 may differ."""
    from unicodedata import category, ucd_3_2_0

    try:
        encoded = host.encode("idna")
        # The characters after its mapping; it does not change ASCII labels.
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


def _escaped(part: str, escaped: re.Pattern[bytes]) -> str:
    """Percent-encode the bytes of a URL's *part* that *escaped* matches, in UTF-8."""
    # Bytes of file names that are not UTF-8 keep their values.
    try:
        raw = part.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as exc:
        raise InvalidURL(f"a URL must be encodable as UTF-8: {part[:100]!r} ({exc})") from None
    return escaped.sub(lambda byte: b"%%%02X" % byte[0][0], raw).decode("ascii")


def _exact(url: object) -> str:
    if type(url) is str:
        return url
    if not isinstance(url, str):
        raise TypeError(f"a URL must be a str, not {type(url).__name__}: {url!r}")
    plain: str = exact(url)
    return plain


def _invalid(url: str, why: str) -> InvalidURL:
    return InvalidURL(f"cannot use the URL {_shown(url)}: {why}")


def _shown(url: str) -> str:
    """Return *url* for an error's text, hidden if the part before an '@' may be a password."""
    shown = redact(url)
    return "(not shown, it may have a password)" if "@" in shown else repr(shown[:MAX_SHOWN])


def join_base(base: str, url: str) -> str:
    """Return *url* below *base*, which is taken for a folder; return an absolute *url* unchanged.

    The result always has the host of *base*. ``//host`` and ``http:x``, which RFC 3986 would
    resolve to other hosts, raise ``InvalidURL``, and so does a *base* with a query or fragment.
    "/a" and "a" are the same: both go below the path of *base*.
    """
    url = _exact(url)
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
    """Return the URL of a ``Location`` in the response for *url*, with the fragment that it has.

    Follows RFC 3986 §5.2, for a *url* with a host and a path. *location* is a field value in
    ISO-8859-1, as received: non-ASCII bytes, mostly UTF-8, are percent-encoded. Raises
    ``InvalidURL`` for a scheme without a host.
    """
    base_scheme, base_authority, base_path, base_query, _ = _reference(url)
    scheme, authority, path, query, fragment = _reference(location.strip(" \t"))
    if scheme is not None and authority is None:
        raise InvalidURL(f"not a URL to be redirected to: {shown_refused(redact(location))}")
    if authority is not None:
        # Non-ASCII bytes of a host are a name for IDNA; elsewhere they stay bytes.
        authority = authority.encode("latin-1", "replace").decode("utf-8", "replace")
    elif not path:
        path, query = base_path, base_query if query is None else query
    elif not path.startswith("/"):
        path = f"{base_path[: base_path.rfind('/') + 1]}{path}"
    rest = _without_dots(path) + ("" if query is None else f"?{query}")
    rest = _BEYOND_ASCII.sub(_escape, rest) + _INVISIBLE.sub(_escape, fragment)
    return f"{scheme or base_scheme}://{base_authority if authority is None else authority}{rest}"


def _escape(char: re.Match[str]) -> str:
    return f"%{ord(char[0]):02X}"


def _reference(text: str) -> tuple[str | None, str | None, str, str | None, str]:
    """Return scheme, authority, path and query, None for a missing one; and "#" and fragment."""
    match = _REFERENCE.match(text)
    assert match is not None, "the pattern matches nothing, too"
    return match[1], match[2], match[3], match[4], match[5] or ""


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
