"""net/resumption.py: what is resumed, on both loops and in TLS 1.2 and 1.3, and what never."""

from __future__ import annotations

import asyncio
import datetime
import gc
import socket
import ssl
import sys
import threading
import weakref
from typing import Any

import pytest
import trustme

from aiohttpconn import CertificateError, HTTPConnection, HTTPSConnection, TLSError
from aiohttpconn.net import resumption, tls

from .support import ConnectProxy, ScriptedServer, close, expect, notify, read_all, send
from .support.tls import NAMES
from .support.tls_visits import REPLY, HangsUp, answer_all, both_versions, get, visit


class Clock:
    """Stands in for the monotonic clock of ``net.resumption``."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(resumption, "_now", clock)
    return clock


# What is resumed


@both_versions
async def test_the_second_connection_resumes(certificates, version):
    context = certificates.client_for()
    async with ScriptedServer(
        answer_all, tls=certificates.server_for(maximum_version=version)
    ) as s:
        assert [await visit(s, context) for _ in range(4)] == [False, True, True, True]
        assert [conn.tls.session_reused for conn in s.conns] == [False, True, True, True]


async def test_a_session_is_resumed_by_its_number(certificates):
    server_context = certificates.server_for(maximum_version=ssl.TLSVersion.TLSv1_2)
    server_context.options |= ssl.OP_NO_TICKET
    context = certificates.client_for()
    async with ScriptedServer(answer_all, tls=server_context) as server:
        assert [await visit(server, context) for _ in range(3)] == [False, True, True]


async def test_the_default_context_resumes(certificates, monkeypatch):
    monkeypatch.setattr(tls, "_contexts", {})
    async with ScriptedServer(answer_all, tls=certificates.server_for()) as server:
        reused = []
        for _ in range(2):
            async with HTTPSConnection(
                server.host, server.port, cafile=certificates.ca_file
            ) as conn:
                await get(conn)
                reused.append(conn.session_reused)
        assert reused == [False, True]


@both_versions
async def test_a_connection_that_reopens_itself_resumes(certificates, version):
    script = [expect(), send(REPLY.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")), close()]
    server_context = certificates.server_for(maximum_version=version)
    async with ScriptedServer(script, tls=server_context) as server:
        conn = HTTPSConnection(server.host, server.port, context=certificates.client_for())
        for _ in range(3):
            await get(conn)
        assert [conn.tls.session_reused for conn in server.conns] == [False, True, True]
        conn.close()
        await conn.wait_closed()


@both_versions
async def test_close_and_open_at_once_resumes(certificates, version):
    server_context = certificates.server_for(maximum_version=version)
    async with ScriptedServer(answer_all, tls=server_context) as server:
        conn = HTTPSConnection(server.host, server.port, context=certificates.client_for())
        await get(conn)
        conn.close()
        await get(conn)
        assert conn.session_reused
        conn.close()
        assert conn.session_reused is None
        await conn.wait_closed()


@both_versions
async def test_a_connection_beside_an_open_one_resumes(certificates, version):
    context = certificates.client_for()
    server_context = certificates.server_for(maximum_version=version)
    async with ScriptedServer(answer_all, tls=server_context) as server:
        async with HTTPSConnection(server.host, server.port, context=context) as first:
            await get(first)
            assert [await visit(server, context) for _ in range(3)] == [True, True, True]
            assert first.session_reused is False
            await get(first)


@both_versions
async def test_a_connection_that_the_server_closes_is_resumed(certificates, version):
    context = certificates.client_for()
    server_context = certificates.server_for(maximum_version=version)
    script = [expect(), send(REPLY), close()]
    async with ScriptedServer(script, answer_all, tls=server_context) as server:
        async with HTTPSConnection(server.host, server.port, context=context) as conn:
            await get(conn)
            await server.conns[0].wait_ended()
        assert await visit(server, context)


@both_versions
async def test_through_a_tunnel(certificates, version):
    context = certificates.client_for()
    server_context = certificates.server_for(maximum_version=version)
    async with ScriptedServer(answer_all, tls=server_context) as server, ConnectProxy() as proxy:
        reused = []
        for fields in ({}, {}, {"Proxy-Authorization": "Basic b3RoZXI="}):
            async with HTTPSConnection(proxy.host, proxy.port, context=context) as conn:
                conn.set_tunnel("localhost", server.port, fields)
                await get(conn)
                reused.append(conn.session_reused)
        # The way there is part of the origin, and so is who goes it.
        assert reused == [False, True, False]
        assert not await visit(server, context, server_hostname="localhost")


@both_versions
async def test_tls_within_tls(certificates, version):
    context = certificates.client_for()
    server_context = certificates.server_for(maximum_version=version)
    async with (
        ScriptedServer(answer_all, tls=server_context) as server,
        ConnectProxy(tls=certificates.server_for(maximum_version=version)) as proxy,
    ):
        reused = []
        for _ in range(3):
            async with HTTPSConnection(
                proxy.host, proxy.port, context=context, proxy_context=context
            ) as conn:
                conn.set_tunnel("localhost", server.port)
                await get(conn)
                reused.append(conn.session_reused)
        assert reused == [False, True, True]


async def test_plain_http_has_no_session():
    async with (
        ScriptedServer(answer_all) as server,
        HTTPConnection(server.host, server.port) as conn,
    ):
        await get(conn)
        assert not hasattr(conn, "session_reused")


# What is not


@both_versions
async def test_off_by_argument(certificates, version):
    context = certificates.client_for()
    server_context = certificates.server_for(maximum_version=version)
    async with ScriptedServer(answer_all, tls=server_context) as server:
        assert not await visit(server, context)
        assert not await visit(server, context, resume_tls=False)
        assert await visit(server, context)


@both_versions
async def test_never_across_contexts(certificates, version):
    server_context = certificates.server_for(maximum_version=version)
    async with ScriptedServer(answer_all, tls=server_context) as server:
        first, second = certificates.client_for(), certificates.client_for()
        assert not await visit(server, first)
        assert not await visit(server, second)
        assert await visit(server, second)


@both_versions
async def test_never_across_server_names(certificates, version):
    context = certificates.client_for()
    server_context = certificates.server_for(maximum_version=version)
    async with ScriptedServer(answer_all, tls=server_context) as server:
        assert not await visit(server, context)
        assert not await visit(server, context, server_hostname="localhost")
        assert await visit(server, context, server_hostname="localhost")
        with pytest.raises(CertificateError, match=r"cannot be verified for 'wrong\.example'"):
            await visit(server, context, server_hostname="wrong.example")


@both_versions
async def test_never_across_ports(certificates, version):
    context = certificates.client_for()
    server_context = certificates.server_for(maximum_version=version)
    async with (
        ScriptedServer(answer_all, tls=server_context) as first,
        ScriptedServer(answer_all, tls=server_context) as second,
    ):
        assert not await visit(first, context)
        assert not await visit(second, context)
        assert await visit(first, context)


@both_versions
async def test_what_was_not_verified_is_never_resumed_where_verification_is_on(
    certificates, version
):
    untrusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    untrusted.load_cert_chain(certificates.client_file)  # its name is another, too
    untrusted.maximum_version = version
    context = certificates.client_for()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with ScriptedServer(answer_all, tls=untrusted) as server:
        assert [await visit(server, context) for _ in range(2)] == [False, True]
        context.verify_mode = ssl.CERT_REQUIRED
        assert not await visit(server, context)
        context.check_hostname = True
        with pytest.raises(CertificateError, match="IP address mismatch"):
            await visit(server, context)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        assert await visit(server, context)


def allow_less(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2


def check_revocation(context: ssl.SSLContext) -> None:
    context.verify_flags |= ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_STRICT


def take_no_tickets(context: ssl.SSLContext) -> None:
    context.options ^= ssl.OP_NO_TICKET


def look_at_common_names(context: ssl.SSLContext) -> None:
    context.hostname_checks_common_name = not context.hostname_checks_common_name


def know_another_authority(context: ssl.SSLContext) -> None:
    context.load_verify_locations(cadata=trustme.CA().cert_pem.bytes().decode())


@pytest.mark.parametrize(
    "change",
    [allow_less, check_revocation, take_no_tickets, look_at_common_names, know_another_authority],
)
async def test_never_under_other_settings(certificates, change):
    context = certificates.client_for()
    if change is check_revocation:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    async with ScriptedServer(answer_all, tls=certificates.server_for()) as server:
        assert [await visit(server, context) for _ in range(2)] == [False, True]
        change(context)
        assert not await visit(server, context)


async def test_a_cipher_that_is_offered_no_more(certificates):
    """Servers break off where a TLS 1.2 session comes without its cipher."""
    context = certificates.client_for()
    server_context = certificates.server_for(maximum_version=ssl.TLSVersion.TLSv1_2)
    async with ScriptedServer(answer_all, tls=server_context) as server:
        assert [await visit(server, context) for _ in range(2)] == [False, True]
        context.set_ciphers(f"ECDHE:DHE:!{server.conns[0].tls.cipher()[0]}")
        assert not await visit(server, context)
        assert server.conns[0].tls.cipher() != server.conns[2].tls.cipher()


async def test_never_under_settings_that_change_meanwhile(certificates):
    class Changing(ssl.SSLContext):
        count = 0
        changing = False

        def cert_store_stats(self) -> dict[str, int]:
            if self.changing:
                self.count += 1
            return {"x509": self.count}

    context = Changing(ssl.PROTOCOL_TLS_CLIENT)
    certificates.ca.configure_trust(context)
    async with ScriptedServer(answer_all, tls=certificates.server_for()) as server:
        assert [await visit(server, context) for _ in range(2)] == [False, True]
        context.changing = True
        assert [await visit(server, context) for _ in range(2)] == [False, False]


class WrapsItsOwnWay(ssl.SSLContext):
    def wrap_bio(self, *args: Any, **keywords: Any) -> ssl.SSLObject:
        return super().wrap_bio(*args, **keywords)


class Checked(ssl.SSLObject):
    def do_handshake(self) -> None:
        super().do_handshake()
        assert self.version()


class HasItsOwnObjects(ssl.SSLContext):
    sslobject_class = Checked


@pytest.mark.parametrize("kind", [WrapsItsOwnWay, HasItsOwnObjects])
async def test_a_context_that_does_tls_its_own_way_is_left_alone(certificates, kind):
    context = kind(ssl.PROTOCOL_TLS_CLIENT)
    certificates.ca.configure_trust(context)
    async with ScriptedServer(answer_all, tls=certificates.server_for()) as server:
        assert [await visit(server, context) for _ in range(2)] == [False, False]
    assert not vars(context)


async def test_a_session_is_never_asked_of_a_connection_of_another_thread(certificates):
    context = certificates.client_for()
    async with ScriptedServer(answer_all, tls=certificates.server_for()) as server:
        async with HTTPSConnection(server.host, server.port, context=context) as conn:
            await get(conn)

            def elsewhere() -> bool:
                return asyncio.run(connect_only())

            async def connect_only() -> bool:
                other = HTTPSConnection(server.host, server.port, context=context)
                try:
                    await other.connect()
                    return bool(other.session_reused)
                finally:
                    other._protocol.abort()  # not politely: leaves no session
                    other.close()

            assert not await asyncio.to_thread(elsewhere)
        # What is closed is everybody's.
        assert await asyncio.to_thread(elsewhere)


async def test_threads_share_a_context(certificates):
    context = certificates.client_for()
    reused: list[bool] = []
    failures: list[BaseException] = []
    async with ScriptedServer(answer_all, tls=certificates.server_for()) as server:

        def work() -> None:
            async def main() -> None:
                for _ in range(5):
                    await asyncio.gather(*(visit(server, context) for _ in range(3)))
                reused.append(await visit(server, context))

            try:
                asyncio.run(main())
            except BaseException as exc:
                failures.append(exc)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
    assert failures == []
    assert reused == [True] * 4


# Servers that do not take part


@both_versions
async def test_a_server_that_has_forgotten_the_session(certificates, version):
    context = certificates.client_for()
    async with ScriptedServer(
        answer_all, tls=certificates.server_for(maximum_version=version)
    ) as s:
        assert not await visit(s, context)
        s.tls = certificates.server_for(maximum_version=version)
        # A full handshake, silently; its session replaces the other.
        assert [await visit(s, context) for _ in range(2)] == [False, True]


async def test_a_server_that_sends_no_ticket(certificates):
    context = certificates.client_for()
    server_context = certificates.server_for()
    server_context.num_tickets = 0
    async with ScriptedServer(answer_all, tls=server_context) as server:
        async with HTTPSConnection(server.host, server.port, context=context) as conn:
            await get(conn)
            assert [await visit(server, context) for _ in range(3)] == [False, False, False]


async def test_a_refused_session_verifies_nothing(certificates):
    context = certificates.client_for()
    server_context = certificates.server_for()
    async with ScriptedServer(answer_all, tls=server_context) as server:
        assert not await visit(server, context)
        server.tls = certificates.server_for("wrong.example")  # which cannot read the ticket
        with pytest.raises(CertificateError):
            await visit(server, context)


@both_versions
async def test_a_handshake_that_fails_with_a_session_ends_resumption(certificates, version, clock):
    context = certificates.client_for()
    server_context = certificates.server_for(maximum_version=version)
    async with HangsUp({2}, answer_all, tls=server_context) as server:
        assert not await visit(server, context)
        # Once more, without it.
        assert [await visit(server, context) for _ in range(3)] == [False, False, False]
        assert len(server.conns) == 5
        clock.time += resumption.SESSION_SECONDS
        assert [await visit(server, context) for _ in range(2)] == [False, True]


@both_versions
async def test_a_cancelled_handshake_gives_its_session_up(certificates, version):
    context = certificates.client_for()
    stuck = asyncio.Event()

    class Server(ScriptedServer):
        """Never answers the second connection's handshake."""

        async def _serve(self, conn: Any, script: Any) -> None:
            if len(self.conns) != 2:
                await super()._serve(conn, script)
                return
            conn.tls = None
            await super()._serve(conn, [expect(1), notify(stuck), read_all()])

    server_context = certificates.server_for(maximum_version=version)
    async with Server(answer_all, tls=server_context) as server:
        assert not await visit(server, context)
        task = asyncio.ensure_future(visit(server, context))
        await stuck.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # The session may be why it hung: the next handshake is a full one.
        assert not await visit(server, context)
        assert await visit(server, context)


