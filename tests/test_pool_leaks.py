"""A pool cannot leak: whoever is cancelled wherever, its slots, sockets and timers are there again.

First cancellation and failure at every step of every kind of request, then ten thousand
cancellations at random moments under contention. What must hold afterwards: nothing is leased and
nobody is queued, no socket is left that the pool does not know, and it serves its full limit.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import errno
import inspect
import os
import random
import socket
from typing import TYPE_CHECKING, Any

import pytest

from aiohttpconn import (
    BadStatusLine,
    CertificateError,
    ConnectionPool,
    ConnectionVetoed,
    HTTPException,
    IncompleteRead,
    ResolveError,
)
from aiohttpconn.protocol import DISCARD_SHARED_SECONDS
from aiohttpconn.testing import (
    ScriptedServer,
    close,
    expect,
    read_all,
    refusing_address,
    reset,
    send,
)

from .support import ConnectProxy
from .support.clocks import Clock
from .support.leaks import open_sockets

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from aiohttpconn.testing import Connection

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"

MAX_TURNS = 400
"""Turns of the loop that a request takes at most here."""

STORM = 10_000
"""Cancellations at random moments, over all seeds."""

SEEDS = (1, 2, 3, 4)


async def turns(n: int) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def answering(conn: Connection) -> None:
    while True:
        await conn.read_request()
        await conn.send(OK[:30], OK[30:])


# Kinds of requests --------------------------------------------------------------------------


async def get(pool: ConnectionPool, url: str) -> None:
    response = await pool.request("GET", url)
    await response.read()


async def unread(pool: ConnectionPool, url: str) -> None:
    await pool.request("GET", url)


async def post(pool: ConnectionPool, url: str) -> None:
    response = await pool.request("POST", url, b"body")
    await response.read()


async def upload(pool: ConnectionPool, url: str) -> None:
    async def body():
        for _ in range(3):
            yield b"part"
            await asyncio.sleep(0)

    # Closed here: CPython 3.13.0 crashes where uvloop's debug mode looks at the stack while the
    # collector closes it.
    async with contextlib.aclosing(body()) as parts:
        response = await pool.request("PUT", url, parts)
        await response.read()


async def lease(pool: ConnectionPool, url: str) -> None:
    async with pool.connection(url) as conn:
        for _ in range(2):
            await conn.request("GET", "/")
            response = await conn.getresponse()
            await response.read()


async def lease_unread(pool: ConnectionPool, url: str) -> None:
    async with pool.connection(url) as conn:
        await conn.request("POST", "/", b"x")
        await conn.getresponse()


KINDS = {each.__name__: each for each in (get, unread, post, upload, lease, lease_unread)}


# What must hold -----------------------------------------------------------------------------


async def settled(pool: ConnectionPool) -> None:
    """Wait until nothing is on its way any more."""
    slots = pool._connections.slots
    for _ in range(MAX_TURNS):
        stats = pool.stats()
        closing = pool._connections.closing._left
        if (stats.leased, stats.queued) == (0, 0) and not closing:
            break
        await asyncio.sleep(0)
    else:
        raise AssertionError(f"{stats}, {len(closing)} closing")
    check_books(pool)
    for slot in slots.all:
        assert slot.protocol is not None
        assert slot.protocol.state.name == "IDLE"


def check_books(pool: ConnectionPool) -> None:
    """The counters say what the sets have."""
    slots = pool._connections.slots
    sites = list(slots.sites.values())
    assert slots.open == len(slots.all) == sum(site.open for site in sites) <= slots.limit
    assert slots.queued == sum(len(site.waiters) for site in sites)
    assert len(slots.idle) == sum(len(site.idle) for site in sites)
    for site in sites:
        assert site.open <= slots.limit_per_host


async def serves_its_limit(pool: ConnectionPool, *, hosts: int, per_host: int) -> None:
    """Have as many requests answered at the same time as the pool allows."""
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


class Place:
    """Where requests go: plainly, over TLS, through a tunnel."""

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


# At every step ------------------------------------------------------------------------------


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
    """Before it, behind it and beside it are others, and all of those are answered."""
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
    """close() ends whatever is under way, at once, and leaves nothing."""
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


# Failures -----------------------------------------------------------------------------------


class Trouble:
    """One way in which every request fails: ``url``, and the pool's ``options``."""

    def __init__(self, name: str, certificates: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name = name
        self.options: dict[str, Any] = {}
        self.kind: type[BaseException] | tuple[type[BaseException], ...] = OSError
        self._certificates = certificates
        self._monkeypatch = monkeypatch
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Trouble:
        await self._stack.__aenter__()
        await getattr(self, self.name)()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._stack.__aexit__(*exc_info)

    async def serve(self, script: Any, **keywords: Any) -> ScriptedServer:
        server = await self._stack.enter_async_context(ScriptedServer(script, **keywords))
        self.url = server.url
        return server

    async def refused(self) -> None:
        host, port = self._stack.enter_context(refusing_address())
        self.url = f"http://{host}:{port}/"

    async def unknown_name(self) -> None:
        class Unknown:
            async def resolve(self, host: str, port: int) -> Any:
                await asyncio.sleep(0)
                raise ResolveError("no such name")

        self.url = "http://nowhere.test/"
        self.options["resolver"] = Unknown()

    async def broken_resolver(self) -> None:
        class Broken:
            async def resolve(self, host: str, port: int) -> Any:
                await asyncio.sleep(0)
                raise KeyError(host)

        self.url = "http://nowhere.test/"
        self.options["resolver"] = Broken()
        self.kind = KeyError

    async def vetoed(self) -> None:
        await self.serve(answering)

        def on_connect(address: str, host: str, port: int) -> None:
            raise RuntimeError("not there")

        self.options["on_connect"] = on_connect
        self.kind = ConnectionVetoed

    async def no_descriptor(self) -> None:
        await self.serve(answering)

        def fail(*args: Any) -> Any:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        class Module:
            socket = staticmethod(fail)

            def __getattr__(self, name: str) -> Any:
                return getattr(socket, name)

        self._monkeypatch.setattr("aiohttpconn.net.sockets.socket", Module())

    async def untrusted(self) -> None:
        await self.serve(answering, tls=self._certificates.untrusted)
        self.options["context"] = self._certificates.client
        self.kind = CertificateError

    async def no_tls(self) -> None:
        server = await self.serve([send(OK), read_all()])
        self.url = server.url.replace("http:", "https:")
        self.options["context"] = self._certificates.client

    async def refusing_proxy(self) -> None:
        proxy = ConnectProxy(refuse=b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
        await self._stack.enter_async_context(proxy)
        self.url = "https://example.test/"
        self.options.update(proxy=proxy.url, context=self._certificates.client)

    async def closes_at_once(self) -> None:
        await self.serve([close(), read_all()])

    async def resets_at_once(self) -> None:
        await self.serve([reset()])

    async def resets_in_the_head(self) -> None:
        await self.serve([expect(), send(OK[:20]), reset()])

    async def closes_in_the_body(self) -> None:
        await self.serve([expect(), send(OK[:-1]), close(), read_all()])
        self.kind = IncompleteRead

    async def nonsense(self) -> None:
        await self.serve([expect(), send(b"nonsense\r\n\r\n"), read_all()])
        self.kind = BadStatusLine


TROUBLES = [name for name, value in vars(Trouble).items() if inspect.iscoroutinefunction(value)]
TROUBLES = [name for name in TROUBLES if not name.startswith("_") and name != "serve"]


@pytest.mark.parametrize("pipelining", [1, 3])
@pytest.mark.parametrize("name", TROUBLES)
async def test_whatever_fails_leaves_nothing(certificates, monkeypatch, name, pipelining):
    with monkeypatch.context() as patch:
        async with Trouble(name, certificates, patch) as trouble:
            async with ConnectionPool(limit=2, pipelining=pipelining, **trouble.options) as pool:
                reading = (get, post, upload, lease)
                tasks = [asyncio.ensure_future(each(pool, trouble.url)) for each in reading * 3]
                results = await asyncio.gather(*tasks, return_exceptions=True)
                assert [r for r in results if not isinstance(r, trouble.kind)] == []
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
                        assert isinstance(results[1], trouble.kind)
                        await settled(pool)
                        assert pool.stats().open == 0
                        if done:
                            break
                    else:
                        raise AssertionError("it never ends by itself")


# At random moments --------------------------------------------------------------------------


async def stalling(conn: Connection) -> None:
    await conn.read_request()
    await conn.drain()


async def slow(conn: Connection) -> None:
    while True:
        await conn.read_request()
        await turns(20)
        await conn.send(OK[:-1])
        await turns(5)
        await conn.send(OK[-1:])


async def resetting(conn: Connection) -> None:
    await conn.read_request()
    await conn.send(OK)
    await conn.read_request()
    await conn.reset()


async def closing(conn: Connection) -> None:
    await conn.read_request()
    await conn.send(OK)
    await conn.close()
    await conn.drain()


async def large(conn: Connection) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 600000\r\n\r\n"
    while True:
        await conn.read_request()
        await conn.send(head + b"x" * 600_000)


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
            # What nobody waits for any more, and is not answered, has its time.
            clock.advance(DISCARD_SHARED_SECONDS + 1)
            await settled(pool)
            await serves_its_limit(pool, hosts=2, per_host=3)
        assert pool.stats().open == 0
        assert outcomes["NoneType"] > 100


@pytest.mark.parametrize("pipelining", [1, 4])
@pytest.mark.parametrize("seed", SEEDS)
async def test_nobody_gets_the_answer_of_another(seed, pipelining):
    """Whatever is cancelled, cut, late or glued to an answer: each body is that of its request.

    But for what nobody could tell apart: what comes unasked when a request is on its way.
    """
    print(f"{seed=} {pipelining=}")
    chance = random.Random(f"{seed} {pipelining}")
    stray = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray"

    async def treacherous(conn: Connection) -> None:
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

    async with ScriptedServer(treacherous) as server:
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
