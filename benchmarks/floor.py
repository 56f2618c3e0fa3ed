"""How far is a request from the floor that the event loop sets?

    python benchmarks/floor.py [--loop asyncio|uvloop|both] [--rounds 7] [--seconds 0.7]
                               [--only get|stdlib|read|idle|import]

Five measurements; get and read stand beside a bare ``asyncio.BufferedProtocol`` in the same run.

get     a keep-alive GET with read(), 64 connections: CPU per request, against a bare protocol
        that writes the same bytes and counts the reply's; once with replies that repeat, as an
        API's do within a second, and once with a head that differs in every reply
stdlib  the same program with http.client, one connection: CPU per request, against ours with one
        connection and with 64
read    read() of 256 MiB: throughput and peak memory, against the bare protocol; and iter_bytes(),
        readinto()
idle    10,000 idle keep-alive connections: Python memory of each
import  import aiohttpconn, over import asyncio, ssl, http.client

The server is a process of its own; with two cores or more it is pinned to one of them and this
process to another. CPU time is this process's. Rounds are interleaved, figures are medians.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import io
import os
import resource
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttpconn

CONNECTIONS = 64
BODY = b'{"id": 1, "name": "something", "tags": ["a", "b"], "ok": true}'
REPLY = (
    b"HTTP/1.1 200 OK\r\n"
    b"Server: bench\r\n"
    b"Date: Mon, 23 Nov 2026 12:00:00 GMT\r\n"
    b"Content-Type: application/json\r\n"
    b"Content-Length: %d\r\n"
    b"Last-Modified: Mon, 23 Nov 2026 10:00:00 GMT\r\n"
    b"Connection: keep-alive\r\n"
    b'ETag: "6921c0a0-3e"\r\n'
    b"Accept-Ranges: bytes\r\n"
    b"\r\n" % len(BODY)
) + BODY
SHAPES = {"/x": "heads repeat", "/n": "heads differ"}
BIG = 256 * 1024 * 1024
BIG_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG


# --------------------------------------------------------------------- server


class _Server(asyncio.Protocol):
    """Answer each request head: /big with 256 MiB, everything else with REPLY."""

    def __init__(self) -> None:
        self._tail = b""
        self.number = 0
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET /big "):
            self._task = asyncio.get_running_loop().create_task(self._send_big())
            return
        data = self._tail + data
        count = data.count(b"\r\n\r\n")
        if count and data.startswith(b"GET /x"):
            self.transport.write(REPLY * count)
        elif count:
            self.number += 1
            self.transport.write(REPLY.replace(b"6921c0a0", b"%08x" % self.number))
        self._tail = data[data.rfind(b"\r\n\r\n") + 4 :] if count else data

    async def _send_big(self) -> None:
        block = memoryview(bytes(1024 * 1024))
        self.transport.write(BIG_HEAD)
        for _ in range(BIG // len(block)):
            self.transport.write(block)
            await self._writable.wait()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()


def serve() -> None:
    """Serve on a free loopback port, print it, and end when standard input does."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(_Server, "127.0.0.1", 0, backlog=4096)
        print(server.sockets[0].getsockname()[1], flush=True)
        await loop.run_in_executor(None, sys.stdin.read)
        os._exit(0)

    aiohttpconn.run(main())


def pin(cpu: int) -> None:
    """Keep this process on one of the cores that it may use."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[cpu % len(cores)]})


# --------------------------------------------------------------------- the floor


class Bare(asyncio.BufferedProtocol):
    """Write fixed bytes and count the reply's: what the loop and the kernel cost."""

    scratch = memoryview(bytearray(256 * 1024))

    def __init__(self) -> None:
        self.waiter: asyncio.Future[None] | None = None
        self.missing = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.loop = asyncio.get_running_loop()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.scratch

    def buffer_updated(self, nbytes: int) -> None:
        self.missing -= nbytes
        if self.missing <= 0 and self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def exchange(self, request: bytes, size: int) -> None:
        self.missing += size
        self.waiter = self.loop.create_future()
        self.transport.write(request)
        await self.waiter


class Keeping(Bare):
    """Keep the reply too, in memory allocated at once: what the kernel's page faults cost."""

    def start(self, size: int) -> None:
        self.body = memoryview(io.BytesIO(bytes(size)).getbuffer())

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.body or self.scratch

    def buffer_updated(self, nbytes: int) -> None:
        self.body = self.body[nbytes:]
        super().buffer_updated(nbytes)


async def bare_connections(port: int, count: int, kind: type[Bare] = Bare) -> list[Bare]:
    loop = asyncio.get_running_loop()
    made = []
    for _ in range(count):
        _, protocol = await loop.create_connection(kind, "127.0.0.1", port)
        made.append(protocol)
    return made


