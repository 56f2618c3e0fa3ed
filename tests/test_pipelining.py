"""pipelining=n: requests that share a connection, as a pool's callers see them.

``test_flat_path.py`` has the parsing of several responses in one read.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aiohttpconn import (
    BadStatusLine,
    ConnectionPool,
    IncompleteRead,
    ReadTimeout,
    Timeout,
    TotalTimeout,
)
from aiohttpconn.testing import (
    Reply,
    ScriptedServer,
    answer,
    close,
    expect,
    read_all,
    reset,
    send,
    serve,
    wait,
)

from .support.clocks import Clock
from .support.pooled import OK, once_open, received
from .support.waking import on_wake

LARGE = 3_000_000
"""Bytes of a body that is paused several times: high water is 256 KiB."""


def reply(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def start(pool: ConnectionPool, server: ScriptedServer, target: str, **keywords: Any):
    """Begin a GET in a task of its own; the task returns the body."""

    async def get() -> bytes:
        response = await pool.request("GET", server.url + target, **keywords)
        return await response.read()

    return asyncio.ensure_future(get())


def heads(n: int):
    """Read *n* heads."""

    async def step(conn) -> None:
        for _ in range(n):
            await conn.read_head()

    return step


def targets(conn) -> list[str]:
    """Return the targets of the requests on a connection of a server's."""
    return [head.split()[1].decode().lstrip("/") for head in conn.heads]


async def echo(conn) -> None:
    """Answer each request with its target."""
    while True:
        await conn.send(reply((await conn.read_head()).split()[1][1:]))


class Writes:
    """A transport that records the bytes written to it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.written: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self._transport.write(data)


async def recorded(pool: ConnectionPool) -> Writes:
    """Return the list of later writes to the pool's one connection."""
    (connection,) = pool._connections.scheduler.connections
    writes = Writes(connection.transport)
    connection.transport = writes
    if connection._batch is None:
        connection.write = writes.write
    return writes


# ------------------------------------------------------------------------------ sharing


async def test_the_requests_of_one_turn_are_one_write_and_their_answers_come_in_order():
    async with ScriptedServer(echo) as server:
        async with ConnectionPool(pipelining=8) as pool:
            assert await start(pool, server, "first") == b"first"
            writes = await recorded(pool)
            tasks = [start(pool, server, str(n)) for n in range(8)]
            assert await asyncio.gather(*tasks) == [b"%d" % n for n in range(8)]
            assert len(writes.written) == 1
            assert writes.written[0].count(b"GET /") == 8
        assert server.connections == 1


async def test_no_more_requests_share_a_connection_than_may():
    release = asyncio.Event()
    script = [heads(3), wait(release), send(OK * 3), read_all()]
    async with ScriptedServer(script) as server:
        async with ConnectionPool(limit_per_host=2, pipelining=3) as pool:
            tasks = [start(pool, server, str(n)) for n in range(8)]
            await received(server, 6)
            for _ in range(10):
                await asyncio.sleep(0)
            assert [len(targets(conn)) for conn in server.conns] == [3, 3]
            stats = pool.stats()
            assert (stats.open, stats.leased, stats.queued) == (2, 2, 2)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE"])
async def test_only_requests_without_effect_and_body_share(method):
    release = asyncio.Event()
    async with ScriptedServer([expect(), wait(release), send(OK)]) as server:
        async with ConnectionPool(pipelining=4) as pool:
            tasks = [asyncio.ensure_future(pool.request(method, server.url)) for _ in range(2)]
            await received(server, 2)
            assert server.connections == 2
            release.set()
            for task in tasks:
                await (await task).read()


async def test_a_request_with_limits_of_its_own_has_a_connection_of_its_own():
    release = asyncio.Event()
    async with ScriptedServer([expect(), wait(release), send(OK)]) as server:
        async with ConnectionPool(pipelining=4) as pool:
            tasks = [start(pool, server, "", timeout=9), start(pool, server, "")]
            await received(server, 2)
            assert server.connections == 2
            release.set()
            await asyncio.gather(*tasks)


