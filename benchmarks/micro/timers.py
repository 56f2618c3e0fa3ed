"""The cost of a limit on a wait: a timer, asyncio.timeout, wait_for, or a stored deadline.

    python benchmarks/micro/timers.py

Verdict (asyncio, µs, 3.11 / 3.13): a stored deadline 0.18 / 0.27, a timer made and cancelled
1.7 / 1.7, asyncio.timeout 3.9 / 2.5, wait_for 11.6 / 2.6.
So net/timeouts.py stores deadlines, and one timer for each connection checks them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from math import inf

from aiohttpconn.net.timeouts import Watchdog

COUNT = 50_000


async def main() -> None:
    loop = asyncio.get_running_loop()
    watchdog = Watchdog(loop, print)
    watchdog.arm_read(60)

    async def nothing() -> None:
        pass

    async def waits() -> None:
        await nothing()

    async def stored() -> None:
        watchdog.arm_read(60)
        await nothing()
        watchdog.disarm_read()

    async def timer() -> None:
        handle = loop.call_later(60, print)
        await nothing()
        handle.cancel()

    async def timeout() -> None:
        async with asyncio.timeout(60):
            await nothing()

    async def wait_for() -> None:
        await asyncio.wait_for(nothing(), 60)

    async def cost(way: Callable[[], Awaitable[None]], count: int) -> float:
        best = inf
        for _ in range(5):
            begin = time.perf_counter()
            for _ in range(count):
                await way()
            best = min(best, (time.perf_counter() - begin) / count)
        return best * 1e6

    floor = await cost(waits, COUNT)
    for way in (stored, timer, timeout, wait_for):
        print(f"{await cost(way, COUNT // 5) - floor:6.2f} µs  {way.__name__}")
    watchdog.stop()


if __name__ == "__main__":
    asyncio.run(main())
