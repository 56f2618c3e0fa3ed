"""Peers that end, reset or fall silent at every byte, and a machine that has run out of things."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import resource
import socket
import warnings

import pytest

from aiohttpconn import (
    BadStatusLine,
    ConnectError,
    HTTPConnection,
    HTTPException,
    HTTPSConnection,
    IncompleteRead,
    ReadTimeout,
    RemoteDisconnected,
    Timeout,
)
from aiohttpconn.net import sockets

from .support import ScriptedServer, close, expect, expect_request, read_all, send

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"

BODY = b"first\nsecond"
WIRES = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n" + BODY,
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"6\r\nfirst\n\r\n6;x\r\nsecond\r\n0\r\nX: y\r\n\r\n",
    "close": b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
    "interim": b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n" + BODY,
}


def decoded(framing: str, k: int) -> bytes | None:
    """Return the part of the body in the first *k* bytes; None before the head's end."""
    wire = WIRES[framing]
    start = wire.rindex(b"\r\n\r\n", 0, wire.index(b"fi")) + 4
    if k < start:
        return None
    arrived = wire[start:k]
    if framing != "chunked":
        return arrived
    parts = [(3, 9), (16, 22)]  # where the content of the two chunks is
    return b"".join(arrived[a : min(b, len(arrived))] for a, b in parts)


def whole(framing: str, k: int, ending: str) -> bool:
    """Whether a response that ends after *k* bytes is complete."""
    wire = WIRES[framing]
    if framing == "close":
        return ending == "fin" and decoded(framing, k) is not None
    if framing == "chunked" and ending == "fin":
        # Only the last CRLF, or its LF, may be missing: after the last chunk, or after the trailer.
        return k == wire.index(b"\r\n0\r\n") + 5 or k >= len(wire) - 2
    return k == len(wire)


class Cut:
    """A server's script: of ``/k/ending`` send *k* bytes and end so; to others answer OK."""

    def __init__(self, wire: bytes) -> None:
        self.wire = wire

    async def __call__(self, conn) -> None:
        while True:
            head = await conn.read_head()
            path = head.split(b" ")[1].decode()
            if path == "/next":
                await conn.send(OK)
                continue
            _, k, ending = path.split("/")
            if int(k):
                await conn.send(self.wire[: int(k)])
            if ending == "fin":
                await conn.close(notify=conn.tls is None or int(k) % 2 == 0)
            elif ending == "rst":
                await conn.reset()
                return
            await conn.read_all()
            return


async def lost(conn) -> None:
    while "not connected" not in repr(conn):
        await asyncio.sleep(0)


async def next_exchange(conn) -> None:
    await conn.request("GET", "/next")
    assert await (await conn.getresponse()).read() == b"hi"


@pytest.mark.parametrize("ending", ["fin", "rst"])
@pytest.mark.parametrize("framing", WIRES)
async def test_a_response_that_ends_at_every_byte(framing, ending):
    wire = WIRES[framing]
    async with ScriptedServer(Cut(wire)) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            for k in range(len(wire) + 1):
                expected = decoded(framing, k)
                await conn.request("GET", f"/{k}/{ending}")
                if expected is None:
                    with pytest.raises((ConnectionResetError, BadStatusLine)) as info:
                        await conn.getresponse()
                    if isinstance(info.value, RemoteDisconnected):
                        assert ending == "fin"
                    elif isinstance(info.value, BadStatusLine):
                        assert 0 < k < 13
                    else:
                        assert ending == "rst"
                    assert info.value.request_sent
                    assert not info.value.response_started
                else:
                    response = await conn.getresponse()
                    assert response.status == 200
                    if whole(framing, k, ending):
                        assert await response.read() == BODY[: len(expected)], k
                        assert response.complete, k
                        # The end may still be on its way, and a request would meet it.
                        await lost(conn)
                    else:
                        with pytest.raises(IncompleteRead) as info:
                            await response.read()
                        assert info.value.partial == expected, k
                        assert not response.complete, k
                await next_exchange(conn)


