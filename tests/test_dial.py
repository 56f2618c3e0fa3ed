"""net/dial.py and net/sockets.py: every phase, every failure, and a cancellation at every step."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import resource
import socket
import ssl

import pytest

from aiohttpconn.exceptions import (
    CertificateError,
    ConnectError,
    ConnectionRefused,
    InvalidURL,
    ResolveError,
    TLSError,
    TunnelError,
)
from aiohttpconn.net import sockets
from aiohttpconn.net.destination import Destination, DialReport
from aiohttpconn.net.dial import dial
from aiohttpconn.net.tunnel import Tunnel

from .support import (
    ConnectProxy,
    ScriptedServer,
    close,
    deliveries,
    expect,
    notify,
    read_all,
    refusing_address,
    reset,
    send,
    wait,
)
from .support.leaks import happens, open_sockets
from .support.proxies import Socks5Proxy

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
ANSWERING = [expect(HEAD), send(RESPONSE)]
OK = b"HTTP/1.1 200 OK\r\n\r\n"
READ_SIZE = 320 * 1024


class Recorder(asyncio.BufferedProtocol):
    """A buffered protocol with slots, as the real one is."""

    __slots__ = ("_buffer", "_changed", "ended", "made", "received", "transport")

    def __init__(self) -> None:
        # Smaller than what TLS reads at once, and both loops lose data at the end: see dial.py.
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._changed = asyncio.Event()
        self.received = bytearray()
        self.made = 0
        self.ended = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.made += 1
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, n: int) -> None:
        self.received += self._buffer[:n]
        self._changed.set()

    def eof_received(self) -> None:
        self.ended = True
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self._changed.set()

    async def wait_received(self, n: int) -> bytes:
        while len(self.received) < n and not self.ended:
            self._changed.clear()
            await self._changed.wait()
        return bytes(self.received)

    async def wait_ended(self) -> None:
        while not self.ended:
            self._changed.clear()
            await self._changed.wait()


class Plain(asyncio.Protocol):
    """A protocol that is not buffered."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.got: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        if len(self.received) >= len(RESPONSE) and not self.got.done():
            self.got.set_result(None)


class Addresses:
    """A resolver that knows the answer."""

    def __init__(self, *addresses: tuple[str, int]) -> None:
        self.answer = [
            (
                socket.AF_INET6 if ":" in host else socket.AF_INET,
                socket.SOCK_STREAM,
                0,
                (host, port, 0, 0) if ":" in host else (host, port),
            )
            for host, port in addresses
        ]

    async def resolve(self, host: str, port: int):
        return self.answer


def to(server, **keywords) -> Destination:
    return Destination(server.host, server.port, **keywords)


async def exchange(destination, *, resolver=None) -> DialReport:
    """Dial, and have one exchange; return the report."""
    report = DialReport()
    transport, protocol = await dial(Recorder, destination, report, resolver=resolver)
    try:
        assert protocol.transport is transport
        assert protocol.made == 1
        transport.write(HEAD)
        assert await protocol.wait_received(len(RESPONSE)) == RESPONSE
    finally:
        transport.abort()
    return report


async def failing(destination, error=ConnectError, *, resolver=None, phase=None):
    """Dial in vain; return the exception."""
    report = DialReport()
    made = []
    with pytest.raises(error) as info:
        await dial(lambda: made.append(1), destination, report, resolver=resolver)
    assert not made
    assert info.value.phase == report.phase
    if phase is not None:
        assert report.phase == phase
        assert phase in report.durations
    return info.value


def text(exc: Exception) -> str:
    return exc.args[0]


# Plain -----------------------------------------------------------------------------------


async def test_plain():
    async with ScriptedServer(ANSWERING) as server:
        report = await exchange(to(server))
    assert list(report.durations) == ["dns", "connect"]
    assert all(0 <= seconds < 5 for seconds in report.durations.values())
    assert report.phase == "connect"
    assert report.proxy_reply is None
    assert repr(report).startswith("<DialReport connect: dns ")


async def test_localhost_by_the_default_resolver():
    async with ScriptedServer(ANSWERING) as server:
        await exchange(Destination("localhost", server.port))


async def test_ipv6():
    async with ScriptedServer(ANSWERING, host="::1") as server:
        await exchange(to(server))


async def test_a_protocol_that_is_not_buffered():
    async with ScriptedServer(ANSWERING) as server:
        transport, protocol = await dial(Plain, to(server))
        transport.write(HEAD)
        await protocol.got
        assert protocol.received == RESPONSE
        transport.abort()


async def test_the_raw_transport_of_a_plain_connection_is_the_transport():
    report = DialReport()
    async with ScriptedServer([]) as server:
        transport, _ = await dial(Recorder, to(server), report)
        assert report.raw_transport is transport
        transport.abort()


@contextlib.contextmanager
def slow_dial(flag):
    """Let a dial go on only when *flag* of its link is true: the peer is faster."""
    loop = asyncio.get_running_loop()
    create = loop.create_connection

    async def create_connection(factory, **keywords):
        transport, link = await create(factory, **keywords)
        while not getattr(link, flag):
            await asyncio.sleep(0)
        return transport, link

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "create_connection", create_connection)
        yield


@pytest.mark.parametrize("protocol_class", [Recorder, Plain])
async def test_what_the_server_says_first_is_not_lost(protocol_class):
    async with ScriptedServer([send(RESPONSE), read_all()]) as server:
        with slow_dial("received"):
            transport, protocol = await dial(protocol_class, to(server))
        assert protocol.received == RESPONSE
        transport.abort()


@pytest.mark.parametrize("end", [close(), reset()], ids=["fin", "rst"])
@pytest.mark.parametrize("flag", ["ended", "lost"])
async def test_an_end_before_the_hand_over_is_told(flag, end):
    async with ScriptedServer([end]) as server:
        with slow_dial(flag):
            transport, protocol = await dial(Recorder, to(server))
        assert protocol.made == 1
        await protocol.wait_ended()
        assert transport.is_closing()
        transport.abort()


