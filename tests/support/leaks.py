"""The check that no test leaves anything behind. ``tests/conftest.py`` runs it; it finds:

- calls of the loop's exception handler: ``guard()`` puts ours on every loop that tests use;
- tasks that are still pending, and sockets that are still open: the check looks for them at a
  test's end, after its fixtures are gone and while its loop still runs. Transports need a few turns
  to close, so the loop turns a bounded number of times, and only as long as something is left;
- coroutines never awaited, sockets and transports collected unclosed: warnings are errors. A
  collection after each test finds those that hide in reference cycles;
- a test that hangs: after a time the check shows its tasks and cancels them.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import stat
import sys
import traceback
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LeakCheck", "guard", "happens", "open_sockets"]

TURNS = 200
"""Turns of the loop in which transports and tasks may end; a TLS close takes about 10."""

PAUSES = 20
"""Turns after those, of 5 ms each: the kernel of a busy machine may deliver late."""


class LeakCheck:
    """The check of one test; ``problems`` has a paragraph for each thing that is wrong."""

    current: LeakCheck | None = None
    """The check of the running test: a loop's exception handler reports here."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.loop_errors: list[dict[str, Any]] = []
        """Contexts of exception-handler calls; a test that provokes one removes it from here."""
        self._sockets: set[tuple[int, int]] = set()
        self._hung: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Remember the sockets that are open now."""
        self._sockets = open_sockets()

    def limit(self, seconds: float) -> None:
        """Let the test, which runs in the running loop, end within *seconds*."""
        loop = asyncio.get_running_loop()
        self._hung = loop.call_later(seconds, self._on_hang, loop, seconds)

    def stop_clock(self) -> None:
        """The test is over; its fixtures may take as long as they need."""
        if self._hung is not None:
            self._hung.cancel()
            self._hung = None  # it knows the loop, and pytest keeps this object to its end

    async def finish_loop(self) -> None:
        """Look for tasks and sockets that are left, in the test's loop."""
        me = asyncio.current_task()
        if await happens(lambda: asyncio.all_tasks() == {me} and not self._left_open()):
            return
        # A lookup that the test has given up goes on in a thread, with a socket of its own.
        await asyncio.get_running_loop().shutdown_default_executor()
        for task in asyncio.all_tasks() - {me}:
            self.problems.append(f"a task is still pending: {_describe_task(task)}")
        self.problems += [
            f"a socket is still open: {_describe_socket(fd)}" for fd, _ in self._left_open()
        ]
        for transport in _open_transports():
            self.problems.append(f"a transport was not closed: {transport!r}")
            # If it stays open, the loop's close() fails, or some later test.
            transport.abort()
        await asyncio.sleep(0)
        self._forget()

    def finish(self) -> None:
        """Look for sockets that are left, after a test without a loop."""
        if self._left_open():
            self._report_sockets()
            self._forget()

    def _report_sockets(self) -> None:
        for fd, _ in sorted(self._left_open()):
            self.problems.append(f"a socket is still open: {_describe_socket(fd)}")

    def _forget(self) -> None:
        """Collect the leaks that were reported, so that no other test is blamed for them."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()

    def collect(self) -> None:
        """Collect garbage; objects that warn now were left in a reference cycle."""
        unraisable: list[str] = []
        old_hook = sys.unraisablehook
        sys.unraisablehook = lambda args: unraisable.append(
            f"{args.err_msg or 'exception ignored in'} {args.object!r}: {args.exc_value!r}"
        )
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                gc.collect()
                # pytest keeps the survivors to its end: the next collection need not look at
                # them. Without this, collections would take most of a run.
                gc.freeze()
        finally:
            sys.unraisablehook = old_hook
        self.problems += [f"{w.category.__name__}: {w.message}" for w in caught]
        self.problems += unraisable

    def verdict(self) -> str | None:
        """Return the text to fail with, or None."""
        problems = self.problems + [_describe_context(context) for context in self.loop_errors]
        if not problems:
            return None
        lines = "\n".join("- " + problem.replace("\n", "\n  ") for problem in problems)
        return f"The test left something behind:\n{lines}"

    def _left_open(self) -> set[tuple[int, int]]:
        """Return the sockets that are open now and were not at the start."""
        now = open_sockets()
        left = now - self._sockets
        # Signals wake uvloop by a socket pair, which it makes anew whenever it starts to run.
        if left and len(left) <= len(self._sockets - now) and all(map(_is_anonymous, left)):
            return set()
        return left

    def _on_hang(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
        shown = "\n".join(_describe_task(task) for task in tasks)
        self.problems.append(
            f"it ran for more than {seconds:g} s and was cancelled; tasks:\n{shown}"
        )
        for task in tasks:
            task.cancel()


def guard(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    """Make *loop* report its exception-handler calls to the running test's check; return it."""
    loop.set_exception_handler(_on_loop_error)
    return loop


async def happens(condition: Callable[[], object]) -> bool:
    """Let the loop turn until *condition* holds; return whether it does, in a bounded time."""
    for turn in range(TURNS + PAUSES):
        if condition():
            return True
        await asyncio.sleep(0 if turn < TURNS else 0.005)
    return bool(condition())


def open_sockets() -> set[tuple[int, int]]:
    """Return (descriptor, inode) of each open socket of this process; empty on Windows."""
    found = set()
    try:
        names = os.listdir("/dev/fd")
    except OSError:
        return found
    for name in names:
        try:
            status = os.fstat(int(name))
        except OSError:  # the listing's own descriptor
            continue
        if stat.S_ISSOCK(status.st_mode):
            found.add((int(name), status.st_ino))
    return found


def _open_transports() -> list[Any]:
    """Return the transports of asyncio and uvloop that nobody has closed."""
    found = []
    for thing in gc.get_objects():
        kind = type(thing)
        ours = issubclass(kind, asyncio.Transport) or kind.__module__.startswith("uvloop")
        if ours and hasattr(kind, "abort") and not thing.is_closing():
            found.append(thing)
    return found


def _is_anonymous(left: tuple[int, int]) -> bool:
    """Whether *left* is one end of a ``socketpair()``."""
    try:
        with socket.socket(fileno=os.dup(left[0])) as copy:
            return copy.family.name == "AF_UNIX" and not copy.getsockname() + copy.getpeername()
    except OSError:
        return False


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if LeakCheck.current is None:
        loop.default_exception_handler(context)
    else:
        LeakCheck.current.loop_errors.append(context)


def _describe_context(context: dict[str, Any]) -> str:
    text = f"the loop's exception handler was called: {context.get('message')}"
    for key, value in context.items():
        if key not in ("message", "exception", "source_traceback"):
            text += f"\n{key}: {value!r}"
    if exc := context.get("exception"):
        text += "\n" + "".join(traceback.format_exception(exc)).rstrip()
    return text


def _describe_task(task: asyncio.Task[Any]) -> str:
    where = "".join(f"\n  {f.f_code.co_filename}:{f.f_lineno}" for f in task.get_stack())
    return f"{task!r}{where}"


def _describe_socket(fd: int) -> str:
    try:
        with socket.socket(fileno=os.dup(fd)) as copy:
            text = f"fd {fd}, {copy.family.name} {copy.type.name}, from {copy.getsockname()!r}"
            try:
                return f"{text} to {copy.getpeername()!r}"
            except OSError:
                return f"{text}, not connected"
    except OSError as exc:
        return f"fd {fd} ({exc})"
