"""The report: the figures of run.py's JSON as Markdown.

This module measures nothing and estimates nothing: a cell without figures is empty, and a note
below the table says why. Ratios are between results of the same round; the report shows their
median, least and greatest. Clients that block (``threads``) are compared with asyncio's floor.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["BARS", "KIN", "Figures", "Result", "Verdict", "judge", "markdown", "spread"]

OURS, FLOOR = "aiohttpconn", "floor"
CLIENT, NO_COOKIES = "client", "client-nocookies"
KIN = frozenset({OURS, CLIENT, NO_COOKIES})
"""Our own clients: ``HTTPConnection``, and ``Client`` on top of it."""

RUST = ("wreq", "pyreqwest")

MIB = 1024 * 1024


# ------------------------------------------------------------------------ figures


@dataclass(frozen=True)
class Result:
    """The result of one client in one scenario on one loop; ``rounds`` may be empty."""

    scenario: str
    client: str
    loop: str
    size: int
    rounds: tuple[dict[str, float], ...] = ()
    peak: int = 0
    why_not: str = ""

    @property
    def cpu(self) -> list[float]:
        """CPU µs per request, of each round."""
        return [r["cpu"] / r["requests"] * 1e6 for r in self.rounds]

    @property
    def rate(self) -> list[float]:
        """Requests per second."""
        return [r["requests"] / r["wall"] for r in self.rounds]

    @property
    def throughput(self) -> list[float]:
        """GB per second."""
        return [r["requests"] * self.size / r["wall"] / 1e9 for r in self.rounds]

    @property
    def cpu_per_gb(self) -> list[float]:
        """CPU seconds per GB."""
        return [r["cpu"] / (r["requests"] * self.size / 1e9) for r in self.rounds]

    @property
    def milliseconds(self) -> list[float]:
        """Milliseconds of an import, beyond those of the modules that every client imports."""
        return [(r["with"] - r["base"]) * 1e3 for r in self.rounds]

    @property
    def python_each(self) -> list[float]:
        """KiB of Python's memory for each idle connection."""
        return [r["python_each"] / 1024 for r in self.rounds]

    @property
    def resident_each(self) -> list[float]:
        """KiB of resident memory for each idle connection."""
        return [r["resident_each"] / 1024 for r in self.rounds]


class Figures:
    """All results of a run, found by (scenario, client, loop)."""

    def __init__(self, figures: dict[str, Any]) -> None:
        self.run: dict[str, Any] = figures["run"]
        self.scenarios: dict[str, dict[str, Any]] = figures["scenarios"]
        self._results = {
            (r["scenario"], r["client"], r["loop"]): self._result(r) for r in figures["results"]
        }

    def _result(self, raw: dict[str, Any]) -> Result:
        error, missing = raw.get("error", ""), raw.get("missing", "")
        why_not = f"error: {error}" if error else missing or raw.get("cannot", "")
        return Result(
            raw["scenario"],
            raw["client"],
            raw["loop"],
            self.scenarios[raw["scenario"]]["size"],
            # A client that failed in its fourth round gets no figures from the first three.
            () if why_not else tuple(raw.get("rounds", ())),
            raw.get("peak", 0),
            why_not,
        )

    def get(self, scenario: str, client: str, loop: str) -> Result | None:
        """Return a result if it has figures, else None."""
        found = self._results.get((scenario, client, loop))
        return found if found is not None and found.rounds else None

    def of(self, scenario: str) -> list[Result]:
        """Return all results of a scenario, in the order in which they were measured."""
        return [result for key, result in self._results.items() if key[0] == scenario]

    def beside(self, result: Result, client: str) -> Result | None:
        """Return the result of *client* to compare *result* with."""
        loops = ("asyncio", "uvloop") if result.loop == "threads" else (result.loop,)
        found = (self.get(result.scenario, client, loop) for loop in loops)
        return next((other for other in found if other is not None), None)


def ratios(above: Iterable[float], below: Iterable[float]) -> list[float]:
    """Return the ratios of values of the same rounds."""
    return [a / b for a, b in zip(above, below, strict=False) if b]


def spread(values: list[float], digits: int | None = None) -> str:
    """Return ``median (least–greatest)``, by default with as many digits as are worth reading."""
    if not values:
        return ""
    middle = statistics.median(values)
    if digits is None:
        size = abs(middle)
        digits = 2 if size < 10 else 1 if size < 100 else 0
    text = f"{middle:,.{digits}f}"
    if len(values) > 1:
        text += f" ({min(values):,.{digits}f}–{max(values):,.{digits}f})"
    return text


