"""The codecs of content codings, with one interface: gzip, deflate, br and zstd.

Each call limits how many bytes come out, because a few bytes may decode to gigabytes. A new coding
is one line in ``DECODERS``. Layer: client; pure.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from typing import Any, Protocol

from .frames import ZSTD_MAGIC, ZstdFrame

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
"""Bytes that a codec gets in one call (zlib copies those that it does not consume), and that the
next codec asks it for."""

MAX_WINDOW_LOG = 23
"""RFC 9659 §3: a window of zstd has at most 8 MiB, which is the memory that a body may take."""

FREE_MEMBERS = 1000
"""Members of one stream that may have any size, as those of appended logs are small."""

MEMBER_BYTES = 256
MEMBER_OUTPUT = 4096
"""Encoded or decoded bytes that allow for one member more. Beginning a member takes 10 µs, as much
as decoding one or two KiB. Members of bgzip and pigz have 64 KiB and more."""


MEMBERS_AT_ONCE = 4
"""Members that begin in one call."""

GZIP_BEGINS = (b"\x1f\x8b",)
ZSTD_BEGINS = (ZSTD_MAGIC, *(b"%c\x2a\x4d\x18" % byte for byte in range(0x50, 0x60)))
"""The first bytes of a member (RFC 1952 §2.3.1), and of a frame (RFC 8878 §3.1)."""


REPLAYED = 16 * 1024
REPLAYED_OUTPUT = 1024 * 1024
"""Encoded and decoded bytes of a br stream that is decoded once more after an error: some ms."""


class TooManyMembers(Exception):
    """A stream has so many members in so few bytes that it must be an attack."""


class Decoder(Protocol):
    """The decoder of one coding; ``bz2.BZ2Decompressor`` has the same interface.

    For broken data it may raise any exception. ``EOFError`` is for data after the end, which the
    caller ignores: servers append stray line ends, zeros and bytes of their own.
    """

    @property
    def needs_input(self) -> bool:
        """False if ``decompress(b"", n)`` may return more; then only b"" may be passed."""

    @property
    def eof(self) -> bool:
        """Whether the body may end here: the stream is complete and has been returned whole."""

    @property
    def unused_data(self) -> bytes:
        """The bytes passed after the end of the stream."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Consume all of *data*, keeping undecoded bytes; return at most *max_length* bytes."""


class _Inflate:
    """The formats of zlib: by *wbits* gzip (31), zlib (15) or raw deflate (-15)."""

    __slots__ = ("_error", "_inflater", "eof", "needs_input", "unused_data")

    def __init__(self, wbits: int) -> None:
        import zlib

        self._inflater = zlib.decompressobj(wbits)
        # The error of broken data, raised after the bytes before it have been returned.
        self._error: Exception | None = None
        self.needs_input = True
        self.eof = False
        self.unused_data = b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if self._error is not None:
            raise self._error
        if self.eof:
            raise EOFError
        inflater = self._inflater
        data = inflater.unconsumed_tail or data
        # 2 µs, and the only way back: after an error zlib returns nothing of a call's output.
        before = inflater.copy()
        try:
            out = inflater.decompress(data, max_length)
        except Exception as exc:
            out = self._before_error(before, data, max_length)
            if not out:
                raise
            self._error = exc
            self.needs_input = False
            return out
        self.eof = inflater.eof
        self.unused_data = inflater.unused_data
        self.needs_input = len(out) < max_length and not inflater.unconsumed_tail
        return out

    def _before_error(self, inflater: Any, data: bytes, max_length: int) -> bytes:
        """Return what *data* decodes to before its error: a search for the byte that is wrong.

        Each failed attempt takes half as many bytes as the one before.
        """
        out = b""
        size = len(data)
        while size and data and len(out) < max_length:
            attempt = inflater.copy()
            try:
                out += attempt.decompress(data[:size], max_length - len(out))
            except Exception:
                size //= 2
            else:
                inflater, data = attempt, data[size:]
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
            # RFC 1950 §2.2. Raw deflate never begins so: its first block would be a stored one
            # with padding that is not zero, which no encoder writes.
            if data[0] & 0x8F == 0x08 and (data[0] << 8 | data[1]) % 31 == 0:
                super().__init__(15)
        return super().decompress(data, max_length)


