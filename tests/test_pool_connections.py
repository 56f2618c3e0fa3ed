"""pool/connections.py and closing.py: how connections are kept, how long, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import subprocess
import sys
import warnings
from math import inf
from typing import Any

import pytest

from aiohttpconn import (
    Client,
    ConnectionPool,
    HTTPConnection,
    HTTPSConnection,
    IncompleteRead,
    NotConnected,
    PoolClosed,
    PoolTimeout,
    Timeout,
)
from aiohttpconn.testing import (
    Reply,
    ScriptedServer,
    answer,
    close,
    expect,
    in_thread,
    read_all,
    send,
    serve,
    wait,
)

from .support.clocks import Clock
from .support.leaks import guard, open_sockets
from .support.pooled import OK, fetch, queued, received, start
from .support.programs import complaints
from .support.waking import on_wake


def hinting(hint: bytes) -> bytes:
    """Return a response with a Keep-Alive field."""
    return OK.replace(b"\r\n\r\n", b"\r\nKeep-Alive: " + hint + b"\r\n\r\n")


async def test_max_age_ends_a_connection_that_is_always_shared():
    async with serve({"/": "hi"}) as server:
        with Clock() as clock:
            async with ConnectionPool(limit=1, max_age=60, pipelining=2) as pool:
                tasks = [start(pool, server.url) for _ in range(2)]
                for _ in range(20):
                    # One is always on its way when another ends.
                    clock.advance(10)
                    tasks.append(start(pool, server.url))
                    assert await tasks.pop(0) == b"hi"
                await asyncio.gather(*tasks)
                assert server.connections == 3


def figures(pool: ConnectionPool) -> tuple[int, int, int, int]:
    """Return (open, idle, leased, queued)."""
    stats = pool.stats()
    return stats.open, stats.idle, stats.leased, stats.queued


def clients(before: set[tuple[int, int]], server: ScriptedServer) -> int:
    """Return how many sockets are open that were not, the server's ends apart."""
    ends = {conn.sock.fileno() for conn in server.conns}
    return len([fd for fd, _ in open_sockets() - before if fd not in ends])


async def several(pool: ConnectionPool, server: Any, n: int) -> None:
    """Let *n* connections become idle, in their order."""
    leases = [pool.connection(server.url) for _ in range(n)]
    conns = [await lease.__aenter__() for lease in leases]
    for conn in conns:
        await conn.request("GET", "/")
        await (await conn.getresponse()).read()
    for lease in leases:
        await lease.__aexit__(None, None, None)


# --------------------------------------------------------------------------------- kept


async def test_an_idle_connection_is_used_again():
    async with serve({"/": "hi"}) as server, ConnectionPool() as pool:
        for _ in range(5):
            assert await fetch(pool, server.url) == b"hi"
            assert figures(pool) == (1, 1, 0, 0)
        assert server.connections == 1


async def test_the_last_one_that_came_back_is_used_first():
    async with serve({"/": "hi"}) as server, ConnectionPool() as pool:
        await several(pool, server, 3)
        for _ in range(3):
            await fetch(pool, server.url)
        assert [request.connection for request in server.requests[3:]] == [2, 2, 2]


async def test_keepalive_timeout_by_one_timer():
    async with serve({"/": "hi"}) as server:
        with Clock() as clock:
            async with ConnectionPool(keepalive_timeout=15) as pool:
                await several(pool, server, 2)
                assert len(clock.timers) == 1
                clock.advance(10)
                await fetch(pool, server.url)
                clock.advance(6)
                assert figures(pool) == (1, 1, 0, 0)
                assert len(clock.timers) == 1
                clock.advance(20)
                assert figures(pool) == (0, 0, 0, 0)
                assert clock.timers == []
                await fetch(pool, server.url)
                assert len(clock.timers) == 1
            assert clock.timers == []


