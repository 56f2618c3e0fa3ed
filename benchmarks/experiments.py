"""The common part of fairness.py, one_server.py and cancellation.py: one experiment per client.

Each client is a process of its own with a time limit, because some of them hang. It runs the same
script with ``--child``, and writes each finding at once, as a line of JSON, to standard output, so
that earlier findings survive a later failure. The server is server/own.py.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from clients import CLIENTS, AsyncClient, Job
from plan import chosen, find_versions, python_of
from scenarios import REPLY
from servers import Endpoint, cores, pinned, start_own
from worker import load_job, raise_file_limit
from workers import environment

__all__ = ["LIMIT", "Column", "Outcome", "child", "compare", "options", "report", "run", "table"]

HERE = Path(__file__).parent

LIMIT = 20
"""Connections that each client may have, in all, in its own pool."""

Experiment = Callable[[AsyncClient], Awaitable[None]]

NOTHING = "–"


@dataclass(frozen=True)
class Contender:
    """A client with settings: the name of its row, and the limit of its pool."""

    name: str
    client: str
    version: str
    limit: str
    connections: int = LIMIT
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Outcome:
    """The findings of a child, the error that ended it, and its output on standard error."""

    found: dict[str, Any]
    error: str = ""
    said: str = ""


Row = tuple[Contender, list[Outcome]]
"""A client, and its outcome on each loop."""

Column = tuple[str, Callable[[Outcome], str]]
"""A title, and a function that returns the text; it raises ``KeyError`` if nothing was found."""


# ---------------------------------------------------------------------- the parent


def options(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of every such script."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--clients", help="names or patterns, with commas")
    parser.add_argument("--loops", default="asyncio,uvloop")
    parser.add_argument("--said", action="store_true", help="show what the clients print")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser


def compare(
    script: str,
    given: argparse.Namespace,
    arguments: list[str],
    seconds: float,
    defaults: bool = False,
) -> tuple[list[Row], dict[str, str]]:
    """Make the experiment of *script* with each client; return the rows, and the absent clients.

    *arguments* are passed on to the children, each of which has *seconds*. With *defaults* each
    client has as many connections as it has by default.
    """
    found, absent = contenders(given.clients, defaults)
    server_core = cores()[1] if len(cores()) > 1 else None
    rows = []
    for contender in found:
        outcomes = []
        for loop in given.loops.split(","):
            say(f"{Path(script).stem}: {contender.name}, {contender.limit}, {loop}")
            # A server for each client: connections that one has left must not affect the next.
            with start_own(server_core, None) as endpoint:
                outcomes.append(run(script, contender, loop, endpoint, arguments, seconds))
            if given.said:
                say(outcomes[-1].said)
        rows.append((contender, outcomes))
    return rows, absent


def contenders(
    patterns: str | None, defaults: bool = False
) -> tuple[list[Contender], dict[str, str]]:
    """Return the clients that take part, and those that do not, with the reason."""
    versions = find_versions()
    found, absent = [], {}
    pooling = [name for name, client in CLIENTS.items() if takes_part(name, client.only)]
    for name in chosen(patterns, pooling):
        if CLIENTS[name].loops == ("threads",):
            absent[name] = "blocks, and what waits are threads"
        elif name not in versions:
            absent[name] = "not installed"
        elif defaults and not (connections := int(of_adapter(name, "DEFAULT"))):
            absent[name] = "its default is not known here"
        else:
            limit = "its own" if defaults else of_adapter(name, "LIMIT")
            one = Contender(
                "aiohttpconn" if name == "client" else name,
                name,
                versions[name],
                limit,
                connections if defaults else LIMIT,
            )
            found.append(one)
            if name == "client":
                begin = "" if defaults else "limit=20, "
                found += [
                    replace(
                        one,
                        limit=f"`{begin}limit_per_host={number}`",
                        options={"limit_per_host": number},
                    )
                    for number in (8, None)
                ]
    return found, absent


def takes_part(name: str, only: tuple[str, ...]) -> bool:
    """Return whether *name* is a client with a pool, and no variant of another."""
    kind = CLIENTS[name].kind
    return name == "client" or (not only and kind not in ("ours", "floor", "stdlib"))


def of_adapter(name: str, attribute: str) -> str:
    """Return an *attribute* of *name*, from a process in its environment: ours may lack it."""
    command = f"import clients.{CLIENTS[name].module} as m; print(m.Client.{attribute})"
    python = python_of(CLIENTS[name].environment)
    done = subprocess.run(
        [python, "-c", command],
        cwd=HERE,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.strip()


def run(
    script: str,
    contender: Contender,
    loop: str,
    endpoint: Endpoint,
    arguments: list[str],
    seconds: float,
) -> Outcome:
    """Make the experiment of *script* with a client; give up after *seconds*."""
    job = Job(
        action="fetch",
        path="/x",
        size=len(REPLY),
        concurrency=contender.connections,
        host=endpoint.plain[0][0],
        port=endpoint.plain[0][1],
        targets=endpoint.plain[1:],
        limit=contender.connections,
        options=contender.options,
    )
    values = json.dumps(asdict(job) | {"document": ""})
    python = python_of(CLIENTS[contender.client].environment)
    command = [python, "-W", "default", script, *arguments]
    command += ["--child", contender.client, loop, values]
    core = cores()[0] if len(cores()) > 1 else None
    with pinned(core):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
    error = ""
    try:
        out, err = process.communicate(timeout=seconds)
        if process.returncode:
            error = f"ended with status {process.returncode}"
    except subprocess.TimeoutExpired:
        error = f"nothing more within {seconds:g} s"
        process.kill()
        out, err = process.communicate()
    found: dict[str, Any] = {}
    for line in out.decode().splitlines():
        found |= json.loads(line)
    return Outcome(found, found.pop("error", error), err.decode(errors="replace"))


def table(columns: tuple[Column, ...], rows: list[Row], absent: dict[str, str]) -> str:
    """Return the rows as Markdown, and below them the reasons for missing figures."""
    titles = ["client", "limit", *[title for title, _ in columns]]
    lines = [f"| {' | '.join(titles)} |", f"|---|---|{'---:|' * len(columns)}"]
    notes = []
    for contender, outcomes in rows:
        name = f"{contender.name} {contender.version}"
        shown = [_cell(show, outcomes) for _, show in columns]
        lines.append(f"| {name} | {contender.limit} | {' | '.join(shown)} |")
        notes += [f"{name}: {outcome.error}" for outcome in outcomes if outcome.error]
    notes += [f"{name}: {why}" for name, why in absent.items()]
    if notes:
        lines += ["", f"Missing: {'; '.join(dict.fromkeys(notes))}."]
    return "\n".join([*lines, ""])


def _cell(show: Callable[[Outcome], str], outcomes: list[Outcome]) -> str:
    """Return the values of the loops, or one if they are the same; a dash stands for none."""
    values = []
    for outcome in outcomes:
        try:
            values.append(show(outcome))
        except KeyError:
            values.append(NOTHING)
    return values[0] if len(set(values)) == 1 else " / ".join(values)


def say(text: str) -> None:
    """Show progress."""
    print(text, file=sys.stderr, flush=True)


# ----------------------------------------------------------------------- the child


def report(**found: Any) -> None:
    """Tell the parent *found*."""
    print(json.dumps(found), flush=True)


def child(client: str, loop: str, job: str, experiment: Experiment) -> int:
    """Make *experiment* with a client in this process; return the exit status."""
    raise_file_limit()
    factory: Any = asyncio.new_event_loop
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    try:
        adapter = importlib.import_module(f"clients.{CLIENTS[client].module}").Client
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_opened(adapter(load_job(job)), experiment))
    except Exception as exc:
        report(error=" ".join(f"{type(exc).__name__}: {exc}".split())[:200])
        raise
    return 0


async def _opened(client: AsyncClient, experiment: Experiment) -> None:
    await client.open()
    await experiment(client)
    await client.close()
