"""Threads for calls that cannot be interrupted, ``getaddrinfo`` above all. Layer: net.

``DaemonThreads`` is an executor that nobody has to wait for: not a program that ends, not a loop
that closes. What is called there, and who is told of the result, is its users' business.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

__all__ = ["DaemonThreads"]

PATIENCE = 0.2
"""Seconds that a call waits for a thread before it gets one beyond the usual number: far more
than a call that does not hang takes, and hardly felt by who has waited for a dead name's turn."""

IDLE_TIME = 0.2
"""Seconds that a thread waits for another call before it ends. To start one costs 0.15 ms: where
calls are rarer than this, that is less than a thousandth of a core. Where they are not, it would
be more than half of a lookup (benchmarks/micro/resolver_threads.py)."""

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreads(ThreadPoolExecutor):
    """Run calls in daemon threads, which are started when needed and end when idle.

    *max_workers*: threads for calls that are quick. *limit*: threads for calls that hang: while
    fewer than so many are busy, no call waits for one longer than *patience* seconds. By default
    it is *max_workers*. Calls begin in the order of ``submit()``; their queue has no bound.

    It may be used by many threads and event loops, and in a forked child, which begins anew. It
    is a ``ThreadPoolExecutor`` because ``loop.set_default_executor`` takes no other; but the
    interpreter does not join these threads at exit, and ``shutdown()`` waits for nothing. Raises
    ``ValueError`` for fewer than one worker, or a *limit* below *max_workers*.
    """

    def __init__(
        self, max_workers: int, *, limit: int | None = None, patience: float = PATIENCE
    ) -> None:
        super().__init__(max_workers)
        if limit is not None and limit < max_workers:
            raise ValueError(f"limit must be at least max_workers, {max_workers}, got {limit}")
        # Configuration
        self._usual = max_workers
        self._limit = max_workers if limit is None else limit
        self._patience = patience
        self._is_over = False
        self._begin()

    def _begin(self) -> None:
        # Per process: a forked child has the counts, but not the threads.
        self._pid = os.getpid()
        self._changed = threading.Condition(threading.Lock())  # guards what follows
        self._calls: deque[_Call] = deque()
        self._workers = 0  # threads that take calls,
        self._idle = 0  # those among them that wait for one,
        self._is_watched = False  # and whether there is one that waits for a call to be late

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call ``fn(*args, **kwargs)`` in a thread; return the future of its result.

        Raises ``RuntimeError`` after ``shutdown()``, and where no thread can be started though
        none is there.
        """
        if self._pid != os.getpid():
            self._begin()
        future: Future[T] = Future()
        call = _Call(future, lambda: fn(*args, **kwargs))
        with self._changed:
            if self._is_over:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._calls.append(call)
            if len(self._calls) <= self._idle:
                self._changed.notify()
            elif self._workers < self._usual:
                self._workers += 1
                try:
                    _start(self._work)
                except Exception:
                    self._workers -= 1
                    if not self._workers:
                        self._calls.remove(call)
                        raise
            else:
                self._watch_calls()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and wait for nothing, whatever *wait* and *cancel_futures* say.

        What has not begun is cancelled. The futures of calls under way never end: a loop that
        closes is gone by then. ``ThreadPoolExecutor.shutdown`` would wait for these calls.
        """
        with self._changed:
            self._is_over = True
            calls = list(self._calls)
            self._calls.clear()
            self._changed.notify_all()
        for call in calls:
            call.future.cancel()

    def _watch_calls(self) -> None:
        """Have a thread wait for the oldest call to be late. Called with the lock held."""
        if self._is_watched or not self._calls or self._workers >= self._limit:
            return
        try:
            _start(self._watch)
        except Exception:
            return  # those that are there go on; the next call tries again
        self._is_watched = True

    def _watch(self) -> None:
        """Take the oldest call when it is late, and be a worker from then on."""
        while True:
            with self._changed:
                if not self._calls:
                    self._is_watched = False
                    return
                late = self._calls[0].since + self._patience - time.monotonic()
                if late <= 0:
                    call = self._calls.popleft()
                    self._workers += 1
                    self._is_watched = False
                    self._watch_calls()
                    break
            time.sleep(late)
        self._run(call)
        del call
        self._work()

    def _work(self) -> None:
        """Run calls until there are none for ``IDLE_TIME``."""
        while True:
            with self._changed:
                if not self._calls and not self._is_over:
                    self._idle += 1
                    self._changed.wait(IDLE_TIME)
                    self._idle -= 1
                if not self._calls:
                    self._workers -= 1
                    return
                call = self._calls.popleft()
            self._run(call)
            del call  # a result is not kept until the next call

    def _run(self, call: _Call) -> None:
        if not call.future.set_running_or_notify_cancel():
            return
        try:
            result = call.work()
        except BaseException as exc:
            if not self._is_over:
                call.future.set_exception(exc)
            del call  # a cycle: future, exception, traceback, and this frame
        else:
            if not self._is_over:
                call.future.set_result(result)


class _Call:
    """One call, and since when it waits."""

    __slots__ = ("future", "since", "work")

    def __init__(self, future: Future[Any], work: Callable[[], Any]) -> None:
        self.future = future
        self.work = work
        self.since = time.monotonic()


def _start(target: Callable[[], None]) -> None:
    threading.Thread(target=target, name="aiohttpconn", daemon=True).start()
