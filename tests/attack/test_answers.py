"""Answers that are odd: each is read safely, or refused, and never poisons the next request."""

from __future__ import annotations

import asyncio

import pytest

from aiohttpconn import (
    Client,
    ConnectTimeout,
    HTTPConnection,
    HTTPSConnection,
    InvalidURL,
    Timeout,
    TotalTimeout,
    TunnelError,
    UnknownTransferEncoding,
)
from aiohttpconn.net.dial import REFUSAL_SECONDS

from ..support import ScriptedServer, close, expect, named_deliveries, read_all, send, wait
from ..support.answers import Answers
from ..support.clocks import Clock

HI = b"2\r\nhi\r\n0\r\n\r\n"

ONE_CHUNKED = {
    "F7-twice-in-a-list": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
    "F7-two-fields": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
    b"transfer-encoding: Chunked\r\n\r\n",
    "F7-empty-member": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: , chunked\r\n\r\n",
    "F8-http-1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "F8-http-1.0-that-keeps-alive": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n",
    "F8-http-1.0-with-a-length": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n"
    b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("head", ONE_CHUNKED.values(), ids=ONE_CHUNKED)
async def test_chunked_in_doubt_is_read_once_and_its_connection_never_reused(head):
    for _, pieces in named_deliveries(head + HI, splits=4):
        answers = Answers(pieces)
        async with ScriptedServer(answers) as server, HTTPConnection(*server.address) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            assert (response.chunked, response.will_close) == (True, True)
            assert await response.read() == b"hi"
            assert response.complete
            assert not await answers.reused(conn, server)


@pytest.mark.parametrize("head", ONE_CHUNKED.values(), ids=ONE_CHUNKED)
async def test_chunked_in_doubt_is_refused_by_strict(head):
    answers = Answers(head + HI)
    async with ScriptedServer(answers) as server:
        async with HTTPConnection(*server.address, strict=True) as conn:
            await conn.request("GET", "/")
            with pytest.raises(UnknownTransferEncoding, match="cannot read Transfer-Encoding"):
                await conn.getresponse()
            assert not await answers.reused(conn, server)


# A refused tunnel: its body explains why


REFUSED = b"HTTP/1.1 403 No\r\n"
BODIES = {
    "length": (b"Content-Length: 5\r\n\r\n", [b"so", b"rry"], []),
    "chunked": (
        b"Transfer-Encoding: chunked\r\n\r\n",
        [b"2\r\nso\r\n", b"3\r\nrry\r\n0\r\n\r\n"],
        [],
    ),
    "until-the-end": (b"\r\n", [b"so", b"rry"], [close()]),
}


async def refused(conn):
    with pytest.raises(TunnelError) as caught:
        await conn.connect()
    assert "Tunnel connection failed: 403 No" in str(caught.value)
    assert (caught.value.status, caught.value.reason) == (403, "No")
    return caught.value


@pytest.mark.parametrize("kind", [HTTPConnection, HTTPSConnection])
@pytest.mark.parametrize(("head", "pieces", "end"), BODIES.values(), ids=BODIES)
async def test_the_body_of_a_refusal_is_decoded_and_waited_for_F20(head, pieces, end, kind):
    script = [expect(), send(REFUSED + head, *pieces), *end, read_all()]
    async with ScriptedServer(script) as proxy, kind(*proxy.address) as conn:
        conn.set_tunnel("origin.test", 443)
        assert (await refused(conn)).body == b"sorry"
        assert conn.get_proxy_response_headers() is not None


@pytest.mark.parametrize(("head", "pieces", "end"), BODIES.values(), ids=BODIES)
async def test_a_limit_that_expires_in_the_body_leaves_the_refusal_F20(head, pieces, end, ticking):
    hold = asyncio.Event()
    for limits in (Timeout(connect=0.02), Timeout(total=0.02)):
        script = [expect(), send(REFUSED + head, pieces[0]), wait(hold)]
        async with ScriptedServer(script) as proxy:
            async with HTTPConnection(*proxy.address, timeout=limits) as conn:
                conn.set_tunnel("origin.test", 443)
                assert (await refused(conn)).body == b"so"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 403 N"])
async def test_a_limit_that_expires_before_the_refusal_is_the_error_F20(answer, ticking):
    hold = asyncio.Event()
    for limits, error in (
        (Timeout(connect=0.02), ConnectTimeout),
        (Timeout(total=0.02), TotalTimeout),
    ):
        async with ScriptedServer([expect(), send(answer), wait(hold)]) as proxy:
            async with HTTPConnection(*proxy.address, timeout=limits) as conn:
                conn.set_tunnel("origin.test", 443)
                with pytest.raises(error):
                    await conn.connect()


async def test_a_refusal_whose_body_never_ends_is_raised_without_any_limit_F20():
    hold = asyncio.Event()
    with Clock() as clock:
        async with ScriptedServer([expect(), send(REFUSED + b"\r\nso"), wait(hold)]) as proxy:
            async with HTTPConnection(*proxy.address) as conn:
                conn.set_tunnel("origin.test", 443)
                connecting = asyncio.ensure_future(refused(conn))
                while not clock.timers:
                    await asyncio.sleep(0)
                clock.advance(REFUSAL_SECONDS)
                assert (await connecting).body == b"so"


async def test_a_refusal_is_cancelled_in_its_body_F20():
    async with ScriptedServer([expect(), send(REFUSED + b"\r\nso"), read_all()]) as proxy:
        async with HTTPConnection(*proxy.address) as conn:
            conn.set_tunnel("origin.test", 443)
            connecting = asyncio.ensure_future(conn.connect())
            await proxy.wait_connections(1)
            for _ in range(20):
                await asyncio.sleep(0)
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
        await proxy.conns[0].wait_ended()


async def test_a_clients_error_has_the_body_of_the_refusal_F20():
    head, pieces, _ = BODIES["chunked"]
    async with ScriptedServer([expect(), send(REFUSED + head, *pieces), read_all()]) as proxy:
        host, port = proxy.address
        async with Client(proxy=f"http://{host}:{port}") as client:
            with pytest.raises(TunnelError) as caught:
                await client.get("https://origin.test/")
    assert (caught.value.status, caught.value.body) == (403, b"sorry")


@pytest.mark.parametrize("host", ["[fe80::1%25eth0]", "fe80::1%eth0"])
async def test_connect_carries_no_ipv6_zone(host):
    script = [expect(), send(REFUSED + b"Content-Length: 0\r\n\r\n"), read_all()]
    async with ScriptedServer(script) as proxy, HTTPSConnection(*proxy.address) as conn:
        conn.set_tunnel(host, 443)
        await refused(conn)
        assert proxy.heads[0] == b"CONNECT [fe80::1]:443 HTTP/1.1\r\nHost: [fe80::1]:443\r\n\r\n"


# A host that IDNA refuses


@pytest.mark.parametrize(
    "host",
    [
        *(
            "b\xfccher..test",
            ".b\xfccher.test",
            "\xfc" * 64,
            "a..test",
            ".test",
            "a" * 64 + ".test",
        ),
        *("a\uff0fb", "a\u2100b", "u\uff20a", "\u0628a.test"),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("kind", [HTTPConnection, HTTPSConnection])
def test_a_host_that_idna_refuses_is_an_invalid_url_E4(kind, host):
    for call in (
        lambda: kind(host),
        lambda: kind(host, 80),
        lambda: kind(f"{host}:80"),
        lambda: kind("proxy.test").set_tunnel(host, 443),
    ):
        with pytest.raises(InvalidURL, match=r"^not a host name"):
            call()


@pytest.mark.parametrize(
    "host",
    [
        "b\xfccher.test",
        "b\xfccher.test.",
        "a" * 63 + ".test",
        "_a.test",
        "a-.test",
        "",
        "::1",
        "localhost.",
    ],
    ids=ascii,
)
def test_a_host_that_idna_takes_is_taken_E4(host):
    assert HTTPConnection(host, 80).host == host
