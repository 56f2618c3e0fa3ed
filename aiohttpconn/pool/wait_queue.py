"""Requests waiting for a connection, until one is free, their timeout passes, or the pool closes.

The scheduler says whose turn it is. Layer: pool.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING

from ..exceptions import PoolClosed, PoolTimeout, TotalTimeout, describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..net.timeouts import Timeout
    from .scheduler import OriginPool, PooledConnection, Scheduler

__all__ = ["WaitQueue"]


class _Waiter:
    """A waiting request. It gets its connection even if its future was cancelled just before."""

    __slots__ = ("connection", "future")

    def __init__(self, future: asyncio.Future[None]) -> None:
        self.future = future
        self.connection: PooledConnection | None = None

    def set_result(self, connection: PooledConnection) -> None:
        self.connection = connection
        if not self.future.done():
            self.future.set_result(None)

    def set_exception(self, exc: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(exc)


class WaitQueue:
    """The requests that wait for a connection of *scheduler*.

    *bind* returns the running loop, or raises because the pool may not be used. *release* is
    called with a connection whose request was cancelled after it was assigned.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        bind: Callable[[str, str], asyncio.AbstractEventLoop],
        release: Callable[[PooledConnection], None],
    ) -> None:
        self._scheduler = scheduler
        self._bind = bind
        self._release = release
        self._waiting: dict[_Waiter, OriginPool] = {}

    async def acquire(
        self,
        origin: OriginPool,
        timeout: Timeout,
        deadline: float | None,
        method: str,
        target: str,
        *,
        exclusive: bool = True,
    ) -> PooledConnection:
        """Wait for a connection of *origin*, after ``acquire_nowait`` gave none; return it.

        *method* and *target* are for errors. Raises ``PoolTimeout``, ``TotalTimeout``,
        ``PoolClosed``. If cancelled, it leaves its connection to others, even one it just got.
        """
        url = f"{origin.url}{target}"
        loop = self._bind(method, url)
        began = loop.time()
        again = False
        when = inf if timeout.pool is None else began + timeout.pool
        kind: type[TotalTimeout | PoolTimeout] = PoolTimeout
        if deadline is not None and deadline < when:
            when, kind = deadline, TotalTimeout
        while True:
            waiter = _Waiter(loop.create_future())
            timer = None
            try:
                if when < inf:
                    timer = loop.call_at(when, _expire, waiter, kind)
                self._waiting[waiter] = origin
                self._scheduler.enqueue(origin, waiter, exclusive, first=again)
                await waiter.future
            except BaseException as exc:
                if not self._scheduler.cancel(origin, waiter) and waiter.connection is not None:
                    self._release(waiter.connection)
                if isinstance(exc, (PoolTimeout, TotalTimeout, PoolClosed)):
                    describe(
                        exc,
                        str(exc) or f"no connection was free within {max(when - began, 0):.3g} s",
                        method=method,
                        url=url,
                        phase="waiting for a connection",
                        elapsed=loop.time() - began,
                        notes="" if isinstance(exc, PoolClosed) else self._counts(origin),
                    )
                raise
            finally:
                self._waiting.pop(waiter, None)
                if timer is not None:
                    timer.cancel()
            connection = waiter.connection
            assert connection is not None, "woken without a connection"
            if not connection.removed:
                return connection
            # The connection ended before the request ran. The request keeps its place.
            again = True
            self._bind(method, url)  # the pool may be closed by now

    def _counts(self, origin: OriginPool) -> str:
        """Return the numbers of connections and of waiting requests, for the text of an error."""
        scheduler = self._scheduler
        here, in_all = (
            f"{n} of {most}" if most < inf else f"{n}"
            for n, most in (
                (origin.connection_count, scheduler.limit_per_host),
                (scheduler.connection_count, scheduler.limit),
            )
        )
        return (
            f"{here} connections to {origin.authority}, {in_all} in all, "
            f"{scheduler.queued} more waiting"
        )

    def close(self, noun: str) -> None:
        """Fail all waiting requests with ``PoolClosed``, whose text calls the pool *noun*."""
        for waiter in self._waiting:
            if not waiter.future.done():
                waiter.future.set_exception(PoolClosed(f"the {noun} was closed"))
        self.forget()

    def forget(self) -> None:
        """Take all requests out of the queue, without waking them."""
        for waiter, origin in self._waiting.items():
            self._scheduler.cancel(origin, waiter)
        self._waiting.clear()


def _expire(waiter: _Waiter, kind: type[Exception]) -> None:
    if not waiter.future.done():
        waiter.future.set_exception(kind())
