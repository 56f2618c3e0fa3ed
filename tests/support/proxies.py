"""ConnectProxy, Socks5Proxy: proxies that tunnel, with the faults that a test asks for.

async with ScriptedServer([expect(), send(RESPONSE)]) as server, ConnectProxy() as proxy:
    conn = HTTPConnection(proxy.host, proxy.port)
    conn.set_tunnel("example.com", 80)      # with routes={"example.com:80": server.address}
    ...
    assert proxy.targets == ["example.com:80"]

Both take ``ScriptedServer``'s keywords, ``tls=`` too, and *routes*: addresses by ``"host:port"``.
A proxy connects to any other target as it is named, if that is an IP address or localhost.
``targets`` records the targets that were let through.
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
from typing import TYPE_CHECKING, Any

from aiohttpconn.testing import ClientGone, Connection, ScriptedServer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttpconn.testing import Script

__all__ = ["ConnectProxy", "Socks5Proxy"]

READ_SIZE = 65536
"""Bytes asked of one recv()."""


class _Proxy(ScriptedServer):
    """The common part of both: find a target, and relay both ways."""

    def __init__(
        self, script: Script, routes: Mapping[str, tuple[str, int]] | None, **keywords: Any
    ) -> None:
        super().__init__(script, **keywords)
        self.targets: list[str] = []
        self._routes = dict(routes or {})

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


class ConnectProxy(_Proxy):
    """Answer CONNECT, then relay both ways.

    *credentials*: ``"user:password"`` that Proxy-Authorization must carry, else 407.
    *refuse*: answer every CONNECT with these bytes (head and body), then close.
    *reply*: the head that grants a tunnel. *leftover*: bytes sent in one piece with it.
    A target that leads nowhere gets a 502. ``heads`` records the heads of requests.
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
        super().__init__(self._tunnel, routes, **keywords)
        self._credentials = credentials
        self._refuse = refuse
        self._reply = reply
        self._leftover = leftover

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


class Socks5Proxy(_Proxy):
    """Speak SOCKS5 (RFC 1928, RFC 1929), then relay both ways.

    *credentials*: ``"user:password"`` that a client must have. *reply*: the answer to a request
    that can be met, *leftover*: bytes sent in one piece with it. *refuse*: answer every request
    with this code. *bytewise*: send each answer byte by byte.
    A target that leads nowhere is refused with 4, "host unreachable".
    """

    def __init__(
        self,
        *,
        credentials: str | None = None,
        refuse: int = 0,
        reply: bytes = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x12\x34",
        leftover: bytes = b"",
        bytewise: bool = False,
        routes: Mapping[str, tuple[str, int]] | None = None,
        **keywords: Any,
    ) -> None:
        super().__init__(self._tunnel, routes, **keywords)
        self._credentials = credentials
        self._refuse = refuse
        self._reply = reply
        self._leftover = leftover
        self._bytewise = bytewise

    async def _tunnel(self, conn: Connection) -> None:
        version, count = await conn.read_exactly(2)
        assert version == 5, f"the proxy expected version 5, got {version}"
        methods = await conn.read_exactly(count)
        if not await self._authenticated(conn, methods):
            await conn.close()
            return
        target = await self._read_request(conn)
        address = self._resolve(target)
        code = self._refuse
        upstream = None
        if not code and address is not None:
            try:
                upstream = await self._connect(address)
            except OSError:
                code = 5
        if upstream is None:
            await self._answer(conn, b"\x05%c\x00\x01\x00\x00\x00\x00\x00\x00" % (code or 4))
            await conn.close()
            return
        self.targets.append(target)
        with upstream:
            await self._answer(conn, self._reply + self._leftover)
            await self._relay(conn, upstream)

    async def _authenticated(self, conn: Connection, methods: bytes) -> bool:
        method = 0 if self._credentials is None else 2
        if method not in methods:
            await self._answer(conn, b"\x05\xff")
            return False
        await self._answer(conn, b"\x05%c" % method)
        if self._credentials is None:
            return True
        texts = []
        assert await conn.read_exactly(1) == b"\x01"
        for _ in range(2):
            (length,) = await conn.read_exactly(1)
            texts.append(await conn.read_exactly(length))
        right = b":".join(texts) == self._credentials.encode()
        await self._answer(conn, b"\x01\x00" if right else b"\x01\x01")
        return right

    async def _read_request(self, conn: Connection) -> str:
        """Return the target, ``"host:port"``."""
        version, command, reserved, kind = await conn.read_exactly(4)
        assert (version, command, reserved) == (5, 1, 0), "the proxy expected CONNECT"
        if kind == 3:
            (length,) = await conn.read_exactly(1)
            host = (await conn.read_exactly(length)).decode("ascii")
        elif kind == 4:
            host = f"[{socket.inet_ntop(socket.AF_INET6, await conn.read_exactly(16))}]"
        else:
            assert kind == 1, f"the proxy knows no type of address {kind}"
            host = socket.inet_ntop(socket.AF_INET, await conn.read_exactly(4))
        return f"{host}:{int.from_bytes(await conn.read_exactly(2), 'big')}"

    async def _answer(self, conn: Connection, answer: bytes) -> None:
        if self._bytewise:
            await conn.send(*(answer[i : i + 1] for i in range(len(answer))))
        else:
            await conn.send(answer)
