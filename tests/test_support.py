"""The tests' own tools: what a script promises must hold, or the other tests prove nothing."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl

import pytest

from .support import (
    GARBAGE,
    Connection,
    ConnectProxy,
    ScriptedServer,
    close,
    deliveries,
    expect,
    expect_request,
    named_deliveries,
    notify,
    read_all,
    refusing_address,
    reset,
    send,
    wait,
    with_trailing_garbage,
)

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


async def connect(server: ScriptedServer, **keywords) -> Reader:
    loop = asyncio.get_running_loop()
    if server.path is not None:
        transport, reader = await loop.create_unix_connection(Reader, server.path, **keywords)
    else:
        transport, reader = await loop.create_connection(Reader, *server.address, **keywords)
    transport.write(HEAD)
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
        with pytest.raises(ssl.SSLEOFError):
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


# scripted

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


async def test_scripted_answers_each_request_with_its_response(scripted):
    async with scripted([OK, b"hi"], OK + b"ho") as conn:
        for body in (b"hi", b"ho"):
            await conn.request("POST", "/", body=b"abc")
            assert await (await conn.getresponse()).read() == body
        assert scripted.server.connections == 1
        assert [head[:15] for head in scripted.server.heads] == [b"POST / HTTP/1.1"] * 2
        assert scripted.server.received[0].count(b"\r\n\r\nabc") == 2


async def test_scripted_closes(scripted):
    async with scripted(b"HTTP/1.1 200 OK\r\n\r\nto the end", close=True) as conn:
        await conn.request("GET", "/")
        assert await (await conn.getresponse()).read() == b"to the end"


async def test_scripted_over_tls(scripted):
    async with scripted([OK, b"hi"], tls=True) as conn:
        assert conn.host == "localhost"
        await conn.request("GET", "/")
        assert await (await conn.getresponse()).read() == b"hi"


# Certificates


async def test_the_right_certificate_is_accepted(certificates):
    async with ScriptedServer([expect(), close()], tls=certificates.server) as server:
        for name in ("localhost", "127.0.0.1", "::1"):
            reader = await connect(server, ssl=certificates.client, server_hostname=name)
            await reader.ended


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("wrong_host", "Hostname mismatch"),
        ("expired", "certificate has expired"),
        ("self_signed", "self[- ]signed certificate"),
        ("untrusted", "unable to get local issuer certificate"),
    ],
)
async def test_a_wrong_certificate_is_refused(certificates, name, reason):
    async with ScriptedServer([expect()], tls=getattr(certificates, name)) as server:
        with pytest.raises(ssl.SSLCertVerificationError, match=reason):
            await connect(server, ssl=certificates.client, server_hostname="localhost")


async def test_mutual_tls(certificates):
    async with ScriptedServer([expect(), close()], tls=certificates.mutual) as server:
        context = certificates.client_with_certificate
        reader = await connect(server, ssl=context, server_hostname="localhost")
        assert await reader.ended is None
        assert server.received == [HEAD]


# ConnectProxy


async def tunnel(proxy: ConnectProxy, target: str, *fields: bytes, **keywords) -> tuple[bytes, ...]:
    """CONNECT, send HEAD once granted, and return the proxy's head and all that followed."""
    reader, writer = await asyncio.open_connection(*proxy.address, **keywords)
    head = b"CONNECT %s HTTP/1.1\r\n%s\r\n" % (target.encode(), b"".join(fields))
    writer.write(head)
    answer = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " in answer:
        writer.write(HEAD)
    rest = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert proxy.heads[-1] == head
    return answer, rest


async def test_proxy_tunnels():
    async with ScriptedServer([expect(HEAD), send(RESPONSE), close()]) as server:
        async with ConnectProxy(routes={"example.com:80": server.address}) as proxy:
            for target in (f"127.0.0.1:{server.port}", "example.com:80"):
                answer, rest = await tunnel(proxy, target)
                assert answer == b"HTTP/1.1 200 Connection established\r\n\r\n"
                assert rest == RESPONSE
            assert proxy.targets == [f"127.0.0.1:{server.port}", "example.com:80"]


async def test_proxy_over_tls(certificates):
    async with ScriptedServer([expect(HEAD), send(RESPONSE), close()]) as server:
        async with ConnectProxy(tls=certificates.server) as proxy:
            target = f"127.0.0.1:{server.port}"
            context, name = certificates.client, "localhost"
            answer, rest = await tunnel(proxy, target, ssl=context, server_hostname=name)
            assert (answer[9:12], rest) == (b"200", RESPONSE)


async def test_proxy_passes_a_reset_on():
    async with ScriptedServer([expect(HEAD), reset()]) as server:
        async with ConnectProxy() as proxy:
            with pytest.raises(ConnectionResetError):
                await tunnel(proxy, f"127.0.0.1:{server.port}")


async def test_proxy_wants_credentials():
    async with ScriptedServer([expect(HEAD), send(RESPONSE), close()]) as server:
        async with ConnectProxy(credentials="user:pass") as proxy:
            target = f"127.0.0.1:{server.port}"
            answer, _ = await tunnel(proxy, target)
            assert answer.startswith(b"HTTP/1.1 407 Proxy Authentication Required\r\n")
            field = b"Proxy-Authorization: Basic dXNlcjpwYXNz\r\n"
            assert (await tunnel(proxy, target, field))[1] == RESPONSE
            assert proxy.targets == [target]


async def test_proxy_refuses():
    refusal = b"HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\nnope"
    async with ConnectProxy(refuse=refusal) as proxy:
        answer, rest = await tunnel(proxy, "example.com:80")
        assert answer + rest == refusal


async def test_proxy_knows_no_other_names():
    with refusing_address() as (host, port):
        async with ConnectProxy() as proxy:
            for target in ("example.com:80", f"{host}:{port}"):
                answer, _ = await tunnel(proxy, target)
                assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")


async def test_proxy_sends_leftover_bytes_behind_its_head():
    async with ScriptedServer([expect(HEAD), send(RESPONSE), close()]) as server:
        async with ConnectProxy(leftover=b"220 hi\r\n") as proxy:
            _, rest = await tunnel(proxy, f"127.0.0.1:{server.port}")
            assert rest == b"220 hi\r\n" + RESPONSE
