"""The body of a raw response: read and decoded, within limits.

A client's response and its calls share these functions. Their errors name the request, the phase
and the time. Layer: client.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from ...exceptions import BodyTooLarge, ContentDecodingError, describe
from .decoding import ContentDecoder, decode, split_codings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from ...response import HTTPResponse

__all__ = ["PIECE", "codings_of", "decode_body", "decoded_pieces", "read_body", "too_large"]

PIECE = 256 * 1024
"""Bytes of a stream that are decoded at once."""

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


async def read_body(raw: HTTPResponse, max_body: int | None, coded: bool) -> bytes:
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
    # Raise the error that ended the body early, if one did.
    return data + await raw.read() if not raw.complete else data


def decode_body(
    raw: HTTPResponse,
    data: bytes,
    codings: Sequence[str],
    url: str,
    limits: tuple[int | None, float | None],
) -> bytes:
    """Return *data*, the body of *raw*, without *codings*; *limits* are (max_body, max_ratio)."""
    if not codings or not data:
        return data
    max_body, max_ratio = limits
    try:
        return decode(data, codings, max_body=max_body, max_ratio=max_ratio)
    except _DECODING_ERRORS as exc:
        raise _with_details(exc, raw, url) from exc.__cause__


async def decoded_pieces(
    raw: HTTPResponse, codings: Sequence[str], url: str, limits: tuple[int | None, float | None]
) -> AsyncIterator[bytes]:
    """Iterate over the body of *raw* as it arrives, without *codings*."""
    max_body, max_ratio = limits
    try:
        decoder = ContentDecoder(codings, max_body=max_body, max_ratio=max_ratio)
        empty = True
        async for piece in raw.iter_bytes():
            empty = False
            if out := decoder.feed(piece, PIECE):
                yield out
            while decoder.pending:
                if out := decoder.feed(b"", PIECE):
                    yield out
        if not empty:
            decoder.finish()
    except _DECODING_ERRORS as exc:
        raise _with_details(exc, raw, url) from exc.__cause__


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
