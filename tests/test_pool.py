"""ConnectionPool, as its callers see it: connections, origins, proxies, names and rates."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any

import pytest

from aiohttpconn import (
    CertificateError,
    Client,
    ConnectionPool,
    ConnectionRefused,
    ConnectionVetoed,
    HTTPException,
    HTTPResponse,
    InvalidURL,
    NotConnected,
    OriginStats,
    PoolStats,
    Proxy,
    Resolver,
    TunnelError,
)
from aiohttpconn.testing import (
    Reply,
    ScriptedServer,
    answer,
    expect,
    read_all,
    refusing_address,
    send,
    serve,
    wait,
)

from .support import ConnectProxy
from .support.clocks import Clock
from .support.pooled import OK, fetch, queued, received, start
from .support.proxies import Socks5Proxy

# ------------------------------------------------------------------------------- leases


async def test_a_lease_gives_a_connection_and_takes_it_back():
    async with serve({"/": "hi"}) as server, ConnectionPool() as pool:
        for _ in range(2):
            async with pool.connection(server.url) as conn:
                assert (pool.stats().leased, pool.stats().idle) == (1, 0)
                for _ in range(2):
                    await conn.request("GET", "/")
                    response = await conn.getresponse()
                    assert await response.read() == b"hi"
            assert (pool.stats().leased, pool.stats().idle) == (0, 1)
        assert server.connections == 1


@pytest.mark.parametrize(
    "origin",
    ["http://localhost:{port}", "http://LOCALHOST:{port}/path?query", ("http", "localhost", None)],
)
async def test_an_origin_is_a_url_or_its_parts(origin):
    async with serve({"/": "hi"}) as server:
        async with ConnectionPool(resolve={"localhost": "127.0.0.1"}) as pool:
            if isinstance(origin, str):
                origin = origin.format(port=server.port)
            else:
                origin = (*origin[:2], server.port)
            async with pool.connection(origin) as conn:
                await conn.request("GET", "/")
                await (await conn.getresponse()).read()
            assert await fetch(pool, f"http://localhost:{server.port}/") == b"hi"
        assert server.connections == 1
        assert server.requests[0].headers["Host"] == f"localhost:{server.port}"


@pytest.mark.parametrize(
    "origin",
    [
        ("http", "good.test/evil", 80),
        ("http", "good.test?evil", 80),
        ("http", "good.test#evil", 80),
        ("http", "user@good.test", 80),
        ("http", "good.test:80@evil.test", 80),
        ("http", "good.test\r\n", 80),
        ("http", "", 80),
        ("http", "good.test", 99999),
        ("http", "good.test", -1),
        ("http", "good.test", "80/evil"),
        ("ftp", "good.test", 21),
        ("http://evil.test/?", "good.test", 80),
        "good.test",
        "ftp://good.test/",
    ],
)
async def test_an_origin_that_is_none_is_refused(origin):
    async with ConnectionPool() as pool:
        with pytest.raises(InvalidURL):
            pool.connection(origin)


async def not_read(conn: Any) -> None:
    await conn.request("GET", "/large")
    await conn.getresponse()


async def half_read(conn: Any) -> None:
    await conn.request("GET", "/large")
    response = await conn.getresponse()
    await response.read(10)


async def not_awaited(conn: Any) -> None:
    await conn.request("GET", "/")


async def half_sent(conn: Any) -> None:
    conn.putrequest("POST", "/")
    conn.putheader("Content-Length", "5")
    await conn.endheaders()
    await conn.send(b"ab")


async def half_written(conn: Any) -> None:
    conn.putrequest("POST", "/")
    conn.putheader("Content-Length", "5")


async def closed(conn: Any) -> None:
    await conn.request("GET", "/")
    await (await conn.getresponse()).read()
    conn.close()


async def opened_again(conn: Any) -> None:
    conn.close()
    await conn.request("GET", "/")
    await (await conn.getresponse()).read()


async def led_elsewhere(conn: Any) -> None:
    conn.close()
    conn.host, conn.port = "127.0.0.2", 1
    conn.host = "127.0.0.1"
    conn.port = conn.elsewhere
    await conn.request("GET", "/")
    await (await conn.getresponse()).read()


async def told_to_close(conn: Any) -> None:
    await conn.request("GET", "/", headers={"Connection": "close"})
    await (await conn.getresponse()).read()


async def closed_by_its_server(conn: Any) -> None:
    await conn.request("GET", "/closing")
    await (await conn.getresponse()).read()


async def half_read_of_a_last_response(conn: Any) -> None:
    await conn.request("GET", "/closing-large")
    response = await conn.getresponse()
    await response.read(1)


async def raises_in_the_middle(conn: Any) -> None:
    await conn.request("GET", "/")
    raise ZeroDivisionError


async def cancels_itself(conn: Any) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)
    await conn.request("GET", "/never")
    await conn.getresponse()


DIRTY = [
    not_read,
    half_read,
    not_awaited,
    half_sent,
    half_written,
    closed,
    opened_again,
    led_elsewhere,
    told_to_close,
    closed_by_its_server,
    half_read_of_a_last_response,
    raises_in_the_middle,
    cancels_itself,
]


@pytest.mark.parametrize("use", DIRTY)
async def test_a_connection_that_is_not_in_order_is_dropped(use):
    async def handler(request: Any) -> Any:
        if request.path == "/never":
            await asyncio.Event().wait()
        closing = {"Connection": "close"} if "closing" in request.path else {}
        return Reply(b"x" * 1_000_000 if "large" in request.path else b"hi", headers=closing)

    async with serve(handler) as server, serve(handler) as elsewhere:
        async with ConnectionPool(limit=1) as pool:
            task = asyncio.ensure_future(leased(pool, server.url, use, elsewhere.port))
            await asyncio.wait({task})
            if not task.cancelled():
                assert isinstance(task.exception(), ZeroDivisionError | None)
            assert pool.stats() == PoolStats(0, 0, 0, 0, {})
            assert await fetch(pool, server.url) == b"hi"


async def leased(pool: ConnectionPool, url: str, use: Any, elsewhere: int) -> None:
    async with pool.connection(url) as conn:
        vars(conn)["elsewhere"] = elsewhere
        await use(conn)


async def not_used(conn: Any) -> None:
    pass


async def arrived_but_not_read(conn: Any) -> None:
    await conn.request("GET", "/")
    conn.kept = await conn.getresponse()


async def raises_behind_it(conn: Any) -> None:
    await conn.request("GET", "/")
    await (await conn.getresponse()).read()
    raise ZeroDivisionError


async def refused_before_it_is_sent(conn: Any) -> None:
    with contextlib.suppress(ValueError):
        await conn.request("GET", "/", headers={"X": "a\nb"})


@pytest.mark.parametrize(
    "use", [not_used, arrived_but_not_read, raises_behind_it, refused_before_it_is_sent]
)
async def test_a_connection_that_is_in_order_is_kept(use):
    async with serve({"/": "hi"}) as server, ConnectionPool() as pool:
        with contextlib.suppress(ZeroDivisionError):
            async with pool.connection(server.url) as conn:
                await use(conn)
        assert pool.stats().idle == 1
        assert await fetch(pool, server.url) == b"hi"
        assert server.connections == 1


async def test_an_upgraded_connection_is_the_callers():
    switch = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nhello"
    )
    for detach in (False, True):
        async with ScriptedServer([expect(), send(switch), read_all()]) as server:
            async with ConnectionPool() as pool:
                fields = {"Upgrade": "echo", "Connection": "Upgrade"}
                async with pool.connection(server.url) as conn:
                    await conn.request("GET", "/", headers=fields)
                    response = await conn.getresponse()
                    assert response.status == 101
                    if detach:
                        transport, data = conn.detach()
                        assert data == b"hello"
                assert pool.stats().open == 0
                if detach:
                    assert not transport.is_closing()
                    # The pool's close() does not wait for it.
                    assert not pool._connections.closing.count()
                    transport.abort()


async def test_what_somebody_sets_is_not_the_next_ones():
    class Own(HTTPResponse):
        pass

    async with serve({"/": "hi"}) as server, ConnectionPool(timeout=7) as pool:
        async with pool.connection(server.url, timeout=3) as conn:
            assert conn.timeout.read == 3
            conn.timeout = 1
            conn.response_class = Own
            conn.debuglevel = 1
            conn.mine = "x"
        async with pool.connection(server.url) as again:
            assert server.connections == 1
            assert again.timeout.read == 7
            assert again.response_class is HTTPResponse
            assert again.debuglevel == 0
            assert not hasattr(again, "mine")
            # The first one is unusable now, and cannot harm the second.
            assert conn.sock is None
            with pytest.raises(NotConnected):
                await conn.request("GET", "/")


async def test_a_lease_is_for_one_block():
    async with serve({"/": "hi"}) as server, ConnectionPool() as pool:
        lease = pool.connection(server.url)
        async with lease:
            with pytest.raises(RuntimeError, match="this connection is leased already"):
                await lease.__aenter__()
        async with lease as conn:
            assert conn.sock is not None
        assert pool.stats().idle == 1


# ----------------------------------------------------------------------------- requests


async def test_what_a_request_sends():
    async with ScriptedServer([answer(OK)] * 3) as server, ConnectionPool() as pool:
        host = f"127.0.0.1:{server.port}"
        await fetch(pool, f"{server.url}a?b=c", headers={"X-A": "1"})
        await (await pool.request("POST", server.url, b"data", [("A", "1"), ("A", "2")])).read()
        own = {"Host": "other.test", "Accept-Encoding": "gzip"}
        await fetch(pool, server.url, headers=own)
        assert server.received[0].decode() == (
            f"GET /a?b=c HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive\r\n"
            f"Accept-Encoding: identity\r\nX-A: 1\r\n\r\n"
            f"POST / HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive\r\n"
            f"Accept-Encoding: identity\r\nContent-Length: 4\r\nA: 1\r\nA: 2\r\n\r\ndata"
            f"GET / HTTP/1.1\r\nConnection: keep-alive\r\n"
            f"Host: other.test\r\nAccept-Encoding: gzip\r\n\r\n"
        )


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        (("GET", "127.0.0.1"), InvalidURL, "it has no scheme"),
        (("GET", "ftp://127.0.0.1/"), InvalidURL, "the scheme 'ftp' is not supported"),
        (("G ET", "{url}"), ValueError, "method"),
        (("GET\r\n", "{url}"), ValueError, "method"),
        (("GET", "{url}", None, {"X": "a\r\nY: b"}), ValueError, "X"),
        (("GET", "{url}", None, {"X y": "a"}), ValueError, "X y"),
        (
            ("GET", "http://user:secret@127.0.0.1/"),
            ValueError,
            "a pool does not send a URL's credentials",
        ),
        (("CONNECT", "{url}"), ValueError, "CONNECT and Upgrade need their own connection"),
        (("GET", "{url}", None, {"Upgrade": "x"}), ValueError, "CONNECT and Upgrade need"),
        (("POST", "{url}", b"x", {"Content-Length": "1, 1"}), ValueError, "Content-Length"),
        (("GET", "{url}", None, {"Content-Length": "1", "Transfer-Encoding": "x"}), ValueError, ""),
    ],
)
async def test_what_may_not_be_sent_is_refused_before_anything_is(arguments, kind, text):
    async with serve({"/": "hi"}) as server, ConnectionPool() as pool:
        method, url, *rest = arguments
        with pytest.raises(kind) as info:
            await pool.request(method, url.format(url=server.url), *rest)
        assert text in str(info.value)
        assert "secret" not in str(info.value)
        assert pool.stats().leased == 0
        assert server.requests == []


async def test_connection_close_is_heeded():
    async with serve({"/": "hi"}) as server, ConnectionPool() as pool:
        await fetch(pool, server.url, headers={"Connection": "close"})
        assert pool.stats().open == 0


# ------------------------------------------------------------------------------ figures


async def test_stats():
    release = asyncio.Event()
    async with (
        ScriptedServer([expect(), wait(release), send(OK), answer(OK)]) as busy,
        serve({"/": "hi"}) as other,
    ):
        async with ConnectionPool(limit=5, limit_per_host=2) as pool:
            assert pool.stats() == PoolStats(0, 0, 0, 0, {})
            await fetch(pool, other.url)
            tasks = [start(pool, busy.url) for _ in range(3)]
            await queued(pool, 1)
            await received(busy, 2)
            assert pool.stats() == PoolStats(
                open=3,
                idle=1,
                leased=2,
                queued=1,
                origins={
                    other.url[:-1]: OriginStats(open=1, idle=1, leased=0, queued=0),
                    busy.url[:-1]: OriginStats(open=2, idle=0, leased=2, queued=1),
                },
            )
            assert repr(pool) == "<ConnectionPool 3 open, 1 idle, 1 queued>"
            release.set()
            await asyncio.gather(*tasks)


async def test_stats_name_the_proxy_without_its_credentials():
    async with serve({"/": "hi"}) as server, ConnectProxy(credentials="user:secret") as proxy:
        through = f"http://user:secret@127.0.0.1:{proxy.port}"
        async with ConnectionPool(proxy=through) as pool:
            async with pool.connection(server.url):
                (name,) = pool.stats().origins
                assert name == f"{server.url[:-1]} via http://***@127.0.0.1:{proxy.port}"


# ----------------------------------------------------------------------------- fairness


@pytest.mark.parametrize(("pipelining", "answers"), [(1, 1), (2, 40)])
async def test_a_queue_for_one_host_does_not_keep_another_waiting(pipelining, answers):
    """With 20 connections and 200 requests to a mute host, another host waits for one connection.

    With pipelining it waits for one of these connections to run empty, and none is filled again.
    """
    let_go = asyncio.Semaphore(0)

    async def slow(request: Any) -> str:
        await let_go.acquire()
        return "slow"

    async with serve(slow) as busy, serve({"/": "fast"}) as other:
        async with ConnectionPool(limit=20, limit_per_host=None, pipelining=pipelining) as pool:
            tasks = [start(pool, busy.url) for _ in range(200)]
            await received(busy, 20)
            for _ in range(3):
                done = sum(task.done() for task in tasks)
                quick = start(pool, other.url)
                await queued(pool, 1)
                assert not quick.done()
                for _ in range(answers):
                    let_go.release()
                assert await quick == b"fast"
                assert sum(task.done() for task in tasks) <= done + answers
            for _ in range(200):
                let_go.release()
            assert await asyncio.gather(*tasks) == [b"slow"] * 200


@pytest.mark.parametrize("limit", [None, 2, 5, 20])
async def test_one_host_takes_most_connections_and_others_have_theirs_at_once(limit):
    """With the default limits, and with a limit alone."""
    let_go = asyncio.Event()

    async def slow(request: Any) -> str:
        await let_go.wait()
        return "slow"

    options = {} if limit is None else {"limit": limit}
    most = {None: 100, 2: 1, 5: 4, 20: 18}[limit]
    async with serve(slow) as busy, serve({"/": "fast"}) as other:
        async with ConnectionPool(**options) as pool:
            tasks = [start(pool, busy.url) for _ in range(200)]
            await received(busy, most)
            for _ in range(3):
                assert await fetch(pool, other.url) == b"fast"
            assert pool.stats().queued == 200 - most
            assert not any(task.done() for task in tasks)
            let_go.set()
            assert await asyncio.gather(*tasks) == [b"slow"] * 200
        assert (busy.connections, other.connections) == (most, 1)


async def test_all_connections_to_one_host_fit_into_a_small_backlog():
    """Of asyncio's default size: more would wait for a second, until their SYN is sent again."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        async with ConnectionPool() as pool:
            tasks = [start(pool, url) for _ in range(200)]
            await queued(pool, 100)
            connections = pool._connections.scheduler.connections
            # Nobody accepts them: the kernel answers as long as the backlog has room.
            while any(connection.transport is None for connection in connections):
                await asyncio.sleep(0)
            assert len(connections) == 100
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def test_several_slow_hosts_leave_a_connection_for_another():
    let_go = asyncio.Event()

    async def slow(request: Any) -> str:
        await let_go.wait()
        return "slow"

    async with serve(slow) as busy, serve({"/": "fast"}) as other:
        async with ConnectionPool(resolve={"*": "127.0.0.1"}) as pool:
            urls = [f"http://{name}.test:{busy.port}/" for name in "abcd"]
            tasks = [start(pool, url) for url in urls for _ in range(150)]
            # Each of the others has a quarter of the reserve.
            await received(busy, 100 + 3 * 3)
            assert await fetch(pool, other.url) == b"fast"
            let_go.set()
            assert await asyncio.gather(*tasks) == [b"slow"] * 600


