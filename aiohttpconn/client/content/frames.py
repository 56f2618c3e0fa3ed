"""Frames of zstd (RFC 8878), given to their decoder block by block. Layer: client; pure."""

from __future__ import annotations

from typing import Any

__all__ = ["ZSTD_MAGIC", "ZstdFrame"]

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""The first bytes of a frame that is no skippable one (RFC 8878 §3.1.1)."""

MAX_BLOCK = 128 * 1024
"""Bytes that a block has at most (RFC 8878 §3.1.1.2.4)."""

# The part of a frame that comes next. The rest are bytes that no output comes of.
_HEADER, _BLOCK, _REST = range(3)


class ZstdFrame:
    """One frame, with the interface of a ``Decoder``.

    After an error, *decoder* returns nothing of a call's output. It decodes a block as a whole, or
    refuses it: so all blocks before that have been returned, however the frame arrived.
    """

    __slots__ = ("_decoder", "_error", "_held", "_part", "eof", "needs_input")

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        # Bytes that have not reached the decoder yet.
        self._held = b""
        self._part = _HEADER
        # The error of broken data, raised after the bytes before it have been returned.
        self._error: Exception | None = None
        self.needs_input = True
        self.eof = False

    @property
    def unused_data(self) -> bytes:
        """The bytes passed after the end of the frame."""
        unused: bytes = self._decoder.unused_data
        return unused + self._held if self.eof else b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if self._error is not None:
            raise self._error
        decoder = self._decoder
        if decoder.eof:
            raise EOFError
        held = self._held + data
        at = 0
        # Several blocks at once: each of them may be of a byte.
        parts: list[bytes] = []
        left = max_length
        while left > 0 and not decoder.eof:
            try:
                size = self._next(held, at) if decoder.needs_input else 0
                if not size and decoder.needs_input:
                    break
                out = decoder.decompress(held[at : at + size], left)
            except Exception as exc:
                if left == max_length:
                    raise
                self._error = exc
                break
            at += size
            left -= len(out)
            parts.append(out)
        self._held = held[at:]
        self.eof = decoder.eof
        self.needs_input = left > 0 and not self._error and not self.eof and decoder.needs_input
        return b"".join(parts)

    def _next(self, held: bytes, at: int) -> int:
        """Return the length of the part that begins at *at*; 0 if it is not whole yet.

        Raises ``ValueError`` for a block that no frame has.
        """
        there = len(held) - at
        if self._part == _BLOCK:
            return self._block(held, at, there)
        if self._part == _REST:
            return there
        if there < 5:
            return 0
        if not held.startswith(ZSTD_MAGIC, at):
            self._part = _REST
            return there
        # RFC 8878 §3.1.1.1: the descriptor tells how long the header is.
        descriptor = held[at + 4]
        single = descriptor >> 5 & 1
        size = 6 - single + (0, 1, 2, 4)[descriptor & 3] + (single, 2, 4, 8)[descriptor >> 6]
        if there < size:
            return 0
        self._part = _BLOCK
        return size

    def _block(self, held: bytes, at: int, there: int) -> int:
        if there < 3:
            return 0
        # RFC 8878 §3.1.1.2: whether it is the last one, its type, its size.
        header = int.from_bytes(held[at : at + 3], "little")
        kind, size = header >> 1 & 3, header >> 3
        if kind == 3 or size > MAX_BLOCK:
            raise ValueError(f"a block of type {kind} and {size} bytes")
        size = 4 if kind == 1 else 3 + size
        if there < size:
            return 0
        if header & 1:
            self._part = _REST
        return size
