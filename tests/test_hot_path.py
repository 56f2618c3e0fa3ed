"""The hot path's budget: what a keep-alive GET with read() may cost, counted, never timed.

Raising a number needs a reason in the commit. docs/topics/design.md explains each.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tracemalloc
import types
from collections.abc import Awaitable, Generator, Iterator
from typing import Any

import pytest

import aiohttpconn

from .support import ScriptedServer

CALLS = 8
"""Calls into the package for one request, resumed coroutines included.

With a head that was seen a moment ago; another one is matched by one call more.
"""

CLIENT_CALLS = 16
"""The same for ``Client.get``, with everything at its default."""

UPLOAD_CALLS = 150
"""The same for ``Client.post`` of an async iterable of three blocks."""

WRITES = 1
TIMERS = 0
SUSPENSIONS = 1
PEAK = 1.2
"""tracemalloc's peak of a 16 MiB read(), in bodies."""

REPLY = (
    b"HTTP/1.1 200 OK\r\nServer: test\r\nDate: Mon, 23 Nov 2026 12:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: 13\r\nConnection: keep-alive\r\n"
    b'ETag: "1"\r\nAccept-Ranges: bytes\r\n\r\n{"ok": true}\r\n'[:-1]
)

PACKAGE = aiohttpconn.__file__.removesuffix("__init__.py")
KIT = PACKAGE + "testing"
"""The test server's calls are not the client's."""


async def answer_all(conn: Any) -> None:
    while await conn.read_head():
        await conn.send(REPLY)


async def get(conn: aiohttpconn.HTTPConnection) -> bytes:
    await conn.request("GET", "/x")
    response = await conn.getresponse()
    return await response.read()


class CallCounter:
    """Count the calls into the package, by name, while it is active."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __enter__(self) -> CallCounter:
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.setprofile(None)

    def _profile(self, frame: types.FrameType, event: str, arg: object) -> None:
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(PACKAGE) and not path.startswith(KIT):
            self.names.append(frame.f_code.co_name)


@types.coroutine
def counting_suspensions(awaitable: Awaitable[Any], counts: list[int]) -> Generator[Any, Any, Any]:
    """Await *awaitable*; add 1 to ``counts[0]`` for each time that it suspends."""
    steps = awaitable.__await__()
    value = None
    while True:
        try:
            future = steps.send(value)
        except StopIteration as stop:
            return stop.value
        counts[0] += 1
        value = yield future


@pytest.fixture
async def warm() -> Any:
    """A connection that has made some requests, to a server that answers each."""
    async with (
        ScriptedServer([answer_all]) as server,
        aiohttpconn.HTTPConnection(server.host, server.port) as conn,
    ):
        for _ in range(3):
            assert await get(conn) == REPLY[-13:]
        yield conn


@pytest.fixture
async def client() -> Any:
    """A client with everything at its default that has made some requests to the same server."""
    async with (
        ScriptedServer([answer_all]) as server,
        aiohttpconn.Client(base_url=f"http://{server.host}:{server.port}") as client,
    ):
        for _ in range(3):
            assert (await client.get("/x")).content == REPLY[-13:]
        yield client


async def test_a_get_stays_within_its_calls(warm: aiohttpconn.HTTPConnection) -> None:
    with CallCounter() as counter:
        await get(warm)
    assert len(counter.names) <= CALLS, counter.names


async def test_a_get_of_a_client_stays_within_its_calls(
    client: aiohttpconn.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a slow machine it may have been idle for longer: a look at its socket is two calls.
    monkeypatch.setattr("aiohttpconn.pool.requests.LOOK_AFTER", 60.0)
    with CallCounter() as counter:
        response = await client.get("/x")
    assert response.reused
    assert len(counter.names) <= CLIENT_CALLS, counter.names


async def test_a_post_of_an_async_iterable_stays_within_its_calls() -> None:
    async def blocks() -> Any:
        for _ in range(3):
            yield b"x" * 100

    async def answer_uploads(conn: Any) -> None:
        while await conn.read_head():
            await conn.read_until(b"0\r\n\r\n")
            await conn.send(REPLY)

    async with (
        ScriptedServer([answer_uploads]) as server,
        aiohttpconn.Client(base_url=f"http://{server.host}:{server.port}") as client,
    ):
        for _ in range(3):
            await client.post("/x", content=blocks())
        with CallCounter() as counter:
            response = await client.post("/x", content=blocks())
        assert response.reused
        assert len(counter.names) <= UPLOAD_CALLS, counter.names
        for once in ("encode_fields", "make_body", "body_framing"):
            assert counter.names.count(once) == 1, once


async def test_a_head_that_was_not_seen_costs_one_call_more() -> None:
    async def answer_differently(conn: Any) -> None:
        number = 0
        while await conn.read_head():
            number += 1
            await conn.send(REPLY.replace(b'"1"', b'"%d"' % (number % 10)))

    async with (
        ScriptedServer([answer_differently]) as server,
        aiohttpconn.HTTPConnection(server.host, server.port) as conn,
    ):
        await get(conn)
        for _ in range(3):
            with CallCounter() as counter:
                await get(conn)
            assert len(counter.names) <= CALLS + 1, counter.names


async def test_a_small_post_costs_one_call_more_than_a_get(
    warm: aiohttpconn.HTTPConnection,
) -> None:
    """The caller's field is encoded; nothing is called for the body."""
    names: list[list[str]] = []
    fields = {"Content-Type": "application/json"}
    for _ in range(2):
        for method, body, headers in (("GET", None, {}), ("POST", b"{}", fields)):
            with CallCounter() as counter:
                await warm.request(method, "/x", body, headers)
                await (await warm.getresponse()).read()
            names.append(counter.names)
    get, post = names[-2:]
    assert len(post) <= len(get) + 1, post


