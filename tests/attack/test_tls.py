"""TLS: loops of other kinds (T17), client certificates (C13), sessions, ends that do not come."""

from __future__ import annotations

import asyncio
import functools
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from aiohttpconn import (
    Client,
    ConnectionPool,
    HTTPConnection,
    HTTPSConnection,
    IncompleteRead,
    ReadTimeout,
    RemoteDisconnected,
    Timeout,
    TLSError,
    TotalTimeout,
    WriteTimeout,
    ends,
    writing,
)
from aiohttpconn.ends import CLOSE_SECONDS
from aiohttpconn.net import resumption
from aiohttpconn.writing import LOOKS

from ..support import ConnectProxy, ScriptedServer
from ..support.clocks import Clock
from ..support.pooled import fetch
from ..support.tls_visits import REPLY, HangsUp, answer_all, both_versions, get, visit

try:
    import uvloop
except ImportError:
    uvloop = None

try:
    import aiofastnet
except ImportError:
    aiofastnet = None

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from aiohttpconn.testing import Connection

    from ..support.tls import Certificates

# Loops of other kinds: native code would read the memory of a stand-in as a context's


class OwnStartTLS(asyncio.SelectorEventLoop):
    contexts: list[type]

    async def start_tls(  # type: ignore[override]
        self, transport: Any, protocol: Any, sslcontext: Any, **options: Any
    ) -> Any:
        self.contexts.append(type(sslcontext))
        return await super().start_tls(transport, protocol, sslcontext, **options)


LOOPS: list[Any] = [OwnStartTLS]
if uvloop is not None:

    class OwnStartTLSOnUvloop(uvloop.Loop):
        contexts: list[type]

        async def start_tls(
            self, transport: Any, protocol: Any, sslcontext: Any, **options: Any
        ) -> Any:
            self.contexts.append(type(sslcontext))
            return await super().start_tls(transport, protocol, sslcontext, **options)

    LOOPS.append(OwnStartTLSOnUvloop)


async def visit_twice(certificates: Certificates, proxied: bool) -> list[bool]:
    context = certificates.client_for()
    server_context = certificates.server_for()
    async with (
        ScriptedServer(answer_all, tls=server_context) as server,
        ConnectProxy(tls=server_context) as proxy,
    ):
        if not proxied:
            return [await visit(server, context) for _ in range(2)]
        reused = []
        for _ in range(2):
            async with HTTPSConnection(
                proxy.host, proxy.port, context=context, proxy_context=context
            ) as conn:
                conn.set_tunnel("localhost", server.port)
                await get(conn)
                reused.append(bool(conn.session_reused))
        return reused


@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "through a TLS proxy"])
@pytest.mark.parametrize("kind", LOOPS)
def test_t17_a_loop_with_a_start_tls_of_its_own_gets_the_real_context(certificates, kind, proxied):
    kind.contexts = []
    with asyncio.Runner(loop_factory=kind) as runner:
        assert runner.run(visit_twice(certificates, proxied)) == [False, False]
    assert kind.contexts == [ssl.SSLContext] * (4 if proxied else 2)


async def test_a_start_tls_that_was_put_on_the_loop_gets_the_real_context(certificates):
    """As aiofastnet does: it replaces the methods of one loop."""
    loop: Any = asyncio.get_running_loop()
    start_tls, contexts = loop.start_tls, []

    # Whatever name it gives itself.
    @functools.wraps(asyncio.BaseEventLoop.start_tls)
    async def replaced(transport: Any, protocol: Any, sslcontext: Any, **options: Any) -> Any:
        contexts.append(type(sslcontext))
        return await start_tls(transport, protocol, sslcontext, **options)

    loop.start_tls = replaced
    assert await visit_twice(certificates, False) == [False, False]
    assert contexts == [ssl.SSLContext] * 2


