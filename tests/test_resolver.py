"""net/resolver.py: one lookup per name at a time, in threads of its own, none for what is known."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import subprocess
import sys
import threading

import pytest

from aiohttpconn.exceptions import ResolveError
from aiohttpconn.net import resolver as module
from aiohttpconn.net import threads
from aiohttpconn.net.resolver import Address, Resolver, Resolves, default_resolver, interleave

from .support.clocks import Now
from .support.programs import complaints

SOON = 60
"""Seconds until a test that hangs fails."""

TCP = socket.SOCK_STREAM, socket.IPPROTO_TCP


def v4(host: str, port: int = 80) -> Address:
    return socket.AF_INET, *TCP, (host, port)


def v6(host: str, port: int = 80, flow: int = 0, scope: int = 0) -> Address:
    return socket.AF_INET6, *TCP, (host, port, flow, scope)


ANSWER = [v4("127.0.0.9")]
NO_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
TRY_AGAIN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


class Lookups:
    """Stands for ``socket.getaddrinfo``; answers when ``gate`` is open."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.answer = ANSWER
        self.changed = threading.Condition()
        self.running = 0
        self.numeric = socket.getaddrinfo

    def __call__(self, host, port, *, type, flags=0):
        if flags:
            return self.numeric(host, port, type=type, flags=flags)
        with self.changed:
            self.calls.append((host, port))
            self.running += 1
            self.changed.notify_all()
        assert self.gate.wait(SOON)
        with self.changed:
            self.running -= 1
            self.changed.notify_all()
        if self.error is not None:
            raise self.error
        return [
            (family, kind, proto, "", (sockaddr[0], port, *sockaddr[2:]))
            for family, kind, proto, sockaddr in self.answer
        ]

    def wait_calls(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.calls) >= count, SOON)

    def finish(self) -> None:
        """Open the gate, and wait until no thread stands in it."""
        self.gate.set()
        with self.changed:
            assert self.changed.wait_for(lambda: not self.running, SOON)


@pytest.fixture
def lookups(monkeypatch):
    fake = Lookups()
    monkeypatch.setattr(module.socket, "getaddrinfo", fake)
    yield fake
    fake.finish()


@pytest.fixture
def clock(monkeypatch):
    clock = Now()
    monkeypatch.setattr(module, "monotonic", clock.monotonic)
    return clock


async def turns(n: int = 5) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def asking(resolver: Resolver, *hosts: str) -> list[asyncio.Task[list[Address]]]:
    """Return a task for each of *hosts*, all of which have asked."""
    tasks = [asyncio.create_task(resolver.resolve(host, 80)) for host in hosts]
    await turns()
    return tasks


async def wait_idle(resolver: Resolver) -> None:
    """Wait until no lookup of *resolver* is under way."""
    while resolver._lookups:
        await asyncio.sleep(0)


def finish_at_once(coroutine):
    """Return the coroutine's result; fail if it suspends."""
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    return stop.value.value


# IP addresses


@pytest.mark.parametrize(
    ("host", "sockaddr"),
    [
        ("127.0.0.1", ("127.0.0.1", 80)),
        ("::1", ("::1", 80, 0, 0)),
        ("127.1", ("127.0.0.1", 80)),
        ("fe80::1%lo", ("fe80::1", 80, 0, socket.if_nametoindex("lo"))),
    ],
)
@pytest.mark.parametrize("ttl", [0, 60])
def test_ip_addresses_are_answered_without_suspending(lookups, host, sockaddr, ttl):
    resolver = Resolver(ttl=ttl)
    addresses = finish_at_once(resolver.resolve(host, 80))
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


# Lookups


async def test_callers_share_one_lookup(lookups):
    lookups.gate.clear()
    resolver = Resolver()
    tasks = await asking(resolver, *["a.test"] * 5)
    assert repr(resolver) == "<Resolver ttl=0, 0 cached, 1 asked>"
    lookups.gate.set()
    results = await asyncio.gather(*tasks)
    assert results == [ANSWER] * 5
    assert len({id(result) for result in results}) == 5
    assert lookups.calls == [(b"a.test", 80)]
    # No cache by default: the next one asks again.
    await resolver.resolve("a.test", 80)
    assert len(lookups.calls) == 2


