"""Exchange: one request's response as the package sees it, from the request to its last byte.

The protocol makes it when the request is sent, fills in its head, feeds its body, and ends it.
The names without an underscore are this package's interface to it. ``HTTPResponse`` is the same
object for callers: response.py has the methods that read it.

How bytes are kept: ``first`` is the oldest unread piece, which is read from ``_offset`` on;
``_queue`` holds the pieces after it, with small ones merged. At ``high_water`` unread bytes the
source is paused; a reader resumes it.

Layer: above the wire and net, below response.
"""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from http.client import HTTPMessage

    from .http11.chunked import ChunkedDecoder
    from .net.destination import DialReport
    from .net.tls import TLSInfo

__all__ = ["HIGH_WATER", "Exchange", "Timings"]

HIGH_WATER = 256 * 1024
"""Unread bytes at which the source is paused: one read event of the scratch buffer."""

ABANDONED = 2
"""The value of ``ended`` if the reader closed an incomplete body: nothing is left to raise."""

_SMALL = 2048
"""Pieces below this size are merged: a peer that drips bytes must not cost an object for each."""

_MERGED = 64 * 1024


class Source(Protocol):
    """The connection that feeds a reader. Today it is HTTP/1.1's; nothing here depends on that."""

    loop: asyncio.AbstractEventLoop
    # Whether it reads bytes straight into ``landing``.
    can_land: bool
    # Whether it does so for small pieces, too. TLS does not: all that it has decrypted has to fit.
    lands_pieces: bool
    # Whether it may read again before a woken reader runs.
    reads_ahead: bool
    origin: str
    peername: Any

    @property
    def tls(self) -> TLSInfo | None: ...
    def get_extra_info(self, name: str) -> Any: ...

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def abort(self) -> None: ...
    def hold_weakly(self, reader: Exchange) -> None: ...
    def begin_wait(self, reader: Exchange) -> None: ...
    def end_wait(self, reader: Exchange) -> None: ...


class Timings(NamedTuple):
    """Seconds of each phase of a response's last request.

    ``queue``: until a connection was free. ``dns``, ``connect``, ``proxy``, ``tls``: the phases of
    a new connection, None for those that it did not need. ``send``: until the kernel had the
    request. ``wait``: for the head. ``receive``: for the body; None until it has ended.
    """

    queue: float
    dns: float | None
    connect: float | None
    proxy: float | None
    tls: float | None
    send: float
    wait: float
    receive: float | None

    @property
    def total(self) -> float:
        """The sum."""
        return sum(seconds for seconds in self if seconds is not None)


