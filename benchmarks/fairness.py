"""How long does one request wait while 200 others wait for a slow host? For us and every peer.

    python benchmarks/fairness.py [--clients 'client,httpx*'] [--loops asyncio,uvloop] [--defaults]

Each client may have 20 connections in all, or its own default. It makes 200 requests to a host that
takes 0.5 s for each. 0.1 s later it makes one request to another host, which answers at once; then
ten more, one after the other. A client that keeps to its limit, and gives the slow host all of it,
cannot answer the one before 0.4 s have passed, when the first connections are free; a pool with one
queue for all requests takes 5 s. The script prints one table, as Markdown; a cell is ``asyncio /
uvloop``."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

from experiments import Column, child, compare, options, report, table

if TYPE_CHECKING:
    from clients import AsyncClient

SLOW_REQUESTS = 200
SLOW_MILLISECONDS = 500
HEAD_START = 0.1
"""Seconds between the 200 requests and the one."""

MORE = 10
SECONDS = 60.0
"""Seconds after which a client hangs: 200 requests take 5 s on 20 connections, 12.5 s on 8."""


async def experiment(client: AsyncClient) -> None:
    """Make the requests, and report how long they took."""
    job = client.job
    slow = f"{job.origin}/wait/{SLOW_MILLISECONDS}"
    fast = job.urls[0]
    # Imports and set-up of the first request do not count.
    await client.fetch(job.url)
    began = time.perf_counter()
    crowd = [asyncio.ensure_future(client.fetch(slow)) for _ in range(SLOW_REQUESTS)]
    await asyncio.sleep(HEAD_START)

    async def seconds() -> float:
        begin = time.perf_counter()
        await client.fetch(fast)
        return time.perf_counter() - begin

    report(first=await seconds())
    report(more=sum([await seconds() for _ in range(MORE)]))
    at_once = [int(body) for body in await asyncio.gather(*crowd)]
    report(crowd=time.perf_counter() - began, at_once=max(at_once))


COLUMNS: tuple[Column, ...] = (
    ("connections to the slow host", lambda outcome: f"{outcome.found['at_once']}"),
    ("the one, s", lambda outcome: f"{outcome.found['first']:.3f}"),
    (f"{MORE} more, s", lambda outcome: f"{outcome.found['more']:.3f}"),
    (f"until the {SLOW_REQUESTS} are done, s", lambda outcome: f"{outcome.found['crowd']:.1f}"),
)


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--defaults", action="store_true", help="the limits of each client's own")
    given = parser.parse_args()
    if given.child:
        return child(*given.child, experiment)
    rows, absent = compare(__file__, given, [], SECONDS, given.defaults)
    print(table(COLUMNS, rows, absent), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
