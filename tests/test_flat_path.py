"""The hot path decides as the general one does: the same responses through every way of reading.

``buffer_updated`` ends a whole 200 by itself, takes other plain heads to ``_final_head``, and
leaves the rest to ``HeadReader``. Random responses, tidy and broken, go through all three.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

import aiohttpconn.protocol
from aiohttpconn import Limits
from aiohttpconn.protocol import SEEN_HEADS, HTTP1Protocol, State

CASES = 1500

NAMES = (
    *("Content-Length",) * 6,
    *("content-length", "CONTENT-LENGTH", "Content-Length ", "Contentx", "Content-Type"),
    *("Transfer-Encoding", "transfer-encoding", "Connection", "connection", "Proxy-Connection"),
    *("Keep-Alive", "X", "Date", "X y", ""),
)
VALUES = {
    "content-length": ("0", "1", "3", "5", "5", "03", "+5", "5 ", "5,5", "", "9" * 20),
    "transfer-encoding": (*("chunked",) * 5, "Chunked", "identity", "gzip", "chunked, chunked"),
    "connection": ("keep-alive", "Keep-Alive", "close", "keep-alive, close", "x"),
}
OTHER_VALUES = ("", "a", "b c", "\x7f", "\x0b", "\0", "\r", "x" * 30)
BODIES = (
    *(b"", b"a", b"abc", b"abcde", b"abcde", b"abcdef"),
    *(b"3\r\nabc\r\n0\r\n\r\n", b"1\r\na\r\n0\r\nT: x\r\n\r\n", b"3;e\r\nabc\r\n0\r\n\r\nX"),
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
)
LIMITS = (
    *(Limits(),) * 6,
    *(Limits(max_fields=n) for n in range(4)),
    *(Limits(max_line=n) for n in (0, 20, 40, 80)),
    *(Limits(max_head_bytes=n) for n in (0, 30, 100)),
)


class Transport(asyncio.Transport):
    """Takes everything and does nothing; remembers whether it was ended."""

    ended = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: Any) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return self.ended

    def close(self) -> None:
        self.ended = True

    abort = close


def make_head(choice: Any) -> bytes:
    fields = ""
    for _ in range(choice(range(6))):
        name = choice(NAMES)
        value = choice(VALUES.get(name.lower().strip(), OTHER_VALUES))
        end = choice(("\r\n",) * 12 + ("\n", "\r\n\tfolded\r\n"))
        fields += f"{name}{choice((': ', ': ', ':', ':  '))}{value}{end}"
    version = choice(("HTTP/1.1",) * 12 + ("HTTP/1.0", "HTTP/1.5", "HTTP/2.0"))
    status = choice((200,) * 8 + (201, 204, 304, 404, 100, 102, 101, 999))
    reason = choice((" OK",) * 5 + ("", " ", "  a ", " a\x01b", " \xe9"))
    return f"{version} {status}{reason}\r\n{fields}\r\n".encode("latin-1")


def receive(
    loop: Any, exchanges: list[tuple[str, bytes]], options: Any, way: str
) -> list[tuple[Any, ...]]:
    """Return what became of each exchange, received in the given *way*."""
    limits, strict, high_water = options
    protocol = HTTP1Protocol(loop, "http://h", limits=limits, strict=strict, high_water=high_water)
    transport = Transport()
    protocol.connection_made(transport)
    seen: list[tuple[Any, ...]] = []
    for method, data in exchanges:
        if protocol.state is not State.IDLE:
            break
        response = protocol.start(method, "/", b"", True)
        if way == "general":
            protocol._complex = True
        size = {"in 7s": 7, "byte by byte": 1}.get(way, len(data))
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            while piece:
                buffer = protocol.get_buffer(-1)
                count = min(len(buffer), len(piece))
                buffer[:count] = piece[:count]
                protocol.buffer_updated(count)
                piece = piece[count:]
        if not response._ended:
            protocol.eof_received()
        head = response._head is not None
        unread = [bytes(response._first)[response._offset :], *map(bytes, response._rest or ())]
        seen.append(
            (
                head and (response.status, response.reason, response.version, response._head),
                head and (response.chunked, response.will_close, response.left),
                (b"".join(unread), response.received, response._ended),
                (type(response._exception), protocol.state, transport.ended),
            )
        )
    return seen


@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.parametrize("way", ["general", "no plain head", "in 7s", "byte by byte"])
async def test_every_way_of_receiving_sees_the_same(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    loop = asyncio.get_running_loop()
    source = random.Random(9112)
    choice = source.choice
    for _ in range(CASES):
        exchanges = [
            (
                choice(("GET",) * 6 + ("HEAD", "POST", "CONNECT", "get")),
                choice((b"",) * 6 + (b"HTTP/1.1 103 Hint\r\nLink: a\r\n\r\n",))
                + make_head(choice)
                + choice(BODIES),
            )
            for _ in range(choice((1, 1, 2, 3)))
        ]
        options = choice(LIMITS), choice((False, False, True)), choice((262144,) * 5 + (1, 7))
        flat = receive(loop, exchanges, options, "flat")
        with monkeypatch.context() as patch:
            if way == "no plain head":
                patch.setattr(aiohttpconn.protocol, "match_plain_head", lambda *_: None)
            assert receive(loop, exchanges, options, way) == flat, (exchanges, options)


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_a_head_seen_under_other_limits_is_judged_anew() -> None:
    loop = asyncio.get_running_loop()
    wire = b"HTTP/1.1 200 OK\r\nA: 1\r\nContent-Length: 2\r\n\r\nhi"
    for limits, taken in (
        (Limits(), True),
        (Limits(max_fields=1), False),
        (Limits(max_line=10), False),
        (Limits(max_head_bytes=20), False),
        (Limits(), True),
    ):
        (seen,) = receive(loop, [("GET", wire)], (limits, False, 262144), "flat")
        assert bool(seen[0]) == taken, limits


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_the_heads_that_are_kept_are_bounded() -> None:
    loop = asyncio.get_running_loop()
    protocol = HTTP1Protocol(loop, "http://h")
    protocol.connection_made(Transport())
    for size in range(3 * SEEN_HEADS):
        response = protocol.start("GET", "/", b"", True)
        wire = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
        protocol.get_buffer(-1)[: len(wire)] = wire
        protocol.buffer_updated(len(wire))
        assert await response.read() == b"x" * size
        assert 0 < len(protocol._heads) <= SEEN_HEADS