async def test_one_that_wants_a_connection_for_itself_gets_it_in_its_turn():
    """Later requests do not overtake it, although they could share."""
    release = asyncio.Event()

    async def script(conn) -> None:
        await conn.read_head()
        await release.wait()
        await conn.send(OK)
        await echo(conn)

    async with ScriptedServer(script) as server:
        async with ConnectionPool(limit=1, pipelining=2) as pool:
            get = start(pool, server, "get")
            await received(server, 1)
            post = asyncio.ensure_future(pool.request("POST", server.url + "post"))
            later = [start(pool, server, str(n)) for n in range(2)]
            while pool.stats().queued < 3:
                await asyncio.sleep(0)
            release.set()
            await get
            await (await post).read()
            await asyncio.gather(*later)
        assert targets(server.conns[0]) == ["get", "post", "0", "1"]


async def test_a_lease_is_alone():
    async with ScriptedServer(echo) as server:
        async with ConnectionPool(limit=1, pipelining=4) as pool:
            await start(pool, server, "a")
            async with pool.connection(server.url) as conn:
                waiting = start(pool, server, "b")
                await conn.request("GET", "/leased")
                response = await conn.getresponse()
                assert await response.read() == b"leased"
                assert pool.stats().queued == 1
            assert await waiting == b"b"
        assert targets(server.conns[0]) == ["a", "leased", "b"]


async def test_max_requests_holds_with_pipelining():
    async with serve({"/": "hi"}) as server:
        async with ConnectionPool(limit=1, pipelining=8, max_requests=2) as pool:
            await asyncio.gather(*(start(pool, server, "") for _ in range(10)))
        assert [len(conn.heads) for conn in server.conns] == [2] * 5


async def test_what_the_server_announces_holds_with_pipelining():
    async def four(conn) -> None:
        for left in (3, 2, 1, 0):
            await conn.read_head()
            hint = b"OK\r\nKeep-Alive: timeout=9, max=%d\r\n" % left
            await conn.send(OK.replace(b"OK\r\n", hint))
        await conn.drain()

    async with ScriptedServer(four) as server:
        async with ConnectionPool(limit=1, pipelining=3) as pool:
            assert await start(pool, server, "") == b"hi"
            await asyncio.gather(*(start(pool, server, "") for _ in range(11)))
        assert [bytes(conn.received).count(b"GET /") for conn in server.conns] == [4, 4, 4]


# ------------------------------------------------------------------------------ waiting


async def test_cancelling_one_leaves_the_others_alone():
    release = asyncio.Event()

    async def script(conn) -> None:
        for _ in range(4):
            await conn.read_head()
        await release.wait()
        for head in conn.heads[:]:
            await conn.send(reply(head.split()[1]))
        await echo(conn)

    async with ScriptedServer(script) as server:
        async with ConnectionPool(limit=1, pipelining=4) as pool:
            tasks = [start(pool, server, str(n)) for n in range(4)]
            await received(server, 4)
            tasks[0].cancel()
            tasks[2].cancel()
            await asyncio.wait({tasks[0], tasks[2]})
            release.set()
            assert (await tasks[1], await tasks[3]) == (b"/1", b"/3")
            assert await start(pool, server, "next") == b"next"
        assert server.connections == 1


async def test_cancelling_one_does_not_end_the_one_before_it_however_slow():
    release = asyncio.Event()
    async with ScriptedServer([heads(2), wait(release), send(reply(b"a") + reply(b"b"))]) as server:
        with Clock() as clock:
            async with ConnectionPool(limit=1, pipelining=2) as pool:
                first, second = start(pool, server, "a"), start(pool, server, "b")
                await received(server, 2)
                second.cancel()
                await asyncio.wait({second})
                clock.advance(3600)
                release.set()
                assert await first == b"a"
                while pool.stats().leased:
                    await asyncio.sleep(0)
                assert pool.stats().idle == 1


async def test_the_connection_closes_at_once_when_nobody_waits_for_what_is_to_come():
    go = asyncio.Event()
    script = [heads(2), wait(go), send(reply(b"a")), read_all()]
    async with ScriptedServer(script, [answer(OK)]) as server:
        async with ConnectionPool(limit=1, pipelining=2) as pool:
            first, second = start(pool, server, "a"), start(pool, server, "b")
            await received(server, 2)
            second.cancel()
            await asyncio.wait({second})
            assert pool.stats().open == 1
            go.set()
            assert await first == b"a"
            await once_open(pool, 0)
            await server.conns[0].wait_ended()
            assert await start(pool, server, "") == b"hi"


