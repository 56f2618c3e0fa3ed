"""Many requests to real servers: pipelined, and through fetch_many."""

from __future__ import annotations

import asyncio

import pytest

from aiohttpconn import Client

from .site import NUMBERED, SMALL, TEXT


def paths(origin) -> list[str]:
    """Return 1,000 paths, of which each is answered with its number."""
    if origin.has_files:
        return [f"/n/{number}.txt" for number in range(NUMBERED)]
    return [f"/app/n/{number}" for number in range(NUMBERED)]


NUMBERS = [b"%d" % number for number in range(NUMBERED)]


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_thousand_pipelined_requests(origin, certificates, scheme):
    base = getattr(origin, scheme)
    async with Client(
        trust_env=False, cafile=certificates.ca_file, pipelining=8, limit_per_host=4
    ) as client:
        responses = await asyncio.gather(*(client.get(base + path) for path in paths(origin)))
        assert [response.content for response in responses] == NUMBERS
        # All of them take pipelines; apache2 ends a connection after a hundred requests, however
        # many are on their way.
        connections = sum(not response.reused for response in responses)
        assert connections <= 4 + (NUMBERED // 100 if origin.name == "apache2" else 0)
        assert client.stats().leased == client.stats().queued == 0


async def test_all_kinds_of_responses_share_a_pipeline(file_server):
    kinds = [
        ("GET", "/small.txt", 200, SMALL),
        ("HEAD", "/text.txt", 200, b""),
        ("GET", "/missing", 404, None),
        ("GET", "/app/chunks?3", 200, b"000." * 250 + b"001." * 250 + b"002." * 250),
        ("GET", "/text.txt", 200, TEXT),
        ("HEAD", "/missing", 404, b""),
        ("GET", "/folder", 200, b"<!doctype html><p>here"),
        ("OPTIONS", "/app/n/1", 200, b"1"),
    ]
    async with Client(
        trust_env=False, base_url=file_server.http, pipelining=8, limit_per_host=2
    ) as client:
        responses = await asyncio.gather(
            *(client.request(method, path) for method, path, *_ in kinds * 25)
        )
        for response, (method, path, status, body) in zip(responses, kinds * 25, strict=True):
            assert (response.method, response.status) == (method, status), path
            assert body is None or response.content == body
        assert client.stats().leased == 0


@pytest.mark.parametrize("ordered", [False, True], ids=["as they come", "ordered"])
async def test_a_thousand_urls_are_fetched(origin, ordered):
    async with Client(trust_env=False) as client:
        urls = [origin.http + path for path in paths(origin)]
        results = client.fetch_many(urls, concurrency=32, ordered=ordered)
        found = [(result.item, result.result().content) async for result in results]
        expected = list(zip(urls, NUMBERS, strict=True))
        assert (found if ordered else sorted(found)) == (expected if ordered else sorted(expected))
        # A host that has the client for itself gets as many connections as requests are under way.
        assert client.stats().open <= 32


async def test_the_urls_of_all_servers_are_fetched_at_once(
    nginx, apache, lighttpd, haproxy, uvicorn, hypercorn
):
    origins = [nginx, apache, lighttpd, haproxy, uvicorn, hypercorn]
    urls = [f"{origin.http}/app/n/{number}" for number in range(50) for origin in origins]
    async with Client(trust_env=False, limit=10) as client:
        async for result in client.fetch_many(urls, concurrency=64):
            assert result.result().content == result.item.rpartition("/")[2].encode()
        assert client.stats().open <= 10
