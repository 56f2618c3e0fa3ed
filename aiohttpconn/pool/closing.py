"""Connections that the pool counts no more and that are not gone yet: sockets that are closing,
connects that are ending.

Only ``ConnectionPool.close()`` waits for them: it must not return before. Layer: pool.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..protocol import CLOSED

if TYPE_CHECKING:
    from ..protocol import HTTP1Protocol
    from .scheduler import PooledConnection

__all__ = ["ClosingSockets"]


class ClosingSockets:
    """The owner of connections that are closing (``protocol.Owner``)."""

    def __init__(self) -> None:
        self._sockets: set[HTTP1Protocol] = set()
        self._connects: set[PooledConnection] = set()
        self._waiters: set[asyncio.Future[None]] = set()

    def add(self, protocol: HTTP1Protocol) -> None:
        """Own *protocol* until its socket is gone."""
        if protocol.transport is not None:
            protocol.owner = self
            self._sockets.add(protocol)

    def add_connect(self, connection: PooledConnection) -> None:
        """Know of *connection*, whose connect is under way, until ``connect_ended``."""
        self._connects.add(connection)

    def connect_ended(self, connection: PooledConnection) -> None:
        """Forget *connection*, whose connect has failed; whether it was known or not."""
        self._connects.discard(connection)
        self._wake()

    def exchange_ended(self, protocol: HTTP1Protocol, response: Any, count: int = 1) -> None:
        """Mirrors ``protocol.Owner``: a last response was read after the connection's end."""

    def connection_ended(self, protocol: HTTP1Protocol) -> None:
        """Mirrors ``protocol.Owner``."""

    def transport_lost(self, protocol: HTTP1Protocol) -> None:
        """Mirrors ``protocol.Owner``."""
        self._sockets.discard(protocol)
        self._wake()

    def count(self) -> int:
        """Return how many there are."""
        return len(self._sockets) + len(self._connects)

    def abort(self) -> None:
        """End all sockets at once."""
        for protocol in list(self._sockets):
            protocol.abort()

    def abort_open(self) -> None:
        """End those at once on which a last response is still being received."""
        for protocol in list(self._sockets):
            if protocol.state is not CLOSED:
                protocol.abort()

    async def wait(self, seconds: float) -> None:
        """Wait until all are gone, *seconds* at most."""
        if not self.count():
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
        if not self.count():
            for waiter in self._waiters:
                _resolve(waiter)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
