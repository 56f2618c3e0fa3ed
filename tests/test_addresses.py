"""net/addresses.py, and what pools do with it: which of an origin's addresses connections use."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from aiohttpconn import (
    Client,
    ConnectionPool,
    ConnectionRefused,
    ResolveError,
    Resolver,
    Retry,
    TLSError,
    dial,
)
from aiohttpconn.net import addresses as module
from aiohttpconn.net import sockets
from aiohttpconn.net.addresses import REST_SECONDS, AddressOrder
from aiohttpconn.testing import ScriptedServer, close, serve

from .support.clocks import Clock, Now
from .support.pooled import fetch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from aiohttpconn.net.resolver import Address

TCP = socket.SOCK_STREAM, socket.IPPROTO_TCP


def at(host: str, port: int = 80) -> Address:
    if ":" in host:
        return socket.AF_INET6, *TCP, (host, port, 0, 0)
    return socket.AF_INET, *TCP, (host, port)


FOUR = [at("192.0.2.1"), at("192.0.2.2"), at("192.0.2.3")]
BOTH = [at("2001:db8::1"), at("192.0.2.1"), at("2001:db8::2"), at("192.0.2.2")]


def hosts(addresses: Iterable[Address]) -> list[str]:
    return [address[3][0] for address in addresses]


# The order


def test_the_first_places_go_round():
    order = AddressOrder()
    assert [hosts(order.order(FOUR))[0][-1] for _ in range(7)] == [*"1231231"]


def test_it_does_not_matter_in_which_order_the_answer_is():
    order = AddressOrder()
    seen = [hosts(order.order(FOUR[turn % 3 :] + FOUR[: turn % 3]))[0] for turn in range(9)]
    assert set(Counter(seen).values()) == {3}


def test_every_address_stays_in_the_list():
    order = AddressOrder()
    for _ in range(9):
        assert sorted(order.order(BOTH)) == sorted(BOTH)


def test_the_family_that_is_first_stays_first_and_families_take_turns():
    order = AddressOrder()
    assert hosts(order.order(BOTH)) == hosts(BOTH)
    for _ in range(4):
        assert [":" in host for host in hosts(order.order(BOTH))] == [True, False] * 2


def test_the_second_places_go_round_too():
    """They take the connections of an address that refuses, before it rests."""
    order = AddressOrder()
    seen = [hosts(order.order(FOUR)) for _ in range(12)]
    backups = Counter(second for first, second, _ in seen if first == "192.0.2.1")
    assert backups == {"192.0.2.2": 2, "192.0.2.3": 2}


@pytest.mark.parametrize("addresses", [[], FOUR[:1]])
def test_of_one_address_nothing_is_kept(addresses):
    order = AddressOrder()
    given = order.order(addresses)
    assert given == addresses
    assert given is not addresses
    assert not order._used


@pytest.fixture
def time(monkeypatch):
    time = Now()
    monkeypatch.setattr(module, "monotonic", time.monotonic)
    return time


def test_an_address_that_did_not_answer_is_last_for_a_while(time):
    order = AddressOrder()
    order.attempted([FOUR[0]], FOUR[1])
    for _ in range(4):
        assert hosts(order.order(FOUR))[-1] == "192.0.2.1"
    time.now += REST_SECONDS
    assert hosts(order.order(FOUR))[0] == "192.0.2.1"


def test_an_address_that_answers_again_rests_no_more(time):
    order = AddressOrder()
    order.attempted(FOUR, None)
    order.order(FOUR)
    order.attempted([], FOUR[2])
    assert hosts(order.order(FOUR))[0] == "192.0.2.3"


def test_if_all_rest_all_are_tried(time):
    order = AddressOrder()
    order.attempted(FOUR, None)
    assert sorted(order.order(FOUR)) == FOUR


def test_a_family_that_leads_nowhere_rests_as_a_whole(time):
    order = AddressOrder()
    order.attempted([BOTH[0]], BOTH[1])
    for _ in range(3):
        assert [":" in host for host in hosts(order.order(BOTH))] == [False, False, True, True]
    time.now += REST_SECONDS
    assert ":" in hosts(order.order(BOTH))[0]


def test_a_refused_address_says_nothing_about_its_family(time):
    order = AddressOrder()
    order.attempted([BOTH[0]], BOTH[2])
    assert hosts(order.order(BOTH)) == ["2001:db8::2", "192.0.2.1", "192.0.2.2", "2001:db8::1"]


def test_what_is_remembered_is_bounded():
    order = AddressOrder()
    for number in range(1000):
        order.order([at(f"10.0.{number // 250}.{number % 250}"), at(f"10.1.{number // 250}.1")])
    assert len(order._used) <= module.MAX_USES + 1


# In a pool


@pytest.fixture
def port() -> Iterator[int]:
    """A port that is free on 127.0.0.1 to 127.0.0.5: refused until a server listens there.

    The sockets that keep it let a server bind to it, too: they do not listen (SO_REUSEADDR).
    """
    for _ in range(100):
        with ExitStack() as stack, suppress(OSError):
            port = 0
            for number in range(1, 6):
                sock = stack.enter_context(socket.socket())
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((f"127.0.0.{number}", port))
                port = sock.getsockname()[1]
            yield port
            return
    pytest.fail("no port is free on all five addresses")


@asynccontextmanager
async def serving(port: int, *numbers: int) -> AsyncIterator[list[Any]]:
    """Serve on *port* of 127.0.0.1 and the like, by their *numbers*, which are the answers."""
    async with AsyncExitStack() as stack:
        servers = [serve({"/": str(n)}, host=f"127.0.0.{n}", port=port) for n in numbers]
        yield [await stack.enter_async_context(server) for server in servers]


THREE = {"some.test": ["127.0.0.1", "127.0.0.2", "127.0.0.3"]}


async def test_connections_are_spread_over_the_addresses(port):
    async with serving(port, 1, 2, 3) as servers:
        async with ConnectionPool(resolve=THREE, limit_per_host=9) as pool:
            url = f"http://some.test:{port}/"
            bodies = await asyncio.gather(*(fetch(pool, url) for _ in range(9)))
        assert Counter(bodies) == {b"1": 3, b"2": 3, b"3": 3}
        assert [server.connections for server in servers] == [3, 3, 3]


async def test_connections_one_after_the_other_are_spread_too(port):
    async with serving(port, 1, 2, 3):
        async with ConnectionPool(resolve=THREE, max_requests=1) as pool:
            url = f"http://some.test:{port}/"
            assert [await fetch(pool, url) for _ in range(6)] == [b"1", b"2", b"3"] * 2


async def test_those_of_a_client_are_spread(port):
    async with serving(port, 1, 2, 3) as servers:
        async with Client(resolve=THREE, limit_per_host=9, proxy=None) as client:
            url = f"http://some.test:{port}/"
            await asyncio.gather(*(client.get(url) for _ in range(9)))
        assert [server.connections for server in servers] == [3, 3, 3]


async def test_a_refused_address_rests(port):
    resolve = {"some.test": ["127.0.0.4", "127.0.0.1", "127.0.0.5"]}
    url = f"http://some.test:{port}/"
    with Clock() as clock:
        async with serving(port, 1, 5), ConnectionPool(resolve=resolve, max_requests=1) as pool:
            seen = [await fetch(pool, url) for _ in range(5)]
            assert Counter(seen) == {b"1": 3, b"5": 2}
            async with serving(port, 4):
                assert b"4" not in [await fetch(pool, url) for _ in range(4)]
                clock.advance(REST_SECONDS)
                assert b"4" in [await fetch(pool, url) for _ in range(3)]


async def test_the_connections_of_an_address_that_refuses_are_spread(port):
    async with serving(port, 1, 2) as servers:
        async with ConnectionPool(resolve=THREE, limit_per_host=12) as pool:
            url = f"http://some.test:{port}/"
            await asyncio.gather(*(fetch(pool, url) for _ in range(12)))
        assert [server.connections for server in servers] == [6, 6]


async def test_an_address_whose_tls_fails_rests(port, certificates):
    async with ScriptedServer([close()], host="127.0.0.2", port=port) as broken:
        async with serve({"/": "hi"}, port=port, tls=certificates.server):
            resolve = {"localhost": ["127.0.0.2", "127.0.0.1"]}
            options = {"resolve": resolve, "max_requests": 1, "context": certificates.client}
            async with ConnectionPool(**options) as pool:
                url = f"https://localhost:{port}/"
                with pytest.raises(TLSError, match="closed the connection during the TLS hands"):
                    await fetch(pool, url)
                for _ in range(4):
                    assert await fetch(pool, url) == b"hi"
        assert broken.connections == 1


# Asking again


class Moving:
    """Stands for ``socket.getaddrinfo``: *addresses* may change between two calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
        self.addresses = addresses
        self.calls = 0
        self.error: Exception | None = None
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: Any, port: int, **keywords: Any) -> Any:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return [(socket.AF_INET, *TCP, "", (address, port)) for address in self.addresses]


