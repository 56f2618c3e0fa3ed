"""Content codings (RFC 9110 §8.4): gzip, deflate, br and zstd taken apart, within bounds.

Bytes in, bytes out: who reads them, and whether a body is decoded at all, is decided elsewhere.
Layer: client; pure.

A few bytes may stand for gigabytes, so each call of a codec says how many it may give. Of several
codings each is asked for a piece by the next: what lies between them never exists as a whole.
What every one has given is counted, and compared with ``max_body`` and ``max_ratio``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ...exceptions import MAX_SHOWN, BodyTooLarge, ContentDecodingError, HTTPException, quote
from .codecs import ALIASES, DECODERS, OPTIONAL, PIECE, Identity, TooManyMembers, accept_encoding

if TYPE_CHECKING:
    from .codecs import Decoder

__all__ = ["MAX_RATIO", "ContentDecoder", "decode", "split_codings"]

MAX_CODINGS = 5
"""Codings of one body, over all its Content-Encoding lines: each may multiply its size and time."""

MAX_LENGTH = 256 * 1024
"""Bytes that ``feed`` returns if it is not told otherwise: more are hardly faster."""

MAX_RATIO = 250.0
"""A client's ``max_ratio``, unless it is given one: text shrinks 3 to 20 times, tables sometimes a
hundred, zeros a thousand times."""

RATIO_FREE = 8 * 1024 * 1024
"""Decoded bytes for which ``max_ratio`` is not asked: small bodies of blanks have any ratio."""

NESTED_FREE = 1024 * 1024
"""Bytes that may come out of a coding that is not the last, however few went in."""

NESTED_RATIO = 10
"""Bytes that come out of such a coding, for each that went in. What is encoded already hardly
shrinks again, unless it was made to cost time: a gigabyte of empty gzip members, for one."""

_QUOTED = 16
"""Bytes of a stream's beginning that an error shows."""


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
        # The first of the bytes that it was given, for errors; how many have come out of it.
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
        ][::-1] or [_Stage("identity", Identity(), True)]
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
        except TooManyMembers as exc:
            raise self._bounds.error(
                f"the body looks like a decompression bomb: its {stage.coding} stream has {exc}"
            ) from None
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
