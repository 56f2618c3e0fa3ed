"""What has left a pool and is not gone yet: sockets that are closing, connects that are ending.

Nobody waits for it but ``ConnectionPool.close()``, which must not return before. Layer: pool.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..protocol import CLOSED, HTTP1Protocol

if TYPE_CHECKING:
    from .scheduler import Slot

__all__ = ["Closing"]


class Closing:
    """The owner of connections that are closing (``protocol.Owner``); it knows them by itself."""

    def __init__(self) -> None:
        self._left: set[HTTP1Protocol | Slot] = set()
        self._waiters: set[asyncio.Future[None]] = set()

    def add(self, protocol: HTTP1Protocol) -> None:
        """Own *protocol* until its socket is gone."""
        if protocol.transport is not None:
            protocol.owner = self
            self._left.add(protocol)

    def add_connect(self, slot: Slot) -> None:
        """Know of *slot*, whose connect is under way, until ``connect_ended``."""
        self._left.add(slot)

    def connect_ended(self, slot: Slot) -> None:
        """The connect of *slot* has failed; whether it was known or not."""
        self._left.discard(slot)
        self._wake()

    def exchange_ended(self, protocol: Any, response: Any, count: int = 1) -> None:
        """Mirrors ``protocol.Owner``: a response that was read behind its connection's end."""

    def connection_ended(self, protocol: Any) -> None:
        """Mirrors ``protocol.Owner``."""

    def transport_lost(self, protocol: HTTP1Protocol) -> None:
        """Mirrors ``protocol.Owner``."""
        self._left.discard(protocol)
        self._wake()

    def abort(self) -> None:
        """End all sockets at once."""
        for each in list(self._left):
            if isinstance(each, HTTP1Protocol):
                each.abort()

    def abort_open(self) -> None:
        """End those at once on which a last response is still being received."""
        for each in list(self._left):
            if isinstance(each, HTTP1Protocol) and each.state is not CLOSED:
                each.abort()

    async def wait(self, seconds: float) -> None:
        """Wait until all are gone, *seconds* at most."""
        if not self._left:
            return
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiters.add(waiter)
        timer = loop.call_later(seconds, _resolve, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        if not self._left:
            for waiter in self._waiters:
                _resolve(waiter)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
