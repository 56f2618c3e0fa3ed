"""Every byte offset: what a server sends ends, is reset or stalls after each of its bytes.

The caller gets the whole answer, or an error of the documented tree that tells the phase and the
URL, and whose ``partial`` is exactly what arrived of the body. ``tests/test_faults.py`` does this
for one response on one connection; here are the exchanges of several messages. An end is a FIN
after which the server goes on reading: a half-close. The fault comes once; a request that is sent
again is answered.
"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from aiohttpconn import (
    Client,
    ContentDecodingError,
    HTTPConnection,
    HTTPException,
    IncompleteRead,
    Timeout,
)

from ..support import ScriptedServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BODY = b"first line\nsecond line\n"
CODED = gzip.compress(BODY, mtime=0)
CHUNKS = b"b\r\nfirst line\n\r\nc;x=y\r\nsecond line\n\r\n0\r\nX-Sum: 1\r\n\r\n"

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\n" + BODY
PHASES = {
    "connect",
    "proxy",
    "tls",
    "sending",
    "waiting for the head",
    "receiving the body",
    "decoding the body",
}


class Exchange(NamedTuple):
    """*answers*: what is sent for each target; *run*: the requests, which return the body."""

    answers: dict[bytes, bytes]
    run: Callable[[Client, ScriptedServer], Awaitable[bytes]]

    @property
    def size(self) -> int:
        return sum(map(len, self.answers.values()))


async def get(client: Client, server: ScriptedServer) -> bytes:
    return (await client.get(f"{server.url}a")).content


async def put(client: Client, server: ScriptedServer) -> bytes:
    return (await client.put(f"{server.url}a", content=[b"x" * 1000] * 3)).content


async def expecting(client: Client, server: ScriptedServer) -> bytes:
    headers = {"Expect": "100-continue"}
    return (await client.put(f"{server.url}a", content=b"xyz", headers=headers)).content


async def streamed(client: Client, server: ScriptedServer) -> bytes:
    body = b""
    async with client.stream("GET", f"{server.url}a") as response:
        try:
            async for piece in response.iter_bytes():
                body += piece
        except IncompleteRead as error:
            # A read's error has what this read had: the pieces before it were given already.
            error.partial = body + error.partial
            raise
    return body


async def pipelined(client: Client, server: ScriptedServer) -> bytes:
    """Ask for two at once; both tasks must come to their end."""
    tasks = [asyncio.ensure_future(client.get(f"{server.url}{name}")) for name in "ab"]
    await asyncio.wait(tasks)
    results = [(await task).content for task in tasks]
    assert results == [BODY, BODY[::-1]]
    return results[0]


async def tunnelled(client: Client, server: ScriptedServer) -> bytes:
    conn = HTTPConnection(*server.address, timeout=Timeout(read=LIMIT, connect=LIMIT))
    conn.set_tunnel("origin.test", 80)
    async with conn:
        await conn.request("GET", "/a")
        return await (await conn.getresponse()).read()


def answer(*fields: bytes, body: bytes = BODY, status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, *fields, b"", body])


LENGTH = answer(b"Content-Length: 23")
GZIP = answer(b"Content-Encoding: gzip", b"Content-Length: %d" % len(CODED), body=CODED)
MOVED = answer(b"Location: /b", b"Content-Length: 4", status=b"302 Found", body=b"moved"[:4])

EXCHANGES = {
    "length": Exchange({b"/a": LENGTH}, get),
    "chunked": Exchange({b"/a": answer(b"Transfer-Encoding: chunked", body=CHUNKS)}, get),
    "streamed": Exchange({b"/a": answer(b"Transfer-Encoding: chunked", body=CHUNKS)}, streamed),
    "gzip": Exchange({b"/a": GZIP}, get),
    "interim": Exchange({b"/a": b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + LENGTH}, get),
    "upload": Exchange({b"/a": LENGTH}, put),
    "100-continue": Exchange({b"/a": b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH}, expecting),
    "redirect": Exchange({b"/a": MOVED, b"/b": LENGTH}, get),
    "tunnel": Exchange(
        {b"origin.test:80": answer(b"X: y", body=b"", status=b"200 Established"), b"/a": LENGTH},
        tunnelled,
    ),
    "pipelined": Exchange(
        {b"/a": LENGTH, b"/b": answer(b"Content-Length: 23", body=BODY[::-1])}, pipelined
    ),
}

LIMIT = 0.05
"""Seconds of the test's clock after which a stall is one."""

