"""The connections of a pool: made, looked at before they are lent, kept idle, closed.

Who gets one is scheduler.py's business. There are no tasks: connections are made by the task that
wants one, what happens to idle ones is told by their transports, and one timer closes those that
have been idle for too long. Layer: pool.
"""

from __future__ import annotations

import asyncio
import re
import select
from contextlib import suppress
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..client.policy import retry_after
from ..exceptions import (
    ConnectError,
    ConnectTimeout,
    PoolClosed,
    RemoteDisconnected,
    describe,
)
from ..protocol import CLOSED, IDLE
from .closing import Closing
from .rate_limit import Pace
from .routes import name_proxy
from .scheduler import Site, Slot, Slots
from .wait_queue import Queue

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
busy. The look costs 1.0 to 1.2 µs: see benchmarks/micro/stale_look.py.
"""

KEEP_ALIVE_MARGIN = 1.0
"""Seconds before the server's own limit, or half of that, at which an idle connection is not used
any more: what is sent then may meet its end."""

CLOSE_SECONDS = 1.0
"""Until ``close()`` ends the connections whose peers do not answer the polite end."""

MAX_RETRY_AFTER = 3600.0
"""Seconds that a server's Retry-After pauses its origin at most."""

# Of RFC 2068's Keep-Alive: "timeout=5, max=100".
_HINT = re.compile(rb"(?i)\nkeep-alive:[^\r\n]*")
_TIMEOUT = re.compile(rb"(?i)[:,;\t ]timeout[\t ]*=[\t ]*([0-9]{1,9})")
_MAX = re.compile(rb"(?i)[:,;\t ]max[\t ]*=[\t ]*([0-9]{1,9})")


def _at_least(least: int, name: str, value: float | None) -> float:
    """Return a setting, ``inf`` for None; ``ValueError`` if it is below *least*."""
    if value is None:
        return inf
    if not value >= least:
        raise ValueError(f"{name} must be {least} or more, or None, got {value!r}")
    return value


