"""in_thread(): a server of this kit in a thread of its own, for clients that block.

Layer: the test kit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from concurrent import futures
from typing import Any, TypeVar

from .servers import ScriptedServer

__all__ = ["in_thread"]

S = TypeVar("S", bound=ScriptedServer)


@contextlib.contextmanager
def in_thread(server: S) -> Iterator[S]:
    """Start *server*, as ``async with`` does, but in a thread with a loop of its own.

    Any thread may read the server's records; its methods, and the events of its scripts, are for
    its own thread. A client in another thread may read several pieces of a response at once. The
    end of ``with`` raises the exception that the end of ``async with`` would raise.
    """
    running: futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = futures.Future()

    async def run() -> None:
        stop = asyncio.Event()
        async with server:
            running.set_result((asyncio.get_running_loop(), stop))
            await stop.wait()

    with futures.ThreadPoolExecutor(1) as executor:
        ended = executor.submit(lambda: asyncio.run(run()))
        either: tuple[futures.Future[Any], ...] = (running, ended)
        futures.wait(either, return_when=futures.FIRST_COMPLETED)
        if not running.done():
            ended.result()  # raises the reason why it could not start
        loop, stop = running.result()
        try:
            yield server
        finally:
            with contextlib.suppress(RuntimeError):  # a handler has ended the loop
                loop.call_soon_threadsafe(stop.set)
            ended.result()
