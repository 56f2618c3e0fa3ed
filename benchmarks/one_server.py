"""How long do 200 requests at once to a server take that needs 0.1 s for each? With the defaults.

    python benchmarks/one_server.py [--clients 'client,httpx*'] [--loops asyncio,uvloop]

Each client has as many connections as it has by default, and each is new: so a service begins.
Then come 200 more at once, on the connections that are there. With *n* connections no client can
be done before 0.1 s times 200 / *n*, rounded up. The script prints one table, as Markdown; a cell
is ``asyncio / uvloop``. fairness.py asks the opposite question: what a slow server leaves to
others.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

from experiments import Column, child, compare, options, report, table

if TYPE_CHECKING:
    from clients import AsyncClient

REQUESTS = 200
MILLISECONDS = 100
SECONDS = 60.0


async def experiment(client: AsyncClient) -> None:
    """Make the requests twice, and report how long they took."""
    job = client.job
    slow = f"{job.origin}/wait/{MILLISECONDS}"
    # Imports and set-up of the first request do not count.
    await client.fetch(job.urls[0])

    async def fetch() -> tuple[float, int]:
        body = await client.fetch(slow)
        return time.perf_counter(), int(body)

    for name in ("new", "open"):
        began = time.perf_counter()
        ends, at_once = zip(*await asyncio.gather(*[fetch() for _ in range(REQUESTS)]), strict=True)
        first, last = min(ends) - began, max(ends) - began
        report(**{f"{name}_first": first, f"{name}_last": last, "at_once": max(at_once)})


COLUMNS: tuple[Column, ...] = (
    ("connections", lambda outcome: f"{outcome.found['at_once']}"),
    ("first response, s", lambda outcome: f"{outcome.found['new_first']:.2f}"),
    (f"all {REQUESTS}, s", lambda outcome: f"{outcome.found['new_last']:.2f}"),
    (f"{REQUESTS} more, s", lambda outcome: f"{outcome.found['open_last']:.2f}"),
)


def main() -> int:
    given = options(__doc__).parse_args()
    if given.child:
        return child(*given.child, experiment)
    rows, absent = compare(__file__, given, [], SECONDS, defaults=True)
    print(table(COLUMNS, rows, absent), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
