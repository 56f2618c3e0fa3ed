"""A pool cannot leak: it gets back the connection, socket and timers of a request that ends.

A request that is cancelled or fails stops at an await, and must release all that it holds there.
So these tests end requests at each of their awaits:

- **At every step.** A request runs for *k* turns of the loop and is cancelled then, for k = 0, 1,
  2, ... until it ends by itself before that. An await that waits takes a turn or more, so each one
  is hit. This is done with every kind of request (``support/pool_requests.py``): on a new
  connection; on a connection that other requests wait for, all of which must be answered; and with
  the pool closed instead of a request cancelled.
- **Failures.** Requests fail in each way (``support/trouble.py``), many at the same time, and then
  with a cancellation at every step.
- **At random moments.** Ten thousand requests are cancelled under contention, with servers that
  stall, reset, close and flood. Another server sends its responses cut, late, closed or with bytes
  after them, and each request must get its own answer. The seed is shown when such a test fails.

``settled()`` asserts the state afterwards: no connection is leased, no request is queued, the
counters agree with the sets, and each connection left is idle. Then the pool must serve another
request, or as many at the same time as its limit allows. The check of every test
(``support/leaks.py``) finds sockets and tasks that a pool has lost.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
from typing import TYPE_CHECKING, Any

import pytest

from aiohttpconn import ConnectionPool, HTTPException
from aiohttpconn.source import DISCARD_SHARED_SECONDS
from aiohttpconn.testing import ScriptedServer, refusing_address

from .support import ConnectProxy
from .support.clocks import Clock
from .support.leaks import open_sockets
from .support.pool_requests import KINDS, answering, get, lease, post, turns, upload
from .support.pooled import OK
from .support.trouble import TROUBLES, Trouble

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttpconn.testing import Connection

MAX_TURNS = 400
"""The most turns of the loop that a request takes here."""

STORM = 10_000
"""Cancellations at random moments, over all seeds."""

SEEDS = (1, 2, 3, 4)


# ------------------------------------------------------------------------ at every step


@pytest.mark.parametrize("pipelining", [1, 3])
@pytest.mark.parametrize("kind", ["plain", "tls", "tls tunnel"])
@pytest.mark.parametrize("request_kind", KINDS)
async def test_cancelled_at_every_step_of_the_first_request(
    certificates, kind, request_kind, pipelining
):
    async with Place(kind, certificates) as place:
        for k in range(MAX_TURNS):
            async with ConnectionPool(limit=1, pipelining=pipelining, **place.options) as pool:
                done = await cancelled_after(k, KINDS[request_kind](pool, place.server.url))
                await settled(pool)
                await get(pool, place.server.url)
                await settled(pool)
            if done:
                break
        else:
            raise AssertionError("it never ends by itself")
        assert k > 5


@pytest.mark.parametrize("pipelining", [1, 3])
@pytest.mark.parametrize("request_kind", KINDS)
async def test_cancelled_at_every_step_on_a_connection_that_others_wait_for(
    request_kind, pipelining
):
    """Other requests come before it, after it and beside it, and all of them are answered."""
    async with ScriptedServer(answering) as server:
        async with ConnectionPool(limit=1, pipelining=pipelining) as pool:
            for k in range(MAX_TURNS):
                others = [asyncio.ensure_future(get(pool, server.url)) for _ in range(2)]
                victim = asyncio.ensure_future(KINDS[request_kind](pool, server.url))
                others += [
                    asyncio.ensure_future(each(pool, server.url)) for each in (get, post, lease)
                ]
                await turns(k)
                done = victim.done()
                victim.cancel()
                await asyncio.gather(*others)
                await asyncio.wait({victim})
                await settled(pool)
                if done:
                    break
            else:
                raise AssertionError("it never ends by itself")


async def test_closed_at_every_step():
    """close() ends all requests at once, and leaves no socket."""
    for k in range(MAX_TURNS):
        async with ScriptedServer(answering) as server:
            before = open_sockets()
            pool = ConnectionPool(limit=2, pipelining=2)
            tasks = [
                asyncio.ensure_future(each(pool, server.url)) for each in [*KINDS.values()] * 2
            ]
            await turns(k)
            done = all(task.done() for task in tasks)
            await pool.close()
            stats = pool.stats()
            assert (stats.open, stats.queued) == (0, 0)
            await asyncio.wait(tasks)
            for task in tasks:
                if not isinstance(task.exception(), ConnectionError | HTTPException | None):
                    raise task.exception()
            ends = {conn.sock.fileno() for conn in server.conns}
            assert [fd for fd, _ in open_sockets() - before if fd not in ends] == []
        if done:
            break
    else:
        raise AssertionError("it never ends by itself")


# ----------------------------------------------------------------------------- failures


@pytest.mark.parametrize("pipelining", [1, 3])
@pytest.mark.parametrize("name", TROUBLES)
async def test_whatever_fails_leaves_nothing(certificates, monkeypatch, name, pipelining):
    with monkeypatch.context() as patch:
        async with Trouble(name, certificates, patch) as trouble:
            async with ConnectionPool(limit=2, pipelining=pipelining, **trouble.options) as pool:
                reading = (get, post, upload, lease)
                tasks = [asyncio.ensure_future(each(pool, trouble.url)) for each in reading * 3]
                results = await asyncio.gather(*tasks, return_exceptions=True)
                assert [r for r in results if not isinstance(r, trouble.error)] == []
                await settled(pool)
                assert pool.stats().open == 0


@pytest.mark.parametrize("name", TROUBLES)
async def test_cancelled_at_every_step_of_what_fails(certificates, monkeypatch, name):
    with monkeypatch.context() as patch:
        async with Trouble(name, certificates, patch) as trouble:
            async with ConnectionPool(limit=1, **trouble.options) as pool:
                for each in (get, upload, lease):
                    for k in range(MAX_TURNS):
                        task = asyncio.ensure_future(each(pool, trouble.url))
                        behind = asyncio.ensure_future(get(pool, trouble.url))
                        await turns(k)
                        done = task.done()
                        task.cancel()
                        results = await asyncio.gather(task, behind, return_exceptions=True)
                        assert isinstance(results[1], trouble.error)
                        await settled(pool)
                        assert pool.stats().open == 0
                        if done:
                            break
                    else:
                        raise AssertionError("it never ends by itself")


# -------------------------------------------------------------------- at random moments


@pytest.mark.parametrize("pipelining", [1, 4])
@pytest.mark.parametrize("seed", SEEDS)
async def test_cancelled_at_random_moments_under_contention(seed, pipelining, certificates):
    print(f"{seed=} {pipelining=}")
    chance = random.Random(f"{seed} {pipelining}")
    async with contextlib.AsyncExitStack() as stack:
        scripts = (answering, answering, slow, stalling, resetting, closing, large)
        urls = [(await stack.enter_async_context(ScriptedServer(script))).url for script in scripts]
        host, port = stack.enter_context(refusing_address())
        urls.append(f"http://{host}:{port}/")
        clock = stack.enter_context(Clock())
        async with ConnectionPool(
            limit=6, limit_per_host=3, max_idle=4, pipelining=pipelining, timeout=60
        ) as pool:
            tasks: list[asyncio.Task[None]] = []
            outcomes: collections.Counter[str] = collections.Counter()
            while outcomes["CancelledError"] < STORM // len(SEEDS) // 2:
                while len(tasks) < 20:
                    operation = chance.choice([*KINDS.values()])(pool, chance.choice(urls))
                    tasks.append(asyncio.ensure_future(operation))
                await turns(chance.randrange(12))
                check_books(pool)
                for task in chance.sample(tasks, chance.randrange(15)):
                    task.cancel()
                for task in [task for task in tasks if task.done()]:
                    tasks.remove(task)
                    error = asyncio.CancelledError() if task.cancelled() else task.exception()
                    outcomes[type(error).__name__] += 1
                    if not isinstance(
                        error, OSError | HTTPException | asyncio.CancelledError | None
                    ):
                        raise error
            print(outcomes)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            # A shared connection waits this long for an answer whose request was cancelled.
            clock.advance(DISCARD_SHARED_SECONDS + 1)
            await settled(pool)
            await serves_its_limit(pool, hosts=2, per_host=3)
        assert pool.stats().open == 0
        assert outcomes["NoneType"] > 100


@pytest.mark.parametrize("pipelining", [1, 4])
@pytest.mark.parametrize("seed", SEEDS)
async def test_nobody_gets_the_answer_of_another(seed, pipelining):
    """Each request gets its own body, whatever is cancelled, cut, late or sent unasked.

    A stray response follows one that keeps the connection only without pipelining: if the next
    request is on its way already, no client could tell the stray response from its answer.
    """
    print(f"{seed=} {pipelining=}")
    chance = random.Random(f"{seed} {pipelining}")

    async def ask(pool: ConnectionPool, url: str, name: str) -> None:
        kind = chance.randrange(5)
        if kind == 0:
            async with pool.connection(url) as conn:
                await conn.request("GET", f"/{name}")
                body = await (await conn.getresponse()).read()
        else:
            method, data = (("GET", None), ("GET", None), ("POST", b"x"), ("PUT", [b"x"]))[kind - 1]
            response = await pool.request(method, f"{url}{name}", data)
            await turns(chance.randrange(4))
            body = await response.read()
        assert body.startswith(f"/{name}".encode())
        assert body.replace(f"/{name}".encode(), b"") == b""

    async with ScriptedServer(treacherous(chance, pipelining)) as server:
        with Clock() as clock:
            async with ConnectionPool(limit=4, pipelining=pipelining, timeout=60) as pool:
                answered = 0
                tasks: list[asyncio.Task[None]] = []
                for number in range(1000):
                    tasks.append(asyncio.ensure_future(ask(pool, server.url, f"{number}.")))
                    while len(tasks) >= 12:
                        await turns(chance.randrange(6))
                        if chance.random() < 0.3:
                            chance.choice(tasks).cancel()
                        for task in [task for task in tasks if task.done()]:
                            tasks.remove(task)
                            error = None if task.cancelled() else task.exception()
                            answered += not task.cancelled() and error is None
                            if not isinstance(error, OSError | HTTPException | None):
                                raise error
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                clock.advance(DISCARD_SHARED_SECONDS + 1)
                await settled(pool)
                print(answered)
                assert answered > 300


# -------------------------------------------------------------------- requests that end


async def cancelled_after(k: int, operation: Awaitable[None]) -> bool:
    """Run *operation* for *k* turns, then cancel it; return whether it ended before."""
    task = asyncio.ensure_future(operation)
    await turns(k)
    done = task.done()
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()
    return done


class Place:
    """A server that is reached as *kind* says: "plain", "tls", or "tls tunnel".

    ``options`` are those that a pool needs to reach it.
    """

    def __init__(self, kind: str, certificates: Any, script: Any = answering) -> None:
        tls = certificates.server if "tls" in kind else None
        self.server = ScriptedServer(script, tls=tls)
        self.proxy = ConnectProxy() if "tunnel" in kind else None
        self.options: dict[str, Any] = {"context": certificates.client} if tls else {}

    async def __aenter__(self) -> Place:
        await self.server.__aenter__()
        if self.proxy is not None:
            await self.proxy.__aenter__()
            self.options["proxy"] = self.proxy.url
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        if self.proxy is not None:
            await self.proxy.__aexit__(*exc_info)
        await self.server.__aexit__(*exc_info)


# ------------------------------------------------------------------------------- checks


async def settled(pool: ConnectionPool) -> None:
    """Wait until no request is on its way, and assert that nothing is left of them."""
    for _ in range(MAX_TURNS):
        stats = pool.stats()
        closing = pool._connections.closing.count()
        if (stats.leased, stats.queued) == (0, 0) and not closing:
            break
        await asyncio.sleep(0)
    else:
        raise AssertionError(f"{stats}, {closing} closing")
    check_books(pool)
    for connection in pool._connections.scheduler.connections:
        assert connection.transport is not None
        assert connection.reusable()


def check_books(pool: ConnectionPool) -> None:
    """Assert that the counters agree with the sets, and keep to the limits."""
    scheduler = pool._connections.scheduler
    origins = list(scheduler.origins.values())
    count = scheduler.connection_count
    assert count == len(scheduler.connections) <= scheduler.limit
    assert count == sum(origin.connection_count for origin in origins)
    assert scheduler.queued == sum(len(origin.waiters) for origin in origins)
    assert len(scheduler.idle) == sum(len(origin.idle) for origin in origins)
    for origin in origins:
        assert origin.connection_count <= scheduler.limit_per_host


async def serves_its_limit(pool: ConnectionPool, *, hosts: int, per_host: int) -> None:
    """Assert that *hosts* x *per_host* requests can be under way at the same time.

    The servers answer only when all of these have come.
    """
    together = asyncio.Barrier(hosts * per_host)

    async def all_at_once(conn: Connection) -> None:
        while True:
            await conn.read_request()
            await together.wait()
            await conn.send(OK)

    async with contextlib.AsyncExitStack() as stack:
        for _ in range(hosts):
            server = await stack.enter_async_context(ScriptedServer(all_at_once))
            for _ in range(per_host):
                task = asyncio.ensure_future(post(pool, server.url))
                stack.push_async_callback(asyncio.wait_for, task, None)


# --------------------------------------------------------------- servers that misbehave


async def stalling(conn: Connection) -> None:
    """Never answer."""
    await conn.read_request()
    await conn.drain()


async def slow(conn: Connection) -> None:
    """Let some turns pass before each response, and before its last byte."""
    while True:
        await conn.read_request()
        await turns(20)
        await conn.send(OK[:-1])
        await turns(5)
        await conn.send(OK[-1:])


async def resetting(conn: Connection) -> None:
    """Answer one request, and reset the connection at the next."""
    await conn.read_request()
    await conn.send(OK)
    await conn.read_request()
    await conn.reset()


async def closing(conn: Connection) -> None:
    """Answer one request, and close the connection while it is idle."""
    await conn.read_request()
    await conn.send(OK)
    await conn.close()
    await conn.drain()


async def large(conn: Connection) -> None:
    """Answer with more than a client takes before it is read."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 600000\r\n\r\n"
    while True:
        await conn.read_request()
        await conn.send(head + b"x" * 600_000)


