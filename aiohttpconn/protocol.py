"""HTTP1Protocol: one transport from its birth to its death, and the exchanges on it in order.

Receiving, held in ``state`` and nowhere else:

              exchange starts                head parsed, has a body
      IDLE ───────────────────► HEAD ─────────────────────────► BODY
       ▲                        │ ▲ 1xx: stay                    │
       │       no body          │ ╰─╯                            │ last byte
       ╰────────────────────────┴────────────────────────────────╯
                  (both directions finished, and keep-alive)
   HEAD ── 101, or 2xx to CONNECT ──► UPGRADED      any ── eof, lost, abort, bad bytes ──► CLOSED
   IDLE ── any byte at all ──► CLOSED            (a response that nothing asked for: poisoned)

Sending is writing.py's business and upload.py's; here it shows as two marks: ``request_open``
from the first byte of a request to its last, and ``can_send`` as long as more of it is wanted.

The exchanges are a FIFO: ``_response`` is the one being received, ``_pending`` those behind it.
Responses are matched strictly in order, and whatever ends the connection fails every exchange
behind the first as ``NotProcessed``. An ended protocol is never used again: late callbacks of an
old socket find ``CLOSED``.

A pool that keeps the connection is its ``owner``, and is told when an exchange has ended, before
its caller is woken, when the connection has, and when the transport is gone.

Bytes are read into one scratch buffer that all connections of a loop share: on selector loops,
and on uvloop on Unix, ``get_buffer``, the read and ``buffer_updated`` happen in one go. Elsewhere
each connection has its own, and nothing lands in a caller's memory.

Layer: above response, below connection.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from contextlib import suppress
from enum import IntEnum
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from .buffers import SCRATCH_SIZE, TLS_SCRATCH, reads_in_one_go, scratch
from .exceptions import HTTPException, MalformedResponse, NotProcessed
from .exchange import HIGH_WATER, Exchange
from .failures import closed_here, describe_exchange, expired, incomplete, no_response
from .http11.chunked import ChunkedDecoder
from .http11.head import (
    HeadReader,
    PlainHead,
    ResponseHead,
    match_plain_head,
    parse_response_head,
    response_framing,
)
from .http11.limits import DEFAULT_LIMITS, Limits
from .http11.semantics import FRAMED_BY_FIELDS
from .net.resumption import drop_session, keep_session
from .net.timeouts import NO_TIMEOUT, Timeout
from .net.tls import is_clean_eof
from .response import HTTPResponse, make_message
from .writing import WritingProtocol

if TYPE_CHECKING:
    from .types import OnInformational

__all__ = ["BODY", "CLOSED", "IDLE", "UPGRADED", "HTTP1Protocol"]


class State(IntEnum):
    """What the protocol receives next; see the module's diagram."""

    IDLE = 0
    HEAD = 1
    BODY = 2
    UPGRADED = 3
    CLOSED = 4


IDLE, HEAD, BODY, UPGRADED, CLOSED = State

SEEN_HEADS = 64
"""Heads of recent responses that are kept, so that one that repeats is not matched again."""

SEEN_SIZE = 4096
"""Bytes of a head that is kept: no server is to fill memory with larger ones."""

STOP_SENDING_STATUS = 300
"""A final status from here on that arrives before the request is whole stops its sending."""

DISCARD_SECONDS = 1.0
"""For the rest of a body that nobody wants; if it takes longer, it costs the connection."""

DISCARD_SHARED_SECONDS = 10.0
"""The same where others wait behind it, or its head is not here; from when it is its turn."""


@lru_cache(maxsize=16)
def _seen_heads(limits: Limits) -> dict[int, PlainHead]:
    """Return the heads of recent whole responses by the response's size, for all connections.

    One dict for each *limits*: these heads are within them. Shared, so that ten thousand
    connections do not keep a head each.
    """
    return {}


