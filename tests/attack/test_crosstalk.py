"""No request gets the answer of another one, or a body with a hole, whatever is sent or raised."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

from aiohttpconn import (
    ConnectionPool,
    HTTPConnection,
    HTTPException,
    HTTPSConnection,
    IncompleteRead,
    ResponseNotReady,
)
from aiohttpconn.failures import describe_exchange
from aiohttpconn.protocol import HTTP1Protocol

from ..support import ScriptedServer, expect, read_all, send, wait
from ..support.pooled import once_open, queued, start

if TYPE_CHECKING:
    from collections.abc import Iterator

BUFFER = 1024
"""Bytes that one read takes, with ``high_water=BUFFER``."""


def answer(body: bytes, size: int = 0) -> bytes:
    """Return a response with *body*, of *size* bytes in all if that is given."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(body)
    fill = size - len(head) - len(b"X: \r\n\r\n") - len(body)
    return head + (b"X: %b\r\n" % (b"x" * fill) if size else b"") + b"\r\n" + body


POISON = answer(b"the answer to nobody's request")
FULL = answer(b"first", BUFFER)
"""A response that is exactly as large as the buffer."""

LANDED = 300_000
"""Bytes of a body that lands in its reader's memory."""

REST = 20_000
"""Its last bytes, few enough to be in the kernel at once, with all that is glued to them."""


def then(body: bytes) -> list[Any]:
    """Return a script that answers one request with *body*."""
    return [expect(), send(answer(body)), read_all()]


# A second response glued to the first -------------------------------------------------------


@contextlib.asynccontextmanager
async def landing(pool: ConnectionPool, server: ScriptedServer, go: asyncio.Event) -> Any:
    """Yield the task that reads a large body, and its response, when all but REST is read."""
    response = await pool.request("GET", server.url)
    reading = asyncio.ensure_future(response.read())
    while response.received < LANDED - REST:
        await asyncio.sleep(0)
    assert response.landing is not None
    go.set()
    yield response, reading
    assert await reading == b"1" * LANDED


def glued(go: asyncio.Event) -> list[Any]:
    whole = answer(b"1" * LANDED)
    return [expect(), send(whole[:-REST]), wait(go), send(whole[-REST:] + POISON), read_all()]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_what_is_glued_to_a_landed_body_answers_no_request_that_waits(tls, certificates):
    go = asyncio.Event()
    options = {"context": certificates.client} if tls else {}
    keywords = {"tls": certificates.server} if tls else {}
    async with (
        ScriptedServer(glued(go), then(b"second"), **keywords) as server,
        ConnectionPool(limit=1, **options) as pool,
    ):
        async with landing(pool, server, go):
            second = start(pool, f"{server.url}second")
            await queued(pool, 1)
        assert await second == b"second"
        assert server.connections == 2


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_what_is_glued_to_a_landed_body_answers_no_request_that_comes_at_once(
    tls, certificates
):
    go = asyncio.Event()
    options = {"context": certificates.client} if tls else {}
    keywords = {"tls": certificates.server} if tls else {}
    async with (
        ScriptedServer(glued(go), then(b"second"), **keywords) as server,
        ConnectionPool(**options) as pool,
    ):
        async with landing(pool, server, go) as (response, _):
            while not response.ended:
                await asyncio.sleep(0)
            # In the very turn in which it has ended, before anything else may run.
            second = await pool.request("GET", f"{server.url}second")
        assert await second.read() == b"second"


async def ask(conn: Any, target: str = "/") -> bytes:
    await conn.request("GET", target)
    return await (await conn.getresponse()).read()


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "waits"])
async def test_what_is_glued_to_a_full_buffer_answers_no_request(waits):
    script = [expect(), send(FULL + POISON), read_all()]
    async with (
        ScriptedServer(script, then(b"second")) as server,
        ConnectionPool(limit=1, high_water=BUFFER) as pool,
    ):
        if waits:
            first = start(pool, server.url)
            await once_open(pool, 1)
            second = start(pool, server.url)
            assert await first == b"first"
            assert await second == b"second"
        else:
            for body in (b"first", b"second"):
                response = await pool.request("GET", server.url)
                assert await response.read() == body