@both_versions
@pytest.mark.parametrize("when", ["idle", "waiting"])
async def test_a_connection_that_tls_breaks_is_not_resumed(certificates, version, when):
    answered = asyncio.Event()

    async def garbage(conn: Any) -> None:
        await conn.read_head()
        await conn.send(REPLY)
        if when == "waiting":
            await conn.read_head()
        await answered.wait()
        await conn._send_raw(b"\x17\x03\x03\x00\x20" + b"no record of this key............")

    context = certificates.client_for()
    server_context = certificates.server_for(maximum_version=version)
    scripts = [answer_all, garbage, answer_all]
    async with ScriptedServer(*scripts, tls=server_context) as server:
        assert not await visit(server, context)
        async with HTTPSConnection(server.host, server.port, context=context) as conn:
            await get(conn)
            assert conn.session_reused
            answered.set()
            if when == "waiting":
                with pytest.raises(TLSError, match="the TLS connection failed"):
                    await get(conn)
            await server.conns[1].wait_ended()
        assert not await visit(server, context)
        assert await visit(server, context)


@both_versions
async def test_a_cancelled_exchange_leaves_no_session(certificates, version):
    context = certificates.client_for()
    asked = asyncio.Event()
    server_context = certificates.server_for(maximum_version=version)
    script = [expect(), notify(asked), read_all()]
    async with ScriptedServer(script, answer_all, tls=server_context) as server:
        task = asyncio.ensure_future(visit(server, context))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
        gc.collect()
        assert not await visit(server, context)


