"""Decode and encode the chunked transfer coding (RFC 9112 §7.1).

Layer: the wire; pure.
"""

from __future__ import annotations

import re

from ..exceptions import HTTPException, MalformedResponse, quote
from .grammar import CHUNK_SIZE_LINE, STRICT_CHUNK_EXT
from .limits import CHUNK_OVERHEAD_RATIO, DEFAULT_LIMITS, Limits
from .response_head import parse_fields, split_fields

__all__ = ["LAST_CHUNK", "ChunkedDecoder", "encode_chunk"]

LAST_CHUNK = b"0\r\n\r\n"

# The end of one chunk and the plain size line of the next, in one match.
_NEXT_SIZE = re.compile(rb"\r\n([0-9A-Fa-f]{1,16})\r\n")

_SIZE, _DATA_END, _TRAILERS = range(3)


def encode_chunk(data: bytes | bytearray | memoryview) -> bytes:
    """Return *data* as one chunk. Callers skip empty data: an empty chunk would end the body."""
    return b"".join((b"%X\r\n" % len(data), data, b"\r\n"))


class ChunkedDecoder:
    """Strip the framing of one chunked body.

    ``done`` is set after the last chunk and its trailers; ``trailers`` then holds them as
    (name, value). ``error`` is set when the framing is broken. Content decoded before the error
    is still returned, so that the same bytes come out however the input was split.
    """

    __slots__ = (
        "_carry",
        "_limits",
        "_overhead",
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
        self._overhead = 0
        self._total = 0
        self.chunk_left = 0
        self.done = False
        self.error: HTTPException | None = None
        self.trailers: list[tuple[str, str]] = []

    def decode(self, buffer: bytearray, pos: int, end: int) -> tuple[bytes, int]:
        """Decode ``buffer[pos:end]``; return (content, where the coding ended or *end*).

        Hot: see docs/topics/design.md. A chunk whose size line is plain takes one match.
        """
        pieces: list[memoryview] = []
        view = memoryview(buffer)
        match_next = _NEXT_SIZE.match
        try:
            while pos < end and not self.done:
                left = self.chunk_left
                if not left:
                    pos = self._line(buffer, pos, end)
                    continue
                while True:
                    stop = pos + left
                    if stop > end:
                        pieces.append(view[pos:end])
                        self._total += end - pos
                        self.chunk_left = stop - end
                        pos = end
                        break
                    pieces.append(view[pos:stop])
                    self._total += left
                    pos = stop
                    match = match_next(buffer, pos, end)
                    if match is None:
                        self.chunk_left = 0
                        self._state = _DATA_END
                        break
                    left = int(match[1], 16)
                    pos = match.end()
                    if not left:
                        self.chunk_left = 0
                        self._state = _TRAILERS
                        break
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
        if match[2]:
            # Plain size lines, 18 bytes at most, are not counted: _NEXT_SIZE consumes them when
            # a read has them complete, and the verdict must not depend on how bytes arrive.
            self._overhead += len(line)
            free = self._limits.max_chunk_overhead
            if self._overhead > free + CHUNK_OVERHEAD_RATIO * self._total:
                raise MalformedResponse(
                    f"{self._overhead} bytes of chunk extensions for {self._total} bytes of content"
                )
        self.chunk_left = int(match[1], 16)
        if not self.chunk_left:
            self._state = _TRAILERS

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