async def test_what_is_glued_to_a_chunked_body_that_fills_the_buffer_answers_no_request():
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"1" * (BUFFER - len(head) - len(b"xxx\r\n\r\n0\r\n\r\n"))
    first = b"%b%x\r\n%b\r\n0\r\n\r\n" % (head, len(body), body)
    assert len(first) == BUFFER
    async with (
        ScriptedServer([expect(), send(first + POISON), read_all()], then(b"second")) as server,
        ConnectionPool(high_water=BUFFER) as pool,
    ):
        for expected in (body, b"second"):
            assert await (await pool.request("GET", server.url)).read() == expected


async def test_what_is_glued_to_a_full_buffer_answers_no_request_of_a_shared_connection():
    script = [expect(), send(FULL + POISON), read_all()]
    async with (
        ScriptedServer(script, then(b"second")) as server,
        ConnectionPool(limit=1, high_water=BUFFER, pipelining=4) as pool,
    ):
        for body in (b"first", b"second"):
            assert await (await pool.request("GET", server.url)).read() == body


@pytest.mark.parametrize("lent", [False, True], ids=["own", "lent"])
async def test_what_is_glued_to_a_full_buffer_answers_no_request_of_a_connection(lent):
    script = [expect(), send(FULL + POISON), read_all()]
    async with ScriptedServer(script, then(b"second")) as server, contextlib.AsyncExitStack() as on:
        if lent:
            pool = await on.enter_async_context(ConnectionPool(high_water=BUFFER))
            conn = await on.enter_async_context(pool.connection(server.url))
        else:
            conn = await on.enter_async_context(HTTPConnection(*server.address, high_water=BUFFER))
        assert await ask(conn) == b"first"
        assert await ask(conn) == b"second"


@pytest.mark.parametrize("lent", [False, True], ids=["own", "lent"])
@pytest.mark.parametrize("way", ["request", "endheaders", "total", "tls"])
async def test_what_came_since_the_loop_turned_answers_no_request_of_a_connection(
    lent, way, certificates
):
    tls = way == "tls"
    keywords = {"tls": certificates.server} if tls else {}
    async with (
        ScriptedServer(then(b"first"), then(b"second"), **keywords) as server,
        contextlib.AsyncExitStack() as on,
    ):
        options: dict[str, Any] = {"context": certificates.client} if tls else {}
        timeout = 30 if way == "total" else None
        if lent:
            pool = await on.enter_async_context(ConnectionPool(timeout=timeout, **options))
            conn = await on.enter_async_context(pool.connection(server.url))
        else:
            kind = HTTPSConnection if tls else HTTPConnection
            host = "localhost" if tls else server.host
            conn = await on.enter_async_context(kind(host, server.port, timeout=timeout, **options))
        assert await ask(conn) == b"first"
        # No await from here to the request: the loop cannot see what the server sends.
        stray = POISON
        (peer,) = server.conns
        if peer.tls is not None:
            peer.tls.write(POISON)
            stray = peer._outgoing.read()
        assert peer.sock.send(stray) == len(stray)
        if way == "endheaders":
            conn.putrequest("GET", "/")
            await conn.endheaders()
            assert await (await conn.getresponse()).read() == b"second"
        else:
            assert await ask(conn) == b"second"
        assert server.connections == 2


async def test_an_end_that_came_since_the_loop_turned_loses_no_request_of_a_connection():
    async with (
        ScriptedServer(then(b"first"), then(b"second")) as server,
        HTTPConnection(*server.address) as conn,
    ):
        assert await ask(conn) == b"first"
        server.conns[0].sock.shutdown(socket.SHUT_WR)
        assert await ask(conn) == b"second"