@pytest.mark.parametrize("timeout", [None, 30, aiohttpconn.Timeout(total=30, read=10)])
async def test_a_get_makes_no_timer(timeout: Any) -> None:
    async with (
        ScriptedServer([answer_all]) as server,
        aiohttpconn.HTTPConnection(server.host, server.port, timeout) as conn,
    ):
        # The first exchange makes the connection's one timer, if there is a limit.
        await get(conn)
        with recorded_timers() as made:
            for _ in range(10):
                await get(conn)
    assert len(made) <= TIMERS, made


async def test_a_get_of_a_client_makes_no_timer(client: aiohttpconn.Client) -> None:
    with recorded_timers() as made:
        for _ in range(10):
            await client.get("/x")
    assert len(made) <= TIMERS, made


@contextlib.contextmanager
def recorded_timers() -> Iterator[list[str]]:
    """Yield the names of the loop's methods that make timers, as they are called."""
    loop: Any = asyncio.get_running_loop()
    made: list[str] = []
    for name in ("call_at", "call_later"):
        original = getattr(loop, name)

        def record(*args: Any, original: Any = original, name: str = name) -> Any:
            made.append(name)
            return original(*args)

        setattr(loop, name, record)
    try:
        yield made
    finally:
        del loop.call_at, loop.call_later


async def test_a_get_is_one_write(warm: aiohttpconn.HTTPConnection) -> None:
    with recorded_writes(warm._protocol) as written:
        await get(warm)
        await warm.request("POST", "/x", b"a small body", {"X-A": "b"})
        await (await warm.getresponse()).read()
    assert len(written) == 2 * WRITES
    assert written[1].endswith(b"\r\n\r\na small body")


async def test_a_get_of_a_client_is_one_write(client: aiohttpconn.Client) -> None:
    await client.get("/x")
    (connection,) = client.pool._connections.scheduler.idle
    with recorded_writes(connection) as written:
        await client.get("/x")
        await client.post("/x", json={"a": 1})
    assert len(written) == 2 * WRITES
    assert written[1].endswith(b'\r\n\r\n{"a":1}')


@contextlib.contextmanager
def recorded_writes(protocol: Any) -> Iterator[list[bytes]]:
    """Yield the writes to the transport of *protocol*, as they are."""
    written: list[bytes] = []
    transport = protocol.transport

    class Recorder:
        def __getattr__(self, name: str) -> Any:
            return getattr(transport, name)

        def write(self, data: bytes) -> None:
            written.append(data)
            transport.write(data)

        def writelines(self, data: Any) -> None:
            raise AssertionError("a request is one write")

    recorder = Recorder()
    protocol.transport, protocol.write = recorder, recorder.write
    try:
        yield written
    finally:
        protocol.transport, protocol.write = transport, transport.write


async def test_a_get_suspends_once(warm: aiohttpconn.HTTPConnection) -> None:
    counts = [0]
    await counting_suspensions(get(warm), counts)
    assert counts[0] <= SUSPENSIONS


async def test_a_get_of_a_client_suspends_once(client: aiohttpconn.Client) -> None:
    counts = [0]
    await counting_suspensions(client.get("/x"), counts)
    assert counts[0] <= SUSPENSIONS


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_a_large_read_holds_the_body_once() -> None:
    size = 16 * 1024 * 1024

    async def big(conn: Any) -> None:
        await conn.read_head()
        await conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        block = b"x" * 65536
        for _ in range(size // len(block)):
            await conn.send(block)

    async with (
        ScriptedServer([big]) as server,
        aiohttpconn.HTTPConnection(server.host, server.port) as conn,
    ):
        await conn.request("GET", "/")
        response = await conn.getresponse()
        tracemalloc.start()
        try:
            body = await response.read()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert len(body) == size
        assert peak < PEAK * size