async def test_a_host_that_closes_each_connection_leaves_some_to_others():
    """An HTTP/1.0 server: no connection serves a second request."""
    let_go = asyncio.Event()

    async def slow(request: Any) -> Reply:
        await let_go.wait()
        return Reply("slow", headers={"Connection": "close"})

    async with serve(slow) as busy, serve({"/": "fast"}) as other:
        async with ConnectionPool(limit=8) as pool:
            tasks = [start(pool, busy.url) for _ in range(50)]
            await received(busy, 7)
            assert await fetch(pool, other.url) == b"fast"
            let_go.set()
            assert await asyncio.gather(*tasks) == [b"slow"] * 50
            assert pool.stats().origins[other.url.rstrip("/")].open == 1
        assert (busy.connections, other.connections) == (50, 1)


@pytest.mark.parametrize(("limit_per_host", "most"), [(3, 3), (8, 8), (None, 8)])
async def test_a_limit_per_host_that_is_given_is_the_limit(limit_per_host, most):
    let_go = asyncio.Event()

    async def slow(request: Any) -> str:
        await let_go.wait()
        return "slow"

    async with serve(slow) as busy:
        async with ConnectionPool(limit=8, limit_per_host=limit_per_host) as pool:
            tasks = [start(pool, busy.url) for _ in range(20)]
            await received(busy, most)
            let_go.set()
            await asyncio.gather(*tasks)
        assert busy.connections == most


