"""The event loop: uvloop where it is installed, asyncio's own where it is not; its end.

No event loop policy is touched: a program that has a loop keeps it. Layer: net.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

__all__ = [
    "abort_at_shutdown",
    "abort_transport",
    "call_in_loop",
    "forget_frames_if_cancelled",
    "has_ended",
    "new_event_loop",
    "run",
]

T = TypeVar("T")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop: uvloop's if uvloop can be imported, else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
    """Run the coroutine *main* in a new event loop and return its result, like ``asyncio.run``.

    *debug* is asyncio's debug mode. Raises ``RuntimeError`` if a loop is running already.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError("run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
        return runner.run(main)


class Abortable(Protocol):
    """A connection that ends with its loop."""

    def abort(self) -> None: ...
    def get_extra_info(self, name: str) -> Any: ...


_OPEN = "_aiohttpconn_open"
"""The attribute of a loop that has its open connections, and the generator that ends them."""

_used: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
"""The loops that have had connections in this process."""

_of_the_parent: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
"""Loops of the process that has forked this one: they never run here."""


def has_ended(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether *loop* is closed, or another process's: nothing is scheduled on it any more."""
    return loop.is_closed() or loop in _of_the_parent


def abort_at_shutdown(loop: asyncio.AbstractEventLoop, connection: Abortable) -> None:
    """Abort *connection* when *loop*, which runs now, shuts down, if it is still there.

    A program may use a client in one ``asyncio.run()`` after another. A transport that is open
    when its loop closes can never be closed, and warns of that. A loop that shuts down closes
    its asynchronous generators: one of them ends the connections.
    """
    found = getattr(loop, _OPEN, None)
    if found is None:
        connections: WeakSet[Abortable] = WeakSet()
        generator = _abort_at_end(connections)
        found = connections, generator
        _used.add(loop)
        try:
            setattr(loop, _OPEN, found)
        except AttributeError:
            # A loop of another kind, which has no place for it. A generator that had begun, and
            # that nobody keeps, would be closed now.
            return
        # It runs to its yield, which registers it with the loop.
        with suppress(StopIteration):
            generator.__anext__().__await__().__next__()
    found[0].add(connection)


async def _abort_at_end(connections: WeakSet[Abortable]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        for connection in list(connections):
            connection.abort()
        # Transports close in a later turn of the loop, TLS in the one after that.
        for _ in range(3):
            await asyncio.sleep(0)


def call_in_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Call *callback* in the thread of *loop*, between its callbacks; at once if it is closed.

    For ends that the garbage collector asks for: it runs in any thread, in the middle of anything.
    A loop that sleeps is woken.
    """
    if loop not in _of_the_parent:
        with suppress(RuntimeError):  # it is closed
            loop.call_soon_threadsafe(callback)
            return
    callback()


def forget_frames_if_cancelled() -> None:
    """Let go of the frames of the running task if it ends cancelled, though somebody keeps it.

    For a wait that was cancelled, in an object that ends its connection when it is dropped: the
    traceback in a task that is kept would keep the frames, and these the object.
    """
    task = asyncio.current_task()
    if task is not None:
        task.add_done_callback(_forget_frames)


def _forget_frames(task: asyncio.Task[Any]) -> None:
    if task.cancelled():
        # The task gives its error away, with the traceback, and makes another when asked again.
        with suppress(asyncio.CancelledError):
            task.exception()


def abort_transport(
    loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, raw: asyncio.Transport
) -> None:
    """Abort *transport*, and close the socket of *raw* below it if *loop*, theirs, has ended.

    A transport of asyncio closes its socket through its loop, and else warns that it is unclosed.
    uvloop has closed it with the loop, and has warned.
    """
    with suppress(RuntimeError):  # the loop is closed
        transport.abort()
    if has_ended(loop):
        end = getattr(raw, "_call_connection_lost", None)
        if end is not None:
            # TLS above it needs the loop, too; or the socket was closed here before.
            with suppress(RuntimeError, AttributeError):
                end(None)


def _leave_to_parent() -> None:
    """End the connections of the parent in this process, which was forked, and disturb none.

    The child's descriptors refer to the parent's sockets, and its loops to the parent's epoll: a
    close would take the socket out of that, TLS would say goodbye, and a request would be sent on
    it. So each descriptor gets an unconnected socket in its place before anything is closed.
    """
    for loop in list(_used):
        _of_the_parent.add(loop)
        connections, generator = getattr(loop, _OPEN, ((), None))
        for connection in list(connections):
            sock = connection.get_extra_info("socket")
            descriptor = sock.fileno() if sock is not None else -1
            if descriptor >= 0:
                os.close(descriptor)  # first: perhaps no other is free
                unconnected = socket.socket().detach()
                if unconnected != descriptor:
                    os.dup2(unconnected, descriptor, inheritable=False)
                    os.close(unconnected)
            with suppress(RuntimeError):  # the loop's debug mode looks at the thread
                connection.abort()
        if generator is not None:
            # To its end: its loop, which would do that when it is collected, never runs here.
            ending = generator.aclose()
            with suppress(StopIteration):
                while True:
                    ending.send(None)
    _used.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