async def test_what_is_in_use_does_not_expire():
    async with serve({"/": "hi"}) as server:
        with Clock() as clock:
            async with ConnectionPool(keepalive_timeout=15) as pool:
                async with pool.connection(server.url) as conn:
                    clock.advance(100)
                    await conn.request("GET", "/")
                    await (await conn.getresponse()).read()
                assert figures(pool) == (1, 1, 0, 0)


@pytest.mark.parametrize("options", [{"keepalive_timeout": 0}, {"max_idle": 0}])
async def test_nothing_is_kept(options):
    async with serve({"/": "hi"}) as server:
        with Clock() as clock:
            async with ConnectionPool(**options) as pool:
                for _ in range(3):
                    await fetch(pool, server.url)
                    assert figures(pool) == (0, 0, 0, 0)
                response = await pool.request("GET", server.url + "none")
                # No timer fires again and again for that.
                assert all(timer.when - clock.now > 0.001 for timer in clock.timers)
                await response.read()
        assert server.connections == 4


async def test_for_ever():
    async with serve({"/": "hi"}) as server:
        with Clock() as clock:
            async with ConnectionPool(keepalive_timeout=inf) as pool:
                await fetch(pool, server.url)
                assert clock.timers == []
                clock.advance(1e6)
                await fetch(pool, server.url)
        assert server.connections == 1


async def test_max_idle_closes_the_oldest():
    async with serve({"/": "hi"}) as server, ConnectionPool(max_idle=2) as pool:
        await several(pool, server, 3)
        assert figures(pool) == (2, 2, 0, 0)
        await server.conns[0].wait_ended()


async def test_max_requests():
    async with serve({"/": "hi"}) as server, ConnectionPool(max_requests=3) as pool:
        for _ in range(7):
            await fetch(pool, server.url)
        assert [request.connection for request in server.requests] == [0, 0, 0, 1, 1, 1, 2]


async def test_max_requests_counts_those_of_leases_and_uploads():
    async with serve(lambda request: "hi") as server, ConnectionPool(max_requests=4) as pool:
        async with pool.connection(server.url) as conn:
            for _ in range(2):
                await conn.request("GET", "/")
                await (await conn.getresponse()).read()
        for _ in range(2):
            await (await pool.request("PUT", server.url, [b"x"])).read()
        assert figures(pool) == (0, 0, 0, 0)
        await fetch(pool, server.url)
        assert [request.connection for request in server.requests] == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("how", ["idle", "exchange", "lease", "upload"])
async def test_max_age(how):
    async with serve(lambda request: "hi") as server:
        with Clock() as clock:
            async with ConnectionPool(max_age=60, keepalive_timeout=1000) as pool:
                await fetch(pool, server.url)
                clock.advance(50)
                await fetch(pool, server.url)
                if how == "idle":
                    clock.advance(11)
                elif how == "lease":
                    async with pool.connection(server.url):
                        clock.advance(11)
                    assert figures(pool) == (0, 0, 0, 0)
                else:
                    server.handler = lambda request: clock.advance(11) or "hi"
                    body = [b"x"] if how == "upload" else None
                    await (await pool.request("PUT", server.url, body)).read()
                    assert figures(pool) == (0, 0, 0, 0)
                await fetch(pool, server.url)
        connections = [request.connection for request in server.requests]
        assert (connections[:2], connections[-1]) == ([0, 0], 1)


async def test_the_limit_closes_what_is_idle_elsewhere():
    async with serve({"/": "a"}) as first, serve({"/": "b"}) as second:
        async with ConnectionPool(limit=1) as pool:
            for _ in range(2):
                assert await fetch(pool, first.url) == b"a"
                assert await fetch(pool, second.url) == b"b"
            assert figures(pool) == (1, 1, 0, 0)
        assert (first.connections, second.connections) == (2, 2)


# --------------------------------------------------------------------------- Keep-Alive


async def use_once(pool, url, how):
    """Use a connection of *pool* for one request, by a plain request, a lease or an upload."""
    if how == "lease":
        async with pool.connection(url) as conn:
            await conn.request("GET", "/")
            await (await conn.getresponse()).read()
    else:
        body = [b"x"] if how == "upload" else None
        await (await pool.request("GET", url, body)).read()


