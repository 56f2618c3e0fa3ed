"""pool/scheduler.py: limits, waiting origins and idle connections, with a clock that a test moves.

The tests ask the scheduler for connections through ``Pool``, the model in
``support/pool_model.py``: it stands for the pool and its users, and ``pool.check()`` asserts the
invariants. First come the rules one by one, then their cost, and at the end a state machine that
takes all steps in random order.
"""

from __future__ import annotations

import itertools
import random
import time
import timeit
import weakref
from collections import deque
from math import inf
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from aiohttpconn.pool import scheduler as module
from aiohttpconn.pool.rate_limit import RateLimiter
from aiohttpconn.pool.scheduler import MAX_UNUSED, STREAK, OriginPool, Scheduler, reserved

from .support.pool_model import Clock, Connection, Pool, Waiter, served, used

# ------------------------------------------------------------- limits, idle connections


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def test_a_site_has_limit_per_host_slots_and_the_pool_has_limit(clock):
    pool = Pool(clock, limit=5, limit_per_host=2)
    waiters = [pool.ask(pool.origin(key)) for key in "aaabbbccc"]
    assert served(*waiters) == [True, True, False, True, True, False, True, False, False]
    assert list(pool.scheduler.waiting_origins) == [pool.origin("c")]
    assert (pool.scheduler.connection_count, pool.scheduler.queued) == (5, 4)
    pool.check()


def test_without_limits_nobody_waits(clock):
    pool = Pool(clock)
    assert all(served(*[pool.ask(pool.origin(n % 7)) for n in range(500)]))
    pool.check()


def test_the_connection_that_became_idle_last_is_taken_first(clock):
    pool = Pool(clock)
    users = [used(pool) for _ in range(3)]
    for user in (users[1], users[2], users[0]):
        pool.finish(user)
        clock.now += 1
    assert [used(pool).connection for _ in range(4)][:3] == [
        user.connection for user in (users[0], users[2], users[1])
    ]
    pool.check()


@pytest.mark.parametrize("plain", [True, False])
def test_a_connection_knows_since_when_it_is_idle(clock, plain):
    pool = Pool(clock)
    user = used(pool)
    user.connection.fast_release = plain
    clock.now += 5
    pool.finish(user)
    assert user.connection.idle_since == clock.now
    assert list(pool.scheduler.idle) == [user.connection]


def test_the_connection_that_is_idle_longest_is_closed_for_another_site(clock):
    pool = Pool(clock, limit=3)
    users = [used(pool, key) for key in "abc"]
    for user in (users[1], users[2], users[0]):
        pool.finish(user)
    used(pool, "d")
    assert pool.closed == [users[1].connection]
    pool.check()


@pytest.mark.parametrize(("max_idle", "closed"), [(0, [0, 1, 2]), (1, [0, 1]), (2, [0]), (3, [])])
def test_of_too_many_idle_connections_the_oldest_are_closed(clock, max_idle, closed):
    pool = Pool(clock, max_idle=max_idle)
    users = [used(pool) for _ in range(3)]
    for user in users:
        user.connection.fast_release = True
        pool.finish(user)
        pool.check()
    assert pool.closed == [users[n].connection for n in closed]


def test_a_connection_that_ended_is_told_once(clock):
    pool = Pool(clock)
    told = []
    user = used(pool)
    pool.scheduler.delegate.connection_ended = told.append
    pool.origin().connection_ended(user.connection)
    assert told == [user.connection]
    pool.scheduler.remove(user.connection)
    pool.scheduler.remove(user.connection)
    pool.origin().transport_lost(user.connection)
    assert told == [user.connection]
    assert (pool.scheduler.connection_count, pool.origin().connection_count) == (0, 0)


# ------------------------------------------------------------------------------ waiting


def test_who_waits_longest_is_served_first(clock):
    pool = Pool(clock, limit_per_host=1)
    first = used(pool)
    waiters = [pool.ask(pool.origin()) for _ in range(4)]
    pool.cancel(waiters[1])
    pool.finish(first)
    for waiter in (waiters[0], waiters[2], waiters[3]):
        assert pool.log[-1] is waiter
        pool.finish(waiter)
    pool.check()


def test_a_connection_that_ends_makes_room_for_who_waits(clock):
    pool = Pool(clock, limit=2, limit_per_host=1)
    a, b = used(pool, "a"), used(pool, "b")
    waiters = [pool.ask(pool.origin(key)) for key in "cab"]
    pool.lose(b.connection)
    assert served(*waiters) == [True, False, False]
    # Its own origin waits again, after the other.
    pool.lose(a.connection)
    assert served(*waiters) == [True, False, True]
    pool.check()


def test_who_loses_a_connection_before_using_it_gets_another(clock):
    pool = Pool(clock, limit=1)
    first = used(pool)
    second = pool.ask(pool.origin())
    pool.finish(first)
    again = pool.lose_unused(second)
    assert served(again) == [True]
    pool.check()


