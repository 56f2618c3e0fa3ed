"""No bytes of a peer, in whatever pieces, and no order of reads and cancels makes us hang or lie.

Everything runs in a ``ClosedWorld``, where a reader that nothing can wake any more is an error at
once. ``HYPOTHESIS_PROFILE=long`` runs a hundred times as many examples.
"""

from __future__ import annotations

import asyncio
import io
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from aiohttpconn import HTTPConnection, exchange
from aiohttpconn import response as response_module
from aiohttpconn.exceptions import HTTPException, IncompleteRead, RequestTimeout
from aiohttpconn.http11.chunked import encode_chunk

from .support.closed_world import ClosedWorld, Peer
from .support.strategies import FIELDS, MORE, cuts, responses

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aiohttpconn import HTTPResponse

    from .support.model import Response


@pytest.fixture(scope="module")
def world() -> Iterator[ClosedWorld]:
    loop = ClosedWorld()
    yield loop
    loop.close()


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scale the reader's sizes down, so that small bodies meet all of its ways."""
    monkeypatch.setattr(response_module, "LANDING_MIN", 6)
    monkeypatch.setattr(response_module, "LANDING_STEP", 16)
    monkeypatch.setattr(exchange, "_SMALL", 3)
    monkeypatch.setattr(exchange, "_MERGED", 8)


# Reading in any order --------------------------------------------------------------------------


class Op(NamedTuple):
    """One read. With *turns*, it is cancelled after so many turns of the loop."""

    name: str
    size: int
    turns: int | None


class Body(NamedTuple):
    """A body on the wire. *end*: what the peer does behind it; *cut*: bytes that it never sends."""

    content: bytes
    framing: str
    chunks: list[int]
    end: str
    cut: int
    high_water: int

    def wire(self) -> tuple[bytes, bytes, bool]:
        """Return (the response's bytes, the content that they hold, whether that is all)."""
        content, whole = self.content, True
        if self.cut:
            content, whole = content[: -self.cut], False
        head = b"HTTP/1.1 200 OK\r\n"
        if self.framing == "length":
            head += b"Content-Length: %d\r\n\r\n" % len(self.content)
            return head + content, content, whole
        if self.framing == "close":
            return head + b"\r\n" + content, content, self.end != "reset"
        body = b""
        at = 0
        for size in self.chunks:
            piece = content[at : at + size]
            body += encode_chunk(piece) if piece else b""
            at += size
        if content[at:]:
            body += encode_chunk(content[at:])
        body += b"0\r\nX: y\r\n\r\n" if whole else b""
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + body, content, whole


@st.composite
def bodies(draw: st.DrawFn) -> Body:
    text = st.lists(st.sampled_from([b"\n", b"a", b"bc", b"\r\n", b"defgh"]), max_size=24)
    content = draw(text.map(b"".join))
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    cut = draw(st.sampled_from([0, 0, 0, 1, 5])) if framing != "close" else 0
    cut = min(cut, len(content))
    ends = ["eof", "reset"] if cut or framing == "close" else ["stay", "eof", "reset"]
    chunks = draw(st.lists(st.integers(1, 12), max_size=8)) if framing == "chunked" else []
    high_water = draw(st.sampled_from([1, 2, 5, 16, exchange.HIGH_WATER]))
    return Body(content, framing, chunks, draw(st.sampled_from(ends)), cut, high_water)


NAMES = """\
read read1 readline readlines readinto readinto1 peek next iter_bytes iter_lines readall""".split()
OPS = st.lists(
    st.builds(
        Op,
        st.sampled_from(NAMES),
        st.integers(0, 20),
        st.sampled_from([None, None, None, 0, 1, 2, 3, 5]),
    ),
    max_size=12,
)


