"""Connections to real servers: kept, reused, and given up when the server says so."""

from __future__ import annotations

import asyncio
from time import monotonic

from aiohttpconn import Client
from aiohttpconn.pool import keepalive, requests

REQUESTS = 20


async def get(client: Client, url: str) -> tuple[bytes, bool]:
    """Return the body of *url*, and whether its connection had served a request before."""
    response = await client.get(url)
    assert response.status == 200
    return response.content, response.reused


async def test_one_connection_serves_twenty_requests(origin):
    async with Client(trust_env=False, cookies=None) as client:
        for number in range(REQUESTS):
            body, reused = await get(client, f"{origin.http}/app/n/{number}")
            assert (body, reused) == (b"%d" % number, number > 0)
        stats = client.stats()
        assert (stats.open, stats.idle, stats.leased, stats.queued) == (1, 1, 0, 0)
        assert stats.origins[origin.http].idle == 1


async def test_one_connection_serves_files_and_what_is_generated(file_server):
    async with Client(trust_env=False) as client:
        for path, expected in [("/small.txt", b"hello, world"), ("/app/n/1", b"1")] * 3:
            assert (await get(client, file_server.http + path))[0] == expected
        assert client.stats().open == 1


async def test_requests_at_once_take_connections_up_to_the_limit(origin):
    async with Client(trust_env=False, limit_per_host=4) as client:
        urls = [f"{origin.http}/app/n/{number}" for number in range(40)]
        answers = await asyncio.gather(*(get(client, url) for url in urls))
        assert [body for body, _ in answers] == [b"%d" % number for number in range(40)]
        assert sum(not reused for _, reused in answers) == client.stats().open == 4


async def test_apache_says_how_many_requests_it_takes(apache):
    async with Client(trust_env=False, resend_stale=False) as client:
        responses = [
            await client.post(f"{apache.http}/app/echo", content=b"once") for _ in range(205)
        ]
    assert {response.status for response in responses} == {200}
    fresh = [n for n, response in enumerate(responses) if not response.reused]
    assert fresh == [0, 101, 202]
    hints = [response.headers["Keep-Alive"] for response in responses[:102]]
    ends = [None, "timeout=60, max=100"]
    assert hints == [*(f"timeout=60, max={n}" for n in range(100, 0, -1)), *ends]


async def test_apache_says_how_long_it_waits(apache, monkeypatch):
    ahead = 0.0
    for module in keepalive, requests:
        monkeypatch.setattr(module, "monotonic", lambda: monotonic() + ahead)
    async with Client(trust_env=False, keepalive_timeout=1000) as client:
        response = await client.get(f"{apache.http}/small.txt")
        assert response.headers["Keep-Alive"] == "timeout=60, max=100"
        for idle, expected in (58.5, True), (58.5, True), (59.5, False):
            ahead = idle
            _, reused = await get(client, f"{apache.http}/small.txt")
            assert reused is expected
