"""Destination: the file that a download goes to, and the note of what an incomplete one holds.

A regular file, or none, is written as ``path.part`` beside it, and ``path.part.json`` notes which
version of which URL that is; the complete part replaces the file. Anything else that can be written
to, a device or a FIFO, gets the bytes directly. Whatever can be known of a path is known before the
first request. Layer: client.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import select
import stat
from io import FileIO
from typing import Any, NamedTuple

from ..http11.grammar import FIELD_VALUE
from ..net.threads import in_thread

__all__ = ["Destination", "Version", "destination_for"]

NOTE_BYTES = 64 * 1024
"""Bytes of a note at most: a longer one is none of ours."""

LOOK_SECONDS = 0.1
"""A thread that waits for the reader of a FIFO looks this often whether it is still wanted."""

# Windows has none of these.
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_NOCTTY = getattr(os, "O_NOCTTY", 0)
_BINARY = getattr(os, "O_BINARY", 0)


class Version(NamedTuple):
    """One version of a file: its strong validator, its content coding, and its size if known."""

    validator: str
    coding: str
    size: int | None


class Destination:
    """Where a download is written, in order, in a thread.

    ``size``: the bytes that are there. ``at``: where the next byte goes: at ``size``, or one
    before, to receive the last byte again. ``version``: the version whose bytes these are, None if
    they cannot be continued. ``failed``: whether the disk or the caller's progress raised: another
    request does not help.
    """

    # Whether the version is certainly one of this URL; if not, a response has to prove it.
    exact = True

    def __init__(self, path: str) -> None:
        self.path = path
        self.version: Version | None = None
        self.size = 0
        self.at = 0
        self.failed = False
        self._file: FileIO | None = None
        self._writing: asyncio.Future[Any] | None = None

    def find(self) -> None:
        """Take over what an earlier download has left."""

    def begin(self, version: Version | None) -> None:
        """Begin anew, with the first byte of *version*."""
        raise NotImplementedError

    def continue_at(self, start: int) -> None:
        """Write the next byte at *start*."""
        assert self._file is not None, "a part that is continued is open"
        self._file.seek(start)
        self.at = start

    def remember(self, version: Version | None) -> None:
        """Note the *version* of the bytes; those of None cannot be continued."""
        self.version = version

    def forget(self) -> None:
        """Discard what is there: the next attempt begins from scratch."""
        self.remember(None)
        self.size = 0

    def finish(self) -> None:
        """Put the complete download in its place."""
        raise NotImplementedError

    async def write(self, data: bytearray) -> None:
        """Write all of *data*. If cancelled, the thread ends by itself and then closes the file."""
        self._writing = in_thread(self._write, data)
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
            written = file.write(view)
            if written is None:
                _wait_writable(file)
            else:
                view = view[written:]

    def close(self) -> None:
        """Close the file, once a thread that still writes to it has ended."""
        file, self._file = self._file, None
        if file is None:
            return
        if self._writing is None:
            file.close()
            return

        def written(done: asyncio.Future[Any]) -> None:
            done.exception()  # nobody waits for it any more
            file.close()

        self._writing.add_done_callback(written)


class Node(Destination):
    """A device or a FIFO: written to directly, once, and never replaced."""

    def __init__(self, path: str) -> None:
        """Open *path*; raise the ``OSError`` of one that cannot be written to."""
        super().__init__(path)
        try:
            # A FIFO without a reader would block.
            number = os.open(path, os.O_WRONLY | _NONBLOCK | _NOCTTY | _BINARY)
        except OSError as exc:
            if exc.errno != errno.ENXIO:
                raise
            what = "a socket is no file" if _is_socket(path) else "nothing reads from this FIFO"
            raise OSError(errno.ENXIO, what, path) from None
        self._file = FileIO(number, "w")

    def begin(self, version: Version | None) -> None:
        """Do nothing: bytes that were written cannot be taken back."""
        assert not self.at, "a download that cannot be continued has one attempt"

    def finish(self) -> None:
        """Close the file."""
        self.close()


class PartFile(Destination):
    """The incomplete download of *url* to the regular file *path*, which exists or not."""

    def __init__(self, path: str, url: str) -> None:
        """Raise the ``OSError`` that the first write would raise."""
        super().__init__(path)
        self._url = url
        self._part = f"{path}.part"
        self._note = f"{path}.part.json"
        for name in (self._part, self._note):
            if os.path.isdir(name) and not os.path.islink(name):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        # Only the system knows whether a file can be made here, and of which names.
        with contextlib.suppress(FileExistsError):
            os.close(_create(self._note, 0o600))
            os.unlink(self._note)

    def find(self) -> None:
        """Take over the part of an earlier download, if it may be one of this URL."""
        try:
            with open(_open_regular(self._note, os.O_RDONLY), "rb") as file:
                note = json.loads(file.read(NOTE_BYTES))
            version = _noted_version(note)
            if self._may_be_of(note, version):
                number = _open_regular(self._part, os.O_RDWR)
                self._file = FileIO(number, "r+")
                there = os.fstat(number).st_size
                if there <= (there if version.size is None else version.size):
                    self.size, self.version = there, version
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            pass

    def _may_be_of(self, note: Any, version: Version) -> bool:
        """Whether *note*, which tells of *version*, is of this URL; sets ``exact``."""
        url, query = _without_query(self._url, note.get("salt", ""))
        # The query of a signed URL is another each time. A date is not enough then: it says when
        # a file was changed, not which one it is.
        self.exact = note.get("query") == query
        return note["url"] == url and (
            self.exact or (version.size is not None and version.validator.startswith('"'))
        )

    def begin(self, version: Version | None) -> None:
        """Begin a new, empty part; note its *version*."""
        self.close()
        # A new file: the thread of a cancelled download may still write to the old one. Nobody
        # who may not read the file that it replaces may read it.
        _remove(self._part)
        number = _create(self._part, 0o600 if os.path.exists(self.path) else 0o666)
        self._file = FileIO(number, "r+")
        self.size = self.at = 0
        self.remember(version)

    def remember(self, version: Version | None) -> None:
        """Note the *version* of the part in its file, too."""
        if version is not None and version == self.version and self.exact:
            return
        super().remember(version)
        self.exact = True
        _remove(self._note)
        if version is None:
            return
        import secrets

        salt = secrets.token_hex(16)
        url, query = _without_query(self._url, salt)
        note = {"url": url, "query": query, "salt": salt, **version._asdict()}
        with open(_create(self._note, 0o600), "w", encoding="utf-8") as file:
            json.dump(note, file)

    def finish(self) -> None:
        """Replace the file by the complete part, with the file's mode and, if allowed, owner."""
        file = self._file
        assert file is not None, "a part that is complete is open"
        if not _is_at(file, self._part):
            raise OSError(errno.EBUSY, "another program has replaced this part", self._part)
        try:
            old = os.lstat(self.path)
        except FileNotFoundError:
            pass
        else:
            if not stat.S_ISREG(old.st_mode):
                raise OSError(errno.EEXIST, "this is no regular file any more", self.path)
            _give(file, old)
        self.close()
        os.replace(self._part, self.path)
        _remove(self._note)