async def test_a_start_tls_that_was_put_on_the_class_gets_the_real_context(
    certificates, monkeypatch
):
    ours = isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)
    kind: Any = asyncio.BaseEventLoop if ours else uvloop.Loop
    start_tls, contexts = kind.start_tls, []

    @functools.wraps(start_tls)
    async def replaced(
        self: Any, transport: Any, protocol: Any, sslcontext: Any, **options: Any
    ) -> Any:
        contexts.append(type(sslcontext))
        return await start_tls(self, transport, protocol, sslcontext, **options)

    monkeypatch.setattr(kind, "start_tls", replaced)
    assert await visit_twice(certificates, False) == [False, False]
    assert contexts == [ssl.SSLContext] * 2


@pytest.mark.skipif(aiofastnet is None, reason="aiofastnet is not installed")
@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "through a TLS proxy"])
async def test_aiofastnet_does_https(certificates, proxied):
    aiofastnet.patch_loop(asyncio.get_running_loop())
    assert await visit_twice(certificates, proxied) == [False, False]


async def test_a_stand_in_that_was_used_passes_for_no_context(certificates):
    """Transports give it away as "sslcontext": a loop of another kind must refuse it."""
    context = certificates.client_for()
    async with (
        ScriptedServer(answer_all, tls=certificates.server_for()) as server,
        HTTPSConnection(*server.address, context=context) as conn,
    ):
        await get(conn)
        given = conn._protocol.get_extra_info("sslcontext")
        assert type(given) is resumption.ResumingContext
        assert not isinstance(given, ssl.SSLContext)
        assert repr(given).startswith("<stand-in for <ssl.SSLContext object")
        assert conn.sock.context is context


# Client certificates: a session is its client's, and a context does not tell whose it is


@pytest.fixture
def identities(certificates, tmp_path) -> dict[str, str]:
    """Files of two client certificates, by name."""
    files = {}
    for name in ("alice", "bob"):
        files[name] = str(tmp_path / f"{name}.pem")
        made = certificates.ca.issue_cert(f"{name}@example.com", common_name=name)
        made.private_key_and_cert_chain_pem.write_to_path(files[name])
    return files


def seen_by(server: ScriptedServer) -> list[str | None]:
    """Return the client that the server has seen on each connection."""
    names: list[str | None] = []
    for conn in server.conns:
        assert conn.tls is not None
        subject = dict(field for (field,) in (conn.tls.getpeercert() or {}).get("subject", ()))
        names.append(subject.get("commonName"))
    return names


@both_versions
@pytest.mark.parametrize("asks", [ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED])
async def test_c13_a_client_certificate_that_was_loaded_meanwhile_is_seen(
    certificates, identities, version, asks
):
    context = certificates.client_for()
    context.load_cert_chain(identities["alice"])
    server_context = certificates.server_for(maximum_version=version)
    server_context.verify_mode = asks
    certificates.ca.configure_trust(server_context)
    async with ScriptedServer(answer_all, tls=server_context) as server:
        assert not await visit(server, context)
        assert not await visit(server, context)
        context.load_cert_chain(identities["bob"])
        assert not await visit(server, context)
        # Beside one that is open, too.
        async with HTTPSConnection(*server.address, context=context) as conn:
            await get(conn)
            context.load_cert_chain(identities["alice"])
            assert not await visit(server, context)
        assert seen_by(server) == ["alice", "alice", "bob", "bob", "alice"]


@both_versions
async def test_a_first_client_certificate_is_seen(certificates, identities, version):
    context = certificates.client_for()
    server_context = certificates.server_for(maximum_version=version)
    server_context.verify_mode = ssl.CERT_OPTIONAL
    certificates.ca.configure_trust(server_context)
    async with ScriptedServer(answer_all, tls=server_context) as server:
        assert not await visit(server, context)
        context.load_cert_chain(identities["alice"])
        assert not await visit(server, context)
        assert seen_by(server) == [None, "alice"]


@both_versions
async def test_a_server_that_asks_for_no_certificate_is_resumed_whatever_is_loaded(
    certificates, identities, version
):
    context = certificates.client_for()
    context.load_cert_chain(identities["alice"])
    server_context = certificates.server_for(maximum_version=version)
    async with ScriptedServer(answer_all, tls=server_context) as server:
        assert [await visit(server, context) for _ in range(2)] == [False, True]
        context.load_cert_chain(identities["bob"])
        assert await visit(server, context)
        assert seen_by(server) == [None, None, None]