async def test_a_name_that_has_moved_is_found_in_the_same_request(port, monkeypatch):
    async with serving(port, 2):
        names = Moving(monkeypatch, "127.0.0.1")
        url = f"http://some.test:{port}/"
        async with ConnectionPool() as pool:
            with pytest.raises(ConnectionRefused) as info:
                await fetch(pool, url)
            # The answer is not older than the connect that found it useless.
            assert (names.calls, info.value.phase) == (1, "connect")
            names.addresses = ("127.0.0.2",)
            assert await fetch(pool, url) == b"2"
        assert names.calls == 2


async def test_requests_that_fail_at_the_same_time_ask_once(port, monkeypatch):
    async with serving(port, 2):
        names = Moving(monkeypatch, "127.0.0.1", "127.0.0.3")
        url = f"http://some.test:{port}/"
        async with ConnectionPool(limit_per_host=8) as pool:
            with pytest.raises(ConnectionRefused):
                await fetch(pool, url)
            names.addresses = ("127.0.0.3", "127.0.0.2")
            assert await asyncio.gather(*(fetch(pool, url) for _ in range(8))) == [b"2"] * 8
        assert names.calls == 2


async def test_an_answer_that_tells_nothing_new_is_the_first_error(port, monkeypatch):
    names = Moving(monkeypatch, "127.0.0.1")
    async with ConnectionPool() as pool:
        for _ in range(3):
            with pytest.raises(ConnectionRefused) as info:
                await fetch(pool, f"http://some.test:{port}/")
            assert str(info.value).startswith(
                f"GET http://some.test:{port}/: connection refused by 127.0.0.1:{port} (conne"
            )
        assert names.calls == 3
        tasks = [fetch(pool, f"http://some.test:{port}/") for _ in range(8)]
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(error) for error in errors} == {ConnectionRefused}
        assert names.calls == 4


