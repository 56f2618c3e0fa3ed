"""The kit that our own tests stand on: what a script or a fault promises must hold."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import re
import resource
import socket
import ssl
import subprocess
import sys
from typing import Any

import pytest

from aiohttpconn import HTTPConnection, HTTPException, HTTPSConnection, IncompleteRead
from aiohttpconn.testing import (
    GARBAGE,
    Connection,
    Fault,
    Reply,
    Request,
    ScriptedServer,
    answer,
    close,
    close_at,
    close_in_request,
    close_unread,
    deliveries,
    drip,
    every_fault,
    expect,
    expect_request,
    faults,
    garbage_after,
    garbage_before,
    in_thread,
    named_deliveries,
    notify,
    read_all,
    refusing_address,
    reset,
    reset_at,
    send,
    serve,
    stall_at,
    wait,
    with_trailing_garbage,
)

pytest_plugins = ["aiohttpconn.testing.fixtures", "pytester"]

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Reader(asyncio.BufferedProtocol):
    """Record each read by itself."""

    def __init__(self) -> None:
        self.reads: list[bytes] = []
        self.ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._buffer = memoryview(bytearray(65536))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, n: int) -> None:
        self.reads.append(bytes(self._buffer[:n]))

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(exc)


async def connect(server: ScriptedServer, request: bytes = HEAD, **keywords) -> Reader:
    loop = asyncio.get_running_loop()
    if server.path is not None:
        transport, reader = await loop.create_unix_connection(Reader, server.path, **keywords)
    else:
        transport, reader = await loop.create_connection(Reader, *server.address, **keywords)
    transport.write(request)
    return reader


# deliveries


def test_deliveries_hold_the_same_bytes():
    for data in (b"x", HEAD, RESPONSE, RESPONSE * 9, b"\r\n" * 200, bytes(1000)):
        for name, pieces in named_deliveries(data):
            assert b"".join(pieces) == data, name
            assert all(pieces), name


def test_a_short_input_is_split_at_every_byte():
    splits = [pieces for name, pieces in named_deliveries(HEAD[:20]) if name.startswith("split")]
    assert len(splits) == 19


def test_a_long_input_is_split_where_it_matters():
    end = len(RESPONSE) - 2
    names = [name for name, _ in named_deliveries(RESPONSE * 20, splits=24)]
    assert len(names) == 24 + 3
    assert {f"split-at-{end - back}" for back in range(5)} <= set(names)
    assert len(set(names)) == len(names)


def test_splits_can_be_limited():
    assert len(deliveries(RESPONSE, splits=3)) == 3 + 3


def test_garbage_follows_the_data():
    for param in with_trailing_garbage(RESPONSE):
        assert b"".join(param.values[0]) == RESPONSE + GARBAGE


# ScriptedServer


@pytest.mark.parametrize("pieces", deliveries(RESPONSE, splits=4))
async def test_each_piece_is_a_read_of_its_own(pieces):
    async with ScriptedServer([expect(), send(*pieces), close()]) as server:
        reader = await connect(server)
        assert await reader.ended is None
    assert reader.reads == pieces


async def test_each_piece_is_a_read_of_its_own_over_tls(certificates):
    pieces = [RESPONSE[:9], RESPONSE[9:10], RESPONSE[10:]]
    async with ScriptedServer(
        [expect(), send(*pieces), close()], tls=certificates.server
    ) as server:
        reader = await connect(server, ssl=certificates.client, server_hostname="localhost")
        assert await reader.ended is None
        assert server.received == [HEAD]
    assert reader.reads == pieces


async def test_each_piece_is_a_read_of_its_own_over_a_unix_socket(tmp_path):
    script = [expect(), send(b"a", b"b"), close()]
    async with ScriptedServer(script, path=tmp_path / "server") as server:
        reader = await connect(server)
        await reader.ended
    assert reader.reads == [b"a", b"b"]
    assert not (tmp_path / "server").exists()


async def test_ipv6():
    async with ScriptedServer([expect(), close()], host="::1") as server:
        await (await connect(server)).ended
        assert server.url == f"http://[::1]:{server.port}/"


async def test_a_script_for_each_connection_and_the_last_for_all_others():
    first, others = [expect(), send(b"1"), close()], [expect(), send(b"2"), close()]
    async with ScriptedServer(first, others) as server:
        for answer in (b"1", b"2", b"2"):
            reader = await connect(server)
            await reader.ended
            assert reader.reads == [answer]
        assert server.connections == 3
        assert server.heads == server.received == [HEAD] * 3


async def test_a_handler():
    async def handler(conn: Connection) -> None:
        assert await conn.read_until(b"\r\n") == b"GET / HTTP/1.1\r\n"
        assert await conn.read_exactly(4) == b"Host"
        await conn.send(b"seen")
        await conn.close()

    async with ScriptedServer(handler) as server:
        reader = await connect(server)
        await reader.ended
        assert reader.reads == [b"seen"]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD,
    ],
)
async def test_reads_whole_requests(request_bytes):
    got = []

    async def handler(conn: Connection) -> None:
        got.append(await conn.read_request())
        got.append(await conn.read_request())
        await conn.close()

    async with ScriptedServer(handler) as server:
        _, writer = await asyncio.open_connection(*server.address)
        writer.write(request_bytes * 2)
        await server.wait_connections(1)
        writer.write_eof()
        await server.conns[0].wait_ended()
        writer.close()
        await writer.wait_closed()
    assert [head + body for head, body in got] == [request_bytes] * 2


async def test_waits_for_an_event_and_tells_of_its_progress():
    came, go_on = asyncio.Event(), asyncio.Event()
    async with ScriptedServer([expect(), notify(came), wait(go_on), send(b"x"), close()]) as server:
        reader = await connect(server)
        await came.wait()
        assert reader.reads == []
        go_on.set()
        await reader.ended
        assert reader.reads == [b"x"]


async def test_records_everything_until_the_client_leaves():
    async with ScriptedServer([expect(), read_all()]) as server:
        reader = await connect(server)
        reader.transport.write(b"more")
        reader.transport.close()
        await server.wait_connections(1)
        await server.conns[0].wait_ended()
        assert server.received == [HEAD + b"more"]
        await reader.ended


async def test_stays_open_and_records_when_its_script_has_ended():
    async with ScriptedServer([expect()]) as server:
        reader = await connect(server)
        await server.wait_connections(1)
        reader.transport.write(b"more")
        reader.transport.close()
        await server.conns[0].wait_ended()
        assert server.received == [HEAD + b"more"]
        assert not server.conns[0].was_reset
        await reader.ended


async def test_notices_that_the_client_resets():
    async with ScriptedServer([expect()]) as server:
        with socket.create_connection(server.address) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await server.wait_connections(1)
        await server.conns[0].wait_ended()
        assert server.conns[0].was_reset


async def test_resets():
    async with ScriptedServer([expect(), send(RESPONSE), reset()]) as server:
        reader = await connect(server)
        assert type(await reader.ended) is ConnectionResetError
        assert reader.reads == [RESPONSE]


async def test_tls_may_end_with_or_without_close_notify(certificates):
    def read_to_the_end(address) -> bytes:
        with socket.create_connection(address) as sock:
            keywords = {"server_hostname": "localhost", "suppress_ragged_eofs": False}
            with certificates.client.wrap_socket(sock, **keywords) as tls:
                tls.write(HEAD)
                assert tls.recv(100) == RESPONSE
                return tls.recv(100)

    polite, rude = (
        [expect(), send(RESPONSE), close()],
        [expect(), send(RESPONSE), close(notify=False)],
    )
    async with ScriptedServer(polite, rude, tls=certificates.server) as server:
        assert await asyncio.to_thread(read_to_the_end, server.address) == b""
        # Pythons before 3.11.4 raise no SSLEOFError here.
        with pytest.raises(ssl.SSLError, match=r"(?i)\beof\b"):
            await asyncio.to_thread(read_to_the_end, server.address)


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (b"PUT / ", r"the server expected b'PUT / ', got b'GET / '"),
        (re.compile(rb"PUT"), r"the server expected b'PUT' in the head b'GET / HTTP/1.1"),
    ],
    ids=["bytes", "pattern"],
)
async def test_an_expectation_that_is_not_met_resets_and_fails_the_test(expected, text):
    with pytest.raises(AssertionError, match=text):
        async with ScriptedServer([expect(expected), send(RESPONSE)]) as server:
            reader = await connect(server)
            assert isinstance(await reader.ended, ConnectionResetError)


async def test_expectations_that_are_met():
    steps = [expect(b"GET "), expect(2), expect(re.compile(rb"(?m)^Host: x\r$")), send(b"ok")]
    async with ScriptedServer([*steps, close()]) as server:
        reader = await connect(server)
        await reader.ended
        assert reader.reads == [b"ok"]


async def test_a_failure_in_a_handler_fails_the_test_whatever_else_failed():
    async def handler(conn: Connection) -> None:
        await conn.read_head()
        raise ZeroDivisionError("in the handler")

    with pytest.raises(ZeroDivisionError) as caught:
        async with ScriptedServer(handler) as server:
            reader = await connect(server)
            await reader.ended
            raise KeyError("in the test")
    assert type(caught.value.__context__) is KeyError


async def test_a_client_that_leaves_early_fails_nothing():
    async with ScriptedServer([expect_request(), send(RESPONSE)]) as server:
        _, writer = await asyncio.open_connection(*server.address)
        writer.write(b"GET / HT")
        writer.close()
        await writer.wait_closed()
        await server.wait_connections(1)
        await server.conns[0].wait_ended()
        assert server.received == [b"GET / HT"]


async def test_a_server_that_accepts_nothing_leaves_nothing_behind():
    async with ScriptedServer(accepting=False) as server:
        reader = await connect(server)
        assert server.connections == 0
        reader.transport.abort()
        await reader.ended


async def test_refusing_address():
    with refusing_address() as (host, port), pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, port)


async def test_the_errors_of_several_scripts_are_a_group():
    with pytest.raises(BaseExceptionGroup, match="several scripts failed") as caught:
        async with ScriptedServer([expect(b"PUT")], [expect(b"POST")]) as server:
            for _ in range(2):
                assert isinstance(await (await connect(server)).ended, ConnectionResetError)
    assert [str(exc) for exc in caught.value.exceptions] == [
        "the server expected b'PUT', got b'GET'",
        "the server expected b'POST', got b'GET '",
    ]


async def test_pytest_fail_in_a_handler_fails_the_test():
    async def handler(conn: Connection) -> None:
        pytest.fail("not this one")

    with pytest.raises(pytest.fail.Exception, match="not this one"):
        async with ScriptedServer(handler) as server:
            await (await connect(server)).ended


async def test_a_server_that_cannot_accept_fails_the_test():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.raises(OSError, match="Too many open files"):
        async with ScriptedServer() as server:
            await asyncio.sleep(0)
            with socket.socket() as client:
                client.setblocking(False)
                spare = os.dup(0)
                os.close(spare)
                resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
                try:
                    assert client.connect_ex(server.address) != 0  # it is on its way
                    while not server._errors:
                        await asyncio.sleep(0)
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_chunk_size_that_is_none_fails_the_test():
    with pytest.raises(AssertionError, match="expected a chunk-size line, got b'five"):
        async with ScriptedServer([expect_request()]) as server:
            head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            await (await connect(server, head + b"five\r\n")).ended


async def test_a_connection_tells_that_the_server_has_ended_it():
    async with ScriptedServer([expect(), close()], [expect(), reset()]) as server:
        for number in range(2):
            reader = await connect(server)
            await reader.ended
            assert server.conns[number].closed


def test_the_servers_need_no_pytest():
    program = """
