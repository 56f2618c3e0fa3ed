"""The hot path decides as the general one does: the same responses through every way of reading.

``buffer_updated`` ends a whole 200 by itself, takes other plain heads to ``_final_head``, and
leaves the rest to ``HeadReader``. Random responses, tidy and broken, go through all three.
"""

from __future__ import annotations

import asyncio
import random
import re
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

import aiohttpconn.protocol
from aiohttpconn import HeadTooLarge, Limits, Timeout
from aiohttpconn.protocol import SEEN_HEADS, HTTP1Protocol, State

from .support.strategies import cuts

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


# Pipelined: _receive_batch against _receive ---------------------------------------------------

OK_HEAD = b"HTTP/1.1 200 OK\r\nServer: s\r\nContent-Length: %d\r\n\r\n"
OTHER_HEAD = b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: "1"\r\n\r\n'
FIELDS_OF_200 = (
    *(b"Server: s\r\n",) * 8,
    *(b"Server: t\r\n", b"", b"Server:  s\r\n", b"server: s\r\n"),
    *(b"Connection: close\r\n", b"Connection: keep-alive\r\n"),
)
CHUNKED_BODIES = (b"0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\nT: x\r\n\r\n")
OTHER_RESPONSES = (
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 Fine\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n folded\r\n\r\nabc",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
)
INTERIM = (b"",) * 30 + (
    b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
)


