"""pool/requests.py: one request on a pooled connection, and when it is sent a second time."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

import pytest

from aiohttpconn import (
    BodyLengthError,
    Client,
    ConnectionPool,
    HTTPConnection,
    IncompleteRead,
    PoolTimeout,
    ReadTimeout,
    RemoteDisconnected,
    Timeout,
    TotalTimeout,
)
from aiohttpconn.pool.requests import abandon
from aiohttpconn.testing import (
    ScriptedServer,
    answer,
    close,
    expect,
    expect_request,
    read_all,
    reset,
    send,
    serve,
    wait,
)

from .support.clocks import Clock
from .support.pooled import OK, fetch, once_open, queued, received, start
from .support.waking import on_wake

INJECTED = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

IDEMPOTENT = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"]
NOT_IDEMPOTENT = ["POST", "PATCH", "get", "PURGE"]


# ---------------------------------------------------------------------------- cancelled


async def test_cancelled_behind_its_answer_it_leaves_the_connection_to_the_next():
    """B has the connection already when A is cancelled, and A has not run since its answer."""
    release = asyncio.Event()
    async with ScriptedServer([expect(), wait(release), send(OK), answer(OK)]) as server:
        async with ConnectionPool(limit=1) as pool:
            first = start(pool, server.url)
            await server.wait_connections(1)
            second = asyncio.ensure_future(on_wake(fetch(pool, server.url), lambda: first.cancel()))
            await queued(pool, 1)
            release.set()
            assert await second == b"hi"
            with pytest.raises(asyncio.CancelledError):
                await first
            assert server.connections == 1


async def test_cancelled_while_it_waits_for_its_answer_it_closes_the_connection_at_once():
    async with ScriptedServer([expect(), read_all()], [answer(OK)]) as server:
        async with ConnectionPool(limit=1) as pool:
            first = start(pool, server.url)
            await received(server, 1)
            first.cancel()
            await asyncio.wait({first})
            assert pool.stats().open == 0
            assert await fetch(pool, server.url) == b"hi"


async def test_cancelled_with_a_slot_in_its_hands_it_passes_it_on():
    """The request was woken with the connection, and is cancelled before it runs."""
    release = asyncio.Event()
    async with ScriptedServer([expect(), wait(release), send(OK), answer(OK)]) as server:
        async with ConnectionPool(limit=1) as pool:
            first = start(pool, server.url)
            await server.wait_connections(1)
            second, third = start(pool, server.url), start(pool, server.url)
            await queued(pool, 2)
            release.set()
            while pool.stats().queued == 2:
                await asyncio.sleep(0)
            second.cancel()
            assert await asyncio.gather(first, third) == [b"hi", b"hi"]
            assert server.connections == 1


async def test_a_connection_that_ends_before_its_new_user_runs_is_replaced():
    """No other request will release one: a waiter that only queues again would wait for ever."""
    release = asyncio.Event()
    dying = [expect(), wait(release), send(OK), close()]
    async with ScriptedServer(dying, [answer(OK)]) as server:
        async with ConnectionPool(limit=1) as pool:
            first = start(pool, server.url)
            await server.wait_connections(1)
            second = asyncio.ensure_future(on_wake(fetch(pool, server.url), lambda: end_all(pool)))
            await queued(pool, 1)
            release.set()
            assert await first == b"hi"
            assert await second == b"hi"


async def test_a_connection_that_ends_so_costs_no_place_in_the_queue():
    release = asyncio.Event()
    dying = [expect(), wait(release), send(OK), close()]
    async with ScriptedServer(dying, [answer(OK)] * 3) as server:
        async with ConnectionPool(limit=1) as pool:
            first = start(pool, server.url)
            await server.wait_connections(1)
            ends = [end_all]  # the first time that it is woken

            def end_once() -> None:
                while ends:
                    ends.pop()(pool)

            second = asyncio.ensure_future(on_wake(fetch(pool, server.url + "second"), end_once))
            await queued(pool, 1)
            others = [start(pool, server.url + "third"), start(pool, server.url + "fourth")]
            await queued(pool, 3)
            release.set()
            await asyncio.gather(first, second, *others)
            order = [head.split()[1] for head in server.conns[1].heads]
            assert order == [b"/third", b"/second", b"/fourth"]


def end_all(pool: ConnectionPool) -> None:
    """Let the loop find all connections ended by their servers."""
    for connection in list(pool._connections.scheduler.connections):
        if connection.transport is not None:
            connection.eof_received()


async def test_the_next_exchange_keeps_its_limit_when_the_last_reader_runs_late():
    """It begins before the task runs that has read the connection's last body."""
    go = asyncio.Event()
    script = [expect(), send(OK[:-1]), wait(go), send(OK[-1:]), read_all()]
    async with ScriptedServer(script) as server, ConnectionPool(limit=1, timeout=10) as pool:
        with Clock() as clock:
            response = await pool.request("GET", server.url)
            following = fetch(pool, server.url)
            waits: list[Any] = []
            first = asyncio.ensure_future(
                on_wake(response.read(), lambda: waits.append(following.send(None)))
            )
            await asyncio.sleep(0)
            go.set()
            assert await first == b"hi"
            clock.advance(11)
            (waiter,) = waits
            assert waiter.done()
            with pytest.raises(ReadTimeout, match="within 10 s"):
                following.send(None)