async def test_a_name_that_is_gone_by_now_is_the_first_error(port, monkeypatch):
    names = Moving(monkeypatch, "127.0.0.1")
    async with ConnectionPool() as pool:
        for _ in range(2):
            with pytest.raises(ConnectionRefused, match=r"connection refused .* \(connect, "):
                await fetch(pool, f"http://some.test:{port}/")
            names.error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        assert names.calls == 2
        with pytest.raises(ResolveError, match=r"Name or service not known \(dns, "):
            await fetch(pool, f"http://some.test:{port}/")


async def test_an_answer_is_not_used_again_if_no_address_of_it_answered_in_time(port, monkeypatch):
    """No attempt has failed: the caller's time was over."""
    monkeypatch.setattr("aiohttpconn.pool.routes.ATTEMPT_DELAY", 0.0)
    reached = asyncio.Event()
    connect = sockets._finish_connect

    async def finish_connect(sock: socket.socket, address: Any) -> None:
        if address[0] == "127.0.0.1":
            reached.set()
            await asyncio.get_running_loop().create_future()
        await connect(sock, address)

    async with serving(port, 2):
        names = Moving(monkeypatch, "127.0.0.1")
        monkeypatch.setattr(sockets, "_finish_connect", finish_connect)
        url = f"http://some.test:{port}/"
        async with ConnectionPool() as pool:
            task = asyncio.create_task(fetch(pool, url))
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            names.addresses = ("127.0.0.2",)
            assert await fetch(pool, url) == b"2"
        assert names.calls == 2


async def test_a_connect_that_is_cancelled_soon_casts_no_doubt(monkeypatch):
    reached = asyncio.Event()

    async def finish_connect(sock: socket.socket, address: Any) -> None:
        reached.set()
        await asyncio.get_running_loop().create_future()

    names = Moving(monkeypatch, "127.0.0.1", "127.0.0.2")
    async with serve({"/": "hi"}) as server, ConnectionPool() as pool:
        url = f"http://some.test:{server.port}/"
        with monkeypatch.context() as patch:
            patch.setattr("aiohttpconn.pool.routes.ATTEMPT_DELAY", 1e6)
            patch.setattr(sockets, "_finish_connect", finish_connect)
            task = asyncio.create_task(fetch(pool, url))
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await fetch(pool, url) == b"hi"
    assert names.calls == 1


async def test_a_temporary_failure_of_dns_is_retried(monkeypatch):
    async with serve({"/": "hi"}) as server:
        names = Moving(monkeypatch, "127.0.0.1")
        names.error = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

        def on_request(request: Any) -> None:
            if names.calls == 2:
                names.error = None

        async with Client(proxy=None, retry=Retry(backoff=0), on_request=on_request) as client:
            assert (await client.get(f"http://some.test:{server.port}/")).content == b"hi"
        assert names.calls == 3


async def test_a_resolver_without_refresh_is_asked_once_for_each_connect(port):
    asked = []

    class Own:
        async def resolve(self, host: str, port: int) -> list[Address]:
            asked.append(host)
            return [at("127.0.0.1", port)]

    async with ConnectionPool(resolver=Own()) as pool:
        with pytest.raises(ConnectionRefused):
            await fetch(pool, f"http://some.test:{port}/")
    assert asked == ["some.test"]


