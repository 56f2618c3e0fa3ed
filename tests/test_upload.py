"""upload.py and the sending half of connection.py: what reaches the wire, and what stops it."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import io
import os
import re
import socket
import tempfile
import tracemalloc

import pytest

from aiohttpconn import (
    BodyLengthError,
    HTTPConnection,
    HTTPSConnection,
    RemoteDisconnected,
)
from aiohttpconn import body as body_module
from aiohttpconn.exceptions import CannotSendRequest
from aiohttpconn.protocol import HTTP1Protocol
from aiohttpconn.testing.peers import find_peer as _find_peer

from .support import (
    ClientGone,
    ScriptedServer,
    close,
    expect,
    expect_request,
    notify,
    read_all,
    reset,
    send,
    wait,
)
from .support.leaks import happens

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
TOO_LARGE = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!"
BLOCK = b"0123456789abcdef" * 4096  # 64 KiB
SMALL_BUFFERS = {"socket_options": [(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)]}


async def turns(n: int = 20) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


def connecting(server, certificates=None, **options):
    if server.tls is None:
        return HTTPConnection(server.host, server.port, **options)
    return HTTPSConnection("localhost", server.port, context=certificates.client, **options)


@pytest.fixture
def writes(monkeypatch):
    """Return a list of what is given to ``transport.write``, write by write."""
    made = []
    original = HTTP1Protocol.connection_made

    class Recording:
        def __init__(self, transport) -> None:
            self.transport = transport

        def write(self, data) -> None:
            made.append(bytes(data))
            self.transport.write(data)

        def __getattr__(self, name):
            return getattr(self.transport, name)

    def connection_made(self, transport):
        original(self, Recording(transport))

    monkeypatch.setattr(HTTP1Protocol, "connection_made", connection_made)
    return made


def head(*fields: bytes, method: bytes = b"POST", port: int) -> bytes:
    lines = b"".join(field + b"\r\n" for field in fields)
    return (
        b"%b /x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept-Encoding: identity\r\n" % (method, port)
        + lines
        + b"\r\n"
    )


class ReadAsync:
    def __init__(self, *pieces) -> None:
        self.pieces = list(pieces)

    async def read(self, n):
        await asyncio.sleep(0)
        return self.pieces.pop(0) if self.pieces else b""


async def agen(*items):
    for item in items:
        await asyncio.sleep(0)
        yield item


# The wire --------------------------------------------------------------------------------------

CHUNKED = b"Transfer-Encoding: chunked"
ONE_WRITE = {
    "none, GET": ("GET", None, (), b""),
    "none, POST": ("POST", None, (b"Content-Length: 0",), b""),
    "none, patch": ("patch", None, (b"Content-Length: 0",), b""),
    "bytes": ("POST", b"abc", (b"Content-Length: 3",), b"abc"),
    "bytes, GET": ("GET", b"", (b"Content-Length: 0",), b""),
    "str": ("POST", "caf\xe9", (b"Content-Length: 4",), b"caf\xe9"),
    "bytearray": ("PUT", bytearray(b"abc"), (b"Content-Length: 3",), b"abc"),
    "memoryview": ("PUT", memoryview(b"xabcx")[1:4], (b"Content-Length: 3",), b"abc"),
    "array": ("PUT", array.array("H", [1, 2]), (b"Content-Length: 4",), b"\1\0\2\0"),
    "64 KiB": ("PUT", BLOCK, (b"Content-Length: 65536",), BLOCK),
}


@pytest.mark.parametrize("case", ONE_WRITE)
async def test_head_and_small_body_are_one_write(scripted, writes, case):
    method, body, fields, sent = ONE_WRITE[case]
    async with scripted(OK) as conn:
        await conn.request(method, "/x", body)
        assert await (await conn.getresponse()).read() == b"hi"
        expected = head(*fields, method=method.encode(), port=conn.port) + sent
        assert writes == [expected]
        assert scripted.server.received == [expected]


async def test_endheaders_with_bytes_is_one_write(scripted, writes):
    async with scripted(OK) as conn:
        conn.putrequest("POST", "/x")
        conn.putheader("Content-Length", 3)
        await conn.endheaders(b"abc")
        assert await (await conn.getresponse()).read() == b"hi"
        assert writes == [head(b"Content-Length: 3", port=conn.port) + b"abc"]


@pytest.mark.parametrize(("tls", "most"), [(False, 1048576), (True, 262144)], ids=["plain", "tls"])
async def test_a_large_body_is_sent_in_slices_and_never_copied_whole(scripted, writes, tls, most):
    body = BLOCK * 40 + b"end"
    async with scripted(OK, tls=tls) as conn:
        await conn.request("POST", "/x", body)
        assert await (await conn.getresponse()).read() == b"hi"
        first, *slices = writes
        assert first.endswith(b"\r\nContent-Length: 2621443\r\n\r\n")
        sizes = [most] * (len(body) // most)
        assert [len(each) for each in slices] == [*sizes, len(body) % most]
        assert b"".join(slices) == body


CHUNKS = {
    "list": lambda: [b"abc", b"", b"0123456789abcdefg"],
    "generator": lambda: (item for item in (b"abc", b"", bytearray(b"0123456789abcdefg"))),
    "async generator": lambda: agen(b"abc", b"", memoryview(b"0123456789abcdefg")),
    "async read": lambda: ReadAsync(b"abc", b"0123456789abcdefg"),
}


@pytest.mark.parametrize("case", CHUNKS)
async def test_iterables_are_chunked(scripted, case):
    async with scripted(OK, OK) as conn:
        for _ in range(2):
            await conn.request("POST", "/x", CHUNKS[case]())
            assert await (await conn.getresponse()).read() == b"hi"
        body = b"3\r\nabc\r\n11\r\n0123456789abcdefg\r\n0\r\n\r\n"
        assert scripted.server.received == [(head(CHUNKED, port=conn.port) + body) * 2]


@pytest.mark.parametrize("make", [list, lambda: agen(), ReadAsync, io.StringIO])
async def test_an_empty_body_of_unknown_length_is_a_last_chunk(scripted, make):
    async with scripted(OK) as conn:
        await conn.request("GET", "/x", make())
        assert await (await conn.getresponse()).read() == b"hi"
        expected = head(CHUNKED, method=b"GET", port=conn.port) + b"0\r\n\r\n"
        assert scripted.server.received == [expected]


async def test_a_reader_is_read_in_blocks_of_blocksize(scripted):
    async with scripted(OK, blocksize=4) as conn:
        await conn.request("POST", "/x", io.StringIO("0123456789"))
        assert await (await conn.getresponse()).read() == b"hi"
        body = b"4\r\n0123\r\n4\r\n4567\r\n2\r\n89\r\n0\r\n\r\n"
        assert scripted.server.received == [head(CHUNKED, port=conn.port) + body]


class Seekable:
    """An object that reads, seeks and tells, and is no class of io."""

    def __init__(self, data: bytes) -> None:
        inner = io.BytesIO(data)
        self.read, self.seek, self.tell = inner.read, inner.seek, inner.tell


def spooled(data: bytes, rolled: bool = False):
    file = tempfile.SpooledTemporaryFile()  # noqa: SIM115 - of memory, or closed with its object
    file.write(data)
    if rolled:
        file.rollover()
    return file


SEEKABLE = {
    "BytesIO": io.BytesIO,
    "BufferedReader": lambda data: io.BufferedReader(io.BytesIO(data)),
    "spooled": spooled,
    "rolled": lambda data: spooled(data, True),
    "own": Seekable,
}


@pytest.mark.parametrize("kind", SEEKABLE)
async def test_a_file_that_can_seek_has_a_length_from_its_position_on(scripted, kind):
    file = SEEKABLE[kind](b"0123456789")
    file.seek(3)
    async with scripted(OK) as conn:
        await conn.request("POST", "/x", file)
        assert await (await conn.getresponse()).read() == b"hi"
        expected = head(b"Content-Length: 7", port=conn.port) + b"3456789"
        assert scripted.server.received == [expected]
    assert file.tell() == 10
    if hasattr(file, "close"):
        file.close()


@pytest.mark.parametrize("size", [262144, 262145, 600_000])
async def test_a_huge_item_is_one_chunk(scripted, size):
    async with scripted(OK) as conn:
        await conn.request("POST", "/x", [b"x" * size, b"y"])
        assert await (await conn.getresponse()).read() == b"hi"
        body = b"%X\r\n" % size + b"x" * size + b"\r\n1\r\ny\r\n0\r\n\r\n"
        assert scripted.server.received == [head(CHUNKED, port=conn.port) + body]


@pytest.mark.parametrize("body", [b"", "", bytearray(), [], [b""]], ids=repr)
async def test_an_empty_body_in_chunks_is_one_last_chunk(scripted, body):
    async with scripted(OK) as conn:
        headers = {"Transfer-Encoding": "chunked"}
        await conn.request("POST", "/x", body, headers, encode_chunked=True)
        assert await (await conn.getresponse()).read() == b"hi"
        assert scripted.server.received == [head(CHUNKED, port=conn.port) + b"0\r\n\r\n"]


async def test_a_callers_transfer_encoding_is_raw_unless_asked(scripted):
    headers = {"Transfer-Encoding": "chunked"}
    async with scripted(OK, OK) as conn:
        await conn.request("POST", "/x", [b"1\r\na\r\n", b"0\r\n\r\n"], headers)
        assert await (await conn.getresponse()).read() == b"hi"
        await conn.request("POST", "/x", [b"a"], headers, encode_chunked=True)
        assert await (await conn.getresponse()).read() == b"hi"
        sent = head(CHUNKED, port=conn.port) + b"1\r\na\r\n0\r\n\r\n"
        assert scripted.server.received == [sent * 2]


@pytest.mark.parametrize(
    "make",
    [
        lambda: [b"ab", b"cde"],
        lambda: agen(b"ab", b"cde"),
        lambda: ReadAsync(b"ab", b"cde"),
        lambda: io.BytesIO(b"abcde"),
        lambda: b"abcde",
    ],
)
async def test_a_callers_content_length_is_raw(scripted, make):
    async with scripted(OK, OK) as conn:
        for _ in range(2):
            await conn.request("POST", "/x", make(), {"Content-Length": "5"})
            assert await (await conn.getresponse()).read() == b"hi"
        assert scripted.server.received == [
            (head(b"Content-Length: 5", port=conn.port) + b"abcde") * 2
        ]


@pytest.mark.parametrize("size", [10, 300_000])
async def test_a_body_that_changes_after_request_is_sent_as_it_was(size):
    # The server reads nothing until the body has changed.
    go_on = asyncio.Event()
    body = bytearray(b"a" * size)
    async with ScriptedServer([wait(go_on), expect_request(), send(OK)]) as server:
        async with connecting(server) as conn:
            await conn.request("POST", "/x", body)
            body[:] = b"b" * size
            go_on.set()
            assert await (await conn.getresponse()).read() == b"hi"
        assert server.received[0].endswith(b"\r\n\r\n" + b"a" * size)


async def test_items_that_change_when_the_next_is_asked_for(scripted):
    def reusing():
        buffer = bytearray(300_000)
        for byte in b"abc":
            buffer[:] = bytes([byte]) * len(buffer)
            yield buffer

    async with scripted(OK) as conn:
        await conn.request("POST", "/x", reusing())
        assert await (await conn.getresponse()).read() == b"hi"
        body = b"".join(b"493E0\r\n" + bytes([b]) * 300_000 + b"\r\n" for b in b"abc")
        assert scripted.server.received[0].endswith(b"\r\n\r\n" + body + b"0\r\n\r\n")


# Step by step ----------------------------------------------------------------------------------


async def test_a_request_step_by_step(scripted):
    async with scripted(OK, OK) as conn:
        for _ in range(2):
            conn.putrequest("POST", "/x", skip_accept_encoding=True)
            conn.putheader("X-Many", "a", b"b", 3)
            conn.putheader("Content-Length", "9")
            await conn.endheaders()
            await conn.send(b"ab")
            await conn.send("c")
            await conn.send([b"d", b"e"])
            await conn.send(agen(b"f"))
            await conn.send(io.BytesIO(b"gh"))
            await conn.send(memoryview(b"i"))
            assert await (await conn.getresponse()).read() == b"hi"
        one = (
            b"POST /x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-Many: a, b, 3\r\n"
            b"Content-Length: 9\r\n\r\nabcdefghi" % conn.port
        )
        assert scripted.server.received == [one * 2]


async def test_chunks_of_the_callers_own(scripted):
    async with scripted(OK) as conn:
        conn.putrequest("POST", "/x")
        conn.putheader("Transfer-Encoding", "chunked")
        await conn.endheaders()
        await conn.send(b"3\r\nabc\r\n")
        await conn.send(b"0\r\n\r\n")
        assert await (await conn.getresponse()).read() == b"hi"


async def test_endheaders_makes_chunks_if_asked(scripted):
    async with scripted(OK) as conn:
        conn.putrequest("POST", "/x")
        conn.putheader("Transfer-Encoding", "chunked")
        await conn.endheaders([b"abc"], encode_chunked=True)
        assert await (await conn.getresponse()).read() == b"hi"
        assert scripted.server.received[0].endswith(b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n")


async def test_send_outside_of_a_request(scripted):
    async with scripted(OK) as conn:
        with pytest.raises(CannotSendRequest, match="Idle"):
            await conn.send(b"x")
        conn.putrequest("POST", "/x")
        with pytest.raises(CannotSendRequest, match="Request-started"):
            await conn.send(b"x")
        await conn.endheaders()
        with pytest.raises(BodyLengthError, match="announces 0 bytes, the body has more: 1 bytes"):
            await conn.send(b"x")


async def test_send_after_a_whole_request(scripted):
    async with scripted(OK) as conn:
        await conn.request("POST", "/x", b"abc")
        with pytest.raises(CannotSendRequest, match="Request-sent"):
            await conn.send(b"x")
        assert await (await conn.getresponse()).read() == b"hi"


async def test_one_task_sends_while_another_waits_for_the_response():
    async def echo(conn) -> None:
        await conn.read_head()
        await conn.read_exactly(3)
        await conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        await conn.send(await conn.read_exactly(3))

    async with ScriptedServer(echo) as server, connecting(server) as conn:
        conn.putrequest("POST", "/x")
        conn.putheader("Content-Length", 6)
        await conn.endheaders()

        async def items():
            yield b"abc"
            while waiting.done() is False:
                await asyncio.sleep(0)
            yield b"def"

        sending = asyncio.create_task(conn.send(items()))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(conn.getresponse())
        response = await waiting
        await sending
        assert await response.read() == b"abcdef"
        assert server.received[0].endswith(b"\r\n\r\nabcdef")


# A wrong length --------------------------------------------------------------------------------

KNOWN = {
    "bytes": lambda data: data,
    "str": bytes.decode,
    "array": lambda data: array.array("B", data),
    "BytesIO": io.BytesIO,
}
COUNTED = {
    "list": lambda data: [data[:2], data[2:]],
    "async": lambda data: agen(data[:2], data[2:]),
    "async read": lambda data: ReadAsync(data[:2], data[2:]),
    "StringIO": lambda data: io.StringIO(data.decode()),
}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("kind", [*KNOWN, *COUNTED, "file"])
@pytest.mark.parametrize("length", [0, 3, 7])
async def test_a_wrong_content_length(certificates, tmp_path, kind, length, tls):
    path = tmp_path / "f"
    path.write_bytes(b"abcde")
    context = certificates.server if tls else None
    script = [expect(), read_all()], [expect(), send(OK)]
    async with ScriptedServer(*script, tls=context) as server:
        async with connecting(server, certificates) as conn:
            await conn.connect()
            body = path.open("rb") if kind == "file" else (KNOWN | COUNTED)[kind](b"abcde")
            more = "more" if length < 5 else "fewer"
            with pytest.raises(BodyLengthError) as info:
                await conn.request("POST", "/x", body, {"Content-Length": str(length)})
            assert f"Content-Length announces {length} bytes, the body has {more}: " in str(
                info.value
            )
            assert isinstance(info.value, ValueError)
            assert conn.sock is None
            if kind == "file":
                body.close()
            elif kind == "async":
                await body.aclose()
            await server.conns[0].wait_ended()
            # Nothing of what is too much, and nothing of a body whose length is known.
            sent = server.received[0].partition(b"\r\n\r\n")[2]
            if kind in COUNTED and kind != "StringIO":
                assert sent == {0: b"", 3: b"ab", 7: b"abcde"}[length]
            elif kind == "StringIO":
                assert sent == {0: b"", 3: b"", 7: b"abcde"}[length]
            else:
                assert server.received[0] == b""
            await conn.request("GET", "/x")
            assert await (await conn.getresponse()).read() == b"hi"


async def test_a_wrong_length_that_is_found_on_the_way_names_the_request(scripted):
    async with scripted(OK) as conn:
        with pytest.raises(BodyLengthError) as info:
            await conn.request("POST", "/x", [b"abc"], {"Content-Length": "2"})
        assert str(info.value).startswith(
            f"POST http://127.0.0.1:{conn.port}/x: Content-Length announces 2 bytes, the body has "
            "more: 3 bytes (sending, "
        )


async def test_a_length_without_a_body(scripted):
    # Sent, it would make the server take the next request for the body.
    async with scripted(OK) as conn:
        await conn.connect()
        with pytest.raises(BodyLengthError) as info:
            await conn.request("POST", "/x", headers={"Content-Length": "5"})
        assert str(info.value) == (
            f"POST http://127.0.0.1:{conn.port}/x: Content-Length announces 5 bytes, the body has "
            "fewer: 0 bytes (preparing, 0.0 ms)"
        )
        assert (info.value.method, info.value.request_sent) == ("POST", False)
        assert conn.sock is None
        assert scripted.server.heads == []


async def test_step_by_step_too_few_and_too_many(scripted):
    async with scripted(OK, head_only=True) as conn:
        conn.putrequest("POST", "/x")
        conn.putheader("Content-Length", 5)
        await conn.endheaders()
        await conn.send(b"abc")
        with pytest.raises(BodyLengthError) as info:
            await conn.send(b"def")
        assert "Content-Length announces 2 bytes, the body has more: 3 bytes" in str(info.value)
        assert conn.sock is None
    async with ScriptedServer([read_all()]) as server, connecting(server) as conn:
        conn.putrequest("POST", "/x")
        conn.putheader("Content-Length", 5)
        await conn.endheaders()
        await conn.send(b"abc")
        with pytest.raises(BodyLengthError) as info:
            await conn.getresponse()
        assert "Content-Length announces 2 bytes that were not sent" in str(info.value)
        assert conn.sock is None


# Sources that fail -----------------------------------------------------------------------------


def failing_items():
    yield b"a"
    raise ZeroDivisionError("mine")


async def failing_agen():
    yield b"a"
    raise ZeroDivisionError("mine")


async def cancelled_agen():
    yield b"a"
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (failing_items, ZeroDivisionError),
        (failing_agen, ZeroDivisionError),
        # What its source was cancelled in is no end of a body either.
        (cancelled_agen, asyncio.CancelledError),
        (lambda: [b"a", "text"], TypeError),
        (lambda: agen(b"a", "text"), TypeError),
        (lambda: ReadAsync(b"a", "text"), TypeError),
    ],
)
async def test_a_body_that_fails_is_never_ended(make, error):
    async with ScriptedServer([expect(), read_all()], [expect(), send(OK)]) as server:
        async with connecting(server) as conn:
            body = make()
            with pytest.raises(error):
                await conn.request("POST", "/x", body)
            if hasattr(body, "aclose"):
                await body.aclose()
            assert conn.sock is None
            await server.conns[0].wait_ended()
            assert server.received[0].partition(b"\r\n\r\n")[2] in (b"", b"1\r\na\r\n")
            await conn.request("GET", "/x")
            assert await (await conn.getresponse()).read() == b"hi"


@pytest.mark.parametrize("body", [{"a": 1}, 5, "€"], ids=repr)
async def test_what_cannot_be_a_body_leaves_the_connection_alone(scripted, body):
    async with scripted(OK) as conn:
        await conn.connect()
        with pytest.raises((TypeError, UnicodeEncodeError)):
            await conn.request("POST", "/x", body)
        assert conn.sock is not None
        await conn.request("GET", "/x")
        assert await (await conn.getresponse()).read() == b"hi"
        assert scripted.server.connections == 1


# Files -----------------------------------------------------------------------------------------


needs_no_wait = pytest.mark.skipif(
    not hasattr(os, "RWF_NOWAIT"), reason="only Linux reads without waiting"
)


@pytest.fixture
def hops(monkeypatch):
    """Return a list of what is called in a thread."""
    made = []

    def run_in_executor(executor, func, *args):
        made.append(func)
        return original(executor, func, *args)

    loop = asyncio.get_event_loop()
    original = loop.run_in_executor
    monkeypatch.setattr(loop, "run_in_executor", run_in_executor)
    return made


def disk(monkeypatch, error):
    """Let a read that may not wait fail with *error*, or give 0; return what others read."""
    sizes = []
    original = os.preadv

    def preadv(fd, buffers, offset, flags=0):
        if flags:
            if error:
                raise OSError(error, os.strerror(error))
            return 0
        size = original(fd, buffers, offset)
        sizes.append(size)
        return size

    monkeypatch.setattr(os, "preadv", preadv)
    return sizes


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("size", [0, 5, 3_000_000])
async def test_a_file_is_sent_with_its_length(certificates, tmp_path, size, tls):
    data = os.urandom(size)
    path = tmp_path / "f"
    path.write_bytes(b"skip" + data)
    context = certificates.server if tls else None
    script = [expect_request(), send(OK)] * 2
    async with ScriptedServer(script, tls=context) as server:
        async with connecting(server, certificates) as conn:
            file = path.open("rb")
            for _ in range(2):
                file.seek(4)
                await conn.request("PUT", "/x", file)
                assert file.tell() == 4 + size
                assert await (await conn.getresponse()).read() == b"hi"
            file.close()
            assert server.connections == 1
        received = server.received[0]
        assert received.count(b"Content-Length: %d\r\n" % size) == 2
        assert received.endswith(b"\r\n\r\n" + data)


async def test_a_file_in_chunks_is_read_in_blocks_of_blocksize(tmp_path, scripted):
    path = tmp_path / "f"
    path.write_bytes(b"01234")
    async with scripted(OK, blocksize=4) as conn:
        with path.open("rb") as file:
            headers = {"Transfer-Encoding": "chunked"}
            await conn.request("PUT", "/x", file, headers, encode_chunked=True)
        assert await (await conn.getresponse()).read() == b"hi"
        assert scripted.server.received[0].endswith(b"\r\n\r\n4\r\n0123\r\n1\r\n4\r\n0\r\n\r\n")


async def test_a_file_over_a_unix_socket(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(BLOCK * 10)
    script = [expect_request(), send(OK)]
    async with ScriptedServer(script, path=tmp_path / "s") as server:
        async with HTTPConnection("a.test", uds=server.path) as conn:
            with path.open("rb") as file:
                await conn.request("PUT", "/x", file)
            assert await (await conn.getresponse()).read() == b"hi"
        assert server.received[0].endswith(b"\r\n\r\n" + BLOCK * 10)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_file_that_shrinks_meanwhile(certificates, tmp_path, tls):
    path = tmp_path / "f"
    path.write_bytes(b"01234")
    context = certificates.server if tls else None
    async with ScriptedServer([expect(), read_all()], tls=context) as server:
        async with connecting(server, certificates) as conn:
            with path.open("rb") as file:
                original = conn._opened

                async def opened(deadline):
                    os.truncate(path, 3)
                    return await original(deadline)

                conn._opened = opened
                with pytest.raises(BodyLengthError, match="5 bytes, the body has fewer: 3 bytes"):
                    await conn.request("PUT", "/x", file)
                del conn._opened
            assert conn.sock is None


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_file_that_grows_meanwhile_has_the_length_that_was_announced(
    scripted, tmp_path, tls
):
    path = tmp_path / "f"
    path.write_bytes(BLOCK * 20 + b"end")
    async with scripted(OK, tls=tls) as conn:
        with path.open("rb") as file, path.open("ab") as more:
            original = conn._opened

            async def opened(deadline):
                more.write(BLOCK * 20)
                more.flush()
                return await original(deadline)

            conn._opened = opened
            await conn.request("PUT", "/x", file)
            del conn._opened
            assert file.tell() == 20 * 65536 + 3
        assert await (await conn.getresponse()).read() == b"hi"
    assert scripted.server.received[0].endswith(b"\r\n\r\n" + BLOCK * 20 + b"end")


async def test_sending_a_file_step_by_step(tmp_path, scripted):
    path = tmp_path / "f"
    path.write_bytes(b"01234")
    async with scripted(OK) as conn:
        conn.putrequest("PUT", "/x")
        conn.putheader("Content-Length", 7)
        await conn.endheaders()
        await conn.send(b"<")
        with path.open("rb") as file:
            await conn.send(file)
        await conn.send(b">")
        assert await (await conn.getresponse()).read() == b"hi"
        assert scripted.server.received[0].endswith(b"\r\n\r\n<01234>")


@needs_no_wait
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_file_that_the_kernel_has_in_memory_needs_no_thread(scripted, tmp_path, hops, tls):
    path = tmp_path / "f"
    path.write_bytes(BLOCK * 40)
    with path.open("rb") as file:
        try:
            os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
        except OSError as exc:
            pytest.skip(f"this file system cannot tell: {exc}")
        async with scripted(OK, tls=tls) as conn:
            await conn.connect()
            hops.clear()
            await conn.request("PUT", "/x", file)
            assert hops == []
            assert await (await conn.getresponse()).read() == b"hi"
    assert scripted.server.received[0].endswith(b"\r\n\r\n" + BLOCK * 40)


@needs_no_wait
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("error", [errno.EAGAIN, errno.EOPNOTSUPP, 0])
async def test_a_file_on_a_disk_is_read_in_a_thread(scripted, tmp_path, monkeypatch, error, tls):
    data = os.urandom(5_000_000)
    path = tmp_path / "f"
    path.write_bytes(b"skip" + data)
    sizes = disk(monkeypatch, error)
    async with scripted(OK, tls=tls) as conn:
        with path.open("rb") as file:
            file.seek(4)
            await conn.request("PUT", "/x", file)
            assert file.tell() == 5_000_004
        assert await (await conn.getresponse()).read() == b"hi"
    assert scripted.server.received[0].endswith(b"\r\n\r\n" + data)
    # Where the kernel can never tell, every block is read in a thread, so they are larger.
    most = 262144 if tls else 1_048_576
    most = 2_097_152 if error == errno.EOPNOTSUPP else most
    assert sizes == [most] * (5_000_000 // most) + [5_000_000 % most]


@pytest.mark.parametrize("buffering", [-1, 0])
async def test_a_file_is_read_where_there_is_no_preadv(
    scripted, tmp_path, monkeypatch, hops, buffering
):
    monkeypatch.delattr(os, "preadv", raising=False)
    monkeypatch.setattr(body_module, "_NO_WAIT", None)
    path = tmp_path / "f"
    path.write_bytes(b"skip" + BLOCK * 40)
    async with scripted(OK) as conn:
        with path.open("rb", buffering=buffering) as file:
            file.seek(4)
            await conn.request("PUT", "/x", file)
            assert file.tell() == 4 + 40 * 65536
        assert await (await conn.getresponse()).read() == b"hi"
    assert scripted.server.received[0].endswith(b"\r\n\r\n" + BLOCK * 40)
    assert len(hops) >= 2


async def test_a_file_class_with_a_read_of_its_own_is_read_by_it(scripted, tmp_path):
    class Shouting(io.FileIO):
        def read(self, n=-1):
            return super().read(n).upper()

    path = tmp_path / "f"
    path.write_bytes(b"abcde")
    async with scripted(OK, blocksize=2) as conn:
        with Shouting(path) as file:
            await conn.request("PUT", "/x", file)
        assert await (await conn.getresponse()).read() == b"hi"
    assert scripted.server.received[0].endswith(b"\r\n\r\nABCDE")


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_block_of_a_file_stays_until_the_transport_has_sent_it(certificates, tmp_path, tls):
    # The server reads a little now and then: transports hold whole blocks meanwhile.
    data = os.urandom(2_500_000)
    path = tmp_path / "f"
    path.write_bytes(data)

    async def server_side(conn) -> None:
        await conn.read_head()
        for _ in range(25):
            await conn.read_exactly(100_000)
            await turns(5)
        await conn.send(OK)

    context = certificates.server if tls else None
    async with ScriptedServer(server_side, receive_buffer=4096, tls=context) as server:
        async with connecting(server, certificates, **SMALL_BUFFERS) as conn:
            with path.open("rb") as file:
                await conn.request("PUT", "/x", file)
            assert await (await conn.getresponse()).read() == b"hi"
        # Not "==": what pytest has to tell of 5 MB that differ takes minutes.
        assert (server.received[0].partition(b"\r\n\r\n")[2] == data) is True


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_refused_file_is_what_it_was_to_the_last_byte_that_is_sent(
    certificates, tmp_path, tls
):
    # Between the head of the refusal and its end, the transport goes on with what it holds.
    data = os.urandom(2_500_000)
    path = tmp_path / "f"
    path.write_bytes(data)

    async def server_side(conn) -> None:
        await conn.read_head()
        await turns(20)
        await conn.send(TOO_LARGE[:-1])
        await refused.wait()
        with contextlib.suppress(ClientGone):
            await conn.read_exactly(300_000 if tls else 900_000)
            await conn.send(TOO_LARGE[-1:])
            await conn.read_exactly(len(data))

    refused = asyncio.Event()
    context = certificates.server if tls else None
    async with ScriptedServer(server_side, receive_buffer=4096, tls=context) as server:
        async with connecting(server, certificates, **SMALL_BUFFERS) as conn:
            with path.open("rb") as file:
                await conn.request("PUT", "/x", file)
            response = await conn.getresponse()
            refused.set()
            assert (response.status, await response.read()) == (413, b"no!")
        await server.conns[0].wait_ended()
        sent = server.received[0].partition(b"\r\n\r\n")[2]
        assert data.startswith(sent) is True
        assert len(sent) < len(data)


def forgetting(conn, context) -> None:
    """Read a request in a thread, and keep nothing of it."""
    if context is not None:
        conn = context.wrap_socket(conn, server_side=True)
    with conn:
        buffer = bytearray(65536)
        head = b""
        while b"\r\n\r\n" not in head:
            head += conn.recv(65536)
        head, _, rest = head.partition(b"\r\n\r\n")
        left = int(head.partition(b"Content-Length: ")[2].split()[0]) - len(rest)
        while left and (size := conn.recv_into(buffer)):
            left -= size
        conn.sendall(OK)
        conn.recv(1)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("kind", ["file", "bytes"])
async def test_the_memory_that_an_upload_takes_is_independent_of_its_size(
    certificates, tmp_path, kind, tls
):
    path = tmp_path / "f"
    path.write_bytes(bytes(16_000_000))
    data = path.read_bytes() if kind == "bytes" else None
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            forgetting(listener.accept()[0], certificates.server if tls else None)

        serving = asyncio.get_running_loop().run_in_executor(None, serve)
        port = listener.getsockname()[1]
        if tls:
            conn = HTTPSConnection("localhost", port, context=certificates.client)
        else:
            conn = HTTPConnection("127.0.0.1", port)
        async with conn:
            await conn.connect()
            with path.open("rb") as file:
                tracemalloc.start()
                try:
                    await conn.request("PUT", "/x", data or file)
                    assert await (await conn.getresponse()).read() == b"hi"
                    peak = tracemalloc.get_traced_memory()[1]
                finally:
                    tracemalloc.stop()
        await serving
    # One block, what the transport holds of another, and TLS's own.
    assert peak < 3_500_000


# Back-pressure ---------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_server_that_does_not_read_stops_the_source(certificates, asynchronous, tls):
    go_on = asyncio.Event()
    taken = 0

    def items():
        nonlocal taken
        for _ in range(60):
            taken += 1
            yield BLOCK

    async def async_items():
        for item in items():
            yield item

    context = certificates.server if tls else None
    script = [expect(), wait(go_on), expect(60 * (65536 + 9)), read_all()]
    async with ScriptedServer(script, receive_buffer=4096, tls=context) as server:
        async with connecting(server, certificates, **SMALL_BUFFERS) as conn:
            body = async_items() if asynchronous else items()
            task = asyncio.create_task(conn.request("POST", "/x", body))
            while not server.heads:
                await asyncio.sleep(0)
            await turns(100)
            # The transport's 64 KiB, TLS's own buffers, and the kernel's.
            assert 0 < taken < 40
            before = taken
            await turns(50)
            assert taken == before
            go_on.set()
            await task
            assert taken == 60
            conn.close()


# 100-continue ----------------------------------------------------------------------------------

EXPECT = {"Expect": "100-continue"}
BODIES = {
    "bytes": lambda: b"abc",
    "list": lambda: [b"abc"],
    "async": lambda: agen(b"abc"),
}


@pytest.mark.parametrize("kind", BODIES)
async def test_the_body_waits_for_100(kind):
    async def server_side(conn) -> None:
        await conn.read_head()
        assert not await asyncio.wait_for(nothing(conn), None)
        await conn.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await conn.read_until(b"abc")
        if kind != "bytes":
            await conn.read_until(b"0\r\n\r\n")
        await conn.send(OK)

    async def nothing(conn) -> bytes:
        await turns(10)
        return bytes(conn.received[conn._consumed :])

    async with ScriptedServer(server_side) as server:
        async with connecting(server, continue_timeout=9) as conn:
            await conn.request("POST", "/x", BODIES[kind](), EXPECT)
            assert await (await conn.getresponse()).read() == b"hi"
            assert conn.sock is not None


@pytest.mark.parametrize("status", [b"417 Expectation Failed", b"401 Unauthorized", b"200 OK"])
async def test_a_final_status_instead_of_100_and_the_body_is_never_sent(status):
    answer = b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nno"
    async with ScriptedServer([expect(), send(answer), read_all()], [expect(), send(OK)]) as server:
        async with connecting(server, continue_timeout=9) as conn:
            await conn.request("POST", "/x", b"abc", EXPECT)
            response = await conn.getresponse()
            assert (response.status, await response.read()) == (int(status[:3]), b"no")
            await server.conns[0].wait_ended()
            assert server.received[0].endswith(b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
            assert conn.sock is None
            await conn.request("GET", "/x")
            assert await (await conn.getresponse()).read() == b"hi"


@pytest.mark.parametrize(
    "body", [b"", "", io.BytesIO(), memoryview(b"")], ids=lambda b: type(b).__name__
)
async def test_there_is_no_wait_for_100_before_an_empty_body(body):
    async with ScriptedServer([expect(), send(OK), expect(), send(OK)]) as server:
        async with connecting(server, continue_timeout=999) as conn:
            for _ in range(2):
                await conn.request("POST", "/x", body, {**EXPECT, "Content-Length": "0"})
                assert await (await conn.getresponse()).read() == b"hi"
        assert server.connections == 1
        assert server.heads[0].endswith(b"Expect: 100-continue\r\nContent-Length: 0\r\n\r\n")


async def test_100_that_never_comes():
    async with ScriptedServer([expect_request(), send(OK)]) as server:
        async with connecting(server, continue_timeout=0.02) as conn:
            await conn.request("POST", "/x", b"abc", EXPECT)
            assert await (await conn.getresponse()).read() == b"hi"
            assert conn.sock is not None


async def test_100_from_a_server_that_is_gone():
    async with ScriptedServer([expect(), close(), read_all()]) as server:
        async with connecting(server, continue_timeout=9) as conn:
            with pytest.raises(RemoteDisconnected):
                await conn.request("POST", "/x", b"abc", EXPECT)
            assert conn.sock is None


async def test_a_second_100_and_other_interim_responses_before_it(scripted):
    interim = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 x\r\n\r\n"

    async def server_side(conn) -> None:
        await conn.read_head()
        await conn.send(interim)
        await conn.read_exactly(3)
        await conn.send(OK)

    async with ScriptedServer(server_side) as server:
        async with connecting(server, continue_timeout=9) as conn:
            await conn.request("POST", "/x", b"abc", EXPECT)
            assert await (await conn.getresponse()).read() == b"hi"


# Answers before the request is whole -------------------------------------------------------------


async def for_ever():
    yield BLOCK
    await asyncio.Event().wait()


def endless():
    while True:
        yield BLOCK


async def endless_async():
    while True:
        yield BLOCK


class NeverReads:
    async def read(self, n):
        await asyncio.Event().wait()


def large_file(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    return path.open("rb")


EARLY = {
    "bytes": lambda _: b"x" * 20_000_000,
    "iterable": lambda _: endless(),
    "async iterable": lambda _: endless_async(),
    "async iterable that waits for ever": lambda _: for_ever(),
    "async read that waits for ever": lambda _: NeverReads(),
    "file": large_file,
}


def never():
    async def step(conn) -> None:
        await asyncio.Event().wait()

    return step


ENDINGS = {
    "stays": [read_all()],
    "stays and does not read": [never()],
    "fin": [close(), read_all()],
    "closes": [],
    "reset": [reset()],
}


def closing_at_once():
    async def step(conn) -> None:
        conn.sock.close()
        raise ClientGone

    return step


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", EARLY)
async def test_an_early_refusal_is_delivered(certificates, tmp_path, kind, ending, tls):
    steps = [closing_at_once()] if ending == "closes" else ENDINGS[ending]
    context = certificates.server if tls else None
    # Half of them say that they will close.
    field = b"Connection: close\r\nContent-" if len(kind) % 2 else b"Content-"
    answer = TOO_LARGE.replace(b"Content-", field)
    script = [expect(), send(answer), *steps], [expect(), send(OK)]
    async with ScriptedServer(*script, receive_buffer=8192, tls=context) as server:
        async with connecting(server, certificates) as conn:
            body = EARLY[kind](tmp_path)
            await conn.request("POST", "/x", body)
            response = await conn.getresponse()
            assert (response.status, response.will_close) == (413, True)
            assert await response.read() == b"no!"
            assert response.complete
            if kind == "file":
                body.close()
            elif hasattr(body, "aclose"):
                await body.aclose()
            # The rest of the request never comes: this connection is not used again.
            assert conn.sock is None
            await conn.request("GET", "/x")
            assert await (await conn.getresponse()).read() == b"hi"
            # Of the first connection nothing is left, though the server may not have closed it.
            assert await happens(lambda: _find_peer(server.conns[0].sock) is None)


async def test_an_early_refusal_with_a_long_body_is_read_to_its_end():
    answer = b"HTTP/1.1 413 No\r\nContent-Length: 300000\r\n\r\n"
    script = [expect(), send(answer, b"x" * 300_000), read_all()]
    async with ScriptedServer(script, receive_buffer=8192) as server:
        async with connecting(server) as conn:
            await conn.request("POST", "/x", for_ever())
            response = await conn.getresponse()
            assert await response.read() == b"x" * 300_000


async def test_an_early_200_does_not_stop_the_request():
    async def server_side(conn) -> None:
        await conn.read_head()
        await conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        await conn.read_until(b"0\r\n\r\n")
        await conn.send(b"done")

    async def items():
        for _ in range(20):
            await turns(3)
            yield b"x"

    async with ScriptedServer(server_side) as server:
        async with connecting(server) as conn:
            await conn.request("POST", "/x", items())
            response = await conn.getresponse()
            assert (response.status, await response.read()) == (200, b"done")
            assert conn.sock is not None
        assert server.received[0].count(b"1\r\nx\r\n") == 20


async def test_an_early_200_leaves_the_bytes_of_a_file_alone(tmp_path):
    """Its head wakes the sender, whose buffer the transport may still hold."""
    data = os.urandom(6_000_000)
    (tmp_path / "file").write_bytes(data)

    async def server_side(conn) -> None:
        await conn.read_head()
        await turns(30)
        await conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nd")
        await turns(30)
        got.append(await conn.read_exactly(len(data)))
        await conn.send(b"one")

    got: list[bytes] = []
    async with ScriptedServer(server_side) as server:
        async with connecting(server) as conn:
            with open(tmp_path / "file", "rb") as file:
                await conn.request("PUT", "/x", file)
            assert await (await conn.getresponse()).read() == b"done"
    assert got == [data]


async def test_only_tempfiles_wrappers_are_looked_into(tmp_path):
    class Upper:
        def __init__(self, file):
            self.file = file

        def read(self, n=-1):
            return self.file.read(n).upper()

    (tmp_path / "file").write_bytes(b"secret")
    async with ScriptedServer([expect_request(), send(OK)] * 3) as server:
        async with connecting(server) as conn:
            with open(tmp_path / "file", "rb") as file:
                await conn.request("PUT", "/x", Upper(file))
                await (await conn.getresponse()).read()
            with tempfile.NamedTemporaryFile() as file:
                file.write(b"a tempfile")
                file.seek(0)
                await conn.request("PUT", "/x", file)
                await (await conn.getresponse()).read()
            with open(tmp_path / "file", "r+b") as file:
                file.read(2)
                file.seek(0)
                file.write(b"SE")
                file.seek(0)
                await conn.request("PUT", "/x", file)
                await (await conn.getresponse()).read()
    first, second, third = (part for part in server.received[0].split(b"PUT /x")[1:])
    assert first.endswith(b"\r\n6\r\nSECRET\r\n0\r\n\r\n")
    assert second.endswith(b"\r\n\r\na tempfile")
    assert third.endswith(b"\r\n\r\nSEcret")


async def test_an_early_200_that_is_complete_ends_the_request():
    async with ScriptedServer([expect(), send(OK), read_all()], [expect(), send(OK)]) as server:
        async with connecting(server) as conn:
            await conn.request("POST", "/x", for_ever())
            response = await conn.getresponse()
            assert (response.status, await response.read()) == (200, b"hi")
            assert conn.sock is None
            await conn.request("GET", "/x")
            assert await (await conn.getresponse()).read() == b"hi"


@pytest.mark.parametrize("kind", [for_ever, endless_async])
async def test_an_early_200_that_is_complete_is_not_in_the_way_of_the_next(kind):
    async with ScriptedServer([expect(), send(OK), read_all()], [expect(), send(OK)]) as server:
        async with connecting(server) as conn:
            await conn.request("POST", "/x", kind())
            await turns()  # the transport is gone by now
            first = await conn.getresponse()
            assert first.will_close
            await conn.request("GET", "/x")
            assert await (await conn.getresponse()).read() == b"hi"
            assert await first.read() == b"hi"


async def test_step_by_step_an_early_refusal_drops_the_rest():
    async with ScriptedServer([expect(), send(TOO_LARGE), read_all()]) as server:
        async with connecting(server) as conn:
            conn.putrequest("POST", "/x")
            conn.putheader("Content-Length", 1_000_000)
            await conn.endheaders()
            while conn.sock is not None:
                await conn.send(b"x")
                await asyncio.sleep(0)
            await conn.send(b"x")
            response = await conn.getresponse()
            assert (response.status, await response.read()) == (413, b"no!")
            assert conn.sock is None
        assert re.fullmatch(rb"x*", server.received[0].partition(b"\r\n\r\n")[2])


async def test_the_source_is_stopped_when_it_is_refused():
    stopped = asyncio.Event()

    async def items():
        try:
            yield b"x"
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with ScriptedServer([expect(), send(TOO_LARGE), read_all()]) as server:
        async with connecting(server) as conn:
            await conn.request("POST", "/x", items())
            assert stopped.is_set()
            assert (await conn.getresponse()).status == 413


# A server that is gone ---------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("ending", ["fin", "reset", "closes"])
@pytest.mark.parametrize("kind", EARLY)
async def test_a_server_that_leaves_without_an_answer(certificates, tmp_path, kind, ending, tls):
    seen = asyncio.Event()
    last = {"fin": close(), "reset": reset(), "closes": closing_at_once()}[ending]
    context = certificates.server if tls else None
    script = [expect(), notify(seen), last, read_all()], [expect(), send(OK)]
    async with ScriptedServer(*script, receive_buffer=8192, tls=context) as server:
        async with connecting(server, certificates) as conn:
            body = EARLY[kind](tmp_path)
            with pytest.raises(OSError, match="POST http") as info:
                await conn.request("POST", "/x", body)
            assert not info.value.request_sent
            assert "(sending, " in str(info.value)
            if kind == "file":
                body.close()
            elif hasattr(body, "aclose"):
                await body.aclose()
            assert conn.sock is None
            await conn.request("GET", "/x")
            assert await (await conn.getresponse()).read() == b"hi"


async def test_a_file_that_cannot_be_read_says_so(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"x" * 300_000)
    async with ScriptedServer([expect()]) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            with path.open("ab", buffering=0) as file:
                file.seek(0)
                with pytest.raises(io.UnsupportedOperation, match="not open for reading"):
                    await conn.request("PUT", "/x", file)
            assert conn.sock is None


@needs_no_wait
async def test_a_file_that_fails_half_way_says_so(tmp_path, monkeypatch):
    original = os.preadv

    def failing(fd, buffers, offset, flags=0):
        if offset:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(fd, [buffers[0][:1000]], offset, flags)

    monkeypatch.setattr(os, "preadv", failing)
    path = tmp_path / "f"
    path.write_bytes(b"x" * 3000)
    async with ScriptedServer([expect()]) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            with path.open("rb") as file:
                with pytest.raises(OSError, match="Input/output error"):
                    await conn.request("PUT", "/x", file)
            assert conn.sock is None


async def test_an_answer_ends_the_wait_for_a_pipe(scripted):
    reading, writing = os.pipe()
    answer = b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno"
    with os.fdopen(reading, "rb") as body, os.fdopen(writing, "wb"):
        async with scripted(answer, head_only=True) as conn:
            await conn.request("POST", "/", body)
            response = await conn.getresponse()
            assert (response.status, await response.read()) == (401, b"no")