# ---------------------------------------------------------------------------- abandoned


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"


SMALL = b"HTTP/1.1 200 OK\r\nContent-Length: 65541\r\n\r\nhello"


async def test_the_known_rest_of_a_body_has_a_second():
    go = asyncio.Event()
    ends = [expect(), send(SMALL), wait(go), send(bytes(65536)), answer(OK)]
    async with ScriptedServer([expect(), send(SMALL), read_all()], ends) as server:
        with Clock() as clock:
            async with Client(limit=1, trust_env=False) as client:
                async with client.stream("GET", server.url) as response:
                    assert await anext(response.iter_bytes(5)) == b"hello"
                clock.advance(0.9)
                assert client.stats().open == 1
                clock.advance(0.2)
                assert client.stats().open == 0
                async with client.stream("GET", server.url) as response:
                    assert await anext(response.iter_bytes(5)) == b"hello"
                clock.advance(0.9)
                go.set()
                assert (await client.get(server.url)).content == b"hi"
                assert server.connections == 2


ENDLESS = {
    "chunked": CHUNKED,
    "last-chunk-missing": CHUNKED[:-2] + b"\r\n",
    "event-stream": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nhello",
    "closing": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\nhello",
    "too-large": b"HTTP/1.1 200 OK\r\nContent-Length: 65542\r\n\r\nhello",
}


async def leave_by_the_end(response) -> None:
    pass


async def leave_by_close(response) -> None:
    response.close()


async def leave_by_an_exception(response) -> None:
    raise ZeroDivisionError


async def leave_by_cancelling(response) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    await asyncio.Event().wait()


async def leave_a_read_by_cancelling(response) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    async for _ in response.iter_bytes():
        pass


WAYS = [
    leave_by_the_end,
    leave_by_close,
    leave_by_an_exception,
    leave_by_cancelling,
    leave_a_read_by_cancelling,
]


# A client's stream is iterated over once: test_a_cancelled_iteration_ends_its_stream.
LEAVING = [
    pytest.param(kind, way, id=f"{kind}-{way.__name__}")
    for kind in ("stream", "pool", "lease", "connection")
    for way in WAYS
    if (kind, way) != ("stream", leave_a_read_by_cancelling)
]