import sys
sys.modules["pytest"] = sys.modules["_pytest"] = None
from aiohttpconn import testing
assert len(testing.named_deliveries(b"hi")) == 3
assert len(testing.every_fault(b"hi")) == 4
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)


# Faults


async def collect(steps, request: bytes = HEAD) -> tuple[Reader, Exception | None]:
    """Send *request* to a server with the script *steps*; return what came, and the end."""
    async with ScriptedServer(steps) as server:
        reader = await connect(server, request)
        return reader, await reader.ended


@pytest.mark.parametrize("k", [0, 1, 17, len(RESPONSE)])
async def test_closes_at_byte_k(k):
    reader, end = await collect([answer(RESPONSE, fault=close_at(k))])
    assert (b"".join(reader.reads), end) == (RESPONSE[:k], None)


@pytest.mark.parametrize("k", [0, 1, 17, len(RESPONSE)])
async def test_resets_at_byte_k(k):
    reader, end = await collect([answer(RESPONSE, fault=reset_at(k))])
    assert (b"".join(reader.reads), type(end)) == (RESPONSE[:k], ConnectionResetError)


async def test_a_negative_position_counts_from_the_end():
    reader, _ = await collect([answer(RESPONSE, fault=close_at(-1))])
    assert b"".join(reader.reads) == RESPONSE[:-1]


