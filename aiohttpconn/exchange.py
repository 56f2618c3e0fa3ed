"""Exchange: one request's response as the package sees it, from the request to its last byte.

The protocol makes it when the request is sent, fills its head in, feeds its body, and ends it.
The names without an underscore are this package's interface to it. ``HTTPResponse`` is the same
object for callers: response.py has the ways of reading it.

How bytes are kept: ``first`` is the oldest unread piece, taken from ``_offset`` on; ``_queue``
holds the pieces after it, small ones merged. At most ``high_water`` bytes are unread before the
source is paused; a reader resumes it.

Layer: above the wire and net, below response.
"""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from http.client import HTTPMessage

    from .http11.chunked import ChunkedDecoder
    from .net.dial import DialReport

__all__ = ["HIGH_WATER", "Exchange"]

HIGH_WATER = 256 * 1024
"""Unread bytes at which the source is paused: one read event of the scratch buffer."""

ABANDONED = 2
"""How a body ended that its reader closed before it was whole: nothing is left to raise."""

_SMALL = 2048
"""Pieces below this are merged: a peer that drips bytes must not cost an object for each."""

_MERGED = 64 * 1024


class Source(Protocol):
    """What feeds a reader: HTTP/1.1's protocol today, and nothing here would know another."""

    loop: asyncio.AbstractEventLoop
    # Whether it puts bytes into ``landing``.
    can_land: bool
    # Whether it does so for small ones, too: what TLS has decrypted has to fit as a whole.
    lands_pieces: bool
    # Whether it may read again before a reader that was woken runs.
    reads_ahead: bool
    origin: str
    peername: Any

    def get_extra_info(self, name: str) -> Any: ...

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def abort(self) -> None: ...
    def hold_weakly(self, reader: Exchange) -> None: ...
    def begin_wait(self, reader: Exchange) -> None: ...
    def end_wait(self, reader: Exchange) -> None: ...


