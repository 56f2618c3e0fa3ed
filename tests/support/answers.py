"""Answers: one answer under test, plain ones after it, to tell whether its connection is reused.

answers = Answers([b"HTTP/1.1 200 OK\\r\\n\\r\\nhi"], end="close")
async with ScriptedServer(answers) as server, HTTPConnection(*server.address) as conn:
    ...                                             # the exchange under test
    assert not await answers.reused(conn, server)
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttpconn.testing import ClientGone

if TYPE_CHECKING:
    from collections.abc import Iterable

    import aiohttpconn
    from aiohttpconn.testing import Connection, ScriptedServer

__all__ = ["AGAIN", "Answers"]

AGAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain"
"""The answer to every request but the first."""

TURNS_TO_SEE = 6
"""Turns of the loop in which a client notices a FIN or RST: no event tells when it has."""


class Answers:
    """The script of a server whose first answer is *pieces*, and every other ``AGAIN``.

    *end*: how the first connection ends after them: "" (it stays), "close" (FIN, over TLS after
    close_notify), "truncate" (FIN alone), "reset". *head_only*: answer before the request's
    body. ``sent`` is set when the client has taken the pieces and seen the end, or has left.
    """

    def __init__(
        self, pieces: bytes | Iterable[bytes], *, end: str = "", head_only: bool = False
    ) -> None:
        self.sent = asyncio.Event()
        self._pieces = [pieces] if isinstance(pieces, bytes) else list(pieces)
        self._end = end
        self._head_only = head_only
        self._answered = False

    async def __call__(self, conn: Connection) -> None:
        if not self._answered:
            await (conn.read_head() if self._head_only else conn.read_request())
            self._answered = True
            try:
                await self._answer(conn)
            finally:
                self.sent.set()
            if self._end:
                return
        while True:
            await conn.read_request()
            await conn.send(AGAIN)

    async def reused(self, conn: aiohttpconn.HTTPConnection, server: ScriptedServer) -> bool:
        """Send another request on *conn*; tell whether the first connection got it."""
        await self.sent.wait()
        before = len(server.heads)
        await conn.request("GET", "/again")
        response = await conn.getresponse()
        assert (response.status, await response.read()) == (200, b"again")
        assert len(server.heads) == before + 1
        return server.connections == 1

    async def _answer(self, conn: Connection) -> None:
        try:
            await conn.send(*self._pieces)
            await conn.let_client_read()
            if self._end == "reset":
                await conn.reset()
            elif self._end:
                await conn.close(notify=self._end == "close")
        except ClientGone:
            # The client has seen enough, and ends this connection by that.
            await conn.drain()
        for _ in range(TURNS_TO_SEE):
            await asyncio.sleep(0)
