"""A model of the pool around its books (``client/slots.py``): every step is a call, none waits.

The books decide who gets which connection, and do no I/O. The model stands for all that is around
them: ``Clock`` is the time, ``Pool`` is the books' keeper and the users' side of the pool, and a
``Waiter`` is one request, from when it asks for a slot until its exchange ends:

    pool = Pool(clock, limit=1)
    first = used(pool, "a")                 # asks at site "a", gets a slot, connects it
    second = pool.ask(pool.site("a"))       # a second request, which has to wait
    pool.finish(first)                      # the exchange ends: the slot goes to the second
    assert served(first, second) == [True, True]
    pool.check()

While it runs, the model asserts that each waiter gets one slot, in the order of its site's queue;
that a slot is shared only by requests that allow it, and by no more than may share it; and that a
connection is closed once, and only when it has left the books. ``Pool.check`` compares the books
with what the model knows: the counters and limits; each connection idle or used, never both; and
nobody waiting for what is free. A test may call it whenever no method of the books is running.

A connection ends, connects or lingers when the test says so (``lose``, ``connect``, ``run_on``),
and time passes only in ``turn`` or where a test moves ``clock.now``. The test patches the module's
``monotonic`` with its clock.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any

from aiohttpconn.pool.scheduler import Site, Slot, Slots

if TYPE_CHECKING:
    from aiohttpconn.pool.rate_limit import Pace

__all__ = ["Clock", "Pool", "Waiter", "served", "used"]


class Clock:
    """Time stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Waiter:
    """A request; ``slot`` is the slot that it was given, None while it waits."""

    def __init__(self, pool: Pool, site: Site, shared: bool) -> None:
        self.pool = pool
        self.site = site
        self.shared = shared
        self.slot: Slot | None = None

    def set_result(self, slot: Slot, /) -> None:
        assert self.slot is None, "given two slots"
        self.slot = slot
        self.pool.granted(self)