@pytest.mark.parametrize(
    ("hint", "seconds"),
    [
        (b"timeout=5", 4),
        (b"timeout=5, max=100", 4),
        (b"max=100,timeout=5", 4),
        (b"Timeout=5", 4),
        (b"timeout = 5", 4),
        (b"timeout=1", 0.5),
        (b"timeout=0", 0),
        (b"timeout=100", 15),
        (b"timeout=99999999999999999999", 15),
        (b"timeout=-5", 15),
        (b"timeout=+5", 15),
        (b"timeout=", 15),
        (b"xtimeout=5", 15),
        (b"5", 15),
    ],
)
@pytest.mark.parametrize("how", ["plain", "lease", "upload"])
async def test_keep_alive_timeout(hint, seconds, how):
    async with ScriptedServer([answer(hinting(hint))] * 3) as server:
        with Clock() as clock:
            async with ConnectionPool(keepalive_timeout=15) as pool:
                await use_once(pool, server.url, how)
                (connection,) = pool._connections.scheduler.connections
                clock.advance(max(seconds - 0.1, 0))
                assert not pool._connections.is_stale(connection)
                clock.advance(0.2)
                await fetch(pool, server.url)
        assert server.connections == 2


@pytest.mark.parametrize(("hint", "more"), [(b"max=2", 2), (b"timeout=9, max=1", 1), (b"max=0", 0)])
@pytest.mark.parametrize("how", ["plain", "lease", "upload"])
async def test_keep_alive_max(hint, more, how):
    async with ScriptedServer([answer(hinting(hint)), *[answer(OK)] * more, read_all()]) as server:
        async with ConnectionPool() as pool:
            await use_once(pool, server.url, how)
            for _ in range(more):
                assert figures(pool) == (1, 1, 0, 0)
                await fetch(pool, server.url)
            assert figures(pool) == (0, 0, 0, 0)
        assert server.connections == 1


async def test_a_field_with_another_name_is_no_hint():
    response = OK.replace(b"\r\n\r\n", b"\r\nX-Keep-Alive: max=0, timeout=0\r\n\r\n")
    async with ScriptedServer([answer(response)] * 2) as server, ConnectionPool() as pool:
        for _ in range(2):
            await fetch(pool, server.url)
        assert server.connections == 1


# ------------------------------------------------------------------------------ closing


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_close_waits_until_all_sockets_are_gone(certificates, tls):
    keywords = {"tls": certificates.server} if tls else {}
    async with serve({"/": "hi"}, **keywords) as server:
        before = open_sockets()
        pool = ConnectionPool(context=certificates.client)
        await several(pool, server, 5)
        await fetch(pool, server.url)
        assert clients(before, server) == 5
        await pool.close()
        assert clients(before, server) == 0
        assert figures(pool) == (0, 0, 0, 0)
        assert repr(pool) == "<ConnectionPool closed, 0 queued>"


async def test_close_ends_what_waits_and_what_is_served():
    async with ScriptedServer([expect(), read_all()]) as server:
        pool = ConnectionPool(limit=1)
        served, waits = start(pool, server.url), start(pool, server.url)
        await received(server, 1)
        await queued(pool, 1)
        await pool.close()
        with pytest.raises(ConnectionAbortedError) as info:
            await served
        assert "the connection was closed by this program (waiting for the head, " in str(
            info.value
        )
        text = rf"^GET {server.url}: the pool was closed \(waiting for a connection, \S+ ms\)$"
        with pytest.raises(PoolClosed, match=text):
            await waits


async def test_close_ends_a_response_that_is_read():
    async with ScriptedServer([expect(), send(OK[:-1]), read_all()]) as server:
        pool = ConnectionPool()
        response = await pool.request("GET", server.url)
        reading = asyncio.ensure_future(response.read())
        await asyncio.sleep(0)
        await pool.close()
        with pytest.raises(Exception, match="the connection was closed by this program"):
            await reading


