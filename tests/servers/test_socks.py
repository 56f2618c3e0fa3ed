"""dante: SOCKS5 and SOCKS4, with and without a user, to names and addresses, and refusals."""

from __future__ import annotations

import itertools
import socket

import pytest

from aiohttpconn import Client, ConnectionPool, TunnelError
from aiohttpconn.testing import refusing_address, serve

from .proxies import FORBIDDEN_PORT, KNOWN_HOST

both_kinds = pytest.mark.parametrize("scheme", ["socks5", "socks5h"])


def echo(request):
    return f"{request.method} {request.target}"


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize(
    ("scheme", "host"),
    [
        *itertools.product(["socks4", "socks5", "socks5h"], ["127.0.0.1", "localhost"]),
        # Dante takes the address that stands for a name in SOCKS4A for an address, whoever asks.
        ("socks4a", "127.0.0.1"),
    ],
)
async def test_requests_share_a_tunnel(dante, certificates, scheme, tls, host):
    async with (
        serve(echo, tls=certificates.server if tls else None) as server,
        Client(proxy=f"{scheme}://{dante.open}", cafile=certificates.ca_file) as client,
    ):
        url = f"{'https' if tls else 'http'}://{host}:{server.port}/"
        for number in range(10):
            response = await client.get(f"{url}{number}")
            assert (response.text, response.reused) == (f"GET /{number}", number > 0)
        assert server.connections == 1
        assert client.stats().open == 1


@both_kinds
@pytest.mark.skipif(not has_ipv6(), reason="there is no ::1 here")
async def test_ipv6(dante, scheme):
    async with (
        serve(echo, host="::1") as server,
        Client(proxy=f"{scheme}://{dante.open}") as client,
    ):
        assert (await client.get(f"{server.url}x")).text == "GET /x"


@both_kinds
async def test_a_user_and_a_password(dante, scheme):
    async with (
        serve(echo) as server,
        Client(proxy=f"{scheme}://ada:sesame@{dante.closed}") as client,
    ):
        for number in range(3):
            response = await client.get(f"{server.url}{number}")
            assert (response.text, response.reused) == (f"GET /{number}", number > 0)
        # One that needs none is offered them, and does not ask.
        response = await client.get(server.url, proxy=f"{scheme}://ada:sesame@{dante.open}")
        assert response.text == "GET /"


@pytest.mark.parametrize(
    ("credentials", "expected"),
    [
        ("", "the SOCKS proxy wants authentication"),
        ("ada:wrong@", "the SOCKS proxy refused the user name and password"),
        ("bob:sesame@", "the SOCKS proxy refused the user name and password"),
    ],
    ids=["none", "wrong password", "unknown user"],
)
async def test_without_the_right_ones_there_is_no_tunnel(dante, credentials, expected):
    async with serve(echo) as server, Client(proxy=f"socks5h://{credentials}{dante.closed}") as c:
        with pytest.raises(TunnelError) as info:
            await c.get(server.url)
        assert expected in str(info.value)
        assert "wrong" not in str(info.value)
        assert c.stats().open == 0
        assert server.connections == 0


@both_kinds
async def test_what_is_refused(dante, scheme):
    async with Client(proxy=f"{scheme}://{dante.open}") as client:
        with pytest.raises(
            TunnelError, match=f"127.0.0.1:{FORBIDDEN_PORT}: not allowed by the proxy's rules"
        ):
            await client.get(f"http://127.0.0.1:{FORBIDDEN_PORT}/")
        with (
            refusing_address() as (host, port),
            pytest.raises(TunnelError, match=f"127.0.0.1:{port}: connection refused"),
        ):
            await client.get(f"http://{host}:{port}/")
        assert client.stats().open == 0


@pytest.mark.parametrize("user", ["", "ada@", "ada:sesame@"])
@pytest.mark.parametrize("scheme", ["socks4", "socks4a"])
async def test_socks4_has_a_user_and_one_reason_for_all(dante, scheme, user):
    async with (
        serve(echo) as server,
        Client(proxy=f"{scheme}://{user}{dante.open}") as client,
    ):
        assert (await client.get(f"{server.url}x")).text == "GET /x"
        with pytest.raises(TunnelError, match=f"127.0.0.1:{FORBIDDEN_PORT}: rejected or failed"):
            await client.get(f"http://127.0.0.1:{FORBIDDEN_PORT}/")


async def test_the_proxy_looks_names_up(dante):
    proxy = f"socks5h://ada:sesame@{dante.closed}"
    async with serve(echo) as server, Client(proxy=proxy) as client:
        response = await client.get(f"http://{KNOWN_HOST}:{server.port}/x")
        assert response.text == "GET /x"
        assert server.requests[0].headers["Host"] == f"{KNOWN_HOST}:{server.port}"


async def test_a_large_body_and_an_upload(dante, nginx, certificates):
    async with Client(proxy=f"socks5h://{dante.open}", cafile=certificates.ca_file) as client:
        for base in nginx.http, nginx.https:
            response = await client.get(f"{base}/big.bin")
            assert len(response.content) == 32 * 1024 * 1024
            response = await client.post(f"{base}/app/echo", content=bytes(1024 * 1024))
            assert response.json()["length"] == 1024 * 1024


async def test_a_lent_connection(dante):
    async with serve(echo) as server, ConnectionPool(proxy=f"socks5://{dante.open}") as pool:
        for _ in range(2):
            async with pool.connection(server.url) as conn:
                await conn.request("GET", "/x")
                assert await (await conn.getresponse()).read() == b"GET /x"
        assert server.connections == 1
