"""Compare clients in one run: the cost of a request for each, beside the floor's in that round.

    python benchmarks/run.py [--quick] [--scenarios 'get_*,read_256m'] [--clients aiohttp,floor]
                             [--loops asyncio,uvloop] [--rounds 5] [--seconds 0.4]
                             [--server nginx|own|HOST:PORT] [--json FILE] [--from-json FILE]
                             [--markdown FILE] [--svg PREFIX]

Every client is a process of its own (worker.py), pinned to one core; the server is another
process, pinned to another core. All clients of a scenario are started and warmed up, then rounds
go A B C, A B C, ... Ratios are taken within a round, and the report has their median, least and
greatest. The number of requests in a round follows from their time, client by client.

Progress goes to standard error, the report, as Markdown, to standard output. ``floor`` and
``aiohttpconn`` always take part, because the ratios are to them.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import chart
import report
from clients import CLIENTS, Job, Registered
from plan import Entry, Plan, chosen, find_versions, python_of
from scenarios import REPLY, SCENARIOS, Scenario
from servers import (
    Certificate,
    Endpoint,
    ServerError,
    cores,
    find_nginx,
    loopback_hosts,
    make_file,
    pinned,
    start_nginx,
    start_own,
)
from workers import START_SECONDS, Worker, calibrate, environment

HERE = Path(__file__).parent

ALWAYS = ("floor", "aiohttpconn")

TO_MANY_HOSTS = frozenset({"connect", "open_hot", "open_spread"})
"""Actions that ask more hosts than the general one."""


# ---------------------------------------------------------------------- scenarios


class Run:
    """One run: its servers, and the results so far."""

    def __init__(self, plan: Plan, folder: Path, server: str) -> None:
        self.plan = plan
        self.folder = folder
        self.results: list[dict[str, Any]] = []
        self.endpoints: dict[str, Endpoint] = {}
        available = cores()
        # The client's core and the server's; on one core there is no choice.
        self.client_core = available[0] if len(available) > 1 else None
        self.server_core = available[1] if len(available) > 1 else None
        self._server = server
        self._why_no_tls = ""

    def start_servers(self, stack: contextlib.ExitStack) -> None:
        """Start the servers that the scenarios need. Raises ``ServerError``."""
        if self._server not in ("nginx", "own"):
            host, _, port = self._server.rpartition(":")
            self.endpoints["own"] = Endpoint(self._server, "", ((host, int(port)),) * 2)
            self._why_no_tls = "the given server is asked without TLS"
            return
        served = [s for s in self.plan.scenarios if s.unit != "import"]
        certificate = None
        if any(scenario.tls for scenario in served):
            try:
                certificate = Certificate.make(self.folder, loopback_hosts())
            except ImportError:
                self._why_no_tls = "trustme is not installed"
        with_nginx = self._server == "nginx" and any(not s.own_server for s in served)
        if with_nginx:
            self.endpoints["nginx"] = stack.enter_context(
                start_nginx(self.folder, self.server_core, certificate)
            )
        if served and (not with_nginx or any(s.own_server for s in served)):
            self.endpoints["own"] = stack.enter_context(start_own(self.server_core, certificate))

    def scenario(self, scenario: Scenario) -> None:
        """Run one scenario and keep its results."""
        if scenario.unit == "import":
            self._imports(scenario)
            return
        if scenario.tls and self._why_no_tls:
            say(f"{scenario.name}: left out, {self._why_no_tls}")
            return
        # A server given on the command line is asked for everything.
        name = "own" if scenario.own_server or "nginx" not in self.endpoints else "nginx"
        endpoint = self.endpoints[name]
        for group in self.plan.groups(scenario):
            self._group(scenario, endpoint, group)

    def _group(self, scenario: Scenario, endpoint: Endpoint, group: list[Entry]) -> None:
        """Run the clients of *group* beside each other, and keep their results."""
        workers: list[Worker] = []
        try:
            for name, client, loop in group:
                if name not in self.plan.versions:
                    self._keep(scenario, name, loop, endpoint, missing="not installed")
                    continue
                job = self._job(scenario, endpoint, client)
                python = self.plan.pythons[client.environment]
                workers.append(Worker(name, loop, python, job, self.client_core))
            self._measure(scenario, workers)
            for worker in workers:
                self._keep(
                    scenario,
                    worker.name,
                    worker.loop,
                    endpoint,
                    cannot=worker.cannot,
                    error=worker.error,
                    count=worker.count,
                    peak=worker.peak,
                    rounds=worker.rounds,
                )
        finally:
            for worker in workers:
                worker.stop()

    def _job(self, scenario: Scenario, endpoint: Endpoint, client: Registered) -> Job:
        addresses = endpoint.tls if scenario.tls else endpoint.plain
        file = self.folder / "256m"
        if scenario.action == "upload_file" and not file.exists():
            make_file(file, scenario.size)
        return Job(
            action=scenario.action,
            path=scenario.path,
            size=scenario.size,
            concurrency=scenario.concurrency,
            depth=scenario.depth,
            crowd=scenario.crowd,
            host=addresses[0][0],
            port=addresses[0][1],
            targets=addresses[1:] if scenario.action in TO_MANY_HOSTS else (),
            cafile=endpoint.cafile if scenario.tls else "",
            file=str(file) if scenario.action == "upload_file" else "",
            document=REPLY,
            options=client.options,
        )

    def _measure(self, scenario: Scenario, workers: list[Worker]) -> None:
        # Wait for all first: a worker that still imports would slow down one being calibrated.
        for worker in workers:
            worker.wait_ready()
        for worker in workers:
            if worker.alive:
                say(f"{scenario.name}: {worker.name} {worker.loop}, warming up")
                calibrate(worker, scenario, self.plan.seconds)
        rounds = min(self.plan.rounds, scenario.rounds)
        for number in range(rounds):
            for worker in workers:
                if not worker.alive:
                    continue
                say(f"{scenario.name}: {worker.name} {worker.loop}, round {number + 1}/{rounds}")
                if scenario.unit == "request" and not scenario.count:
                    # Its connections and caches have gone cold while the others had their turns.
                    worker.go(min(worker.count, scenario.at_once))
                if worker.alive and (result := worker.go(worker.count)):
                    worker.rounds.append(result)
        for worker in workers:
            if worker.error:
                say(f"{scenario.name}: {worker.name} {worker.loop}: {worker.error}", lasting=True)

    def _keep(
        self, scenario: Scenario, name: str, loop: str, endpoint: Endpoint | None, **more: Any
    ) -> None:
        kept = {key: value for key, value in more.items() if value}
        server = {"server": endpoint.name} if endpoint is not None else {}
        self.results.append(
            {"scenario": scenario.name, "client": name, "loop": loop} | server | kept
        )

    def _imports(self, scenario: Scenario) -> None:
        """Time whole processes that import a module, and some that import only the common ones."""
        base = "import asyncio, ssl, http.client"
        entries = list(self.plan.entries(scenario))
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name, _, _ in entries}
        errors: dict[str, str] = {}
        # The first round does not count: it writes compiled modules.
        for number in range(self.plan.rounds + 1):
            for name, client, _ in entries:
                if name not in self.plan.versions or name in errors:
                    continue
                say(f"{scenario.name}: {name}, round {number}/{self.plan.rounds}")
                python = self.plan.pythons[client.environment]
                try:
                    low = self._timed(python, base)
                    high = self._timed(python, f"{base}, {client.imports}")
                except subprocess.SubprocessError as exc:
                    errors[name] = str(exc)[:300]
                    continue
                if number:
                    rounds[name].append({"base": low, "with": high})
        for name, _, loop in entries:
            missing = "" if name in self.plan.versions else "not installed"
            error = errors.get(name, "")
            self._keep(
                scenario, name, loop, None, missing=missing, error=error, rounds=rounds[name]
            )

    def _timed(self, python: str, code: str) -> float:
        """Return the seconds of a whole process. Raises ``subprocess.SubprocessError``."""
        command = [python, "-c", code]
        with pinned(self.client_core):
            begin = time.perf_counter()
            process = subprocess.Popen(command, env=environment(), cwd=self.folder)
        # wait(timeout) would check only every 50 ms whether the process has ended.
        watchdog = threading.Timer(START_SECONDS, process.kill)
        watchdog.start()
        try:
            status = process.wait()
            taken = time.perf_counter() - begin
        finally:
            watchdog.cancel()
            process.kill()
        if status:
            raise subprocess.CalledProcessError(status, command)
        return taken


# --------------------------------------------------------------------------- meta


def describe_machine() -> dict[str, Any]:
    """Return the machine's properties that the figures depend on."""
    cpu = platform.processor()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        cpu = models[0] if models else cpu
    memory = 0
    with contextlib.suppress(OSError, ValueError):
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu or platform.machine(),
        "cores": len(cores()) or os.cpu_count() or 1,
        "memory": memory,
        "system": f"{platform.system()} {platform.release()}",
    }


