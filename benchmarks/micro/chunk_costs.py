"""What does a byte on the wire cost in small chunks, beside one in chunks of 64 KiB?

Verdict (3.11, times a byte in chunks of 64 KiB): chunks of 1 byte 25, with a blank 25, with ``;a``
21, with 47 blanks 50, 2 bytes that are CRLF 49, 16 bytes 40, of all kinds 47. With a match for each
chunk, and a method for each line that is not plain: 117, 346, 308, and 101, 32, 106.

CPU time of the client's process for each byte on the wire, framing included, from a connection to
``read()``. A server chooses how many chunks come with each byte that it sends.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import socket
import time

from aiohttpconn import HTTPConnection

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BLOCK = 256 * 1024


def chunks(size: int, extension: bytes = b"", data: bytes = b"x") -> bytes:
    chunk = b"%x%b\r\n%b\r\n" % (size, extension, (data * size)[:size])
    return chunk * (BLOCK // len(chunk) + 1)


def mixed() -> bytes:
    made = random.Random(1)
    wire = bytearray()
    while len(wire) < BLOCK:
        size = made.choice([1, 1, 2, 3, 7, 12, 15, 16, 40])
        wire += b"%x%b\r\n" % (size, made.choice([b"", b" ", b";a", b";name=value"]))
        wire += made.randbytes(size) + b"\r\n"
    return bytes(wire)


# Bytes of many chunks, and how many times they are sent.
SHAPES = {
    "64 KiB": (chunks(65536), 256),
    "1 KiB": (chunks(1024), 64),
    "16 bytes": (chunks(16), 16),
    "16 bytes, ;a": (chunks(16, b";a"), 16),
    "8 bytes": (chunks(8), 16),
    "1 byte": (chunks(1), 16),
    "1 byte, a blank": (chunks(1, b" "), 16),
    "1 byte, ;a": (chunks(1, b";a"), 16),
    "1 byte, ;name=value": (chunks(1, b";name=value"), 16),
    "1 byte, 01": (chunks(1).replace(b"1\r\n", b"01\r\n"), 16),
    "1 byte, 10 blanks": (chunks(1, b" " * 10), 16),
    "1 byte, 47 blanks": (chunks(1, b" " * 47), 16),
    "2 bytes, CRLF": (chunks(2, data=b"\r\n"), 16),
    "mixed": (mixed(), 16),
}


def serve(listener: socket.socket) -> None:
    while True:
        conn, _ = listener.accept()
        with conn:
            block, times = list(SHAPES.values())[int(conn.recv(4096).split()[1][1:])]
            conn.sendall(HEAD)
            for _ in range(times):
                conn.sendall(block)
            conn.sendall(b"0\r\n\r\n")


async def cost(port: int, shape: int, times: int, size: int) -> float:
    """Return seconds for each byte."""
    async with HTTPConnection("127.0.0.1", port) as conn:
        await conn.request("GET", f"/{shape}")
        response = await conn.getresponse()
        began = time.process_time()
        await response.read()
        return (time.process_time() - began) / (times * size)


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    process = multiprocessing.get_context("fork").Process(target=serve, args=(listener,))
    process.start()
    try:
        port = listener.getsockname()[1]
        least = 0.0
        for i, (name, (block, times)) in enumerate(SHAPES.items()):
            one = min(asyncio.run(cost(port, i, times, len(block))) for _ in range(5))
            least = least or one
            print(f"{name:20} {one * 1e9:7.2f} ns  {one / least:5.0f} times")
    finally:
        process.kill()
        process.join()


if __name__ == "__main__":
    main()
