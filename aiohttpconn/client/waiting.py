"""Waiting for code of others within the total time of a request. Layer: client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..exceptions import TotalTimeout

__all__ = ["within"]

T = TypeVar("T")


async def within(
    deadline: float | None, late: Callable[[], TotalTimeout], waiting: Awaitable[T]
) -> T:
    """Return the result of *waiting*; raise *late* ``()`` if it has not ended by *deadline*.

    *deadline* is a time of the loop's clock, None for no limit. *waiting* is cancelled then.
    """
    limit = asyncio.timeout_at(deadline)
    failed = False
    try:
        async with limit:
            try:
                return await waiting
            except Exception:
                failed = True
                raise
    except TimeoutError:
        if failed or not limit.expired():
            raise  # the other code's own
    raise late()
