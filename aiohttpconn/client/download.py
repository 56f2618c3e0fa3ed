"""download: write a response's body to a file, and continue after a break (RFC 9110 §14).

A part is continued only with a reliable validator, a strong ETag or a date, and the server decides:
it answers If-Range with the rest or with the whole. destination.py owns the file. Layer: client.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Unpack

from ..exceptions import HTTPException, StatusError, TotalTimeout, describe
from ..hooks import awaited
from .content.reading import too_large
from .destination import Version, destination_for
from .fields import field_pairs
from .response import keep_error_body, status_error
from .retries import Retry, backoff, may_retry
from .waiting import within

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable
    from contextlib import AbstractAsyncContextManager

    from ..response import HTTPResponse
    from .destination import Destination
    from .response import Response
    from .settings import RequestOptions, Settings

__all__ = ["Progress", "download"]

Progress = Callable[[int, int | None], object]
"""Called with (bytes written, total bytes or None): before the first write, and after each one; an
awaitable result is awaited."""

BLOCK = 1024 * 1024
"""Bytes of one write, in a thread: a slow disk does not block the loop."""

FLUSH_SECONDS = 0.5
"""After this time fewer bytes are written, too, so that a slow download shows progress."""

KEEP_SECONDS = 1.0
"""Time to write the bytes that came before a failure, which may be the end of the total time."""

ATTEMPTS = Retry(attempts=5, backoff=0.2, max_backoff=5.0)
"""Attempts and waits of a download that breaks without a new byte."""

# RFC 9110 §8.8.3, only strong ones.
_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')

# RFC 9110 §14.4; range units are case-insensitive (§14.1).
_CONTENT_RANGE = re.compile(r"(?i:bytes) ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")


class Streamer(Protocol):
    """The interface of a ``Client`` that ``download`` needs."""

    def stream(
        self, method: str, url: str, **options: Unpack[RequestOptions]
    ) -> AbstractAsyncContextManager[Response]:
        """Mirrors ``Client.stream``."""


class _Range(NamedTuple):
    """A Content-Range: the bytes from *start* to *end*, exclusive, of *size*, None if unknown."""

    start: int
    end: int
    size: int | None


class _Transfer:
    """A download: where its bytes go, and who is told how many are there.

    *decode*: whether a body is written without its content codings.
    """

    def __init__(
        self, into: Destination, progress: Progress | None, settings: Settings, decode: bool
    ) -> None:
        self.into = into
        self.max_body = settings.max_body
        self.decode = decode
        self._total = settings.timeout.total
        self._progress = progress
        self._told: int | None = None

    async def write(
        self, raw: HTTPResponse, data: bytearray, size: int | None, spare: float = 0.0
    ) -> None:
        """Write *data* of *raw*, and tell of a new number of bytes of *size*.

        Within the total time of *raw*, or *spare* seconds if that is more: a disk, or the reader
        of a FIFO, may take for ever.
        """
        into = self.into
        try:
            if data:
                await self._within(raw, spare, "writing the file", into.write(data))
            if self._progress is not None and into.size != self._told:
                self._told = into.size
                told = awaited("progress", self._progress(into.size, size))
                await self._within(raw, spare, "progress", told)
        except Exception:
            into.failed = True
            raise

    async def _within(
        self, raw: HTTPResponse, spare: float, name: str, waiting: Awaitable[object]
    ) -> None:
        deadline = None
        if raw.deadline < inf:
            deadline = max(raw.deadline, asyncio.get_running_loop().time() + spare)
        await within(deadline, partial(self._late, raw, name), waiting)

    def _late(self, raw: HTTPResponse, name: str) -> TotalTimeout:
        return describe(
            TotalTimeout(f"{name} did not end within {self._total:g} s"),
            method=raw.method,
            url=raw.url,
            phase=name,
            elapsed=monotonic() - raw.started,
            request_sent=True,
            response_started=True,
            notes=f"total={self._total:g}",
        )


async def download(
    client: Streamer,
    url: str,
    path: str | bytes | os.PathLike[Any],
    resume: bool,
    progress: Progress | None,
    options: RequestOptions,
    whole_url: str,
    settings: Settings,
) -> Response:
    """Do ``Client.download``. *whole_url*: the URL with all params, which identifies the part.

    *settings*: those of each request; ``max_body`` is for the bytes of the file.

    The caller limits the total time with ``asyncio.timeout``: a ``Timeout`` is for each request,
    and each request that brings a new byte allows for more.
    """
    fields = _own_fields(options)
    decode = options.get("decompress", False)
    # A file that is cut short is not complete, whatever the client's requests allow.
    asked: RequestOptions = {**options, "decompress": decode, "truncated": "error"}
    into = destination_for(path, whole_url)
    transfer = _Transfer(into, progress, settings, decode)
    try:
        if resume:
            into.find()
        best, attempt = into.size, 1
        while True:
            try:
                response = await _attempt(client, url, transfer, fields, asked)
                if response is not None:
                    break
                failure: Exception = HTTPException(
                    f"GET {whole_url}: the server sends none of the missing bytes from byte "
                    f"{into.size} on"
                )
            except Exception as exc:
                goes_on = resume and into.version is not None and not into.failed
                if not (goes_on and may_retry(exc, "GET", ATTEMPTS)):
                    raise
                failure = exc
            # Only a new maximum counts: a server that starts over each time must not loop.
            attempt = 1 if into.size > best else attempt + 1
            best = max(best, into.size)
            if attempt > ATTEMPTS.attempts:
                raise failure
            await asyncio.sleep(backoff(ATTEMPTS, attempt))
        into.finish()
        return response
    finally:
        into.close()


def _own_fields(options: RequestOptions) -> list[tuple[Any, Any]]:
    """Return the caller's header fields, with Accept-Encoding added if it is missing."""
    pairs = list(field_pairs(options.get("headers") or ()))
    names = {name.lower() for name, _ in pairs}
    if not names.isdisjoint(("range", "if-range", b"range", b"if-range")):
        raise ValueError("download sets Range and If-Range itself: do not give them in headers=")
    if names.isdisjoint(("accept-encoding", b"accept-encoding")):
        # The file is to be what the server stores.
        pairs.append(("Accept-Encoding", "identity"))
    return pairs


