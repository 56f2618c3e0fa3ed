"""response.py: the head's side of a response, and what closing it does."""

from __future__ import annotations

import asyncio
import contextlib
import http.client

import pytest

from aiohttpconn import (
    Client,
    ConnectionPool,
    HTTPConnection,
    HTTPMessage,
    HTTPResponse,
    IncompleteRead,
    ReadTimeout,
    Timeout,
)

from .support import ScriptedServer, close, deliveries, expect, read_all, send, wait
from .support.clocks import Clock

HEAD = (
    b"HTTP/1.1 201 All Made\r\nServer: x\r\nSet-Cookie: a=1\r\nset-cookie:  b=2 \r\n"
    b"X-Empty:\r\nX-Latin: \xe9\r\nContent-Length: 5\r\n\r\n"
)


@pytest.mark.parametrize("pieces", deliveries(HEAD + b"hello", splits=10))
async def test_a_head_however_it_is_delivered(scripted, pieces):
    async with scripted(pieces) as conn:
        await conn.request("GET", "/x?y#z")
        response = await conn.getresponse()
        assert (response.status, response.code, response.getcode()) == (201, 201, 201)
        assert (response.reason, response.version) == ("All Made", 11)
        fields = [
            ("Server", "x"),
            ("Set-Cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("X-Empty", ""),
            ("X-Latin", "é"),
            ("Content-Length", "5"),
        ]
        assert response.raw_headers == response.getheaders() == fields
        assert response.headers is response.msg is response.info()
        assert isinstance(response.headers, HTTPMessage)
        assert isinstance(response.headers, http.client.HTTPMessage)
        assert response.headers.items() == fields
        assert response.headers["SERVER"] == "x"
        assert response.headers.get_all("Set-Cookie") == ["a=1", "b=2"]
        url = f"http://127.0.0.1:{conn.port}/x?y#z"
        assert (response.method, response.target) == ("GET", "/x?y#z")
        assert response.url == response.geturl() == url
        assert response.peername == ("127.0.0.1", conn.port)
        assert (response.will_close, response.chunked, response.chunk_left) == (False, False, None)
        assert response.readable() is True
        assert await response.read() == b"hello"
        assert isinstance(response, HTTPResponse)


async def test_getheader(scripted):
    async with scripted(HEAD + b"hello") as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert response.getheader("set-COOKIE") == "a=1, b=2"
        assert response.getheader("x-empty") == ""
        assert response.getheader("nope") is None
        assert response.getheader("nope", "default") == "default"
        assert response.getheader("nope", 5) == 5
        assert response.getheader("nope", ["a", "b"]) == "a, b"
        assert response.getheader("nope", ()) == ""
        response.getheaders().clear()
        assert len(response.getheaders()) == 6


async def test_http_1_0(scripted):
    async with scripted(b"HTTP/1.0 200\r\n\r\nx", close=True) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert (response.version, response.reason, response.will_close) == (10, "", True)
        assert response.length is None
        assert await response.read() == b"x"


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 404 Not Found\r\nServer: a\nContent-Length: 9\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("split", [False, True])
async def test_no_body_is_complete_at_once(scripted, method, head, split):
    pieces = [head[:20], head[20:]] if split else [head]
    async with scripted(pieces, pieces) as conn:
        for _ in range(2):
            await conn.request(method, "/")
            response = await conn.getresponse()
            assert response.isclosed()
            assert response.complete
            assert not response.closed
            assert (response.length, response.received) == (0, 0)
            assert await response.read() == b""
        assert scripted.server.connections == 1


async def test_length_counts_what_is_left(scripted):
    async with scripted([HEAD, b"hel", b"lo"]) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert response.length == 5
        assert await response.read(3) == b"hel"
        assert response.length == 2
        assert not response.isclosed()
        assert await response.read(2) == b"lo"
        assert response.length == 0
        assert response.isclosed()


async def test_trailers(scripted):
    data = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n"
    )
    async with scripted([data[:70], data[70:75], data[75:]], b"HTTP/1.1 204 x\r\n\r\n") as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert response.chunked
        assert response.trailers.items() == []
        assert await response.read() == b"hi"
        assert response.trailers.items() == [("X-Sum", "1"), ("Content-Length", "9")]
        assert response.trailers is response.trailers
        assert "X-Sum" not in response.headers
        await conn.request("GET", "/")
        assert (await conn.getresponse()).trailers.items() == []


