"""Heads of HTTP/1.1 responses: parsed, and their fields split on demand.

Pure functions over bytes: no I/O, no clock. chunked.py decodes a chunked body.

One pattern alone validates a response head that follows the grammar; its fields are split only
on demand. Any other head is parsed line by line: a deviation from the grammar is either repaired,
so that the resulting text follows it, or refused.
"""

from __future__ import annotations

import re
from typing import NamedTuple, TypeAlias

from ..exceptions import (
    BadStatusLine,
    HeadTooLarge,
    HTTPException,
    MalformedResponse,
    UnknownProtocol,
    quote,
)
from .grammar import (
    FIELD_VALUE,
    MESSAGE_HEAD,
    PLAIN_HEAD,
    STATUS_LINE,
    TOKEN,
)
from .limits import DEFAULT_LIMITS, MAX_EMPTY_LINES, Limits
from .semantics import FRAMING

__all__ = [
    "BLANKS",
    "CommonHead",
    "HeadReader",
    "ResponseHead",
    "check_status_line",
    "match_common_head",
    "may_begin_response",
    "parse_fields",
    "parse_response_head",
    "split_fields",
]

# Name and value of a field line, in text that MESSAGE_HEAD or parse_fields has accepted.
_FIELD = re.compile(r"(?m)^([^:\r\n]++):[\t ]*+([^\r\n]*+)\r\n")

BLANKS = "\t "
"""Optional whitespace, OWS (RFC 9110 §5.6.3). Python's own definition of white space is wider."""

_LINE_END = "\r\n"


class ResponseHead(NamedTuple):
    """A response's head: ``version`` is 10 or 11; ``text`` follows the grammar exactly."""

    version: int
    status: int
    reason: str
    text: str

    def fields(self) -> list[tuple[str, str]]:
        """Return the fields as (name, value), in the order and letter case of the peer."""
        return split_fields(self.text, self.text.index("\n") + 1)


def split_fields(text: str, start: int = 0) -> list[tuple[str, str]]:
    """Return the (name, value) pairs of the field lines in *text*, which follow the grammar."""
    return [(name, value.rstrip(BLANKS)) for name, value in _FIELD.findall(text, start)]


CommonHead: TypeAlias = tuple[int, int, int, str, bytes, int | None, bool]
"""The result of ``match_common_head``: (whole, size, status, reason, head, length, chunked).

*size* is the size of the head. *whole* is the size of a ``200 OK`` together with its body if the
head tells that, else -1.
"""

_MIN_FIELD = 4
"""Bytes of the shortest field line: ``a:`` and its line end."""


def match_common_head(
    buffer: bytearray, pos: int, end: int, max_fields: int, max_line: int
) -> CommonHead | None:
    """Return the head at the start of ``buffer[pos:end]`` if it is a ``PLAIN_HEAD``, else None.

    It returns None for a head of more than *max_line* bytes, too: one of its lines may be longer.
    Hot: see docs/topics/design.md. One match validates the head and finds its framing, in place
    in the buffer: see benchmarks/micro/plain_head.py. ``HeadReader`` and ``parse_response_head``
    handle the heads that do not match.
    """
    match = PLAIN_HEAD.match(buffer, pos, end)
    if match is None:
        return None
    head = match[0]
    length, chunked = match.groups()
    size = len(head)
    if size > max_line:
        return None
    if size > max_fields * _MIN_FIELD and head.count(b"\n") > max_fields + 2:
        return None
    left = None if length is None else int(length)
    if left is not None and head.startswith(b"HTTP/1.1 200 OK\r\n"):
        return size + left, size, 200, "OK", head, left, False
    reason = head[13 : head.index(b"\r")].decode("latin-1").strip(BLANKS)
    return -1, size, int(head[9:12]), reason, head, left, chunked is not None


def check_status_line(line: bytes | bytearray) -> tuple[int, int, str]:
    """Return (version, status, reason) of a status line with its line end (RFC 9112 §4).

    Raises ``BadStatusLine``, or ``UnknownProtocol`` for a version other than HTTP/1.
    """
    text = line.decode("latin-1")
    match = STATUS_LINE.fullmatch(text)
    if match is None and text.endswith("\r\r\n"):
        # As in a field: see _without_bare_cr.
        text = f"{text.rstrip(_LINE_END)} \r\n"
        match = STATUS_LINE.fullmatch(text)
    if match is None:
        # Control characters in a reason mean nothing: remove them.
        clean = re.sub(r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]", "", text)
        match = STATUS_LINE.fullmatch(clean) if clean[:13] == text[:13] else None
    if match is None:
        bad = line.decode("latin-1").rstrip(_LINE_END)
        if re.match(r"HTTP/([2-9]|[1-9][0-9]+)(\.[0-9]+)? ", text):
            raise UnknownProtocol(bad.split(" ", 1)[0])
        raise BadStatusLine(bad)
    minor, status, reason = match.groups("")
    return 10 if minor == "0" else 11, int(status), reason.strip(BLANKS)


def may_begin_response(data: bytes | bytearray) -> bool:
    """Whether *data* is the beginning of a response, perhaps behind empty lines."""
    data = data[:32].lstrip(b"\r\n")[:5]
    return data == b"HTTP/"[: len(data)]


