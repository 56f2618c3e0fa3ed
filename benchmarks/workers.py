"""The measuring processes: this starts them, asks for rounds, and ends those that fail or hang.

worker.py is what runs inside one.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from servers import pinned

if TYPE_CHECKING:
    from clients import Job
    from scenarios import Scenario

__all__ = ["START_SECONDS", "Worker", "WorkerError", "calibrate", "environment"]

HERE = Path(__file__).parent

START_SECONDS = 60.0
"""Seconds after which a worker that only imports and connects has failed."""

ROUND_SECONDS = 60.0
"""Seconds after which a worker that makes its requests has failed."""

CALIBRATED_SHARE = 0.3
"""Share of a round's time: a run that takes this long tells how many requests fill a round."""


class WorkerError(Exception):
    """A worker has failed, or has given no figure: the message says why."""


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
    """Return the environment of children.

    It lets Python write compiled modules, which installed packages have too, and has no proxies,
    which clients would use by default.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONDONTWRITEBYTECODE" and not name.lower().endswith("_proxy")
    }


def calibrate(worker: Worker, scenario: Scenario, seconds: float) -> None:
    """Warm *worker* up and find how many requests take *seconds*; for memory, one tells all."""
    if scenario.unit == "memory":
        worker.count = 1
        return
    count = row = scenario.at_once
    if scenario.count:
        worker.go(count)  # to warm up
        worker.count = scenario.count
        return
    # One row alone is a burst, all sent at once: a busy client behaves differently.
    least = max(row, min(4 * row, 256)) if scenario.unit == "request" else row
    if not worker.go(count):  # to warm up
        return
    while True:
        # Take the better of two: the machine may have been slow during one.
        wall = inf
        for _ in range(2):
            result = worker.go(count)
            if not result:
                return
            wall = min(wall, max(result["wall"], 1e-6))
            if wall >= seconds:
                break
        if wall >= seconds * CALIBRATED_SHARE or count >= scenario.most:
            break
        count = min(scenario.most, count * (2 if scenario.unit == "bytes" else 4))
    fitting = int(count * seconds / wall)
    # Whole rows, so that no connection is idle at a round's end.
    worker.count = min(scenario.most, max(least, fitting // row * row))
