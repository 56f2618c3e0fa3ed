"""Is it worthwhile to let the C library keep the memory of freed bodies?

    python benchmarks/micro/freed_memory.py

Verdict (3.11, glibc 2.36, asyncio, read() over 4 connections at once; page faults and CPU µs for
each body, medians of 3 runs), without ``buffers.keep_freed_memory`` and with it:

     256 KiB       45 faults     298 µs        0 faults    156 µs
    1024 KiB       95            469           0           279
    3072 KiB      485          1,664           0           481
   16384 KiB    5,423         16,975       4,006        14,694

Nothing changes above 8 MiB, which is the limit of what it keeps. It is worthwhile.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import subprocess
import sys
import threading

from aiohttpconn import HTTPConnection, buffers

CONNECTIONS, REPEATS = 4, 40
CORES = sorted(os.sched_getaffinity(0))
KIB = (256, 1024, 3072, 16384)


def serve(listener: socket.socket) -> None:
    def answer(conn: socket.socket) -> None:
        with conn:
            while request := conn.recv(65536):
                size = int(request.split(b"/", 2)[1].split(b" ")[0])
                conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                conn.sendall(bytes(size))

    while True:
        threading.Thread(target=answer, args=listener.accept()[:1], daemon=True).start()


async def measure(port: int, size: int) -> tuple[float, float]:
    async def get(conn: HTTPConnection, count: int) -> None:
        for _ in range(count):
            await conn.request("GET", f"/{size}")
            assert len(await (await conn.getresponse()).read()) == size

    connections = [HTTPConnection("127.0.0.1", port) for _ in range(CONNECTIONS)]
    await asyncio.gather(*(get(conn, 3) for conn in connections))
    before = resource.getrusage(resource.RUSAGE_SELF)
    await asyncio.gather(*(get(conn, REPEATS) for conn in connections))
    after = resource.getrusage(resource.RUSAGE_SELF)
    for conn in connections:
        conn.close()
    count = CONNECTIONS * REPEATS
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (after.ru_minflt - before.ru_minflt) / count, cpu / count * 1e6


def pin_to_the_first() -> None:
    os.sched_setaffinity(0, CORES[:1])


def main() -> None:
    if len(sys.argv) > 1:
        how, port, size = sys.argv[1:]
        if how == "without":
            buffers.keep_freed_memory = lambda: None
        print("{:.0f} faults, {:.0f} µs".format(*asyncio.run(measure(int(port), int(size)))))
        return
    listener = socket.create_server(("127.0.0.1", 0))
    os.sched_setaffinity(0, CORES[-1:])
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    port = str(listener.getsockname()[1])
    for kib in KIB:
        for how in ("without", "with"):
            # Each runs in a process of its own, because memory freed before decides.
            command = [sys.executable, __file__, how, port, str(kib * 1024)]
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, preexec_fn=pin_to_the_first
            )
            print(f"{kib:6} KiB  {how:8} {done.stdout.strip()}")


if __name__ == "__main__":
    main()