async def test_close_ends_a_lease():
    async with serve({"/": "hi"}) as server:
        pool = ConnectionPool()
        async with pool.connection(server.url) as conn:
            await pool.close()
            assert conn.sock is None
            # And it does not open another.
            with pytest.raises(NotConnected):
                await conn.request("GET", "/")
        assert figures(pool) == (0, 0, 0, 0)
        assert server.requests == []


async def test_close_ends_what_the_holder_of_a_lease_has_opened():
    async with serve({"/": "hi"}) as server:
        before = open_sockets()
        pool = ConnectionPool()
        async with pool.connection(server.url) as conn:
            conn.close()
            await conn.request("GET", "/")
            await (await conn.getresponse()).read()
            await pool.close()
            assert clients(before, server) == 0


async def test_close_waits_for_what_has_left_the_pool_just_before():
    async with serve({"/": "hi"}) as server:
        for keep in (0, 1):
            before = open_sockets()
            pool = ConnectionPool(max_idle=keep)
            async with pool.connection(server.url) as conn:
                if keep:
                    conn.close()
                await conn.request("GET", "/")
                await (await conn.getresponse()).read()
            await pool.close()
            assert clients(before, server) == 0


@pytest.mark.parametrize("body", [None, [b"x"]], ids=["plain", "body"])
async def test_close_ends_a_last_response_at_once(body):
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nab"
    async with ScriptedServer([expect(), send(closing), read_all()]) as server:
        with Clock():  # no time passes
            pool = ConnectionPool()
            response = await pool.request("PUT", server.url, body)
            await pool.close()
            with pytest.raises(IncompleteRead, match="closed by this program"):
                await response.read()


async def test_close_ends_a_response_whose_followers_have_gone_elsewhere():
    async def two(conn) -> None:
        await conn.read_head()
        await conn.read_head()
        await conn.send(OK[:-1])
        await conn.drain()

    async with ScriptedServer(two, [answer(OK)]) as server:
        with Clock() as clock:
            pool = ConnectionPool(limit=1, pipelining=2, timeout=30)
            first = asyncio.ensure_future(pool.request("GET", server.url))
            second = start(pool, server.url)
            slow = await first
            clock.advance(31)
            assert await second == b"hi"
            await pool.close()
            with pytest.raises(IncompleteRead, match="closed by this program"):
                await slow.read()


async def test_close_ends_a_connect_that_is_under_way():
    async with ScriptedServer(accepting=False) as server:
        before = open_sockets()
        pool = ConnectionPool(context=None)
        # TLS to a server that does not answer.
        task = start(pool, server.url.replace("http:", "https:"))
        while not pool._connections.scheduler.connections or not open_sockets() - before:
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        await pool.close()
        assert open_sockets() <= before
        with pytest.raises(ConnectionAbortedError, match="closed by this program while connecting"):
            await task
        assert figures(pool) == (0, 0, 0, 0)


async def test_close_ends_a_lookup_that_is_under_way():
    class Slow:
        cancelled = False

        async def resolve(self, host: str, port: int) -> Any:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled = True

    resolver = Slow()
    pool = ConnectionPool(resolver=resolver)
    task = start(pool, "http://slow.test/")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await pool.close()
    assert resolver.cancelled
    with pytest.raises(ConnectionAbortedError):
        await task


async def test_close_is_bounded_although_a_resolver_will_not_be_cancelled():
    class Stubborn:
        release = asyncio.Event()

        async def resolve(self, host: str, port: int) -> Any:
            while not self.release.is_set():
                try:
                    await self.release.wait()
                except asyncio.CancelledError:
                    continue
            raise OSError("at last")

    resolver = Stubborn()
    pool = ConnectionPool(resolver=resolver)
    task = start(pool, "http://slow.test/")
    for _ in range(3):
        await asyncio.sleep(0)
    with Clock() as clock:
        closing = asyncio.ensure_future(pool.close())
        for _ in range(2):
            await asyncio.sleep(0)
            assert not closing.done()
            clock.advance(1)
            await asyncio.sleep(0)
        await closing
    resolver.release.set()
    with pytest.raises((OSError, PoolClosed)):
        await task
    assert figures(pool) == (0, 0, 0, 0)


