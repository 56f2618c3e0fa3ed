"""The common part of the adapters of httpx and httpx2, whose interfaces are the same.

Their pools keep 20 connections, which is their default. httpx's cost of a request grows with the
square of that number: with 64 it is more than three times as high, although fewer connections are
opened again. httpx2 gains nothing from 64, and loses much with 1,000.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, ClassVar

from clients import BLOCK, AsyncClient, WrongReply

IDENTITY = {"Accept-Encoding": "identity"}
KEPT = 20
JSON = {"Content-Type": "application/json"}


class HttpxClient(AsyncClient):
    """One ``AsyncClient``: no limit to its connections, no timeouts, no ``trust_env``."""

    CANNOT: ClassVar[dict[str, str]] = {
        "readinto": "its responses have no readinto()",
        "pipelined": "it never has two requests on a connection",
        "idle": "10,000 requests at once, which fill its pool, are not done in a minute",
    }
    LIMIT = "`Limits(max_connections=20)`"
    DEFAULT = 100
    library: ClassVar[ModuleType]

    async def open(self) -> None:
        library: Any = self.library
        closing = self.job.action == "connect"
        self.client = library.AsyncClient(
            verify=self.job.context() or True,
            headers=IDENTITY,
            trust_env=False,
            timeout=None,
            limits=library.Limits(
                max_connections=self.job.limit or None,
                max_keepalive_connections=0 if closing else KEPT,
                keepalive_expiry=None,
            ),
        )

    async def close(self) -> None:
        await self.client.aclose()

    def _body(self, response: Any) -> bytes:
        if response.status_code != 200:
            raise WrongReply(response.status_code)
        return response.content

    async def get(self, _: None) -> int:
        return len(self._body(await self.client.get(self.url)))

    async def fetch(self, url: str) -> bytes:
        return self._body(await self.client.get(url))

    async def connect(self, _: None) -> int:
        return len(await self.fetch(self.next_url()))

    def counters(self) -> dict[str, int]:
        pool = self.client._transport._pool
        busy = sum(not (each.is_idle() or each.is_closed()) for each in pool.connections)
        return {"busy": busy, "requests": len(pool._requests)}

    async def stream(self, _: None) -> int:
        size = 0
        async with self.client.stream("GET", self.url) as response:
            if response.status_code != 200:
                raise WrongReply(response.status_code)
            async for piece in response.aiter_raw():
                size += len(piece)
        return size

    async def post_json(self, _: None) -> int:
        return len(
            self._body(await self.client.post(self.url, content=self.job.document, headers=JSON))
        )

    async def upload_bytes(self, _: None) -> int:
        return int(self._body(await self.client.post(self.url, content=self.body)))

    async def upload_file(self, _: None) -> int:
        async def blocks() -> Any:
            with open(self.job.file, "rb", buffering=0) as file:
                while block := file.read(BLOCK):
                    yield block

        length = {"Content-Length": str(self.job.size)}
        return int(self._body(await self.client.post(self.url, content=blocks(), headers=length)))