async def test_another_port_is_the_same_lookup(lookups):
    lookups.gate.clear()
    lookups.answer = [v6("2001:db8::1", 80, 5, 7), v4("192.0.2.1")]
    resolver = Resolver(ttl=60)
    tasks = [asyncio.create_task(resolver.resolve("a.test", port)) for port in (80, 443, 443)]
    await turns()
    lookups.gate.set()
    first, second, third = await asyncio.gather(*tasks)
    assert first == lookups.answer
    assert second == third == [v6("2001:db8::1", 443, 5, 7), v4("192.0.2.1", 443)]
    assert second is not third
    assert finish_at_once(resolver.resolve("a.test", 8080)) == [
        v6("2001:db8::1", 8080, 5, 7),
        v4("192.0.2.1", 8080),
    ]
    assert lookups.calls == [(b"a.test", 80)]


async def test_case_is_no_difference_between_names(lookups):
    resolver = Resolver(ttl=60)
    assert await resolver.resolve("A.Test", 80) == ANSWER
    assert finish_at_once(resolver.resolve("a.tEST", 80)) == ANSWER
    assert lookups.calls == [(b"a.test", 80)]


async def test_families_take_turns(lookups):
    lookups.answer = [v6("::a"), v6("::b"), v4("192.0.2.1")]
    resolver = Resolver(ttl=60)
    expected = [v6("::a"), v4("192.0.2.1"), v6("::b")]
    assert await resolver.resolve("a.test", 80) == expected
    assert finish_at_once(resolver.resolve("a.test", 80)) == expected


async def test_a_cancelled_caller_leaves_the_lookup_to_the_others(lookups):
    lookups.gate.clear()
    resolver = Resolver()
    first, second = await asking(resolver, "a.test", "a.test")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    lookups.gate.set()
    assert await second == ANSWER
    assert lookups.calls == [(b"a.test", 80)]


