"""What does splitting a head's fields cost: at once, or when somebody asks?

Verdict: TODO
"""

from __future__ import annotations

import timeit
import tracemalloc
from collections.abc import Callable

from aiohttpconn.response import HTTPResponse

HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 23 Nov 2026 12:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: 62\r\n"
    b"Last-Modified: Mon, 23 Nov 2026 10:00:00 GMT\r\nConnection: keep-alive\r\n"
    b'ETag: "6921c0a0-3e"\r\nAccept-Ranges: bytes\r\n\r\n'
)


def made() -> HTTPResponse:
    response = HTTPResponse(None)
    response._head = HEAD
    return response


def keep_bytes(response: HTTPResponse) -> object:
    """Nobody asks."""
    return response._head


def raw_headers(response: HTTPResponse) -> object:
    return response.raw_headers


def getheader(response: HTTPResponse) -> object:
    return response.getheader("Content-Type")


def headers(response: HTTPResponse) -> object:
    return response.headers


def headers_and_lookup(response: HTTPResponse) -> object:
    return response.headers["Content-Type"]


def seconds(ask: Callable[[HTTPResponse], object]) -> float:
    return min(timeit.repeat(lambda: ask(made()), number=5_000, repeat=15)) / 5_000


def memory(ask: Callable[[HTTPResponse], object]) -> float:
    """Bytes of one response that somebody holds."""
    tracemalloc.start()
    held = [made() for _ in range(1_000)]
    for response in held:
        ask(response)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / len(held)


def main() -> None:
    nobody = seconds(keep_bytes), memory(keep_bytes)
    for ask in (raw_headers, getheader, headers, headers_and_lookup):
        print(
            f"{(seconds(ask) - nobody[0]) * 1e6:6.2f} µs {memory(ask) - nobody[1]:6.0f} bytes  "
            f"{ask.__name__.replace('_', ' ')}"
        )


if __name__ == "__main__":
    main()
