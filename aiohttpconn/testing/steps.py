"""Steps of a script, each of which does one thing to a connection.

A step is any ``async def step(conn: Connection)``; this module has those most used. faults.py
makes whole exchanges, also those that go wrong. Layer: the test kit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

from .connections import Connection, shown

if TYPE_CHECKING:
    import re

__all__ = [
    "Step",
    "close",
    "expect",
    "expect_request",
    "notify",
    "read_all",
    "reset",
    "send",
    "wait",
]

Step: TypeAlias = Callable[[Connection], Awaitable[None]]
"""One thing that a script does to a connection."""


def expect(what: bytes | re.Pattern[bytes] | int | None = None) -> Step:
    """Read from the client; raise ``AssertionError`` if the bytes are not *what*.

    None: any request head. bytes: exactly these. A compiled pattern: a request head in which it
    is found. An int: that many bytes.
    """

    async def step(conn: Connection) -> None:
        if isinstance(what, int):
            await conn.read_exactly(what)
        elif isinstance(what, bytes):
            await conn.read_expected(what)
        else:
            head = await conn.read_head()
            if what is not None and not what.search(head):
                raise AssertionError(
                    f"the server expected {what.pattern!r} in the head {shown(head)}"
                )

    return step


def expect_request() -> Step:
    """Read a whole request: its head, and the body that its framing announces."""

    async def step(conn: Connection) -> None:
        await conn.read_request()

    return step


def send(*pieces: bytes) -> Step:
    """Send *pieces*, each as a segment (over TLS a record) that the client reads by itself."""

    async def step(conn: Connection) -> None:
        await conn.send(*pieces)

    return step


def close(*, notify: bool = True) -> Step:
    """Send FIN, over TLS after a close_notify unless *notify* is False."""

    async def step(conn: Connection) -> None:
        await conn.close(notify=notify)

    return step


def reset() -> Step:
    """Cut the connection with RST, after the client has read all bytes sent."""

    async def step(conn: Connection) -> None:
        await conn.reset()

    return step


def wait(event: asyncio.Event) -> Step:
    """Do nothing, not even read, until the test sets *event*."""

    async def step(conn: Connection) -> None:
        await event.wait()

    return step


def notify(event: asyncio.Event) -> Step:
    """Set *event*, to tell the test that the script has come this far."""

    async def step(conn: Connection) -> None:
        event.set()

    return step


def read_all() -> Step:
    """Read until the client's end of file."""

    async def step(conn: Connection) -> None:
        await conn.read_all()

    return step