class Members:
    """A sequence of streams, each with its own decoder, and *padding* after them.

    gzip (RFC 1952 §2.2) and zstd (RFC 8878 §3) allow it. gzip files may be padded with zeros. Other
    bytes after a member, which do not begin one (*begins*), are ignored with all that follows.
    Members are counted, because the limits of size do not bound members that decode to nothing.
    """

    __slots__ = (
        "_begin",
        "_begins",
        "_count",
        "_decoder",
        "_ended",
        "_given",
        "_make",
        "_padding",
        "_rest",
        "_taken",
        "eof",
        "needs_input",
    )

    unused_data = b""

    def __init__(
        self, make: Callable[[], Decoder], begins: tuple[bytes, ...], padding: bytes = b""
    ) -> None:
        self._make = make
        self._begins = begins
        self._padding = padding
        # The first bytes after a member, as long as they may begin another; whether they do not.
        self._begin = b""
        self._ended = False
        self._decoder = make()
        # Members that have begun, encoded bytes consumed, decoded bytes returned.
        self._count = 1
        self._taken = 0
        self._given = 0
        # The bytes that the last member left over when it also returned some.
        self._rest = b""
        self.needs_input = True
        self.eof = False

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if self._ended:
            raise EOFError
        self._taken += len(data)
        rest = self._rest or data
        out = b""
        last = self._count + MEMBERS_AT_ONCE
        while True:
            decoder = self._decoder
            if decoder.eof:
                rest = (self._begin + rest).lstrip(self._padding)
                self._begin = b""
                if not rest:
                    break
                if not any(magic.startswith(rest[: len(magic)]) for magic in self._begins):
                    self._ended = True
                    rest = b""
                    break
                if len(rest) < len(self._begins[0]):
                    self._begin, rest = rest, b""
                    break
                self._count_member()
                decoder = self._decoder = self._make()
            out = decoder.decompress(rest, max_length)
            # One copy per member: as members are counted, a few hundred copies of PIECE bytes.
            rest = decoder.unused_data
            if out or not rest or self._count == last:
                break
        self._given += len(out)
        self._rest = rest
        self.eof = decoder.eof and not rest and not self._begin
        self.needs_input = bool(self._begin) or (not rest and decoder.needs_input)
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
    """No coding: returns the bytes it gets, in pieces of at most *max_length*.

    Also the base of codecs that may return more than *max_length*: it holds the rest for them.
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
        """Return the next *max_length* bytes of the held ones, or of *out* if none are held."""
        start = 0
        if self._held:
            out, start = self._held, self._held_at
        end = start + max_length
        self._held, self._held_at = (out, end) if end < len(out) else (b"", 0)
        return out[start:end]


_AFTER_END = "bytes after the end of the stream"


class _Brotli(Identity):
    """``br`` (RFC 7932), with brotli or brotlicffi.

    After an error the codec returns nothing of a call's output, and it cannot be copied before.
    While the stream is short it is kept, and then decoded once more, byte by byte.
    """

    __slots__ = ("_decoder", "_drained", "_error", "_fed", "_given", "_make")

    def __init__(self) -> None:
        super().__init__()
        module = _brotli_module()
        if module is None:
            raise ImportError("there is neither brotli nor brotlicffi, 1.2 or later")
        self._make = module.Decompressor
        self._decoder = self._make()
        self._drained = True
        # The error of broken data, raised after the bytes before it have been returned.
        self._error: Exception | None = None
        # The stream so far, None once it is too long; decoded bytes that the codec has returned.
        self._fed: bytearray | None = bytearray()
        self._given = 0

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if self.eof:
            # The codec refuses such bytes if they come at once, and then returns nothing.
            raise ValueError(_AFTER_END)
        out = b""
        if not self._held:
            if self._error is not None:
                raise self._error
            # brotli exceeds the limit to fill its block. Even below the limit more output may be
            # left, whatever can_accept_more_data() says; none is left when process() returns b"".
            self._keep(data)
            try:
                out = self._decoder.process(data, output_buffer_limit=min(max_length, PIECE))
            except Exception as exc:
                out, ended = self._before_error()
                self._error = ValueError(_AFTER_END) if ended else exc
                if not out:
                    raise self._error from None
            self._drained = not out
            self._given += len(out)
        out = self._give(out, max_length)
        self.needs_input = self._drained and not self._held and self._error is None
        self.eof = not self._held and self._error is None and self._decoder.is_finished()
        return out

    def _keep(self, data: bytes) -> None:
        fed = self._fed
        if fed is not None:
            fed += data
            if len(fed) > REPLAYED or self._given > REPLAYED_OUTPUT:
                self._fed = None

    def _before_error(self) -> tuple[bytes, bool]:
        """Return (the bytes before the error that have not been returned, whether they are all)."""
        decoder, size = self._make(), 0
        parts: list[bytes] = []
        for byte in self._fed or b"":
            if decoder.is_finished():
                return b"".join(parts)[self._given :], True
            data = bytes([byte])
            try:
                # Some bytes more than the limit may come, and then more of them with b"".
                while size <= REPLAYED_OUTPUT and (out := decoder.process(data)):
                    parts.append(out)
                    size += len(out)
                    data = b""
            except Exception:
                break
        return b"".join(parts)[self._given :], False


def _gzip() -> Decoder:
    return Members(lambda: _Inflate(31), GZIP_BEGINS, padding=b"\0")


def _zstd() -> Decoder:
    name = _zstd_name()
    if not name:
        raise ImportError("there is neither backports.zstd nor, in Python 3.14, compression.zstd")
    module: Any = importlib.import_module(name)
    options = {module.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}
    return Members(lambda: ZstdFrame(module.ZstdDecompressor(options=options)), ZSTD_BEGINS)


DECODERS: dict[str, Callable[[], Decoder]] = {
    "gzip": _gzip,
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _zstd,
}
"""Factories of decoders by the coding's name in lower case, in the order of Accept-Encoding. They
raise ``ImportError`` if the codec is not installed. A coding in ``OPTIONAL`` is in Accept-Encoding
only if it is installed."""

ALIASES = {"x-gzip": "gzip"}
"""Other names of a coding (RFC 9110 §8.4.1.3)."""


def _zstd_name() -> str:
    """Return the name of the module for zstd, "" if none is installed."""
    from importlib.util import find_spec

    if sys.version_info >= (3, 14) and find_spec("_zstd"):
        return "compression.zstd"
    try:
        return "backports.zstd" if find_spec("backports.zstd") else ""
    except ModuleNotFoundError:  # there are no backports at all
        return ""


def _brotli_module() -> Any:
    """Return brotli or brotlicffi, if installed in a version that can limit its output, or None."""
    for name in ("brotli", "brotlicffi"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        # New in 1.2, with output_buffer_limit. An import is faster than a look at the version.
        if hasattr(getattr(module, "Decompressor", None), "can_accept_more_data"):
            return module
    return None


OPTIONAL: dict[str, tuple[Callable[[], bool], str]] = {
    "br": (lambda: _brotli_module() is not None, "aiohttpconn[brotli]"),
    "zstd": (lambda: bool(_zstd_name()), "aiohttpconn[zstd]"),
}
"""Codings that may be missing: a test whether one is installed, and the package to install."""


@functools.cache
def accept_encoding() -> str:
    """Return Accept-Encoding for all installed codings."""
    return ", ".join(name for name in DECODERS if name not in OPTIONAL or OPTIONAL[name][0]())