@st.composite
def wire_responses(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw (method, its response)."""
    method = draw(st.sampled_from(("GET",) * 8 + ("HEAD", "OPTIONS")))
    kind = draw(st.sampled_from(("length",) * 20 + ("chunked", "other")))
    data = draw(st.sampled_from(INTERIM))
    fields = draw(st.sampled_from(FIELDS_OF_200))
    if kind == "length":
        body = draw(st.sampled_from((b"", b"a", b"abc", b"abc", b"x" * 300)))
        length = draw(st.sampled_from((b"%d",) * 6 + (b"%02d",))) % len(body)
        data += b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: " + length + b"\r\n\r\n"
        return method, data if method == "HEAD" else data + body
    if kind == "chunked":
        data += b"HTTP/1.1 200 OK\r\n" + fields + b"Transfer-Encoding: chunked\r\n\r\n"
        return method, data + draw(st.sampled_from(CHUNKED_BODIES))
    return method, data + draw(st.sampled_from(OTHER_RESPONSES))


class Recorder:
    """A connection's owner: what it was told, and in which state."""

    def __init__(self) -> None:
        self.protocol: Any = None
        self.responses: list[Any] = []
        self.told: list[Any] = []

    def exchange_ended(self, response: Any, count: int = 1) -> None:
        for _ in range(count):
            number = sum(what == "ended" for what, *_ in self.told)
            assert self.responses[number]._ended
            self.told.append(("ended", number))
        assert response is self.responses[number]
        self.state = self.protocol.state

    def connection_ended(self) -> None:
        if ("closed",) not in self.told:
            self.told.append(("closed",))

    def transport_lost(self, protocol: Any) -> None: ...


def pipelined(
    loop: Any, exchanges: list[tuple[str, bytes]], pieces: list[bytes], end: str, options: Any
) -> list[Any]:
    """Return what becomes of *exchanges*, all begun before the first of *pieces* arrives."""
    limits, strict, timeout, last = options
    owner = Recorder()
    protocol = HTTP1Protocol(loop, "http://h", limits=limits, strict=strict, timeout=timeout)
    transport = Transport()
    protocol.connection_made(transport)
    owner.protocol, protocol.owner = protocol, owner
    for number, (method, _) in enumerate(exchanges):
        response = protocol.start(method, "/", b"", True)
        response._head_waiter = loop.create_future()
        if number == last:
            protocol.close_after(response)
        owner.responses.append(response)
    for piece in pieces:
        while piece and not transport.ended:
            buffer = protocol.get_buffer(-1)
            count = min(len(buffer), len(piece))
            buffer[:count] = piece[:count]
            protocol.buffer_updated(count)
            piece = piece[count:]
    if not transport.ended:
        if end == "eof" and not protocol.eof_received():
            protocol.connection_lost(None)
        elif end == "reset":
            protocol.connection_lost(ConnectionResetError("reset"))
    if ("closed",) in owner.told:
        # It takes back what was told before, and may have come in the same read.
        owner.told = [("closed",)]
    seen: list[Any] = [owner.told, protocol.state, transport.ended, len(protocol._pending or ())]
    for response in owner.responses:
        head = response._head is not None
        exc = response._exception
        unread = [bytes(response._first)[response._offset :], *map(bytes, response._rest or ())]
        seen.append(
            (
                head and (response.status, response.reason, response.version, response._head),
                head and (response.chunked, response.will_close, response.left),
                (b"".join(unread), response.received, response._buffered, response._ended),
                (type(exc), re.sub(r"[\d.]+ ms", "", str(exc)), getattr(exc, "unanswered", None)),
                response._head_waiter.done(),
                response.trailers.items() if response._ended and head else None,
            )
        )
    if protocol._watchdog is not None:
        protocol._watchdog.stop()
    return seen


@pytest.mark.asyncio(loop_factories=["asyncio"])
@hypothesis.settings(max_examples=4 * hypothesis.settings.default.max_examples)
@hypothesis.given(
    exchanges=st.lists(wire_responses(), min_size=1, max_size=6),
    garbage=st.sampled_from((b"",) * 6 + (b"X", b"\r\n", OK_HEAD % 0)),
    end=st.sampled_from(("stay", "stay", "eof", "reset")),
    cut=st.none() | st.integers(0, 400),
    data=st.data(),
)
async def test_pipelined_responses_are_the_same_however_they_are_received(
    exchanges: list[tuple[str, bytes]], garbage: bytes, end: str, cut: int | None, data: Any
) -> None:
    loop = asyncio.get_running_loop()
    wire = b"".join(response for _, response in exchanges) + garbage
    if cut is not None:
        wire = wire[:cut]
    options = (
        data.draw(st.sampled_from((Limits(),) * 12 + LIMITS[6:])),
        data.draw(st.sampled_from((False, False, True))),
        data.draw(st.sampled_from((Timeout(), Timeout(read=60), Timeout(total=60, read=60)))),
        data.draw(st.sampled_from((None,) * 6 + (0, 1, 2))),
    )
    byte_by_byte = [wire[i : i + 1] for i in range(len(wire))]
    expected = pipelined(loop, exchanges, byte_by_byte, end, options)
    pieces = data.draw(st.just([wire]) | cuts(wire))
    assert pipelined(loop, exchanges, pieces, end, options) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HTTP1Protocol, "_receive_batch", lambda self, plain, end: 0)
        assert pipelined(loop, exchanges, pieces, end, options) == expected
    if cut is None and options[3] is None:
        one_by_one = receive(loop, exchanges, (options[0], options[1], 262144), "general")
        for alone, behind in zip(one_by_one, expected[4:], strict=False):
            if alone[3][1] is not State.IDLE:
                break
            assert (behind[0], behind[1], behind[2][0], behind[2][1]) == (*alone[:2], *alone[2][:2])


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_a_line_over_its_limit_is_refused_behind_another_response_too() -> None:
    loop = asyncio.get_running_loop()
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    long = wire[:-2] + b"A: %b\r\n\r\n" % (b"a" * 40)
    exchanges = [("GET", wire), ("GET", long), ("GET", wire)]
    options = Limits(max_line=40), False, Timeout(), None
    seen = pipelined(loop, exchanges, [wire + long + wire], "stay", options)
    assert seen == pipelined(loop, exchanges, [wire, long, wire], "stay", options)
    assert seen[5][3][:2] == (
        HeadTooLarge,
        "GET http://h/: got more than 40 bytes when reading header line "
        "(waiting for the head, ; connection reused 1 time)",
    )
