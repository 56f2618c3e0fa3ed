"""The connections of a pool: made, looked at before they are lent, kept idle, closed.

Who gets one is slots.py's business. There are no tasks: connections are made by the task that wants
one, what happens to idle ones is told by their transports, and one timer closes those that have
been idle for too long. Layer: client.
"""

from __future__ import annotations

import asyncio
import re
import select
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..exceptions import (
    PoolClosed,
    PoolTimeout,
    RemoteDisconnected,
    TotalTimeout,
    describe,
)
from ..protocol import CLOSED, IDLE
from .pacing import Pace
from .policy import retry_after
from .slots import INFINITY, Site, Slot, Slots

if TYPE_CHECKING:
    from ..net.dial import DialReport
    from ..net.timeouts import Timeout
    from ..protocol import HTTP1Protocol
    from ..response import HTTPResponse
    from .routes import Maker, Route

__all__ = ["LOOK_AFTER", "Connections"]

LOOK_AFTER = 0.001
"""Seconds of idleness from which on a connection's socket is looked at before it is lent.

Bytes that came earlier, the loop has seen by itself: it closes such a connection at once. Only what
came since it last polled waits in the kernel, and it polls more often than that unless it is kept
busy. The look costs 0.7 µs: see benchmarks/micro/stale_look.py.
"""

KEEP_ALIVE_MARGIN = 1.0
"""Seconds before the server's own limit at which an idle connection is not used any more."""

CLOSE_SECONDS = 1.0
"""Until ``close()`` ends the connections whose peers do not answer the polite end."""

MAX_RETRY_AFTER = 3600.0
"""Seconds that a server's Retry-After pauses its origin at most."""

# Of RFC 2068's Keep-Alive: "timeout=5, max=100".
_HINT = re.compile(rb"(?i)\nkeep-alive:[^\r\n]*")
_TIMEOUT = re.compile(rb"(?i)[:,;\t ]timeout[\t ]*=[\t ]*([0-9]{1,9})")
_MAX = re.compile(rb"(?i)[:,;\t ]max[\t ]*=[\t ]*([0-9]{1,9})")


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