def test_who_had_its_turn_already_is_first(clock):
    pool = Pool(clock, limit=1)
    first = used(pool)
    waiters = [pool.ask(pool.origin()) for _ in range(2)]
    again = Waiter(pool, pool.origin(), shared=False)
    pool.queues[pool.origin()].appendleft(again)
    pool.scheduler.enqueue(pool.origin(), again, first=True)
    pool.finish(first)
    assert served(again, *waiters) == [True, False, False]
    pool.check()


def test_who_gives_back_what_was_granted_leaves_it_to_the_next(clock):
    pool = Pool(clock, limit=1)
    first = used(pool)
    second, third = pool.ask(pool.origin()), pool.ask(pool.origin("b"))
    pool.finish(first)
    assert served(second, third) == [True, False]
    pool.cancel(second)
    assert served(third) == [True]
    pool.check()


def test_a_cancelled_waiter_leaves_nothing_behind(clock):
    pool = Pool(clock, limit=1)
    user = used(pool, "a")
    waiter = pool.ask(pool.origin("b"))
    dead = weakref.ref(waiter)
    assert pool.scheduler.cancel(waiter.origin, waiter)
    assert not pool.scheduler.cancel(waiter.origin, waiter)
    pool.queues.clear()
    del waiter
    assert dead() is None
    assert (pool.scheduler.queued, list(pool.scheduler.waiting_origins)) == (0, [])
    pool.finish(user)
    pool.check()


# ------------------------------------------------------------------------------ sharing


def test_a_connection_is_filled_before_another_is_made(clock):
    pool = Pool(clock, pipelining=3)
    users = [used(pool, shared=True) for _ in range(7)]
    scheduler = list(dict.fromkeys(user.connection for user in users))
    assert [scheduler.index(user.connection) for user in users] == [0, 0, 0, 1, 1, 1, 2]
    assert list(pool.origin().shareable) == [users[6].connection]
    pool.finish(users[1])
    assert list(pool.origin().shareable) == [users[6].connection, users[1].connection]
    assert used(pool, shared=True).connection is users[1].connection
    pool.check()


def test_a_new_connection_is_shared_from_when_it_is_there(clock):
    pool = Pool(clock, limit=1, pipelining=3)
    waiters = [pool.ask(pool.origin(), shared=True) for _ in range(5)]
    assert served(*waiters) == [True, False, False, False, False]
    pool.connect(waiters[0].connection)
    assert served(*waiters) == [True, True, True, False, False]
    pool.finish(waiters[0])
    assert served(*waiters) == [True, True, True, True, False]
    pool.check()


def test_who_wants_a_connection_alone_gets_the_one_that_runs_empty(clock):
    pool = Pool(clock, limit=1, pipelining=3)
    users = [used(pool, shared=True), used(pool, shared=True)]
    assert list(pool.origin().shareable) == [users[0].connection]
    alone = pool.ask(pool.origin())
    behind = pool.ask(pool.origin(), shared=True)
    pool.finish(users[0])
    assert served(alone, behind) == [False, False]
    assert not pool.origin().shareable
    pool.finish(users[1])
    assert served(alone, behind) == [True, False]
    pool.finish(alone)
    assert served(behind) == [True]
    pool.check()


def test_when_who_wants_a_connection_alone_gives_up_the_others_share(clock):
    pool = Pool(clock, limit=1, pipelining=2)
    used(pool, shared=True)
    alone = pool.ask(pool.origin())
    behind = pool.ask(pool.origin(), shared=True)
    assert served(alone, behind) == [False, False]
    pool.cancel(alone)
    assert served(behind) == [True]
    pool.check()


def test_a_connection_is_shared_by_no_more_than_it_may_still_serve(clock):
    pool = Pool(clock, limit=1, pipelining=3, max_exchanges=4)
    first = used(pool, shared=True)
    waiters = [pool.ask(pool.origin(), shared=True) for _ in range(5)]
    assert served(*waiters) == [True, True, False, False, False]
    pool.finish(first)
    assert served(*waiters) == [True, True, True, False, False]
    pool.finish(waiters[0])
    pool.finish(waiters[1])
    assert served(*waiters) == [True, True, True, False, False]
    # It has served four: another is made.
    pool.finish(waiters[2])
    assert served(*waiters) == [True, True, True, True, False]
    assert waiters[3].connection is not first.connection
    pool.check()


def test_beyond_that_another_is_made(clock):
    pool = Pool(clock, pipelining=3, max_exchanges=2)
    users = [used(pool, shared=True) for _ in range(4)]
    assert [user.connection is users[0].connection for user in users] == [True, True, False, False]
    assert users[2].connection is users[3].connection
    pool.check()


def test_a_connection_that_may_serve_fewer_than_was_thought_is_shared_no_more(clock):
    pool = Pool(clock, pipelining=4)
    user = used(pool, shared=True)
    used(pool, shared=True)
    assert list(pool.origin().shareable) == [user.connection]
    user.connection.exchanges_left = 2  # its first response says so
    pool.finish(user)
    assert list(pool.origin().shareable) == []


def test_a_connection_that_ended_is_shared_no_more(clock):
    pool = Pool(clock, pipelining=2)
    pool.lose(used(pool, shared=True).connection)
    assert not pool.origin().shareable
    used(pool, shared=True)


