"""The cost of a lookup beyond getaddrinfo itself, and of a thread that hangs.

    python benchmarks/micro/resolver_threads.py

Verdict (CPU of all threads, Python 3.11 / 3.13): getaddrinfo finds "localhost" in 10 µs without
DNS. A lookup of it costs 84 / 96 µs with threads that idle for a while, 240 / 243 µs with a new
thread for each, and 80 / 83 µs in the loop's executor. So threads idle, but not for long. A cached
name costs 1.2 / 1.4 µs, for another port 1.6 / 1.7 µs, an IP address 4.1 / 4.8 µs. 512 threads that
hang take 9 MB, 4000 cached names of two addresses 3.6 / 3.2 MB.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from math import inf
from pathlib import Path

from aiohttpconn.net import threads
from aiohttpconn.net.resolver import CROWD, THREADS, Resolver
from aiohttpconn.net.threads import DaemonThreads

HOST, PORT = "localhost", 80
LOOKUPS = 300
ENTRIES = 4000


def getaddrinfo() -> object:
    return socket.getaddrinfo(HOST.encode(), PORT, type=socket.SOCK_STREAM)


async def cost(name: str, look_up: Callable[[], Awaitable[object]], count: int = LOOKUPS) -> None:
    """Print the least CPU time of one lookup, for all threads together."""
    best = inf
    for _ in range(7):
        begin = time.process_time()
        for _ in range(count):
            await look_up()
        best = min(best, (time.process_time() - begin) / count)
    print(f"{best * 1e6:6.1f} µs  {name}")


async def lookups() -> None:
    loop = asyncio.get_running_loop()

    async def bare() -> None:
        getaddrinfo()

    asking, caching = Resolver(), Resolver(ttl=60)
    await caching.resolve(HOST, PORT)
    await cost("getaddrinfo, in the loop's own thread", bare)
    await cost(
        "loop.run_in_executor(None, getaddrinfo)", lambda: loop.run_in_executor(None, getaddrinfo)
    )
    await cost("Resolver(), whose threads idle for a while", lambda: asking.resolve(HOST, PORT))
    usual, threads.IDLE_TIME = threads.IDLE_TIME, 0
    await cost("Resolver(), a new thread for each", lambda: asking.resolve(HOST, PORT))
    threads.IDLE_TIME = usual
    await cost("cached", lambda: caching.resolve(HOST, PORT), 10_000)
    await cost("cached, another port", lambda: caching.resolve(HOST, 443), 10_000)
    await cost("an IP address", lambda: asking.resolve("127.0.0.1", PORT), 10_000)


def resident() -> int:
    """Return the bytes of resident memory of this process; 0 if the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096
    except OSError:
        return 0


def memory_of_threads() -> None:
    count = THREADS * CROWD
    executor = DaemonThreads(count)
    over, begun = threading.Event(), threading.Semaphore(0)

    def hang() -> None:
        getaddrinfo()  # the C library's memory for a thread counts, too
        begun.release()
        over.wait()

    before = resident()
    for _ in range(count):
        executor.submit(hang)
    for _ in range(count):
        begun.acquire()
    print(f"{(resident() - before) / 1e6:6.1f} MB  {count} threads that hang")
    over.set()


async def memory_of_a_cache() -> None:
    def two(host: bytes, port: int, **_: object) -> list[object]:
        tcp = socket.SOCK_STREAM, socket.IPPROTO_TCP, ""
        return [
            (socket.AF_INET6, *tcp, (f"2001:db8::{hash(host) & 0xFFFF:x}", port, 0, 0)),
            (socket.AF_INET, *tcp, (f"192.0.2.{hash(host) & 0xFF}", port)),
        ]

    resolver = Resolver(ttl=60, max_entries=ENTRIES)
    system, socket.getaddrinfo = socket.getaddrinfo, two
    before = resident()
    for number in range(ENTRIES):
        await resolver.resolve(f"www.site-{number}.example", PORT)
    print(f"{(resident() - before) / 1e6:6.1f} MB  {ENTRIES} cached names of two addresses")
    socket.getaddrinfo = system


if __name__ == "__main__":
    asyncio.run(memory_of_a_cache())
    memory_of_threads()
    asyncio.run(lookups())