@pytest.mark.parametrize(("kind", "way"), LEAVING)
@pytest.mark.parametrize("wire", ENDLESS.values(), ids=ENDLESS)
async def test_leaving_a_stream_ends_it_at_once(wire, kind, way):
    """Whatever the time: the place in the pool is free, and the server sees the end."""

    async def leave(server, pool, client) -> None:
        if kind == "stream":
            async with client.stream("GET", server.url) as response:
                assert await anext(response.iter_bytes(5)) == b"hello"
                await way(response)
        elif kind == "pool":
            async with await pool.request("GET", server.url) as response:
                assert await response.read(5) == b"hello"
                await way(response)
        elif kind == "lease":
            async with pool.connection(server.url) as conn:
                await conn.request("GET", "/")
                async with await conn.getresponse() as response:
                    assert await response.read(5) == b"hello"
                    await way(response)
        else:
            conn = HTTPConnection(*server.address)
            await conn.request("GET", "/")
            async with await conn.getresponse() as response:
                assert await response.read(5) == b"hello"
                await way(response)
            assert conn.sock is None

    async with ScriptedServer([expect(), send(wire), read_all()], [answer(OK)]) as server:
        async with ConnectionPool(limit=1) as pool, Client(limit=1, trust_env=False) as client:
            with Clock():  # no time passes
                with suppress(ZeroDivisionError, asyncio.CancelledError):
                    await asyncio.ensure_future(leave(server, pool, client))
                assert (pool.stats().open, client.stats().open) == (0, 0)
                await server.conns[0].wait_ended()
                assert (await client.get(server.url)).content == b"hi"


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("wire", ENDLESS.values(), ids=ENDLESS)
async def test_a_cancelled_iteration_ends_its_stream(certificates, wire, tls):
    async def leave(server, client) -> None:
        async with client.stream("GET", server.url) as response:
            async for _ in response.iter_bytes():
                pass

    keywords = {"tls": certificates.server} if tls else {}
    async with ScriptedServer([expect(), send(wire), read_all()], **keywords) as server:
        async with Client(limit=1, trust_env=False, context=certificates.client) as client:
            with Clock():
                task = asyncio.ensure_future(leave(server, client))
                await received(server, 1)
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait({task})
                assert client.stats().open == 0
                await server.conns[0].wait_ended()


@pytest.mark.parametrize("head", [CHUNKED, OK[:-1].replace(b": 2", b": 9")])
async def test_abandoned_while_somebody_reads_it_is_no_whole_body(head):
    async with ScriptedServer([expect(), send(head), read_all()]) as server:
        async with ConnectionPool() as pool:
            response = await pool.request("GET", server.url)
            task = asyncio.ensure_future(response.read())
            await asyncio.sleep(0)
            abandon(response)
            with pytest.raises(IncompleteRead):
                await task
            assert pool.stats().open == 0


# -------------------------------------------------------------------------------- stale


async def idle_connection(pool: ConnectionPool, server: ScriptedServer) -> socket.socket:
    """Let *pool* have an idle connection; return the server's end of it."""
    assert await fetch(pool, server.url) == b"hi"
    (conn,) = server.conns
    return conn.sock


async def test_an_end_evicts_an_idle_connection_at_once():
    go = asyncio.Event()
    async with ScriptedServer([answer(OK), wait(go), close(), read_all()]) as server:
        async with ConnectionPool() as pool:
            await idle_connection(pool, server)
            go.set()
            await once_open(pool, 0)


@pytest.mark.parametrize("stray", [b"x", b"\r\n", INJECTED], ids=["byte", "crlf", "response"])
async def test_stray_bytes_evict_an_idle_connection_at_once(stray):
    go = asyncio.Event()
    async with ScriptedServer([answer(OK), wait(go), send(stray), read_all()]) as server:
        async with ConnectionPool() as pool:
            await idle_connection(pool, server)
            go.set()
            await once_open(pool, 0)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_an_end_that_the_loop_has_not_seen_is_seen_by_the_look(certificates, method, tls):
    keywords = {"tls": certificates.server} if tls else {}
    async with ScriptedServer([answer(OK)], [answer(OK)], **keywords) as server:
        with Clock() as clock:
            async with ConnectionPool(context=certificates.client) as pool:
                peer = await idle_connection(pool, server)
                clock.advance(1)
                peer.shutdown(socket.SHUT_WR)
                response = await pool.request(method, server.url)
                assert await response.read() == b"hi"
                assert (response.number, server.connections) == (1, 2)
        assert len(server.conns[0].heads) == 1


