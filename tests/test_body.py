"""body.py: what a body may be, how long it is, and the blocks it is sent in."""

from __future__ import annotations

import array
import bz2
import gzip
import io
import lzma
import mmap
import os
import tarfile
import tempfile
import threading
import zipfile
from pathlib import Path

import pytest

from aiohttpconn.body import make_body

from .support.ids import shown

BLOCKSIZE = 4


async def blocks(body) -> list[bytes]:
    return [bytes(block) async for block in body.blocks()]


class Reading:
    """An object that reads, and is no io class."""

    def __init__(self, *pieces, **attributes) -> None:
        self.pieces = list(pieces)
        self.sizes: list[int] = []
        vars(self).update(attributes)

    def read(self, n):
        self.sizes.append(n)
        return self.pieces.pop(0) if self.pieces else b""


class ReadingAsync(Reading):
    async def read(self, n):
        return Reading.read(self, n)


class Returning(Reading):
    """``read`` is no coroutine function, but returns an awaitable."""

    def read(self, n):
        async def later():
            return Reading.read(self, n)

        return later()


async def agen(*items):
    for item in items:
        yield item


# In memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b"", b""),
        (b"abc", b"abc"),
        ("", b""),
        ("caf\xe9", b"caf\xe9"),
        (bytearray(b"abc"), b"abc"),
        (bytearray(), b""),
        (memoryview(b"abcd")[1:3], b"bc"),
        (memoryview(b"abcdef")[::2], b"ace"),
        (memoryview(b""), b""),
        (array.array("H", [1, 2]), b"\1\0\2\0"),
        (array.array("i"), b""),
        (memoryview(array.array("i", [1])), b"\1\0\0\0"),
    ],
)
async def test_a_body_in_memory(body, data):
    made = make_body(body, BLOCKSIZE)
    assert (made.length, bytes(made.data), made.may_block) == (len(data), data, False)
    assert await blocks(made) == ([data] if data else [])


async def test_a_mapped_file_from_its_position_on(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        mapped.seek(4)
        made = make_body(mapped, BLOCKSIZE)
        assert (made.length, await blocks(made)) == (6, [b"456789"])
        made.data = None


@pytest.mark.parametrize("body", ["10 €", "\u0100"])
def test_text_outside_latin_1_is_refused_with_advice(body):
    with pytest.raises(UnicodeEncodeError) as info:
        make_body(body, BLOCKSIZE)
    assert str(info.value).endswith(
        f"body ({body[-1]!r}) is not valid Latin-1. "
        "Use body.encode('utf-8') if you want to send it encoded in UTF-8."
    )


@pytest.mark.parametrize("body", [{"a": 1}, 5, 5.0, True, object()], ids=shown)
def test_what_cannot_be_a_body_is_told_what_can(body):
    with pytest.raises(TypeError) as info:
        make_body(body, BLOCKSIZE)
    assert str(info.value) == (
        "a body must be str, bytes-like, a file, an iterable or an async iterable of bytes, got "
        f"{type(body).__name__}; encode it first, for example with json.dumps(...).encode()"
    )


# Iterables -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [list, tuple, iter, lambda items: (item for item in items), lambda items: agen(*items)],
    ids=["list", "tuple", "iterator", "generator", "async generator"],
)
async def test_iterables_drop_empty_items(make):
    items = [b"a", b"", bytearray(b"bc"), memoryview(b""), array.array("H", [1]), memoryview(b"d")]
    made = make_body(make(items), BLOCKSIZE)
    assert (made.length, made.data, made.file) == (None, None, None)
    assert await blocks(made) == [b"a", b"bc", b"\1\0", b"d"]


@pytest.mark.parametrize("items", [["text"], [5], [None], [[b"a"]]], ids=repr)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_item_that_is_not_bytes_is_a_type_error(items, asynchronous):
    made = make_body(agen(*items) if asynchronous else items, BLOCKSIZE)
    with pytest.raises(TypeError) as info:
        await blocks(made)
    assert str(info.value) == (
        f"an item of a body must be bytes-like, got {type(items[0]).__name__}"
    )


# Objects that read -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Reading, ReadingAsync, Returning])
async def test_objects_that_read_are_asked_for_blocks(kind):
    source = kind(b"abcd", bytearray(b"ef"), memoryview(b"g"))
    made = make_body(source, BLOCKSIZE)
    assert made.length is None
    assert made.may_block is (kind is ReadingAsync)
    assert await blocks(made) == [b"abcd", b"ef", b"g"]
    assert set(source.sizes) == {BLOCKSIZE}


async def test_a_text_file_is_latin_1(tmp_path):
    path = tmp_path / "f"
    path.write_text("caf\xe9 noir", encoding="utf-8")
    with path.open(encoding="utf-8") as file:
        made = make_body(file, BLOCKSIZE)
        assert (made.length, made.file) == (None, None)
        assert await blocks(made) == [b"caf\xe9", b" noi", b"r"]
    assert await blocks(make_body(io.StringIO("\xe9"), BLOCKSIZE)) == [b"\xe9"]
    assert await blocks(make_body(Reading("\xe9", encoding="x"), BLOCKSIZE)) == [b"\xe9"]


