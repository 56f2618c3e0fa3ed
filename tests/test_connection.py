"""connection.py: who is connected to, when, and who owns the socket; what is said about it."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import enum
import gc
import http.client
import io
import logging
import re
import socket
import sys
import textwrap
import threading
import warnings

import pytest

from aiohttpconn import (
    BadStatusLine,
    CertificateError,
    ConnectionRefused,
    HTTPConnection,
    HTTPSConnection,
    IncompleteRead,
    InvalidURL,
    Limits,
    NotConnected,
    RemoteDisconnected,
    TLSError,
    TunnelError,
    dial,
)
from aiohttpconn.exceptions import CannotSendHeader, CannotSendRequest, ResponseNotReady

from .support import (
    ConnectProxy,
    ScriptedServer,
    close,
    expect,
    expect_request,
    notify,
    read_all,
    refusing_address,
    reset,
    send,
    wait,
)
from .support.programs import complaints

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
UNTIL_EOF = b"HTTP/1.1 200 OK\r\n\r\n"


async def turns(n: int = 20) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def exchange(conn, url: str = "/") -> bytes:
    await conn.request("GET", url)
    response = await conn.getresponse()
    return await response.read()


# Hosts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "host", "port"),
    [
        (("a.test",), "a.test", 80),
        (("a.test", 8080), "a.test", 8080),
        (("a.test:8080",), "a.test", 8080),
        (("a.test:",), "a.test", 80),
        (("a.test:0",), "a.test", 0),
        (("127.0.0.1:81",), "127.0.0.1", 81),
        (("[::1]",), "::1", 80),
        (("[::1]:81",), "::1", 81),
        (("[::1]:",), "::1", 80),
        (("::1",), "::1", 80),
        (("::1", 81), "::1", 81),
        (("fe80::1%eth0",), "fe80::1%eth0", 80),
        (("[fe80::1%25eth0]:81",), "fe80::1%25eth0", 81),
        (("bücher.test",), "bücher.test", 80),
    ],
)
def test_hosts_and_ports(given, host, port):
    conn = HTTPConnection(*given)
    assert (conn.host, conn.port) == (host, port)
    if given[0] not in ("::1", "fe80::1%eth0") or len(given) > 1:  # http.client sees a port there
        theirs = http.client.HTTPConnection(*given)
        assert (theirs.host, theirs.port) == (host, port)
    secure = HTTPSConnection(*given)
    assert secure.port == (443 if port == 80 else port)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (("a.test:www",), "nonnumeric port: 'www'"),
        (("a.test:+1",), "nonnumeric port: '+1'"),
        (("a.test:٣",), "nonnumeric port: '٣'"),
        (("a.test:65536",), "a port must be 0 to 65535, got 65536"),
        (("a.test", -1), "a port must be 0 to 65535, got -1"),
        (("a b",), "not a host name or an IP address: 'a b'"),
        (("user@a.test",), "not a host name or an IP address: '***@a.test'"),
        (("a.test/x",), "not a host name or an IP address: 'a.test/x'"),
        (("a\r\nX: 1", 80), "not a host name or an IP address: 'a\\r\\nX: 1'"),
        (("[::1]x", 80), "not a host name or an IP address: '[::1]x'"),
    ],
)
def test_what_is_no_host_or_port(given, text):
    with pytest.raises(InvalidURL) as info:
        HTTPConnection(*given)
    assert str(info.value) == text


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (("a.test",), "a.test"),
        (("a.test", 81), "a.test:81"),
        (("::1",), "[::1]"),
        (("::1", 81), "[::1]:81"),
        (("fe80::1%lo", 81), "[fe80::1]:81"),
        (("bücher.test",), "xn--bcher-kva.test"),
    ],
)
async def test_the_host_field(tmp_path, given, field):
    async with ScriptedServer([expect(), send(OK)], path=tmp_path / "s") as server:
        async with HTTPConnection(*given, uds=server.path) as conn:
            assert await exchange(conn) == b"hi"
        assert server.heads == [
            f"GET / HTTP/1.1\r\nHost: {field}\r\nAccept-Encoding: identity\r\n\r\n".encode()
        ]


@pytest.mark.parametrize("host", ["::1", "[::1]"])
async def test_ipv6(host):
    async with ScriptedServer([expect(), send(OK)], host="::1") as server:
        async with HTTPConnection(host, server.port) as conn:
            assert await exchange(conn) == b"hi"
            assert conn.sock.getpeername()[:2] == ("::1", server.port)
        assert b"Host: [::1]:%d\r\n" % server.port in server.heads[0]


async def test_an_absolute_url_sets_host(scripted):
    async with scripted(OK) as conn:
        assert await exchange(conn, "http://b.test:1/x?y") == b"hi"
        assert scripted.server.heads == [
            b"GET http://b.test:1/x?y HTTP/1.1\r\nHost: b.test:1\r\n"
            b"Accept-Encoding: identity\r\n\r\n"
        ]


# Ways to connect -------------------------------------------------------------------------------


async def test_source_address_and_socket_options():
    async with ScriptedServer([expect(), send(OK)]) as server:
        options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
        async with HTTPConnection(
            server.host, server.port, source_address=("127.0.0.3", 0), socket_options=options
        ) as conn:
            assert conn.source_address == ("127.0.0.3", 0)
            assert await exchange(conn) == b"hi"
            assert conn.sock.getsockname()[0] == "127.0.0.3"
            assert conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert conn.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("kind", [str, str.encode], ids=["str", "bytes"])
async def test_a_unix_socket(tmp_path, kind):
    async with ScriptedServer([expect(), send(OK)], path=tmp_path / "s") as server:
        async with HTTPConnection("a.test", uds=kind(server.path)) as conn:
            assert await exchange(conn) == b"hi"
            assert conn.sock.family == socket.AF_UNIX


class InMemory(asyncio.Transport):
    """A transport that answers every write with OK."""

    def __init__(self, loop) -> None:
        super().__init__()
        self.loop = loop
        self.written = bytearray()
        self.closing = False
        self.reading = True

    def write(self, data) -> None:
        self.written += data
        self.loop.call_soon(self._answer)

    def _answer(self) -> None:
        self.protocol.get_buffer(-1)[: len(OK)] = OK
        self.protocol.buffer_updated(len(OK))

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self.loop.call_soon(self.protocol.connection_lost, None)

    abort = close


async def test_a_dialer_of_ones_own():
    made = []

    async def dialer(factory, destination, report):
        transport = InMemory(asyncio.get_running_loop())
        transport.protocol = factory()
        transport.protocol.connection_made(transport)
        made.append((destination, transport))
        return transport, transport.protocol

    async with HTTPConnection("a.test", 81, dialer=dialer) as conn:
        assert await exchange(conn, "/1") == b"hi"
        assert await exchange(conn, "/2") == b"hi"
        assert conn.sock is None  # it has none
        await conn.request("POST", "/3", io.BytesIO(b"x"))
        assert (await conn.getresponse()).status == 200
    [(destination, transport)] = made
    assert (destination.host, destination.port) == ("a.test", 81)
    assert transport.closing
    assert transport.written.startswith(b"GET /1 HTTP/1.1\r\nHost: a.test:81\r\n")


async def test_a_dialer_may_count_and_refuse():
    async def dialer(factory, destination, report):
        raise PermissionError("not today")

    conn = HTTPConnection("a.test", dialer=dialer)
    with pytest.raises(PermissionError, match=r"^GET http://a\.test/x: not today \(dns"):
        await conn.request("GET", "/x")


async def test_refused(scripted):
    with refusing_address() as (host, port):
        conn = HTTPConnection(host, port)
        for _ in range(2):
            with pytest.raises(ConnectionRefused) as info:
                await conn.request("GET", "/x")
            assert re.fullmatch(
                rf"GET http://127.0.0.1:{port}/x: connection refused by 127.0.0.1:{port} "
                r"\(connect, [\d.]+ ms\)\. Is a server running on that port\?",
                str(info.value),
            )
            assert info.value.phase == "connect"
        with pytest.raises(ConnectionRefused, match=rf"^http://127.0.0.1:{port}: connection refu"):
            await conn.connect()


async def test_connect_by_hand_and_dial_times(scripted):
    async with scripted(OK, OK) as conn:
        assert conn.dial_times == {}
        await conn.connect()
        assert list(conn.dial_times) == ["dns", "connect"]
        assert all(seconds >= 0 for seconds in conn.dial_times.values())
        assert await exchange(conn) == b"hi"
        assert scripted.server.connections == 1


async def test_connect_again_closes_the_earlier_connection():
    async with ScriptedServer([read_all()], [expect(), send(OK)]) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.connect()
            await conn.connect()
            await server.conns[0].wait_ended()
            assert await exchange(conn) == b"hi"
            assert server.connections == 2


async def test_auto_open_0():
    async with ScriptedServer([expect(), send(CLOSING), close()], [expect(), send(OK)]) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            conn.auto_open = 0
            with pytest.raises(NotConnected):
                await conn.request("GET", "/")
            await conn.connect()
            assert await exchange(conn) == b"hi"
            with pytest.raises(NotConnected):
                await conn.request("GET", "/")
            await conn.connect()
            assert await exchange(conn) == b"hi"


# Losing a connection, and opening another --------------------------------------------------------


@pytest.mark.parametrize("ending", [close(), reset()], ids=["fin", "rst"])
async def test_reconnects_after_the_server_has_closed(ending):
    gone = asyncio.Event()
    script = [expect(), send(OK), ending, notify(gone), read_all()], [expect(), send(OK)]
    async with ScriptedServer(*script) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            assert await exchange(conn) == b"hi"
            await gone.wait()
            while conn.sock is not None:
                await asyncio.sleep(0)
            assert repr(conn).endswith(" not connected>")
            assert await exchange(conn) == b"hi"
            assert server.connections == 2


@pytest.mark.parametrize("ending", [close(), reset()], ids=["fin", "rst"])
async def test_reconnects_after_a_failed_exchange(ending):
    script = [expect(), ending, read_all()], [expect(), send(OK)]
    async with ScriptedServer(*script) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/x")
            with pytest.raises(ConnectionResetError) as info:
                await conn.getresponse()
            if isinstance(info.value, RemoteDisconnected):
                assert str(info.value).startswith(
                    f"GET http://127.0.0.1:{server.port}/x: "
                    "Remote end closed connection without response (waiting for the head, "
                )
            assert info.value.request_sent
            assert conn.sock is None
            assert await exchange(conn) == b"hi"


async def test_a_closing_response_hands_the_socket_over():
    script = [expect(), send(CLOSING), close()], [expect(), send(OK)]
    async with ScriptedServer(*script) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            assert response.will_close
            assert conn.sock is None
            # The next request may begin before the body is read.
            await conn.request("GET", "/")
            second = await conn.getresponse()
            assert (await response.read(), await second.read()) == (b"hi", b"hi")
            assert server.connections == 2


async def test_a_request_may_begin_while_a_body_is_unread(scripted):
    async with scripted(OK, OK.replace(b"hi", b"ho")) as conn:
        await conn.request("GET", "/1")
        first = await conn.getresponse()
        await conn.request("GET", "/2")
        with pytest.raises(ResponseNotReady, match="Request-sent"):
            await conn.getresponse()
        assert await first.read() == b"hi"
        assert await (await conn.getresponse()).read() == b"ho"
        assert scripted.server.connections == 1


async def test_strict_in_python_2s_place_is_told_from_a_timeout():
    for kind in (HTTPConnection, HTTPSConnection):
        for value in (True, False):
            with pytest.raises(
                TypeError, match=f"got {value}: if that is strict, .* strict={value}"
            ):
                kind("a.test", 80, **{"timeout": value})
    with pytest.raises(TypeError, match="if that is strict, which came third in Python 2"):
        HTTPConnection("a.test", 80, True)


async def test_states(scripted):
    async with scripted(OK, OK) as conn:
        text = "^Idle: no request is under way; an 'await' in front of conn.request"
        with pytest.raises(ResponseNotReady, match=text):
            await conn.getresponse()
        with pytest.raises(CannotSendHeader):
            conn.putheader("A", "b")
        with pytest.raises(CannotSendHeader):
            await conn.endheaders()
        conn.putrequest("GET", "/")
        with pytest.raises(CannotSendRequest, match="Request-started"):
            conn.putrequest("GET", "/")
        text = "^Request-started: the head was not sent; an 'await' in front of conn.endheaders"
        with pytest.raises(ResponseNotReady, match=text):
            await conn.getresponse()
        await conn.endheaders()
        with pytest.raises(CannotSendRequest, match="Request-sent"):
            await conn.request("GET", "/")
        with pytest.raises(CannotSendHeader):
            conn.putheader("A", "b")
        assert await (await conn.getresponse()).read() == b"hi"
        # close() brings every state back to the first.
        conn.putrequest("GET", "/")
        conn.close()
        assert await exchange(conn) == b"hi"


async def test_close_gives_up_an_unread_response():
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
    async with ScriptedServer([expect(), send(head, b"x"), read_all()]) as server:
        conn = HTTPConnection(server.host, server.port)
        await conn.request("GET", "/")
        response = await conn.getresponse()
        conn.close()
        conn.close()
        assert response.closed
        assert not response.complete
        assert await response.read() == b""
        await conn.wait_closed()
        await conn.wait_closed()


async def test_close_wakes_who_waits_for_a_response():
    async with ScriptedServer([expect(), read_all()], [expect(), send(OK)]) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/")
            task = asyncio.create_task(conn.getresponse())
            await asyncio.sleep(0)
            conn.close()
            with pytest.raises(ConnectionAbortedError, match="closed by this program"):
                await task
            assert await exchange(conn) == b"hi"


async def test_close_wakes_who_sends_a_body():
    async def for_ever():
        yield b"x"
        await asyncio.Event().wait()

    async with ScriptedServer([expect(), read_all()], [expect(), send(OK)]) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            task = asyncio.create_task(conn.request("POST", "/", for_ever()))
            while not server.heads:
                await asyncio.sleep(0)
            conn.close()
            with pytest.raises(ConnectionAbortedError, match="closed by this program"):
                await task
            assert await exchange(conn) == b"hi"


async def test_async_with_closes():
    async with ScriptedServer([expect(), send(OK)]) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            assert isinstance(conn, HTTPConnection)
            assert await exchange(conn) == b"hi"
        assert conn.sock is None
        await server.conns[0].wait_ended()


async def test_async_with_does_not_cut_a_response_that_owns_its_socket():
    go_on = asyncio.Event()
    async with ScriptedServer([expect(), send(UNTIL_EOF), wait(go_on), send(b"hi"), close()]) as s:
        async with HTTPConnection(s.host, s.port) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
        go_on.set()
        assert await response.read() == b"hi"


# Who owns what, and what the garbage collector finds ---------------------------------------------


def warned(caught) -> list[str]:
    return [f"{w.category.__name__}: {w.message}" for w in caught]


@contextlib.contextmanager
def catching():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught
        gc.collect()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("unread", [False, True], ids=["idle", "unread"])
async def test_a_dropped_connection_warns_once(certificates, unread, tls):
    context = certificates.server if tls else None
    async with ScriptedServer([expect(), send(OK[:-1], OK[-1:]), read_all()], tls=context) as s:
        if tls:
            conn = HTTPSConnection("localhost", s.port, context=certificates.client)
        else:
            conn = HTTPConnection("localhost", s.port)
        await conn.request("GET", "/")
        response = await conn.getresponse()
        if not unread:
            await response.read()
        scheme, name = ("https", "HTTPSConnection") if tls else ("http", "HTTPConnection")
        with catching() as caught:
            del conn, response
        assert warned(caught) == [
            f"ResourceWarning: unclosed {scheme} connection to localhost:{s.port}: call close(), "
            f"or use 'async with {name}(...)'"
        ]
        await s.conns[0].wait_ended()


async def test_a_closed_or_lost_or_unopened_connection_warns_not(scripted):
    with catching() as caught:
        HTTPConnection("a.test")
        with pytest.raises(InvalidURL):
            HTTPConnection("a b")
        async with scripted(OK) as conn:
            await exchange(conn)
        del conn
        async with ScriptedServer([close(), read_all()]) as server:
            conn = HTTPConnection(server.host, server.port)
            await conn.connect()
            while conn.sock is not None:
                await asyncio.sleep(0)
            del conn
    assert warned(caught) == []


async def test_a_dropped_connection_whose_warning_is_an_error_is_closed(monkeypatch):
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: ignored.append(args.exc_type))
    async with ScriptedServer([expect(), send(OK), read_all()]) as server:
        conn = HTTPConnection(server.host, server.port)
        await exchange(conn)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del conn
            gc.collect()
        assert ignored == [ResourceWarning]
        await server.conns[0].wait_ended()


@pytest.mark.parametrize(
    "head", [UNTIL_EOF, CLOSING[:-2].replace(b"2", b"2", 1)], ids=["eof", "length"]
)
async def test_a_response_outlives_its_connection_object(head):
    go_on = asyncio.Event()
    async with ScriptedServer([expect(), send(head), wait(go_on), send(b"hi"), close()]) as server:

        async def fetch():
            conn = HTTPConnection(server.host, server.port)
            await conn.request("GET", "/")
            return await conn.getresponse()

        with catching() as caught:
            response = await fetch()
            gc.collect()
            task = asyncio.create_task(response.read())
            await turns(3)
            gc.collect()
            go_on.set()
            assert await task == b"hi"
            assert response.complete
        assert warned(caught) == []
        await server.conns[0].wait_ended()


async def test_a_keep_alive_response_outlives_its_connection_object_too():
    go_on = asyncio.Event()
    async with ScriptedServer([expect(), send(OK[:-2]), wait(go_on), send(b"hi")]) as server:

        async def fetch():
            conn = HTTPConnection(server.host, server.port)
            await conn.request("GET", "/")
            return await conn.getresponse()

        with catching() as caught:
            response = await fetch()
            gc.collect()
            go_on.set()
            assert await response.read() == b"hi"
        # The program did not close it, though it came to nothing bad.
        assert len(warned(caught)) == 1
        assert response.complete
        await server.conns[0].wait_ended()


async def test_a_read_that_nobody_else_holds_goes_on():
    go_on = asyncio.Event()
    got = []
    async with ScriptedServer([expect(), send(UNTIL_EOF), wait(go_on), send(b"hi"), close()]) as s:

        async def fetch():
            conn = HTTPConnection(s.host, s.port)
            await conn.request("GET", "/")
            response = await conn.getresponse()
            del conn
            got.append(await response.read())

        asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(fetch()) and None)
        while not s.heads:
            await asyncio.sleep(0)
        await turns()
        gc.collect()
        go_on.set()
        while not got:
            await asyncio.sleep(0)
        assert got == [b"hi"]


async def test_a_dropped_response_closes_its_socket():
    async with ScriptedServer([expect(), send(UNTIL_EOF, b"x"), read_all()]) as server:
        conn = HTTPConnection(server.host, server.port)
        with catching() as caught:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            assert conn.sock is None
            del response
        assert warned(caught) == []
        await server.conns[0].wait_ended()


# A program's end ---------------------------------------------------------------------------------

PROGRAM = """
import asyncio, gc, sys
from aiohttpconn import HTTPConnection, HTTPSConnection

