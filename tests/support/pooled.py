"""The usual steps of a pool's tests: fetch in a task, and wait until the pool is in some state."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttpconn import ConnectionPool
    from aiohttpconn.testing import ScriptedServer

__all__ = ["OK", "fetch", "once_open", "queued", "received", "start"]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


async def fetch(pool: ConnectionPool, url: str, **keywords: Any) -> bytes:
    """GET *url*; return the body."""
    response = await pool.request("GET", url, **keywords)
    return await response.read()


def start(pool: ConnectionPool, url: str, **keywords: Any) -> asyncio.Future[bytes]:
    """Begin a ``fetch`` in a task of its own."""
    return asyncio.ensure_future(fetch(pool, url, **keywords))


async def queued(pool: ConnectionPool, n: int) -> None:
    """Wait until *n* requests wait for a connection."""
    while pool.stats().queued < n:
        await asyncio.sleep(0)


async def once_open(pool: ConnectionPool, n: int) -> None:
    """Wait until *n* connections are open."""
    while pool.stats().open != n:
        await asyncio.sleep(0)


async def received(server: ScriptedServer, n: int) -> None:
    """Wait until *n* request heads have been read."""
    while len(server.heads) < n:
        await asyncio.sleep(0)
