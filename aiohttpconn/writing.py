"""Upload: one request's body being sent, its back-pressure, and when to stop sending it.

The sender writes, then waits in ``drain`` until the transport takes more. Each of its waits also
ends when no more of the body is wanted: the connection has ended, or an answer has arrived that
makes it pointless to send on.

Layer: above response, below protocol.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

if sys.platform == "linux":
    from fcntl import ioctl
    from termios import TIOCOUTQ

if TYPE_CHECKING:
    from .net.timeouts import Watchdog

__all__ = ["Upload"]

TURN_BYTES = 4 * 1024 * 1024
"""Bytes written between two turns of the loop: about a millisecond for a local peer."""

TURN_SHARE = TURN_BYTES // 16
"""Bytes that a smaller write counts as: making a small block costs more than sending it."""


LOOKS = 16
"""Times within the write limit that a waiting sender looks whether the peer has taken bytes. The
limit counts from the look that saw the last of them: it expires a sixteenth late at most."""

CLOCK_RESOLUTION = 0.001
"""Seconds by which a timer may fire early."""


class Sink(Protocol):
    """The connection that an upload writes to: ``HTTP1Protocol``."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport | None
    raw_transport: asyncio.Transport | None
    # Whether the transport's write buffer is full.
    writing_paused: bool
    write_timeout: float | None

    def watchdog(self) -> Watchdog: ...


class Upload:
    """A request that is sent in more than one write, from its head to its last byte.

    Attributes: ``open`` is True until the last byte is written; ``wanted`` is True until it is
    pointless to send on; ``is_tls`` tells whether the bytes are encrypted.
    """

    __slots__ = (
        "_continue_waiter",
        "_drain_waiter",
        "_sink",
        "_stop_waiter",
        "_taken_at",
        "_unsent",
        "_written",
        "is_tls",
        "open",
        "wanted",
    )

    def __init__(self, sink: Sink, is_tls: bool) -> None:
        self._sink = sink
        self.is_tls = is_tls
        self.open = True
        self.wanted = True
        # Bytes that the peer had not taken at the last look, and the loop's time of the look that
        # saw it take some; of the first look, if none did.
        self._unsent = 0
        self._taken_at = 0.0
        # Bytes written since the loop had a turn.
        self._written = 0
        self._drain_waiter: asyncio.Future[None] | None = None
        self._stop_waiter: asyncio.Future[None] | None = None
        self._continue_waiter: asyncio.Future[None] | None = None

    # ----------------------------------------------------------------------- the sender

    def write(self, data: bytes | memoryview) -> None:
        """Write *data*; drop it if the connection has ended."""
        transport = self._sink.transport
        if transport is not None:
            self._written += max(len(data), TURN_SHARE)
            transport.write(data)

    def end(self) -> None:
        """Mark the request as completely sent."""
        self.open = False

    async def drain(self) -> None:
        """Wait until the transport takes more; return at once if no more is wanted.

        A source that never waits and a transport that takes everything would hold up early answers,
        timeouts and all other tasks, so the loop has a turn every ``TURN_BYTES``.
        """
        waited = False
        # Wait again if woken for another reason: until then borrowed memory must not be reused.
        while self._sink.writing_paused and self.wanted:
            waited = True
            self._written = 0
            await self._wait_writable()
        if waited:
            return
        transport = self._sink.transport
        if transport is None or transport.is_closing() or self._written >= TURN_BYTES:
            # If it is closing, a write has failed, and the loop has yet to tell us.
            self._written = 0
            await asyncio.sleep(0)

    async def write_borrowed(self, data: memoryview) -> None:
        """Write *data*; wait until the transport holds none of it: its memory can then be reused.

        If no more is wanted the wait ends earlier, and that memory must not be changed.
        """
        transport = self._sink.transport
        if transport is not None and not transport.is_closing():
            # Pause as soon as anything is held: a TLS transport pauses at its limit, others above.
            transport.set_write_buffer_limits(1 if self.is_tls else 0)
            self.write(data)
        try:
            await self.drain()
        finally:
            if transport is not None and not transport.is_closing():
                transport.set_write_buffer_limits()

    def socket(self) -> Any:
        """Return the transport's socket; None after the connection was lost."""
        transport = self._sink.transport
        return transport.get_extra_info("socket") if transport is not None else None

    async def _wait_writable(self) -> None:
        """Wait until ``wake()``: the transport takes more, or no more is wanted."""
        sink = self._sink
        waiter = self._drain_waiter = sink.loop.create_future()
        # The one that was armed: the sink may have no limit afterwards, or no connection.
        watchdog: Watchdog | None = None
        if sink.write_timeout is not None and sink.transport is not None:
            self._unsent = _untaken(sink.transport, sink.raw_transport)
            self._taken_at = sink.loop.time()
            watchdog = sink.watchdog()
            watchdog.arm_write(sink.write_timeout / LOOKS)
        try:
            await waiter
        finally:
            self._drain_waiter = None
            if watchdog is not None:
                watchdog.disarm_write()

    async def wait_continue(self, limit: float) -> None:
        """Wait for 100, for a final head or for *limit* seconds (RFC 9110 §10.1.1)."""
        waiter = self._continue_waiter = self._sink.loop.create_future()
        timer = self._sink.loop.call_later(limit, self.wake_continue)
        try:
            await waiter
        finally:
            self._continue_waiter = None
            timer.cancel()

    def stop_waiter(self) -> asyncio.Future[None]:
        """Return a future that is done once no more is wanted."""
        self._stop_waiter = waiter = self._sink.loop.create_future()
        if not self.wanted:
            waiter.set_result(None)
        return waiter

    # --------------------------------------------------------------------- the protocol

    def stop(self) -> None:
        """Stop the upload, as no more of the request is wanted; wake its sender."""
        self.wanted = False
        self.wake()
        _resolve(self._stop_waiter)

    def wake(self) -> None:
        """Wake a sender that waits for the transport, or for ``100 Continue``."""
        _resolve(self._continue_waiter)
        _resolve(self._drain_waiter)

    def wake_continue(self) -> None:
        """Wake a sender that waits for ``100 Continue``."""
        _resolve(self._continue_waiter)

    def peer_takes_bytes(self) -> bool:
        """Whether the peer took bytes within the write limit; if so, look again a little later."""
        sink, limit = self._sink, self._sink.write_timeout
        if sink.transport is None or limit is None:
            return False
        now = sink.loop.time()
        unsent = _untaken(sink.transport, sink.raw_transport)
        if unsent < self._unsent:
            self._taken_at = now
        # More than before, if TLS has encrypted some of it: records are longer.
        self._unsent = unsent
        left = self._taken_at + limit - now
        if left <= CLOCK_RESOLUTION:
            return False
        sink.watchdog().arm_write(min(left, limit / LOOKS))
        return True


def _untaken(transport: asyncio.Transport, raw: asyncio.Transport | None) -> int:
    """Return how many written bytes the peer has not taken, in the transports and the kernel.

    Linux wakes a writer only when a third of the kernel's buffer is free again. TIOCOUTQ counts
    every byte; without it only the transports' own counts are known.
    """
    size = transport.get_write_buffer_size()
    if raw is not None and raw is not transport:
        size += raw.get_write_buffer_size()  # of TCP, below TLS
    sock = transport.get_extra_info("socket")
    if sys.platform == "linux" and sock is not None and sock.fileno() >= 0:
        with suppress(OSError):
            size += int.from_bytes(ioctl(sock.fileno(), TIOCOUTQ, bytes(4)), sys.byteorder)
    return size


def _resolve(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
