"""Programs that type checkers have to accept: ``make types`` runs mypy and pyright over them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable
from decimal import Decimal
from http.client import HTTPMessage
from typing import Any, Unpack, assert_type

import aiohttpconn
from aiohttpconn import (
    Auth,
    Client,
    ConnectionPool,
    Fetched,
    Fields,
    HTTPConnection,
    HTTPResponse,
    HTTPSConnection,
    Limits,
    Request,
    RequestOptions,
    Resolver,
    Response,
    Retry,
    StatusError,
    Timeout,
)


async def the_loop_of_the_readme() -> None:
    urls = (f"https://www.example.com/pages/{number}" for number in range(500))
    size = 0
    async with aiohttpconn.Client() as client:
        async for result in client.fetch_many(urls, concurrency=50):
            if result.error is not None:
                print(result.item, result.error)
            else:
                size += len(result.response.content)
        print(size, "bytes over", client.stats().open, "connections")


async def other_ways_with_results(client: Client) -> list[bytes]:
    async def items() -> AsyncIterator[tuple[str, str, RequestOptions]]:
        yield "POST", "https://example.org/", {"json": {"a": 1}, "timeout": 5}

    results: list[Fetched] = [result async for result in client.fetch_many(items(), ordered=True)]
    for result in results:
        if result.response is None:
            assert_type(result.error, Exception)
        else:
            assert_type(result.error, None)
            assert_type(result.response, Response)
    item, response, error = results[0]
    print(item, response, error)
    return [result.result().content for result in results]


class Signed(Auth):
    """An ``Auth`` that is asked for each request."""

    requires_body = True

    def __init__(self, key: str) -> None:
        self.key = key

    def authorize(self, request: Request) -> None:
        request.headers["X-Signature"] = f"{self.key} {request.method} {len(request.headers)}"

    def challenged(self, request: Request, response: Response) -> bool:
        return response.status == 401


class Refreshed(Auth):
    """An ``Auth`` that awaits."""

    token = ""

    async def authorize(self, request: Request) -> None:
        request.headers["Authorization"] = f"Bearer {self.token}"

    async def challenged(self, request: Request, response: Response) -> bool:
        return "invalid_token" in response.headers.get("WWW-Authenticate", "")


async def wrapper(client: Client, path: str, **options: Unpack[RequestOptions]) -> Response:
    """A function of a program that passes options on, and adds its own."""
    options.setdefault("timeout", 5)
    options["follow_redirects"] = False
    return await client.get(f"https://example.org{path}", **options)


async def bodies_and_options(client: Client, context: ssl.SSLContext) -> Any:
    await wrapper(client, "/", headers={"X-A": "1"}, json=[1], auth=("user", "password"))
    await client.get("/", cookies={"session": 5, "name": "value"}, params={"a": [1, "b"], "c": 1.5})
    await client.post("/", data={"a": "1"}, files={"file": b"data"}, context=context)
    await client.post("/", content=(part for part in (b"a", b"b")), headers=[("X-A", "1")])
    await client.put("/", content=b"x", timeout=Timeout(total=5), retry=Retry(attempts=2))
    await client.get("/", auth=Signed("key"), proxy="http://proxy:8080", max_body=None)
    await client.get("/", auth=lambda request: f"Bearer {request.url}", proxy=None)
    with_stream = client.stream("GET", "/", max_redirects=3)
    async with with_stream as response:
        async for piece in response.iter_bytes():
            assert_type(piece, bytes)
        async for line in response.iter_lines():
            assert_type(line, str)
    await client.download("https://example.org/file", "file", progress=lambda done, all: None)
    return (await client.get("/")).raise_for_status().json()


async def hooked(response: Response) -> None:
    print(response.request.method, response.request.headers["Host"], response.attempts)


def clients(context: ssl.SSLContext) -> list[Client]:
    limits = Limits(max_fields=10)
    return [
        Client(limit=10, limit_per_host=None, context=context, limits=limits, auth=Refreshed()),
        Client(base_url="https://example.org", cookies={"a": "b"}, on_response=hooked),
        Client(resolver=Resolver(ttl=5), resume_tls=False, socket_options=[(6, 1, 1)], rate="9/s"),
        Client(proxy={"http": "http://p:1", "https": None}, retry=Retry(statuses={503})),
    ]


def settings(client: Client) -> None:
    client.headers["X-A"] = "1"
    client.headers = {"X-A": "1"}
    assert_type(client.headers, Fields)
    client.timeout = 5
    assert_type(client.timeout, Timeout)
    client.auth = ("user", "password")
    client.follow_redirects = not client.follow_redirects
    client.params = {"a": 1}
    client.retry = None


def by_hand() -> Response:
    request = Request("POST", "https://example.org/", {"X-A": "1"})
    made = Response(404, json={"a": 1}, request=request, headers=[("X-B", "2")])
    assert_type(made.headers, HTTPMessage)
    try:
        return made.raise_for_status()
    except StatusError as exc:
        print(exc.status, exc.attempts)
    return Response(200, text="hi") if made == Response(200) else Response(200, content=b"")


async def a_pool_and_a_connection(context: ssl.SSLContext) -> bytes:
    async with ConnectionPool(limit=5, timeout=5) as pool:
        response = await pool.request("GET", "https://example.org/", headers={"X-A": "1"})
        assert_type(response, HTTPResponse)
        async with pool.connection("https://example.org/") as leased:
            await leased.request("GET", "/")
    async with HTTPSConnection("example.org", context=context, timeout=5, blocksize=1) as conn:
        await conn.request("POST", "/", b"body", {"X-A": "1"})
        return await (await conn.getresponse()).read()


def requests(client: Client, conn: HTTPConnection) -> list[Awaitable[Any]]:
    return [client.get("/"), client.head("/"), conn.connect(), aiohttpconn.get("http://h/")]


def numbers(client: Client) -> Awaitable[Response]:
    return client.get("/", params=[("price", Decimal("1.5"))])
