"""Compare clients in one run: what a request costs each, beside the floor of the same round.

    python benchmarks/run.py [--quick] [--scenarios 'get_*,read_256m'] [--clients aiohttp,floor]
                             [--loops asyncio,uvloop] [--rounds 5] [--seconds 0.4]
                             [--server nginx|own|HOST:PORT] [--json FILE] [--from-json FILE]
                             [--markdown FILE] [--svg PREFIX]

Every client is a process of its own (worker.py), pinned to one core; the server is another,
pinned to another core. All clients of a scenario are started and warmed up, then rounds go
A B C, A B C, ...; ratios are taken within a round, and their median, least and greatest are
reported. How many requests a round has follows from time, client by client.

Progress goes to standard error, the report, as Markdown, to standard output. ``floor`` and
``aiohttpconn`` always take part: the ratios are to them.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fnmatch
import json
import os
import platform
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import chart
import report
from clients import CLIENTS, Job, Registered
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

HERE = Path(__file__).parent

START_SECONDS = 60.0
"""Until a worker that only imports and connects has failed."""

ROUND_SECONDS = 60.0
"""Until a worker that makes its requests has failed."""

CALIBRATED_SHARE = 0.3
"""Of a round's time: a run that takes this long tells how many requests fill a round."""

ALWAYS = ("floor", "aiohttpconn")

MANY = 1000
"""Connections of one client from which on not all clients run at once."""


# ------------------------------------------------------------------------ workers


class WorkerError(Exception):
    """A worker failed, or gave no figure: its message says why."""