async def test_a_lookup_that_nobody_waits_for_any_more_fills_the_cache(lookups):
    lookups.gate.clear()
    resolver = Resolver(ttl=60)
    (task,) = await asking(resolver, "a.test")
    lookups.wait_calls(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    lookups.gate.set()
    await wait_idle(resolver)
    assert finish_at_once(resolver.resolve("a.test", 80)) == ANSWER


async def test_a_lookup_that_nobody_waits_for_when_it_is_its_turn_is_not_made(lookups):
    lookups.gate.clear()
    resolver = Resolver(threads=1)
    first, left, last = await asking(resolver, "a.test", "b.test", "c.test")
    left.cancel()
    await turns()
    lookups.gate.set()
    assert await first == await last == ANSWER
    assert [name for name, _ in lookups.calls] == [b"a.test", b"c.test"]
    assert await resolver.resolve("b.test", 80) == ANSWER


async def test_an_error_reaches_every_caller_as_its_own_exception(lookups):
    lookups.gate.clear()
    lookups.error = NO_NAME
    resolver = Resolver()
    tasks = await asking(resolver, *["nohost.invalid"] * 3)
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
    lookups.error = TRY_AGAIN
    resolver = Resolver()
    (task,) = await asking(resolver, "a.test")
    lookups.wait_calls(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    lookups.gate.set()
    await wait_idle(resolver)
    await turns()
    assert loop_errors == []


async def test_another_error_is_told_too(lookups):
    lookups.error = MemoryError()
    with pytest.raises(ResolveError, match=r"^cannot resolve 'a.test': MemoryError$") as info:
        await Resolver().resolve("a.test", 80)
    assert info.value.errno == socket.EAI_FAIL


async def test_without_a_thread_the_caller_is_told(lookups, monkeypatch):
    def start(target):
        raise RuntimeError("can't start new thread")

    resolver = Resolver(threads=2)
    with monkeypatch.context() as patch:
        patch.setattr(threads, "_start", start)
        with pytest.raises(ResolveError, match=r"^cannot resolve 'a.test': can't start new thr"):
            await resolver.resolve("a.test", 80)
    assert await resolver.resolve("a.test", 80) == ANSWER


async def test_lookups_run_beside_each_other_and_not_in_the_loops_threads(lookups):
    lookups.gate.clear()
    tasks = await asking(Resolver(), *[f"{number}.test" for number in range(module.THREADS)])
    lookups.wait_calls(module.THREADS)
    assert await asyncio.to_thread(lambda: 1) == 1
    lookups.gate.set()
    await asyncio.gather(*tasks)


async def test_names_that_hang_do_not_stop_another(lookups):
    resolver = Resolver(threads=2)
    resolver._threads = threads.DaemonThreads(2, limit=256, patience=0)
    lookups.gate.clear()
    tasks = await asking(resolver, *[f"{number}.test" for number in range(200)])
    # None waits for another: all of them are in getaddrinfo at the same time.
    await asyncio.to_thread(lookups.wait_calls, 200)
    assert lookups.running == 200
    lookups.gate.set()
    assert await asyncio.gather(*tasks) == [ANSWER] * 200


async def test_dead_names_of_a_busy_client_do_not_stop_another(lookups):
    """Their callers have given up, and made room for others: getaddrinfo goes on for long."""
    resolver = Resolver(threads=module.THREADS)
    resolver._threads._patience = 0
    lookups.gate.clear()
    for wave in range(4):
        tasks = await asking(resolver, *[f"dead-{wave}-{number}.test" for number in range(100)])
        await asyncio.to_thread(lookups.wait_calls, 100 * (wave + 1))
        for task in tasks:
            task.cancel()
    [task] = await asking(resolver, "alive.test")
    await asyncio.to_thread(lookups.wait_calls, 401)
    lookups.gate.set()
    assert await task == ANSWER


def test_threads_are_shared_unless_a_resolver_has_its_own():
    assert Resolver()._threads is Resolver()._threads is default_resolver._threads
    own = Resolver(threads=2)._threads
    assert own is not default_resolver._threads
    assert (own._usual, own._limit) == (2, 64)


# The cache


async def test_ttl_keeps_an_answer(lookups, clock):
    resolver = Resolver(ttl=30)
    first = await resolver.resolve("a.test", 80)
    first.clear()
    clock.now += 29.9
    assert finish_at_once(resolver.resolve("a.test", 80)) == ANSWER
    assert len(lookups.calls) == 1
    clock.now += 0.2
    assert await resolver.resolve("a.test", 80) == ANSWER
    assert len(lookups.calls) == 2


async def test_a_lookup_that_ends_between_a_callers_two_looks_is_not_made_again(lookups):
    """It is in a thread, and may end at any moment: also behind the look at the cache."""
    resolver = Resolver(ttl=60)
    await resolver.resolve("a.test", 80)
    resolver._known = lambda *args: None  # as it was a moment before
    assert await resolver.resolve("a.test", 80) == ANSWER
    assert lookups.calls == [(b"a.test", 80)]


@pytest.mark.parametrize(("ttl", "kept"), [(30, 1.0), (0.25, 0.25)])
async def test_that_there_is_no_such_name_is_kept_for_a_short_time(lookups, clock, ttl, kept):
    resolver = Resolver(ttl=ttl)
    lookups.error = NO_NAME
    errors = []
    for _ in range(2):
        with pytest.raises(ResolveError, match=r"^cannot resolve 'a.test': Name or serv") as info:
            await resolver.resolve("a.test", 80)
        errors.append(info.value)
    assert errors[0] is not errors[1]
    assert [error.errno for error in errors] == [socket.EAI_NONAME] * 2
    with pytest.raises(ResolveError, match=r"^cannot resolve 'a.test': Name or service not known"):
        finish_at_once(resolver.resolve("a.test", 80))
    assert len(lookups.calls) == 1
    clock.now += kept
    lookups.error = None
    assert await resolver.resolve("a.test", 80) == ANSWER


async def test_a_temporary_error_is_not_kept(lookups):
    """SERVFAIL, or DNS that does not answer: a retry comes at once, and is to help."""
    resolver = Resolver(ttl=30)
    lookups.error = TRY_AGAIN
    with pytest.raises(ResolveError, match=r"^cannot resolve 'a.test': Temporary failure in name"):
        await resolver.resolve("a.test", 80)
    lookups.error = None
    assert await resolver.resolve("a.test", 80) == ANSWER
    assert len(lookups.calls) == 2


async def test_a_temporary_error_is_one_lookup_for_all_who_wait(lookups):
    lookups.gate.clear()
    lookups.error = TRY_AGAIN
    tasks = await asking(Resolver(ttl=30), *["a.test"] * 50)
    lookups.gate.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(error) for error in errors} == {ResolveError}
    assert len(lookups.calls) == 1


async def test_an_error_of_this_computer_is_not_kept(lookups):
    resolver = Resolver(ttl=30)
    lookups.error = OSError(24, "Too many open files")
    with pytest.raises(ResolveError, match=r"^cannot resolve 'a.test': Too many open files$"):
        await resolver.resolve("a.test", 80)
    lookups.error = None
    assert await resolver.resolve("a.test", 80) == ANSWER


async def test_without_ttl_no_error_is_kept(lookups):
    resolver = Resolver()
    lookups.error = NO_NAME
    for _ in range(2):
        with pytest.raises(ResolveError):
            await resolver.resolve("a.test", 80)
    assert len(lookups.calls) == 2


async def test_a_kept_error_keeps_no_frames(lookups):
    resolver = Resolver(ttl=30)
    lookups.error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    for _ in range(2):
        with pytest.raises(ResolveError):
            await resolver.resolve("a.test", 80)
    assert resolver._cache["a.test"].error is lookups.error
    assert lookups.error.__traceback__ is None


async def test_the_cache_is_bounded_and_drops_the_oldest(lookups):
    resolver = Resolver(ttl=1e6, max_entries=2)
    for host in ("a.test", "b.test", "a.test", "c.test"):
        await resolver.resolve(host, 80)
    assert list(resolver._cache) == ["b.test", "c.test"]


async def test_what_has_expired_goes_when_something_is_added(lookups, clock):
    resolver = Resolver(ttl=30)
    for host in ("a.test", "b.test"):
        await resolver.resolve(host, 80)
    clock.now += 20
    await resolver.resolve("c.test", 80)
    assert list(resolver._cache) == ["a.test", "b.test", "c.test"]
    clock.now += 10
    await resolver.resolve("d.test", 80)
    assert list(resolver._cache) == ["c.test", "d.test"]


async def test_a_renewed_answer_is_the_youngest(lookups, clock):
    resolver = Resolver(ttl=30, max_entries=2)
    lookups.error = NO_NAME
    with pytest.raises(ResolveError):
        await resolver.resolve("a.test", 80)
    lookups.error = None
    await resolver.resolve("b.test", 80)
    clock.now += 2
    for host in ("a.test", "c.test"):
        await resolver.resolve(host, 80)
    assert list(resolver._cache) == ["a.test", "c.test"]


async def test_a_ttl_too_short_to_count_keeps_nothing(lookups, clock):
    resolver = Resolver(ttl=1e-300)
    assert await resolver.resolve("a.test", 80) == ANSWER
    assert not resolver._cache


# Asking again


async def test_refresh_asks_again_if_the_answer_is_older(lookups, clock):
    resolver = Resolver(ttl=60)
    assert await resolver.resolve("a.test", 80) == ANSWER
    since = clock.now + 1
    lookups.answer = [v4("127.0.0.8")]
    assert await resolver.refresh("a.test", 80, clock.now) == ANSWER
    clock.now += 2
    assert await resolver.refresh("A.test", 81, since) == [v4("127.0.0.8", 81)]
    # The second to ask for an answer newer than that finds the new one.
    assert await resolver.refresh("a.test", 80, since) == [v4("127.0.0.8")]
    assert await resolver.resolve("a.test", 80) == [v4("127.0.0.8")]
    assert len(lookups.calls) == 2


async def test_refresh_joins_the_lookup_that_is_under_way(lookups):
    resolver = Resolver(ttl=60)
    lookups.gate.clear()
    [task] = await asking(resolver, "a.test")
    again = asyncio.create_task(resolver.refresh("a.test", 80, 0.0))
    await turns()
    lookups.gate.set()
    assert await task == await again == ANSWER
    assert len(lookups.calls) == 1


@pytest.mark.parametrize("ttl", [0, 60])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "static.test", "a.test"])
async def test_refresh_tells_nothing_about_a_name_that_is_not_cached(lookups, host, ttl):
    resolver = Resolver(ttl=ttl, static={"static.test": "127.0.0.1"})
    if not ttl or host != "a.test":
        await resolver.resolve(host, 80)
    before = len(lookups.calls)
    assert finish_at_once(resolver.refresh(host, 80, math.inf)) == []
    assert len(lookups.calls) == before