# An exception of our own while bytes are taken in -------------------------------------------


def nothing_is_in_use(pool: ConnectionPool) -> bool:
    stats = pool.stats()
    return (stats.open, stats.queued) == (stats.idle, 0)


class Raise:
    """Raise *exc* once, before the *step*-th line that runs in the *event*-th read event.

    ``raised`` tells whether so many lines ran.
    """

    def __init__(self, event: int, step: int, exc: BaseException) -> None:
        self._event = event
        self._step = step
        self._exc = exc
        self._events = 0
        self.raised = False

    def __enter__(self) -> Raise:
        self._before = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(self._before)

    def _call(self, frame: Any, event: str, arg: object) -> Any:
        if frame.f_code is HTTP1Protocol.buffer_updated.__code__:
            self._events += 1
            if self._events == self._event:
                self._frame = frame
                return self._line(frame, event, arg)
        elif self._events == self._event and self._is_inside(frame):
            return self._line(frame, event, arg)
        return None

    def _is_inside(self, frame: Any) -> bool:
        while frame is not None and frame is not self._frame:
            frame = frame.f_back
        return frame is not None

    def _line(self, frame: Any, event: str, arg: object) -> Any:
        # In asyncio's own lines a Future that completes would lose its callbacks, and its task
        # could not be woken by anybody.
        ours = frame.f_globals["__name__"].startswith("aiohttpconn.")
        if ours and event in ("call", "line") and not self.raised:
            if not self._step:
                self.raised = True
                raise self._exc
            self._step -= 1
        return self._line


def every_step(event: int, exc: type[Exception] = MemoryError) -> Iterator[Raise]:
    """Yield a ``Raise`` for every line of the *event*-th read event."""
    for step in range(1000):
        trouble = Raise(event, step, exc("once"))
        yield trouble
        if not trouble.raised:
            assert step > 10, "the event has hardly any lines"
            return
    raise AssertionError("more lines than one event can have")


async def outcome(task: asyncio.Future[bytes]) -> bytes | None:
    """Return the body, or None if the request failed in a way that is documented."""
    try:
        async with asyncio.timeout(10):
            return await task
    except TimeoutError as exc:
        raise AssertionError("it waits for ever") from exc
    except (OSError, HTTPException):
        return None


@pytest.mark.parametrize("event", [1, 2, 3])
async def test_an_exception_in_a_read_event_shifts_no_answer(event, loop_errors):
    """Each answer fills one read, so that what follows it waits in the kernel."""
    bodies = [b"%d" % number for number in range(5)]

    async def serve(conn: Any) -> None:
        wanted = []
        for _ in bodies:
            wanted.append((await conn.read_head()).split()[1][1:])
            if conn is not server.conns[0]:
                await conn.send(answer(wanted[-1], BUFFER))
        await conn.send(b"".join(answer(body, BUFFER) for body in wanted))

    for trouble in every_step(event):
        async with ScriptedServer(serve) as server:
            async with ConnectionPool(limit=1, high_water=BUFFER, pipelining=5) as pool:
                with trouble:
                    tasks = [start(pool, f"{server.url}{body.decode()}") for body in bodies]
                    found = [await outcome(task) for task in tasks]
                for body, got in zip(bodies, found, strict=True):
                    assert got in (body, None)
                if not trouble.raised:
                    assert found == bodies
                assert nothing_is_in_use(pool)
    assert {type(error["exception"]) for error in loop_errors} == {MemoryError}
    loop_errors.clear()