class HeadReader:
    """Collect a head that arrives in pieces, or that may exceed a limit.

    It scans every byte once. ``buffer`` holds all bytes fed: the head, then the bytes after it.
    """

    __slots__ = (
        "_empty",
        "_limits",
        "_line_start",
        "_lines",
        "_scanned",
        "_used",
        "buffer",
    )

    def __init__(
        self, limits: Limits = DEFAULT_LIMITS, used: int = 0, strict: bool = False
    ) -> None:
        self._limits = limits
        self._used = used
        # Empty lines before the status line that are still skipped.
        self._empty = 0 if strict else MAX_EMPTY_LINES
        self._scanned = 0
        self._line_start = 0
        self._lines = 0
        self.buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> int:
        """Add *data*; return the length of the whole head, or 0 while it is incomplete.

        Raises ``BadStatusLine`` or ``UnknownProtocol`` as soon as the status line is complete,
        ``LineTooLong`` and ``HTTPException`` as soon as a limit is exceeded.
        """
        buffer = self.buffer
        buffer += data
        limits = self._limits
        while True:
            start = self._line_start
            end = buffer.find(b"\n", self._scanned) + 1
            size = (end or len(buffer)) - start
            if size > limits.max_line:
                raise HeadTooLarge(
                    f"got more than {limits.max_line} bytes when reading "
                    f"{'header line' if start else 'status line'}"
                )
            if self._used + start + size > limits.max_head_bytes:
                raise HeadTooLarge(
                    f"got more than {limits.max_head_bytes} bytes when reading the head"
                )
            if not end:
                self._scanned = len(buffer)
                return 0
            if not start:
                if end <= 2 and self._empty and buffer[:end].strip(b"\r\n") == b"":
                    # RFC 9112 §2.2 has it for servers. Clients do the same: a server that ends
                    # its body with a line end too many is then understood.
                    self._empty -= 1
                    self._scanned = 0
                    del buffer[:end]
                    continue
                check_status_line(buffer[:end])
            elif size <= 2 and bytes(buffer[start:end]) in (b"\n", b"\r\n"):
                return end
            else:
                self._lines += 1
                if self._lines > limits.max_fields:
                    raise HTTPException(f"got more than {limits.max_fields} headers")
            self._scanned = self._line_start = end


def parse_response_head(data: bytes | bytearray, *, strict: bool = False) -> ResponseHead:
    """Return the head in *data*, which ends with the blank line (RFC 9112 §2.1, §4, §5).

    Raises ``BadStatusLine``, ``UnknownProtocol``, or ``MalformedResponse`` for a refused head.
    *strict* refuses what is repaired otherwise: deviations from the grammar that servers are known
    to send, and that the RFC allows to repair or that cannot change where the message ends.
    """
    line_end = data.find(b"\n") + 1
    version, status, reason = check_status_line(data[:line_end])
    text = data.decode("latin-1")
    if MESSAGE_HEAD.fullmatch(text):
        return ResponseHead(version, status, reason, text)
    if strict and not (text[:line_end].endswith("\r\n") and STATUS_LINE.match(text)):
        raise MalformedResponse(f"bad line end or reason in {quote(data[:line_end])}")
    fields = parse_fields(text, line_end, strict)
    status_line = f"HTTP/1.{version - 10} {status} {reason}\r\n"
    return ResponseHead(version, status, reason, f"{status_line}{fields}\r\n")


def parse_fields(text: str, start: int, strict: bool, where: str = "head") -> str:
    """Return the field lines of *text* from *start* on, repaired to follow the grammar exactly.

    *text* ends with the blank line. Raises ``MalformedResponse`` for a refused line; the error
    text says *where* it stands, in the head or in the trailers.
    """
    if "\0" in text:
        raise MalformedResponse(f"a NUL byte in the {where}")
    lines: list[str] = []
    dropped = False
    while True:
        end = text.find("\n", start)
        line = text[start:end]
        start = end + 1
        if line.endswith("\r"):
            line = line[:-1]
        elif strict:
            raise _refused("a line that ends without CR", line, where)
        if "\r" in line:
            line = _without_bare_cr(line, strict, where)
        if not line:
            return "".join(lines)
        if line[0] in BLANKS:
            # RFC 9112 §5.2: obs-fold, to be replaced by a space before the value is interpreted,
            # whatever the field, and whatever the line looks like by itself.
            if strict or (not lines and not dropped):
                raise _refused("a line that starts with a blank", line, where)
            if dropped:
                _check_dropped(line, where)
            else:
                lines[-1] = f"{lines[-1][:-2].rstrip(BLANKS)} {line.strip(BLANKS)}\r\n"
            continue
        name, colon, value = line.partition(":")
        dropped = not colon or not TOKEN.fullmatch(name)
        if dropped:
            if strict:
                raise _refused("no field name and colon", line, where)
            _check_dropped(line, where)
            continue
        if strict and not FIELD_VALUE.fullmatch(value):
            raise _refused("a control character in a value", line, where)
        lines.append(f"{name}:{value}\r\n")


def _without_bare_cr(line: str, strict: bool, where: str) -> str:
    """Return *line*, in which a CR is left, with a space for those at its end.

    RFC 9112 §2.2: a bare CR is invalid, or a space. Inside a line it may hide a line end that
    another parser sees, so it is refused there, and where nothing stands before it.
    """
    text = line.rstrip("\r")
    if strict or not text or "\r" in text:
        raise _refused("a CR inside a line", line, where)
    return f"{text} "


def _check_dropped(line: str, where: str) -> None:
    """Refuse a malformed line that names a field which decides where the message ends."""
    lower = line.lower()
    for name in sorted(FRAMING):
        if name in lower:
            raise _refused(f"{name} on a malformed line", line, where)


def _refused(what: str, line: str, where: str) -> MalformedResponse:
    return MalformedResponse(f"{what} in the response's {where}: {quote(line.encode('latin-1'))}")
