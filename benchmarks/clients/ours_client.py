"""aiohttpconn's Client: one for all requests, everything at its default except the limits.

It does more than the other clients here: it keeps cookies, follows redirects, asks for codings that
it can decode, and has timeouts.
"""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

import aiohttpconn
from clients import AsyncClient, WrongReply

JSON = {"Content-Type": "application/json"}


class Client(AsyncClient):
    CANNOT = {"readinto": "its responses have no readinto(): those of HTTPConnection have"}  # noqa: RUF012
    # With pipelining, requests of different tasks share connections.
    one_by_one = True
    LIMIT = "`limit=20`"
    DEFAULT = 114

    async def open(self) -> None:
        job = self.job
        options: dict[str, Any] = {
            # Longer than a client waits for its turn here.
            "keepalive_timeout": 3600,
            "context": job.context(),
            "pipelining": job.depth,
            # Requests per connection: every request of "connect" has a new one.
            "max_requests": 1 if job.action == "connect" else None,
        }
        options |= job.options
        self.crowd = options.pop("crowd", job.crowd)
        if job.limit:
            options["limit"] = job.limit
        else:
            options["limit"] = None
            options["limit_per_host"] = max(
                job.concurrency, -(-self.crowd // len(job.targets)) if job.targets else 0
            )
        self.client = aiohttpconn.Client(**options)
        self.measured: dict[str, float] = {}
        if job.action in ("open_hot", "open_spread"):
            await self._open_crowd()

    async def close(self) -> None:
        await self.client.close()

    def counters(self) -> dict[str, int]:
        stats = self.client.stats()
        return {"leased": stats.leased, "queued": stats.queued}

    def statistics(self) -> dict[str, Any]:
        return self.measured

    async def get(self, _: None) -> int:
        response = await self.client.get(self.url)
        if response.status != 200:
            raise WrongReply(response.status)
        return len(response.content)

    pipelined = open_hot = get

    async def fetch(self, url: str) -> bytes:
        response = await self.client.get(url)
        if response.status != 200:
            raise WrongReply(response.status)
        return response.content

    async def connect(self, _: None) -> int:
        return len(await self.fetch(self.next_url()))

    open_spread = connect

    async def stream(self, _: None) -> int:
        size = 0
        async with self.client.stream("GET", self.url) as response:
            if response.status != 200:
                raise WrongReply(response.status)
            async for piece in response.iter_bytes():
                size += len(piece)
        return size

    async def _post(self, body: Any, headers: dict[str, str] | None = None) -> bytes:
        response = await self.client.post(self.url, content=body, headers=headers)
        if response.status != 200:
            raise WrongReply(response.status)
        return response.content

    async def post_json(self, _: None) -> int:
        return len(await self._post(self.job.document, JSON))

    async def upload_bytes(self, _: None) -> int:
        return int(await self._post(self.body))

    async def upload_file(self, _: None) -> int:
        with open(self.job.file, "rb") as file:
            return int(await self._post(file))

    async def idle(self, count: int) -> None:
        await self.idle_at_once(count)

    # ------------------------------------------------------------- among many others

    async def _open_crowd(self) -> None:
        """Open ``crowd`` connections; a small crowd is opened as the action will use it."""
        urls = self.job.urls
        self.url = urls[0]
        if self.job.action == "open_hot" and self.crowd <= self.job.concurrency:
            urls = urls[:1]
        holding = [url.removesuffix(self.job.path) + f"/hold/{self.crowd}" for url in urls]
        await asyncio.gather(
            *[self.fetch(holding[number % len(holding)]) for number in range(self.crowd)]
        )
        opened = self.client.stats().open
        assert opened == self.crowd, f"{opened} connections are open, not {self.crowd}"

    async def queued(self, _: None) -> int:
        """Show that the action is possible; run() does not call this."""
        raise NotImplementedError

    async def run(self, count: int) -> int:
        if self.job.action != "queued":
            return await super().run(count)
        return await self._run_queued(count)

    async def _run_queued(self, count: int) -> int:
        """Measure *count* requests while ``crowd`` others wait: a served caller waits again.

        The garbage collector is off meanwhile. It takes half a second to look through 100,000
        tasks, however they wait, and it is chance whether that happens within one round.
        """
        leases = [self.client.pool.connection(self.url) for _ in range(self.job.concurrency)]
        for lease in leases:
            await lease.__aenter__()
        served = asyncio.Event()
        left = count

        async def work() -> None:
            nonlocal left
            while True:
                await self.get(None)
                left -= 1
                if not left:
                    served.set()

        tasks = [asyncio.ensure_future(work()) for _ in range(self.crowd)]
        while (queued := self.client.stats().queued) < self.crowd:
            assert not served.is_set(), f"{queued} requests wait, not {self.crowd}"
            await asyncio.sleep(0)
        gc.collect()
        gc.disable()
        wall, cpu = time.perf_counter(), time.process_time()
        for lease in leases:
            await lease.__aexit__()
        await served.wait()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        gc.enable()
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(result, asyncio.CancelledError):
                raise result
        self.measured = {"cpu": cpu, "wall": wall}
        return count