# Names


async def test_a_name_outside_ascii_is_looked_up_by_idna(lookups):
    await Resolver().resolve("WWW.bücher.test", 80)
    assert lookups.calls == [(b"www.xn--bcher-kva.test", 80)]


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".test", "bü" + "x" * 64, "bü" * 64 + "1"])
@pytest.mark.parametrize("ttl", [0, 60])
async def test_a_name_that_cannot_be_one_says_so(lookups, host, ttl):
    with pytest.raises(ResolveError) as info:
        await Resolver(ttl=ttl).resolve(host, 80)
    assert str(info.value).startswith(f"cannot resolve {host!r}: not a valid host name (")
    assert info.value.errno == socket.EAI_NONAME
    assert isinstance(info.value.errors[0], UnicodeError)
    assert lookups.calls == []


async def test_a_name_is_not_cut_at_a_nul(lookups):
    with pytest.raises(ResolveError) as info:
        await Resolver().resolve("a.test\0.b.test", 80)
    assert str(info.value) == (
        r"cannot resolve 'a.test\x00.b.test': not a valid host name (it has a NUL)"
    )
    assert lookups.calls == []


async def test_an_empty_host_means_what_getaddrinfo_says():
    with pytest.raises(ResolveError, match=r"^cannot resolve '': Name or service not known$"):
        await Resolver().resolve("", 80)


