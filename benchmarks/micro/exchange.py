"""The cost of one exchange in Python: request, getresponse and read, without a socket.

    python benchmarks/micro/exchange.py [--rounds 9]

Verdict (µs, the least of 27 rounds in three processes; commit c5c74e5, and what replaced it):

                            3.11           3.12           3.13
    the same head again     3.85 → 3.26    4.59 → 3.76    4.47 → 3.60
    a head that differs     5.82 → 5.09    6.71 → 5.91    6.39 → 5.50

Between processes the least differs by 0.1. Three attempts made no larger difference, on 3.11 and
3.13: a response made without a call of __init__; a search for characters that a URL may not have,
in place of a match of those that it may have; and no groups() of the head's match.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from typing import Any

import aiohttpconn

EXCHANGES = 10_000
BODY = b'{"id": 1, "name": "something", "tags": ["a", "b"], "ok": true}'
REPLY = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 23 Nov 2026 12:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n"
    b"Last-Modified: Mon, 23 Nov 2026 10:00:00 GMT\r\nConnection: keep-alive\r\n"
    b'ETag: "6921c0a0-3e"\r\nAccept-Ranges: bytes\r\n\r\n' % len(BODY)
) + BODY
OTHER = REPLY.replace(b"6921c0a0", b"6921c0a1")
CASES = {"the same head again": (REPLY, REPLY), "a head that differs": (REPLY, OTHER)}


class Nowhere(asyncio.Transport):
    """A transport that accepts all data, and is silent."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: Any) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass


def connected(loop: asyncio.AbstractEventLoop) -> tuple[aiohttpconn.HTTPConnection, Any]:
    connection = aiohttpconn.HTTPConnection("127.0.0.1", 8080)
    protocol = connection._make_protocol(loop)
    transport = Nowhere()
    protocol.connection_made(transport)
    protocol.raw_transport = transport
    connection._protocol = protocol
    return connection, protocol


async def exchange(connection: aiohttpconn.HTTPConnection) -> bytes:
    await connection.request("GET", "/x")
    response = await connection.getresponse()
    return await response.read()


def microseconds(connection: Any, protocol: Any, replies: tuple[bytes, bytes]) -> float:
    size = len(REPLY)
    begin = time.perf_counter()
    for _ in range(EXCHANGES // 2):
        for reply in replies:
            caller = exchange(connection)
            waiter = caller.send(None)
            protocol.get_buffer(-1)[:size] = reply
            protocol.buffer_updated(size)
            waiter._asyncio_future_blocking = False  # as a task does before it waits
            try:
                caller.send(None)
            except StopIteration:
                pass
    return (time.perf_counter() - begin) / EXCHANGES * 1e6


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    connection, protocol = connected(asyncio.get_running_loop())
    costs: dict[str, list[float]] = {case: [] for case in CASES}
    microseconds(connection, protocol, (REPLY, REPLY))
    for _ in range(rounds):
        for case, replies in CASES.items():
            costs[case].append(microseconds(connection, protocol, replies))
    for case, values in costs.items():
        print(f"{min(values):5.2f} µs (median {statistics.median(values):5.2f})  {case}")
    protocol.abort()


if __name__ == "__main__":
    asyncio.run(main())
