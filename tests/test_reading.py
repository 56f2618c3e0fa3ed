"""response.py, exchange.py: every way to read a body, in every framing, however delivered."""

from __future__ import annotations

import array
import asyncio
import io
import sys
import tracemalloc
from contextlib import suppress

import pytest

from aiohttpconn import HTTPConnection, HTTPSConnection, IncompleteRead, buffers, exchange
from aiohttpconn import response as response_module
from aiohttpconn.exchange import HIGH_WATER, Exchange
from aiohttpconn.protocol import HTTP1Protocol

from .support import ScriptedServer, close, expect, named_deliveries, reset, send, wait

BODY = b"one\ntwo\r\n\nthree, and the end"
FRAMED = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\n" + BODY,
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\non\r\n5;x=y\r\ne\ntwo\r\n1\r\n\r\r\n14\r\n\n\nthree, and the end\r\n0\r\n\r\n",
    "close": b"HTTP/1.1 200 OK\r\n\r\n" + BODY,
}


async def turns(n: int = 20) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


# Every method -------------------------------------------------------------------------------


async def pieces_of(call) -> list[bytes]:
    """Call *call* until it returns b""."""
    pieces = []
    while piece := await call():
        pieces.append(piece)
    return pieces


async def by_readinto(response, size: int) -> list[bytes]:
    pieces = []
    buffer = bytearray(size)
    while count := await response.readinto(buffer):
        pieces.append(bytes(buffer[:count]))
    return pieces


async def by_readinto1(response, size: int) -> list[bytes]:
    pieces = []
    buffer = bytearray(size)
    while count := await response.readinto1(buffer):
        assert count <= size
        pieces.append(bytes(buffer[:count]))
    return pieces


async def by_peek(response) -> list[bytes]:
    pieces = []
    while seen := await response.peek(3):
        assert len(seen) <= 3
        assert await response.peek(1) == seen[:1]
        taken = await response.read1(2)
        assert taken.startswith(seen[:2])
        pieces.append(taken)
    return pieces


async def by_mixing(response) -> list[bytes]:
    buffer = bytearray(3)
    pieces = [await response.read(2), await response.readline(), await response.read1(1)]
    count = await response.readinto(buffer)
    pieces += [bytes(buffer[:count]), await response.read(0), await response.read()]
    return pieces


# name: (reads all, what a file gives for the same calls; None where pieces depend on arrival)
METHODS = {
    "read()": (lambda r: pieces_of(r.read), lambda f: [f.read()]),
    "read(None)": (lambda r: pieces_of(lambda: r.read(None)), lambda f: [f.read()]),
    "read(-1)": (lambda r: pieces_of(lambda: r.read(-1)), lambda f: [f.read()]),
    "read(1)": (
        lambda r: pieces_of(lambda: r.read(1)),
        lambda f: list(iter(lambda: f.read(1), b"")),
    ),
    "read(5)": (
        lambda r: pieces_of(lambda: r.read(5)),
        lambda f: list(iter(lambda: f.read(5), b"")),
    ),
    "read(28)": (lambda r: pieces_of(lambda: r.read(28)), lambda f: [f.read()]),
    "read(999)": (lambda r: pieces_of(lambda: r.read(999)), lambda f: [f.read()]),
    "read1()": (lambda r: pieces_of(r.read1), None),
    "read1(2)": (lambda r: pieces_of(lambda: r.read1(2)), None),
    "readinto(4)": (lambda r: by_readinto(r, 4), lambda f: list(iter(lambda: f.read(4), b""))),
    "readinto(99)": (lambda r: by_readinto(r, 99), lambda f: [f.read()]),
    "readinto1(4)": (lambda r: by_readinto1(r, 4), None),
    "peek": (by_peek, None),
    "readline()": (lambda r: pieces_of(r.readline), lambda f: f.readlines()),
    "readline(2)": (
        lambda r: pieces_of(lambda: r.readline(2)),
        lambda f: list(iter(lambda: f.readline(2), b"")),
    ),
    "readlines()": (lambda r: r.readlines(), lambda f: f.readlines()),
    "readlines(5)": (
        lambda r: _concatenated(r, 5),
        lambda f: [*f.readlines(5), *f.readlines(5), *f.readlines(5)],
    ),
    "async for": (lambda r: _listed(r), lambda f: list(f)),
    "iter_bytes()": (lambda r: _listed(r.iter_bytes()), None),
    "iter_bytes(6)": (
        lambda r: _listed(r.iter_bytes(6)),
        lambda f: list(iter(lambda: f.read(6), b"")),
    ),
    "mixed": (by_mixing, None),
}