@pytest.mark.parametrize("pipelining", [1, 2])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_bytes_that_the_loop_has_not_seen_are_seen_by_the_look(method, pipelining):
    """An answer that arrived before its request is an attack, or answers another request."""
    async with ScriptedServer([answer(OK), read_all()], [answer(OK)]) as server:
        with Clock() as clock:
            async with ConnectionPool(pipelining=pipelining) as pool:
                peer = await idle_connection(pool, server)
                clock.advance(1)
                peer.send(INJECTED)
                response = await pool.request(method, server.url)
                assert await response.read() == b"hi"
                assert server.connections == 2


async def test_what_must_not_be_sent_twice_gets_the_look_in_any_case():
    """A GET right after the last response is not checked."""
    async with ScriptedServer([answer(OK), read_all()], [answer(OK)]) as server:
        with Clock():  # no time passes
            async with ConnectionPool() as pool:
                peer = await idle_connection(pool, server)
                peer.shutdown(socket.SHUT_WR)
                response = await pool.request("POST", server.url, b"x")
                assert await response.read() == b"hi"
        assert server.conns[0].heads == server.heads[:1]


async def test_a_lease_gets_the_look_in_any_case():
    async with ScriptedServer([answer(OK), read_all()], [answer(OK)]) as server:
        with Clock():
            async with ConnectionPool() as pool:
                peer = await idle_connection(pool, server)
                peer.shutdown(socket.SHUT_WR)
                async with pool.connection(server.url) as conn:
                    await conn.request("POST", "/", b"x")
                    response = await conn.getresponse()
                    assert await response.read() == b"hi"


async def test_the_look_takes_an_idle_connection_that_is_in_order():
    async with serve({"/": "hi"}) as server:
        with Clock() as clock:
            async with ConnectionPool() as pool:
                for method in ("GET", "POST", "GET"):
                    clock.advance(5)
                    response = await pool.request(method, server.url)
                    assert await response.read() == b"hi"
        assert server.connections == 1


async def test_a_response_glued_to_another_serves_nobody():
    async with ScriptedServer([answer(OK + INJECTED), read_all()], [answer(OK)]) as server:
        async with ConnectionPool() as pool:
            bodies = [await fetch(pool, server.url) for _ in range(2)]
            assert bodies == [b"hi", b"hi"]
            assert server.connections == 2


async def test_a_response_glued_to_another_serves_nobody_who_waits_either():
    release = asyncio.Event()
    script = [expect(), wait(release), send(OK + INJECTED), read_all()]
    async with ScriptedServer(script, [answer(OK)]) as server:
        async with ConnectionPool(limit=1) as pool:
            first, second = start(pool, server.url), start(pool, server.url)
            await queued(pool, 1)
            release.set()
            assert await asyncio.gather(first, second) == [b"hi", b"hi"]


# --------------------------------------------------------------------------- sent again


def dying(*steps: Any) -> list[Any]:
    """Answer one request, and treat the second like this."""
    return [answer(OK), expect(), *steps, read_all()]


@pytest.mark.parametrize("end", [close(), reset()], ids=["fin", "rst"])
@pytest.mark.parametrize("method", IDEMPOTENT)
async def test_what_may_be_sent_twice_is_sent_again_on_a_new_connection(method, end):
    async with ScriptedServer([answer(OK), expect(), end], [answer(OK)]) as server:
        async with ConnectionPool() as pool:
            await idle_connection(pool, server)
            response = await pool.request(method, server.url + "again")
            await response.read()
            assert response.number == 1
        heads = server.heads
        assert heads[1] == heads[2]
        assert heads[1].startswith(f"{method} /again ".encode())


@pytest.mark.parametrize("method", NOT_IDEMPOTENT)
async def test_what_must_not_be_sent_twice_is_not(method):
    async with ScriptedServer(dying(close()), [answer(OK)]) as server:
        async with ConnectionPool() as pool:
            await idle_connection(pool, server)
            with pytest.raises(RemoteDisconnected) as info:
                await pool.request(method, server.url)
            assert str(info.value).startswith(
                f"{method} {server.url}: Remote end closed connection without response "
                "(waiting for the head, "
            )
            assert "connection reused 1 time" in str(info.value)
        assert server.connections == 1


