"""The loads: each makes requests until a time, and counts them in a ``Tally``.

``LOADS`` has them by name. Each takes a ``Site``: the server's URLs, the client, and the tally.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttpconn import Client, HTTPException, protocol

from .servers import FILES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
    from pathlib import Path

__all__ = ["LOADS", "Site", "Tally"]

DOCUMENTED = (HTTPException, OSError)
"""Every error of a request is one of these: a ``RequestTimeout`` is an ``OSError``, too."""

GATEWAY_ERRORS = (502, 503, 504)
"""Statuses with which a server says that one behind it did not answer."""

CONCURRENCY = 40
"""Requests of a load that are under way at a time."""


class Unavailable(Exception):
    """A gateway's error, which is the request's own response: it has failed, and is not lost."""


@dataclass
class Tally:
    """The requests of an experiment: each is served, has failed, or is lost."""

    made: int = 0
    served: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    sent: int = 0

    @property
    def lost(self) -> int:
        """Requests that got a wrong response, or neither a response nor an error."""
        return self.made - self.served - sum(self.failed.values())

    async def count(self, what: str, is_right: Awaitable[bool]) -> None:
        """Count one request: *is_right* makes it, and says whether its response is its own."""
        self.made += 1
        try:
            right = await is_right
        except Unavailable as exc:
            self.failed[f"{exc} responses"] += 1
            return
        except DOCUMENTED as exc:
            self.failed[type(exc).__name__] += 1
            return
        if right:
            self.served += 1
        else:
            self.wrong.append(what)


@dataclass
class Site:
    """A server's URL, a client of it, and the folder for what is downloaded."""

    url: str
    client: Client
    tally: Tally
    folder: Path
    until: float

    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(random.randrange(10**9)))

    def next_id(self) -> str:
        return f"r{next(self._ids)}"

    def goes_on(self) -> bool:
        return time.monotonic() < self.until

    async def at_once(self, one: Any, count: int = CONCURRENCY) -> None:
        """Let *count* tasks call and await ``one(self, id)``, each again and again."""

        async def worker() -> None:
            while self.goes_on():
                name = self.next_id()
                await self.tally.count(name, one(self, name))

        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(worker())


async def gets(site: Site) -> None:
    """GET, and the id back."""
    await site.at_once(_get)


async def _get(site: Site, name: str) -> bool:
    response = await site.client.get(f"{site.url}/id/{name}", headers={"X-Id": name})
    return _is_own(response, name) and response.text == f"/id/{name} "


def _is_own(response: Any, name: str, right: Sequence[int] = (200,)) -> bool:
    """Whether *response* is that of request *name*; raise ``Unavailable`` for a gateway's error."""
    given = response.headers.get("X-Id")
    if response.status in GATEWAY_ERRORS and given in (None, name):
        raise Unavailable(response.status)
    return response.status in right and given == name


async def uploads(site: Site) -> None:
    """POST of bodies in memory and of streams, and PUT of what GET has to give back."""
    await site.at_once(_upload, 16)


async def _upload(site: Site, name: str) -> bool:
    client, headers = site.client, {"X-Id": name}
    body = name.encode() * random.choice([1, 100, 30_000])
    kind = random.randrange(3)
    if kind == 0:
        response = await client.post(f"{site.url}/up/{name}", content=body, headers=headers)
    elif kind == 1:
        parts = _parts(body)
        response = await client.post(f"{site.url}/up/{name}", content=parts, headers=headers)
    else:
        url = f"{site.url}/dav/{name}"
        response = await client.put(url, content=body, headers=headers)
        if not _is_own(response, name, right=(201, 204)):
            return False
        await site.tally.count(f"GET of {name}", _is_stored(site, url, name, body))
        await site.tally.count(f"DELETE of {name}", _is_deleted(site, url))
        return True
    return _is_own(response, name) and response.text == f"/id/{name} {len(body)}"


async def _is_stored(site: Site, url: str, name: str, body: bytes) -> bool:
    stored = await site.client.get(url, headers={"X-Id": name})
    return _is_own(stored, name) and stored.content == body


async def _is_deleted(site: Site, url: str) -> bool:
    # 404, where it is sent again: its connection broke when it was done.
    return (await site.client.delete(url)).status in (204, 404)


async def _parts(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 10_000):
        yield body[at : at + 10_000]
        await asyncio.sleep(0)


async def downloads(site: Site) -> None:
    """Files to disk, and to memory."""
    await site.at_once(_download, 8)


async def _download(site: Site, name: str) -> bool:
    which = random.choice(list(FILES))
    url, headers = f"{site.url}/files/{which}", {"X-Id": name}
    if random.random() < 0.5:
        response = await site.client.get(url, headers=headers)
        return _is_own(response, name) and response.content == FILES[which]
    path = site.folder / name
    try:
        response = await site.client.download(url, path, headers=headers)
        # The response is the last of those that made the file: a 206 where it was continued.
        right = response.headers.get("X-Id") == name and path.read_bytes() == FILES[which]
    finally:
        for left in site.folder.glob(f"{name}*"):
            left.unlink()
    return right


async def many(site: Site) -> None:
    """fetch_many."""
    while site.goes_on():
        names = [site.next_id() for _ in range(200)]
        items = [("GET", f"{site.url}/id/{name}", {"headers": {"X-Id": name}}) for name in names]
        ended: list[str] = []
        async for fetched in site.client.fetch_many(items, concurrency=CONCURRENCY):
            name = fetched.item[2]["headers"]["X-Id"]
            ended.append(name)
            await site.tally.count(name, _fetched(fetched, name))
        if sorted(ended) != sorted(names):
            site.tally.made += 1
            site.tally.wrong.append(f"{len(names)} items have {len(ended)} results")


async def _fetched(fetched: Any, name: str) -> bool:
    response = fetched.result()
    return _is_own(response, name) and response.text == f"/id/{name} "


async def pool(site: Site) -> None:
    """The pool by itself, and leases of its connections."""
    await site.at_once(_of_pool)


async def _of_pool(site: Site, name: str) -> bool:
    pool, headers = site.client.pool, {"X-Id": name}
    if random.random() < 0.7:
        response = await pool.request("GET", f"{site.url}/id/{name}", headers=headers)
        body = await response.read()
    else:
        async with pool.connection(site.url) as conn:
            await conn.request("GET", f"/id/{name}", headers=headers)
            response = await conn.getresponse()
            body = await response.read()
    return _is_own(response, name) and body == f"/id/{name} ".encode()


LOADS = {each.__name__: each for each in (gets, uploads, downloads, many, pool)}


def count_sent(tally: Tally) -> Any:
    """Count the requests that go out, however often; return what ends it."""
    start = protocol.HTTP1Protocol.start

    def counted(self: Any, *arguments: Any) -> Any:
        tally.sent += 1
        return start(self, *arguments)

    protocol.HTTP1Protocol.start = counted  # type: ignore[method-assign]

    def end() -> None:
        protocol.HTTP1Protocol.start = start  # type: ignore[method-assign]

    return end