def test_an_exchange_that_was_not_begun_makes_room_for_another(clock):
    pool = Pool(clock, limit=1, pipelining=2)
    users = [used(pool, shared=True), used(pool, shared=True)]
    waiter = pool.ask(pool.origin(), shared=True)
    pool.cancel(users[1])
    assert served(waiter) == [True]
    assert waiter.connection.in_flight == 2
    pool.check()


# -------------------------------------------------------------------- origins that wait


def work(
    pool: Pool, origins: list[OriginPool], steps: int, shared: bool = False
) -> list[OriginPool]:
    """Finish *steps* exchanges, the oldest first, while each origin always wants more.

    Return the origins that were served, in order.
    """
    log = len(pool.log)
    for _ in range(steps):
        for origin in origins:
            while len(origin.waiters) < 3:
                pool.ask(origin, shared)
        connection, users = next(iter(pool.users.items()))
        pool.users[connection] = pool.users.pop(connection)
        if not connection.connected:
            pool.connect(connection)
        pool.finish(users[0])
        pool.clock.now += 0.01
    pool.check()
    return [user.origin for user in pool.log[log:]]


def test_a_new_site_gets_the_next_connection_of_one_that_has_many(clock):
    # A slow host has 20 connections and 200 queued requests: a fast host waits for one of them.
    pool = Pool(clock, limit=20)
    slow = [pool.ask(pool.origin("slow")) for _ in range(200)]
    fast = pool.ask(pool.origin("fast"))
    assert served(fast) == [False]
    pool.connect(slow[7].connection)
    pool.finish(slow[7])
    assert served(fast, slow[20]) == [True, False]
    assert pool.closed == [slow[7].connection]
    pool.check()


def test_a_site_that_has_two_gives_one_to_a_site_that_has_none(clock):
    pool = Pool(clock, limit=2)
    users = [used(pool, "a"), used(pool, "a")]
    waiters = [pool.ask(pool.origin(key)) for key in "ab"]
    pool.finish(users[0])
    assert served(*waiters) == [False, True]
    pool.check()


def test_a_site_whose_last_connection_is_gone_begins_anew(clock):
    pool = Pool(clock, limit=1)
    a, b = pool.origin("a"), pool.origin("b")
    work(pool, [a], 20)
    while a.waiters:
        pool.cancel(next(iter(a.waiters)))
    pool.lose(next(iter(pool.users)))
    user = used(pool, "a")
    waiters = [pool.ask(a), pool.ask(b)]
    pool.finish(user)
    assert served(*waiters) == [True, False]


def test_a_site_that_is_served_does_not_keep_the_others_from_their_turn(clock):
    # b waits for a second connection, and its first one is slow; c waits after it for its first.
    pool = Pool(clock, limit=2)
    used(pool, "b")
    a = used(pool, "a")
    pool.ask(pool.origin("b"))
    c = pool.ask(pool.origin("c"))
    for _ in range(STREAK + 1):
        waiting_origin = pool.ask(pool.origin("a"))
        pool.finish(a)
        a = waiting_origin
        assert served(c) == [a.connection is None]
    assert served(c) == [True]


def test_a_connection_goes_on_to_serve_8_requests_before_another_site_gets_its_first(clock):
    pool = Pool(clock, limit=1)
    origins = [pool.origin(key) for key in "abc"]
    assert STREAK == 8
    order = "".join(origin.key for origin in work(pool, origins, 54))
    assert order == 2 * f"{9 * 'a'}{9 * 'b'}{9 * 'c'}" + "a"


@pytest.mark.parametrize(("limit", "keys"), [(3, "ab"), (5, "ab"), (7, "abc"), (11, "abcd")])
@pytest.mark.parametrize("pipelining", [1, 3])
def test_what_cannot_be_shared_out_evenly_is_not_passed_to_and_fro(clock, limit, keys, pipelining):
    pool = Pool(clock, limit=limit, pipelining=pipelining)
    origins = [pool.origin(key) for key in keys]
    order = work(pool, origins, 1000, shared=pipelining > 1)
    made = len(pool.closed)
    assert made <= len(order) / STREAK
    # And it is not always the same origin that has one more.
    counts = [order.count(origin) for origin in origins]
    assert max(counts) < 1.3 * min(counts)


@pytest.mark.parametrize("pipelining", [1, 3])
def test_what_is_shared_out_evenly_stays_so(clock, pipelining):
    pool = Pool(clock, limit=4, pipelining=pipelining)
    work(pool, [pool.origin("a"), pool.origin("b")], 500, shared=pipelining > 1)
    assert len(pool.closed) <= 4


def test_others_in_their_turns_do_not_end_sharing(clock):
    pool = Pool(clock, limit=1, pipelining=3)
    alone = used(pool, "a")
    pool.ask(pool.origin("b"), shared=True)
    waiters = [pool.ask(pool.origin("a"), shared=True) for _ in range(3)]
    pool.finish(alone)
    assert served(*waiters) == [True, False, False]
    pool.connect(waiters[0].connection)
    assert served(*waiters) == [True] * 3
    pool.check()