# Static names


STATIC = {
    "a.test": "192.0.2.1",
    "a.test:443": ["2001:db8::1", "2001:db8::2", "192.0.2.2"],
    "*:8443": "192.0.2.3",
    "bücher.test": "192.0.2.4",
    "Zone.test.": "fe80::1%lo",
}


@pytest.mark.parametrize(
    ("host", "port", "addresses"),
    [
        ("a.test", 80, [v4("192.0.2.1", 80)]),
        ("A.TEST.", 80, [v4("192.0.2.1", 80)]),
        # In the order that is given: the families do not take turns.
        (
            "a.test",
            443,
            [v6("2001:db8::1", 443), v6("2001:db8::2", 443), v4("192.0.2.2", 443)],
        ),
        ("a.test", 8443, [v4("192.0.2.1", 8443)]),
        ("b.test", 8443, [v4("192.0.2.3", 8443)]),
        ("xn--bcher-kva.test", 80, [v4("192.0.2.4")]),
        ("BÜCHER.test", 80, [v4("192.0.2.4")]),
        ("zone.test", 80, [v6("fe80::1", 80, 0, socket.if_nametoindex("lo"))]),
        ("127.0.0.1", 8443, [v4("127.0.0.1", 8443)]),
    ],
)
@pytest.mark.parametrize("ttl", [0, 60])
def test_static_names_are_never_looked_up(lookups, host, port, addresses, ttl):
    resolver = Resolver(static=STATIC, ttl=ttl)
    assert finish_at_once(resolver.resolve(host, port)) == addresses
    finish_at_once(resolver.resolve(host, port)).clear()
    assert finish_at_once(resolver.resolve(host, port)) == addresses
    assert lookups.calls == []


async def test_other_names_are_looked_up(lookups):
    resolver = Resolver(static=STATIC)
    assert await resolver.resolve("b.test", 80) == ANSWER