class Exchange:
    """A response being received. ``HTTPResponse`` is its only subclass."""

    __slots__ = (
        "__weakref__",
        "_discard_limit",
        "_fields",
        "_headers",
        "_offset",
        "_queue",
        "_trailers",
        "_wake_at",
        "asked",
        "buffered",
        "chunked",
        "closed",
        "deadline",
        "debuglevel",
        "decoder",
        "dialed",
        "ended",
        "ended_at",
        "failure",
        "first",
        "head",
        "head_at",
        "head_waiter",
        "high_water",
        "interim",
        "landing",
        "last",
        "method",
        "number",
        "paused",
        "reason",
        "received",
        "remaining",
        "sent_at",
        "source",
        "started",
        "status",
        "target",
        "upgrade",
        "version",
        "waiter",
        "will_close",
    )

    # Set by the protocol's start(): time.monotonic(), and this exchange's number on the connection.
    started: float
    number: int

    # By time.monotonic(), where they differ from ``started``: when a connection was asked for, and
    # when the last byte of the request was written; when the head and the last byte arrived: only
    # the latter, if that was at once.
    asked: float
    sent_at: float
    head_at: float
    ended_at: float

    # Set with the head, before a caller has the response.
    chunked: bool
    reason: str
    status: int
    version: int
    will_close: bool
    # Bytes of the body that have not arrived; None if the framing does not tell.
    remaining: int | None

    # The 1xx responses; set with the first one.
    interim: tuple[tuple[int, HTTPMessage], ...]

    # The number of unread bytes that wakes the reader; set when it begins to wait.
    _wake_at: int
    # The bytes that may be left of a body that nobody reads; set by discard().
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

        # The head: bytes that follow the grammar; its fields are split on first use.
        self.head: bytes | None = None
        self.head_waiter: asyncio.Future[None] | None = None
        self._fields: list[tuple[str, str]] | None = None
        self._headers: HTTPMessage | None = None
        self._trailers: HTTPMessage | None = None

        # The unread part of the body.
        self.high_water = high_water
        self.first: bytes | bytearray = b""
        self._offset = 0
        self._queue: deque[bytes | bytearray] | None = None
        self.buffered = 0
        # Bytes of the body that have arrived.
        self.received = 0
        # The memory that the source may read the next bytes into directly.
        self.landing: memoryview | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.paused = False
        self.decoder: ChunkedDecoder | None = None

        # Whether no more bytes will come: False, True, or ABANDONED. The body is complete if it
        # ended without a failure.
        self.ended: bool | int = False
        self.failure: BaseException | None = None
        # Whether close() was called.
        self.closed = False

        # The exchange around the body.
        # Whether the request asked to leave HTTP/1.1: only then is 101 a valid answer.
        self.upgrade = False
        # Whether the request said that the connection ends after its response.
        self.last = False
        # When Timeout.total ends the exchange, on the loop's clock.
        self.deadline = inf
        # The report of the connect that was made for it; None on a reused connection.
        self.dialed: DialReport | None = None
        self.debuglevel = 0

    # ------------------------------------------------------------------- its connection

    @property
    def url(self) -> str:
        """The URL that was requested: origin and target, or only the target if it is absolute."""
        if self.source is None or not self.target.startswith("/"):
            return self.target
        return f"{self.source.origin}{self.target}"

    @property
    def peername(self) -> Any:
        """The peer's address on the response's connection, as ``socket.getpeername`` returns it."""
        return self.source.peername if self.source is not None else None

    @property
    def tls(self) -> TLSInfo | None:
        """Facts about TLS to the server, also after the connection has ended; None for http.

        Each fact has the name that ``ssl.SSLSocket`` has for it.
        """
        source = self.source
        # TLS to a proxy that is sent whole URLs is not TLS to the server.
        return source.tls if source is not None and source.origin.startswith("https:") else None

    @property
    def has_head(self) -> bool:
        """Whether ``getresponse()`` need not wait: the head has arrived, or never will."""
        return self.head is not None or self.ended is not False

    @property
    def complete(self) -> bool:
        """Whether the whole response, as its framing announced it, has arrived."""
        return self.ended is True and self.failure is None and self.head is not None

    def times(self) -> tuple[float, float, float, float, float | None]:
        """Return when it was asked for, started, sent, answered by a head, and at its last byte."""
        started = self.started
        ended_at = getattr(self, "ended_at", None)
        # An answer may come before the whole request is sent, and ends the sending.
        head_at = getattr(self, "head_at", started if ended_at is None else ended_at)
        sent = min(getattr(self, "sent_at", started), head_at)
        return (
            getattr(self, "asked", started),
            started,
            sent,
            head_at,
            ended_at,
        )

    @property
    def informational(self) -> tuple[tuple[int, HTTPMessage], ...]:
        """The 1xx responses that came before this one: (status, headers) of each."""
        return getattr(self, "interim", ())

    @property
    def timings(self) -> Timings:
        """The seconds of each phase, until now. A connection that is no pool's has no ``queue``."""
        phases = self.dialed.durations if self.dialed is not None else {}
        asked, started, sent, head_at, ended = self.times()
        return Timings(
            max(started - asked - sum(phases.values()), 0.0),
            phases.get("dns"),
            phases.get("connect"),
            phases.get("proxy"),
            phases.get("tls"),
            sent - started,
            head_at - sent,
            ended - head_at if ended is not None else None,
        )

    # -------------------------------------------------------------------------- feeding

    def feed_data(self, data: bytes | memoryview) -> None:
        """Add bytes to the body. A memoryview is copied: its memory belongs to the source."""
        size = len(data)
        self.received += size
        if self.closed:
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

    def landed(self, size: int) -> None:
        """Count *size* bytes that were read into ``landing``; wake the reader if it has enough."""
        landing = self.landing
        assert landing is not None and self.remaining is not None, "landed without a landing view"
        assert self.source is not None
        self.received += size
        self.remaining -= size
        self.landing = landing[size:] if size < len(landing) else None
        if self.landing is None and self.source.reads_ahead and self.remaining:
            # Bytes that arrive before the reader runs would be copied. The next wait resumes.
            self._pause()
        self._wake_at -= size
        waiter = self.waiter
        if self._wake_at <= 0 and waiter is not None and not waiter.done():
            waiter.set_result(None)

    def feed_eof(self) -> None:
        """End the body; wake its reader."""
        self.ended = True
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def set_exception(self, exc: BaseException) -> None:
        """End the exchange with *exc*; wake waiting callers. Bytes that arrived stay readable."""
        if self.ended:
            return
        self.failure = exc
        self.ended = True
        self.wake()

    def wake(self) -> None:
        """Wake the callers that wait for the head or for the body: the exchange has ended."""
        for waiter in (self.waiter, self.head_waiter):
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

    # ----------------------------------------------------------------------------- ends

    def raise_failure(self) -> None:
        """Raise the exception that came instead of the head, if one did."""
        exc = self.failure
        if self.head is None and exc is not None:
            # Once: a traceback that refers to its exception would wait for the garbage collector.
            self.failure = None
            try:
                raise exc
            finally:
                del exc

    def close(self) -> None:
        """Drop the unread bytes. If the body is incomplete, the connection is aborted.

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
        """Let the connection be aborted when the caller drops this response."""
        if not self.ended and self.source is not None:
            self.source.hold_weakly(self)

    def discard(self, limit: int) -> None:
        """Drop the unread bytes, but keep the connection if *limit* bytes or fewer are to come.

        A caller that is done with the response calls ``close()``; a pool that wants the connection
        again calls this. The body is dropped as it arrives. If it is larger, if nobody knows how
        much is to come, or if another task waits for it, the connection is aborted, as by
        ``close()``. Nobody may read afterwards.
        """
        self._discard_limit = limit
        undrainable = self.head is not None and not self.may_drain()
        if self.ended or self.source is None or undrainable or self.waiter is not None:
            self.close()
            return
        self.closed = True
        self._drop_unread()
        if self.paused:
            self._resume()

    def may_drain(self) -> bool:
        """Whether the rest of the body may be awaited for the connection; see ``discard``."""
        left = self.remaining
        return left is not None and left <= self._discard_limit and not self.will_close

    def _abandon(self) -> None:
        """Leave nothing to raise: the caller has closed the body, or has seen its failure."""
        self.failure = None
        self.ended = ABANDONED

    def _drop_unread(self) -> None:
        self.first = b""
        self._offset = 0
        self._queue = None
        self.buffered = 0