@pytest.mark.parametrize("first", [b"H", OK[:20], b"HTTP/1.1 103 Early Hints\r\n\r\n"])
async def test_nothing_is_sent_again_behind_a_byte_of_an_answer(first):
    async with ScriptedServer(dying(send(first), close()), [answer(OK)]) as server:
        async with ConnectionPool() as pool:
            await idle_connection(pool, server)
            with pytest.raises(RemoteDisconnected):
                await pool.request("GET", server.url)
        assert server.connections == 1


async def test_nothing_is_sent_a_third_time():
    async with ScriptedServer(dying(close()), [expect(), close(), read_all()]) as server:
        async with ConnectionPool() as pool:
            await idle_connection(pool, server)
            with pytest.raises(RemoteDisconnected):
                await pool.request("GET", server.url)
        assert server.connections == 2


@pytest.mark.parametrize("how", ["plain", "shared", "body"])
async def test_a_second_time_does_not_trust_another_idle_connection(how):
    """They may all have ended together. And the new one takes nothing over from the old one."""
    release = asyncio.Event()
    last = OK.replace(b"\r\n\r\n", b"\r\nKeep-Alive: max=1\r\n\r\n")
    brief = OK.replace(b"\r\n\r\n", b"\r\nKeep-Alive: timeout=2\r\n\r\n")
    for first, second in ((OK, last), (brief, OK)):
        release.clear()
        script = [expect(), wait(release), send(first), expect_request(), close(), read_all()]
        async with ScriptedServer(script, script, [answer(second), answer(OK)]) as server:
            with Clock() as clock:
                async with ConnectionPool(pipelining=2 if how == "shared" else 1) as pool:
                    tasks = [
                        asyncio.ensure_future(pool.request("PUT", server.url)) for _ in range(2)
                    ]
                    await received(server, 2)
                    release.set()
                    for task in tasks:
                        await (await task).read()
                    assert pool.stats().idle == 2
                    body = LARGE if how == "body" else None
                    method = "GET" if how == "shared" else "PUT"
                    response = await pool.request(method, server.url, body)
                    assert await response.read() == b"hi"
                    assert [len(conn.heads) for conn in server.conns] == [1, 2, 1]
                    if second is OK:
                        clock.advance(10)
                    await fetch(pool, server.url)
                    assert len(server.conns[2].heads) == 2
                    assert pool.stats().idle == (1 if second is OK else 0)


async def test_on_a_new_connection_nothing_is_sent_again():
    async with ScriptedServer([expect(), close(), read_all()], [answer(OK)]) as server:
        async with ConnectionPool() as pool:
            with pytest.raises(RemoteDisconnected):
                await pool.request("GET", server.url)
        assert server.connections == 1


async def test_a_connection_that_was_lent_and_not_used_is_one_that_was_there():
    """It may be as stale as any other."""
    async with ScriptedServer([expect(), close(), read_all()], [answer(OK)]) as server:
        async with ConnectionPool() as pool:
            async with pool.connection(server.url):
                pass
            assert await fetch(pool, server.url) == b"hi"


@pytest.mark.parametrize(
    ("pool_says", "request_says", "again"),
    [
        (False, {}, False),
        (True, {"resend_stale": False}, False),
        (False, {"resend_stale": True}, True),
    ],
)
@pytest.mark.parametrize("body", [None, b"x" * 100_000], ids=["plain", "body"])
async def test_resend_stale_T9(pool_says, request_says, again, body):
    script = [answer(OK), expect_request(), close(), read_all()]
    async with ScriptedServer(script, [answer(OK)]) as server:
        async with ConnectionPool(resend_stale=pool_says) as pool:
            await idle_connection(pool, server)
            if again:
                response = await pool.request("PUT", server.url, body, **request_says)
                assert await response.read() == b"hi"
            else:
                with pytest.raises(RemoteDisconnected):
                    await pool.request("PUT", server.url, body, **request_says)
        assert server.connections == 1 + again


