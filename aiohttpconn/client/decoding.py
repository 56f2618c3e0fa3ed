"""Content codings (RFC 9110 §8.4): gzip, deflate, br and zstd taken apart, within bounds.

Bytes in, bytes out: who reads them, and whether a body is decoded at all, is decided elsewhere.
Layer: client; pure.

A few bytes may stand for gigabytes, so each call of a codec says how many it may give. Of several
codings each is asked for a piece by the next: what lies between them never exists as a whole.
What every one has given is counted, and compared with ``max_body`` and ``max_ratio``.

To add a coding is one line in ``DECODERS``.
"""

from __future__ import annotations

import functools
import importlib
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from ..exceptions import MAX_SHOWN, BodyTooLarge, ContentDecodingError, HTTPException, quote

__all__ = [
    "DECODERS",
    "MAX_CODINGS",
    "MAX_LENGTH",
    "MAX_RATIO",
    "PIECE",
    "RATIO_FREE",
    "ContentDecoder",
    "Decoder",
    "accept_encoding",
    "decode",
    "split_codings",
]

MAX_CODINGS = 5
"""Codings of one body, over all its Content-Encoding lines: each may multiply its size and time."""

PIECE = 64 * 1024
"""Bytes that a codec is given in one call, of which zlib copies what it has not taken; and those
that the next one asks it for."""

MAX_LENGTH = 256 * 1024
"""Bytes that ``feed`` returns if it is not told otherwise: more are hardly faster."""

MAX_RATIO = 100.0
"""A client's ``max_ratio``, unless it is given one: text shrinks 3 to 20 times, zeros 1000 times
and more."""

RATIO_FREE = 8 * 1024 * 1024
"""Decoded bytes for which ``max_ratio`` is not asked: small bodies of blanks have any ratio."""

NESTED_FREE = 1024 * 1024
"""Bytes that may come out of a coding that is not the last, however few went in."""

NESTED_RATIO = 10
"""Bytes that come out of such a coding, for each that went in. What is encoded already hardly
shrinks again, unless it was made to cost time: a gigabyte of empty gzip members, for one."""

MAX_WINDOW_LOG = 23
"""RFC 9659 §3: a window of zstd has at most 8 MiB, and so much memory may a body cost."""

_QUOTED = 16
"""Bytes of a stream's beginning that an error shows."""


# The codecs, behind one protocol --------------------------------------------------------------


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


class _Members:
    """Streams that follow one another, each with a decoder of its own, and *padding* behind them.

    gzip (RFC 1952 §2.2) and zstd (RFC 8878 §3) have them. gzip files may be padded with zeros.
    """

    __slots__ = ("_decoder", "_make", "_padding", "_rest", "eof", "needs_input")

    unused_data = b""

    def __init__(self, make: Callable[[], Decoder], padding: bytes = b"") -> None:
        self._make = make
        self._padding = padding
        self._decoder = make()
        # What the last member left over, when it has given something too.
        self._rest = b""
        self.needs_input = True
        self.eof = False

    def decompress(self, data: bytes, max_length: int) -> bytes:
        rest = self._rest or data
        out = b""
        while True:
            decoder = self._decoder
            if decoder.eof:
                rest = rest.lstrip(self._padding)
                if not rest:
                    break
                decoder = self._decoder = self._make()
            out = decoder.decompress(rest, max_length)
            rest = decoder.unused_data
            if out or not rest:
                break
        self._rest = rest
        self.eof = decoder.eof and not rest
        self.needs_input = not rest and (decoder.eof or decoder.needs_input)
        return out


class _Identity:
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


class _Brotli(_Identity):
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