async def _attempt(
    client: Streamer,
    url: str,
    transfer: _Transfer,
    fields: list[tuple[Any, Any]],
    options: RequestOptions,
) -> Response | None:
    """Fetch the missing bytes; return the response if that completes the download."""
    into = transfer.into
    version = into.version if into.size > 0 else None
    # Ask for the last byte again, so that the range of a complete part is not empty.
    start = into.size - 1
    if version is not None:
        fields = [*fields, ("Range", f"bytes={start}-"), ("If-Range", version.validator)]
    asked: RequestOptions = {**options, "headers": fields}
    async with client.stream("GET", url, **asked) as response:
        if response.status == 416 and version is not None:
            # The file on the server is smaller than the part.
            into.forget()
            return None
        if response.status >= 300:
            raise await _status_error(response, "a response with this status is not a file")
        given = _content_range(response)
        end: int | None
        if not _is_slice(response, given):
            end = size = _begin(response, transfer)
        elif version is None:
            raise await _status_error(
                response, "the server sent a part, but the request has no Range"
            )
        elif given is None or given.start != start or _is_of_another(response, given, into):
            into.forget()
            return None
        else:
            end = given.end
            size = version.size if given.size is None else given.size
            into.remember(version._replace(size=size))
            into.continue_at(start)
        await _receive(response, transfer, end, size)
        # RFC 9110 §14.2: a server may send less than the range asks for. Without a size, the end
        # of its range is the end of the file.
        whole = end if size is None else size
        return response if whole is None or into.size == whole else None


async def _status_error(response: Response, why: str) -> StatusError:
    """Return the error of a *response* that is no file, whose body can be read."""
    await keep_error_body(response, decode=True)
    try:
        response.raise_for_status()
    except StatusError as error:
        return error
    return status_error(response, f"{response.status}: {why}")


