"""aiosonic: one client, a pool as large as needed, connections that are never recycled."""

from __future__ import annotations

import aiosonic
from aiosonic.connectors import TCPConnector
from aiosonic.pools import PoolConfig
from aiosonic.timeout import Timeouts

from clients import AsyncClient, WrongReply

JSON = {"Content-Type": "application/json"}
CLOSING = {"Connection": "close"}


class Client(AsyncClient):
    LIMIT = "`PoolConfig(size=20)`"
    CANNOT = {  # noqa: RUF012
        "readinto": "its responses have no readinto()",
        "pipelined": "it never has two requests on a connection",
        "upload_file": "it does not wait for the socket: the whole file would be in memory",
    }

    async def open(self) -> None:
        size = self.job.limit or self.job.concurrency
        pool = PoolConfig(size=size, max_conn_requests=None, max_conn_idle_ms=None)
        self.connector = TCPConnector(
            {":default": pool},
            timeouts=Timeouts(
                sock_connect=None, sock_read=None, pool_acquire=None, request_timeout=None
            ),
        )
        self.context = self.job.context()
        self.client = aiosonic.HTTPClient(self.connector)

    async def close(self) -> None:
        await self.client.aclose()

    async def get(self, _: None) -> int:
        response = await self.client.get(self.url, ssl=self.context)
        if response.status_code != 200:
            raise WrongReply(response.status_code)
        return len(await response.content())

    async def fetch(self, url: str) -> bytes:
        response = await self.client.get(url, ssl=self.context)
        if response.status_code != 200:
            raise WrongReply(response.status_code)
        return await response.content()

    def counters(self) -> dict[str, int]:
        pool = self.connector.pools[":default"]
        return {"taken": pool.pool_size - pool.free_conns()}

    async def connect(self, _: None) -> int:
        response = await self.client.get(self.next_url(), headers=CLOSING, ssl=self.context)
        if response.status_code != 200:
            raise WrongReply(response.status_code)
        return len(await response.content())

    async def stream(self, _: None) -> int:
        size = 0
        async with self.client.stream("GET", self.url, ssl=self.context) as response:
            if response.status_code != 200:
                raise WrongReply(response.status_code)
            async for piece in response.read_chunks():
                size += len(piece)
        return size

    async def _post(self, body: bytes, headers: dict[str, str] | None) -> bytes:
        response = await self.client.post(self.url, body, headers=headers, ssl=self.context)
        if response.status_code != 200:
            raise WrongReply(response.status_code)
        return await response.content()

    async def post_json(self, _: None) -> int:
        return len(await self._post(self.job.document, JSON))

    async def upload_bytes(self, _: None) -> int:
        return int(await self._post(self.body, None))

    async def idle(self, count: int) -> None:
        await self.idle_at_once(count)
