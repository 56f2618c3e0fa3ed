"""Decode and encode the chunked transfer coding (RFC 9112 §7.1).

Layer: the wire; pure.
"""

from __future__ import annotations

import re

from ..exceptions import HTTPException, MalformedResponse, quote
from .grammar import CHUNK_SIZE_LINE, SMALL_CHUNK, STRICT_CHUNK_EXT, small_chunks
from .limits import CHUNK_OVERHEAD_RATIO, DEFAULT_LIMITS, Limits
from .response_head import parse_fields, split_fields

__all__ = ["LAST_CHUNK", "ChunkedDecoder", "encode_chunk"]

LAST_CHUNK = b"0\r\n\r\n"

# The end of one chunk and the size line of the next, in one match.
_NEXT_SIZE = re.compile(rb"\r\n" + CHUNK_SIZE_LINE.pattern)

_SIZES = {digit.encode(): int(digit, 16) for digit in "123456789abcdefABCDEF"}

_SIZE, _DATA_END, _TRAILERS = range(3)

# Bytes of framing that a byte of content allows for, itself included.
_PAID = CHUNK_OVERHEAD_RATIO + 1


def encode_chunk(data: bytes | bytearray | memoryview) -> bytes:
    """Return *data* as one chunk. Callers skip empty data: an empty chunk would end the body."""
    return b"".join((b"%X\r\n" % len(data), data, b"\r\n"))


def _read_small(buffer: bytearray, pos: int, end: int, strict: bool) -> tuple[bytes, int]:
    """Return (content, the position behind it) of the small chunks at *pos*, which may be none."""
    match = small_chunks(strict, False).match(buffer, pos, end)
    if match is not None:
        # No data has a line end: those that there are stand around the size lines.
        return b"".join(match[0].split(b"\r\n")[2::2]), match.end()
    match = small_chunks(strict, True).match(buffer, pos, end)
    if match is None:
        return b"", pos
    pieces: list[bytes] = []
    lines = iter(match[0].split(b"\r\n"))
    next(lines)
    for line in lines:
        size = _SIZES.get(line[:1]) or _SIZES[line.lstrip(b"0")[:1]]
        data = next(lines)
        while len(data) < size:
            data += b"\r\n" + next(lines)
        pieces.append(data)
    return b"".join(pieces), match.end()


