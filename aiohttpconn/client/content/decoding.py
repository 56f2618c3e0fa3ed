"""Content codings (RFC 9110 §8.4): decode gzip, deflate, br and zstd within limits.

Bytes in, bytes out. The caller reads the bytes, and decides whether to decode them. Layer: client;
pure.

A few bytes may decode to gigabytes, so each call of a codec limits its output. With several
codings, each codec pulls pieces from the one before: no intermediate result exists as a whole. The
output of each codec is counted, and checked against ``max_body`` and ``max_ratio``. No call does
more than ``STEP`` bytes of work, so that its caller can let other tasks run between two calls.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from ...exceptions import MAX_SHOWN, BodyTooLarge, ContentDecodingError, HTTPException, quote
from .codecs import ALIASES, DECODERS, OPTIONAL, PIECE, Identity, TooManyMembers, accept_encoding
from .labels import codec_of

if TYPE_CHECKING:
    from .codecs import Decoder

__all__ = [
    "MAX_RATIO",
    "STEP",
    "ContentDecoder",
    "decode_in_steps",
    "decode_small",
    "split_codings",
]

MAX_CODINGS = 5
"""Codings of one body, over all its Content-Encoding lines: each may multiply its size and time."""

STEP = 512 * 1024
"""Bytes that go into and come out of all codecs in one call, roughly: 1 to 3 ms."""

CALL = 8 * 1024
"""Bytes of work that a call of a codec counts for at least: it may begin ``MEMBERS_AT_ONCE``."""

MAX_LENGTH = 256 * 1024
"""Bytes that ``feed`` returns by default: more are hardly faster."""

MAX_RATIO = 250.0
"""A client's default ``max_ratio``: text shrinks 3 to 20 times, tables sometimes a hundred times,
zeros a thousand times."""

RATIO_FREE = 8 * 1024 * 1024
"""Decoded bytes that ``max_ratio`` does not limit: a small body of blanks may have any ratio."""

NO_CODINGS = frozenset(
    {"identity", "none", "binary", "7bit", "8bit", "plain", "text", "aws-chunked"}
)
"""Names that servers write although they have not changed the bytes. ``aws-chunked`` is the framing
of an upload, which S3 removes and then repeats the name of."""

NESTED_FREE = 1024 * 1024
"""Bytes that may come out of an inner coding, however few went in."""

NESTED_RATIO = 10
"""Bytes that may come out of an inner coding for each byte that went in. Encoded data hardly shrink
again, except in an attack such as a gigabyte of empty gzip members."""

_MEMBER = 18
"""Bytes of the shortest member of gzip (RFC 1952 §2.3)."""

_QUOTED = 16
"""Bytes of a stream's beginning in an error's text."""


def split_codings(values: Iterable[str], *, strict: bool = False) -> list[str]:
    """Return the codings to decode of a body with *values*, its Content-Encoding lines, in order.

    In lower case, each by its usual name, without names that say nothing of the body's bytes:
    ``NO_CODINGS``, and those of charsets. With any other name that is unknown there are none:
    browsers, too, deliver such a body as it is. With *strict*, as in curl, every name but
    ``identity`` and ``none`` is listed, and one that is unknown is an error of ``ContentDecoder``.
    Raises ``ContentDecodingError`` for more than ``MAX_CODINGS``.
    """
    listed = [item.strip(" \t").lower() for value in values for item in value.split(",")]
    named = [ALIASES.get(name, name) for name in listed if name]
    if strict:
        codings = [name for name in named if name not in ("identity", "none")]
    else:
        codings = [name for name in named if name in DECODERS]
        if len(codings) < len(named):
            for name in named:
                if not (name in DECODERS or name in NO_CODINGS or codec_of(name)):
                    return []
    if len(codings) > MAX_CODINGS:
        raise ContentDecodingError(
            f"the body has {len(codings)} content codings, at most {MAX_CODINGS} are decoded: "
            + _shown(", ".join(codings))
        )
    return codings


def _shown(text: str) -> str:
    return repr(text[:MAX_SHOWN])


def _allowed(
    encoded: int, max_body: int | None, max_ratio: float | None, free: int = RATIO_FREE
) -> float:
    """Return how many bytes *encoded* ones may decode to."""
    allowed = math.inf if max_ratio is None else max(free, max_ratio * encoded)
    if max_body is None or max_body > allowed:
        return allowed
    # Never below 0: one more than -1 is 0, which some codecs take for no limit.
    return max(0, max_body)


class _Bounds:
    """The limits of one body's decoding, and their errors."""

    __slots__ = ("codings", "context", "max_body", "max_ratio")

    def __init__(
        self, codings: Sequence[str], max_body: int | None, max_ratio: float | None, context: str
    ) -> None:
        self.codings = ", ".join(codings) or "identity"
        self.max_body = max_body
        self.max_ratio = max_ratio
        self.context = f"{context}: " if context else ""

    def allowed(self, encoded: int, last: bool) -> float:
        """Return how many bytes *encoded* ones may decode to, in the *last* or an inner coding."""
        if last:
            return _allowed(encoded, self.max_body, self.max_ratio)
        max_body = None if self.max_body is None else self.max_body + NESTED_FREE
        max_ratio = None if self.max_ratio is None else NESTED_RATIO
        return _allowed(encoded, max_body, max_ratio, free=NESTED_FREE)

    def too_large(self, decoded: int, encoded: int, last: bool) -> HTTPException:
        """Return the error for *decoded* bytes, more than *encoded* ones may decode to."""
        if not last:
            return self.error(
                f"the body looks like a decompression bomb: {encoded} bytes of {self.codings} "
                f"decoded to {decoded} or more in an inner coding, although encoded data hardly "
                "shrink again; max_ratio=None and a larger max_body= would allow it"
            )
        if self.max_body is not None and decoded > self.max_body:
            return BodyTooLarge(
                f"{self.context}the body, decoded from {self.codings}, has more than "
                f"max_body={self.max_body} bytes; a larger max_body= would allow it"
            )
        return self.error(
            f"the body looks like a decompression bomb: {encoded} bytes of {self.codings} decoded "
            f"to {decoded} or more, beyond max_ratio={self.max_ratio:g}; a larger max_ratio= would "
            "allow it"
        )

    def error(self, text: str) -> ContentDecodingError:
        return ContentDecodingError(self.context + text)


