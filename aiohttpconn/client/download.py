"""download: write a response's body to a file, and continue after a break (RFC 9110 §14).

An incomplete download is in ``path.part``; ``path.part.json`` has its URL and version. A part is
continued only with a reliable validator, a strong ETag or a date, and the server decides: it
answers If-Range with the rest or with the whole. Layer: client.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import re
from collections.abc import Callable
from inspect import isawaitable
from time import monotonic
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, Unpack

from ..exceptions import HTTPException, StatusError, cut_url
from ..http11.grammar import FIELD_VALUE
from .content.reading import too_large
from .fields import field_pairs
from .retries import Retry, backoff, may_retry

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from .response import Response
    from .settings import RequestOptions

__all__ = ["Progress", "download"]

Progress = Callable[[int, int | None], object]
"""Called with (bytes written, total bytes or None) after each write; an awaitable result is
awaited."""

BLOCK = 1024 * 1024
"""Bytes of one write, in a thread: a slow disk does not block the loop."""

FLUSH_SECONDS = 0.5
"""After this time fewer bytes are written, too, so that a slow download shows progress."""

ATTEMPTS = Retry(attempts=5, backoff=0.2, max_backoff=5.0)
"""Attempts and waits of a download that breaks without a new byte."""

# RFC 9110 §8.8.3, only strong ones.
_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')

# RFC 9110 §14.4
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")


class Streamer(Protocol):
    """The interface of a ``Client`` that ``download`` needs."""

    def stream(
        self, method: str, url: str, **options: Unpack[RequestOptions]
    ) -> AbstractAsyncContextManager[Response]:
        """Mirrors ``Client.stream``."""


class _Part:
    """The file of an incomplete download of *url*."""

    def __init__(self, path: str, url: str) -> None:
        if os.path.isdir(path):
            # Raise now, and not after the whole download.
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        self.path = f"{path}.part"
        self.info = f"{path}.part.json"
        self.url = url
        self.validator = ""
        self.size = 0
        # Where the next byte goes: at *size*, or one before, to receive the last byte again.
        self.at = 0
        # Whether the disk or the caller's progress raised: another request does not help.
        self.failed = False
        self._file: BinaryIO | None = None
        self._writing: asyncio.Future[Any] | None = None

    def find(self) -> None:
        """Load the part of an earlier download, if it is of this URL."""
        try:
            with open(self.info, encoding="utf-8") as file:
                info = json.load(file)
            if info["url"] == self.url and FIELD_VALUE.fullmatch(info["validator"]):
                self.size = os.path.getsize(self.path)
                self.validator = info["validator"]
        except (OSError, ValueError, KeyError, TypeError):
            self.size, self.validator = 0, ""

    def begin(self) -> None:
        """Begin a new, empty part."""
        self.close()
        # A new file: the thread of a cancelled download may still write to the old one.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.size = 0
        self.open(0)

    def open(self, start: int) -> None:
        """Open the part for writing at *start*."""
        if self._file is None:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self._file = os.fdopen(os.open(self.path, flags, 0o666), "r+b", buffering=0)
        self._file.seek(start)
        self.at = start

    def remember(self, validator: str) -> None:
        """Store the version of the part; without a *validator* it cannot be continued."""
        self.validator = validator
        if validator:
            with open(self.info, "w", encoding="utf-8") as file:
                json.dump({"url": self.url, "validator": validator}, file)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.info)

    def forget(self) -> None:
        """Discard the part: the next attempt begins from scratch."""
        self.remember("")
        self.size = 0

    async def write(self, data: bytearray) -> None:
        """Write all of *data*. If cancelled, the thread ends by itself and then closes the file."""
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(None, self._write, data)
        try:
            await asyncio.shield(self._writing)
        finally:
            if self._writing.done():
                self._writing = None
        self.at += len(data)
        self.size = self.at

    def _write(self, data: bytearray) -> None:
        view = memoryview(data)
        # Without a file, the download was cancelled meanwhile.
        while view and (file := self._file) is not None:
            view = view[file.write(view) :]

    def close(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        if self._writing is not None:
            self._writing.add_done_callback(lambda done: (done.exception(), file.close()))
        else:
            file.close()

    def finish(self, path: str) -> None:
        """Rename the complete part to *path*."""
        self.close()
        os.replace(self.path, path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.info)


async def download(
    client: Streamer,
    url: str,
    path: str | os.PathLike[str],
    resume: bool,
    progress: Progress | None,
    options: RequestOptions,
    whole_url: str,
    max_body: int | None,
) -> Response:
    """Do ``Client.download``. *whole_url*: the URL with all params, which identifies the part.

    *max_body*: bytes of the file at most; None is no limit.

    The caller limits the total time with ``asyncio.timeout``: a ``Timeout`` is for each request,
    and each request that brings a new byte allows for more.
    """
    target = os.fspath(path)
    part = _Part(target, whole_url)
    if resume:
        part.find()
    fields = _own_fields(options)
    best, attempt = part.size, 1
    try:
        while True:
            try:
                response = await _attempt(client, url, part, fields, options, progress, max_body)
                if response is not None:
                    part.finish(target)
                    return response
                failure: Exception = HTTPException(
                    f"GET {whole_url}: the server sends none of the missing bytes from byte "
                    f"{part.size} on"
                )
            except Exception as exc:
                goes_on = resume and part.validator and not part.failed
                if not (goes_on and may_retry(exc, "GET", ATTEMPTS)):
                    raise
                failure = exc
            # Only a new maximum counts: a server that starts over each time must not loop.
            attempt = 1 if part.size > best else attempt + 1
            best = max(best, part.size)
            if attempt > ATTEMPTS.attempts:
                raise failure
            await asyncio.sleep(backoff(ATTEMPTS, attempt))
    finally:
        part.close()


def _own_fields(options: RequestOptions) -> list[tuple[Any, Any]]:
    """Return the caller's header fields, with Accept-Encoding added if it is missing."""
    pairs = list(field_pairs(options.get("headers") or ()))
    names = {name.lower() for name, _ in pairs}
    if not names.isdisjoint(("range", "if-range", b"range", b"if-range")):
        raise ValueError("download sets Range and If-Range itself: do not give them in headers=")
    if names.isdisjoint(("accept-encoding", b"accept-encoding")):
        # Ranges count encoded bytes: only a body without a coding can be continued.
        pairs.append(("Accept-Encoding", "identity"))
    return pairs


