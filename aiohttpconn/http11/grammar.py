"""The rules of RFC 9110 and RFC 9112 as patterns, and validators of a caller's requests.

Each rule stands above its pattern. Validators raise before any byte is sent, and their errors
name what they found. Layer: the wire; pure.
"""

from __future__ import annotations

import functools
import re

from ..exceptions import InvalidURL, shown_refused
from ..types import exact

__all__ = [
    "AUTHORITY_FORM",
    "CHUNK_SIZE_LINE",
    "DIGITS",
    "FIELD_VALUE",
    "HOST_FIELD",
    "MESSAGE_HEAD",
    "ORIGIN_FORM",
    "PLAIN_HEAD",
    "SMALL_CHUNK",
    "STATUS_LINE",
    "STRICT_CHUNK_EXT",
    "TOKEN",
    "ascii_host",
    "check_field",
    "check_host",
    "check_host_field",
    "check_method",
    "check_target",
    "small_chunks",
]

# RFC 9110 §5.6.2: token = 1*tchar
_TCHAR = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
TOKEN = re.compile(rf"{_TCHAR}++")

# RFC 9110 §5.5: field-value = *( VCHAR / obs-text / SP / HTAB ), as one pattern of characters
_VALUE_CHAR = r"[\t\x20-\x7e\x80-\xff]"
FIELD_VALUE = re.compile(rf"{_VALUE_CHAR}*+")
_NOT_IN_VALUE = re.compile(rf"(?!{_VALUE_CHAR}).", re.DOTALL)

# RFC 9112 §4: status-line = HTTP-version SP status-code SP [ reason-phrase ]
# Servers that omit the reason often omit the space before it, too. The pattern accepts that.
_STATUS = rf"HTTP/1\.([0-9]) ([1-9][0-9]{{2}})(?: ({_VALUE_CHAR}*+))?"
STATUS_LINE = re.compile(rf"{_STATUS}\r?\n")

# RFC 9112 §2.1: start-line CRLF *( field-line CRLF ) CRLF, field-line = field-name ":" OWS
# field-value OWS. Nothing in it can backtrack: linear on any input. What repeats a character is
# possessive. What repeats a group is greedy in an atomic group, (?>(?:...)*), here and elsewhere: a
# possessive repeat of a group goes on in the wrong place before CPython 3.11.5 (gh-106052).
MESSAGE_HEAD = re.compile(rf"{_STATUS}\r\n(?>(?:{_TCHAR}++:{_VALUE_CHAR}*+\r\n)*)\r\n")

# The heads that nearly all servers send: HTTP/1.1, a final status, at most one Content-Length or
# one chunked, and no Connection but one keep-alive. The pattern follows the grammar above, and the
# same match tells how the body is delimited. It does not match fields that decide this in any other
# letter case, number or value: a head with such a field is parsed on the slow path.
# No group captures inside a repeat that cannot backtrack: re raises SystemError for some of those.
_OTHER_FIELDS = (
    r"(?>(?:(?![CTct](?i:ontent-length|onnection|ransfer-encoding):)"
    rf"{_TCHAR}++:{_VALUE_CHAR}*+\r\n)*)"
)
_KEEP_ALIVE = rf"(?:[Cc]onnection: [Kk]eep-[Aa]live\r\n{_OTHER_FIELDS})?"
PLAIN_HEAD = re.compile(
    (
        rf"HTTP/1\.1 [2-9][0-9]{{2}} {_VALUE_CHAR}*+\r\n{_OTHER_FIELDS}{_KEEP_ALIVE}"
        r"(?:(?:[Cc]ontent-[Ll]ength: ([0-9]{1,19}+)|[Tt]ransfer-[Ee]ncoding: (chunked))\r\n"
        rf"{_OTHER_FIELDS})?{_KEEP_ALIVE}\r\n"
    ).encode()
)

# RFC 9112 §7.1: chunk-size = 1*HEXDIG, [ chunk-ext ] CRLF; 16 digits hold any 64-bit size.
# Blanks before CRLF are bad whitespace (BWS), which many senders write.
CHUNK_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16}+)([\t ]*+(?:;[\t\x20-\x7e\x80-\xff]*+)?)\r\n")

