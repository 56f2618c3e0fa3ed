"""squid and tinyproxy: whole URLs for http, CONNECT for https, credentials, refusals."""

from __future__ import annotations

import asyncio

import pytest

from aiohttpconn import Client, ConnectionPool, TunnelError
from aiohttpconn.testing import Reply, refusing_address, serve

from .proxies import FORBIDDEN_PORT, Proxy

CREDENTIALS = "ada:sesame"


def echo(request):
    return f"{request.method} {request.target}"


def names(server) -> set[str]:
    """Return the names of all fields that have arrived."""
    return {name.lower() for request in server.requests for name in request.headers}


def client_for(proxy: str, **options) -> Client:
    return Client(proxy=proxy, trust_env=False, **options)


# http ------------------------------------------------------------------------------------


async def test_whole_urls_are_asked_for(http_proxy):
    async with serve(echo) as server, client_for(f"http://{http_proxy.open}") as client:
        for number in range(5):
            response = await client.get(f"{server.url}a/{number}?x=1")
            assert (response.status, response.text) == (200, f"GET /a/{number}?x=1")
            host, port = http_proxy.open.split(":")
            assert response.peername[:2] == (host, int(port))
            # tinyproxy ends the connection after each response.
            assert response.reused is (http_proxy.name == "squid" and number > 0)
        assert server.requests[-1].headers["Host"] == f"127.0.0.1:{server.port}"


async def test_a_body_passes(http_proxy):
    async with serve(echo) as server, client_for(f"http://{http_proxy.open}") as client:
        response = await client.post(f"{server.url}b", content=b"x" * 100_000)
        assert (response.status, response.text) == (200, "POST /b")
        assert server.requests[0].body == b"x" * 100_000


async def test_one_connection_leads_to_one_origin(http_proxy):
    # Those of another origin must not wait for it, nor share what is known of it.
    async with (
        serve(echo) as one,
        serve(echo) as two,
        client_for(f"http://{http_proxy.open}") as client,
    ):
        for server in one, two, one, two:
            assert (await client.get(f"{server.url}x")).text == "GET /x"
        if http_proxy.name == "squid":
            assert [each.open for each in client.stats().origins.values()] == [1, 1]


async def test_chunks_pass(http_proxy, nginx):
    async def body():
        for _ in range(10):
            yield b"x" * 10_000

    async with client_for(f"http://{http_proxy.open}") as client:
        response = await client.post(f"{nginx.http}/app/echo", content=body())
        assert response.json()["length"] == 100_000
        response = await client.get(f"{nginx.http}/app/chunks?200")
        assert len(response.content) == 200_000
        response = await client.get(f"{nginx.http}/text.txt")
        assert len(response.content) == 100_000


async def test_a_proxy_may_take_no_pipeline(http_proxy):
    # tinyproxy answers one request and hangs up: the others are sent again, and not in pipelines.
    async with (
        serve(echo) as server,
        client_for(f"http://{http_proxy.open}", pipelining=8, limit_per_host=2) as client,
    ):
        urls = [f"{server.url}{number}" for number in range(100)]
        responses = await asyncio.gather(*map(client.get, urls))
        assert [response.text for response in responses] == [f"GET /{n}" for n in range(100)]
        assert client.stats().leased == client.stats().queued == 0


# https -----------------------------------------------------------------------------------


async def test_https_goes_through_one_tunnel(http_proxy, certificates):
    async with (
        serve(echo, tls=certificates.server) as server,
        client_for(f"http://{http_proxy.open}", cafile=certificates.ca_file) as client,
    ):
        for number in range(20):
            response = await client.get(f"{server.url}{number}")
            assert (response.text, response.reused) == (f"GET /{number}", number > 0)
        # One connection, so one CONNECT.
        assert server.connections == 1
        assert client.stats().open == 1
        (key,) = client.stats().origins
        assert key == f"https://127.0.0.1:{server.port} via http://{http_proxy.open}"
        assert "via" not in names(server)


async def test_tunnels_are_limited_and_shared(http_proxy, certificates):
    async with (
        serve(echo, tls=certificates.server) as server,
        client_for(
            f"http://{http_proxy.open}", cafile=certificates.ca_file, limit_per_host=3
        ) as client,
    ):
        urls = [f"{server.url}{number}" for number in range(60)]
        responses = await asyncio.gather(*map(client.get, urls))
        assert [response.text for response in responses] == [f"GET /{n}" for n in range(60)]
        assert server.connections == 3


async def test_https_of_a_real_server(http_proxy, nginx, certificates):
    async with client_for(f"http://{http_proxy.open}", cafile=certificates.ca_file) as client:
        response = await client.get(f"{nginx.https}/big.bin")
        assert len(response.content) == 32 * 1024 * 1024
        assert (await client.get(f"{nginx.https}/small.txt")).reused


async def test_http_through_a_tunnel(http_proxy):
    async with (
        serve(echo) as server,
        ConnectionPool(proxy=f"http://{http_proxy.open}") as pool,
    ):
        for _ in range(2):
            async with pool.connection(server.url) as conn:
                for number in range(3):
                    await conn.request("GET", f"/{number}")
                    assert await (await conn.getresponse()).read() == b"GET /%d" % number
        assert server.connections == 1
        assert "via" not in names(server)