@pytest.mark.parametrize("framing", WIRES)
async def test_tls_that_ends_at_every_byte(certificates, framing):
    wire = WIRES[framing]
    async with ScriptedServer(Cut(wire), tls=certificates.server) as server:
        conn = HTTPSConnection("localhost", server.port, context=certificates.client)
        async with conn:
            for k in range(0, len(wire) + 1, 3):
                expected = decoded(framing, k)
                # With close_notify for even k, without it for odd ones: a truncation.
                clean = k % 2 == 0
                await conn.request("GET", f"/{k}/fin")
                if expected is None:
                    with pytest.raises((ConnectionResetError, BadStatusLine)):
                        await conn.getresponse()
                else:
                    response = await conn.getresponse()
                    if whole(framing, k, "fin") and (framing != "close" or clean):
                        assert await response.read() == BODY[: len(expected)], k
                        assert response.complete
                        await lost(conn)
                    else:
                        with pytest.raises(IncompleteRead) as info:
                            await response.read()
                        assert info.value.partial == expected, k
                await next_exchange(conn)


@pytest.mark.parametrize("framing", WIRES)
async def test_a_response_that_stalls_at_every_byte(framing, ticking):
    wire = WIRES[framing]

    async def one(server, k: int) -> None:
        expected = decoded(framing, k)
        conn = HTTPConnection(server.host, server.port)
        async with conn:
            # Connected first: that all of them connect at once takes time too.
            conn.timeout = Timeout(read=0.25)
            await conn.connect()
            connected.append(k)
            await all_connected.wait()
            await conn.request("GET", f"/{k}/stall")
            if expected is None:
                with pytest.raises(ReadTimeout, match="no response within 0.25 s"):  # noqa: RUF043
                    await conn.getresponse()
                return
            response = await conn.getresponse()
            if framing != "close" and k == len(wire):
                assert await response.read() == BODY
                return
            with pytest.raises(ReadTimeout, match="no byte of the body within"):
                await response.read()
            # What had arrived stays readable.
            if expected:
                assert await response.read(len(expected)) == expected, k
            with pytest.raises(ReadTimeout):
                await response.read()
            assert conn.sock is None

    connected: list[int] = []
    all_connected = asyncio.Event()
    async with ScriptedServer(Cut(wire)) as server:
        tasks = [asyncio.create_task(one(server, k)) for k in range(len(wire) + 1)]
        while len(connected) < len(tasks):
            await asyncio.sleep(0)
        all_connected.set()
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("k", range(0, 40, 5))
async def test_a_request_that_is_cut_by_the_server_at_every_block(k):
    # The server leaves after k blocks; what it has said by then is told.
    async def script(conn) -> None:
        if b"/next" in await conn.read_head():
            await conn.send(OK)
            return
        for _ in range(k):
            await conn.read_until(b"\r\n")
        await conn.reset()

    def blocks():
        for _ in range(4000):
            yield b"x" * 1000

    async with ScriptedServer(script, receive_buffer=4096) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            with pytest.raises(OSError, match="POST http") as info:
                await conn.request("POST", "/", blocks())
            assert not info.value.request_sent
            await next_exchange(conn)


async def test_an_answer_and_a_reset_at_once(certificates):
    # What the kernel holds of the answer is read, though writing fails first.
    answer = b"HTTP/1.1 507 Full\r\nContent-Length: 4\r\n\r\nfull"

    async def script(conn) -> None:
        await conn.read_head()
        conn.sock.setblocking(True)
        conn.sock.sendall(answer)
        conn.reset_now()

    async with ScriptedServer(script, receive_buffer=4096) as server:
        got = []
        for _ in range(20):
            async with HTTPConnection(server.host, server.port) as conn:
                try:
                    await conn.request("POST", "/", b"x" * 3_000_000)
                    response = await conn.getresponse()
                    got.append((response.status, await response.read()))
                except ConnectionError as exc:
                    got.append(type(exc))
        # Linux keeps what had arrived when a reset comes; that it comes first is its right.
        assert got.count((507, b"full")) == 20


