"""Does the memory of fetch_many stay flat? 100,000 URLs on this machine, with ten readings.

    python benchmarks/fetch_many.py [--urls 100000] [--concurrency 64] [--hosts 16]
                                    [--loops asyncio,uvloop] [--ordered]

The URLs come from a generator, so that nothing holds them; results are checked and dropped. Each
loop has two processes: one that only runs, for the requests per second and the resident memory, and
one under tracemalloc, which is several times slower, for the memory of Python's objects. Memory is
read after every tenth of the URLs; under tracemalloc after a garbage collection, so that only held
objects count. The script prints one table, as Markdown, and a verdict: by how much the median of
the second half is above the first tenth. The server is server/own.py.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scenarios import KIB, MIB, REPLY
from servers import cores, pinned, start_own
from worker import rss
from workers import environment

import aiohttpconn

PARTS = 10
"""Number of times that memory is read."""

FLAT_RESIDENT = MIB
"""Bytes by which resident memory may grow and still count as flat: malloc's arenas vary so much."""

FLAT_TRACED = 128 * KIB
"""Bytes by which Python's objects may grow and still count as flat: the current requests vary."""

SECONDS = 600.0


# ----------------------------------------------------------------------- the child


def urls_of(hosts: list[str], count: int) -> Iterator[str]:
    for number in range(count):
        yield f"http://{hosts[number % len(hosts)]}/x"


async def fetch(hosts: list[str], options: argparse.Namespace) -> None:
    """Fetch all URLs; print a line of JSON after each part."""
    every = max(1, options.urls // PARTS)
    done = 0
    began = time.perf_counter()
    async with aiohttpconn.Client(limit=options.concurrency) as client:
        results = client.fetch_many(
            urls_of(hosts, options.urls), concurrency=options.concurrency, ordered=options.ordered
        )
        async for result in results:
            response = result.result()
            if response.status != 200 or len(response.content) != len(REPLY):
                raise SystemExit(f"{response!r}: {len(response.content)} bytes")
            done += 1
            if done % every == 0:
                now = time.perf_counter()
                if options.trace:
                    gc.collect()
                traced = tracemalloc.get_traced_memory()[0] if options.trace else 0
                found = {"rate": every / (now - began), "resident": rss(), "traced": traced}
                print(json.dumps(found), flush=True)
                began = time.perf_counter()


def child(options: argparse.Namespace) -> int:
    factory: Any = asyncio.new_event_loop
    if options.loops == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    if options.trace:
        tracemalloc.start()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(fetch(json.loads(options.child), options))
    return 0


# ---------------------------------------------------------------------- the parent


def run(options: argparse.Namespace, loop: str, hosts: list[str], trace: bool) -> list[Any]:
    """Return the findings that a child has printed. Raises ``subprocess.SubprocessError``."""
    command = [sys.executable, str(Path(__file__)), "--child", json.dumps(hosts), "--loops", loop]
    command += ["--urls", str(options.urls), "--concurrency", str(options.concurrency)]
    command += ["--trace"] if trace else []
    command += ["--ordered"] if options.ordered else []
    core = cores()[0] if len(cores()) > 1 else None
    with pinned(core):
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            env=environment(),
            timeout=SECONDS,
            text=True,
            check=True,
        )
    return [json.loads(line) for line in done.stdout.splitlines()]


def growth(values: list[float]) -> float:
    """Return the growth of memory from the first reading to the median of the second half."""
    return statistics.median(values[len(values) // 2 :]) - values[0]


def report(found: dict[str, tuple[list[Any], list[Any]]], urls: int) -> str:
    """Return the table and the verdict as Markdown; *found* has, by loop, (run, traced run)."""
    titles = ["URLs"]
    for loop in found:
        titles += [f"{loop}: requests/s", "resident, MiB", "traced, KiB"]
    lines = [f"| {' | '.join(titles)} |", f"|{'---:|' * len(titles)}"]
    for number in range(min(len(plain) for plain, _ in found.values())):
        row = [f"{urls * (number + 1) // PARTS:,}"]
        for plain, traced in found.values():
            row.append(f"{plain[number]['rate']:,.0f}")
            row.append(f"{plain[number]['resident'] / MIB:.1f}")
            row.append(f"{traced[number]['traced'] / KIB:,.0f}")
        lines.append(f"| {' | '.join(row)} |")
    lines.append("")
    for loop, (plain, traced) in found.items():
        resident = growth([part["resident"] for part in plain])
        objects = growth([part["traced"] for part in traced])
        flat = resident <= FLAT_RESIDENT and objects <= FLAT_TRACED
        lines.append(
            f"{loop}: flat after the first {urls // PARTS:,}: {'yes' if flat else '**no**'} "
            f"({resident / KIB:+,.0f} KiB resident, {objects / KIB:+,.0f} KiB traced)"
        )
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--urls", type=int, default=100_000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--hosts", type=int, default=16, help="64 at most")
    parser.add_argument("--loops", default="asyncio,uvloop")
    parser.add_argument("--ordered", action="store_true", help="results in the order of the URLs")
    parser.add_argument("--trace", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--child", metavar="HOSTS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options)
    found = {}
    server_core = cores()[1] if len(cores()) > 1 else None
    with start_own(server_core, None) as endpoint:
        hosts = [f"{host}:{port}" for host, port in endpoint.plain[1:]][: options.hosts]
        for loop in options.loops.split(","):
            print(f"fetch_many: {loop}", file=sys.stderr, flush=True)
            found[loop] = run(options, loop, hosts, False), run(options, loop, hosts, True)
    print(report(found, options.urls), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
