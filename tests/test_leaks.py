"""Nothing stays: no socket, task or timer after an exchange, and no cycle that keeps objects."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref

import pytest

from aiohttpconn import (
    HTTP1Protocol,
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    HTTPSConnection,
    Timeout,
)

from .support import ScriptedServer, close, expect, read_all, reset, send, wait
from .support.leaks import open_sockets

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"


@contextlib.contextmanager
def no_gc():
    """Keep the collector from hiding a cycle."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def gone(*refs, turns: int = 50) -> bool:
    """Whether what *refs* refer to has been freed, within some turns of the loop."""
    for _ in range(turns):
        if all(ref() is None for ref in refs):
            return True
        await asyncio.sleep(0)
    return False


async def answering(conn) -> None:
    while True:
        await conn.read_request()
        await conn.send(OK)


def alive(*kinds) -> int:
    gc.collect()
    return sum(isinstance(each, kinds) for each in gc.get_objects())


async def test_a_response_is_freed_when_it_is_dropped(scripted):
    async with scripted(OK, CHUNKED) as conn:
        with no_gc():
            for _ in range(2):
                await conn.request("GET", "/")
                response = await conn.getresponse()
                await response.read()
                assert response.headers.keys()
                ref = weakref.ref(response)
                del response
            # The connection looks at its last response when it is asked for the next.
            conn.close()
            assert ref() is None


async def test_a_closed_connection_is_freed_with_all_that_is_its_own(scripted):
    async with ScriptedServer(answering) as server:
        with no_gc():
            conn = HTTPConnection(server.host, server.port, timeout=Timeout(total=9, read=5))
            await conn.request("POST", "/", [b"x"])
            response = await conn.getresponse()
            await response.read()
            refs = [weakref.ref(each) for each in (conn._protocol, response)]
            conn.close()
            await conn.wait_closed()
            del conn, response
            assert await gone(*refs)


async def test_a_failed_exchange_is_freed_with_its_error():
    async with ScriptedServer([expect(), send(b"nonsense\r\n"), read_all()]) as server:
        with no_gc():
            conn = HTTPConnection(server.host, server.port)
            await conn.request("GET", "/")
            refs = [weakref.ref(conn._protocol), weakref.ref(conn._exchange)]
            with pytest.raises(HTTPException) as info:
                await conn.getresponse()
            del info, conn
            assert await gone(*refs)


async def test_an_upload_that_loses_its_connection_is_freed_with_it():
    stopped = asyncio.Event()
    script = [expect(), wait(stopped), reset()]
    async with ScriptedServer(script, receive_buffer=4096) as server:
        with no_gc():
            conn = HTTPConnection(server.host, server.port, timeout=Timeout(write=9))
            await conn.connect()
            protocol = conn._protocol
            sending = asyncio.ensure_future(conn.request("POST", "/", bytes(32 * 1024 * 1024)))
            while not protocol.writing_paused:
                await asyncio.sleep(0)
            ref = weakref.ref(protocol)
            del protocol
            stopped.set()
            with pytest.raises(ConnectionResetError):
                await sending
            del conn, sending
            assert await gone(ref)


async def test_a_detached_connection_leaves_only_its_transport():
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    async with ScriptedServer([expect(), send(head), read_all()]) as server:
        with no_gc():
            conn = HTTPConnection(server.host, server.port, timeout=9)
            conn.putrequest("GET", "/")
            conn.putheader("Upgrade", "x")
            conn.putheader("Connection", "upgrade")
            await conn.endheaders()
            await conn.getresponse()
            ref = weakref.ref(conn._protocol)
            transport, _ = conn.detach()
            # uvloop keeps the methods of a BufferedProtocol until another one comes.
            transport.set_protocol(asyncio.BufferedProtocol())
            del conn
            assert await gone(ref)
        transport.abort()


async def test_a_dropped_response_that_owns_its_socket_frees_it():
    before = open_sockets()
    head = b"HTTP/1.1 200 OK\r\n\r\nsome"
    async with ScriptedServer([expect(), send(head), read_all()]) as server:
        with no_gc():
            conn = HTTPConnection(server.host, server.port)
            await conn.request("GET", "/")
            response = await conn.getresponse()
            ref = weakref.ref(response.source)
            del conn, response
            assert await gone(ref)
        await server.conns[0].wait_ended()
    assert open_sockets() <= before


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_many_connections_leave_nothing(certificates, tls):
    context = certificates.server if tls else None
    kinds = (HTTPConnection, HTTP1Protocol, HTTPResponse)
    async with ScriptedServer(answering, tls=context) as server:
        objects = alive(*kinds)
        for i in range(25):
            if tls:
                conn = HTTPSConnection("localhost", server.port, context=certificates.client)
            else:
                conn = HTTPConnection(server.host, server.port, timeout=5)
            async with conn:
                for _ in range(3):
                    await conn.request("POST", "/", [b"x"] if i % 2 else b"x")
                    await (await conn.getresponse()).read()
            del conn
        for each in server.conns:
            await each.wait_ended()
        for _ in range(50):
            await asyncio.sleep(0)
        assert alive(*kinds) <= objects
        assert len(asyncio.all_tasks()) <= 2  # the test, and the server that accepts


async def test_a_closed_response_keeps_no_bytes():
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 999_999
    async with ScriptedServer([expect(), send(body), read_all()]) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            while response.buffered < 100_000:
                await asyncio.sleep(0)
            response.close()
            assert (response.first, response._queue, response.buffered) == (b"", None, 0)


async def test_an_idle_connection_owns_no_buffer(scripted):
    async with scripted([OK[:30], OK[30:]], [CHUNKED[:60], CHUNKED[60:]]) as conn:
        for _ in range(2):
            await conn.request("GET", "/")
            await (await conn.getresponse()).read()
            protocol = conn._protocol
            assert protocol._response is None
            assert protocol._reader is None
            assert not protocol._upgraded


async def test_exchanges_leave_no_task_and_no_timer(scripted, monkeypatch):
    loop = asyncio.get_running_loop()
    timers = []
    async with scripted(OK, OK, OK, timeout=Timeout(read=60, write=60)) as conn:
        await conn.connect()
        await scripted.server.wait_connections(1)
        tasks = asyncio.all_tasks()
        for _ in range(3):

            async def items():
                yield b"x"

            await conn.request("POST", "/", items())
            await (await conn.getresponse()).read()
            timers.append(conn._protocol._watchdog._handle)
        assert asyncio.all_tasks() <= tasks | {asyncio.current_task()}
        # One timer, that of the first wait; it is cancelled with the connection.
        assert len({id(timer) for timer in timers}) == 1
    assert timers[0].cancelled()
    assert loop.is_running()


async def test_reconnecting_for_ever_opens_one_socket_at_a_time():
    script = [expect(), send(OK), close(), read_all()]
    async with ScriptedServer(script) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/")
            await (await conn.getresponse()).read()
            most = 0
            for _ in range(30):
                while conn.sock is not None:
                    await asyncio.sleep(0)
                await conn.request("GET", "/")
                await (await conn.getresponse()).read()
                most = max(most, len(open_sockets()))
            assert server.connections == 31
            assert most < 20 + len(server.conns) // 10
