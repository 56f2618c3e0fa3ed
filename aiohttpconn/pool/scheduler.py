"""Scheduler: which request gets the next connection, within the limits of the pool.

A *pooled connection* is one of the ``limit`` connections that a pool may have, or the right to
make one. It is always in one of these states, and every change is made in synchronous code, so
that none is ever lost:

    idle      in ``origin.idle`` and ``scheduler.idle``: connected, and free
    taken     in use by a request, which releases it (``release``) or reports its end (``remove``)
    removed   it has ended, and counts no more

An *origin pool* is the state of one route to one origin. A request that needs a connection and
gets none waits in the queue of its origin. Three things hold whenever no method here is running:

- an origin has no idle connection while a request waits in its queue and may begin;
- no origin has an idle connection while another waits for a connection of the pool: the idle one
  is closed for it. If its origin has no more connections than the other, that happens a moment
  later (``defer_eviction``), so that a program that makes one request after the other does not
  lose its connection between them;
- origins that wait for a connection of the pool are in ``waiting_origins``, and get theirs in
  that order.

The last places of the pool are its *reserve*, for origins with few connections: see ``reserved``.
An origin that has more, and could take only from the reserve, waits in ``crowded``. It has
connections, which go on to serve its requests, and while it waits for more of them, idle
connections to other origins and the free places of the reserve stay as they are.

A connection that is released while others wait may stay with its origin, whose next request then
needs no handshake, but not at the others' expense: see ``_must_yield``. Every method costs the
same however many connections, origins and waiters there are. No I/O, no event loop: a waiter is
anything that has ``set_result``. Layer: pool.
"""

from __future__ import annotations

from collections import OrderedDict
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from ..pipelining import PipeliningProtocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Hashable

    from ..net.destination import Destination, DialReport
    from ..opening import Opening
    from .rate_limit import RateLimiter

__all__ = ["OriginPool", "PooledConnection", "Scheduler", "reserved"]

STREAK = 8
"""Requests that each of an origin's connections serves until one goes to an origin with one less.

Without it, origins that cannot all have the same number of connections would pass one to and fro
at each request.
"""

MAX_UNUSED = 1024
"""Origins without a connection that are remembered, for the address that worked and for pauses."""

RESERVE = 8
"""The part of all places, one in so many, that one origin leaves to others."""


