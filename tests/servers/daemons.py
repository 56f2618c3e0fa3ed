"""Daemon: a server of somebody else's, in processes of its own, for the length of a test session.

It runs in the foreground on free ports of loopback, with a configuration written into a folder of
its own, and never as root: servers drop root by rules of their own, and some refuse it. What it
logs is in that folder too, and is shown with each test that used it and failed.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["NOBODY", "Daemon", "free_port", "missing", "need"]

START_SECONDS = 20.0
"""Until a server must listen: the slowest takes one on an idle machine."""

STOP_SECONDS = 0.5
"""Until a server that was asked to end is killed, and it has nothing to lose."""

KILL_SECONDS = 5.0
"""Until the sockets of a server that was killed are gone."""

POLL_SECONDS = 0.005
"""Between two looks at whether a server listens, or has ended."""

LOG_SHOWN = 3000
"""Characters of a log that a failed test shows."""

# Below what kernels take for clients (from 32768 on): else a client's socket might have the port
# when a server that was killed comes back to it.
PORTS = range(12000, 32000)

_given: set[int] = set()

NOBODY = "nobody" if hasattr(os, "geteuid") and os.geteuid() == 0 else None
"""Whom servers run as; None is whoever runs the tests."""


def need(program: str, package: str) -> str:
    """Return the path of *program*; without it the test is skipped, or fails in CI."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/sbin"])
    found = shutil.which(program, path=path)
    if found is None:
        missing(f"{program} is not here: apt install {package}")
    return found


def missing(reason: str) -> None:
    """Skip the test; fail it where CI is set, which has everything."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def free_port() -> int:
    """Return a port of loopback on which nothing listens, another one each time."""
    for port in random.sample(PORTS, 1000):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
    raise AssertionError(f"1000 ports of {PORTS} are taken")


class Daemon:
    """A server: ``start()`` it, ``stop()`` it; ``kill()`` and ``start()`` again as often as wanted.

    *command*: stays in the foreground. *ports*: all that it listens on. *logs*: names of files in
    *folder*, where what it writes to standard output and error is in ``output.log``.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        ports: Sequence[int],
        *,
        logs: Sequence[str] = (),
        cwd: Path | None = None,
        user: str | None = NOBODY,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.ports = ports
        self._command = [*_ends_with_us(), *command]
        # By name, where that part begins which is shown.
        self._logs = dict.fromkeys(("output.log", *logs), 0)
        self._cwd = cwd or folder
        self._user = user
        self._environ = environ
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; return when it listens on all its ports. Call it in the main thread."""
        with open(self.folder / "output.log", "ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                user=self._user,
                extra_groups=None if self._user is None else [],
                env={**os.environ, **(self._environ or {})},
            )
        until = time.monotonic() + START_SECONDS
        for port in self.ports:
            while not _listens(port):
                code = self._process.poll()
                if code is not None or time.monotonic() > until:
                    what = f"ended with {code}" if code is not None else "does not listen"
                    self.kill()
                    raise RuntimeError(f"{self} {what} (port {port})\n{self.log()}")
                time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End it, politely at first."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
            self.kill()

    def kill(self) -> None:
        """End it at once, with all its processes. Its sockets are gone then."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            until = time.monotonic() + KILL_SECONDS
            while any(map(_listens, self.ports)) and time.monotonic() < until:
                time.sleep(POLL_SECONDS)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the first of its processes."""
        assert self._process is not None, "it runs"
        self._process.send_signal(number)

    def children(self) -> list[int]:
        """Return the ids of the processes that the first of its processes has started (Linux)."""
        assert self._process is not None, "it runs"
        pid = self._process.pid
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in listed.split()]

    def mark_log(self) -> None:
        """Let ``log()`` return what is logged from now on."""
        for name in self._logs:
            with contextlib.suppress(FileNotFoundError):
                self._logs[name] = (self.folder / name).stat().st_size

    def log(self) -> str:
        """Return the end of what it has logged since ``mark_log()``."""
        parts = []
        for name, start in self._logs.items():
            with contextlib.suppress(FileNotFoundError):
                text = (self.folder / name).read_bytes()[start:].decode("utf-8", "replace").strip()
                if text:
                    parts.append(f"{name}:\n{text[-LOG_SHOWN:]}")
        return "\n".join(parts) or "(nothing)"

    def __repr__(self) -> str:
        return f"<Daemon {self.folder.name}>"


def _ends_with_us() -> list[str]:
    """Return what makes a command end when the thread that has started it does, were it killed."""
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        # A socket that is going away may swallow a SYN, which the kernel repeats after a second.
        sock.settimeout(0.1)
        return sock.connect_ex(("127.0.0.1", port)) == 0