class _Stage:
    """One coding of a body: its decoder, and the count of decoded bytes."""

    __slots__ = ("begin", "coding", "decoder", "given", "last")

    def __init__(self, coding: str, decoder: Decoder, last: bool) -> None:
        self.coding = coding
        self.decoder = decoder
        self.last = last
        # The first encoded bytes, for errors; the number of decoded bytes.
        self.begin = b""
        self.given = 0


class ContentDecoder:
    """Decode one body as it arrives.

    *codings*: the result of ``split_codings``. The decoded body may have *max_body* bytes, and
    after ``RATIO_FREE`` bytes *max_ratio* times as many as have been fed; None means no limit.
    *context* begins the text of every error. Raises ``ContentDecodingError`` for a coding that is
    unknown or not installed.

    Feed the bytes that arrive, then b"" while ``pending``; at the end call ``finish()``. An error
    is final: each later call raises it again.
    """

    __slots__ = ("_bounds", "_encoded", "_error", "_input", "_pos", "_stages", "pending", "work")

    def __init__(
        self,
        codings: Sequence[str],
        *,
        max_body: int | None,
        max_ratio: float | None,
        context: str = "",
    ) -> None:
        self._bounds = _Bounds(codings, max_body, max_ratio, context)
        # The server applied them in the order of the list (RFC 9110 §8.4), so decoding reverses
        # it: the output of the last stage is the body.
        self._stages = [
            _Stage(coding, self._make(coding), i == 0) for i, coding in enumerate(codings)
        ][::-1] or [_Stage("identity", Identity(), True)]
        self._encoded = 0
        # The bytes from _pos on have not reached the first stage yet.
        self._input = b""
        self._pos = 0
        self._error: HTTPException | None = None
        self.work = 0
        """Bytes of work that the last ``feed`` did: those that went into and came out of codecs."""
        self.pending = False
        """Whether ``feed(b"")`` may return more."""

    def _make(self, coding: str) -> Decoder:
        error = self._bounds.error
        if coding not in DECODERS:
            raise error(
                f"the content coding {_shown(coding)} is not known, "
                f"installed are {accept_encoding()}"
            )
        try:
            return DECODERS[coding]()
        except ImportError as exc:
            hint = f"; pip install '{OPTIONAL[coding][1]}'" if coding in OPTIONAL else ""
            raise error(
                f"the content coding {coding!r} is not installed ({exc}), "
                f"installed are {accept_encoding()}{hint}"
            ) from exc

    def feed(self, data: bytes, max_length: int = MAX_LENGTH) -> bytes:
        """Decode *data*; return at most *max_length* decoded bytes, b"" if none are ready.

        ``pending`` tells whether more may be ready, also after b"": a call does the work of
        ``STEP`` bytes. Bytes fed before all was fetched are kept. Raises ``BodyTooLarge`` or
        ``ContentDecodingError``.
        """
        if max_length < 1:
            raise ValueError(f"max_length must be 1 or more, got {max_length}")
        if self._error is not None:
            raise self._error
        if data:
            self._encoded += len(data)
            self._input = self._input[self._pos :] + data
            self._pos = 0
        self.work = 0
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
        """Raise ``ContentDecodingError`` unless the body is complete.

        A body without a byte is complete: to HEAD, with 304, and as some servers send empty ones.
        """
        if self._error is not None:
            raise self._error
        if self.pending:
            raise ValueError("finish() was called too early: feed(b'') while pending is True")
        for stage in self._stages:
            if stage.begin and not stage.decoder.eof:
                error = self._bounds.error(
                    f"the body is cut short: its {stage.coding} stream has no end "
                    f"(after {self._encoded} bytes, decoded to {stage.given})"
                )
                error.truncated = True
                raise error

    def _pull(self, depth: int, max_length: int) -> bytes:
        """Return the next bytes out of the stage *depth*; b"" if it needs more input, or time."""
        if depth < 0:
            piece = self._input[self._pos : self._pos + PIECE]
            self._pos += len(piece)
            return piece
        stage = self._stages[depth]
        decoder = stage.decoder
        while self.work < STEP:
            data = b""
            if decoder.needs_input or decoder.eof:
                data = self._pull(depth - 1, PIECE)
                if not data:
                    return b""
                if len(stage.begin) < _QUOTED:
                    stage.begin += data[:_QUOTED]
            # One byte above the limit proves that the body exceeds it.
            allowed = self._bounds.allowed(self._encoded, stage.last)
            out = self._decompress(stage, data, int(min(max_length, allowed + 1 - stage.given)))
            self.work += max(CALL, len(data) + len(out))
            if out:
                stage.given += len(out)
                if stage.given > allowed:
                    raise self._bounds.too_large(stage.given, self._encoded, stage.last)
                return out
        return b""

    def _decompress(self, stage: _Stage, data: bytes, max_length: int) -> bytes:
        try:
            return stage.decoder.decompress(data, max_length)
        except EOFError:
            return b""  # browsers ignore bytes after the end of a stream, too
        except MemoryError:
            raise
        except TooManyMembers as exc:
            raise self._bounds.error(
                f"the body looks like a decompression bomb: its {stage.coding} stream has {exc}"
            ) from None
        except Exception as exc:
            # Each codec raises its own type: zlib.error, brotli.error, ZstdError, OSError.
            raise self._bounds.error(
                f"the body is not valid {stage.coding}: {exc} "
                f"(after {stage.given} decoded bytes; it begins with {quote(stage.begin)})"
            ) from exc