async def test_stalls_until_the_event():
    until = asyncio.Event()
    fault = stall_at(17, until)
    async with ScriptedServer([answer(RESPONSE, fault=fault), close()]) as server:
        reader = await connect(server)
        while not reader.reads:
            await asyncio.sleep(0)
        await server.conns[0].let_client_read()
        assert reader.reads == [RESPONSE[:17]]
        until.set()
        await reader.ended
        assert reader.reads == [RESPONSE[:17], RESPONSE[17:]]


async def test_stalls_until_the_client_leaves():
    async with ScriptedServer([answer(RESPONSE, fault=stall_at(17)), send(b"never")]) as server:
        reader = await connect(server)
        while not reader.reads:
            await asyncio.sleep(0)
        reader.transport.close()
        await reader.ended
        await server.conns[0].wait_ended()
        assert reader.reads == [RESPONSE[:17]]


async def test_drips():
    reader, _ = await collect([answer(RESPONSE, fault=drip(7)), close()])
    assert reader.reads == [RESPONSE[i : i + 7] for i in range(0, len(RESPONSE), 7)]


def test_drips_at_least_a_byte():
    with pytest.raises(ValueError, match="a piece has at least one byte, got 0"):
        drip(0)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (garbage_before(), GARBAGE + RESPONSE),
        (garbage_before(b"x"), b"x" + RESPONSE),
        (garbage_after(), RESPONSE + GARBAGE),
        (garbage_after(b"x"), RESPONSE + b"x"),
    ],
)
async def test_garbage_is_glued_to_the_response(fault, expected):
    reader, _ = await collect([answer(RESPONSE, fault=fault), close()])
    assert reader.reads == [expected]