async def test_hosts_that_wait_take_turns():
    order = []

    def handler(request: Any) -> str:
        order.append(request.headers["Host"].partition(".")[0])
        return "hi"

    async with serve(handler) as server:
        async with ConnectionPool(limit=1, resolve={"*": "127.0.0.1"}) as pool:
            tasks = [
                start(pool, f"http://{name}.test:{server.port}/")
                for name in "abc"
                for _ in range(2)
            ]
            await asyncio.gather(*tasks)
        # Each has its connection for several requests in a row: a handshake for each helps nobody.
        assert order == ["a", "a", "b", "b", "c", "c"]


# ------------------------------------------------ rate limits, by a clock of the test's


async def lease(pool: ConnectionPool, url: str) -> None:
    async with pool.connection(url) as conn:
        await conn.request("GET", "/")
        await (await conn.getresponse()).read()


async def moments(
    pool: ConnectionPool, clock: Clock, url: str, count: int, get: Any = fetch
) -> list[float]:
    """Send *count* requests at once; return when each was answered, in seconds."""
    began = clock.now
    times: list[float] = []

    async def one() -> None:
        await get(pool, url)
        times.append(round(clock.now - began, 3))

    tasks = [asyncio.ensure_future(one()) for _ in range(count)]
    while not all(task.done() for task in tasks):
        for _ in range(200):
            await asyncio.sleep(0)
        clock.advance(0.25)
    for task in tasks:
        task.result()
    return times


