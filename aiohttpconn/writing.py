"""The writing side of a transport: back-pressure, and the waits of who sends a request.

A sender writes, then waits in ``drain`` until the transport takes more. Each of its waits ends
also when sending has become pointless, which ``can_send`` tells: the connection is gone, or an
answer is here that makes the rest of the request unwanted.

Layer: above response, below protocol.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

from .net.timeouts import NO_TIMEOUT, Timeout, Watchdog

if sys.platform == "linux":
    from fcntl import ioctl
    from termios import TIOCOUTQ

__all__ = ["WritingProtocol"]

TURN_BYTES = 4 * 1024 * 1024
"""Bytes written between turns of the loop, about a millisecond of a local peer's."""

TURN_SHARE = TURN_BYTES // 16
"""What a small write counts as: making it costs more than sending it."""


def _untaken(transport: asyncio.Transport, raw: asyncio.Transport | None) -> int:
    """Return how many written bytes the peer has not taken: the transports', and the kernel's.

    Linux wakes a writer only when a third of the kernel's buffer is free again. TIOCOUTQ tells
    of every byte; where there is none, the transport's own count has to do.
    """
    size = transport.get_write_buffer_size()
    if raw is not None and raw is not transport:
        size += raw.get_write_buffer_size()  # of TCP, below TLS
    sock = transport.get_extra_info("socket")
    if sys.platform == "linux" and sock is not None and sock.fileno() >= 0:
        with suppress(OSError):
            size += int.from_bytes(ioctl(sock.fileno(), TIOCOUTQ, bytes(4)), sys.byteorder)
    return size


class WritingProtocol(asyncio.BufferedProtocol):
    """What ``HTTP1Protocol`` knows of sending.

    Attributes: ``request_open``, from the first byte of a request to its last; ``can_send``,
    whether more of it is wanted; ``timed``, whether any limit is set.
    """

    __slots__ = (
        "_continue_waiter",
        "_drain_waiter",
        "_paused_writing",
        "_read_timeout",
        "_stop_waiter",
        "_timeout",
        "_undrained",
        "_unsent",
        "_watchdog",
        "_write_timeout",
        "can_send",
        "loop",
        "raw_transport",
        "request_open",
        "timed",
        "transport",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: Timeout) -> None:
        # Configuration
        self.loop = loop
        self.set_timeout(timeout)

        # Per connection
        self.transport: asyncio.Transport | None = None
        # What reading is paused on. A paused TLS transport loses data at a FIN: see net.dial.
        self.raw_transport: asyncio.Transport | None = None
        self._watchdog: Watchdog | None = None
        self._paused_writing = False
        # Bytes that the transport held when the wait for the peer to take some began.
        self._unsent = 0
        # Bytes written since the loop had a turn.
        self._undrained = 0
        self._drain_waiter: asyncio.Future[None] | None = None
        self._stop_waiter: asyncio.Future[None] | None = None

        # Per exchange
        self.request_open = False
        self.can_send = True
        self._continue_waiter: asyncio.Future[None] | None = None

    def set_timeout(self, timeout: Timeout) -> None:
        """Let the waits that begin from now on have the limits of *timeout*."""
        self._timeout = timeout
        self._read_timeout = timeout.read
        self._write_timeout = timeout.write
        self.timed = timeout != NO_TIMEOUT

    # ------------------------------------------------------- transport callbacks

    def pause_writing(self) -> None:
        """The transport's write buffer is full: ``drain`` waits from now on."""
        self._paused_writing = True

    def resume_writing(self) -> None:
        """The transport's write buffer has room again."""
        self._paused_writing = False
        self._wake_sender()

    # -------------------------------------------------------------------- sending

    def write(self, data: bytes | memoryview) -> None:
        """Write *data*; a connection that is gone swallows it."""
        if self.transport is not None:
            self._undrained += max(len(data), TURN_SHARE)
            self.transport.write(data)

    def request_done(self) -> None:
        """The request that was begun has been sent whole."""
        self.request_open = False

    async def drain(self) -> None:
        """Wait until the transport takes more; at once when sending has become pointless.

        A source that never waits, and a transport that takes all, would keep an early answer, a
        timeout and everybody else waiting: every ``TURN_BYTES`` the loop has a turn.
        """
        waited = False
        # Again if it was woken for another reason: a lent buffer must not be used before.
        while self._paused_writing and self.can_send:
            waited = True
            self._undrained = 0
            await self._wait_writable()
        if waited:
            return
        closing = self.transport is None or self.transport.is_closing()
        if closing or self._undrained >= TURN_BYTES:
            # Closing: a write has failed, and only the loop can tell us so.
            self._undrained = 0
            await asyncio.sleep(0)

    async def lend(self, data: memoryview) -> None:
        """Write *data* and wait until the transport holds none of it: its memory is used again.

        Once sending is pointless the wait ends earlier, and that memory must be left as it is.
        """
        transport = self.transport
        if transport is not None and not transport.is_closing():
            # Pause as soon as anything is held: a TLS transport at its limit, others above it.
            tls = transport.get_extra_info("ssl_object") is not None
            transport.set_write_buffer_limits(1 if tls else 0)
            self.write(data)
        try:
            await self.drain()
        finally:
            if transport is not None and not transport.is_closing():
                transport.set_write_buffer_limits()

    async def _wait_writable(self) -> None:
        """Wait for ``resume_writing``; woken also when sending is pointless."""
        waiter = self._drain_waiter = self.loop.create_future()
        if self._write_timeout is not None and self.transport is not None:
            self._unsent = _untaken(self.transport, self.raw_transport)
            self.watchdog().arm_write(self._write_timeout)
        try:
            await waiter
        finally:
            self._drain_waiter = None
            if self._watchdog is not None:
                self._watchdog.disarm_write()

    def stop_waiter(self) -> asyncio.Future[None]:
        """Return a future that is done once sending is pointless."""
        self._stop_waiter = waiter = self.loop.create_future()
        if not self.can_send:
            waiter.set_result(None)
        return waiter

    async def wait_continue(self, limit: float) -> None:
        """Wait for 100, for a final head or for *limit* seconds (RFC 9110 §10.1.1)."""
        waiter = self._continue_waiter = self.loop.create_future()
        timer = self.loop.call_later(limit, self._wake_continue)
        try:
            await waiter
        finally:
            self._continue_waiter = None
            timer.cancel()

    def watchdog(self) -> Watchdog:
        """Return the connection's one timer, made when first needed."""
        if self._watchdog is None:
            self._watchdog = Watchdog(self.loop, self._expired)
        return self._watchdog

    def _expired(self, name: str) -> None:
        """The watchdog's call: the limit *name* has passed."""
        raise NotImplementedError

    def _peer_takes_bytes(self) -> bool:
        """Whether the peer took bytes since the write limit was armed; if so, arm it anew."""
        if self.transport is None or self._write_timeout is None:
            return False
        unsent = _untaken(self.transport, self.raw_transport)
        if unsent >= self._unsent:
            return False
        self._unsent = unsent
        self.watchdog().arm_write(self._write_timeout)
        return True

    def _wake_sender(self) -> None:
        self._wake_continue()
        waiter = self._drain_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        waiter = self._stop_waiter
        if waiter is not None and not waiter.done() and not self.can_send:
            waiter.set_result(None)

    def _wake_continue(self) -> None:
        waiter = self._continue_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