# RFC 9112 §7.1.1: chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )
_QUOTED = rb'"(?>(?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t\x20-\x7e\x80-\xff])*)"'
STRICT_CHUNK_EXT = re.compile(
    rb"(?>(?:[\t ]*+;[\t ]*+%b[\t ]*+(?>(?:=[\t ]*+(?:%b|%b))?))*)"
    % (TOKEN.pattern.encode(), TOKEN.pattern.encode(), _QUOTED)
)

# Chunks of a few bytes, each behind the line end of the one before: one match takes all of them. A
# pattern cannot count, so each size is a way of its own. A size line has at most 124 bytes.
SMALL_CHUNK = 16
_SHORT_EXT = rb"[\t ]{0,46}+(?:;[\t\x20-\x7e\x80-\xff]{0,61}+)?"
_SHORT_STRICT_EXT = rb"(?:(?=[\t ;][^\r]{0,107}+\r)%b)?" % STRICT_CHUNK_EXT.pattern


@functools.cache
def small_chunks(strict: bool, line_ends: bool) -> re.Pattern[bytes]:
    """Return the pattern of chunks smaller than ``SMALL_CHUNK``; made when it is first used.

    *line_ends*: whether their data may have line ends, with which it looks like framing.
    """
    ways = []
    for size in range(1, SMALL_CHUNK):
        digit = b"%x" % size if size < 10 else b"[%x%X]" % (size, size)
        data = rb"[\s\S]{%d}" % size
        if not line_ends:
            data = rb"(?!\r\n)" + data if size < 3 else rb"[^\r]{%d}" % size
        extension = _SHORT_STRICT_EXT if strict else _SHORT_EXT
        ways.append(rb"%b%b\r\n%b" % (digit, extension, data))
    return re.compile(rb"(?>(?:\r\n0{0,15}+(?:%b))+)" % b"|".join(ways))


# RFC 9110 §8.6: Content-Length = 1*DIGIT. Checked before int(), which accepts '+5', '1_0', blanks.
DIGITS = re.compile(r"[0-9]{1,19}")

# RFC 9112 §3.2.3: authority-form = uri-host ":" port. RFC 6874 §4: no zone of an IPv6 address.
AUTHORITY_FORM = re.compile(r"(?!\[[^\]%]*+%)[^/?#@]+:[0-9]+")

# RFC 9112 §3.2.1: origin-form, of any visible ASCII characters: the caller has quoted the others.
ORIGIN_FORM = re.compile(r"/[\x21-\x7e]*+")

# http.client's own rule for a method (CVE-2020-26116), which is a part of that for a token.
_NOT_IN_METHOD = re.compile(r"[\x00-\x1f]")

# http.client's own rule for a target (CVE-2019-9740): no control character, no space.
_NOT_IN_TARGET = re.compile(r"[\x00-\x20\x7f]")

# RFC 3986 §3.2.2: reg-name = *( unreserved / pct-encoded / sub-delims ); non-ASCII is left to IDNA.
_REG_NAME = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=\x80-\U0010ffff]|%[0-9A-Fa-f]{2})*")
# RFC 1035 §2.3.4: a label has 1 to 63 octets; RFC 1034 §3.1: the last one, the root, is empty.
_LABELS = re.compile(r"(?>(?:[^.]{1,63}+\.)*)[^.]{0,63}+")
# RFC 3986 §3.2.2 IP-literal without its brackets, and RFC 4007's zone after '%'
_IP_LITERAL = re.compile(r"(?=[0-9A-Fa-f.]*+:)[0-9A-Fa-f:.]++(?:%[A-Za-z0-9\-._~%]++)?")

# RFC 9110 §7.2: Host = uri-host [ ":" port ]
HOST_FIELD = re.compile(
    r"(?:(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?"
)


def check_method(method: str) -> None:
    """Raise ``ValueError`` unless *method* is a token (RFC 9110 §9.1)."""
    if not TOKEN.fullmatch(method):
        found = _NOT_IN_METHOD.search(method)
        # Its text is http.client's.
        first = (
            ""
            if found is None
            else (
                f"method can't contain control characters. {method!r} "
                f"(found at least {found.group()!r}): "
            )
        )
        raise ValueError(
            f"{first}a method must be a token of letters, digits and !#$%&'*+-.^_`|~: {method!r}"
        )