async def test_a_text_file_with_other_text_is_refused():
    with pytest.raises(UnicodeEncodeError, match=r"a body \('€'\) is not valid Latin-1"):
        await blocks(make_body(io.StringIO("€"), BLOCKSIZE))


async def test_a_binary_body_that_reads_text_is_a_type_error():
    with pytest.raises(TypeError) as info:
        await blocks(make_body(Reading("text"), BLOCKSIZE))
    assert str(info.value) == "read() of a binary body returned str: 'text'"


# Files that can seek -----------------------------------------------------------------------------


class Seeking:
    """An object that reads, seeks and tells, and is no class of io."""

    def __init__(self, data=b"0123456789", **methods) -> None:
        self.inner = io.BytesIO(data)
        for name in ("read", "seek", "tell"):
            setattr(self, name, getattr(self.inner, name))
        for name, method in methods.items():
            setattr(self, name, method)


class SeekingAsync(Seeking):
    def __init__(self) -> None:
        super().__init__()
        del self.read

    async def read(self, n):
        return self.inner.read(n)


def spooled(mode="w+b", rolled=False):
    file = tempfile.SpooledTemporaryFile(mode=mode)  # noqa: SIM115 - closed by its user
    file.write(b"0123456789" if "b" in mode else "0123456789")
    if rolled:
        file.rollover()
    return file


def tar_member():
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        member = tarfile.TarInfo("a")
        member.size = 10
        tar.addfile(member, io.BytesIO(b"0123456789"))
    made.seek(0)
    return tarfile.open(fileobj=made).extractfile("a")


SEEKING = {
    "BytesIO": lambda: io.BytesIO(b"0123456789"),
    "a subclass": lambda: type("Own", (io.BytesIO,), {})(b"0123456789"),
    "BufferedReader": lambda: io.BufferedReader(io.BytesIO(b"0123456789")),
    "BufferedRandom": lambda: io.BufferedRandom(io.BytesIO(b"0123456789")),
    "SpooledTemporaryFile": spooled,
    "a member of a tar file": tar_member,
    "own": Seeking,
    "own, seekable": lambda: Seeking(seekable=lambda: True),
    "own, awaited": lambda: SeekingAsync(),
}


@pytest.mark.parametrize("kind", SEEKING)
async def test_a_file_that_can_seek_has_a_length_from_its_position_on(kind):
    file = SEEKING[kind]()
    file.seek(3)
    made = make_body(file, BLOCKSIZE)
    assert (made.length, made.offset, made.file) == (7, 3, None)
    assert made.may_block is (kind == "own, awaited")
    assert file.tell() == 3
    assert await blocks(made) == [b"3456", b"789"]
    if hasattr(file, "close"):
        file.close()


async def test_a_spooled_file_stays_in_memory():
    """Its fileno() would move it to the disk."""
    with spooled() as file:
        file.seek(0)
        await blocks(make_body(file, BLOCKSIZE))
        assert not file._rolled
    with spooled(rolled=True) as file:
        file.seek(3)
        made = make_body(file, BLOCKSIZE)
        assert (made.length, made.offset, made.may_block) == (7, 3, True)
        assert made.file is not None
        assert await blocks(made) == [b"3456", b"789"]


@pytest.mark.parametrize("position", [10, 15])
@pytest.mark.parametrize("kind", ["BytesIO", "BufferedReader", "SpooledTemporaryFile"])
async def test_a_file_at_its_end_is_empty(kind, position):
    file = SEEKING[kind]()
    file.seek(position)
    made = make_body(file, BLOCKSIZE)
    assert made.length == 0
    assert await blocks(made) == []
    file.close()


async def test_a_file_that_grows_keeps_the_length_that_was_announced():
    file = io.BytesIO(b"0123456789")
    made = make_body(file, BLOCKSIZE)
    file.seek(0, io.SEEK_END)
    file.write(b"more")
    file.seek(0)
    assert b"".join(await blocks(made)) == b"0123456789"


class Liar(io.RawIOBase):
    """A stream that says that it can seek."""

    def __init__(self, seek, data=b"0123456789") -> None:
        self.inner = io.BytesIO(data)
        self.seek = seek

    def readable(self):
        return True

    def seekable(self):
        return True

    def tell(self):
        return 0

    def readinto(self, buffer):
        return self.inner.readinto(buffer)


def refuses(*args):
    raise io.UnsupportedOperation("seek")


def fails(*args):
    raise RuntimeError("no seek here")


def does_nothing(*args):
    return 0


@pytest.mark.parametrize("seek", [refuses, fails, does_nothing])
@pytest.mark.parametrize("wrap", [lambda raw: raw, io.BufferedReader], ids=["raw", "buffered"])
async def test_a_file_that_only_says_that_it_can_seek_is_read_to_its_end(seek, wrap):
    file = wrap(Liar(seek))
    made = make_body(file, BLOCKSIZE)
    assert made.length is None
    assert b"".join(await blocks(made)) == b"0123456789"


async def later(*args):
    raise AssertionError("nobody awaits this")