def test_a_site_that_shares_its_connection_lets_it_go_when_others_wait(clock):
    pool = Pool(clock, limit=1, pipelining=3)
    a, b = pool.origin("a"), pool.origin("b")
    work(pool, [a], 50, shared=True)
    waiter = pool.ask(b, shared=True)
    for _ in range(STREAK + 3):
        work(pool, [a], 1, shared=True)
    assert served(waiter) == [True]


def test_a_site_whose_requests_need_not_wait_lets_its_shared_connection_go(clock):
    pool = Pool(clock, limit=1, pipelining=4)
    users = deque([used(pool, "a", shared=True), used(pool, "a", shared=True)])
    waiter = pool.ask(pool.origin("b"), shared=True)
    for _ in range(3):
        # There is always an exchange on its way, and never a request in the queue.
        users.append(pool.ask(pool.origin("a"), shared=True))
        if users[-1].connection is None:
            pool.cancel(users.pop())
        if users:
            pool.finish(users.popleft())
    assert served(waiter) == [True]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("shared_out", [False, True])
def test_no_site_starves(clock, seed, shared_out):
    chance = random.Random(seed)
    limit, pipelining = chance.choice([1, 2, 3, 5, 8]), chance.choice([1, 1, 2, 3])
    per_host, count = chance.choice([1, 2, 4, inf]), chance.choice([2, 3, 5, 12, 30])
    pool = Pool(clock, limit, per_host, pipelining=pipelining, shared_out=shared_out)
    origins = [pool.origin(key) for key in range(count)]
    for _ in range(1500):
        for origin in origins:
            while len(origin.waiters) < 1 + origin.key % 3:
                pool.ask(origin, pipelining > 1 and chance.random() < 0.8)
        connection = chance.choice(list(pool.users))
        if not connection.connected:
            pool.connect(connection)
        else:
            pool.finish(pool.users[connection][0])
    pool.check()
    bound = count * (STREAK + 1) * limit + limit * pipelining
    for origin in origins:
        turns = [
            -1,
            *[n for n, user in enumerate(pool.log) if user.origin is origin],
            len(pool.log),
        ]
        assert max(later - sooner for sooner, later in itertools.pairwise(turns)) <= bound


def test_a_thousand_sites_with_five_slots_are_served_in_order(clock):
    pool = Pool(clock, limit=5)
    waiters = [pool.ask(pool.origin(n)) for n in range(1000)]
    while pool.users:
        connection = next(iter(pool.users))
        pool.connect(connection)
        pool.finish(pool.users[connection][0])
    assert pool.log == waiters
    # None was closed that could be kept.
    assert len(pool.scheduler.idle) == 5
    pool.check()


# -------------------------------------------------------------------------- the reserve


def counts(pool: Pool) -> dict[Any, int]:
    """Return the number of connections of each origin that has any."""
    origins = pool.scheduler.origins.items()
    return {key: origin.connection_count for key, origin in origins if origin.connection_count}


def crowd(pool: Pool, key: object, asking: int) -> list[Waiter]:
    """Let so many requests ask at *key*, and connect those that are served; return all."""
    users = [pool.ask(pool.origin(key)) for _ in range(asking)]
    for user in users:
        if user.connection is not None:
            pool.connect(user.connection)
    return users


def finish_each_once(pool: Pool, key: object) -> None:
    """End the exchanges that are under way at *key*, one after the other."""
    for connection, users in list(pool.users.items()):
        if connection.origin_pool is pool.origin(key) and not connection.removed:
            pool.finish(users[0])
            pool.check()
    for connection in pool.users:
        if not connection.connected:
            pool.connect(connection)


@pytest.mark.parametrize(
    ("limit", "most"),
    [
        *((1, 1), (2, 1), (3, 2), (7, 6), (8, 7), (15, 14), (16, 14), (20, 18), (100, 88)),
        *((128, 112), (1000, 875), (inf, 2000)),
    ],
)
def test_one_site_takes_most_connections_and_the_next_one_finds_a_place(clock, limit, most):
    pool = Pool(clock, limit=limit, shared_out=True)
    users = crowd(pool, "slow", 2000)
    assert counts(pool) == {"slow": most}
    pool.check()
    if limit > 1:
        used(pool, "fast")
    # Its own requests are served on its own connections.
    if most < 2000:
        pool.finish(users[0])
        assert served(users[most]) == [True]
        assert not pool.closed
        pool.check()


def test_the_reserve_is_for_several_sites(clock):
    """Each takes a quarter of it at most, however many requests it has."""
    pool = Pool(clock, limit=128, shared_out=True)
    assert reserved(128) == (16, 4)
    slow = crowd(pool, "slow", 200)
    for key in "abcd":
        assert pool.scheduler.connection_count < 128
        crowd(pool, key, 200)
        pool.check()
    assert counts(pool) == {"slow": 112, "a": 4, "b": 4, "c": 4, "d": 4}
    waiter = pool.ask(pool.origin("e"))
    assert served(waiter) == [False]
    pool.finish(slow[0])
    assert served(waiter) == [True]
    pool.check()