@pytest.mark.parametrize("event", [2, 3])
async def test_an_exception_in_a_read_event_leaves_no_hole_in_a_body(event, loop_errors):
    """Each chunk fills one read, so that a body without one would look whole."""
    size = BUFFER - len(b"3f7\r\n\r\n")
    chunks = [b"%x\r\n%b\r\n" % (size, b"%d" % number * size) for number in range(5)]
    assert len(chunks[0]) == BUFFER
    head = b"HTTP/1.1 200 OK\r\nX: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
    head %= b"x" * (BUFFER - len(head) + 2)
    whole = b"".join(b"%d" % number * size for number in range(5))
    script = [expect(), send(head + b"".join(chunks) + b"0\r\n\r\n"), read_all()]
    for trouble in every_step(event):
        async with ScriptedServer(script) as server:
            async with HTTPConnection(*server.address, high_water=BUFFER) as conn:
                with trouble:
                    await conn.request("GET", "/")
                    reading = None
                    try:
                        response = await conn.getresponse()
                        reading = asyncio.ensure_future(response.read())
                    except (OSError, HTTPException):
                        assert trouble.raised
                    if reading is not None:
                        assert await outcome(reading) in (whole, None)
    assert {type(error["exception"]) for error in loop_errors} == {MemoryError}
    loop_errors.clear()


async def test_an_exception_in_a_read_event_ends_the_exchange_and_says_so(monkeypatch, loop_errors):
    def fail(self: HTTP1Protocol, *args: Any) -> None:
        monkeypatch.undo()
        raise MemoryError("no memory")

    script = [expect(), send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"), send(b"abc")]
    async with (
        ScriptedServer(script) as server,
        HTTPConnection(*server.address) as conn,
    ):
        monkeypatch.setattr(HTTP1Protocol, "_progress", fail)
        await conn.request("GET", "/")
        with pytest.raises(ConnectionAbortedError, match=r"this program failed while it read") as e:
            await conn.getresponse()
        assert type(e.value.__cause__) is MemoryError
        await conn.request("GET", "/")
        response = await conn.getresponse()
        monkeypatch.setattr(HTTP1Protocol, "_progress", fail)
        server.conns[1].sock.send(b"def")
        with pytest.raises(IncompleteRead, match=r"this program failed while it read"):
            await response.read()
    assert {type(error["exception"]) for error in loop_errors} == {MemoryError}
    loop_errors.clear()


@pytest.mark.parametrize("n", [1, 2, 3])
async def test_an_exception_at_the_end_of_a_connection_leaves_nobody_waiting(
    n, monkeypatch, loop_errors
):
    """The *n*-th error of those that share a connection cannot be made."""
    made = 0

    def describe(*args: Any, **keywords: Any) -> Any:
        nonlocal made
        made += 1
        if made == n:
            raise MemoryError("no memory")
        return describe_exchange(*args, **keywords)

    monkeypatch.setattr("aiohttpconn.ends.describe_exchange", describe)
    bodies = [b"%d" % number for number in range(3)]

    async def end(conn: Any) -> None:
        for _ in bodies:
            await conn.read_head()
        await conn.close()

    async with ScriptedServer(end, serve_targets) as server:
        async with ConnectionPool(limit=1, pipelining=3) as pool:
            tasks = [start(pool, f"{server.url}{body.decode()}") for body in bodies]
            found = [await outcome(task) for task in tasks]
            for body, got in zip(bodies, found, strict=True):
                assert got in (b"/" + body, None)
            assert made >= n
            assert nothing_is_in_use(pool)
    assert {type(error["exception"]) for error in loop_errors} == {MemoryError}
    loop_errors.clear()


# An exception of the write ------------------------------------------------------------------


class FailingWrite:
    """Let the *n*-th request's write of a protocol raise: before its bytes leave, or after."""

    def __init__(self, protocol: Any, n: int, late: bool) -> None:
        self._write = protocol.write
        self._left = n
        self._late = late
        protocol.write = self

    def __call__(self, data: bytes) -> None:
        self._left -= 1
        if self._left or self._late:
            self._write(data)
        if not self._left:
            raise MemoryError("no memory")


@pytest.mark.parametrize("late", [False, True])
async def test_a_write_that_raises_ends_the_connection(late):
    async def serve(conn: Any) -> None:
        while head := await conn.read_head():
            await conn.send(answer(head.split()[1]))

    async with ScriptedServer(serve) as server, HTTPConnection(*server.address) as conn:
        assert await ask(conn, "/1") == b"/1"
        FailingWrite(conn._protocol, 1, late)
        with pytest.raises(MemoryError):
            await conn.request("GET", "/2")
        with pytest.raises(ResponseNotReady):
            await conn.getresponse()
        assert await ask(conn, "/3") == b"/3"
        FailingWrite(conn._protocol, 1, late)
        with pytest.raises(MemoryError):
            await conn.request("GET", "/4", iter([b"a", b"b"]))
        assert await ask(conn, "/5") == b"/5"


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3])
async def test_a_write_that_raises_shifts_no_answer(n, late):
    async with ScriptedServer(serve_targets) as server:
        conn = HTTPConnection(*server.address)
        await conn.connect()
        protocol: Any = conn._protocol
        FailingWrite(protocol, n, late)
        responses = []
        for number in range(3):
            data = b"GET /%d HTTP/1.1\r\n\r\n" % number
            try:
                responses.append(protocol.start("GET", f"/{number}", data, True))
            except MemoryError:
                assert len(responses) == n - 1
        while not all(response.ended for response in responses):
            await asyncio.sleep(0)
        assert all(response.failure is not None for response in responses)
        await protocol.wait_closed(1)