@pytest.mark.parametrize("pipelining", [1, 3])
async def test_min_interval(pipelining):
    async with serve({"/": "hi"}) as server:
        with Clock() as clock:
            async with ConnectionPool(min_interval=0.5, pipelining=pipelining) as pool:
                assert await moments(pool, clock, server.url, 4) == [0, 0.5, 1, 1.5]


@pytest.mark.parametrize("pipelining", [1, 3])
@pytest.mark.parametrize("way", ["request", "lease"])
async def test_a_stale_connection_costs_no_second_moment(pipelining, way):
    """The server keeps a connection for half a second, so each is stale at its next turn."""
    fields = {"Keep-Alive": "timeout=1"}
    async with serve({"/": Reply("hi", headers=fields)}) as server:
        with Clock() as clock:
            async with ConnectionPool(min_interval=0.75, pipelining=pipelining) as pool:
                get = lease if way == "lease" else fetch
                assert await moments(pool, clock, server.url, 4, get) == [0, 0.75, 1.5, 2.25]
                assert server.connections == 4


async def test_a_stale_connection_costs_no_place_in_the_queue():
    async with serve(lambda request: Reply(request.path)) as server:
        # A request that waits for its turn finds a connection that must not be kept.
        async with ConnectionPool(limit=1, keepalive_timeout=0) as pool:
            ended: list[int] = []

            async def post(number: int) -> None:
                response = await pool.request("POST", f"{server.url}{number}", b"x")
                await response.read()
                ended.append(number)

            await asyncio.gather(*map(post, range(10)))
            assert ended == list(range(10))


