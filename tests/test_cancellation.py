"""A cancellation at every point where something waits.

Each operation is cancelled after 0, 1, 2 ... turns of the loop, until it ends before that. What
must hold whenever it was: no socket, task or transport is left, a cancelled read has lost no
byte, and the connection is either fit for the next exchange or closed, so that the next one
opens another.
"""

from __future__ import annotations

import asyncio
import functools
import io

import pytest

from aiohttpconn import HTTPConnection, HTTPSConnection

from .support import ConnectProxy, ScriptedServer, expect, read_all, send
from .support.leaks import happens, open_sockets

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"

MAX_TURNS = 400


async def turns(n: int) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


class Answering:
    """A server's script: read whole requests, answer each with *pieces*, in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    async def __call__(self, conn) -> None:
        while True:
            await conn.read_request()
            await conn.send(*self.pieces)


async def cancelled_after(k: int, operation) -> tuple[bool, object]:
    """Run *operation* for *k* turns, then cancel it; return (whether it ended before, result)."""
    task = asyncio.ensure_future(operation)
    await turns(k)
    done = task.done()
    task.cancel()
    try:
        return done, await task
    except asyncio.CancelledError:
        return done, None


async def usable(conn) -> None:
    """Have an exchange on *conn*, whatever has become of it."""
    conn_open = conn.sock is not None
    await conn.request("GET", "/next")
    response = await conn.getresponse()
    body = await response.read()
    assert (response.status, response.complete) == (200, True), (conn_open, body)
    assert body.endswith(b"hi")


async def settled(before: set[tuple[int, int]], allowed: int = 0) -> None:
    """Wait until no more sockets are open than *before*, but *allowed*."""
    closed = await happens(lambda: len(open_sockets() - before) <= allowed)
    assert closed, f"sockets stay open: {open_sockets() - before}"


class Peer:
    """A server, and how to connect to it: plainly, over TLS, through a tunnel."""

    def __init__(self, kind: str, certificates, script) -> None:
        tls = certificates.server if "tls" in kind else None
        self.server = ScriptedServer(script, tls=tls)
        self.proxy = None
        if "tunnel" in kind:
            self.proxy = ConnectProxy(tls=certificates.server if "secure" in kind else None)
        self.options = {"context": certificates.client} if "tls" in kind else {}
        if "secure" in kind:
            self.options["proxy_context"] = certificates.client
        self.kind = HTTPSConnection if "tls" in kind else HTTPConnection

    async def __aenter__(self):
        await self.server.__aenter__()
        if self.proxy is not None:
            await self.proxy.__aenter__()
        return self

    async def __aexit__(self, *exc_info):
        if self.proxy is not None:
            await self.proxy.__aexit__(*exc_info)
        await self.server.__aexit__(*exc_info)

    def connection(self, **options):
        to = self.proxy or self.server
        conn = self.kind("127.0.0.1", to.port, **self.options, **options)
        if self.proxy is not None:
            conn.set_tunnel("127.0.0.1", self.server.port)
        return conn


KINDS = ["plain", "tls", "tunnel", "tls tunnel", "secure tls tunnel"]


@pytest.mark.parametrize("kind", KINDS)
async def test_connect(certificates, kind):
    async with Peer(kind, certificates, Answering(OK)) as peer:
        # Once undisturbed: what is made once per process is not counted.
        async with peer.connection() as conn:
            await usable(conn)
        for k in range(MAX_TURNS):
            before = open_sockets()
            conn = peer.connection()
            done, _ = await cancelled_after(k, conn.connect())
            assert (conn.sock is not None) is done, k
            if not done:
                await settled(before, allowed=_server_sockets(peer))
            await usable(conn)
            conn.close()
            await conn.wait_closed()
            if done:
                assert k > 1
                return
        raise AssertionError("never connected")


def _server_sockets(peer) -> int:
    """Return how many sockets of the servers are open: theirs are no leaks of ours."""
    conns = peer.server.conns + (peer.proxy.conns if peer.proxy else [])
    return sum(conn.sock.fileno() >= 0 for conn in conns) * 2


class AsyncFile:
    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    async def read(self, n: int) -> bytes:
        await asyncio.sleep(0)
        return self.pieces.pop(0) if self.pieces else b""


async def agen():
    for _ in range(3):
        await asyncio.sleep(0)
        yield b"x" * 100_000


LARGE = 2_000_000

BODIES = {
    "none": lambda path: None,
    "small": lambda path: b"abc",
    "large": lambda path: b"x" * LARGE,
    "iterable": lambda path: [b"x" * 100_000] * 5,
    "async iterable": lambda path: agen(),
    "async read": lambda path: AsyncFile(b"x" * 100_000, b"y"),
    "reader": lambda path: io.BytesIO(b"x" * 300_000),
    "file": lambda path: path.open("rb"),
    "expect": lambda path: b"abc",
}


@pytest.mark.parametrize("connected", [False, True], ids=["new", "open"])
@pytest.mark.parametrize("kind", ["plain", "tls"])
@pytest.mark.parametrize("body", BODIES)
async def test_request(certificates, tmp_path, body, kind, connected):
    path = tmp_path / "f"
    with path.open("wb") as file:
        file.truncate(LARGE)

    async def script(conn) -> None:
        while True:
            head = await conn.read_head()
            if b"Expect" in head:
                await conn.send(b"HTTP/1.1 100 Continue\r\n\r\n")
                await conn.read_exactly(3)
            elif b"Content-Length" in head:
                length = int(head.partition(b"Content-Length: ")[2].partition(b"\r")[0])
                await conn.read_exactly(length)
            elif b"chunked" in head:
                await conn.read_until(b"0\r\n\r\n")
            await conn.send(OK)

    headers = {"Expect": "100-continue"} if body == "expect" else {}
    step = 1 if body in ("none", "small", "expect") else 3
    async with Peer(kind, certificates, script) as peer:
        for k in range(0, MAX_TURNS * 5, step):
            conn = peer.connection()
            if connected:
                await conn.connect()
            data = BODIES[body](path)
            done, _ = await cancelled_after(k, conn.request("POST", "/", data, headers))
            if body == "file":
                data.close()
            elif body == "async iterable":
                await data.aclose()
            if done:
                assert await (await conn.getresponse()).read() == b"hi"
            else:
                # Half a request may be on the wire, unless it had not begun.
                assert k == 0 or conn.sock is None, k
            await usable(conn)
            conn.close()
            await conn.wait_closed()
            if done:
                return
        raise AssertionError("never sent")


@pytest.mark.parametrize("kind", ["plain", "tls"])
async def test_getresponse(certificates, kind):
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    pieces = [interim[:9], interim[9:], OK[:9], OK[9:25], OK[25:-1], OK[-1:]]
    async with Peer(kind, certificates, Answering(*pieces)) as peer:
        conn = peer.connection()
        for k in range(1, MAX_TURNS):
            await conn.request("GET", "/")
            done, response = await cancelled_after(k, conn.getresponse())
            if done:
                assert await response.read() == b"hi"
            else:
                assert conn.sock is None, k
            await usable(conn)
            if done:
                break
        else:
            raise AssertionError("never answered")
        conn.close()
        await conn.wait_closed()


SMALL = bytes(range(65, 91)) * 2
BIG = bytes(range(256)) * 4000


def framed(body: bytes, framing: str, pieces: int) -> list[bytes]:
    size = -(-len(body) // pieces)
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    if framing == "length":
        return [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), *parts]
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [head, *(b"%X\r\n%b\r\n" % (len(part), part) for part in parts), b"0\r\n\r\n"]


async def _readinto(response, size: int, once: bool):
    buffer = bytearray(size)
    count = await (response.readinto1 if once else response.readinto)(buffer)
    return bytes(buffer[:count])


async def _lines(response):
    return b"".join(await response.readlines())


READS = {
    "read()": lambda r, n: r.read(),
    "read(n)": lambda r, n: r.read(n - 3),
    "read1": lambda r, n: r.read1(),
    "readinto": lambda r, n: _readinto(r, n - 3, False),
    "readinto1": lambda r, n: _readinto(r, n - 3, True),
    "readline": lambda r, n: r.readline(),
    "readlines": lambda r, n: _lines(r),
    "peek": lambda r, n: _peek(r),
}


async def _peek(response):
    await response.peek()
    return b""


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize(
    ("kind", "body"),
    [("plain", SMALL), ("plain", BIG), ("tls", BIG)],
    ids=["small", "big", "big-tls"],
)
async def test_read(certificates, kind, body, framing, read):
    pieces = framed(body, framing, 5)
    call = functools.partial(READS[read], n=len(body))
    async with Peer(kind, certificates, Answering(*pieces)) as peer:
        conn = peer.connection()
        for k in range(0, MAX_TURNS, 1 if body is SMALL else 2):
            await conn.request("GET", "/")
            response = await conn.getresponse()
            done, got = await cancelled_after(k, call(response))
            rest = await response.read()
            assert (got or b"") + rest == body, k
            assert response.complete
            # A cancelled read does not cost the connection.
            assert conn.sock is not None
            if done:
                break
        else:
            raise AssertionError("never read")
        assert peer.server.connections == 1
        conn.close()
        await conn.wait_closed()


async def test_a_read_cancelled_again_and_again():
    pieces = framed(BIG, "length", 20)
    async with ScriptedServer(Answering(*pieces)) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            for k in range(1, MAX_TURNS):
                _, got = await cancelled_after(k % 5, response.read())
                if got is not None:
                    break
            assert got == BIG


async def test_a_read_of_a_response_that_owns_its_socket():
    async def script(conn) -> None:
        await conn.read_head()
        await conn.send(b"HTTP/1.1 200 OK\r\n\r\n", b"some ", b"more ", b"bytes")
        await conn.close()

    async with ScriptedServer(script) as server:
        for k in range(MAX_TURNS):
            conn = HTTPConnection(server.host, server.port)
            await conn.request("GET", "/")
            response = await conn.getresponse()
            done, got = await cancelled_after(k, response.read())
            assert (got or b"") + await response.read() == b"some more bytes"
            await conn.wait_closed()
            if done:
                break


@pytest.mark.parametrize("kind", ["plain", "tls"])
async def test_wait_closed(certificates, kind):
    async with Peer(kind, certificates, Answering(OK)) as peer:
        for k in range(MAX_TURNS):
            conn = peer.connection()
            await conn.request("GET", "/")
            await (await conn.getresponse()).read()
            protocol = conn._protocol
            conn.close()
            done, _ = await cancelled_after(k, conn.wait_closed())
            assert await happens(lambda: protocol.transport is None), k  # noqa: B023 - called here
            if done:
                break


@pytest.mark.parametrize("kind", ["plain", "tls"])
async def test_async_with(certificates, kind):
    async def whole(peer) -> bytes:
        async with peer.connection() as conn:
            await conn.request("POST", "/", [b"x" * 70_000])
            return await (await conn.getresponse()).read()

    async with Peer(kind, certificates, Answering(OK[:20], OK[20:])) as peer:
        await whole(peer)
        for k in range(MAX_TURNS):
            done, got = await cancelled_after(k, whole(peer))
            if done:
                assert got == b"hi"
                break


async def test_a_timeout_of_the_callers_own(scripted):
    async with scripted() as conn:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await conn.request("GET", "/")
                await conn.getresponse()
        assert conn.sock is None
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(conn.request("GET", "/"), 0.02) or await asyncio.wait_for(
                conn.getresponse(), 0.02
            )
        assert conn.sock is None


async def test_a_source_that_takes_its_time_to_be_cancelled():
    cleaned = asyncio.Event()

    async def items():
        try:
            yield b"x"
            await asyncio.Event().wait()
        finally:
            await turns(5)
            cleaned.set()

    async with ScriptedServer(Answering(OK)) as server:
        conn = HTTPConnection(server.host, server.port)
        task = asyncio.create_task(conn.request("POST", "/", items()))
        while not server.heads:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cleaned.is_set()
        assert conn.sock is None
        await usable(conn)
        conn.close()
        await conn.wait_closed()


@pytest.mark.parametrize("stopped", [False, True], ids=["cancelled", "refused"])
async def test_a_source_that_is_ending_is_not_left_alone_by_another_cancellation(stopped):
    """Refused or cancelled, it takes its time; who asked for it is cancelled meanwhile."""
    ending, cleaned = asyncio.Event(), asyncio.Event()

    async def items():
        try:
            yield b"x"
            await asyncio.Event().wait()
        finally:
            ending.set()
            try:
                await asyncio.Event().wait()
            finally:
                await turns(5)
                cleaned.set()

    refusal = b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n"
    script = [expect(), send(refusal)] if stopped else [expect()]
    async with ScriptedServer([*script, read_all()]) as server:
        conn = HTTPConnection(server.host, server.port)
        task = asyncio.create_task(conn.request("POST", "/", items()))
        while not server.heads:
            await asyncio.sleep(0)
        if not stopped:
            task.cancel()
        await ending.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cleaned.is_set()
        assert conn.sock is None


async def test_a_source_that_fails_when_it_is_cancelled():
    async def items():
        try:
            yield b"x"
            await asyncio.Event().wait()
        finally:
            raise ZeroDivisionError("mine")

    async with ScriptedServer(Answering(OK)) as server:
        conn = HTTPConnection(server.host, server.port)
        task = asyncio.create_task(conn.request("POST", "/", items()))
        while not server.heads:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(ZeroDivisionError, match="mine"):
            await task
        assert conn.sock is None
        await usable(conn)
        conn.close()
        await conn.wait_closed()