async def main():
{body}

if {uvloop}:
    import uvloop
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
else:
    asyncio.run(main())
{after}
"""

CLEAN = {
    "async with": """
        async with HTTPConnection("127.0.0.1", port) as conn:
            await conn.request("GET", "/")
            assert await (await conn.getresponse()).read() == b"hi"
    """,
    "close": """
        conn = HTTPConnection("127.0.0.1", port)
        await conn.request("GET", "/")
        assert await (await conn.getresponse()).read() == b"hi"
        conn.close()
        await conn.wait_closed()
    """,
    "unread": """
        async with HTTPConnection("127.0.0.1", port) as conn:
            await conn.request("POST", "/", [b"x"])
            await conn.getresponse()
    """,
    "timeout": """
        async with HTTPConnection("127.0.0.1", port, timeout=60) as conn:
            await conn.request("GET", "/")
            assert await (await conn.getresponse()).read() == b"hi"
    """,
}


def blocking_server(answer: bytes, connections: int = 1) -> int:
    """Serve in a thread, for a program that has a loop of its own; return the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener:
            for _ in range(connections):
                sock, _ = listener.accept()
                with sock:
                    sock.recv(65536)
                    sock.sendall(answer)
                    while sock.recv(65536):
                        pass

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


async def run_program(
    body: str, uvloop: bool, after: str = "", options=("-W", "error"), connections: int = 1
):
    port = blocking_server(OK, connections)
    body = textwrap.indent(textwrap.dedent(body), "    ")
    program = PROGRAM.format(body=body, uvloop=uvloop, after=textwrap.dedent(after))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-X",
        "dev",
        *options,
        "-c",
        f"port = {port}\n{program}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, complaints(output.decode())


