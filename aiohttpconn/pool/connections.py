"""ConnectionManager: makes, checks, keeps and closes the connections of a pool.

The scheduler decides which request gets one. There are no tasks: a connection is made by the task
that wants it, its transport reports its end while it is idle, and one timer closes connections
that have been idle for too long. Layer: pool.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from ..ends import CLOSE_SECONDS
from ..exceptions import (
    ConnectError,
    ConnectTimeout,
    PoolClosed,
    RemoteDisconnected,
    cut_url,
    describe,
    redact,
)
from ..net.loops import has_ended
from ..opening import Opening
from ..protocol import CLOSED
from ..types import Unset
from .closing import ClosingSockets
from .keepalive import StaleCheck, apply_keep_alive
from .rate_limit import RateLimiter, retry_after
from .routes import name_proxy
from .scheduler import OriginPool, PooledConnection, Scheduler
from .wait_queue import WaitQueue

if TYPE_CHECKING:
    from ..connection import HTTPConnection
    from ..net.destination import Destination, DialReport
    from ..net.timeouts import Timeout
    from ..response import HTTPResponse
    from .routes import ConnectionFactory, Route

__all__ = ["ConnectionManager"]

MAX_RETRY_AFTER = 3600.0
"""The most seconds for which a server's Retry-After pauses its origin."""


def _most(value: float | None) -> float:
    """Return a limit as a number: ``inf`` for None."""
    return inf if value is None else value


class LeaseOwner:
    """The owner of leased connections (``source.Owner``).

    It applies what responses say about later exchanges, and leaves the connection to its user.
    """

    __slots__ = ("_manager",)

    def __init__(self, manager: ConnectionManager) -> None:
        self._manager = manager

    def exchange_ended(
        self, connection: PooledConnection, response: HTTPResponse, count: int = 1
    ) -> None:
        """Apply the Keep-Alive and Retry-After of *response*."""
        self._manager.apply_keep_alive(connection, response, count)
        if self._manager.respects_retry_after:
            self._manager.pause_on_retry_after(connection.origin_pool, response)

    def last_exchange_ended(self, connection: PooledConnection, response: HTTPResponse) -> None:
        """Apply the Retry-After of *response*."""
        if self._manager.respects_retry_after:
            self._manager.pause_on_retry_after(connection.origin_pool, response)

    def connection_ended(self, connection: PooledConnection) -> None:
        """Hand *connection* over to the closing sockets."""
        self._manager.closing.add(connection)

    def transport_lost(self, connection: PooledConnection) -> None:
        """Do nothing: ``connection_ended`` came before."""


