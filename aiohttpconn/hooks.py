"""Hooks: the functions that callers give, and what becomes of their results.

Some are awaited if they return an awaitable, as a coroutine function does. The results of others
are needed at once. Called without ``await``, a coroutine function has done nothing, and a coroutine
is true, so that a hook that vetoes would veto nothing. So these refuse it: with the function where
it is given, if it shows there, and with the result otherwise. A generator function, whose call runs
nothing either, is never a hook. Pure. Layer: the lowest.
"""

from __future__ import annotations

import functools
from inspect import (
    isasyncgen,
    isasyncgenfunction,
    isawaitable,
    iscoroutinefunction,
    isgenerator,
    isgeneratorfunction,
)
from typing import Any, TypeVar

__all__ = ["at_once", "awaited", "check_hook", "has_run"]

T = TypeVar("T")


def check_hook(name: str, function: Any, *, may_await: bool) -> None:
    """Raise ``TypeError`` if a call of *function* only makes something that is still to be run.

    *may_await*: whether its result is awaited.
    """
    while isinstance(function, functools.partial):
        function = function.func
    for called in (function, type(function).__call__):
        if isgeneratorfunction(called) or isasyncgenfunction(called):
            raise TypeError(f"{name} must be a function, not a generator function: none of it runs")
        if iscoroutinefunction(called) and not may_await:
            raise TypeError(
                f"{name} must be a function that is not async: its result is needed at once"
            )


def at_once(name: str, result: T) -> T:
    """Return *result* of the hook *name*; raise ``TypeError`` if it is still to be awaited."""
    if isawaitable(result):
        kind = type(result).__name__
        if hasattr(result, "close"):
            result.close()  # it has not begun, and would warn
        raise TypeError(f"{name} returned a {kind}, but its result is needed at once: not async")
    return has_run(name, result)


async def awaited(name: str, result: Any) -> Any:
    """Return *result* of the hook *name*, awaited if need be. Raises as ``has_run``."""
    return has_run(name, await result if isawaitable(result) else result)


def has_run(name: str, result: T) -> T:
    """Return *result* of the hook *name*; raise ``TypeError`` for a generator: nothing has run."""
    if isgenerator(result) or isasyncgen(result):
        raise TypeError(f"{name} returned a generator, and has done nothing")
    return result