async def test_the_last_one_that_is_cancelled_closes_the_connection_at_once():
    async with ScriptedServer([heads(3), read_all()], [answer(OK)]) as server:
        async with ConnectionPool(limit=1, pipelining=3) as pool:
            tasks = [start(pool, server, str(n)) for n in range(3)]
            await received(server, 3)
            for n in (1, 0, 2):
                assert pool.stats().open == 1
                tasks[n].cancel()
                await asyncio.wait({tasks[n]})
            assert pool.stats().open == 0
            await server.conns[0].wait_ended()
            assert await start(pool, server, "") == b"hi"


@pytest.mark.parametrize(
    "head", [b"Transfer-Encoding: chunked", b"Content-Length: 65537", b"X: until the end"]
)
async def test_one_that_was_cancelled_and_does_not_end_soon_sends_the_others_elsewhere(head):
    go = asyncio.Event()
    wire = b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n"
    async with ScriptedServer([heads(2), wait(go), send(wire), read_all()], echo) as server:
        async with ConnectionPool(limit=1, pipelining=2) as pool:
            first, second = start(pool, server, "a"), start(pool, server, "b")
            await received(server, 2)
            first.cancel()
            await asyncio.wait({first})
            go.set()
            assert await second == b"b"
        assert server.connections == 2


async def test_a_large_body_that_nobody_waits_for_costs_the_connection():
    script = [heads(1), send(reply(b"x" * LARGE)), read_all()]
    async with ScriptedServer(script, echo) as server:
        async with ConnectionPool(limit=1, pipelining=2) as pool:
            task = start(pool, server, "a")
            other = start(pool, server, "o")
            await received(server, 1)
            task.cancel()
            await asyncio.wait({task})
            assert await start(pool, server, "b") == b"b"
            assert await other == b"o"
        assert server.connections == 2