class ConnectionManager:
    """The implementation of ``ConnectionPool``, which documents the arguments.

    It is the scheduler's delegate, and belongs to the event loop in which it is first used.
    """

    def __init__(
        self,
        *,
        limit: int | None,
        limit_per_host: int | Unset | None,
        keepalive_timeout: float,
        max_idle: int | None,
        max_requests: int | None,
        max_age: float | None,
        pipelining: int,
        min_interval: float | None,
        rate: str | None,
        respect_retry_after: bool,
        factory: ConnectionFactory,
    ) -> None:
        # Configuration
        RateLimiter(min_interval, rate)  # raises here, and not at the first request
        idle = _most(max_idle)
        shared_out = isinstance(limit_per_host, Unset)
        per_host = None if isinstance(limit_per_host, Unset) else limit_per_host
        self._keepalive_timeout = _most(keepalive_timeout)
        self.scheduler = Scheduler(
            self,
            _most(limit),
            _most(per_host),
            # A timer would close connections too late that are kept for no time at all.
            idle if self._keepalive_timeout else 0,
            shared_out=shared_out,
        )
        self.closed = False
        # What errors call it: the client, if it is a client's.
        self.noun = "pool"
        self._max_requests = _most(max_requests)
        self._ages = max_age is not None
        self._check = StaleCheck(_most(max_age))
        self.is_stale = self._check.is_stale
        self._pipelining = pipelining
        self._min_interval = min_interval
        self._rate = rate
        self.respects_retry_after = respect_retry_after
        self.factory = factory

        # Per loop
        self.loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.closing = ClosingSockets()
        self._queue = WaitQueue(self.scheduler, self.bind, self.release)
        self.acquire = self._queue.acquire
        self._lease_owner = LeaseOwner(self)
        self._leases: dict[PooledConnection, HTTPConnection] = {}

    def __repr__(self) -> str:
        scheduler = self.scheduler
        counts = f"{scheduler.connection_count} open, {len(scheduler.idle)} idle"
        return f"{'closed' if self.closed else counts}, {scheduler.queued} queued"

    # -------------------------------------------------------------------------- origins

    def origin(self, route: Route) -> OriginPool:
        """Return the origin pool of *route*, made on first use."""
        origin = self.scheduler.origins.get(route)
        if origin is None:
            origin = self.scheduler.add_origin(route)
            origin.pipelining = self._pipelining
            origin.url = route.origin
            origin.authority = route.authority
            origin.dial = self.factory.dialer()
            if self._min_interval is not None or self._rate is not None:
                origin.rate_limit = RateLimiter(self._min_interval, self._rate)
            if route.forward and route.proxy is not None:
                origin.prefix = origin.url
                if authorization := route.proxy.authorization:
                    origin.proxy_authorization = f"Proxy-Authorization: {authorization}\r\n"
        return origin

    def bind(self, method: str = "", url: str = "") -> asyncio.AbstractEventLoop:
        """Bind the pool to the running loop; return the loop.

        *method* and *url*, of the request that wants it, are for the errors. Raises
        ``RuntimeError`` if the pool belongs to another one, and ``PoolClosed``. If that other loop
        was closed, the pool forgets the connections that it had there.
        """
        loop = asyncio.get_running_loop()
        if self.closed:
            closed = PoolClosed(f"the {self.noun} is closed")
            phase = "waiting for a connection"
            raise describe(closed, method=method, url=url, phase=phase) if url else closed
        if self.loop is not loop:
            if self.loop is not None:
                if not has_ended(self.loop):
                    where = f"{method} {cut_url(redact(url))}: " if url else ""
                    raise RuntimeError(
                        f"{where}this {self.noun} belongs to another event loop: make one for each"
                    )
                self._forget_loop()
            self.loop = loop
        return loop

    # -------------------------------------------------------------------------- getting

    async def connected(
        self,
        origin: OriginPool,
        timeout: Timeout,
        deadline: float | None,
        method: str,
        target: str,
        *,
        fresh: bool = False,
    ) -> tuple[PooledConnection, DialReport | None]:
        """Return an open connection of *origin*, and the report of its connect if it is new.

        No other request uses it. *fresh* makes a new one. Raises the errors of ``acquire`` and
        ``open``. ``requests.exchange`` does the same, flat.
        """
        lost = False
        while True:
            connection = origin.acquire_nowait()
            if connection is None:
                connection = await self.acquire(origin, timeout, deadline, method, target)
            try:
                if connection.transport is not None:
                    if fresh:
                        connection = self.reset(connection)
                    elif self.is_stale(connection):
                        connection = self.replace(connection)
                dialed = None
                if connection.transport is None:
                    dialed = await self.open(connection, timeout, deadline, method, target, lost)
            except BaseException:
                self.give_up(connection)
                raise
            if connection.state is not CLOSED:
                return connection, dialed
            lost = True

    def new_connection(self, origin: OriginPool) -> PooledConnection:
        """Return a new connection of *origin*, not connected yet."""
        assert self.loop is not None, "the pool is bound to a loop"
        return PooledConnection(self.loop, origin, **self.factory.protocol_options)

    async def open(
        self,
        connection: PooledConnection,
        timeout: Timeout,
        deadline: float | None,
        method: str,
        target: str,
        lost: bool,
    ) -> DialReport:
        """Connect *connection*, which the caller has; return the report of the connect.

        If that fails or is cancelled, the caller gives the connection up. Raises the errors of
        ``HTTPConnection.connect``. If the server has closed the connection by then, it is CLOSED
        and removed, and the caller takes another: nothing was sent, so that any request may go
        there. Only if it has *lost* one before is that an error, ``RemoteDisconnected``.
        """
        origin = connection.origin_pool
        route: Route = origin.key
        opening = connection.opening = Opening(method, f"{origin.prefix}{target}", origin.url)
        try:
            loop = self.bind(method, f"{origin.url}{target}")  # the pool may be closed by now
            self._make_room(origin)
            await opening.open(
                origin.dial,
                lambda: connection,
                lambda: self._destination(origin),
                timeout,
                deadline,
            )
            if connection.state is CLOSED and lost:
                raise describe(
                    RemoteDisconnected("the server closed the connection before the request"),
                    method=method,
                    url=f"{origin.url}{target}",
                    phase="connected",
                )
        except (ConnectError, ConnectTimeout) as exc:
            name_proxy(exc, route)
            raise
        finally:
            connection.opening = None
        if connection.state is CLOSED:
            self._drop(connection)
            return opening.report
        connection.report = opening.report
        connection.connected_at = monotonic()
        connection.exchanges_left = self._max_requests
        connection.keepalive = self._keepalive_timeout
        if self._timer is None and 0 < self._keepalive_timeout < inf:
            self._timer = loop.call_later(self._keepalive_timeout, self._expire)
        return opening.report

    def _make_room(self, origin: OriginPool) -> None:
        """Abort closing sockets, so that they and the connections are within the limits."""
        scheduler = self.scheduler
        self.closing.make_room(
            scheduler.limit - scheduler.connection_count,
            origin,
            scheduler.limit_per_host - origin.connection_count,
        )

    async def _destination(self, origin: OriginPool) -> Destination:
        if origin.destination is None:
            origin.destination = await self.factory.destination(origin.key)
        return origin.destination

    # -------------------------------------------------------------------------- leasing

    def take_over(self, connection: PooledConnection) -> None:
        """Leave *connection*, which is open, to one user alone, until ``release``."""
        connection.owner = self._lease_owner
        connection.batch_writes(False)

    def lease(self, connection: PooledConnection, timeout: Timeout) -> HTTPConnection:
        """Return an ``HTTPConnection`` on *connection*, until ``end_lease``."""
        try:
            self.take_over(connection)
            conn = self._leases[connection] = self.factory.lease(connection, timeout)
        except BaseException:
            self.give_up(connection)
            raise
        return conn

    def end_lease(self, connection: PooledConnection) -> None:
        """Release *connection*, with which the lease's user may have done anything."""
        conn = self._leases.pop(connection, None)
        kept = None
        try:
            kept, left = conn.hand_over() if conn is not None else (None, [])
            for protocol in left:
                self.closing.add(protocol)
            if kept is not connection and kept is not None:
                # The user has opened another one, which may lead anywhere.
                self.closing.add(kept)
                kept.close()
        except BaseException:
            self.give_up(connection)
            raise
        if kept is connection:
            self.release(connection)
        else:
            self.give_up(connection)

    def release(self, connection: PooledConnection) -> None:
        """Release *connection* from its request or lease.

        It serves other requests if it may. If a response is still being received, that is decided
        at its last byte.
        """
        if connection.removed:
            return
        if connection.state is CLOSED or connection.transport is None:
            self._drop(connection)
            return
        try:
            connection.owner = connection.origin_pool
            if connection.in_flight > 1:
                connection.in_flight -= 1
                self.scheduler.share(connection)
            elif connection.reusable():
                self._keep(connection)
        except BaseException:
            self._abort(connection)
            raise

    def give_up(self, connection: PooledConnection) -> None:
        """End *connection*, the caller's, whose request has failed before its exchange began.

        Whatever failed, and wherever: its place is free, and others that share it keep it.
        """
        if connection.in_flight > 1:
            self.release(connection)
        else:
            self._abort(connection)

    def _abort(self, connection: PooledConnection) -> None:
        try:
            connection.abort()
        finally:
            self._drop(connection)

    # -------------------------------------------------------------------------- keeping

    def share(self, connection: PooledConnection) -> None:
        """Let requests share *connection* from now on."""
        connection.batch_writes(True)
        self.scheduler.share(connection)

    def replace(self, connection: PooledConnection) -> PooledConnection:
        """Close *connection*, which is stale and the caller's; return another one.

        That is an idle one that is not stale, or a new one. The caller does not queue again for
        it, nor does a rate limit count it twice.
        """
        while (other := connection.origin_pool.acquire_idle_nowait()) is not None:
            other.in_flight = connection.in_flight
            try:
                self.close(connection)
                stale = self.is_stale(other)
            except BaseException:
                self.give_up(other)
                raise
            connection = other
            if not stale:
                return connection
        try:
            return self.reset(connection)
        except BaseException:
            self.give_up(connection)
            raise

    def reset(self, connection: PooledConnection) -> PooledConnection:
        """Close *connection*, the caller's; return a new one in its place, not connected yet."""
        self.close_socket(connection)
        return self.scheduler.replace(connection)

    def close(self, connection: PooledConnection) -> None:
        """Close *connection*, the caller's; another request may have a new one instead."""
        try:
            self.close_socket(connection)
        finally:
            self.scheduler.remove(connection)

    def close_socket(self, connection: PooledConnection) -> None:
        """Close *connection*, and hand it over to the closing sockets."""
        self.closing.add(connection)
        connection.close()

    def _drop(self, connection: PooledConnection) -> None:
        """Remove *connection*, which has ended or could not be made."""
        self.closing.add(connection)
        self.scheduler.remove(connection)
        self.closing.connect_ended(connection)

    def connection_ended(self, connection: PooledConnection) -> None:
        """Remove *connection*; stop pipelining if it left too many requests unanswered."""
        self.closing.add(connection)
        origin = connection.origin_pool
        answered = connection.exchanges - connection.in_flight
        if connection.closed_by_peer and connection.in_flight > 1 and answered < origin.pipelining:
            # It left more unanswered than pipelining gains: RFC 9112 §9.3.2 allows a server to
            # end a connection at any time, and some do so after each response.
            origin.pipelining = 1
            origin.shareable.clear()
        self.scheduler.remove(connection)

    def exchange_ended(
        self, connection: PooledConnection, response: HTTPResponse, count: int
    ) -> None:
        """Let *connection* serve more requests, or become idle, after *count* exchanges."""
        self.apply_keep_alive(connection, response, count)
        if connection.in_flight > count:
            connection.in_flight -= count
            connection.idle_since = monotonic()  # it may be idle when its next request runs
            if self._ages and self._check.is_old(connection):
                connection.origin_pool.shareable.pop(connection, None)  # let it run empty
            else:
                self.scheduler.share(connection)
        else:
            self._keep(connection)

    def _keep(self, connection: PooledConnection) -> None:
        """Let *connection*, which is idle, serve others; close it if it may not."""
        if connection.exchanges_left <= 0 or (self._ages and self._check.is_old(connection)):
            self.close(connection)
        else:
            self.scheduler.release(connection)

    def apply_keep_alive(
        self, connection: PooledConnection, response: HTTPResponse, count: int
    ) -> None:
        """Apply the Keep-Alive limits in *response*, the last of *count*, to *connection*."""
        apply_keep_alive(connection, response, count)
        if response.number == count:
            connection.fast_release = (
                connection.origin_pool.pipelining == 1
                and connection.in_flight <= count
                and connection.exchanges_left == inf
                and not self._ages
            )

    def pause_on_retry_after(self, origin: OriginPool, response: HTTPResponse) -> None:
        """Let no request begin at *origin* for as long as *response* says (RFC 9110 §10.2.3).

        Called for each response whose head has arrived, if ``respects_retry_after``.
        """
        if response.status not in (429, 503):
            return
        seconds = retry_after(response.getheader("Retry-After"))
        if seconds is not None:
            if origin.rate_limit is None:
                origin.rate_limit = RateLimiter()
            origin.rate_limit.pause(monotonic() + min(seconds, MAX_RETRY_AFTER))

    def defer_eviction(self, connection: PooledConnection) -> None:
        """Evict *connection* a moment later, if it is still idle then."""
        if self.loop is not None:
            # After the task that is woken now.
            evict, since = self.scheduler.evict, connection.idle_since
            self.loop.call_soon(self.loop.call_soon, evict, connection, since)

    def wake_later(self, origin: OriginPool, delay: float) -> None:
        """Serve the requests that wait in *origin* in *delay* seconds."""
        if origin.wake_timer is None and self.loop is not None:
            origin.wake_timer = self.loop.call_later(delay, self._wake, origin)

    def _wake(self, origin: OriginPool) -> None:
        origin.wake_timer = None
        self.scheduler.serve(origin)

    def _expire(self) -> None:
        """Close the connections that have been idle for too long. Called by the timer."""
        self._timer = None
        scheduler = self.scheduler
        left = self._keepalive_timeout
        try:
            while scheduler.idle:
                oldest = next(iter(scheduler.idle))
                left = oldest.idle_since + self._keepalive_timeout - monotonic()
                if left > 0:
                    break
                left = self._keepalive_timeout
                scheduler.close_idle(oldest)
        finally:
            if scheduler.connection_count and self.loop is not None:
                # A little later: a timer may fire early by the clock's resolution.
                self._timer = self.loop.call_later(left + 0.01, self._expire)

    # -------------------------------------------------------------------------- closing

    def close_nowait(self) -> None:
        """Close everything, without waiting. Requests that wait or are on their way fail."""
        self.closed = True
        if self.loop is None:
            return
        if has_ended(self.loop):
            self._forget_loop()
            return
        self._stop_timers()
        self._queue.close(self.noun)
        self.closing.abort_open()
        for connection in list(self.scheduler.connections):
            self._close_at_shutdown(connection)

    def _close_at_shutdown(self, connection: PooledConnection) -> None:
        """Close *connection*, gracefully if it is idle."""
        if connection.opening is not None:
            # The task that connects has to run first: it removes the connection.
            self.closing.add_connect(connection)
            connection.opening.close()
            return
        idle = connection in self.scheduler.idle
        self.closing.add(connection)
        self.scheduler.remove(connection)
        conn = self._leases.get(connection)
        if conn is not None:
            # Also ends a connect that its user has begun.
            kept, left = conn.hand_over()
            for protocol in left if kept in (None, connection) else [*left, kept]:
                self.closing.add(protocol)
                protocol.close()
        if idle:
            connection.close()
        else:
            connection.abort()

    async def wait_closed(self) -> None:
        """Wait until all sockets have closed; abort them after ``CLOSE_SECONDS``."""
        if asyncio.get_running_loop() is self.loop:
            await self.closing.wait(CLOSE_SECONDS)
            self.closing.abort()
            await self.closing.wait(CLOSE_SECONDS)

    def _stop_timers(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for origin in self.scheduler.origins.values():
            if origin.wake_timer is not None:
                origin.wake_timer.cancel()
                origin.wake_timer = None

    def _forget_loop(self) -> None:
        """Forget all that belongs to a loop that was closed: it calls nothing back any more."""
        self._timer = None
        self.closing = ClosingSockets()
        self._queue.forget()
        for conn in self._leases.values():
            _, left = conn.hand_over()
            for protocol in left:
                with suppress(RuntimeError):
                    protocol.abort()
        self._leases.clear()
        for origin in self.scheduler.origins.values():
            origin.wake_timer = None
        for connection in list(self.scheduler.connections):
            connection.owner = None
            with suppress(RuntimeError):  # a task that waits there cannot be woken
                connection.abort()
            self.scheduler.remove(connection)