async def _listed(iterable) -> list[bytes]:
    return [piece async for piece in iterable]


async def _concatenated(response, hint: int) -> list[bytes]:
    lines: list[bytes] = []
    while more := await response.readlines(hint):
        lines += more
    return lines


class Answering:
    """A server's script: answer every request with the next delivery of *data*."""

    def __init__(self, data: bytes, closing: bool, splits: int = 8) -> None:
        self.deliveries = [pieces for _, pieces in named_deliveries(data, splits=splits)]
        self.next = iter(())
        self.closing = closing

    def rewind(self) -> None:
        self.next = iter(self.deliveries)

    async def __call__(self, conn) -> None:
        while True:
            await conn.read_head()
            await conn.send(*next(self.next))
            if self.closing:
                await conn.close()
                return


@pytest.mark.parametrize("framing", FRAMED)
async def test_every_method_reads_the_same_however_it_is_delivered(framing):
    answering = Answering(FRAMED[framing], framing == "close")
    async with ScriptedServer(answering) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            for name, (read, expected) in METHODS.items():
                answering.rewind()
                for pieces in answering.deliveries:
                    case = f"{name} of {pieces}"
                    await conn.request("GET", "/")
                    response = await conn.getresponse()
                    got = await read(response)
                    assert b"".join(got) == BODY, case
                    assert expected is None or got == expected(io.BytesIO(BODY)), case
                    assert response.isclosed(), case
                    assert response.complete, case
                    assert response.received == len(BODY), case
                    assert await response.read() == b"", case


@pytest.mark.parametrize("framing", FRAMED)
async def test_every_method_reads_it_with_little_memory(framing):
    answering = Answering(FRAMED[framing], framing == "close", splits=3)
    async with ScriptedServer(answering) as server:
        async with HTTPConnection(server.host, server.port, high_water=4) as conn:
            for name, (read, expected) in METHODS.items():
                answering.rewind()
                for _ in answering.deliveries:
                    await conn.request("GET", "/")
                    response = await conn.getresponse()
                    got = await read(response)
                    assert b"".join(got) == BODY, name
                    assert expected is None or got == expected(io.BytesIO(BODY)), name


CUT = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\n" + BODY,
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"8\r\none\ntwo\r\r\n18\r\n\n\nthree, and the end",
    "between chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"1C\r\n" + BODY + b"\r\n",
}


@pytest.mark.parametrize("ending", ["fin", "rst"])
@pytest.mark.parametrize("framing", CUT)
async def test_a_body_that_ends_early_raises_from_every_method_after_what_arrived(framing, ending):
    data = CUT[framing]
    end = close() if ending == "fin" else reset()
    async with ScriptedServer([expect(), send(data[:60], data[60:]), end]) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            for name, (read, _) in METHODS.items():
                await conn.request("GET", "/")
                response = await conn.getresponse()
                got = []
                with pytest.raises(IncompleteRead) as info:
                    got += await read(response)
                    # read(n) and the like gave what had arrived, and end so.
                    got.append(await response.read())
                whole = b"".join(got) + info.value.partial
                assert whole in (BODY, info.value.partial), name
                if name == "read()":
                    assert info.value.partial == BODY
                    expected = {"length": 4, "chunked": 4, "between chunks": None}[framing]
                    assert info.value.expected == expected
                    more = "" if expected is None else f", {expected} more expected"
                    assert f": IncompleteRead(28 bytes read{more}): " in str(info.value)
                assert not response.complete, name
                for again in (response.read, response.read1, response.readline, response.peek):
                    with pytest.raises(IncompleteRead):
                        await again()