@pytest.mark.parametrize("pipelining", [1, 4])
async def test_a_server_that_kills_every_second_request_answers_every_get(pipelining):
    async def script(conn) -> None:
        await conn.read_head()
        await conn.send(OK)
        await conn.read_head()
        await conn.reset()

    async with ScriptedServer(script) as server:
        async with ConnectionPool(limit_per_host=3, pipelining=pipelining) as pool:
            for _ in range(5):
                tasks = [start(pool, server.url) for _ in range(10)]
                assert await asyncio.gather(*tasks) == [b"hi"] * 10


async def test_what_is_sent_again_waits_for_its_turn():
    release = asyncio.Event()
    script = [answer(OK), expect(), wait(release), close(), read_all()]
    async with ScriptedServer(script, [answer(OK), answer(OK)]) as server:
        async with ConnectionPool(limit=1) as pool:
            await idle_connection(pool, server)
            tasks = [start(pool, f"{server.url}{n}") for n in range(2)]
            await queued(pool, 1)
            release.set()
            assert await asyncio.gather(*tasks) == [b"hi", b"hi"]


# ------------------------------------------------------------------------------- bodies

LARGE = b"x" * 100_000


async def test_a_body_that_can_be_read_again_is_sent_again():
    script = [answer(OK), expect_request(), close(), read_all()]
    async with ScriptedServer(script, [answer(OK)]) as server:
        async with ConnectionPool() as pool:
            await idle_connection(pool, server)
            response = await pool.request("PUT", server.url, LARGE)
            assert await response.read() == b"hi"
        assert server.received[1].endswith(b"\r\n\r\n" + LARGE)


async def test_a_body_that_cannot_be_read_again_is_not():
    async def body():
        yield b"once"

    script = [answer(OK), expect_request(), close(), read_all()]
    async with ScriptedServer(script, [answer(OK)]) as server:
        async with ConnectionPool() as pool:
            await idle_connection(pool, server)
            with pytest.raises(RemoteDisconnected):
                await pool.request("PUT", server.url, body())
        assert server.connections == 1


async def test_a_body_on_a_connection_that_was_shared():
    """A shared connection sends heads at the end of a turn; the head of this body must not wait."""
    async with serve(lambda request: request.body) as server:
        async with ConnectionPool(limit=1, pipelining=2) as pool:
            assert await fetch(pool, server.url) == b""
            response = await pool.request("PUT", server.url, [b"some", b"thing"])
            assert await response.read() == b"something"
            assert await fetch(pool, server.url) == b""
        assert server.connections == 1


async def test_a_body_with_post_is_sent_once():
    script = [answer(OK), expect_request(), close(), read_all()]
    async with ScriptedServer(script, [answer(OK)]) as server:
        async with ConnectionPool() as pool:
            await idle_connection(pool, server)
            with pytest.raises(RemoteDisconnected):
                await pool.request("POST", server.url, LARGE)
        assert server.connections == 1


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b"bytes", b"Content-Length: 5\r\n\r\nbytes"),
        ("caf\xe9", b"Content-Length: 4\r\n\r\ncaf\xe9"),
        (bytearray(b"array"), b"Content-Length: 5\r\n\r\narray"),
        ([b"a", b"bc"], b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"),
        (None, b"Content-Length: 0\r\n\r\n"),
        (b"", b"Content-Length: 0\r\n\r\n"),
    ],
)
async def test_what_a_body_is_sent_as(body, sent):
    async with ScriptedServer([answer(OK)]) as server:
        async with ConnectionPool() as pool:
            response = await pool.request("POST", server.url, body)
            assert await response.read() == b"hi"
            assert pool.stats().idle == 1
        received = server.received[0]
        assert received.replace(b"Connection: keep-alive\r\n", b"").endswith(sent)
        assert received.count(b"Connection: keep-alive\r\n") == 1


async def test_a_body_that_is_refused_costs_no_connection():
    """Nothing was sent: the connection is in order."""
    async with serve({"/": "hi"}) as server:
        async with ConnectionPool() as pool:
            with pytest.raises(TypeError):
                await pool.request("PUT", server.url, object())
            assert await fetch(pool, server.url) == b"hi"
            with pytest.raises(BodyLengthError) as info:
                await pool.request("PUT", f"{server.url}/x", LARGE, {"Content-Length": "3"})
            assert str(info.value) == (
                f"PUT {server.url}/x: Content-Length announces 3 bytes, the body has more: "
                f"{len(LARGE)} bytes (preparing, 0.0 ms)"
            )
        assert server.connections == 1
        assert [request.method for request in server.requests] == ["GET"]