# For how long, and how many


@both_versions
async def test_a_session_ages(certificates, version, clock):
    context = certificates.client_for()
    server_context = certificates.server_for(maximum_version=version)
    async with ScriptedServer(answer_all, tls=server_context) as server:
        assert not await visit(server, context)
        clock.time += resumption.SESSION_SECONDS - 1
        assert await visit(server, context)
        # Using it does not make it younger: the certificate is verified once in that time.
        clock.time += 1
        assert [await visit(server, context) for _ in range(2)] == [False, True]


@both_versions
async def test_a_session_ends_with_its_certificate(certificates, version, clock):
    context = certificates.client_for()
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=600)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates.ca.issue_cert(*NAMES, not_after=soon).configure_cert(server_context)
    server_context.maximum_version = version
    async with ScriptedServer(answer_all, tls=server_context) as server:
        assert [await visit(server, context) for _ in range(2)] == [False, True]
        clock.time += 601
        assert not await visit(server, context)


async def test_an_old_session_is_asked_for_anew_of_an_open_connection(certificates, clock):
    context = certificates.client_for()
    async with ScriptedServer(answer_all, tls=certificates.server_for()) as server:
        assert not await visit(server, context)
        clock.time += resumption.SESSION_SECONDS
        async with HTTPSConnection(server.host, server.port, context=context) as conn:
            await get(conn)
            assert conn.session_reused is False
            assert await visit(server, context)