class _Zstandard(_Identity):
    """``zstd`` (RFC 8878) by the zstandard package, the calls of which know no limit.

    It is therefore given only so many blocks as may give what was asked for: a block's header
    tells what it gives, or else its format does, 128 KiB. No more is read of a frame here than
    where its blocks are; whether they are right is the package's business.
    """

    __slots__ = (
        "_charge",
        "_checksum",
        "_decoder",
        "_drained",
        "_in_frame",
        "_left",
        "_pos",
        "_rest",
    )

    MAX_BLOCK = 128 * 1024
    MAX_HEADER = 18

    def __init__(self, module: Any) -> None:
        super().__init__()
        codec = module.ZstdDecompressor(max_window_size=1 << MAX_WINDOW_LOG)
        self._decoder = codec.decompressobj(read_across_frames=True)
        # Input that waits for its turn, from _pos on, and whether nothing can be made of it yet.
        self._rest = b""
        self._pos = 0
        self._drained = True
        # How far it is to the next header, and what the block before it gives at most.
        self._left = 0
        self._charge = 0
        # Whether that header is a block's, and if a checksum follows the last block.
        self._in_frame = False
        self._checksum = False

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if data:
            self._rest = self._rest[self._pos :] + data
            self._pos = 0
        out = b""
        if not self._held:
            start = self._pos
            self._drained = self._walk(max_length)
            out = self._decoder.decompress(self._rest[start : self._pos])
        out = self._give(out, max_length)
        at_end = self._pos == len(self._rest) and not self._left and not self._in_frame
        self.needs_input = self._drained and not self._held
        self.eof = at_end and not self._held
        return out

    def _walk(self, budget: int) -> bool:
        """Move on by blocks that give *budget* bytes or just more; return if there are less."""
        rest = self._rest
        while budget > 0:
            if self._left:
                step = min(self._left, len(rest) - self._pos)
                if not step:
                    return True
                self._pos += step
                self._left -= step
                if not self._left:
                    budget -= self._charge
            else:
                step = self._header(rest[self._pos : self._pos + self.MAX_HEADER])
                if not step:
                    return True
                self._pos += step
        return False

    def _header(self, head: bytes) -> int:
        """Find out what the next header announces; return its length, 0 if it is not whole."""
        if self._in_frame:
            # RFC 8878 §3.1.1.2: last block or not, its type and size: raw, one byte repeated, or
            # compressed.
            if len(head) < 3:
                return 0
            header = int.from_bytes(head[:3], "little")
            kind, size = header >> 1 & 3, header >> 3
            self._left = 1 if kind == 1 else size
            self._charge = size if kind < 2 else self.MAX_BLOCK
            if header & 1:
                self._in_frame = False
                self._left += 4 if self._checksum else 0
            return 3
        if len(head) < 8:
            return 0  # No frame is shorter.
        magic = int.from_bytes(head[:4], "little")
        if magic & 0xFFFFFFF0 == 0x184D2A50:
            # RFC 8878 §3.1.2: a skippable frame, and its size
            self._left = int.from_bytes(head[4:8], "little")
            self._charge = 0
            return 8
        if magic != 0xFD2FB528:
            raise ValueError(f"no frame begins with {quote(head[:4])}")
        # RFC 8878 §3.1.1.1: a window or not, 0 to 4 bytes of dictionary, 0 to 8 of a size
        descriptor = head[4]
        single = descriptor >> 5 & 1
        length = 6 - single + (0, 1, 2, 4)[descriptor & 3] + (single, 2, 4, 8)[descriptor >> 6]
        if len(head) < length:
            return 0
        self._in_frame = True
        self._checksum = bool(descriptor & 4)
        return length


def _gzip() -> Decoder:
    return _Members(lambda: _Inflate(31), padding=b"\0")


def _zstd() -> Decoder:
    name = _zstd_name()
    if not name:
        raise ImportError("there is neither zstandard nor, in Python 3.14, compression.zstd")
    module: Any = importlib.import_module(name)
    if name == "zstandard":
        return _Zstandard(module)
    options = {module.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}
    return _Members(lambda: module.ZstdDecompressor(options=options))


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
    """Return the name of the module that decodes zstd, or "": to import zstandard takes 10 ms."""
    from importlib.util import find_spec

    if sys.version_info >= (3, 14) and find_spec("_zstd"):
        return "compression.zstd"
    return "zstandard" if find_spec("zstandard") else ""


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


# A body, within bounds ------------------------------------------------------------------------


def split_codings(values: Iterable[str]) -> list[str]:
    """Return the codings that *values*, all Content-Encoding lines, list; in their order.

    In lower case, without ``identity``, each by its usual name. ``ContentDecodingError`` if they
    are more than ``MAX_CODINGS``.
    """
    listed = [item.strip(" \t").lower() for value in values for item in value.split(",")]
    named = [ALIASES.get(name, name) for name in listed if name]
    if len(named) > MAX_CODINGS:
        raise ContentDecodingError(
            f"the body has {len(named)} content codings, at most {MAX_CODINGS} are decoded: "
            + _shown(", ".join(named))
        )
    return [name for name in named if name != "identity"]


def _shown(text: str) -> str:
    return repr(text[:MAX_SHOWN])


