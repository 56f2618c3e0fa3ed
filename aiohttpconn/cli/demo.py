"""``python -m aiohttpconn demo``: requests to an HTTPS server, directly and through a proxy.

Both servers run in this process, on the loopback interface; no network is used. The demo fetches
everything through the public API, and compares it with the data that was sent. Read ``_visit()``
first: it is an ordinary program that uses this package.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import platform
import random
import re
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from importlib import resources
from time import perf_counter
from typing import IO, TypeAlias

from .. import HTTPException, HTTPResponse, HTTPSConnection, Timeout, __version__
from .options import PROG
from .scrape import ScrapeError, page, scrape

__all__ = ["main"]

MiB = 1024 * 1024

UPLOAD_SIZE = 2 * MiB
DOWNLOAD_SIZE = 8 * MiB
BLOCK = 64 * 1024
PROGRESS = 2 * MiB
"""Bytes between two marks of progress."""

TIME_LIMIT = 30.0
"""Seconds that the visit on one loop may take: some tenths are enough."""

HOST = "127.0.0.1"
GREETING = b"Hello from an HTTPS server in your own process.\n"

PHASES = ("dns", "connect", "proxy", "tls", "send", "wait", "receive")
LABEL = 34
COLUMN = 8


class DemoError(Exception):
    """A response is not the expected one."""


def main(argv: Sequence[str]) -> int:
    """Run the demo; return 0, or 1 if something did not work."""
    parser = argparse.ArgumentParser(
        prog=f"{PROG} demo",
        description="Show what aiohttpconn does, with a server and a proxy inside this process.",
        allow_abbrev=False,
    )
    try:
        parser.parse_args(argv)
    except SystemExit as exc:
        return int(exc.code or 0)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"aiohttpconn {__version__}, {python}, {ssl.OPENSSL_VERSION}")
    print("An HTTPS server and a proxy run inside this process; no network is used.")
    print(
        "dns, connect, proxy and tls make a connection; wait is for the head, receive for the body."
    )
    try:
        _show("asyncio", asyncio.new_event_loop)
        try:
            import uvloop
        except ImportError:
            print("\nuvloop, a faster event loop, is not installed: python -m pip install uvloop")
        else:
            _show("uvloop", uvloop.new_event_loop)
    except BrokenPipeError:
        raise
    except (DemoError, ScrapeError, HTTPException, OSError, ValueError) as exc:
        sys.stdout.flush()
        print(f"The demo failed: {str(exc) or type(exc).__name__}", file=sys.stderr)
        return 1
    print("\nEverything arrived as it was sent.")
    return 0


def _show(name: str, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Make the visit on one kind of event loop."""
    title = f"On {name}, times in ms"
    print(f"\n{title:{LABEL}}{''.join(f'{phase:>{COLUMN}}' for phase in PHASES)}")
    content = random.Random(1).randbytes(UPLOAD_SIZE)
    with tempfile.TemporaryFile() as file, asyncio.Runner(loop_factory=loop_factory) as runner:
        file.write(content)
        file.seek(0)
        runner.run(_visit(file, hashlib.sha256(content).hexdigest()))


async def _visit(file: IO[bytes], file_hash: str) -> None:
    """Ask a server for three things on one connection, then for one through a proxy."""
    async with (
        asyncio.timeout(TIME_LIMIT),
        _serving(_answer, _server_context()) as port,
        _serving(_tunnel) as proxy_port,
    ):
        trusted = _client_context()

        async with HTTPSConnection(HOST, port, context=trusted, timeout=5.0) as conn:
            with _Row("GET /hello", conn) as row:
                response = await row.ask("GET", "/hello")
                _check(await response.read() == GREETING, "/hello gave another greeting")
            print(f"  {response.status} {response.reason}, {conn!r}")

            with _Row("POST /upload", conn) as row:
                response = await row.ask("POST", "/upload", file)
                _check(await response.read() == file_hash.encode(), "the upload arrived damaged")
            print(f"  a file of {UPLOAD_SIZE // MiB} MiB; the server got the same SHA-256")

            with _Row("GET /download", conn) as row:
                response = await row.ask("GET", "/download")
                size, download_hash = await _download(response, row)
                _check(size == DOWNLOAD_SIZE, f"the download has {size} bytes")
                expected = response.trailers.get("SHA-256")
                _check(download_hash == expected, "the download arrived damaged")
                _check("connect" not in row.times, "the connection was not used again")
            print("  chunked; the SHA-256 in its trailer is right; one connection for all three")

        conn = HTTPSConnection(HOST, proxy_port, context=trusted, timeout=Timeout(total=5.0))
        conn.set_tunnel(HOST, port)
        async with conn:
            with _Row("GET /hello, through the proxy", conn) as row:
                response = await row.ask("GET", "/hello")
                _check(await response.read() == GREETING, "/hello gave another greeting")
            print(f"  {response.status} {response.reason}; the proxy relayed TLS, and read nothing")

        await scrape(f"https://{HOST}:{port}", trusted)