async def our_connections(port: int, count: int) -> list[aiohttpconn.HTTPConnection]:
    made = [aiohttpconn.HTTPConnection("127.0.0.1", port) for _ in range(count)]
    for connection in made:
        await connection.connect()
    return made


async def cpu_per_request(
    connections: list[Any], once: Callable[[Any], Awaitable[None]], seconds: float
) -> tuple[float, float]:
    """Keep every connection busy for *seconds*; return (CPU µs per request, requests per s)."""
    done = 0
    end = time.perf_counter() + seconds

    async def worker(connection: Any) -> None:
        nonlocal done
        while time.perf_counter() < end:
            for _ in range(10):
                await once(connection)
            done += 10

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(worker(connection) for connection in connections))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return cpu / done * 1e6, done / wall


async def get(port: int, rounds: int, seconds: float, name: str, path: str) -> None:
    """A keep-alive GET with read(), interleaved with the bare protocol."""
    request = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept-Encoding: identity\r\n\r\n"
    ).encode()

    async def bare_once(bare: Bare) -> None:
        await bare.exchange(request, len(REPLY))

    async def our_once(connection: aiohttpconn.HTTPConnection) -> None:
        await connection.request("GET", path)
        response = await connection.getresponse()
        await response.read()

    bare = await bare_connections(port, CONNECTIONS)
    ours = await our_connections(port, CONNECTIONS)
    await cpu_per_request(bare, bare_once, 0.2)
    await cpu_per_request(ours, our_once, 0.2)
    floor, cost, ratios, rates = [], [], [], []
    for _ in range(rounds):
        low, _ = await cpu_per_request(bare, bare_once, seconds)
        high, rate = await cpu_per_request(ours, our_once, seconds)
        floor.append(low)
        cost.append(high)
        ratios.append(high / low)
        rates.append(rate)
    print(
        f"get     {name:8} {SHAPES[path]:14} floor {spread(floor)} µs   ours {spread(cost)} µs "
        f"CPU per request   {statistics.median(rates):,.0f} requests/s   ratio {spread(ratios)}"
    )
    for connection in ours:
        connection.close()
    for protocol in bare:
        protocol.transport.close()
    await asyncio.sleep(0.05)


async def stdlib(port: int, rounds: int, seconds: float, name: str) -> None:
    """http.client's GET and read(), one after another, interleaved with ours."""

    async def our_once(connection: aiohttpconn.HTTPConnection) -> None:
        await connection.request("GET", "/n")
        response = await connection.getresponse()
        await response.read()

    def their_cost() -> float:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        done, end, cpu = 0, time.perf_counter() + seconds, time.process_time()
        while time.perf_counter() < end:
            connection.request("GET", "/n")
            connection.getresponse().read()
            done += 1
        connection.close()
        return (time.process_time() - cpu) / done * 1e6

    ours = await our_connections(port, CONNECTIONS)
    theirs, one, many, ratios = [], [], [], []
    for _ in range(rounds):
        theirs.append(their_cost())
        one.append((await cpu_per_request(ours[:1], our_once, seconds))[0])
        many.append((await cpu_per_request(ours, our_once, seconds))[0])
        ratios.append(theirs[-1] / many[-1])
    print(
        f"stdlib  {name:8} http.client {spread(theirs)} µs   ours, one connection {spread(one)} "
        f"µs, {CONNECTIONS} {spread(many)} µs   {spread(ratios)} times less"
    )
    for connection in ours:
        connection.close()
    await asyncio.sleep(0.05)


Take = Callable[[aiohttpconn.HTTPResponse], Awaitable[int]]


async def read_whole(response: aiohttpconn.HTTPResponse) -> int:
    return len(await response.read())


async def take_pieces(response: aiohttpconn.HTTPResponse) -> int:
    return sum([len(piece) async for piece in response.iter_bytes()])


async def take_into(response: aiohttpconn.HTTPResponse) -> int:
    buffer, size = bytearray(256 * 1024), 0
    while count := await response.readinto(buffer):
        size += count
    return size