class _Closing:
    """Sockets that are closing. The owner of their protocols."""

    def __init__(self) -> None:
        self.protocols: set[HTTP1Protocol] = set()
        self.waiter: asyncio.Future[None] | None = None

    def add(self, protocol: HTTP1Protocol) -> None:
        if protocol.transport is not None:
            protocol.owner = self
            self.protocols.add(protocol)

    def exchange_ended(self, response: Any, count: int = 1) -> None:
        """A response that was read to its end although its connection had left the pool."""

    def connection_ended(self) -> None:
        """Known."""

    def transport_lost(self, protocol: HTTP1Protocol) -> None:
        self.protocols.discard(protocol)
        if not self.protocols and self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Connections:
    """What ``ConnectionPool`` is made of; see there for the arguments. The keeper of its slots.

    Belongs to the event loop in which it is first used.
    """

    def __init__(
        self,
        *,
        limit: int | None,
        limit_per_host: int | None,
        keepalive_timeout: float,
        max_idle: int | None,
        max_requests: int | None,
        max_age: float | None,
        pipelining: int,
        min_interval: float | None,
        rate: str | None,
        heed_retry_after: bool,
        maker: Maker,
    ) -> None:
        # Configuration
        for name, value in (("limit", limit), ("limit_per_host", limit_per_host)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 connection or more, or None, got {value!r}")
        if pipelining < 1:
            raise ValueError(f"pipelining must be 1 exchange or more, got {pipelining!r}")
        Pace(min_interval, rate)  # raises here, and not at the first request
        self.slots = Slots(
            self,
            INFINITY if limit is None else limit,
            INFINITY if limit_per_host is None else limit_per_host,
            INFINITY if max_idle is None else max_idle,
        )
        self.closed = False
        self._keepalive_timeout = keepalive_timeout
        self._max_requests = INFINITY if max_requests is None else max_requests
        self._max_age = INFINITY if max_age is None else max_age
        self._pipelining = pipelining
        self._min_interval = min_interval
        self._rate = rate
        self._heed_retry_after = heed_retry_after
        self._maker = maker

        # Per loop
        self.loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closing = _Closing()
        self._poll = select.poll() if hasattr(select, "poll") else None

    # -------------------------------------------------------------------- sites

    def site(self, route: Route) -> Site:
        """Return what is known of *route*."""
        site = self.slots.sites.get(route)
        if site is None:
            site = self.slots.add_site(route)
            site.pipelining = self._pipelining
            site.authority = route.authority
            site.dialer = self._maker.dialer()
            if self._min_interval is not None or self._rate is not None:
                site.pace = Pace(self._min_interval, self._rate)
            if route.forward and route.proxy is not None:
                site.prefix = route.origin
                if authorization := route.proxy.authorization:
                    site.fields = f"Proxy-Authorization: {authorization}\r\n"
        return site

    def bind(self) -> asyncio.AbstractEventLoop:
        """Return the running loop, which is the pool's from now on.

        Raises ``RuntimeError`` if the pool belongs to another one, and ``PoolClosed``. What is
        left of a loop that was closed meanwhile is forgotten.
        """
        loop = asyncio.get_running_loop()
        if self.closed:
            raise PoolClosed("the pool is closed")
        if self.loop is not loop:
            if self.loop is not None:
                if not self.loop.is_closed():
                    raise RuntimeError("this pool belongs to another event loop: make one for each")
                self._abandon()
            self.loop = loop
        return loop

    # ------------------------------------------------------------------ getting

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
        loop = self.bind()
        began = loop.time()
        when = INFINITY if timeout.pool is None else began + timeout.pool
        kind: type[TotalTimeout | PoolTimeout] = PoolTimeout
        if deadline is not None and deadline < when:
            when, kind = deadline, TotalTimeout
        while True:
            waiter = _Waiter(loop.create_future())
            self.slots.enqueue(site, waiter, exclusive)
            timer = None
            if when < INFINITY:
                timer = loop.call_at(when, self._expired, waiter, kind)
            try:
                await waiter.future
            except BaseException as exc:
                if not self.slots.cancel(site, waiter) and waiter.slot is not None:
                    self.give_back(waiter.slot)
                if isinstance(exc, (PoolTimeout, TotalTimeout)):
                    describe(
                        exc,
                        f"no connection was free within {when - began:g} s",
                        method=method,
                        url=f"{site.key.origin}{target}",
                        phase="waiting for a connection",
                        elapsed=loop.time() - began,
                        notes=self._crowd(site),
                    )
                raise
            finally:
                if timer is not None:
                    timer.cancel()
            slot = waiter.slot
            assert slot is not None, "woken without a slot"
            if not slot.gone:
                return slot
            # Its connection has ended in the turn between.

    def _expired(self, waiter: _Waiter, kind: type[Exception]) -> None:
        if waiter.slot is None and not waiter.future.done():
            waiter.future.set_exception(kind())

    def _crowd(self, site: Site) -> str:
        """Return who has the connections, and how many wait: for a timeout's text."""
        slots = self.slots
        return (
            f"{site.open} of {slots.limit_per_host} connections to {site.authority}, "
            f"{slots.open} of {slots.limit} in all, {slots.queued} more waiting"
        )

    def give_back(self, slot: Slot) -> None:
        """Take back *slot*, whose owner has not used it."""
        if slot.gone:
            return
        if slot.protocol is None:
            self.slots.remove(slot)
        elif slot.depth > 1:
            slot.depth -= 1
            self.slots.share(slot)
        elif slot.protocol.state is IDLE:
            self.slots.put(slot)
        else:
            self.drop(slot)

    async def open(
        self, slot: Slot, timeout: Timeout, deadline: float | None, method: str, target: str
    ) -> HTTP1Protocol:
        """Connect *slot*, which is the caller's; return what to send on.

        If it fails or is cancelled, the slot is gone. Raises what ``HTTPConnection.connect`` does.
        """
        loop = self.bind()
        route: Route = slot.site.key
        try:
            conn = slot.conn = await self._maker.make(route, slot.site.dialer)
            conn.timeout = timeout
            protocol = await conn._open(deadline, method, f"{slot.site.prefix}{target}")
            if self.closed:
                conn.close()
                raise PoolClosed("the pool was closed")
            if protocol.state is not IDLE:
                raise describe(
                    RemoteDisconnected("the server closed the connection before the request"),
                    method=method,
                    url=f"{route.origin}{target}",
                    phase="connected",
                )
        except BaseException:
            self.slots.remove(slot)
            raise
        self._adopt(slot, protocol)
        if self._timer is None:
            self._timer = loop.call_later(self._keepalive_timeout, self._expire)
        return protocol

    def report(self, slot: Slot) -> DialReport | None:
        """Return how the connection of *slot* was made."""
        return slot.conn._dial_report if slot.conn is not None else None

    def share(self, slot: Slot) -> None:
        """Let others share the connection of *slot* from now on."""
        if slot.protocol is not None:
            slot.protocol.batch_writes(True)
            slot.plain = False
        self.slots.share(slot)

    def settle(self, slot: Slot, response: HTTPResponse) -> None:
        """Take back *slot*, lent by ``exchange.lend``, with *response* on its way or whole."""
        conn = slot.conn
        assert conn is not None, "a connection that was lent"
        protocol = conn._protocol
        if protocol is None:
            # It is the response's, and ends with it.
            protocol, conn._closing = conn._closing, None
        conn._response = None
        if protocol is None or protocol.state is CLOSED:
            slot.protocol = protocol
            self.connection_ended(slot)
            return
        if protocol is slot.protocol:
            protocol.owner = slot
        else:
            self._adopt(slot, protocol)
        if protocol.state is IDLE:
            self.exchange_ended(slot, response, 1)

    def take_back(self, slot: Slot) -> None:
        """Take back *slot*, lent to somebody who may have done anything with its connection."""
        conn = slot.conn
        assert conn is not None, "a connection that was lent"
        protocol = conn._give_back()
        if protocol is None:
            self.slots.remove(slot)
        else:
            if protocol is slot.protocol:
                protocol.owner = slot
            else:
                self._adopt(slot, protocol)
            if protocol.exchanges >= slot.max_exchanges or self.closed:
                self.drop(slot)
            else:
                self.slots.put(slot)

    def _adopt(self, slot: Slot, protocol: HTTP1Protocol) -> None:
        """*slot* has a new connection."""
        slot.protocol = protocol
        slot.born = monotonic()
        slot.plain = False
        slot.max_exchanges = self._max_requests
        slot.keepalive = self._keepalive_timeout
        protocol.owner = slot

    # ------------------------------------------------------------------ keeping

    def is_stale(self, slot: Slot) -> bool:
        """Whether the idle connection of *slot* must not be used any more.

        One look at its socket that does not wait: whatever can be read there, an end of file too,
        is nothing that a request asked for.
        """
        protocol = slot.protocol
        if protocol is None or protocol.state is not IDLE:
            return True
        now = monotonic()
        if now - slot.idle_since > slot.keepalive or now - slot.born > self._max_age:
            return True
        sock = protocol.get_extra_info("socket")
        if sock is None or (number := sock.fileno()) < 0:
            return True
        poll = self._poll
        if poll is None:
            return bool(select.select([number], [], [], 0)[0])
        poll.register(number, select.POLLIN)
        try:
            return bool(poll.poll(0))
        finally:
            poll.unregister(number)

    def drop(self, slot: Slot) -> None:
        """Close the connection of *slot*, which is the caller's; the slot is for others."""
        self.close(slot)
        self.slots.remove(slot)

    def renew(self, slot: Slot) -> None:
        """Close the connection of *slot*, and keep the slot for another one."""
        self.close(slot)
        slot.protocol = slot.conn = None

    def close(self, slot: Slot) -> None:
        """Mirrors ``slots.Keeper``."""
        protocol = slot.protocol
        if protocol is not None:
            self._closing.add(protocol)
            protocol.close()

    def connection_ended(self, slot: Slot) -> None:
        """Mirrors ``slots.Keeper``."""
        protocol = slot.protocol
        if protocol is not None:
            self._closing.add(protocol)
            if slot.depth > 1 and protocol.exchanges - slot.depth < slot.site.pipelining:
                # It has left more unanswered than it was worth: RFC 9112 §9.3.2 allows a server
                # to end a connection whenever it likes, and some do after each response.
                slot.site.pipelining = 1
        self.slots.remove(slot)

    def exchange_ended(self, slot: Slot, response: Any, count: int) -> None:
        """Mirrors ``slots.Keeper``."""
        protocol = slot.protocol
        assert protocol is not None, "an exchange on no connection"
        if response.number == count:
            self._heed_hints(slot, response._head)
        if self._heed_retry_after and response.status in (429, 503):
            self._pause(slot.site, response)
        ends = protocol.exchanges >= slot.max_exchanges
        if slot.depth > count:
            slot.depth -= count
            if not ends:
                self.slots.share(slot)
            else:
                slot.site.room.pop(slot, None)
        elif ends or monotonic() - slot.born > self._max_age:
            self.drop(slot)
        else:
            self.slots.put(slot)

    def _heed_hints(self, slot: Slot, head: bytes | None) -> None:
        """Take over what the server says in Keep-Alive: how long, and for how many requests."""
        hint = _HINT.search(head or b"")
        if hint is not None:
            if seconds := _TIMEOUT.search(hint[0]):
                lasting = max(float(seconds[1]) - KEEP_ALIVE_MARGIN, 0.0)
                slot.keepalive = min(slot.keepalive, lasting)
            if requests := _MAX.search(hint[0]):
                slot.max_exchanges = min(slot.max_exchanges, 1 + int(requests[1]))
        slot.plain = (
            slot.site.pipelining == 1
            and slot.max_exchanges == self._max_age == INFINITY
            and not self._heed_retry_after
        )

    def _pause(self, site: Site, response: Any) -> None:
        """Let nothing begin at *site* for as long as Retry-After says (RFC 9110 §10.2.3)."""
        seconds = retry_after(response.getheader("Retry-After"))
        if seconds is not None:
            if site.pace is None:
                site.pace = Pace()
            site.pace.pause(monotonic() + min(seconds, MAX_RETRY_AFTER))

    def wake_later(self, site: Site, delay: float) -> None:
        """Mirrors ``slots.Keeper``."""
        if site.timer is None and self.loop is not None:
            site.timer = self.loop.call_later(delay, self._wake, site)

    def _wake(self, site: Site) -> None:
        site.timer = None
        self.slots.serve(site)

    def _expire(self) -> None:
        """Close what has been idle for too long; the timer's call."""
        slots = self.slots
        now = monotonic()
        due = now + self._keepalive_timeout
        while slots.idle:
            oldest = next(iter(slots.idle))
            due = oldest.idle_since + self._keepalive_timeout
            if due > now:
                break
            slots.close_idle(oldest)
            due = now + self._keepalive_timeout
        self._timer = None
        if slots.open and self.loop is not None:
            # A little later: a timer may fire early by the clock's resolution.
            self._timer = self.loop.call_later(due - now + 0.01, self._expire)

    # ------------------------------------------------------------------ closing

    def shut(self) -> None:
        """Close everything, without waiting: who waits or is served gets an exception."""
        self.closed = True
        if self.loop is None or self.loop.is_closed():
            return
        self._stop_timers()
        for site in list(self.slots.sites.values()):
            for waiter in list(site.waiters):
                self.slots.cancel(site, waiter)
                if isinstance(waiter, _Waiter) and not waiter.future.done():
                    waiter.future.set_exception(PoolClosed("the pool was closed"))
        for slot in list(self.slots.all):
            idle = slot in self.slots.idle
            if slot.protocol is not None:
                self._closing.add(slot.protocol)
            if slot.conn is not None:
                # Also ends a connect that is under way.
                slot.conn.close()
            if slot.protocol is not None and not idle:
                slot.protocol.abort()
            if slot.protocol is not None:
                self.slots.remove(slot)

    async def wait_closed(self) -> None:
        """Wait until all sockets are gone, ``CLOSE_SECONDS`` for the polite end of them."""
        loop = asyncio.get_running_loop()
        closing = self._closing
        if loop is not self.loop:
            return
        for hard in (False, True):
            if hard:
                for protocol in list(closing.protocols):
                    protocol.abort()
            if not closing.protocols:
                break
            closing.waiter = loop.create_future()
            timer = loop.call_later(CLOSE_SECONDS, self._give_up, closing.waiter)
            try:
                await closing.waiter
            finally:
                timer.cancel()
                closing.waiter = None

    @staticmethod
    def _give_up(waiter: asyncio.Future[None]) -> None:
        if not waiter.done():
            waiter.set_result(None)

    def _stop_timers(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for site in self.slots.sites.values():
            if site.timer is not None:
                site.timer.cancel()
                site.timer = None

    def _abandon(self) -> None:
        """Forget what belongs to a loop that was closed: nothing of it will be told any more."""
        self._timer = None
        self._closing = _Closing()
        for site in self.slots.sites.values():
            site.timer = None
            for waiter in list(site.waiters):
                self.slots.cancel(site, waiter)
        for slot in list(self.slots.all):
            if slot.protocol is not None:
                slot.protocol.owner = None
                slot.protocol.abort()
            self.slots.remove(slot)

    def __repr__(self) -> str:
        slots = self.slots
        state = "closed" if self.closed else f"{slots.open} open, {len(slots.idle)} idle"
        return f"{state}, {slots.queued} queued"