@pytest.mark.parametrize(("rst", "end"), [(False, type(None)), (True, ConnectionResetError)])
async def test_closes_before_reading_anything(rst, end):
    async with ScriptedServer([answer(RESPONSE, fault=close_unread(rst=rst))]) as server:
        reader = await connect(server)
        assert type(await reader.ended) is end
        assert (reader.reads, server.heads) == ([], [])


@pytest.mark.parametrize(("rst", "end"), [(False, type(None)), (True, ConnectionResetError)])
async def test_closes_while_the_body_is_on_its_way(rst, end):
    request = b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\nhalf"
    async with ScriptedServer([answer(fault=close_in_request(4, rst=rst))]) as server:
        reader = await connect(server, request)
        assert type(await reader.ended) is end
        assert (reader.reads, server.received) == ([], [request])


async def test_each_request_has_its_answer():
    script = [answer(RESPONSE), answer(RESPONSE[:9], RESPONSE[9:]), answer(fault=close_unread())]
    reader, end = await collect(script, HEAD * 2)
    assert (b"".join(reader.reads), end) == (RESPONSE * 2, None)


async def test_a_fault_of_ones_own():
    fault = Fault("loud", lambda response: [send(response.upper()), close()])
    reader, _ = await collect([answer(RESPONSE, fault=fault)])
    assert reader.reads == [RESPONSE.upper()]
    assert repr(fault) == "<Fault loud>"


def test_there_is_a_fault_at_every_byte_of_a_short_response():
    names = [f"{end}-at-{k}" for end in ("close", "reset") for k in range(4)]
    assert [fault.name for fault in every_fault(b"abcd")] == names
    assert [param.id for param in faults(b"abcd")] == names
    assert [param.values[0].name for param in faults(b"abcd")] == names


def test_a_long_response_is_cut_where_it_matters():
    end = len(RESPONSE) - 2
    names = [fault.name for fault in every_fault(RESPONSE * 20, stall_at, positions=24)]
    assert len(set(names)) == len(names) == 24
    assert {"stall-at-0", *(f"stall-at-{end - back}" for back in range(5))} <= set(names)


def test_positions_can_be_limited():
    assert every_fault(RESPONSE, positions=0) == every_fault(b"") == []
    assert [fault.name for fault in every_fault(RESPONSE, close_at, positions=1)] == ["close-at-0"]


