"""HTTPResponse: the side of a response that callers read. exchange.py has the package's side.

How a reader waits: it has one waiter, which wakes when ``_wake_at`` bytes are unread or no more
will come. Every read is a loop: take the unread bytes, or wait. A read that is cancelled puts back
the bytes that it has taken (``_unread``), so it loses none.

How large reads avoid copies: while a reader waits for a known number of bytes, ``landing`` is
a view of the memory that the caller will get, and the source reads straight into it. Only the
reader makes and releases landing views: inside ``landed`` the loop still holds one.

Layer: above exchange, below protocol.
"""

from __future__ import annotations

import asyncio
import io
from collections import deque
from collections.abc import AsyncIterator
from http.client import HTTPMessage
from typing import TYPE_CHECKING, Any

from .exceptions import IncompleteBody, IncompleteRead, RequestTimeout, redact
from .exchange import Exchange
from .http11.response_head import split_fields
from .net.loops import forget_frames_if_cancelled

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["HTTPResponse", "make_message"]

LANDING_MIN = 64 * 1024
"""Bytes from which a read lands in its result; fewer bytes are copied out of a buffer."""

LANDING_STEP = 2 * 1024 * 1024
"""Bytes that a read allocates beyond those that arrived: an announced length sizes nothing.

Growing fills the new bytes with zeros. 2 MiB of them stay in the CPU's cache until the socket's
bytes replace them: see benchmarks/micro/landing_step.py.
"""

TWO_READERS = "this response is being read by another task already"


def make_message(fields: Iterable[tuple[str, str]]) -> HTTPMessage:
    """Return *fields* as http.client's message class, without the parser that drops fields."""
    message = HTTPMessage()
    for name, value in fields:
        message.set_raw(name, value)
    return message


