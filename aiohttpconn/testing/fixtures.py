"""Fixtures for pytest: servers that are closed when the test has ended.

In a test module, or in the ``conftest.py`` of the root folder:

    pytest_plugins = ["aiohttpconn.testing.fixtures"]

No entry point loads them: installing this package neither slows pytest down nor adds fixtures to
other projects' tests. Async tests need pytest-asyncio, in either of its modes, or anyio's plugin
with its asyncio backend. Layer: the test kit.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import AsyncIterator
from typing import Protocol, TypeVar

import pytest

from .servers import ScriptedServer

__all__ = ["StartServer", "start_server"]

PYTEST_ASYNCIO = importlib.util.find_spec("pytest_asyncio") is not None

S = TypeVar("S", bound=ScriptedServer)


class StartServer(Protocol):
    """The type of the fixture ``start_server``: it starts the given server and returns it."""

    async def __call__(self, server: S, /) -> S: ...


@pytest.fixture
def start_server(request: pytest.FixtureRequest) -> StartServer:
    """Start servers of this kit, and close them in reverse order when the test has ended.

        server = await start_server(serve({"/name": "Ada"}))

    A failed script or handler is an error in the test's teardown.
    """
    # An async fixture belongs to the plugin that runs its loop. If both are installed, the test
    # decides: pytest-asyncio would run its fixture in another loop than that of anyio's test.
    by_asyncio = PYTEST_ASYNCIO and "anyio_backend" not in request.fixturenames
    name = "_started_by_pytest_asyncio" if by_asyncio else "_started_by_anyio"
    start: StartServer = request.getfixturevalue(name)
    return start


@pytest.fixture
async def _started_by_anyio() -> AsyncIterator[StartServer]:
    async with _closing() as start:
        yield start


if PYTEST_ASYNCIO:
    import pytest_asyncio

    @pytest_asyncio.fixture
    async def _started_by_pytest_asyncio() -> AsyncIterator[StartServer]:
        async with _closing() as start:
            yield start


@contextlib.asynccontextmanager
async def _closing() -> AsyncIterator[StartServer]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(server: S, /) -> S:
            await stack.enter_async_context(server)
            return server

        yield start
