"""Threads for calls that cannot be interrupted: ``getaddrinfo``, files. Layer: net.

``DaemonThreads`` is an executor that neither a program that ends nor a loop that closes has to
wait for. Its users decide which calls it makes, and which code gets the results. ``in_thread``
makes those that read and write files.

The loop's own executor is the program's: if that has filled it, nothing of this package may wait.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

__all__ = ["DaemonThreads", "in_thread"]

FILE_THREADS = 16
"""Concurrent reads and writes of files while they are quick."""

FILE_CROWD = 32
"""Factor by which the threads may grow while they hang: a FIFO may have no writer for hours."""

PATIENCE = 0.2
"""Seconds that a call waits for a thread before it gets one beyond the usual number: far more
than a call takes that does not hang, and little for a caller behind a dead name in the queue."""

IDLE_TIME = 0.2
"""Seconds that a thread waits for another call before it ends. Starting a thread costs 0.15 ms. If
calls are rarer than this, that is less than a thousandth of a core; if they are not, it would be
more than half of a lookup (benchmarks/micro/resolver_threads.py)."""

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreads(ThreadPoolExecutor):
    """Run calls in daemon threads, which are started when needed and end when idle.

    *max_workers*: threads while calls are quick. *limit*: threads while calls hang: if fewer are
    busy, no call waits for a thread longer than *patience* seconds. *limit* is *max_workers* by
    default. Calls begin in the order of ``submit()``; their queue has no bound.

    Many threads and event loops may use it, and a forked child, where it begins anew. It is a
    ``ThreadPoolExecutor`` because ``loop.set_default_executor`` accepts no other executor, but
    the interpreter does not join these threads at exit, and ``shutdown()`` waits for nothing.
    Raises ``ValueError`` for fewer than one worker, or a *limit* below *max_workers*.
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
        # Per process: a forked child inherits the counts, but not the threads.
        self._pid = os.getpid()
        self._changed = threading.Condition(threading.Lock())  # guards the fields below
        self._calls: deque[_Call] = deque()
        self._workers = 0  # threads that take calls
        self._idle = 0  # workers that wait for a call
        self._is_watched = False  # whether a thread waits for the oldest call to be late

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call ``fn(*args, **kwargs)`` in a thread; return the future of its result.

        Raises ``RuntimeError`` after ``shutdown()``, and if there is no thread and none can be
        started.
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
        """Take no more calls, and wait for nothing, whatever *wait* and *cancel_futures* are.

        Calls that have not begun are cancelled. The futures of calls under way never end: a loop
        that closes is gone by then. ``ThreadPoolExecutor.shutdown`` would wait for these calls.
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
            return  # the existing threads go on; the next call tries again
        self._is_watched = True

    def _watch(self) -> None:
        """Run the oldest call when it is late, then go on as a worker."""
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
    """One call, and the time since which it has waited."""

    __slots__ = ("future", "since", "work")

    def __init__(self, future: Future[Any], work: Callable[[], Any]) -> None:
        self.future = future
        self.work = work
        self.since = time.monotonic()


# It starts no thread before it needs one.
_files = DaemonThreads(FILE_THREADS, limit=FILE_THREADS * FILE_CROWD)


def in_thread(function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
    """Call *function*, which uses a file, in a daemon thread; return the future of its result."""
    return asyncio.get_running_loop().run_in_executor(_files, function, *arguments)


def _start(target: Callable[[], None]) -> None:
    threading.Thread(target=target, name="aiohttpconn", daemon=True).start()