# --------------------------------------------------------------------------- bars


@dataclass(frozen=True)
class Verdict:
    """A bar, and whether it was reached; ``reached`` is None if there are no figures."""

    scenario: str
    bar: str
    measured: str
    reached: bool | None


@dataclass(frozen=True)
class Bar:
    """An aim for scenarios: *value* of the measured figures is at most, or at least, *limit*.

    ``value(figures, scenario, loop)`` returns the ratios of the rounds (or a single number); their
    median is compared with *limit*.
    """

    scenarios: tuple[str, ...]
    loops: tuple[str, ...]
    text: str
    value: Callable[[Figures, str, str], list[float]]
    limit: float
    least: bool = False
    unit: str = "×"

    def judge(self, figures: Figures, scenario: str, loop: str) -> Verdict:
        values = self.value(figures, scenario, loop)
        name = f"`{scenario}`" + (f", {loop}" if loop else "")
        if not values:
            return Verdict(name, self.text, "", None)
        middle = statistics.median(values)
        reached = middle >= self.limit if self.least else middle <= self.limit
        return Verdict(name, self.text, f"{spread(values)} {self.unit}", reached)


Series = Callable[[Result], list[float]]


def _between(above: str, below: str, series: Series) -> Callable[..., list[float]]:
    """Return a function that returns the ratios of two clients in one scenario on one loop."""

    def value(figures: Figures, scenario: str, loop: str) -> list[float]:
        a, b = figures.get(scenario, above, loop), figures.get(scenario, below, loop)
        return ratios(series(a), series(b)) if a is not None and b is not None else []

    return value


def _cpu(result: Result) -> list[float]:
    return result.cpu


def _throughput(result: Result) -> list[float]:
    return result.throughput


def _best_rust(figures: Figures, scenario: str, loop: str) -> list[float]:
    """Return the ratios of the best Rust client's CPU to ours."""
    ours = figures.get(scenario, OURS, loop)
    found = [figures.get(scenario, name, loop) for name in RUST]
    rust = [result for result in found if result is not None]
    if ours is None or not rust:
        return []
    best = min(rust, key=lambda result: statistics.median(result.cpu))
    return ratios(best.cpu, ours.cpu)


def _against_get_x64(figures: Figures, scenario: str, loop: str) -> list[float]:
    """Return CPU per request over that of get_x64, from medians: two scenarios share no rounds."""
    many, few = figures.get(scenario, OURS, loop), figures.get("get_x64", OURS, loop)
    if many is None or few is None:
        return []
    return [statistics.median(many.cpu) / statistics.median(few.cpu)]


def _rate_over_get_x64(*others: str) -> Callable[..., list[float]]:
    """Return a function: the client's requests per second over the best of *others* in get_x64."""

    def value(figures: Figures, scenario: str, loop: str) -> list[float]:
        deep = figures.get(scenario, CLIENT, loop)
        found = [figures.get("get_x64", name, loop) for name in others]
        rates = [statistics.median(result.rate) for result in found if result is not None]
        if deep is None or not rates:
            return []
        return [statistics.median(deep.rate) / max(rates)]

    return value


def _peak_over_body(figures: Figures, scenario: str, loop: str) -> list[float]:
    ours = figures.get(scenario, OURS, loop)
    return [ours.peak / ours.size] if ours is not None else []


def _peak(figures: Figures, scenario: str, loop: str) -> list[float]:
    ours = figures.get(scenario, OURS, loop)
    return [ours.peak / MIB] if ours is not None else []


def _idle_over_floor(figures: Figures, scenario: str, loop: str) -> list[float]:
    ours, floor = figures.get(scenario, OURS, loop), figures.get(scenario, FLOOR, loop)
    if ours is None or floor is None:
        return []
    return [a - b for a, b in zip(ours.python_each, floor.python_each, strict=False)]


_BOTH = ("asyncio", "uvloop")
_OVER_FLOOR = _between(OURS, FLOOR, _cpu)
_UNDER_AIOHTTP = _between("aiohttp", OURS, _cpu)
_OF_FLOOR = _between(OURS, FLOOR, _throughput)
_OF_AIOHTTP = _between(OURS, "aiohttp", _throughput)
_OPEN = ("open_10000_hot", "open_10000_spread")
_UPLOADS = ("upload_bytes_256m", "upload_file_256m")
_STREAMS = ("stream_256m", "readinto_256m")