async def do(response: HTTPResponse, op: Op) -> bytes:
    """Do *op*; return the bytes it took."""
    size = op.size
    match op.name:
        case "read" | "read1" | "readline" | "peek":
            return await getattr(response, op.name)(size)
        case "readall":
            return await response.read()
        case "readlines":
            return b"".join(await response.readlines(size))
        case "readinto" | "readinto1":
            buffer = bytearray(size)
            return bytes(buffer[: await getattr(response, op.name)(buffer)])
        case "next":
            return await anext(response, b"")
        case "iter_bytes":
            async with aclosing(response.iter_bytes(size or None)) as pieces:
                return await anext(pieces, b"")
        case "iter_lines":
            async for line in response:
                return line
            return b""
    raise AssertionError(op)


def check_taken(op: Op, taken: bytes, rest: bytes) -> None:
    """Check what *op* took of *rest*, of which nothing was taken before."""
    assert rest.startswith(taken)
    source = io.BytesIO(rest)
    match op.name:
        case "read" | "readinto":
            assert taken == rest[: op.size]
        case "readall":
            assert taken == rest
        case "readline":
            assert taken == source.readline(op.size)
        case "next" | "iter_lines":
            assert taken == source.readline()
        case "readlines":
            # As io.IOBase: up to the line with which there are more bytes than asked for.
            assert taken == b"".join(until(source, op.size))
        case "iter_bytes" if op.size:
            assert taken == rest[: op.size]
        case "read1" | "readinto1" | "iter_bytes":
            assert bool(taken) == bool(rest and (op.size or op.name == "iter_bytes"))
            assert len(taken) <= op.size or op.name == "iter_bytes"
        case "peek":
            assert bool(taken) == bool(rest)


def until(source: io.BytesIO, hint: int) -> Iterator[bytes]:
    size = 0
    for line in source:
        yield line
        size += len(line)
        if 0 < hint < size:
            return


async def do_and_perhaps_cancel(response: HTTPResponse, op: Op) -> bytes | None:
    """Do *op*; return what it took, None if it was cancelled before it took anything."""
    if op.turns is None:
        return await do(response, op)
    task = asyncio.ensure_future(do(response, op))
    for _ in range(op.turns):
        await asyncio.sleep(0)
    task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return None


async def read_in_any_order(
    conn: HTTPConnection, content: bytes, whole: bool, ops: Sequence[Op]
) -> None:
    await conn.request("GET", "/")
    response = await conn.getresponse()
    at = 0
    for op in [*ops, Op("read", 7, None), Op("readall", 0, None)]:
        rest = content[at:]
        partial: bytes | None = None
        try:
            taken = await do_and_perhaps_cancel(response, op)
        except IncompleteRead as exc:
            partial = exc.partial
        if partial is not None:
            assert not whole, "a whole body is incomplete"
            # What had arrived was returned before, or is in partial, or is still to be read.
            assert op.name == "readlines" or partial == rest
            assert not partial or op.name == "readall"
            at += len(partial)
            continue
        if taken is None:
            continue
        check_taken(op, taken, rest)
        if whole and all(op.turns is None for op in ops):
            # Bytes that a read puts back, cancelled or failed, may be more.
            assert response.buffered <= response.high_water
        if op.name != "peek":
            at += len(taken)
        assert whole or op.name != "readall", "a truncated body is whole"
        assert whole or taken or not op.size or rest, "the end of a truncated body looks like one"
        if at < len(content):
            assert not response.isclosed()
    assert at == len(content)
    assert response.isclosed()
    assert response.complete == whole
    if not whole:
        with pytest.raises(IncompleteRead):
            await response.read()
        return
    assert await response.read() == await response.read1() == await response.peek() == b""
    assert [line async for line in response] == []
    if response.chunked:
        assert response.trailers.items() == [("X", "y")]


@pytest.mark.usefixtures("_small")
@MORE
@given(data=st.data(), body=bodies(), ops=OPS)
def test_the_same_bytes_in_the_same_order_however_they_are_read(
    world: ClosedWorld, data: st.DataObject, body: Body, ops: list[Op]
) -> None:
    wire, content, whole = body.wire()
    peer = Peer(world, data.draw(cuts(wire)), end=body.end)
    conn = HTTPConnection("h", dialer=peer.dial, high_water=body.high_water)
    try:
        world.run(read_in_any_order(conn, content, whole, ops))
    finally:
        conn.close()
    event(f"{body.framing}, {'whole' if whole else 'cut'}")


