"""aiohttp with its ``speedups``: one session, no limit to its pool, no cookies kept.

Without ``limit=0`` its pool would hold back all but 100 requests. Its documentation recommends
``DummyCookieJar`` for programs without cookies: no other client here keeps any.
"""

from __future__ import annotations

import io
from typing import Any

import aiohttp

from clients import AsyncClient, WrongReply

IDENTITY = {"Accept-Encoding": "identity"}
JSON = IDENTITY | {"Content-Type": "application/json"}


class Client(AsyncClient):
    LIMIT = "`TCPConnector(limit=20)`"
    DEFAULT = 100
    CANNOT = {  # noqa: RUF012
        "readinto": "its StreamReader has no readinto()",
        "pipelined": "it never has two requests on a connection",
    }

    async def open(self) -> None:
        closing = self.job.action == "connect"
        self.connector = aiohttp.TCPConnector(
            limit=self.job.limit,
            ssl=self.job.context() or True,
            force_close=closing,
            # Longer than a client waits for its turn here.
            **({} if closing else {"keepalive_timeout": 3600}),
        )
        self.session = aiohttp.ClientSession(
            connector=self.connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=IDENTITY,
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def close(self) -> None:
        await self.session.close()

    async def get(self, _: None) -> int:
        async with self.session.get(self.url, allow_redirects=False) as response:
            if response.status != 200:
                raise WrongReply(response.status)
            return len(await response.read())

    async def fetch(self, url: str) -> bytes:
        async with self.session.get(url, allow_redirects=False) as response:
            if response.status != 200:
                raise WrongReply(response.status)
            return await response.read()

    async def connect(self, _: None) -> int:
        return len(await self.fetch(self.next_url()))

    def counters(self) -> dict[str, int]:
        waiting = sum(map(len, self.connector._waiters.values()))
        return {"acquired": len(self.connector._acquired), "waiting": waiting}

    async def stream(self, _: None) -> int:
        size = 0
        async with self.session.get(self.url, allow_redirects=False) as response:
            if response.status != 200:
                raise WrongReply(response.status)
            async for piece in response.content.iter_any():
                size += len(piece)
        return size

    async def post_json(self, _: None) -> int:
        async with self.session.post(
            self.url, data=self.job.document, headers=JSON, allow_redirects=False
        ) as response:
            if response.status != 200:
                raise WrongReply(response.status)
            return len(await response.read())

    async def _upload(self, body: Any) -> int:
        async with self.session.post(self.url, data=body) as response:
            if response.status != 200:
                raise WrongReply(response.status)
            return int(await response.read())

    async def upload_bytes(self, _: None) -> int:
        # aiohttp would write a bytes object at once; it warns about that, and recommends this.
        return await self._upload(io.BytesIO(self.body))

    async def upload_file(self, _: None) -> int:
        with open(self.job.file, "rb") as file:
            return await self._upload(file)

    async def idle(self, count: int) -> None:
        await self.idle_at_once(count)