async def test_another_idle_connection_serves_in_the_place_of_a_stale_one():
    async with serve({"/": "hi"}) as server:
        with Clock() as clock:
            async with ConnectionPool() as pool:
                await asyncio.gather(*(fetch(pool, server.url) for _ in range(2)))
                last = next(reversed(pool._connections.scheduler.idle))
                last.keepalive = 1
                clock.advance(2)
                assert await fetch(pool, server.url) == b"hi"
                assert server.connections == 2
                assert last.removed
                assert pool.stats().open == 1


async def test_rate():
    async with serve({"/": "hi"}) as server:
        with Clock() as clock:
            async with ConnectionPool(rate="2/s") as pool:
                assert await moments(pool, clock, server.url, 5) == [0, 0, 1, 1, 2]


async def test_each_origin_has_a_rate_of_its_own():
    async with serve({"/": "hi"}) as first, serve({"/": "hi"}) as second:
        with Clock() as clock:
            async with ConnectionPool(rate="1/h") as pool:
                await fetch(pool, first.url)
                await fetch(pool, second.url)
                waiting = start(pool, first.url)
                await queued(pool, 1)
                clock.advance(3599)
                assert not waiting.done()
                clock.advance(2)
                assert await waiting == b"hi"


@pytest.mark.parametrize(
    ("how", "closes"),
    [(how, closes) for how in ("plain", "shared", "upload", "lease") for closes in (False, True)],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_pauses_an_origin_when_asked_to(status, how, closes):
    fields = {"Retry-After": "7", "Connection": "close" if closes else "keep-alive"}
    busy = [Reply(status=status, headers=fields), Reply("hi")]
    async with serve(lambda request: busy.pop(0)) as server, serve({"/": "hi"}) as other:
        with Clock() as clock:
            pipelining = 2 if how == "shared" else 1
            async with ConnectionPool(respect_retry_after=True, pipelining=pipelining) as pool:
                if how == "lease":
                    await lease(pool, server.url)
                else:
                    body = [b"x"] if how == "upload" else None
                    await (await pool.request("GET", server.url, body)).read()
                second = start(pool, server.url)
                await queued(pool, 1)
                assert await fetch(pool, other.url) == b"hi"
                clock.advance(6.9)
                assert not second.done()
                clock.advance(0.2)
                assert await second == b"hi"
            assert server.connections == (2 if closes else 1)


async def test_retry_after_does_not_pause_for_more_than_an_hour():
    busy = [Reply(status=503, headers={"Retry-After": "999999999"}), Reply("hi")]
    async with serve(lambda request: busy.pop(0)) as server:
        with Clock() as clock:
            async with ConnectionPool(respect_retry_after=True) as pool:
                await fetch(pool, server.url)
                second = start(pool, server.url)
                await queued(pool, 1)
                clock.advance(3601)
                assert await second == b"hi"


async def test_retry_after_is_not_heeded_unasked():
    async with serve(lambda request: Reply(status=503, headers={"Retry-After": "7"})) as server:
        async with ConnectionPool() as pool:
            for _ in range(2):
                await fetch(pool, server.url)


async def test_a_paused_pool_that_is_closed_leaves_no_timer():
    async with serve({"/": "hi"}) as server:
        with Clock() as clock:
            async with ConnectionPool(min_interval=60) as pool:
                await fetch(pool, server.url)
                waiting = start(pool, server.url)
                await queued(pool, 1)
            assert clock.timers == []
            with pytest.raises(HTTPException, match="the pool was closed"):
                await waiting


# -------------------------------------------------------------------------------- names


class Names:
    """A resolver that counts."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses or ("127.0.0.1",)
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> Any:
        self.asked.append(host)
        await asyncio.sleep(0)
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        return [(*kind, (address, port)) for address in self.addresses]


async def test_a_resolver_of_the_callers_own():
    names = Names()
    async with serve({"/": "hi"}) as server, ConnectionPool(resolver=names) as pool:
        for _ in range(2):
            await fetch(pool, f"http://some.test:{server.port}/")
        assert names.asked == ["some.test"]


async def test_one_lookup_for_many_requests(monkeypatch):
    asked = []

    def getaddrinfo(host: Any, port: int, **keywords: Any) -> Any:
        asked.append(host)
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        return [(*kind, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with serve({"/": "hi"}) as server, ConnectionPool() as pool:
        url = f"http://some.test:{server.port}/"
        await asyncio.gather(*(fetch(pool, url) for _ in range(8)))
        assert server.connections == 8
        assert asked == [b"some.test"]


async def test_static_names():
    async with serve({"/": "hi"}) as server:
        async with ConnectionPool(resolve={"some.test": "127.0.0.1"}) as pool:
            assert await fetch(pool, f"http://some.test:{server.port}/") == b"hi"


def refuse(address: str, host: str, port: int) -> bool:
    return False


def forbid(address: str, host: str, port: int) -> None:
    raise RuntimeError(f"{address} is ours")


@pytest.mark.parametrize(
    ("on_connect", "text"),
    [(refuse, "on_connect refused 127.0.0.1"), (forbid, "127.0.0.1 is ours")],
)
async def test_on_connect_forbids(on_connect, text):
    async with serve({"/": "hi"}) as server, ConnectionPool(on_connect=on_connect) as pool:
        for use in (fetch(pool, server.url), pool.connection(server.url).__aenter__()):
            with pytest.raises(ConnectionVetoed) as info:
                await use
            assert f"on_connect refused every address of '127.0.0.1': {text} (dns" in str(
                info.value
            )
            assert len(info.value.errors) == 1
        assert server.connections == 0


async def test_on_connect_forbids_some_addresses():
    seen = []

    def on_connect(address: str, host: str, port: int) -> bool | None:
        seen.append((address, host, port))
        return False if address == "127.0.0.2" else None

    names = Names("127.0.0.2", "127.0.0.1")
    async with serve({"/": "hi"}) as server:
        async with serve({"/": "no"}, host="127.0.0.2", port=server.port):
            async with ConnectionPool(resolver=names, on_connect=on_connect) as pool:
                assert await fetch(pool, f"http://some.test:{server.port}/") == b"hi"
                assert seen == [
                    ("127.0.0.2", "some.test", server.port),
                    ("127.0.0.1", "some.test", server.port),
                ]


async def test_what_was_vetted_is_what_is_connected_to():
    """There is no second lookup, whose answer could differ."""
    names = Names()
    async with serve({"/": "hi"}) as server:
        async with ConnectionPool(resolver=names, on_connect=lambda *_: None) as pool:
            await fetch(pool, f"http://some.test:{server.port}/")
    assert names.asked == ["some.test"]


# ------------------------------------------------------------------------------ proxies


async def test_an_http_proxy_is_asked_for_whole_urls():
    async with serve(lambda request: request.target) as proxy:
        through = f"http://user:pass@127.0.0.1:{proxy.port}"
        async with ConnectionPool(proxy=through) as pool:
            assert await fetch(pool, "http://a.test/x?y") == b"http://a.test/x?y"
            response = await pool.request("PUT", "http://a.test:81/", [b"x"])
            assert await response.read() == b"http://a.test:81/"
        hosts = [request.headers["Host"] for request in proxy.requests]
        assert hosts == ["a.test", "a.test:81"]
        for request in proxy.requests:
            assert request.headers.get_all("Proxy-Authorization") == ["Basic dXNlcjpwYXNz"]
        # One for each origin: the connections that the proxy keeps open to them are not mixed up.
        assert proxy.connections == 2


@pytest.mark.parametrize("pipelining", [1, 2])
async def test_what_a_proxy_was_asked_for_is_what_a_response_and_an_error_name(pipelining):
    script = [answer(OK), answer(OK), expect(), send(b"HTTP/1.1 2000\r\n\r\n"), read_all()]
    async with ScriptedServer(script) as proxy:
        async with ConnectionPool(proxy=proxy.url, pipelining=pipelining) as pool:
            for body in (None, [b"x"]):
                response = await pool.request("GET", "http://a.test/x", body)
                assert response.url == "http://a.test/x"
                await response.read()
            with pytest.raises(HTTPException) as info:
                await fetch(pool, "http://a.test/x")
            assert str(info.value).startswith("GET http://a.test/x: not a status line")


async def test_a_tunnel_for_https(certificates):
    async with (
        serve({"/": "hi"}, tls=certificates.server) as server,
        ConnectProxy(credentials="user:pass") as proxy,
    ):
        options = {"context": certificates.client}
        through = f"http://user:pass@127.0.0.1:{proxy.port}"
        async with ConnectionPool(proxy=through, **options) as pool:
            for _ in range(2):
                assert await fetch(pool, server.url) == b"hi"
            assert proxy.targets == [f"127.0.0.1:{server.port}"]
        for request in server.requests:
            assert request.headers["Proxy-Authorization"] is None


async def test_a_lease_through_a_proxy_is_a_tunnel():
    async with serve({"/": "hi"}) as server, ConnectProxy() as proxy:
        async with ConnectionPool() as pool:
            async with pool.connection(server.url, proxy=proxy.url) as conn:
                await conn.request("GET", "/")
                assert await (await conn.getresponse()).read() == b"hi"
            assert proxy.targets == [f"127.0.0.1:{server.port}"]
            assert await fetch(pool, server.url) == b"hi"
            assert server.connections == 2


async def test_tls_to_the_proxy_and_tls_within(certificates):
    async with (
        serve({"/": "hi"}, tls=certificates.server) as server,
        ConnectProxy(tls=certificates.server) as proxy,
    ):
        options = {"context": certificates.client, "proxy_context": certificates.client}
        async with ConnectionPool(proxy=f"https://localhost:{proxy.port}", **options) as pool:
            assert await fetch(pool, server.url) == b"hi"
            assert proxy.targets == [f"127.0.0.1:{server.port}"]


async def test_tls_to_a_proxy_that_is_asked_for_whole_urls(certificates):
    async with serve(lambda request: request.target, tls=certificates.server) as proxy:
        through = f"https://localhost:{proxy.port}"
        async with ConnectionPool(proxy=through, proxy_context=certificates.client) as pool:
            assert await fetch(pool, "http://a.test/") == b"http://a.test/"


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
async def test_socks(scheme):
    routes = {"some.test:80": ("127.0.0.1", 0)}
    async with serve({"/": "hi"}) as server:
        routes = {f"some.test:{server.port}": server.address}
        async with Socks5Proxy(credentials="user:pass", routes=routes) as proxy:
            through = f"{scheme}://user:pass@127.0.0.1:{proxy.port}"
            names = Names()
            async with ConnectionPool(proxy=through, resolver=names) as pool:
                assert await fetch(pool, f"http://some.test:{server.port}/") == b"hi"
            asked = "some.test" in names.asked
            assert asked == (scheme == "socks5")
        assert server.requests[0].target == "/"
        assert server.requests[0].headers["Proxy-Authorization"] is None


async def test_a_proxy_that_is_not_there_is_named():
    with refusing_address() as (host, port):
        async with ConnectionPool(proxy=f"http://user:secret@{host}:{port}") as pool:
            with pytest.raises(ConnectionRefused) as caught:
                await pool.request("GET", "http://example.org/x")
    assert str(caught.value).startswith(
        f"GET http://example.org/x: the proxy http://***@{host}:{port} was not reached: "
        f"connection refused by {host}:{port} (connect, "
    )


async def test_a_proxy_that_refuses_is_told():
    refusal = b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"
    async with ConnectProxy(refuse=refusal) as proxy:
        async with ConnectionPool(proxy=proxy.url) as pool:
            with pytest.raises(TunnelError, match="Tunnel connection failed: 403 No"):
                await fetch(pool, "https://a.test/")
            assert pool.stats().open == 0


async def test_proxies_by_scheme_and_none():
    async with serve({"/": "direct"}) as server, serve(lambda request: "proxied") as proxy:
        async with ConnectionPool(proxy={"http": proxy.url}) as pool:
            assert await fetch(pool, server.url) == b"proxied"
            assert await fetch(pool, server.url, proxy=None) == b"direct"
            assert await fetch(pool, server.url, proxy=proxy.url) == b"proxied"
        assert (server.connections, proxy.connections) == (1, 1)


# ------------------------------------------------- connections that are interchangeable


async def test_credentials_of_a_proxy_are_part_of_the_way():
    async with serve(lambda request: request.headers["Proxy-Authorization"] or "") as proxy:
        async with ConnectionPool() as pool:
            for user in ("a", "b", "a", None):
                chosen = Proxy("http", "127.0.0.1", proxy.port, user, user and "x")
                got = await fetch(pool, "http://h.test/", proxy=chosen)
                assert got == {"a": b"Basic YTp4", "b": b"Basic Yjp4", None: b""}[user]
        assert [request.connection for request in proxy.requests] == [0, 1, 0, 2]


async def test_contexts_do_not_share_connections(certificates):
    """A request that verifies never goes out on a connection that does not."""
    careless = ssl.create_default_context()
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    async with serve({"/": "hi"}, tls=certificates.untrusted) as server:
        async with Client(context=certificates.client) as client:
            response = await client.get(server.url, context=careless)
            assert response.content == b"hi"
            with pytest.raises(CertificateError):
                await client.get(server.url)
            await client.get(server.url, context=careless)
        assert len(server.requests) == 2


async def test_schemes_and_ports_do_not_share_connections(certificates):
    async with serve({"/": "a"}) as first, serve({"/": "b"}) as second:
        async with ConnectionPool(limit_per_host=1) as pool:
            assert await fetch(pool, first.url) == b"a"
            assert await fetch(pool, second.url) == b"b"
            assert len(pool.stats().origins) == 2


async def test_a_unix_socket(tmp_path):
    async with serve({"/": "hi"}, path=tmp_path / "s") as server:
        async with ConnectionPool(uds=str(tmp_path / "s")) as pool:
            for _ in range(2):
                assert await fetch(pool, "http://some.test/") == b"hi"
        assert server.connections == 1
        assert server.requests[0].headers["Host"] == "some.test"


def test_arguments_that_exclude_each_other():
    with pytest.raises(ValueError, match="cafile= makes a context"):
        ConnectionPool(context=ssl.create_default_context(), cafile="x")
    with pytest.raises(ValueError, match="resolve= is for the resolver made here"):
        ConnectionPool(resolver=Resolver(), resolve={"a.test": "127.0.0.1"})