async def test_a_certificate_that_is_asked_for_after_the_handshake_is_no_sessions(
    certificates, identities
):
    async def ask_and_answer(conn: Connection) -> None:
        await conn.read_head()
        conn.tls.verify_client_post_handshake()
        await conn.send(REPLY)
        await conn.read_head()  # which comes behind the certificate
        await conn.send(REPLY)

    context = certificates.client_for()
    context.post_handshake_auth = True
    context.load_cert_chain(identities["alice"])
    server_context = certificates.server_for()
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.post_handshake_auth = True
    certificates.ca.configure_trust(server_context)
    async with ScriptedServer(ask_and_answer, tls=server_context) as server:
        for name in ("alice", "bob"):
            context.load_cert_chain(identities[name])
            async with HTTPSConnection(*server.address, context=context) as conn:
                await get(conn)
                await get(conn)
                assert conn.session_reused is False
        assert seen_by(server) == ["alice", "bob"]


# Sessions that the server takes badly


async def by_connection(server: ScriptedServer, context: ssl.SSLContext, **request: Any) -> bytes:
    async with HTTPSConnection(*server.address, context=context) as conn:
        await conn.request(url="/", **request)
        return await (await conn.getresponse()).read()


async def by_open_connection(
    server: ScriptedServer, context: ssl.SSLContext, **request: Any
) -> bytes:
    async with HTTPSConnection(*server.address, context=context) as conn:
        await conn.connect()
        await conn.request(url="/", **request)
        return await (await conn.getresponse()).read()


async def by_steps(server: ScriptedServer, context: ssl.SSLContext, **request: Any) -> bytes:
    async with HTTPSConnection(*server.address, context=context) as conn:
        conn.putrequest(request["method"], "/")
        body = request.get("body")
        if body is not None:
            conn.putheader("Content-Length", len(body))
        await conn.endheaders(body)
        return await (await conn.getresponse()).read()


async def by_pool(server: ScriptedServer, context: ssl.SSLContext, **request: Any) -> bytes:
    async with ConnectionPool(context=context) as pool:
        return await (await pool.request(url=server.url, **request)).read()


async def by_client(server: ScriptedServer, context: ssl.SSLContext, **request: Any) -> bytes:
    async with Client(context=context) as client:
        request["content"] = request.pop("body", None)
        return await (await client.request(url=server.url, **request)).read()


async def by_pipelining(server: ScriptedServer, context: ssl.SSLContext, **request: Any) -> bytes:
    async with Client(context=context, pipelining=4) as client:
        request["content"] = request.pop("body", None)
        return await (await client.request(url=server.url, **request)).read()


IN_ONE_GO = [by_connection, by_open_connection, by_pool, by_client, by_pipelining]
CALLERS = [*IN_ONE_GO, by_steps]


@pytest.mark.parametrize("call", CALLERS)
@pytest.mark.parametrize("request_", [{"method": "GET"}, {"method": "POST", "body": b"x"}])
@both_versions
async def test_a_session_refused_in_the_handshake_connects_once_more(
    certificates, version, call, request_
):
    """Nothing was sent, so the method does not matter."""
    context = certificates.client_for()
    server_context = certificates.server_for(maximum_version=version)
    async with HangsUp({2}, answer_all, tls=server_context) as server:
        assert await call(server, context, method="GET") == b"hi"
        assert await call(server, context, **request_) == b"hi"
        assert [conn.tls.session_reused for conn in server.conns[2:]] == [False]


async def test_a_server_that_refuses_without_a_session_too_is_told(certificates):
    context = certificates.client_for()
    async with HangsUp({2, 3}, answer_all, tls=certificates.server_for()) as server:
        assert not await visit(server, context)
        with pytest.raises(TLSError, match="closed the connection during the TLS handshake"):
            await visit(server, context)
        assert len(server.conns) == 3
        with pytest.raises(TLSError):  # no session, no second time
            async with HangsUp({1}, tls=certificates.server_for()) as other:
                await visit(other, context)
        assert len(other.conns) == 1


