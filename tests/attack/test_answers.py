"""Answers that are odd: each is read safely, or refused, and never poisons the next request."""

from __future__ import annotations

import pytest

from aiohttpconn import HTTPConnection, UnknownTransferEncoding

from ..support import ScriptedServer, named_deliveries
from ..support.answers import Answers

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