def _content_range(response: Response) -> _Range | None:
    """Return the range that is the body of *response*; None if it has none, or an invalid one."""
    kind = response.headers.get("Content-Type", "").lower()
    values = response.headers.get_all("Content-Range", [])
    # RFC 9110 §15.3.7.2: the parts of a multipart body have ranges of their own.
    if len(values) != 1 or kind.startswith("multipart/byteranges"):
        return None
    match = _CONTENT_RANGE.fullmatch(values[0])
    if match is None:
        return None
    start, end = int(match[1]), int(match[2]) + 1
    size = None if match[3] == "*" else int(match[3])
    return _Range(start, end, size) if start < end <= (end if size is None else size) else None


def _is_slice(response: Response, given: _Range | None) -> bool:
    """Whether *response* has a slice of the file: also a 200, if its range is not the whole."""
    if response.status == 206:
        return True
    return given is not None and (given.start > 0 or given.size not in (None, given.end))


def _is_of_another(response: Response, given: _Range, into: Destination) -> bool:
    """Whether *given* is a slice of another version than *into*: If-Range was ignored."""
    version = into.version
    assert version is not None, "only a known version is continued"
    known = version.size
    if known is not None and (given.size not in (None, known) or given.end > known):
        return True
    # RFC 9110 §15.3.7: a 206 need not repeat the coding.
    if _coding(response) not in (None, version.coding):
        return True
    name = "ETag" if version.validator.startswith('"') else "Last-Modified"
    named = response.headers.get(name)
    if into.exact and named is None:
        return False
    return named != version.validator or not (into.exact or given.size == known)


def _coding(response: Response) -> str | None:
    """Return the content codings, "" for identity, None if there is no such field."""
    values = response.headers.get_all("Content-Encoding")
    if values is None:
        return None
    return ", ".join(values).lower().removeprefix("identity")


def _begin(response: Response, transfer: _Transfer) -> int | None:
    """Begin anew, with the whole of *response*; return its size in the file, None if unknown."""
    coding = _coding(response) or ""
    decoded = transfer.decode and coding != ""
    size = None if decoded else response.raw.length
    refuses = response.headers.get("Accept-Ranges", "").lower() == "none"
    validator = "" if decoded or refuses else _validator(response)
    transfer.into.begin(Version(validator, coding, size) if validator else None)
    return size


def _validator(response: Response) -> str:
    """Return the response's strong validator, "" if it has none (RFC 9110 §13.1.5)."""
    headers = response.headers
    etag = headers.get("ETag")
    if etag is not None:
        # If there is an ETag, a date must not replace it.
        return etag if _ETAG.fullmatch(etag) else ""
    from email.utils import parsedate_to_datetime

    modified = headers.get("Last-Modified", "")
    try:
        age = parsedate_to_datetime(headers.get("Date", "")) - parsedate_to_datetime(modified)
        # RFC 9110 §8.8.2.2: the file may change more than once within a second.
        return modified if age.total_seconds() >= 1 else ""
    except (ValueError, TypeError, OverflowError):
        return ""


async def _receive(
    response: Response, transfer: _Transfer, end: int | None, size: int | None
) -> None:
    """Write the body of *response*; discard what is there if the body goes beyond *end*."""
    into, max_body = transfer.into, transfer.max_body
    kept = bytearray()
    await transfer.write(response.raw, kept, size)
    flushed = monotonic()
    try:
        async for piece in response.iter_bytes():
            there = into.at + len(kept) + len(piece)
            if end is not None and there > end:
                into.forget()
                return
            if max_body is not None and there > max_body:
                raise too_large(response.raw, max_body)
            kept += piece
            if len(kept) >= BLOCK or monotonic() - flushed >= FLUSH_SECONDS:
                data, kept = kept, bytearray()
                await transfer.write(response.raw, data, size)
                flushed = monotonic()
    except (HTTPException, OSError):
        # Keep the bytes that arrived before the failure.
        if kept:
            await transfer.write(response.raw, kept, size, KEEP_SECONDS)
        raise
    if kept:
        await transfer.write(response.raw, kept, size)
