"""Real servers that end connections: when idle, on a reload, when they are killed."""

from __future__ import annotations

import asyncio
import hashlib
import re
import signal
import uuid
from typing import TYPE_CHECKING

import pytest

from aiohttpconn import Client, Retry
from aiohttpconn.client import download

if TYPE_CHECKING:
    from .daemons import Daemon
    from .origins import Origin

LOAD = 200
"""Requests that are under way at a time."""

KILLED = ["nginx", "apache", "lighttpd", "haproxy", "uvicorn", "hypercorn"]


def restart(daemon: Daemon) -> None:
    """Kill *daemon*, and start it again."""
    daemon.kill()
    daemon.start()


async def let(origin: Origin, name: str) -> None:
    """Let requests for /app/held of *name* be answered: what was killed may be a proxy."""
    async with Client(trust_env=False) as client:
        assert (await client.get(f"{origin.http}/app/let?{name}")).content == b"let"


async def test_idle_connections_are_given_up_when_the_server_ends_them(request, certificates):
    origins = []
    for name in KILLED:
        try:
            origins.append(request.getfixturevalue(name))
        except pytest.skip.Exception:
            continue
    async with Client(trust_env=False, cafile=certificates.ca_file, keepalive_timeout=60) as client:
        for again in range(2):
            for origin in origins:
                url = f"{origin.brief}/{'small.txt' if origin.has_files else 'app/n/1'}"
                response = await client.get(url)
                assert (response.status, response.reused) == (200, False)
                while not response.reused:  # a busy machine may meet the server's end of it
                    response = await client.get(url)
                    assert response.status == 200
            assert client.stats().idle <= len(origins)
            if again:
                break
            while client.stats().open:
                await asyncio.sleep(0.01)


class Load:
    """Requests that go on, each behind the other's back, until they are told to stop."""

    def __init__(self, client: Client, url: str) -> None:
        self.fresh = 0
        self.stopped = False
        self._client = client
        self._url = url
        self._progress = asyncio.Event()

    async def run(self, number: int) -> None:
        while not self.stopped:
            response = await self._client.get(f"{self._url}/{number}.txt")
            assert (response.status, response.content) == (200, b"%d" % number)
            self.fresh += not response.reused
            self._progress.set()

    async def wait_fresh(self, count: int) -> None:
        """Wait until *count* connections have been made."""
        while self.fresh < count:
            self._progress.clear()
            await self._progress.wait()


@pytest.mark.parametrize(
    ("name", "number"), [("nginx", signal.SIGHUP), ("haproxy", signal.SIGUSR2)]
)
@pytest.mark.parametrize("pipelining", [1, 4])
async def test_a_reload_fails_no_request(request, name, number, pipelining):
    origin = request.getfixturevalue(name)
    connections = LOAD // pipelining
    async with Client(
        trust_env=False, limit=LOAD, limit_per_host=connections, pipelining=pipelining
    ) as client:
        load = Load(client, f"{origin.http}/n")
        tasks = [asyncio.create_task(load.run(number)) for number in range(LOAD)]
        for reloads in range(3):
            # All connections there are have been made since the last reload.
            await load.wait_fresh(connections * (reloads + 1))
            if reloads < 2:
                origin.daemon.signal(number)
        load.stopped = True
        await asyncio.gather(*tasks)


@pytest.fixture(params=KILLED)
def victim(request):
    """Return each of the servers."""
    return request.getfixturevalue(request.param)


async def test_a_server_that_was_restarted_is_found_again(victim):
    async with Client(trust_env=False) as client:
        url = f"{victim.http}/app/n"
        await asyncio.gather(*(client.get(f"{url}/{number}") for number in range(20)))
        before = client.stats().idle
        assert before > 1
        restart(victim.daemon)
        # The loop has not seen yet that they are gone.
        assert client.stats().idle == before
        post = await client.post(f"{url}/x", content=b"once")
        assert (post.content, post.reused) == (b"x", False)
        answers = await asyncio.gather(*(client.get(f"{url}/{number}") for number in range(20)))
        assert [answer.content for answer in answers] == [b"%d" % number for number in range(20)]
        assert client.stats().leased == 0


@pytest.mark.parametrize("pipelining", [1, 4])
async def test_requests_that_a_killed_server_had_are_sent_again(victim, pipelining):
    async with Client(trust_env=False, limit_per_host=8, pipelining=pipelining) as client:
        await asyncio.gather(*(client.get(f"{victim.http}/app/slow?0.01") for _ in range(8)))
        connections = client.stats().idle
        assert connections == 8 if pipelining == 1 else connections > 1
        name = uuid.uuid4().hex
        url = f"{victim.http}/app/held?{name}"
        tasks = [asyncio.create_task(client.get(url)) for _ in range(8)]
        while client.stats().idle > connections - 8 // pipelining:
            await asyncio.sleep(0)
        restart(victim.daemon)
        await let(victim, name)
        responses = await asyncio.gather(*tasks)
        assert {(response.status, response.content) for response in responses} == {(200, b"late")}
        assert pipelining > 1 or not any(response.reused for response in responses)
        assert client.stats().leased == 0


async def test_a_post_that_a_killed_server_had_is_not(victim):
    async with Client(trust_env=False) as client:
        await client.get(f"{victim.http}/app/n/1")
        name = uuid.uuid4().hex
        url = f"{victim.http}/app/held?{name}"
        post = asyncio.create_task(client.post(url, content=b"once"))
        while not client.stats().leased:
            await asyncio.sleep(0)
        restart(victim.daemon)
        with pytest.raises(ConnectionError, match=rf"^POST {re.escape(url)}: "):
            await post
        assert client.stats().open == 0
    await let(victim, name)


async def test_retries_bridge_the_time_without_a_server(victim):
    sent = 0

    def count(request) -> None:
        nonlocal sent
        sent += 1

    async def send(more: int) -> None:
        until = sent + more
        while sent < until:
            await asyncio.sleep(0)

    retry = Retry(attempts=1000, backoff=0.01, max_backoff=0.02, budget=None)
    async with Client(trust_env=False, retry=retry, on_request=count) as client:
        stop = asyncio.Event()

        async def fetch(number: int) -> None:
            while not stop.is_set():
                response = await client.get(f"{victim.http}/app/n/{number}")
                assert (response.status, response.content) == (200, b"%d" % number)

        tasks = [asyncio.create_task(fetch(number)) for number in range(16)]
        await send(100)
        victim.daemon.kill()
        await send(50)
        victim.daemon.start()
        await send(100)
        stop.set()
        await asyncio.gather(*tasks)


async def test_a_download_survives_the_death_of_its_server(
    file_server, site, tmp_path, monkeypatch
):
    monkeypatch.setattr(download, "backoff", lambda retry, attempt: 0.0)
    deaths = []

    def progress(received: int, total: int | None) -> None:
        if received > 4 * 1024 * 1024 * (len(deaths) + 1) and len(deaths) < 2:
            deaths.append(received)
            restart(file_server.daemon)

    async with Client(trust_env=False) as client:
        path = tmp_path / "big.bin"
        response = await client.download(f"{file_server.http}/big.bin", path, progress=progress)
        assert (response.status, len(deaths)) == (206, 2)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == site.digest