def _allowed(
    encoded: int, max_body: int | None, max_ratio: float | None, free: int = RATIO_FREE
) -> float:
    """Return how many bytes may be made of *encoded* ones."""
    allowed = math.inf if max_ratio is None else max(free, max_ratio * encoded)
    if max_body is None or max_body > allowed:
        return allowed
    # Never below 0: for some codecs a limit of 0, one more than -1, is none.
    return max(0, max_body)


class _Bounds:
    """How much of a body may be decoded, and the errors for what is not its due."""

    __slots__ = ("codings", "context", "max_body", "max_ratio")

    def __init__(
        self, codings: Sequence[str], max_body: int | None, max_ratio: float | None, context: str
    ) -> None:
        self.codings = ", ".join(codings) or "identity"
        self.max_body = max_body
        self.max_ratio = max_ratio
        self.context = f"{context}: " if context else ""

    def allowed(self, encoded: int, last: bool) -> float:
        """Return how many bytes may be made of *encoded* ones by the *last* coding, or another."""
        if last:
            return _allowed(encoded, self.max_body, self.max_ratio)
        max_body = None if self.max_body is None else self.max_body + NESTED_FREE
        max_ratio = None if self.max_ratio is None else NESTED_RATIO
        return _allowed(encoded, max_body, max_ratio, free=NESTED_FREE)

    def too_large(self, decoded: int, encoded: int, last: bool) -> HTTPException:
        """Return the error for *decoded* bytes, more than is allowed for *encoded* ones."""
        if not last:
            return self.error(
                f"the body looks like a decompression bomb: {encoded} bytes of {self.codings} made "
                f"{decoded} or more on the way, where encoded data hardly shrink again; "
                "max_ratio=None and a larger max_body= would allow it"
            )
        if self.max_body is not None and decoded > self.max_body:
            return BodyTooLarge(
                f"{self.context}the body, decoded from {self.codings}, has more than "
                f"max_body={self.max_body} bytes; a larger max_body= would allow it"
            )
        return self.error(
            f"the body looks like a decompression bomb: {encoded} bytes of {self.codings} made "
            f"{decoded} or more, and only max_ratio={self.max_ratio:g} times as many are allowed; "
            "a larger max_ratio= would allow it"
        )

    def error(self, text: str) -> ContentDecodingError:
        return ContentDecodingError(self.context + text)


class _Stage:
    """One coding of a body: its decoder, and what went through it."""

    __slots__ = ("begin", "coding", "decoder", "given", "last")

    def __init__(self, coding: str, decoder: Decoder, last: bool) -> None:
        self.coding = coding
        self.decoder = decoder
        self.last = last
        self.begin = b""
        self.given = 0


