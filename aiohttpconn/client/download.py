"""download: a response's body to a file, continued where it broke off (RFC 9110 §14).

What has arrived is in ``path.part``; beside it, ``path.part.json`` says of which URL and of which
version it is. Only with a validator that both sides trust, a strong ETag or a date, is a part
continued, and the server decides: If-Range gets the rest, or all. Layer: client.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, Unpack

from ..exceptions import HTTPException, IncompleteRead, RequestTimeout, TotalTimeout
from .policy import Retry, backoff

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from .calls import RequestOptions
    from .response import Response

__all__ = ["Progress", "download"]

Progress = Callable[[int, int | None], object]
"""Called with (bytes there, bytes in all or None) whenever some were written."""

BLOCK = 1024 * 1024
"""Bytes that are written at once, in a thread: a slow disk stops nobody else."""

ATTEMPTS = Retry(attempts=5, backoff=0.2, max_backoff=5.0)
"""How often a download is continued that breaks off without another byte, and after how long."""

# RFC 9110 §14.4
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19}|\*)")
_UNSATISFIED = re.compile(r"bytes \*/([0-9]{1,19})")


class Streamer(Protocol):
    """What downloads: a ``Client``."""

    def stream(
        self, method: str, url: str, **options: Unpack[RequestOptions]
    ) -> AbstractAsyncContextManager[Response]:
        """Mirrors ``Client.stream``."""


class _Part:
    """The file that a download is written to until it is whole."""

    def __init__(self, path: str, url: str) -> None:
        self.path = f"{path}.part"
        self.info = f"{path}.part.json"
        self.url = url
        self.validator = ""
        self.size = 0
        self._file: BinaryIO | None = None
        self._writing: asyncio.Future[Any] | None = None

    def find(self) -> None:
        """Take up what an earlier download has left, if it is of this URL."""
        try:
            with open(self.info, encoding="utf-8") as file:
                info = json.load(file)
            if info["url"] == self.url and isinstance(info["validator"], str):
                self.size = os.path.getsize(self.path)
                self.validator = info["validator"]
        except (OSError, ValueError, KeyError, TypeError):
            self.size, self.validator = 0, ""

    def open(self, start: int) -> None:
        """Write from *start* on; what is behind it goes."""
        if self._file is None:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self._file = os.fdopen(os.open(self.path, flags, 0o666), "r+b", buffering=0)
        self._file.truncate(start)
        self._file.seek(start)
        self.size = start

    def remember(self, validator: str) -> None:
        """Note of which version the part is; without *validator* it cannot be continued."""
        self.validator = validator
        if validator:
            with open(self.info, "w", encoding="utf-8") as file:
                json.dump({"url": self.url, "validator": validator}, file)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.info)

    async def write(self, data: bytearray) -> None:
        """Write *data* whole. Cancelled, it goes on in its thread, and the file is closed then."""
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(None, self._write, bytes(data))
        try:
            await asyncio.shield(self._writing)
        finally:
            if self._writing.done():
                self._writing = None
        self.size += len(data)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            assert self._file is not None, "the file is open"
            view = view[self._file.write(view) :]

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
) -> Response:
    """Mirrors ``Client.download``."""
    target = os.fspath(path)
    part = _Part(target, url)
    if resume:
        part.find()
    # Ranges are of the coded body: only one that is not coded can be continued.
    headers = dict(options.get("headers") or {})
    options = {**options, "headers": {"Accept-Encoding": "identity", **headers}}
    attempt = 1
    try:
        while True:
            before = part.size
            try:
                response = await _attempt(client, part, options, progress)
            except (IncompleteRead, ConnectionError, RequestTimeout) as exc:
                attempt = 1 if part.size > before else attempt + 1
                over = not resume or not part.validator or attempt > ATTEMPTS.attempts
                if over or isinstance(exc, TotalTimeout):
                    raise
                await asyncio.sleep(backoff(ATTEMPTS, attempt))
                continue
            part.finish(target)
            return response
    finally:
        part.close()


async def _attempt(
    client: Streamer, part: _Part, options: RequestOptions, progress: Progress | None
) -> Response:
    """Fetch what is missing of *part*; return the response when it is whole."""
    if part.size and part.validator:
        fields = {"Range": f"bytes={part.size}-", "If-Range": part.validator}
        headers: Any = {**dict(options.get("headers") or {}), **fields}
        asked: RequestOptions = {**options, "headers": headers}
    else:
        part.size = 0
        asked = options
    async with client.stream("GET", part.url, **asked) as response:
        if response.status == 416 and asked is not options:
            # Nothing is missing, or what is there is not what it was.
            match = _UNSATISFIED.fullmatch(response.headers.get("Content-Range", ""))
            if match is not None and int(match[1]) == part.size:
                part.open(part.size)
                return response
            part.remember("")
            return await _attempt(client, part, options, progress)
        response.raise_for_status()
        total = _begin(response, part, asked is not options)
        await _receive(response, part, total, progress)
        return response


def _begin(response: Response, part: _Part, continued: bool) -> int | None:
    """Prepare *part* for what *response* brings; return the size of the whole, if it tells."""
    if response.status == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not continued or match is None or int(match[1]) != part.size:
            raise HTTPException(
                f"GET {response.url}: 206 with Content-Range "
                f"{response.headers.get('Content-Range')!r}, asked for bytes from {part.size} on"
            )
        part.open(part.size)
        return None if match[2] == "*" else int(match[2])
    part.open(0)
    headers = response.headers
    etag = headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")
    coded = headers.get("Content-Encoding", "identity") != "identity"
    refuses = headers.get("Accept-Ranges", "") == "none"
    part.remember("" if coded or refuses else validator)
    return None if coded else response.raw.length


async def _receive(
    response: Response, part: _Part, total: int | None, progress: Progress | None
) -> None:
    kept = bytearray()

    async def flush() -> None:
        nonlocal kept
        data, kept = kept, bytearray()
        await part.write(data)
        if progress is not None:
            progress(part.size, total)

    try:
        async for piece in response.iter_bytes():
            kept += piece
            if len(kept) >= BLOCK:
                await flush()
    except (HTTPException, OSError):
        # What came before a failure need not come again.
        if kept:
            await flush()
        raise
    if kept:
        await flush()