async def test_a_trace_request_has_no_body():
    async with serve({"/": "hi"}) as server, ConnectionPool() as pool:
        for body in (b"x", LARGE):
            with pytest.raises(ValueError, match="a TRACE request must not have a body"):
                await pool.request("TRACE", server.url, body)
        assert server.requests == []


async def test_an_answer_before_the_end_of_a_body_is_delivered():
    async def body():
        for _ in range(1000):
            yield b"x" * 10_000
            await asyncio.sleep(0)

    early = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig"
    async with ScriptedServer([expect(), send(early), read_all()], [answer(OK)]) as server:
        async with ConnectionPool(limit=1) as pool:
            response = await pool.request("PUT", server.url, body())
            assert (response.status, await response.read()) == (413, b"big")
            # The body has not been sent whole: no other request gets the connection.
            assert await fetch(pool, server.url) == b"hi"


async def test_a_response_that_closes_its_connection_holds_the_slot_until_it_was_read():
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nab"
    go = asyncio.Event()
    async with ScriptedServer([expect_request(), send(closing), wait(go), send(b"cd")]) as server:
        async with ConnectionPool() as pool:
            for body in (LARGE, b"x"):
                go.clear()
                response = await pool.request("PUT", server.url, body)
                assert pool.stats().leased == 1
                go.set()
                assert await response.read() == b"abcd"
                assert pool.stats().open == 0


async def test_expect_100_continue():
    async with serve(lambda request: request.body) as server:
        async with ConnectionPool() as pool:
            response = await pool.request("PUT", server.url, b"x", {"Expect": "100-continue"})
            assert await response.read() == b"x"
            assert pool.stats().idle == 1


# ----------------------------------------------------------------------------- timeouts


async def test_the_wait_for_a_connection_is_not_part_of_connecting():
    release = asyncio.Event()
    async with ScriptedServer([expect(), wait(release), send(OK), close()], [answer(OK)]) as server:
        with Clock() as clock:
            async with ConnectionPool(limit=1, timeout=Timeout(connect=1)) as pool:
                tasks = [start(pool, server.url) for _ in range(2)]
                await queued(pool, 1)
                await received(server, 1)
                clock.advance(100)
                release.set()
                assert await asyncio.gather(*tasks) == [b"hi", b"hi"]


async def test_who_got_a_connection_leaves_no_timer():
    release = asyncio.Event()
    async with ScriptedServer([expect(), wait(release), send(OK), answer(OK)]) as server:
        with Clock() as clock:
            async with ConnectionPool(limit=1, timeout=Timeout(pool=60)) as pool:
                tasks = [start(pool, server.url) for _ in range(2)]
                await queued(pool, 1)
                await received(server, 1)
                assert len(clock.timers) == 2
                release.set()
                await asyncio.gather(*tasks)
                assert len(clock.timers) == 1  # for idle connections


async def test_pool_timeout():
    async with ScriptedServer([expect(), read_all()]) as server:
        with Clock() as clock:
            async with ConnectionPool(limit=5, limit_per_host=1, timeout=Timeout(pool=2)) as pool:
                first, second = start(pool, server.url), start(pool, f"{server.url}path?q")
                await queued(pool, 1)
                clock.advance(1.9)
                assert not second.done()
                clock.advance(0.1)
                with pytest.raises(PoolTimeout) as info:
                    await second
                assert str(info.value) == (
                    f"GET {server.url}path?q: no connection was free within 2 s "
                    f"(waiting for a connection, 2.0 s; 1 of 1 connections to "
                    f"127.0.0.1:{server.port}, 1 of 5 in all, 0 more waiting)"
                )
                assert info.value.phase == "waiting for a connection"
                assert pool.stats().queued == 0
                first.cancel()
                await asyncio.wait({first})