def reserved(places: float) -> tuple[int, float]:
    """Return how many of so many *places* are in reserve, and how many make an origin large.

    One origin may take all but the reserve, so that the next one finds a place. One with fewer
    than the second number, a quarter of the reserve, may also take from the reserve: a single one
    of the others is not to empty it either. With one place, or any number, there is no reserve.
    """
    if not 1 < places < inf:
        return 0, inf
    reserve = max(1, int(places) // RESERVE)
    return reserve, max(1, reserve // 4)


class Waiter(Protocol):
    """A request that waits for a connection: a future."""

    def set_result(self, connection: Any, /) -> None: ...
    def set_exception(self, exc: BaseException, /) -> None: ...


class SchedulerDelegate(Protocol):
    """The side of the pool that has sockets and timers, as the scheduler calls it."""

    def new_connection(self, origin: OriginPool) -> Any:
        """Return a ``PooledConnection`` of *origin*, not connected yet."""

    def close_socket(self, connection: Any) -> None:
        """Close *connection*, which the scheduler does not count any more."""

    def defer_eviction(self, connection: Any) -> None:
        """Call ``evict(connection, connection.idle_since)`` after its last user has run."""

    def wake_later(self, origin: OriginPool, delay: float) -> None:
        """Call ``serve(origin)`` in *delay* seconds: no request may begin there before."""

    def exchange_ended(self, connection: Any, response: Any, count: int) -> None:
        """Handle the end of *count* exchanges on *connection*, if it does not just become idle."""

    def connection_ended(self, connection: Any) -> None:
        """Remove *connection*, which has ended: call ``remove``."""


class PooledConnection(PipeliningProtocol):
    """A connection of the pool: the protocol itself, with the scheduler's state of it.

    It is made before it is connected: until then it is the right to make a connection, and its
    ``transport`` is None. It never connects twice.
    """

    __slots__ = (
        "connected_at",
        "exchanges_left",
        "fast_release",
        "idle_since",
        "in_flight",
        "keepalive",
        "opening",
        "origin_pool",
        "removed",
        "report",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, origin_pool: OriginPool, **options: Any
    ) -> None:
        PipeliningProtocol.__init__(self, loop, origin_pool.url, **options)
        self.owner = self.origin_pool = origin_pool
        # The connect while it is under way, and its report afterwards.
        self.opening: Opening | None = None
        self.report: DialReport | None = None
        self.connected_at = 0.0
        self.idle_since = 0.0
        # Seconds for which it may be idle, less if the server says so.
        self.keepalive = inf
        # Exchanges that it may still serve, those on their way included.
        self.exchanges_left = inf
        # Whether it becomes idle after an exchange without further decisions. Not after its first
        # one, whose response says how long the server keeps the connection.
        self.fast_release = False
        # Exchanges on their way, if the connection is shared.
        self.in_flight = 0
        self.removed = False


class OriginPool:
    """One route to one origin: its connections, and the requests that wait for one.

    ``key`` tells origins apart. It is the ``source.Owner`` of its connections.
    """

    __slots__ = (
        "asked_at",
        "authority",
        "connection_count",
        "destination",
        "dial",
        "evicted",
        "idle",
        "key",
        "pipelining",
        "prefix",
        "proxy_authorization",
        "rate_limit",
        "reuse_streak",
        "scheduler",
        "shareable",
        "url",
        "waiters",
        "wake_timer",
    )

    def __init__(self, key: Any, scheduler: Scheduler) -> None:
        self.key = key
        self.scheduler = scheduler
        self.connection_count = 0
        # The last one in is the first one out, as it is the least likely to be stale.
        self.idle: dict[PooledConnection, None] = {}
        # The waiters in the order in which they came; whether each wants a connection for itself.
        self.waiters: OrderedDict[Waiter, bool] = OrderedDict()
        # Shared connections that take one more exchange; the last one gets it. Not a dict: finding
        # its last item takes longer the more items were removed after it.
        self.shareable: OrderedDict[PooledConnection, None] = OrderedDict()
        # The most exchanges that may share a connection.
        self.pipelining = 1
        # Requests that its connections went on to serve since it got one in its turn.
        self.reuse_streak = 0
        # The limit on when requests may begin, if any, when it was asked last, and the timer that
        # wakes waiters then.
        self.rate_limit: RateLimiter | None = None
        self.asked_at = 0.0
        self.wake_timer: Any = None
        # Whether the scheduler has forgotten it: a caller that still holds it asks for another.
        self.evicted = False
        # Set by the pool: how connections are made; the origin as the beginning of a URL, and as
        # the Host field's value; the text before each target and the Proxy-Authorization line, if
        # a proxy is sent whole URLs.
        self.dial: Any = None
        self.destination: Destination | None = None
        self.url = ""
        self.authority = ""
        self.prefix = ""
        self.proxy_authorization = ""

    # ------------------------------------------------------------- owner of connections

    def exchange_ended(self, connection: PooledConnection, response: Any, count: int = 1) -> None:
        """Make *connection* idle, or leave it to the delegate. Hot: see docs/topics/design.md."""
        scheduler = self.scheduler
        if (
            connection.fast_release
            and not self.waiters
            and not scheduler.waiting_origins
            and not scheduler.crowded
            and len(scheduler.idle) < scheduler.max_idle
        ):
            connection.idle_since = monotonic()
            self.idle[connection] = scheduler.idle[connection] = None
        else:
            scheduler.delegate.exchange_ended(connection, response, count)

    def last_exchange_ended(self, connection: PooledConnection, response: Any) -> None:
        """Do nothing: ``connection_ended`` follows."""

    def connection_ended(self, connection: PooledConnection) -> None:
        """Tell the delegate, unless the scheduler has removed *connection* itself."""
        if not connection.removed:
            self.scheduler.delegate.connection_ended(connection)

    def transport_lost(self, connection: PooledConnection) -> None:
        """Do nothing: ``connection_ended`` came before."""

    # ------------------------------------------------------------------------ acquiring

    def acquire_nowait(self) -> PooledConnection | None:
        """Return an idle connection or a new one; None if there is none, or requests wait for it.

        Hot: see docs/topics/design.md. An idle one may be stale: the caller has to check.
        """
        if self.rate_limit is None:
            idle = self.idle
            if idle:
                connection, _ = idle.popitem()
                del self.scheduler.idle[connection]
                return connection
            if self.waiters:
                return None
            return self.scheduler.new(self)
        return self._acquire_limited()

    def _acquire_limited(self) -> PooledConnection | None:
        limit = self.rate_limit
        assert limit is not None, "an origin with a rate limit"
        now = monotonic()
        if self.waiters or limit.delay(now) > 0:
            return None
        connection = self.idle_or_new()
        if connection is not None:
            limit.begin(now)
        return connection

    def idle_or_new(self) -> PooledConnection | None:
        """Return an idle or new connection, even if requests wait; None beyond the limits."""
        return self.acquire_idle_nowait() or self.scheduler.new(self)

    def acquire_idle_nowait(self) -> PooledConnection | None:
        """Return the idle connection that was used last, even if requests wait, or None."""
        if not self.idle:
            return None
        connection, _ = self.idle.popitem()
        del self.scheduler.idle[connection]
        return connection

    def acquire_shared_nowait(self) -> PooledConnection | None:
        """Return a connection to share with others; None in the cases of ``acquire_nowait``.

        Hot: see docs/topics/design.md.
        """
        if self.waiters:
            return None
        if self.rate_limit is None:
            # Deep before wide: exchanges that share a connection share its writes and reads.
            shareable = self.shareable
            if shareable:
                connection = next(reversed(shareable))
                connection.in_flight = depth = connection.in_flight + 1
                if depth >= self.pipelining or depth >= connection.exchanges_left:
                    del shareable[connection]
                return connection
            now = 0.0
        else:
            now = monotonic()
            if self.rate_limit.delay(now) > 0:
                return None
        found = self.shared_or_idle_or_new()
        if found is not None and self.rate_limit is not None:
            self.rate_limit.begin(now)
        return found

    def shared_or_idle_or_new(self) -> PooledConnection | None:
        """Return a connection to share with others, even if requests wait, or None."""
        if self.shareable:
            connection = next(reversed(self.shareable))
            connection.in_flight = depth = connection.in_flight + 1
            if depth >= self.pipelining or depth >= connection.exchanges_left:
                del self.shareable[connection]
            return connection
        found = self.idle_or_new()
        if found is not None:
            found.in_flight = 1
        return found


class Scheduler:
    """The connections of a pool, and the order in which requests get them.

    *limit*: connections in all, *limit_per_host*: of one origin, *max_idle*: idle ones. All may
    be ``inf``. *shared_out*: origins share *limit* as ``reserved`` says, not by *limit_per_host*.
    """

    def __init__(
        self,
        delegate: SchedulerDelegate,
        limit: float,
        limit_per_host: float = inf,
        max_idle: float = inf,
        *,
        shared_out: bool = False,
    ) -> None:
        self.delegate = delegate
        self.limit = limit
        self.max_idle = max_idle
        # Free places, or idle connections, that a large origin leaves to others; and the number of
        # connections that makes it large.
        self.reserve, self.large = reserved(limit) if shared_out else (0, inf)
        self.limit_per_host = limit - self.reserve if shared_out else limit_per_host
        self.connection_count = 0
        # Requests that wait for a connection.
        self.queued = 0
        # All connections that are not removed.
        self.connections: set[PooledConnection] = set()
        # The oldest first: it is closed when a connection is needed.
        self.idle: OrderedDict[PooledConnection, None] = OrderedDict()
        # Origins that wait for a connection of the pool: those that may have any that gets free,
        # and large ones, which leave the reserve to others.
        self.waiting_origins: OrderedDict[OriginPool, None] = OrderedDict()
        self.crowded: OrderedDict[OriginPool, None] = OrderedDict()
        self.origins: dict[Hashable, OriginPool] = {}
        self._unused: OrderedDict[OriginPool, None] = OrderedDict()

    # -------------------------------------------------------------------------- origins

    def add_origin(self, key: Hashable) -> OriginPool:
        """Return a new origin pool; forget the one that was unused for the longest time."""
        origin = self.origins[key] = OriginPool(key, self)
        self._mark_unused(origin)
        return origin

    def _mark_used(self, origin: OriginPool) -> None:
        """Count *origin* as used: it gets a connection, or a request waits for one."""
        self._unused.pop(origin, None)
        if origin.evicted and self.origins.setdefault(origin.key, origin) is origin:
            # Forgotten between two requests of a caller that has kept it.
            origin.evicted = False

    def _mark_unused(self, origin: OriginPool) -> None:
        """Count *origin* as unused: it has no connection, and no request waits for one."""
        if origin.evicted:
            return
        self._unused[origin] = None
        # Two at most: one in exchange for *origin*, and one that could not be forgotten earlier.
        for _ in range(2):
            if len(self._unused) <= MAX_UNUSED:
                break
            oldest, _ = self._unused.popitem(last=False)
            if oldest.rate_limit is not None and oldest.rate_limit.delay(monotonic()) > 0:
                # Keep it while requests may not begin: a new origin pool would let them begin.
                self._unused[oldest] = None
            else:
                oldest.evicted = True
                del self.origins[oldest.key]

    # ---------------------------------------------------------------------- connections

    def new(self, origin: OriginPool) -> PooledConnection | None:
        """Return a new connection of *origin* if the limits allow it; an idle one may close for it.

        It is not connected yet.
        """
        if origin.connection_count >= self.limit_per_host:
            return None
        # A connection that is idle while others wait is about to be evicted: it is not for a
        # request that comes after them.
        if self.connection_count >= self.limit and (not self.idle or self.waiting_origins):
            return None
        if origin.connection_count >= self.large and (self.crowded or self._free() <= self.reserve):
            return None
        return self._make(origin)

    def _free(self) -> float:
        """Return how many connections could be made: places, and idle ones that may close."""
        return self.limit - self.connection_count + len(self.idle)

    def _make(self, origin: OriginPool) -> PooledConnection:
        """Return a new connection of *origin*, which may have one more; an idle one may close."""
        # Before anything is counted: it may fail.
        connection: PooledConnection = self.delegate.new_connection(origin)
        if not origin.connection_count:
            # Do this first: closing a connection may leave an origin unused, and then *origin*
            # would be forgotten for it.
            self._mark_used(origin)
            origin.reuse_streak = 0
        if self.connection_count >= self.limit:
            # Nobody else is served now: *origin* gets the place.
            self._close(next(iter(self.idle)))
        origin.connection_count += 1
        self.connection_count += 1
        self.connections.add(connection)
        return connection

    def replace(self, connection: PooledConnection) -> PooledConnection:
        """Return a new connection in place of *connection*, which is taken and closed."""
        origin = connection.origin_pool
        made: PooledConnection = self.delegate.new_connection(origin)
        made.in_flight = connection.in_flight
        origin.shareable.pop(connection, None)
        connection.removed = True
        self.connections.discard(connection)
        self.connections.add(made)
        return made

    def release(self, connection: PooledConnection) -> None:
        """Release *connection*, which is reusable, to a waiting request or to the idle ones."""
        origin = connection.origin_pool
        connection.idle_since = monotonic()
        origin.shareable.pop(connection, None)
        connection.in_flight = 0
        wanted = bool(origin.waiters) and self._may_begin(origin)
        waiting = None
        if self.waiting_origins or self.crowded:
            waiting = self._next_waiting(origin, inf if wanted else self._free() + 1)
        if wanted:
            stays = not self._must_yield(origin, waiting)
        else:
            stays = (
                waiting is None
                or self.connection_count < self.limit
                or origin.connection_count <= waiting.connection_count
            )
        if not stays:
            self._yield_to_next(connection)
        elif wanted:
            origin.reuse_streak += 1
            self._assign(origin, connection)
        else:
            self._keep_idle(connection)
            if waiting is not None and not connection.removed:
                self._serve_waiting_origins()
                if self._next_waiting(origin, self._free()) is not None:
                    self.delegate.defer_eviction(connection)

    def evict(self, connection: PooledConnection, since: float) -> None:
        """Close *connection* if it has been idle since *since*, and another origin waits."""
        idle = connection in self.idle and connection.idle_since == since
        if idle and self._next_waiting(connection.origin_pool, self._free()) is not None:
            self._yield_to_next(connection)

    def _yield_to_next(self, connection: PooledConnection) -> None:
        """Close *connection*, so that the origin whose turn it is may have one."""
        try:
            self._close(connection)
        finally:
            # After those that have waited for longer.
            self._queue_origin(connection.origin_pool)
            self._serve_waiting_origins()

    def share(self, connection: PooledConnection) -> None:
        """Let requests share *connection*, which has just connected or ended an exchange."""
        origin = connection.origin_pool
        if self.waiting_origins or self.crowded:
            waiting = self._next_waiting(origin, inf if origin.waiters else 0)
            if waiting is not None and (not origin.waiters or self._must_yield(origin, waiting)):
                # Let it run empty: release() then gives it to others.
                origin.shareable.pop(connection, None)
                return
        most = min(origin.pipelining, connection.exchanges_left)
        while connection.in_flight < most and origin.waiters and self._may_begin(origin):
            if next(iter(origin.waiters.values())):
                # The first waiter wants a connection for itself: let this one run empty.
                origin.shareable.pop(connection, None)
                return
            connection.in_flight += 1
            origin.reuse_streak += 1
            self._assign(origin, connection)
        if connection.in_flight < most:
            origin.shareable[connection] = None
        else:
            origin.shareable.pop(connection, None)

    def remove(self, connection: PooledConnection) -> None:
        """Remove *connection*, which has ended or could not be made. Harmless if repeated."""
        if connection.removed:
            return
        self._take_out(connection)
        self._queue_origin(connection.origin_pool)
        self._serve_waiting_origins()

    def close_idle(self, connection: PooledConnection) -> None:
        """Close an idle connection."""
        try:
            self._close(connection)
        finally:
            if self.waiting_origins or self.crowded:
                self._serve_waiting_origins()

    def _close(self, connection: PooledConnection) -> None:
        self._take_out(connection)
        self.delegate.close_socket(connection)

    def _keep_idle(self, connection: PooledConnection) -> None:
        """Keep *connection* idle: no request wants it now."""
        if len(self.idle) >= self.max_idle:
            if not self.idle:  # max_idle=0
                self.close_idle(connection)
                return
            self.close_idle(next(iter(self.idle)))
        connection.origin_pool.idle[connection] = self.idle[connection] = None

    def _take_out(self, connection: PooledConnection) -> None:
        """Remove *connection* from all counts and collections."""
        origin = connection.origin_pool
        connection.removed = True
        self.connections.discard(connection)
        if connection in self.idle:
            del self.idle[connection]
        origin.idle.pop(connection, None)
        origin.shareable.pop(connection, None)
        origin.connection_count -= 1
        self.connection_count -= 1
        if not origin.connection_count and not origin.waiters:
            self._mark_unused(origin)

    def _assign(self, origin: OriginPool, connection: PooledConnection) -> None:
        """Give *connection* to the request that has waited longest in *origin*.

        Nothing here may fail, as neither of the two is in any collection meanwhile. That the
        request may begin was asked just before: ``_may_begin``.
        """
        waiter, _ = origin.waiters.popitem(last=False)
        self.queued -= 1
        if origin.rate_limit is not None:
            origin.rate_limit.begin(origin.asked_at)
        connection.in_flight = connection.in_flight or 1
        if not origin.waiters:
            self._unqueue_origin(origin)
        waiter.set_result(connection)

    def _next_waiting(self, origin: OriginPool | None, free: float) -> OriginPool | None:
        """Return the origin whose turn it is, unless it is *origin* alone.

        A large one only if more than the reserve is *free*.
        """
        lines = [self.waiting_origins]
        if free > self.reserve:
            lines.append(self.crowded)
        for line in lines:
            while line:
                waiting = next(iter(line))
                if waiting is origin:
                    if len(line) == 1:
                        break
                    line.move_to_end(origin)
                elif self._may_begin(waiting):
                    return waiting
        return None

    def _must_yield(self, origin: OriginPool, waiting: OriginPool | None) -> bool:
        """Whether a connection that requests of *origin* wait for goes to *waiting*, or is closed.

        Yes if *origin* then still has as many connections as *waiting*. If *waiting* has just one
        less, the two only change places: each of them is to have that connection in turn, but a
        handshake for each request serves neither. If nobody waits, a large origin fills up the
        reserve again, when less than half of it is left.
        """
        if waiting is None:
            return origin.connection_count > self.large and self._free() < self.reserve // 2
        more = origin.connection_count - waiting.connection_count
        if more <= 0:
            # *waiting* has as many already. Another may have fewer: it is considered next time.
            self._line(waiting).move_to_end(waiting)
            return False
        return more > 1 or origin.reuse_streak >= STREAK * origin.connection_count

    # -------------------------------------------------------------------------- waiting

    def enqueue(
        self, origin: OriginPool, waiter: Waiter, exclusive: bool = True, *, first: bool = False
    ) -> None:
        """Queue *waiter* for a connection, after ``acquire_nowait`` returned None.

        *exclusive*: it wants the connection for itself. *first*: it had its turn already, and goes
        to the front.
        """
        if not origin.connection_count:
            self._mark_used(origin)
        origin.waiters[waiter] = exclusive
        origin.waiters.move_to_end(waiter, last=not first)
        self.queued += 1
        if len(origin.waiters) == 1:
            # Others would wait for the same. Alone, it may be served by now: the clock moves.
            self.serve(origin)

    def cancel(self, origin: OriginPool, waiter: Waiter) -> bool:
        """Take *waiter* out of the queue; False if it is not there: it got its connection."""
        if waiter not in origin.waiters:
            return False
        del origin.waiters[waiter]
        self.queued -= 1
        if not origin.waiters:
            self._unqueue_origin(origin)
            if not origin.connection_count:
                self._mark_unused(origin)
        elif origin.shareable:
            # *waiter* may have wanted a connection for itself, and so been in the others' way.
            self.serve(origin)
        return True

    def serve(self, origin: OriginPool) -> None:
        """Give connections to the requests that wait in *origin*, as far as the limits allow."""
        while origin.waiters and self._may_begin(origin):
            try:
                if next(iter(origin.waiters.values())):
                    connection = origin.idle_or_new()
                else:
                    connection = origin.shared_or_idle_or_new()
            except BaseException as exc:
                self._fail_first(origin, exc)
                continue
            if connection is None:
                self._queue_origin(origin)
                return
            self._assign(origin, connection)

    def _serve_waiting_origins(self) -> None:
        while self.connection_count < self.limit:
            origin = self._next_waiting(None, self._free())
            if origin is None:
                return
            try:
                connection = self._make(origin)
            except BaseException as exc:
                self._fail_first(origin, exc)
                continue
            self._unqueue_origin(origin)
            origin.reuse_streak = 0
            self._assign(origin, connection)
            self._queue_origin(origin)

    def _fail_first(self, origin: OriginPool, exc: BaseException) -> None:
        """Fail the request that has waited longest in *origin*: it is its connection that failed.

        The code that runs now serves any request, and is no one's to fail.
        """
        waiter = next(iter(origin.waiters))
        self.cancel(origin, waiter)
        waiter.set_exception(exc)

    def _queue_origin(self, origin: OriginPool) -> None:
        """Let *origin* wait for a connection of the pool, if it wants one and may have it."""
        if origin.waiters and origin.connection_count < self.limit_per_host:
            line = self._line(origin)
            if origin not in line:  # else it keeps its place
                self._unqueue_origin(origin)
                line[origin] = None

    def _unqueue_origin(self, origin: OriginPool) -> None:
        self.waiting_origins.pop(origin, None)
        self.crowded.pop(origin, None)

    def _line(self, origin: OriginPool) -> OrderedDict[OriginPool, None]:
        """Return the line in which *origin* waits, by the number of its connections."""
        return self.crowded if origin.connection_count >= self.large else self.waiting_origins

    def _may_begin(self, origin: OriginPool) -> bool:
        """Whether the rate limit of *origin* allows a request now; if not, it is served later."""
        if origin.rate_limit is None:
            return True
        origin.asked_at = now = monotonic()
        delay = origin.rate_limit.delay(now)
        if delay <= 0:
            return True
        self._unqueue_origin(origin)
        self.delegate.wake_later(origin, delay)
        return False
