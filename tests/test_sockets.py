"""net/sockets.py: connecting with and without asking the loop, and keepalive probes.

Happy Eyeballs, Unix sockets and what is left open are tested where they are used: test_dial.py.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from typing import Any

import pytest

from aiohttpconn import ConnectionPool, HTTPConnection
from aiohttpconn.exceptions import ConnectError, ConnectionRefused
from aiohttpconn.net import sockets
from aiohttpconn.net.sockets import connect_first, keepalive_options
from aiohttpconn.testing import serve

from .support import refusing_address
from .support.pooled import fetch


def v4(host: str, port: int = 80):
    return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, (host, port)


def v6(host: str, port: int = 80):
    return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, (host, port, 0, 0)


# Connecting


@pytest.fixture
def listening():
    """The address of a server that accepts nothing: to connect, its kernel is enough."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()


@pytest.fixture(params=["poll", "no poll"])
def poll(request, monkeypatch):
    """Whether the platform has ``poll``; where it has not, the loop is asked to wait."""
    if request.param == "no poll":
        monkeypatch.setattr(sockets, "_poll", None)
    return request.param


async def test_connects(poll, listening):
    with await connect_first([v4(*listening)], "x") as sock:
        assert sock.getpeername() == listening
        assert sock.gettimeout() == 0


async def test_is_refused(poll):
    with refusing_address() as address:
        with pytest.raises(ConnectionRefused) as info:
            await connect_first([v4(*address)], "x")
    assert str(info.value) == f"connection refused by 127.0.0.1:{address[1]}"
    assert info.value.errno == errno.ECONNREFUSED


async def test_an_address_that_cannot_be_reached(poll):
    with pytest.raises(ConnectError) as info:
        await connect_first([v6("fe80::1")], "x")  # no zone
    assert str(info.value) == "cannot connect to [fe80::1]:80: invalid argument"
    assert info.value.errno == errno.EINVAL


async def test_cancelled_at_any_turn_it_leaves_nothing_open(poll, listening):
    for turns in range(10):
        task = asyncio.create_task(connect_first([v4(*listening)], "x"))
        for _ in range(turns):
            await asyncio.sleep(0)
        if not task.cancel():
            task.result().close()
            return
        with pytest.raises(asyncio.CancelledError):
            await task
    raise AssertionError("never connected")


async def test_who_connects_again_and_again_lets_others_run(listening):
    ran = []
    asyncio.get_running_loop().call_soon(ran.append, 1)
    with await connect_first([v4(*listening)], "x"):
        assert ran == [1]


async def test_waits_for_an_answer_that_takes_its_time(poll):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        pending = [socket.socket() for _ in range(16)]
        for sock in pending:
            sock.setblocking(False)
            assert sock.connect_ex(listener.getsockname()) == errno.EINPROGRESS
        # The backlog is full by now.
        task = asyncio.create_task(connect_first([v4(*listener.getsockname())], "x"))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for sock in pending:
            sock.close()


async def test_no_address_at_all():
    with pytest.raises(ConnectError) as info:
        await connect_first([], "a.test:80")
    assert type(info.value) is ConnectError
    assert str(info.value) == "cannot connect to a.test:80: the resolver gave no address"


# Keepalive probes

PROBED = {
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", 0)): 60,
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", 0)): 60,
}
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems name them otherwise")


async def probing(options: dict[str, Any], **server: Any) -> list[int]:
    """Return the values of the options in ``PROBED`` on the idle connection of a pool."""
    async with serve({"/": "hi"}, **server) as served, ConnectionPool(**options) as pool:
        url = served.url.replace("127.0.0.1", "localhost") if server else served.url
        await fetch(pool, url)
        async with pool.connection(url) as conn:
            return [conn.sock.getsockopt(*option) for option in PROBED]


@on_linux
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 60, 60]),
        ({"tcp_keepalive": 7}, [1, 7, 7]),
        # The caller's options win.
        ({"socket_options": [(socket.IPPROTO_TCP, 4, 9)]}, [1, 9, 60]),  # TCP_KEEPIDLE
        ({"socket_options": [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)]}, [0, 60, 60]),
    ],
)
async def test_pooled_connections_are_probed(options, expected):
    assert await probing(options) == expected


@on_linux
async def test_probes_over_tls(certificates):
    options = {"context": certificates.client}
    assert await probing(options, tls=certificates.server) == [1, 60, 60]


@on_linux
async def test_without_probes():
    assert (await probing({"tcp_keepalive": None}))[0] == 0


async def test_unix_sockets_have_no_probes(tmp_path):
    path = str(tmp_path / "socket")
    async with serve({"/": "hi"}, path=path), ConnectionPool(uds=path) as pool:
        async with pool.connection("http://localhost/") as conn:
            assert conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


async def test_a_connection_of_ones_own_is_not_probed():
    async with serve({"/": "hi"}) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.connect()
            assert conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


@pytest.mark.parametrize("seconds", [0, -1, 0.5, 32768, "60"])
def test_a_time_between_probes_that_cannot_be(seconds):
    with pytest.raises(ValueError, match=r"^tcp_keepalive must be 1 to 32767 whole seconds, or No"):
        ConnectionPool(tcp_keepalive=seconds)


def test_a_platform_with_other_names(monkeypatch):
    monkeypatch.delattr(socket, "TCP_KEEPIDLE", raising=False)
    monkeypatch.setattr(socket, "TCP_KEEPALIVE", 0x10, raising=False)
    monkeypatch.delattr(socket, "TCP_KEEPINTVL", raising=False)
    assert keepalive_options(60) == (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, 0x10, 60),
    )