async def test_a_pool_without_limits_shows_none():
    async with ScriptedServer([expect(), read_all()]) as server:
        with Clock() as clock:
            async with ConnectionPool(
                limit=1, limit_per_host=None, timeout=Timeout(pool=2)
            ) as pool:
                first, second = start(pool, server.url), start(pool, server.url)
                await queued(pool, 1)
                clock.advance(3)
                with pytest.raises(PoolTimeout, match=r"; 1 connections to [^,]+, 1 of 1 in all"):
                    await second
                first.cancel()
                await asyncio.wait({first})


@pytest.mark.parametrize("body", [None, LARGE], ids=["plain", "body"])
async def test_total_counts_to_the_last_byte(body):
    async with ScriptedServer([expect_request(), send(OK[:-1]), read_all()]) as server:
        with Clock() as clock:
            async with ConnectionPool(timeout=Timeout(total=10)) as pool:
                response = await pool.request("PUT", server.url, body)
                clock.advance(11)
                with pytest.raises(TotalTimeout, match="receiving the body"):
                    await response.read()
                assert pool.stats().open == 0


async def test_total_counts_from_the_call():
    async with ScriptedServer([expect(), read_all()]) as server:
        with Clock() as clock:
            async with ConnectionPool(limit=1) as pool:
                first = start(pool, server.url)
                second = start(pool, server.url, timeout=Timeout(total=10, pool=20))
                await queued(pool, 1)
                clock.advance(11)
                with pytest.raises(TotalTimeout, match="no connection was free within 10 s"):
                    await second
                first.cancel()
                await asyncio.wait({first})


async def test_total_of_an_upload_is_what_is_left_of_it():
    release = asyncio.Event()
    async with ScriptedServer([expect(), wait(release), send(OK), read_all()]) as server:
        with Clock() as clock:
            async with ConnectionPool(limit=1) as pool:
                first = start(pool, server.url)
                await received(server, 1)
                task = asyncio.ensure_future(
                    pool.request("PUT", server.url, [b"x"], timeout=Timeout(total=10))
                )
                await queued(pool, 1)
                clock.advance(6)
                release.set()
                await first
                while pool.stats().queued or not server.received[0].endswith(b"0\r\n\r\n"):
                    await asyncio.sleep(0)
                clock.advance(5)
                with pytest.raises(TotalTimeout):
                    await task


async def test_the_read_limit_rests_while_nobody_reads():
    release = asyncio.Event()
    async with ScriptedServer([expect(), send(OK[:-1]), wait(release), send(OK[-1:])]) as server:
        with Clock() as clock:
            async with ConnectionPool(timeout=30) as pool:
                response = await pool.request("GET", server.url)
                clock.advance(40)
                release.set()
                assert await response.read() == b"hi"


async def test_limits_are_each_requests_own():
    async with ScriptedServer([answer(OK), expect(), read_all()]) as server:
        with Clock() as clock:
            async with ConnectionPool(timeout=30) as pool:
                assert await fetch(pool, server.url, timeout=1) == b"hi"
                second = start(pool, server.url)
                await received(server, 2)
                clock.advance(29)
                await asyncio.sleep(0)
                assert not second.done()
                clock.advance(2)
                with pytest.raises(ReadTimeout, match="within 30 s"):
                    await second


# ------------------------------------------------------------------- after the response


async def test_the_connection_is_there_again_before_the_caller_runs():
    """The caller's next request must find it."""
    async with serve({"/": "hi"}) as server, ConnectionPool() as pool:
        seen = []
        await on_wake(fetch(pool, server.url), lambda: seen.append(pool.stats().idle))
        assert seen[-1] == 1


async def test_a_response_tells_of_its_connection():
    async with serve({"/": "hi"}) as server, ConnectionPool() as pool:
        for body in (None, LARGE):
            responses = [await pool.request("PUT", server.url, body) for _ in range(2)]
            for each in responses:
                await each.read()
            first, second = responses
            if body is None:
                assert first.dialed is not None
                assert set(first.dialed.durations) == {"dns", "connect"}
            assert second.dialed is None
            assert second.peername == ("127.0.0.1", server.port)
            assert second.url == server.url