@pytest.mark.parametrize(
    "methods",
    [
        {"seekable": lambda: False},
        {"tell": fails},
        {"tell": lambda: None},
        {"tell": later},
        {"tell": lambda: later()},
        {"seek": later},
        {"seek": fails},
    ],
    ids=shown,
)
async def test_an_object_that_cannot_tell_has_no_length(methods):
    made = make_body(Seeking(**methods), BLOCKSIZE)
    assert made.length is None
    assert b"".join(await blocks(made)) == b"0123456789"


async def test_an_object_that_reads_text_has_no_length():
    file = Seeking(encoding="utf-8", read=io.StringIO("0123456789").read)
    made = make_body(file, BLOCKSIZE)
    assert made.length is None
    assert b"".join(await blocks(made)) == b"0123456789"


@pytest.mark.parametrize("back", [fails, does_nothing])
def test_a_file_that_does_not_come_back_is_refused(back):
    """Its first bytes would be lost."""
    file = Seeking()
    seek = file.seek
    file.seek = lambda offset, whence=0: seek(offset, whence) if whence else back()
    with pytest.raises(ValueError, match=r"^a Seeking does not go back to its position 0: its se"):
        make_body(file, BLOCKSIZE)


@pytest.mark.parametrize("kind", ["gzip", "bz2", "lzma", "zip"])
async def test_a_file_that_is_decompressed_is_not_read_twice(kind, tmp_path):
    """Its end is known only when all of it has been decompressed."""
    path = tmp_path / "f"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a", b"0123456789")
        file = zipfile.ZipFile(path).open("a")  # noqa: SIM115 - closed below
    else:
        module = {"gzip": gzip, "bz2": bz2, "lzma": lzma}[kind]
        path.write_bytes(module.compress(b"0123456789"))
        file = module.open(path)
    for each in (file, io.BufferedReader(file)):
        made = make_body(each, BLOCKSIZE)
        assert (made.length, each.tell()) == (None, 0)
    assert b"".join(await blocks(made)) == b"0123456789"
    file.close()


async def test_a_device_of_no_size_is_read_to_its_end():
    """A terminal, or a device that says that it can seek."""
    one, other = os.openpty()
    with open(one, "rb", buffering=0) as file, open(other, "rb"):
        assert make_body(file, BLOCKSIZE).length is None


@pytest.mark.parametrize("rolled", [False, True])
async def test_a_text_file_has_no_length(rolled):
    for file in (spooled("w+", rolled), io.StringIO("0123456789")):
        with file:
            made = make_body(file, BLOCKSIZE)
            assert (made.length, made.file) == (None, None)


# Regular files -----------------------------------------------------------------------------------


def opened_files(path):
    yield path.open("rb")
    yield path.open("rb", buffering=0)
    yield path.open("r+b")
    yield io.FileIO(path)
    temporary = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed by its user
    temporary.write(path.read_bytes())
    temporary.seek(0)
    yield temporary
    temporary = tempfile.TemporaryFile()  # noqa: SIM115
    temporary.write(path.read_bytes())
    temporary.seek(0)
    yield temporary


async def test_a_regular_file_has_a_length_and_is_read_off_the_loop(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    for file in opened_files(path):
        with file:
            file.seek(1)
            made = make_body(file, BLOCKSIZE)
            assert (made.length, made.offset, made.may_block) == (9, 1, True)
            assert made.file is not None
            assert await blocks(made) == [b"1234", b"5678", b"9"]


async def test_a_file_is_read_in_a_thread(tmp_path, monkeypatch):
    threads = []

    class File(io.FileIO):
        def read(self, n):
            threads.append(threading.current_thread())
            return super().read(n)

    path = tmp_path / "f"
    path.write_bytes(b"01234")
    with File(path) as file:
        assert await blocks(make_body(file, BLOCKSIZE)) == [b"0123", b"4"]
    assert len(threads) == 2
    assert threading.main_thread() not in threads


def test_a_position_behind_the_end_is_an_empty_file(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"0123")
    with path.open("rb") as file:
        file.seek(9)
        assert make_body(file, BLOCKSIZE).length == 0


async def test_what_only_looks_like_a_regular_file_is_read(tmp_path):
    path = tmp_path / "f.gz"
    path.write_bytes(gzip.compress(b"unpacked"))
    # It has a descriptor, of other bytes than read() gives.
    with gzip.open(path) as file:
        made = make_body(file, BLOCKSIZE)
        assert (made.length, made.file) == (None, None)
        assert await blocks(made) == [b"unpa", b"cked"]


async def test_a_pipe_has_no_length():
    out, into = os.pipe()
    os.write(into, b"012345")
    os.close(into)
    with open(out, "rb") as file:
        made = make_body(file, BLOCKSIZE)
        assert (made.length, made.file) == (None, None)
        assert await blocks(made) == [b"0123", b"45"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
async def test_a_file_of_proc_is_read_to_its_end():
    """It is a regular file of 0 bytes, and has more."""
    with Path("/proc/self/status").open("rb") as file:
        body = make_body(file, BLOCKSIZE)
        assert body.length is None
        assert b"".join(await blocks(body)).startswith(b"Name:")
