"""How much of a pool is left after ten thousand cancellations? For us and for every peer.

    python benchmarks/cancellation.py [--clients 'client,httpx*'] [--loops asyncio,uvloop]
                                      [--cancellations 10000] [--seed 1]

Each client may have 20 connections in all. A hundred callers use it at a time, for requests to
several hosts, whose answers come at once, later, or in pieces. Each call is cancelled at a random
moment: after some turns of the loop, or after some milliseconds. One second after the last
cancellation the script reads the pool's own counters, if it has any, and makes 60 requests that the
server holds for 0.3 s: the number of requests that it holds at a time is the number of connections
that the pool still gives out. A wrong answer is one to another request. The script prints one
table, as Markdown; a cell is ``asyncio / uvloop``.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import random
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from experiments import LIMIT, Column, Outcome, child, compare, options, report, table
from scenarios import KIB, REPLY

if TYPE_CHECKING:
    from clients import AsyncClient

CALLERS = 100
HOSTS = 4
PATHS = ("/x", "/x", "/wait/2", "/chunked")
CHUNKED_BYTES = 64 * KIB
TURNS = 30
"""Turns of the loop, at most, after which a call is cancelled."""

LATEST = 0.008
"""Seconds, at most, after which another call is cancelled: after that most calls have ended."""

PATIENCE = 10.0
"""Seconds after which a call counts as hung: one cancelled, or one that should take under 1 s."""

SETTLING = 1.0
HELD_REQUESTS = 3 * LIMIT
HELD_MILLISECONDS = 300
SECONDS = 150.0
"""Seconds until a client is given up; the slowest needs half of that."""


def is_right(url: str, body: bytes) -> bool:
    """Return whether *body* answers a request for *url*."""
    if "/wait/" in url:
        return body.isdigit()
    return body == REPLY if url.endswith("/x") else len(body) == CHUNKED_BYTES


class Cancelling:
    """A hundred callers whose calls are cancelled, and counts of the outcomes."""

    def __init__(self, client: AsyncClient, cancellations: int, seed: int) -> None:
        self._client = client
        self._left = cancellations
        self._random = random.Random(seed)
        targets = client.job.targets[:HOSTS]
        self._urls = [f"http://{host}:{port}{path}" for host, port in targets for path in PATHS]
        self.cancelled = self.wrong = self.hung = 0
        self.errors: collections.Counter[str] = collections.Counter()

    async def run(self) -> None:
        callers = [asyncio.ensure_future(self._caller()) for _ in range(CALLERS)]
        await asyncio.gather(*callers)

    async def _caller(self) -> None:
        while self._left > 0 and not self.hung:
            chance = self._random
            url = chance.choice(self._urls)
            task = asyncio.ensure_future(self._client.fetch(url))
            if chance.random() < 0.5:
                for _ in range(chance.randrange(TURNS)):
                    await asyncio.sleep(0)
            else:
                await asyncio.sleep(chance.random() * LATEST)
            task.cancel()
            await asyncio.wait([task], timeout=PATIENCE)
            if not task.done():
                self.hung += 1
            elif task.cancelled():
                self.cancelled += 1
                self._left -= 1
            elif exc := task.exception():
                self.errors[type(exc).__name__] += 1
                # Count it, too: a client that answers every cancellation so must not run for ever.
                self._left -= 1
            elif not is_right(url, task.result()):
                self.wrong += 1


async def capacity(client: AsyncClient) -> dict[str, Any]:
    """Return how many requests the server had at a time, how many hung, and the errors."""
    hosts = itertools.cycle(client.job.targets[:HOSTS])
    tasks = []
    for _ in range(HELD_REQUESTS):
        host, port = next(hosts)
        url = f"http://{host}:{port}/wait/{HELD_MILLISECONDS}"
        tasks.append(asyncio.ensure_future(client.fetch(url)))
    done, hanging = await asyncio.wait(tasks, timeout=PATIENCE)
    errors: collections.Counter[str] = collections.Counter()
    at_once = wrong = 0
    for task in done:
        if exc := task.exception():
            errors[type(exc).__name__] += 1
        elif not is_right(url, task.result()):
            wrong += 1
        else:
            at_once = max(at_once, int(task.result()))
    for task in hanging:
        task.cancel()
    if hanging:
        await asyncio.wait(hanging, timeout=PATIENCE)
    return {
        "at_once": at_once,
        "later_wrong": wrong,
        "later_errors": errors,
        "hanging": len(hanging),
    }


def experiment(cancellations: int, seed: int) -> Callable[[AsyncClient], Any]:
    async def cancel_many(client: AsyncClient) -> None:
        await client.fetch(client.job.url)
        cancelling = Cancelling(client, cancellations, seed)
        await cancelling.run()
        report(
            cancelled=cancelling.cancelled,
            errors=cancelling.errors,
            wrong=cancelling.wrong,
            hung=cancelling.hung,
        )
        await asyncio.sleep(SETTLING)
        report(counters=client.counters())
        report(**await capacity(client))

    return cancel_many


# ----------------------------------------------------------------------- the table


def counted(errors: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in errors.items()) or "none"


def bold_unless_zero(count: int) -> str:
    return f"**{count}**" if count else "none"


def wrong(outcome: Outcome) -> str:
    found = outcome.found
    return bold_unless_zero(found["wrong"] + found.get("later_wrong", 0))


def hanging(outcome: Outcome) -> str:
    found = outcome.found
    return bold_unless_zero(found["hung"] + found["hanging"])


def counters(outcome: Outcome) -> str:
    values = outcome.found["counters"]
    if values is None:
        return "not told"
    left = [f"{value} {name}" for name, value in values.items() if value]
    return ", ".join(left) or "zero"


def at_once(outcome: Outcome) -> str:
    count = outcome.found["at_once"]
    text = f"{count}" if count == LIMIT else f"**{count}**"
    if errors := outcome.found["later_errors"]:
        text += f", {counted(errors)}"
    return text


def said(outcome: Outcome) -> str:
    """Return how many lines a client wrote to standard error, without those of a traceback."""
    lines = [line for line in outcome.said.splitlines() if line and not line.startswith(" ")]
    return f"{len(lines):,} lines" if lines else "nothing"


COLUMNS: tuple[Column, ...] = (
    ("cancelled", lambda outcome: f"{outcome.found['cancelled']:,}"),
    ("other exceptions", lambda outcome: counted(outcome.found["errors"])),
    ("wrong answers", wrong),
    ("its counters then", counters),
    (f"requests at a time, of {LIMIT}", at_once),
    ("that hang", hanging),
    ("printed", said),
)


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--cancellations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if given.child:
        return child(*given.child, experiment(given.cancellations, given.seed))
    arguments = ["--cancellations", str(given.cancellations), "--seed", str(given.seed)]
    rows, absent = compare(__file__, given, arguments, SECONDS)
    print(table(COLUMNS, rows, absent), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
