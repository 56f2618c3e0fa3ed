"""The same calls, in any order, on ``http.client`` and on us: what they return, raise and leave.

After each call both connections are compared: the result or the type of the error, the state of the
connection, whether it has a socket, and the response. All sequences of two calls are tried, and
random longer ones. OTHERWISE lists the differences; where one shows, the two have gone different
ways, and the comparison of that sequence ends. Each entry has an example that shows that the
difference is real. The bytes of requests and responses are compared in
``test_requests_against_http_client.py`` and ``test_against_http_client.py``.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from aiohttpconn import HTTPConnection, HTTPSConnection
from aiohttpconn.exceptions import BadStatusLine, BodyLengthError, CannotSendRequest, IncompleteRead

from .support import stdlib_client
from .support.closed_world import ClosedWorld, MemoryTransport, Peer
from .support.strategies import MORE

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator, Sequence

REPLIES = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "empty": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "until the end": b"HTTP/1.1 200 OK\r\n\r\nhi",
    "close": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
    "nonsense": b"nonsense\r\n\r\n",
    "nothing": b"",
    "cut": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
}
ENDS = {"until the end", "close", "nonsense", "nothing", "cut"}
"""Replies after which the server ends the connection."""

CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "connect": lambda conn, _: conn.connect(),
    "get": lambda conn, _: conn.request("GET", "/"),
    "post": lambda conn, _: conn.request("POST", "/", b"body"),
    "bad method": lambda conn, _: conn.request("G\nT", "/"),
    "putrequest": lambda conn, _: conn.putrequest("POST", "/"),
    "putheader": lambda conn, _: conn.putheader("X-A", "b"),
    "put length": lambda conn, _: conn.putheader("Content-Length", "4"),
    "endheaders": lambda conn, _: conn.endheaders(),
    "endheaders with a body": lambda conn, _: conn.endheaders(b"body"),
    "send": lambda conn, _: conn.send(b"body"),
    "getresponse": lambda conn, _: conn.getresponse(),
    "read": lambda _, response: response and response.read(),
    "read one": lambda _, response: response and response.read(1),
    "read none": lambda _, response: response and response.read(0),
    "read1": lambda _, response: response and response.read1(),
    "readline": lambda _, response: response and response.readline(),
    "readinto": lambda _, response: response and response.readinto(bytearray(3)),
    "headers": lambda _, response: response and (response.getheaders(), response.getcode()),
    "close response": lambda _, response: response and response.close(),
    "close": lambda conn, _: conn.close(),
    "set_tunnel": lambda conn, _: conn.set_tunnel("origin.test", 443),
}


READS = ["read", "read one", "read none", "read1", "readline", "readinto", "close response"]


class Step(NamedTuple):
    """A call, what it returned or raised, and what it left."""

    call: str
    result: object
    error: Exception | None
    state: str
    has_socket: bool
    response: tuple[Any, ...] | None


def step(conn: Any, state: str, call: str, result: object, error: Any, response: Any) -> Step:
    seen = None
    if response is not None:
        seen = (response.status, response.isclosed(), response.will_close)
    return Step(call, result, error, state, conn.sock is not None, seen)


# http.client -----------------------------------------------------------------------------------


class Socket(stdlib_client.FakeSocket):
    """A socket whose peer has sent the same reply to each request."""

    def __init__(self, reply: bytes) -> None:
        super().__init__()
        self._reply = reply

    def makefile(self, mode: str) -> io.BufferedReader:
        self._replies.append(self._reply)
        return super().makefile(mode)


def by_http_client(calls: Sequence[str], reply: str) -> tuple[list[Step], bytes]:
    """Return what *calls* did on ``http.client``, and the bytes that were sent."""
    sockets: list[Socket] = []

    def connect(*_: Any) -> Socket:
        sockets.append(Socket(REPLIES[reply]))
        return sockets[-1]

    conn: Any = http.client.HTTPConnection("h")
    conn._create_connection = connect
    conn._tunnel = lambda: None
    response, steps = None, []
    for call in calls:
        result, error = None, None
        try:
            result = CALLS[call](conn, response)
        except (http.client.HTTPException, OSError, ValueError, RuntimeError) as exc:
            error = exc
        if call == "getresponse" and error is None:
            response, result = result, None
        state = conn._HTTPConnection__state
        steps.append(step(conn, state, call, result, error, response))
    return steps, b"".join(sock.sent for sock in sockets)


# This package ----------------------------------------------------------------------------------


class Server(Peer):
    """A peer that answers each request when it is whole."""

    def __init__(self, world: ClosedWorld, reply: str) -> None:
        super().__init__(world, [], end="eof" if reply in ENDS else "stay")
        self.reply = REPLIES[reply]

    async def dial(self, factory: Any, destination: Any, report: Any) -> Any:
        protocol = factory()
        transport = Answering(self._world, protocol, self, len(self.sent), [], self._end)
        self.sent.append(b"")
        self.transports.append(transport)
        protocol.connection_made(transport)
        return transport, protocol


class Answering(MemoryTransport):
    _peer: Server
    _unread = b""

    def write(self, data: Any) -> None:
        if self._closing:
            return
        self._peer.sent[self._index] += bytes(data)
        self._unread += bytes(data)
        while b"\r\n\r\n" in self._unread:
            head, _, rest = self._unread.partition(b"\r\n\r\n")
            length = re.search(rb"Content-Length: (\d+)", head)
            size = int(length[1]) if length else 0
            if len(rest) < size:
                return
            self._unread = rest[size:]
            if self._peer.reply and not (self._started and self._end == "eof"):
                self._pieces.append(self._peer.reply)
            self._started = True
            self._schedule()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "socket" and not self._closing else default


def by_us(world: ClosedWorld, calls: Sequence[str], reply: str) -> tuple[list[Step], bytes]:
    server = Server(world, reply)

    async def main() -> list[Step]:
        conn = HTTPConnection("h", dialer=server.dial)
        response, steps = None, []
        for call in calls:
            result, error = None, None
            try:
                made = CALLS[call](conn, response)
                result = await made if asyncio.iscoroutine(made) else made
            except (http.client.HTTPException, OSError, ValueError, RuntimeError) as exc:
                error = exc
            if call == "getresponse" and error is None:
                response, result = result, None
            steps.append(step(conn, conn._state, call, result, error, response))
        conn.close()
        return steps

    return world.run(main()), b"".join(server.sent)


# The differences -------------------------------------------------------------------------------


@dataclass
class Otherwise:
    """A difference that shows in the last call of *example*.

    *applies* is asked of the calls so far, of the last step of both, and of the bytes sent.
    """

    name: str
    why: str
    example: tuple[str, ...]
    reply: str
    applies: Callable[[Sequence[str], Step, Step], bool]


def over(seen: Step) -> bool:
    return seen.response is not None and seen.response[1]


OTHERWISE = [
    Otherwise(
        "send without a request",
        "nobody could read the answer, and on a kept connection it is the next request's body",
        ("send",),
        "length",
        lambda _, theirs, ours: (
            ours.call == "send"
            and theirs.error is None
            and isinstance(ours.error, (CannotSendRequest, BodyLengthError))
        ),
    ),
    Otherwise(
        "refused request",
        "nothing of it is left: http.client stays in Request-started until close()",
        ("bad method",),
        "length",
        lambda _, theirs, ours: (
            ours.call == "bad method"
            and isinstance(ours.error, ValueError)
            and (ours.state, theirs.state) == ("Idle", "Request-started")
        ),
    ),
    Otherwise(
        "single field given twice",
        "of two lengths another server takes the other",
        ("putrequest", "put length", "put length"),
        "length",
        lambda calls, theirs, ours: ours.call == "put length" and "given twice" in str(ours.error),
    ),
    Otherwise(
        "wrong Content-Length",
        "a body that is too short is filled up from the next request, one that is too long is it",
        ("putrequest", "put length", "endheaders", "getresponse"),
        "length",
        lambda calls, theirs, ours: isinstance(ours.error, BodyLengthError),
    ),
    Otherwise(
        "connect during an exchange",
        "the answer came, or will come, on the connection before; http.client waits on the new one",
        ("get", "connect", "getresponse"),
        "length",
        lambda calls, theirs, ours: (
            "connect" in calls and "closed by this program" in str(ours.error)
        ),
    ),
    Otherwise(
        "send after a connect",
        "the head is on the connection before, so this is no part of the new one's request",
        ("putrequest", "put length", "endheaders", "connect", "send"),
        "length",
        lambda calls, theirs, ours: (
            ours.call == "send" and "connect" in calls and theirs.has_socket
        ),
    ),
    Otherwise(
        "failed getresponse",
        "the connection cannot be used again; http.client closes it after a ConnectionError alone",
        ("get", "getresponse"),
        "nonsense",
        lambda calls, theirs, ours: (
            ours.call == "getresponse"
            and isinstance(ours.error, BadStatusLine)
            and isinstance(theirs.error, BadStatusLine)
            and (ours.state, ours.has_socket) == ("Idle", False)
        ),
    ),
    Otherwise(
        "complete at once",
        "an empty body needs no read() to be over",
        ("get", "getresponse"),
        "empty",
        lambda calls, theirs, ours: over(ours) and not over(theirs),
    ),
    Otherwise(
        "broken body",
        "the connection has ended; http.client keeps its socket until close()",
        ("get", "getresponse", "read"),
        "cut",
        lambda calls, theirs, ours: (
            theirs.has_socket
            and not ours.has_socket
            and isinstance(ours.error, IncompleteRead) == isinstance(theirs.error, IncompleteRead)
            and ours.response is not None
        ),
    ),
    Otherwise(
        "short reads",
        "a body that is cut is never taken for a whole one",
        ("get", "getresponse", "read one", "read one", "read one"),
        "cut",
        lambda calls, theirs, ours: (
            ours.call in READS and isinstance(ours.error, IncompleteRead) and not theirs.result
        ),
    ),
    Otherwise(
        "half-made request",
        "close() drops it; http.client sends its lines with the next request",
        ("putrequest", "close", "get"),
        "length",
        lambda calls, theirs, ours: (
            "close" in calls and "putrequest" in calls and ours.error is None is theirs.error
        ),
    ),
]


# The comparison --------------------------------------------------------------------------------


def differ(theirs: Step, ours: Step) -> bool:
    if (theirs.error is None) != (ours.error is None):
        return True
    if theirs.error is not None:
        words = str(theirs.error)
        if not isinstance(ours.error, type(theirs.error)):
            return True
        own_words = isinstance(theirs.error, (http.client.ImproperConnectionState, ValueError))
        if own_words and not str(ours.error).startswith(words):  # ours may say more
            return True
    return theirs._replace(error=None) != ours._replace(error=None)


def compare(world: ClosedWorld, calls: Sequence[str], reply: str) -> str:
    """Do *calls* by both; return the name of the difference that ended the comparison, or ""."""
    theirs, their_bytes = by_http_client(calls, reply)
    ours, our_bytes = by_us(world, calls, reply)
    for number, (their_step, our_step) in enumerate(zip(theirs, ours, strict=True), 1):
        if differ(their_step, our_step):
            for entry in OTHERWISE:
                if entry.applies(calls[:number], their_step, our_step):
                    return entry.name
            raise AssertionError(f"{reply}, {calls[:number]}:\n  {their_step}\n  {our_step}")
    if their_bytes != our_bytes:
        for entry in OTHERWISE:
            if any(entry.applies(calls, a, b) for a, b in zip(theirs, ours, strict=True)):
                return entry.name
        raise AssertionError(f"{reply}, {calls}: {their_bytes!r}, {our_bytes!r}")
    return ""


@pytest.fixture(scope="module")
def world() -> Iterator[ClosedWorld]:
    loop = ClosedWorld()
    yield loop
    loop.close()


@pytest.mark.parametrize("reply", REPLIES)
def test_all_pairs_of_calls(world: ClosedWorld, reply: str) -> None:
    for calls in itertools.product(CALLS, repeat=2):
        compare(world, calls, reply)


@pytest.mark.parametrize("reply", REPLIES)
def test_all_ways_to_read_a_response(world: ClosedWorld, reply: str) -> None:
    for reads in itertools.product(READS, repeat=3):
        compare(world, ("get", "getresponse", *reads, "get", "getresponse"), reply)


@pytest.mark.siege
@pytest.mark.parametrize("reply", REPLIES)
def test_all_sequences_of_three_calls(world: ClosedWorld, reply: str) -> None:
    for calls in itertools.product(CALLS, repeat=3):
        compare(world, calls, reply)


@MORE
@given(
    calls=st.lists(st.sampled_from(sorted(CALLS)), min_size=3, max_size=12),
    reply=st.sampled_from(sorted(REPLIES)),
)
def test_random_calls(world: ClosedWorld, calls: list[str], reply: str) -> None:
    event(compare(world, calls, reply) or "the same")


@MORE
@given(
    exchanges=st.lists(
        st.sampled_from(
            [
                ("get", "getresponse", "read"),
                ("post", "getresponse", "read one", "read"),
                ("putrequest", "putheader", "endheaders", "getresponse", "read"),
                ("putrequest", "put length", "endheaders", "send", "getresponse", "read"),
                ("putrequest", "put length", "endheaders with a body", "getresponse", "read"),
                ("get", "getresponse", "get", "read", "getresponse", "read"),
                ("get", "close"),
                ("connect",),
                ("close response",),
            ]
        ),
        min_size=1,
        max_size=6,
    ),
    odd=st.lists(st.tuples(st.integers(0, 30), st.sampled_from(sorted(CALLS))), max_size=2),
    reply=st.sampled_from(sorted(REPLIES)),
)
def test_usual_calls_with_an_odd_one_among_them(
    world: ClosedWorld, exchanges: list[tuple[str, ...]], odd: list[tuple[int, str]], reply: str
) -> None:
    calls = [call for exchange in exchanges for call in exchange]
    for place, call in odd:
        calls.insert(place, call)
    event(compare(world, calls, reply) or "the same")


@pytest.mark.parametrize("entry", OTHERWISE, ids=lambda entry: entry.name)
def test_each_difference_is_real(world: ClosedWorld, entry: Otherwise) -> None:
    assert compare(world, entry.example, entry.reply) == entry.name
    assert compare(world, entry.example[:-1], entry.reply) == ""


# What needs more than calls in order ------------------------------------------------------------


async def test_a_tunnel_made_by_hand_is_read_after_detach(scripted: Any) -> None:
    """http.client's response reads the tunnel, which ends with the connection; ours is over."""
    answer = b"HTTP/1.1 200 OK\r\n\r\nraw"
    sock = stdlib_client.FakeSocket(answer)
    their_conn = stdlib_client.connection(sock, "h")
    their_conn.request("CONNECT", "o:1")
    theirs = their_conn.getresponse()
    assert (theirs.isclosed(), theirs.read()) == (False, b"raw")
    theirs.close()
    async with scripted(answer) as conn:
        await conn.request("CONNECT", "o:1")
        ours = await conn.getresponse()
        assert (ours.isclosed(), await ours.read()) == (True, b"")
        with pytest.raises(ValueError, match="has no socket any more"):
            ours.fileno()
        transport, leftover = conn.detach()
        assert leftover == b"raw"
        transport.abort()


PRIVATE = [
    name
    for name in vars(http.client.HTTPConnection)
    if name.startswith("_") and not name.startswith("__")
] + ["_create_connection"]


@pytest.mark.parametrize("kind", [HTTPConnection, HTTPSConnection])
@pytest.mark.parametrize("name", PRIVATE)
def test_a_subclass_that_overrides_what_is_never_called_is_refused(kind: type, name: str) -> None:
    if name in ("_http_vsn", "_http_vsn_str", "_get_hostport"):
        return  # they are there, and mean the same
    with pytest.raises(TypeError, match=f"^Own overrides {name} of http.client, which nothing"):
        type("Own", (kind,), {name: lambda self, *args: None})


def test_a_subclass_may_override_what_is_called() -> None:
    class Own(HTTPConnection):
        _http_vsn = 10

        def putrequest(self, method: str, url: str, *args: Any, **keywords: Any) -> None:
            super().putrequest(method, url.replace(" ", "%20"), *args, **keywords)

        def _get_hostport(self, host: str, port: int | None) -> tuple[str, int]:
            return "own", 7

    assert (Own("h").host, Own("h").port) == ("own", 7)
