"""Connections that have left the pool and have not closed yet: closing sockets, ending connects.

Only ``ConnectionPool.close()`` waits for them: it must not return before. Layer: pool.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..net.loops import has_ended
from ..protocol import CLOSED

if TYPE_CHECKING:
    from ..protocol import HTTP1Protocol
    from .scheduler import OriginPool, PooledConnection

__all__ = ["ClosingSockets"]


class ClosingSockets:
    """The owner of connections that are closing (``source.Owner``)."""

    def __init__(self) -> None:
        # The oldest first.
        self._sockets: dict[HTTP1Protocol, None] = {}
        self._connects: set[PooledConnection] = set()
        self._waiters: set[asyncio.Future[None]] = set()

    def add(self, protocol: HTTP1Protocol) -> None:
        """Own *protocol* until its socket has closed. A closed loop would never say so."""
        if protocol.transport is not None and not has_ended(protocol.loop):
            protocol.owner = self
            self._sockets[protocol] = None

    def add_connect(self, connection: PooledConnection) -> None:
        """Count *connection*, whose connect is under way, until ``connect_ended``."""
        self._connects.add(connection)

    def connect_ended(self, connection: PooledConnection) -> None:
        """Forget *connection*, whose connect has failed. Harmless if it was never added."""
        self._connects.discard(connection)
        self._wake()

    def exchange_ended(self, protocol: HTTP1Protocol, response: Any, count: int = 1) -> None:
        """Do nothing: a last response was received after the connection left the pool."""

    def last_exchange_ended(self, protocol: HTTP1Protocol, response: Any) -> None:
        """Do nothing: a last response was received after the connection left the pool."""

    def connection_ended(self, protocol: HTTP1Protocol) -> None:
        """Do nothing: the connection has left the pool already."""

    def transport_lost(self, protocol: HTTP1Protocol) -> None:
        """Forget *protocol*, whose socket has closed."""
        self._sockets.pop(protocol, None)
        self._wake()

    def count(self) -> int:
        """Return how many sockets and connects have not ended."""
        return len(self._sockets) + len(self._connects)

    def abort(self) -> None:
        """Abort all sockets."""
        for protocol in list(self._sockets):
            protocol.abort()

    def make_room(self, most: float, origin: OriginPool, most_of_origin: float) -> None:
        """Abort the oldest sockets beyond *most*, and those of *origin* beyond *most_of_origin*.

        Not those on which a last response is still being received.
        """
        if len(self._sockets) > min(most, most_of_origin):
            sockets = list(self._sockets)
            _abort_oldest(sockets, most)
            sockets = [each for each in sockets if getattr(each, "origin_pool", None) is origin]
            _abort_oldest(sockets, most_of_origin)

    def abort_open(self) -> None:
        """Abort the sockets on which a last response is still being received."""
        for protocol in list(self._sockets):
            if protocol.state is not CLOSED:
                protocol.abort()

    async def wait(self, seconds: float) -> None:
        """Wait until all have ended, *seconds* at most."""
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


def _abort_oldest(sockets: list[HTTP1Protocol], most: float) -> None:
    excess = len(sockets) - most
    if excess > 0:
        for protocol in sockets[: int(excess)]:
            if protocol.state is CLOSED:
                protocol.abort()


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