async def test_the_number_of_origins_is_bounded(certificates, monkeypatch):
    monkeypatch.setattr(resumption, "MAX_ORIGINS", 2)
    context = certificates.client_for()
    async with ScriptedServer(answer_all, tls=certificates.server_for()) as server:
        names = ["localhost", "127.0.0.1", "::1"]
        for name in names:
            assert not await visit(server, context, server_hostname=name)
        reused = [await visit(server, context, server_hostname=name) for name in reversed(names)]
        # The least recently used went first.
        assert reused == [True, True, False]
    (sessions,) = vars(context).values()
    assert len(sessions._entries) == 2


async def test_a_context_and_its_sessions_die_together(certificates):
    context = certificates.client_for()
    async with ScriptedServer(answer_all, tls=certificates.server_for()) as server:
        assert [await visit(server, context) for _ in range(2)] == [False, True]
    (sessions,) = vars(context).values()
    (entry,) = sessions._entries.values()
    assert entry.session is not None
    alive = weakref.ref(context)
    del context, sessions, entry
    # What a task that has ended refers to goes with the loop's next turn.
    await asyncio.sleep(0)
    gc.collect()
    assert alive() is None


# The stand-in


async def test_it_is_the_context_in_all_but_one(certificates):
    context = certificates.client_for()
    stand_in = resumption.resuming(context, "origin", asyncio.get_running_loop())
    assert isinstance(stand_in, ssl.SSLContext)  # as asyncio's start_tls wants it
    assert stand_in.verify_mode is ssl.CERT_REQUIRED
    assert stand_in.session_stats() == context.session_stats()
    assert stand_in.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), False, "a.test").context is context


