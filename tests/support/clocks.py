"""A clock that the test owns, for all of the package's timers in the running loop.

    with Clock() as clock:
        ...
        clock.advance(15)                       # fires the timers that are due, without a sleep

All other timers (the test's own, asyncio's, those of the kit's servers) keep real time.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Clock", "Now"]

PACKAGE = "aiohttpconn."
KIT = "aiohttpconn.testing."


def _is_ours(module: str | None) -> bool:
    return module is not None and module.startswith(PACKAGE) and not module.startswith(KIT)


class Timer:
    """The handle that ``call_at`` returns."""

    def __init__(self, when: float, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.when = when
        self.callback = callback
        self.args = args
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Now:
    """A clock for one module, without a loop: its ``monotonic`` replaces the module's."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Clock:
    """``now`` is the time that ``time.monotonic`` and the loop's ``time`` tell the package."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self._timers: list[Timer] = []
        self._patched: list[Any] = []

    @property
    def timers(self) -> list[Timer]:
        """The timers that have neither fired nor been cancelled."""
        self._timers = [timer for timer in self._timers if not timer.cancelled]
        return self._timers

    def __enter__(self) -> Self:
        self._loop: Any = asyncio.get_running_loop()
        self._real_time = self._loop.time
        self._real_call_at = self._loop.call_at
        if not isinstance(self._loop, asyncio.BaseEventLoop):
            # uvloop's call_at() calls call_later(), and asyncio's the other way round.
            call_later = self._loop.call_later
            self._real_call_at = lambda when, *args, context: call_later(
                when - self._real_time(), *args, context=context
            )
        for name, module in list(sys.modules.items()):
            if _is_ours(name) and getattr(module, "monotonic", None) is time.monotonic:
                module.monotonic = self._monotonic  # type: ignore[attr-defined]
                self._patched.append(module)
        self._loop.time = self._time
        self._loop.call_at = self._call_at
        self._loop.call_later = self._call_later
        return self

    def __exit__(self, *exc_info: object) -> None:
        del self._loop.time, self._loop.call_at, self._loop.call_later
        for module in self._patched:
            module.monotonic = time.monotonic

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass, and call the timers that are due on the way, in order."""
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.when <= end]:
            timer = min(due, key=lambda each: each.when)
            timer.cancel()
            self.now = max(self.now, timer.when)
            timer.callback(*timer.args)
        self.now = end

    def _monotonic(self) -> float:
        return self.now

    def _time(self) -> float:
        caller = sys._getframe(1).f_globals.get("__name__")
        return self.now if _is_ours(caller) else float(self._real_time())

    def _call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        if not _is_ours(getattr(callback, "__module__", None)):
            return self._real_call_at(when, callback, *args, context=context)
        timer = Timer(when, callback, args)
        self._timers.append(timer)
        return timer

    def _call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        now = self.now if _is_ours(getattr(callback, "__module__", None)) else self._real_time()
        return self._call_at(now + delay, callback, *args, context=context)
