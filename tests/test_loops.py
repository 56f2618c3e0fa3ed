"""net/loops.py: which event loop runs, and that nobody else's is touched."""

from __future__ import annotations

import asyncio
import sys

import pytest

from aiohttpconn.net.loops import new_event_loop, run


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