class ChunkedDecoder:
    """Strip the framing of one chunked body.

    ``done`` is set after the last chunk and its trailers; ``trailers`` then holds them as
    (name, value). ``error`` is set when the framing is broken. Content decoded before the error
    is still returned, so that the same bytes come out however the input was split.
    """

    __slots__ = (
        "_carry",
        "_framing",
        "_limits",
        "_state",
        "_strict",
        "_total",
        "_trailer_lines",
        "chunk_left",
        "done",
        "error",
        "trailers",
    )

    def __init__(self, limits: Limits = DEFAULT_LIMITS, strict: bool = False) -> None:
        self._limits = limits
        self._strict = strict
        # The part of the framing that comes next when chunk_left is 0.
        self._state = _SIZE
        # The received part of a line, and the complete lines of trailers.
        self._carry = bytearray()
        self._trailer_lines = bytearray()
        # Bytes of framing and of content.
        self._framing = 0
        self._total = 0
        self.chunk_left = 0
        self.done = False
        self.error: HTTPException | None = None
        self.trailers: list[tuple[str, str]] = []

    def decode(self, buffer: bytearray, pos: int, end: int) -> tuple[bytes, int]:
        """Decode ``buffer[pos:end]``; return (content, where the coding ended or *end*).

        Hot: see docs/topics/design.md. Many small chunks take one match, any other takes one each:
        with chunks of one byte, a byte on the wire costs at most 50 times as much as in large ones
        (``benchmarks/micro/chunk_costs.py``).
        """
        pieces: list[bytes | memoryview] = []
        view = memoryview(buffer)
        match_next = _NEXT_SIZE.match
        try:
            while pos < end and not self.done:
                left = self.chunk_left
                if not left:
                    pos = self._line(buffer, pos, end)
                    continue
                start, content = pos, 0
                # Each byte of framing takes one from what is allowed, and one of content adds.
                allowed = self._framing_allowed() + start
                while True:
                    stop = pos + left
                    if stop > end:
                        pieces.append(view[pos:end])
                        content += end - pos
                        self.chunk_left = stop - end
                        pos = end
                        break
                    pieces.append(view[pos:stop])
                    content += left
                    pos = stop
                    if left < SMALL_CHUNK and allowed + _PAID * content - pos > _PAID:
                        # Each of them pays for its own framing, so none needs a check.
                        data, pos = _read_small(buffer, pos, end, self._strict)
                        pieces.append(data)
                        content += len(data)
                    match = match_next(buffer, pos, end)
                    if match is not None:
                        size, extension = match.groups()
                        stop = match.end()
                        if extension and not self._accepts(
                            extension, stop - pos, allowed + _PAID * content - stop
                        ):
                            match = None
                    if match is None:
                        # The rest of the line has to come, or _line says what is wrong with it.
                        self.chunk_left = 0
                        self._state = _DATA_END
                        break
                    left = int(size, 16)
                    pos = stop
                    if not left:
                        self.chunk_left = 0
                        self._state = _TRAILERS
                        break
                self._total += content
                self._framing += pos - start - content
        except HTTPException as exc:
            self.error = exc
        data = bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
        return data, pos

    def _line(self, buffer: bytearray, pos: int, end: int) -> int:
        """Read one line of framing, or the part that has arrived; return the position after it."""
        stop = buffer.find(b"\n", pos, end) + 1
        line = self._carry
        line += buffer[pos : stop or end]
        if self._state == _DATA_END:
            if not b"\r\n".startswith(line[:2]):
                raise MalformedResponse(
                    f"chunk data must be followed by CRLF, got {quote(line[:2])}"
                )
            if stop:
                self._state = _SIZE
                self._framing += len(line)
        elif self._state == _SIZE:
            if len(line) > self._limits.max_chunk_line:
                raise MalformedResponse(
                    f"a chunk-size line of more than {self._limits.max_chunk_line} bytes"
                )
            if stop:
                self._size_line(line)
        else:
            self._trailer_line(line, bool(stop))
        if stop:
            self._carry = bytearray()
        return stop or end

    def _size_line(self, line: bytearray) -> None:
        match = CHUNK_SIZE_LINE.fullmatch(line)
        if match is None or (self._strict and not STRICT_CHUNK_EXT.fullmatch(match[2])):
            raise MalformedResponse(f"not a chunk-size line: {quote(line)}")
        self._framing += len(line)
        # Only a line with an extension can be one too many, so that no plain body is refused.
        if match[2] and self._framing_allowed() < 0:
            raise MalformedResponse(
                f"{self._framing} bytes of framing with chunk extensions for "
                f"{self._total} bytes of content"
            )
        self.chunk_left = int(match[1], 16)
        if not self.chunk_left:
            self._state = _TRAILERS

    def _framing_allowed(self) -> int:
        """Return how many bytes of framing more the content so far allows for."""
        allowed = self._limits.max_chunk_overhead + CHUNK_OVERHEAD_RATIO * self._total
        return allowed - self._framing

    def _accepts(self, extension: bytes, size: int, allowed: int) -> bool:
        """Whether a line may have *extension*: its *size* is with a line end before it."""
        return (
            allowed >= 0
            and size - 2 <= self._limits.max_chunk_line
            and not (self._strict and STRICT_CHUNK_EXT.fullmatch(extension) is None)
        )

    def _trailer_line(self, line: bytearray, whole: bool) -> None:
        """Collect trailers up to the blank line, then parse them like the fields of a head."""
        limits = self._limits
        lines = self._trailer_lines
        if len(line) > limits.max_line:
            raise MalformedResponse(f"a trailer of more than {limits.max_line} bytes")
        if len(lines) + len(line) > limits.max_head_bytes:
            raise MalformedResponse(f"trailers of more than {limits.max_head_bytes} bytes")
        if not whole:
            return
        if not line.endswith(b"\r\n"):
            raise MalformedResponse(f"a trailer must end with CRLF: {quote(line)}")
        lines += line
        if len(line) > 2:
            if lines.count(b"\n") > limits.max_trailers:
                raise MalformedResponse(f"got more than {limits.max_trailers} trailers")
            return
        if len(lines) > 2:
            self.trailers = split_fields(
                parse_fields(lines.decode("latin-1"), 0, self._strict, "trailers")
            )
        self.done = True

    def feed_eof(self) -> bool:
        """Return whether the body is complete, now that the connection has ended.

        Servers often omit the CRLF that ends the body, behind the last chunk or the trailers;
        *strict* requires it (RFC 9112 §8). A trailer that was cut makes the body incomplete.
        """
        if self._state == _TRAILERS and not (self._strict or self.done or self.error):
            # As if it came now: behind a part of a trailer it ends that line, and not the body.
            missing = bytearray(b"\r\n".removeprefix(self._carry))
            self.decode(missing, 0, len(missing))
        return self.done
