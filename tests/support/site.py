"""The servers that the examples of the documentation speak to: ``example.org`` and others.

They run in a thread, because examples run loops of their own, and blocking clients too. Their
answers are in pages.py. Unlike the servers of the test kit they forgive everything, because some
examples show mistakes. See ``tests/test_docs.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

import trustme

from aiohttpconn.response import make_message
from aiohttpconn.testing import Reply, Request

from .pages import PASSWORD, USER, Pages
from .proxies import Socks5Proxy

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Site"]

PLAIN_NAMES = {("example.org", 80), ("localhost", 8000), ("127.0.0.1", 8000)}
PROXY_NAMES = {("proxy.example.net", 3128)}
SOCKS_NAMES = {("socks.example.net", 1080)}
TLS_NAMES = {
    ("example.org", 443),
    ("api.example.com", 443),
    ("slow.example.com", 443),
    ("www.example.com", 443),
}
PRIVATE_NAMES = {("intranet.example.com", 443)}
"""Served with a certificate of a private authority: the file company-ca.pem."""
REFUSING_NAMES = {("localhost", 9), ("127.0.0.1", 9)}

SLOW_SECONDS = 0.1
"""Seconds that slow.example.com takes for each answer."""

NETRC = f"machine api.example.com login {USER} password {PASSWORD}\n"


class Site:
    """Servers in a thread: plain, TLS, TLS of a private authority, proxies, a Unix socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pages = Pages()
        self.routes: dict[tuple[str, int], tuple[str, int]] = {}
        self._resolve = socket.getaddrinfo
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Site:
        authority, private = trustme.CA(), trustme.CA()
        authority.cert_pem.write_to_path(str(self.folder / "trusted.pem"))
        private.cert_pem.write_to_path(str(self.folder / "company-ca.pem"))
        client = private.issue_cert("client@example.com")
        client.private_key_and_cert_chain_pem.write_to_path(str(self.folder / "client.pem"))
        self._tls = _server_context(authority, TLS_NAMES)
        self._private_tls = _server_context(private, PRIVATE_NAMES)
        (self.folder / "photo.jpg").write_bytes(bytes(100_000))
        (self.folder / "netrc").write_text(NETRC)
        self._thread.start()
        self._started.wait(10)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def getaddrinfo(self, host: Any, port: Any, *args: Any, **keywords: Any) -> list[Any]:
        """Stand in for ``socket.getaddrinfo``: our names, IP addresses, and nothing else.

        The port decides about the address, too. A resolver that keeps answers does not expect
        that: an example with one client must not use two ports of a name.
        """
        name = host.decode() if isinstance(host, bytes) else host
        if (name, port) in self.routes:
            name, port = self.routes[name, port]
        elif not re.fullmatch(r"[0-9.]+|.*:.*", name or ""):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self._resolve(name, port, *args, **keywords)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        handlers: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, EOFError):
                while await self._answer(reader, writer):
                    pass

        def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # A task that is cancelled before its first step must leave no socket, either.
            task = asyncio.ensure_future(serve(reader, writer))
            handlers.add(task)
            task.add_done_callback(lambda task: (writer.transport.abort(), handlers.discard(task)))

        async with contextlib.AsyncExitStack() as stack:
            for names, context in (
                (PLAIN_NAMES | PROXY_NAMES, None),
                (TLS_NAMES, self._tls),
                (PRIVATE_NAMES, self._private_tls),
            ):
                server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
                await stack.enter_async_context(server)
                address = server.sockets[0].getsockname()
                self.routes |= dict.fromkeys(names, address)
            leads_to = {f"{name}:{port}": address for (name, port), address in self.routes.items()}
            # A client that resolves names itself asks for an address.
            leads_to["127.0.0.1:443"] = self.routes["example.org", 443]
            socks = Socks5Proxy(credentials=f"{USER}:{PASSWORD}", routes=leads_to)
            self.routes |= dict.fromkeys(
                SOCKS_NAMES, (await stack.enter_async_context(socks)).address
            )
            server = await asyncio.start_unix_server(handle, self.folder / "app.sock")
            await stack.enter_async_context(server)
            refusing = stack.enter_context(socket.socket())
            refusing.bind(("127.0.0.1", 0))
            self.routes |= dict.fromkeys(REFUSING_NAMES, refusing.getsockname())
            self._started.set()
            await self._stop.wait()
            for task in handlers:
                task.cancel()
            await asyncio.gather(*handlers, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether another may follow."""
        head = await reader.readexactly(1)
        if head == b"\x16":  # TLS, on a plain port
            writer.write(_response(400))
            return False
        head += await reader.readuntil(b"\r\n\r\n")
        line, *lines = head[:-4].decode("latin-1").split("\r\n")
        method, target, version = line.split(" ")
        parts = (line.partition(": ") for line in lines)
        fields = make_message((name, value) for name, _, value in parts)
        if method == "CONNECT":
            return await self._tunnel(target, "Proxy-Authorization" in fields, reader, writer)
        if target == "/limited" and method != "GET":
            writer.write(_response(413, b"too large\n", "Content Too Large"))
            return False
        if fields["Upgrade"] == "chat":
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\nConnection: Upgrade\r\n\r\n"
            )
            while data := await reader.read(1000):
                writer.write(b"you said: " + data)
            return False
        if fields["Expect"] == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = b""
        if fields["Transfer-Encoding"] == "chunked":
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        elif "Content-Length" in fields:
            body = await reader.readexactly(int(fields["Content-Length"]))
        if target == "/slow":
            await self._stop.wait()
        if fields["Host"] == "slow.example.com":
            await asyncio.sleep(SLOW_SECONDS)
        target = re.sub("^http://[^/]*", "", target)  # as a proxy gets it
        response = self.pages.answer(Request(method, target, version, fields, body, 0))
        writer.write(response)
        await writer.drain()
        return b"\r\nConnection: close\r\n" not in response

    async def _tunnel(
        self,
        target: str,
        authorized: bool,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        if not authorized:
            writer.write(_response(407, b"who are you?\n"))
            return False
        host, _, port = target.rpartition(":")
        upstream = self.routes.get((host, int(port)))
        if upstream is None:
            writer.write(_response(502))
            return False
        there = await asyncio.open_connection(*upstream)
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n")
        ways = [asyncio.create_task(_copy(reader, there[1]))]
        ways.append(asyncio.create_task(_copy(there[0], writer)))
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # First, because the wait below may be cancelled.
            there[1].transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        return False


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


def _server_context(authority: trustme.CA, names: set[tuple[str, int]]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(name for name, _ in names)).configure_cert(context)
    return context


def _response(status: int, body: bytes = b"", reason: str | None = None) -> bytes:
    """Return a response of the server itself. *reason* replaces that of this Python version."""
    nobody = Request("GET", "/", "HTTP/1.1", make_message(()), b"", 0)
    fields = {"Content-Type": "text/plain"}
    return Reply(body, status=status, headers=fields, reason=reason).encode(nobody)
