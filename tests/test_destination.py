"""destination.py: the file that a download goes to, whatever kind it is, known before a request."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import socket
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from aiohttpconn import HTTPException
from aiohttpconn.client import destination
from aiohttpconn.testing import AppServer, Reply, close_at, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from io import FileIO
    from pathlib import Path

BODY = b"new content\n"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs the files of Unix")

as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may do this"
)


@pytest.fixture
async def server() -> AsyncIterator[AppServer]:
    async with serve({"/": Reply(BODY, headers={"ETag": '"v1"'})}) as server:
        yield server


@pytest.fixture
def umask() -> Iterator[None]:
    old = os.umask(0o022)
    yield
    os.umask(old)


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


# ------------------------------------------------------------------------ regular files


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755, 0o444])
async def test_an_existing_file_keeps_its_mode(mode, client, server, tmp_path, umask):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(mode)
    parts: list[int] = []

    def progress(there: int, total: int | None) -> None:
        parts.append(mode_of(tmp_path / "a.part"))

    await client.download(server.url, path, progress=progress)
    assert (path.read_bytes(), mode_of(path)) == (BODY, mode)
    # Nobody reads the new content early who could not read the old.
    assert set(parts) == {0o600}
    assert names(tmp_path) == ["a"]


async def test_a_new_file_has_the_mode_that_the_umask_leaves(client, server, tmp_path, umask):
    await client.download(server.url, tmp_path / "a")
    assert mode_of(tmp_path / "a") == 0o644


@as_root
async def test_an_existing_file_keeps_its_owner(client, server, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    os.chown(path, 12345, 23456)
    path.chmod(0o640)
    await client.download(server.url, path)
    found = path.stat()
    assert (found.st_uid, found.st_gid, mode_of(path)) == (12345, 23456, 0o640)


async def test_an_owner_that_may_not_be_given_is_no_error(client, server, tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    asked: list[tuple[int, int]] = []

    def chown(name: str, user: int, group: int) -> None:
        asked.append((user, group))
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), name)

    def another(name: str) -> os.stat_result:
        found = original(name)
        return os.stat_result([*found[:4], found.st_uid + 1, found.st_gid + 1, *found[6:]])

    original = os.lstat
    monkeypatch.setattr(os, "chown", chown)
    monkeypatch.setattr("aiohttpconn.client.destination.os.lstat", another)
    await client.download(server.url, path)
    monkeypatch.undo()
    mine = path.stat()
    assert asked == [(-1, mine.st_gid + 1), (mine.st_uid + 1, -1)]
    assert path.read_bytes() == BODY


@pytest.mark.parametrize("exists", [True, False])
async def test_a_symlink_stays_and_its_target_is_replaced(exists, client, server, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    target = folder / "target"
    if exists:
        target.write_bytes(b"old")
        target.chmod(0o600)
    (tmp_path / "second").symlink_to("folder/target")
    link = tmp_path / "link"
    link.symlink_to("second")
    await client.download(server.url, link)
    assert os.readlink(link) == "second"
    assert target.read_bytes() == link.read_bytes() == BODY
    if exists:
        assert mode_of(target) == 0o600
    assert names(folder) == ["target"]
    assert names(tmp_path) == ["folder", "link", "second"]


async def test_a_relative_path_is_that_of_the_call(client, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    def progress(there: int, total: int | None) -> None:
        os.chdir(tmp_path / "elsewhere")

    await client.download(server.url, "a", progress=progress)
    assert (tmp_path / "a").read_bytes() == BODY
    assert names(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("name", [b"a", b"caf\xe9", b"x" * 245])
async def test_a_path_may_be_bytes(name, client, server, tmp_path):
    path = os.path.join(os.fsencode(tmp_path), name)
    await client.download(server.url, path)
    with open(path, "rb") as file:
        assert file.read() == BODY
    assert os.listdir(os.fsencode(tmp_path)) == [name]


# ---------------------------------------------------------------- paths that cannot be


PATHS: dict[str, tuple[str, type[Exception], int | None]] = {
    "nothing": ("", FileNotFoundError, errno.ENOENT),
    "a folder": ("{0}", IsADirectoryError, errno.EISDIR),
    "a name of a folder": ("{0}/new/", IsADirectoryError, errno.EISDIR),
    "a link to a folder": ("{0}/to_folder", IsADirectoryError, errno.EISDIR),
    "in no folder": ("{0}/no/file", FileNotFoundError, errno.ENOENT),
    "in a file": ("{0}/file/file", NotADirectoryError, errno.ENOTDIR),
    "a file with a slash": ("{0}/file/", NotADirectoryError, errno.ENOTDIR),
    "a loop of links": ("{0}/loop", OSError, errno.ELOOP),
    "a link into no folder": ("{0}/to_nowhere", FileNotFoundError, errno.ENOENT),
    "a long name": ("{0}/" + "x" * 256, OSError, errno.ENAMETOOLONG),
    "a name too long for .part": ("{0}/" + "x" * 251, OSError, errno.ENAMETOOLONG),
    "a name too long for .part.json": ("{0}/" + "x" * 246, OSError, errno.ENAMETOOLONG),
    "a name too long in bytes": ("{0}/" + "é" * 123, OSError, errno.ENAMETOOLONG),
    "a NUL": ("{0}/a\0b", ValueError, None),
    "a folder as part": ("{0}/other", IsADirectoryError, errno.EISDIR),
    "a folder as note": ("{0}/noted", IsADirectoryError, errno.EISDIR),
}


@pytest.mark.parametrize("kind", PATHS)
async def test_a_path_that_cannot_be_written_is_known_before_a_request(
    kind, client, server, tmp_path
):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "to_folder").symlink_to(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "to_nowhere").symlink_to("no/file")
    (tmp_path / "other.part").mkdir()
    (tmp_path / "noted.part.json").mkdir()
    before = names(tmp_path)
    path, error, number = PATHS[kind]
    with pytest.raises(error) as caught:
        await client.download(server.url, path.format(tmp_path))
    if number is not None:
        assert caught.value.errno == number
        assert caught.value.filename is not None
    assert server.connections == 0
    assert names(tmp_path) == before


@pytest.mark.skipif(
    hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere"
)
async def test_a_folder_without_permission_is_known_before_a_request(client, server, tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            await client.download(server.url, tmp_path / "a")
    finally:
        tmp_path.chmod(0o700)
    assert server.connections == 0


async def test_a_socket_is_refused(client, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s")
        (tmp_path / "link").symlink_to("s")
        for name in ("s", "link"):
            with pytest.raises(OSError, match=rf"a socket is no file: '{name}'") as caught:
                await client.download(server.url, name)
            assert caught.value.errno == errno.ENXIO
    assert server.connections == 0
    assert stat.S_ISSOCK((tmp_path / "s").lstat().st_mode)
    assert names(tmp_path) == ["link", "s"]


# --------------------------------------------------------------------- FIFOs and devices


@pytest.mark.parametrize("linked", [False, True])
async def test_a_fifo_gets_the_bytes(linked, client, server, fifo, tmp_path):
    path = fifo
    if linked:
        path = tmp_path / "link"
        path.symlink_to(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        await client.download(server.url, path)
        assert os.read(reader, 100) == BODY
        assert os.read(reader, 100) == b""
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(fifo.lstat().st_mode)
    assert names(tmp_path) == sorted({"fifo", path.name})


async def test_a_fifo_with_a_slow_reader_gets_all(client, fifo):
    """More than it holds: the writing waits."""
    content = random.Random(1).randbytes(3_000_000)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)

    def read_all() -> bytes:
        os.set_blocking(reader, True)
        with open(reader, "rb") as file:
            return file.read()

    begun = asyncio.Event()
    async with serve({"/": content}) as server:
        downloading = asyncio.ensure_future(
            client.download(server.url, fifo, progress=lambda *args: begun.set())
        )
        await begun.wait()
        got = await asyncio.to_thread(read_all)
        await downloading
    assert got == content


async def test_a_fifo_that_nothing_reads_is_refused(client, server, fifo, tmp_path):
    with pytest.raises(OSError, match=r"nothing reads from this FIFO: '.*fifo'") as caught:
        await client.download(server.url, fifo)
    assert caught.value.errno == errno.ENXIO
    assert server.connections == 0
    assert names(tmp_path) == ["fifo"]


async def test_a_reader_that_leaves_is_an_error(client, fifo, tmp_path):
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    reply = Reply(b"x" * 1_000_000, headers={"ETag": '"v1"'})
    async with serve({"/": reply}) as server:
        with pytest.raises(BrokenPipeError):
            await client.download(server.url, fifo, progress=lambda *args: os.close(reader))
        assert len(server.requests) == 1
    assert client.stats().leased == 0
    assert names(tmp_path) == ["fifo"]


async def test_a_download_into_a_full_fifo_can_be_cancelled(client, fifo, monkeypatch):
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    loop, full = asyncio.get_running_loop(), asyncio.Event()
    original = destination._wait_writable

    def wait_writable(file: FileIO) -> None:
        loop.call_soon_threadsafe(full.set)
        original(file)

    monkeypatch.setattr(destination, "_wait_writable", wait_writable)
    try:
        async with serve({"/": b"x" * 1_000_000}) as server:
            task = asyncio.ensure_future(client.download(server.url, fifo))
            await full.wait()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        # The thread that waits for the reader ends, too.
        await loop.shutdown_default_executor()
    finally:
        os.close(reader)


async def test_what_is_written_directly_is_not_continued(client, fifo):
    """The bytes that the reader has cannot be taken back."""
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        reply = Reply(BODY, headers={"ETag": '"v1"'}, fault=close_at(-4))
        async with serve({"/": reply}) as server:
            with pytest.raises(HTTPException):
                await client.download(server.url, fifo)
            assert len(server.requests) == 1
        assert os.read(reader, 100) == BODY[:-4]
    finally:
        os.close(reader)


@as_root
async def test_a_device_stays_one(client, server, tmp_path):
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.close(os.open(device, os.O_WRONLY))
    except PermissionError:
        pytest.skip("this file system has no devices")
    seen: list[int] = []
    response = await client.download(server.url, device, progress=lambda n, _: seen.append(n))
    assert (response.status, seen) == (200, [0, len(BODY)])
    assert stat.S_ISCHR(device.lstat().st_mode)
    assert names(tmp_path) == ["null"]


# ------------------------------------------------------------------ files of others


async def test_what_is_no_regular_file_any_more_is_not_replaced(client, server, tmp_path):
    path = tmp_path / "a"

    def progress(there: int, total: int | None) -> None:
        if there:
            os.mkfifo(path)

    with pytest.raises(OSError, match="this is no regular file any more"):
        await client.download(server.url, path, progress=progress)
    assert stat.S_ISFIFO(path.lstat().st_mode)
    # It is complete, and the next call has only to move it.
    path.unlink()
    assert (await client.download(server.url, path)).status in (200, 206)
    assert path.read_bytes() == BODY
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["a.part", "a.part.json"])
@pytest.mark.parametrize("kind", ["symlink", "dangling", "fifo"])
async def test_c12_a_trap_in_place_of_a_part_is_not_written_to(
    name, kind, client, server, tmp_path
):
    """Somebody else may make files in a folder that all may write to."""
    victim = tmp_path / "victim"
    if kind != "dangling":
        victim.write_bytes(b"mine")
    trap = tmp_path / name
    if kind == "fifo":
        os.mkfifo(trap)
    else:
        trap.symlink_to(victim)
    other = {"a.part": "a.part.json", "a.part.json": "a.part"}[name]
    (tmp_path / other).write_bytes(b'{"url": "%b", "validator": "\\"v1\\""}' % server.url.encode())
    await client.download(server.url, tmp_path / "a")
    assert [request.headers.get("Range") for request in server.requests] == [None]
    assert (tmp_path / "a").read_bytes() == BODY
    assert not (tmp_path / "a").is_symlink()
    if kind == "dangling":
        assert names(tmp_path) == ["a"]
    else:
        assert victim.read_bytes() == b"mine"
        assert names(tmp_path) == ["a", "victim"]


async def test_c12_a_part_that_is_replaced_by_a_link_gives_nothing_away(client, server, tmp_path):
    """Root would give the file that the link names the owner and the mode of the old file."""
    path, part, victim = (tmp_path / name for name in ("a", "a.part", "victim"))
    path.write_bytes(b"old")
    path.chmod(0o666)
    victim.write_bytes(b"secret")
    victim.chmod(0o600)

    def progress(there: int, total: int | None) -> None:
        if there == len(BODY):
            part.unlink()
            part.symlink_to(victim)

    with pytest.raises(OSError, match="another program has replaced this part") as caught:
        await client.download(server.url, path, progress=progress)
    assert (caught.value.errno, caught.value.filename) == (errno.EBUSY, str(part))
    assert mode_of(victim) == 0o600
    assert path.read_bytes() == b"old"


async def test_a_part_of_another_download_is_not_taken_for_the_own(client, server, tmp_path):
    """Two downloads to one path, at the same time: neither may end with a part of the other."""
    path = tmp_path / "a"

    def begun(there: int, total: int | None) -> None:
        raise InterruptedError

    async def later(there: int, total: int | None) -> None:
        if there == len(BODY):
            with pytest.raises(InterruptedError):
                await client.download(server.url, path, resume=False, progress=begun)

    with pytest.raises(OSError, match="another program has replaced this part"):
        await client.download(server.url, path, resume=False, progress=later)
    assert not path.exists()