async def test_a_large_body_in_the_middle_that_is_read_late_delays_those_behind_it():
    body = bytes(range(256)) * (LARGE // 256)
    async with ScriptedServer([heads(3), send(reply(b"a") + reply(body) + reply(b"c"))]) as server:
        async with ConnectionPool(limit=1, pipelining=3) as pool:
            first = start(pool, server, "a")
            second = asyncio.ensure_future(pool.request("GET", server.url + "b"))
            third = start(pool, server, "c")
            large = await second
            assert await first == b"a"
            for _ in range(200):
                await asyncio.sleep(0)
            assert not third.done()
            # It is paused: the unread bytes are bounded.
            assert large.buffered <= 512 * 1024
            pieces = [piece async for piece in large.iter_bytes(10_000)]
            assert b"".join(pieces) == body
            assert await third == b"c"
        assert server.connections == 1


async def test_a_large_body_that_is_dropped_sends_those_behind_it_elsewhere():
    script = [heads(2), send(reply(b"x" * LARGE)), read_all()]
    async with ScriptedServer(script, echo) as server:
        async with ConnectionPool(limit=1, pipelining=2) as pool:
            first = asyncio.ensure_future(pool.request("GET", server.url))
            second = start(pool, server, "b")
            response = await first
            del response, first
            assert await second == b"b"


# ----------------------------------------------------------------------------- timeouts


async def test_bytes_for_others_put_the_read_limit_off():
    release = [asyncio.Event() for _ in range(3)]
    steps = [heads(3)]
    for n, event in enumerate(release):
        steps += [wait(event), send(reply(b"%d" % n))]
    async with ScriptedServer([*steps, read_all()]) as server:
        with Clock() as clock:
            async with ConnectionPool(limit=1, pipelining=3, timeout=30) as pool:
                tasks = [start(pool, server, str(n)) for n in range(3)]
                await received(server, 3)
                for n in range(3):
                    clock.advance(29)
                    release[n].set()
                    assert await tasks[n] == b"%d" % n
                clock.advance(60)
                assert pool.stats().open == 0  # expired, unused


async def test_a_connection_that_stalls_fails_the_first_and_the_others_go_elsewhere():
    async with ScriptedServer([heads(3), read_all()], echo) as server:
        with Clock() as clock:
            async with ConnectionPool(limit=1, pipelining=3, timeout=30) as pool:
                tasks = [start(pool, server, str(n)) for n in range(3)]
                await received(server, 3)
                clock.advance(31)
                assert await tasks[1] == b"1"
                assert await tasks[2] == b"2"
                with pytest.raises(ReadTimeout) as info:
                    await tasks[0]
                assert str(info.value).startswith(
                    f"GET {server.url}0: no response within 30 s (waiting for the head, "
                )
        assert [targets(conn) for conn in server.conns] == [["0", "1", "2"], ["1", "2"]]


async def test_requests_that_still_come_do_not_put_the_read_limit_off():
    async with ScriptedServer([heads(3), read_all()], echo) as server:
        with Clock() as clock:
            async with ConnectionPool(limit=1, pipelining=3, timeout=30) as pool:
                first = start(pool, server, "0")
                await received(server, 1)
                clock.advance(20)
                second = start(pool, server, "1")
                await received(server, 2)
                clock.advance(11)
                assert await second == b"1"
                with pytest.raises(ReadTimeout):
                    await first


async def test_a_request_behind_one_that_has_been_read_has_its_read_limit():
    go = asyncio.Event()
    script = [heads(2), send(reply(b"abcd")[:-2]), wait(go), send(b"cd"), read_all()]
    async with ScriptedServer(script) as server:
        with Clock() as clock:
            async with ConnectionPool(limit=1, pipelining=2, timeout=30) as pool:
                first, second = start(pool, server, "a"), start(pool, server, "b")
                await received(server, 2)
                for _ in range(10):
                    await asyncio.sleep(0)
                go.set()
                assert await first == b"abcd"
                clock.advance(31)
                with pytest.raises(ReadTimeout):
                    await second


async def test_a_request_that_comes_behind_a_body_has_its_read_limit():
    """When it comes no task waits: the first head has arrived, and nobody reads its body."""
    async with ScriptedServer(
        [heads(1), send(reply(b"abcd")[:-2]), heads(1), read_all()]
    ) as server:
        with Clock() as clock:
            async with ConnectionPool(limit=1, pipelining=2, timeout=30) as pool:
                slow = await pool.request("GET", server.url)
                clock.advance(100)
                second = start(pool, server, "b")
                await received(server, 2)
                reading = asyncio.ensure_future(slow.read())
                await asyncio.sleep(0)
                clock.advance(31)
                with pytest.raises(ReadTimeout, match="no byte of the body within 30 s"):
                    await reading
                second.cancel()
                await asyncio.wait({second})


async def test_a_request_behind_a_slow_reader_goes_elsewhere_when_its_limit_is_over():
    """The reader keeps its response; later requests do not use the connection."""
    go = asyncio.Event()
    script = [heads(2), send(reply(b"abcd")[:-2]), wait(go), send(b"cd"), read_all()]
    async with ScriptedServer(script, [answer(reply(b"b")), answer(reply(b"c"))]) as server:
        with Clock() as clock:
            async with ConnectionPool(pipelining=2, limit_per_host=1, timeout=30) as pool:
                first = asyncio.ensure_future(pool.request("GET", server.url))
                second = start(pool, server, "b")
                slow = await first
                await received(server, 2)
                clock.advance(31)
                assert await second == b"b"
                assert await start(pool, server, "c") == b"c"
                go.set()
                assert await slow.read() == b"abcd"
                await server.conns[0].wait_ended()
    assert server.connections == 2


async def test_a_request_that_comes_behind_a_body_that_nobody_reads_has_its_read_limit():
    script = [heads(1), send(reply(b"abcd")[:-2]), heads(1), read_all()]
    async with ScriptedServer(script, echo) as server:
        with Clock() as clock:
            async with ConnectionPool(pipelining=2, limit=1, timeout=30) as pool:
                slow = await pool.request("GET", server.url)
                clock.advance(100)
                second = start(pool, server, "b")
                await received(server, 2)
                clock.advance(31)
                assert await second == b"b"
                slow.close()


async def test_a_reader_that_stops_does_not_stop_the_wait_of_those_behind_it():
    go = asyncio.Event()
    script = [heads(2), send(reply(b"abcd")[:-3]), wait(go), send(b"b"), read_all()]
    async with ScriptedServer(script, echo) as server:
        with Clock() as clock:
            async with ConnectionPool(pipelining=2, limit=1, timeout=30) as pool:
                first = asyncio.ensure_future(pool.request("GET", server.url))
                second = start(pool, server, "b")
                slow = await first
                reading = asyncio.ensure_future(slow.read(2))
                await received(server, 2)
                go.set()
                assert await reading == b"ab"
                clock.advance(31)
                assert await second == b"b"
                slow.close()


async def test_a_deadline_leaves_no_timer():
    async with ScriptedServer(echo) as server:
        with Clock() as clock:
            async with ConnectionPool(pipelining=2, timeout=Timeout(total=100)) as pool:
                for _ in range(3):
                    await start(pool, server, "a")
                timers = len(clock.timers)
                for _ in range(3):
                    await start(pool, server, "a")
                assert len(clock.timers) == timers


async def test_total_is_each_ones_own():
    """A request that was sent again comes after a younger one: only its own time ends first."""
    first_go, second_go = asyncio.Event(), asyncio.Event()
    first = [*[answer(OK)] * 3, heads(3), wait(first_go), send(reply(b"a")), close(), read_all()]
    second = [heads(2), wait(second_go), send(reply(b"young") + reply(b"old")), read_all()]
    async with ScriptedServer(first, second, echo) as server:
        with Clock() as clock:
            async with ConnectionPool(limit=3, pipelining=3, timeout=Timeout(total=10)) as pool:
                for _ in range(3):
                    assert await start(pool, server, "") == b"hi"
                a, b, old = (start(pool, server, each) for each in ("a", "b", "old"))
                await received(server, 6)
                clock.advance(5)
                young = start(pool, server, "young")
                await received(server, 7)
                first_go.set()
                assert (await a, await b) == (b"a", b"b")
                while targets(server.conns[1]) != ["young", "old"]:
                    await asyncio.sleep(0)
                clock.advance(6)
                with pytest.raises(TotalTimeout) as info:
                    await old
                assert str(info.value).startswith(
                    f"GET {server.url}old: the exchange did not end within 10 s "
                    "(waiting for the head, "
                )
                second_go.set()
                assert await young == b"young"


async def test_total_also_ends_a_body():
    script = [heads(2), send(reply(b"a") + reply(b"body")[:-2]), read_all()]
    async with ScriptedServer(script) as server:
        with Clock() as clock:
            async with ConnectionPool(limit=1, pipelining=2, timeout=Timeout(total=10)) as pool:
                first, second = start(pool, server, "a"), start(pool, server, "b")
                assert await first == b"a"
                for _ in range(10):
                    await asyncio.sleep(0)
                clock.advance(11)
                with pytest.raises(TotalTimeout, match="receiving the body"):
                    await second


async def test_limits_of_a_request_are_not_those_of_the_next_on_its_connection():
    release = asyncio.Event()
    async with ScriptedServer([answer(OK), heads(1), wait(release), send(OK)]) as server:
        with Clock() as clock:
            async with ConnectionPool(limit=1, pipelining=2, timeout=30) as pool:
                response = await pool.request("GET", server.url, timeout=1)
                assert await response.read() == b"hi"
                second = start(pool, server, "")
                await received(server, 2)
                clock.advance(10)
                release.set()
                assert await second == b"hi"


async def test_a_connection_that_runs_empty_while_its_next_user_is_woken_is_not_stale():
    """It has been in use for long, but idle for no time."""
    go = asyncio.Event()
    script = [heads(2), wait(go), send(reply(b"a")), heads(1), send(reply(b"c"))]
    async with ScriptedServer(script) as server:
        with Clock() as clock:
            async with ConnectionPool(limit=1, pipelining=2) as pool:
                a, b = start(pool, server, "a"), start(pool, server, "b")
                await received(server, 2)
                (connection,) = pool._connections.scheduler.connections
                clock.advance(1000)

                def answer_b() -> None:
                    # In the same read event, as uvloop does it.
                    data = reply(b"b")
                    connection.get_buffer(-1)[: len(data)] = data
                    connection.buffer_updated(len(data))

                async def get_c() -> bytes:
                    response = await pool.request("GET", server.url + "c")
                    return await response.read()

                c = asyncio.ensure_future(on_wake(get_c(), once(answer_b)))
                while not pool.stats().queued:
                    await asyncio.sleep(0)
                go.set()
                assert await asyncio.gather(a, b, c) == [b"a", b"b", b"c"]
        assert server.connections == 1


def once(action):
    """Return a function that does *action* the first time that it is called."""
    actions = [action]
    return lambda: actions.pop()() if actions else None


# --------------------------------------------------------------------------------- ends


@pytest.mark.parametrize("end", [close(), reset()], ids=["fin", "rst"])
@pytest.mark.parametrize("answered", [1, 2, 3])
async def test_what_was_not_answered_is_sent_again_once(answered, end):
    bodies = [reply(b"%d" % n) for n in range(4)]
    script = [heads(4), send(b"".join(bodies[:answered])), end, read_all()]
    async with ScriptedServer(script, echo) as server:
        async with ConnectionPool(limit=1, pipelining=4) as pool:
            tasks = [start(pool, server, str(n)) for n in range(4)]
            assert await asyncio.gather(*tasks) == [b"0", b"1", b"2", b"3"]
        again = [target for conn in server.conns[1:] for target in targets(conn)]
        assert sorted(again) == [str(n) for n in range(answered, 4)]


async def test_an_end_in_a_body_fails_that_one_and_sends_the_others_again():
    script = [heads(3), send(reply(b"a") + reply(b"broken")[:-3]), close(), read_all()]
    async with ScriptedServer(script, echo) as server:
        async with ConnectionPool(limit=1, pipelining=3) as pool:
            tasks = [start(pool, server, each) for each in "abc"]
            assert await tasks[0] == b"a"
            with pytest.raises(IncompleteRead) as info:
                await tasks[1]
            assert info.value.partial == b"bro"
            assert await tasks[2] == b"c"
        assert [targets(conn) for conn in server.conns] == [["a", "b", "c"], ["c"]]


async def test_what_is_no_response_fails_one_and_sends_the_others_again():
    script = [heads(3), send(reply(b"a") + b"HTTP/1.1 2000 OK\r\n\r\n"), read_all()]
    async with ScriptedServer(script, echo) as server:
        async with ConnectionPool(limit=1, pipelining=3) as pool:
            tasks = [start(pool, server, each) for each in "abc"]
            assert await tasks[0] == b"a"
            with pytest.raises(BadStatusLine, match="2000 OK"):
                await tasks[1]
            assert await tasks[2] == b"c"


async def test_a_connection_that_closes_after_a_response_sends_the_others_again():
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na"
    script = [heads(3), send(closing + reply(b"not b")), read_all()]
    async with ScriptedServer(script, echo) as server:
        async with ConnectionPool(limit=1, pipelining=3) as pool:
            tasks = [start(pool, server, each) for each in "abc"]
            assert await asyncio.gather(*tasks) == [b"a", b"b", b"c"]


async def test_servers_that_close_after_each_response_are_asked_one_by_one():
    async def one(conn) -> None:
        await conn.read_head()
        await conn.send(OK)
        await conn.close()
        await conn.drain()

    async with ScriptedServer(one) as server:
        async with ConnectionPool(limit=2, pipelining=4) as pool:
            await asyncio.gather(*(start(pool, server, "") for _ in range(40)))
            sent = [bytes(conn.received).count(b"GET /") for conn in server.conns]
            # At most one in vain on each, of the requests sent before the first end was known.
            assert max(sent[4:]) <= 2
            (origin,) = pool._connections.scheduler.origins.values()
            assert origin.pipelining == 1


async def test_what_is_sent_again_to_such_a_server_shares_no_other_connection():
    go, done = asyncio.Event(), asyncio.Event()
    dying = [heads(2), wait(go), close(), read_all()]
    other = [heads(1), wait(done), send(reply(b"c"))]
    async with ScriptedServer(dying, other, echo) as server:
        async with ConnectionPool(pipelining=2) as pool:
            a = start(pool, server, "a")
            await received(server, 1)
            b = start(pool, server, "b")
            await received(server, 2)
            c = start(pool, server, "c")
            await received(server, 3)
            go.set()
            assert await a == b"a"
            assert await b == b"b"
            done.set()
            assert await c == b"c"
        assert [targets(conn) for conn in server.conns[:2]] == [["a", "b"], ["c"]]
        assert sorted(targets(conn) for conn in server.conns[2:]) == [["a"], ["b"]]


async def test_what_has_not_left_when_a_connection_ends_never_does():
    async with ScriptedServer(echo) as server:
        async with ConnectionPool(pipelining=2) as pool:
            assert await start(pool, server, "a") == b"a"
            (connection,) = pool._connections.scheduler.connections
            writes = await recorded(pool)
            tasks = [start(pool, server, str(n)) for n in range(2)]
            await asyncio.sleep(0)
            connection.eof_received()
            assert await asyncio.gather(*tasks) == [b"0", b"1"]
            assert writes.written == []


async def test_a_server_that_dies_at_each_second_request_fails_none():
    async def one(conn) -> None:
        await conn.read_head()
        await conn.send(OK)
        await conn.read_head()
        await conn.close()

    async with ScriptedServer(one) as server:
        async with ConnectionPool(limit_per_host=4, pipelining=4) as pool:
            bodies = await asyncio.gather(*(start(pool, server, "") for _ in range(40)))
            assert bodies == [b"hi"] * 40


async def test_a_request_that_never_gets_its_turn_is_sent_alone_in_the_end():
    """Each connection answers one request, and ends at the next."""
    count = 0

    async def one(conn) -> None:
        nonlocal count
        await conn.read_head()
        count += 1
        await conn.send(reply(b"%d" % count))
        await conn.read_head()
        await conn.reset()

    async with ScriptedServer(one) as server:
        async with ConnectionPool(limit=1, pipelining=8) as pool:
            bodies = await asyncio.gather(*(start(pool, server, "") for _ in range(16)))
            assert sorted(map(int, bodies)) == list(range(1, 17))


async def test_without_resend_what_was_swallowed_fails_and_what_was_not_begun_does_not():
    script = [answer(reply(b"a")), heads(2), close(), read_all()]
    async with ScriptedServer(script, echo) as server:
        async with ConnectionPool(limit=1, pipelining=2, resend_stale=False) as pool:
            assert await start(pool, server, "a") == b"a"
            first, second = start(pool, server, "b"), start(pool, server, "c")
            with pytest.raises(ConnectionError, match="Remote end closed connection"):
                await first
            assert await second == b"c"


async def test_a_pool_that_is_closed_tells_all_who_share_a_connection():
    async with ScriptedServer([heads(3), read_all()]) as server:
        pool = ConnectionPool(limit=1, pipelining=3)
        tasks = [start(pool, server, str(n)) for n in range(5)]
        await received(server, 3)
        await pool.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        kinds = [type(each).__name__ for each in results]
        assert kinds == ["ConnectionAbortedError", *["PoolClosed"] * 4]


async def test_interim_responses_between_pipelined_ones():
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    script = [heads(3), send(early + reply(b"a") + early + early + reply(b"b") + reply(b"c"))]
    async with ScriptedServer(script) as server:
        async with ConnectionPool(limit=1, pipelining=3) as pool:
            tasks = [start(pool, server, each) for each in "abc"]
            assert await asyncio.gather(*tasks) == [b"a", b"b", b"c"]


async def test_head_and_get_share():
    async with serve({"/": Reply("hello", headers={"X": "y"})}) as server:
        async with ConnectionPool(limit=1, pipelining=4) as pool:
            methods = ["GET", "HEAD", "OPTIONS", "HEAD"]
            responses = await asyncio.gather(
                *(pool.request(method, server.url) for method in methods)
            )
            bodies = [await each.read() for each in responses]
            assert bodies == [b"hello", b"", b"hello", b""]
        assert server.connections == 1


async def test_what_we_end_ourselves_does_not_turn_pipelining_off():
    script = [heads(2), read_all()]
    async with ScriptedServer(script, echo) as server:
        with Clock() as clock:
            async with ConnectionPool(limit=1, pipelining=2, timeout=30) as pool:
                first, second = start(pool, server, "a"), start(pool, server, "b")
                await received(server, 2)
                clock.advance(31)
                assert await second == b"b"
                with pytest.raises(ReadTimeout):
                    await first
                (origin,) = pool._connections.scheduler.origins.values()
                assert origin.pipelining == 2


async def test_a_request_that_comes_when_a_response_was_dropped_goes_elsewhere():
    """The connection ends in the next turn of the loop."""
    script = [heads(1), send(reply(b"x" * LARGE)), read_all()]
    async with ScriptedServer(script, echo) as server:
        async with ConnectionPool(limit=1, pipelining=3) as pool:
            response = await pool.request("GET", server.url)
            del response
            assert await pool_get(pool, server.url + "b") == b"b"


async def pool_get(pool: ConnectionPool, url: str) -> bytes:
    return await (await pool.request("GET", url)).read()
