"""The body of a raw response: read and decoded, within limits.

A client's response and its calls share these functions. Their errors name the request, the phase
and the time, and carry what was decoded before them. Layer: client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ...exceptions import (
    BodyTooLarge,
    ContentDecodingError,
    HTTPException,
    IncompleteRead,
    RequestTimeout,
    describe,
)
from .charsets import DEFAULT_ENCODING, DefaultEncoding, charset_of, find_charset
from .decoding import STEP, ContentDecoder, decode_in_steps, decode_small, split_codings
from .text import BOM, TextDecoder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from ...response import HTTPResponse

__all__ = [
    "PIECE",
    "BodyOptions",
    "body_pieces",
    "codings_of",
    "is_truncation",
    "lines_of",
    "read_content",
    "text_pieces",
    "too_large",
]

PIECE = 256 * 1024
"""Bytes of a stream that are decoded at once."""


class BodyOptions(NamedTuple):
    """The options of a client that say how the body of a response is read.

    *max_body*, *max_ratio*: limits of its size. *keeps_truncated*: whether a body that is cut
    short is no error. *default_encoding*: the charset of a text that declares none. *json_loads*:
    the function for ``json()``, None for ``json.loads``.
    """

    max_body: int | None = None
    max_ratio: float | None = None
    keeps_truncated: bool = False
    default_encoding: DefaultEncoding = DEFAULT_ENCODING
    json_loads: Callable[[Any], Any] | None = None


_DECODING_ERRORS = (BodyTooLarge, ContentDecodingError)

E = TypeVar("E", bound=BaseException)


def codings_of(raw: HTTPResponse, url: str) -> list[str]:
    """Return the content codings of *raw*, a response for *url*, in the order of application."""
    values = [value for name, value in raw.raw_headers if name.lower() == "content-encoding"]
    if not values:
        return values
    try:
        return split_codings(values)
    except ContentDecodingError as exc:
        raise _with_details(exc, raw, url) from None


async def read_content(
    raw: HTTPResponse,
    codings: Sequence[str],
    url: str,
    options: BodyOptions,
    on_received: Callable[[], object] | None = None,
) -> tuple[bytes, bool]:
    """Read the rest of *raw*, a response for *url*, and decode it.

    *on_received*: called when *raw* has nothing more to read, before its bytes are decoded.
    Returns the content, and whether it is cut short, which only ``options.keeps_truncated``
    allows. An error with ``partial`` has the decoded bytes there.
    """
    truncated = False
    try:
        data = await _read(raw, options.max_body, bool(codings))
    except Exception as exc:
        partial = getattr(exc, "partial", None)
        if partial is None:
            raise
        truncated = options.keeps_truncated and is_truncation(exc)
        if not truncated:
            if codings:
                if on_received is not None:
                    on_received()
                exc.partial = await _decoded_part(partial, codings, options)  # type: ignore[attr-defined]
            raise
        data = partial
    if not codings or not data:
        return data, truncated
    if on_received is not None:
        on_received()
    try:
        data = await _decoded(data, codings, options)
    except _DECODING_ERRORS as exc:
        if options.keeps_truncated and is_truncation(exc):
            return exc.partial, True  # type: ignore[union-attr]
        raise _with_details(exc, raw, url) from exc.__cause__
    return data, truncated


async def _read(raw: HTTPResponse, max_body: int | None, coded: bool) -> bytes:
    """Read the rest of *raw* as it comes over the wire, *max_body* bytes at most.

    *coded*: the caller decodes it, and *max_body* is the limit of the decoded body.
    """
    if max_body is None:
        return await raw.read()
    # Incompressible content is a little larger encoded than decoded.
    most = max_body + max_body // 8 + 1024 if coded else max_body
    length = raw.length
    if length is not None:
        if length > most:
            raise too_large(raw, max_body)
        return await raw.read()
    data = await raw.read(most + 1)
    if len(data) > most:
        raise too_large(raw, max_body)
    if not raw.complete:
        try:
            await raw.read()  # raises the error that ended the body early
        except (IncompleteRead, RequestTimeout) as exc:
            exc.partial = data + exc.partial
            raise
    return data


async def _decoded(data: bytes, codings: Sequence[str], options: BodyOptions) -> bytes:
    """Return *data*, a body, decoded; other tasks run meanwhile if it is large."""
    most, ratio = options.max_body, options.max_ratio
    out = decode_small(data, codings, max_body=most, max_ratio=ratio)
    if out is not None:
        return out
    steps = decode_in_steps(data, codings, max_body=most, max_ratio=ratio)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            content: bytes = end.value
            return content
        await asyncio.sleep(0)


async def _decoded_part(data: bytes, codings: Sequence[str], options: BodyOptions) -> bytes:
    """Return what *data*, the beginning of a body, decodes to."""
    if not data:
        return data
    try:
        return await _decoded(data, codings, options)
    except ContentDecodingError as exc:
        return exc.partial
    except BodyTooLarge:
        return b""


async def body_pieces(
    raw: HTTPResponse, codings: Sequence[str], url: str, options: BodyOptions
) -> AsyncIterator[bytes]:
    """Iterate over the body of *raw* as it arrives, without *codings*; errors as above."""
    if not codings:
        most = options.max_body
        async for piece in raw.iter_bytes():
            if most is not None and raw.received > most:
                raise too_large(raw, most)
            yield piece
        return
    work = 0
    try:
        decoder = ContentDecoder(codings, max_body=options.max_body, max_ratio=options.max_ratio)
        async for piece in raw.iter_bytes():
            while piece or decoder.pending:
                if out := decoder.feed(piece, PIECE):
                    yield out
                piece = b""
                work += decoder.work
                if work >= STEP:
                    # The consumer may never wait, nor the connection, if it is fast.
                    work = 0
                    await asyncio.sleep(0)
        decoder.finish()
    except _DECODING_ERRORS as exc:
        raise _with_details(exc, raw, url) from exc.__cause__


async def text_pieces(
    pieces: AsyncIterator[bytes], name: str | None, content_type: str, default: DefaultEncoding
) -> AsyncIterator[str]:
    """Iterate over *pieces*, a body, as text without a byte order mark, as they arrive.

    *name*: the result of ``codec_of`` for its charset; None finds it in the first pieces. An error
    is raised after the text that arrived before it.
    """
    begin = b""
    decoder: TextDecoder | None = None
    begun = False
    failure: Exception | None = None
    try:
        async for piece in pieces:
            if decoder is None:
                begin += piece
                if name is None and (name := find_charset(content_type, begin, default)) is None:
                    continue
                decoder = TextDecoder(name)
                piece = begin
            text = decoder.decode(piece)
            if text and not begun:
                text = text.removeprefix(BOM)
                begun = True
            yield text
    except (HTTPException, OSError) as exc:
        failure = exc
    if decoder is None and begin:
        decoder = TextDecoder(name or charset_of(content_type, begin, default))
        yield decoder.decode(begin, failure is None).removeprefix(BOM)
    elif decoder is not None and failure is None:
        yield decoder.decode(b"", True)
    if failure is not None:
        raise failure


async def lines_of(texts: AsyncIterator[str], max_line: int, context: str) -> AsyncIterator[str]:
    """Iterate over the lines of *texts*, without their ends.

    Raises ``BodyTooLarge``, its text after *context*, for one of more than *max_line* characters.
    """
    kept: list[str] = []
    size = 0
    async for text in texts:
        *lines, rest = text.split("\n")
        for line in lines:
            if size + len(line) > max_line:
                raise _line_too_long(max_line, context)
            yield ("".join([*kept, line]) if kept else line).removesuffix("\r")
            kept.clear()
            size = 0
        if rest:
            kept.append(rest)
            size += len(rest)
            if size > max_line:
                raise _line_too_long(max_line, context)
    if last := "".join(kept):
        yield last.removesuffix("\r")


def _line_too_long(max_line: int, context: str) -> BodyTooLarge:
    return BodyTooLarge(
        f"{context}: a line has more than {max_line} characters: iter_lines(max_line=...) "
        "allows longer ones"
    )


def is_truncation(exc: Exception) -> bool:
    """Whether *exc* says that a body is cut short, and has no other fault."""
    return isinstance(exc, IncompleteRead) or getattr(exc, "truncated", False)


def too_large(raw: HTTPResponse, max_body: int) -> BodyTooLarge:
    """Close *raw*, whose body is larger than *max_body*; return the error."""
    announced = f", {raw.received + raw.remaining} announced" if raw.remaining is not None else ""
    raw.close()
    return describe(
        BodyTooLarge(f"a body of more than max_body={max_body} bytes{announced}"),
        method=raw.method,
        url=raw.url,
        phase="receiving the body",
        elapsed=monotonic() - raw.started,
        peer=str(raw.peername or ""),
        request_sent=True,
        response_started=True,
    )


def _with_details(exc: E, raw: HTTPResponse, url: str) -> E:
    """Add the details of the exchange to *exc*, an error of the body of *raw*."""
    return describe(
        exc,
        method=raw.method,
        url=url,
        phase="decoding the body",
        elapsed=monotonic() - raw.started,
        peer=str(raw.peername or ""),
        request_sent=True,
        response_started=True,
    )
