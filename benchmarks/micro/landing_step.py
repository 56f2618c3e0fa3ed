"""How much memory may read() of a large body allocate beyond the bytes that have arrived?

Verdict (3.11, 256 MiB, GB/s): 256 KiB 1.3, 512 KiB 1.6, 1 MiB 1.7, 2 MiB 1.8, 4 MiB 1.7, 8 MiB
1.5; a bare protocol that keeps the bytes in memory allocated at once 1.8. Growing the buffer fills
a step with zeros: up to 2 MiB they are still in the cache when the socket's bytes replace them.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import threading
import time

import aiohttpconn
from aiohttpconn import response

SIZE = 256 * 1024 * 1024
STEPS = (256, 512, 1024, 2048, 4096, 8192)


def serve(listener: socket.socket) -> None:
    block = memoryview(bytes(1024 * 1024))
    while True:
        conn, _ = listener.accept()
        with conn:
            conn.recv(65536)
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
            for _ in range(SIZE // len(block)):
                conn.sendall(block)


async def speed(port: int) -> float:
    async with aiohttpconn.HTTPConnection("127.0.0.1", port) as conn:
        await conn.request("GET", "/")
        begin = time.perf_counter()
        assert len(await (await conn.getresponse()).read()) == SIZE
        return SIZE / (time.perf_counter() - begin) / 1e9


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    speeds: dict[int, list[float]] = {step: [] for step in STEPS}
    for _ in range(5):
        for step in STEPS:
            response.LANDING_STEP = step * 1024
            speeds[step].append(asyncio.run(speed(listener.getsockname()[1])))
    for step, values in speeds.items():
        print(f"{step:6} KiB  {statistics.median(values):.2f} GB/s")


if __name__ == "__main__":
    main()
