"""Request bodies: from any type that a caller may give to blocks of bytes and a length.

Layer: above the wire and net; knows no connection.
"""

from __future__ import annotations

import array
import inspect
import io
import mmap
import os
import stat
import sys
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from typing import Any

from .net.threads import in_thread
from .types import exact

__all__ = ["BLOCKSIZE", "SMALL_BODY", "Body", "byte_view", "make_body"]

BLOCKSIZE = 64 * 1024
"""Bytes read at once from a body that is a file, by default (http.client's blocksize)."""

SMALL_BODY = 64 * 1024
"""Bytes up to which a body is copied to leave in one write, so one packet, with its head."""

THREAD_BLOCK = 2 * 1024 * 1024
"""Bytes of a regular file read at once in a thread: the switch costs as much as 0.5 MiB."""

LARGE = 64 * 1024
"""Bytes from which copying them is most of the cost of an upload."""

HALF_PAGE = 2048
"""Bytes into a page of 4096: as far as can be from its beginning and its end."""

# The flag to read only bytes that the kernel has in memory, never from a disk; Linux has it.
_NO_WAIT: int | None = getattr(os, "RWF_NOWAIT", None)

_NATIVE_READS = (io.BufferedReader.read, io.BufferedRandom.read, io.FileIO.read)

_FILES = (io.BufferedReader, io.BufferedRandom, io.FileIO)

# Modules and their classes; those that are not imported have made no file.
_DECOMPRESSORS = (
    ("gzip", "GzipFile"),
    ("bz2", "BZ2File"),
    ("lzma", "LZMAFile"),
    ("zipfile", "ZipExtFile"),
    ("compression.zstd", "ZstdFile"),
)

_BYTES_LIKE = (bytes, bytearray, memoryview, array.array, mmap.mmap)


class Body:
    """A request's body: in memory (``data``), a regular file (``file``), or blocks to be read.

    ``length`` is its size in bytes, None if only reading it tells. ``offset`` is where a file
    of known length starts. ``may_block``: whether the next block may take for ever, because the
    caller's own code awaits, or a pipe is read, or a disk, which may be a network's.
    ``reuses_buffer``: whether a block is valid only until the next.
    """

    __slots__ = (
        "_blocksize",
        "_source",
        "data",
        "file",
        "length",
        "may_block",
        "offset",
        "reuses_buffer",
    )

    def __init__(self, source: Any, blocksize: int) -> None:
        self._source = source
        self._blocksize = blocksize
        self.data: bytes | memoryview | None = None
        self.file: io.BufferedReader | io.FileIO | None = None
        self.offset = 0
        self.length: int | None = None
        self.reuses_buffer = False
        self.may_block = False

    def blocks(self, least: int = 0) -> AsyncGenerator[bytes | memoryview, None]:
        """Iterate over the body's blocks, without empty ones.

        Files that have a descriptor are read so that a slow disk does not stop the loop; a regular
        file in blocks of *least* bytes, or of the blocksize if that is more.
        """
        if self.reuses_buffer:
            size = max(least, self._blocksize)
            return self._file_blocks(size, max(size, THREAD_BLOCK) if least else size)
        if self.data is None and hasattr(self._source, "read"):
            return self._read_blocks()
        return self._items()

    async def _items(self) -> AsyncGenerator[bytes | memoryview, None]:
        source = self._source
        if self.data is not None:
            if len(self.data):
                yield self.data
        elif isinstance(source, AsyncIterable):
            async for item in source:
                if len(block := byte_view(item, "an item of a body")):
                    yield block
        else:
            for item in source:
                if len(block := byte_view(item, "an item of a body")):
                    yield block

    async def _read_blocks(self) -> AsyncGenerator[bytes | memoryview, None]:
        """Call the source's ``read``; in a thread if it has a descriptor."""
        source = self._source
        is_text = isinstance(source, io.TextIOBase)
        threaded = self.file is not None or _has_descriptor(_unwrapped(source))
        left = self.length
        while left is None or left > 0:
            # A file that grows meanwhile has the length that was announced.
            size = self._blocksize if left is None else min(left, self._blocksize)
            if threaded:
                block = await in_thread(source.read, size)
            else:
                block = source.read(size)
            if inspect.isawaitable(block):
                block = await block
            if not block:
                return
            if isinstance(block, str):
                if not is_text and not _is_text(source):
                    raise TypeError(f"read() of a binary body returned str: {block[:40]!r}")
                block = encode_text(block, "a body")
            if left is not None:
                left -= len(block)
            yield byte_view(block, "read()")

    async def _file_blocks(self, size: int, threaded: int) -> AsyncGenerator[memoryview, None]:
        """Read the regular file into one buffer, *size* bytes at a time.

        Bytes that the kernel has in memory are read at once: a thread costs more than the read.
        Others are read in a thread, *threaded* bytes at a time if the kernel cannot tell. The
        file's position is moved at the end, or left alone if a thread is still reading: waiting
        for the file's lock would mean waiting for the disk.
        """
        file, offset, left = self.file, self.offset, self.length
        assert file is not None and left is not None, "only a regular file reuses its buffer"
        no_wait = _NO_WAIT
        got: int | None
        buffer = _memory(min(size if no_wait is not None else threaded, left))
        reading = False
        try:
            while left:
                # A file that grows meanwhile has the length that was announced.
                view = buffer[:left]
                got = None
                if no_wait is not None:
                    try:
                        # Not every 0 is the end: Linux had a bug (preadv2(2), BUGS).
                        got = os.preadv(file.fileno(), [view], offset, no_wait) or None
                    except BlockingIOError:
                        pass
                    except OSError:
                        # This file system cannot tell; or reading fails, and the thread raises why.
                        no_wait = None
                        view = buffer = _memory(min(threaded, left))
                if got is None:
                    reading = True
                    try:
                        got = await in_thread(_read_at, file, view, offset)
                    except OSError:
                        reading = False
                        raise
                    reading = False
                if not got:
                    return
                offset += got
                left -= got
                yield view[:got]
        finally:
            if offset > self.offset and not reading and not file.closed:
                file.seek(offset)