BARS = (
    Bar(("get_x64",), ("asyncio",), "≤ 1.5 × the floor", _OVER_FLOOR, 1.5),
    Bar(("get_x64",), ("uvloop",), "≤ 1.8 × the floor", _OVER_FLOOR, 1.8),
    Bar(("get_x64",), _BOTH, "≥ 5 × less than aiohttp", _UNDER_AIOHTTP, 5, least=True),
    Bar(("get_x64",), ("asyncio",), "≥ 1.5 × less than the best in Rust", _best_rust, 1.5, True),
    Bar(("get_x64",), ("uvloop",), "≥ 1.8 × less than the best in Rust", _best_rust, 1.8, True),
    Bar(("get_x64_tls",), _BOTH, "≤ 1.3 × the TLS floor", _OVER_FLOOR, 1.3),
    Bar(("get_x64_tls",), _BOTH, "≥ 3 × less than aiohttp", _UNDER_AIOHTTP, 3, least=True),
    Bar(("get_x1000",), _BOTH, "≤ 1.25 × that of `get_x64`", _against_get_x64, 1.25),
    Bar(_STREAMS, _BOTH, "≥ 0.9 × the floor's throughput", _OF_FLOOR, 0.9, least=True),
    # aiohttp has no readinto(): it has its stream instead.
    Bar(("stream_256m",), _BOTH, "≥ 2 × aiohttp", _OF_AIOHTTP, 2, least=True),
    Bar(("read_256m",), _BOTH, "≥ 0.75 × the floor", _OF_FLOOR, 0.75, least=True),
    Bar(("read_256m",), _BOTH, "≥ 4 × aiohttp", _OF_AIOHTTP, 4, least=True),
    Bar(("read_256m",), _BOTH, "peak ≤ 1.15 × the body", _peak_over_body, 1.15),
    Bar(_UPLOADS, _BOTH, "≥ 0.9 × a bare protocol", _OF_FLOOR, 0.9, least=True),
    Bar(
        ("upload_file_256m",),
        _BOTH,
        "peak independent of the size (≤ 16 MiB)",
        _peak,
        16,
        unit="MiB",
    ),
    Bar(
        ("many_hosts_connect_tls",),
        _BOTH,
        "≥ 1.5 × less than without resumption",
        _between(f"{OURS}-noresume", OURS, _cpu),
        1.5,
        least=True,
    ),
    Bar(
        ("idle_10000",),
        _BOTH,
        "≤ 4 KiB of Python's memory over the bare protocol",
        _idle_over_floor,
        4,
        unit="KiB",
    ),
    Bar(
        ("get_x64",),
        _BOTH,
        "`Client.get`, no cookies: ≤ 1.35 × `HTTPConnection`",
        _between(NO_COOKIES, OURS, _cpu),
        1.35,
    ),
    Bar(
        ("get_x64",),
        _BOTH,
        "`Client.get`: ≤ 1.5 × `HTTPConnection`",
        _between(CLIENT, OURS, _cpu),
        1.5,
    ),
    Bar(
        ("get_x64",),
        _BOTH,
        "`Client.get`: ≥ 3.5 × less than aiohttp",
        _between("aiohttp", CLIENT, _cpu),
        3.5,
        least=True,
    ),
    Bar(
        ("pipelined_x64",),
        ("uvloop",),
        "`Client.get`: ≥ 1.3 × `HTTPConnection`'s requests/s in `get_x64`",
        _rate_over_get_x64(OURS),
        1.3,
        least=True,
    ),
    Bar(
        ("pipelined_x64",),
        _BOTH,
        "`Client.get`: ≥ 2.5 × the requests/s of the best in Rust in `get_x64`",
        _rate_over_get_x64(*RUST),
        2.5,
        least=True,
    ),
    Bar(
        _OPEN,
        _BOTH,
        "≤ 1.3 × that with 64 connections open",
        _between(CLIENT, f"{CLIENT}-64-open", _cpu),
        1.3,
    ),
    Bar(
        ("queued_100000",),
        _BOTH,
        "≤ 1.3 × that with 1,000 queued",
        _between(CLIENT, f"{CLIENT}-1000-queued", _cpu),
        1.3,
    ),
)


def judge(figures: Figures) -> list[Verdict]:
    """Return a verdict for every bar whose scenario and loop were run."""
    return [
        bar.judge(figures, scenario, loop)
        for bar in BARS
        for scenario in bar.scenarios
        if scenario in figures.scenarios
        for loop in bar.loops
        if loop in figures.run["loops"]
    ]


# ----------------------------------------------------------------------- Markdown


