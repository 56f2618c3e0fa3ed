"""The reading side of a body: bytes come in by ``feed_data``, callers take them out.

``BodyReader`` owns the unread bytes and their flow control, and knows nothing of heads or
framing. What it is fed from is a ``Source``.

How bytes are kept: ``_first`` is the oldest unread piece, taken from ``_offset`` on; ``_rest``
holds the pieces behind it, small ones merged. At most ``high_water`` bytes are unread before
the source is paused, and it is resumed when a reader has taken them below half of that.

How a reader waits: one waiter, woken once ``_need`` bytes are unread or nothing more will come.
Every read is a loop of "take what is there, or wait"; what a read has taken when it is
cancelled, it puts back (``_unread``), so a cancelled read loses nothing.

How large reads avoid copies: while a reader waits for a known number of bytes, ``landing`` is
a view of the memory that the caller will get, and the source reads straight into it. The
reader alone makes and releases landing views: inside ``landed`` the loop still holds one.

Layer: above the wire and net, below protocol.
"""

from __future__ import annotations

import asyncio
import io
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Protocol

from .exceptions import IncompleteBody, IncompleteRead

__all__ = ["GIVEN_UP", "HIGH_WATER", "BodyReader", "Source", "keep_freed_memory"]

HIGH_WATER = 256 * 1024
"""Unread bytes at which the source is paused: one read event of the scratch buffer."""

LANDING_MIN = 64 * 1024
"""Bytes from which on a read lands in its result; below, they are copied out of a buffer."""

LANDING_STEP = 2 * 1024 * 1024
"""Bytes that a read allocates beyond what has arrived: an announced length sizes nothing.

Growing fills the new bytes with zeros: 2 MiB of them stay in the CPU's cache until the socket's
bytes replace them: see benchmarks/micro/landing_step.py.
"""

_FREED = 8 * 1024 * 1024
"""Bytes of bodies whose memory is kept for the next ones: see ``keep_freed_memory``."""

_SMALL = 2048
"""Pieces below this are merged: a peer that drips bytes must not cost an object for each."""

_MERGED = 64 * 1024

GIVEN_UP = EOFError("closed before its end")
"""What ended a body whose reader closed it: never raised, and never "whole" either."""

TWO_READERS = "this response is being read by another task already"


def keep_freed_memory() -> None:
    """Let the C library use the memory of bodies again, for those of up to ``_FREED`` bytes.

    glibc gives the memory of a freed body back to the kernel, which then has to clear and map
    every page of the next one: half the cost of a body of 1 MiB. It does so above a threshold,
    which is the largest block that it had mapped and that was freed: so one is, untouched.
    Twice as much may stay with the process. Other allocators take no notice. See
    benchmarks/micro/freed_memory.py.
    """
    with suppress(MemoryError):
        bytes(_FREED)


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
    def loosen(self, reader: BodyReader) -> None: ...
    def begin_wait(self, reader: BodyReader) -> None: ...
    def end_wait(self, reader: BodyReader) -> None: ...


