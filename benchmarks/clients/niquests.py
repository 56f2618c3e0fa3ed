"""niquests: one asynchronous session, HTTP/1.1 only, no revocation checks, no cookies."""

from __future__ import annotations

from typing import Any

import niquests
from niquests.adapters import AsyncHTTPAdapter

from clients import AsyncClient, WrongReply

IDENTITY = {"Accept-Encoding": "identity"}
CLOSING = IDENTITY | {"Connection": "close"}
JSON = IDENTITY | {"Content-Type": "application/json"}


class Client(AsyncClient):
    LIMIT = "`pool_maxsize=20, pool_block=True`, of each host"
    CANNOT = {  # noqa: RUF012
        "readinto": "its responses have no readinto()",
        "pipelined": "it never has two requests on a connection",
        "idle": "10,000 requests at once, which fill its pool, are not done within a minute",
    }

    async def open(self) -> None:
        job = self.job
        self.session = niquests.AsyncSession(
            disable_http2=True,
            disable_http3=True,
            disable_ipv6=True,
            pool_connections=max(10, len(job.targets)),
            pool_maxsize=job.concurrency,
            headers=IDENTITY,
            verify=job.cafile or True,
            revocation_configuration=None,
            allow_incoming_cookies=False,
        )
        self.session.trust_env = False
        if job.limit:
            adapter = AsyncHTTPAdapter(
                pool_maxsize=job.limit,
                pool_block=True,
                disable_http2=True,
                disable_http3=True,
                disable_ipv6=True,
            )
            self.session.mount("http://", adapter)

    async def close(self) -> None:
        await self.session.close()

    async def _body(self, response: Any) -> bytes:
        if response.status_code != 200:
            raise WrongReply(response.status_code)
        return response.content or b""

    async def get(self, _: None) -> int:
        return len(await self._body(await self.session.get(self.url, allow_redirects=False)))

    async def fetch(self, url: str) -> bytes:
        return await self._body(await self.session.get(url, allow_redirects=False))

    async def connect(self, _: None) -> int:
        response = await self.session.get(self.next_url(), headers=CLOSING, allow_redirects=False)
        return len(await self._body(response))

    async def stream(self, _: None) -> int:
        response = await self.session.get(self.url, stream=True, allow_redirects=False)
        if response.status_code != 200:
            raise WrongReply(response.status_code)
        size = 0
        async for piece in await response.iter_content():
            size += len(piece)
        await response.close()
        return size

    async def post_json(self, _: None) -> int:
        return len(
            await self._body(
                await self.session.post(self.url, data=self.job.document, headers=JSON)
            )
        )

    async def upload_bytes(self, _: None) -> int:
        return int(await self._body(await self.session.post(self.url, data=self.body)))

    async def upload_file(self, _: None) -> int:
        with open(self.job.file, "rb") as file:
            return int(await self._body(await self.session.post(self.url, data=file)))