@given(data=st.data())
def test_the_same_bytes_in_the_same_order_in_real_sizes(
    world: ClosedWorld, data: st.DataObject
) -> None:
    size = data.draw(st.integers(60_000, 600_000))
    content = (b"0123456789abcde\n" * (size // 16 + 1))[:size]
    framing = data.draw(st.sampled_from(["length", "chunked", "close"]))
    chunks = data.draw(st.lists(st.integers(1, 200_000), max_size=4))
    cut = data.draw(st.sampled_from([0, 0, 1, 50_000])) if framing != "close" else 0
    body = Body(content, framing, chunks, "eof", cut, exchange.HIGH_WATER)
    wire, content, whole = body.wire()
    at = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=5)))
    pieces = [wire[i:j] for i, j in zip([0, *at], [*at, len(wire)], strict=True)]
    sizes = st.sampled_from([1, 1000, 65_535, 65_536, 100_000, 262_144, 300_000])
    kinds = st.sampled_from([name for name in NAMES if name not in ("readlines", "readall")])
    turns = st.sampled_from([None, None, 1, 3, 6])
    ops = data.draw(st.lists(st.builds(Op, kinds, sizes, turns), max_size=6))
    conn = HTTPConnection("h", dialer=Peer(world, pieces).dial)
    try:
        world.run(read_in_any_order(conn, content, whole, ops))
    finally:
        conn.close()


# Anything at all -------------------------------------------------------------------------------

DOCUMENTED = (HTTPException, OSError, RequestTimeout)


async def converse(conn: HTTPConnection, methods: Sequence[str], ops: Sequence[Op]) -> list[Any]:
    """Do requests, read their responses by *ops*; return what came, exceptions as their types."""
    seen: list[Any] = []
    for method in methods:
        try:
            await conn.request(method, "/")
            response = await conn.getresponse()
            seen.append((response.status, response.reason, response.getheaders()))
            body = b""
            try:
                for op in ops:
                    taken = await do(response, op)
                    body += taken if op.name != "peek" else b""
                body += await response.read()
            except IncompleteRead as exc:
                body += exc.partial
                if [op.name for op in ops if op.name == "readlines"]:
                    # It puts the lines back that it had; they are still to be read.
                    body += await rest_of(response)
                seen.append(IncompleteRead)
            seen.append((body, response.complete, response.trailers.items()))
        except DOCUMENTED as exc:
            failed: Exception = exc
        else:
            continue
        assert f"{method} http://h/" in str(failed), f"it does not name the request: {failed!r}"
        kinds = type(failed).__mro__
        seen.append(next(kind for kind in kinds if not kind.__module__.startswith("aiohttpconn")))
    return seen


async def rest_of(response: HTTPResponse) -> bytes:
    rest = b""
    try:
        while piece := await response.read1():
            rest += piece
    except IncompleteRead:
        pass
    return rest


def talk(
    world: ClosedWorld,
    scripts: Sequence[Sequence[bytes]],
    methods: Sequence[str],
    ops: Sequence[Op],
    **options: Any,
) -> list[Any]:
    """Converse with a peer that sends *scripts*, one per connection; nothing is left open."""
    peer = Peer(world, *scripts)
    conn = HTTPConnection("h", dialer=peer.dial, **options)
    try:
        seen = world.run(converse(conn, methods, ops))
    finally:
        conn.close()
    assert all(transport.is_closing() for transport in peer.transports)
    return seen


PLAIN_OPS = st.lists(
    st.builds(
        Op, st.sampled_from([n for n in NAMES if n != "peek"]), st.integers(0, 20), st.none()
    ),
    max_size=3,
)


