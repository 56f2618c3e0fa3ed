"""The codecs of content codings, behind one protocol: gzip, deflate, br and zstd.

Each call says how many bytes it may give: a few may stand for gigabytes. To add a coding is one
line in ``DECODERS``. Layer: client; pure.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from typing import Any, Protocol

__all__ = [
    "ALIASES",
    "DECODERS",
    "OPTIONAL",
    "PIECE",
    "Decoder",
    "Identity",
    "TooManyMembers",
    "accept_encoding",
]

PIECE = 64 * 1024
"""Bytes that a codec is given in one call, of which zlib copies what it has not taken; and those
that the next one asks it for."""

MAX_WINDOW_LOG = 23
"""RFC 9659 §3: a window of zstd has at most 8 MiB, and so much memory may a body cost."""

FREE_MEMBERS = 1000
"""Members of one stream that may be as small as they like, as logs that were appended to are."""

MEMBER_BYTES = 256
MEMBER_OUTPUT = 4096
"""Encoded or decoded bytes for which there may be one member more. To begin one takes 10 µs, as
much as to decode a KiB or two. Those of bgzip and pigz are for 64 KiB and more."""


class TooManyMembers(Exception):
    """So many members in so few bytes were made to cost time."""


class Decoder(Protocol):
    """One coding's decoder; ``bz2.BZ2Decompressor`` and the standard library's others are such.

    What it raises for broken data may be of any type; ``EOFError`` is for data after the end.
    """

    @property
    def needs_input(self) -> bool:
        """False where ``decompress(b"", n)`` may give more, and only b"" may be passed."""

    @property
    def eof(self) -> bool:
        """Whether the body may end here: the stream is complete, and all of it was given out."""

    @property
    def unused_data(self) -> bytes:
        """What was passed beyond the end of the stream: any is an error."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Take all of *data* (keep what cannot be decoded yet); give *max_length* bytes at most."""


class _Inflate:
    """What zlib decodes: by *wbits* gzip (31), zlib's own format (15) or raw deflate (-15)."""

    __slots__ = ("_inflater", "eof", "needs_input", "unused_data")

    def __init__(self, wbits: int) -> None:
        import zlib

        self._inflater = zlib.decompressobj(wbits)
        self.needs_input = True
        self.eof = False
        self.unused_data = b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        inflater = self._inflater
        if self.eof:
            raise EOFError
        out = inflater.decompress(inflater.unconsumed_tail or data, max_length)
        self.eof = inflater.eof
        self.unused_data = inflater.unused_data
        self.needs_input = len(out) < max_length and not inflater.unconsumed_tail
        return out


class _Deflate(_Inflate):
    """``deflate``: zlib's format (RFC 9110 §8.4.1.2), or raw deflate, which many servers send."""

    __slots__ = ("_head",)

    def __init__(self) -> None:
        super().__init__(-15)
        # The first byte, until the second tells which of the two it is; then None.
        self._head: bytes | None = b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if self._head is not None:
            data = self._head + data
            if len(data) < 2:
                self._head = data
                return b""
            self._head = None
            # RFC 1950 §2.2. No raw deflate begins so: its first block would be a stored one with
            # padding that is not zero, as no encoder writes it.
            if data[0] & 0x8F == 0x08 and (data[0] << 8 | data[1]) % 31 == 0:
                super().__init__(15)
        return super().decompress(data, max_length)


class Members:
    """Streams that follow one another, each with a decoder of its own, and *padding* behind them.

    gzip (RFC 1952 §2.2) and zstd (RFC 8878 §3) have them. gzip files may be padded with zeros.
    Those that decode to nothing have no size that would bound them: they are counted.
    """

    __slots__ = (
        "_count",
        "_decoder",
        "_given",
        "_make",
        "_padding",
        "_rest",
        "_taken",
        "eof",
        "needs_input",
    )

    unused_data = b""

    def __init__(self, make: Callable[[], Decoder], padding: bytes = b"") -> None:
        self._make = make
        self._padding = padding
        self._decoder = make()
        # Members that were begun, bytes that were taken in and that were given.
        self._count = 1
        self._taken = 0
        self._given = 0
        # What the last member left over, when it has given something too.
        self._rest = b""
        self.needs_input = True
        self.eof = False

    def decompress(self, data: bytes, max_length: int) -> bytes:
        self._taken += len(data)
        rest = self._rest or data
        out = b""
        while True:
            decoder = self._decoder
            if decoder.eof:
                rest = rest.lstrip(self._padding)
                if not rest:
                    break
                self._count_member()
                decoder = self._decoder = self._make()
            out = decoder.decompress(rest, max_length)
            # A copy for each member: as these are counted, a few hundred of PIECE bytes.
            rest = decoder.unused_data
            if out or not rest:
                break
        self._given += len(out)
        self._rest = rest
        self.eof = decoder.eof and not rest
        self.needs_input = not rest and decoder.needs_input
        return out

    def _count_member(self) -> None:
        self._count += 1
        paid = self._taken // MEMBER_BYTES + self._given // MEMBER_OUTPUT
        if self._count > FREE_MEMBERS + paid:
            raise TooManyMembers(
                f"{self._count} members or frames in {self._taken} bytes, decoded to "
                f"{self._given}: beyond {FREE_MEMBERS} there may be one for every "
                f"{MEMBER_BYTES} encoded or {MEMBER_OUTPUT} decoded bytes"
            )


