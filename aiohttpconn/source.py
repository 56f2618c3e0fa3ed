"""ResponseSource: the side of a connection that its responses and their readers use.

They pause and resume reading, wait within the limits of ``Timeout``, and are abandoned. Receiving
bytes and ending the connection is protocol.py's part. Layer: above response, below protocol.
"""

from __future__ import annotations

import asyncio
import weakref
from contextlib import suppress
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

from .buffers import reads_in_one_go
from .net.timeouts import NO_TIMEOUT, Timeout, Watchdog
from .net.tls import TLSInfo

if TYPE_CHECKING:
    from collections import deque

    from .exchange import Exchange
    from .response import HTTPResponse

__all__ = ["BODY", "CLOSED", "HEAD", "IDLE", "UPGRADED", "Owner", "ResponseSource"]


class State(IntEnum):
    """The next thing that the connection receives: see the diagram in protocol.py."""

    IDLE = 0
    HEAD = 1
    BODY = 2
    UPGRADED = 3
    CLOSED = 4


IDLE, HEAD, BODY, UPGRADED, CLOSED = State

DISCARD_SECONDS = 1.0
"""Seconds that an abandoned body may take to arrive; then the connection is aborted."""

DISCARD_SHARED_SECONDS = 10.0
"""Seconds if its head is missing or other exchanges are queued, from when it is its turn."""


class Owner(Protocol):
    """The object that keeps a connection between exchanges. Called during a read event."""

    def exchange_ended(self, protocol: Any, response: HTTPResponse, count: int = 1) -> None:
        """Handle the end of *response*, the last of *count*. The next is received, or none is."""

    def last_exchange_ended(self, protocol: Any, response: HTTPResponse) -> None:
        """Handle the end of *response*, which ends the connection: ``connection_ended`` follows."""

    def connection_ended(self, protocol: Any) -> None:
        """Handle the end of the connection: it serves no other exchange. Called once.

        Its socket may still be closing.
        """

    def transport_lost(self, protocol: Any) -> None:
        """Handle the loss of the socket."""


