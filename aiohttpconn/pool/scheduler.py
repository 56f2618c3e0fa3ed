"""Who gets the next connection: the pool's limits, its idle connections, and the turns of origins.

A *slot* is one of the ``limit`` connections that a pool may have, or the right to make it. It is
always one of these, and every change is made in synchronous code, so that none is ever lost:

    idle     in ``site.idle`` and ``slots.idle``: connected, and nobody's
    taken    somebody's, who gives it back (``put``) or reports it gone (``remove``)
    gone     its connection has ended; it counts no more

A *site* is what is known of one way to one origin. What needs a slot and gets none waits in the
queue of its site. Three things hold whenever no method here is running:

- a site has no idle connection while somebody waits in its queue and may begin;
- no site has an idle connection while another waits for a slot of the pool: it is closed for it,
  or, if its site has no more than the other, a moment later (``linger``), so that who makes one
  request after the other does not lose its connection between them;
- sites that wait for a slot of the pool stand in ``turns``, and get theirs in that order.

A connection that comes back while others wait may stay with its site, whose next request then needs
no handshake, but not at their expense: see ``_must_yield``. All of it costs the same however many
slots, sites and waiters there are. No I/O, no event loop: a waiter is whatever has ``set_result``.
Layer: pool.
"""

from __future__ import annotations

from collections import OrderedDict
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ..connection import HTTPConnection
    from ..protocol import HTTP1Protocol
    from .rate_limit import Pace

__all__ = ["Site", "Slot", "Slots"]

STREAK = 8
"""Requests that a site's connections go on to, each, until one goes to a site that has one less.

Sites that cannot all have the same number would pass a connection to and fro at each request.
"""

MAX_UNUSED = 1024
"""Sites without a connection that are remembered: for the address that worked, and for pauses."""


class Waiter(Protocol):
    """What waits for a slot: a future."""

    def set_result(self, slot: Slot, /) -> None: ...


class Keeper(Protocol):
    """What the pool does for its slots: the side that knows connections and clocks."""

    def close(self, slot: Slot) -> None:
        """Close the connection of *slot*, which has left the books."""

    def linger(self, slot: Slot) -> None:
        """Call ``expel(slot, slot.idle_since)`` when who has just used *slot* has run."""

    def wake_later(self, site: Site, delay: float) -> None:
        """Call ``serve(site)`` in *delay* seconds: nothing may begin there before."""

    def exchange_ended(self, slot: Slot, response: Any, count: int) -> None:
        """*count* exchanges on *slot* have ended, and it cannot just be idle."""

    def connection_ended(self, slot: Slot) -> None:
        """The connection of *slot* has ended: ``remove`` it."""


class Slot:
    """A connection of the pool, or the right to make one. It owns its protocol: see ``Owner``."""

    __slots__ = (
        "born",
        "conn",
        "depth",
        "gone",
        "idle_since",
        "keepalive",
        "left",
        "plain",
        "protocol",
        "site",
    )

    def __init__(self, site: Site) -> None:
        self.site = site
        self.conn: HTTPConnection | None = None
        # Connected, as far as is known; None until then.
        self.protocol: HTTP1Protocol | None = None
        self.born = 0.0
        self.idle_since = 0.0
        # Seconds for which the server keeps it idle, if it says so.
        self.keepalive = inf
        # Exchanges that it may still serve, those on their way included.
        self.left = inf
        # Whether it becomes idle after an exchange just so. Not after its first, whose response
        # says how long it is kept.
        self.plain = False
        # Exchanges on their way, of a connection that is shared.
        self.depth = 0
        self.gone = False

    def exchange_ended(self, protocol: Any, response: Any, count: int = 1) -> None:
        """Mirrors ``protocol.Owner``. Hot: see docs/topics/design.md."""
        site = self.site
        slots = site.slots
        if self.plain and not site.waiters and not slots.turns and len(slots.idle) < slots.max_idle:
            self.idle_since = monotonic()
            site.idle[self] = slots.idle[self] = None
        else:
            slots.keeper.exchange_ended(self, response, count)

    def connection_ended(self, protocol: Any = None) -> None:
        """Mirrors ``protocol.Owner``."""
        if not self.gone:
            self.site.slots.keeper.connection_ended(self)

    def transport_lost(self, protocol: Any) -> None:
        """Mirrors ``protocol.Owner``."""
        self.connection_ended()