@pytest.mark.parametrize("fault", faults(RESPONSE, positions=8))
async def test_our_client_raises_at_every_fault(fault):
    async with ScriptedServer([answer(RESPONSE, fault=fault)]) as server:
        async with HTTPConnection(*server.address) as conn:
            with pytest.raises((HTTPException, OSError)) as caught:
                await conn.request("GET", "/")
                await (await conn.getresponse()).read()
    assert isinstance(caught.value, IncompleteRead) == (b"\r\n\r\n" in fault_bytes(fault))


def fault_bytes(fault: Fault) -> bytes:
    return RESPONSE[: int(fault.name.rpartition("-")[2])]


# serve


async def get(conn: HTTPConnection, target: str, method: str = "GET", **keywords: Any):
    """Return the response to one request, and its body."""
    await conn.request(method, target, **keywords)
    response = await conn.getresponse()
    return response, await response.read()


async def test_serves_a_table():
    async def late(request: Request) -> str:
        await asyncio.sleep(0)
        return f"late {request.target}"

    table = {
        "/str": "é",
        "/bytes": b"\xff",
        "/reply": Reply(b"no", status=410, headers={"X": "y"}, reason="Away"),
        "/function": lambda request: f"{request.method} {request.path}",
        "/late": late,
    }
    async with serve(table) as server, HTTPConnection(*server.address) as conn:
        got = {}
        for target in ("/str", "/bytes", "/reply", "/function?a=b", "/late?c", "/other"):
            response, body = await get(conn, target)
            got[target] = (response.status, response.reason, body)
            assert response.headers["Content-Length"] == str(len(body))
        assert got == {
            "/str": (200, "OK", "é".encode()),
            "/bytes": (200, "OK", b"\xff"),
            "/reply": (410, "Away", b"no"),
            "/function?a=b": (200, "OK", b"GET /function"),
            "/late?c": (200, "OK", b"late /late?c"),
            "/other": (404, "Not Found", b"not found\n"),
        }
        assert [request.target for request in server.requests] == list(got)
        assert {request.connection for request in server.requests} == {0}


@pytest.mark.parametrize("body", [b"hello", [b"he", b"llo"], b""], ids=["length", "chunks", "none"])
async def test_records_requests(body):
    async with serve(lambda request: "") as server, HTTPConnection(*server.address) as conn:
        chunked = isinstance(body, list)
        await get(conn, "/x", "PUT", body=body, headers={"X-A": "1"}, encode_chunked=chunked)
        (request,) = server.requests
        assert (request.method, request.target, request.version) == ("PUT", "/x", "HTTP/1.1")
        assert request.body == (b"hello" if body else b"")
        assert (request.headers["x-a"], request.headers["missing"]) == ("1", None)


async def test_a_wrong_chunk_of_a_request_fails_the_test():
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with pytest.raises(HTTPException, match="chunk data must be followed by CRLF"):
        async with serve({}) as server:
            await (await connect(server, head + b"1\r\nabc0\r\n\r\n")).ended


async def test_grants_a_100():
    head = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    async with serve({"/": "x"}) as server:
        reader = await connect(server, head)
        while not reader.reads:
            await asyncio.sleep(0)
        assert reader.reads == [b"HTTP/1.1 100 Continue\r\n\r\n"]
        reader.transport.write(b"hi")
        while len(reader.reads) < 2:
            await asyncio.sleep(0)
        assert server.requests[0].body == b"hi"
        reader.transport.close()
        await reader.ended


async def test_serves_chunks():
    table = {"/": Reply([b"one", b"", b"two"])}
    async with serve(table) as server, HTTPConnection(*server.address) as conn:
        response, body = await get(conn, "/")
        assert (response.headers["Transfer-Encoding"], body) == ("chunked", b"onetwo")


@pytest.mark.parametrize("body", [b"body", [b"bo", b"dy"]], ids=["bytes", "chunks"])
async def test_a_head_has_no_body(body):
    async with serve({"/": Reply(body)}) as server, HTTPConnection(*server.address) as conn:
        head, nothing = await get(conn, "/", "HEAD")
        response, content = await get(conn, "/")
        assert (nothing, content) == (b"", b"body")
        assert head.getheaders() == response.getheaders()
        assert server.connections == 1


@pytest.mark.parametrize("status", [204, 304])
async def test_what_has_no_body_gets_none(status):
    table = {"/": Reply(b"body", status=status)}
    async with serve(table) as server, HTTPConnection(*server.address) as conn:
        for _ in range(2):
            response, body = await get(conn, "/")
            assert (response.status, response.getheaders(), body) == (status, [], b"")
        assert server.connections == 1