async def test_addresses_that_on_connect_refuses_are_not_tried_again(port, monkeypatch):
    async with serving(port, 2) as [server]:
        names = Moving(monkeypatch, "127.0.0.1")
        url = f"http://some.test:{port}/"
        async with ConnectionPool(on_connect=lambda ip, *_: ip != "127.0.0.2") as pool:
            for _ in range(2):
                with pytest.raises(ConnectionRefused):
                    await fetch(pool, url)
                names.addresses = ("127.0.0.2",)
        assert (names.calls, server.connections) == (2, 0)


@pytest.mark.parametrize("resolver", [None, Resolver(ttl=3600)])
async def test_max_age_looks_the_name_up_again(port, monkeypatch, resolver):
    names = Moving(monkeypatch, "127.0.0.1")
    url = f"http://{'own' if resolver else 'some'}-{port}.test:{port}/"
    options = {"max_age": 10, "keepalive_timeout": 99, "resolver": resolver}
    with Clock() as clock:
        async with serving(port, 1, 2), ConnectionPool(**options) as pool:
            assert await fetch(pool, url) == b"1"
            names.addresses = ("127.0.0.2",)
            clock.advance(9)
            assert await fetch(pool, url) == b"1"
            clock.advance(1.5)
            assert await fetch(pool, url) == b"2"
    assert names.calls == 2


async def test_a_lookup_that_is_cancelled_while_it_asks_again_leaves_nothing_open(
    port, monkeypatch
):
    names = Moving(monkeypatch, "127.0.0.1")
    resolver = Resolver(ttl=60)
    asked = asyncio.Event()

    async def refresh(host: str, port: int, since: float) -> list[Address]:
        asked.set()
        return await asyncio.get_running_loop().create_future()

    resolver.refresh = refresh  # type: ignore[method-assign]
    async with ConnectionPool(resolver=resolver) as pool:
        task = asyncio.create_task(fetch(pool, f"http://some.test:{port}/"))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pool.stats().open == 0
    assert names.calls == 1


# Dialers


async def test_a_dialer_makes_the_connections_of_a_pool(port):
    """Its destination's resolver is the pool's: static names, turns, and refused addresses."""
    dialed = []

    async def dialer(factory: Any, destination: Any, report: Any) -> Any:
        dialed.append((destination.host, destination.port))
        return await dial(factory, destination, report)

    def on_connect(address: str, host: str, port: int) -> bool:
        return address != "127.0.0.2"

    async with serving(port, 1, 2, 3) as servers:
        options = {"resolve": THREE, "on_connect": on_connect, "dialer": dialer}
        async with ConnectionPool(limit_per_host=4, **options) as pool:
            url = f"http://some.test:{port}/"
            bodies = await asyncio.gather(*(fetch(pool, url) for _ in range(8)))
            assert set(bodies) == {b"1", b"3"}
            async with pool.connection(url) as conn:
                conn.close()
                await conn.request("GET", "/")
                assert (await (await conn.getresponse()).read()) in (b"1", b"3")
        assert dialed == [("some.test", port)] * 5
        assert [server.connections for server in servers] == [3, 0, 2]


async def test_a_dialer_of_a_client_may_lead_anywhere():
    async with serve({"/": "hi"}) as server:

        async def elsewhere(factory: Any, destination: Any, report: Any) -> Any:
            moved = replace(destination, host="127.0.0.1", port=server.port)
            return await dial(factory, moved, report)

        async with Client(dialer=elsewhere, proxy=None) as client:
            for _ in range(2):
                response = await client.get("http://nowhere.test/")
                assert (response.content, response.url) == (b"hi", "http://nowhere.test/")
            assert server.connections == 1
            assert list(client.stats().origins) == ["http://nowhere.test"]


async def test_a_dialer_may_do_without_dial():
    """Neither report nor resolver is used: the transport comes from the loop."""
    async with serve({"/": "hi"}) as server:

        async def own(factory: Any, destination: Any, report: Any) -> Any:
            loop = asyncio.get_running_loop()
            return await loop.create_connection(factory, "127.0.0.1", server.port)

        async with ConnectionPool(dialer=own) as pool:
            for _ in range(2):
                assert await fetch(pool, "http://nowhere.test/") == b"hi"
        assert server.connections == 1


async def test_the_error_of_a_dialer_names_the_request():
    async def failing(factory: Any, destination: Any, report: Any) -> Any:
        raise ConnectionRefused("not today")

    async with ConnectionPool(dialer=failing) as pool:
        with pytest.raises(ConnectionRefused, match=r"^GET http://a.test/: not today \(dns, "):
            await fetch(pool, "http://a.test/")
        assert pool.stats().open == 0


@pytest.mark.parametrize("make", [ConnectionPool, Client])
def test_a_dialer_is_a_callable(make):
    with pytest.raises(TypeError, match=r"^dialer must be a callable, not int$"):
        make(dialer=3)
