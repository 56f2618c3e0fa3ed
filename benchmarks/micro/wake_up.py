"""The cost of waking the caller: a future and a step of its task.

Verdict (µs of one read event, 64 tasks, the least of 9 runs; Python 3.11 / 3.13):

                              asyncio        uvloop
    a callback                0.58 / 0.67    0.15 / 0.18   the loop's own part of it
    no suspension             0.89 / 1.03    0.41 / 0.47   a coroutine that finds its answer there
    loop.create_future        1.81 / 2.20    0.77 / 0.96   a future, and a step of its task
    asyncio.Future(loop=)     1.78 / 2.17    0.76 / 0.97   no gain
    asyncio.Event             2.50 / 2.66    1.43 / 1.43

A suspension costs 0.4 to 0.5 µs on uvloop, and 0.9 to 1.2 on asyncio, compared with no wait. So
getresponse() waits on one future, which the loop makes, and read() of a body that came with its
head waits on none.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable

import uvloop

TASKS = 64
TURNS = 1_000

Loop = asyncio.AbstractEventLoop
Measured = Callable[[Loop], Callable[[], object]]
"""A function that starts one waiter, and returns the function that wakes it on a read event."""


def a_callback(loop: Loop) -> Callable[[], object]:
    """Nothing waits: the read event itself handles the answer."""
    return lambda: None


def no_suspension(loop: Loop) -> Callable[[], object]:
    """A coroutine finds its answer already there, as read() does: it is never suspended."""

    async def read() -> None:
        return None

    def step() -> None:
        try:
            read().send(None)
        except StopIteration:
            pass

    return step


def a_future(make: Callable[[Loop], asyncio.Future[None]]) -> Measured:
    def start(loop: Loop) -> Callable[[], object]:
        waiter = make(loop)

        async def wait() -> None:
            nonlocal waiter
            while True:
                await waiter
                waiter = make(loop)

        tasks.append(loop.create_task(wait()))
        return lambda: waiter.set_result(None)

    return start


def an_event(loop: Loop) -> Callable[[], object]:
    event = asyncio.Event()

    async def wait() -> None:
        while True:
            await event.wait()
            event.clear()

    tasks.append(loop.create_task(wait()))
    return event.set


CANDIDATES: dict[str, Measured] = {
    "a callback": a_callback,
    "no suspension": no_suspension,
    "loop.create_future": a_future(lambda loop: loop.create_future()),
    "asyncio.Future": a_future(lambda loop: asyncio.Future(loop=loop)),
    "asyncio.Event": an_event,
}

tasks: list[asyncio.Task[None]] = []


async def cost(start: Measured) -> float:
    """Return the µs of one read event and of the step that it wakes."""
    loop = asyncio.get_running_loop()
    events = [start(loop) for _ in range(TASKS)]
    await asyncio.sleep(0)
    done = loop.create_future()
    left = TURNS

    def turn() -> None:
        # Call them now, as for sockets after select(). Woken tasks run before the next turn.
        nonlocal left
        left -= 1
        if not left:
            done.set_result(None)
            return
        for event in events:
            loop.call_soon(event)
        loop.call_soon(turn)

    begin = time.perf_counter()
    turn()
    await done
    result = (time.perf_counter() - begin) / TURNS / TASKS * 1e6
    for task in tasks:
        task.cancel()
    tasks.clear()
    return result


def main() -> None:
    for name, factory in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
        costs: dict[str, list[float]] = {name: [] for name in CANDIDATES}
        for _ in range(9):
            for candidate, start in CANDIDATES.items():
                with asyncio.Runner(loop_factory=factory) as runner:
                    costs[candidate].append(runner.run(cost(start)))
        for candidate, values in costs.items():
            print(
                f"{name:8} {min(values):5.2f} µs (median {statistics.median(values):5.2f})  "
                f"{candidate}"
            )


if __name__ == "__main__":
    main()
