"""Statistics of a pool: how many connections it has, and how many requests wait. Layer: pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .scheduler import Scheduler

__all__ = ["OriginStats", "PoolStats", "pool_stats"]


@dataclass(frozen=True, slots=True)
class OriginStats:
    """Connections of one route to one origin, and the requests that wait for one."""

    open: int
    idle: int
    leased: int
    queued: int


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Connections of a pool: ``open`` are ``idle`` or ``leased``; ``queued`` requests wait.

    ``origins``: the same for each origin that has any, by its URL, followed by " via " and the
    proxy if there is one.
    """

    open: int
    idle: int
    leased: int
    queued: int
    origins: Mapping[str, OriginStats]


def pool_stats(scheduler: Scheduler) -> PoolStats:
    """Return the numbers of connections and of waiting requests, in all and by origin."""
    origins = {
        f"{origin.key.origin}{f' via {origin.key.proxy}' if origin.key.proxy else ''}": OriginStats(
            origin.connection_count,
            len(origin.idle),
            origin.connection_count - len(origin.idle),
            len(origin.waiters),
        )
        for origin in scheduler.origins.values()
        if origin.connection_count or origin.waiters
    }
    count, idle = scheduler.connection_count, len(scheduler.idle)
    return PoolStats(count, idle, count - idle, scheduler.queued, origins)