async def test_socket_options_and_nodelay():
    options = ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),)
    async with ScriptedServer([]) as server:
        transport, _ = await dial(Recorder, to(server, socket_options=options))
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.abort()


async def test_a_socket_option_wins_over_nodelay():
    options = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 0),)
    async with ScriptedServer([]) as server:
        sock = await sockets.connect_first(Addresses(server.address).answer, "x", options)
        assert not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        sock.close()


async def test_source_address():
    async with ScriptedServer([]) as server:
        transport, _ = await dial(Recorder, to(server, source_address=("127.0.0.2", 0)))
        assert transport.get_extra_info("sockname")[0] == "127.0.0.2"
        transport.abort()


async def test_a_source_address_that_is_not_ours():
    async with ScriptedServer([]) as server:
        error = await failing(to(server, source_address=("192.0.2.77", 0)), phase="connect")
    assert text(error) == f"cannot connect to 127.0.0.1:{server.port}: " + (
        "cannot assign requested address"
    )
    assert error.errno == errno.EADDRNOTAVAIL


async def test_a_link_local_address_with_its_zone():
    """For real, where the machine has one."""
    own = _own_link_local()
    if own is None:
        pytest.skip("no link-local address")
    with socket.create_server(own, family=socket.AF_INET6) as listener:
        host = f"{own[0]}%{own[3]}"
        transport, _ = await dial(Recorder, Destination(host, listener.getsockname()[1]))
        assert transport.get_extra_info("peername")[3] == own[3]
        transport.abort()


def _own_link_local():
    try:
        with open("/proc/net/if_inet6") as lines:
            for line in lines:
                raw, index = line.split()[:2]
                if raw.startswith("fe80"):
                    address = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(raw))
                    return address, 0, 0, int(index, 16)
    except OSError:
        pass
    return None


# Refused, out of reach, out of descriptors --------------------------------------------------


async def test_refused():
    with refusing_address() as (host, port):
        error = await failing(Destination(host, port), phase="connect")
    assert type(error) is ConnectionRefused
    assert str(error) == f"connection refused by 127.0.0.1:{port}"
    assert error.hint == "Is a server running on that port?"
    assert error.errno == errno.ECONNREFUSED
    assert [type(each) for each in error.errors] == [ConnectionRefusedError]
    assert isinstance(error, ConnectionRefusedError)


async def test_refused_by_all():
    with refusing_address("::1") as (_, first), refusing_address() as (_, second):
        error = await failing(
            Destination("two.test", 80), resolver=Addresses(("::1", first), ("127.0.0.1", second))
        )
    assert type(error) is ConnectionRefused
    assert str(error) == (
        f"cannot connect to two.test:80: [::1]:{first}: connection refused; "
        f"127.0.0.1:{second}: connection refused"
    )
    assert len(error.errors) == 2


async def test_different_errors_are_all_told():
    with refusing_address() as (host, port):
        error = await failing(
            Destination("two.test", 80, source_address=("127.0.0.1", 0)),
            resolver=Addresses(("::1", port), (host, port)),
        )
    assert type(error) is ConnectError
    assert str(error).startswith(f"cannot connect to two.test:80: [::1]:{port}: ")
    assert str(error).endswith(f"; 127.0.0.1:{port}: connection refused")
    assert error.errno == errno.ECONNREFUSED
    assert error.hint == ""


async def test_a_name_that_does_not_resolve():
    class Nothing:
        async def resolve(self, host, port):
            raise ResolveError(f"cannot resolve {host!r}: no")

    error = await failing(Destination("a.test", 80), ResolveError, resolver=Nothing(), phase="dns")
    assert str(error) == "cannot resolve 'a.test': no"


@pytest.mark.parametrize("count", [1, 2])
async def test_out_of_descriptors_T14(count):
    async with ScriptedServer([], accepting=False) as server:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resolver = Addresses(*[server.address] * count)
        # asyncio and uvloop have what they need; the next descriptor is one too many.
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            error = await failing(to(server), resolver=resolver, phase="connect")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert error.errno == errno.EMFILE
    assert str(error).endswith(f"127.0.0.1:{server.port}: too many open files")
    assert len(error.errors) == count


@pytest.mark.parametrize("port", [-1, 65536])
async def test_a_port_out_of_range(port):
    error = await failing(Destination("127.0.0.1", port), ValueError)
    assert str(error) == f"a port must be 0 to 65535, got {port}"


async def test_a_factory_that_fails_leaves_nothing_open(certificates):
    def fail():
        raise LookupError("mine")

    async with ScriptedServer([read_all()]) as server:
        with pytest.raises(LookupError, match=r"^mine$"):
            await dial(fail, to(server))
    async with ScriptedServer([read_all()], tls=certificates.server) as server:
        with pytest.raises(LookupError, match=r"^mine$"):
            await dial(fail, to(server, context=certificates.client))


# Happy Eyeballs --------------------------------------------------------------------------


class Blackhole:
    """A listener whose backlog is full: the next connect gets no answer."""

    def __enter__(self) -> Blackhole:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.address = self.listener.getsockname()
        self.fillers = []
        for _ in range(16):
            filler = socket.socket()
            filler.settimeout(0.05)
            self.fillers.append(filler)
            try:
                filler.connect(self.address)
            except TimeoutError:
                return self
        self.__exit__()
        pytest.skip("a backlog that never fills")

    def __exit__(self, *args: object) -> None:
        for each in (self.listener, *self.fillers):
            each.close()