class _Loan:
    """Owns a connection that is lent (``protocol.Owner``): it hears, and leaves it as it is."""

    __slots__ = ("_connections", "_slot")

    def __init__(self, connections: Connections, slot: Slot) -> None:
        self._connections = connections
        self._slot = slot

    def exchange_ended(self, protocol: Any, response: Any, count: int = 1) -> None:
        self._connections.heed(self._slot, response, count)
        if self._connections.respect_retry_after:
            self._connections.may_pause(self._slot.site, response)

    def connection_ended(self, protocol: Any) -> None:
        if self._slot.protocol is not None:
            self._connections.closing.add(self._slot.protocol)

    def transport_lost(self, protocol: HTTP1Protocol) -> None:
        """Known since ``connection_ended``."""


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
        respect_retry_after: bool,
        maker: Maker,
    ) -> None:
        # Configuration
        Pace(min_interval, rate)  # raises here, and not at the first request
        idle = _at_least(0, "max_idle", max_idle)
        self._keepalive_timeout = _at_least(0, "keepalive_timeout", keepalive_timeout)
        self.slots = Slots(
            self,
            _at_least(1, "limit", limit),
            _at_least(1, "limit_per_host", limit_per_host),
            # A timer would find the connections that are kept for no time at all too late.
            idle if self._keepalive_timeout else 0,
        )
        self.closed = False
        self._max_requests = _at_least(1, "max_requests", max_requests)
        self._max_age = _at_least(0, "max_age", max_age)
        if pipelining < 1:
            raise ValueError(f"pipelining must be 1 exchange or more, got {pipelining!r}")
        self._pipelining = pipelining
        self._min_interval = min_interval
        self._rate = rate
        self.respect_retry_after = respect_retry_after
        self._maker = maker

        # Per loop
        self.loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.closing = Closing()
        self._queue = Queue(self.slots, self.bind, self.give_back)
        self.acquire = self._queue.acquire
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

    def give_back(self, slot: Slot) -> None:
        """Take back *slot*, whose owner has not used it."""
        if slot.gone:
            return
        if slot.protocol is None:
            self._connect_failed(slot)
        elif slot.depth > 1:
            slot.depth -= 1
            self.slots.share(slot)
        elif slot.protocol.state is IDLE:
            self.slots.put(slot)
        else:
            self.drop(slot)

    def _connect_failed(self, slot: Slot) -> None:
        self.slots.remove(slot)
        self.closing.connect_ended(slot)

    async def open(
        self, slot: Slot, timeout: Timeout, deadline: float | None, method: str, target: str
    ) -> HTTP1Protocol:
        """Connect *slot*, which is the caller's; return what to send on.

        If it fails or is cancelled, the slot is gone. Raises what ``HTTPConnection.connect`` does.
        """
        route: Route = slot.site.key
        try:
            conn = slot.conn = await self._maker.make(route, slot.site.dialer)
            loop = self.bind()  # it may be closed meanwhile
            conn.timeout = timeout
            protocol = await conn._open(deadline, method, f"{slot.site.prefix}{target}")
            if protocol.state is not IDLE:
                self.closing.add(protocol)
                raise describe(
                    RemoteDisconnected("the server closed the connection before the request"),
                    method=method,
                    url=f"{route.origin}{target}",
                    phase="connected",
                )
        except BaseException as exc:
            self._connect_failed(slot)
            if isinstance(exc, (ConnectError, ConnectTimeout)):
                name_proxy(exc, route)
            raise
        slot.protocol = protocol
        slot.born = monotonic()
        slot.plain = False
        slot.left = self._max_requests
        slot.keepalive = self._keepalive_timeout
        protocol.owner = slot
        if self._timer is None and 0 < self._keepalive_timeout < inf:
            self._timer = loop.call_later(self._keepalive_timeout, self._expire)
        return protocol

    # ------------------------------------------------------------------ lending

    def report(self, slot: Slot) -> DialReport | None:
        """Return how the connection of *slot* was made."""
        return slot.conn._dial_report if slot.conn is not None else None

    def share(self, slot: Slot) -> None:
        """Let others share the connection of *slot* from now on."""
        if slot.protocol is not None:
            slot.protocol.batch_writes(True)  # type: ignore[attr-defined]
        self.slots.share(slot)

    def lend(self, slot: Slot) -> None:
        """Let the connection of *slot*, which is open, be the caller's alone."""
        protocol = slot.protocol
        assert protocol is not None, "a connection that is open"
        protocol.owner = _Loan(self, slot)
        protocol.batch_writes(False)  # type: ignore[attr-defined]

    def settle(self, slot: Slot, response: HTTPResponse) -> None:
        """Take back *slot*, lent for one exchange, with *response* on its way or whole."""
        conn, protocol = slot.conn, slot.protocol
        assert conn is not None and protocol is not None, "a connection that was lent"
        conn._response = None
        if protocol.state is CLOSED:
            self.connection_ended(slot)
            return
        protocol.owner = slot
        if protocol.state is IDLE:
            self._put(slot)

    def take_back(self, slot: Slot) -> None:
        """Take back *slot*, lent to somebody who may have done anything with its connection."""
        conn = slot.conn
        assert conn is not None, "a connection that was lent"
        protocol = conn._give_back()
        if protocol is not None and protocol is slot.protocol:
            protocol.owner = slot
            self._put(slot)
            return
        # Ended; or another one that the caller has opened, who knows where to.
        conn.close()
        if slot.protocol is not None:
            slot.protocol.abort()
        if conn._closing is not None:
            self.closing.add(conn._closing)
        self.slots.remove(slot)

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

    def replace(self, slot: Slot) -> Slot:
        """Close the connection of *slot*, which is stale and the caller's; return another slot.

        One that is idle and not stale, or, without a connection, the last of those that are: the
        caller's turn, and its moment where there is a pace, are used for that.
        """
        while (other := slot.site.take_idle()) is not None:
            other.depth = slot.depth
            self.drop(slot)
            slot = other
            if not self.is_stale(slot):
                return slot
        self.renew(slot)
        return slot

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
            self.closing.add(protocol)
            protocol.close()

    def connection_ended(self, slot: Slot) -> None:
        """Mirrors ``slots.Keeper``."""
        protocol, site = slot.protocol, slot.site
        if protocol is not None:
            self.closing.add(protocol)
            if protocol.state is not CLOSED and slot.conn is not None:
                # It still receives a last response, whose it is now.
                slot.conn._protocol = None
            answered = protocol.exchanges - slot.depth
            if protocol.closed_by_peer and slot.depth > 1 and answered < site.pipelining:
                # It has left more unanswered than it was worth: RFC 9112 §9.3.2 allows a server
                # to end a connection whenever it likes, and some do after each response.
                site.pipelining = 1
                site.room.clear()
        self.slots.remove(slot)

    def exchange_ended(self, slot: Slot, response: Any, count: int) -> None:
        """Mirrors ``slots.Keeper``."""
        self.heed(slot, response, count)
        if slot.depth > count:
            slot.depth -= count
            slot.idle_since = now = monotonic()  # who is handed it may find it idle
            if now - slot.born > self._max_age:
                slot.site.room.pop(slot, None)  # it is let run empty
            else:
                self.slots.share(slot)
        else:
            self._put(slot)

    def _put(self, slot: Slot) -> None:
        """Let *slot*, whose connection is idle, serve others, if it may."""
        if slot.left <= 0 or monotonic() - slot.born > self._max_age:
            self.drop(slot)
        else:
            self.slots.put(slot)

    def heed(self, slot: Slot, response: Any, count: int) -> None:
        """Take over what *response*, the last of *count* that have ended, says of the next ones.

        Keep-Alive tells how long the server keeps the connection, and for how many requests.
        """
        slot.left -= count
        if response.number == count:
            hint = _HINT.search(response.head or b"")
            if hint is not None:
                if seconds := _TIMEOUT.search(hint[0]):
                    limit = float(seconds[1])
                    slot.keepalive = min(slot.keepalive, limit - min(KEEP_ALIVE_MARGIN, limit / 2))
                if requests := _MAX.search(hint[0]):
                    slot.left = min(slot.left, int(requests[1]))
            slot.plain = (
                slot.site.pipelining == 1
                and slot.depth <= count
                and slot.left == self._max_age == inf
            )

    def may_pause(self, site: Site, response: HTTPResponse) -> None:
        """Let nothing begin at *site* for as long as *response* says (RFC 9110 §10.2.3).

        With ``respect_retry_after``, for each response whose head is here.
        """
        if response.status not in (429, 503):
            return
        seconds = retry_after(response.getheader("Retry-After"))
        if seconds is not None:
            if site.pace is None:
                site.pace = Pace()
            site.pace.pause(monotonic() + min(seconds, MAX_RETRY_AFTER))

    def linger(self, slot: Slot) -> None:
        """Mirrors ``slots.Keeper``."""
        if self.loop is not None:
            # Behind the task that is woken now.
            self.loop.call_soon(self.loop.call_soon, self.slots.expel, slot, slot.idle_since)

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
        if self.loop is None:
            return
        if self.loop.is_closed():
            self._abandon()
            return
        self._stop_timers()
        self._queue.close()
        self.closing.abort_open()
        for slot in list(self.slots.all):
            self._end(slot)

    def _end(self, slot: Slot) -> None:
        """Close the connection of *slot*, politely if it is idle."""
        conn, protocol = slot.conn, slot.protocol
        idle = slot in self.slots.idle
        if protocol is None:
            # Whose task has to run first, and takes the slot out of the books.
            self.closing.add_connect(slot)
        else:
            self.closing.add(protocol)
            self.slots.remove(slot)
        if conn is not None:
            # Also ends a connect that is under way.
            conn.close()
            conn.auto_open = 0
            if conn._closing is not None:
                self.closing.add(conn._closing)
        if protocol is not None and not idle:
            protocol.abort()

    async def wait_closed(self) -> None:
        """Wait until all sockets are gone, ``CLOSE_SECONDS`` for the polite end of them."""
        if asyncio.get_running_loop() is self.loop:
            await self.closing.wait(CLOSE_SECONDS)
            self.closing.abort()
            await self.closing.wait(CLOSE_SECONDS)

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
        self.closing = Closing()
        self._queue.forget()
        for site in self.slots.sites.values():
            site.timer = None
        for slot in list(self.slots.all):
            if slot.protocol is not None:
                slot.protocol.owner = None
                with suppress(RuntimeError):  # who waits there cannot be woken
                    slot.protocol.abort()
            self.slots.remove(slot)

    def __repr__(self) -> str:
        slots = self.slots
        state = "closed" if self.closed else f"{slots.open} open, {len(slots.idle)} idle"
        return f"{state}, {slots.queued} queued"