# A machine that has run out --------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_no_file_descriptor_left(certificates, tls):
    context = certificates.server if tls else None
    async with ScriptedServer([expect(), send(OK)], tls=context) as server:
        conn = HTTPConnection("127.0.0.1", server.port)
        if tls:
            conn = HTTPSConnection("127.0.0.1", server.port, context=certificates.client)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = os.dup(0)
        os.close(spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
        try:
            for _ in range(3):
                with pytest.raises(ConnectError) as info:
                    await conn.request("GET", "/x")
                assert info.value.errno == errno.EMFILE
                assert str(info.value).startswith(
                    f"GET {'https' if tls else 'http'}://127.0.0.1:{server.port}/x: cannot connect "
                    f"to 127.0.0.1:{server.port}: too many open files (connect, "
                )
                assert isinstance(info.value.errors[0], OSError)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        async with conn:
            await conn.request("GET", "/x")
            assert await (await conn.getresponse()).read() == b"hi"


async def test_sending_a_file_needs_no_file_descriptor(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"x" * 100_000)
    async with ScriptedServer([expect_request(), send(OK)]) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.connect()
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            with path.open("rb") as file:
                spare = os.dup(0)
                os.close(spare)
                resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
                try:
                    await conn.request("PUT", "/", file)
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert await (await conn.getresponse()).read() == b"hi"
        assert server.received[0].endswith(b"\r\n\r\n" + b"x" * 100_000)


async def test_no_memory_for_a_socket(monkeypatch):
    def failing(*args):
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    monkeypatch.setattr(sockets.socket, "socket", failing)
    conn = HTTPConnection("127.0.0.1", 1)
    with pytest.raises(ConnectError, match="no buffer space available") as info:
        await conn.connect()
    assert info.value.errno == errno.ENOBUFS


# A loop that is gone ---------------------------------------------------------------------------


def blocking_server() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


@pytest.mark.may_leak("sockets of a loop that was closed under them close when they are collected")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("state", ["idle", "waiting", "unread", "handed over"])
def test_a_loop_closed_with_an_open_connection(loop, state):
    uvloop = pytest.importorskip("uvloop") if loop == "uvloop" else None
    listener = blocking_server()
    answers = {
        "idle": OK,
        "waiting": b"",
        "unread": OK[:-1],
        "handed over": b"HTTP/1.1 200 OK\r\n\r\nx",
    }
    kept = []

    async def main() -> None:
        conn = HTTPConnection("127.0.0.1", listener.getsockname()[1])
        await conn.connect()
        sock, _ = listener.accept()
        await conn.request("GET", "/")
        sock.sendall(answers[state])
        response = None if state == "waiting" else await conn.getresponse()
        if state == "idle":
            await response.read()
        kept.extend((conn, response, sock))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        factory = uvloop.new_event_loop if uvloop else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
        conn, response, sock = kept
        kept.clear()
        # Nothing is scheduled on a closed loop, and nothing is raised.
        if response is not None:
            response.close()
        conn.close()
        conn.close()
        assert conn.sock is None
        del conn, response
        gc.collect()
        sock.close()
        listener.close()
    ours = [w for w in caught if "http connection" in str(w.message)]
    assert ours == []


@pytest.mark.may_leak("the socket of a loop that was closed under it closes when it is collected")
def test_another_loop_takes_over():
    listener = blocking_server()
    socks = [listener]

    async def exchange(conn) -> bytes:
        conn.close()
        await conn.connect()
        sock, _ = listener.accept()
        socks.append(sock)
        await conn.request("GET", "/")
        sock.sendall(OK)
        return await (await conn.getresponse()).read()

    def program() -> None:
        conn = HTTPConnection("127.0.0.1", listener.getsockname()[1])
        for _ in range(2):
            with asyncio.Runner() as runner:
                assert runner.run(exchange(conn)) == b"hi"
        conn.close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program()
        gc.collect()
    for sock in socks:
        sock.close()


# Odd servers -----------------------------------------------------------------------------------


async def test_a_server_that_half_closes_after_its_response():
    script = [expect(), send(OK), close(), expect(), read_all()], [expect(), send(OK)]
    async with ScriptedServer(*script) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/")
            assert await (await conn.getresponse()).read() == b"hi"
            while conn.sock is not None:
                await asyncio.sleep(0)
            await conn.request("GET", "/")
            assert await (await conn.getresponse()).read() == b"hi"
            assert server.connections == 2


async def test_a_server_that_answers_before_it_is_asked():
    # Bytes that wait in the kernel when the request is written are taken for its answer; those
    # that the loop has read before it are not.
    async with ScriptedServer([send(OK), read_all()], [expect(), send(OK)]) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.connect()
            while conn.sock is not None:
                await asyncio.sleep(0)
            await conn.request("GET", "/")
            assert await (await conn.getresponse()).read() == b"hi"
            assert server.connections == 2


async def test_an_endless_head(scripted):
    async with scripted([b"HTTP/1.1 200 OK\r\n", *[b"X: " + b"y" * 60_000 + b"\r\n"] * 9]) as conn:
        await conn.request("GET", "/")
        with pytest.raises(HTTPException, match="got more than 262144 bytes when reading the head"):
            await conn.getresponse()
        assert conn.sock is None