class Owner(Protocol):
    """Who keeps a connection between exchanges. Called in the middle of a read event."""

    def exchange_ended(self, response: HTTPResponse, count: int = 1) -> None:
        """*response*, the last of *count*, is whole. The next is received, or nothing is."""

    def connection_ended(self) -> None:
        """The connection will serve no other exchange; its socket may still be closing.

        Called several times for some ends.
        """

    def transport_lost(self, protocol: HTTP1Protocol) -> None:
        """The socket is gone."""


class HTTP1Protocol(WritingProtocol):
    """Feed the responses of one transport. Made by ``HTTPConnection``, one per connect.

    Attributes: ``state``; ``exchanges``, the number begun; ``owner``, who keeps it for others;
    ``hung_up``, whether it was the peer who has ended the connection, or has said that it would.
    """

    __slots__ = (
        "__weakref__",
        "_batch",
        "_closed_waiter",
        "_complex",
        "_head_bytes",
        "_heads",
        "_held",
        "_high_water",
        "_interim",
        "_landing",
        "_last_plain",
        "_limits",
        "_max_fields",
        "_max_line",
        "_on_informational",
        "_pending",
        "_reader",
        "_response",
        "_response_class",
        "_scratch",
        "_strict",
        "_tls",
        "_upgraded",
        "_view",
        "can_land",
        "exchanges",
        "hung_up",
        "lands_pieces",
        "origin",
        "owner",
        "peername",
        "reads_ahead",
        "state",
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
        WritingProtocol.__init__(self, loop, timeout)
        self.origin = origin
        self._limits = limits
        self._max_fields = limits.max_fields
        self._max_line = min(limits.max_line, limits.max_head_bytes)
        self._heads = _seen_heads(limits)
        self._strict = strict
        self._high_water = high_water
        self._response_class = response_class
        self._on_informational = on_informational

        # Per connection
        self.peername: Any = None
        self.state: State = IDLE
        self.exchanges = 0
        self.hung_up = False
        self.can_land = self.lands_pieces = reads_in_one_go(loop)
        # libuv reads up to 32 times before anything else runs, a woken reader too.
        self.reads_ahead = not isinstance(loop, asyncio.SelectorEventLoop)
        self._scratch = scratch(loop) if self.can_land else bytearray(TLS_SCRATCH)
        self._view = memoryview(self._scratch)[: max(1, min(high_water, SCRATCH_SIZE))]
        # The ssl_object. Not to be asked for later: asyncio's closed transports raise.
        self._tls: Any = None
        # Whether the bytes of this read event go straight to the reader.
        self._landing = False
        self._closed_waiter: asyncio.Future[None] | None = None
        self._upgraded = bytearray()
        self._held: Exchange | None = None
        self.owner: Owner | None = None
        # What the next turn of the loop writes at once; None writes each request by itself.
        self._batch: list[bytes] | None = None
        # The head of the last response that followed another one in the same read.
        self._last_plain: PlainHead | None = None

        # Per exchange
        self._response: HTTPResponse | None = None
        self._pending: deque[HTTPResponse] | None = None
        self._reader: HeadReader | None = None
        self._complex = False
        self._interim = 0
        self._head_bytes = 0

    # ------------------------------------------------------- transport callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport over, once."""
        self.transport = transport  # type: ignore[assignment]
        self.peername = transport.get_extra_info("peername")
        self._tls = transport.get_extra_info("ssl_object")
        if self._tls is not None:
            self.lands_pieces = False
            self._view = memoryview(self._scratch)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go. Hot: see docs/topics/design.md.

        Always a memoryview: asyncio's TLS slices what it gets, and a bytearray's slice is a copy.
        """
        response = self._response
        if self.state is BODY and response is not None:
            # The last call may have been for nothing: TLS asks before it has a whole record.
            self._landing = False
            landing = response.landing
            if self._tls:
                # asyncio's and uvloop's TLS keep what does not fit, and lose it at a FIN.
                left = response.remaining
                if landing is None or left is None or len(landing) < min(TLS_SCRATCH, left):
                    return self._view
            if landing is not None and not response.buffered:
                self._landing = True
                return landing
            room = self._high_water - response.buffered
            if 0 < room < SCRATCH_SIZE and not self._tls:
                return self._view[:room]
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Take in what was read. Hot: see docs/topics/design.md.

        Only the most common cases stand here, a response that has arrived whole written out
        flat; ``_receive`` has all of them. Invariant: what lies in the scratch buffer is copied
        or consumed before this returns.
        """
        response = self._response
        if response is not None:
            if self.state is HEAD:
                if self._reader is None and not self._head_bytes:
                    buffer = self._scratch
                    # A head seen a moment ago is not matched again: an API's answers within one
                    # second are often the same byte for byte. One size, one head.
                    # So a hit is right: under the same limits, a whole head and its body's length
                    # are all that decides. A PlainHead is (whole, size, ..., head at 4, ...).
                    heads = self._heads
                    plain = heads.get(nbytes)
                    if plain is None or not buffer.startswith(plain[4]):
                        plain = match_plain_head(
                            buffer, 0, nbytes, self._max_fields, self._max_line
                        )
                        if plain is None:
                            self._progress()
                            self._receive(buffer, 0, nbytes)
                            return
                        if plain[0] == nbytes and plain[1] <= SEEN_SIZE:
                            if len(heads) >= SEEN_HEADS:
                                heads.clear()
                            heads[nbytes] = plain
                    if plain[0] != nbytes or self._complex:
                        self._progress()
                        if self._pending:
                            pos = self._receive_batch(plain, nbytes)
                        else:
                            pos = self._plain_head(response, plain, buffer, 0, nbytes)
                        if pos < nbytes:
                            self._receive(buffer, pos, nbytes)
                        return
                    _, size, response.status, response.reason, response.head, _, _ = plain
                    response.version = 11
                    response.remaining = 0
                    response.chunked = response.will_close = False
                    response.received = response.buffered = nbytes - size
                    response.first = self._view[size:nbytes].tobytes()
                    response.ended = True
                    self._response = None
                    self.state = IDLE
                    if self._watchdog is not None:
                        self._watchdog.disarm()
                    if self.owner is not None:
                        self.owner.exchange_ended(response)
                    waiter = response.head_waiter
                    if waiter is not None and not waiter.done():
                        waiter.set_result(None)
                    return
            elif self._landing:
                self._landing = False
                self._progress()
                response.landed(nbytes)
                if not response.remaining:
                    self._finish(response, False)
                return
        self._progress()
        self._receive(self._scratch, 0, nbytes)

    def _progress(self) -> None:
        """Bytes have arrived: the ``read`` limit counts anew."""
        if self._read_timeout is not None and self._watchdog is not None:
            self._watchdog.progress(self._read_timeout)

    def eof_received(self) -> bool | None:
        """The peer will send nothing more: the response ends here, whole or not."""
        self.hung_up = self.hung_up or self.state is not CLOSED
        self._end(None)
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone; *exc* says why, None for a plain end."""
        if exc is not None and self.state in (HEAD, BODY):
            self._salvage()
        self.hung_up = self.hung_up or self.state is not CLOSED
        self._end(exc)
        if exc is not None:
            drop_session(self._tls, exc)
        if self._watchdog is not None:
            self._watchdog.stop()
            self._watchdog = None  # they know each other
        self._paused_writing = False
        self.transport = self.raw_transport = self._held = self._tls = None
        self._wake_sender()
        if self.owner is not None:
            owner, self.owner = self.owner, None
            owner.transport_lost(self)
        waiter = self._closed_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # ------------------------------------------------------------------ exchanges

    def start(self, method: str, target: str, data: bytes, whole: bool) -> HTTPResponse:
        """Begin an exchange: write *data*, the head and, if *whole*, the body; return its response.

        Hot: see docs/topics/design.md.
        """
        response = self._response_class(self, method, target, self._high_water)
        if self.state is IDLE:
            self._response = response
            self.state = HEAD
            # Whether more than "200, its body in the same read" has to be thought of.
            self._complex = not whole or method not in FRAMED_BY_FIELDS
        elif self.state is CLOSED:
            return self._refuse(response)
        else:
            self._complex = True
            if self._pending is None:
                self._pending = deque()
            self._pending.append(response)
        response.started = monotonic()
        response.number = self.exchanges = self.exchanges + 1
        self.request_open = not whole
        self.can_send = True
        if self._batch is None:
            self.transport.write(data)  # type: ignore[union-attr]
        else:
            if not self._batch:
                self.loop.call_soon(self._write_batch)
            self._batch.append(data)
        return response

    def _refuse(self, response: HTTPResponse) -> HTTPResponse:
        """Fail *response*, whose request came after the connection's end: nothing is written."""
        response.started = monotonic()
        response.number = self.exchanges + 1
        exc = no_response(None, b"", False)
        response.set_exception(self.describe(exc, response))
        return response

    def batch_writes(self, on: bool) -> None:
        """Write the requests of one turn of the loop at once, at its end, or each by itself."""
        if not on:
            self._write_batch()
            self._batch = None
        elif self._batch is None:
            self._batch = []

    def _write_batch(self) -> None:
        batch = self._batch
        if batch:
            data = b"".join(batch)
            batch.clear()
            if self.transport is not None and self.state is not CLOSED:
                self.transport.write(data)

    def arm_total(self, response: HTTPResponse, deadline: float) -> None:
        """Let the exchange of *response* end by *deadline*; what is received before it, too."""
        if self.state is CLOSED:
            return
        response.deadline = deadline
        front = self._response
        if front is not None:
            deadline = min(deadline, front.deadline)
        self.watchdog().arm_total(deadline)

    def close_after(self, response: HTTPResponse) -> None:
        """The request said ``Connection: close``: nothing is sent after it (RFC 9112 §9.6)."""
        response.last = self._complex = True

    def request_continues(self) -> None:
        """More of the request follows what ``start`` wrote."""
        self.request_open = self._complex = True

    def detach(self) -> tuple[asyncio.Transport, bytes]:
        """Give the transport of an upgraded connection away, and the bytes received after the head.

        Reading is paused since the head, so that nothing is lost before ``set_protocol``, which
        has to follow without an ``await`` in between.
        """
        transport = self.transport
        if self.state is not UPGRADED or transport is None:
            raise HTTPException(f"{self.origin}: only an open, upgraded connection can be detached")
        self.state = CLOSED
        if self.raw_transport not in (None, transport):
            # Until now TCP was paused: see net.dial. Its new owner knows only the TLS transport.
            transport.pause_reading()
            self.resume_reading()
        self.transport = self.raw_transport = self._tls = None
        if self._watchdog is not None:
            self._watchdog.stop()
        # Now that there is no transport whose end it could wait for.
        self._tell_owner()
        return transport, bytes(self._upgraded)

    # ------------------------------------------------------------------- receiving

    def _receive(self, buffer: bytearray, pos: int, end: int) -> None:
        """Take ``buffer[pos:end]`` in, whatever the state: heads, bodies, and what follows them."""
        while pos < end:
            response = self._response
            if self.state is HEAD and response is not None:
                reader = self._reader
                if reader is None:
                    if not self._head_bytes:
                        # Behind another response in the same read: pipelined.
                        plain = self._last_plain
                        if plain is None or not buffer.startswith(plain[4], pos, end):
                            plain = match_plain_head(
                                buffer, pos, end, self._max_fields, self._max_line
                            )
                            self._last_plain = plain
                        if plain is not None:
                            pos = self._plain_head(response, plain, buffer, pos, end)
                            continue
                    reader = self._reader = HeadReader(self._limits, self._head_bytes)
                try:
                    size = reader.feed(memoryview(buffer)[pos:end])
                    if not size:
                        return
                    self._reader = None
                    self._head_bytes += size
                    buffer, pos, end = reader.buffer, size, len(reader.buffer)
                    head = parse_response_head(buffer[:size], strict=self._strict)
                    left, chunked, close = response_framing(head, response.method, self._strict)
                    if head.status < 200 and head.status != 101:
                        self._informational(head)
                        continue
                    if head.status == 101 and not response.upgrade:
                        raise MalformedResponse("101 although the request did not ask to upgrade")
                except HTTPException as exc:
                    self._broken(exc)
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
                # Idle: bytes that nothing asked for poison the connection.
                self.abort()
                return

    def _receive_batch(self, plain: PlainHead | None, end: int) -> int:
        """Complete the responses that lie whole, one behind the other, in the scratch buffer.

        *plain* is the head of the first. Returns the position after them, which ``_receive`` goes
        on from: with a body that is not whole, or a head that is not plain. Hot.
        Invariant: a head that begins like the last one is the last one: they end with a blank line.
        """
        buffer = self._scratch
        pending = self._pending
        response = self._response
        assert pending is not None and response is not None, "responses that nobody waits for"
        done = response
        count = pos = 0
        while plain is not None:
            whole = plain[0]
            if whole < 0 or pos + whole > end or response.method == "HEAD" or response.last:
                break
            _, size, response.status, response.reason, response.head, _, _ = plain
            response.version = 11
            response.remaining = 0
            response.chunked = response.will_close = False
            response.received = response.buffered = whole - size
            response.first = bytes(buffer[pos + size : pos + whole])
            response.ended = True
            waiter = response.head_waiter
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
            done = response
            count += 1
            pos += whole
            if not pending:
                break
            self._response = response = pending.popleft()
            if pos == end:
                break
            if not buffer.startswith(plain[4], pos, end):
                plain = match_plain_head(buffer, pos, end, self._max_fields, self._max_line)
        self._last_plain = plain
        if count:
            if response.ended:
                self._response = None
                self.state = IDLE
                if self._watchdog is not None:
                    self._watchdog.disarm()
                if pos < end:
                    # Nothing asked for what follows: _receive closes the connection.
                    return pos
            else:
                self._follow(response)
            if self.owner is not None:
                self.owner.exchange_ended(done, count)
        return pos

    def _plain_head(
        self, response: HTTPResponse, plain: PlainHead, buffer: bytearray, pos: int, end: int
    ) -> int:
        """Fill in *response* from *plain*, the head at *pos*; see ``_final_head``. Hot."""
        _, size, status, response.reason, response.head, left, chunked = plain
        response.version = 11
        response.status = status
        if status == 204 or status == 304 or response.method == "HEAD":
            left, chunked = 0, False
        response.remaining = left
        response.chunked = chunked
        response.will_close = left is None and not chunked
        return self._final_head(response, status, buffer, pos + size, end)

    def _final_head(
        self, response: HTTPResponse, status: int, buffer: bytearray, pos: int, end: int
    ) -> int:
        """Begin the body of *response*, whose head is filled in, from ``buffer[pos:end]``.

        Returns the position after what was used of *buffer*.

        Hot: see docs/topics/design.md. A body that has arrived whole with its head is complete
        here, before the caller wakes. Returns *end* also when the connection is over.
        """
        if self.request_open and not self._pending:
            # The answer is here before the request is whole: RFC 9112 §9.3 and §9.5.
            if status >= STOP_SENDING_STATUS:
                self.can_send = False
                response.will_close = True
            self._wake_sender()
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
                self._broken(decoder.error)
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
        """End a response that is whole: the next exchange, idle, or close. Hot."""
        response.ended = True
        waiter = response.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if response.paused:
            # Paused by its own last bytes. Whoever comes next must be read: head, or EOF.
            response.paused = False
            self.resume_reading()
        self._interim = self._head_bytes = 0
        # Whoever has waited for its body runs later, maybe behind the next exchange's beginning.
        self._held = None
        pending = self._pending
        if self._watchdog is not None and not pending:
            self._watchdog.disarm()
        self._response = None
        if response.will_close or (not pending and (leftover or self.request_open)):
            # RFC 9112 §9.3, §9.6. A leftover is a response that nothing asked for.
            self.hung_up = response.will_close
            self._fail_pending(pending)
            # A peer that takes no more of the request would keep a polite end waiting for ever.
            self._shut(hard=self.request_open)
        elif pending:
            self._response = following = pending.popleft()
            self.state = HEAD
            self._follow(following)
            if self.owner is not None:
                self.owner.exchange_ended(response)
        else:
            self.state = IDLE
            if self.owner is not None:
                self.owner.exchange_ended(response)

    def _follow(self, following: HTTPResponse) -> None:
        """*following* is received from now on; its wait for bytes has been on for longer."""
        self._held = None
        if following.closed:
            self.hurry(following)
        elif self._watchdog is not None:
            self._watchdog.arm_total(following.deadline)

    def _upgrade(self, response: HTTPResponse) -> None:
        """HTTP ends here. What follows waits for ``detach`` and the caller's protocol."""
        self.state = UPGRADED
        self.pause_reading()
        # RFC 9110 §9.3.6: whatever the framing fields say.
        response.remaining = 0
        response.chunked = response.will_close = False
        response.feed_eof()
        self._response = None
        if self._watchdog is not None:
            self._watchdog.disarm()

    def _informational(self, head: ResponseHead) -> None:
        """Skip a 1xx response (RFC 9110 §15.2), let the sender and the callback know."""
        self._interim += 1
        if self._interim > self._limits.max_interim:
            raise HTTPException(f"got more than {self._limits.max_interim} interim responses")
        if head.status == 100:
            self._wake_continue()
        if self._on_informational is not None:
            try:
                self._on_informational(head.status, make_message(head.fields()))
            except Exception as exc:
                self.loop.call_exception_handler(
                    {"message": "on_informational failed", "exception": exc, "protocol": self}
                )

    # ------------------------------------------------------------------ ends

    def _end(self, exc: Exception | None) -> None:
        """The peer's side is over, by *exc* or plainly: end the response, whole or not."""
        state, response = self.state, self._response
        if state is BODY and response is not None:
            decoder = response.decoder
            if decoder is not None and exc is None and decoder.feed_eof():
                response.will_close = True
                self._finish(response, False)
                return
            if decoder is None and response.remaining is None and exc is None and self._clean_eof():
                # RFC 9112 §6.3 step 8 and §9.8: by the connection's end, which TLS confirms.
                response.will_close = True
                self._finish(response, False)
                return
        if state is HEAD and response is not None:
            received = self._reader.buffer if self._reader is not None else b""
            self._fail(no_response(exc, received, self._head_bytes), exc)
        elif state is BODY and response is not None:
            self._fail(incomplete(response, "connection ended before the body did"), exc)
        elif state is IDLE:
            self.close()
        else:
            self.state = CLOSED
            self.can_send = False
            self._tell_owner()

    def _clean_eof(self) -> bool:
        transport = self.transport
        ssl_object = transport.get_extra_info("ssl_object") if transport is not None else None
        return ssl_object is None or is_clean_eof(ssl_object)

    def _broken(self, exc: BaseException) -> None:
        """The response cannot be read on: *exc* ends it, and the connection."""
        if self.state is BODY and self._response is not None:
            self._fail(incomplete(self._response, str(exc)), exc)
        else:
            self._fail(exc, exc.__cause__)

    def _fail(self, exc: BaseException, cause: BaseException | None, notes: str = "") -> None:
        """End everything with *exc*, told as the current exchange's."""
        response = self._response
        self._response = None
        pending, self._pending = self._pending, None
        if response is not None:
            exc.__cause__ = cause
            if exc.__traceback__ is not None:
                exc = exc.with_traceback(None)
            self.describe(exc, response, notes=notes)
            if response.head is not None:
                response.will_close = True
            response.set_exception(exc)
        self._fail_pending(pending)
        self.abort()

    def _fail_pending(self, pending: deque[HTTPResponse] | None) -> None:
        while pending:
            response = pending.popleft()
            exc = NotProcessed("the connection ended before this request was answered")
            response.set_exception(self.describe(exc, response))

    def describe(
        self, exc: BaseException, response: HTTPResponse, notes: str = ""
    ) -> BaseException:
        """Give *exc* the details of this exchange; see ``exceptions.describe``."""
        return describe_exchange(
            exc,
            response,
            elapsed=monotonic() - response.started,
            request_sent=not self.request_open,
            reused=response.number - 1,
            notes=notes,
        )

    def _expired(self, name: str) -> None:
        """The watchdog's call: the limit *name* has passed."""
        transport, response = self.transport, self._response
        if transport is None or response is None:
            return
        if name == "write" and self._peer_takes_bytes():
            return
        if name == "read" and response.head is not None and response.waiter is None:
            # The wait for the head is over, and nobody waits for the body.
            self._part(response)
            return
        limit = getattr(self._timeout, name)
        self._fail(
            expired(name, limit, self.state is BODY),
            None,
            f"{name}={limit:g}" if limit is not None else name,
        )

    def _part(self, response: HTTPResponse) -> None:
        """Send those behind *response* elsewhere: its reader has kept them waiting for too long.

        It is theirs, so none of them has failed, nor has it: the connection ends with it.
        """
        pending, self._pending = self._pending, None
        if pending:
            response.will_close = True
            self._tell_owner()
            self._fail_pending(pending)

    def close(self) -> None:
        """End the connection politely: what was written still goes out."""
        self._shut(hard=False)

    def abort(self) -> None:
        """End the connection at once. Waiting readers and senders are woken."""
        self._shut(hard=True)

    def _shut(self, hard: bool) -> None:
        transport, response = self.transport, self._response
        self.state = CLOSED
        self.can_send = False
        self._response = None
        self._reader = None
        if self._watchdog is not None:
            self._watchdog.stop()
        if response is not None and not response.ended:
            response.set_exception(self.describe(closed_here(response), response))
        pending, self._pending = self._pending, None
        self._fail_pending(pending)
        self._wake_sender()
        self._tell_owner()
        if transport is None or self.loop.is_closed():
            return
        if hard:
            transport.abort()
        else:
            if self._tls:
                keep_session(self._tls)
            transport.close()

    def _tell_owner(self) -> None:
        """Tell the owner that the connection has ended; maybe not for the first time."""
        if self.owner is not None:
            self.owner.connection_ended()

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

    def _salvage(self) -> None:
        """Read what the kernel still holds of a plain connection whose writing failed.

        A server that answers 413 and closes makes the next write fail, and the transport then
        drops what it has not read: the answer (RFC 9112 §9.6).
        """
        transport = self.transport
        if transport is None or transport.get_extra_info("ssl_object") is not None:
            return
        sock = transport.get_extra_info("socket")
        try:
            for _ in range(16):
                data = os.read(sock.fileno(), SCRATCH_SIZE)
                if not data or self.state not in (HEAD, BODY):
                    return
                self._receive(bytearray(data), 0, len(data))
        except (OSError, AttributeError):
            return

    # ---------------------------------------------------------------- the source

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

    def begin_wait(self, reader: Exchange) -> None:
        """Somebody waits for bytes from now on."""
        self._held = reader
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
        if self._held is not reader:
            return
        self._held = None
        if self._watchdog is not None and not self._pending:
            self._watchdog.disarm_read()

    def hurry(self, response: HTTPResponse) -> None:
        """Nobody wants *response* any more: it may not keep the connection for long."""
        if self._response is response:
            alone = response.head is not None and not self._pending
            seconds = DISCARD_SECONDS if alone else DISCARD_SHARED_SECONDS
            self.watchdog().arm_total(self.loop.time() + seconds)

    def orphan(self) -> None:
        """Nobody but a response's holder knows this connection any more.

        The response is read to its end and the connection closed; if the response is dropped
        as well, the connection is aborted. ``_held`` keeps it alive while a task waits in it.
        """
        response = self._response
        if response is None or response.head is None or self._pending:
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