async def test_reading_by_amounts_returns_what_arrived_and_then_raises(scripted):
    async with scripted(CUT["length"], close=True) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert await response.read(20) == BODY[:20]
        assert await response.read(20) == BODY[20:]
        with pytest.raises(IncompleteRead) as info:
            await response.read(20)
        assert (info.value.partial, info.value.expected) == (b"", 4)


async def test_iterating_gives_the_last_piece_before_it_raises(scripted):
    async with scripted(CUT["length"], close=True) as conn:
        await conn.request("GET", "/")
        got = []
        with pytest.raises(IncompleteRead):
            async for line in await conn.getresponse():
                got += [line]
        assert b"".join(got) == BODY


@pytest.mark.parametrize("n", [0, -1])
async def test_iter_bytes_needs_a_size(scripted, n):
    async with scripted(FRAMED["length"]) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        with pytest.raises(ValueError, match="n above 0") as info:
            await anext(response.iter_bytes(n))
        assert str(info.value) == f"iter_bytes(n) needs n above 0, got {n}"


async def test_reading_nothing_does_not_wait(scripted):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    async with scripted(head) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert await response.read(0) == b""
        assert await response.read1(0) == b""
        assert await response.readline(0) == b""
        assert await response.readinto(bytearray()) == 0
        assert not response.isclosed()


async def test_readinto_takes_any_writable_buffer(scripted):
    async with scripted(
        b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n" + b"\x01\0\0\0" * 3
    ) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        numbers = array.array("i", [0, 0])
        assert await response.readinto(numbers) == 8
        assert numbers.tolist() == [1, 1]
        rest = bytearray(b"........")
        assert await response.readinto(memoryview(rest)[2:]) == 4
        assert rest == b"..\x01\0\0\0.."


async def test_readinto_refuses_what_cannot_be_written(scripted):
    async with scripted(FRAMED["length"]) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        with pytest.raises(TypeError) as info:
            await response.readinto(b"read-only")
        assert str(info.value) == "readinto needs a writable buffer, got bytes"
        assert await response.read() == BODY


# Two at once, and cancellation --------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in METHODS if name != "mixed"])
async def test_two_readers_at_once(name):
    read, _ = METHODS[name]
    release = asyncio.Event()
    data = FRAMED["length"]
    async with ScriptedServer([expect(), send(data[:-28]), wait(release), send(BODY)]) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            first = asyncio.create_task(response.read())
            await turns(3)
            with pytest.raises(RuntimeError) as info:
                await read(response)
            assert str(info.value) == "this response is being read by another task already"
            release.set()
            assert await first == BODY


@pytest.mark.parametrize("framing", FRAMED)
async def test_a_cancelled_read_loses_nothing(framing):
    data = FRAMED[framing]
    for name, (read, _) in METHODS.items():
        release = asyncio.Event()
        steps = [expect(), send(data[:-20]), wait(release), send(data[-20:])]
        steps += [close()] if framing == "close" else []
        async with ScriptedServer(steps) as server:
            async with HTTPConnection(server.host, server.port) as conn:
                await conn.request("GET", "/")
                response = await conn.getresponse()
                got = []
                task = asyncio.create_task(read(response))
                await turns(8)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                release.set()
                got.append(await response.read())
                if name in _KEEPS_NOTHING:
                    assert b"".join(got) == BODY, name
                else:  # several calls: those that returned have taken their bytes
                    assert BODY.endswith(b"".join(got)), name
                assert response.received == len(BODY)


_KEEPS_NOTHING = {
    "read()",
    "read(None)",
    "read(-1)",
    "read(28)",
    "read(999)",
    "readinto(99)",
    "readlines()",
}


async def test_a_cancelled_iteration_has_lost_nothing_of_what_it_did_not_yield():
    release = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\n"
    script = [expect(), send(head + BODY[:15]), wait(release), send(BODY[15:])]
    async with ScriptedServer(script) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            lines = []

            async def collect():
                async for line in response:
                    lines.append(line)  # noqa: PERF401 - what came before it is cancelled

            task = asyncio.create_task(collect())
            await turns()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert lines == [b"one\n", b"two\r\n", b"\n"]
            release.set()
            assert await response.read() == b"three, and the end"