async def unsendable(pool: ConnectionPool, server: ScriptedServer) -> None:
    """Let *pool* have an idle connection whose socket cannot be closed soon: bytes are left."""
    await fetch(pool, server.url)
    (connection,) = pool._connections.scheduler.idle
    connection.transport.write(b"x" * 20_000_000)


async def test_close_cuts_off_what_a_peer_does_not_take():
    stop = asyncio.Event()
    async with ScriptedServer([answer(OK), wait(stop)]) as server:
        with Clock() as clock:
            pool = ConnectionPool()
            await unsendable(pool, server)
            closing = asyncio.ensure_future(pool.close())
            for _ in range(20):
                await asyncio.sleep(0)
            assert not closing.done()
            clock.advance(1)
            await closing
            assert clock.timers == []
        stop.set()


async def test_close_while_it_is_closing():
    """All calls of close() return when the last socket has closed, and not before."""
    go = asyncio.Event()
    async with ScriptedServer([answer(OK), wait(go), read_all()]) as server:
        with Clock() as clock:
            pool = ConnectionPool()
            await unsendable(pool, server)
            closings = [asyncio.ensure_future(pool.close()) for _ in range(3)]
            for _ in range(20):
                await asyncio.sleep(0)
            assert not any(each.done() for each in closings)
            closings[1].cancel()
            await asyncio.wait({closings[1]})
            go.set()
            await asyncio.gather(closings[0], closings[2])
            assert clock.timers == []
        await pool.close()


async def test_close_of_a_pool_that_was_never_used():
    await ConnectionPool().close()
    async with ConnectionPool():
        pass


async def test_closed_in_the_turn_in_which_a_paused_waiter_gets_its_connection():
    """It does not go back to the queue, to wait for its moment there."""
    release = asyncio.Event()
    async with ScriptedServer([expect(), wait(release), send(OK), read_all()]) as server:
        with Clock() as clock:
            pool = ConnectionPool(limit=1, min_interval=5)
            first = start(pool, server.url)
            await received(server, 1)
            second = asyncio.ensure_future(
                on_wake(fetch(pool, server.url), pool._connections.close_nowait)
            )
            await queued(pool, 1)
            clock.advance(5)
            release.set()
            await first
            with pytest.raises(PoolClosed):
                await second
            assert not clock.timers
            await pool.close()


async def test_use_after_close():
    pool = ConnectionPool()
    await pool.close()
    assert pool.closed
    with pytest.raises(PoolClosed, match=r"^GET http://127.0.0.1/: the pool is closed \("):
        await pool.request("GET", "http://127.0.0.1/")
    with pytest.raises(PoolClosed, match=r"^the pool is closed$"):
        async with pool.connection("http://127.0.0.1/"):
            pass


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("shared", [False, True])
async def test_woken_and_closed_in_one_turn(shared, keeps):
    """The waiter has a connection, connected or not, when the pool is closed."""
    release = asyncio.Event()
    closing = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with ScriptedServer([expect(), wait(release), send(OK if keeps else closing)]) as server:
        pool = ConnectionPool(limit=1, pipelining=2 if shared else 1)
        first = asyncio.ensure_future(pool.request("POST", server.url))
        await received(server, 1)
        second = start(pool, server.url)
        await queued(pool, 1)
        release.set()
        while pool.stats().queued:
            await asyncio.sleep(0)
        await pool.close()
        await asyncio.wait({first, second})
        assert figures(pool) == (0, 0, 0, 0)
        with pytest.raises((PoolClosed, ConnectionAbortedError)):
            await second


# -------------------------------------------------------------------------- event loops


