"""The requests that tests of leaks cancel: one function for each way of using a pool.

``KINDS`` has them by name. Each takes a pool and a URL, makes its request, and returns when it has
nothing left to do. ``answering`` is a server that answers all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from .pooled import OK

if TYPE_CHECKING:
    from aiohttpconn import ConnectionPool
    from aiohttpconn.testing import Connection

__all__ = ["KINDS", "answering", "get", "lease", "post", "turns", "upload"]


async def turns(n: int) -> None:
    """Let the loop turn *n* times."""
    for _ in range(n):
        await asyncio.sleep(0)


async def answering(conn: Connection) -> None:
    """Answer each request in two pieces, so that its body comes in a read of its own."""
    while True:
        await conn.read_request()
        await conn.send(OK[:30], OK[30:])


async def get(pool: ConnectionPool, url: str) -> None:
    """Read the response to a GET."""
    response = await pool.request("GET", url)
    await response.read()


async def unread(pool: ConnectionPool, url: str) -> None:
    """Drop the response to a GET unread."""
    await pool.request("GET", url)


async def post(pool: ConnectionPool, url: str) -> None:
    """Send a body of bytes; read the response."""
    response = await pool.request("POST", url, b"body")
    await response.read()


async def upload(pool: ConnectionPool, url: str) -> None:
    """Send a body that is made while it is sent; read the response."""

    async def body():
        for _ in range(3):
            yield b"part"
            await asyncio.sleep(0)

    # Closed here: CPython 3.13.0 crashes where uvloop's debug mode looks at the stack while the
    # collector closes it.
    async with contextlib.aclosing(body()) as parts:
        response = await pool.request("PUT", url, parts)
        await response.read()


async def lease(pool: ConnectionPool, url: str) -> None:
    """Lease a connection for two requests; read both responses."""
    async with pool.connection(url) as conn:
        for _ in range(2):
            await conn.request("GET", "/")
            response = await conn.getresponse()
            await response.read()


async def lease_unread(pool: ConnectionPool, url: str) -> None:
    """Lease a connection, and give it back with a response unread."""
    async with pool.connection(url) as conn:
        await conn.request("POST", "/", b"x")
        await conn.getresponse()


KINDS = {each.__name__: each for each in (get, unread, post, upload, lease, lease_unread)}
