"""How much Python memory does an idle pooled connection hold?

    python benchmarks/micro/idle_memory.py [--connections 2000]

Verdict (bytes, Python 3.11; 2,000 connections of one origin / 10,000 of 50): 1,497 / 1,408. It took
2,494 / 2,405 before a pooled connection was one object, the protocol. A view of the scratch buffer
for each connection, instead of one for all, would take 312 more.

tracemalloc counts the growth from a client with one idle connection per origin to one with all of
them. The transports lead nowhere and do not count, so only this package's own objects do.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import socket
import tracemalloc
from typing import Any

import client_exchange
import exchange as bare

import aiohttpconn


async def idle_bytes(connections: int, origins: int) -> float:
    """Return the bytes that each of *connections*, spread over *origins*, holds."""
    pair = socket.socketpair()
    protocols: list[Any] = []

    async def dial(factory: Any, destination: Any, report: Any) -> tuple[Any, Any]:
        protocol = factory()
        transport = client_exchange.Nowhere(pair[0], protocol)
        protocol.connection_made(transport)
        report.raw_transport = transport
        protocols.append(protocol)
        return transport, protocol

    client = aiohttpconn.Client(
        limit=None, limit_per_host=None, keepalive_timeout=3600.0, trust_env=False
    )
    client_exchange.lead_nowhere(client, dial)

    async def open_all(count: int) -> None:
        """Send *count* requests at the same time, on as many connections, and answer them."""
        tasks = [
            asyncio.ensure_future(client.get(f"http://h{number % origins}.test:8080/x"))
            for number in range(count)
        ]
        for _ in range(3):
            await asyncio.sleep(0)  # the tasks connect and wait: nothing else suspends them
        assert len(protocols) == count
        for protocol in protocols:
            protocol.get_buffer(-1)[: len(bare.REPLY)] = bare.REPLY
            protocol.buffer_updated(len(bare.REPLY))
        for response in await asyncio.gather(*tasks):
            assert response.status == 200
        await asyncio.sleep(0)  # let the last callbacks of the tasks run

    await open_all(origins)  # the cost of an origin is not that of a connection
    gc.collect()
    tracemalloc.start()
    await open_all(origins + connections)
    assert client.stats().idle == origins + connections
    del protocols[:]
    gc.collect()
    # The transports belong to the benchmark.
    files = (__file__, client_exchange.__file__)
    held = tracemalloc.take_snapshot().filter_traces(
        [tracemalloc.Filter(False, name) for name in files]
    )
    tracemalloc.stop()
    await client.close()
    for end in pair:
        end.close()
    return sum(trace.size for trace in held.traces) / connections


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--connections", type=int, default=2000)
    count = parser.parse_args().connections
    for origins in (1, 50):
        print(f"{asyncio.run(idle_bytes(count, origins)):6.0f} bytes, {origins} origin(s)")


if __name__ == "__main__":
    main()
