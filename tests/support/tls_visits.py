"""Visits to a TLS server: connect anew, GET, close; each tells whether it resumed a session."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest

from aiohttpconn import HTTPSConnection
from aiohttpconn.testing import ScriptedServer

if TYPE_CHECKING:
    from aiohttpconn import HTTPConnection
    from aiohttpconn.testing import Connection

__all__ = ["REPLY", "HangsUp", "answer_all", "both_versions", "get", "visit"]

REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
"""The response of ``answer_all``."""

both_versions = pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["tls1.2", "tls1.3"]
)


async def answer_all(conn: Connection) -> None:
    """Answer each request: the script of a server."""
    while await conn.read_head():
        await conn.send(REPLY)


async def get(conn: HTTPConnection) -> None:
    """GET, and read the response of ``answer_all``."""
    await conn.request("GET", "/")
    assert await (await conn.getresponse()).read() == b"hi"


async def visit(server: ScriptedServer, context: ssl.SSLContext, **options: Any) -> bool:
    """Connect anew, GET, close; return whether that resumed a session."""
    async with HTTPSConnection(*server.address, context=context, **options) as conn:
        await get(conn)
        reused = conn.session_reused
    assert reused is not None
    return reused


class HangsUp(ScriptedServer):
    """Resets some connections before TLS: *numbers*, counted from 1."""

    def __init__(self, numbers: set[int], *scripts: Any, **options: Any) -> None:
        super().__init__(*scripts, **options)
        self._numbers = numbers

    async def _serve(self, conn: Connection, script: Any) -> None:
        if self.conns.index(conn) + 1 in self._numbers:
            await conn.reset()
            conn.end()
        else:
            await super()._serve(conn, script)
