"""net/threads.py: threads are started when needed, end when idle, and nobody waits for them."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import CancelledError, Future

import pytest

from aiohttpconn.net import threads as module
from aiohttpconn.net.threads import DaemonThreads

SOON = 60
"""Seconds until a test that hangs fails."""


class Calls:
    """Calls that hang until they are let go; says how many have begun."""

    def __init__(self, executor: DaemonThreads) -> None:
        self.executor = executor
        self.gate = threading.Event()
        self.begun: list[int] = []
        self.threads: set[threading.Thread] = set()
        self.changed = threading.Condition()
        self.futures: list[Future[int]] = []

    def add(self, count: int = 1) -> None:
        for _ in range(count):
            self.futures.append(self.executor.submit(self._hang, len(self.futures)))

    def _hang(self, number: int) -> int:
        with self.changed:
            self.begun.append(number)
            self.threads.add(threading.current_thread())
            self.changed.notify_all()
        assert self.gate.wait(SOON)
        return number

    def wait_begun(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.begun) >= count, SOON)
            assert len(self.begun) == count

    def finish(self) -> list[int]:
        """Let all calls go; return their results, when all threads have ended."""
        self.gate.set()
        results = [future.result(SOON) for future in self.futures]
        for thread in self.threads:
            thread.join(SOON)
            assert not thread.is_alive()
        return results


@pytest.fixture(autouse=True)
def _no_idling(monkeypatch):
    monkeypatch.setattr(module, "IDLE_TIME", 0.001)


class Clock:
    """The time of the module under test, which moves when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.changed = threading.Condition()
        self.sleeps: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self.changed:
            until = self.now + seconds
            self.sleeps.append(seconds)
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: self.now >= until, SOON)

    def wait_asleep(self) -> float:
        """Return for how many seconds a thread sleeps, as soon as one does since the last call."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.sleeps, SOON)
            return self.sleeps.pop(0)

    def move(self, seconds: float) -> None:
        with self.changed:
            self.now += seconds
            self.changed.notify_all()


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    yield clock
    clock.move(1e9)


def work_done(executor: DaemonThreads, fn=lambda: 1, *args):
    return executor.submit(fn, *args).result(SOON)


def wait_idle(executor: DaemonThreads) -> None:
    """Wait until a thread that has given its result waits for another call."""
    while True:
        with executor._changed:
            if executor._idle:
                return


# What an executor does


def test_returns_and_raises_what_the_call_does():
    executor = DaemonThreads(2)
    assert executor.submit(divmod, 7, 2).result(SOON) == (3, 1)
    assert executor.submit(int, "11", base=2).result(SOON) == 3
    with pytest.raises(ZeroDivisionError):
        executor.submit(divmod, 7, 0).result(SOON)
    assert list(executor.map(abs, [-1, -2, -3])) == [1, 2, 3]


def test_threads_are_daemons_and_made_when_needed():
    before = set(threading.enumerate())
    executor = DaemonThreads(2)
    assert set(threading.enumerate()) <= before
    assert work_done(executor, lambda: threading.current_thread().daemon)


def test_an_idle_thread_is_used_again(monkeypatch):
    monkeypatch.setattr(module, "IDLE_TIME", 100 * SOON)
    executor = DaemonThreads(4)
    first = work_done(executor, threading.current_thread)
    wait_idle(executor)
    assert work_done(executor, threading.current_thread) is first
    executor.shutdown()
    first.join(SOON)
    assert not first.is_alive()


def test_a_call_is_not_left_to_an_idle_thread_that_has_got_another(monkeypatch):
    monkeypatch.setattr(module, "IDLE_TIME", 100 * SOON)
    executor = DaemonThreads(4)
    work_done(executor)
    wait_idle(executor)
    calls = Calls(executor)
    calls.add(3)
    calls.wait_begun(3)
    executor.shutdown()
    calls.gate.set()


def test_an_idle_thread_ends():
    executor = DaemonThreads(2)
    thread = work_done(executor, threading.current_thread)
    thread.join(SOON)
    assert not thread.is_alive()
    assert work_done(executor, threading.current_thread) is not thread


def test_no_more_threads_than_workers_and_the_rest_in_order():
    calls = Calls(DaemonThreads(2))
    calls.add(5)
    calls.wait_begun(2)
    assert calls.finish() == [0, 1, 2, 3, 4]
    assert calls.begun[2:] == [2, 3, 4]
    assert len(calls.threads) == 2


def test_a_cancelled_call_is_never_made():
    calls = Calls(DaemonThreads(1))
    calls.add(3)
    calls.wait_begun(1)
    assert calls.futures.pop(1).cancel()
    assert not calls.futures[0].cancel()
    assert calls.finish() == [0, 2]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"max_workers": 0}, "max_workers must be greater than 0"),
        ({"max_workers": 4, "limit": 3}, "limit must be at least max_workers, 4, got 3"),
    ],
)
def test_arguments_that_cannot_be(arguments, text):
    with pytest.raises(ValueError, match=rf"^{text}$"):
        DaemonThreads(**arguments)


def test_an_idle_thread_keeps_nothing_of_its_last_call(monkeypatch):
    class Thing:
        pass

    def fail(thing):
        raise LookupError(thing)

    monkeypatch.setattr(module, "IDLE_TIME", 100 * SOON)
    executor = DaemonThreads(1)
    gc.disable()  # what is not in a cycle goes without
    try:
        for call in (lambda thing: thing, fail):
            thing = Thing()
            gone = weakref.ref(thing)
            future = executor.submit(call, thing)
            future.exception(SOON)
            del thing, future
            wait_idle(executor)
            assert gone() is None
    finally:
        gc.enable()
        executor.shutdown()


def test_without_any_thread_the_call_is_refused(monkeypatch):
    def start(target):
        raise RuntimeError("can't start new thread")

    executor = DaemonThreads(2, limit=4)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_start", start)
        with pytest.raises(RuntimeError, match=r"^can't start new thread$"):
            executor.submit(abs, -1)
    assert not executor._calls
    assert work_done(executor, abs, -2) == 2


def test_where_a_further_thread_cannot_be_started_the_others_do_the_work(monkeypatch):
    def start(target):
        raise RuntimeError("can't start new thread")

    calls = Calls(DaemonThreads(2, limit=4))
    calls.add()
    calls.wait_begun(1)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_start", start)
        calls.add(2)
    calls.add()  # the second worker, now that there can be one
    calls.wait_begun(2)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_start", start)
        calls.add()  # nor is there anyone to watch
    assert calls.finish() == [0, 1, 2, 3, 4]


# More threads while calls hang


def test_a_call_that_has_waited_gets_a_thread_of_its_own(clock):
    calls = Calls(DaemonThreads(2, limit=3, patience=1))
    calls.add(3)
    calls.wait_begun(2)
    assert clock.wait_asleep() == 1
    clock.move(0.75)
    calls.add()
    calls.wait_begun(2)
    clock.move(0.25)
    calls.wait_begun(3)
    # That was the limit: the last one waits for another to end, however long it takes.
    clock.move(1000)
    calls.wait_begun(3)
    assert not calls.executor._is_watched
    assert calls.finish() == [0, 1, 2, 3]


def test_each_call_waits_for_its_own_time(clock):
    calls = Calls(DaemonThreads(1, limit=9, patience=1))
    calls.add(2)
    assert clock.wait_asleep() == 1
    clock.move(0.75)
    calls.add()
    clock.move(0.25)
    calls.wait_begun(2)
    assert clock.wait_asleep() == 0.75
    clock.move(0.75)
    calls.wait_begun(3)
    assert calls.finish() == [0, 1, 2]


def test_two_hundred_calls_that_hang_do_not_stop_another(clock):
    calls = Calls(DaemonThreads(16, limit=256, patience=1))
    calls.add(200)
    clock.wait_asleep()
    calls.wait_begun(16)
    answer = calls.executor.submit(lambda: "answer")
    clock.move(1)
    assert answer.result(SOON) == "answer"
    calls.wait_begun(200)
    assert calls.finish() == list(range(200))


def test_no_thread_is_added_while_calls_are_quick(clock):
    calls = Calls(DaemonThreads(1, limit=9, patience=1))
    calls.add(5)
    clock.wait_asleep()
    clock.move(0.5)
    assert calls.finish() == [0, 1, 2, 3, 4]
    assert len(calls.threads) == 1
    # Nor is there anything left to watch when the watcher looks next.
    clock.move(0.5)
    assert work_done(calls.executor) == 1


def test_calls_that_hang_again_are_watched_again(clock):
    calls = Calls(DaemonThreads(1, limit=2, patience=1))
    for _ in range(2):
        calls.gate.clear()
        calls.begun.clear()
        calls.add(2)
        calls.wait_begun(1)
        clock.wait_asleep()
        clock.move(1)
        calls.wait_begun(2)
        calls.finish()


# The end


def test_shutdown_waits_for_nothing_and_nobody_is_told(caplog):
    told = []
    calls = Calls(DaemonThreads(1))
    calls.add(2)
    calls.wait_begun(1)
    calls.futures[0].add_done_callback(told.append)
    calls.executor.shutdown(wait=True)
    with pytest.raises(CancelledError):
        calls.futures[1].result(0)
    with pytest.raises(RuntimeError, match=r"^cannot schedule new futures after shutdown$"):
        calls.add()
    calls.gate.set()
    for thread in calls.threads:
        thread.join(SOON)
    assert told == []
    assert caplog.records == []


async def test_is_a_loops_default_executor_and_does_not_hold_up_its_end():
    make_loop = type(asyncio.get_running_loop())
    executor = DaemonThreads(1)
    calls = Calls(executor)

    async def give_up() -> None:
        asyncio.get_running_loop().set_default_executor(executor)
        hanging = asyncio.ensure_future(asyncio.to_thread(calls._hang, 0))
        while not calls.begun:
            await asyncio.sleep(0)
        hanging.cancel()

    def run() -> None:
        with asyncio.Runner(debug=True, loop_factory=make_loop) as runner:
            runner.run(give_up())

    await asyncio.to_thread(run)
    calls.gate.set()
    for thread in calls.threads:
        await asyncio.to_thread(thread.join, SOON)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_begins_anew():
    calls = Calls(DaemonThreads(1))
    calls.add(2)
    calls.wait_begun(1)
    child = os.fork()
    if child == 0:
        try:
            os._exit(work_done(calls.executor, lambda: 42))
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 42
    assert calls.finish() == [0, 1]


def test_used_by_many_threads_at_once():
    executor = DaemonThreads(3, limit=6, patience=0)
    results: list[int] = []

    def use(start: int) -> None:
        futures = [executor.submit(abs, -number) for number in range(start, start + 100)]
        results.extend(future.result(SOON) for future in futures)

    users = [threading.Thread(target=use, args=(100 * number,)) for number in range(5)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert sorted(results) == list(range(500))


PROGRAM = """
import sys, threading
from aiohttpconn.net.threads import DaemonThreads

begun = threading.Event()
executor = DaemonThreads(1, limit=9, patience=0)

def hang():
    begun.set()
    threading.Event().wait()

for _ in range(3):
    executor.submit(hang).add_done_callback(print)
begun.wait()
"""


def test_a_program_ends_though_calls_hang_and_prints_nothing():
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", PROGRAM]
    result = subprocess.run(command, capture_output=True, text=True, timeout=SOON)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