class Site:
    """One way to one origin: its connections, and who waits for one. ``key`` tells sites apart."""

    __slots__ = (
        "authority",
        "dialer",
        "fields",
        "idle",
        "key",
        "open",
        "pace",
        "pipelining",
        "prefix",
        "retired",
        "room",
        "slots",
        "streak",
        "timer",
        "waiters",
    )

    def __init__(self, key: Any, slots: Slots) -> None:
        self.key = key
        self.slots = slots
        self.open = 0
        # The last one in is the first one out: it is the least likely to be stale.
        self.idle: dict[Slot, None] = {}
        # In the order in which they came; whether each wants the connection for itself.
        self.waiters: OrderedDict[Waiter, bool] = OrderedDict()
        # Connections that are shared and take one more exchange; the last one gets it. In a dict,
        # finding the last one takes longer the more were taken out behind it.
        self.room: OrderedDict[Slot, None] = OrderedDict()
        # Exchanges that share a connection at most.
        self.pipelining = 1
        # Requests that its connections went on to, since it got one in its turn.
        self.streak = 0
        # When requests may begin, if that is limited, and the timer that then wakes waiters.
        self.pace: Pace | None = None
        self.timer: Any = None
        # Forgotten: whoever holds it asks for another.
        self.retired = False
        # The pool's: what connects; what stands in a Host field, before each target and behind
        # the Host field, if a proxy is asked for whole URLs.
        self.dialer: Any = None
        self.authority = ""
        self.prefix = ""
        self.fields = ""

    def take(self) -> Slot | None:
        """Return an idle slot or a new one; None if there is none, or others wait for it.

        Hot: see docs/topics/design.md. An idle one may be stale: whoever takes it has a look.
        """
        if self.pace is None:
            idle = self.idle
            if idle:
                slot, _ = idle.popitem()
                del self.slots.idle[slot]
                return slot
            if self.waiters:
                return None
            return self.slots.new(self)
        return self._take_paced()

    def _take_paced(self) -> Slot | None:
        pace = self.pace
        assert pace is not None
        now = monotonic()
        if self.waiters or pace.delay(now) > 0:
            return None
        slot = self._idle_or_new()
        if slot is not None:
            pace.begin(now)
        return slot

    def _idle_or_new(self) -> Slot | None:
        return self.take_idle() or self.slots.new(self)

    def take_idle(self) -> Slot | None:
        """Return the slot that was used last of the idle ones, whoever waits; None without one."""
        if not self.idle:
            return None
        slot, _ = self.idle.popitem()
        del self.slots.idle[slot]
        return slot

    def take_shared(self) -> Slot | None:
        """Return a slot for one exchange among others: one with room, else as ``take`` does.

        Hot: see docs/topics/design.md.
        """
        if self.waiters:
            return None
        if self.pace is None:
            # Deep before wide: what shares a connection shares its writes and reads.
            room = self.room
            if room:
                slot = next(reversed(room))
                slot.depth += 1
                if slot.depth >= self.pipelining or slot.depth >= slot.left:
                    del room[slot]
                return slot
        elif self.pace.delay(monotonic()) > 0:
            return None
        found = self._shared_or_idle_or_new()
        if found is not None and self.pace is not None:
            self.pace.begin(monotonic())
        return found

    def _shared_or_idle_or_new(self) -> Slot | None:
        if self.room:
            slot = next(reversed(self.room))
            slot.depth += 1
            if slot.depth >= self.pipelining or slot.depth >= slot.left:
                del self.room[slot]
            return slot
        found = self._idle_or_new()
        if found is not None:
            found.depth = 1
        return found