async def test_no_task_is_made_by_the_pool():
    async with serve({"/": "hi"}) as server:
        async with ConnectionPool(keepalive_timeout=60) as pool:
            await fetch(pool, server.url)
            mine = asyncio.current_task()
            assert asyncio.all_tasks() - server._tasks == {mine}


async def test_another_loop_is_refused_while_the_first_one_lives():
    async with serve({"/": "hi"}) as server:
        async with ConnectionPool() as pool:
            await fetch(pool, server.url)

            def elsewhere() -> None:
                asyncio.run(pool.request("GET", server.url))

            text = f"GET {server.url}: this pool belongs to another event loop: make one for each"
            with pytest.raises(RuntimeError, match=f"^{re.escape(text)}$"):
                await asyncio.to_thread(elsewhere)


async def test_a_connection_outlives_its_use_in_another_loop():
    # A request without a total limit does not look for the loop: it fails behind its first await.
    async with ScriptedServer([answer(OK), answer(OK)]) as server:
        async with HTTPConnection(*server.address, timeout=Timeout(total=60)) as conn:
            await conn.request("GET", "/")
            await (await conn.getresponse()).read()

            def elsewhere() -> None:
                asyncio.run(conn.request("GET", "/"))

            text = "this connection belongs to another event loop: make one for each"
            with pytest.raises(RuntimeError, match=f"^{text}$"):
                await asyncio.to_thread(elsewhere)
            await conn.request("GET", "/")
            assert await (await conn.getresponse()).read() == b"hi"
        assert server.connections == 1


@pytest.fixture
def new_loop():
    """Return a function that makes a loop; all loops are closed in the end."""
    loops = []

    def make() -> asyncio.AbstractEventLoop:
        loops.append(guard(asyncio.new_event_loop()))
        return loops[-1]

    yield make
    for loop in loops:
        loop.close()


def test_a_pool_goes_on_in_another_loop_when_the_first_one_is_closed(new_loop):
    pool = ConnectionPool(limit=2)

    async def use() -> None:
        async with serve({"/": "hi"}) as server:
            assert await fetch(pool, server.url) == b"hi"
            assert figures(pool) == (1, 1, 0, 0)

    with warnings.catch_warnings():
        # asyncio warns of each transport that is open when its loop closes.
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(2):
            loop = new_loop()
            loop.run_until_complete(use())
            loop.close()
        new_loop().run_until_complete(pool.close())
        gc.collect()
    assert figures(pool) == (0, 0, 0, 0)


LOOPS = {"asyncio": asyncio.new_event_loop}
with contextlib.suppress(ImportError):
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop


@pytest.mark.parametrize(
    ("loop", "shut_down"),
    # uvloop's close() itself warns of what is open, unless the loop was shut down before.
    [("asyncio", False), *[(loop, True) for loop in LOOPS]],
)
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("kind", ["Client", "ConnectionPool", "HTTPConnection", "unread", "lease"])
def test_another_loop_after_the_first_is_closed_without_a_warning(
    certificates, loop, shut_down, tls, kind
):
    """Connections of the loop that was closed are closed, and nobody is told of them."""
    if kind == "HTTPConnection" and not shut_down:
        # One without a total limit does not compare loops, so it learns of the end by a shutdown.
        options: dict[str, Any] = {"timeout": Timeout(total=60)}
    else:
        options = {}
    if tls:
        options["context"] = certificates.client
    made: list[Any] = []

    async def use(url: str) -> None:
        if kind == "Client":
            client = made[0] if made else Client(trust_env=False, **options)
            made.append(client)
            assert (await client.get(url)).text == "hi"
            assert client.stats().open == 1
        elif kind == "HTTPConnection":
            one = HTTPSConnection if tls else HTTPConnection
            conn = made[0] if made else one("127.0.0.1", server.port, **options)
            made.append(conn)
            await conn.request("GET", "/")
            assert await (await conn.getresponse()).read() == b"hi"
        else:
            pool = made[0] if made else ConnectionPool(**options)
            made.append(pool)
            if kind == "lease":
                made.append(pool.connection(url))
                conn = await made[-1].__aenter__()
                await conn.request("GET", "/")
                assert await (await conn.getresponse()).read() == b"hi"
            elif kind == "unread":
                made.append(await pool.request("GET", url))
            else:
                assert await fetch(pool, url) == b"hi"

    async def end() -> None:
        if isinstance(made[0], HTTPConnection):
            made[0].close()
        else:
            await made[0].close()

    with in_thread(serve({"/": "hi"}, tls=certificates.server if tls else None)) as server:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(3):
                if shut_down:
                    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
                        runner.run(use(server.url))
                    del runner
                else:
                    new = asyncio.new_event_loop()
                    new.run_until_complete(use(server.url))
                    new.close()
                    del new
            with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
                runner.run(end())
            made.clear()
            gc.collect()
        assert [str(warning.message) for warning in caught] == []


