"""The summary: a run's medians in a few tables, as the documentation shows them.

    python benchmarks/summary.py benchmarks/results/full.json

writes them into docs/topics/performance.md and README.md, between their marks. The whole report
(report.py) has the spreads, and the ratios within a round.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from report import CLIENT, FLOOR, KIN, MIB, NO_COOKIES, Figures, Result, judge

__all__ = ["HOMES", "headline", "placed", "summary"]

ROOT = Path(__file__).parent.parent

BEGIN, END = "<!-- figures: benchmarks/summary.py -->", "<!-- end of the figures -->"

HEADLINE = {
    "get_x64": "the same head again",
    "get_x64_distinct": "every head another",
    "get_x64_tls": "over TLS",
}
"""The scenarios whose CPU per request the README shows."""

LOOPS = ("asyncio", "uvloop")
NOTHING = "–"

NAMES = {
    FLOOR: "the floor: a bare protocol that parses nothing",
    CLIENT: "aiohttpconn's `Client`",
    NO_COOKIES: "aiohttpconn's `Client`, no cookies",
}


def summary(raw: dict[str, Any]) -> str:
    """Return the tables of *raw*, a run's JSON, and the bars."""
    figures = Figures(raw)
    tables = [
        _table(figures, "request", "CPU µs per request", lambda r: r.cpu),
        _table(figures, "request", "CPU µs per request", lambda r: r.cpu, ours_alone=True),
        _table(figures, "bytes", "GB/s", lambda r: r.throughput),
        _table(figures, "bytes", "CPU seconds per GB", lambda r: r.cpu_per_gb),
        _table(figures, "bytes", "Peak memory, MiB", lambda r: [r.peak / MIB]),
        _table(figures, "memory", "KiB of Python's memory each", lambda r: r.python_each),
        _table(figures, "import", "Milliseconds", lambda r: r.milliseconds),
        _bars(figures),
    ]
    return "\n".join(table for table in tables if table)


def headline(raw: dict[str, Any]) -> str:
    """Return the README's table: the clients by CPU per request."""
    figures = Figures(raw)
    cheapest: dict[str, float] = {}
    for result in figures.of("get_x64"):
        # Streams are not an HTTP client: only the whole report has them.
        if result.rounds and result.client != "streams":
            cost = statistics.median(result.cpu)
            cheapest[result.client] = min(cost, cheapest.get(result.client, cost))
    rows = [f"| | {' | '.join(HEADLINE.values())} |", f"|---|{'---:|' * len(HEADLINE)}"]
    for client in sorted(cheapest, key=cheapest.__getitem__):
        cells = [_cell(figures, name, client, lambda r: r.cpu) for name in HEADLINE]
        name = NAMES.get(client, client)
        if client in KIN:
            name = f"**{name}**"
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*rows, ""])


def placed(page: str, tables: str) -> str:
    """Return *page* with *tables* between its marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    return f"{before}{begin}\n\n{tables}\n{end}{after}"


def _shown(values: list[float]) -> str:
    middle = statistics.median(values)
    if abs(middle) >= 10:
        return f"{middle:,.0f}" if abs(middle) >= 100 else f"{middle:.1f}"
    return f"{middle:.2f}"


def _table(
    figures: Figures,
    unit: str,
    title: str,
    series: Callable[[Result], list[float]],
    *,
    ours_alone: bool = False,
) -> str:
    """Return clients by scenarios; a cell is ``asyncio / uvloop``, or one number for threads.

    *ours_alone* selects the scenarios in which no other client takes part.
    """
    names = [
        name
        for name, scenario in figures.scenarios.items()
        if scenario["unit"] == unit and bool(scenario.get("only")) is ours_alone
    ]
    clients = list(dict.fromkeys(r.client for name in names for r in figures.of(name)))
    rows = []
    for client in clients:
        cells = [_cell(figures, name, client, series) for name in names]
        if any(cell != NOTHING for cell in cells):
            rows.append(f"| {client} | {' | '.join(cells)} |")
    if not rows:
        return ""
    head = f"| {title} | {' | '.join(f'`{name}`' for name in names)} |"
    return "\n".join([head, f"|---|{'---:|' * len(names)}", *rows, ""])


def _cell(
    figures: Figures,
    scenario: str,
    client: str,
    series: Callable[[Result], list[float]],
) -> str:
    blocking = figures.get(scenario, client, "threads") or figures.get(scenario, client, "")
    if blocking is not None:
        return _shown(series(blocking))
    found = [figures.get(scenario, client, loop) for loop in LOOPS]
    if not any(found):
        return NOTHING
    return " / ".join(_shown(series(result)) if result else NOTHING for result in found)


def _bars(figures: Figures) -> str:
    words = {True: "yes", False: "**no**", None: "not measured"}
    rows = [
        f"| {v.scenario} | {v.bar} | {v.measured} | {words[v.reached]} |" for v in judge(figures)
    ]
    return "\n".join(["| scenario | aim | measured | reached |", "|---|---|---:|---|", *rows, ""])


HOMES = {"docs/topics/performance.md": summary, "README.md": headline}
"""The pages that have marks, and the functions that make the tables between them."""


def main(path: str) -> None:
    raw = json.loads(Path(path).read_text(encoding="utf-8"))
    for name, tables in HOMES.items():
        page = ROOT / name
        text = placed(page.read_text(encoding="utf-8"), tables(raw))
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