Column = tuple[str, Callable[[Figures, Result], str]]


def _ratio_to(client: str, series: Series, *, inverse: bool = False) -> Callable[..., str]:
    def cell(figures: Figures, result: Result) -> str:
        other = figures.beside(result, client)
        if other is None or other.client == result.client:
            return ""
        mine, theirs = series(result), series(other)
        return spread(ratios(theirs, mine) if inverse else ratios(mine, theirs))

    return cell


def _peak_cell(_: Figures, result: Result) -> str:
    return f"{result.peak / MIB:,.1f}"


COLUMNS: dict[str, tuple[Column, ...]] = {
    "request": (
        ("CPU µs per request", lambda _, r: spread(r.cpu)),
        ("requests/s", lambda _, r: spread(r.rate, 0)),
        ("peak MiB", _peak_cell),
        ("× the floor", _ratio_to(FLOOR, _cpu)),
        ("× aiohttpconn", _ratio_to(OURS, _cpu)),
    ),
    "bytes": (
        ("GB/s", lambda _, r: spread(r.throughput)),
        ("CPU s per GB", lambda _, r: spread(r.cpu_per_gb)),
        ("peak MiB", _peak_cell),
        ("of the floor's GB/s", _ratio_to(FLOOR, _throughput)),
        ("aiohttpconn is × as fast", _ratio_to(OURS, _throughput, inverse=True)),
    ),
    "memory": (
        ("KiB of Python's memory each", lambda _, r: spread(r.python_each)),
        ("KiB resident each", lambda _, r: spread(r.resident_each)),
    ),
    "import": (("ms", lambda _, r: spread(r.milliseconds, 1)),),
}


def markdown(raw: dict[str, Any]) -> str:
    """Return the whole report."""
    figures = Figures(raw)
    parts = [_heading(figures.run)]
    parts += [_section(figures, name) for name in figures.scenarios]
    if verdicts := judge(figures):
        parts.append(_verdicts(verdicts))
    return "\n".join(parts)


def _heading(run: dict[str, Any]) -> str:
    machine = run["machine"]
    pins = run.get("pinned")
    where = (
        f"client on core {pins['client']}, server on core {pins['server']}"
        if pins
        else "client and server not pinned to different cores"
    )
    versions = ", ".join(f"{name} {v}" for name, v in sorted(run["versions"].items()) if v)
    lines = [
        "# Benchmarks",
        "",
        f"- {run['date']}, {run['implementation']} {run['python']}, {run['seconds']:,.0f} s"
        + (" (`--quick`: a part of the scenarios and of the clients)" if run["quick"] else ""),
        f"- {machine['cpu']}, {machine['cores']} cores, {machine['system']}; {where}",
        f"- servers: {', '.join(run['servers']) or 'none'}",
        f"- {versions}",
        f"- `{run['command']}`",
        "",
        f"Median (least–greatest) of {run['rounds']} interleaved rounds; ratios are of the same "
        "round. Peak is over what the process had before it opened its connections.",
        "",
    ]
    return "\n".join(lines)


def _section(figures: Figures, name: str) -> str:
    scenario = figures.scenarios[name]
    columns = COLUMNS[scenario["unit"]]
    results = figures.of(name)
    lines = [f"## {name}", "", f"{scenario['what'][0].upper()}{scenario['what'][1:]}.", ""]
    titles = ["client", *([] if scenario["unit"] == "import" else ["loop"])]
    titles += [title for title, _ in columns]
    lines.append(f"| {' | '.join(titles)} |")
    lines.append(f"|{'---|' * (len(titles) - len(columns))}{'---:|' * len(columns)}")
    notes: dict[str, list[str]] = {}
    for result in results:
        row = [result.client, *([] if scenario["unit"] == "import" else [result.loop])]
        if result.rounds:
            row += [cell(figures, result) for _, cell in columns]
        else:
            row += [""] * len(columns)
            notes.setdefault(f"{result.client}: {result.why_not}", []).append(result.loop)
        lines.append(f"| {' | '.join(row)} |")
    if notes:
        lines += ["", "Empty: " + "; ".join(notes) + "."]
    return "\n".join([*lines, ""])


def _verdicts(verdicts: list[Verdict]) -> str:
    lines = ["## The bars", "", "| scenario | bar | measured | reached |", "|---|---|---:|---|"]
    words = {True: "yes", False: "**no**", None: "not measured"}
    lines += [f"| {v.scenario} | {v.bar} | {v.measured} | {words[v.reached]} |" for v in verdicts]
    return "\n".join([*lines, ""])
