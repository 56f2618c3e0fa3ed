"""Run one target for a while, or all of them: ``python -m tests.fuzz NAME --seconds N``.

It prints the input that breaks a promise, keeps it in ``crash-...`` of the present folder, and ends
with code 1. With atheris, inputs that reach new code go into a folder of the system's; ``--keep N``
then copies at most N of them into the corpus, small ones that go new ways.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import corpus

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

MOST_BYTES = 2048
"""Of an input: limits are smaller, and a larger one is only slower."""

SLOW_SECONDS = 20
"""An input that takes longer fails: with 2 KiB, it is one whose cost has no bound."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("name", help="a target of tests/fuzz/targets.py, or 'all'")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--keep", type=int, default=0, help="inputs to add to the corpus")
    parser.add_argument("--with-hypothesis", action="store_true", help="though atheris is here")
    options = parser.parse_args()
    if options.name == "all":
        return _all(sys.argv[1:])
    found = Path(tempfile.gettempdir(), "aiohttpconn-fuzz", options.name)
    found.mkdir(parents=True, exist_ok=True)
    if options.keep:
        _keep(options.name, found, options.keep)
        return 0
    try:
        if options.with_hypothesis:
            raise ImportError
        import atheris
    except ImportError:
        return _with_hypothesis(options.name, options.seconds)
    with atheris.instrument_imports(include=["aiohttpconn"]):
        from .targets import TARGETS
    flags = [f"-max_total_time={options.seconds}", f"-max_len={MOST_BYTES}", "-print_final_stats=1"]
    flags += [f"-timeout={SLOW_SECONDS}", "-use_value_profile=1"]
    # The first folder is the one that it writes to.
    atheris.Setup(
        [sys.argv[0], *flags, str(found), str(corpus.folder(options.name))], TARGETS[options.name]
    )
    atheris.Fuzz()
    return 0


def _all(arguments: list[str]) -> int:
    """Run each target in a process of its own: libFuzzer ends its process."""
    from .targets import TARGETS

    codes = []
    for name in TARGETS:
        print(f"== {name}", flush=True)
        rest = [name if each == "all" else each for each in arguments]
        codes.append(subprocess.call([sys.executable, "-m", "tests.fuzz", *rest]))
    return 1 if any(codes) else 0


def _with_hypothesis(name: str, seconds: int) -> int:
    from hypothesis import HealthCheck, given, settings

    from .targets import TARGETS

    until = time.monotonic() + seconds
    count = 0

    @settings(max_examples=500, deadline=None, database=None, suppress_health_check=[*HealthCheck])
    @given(corpus.inputs(name))
    def run(data: bytes) -> None:
        nonlocal count
        count += 1
        try:
            TARGETS[name](data)
        except Exception:
            digest = hashlib.sha256(data).hexdigest()
            Path(f"crash-{digest[:16]}").write_bytes(data)
            print(f"{name} fails: {data!r}", file=sys.stderr)
            raise

    while time.monotonic() < until:
        run()
    print(f"{name}: {count} inputs of hypothesis in {seconds} s")
    return 0


def _keep(name: str, found: Path, most: int) -> None:
    """Add those of the inputs in *found* to the corpus that go new ways, the smallest first."""
    from .targets import TARGETS

    run = TARGETS[name]
    ways = {way for data in corpus.kept(name) for way in _ways(run, data)}
    count = 0
    for path in sorted(found.iterdir(), key=lambda path: path.stat().st_size):
        new = _ways(run, path.read_bytes()) - ways
        if new and count < most:
            ways |= new
            count += 1
            shutil.copy(path, corpus.folder(name) / path.name[:12])
    print(f"{name}: {count} inputs are added to the corpus")


def _ways(run: Callable[[bytes], None], data: bytes) -> set[tuple[str, int, int]]:
    """Return the steps from line to line that the package takes for *data*."""
    ways: set[tuple[str, int, int]] = set()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        file = frame.f_code.co_filename
        if f"{os.sep}aiohttpconn{os.sep}" not in file or file.startswith(_HERE):
            return None
        last = 0

        def line(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal last
            ways.add((file, last, frame.f_lineno))
            last = frame.f_lineno
            return line

        return line

    sys.settrace(trace)
    try:
        run(data)
    finally:
        sys.settrace(None)
    return ways


_HERE = str(Path(__file__).parent)

if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    sys.exit(main())
