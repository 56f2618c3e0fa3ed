"""A model of the pool around its scheduler: every step is a call, none waits.

The scheduler decides which request gets which connection, and does no I/O. The model stands for
all that is around it: ``Clock`` is the time, ``Pool`` is the scheduler's delegate and the users'
side of the pool, ``Connection`` is a pooled connection, and a ``Waiter`` is one request, from when
it asks for a connection until its exchange ends:

    pool = Pool(clock, limit=1)
    first = used(pool, "a")                # asks at origin "a", gets a connection, connects it
    second = pool.ask(pool.origin("a"))    # a second request, which has to wait
    pool.finish(first)                     # the exchange ends: the connection goes to the second
    assert served(first, second) == [True, True]
    pool.check()

While it runs, the model asserts that each waiter gets one connection, in the order of its origin's
queue; that a connection is shared only by requests that allow it, and by no more than may share it;
and that a connection is closed once, and only after the scheduler has removed it. ``Pool.check``
compares the scheduler with what the model knows: the counters and limits; each connection idle or
used, never both; and no request waiting for a connection that is free. A test may call it whenever
no method of the scheduler is running.

A connection ends, connects or is evicted when the test says so (``lose``, ``connect``,
``run_on``), and time passes only in ``turn`` or when a test moves ``clock.now``. The test patches
the module's ``monotonic`` with its clock.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any

from aiohttpconn.pool.scheduler import OriginPool, Scheduler

if TYPE_CHECKING:
    from aiohttpconn.pool.rate_limit import RateLimiter

__all__ = ["Clock", "Pool", "Waiter", "served", "used"]


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Connection:
    """The part of a ``PooledConnection`` that the scheduler uses, without a protocol."""

    def __init__(self, origin: OriginPool) -> None:
        self.origin_pool = origin
        self.connected = False
        self.idle_since = 0.0
        self.exchanges_left = inf
        self.fast_release = False
        self.in_flight = 0
        self.removed = False


class Waiter:
    """A request; ``connection`` is the connection that it was given, None while it waits."""

    def __init__(self, pool: Pool, origin: OriginPool, shared: bool) -> None:
        self.pool = pool
        self.origin = origin
        self.shared = shared
        self.connection: Connection | None = None

    def set_result(self, connection: Connection, /) -> None:
        assert self.connection is None, "given two connections"
        self.connection = connection
        self.pool.granted(self)


class Pool:
    """The delegate of the scheduler, and the steps of the pool's users.

    A user is a ``Waiter`` that has a connection; ``users`` has the users of each connection that
    was not removed.
    """

    def __init__(
        self,
        clock: Clock,
        limit: float = inf,
        limit_per_host: float = inf,
        max_idle: float = inf,
        pipelining: int = 1,
        max_exchanges: float = inf,
        shared_out: bool = False,
    ) -> None:
        self.clock = clock
        self.max_exchanges = max_exchanges
        self.scheduler = Scheduler(self, limit, limit_per_host, max_idle, shared_out=shared_out)
        self.pipelining = pipelining
        self.users: dict[Connection, list[Waiter]] = {}
        # The waiters of each origin, the first one first.
        self.queues: dict[OriginPool, deque[Waiter]] = {}
        # The time at which each origin is to be served, because it may begin then.
        self.timers: dict[OriginPool, float] = {}
        # The connections that the scheduler had closed, in order.
        self.closed: list[Connection] = []
        # Idle connections that another origin waits for, and since when they are idle.
        self.lingering: dict[Connection, float] = {}
        # The waiters that were served, in order.
        self.log: list[Waiter] = []

    # ------------------------------------------------------------------------- delegate

    def new_connection(self, origin: OriginPool) -> Connection:
        return Connection(origin)

    def close_socket(self, connection: Connection) -> None:
        assert connection.removed, "closed while it is in the scheduler"
        assert connection not in self.closed, "closed twice"
        self.closed.append(connection)

    def defer_eviction(self, connection: Connection) -> None:
        assert connection in self.scheduler.idle
        self.lingering[connection] = connection.idle_since

    def run_on(self) -> None:
        """Let the answered requests have run: evict the connections whose eviction was deferred."""
        lingering, self.lingering = self.lingering, {}
        for connection, since in lingering.items():
            self.scheduler.evict(connection, since)

    def wake_later(self, origin: OriginPool, delay: float) -> None:
        assert delay > 0
        self.timers.setdefault(origin, self.clock.now + delay)

    def exchange_ended(self, connection: Connection, response: Any, count: int) -> None:
        connection.exchanges_left -= count
        if connection.in_flight > count:
            connection.in_flight -= count
            self.scheduler.share(connection)
        elif connection.exchanges_left <= 0:
            self.scheduler.remove(connection)
        else:
            self.scheduler.release(connection)

    def connection_ended(self, connection: Connection) -> None:
        self.scheduler.remove(connection)

    # ---------------------------------------------------------------------------- users

    def origin(self, key: object = "a", pace: RateLimiter | None = None) -> OriginPool:
        """Return the origin *key*; a new one has the rate limit *pace*."""
        origin = self.scheduler.origins.get(key)
        if origin is None:
            origin = self.scheduler.add_origin(key)
            origin.pipelining = self.pipelining
            origin.rate_limit = pace
        return origin

    def ask(self, origin: OriginPool, shared: bool = False) -> Waiter:
        """Ask for a connection, and wait if there is none; return the waiter."""
        asking = Waiter(self, origin, shared)
        connection = origin.acquire_shared_nowait() if shared else origin.acquire_nowait()
        if connection is not None:
            asking.connection = connection
            self.served(asking)
        else:
            self.queues.setdefault(origin, deque()).append(asking)
            self.scheduler.enqueue(origin, asking, not shared)
        return asking

    def granted(self, waiter: Waiter) -> None:
        """Serve *waiter*, which has got a connection; assert that it was the first in its queue."""
        assert self.queues[waiter.origin].popleft() is waiter, "out of turn"
        self.served(waiter)

    def served(self, user: Waiter) -> None:
        """Note that *user* has got a connection; assert that it may use it beside the others."""
        connection = user.connection
        assert connection is not None
        assert connection.origin_pool is user.origin
        assert not connection.removed
        users = self.users.setdefault(connection, [])
        assert not users or (user.shared and all(other.shared for other in users))
        assert len(users) < min(user.origin.pipelining, connection.exchanges_left) or not users
        users.append(user)
        self.log.append(user)

    def cancel(self, waiter: Waiter) -> None:
        """Give up waiting, or release the connection that was granted and not used."""
        if waiter.connection is None:
            self.queues[waiter.origin].remove(waiter)
        if self.scheduler.cancel(waiter.origin, waiter):
            assert waiter.connection is None
        elif waiter.connection is not None and not waiter.connection.connected:
            self.lose(waiter.connection)
        else:
            self.finish(waiter)

    def connect(self, connection: Connection) -> None:
        """Connect *connection*."""
        connection.connected = True
        connection.exchanges_left = self.max_exchanges
        connection.fast_release = self.pipelining == 1 and connection.exchanges_left == inf
        if self.users[connection][0].shared:
            self.scheduler.share(connection)

    def finish(self, user: Waiter) -> None:
        """End the exchange of *user*."""
        connection = user.connection
        assert connection is not None
        self.users[connection].remove(user)
        if not self.users[connection]:
            del self.users[connection]
        connection.origin_pool.exchange_ended(connection, None)

    def lose(self, connection: Connection) -> None:
        """End *connection*, or fail to make it; tell its origin twice, which is harmless."""
        self.users.pop(connection, None)
        connection.origin_pool.connection_ended(connection)
        connection.origin_pool.connection_ended(connection)

    def lose_unused(self, user: Waiter) -> Waiter:
        """End the connection of *user* before it is used; ask again, and return the new waiter."""
        assert user.connection is not None
        self.lose(user.connection)
        waiter = Waiter(self, user.origin, user.shared)
        self.queues.setdefault(user.origin, deque()).append(waiter)
        self.scheduler.enqueue(user.origin, waiter, not user.shared)
        return waiter

    def turn(self, seconds: float) -> None:
        """Let *seconds* pass, and timers fire."""
        self.clock.now += seconds
        while due := [origin for origin, when in self.timers.items() if when <= self.clock.now]:
            for origin in due:
                del self.timers[origin]
                self.scheduler.serve(origin)

    # ----------------------------------------------------------------------- invariants

    def check(self) -> None:
        """Assert the invariants, which hold whenever no method of the scheduler runs."""
        scheduler = self.scheduler
        origins = (
            {connection.origin_pool for connection in scheduler.connections}
            | {*scheduler.origins.values()}
            | {*self.queues}
        )
        assert (
            scheduler.connection_count
            == len(scheduler.connections)
            == sum(origin.connection_count for origin in origins)
        )
        assert scheduler.connection_count <= scheduler.limit
        assert scheduler.queued == sum(len(origin.waiters) for origin in origins)
        assert len(scheduler.idle) <= scheduler.max_idle
        assert {*scheduler.idle} == {connection for origin in origins for connection in origin.idle}
        assert {*scheduler.idle} == scheduler.connections - {*self.users}
        assert {*self.users} <= scheduler.connections
        assert [connection.idle_since for connection in scheduler.idle] == sorted(
            connection.idle_since for connection in scheduler.idle
        )
        for connection in scheduler.connections:
            assert not connection.removed
        for connection, users in self.users.items():
            assert len(users) == (connection.in_flight or 1)
        for origin in origins:
            assert origin.connection_count == sum(
                connection.origin_pool is origin for connection in scheduler.connections
            )
            assert origin.connection_count <= scheduler.limit_per_host
            assert list(origin.waiters) == list(self.queues.get(origin, ()))
            for connection in origin.shareable:
                assert connection in self.users
                assert connection.in_flight < min(origin.pipelining, connection.exchanges_left)
            self.check_nobody_waits_in_vain(origin)
            if origin.connection_count or origin.waiters:
                # Two origins of one key: a user has kept the forgotten one, and another was made.
                assert scheduler.origins[origin.key] is origin or origin.evicted
                assert origin not in scheduler._unused
            else:
                assert (origin in scheduler._unused) != origin.evicted
        for origin in scheduler.origins.values():
            assert not origin.evicted
        assert not scheduler.waiting_origins or (
            scheduler.connection_count >= scheduler.limit and not self.kept_idle
        )
        assert not scheduler.crowded or self.free <= scheduler.reserve
        for line, large in ((scheduler.waiting_origins, False), (scheduler.crowded, True)):
            for origin in line:
                assert origin.waiters
                assert origin.connection_count < scheduler.limit_per_host
                assert (origin.connection_count >= scheduler.large) == large

    @property
    def free(self) -> float:
        """Places, and idle connections whose eviction is not deferred."""
        return self.scheduler.limit - self.scheduler.connection_count + len(self.kept_idle)

    @property
    def kept_idle(self) -> set[Connection]:
        """Idle connections whose eviction is not deferred."""
        return {*self.scheduler.idle} - {*self.lingering}

    def check_nobody_waits_in_vain(self, origin: OriginPool) -> None:
        """Assert that *origin* has no waiter that could be served, or a timer for it."""
        scheduler = self.scheduler
        if not origin.waiters:
            assert origin not in scheduler.waiting_origins
            assert origin not in scheduler.crowded
            return
        large = origin.connection_count >= scheduler.large
        line = scheduler.crowded if large else scheduler.waiting_origins
        may_open = origin.connection_count < scheduler.limit_per_host
        exclusive = next(iter(origin.waiters.values()))
        free = origin.idle or (origin.shareable and not exclusive)
        free = free or (may_open and self.free > (scheduler.reserve if large else 0))
        if origin.rate_limit is None or origin.rate_limit.delay(self.clock.now) <= 0:
            assert not free
            assert not may_open or origin in line
        else:
            assert not free or origin in self.timers


def used(
    pool: Pool, key: object = "a", shared: bool = False, pace: RateLimiter | None = None
) -> Waiter:
    """Ask for a connection, which must be free, and connect it."""
    user = pool.ask(pool.origin(key, pace), shared)
    assert user.connection is not None, "has to wait"
    pool.connect(user.connection)
    return user


def served(*waiters: Waiter) -> list[bool]:
    """Return whether each has got a connection."""
    return [waiter.connection is not None for waiter in waiters]