def test_a_site_in_need_gets_its_part_and_the_reserve_comes_back(clock):
    pool = Pool(clock, limit=128, shared_out=True)
    crowd(pool, "a", 1000)
    crowd(pool, "b", 1000)
    assert counts(pool) == {"a": 112, "b": 4}
    finish_each_once(pool, "a")
    assert counts(pool) == {"a": 56, "b": 56}
    # They do not pass one to and fro.
    closed = len(pool.closed)
    for key in "abab":
        finish_each_once(pool, key)
    assert len(pool.closed) == closed


def test_the_reserve_comes_back_when_nobody_waits_for_more(clock):
    pool = Pool(clock, limit=128, shared_out=True)
    crowd(pool, "slow", 1000)
    for key in range(14):
        used(pool, key)
    assert pool.scheduler.connection_count == 126
    finish_each_once(pool, "slow")
    # Half of it: more is only used when more than all of it is free.
    assert (counts(pool)["slow"], pool.scheduler.connection_count) == (106, 120)
    finish_each_once(pool, "slow")
    assert counts(pool)["slow"] == 106


def test_a_site_that_comes_and_goes_costs_another_no_connection(clock):
    pool = Pool(clock, limit=16, shared_out=True)
    crowd(pool, "slow", 1000)
    for _ in range(30):
        fast = used(pool, "fast")
        finish_each_once(pool, "slow")
        pool.finish(fast)
        pool.run_on()
        finish_each_once(pool, "slow")
    assert counts(pool) == {"slow": 14, "fast": 1}
    assert not pool.closed


def test_idle_connections_to_others_make_room_for_a_large_site(clock):
    pool = Pool(clock, limit=128, shared_out=True)
    for user in crowd(pool, "a", 112):
        pool.finish(user)
    crowd(pool, "b", 200)
    assert counts(pool) == {"a": 16, "b": 112}
    pool.check()


@pytest.mark.parametrize("end", ["finish", "lose"])
def test_a_large_site_that_waits_is_served_as_soon_as_it_leaves_the_reserve_free(clock, end):
    pool = Pool(clock, limit=32, shared_out=True)
    others = crowd(pool, "a", 20)
    waiters = crowd(pool, "b", 20)
    assert counts(pool) == {"a": 20, "b": 8}
    assert list(pool.scheduler.crowded) == [pool.origin("b")]
    for number, user in enumerate(others):
        if end == "finish":
            pool.finish(user)
        else:
            pool.lose(user.connection)
        pool.run_on()
        pool.check()
        assert counts(pool)["b"] == min(9 + number, 20)
    assert all(served(*waiters))


def test_a_large_site_behind_the_pace_of_another_is_served(clock):
    pool = Pool(clock, limit=16, shared_out=True)
    others = crowd(pool, "a", 7)
    paced = [used(pool, "b", pace=RateLimiter(1.0))]
    waiting = [pool.ask(pool.origin("b")) for _ in range(3)]
    crowd(pool, "c", 20)
    assert counts(pool) == {"a": 7, "b": 1, "c": 6}
    pool.turn(1.0)
    pool.check()
    assert served(*waiting) == [False, False, False]
    pool.finish(others[0])
    pool.run_on()
    pool.check()
    pool.finish(paced[0])
    assert served(waiting[0]) == [True]
    pool.check()


# ------------------------------------------------------------------- deferred evictions


def test_who_asks_again_at_once_keeps_its_connection_though_others_wait(clock):
    pool = Pool(clock, limit=3)
    slow = [used(pool, "slow") for _ in range(2)]
    fast = used(pool, "fast")
    queued = [pool.ask(pool.origin("slow")) for _ in range(5)]
    for _ in range(3 * STREAK):
        connection = fast.connection
        pool.finish(fast)
        assert pool.lingering == {connection: clock.now}
        pool.check()
        fast = used(pool, "fast")
        assert fast.connection is connection
        clock.now += 1
        # This evicts only a connection that has been idle since its last request.
        pool.run_on()
        pool.check()
    pool.finish(fast)
    pool.run_on()
    assert pool.closed == [fast.connection]
    assert served(*queued) == [True, False, False, False, False]
    pool.check()
    assert served(*slow) == [True, True]


def test_what_lingers_is_not_for_who_comes_behind_those_that_wait(clock):
    pool = Pool(clock, limit=2)
    used(pool, "a")
    fast = used(pool, "b")
    first = pool.ask(pool.origin("a"))
    pool.finish(fast)
    second = pool.ask(pool.origin("c"))
    assert served(first, second) == [False, False]
    pool.run_on()
    assert served(first, second) == [True, False]
    pool.check()


def test_a_lingering_connection_that_is_closed_or_lost_serves_who_waits(clock):
    for end in ("close_idle", "remove"):
        pool = Pool(clock, limit=2)
        used(pool, "a")
        fast = used(pool, "b")
        waiting = pool.ask(pool.origin("a"))
        pool.finish(fast)
        getattr(pool.scheduler, end)(fast.connection)
        assert waiting.connection is not None
        pool.run_on()
        pool.check()


# -------------------------------------------------------------------------- rate limits


