"""Mistakes that type checkers have to report: ``make types`` runs mypy and pyright over them.

Each line with a mistake ignores the error that is expected there. An ignored error that does not
come is an error itself.
"""

from __future__ import annotations

from typing import Unpack

import aiohttpconn
from aiohttpconn import (
    Auth,
    Client,
    ConnectionPool,
    HTTPConnection,
    HTTPSConnection,
    Limits,
    Request,
    RequestOptions,
    Response,
    Retry,
    Timeout,
)


def constructors() -> None:
    HTTPSConnection("h", blocksize="x")  # type: ignore[arg-type]
    HTTPSConnection("h", blocksiez=1)  # type: ignore[call-arg]
    HTTPConnection("h", timeout="5")  # type: ignore[arg-type]
    Client(limits=5)  # type: ignore[arg-type]
    Client(limit="5")  # type: ignore[arg-type]
    Client(verify=False)  # type: ignore[call-arg]
    Client(resolver=3)  # type: ignore[arg-type]
    Client(context=False)  # type: ignore[arg-type]
    Client(follow_redirects="yes")  # type: ignore[arg-type]
    ConnectionPool(high_water="x")  # type: ignore[arg-type]
    ConnectionPool(proxies={})  # type: ignore[call-arg]
    Timeout(read="5")  # type: ignore[arg-type]
    Limits(max_fields="5")  # type: ignore[arg-type]
    Retry(attempts="5")  # type: ignore[arg-type]
    Response("200")  # type: ignore[arg-type]
    Response(200, content="text")  # type: ignore[arg-type]


async def options(client: Client) -> None:
    await client.get("/", allow_redirects=False)  # type: ignore[call-arg]
    await client.get("/", timeout="5")  # type: ignore[arg-type]
    await client.get("/", cookies=[("a", "b")])  # type: ignore[arg-type]
    await client.get("/", follow_redirects=None)  # type: ignore[arg-type]
    await client.get("/", auth="user:password")  # type: ignore[arg-type]
    await aiohttpconn.get("/", proxies={})  # type: ignore[call-arg]
    client.stream("GET", "/", max_body="1")  # type: ignore[arg-type]
    client.fetch_many(5)  # type: ignore[arg-type]
    async with client.get("/"):  # type: ignore[attr-defined]
        pass


async def responses(client: Client) -> None:
    response = await client.get("/")
    print(response.status_code)  # type: ignore[attr-defined]
    print(response.text())  # type: ignore[operator]
    async for result in client.fetch_many([]):
        print(result.response.content)  # type: ignore[union-attr]


def settings(client: Client) -> None:
    client.timeout = "5"  # type: ignore[assignment]
    client.follow_redirects = None  # type: ignore[assignment]
    client.verify = False  # type: ignore[attr-defined]


async def wrapper(client: Client, **options: Unpack[RequestOptions]) -> None:
    options["tiemout"] = 5  # type: ignore[typeddict-unknown-key]
    await client.get("/", **options)


class Wrong(Auth):
    """An ``Auth`` with another signature."""

    def authorize(self, request: Request, more: int) -> None:  # type: ignore[override]
        pass


async def call(client: Client) -> None:
    await wrapper(client, timeout=5)
    await wrapper(client, time=5)  # type: ignore[call-arg]
