"""ConnectProxy: an HTTP proxy that tunnels, with the faults a test asks for.

async with ScriptedServer([expect(), send(RESPONSE)]) as server, ConnectProxy() as proxy:
    conn = HTTPConnection(proxy.host, proxy.port)
    conn.set_tunnel("example.com", 80)      # with routes={"example.com:80": server.address}
    ...
    assert proxy.targets == ["example.com:80"]
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
from typing import TYPE_CHECKING, Any

from .servers import ClientGone, Connection, ScriptedServer

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ConnectProxy"]

READ_SIZE = 65536
"""Bytes asked of one recv()."""


class ConnectProxy(ScriptedServer):
    """Answer CONNECT, then relay both ways. Takes ``ScriptedServer``'s keywords, tls= too.

    *credentials*: ``"user:password"`` that Proxy-Authorization must carry, else 407.
    *refuse*: answer every CONNECT with these bytes (head and body), then close.
    *reply*: the head that grants a tunnel. *leftover*: bytes sent in one piece with it.
    *routes*: where ``"host:port"`` leads; a target not in it is connected to as it is named,
    if it is an IP address or localhost, and gets a 502 otherwise.
    ``heads`` records the heads of requests, ``targets`` the targets of those let through.
    """

    def __init__(
        self,
        *,
        credentials: str | None = None,
        refuse: bytes | None = None,
        reply: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n",
        leftover: bytes = b"",
        routes: Mapping[str, tuple[str, int]] | None = None,
        **keywords: Any,
    ) -> None:
        super().__init__(self._tunnel, **keywords)
        self.targets: list[str] = []
        self._credentials = credentials
        self._refuse = refuse
        self._reply = reply
        self._leftover = leftover
        self._routes = dict(routes or {})

    async def _tunnel(self, conn: Connection) -> None:
        head = await conn.read_head()
        if self._refuse is not None:
            await self._end(conn, self._refuse)
            return
        if not self._authorized(head):
            challenge = b'Proxy-Authenticate: Basic realm="proxy"\r\nContent-Length: 0\r\n\r\n'
            await self._end(conn, b"HTTP/1.1 407 Proxy Authentication Required\r\n" + challenge)
            return
        request_line = re.match(rb"CONNECT (\S+) HTTP/1\.[01]\r\n", head)
        assert request_line, f"the proxy expected CONNECT, got {head!r}"
        target = request_line[1].decode("ascii")
        address = self._resolve(target)
        try:
            upstream = await self._connect(address) if address is not None else None
        except OSError:
            upstream = None
        if upstream is None:
            await self._end(conn, b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        self.targets.append(target)
        with upstream:
            await conn.send(self._reply + self._leftover)
            await self._relay(conn, upstream)

    async def _end(self, conn: Connection, answer: bytes) -> None:
        await conn.send(answer)
        await conn.close()

    def _authorized(self, head: bytes) -> bool:
        if self._credentials is None:
            return True
        token = base64.b64encode(self._credentials.encode())
        field = re.search(rb"(?im)^proxy-authorization: *(.*?) *\r?$", head)
        return field is not None and field[1] == b"Basic " + token

    def _resolve(self, target: str) -> tuple[str, int] | None:
        if target in self._routes:
            return self._routes[target]
        host, _, port = target.rpartition(":")
        host = host.strip("[]")
        if host == "localhost":
            host = "127.0.0.1"
        if not re.fullmatch(r"[\d.]+|[0-9a-fA-F:]+", host):
            return None
        return host, int(port)

    async def _connect(self, address: tuple[str, int]) -> socket.socket:
        upstream = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        try:
            upstream.setblocking(False)
            upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.sock_connect(upstream, address)
        except BaseException:
            upstream.close()
            raise
        return upstream

    async def _relay(self, conn: Connection, upstream: socket.socket) -> None:
        """Copy both ways; an end of file in one direction is passed on in it."""

        async def up() -> None:
            while data := await conn.read_some():
                await self._loop.sock_sendall(upstream, data)
            upstream.shutdown(socket.SHUT_WR)

        async def down() -> None:
            while data := await self._loop.sock_recv(upstream, READ_SIZE):
                await conn.send(data)
            await conn.close()

        tasks = [asyncio.ensure_future(up()), asyncio.ensure_future(down())]
        try:
            await asyncio.gather(*tasks)
        except ClientGone:
            raise
        except OSError as exc:
            # A reset on one side is a reset on the other.
            await conn.reset()
            raise ClientGone(f"the tunnel broke: {exc}") from exc
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
