"""body.py: what a body may be, how long it is, and the blocks it is sent in."""

from __future__ import annotations

import array
import gzip
import io
import mmap
import os
import tempfile
import threading
from pathlib import Path

import pytest

from aiohttpconn.body import make_body

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


@pytest.mark.parametrize("body", [{"a": 1}, 5, 5.0, True, object()], ids=repr)
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


async def test_bytesio_is_read_in_blocks_and_from_its_position():
    file = io.BytesIO(b"0123456789")
    file.seek(3)
    made = make_body(file, BLOCKSIZE)
    assert (made.length, made.file) == (None, None)
    assert await blocks(made) == [b"3456", b"789"]


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
            assert (made.length, made.offset, made.may_block) == (9, 1, False)
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