async def test_chunk_left(scripted):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with scripted([head + b"5\r\nhe", b"llo\r\n0\r\n\r\n"]) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert response.chunk_left == 3
        assert response.length is None
        assert await response.read() == b"hello"
        assert response.chunk_left == 0


async def test_repr(scripted):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"
    async with scripted([head, b"x" * 1200, b"x" * 3800]) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        await response.read(1200)
        assert repr(response) == "<HTTPResponse [200 OK] 1.2/5.0 kB read>"
        await response.read()
        assert repr(response) == "<HTTPResponse [200 OK] 5.0/5.0 kB read>"


async def test_repr_without_a_length_and_without_a_head(scripted):
    async with scripted(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100, close=True) as conn:
        await conn.request("GET", "/a")
        waiting = conn._exchange
        assert repr(waiting) == (
            f"<HTTPResponse GET http://127.0.0.1:{conn.port}/a waiting for its head>"
        )
        response = await conn.getresponse()
        await response.read()
        assert repr(response) == "<HTTPResponse [200 OK] 100/? B read>"


async def test_fileno(scripted):
    async with scripted([HEAD, b"hello"]) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert response.fileno() == conn.sock.fileno()
        await response.read()
        with pytest.raises(ValueError, match="has no socket any more") as info:
            response.fileno()
        assert str(info.value) == (
            "<HTTPResponse [201 All Made] 5/5 B read> has no socket any more"
        )


# close() ---------------------------------------------------------------------------------------


async def test_close_of_a_complete_response_keeps_the_connection(scripted):
    async with scripted(HEAD + b"hello", HEAD + b"hello") as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        response.close()
        response.close()
        assert (response.closed, response.isclosed(), response.complete) == (True, True, True)
        assert await response.read() == b""
        assert await response.readline() == b""
        assert await response.peek() == b""
        await conn.request("GET", "/")
        assert await (await conn.getresponse()).read() == b"hello"
        assert scripted.server.connections == 1


async def test_close_of_an_incomplete_response_costs_the_connection():
    script = [expect(), send(HEAD, b"hel"), read_all()]
    async with ScriptedServer(script, [expect(), send(HEAD + b"hello")]) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            response.close()
            assert await response.read() == b""
            assert not response.complete
            assert conn.sock is None
            await conn.request("GET", "/")
            assert await (await conn.getresponse()).read() == b"hello"
            assert server.connections == 2


@pytest.mark.parametrize("kind", ["with", "async with"])
async def test_a_response_is_a_context_manager(kind):
    async with ScriptedServer([expect(), send(HEAD, b"hel"), read_all()]) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            if kind == "with":
                with response as same:
                    assert same is response
            else:
                async with response as same:
                    assert same is response
            assert response.closed
            assert conn.sock is None


async def test_close_wakes_who_reads():
    async with ScriptedServer([expect(), send(HEAD, b"hel"), read_all()]) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            task = asyncio.create_task(response.read())
            while response.received < 3:
                await asyncio.sleep(0)
            response.close()
            with pytest.raises(IncompleteRead, match="closed by this program"):
                await task


async def test_a_response_that_will_close_owns_the_socket():
    go_on = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n"
    script = [expect(), send(head), wait(go_on), send(b"hello"), close()]
    async with ScriptedServer(script) as server:
        conn = HTTPConnection(server.host, server.port)
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert response.will_close
        assert conn.sock is None
        assert response.fileno() >= 0
        conn.close()  # which is not the response's affair any more
        await conn.wait_closed()
        go_on.set()
        assert await response.read() == b"hello"
        assert response.complete


async def test_a_responses_class_may_be_ones_own(scripted):
    class Mine(HTTPResponse):
        pass

    async with scripted(HEAD + b"hello") as conn:
        conn.response_class = Mine
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert type(response) is Mine
        assert await response.read() == b"hello"


# The same facts on every kind of response ------------------------------------------------------

KINDS = ["connection", "pool", "shared", "client", "stream"]


