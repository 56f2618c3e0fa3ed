"""download: a response's body to a file, continued where it broke off (RFC 9110 §14).

What has arrived is in ``path.part``; beside it, ``path.part.json`` says of which URL and of which
version it is. Only with a validator that both sides trust, a strong ETag or a date, is a part
continued, and the server decides: If-Range gets the rest, or all. Layer: client.
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
from .policy import Retry, backoff, may_retry

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from .response import Response
    from .settings import RequestOptions

__all__ = ["Progress", "download"]

Progress = Callable[[int, int | None], object]
"""Called, and awaited if it can be, with (bytes there, bytes in all or None) when some were
written."""

BLOCK = 1024 * 1024
"""Bytes that are written at once, in a thread: a slow disk stops nobody else."""

FLUSH_SECONDS = 0.5
"""After which fewer bytes are written, too: of a slow download there is progress to be shown."""

ATTEMPTS = Retry(attempts=5, backoff=0.2, max_backoff=5.0)
"""How often a download is continued that breaks off without another byte, and after how long."""

# RFC 9110 §8.8.3, of strong ones only.
_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')

# RFC 9110 §14.4
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")


class Streamer(Protocol):
    """What downloads: a ``Client``."""

    def stream(
        self, method: str, url: str, **options: Unpack[RequestOptions]
    ) -> AbstractAsyncContextManager[Response]:
        """Mirrors ``Client.stream``."""


class _Part:
    """The file that a download of *url* is written to until it is whole."""

    def __init__(self, path: str, url: str) -> None:
        if os.path.isdir(path):
            # Known now, and not only when all of it has arrived.
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        self.path = f"{path}.part"
        self.info = f"{path}.part.json"
        self.url = url
        self.validator = ""
        self.size = 0
        # Where the next byte goes: at *size*, or one before it, whose byte comes once more.
        self.at = 0
        # Whether the disk or the caller's progress raised: another request mends neither.
        self.failed = False
        self._file: BinaryIO | None = None
        self._writing: asyncio.Future[Any] | None = None

    def find(self) -> None:
        """Take up what an earlier download has left, if it is of this URL."""
        try:
            with open(self.info, encoding="utf-8") as file:
                info = json.load(file)
            if info["url"] == self.url and FIELD_VALUE.fullmatch(info["validator"]):
                self.size = os.path.getsize(self.path)
                self.validator = info["validator"]
        except (OSError, ValueError, KeyError, TypeError):
            self.size, self.validator = 0, ""

    def begin(self) -> None:
        """Write from the beginning."""
        self.close()
        # A new file: into the old one, a download that was cancelled may still be writing.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.size = 0
        self.open(0)

    def open(self, start: int) -> None:
        """Write from *start* on, over what is there."""
        if self._file is None:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self._file = os.fdopen(os.open(self.path, flags, 0o666), "r+b", buffering=0)
        self._file.seek(start)
        self.at = start

    def remember(self, validator: str) -> None:
        """Note of which version the part is; without *validator* it cannot be continued."""
        self.validator = validator
        if validator:
            with open(self.info, "w", encoding="utf-8") as file:
                json.dump({"url": self.url, "validator": validator}, file)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.info)

    def forget(self) -> None:
        """The part is of no use: the next attempt begins anew."""
        self.remember("")
        self.size = 0

    async def write(self, data: bytearray) -> None:
        """Write *data* whole. Cancelled, its thread ends by itself, and the file is closed then."""
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
        # Closed meanwhile: it was cancelled.
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
        """The part is whole."""
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
) -> Response:
    """Mirrors ``Client.download``. *whole_url* tells what a part is of.

    How long it takes in all is the caller's to say, with ``asyncio.timeout``: a ``Timeout`` is for
    each of its requests, and any that brings a byte allows for others.
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
                response = await _attempt(client, url, part, fields, options, progress)
                if response is not None:
                    part.finish(target)
                    return response
                failure: Exception = HTTPException(
                    f"GET {whole_url}: the server sends nothing of what is missing from byte "
                    f"{part.size} on"
                )
            except Exception as exc:
                goes_on = resume and part.validator and not part.failed
                if not (goes_on and may_retry(exc, "GET", ATTEMPTS)):
                    raise
                failure = exc
            # Only more than there ever was counts: a server that begins anew each time must end.
            attempt = 1 if part.size > best else attempt + 1
            best = max(best, part.size)
            if attempt > ATTEMPTS.attempts:
                raise failure
            await asyncio.sleep(backoff(ATTEMPTS, attempt))
    finally:
        part.close()