# Landing ------------------------------------------------------------------------------------

BIG = bytes(range(251)) * 12_000  # 3 MB


@pytest.fixture
def landed(monkeypatch):
    """Return a list with the sizes of what was read straight into a caller's memory."""
    sizes = []
    original = Exchange.landed

    def counting(self, size):
        sizes.append(size)
        original(self, size)

    monkeypatch.setattr(Exchange, "landed", counting)
    return sizes


def connecting(server, certificates, **options):
    if server.tls is None:
        return HTTPConnection(server.host, server.port, **options)
    return HTTPSConnection("localhost", server.port, context=certificates.client, **options)


def big_script(body: bytes = BIG):
    return [expect(), send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body)]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("amount", [None, len(BIG), 1_000_000, 99_999_999])
async def test_a_large_read_lands_in_its_result(certificates, landed, amount, tls):
    context = certificates.server if tls else None
    async with ScriptedServer(big_script() * 2, tls=context) as server:
        async with connecting(server, certificates) as conn:
            for _ in range(2):
                await conn.request("GET", "/")
                response = await conn.getresponse()
                assert b"".join(await pieces_of(lambda: response.read(amount))) == BIG  # noqa: B023
                assert response.complete
            assert server.connections == 1
    assert sum(landed) > len(BIG) // 2


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_readinto_lands_in_the_callers_memory(certificates, landed, tls):
    context = certificates.server if tls else None
    async with ScriptedServer(big_script() * 2, tls=context) as server:
        async with connecting(server, certificates) as conn:
            for size in (len(BIG), 700_000):
                await conn.request("GET", "/")
                response = await conn.getresponse()
                assert b"".join(await by_readinto(response, size)) == BIG
    assert sum(landed) > len(BIG) // 2


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_iter_bytes_lands_in_its_pieces(certificates, landed, tls):
    context = certificates.server if tls else None
    async with ScriptedServer(big_script() * 2, tls=context) as server:
        async with connecting(server, certificates) as conn:
            for _ in range(2):
                await conn.request("GET", "/")
                response = await conn.getresponse()
                pieces = [piece async for piece in response.iter_bytes()]
                assert b"".join(pieces) == BIG
                assert max(map(len, pieces)) <= exchange.HIGH_WATER + (320 * 1024 if tls else 0)
                assert {type(piece) for piece in pieces} == {bytes}
            assert server.connections == 1
    # What TLS has decrypted has to be taken whole: a piece has no room for all of it.
    assert (sum(landed) > len(BIG) // 2) == (not tls)


async def test_a_piece_is_no_larger_than_what_arrived():
    release = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    steps = [expect(), send(head), send(b"abc"), wait(release), send(b"d" * 999_997)]
    async with ScriptedServer(steps) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            pieces = response.iter_bytes()
            assert await anext(pieces) == b"abc"
            release.set()
            assert b"".join([piece async for piece in pieces]) == b"d" * 999_997


async def test_a_cancelled_iteration_unreads_what_landed(landed):
    body = BIG[:600_000]
    parts = [body[i : i + 50_000] for i in range(0, len(body), 50_000)]
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with ScriptedServer([expect(), send(head, *parts)] * 20) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            for k in range(20):
                await conn.request("GET", "/")
                response = await conn.getresponse()
                got = []

                async def iterate(response=response, got=got):
                    async for piece in response.iter_bytes():
                        got.append(piece)

                task = asyncio.create_task(iterate())
                await turns(k)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                assert b"".join(got) + await response.read() == body, k
            assert server.connections == 1
    assert landed


async def test_readinto1_lands_and_does_not_wait_for_more(landed):
    release = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
    async with ScriptedServer([expect(), send(head, b"abc"), wait(release), send(b"defghij")]) as s:
        async with HTTPConnection(s.host, s.port) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            buffer = bytearray(10)
            assert await response.readinto1(buffer) == 3
            assert bytes(buffer[:3]) == b"abc"
            release.set()
            assert await response.read() == b"defghij"


async def test_memory_that_a_reader_has_given_back_is_not_written_to(landed):
    release = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n"
    steps = [expect(), send(head, b"a" * 1000), wait(release), send(b"b" * 199_000)]
    async with ScriptedServer(steps) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            buffer = bytearray(200_000)
            task = asyncio.create_task(response.readinto(buffer))
            await turns(10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # Nobody holds a view of it: it can be resized.
            del buffer[5:]
            release.set()
            await turns(10)
            assert bytes(buffer) == b"aaaaa"
            assert await response.read() == b"a" * 1000 + b"b" * 199_000
    assert sum(landed) >= 1000


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_large_read_cancelled_anywhere_loses_nothing(certificates, landed, tls):
    body = BIG[:600_000]
    size = 50_000
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    context = certificates.server if tls else None
    async with ScriptedServer([expect(), send(head, *pieces)] * 40, tls=context) as server:
        async with connecting(server, certificates) as conn:
            for k in range(0, 40, 3):
                await conn.request("GET", "/")
                response = await conn.getresponse()
                task = asyncio.create_task(response.read())
                await turns(k)
                task.cancel()
                try:
                    got = await task
                except asyncio.CancelledError:
                    got = await response.read()
                assert got == body, k
            assert server.connections == 1


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_large_body_that_ends_early_is_partial(certificates, tls):
    context = certificates.server if tls else None
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n"
    script = [expect(), send(head, BIG[:500_000]), close()]
    async with ScriptedServer(script, tls=context) as server:
        async with connecting(server, certificates) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            with pytest.raises(IncompleteRead) as info:
                await response.read()
    assert info.value.partial == BIG[:500_000]
    assert info.value.expected == 9_999_999_999 - 500_000


def test_freed_memory_is_kept_where_there_is_enough(monkeypatch):
    """glibc is told by freeing a block, untouched: too little address space is no error."""
    monkeypatch.setattr(buffers, "_FREED", sys.maxsize - 1000)
    buffers.keep_freed_memory()


async def test_small_buffers_are_filled_from_what_was_read_at_once(landed):
    async with ScriptedServer(big_script()) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            assert b"".join(await by_readinto(response, 1000)) == BIG
    assert landed == []


async def test_an_announced_length_sizes_no_allocation(scripted):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n12345"
    async with scripted(head, close=True) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        tracemalloc.start()
        with pytest.raises(IncompleteRead):
            await response.read()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < response_module.LANDING_STEP * 2


async def test_a_read_grows_in_steps(monkeypatch):
    monkeypatch.setattr(response_module, "LANDING_STEP", 100_000)
    async with ScriptedServer(big_script()) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/")
            assert await (await conn.getresponse()).read() == BIG


async def test_a_large_body_without_a_length(scripted):
    chunk = b"%X\r\n" % 100_000 + b"c" * 100_000 + b"\r\n"
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with scripted(
        [head, *[chunk] * 12, b"0\r\n\r\n"], [head, *[chunk] * 12, b"0\r\n\r\n"]
    ) as c:
        await c.request("GET", "/")
        assert await (await c.getresponse()).read() == b"c" * 1_200_000
        await c.request("GET", "/")
        response = await c.getresponse()
        assert await response.read(700_000) == b"c" * 700_000
        assert await response.read(700_000) == b"c" * 500_000


# Flow control -------------------------------------------------------------------------------


@pytest.fixture
def flow(monkeypatch):
    """Return a list of "pause" and "resume", as a connection is told to."""
    calls = []
    for name in ("pause", "resume"):
        original = getattr(HTTP1Protocol, f"{name}_reading")

        def recording(self, name=name, original=original):
            calls.append(name)
            original(self)

        monkeypatch.setattr(HTTP1Protocol, f"{name}_reading", recording)
    return calls


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_reading_pauses_at_high_water_and_resumes_at_half(certificates, flow, tls):
    context = certificates.server if tls else None
    async with ScriptedServer(big_script(BIG * 4), tls=context) as server:
        async with connecting(server, certificates, high_water=100_000) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            await turns(100)
            assert flow == ["pause"]
            unread = response.buffered
            assert 100_000 <= unread <= (100_000 if not tls else 100_000 + 320 * 1024)
            assert await response.read(unread - 50_001) == BIG[: unread - 50_001]
            assert flow == ["pause"]
            assert await response.read(1) == (BIG * 2)[unread - 50_001 : unread - 50_000]
            assert flow == ["pause", "resume"]
            assert await response.read() == (BIG * 4)[unread - 50_000 :]
            assert flow.count("pause") == flow.count("resume")


async def test_a_reader_that_keeps_up_never_pauses(flow):
    async with ScriptedServer(big_script()) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            while await response.read1():
                pass
    # libuv reads on before the woken reader runs, asyncio does not.
    if isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop):
        assert flow == []
    assert flow.count("pause") == flow.count("resume")


async def test_a_woken_reader_that_has_not_run_is_not_flooded():
    async with ScriptedServer(big_script(BIG * 4)) as server:
        async with HTTPConnection(server.host, server.port, high_water=10_000) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            while piece := await response.read1():
                assert len(piece) <= 10_000


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]
)
async def test_read_of_more_than_high_water_waits_for_no_byte_beyond(scripted, head):
    pieces = [b"abc", b"def", b"gh"]
    if b"chunked" in head:
        pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    async with scripted([head, *pieces], high_water=5) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert await response.read(8) == b"abcdefgh"
        response.close()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_body_that_ends_at_high_water_leaves_the_connection_reading(
    certificates, flow, tls
):
    # The last bytes pause the reading, and nobody would resume it for the next response.
    context = certificates.server if tls else None
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    script = [expect(), send(head, b"x" * 400, b"x" * 600)]
    async with ScriptedServer(script * 2, tls=context) as server:
        async with connecting(server, certificates, high_water=1000) as conn:
            for _ in range(2):
                await conn.request("GET", "/")
                response = await conn.getresponse()
                await turns(40)
                assert await response.read() == b"x" * 1000
            assert flow == ["pause", "resume"] * 2
            assert server.connections == 1