# Credentials -----------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
async def test_credentials_are_for_the_proxy_alone(http_proxy, certificates, tls):
    async with (
        serve(echo, tls=certificates.server if tls else None) as server,
        client_for(
            f"http://{CREDENTIALS}@{http_proxy.closed}", cafile=certificates.ca_file
        ) as client,
    ):
        for _ in range(3):
            response = await client.get(f"{server.url}x", auth=("user", "of the origin"))
            assert (response.status, response.text) == (200, "GET /x")
        assert "proxy-authorization" not in names(server)
        assert {request.headers["Authorization"] for request in server.requests} == {
            "Basic dXNlcjpvZiB0aGUgb3JpZ2lu"
        }


async def test_a_redirect_from_http_to_https(http_proxy, certificates):
    def redirect(request):
        return Reply(status=308, headers={"Location": f"{secure.url}there"})

    async with (
        serve(redirect) as plain,
        serve(echo, tls=certificates.server) as secure,
        client_for(
            f"http://{CREDENTIALS}@{http_proxy.closed}", cafile=certificates.ca_file
        ) as client,
    ):
        response = await client.post(f"{plain.url}here", content=b"body")
        assert (response.text, response.url) == ("POST /there", f"{secure.url}there")
        assert secure.requests[0].body == b"body"
        assert "proxy-authorization" not in names(plain) | names(secure)


wrong_credentials = pytest.mark.parametrize(
    "credentials", ["", "ada:wrong@"], ids=["none", "wrong"]
)


def refusals(proxy: Proxy, credentials: str) -> set[int]:
    """Return the statuses of a refusal; 401, of old tinyproxies, is an origin's."""
    return {401, 407} if proxy.name == "tinyproxy" and credentials else {407}


@wrong_credentials
async def test_without_the_right_ones_http_gets_the_refusal(http_proxy, credentials):
    async with (
        serve(echo) as server,
        client_for(f"http://{credentials}{http_proxy.closed}") as client,
    ):
        response = await client.get(f"{server.url}x")
        assert response.status in refusals(http_proxy, credentials)
        assert server.requests == []


@wrong_credentials
async def test_without_the_right_ones_there_is_no_tunnel(http_proxy, credentials):
    asked = []

    def authorize(request):
        asked.append(request.url)

    async with (
        serve(echo) as server,
        client_for(f"http://{credentials}{http_proxy.closed}", auth=authorize) as client,
    ):
        url = f"https://127.0.0.1:{server.port}/x"
        with pytest.raises(TunnelError) as info:
            await client.get(url)
        status = info.value.status
        assert status in refusals(http_proxy, credentials)
        assert f"Tunnel connection failed: {status} " in str(info.value)
        assert "wrong" not in str(info.value)
        # The origin has challenged nobody, not even with tinyproxy's 401.
        assert asked == [url]
        assert client.stats().open == 0
        assert server.connections == 0


# Refusals --------------------------------------------------------------------------------


async def test_a_forbidden_port(http_proxy):
    async with client_for(f"http://{http_proxy.open}") as client:
        response = await client.get(f"http://127.0.0.1:{FORBIDDEN_PORT}/")
        assert response.status == 403
        with pytest.raises(TunnelError, match="Tunnel connection failed: 403"):
            await client.get(f"https://127.0.0.1:{FORBIDDEN_PORT}/")
        assert client.stats().leased == 0


async def test_a_server_that_does_not_listen(http_proxy):
    async with client_for(f"http://{http_proxy.open}") as client:
        with refusing_address() as (host, port):
            response = await client.get(f"http://{host}:{port}/")
            assert response.status in (500, 502, 503)
            with pytest.raises(TunnelError, match=r"Tunnel connection failed: 50[023] "):
                await client.get(f"https://{host}:{port}/")
        assert client.stats().leased == 0


# The environment -------------------------------------------------------------------------


async def test_the_environment_names_the_proxy(http_proxy, certificates, monkeypatch):
    for name in "all_proxy", "no_proxy", "http_proxy", "https_proxy", "REQUEST_METHOD":
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("http_proxy", f"http://{CREDENTIALS}@{http_proxy.closed}")
    monkeypatch.setenv("HTTPS_PROXY", f"http://{http_proxy.open}")
    async with serve(echo) as plain, serve(echo, tls=certificates.server) as secure:
        async with Client(cafile=certificates.ca_file) as client:
            for server in plain, secure:
                assert (await client.get(f"{server.url}x")).text == "GET /x"
            assert all(" via " in key for key in client.stats().origins)
            assert "via" in names(plain)
        monkeypatch.setenv("NO_PROXY", f"127.0.0.0/8,localhost:{secure.port}")
        async with Client(cafile=certificates.ca_file) as client:
            for url in plain.url, secure.url, f"https://localhost:{secure.port}/":
                response = await client.get(url)
                assert response.text == "GET /"
            assert not any(" via " in key for key in client.stats().origins)
        async with Client(cafile=certificates.ca_file, trust_env=False) as client:
            await client.get(plain.url)
            assert not any(" via " in key for key in client.stats().origins)