def test_a_site_with_a_pace_is_served_when_it_may_begin(clock):
    pool = Pool(clock)
    first = used(pool, pace=RateLimiter(2.0))
    second, third = pool.ask(pool.origin()), pool.ask(pool.origin())
    pool.finish(first)
    assert served(second, third) == [False, False]
    assert pool.timers == {pool.origin(): clock.now + 2.0}
    pool.check()
    pool.turn(1.9)
    assert served(second, third) == [False, False]
    pool.turn(0.2)
    assert served(second, third) == [True, False]
    assert second.connection is first.connection
    pool.turn(2.0)
    assert served(second, third) == [True, True]
    pool.check()


def test_who_asks_a_moment_before_it_may_begin_is_served(clock):
    # The clock goes on between acquire_nowait() and enqueue().
    pool = Pool(clock)
    origin = pool.origin("a", RateLimiter(1.0))
    pool.finish(used(pool))
    clock.now += 0.9999
    assert origin.acquire_nowait() is None
    clock.now += 0.0002
    waiter = Waiter(pool, origin, shared=False)
    pool.queues[origin] = deque([waiter])
    pool.scheduler.enqueue(origin, waiter)
    assert served(waiter) == [True]
    pool.check()


@pytest.mark.parametrize("shared", [False, True])
def test_who_comes_when_it_may_begin_does_not_overtake_who_waits_for_that(clock, shared):
    pool = Pool(clock, pipelining=2)
    used(pool, pace=RateLimiter(1.0), shared=shared)
    waiter = pool.ask(pool.origin(), shared)
    clock.now += 1.0  # the timer is late
    later = pool.ask(pool.origin(), shared)
    assert served(waiter, later) == [False, False]
    pool.turn(0)
    assert served(waiter, later) == [True, False]


@pytest.mark.parametrize("shared", [False, True])
def test_a_request_may_begin_at_the_moment_itself(clock, shared):
    pool = Pool(clock, pipelining=2)
    used(pool, pace=RateLimiter(1.0), shared=shared)
    origin = pool.origin()
    take = origin.acquire_shared_nowait if shared else origin.acquire_nowait
    clock.now += 0.5
    assert take() is None
    clock.now += 0.5
    assert take() is not None
    assert take() is None


@pytest.mark.parametrize("shared", [False, True])
def test_a_request_that_has_to_wait_for_a_connection_does_not_begin(clock, shared):
    pool = Pool(clock, limit=1)
    user = used(pool, pace=RateLimiter(1.0), shared=shared)
    clock.now += 1.0
    waiter = pool.ask(pool.origin(), shared)
    clock.now += 0.5
    pool.finish(user)
    assert served(waiter) == [True]
    # The request begins now, and no other has begun in the meantime.
    assert pool.origin().rate_limit.delay(clock.now) == 1.0


def test_a_site_that_may_not_begin_yet_costs_no_other_its_connection(clock):
    pool = Pool(clock, limit=2)
    paced = used(pool, "paced", pace=RateLimiter(10.0))
    other = used(pool, "other")
    clock.now += 10.0
    waiters = [pool.ask(pool.origin("paced")), pool.ask(pool.origin("paced"))]
    pool.finish(paced)
    assert served(*waiters) == [True, False]
    # As a waiting origin it would be given a connection that it cannot use.
    pool.finish(other)
    assert pool.closed == []
    assert list(pool.scheduler.idle) == [other.connection]
    pool.check()
    pool.turn(10.0)
    assert served(*waiters) == [True, True]
    assert pool.closed == [other.connection]
    pool.check()


def test_a_pause_ends_the_turn_of_a_site_and_begins_it_anew(clock):
    pool = Pool(clock, limit=1)
    first = used(pool, "a")
    paused, other = pool.ask(pool.origin("b")), pool.ask(pool.origin("c"))
    pool.origin("b").rate_limit = RateLimiter()
    pool.origin("b").rate_limit.pause(clock.now + 5)
    pool.finish(first)
    assert served(paused, other) == [False, True]
    pool.turn(5)
    pool.connect(other.connection)
    pool.finish(other)
    assert served(paused) == [True]
    pool.check()


def test_a_shared_connection_keeps_the_pace(clock):
    pool = Pool(clock, pipelining=4)
    pace = RateLimiter(rate="2/1s")
    users = [used(pool, "a", shared=True, pace=pace) for _ in range(2)]
    assert users[0].connection is users[1].connection
    waiters = [pool.ask(pool.origin("a"), shared=True) for _ in range(4)]
    pool.finish(users[0])
    assert served(*waiters) == [False] * 4
    pool.turn(1.0)
    assert served(*waiters) == [True, True, False, False]
    pool.turn(1.0)
    assert served(*waiters) == [True] * 4
    pool.check()


# ----------------------------------------------------------------------- unused origins


def test_1024_unused_sites_are_remembered(clock):
    pool = Pool(clock)
    kept = pool.origin("kept")
    user = used(pool, "used")
    for n in range(MAX_UNUSED):
        pool.origin(n)
    assert kept.evicted
    assert "kept" not in pool.scheduler.origins
    assert len(pool.scheduler.origins) == MAX_UNUSED + 1
    assert not user.origin.evicted
    pool.check()