def test_a_star_is_all_names_and_no_address():
    resolver = Resolver(static={"*": ["::1"], "a.test": "127.0.0.2"})
    assert finish_at_once(resolver.resolve("example.org", 80)) == [v6("::1")]
    assert finish_at_once(resolver.resolve("web1", 80)) == [v6("::1")]
    assert finish_at_once(resolver.resolve("a.test", 80)) == [v4("127.0.0.2")]
    assert finish_at_once(resolver.resolve("127.0.0.3", 80)) == [v4("127.0.0.3")]


@pytest.mark.parametrize(
    ("static", "text"),
    [
        (
            {"a.test": "b.test"},
            "static 'a.test': expected an IP address or a list of them, got 'b.test'",
        ),
        ({"a.test": []}, "static 'a.test': expected an IP address or a list of them, got []"),
        (
            {"a.test": "*"},
            "static 'a.test': expected an IP address or a list of them, got '*'",
        ),
        (
            {"a.test": ["::1", None]},
            "static 'a.test': expected an IP address or a list of them, got ['::1', None]",
        ),
        (
            {"a.test": b"1.2"},
            "static 'a.test': expected an IP address or a list of them, got b'1.2'",
        ),
        (
            {"a.test": "192.0.2.1:80"},
            "static 'a.test': expected an IP address or a list of them, got '192.0.2.1:80'",
        ),
        (
            {"127.0.0.1": "::1"},
            "static '127.0.0.1': expected a name; an IP address is never looked up",
        ),
        ({"::1": "::1"}, "static '::1': expected a name; an IP address is never looked up"),
        (
            {"127.0.0.1:80": "::1"},
            "static '127.0.0.1:80': expected a name, or a name and a port of 1 to 65535",
        ),
        (
            {"a.test:": "::1"},
            "static 'a.test:': expected a name, or a name and a port of 1 to 65535",
        ),
        (
            {"a.test:0": "::1"},
            "static 'a.test:0': expected a name, or a name and a port of 1 to 65535",
        ),
        (
            {"a.test:65536": "::1"},
            "static 'a.test:65536': expected a name, or a name and a port of 1 to 65535",
        ),
        (
            {"a.test:+80": "::1"},
            "static 'a.test:+80': expected a name, or a name and a port of 1 to 65535",
        ),
        (
            {"a.test:80:80": "::1"},
            "static 'a.test:80:80': expected a name, or a name and a port of 1 to 65535",
        ),
        ({"": "::1"}, "static '': expected a name, or a name and a port of 1 to 65535"),
        ({"[::1]:80": "::1"}, "static '[::1]:80': not a host name or an IP address: '['"),
        ({"a b": "::1"}, "static 'a b': not a host name or an IP address: 'a b'"),
        ({"*.test": "::1"}, "static '*.test': '*' stands for all names, not for a part of one"),
        ({"a.test": "::1", "A.test.": "::1"}, "static 'A.test.': this name is given twice"),
    ],
)
def test_a_static_entry_that_cannot_be(static, text):
    with pytest.raises(ValueError, match=r"^static ") as info:
        Resolver(static=static)
    assert type(info.value) is ValueError
    assert str(info.value) == text


def test_a_static_name_that_is_no_host_name():
    with pytest.raises(ValueError, match=r"^static 'a\.\.b': cannot resolve 'a\.\.b': not a valid"):
        Resolver(static={"a..b": "::1"})


# The order of addresses


@pytest.mark.parametrize(
    ("families", "expected"),
    [
        ("", ""),
        ("6a", "6a"),
        ("4a 4b", "4a 4b"),
        ("6a 6b 6c 6d 4a", "6a 4a 6b 6c 6d"),
        ("6a 6b 4a 4b 4c", "6a 4a 6b 4b 4c"),
        ("4a 6a 6b 4b", "4a 6a 4b 6b"),
        ("4a 4b 6a", "4a 6a 4b"),
    ],
)
def test_interleave(families, expected):
    def addresses(text):
        return [v6(f"::{each[1]}") if each[0] == "6" else v4(each[1]) for each in text.split()]

    given = addresses(families)
    assert interleave(tuple(given)) == addresses(expected)
    assert given == addresses(families)


# Subclasses and others


