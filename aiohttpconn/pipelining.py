"""PipeliningProtocol: one write and one read for many requests that share a connection.

Requests of one turn of the loop are written at once, at its end. Responses that lie whole in one
read are completed in one go. Layer: above protocol, below the pool.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from .http11.response_head import CommonHead, match_common_head
from .protocol import CLOSED, IDLE, HTTP1Protocol

if TYPE_CHECKING:
    import asyncio

__all__ = ["PipeliningProtocol"]


class PipeliningProtocol(HTTP1Protocol):
    """A connection whose requests may share writes and reads, as all of a pool's may."""

    __slots__ = ("_batch", "_last_head")

    def __init__(self, loop: asyncio.AbstractEventLoop, origin: str = "", **options: Any) -> None:
        HTTP1Protocol.__init__(self, loop, origin, **options)
        # The requests to be written at the end of this turn; None writes each by itself.
        self._batch: list[bytes] | None = None
        # The head of the last response that followed another one in the same read.
        self._last_head: CommonHead | None = None

    def batch_writes(self, on: bool) -> None:
        """Write the requests of one turn of the loop at once, at its end, or each by itself."""
        if on:
            if self._batch is None:
                self._batch = []
                self.write = self._write_first
        elif self._batch is not None:
            self._write_batch()
            self._batch = None
            if self.transport is not None:
                self.write = self.transport.write

    def _write_first(self, data: bytes) -> None:
        """Write *data* at the end of this turn of the loop, with all that is written after it."""
        batch = self._batch
        assert batch is not None, "a batched write without a batch"
        batch.append(data)
        self.write = batch.append
        self.loop.call_soon(self._write_batch)

    def _write_batch(self) -> None:
        batch = self._batch
        if batch:
            try:
                data = b"".join(batch)
                batch.clear()
                if self.transport is not None and self.state is not CLOSED:
                    self.write = self._write_first
                    self.transport.write(data)
            except BaseException:
                self.abort()  # as in start()
                raise

    def _match_head(self, buffer: bytearray, pos: int, end: int) -> CommonHead | None:
        plain = self._last_head
        if plain is None or not buffer.startswith(plain[4], pos, end):
            plain = match_common_head(buffer, pos, end, self._max_fields, self._max_line)
            self._last_head = plain
        return plain

    def _receive_batch(self, plain: CommonHead | None, end: int) -> int:
        """Complete the responses that lie whole, one after the other, in the scratch buffer.

        *plain* is the head of the first. Returns the position after them, from which ``_receive``
        goes on: with a body that is not whole, or a head that is not a common one.

        Hot: see docs/topics/design.md.
        Invariant: a head that begins like the last one equals it, as each ends with a blank line.
        """
        buffer = self._scratch
        queued = self._queued
        response = self._response
        assert queued is not None and response is not None, "responses that nobody waits for"
        done = response
        count = pos = 0
        now = monotonic()
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
            response.head_at = response.ended_at = now
            response.ended = True
            waiter = response.head_waiter
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
            done = response
            count += 1
            pos += whole
            if not queued:
                break
            self._response = response = queued.popleft()
            if pos == end:
                break
            if not buffer.startswith(plain[4], pos, end):
                plain = match_common_head(buffer, pos, end, self._max_fields, self._max_line)
        self._last_head = plain
        if count:
            if response.ended:
                self._response = None
                self.state = IDLE
                if self._watchdog is not None:
                    self._watchdog.disarm()
                if pos < end:
                    # No request asked for the bytes that follow: _receive closes the connection.
                    return pos
            else:
                self._start_next(response)
            if self.owner is not None:
                self.owner.exchange_ended(self, done, count)
        return pos