async def test_a_session_refused_by_a_proxy_connects_once_more(certificates):
    context = certificates.client_for()

    class Proxy(HangsUp, ConnectProxy):
        pass

    async with (
        ScriptedServer(answer_all) as server,
        Proxy({2}, tls=certificates.server_for()) as proxy,
    ):
        for _ in range(2):
            async with HTTPConnection(proxy.host, proxy.port, proxy_context=context) as conn:
                conn.set_tunnel("localhost", server.port)
                await get(conn)
        assert len(proxy.conns) == 3


async def reset(conn: Connection) -> None:
    await conn.reset()


async def end_tls(conn: Connection) -> None:
    await conn.close()


async def end_tcp(conn: Connection) -> None:
    await conn.close(notify=False)


async def alert(conn: Connection) -> None:
    """Send the alert of a record that makes no sense."""
    conn._incoming.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ssl.SSLError):
        conn.tls.read(1)
    await conn._send_raw(conn._outgoing.read())


KILLS = [reset, end_tls, end_tcp, alert]


def kill_resumed(kill: Callable[[Connection], Awaitable[None]], begin: bytes = b"") -> Any:
    """Return a script that answers, but on a connection that has resumed a session."""

    async def script(conn: Connection) -> None:
        while (await conn.read_request())[0]:
            if conn.tls.session_reused:
                if begin:
                    await conn.send(begin)
                await kill(conn)
                return
            await conn.send(REPLY)

    return script


@both_versions
@pytest.mark.parametrize("kill", KILLS)
@pytest.mark.parametrize("call", IN_ONE_GO)
async def test_t20_a_session_that_kills_connections_is_dropped_and_the_request_sent_again(
    certificates, version, call, kill
):
    context = certificates.client_for()
    server_context = certificates.server_for(maximum_version=version)
    async with ScriptedServer(kill_resumed(kill), tls=server_context) as server:
        assert await call(server, context, method="GET") == b"hi"
        assert await call(server, context, method="GET") == b"hi"
        assert [conn.tls.session_reused for conn in server.conns] == [False, True, False]
        # It rests: each one later would be killed, too.
        assert await call(server, context, method="GET") == b"hi"
        assert [conn.tls.session_reused for conn in server.conns[3:]] == [False]
        assert len(server.heads) == 4


@both_versions
@pytest.mark.parametrize("call", CALLERS)
async def test_a_request_that_may_have_been_processed_is_not_sent_again(
    certificates, version, call
):
    context = certificates.client_for()
    server_context = certificates.server_for(maximum_version=version)
    request: dict[str, Any] = {"method": "POST", "body": b"x"}
    async with ScriptedServer(kill_resumed(end_tcp), tls=server_context) as server:
        assert await call(server, context, method="GET") == b"hi"
        with pytest.raises(RemoteDisconnected, match="without response"):
            await call(server, context, **request)
        assert len(server.conns) == 2
        # The next one does without the session.
        assert await call(server, context, **request) == b"hi"
        assert [conn.tls.session_reused for conn in server.conns] == [False, True, False]


@pytest.mark.parametrize("call", CALLERS)
async def test_a_request_whose_answer_has_begun_is_not_sent_again(certificates, call):
    context = certificates.client_for()
    script = kill_resumed(end_tcp, begin=b"HTTP/1.1 2")
    async with ScriptedServer(script, tls=certificates.server_for()) as server:
        assert await call(server, context, method="GET") == b"hi"
        with pytest.raises(RemoteDisconnected, match="in the middle of the response's head"):
            await call(server, context, method="GET")
        assert len(server.conns) == 2


async def test_a_pool_that_resends_nothing_does_not_here_either(certificates):
    context = certificates.client_for()
    async with (
        ScriptedServer(kill_resumed(end_tcp), tls=certificates.server_for()) as server,
        ConnectionPool(context=context, resend_stale=False) as pool,
    ):
        assert await by_pool(server, context, method="GET") == b"hi"
        with pytest.raises(RemoteDisconnected):
            await fetch(pool, server.url)
        assert await fetch(pool, server.url) == b"hi"


