"""A worker process: one client, one scenario, one loop.

    python worker.py CLIENT LOOP JOB

*JOB* is ``clients.Job`` as JSON. The process talks in lines: the first on standard output is
``{"ready": true}``, or ``{"cannot": reason}``, or ``{"error": message}``. Then it answers each
``go N`` on standard input with the cost of N requests, or with an error, which is the last line. It
ends with its standard input. It does not pin itself: run.py starts it on the core where it stays.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import resource
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from clients import CLIENTS, Job

PAGE = resource.getpagesize()

IDLE_TRACED = 1_000
"""Connections that are opened again under tracemalloc, which is slow."""


def rss() -> int:
    """Return the bytes of resident memory; 0 if the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * PAGE
    except OSError:
        return 0


def peak_rss() -> int:
    """Return the highest ``rss()`` since ``reset_peak()``, or since the process began."""
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak() -> None:
    """Let ``peak_rss()`` begin again, if the kernel can do that."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def raise_file_limit() -> int:
    """Allow as many open files as possible; return their number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20


class Meter:
    """A runner that measures a client. *call* runs a coroutine of it, or takes a plain result."""

    def __init__(self, client: Any, job: Job, call: Callable[[Any], Any]) -> None:
        self._client = client
        self._job = job
        self._call = call
        self._before = rss()
        reset_peak()
        call(client.open())

    def go(self, count: int) -> dict[str, Any]:
        """Do *count* requests; return their cost."""
        client, job = self._client, self._job
        if job.action == "idle":
            return self._idle()
        if job.action == "upload_bytes":
            # A pattern: all pages of zeros would be the same page.
            client.body = bytes(range(256)) * (job.size // 256)
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        done = self._call(client.run(count))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        peak = peak_rss() - self._before - len(client.body)
        client.body = b""
        result = {"requests": done, "cpu": cpu, "wall": wall, "peak": max(peak, 0)}
        return result | client.statistics()

    def _idle(self) -> dict[str, Any]:
        """Open idle connections, with and without tracing Python's memory."""
        client = self._client
        count = self._job.concurrency
        wall, cpu = time.perf_counter(), time.process_time()
        before = rss()
        self._call(client.idle(count))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        gc.collect()
        resident = (rss() - before) / count
        traced = min(count, IDLE_TRACED)
        self._call(client.close())
        gc.collect()
        self._call(client.open())
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        self._call(client.idle(traced))
        gc.collect()
        python = (tracemalloc.get_traced_memory()[0] - before) / traced
        tracemalloc.stop()
        return {
            "requests": count,
            "cpu": cpu,
            "wall": wall,
            "peak": max(peak_rss() - self._before, 0),
            "resident_each": resident,
            "python_each": python,
        }


def serve(meter: Meter) -> None:
    """Obey the commands on standard input until it ends."""
    for line in sys.stdin:
        _, _, count = line.partition(" ")
        answer(meter.go(int(count)))


def answer(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def run(client_name: str, loop: str, job: Job) -> None:
    client_class = importlib.import_module(f"clients.{CLIENTS[client_name].module}").Client
    if reason := client_class.cannot(job.action):
        answer({"cannot": reason})
        return
    files = raise_file_limit()
    if job.action == "idle" and files < job.concurrency + 200:
        job = Job(**(vars(job) | {"concurrency": files - 200}))
    if client_class.threads:
        meter = Meter(client_class(job), job, lambda result: result)
        answer({"ready": True})
        serve(meter)
        return
    factory: Any = asyncio.new_event_loop
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        meter = Meter(client_class(job), job, runner.run)
        answer({"ready": True})
        serve(meter)


def load_job(text: str) -> Job:
    values = json.loads(text)
    values["targets"] = tuple((host, port) for host, port in values["targets"])
    values["document"] = values["document"].encode()
    return Job(**values)


def main() -> int:
    client, loop, job = sys.argv[1:]
    try:
        run(client, loop, load_job(job))
    except KeyboardInterrupt:
        return 130
    except BaseException as exc:
        text = f"{type(exc).__name__}: {exc}"
        answer({"error": " ".join(text.split())[:300]})
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