class ResponseSource(asyncio.BufferedProtocol):
    """A transport that responses are received from, in order. ``HTTP1Protocol`` is its subclass."""

    __slots__ = (
        "__weakref__",
        "_closed_waiter",
        "_head_timeout",
        "_held",
        "_queued",
        "_read_timeout",
        "_response",
        "_tls",
        "_tls_info",
        "_waiting_reader",
        "_watchdog",
        "can_land",
        "lands_pieces",
        "loop",
        "origin",
        "peername",
        "raw_transport",
        "reads_ahead",
        "state",
        "timed",
        "timeout",
        "transport",
        "write_timeout",
        "writing_paused",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, origin: str, timeout: Timeout) -> None:
        # Configuration
        self.loop = loop
        self.origin = origin
        self.set_timeout(timeout)

        # Per connection
        self.state: State = IDLE
        self.transport: asyncio.Transport | None = None
        # Reading is paused on this one. A paused TLS transport loses data at a FIN: see DialReport.
        self.raw_transport: asyncio.Transport | None = None
        self.peername: Any = None
        # The ssl_object. Kept, because asyncio's closed transports raise when asked for it.
        self._tls: Any = None
        # The facts about it, once they were asked for or it has gone: see ``tls``.
        self._tls_info: TLSInfo | None = None
        self.can_land = self.lands_pieces = reads_in_one_go(loop)
        # libuv reads up to 32 times before anything else runs, even a woken reader.
        self.reads_ahead = not isinstance(loop, asyncio.SelectorEventLoop)
        self.writing_paused = False
        self._watchdog: Watchdog | None = None
        self._closed_waiter: asyncio.Future[None] | None = None

        # Per exchange: the one that is being received, and those after it.
        self._response: HTTPResponse | None = None
        # It stands here instead if its caller alone keeps it: see ``hold_weakly``.
        self._held: weakref.ref[HTTPResponse] | None = None
        self._queued: deque[HTTPResponse] | None = None
        # The reader that waits for bytes: this keeps it alive even if _response is weak.
        self._waiting_reader: Exchange | None = None

    def _front(self) -> HTTPResponse | None:
        """Return the response that is being received; None if its caller has dropped it."""
        response = self._response
        if response is None and self._held is not None:
            response = self._held()
        return response

    def close(self) -> None:
        """Close the connection gracefully: bytes that were written still go out."""
        raise NotImplementedError

    def abort(self) -> None:
        """Close the connection at once; wake waiting readers and senders."""
        raise NotImplementedError

    def _expired(self, name: str) -> None:
        """Handle the watchdog's call: the limit *name* has passed."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        """Stop reading: a response has enough unread bytes."""
        raw = self.raw_transport or self.transport
        if raw is not None and not raw.is_closing():
            raw.pause_reading()

    def resume_reading(self) -> None:
        """Resume reading."""
        raw = self.raw_transport or self.transport
        if raw is not None and not raw.is_closing():
            raw.resume_reading()

    @property
    def tls(self) -> TLSInfo | None:
        """Facts about TLS, also when the connection has ended; None without TLS."""
        if self._tls_info is None and self._tls is not None:
            self._tls_info = TLSInfo(self._tls)
        return self._tls_info

    def _release_tls(self) -> None:
        """Keep the facts of TLS for responses that are kept, and not its state."""
        if self._tls is not None:
            with suppress(OSError, ValueError):  # OpenSSL or Python cannot parse the certificate
                self._tls_info = self._tls_info or TLSInfo(self._tls)
            self._tls = None

    def get_extra_info(self, name: str) -> Any:
        """Return ``transport.get_extra_info(name)``; None after the transport was lost."""
        return self.transport.get_extra_info(name) if self.transport is not None else None

    # --------------------------------------------------------------------------- limits

    def set_timeout(self, timeout: Timeout) -> None:
        """Use the limits of *timeout* for the waits that begin from now on."""
        self.timeout = timeout
        self._head_timeout = timeout.head
        self._read_timeout = timeout.read
        self.write_timeout = timeout.write
        self.timed = timeout != NO_TIMEOUT

    def watchdog(self) -> Watchdog:
        """Return the connection's one timer, made on first use."""
        if self._watchdog is None:
            self._watchdog = Watchdog(self.loop, self._expired)
        return self._watchdog

    def _progress(self) -> None:
        """Restart the ``read`` limit: bytes have arrived."""
        if self._read_timeout is not None and self._watchdog is not None:
            self._watchdog.progress(self._read_timeout)

    def arm_total(self, response: HTTPResponse, deadline: float) -> None:
        """End the exchange of *response* at *deadline*, and any before it that goes on then."""
        if self.state is CLOSED:
            return
        response.deadline = deadline
        front = self._front()
        if front is not None:
            deadline = min(deadline, front.deadline)
        self.watchdog().arm_total(deadline)

    # ---------------------------------------------------------------------------- waits

    def begin_wait(self, reader: Exchange) -> None:
        """Begin the wait of *reader* for bytes, within the ``read`` or ``head`` limit."""
        self._waiting_reader = reader
        if self.state is CLOSED:
            return
        if reader.head is None and self._head_timeout is not None:
            self.watchdog().arm_head(self.loop.time() + self._head_timeout)
        elif self._read_timeout is not None:
            self.watchdog().arm_read(self._read_timeout)

    def begin_head_wait(self, response: HTTPResponse) -> None:
        """Limit the wait for the head of *response*, counted from when the exchange began.

        For callers that wait only for the head: the reader of a body reports its own waits.
        """
        limit = self._read_timeout
        if self._head_timeout is not None:
            # Of a queued exchange it begins when it is its turn.
            if self._response is response:
                self.watchdog().arm_head(response.started + self._head_timeout)
        elif limit is not None:
            watchdog = self._watchdog
            if watchdog is None:
                if self.state is CLOSED:
                    return  # the request was refused: see HTTP1Protocol.start
                watchdog = self.watchdog()
            # After other exchanges the limit that runs covers this wait, too: it is one for all,
            # which bytes restart, and requests do not.
            if self._response is response or watchdog.is_read_disarmed:
                watchdog.arm_read_at(response.started + limit)

    def limit_unread(self) -> None:
        """Limit by ``read`` how long a body keeps the queue waiting, even if nobody reads it."""
        if self._read_timeout is not None:
            self.watchdog().arm_read(self._read_timeout)

    def end_wait(self, reader: Exchange) -> None:
        """End the wait of *reader*. Others may go on: of the next exchange, or of queued ones."""
        if self._waiting_reader is not reader:
            return
        self._waiting_reader = None
        if self._watchdog is not None and not self._queued:
            self._watchdog.disarm_read()

    async def wait_closed(self, limit: float) -> None:
        """Wait until the transport has closed; abort it after *limit* seconds."""
        transport = self.transport
        if transport is None:
            return
        if self._closed_waiter is None:
            self._closed_waiter = self.loop.create_future()
        timer = self.loop.call_later(limit, self.abort)
        try:
            await asyncio.shield(self._closed_waiter)
        finally:
            timer.cancel()

    # ------------------------------------------------------------------------ abandoned

    def limit_discard(self, response: HTTPResponse) -> None:
        """Bound the time for which *response*, which was abandoned, keeps the connection busy.

        It has none if its head is missing, as then nobody knows how much is to come, unless other
        callers wait for responses on the connection.
        """
        if response.head is None and not self._is_awaited():
            self.abort()
        elif self._front() is response:
            alone = response.head is not None and not self._queued
            seconds = DISCARD_SECONDS if alone else DISCARD_SHARED_SECONDS
            self.watchdog().arm_total(self.loop.time() + seconds)

    def _is_awaited(self) -> bool:
        """Whether a caller waits for a response, now or later, that it has not abandoned."""
        front = self._front()
        return (front is not None and not front.closed) or any(
            not response.closed for response in self._queued or ()
        )

    def release_to_response(self) -> None:
        """Leave the connection to the response that is being received: its owner has dropped it.

        The connection closes after the response; if the response is dropped, too, the connection
        is aborted. ``_waiting_reader`` keeps the response alive while a task waits in it.
        """
        response = self._front()
        if response is None or response.head is None or self._queued:
            self.abort()
            return
        response.will_close = True
        self.hold_weakly(response)

    def hold_weakly(self, reader: Exchange) -> None:
        """Abort the connection when *reader*, whose body is being received, is dropped."""
        response = self._response
        if response is reader and response.head is not None:
            self._held = weakref.ref(response, self._dropped)
            self._response = None

    def _dropped(self, _: object) -> None:
        # Later, and in the loop's thread: the garbage collector runs in any thread, and in the
        # middle of anything. Until then the state stays, so that a new exchange is queued.
        with suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self.abort)