class Pool:
    """The keeper of the books, and the steps of the pool's users.

    A user is a ``Waiter`` that has a slot; ``users`` has the users of each slot that is not gone.
    """

    def __init__(
        self,
        clock: Clock,
        limit: float = inf,
        limit_per_host: float = inf,
        max_idle: float = inf,
        pipelining: int = 1,
        max_exchanges: float = inf,
    ) -> None:
        self.clock = clock
        self.max_exchanges = max_exchanges
        self.slots = Slots(self, limit, limit_per_host, max_idle)
        self.pipelining = pipelining
        self.users: dict[Slot, list[Waiter]] = {}
        # The waiters of each site, the first one first.
        self.queues: dict[Site, deque[Waiter]] = {}
        # The time at which each site is to be served, because it may begin then.
        self.timers: dict[Site, float] = {}
        # The connections that the books had closed, in order.
        self.closed: list[Slot] = []
        # Idle connections that another site waits for, and since when they are idle.
        self.lingering: dict[Slot, float] = {}
        # The waiters that were served, in order.
        self.log: list[Waiter] = []

    # ------------------------------------------------------------- the keeper

    def close(self, slot: Slot) -> None:
        assert slot.gone, "closed while it is in the books"
        assert slot not in self.closed, "closed twice"
        self.closed.append(slot)

    def linger(self, slot: Slot) -> None:
        assert slot in self.slots.idle
        self.lingering[slot] = slot.idle_since

    def run_on(self) -> None:
        """The requests that were answered have run: expel the connections that still linger."""
        lingering, self.lingering = self.lingering, {}
        for slot, since in lingering.items():
            self.slots.expel(slot, since)

    def wake_later(self, site: Site, delay: float) -> None:
        assert delay > 0
        self.timers.setdefault(site, self.clock.now + delay)

    def exchange_ended(self, slot: Slot, response: Any, count: int) -> None:
        slot.left -= count
        if slot.depth > count:
            slot.depth -= count
            self.slots.share(slot)
        elif slot.left <= 0:
            self.slots.remove(slot)
        else:
            self.slots.put(slot)

    def connection_ended(self, slot: Slot) -> None:
        self.slots.remove(slot)

    # -------------------------------------------------------------- the users

    def site(self, key: object = "a", pace: Pace | None = None) -> Site:
        """Return the site *key*; a new one has *pace*."""
        site = self.slots.sites.get(key)
        if site is None:
            site = self.slots.add_site(key)
            site.pipelining = self.pipelining
            site.pace = pace
        return site

    def ask(self, site: Site, shared: bool = False) -> Waiter:
        """Ask for a slot, and wait if there is none; return the waiter."""
        asking = Waiter(self, site, shared)
        slot = site.take_shared() if shared else site.take()
        if slot is not None:
            asking.slot = slot
            self.served(asking)
        else:
            self.queues.setdefault(site, deque()).append(asking)
            self.slots.enqueue(site, asking, not shared)
        return asking

    def granted(self, waiter: Waiter) -> None:
        """*waiter* has got a slot from the books; assert that it was the first in its queue."""
        assert self.queues[waiter.site].popleft() is waiter, "out of turn"
        self.served(waiter)

    def served(self, user: Waiter) -> None:
        """*user* has got a slot; assert that it may use it beside the others."""
        slot = user.slot
        assert slot is not None
        assert slot.site is user.site
        assert not slot.gone
        users = self.users.setdefault(slot, [])
        assert not users or (user.shared and all(other.shared for other in users))
        assert len(users) < min(user.site.pipelining, slot.left) or not users
        users.append(user)
        self.log.append(user)

    def cancel(self, waiter: Waiter) -> None:
        """Give up waiting, or give back the slot that was granted and not used."""
        if waiter.slot is None:
            self.queues[waiter.site].remove(waiter)
        if self.slots.cancel(waiter.site, waiter):
            assert waiter.slot is None
        elif waiter.slot is not None and waiter.slot.protocol is None:
            self.lose(waiter.slot)
        else:
            self.finish(waiter)

    def connect(self, slot: Slot) -> None:
        """The connection of *slot* is made."""
        slot.protocol = self  # type: ignore[assignment]
        slot.left = self.max_exchanges
        slot.plain = self.pipelining == 1 and slot.left == inf
        if self.users[slot][0].shared:
            self.slots.share(slot)

    def finish(self, user: Waiter) -> None:
        """The exchange of *user* ends."""
        slot = user.slot
        assert slot is not None
        self.users[slot].remove(user)
        if not self.users[slot]:
            del self.users[slot]
        slot.exchange_ended(None, None)

    def lose(self, slot: Slot) -> None:
        """The connection of *slot* ends, or could not be made."""
        self.users.pop(slot, None)
        slot.connection_ended()
        slot.connection_ended()

    def lose_unused(self, user: Waiter) -> Waiter:
        """The slot of *user* ends before it is used: ask again, and return the new waiter."""
        assert user.slot is not None
        self.lose(user.slot)
        waiter = Waiter(self, user.site, user.shared)
        self.queues.setdefault(user.site, deque()).append(waiter)
        self.slots.enqueue(user.site, waiter, not user.shared)
        return waiter

    def turn(self, seconds: float) -> None:
        """Let time pass, and timers fire."""
        self.clock.now += seconds
        while due := [site for site, when in self.timers.items() if when <= self.clock.now]:
            for site in due:
                del self.timers[site]
                self.slots.serve(site)

    # ------------------------------------------------------------- what holds

    def check(self) -> None:
        """Assert what must hold whenever no method runs."""
        slots = self.slots
        sites = {slot.site for slot in slots.all} | {*slots.sites.values()} | {*self.queues}
        assert slots.open == len(slots.all) == sum(site.open for site in sites)
        assert slots.open <= slots.limit
        assert slots.queued == sum(len(site.waiters) for site in sites)
        assert len(slots.idle) <= slots.max_idle
        assert {*slots.idle} == {slot for site in sites for slot in site.idle}
        assert {*slots.idle} == slots.all - {*self.users}
        assert {*self.users} <= slots.all
        assert [slot.idle_since for slot in slots.idle] == sorted(
            slot.idle_since for slot in slots.idle
        )
        for slot in slots.all:
            assert not slot.gone
        for slot, users in self.users.items():
            assert len(users) == (slot.depth or 1)
        for site in sites:
            assert site.open == sum(slot.site is site for slot in slots.all)
            assert site.open <= slots.limit_per_host
            assert list(site.waiters) == list(self.queues.get(site, ()))
            for slot in site.room:
                assert slot in self.users
                assert slot.depth < min(site.pipelining, slot.left)
            self.check_nobody_waits_in_vain(site)
            if site.open or site.waiters:
                # Two sites of one key: a user has kept the forgotten one, and another was made.
                assert slots.sites[site.key] is site or site.retired
                assert site not in slots._unused
            else:
                assert (site in slots._unused) != site.retired
        for site in slots.sites.values():
            assert not site.retired
        assert not slots.turns or (slots.open >= slots.limit and not self.kept_idle)
        for site in slots.turns:
            assert site.waiters
            assert site.open < slots.limit_per_host

    @property
    def kept_idle(self) -> set[Slot]:
        """Idle connections that do not linger."""
        return {*self.slots.idle} - {*self.lingering}

    def check_nobody_waits_in_vain(self, site: Site) -> None:
        """Assert that *site* has no waiter that could be served, or a timer for when it may be."""
        slots = self.slots
        if not site.waiters:
            assert site not in slots.turns
            return
        may_open = site.open < slots.limit_per_host
        exclusive = next(iter(site.waiters.values()))
        free = site.idle or (site.room and not exclusive) or (may_open and self.kept_idle)
        free = free or (may_open and slots.open < slots.limit)
        if site.pace is None or site.pace.delay(self.clock.now) <= 0:
            assert not free
            assert not may_open or site in slots.turns
        else:
            assert not free or site in self.timers


def used(pool: Pool, key: object = "a", shared: bool = False, pace: Pace | None = None) -> Waiter:
    """Ask for a slot, which must be free, and connect it."""
    user = pool.ask(pool.site(key, pace), shared)
    assert user.slot is not None, "has to wait"
    pool.connect(user.slot)
    return user


def served(*waiters: Waiter) -> list[bool]:
    """Return of each whether it has got a slot."""
    return [waiter.slot is not None for waiter in waiters]
