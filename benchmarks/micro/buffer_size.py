"""How large should the buffer be that one read event fills?

    python benchmarks/micro/buffer_size.py [--rounds 25] [--loop asyncio|uvloop|both]

Verdict: TODO
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from aiohttpconn import HTTPConnection, protocol

SIZE = 256 * 1024 * 1024
BUFFERS = (64, 128, 256, 512, 1024)
LOOPS: dict[str, Any] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def pin(core: int) -> None:
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {core})


def serve() -> None:
    pin(1)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    block = memoryview(bytes(1024 * 1024))
    while True:
        conn, _ = listener.accept()
        with conn:
            conn.recv(65536)
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
            for _ in range(SIZE // len(block)):
                conn.sendall(block)


class Bare(asyncio.BufferedProtocol):
    """Reads and forgets."""

    def __init__(self, size: int) -> None:
        self.buffer = memoryview(bytearray(size))
        self.done = asyncio.get_running_loop().create_future()
        self.left = SIZE

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.left -= nbytes
        if self.left <= 0 and not self.done.done():
            self.done.set_result(None)


async def bare(port: int, size: int) -> None:
    loop = asyncio.get_running_loop()
    transport, reader = await loop.create_connection(lambda: Bare(size), "127.0.0.1", port)
    transport.write(b"GET / HTTP/1.1\r\n\r\n")
    await reader.done
    transport.abort()


async def streamed(port: int, size: int) -> None:
    protocol.SCRATCH_SIZE, protocol.TLS_SCRATCH = size, size + 65536
    async with HTTPConnection("127.0.0.1", port, high_water=size) as conn:
        await conn.request("GET", "/")
        async for _ in (await conn.getresponse()).iter_bytes():
            pass


def measure(read: Callable[[int, int], Awaitable[None]], loop: Any, *args: int) -> Any:
    async def run() -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        await read(*args)
        return time.perf_counter() - wall, time.process_time() - cpu

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(run())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--loop", default="both")
    parser.add_argument("--serve", action="store_true")
    args = parser.parse_args()
    if args.serve:
        serve()
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE)
    pin(0)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        for name in [name for name in LOOPS if args.loop in ("both", name)]:
            print(f"{name}: CPU per GB, the least and the median of {args.rounds} rounds; GB/s, the median")
            results: dict[Any, list[Any]] = {}
            for _ in range(args.rounds):
                for size in BUFFERS:
                    for read in (bare, streamed):
                        took = measure(read, LOOPS[name], port, size * 1024)
                        results.setdefault((size, read), []).append(took)
            for (size, read), took in results.items():
                walls, cpus = zip(*took, strict=True)
                print(
                    f"{size:6} KiB  {min(cpus) / SIZE * 1e12:4.0f} ms  "
                    f"{statistics.median(cpus) / SIZE * 1e12:4.0f} ms  "
                    f"{SIZE / statistics.median(walls) / 1e9:5.2f} GB/s  {read.__name__}"
                )
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
