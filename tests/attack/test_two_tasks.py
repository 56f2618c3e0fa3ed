"""Two tasks that use one connection, one response or one stream: each works, or is refused.

T18: a connection is for one task at a time. A second one never hangs and never gets what is the
first one's; the first goes on as if there were no second.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import re

import pytest

from aiohttpconn import (
    CannotSendHeader,
    CannotSendRequest,
    Client,
    ConnectionPool,
    HTTPConnection,
    HTTPException,
    HTTPSConnection,
    IncompleteRead,
    NotConnected,
    ResponseNotReady,
    dial,
)
from aiohttpconn.testing import ScriptedServer, expect, read_all, send, wait

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
AGAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain"

TURNS = 20
"""Turns of the loop after which a task that waits, waits for another one."""


async def turns(count=TURNS):
    for _ in range(count):
        await asyncio.sleep(0)


class Held:
    """A connection whose first task waits for ``release``: for the server, or for its own body."""

    def __init__(self, conn, release):
        self.conn = conn
        self.release = release

    async def body(self):
        await self.release.wait()
        yield b"hello"


def begin(held, *fields):
    held.conn.putrequest("POST", "/first")
    for name, value in (("Transfer-Encoding", "chunked"), *fields):
        held.conn.putheader(name, value)


async def get_first(held):
    response = await held.conn.getresponse()
    return await response.read()


async def connecting(held):
    await held.conn.connect()
    await held.conn.request("GET", "/first")
    return await get_first(held)


async def connecting_for_a_request(held):
    await held.conn.request("GET", "/first")
    return await get_first(held)


async def uploading(held):
    await held.conn.request("POST", "/first", held.body())
    return await get_first(held)


async def uploading_by_endheaders(held):
    begin(held)
    await held.conn.endheaders(held.body(), encode_chunked=True)
    return await get_first(held)


async def sending(held):
    begin(held)
    await held.conn.endheaders()
    await held.conn.send(
        chunk async for chunk in held.body() for chunk in (b"5\r\n", chunk, b"\r\n")
    )
    await held.conn.send(b"0\r\n\r\n")
    return await get_first(held)


async def waiting_for_a_response(held):
    await held.conn.request("GET", "/first")
    return await get_first(held)


async def reading(held):
    await held.conn.request("GET", "/first")
    return await get_first(held)


FIRST = {
    each.__name__: each
    for each in (
        connecting,
        connecting_for_a_request,
        uploading,
        uploading_by_endheaders,
        sending,
        waiting_for_a_response,
        reading,
    )
}

SECOND = {
    "connect": lambda conn: conn.connect(),
    "request": lambda conn: conn.request("GET", "/second"),
    "request-with-a-body": lambda conn: conn.request("POST", "/second", b"body"),
    "putrequest": lambda conn: conn.putrequest("GET", "/second"),
    "putheader": lambda conn: conn.putheader("X-Second", "1"),
    "endheaders": lambda conn: conn.endheaders(),
    "endheaders-with-a-body": lambda conn: conn.endheaders(b"body"),
    "send": lambda conn: conn.send(b"second"),
    "getresponse": lambda conn: conn.getresponse(),
    "detach": lambda conn: conn.detach(),
    "wait_closed": lambda conn: conn.wait_closed(),
}

OTHER_CONNECT = (RuntimeError, "another task is connecting this connection already")
IDLE_HEADER = (CannotSendHeader, "")
STARTED = (CannotSendRequest, "Request-started")
SENT = (CannotSendRequest, "Request-sent")
SENDS = (CannotSendHeader, "the request is being sent by another task")
NOT_SENT = (ResponseNotReady, "Request-started: the head was not sent")
NOT_OPEN = (NotConnected, "")
NOT_UPGRADED = (HTTPException, "only an open, upgraded connection can be detached")

UPLOADING = {
    **dict.fromkeys(("request", "request-with-a-body", "putrequest", "send"), STARTED),
    **dict.fromkeys(("putheader", "endheaders", "endheaders-with-a-body"), SENDS),
    "detach": NOT_UPGRADED,
}
REFUSED = {
    "connecting": {
        "connect": OTHER_CONNECT,
        "request": OTHER_CONNECT,
        "request-with-a-body": OTHER_CONNECT,
        "putheader": IDLE_HEADER,
        "endheaders": IDLE_HEADER,
        "endheaders-with-a-body": IDLE_HEADER,
        "send": (CannotSendRequest, "Idle"),
        "getresponse": (ResponseNotReady, "Idle: no request is under way"),
        "detach": NOT_OPEN,
    },
    "connecting_for_a_request": {
        "connect": OTHER_CONNECT,
        **dict.fromkeys(("request", "request-with-a-body", "putrequest", "send"), STARTED),
        **dict.fromkeys(("putheader", "endheaders", "endheaders-with-a-body"), SENDS),
        "getresponse": NOT_SENT,
        "detach": NOT_OPEN,
    },
    "uploading": UPLOADING,
    "uploading_by_endheaders": UPLOADING,
    "sending": {
        **dict.fromkeys(("request", "request-with-a-body", "putrequest"), SENT),
        **dict.fromkeys(("putheader", "endheaders", "endheaders-with-a-body"), IDLE_HEADER),
        "send": (CannotSendRequest, "Request-sent: another task is sending the body"),
        "detach": NOT_UPGRADED,
    },
    "waiting_for_a_response": {
        **dict.fromkeys(("request", "request-with-a-body", "putrequest", "send"), SENT),
        **dict.fromkeys(("putheader", "endheaders", "endheaders-with-a-body"), IDLE_HEADER),
        "getresponse": (ResponseNotReady, "Request-sent: another task waits for this response"),
        "detach": NOT_UPGRADED,
    },
    "reading": {
        **dict.fromkeys(("putheader", "endheaders", "endheaders-with-a-body"), IDLE_HEADER),
        "send": (CannotSendRequest, "Idle"),
        "getresponse": (ResponseNotReady, "Idle: the response before it is unread"),
        "detach": NOT_UPGRADED,
    },
}

WORKS = [
    # A task may wait for an answer while another sends the body: the answer may come first.
    ("uploading", "getresponse"),
    ("uploading_by_endheaders", "getresponse"),
    ("sending", "getresponse"),
    # As in http.client, a request may follow while the body before it is unread.
    *(("reading", name) for name in ("request", "request-with-a-body")),
    # These wait for nothing of another task.
    *((first, "wait_closed") for first in FIRST),
    *((first, "putrequest") for first in ("connecting", "reading")),
    # A connect by hand replaces the connection, as in http.client: the first task is told.
    *(
        (first, "connect")
        for first in (
            "uploading",
            "uploading_by_endheaders",
            "sending",
            "waiting_for_a_response",
            "reading",
        )
    ),
]


def test_every_pair_is_in_a_table():
    pairs = {(first, second) for first in FIRST for second in SECOND}
    refused = {(first, second) for first, table in REFUSED.items() for second in table}
    assert refused | set(WORKS) == pairs
    assert not refused & set(WORKS)


def answer_to(head):
    """Return an answer that is the name in the path."""
    name = head.split(b" ")[1][1:]
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name)


async def answers(conn):
    while True:
        head, _ = await conn.read_request()
        await conn.send(answer_to(head))


@contextlib.asynccontextmanager
async def held(name):
    """Give a connection, and the task of the first user, which waits until ``release`` is set."""
    release = asyncio.Event()

    async def late_dial(factory, destination, report):
        await release.wait()
        return await dial(factory, destination, report)

    async def late_answers(conn):
        head, _ = await conn.read_request()
        begun = answer_to(head)[:-3] if name == "reading" else b""
        await conn.send(begun)
        await release.wait()
        await conn.send(answer_to(head)[len(begun) :])
        await answers(conn)

    script = late_answers if name in ("waiting_for_a_response", "reading") else answers
    options = {"dialer": late_dial} if name.startswith("connecting") else {}
    async with ScriptedServer(script) as server, HTTPConnection(*server.address, **options) as conn:
        first = asyncio.ensure_future(FIRST[name](Held(conn, release)))
        await turns()
        if not options:
            while not server.heads:
                await asyncio.sleep(0)
            await turns()
        assert not first.done()
        yield conn, first, release
        release.set()
        if not first.done():
            first.cancel()
        await asyncio.gather(first, return_exceptions=True)


@pytest.mark.parametrize(
    ("first", "second"), [(first, second) for first in REFUSED for second in REFUSED[first]]
)
async def test_a_second_task_is_refused_and_the_first_goes_on(first, second):
    error, text = REFUSED[first][second]
    async with held(first) as (conn, task, release):
        for _ in range(2):
            with pytest.raises(error, match=f"^.*{re.escape(text)}"):
                made = SECOND[second](conn)
                if asyncio.iscoroutine(made):
                    await made
        release.set()
        assert await task == b"first"
        # Nothing of the second is left.
        await conn.request("GET", "/third")
        assert await get_first(Held(conn, release)) == b"third"


@pytest.mark.parametrize("first", ["uploading", "uploading_by_endheaders", "sending"])
async def test_a_task_may_wait_for_the_answer_while_another_sends(first):
    async with held(first) as (conn, task, release):
        second = asyncio.ensure_future(conn.getresponse())
        await turns()
        # Nobody else may wait for it, not even the first.
        release.set()
        with pytest.raises(ResponseNotReady, match="another task waits for this response"):
            await task
        assert await (await second).read() == b"first"
        await conn.request("GET", "/third")
        assert await get_first(Held(conn, release)) == b"third"


@pytest.mark.parametrize("second", ["request", "request-with-a-body"])
async def test_a_request_may_follow_while_a_body_is_read(second):
    async with held("reading") as (conn, task, release):
        await SECOND[second](conn)
        release.set()
        assert await task == b"first"
        assert await (await conn.getresponse()).read() == b"second"


@pytest.mark.parametrize("first", FIRST)
async def test_wait_closed_waits_for_no_other_task(first):
    async with held(first) as (conn, task, release):
        await conn.wait_closed()
        release.set()
        assert await task == b"first"


@pytest.mark.parametrize("first", [first for first, second in WORKS if second == "connect"])
async def test_a_connect_by_hand_ends_what_goes_on(first):
    async with held(first) as (conn, task, release):
        await conn.connect()
        release.set()
        with pytest.raises((ConnectionAbortedError, HTTPException)) as caught:
            await task
        assert "closed by this program" in str(caught.value) or isinstance(
            caught.value, (ResponseNotReady, CannotSendRequest)
        )
    await conn.wait_closed()


@pytest.mark.parametrize("first", FIRST)
async def test_close_ends_the_first_and_leaves_a_connection_that_works(first):
    async with held(first) as (conn, task, release):
        conn.close()
        with pytest.raises((ConnectionAbortedError, HTTPException)):
            await task
        release.set()
        await conn.request("GET", "/third")
        assert await get_first(Held(conn, release)) == b"third"


# In the moment between an event and the task that it wakes


async def seen(is_there):
    """Return as soon as *is_there*, in the turn before that of the task that was woken by it."""
    while not is_there():
        await asyncio.sleep(0)


async def test_two_getresponse_in_the_turn_of_the_answer():
    async with held("waiting_for_a_response") as (conn, task, release):
        exchange = conn._exchange
        release.set()
        await seen(lambda: exchange.has_head)
        with pytest.raises(ResponseNotReady, match="another task waits for this response"):
            await conn.getresponse()
        assert not task.done()
        assert await task == b"first"


async def test_a_close_in_the_turn_of_the_answer_and_the_next_request_is_the_callers():
    async with held("waiting_for_a_response") as (conn, task, release):
        exchange = conn._exchange
        release.set()
        await seen(lambda: exchange.has_head)
        conn.close()
        await conn.request("GET", "/third")
        with pytest.raises(IncompleteRead, match="the connection was closed by this program"):
            await task
        # The first task took nothing of it.
        assert await get_first(Held(conn, release)) == b"third"


async def test_a_send_that_another_task_has_ended_leaves_the_next_request_alone():
    async with held("sending") as (conn, task, release):
        conn.close()
        conn.putrequest("POST", "/third")
        conn.putheader("Content-Length", "5")
        await conn.endheaders()
        await conn.send(b"he")
        task.cancel()
        await asyncio.wait([task])
        await conn.send(b"llo")
        assert await get_first(Held(conn, release)) == b"third"


READS = {
    "read": lambda r: r.read(),
    "read-amt": lambda r: r.read(3),
    "read1": lambda r: r.read1(),
    "readinto": lambda r: r.readinto(bytearray(3)),
    "readinto1": lambda r: r.readinto1(bytearray(3)),
    "peek": lambda r: r.peek(),
    "readline": lambda r: r.readline(),
    "readlines": lambda r: r.readlines(),
    "anext": lambda r: anext(r),
    "iter_bytes": lambda r: anext(r.iter_bytes()),
    "iter_bytes-n": lambda r: anext(r.iter_bytes(3)),
}
LARGE = 300_000
FRAMINGS = {
    "length": (b"Content-Length: 5\r\n\r\n", b"hello"),
    "chunked": (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
    # It lands in the memory of its reader.
    "large": (b"Content-Length: %d\r\n\r\n" % LARGE, bytes(LARGE)),
}


@pytest.mark.parametrize(("head", "body"), FRAMINGS.values(), ids=FRAMINGS)
@pytest.mark.parametrize("second", READS)
async def test_a_second_reader_in_the_turn_of_the_last_byte(second, head, body):
    release = asyncio.Event()
    script = [expect(), send(b"HTTP/1.1 200 OK\r\n" + head), wait(release), send(body)]
    async with ScriptedServer(script) as server, HTTPConnection(*server.address) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        first = asyncio.ensure_future(response.read())
        await turns()
        release.set()
        await seen(lambda: response.ended)
        with pytest.raises(
            RuntimeError, match="this response is being read by another task already"
        ):
            await READS[second](response)
        assert not first.done()
        assert len(await first) == (LARGE if head.startswith(b"Content-Length: 3") else 5)
        assert response.isclosed()


# A client's stream

STREAM_READS = {
    "read": lambda r: r.read(),
    "iter_bytes": lambda r: anext(r.iter_bytes()),
    "iter_bytes-n": lambda r: anext(r.iter_bytes(3)),
    "iter_lines": lambda r: anext(r.iter_lines()),
}
ONCE = "this response is being read by another task already|can be iterated over once, and has been"


async def lines_of(response):
    return b"".join([line.encode() + b"\n" async for line in response.iter_lines()])


async def pieces_of(response):
    return b"".join([piece async for piece in response.iter_bytes()])


@pytest.mark.parametrize("coding", [b"identity", b"gzip"])
@pytest.mark.parametrize("max_body", [None, 10_000])
@pytest.mark.parametrize("second", STREAM_READS)
@pytest.mark.parametrize(
    "read", [lambda r: r.read(), pieces_of, lines_of], ids=["read", "pieces", "lines"]
)
async def test_two_readers_of_a_stream(read, second, max_body, coding):
    text = b"hello\nworld\n"
    data = gzip.compress(text) if coding == b"gzip" else text
    chunks = [b"%X\r\n%b\r\n" % (len(part), part) for part in (data[:6], data[6:])]
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: %b\r\n\r\n"
    release = asyncio.Event()
    script = [
        *(expect(), send(head % coding + chunks[0]), wait(release)),
        *(send(chunks[1] + b"0\r\n\r\n"), expect(), send(AGAIN)),
    ]
    async with ScriptedServer(script) as server:
        async with Client(trust_env=False, max_body=max_body) as client:
            async with client.stream("GET", server.url) as response:
                first = asyncio.ensure_future(read(response))
                await turns()
                for _ in range(2):
                    with pytest.raises(RuntimeError, match=ONCE):
                        await STREAM_READS[second](response)
                release.set()
                assert await first == text
            assert (await client.get(server.url)).content == b"again"
        assert server.connections == 1


@pytest.mark.parametrize("kind", [Client, ConnectionPool])
async def test_two_tasks_close_a_client_or_a_pool(kind):
    async with ScriptedServer([expect(), send(OK), read_all()]) as server:
        made = kind()
        response = await made.request("GET", server.url)
        await response.read()
        await asyncio.gather(made.close(), made.close())
        await made.close()
        await server.conns[0].wait_ended()


async def test_two_tasks_wait_until_a_connection_is_closed(certificates):
    """Both wait for the end of TLS."""
    script = [expect(), send(OK), read_all()]
    async with ScriptedServer(script, tls=certificates.server) as server:
        conn = HTTPSConnection(*server.address, context=certificates.client)
        await conn.request("GET", "/")
        await (await conn.getresponse()).read()
        conn.close()
        protocol = conn._closing
        await asyncio.gather(conn.wait_closed(), conn.wait_closed())
        assert protocol.transport is None
        await conn.wait_closed()
