"""ConnectionEnds: every end of a connection, and what becomes of its exchanges.

A connection ends in one place, ``_close``, however it comes: see the table in
docs/topics/design.md. Receiving bytes is protocol.py's part. Layer: above source, below protocol.
"""

from __future__ import annotations

import os
from time import monotonic
from typing import TYPE_CHECKING

from .buffers import SCRATCH_SIZE
from .exceptions import NotProcessed
from .failures import (
    closed_here,
    describe_exchange,
    expired,
    incomplete,
    no_response,
    stray_bytes,
)
from .http11.response_head import may_begin_response
from .http11.semantics import IDEMPOTENT
from .net.loops import abort_transport, has_ended
from .net.resumption import drop_session, keep_session, suspect_session
from .net.tls import is_clean_eof
from .source import BODY, CLOSED, HEAD, Owner, ResponseSource

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from .http11.response_head import HeadReader
    from .net.timeouts import Timeout
    from .response import HTTPResponse
    from .writing import Upload

__all__ = ["CLOSE_SECONDS", "ConnectionEnds"]

CLOSE_SECONDS = 1.0
"""Seconds that a polite close gives the peer: to answer the end of TLS, to take the last bytes."""


def not_connected(data: bytes) -> None:
    """Take the place of the transport's write while there is no transport."""
    raise AssertionError("a request is written to a connection that is not open")


