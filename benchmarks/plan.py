"""The parts of a run: scenarios, clients, loops, and the clients' environments."""

from __future__ import annotations

import fnmatch
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clients import CLIENTS, Registered

if TYPE_CHECKING:
    from scenarios import Scenario

__all__ = ["Entry", "Plan", "chosen", "find_versions", "python_of"]

MANY = 1000
"""Connections of one client at which not all clients run at once any more."""


Entry = tuple[str, Registered, str]


@dataclass
class Plan:
    """The scenarios, clients and loops of a run, and its length."""

    scenarios: list[Scenario]
    clients: list[str]
    loops: list[str]
    rounds: int
    seconds: float
    pythons: dict[str, str]
    versions: dict[str, str]

    def groups(self, scenario: Scenario) -> list[list[Entry]]:
        """Return ``entries`` in groups that run beside each other.

        There is one group, unless all clients together would have more connections than a server
        may have open. Then each loop has its own group, because ratios are within a loop.
        """
        entries = list(self.entries(scenario))
        if max(scenario.concurrency, scenario.crowd) < MANY:
            return [entries]
        first = [entry for entry in entries if entry[2] != "uvloop"]
        second = [entry for entry in entries if entry[2] == "uvloop"]
        return [group for group in (first, second) if group]

    def entries(self, scenario: Scenario) -> Iterator[Entry]:
        """Iterate over (name, client, loop) in the order in which they run."""
        for name in self.clients:
            client = CLIENTS[name]
            if client.only and scenario.name not in client.only:
                continue
            if scenario.only and name not in scenario.only:
                continue
            if scenario.unit == "import":
                if client.imports:
                    yield name, client, ""
                continue
            for loop in client.loops:
                if loop == "threads" or loop in self.loops:
                    yield name, client, loop


def chosen(patterns: str | None, names: Iterator[str] | list[str]) -> list[str]:
    """Return the *names* that match one of *patterns*; raise ``SystemExit`` if one matches none."""
    everything = list(names)
    if patterns is None:
        return everything
    found = []
    for pattern in patterns.split(","):
        matching = fnmatch.filter(everything, pattern)
        if not matching:
            raise SystemExit(f"no such name: {pattern}; there are {', '.join(everything)}")
        found += matching
    return [name for name in everything if name in found]


def python_of(environment_name: str) -> str:
    """Return the interpreter of an environment, whose path is that of ours with a suffix."""
    if not environment_name:
        return sys.executable
    return str(Path(f"{sys.prefix}-{environment_name}") / "bin" / "python")


VERSIONS = """
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def find_versions() -> dict[str, str]:
    """Return the versions of the installed clients and of uvloop; "" for Python's own clients."""
    versions = {}
    for env in {client.environment for client in CLIENTS.values()}:
        names = {
            name: client.distribution
            for name, client in CLIENTS.items()
            if client.environment == env and client.distribution
        } | {"uvloop": "uvloop"}
        command = [python_of(env), "-c", VERSIONS, *set(names.values())]
        try:
            done = subprocess.run(command, capture_output=True, timeout=60, check=True)
        except (OSError, subprocess.SubprocessError):
            continue
        found = json.loads(done.stdout)
        versions |= {name: found[dist] for name, dist in names.items() if dist in found}
    return versions | {name: "" for name, c in CLIENTS.items() if not c.distribution}
