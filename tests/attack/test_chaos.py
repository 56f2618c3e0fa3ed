"""Chaos: a hundred requests at once, against a server that fails in every way it can.

The server draws a fault for about a third of the requests, and a tenth of the requests is cancelled
at a random turn of the loop. Each response carries the id of its request, the length and the digest
of its body, so that a request can tell whether the whole of its own answer came. A response that no
request asked for goes into the same write as the response before it, and with pipelining only
behind ``Connection: close``: HTTP/1.1 has no means to tell it from an answer when the next request
has left already.

A seed and a request's id give the faults of this request, its kind and its cancellation. The seed
is in a test's id. ``CHAOS_SEEDS=1000-1099`` in the environment is for other seeds.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gzip
import hashlib
import os
import random
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest

import aiohttpconn
from aiohttpconn import Client, HTTPException, Timeout
from aiohttpconn.source import DISCARD_SHARED_SECONDS

from ..support.leaks import happens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

AT_ONCE = 100

FAULTY = 0.3
"""The part of the requests that meet a fault."""

CANCELLED = 0.1

LIMIT = 20
"""Connections of the client; the other requests wait for one."""

LEASED = Timeout(total=0.2)
"""For what goes to the pool itself, which has a limit of its own."""

REQUESTS = 250
"""Requests of each seed: 20 seeds make 5,000 of each combination, and 40,000 in all."""

FEW = 300
"""Requests where only a few seconds are left."""


def seeds() -> list[Any]:
    first, _, last = os.environ.get("CHAOS_SEEDS", "1-20").partition("-")
    many = range(int(first), int(last or first) + 1)
    siege = [pytest.param(seed, REQUESTS, 1.0, marks=pytest.mark.siege) for seed in many]
    return [pytest.param(0, FEW, 0.2), *siege]


@pytest.mark.parametrize("pipelining", [1, 4], ids=["alone", "pipelined"])
@pytest.mark.parametrize("kind", ["plain", "tls"])
@pytest.mark.parametrize(("seed", "requests", "total"), seeds())
async def test_chaos(certificates, ticking, seed, requests, total, kind, pipelining):
    tls = kind == "tls"
    server = Server(seed, pipelining, tls)
    outcomes: collections.Counter[str] = collections.Counter()
    async with server.listening(certificates.server if tls else None) as url:
        async with Client(
            timeout=Timeout(total=total),
            limit=LIMIT,
            pipelining=pipelining,
            context=certificates.client if tls else None,
            trust_env=False,
        ) as client:
            numbers = iter(range(requests))

            async def work() -> None:
                for number in numbers:
                    # A pool gives pipelining up where it loses more than it gains: not here.
                    for origin in client.pool._connections.scheduler.origins.values():
                        origin.pipelining = pipelining
                    outcomes[await outcome(client, url, seed, number)] += 1

            await asyncio.gather(*(work() for _ in range(AT_ONCE)))
            # A shared connection waits this long for an answer whose request was cancelled.
            ticking.advance(DISCARD_SHARED_SECONDS + 1)
            await settled(client)

            server.faulty = False
            clean = (get(client, f"{url}/{n}") for n in range(requests, requests + AT_ONCE))
            await asyncio.gather(*clean)
            await settled(client)
        stats = client.stats()
        assert (stats.open, stats.leased, stats.queued) == (0, 0, 0)
        assert await happens(lambda: not server.tasks)
    print(outcomes, server.sent, server.together)
    assert server.wrong == []
    assert sum(outcomes.values()) == requests
    assert outcomes["whole"] > requests / 3
    assert outcomes["CancelledError"] > 0
    assert (server.together > 0) is (pipelining > 1)


# Requests --------------------------------------------------------------------------------------


async def outcome(client: Client, url: str, seed: int, number: int) -> str:
    """Make the request *number*; return "whole", or the name of its documented error."""
    chance = random.Random(f"{seed} {number} request")
    ask = chance.choice(KINDS)
    task = asyncio.ensure_future(ask(client, f"{url}/{number}"))
    if chance.random() < CANCELLED:
        for _ in range(chance.randrange(chance.choice((3, 10, 40)))):
            await asyncio.sleep(0)
        task.cancel()
    await asyncio.wait({task})
    if task.cancelled():
        return "CancelledError"
    error = task.exception()
    if error is None:
        return "whole"
    if not isinstance(error, HTTPException | OSError) or not documented(error):
        raise error
    return type(error).__name__


def documented(error: BaseException) -> bool:
    """Whether *error* is of the documented tree, and tells its request."""
    kind = type(error)
    known = kind.__name__ in aiohttpconn.__all__ or issubclass(kind, ConnectionError)
    return known and "/" in str(error)


def check(url: str, status: int, headers: Any, body: bytes, raw: bool = False) -> None:
    """Assert that this is the whole answer to the request of *url*."""
    name = url.rpartition("/")[2]
    assert status in (200, 302), (name, status)
    assert headers["X-Id"] == name, f"{name} got the answer of {headers['X-Id']}"
    digest = headers["X-Raw" if raw else "X-Digest"]
    assert digest == digest_of(body), f"{name} got {len(body)} of {headers['X-Length']} bytes"


async def get(client: Client, url: str) -> None:
    response = await client.get(url)
    check(url, response.status, response.headers, response.content)


async def post(client: Client, url: str) -> None:
    response = await client.post(url, content=uploaded(url))
    check(url, response.status, response.headers, response.content)


async def put(client: Client, url: str) -> None:
    async def pieces():
        for piece in (uploaded(url)[:500], uploaded(url)[500:]):
            yield piece
            await asyncio.sleep(0)

    async with contextlib.aclosing(pieces()) as body:
        response = await client.put(url, content=body)
    check(url, response.status, response.headers, response.content)


async def stream(client: Client, url: str) -> None:
    body = b""
    async with client.stream("GET", url) as response:
        async for piece in response.iter_bytes():
            body += piece
    check(url, response.status, response.headers, body)


async def stream_in_part(client: Client, url: str) -> None:
    async with client.stream("GET", url) as response:
        assert response.headers["X-Id"] == url.rpartition("/")[2]
        async for _ in response.iter_bytes(1000):
            break


async def pooled(client: Client, url: str) -> None:
    response = await client.pool.request("GET", url, timeout=LEASED)
    check(url, response.status, response.headers, await response.read(), raw=True)


async def leased(client: Client, url: str) -> None:
    async with client.pool.connection(url, timeout=LEASED) as conn:
        for path in (url, f"{url}.again"):
            await conn.request("GET", "/" + path.rpartition("/")[2])
            response = await conn.getresponse()
            check(path, response.status, response.headers, await response.read(), raw=True)


KINDS: tuple[Callable[[Client, str], Awaitable[None]], ...] = (
    get,
    get,
    get,
    post,
    put,
    stream,
    stream_in_part,
    pooled,
    leased,
)


async def settled(client: Client) -> None:
    """Wait until no request holds or wants a connection, and no closed one has its socket."""

    def over() -> bool:
        stats = client.stats()
        closing = client.pool._connections.closing.count()
        return (stats.leased, stats.queued, closing) == (0, 0, 0)

    assert await happens(over), client.stats()
    assert client.stats().open <= LIMIT


# The server ------------------------------------------------------------------------------------


def digest_of(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=8).hexdigest()


def uploaded(url: str) -> bytes:
    return url.rpartition("/")[2].encode() * 300


class Answer:
    """A right answer to the request *name*: its head, and its body as it is framed."""

    def __init__(self, name: str, chance: random.Random) -> None:
        self.name = name
        self.body = (name + ".").encode() * chance.choice((1, 10, 1000, 1000, 20_000))
        self.coded = self.body
        self.fields: list[str] = []
        if chance.random() < 0.3:
            self.coded = gzip.compress(self.body, 1)
            self.fields.append("Content-Encoding: gzip")
        self.chunk = chance.choice((0, 0, 100, 5000))
        self.status = "200 OK"
        self.version = "1.1"

    def head(self, length: int | None = None) -> bytes:
        framing = f"Content-Length: {len(self.coded) if length is None else length}"
        if self.version == "1.0":
            framing = "Connection: close"
        elif self.chunk and length is None:
            framing = "Transfer-Encoding: chunked"
        lines = [
            f"HTTP/{self.version} {self.status}",
            f"X-Id: {self.name}",
            f"X-Length: {len(self.body)}",
            f"X-Digest: {digest_of(self.body)}",
            f"X-Raw: {digest_of(self.coded)}",
            framing,
            *self.fields,
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def framed(self) -> bytes:
        if not self.chunk or self.version == "1.0":
            return self.coded
        size = max(self.chunk, len(self.coded) // 50)
        parts = [self.coded[i : i + size] for i in range(0, len(self.coded), size)]
        return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"

    def wire(self) -> bytes:
        return self.head() + self.framed()


class Server:
    """An HTTP server that fails on purpose; ``wrong`` is what it found wrong with requests."""

    def __init__(self, seed: int, pipelining: int, tls: bool) -> None:
        self.seed = seed
        self.pipelining = pipelining
        self.tls = tls
        self.faulty = True
        self.asked: collections.Counter[str] = collections.Counter()
        self.sent: collections.Counter[str] = collections.Counter()
        self.together = 0
        """Requests that came while the one before was not answered."""
        self.wrong: list[str] = []
        self.tasks: set[asyncio.Task[Any]] = set()

    @contextlib.asynccontextmanager
    async def listening(self, context: Any):
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=context, backlog=500)
        scheme = "http" if context is None else "https"
        try:
            yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in self.tasks:
                task.cancel()
            await server.wait_closed()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            while await self.exchange(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over
        finally:
            self.tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Take a request and answer it; return whether another may come."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, target = head.decode().split()[:2]
        if "transfer-encoding: chunked" in head.decode().lower():
            body = b""
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
        else:
            _, found, rest = head.lower().partition(b"content-length:")
            body = await reader.readexactly(int(rest.split()[0])) if found else b""
        name, _, hop = target[1:].partition("?")
        if method in ("POST", "PUT") and body != uploaded(name):
            self.wrong.append(f"{method} {target} has {len(body)} bytes of {uploaded(name)[:20]!r}")
        self.asked[f"{method} {target}"] += 1
        count = self.asked[f"{method} {target}"]
        if method == "POST" and count > 1:
            self.wrong.append(f"{method} {target} came {count} times")
        chance = random.Random(f"{self.seed} {target} {count}")
        answer = Answer(name, chance)
        fault = sound
        if self.faulty and chance.random() < FAULTY:
            fault = chance.choice(FAULTS)
            if fault is redirect and hop.count("x") > 2:
                fault = sound
        self.sent[fault.__name__] += 1
        self.together += bool(reader._buffer)  # type: ignore[attr-defined]
        return await fault(Exchange(self, reader, writer, chance, answer, target))


class Exchange:
    """What a fault works with."""

    def __init__(
        self,
        server: Server,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        chance: random.Random,
        answer: Answer,
        target: str,
    ) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.chance = chance
        self.answer = answer
        self.target = target

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def send_part(self) -> None:
        wire = self.answer.wire()
        await self.send(wire[: self.chance.randrange(len(wire))])

    async def silence(self) -> bool:
        """Take what comes until the client goes away."""
        while await self.reader.read(65536):
            pass
        return False

    def small(self) -> Answer:
        """Return an answer that goes into a single read together with what follows it."""
        self.answer.body = self.answer.body[:2000]
        self.answer.coded = self.answer.body
        self.answer.fields.clear()
        return self.answer


async def sound(it: Exchange) -> bool:
    await it.send(it.answer.wire())
    return True


async def cut(it: Exchange) -> bool:
    await it.send_part()
    return False


async def reset(it: Exchange) -> bool:
    await it.send_part()
    sock = it.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    it.writer.transport.abort()
    return False


async def stall(it: Exchange) -> bool:
    await it.send_part()
    return await it.silence()


async def garbage_before(it: Exchange) -> bool:
    await it.send(it.chance.randbytes(it.chance.randrange(1, 99)) + b"\r\n" + it.answer.wire())
    return True


async def garbage_behind(it: Exchange) -> bool:
    await it.send(it.small().wire() + it.chance.choice((b"\0", b"\r\n", b"0\r\n\r\n", b"x" * 99)))
    return True


async def second_response(it: Exchange) -> bool:
    answer = it.small()
    if it.server.pipelining > 1:
        answer.fields.append("Connection: close")
    await it.send(answer.wire() + Answer("stray", it.chance).wire()[:8000])
    return True


async def too_long_a_length(it: Exchange) -> bool:
    answer = it.answer
    await it.send(answer.head(len(answer.coded) + it.chance.randrange(1, 99)) + answer.coded)
    return False


async def too_short_a_length(it: Exchange) -> bool:
    # By its framing the response is whole, and what follows is garbage.
    answer = it.small()
    rest = answer.body[len(answer.body) // 2 :]
    answer.body = answer.coded = answer.body[: len(answer.body) // 2]
    await it.send(answer.head(len(answer.body)) + answer.body + rest)
    return True


async def two_lengths(it: Exchange) -> bool:
    it.answer.fields.append(f"Content-Length: {len(it.answer.coded) + 1}")
    it.answer.chunk = 0
    await it.send(it.answer.wire())
    return True


async def wrong_chunk(it: Exchange) -> bool:
    head = it.answer.head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    size = max(0, len(it.answer.coded) + it.chance.choice((-1, 1, 1000)))
    await it.send(head + b"%x\r\n%b\r\n0\r\n\r\n" % (size, it.answer.coded))
    return it.chance.random() < 0.5


async def drip(it: Exchange) -> bool:
    wire = it.answer.wire()
    size = max(1, len(wire) // 40)
    for i in range(0, len(wire), size):
        await it.send(wire[i : i + size])
        await asyncio.sleep(0)
    return True


async def interim_flood(it: Exchange) -> bool:
    interim = b"HTTP/1.1 103 Early Hints\r\nX-Id: early\r\n\r\n"
    await it.send(interim * it.chance.choice((1, 3, 50, 3000)) + it.answer.wire())
    return True


async def half_close(it: Exchange) -> bool:
    if it.chance.random() < 0.5:
        await it.send_part()
    else:
        await it.send(it.answer.wire())
    if it.writer.can_write_eof():
        it.writer.write_eof()
        return await it.silence()
    return False


async def says_close_and_stays(it: Exchange) -> bool:
    it.answer.fields.append("Connection: close")
    await it.send(it.answer.wire())
    return True


async def stays_silently(it: Exchange) -> bool:
    it.answer.fields.append("Connection: close")
    await it.send(it.answer.wire())
    return await it.silence()


async def says_keep_alive_and_closes(it: Exchange) -> bool:
    it.answer.fields.append("Connection: keep-alive")
    await it.send(it.answer.wire())
    return False


async def until_the_end(it: Exchange) -> bool:
    it.answer.version = "1.0"
    await it.send(it.answer.wire())
    return False


async def redirect(it: Exchange) -> bool:
    answer = it.answer
    answer.status = "302 Found"
    mark = "" if it.chance.random() < 0.2 else ("x" if "?" in it.target else "?x")
    answer.fields.append(f"Location: {it.target}{mark}")
    await it.send(answer.wire())
    return True


async def broken_gzip(it: Exchange) -> bool:
    answer = it.answer
    answer.fields = ["Content-Encoding: gzip"]
    coded = bytearray(gzip.compress(answer.body, 1))
    if it.chance.random() < 0.5:
        del coded[it.chance.randrange(1, len(coded)) :]
    else:
        coded[it.chance.randrange(10, len(coded))] ^= 1 << it.chance.randrange(8)
    answer.coded = bytes(coded)
    await it.send(answer.wire())
    return True


FAULTS = (
    cut,
    cut,
    reset,
    reset,
    stall,
    garbage_before,
    garbage_behind,
    second_response,
    too_long_a_length,
    too_short_a_length,
    two_lengths,
    wrong_chunk,
    drip,
    interim_flood,
    half_close,
    says_close_and_stays,
    stays_silently,
    says_keep_alive_and_closes,
    until_the_end,
    redirect,
    broken_gzip,
)