def test_a_loop_that_was_closed_with_requests_under_way(new_loop):
    """The requests that wait there can never be woken again."""
    pool = ConnectionPool(limit=1)
    tasks = []

    async def leave() -> None:
        tasks.extend(start(pool, stalling.url) for _ in range(2))
        await queued(pool, 1)
        for _ in range(10):
            await asyncio.sleep(0)

    async def use() -> None:
        async with serve({"/": "hi"}) as server, pool:
            assert await fetch(pool, server.url) == b"hi"
            assert figures(pool) == (1, 1, 0, 0)

    with in_thread(ScriptedServer([expect(), read_all()])) as stalling:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            loop = new_loop()
            loop.run_until_complete(leave())
            loop.close()
            new_loop().run_until_complete(use())
            for task in tasks:
                task._log_destroy_pending = False
                task.get_coro().close()
            del task
            tasks.clear()
            gc.collect()


def test_a_lease_that_ends_after_its_loop_leaves_nothing_to_wait_for(new_loop):
    pool = ConnectionPool()
    leases = []

    async def leave() -> None:
        leases.append(pool.connection(server.url))
        await leases[0].__aenter__()

    async def use() -> None:
        assert await fetch(pool, server.url) == b"hi"
        await leases[0].__aexit__(None, None, None)
        assert pool._connections.closing.count() == 0
        assert figures(pool) == (1, 1, 0, 0)
        await pool.close()

    with in_thread(serve({"/": "hi"})) as server, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop = new_loop()
        loop.run_until_complete(leave())
        loop.close()
        new_loop().run_until_complete(use())
        gc.collect()


async def test_a_pool_that_is_forgotten_says_so_once():
    async with serve({"/": "hi"}) as server:
        pool = ConnectionPool()
        await several(pool, server, 3)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del pool
            gc.collect()
            for conn in server.conns:
                await conn.wait_ended()
        assert [(warning.category, str(warning.message)) for warning in caught] == [
            (
                ResourceWarning,
                "unclosed pool, 3 open, 3 idle, 0 queued: call its close(), or use 'async with'",
            )
        ]


def test_a_pool_that_is_forgotten_behind_its_loop_says_so_once(new_loop):
    pools = [ConnectionPool()]
    with in_thread(serve({"/": "hi"})) as server:
        loop = new_loop()
        loop.run_until_complete(several(pools[0], server, 3))
        assert figures(pools[0]) == (3, 3, 0, 0)
        loop.close()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            pools.clear()
            gc.collect()
    # asyncio warns of the transports and their sockets.
    said = [str(warning.message) for warning in caught]
    assert [text.split(",")[0] for text in said if "<" not in text] == ["unclosed pool"]


async def test_a_pool_with_nothing_open_is_forgotten_in_silence():
    pool = ConnectionPool()
    async with serve(lambda request: Reply("hi", headers={"Connection": "close"})) as server:
        await fetch(pool, server.url)
        del pool
        gc.collect()
        assert server.connections == 1


