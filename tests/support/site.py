"""The servers that the examples of the documentation speak to: ``example.org`` and others.

They run in a thread, because examples run loops of their own, and blocking clients too. See
``tests/test_docs.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

import trustme

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Site"]

INDEX = b"<!doctype html>\n<title>Example Domain</title>\n<h1>Example Domain</h1>\n"
BIG = bytes(range(256)) * 4096 * 3
LINES = b"".join(b'{"event": %d}\n' % number for number in range(1, 4))

PLAIN_NAMES = {("example.org", 80), ("localhost", 8000), ("127.0.0.1", 8000)}
PROXY_NAMES = {("proxy.example.net", 3128)}
TLS_NAMES = {("example.org", 443), ("api.example.com", 443), ("www.example.com", 443)}
PRIVATE_NAMES = {("intranet.example.com", 443)}
"""Served with a certificate of a private authority: the file company-ca.pem."""
REFUSING_NAMES = {("localhost", 9), ("127.0.0.1", 9)}


class Site:
    """Servers in a thread: plain, TLS, TLS of a private authority, a proxy, a Unix socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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
        self._thread.start()
        self._started.wait(10)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def getaddrinfo(self, host: Any, port: Any, *args: Any, **keywords: Any) -> list[Any]:
        """Stand in for ``socket.getaddrinfo``: our names, IP addresses, and nothing else."""
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

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            handlers.add(task)
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                while await self._answer(reader, writer):
                    pass
            writer.transport.abort()
            handlers.discard(task)

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
        head = (await reader.readexactly(1)).decode("latin-1")
        if head == "\x16":  # TLS, on a plain port
            writer.write(_response(400, "Bad Request", b""))
            return False
        head += (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split(" ", 2)
        fields = dict(re.findall(r"(?m)^([^:\r\n]+): (.*)\r$", head.lower()))
        if method == "CONNECT":
            return await self._tunnel(target, fields, reader, writer)
        if fields.get("expect") == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = b""
        if fields.get("transfer-encoding") == "chunked":
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        elif "content-length" in fields:
            if target == "/limited":
                writer.write(_response(413, "Content Too Large", b"too large\n"))
                return False
            body = await reader.readexactly(int(fields["content-length"]))
        path = re.sub("^http://[^/]*", "", target).partition("?")[0]
        route = getattr(self, f"_{method.lower()}_{path.strip('/').replace('.', '_')}", None)
        if path == "/slow":
            await self._stop.wait()
        elif path == "/chat" and fields.get("upgrade") == "chat":
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\nConnection: Upgrade\r\n\r\n"
            )
            while data := await reader.read(1000):
                writer.write(b"you said: " + data)
            return False
        elif route is not None:
            writer.write(route())
            await writer.drain()
            return not target.startswith("/broken")
        elif method in ("GET", "HEAD"):
            found = {"/": INDEX, "/about": INDEX, "/big.iso": BIG}.get(path)
            if found is None:
                writer.write(_response(404, "Not Found", b"not found\n", no_body=method == "HEAD"))
            else:
                kind = "text/html" if found is INDEX else "application/octet-stream"
                writer.write(_response(200, "OK", found, kind, no_body=method == "HEAD"))
        else:
            answer = json.dumps({"method": method, "path": path, "received": len(body)})
            writer.write(_response(201, "Created", answer.encode(), "application/json"))
        await writer.drain()
        return True

    def _get_gzip(self) -> bytes:
        body = gzip.compress(INDEX)
        return _response(200, "OK", body, "text/html\r\nContent-Encoding: gzip")

    def _get_moved(self) -> bytes:
        return _response(302, "Found", b"", "text/html\r\nLocation: /about")

    def _get_hints(self) -> bytes:
        hint = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
        return hint + _response(200, "OK", INDEX, "text/html")

    def _get_events(self) -> bytes:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Digest\r\n\r\n"
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(line), line) for line in LINES.splitlines(True))
        return head + chunks + b"0\r\nDigest: sha-256=abc\r\n\r\n"

    def _get_broken(self) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this"

    async def _tunnel(
        self,
        target: str,
        fields: dict[str, str],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        if "proxy-authorization" not in fields:
            writer.write(_response(407, "Proxy Authentication Required", b"who are you?\n"))
            return False
        host, _, port = target.rpartition(":")
        upstream = self.routes.get((host, int(port)))
        if upstream is None:
            writer.write(_response(502, "Bad Gateway", b""))
            return False
        there = await asyncio.open_connection(*upstream)
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n")
        ways = [asyncio.create_task(_copy(reader, there[1]))]
        ways.append(asyncio.create_task(_copy(there[0], writer)))
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            there[1].transport.abort()
        return False


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


def _server_context(authority: trustme.CA, names: set[tuple[str, int]]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(name for name, _ in names)).configure_cert(context)
    return context


def _response(
    status: int, reason: str, body: bytes, kind: str = "text/plain", *, no_body: bool = False
) -> bytes:
    head = (
        f"HTTP/1.1 {status} {reason}\r\nServer: example\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + (b"" if no_body else body)
