"""Time limits: ``Timeout``, the setting, and ``Watchdog``, one lazy timer per connection.

A timer of asyncio costs ten times as much as a stored number (benchmarks/micro/timers.py). So the
Watchdog stores the time at which a wait must end, and keeps one timer however many waits begin
and end. A timer that fires early is set again. Layer: net.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from ..arguments import number
from ..types import exact

__all__ = ["NO_TIMEOUT", "Timeout", "Watchdog"]

_check_seconds = number("seconds", above=0, none=True)


@dataclass(frozen=True, slots=True)
class Timeout:
    """Limits in seconds, each None for "no limit".

    ``total``: from ``request()``, with any connect that it needs, to the response's last byte.
    ``connect``: name lookup, TCP, proxy and TLS together.
    ``head``: how long the caller waits for the response's head, from when the request is sent to
    the head's last byte; None leaves this wait to ``read``.
    ``read``: how long the caller waits while no byte arrives; with ``head``, of the body only.
    ``write``: how long the peer may accept no byte of the request that is being sent. It expires
    up to a sixteenth later, because nothing tells when the last byte was accepted.
    ``pool``: how long the request waits for a connection of a pool; it is no part of ``connect``.

    A plain number ``t`` as a connection's ``timeout`` is ``Timeout(connect=t, read=t, write=t)``:
    http.client's meaning, per operation. Raises ``ValueError`` for a limit that is not positive.
    """

    total: float | None = None
    connect: float | None = None
    read: float | None = None
    write: float | None = None
    pool: float | None = None
    head: float | None = None

    def __post_init__(self) -> None:
        for name in ("total", "connect", "read", "write", "pool", "head"):
            value = getattr(self, name)
            # Requests make timeouts: most limits are good, and take no call.
            if value is not None and not (type(value) in (float, int) and value > 0):
                _check_seconds(f"Timeout({name}=...)", exact(value))
                object.__setattr__(self, name, exact(value))

    @classmethod
    def of(cls, value: float | Timeout | None) -> Timeout:
        """Return *value* as a ``Timeout``: a number applies per operation, None sets no limit."""
        if value is None:
            return NO_TIMEOUT
        if isinstance(value, Timeout):
            return value
        return cls.each(value)

    @classmethod
    def each(cls, seconds: float, pool: float | None = None) -> Timeout:
        """Return the ``Timeout`` of *seconds* per operation; errors name the argument."""
        try:
            return cls(connect=seconds, read=seconds, write=seconds, pool=pool)
        except (TypeError, ValueError) as exc:
            raise type(exc)(
                f"timeout must be seconds above 0, a Timeout or None, got {seconds!r:.200}"
            ) from None


NO_TIMEOUT = Timeout()


class Watchdog:
    """Call *expired* with the name of the limit when an armed deadline has passed.

    There are four deadlines, as times of the loop's clock: ``total`` for the exchange, ``head``,
    ``read`` and ``write`` for the current waits. A deadline later than the timer needs no new
    timer. The one for the head may be in force when that has arrived: *expired* checks that.
    """

    __slots__ = ("_expired", "_handle", "_head", "_loop", "_read", "_total", "_when", "_write")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[str], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._handle: asyncio.TimerHandle | None = None
        self._when = inf
        self._total = inf
        self._head = inf
        self._read = inf
        self._write = inf

    def arm_total(self, deadline: float) -> None:
        """Set the deadline of the exchange."""
        self._total = deadline
        self._ensure(deadline)

    def arm_head(self, deadline: float) -> None:
        """Give the peer until *deadline* to send the whole head."""
        self._head = deadline
        self._ensure(deadline)

    def arm_read(self, seconds: float) -> None:
        """Give the peer *seconds* from now to send bytes."""
        self._read = deadline = self._loop.time() + seconds
        self._ensure(deadline)

    def arm_read_at(self, deadline: float) -> None:
        """Give the peer until *deadline* to send bytes."""
        self._read = deadline
        if deadline < self._when:
            self._ensure(deadline)

    def arm_write(self, seconds: float) -> None:
        """Give the peer *seconds* from now to accept bytes."""
        self._write = deadline = self._loop.time() + seconds
        self._ensure(deadline)

    @property
    def is_read_disarmed(self) -> bool:
        """Whether no deadline is set for bytes to arrive."""
        return self._read == inf

    def progress(self, seconds: float) -> None:
        """Start a current wait for bytes again, because bytes have arrived."""
        if self._read != inf:
            self._read = self._loop.time() + seconds

    def disarm_read(self) -> None:
        """Clear the deadline for bytes. The timer stays: the next wait will most likely use it."""
        self._read = inf

    def disarm_write(self) -> None:
        """Clear the deadline for the peer to accept bytes."""
        self._write = inf

    def disarm(self) -> None:
        """Clear every deadline: the exchange is over."""
        self._total = self._head = self._read = self._write = inf

    def stop(self) -> None:
        """Cancel the timer for good."""
        self.disarm()
        self._when = inf
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _ensure(self, deadline: float) -> None:
        if deadline < self._when:
            # First: it may fail, and the timer that is there goes on.
            handle = self._loop.call_at(deadline, self._fire)
            if self._handle is not None:
                self._handle.cancel()
            self._when, self._handle = deadline, handle

    def _fire(self) -> None:
        self._handle = None
        self._when = inf
        deadline = min(self._total, self._head, self._read, self._write)
        try:
            # The loop may fire a timer early by its clock's resolution.
            if deadline - self._loop.time() <= 0.001:
                if deadline == self._total:
                    self._total = inf
                    self._expired("total")
                elif deadline == self._head:
                    self._head = inf
                    self._expired("head")
                elif deadline == self._read:
                    self._read = inf
                    self._expired("read")
                else:
                    self._write = inf
                    self._expired("write")
        finally:
            # If nothing has ended, the other deadlines still apply.
            self._ensure(min(self._total, self._head, self._read, self._write))