async def test_a_body_that_was_streamed_is_not_sent_again_by_a_connection(certificates):
    context = certificates.client_for()

    async def blocks() -> AsyncIterator[bytes]:
        yield b"one"

    async with ScriptedServer(kill_resumed(end_tcp), tls=certificates.server_for()) as server:
        assert not await visit(server, context)
        with pytest.raises(RemoteDisconnected):
            await by_connection(server, context, method="PUT", body=blocks())
        assert len(server.conns) == 2


async def test_what_a_request_asked_for_is_asked_again(certificates):
    context = certificates.client_for()
    async with ScriptedServer(kill_resumed(end_tcp), tls=certificates.server_for()) as server:
        assert not await visit(server, context)
        async with HTTPSConnection(*server.address, context=context) as conn:
            await conn.request("PUT", "/a?b", b"body", {"Connection": "close", "X-A": "1"})
            response = await conn.getresponse()
            assert await response.read() == b"hi"
            assert response.will_close
            assert response.timings.tls is not None
        lost, again = server.received[1:]
        assert lost == again
        assert lost.startswith(b"PUT /a?b HTTP/1.1")


async def test_only_the_first_request_of_a_connection_is_sent_again(certificates):
    context = certificates.client_for()

    async def second_dies(conn: Connection) -> None:
        await conn.read_head()
        await conn.send(REPLY)
        await conn.read_head()
        await conn.close()

    async with ScriptedServer(answer_all, second_dies, tls=certificates.server_for()) as server:
        assert not await visit(server, context)
        async with HTTPSConnection(*server.address, context=context) as conn:
            await get(conn)
            assert conn.session_reused
            with pytest.raises(RemoteDisconnected):
                await get(conn)
        assert len(server.conns) == 2


async def test_a_session_after_which_nothing_comes_is_dropped(certificates, ticking):
    context = certificates.client_for()
    wait = asyncio.Event()

    async def never(conn: Connection) -> None:
        await wait.wait()

    async with ScriptedServer(kill_resumed(never), tls=certificates.server_for()) as server:
        assert not await visit(server, context)
        with pytest.raises(ReadTimeout):
            await visit(server, context, timeout=Timeout(read=0.02))
        wait.set()
        assert not await visit(server, context)
        assert len(server.conns) == 3


async def test_total_holds_for_both_sends(certificates, ticking):
    context = certificates.client_for()
    wait = asyncio.Event()

    async def kill_or_wait(conn: Connection) -> None:
        await conn.read_head()
        if not conn.tls.session_reused:
            await wait.wait()

    async with ScriptedServer(
        answer_all, kill_resumed(end_tcp), kill_or_wait, tls=certificates.server_for()
    ) as server:
        assert not await visit(server, context)
        with pytest.raises(TotalTimeout):
            await visit(server, context, timeout=Timeout(total=0.2))
        assert len(server.conns) == 3
        wait.set()


# The end of TLS: a peer that does not answer close_notify keeps no socket of ours

CLOSES = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"


def ignore_close_notify(*replies: bytes) -> Any:
    """Return a script that answers, and then reads TCP to its end, without an answer of TLS."""

    async def script(conn: Connection) -> None:
        for reply in replies:
            await conn.read_head()
            await conn.send(reply)
        while await conn._recv_raw():
            pass

    return script


async def ended(*conns: Connection) -> bool:
    """Return whether the client's sockets of *conns* close, long before the loop's own limit."""
    waits = asyncio.gather(*(conn.wait_ended() for conn in conns))
    # Of real time: the 30 s of asyncio and uvloop, in which these sockets would be closed.
    done, _ = await asyncio.wait({waits}, timeout=20)
    waits.cancel()
    return bool(done)


@pytest.fixture
def brief(ticking, monkeypatch) -> None:
    """Let a polite close take 20 ms of the test's clock in place of a second."""
    monkeypatch.setattr(ends, "CLOSE_SECONDS", 0.02)


async def close(conn: HTTPSConnection) -> None:
    await get(conn)
    conn.close()


