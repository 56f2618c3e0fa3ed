"""aiohttpconn: one ``HTTPConnection`` for each slot."""

from __future__ import annotations

from typing import Any

from aiohttpconn import HTTPConnection, HTTPSConnection
from clients import AsyncClient, WrongReply

JSON = {"Content-Type": "application/json"}


class Client(AsyncClient):
    CANNOT = {"pipelined": "the pool does: a connection has one request on its way"}  # noqa: RUF012

    async def open(self) -> None:
        job = self.job
        self.context = job.context()
        self.kept: list[HTTPConnection] = []
        self.buffer = bytearray(256 * 1024)
        if job.action not in ("connect", "idle"):
            self.slots = [self.make(job.host, job.port) for _ in range(job.concurrency)]
            for connection in self.slots:
                await connection.connect()

    def make(self, host: str, port: int) -> HTTPConnection:
        if self.context is None:
            return HTTPConnection(host, port)
        return HTTPSConnection(host, port, context=self.context, **self.job.options)

    async def close(self) -> None:
        for connection in (*self.slots, *self.kept):
            if connection is not None:
                connection.close()
        self.kept = []

    async def _get(self, connection: HTTPConnection) -> Any:
        await connection.request("GET", self.job.path)
        response = await connection.getresponse()
        if response.status != 200:
            raise WrongReply(response.status)
        return response

    async def get(self, connection: HTTPConnection) -> int:
        await connection.request("GET", self.job.path)
        response = await connection.getresponse()
        if response.status != 200:
            raise WrongReply(response.status)
        return len(await response.read())

    async def connect(self, _: None) -> int:
        connection = self.make(*self.next_target())
        size = await self.get(connection)
        connection.close()
        return size

    async def stream(self, connection: HTTPConnection) -> int:
        response = await self._get(connection)
        size = 0
        async for piece in response.iter_bytes():
            size += len(piece)
        return size

    async def readinto(self, connection: HTTPConnection) -> int:
        response = await self._get(connection)
        size, buffer = 0, self.buffer
        while count := await response.readinto(buffer):
            size += count
        return size

    async def post_json(self, connection: HTTPConnection) -> int:
        await connection.request("POST", self.job.path, self.job.document, JSON)
        response = await connection.getresponse()
        if response.status != 200:
            raise WrongReply(response.status)
        return len(await response.read())

    async def _upload(self, connection: HTTPConnection, body: Any) -> int:
        await connection.request("POST", self.job.path, body)
        response = await connection.getresponse()
        if response.status != 200:
            raise WrongReply(response.status)
        return int(await response.read())

    async def upload_bytes(self, connection: HTTPConnection) -> int:
        return await self._upload(connection, self.body)

    async def upload_file(self, connection: HTTPConnection) -> int:
        with open(self.job.file, "rb") as file:
            return await self._upload(connection, file)

    async def idle(self, count: int) -> None:
        for _ in range(count):
            connection = self.make(self.job.host, self.job.port)
            await self.get(connection)
            self.kept.append(connection)
