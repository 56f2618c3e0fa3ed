"""response.py: the head's side of a response, and what closing it does."""

from __future__ import annotations

import asyncio
import http.client

import pytest

from aiohttpconn import HTTPConnection, HTTPMessage, HTTPResponse, IncompleteRead

from .support import ScriptedServer, close, deliveries, expect, read_all, send, wait

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
        ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n"),
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