class ContentDecoder:
    """Decode one body as it arrives.

    *codings* is what ``split_codings`` gave. The body may have *max_body* bytes, decoded, and
    beyond ``RATIO_FREE`` *max_ratio* times as many as have been fed; None means no limit.
    *context* begins every error's text. Raises ``ContentDecodingError`` for a coding that is not
    known, or not installed.

    Feed what arrives, then b"" while ``pending``; at the end call ``finish()``. An error is final:
    it is raised again by whatever is called.
    """

    __slots__ = ("_bounds", "_encoded", "_error", "_input", "_pos", "_stages", "pending")

    def __init__(
        self,
        codings: Sequence[str],
        *,
        max_body: int | None,
        max_ratio: float | None,
        context: str = "",
    ) -> None:
        self._bounds = _Bounds(codings, max_body, max_ratio, context)
        # They were applied in the order in which they are listed (RFC 9110 §8.4), so they are
        # taken off in the reverse one: what comes out of the last stage is the body.
        self._stages = [
            _Stage(coding, self._make(coding), i == 0) for i, coding in enumerate(codings)
        ][::-1] or [_Stage("identity", _Identity(), True)]
        self._encoded = 0
        # What was fed and has not reached the first stage, from _pos on.
        self._input = b""
        self._pos = 0
        self._error: HTTPException | None = None
        self.pending = False
        """Whether ``feed(b"")`` may give more."""

    def _make(self, coding: str) -> Decoder:
        error = self._bounds.error
        if coding not in DECODERS:
            raise error(
                f"the content coding {_shown(coding)} is not known, "
                f"those that are installed: {accept_encoding()}"
            )
        try:
            return DECODERS[coding]()
        except ImportError as exc:
            hint = f"; pip install '{OPTIONAL[coding][1]}'" if coding in OPTIONAL else ""
            raise error(
                f"the content coding {coding!r} is not installed ({exc}), "
                f"those that are: {accept_encoding()}{hint}"
            ) from exc

    def feed(self, data: bytes, max_length: int = MAX_LENGTH) -> bytes:
        """Take *data*, and return what can be decoded now, *max_length* bytes of it at most.

        b"" where nothing can. ``pending`` tells if there may be more; what is fed before all of
        that was fetched is kept. Raises ``BodyTooLarge`` or ``ContentDecodingError``.
        """
        if max_length < 1:
            raise ValueError(f"max_length must be 1 or more, got {max_length}")
        if self._error is not None:
            raise self._error
        if data:
            self._encoded += len(data)
            self._input = self._input[self._pos :] + data
            self._pos = 0
        try:
            out = self._pull(len(self._stages) - 1, max_length)
        except HTTPException as exc:
            self._error = exc
            self.pending = False
            self._input = b""
            raise
        self.pending = self._pos < len(self._input)
        for stage in self._stages:
            if not (stage.decoder.needs_input or stage.decoder.eof):
                self.pending = True
        return out

    def finish(self) -> None:
        """Raise ``ContentDecodingError`` unless the body that was fed is complete.

        A body without a byte is: to HEAD, with 304, and as some servers send one that is empty.
        """
        if self._error is not None:
            raise self._error
        if self.pending:
            raise ValueError("finish() before all was fetched: feed(b'') while it is pending")
        for stage in self._stages:
            if stage.begin and not stage.decoder.eof:
                raise self._bounds.error(
                    f"the body is cut short: its {stage.coding} stream has no end "
                    f"(after {self._encoded} bytes, decoded to {stage.given})"
                )

    def _pull(self, depth: int, max_length: int) -> bytes:
        """Return the next bytes that come out of a stage; b"" if it wants more to be fed."""
        if depth < 0:
            piece = self._input[self._pos : self._pos + PIECE]
            self._pos += len(piece)
            return piece
        stage = self._stages[depth]
        decoder = stage.decoder
        while True:
            data = b""
            if decoder.needs_input or decoder.eof:
                data = self._pull(depth - 1, PIECE)
                if not data:
                    return b""
                if len(stage.begin) < _QUOTED:
                    stage.begin += data[:_QUOTED]
            # One byte more than is allowed shows that there are more.
            allowed = self._bounds.allowed(self._encoded, stage.last)
            out = self._decompress(stage, data, int(min(max_length, allowed + 1 - stage.given)))
            if out:
                stage.given += len(out)
                if stage.given > allowed:
                    raise self._bounds.too_large(stage.given, self._encoded, stage.last)
                return out

    def _decompress(self, stage: _Stage, data: bytes, max_length: int) -> bytes:
        try:
            out = stage.decoder.decompress(data, max_length)
            if data := stage.decoder.unused_data:
                raise EOFError
        except MemoryError:
            raise
        except EOFError as exc:
            raise self._bounds.error(
                f"the body goes on behind the end of its {stage.coding} stream, "
                f"with {quote(data[:_QUOTED])}"
            ) from exc
        except Exception as exc:
            # Each codec has a type of its own: zlib.error, brotli.error, ZstdError, OSError.
            raise self._bounds.error(
                f"the body is not valid {stage.coding}: {exc} "
                f"(behind {stage.given} decoded bytes; it begins with {quote(stage.begin)})"
            ) from exc
        return out


def decode(
    data: bytes,
    codings: Sequence[str],
    *,
    max_body: int | None,
    max_ratio: float | None,
    context: str = "",
) -> bytes:
    """Return the whole body *data*, decoded. Arguments and errors: see ``ContentDecoder``.

    The ratio is that of the whole, where a body that arrives is measured on the way.
    """
    if len(codings) == 1 and codings[0] == "gzip" and data:
        import zlib

        # What nearly all servers send, one member and nothing else, at zlib's own speed.
        allowed = _allowed(len(data), max_body, max_ratio)
        inflater = zlib.decompressobj(31)
        try:
            out = inflater.decompress(data, int(min(allowed + 1, sys.maxsize)))
        except zlib.error:
            pass  # The longer way says what is wrong.
        else:
            if len(out) > allowed:
                bounds = _Bounds(codings, max_body, max_ratio, context)
                raise bounds.too_large(len(out), len(data), last=True)
            if inflater.eof and not inflater.unused_data:
                return out
            del out
    decoder = ContentDecoder(codings, max_body=max_body, max_ratio=max_ratio, context=context)
    parts = [decoder.feed(data)]
    while decoder.pending:
        parts.append(decoder.feed(b""))
    decoder.finish()
    return b"".join(parts)