def describe_run(run: Run, options: argparse.Namespace, began: float) -> dict[str, Any]:
    plan = run.plan
    pins = {"client": run.client_core, "server": run.server_core}
    # Variants of a client share one version.
    named = {*(name for name in plan.clients if CLIENTS[name].distribution == name), "uvloop"}
    servers = [f"{e.name} {e.version}".strip() for e in run.endpoints.values()]
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["benchmarks/run.py", *sys.argv[1:]]),
        "quick": options.quick,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "machine": describe_machine(),
        "pinned": pins if run.client_core is not None else None,
        "servers": servers,
        "versions": {k: v for k, v in plan.versions.items() if k in named},
        "loops": plan.loops,
        "rounds": plan.rounds,
        "seconds_per_round": plan.seconds,
        "seconds": round(time.monotonic() - began, 1),
    }


def say(text: str, *, lasting: bool = False) -> None:
    """Show progress: on a terminal in one line that is overwritten, else as lines."""
    if sys.stderr.isatty():
        end = "\n" if lasting else ""
        print(f"\r\x1b[K{text[:110]}", end=end, file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------- the command


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog=f"scenarios: {', '.join(SCENARIOS)}. clients: {', '.join(CLIENTS)}.",
    )
    parser.add_argument("--scenarios", help="names or patterns, with commas")
    parser.add_argument("--clients", help="names or patterns, with commas")
    parser.add_argument("--loops", default="asyncio,uvloop")
    parser.add_argument("--rounds", type=int, help="of each client (5; 3 with --quick)")
    parser.add_argument("--seconds", type=float, help="of a round (0.4; 0.12 with --quick)")
    parser.add_argument("--quick", action="store_true", help="the most telling part, in 3 minutes")
    parser.add_argument("--server", help="nginx (where installed), own, or HOST:PORT")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--from-json", type=Path, help="only make the report of these figures")
    parser.add_argument("--markdown", type=Path, help="write the report there too")
    parser.add_argument("--svg", help="write PREFIX-light.svg and PREFIX-dark.svg")
    return parser.parse_args(arguments)