def treacherous(chance: random.Random, pipelining: int) -> Callable[[Connection], Awaitable[None]]:
    """Return a server that answers with a request's own target, repeated, and often spoilt.

    It cuts responses, sends them late, in pieces or after a 103, closes or resets connections, and
    sends stray responses that no request has asked for.
    """
    stray = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray"

    async def script(conn: Connection) -> None:
        while True:
            head, _ = await conn.read_request()
            name = head.split()[1] * chance.choice((1, 1, 1, 20_000))
            response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name)
            match chance.randrange(20):
                case 0:
                    await conn.reset()
                    return
                case 1 if pipelining == 1:
                    await conn.send(response + stray)
                case 3:
                    await conn.send(response[: chance.randrange(len(response))])
                    await conn.close()
                    await conn.drain()
                    return
                case 4:
                    ending = response.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")
                    await conn.send(ending + stray)
                case 5:
                    await conn.send(b"HTTP/1.1 103 x\r\n\r\n" + response)
                case 6:
                    chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(name), name)
                    coded = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk
                    await conn.send(coded)
                case 7:
                    await turns(10)
                    await conn.send(response[:50], response[50:])
                case 8:
                    await conn.send(response)
                    await conn.close()
                    await conn.drain()
                    return
                case _:
                    await conn.send(response)

    return script
