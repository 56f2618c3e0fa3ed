"""ResponseSource: the side of a connection that its responses and their readers use.

They pause and resume reading, wait within the limits of ``Timeout``, and are given up. What
arrives, and how a connection ends, is protocol.py's. Layer: above response, below protocol.
"""

from __future__ import annotations

import asyncio
import weakref
from contextlib import suppress
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from .buffers import reads_in_one_go
from .net.timeouts import NO_TIMEOUT, Timeout, Watchdog

if TYPE_CHECKING:
    from collections import deque

    from .exchange import Exchange
    from .response import HTTPResponse

__all__ = ["BODY", "CLOSED", "HEAD", "IDLE", "UPGRADED", "ResponseSource"]


class State(IntEnum):
    """What the connection receives next: see the diagram in protocol.py."""

    IDLE = 0
    HEAD = 1
    BODY = 2
    UPGRADED = 3
    CLOSED = 4


IDLE, HEAD, BODY, UPGRADED, CLOSED = State

DISCARD_SECONDS = 1.0
"""For the rest of a body that nobody wants; if it takes longer, it costs the connection."""

DISCARD_SHARED_SECONDS = 10.0
"""The same where others wait behind it, or its head is not here; from when it is its turn."""


class ResponseSource(asyncio.BufferedProtocol):
    """A transport that responses are received from, in order. ``HTTP1Protocol`` is its subclass."""

    __slots__ = (
        "__weakref__",
        "_closed_waiter",
        "_queued",
        "_read_timeout",
        "_response",
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
        # What reading is paused on. A paused TLS transport loses data at a FIN: see net.dial.
        self.raw_transport: asyncio.Transport | None = None
        self.peername: Any = None
        self.can_land = self.lands_pieces = reads_in_one_go(loop)
        # libuv reads up to 32 times before anything else runs, a woken reader too.
        self.reads_ahead = not isinstance(loop, asyncio.SelectorEventLoop)
        self.writing_paused = False
        self._watchdog: Watchdog | None = None
        self._closed_waiter: asyncio.Future[None] | None = None

        # Per exchange: the one that is being received, and those after it.
        self._response: HTTPResponse | None = None
        self._queued: deque[HTTPResponse] | None = None
        # A reader that waits for bytes: it is kept alive although _response may be weak.
        self._waiting_reader: Exchange | None = None

    def close(self) -> None:
        """End the connection politely: what was written still goes out."""
        raise NotImplementedError

    def abort(self) -> None:
        """End the connection at once. Waiting readers and senders are woken."""
        raise NotImplementedError

    def _expired(self, name: str) -> None:
        """The watchdog's call: the limit *name* has passed."""
        raise NotImplementedError

    def pause_reading(self) -> None:
        """Stop reading: a response has enough unread bytes."""
        raw = self.raw_transport or self.transport
        if raw is not None and not raw.is_closing():
            raw.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        raw = self.raw_transport or self.transport
        if raw is not None and not raw.is_closing():
            raw.resume_reading()

    def get_extra_info(self, name: str) -> Any:
        """Return ``transport.get_extra_info(name)``, None once the transport is gone."""
        return self.transport.get_extra_info(name) if self.transport is not None else None

    # ------------------------------------------------------------------------ limits

    def set_timeout(self, timeout: Timeout) -> None:
        """Let the waits that begin from now on have the limits of *timeout*."""
        self.timeout = timeout
        self._read_timeout = timeout.read
        self.write_timeout = timeout.write
        self.timed = timeout != NO_TIMEOUT

    def watchdog(self) -> Watchdog:
        """Return the connection's one timer, made when first needed."""
        if self._watchdog is None:
            self._watchdog = Watchdog(self.loop, self._expired)
        return self._watchdog

    def _progress(self) -> None:
        """Bytes have arrived: the ``read`` limit counts anew."""
        if self._read_timeout is not None and self._watchdog is not None:
            self._watchdog.progress(self._read_timeout)

    def arm_total(self, response: HTTPResponse, deadline: float) -> None:
        """Let the exchange of *response* end by *deadline*; what is received before it, too."""
        if self.state is CLOSED:
            return
        response.deadline = deadline
        front = self._response
        if front is not None:
            deadline = min(deadline, front.deadline)
        self.watchdog().arm_total(deadline)

    # ------------------------------------------------------------------------- waits

    def begin_wait(self, reader: Exchange) -> None:
        """Somebody waits for bytes from now on."""
        self._waiting_reader = reader
        if self._read_timeout is not None:
            self.watchdog().arm_read(self._read_timeout)

    def begin_head_wait(self, response: HTTPResponse) -> None:
        """Somebody waits for the head of *response* since the exchange began.

        For who waits for nothing else: a body's reader tells of its own waits.
        """
        limit = self._read_timeout
        if limit is not None:
            watchdog = self._watchdog
            if watchdog is None:
                watchdog = self.watchdog()
            # Behind others the wait that is on is its own, too: one limit for all, which bytes
            # put off, and requests do not.
            if self._response is response or watchdog.is_read_disarmed:
                watchdog.arm_read_at(response.started + limit)

    def end_wait(self, reader: Exchange) -> None:
        """*reader* waits no more. Others' waits may be on: of the next exchange, or behind it."""
        if self._waiting_reader is not reader:
            return
        self._waiting_reader = None
        if self._watchdog is not None and not self._queued:
            self._watchdog.disarm_read()

    async def wait_closed(self, limit: float) -> None:
        """Wait until the transport is gone; after *limit* seconds it is aborted."""
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

    # -------------------------------------------------------------------- given up

    def limit_discard(self, response: HTTPResponse) -> None:
        """Nobody wants *response* any more: it may not keep the connection for long."""
        if self._response is response:
            alone = response.head is not None and not self._queued
            seconds = DISCARD_SECONDS if alone else DISCARD_SHARED_SECONDS
            self.watchdog().arm_total(self.loop.time() + seconds)

    def release_to_response(self) -> None:
        """Nobody but a response's holder knows this connection any more.

        The response is read to its end and the connection closed; if the response is dropped
        as well, the connection is aborted. ``_held`` keeps it alive while a task waits in it.
        """
        response = self._response
        if response is None or response.head is None or self._queued:
            self.abort()
            return
        response.will_close = True
        self.hold_weakly(response)

    def hold_weakly(self, reader: Exchange) -> None:
        """Abort the connection when nobody else knows *reader*, which is being received."""
        if self._response is reader:
            self._response = weakref.proxy(reader, self._dropped)

    def _dropped(self, _: object) -> None:
        self._response = None
        # Later, and in the loop's thread: the collector runs in any, and in the middle of anything.
        # Until then the state stays, so that whoever begins an exchange is behind this one.
        with suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self.abort)