class Slots:
    """The books of a pool: see the module.

    *limit*: slots in all, *limit_per_host*: of one site, *max_idle*: idle ones. All may be
    ``inf``.
    """

    def __init__(
        self, keeper: Keeper, limit: float, limit_per_host: float, max_idle: float = inf
    ) -> None:
        self.keeper = keeper
        self.limit = limit
        self.limit_per_host = limit_per_host
        self.max_idle = max_idle
        self.open = 0
        self.queued = 0
        # All that are not gone.
        self.all: set[Slot] = set()
        # The oldest first: it is what is closed when a slot is needed.
        self.idle: OrderedDict[Slot, None] = OrderedDict()
        # Sites that wait for a slot of the pool.
        self.turns: OrderedDict[Site, None] = OrderedDict()
        self.sites: dict[Hashable, Site] = {}
        self._unused: OrderedDict[Site, None] = OrderedDict()

    # -------------------------------------------------------------------- sites

    def add_site(self, key: Hashable) -> Site:
        """Make the site *key*, and forget one that has been without use for the longest time."""
        site = self.sites[key] = Site(key, self)
        self._leave(site)
        return site

    def _use(self, site: Site) -> None:
        """*site* gets a connection, or somebody waits for one."""
        self._unused.pop(site, None)
        if site.retired and self.sites.setdefault(site.key, site) is site:
            # Forgotten between two requests of somebody who has kept it.
            site.retired = False

    def _leave(self, site: Site) -> None:
        """*site* has no connection, and nobody waits for one."""
        if site.retired:
            return
        self._unused[site] = None
        # Two at most: one for this one, one of those that could not be forgotten earlier.
        for _ in range(2):
            if len(self._unused) <= MAX_UNUSED:
                break
            oldest, _ = self._unused.popitem(last=False)
            if oldest.pace is not None and oldest.pace.delay(monotonic()) > 0:
                # Not before it may be asked again: it would be asked too early.
                self._unused[oldest] = None
            else:
                oldest.retired = True
                del self.sites[oldest.key]

    # -------------------------------------------------------------------- slots

    def new(self, site: Site) -> Slot | None:
        """Return a new slot of *site*, if the limits allow it; for it, an idle one may go."""
        if site.open >= self.limit_per_host:
            return None
        # What is idle while others wait lingers, and is not for who comes after them.
        if self.open >= self.limit and (not self.idle or self.turns):
            return None
        if not site.open:
            # First: what is closed may leave a site unused, for which this one would be forgotten.
            self._use(site)
            site.streak = 0
        if self.open >= self.limit:
            self.close_idle(next(iter(self.idle)))
        site.open += 1
        self.open += 1
        slot = Slot(site)
        self.all.add(slot)
        return slot

    def put(self, slot: Slot) -> None:
        """Take back *slot*, whose connection is idle and in order."""
        site = slot.site
        site.room.pop(slot, None)
        slot.depth = 0
        slot.idle_since = monotonic()
        wanted = bool(site.waiters) and self._may_begin(site)
        following = self._following(site) if self.turns else None
        stays = following is None or (
            not self._must_yield(site, following) if wanted else site.open <= following.open
        )
        if not stays:
            self._yield(slot)
        elif wanted:
            site.streak += 1
            self._hand(site, slot)
        else:
            self._keep(slot)
            if following is not None and not slot.gone:
                self.keeper.linger(slot)

    def expel(self, slot: Slot, since: float) -> None:
        """Close *slot*, idle *since* then, if it still is and others wait for it."""
        idle = slot in self.idle and slot.idle_since == since
        if idle and self._following(slot.site) is not None:
            self._yield(slot)

    def _yield(self, slot: Slot) -> None:
        """Give *slot* to the site whose turn it is."""
        self._forget(slot)
        self.keeper.close(slot)
        # Behind those that have waited for longer.
        self._seek_turn(slot.site)
        self._serve_turns()

    def share(self, slot: Slot) -> None:
        """Let others share *slot*, which has just connected or has an exchange less on its way."""
        site = slot.site
        if self.turns:
            following = self._following(site)
            if following is not None and (not site.waiters or self._must_yield(site, following)):
                # It is let run empty, and put() gives it to others.
                site.room.pop(slot, None)
                return
        most = min(site.pipelining, slot.left)
        while slot.depth < most and site.waiters and self._may_begin(site):
            if next(iter(site.waiters.values())):
                # Who is first wants a connection for itself: this one is let run empty.
                site.room.pop(slot, None)
                return
            slot.depth += 1
            site.streak += 1
            self._hand(site, slot)
        if slot.depth < most:
            site.room[slot] = None
        else:
            site.room.pop(slot, None)

    def remove(self, slot: Slot) -> None:
        """*slot* is gone: its connection has ended, or could not be made. Harmless if repeated."""
        if slot.gone:
            return
        self._forget(slot)
        self._seek_turn(slot.site)
        self._serve_turns()

    def close_idle(self, slot: Slot) -> None:
        """Close an idle connection."""
        self._forget(slot)
        self.keeper.close(slot)
        if self.turns:
            self._serve_turns()

    def _keep(self, slot: Slot) -> None:
        """*slot* is idle, and nobody wants it."""
        if len(self.idle) >= self.max_idle:
            if not self.idle:  # max_idle=0
                self.close_idle(slot)
                return
            self.close_idle(next(iter(self.idle)))
        slot.site.idle[slot] = self.idle[slot] = None

    def _forget(self, slot: Slot) -> None:
        """Take *slot* out of the books."""
        site = slot.site
        slot.gone = True
        self.all.discard(slot)
        if slot in self.idle:
            del self.idle[slot], site.idle[slot]
        site.room.pop(slot, None)
        site.open -= 1
        self.open -= 1
        if not site.open and not site.waiters:
            self._leave(site)

    def _hand(self, site: Site, slot: Slot) -> None:
        """Give *slot* to who has waited longest in *site*."""
        waiter, _ = site.waiters.popitem(last=False)
        self.queued -= 1
        if site.pace is not None:
            site.pace.begin(monotonic())
        slot.depth = slot.depth or 1
        if not site.waiters:
            self.turns.pop(site, None)
        waiter.set_result(slot)

    def _following(self, site: Site | None = None) -> Site | None:
        """Return the site whose turn it is, if it is not *site* but another."""
        turns = self.turns
        while turns:
            following = next(iter(turns))
            if following is site:
                if len(turns) == 1:
                    break
                turns.move_to_end(site)
            elif self._may_begin(following):
                return following
        return None

    def _must_yield(self, site: Site, following: Site) -> bool:
        """Whether a connection of *site*, where others wait for it, goes to *following*.

        Yes if *following* is better off then and *site* not worse than it. With one connection
        less than *site* it only changes places with it: that is for each of them to have, but a
        handshake for each request serves nobody.
        """
        more = site.open - following.open
        if more <= 0:
            # It is no worse off. Another may be: it is looked at next time.
            self.turns.move_to_end(following)
            return False
        return more > 1 or site.streak >= STREAK * site.open

    # ------------------------------------------------------------------ waiting

    def enqueue(
        self, site: Site, waiter: Waiter, exclusive: bool = True, *, first: bool = False
    ) -> None:
        """Let *waiter* get a slot when it is its turn, after ``take`` has returned None.

        *exclusive*: it wants the connection for itself. *first*: it had its turn already.
        """
        if not site.open:
            self._use(site)
        site.waiters[waiter] = exclusive
        site.waiters.move_to_end(waiter, last=not first)
        self.queued += 1
        if len(site.waiters) == 1:
            # Others would wait for the same. Something may be free since ``take``: a clock moves.
            self.serve(site)

    def cancel(self, site: Site, waiter: Waiter) -> bool:
        """Take *waiter* out of the queue; False if it is there no more, so has got its slot."""
        if waiter not in site.waiters:
            return False
        del site.waiters[waiter]
        self.queued -= 1
        if not site.waiters:
            self.turns.pop(site, None)
            if not site.open:
                self._leave(site)
        elif site.room:
            # The one that wanted a connection for itself may have been in the way.
            self.serve(site)
        return True

    def serve(self, site: Site) -> None:
        """Give slots to those who wait in *site*, as far as may be."""
        while site.waiters and self._may_begin(site):
            if next(iter(site.waiters.values())):
                slot = site._idle_or_new()
            else:
                slot = site._shared_or_idle_or_new()
            if slot is None:
                self._seek_turn(site)
                return
            self._hand(site, slot)

    def _serve_turns(self) -> None:
        while self.open < self.limit and (site := self._following()) is not None:
            del self.turns[site]
            slot = self.new(site)
            assert slot is not None, "in turns is who may have one more"
            site.streak = 0
            self._hand(site, slot)
            self._seek_turn(site)

    def _seek_turn(self, site: Site) -> None:
        """Let *site* wait for a slot of the pool, if it wants one and may have it."""
        if site.waiters and site.open < self.limit_per_host:
            self.turns[site] = None  # where it stands already, if it does

    def _may_begin(self, site: Site) -> bool:
        """Whether the pace of *site* allows a request now; if not, it is served later."""
        if site.pace is None:
            return True
        delay = site.pace.delay(monotonic())
        if delay <= 0:
            return True
        self.turns.pop(site, None)
        self.keeper.wake_later(site, delay)
        return False