async def test_headers_are_sent_as_they_are():
    pairs = [("a", 1), (b"B", b"\xff"), ("Content-Length", "3"), ("a", "2")]
    table = {"/": Reply([b"on", b"e"], headers=pairs)}
    async with serve(table) as server, HTTPConnection(*server.address) as conn:
        response, body = await get(conn, "/")
        expected = [("a", "1"), ("B", "\xff"), ("Content-Length", "3"), ("a", "2")]
        assert (response.getheaders(), body) == (expected, b"one")


@pytest.mark.parametrize(
    "request_bytes",
    [b"GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n"],
    ids=["close", "1.0"],
)
async def test_closes_when_it_is_asked_to(request_bytes):
    async with serve({"/": Reply([b"ab", b"c"])}) as server:
        reader = await connect(server, request_bytes)
        assert await reader.ended is None
        response = b"".join(reader.reads)
        assert b"\r\nConnection: close\r\n" in response
        if b"1.0" in request_bytes:
            assert response.endswith(b"\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc")


async def test_closes_when_the_reply_says_so():
    table = {"/": Reply("x", headers={"connection": "close"})}
    async with serve(table) as server, HTTPConnection(*server.address) as conn:
        for number in range(2):
            await get(conn, "/")
            assert server.requests[-1].connection == number


async def test_a_fault_for_each_connection_and_the_last_for_all_others():
    faulty = [close_unread(), close_at(-1), None]
    async with serve({"/": "hello"}, faults=faulty) as server:
        async with HTTPConnection(*server.address) as conn:
            with pytest.raises(ConnectionResetError):
                await get(conn, "/")
            with pytest.raises(IncompleteRead):
                await get(conn, "/")
            for _ in range(2):
                assert (await get(conn, "/"))[1] == b"hello"
            assert [request.connection for request in server.requests] == [1, 2, 2]


async def test_a_fault_of_one_reply():
    table = {"/": "hello", "/cut": Reply("hello", fault=reset_at(-1))}
    async with serve(table) as server, HTTPConnection(*server.address) as conn:
        assert (await get(conn, "/"))[1] == b"hello"
        with pytest.raises(IncompleteRead):
            await get(conn, "/cut")
        assert (await get(conn, "/"))[1] == b"hello"


def test_what_happens_before_the_reply_is_no_fault_of_it():
    text = r"<Fault close-unread> comes before the reply: use serve\(faults=\[...\]\)"
    with pytest.raises(ValueError, match=text):
        Reply("x", fault=close_unread())


async def test_a_handler_that_raises_fails_the_test():
    with pytest.raises(ZeroDivisionError):
        async with serve({"/": lambda request: 1 / 0}) as server:
            await (await connect(server)).ended


async def test_a_handler_that_returns_nothing_fails_the_test():
    text = "a handler must return a Reply, bytes or str, got None for GET /$"
    with pytest.raises(TypeError, match=text):
        async with serve(lambda request: None) as server:
            await (await connect(server)).ended


async def test_what_is_not_http_fails_the_test():
    with pytest.raises(AssertionError, match="the server expected a request, got b'hello"):
        async with serve({}) as server:
            await (await connect(server, b"hello\r\n\r\n")).ended


async def test_serves_over_tls(certificates):
    async with serve({"/": "secret"}, tls=certificates.server) as server:
        conn = HTTPSConnection("localhost", server.port, context=certificates.client)
        async with conn:
            assert (await get(conn, "/"))[1] == b"secret"
            assert server.url == f"https://127.0.0.1:{server.port}/"


async def test_serves_on_a_unix_socket(tmp_path):
    async with serve({"/": "here"}, path=tmp_path / "socket") as server:
        reader = await connect(server, b"GET / HTTP/1.0\r\n\r\n")
        await reader.ended
        assert b"".join(reader.reads).endswith(b"\r\n\r\nhere")


# in_thread


def test_serves_a_client_that_blocks():
    with in_thread(serve({"/a": "one", "/b": Reply([b"t", b"wo"])})) as server:
        with contextlib.closing(http.client.HTTPConnection(*server.address, timeout=10)) as conn:
            for target, body in (("/a", b"one"), ("/b", b"two"), ("/", b"not found\n")):
                conn.request("GET", target)
                assert conn.getresponse().read() == body
        assert [request.target for request in server.requests] == ["/a", "/b", "/"]


