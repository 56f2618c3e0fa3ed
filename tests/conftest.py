"""Every async test runs on asyncio and on uvloop, and no test leaves anything behind.

Fixtures for all: ``scripted``, ``client``, ``certificates``, ``loop_errors``, ``ticking``.
Environment: ``CI`` (uvloop must be there, hypothesis repeats itself), ``HYPOTHESIS_PROFILE``
(``default``, or ``long``).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from aiohttpconn import Client

from .support.clocks import TickingClock
from .support.leaks import LeakCheck, guard
from .support.programs import SLOW_STEP
from .support.scripted import Scripted
from .support.tls import Certificates

try:
    import uvloop
except ImportError:
    if os.environ.get("CI"):
        raise
    uvloop = None

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping

TEST_SECONDS = 60
"""Seconds after which an async test hangs; ``LONG_TEST_SECONDS`` in the ``long`` profile."""

LONG_TEST_SECONDS = 300

LEAK_CHECK = pytest.StashKey[LeakCheck]()

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")

# The examples of a test share its fixtures: those here keep nothing from one to the next.
COMMON = {
    "deadline": None,
    "suppress_health_check": [
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,  # a busy machine is
    ],
}
hypothesis.settings.register_profile(
    "default", max_examples=50, derandomize=bool(os.environ.get("CI")), **COMMON
)
hypothesis.settings.register_profile("long", max_examples=5000, **COMMON)
hypothesis.settings.load_profile(PROFILE)
if not os.access(Path(__file__).parent.parent, os.W_OK):
    # A checkout that is read-only: what hypothesis keeps there stays in memory.
    hypothesis.settings.register_profile("read-only", hypothesis.settings(), database=None)
    hypothesis.settings.load_profile("read-only")


# Loops -----------------------------------------------------------------------------------


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run each async test once per loop; ``mark.asyncio(loop_factories=["uvloop"])`` picks."""
    factories = {"asyncio": lambda: guard(asyncio.new_event_loop())}
    if uvloop is not None:
        factories["uvloop"] = lambda: guard(uvloop.new_event_loop())
    return factories


def pytest_report_header(config: pytest.Config) -> str:
    version = "not installed: tested on asyncio alone" if uvloop is None else uvloop.__version__
    return f"uvloop: {version}"


# Leaks -----------------------------------------------------------------------------------


def pytest_collection_finish(session: pytest.Session) -> None:
    # What exists now stays until the end: see LeakCheck.collect.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, Any, Any]:
    LeakCheck.current = item.stash[LEAK_CHECK] = LeakCheck()
    try:
        return (yield)
    finally:
        LeakCheck.current = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    try:
        return (yield)
    finally:
        item.stash[LEAK_CHECK].stop_clock()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    result = yield
    check = item.stash[LEAK_CHECK]
    if not _may_leak(item):
        check.collect()
        if verdict := check.verdict():
            pytest.fail(verdict, pytrace=False)
    return result


@pytest.fixture(autouse=True)
def _no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    check = request.node.stash[LEAK_CHECK]
    if request.node.get_closest_marker("asyncio"):
        # Set up before every other fixture of the test, so torn down after them; and before
        # pytest-asyncio's runner, which closes the loop and cancels its tasks.
        request.getfixturevalue("_no_leaks_in_loop")
        yield
    else:
        check.start()
        yield
        if not _may_leak(request.node):
            check.finish()


@pytest.fixture
async def _no_leaks_in_loop(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    check = request.node.stash[LEAK_CHECK]
    check.start()
    check.limit(LONG_TEST_SECONDS if PROFILE == "long" else TEST_SECONDS)
    yield
    if not _may_leak(request.node):
        await check.finish_loop()


def _may_leak(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("may_leak")
    if marker is None:
        return False
    if not (marker.args or marker.kwargs.get("reason")):
        raise pytest.UsageError(f'{item.nodeid}: write the reason: mark.may_leak("...")')
    return True


@pytest.fixture
def loop_errors(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """The contexts with which the loop's exception handler was called; must be left empty."""
    return request.node.stash[LEAK_CHECK].loop_errors


# Time ------------------------------------------------------------------------------------


# A busy machine takes its time over a step, of which asyncio tells in debug mode.
logging.getLogger("asyncio").addFilter(lambda record: not SLOW_STEP.match(record.getMessage()))


@pytest.fixture
async def ticking() -> AsyncIterator[TickingClock]:
    """Let a limit expire in turns of the loop, not in the time of a busy machine."""
    with TickingClock() as clock:
        yield clock


# Clients and servers ---------------------------------------------------------------------


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Return server and client contexts, right and wrong ones: see ``tests/support/tls.py``."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A client with the defaults, whatever the environment says of proxies."""
    async with Client(trust_env=False) as client:
        yield client


@pytest.fixture
def scripted(request: pytest.FixtureRequest) -> Scripted:
    """Return ``async with scripted(pieces) as conn``: see ``tests/support/scripted.py``."""
    return Scripted(lambda: request.getfixturevalue("certificates"))
