"""``import aiohttpconn`` loads what a connection needs, and not what only some programs need.

No clock: which modules are loaded says it without one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PROGRAM = """
import asyncio, http.client, ssl, sys
before = set(sys.modules)
import aiohttpconn
print(*sorted(set(sys.modules) - before), sep="\\n")
"""
"""asyncio, http.client and ssl are what every user of this package has loaded anyway."""

UNWANTED = """
    uvloop httptools h11 certifi idna brotli zstandard
    argparse concurrent.futures.process ctypes gzip importlib.metadata json multiprocessing
    netrc pathlib shutil sqlite3 unittest xml zoneinfo
    aiohttpconn.__main__ aiohttpconn.cli aiohttpconn.client aiohttpconn.pool aiohttpconn.proxies
    aiohttpconn.testing aiohttpconn.urls
""".split()


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """Return the modules that the import adds, in a new interpreter where warnings are errors."""
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return set(result.stdout.split())


def test_loads_the_core(loaded):
    assert {"aiohttpconn", "aiohttpconn.connection", "aiohttpconn.http11.response_head"} <= loaded


@pytest.mark.parametrize("name", UNWANTED)
def test_does_not_load(loaded, name):
    assert {module for module in loaded if f"{module}.".startswith(f"{name}.")} == set()


def test_loads_nothing_but_itself_and_the_standard_library(loaded):
    roots = {module.partition(".")[0] for module in loaded}
    assert roots - sys.stdlib_module_names == {"aiohttpconn"}
