"""How long to wait: ``Timeout``, the setting, and ``Watchdog``, one lazy timer per connection.

A timer of asyncio costs ten times what a stored number does (benchmarks/micro/timers.py). So the
Watchdog stores the moment a wait must end, keeps one timer however many waits begin and end, and
when that timer fires early it is set anew. Layer: net.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

__all__ = ["NO_TIMEOUT", "Timeout", "Watchdog"]


@dataclass(frozen=True, slots=True)
class Timeout:
    """Limits in seconds, each None for "no limit".

    ``total``: from ``request()`` (a connect it needs included) to the response's last byte.
    ``connect``: name lookup, TCP, proxy and TLS together.
    ``read``: how long the caller waits without one byte arriving.
    ``write``: how long the peer takes no byte while the request is being sent.
    ``pool``: how long a pool may let the request wait for a connection; no part of ``connect``.

    A plain number ``t`` as a connection's ``timeout`` is ``Timeout(connect=t, read=t, write=t)``:
    http.client's meaning, per operation. Raises ``ValueError`` for a limit that is not above zero.
    """

    total: float | None = None
    connect: float | None = None
    read: float | None = None
    write: float | None = None
    pool: float | None = None

    def __post_init__(self) -> None:
        for name in ("total", "connect", "read", "write", "pool"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"Timeout({name}=...) must be seconds or None, got {value!r}")
            if not value > 0:
                raise ValueError(f"Timeout({name}=...) must be above 0 seconds, got {value!r}")

    @classmethod
    def of(cls, value: float | Timeout | None) -> Timeout:
        """Return *value* as a ``Timeout``: a number holds per operation, None never ends."""
        if value is None:
            return NO_TIMEOUT
        if isinstance(value, Timeout):
            return value
        return cls(connect=value, read=value, write=value)


NO_TIMEOUT = Timeout()


class Watchdog:
    """Call *expired* with the name of the limit when an armed deadline has passed.

    Three deadlines, as times of the loop's clock: ``total`` for the exchange, ``read`` and
    ``write`` for the waits that are on. To arm one later than the timer costs no timer.
    """

    __slots__ = ("_expired", "_handle", "_loop", "_read", "_total", "_when", "_write")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[str], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._handle: asyncio.TimerHandle | None = None
        self._when = inf
        self._total = inf
        self._read = inf
        self._write = inf

    def arm_total(self, deadline: float) -> None:
        """Let the exchange end by *deadline*."""
        self._total = deadline
        self._ensure(deadline)

    def arm_read(self, seconds: float) -> None:
        """Let the wait for bytes that begins now end after *seconds*."""
        self._read = deadline = self._loop.time() + seconds
        self._ensure(deadline)

    def arm_read_at(self, deadline: float) -> None:
        """Let a wait for bytes end by *deadline*."""
        self._read = deadline
        if deadline < self._when:
            self._ensure(deadline)

    def arm_write(self, seconds: float) -> None:
        """Let the wait for the peer to take bytes that begins now end after *seconds*."""
        self._write = deadline = self._loop.time() + seconds
        self._ensure(deadline)

    @property
    def is_read_disarmed(self) -> bool:
        """Whether no deadline is set for bytes to arrive."""
        return self._read == inf

    def progress(self, seconds: float) -> None:
        """Bytes have arrived: a wait for bytes that is on begins anew."""
        if self._read != inf:
            self._read = self._loop.time() + seconds

    def disarm_read(self) -> None:
        """Clear the deadline for bytes. The timer stays: the next wait will most likely use it."""
        self._read = inf

    def disarm_write(self) -> None:
        """Clear the deadline for the peer to take bytes."""
        self._write = inf

    def disarm(self) -> None:
        """Clear every deadline: the exchange is over."""
        self._total = self._read = self._write = inf

    def stop(self) -> None:
        """Cancel the timer for good."""
        self.disarm()
        self._when = inf
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _ensure(self, deadline: float) -> None:
        if deadline < self._when:
            if self._handle is not None:
                self._handle.cancel()
            self._when = deadline
            self._handle = self._loop.call_at(deadline, self._fire)

    def _fire(self) -> None:
        self._handle = None
        self._when = inf
        deadline = min(self._total, self._read, self._write)
        if deadline == inf:
            return
        # The loop may fire a timer early by its clock's resolution.
        if deadline - self._loop.time() > 0.001:
            self._ensure(deadline)
        elif deadline == self._total:
            self._total = inf
            self._expired("total")
        elif deadline == self._read:
            self._read = inf
            self._expired("read")
        else:
            self._write = inf
            self._expired("write")
            # A peer that took bytes goes on, and the other deadlines still hold.
            self._ensure(min(self._total, self._read))
