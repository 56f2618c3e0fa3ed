"""The floor: a bare ``asyncio.BufferedProtocol`` that writes fixed bytes and counts the reply's.

It does no HTTP at all, so that it shows the cost of the event loop, the kernel and, over TLS, the
ssl module. It measures one reply before it begins; after that it only counts bytes. At the end of
each run it checks the first bytes of the last reply, and that no byte is missing or left over.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from clients import BLOCK, AsyncClient, Job, WrongReply

BUFFER = 256 * 1024
OK = b"HTTP/1.1 200 "


class Bare(asyncio.BufferedProtocol):
    """Count the bytes of a reply into one buffer that all connections share."""

    scratch = memoryview(bytearray(BUFFER))

    def __init__(self) -> None:
        self.waiter: asyncio.Future[None] | None = None
        self.missing = 0
        self.writable: asyncio.Future[None] | None = None
        self.lost = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.loop = asyncio.get_running_loop()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.scratch

    def buffer_updated(self, nbytes: int) -> None:
        self.missing -= nbytes
        if self.missing <= 0 and self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        for waiter in (self.waiter, self.writable):
            if waiter is not None and not waiter.done():
                waiter.set_exception(exc or ConnectionResetError("closed by the server"))

    async def exchange(self, request: bytes, size: int) -> None:
        self.missing += size
        self.waiter = self.loop.create_future()
        self.transport.write(request)
        await self.waiter

    # For uploads

    def pause_writing(self) -> None:
        self.writable = self.loop.create_future()

    def resume_writing(self) -> None:
        if self.writable is not None and not self.writable.done():
            self.writable.set_result(None)
        self.writable = None


class Answered(Bare):
    """Keep a small reply, the answer to an upload, and return its body."""

    def __init__(self) -> None:
        super().__init__()
        self.reply = b""

    def buffer_updated(self, nbytes: int) -> None:
        self.reply += self.scratch[:nbytes]
        if self.waiter is not None and self.is_whole() and not self.waiter.done():
            self.waiter.set_result(None)

    def is_whole(self) -> bool:
        head, end, body = self.reply.partition(b"\r\n\r\n")
        return bool(end) and len(body) >= content_length(head)

    def begin(self) -> None:
        self.reply = b""
        self.waiter = self.loop.create_future()

    async def answer(self) -> int:
        assert self.waiter is not None
        await self.waiter
        if not self.reply.startswith(OK):
            raise WrongReply(repr(self.reply[:60]))
        return int(self.reply.partition(b"\r\n\r\n")[2])


def content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise WrongReply(f"no Content-Length: {head[:60]!r}")


def measure_reply(job: Job, request: bytes) -> int:
    """Ask once, over a separate socket; return the bytes of a reply, its head included."""
    sock = socket.create_connection((job.host, job.port), 10)
    context = job.context()
    if context is not None:
        sock = context.wrap_socket(sock, server_hostname=job.host)
    with sock:
        sock.sendall(request)
        got = b""
        while b"\r\n\r\n" not in got:
            got += _some(sock)
        head, _, body = got.partition(b"\r\n\r\n")
        if not head.startswith(OK):
            raise WrongReply(repr(head[:60]))
        if b"\r\nTransfer-Encoding: chunked" not in head:
            if content_length(head) != job.size:
                raise WrongReply(f"{content_length(head)} bytes, not {job.size}")
            return len(head) + 4 + job.size
        while not body.endswith(b"\r\n0\r\n\r\n"):
            body += _some(sock)
        return len(head) + 4 + len(body)


def _some(sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    if not data:
        raise WrongReply("the server closed the connection")
    return data


class Client(AsyncClient):
    protocol: type[Bare] = Bare

    async def open(self) -> None:
        job = self.job
        self.context = job.context()
        self.reply = 0
        if job.action in ("upload_bytes", "upload_file"):
            fields = f"Content-Length: {job.size}\r\n"
            self.request = self._head("POST", fields)
        elif job.action == "post_json":
            fields = f"Content-Type: application/json\r\nContent-Length: {len(job.document)}\r\n"
            self.request = self._head("POST", fields) + job.document
            self.reply = measure_reply(job, self.request)
        else:
            self.request = self._head("GET", "")
            self.reply = measure_reply(job, self.request)
        if job.action not in ("connect", "idle"):
            self.slots = [await self.connect_one(job.host, job.port) for _ in self.slots]
        else:
            self.slots = [None] * job.concurrency
            self.kept: list[Bare] = []

    def _head(self, method: str, fields: str) -> bytes:
        job = self.job
        return (
            f"{method} {job.path} HTTP/1.1\r\nHost: {job.host}:{job.port}\r\n"
            f"Accept-Encoding: identity\r\n{fields}\r\n"
        ).encode()

    async def connect_one(self, host: str, port: int) -> Bare:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(
            Answered if self.job.action.startswith("upload") else self.protocol,
            host,
            port,
            ssl=self.context,
        )
        return protocol

    async def close(self) -> None:
        for bare in (*self.slots, *getattr(self, "kept", ())):
            if bare is not None:
                bare.transport.abort()
        self.kept = []
        await asyncio.sleep(0.01)

    async def get(self, bare: Bare) -> int:
        await bare.exchange(self.request, self.reply)
        return self.job.size

    async def pipelined(self, bare: Bare) -> int:
        depth = self.per_call
        await bare.exchange(self.request * depth, self.reply * depth)
        return self.job.size * depth

    stream = readinto = get

    async def post_json(self, bare: Bare) -> int:
        await bare.exchange(self.request, self.reply)
        return self.job.size

    async def connect(self, _: None) -> int:
        bare = await self.connect_one(*self.next_target())
        await bare.exchange(self.request, self.reply)
        bare.transport.close()
        return self.job.size

    async def idle(self, count: int) -> None:
        for _ in range(count):
            bare = await self.connect_one(self.job.host, self.job.port)
            await bare.exchange(self.request, self.reply)
            self.kept.append(bare)

    async def upload_bytes(self, bare: Answered) -> int:
        bare.begin()
        write = bare.transport.write
        write(self.request)
        body = memoryview(self.body)
        for start in range(0, len(body), BLOCK):
            write(body[start : start + BLOCK])
            if bare.writable is not None:
                await bare.writable
        return await bare.answer()

    async def upload_file(self, bare: Answered) -> int:
        bare.begin()
        write = bare.transport.write
        write(self.request)
        with open(self.job.file, "rb", buffering=0) as file:
            while block := file.read(BLOCK):
                write(block)
                if bare.writable is not None:
                    await bare.writable
        return await bare.answer()

    def check(self) -> None:
        for bare in self.slots:
            if bare is not None and bare.missing != 0:
                raise WrongReply(f"{-bare.missing} bytes more than a reply has")
        # Check the last read. If a body is longer than the buffer, the head is long gone.
        if self.reply and self.reply < BUFFER and self.job.action in ("get", "pipelined"):
            start = bytes(Bare.scratch[: len(OK)])
            if not self.job.tls and self.reply < 8192 and start != OK:
                raise WrongReply(repr(start))
