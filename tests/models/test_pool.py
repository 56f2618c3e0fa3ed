"""``ConnectionPool`` and ``Client`` in any order of steps: counts, limits, the right response."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from aiohttpconn import Client, HTTPException, PoolClosed, Timeout

from .machine import LOOPS, Machine, run_machine, turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttpconn import HTTPResponse
    from aiohttpconn.testing import Connection

DOCUMENTED = (HTTPException, OSError)

PAUSES = 1000
"""Pauses of 5 ms until the counts agree with the sockets, or never do: the kernel of a busy machine
may deliver late."""

ANSWERS = ["whole", "whole", "whole", "part", "closes", "glued"]

KINDS = ["get", "get", "post", "stream", "lease", "client"]


@dataclass(eq=False)
class Op:
    """One request: ``response`` once its head has come, ``over`` when it needs no connection."""

    name: int
    kind: str
    origin: int
    task: asyncio.Task[Any] | None = None
    response: HTTPResponse | None = None
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    may_fail: bool = False
    over: bool = False


class PoolMachine(Machine):
    """The machine. ``client`` and its pool are what is tested."""

    @initialize(
        limit=st.sampled_from([1, 2, 3, 100]),
        per_host=st.sampled_from([1, 2, 100]),
        pipelining=st.sampled_from([1, 1, 1, 3]),
    )
    def start(self, limit: int, per_host: int, pipelining: int) -> None:
        self.limit, self.per_host, self.pipelining = limit, per_host, pipelining
        self.names = itertools.count()
        self.ops: list[Op] = []
        # The requests that each server's connection has read and not answered, and the rest of
        # the answer that it has begun.
        self.unanswered: defaultdict[Connection, list[int]] = defaultdict(list)
        self.rest: dict[Connection, tuple[int, bytes]] = {}
        self.readers: dict[Connection, asyncio.Task[None]] = {}
        self.first: tuple[list[int], list[int]] = ([], [])
        for origin in 0, 1:
            self.start_server(lambda conn, origin=origin: self.script(conn, origin))
        self.client = Client(
            trust_env=False,
            limit=limit,
            limit_per_host=per_host,
            pipelining=pipelining,
            keepalive_timeout=60,
            timeout=Timeout(connect=5, read=5, write=5, pool=5),
        )
        self.pool = self.client.pool
        self.closed = False

    async def script(self, conn: Connection, origin: int) -> None:
        # In a task that can end alone: nothing may read a socket that the machine closes.
        reader = self.readers[conn] = asyncio.ensure_future(self.read_requests(conn, origin))
        try:
            await asyncio.wait([reader])
        finally:
            reader.cancel()
        if reader.cancelled():
            await asyncio.get_running_loop().create_future()
        reader.result()

    async def read_requests(self, conn: Connection, origin: int) -> None:
        while True:
            head, _ = await conn.read_request()
            name = int(head.split()[1][1:])
            self.unanswered[conn].append(name)
            if name not in self.first[origin]:
                self.first[origin].append(name)

    async def shut(self) -> None:
        await self.client.close()
        await turns()
        for op in self.ops:
            op.may_fail = True
            op.leave.set()
            if op.response is not None:
                op.response.close()
            if op.task is not None:
                await asyncio.wait([op.task], timeout=10)
                self.check(op)
        assert self.pool.stats().open == self.pool.stats().queued == 0
        for conn in self.live():
            await self.ended(conn)

    # ---------------------------------------------------------------------------- the model

    def live(self, origin: int | None = None) -> list[Connection]:
        """Return the connections that neither side has ended."""
        servers = self.servers if origin is None else [self.servers[origin]]
        return [
            conn
            for server in servers
            for conn in server.conns
            if not conn.closed and conn.sock.fileno() >= 0
        ]

    @property
    def running(self) -> list[Op]:
        """Return the requests that want or have a connection."""
        return [op for op in self.ops if not op.over]

    def check(self, op: Op) -> None:
        """If the task of *op* has ended, check what came of it."""
        task = op.task
        if task is None or not task.done():
            return
        op.task = None
        if task.cancelled():
            assert op.may_fail
            op.over = True
            return
        exc = task.exception()
        if exc is not None:
            assert isinstance(exc, DOCUMENTED), repr(exc)
            assert op.may_fail, f"request {op.name} failed for nothing: {exc!r}"
            op.over = True
        elif op.kind in ("lease", "client"):
            op.over = True
        else:
            op.response = task.result()

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "client") and not self.closed:
            self.run(self._agrees())

    async def _agrees(self) -> None:
        why = self.disagreement()
        for _ in range(PAUSES):
            if why is None:
                break
            await asyncio.sleep(0.005)
            why = self.disagreement()
        assert why is None, f"{why}; {self.pool!r}; {self.pool.stats()}"
        if self.pipelining == 1:
            for names in self.first:
                assert names == sorted(names), f"not in order: {names}"

    def disagreement(self) -> str | None:
        """Return how the pool and the model differ, None if they agree."""
        for op in self.ops:
            self.check(op)
            if op.response is not None and op.response.ended:
                op.over = True
        stats = self.pool.stats()
        live = [len(self.live(origin)) for origin in (0, 1)]
        # A lease keeps its place when its connection has ended: it may open another.
        leases = sum(op.kind == "lease" for op in self.running)
        if not sum(live) <= stats.open <= sum(live) + leases:
            return f"{live} connections are open"
        assert stats.open <= self.limit
        assert max(live) <= self.per_host
        assert stats.open == stats.idle + stats.leased
        running = self.running
        if self.pipelining == 1 and stats.leased + stats.queued != len(running):
            return f"{len(running)} requests run"
        if not running and (stats.leased or stats.queued):
            return "no request runs"
        for own in stats.origins.values():
            may_open = own.open < self.per_host and (stats.open < self.limit or stats.idle)
            if own.queued and may_open:
                return "a request waits for a connection that is free"
        return None

    # ----------------------------------------------------------------------------- requests

    @precondition(lambda self: not self.closed and len(self.running) < 8)
    @rule(kind=st.sampled_from(KINDS), origin=st.integers(0, 1))
    def request(self, kind: str, origin: int) -> None:
        op = Op(next(self.names), kind, origin)
        self.ops.append(op)
        url = self.servers[origin].url

        async def begin() -> None:
            op.task = asyncio.ensure_future(getattr(self, f"_{kind}")(op, f"{url}{op.name}"))

        self.run(begin())

    async def _get(self, op: Op, url: str) -> HTTPResponse:
        return await self.pool.request("GET", url)

    async def _post(self, op: Op, url: str) -> HTTPResponse:
        return await self.pool.request("POST", url, b"body")

    async def _stream(self, op: Op, url: str) -> HTTPResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"bo"
            await asyncio.sleep(0)
            yield b"dy"

        parts = body()
        try:
            return await self.pool.request("PUT", url, parts)
        finally:
            await parts.aclose()  # type: ignore[attr-defined]

    async def _client(self, op: Op, url: str) -> None:
        response = await self.client.get(url)
        assert response.content == content_of(op.name)

    async def _lease(self, op: Op, url: str) -> None:
        async with self.pool.connection(url) as conn:
            await conn.request("GET", f"/{op.name}")
            response = await conn.getresponse()
            assert await response.read() == content_of(op.name)
            await op.leave.wait()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        op = data.draw(st.sampled_from(self.running))
        op.may_fail = True
        if op.task is not None:
            op.task.cancel()

    @precondition(lambda self: any(op.kind == "lease" for op in self.running))
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        leases = [op for op in self.running if op.kind == "lease"]
        data.draw(st.sampled_from(leases)).leave.set()

    @precondition(lambda self: any(op.response is not None for op in self.ops))
    @rule(data=st.data(), how=st.sampled_from(["read", "read", "part", "close", "drop", "cancel"]))
    def take(self, data: st.DataObject, how: str) -> None:
        op = data.draw(st.sampled_from([op for op in self.ops if op.response is not None]))
        self.run(self._take(op, how))

    async def _take(self, op: Op, how: str) -> None:
        response = op.response
        assert response is not None
        if how == "part":
            assert content_of(op.name).find(await response.read(1)) >= 0
            return
        if how == "cancel":
            task = asyncio.ensure_future(response.read())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and task.exception() is None:
                assert content_of(op.name).endswith(task.result())
            return
        if how == "read":
            if not response.ended:
                return
            try:
                body = await response.read()
            except DOCUMENTED:
                assert op.may_fail
            else:
                assert response.complete
                assert content_of(op.name).endswith(body)
        elif how == "close":
            response.close()
        op.response, op.over = None, True

    # -------------------------------------------------------------------------- the servers

    @precondition(lambda self: any(self.asked()))
    @rule(data=st.data(), how=st.sampled_from(ANSWERS))
    def answer(self, data: st.DataObject, how: str) -> None:
        conn = data.draw(st.sampled_from(self.asked()))
        self.run(self._answer(conn, how))

    def asked(self) -> list[Connection]:
        """Return the connections whose server owes an answer, and has begun none."""
        return [conn for conn in self.live() if self.unanswered[conn] and conn not in self.rest]

    async def _answer(self, conn: Connection, how: str) -> None:
        name = self.unanswered[conn].pop(0)
        content = content_of(name)
        closing = b"Connection: close\r\n" if how == "closes" else b""
        wire = b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (closing, len(content))
        wire += content
        if how == "part":
            self.rest[conn] = name, wire[-3:]
            wire = wire[:-3]
        if how in ("closes", "glued"):
            # What was sent behind it is not answered on this connection: it may be sent again, or
            # fail, or get the bytes that nothing asked for.
            self.touch(conn)
            if how == "glued" and not self.unanswered[conn]:
                wire += b"stray"
        await self.tell(conn, wire)

    async def tell(self, conn: Connection, wire: bytes) -> None:
        """Send *wire*, unless the client leaves at this moment."""
        try:
            await conn.send(wire)
        except ConnectionError:
            return
        await conn.let_client_read()

    @precondition(lambda self: self.rest)
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        conn = data.draw(st.sampled_from(list(self.rest)))
        _, wire = self.rest.pop(conn)
        if conn in self.live():
            self.run(self.tell(conn, wire))

    @precondition(lambda self: self.live())
    @rule(data=st.data(), how=st.sampled_from(["close", "reset", "stray"]))
    def end(self, data: st.DataObject, how: str) -> None:
        conn = data.draw(st.sampled_from(self.live()))
        if how == "stray" and (self.unanswered[conn] or conn in self.rest):
            return
        self.touch(conn)
        self.run(self._end(conn, how))

    async def _end(self, conn: Connection, how: str) -> None:
        if how == "stray":
            await self.tell(conn, b"stray")
        elif how == "close":
            await conn.close()
        else:
            self.readers[conn].cancel()
            await asyncio.wait([self.readers[conn]])
            await conn.reset()

    def touch(self, conn: Connection) -> None:
        """The requests on *conn*, and those that may just go there, may fail."""
        names = {*self.unanswered[conn], *([self.rest[conn][0]] if conn in self.rest else ())}
        for op in self.ops:
            if op.name in names or (op.kind == "lease" and not op.over):
                op.may_fail = True

    # ---------------------------------------------------------------------------------- time

    @rule()
    def requests_expire(self) -> None:
        for op in self.running:
            op.may_fail = True
        self.clock.advance(6)

    @rule()
    def idle_connections_expire(self) -> None:
        for op in self.running:
            op.may_fail = True
        self.clock.advance(61)
        self.run(turns())
        if not self.closed:
            assert self.pool.stats().idle == 0

    @precondition(lambda self: not self.closed)
    @rule()
    def close(self) -> None:
        for op in self.ops:
            op.may_fail = True
        self.run(self.client.close())
        self.closed = True
        with pytest.raises(PoolClosed):
            self.run(self.client.get(self.servers[0].url))
        stats = self.pool.stats()
        assert (stats.open, stats.queued) == (0, 0)


def content_of(name: int) -> bytes:
    """Return the body of the response to request *name*."""
    return b"%d." % name * 5


@pytest.mark.parametrize("loop", LOOPS)
def test_a_pool_is_what_its_model_is(loop):
    run_machine(PoolMachine, loop, examples=25, steps=30)


@pytest.mark.siege
@pytest.mark.parametrize("loop", LOOPS)
def test_a_pool_is_what_its_model_is_for_long(loop):
    run_machine(PoolMachine, loop, examples=300, steps=50)