def test_the_site_without_use_for_longest_is_forgotten_first(clock, monkeypatch):
    monkeypatch.setattr(module, "MAX_UNUSED", 2)
    pool = Pool(clock)
    a, b = pool.origin("a"), pool.origin("b")
    pool.lose(used(pool, "a").connection)
    c = pool.origin("c")
    assert (a.evicted, b.evicted, c.evicted) == (False, True, False)
    pool.check()


def test_a_site_with_a_pace_is_remembered_until_it_may_begin(clock, monkeypatch):
    monkeypatch.setattr(module, "MAX_UNUSED", 2)
    pool = Pool(clock)
    for n in range(6):
        pool.lose(used(pool, n, pace=RateLimiter(0.5)).connection)
    assert len(pool.scheduler.origins) == 6
    clock.now += 0.5
    for key in "abcd":
        pool.origin(key)
    # The origins that could not be forgotten in time are forgotten now.
    assert list(pool.scheduler.origins) == ["c", "d"]
    pool.check()


def test_making_room_for_a_site_does_not_forget_it(clock, monkeypatch):
    monkeypatch.setattr(module, "MAX_UNUSED", 1)
    pool = Pool(clock, limit=1)
    pool.finish(used(pool, "a"))
    used(pool, "b")  # a is unused now
    assert list(pool.scheduler._unused) == [pool.origin("a")]
    pool.finish(pool.users[next(iter(pool.users))][0])
    used(pool, "a")
    assert not pool.origin("a").evicted
    assert list(pool.scheduler.origins) == ["a", "b"]
    pool.check()


def test_who_has_kept_a_site_that_was_forgotten_can_use_it(clock, monkeypatch):
    monkeypatch.setattr(module, "MAX_UNUSED", 1)
    pool = Pool(clock, limit_per_host=1)
    kept = pool.origin("a")
    pool.origin("b")
    assert kept.evicted
    user = pool.ask(kept)
    assert not kept.evicted
    assert pool.origin("a") is kept
    assert served(pool.ask(pool.origin("a"))) == [False]
    pool.check()
    # A forgotten origin stays evicted if there is another of its key.
    pool.cancel(user)
    pool.cancel(pool.log[-1])
    pool.origin("c")
    assert kept.evicted
    other = pool.origin("a")
    assert served(pool.ask(kept)) == [True]
    assert kept.evicted
    assert pool.origin("a") is other
    pool.check()


# --------------------------------------------------------------------------------- cost


class Mute:
    """A waiter that only keeps its connection."""

    connection: Connection

    def set_result(self, connection: Connection, /) -> None:
        self.connection = connection


class Idler:
    """A delegate that does nothing."""

    def new_connection(self, origin: OriginPool) -> Connection:
        return Connection(origin)

    def close_socket(self, connection: Connection) -> None:
        pass

    wake_later = exchange_ended = connection_ended = close_socket  # type: ignore[assignment]


def waiters(n: int) -> Any:
    """Let *n* requests wait; a step serves one, enqueues two, and cancels one of these."""
    pool = Scheduler(Idler(), 1, 1)
    origin = pool.add_origin("a")
    connection = origin.acquire_nowait()
    for _ in range(n):
        pool.enqueue(origin, Mute())

    def step() -> None:
        pool.release(connection)
        first = Mute()
        pool.enqueue(origin, first)
        pool.enqueue(origin, Mute())
        pool.cancel(origin, first)

    return step


def idle_connections(n: int) -> Any:
    """Let *n* origins have an idle one; a step acquires one for another origin, and releases it."""
    pool = Scheduler(Idler(), n, 1)
    origins = [pool.add_origin(key) for key in range(n)]
    for connection in [origin.acquire_nowait() for origin in origins]:
        pool.release(connection)
    another = pool.add_origin("another")
    turn = itertools.cycle(origins)

    def step() -> None:
        pool.release(another.acquire_nowait())
        pool.close_idle(next(iter(another.idle)))
        pool.release(next(turn).acquire_nowait())

    return step


def turns(n: int) -> Any:
    """Let *n* origins wait for one connection; a step passes it on, and its origin waits again."""
    pool = Scheduler(Idler(), 1, 1)
    origins = [pool.add_origin(key) for key in range(n)]
    current = [origins[0].acquire_nowait()]
    queue = deque()
    for origin in origins[1:]:
        queue.append(Mute())
        pool.enqueue(origin, queue[-1])

    def step() -> None:
        connection = current[0]
        queue.append(Mute())
        pool.release(connection)
        current[0] = queue.popleft().connection
        pool.enqueue(connection.origin_pool, queue[-1])

    return step


def unused_sites(n: int) -> Any:
    """Let *n* origins be remembered, the maximum; a step adds one and forgets one."""
    pool = Scheduler(Idler(), n, 1)
    keys = itertools.count()
    for _ in range(n):
        pool.add_origin(next(keys))
    return lambda: pool.add_origin(next(keys))