async def serve_targets(conn: Any) -> None:
    while head := await conn.read_head():
        await conn.send(answer(head.split()[1]))


async def test_a_shared_write_that_raises_loses_no_request_and_no_place(monkeypatch, loop_errors):
    async with ScriptedServer(serve_targets) as server:
        async with ConnectionPool(limit=1, pipelining=8) as pool:
            assert await start(pool, f"{server.url}first") == b"/first"
            (connection,) = pool._connections.scheduler.connections
            transport = connection.transport

            class Failing:
                def __getattr__(self, name: str) -> Any:
                    return getattr(transport, name)

                def write(self, data: bytes) -> None:
                    raise MemoryError("no memory")

            connection.transport = Failing()
            tasks = [start(pool, f"{server.url}{number}") for number in range(4)]
            found = [await outcome(task) for task in tasks]
            assert found[1:] == [b"/1", b"/2", b"/3"]
            assert found[0] in (b"/0", None)
            assert nothing_is_in_use(pool)
    assert [type(error["exception"]) for error in loop_errors] == [MemoryError]
    loop_errors.clear()


# A response that its caller has dropped -----------------------------------------------------


async def test_a_response_that_is_collected_in_a_read_event_ends_its_connection(monkeypatch):
    progress = HTTP1Protocol._progress

    def collect(self: HTTP1Protocol) -> None:
        gc.collect()
        progress(self)

    async with (
        ScriptedServer([expect(), send(answer(b"x" * 5000)[:-4000]), read_all()]) as server,
        ConnectionPool() as pool,
    ):
        response = await pool.request("GET", server.url)
        cycle: list[Any] = [response]
        cycle.append(cycle)
        del response, cycle
        monkeypatch.setattr(HTTP1Protocol, "_progress", collect)
        server.conns[0].sock.send(b"x" * 1000)
        await once_open(pool, 0)
        await server.conns[0].wait_ended()


async def test_a_response_that_is_abandoned_later_has_the_time_of_one_that_was_never_given(
    ticking,
):
    async with (
        ScriptedServer([expect(), send(answer(b"x" * 5000)[:-4000]), read_all()]) as server,
        ConnectionPool() as pool,
    ):
        response = await pool.request("GET", server.url)
        from aiohttpconn.pool.requests import abandon

        abandon(response)
        assert pool.stats().open == 1
        await once_open(pool, 0)