def _own_fields(options: RequestOptions) -> list[tuple[Any, Any]]:
    """Return the caller's fields, with Accept-Encoding unless it is among them."""
    pairs = list(field_pairs(options.get("headers") or ()))
    names = {name.lower() for name, _ in pairs}
    if not names.isdisjoint(("range", "if-range", b"range", b"if-range")):
        raise ValueError("a download asks for ranges by itself: give no Range and no If-Range")
    if names.isdisjoint(("accept-encoding", b"accept-encoding")):
        # Ranges are of the coded body: only one that is not coded can be continued.
        pairs.append(("Accept-Encoding", "identity"))
    return pairs


async def _attempt(
    client: Streamer,
    url: str,
    part: _Part,
    fields: list[tuple[Any, Any]],
    options: RequestOptions,
    progress: Progress | None,
) -> Response | None:
    """Fetch what is missing of *part*; return the response if it is whole then."""
    continued = part.size > 0 and part.validator != ""
    # The last byte comes once more: of a part that is whole already there is then a range, too.
    start = part.size - 1 if continued else 0
    if continued:
        fields = [*fields, ("Range", f"bytes={start}-"), ("If-Range", part.validator)]
    asked: RequestOptions = {**options, "headers": fields}
    async with client.stream("GET", url, **asked) as response:
        if response.status == 416 and continued:
            # It is smaller than what is there.
            part.forget()
            return None
        response.raise_for_status()
        if response.status >= 300:
            raise _status_error(response, "this is nothing to download")
        if response.status != 206:
            end = total = _begin(response, part)
        elif not continued:
            raise _status_error(response, "a part, although the whole was asked for")
        else:
            given = _content_range(response)
            if given is None or given[0] != start or _is_of_another(response, part):
                part.forget()
                return None
            _, end, total = given
            part.open(start)
        await _receive(response, part, end, total, progress)
        # RFC 9110 §14.2: a server may send less of a range than was asked for. Without a size,
        # what it says to send is all there is.
        whole = end if total is None else total
        return response if whole is None or part.size == whole else None


def _status_error(response: Response, why: str) -> StatusError:
    error = StatusError(f"GET {cut_url(response.url)}: {response.status}: {why}")
    error.status = response.status
    error.response = response
    return error


def _content_range(response: Response) -> tuple[int, int, int | None] | None:
    """Return where a 206 begins, where it ends (exclusive), and the size of all; None: nowhere."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None:
        return None
    start, end = int(match[1]), int(match[2]) + 1
    total = None if match[3] == "*" else int(match[3])
    return (start, end, total) if start < end <= (end if total is None else total) else None


def _is_of_another(response: Response, part: _Part) -> bool:
    """Whether a 206 is of another version than *part*, or encoded: If-Range was not heeded."""
    name = "ETag" if part.validator.startswith('"') else "Last-Modified"
    return response.headers.get(name, part.validator) != part.validator or _is_coded(response)


def _is_coded(response: Response) -> bool:
    return bool(response.headers.get("Content-Encoding", "identity") != "identity")


def _begin(response: Response, part: _Part) -> int | None:
    """Prepare *part* for the whole of *response*; return its size, if that is known."""
    part.begin()
    coded = _is_coded(response)
    refuses = response.headers.get("Accept-Ranges", "") == "none"
    part.remember("" if coded or refuses else _validator(response))
    return None if coded else response.raw.length


def _validator(response: Response) -> str:
    """Return what tells this version from all others, "" if nothing does (RFC 9110 §13.1.5)."""
    headers = response.headers
    etag = headers.get("ETag")
    if etag is not None:
        # Where there is one, a date must not stand in for it.
        return etag if _ETAG.fullmatch(etag) else ""
    from email.utils import parsedate_to_datetime

    modified = headers.get("Last-Modified", "")
    try:
        age = parsedate_to_datetime(headers.get("Date", "")) - parsedate_to_datetime(modified)
        # RFC 9110 §8.8.2.2: within the same second there may be several versions.
        return modified if age.total_seconds() >= 1 else ""
    except (ValueError, TypeError, OverflowError):
        return ""


async def _receive(
    response: Response,
    part: _Part,
    end: int | None,
    total: int | None,
    progress: Progress | None,
) -> None:
    """Write the body of *response*; forget the part if that goes beyond *end*."""
    kept = bytearray()
    flushed = monotonic()
    # A response counts its own body; the limit is for the file.
    limit = response._limits[0]

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
            if limit is not None and there > limit:
                raise too_large(response.raw, limit)
            kept += piece
            if len(kept) >= BLOCK or monotonic() - flushed >= FLUSH_SECONDS:
                await flush()
    except (HTTPException, OSError):
        # What came before a failure need not come again.
        if kept:
            await flush()
        raise
    if kept:
        await flush()