async def close_and_wait(conn: HTTPSConnection) -> None:
    await close(conn)
    await conn.wait_closed()


async def leave_a_block(conn: HTTPSConnection) -> None:
    async with conn:
        await get(conn)


async def ask_for_the_last_response(conn: HTTPSConnection) -> None:
    await conn.request("GET", "/", headers={"Connection": "close"})
    assert await (await conn.getresponse()).read() == b"hi"


async def connect_anew(conn: HTTPSConnection) -> None:
    await get(conn)
    await conn.connect()
    conn.close()


async def cancel(conn: HTTPSConnection) -> None:
    await get(conn)
    waiting = asyncio.ensure_future(get(conn))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})


async def forget(conn: HTTPSConnection) -> None:
    await get(conn)
    with pytest.warns(ResourceWarning, match="unclosed https connection"):
        conn.__del__()


WAYS_OF_ONE = [
    close,
    close_and_wait,
    leave_a_block,
    ask_for_the_last_response,
    connect_anew,
    cancel,
    forget,
]


@both_versions
@pytest.mark.parametrize("way", WAYS_OF_ONE)
@pytest.mark.usefixtures("brief")
async def test_t19_a_connection_is_gone_after_a_second(certificates, version, way):
    server_context = certificates.server_for(maximum_version=version)
    async with ScriptedServer(ignore_close_notify(REPLY), tls=server_context) as server:
        conn = HTTPSConnection(*server.address, context=certificates.client_for())
        await way(conn)
        assert await ended(*server.conns)


async def test_a_server_that_ends_tls_and_stays_holds_up_nothing(certificates, brief):
    async def end_tls(conn: Connection) -> None:
        await conn.read_head()
        await conn.send(REPLY)
        with pytest.raises(ssl.SSLWantReadError):
            conn.tls.unwrap()
        await conn._send_raw(conn._outgoing.read())
        while await conn._recv_raw():
            pass

    async with ScriptedServer(end_tls, tls=certificates.server_for()) as server:
        async with HTTPSConnection(*server.address, context=certificates.client_for()) as conn:
            await get(conn)
            assert await ended(*server.conns)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_peer_that_takes_nothing_holds_up_no_polite_close(certificates, brief, scheme):
    """The answer is whole, and bytes that were written are still here."""
    stop = asyncio.Event()

    async def answer_and_stop(conn: Connection) -> None:
        await conn.read_head()
        await conn.send(REPLY)
        await stop.wait()

    tls = certificates.server_for() if scheme == "https" else None
    async with ScriptedServer(answer_and_stop, tls=tls, receive_buffer=4096) as server:
        conn = HTTPConnection(*server.address)
        if tls is not None:
            conn = HTTPSConnection(*server.address, context=certificates.client_for())
        await get(conn)
        protocol = conn._protocol
        protocol.transport.write(bytes(16 * 1024 * 1024))
        raw = protocol.raw_transport
        assert protocol.transport.get_write_buffer_size() + raw.get_write_buffer_size() > 0
        conn.close()
        waiting = asyncio.ensure_future(conn.wait_closed())
        done, _ = await asyncio.wait({waiting}, timeout=20)
        assert done
        assert protocol.transport is None
        stop.set()


async def close_the_client(client: Client, url: str) -> None:
    assert await (await client.get(url)).read() == b"hi"
    await client.close()


async def wait_for_its_time(client: Client, url: str) -> None:
    assert await (await client.get(url)).read() == b"hi"
    while client.stats().open:
        await asyncio.sleep(0)


async def say_close(client: Client, url: str) -> None:
    assert await (await client.get(url, headers={"Connection": "close"})).read() == b"hi"


async def cancel_a_request(client: Client, url: str) -> None:
    assert await (await client.get(url)).read() == b"hi"
    waiting = asyncio.ensure_future(client.get(url))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})


WAYS_OF_CLIENTS = [
    close_the_client,
    wait_for_its_time,
    say_close,
    cancel_a_request,
]


