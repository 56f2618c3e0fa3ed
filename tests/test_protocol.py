"""protocol.py: states, several exchanges on one transport, 1xx, upgrades, and every end."""

from __future__ import annotations

import asyncio

import pytest

from aiohttpconn import (
    Destination,
    HTTP1Protocol,
    HTTPConnection,
    HTTPException,
    HTTPSConnection,
    IncompleteRead,
    Limits,
    NotConnected,
    NotProcessed,
    RemoteDisconnected,
    Timeout,
    dial,
)
from aiohttpconn.exceptions import CannotSendRequest, MalformedResponse
from aiohttpconn.protocol import BODY, CLOSED, HEAD, IDLE

from .support import (
    GARBAGE,
    ScriptedServer,
    close,
    deliveries,
    expect,
    named_deliveries,
    notify,
    read_all,
    reset,
    send,
    wait,
    with_trailing_garbage,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


async def turns(n: int = 20) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


class Open:
    """``async with Open(script) as (protocol, server)``: a protocol on a real transport."""

    def __init__(self, *scripts, **options) -> None:
        self.server = ScriptedServer(*scripts)
        self.options = options

    async def __aenter__(self):
        await self.server.__aenter__()
        loop = asyncio.get_running_loop()
        origin = f"http://127.0.0.1:{self.server.port}"
        _, self.protocol = await dial(
            lambda: HTTP1Protocol(loop, origin, **self.options),
            Destination("127.0.0.1", self.server.port),
        )
        return self.protocol, self.server

    async def __aexit__(self, *exc_info):
        self.protocol.abort()
        await self.protocol.wait_closed(1)
        await self.server.__aexit__(*exc_info)


def get(protocol, path: str, method: str = "GET"):
    return protocol.start(method, path, f"{method} {path} HTTP/1.1\r\n\r\n".encode(), True)


async def ended(response) -> None:
    while not response.ended:
        await asyncio.sleep(0)


async def whole(response) -> bytes:
    """Return its body, once its head is here: earlier, nobody has a response."""
    while not response.has_head:
        await asyncio.sleep(0)
    return await response.read()


async def closed(protocol) -> None:
    while protocol.state is not CLOSED:
        await asyncio.sleep(0)


# Who ends it -----------------------------------------------------------------------------------

CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"


@pytest.mark.parametrize(
    ("steps", "by_peer"),
    [
        pytest.param([send(CLOSING), read_all()], True, id="its-response-says-close"),
        pytest.param([send(CLOSING[:-2]), send(b"hi"), read_all()], True, id="before-a-late-body"),
        pytest.param([send(OK), close()], True, id="eof"),
        pytest.param([send(b"HTTP/1.1 200 OK\r\n\r\nhi"), close()], True, id="eof-ends-the-body"),
        pytest.param([send(OK + b"x"), read_all()], False, id="stray-bytes"),
    ],
)
async def test_whether_the_peer_ended_the_connection(steps, by_peer):
    async with Open([expect(), *steps]) as (protocol, _):
        assert await whole(get(protocol, "/")) == b"hi"
        await closed(protocol)
        assert protocol.closed_by_peer == by_peer


@pytest.mark.parametrize(("wire", "by_peer"), [(OK, False), (CLOSING, True)])
async def test_a_request_that_says_close_is_not_the_peers_end(wire, by_peer):
    async with Open([expect(), send(wire), read_all()]) as (protocol, _):
        response = get(protocol, "/")
        protocol.close_after(response)
        assert await whole(response) == b"hi"
        assert response.will_close
        await closed(protocol)
        assert protocol.closed_by_peer == by_peer


async def test_an_owner_that_leaves_is_not_the_peers_end():
    go_on = asyncio.Event()
    async with Open([expect(), send(OK[:-1]), wait(go_on), send(b"i"), read_all()]) as (
        protocol,
        _,
    ):
        response = get(protocol, "/")
        while not response.has_head:
            await asyncio.sleep(0)
        protocol.release_to_response()
        go_on.set()
        assert await response.read() == b"hi"
        await closed(protocol)
        assert not protocol.closed_by_peer


# States ----------------------------------------------------------------------------------------


async def test_the_states_of_an_exchange():
    go_on = asyncio.Event()
    steps = [expect(), send(OK[:-2]), wait(go_on), send(b"hi")]
    async with Open(steps) as (protocol, _):
        assert protocol.state is IDLE
        response = get(protocol, "/")
        assert protocol.state is HEAD
        while not response.has_head:
            await asyncio.sleep(0)
        assert protocol.state is BODY
        go_on.set()
        assert await response.read() == b"hi"
        assert protocol.state is IDLE
        protocol.close()
        assert protocol.state is CLOSED


async def test_a_buffer_is_a_view_and_asking_for_it_changes_nothing():
    async with Open([expect(), send(OK)]) as (protocol, _):
        first = protocol.get_buffer(-1)
        assert isinstance(first, memoryview)
        assert protocol.get_buffer(65536) is first
        response = get(protocol, "/")
        assert protocol.get_buffer(-1) is first
        await ended(response)
        assert await response.read() == b"hi"


async def test_idle_connections_of_a_loop_share_their_buffer():
    async with Open() as (one, _), Open() as (other, _):
        assert one.get_buffer(-1).obj is other.get_buffer(-1).obj


async def test_a_view_that_was_asked_for_in_vain_is_not_used_later():
    # TLS asks for a buffer before it knows whether it has a whole record. In between the
    # reader whose memory it was has gone.
    body = b"x" * 300_000
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n"
    go_on = asyncio.Event()
    async with Open([expect(), send(head), wait(go_on), send(body)]) as (protocol, _):
        response = get(protocol, "/")
        while not response.has_head:
            await asyncio.sleep(0)
        task = asyncio.create_task(response.read())
        await turns(3)
        assert len(protocol.get_buffer(-1)) == 300_000
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        assert await response.read() == body


@pytest.mark.parametrize("data", [b"x", b"\r\n", OK], ids=["byte", "crlf", "response"])
async def test_idle_connection_closes_on_unsolicited_bytes(data):
    async with Open([send(data), read_all()]) as (protocol, server):
        while protocol.state is not CLOSED:
            await asyncio.sleep(0)
        await server.conns[0].wait_ended()


async def test_idle_connection_closes_on_eof():
    async with Open([close(), read_all()]) as (protocol, server):
        while protocol.state is not CLOSED:
            await asyncio.sleep(0)
        await server.conns[0].wait_ended()


@pytest.mark.parametrize("pieces", with_trailing_garbage(OK))
async def test_bytes_after_a_body_are_never_the_next_response(pieces):
    async with ScriptedServer([expect(), send(*pieces), read_all()], [expect(), send(OK)]) as s:
        async with HTTPConnection(s.host, s.port) as conn:
            await conn.request("GET", "/")
            assert await (await conn.getresponse()).read() == b"hi"
            while conn.sock is not None:
                await asyncio.sleep(0)
            await conn.request("GET", "/")
            response = await conn.getresponse()
            assert (response.status, await response.read()) == (200, b"hi")
            assert s.connections == 2


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nServer:\tx\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_a_body_where_none_may_be_is_a_leftover(head):
    async with Open([expect(), send(head + b"body"), read_all()]) as (protocol, _):
        response = get(protocol, "/")
        await ended(response)
        assert await response.read() == b""
        assert response.complete
        assert protocol.state is CLOSED


async def test_late_callbacks_of_a_dead_transport_change_nothing():
    async with Open([expect(), read_all()]) as (protocol, _):
        response = get(protocol, "/")
        protocol.abort()
        with pytest.raises(
            ConnectionAbortedError, match="the connection was closed by this program"
        ):
            response.raise_failure()
        await protocol.wait_closed(1)
        protocol.get_buffer(-1)[: len(OK)] = OK
        protocol.buffer_updated(len(OK))
        protocol.eof_received()
        protocol.resume_writing()
        protocol.connection_lost(OSError("again"))
        assert protocol.state is CLOSED
        assert not response.complete
        assert protocol.get_extra_info("socket") is None


async def test_wait_closed_aborts_a_peer_that_holds_on(certificates):
    # Over TLS, the peer's close_notify is waited for.
    hold = asyncio.Event()
    async with ScriptedServer([expect(), send(OK), wait(hold)], tls=certificates.server) as server:
        conn = HTTPSConnection("localhost", server.port, context=certificates.client)
        await conn.request("GET", "/")
        await (await conn.getresponse()).read()
        protocol = conn._protocol
        conn.close()
        await protocol.wait_closed(0.02)
        assert protocol.transport is None
        await conn.wait_closed()


# Several exchanges -----------------------------------------------------------------------------

MIXED = [
    ("GET", OK, b"hi"),
    ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", b""),
    ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc"),
    ("GET", b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", b""),
    ("GET", b"HTTP/1.1 404 No\r\nX: y\nContent-Length: 3\r\n\r\nnay", b"nay"),
    ("GET", b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n.", b"."),
]


async def test_pipelined_responses_come_in_order_however_they_are_delivered():
    wire = b"".join(data for _, data, _ in MIXED)
    for name, pieces in named_deliveries(wire, splits=40):
        steps = [expect()] * len(MIXED) + [send(*pieces)]
        async with Open(steps) as (protocol, _):
            responses = [get(protocol, f"/{i}", m) for i, (m, _, _) in enumerate(MIXED)]
            assert protocol.exchanges == len(MIXED)
            bodies = [await whole(response) for response in responses]
            assert bodies == [body for _, _, body in MIXED], name
            assert [response.target for response in responses] == [f"/{i}" for i in range(6)]
            assert [response.status for response in responses] == [200, 200, 200, 204, 404, 200]
            assert all(response.complete for response in responses)
            assert protocol.state is IDLE


async def test_pipelined_requests_may_begin_between_responses():
    async with Open([expect(), expect(), send(OK), expect(), send(OK * 2)]) as (protocol, _):
        first, second = get(protocol, "/1"), get(protocol, "/2")
        await ended(first)
        third = get(protocol, "/3")
        for response in (first, second, third):
            assert await whole(response) == b"hi"
        assert protocol.state is IDLE


@pytest.mark.parametrize("pieces", with_trailing_garbage(OK * 3))
async def test_a_leftover_behind_the_last_pipelined_response(pieces):
    async with Open([expect(), expect(), expect(), send(*pieces), read_all()]) as (protocol, _):
        responses = [get(protocol, f"/{i}") for i in range(3)]
        for response in responses:
            assert await whole(response) == b"hi"
        while protocol.state is not CLOSED:
            await asyncio.sleep(0)
        assert GARBAGE in b"".join(pieces)


ENDS = {
    "fin": ([send(OK), close()], RemoteDisconnected, "Remote end closed connection without"),
    "rst": ([send(OK), reset()], ConnectionResetError, ""),
    "garbage": (
        [send(OK + b"what?\r\n\r\n")],
        RemoteDisconnected,
        "bytes behind the last response, and no response",
    ),
    "half a head": (
        [send(OK + b"HTTP/1.1 200"), close()],
        RemoteDisconnected,
        "in the middle of the response's head: b'HTTP/1.1 200'",
    ),
    "bad framing": (
        [send(OK + b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n")],
        MalformedResponse,
        "Content-Length must be 1 to 19 digits, got '+2'",
    ),
}


@pytest.mark.parametrize("case", ENDS)
async def test_whatever_ends_one_fails_those_behind_as_not_processed(case):
    steps, kind, text = ENDS[case]
    async with Open([*[expect()] * 4, *steps]) as (protocol, server):
        first, second, *behind = (get(protocol, f"/{i}") for i in range(4))
        assert await whole(first) == b"hi"
        await ended(second)
        with pytest.raises(kind) as info:
            second.raise_failure()
        assert text in str(info.value)
        assert str(info.value).startswith(f"GET http://127.0.0.1:{server.port}/1: ")
        assert not isinstance(info.value, NotProcessed)
        for i, response in enumerate(behind):
            with pytest.raises(NotProcessed) as info:
                response.raise_failure()
            assert str(info.value).startswith(
                f"GET http://127.0.0.1:{server.port}/{i + 2}: the connection ended before this "
                "request was answered (waiting for the head, "
            )
            assert info.value.url == f"http://127.0.0.1:{server.port}/{i + 2}"
        assert protocol.state is CLOSED


@pytest.mark.parametrize("fields", [b"Connection: close\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_a_response_that_closes_fails_those_behind(fields):
    # Both fields of the second case together make the connection unfit for more.
    body = b"2\r\nhi\r\n0\r\n\r\n" if b"chunked" in fields else b"hi"
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + fields + b"\r\n" + body
    async with Open([expect(), expect(), send(data + OK), read_all()]) as (protocol, _):
        first, second = get(protocol, "/1"), get(protocol, "/2")
        assert await whole(first) == b"hi"
        with pytest.raises(NotProcessed):
            second.raise_failure()


async def test_a_cut_body_fails_those_behind():
    async with Open([expect(), expect(), send(OK[:-1]), close()]) as (protocol, _):
        first, second = get(protocol, "/1"), get(protocol, "/2")
        with pytest.raises(IncompleteRead) as info:
            await whole(first)
        assert info.value.partial == b"h"
        with pytest.raises(NotProcessed):
            second.raise_failure()


async def test_closing_tells_every_exchange():
    async with Open([expect(), read_all()]) as (protocol, _):
        first, second = get(protocol, "/1"), get(protocol, "/2")
        protocol.close()
        with pytest.raises(
            ConnectionAbortedError, match="/1: the connection was closed by this program"
        ):
            first.raise_failure()
        with pytest.raises(NotProcessed, match="/2: the connection ended before"):
            second.raise_failure()


@pytest.mark.parametrize("when", ["ended", "gone"])
async def test_a_request_on_a_connection_that_has_ended_wakes_a_caller_that_waits_for_it(when):
    async with Open([expect(), read_all()], timeout=Timeout(read=60)) as (protocol, _):
        protocol.close()
        if when == "gone":
            await protocol.wait_closed(1)
        for whole_request in (True, False):
            response = protocol.start("POST", "/late", b"POST /late HTTP/1.1", whole_request)
            response.head_waiter = protocol.loop.create_future()
            protocol.begin_head_wait(response)
            protocol.begin_wait(response)
            assert when == "ended" or protocol._watchdog is None
            await response.head_waiter
            with pytest.raises(RemoteDisconnected, match="/late: Remote end closed") as info:
                response.raise_failure()
            assert info.value.unanswered
            assert not info.value.request_sent
            assert protocol.upload is None


async def test_an_error_says_whether_its_own_request_was_sent():
    async with Open([expect(), expect(), read_all()]) as (protocol, _):
        first = get(protocol, "/1")
        second = protocol.start("POST", "/2", b"POST /2 HTTP/1.1\r\n", False)
        protocol.abort()
        assert (first.failure.request_sent, second.failure.request_sent) == (True, False)


# 1xx -------------------------------------------------------------------------------------------

INTERIM = (
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n"
)


@pytest.mark.parametrize("pieces", deliveries(INTERIM + OK, splits=12))
async def test_interim_responses_are_skipped_and_shown(scripted, pieces):
    seen = []
    async with scripted(
        pieces, pieces, on_informational=lambda status, headers: seen.append((status, headers))
    ) as conn:
        for _ in range(2):
            await conn.request("GET", "/")
            response = await conn.getresponse()
            assert (response.status, await response.read()) == (200, b"hi")
        assert [status for status, _ in seen] == [100, 103, 100, 103]
        assert seen[1][1].items() == [("Link", "</a>"), ("Link", "</b>")]
        assert scripted.server.connections == 1


async def test_a_callback_that_raises_fails_no_exchange(scripted, loop_errors):
    def fail(status, headers):
        raise ZeroDivisionError("mine")

    async with scripted(INTERIM + OK, on_informational=fail) as conn:
        await conn.request("GET", "/")
        assert await (await conn.getresponse()).read() == b"hi"
    assert [context["message"] for context in loop_errors] == ["on_informational failed"] * 2
    assert {type(context["exception"]) for context in loop_errors} == {ZeroDivisionError}
    loop_errors.clear()


async def test_a_hundred_interim_responses_and_no_more(scripted):
    one = b"HTTP/1.1 102 x\r\n\r\n"
    async with scripted(one * 100 + OK, one * 101 + OK) as conn:
        await conn.request("GET", "/")
        assert await (await conn.getresponse()).read() == b"hi"
        await conn.request("GET", "/")
        with pytest.raises(HTTPException, match="got more than 100 interim responses"):
            await conn.getresponse()
        assert conn.sock is None


async def test_interim_responses_share_the_heads_budget(scripted):
    one = b"HTTP/1.1 103 x\r\nX: " + b"y" * 1000 + b"\r\n\r\n"
    async with scripted([one] * 5 + [OK], limits=Limits(max_head_bytes=3000)) as conn:
        await conn.request("GET", "/")
        with pytest.raises(HTTPException, match="got more than 3000 bytes when reading the head"):
            await conn.getresponse()


# Upgrades --------------------------------------------------------------------------------------

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n"
UPGRADE = {"Upgrade": "echo", "Connection": "Upgrade"}


class Collector(asyncio.Protocol):
    def __init__(self, first: bytes) -> None:
        self.received = bytearray(first)
        self.ended = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self):
        self._end()

    def connection_lost(self, exc) -> None:
        self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("leftover", [b"", b"first "])
@pytest.mark.parametrize("connect", [False, True], ids=["101", "CONNECT"])
async def test_detaching_loses_nothing(certificates, connect, leftover, tls):
    go_on, sent = asyncio.Event(), asyncio.Event()
    head = b"HTTP/1.1 200 Connected\r\nContent-Length: 7\r\n\r\n" if connect else SWITCH
    script = [
        expect(),
        send(head + leftover),
        wait(go_on),
        send(b"second "),
        notify(sent),
        expect(b"from the client"),
        send(b"third"),
        close(),
    ]
    context = certificates.server if tls else None
    async with ScriptedServer(script, tls=context) as server:
        conn = HTTPConnection("localhost", server.port)
        if tls:
            conn = HTTPSConnection("localhost", server.port, context=certificates.client)
        async with conn:
            if connect:
                await conn.request("CONNECT", "a.test:443")
            else:
                await conn.request("GET", "/", headers=UPGRADE)
            response = await conn.getresponse()
            assert response.status == (200 if connect else 101)
            assert response.isclosed()
            assert await response.read() == b""
            assert "upgraded, 1 request" in repr(conn)
            with pytest.raises(CannotSendRequest, match="Upgraded"):
                await conn.request("GET", "/")
            go_on.set()
            await sent.wait()
            await turns()
            transport, data = conn.detach()
            assert data == leftover
            assert conn.sock is None
            protocol = Collector(data)
            transport.set_protocol(protocol)
            transport.resume_reading()
            transport.write(b"from the client")
            await protocol.ended
            assert protocol.received == leftover + b"second third"
            transport.close()
            with pytest.raises(NotConnected):
                conn.detach()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("size", [10, 100_000, 1_000_000])
async def test_what_came_before_a_late_detach_and_a_fin_is_not_lost(certificates, size, tls):
    context = certificates.server if tls else None
    script = [expect(), send(SWITCH + b"first ", b"second ", b"x" * size), close(), read_all()]
    async with ScriptedServer(script, tls=context) as server:
        conn = HTTPConnection("localhost", server.port)
        if tls:
            conn = HTTPSConnection("localhost", server.port, context=certificates.client)
        await conn.request("GET", "/", headers=UPGRADE)
        await conn.getresponse()
        await turns(100)
        transport, data = conn.detach()
        protocol = Collector(data)
        transport.set_protocol(protocol)
        transport.resume_reading()
        await protocol.ended
        assert protocol.received == b"first second " + b"x" * size
        transport.abort()


async def test_an_upgraded_connection_that_nobody_takes_is_closed():
    async with ScriptedServer([expect(), send(SWITCH), read_all()]) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/", headers=UPGRADE)
            await conn.getresponse()
        await server.conns[0].wait_ended()


async def test_detach_before_http_is_over(scripted):
    async with scripted(OK) as conn:
        with pytest.raises(NotConnected):
            conn.detach()
        await conn.request("GET", "/")
        with pytest.raises(HTTPException) as info:
            conn.detach()
        assert str(info.value) == (
            f"http://127.0.0.1:{conn.port}: only an open, upgraded connection can be detached"
        )
        assert await (await conn.getresponse()).read() == b"hi"


async def test_101_that_nobody_asked_for(scripted):
    async with scripted(SWITCH) as conn:
        await conn.request("GET", "/")
        with pytest.raises(MalformedResponse, match="101 although the request did not ask"):
            await conn.getresponse()
        assert conn.sock is None


async def test_an_upgrade_that_is_declined_is_a_response(scripted):
    async with scripted(OK, OK) as conn:
        for _ in range(2):
            await conn.request("GET", "/", headers=UPGRADE)
            response = await conn.getresponse()
            assert (response.status, await response.read()) == (200, b"hi")
        assert scripted.server.connections == 1


async def test_connect_that_is_declined_has_a_body(scripted):
    async with scripted(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", OK) as conn:
        await conn.request("CONNECT", "a.test:443")
        response = await conn.getresponse()
        assert (response.status, await response.read()) == (403, b"no")
        await conn.request("GET", "/")
        assert await (await conn.getresponse()).read() == b"hi"
        assert scripted.server.heads[0].startswith(b"CONNECT a.test:443 HTTP/1.1\r\nHost: ")
