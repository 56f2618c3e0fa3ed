"""HTTP1Protocol: the exchanges of one transport, in order, and the bytes that it receives.

Receiving, held in ``state`` and nowhere else:

              exchange starts                head parsed, has a body
      IDLE ───────────────────► HEAD ─────────────────────────► BODY
       ▲                        │ ▲ 1xx: stay                    │
       │       no body          │ ╰─╯                            │ last byte
       ╰────────────────────────┴────────────────────────────────╯
                  (both directions finished, and keep-alive)
   HEAD ── 101, or 2xx to CONNECT ──► UPGRADED      any ── eof, lost, abort, bad bytes ──► CLOSED
   IDLE ── any byte at all ──► CLOSED            (a response to no request: poisoned)

A request in more than one write is sent by writing.py and upload.py. Here it shows as ``upload``,
which is ``open`` until the request's last byte, and ``wanted`` while more of it is useful.

The exchanges are a FIFO: ``_response`` is the one being received, ``_queued`` those after it.
Responses are matched strictly in order, and the end of the connection, however it comes, fails
every exchange after the first as ``NotProcessed``. The ends of a connection are in ends.py. A
protocol that has ended is never used again: late callbacks of an old socket find ``CLOSED``.

A pool that keeps the connection is its ``owner``. The owner is told when an exchange has ended,
before its caller is woken; once, when the connection will serve no other exchange; and when the
transport is lost.

Bytes are read into one scratch buffer that all connections of a loop share: on selector loops,
and on uvloop on Unix, ``get_buffer``, the read and ``buffer_updated`` happen in one go. Elsewhere
each connection has its own, and nothing lands in a caller's memory.

Layer: above ends, below connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING

from .buffers import SCRATCH_SIZE, TLS_SCRATCH, scratch
from .ends import ConnectionEnds
from .exceptions import HTTPException, MalformedResponse
from .exchange import HIGH_WATER
from .failures import no_response, stray_bytes
from .hooks import at_once
from .http11.chunked import ChunkedDecoder
from .http11.framing import response_framing
from .http11.limits import DEFAULT_LIMITS, Limits
from .http11.response_head import (
    CommonHead,
    HeadReader,
    ResponseHead,
    match_common_head,
    parse_response_head,
)
from .http11.semantics import FRAMED_BY_FIELDS
from .net.timeouts import NO_TIMEOUT, Timeout
from .net.tls import holds_more
from .response import HTTPResponse, make_message
from .source import BODY, CLOSED, HEAD, IDLE, UPGRADED
from .writing import Upload

if TYPE_CHECKING:
    from .types import OnInformational

__all__ = ["BODY", "CLOSED", "IDLE", "UPGRADED", "HTTP1Protocol"]


SEEN_HEADS = 64
"""Heads of recent responses that are kept, so that a repeated head is not matched again."""

SEEN_SIZE = 4096
"""Bytes of a head that is kept: a server must not fill memory with larger ones."""

STOP_SENDING_STATUS = 300
"""Lowest final status that stops the sending of a request if it arrives before that is done."""


@lru_cache(maxsize=16)
def _seen_heads(limits: Limits, size: int) -> dict[int, CommonHead]:
    """Return the heads of recent complete responses, by the response's size.

    There is one dict for each *limits*: its heads are within them, and their responses below *size*
    bytes, so that no read of one is a full one. All connections share it, so that ten thousand of
    them do not keep a head each.
    """
    return {}


class HTTP1Protocol(ConnectionEnds):
    """Feed the responses of one transport. One is made for each connect.

    Attributes: ``state``; ``exchanges``, the number begun; ``owner``, the pool that keeps it;
    ``upload``, the request that is sent in several writes; ``closed_by_peer``, whether the peer
    ended the connection, or its response does; ``timed``, whether any limit is set;
    ``may_hold_more``, whether bytes may wait in the kernel that the loop has not seen.
    """

    __slots__ = (
        "_heads",
        "_high_water",
        "_interim",
        "_landing",
        "_limits",
        "_max_fields",
        "_max_line",
        "_on_informational",
        "_response_class",
        "_room",
        "_scratch",
        "_size",
        "_slow_path",
        "_strict",
        "_upgraded",
        "_view",
        "may_hold_more",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        origin: str = "",
        *,
        limits: Limits = DEFAULT_LIMITS,
        strict: bool = False,
        high_water: int = HIGH_WATER,
        timeout: Timeout = NO_TIMEOUT,
        response_class: type[HTTPResponse] = HTTPResponse,
        on_informational: OnInformational | None = None,
    ) -> None:
        # Configuration
        ConnectionEnds.__init__(self, loop, origin, timeout)
        self._limits = limits
        self._max_fields = limits.max_fields
        self._max_line = min(limits.max_line, limits.max_head_bytes)
        self._strict = strict
        self._high_water = high_water
        self._response_class = response_class
        self._on_informational = on_informational

        # Per connection
        # Bytes of a read that has filled its memory: of one in a body only ``_room``, if less.
        self._size = self._room = size = max(1, min(high_water, SCRATCH_SIZE))
        self._heads = _seen_heads(limits, size)
        # Whether a read was full, so that the kernel may hold bytes that the loop did not see.
        self.may_hold_more = False
        if self.can_land:
            self._scratch, self._view = scratch(loop, size)
        else:
            self._scratch = bytearray(TLS_SCRATCH)
            self._view = memoryview(self._scratch)[:size]
        # Whether the bytes of this read event go straight to the reader.
        self._landing = False
        self._upgraded = b""

        # Per exchange
        # Whether the exchange may be more than "200, its body in the same read".
        self._slow_path = False
        self._interim = 0

    def reusable(self) -> bool:
        """Whether another exchange may begin, with nothing left of earlier ones.

        The response has ended, the request was sent completely, keep-alive holds, and no byte is
        left over.
        """
        return self.state is IDLE and (self.upload is None or not self.upload.open)

    # -------------------------------------------------------------- transport callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the transport; called once."""
        self.transport = transport  # type: ignore[assignment]
        self.write = transport.write  # type: ignore[attr-defined]
        self.peername = transport.get_extra_info("peername")
        self._tls = transport.get_extra_info("ssl_object")
        if self._tls is not None:
            self.lands_pieces = False
            self.may_hold_more = True  # nobody knows which of its reads from TCP was full
            whole = scratch(self.loop, TLS_SCRATCH)[1] if self.can_land else None
            self._view = whole or memoryview(self._scratch)

    def looked(self) -> None:
        """Note that the socket was looked at, and holds no byte that the loop did not see."""
        self.may_hold_more = self._tls is not None

    def pause_writing(self) -> None:
        """The transport's write buffer is full: an upload waits from now on."""
        self.writing_paused = True

    def resume_writing(self) -> None:
        """The transport's write buffer has room again."""
        self.writing_paused = False
        if self.upload is not None:
            self.upload.wake()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the memory for the next bytes. Hot: see docs/topics/design.md.

        Always a memoryview: asyncio's TLS slices it, and a slice of a bytearray is a copy.
        """
        if self.state is BODY:
            response = self._response
            if response is None and (response := self._front()) is None:
                return self._view
            # The last call may have been for nothing: TLS asks before it has a whole record.
            self._landing = False
            landing = response.landing
            if self._tls:
                # asyncio's and uvloop's TLS keep bytes that do not fit, and lose them at a FIN.
                left = response.remaining
                if landing is None or left is None or len(landing) < min(TLS_SCRATCH, left):
                    return self._view
            if landing is not None and not response.buffered:
                self._landing = True
                return landing
            room = self._high_water - response.buffered
            if 0 < room < SCRATCH_SIZE and not self._tls:
                self._room = room
                return self._view[:room]
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Process the bytes that were read. Hot: see docs/topics/design.md.

        Only the most common cases are here, with a response that has arrived whole written out
        flat; ``_receive`` has all of them. Invariant: the bytes in the scratch buffer are copied
        or consumed before this returns.
        """
        response = self._response
        try:
            if response is not None and self.state is HEAD:
                if self._reader is None and not self._head_bytes:
                    buffer = self._scratch
                    # A head seen a moment ago is not matched again: an API's heads within one
                    # second are often the same byte for byte. One head is kept for each size.
                    # A hit is right: under the same limits, only the whole head and the length of
                    # its body decide. A CommonHead is (whole, size, ..., head at 4, ...).
                    heads = self._heads
                    plain = heads.get(nbytes)
                    if plain is None or not buffer.startswith(plain[4]):
                        plain = match_common_head(
                            buffer, 0, nbytes, self._max_fields, self._max_line
                        )
                        if nbytes >= self._size:
                            self.may_hold_more = True
                        if plain is None:
                            self._progress()
                            self._receive(buffer, 0, nbytes)
                            return
                        if plain[0] == nbytes < self._size and plain[1] <= SEEN_SIZE:
                            if len(heads) >= SEEN_HEADS:
                                heads.clear()
                            heads[nbytes] = plain
                    if plain[0] != nbytes or self._slow_path:
                        self._progress()
                        if self._queued:
                            pos = self._receive_batch(plain, nbytes)
                        else:
                            pos = self._common_head(response, plain, buffer, 0, nbytes)
                        if pos < nbytes:
                            self._receive(buffer, pos, nbytes)
                        return
                    _, size, response.status, response.reason, response.head, _, _ = plain
                    response.version = 11
                    response.remaining = 0
                    response.chunked = response.will_close = False
                    response.received = response.buffered = nbytes - size
                    response.first = self._view[size:nbytes].tobytes()
                    response.ended_at = monotonic()
                    response.ended = True
                    self._response = None
                    self.state = IDLE
                    if self._watchdog is not None:
                        self._watchdog.disarm()
                    if self.owner is not None:
                        self.owner.exchange_ended(self, response)
                    waiter = response.head_waiter
                    if waiter is not None and not waiter.done():
                        waiter.set_result(None)
                    return
            elif self._landing:
                self._landing = False
                response = self._front()
                if response is not None:
                    self._progress()
                    response.landed(nbytes)
                    if not response.remaining:
                        self._finish_landed(response)
                    return
            if nbytes >= self._room:
                self.may_hold_more = True
            self._room = self._size
            self._progress()
            self._receive(self._scratch, 0, nbytes)
        except BaseException as exc:
            self._fail_here(response, exc)
            raise

    # ------------------------------------------------------------------------ exchanges

    def start(self, method: str, target: str, data: bytes, whole: bool) -> HTTPResponse:
        """Begin an exchange: write *data*, the head and, if *whole*, the body; return its response.

        Hot: see docs/topics/design.md.
        """
        response = self._response_class(self, method, target, self._high_water)
        try:
            if self.state is IDLE:
                self._response = response
                self.state = HEAD
                self._slow_path = not whole or method not in FRAMED_BY_FIELDS
            elif self.state is CLOSED:
                return self._refuse(response)
            else:
                self._slow_path = True
                if self._queued is None:
                    self._queued = deque()
                self._queued.append(response)
            response.started = monotonic()
            response.number = self.exchanges = self.exchanges + 1
            self.upload = None if whole else Upload(self, self._tls is not None)
            self.write(data)
        except BaseException:
            # How much was written is not known, and the answer to it would be another request's.
            self.abort()
            raise
        return response

    def _refuse(self, response: HTTPResponse) -> HTTPResponse:
        """Fail *response*, whose request came after the connection's end: nothing is written."""
        response.started = monotonic()
        response.number = self.exchanges + 1
        exc = no_response(None, b"", False)
        self.upload = None
        # Later: the caller has yet to wait for it.
        self.loop.call_soon(response.set_exception, self.describe(exc, response))
        return response

    def close_after(self, response: HTTPResponse) -> None:
        """Send nothing after the request, which said ``Connection: close`` (RFC 9112 §9.6)."""
        response.last = self._slow_path = True

    def detach(self) -> tuple[asyncio.Transport, bytes]:
        """Give away the transport of an upgraded connection, and the bytes received after the head.

        Reading is paused: no byte is lost if ``set_protocol`` follows without an ``await``.
        """
        transport = self.transport
        if self.state is not UPGRADED or transport is None:
            raise HTTPException(f"{self.origin}: only an open, upgraded connection can be detached")
        if self.raw_transport not in (None, transport):
            # So far TCP is paused: see DialReport. The new owner knows only the TLS transport.
            transport.pause_reading()
            self.resume_reading()
        self._release_tls()
        self.transport = self.raw_transport = None
        self._close(hard=False)  # does not reach the transport
        self._watchdog = self.upload = None  # connection_lost, which does this, never comes
        return transport, self._upgraded

    # ------------------------------------------------------------------------ receiving

    def _receive(self, buffer: bytearray, pos: int, end: int) -> None:
        """Process ``buffer[pos:end]`` in any state: heads, bodies, and the bytes after them."""
        while pos < end:
            response = self._response
            if response is None:
                response = self._front()
            if self.state is HEAD and response is not None:
                reader = self._reader
                if reader is None:
                    if not self._head_bytes:
                        plain = self._match_head(buffer, pos, end)
                        if plain is not None:
                            pos = self._common_head(response, plain, buffer, pos, end)
                            continue
                    reader = HeadReader(self._limits, self._head_bytes, self._strict)
                    self._reader = reader
                try:
                    size = reader.feed(memoryview(buffer)[pos:end])
                    if not size:
                        if self._is_stray(response, reader.buffer):
                            self._fail_on_bad_data(stray_bytes())
                        return
                    self._reader = None
                    self._head_bytes += size
                    buffer, pos, end = reader.buffer, size, len(reader.buffer)
                    head = parse_response_head(buffer[:size], strict=self._strict)
                    left, chunked, close = response_framing(head, response.method, self._strict)
                    if head.status < 200 and head.status != 101:
                        self._informational(response, head)
                        continue
                    if head.status == 101 and not response.upgrade:
                        raise MalformedResponse("101 although the request did not ask to upgrade")
                except HTTPException as exc:
                    self._fail_on_bad_data(exc)
                    return
                response.version, status, response.reason, text = head
                response.status = status
                response.head = text.encode("latin-1")
                response.remaining = left
                response.chunked = chunked
                response.will_close = close
                pos = self._final_head(response, status, buffer, pos, end)
            elif self.state is BODY and response is not None:
                pos = self._body(response, buffer, pos, end)
            elif self.state is UPGRADED:
                self._upgraded += buffer[pos:end]
                return
            else:
                # Idle: bytes that no request asked for poison the connection.
                self.abort()
                return

    def _receive_batch(self, plain: CommonHead, end: int) -> int:
        """Process a read that begins with *plain*; return where ``_receive`` goes on in it."""
        response = self._response
        assert response is not None, "a response that nobody waits for"
        return self._common_head(response, plain, self._scratch, 0, end)

    def _match_head(self, buffer: bytearray, pos: int, end: int) -> CommonHead | None:
        """Return the head at *pos*, after another response in the same read; None if uncommon."""
        return match_common_head(buffer, pos, end, self._max_fields, self._max_line)

    def _common_head(
        self, response: HTTPResponse, plain: CommonHead, buffer: bytearray, pos: int, end: int
    ) -> int:
        """Fill in *response* from *plain*, the head at *pos*; see ``_final_head``. Hot."""
        _, size, status, response.reason, response.head, left, chunked = plain
        response.version = 11
        response.status = status
        response.will_close = left is None and not chunked
        if status == 204 or status == 304 or response.method == "HEAD":
            # A 204 that says that a body follows: see response_framing.
            response.will_close = status == 204 and (chunked or bool(left))
            left, chunked = 0, False
        response.remaining = left
        response.chunked = chunked
        return self._final_head(response, status, buffer, pos + size, end)

    def _final_head(
        self, response: HTTPResponse, status: int, buffer: bytearray, pos: int, end: int
    ) -> int:
        """Begin the body of *response*, whose head is filled in, from ``buffer[pos:end]``.

        Returns the position after the bytes that were used, and *end* if the connection has ended.

        Hot: see docs/topics/design.md. A body that has arrived whole with its head is complete
        here, before the caller wakes.
        """
        response.head_at = monotonic()
        if response.will_close:
            self.closed_by_peer = True  # below, this program may want it
        upload = self.upload
        if upload is not None and upload.open and not self._queued:
            # The answer arrives before the request is sent: RFC 9112 §9.3 and §9.5.
            if status >= STOP_SENDING_STATUS:
                response.will_close = True
                upload.stop()
            else:
                upload.wake()
        if response.last:
            response.will_close = True
        waiter = response.head_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if status == 101 or (response.method == "CONNECT" and status < 300):
            self._upgrade(response)
            return pos
        left = response.remaining
        if left is not None and left <= end - pos:
            stop = pos + left
            response.remaining = 0
            response.received = response.buffered = left
            response.first = bytes(buffer[pos:stop]) if left else b""
            self._finish(response, stop < end)
            return stop
        self.state = BODY
        if response.closed and not response.may_drain():
            self.abort()  # it was abandoned before its head
            return end
        if self._head_timeout is not None and self._queued:
            self.limit_unread()
        if response.chunked:
            response.decoder = ChunkedDecoder(self._limits, self._strict)
        if pos < end:
            return self._body(response, buffer, pos, end)
        return end

    def _body(self, response: HTTPResponse, buffer: bytearray, pos: int, end: int) -> int:
        """Feed *response* from ``buffer[pos:end]``; return the position after its body."""
        decoder = response.decoder
        if decoder is not None:
            data, stop = decoder.decode(buffer, pos, end)
            if data:
                response.feed_data(data)
            if decoder.error is not None:
                self._fail_on_bad_data(decoder.error)
                return end
            if decoder.done:
                self._finish(response, stop < end)
            return stop
        left = response.remaining
        stop = end if left is None else min(end, pos + left)
        if left is not None:
            response.remaining = left - (stop - pos)
        response.feed_data(memoryview(buffer)[pos:stop])
        if left is not None and not response.remaining:
            self._finish(response, stop < end)
        return stop

    def _finish(self, response: HTTPResponse, leftover: bool) -> None:
        """End a complete response: start the next exchange, become idle, or close. Hot."""
        response.ended_at = monotonic()
        response.ended = True
        waiter = response.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if response.paused:
            # Paused by its own last bytes. The next bytes must be read: a head, or EOF.
            response.paused = False
            self.resume_reading()
        self._interim = self._head_bytes = 0
        # The task that waited for its body runs later, maybe after the next exchange began.
        self._waiting_reader = None
        queued = self._queued
        if self._watchdog is not None and not queued:
            self._watchdog.disarm()
        self._response = self._held = None
        upload = self.upload
        sending = upload is not None and upload.open
        if response.will_close or (not queued and (leftover or sending)):
            # RFC 9112 §9.3, §9.6. A leftover is a response that no request asked for.
            response.will_close = response.will_close or sending
            if self.owner is not None:
                self.owner.last_exchange_ended(self, response)
            # A peer that takes no more of the request would hold up a graceful close for ever, and
            # TLS, which reads on while it closes, may be in the middle of a read.
            self._close(hard=sending or (leftover and self._tls is not None))
            return
        if queued:
            self._response = following = queued.popleft()
            self.state = HEAD
            self._start_next(following)
        else:
            self.state = IDLE
        if self.owner is not None:
            self.owner.exchange_ended(self, response)

    def _finish_landed(self, response: HTTPResponse) -> None:
        """End *response*, whose last bytes have filled the memory that its reader lent."""
        self.may_hold_more = True
        # What TLS has decrypted, too, is no longer the kernel's.
        self._finish(response, self._tls is not None and not self._queued and holds_more(self._tls))

    def _start_next(self, following: HTTPResponse) -> None:
        """Begin to receive *following*. Its wait for bytes goes on; it began earlier."""
        self._waiting_reader = None
        if following.closed:
            # Not now: it may end the connection, in the middle of this read event.
            self.loop.call_soon(self.limit_discard, following)
        elif self._watchdog is not None:
            self._watchdog.arm_total(following.deadline)
            if self._head_timeout is not None:
                self._watchdog.disarm_read()
                self._watchdog.arm_head(self.loop.time() + self._head_timeout)

    def _upgrade(self, response: HTTPResponse) -> None:
        """End HTTP on the connection: later bytes wait for ``detach`` and the caller's protocol."""
        self.state = UPGRADED
        self.pause_reading()
        # RFC 9110 §9.3.6: the framing fields are ignored.
        response.remaining = 0
        response.chunked = response.will_close = False
        response.feed_eof()
        self._response = self._held = None
        if self._watchdog is not None:
            self._watchdog.disarm()

    def _informational(self, response: HTTPResponse, head: ResponseHead) -> None:
        """Keep a 1xx response before *response* (RFC 9110 §15.2); tell sender and callback."""
        self._interim += 1
        if self._interim > self._limits.max_interim:
            raise HTTPException(f"got more than {self._limits.max_interim} interim responses")
        headers = make_message(head.fields())
        response.interim = (*response.informational, (head.status, headers))
        if head.status == 100 and self.upload is not None:
            self.upload.wake_continue()
        if self._on_informational is not None:
            try:
                at_once("on_informational", self._on_informational(head.status, headers))
            except Exception as exc:
                self.loop.call_exception_handler(
                    {"message": "on_informational failed", "exception": exc, "protocol": self}
                )