async def test_the_second_address_is_tried_after_the_delay(monkeypatch):
    monkeypatch.setattr(sockets, "ATTEMPT_DELAY", 0.01)
    with Blackhole() as hole:
        async with ScriptedServer(ANSWERING) as server:
            await exchange(
                Destination("two.test", 80), resolver=Addresses(hole.address, server.address)
            )


async def test_the_second_address_is_tried_at_once_when_the_first_fails(monkeypatch):
    monkeypatch.setattr(sockets, "ATTEMPT_DELAY", 1000)
    with refusing_address() as refusing:
        async with ScriptedServer(ANSWERING) as server:
            await exchange(
                Destination("two.test", 80), resolver=Addresses(refusing, server.address)
            )


async def test_the_second_address_is_not_tried_when_the_first_answers(monkeypatch):
    monkeypatch.setattr(sockets, "ATTEMPT_DELAY", 1000)
    async with ScriptedServer(ANSWERING) as first, ScriptedServer(ANSWERING) as second:
        await exchange(
            Destination("two.test", 80), resolver=Addresses(first.address, second.address)
        )
        assert (first.connections, second.connections) == (1, 0)


async def test_the_first_that_connects_wins_though_it_started_last(monkeypatch):
    monkeypatch.setattr(sockets, "ATTEMPT_DELAY", 0.01)
    with Blackhole() as hole, refusing_address() as refusing:
        async with ScriptedServer(ANSWERING) as server:
            await exchange(
                Destination("four.test", 80),
                resolver=Addresses(hole.address, refusing, hole.address, server.address),
            )


async def test_of_two_that_connect_at_once_one_is_closed(monkeypatch):
    """Both attempts end in the same turn of the loop."""
    monkeypatch.setattr(sockets, "ATTEMPT_DELAY", 0)
    gate = asyncio.Event()
    connect = sockets._finish_connect
    waiting = 0

    async def finish_connect(sock, address):
        nonlocal waiting
        await connect(sock, address)
        waiting += 1
        if waiting == 2:
            gate.set()
        await gate.wait()

    async with ScriptedServer([read_all()]) as first, ScriptedServer([read_all()]) as second:
        monkeypatch.setattr(sockets, "_finish_connect", finish_connect)
        sock = await sockets.connect_first(
            Addresses(first.address, second.address).answer, "two.test:80"
        )
        await first.wait_connections(1)
        await second.wait_connections(1)
        loser = (second if sock.getpeername() == first.address else first).conns[0]
        await loser.wait_ended()
        sock.close()


async def test_a_slow_first_address_is_waited_for_when_all_others_have_failed(monkeypatch):
    monkeypatch.setattr(sockets, "ATTEMPT_DELAY", 0)
    failed = asyncio.Event()
    connect = sockets._finish_connect

    async def finish_connect(sock, address):
        try:
            await connect(sock, address)
            await failed.wait()
        except OSError:
            # The race hears of this failure first, in an earlier turn.
            asyncio.get_running_loop().call_later(0.001, failed.set)
            raise

    with refusing_address() as refusing:
        async with ScriptedServer([read_all()]) as server:
            monkeypatch.setattr(sockets, "_finish_connect", finish_connect)
            sock = await sockets.connect_first(Addresses(server.address, refusing).answer, "x")
            assert sock.getpeername() == server.address
            sock.close()


async def test_an_attempt_that_fails_for_the_callers_fault_ends_the_race(monkeypatch):
    async with ScriptedServer([read_all()]) as server:
        with pytest.raises(TypeError):
            await dial(
                Recorder,
                Destination("two.test", 80, socket_options=(("x", 1, 1),)),
                resolver=Addresses(server.address, server.address),
            )


# Unix sockets ------------------------------------------------------------------------------


@pytest.mark.parametrize("as_bytes", [False, True])
async def test_unix_socket(tmp_path, as_bytes):
    path = str(tmp_path / "s")
    async with ScriptedServer(ANSWERING, path=path) as server:
        report = await exchange(
            Destination("x", 80, uds=path.encode() if as_bytes else server.path)
        )
    assert list(report.durations) == ["connect"]


async def test_tls_over_a_unix_socket(tmp_path, certificates):
    path = str(tmp_path / "s")
    async with ScriptedServer(ANSWERING, path=path, tls=certificates.server):
        await exchange(Destination("localhost", 443, uds=path, context=certificates.client))


async def test_a_unix_socket_that_is_missing(tmp_path):
    path = str(tmp_path / "s")
    error = await failing(Destination("x", 80, uds=path), phase="connect")
    assert str(error) == f"cannot connect to Unix socket {path!r}: no such file or directory"
    assert error.errno == errno.ENOENT


