"""A server for benchmarks, for machines without nginx, and for paths that nginx cannot serve.

    python own.py --plan PLAN [--certificate FILE --key FILE]

It listens on the addresses of the plan, prints a line of JSON when it does, and ends with its
standard input. It runs on uvloop if that is installed. It looks only at the request line and the
length of the body.

    GET /x          the small JSON document          GET /1m     1 MiB
    GET /distinct   the same, each head differs      GET /256m   256 MiB
    GET /chunked    64 KiB in chunks of 8            GET /hold/N as /x, once N wait for it
    GET /wait/MS    after MS milliseconds, how many wait on /wait, the answered one included
    POST /upload    drops the body, returns its number of bytes
    POST /post      the small JSON document, once the body is here
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from scenarios import KIB, MIB, REPLY

SCRATCH = memoryview(bytearray(256 * KIB))
PATTERN = memoryview(bytes(range(256)) * (MIB // 256))

FIELDS = (
    b"Server: own\r\n"
    b"Date: Mon, 23 Nov 2026 12:00:00 GMT\r\n"
    b"Content-Type: application/json\r\n"
    b"Content-Length: %d\r\n"
    b"Connection: keep-alive\r\n"
    b"Last-Modified: Mon, 23 Nov 2026 10:00:00 GMT\r\n"
)
LAST_FIELDS = b'ETag: "6921c0a0-3e"\r\nAccept-Ranges: bytes\r\n\r\n'
SMALL = b"HTTP/1.1 200 OK\r\n" + FIELDS % len(REPLY) + LAST_FIELDS + REPLY
DISTINCT = b"HTTP/1.1 200 OK\r\n" + FIELDS % len(REPLY) + b"Accept-Ranges: bytes\r\n"
CHUNK = b"%x\r\n" % (8 * KIB) + bytes(PATTERN[: 8 * KIB]) + b"\r\n"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nServer: own\r\nContent-Type: application/octet-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n" + CHUNK * 8 + b"0\r\n\r\n"
)
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s"
REFUSED = b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
BLOCKS = {"/1m": 1, "/256m": 256}

HOLD_SECONDS = 30.0
"""Seconds until requests on /hold are answered although too few have come."""


class Waiting:
    """Requests on /hold: they are answered together, so that each needs its own connection."""

    def __init__(self) -> None:
        # A dict keeps their order, and removes one quickly.
        self.waiting: dict[Any, None] = {}
        self.timer: asyncio.TimerHandle | None = None

    def add(self, transport: Any, count: int) -> None:
        self.waiting[transport] = None
        if len(self.waiting) >= count:
            self.answer()
        elif self.timer is None:
            self.timer = asyncio.get_running_loop().call_later(HOLD_SECONDS, self.answer)

    def remove(self, transport: Any) -> None:
        """Forget a client that is gone."""
        self.waiting.pop(transport, None)

    def answer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        waiting, self.waiting = self.waiting, {}
        for transport in waiting:
            transport.write(SMALL)


held = Waiting()


class Delayed:
    """Requests on /wait: each is answered by itself, with the number of them."""

    def __init__(self) -> None:
        self.timers: dict[Any, asyncio.TimerHandle] = {}

    def add(self, transport: Any, milliseconds: int) -> None:
        # A second request on a connection gets the answer of the first.
        if transport not in self.timers:
            loop = asyncio.get_running_loop()
            self.timers[transport] = loop.call_later(milliseconds / 1000, self.answer, transport)

    def remove(self, transport: Any) -> None:
        """Forget a client that is gone."""
        timer = self.timers.pop(transport, None)
        if timer is not None:
            timer.cancel()

    def answer(self, transport: Any) -> None:
        count = b"%d" % len(self.timers)
        self.remove(transport)
        transport.write(PLAIN % (len(count), count))


delayed = Delayed()


class Server(asyncio.BufferedProtocol):
    """One connection."""

    number = 0

    def __init__(self) -> None:
        self._tail = b""
        self._out: list[bytes] = []
        # The request whose body is on its way
        self._path = ""
        self._length = 0
        self._unread = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        held.remove(self.transport)
        delayed.remove(self.transport)
        if self._task is not None:
            self._task.cancel()

    def get_buffer(self, sizehint: int) -> memoryview:
        return SCRATCH

    def buffer_updated(self, nbytes: int) -> None:
        if self._unread > nbytes:
            self._unread -= nbytes
            return
        data = bytes(SCRATCH[:nbytes])
        self._take(self._tail + data if self._tail else data)
        if self._out:
            self.transport.write(b"".join(self._out))
            self._out.clear()

    def _take(self, data: bytes) -> None:
        while data:
            if self._unread:
                taken = min(self._unread, len(data))
                self._unread -= taken
                data = data[taken:]
                if self._unread:
                    break
                self._post()
                continue
            head, end, rest = data.partition(b"\r\n\r\n")
            if not end:
                break
            data = rest
            if head.startswith(b"GET "):
                self._get(head[4 : head.index(b" ", 4)].decode())
            else:
                self._begin_post(head)
        self._tail = data

    def _get(self, path: str) -> None:
        if path == "/x":
            self._out.append(SMALL)
        elif path == "/distinct":
            Server.number += 1
            self._out.append(DISTINCT + b"X-Request-Id: %032x\r\n\r\n" % Server.number + REPLY)
        elif path == "/chunked":
            self._out.append(CHUNKED)
        elif path in BLOCKS:
            self._task = asyncio.get_running_loop().create_task(self._send(BLOCKS[path]))
        elif path.startswith("/hold/"):
            held.add(self.transport, int(path[6:]))
        elif path.startswith("/wait/"):
            delayed.add(self.transport, int(path[6:]))
        else:
            self._out.append(REFUSED % b"404 Not Found")

    async def _send(self, blocks: int) -> None:
        write = self.transport.write
        write(b"HTTP/1.1 200 OK\r\n" + FIELDS % (blocks * MIB) + LAST_FIELDS)
        for _ in range(blocks):
            write(PATTERN)
            await self._writable.wait()

    def _begin_post(self, head: bytes) -> None:
        lines = head.split(b"\r\n")
        self._path = lines[0].split(b" ")[1].decode()
        for line in lines:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                self._length = self._unread = int(value)
                if not self._unread:
                    self._post()
                return
        self._out.append(REFUSED % b"411 Length Required")

    def _post(self) -> None:
        if self._path == "/post":
            right = self._length == len(REPLY)
            self._out.append(SMALL if right else REFUSED % b"400 Bad Request")
        elif self._path == "/upload":
            body = b"%d" % self._length
            self._out.append(b"HTTP/1.1 200 OK\r\n" + FIELDS % len(body) + LAST_FIELDS + body)
        else:
            self._out.append(REFUSED % b"404 Not Found")

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()


def listening(hosts: list[tuple[str, int]]) -> list[socket.socket]:
    sockets = []
    for address in hosts:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(4096)
        sock.setblocking(False)
        sockets.append(sock)
    return sockets


async def serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    plan = json.loads(options.plan)
    for kind, addresses in plan.items():
        context = None
        if kind == "tls":
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(options.certificate, options.key)
        for sock in listening([(host, port) for host, port in addresses]):
            await loop.create_server(Server, sock=sock, ssl=context, backlog=4096)
    print(json.dumps({"loop": type(loop).__module__.partition(".")[0]}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--plan", required=True, help='{"plain": [[host, port]...], "tls": ...}')
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    factory: Any = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner, contextlib.suppress(KeyboardInterrupt):
        runner.run(serve(options))


if __name__ == "__main__":
    main()
