"""Requests that wait for a slot of a pool: until it is their turn, their time is over, or the pool.

Whose turn it is, scheduler.py says. Layer: pool.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING

from ..exceptions import PoolClosed, PoolTimeout, TotalTimeout, describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..net.timeouts import Timeout
    from .scheduler import Site, Slot, Slots

__all__ = ["Queue"]


class _Waiter:
    """Who waits for a slot. The slot is here even if the future was cancelled a moment before."""

    __slots__ = ("future", "slot")

    def __init__(self, future: asyncio.Future[None]) -> None:
        self.future = future
        self.slot: Slot | None = None

    def set_result(self, slot: Slot) -> None:
        self.slot = slot
        if not self.future.done():
            self.future.set_result(None)


class Queue:
    """Those who wait for one of *slots*.

    *bind* returns the running loop, or raises because the pool may not be used. *give_back* takes a
    slot from who was cancelled with it in his hands.
    """

    def __init__(
        self,
        slots: Slots,
        bind: Callable[[], asyncio.AbstractEventLoop],
        give_back: Callable[[Slot], None],
    ) -> None:
        self._slots = slots
        self._bind = bind
        self._give_back = give_back
        self._waiting: dict[_Waiter, Site] = {}

    async def acquire(
        self,
        site: Site,
        timeout: Timeout,
        deadline: float | None,
        method: str,
        target: str,
        *,
        exclusive: bool = True,
    ) -> Slot:
        """Wait for a slot of *site*, after ``take`` gave none; the caller owns it then.

        *method* and *target* are for errors. Raises ``PoolTimeout``, ``TotalTimeout``,
        ``PoolClosed``. Cancelled, it leaves the slot to others, also if it just got one.
        """
        loop = self._bind()
        began = loop.time()
        again = False
        when = inf if timeout.pool is None else began + timeout.pool
        kind: type[TotalTimeout | PoolTimeout] = PoolTimeout
        if deadline is not None and deadline < when:
            when, kind = deadline, TotalTimeout
        while True:
            waiter = _Waiter(loop.create_future())
            self._waiting[waiter] = site
            self._slots.enqueue(site, waiter, exclusive, first=again)
            timer = None
            if when < inf:
                timer = loop.call_at(when, _expire, waiter, kind)
            try:
                await waiter.future
            except BaseException as exc:
                if not self._slots.cancel(site, waiter) and waiter.slot is not None:
                    self._give_back(waiter.slot)
                if isinstance(exc, (PoolTimeout, TotalTimeout, PoolClosed)):
                    describe(
                        exc,
                        str(exc) or f"no connection was free within {max(when - began, 0):.3g} s",
                        method=method,
                        url=f"{site.key.origin}{target}",
                        phase="waiting for a connection",
                        elapsed=loop.time() - began,
                        notes="" if isinstance(exc, PoolClosed) else self._crowd(site),
                    )
                raise
            finally:
                self._waiting.pop(waiter, None)
                if timer is not None:
                    timer.cancel()
            slot = waiter.slot
            assert slot is not None, "woken without a slot"
            if not slot.gone:
                return slot
            # Its connection has ended in the turn between: that costs no place in the queue.
            again = True
            self._bind()  # and the pool may be closed by now

    def _crowd(self, site: Site) -> str:
        """Return who has the connections, and how many wait: for a timeout's text."""
        slots = self._slots
        here, all_ = (
            f"{n} of {most}" if most < inf else f"{n}"
            for n, most in ((site.open, slots.limit_per_host), (slots.open, slots.limit))
        )
        return f"{here} connections to {site.authority}, {all_} in all, {slots.queued} more waiting"

    def close(self) -> None:
        """Tell all who wait that the pool was closed."""
        for waiter in self._waiting:
            if not waiter.future.done():
                waiter.future.set_exception(PoolClosed("the pool was closed"))
        self.forget()

    def forget(self) -> None:
        """Take all who wait out of the books, without waking them."""
        for waiter, site in self._waiting.items():
            self._slots.cancel(site, waiter)
        self._waiting.clear()


def _expire(waiter: _Waiter, kind: type[Exception]) -> None:
    if not waiter.future.done():
        waiter.future.set_exception(kind())
