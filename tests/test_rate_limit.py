"""pool/rate_limit.py: intervals, rates and pauses, by a clock of the test's."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttpconn.pool.rate_limit import RateLimiter, parse_rate


@pytest.mark.parametrize(
    ("rate", "parsed"),
    [
        ("10/s", (10, 1.0)),
        ("100/m", (100, 60.0)),
        ("1000/h", (1000, 3600.0)),
        ("5/2s", (5, 2.0)),
        ("5/0.5s", (5, 0.5)),
        ("5/.5s", (5, 0.5)),
        ("1/1.5m", (1, 90.0)),
        ("10 / 2s", (10, 2.0)),
        ("999999/999999h", (999999, 3_599_996_400.0)),
        ("007/s", (7, 1.0)),
    ],
)
def test_a_rate_is_requests_in_a_period(rate, parsed):
    assert parse_rate(rate) == parsed


@pytest.mark.parametrize(
    "rate",
    [
        "",
        "10",
        "/s",
        "10/",
        "s/10",
        "0/s",
        "00/s",
        "10/0s",
        "10/0.0s",
        "10/.s",
        "10/1.s",
        "-1/s",
        "+1/s",
        "1.5/s",
        "1e3/s",
        "1_0/s",
        "٣/s",
        "10/d",
        "10/S",
        "10/ms",
        "10/s ",
        " 10/s",
        "10/s\n",
        "10/s/s",
        "1000000/s",
        "10/1000000s",
        "inf/s",
        10,
        10.0,
        b"10/s",
        (10, 1),
    ],
)
def test_another_rate_is_refused(rate):
    for refuse in (parse_rate, lambda rate: RateLimiter(rate=rate)):
        with pytest.raises(ValueError, match="rate") as info:
            refuse(rate)
        assert str(info.value) == (
            f'rate must be like "10/s", "100/m", "1000/h" or "5/2s", got {rate!r}'
        )


@pytest.mark.parametrize("interval", [-1, -0.001, math.nan, math.inf])
def test_another_interval_is_refused(interval):
    with pytest.raises(ValueError, match="min_interval") as info:
        RateLimiter(interval)
    assert str(info.value) == f"min_interval must be 0 seconds or more, got {interval!r}"


@pytest.mark.parametrize("pace", [RateLimiter(), RateLimiter(0), RateLimiter(0.0)])
def test_without_limits_a_request_may_begin_at_any_time(pace):
    for now in (0.0, 5.0, 5.0, 5.0, 1e9):
        assert pace.delay(now) <= 0
        pace.begin(now)


def test_the_first_request_may_begin_at_any_time():
    for pace in (RateLimiter(10), RateLimiter(rate="1/h"), RateLimiter(10, "1/h")):
        assert pace.delay(-1e9) <= 0
        assert pace.delay(0.0) <= 0


def test_an_interval_is_from_one_beginning_to_the_next():
    pace = RateLimiter(2)
    pace.begin(10.0)
    assert [pace.delay(now) for now in (10.0, 11.5, 12.0, 13.0)] == [2.0, 0.5, 0.0, -1.0]
    pace.begin(13.0)
    assert pace.delay(13.0) == 2.0


def test_a_rate_allows_a_burst_and_no_more_in_any_period():
    pace = RateLimiter(rate="3/10s")
    for now in (100.0, 100.0, 104.0):
        assert pace.delay(now) <= 0
        pace.begin(now)
    assert [pace.delay(now) for now in (104.0, 109.0, 110.0)] == [6.0, 1.0, 0.0]
    pace.begin(110.0)
    # The second one's period has ended, too; the third one's has not.
    assert pace.delay(110.0) == 0.0
    pace.begin(110.0)
    assert pace.delay(110.0) == 4.0


def test_the_longest_wait_counts():
    pace = RateLimiter(1, "2/10s")
    pace.begin(0.0)
    assert pace.delay(0.0) == 1.0
    pace.begin(1.0)
    assert pace.delay(1.0) == 9.0
    pace.pause(20.0)
    assert pace.delay(1.0) == 19.0
    assert pace.delay(20.0) == 0.0


def test_the_longest_pause_counts():
    pace = RateLimiter()
    pace.pause(20.0)
    pace.pause(10.0)
    assert pace.delay(5.0) == 15.0
    pace.pause(30.0)
    assert pace.delay(5.0) == 25.0
    assert pace.delay(30.0) == 0.0


def test_a_pace_holds_no_more_than_its_rate_needs():
    pace = RateLimiter(rate="4/s")
    for now in range(1000):
        pace.begin(now)
    assert len(pace._recent) == 4


STEPS = st.lists(
    st.tuples(
        st.floats(0, 5),
        st.one_of(st.none(), st.floats(0, 5)),
    ),
    max_size=40,
)


@given(
    st.one_of(st.none(), st.floats(0, 3)),
    st.integers(1, 4),
    st.sampled_from(["s", "2s", "0.3s", "0.05m"]),
    STEPS,
    st.sampled_from([0.0, 1e9]),
)
def test_whenever_requests_come_no_limit_is_passed_and_none_waits_in_vain(
    interval, count, period, steps, now
):
    pace = RateLimiter(interval, f"{count}/{period}")
    seconds = parse_rate(f"{count}/{period}")[1]
    begun: list[float] = []
    paused = -math.inf
    for idle, pause in steps:
        now += idle
        if pause is not None:
            paused = max(paused, now + pause)
            pace.pause(now + pause)
        delay = pace.delay(now)
        earliest = max(
            paused,
            begun[-1] + (interval or 0) if begun else -math.inf,
            begun[-count] + seconds if len(begun) >= count else -math.inf,
        )
        assert (delay <= 0) == (now >= earliest)
        if delay > 0:
            # As a timer does: not before, and rounded by what a clock can tell.
            now = max(now + delay, earliest)
            assert pace.delay(now) <= 0
        pace.begin(now)
        begun.append(now)
        assert now >= paused
    for sooner, later in itertools.pairwise(begun):
        assert later >= sooner + (interval or 0)
    for first, beyond in zip(begun, begun[count:], strict=False):
        assert beyond >= first + seconds
