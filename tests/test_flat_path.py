"""The fast ways of receiving a response decide as the general way does.

The protocol has a way for each case that is common enough, and each must see the same as the next:

    flat            ``buffer_updated``: one whole 200 with a Content-Length, in one read
    batch           ``_receive_batch``: such responses one after another, of pipelined requests
    plain heads     ``match_common_head``: a usual head by one pattern, whatever its body
    general         ``HeadReader``, ``response_framing``: every head, in any number of reads

So the proof is a comparison: random responses, tidy and broken, go through the fast ways, and again
with one of these switched off, or in pieces for which it does not apply. The head, the framing, the
body, the error and the state of the connection must be the same. What is right in the first place
is proven elsewhere, against ``http.client`` and a model (``test_against_http_client.py``).

At the end of this file, ``receive`` and ``pipelined`` run the exchanges, without a socket; the
responses are drawn in ``support/random_responses.py``.
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
from aiohttpconn.pipelining import PipeliningProtocol
from aiohttpconn.protocol import SEEN_HEADS, HTTP1Protocol
from aiohttpconn.source import State

from .support.random_responses import TIGHT_LIMITS, random_exchange, wire_responses
from .support.strategies import cuts

CASES = 1500
"""Connections, of up to three exchanges each, for each way that is compared."""

# One response at a time ------------------------------------------------------------------------


@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.parametrize("way", ["general", "no plain head", "in 7s", "byte by byte"])
async def test_every_way_of_receiving_sees_the_same(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    loop = asyncio.get_running_loop()
    source = random.Random(9112)
    choice = source.choice
    for _ in range(CASES):
        exchanges = [random_exchange(choice) for _ in range(choice((1, 1, 2, 3)))]
        limits = choice((Limits(),) * 6 + TIGHT_LIMITS)
        options = limits, choice((False, False, True)), choice((262144,) * 5 + (1, 7))
        flat = receive(loop, exchanges, options, "flat")
        with monkeypatch.context() as patch:
            if way == "no plain head":
                patch.setattr(aiohttpconn.protocol, "match_common_head", lambda *_: None)
                # No head that was matched before, either.
                patch.setattr(aiohttpconn.protocol, "_seen_heads", lambda limits, size: {})
            assert receive(loop, exchanges, options, way) == flat, (exchanges, options)


def test_many_responses_take_the_fast_ways() -> None:
    """The comparison would prove nothing otherwise."""
    choice = random.Random(9112).choice
    plain = flat = 0
    for _ in range(CASES):
        _, data = random_exchange(choice)
        head = aiohttpconn.protocol.match_common_head(
            bytearray(data), 0, len(data), Limits().max_fields, Limits().max_line
        )
        if head is not None:
            plain += 1
            flat += head[0] == len(data)
    assert (plain > CASES / 4, flat > CASES / 8) == (True, True), (plain, flat)


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


# Pipelined ------------------------------------------------------------------------------------

STRAY = b"HTTP/1.1 200 OK\r\nServer: s\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.asyncio(loop_factories=["asyncio"])
@hypothesis.settings(max_examples=4 * hypothesis.settings.default.max_examples)
@hypothesis.given(
    exchanges=st.lists(wire_responses(), min_size=1, max_size=6),
    garbage=st.sampled_from((b"",) * 6 + (b"X", b"\r\n", STRAY)),
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
        data.draw(st.sampled_from((Limits(),) * 12 + TIGHT_LIMITS)),
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


# How they are received -------------------------------------------------------------------------


class Transport(asyncio.Transport):
    """A transport that writes nowhere; ``ended`` tells whether it was closed."""

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


def receive(
    loop: Any, exchanges: list[tuple[str, bytes]], options: Any, way: str
) -> list[tuple[Any, ...]]:
    """Return what became of each exchange, one after the other, received in the given *way*.

    "flat" takes the fast ways, "general" all but the flat one; "in 7s" and "byte by byte" are
    pieces that have to be put together.
    """
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
            protocol._slow_path = True
        size = {"in 7s": 7, "byte by byte": 1}.get(way, len(data))
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            while piece:
                buffer = protocol.get_buffer(-1)
                count = min(len(buffer), len(piece))
                buffer[:count] = piece[:count]
                protocol.buffer_updated(count)
                piece = piece[count:]
        if not response.ended:
            protocol.eof_received()
        head = response.head is not None
        unread = [bytes(response.first)[response._offset :], *map(bytes, response._queue or ())]
        seen.append(
            (
                head and (response.status, response.reason, response.version, response.head),
                head and (response.chunked, response.will_close, response.remaining),
                (b"".join(unread), response.received, response.ended),
                (type(response.failure), protocol.state, transport.ended),
            )
        )
    return seen


class Recorder:
    """A connection's owner: ``told`` has what it was told, ``state`` the protocol's state then."""

    def __init__(self) -> None:
        self.protocol: Any = None
        self.responses: list[Any] = []
        self.told: list[Any] = []

    def exchange_ended(self, protocol: Any, response: Any, count: int = 1) -> None:
        for _ in range(count):
            number = sum(what == "ended" for what, *_ in self.told)
            assert self.responses[number].ended
            self.told.append(("ended", number))
        assert response is self.responses[number]
        self.state = self.protocol.state

    def last_exchange_ended(self, protocol: Any, response: Any) -> None: ...

    def connection_ended(self, protocol: Any) -> None:
        assert ("closed",) not in self.told, "told of one end twice"
        self.told.append(("closed",))

    def transport_lost(self, protocol: Any) -> None: ...


def pipelined(
    loop: Any, exchanges: list[tuple[str, bytes]], pieces: list[bytes], end: str, options: Any
) -> list[Any]:
    """Return what becomes of *exchanges*, all begun before the first of *pieces* arrives."""
    limits, strict, timeout, last = options
    owner = Recorder()
    protocol = PipeliningProtocol(loop, "http://h", limits=limits, strict=strict, timeout=timeout)
    transport = Transport()
    protocol.connection_made(transport)
    owner.protocol, protocol.owner = protocol, owner
    for number, (method, _) in enumerate(exchanges):
        response = protocol.start(method, "/", b"", True)
        response.head_waiter = loop.create_future()
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
        # The end takes back what was told before it, which may have been in the same read.
        owner.told = [("closed",)]
    seen: list[Any] = [owner.told, protocol.state, transport.ended, len(protocol._queued or ())]
    for response in owner.responses:
        head = response.head is not None
        exc = response.failure
        unread = [bytes(response.first)[response._offset :], *map(bytes, response._queue or ())]
        seen.append(
            (
                head and (response.status, response.reason, response.version, response.head),
                head and (response.chunked, response.will_close, response.remaining),
                (b"".join(unread), response.received, response.buffered, response.ended),
                (type(exc), re.sub(r"[\d.]+ ms", "", str(exc)), getattr(exc, "unanswered", None)),
                response.head_waiter.done(),
                response.trailers.items() if response.ended and head else None,
            )
        )
    if protocol._watchdog is not None:
        protocol._watchdog.stop()
    return seen
