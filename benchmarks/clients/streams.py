"""asyncio's streams by hand: the least that a program without a library has to write."""

from __future__ import annotations

import asyncio
from typing import Any

from clients import BLOCK, AsyncClient, WrongReply
from clients.floor import content_length

LIMIT = 256 * 1024

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Client(AsyncClient):
    CANNOT = {"readinto": "StreamReader has no readinto()"}  # noqa: RUF012

    async def open(self) -> None:
        job = self.job
        self.context = job.context()
        self.kept: list[Pair] = []
        self.head = f"Host: {job.host}:{job.port}\r\nAccept-Encoding: identity\r\n"
        self.request = f"GET {job.path} HTTP/1.1\r\n{self.head}\r\n".encode()
        if job.action not in ("connect", "idle"):
            self.slots = [await self.make(job.host, job.port) for _ in range(job.concurrency)]

    async def make(self, host: str, port: int) -> Pair:
        # The reader buffers up to `limit` bytes before it pauses: the default costs speed.
        return await asyncio.open_connection(host, port, ssl=self.context, limit=LIMIT)

    async def close(self) -> None:
        for pair in (*self.slots, *self.kept):
            if pair is not None:
                pair[1].close()
        self.kept = []

    async def _head(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise WrongReply(repr(head[:60]))
        return head

    async def _body(self, reader: asyncio.StreamReader) -> bytes:
        head = await self._head(reader)
        if b"\r\nTransfer-Encoding: chunked" not in head:
            return await reader.readexactly(content_length(head))
        pieces = []
        while size := int(await reader.readline(), 16):
            pieces.append(await reader.readexactly(size))
            await reader.readline()
        await reader.readline()
        return b"".join(pieces)

    async def get(self, pair: Pair) -> int:
        reader, writer = pair
        writer.write(self.request)
        return len(await self._body(reader))

    async def pipelined(self, pair: Pair) -> int:
        reader, writer = pair
        writer.write(self.request * self.per_call)
        return sum([len(await self._body(reader)) for _ in range(self.per_call)])

    async def connect(self, _: None) -> int:
        pair = await self.make(*self.next_target())
        size = await self.get(pair)
        pair[1].close()
        return size

    async def stream(self, pair: Pair) -> int:
        reader, writer = pair
        writer.write(self.request)
        left = content_length(await self._head(reader))
        size = 0
        while left:
            piece = await reader.read(min(left, LIMIT))
            if not piece:
                break
            left -= len(piece)
            size += len(piece)
        return size

    def _post(self, length: int, more: str = "") -> bytes:
        return (
            f"POST {self.job.path} HTTP/1.1\r\n{self.head}{more}Content-Length: {length}\r\n\r\n"
        ).encode()

    async def post_json(self, pair: Pair) -> int:
        reader, writer = pair
        document = self.job.document
        head = self._post(len(document), "Content-Type: application/json\r\n")
        writer.write(head + document)
        return len(await self._body(reader))

    async def _upload(self, pair: Pair, blocks: Any) -> int:
        reader, writer = pair
        writer.write(self._post(self.job.size))
        for block in blocks:
            writer.write(block)
            await writer.drain()
        return int(await self._body(reader))

    async def upload_bytes(self, pair: Pair) -> int:
        body = memoryview(self.body)
        blocks = (body[start : start + BLOCK] for start in range(0, len(body), BLOCK))
        return await self._upload(pair, blocks)

    async def upload_file(self, pair: Pair) -> int:
        with open(self.job.file, "rb", buffering=0) as file:
            return await self._upload(pair, iter(lambda: file.read(BLOCK), b""))

    async def idle(self, count: int) -> None:
        for _ in range(count):
            pair = await self.make(self.job.host, self.job.port)
            await self.get(pair)
            self.kept.append(pair)