@given(
    data=st.data(),
    parts=st.lists(responses(), min_size=1, max_size=3),
    ops=PLAIN_OPS,
    strict=st.booleans(),
    high_water=st.sampled_from([1, 7, exchange.HIGH_WATER]),
)
def test_no_response_makes_us_hang_or_raise_what_is_not_documented(
    world: ClosedWorld,
    data: st.DataObject,
    parts: list[Response],
    ops: list[Op],
    strict: bool,
    high_water: int,
) -> None:
    methods = [part.method for part in parts]
    # All on the first connection, whole; on the others the last response, cut off.
    wire = b"".join(part.data for part in parts)
    last = parts[-1].data[: data.draw(st.integers(0, len(parts[-1].data)))]
    seen = talk(world, [[wire], [last]], methods, ops, strict=strict, high_water=high_water)
    event(f"ends with {seen[-1].__name__ if isinstance(seen[-1], type) else 'a response'}")
    # A strict reader takes no more than one that is not.
    if strict and len(parts) == 1 and not any(isinstance(item, type) for item in seen):
        assert talk(world, [[wire], [last]], methods, ops) == seen


@given(data=st.data(), part=responses(), ops=PLAIN_OPS, strict=st.booleans())
def test_pieces_make_no_difference(
    world: ClosedWorld, data: st.DataObject, part: Response, ops: list[Op], strict: bool
) -> None:
    """One response, and the end: what comes of it does not depend on how it was cut."""
    exact = [op for op in ops if op.name in ("read", "readline", "readinto", "readall", "next")]
    pieces = data.draw(cuts(part.data))
    whole = talk(world, [[part.data]], [part.method], exact, strict=strict)
    assert talk(world, [pieces], [part.method], exact, strict=strict) == whole
    assert talk(world, [pieces], [part.method], exact, strict=strict, high_water=1) == whole


@given(
    noise=st.binary(max_size=60), fields=st.lists(FIELDS, max_size=3), spoil=st.binary(max_size=4)
)
@example(noise=b"HTTP/2 200 OK", fields=[], spoil=b"")
def test_noise(world: ClosedWorld, noise: bytes, fields: list[bytes], spoil: bytes) -> None:
    wires = [noise, b"HTTP/1.1 200 OK\r\n" + noise, b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(fields)]
    wires += [wires[2] + b"\r\n\r\n" + noise, wires[2] + spoil + b"\r\n\r\n"]
    wires.append(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + noise)
    for wire in wires:
        pieces = [wire[i : i + 1] for i in range(len(wire))]
        assert talk(world, [[wire]], ["GET"], []) == talk(world, [pieces], ["GET"], [])


# A response that is over is over ---------------------------------------------------------------


@MORE
@given(
    data=st.data(),
    count=st.integers(1, 4),
    garbage=st.sampled_from([b"", b"x", b"HTTP/1.1 200 OK\r\n"]),
)
def test_exchanges_on_one_connection_do_not_mix(
    world: ClosedWorld, data: st.DataObject, count: int, garbage: bytes
) -> None:
    """The peer stays: a response ends by its framing, and garbage ends the connection."""
    made = [data.draw(bodies())._replace(cut=0) for _ in range(count)]
    made = [body if body.framing != "close" else body._replace(framing="length") for body in made]
    # The same heads again and again, now and then without the bodies that they announce.
    made = [data.draw(st.sampled_from(made)) for _ in range(count + 1)]
    methods = data.draw(st.lists(st.sampled_from(["GET", "HEAD"]), min_size=count, max_size=count))
    exchanges = list(zip(methods, made, strict=False))
    wires = []
    for method, body in exchanges:
        wire = body.wire()[0]
        wires.append(wire if method == "GET" else wire[: wire.index(b"\r\n\r\n") + 4])
    scripts = [data.draw(cuts(wire + garbage)) for wire in wires]
    if garbage:
        peer = Peer(world, *scripts, end="stay")
    else:
        peer = Peer(world, [piece for script in scripts for piece in (*script, None)], end="stay")
    conn = HTTPConnection("h", dialer=peer.dial)

    async def main() -> None:
        for method, body in exchanges:
            await conn.request(method, "/")
            response = await conn.getresponse()
            assert await response.read() == (body.content if method == "GET" else b"")
            assert response.complete
            # The peer's garbage arrives.
            for _ in range(len(garbage) + 3):
                await asyncio.sleep(0)

    try:
        world.run(main())
    finally:
        conn.close()
    assert len(peer.sent) == (count if garbage else 1)