async def read(port: int, rounds: int, name: str) -> None:
    """read() of 256 MiB, interleaved with the bare protocol; then its peak memory."""

    async def ours(take: Take = read_whole) -> float:
        async with aiohttpconn.HTTPConnection("127.0.0.1", port) as connection:
            await connection.connect()
            begin = time.perf_counter()
            await connection.request("GET", "/big")
            response = await connection.getresponse()
            assert await take(response) == BIG
            return BIG / (time.perf_counter() - begin) / 1e9

    async def bare(kind: type[Bare]) -> float:
        (protocol,) = await bare_connections(port, 1, kind)
        begin = time.perf_counter()
        if isinstance(protocol, Keeping):
            protocol.start(len(BIG_HEAD) + BIG)
        await protocol.exchange(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n", len(BIG_HEAD) + BIG)
        taken = time.perf_counter() - begin
        protocol.transport.close()
        return BIG / taken / 1e9

    await bare(Bare)
    await ours()
    floor, keep, speed, stream, into = [], [], [], [], []
    for _ in range(rounds):
        floor.append(await bare(Bare))
        keep.append(await bare(Keeping))
        speed.append(await ours())
        stream.append(await ours(take_pieces))
        into.append(await ours(take_into))
    ratios = [high / low for low, high in zip(floor, speed, strict=True)]
    kept = [high / low for low, high in zip(keep, speed, strict=True)]
    tracemalloc.start()
    await ours()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(
        f"read    {name:8} floor {spread(floor)} GB/s   ours {spread(speed)} GB/s   "
        f"ratio {spread(ratios)}   peak {peak / BIG:.3f} x body\n"
        f"                 floor that keeps the body {spread(keep)} GB/s   ratio {spread(kept)}\n"
        f"                 iter_bytes {spread(stream)} GB/s   readinto {spread(into)} GB/s"
    )


async def idle(port: int, name: str, count: int = 10_000) -> None:
    """Python memory of an idle keep-alive connection that has made a request."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        count = min(count, (hard - 200) * 10 // 11)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    async def make() -> aiohttpconn.HTTPConnection:
        connection = aiohttpconn.HTTPConnection("127.0.0.1", port)
        await connection.request("GET", "/x")
        response = await connection.getresponse()
        await response.read()
        return connection

    warm = await make()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    connections = [await make() for _ in range(count)]
    each = (tracemalloc.get_traced_memory()[0] - before) / count
    bare_before = tracemalloc.get_traced_memory()[0]
    bare = await bare_connections(port, count // 10)
    bare_each = (tracemalloc.get_traced_memory()[0] - bare_before) / (count // 10)
    tracemalloc.stop()
    print(
        f"idle    {name:8} {count:,} connections: {each / 1024:.2f} KiB of Python memory each "
        f"(bare protocol {bare_each / 1024:.2f} KiB)"
    )
    for connection in (warm, *connections):
        connection.close()
    for protocol in bare:
        protocol.transport.close()
    await asyncio.sleep(0.5)


def imports(rounds: int = 11) -> None:
    """Whole processes: python -c 'import ...', with and without this package."""
    base, more = "import asyncio, ssl, http.client", "import asyncio, ssl, http.client, aiohttpconn"

    # With compiled modules, as an installed package has them.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def run(code: str) -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
        return (time.perf_counter() - begin) * 1e3

    run(base), run(more)
    pairs = [(run(base), run(more)) for _ in range(rounds)]
    print(
        f"import  {statistics.median(high - low for low, high in pairs):.1f} ms over "
        f"'{base}' ({statistics.median(low for low, _ in pairs):.0f} ms)"
    )


def spread(values: list[float]) -> str:
    """Return the median, and the range in brackets."""
    return f"{statistics.median(values):.2f} [{min(values):.2f}-{max(values):.2f}]"


def main() -> int:
    if sys.argv[1:] == ["--serve"]:
        pin(1)
        serve()
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--loop", choices=("asyncio", "uvloop", "both"), default="both")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.7)
    parser.add_argument("--only", choices=("get", "stdlib", "read", "idle", "import"))
    options = parser.parse_args()

    print(f"# Python {sys.version.split()[0]}, aiohttpconn {aiohttpconn.__version__}, ", end="")
    print(f"{os.cpu_count()} cores, {CONNECTIONS} connections, medians of {options.rounds} rounds")
    factories: dict[str, Any] = {"asyncio": asyncio.new_event_loop}
    try:
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    except ImportError:
        print("# uvloop is not installed: asyncio only")
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    assert server.stdin is not None
    try:
        port = int(server.stdout.readline())
        pin(0)
        for name, factory in factories.items():
            if options.loop not in (name, "both"):
                continue
            with asyncio.Runner(loop_factory=factory) as runner:
                if options.only in (None, "get"):
                    for path in SHAPES:
                        runner.run(get(port, options.rounds, options.seconds, name, path))
                if options.only in (None, "stdlib"):
                    runner.run(stdlib(port, options.rounds, options.seconds, name))
                if options.only in (None, "read"):
                    runner.run(read(port, options.rounds, name))
                if options.only in (None, "idle"):
                    runner.run(idle(port, name))
        if options.only in (None, "import"):
            imports()
    finally:
        server.stdin.close()
        server.wait(10)
    return 0


if __name__ == "__main__":
    sys.exit(main())
