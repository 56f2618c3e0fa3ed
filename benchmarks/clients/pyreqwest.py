"""pyreqwest (Rust): one client on its default runtime, no decompression, no redirects."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from pyreqwest.client import ClientBuilder

from clients import BLOCK, AsyncClient, WrongReply


class Client(AsyncClient):
    LIMIT = "`max_connections(20)`"
    CANNOT = {  # noqa: RUF012
        "readinto": "its responses have no readinto()",
        "pipelined": "it never has two requests on a connection",
    }

    async def open(self) -> None:
        job = self.job
        builder = ClientBuilder().http1_only().no_proxy().follow_redirects(False).referer(False)
        builder = builder.gzip(False).brotli(False).zstd(False).deflate(False)
        builder = builder.pool_idle_timeout(timedelta(hours=1))
        if job.tls:
            builder = builder.add_root_certificate_pem(Path(job.cafile).read_bytes())
        if job.action == "connect":
            builder = builder.pool_max_idle_per_host(0)
        if job.limit:
            builder = builder.max_connections(job.limit)
        self.client = builder.build()

    async def close(self) -> None:
        await self.client.close()

    async def _body(self, request: Any) -> Any:
        response = await request.send()
        if response.status != 200:
            raise WrongReply(response.status)
        return await response.bytes()

    async def get(self, _: None) -> int:
        response = await self.client.get(self.url).build().send()
        if response.status != 200:
            raise WrongReply(response.status)
        return len(await response.bytes())

    async def fetch(self, url: str) -> bytes:
        return bytes(await self._body(self.client.get(url).build()))

    async def connect(self, _: None) -> int:
        return len(await self._body(self.client.get(self.next_url()).build()))

    async def stream(self, _: None) -> int:
        size = 0
        async with self.client.get(self.url).build_streamed() as response:
            if response.status != 200:
                raise WrongReply(response.status)
            read = response.body_reader.read_chunk
            while (piece := await read()) is not None:
                size += len(piece)
        return size

    async def post_json(self, _: None) -> int:
        request = self.client.post(self.url).header("Content-Type", "application/json")
        return len(await self._body(request.body_bytes(self.job.document).build()))

    async def upload_bytes(self, _: None) -> int:
        request = self.client.post(self.url).body_bytes(self.body).build()
        return int(bytes(await self._body(request)))

    async def upload_file(self, _: None) -> int:
        async def blocks() -> Any:
            with open(self.job.file, "rb", buffering=0) as file:
                while block := file.read(BLOCK):
                    yield block

        request = self.client.post(self.url).header("Content-Length", str(self.job.size))
        return int(bytes(await self._body(request.body_stream(blocks()).build())))

    async def idle(self, count: int) -> None:
        await self.idle_at_once(count)