async def _download(response: HTTPResponse, row: _Row) -> tuple[int, str]:
    """Read a body piece by piece, and show the progress; return its size and its SHA-256."""
    digest = hashlib.sha256()
    size = 0
    while data := await response.read(PROGRESS):
        digest.update(data)
        size += len(data)
        row.add(f" {size // MiB}")
    row.add(" MiB")
    return size, digest.hexdigest()


def _check(is_right: bool, otherwise: str) -> None:
    if not is_right:
        raise DemoError(otherwise)


class _Row:
    """One request as a line: its method and target, then the time that each phase took."""

    def __init__(self, label: str, conn: HTTPSConnection) -> None:
        self._label = label
        self._conn = conn
        self._width = 0
        self.times: dict[str, float] = {}
        self._answered = 0.0

    def add(self, text: str) -> None:
        """Show *text* at once, before the times."""
        print(text, end="", flush=True)
        self._width += len(text)

    async def ask(self, method: str, target: str, body: IO[bytes] | None = None) -> HTTPResponse:
        """Connect if need be, send the request, and return the response once its head is here."""
        conn = self._conn
        if conn.sock is None:
            await conn.connect()
            self.times.update(conn.dial_times)
        started = perf_counter()
        await conn.request(method, target, body)
        sent = perf_counter()
        response = await conn.getresponse()
        self._answered = perf_counter()
        self.times.update(send=sent - started, wait=self._answered - sent)
        return response

    def __enter__(self) -> _Row:
        self.add(self._label)
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        if exc_type is not None:
            print()
            return
        self.times["receive"] = perf_counter() - self._answered
        times = [self.times.get(phase) for phase in PHASES]
        cells = ["-" if time is None else f"{time * 1e3:.1f}" for time in times]
        padding = " " * (LABEL - self._width)
        print(padding + "".join(f"{cell:>{COLUMN}}" for cell in cells))


# The servers, on asyncio's streams -------------------------------------------------------

Handler: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def _serving(handle: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve on a free port of the loopback interface; yield the port."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, EOFError):  # the client has left
                await handle(reader, writer)
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, HOST, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Act as an HTTP server: answer one request after the other until the client leaves."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        request = head.partition(b" HTTP/1.1\r\n")[0]
        length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
        digest = hashlib.sha256()
        left = int(length[1]) if length else 0
        while left:
            data = await reader.readexactly(min(left, BLOCK))
            digest.update(data)
            left -= len(data)
        if request == b"GET /hello":
            writer.write(_response(b"200 OK", GREETING))
        elif request == b"POST /upload":
            writer.write(_response(b"200 OK", digest.hexdigest().encode()))
        elif request == b"GET /download":
            await _send_download(writer)
        elif match := re.fullmatch(rb"GET /page/([0-9]{1,4})", request):
            coded = b"Content-Type: text/html; charset=utf-8\r\nContent-Encoding: gzip\r\n"
            writer.write(_response(b"200 OK", page(int(match[1])), coded))
        else:
            writer.write(_response(b"404 Not Found", b"There is nothing here.\n"))
        await writer.drain()


def _response(status: bytes, body: bytes, fields: bytes = b"") -> bytes:
    length = len(body)
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, fields, length, body)


async def _send_download(writer: asyncio.StreamWriter) -> None:
    """Send random bytes in chunks, and their hash as a trailer (RFC 9112 §7.1)."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: SHA-256\r\n\r\n")
    source = random.Random(2)
    digest = hashlib.sha256()
    for _ in range(DOWNLOAD_SIZE // BLOCK):
        data = source.randbytes(BLOCK)
        digest.update(data)
        writer.write(b"%X\r\n%b\r\n" % (len(data), data))
        await writer.drain()
    writer.write(b"0\r\nSHA-256: %b\r\n\r\n" % digest.hexdigest().encode())


async def _tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Act as a proxy: answer CONNECT, then relay both ways. It connects to this machine only."""
    head = await reader.readuntil(b"\r\n\r\n")
    target = re.match(rb"CONNECT 127\.0\.0\.1:([0-9]{1,5}) HTTP/1\.1\r\n", head)
    if target is None:
        writer.write(_response(b"403 Forbidden", b"This proxy leads to 127.0.0.1 only.\n"))
        return
    far_reader, far_writer = await asyncio.open_connection(HOST, int(target[1]))
    try:
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        async with asyncio.TaskGroup() as group:
            group.create_task(_relay(reader, far_writer))
            group.create_task(_relay(far_reader, writer))
    except* OSError:
        pass  # one side has broken the tunnel
    finally:
        far_writer.transport.abort()


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy all bytes until the end of file, and pass that on."""
    while data := await reader.read(BLOCK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


# TLS: the comments in test-authority.pem and test-server.pem describe them ----------------


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with resources.as_file(resources.files(__package__) / "test-server.pem") as path:
        context.load_cert_chain(path)
    return context


def _client_context() -> ssl.SSLContext:
    """Return a context that trusts only the test authority."""
    authority = (resources.files(__package__) / "test-authority.pem").read_text("ascii")
    return ssl.create_default_context(cadata=authority)