class ConnectionEnds(ResponseSource):
    """The ends of a transport, as its peer, this program and the clock bring them."""

    __slots__ = (
        "_first_request",
        "_head_bytes",
        "_owner_told",
        "_reader",
        "closed_by_peer",
        "exchanges",
        "owner",
        "upload",
        "write",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, origin: str, timeout: Timeout) -> None:
        ResponseSource.__init__(self, loop, origin, timeout)

        # Per connection
        # Writes a request's first bytes: the transport's write.
        self.write: Callable[[bytes], None] = not_connected
        self.exchanges = 0
        # The whole first request, if it is kept: see keep_first_request.
        self._first_request: bytes | None = None
        self.closed_by_peer = False
        self.owner: Owner | None = None
        self._owner_told = False

        # Per exchange
        self._reader: HeadReader | None = None
        self._head_bytes = 0
        self.upload: Upload | None = None

    def eof_received(self) -> bool | None:
        """Handle the peer's end of file: the response ends here, complete or not."""
        self._on_eof(None)
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle the loss of the transport; *exc* says why, None if there was no error."""
        try:
            if isinstance(exc, ConnectionError) and exc.errno is not None:
                # The kernel's own. After any other exception, which may have come between a read
                # and here, nobody knows whether all that was read was taken in.
                self._read_remaining()
            self._on_eof(exc)
        except BaseException as failure:
            self._fail_here(self._front(), failure)
            raise
        finally:
            if self._queued or self._front() is not None:
                self._close(hard=True)  # something was raised in the close before
            self._forget_transport(exc)

    def _forget_transport(self, exc: Exception | None) -> None:
        """Let go of the transport, which is lost, and tell those who wait for that."""
        if self._watchdog is not None:
            self._watchdog.stop()
            self._watchdog = None  # they refer to each other
        self.writing_paused = False
        self.transport = self.raw_transport = self._waiting_reader = None
        self.write = not_connected
        if self.upload is not None:
            self.upload.wake()
            self.upload = None  # they refer to each other
        if self.owner is not None:
            owner, self.owner = self.owner, None
            owner.transport_lost(self)
        waiter = self._closed_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if exc is not None:
            drop_session(self._tls, exc)
        self._release_tls()

    def _receive(self, buffer: bytearray, pos: int, end: int) -> None:
        """Process ``buffer[pos:end]`` in any state."""
        raise NotImplementedError

    def _finish(self, response: HTTPResponse, leftover: bool) -> None:
        """End a complete response."""
        raise NotImplementedError

    def _on_eof(self, exc: Exception | None) -> None:
        """End the response, complete or not: the peer sends no more, because of *exc* if given."""
        state, response = self.state, self._front()
        self.closed_by_peer |= state is not CLOSED
        if state is HEAD and response is not None:
            received = self._reader.buffer if self._reader is not None else b""
            error = no_response(exc, received, self._head_bytes)
            self._close(error, cause=exc, hard=True)
        elif state is BODY and response is not None:
            if exc is None and self._ends_with_connection(response):
                response.will_close = True
                self._finish(response, False)
            else:
                error = incomplete(response, "connection ended before the body did")
                self._close(error, cause=exc, hard=True)
        elif state is not CLOSED:
            self._close(hard=False)

    def _ends_with_connection(self, response: HTTPResponse) -> bool:
        """Whether the end of the connection completes *response* (RFC 9112 §6.3, §9.8)."""
        if response.decoder is not None:
            return response.decoder.feed_eof()
        if response.remaining is not None:
            return False
        transport = self.transport
        ssl_object = transport.get_extra_info("ssl_object") if transport is not None else None
        return ssl_object is None or is_clean_eof(ssl_object)

    def _fail_on_bad_data(self, exc: BaseException) -> None:
        """Close the connection: the response cannot be read any further because of *exc*."""
        response = self._front()
        if self.state is BODY and response is not None:
            self._close(incomplete(response, str(exc)), cause=exc, hard=True)
            return
        reader = self._reader
        if response is not None and reader is not None and self._is_stray(response, reader.buffer):
            exc = stray_bytes()
        self._close(exc, cause=exc.__cause__, hard=True)

    def _is_stray(self, response: HTTPResponse, received: bytearray) -> bool:
        """Whether *received* cannot begin *response*, and is left over from the one before it."""
        return response.number > 1 and not self._head_bytes and not may_begin_response(received)

    def _fail_here(self, response: HTTPResponse | None, exc: BaseException) -> None:
        """End the connection: *exc* was raised while this program took in bytes that it had read.

        It may be a signal handler's. How many of them were taken in is not known, so that what
        follows them means nothing. *response* was being received: it may be complete, and its
        caller not woken.
        """
        error: BaseException | None = None
        front = self._front()
        if front is not None and not front.ended:
            text = f"this program failed while it read: {exc!r}"
            if self.state is BODY:
                error = incomplete(front, text)
            else:
                front.head = None  # perhaps half of it was taken in
                error = ConnectionAbortedError(text)
        self._close(error, cause=exc, hard=True)
        if response is not None and response.ended:
            response.wake()

    def close(self) -> None:
        """Close the connection gracefully: bytes that were written still go out."""
        self._close(hard=False)

    def abort(self) -> None:
        """Close the connection at once; wake waiting readers and senders."""
        self._close(hard=True)

    def _close(
        self,
        error: BaseException | None = None,
        *,
        hard: bool,
        cause: BaseException | None = None,
        notes: str = "",
    ) -> None:
        """Close the connection: every end of a connection comes here, some twice.

        The exchange that is being received fails with *error*, whose cause is *cause*; by default
        with the error of a connection that this program closed. *hard* drops bytes not sent yet.
        """
        hard = hard or has_ended(self.loop)
        if self.state is CLOSED and not hard:
            return  # it closes already, and for no longer than it may
        transport = self.transport
        if self._tls is not None and self._is_unproven(self._front()):
            suspect_session(self._tls)
        self.state = CLOSED
        self._reader = None
        # Whatever one of these steps raises, the others are done. What it has left undone is done
        # when the transport is lost.
        try:
            if self._watchdog is not None:
                self._watchdog.stop()
            self._fail_received(error, cause, notes)
            self._fail_queued()
        finally:
            try:
                if self.upload is not None:
                    self.upload.stop()
                self._notify_closed()
            finally:
                if transport is not None:
                    self._end_transport(transport, hard)

    def _end_transport(self, transport: asyncio.Transport, hard: bool) -> None:
        if hard:
            abort_transport(self.loop, transport, self.raw_transport or transport)
            return
        try:
            if self._tls:
                keep_session(self._tls)
            self.watchdog().arm_total(self.loop.time() + CLOSE_SECONDS)
            transport.close()
        except BaseException:
            abort_transport(self.loop, transport, self.raw_transport or transport)
            raise

    def _fail_received(
        self, error: BaseException | None, cause: BaseException | None, notes: str
    ) -> None:
        """Fail the exchange that is being received, if it has not ended; see ``_close``."""
        response = self._front()
        if response is None:
            return
        if response.ended:
            response.wake()
        else:
            if error is None:
                error = closed_here(response)
            else:
                error.__cause__ = cause
                if error.__traceback__ is not None:
                    error = error.with_traceback(None)
                if response.head is not None:
                    response.will_close = True
            response.set_exception(self.describe(error, response, notes))
        self._response = self._held = None

    def _is_unproven(self, response: HTTPResponse | None) -> bool:
        """Whether no byte of a response has come, to *response* or before the first request."""
        if response is None:
            return not self.exchanges and self.closed_by_peer
        return response.number == 1 and not (
            response.has_head or self._head_bytes or self._reader is not None
        )

    def keep_first_request(self) -> None:
        """Keep the bytes of the first request, if they are all of it: see ``lost_request``."""
        transport = self.transport
        assert transport is not None, "a connection that was just opened"

        def write(data: bytes) -> None:
            self.write = transport.write
            if self.upload is None:
                self._first_request = data
            transport.write(data)

        self.write = write

    def lost_request(self, response: HTTPResponse) -> bytes | None:
        """Return the whole request of *response*, if it is to be sent once more; else None.

        It is if its connection resumed a TLS session, and ended without a byte of an answer: the
        session may be why. As the server may have processed it, its method must be idempotent
        (RFC 9110 §9.2.2).
        """
        unanswered = getattr(response.failure, "unanswered", False)
        again = unanswered and response.number == 1 and response.method in IDEMPOTENT
        return self._first_request if again else None

    def _fail_queued(self) -> None:
        """Fail the queued exchanges as ``NotProcessed``, so that a pool sends them again."""
        queued = self._queued
        while queued:
            response = queued[0]
            exc = NotProcessed("the connection ended before this request was answered")
            response.set_exception(self.describe(exc, response))
            queued.popleft()
        self._queued = None

    def _notify_closed(self) -> None:
        """Tell the owner, once, that the connection will serve no other exchange."""
        if self.owner is not None and not self._owner_told:
            self._owner_told = True
            self.owner.connection_ended(self)

    def describe(
        self, exc: BaseException, response: HTTPResponse, notes: str = ""
    ) -> BaseException:
        """Give *exc* the details of this exchange; see ``exceptions.describe``."""
        # The upload is the last exchange's. One that was refused is not counted.
        later = self.exchanges - response.number
        sent = later > 0 or (later == 0 and (self.upload is None or not self.upload.open))
        return describe_exchange(
            exc,
            response,
            elapsed=monotonic() - response.started,
            request_sent=sent,
            reused=response.number - 1,
            notes=notes,
        )

    def _expired(self, name: str) -> None:
        """Handle the watchdog's call: the limit *name* has passed."""
        try:
            self._apply_limit(name)
        except BaseException:
            self.abort()  # a limit that is not applied would be lost
            raise

    def _apply_limit(self, name: str) -> None:
        """End the exchange that is received, unless the limit *name* does not concern it."""
        transport, response = self.transport, self._front()
        if self.state is CLOSED and name == "total":
            self.abort()  # the peer has not let it close
        if transport is None or response is None or (name == "head" and response.head is not None):
            return
        if name == "write" and self.upload is not None and self.upload.peer_takes_bytes():
            return
        if name == "read" and response.head is not None and response.waiter is None:
            # Nobody has read the body within the read limit, which keeps the queued exchanges
            # waiting. The response stays readable; the connection closes after it.
            if self._queued:
                response.will_close = True
                self._notify_closed()
                self._fail_queued()
            return
        limit = getattr(self.timeout, name)
        error = expired(name, limit, self.state is BODY)
        self._close(error, hard=True, notes=f"{name}={limit:g}" if limit is not None else name)

    def _read_remaining(self) -> None:
        """Read the bytes that the kernel still holds after a write has failed; not over TLS.

        A server that answers 413 and closes makes the next write fail. The transport then drops
        the bytes that it has not read: the answer (RFC 9112 §9.6).
        """
        transport = self.transport
        if transport is None or self.state not in (HEAD, BODY) or self._tls is not None:
            return
        try:
            sock = transport.get_extra_info("socket")
            for _ in range(16):
                data = os.read(sock.fileno(), SCRATCH_SIZE)
                if not data or self.state not in (HEAD, BODY):
                    return
                self._receive(bytearray(data), 0, len(data))
        except (OSError, AttributeError):
            return
