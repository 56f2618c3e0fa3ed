"""The cost of one look at an idle connection's socket, without waiting.

    python benchmarks/micro/stale_look.py [--rounds 15]

Verdict (3.11, µs, the least of 15 rounds, asyncio / uvloop): all that the pool does takes
1.0 / 1.2, of which the shared poll object takes 0.6 / 0.7; select.select 0.9, recv(MSG_PEEK) 1.3. A
poll object for each connection would take 0.5, but is one more object to keep and to drop in time.
FIONREAD takes 0.5, but cannot tell an end of file from silence. 3.13 takes some 5 % more.

"what the pool does" is ``StaleCheck.is_stale``: it checks the connection's state and age, asks for
its socket, and then registers, polls and unregisters it with one poll object. The other ways only
ask the kernel; recv() uses a duplicate, because asyncio gives out no socket that can receive.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import fcntl
import select
import socket
import statistics
import termios
import time
from collections.abc import Callable
from typing import Any

import uvloop

import aiohttpconn

LOOKS = 20_000

Look = Callable[[], object]

kept: list[socket.socket] = []
"""Duplicates, to be closed at the end."""


def ways(sock: Any) -> dict[str, Look]:
    """Return ways to look at *sock*, on which nothing has arrived. Each returns a false value."""
    number = sock.fileno()
    shared = select.poll()
    own = select.poll()
    own.register(number, select.POLLIN)
    duplicate = sock.dup()
    duplicate.setblocking(False)
    kept.append(duplicate)
    room = array.array("i", [0])

    def poll() -> object:
        shared.register(number, select.POLLIN)
        try:
            return shared.poll(0)
        finally:
            shared.unregister(number)

    def own_poll() -> object:
        return own.poll(0)

    def select_() -> object:
        return select.select([number], [], [], 0)[0]

    def peek() -> object:
        try:
            return duplicate.recv(1, socket.MSG_PEEK) or b"an end of file"
        except BlockingIOError:
            return None

    def fionread() -> object:
        fcntl.ioctl(number, termios.FIONREAD, room)
        return room[0]

    return {
        "one poll object: register, poll, unregister": poll,
        "a poll object for each connection": own_poll,
        "select.select": select_,
        "recv(1, MSG_PEEK) of a duplicate": peek,
        "ioctl FIONREAD": fionread,
    }


def cost(look: Look) -> float:
    """Return the µs of one look."""
    assert not look(), "nothing has arrived"
    begin = time.perf_counter()
    for _ in range(LOOKS):
        look()
    return (time.perf_counter() - begin) / LOOKS * 1e6


class Server(asyncio.Protocol):
    """A server that answers any data with a 200."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


async def looks(costs: dict[str, list[float]], rounds: int) -> None:
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with aiohttpconn.ConnectionPool() as pool:
        async with pool.connection(f"http://127.0.0.1:{port}") as conn:
            await conn.request("GET", "/")
            await (await conn.getresponse()).read()
        connections = pool._connections
        (connection,) = connections.scheduler.idle
        sock = connection.get_extra_info("socket")
        found = {"what the pool does": lambda: connections.is_stale(connection)} | ways(sock)
        for _ in range(rounds):
            for name, look in found.items():
                costs.setdefault(name, []).append(cost(look))
        for duplicate in kept:
            duplicate.close()
        kept.clear()
    server.close()
    await server.wait_closed()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    for loop, factory in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
        costs: dict[str, list[float]] = {}
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(looks(costs, rounds))
        for name, values in costs.items():
            print(
                f"{loop:8} {min(values):5.2f} µs (median {statistics.median(values):5.2f})  {name}"
            )


if __name__ == "__main__":
    main()