@both_versions
@pytest.mark.parametrize("way", WAYS_OF_CLIENTS)
@pytest.mark.usefixtures("brief")
async def test_a_connection_of_a_client_is_gone_after_a_second(certificates, version, way):
    server_context = certificates.server_for(maximum_version=version)
    async with (
        ScriptedServer(ignore_close_notify(REPLY), tls=server_context) as server,
        Client(context=certificates.client_for(), keepalive_timeout=0.05) as client,
    ):
        await way(client, server.url)
        assert await ended(*server.conns)


async def test_a_leased_connection_is_gone_after_a_second(certificates, brief):
    async with (
        ScriptedServer(ignore_close_notify(REPLY), tls=certificates.server_for()) as server,
        ConnectionPool(context=certificates.client_for()) as pool,
    ):
        async with pool.connection(server.url) as conn:
            await conn.request("GET", "/", headers={"Connection": "close"})
            assert await (await conn.getresponse()).read() == b"hi"
        assert await ended(*server.conns)


@pytest.mark.parametrize(
    ("options", "reply"),
    [
        pytest.param({"limit": 2}, CLOSES, id="closed-by-the-server"),
        pytest.param({"limit": 2, "max_requests": 1}, REPLY, id="used-up"),
        pytest.param({"limit": 2, "max_idle": 0}, REPLY, id="none-idle"),
        pytest.param({"limit": None, "limit_per_host": 2}, CLOSES, id="of-one-host"),
    ],
)
async def test_sockets_that_close_count_for_the_limit(certificates, options, reply):
    """However many requests there are in the second that each may take to close."""
    options = {"limit_per_host": None, **options}
    async with ScriptedServer(ignore_close_notify(reply), tls=certificates.server_for()) as server:
        pool = ConnectionPool(context=certificates.client_for(), **options)
        with Clock() as clock:  # it stands
            for _ in range(10):
                assert await fetch(pool, server.url) == b"hi"
            assert await ended(*server.conns[:-2])
            still = [conn for conn in server.conns if not conn._ended.is_set()]
            assert still == server.conns[-2:]
            clock.advance(CLOSE_SECONDS)
            assert await ended(*server.conns)
        await pool.close()


async def test_an_evicted_connection_counts_for_the_limit(certificates, monkeypatch):
    script, tls = ignore_close_notify(REPLY), certificates.server_for()
    async with ScriptedServer(script, tls=tls) as one, ScriptedServer(script, tls=tls) as other:
        pool = ConnectionPool(context=certificates.client_for(), limit=1)
        with Clock():
            assert await fetch(pool, one.url) == b"hi"
            assert await fetch(pool, other.url) == b"hi"
            assert await ended(*one.conns)
        monkeypatch.setattr(ends, "CLOSE_SECONDS", 0.001)
        await pool.close()


# The write limit counts from when the peer stopped, not from when the wait began


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_write_limit_expires_in_time_after_the_last_byte_that_was_taken(
    certificates, monkeypatch, scheme
):
    left, stop = 1000, asyncio.Event()
    monkeypatch.setattr(writing, "_untaken", lambda transport, raw: left)

    async def take_no_body(conn: Connection) -> None:
        await conn.read_head()
        await stop.wait()

    tls = certificates.server_for() if scheme == "https" else None
    async with ScriptedServer(take_no_body, tls=tls, receive_buffer=4096) as server:
        with Clock() as clock:
            limit = Timeout(write=float(LOOKS))  # a look each second
            conn = HTTPConnection(*server.address, timeout=limit)
            if tls is not None:
                context = certificates.client_for()
                conn = HTTPSConnection(*server.address, timeout=limit, context=context)
            request = asyncio.ensure_future(conn.request("POST", "/", bytes(8 * 1024 * 1024)))
            while conn._protocol is None or not conn._protocol.writing_paused:
                await asyncio.sleep(0)
            while not clock.timers:
                await asyncio.sleep(0)
            left = 1022  # TLS has encrypted some of it
            clock.advance(1)
            left = 500
            clock.advance(1)  # this look sees the last bytes that it takes
            clock.advance(LOOKS - 0.1)
            await asyncio.sleep(0)
            assert not request.done()
            clock.advance(0.2)
            done, _ = await asyncio.wait({request}, timeout=20)
            assert done
            with pytest.raises(WriteTimeout, match=f"took no byte of the request within {LOOKS} s"):
                await request
            conn.close()
        stop.set()


