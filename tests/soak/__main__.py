"""Run the soak: ``python -m tests.soak [--seconds N] [--only TEXT]``.

Ends with code 1 if a request is lost, if one fails that should not, or if something stays open.
What is not here is skipped with the reason; with ``CI`` set a missing server is a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aiohttpconn import __version__

from . import links, servers
from .experiments import ON_LINKS, ON_SERVERS, Experiment, Row, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from .servers import Grounds, Server

LEAST_SECONDS = 2.0
"""Of an experiment."""

LINE = "{:<36} {:<7} {:>8} {:>8} {:>7} {:>5} {:>9} {:>9}  {}"


class Skipped(Exception):
    """An experiment that cannot be run here, with the reason."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=180, help="in all (180)")
    parser.add_argument("--only", default="", help="experiments whose name has this text")
    parser.add_argument("--json", help="a file for the rows")
    options = parser.parse_args()
    chosen = [
        each for each in ON_SERVERS + ON_LINKS if options.only in f"{each.server}: {each.name}"
    ]
    if not chosen:
        parser.error(f"no experiment has {options.only!r} in its name")
    share = max(LEAST_SECONDS, options.seconds / len(chosen) - 0.6)
    print(f"aiohttpconn {__version__}, Python {sys.version.split()[0]}: {share:.1f} s each")
    names = "made served resent lost files memory".split()
    print(LINE.format("experiment", "loop", *names, "failed"))
    rows, skipped = [], {}
    with tempfile.TemporaryDirectory(prefix="aiohttpconn-soak-", ignore_cleanup_errors=True) as it:
        with contextlib.ExitStack() as stack:
            stage = Stage(servers.Grounds(Path(it)), stack)
            for number, experiment in enumerate(chosen):
                try:
                    row = stage.run(experiment, share, number)
                except Skipped as exc:
                    skipped[experiment.server] = str(exc)
                else:
                    rows.append(row)
                    show(row)
    for server, why in skipped.items():
        print(f"{server}: skipped: {why}")
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(row) for row in rows], indent=1))
    faults = sum(bool(row.faults) for row in rows)
    made, resent = sum(row.made for row in rows), sum(row.resent for row in rows)
    lost = sum(row.lost for row in rows)
    print(f"{made} requests, {resent} resent, {lost} lost; {faults} experiments have a fault")
    return 1 if faults or not rows or (skipped.keys() - {"link"} and os.environ.get("CI")) else 0


def show(row: Row) -> None:
    failed = ", ".join(f"{count} {name}" for name, count in sorted(row.failed.items())) or "-"
    ends = ["{}-{}".format(*pair) for pair in (row.descriptors, row.memory)]
    numbers = row.made, row.served, row.resent, row.lost
    print(LINE.format(row.experiment, row.loop, *numbers, *ends, failed), flush=True)
    for fault in row.faults:
        print(f"    WRONG: {fault}", flush=True)


class Stage:
    """The servers of the experiments, each started when the first needs it, until the end."""

    def __init__(self, grounds: Grounds, stack: contextlib.ExitStack) -> None:
        self._grounds = grounds
        self._stack = stack
        self._started: dict[str, Server] = {}
        self._has_uvloop = importlib.util.find_spec("uvloop") is not None

    def run(self, experiment: Experiment, seconds: float, number: int) -> Row:
        """Run *experiment*; its *number* says on which loop. Raises ``Skipped``."""
        uvloop = self._has_uvloop and number % 2 == 1
        ca_file = self._grounds.ca_file
        if experiment.server == "link":
            return self._run_at_link(experiment, seconds, uvloop)
        return run(experiment, self._server(experiment.server), seconds, uvloop, ca_file)

    def _server(self, name: str) -> Server:
        if name not in self._started:
            if name == "nginx":
                made = _needed(servers.nginx, self._grounds)
            elif name == "haproxy":
                made = _needed(servers.haproxy, self._grounds, self._server("nginx"))
            else:
                made = _needed(servers.squid, self._grounds, self._server("nginx"))
            self._stack.callback(made.daemon.stop)
            made.daemon.start()
            self._started[name] = made
        return self._started[name]

    def _run_at_link(self, experiment: Experiment, seconds: float, uvloop: bool) -> Row:
        if why := links.why_not():
            raise Skipped(why)
        with links.link() as link:
            inside = [*link.run_at_server, *_AS_NOBODY]
            server = _needed(servers.nginx, self._grounds, links.SERVER, inside)
            server.daemon.start()
            try:
                with link.entered():
                    links.wait_for(server.http)
                    return run(experiment, server, seconds, uvloop, self._grounds.ca_file, link)
            finally:
                server.daemon.stop()


def _needed(make: Callable[..., Server], *arguments: object) -> Server:
    """Call *make*; raise ``Skipped`` if the program is not here."""
    try:
        return make(*arguments)
    except (pytest.skip.Exception, pytest.fail.Exception) as exc:
        raise Skipped(str(exc)) from None


_AS_NOBODY = ["setpriv", "--reuid=nobody", "--clear-groups"]

if __name__ == "__main__":
    sys.exit(main())