class Exchange:
    """A response being received. ``HTTPResponse`` is its one subclass."""

    __slots__ = (
        "__weakref__",
        "_discard_limit",
        "_fields",
        "_headers",
        "_offset",
        "_queue",
        "_trailers",
        "_wake_at",
        "buffered",
        "chunked",
        "closed",
        "deadline",
        "debuglevel",
        "decoder",
        "dialed",
        "ended",
        "failure",
        "first",
        "head",
        "head_waiter",
        "high_water",
        "landing",
        "last",
        "method",
        "number",
        "paused",
        "reason",
        "received",
        "remaining",
        "source",
        "started",
        "status",
        "target",
        "upgrade",
        "version",
        "waiter",
        "will_close",
    )

    # Set by the protocol's start(): time.monotonic(), and how many exchanges the connection had.
    started: float
    number: int

    # Set with the head, before anybody holds the response.
    chunked: bool
    reason: str
    status: int
    version: int
    will_close: bool
    # Bytes that the framing still announces, None where it does not tell.
    remaining: int | None

    # The unread bytes that end the wait of a reader; set when it begins to wait.
    _wake_at: int
    # The size of a body that may still come, although nobody reads it; set by discard().
    _discard_limit: int

    def __init__(
        self,
        source: Source | None,
        method: str = "GET",
        target: str = "",
        high_water: int = HIGH_WATER,
    ) -> None:
        self.source = source
        self.method = method
        self.target = target

        # The head: bytes that follow the grammar; its fields are split when asked for.
        self.head: bytes | None = None
        self.head_waiter: asyncio.Future[None] | None = None
        self._fields: list[tuple[str, str]] | None = None
        self._headers: HTTPMessage | None = None
        self._trailers: HTTPMessage | None = None

        # The body, as far as it is unread.
        self.high_water = high_water
        self.first: bytes | bytearray = b""
        self._offset = 0
        self._queue: deque[bytes | bytearray] | None = None
        self.buffered = 0
        # Bytes that have arrived.
        self.received = 0
        # Where the source may put the next bytes directly.
        self.landing: memoryview | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.paused = False
        self.decoder: ChunkedDecoder | None = None

        # Whether nothing more will come: False, True, or ABANDONED. It is whole if it ended without
        # a failure.
        self.ended: bool | int = False
        self.failure: BaseException | None = None
        # Whether close() was called.
        self.closed = False

        # The exchange around it.
        # Whether the request asked to leave HTTP/1.1: 101 is an answer to nothing else.
        self.upgrade = False
        # Whether the request said that the connection ends after its response.
        self.last = False
        # When Timeout.total ends it, on the loop's clock.
        self.deadline = inf
        # Of the connect that was made for it; None on a connection that was there.
        self.dialed: DialReport | None = None
        self.debuglevel = 0

    # --------------------------------------------------------------- its connection

    @property
    def url(self) -> str:
        """The URL that was asked for: the target, behind the origin unless it is absolute."""
        if self.source is None or not self.target.startswith("/"):
            return self.target
        return f"{self.source.origin}{self.target}"

    @property
    def peername(self) -> Any:
        """What ``socket.getpeername`` gave for the connection that the response came on."""
        return self.source.peername if self.source is not None else None

    @property
    def has_head(self) -> bool:
        """Whether ``getresponse()`` would not have to wait: the head is here, or never will be."""
        return self.head is not None or self.ended is not False

    @property
    def complete(self) -> bool:
        """Whether the whole response, as its framing announced it, has arrived."""
        return self.ended is True and self.failure is None and self.head is not None

    # ----------------------------------------------------------------- feeding

    def feed_data(self, data: bytes | memoryview) -> None:
        """Take in bytes of the body. A memoryview is copied: its memory is the source's."""
        size = len(data)
        self.received += size
        if self.closed:
            size = self.received + (self.remaining or 0)
            if self.source is not None and size > self._discard_limit:
                # Later: the protocol is in the middle of this read event.
                self.source.loop.call_soon(self._give_up)
            return
        if not self.buffered:
            self.first = bytes(data)
            self._offset = 0
        else:
            self._append(data, size)
        self.buffered = buffered = self.buffered + size
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            if buffered < self._wake_at and buffered < self.high_water:
                return
            waiter.set_result(None)
            if self.source is not None and not self.source.reads_ahead:
                return  # The reader runs before the next read event.
        if buffered >= self.high_water and not self.paused:
            self._pause()

    def _give_up(self) -> None:
        """Abort the source, unless the body has ended meanwhile: then it serves others."""
        if self.source is not None and not self.ended:
            self.source.abort()

    def landed(self, size: int) -> None:
        """*size* bytes have been put into ``landing``."""
        landing = self.landing
        assert landing is not None and self.remaining is not None, "landed without a landing view"
        assert self.source is not None
        self.received += size
        self.remaining -= size
        self.landing = landing[size:] if size < len(landing) else None
        if self.landing is None and self.source.reads_ahead and self.remaining:
            # What comes before the reader runs would be copied. Whoever waits next resumes.
            self._pause()
        self._wake_at -= size
        waiter = self.waiter
        if self._wake_at <= 0 and waiter is not None and not waiter.done():
            waiter.set_result(None)

    def feed_eof(self) -> None:
        """The body is whole."""
        self.ended = True
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def set_exception(self, exc: BaseException) -> None:
        """End the exchange with *exc*. What has arrived stays readable; waiting callers wake."""
        if self.ended:
            return
        self.failure = exc
        self.feed_eof()
        waiter = self.head_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _append(self, data: bytes | memoryview, size: int) -> None:
        queue = self._queue
        if queue is None:
            queue = self._queue = deque()
        if size >= _SMALL:
            queue.append(bytes(data))
        elif queue and type(queue[-1]) is bytearray and len(queue[-1]) < _MERGED:
            queue[-1] += data
        else:
            queue.append(bytearray(data))

    def _pause(self) -> None:
        if self.source is not None and not self.ended:
            self.paused = True
            self.source.pause_reading()

    def _resume(self) -> None:
        self.paused = False
        if self.source is not None and not self.ended:
            self.source.resume_reading()

    # -------------------------------------------------------------------- ends

    def raise_failure(self) -> None:
        """Raise what came instead of the head, if something did."""
        exc = self.failure
        if self.head is None and exc is not None:
            # Once: a traceback that leads back to its exception would wait for the collector.
            self.failure = None
            try:
                raise exc
            finally:
                del exc

    def close(self) -> None:
        """Give up what was not read. An incomplete body costs the connection: it is aborted.

        Later reads return b"". A read that is waiting in another task raises ``IncompleteRead``.
        """
        if self.closed:
            return
        self.closed = True
        if self.source is not None and not self.ended:
            self.source.abort()
        if self.failure is not None and self.waiter is None and self.head is not None:
            self._abandon()
        self._drop_unread()

    def hold_weakly(self) -> None:
        """Let the connection end if nobody but it knows this response any more."""
        if not self.ended and self.source is not None:
            self.source.hold_weakly(self)

    def discard(self, limit: int) -> None:
        """Give up what was not read, but let it come if it is *limit* bytes or less.

        What ``close()`` is for a caller, this is for who wants the connection again: the body is
        dropped as it arrives. One that is larger, or that somebody waits for in another task,
        costs the connection, as ``close()`` does.
        Nobody may read afterwards.
        """
        source = self.source
        late = self.head is not None and (self.will_close or (self.remaining or 0) > limit)
        if self.ended or source is None or late or self.waiter is not None:
            self.close()
            return
        self.closed = True
        self._discard_limit = self.received + limit
        self._drop_unread()
        if self.paused:
            self._resume()

    def _abandon(self) -> None:
        """Leave nothing to raise: the caller has given the body up, or knows what ended it."""
        self.failure = None
        self.ended = ABANDONED

    def _drop_unread(self) -> None:
        self.first = b""
        self._offset = 0
        self._queue = None
        self.buffered = 0
