"""Run a command as on a busy machine: stop its processes again and again, at random moments.

    python tools/busy.py .venv/bin/python -m pytest tests/test_timeouts.py
    python tools/busy.py --run 100 --stop 600 make test

A test that depends on how fast its process runs fails sooner or later: its short limit expires
before the wait that it is for. The exit code is the command's. POSIX only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import time


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=float, default=12, metavar="MS", help="it runs so long")
    parser.add_argument("--stop", type=float, default=45, metavar="MS", help="it stops so long")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what is run, and its arguments")
    options = parser.parse_args()
    if not options.command:
        parser.error("no command")
    process = subprocess.Popen(options.command, start_new_session=True)
    try:
        while process.poll() is None:
            for number, mean in ((signal.SIGSTOP, options.run), (signal.SIGCONT, options.stop)):
                time.sleep(random.uniform(0, 2 * mean) / 1000)
                # Until it is waited for, its number is nobody else's.
                os.killpg(process.pid, number)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
    return process.wait()


if __name__ == "__main__":
    sys.exit(main())
