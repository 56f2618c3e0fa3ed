"""A world without I/O: an event loop, a transport and a peer that live in memory.

    world = ClosedWorld()
    peer = Peer(world, [b"HTTP/1.1 200 OK\\r\\n", b"\\r\\n"])
    conn = HTTPConnection("h", dialer=peer.dial)
    world.run(main(conn))                      # Hang, if main() waits for ever
    assert peer.sent == [b"GET / HTTP/1.1\\r\\n..."]

It runs thousands of exchanges a second, and **a hang is a fact, not a timeout**: a loop that has
nothing ready and nothing to wait for is stuck for ever, so it raises ``Hang``.

``MemoryTransport`` keeps asyncio's rules for a ``BufferedProtocol``: one read event per turn of
the loop, of at most what ``get_buffer`` offers; nothing is read while paused, and nothing after
``close()`` or ``abort()``; ``connection_lost`` comes last, in a turn of its own.
``tests/test_fuzz.py`` checks it against real sockets.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

__all__ = ["ClosedWorld", "Hang", "MemoryTransport", "Peer"]

T = TypeVar("T")


class Hang(AssertionError):
    """A task waits, and nothing is left that could wake it."""


class ClosedWorld(asyncio.BaseEventLoop):
    """An event loop without I/O. Timers fire at once, and work for threads is done on the spot."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = self
        self._now = 0.0
        self._errors: list[dict[str, Any]] = []
        self.set_exception_handler(lambda loop, context: self._errors.append(context))

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run *main* and all that it has started to the end; raise ``Hang`` if it waits for ever.

        A call of the loop's exception handler is an ``AssertionError``.
        """
        try:
            return self._run(main)
        finally:
            errors, self._errors = self._errors, []
            assert not errors, errors

    def _run(self, main: Coroutine[Any, Any, T]) -> T:
        task = self.create_task(main)
        try:
            result = self.run_until_complete(task)
        except Hang:
            where = "".join(f"\n  {f.f_code.co_filename}:{f.f_lineno}" for f in task.get_stack())
            task.cancel()
            self._drain()
            raise Hang(f"it waits for ever at{where}") from None
        except BaseException:
            self._drain()
            raise
        self._drain()
        return result

    def run_beside(self, work: Callable[[], T]) -> T:
        """Call *work*, which runs this loop, from a coroutine of another loop.

        It runs in a thread of its own: a thread has one running loop and one current task.
        """
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(work).result()

    def _drain(self) -> None:
        """Run all callbacks that are ready, and those that they make ready."""
        try:
            while True:
                self._run_once()
        except Hang:
            pass

    # The methods that BaseEventLoop wants of a loop and of its selector.

    def select(self, timeout: float | None) -> Sequence[Any]:
        if timeout is None:
            raise Hang
        self._now += timeout
        return ()

    def time(self) -> float:
        return self._now

    def _process_events(self, event_list: Sequence[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except BaseException as exc:
            future.set_exception(exc)
        return future


class Peer:
    """The other end of connections: the n-th of them gets the n-th script, later ones the last.

    A script is the pieces that the peer sends, one read event each, once a byte of a request has
    come; at a None it waits for another. *end* follows them: "eof", "reset", or "stay". ``sent``
    has the bytes that were written, one item per connection.
    """

    def __init__(
        self, world: ClosedWorld, *scripts: Sequence[bytes | None], end: str = "eof"
    ) -> None:
        self._world = world
        self._scripts = deque(scripts)
        self._end = end
        self.sent: list[bytes] = []
        self.transports: list[MemoryTransport] = []

    async def dial(
        self, factory: Callable[[], asyncio.BufferedProtocol], destination: Any, report: Any
    ) -> tuple[MemoryTransport, asyncio.BufferedProtocol]:
        """Connect; it is an ``HTTPConnection``'s ``dialer=``."""
        script = self._scripts.popleft() if len(self._scripts) > 1 else self._scripts[0]
        protocol = factory()
        transport = MemoryTransport(self._world, protocol, self, len(self.sent), script, self._end)
        self.sent.append(b"")
        self.transports.append(transport)
        protocol.connection_made(transport)
        return transport, protocol


class MemoryTransport(asyncio.Transport):
    """One connection to a ``Peer``."""

    def __init__(
        self,
        world: ClosedWorld,
        protocol: asyncio.BufferedProtocol,
        peer: Peer,
        index: int,
        script: Sequence[bytes | None],
        end: str,
    ) -> None:
        super().__init__()
        self._world = world
        self._protocol = protocol
        self._peer = peer
        self._index = index
        self._pieces = deque(piece for piece in script if piece != b"")
        self._end: str | None = end
        self._started = False
        self._paused = False
        self._scheduled = False
        self._closing = False

    def write(self, data: Any) -> None:
        if self._closing:
            return
        self._peer.sent[self._index] += bytes(data)
        self._started = True
        self._schedule()

    def close(self) -> None:
        self._close(None)

    def abort(self) -> None:
        self._close(None)

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._schedule()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def _close(self, exc: Exception | None) -> None:
        if not self._closing:
            self._closing = True
            self._world.call_soon(self._protocol.connection_lost, exc)

    def _schedule(self) -> None:
        if self._started and not self._scheduled:
            self._scheduled = True
            self._world.call_soon(self._read)

    def _read(self) -> None:
        """One read event."""
        self._scheduled = False
        if self._paused or self._closing:
            return
        if self._pieces:
            piece = self._pieces[0]
            if piece is None:
                self._pieces.popleft()
                self._started = False
                return
            buffer = self._protocol.get_buffer(-1)
            size = min(len(piece), len(buffer))
            assert size, "get_buffer() returned no room"
            buffer[:size] = piece[:size]
            self._pieces.popleft()
            if size < len(piece):
                self._pieces.appendleft(piece[size:])
            self._protocol.buffer_updated(size)
            self._schedule()
            return
        end, self._end = self._end, None
        if end == "eof" and not self._protocol.eof_received():
            self._close(None)
        elif end == "reset":
            self._close(ConnectionResetError("Connection reset by peer"))