def check_target(url: str) -> None:
    """Raise unless *url* can stand in a request line as it is.

    Raises ``InvalidURL`` for a control character or a space, and ``UnicodeEncodeError`` for a
    character outside ASCII: this function never quotes.
    """
    # A path has no credentials.
    has_authority = not url.startswith("/") or url.startswith("//")
    found = _NOT_IN_TARGET.search(url)
    if found:
        shown = shown_refused(url) if has_authority else repr(url)
        raise InvalidURL(
            f"URL can't contain control characters. {shown} (found at least {found.group()!r})"
        )
    try:
        url.encode("ascii")
        return
    except UnicodeEncodeError as exc:
        if not has_authority:
            raise
        error = _masked(exc)
    # Outside of the block above, as an error refers to the one that it is raised beside.
    raise error


def check_host(host: str) -> None:
    """Raise ``InvalidURL`` unless *host* is a name, an IPv4 or an IPv6 address (no brackets)."""
    if not (_IP_LITERAL if ":" in host else _REG_NAME).fullmatch(host):
        raise InvalidURL(f"not a host name or an IP address: {shown_refused(host)}")


def ascii_host(host: str) -> str:
    """Return *host*, a name outside ASCII as A-labels; ``InvalidURL`` if it is none.

    It is the IDNA of http.client: the standard library's, RFC 3490.
    """
    check_host(host)
    if host.isascii():
        # Not by the codec: importing its tables takes longer than a connect.
        if ":" not in host and not _LABELS.fullmatch(host):
            raise InvalidURL(
                f"not a host name: {host!r} has a label that is empty or too long (RFC 1035 §2.3.4)"
            )
        return host
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError as exc:
        raise InvalidURL(f"not a host name: {host!r} ({exc})") from None
    # Check again: IDNA turns some characters into '/' and '@'.
    check_host(name)
    return name


def check_host_field(value: str) -> None:
    """Raise ``ValueError`` unless *value* can stand in a Host field (RFC 9110 §7.2)."""
    if not HOST_FIELD.fullmatch(value):
        raise ValueError(f"not a value for Host (host or host:port): {shown_refused(value)}")


def encode_value(name: str, value: object) -> str:
    """Return *value*, a str, bytes or int, as str; raise ``TypeError`` for anything else."""
    plain = exact(value)
    if isinstance(plain, str):
        return plain
    if isinstance(plain, int):
        return str(plain)
    if isinstance(plain, (bytes, bytearray)):
        return str(memoryview(plain), "latin-1")
    raise TypeError(f"the value of {name} must be str, bytes or int, not {type(value).__name__}")


def check_field(name: object, value: object) -> tuple[str, str]:
    """Return *name* and *value* as str; raise ``ValueError`` if they may not be sent.

    The rules are those of RFC 9110 §5.1 and §5.5. A value outside ISO-8859-1 raises
    ``UnicodeEncodeError``, which is a ``ValueError`` too. No error shows a value: it may
    be secret, and errors end up in logs and bug reports.
    """
    name = exact(name)
    if isinstance(name, (bytes, bytearray)):
        name = str(memoryview(name), "latin-1")
    if not isinstance(name, str):
        raise TypeError(f"a header name must be str or bytes, not {type(name).__name__}: {name!r}")
    if not TOKEN.fullmatch(name):
        raise ValueError(f"Invalid header name {name!r}: it must be a token (RFC 9110 §5.1)")
    text = encode_value(name, value)
    if not FIELD_VALUE.fullmatch(text):
        raise _wrong_value(name, text)
    return name, text


def _wrong_value(name: str, text: str) -> ValueError:
    """Return the error for the value *text*, which cannot be sent in the field *name*."""
    try:
        text.encode("latin-1")
    except UnicodeEncodeError as exc:
        return _masked(exc, f"the value of {name} is not Latin-1; encode it first")
    found = _NOT_IN_VALUE.search(text)
    assert found is not None, "the value did not match"
    return ValueError(
        f"Invalid header value of {name} (not shown): it has a control character, {found[0]!r} "
        f"in position {found.start()}"
    )


def _masked(exc: UnicodeEncodeError, reason: str = "") -> UnicodeEncodeError:
    """Return *exc* without the text that it could not encode, which its ``repr`` shows."""
    masked = "*" * exc.start + exc.object[exc.start]
    return UnicodeEncodeError(exc.encoding, masked, exc.start, exc.start + 1, reason or exc.reason)