def test_runs_a_script_in_its_thread():
    with in_thread(ScriptedServer([expect(), send(b"one", b"two"), close()])) as server:
        with socket.create_connection(server.address, timeout=10) as sock:
            sock.sendall(HEAD)
            assert b"".join(iter(lambda: sock.recv(100), b"")) == b"onetwo"
        assert server.heads == [HEAD]


def test_a_script_that_fails_in_its_thread_fails_the_test():
    with pytest.raises(AssertionError, match="the server expected b'PUT'") as caught:
        with in_thread(ScriptedServer([expect(b"PUT")])) as server:
            with socket.create_connection(server.address, timeout=10) as sock:
                sock.sendall(HEAD)
                with pytest.raises(ConnectionResetError):
                    sock.recv(100)
            raise KeyError("in the test")
    assert type(caught.value.__context__) is KeyError


def test_a_server_that_cannot_start_in_its_thread():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(OSError, match="Address already in use"):
            with in_thread(serve({}, port=taken.getsockname()[1])):
                raise AssertionError("it did start")


# Fixtures


async def test_start_server_starts_any_server(start_server):
    table = await start_server(serve({"/": "one"}))
    raw = await start_server(ScriptedServer([answer(RESPONSE)]))
    for server, body in ((table, b"one"), (raw, b"hi")):
        async with HTTPConnection(*server.address) as conn:
            assert (await get(conn, "/"))[1] == body


TESTS = """
import asyncio, pytest
from aiohttpconn.testing import ScriptedServer, expect, serve

pytest_plugins = ["aiohttpconn.testing.fixtures"]
STARTED = []

async def ask(server):
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
    try:
        return await reader.read()
    finally:
        writer.close()

@pytest.mark.RUNNER
async def test_starts(start_server):
    STARTED.append(await start_server(serve({"/": "here"})))
    assert (await ask(STARTED[0])).endswith(b"here")

def test_was_closed():
    assert STARTED[0]._listener.fileno() == STARTED[0].conns[0].sock.fileno() == -1

@pytest.mark.RUNNER
async def test_fails_in_its_teardown(start_server):
    server = await start_server(ScriptedServer([expect(b"PUT")]))
    with pytest.raises(ConnectionResetError):
        await ask(server)
"""

LIKE_ANYIO = """
# What anyio's plugin does with tests and fixtures, in short.
import asyncio, inspect, pytest

@pytest.fixture
def anyio_backend():
    with asyncio.Runner() as runner:
        yield runner

@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector, name, obj):
    if any(mark.name == "anyio" for mark in getattr(obj, "pytestmark", ())):
        pytest.mark.usefixtures("anyio_backend")(obj)

# Last: nobody chooses the order in which plugins are loaded, and this one is the worse.
@pytest.hookimpl(hookwrapper=True, trylast=True)
def pytest_fixture_setup(fixturedef, request):
    func, names = fixturedef.func, fixturedef.argnames
    def wrapper(anyio_backend):
        generator = func()
        yield anyio_backend.run(anext(generator))
        anyio_backend.run(anext(generator, None))
    if inspect.isasyncgenfunction(func) and "anyio_backend" in request.fixturenames:
        fixturedef.func, fixturedef.argnames = wrapper, (*names, "anyio_backend")
    yield
    fixturedef.func, fixturedef.argnames = func, names

@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if pyfuncitem.get_closest_marker("anyio"):
        names = pyfuncitem._fixtureinfo.argnames
        arguments = {name: pyfuncitem.funcargs[name] for name in names}
        pyfuncitem.funcargs["anyio_backend"].run(pyfuncitem.obj(**arguments))
        return True
"""


@pytest.mark.parametrize("runner", ["asyncio", "anyio"])
def test_start_server_belongs_to_the_plugin_that_runs_the_test(pytester, runner):
    if runner == "anyio":
        pytester.makeconftest(LIKE_ANYIO)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\nmarkers = anyio")
    pytester.makepyfile(TESTS.replace("RUNNER", runner))
    result = pytester.runpytest("--asyncio-mode=strict", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["E *AssertionError: the server expected b'PUT', got b'GET'"])