async def test_a_context_given_away_by_its_transport_resumes_nothing(certificates):
    context = certificates.client_for()
    async with ScriptedServer(answer_all, tls=certificates.server_for()) as server:
        assert not await visit(server, context)
        async with HTTPSConnection(server.host, server.port, context=context) as conn:
            await get(conn)
            assert conn.session_reused
            given = conn._protocol.get_extra_info("sslcontext")
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(
                asyncio.Protocol, *server.address, ssl=given, server_hostname="localhost"
            )
            assert not transport.get_extra_info("ssl_object").session_reused
            transport.abort()


async def test_the_hot_path_knows_nothing_of_it(certificates):
    called: list[str] = []

    def record(frame: Any, event: str, arg: object) -> None:
        if event == "call" and frame.f_code.co_filename == resumption.__file__:
            called.append(frame.f_code.co_name)

    async with ScriptedServer(answer_all, tls=certificates.server_for()) as server:
        context = certificates.client_for()
        async with HTTPSConnection(server.host, server.port, context=context) as conn:
            await get(conn)
            sys.setprofile(record)
            try:
                await get(conn)
            finally:
                sys.setprofile(None)
    assert called == []


@pytest.mark.parametrize("nothing", [None, object(), ssl.MemoryBIO()])
def test_what_is_no_tls_object_of_ours(nothing):
    resumption.keep_session(nothing)
    resumption.drop_session(nothing, ssl.SSLError(1, "x"))


async def test_a_response_that_is_kept_keeps_no_tls_state(certificates):
    context = certificates.client_for()
    async with ScriptedServer(answer_all, tls=certificates.server_for()) as server:
        async with HTTPSConnection(server.host, server.port, context=context) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            await response.read()
            ssl_object = conn._protocol.transport.get_extra_info("ssl_object")
            state = weakref.ref(ssl_object)
            del ssl_object
            protocol = conn._protocol
    await asyncio.sleep(0)
    gc.collect()
    assert protocol._tls is None
    assert state() is None
    assert response.status == 200
    assert response.tls.version() == "TLSv1.3"


async def test_a_stricter_security_level_resumes_nothing_of_a_laxer_one(certificates):
    context = certificates.client_for()
    async with ScriptedServer(answer_all, tls=certificates.server_for()) as server:
        assert not await visit(server, context)
        assert await visit(server, context)
        context.set_ciphers(f"DEFAULT@SECLEVEL={context.security_level - 1}")
        assert not await visit(server, context)


async def test_a_finalizer_that_closes_a_connection_does_not_block(certificates, monkeypatch):
    """The collector may run it anywhere, under the lock of the sessions too."""
    context = certificates.client_for()

    class Owner:
        def __init__(self, conn):
            self.conn = conn
            self.itself = self

        def __del__(self):
            self.conn.close()

    class Entry(resumption._Entry):
        def __init__(self):
            super().__init__()
            gc.collect()

    async with ScriptedServer(answer_all, tls=certificates.server_for()) as server:
        conn = HTTPSConnection(server.host, server.port, context=context)
        await get(conn)
        monkeypatch.setattr(resumption, "_Entry", Entry)
        Owner(conn)
        async with HTTPSConnection("127.0.0.1", server.port, context=context) as other:
            await get(other)
        await conn.wait_closed()


async def test_socket_options_may_be_of_any_kind(certificates):
    """They are part of what a session is for, and need not be hashable."""
    context = certificates.client_for()
    options = [[socket.SOL_SOCKET, socket.SO_KEEPALIVE, bytearray(b"\1\0\0\0")]]
    async with ScriptedServer(answer_all, tls=certificates.server_for()) as server:
        assert not await visit(server, context, socket_options=options)
        assert await visit(server, context, socket_options=options)
        assert not await visit(server, context)
