"""TLS: loops of other kinds (T17), client certificates (C13), sessions, ends that do not come."""

from __future__ import annotations

import asyncio
import functools
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from aiohttpconn import HTTPSConnection
from aiohttpconn.net import resumption

from ..support import ConnectProxy, ScriptedServer
from ..support.tls_visits import REPLY, answer_all, both_versions, get, visit

try:
    import uvloop
except ImportError:
    uvloop = None

try:
    import aiofastnet
except ImportError:
    aiofastnet = None

if TYPE_CHECKING:
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
def test_a_loop_with_a_start_tls_of_its_own_gets_the_real_context(certificates, kind, proxied):
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
async def test_a_client_certificate_that_was_loaded_meanwhile_is_seen(
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