async def test_what_is_read_while_paused_is_whole_when_the_server_has_left(flow):
    # FIN behind the body: it must not overtake the bytes that are not read yet.
    body = BIG[:900_000]
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with ScriptedServer([expect(), send(head, body), close()]) as server:
        async with HTTPConnection(server.host, server.port, high_water=20_000) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            await turns(50)
            assert flow == ["pause"]
            assert await response.read() == body


async def test_small_pieces_are_merged(scripted):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n"
    async with scripted([head, *[b"x"] * 3000]) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        while not response.complete:
            await asyncio.sleep(0)
        assert len(response._queue) <= 2
        assert await response.read() == b"x" * 3000


async def test_peek_shows_no_more_than_a_piece_and_takes_nothing(scripted):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"
    async with scripted([head, b"abc", b"def"]) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert await response.peek() == b"abc"
        assert await response.peek(2) == b"ab"
        await turns()
        assert (await response.peek()).startswith(b"abc")
        assert await response.read() == b"abcdef"
        assert await response.peek() == b""


async def test_an_unread_response_holds_no_more_than_high_water():
    async with ScriptedServer(big_script(BIG * 10)) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            await turns(200)
            assert HIGH_WATER <= response.buffered <= 2 * HIGH_WATER


async def test_a_second_reader_takes_nothing_from_the_first(scripted):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
    async with scripted([head, b"01234"]) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert await response.peek() == b"01234"
        first = asyncio.ensure_future(response.read())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="read by another task already"):
            await response.read1()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await response.read1() == b"01234"


async def test_a_response_closed_under_a_waiting_reader_reads_as_empty_afterwards():
    release = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    async with ScriptedServer([expect(), send(head, b"abc"), wait(release)]) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            task = asyncio.create_task(response.read())
            await turns(10)
            response.close()
            with pytest.raises(IncompleteRead):
                await task
            assert await response.read() == b""
            assert await response.readline() == b""
            release.set()
