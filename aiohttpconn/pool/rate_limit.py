"""How often requests to one origin may begin: an interval, a rate, a pause. Layer: pool."""

from __future__ import annotations

import re
import time
from collections import deque
from datetime import UTC
from math import inf

from ..http11.grammar import DIGITS

__all__ = ["RateLimiter", "retry_after"]

_RATE = re.compile(r"([0-9]{1,6}+)\s*+/\s*+([0-9]{0,6}+(?:\.[0-9]{1,6}+)?)\s*+(s|m|h)")
_SECONDS_ASKED = re.compile(rf"{DIGITS.pattern}(?:\.{DIGITS.pattern})?")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_rate(rate: str) -> tuple[int, float]:
    """Return (requests, seconds) of a rate such as "10/s", "100/m", "1000/h" or "5/2s".

    Raises ``ValueError`` for anything else.
    """
    match = _RATE.fullmatch(str(rate))
    if match is None or not int(match[1]) or (match[2] and not float(match[2])):
        raise ValueError(f'rate must be like "10/s", "100/m", "1000/h" or "5/2s", got {rate!r}')
    return int(match[1]), float(match[2] or 1) * _SECONDS[match[3]]


class RateLimiter:
    """The moments at which requests may begin. Times are seconds of one clock, the caller's.

    *min_interval*: seconds from one beginning to the next. *rate*: see ``parse_rate``; no more
    requests begin in any such period, however they are spread. Raises ``ValueError``.
    """

    __slots__ = ("_count", "_interval", "_last", "_paused_until", "_period", "_recent")

    def __init__(self, min_interval: float | None = None, rate: str | None = None) -> None:
        if min_interval is not None and not 0 <= min_interval < inf:
            raise ValueError(f"min_interval must be 0 seconds or more, got {min_interval!r}")
        self._interval = min_interval or 0.0
        self._count, self._period = parse_rate(rate) if rate is not None else (0, 0.0)
        self._recent: deque[float] = deque(maxlen=self._count)
        self._last = -inf
        self._paused_until = -inf

    def delay(self, now: float) -> float:
        """Return the seconds until the next request may begin; 0.0 or less if it may now."""
        moment = max(self._last + self._interval, self._paused_until)
        recent = self._recent
        if self._count and len(recent) == self._count:
            moment = max(moment, recent[0] + self._period)
        return moment - now

    def begin(self, now: float) -> None:
        """Count a request that begins at *now*."""
        self._last = now
        if self._count:
            self._recent.append(now)

    def pause(self, until: float) -> None:
        """Let no request begin before *until*."""
        self._paused_until = max(self._paused_until, until)


def retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After asks for (RFC 9110 §10.2.3), None if it is invalid.

    Servers that count in milliseconds send fractions, which the RFC does not have.
    """
    if not value:
        return None
    value = value.strip(" \t")
    if _SECONDS_ASKED.fullmatch(value):
        return float(value)
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:
            # RFC 9110 §5.6.7: a date without a zone, as asctime() writes it, is UTC, too.
            date = date.replace(tzinfo=UTC)
        return max(date.timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
