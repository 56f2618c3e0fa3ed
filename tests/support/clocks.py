"""Clocks that a test owns, for the timers of the package and of ``asyncio.timeout`` in its loop.

    with Clock() as clock:
        ...
        clock.advance(15)                       # fires the timers that are due, without a sleep

All other timers (those of the kit's servers, ``call_later`` and ``sleep`` of the test) keep real
time. The fixture ``ticking`` is a ``TickingClock``, for a test in which a short limit expires, and
``ticking_loops()`` is for programs that run loops of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any, Self

import pytest

try:
    import uvloop
except ImportError:
    uvloop = None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Clock", "Now", "TickingClock", "ticking_loops"]

PACKAGE = "aiohttpconn."
KIT = "aiohttpconn.testing."

TICK = 0.001
"""Seconds between two ticks of a ``TickingClock``, of its own time and at least of real time."""

TURNS_PER_TICK = 10
"""Turns of the loop between two ticks: a limit of 20 ms is 200 turns, a TLS handshake some 10."""


def _is_ours(module: str | None) -> bool:
    if module == "asyncio.timeouts":
        return True
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
        self.start(asyncio.get_running_loop())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop: Any = loop
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

    def stop(self) -> None:
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


class TickingClock(Clock):
    """A clock that goes on by ``TICK`` as the loop turns, so that no limit depends on real time.

    Time passes by itself, and stands while the process does not run: however late a busy machine
    is, everything that is ready comes before the end of a limit.
    """

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        super().start(loop)
        self._ticked = time.monotonic()
        self._told = self.now
        self._turn(TURNS_PER_TICK)

    def stop(self) -> None:
        self._next.cancel()
        super().stop()

    async def sleep(self, seconds: float) -> None:
        """Return when *seconds* of this clock have passed."""
        over = asyncio.Event()
        self._timers.append(Timer(self.now + seconds, over.set, ()))
        await over.wait()

    def _turn(self, left: int) -> None:
        if left:
            self._next = self._loop.call_soon(self._turn, left - 1)
        else:
            self._next = self._loop.call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._turn(TURNS_PER_TICK)
        self._ticked = time.monotonic()
        self.advance(TICK)

    def _monotonic(self) -> float:
        # Between two ticks, for all that measures: some time passes, and less than a tick.
        passed = time.monotonic() - self._ticked
        self._told = max(self._told, self.now + TICK * passed / (passed + TICK))
        return self._told


@contextlib.contextmanager
def ticking_loops() -> Iterator[None]:
    """Give each event loop that is made in this block a ``TickingClock``, until it is closed."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (asyncio, asyncio.events, uvloop):
            if module is not None:
                patch.setattr(module, "new_event_loop", _ticking(module.new_event_loop))
        yield


def _ticking(make_loop: Callable[[], Any]) -> Callable[[], Any]:
    def new_event_loop() -> Any:
        loop = make_loop()
        clock = TickingClock()

        def close() -> None:
            if not loop.is_closed():
                clock.stop()
            loop_close()

        loop_close, loop.close = loop.close, close
        clock.start(loop)
        return loop

    return new_event_loop