class Worker:
    """A process of worker.py and the client in it."""

    def __init__(self, name: str, loop: str, python: str, job: Job, core: int | None) -> None:
        self.name = name
        self.loop = loop
        self.count = 0
        self.rounds: list[dict[str, Any]] = []
        self.cannot = ""
        self.error = ""
        self.peak = 0
        self._pending = b""
        self._said: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
        values = asdict(job) | {"document": job.document.decode()}
        with pinned(core):
            self._process = subprocess.Popen(
                [python, str(HERE / "worker.py"), name, loop, json.dumps(values)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env=environment(),
            )

    @property
    def alive(self) -> bool:
        return not (self.cannot or self.error)

    def wait_ready(self) -> None:
        message = self._guarded(lambda: self._read(START_SECONDS))
        self.cannot = message.get("cannot", "")

    def go(self, count: int) -> dict[str, Any]:
        """Make *count* requests; an empty answer means that the worker has failed."""
        return self._guarded(lambda: self._go(count))

    def _go(self, count: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(b"go %d\n" % count)
            self._process.stdin.flush()
        message = self._read(ROUND_SECONDS)
        self.peak = max(self.peak, message.get("peak", 0))
        return message

    def _guarded(self, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return act()
        except WorkerError as exc:
            self.error = str(exc)
            self.stop()
            return {}

    def _read(self, seconds: float) -> dict[str, Any]:
        """Return the next line. Raises ``WorkerError`` for an error, an end or a hang."""
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        end = time.monotonic() + seconds
        while b"\n" not in self._pending:
            ready, _, _ = select.select([fd], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise WorkerError(f"nothing within {seconds:g} s")
            data = os.read(fd, 65536)
            if not data:
                raise WorkerError(self._last_words())
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise WorkerError(message["error"])
        return message

    def _last_words(self) -> str:
        status = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return f"ended with status {status}: {lines[-1] if lines else 'nothing said'}"

    def stop(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._said.close()


def environment() -> dict[str, str]:
    """Return the environment of children: with compiled modules, as installed packages have."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


# --------------------------------------------------------------------------- plan


Entry = tuple[str, Registered, str]


@dataclass
class Plan:
    """What takes part, on what, and how long."""

    scenarios: list[Scenario]
    clients: list[str]
    loops: list[str]
    rounds: int
    seconds: float
    pythons: dict[str, str]
    versions: dict[str, str]

    def groups(self, scenario: Scenario) -> list[list[Entry]]:
        """Return ``entries`` in the groups that run beside each other.

        One group, except where the connections of all clients would be more than a server may
        have open: then each loop by itself, as ratios are within a loop.
        """
        entries = list(self.entries(scenario))
        if scenario.concurrency < MANY:
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
            if scenario.unit == "import":
                if client.imports:
                    yield name, client, ""
                continue
            for loop in client.loops:
                if loop == "threads" or loop in self.loops:
                    yield name, client, loop


def chosen(patterns: str | None, names: Iterator[str] | list[str]) -> list[str]:
    """Return those of *names* that match one of *patterns*. Raises ``SystemExit`` for none."""
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
    """Return the interpreter of an environment: those beside ours are ours with a suffix."""
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
    """Return the version of each client that is installed, and uvloop's; "" is Python's own."""
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


# ---------------------------------------------------------------------- scenarios


class Run:
    """One run: the servers that there are, and the results so far."""

    def __init__(self, plan: Plan, folder: Path, server: str) -> None:
        self.plan = plan
        self.folder = folder
        self.results: list[dict[str, Any]] = []
        self.endpoints: dict[str, Endpoint] = {}
        available = cores()
        # The client's core and the server's; with one core there is nothing to choose.
        self.client_core = available[0] if len(available) > 1 else None
        self.server_core = available[1] if len(available) > 1 else None
        self._server = server
        self._why_no_tls = ""

    def start_servers(self, stack: contextlib.ExitStack) -> None:
        """Start what the scenarios need. Raises ``ServerError``."""
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
        # A server that was given is asked for everything.
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
            host=addresses[0][0],
            port=addresses[0][1],
            targets=addresses[1:] if scenario.action == "connect" else (),
            cafile=endpoint.cafile if scenario.tls else "",
            file=str(file) if scenario.action == "upload_file" else "",
            document=REPLY,
            options=client.options,
        )

    def _measure(self, scenario: Scenario, workers: list[Worker]) -> None:
        for worker in workers:
            worker.wait_ready()
            if worker.alive:
                say(f"{scenario.name}: {worker.name} {worker.loop}, warming up")
                calibrate(worker, scenario, self.plan.seconds)
        rounds = min(self.plan.rounds, scenario.rounds)
        for number in range(rounds):
            for worker in workers:
                if not worker.alive:
                    continue
                say(f"{scenario.name}: {worker.name} {worker.loop}, round {number + 1}/{rounds}")
                if scenario.unit == "request":
                    # Its connections have waited for their turn, and so have the caches.
                    worker.go(min(worker.count, scenario.concurrency))
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
        """Time whole processes that import a module, and such that import what all need."""
        base = "import asyncio, ssl, http.client"
        entries = list(self.plan.entries(scenario))
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name, _, _ in entries}
        errors: dict[str, str] = {}
        # The first is not counted: it writes compiled modules.
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
        # wait(timeout) would look only every 50 ms whether the process has ended.
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


def calibrate(worker: Worker, scenario: Scenario, seconds: float) -> None:
    """Warm *worker* up and find how many requests take *seconds*; where the first tells all, 1."""
    if scenario.unit == "memory":
        worker.count = 1
        return
    count = row = scenario.concurrency
    # One row alone is a burst, all sent at once: not what a client does who is kept busy.
    least = max(row, min(4 * row, 256)) if scenario.unit == "request" else row
    while True:
        result = worker.go(count)
        if not result:
            return
        wall = max(result["wall"], 1e-6)
        if wall >= seconds * CALIBRATED_SHARE or count >= scenario.most:
            break
        count = min(scenario.most, count * (2 if scenario.unit == "bytes" else 4))
    fitting = int(count * seconds / wall)
    # Whole rows, so that no connection is idle at a round's end.
    worker.count = min(scenario.most, max(least, fitting // row * row))


# --------------------------------------------------------------------------- meta


def describe_machine() -> dict[str, Any]:
    """Return what the figures depend on."""
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
    # A client that takes part in two variants has one version.
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
    """Show progress: on a terminal in one line, else as lines of those that last."""
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
    parser.add_argument("--quick", action="store_true", help="the most telling part, in 2 minutes")
    parser.add_argument("--server", help="nginx (where installed), own, or HOST:PORT")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--from-json", type=Path, help="only make the report of these figures")
    parser.add_argument("--markdown", type=Path, help="write the report there too")
    parser.add_argument("--svg", help="write PREFIX-light.svg and PREFIX-dark.svg")
    return parser.parse_args(arguments)


def make_plan(options: argparse.Namespace) -> Plan:
    """Turn the options into what will be run."""
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
    """Run everything; return the figures as they stand in the JSON."""
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
            # After each: who interrupts keeps what there is.
            if options.json is not None:
                options.json.write_text(json.dumps(figures, indent=1) + "\n")
    say(f"{time.monotonic() - began:.0f} s", lasting=True)
    return figures


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    # Like Ctrl-C: the children end with the blocks that hold them.
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