def make_plan(options: argparse.Namespace) -> Plan:
    """Turn the options into a plan."""
    names = chosen(options.scenarios, list(SCENARIOS))
    clients = chosen(options.clients, list(CLIENTS))
    if options.quick:
        if options.scenarios is None:
            names = [name for name in names if SCENARIOS[name].quick]
        if options.clients is None:
            clients = [name for name in clients if CLIENTS[name].quick]
    versions = find_versions()
    loops = chosen(options.loops, ["asyncio", "uvloop"])
    if "uvloop" not in versions and "uvloop" in loops:
        say("uvloop is not installed: asyncio only", lasting=True)
        loops.remove("uvloop")
    return Plan(
        [SCENARIOS[name] for name in names],
        [name for name in CLIENTS if name in (*ALWAYS, *clients)],
        loops,
        options.rounds or (3 if options.quick else 5),
        options.seconds or (0.12 if options.quick else 0.4),
        {client.environment: python_of(client.environment) for client in CLIENTS.values()},
        versions,
    )


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run everything; return the figures in the form of the JSON file."""
    plan = make_plan(options)
    began = time.monotonic()
    server = options.server or ("nginx" if find_nginx() else "own")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-")))
        run = Run(plan, folder, server)
        run.start_servers(stack)
        for scenario in plan.scenarios:
            run.scenario(scenario)
            figures = {
                "run": describe_run(run, options, began),
                "scenarios": {s.name: asdict(s) for s in plan.scenarios},
                "results": run.results,
            }
            # Write after each scenario: an interrupted run keeps its figures so far.
            if options.json is not None:
                options.json.write_text(json.dumps(figures, indent=1) + "\n")
    say(f"{time.monotonic() - began:.0f} s", lasting=True)
    return figures


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    # SIGTERM acts like Ctrl-C: the children end with the blocks that hold them.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if options.from_json is not None:
            figures = json.loads(options.from_json.read_text())
        else:
            figures = measure(options)
    except KeyboardInterrupt:
        say("interrupted", lasting=True)
        return 130
    except ServerError as exc:
        say(str(exc), lasting=True)
        return 1
    text = report.markdown(figures)
    print(text, end="")
    if options.markdown is not None:
        options.markdown.write_text(text)
    if options.svg is not None:
        for theme in chart.THEMES:
            Path(f"{options.svg}-{theme}.svg").write_text(chart.svg(figures, theme))
    return 0


if __name__ == "__main__":
    sys.exit(main())
