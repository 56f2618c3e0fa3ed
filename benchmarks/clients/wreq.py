"""wreq (Rust): one client, no emulation of a browser, no limit to idle connections."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import wreq

from clients import BLOCK, AsyncClient, WrongReply

JSON = {"Content-Type": "application/json"}


class Client(AsyncClient):
    LIMIT = "`pool_max_size=20`, of idle ones"
    CANNOT = {  # noqa: RUF012
        "readinto": "its responses have no readinto()",
        "pipelined": "it never has two requests on a connection",
    }

    async def open(self) -> None:
        job = self.job
        options: dict[str, Any] = {}
        if job.tls:
            options["tls_verify"] = Path(job.cafile)
        if job.action == "connect":
            options["pool_max_idle_per_host"] = 0
        if job.limit:
            options["pool_max_size"] = job.limit
        self.client = wreq.Client(
            http1_only=True,
            no_proxy=True,
            gzip=False,
            brotli=False,
            deflate=False,
            zstd=False,
            pool_idle_timeout=datetime.timedelta(hours=1),
            **options,
        )

    async def close(self) -> None:
        self.client.close()

    async def _body(self, response: Any) -> memoryview:
        if response.status.as_int() != 200:
            raise WrongReply(response.status)
        return await response.bytes()

    async def get(self, _: None) -> int:
        response = await self.client.get(self.url)
        if response.status.as_int() != 200:
            raise WrongReply(response.status)
        return len(await response.bytes())

    async def fetch(self, url: str) -> bytes:
        return bytes(await self._body(await self.client.get(url)))

    async def connect(self, _: None) -> int:
        return len(await self._body(await self.client.get(self.next_url())))

    async def stream(self, _: None) -> int:
        size = 0
        async with self.client.get(self.url) as response:
            if response.status.as_int() != 200:
                raise WrongReply(response.status)
            async with response.stream() as streamer:
                async for piece in streamer:
                    size += len(piece)
        return size

    async def post_json(self, _: None) -> int:
        response = await self.client.post(self.url, body=self.job.document, headers=JSON)
        return len(await self._body(response))

    async def upload_bytes(self, _: None) -> int:
        response = await self.client.post(self.url, body=self.body)
        return int(bytes(await self._body(response)))

    async def upload_file(self, _: None) -> int:
        async def blocks() -> Any:
            with open(self.job.file, "rb", buffering=0) as file:
                while block := file.read(BLOCK):
                    yield block

        response = await self.client.post(
            self.url, body=blocks(), headers={"Content-Length": str(self.job.size)}
        )
        return int(bytes(await self._body(response)))

    async def idle(self, count: int) -> None:
        await self.idle_at_once(count)
