"""What goes wrong when an environment is made: `make` says it in one line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
NOBODY = 65534

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def checkout() -> Iterator[Path]:
    # Not in pytest's own folder, where nobody but its owner may look.
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made, "a clone")
        folder.mkdir()
        for name in "Makefile", "pyproject.toml", "tools/setup.sh":
            target = folder / name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(ROOT / name, target)
        Path(made).chmod(0o755)
        yield folder


def lines_of_make(folder: Path, *arguments: str, **options: Any) -> list[str]:
    """Return what a `make` that fails says, without make's own lines."""
    done = subprocess.run(
        ["make", "--no-print-directory", "test", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        **options,
    )
    assert done.returncode
    return [line for line in done.stdout.splitlines() if "make:" not in line]


def test_a_venv_with_blanks(checkout):
    said = lines_of_make(checkout, "VENV=/tmp/my env")
    assert len(said) == 1
    assert said[0].endswith("VENV must be a path without blanks: '/tmp/my env'.  Stop.")


def test_a_checkout_that_is_read_only(checkout):
    checkout.chmod(0o555)
    # Root may write everywhere.
    options = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
    said = lines_of_make(checkout, **options)
    checkout.chmod(0o755)
    assert said == [
        "setup: error: .venv cannot be made: the folder is read-only; "
        "name another place: make VENV=..."
    ]


def test_a_python_that_is_too_old(checkout):
    old = checkout / "python2"
    old.write_text('#!/bin/sh\ncase "$2" in *print*) echo 3.9.2 ;; *) exit 1 ;; esac\n')
    old.chmod(0o755)
    assert lines_of_make(checkout, f"PYTHON={old}") == [
        f"setup: error: Python 3.11 or newer is needed, {old} is 3.9.2; "
        "install one, or name it: make PYTHON=..."
    ]


def test_a_python_that_does_not_run(checkout):
    assert lines_of_make(checkout, "PYTHON=/no/such/python") == [
        "setup: error: PYTHON=/no/such/python does not run"
    ]


def test_a_folder_that_is_no_environment(checkout):
    (checkout / ".venv").mkdir()
    assert lines_of_make(checkout, f"PYTHON={sys.executable}") == [
        "setup: error: .venv exists, but is not a virtual environment"
    ]
