"""Bytes that no response begins with, a 204 that announces a body, and connections lost at once."""

import asyncio

import pytest

from aiohttpconn import (
    BadStatusLine,
    Client,
    ConnectionPool,
    HTTPConnection,
    RemoteDisconnected,
)
from aiohttpconn.testing import ScriptedServer, close, deliveries, expect, read_all, send

from ..support.pooled import OK

SECOND = [expect(), send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond"), read_all()]


def first(response, stray):
    """Return a script that answers, and sends *stray* when the next request has come."""
    return [expect(), send(response), expect(), send(stray), read_all()]


NO_BODY = b"HTTP/1.1 204 No Content\r\n\r\n"
STRAYS = {
    "last chunk": b"0\r\n\r\n",
    "a body": b"hello world",
    "half a word": b"x",
    "html": b"<html></html>\r\n",
    "a NUL": b"\0",
}


@pytest.mark.parametrize("stray", STRAYS)
@pytest.mark.parametrize("response", [NO_BODY, OK], ids=["204", "200"])
async def test_bytes_that_begin_no_response_are_no_answer_on_a_reused_connection(response, stray):
    async with (
        ScriptedServer(first(response, STRAYS[stray]), SECOND, SECOND) as server,
        ConnectionPool() as pool,
    ):
        await (await pool.request("GET", server.url)).read()
        assert await (await pool.request("GET", server.url)).read() == b"second"
        assert server.connections == 2


async def test_a_post_is_not_sent_again_and_is_told_why():
    async with (
        ScriptedServer(first(NO_BODY, b"0\r\n\r\n")) as server,
        ConnectionPool() as pool,
    ):
        await (await pool.request("GET", server.url)).read()
        with pytest.raises(RemoteDisconnected, match="bytes behind the last response") as info:
            await pool.request("POST", server.url, body=b"x")
        assert info.value.unanswered
        assert server.connections == 1


async def test_the_same_bytes_on_a_new_connection_are_a_bad_response():
    async with (
        ScriptedServer([expect(), send(b"0\r\n\r\n"), read_all()]) as server,
        ConnectionPool() as pool,
    ):
        with pytest.raises(BadStatusLine) as info:
            await pool.request("GET", server.url)
        assert not isinstance(info.value, RemoteDisconnected)


@pytest.mark.parametrize("pieces", deliveries(b"\r\n\n\r\n" + OK))
async def test_empty_lines_before_a_status_line_are_skipped(scripted, pieces):
    async with scripted(pieces) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert response.status == 200
        await response.read()


@pytest.mark.parametrize("strict", [False, True])
async def test_empty_lines_are_bounded_and_strict_skips_none(strict):
    lines = b"\r\n" if strict else b"\r\n" * 9
    async with (
        ScriptedServer([expect(), send(lines + OK), read_all()]) as server,
        HTTPConnection(*server.address, strict=strict) as conn,
    ):
        await conn.request("GET", "/")
        with pytest.raises(BadStatusLine):
            await conn.getresponse()


async def test_a_late_line_end_behind_a_body_harms_nothing():
    async with (
        ScriptedServer(first(OK, b"\r\n" + OK)) as server,
        ConnectionPool() as pool,
    ):
        for _ in range(2):
            assert (await pool.request("GET", server.url)).status == 200
        assert server.connections == 1


@pytest.mark.parametrize(
    ("fields", "connections"),
    [
        (b"Content-Length: 5\r\n", 2),
        (b"Transfer-Encoding: chunked\r\n", 2),
        (b"X: y\r\nContent-length:5\r\n", 2),
        (b"X:\r\n y\r\nTransfer-Encoding: chunked\r\n", 2),
        (b"Content-Length: 0\r\n", 1),
        (b"", 1),
    ],
)
async def test_a_204_that_announces_a_body_is_followed_by_no_request(fields, connections):
    again = [expect(), send(NO_BODY)] * 2
    script = [expect(), send(b"HTTP/1.1 204 No Content\r\n" + fields + b"\r\n"), *again, read_all()]
    async with ScriptedServer(script) as server, Client(trust_env=False) as client:
        for _ in range(2):
            assert (await client.get(server.url)).content == b""
        assert server.connections == connections


async def test_all_pipelined_requests_of_a_new_connection_are_sent_again():
    """This server ends a connection when one read holds two requests."""
    answered = []

    async def serve(conn):
        while data := await conn.read_some():
            if data.count(b"\r\n\r\n") > 1:
                await conn.close()
                return
            target = data.split()[1].decode()
            answered.append(target)
            await conn.send(OK)

    async with (
        ScriptedServer(serve) as server,
        Client(pipelining=8, limit=1, trust_env=False) as client,
    ):
        targets = [f"{server.url}{number}" for number in range(8)]
        responses = await asyncio.gather(*map(client.get, targets))
        assert [response.status for response in responses] == [200] * 8
    assert sorted(answered) == [f"/{number}" for number in range(8)]


class LostAtOnce:
    """A dialer whose first *n* connections have ended before a byte is written."""

    def __init__(self, n):
        self.left = n
        self.dialed = 0

    async def __call__(self, factory, destination, report):
        loop = asyncio.get_running_loop()
        made = await loop.create_connection(factory, destination.host, destination.port)
        self.dialed += 1
        if self.left:
            self.left -= 1
            made[1].eof_received()
        return made


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("pipelining", [1, 4])
async def test_a_connection_lost_before_a_byte_is_written_is_replaced(method, pipelining):
    dialer = LostAtOnce(1)
    async with (
        ScriptedServer([expect(), send(OK), read_all()]) as server,
        ConnectionPool(dialer=dialer, pipelining=pipelining) as pool,
    ):
        body = b"x" if method == "POST" else None
        response = await pool.request(method, server.url, body=body)
        assert response.status == 200
        assert dialer.dialed == 2
        await response.read()


async def test_a_lent_and_an_own_connection_are_replaced_too():
    async with ScriptedServer([expect(), send(OK), read_all()]) as server:
        async with ConnectionPool(dialer=LostAtOnce(1)) as pool:
            async with pool.connection(server.url) as conn:
                await conn.request("POST", "/", b"x")
                assert (await conn.getresponse()).status == 200
        async with HTTPConnection(*server.address, dialer=LostAtOnce(1)) as conn:
            await conn.request("POST", "/", b"x")
            assert (await conn.getresponse()).status == 200


async def test_a_second_loss_is_an_error_and_no_place_is_lost():
    dialer = LostAtOnce(9)
    async with (
        ScriptedServer([close()]) as server,
        ConnectionPool(dialer=dialer, limit=1) as pool,
    ):
        with pytest.raises(RemoteDisconnected, match="closed the connection before the request"):
            await pool.request("POST", server.url, body=b"x")
        assert dialer.dialed == 2
        assert pool.stats().open == 0
        with pytest.raises(RemoteDisconnected):
            await pool.request("GET", server.url)
