"""curl_cffi (libcurl): one asynchronous session that impersonates no browser."""

from __future__ import annotations

from typing import Any

from curl_cffi import AsyncCurl, CurlMOpt, CurlOpt
from curl_cffi.requests import AsyncSession

from clients import AsyncClient, WrongReply

JSON = {"Content-Type": "application/json"}


class Client(AsyncClient):
    LIMIT = "`max_clients=20`"
    CANNOT = {  # noqa: RUF012
        "readinto": "its responses have no readinto()",
        "pipelined": "libcurl has dropped pipelining",
        "idle": "it makes a handle for each: their memory would not be the connections'",
        "upload_file": "it takes a body only whole, in memory",
    }

    async def open(self) -> None:
        job = self.job
        options: dict[Any, Any] = {}
        if job.action == "connect":
            options[CurlOpt.FORBID_REUSE] = 1
        if job.size >= 64 * 1024:
            options[CurlOpt.BUFFERSIZE] = 256 * 1024
            options[CurlOpt.UPLOAD_BUFFERSIZE] = 2 * 1024 * 1024
        self.multi = AsyncCurl()
        self.multi.setopt(CurlMOpt.MAXCONNECTS, job.concurrency)
        self.session = AsyncSession(
            async_curl=self.multi,
            max_clients=job.limit or job.concurrency,
            verify=job.cafile or True,
            http_version="v1",
            trust_env=False,
            allow_redirects=False,
            discard_cookies=True,
            timeout=None,
            curl_options=options,
        )

    async def close(self) -> None:
        await self.session.close()
        await self.multi.close()

    def _body(self, response: Any) -> bytes:
        if response.status_code != 200:
            raise WrongReply(response.status_code)
        return response.content

    async def get(self, _: None) -> int:
        return len(self._body(await self.session.get(self.url, accept_encoding=None)))

    async def fetch(self, url: str) -> bytes:
        return self._body(await self.session.get(url, accept_encoding=None))

    async def connect(self, _: None) -> int:
        return len(await self.fetch(self.next_url()))

    def counters(self) -> dict[str, int]:
        return {"taken": self.session.max_clients - self.session.pool.qsize()}

    async def stream(self, _: None) -> int:
        size = 0
        async with self.session.stream("GET", self.url, accept_encoding=None) as response:
            if response.status_code != 200:
                raise WrongReply(response.status_code)
            async for piece in response.aiter_content():
                size += len(piece)
        return size

    async def _post(self, body: bytes, headers: dict[str, str]) -> bytes:
        response = await self.session.post(
            self.url, data=body, headers=headers, accept_encoding=None
        )
        return self._body(response)

    async def post_json(self, _: None) -> int:
        return len(await self._post(self.job.document, JSON))

    async def upload_bytes(self, _: None) -> int:
        # Otherwise libcurl would wait for "100 Continue".
        return int(await self._post(self.body, {"Expect": ""}))