async def test_a_unix_socket_that_nobody_listens_on(tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        error = await failing(Destination("x", 80, uds=path))
    assert type(error) is ConnectionRefused
    assert str(error) == f"connection refused by Unix socket {path!r}"
    assert error.hint == "Is a server running on that socket?"


async def test_a_unix_socket_whose_backlog_is_full(tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        fillers = []
        for _ in range(300):
            filler = socket.socket(socket.AF_UNIX)
            filler.setblocking(False)
            fillers.append(filler)
            try:
                filler.connect(path)
            except BlockingIOError:
                break
        error = await failing(Destination("x", 80, uds=path))
        for filler in fillers:
            filler.close()
    assert str(error).startswith(f"cannot connect to Unix socket {path!r}: ")
    assert error.errno == errno.EAGAIN


# TLS -------------------------------------------------------------------------------------


async def test_tls(certificates):
    async with ScriptedServer(ANSWERING, tls=certificates.server) as server:
        report = await exchange(to(server, context=certificates.client))
    assert list(report.durations) == ["dns", "connect", "tls"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_what_comes_with_the_handshakes_end_is_not_lost(certificates, version):
    context = certificates.server_for(maximum_version=version)
    async with ScriptedServer([send(RESPONSE)], tls=context) as server:
        transport, protocol = await dial(Recorder, to(server, context=certificates.client))
        assert await protocol.wait_received(len(RESPONSE)) == RESPONSE
        transport.abort()


async def test_the_name_sent_is_the_hosts_without_its_dot(certificates):
    names = []
    context = certificates.server_for("a.test")
    context.sni_callback = lambda conn, name, context: names.append(name)
    async with ScriptedServer(ANSWERING, tls=context) as server:
        resolver = Addresses(server.address)
        await exchange(Destination("a.test.", 443, context=certificates.client), resolver=resolver)
    assert names == ["a.test"]


async def test_no_name_is_sent_for_an_ip_address(certificates):
    names = []
    context = certificates.server_for("127.0.0.1")
    context.sni_callback = lambda conn, name, context: names.append(name)
    async with ScriptedServer(ANSWERING, tls=context) as server:
        await exchange(to(server, context=certificates.client))
    assert names == [None]


async def test_a_name_outside_ascii(certificates):
    context = certificates.server_for("xn--bcher-kva.test")
    async with ScriptedServer(ANSWERING, tls=context) as server:
        await exchange(
            Destination("bücher.test", 443, context=certificates.client),
            resolver=Addresses(server.address),
        )


async def test_server_hostname_replaces_the_hosts_name(certificates):
    async with ScriptedServer(ANSWERING, tls=certificates.server_for("other.test")) as server:
        await exchange(to(server, context=certificates.client, server_hostname="other.test"))


@pytest.mark.parametrize(
    ("which", "why", "hint"),
    [
        ("expired", "certificate has expired", ""),
        ("self_signed", "self-signed certificate", "private CA"),
        ("untrusted", "unable to get local issuer certificate", "private CA"),
        (
            "wrong_host",
            "hostname mismatch, certificate is not valid for 'localhost'",
            "asks for 'localhost'",
        ),
    ],
)
async def test_a_certificate_that_is_wrong(certificates, which, why, hint):
    async with ScriptedServer([read_all()], tls=getattr(certificates, which)) as server:
        error = await failing(
            Destination("localhost", server.port, context=certificates.client), phase="tls"
        )
    assert type(error) is CertificateError
    assert text(error) == (
        f"the certificate of the server cannot be verified for 'localhost': {why}"
    )
    assert hint in error.hint
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)


async def test_a_certificate_for_another_ip_address(certificates):
    async with ScriptedServer([read_all()], tls=certificates.server_for("10.0.0.1")) as server:
        error = await failing(to(server, context=certificates.client))
    assert type(error) is CertificateError
    assert text(error) == (
        "the certificate of the server cannot be verified for '127.0.0.1': "
        "IP address mismatch, certificate is not valid for '127.0.0.1'"
    )


async def test_a_server_that_speaks_plain_http(certificates):
    answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
    async with ScriptedServer([expect(1), send(answer), read_all()]) as server:
        error = await failing(to(server, context=certificates.client), phase="tls")
    assert type(error) is TLSError
    assert text(error) in (
        "the server did not answer with TLS (wrong version number)",
        "the server did not answer with TLS (record layer failure)",
        "the server did not answer with TLS (http request)",
    )
    assert error.hint == "The server may be speaking plain HTTP on this port: try http://"


async def test_a_server_that_speaks_before_tls(certificates):
    async with ScriptedServer([send(b"220 mail.test\r\n"), read_all()]) as server:
        with slow_dial("received"):
            error = await failing(to(server, context=certificates.client), phase="tls")
    assert type(error) is TLSError
    assert text(error) == "the server spoke before the TLS handshake: b'220 mail.test\\r\\n'"
    assert error.hint == "Does it speak TLS on this port?"


async def test_a_server_that_ends_before_tls(certificates):
    async with ScriptedServer([close()]) as server:
        with slow_dial("ended"):
            error = await failing(to(server, context=certificates.client), phase="tls")
    assert type(error) is TLSError
    assert text(error) == "the server closed the connection during the TLS handshake"


@pytest.mark.parametrize("end", [close(), reset()], ids=["fin", "rst"])
@pytest.mark.parametrize("first", [[], [expect(1)]], ids=["at-once", "after-hello"])
async def test_a_server_that_ends_in_the_handshake(certificates, first, end):
    async with ScriptedServer([*first, end]) as server:
        error = await failing(to(server, context=certificates.client), phase="tls")
    assert type(error) is TLSError
    assert text(error) == "the server closed the connection during the TLS handshake"


async def test_no_version_in_common(certificates):
    client = certificates.client_for()
    client.minimum_version = ssl.TLSVersion.TLSv1_3
    context = certificates.server_for(maximum_version=ssl.TLSVersion.TLSv1_2)
    async with ScriptedServer([read_all()], tls=context) as server:
        # The test's server tells nobody why; a real one sends an alert, see test_tls.py.
        error = await failing(to(server, context=client), phase="tls")
    assert type(error) is TLSError


async def test_a_host_that_cannot_be_verified_opens_nothing(certificates):
    error = await failing(Destination("a..b", 443, context=certificates.client), ValueError)
    assert str(error).startswith("TLS cannot verify 'a..b': not a valid host name")
    error = await failing(Destination("", 443, context=certificates.client), ValueError)
    assert str(error) == "TLS needs a server name to verify, and '' is not one"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("how", [True, False], ids=["close_notify", "fin"])
async def test_pausing_the_raw_transport_loses_nothing(certificates, how, version):
    body = bytes(range(256)) * 2400  # 600 KiB: more than any layer buffers
    context = certificates.server_for(maximum_version=version)
    report = DialReport()
    ready = asyncio.Event()
    step = [expect(HEAD), notify(ready), send(body), close(notify=how), read_all()]
    async with ScriptedServer(step, tls=context) as server:
        transport, protocol = await dial(Recorder, to(server, context=certificates.client), report)
        assert report.raw_transport is not transport
        transport.write(HEAD)
        await ready.wait()
        await protocol.wait_received(1)
        report.raw_transport.pause_reading()
        for _ in range(50):
            await asyncio.sleep(0)
        paused_at = len(protocol.received)
        assert paused_at < len(body)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(protocol.received) == paused_at
        assert not protocol.ended
        report.raw_transport.resume_reading()
        await protocol.wait_ended()
        assert protocol.received == body
        transport.abort()


# Tunnels -----------------------------------------------------------------------------------


def through(proxy, server, **keywords) -> Destination:
    return to(proxy, tunnel=Tunnel(server.host, server.port), **keywords)


async def test_a_plain_tunnel():
    async with ScriptedServer(ANSWERING) as server, ConnectProxy() as proxy:
        report = await exchange(through(proxy, server))
    assert proxy.targets == [f"127.0.0.1:{server.port}"]
    target = b"127.0.0.1:%d" % server.port
    assert proxy.heads == [b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, target)]
    assert list(report.durations) == ["dns", "connect", "proxy"]
    assert report.proxy_reply.status == 200
    assert report.proxy_reply.reason == "Connection established"


async def test_a_plain_tunnel_for_a_protocol_that_is_not_buffered():
    async with ScriptedServer(ANSWERING) as server, ConnectProxy() as proxy:
        transport, protocol = await dial(Plain, through(proxy, server))
        transport.write(HEAD)
        await protocol.got
        assert protocol.received == RESPONSE
        transport.abort()


@pytest.mark.parametrize("pieces", deliveries(OK, splits=4))
async def test_the_proxys_answer_however_it_is_delivered(pieces):
    script = [expect(), send(*pieces), *ANSWERING]
    async with ScriptedServer(script) as proxy:
        await exchange(to(proxy, tunnel=Tunnel("a.test", 80)))


async def test_tls_in_a_tunnel(certificates):
    async with ScriptedServer(ANSWERING, tls=certificates.server) as server:
        async with ConnectProxy(routes={"localhost:443": server.address}) as proxy:
            report = await exchange(
                to(proxy, tunnel=Tunnel("localhost", 443), context=certificates.client)
            )
    assert list(report.durations) == ["dns", "connect", "proxy", "tls"]


async def test_the_certificate_in_a_tunnel_is_the_origins(certificates):
    context = certificates.server_for("origin.test")
    async with ScriptedServer([read_all()], ANSWERING, tls=context) as server:
        async with ConnectProxy(
            routes={"origin.test:443": server.address, "other.test:443": server.address}
        ) as proxy:
            error = await failing(
                to(proxy, tunnel=Tunnel("other.test", 443), context=certificates.client)
            )
            assert text(error).endswith("certificate is not valid for 'other.test'")
            await exchange(
                to(proxy, tunnel=Tunnel("origin.test", 443), context=certificates.client)
            )


async def test_a_plain_tunnel_in_tls(certificates):
    async with ScriptedServer(ANSWERING) as server:
        async with ConnectProxy(tls=certificates.server) as proxy:
            report = await exchange(through(proxy, server, proxy_context=certificates.client))
    assert list(report.durations) == ["dns", "connect", "proxy"]


async def test_tls_in_a_tunnel_in_tls(certificates):
    report = DialReport()
    body = bytes(range(256)) * 4000
    script = [expect(HEAD), send(body), close(), read_all()]
    async with ScriptedServer(script, tls=certificates.server) as server:
        async with ConnectProxy(tls=certificates.server) as proxy:
            transport, protocol = await dial(
                Recorder,
                through(
                    proxy, server, context=certificates.client, proxy_context=certificates.client
                ),
                report,
            )
            transport.write(HEAD)
            await protocol.wait_ended()
            assert protocol.received == body
            transport.abort()
    assert list(report.durations) == ["dns", "connect", "proxy", "tls"]


async def test_a_tunnel_over_a_unix_socket(tmp_path):
    async with ScriptedServer(ANSWERING) as server:
        async with ConnectProxy(path=str(tmp_path / "s")) as proxy:
            await exchange(through(proxy, server, uds=proxy.path))


async def test_refused_by_the_proxy():
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nX-Why: y\r\n\r\nno"
    async with ConnectProxy(refuse=answer) as proxy:
        error = await failing(to(proxy, tunnel=Tunnel("a.test", 443)), TunnelError, phase="proxy")
    assert str(error) == "Tunnel connection failed: 403 Forbidden"
    assert (error.status, error.reason, error.body) == (403, "Forbidden", b"no")
    assert ("X-Why", "y") in error.headers


async def test_credentials_for_the_proxy_are_sent_and_never_shown():
    async with ConnectProxy(credentials="user:secret") as proxy:
        tunnel = Tunnel("a.test", 443, (("Proxy-Authorization", "Basic d3Jvbmc="),))
        error = await failing(to(proxy, tunnel=tunnel), TunnelError)
    assert str(error) == "Tunnel connection failed: 407 Proxy Authentication Required"
    assert "credentials" in error.hint
    assert "d3Jvbmc" not in repr(error) + repr(vars(error)) + repr(tunnel)
    assert b"Proxy-Authorization: Basic d3Jvbmc=\r\n" in proxy.heads[0]


@pytest.mark.parametrize("end", [close(), reset()], ids=["fin", "rst"])
@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n"], ids=["nothing", "half"])
async def test_a_proxy_that_ends_before_it_answers(said, end):
    steps = [send(said)] if said else []
    async with ScriptedServer([expect(), *steps, end]) as proxy:
        error = await failing(to(proxy, tunnel=Tunnel("a.test", 443)), TunnelError, phase="proxy")
    assert str(error) == "the proxy closed the connection before answering CONNECT"


async def test_a_proxy_that_answers_and_ends(certificates):
    async with ScriptedServer([expect(), send(OK), close(), read_all()]) as proxy:
        destination = to(proxy, tunnel=Tunnel("a.test", 443), context=certificates.client)
        error = await failing(destination)
    assert text(error) in (
        "the proxy closed the connection after answering CONNECT",
        "the server closed the connection during the TLS handshake",
    )


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("length", [b"", b"Content-Length: 7\r\n"])
async def test_what_follows_the_proxys_answer_is_an_injection(certificates, length, tls):
    answer = b"HTTP/1.1 200 OK\r\n%b\r\nHTTP/1." % length
    async with ScriptedServer([expect(), send(answer), read_all()]) as proxy:
        error = await failing(
            to(
                proxy,
                tunnel=Tunnel("a.test", 443),
                context=certificates.client if tls else None,
            ),
            TunnelError,
            phase="proxy",
        )
    assert str(error) == "the proxy sent more than its answer to CONNECT: b'HTTP/1.'"


async def test_what_may_not_be_sent_to_a_proxy_opens_nothing():
    async with ConnectProxy() as proxy:
        error = await failing(to(proxy, tunnel=Tunnel("a\r\nX: 1", 443)), InvalidURL)
        assert str(error) == "not a host name or an IP address: 'a\\r\\nX: 1'"
        await failing(to(proxy, tunnel=Tunnel("a", 443, (("X", "a\nb"),))), ValueError)
        assert proxy.connections == 0


async def test_a_proxy_whose_own_certificate_is_wrong(certificates):
    async with ConnectProxy(tls=certificates.untrusted) as proxy:
        error = await failing(
            to(proxy, tunnel=Tunnel("a.test", 443), proxy_context=certificates.client),
            CertificateError,
            phase="proxy",
        )
    assert text(error).startswith(
        "the certificate of the proxy cannot be verified for '127.0.0.1': "
    )


async def test_a_proxy_that_refuses_inside_tls(certificates):
    answer = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"
    async with ConnectProxy(refuse=answer, tls=certificates.server) as proxy:
        error = await failing(
            to(proxy, tunnel=Tunnel("a.test", 443), proxy_context=certificates.client),
            TunnelError,
        )
    assert str(error) == "Tunnel connection failed: 502 Bad Gateway"


# Limits and cancellation -------------------------------------------------------------------


async def test_a_timeout_finds_the_phase_in_the_report(certificates, ticking):
    hold = asyncio.Event()
    cases = {
        "connect": None,
        "proxy": {"tunnel": Tunnel("a.test", 443)},
        "tls": {"context": certificates.client},
    }
    for phase, keywords in cases.items():
        report = DialReport()
        async with ScriptedServer([wait(hold)]) as server:
            if keywords is None:
                with Blackhole() as hole, pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await dial(Recorder, Destination(*hole.address), report)
            else:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await dial(Recorder, to(server, **keywords), report)
        assert report.phase == phase
        assert report.durations[phase] > 0.01


async def test_a_timeout_in_the_lookup(ticking):
    class Slow:
        async def resolve(self, host, port):
            await asyncio.Event().wait()

    report = DialReport()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await dial(Recorder, Destination("a.test", 80), report, resolver=Slow())
    assert report.phase == "dns"


async def cancelled_everywhere(make_destination, resolver=None) -> int:
    """Cancel a dial after 0, 1, 2 ... turns of the loop, until it ends before that.

    Returns the number of turns that it took. What stays open fails here.
    """
    before = open_sockets()
    for turns in range(500):
        made = []

        def factory() -> Recorder:
            protocol = Recorder()
            made.append(protocol)  # noqa: B023 - called in this round only
            return protocol

        task = asyncio.create_task(dial(factory, make_destination(), resolver=resolver))
        for _ in range(turns):
            await asyncio.sleep(0)
        done = task.done()
        task.cancel()
        try:
            transport, _ = await task
        except asyncio.CancelledError:
            pass
        else:
            transport.abort()
        told = await happens(lambda: all(each.ended for each in made if each.made))  # noqa: B023
        assert told, f"a protocol was never told when cancelled in turn {turns}"
        closed = await happens(lambda: open_sockets() <= before)
        assert closed, f"a socket stays open when cancelled in turn {turns}"
        if done:
            return turns
    raise AssertionError("never connected")


async def test_cancelled_anywhere_in_a_plain_dial():
    async with ScriptedServer([read_all()]) as server:
        await cancelled_everywhere(lambda: to(server))


async def test_cancelled_anywhere_in_a_race(monkeypatch):
    monkeypatch.setattr(sockets, "ATTEMPT_DELAY", 0)
    with refusing_address() as refusing, Blackhole() as hole:
        async with ScriptedServer([read_all()]) as server:
            await cancelled_everywhere(
                lambda: Destination("a.test", 80),
                Addresses(refusing, hole.address, server.address, server.address),
            )


async def test_cancelled_anywhere_in_a_unix_dial(tmp_path):
    async with ScriptedServer([read_all()], path=str(tmp_path / "s")) as server:
        await cancelled_everywhere(lambda: Destination("x", 80, uds=server.path))


async def test_cancelled_anywhere_in_tls(certificates):
    async with ScriptedServer([read_all()], tls=certificates.server) as server:
        turns = await cancelled_everywhere(lambda: to(server, context=certificates.client))
    assert turns > 3


async def test_cancelled_anywhere_in_a_tunnel():
    async with ScriptedServer([expect(), send(OK), read_all()]) as proxy:
        await cancelled_everywhere(lambda: to(proxy, tunnel=Tunnel("a.test", 80)))


async def test_cancelled_anywhere_in_tls_in_a_tunnel_in_tls(certificates):
    async with ScriptedServer([read_all()], tls=certificates.server) as server:
        async with ConnectProxy(tls=certificates.server) as proxy:
            destination = through(
                proxy, server, context=certificates.client, proxy_context=certificates.client
            )
            turns = await cancelled_everywhere(lambda: dataclasses.replace(destination))
    assert turns > 10


# SOCKS5 ------------------------------------------------------------------------------------

SOCKS_OK = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"


def socks(host, port=80, scheme="socks5h", **keywords) -> Tunnel:
    return Tunnel(host, port, scheme=scheme, **keywords)


class Counting(Addresses):
    """A resolver that knows the answer, and who asked."""

    def __init__(self, *addresses):
        super().__init__(*addresses)
        self.asked = []

    async def resolve(self, host, port):
        self.asked.append((host, port))
        await asyncio.sleep(0)
        if host.endswith(".test"):
            return self.answer
        return Addresses((host, port)).answer


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize("credentials", [None, ("user", "secret")], ids=["anybody", "user"])
async def test_the_proxy_resolves_with_socks5h(credentials, bytewise):
    expected = None if credentials is None else ":".join(credentials)
    async with ScriptedServer(ANSWERING) as server:
        async with Socks5Proxy(
            credentials=expected, bytewise=bytewise, routes={"a.test:80": server.address}
        ) as proxy:
            tunnel = socks("a.test", credentials=credentials)
            resolver = Counting()
            report = await exchange(to(proxy, tunnel=tunnel), resolver=resolver)
        # The name goes to nobody but the proxy.
        assert resolver.asked == [proxy.address]
    assert proxy.targets == ["a.test:80"]
    assert list(report.durations) == ["dns", "connect", "proxy"]
    assert (report.proxy_reply.version, report.proxy_reply.status) == (5, 0)


@pytest.mark.parametrize(
    ("addresses", "target"),
    [
        ([("192.0.2.7", 80), ("2001:db8::7", 80)], "192.0.2.7:80"),
        ([("2001:db8::7", 80), ("192.0.2.7", 80)], "[2001:db8::7]:80"),
    ],
)
async def test_with_socks5_the_first_address_is_asked_for(addresses, target):
    resolver = Counting(*addresses)
    async with ScriptedServer(ANSWERING) as server:
        async with Socks5Proxy(routes={target: server.address}) as proxy:
            report = await exchange(
                to(proxy, tunnel=socks("a.test", 80, "socks5")), resolver=resolver
            )
        assert resolver.asked == [("a.test", 80), proxy.address]
    assert proxy.targets == [target]
    assert list(report.durations) == ["dns", "connect", "proxy"]


async def test_an_address_needs_no_resolver_with_either_scheme():
    for scheme in ("socks5", "socks5h"):
        async with ScriptedServer(ANSWERING, host="::1") as server, Socks5Proxy() as proxy:
            await exchange(to(proxy, tunnel=socks("::1", server.port, scheme)))
            assert proxy.targets == [f"[::1]:{server.port}"]


async def test_with_socks5_a_name_that_does_not_resolve_opens_nothing():
    class Nothing:
        async def resolve(self, host, port):
            raise ResolveError(f"cannot resolve {host!r}: no")

    async with Socks5Proxy() as proxy:
        error = await failing(
            to(proxy, tunnel=socks("a.test", 80, "socks5")),
            ResolveError,
            resolver=Nothing(),
            phase="dns",
        )
        assert str(error) == "cannot resolve 'a.test': no"
        assert proxy.connections == 0


async def test_a_timeout_in_the_lookup_for_socks5(ticking):
    class Slow:
        async def resolve(self, host, port):
            await asyncio.Event().wait()

    report = DialReport()
    destination = Destination("/", 0, uds="/", tunnel=socks("a.test", 80, "socks5"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await dial(Recorder, destination, report, resolver=Slow())
    assert report.phase == "dns"
    assert report.durations["dns"] > 0.01


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
async def test_a_socks_proxy_on_a_unix_socket(tmp_path, scheme):
    async with ScriptedServer(ANSWERING) as server:
        async with Socks5Proxy(path=str(tmp_path / "s")) as proxy:
            tunnel = socks(server.host, server.port, scheme)
            report = await exchange(Destination("x", 80, uds=proxy.path, tunnel=tunnel))
    assert list(report.durations) == (["dns"] if scheme == "socks5" else []) + ["connect", "proxy"]


async def test_tls_through_socks_is_the_origins_T16(certificates):
    context = certificates.server_for("origin.test")
    names = []
    context.sni_callback = lambda conn, name, context: names.append(name)
    async with ScriptedServer([read_all()], ANSWERING, tls=context) as server:
        routes = {"origin.test:443": server.address, "other.test:443": server.address}
        async with Socks5Proxy(routes=routes) as proxy:
            error = await failing(
                to(proxy, tunnel=socks("other.test", 443), context=certificates.client),
                CertificateError,
                phase="tls",
            )
            assert text(error).endswith("certificate is not valid for 'other.test'")
            report = await exchange(
                to(proxy, tunnel=socks("origin.test", 443), context=certificates.client)
            )
    assert names == ["other.test", "origin.test"]
    assert list(report.durations) == ["dns", "connect", "proxy", "tls"]


async def test_tls_through_socks_in_tls(certificates):
    async with ScriptedServer(ANSWERING, tls=certificates.server) as server:
        async with Socks5Proxy(
            tls=certificates.server, routes={"localhost:443": server.address}
        ) as proxy:
            await exchange(
                to(
                    proxy,
                    tunnel=socks("localhost", 443),
                    context=certificates.client,
                    proxy_context=certificates.client,
                )
            )


async def test_a_target_that_refuses():
    with refusing_address() as (host, port):
        async with Socks5Proxy() as proxy:
            error = await failing(to(proxy, tunnel=socks(host, port)), TunnelError, phase="proxy")
    assert str(error) == (
        f"the SOCKS proxy could not connect to 127.0.0.1:{port}: connection refused"
    )
    assert error.reason == "connection refused"
    assert not isinstance(error, ConnectionRefused)


async def test_a_target_that_the_proxy_does_not_know():
    async with Socks5Proxy() as proxy:
        error = await failing(to(proxy, tunnel=socks("a.test")), TunnelError)
    assert str(error) == "the SOCKS proxy could not connect to a.test:80: host unreachable"


async def test_a_socks_user_is_never_shown():
    tunnel = socks("a.test", credentials=("user", "s3cret"))
    async with Socks5Proxy(credentials="user:right") as proxy:
        destination = to(proxy, tunnel=tunnel)
        error = await failing(destination, TunnelError, phase="proxy")
    assert str(error) == "the SOCKS proxy refused the user name and password"
    assert "s3cret" not in f"{error!r} {vars(error)} {destination!r}"
    assert b"\x01\x04user\x06s3cret" in proxy.received[0]


@pytest.mark.parametrize("tls", [False, True])
async def test_what_follows_a_socks_proxys_answer_is_an_injection_F19(certificates, tls):
    async with ScriptedServer([read_all()]) as server:
        async with Socks5Proxy(leftover=b"HTTP/1.", routes={"a.test:443": server.address}) as proxy:
            error = await failing(
                to(
                    proxy,
                    tunnel=socks("a.test", 443),
                    context=certificates.client if tls else None,
                ),
                TunnelError,
                phase="proxy",
            )
    assert str(error) == "the proxy sent more than its answer to CONNECT: b'HTTP/1.'"


async def test_a_refusal_of_socks_is_never_the_origins_answer_F20():
    refusal = b"\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00" + RESPONSE
    script = [expect(3), send(b"\x05\x00"), expect(13), send(refusal), read_all()]
    async with ScriptedServer(script) as proxy:
        error = await failing(to(proxy, tunnel=socks("a.test")), TunnelError, phase="proxy")
    assert str(error) == (
        "the SOCKS proxy could not connect to a.test:80: not allowed by the proxy's rules"
    )


@pytest.mark.parametrize("end", [close(), reset()], ids=["fin", "rst"])
@pytest.mark.parametrize(
    ("said", "what"),
    [
        ([], "the greeting"),
        ([send(b"\x05")], "the greeting"),
        ([send(b"\x05\x00"), expect(13)], "the request for a.test:80"),
        ([send(b"\x05\x00"), expect(13), send(SOCKS_OK[:7])], "in full"),
    ],
)
async def test_a_socks_proxy_that_ends(said, what, end):
    async with ScriptedServer([expect(3), *said, end]) as proxy:
        error = await failing(to(proxy, tunnel=socks("a.test")), TunnelError, phase="proxy")
    assert str(error) == f"the SOCKS proxy closed the connection before answering {what}"


async def test_an_http_proxy_is_no_socks_proxy():
    script = [expect(3), send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), close(), read_all()]
    async with ScriptedServer(script) as proxy:
        error = await failing(to(proxy, tunnel=socks("a.test")), TunnelError, phase="proxy")
    assert str(error) == (
        "the proxy does not speak SOCKS5: expected an answer of version 5, "
        "got one that begins with b'HT'"
    )
    assert error.hint == "If it is an HTTP proxy, its URL begins with http://"


@pytest.mark.parametrize(
    ("tunnel", "error"),
    [
        (socks("a\r\nb"), InvalidURL),
        (socks("a" * 64), InvalidURL),
        (socks("a.test", credentials=("", "x")), ValueError),
        (socks("fe80::1%lo", scheme="socks5"), ValueError),
        (Tunnel("a.test", 80, scheme="socks6"), ValueError),
        (socks("::1", scheme="socks4"), ValueError),
        (socks("::1", scheme="socks4a"), ValueError),
    ],
)
async def test_what_may_not_be_sent_to_a_socks_proxy_opens_nothing_E5(tunnel, error):
    async with Socks5Proxy() as proxy:
        await failing(to(proxy, tunnel=tunnel), error, phase=None)
        assert proxy.connections == 0


@pytest.mark.parametrize("answered", [0, 1, 2])
async def test_a_timeout_in_each_step_of_socks_is_the_proxys(answered, ticking):
    hold = asyncio.Event()
    steps = [
        *(expect(b"\x05\x02\x00\x02"), send(b"\x05\x02")),
        *(expect(b"\x01\x04user\x06secret"), send(b"\x01\x00")),
    ]
    script = [*steps[: 2 * answered], wait(hold)]
    report = DialReport()
    async with ScriptedServer(script) as proxy:
        tunnel = socks("a.test", credentials=("user", "secret"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await dial(Recorder, to(proxy, tunnel=tunnel), report)
    assert report.phase == "proxy"
    assert report.durations["proxy"] > 0.01


async def test_cancelled_anywhere_in_a_socks_handshake():
    resolver = Counting(("127.0.0.1", 80))
    async with ScriptedServer([read_all()]) as server:
        async with Socks5Proxy(
            credentials="user:secret", routes={"127.0.0.1:80": server.address}
        ) as proxy:
            tunnel = socks("a.test", 80, "socks5", credentials=("user", "secret"))
            turns = await cancelled_everywhere(lambda: to(proxy, tunnel=tunnel), resolver)
    assert turns > 5


async def test_cancelled_anywhere_in_tls_through_socks(certificates):
    async with ScriptedServer([read_all()], tls=certificates.server) as server:
        async with Socks5Proxy(routes={"localhost:443": server.address}) as proxy:
            destination = to(proxy, tunnel=socks("localhost", 443), context=certificates.client)
            turns = await cancelled_everywhere(lambda: dataclasses.replace(destination))
    assert turns > 8
