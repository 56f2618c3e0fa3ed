"""The soak's own counts: an answer of another request, a hang and a leak do not pass."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from aiohttpconn.testing import Reply, in_thread, reset_at, serve

from . import experiments
from .experiments import Experiment, Row, run
from .loads import LOADS, Site
from .servers import Server

if TYPE_CHECKING:
    from aiohttpconn.testing import Request

pytestmark = pytest.mark.may_leak("other tests' loops may live yet")


def _answer(request: Request) -> Reply:
    name = request.headers["X-Id"] or ""
    return Reply(f"{request.target} ", headers={"X-Id": name})


def _soak(handler: Any, uvloop: bool, *, faults: Any = (), load: str = "gets") -> Row:
    """Run one experiment against *handler*, for a moment."""
    with in_thread(serve(handler, faults=faults)) as server:
        url = server.url.rstrip("/")
        there = Server("nginx", None, url, url, lambda: None, lambda: None)  # type: ignore[arg-type]
        return run(Experiment("it", "nginx", load), there, 0.2, uvloop, "")


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def uvloop(request: pytest.FixtureRequest) -> bool:
    if request.param:
        pytest.importorskip("uvloop")
    return request.param


@pytest.mark.parametrize("load", ["gets", "many", "pool"])
def test_what_is_served_is_counted(uvloop, load):
    row = _soak(_answer, uvloop, load=load)
    assert row.faults == []
    assert row.made == row.served > 0
    assert (row.lost, row.resent, row.failed) == (0, 0, {})


def test_the_answer_of_another_request_is_lost(uvloop):
    before = ["first"]

    def handler(request: Request) -> Reply:
        before.append(request.headers["X-Id"] or "")
        return Reply(f"{request.target} ", headers={"X-Id": before[-2]})

    row = _soak(handler, uvloop)
    assert row.lost > 0
    assert any("is wrong" in fault for fault in row.faults)


def test_an_error_that_should_not_be_is_a_fault(uvloop):
    # The first connection is for the request before the experiment.
    row = _soak(_answer, uvloop, faults=[None, reset_at(5)])
    assert sum(row.failed.values()) == row.made > 0
    assert row.lost == 0
    assert any("should not" in fault for fault in row.faults)


def test_what_stays_open_is_a_fault(uvloop, monkeypatch):
    kept: list[Any] = []

    async def load(site: Site) -> None:
        await LOADS["gets"](site)
        # More than the server, which is of this process, has of the first request's.
        kept.extend([site.client, *(socket.socket() for _ in range(9))])

    monkeypatch.setattr(experiments, "CLOSE_SECONDS", 0.1)
    monkeypatch.setitem(LOADS, "kept", load)
    row = _soak(_answer, uvloop, load="kept")
    for sock in kept[1:]:
        sock.close()
    assert any("objects are left: {'Client': 1}" in fault for fault in row.faults)
    assert any("descriptors are open" in fault for fault in row.faults)