def decode_small(
    data: bytes, codings: Sequence[str], *, max_body: int | None, max_ratio: float | None
) -> bytes | None:
    """Return the whole body *data*, decoded, if it is a small member of gzip without a fault.

    Nearly all servers send that and nothing else. None leaves it to ``decode_in_steps``, which
    also raises the error that explains what is wrong.
    """
    if len(codings) != 1 or codings[0] != "gzip" or not _MEMBER <= len(data) <= STEP:
        return None
    # RFC 1952 §2.3.1: ISIZE, which may be wrong.
    size = int.from_bytes(data[-4:], "little")
    if size > min(STEP, _allowed(len(data), max_body, max_ratio)):
        return None
    import zlib

    inflater = zlib.decompressobj(31)
    try:
        out = inflater.decompress(data, size + 1)
    except zlib.error:
        return None
    return out if inflater.eof and not inflater.unused_data else None


def decode_in_steps(
    data: bytes,
    codings: Sequence[str],
    *,
    max_body: int | None,
    max_ratio: float | None,
    context: str = "",
) -> Generator[None, None, bytes]:
    """Decode the whole body *data*; pause after each ``STEP``; return the result.

    Arguments and errors are those of ``ContentDecoder``, but *max_ratio* applies to the whole;
    ``ContentDecoder`` applies it as the body arrives. A ``ContentDecodingError`` has in ``partial``
    the bytes that were decoded before it.
    """
    decoder = ContentDecoder(codings, max_body=max_body, max_ratio=max_ratio, context=context)
    # Its bytes are written once: to join parts in the end would take as long as to decode zeros.
    decoded = BytesIO()
    work = 0
    try:
        decoded.write(decoder.feed(data))
        while decoder.pending:
            work += decoder.work
            if work >= STEP:
                yield
                work = 0
            decoded.write(decoder.feed(b""))
        decoder.finish()
    except ContentDecodingError as exc:
        exc.partial = decoded.getvalue()
        raise
    return decoded.getvalue()