class Identity:
    """No coding: what is given comes out again, in pieces of the size that is asked for.

    Below it is what holds the rest for those codecs that may give more than they were asked for.
    """

    __slots__ = ("_held", "_held_at", "eof", "needs_input")

    unused_data = b""

    def __init__(self) -> None:
        self._held = b""
        self._held_at = 0
        self.needs_input = True
        self.eof = False

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._give(data, max_length)
        self.needs_input = self.eof = not self._held
        return out

    def _give(self, out: bytes, max_length: int) -> bytes:
        """Return the next *max_length* bytes of what is held, or of *out* where nothing is."""
        start = 0
        if self._held:
            out, start = self._held, self._held_at
        end = start + max_length
        self._held, self._held_at = (out, end) if end < len(out) else (b"", 0)
        return out[start:end]


class _Brotli(Identity):
    """``br`` (RFC 7932) by brotli or brotlicffi."""

    __slots__ = ("_decoder", "_drained")

    def __init__(self) -> None:
        super().__init__()
        module = _brotli_module()
        if module is None:
            raise ImportError("there is neither brotli nor brotlicffi, 1.2 or later")
        self._decoder = module.Decompressor()
        self._drained = True

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if self.eof:
            raise EOFError
        out = b""
        if not self._held:
            # It fills the block in which it reaches its limit. Below the limit there may be more
            # too, whatever can_accept_more_data() says: none is left when it gives none.
            out = self._decoder.process(data, output_buffer_limit=min(max_length, PIECE))
            self._drained = not out
        out = self._give(out, max_length)
        self.needs_input = self._drained and not self._held
        self.eof = not self._held and self._decoder.is_finished()
        return out


def _gzip() -> Decoder:
    return Members(lambda: _Inflate(31), padding=b"\0")


def _zstd() -> Decoder:
    name = _zstd_name()
    if not name:
        raise ImportError("there is neither backports.zstd nor, in Python 3.14, compression.zstd")
    module: Any = importlib.import_module(name)
    options = {module.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}
    return Members(lambda: module.ZstdDecompressor(options=options))


DECODERS: dict[str, Callable[[], Decoder]] = {
    "gzip": _gzip,
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _zstd,
}
"""How to make a decoder for each coding, by its name in lower case, in the order of
Accept-Encoding. An ``ImportError`` says that it is not installed. A coding that is in ``OPTIONAL``
too is asked for only where it is."""

ALIASES = {"x-gzip": "gzip"}
"""RFC 9110 §8.4.1.3: other names that servers give a coding."""


def _zstd_name() -> str:
    """Return the name of the module that decodes zstd, or ""."""
    from importlib.util import find_spec

    if sys.version_info >= (3, 14) and find_spec("_zstd"):
        return "compression.zstd"
    try:
        return "backports.zstd" if find_spec("backports.zstd") else ""
    except ModuleNotFoundError:  # there are no backports at all
        return ""


def _brotli_module() -> Any:
    """Return brotli or brotlicffi, whichever can limit what a call gives, or None."""
    for name in ("brotli", "brotlicffi"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        # Since 1.2, with output_buffer_limit. To import it is faster than to look up its version.
        if hasattr(getattr(module, "Decompressor", None), "can_accept_more_data"):
            return module
    return None


OPTIONAL: dict[str, tuple[Callable[[], bool], str]] = {
    "br": (lambda: _brotli_module() is not None, "aiohttpconn[brotli]"),
    "zstd": (lambda: bool(_zstd_name()), "aiohttpconn[zstd]"),
}
"""Codings that may not be installed: whether one is, and what to install."""


@functools.cache
def accept_encoding() -> str:
    """Return what Accept-Encoding says: all codings that are installed. Found out once."""
    return ", ".join(name for name in DECODERS if name not in OPTIONAL or OPTIONAL[name][0]())