async def _attempt(
    client: Streamer,
    url: str,
    part: _Part,
    fields: list[tuple[Any, Any]],
    options: RequestOptions,
    progress: Progress | None,
    max_body: int | None,
) -> Response | None:
    """Fetch the missing bytes of *part*; return the response if that completes it."""
    continued = part.size > 0 and part.validator != ""
    # Ask for the last byte again, so that the range of a complete part is not empty.
    start = part.size - 1 if continued else 0
    if continued:
        fields = [*fields, ("Range", f"bytes={start}-"), ("If-Range", part.validator)]
    asked: RequestOptions = {**options, "headers": fields}
    async with client.stream("GET", url, **asked) as response:
        if response.status == 416 and continued:
            # The file on the server is smaller than the part.
            part.forget()
            return None
        response.raise_for_status()
        if response.status >= 300:
            raise _status_error(response, "a response with this status is not a file")
        if response.status != 206:
            end = total = _begin(response, part)
        elif not continued:
            raise _status_error(response, "the server sent a part, but the request has no Range")
        else:
            given = _content_range(response)
            if given is None or given[0] != start or _is_of_another(response, part):
                part.forget()
                return None
            _, end, total = given
            part.open(start)
        await _receive(response, part, end, total, progress, max_body)
        # RFC 9110 §14.2: a server may send less than the range asks for. Without a total size, the
        # end of its range is the end of the file.
        whole = end if total is None else total
        return response if whole is None or part.size == whole else None


def _status_error(response: Response, why: str) -> StatusError:
    error = StatusError(f"GET {cut_url(response.url)}: {response.status}: {why}")
    error.status = response.status
    error.response = response
    return error


def _content_range(response: Response) -> tuple[int, int, int | None] | None:
    """Return the start, end (exclusive) and total size of a 206; None if they are invalid."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None:
        return None
    start, end = int(match[1]), int(match[2]) + 1
    total = None if match[3] == "*" else int(match[3])
    return (start, end, total) if start < end <= (end if total is None else total) else None


def _is_of_another(response: Response, part: _Part) -> bool:
    """Whether a 206 is encoded or of another version than *part*: the server ignored If-Range."""
    name = "ETag" if part.validator.startswith('"') else "Last-Modified"
    return response.headers.get(name, part.validator) != part.validator or _is_coded(response)


def _is_coded(response: Response) -> bool:
    return bool(response.headers.get("Content-Encoding", "identity") != "identity")


def _begin(response: Response, part: _Part) -> int | None:
    """Prepare *part* for the whole of *response*; return its size, None if unknown."""
    part.begin()
    coded = _is_coded(response)
    refuses = response.headers.get("Accept-Ranges", "") == "none"
    part.remember("" if coded or refuses else _validator(response))
    return None if coded else response.raw.length


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
    response: Response,
    part: _Part,
    end: int | None,
    total: int | None,
    progress: Progress | None,
    max_body: int | None,
) -> None:
    """Write the body of *response*; discard the part if the body goes beyond *end*."""
    kept = bytearray()
    flushed = monotonic()

    async def flush() -> None:
        nonlocal kept, flushed
        data, kept = kept, bytearray()
        try:
            await part.write(data)
            flushed = monotonic()
            if progress is not None:
                result = progress(part.size, total)
                if isawaitable(result):
                    await result
        except Exception:
            part.failed = True
            raise

    try:
        async for piece in response.iter_bytes():
            there = part.at + len(kept) + len(piece)
            if end is not None and there > end:
                part.forget()
                return
            if max_body is not None and there > max_body:
                raise too_large(response.raw, max_body)
            kept += piece
            if len(kept) >= BLOCK or monotonic() - flushed >= FLUSH_SECONDS:
                await flush()
    except (HTTPException, OSError):
        # Keep the bytes that arrived before the failure.
        if kept:
            await flush()
        raise
    if kept:
        await flush()
