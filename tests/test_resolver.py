"""net/resolver.py: one lookup per name at a time, in a thread, and none for an IP address."""

from __future__ import annotations

import asyncio
import socket
import threading
from types import SimpleNamespace

import pytest

from aiohttpconn.exceptions import ResolveError
from aiohttpconn.net import resolver as module
from aiohttpconn.net.resolver import Resolver, default_resolver

ANSWER = [(socket.AF_INET, socket.SOCK_STREAM, 6, ("127.0.0.9", 80))]


class Lookups:
    """Stands for ``socket.getaddrinfo``; answers when ``gate`` is open."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Event()
        self.error: OSError | None = None
        self.numeric = socket.getaddrinfo

    def __call__(self, host, port, *, type, flags=0):
        if flags:
            return self.numeric(host, port, type=type, flags=flags)
        self.calls.append((host, port))
        self.started.set()
        assert self.gate.wait(10)
        if self.error is not None:
            raise self.error
        return [(family, kind, proto, "", addr) for family, kind, proto, addr in ANSWER]


@pytest.fixture
def lookups(monkeypatch):
    fake = Lookups()
    monkeypatch.setattr(module.socket, "getaddrinfo", fake)
    yield fake
    fake.gate.set()


async def turns(n: int = 5) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


def finish_at_once(coroutine):
    """Return the coroutine's result; fail if it suspends."""
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    return stop.value.value


@pytest.mark.parametrize(
    ("host", "sockaddr"),
    [
        ("127.0.0.1", ("127.0.0.1", 80)),
        ("::1", ("::1", 80, 0, 0)),
        ("127.1", ("127.0.0.1", 80)),
        ("fe80::1%lo", ("fe80::1", 80, 0, socket.if_nametoindex("lo"))),
    ],
)
def test_ip_addresses_are_answered_without_suspending(lookups, host, sockaddr):
    addresses = finish_at_once(Resolver().resolve(host, 80))
    assert [address[3] for address in addresses] == [sockaddr]
    assert addresses[0][1] == socket.SOCK_STREAM
    assert lookups.calls == []


async def test_a_bad_ip_address_is_an_error_without_a_lookup(lookups):
    with pytest.raises(ResolveError) as info:
        await Resolver().resolve("fe80::1%nosuchzone", 80)
    assert str(info.value) == "cannot resolve 'fe80::1%nosuchzone': Name or service not known"
    assert lookups.calls == []


async def test_localhost_resolves_for_real():
    addresses = await default_resolver.resolve("localhost", 8080)
    assert ("127.0.0.1", 8080) in [address[3] for address in addresses]


async def test_a_name_that_ends_in_a_digit_is_looked_up(lookups):
    assert await Resolver().resolve("web1", 80) == ANSWER
    assert lookups.calls == [(b"web1", 80)]


async def test_callers_share_one_lookup(lookups):
    lookups.gate.clear()
    resolver = Resolver()
    tasks = [asyncio.create_task(resolver.resolve("a.test", 80)) for _ in range(5)]
    await turns()
    lookups.gate.set()
    results = await asyncio.gather(*tasks)
    assert results == [ANSWER] * 5
    assert len({id(result) for result in results}) == 5
    assert lookups.calls == [(b"a.test", 80)]
    # No cache by default: the next one asks again.
    await resolver.resolve("a.test", 80)
    assert len(lookups.calls) == 2


async def test_another_port_is_another_lookup(lookups):
    resolver = Resolver()
    await asyncio.gather(resolver.resolve("a.test", 80), resolver.resolve("a.test", 81))
    assert sorted(lookups.calls) == [(b"a.test", 80), (b"a.test", 81)]


async def test_a_cancelled_caller_leaves_the_lookup_to_the_others(lookups):
    lookups.gate.clear()
    resolver = Resolver()
    first = asyncio.create_task(resolver.resolve("a.test", 80))
    await turns()
    second = asyncio.create_task(resolver.resolve("a.test", 80))
    await turns()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    lookups.gate.set()
    assert await second == ANSWER
    assert lookups.calls == [(b"a.test", 80)]


async def test_an_error_reaches_every_caller_as_its_own_exception(lookups):
    lookups.gate.clear()
    lookups.error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    resolver = Resolver()
    tasks = [asyncio.create_task(resolver.resolve("nohost.invalid", 80)) for _ in range(3)]
    await turns()
    lookups.gate.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert len({id(error) for error in errors}) == 3
    for error in errors:
        assert type(error) is ResolveError
        assert str(error) == "cannot resolve 'nohost.invalid': Name or service not known"
        assert error.errno == socket.EAI_NONAME
        assert error.errors == (lookups.error,)
    assert len(lookups.calls) == 1


async def test_an_error_that_nobody_waits_for_is_silent(lookups, loop_errors):
    lookups.gate.clear()
    lookups.error = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    resolver = Resolver()
    task = asyncio.create_task(resolver.resolve("a.test", 80))
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    lookups.gate.set()
    await asyncio.get_running_loop().shutdown_default_executor()
    await turns()
    assert loop_errors == []
    assert not any(resolver._lookups.values())


async def test_ttl_keeps_an_answer_and_no_error(lookups, monkeypatch):
    now = 1000.0
    # Not time.monotonic itself: that is the loop's clock too.
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    resolver = Resolver(ttl=30)
    lookups.error = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    with pytest.raises(ResolveError, match=r"^cannot resolve 'a.test': Temporary failure in"):
        await resolver.resolve("a.test", 80)
    lookups.error = None
    first = await resolver.resolve("a.test", 80)
    first.clear()
    now += 29.9
    assert finish_at_once(resolver.resolve("a.test", 80)) == ANSWER
    assert len(lookups.calls) == 2
    now += 0.2
    assert await resolver.resolve("a.test", 80) == ANSWER
    assert len(lookups.calls) == 3


async def test_the_cache_is_bounded_and_drops_the_oldest(lookups):
    resolver = Resolver(ttl=1e6, max_entries=2)
    for host in ("a.test", "b.test", "c.test"):
        await resolver.resolve(host, 80)
    assert [host for host, _ in resolver._cache] == ["b.test", "c.test"]


async def test_a_name_outside_ascii_is_looked_up_by_idna(lookups):
    await Resolver().resolve("bücher.test", 80)
    assert lookups.calls == [(b"xn--bcher-kva.test", 80)]


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".test", "bü" + "x" * 64])
async def test_a_name_that_cannot_be_one_says_so(lookups, host):
    with pytest.raises(ResolveError) as info:
        await Resolver().resolve(host, 80)
    assert str(info.value).startswith(f"cannot resolve {host!r}: not a valid host name (")
    assert info.value.errno == socket.EAI_NONAME
    assert isinstance(info.value.errors[0], UnicodeError)
    assert lookups.calls == []


async def test_an_empty_host_means_what_getaddrinfo_says():
    with pytest.raises(ResolveError, match=r"^cannot resolve '': Name or service not known$"):
        await Resolver().resolve("", 80)


def test_one_resolver_serves_loops_one_after_the_other(lookups):
    resolver = Resolver()
    for _ in range(2):
        assert asyncio.run(resolver.resolve("a.test", 80)) == ANSWER
    assert len(lookups.calls) == 2
