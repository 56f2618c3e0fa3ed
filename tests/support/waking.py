"""Run an action at the moment when a task is woken, before its code goes on."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

__all__ = ["on_wake"]


@types.coroutine
def on_wake(awaitable: Awaitable[Any], action: Callable[[], object]) -> Generator[Any, Any, Any]:
    """Await *awaitable*; call *action* each time that a future for which it waits is done."""
    steps = awaitable.__await__()
    future = steps.send(None)
    while True:
        try:
            value = yield future
        except BaseException as exc:
            resume, argument = steps.throw, exc
        else:
            action()
            resume, argument = steps.send, value
        try:
            future = resume(argument)
        except StopIteration as stop:
            return stop.value