async def test_a_forgotten_pool_is_closed_outside_of_what_runs():
    """The garbage collector may run in another thread, and in the middle of anything."""
    async with serve({"/": "hi"}) as server:
        pool = ConnectionPool()
        await fetch(pool, server.url)
        connections = pool._connections
        with pytest.warns(ResourceWarning, match="unclosed pool"):
            del pool
        assert not connections.closed
        await server.conns[0].wait_ended()
        assert connections.closed


async def test_a_response_that_is_dropped_unread_frees_its_slot():
    async with ScriptedServer([expect(), send(OK[:-1]), read_all()], [answer(OK)]) as server:
        async with ConnectionPool(limit=1) as pool:
            response = await pool.request("GET", server.url)
            assert figures(pool) == (1, 0, 1, 0)
            del response
            assert await fetch(pool, server.url) == b"hi"


async def test_a_dropped_response_is_cleaned_up_outside_of_what_runs():
    """The garbage collector may run in the middle of the pool's own code."""
    async with ScriptedServer([expect(), send(OK[:-1]), read_all()]) as server:
        async with ConnectionPool(limit=1) as pool:
            response = await pool.request("GET", server.url)
            del response
            assert figures(pool) == (1, 0, 1, 0)
            await asyncio.sleep(0)
            assert figures(pool) == (0, 0, 0, 0)


def test_a_response_that_is_dropped_behind_its_loop(new_loop):
    pool = ConnectionPool()
    with in_thread(ScriptedServer([expect(), send(OK[:-1]), read_all()])) as server:
        loop = new_loop()
        response = loop.run_until_complete(pool.request("GET", server.url))
        loop.close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del response
            new_loop().run_until_complete(pool.close())
            gc.collect()


PROGRAM = """
import asyncio, importlib, sys, aiohttpconn

async def main(url):
    async with aiohttpconn.ConnectionPool(pipelining=2, limit=3) as pool:
        async def get():
            assert await (await pool.request("GET", url)).read() == b"hi"
        await asyncio.gather(*(get() for _ in range(20)))
        left = [asyncio.ensure_future(get()) for _ in range(10)]
        await asyncio.sleep(0)
        unread = await pool.request("POST", url)
        for each in left:
            each.cancel()

importlib.import_module(sys.argv[1]).run(main(sys.argv[2]))
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_clean_exit_prints_nothing(loop):
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    with in_thread(serve({"/": "hi"})) as server:
        command = [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, loop, server.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, complaints(done.stderr)) == (0, "", "")


# ---------------------------------------------------------------------------- acquiring


async def test_a_slot_and_a_timeout_at_the_same_moment():
    """The connection goes to the next request; the caller gets the timeout."""
    release = asyncio.Event()
    async with ScriptedServer([expect(), wait(release), send(OK), *[answer(OK)] * 2]) as server:
        with Clock() as clock:
            async with ConnectionPool(limit=1, timeout=Timeout(pool=5)) as pool:
                first = start(pool, server.url)
                await received(server, 1)
                second, third = start(pool, server.url), start(pool, server.url, timeout=None)
                await queued(pool, 2)
                clock.advance(6)
                release.set()
                assert await first == b"hi"
                with pytest.raises(PoolTimeout):
                    await second
                assert await third == b"hi"
                assert server.connections == 1


async def test_a_server_that_hangs_up_at_once_is_told():
    async with ScriptedServer([close(), read_all()]) as server:
        async with ConnectionPool() as pool:
            with pytest.raises(ConnectionError):
                await fetch(pool, server.url)
            assert figures(pool) == (0, 0, 0, 0)


async def test_a_connection_of_a_pool_is_not_one_of_its_own():
    """It gives no warning when it is dropped: the pool has closed it."""
    async with serve({"/": "hi"}) as server:
        async with ConnectionPool() as pool:
            async with pool.connection(server.url) as conn:
                assert isinstance(conn, HTTPConnection)
            del conn
        gc.collect()