ENDS = ("close", "reset", "stall")

SAMPLE = 61
"""``make test`` takes every so many offsets."""


class Faulty:
    """The server's script: its first *k* bytes are sent, then comes *end*, once."""

    def __init__(self, answers: dict[bytes, bytes], k: int, end: str) -> None:
        self.answers = answers
        self.left = k
        self.end = end
        self.over = False
        self.arrived = b""
        """What came before the fault of the answer that it cut."""

    async def __call__(self, conn: Any) -> None:
        while True:
            head = await conn.read_head()
            target = head.split()[1]
            wire = self.answers[target]
            if b"100-continue" in head and b"100 Continue" in wire:
                interim, end, wire = wire.partition(b"\r\n\r\n")
                if await self.send(conn, interim + end):
                    return
            await conn.read_body(head)
            if await self.send(conn, wire):
                return

    async def send(self, conn: Any, wire: bytes) -> bool:
        """Send *wire*, or a part of it and the fault; return whether the connection is over."""
        if self.over or self.left >= len(wire):
            self.left -= 0 if self.over else len(wire)
            await conn.send(wire)
            return False
        self.over = True
        self.arrived = wire[: self.left]
        if self.arrived:
            await conn.send(self.arrived)
        if self.end == "reset":
            await conn.reset()
            return True
        if self.end == "close":
            await conn.close()
        await conn.read_all()
        return True


@pytest.mark.parametrize(
    ("ends", "every"),
    [
        pytest.param(ENDS, SAMPLE, id="some"),
        *(pytest.param((end,), 1, id=f"all-{end}", marks=pytest.mark.siege) for end in ENDS),
    ],
)
@pytest.mark.parametrize(
    ("name", "tls"),
    [
        pytest.param(name, tls, id=f"{name}-{'tls' if tls else 'plain'}")
        for name in EXCHANGES
        for tls in (False, True)
        if (name, tls) != ("tunnel", True)
    ],
)
async def test_whole_or_an_error_that_tells_at_every_offset(
    certificates, ticking, name, tls, ends, every
):
    exchange = EXCHANGES[name]
    wholes = 0
    points = [(end, k) for end in ends for k in range(0, exchange.size, every)]
    for end, k in points:
        script = Faulty(exchange.answers, k, end)
        async with ScriptedServer(script, tls=certificates.server if tls else None) as server:
            async with Client(
                limit=1,
                pipelining=2 if name == "pipelined" else 1,
                timeout=Timeout(read=LIMIT),
                context=certificates.client if tls else None,
                trust_env=False,
            ) as client:
                try:
                    wholes += await exchange.run(client, server) == BODY
                except (HTTPException, OSError) as error:
                    check(error, script, (name, end, k))
                # What went wrong leaves the client as it was.
                response = await client.put(f"{server.url}a", content=b"xyz")
                assert response.content == BODY
                assert client.stats().leased == 0
        assert script.over, k
    assert wholes < len(points)


def check(error: Any, script: Faulty, where: tuple[str, str, int]) -> None:
    """Assert that *error* tells its phase and request, and has what arrived of the body."""
    assert error.phase in PHASES, where
    assert error.url.startswith("http"), where
    assert error.url in str(error), where
    _, found, arrived = script.arrived.rpartition(b"\r\n\r\n")
    if isinstance(error, ContentDecodingError):
        decoder = zlib.decompressobj(31)
        assert error.truncated, where
        assert error.partial == decoder.decompress(arrived), where
    elif isinstance(error, IncompleteRead):
        assert found, where
        if b"chunked" in script.arrived:
            _, _, framed = script.arrived.partition(b"\r\n\r\n")
            assert error.partial == content(framed), where
        elif b"gzip" in script.arrived:
            decoder = zlib.decompressobj(31)
            assert error.partial == decoder.decompress(arrived), where
        else:
            assert error.partial == arrived, where


def content(framed: bytes) -> bytes:
    """Return the bytes of the two chunks that are in *framed*."""
    return framed[3:14] + framed[23:35]