def make_body(body: Any, blocksize: int) -> Body:
    """Return *body* as a ``Body``; ``TypeError``, which lists the types, for anything else.

    A str is encoded as ISO-8859-1, as http.client does; ``UnicodeEncodeError`` says how to
    encode others. The length of a file that can seek counts from its position; ``ValueError``
    if it does not come back from its end.
    """
    made = Body(body, blocksize)
    if type(body) is bytes:
        # Most bodies are bytes.
        made.data = body
        made.length = len(body)
    elif isinstance(body, str):
        made.data = encode_text(exact(body), "body")
        made.length = len(made.data)
    elif isinstance(body, _BYTES_LIKE):
        made.data = byte_view(body, "body")
        if isinstance(body, mmap.mmap):
            # http.client reads a mapped file from its position on.
            made.data = made.data[body.tell() :]
        made.length = len(made.data)
    elif hasattr(body, "read"):
        made.may_block = isinstance(body, AsyncIterable) or inspect.iscoroutinefunction(body.read)
        _look_at_file(made, body)
    elif _is_buffer(body):
        made.data = byte_view(body, "body")
        made.length = len(made.data)
    elif isinstance(body, dict) or not isinstance(body, (Iterable, AsyncIterable)):
        raise TypeError(
            "a body must be str, bytes-like, a file, an iterable or an async iterable of bytes, "
            f"got {type(body).__name__}; encode it first, for example with json.dumps(...).encode()"
        )
    else:
        made.may_block = isinstance(body, AsyncIterable)
    return made


def byte_view(data: Any, what: str) -> bytes | memoryview:
    """Return bytes as they are and any other buffer as a view of its bytes; else ``TypeError``."""
    if type(data) is bytes:
        return data
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(f"{what} must be bytes-like, got {type(data).__name__}") from None
    return view.cast("B") if view.c_contiguous else bytes(view)


def _is_buffer(body: Any) -> bool:
    """Whether *body* is bytes-like but none of the usual types: an array of numpy or ctypes."""
    try:
        memoryview(body).release()
    except TypeError:
        return False
    return True


def encode_text(text: str, what: str) -> bytes:
    """Encode as ISO-8859-1; the error tells how to send other text."""
    try:
        return text.encode("iso-8859-1")
    except UnicodeEncodeError as exc:
        raise UnicodeEncodeError(
            exc.encoding,
            exc.object,
            exc.start,
            exc.end,
            f"{what} ({exc.object[exc.start : exc.end]!r}) is not valid Latin-1. "
            f"Use {what}.encode('utf-8') if you want to send it encoded in UTF-8.",
        ) from None


def _look_at_file(made: Body, body: Any) -> None:
    """Set ``length`` and ``offset`` if *body* tells them, and ``file`` if it is a regular file."""
    file = _unwrapped(body)
    made.may_block = made.may_block or _has_descriptor(file)
    raw = getattr(file, "raw", file)
    # A GzipFile has a descriptor, too, of other bytes than those that it reads.
    if not isinstance(file, _FILES) or not isinstance(raw, io.FileIO) or not _is_regular(raw):
        _measure(made, file)
        return
    try:
        if isinstance(file, io.BufferedRandom):
            file.flush()  # its buffer may hold bytes that were written
        offset = file.tell()
        size = max(0, os.fstat(raw.fileno()).st_size - offset)
        if not size and hasattr(os, "pread") and os.pread(raw.fileno(), 1, offset):
            # A file of /proc: regular, but of unknown size.
            return
    except (OSError, ValueError):
        return
    made.file = file  # type: ignore[assignment]
    made.offset = offset
    made.length = size
    made.reuses_buffer = _reads_natively(file, raw)