# Alerts in the middle: the error says what was going on


async def refuse(conn: Connection) -> None:
    """Send a fatal alert at once, in place of the handshake."""
    await conn._send_raw(b"\x15\x03\x03\x00\x02\x02\x28")  # handshake_failure


class Refusing(ScriptedServer):
    async def _serve(self, conn: Connection, script: Any) -> None:
        conn.tls = None
        await super()._serve(conn, refuse)


async def test_an_alert_in_the_handshake_is_named(certificates):
    async with Refusing(tls=certificates.server_for()) as server:
        conn = HTTPSConnection(*server.address, context=certificates.client_for())
        with pytest.raises(TLSError, match="alert handshake failure") as info:
            await conn.request("GET", "/")
        assert info.value.phase == "tls"
        assert "(tls" in str(info.value)


ALERTS = {
    "waiting for the head": b"",
    "waiting for the head, of which a part has come": b"HTTP/1.1 200 O",
    "receiving the body": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi",
    "receiving the body, in chunks": b"HTTP/1.1 200 OK\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n5\r\nhi",
    "receiving the body, to the end": b"HTTP/1.1 200 OK\r\n\r\nhi",
}


@both_versions
@pytest.mark.parametrize("phase", ALERTS)
async def test_t15_an_alert_in_the_middle_names_the_phase(certificates, version, phase):
    async def begin_and_alert(conn: Connection) -> None:
        await conn.read_head()
        if ALERTS[phase]:
            await conn.send(ALERTS[phase])
            await conn.let_client_read()
        await alert(conn)

    server_context = certificates.server_for(maximum_version=version)
    async with ScriptedServer(begin_and_alert, tls=server_context) as server:
        async with HTTPSConnection(*server.address, context=certificates.client_for()) as conn:
            await conn.request("GET", "/")
            with pytest.raises((TLSError, IncompleteRead)) as info:
                await (await conn.getresponse()).read()
            assert info.value.phase == phase.partition(",")[0]
            cause = info.value.__cause__
            assert isinstance(cause, ssl.SSLError)
            assert "ALERT" in cause.reason
            if isinstance(info.value, IncompleteRead):
                assert info.value.partial == b"hi"
            else:
                assert "the TLS connection failed" in str(info.value)
            # It is over, and the next request has another connection.
            server.scripts = (answer_all,)
            await get(conn)
            assert len(server.conns) == 2


@both_versions
async def test_an_alert_while_the_request_is_sent_names_the_phase(certificates, version):
    sent = asyncio.Event()

    async def alert_soon(conn: Connection) -> None:
        await conn.read_head()
        await alert(conn)
        sent.set()
        while await conn._recv_raw():
            pass

    async def blocks() -> AsyncIterator[bytes]:
        await sent.wait()
        while True:
            yield bytes(1024)
            await asyncio.sleep(0)

    server_context = certificates.server_for(maximum_version=version)
    async with ScriptedServer(alert_soon, tls=server_context) as server:
        async with HTTPSConnection(*server.address, context=certificates.client_for()) as conn:
            with pytest.raises(TLSError, match="the TLS connection failed") as info:
                await conn.request("POST", "/", blocks())
            assert info.value.phase == "sending"


@both_versions
async def test_an_alert_while_idle_closes_the_connection(certificates, version):
    go = asyncio.Event()

    async def answer_and_alert(conn: Connection) -> None:
        await conn.read_head()
        await conn.send(REPLY)
        await go.wait()
        await alert(conn)

    server_context = certificates.server_for(maximum_version=version)
    async with ScriptedServer(answer_and_alert, answer_all, tls=server_context) as server:
        async with HTTPSConnection(*server.address, context=certificates.client_for()) as conn:
            await get(conn)
            go.set()
            while conn.sock is not None:
                await asyncio.sleep(0)
            await get(conn)
            assert len(server.conns) == 2