class BodyReader:
    """A body being received. ``HTTPResponse`` is its one subclass."""

    __slots__ = (
        "_buffered",
        "_closed",
        "_ended",
        "_exception",
        "_first",
        "_high_water",
        "_need",
        "_offset",
        "_paused",
        "_rest",
        "_source",
        "_waiter",
        "landing",
        "left",
        "received",
    )

    # Made by HTTPResponse.__init__: one call for each response, and one response for each request.
    _source: Source | None
    _high_water: int
    _first: bytes | bytearray
    _offset: int
    _rest: deque[bytes | bytearray] | None
    _buffered: int
    _waiter: asyncio.Future[None] | None
    _paused: bool
    _closed: bool
    # Nothing more will be fed; why, if it was not the end of the body.
    _ended: bool
    _exception: BaseException | None
    # Bytes that have arrived.
    received: int
    # Where the source may put the next bytes directly.
    landing: memoryview | None
    # Set with the head: bytes that the framing still announces, None where it does not tell.
    left: int | None
    # Set when somebody waits: the unread bytes that end the wait. Set by discard(): the size of
    # a body that may still come.
    _need: int

    # ----------------------------------------------------------------- feeding

    def feed_data(self, data: bytes | memoryview) -> None:
        """Take in bytes of the body. A memoryview is copied: its memory is the source's."""
        size = len(data)
        self.received += size
        if self._closed:
            if self._source is not None and self.received + (self.left or 0) > self._need:
                # Later: the protocol is in the middle of this read event.
                self._source.loop.call_soon(self._give_up)
            return
        if not self._buffered:
            self._first = bytes(data)
            self._offset = 0
        else:
            self._append(data, size)
        self._buffered = buffered = self._buffered + size
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            if buffered < self._need and buffered < self._high_water:
                return
            waiter.set_result(None)
            if self._source is not None and not self._source.reads_ahead:
                return  # The reader runs before the next read event.
        if buffered >= self._high_water and not self._paused:
            self._pause()

    def _give_up(self) -> None:
        """Abort the source, unless the body has ended meanwhile: then it serves others."""
        if self._source is not None and not self._ended:
            self._source.abort()

    def landed(self, size: int) -> None:
        """*size* bytes have been put into ``landing``."""
        landing = self.landing
        assert landing is not None and self.left is not None, "landed without a landing view"
        assert self._source is not None
        self.received += size
        self.left -= size
        self.landing = landing[size:] if size < len(landing) else None
        if self.landing is None and self._source.reads_ahead and self.left:
            # What comes before the reader runs would be copied. Whoever waits next resumes.
            self._pause()
        self._need -= size
        waiter = self._waiter
        if self._need <= 0 and waiter is not None and not waiter.done():
            waiter.set_result(None)

    def feed_eof(self) -> None:
        """The body is whole."""
        self._ended = True
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def set_exception(self, exc: BaseException) -> None:
        """The body ends here, and why. What has arrived stays readable."""
        if not self._ended:
            self._exception = exc
            self.feed_eof()

    def _append(self, data: bytes | memoryview, size: int) -> None:
        rest = self._rest
        if rest is None:
            rest = self._rest = deque()
        if size >= _SMALL:
            rest.append(bytes(data))
        elif rest and type(rest[-1]) is bytearray and len(rest[-1]) < _MERGED:
            rest[-1] += data
        else:
            rest.append(bytearray(data))

    def _pause(self) -> None:
        if self._source is not None and not self._ended:
            self._paused = True
            self._source.pause_reading()

    def _resume(self) -> None:
        self._paused = False
        if self._source is not None and not self._ended:
            self._source.resume_reading()

    # ------------------------------------------------------------------ taking

    def _take(self, size: int) -> bytes:
        """Take up to *size* unread bytes, at least one where there are any."""
        if self._waiter is not None:
            raise RuntimeError(TWO_READERS)
        first = self._first
        offset = self._offset
        have = len(first) - offset
        if size < have:
            data = bytes(first[offset : offset + size])
            self._offset = offset + size
            self._buffered -= size
        elif not self._rest:
            data = bytes(first[offset:]) if offset else bytes(first)
            self._first = b""
            self._offset = 0
            self._buffered = 0
        else:
            pieces = [first[offset:] if offset else first]
            rest = self._rest
            while rest and have + len(rest[0]) <= size:
                piece = rest.popleft()
                have += len(piece)
                pieces.append(piece)
            self._first = b""
            self._offset = 0
            if rest:
                self._first = rest.popleft()
                self._offset = size - have
                pieces.append(self._first[: size - have])
            data = b"".join(pieces)
            self._buffered -= len(data)
        if self._paused and self._buffered <= self._high_water >> 1:
            self._resume()
        return data

    def _unread(self, data: bytes) -> None:
        """Put *data* back in front of what is unread."""
        if not data or self._closed:
            return
        if self._buffered:
            if self._rest is None:
                self._rest = deque()
            self._rest.appendleft(self._first[self._offset :])
        self._first = data
        self._offset = 0
        self._buffered += len(data)
        if self._buffered >= self._high_water and not self._paused:
            self._pause()

    async def _wait(self, need: int) -> None:
        """Wait until *need* bytes, or high water, are unread, or nothing more will come."""
        if self._waiter is not None:
            raise RuntimeError(TWO_READERS)
        source = self._source
        assert source is not None and not self._ended, "a reader waits for what will never come"
        if self._paused:
            self._resume()
        self._need = need
        waiter = self._waiter = source.loop.create_future()
        source.begin_wait(self)
        try:
            await waiter
        finally:
            self._waiter = None
            source.end_wait(self)

    def _fail(self, partial: bytes) -> None:
        """Raise what ended the body too early, with *partial* as what this read had taken."""
        exc = self._exception
        if exc is None or exc is GIVEN_UP:
            return
        if self._closed:
            # Told once, to who was waiting when the response was closed.
            self._exception = GIVEN_UP
        if isinstance(exc, IncompleteRead):
            again = IncompleteBody(partial, exc.expected)
            again.__dict__.update(exc.__dict__, partial=partial)
            raise again from exc.__cause__
        self._unread(partial)
        raise exc.with_traceback(None)

    # ----------------------------------------------------------------- reading

    async def read(self, amt: int | None = None) -> bytes:
        """Return the next *amt* bytes, or all that is left. Does not wait for what is there.

        Fewer than *amt* come back only at the end; b"" after it. Raises ``IncompleteRead``
        (with ``partial``) if the body ends early: from ``read()`` at once, from ``read(amt)``
        once the bytes that did arrive were returned. Cancelling loses no byte.
        Mirrors ``http.client.HTTPResponse.read``.
        """
        if amt is None or amt < 0:
            if self._ended:
                if not self._offset and not self._rest and self._exception is None:
                    data = self._first
                    self._first = b""
                    self._buffered = 0
                    return data if type(data) is bytes else bytes(data)
                data = self._take(self._buffered) if self._buffered else b""
                if self._exception is not None:
                    self._fail(data)
                return data
            data = await self._read_all()
            if self._exception is not None:
                self._fail(data)
            return data
        if self._buffered < amt and not self._ended:
            data = await self._read_amount(amt)
        else:
            data = self._take(amt) if amt and self._buffered else b""
        if not data and amt and self._exception is not None:
            self._fail(b"")
        return data

    async def _read_all(self) -> bytes:
        if self.left is not None:
            total = self._buffered + self.left
            if total <= self._high_water:
                while not self._ended:
                    await self._wait(total)
                return self._take(self._buffered) if self._buffered else b""
            return await self._land(total)
        return await self._gather(None)

    async def _read_amount(self, amount: int) -> bytes:
        if self.left is not None:
            amount = min(amount, self._buffered + self.left)
            if amount - self._buffered >= LANDING_MIN:
                return await self._land(amount)
        if amount > self._high_water:
            return await self._gather(amount)
        while self._buffered < amount and not self._ended:
            await self._wait(amount)
        return self._take(amount) if self._buffered else b""

    async def _gather(self, amount: int | None) -> bytes:
        """Collect *amount* bytes, or all, of a body whose length is not known."""
        # BytesIO: the collected body exists once, and getvalue() does not copy it.
        sink = io.BytesIO()
        size = 0
        try:
            while amount is None or size < amount:
                if self._buffered:
                    size += sink.write(
                        self._take(self._buffered if amount is None else amount - size)
                    )
                elif self._ended:
                    break
                else:
                    high_water = self._high_water
                    await self._wait(
                        high_water if amount is None else min(high_water, amount - size)
                    )
        except BaseException:
            self._unread(sink.getvalue())
            raise
        return sink.getvalue()

    async def _land(self, total: int) -> bytes:
        """Collect *total* bytes of a body whose length is known, straight from the socket.

        ``BytesIO(bytes(n))`` takes over memory that no one has touched yet, ``getbuffer()``
        makes it writable, and ``getvalue()`` gives that very object. It grows in steps of
        ``LANDING_STEP``, and only as bytes arrive.
        """
        sink = io.BytesIO(bytes(min(total, self._buffered + LANDING_STEP)))
        view = sink.getbuffer()
        done = 0
        try:
            while done < total:
                if done == len(view):
                    view.release()
                    sink.seek(min(total, done + LANDING_STEP) - 1)
                    sink.write(b"\0")
                    view = sink.getbuffer()
                while self._buffered and done < len(view):
                    piece = self._take(len(view) - done)
                    view[done : done + len(piece)] = piece
                    done += len(piece)
                if done < len(view):
                    if self._ended:
                        break
                    done += await self._wait_landing(view[done:])
        except BaseException:
            self._unread(bytes(view[:done]))
            raise
        finally:
            view.release()
        if done < total:
            sink.truncate(done)
        return sink.getvalue()

    async def _wait_landing(self, view: memoryview, need: int = 0) -> int:
        """Let the source fill *view*; return how many bytes it put there. Releases *view*.

        With *need* 1 the first bytes end the wait. If the wait is cancelled, the bytes that
        landed are unread again.
        """
        source = self._source
        if source is None or not source.can_land or self.left is None or self._waiter is not None:
            await self._wait(1)
            view.release()
            return 0
        self.landing = view
        # Nothing is unread here, so bytes that come another way arrive after the landed ones.
        assert not self._buffered, "bytes would overtake those that are unread"
        try:
            await self._wait(need or len(view))
        except BaseException:
            self._unread(bytes(view[: len(view) - len(self.landing or b"")]))
            raise
        finally:
            landing, self.landing = self.landing, None
            landed = len(view)
            if landing is not None:
                landed -= len(landing)
                landing.release()
            if landing is not view:
                view.release()
        return landed

    async def read1(self, n: int = -1) -> bytes:
        """Return up to *n* bytes, waiting only if there are none. Mirrors http.client's."""
        if n == 0:
            return b""
        if not self._buffered and not self._ended:
            await self._wait(1)
        if self._buffered:
            return self._take(n if n > 0 else self._buffered)
        self._fail(b"")
        return b""

    async def readinto(self, b: Any) -> int:
        """Fill *b*, a writable buffer; return the number of bytes, below ``len(b)`` at the end.

        Raises ``IncompleteRead`` like ``read(amt)``. If it is cancelled, the bytes that were
        put into *b* are unread again. Mirrors ``http.client.HTTPResponse.readinto``.
        """
        return await self._readinto(b, 0)

    async def readinto1(self, b: Any) -> int:
        """Put up to ``len(b)`` bytes into *b*, waiting only if there are none."""
        return await self._readinto(b, 1)

    async def _readinto(self, b: Any, need: int) -> int:
        with memoryview(b) as whole, whole.cast("B") as view:
            if view.readonly:
                raise TypeError(f"readinto needs a writable buffer, got {type(b).__name__}")
            done = 0
            size = len(view)
            try:
                while done < size:
                    if self._buffered:
                        piece = self._take(size - done)
                        view[done : done + len(piece)] = piece
                        done += len(piece)
                    elif self._ended or (need and done):
                        break
                    else:
                        end = size if self.left is None else min(size, done + self.left)
                        if end - done < LANDING_MIN:
                            await self._wait(need or end - done)
                        else:
                            done += await self._wait_landing(view[done:end], need)
            except BaseException:
                self._unread(bytes(view[:done]))
                raise
        if not done and size:
            self._fail(b"")
        return done

    async def peek(self, n: int = -1) -> bytes:
        """Return unread bytes without taking them, *n* at most; waits only if there are none.

        Mirrors ``http.client.HTTPResponse.peek``. Never more than one piece of what arrived.
        """
        if not self._buffered and not self._ended:
            await self._wait(1)
        if not self._buffered:
            self._fail(b"")
            return b""
        end = self._offset + n if n > 0 else len(self._first)
        return bytes(self._first[self._offset : end])

    async def readline(self, limit: int = -1) -> bytes:
        r"""Return bytes up to and with the next ``\n``, *limit* at most; b"" at the end.

        Mirrors ``http.client.HTTPResponse.readline``.
        """
        if limit == 0:
            return b""
        pieces: list[bytes] = []
        room = limit if limit > 0 else -1
        try:
            while room:
                if self._buffered:
                    first, offset = self._first, self._offset
                    end = first.find(b"\n", offset) + 1
                    size = (end or len(first)) - offset
                    if room > 0:
                        size = min(size, room)
                        room -= size
                    line = self._take(size)
                    whole = not room or line.endswith(b"\n")
                    if whole and not pieces:
                        return line
                    pieces.append(line)
                    if whole:
                        break
                elif self._ended:
                    break
                else:
                    await self._wait(1)
        except BaseException:
            self._unread(b"".join(pieces))
            raise
        if not pieces:
            self._fail(b"")
        return b"".join(pieces)

    async def readlines(self, hint: int = -1) -> list[bytes]:
        """Return the lines that are left; stop at more than *hint* bytes. Mirrors ``io.IOBase``."""
        lines: list[bytes] = []
        size = 0
        try:
            while line := await self.readline():
                lines.append(line)
                size += len(line)
                if 0 < hint < size:
                    break
        except BaseException:
            self._unread(b"".join(lines))
            raise
        return lines

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    async def iter_bytes(self, n: int | None = None) -> AsyncIterator[bytes]:
        """Iterate over the body: pieces of *n* bytes, or as they arrive.

        Raises ``IncompleteRead`` after the last piece if the body ended early.
        """
        if n is not None:
            if n <= 0:
                raise ValueError(f"iter_bytes(n) needs n above 0, got {n}")
            while data := await self.read(n):
                yield data
            return
        source = self._source
        most = self._high_water
        lands = source is not None and source.lands_pieces and most >= LANDING_MIN
        room = LANDING_MIN
        while True:
            if not lands or self._buffered or self._ended or (self.left or 0) < room:
                data = await self.read1()
            else:
                data = await self._land_piece(room)
            if not data:
                return
            yield data
            # Memory that stays unused is cleared for nothing: twice the last piece, or less.
            room = max(LANDING_MIN, min(2 * len(data), most))

    async def _land_piece(self, room: int) -> bytes:
        """Return what arrives next, *room* bytes at most, straight from the socket if possible."""
        sink = io.BytesIO(bytes(room))
        size = await self._wait_landing(sink.getbuffer(), 1)
        if not size:
            return await self.read1()
        if size < room:
            sink.truncate(size)
        return sink.getvalue()