def _is_regular(raw: io.FileIO) -> bool:
    try:
        return stat.S_ISREG(os.fstat(raw.fileno()).st_mode)
    except (OSError, ValueError):
        return False


def _measure(made: Body, file: Any) -> None:
    """Set ``length`` and ``offset`` if *file* can seek to its end and back.

    A length of 0 has to be certain: there are objects whose ``seek`` does nothing. Raises
    ``ValueError`` for a file that does not come back.
    """
    start = _position(file)
    if start is None:
        return
    try:
        file.seek(0, io.SEEK_END)
        end = file.tell()
    except Exception:
        end = start
    try:
        file.seek(start)
        back = file.tell()
    except Exception as exc:
        if end == start:
            return  # it has never moved
        raise _lost(file, start) from exc
    if back != start:
        raise _lost(file, start)
    if end > start or _is_at_end(file):
        made.offset, made.length = start, max(0, end - start)


def _position(file: Any) -> int | None:
    """Return the position of *file*; None if it cannot seek, or if its end is of no use."""
    methods = getattr(file, "tell", None), getattr(file, "seek", None)
    if None in methods or any(map(inspect.iscoroutinefunction, methods)):
        return None
    if isinstance(file, io.TextIOBase) or _is_text(file):
        return None
    # Seeking to their end means decompressing all of it.
    raw = getattr(file, "raw", file)
    for module, name in _DECOMPRESSORS:
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(raw, kind):
            return None
    try:
        start = file.tell()
        if type(start) is int:
            return start if not hasattr(file, "seekable") or file.seekable() else None
    except Exception:  # any class of a caller's may raise anything
        return None
    if inspect.iscoroutine(start):
        start.close()
    return None


def _is_at_end(file: Any) -> bool:
    """Whether nothing follows, for certain and without reading: it would be lost."""
    if isinstance(file, io.BytesIO):
        return True
    buffered = isinstance(file, (io.BufferedReader, io.BufferedRandom))
    return buffered and not _has_descriptor(file) and not file.peek(1)


def _lost(file: Any, start: int) -> ValueError:
    return ValueError(
        f"a {type(file).__name__} does not go back to its position {start}: its seek() is wrong"
    )


def _unwrapped(body: Any) -> Any:
    """Return the file in a wrapper of tempfile's, anything else unchanged.

    Only tempfile's: the ``read`` of a caller's object may return other bytes than its ``file``.
    ``fileno()`` of a SpooledTemporaryFile would move its content to the disk.
    """
    tempfile = sys.modules.get("tempfile")
    if type(body) is getattr(tempfile, "_TemporaryFileWrapper", None):
        file = body.file
        return file if getattr(inspect.unwrap(body.read), "__self__", None) is file else body
    if type(body) is getattr(tempfile, "SpooledTemporaryFile", None) and "read" not in vars(body):
        return getattr(body, "_file", body)
    return body


def _reads_natively(file: Any, raw: io.FileIO) -> bool:
    """Whether ``read`` is that of ``io``: a caller's own class or function may read otherwise."""
    own = type(file).read in _NATIVE_READS and "read" not in getattr(file, "__dict__", ())
    return own and type(raw).readinto is io.FileIO.readinto


def _memory(size: int) -> memoryview:
    """Return *size* bytes to read a file into; large ones begin far from the start of a page.

    Some CPUs copy at three quarters of their speed, or half of it, if the target is up to 16 bytes
    further into its page than the source. The kernel's copy of a file begins with a page, and
    malloc's large blocks begin 16 bytes after the start of one.
    See ``benchmarks/micro/upload_paths.py``.
    """
    if size < LARGE:
        return memoryview(bytearray(size))
    return memoryview(bytearray(HALF_PAGE + size))[HALF_PAGE:]


def _read_at(file: Any, view: memoryview, offset: int) -> int:
    """Read the bytes from *offset* on into *view*; return how many there were. For a thread."""
    if hasattr(os, "preadv") and file.readable():
        # The file's own lock is left alone: its owner may want it.
        return os.preadv(file.fileno(), [view], offset)
    file.seek(offset)
    return file.readinto(view) or 0


def _has_descriptor(source: Any) -> bool:
    if inspect.iscoroutinefunction(source.read):
        return False
    try:
        return isinstance(source.fileno(), int)
    except (AttributeError, OSError, ValueError, TypeError):
        return False


def _is_text(source: Any) -> bool:
    """Whether an object that is not of an io class reads text: whether it has an ``encoding``."""
    return getattr(source, "encoding", None) is not None
