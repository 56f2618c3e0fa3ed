"""The event loop: uvloop where it is installed, asyncio's own where it is not; its end.

No event loop policy is touched: a program that has a loop keeps it. Layer: net.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import suppress
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

__all__ = ["abort_at_shutdown", "abort_transport", "new_event_loop", "run"]

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


_OPEN = "_aiohttpconn_open"
"""The attribute of a loop that has its open connections, and the generator that ends them."""


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


def abort_transport(transport: asyncio.Transport, raw: asyncio.Transport) -> None:
    """Abort *transport*, and close the socket of *raw* below it if their loop is closed.

    A transport of asyncio closes its socket through its loop, and else warns that it is unclosed.
    uvloop has closed it with the loop, and has warned.
    """
    try:
        transport.abort()
    except RuntimeError:  # the loop is closed
        end = getattr(raw, "_call_connection_lost", None)
        if end is not None:
            # TLS above it needs the loop, too; or the socket was closed here before.
            with suppress(RuntimeError, AttributeError):
                end(None)