def shared_connections(n: int) -> Any:
    """Let *n* connections have room for one more exchange; a step fills one of them."""
    pool = Scheduler(Idler(), n, n)
    origin = pool.add_origin("a")
    origin.pipelining = 2
    for connection in [origin.acquire_nowait() for _ in range(n)]:
        connection.in_flight = 1
        pool.share(connection)
    for _ in range(n // 3):
        origin.acquire_shared_nowait()
    return origin.acquire_shared_nowait


@pytest.mark.parametrize(
    "made", [waiters, idle_connections, turns, unused_sites, shared_connections]
)
def test_the_cost_does_not_grow_with_what_there_is(made, monkeypatch):
    def cost(n: int) -> float:
        monkeypatch.setattr(module, "MAX_UNUSED", n)
        return min(timeit.repeat(made(n), timer=time.thread_time, number=10, repeat=20))

    # There is a hundred times as much, and memory that is not in a cache is slower.
    assert cost(30_000) < 8 * cost(300)


# ------------------------------------------------------------ all steps in random order

LIMITS = st.one_of(st.integers(1, 3), st.integers(1, 6), st.integers(16, 32), st.just(inf))
LIMITS_PER_HOST = st.one_of(st.integers(1, 4), st.just(inf))
MAX_IDLE = st.one_of(st.integers(0, 3), st.just(inf))
KEPT = st.integers(0, 3).map(lambda n: n == 3)
PACES = st.sampled_from([None, None, (1.0, None), (None, "2/3s"), (0.5, "3/4s"), (None, None)])


class Books(RuleBasedStateMachine):
    """Users come, finish, fail and give up, and time passes; each step checks the scheduler."""

    MAX_UNUSED = 2

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.clock = Clock()
        self.patch.setattr(module, "monotonic", self.clock)
        self.patch.setattr(module, "MAX_UNUSED", self.MAX_UNUSED)
        self.pool = Pool(self.clock)
        self.kept: dict[int, OriginPool] = {}

    def teardown(self) -> None:
        self.patch.undo()

    @initialize(
        limit=LIMITS,
        limit_per_host=LIMITS_PER_HOST,
        max_idle=MAX_IDLE,
        pipelining=st.integers(1, 3),
        max_exchanges=st.sampled_from([inf, inf, 1, 4]),
        paces=st.lists(PACES, min_size=5, max_size=5),
        shared_out=st.booleans(),
    )
    def begin(self, limit, limit_per_host, max_idle, pipelining, max_exchanges, paces, shared_out):
        self.pool = Pool(
            self.clock, limit, limit_per_host, max_idle, pipelining, max_exchanges, shared_out
        )
        self.paces = paces

    def pick(self, data: st.DataObject, things: Any) -> Any:
        return data.draw(st.sampled_from(list(things)))

    @rule(number=st.integers(0, 4), shared=st.booleans(), times=st.integers(1, 9), kept=KEPT)
    def ask(self, number, shared, times, kept):
        pace = self.paces[number]
        if not kept or number not in self.kept:
            self.kept[number] = self.pool.origin(number, pace and RateLimiter(*pace))
        for _ in range(times):
            self.pool.ask(self.kept[number], shared and self.pool.pipelining > 1)

    @precondition(lambda self: any(not connection.connected for connection in self.pool.users))
    @rule(data=st.data())
    def connect(self, data):
        self.pool.connect(
            self.pick(
                data, [connection for connection in self.pool.users if not connection.connected]
            )
        )

    @precondition(lambda self: any(connection.connected for connection in self.pool.users))
    @rule(data=st.data())
    def finish(self, data):
        connection = self.pick(
            data, [connection for connection in self.pool.users if connection.connected]
        )
        # Responses come in order.
        self.pool.finish(self.pool.users[connection][0])

    @precondition(lambda self: self.pool.users)
    @rule(data=st.data())
    def cancel_what_was_granted(self, data):
        self.pool.cancel(self.pick(data, self.pool.users[self.pick(data, self.pool.users)]))

    @precondition(lambda self: any(self.pool.queues.values()))
    @rule(data=st.data())
    def cancel(self, data):
        waiting = [waiter for queue in self.pool.queues.values() for waiter in queue]
        self.pool.cancel(self.pick(data, waiting))

    @precondition(lambda self: self.pool.scheduler.connections)
    @rule(data=st.data())
    def lose(self, data):
        self.pool.lose(self.pick(data, [*self.pool.users, *self.pool.scheduler.idle]))

    @precondition(lambda self: self.pool.users)
    @rule(data=st.data())
    def lose_before_use(self, data):
        users = self.pool.users[self.pick(data, self.pool.users)]
        self.pool.lose_unused(self.pick(data, users))

    @precondition(lambda self: self.pool.scheduler.idle)
    @rule(data=st.data())
    def close_idle(self, data):
        self.pool.scheduler.close_idle(self.pick(data, self.pool.scheduler.idle))

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 10.0]))
    def wait(self, seconds):
        self.pool.turn(seconds)

    @rule()
    def run_on(self):
        self.pool.run_on()

    @rule(number=st.integers(0, 4), seconds=st.sampled_from([0.5, 5.0]))
    def pause(self, number, seconds):
        origin = self.pool.scheduler.origins.get(number)
        if origin is not None:
            origin.rate_limit = origin.rate_limit or RateLimiter()
            origin.rate_limit.pause(self.clock.now + seconds)

    @invariant()
    def holds(self):
        self.pool.check()


def test_the_books_are_right_whatever_happens():
    run_state_machine_as_test(Books)