@contextlib.asynccontextmanager
async def answered(kind, server, **options):
    """Yield the response to a GET, whose body the caller reads."""
    if kind == "connection":
        async with HTTPConnection(*server.address, **options) as conn:
            await conn.request("GET", "/")
            yield await conn.getresponse()
    elif kind in ("pool", "shared"):
        async with ConnectionPool(pipelining=1 + (kind == "shared"), **options) as pool:
            yield await pool.request("GET", server.url)
    else:
        async with Client(trust_env=False, **options) as client:
            if kind == "client":
                yield await client.get(server.url)
            else:
                async with client.stream("GET", server.url) as response:
                    yield response


async def body_of(response) -> bytes:
    return await response.read()


INTERIM = (
    b"HTTP/1.1 102 Processing\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink:\r\n </b>\r\n\r\n"
)
TRAILED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: ten\r\r\n\r\n"
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pieces", deliveries(INTERIM + TRAILED, splits=6))
async def test_interim_responses_and_trailers_are_kept(kind, pieces):
    async with ScriptedServer([expect(), send(*pieces), read_all()]) as server:
        async with answered(kind, server) as response:
            assert await body_of(response) == b"hi"
            assert [(status, headers.items()) for status, headers in response.informational] == [
                (102, []),
                (103, [("Link", "</a>"), ("Link", "</b>")]),
            ]
            assert response.trailers.items() == [("X-Sum", "ten")]
            assert response.timings.receive is not None


@pytest.mark.parametrize("kind", KINDS)
async def test_most_responses_have_no_interim_ones_and_no_trailers(kind):
    async with ScriptedServer([expect(), send(HEAD + b"hello"), read_all()]) as server:
        async with answered(kind, server) as response:
            assert await body_of(response) == b"hello"
            assert response.informational == ()
            assert response.trailers.items() == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", [False, True], ids=["whole", "in-two"])
async def test_timings_are_those_of_its_exchange(kind, split):
    pieces = [HEAD, b"hello"] if split else [HEAD + b"hello"]
    async with ScriptedServer([expect(), send(*pieces), read_all()]) as server:
        async with answered(kind, server) as response:
            await body_of(response)
            timings = response.timings
            assert timings.connect is not None
            assert (timings.dns, timings.proxy, timings.tls) == (timings.dns, None, None)
            assert timings.send >= 0
            assert timings.wait > 0
            assert timings.receive is not None
            assert timings.receive >= 0
            assert timings.queue >= 0
            assert timings.total == sum(seconds for seconds in timings if seconds is not None)


async def test_timings_of_a_body_that_is_to_come_and_of_a_reused_connection():
    go = asyncio.Event()
    steps = [expect(), send(HEAD), wait(go), send(b"hello"), expect(), send(HEAD + b"hello")]
    with Clock() as clock:
        async with ScriptedServer([*steps, read_all()]) as server:
            async with HTTPConnection(*server.address) as conn:
                await conn.request("GET", "/")
                response = await conn.getresponse()
                assert response.timings.receive is None
                clock.advance(5)
                go.set()
                await response.read()
                assert response.timings.receive == pytest.approx(5, abs=1)
                await conn.request("GET", "/")
                clock.advance(3)
                second = await conn.getresponse()
                assert second.timings.connect is None
                assert second.timings.wait == pytest.approx(3, abs=1)


@pytest.mark.parametrize("limit", [None, 1000])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
    ],
    ids=["length", "chunked", "until-the-end"],
)
async def test_a_timeout_in_a_body_carries_what_had_arrived(kind, wire, limit):
    options = {"max_body": limit} if kind in ("client", "stream") else {}
    async with ScriptedServer([expect(), send(wire), read_all()]) as server:
        with Clock() as clock:

            async def read():
                async with answered(kind, server, timeout=Timeout(read=10), **options) as response:
                    return await body_of(response)

            task = asyncio.ensure_future(read())
            while not (server.conns and server.conns[0].heads):
                await asyncio.sleep(0)
            for _ in range(50):
                await asyncio.sleep(0)
            clock.advance(20)
            with pytest.raises(ReadTimeout) as info:
                await task
            assert info.value.partial == b"hello"


async def test_a_timeout_before_a_head_has_no_partial():
    async with ScriptedServer([expect(), read_all()]) as server:
        with Clock() as clock:
            async with HTTPConnection(*server.address, timeout=10) as conn:
                await conn.request("GET", "/")
                task = asyncio.ensure_future(conn.getresponse())
                await asyncio.sleep(0)
                clock.advance(11)
                with pytest.raises(ReadTimeout) as info:
                    await task
                assert info.value.partial == b""