@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.may_leak("the server of the program is a thread with a socket of its own")
@pytest.mark.parametrize("uvloop", [False, True], ids=["asyncio", "uvloop"])
async def test_a_program_that_closes_prints_nothing(uvloop):
    if uvloop:
        pytest.importorskip("uvloop")
    # All in one program: starting Python takes longest.
    body = "\n".join(f"if True:{text}" for text in CLEAN.values())
    assert await run_program(body, uvloop, connections=len(CLEAN)) == (0, "")


LEAVES_OPEN = """
    global conn
    conn = HTTPConnection("127.0.0.1", port)
    await conn.request("GET", "/")
    assert await (await conn.getresponse()).read() == b"hi"
"""


@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.may_leak("the server of the program is a thread with a socket of its own")
@pytest.mark.parametrize("uvloop", [False, True], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("when", ["loop is closed", "loop is gone", "in the loop"])
async def test_a_program_that_does_not_close_is_told_in_the_loop_and_leaves_nothing_open(
    when, uvloop
):
    if uvloop:
        pytest.importorskip("uvloop")
    body, after = LEAVES_OPEN, ""
    if when == "in the loop":
        body += "    del conn; gc.collect()\n    await asyncio.sleep(0.01)"
    elif when == "loop is closed":
        after = "del conn; gc.collect()"
    code, output = await run_program(body, uvloop, after, ("-W", "always"))
    assert code == 0, output
    ours = re.findall(r"ResourceWarning: unclosed http connection to 127.0.0.1:\d+: call", output)
    # A loop that shuts down ends the connections that it still has: nothing is left open then.
    assert len(ours) == (when == "in the loop"), output
    assert "Traceback" not in output
    assert "Exception ignored" not in output
    others = re.findall(r"Warning: (?!unclosed http|Enable tracemalloc).*", output)
    assert others == []


# What is told ------------------------------------------------------------------------------------


async def test_repr(certificates):
    conn = HTTPConnection("a.test", 81)
    assert repr(conn) == "<HTTPConnection a.test:81 not connected>"
    assert repr(HTTPConnection("::1")) == "<HTTPConnection [::1]:80 not connected>"
    assert repr(HTTPConnection("a", uds="/s")) == "<HTTPConnection /s not connected>"
    conn.set_tunnel("b.test", 82)
    assert repr(conn) == "<HTTPConnection b.test:82 through a.test:81 not connected>"
    async with ScriptedServer([expect(), send(OK)] * 2, tls=certificates.server) as server:
        async with HTTPSConnection("localhost", server.port, context=certificates.client) as conn:
            where = f"<HTTPSConnection localhost:{server.port}"
            await conn.connect()
            assert repr(conn) == f"{where} tls1.3 idle, 0 requests>"
            await conn.request("GET", "/")
            assert repr(conn) == f"{where} tls1.3 head, 1 request>"
            await (await conn.getresponse()).read()
            assert repr(conn) == f"{where} tls1.3 idle, 1 request>"
            await exchange(conn)
            assert repr(conn) == f"{where} tls1.3 idle, 2 requests>"


@pytest.mark.parametrize(
    ("method", "body", "answer"),
    [
        ("GET", None, b"HTTP/1.1 200 OK\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 2\r\n\r\nhi"),
        ("POST", b"abc", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        ("POST", [b"a", b"bc"], b"HTTP/1.0 200 Fine \r\nContent-Length: 0\r\n\r\n"),
    ],
)
@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.may_leak("http.client's server is a thread")
async def test_debuglevel_prints_what_http_client_prints(capsys, method, body, answer):
    port = blocking_server(answer)

    def theirs() -> None:
        conn = http.client.HTTPConnection("127.0.0.1", port)
        conn.set_debuglevel(1)
        conn.request(method, "/x", body)
        conn.getresponse().read()
        conn.close()

    await asyncio.to_thread(theirs)
    expected = capsys.readouterr().out.replace(str(port), "PORT")
    script = [expect_request(), send(answer)]
    async with ScriptedServer(script) as server:
        conn = HTTPConnection("127.0.0.1", server.port)
        conn.set_debuglevel(1)
        await conn.request(method, "/x", body)
        response = await conn.getresponse()
        await response.read()
        assert response.debuglevel == conn.debuglevel == 1
        printed = capsys.readouterr().out.replace(str(server.port), "PORT")
        conn.set_debuglevel(0)
        conn.close()
        await conn.wait_closed()
    # http.client sends and prints a body by itself; ours leaves with the head if it is small.
    received = re.findall(r"^(?:reply|header): .*$", expected, re.MULTILINE)
    assert re.findall(r"^(?:reply|header): .*$", printed, re.MULTILINE) == received
    sent, sent_by_theirs = (
        b"".join(map(ast.literal_eval, re.findall(r"^send: (b'.*')$", text, re.MULTILINE)))
        for text in (printed, expected)
    )
    if not isinstance(body, list):
        assert sent == sent_by_theirs
    if body is None:
        assert printed == expected


async def test_audit_events(scripted):
    events = []
    armed = True

    def hook(event, args):
        if armed and event.startswith("http.client."):
            events.append((event, args))

    sys.addaudithook(hook)
    try:
        async with scripted(OK, OK) as conn:
            await exchange(conn)
            await conn.request("POST", "/", [b"abc"])
            await (await conn.getresponse()).read()
            port = conn.port
    finally:
        armed = False
    assert events[0] == ("http.client.connect", (conn, "127.0.0.1", port))
    sent = [(event, args[0], bytes(args[1])) for event, args in events[1:]]
    head = b"Host: 127.0.0.1:%d\r\nAccept-Encoding: identity\r\n" % port
    assert sent == [
        ("http.client.send", conn, b"GET / HTTP/1.1\r\n" + head + b"\r\n"),
        (
            "http.client.send",
            conn,
            b"POST / HTTP/1.1\r\n" + head + b"Transfer-Encoding: chunked\r\n\r\n",
        ),
        ("http.client.send", conn, b"abc"),
    ]


async def test_the_logger(scripted, caplog):
    with caplog.at_level(logging.DEBUG, logger="aiohttpconn"):
        async with scripted(OK) as conn:
            await exchange(conn)
            where = f"<HTTPConnection 127.0.0.1:{conn.port}"
        told = [record.message for record in caplog.records if record.name == "aiohttpconn"]
        assert told == [
            f"connected {where} idle, 0 requests>",
            f"closing {where} idle, 1 request>",
        ]


async def test_nothing_is_logged_unless_asked(scripted, caplog):
    async with scripted(OK) as conn:
        await exchange(conn)
    assert [record for record in caplog.records if record.name == "aiohttpconn"] == []


# TLS -------------------------------------------------------------------------------------------


async def test_tls_with_a_context_a_cafile_and_another_name(certificates):
    context = certificates.server_for("other.test", "localhost")
    async with ScriptedServer([expect(), send(OK)], tls=context) as server:
        for options in (
            {"context": certificates.client},
            {"cafile": certificates.ca_file},
            {"context": certificates.client, "server_hostname": "other.test"},
        ):
            async with HTTPSConnection("localhost", server.port, **options) as conn:
                assert await exchange(conn) == b"hi"
                assert list(conn.dial_times) == ["dns", "connect", "tls"]
        assert [conn.tls.version() for conn in server.conns] == ["TLSv1.3"] * 3


async def test_tls_that_is_not_trusted(certificates):
    async with ScriptedServer([read_all()], tls=certificates.server) as server:
        url = f"https://localhost:{server.port}"
        conn = HTTPSConnection("localhost", server.port)
        with pytest.raises(CertificateError) as info:
            await conn.request("GET", "/x")
        assert str(info.value).startswith(
            f"GET {url}/x: the certificate of the server cannot be verified for 'localhost': "
        )
        assert "pass its file as cafile=" in str(info.value)
        conn = HTTPSConnection(
            "localhost", server.port, context=certificates.client, server_hostname="b.test"
        )
        with pytest.raises(CertificateError, match=r"cannot be verified for 'b\.test'"):
            await conn.request("GET", "/x")


async def test_tls_to_a_plain_server(certificates):
    async with ScriptedServer([send(b"220 hello\r\n"), read_all()]) as server:
        conn = HTTPSConnection("localhost", server.port, context=certificates.client)
        with pytest.raises(TLSError, match=r"did not answer with TLS|spoke before the TLS") as info:
            await conn.connect()
        assert re.search(r"try http://|Does it speak TLS on this port\?", str(info.value))


def test_a_context_and_a_cafile_are_one_too_many(certificates):
    with pytest.raises(ValueError, match="cafile= makes a context") as info:
        HTTPSConnection("a.test", context=certificates.client, cafile=certificates.ca_file)
    assert str(info.value) == "cafile= makes a context: give it, or context=, not both"


@pytest.mark.parametrize("notified", [True, False], ids=["close_notify", "truncated"])
async def test_a_body_until_the_end_of_tls_is_whole_only_after_close_notify(certificates, notified):
    script = [expect(), send(UNTIL_EOF, b"hello"), close(notify=notified), read_all()]
    async with ScriptedServer(script, tls=certificates.server) as server:
        async with HTTPSConnection("localhost", server.port, context=certificates.client) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            if notified:
                assert await response.read() == b"hello"
            else:
                with pytest.raises(http.client.IncompleteRead) as info:
                    await response.read()
                assert info.value.partial == b"hello"
            assert response.complete is notified


# Tunnels ---------------------------------------------------------------------------------------

SECRET = {"Proxy-Authorization": "Basic dXNlcjpzZWNyZXQ="}


@pytest.mark.parametrize("proxy_tls", [False, True], ids=["to proxy", "tls to proxy"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_tunnel(certificates, tls, proxy_tls):
    context = certificates.server if tls else None
    proxy_context = certificates.server if proxy_tls else None
    reply = b"HTTP/1.1 200 Go\r\nX-Proxy: p\r\nX-Proxy: q\r\n\r\n"
    async with ScriptedServer([expect(), send(OK)] * 2, tls=context) as server:
        async with ConnectProxy(
            credentials="user:secret",
            reply=reply,
            tls=proxy_context,
            routes={"localhost:8443": server.address},
        ) as proxy:
            options = {"proxy_context": certificates.client if proxy_tls else None}
            if tls:
                conn = HTTPSConnection(
                    "localhost", proxy.port, context=certificates.client, **options
                )
            else:
                conn = HTTPConnection("localhost", proxy.port, **options)
            async with conn:
                conn.set_tunnel("localhost", 8443, headers=SECRET)
                assert conn.get_proxy_response_headers() is None
                assert await exchange(conn, "/x") == b"hi"
                headers = conn.get_proxy_response_headers()
                assert isinstance(headers, http.client.HTTPMessage)
                assert headers.get_all("x-proxy") == ["p", "q"]
                response_url = await _url(conn)
                assert response_url == f"{'https' if tls else 'http'}://localhost:8443/y"
                with pytest.raises(RuntimeError) as info:
                    conn.set_tunnel("b.test")
                assert str(info.value) == "Can't set up tunnel for established connection"
        assert proxy.heads == [
            b"CONNECT localhost:8443 HTTP/1.1\r\nHost: localhost:8443\r\n"
            b"Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n\r\n"
        ]
        # The proxy's credentials are the proxy's alone.
        assert [head.split(b"\r\n")[:2] for head in server.heads] == [
            [b"GET /x HTTP/1.1", b"Host: localhost:8443"],
            [b"GET /y HTTP/1.1", b"Host: localhost:8443"],
        ]
        assert b"Proxy-Auth" not in b"".join(server.heads)
        assert server.connections == 1


async def _url(conn) -> str:
    await conn.request("GET", "/y")
    response = await conn.getresponse()
    await response.read()
    return response.url


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_tunnel_that_is_refused(certificates, tls):
    answer = (
        b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n"
        b"Content-Length: 8\r\n\r\nwho are?"
    )
    async with ConnectProxy(refuse=answer) as proxy:
        kind = HTTPSConnection if tls else HTTPConnection
        options = {"context": certificates.client} if tls else {}
        conn = kind(proxy.host, proxy.port, **options)
        conn.set_tunnel("a.test", 1, headers={"Proxy-Authorization": "Basic d3Jvbmc="})
        with pytest.raises(TunnelError) as info:
            await conn.request("GET", "/x", headers={"Authorization": "Basic b3JpZ2lu"})
        error = info.value
        assert isinstance(error, OSError)
        scheme = "https" if tls else "http"
        assert str(error).startswith(
            f"GET {scheme}://a.test:1/x: Tunnel connection failed: 407 Proxy Authentication "
            "Required (proxy, "
        )
        assert (error.status, error.reason) == (407, "Proxy Authentication Required")
        assert error.headers == [("Proxy-Authenticate", "Basic"), ("Content-Length", "8")]
        assert (error.body, error.phase) == (b"who are?", "proxy")
        assert "set_tunnel(" in str(error)
        assert "d3Jvbmc" not in str(error) + repr(vars(error))
        assert conn.sock is None
        assert b"b3JpZ2lu" not in b"".join(proxy.received)


async def test_a_tunnel_to_the_default_port_of_the_scheme(certificates):
    async with ConnectProxy(refuse=b"HTTP/1.1 503 No\r\n\r\n") as proxy:
        for kind, port in ((HTTPConnection, 80), (HTTPSConnection, 443)):
            conn = kind(proxy.host, proxy.port)
            conn.set_tunnel("a.test")
            with pytest.raises(TunnelError, match="Tunnel connection failed: 503 No"):
                await conn.connect()
            assert proxy.heads[-1].startswith(b"CONNECT a.test:%d HTTP/1.1\r\n" % port)


@pytest.mark.parametrize(
    ("host", "headers", "error"),
    [
        ("a\r\nX: 1", {}, InvalidURL),
        ("a b", {}, InvalidURL),
        ("a.test:x", {}, InvalidURL),
        ("a.test", {"X": "a\r\nY: 1"}, ValueError),
        ("a.test", {"X\r\n": "a"}, ValueError),
    ],
)
def test_what_may_not_be_sent_to_a_proxy(host, headers, error):
    conn = HTTPConnection("proxy.test")
    with pytest.raises(error):
        conn.set_tunnel(host, headers=headers)


# The rest --------------------------------------------------------------------------------------


async def test_limits_of_a_head(scripted):
    head = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5 + b"Content-Length: 2\r\n\r\nhi"
    for options, works in (
        ({}, True),
        ({"max_response_headers": 6}, True),
        ({"max_response_headers": 5}, False),
        ({"limits": Limits(max_fields=5)}, False),
        ({"limits": Limits(max_fields=5), "max_response_headers": 6}, True),
    ):
        async with scripted(head, **options) as conn:
            await conn.request("GET", "/")
            if works:
                assert await (await conn.getresponse()).read() == b"hi"
            else:
                with pytest.raises(http.client.HTTPException, match="got more than 5 headers"):
                    await conn.getresponse()


async def test_a_subclass_with_other_defaults(scripted):
    class Mine(HTTPConnection):
        default_port = 8080
        debuglevel = 0
        auto_open = 0

    conn = Mine("a.test")
    assert conn.port == 8080
    with pytest.raises(NotConnected):
        await conn.request("GET", "/")


async def test_one_dialer_for_all():
    assert HTTPConnection("a.test")._dialer is dial


async def test_close_ends_what_send_may_still_send(scripted):
    async with scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi") as conn:
        conn.putrequest("POST", "/")
        conn.putheader("Content-Length", 5)
        await conn.endheaders()
        conn.close()
        await conn.request("GET", "/")
        with pytest.raises(CannotSendRequest):
            await conn.send(b"abcde")
        assert await (await conn.getresponse()).read() == b"hi"


EARLY = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha"


async def test_no_request_is_written_into_the_body_of_another():
    # The answer begins before the body is whole, and is asked for all the same.
    event = asyncio.Event()
    early = [expect(), send(EARLY), wait(event), send(b"lf")]
    ok = [expect(), send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")]
    async with ScriptedServer(early, ok) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            conn.putrequest("POST", "/")
            conn.putheader("Content-Length", 10)
            await conn.endheaders()
            await conn.send(b"12345")
            while not conn._exchange.has_head:
                await asyncio.sleep(0)
            first = await conn.getresponse()
            await conn.request("GET", "/2")
            assert await (await conn.getresponse()).read() == b"hi"
            event.set()
            assert await first.read() == b"half"
        assert server.received[0].endswith(b"\r\n\r\n12345")
        assert server.connections == 2


async def test_close_in_a_body_ends_the_request_behind_an_early_head():
    async def body():
        yield b"12345"
        while not conn._exchange.has_head:
            await asyncio.sleep(0)
        conn.close()
        yield b"67890"

    async with ScriptedServer([expect(), send(EARLY)]) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            with pytest.raises(IncompleteRead, match="the connection was closed by this program"):
                await conn.request("POST", "/", body())
            await conn.request("GET", "/")


# The peer ends while we connect -------------------------------------------------------------


def after_turns(turns: int):
    """Return a dialer that takes *turns* of the loop longer: the peer's end is seen meanwhile."""

    async def dialer(factory, destination, report):
        made = await dial(factory, destination, report)
        for _ in range(turns):
            await asyncio.sleep(0)
        return made

    return dialer


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("steps", [[close()], [send(b"220 hello\r\n")], [reset()]])
@pytest.mark.parametrize("body", [None, b"x", b"x" * 200_000])
async def test_a_peer_that_ends_or_speaks_while_we_connect_is_told_at_once(turns, steps, body):
    async with ScriptedServer(steps, steps, steps) as server:
        async with HTTPConnection(*server.address, 10, dialer=after_turns(turns)) as conn:
            for _ in range(3):
                # What it says may also arrive after the request: that is no status line.
                with pytest.raises((ConnectionError, BadStatusLine)):
                    await conn.request("PUT" if body else "GET", "/x", body)
                    await conn.getresponse()
                assert conn.sock is None


async def test_a_request_on_a_connection_that_has_ended_is_disconnected():
    """Found in the turns between the connect and the request, and never on the wire."""
    async with ScriptedServer([close()]) as server:
        async with HTTPConnection(*server.address, dialer=after_turns(5), timeout=10) as conn:
            await conn.request("GET", "/x")
            with pytest.raises(RemoteDisconnected) as info:
                await conn.getresponse()
    assert str(info.value).startswith(
        f"GET {server.url}x: Remote end closed connection without response (sending, "
    )


# One task at a time, and what happens otherwise --------------------------------------------


async def test_close_while_connecting_wins():
    async with ScriptedServer([read_all()]) as server:

        async def dialer(factory, destination, report):
            made = await dial(factory, destination, report)
            conn.close()
            return made

        conn = HTTPConnection(*server.address, dialer=dialer)
        with pytest.raises(ConnectionAbortedError, match="closed by this program while connecting"):
            await conn.connect()
        assert conn.sock is None
        await server.conns[0].wait_ended()


async def test_two_connects_at_once_make_one_connection():
    async with ScriptedServer([expect(), send(OK), read_all()]) as server:
        async with HTTPConnection(*server.address) as conn:
            ends = await asyncio.gather(conn.connect(), conn.connect(), return_exceptions=True)
            assert ends[0] is None
            assert isinstance(ends[1], RuntimeError)
            await conn.request("GET", "/")
            assert (await conn.getresponse()).status == 200


async def test_connection_close_of_the_callers_ends_the_connection_in_any_field():
    async with ScriptedServer([expect(), send(OK), read_all()]) as server:
        async with HTTPConnection(*server.address) as conn:
            fields = [("Connection", "close"), ("Connection", "x")]
            await conn.request("GET", "/", headers=fields)
            response = await conn.getresponse()
            assert response.will_close
            assert conn.sock is None
            await response.read()


async def test_what_is_checked_of_a_header_is_what_is_sent():
    """A subclass of str may format itself as another text: an Enum's member as its name."""

    class Name(str, enum.Enum):  # noqa: UP042, StrEnum formats as its value
        LENGTH = "Content-Length"
        EVIL = "X-Evil"

    class Evil(str):
        __slots__ = ()

        def __format__(self, spec: str) -> str:
            return "x\r\nX-Injected: 1"

    heads: list = []

    async def collect(conn):
        for _ in range(2):
            heads.append(await conn.read_head())
            await conn.read_exactly(2)
            await conn.send(OK)

    async with (
        ScriptedServer([collect]) as server,
        HTTPConnection(server.host, server.port) as conn,
    ):
        headers = {Name.LENGTH: "2", Name.EVIL: Evil("v")}
        await conn.request("POST", "/", b"ab", headers)
        await (await conn.getresponse()).read()
        conn.putrequest("POST", "/")
        for name, value in headers.items():
            conn.putheader(name, value)
        await conn.endheaders(b"ab")
        await (await conn.getresponse()).read()
    for head in heads:
        assert b"\r\nContent-Length: 2\r\nX-Evil: v\r\n\r\n" in head


async def test_headers_are_sent_as_each_request_gives_them():
    """The encoded fields of an earlier request serve again only for equal headers."""
    headers: dict = {"A": "1"}
    expected: list = []
    heads: list = []

    async def collect(conn):
        while head := await conn.read_head():
            heads.append(head.split(b"\r\n")[3:-2])
            await conn.send(OK)

    async with (
        ScriptedServer([collect]) as server,
        HTTPConnection(server.host, server.port) as conn,
    ):

        async def send(given, *lines):
            expected.append([line.encode() for line in lines])
            await conn.request("GET", "/", headers=given)
            await (await conn.getresponse()).read()

        await send(headers, "A: 1")
        await send(dict(headers), "A: 1")
        headers["B"] = "2"
        await send(headers, "A: 1", "B: 2")
        await send({"B": "2", "A": "1"}, "B: 2", "A: 1")
        await send({"a": "1", "B": "2"}, "a: 1", "B: 2")
        await send({})
        await send({"A": 1}, "A: 1")
        await send({"A": True}, "A: True")
        await send([("A", "1"), ("A", "2")], "A: 1", "A: 2")
        await send({"A": "1"}, "A: 1")
        for _ in range(2):
            with pytest.raises(ValueError, match="control character"):
                await conn.request("GET", "/", headers={"A": "1\r\nB: 2"})
        await send({"A": "1"}, "A: 1")
    assert heads == expected


@pytest.mark.parametrize("cut", [0, 2], ids=["whole", "cut"])
async def test_a_request_that_fails_leaves_the_response_before_it_readable(cut):
    """The earlier response is there, or tells that it is not whole; it is never empty."""

    async def body():
        yield b"a"
        raise KeyError("no more")

    wire = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    async with ScriptedServer([expect(), send(wire[: len(wire) - cut])]) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            assert await response.read(1) == b"h"
            with pytest.raises(KeyError):
                await conn.request("PUT", "/", body())
            if cut:
                with pytest.raises(IncompleteRead) as info:
                    await response.read()
                assert info.value.partial == b"el"
            else:
                assert await response.read() == b"ello"


async def test_a_connect_that_fails_leaves_the_response_before_it_readable():
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    async with ScriptedServer([expect(), send(wire), close()]) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            while conn.sock is not None:
                await asyncio.sleep(0)
            with refusing_address() as (_, conn.port), pytest.raises(ConnectionRefusedError):
                await conn.request("GET", "/")
            assert await response.read() == b"hello"