def destination_for(path: str | bytes | os.PathLike[Any], url: str) -> Node | PartFile:
    """Return the destination of a download of *url* to *path*.

    A symlink leads to the file that it names, which need not exist. Raises the ``OSError`` of a
    path that cannot be written to.
    """
    given = os.fsdecode(path)
    try:
        mode = os.stat(given).st_mode
    except FileNotFoundError:
        if not given:
            raise
        # As open() has it, a name that ends so is that of a directory.
        mode = stat.S_IFDIR if given.endswith((os.sep, os.altsep or os.sep)) else stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), given)
    return PartFile(os.path.realpath(given), url) if stat.S_ISREG(mode) else Node(given)


def _noted_version(note: Any) -> Version:
    """Return the version that *note* tells of; ``ValueError`` if it is no note of ours."""
    validator, coding, size = note["validator"], note.get("coding", ""), note.get("size")
    if not (
        validator
        and FIELD_VALUE.fullmatch(validator)
        and isinstance(coding, str)
        and (size is None or type(size) is int)
    ):
        raise ValueError("this is the note of another program")
    return Version(validator, coding, size)


def _without_query(url: str, salt: str) -> tuple[str, str | None]:
    """Return *url* without query and fragment, and a digest of its query, which may be secret."""
    import hashlib

    base, _, query = url.partition("#")[0].partition("?")
    return base, hashlib.sha256(f"{salt}{query}".encode()).hexdigest() if query else None


def _create(path: str, mode: int) -> int:
    """Make the new file *path*, which no link leads elsewhere; return its descriptor."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY, mode)


def _open_regular(path: str, flags: int) -> int:
    """Open *path*; ``OSError`` if it is not itself a regular file: it was not made here."""
    number = os.open(path, flags | _NOFOLLOW | _NONBLOCK | _BINARY)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return number


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _is_at(file: FileIO, path: str) -> bool:
    """Whether *path* still is the name of *file*."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
    except FileNotFoundError:
        return False


def _give(file: FileIO, old: os.stat_result) -> None:
    """Give *file* the mode of *old*, and the owner and the group, as far as this user may."""
    # By its descriptor where the system has that: a name may lead elsewhere a moment later, and
    # root would give that file away.
    number = file.fileno()
    if hasattr(os, "chown"):
        now = os.fstat(number)
        for user, group in ((-1, old.st_gid), (old.st_uid, -1)):
            if user in (-1, now.st_uid) and group in (-1, now.st_gid):
                continue
            with contextlib.suppress(PermissionError):
                os.chown(number, user, group)
    if os.chmod in os.supports_fd:
        os.chmod(number, stat.S_IMODE(old.st_mode) & 0o777)


def _is_socket(path: str) -> bool:
    return stat.S_ISSOCK(os.stat(path).st_mode)


def _wait_writable(file: FileIO) -> None:
    """Wait, for a moment at most, until *file* takes bytes."""
    poll = select.poll()
    poll.register(file, select.POLLOUT)
    poll.poll(LOOK_SECONDS * 1000)
