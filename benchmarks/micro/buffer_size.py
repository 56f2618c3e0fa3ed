"""How large should the buffer be that one read event fills?

    python benchmarks/micro/buffer_size.py [--rounds 11] [--loop asyncio|uvloop|both]

The server is a process on another core that writes 256 MiB to a bare protocol and to iter_bytes().
Throughput differs by a factor of two from run to run, whatever the size, and the reader that does
less is often the slower one. So the script shows GB/s, but compares the least CPU time.

Verdict (ms of CPU per GB, the least of 11 runs):

                      64 KiB   128 KiB   256 KiB   512 KiB   1 MiB
    3.11  asyncio      188       161       157       139      156     streamed
                       138       113       110       121      123     bare
          uvloop       184       131       137       128      140     streamed
                        93        95        92        98       95     bare
    3.13  asyncio      183       148       150       127      134     streamed
                       120       171       113       129      119     bare
          uvloop       178       129       132       141      126     streamed
                        97        95       105       106      104     bare

64 KiB costs a streamed body 20 to 35 % more than 256 KiB. From 128 KiB on no size is better in all
four cases; the differences are as large as the noise, which 3.13's bare asyncio shows. 256 KiB lies
above the knee, and is the most that one read leaves unread.
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
from typing import Any

import uvloop

from aiohttpconn import HTTPConnection, buffers, protocol

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
    """A protocol that reads and forgets."""

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
    for module in (buffers, protocol):
        module.SCRATCH_SIZE, module.TLS_SCRATCH = size, size + 65536
    async with HTTPConnection("127.0.0.1", port, high_water=size) as conn:
        await conn.request("GET", "/")
        async for _ in (await conn.getresponse()).iter_bytes():
            pass


READERS = {"bare": bare, "streamed": streamed}


def once(loop: str, reader: str, size: int, port: int) -> None:
    """Print the wall and CPU seconds of a second download: the first one warms up."""

    async def run() -> str:
        for _ in range(2):
            wall, cpu = time.perf_counter(), time.process_time()
            await READERS[reader](port, size)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return f"{wall} {cpu}"

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        print(runner.run(run()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--loop", default="both")
    rounds, chosen = parser.parse_args().rounds, parser.parse_args().loop
    command = [sys.executable, __file__]
    server = subprocess.Popen([*command, "serve"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    port = server.stdout.readline().strip()
    try:
        for loop in [name for name in LOOPS if chosen in ("both", name)]:
            took: dict[tuple[int, str], list[list[float]]] = {}
            for _ in range(rounds):
                for size in BUFFERS:
                    for reader in READERS:
                        # Use a new process: large pieces change how malloc serves later ones.
                        run = [*command, "once", loop, reader, str(size * 1024), port]
                        seconds = subprocess.check_output(run, text=True).split()
                        took.setdefault((size, reader), []).append([float(s) for s in seconds])
            print(f"{loop}: CPU per GB, the least and the median of {rounds}; GB/s, the median")
            for (size, reader), values in took.items():
                walls, cpus = zip(*values, strict=True)
                print(
                    f"{size:6} KiB  {min(cpus) / SIZE * 1e12:4.0f} ms  "
                    f"{statistics.median(cpus) / SIZE * 1e12:4.0f} ms  "
                    f"{SIZE / statistics.median(walls) / 1e9:5.2f} GB/s  {reader}"
                )
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve()
    elif sys.argv[1:2] == ["once"]:
        pin(0)
        once(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
