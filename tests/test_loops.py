"""net/loops.py: which event loop runs, and that nobody else's is touched."""

from __future__ import annotations

import asyncio
import sys

import pytest

from aiohttpconn import Client
from aiohttpconn.net.loops import new_event_loop, run
from aiohttpconn.testing import serve


async def running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_run_uses_uvloop_where_it_is_installed():
    uvloop = pytest.importorskip("uvloop")
    assert isinstance(run(running_loop()), uvloop.Loop)


def test_run_uses_asyncio_where_uvloop_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert isinstance(run(running_loop()), asyncio.BaseEventLoop)


def test_new_event_loop_without_uvloop(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)
    loop = new_event_loop()
    assert isinstance(loop, asyncio.BaseEventLoop)
    loop.close()


def test_run_closes_its_loop_and_passes_on_exceptions():
    loops = []

    async def fail() -> None:
        loops.append(asyncio.get_running_loop())
        raise LookupError("mine")

    with pytest.raises(LookupError, match=r"^mine$"):
        run(fail())
    assert loops[0].is_closed()


@pytest.mark.parametrize("debug", [True, False])
def test_run_sets_debug(debug):
    async def is_debug() -> bool:
        return asyncio.get_running_loop().get_debug()

    assert run(is_debug(), debug=debug) is debug


async def test_run_refuses_to_run_inside_a_loop():
    coroutine = running_loop()
    with pytest.raises(RuntimeError, match=r"^run\(\) cannot be called from a running event loop$"):
        run(coroutine)
    coroutine.close()


class Closed(asyncio.SelectorEventLoop):
    """A loop that takes no attributes of others, like one written in C."""

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("_aiohttpconn"):
            raise AttributeError(name)
        super().__setattr__(name, value)


def test_connections_stay_open_on_a_loop_that_takes_no_attributes():
    async def main() -> int:
        async with serve({"/": "hi"}) as server, Client() as client:
            for _ in range(2):
                assert (await client.get(server.url)).text == "hi"
                await asyncio.sleep(0)
            return server.connections

    with asyncio.Runner(loop_factory=Closed) as runner:
        assert runner.run(main()) == 1