class HTTPResponse(Exchange):
    """A response, made by ``HTTPConnection.getresponse``. Mirrors ``http.client.HTTPResponse``.

    Attributes, filled once the head has arrived: ``status`` (int), ``reason`` (str),
    ``version`` (10 or 11), ``will_close``, ``chunked``, ``method``, ``target``, ``peername``
    (as ``socket.getpeername`` returns it) and ``debuglevel``.

    Unlike in http.client, responses to HEAD, 204, 304 and empty bodies are complete at once, a
    truncated body raises ``IncompleteRead`` from every method that reads, and ``trailers`` are
    kept.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        if self.head is None:
            return f"<HTTPResponse {self.method} {redact(self.url)} waiting for its head>"
        read = self.received - self.buffered
        total = None if self.remaining is None else self.received + self.remaining
        unit, per = ("B", 1) if max(read, total or 0) < 1000 else ("kB", 1000)
        shown = ["?" if n is None else f"{n / per:.{0 if per == 1 else 1}f}" for n in (read, total)]
        return f"<HTTPResponse [{self.status} {self.reason}] {'/'.join(shown)} {unit} read>"

    # ----------------------------------------------------------------------------- head

    @property
    def code(self) -> int:
        """``status`` under its older name."""
        return self.status

    @property
    def raw_headers(self) -> list[tuple[str, str]]:
        """The fields as (name, value), in the peer's order and case; repeated ones stay apart."""
        if self._fields is None:
            head = self.head.decode("latin-1") if self.head is not None else "\n"
            self._fields = split_fields(head, head.index("\n") + 1)
        return self._fields

    @property
    def headers(self) -> HTTPMessage:
        """The fields as ``http.client.HTTPMessage``, made on first use."""
        if self._headers is None:
            self._headers = make_message(self.raw_headers)
        return self._headers

    @property
    def msg(self) -> HTTPMessage:
        """``headers`` under its older name."""
        return self.headers

    def getheader(self, name: str, default: Any = None) -> Any:
        """Return the value of field *name*, repeated ones joined by ``, ``; else *default*.

        An iterable default that is not a str is joined, too, as in http.client.
        """
        lower = name.lower()
        values: Any = [value for key, value in self.raw_headers if key.lower() == lower]
        if not values:
            values = default
            if isinstance(values, str) or not hasattr(values, "__iter__"):
                return values
        return ", ".join(values)

    def getheaders(self) -> list[tuple[str, str]]:
        """Return all fields as a list of (name, value)."""
        return list(self.raw_headers)

    def info(self) -> HTTPMessage:
        """Return ``headers``."""
        return self.headers

    def geturl(self) -> str:
        """Return the URL that was requested."""
        return self.url

    def getcode(self) -> int:
        """Return ``status``."""
        return self.status

    # ----------------------------------------------------------------------------- body

    @property
    def length(self) -> int | None:
        """Bytes of the body not read yet; None if the framing does not tell."""
        return None if self.remaining is None else self.buffered + self.remaining

    @property
    def chunk_left(self) -> int | None:
        """Bytes of the current chunk that have not arrived; None if the body is not chunked."""
        return None if self.decoder is None else self.decoder.chunk_left

    @property
    def trailers(self) -> HTTPMessage:
        """The fields after a chunked body; empty until it is ``complete``, and if none came."""
        if not self.ended:
            return make_message(())
        if self._trailers is None:
            decoder = self.decoder
            self._trailers = make_message(decoder.trailers if decoder is not None else ())
        return self._trailers

    def isclosed(self) -> bool:
        """Whether nothing is left to read: the whole body was read, or ``close()`` was called."""
        return self.closed or (self.ended is not False and not self.buffered)

    def readable(self) -> bool:
        """Return True, as http.client's does."""
        return True

    def fileno(self) -> int:
        """Return the socket's descriptor; ``ValueError`` once the response is finished."""
        source = None if self.ended else self.source
        sock = source.get_extra_info("socket") if source is not None else None
        if sock is None:
            raise ValueError(f"{self!r} has no socket any more")
        return int(sock.fileno())

    def __enter__(self) -> HTTPResponse:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> HTTPResponse:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    def debug_head(self) -> None:
        """Print the head as http.client does at ``debuglevel`` 1."""
        if self.head is not None:
            line, end, _ = self.head.decode("latin-1").partition("\n")
            print("reply:", repr(line + end))
            for name, value in self.raw_headers:
                print("header:", f"{name}:", value)

    # --------------------------------------------------------------------------- taking

    def _take(self, size: int) -> bytes:
        """Take and return up to *size* unread bytes, at least one if there are any."""
        if self.waiter is not None:
            raise RuntimeError(TWO_READERS)
        first = self.first
        offset = self._offset
        have = len(first) - offset
        if size < have:
            data = bytes(first[offset : offset + size])
            self._offset = offset + size
            self.buffered -= size
        elif not self._queue:
            data = bytes(first[offset:]) if offset else bytes(first)
            self.first = b""
            self._offset = 0
            self.buffered = 0
        else:
            pieces = [first[offset:] if offset else first]
            queue = self._queue
            while queue and have + len(queue[0]) <= size:
                piece = queue.popleft()
                have += len(piece)
                pieces.append(piece)
            self.first = b""
            self._offset = 0
            if queue:
                self.first = queue.popleft()
                self._offset = size - have
                pieces.append(self.first[: size - have])
            data = b"".join(pieces)
            self.buffered -= len(data)
        if self.paused and self.buffered <= self.high_water >> 1:
            self._resume()
        return data

    def _unread(self, data: bytes) -> None:
        """Put *data* back in front of the unread bytes."""
        if not data or self.closed:
            return
        if self.buffered:
            if self._queue is None:
                self._queue = deque()
            self._queue.appendleft(self.first[self._offset :])
        self.first = data
        self._offset = 0
        self.buffered += len(data)
        if self.buffered >= self.high_water and not self.paused:
            self._pause()

    async def _wait(self, need: int) -> None:
        """Wait until *need* bytes, or ``high_water``, are unread, or no more will come."""
        if self.waiter is not None:
            raise RuntimeError(TWO_READERS)
        source = self.source
        assert source is not None and not self.ended, "a wait for bytes that never come"
        if self.paused:
            self._resume()
        self._wake_at = need
        waiter = self.waiter = source.loop.create_future()
        source.begin_wait(self)
        try:
            await waiter
        except asyncio.CancelledError:
            forget_frames_if_cancelled()
            raise
        finally:
            self.waiter = None
            source.end_wait(self)

    def _fail(self, partial: bytes) -> None:
        """Raise the failure of the body, if any; *partial* is the data that this read has taken."""
        if self.waiter is not None:
            raise RuntimeError(TWO_READERS)
        exc = self.failure
        if exc is None:
            return
        if self.closed:
            # Raised once, for the read that was waiting when the response was closed.
            self._abandon()
        if isinstance(exc, IncompleteRead):
            again = IncompleteBody(partial, exc.expected)
            again.__dict__.update(exc.__dict__, partial=partial)
            raise again from exc.__cause__
        self._unread(partial)
        if isinstance(exc, RequestTimeout):
            exc.partial = partial
        raise exc.with_traceback(None)

    # -------------------------------------------------------------------------- reading

    async def read(self, amt: int | None = None) -> bytes:
        """Return the next *amt* bytes, or all that are left. Does not wait if they have arrived.

        Returns fewer than *amt* bytes only at the end, and b"" after it. Raises ``IncompleteRead``
        (with ``partial``) if the body ends early: from ``read()`` at once, from ``read(amt)``
        after the bytes that did arrive were returned. Cancelling loses no byte.
        Mirrors ``http.client.HTTPResponse.read``.
        """
        if self.waiter is not None:
            raise RuntimeError(TWO_READERS)
        if amt is None or amt < 0:
            if self.ended:
                if not self._offset and not self._queue and self.failure is None:
                    data = self.first
                    self.first = b""
                    self.buffered = 0
                    return data if type(data) is bytes else bytes(data)
                data = self._take(self.buffered) if self.buffered else b""
                if self.failure is not None:
                    self._fail(data)
                return data
            data = await self._read_all()
            if self.failure is not None:
                self._fail(data)
            return data
        if self.buffered < amt and not self.ended:
            data = await self._read_amount(amt)
        else:
            data = self._take(amt) if amt and self.buffered else b""
        if not data and amt and self.failure is not None:
            self._fail(b"")
        return data

    async def _read_all(self) -> bytes:
        if self.remaining is not None:
            total = self.buffered + self.remaining
            if total <= self.high_water:
                while not self.ended:
                    await self._wait(total)
                return self._take(self.buffered) if self.buffered else b""
            return await self._land(total)
        return await self._gather(None)

    async def _read_amount(self, amount: int) -> bytes:
        if self.remaining is not None:
            amount = min(amount, self.buffered + self.remaining)
            if amount - self.buffered >= LANDING_MIN:
                return await self._land(amount)
        if amount > self.high_water:
            return await self._gather(amount)
        while self.buffered < amount and not self.ended:
            await self._wait(amount)
        return self._take(amount) if self.buffered else b""

    async def _gather(self, amount: int | None) -> bytes:
        """Collect *amount* bytes, or all, of a body of unknown length."""
        # BytesIO: the collected body exists once, and getvalue() does not copy it.
        sink = io.BytesIO()
        size = 0
        try:
            while amount is None or size < amount:
                if self.buffered:
                    size += sink.write(
                        self._take(self.buffered if amount is None else amount - size)
                    )
                elif self.ended:
                    break
                else:
                    high_water = self.high_water
                    await self._wait(
                        high_water if amount is None else min(high_water, amount - size)
                    )
        except BaseException:
            self._unread(sink.getvalue())
            raise
        return sink.getvalue()

    async def _land(self, total: int) -> bytes:
        """Collect *total* bytes of a body of known length, straight from the socket.

        ``BytesIO(bytes(n))`` takes over memory that no one has touched yet, ``getbuffer()``
        makes it writable, and ``getvalue()`` gives that very object. It grows in steps of
        ``LANDING_STEP``, and only as bytes arrive.
        """
        sink = io.BytesIO(bytes(min(total, self.buffered + LANDING_STEP)))
        view = sink.getbuffer()
        done = 0
        try:
            while done < total:
                if done == len(view):
                    view.release()
                    sink.seek(min(total, done + LANDING_STEP) - 1)
                    sink.write(b"\0")
                    view = sink.getbuffer()
                while self.buffered and done < len(view):
                    piece = self._take(len(view) - done)
                    view[done : done + len(piece)] = piece
                    done += len(piece)
                if done < len(view):
                    if self.ended:
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
        """Let the source fill *view*; return the number of bytes that landed. Releases *view*.

        With *need* 1 the first bytes end the wait. If the wait is cancelled, the bytes that
        landed are unread again.
        """
        source = self.source
        if (
            source is None
            or not source.can_land
            or self.remaining is None
            or self.waiter is not None
        ):
            await self._wait(1)
            view.release()
            return 0
        self.landing = view
        # No byte is unread here, so bytes that come another way come after the landed ones.
        assert not self.buffered, "bytes would overtake those that are unread"
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
        if not self.buffered and not self.ended:
            await self._wait(1)
        if self.buffered:
            return self._take(n if n > 0 else self.buffered)
        self._fail(b"")
        return b""

    async def readinto(self, b: Any) -> int:
        """Fill *b*, a writable buffer; return the number of bytes, less than its size at the end.

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
                    if self.buffered:
                        piece = self._take(size - done)
                        view[done : done + len(piece)] = piece
                        done += len(piece)
                    elif self.ended or (need and done):
                        break
                    else:
                        end = size if self.remaining is None else min(size, done + self.remaining)
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
        """Return up to *n* unread bytes without taking them; wait only if there are none.

        Returns no more than one piece, as it arrived. Mirrors ``http.client.HTTPResponse.peek``.
        """
        if self.waiter is not None:
            raise RuntimeError(TWO_READERS)
        if not self.buffered and not self.ended:
            await self._wait(1)
        if not self.buffered:
            self._fail(b"")
            return b""
        end = self._offset + n if n > 0 else len(self.first)
        return bytes(self.first[self._offset : end])

    async def readline(self, limit: int = -1) -> bytes:
        r"""Return bytes up to and including the next ``\n``, *limit* at most; b"" at the end.

        Mirrors ``http.client.HTTPResponse.readline``.
        """
        if limit == 0:
            return b""
        pieces: list[bytes] = []
        room = limit if limit > 0 else -1
        try:
            while room:
                if self.buffered:
                    first, offset = self.first, self._offset
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
                elif self.ended:
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
        """Return the lines left; stop after more than *hint* bytes. Mirrors ``io.IOBase``."""
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
        """Iterate over the body, in pieces of *n* bytes or as they arrive.

        Raises ``IncompleteRead`` after the last piece if the body ended early.
        """
        if n is not None:
            if n <= 0:
                raise ValueError(f"iter_bytes(n) needs n above 0, got {n}")
            while data := await self.read(n):
                yield data
            return
        source = self.source
        most = self.high_water
        lands = source is not None and source.lands_pieces and most >= LANDING_MIN
        room = LANDING_MIN
        while True:
            if not lands or self.buffered or self.ended or (self.remaining or 0) < room:
                data = await self.read1()
            else:
                data = await self._land_piece(room)
            if not data:
                return
            yield data
            # Unused memory is cleared for nothing: offer twice the last piece, or less.
            room = max(LANDING_MIN, min(2 * len(data), most))

    async def _land_piece(self, room: int) -> bytes:
        """Return the next bytes, *room* at most, straight from the socket if possible."""
        sink = io.BytesIO(bytes(room))
        size = await self._wait_landing(sink.getbuffer(), 1)
        if not size:
            return await self.read1()
        if size < room:
            sink.truncate(size)
        return sink.getvalue()