async def test_a_subclass_that_refuses_addresses_is_not_gone_around(lookups):
    class PublicOnly(Resolver):
        async def resolve(self, host, port):
            for address in await super().resolve(host, port):
                if address[3][0].startswith("127."):
                    raise OSError(f"{host} is not public")
            raise AssertionError("all of them are local here")

    resolver = PublicOnly(ttl=60, static={"s.test": "127.0.0.5"})
    for host in ("127.0.0.1", "s.test", "a.test", "a.test"):
        with pytest.raises(OSError, match=rf"^{host} is not public$"):
            await resolver.resolve(host, 80)
    assert len(lookups.calls) == 1


def test_ours_is_what_is_asked_of_a_resolver():
    ours: Resolves = default_resolver
    assert set(vars(Resolves)) & set(dir(ours)) >= {"resolve"}


# Loops and threads


def test_one_resolver_serves_loops_one_after_the_other(lookups):
    resolver = Resolver()
    for _ in range(2):
        assert asyncio.run(resolver.resolve("a.test", 80)) == ANSWER
    assert len(lookups.calls) == 2


async def test_loops_in_two_threads_share_a_lookup(lookups):
    make_loop = type(asyncio.get_running_loop())

    def elsewhere() -> list[Address]:
        with asyncio.Runner(debug=True, loop_factory=make_loop) as runner:
            return runner.run(resolver.resolve("a.test", 81))

    lookups.gate.clear()
    resolver = Resolver()
    (here,) = await asking(resolver, "a.test")
    there = asyncio.create_task(asyncio.to_thread(elsewhere))
    while len(resolver._lookups["a.test"]) < 2:
        await asyncio.sleep(0)
    lookups.gate.set()
    assert await here == ANSWER
    assert await there == [v4("127.0.0.9", 81)]
    assert len(lookups.calls) == 1


@pytest.mark.parametrize("debug", [False, True])
async def test_a_loop_that_is_closed_meanwhile_is_left_alone(lookups, capfd, caplog, debug):
    make_loop = type(asyncio.get_running_loop())

    async def give_up() -> None:
        await asking(resolver, "a.test")
        # And one that is not even cancelled when its loop closes.
        resolver._ask("a.test", 80, asyncio.get_running_loop().create_future())
        while not lookups.calls:
            await asyncio.sleep(0)

    def run() -> None:
        with asyncio.Runner(debug=debug, loop_factory=make_loop) as runner:
            runner.run(give_up())

    lookups.gate.clear()
    resolver = Resolver(ttl=60)
    await asyncio.to_thread(run)
    (here,) = await asking(resolver, "a.test")
    assert len(resolver._lookups["a.test"]) == 2
    lookups.gate.set()
    assert await here == finish_at_once(resolver.resolve("a.test", 80)) == ANSWER
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_asks_anew(lookups):
    resolver = Resolver()
    lookups.gate.clear()
    parent = threading.Thread(target=lambda: asyncio.run(resolver.resolve("a.test", 80)))
    parent.start()
    lookups.wait_calls(1)
    child = os.fork()
    if child == 0:
        try:
            lookups.gate.set()
            os._exit(42 if asyncio.run(resolver.resolve("a.test", 80)) == ANSWER else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 42
    lookups.gate.set()
    parent.join(SOON)
    assert not parent.is_alive()


PROGRAM = """
import asyncio, socket, sys, threading
from aiohttpconn.net.resolver import default_resolver

asked = threading.Event()

def hang(*args, **keywords):
    asked.set()
    threading.Event().wait()

socket.getaddrinfo = hang

async def main():
    names = [asyncio.create_task(default_resolver.resolve(f"{n}.test", 80)) for n in range(20)]
    await asyncio.sleep(0)
    asked.wait()

make_loop = getattr(__import__(sys.argv[1]), "new_event_loop")
with asyncio.Runner(loop_factory=make_loop) as runner:
    runner.run(main())
"""


async def test_a_program_ends_though_lookups_hang_and_prints_nothing():
    loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", PROGRAM, loop]
    result = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=SOON
    )
    assert (result.returncode, result.stdout, complaints(result.stderr)) == (0, "", "")
