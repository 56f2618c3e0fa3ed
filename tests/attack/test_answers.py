"""Answers that are odd: each is read safely, or refused, and never poisons the next request."""

from __future__ import annotations

import asyncio
import io

import pytest

from aiohttpconn import (
    BodyLengthError,
    Client,
    ConnectionPool,
    ConnectTimeout,
    HTTPConnection,
    HTTPSConnection,
    InvalidURL,
    RedirectRefused,
    Timeout,
    TooManyRedirects,
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


# 417: nobody on the way waits to be asked

UNEXPECTED = b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno"
DONE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
EXPECT = {"Expect": "100-continue", "X-A": "b"}


async def refuses_to_be_asked(conn):
    """Answer 417 to a request with Expect, read the bodies of others and answer 200."""
    while True:
        head = await conn.read_head()
        if b"Expect:" in head:
            await conn.send(UNEXPECTED)
            await conn.drain()
            return
        assert await conn.read_body(head) == b"body"
        await conn.send(DONE)


def bodies_of(server):
    return [received.partition(b"\r\n\r\n")[2] for received in server.received]


@pytest.mark.parametrize(
    "content", [b"body", [b"bo", b"dy"], io.BytesIO(b"body")], ids=["bytes", "list", "file"]
)
async def test_a_client_repeats_a_request_after_417_without_expect(content):
    async with ScriptedServer(refuses_to_be_asked) as server, Client() as client:
        response = await client.post(server.url, content=content, headers=EXPECT)
        assert (response.status, response.content) == (200, b"hi")
        assert response.history == ()
        assert [b"Expect: 100-continue\r\n" in head for head in server.heads] == [True, False]
        assert [b"X-A: b\r\n" in head for head in server.heads] == [True, True]
        assert bodies_of(server)[0] == b""


async def test_a_hook_that_asks_again_is_not_asked_twice():
    def ask(request):
        request.headers["Expect"] = "100-continue"

    async with ScriptedServer(refuses_to_be_asked) as server, Client(on_request=ask) as client:
        response = await client.put(server.url, content=b"body")
        assert (response.status, response.content) == (200, b"hi")
        assert [b"Expect: 100-continue\r\n" in head for head in server.heads] == [True, False]


async def test_a_stream_repeats_after_417_too():
    async with ScriptedServer(refuses_to_be_asked) as server, Client() as client:
        async with client.stream("POST", server.url, content=b"body", headers=EXPECT) as response:
            assert (response.status, await response.read()) == (200, b"hi")


async def test_417_to_the_request_without_expect_is_the_response():
    async def always(conn):
        await conn.read_head()
        await conn.send(UNEXPECTED)
        await conn.drain()

    async with ScriptedServer(always) as server, Client() as client:
        response = await client.post(server.url, content=b"body", headers=EXPECT)
        assert (response.status, response.content) == (417, b"no")
        assert server.connections == 2


async def test_417_is_the_response_of_a_body_that_is_gone():
    async with ScriptedServer(refuses_to_be_asked) as server, Client() as client:
        response = await client.post(server.url, content=iter([b"body"]), headers=EXPECT)
        assert (response.status, response.content) == (417, b"no")
        assert server.connections == 1


async def test_a_connection_and_a_pool_return_417():
    async with ScriptedServer(refuses_to_be_asked) as server:
        async with HTTPConnection(*server.address) as conn:
            await conn.request("POST", "/", b"body", EXPECT)
            assert (await conn.getresponse()).status == 417
        async with ConnectionPool() as pool:
            response = await pool.request("POST", server.url, b"body", EXPECT)
            assert (response.status, await response.read()) == (417, b"no")


# A body of another length than the announced one names its request


async def announced(make):
    with pytest.raises(BodyLengthError) as caught:
        await make
    error = caught.value
    assert str(error).startswith("POST http://127.0.0.1:")
    assert "/x: Content-Length announces 5 bytes" in str(error)
    assert (error.method, error.url[-2:]) == ("POST", "/x")


@pytest.mark.parametrize("make", [lambda: b"abc", lambda: iter([b"abc"])], ids=["known", "unknown"])
async def test_an_error_of_a_bodys_length_names_the_request_E7(make):
    length = {"Content-Length": "5"}
    async with ScriptedServer(*[[read_all()]] * 20) as server:
        url = f"{server.url.rstrip('/')}/x"
        async with Client() as client:
            await announced(client.post(url, content=make(), headers=length))
            await announced(client.stream("POST", url, content=make(), headers=length).__aenter__())
        async with ConnectionPool() as pool:
            await announced(pool.request("POST", url, make(), length))
            async with pool.connection(url) as conn:
                await announced(conn.request("POST", "/x", make(), length))
        async with HTTPConnection(*server.address) as conn:
            await announced(conn.request("POST", "/x", make(), length))
            conn.putrequest("POST", "/x")
            conn.putheader("Content-Length", "5")
            await announced(conn.endheaders(make()))


# Redirects that grow the URL


@pytest.mark.parametrize(
    "location",
    ["x" * 60_000, "\xe9" * 10_000 + "/", "?" + "\xe9" * 60_000, "\xe9" * 200_000],
    ids=len,
)
async def test_redirects_make_a_client_send_little_more_than_it_receives_C14(location):
    """Each Location is followed while the URL stays below 65,536 characters."""
    answer = b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n"
    async with ScriptedServer(repeated(answer % location.encode("latin-1"))) as server:
        async with Client(trust_env=False) as client:
            with pytest.raises(RedirectRefused) as caught:
                await client.get(server.url)
        sent = sum(map(len, server.received))
    assert len(str(caught.value)) < 4000
    assert all(len(head) < 65_536 + 500 for head in server.heads)
    if not isinstance(caught.value, TooManyRedirects):
        assert "at most 65536 are followed" in str(caught.value)
        assert caught.value.response.status == 302
    assert sent <= 11 * (65_536 + 500)


def repeated(answer):
    async def script(conn):
        while True:
            await conn.read_request()
            await conn.send(answer)

    return script


def test_a_host_of_many_colons_is_refused_in_the_time_of_its_length():
    """The growth of every pattern is counted in test_growth.py: here is only what is refused."""
    for host in (":" * 200_000, ":" * 200_000 + "g", "1:" * 100_000 + "%"):
        with pytest.raises(InvalidURL, match="not a host name or an IP address"):
            HTTPConnection(host + "!", 80)
