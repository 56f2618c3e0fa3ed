"""net/tls.py: the default context, close_notify against a bare FIN, names, texts of failures."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import threading

import pytest

from aiohttpconn.exceptions import CertificateError, TLSError
from aiohttpconn.net import tls
from aiohttpconn.net.tls import (
    default_context,
    handshake_error,
    is_clean_eof,
    tls_name,
    trusted_file,
)

from .support import ScriptedServer, close, notify, reset, send, wait

# The default context


@pytest.fixture
def fresh(monkeypatch):
    """Forget every context that has been made."""
    monkeypatch.setattr(tls, "_contexts", {})


async def test_the_default_context_verifies(fresh):
    context = await default_context()
    # A cut connection is no clean end; old Pythons set this option.
    assert not context.options & getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


async def test_a_made_context_is_returned_without_suspending(fresh):
    context = await default_context()
    with pytest.raises(StopIteration) as stop:
        default_context().send(None)
    assert stop.value.value is context


async def test_each_cafile_has_its_context(fresh, certificates, tmp_path):
    path = tmp_path / "ca.pem"
    path.write_bytes(certificates.ca.cert_pem.bytes())
    context = await default_context(path)
    assert await default_context(str(path)) is context
    assert await default_context() is not context
    assert len(context.get_ca_certs()) == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="only openssl names the files")
async def test_a_cafile_may_be_a_folder_as_openssl_makes_it(fresh, certificates, tmp_path):
    (tmp_path / "ca.pem").write_bytes(certificates.ca.cert_pem.bytes())
    command = ["openssl", "rehash", str(tmp_path)]
    await asyncio.to_thread(subprocess.run, command, check=True, timeout=60)
    context = await default_context(tmp_path)
    async with ScriptedServer([], tls=certificates.server) as server:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(
            asyncio.Protocol, *server.address, ssl=context, server_hostname="localhost"
        )
        transport.abort()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"SSL_CERT_FILE": "s"}, None),
        ({"REQUESTS_CA_BUNDLE": "r", "CURL_CA_BUNDLE": "c", "SSL_CERT_FILE": "s"}, "r"),
        ({"CURL_CA_BUNDLE": "c", "SSL_CERT_FILE": "s"}, "c"),
        ({"REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": "c"}, "c"),
        ({"REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": ""}, None),
    ],
)
def test_the_file_that_the_environment_names(environ, expected):
    assert trusted_file(environ) == expected


async def test_the_default_context_offers_http11(fresh, certificates):
    server_context = certificates.server_for(alpn=["h2", "http/1.1"])
    context = await default_context(certificates.ca_file)
    async with ScriptedServer([], tls=server_context) as server:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, *server.address, ssl=context)
        assert transport.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        transport.abort()


def test_loops_in_many_threads_make_one_context(fresh, monkeypatch):
    made = []
    make = ssl.create_default_context
    monkeypatch.setattr(
        ssl, "create_default_context", lambda **keywords: made.append(1) or make(**keywords)
    )
    start = threading.Barrier(4)
    contexts = []

    def work() -> None:
        async def main() -> None:
            start.wait(10)
            contexts.extend(await asyncio.gather(*(default_context() for _ in range(5))))

        asyncio.run(main())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(contexts) == 20
    assert len(set(contexts)) == 1
    assert len(made) == 1


async def test_a_missing_cafile_is_named(fresh):
    with pytest.raises(FileNotFoundError) as info:
        await default_context("/no/such/ca.pem")
    assert str(info.value) == (
        "[Errno 2] cannot read cafile: No such file or directory: '/no/such/ca.pem'"
    )


async def test_a_cafile_without_certificates_says_so(fresh, tmp_path):
    path = tmp_path / "ca.pem"
    path.write_text("nothing")
    with pytest.raises(TLSError) as info:
        await default_context(path)
    assert info.value.args[0].startswith(f"cafile {str(path)!r} holds no usable certificate: ")


# close_notify


class Watcher(asyncio.BufferedProtocol):
    """Ask ``is_clean_eof`` at the very end, as a connection would."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._buffer = memoryview(bytearray(65536))

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, n: int) -> None:
        self.received += self._buffer[:n]

    def eof_received(self) -> None:
        self.finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self.finish()

    def finish(self) -> None:
        if not self.ended.done():
            clean = is_clean_eof(self.transport.get_extra_info("ssl_object"))
            self.ended.set_result(clean)


async def watch(certificates, script, version, pause="no"):
    """Connect, and let *script* run while reading is paused on TLS, on TCP or not at all."""
    loop = asyncio.get_running_loop()
    ready, go, sent = asyncio.Event(), asyncio.Event(), asyncio.Event()

    server_context = certificates.server_for(maximum_version=version)
    steps = [notify(ready), wait(go), *script, notify(sent)]
    async with ScriptedServer(steps, tls=server_context) as server:
        raw, _ = await loop.create_connection(asyncio.Protocol, *server.address)
        watcher = Watcher()
        transport = await loop.start_tls(
            raw, watcher, certificates.client, server_hostname="localhost"
        )
        watcher.connection_made(transport)
        await ready.wait()
        paused = {"no": None, "tls": transport, "tcp": raw}[pause]
        if paused is not None:
            paused.pause_reading()
        go.set()
        await sent.wait()
        if paused is not None:
            for _ in range(20):
                await asyncio.sleep(0)
            if not watcher.ended.done():
                paused.resume_reading()
        clean = await watcher.ended
        transport.abort()
        return clean, bytes(watcher.received)


async def close_notify_and_fin_in_one_segment(conn) -> None:
    conn.tls.write(b"data")
    with pytest.raises(ssl.SSLWantReadError):
        conn.tls.unwrap()
    conn.sock.send(conn._outgoing.read())
    await conn.close(notify=False)


CLEAN = {
    "close_notify": [send(b"data"), close()],
    "one-segment": [close_notify_and_fin_in_one_segment],
    "close_notify-rst": [send(b"data"), close(), reset()],
}
TRUNCATED = {
    "fin": [send(b"data"), close(notify=False)],
    "rst": [send(b"data"), reset()],
}
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("pause", ["no", "tcp"])
@pytest.mark.parametrize("script", CLEAN.values(), ids=CLEAN)
async def test_close_notify_is_a_clean_end(certificates, script, pause, version):
    assert await watch(certificates, script, version, pause) == (True, b"data")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("pause", ["no", "tcp"])
@pytest.mark.parametrize("script", TRUNCATED.values(), ids=TRUNCATED)
async def test_an_end_without_close_notify_is_truncation(certificates, script, pause, version):
    clean, received = await watch(certificates, script, version, pause)
    assert clean is False
    assert received in (b"data", b"")  # RST may overtake data that is not read yet


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("script", [*CLEAN.values(), *TRUNCATED.values()], ids=CLEAN | TRUNCATED)
async def test_what_the_loop_throws_away_is_never_a_clean_end(certificates, script, version):
    clean, received = await watch(certificates, script, version, "tls")
    assert received == b"data" or not clean


@pytest.mark.parametrize("nothing", [None, object(), ssl.MemoryBIO()])
def test_no_tls_object_is_no_clean_end(nothing):
    if isinstance(nothing, ssl.MemoryBIO):
        nothing = ssl.create_default_context().wrap_bio(
            nothing, ssl.MemoryBIO(), server_hostname="x"
        )
    assert is_clean_eof(nothing) is False


# Names


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("example.com", "example.com"),
        ("example.com.", "example.com"),
        ("Bücher.test", "xn--bcher-kva.test"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("under_score.test", "under_score.test"),
    ],
)
def test_the_name_that_tls_verifies(host, name):
    assert tls_name(host) == name


@pytest.mark.parametrize("host", ["", ".", ".a", "a b", "a\0", "a\n", "a..b", "x" * 64, "ü" * 64])
def test_a_name_that_tls_cannot_verify(host):
    with pytest.raises(ValueError, match=r"^TLS (needs a server name|cannot verify)"):
        tls_name(host)


# Failures: the common ones happen for real in test_dial.py


def test_the_original_error_is_kept():
    original = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)")
    original.reason = "WRONG_VERSION_NUMBER"
    original.library = "SSL"
    error = handshake_error(original, "a.test")
    assert type(error) is TLSError
    assert error.args == ("the server did not answer with TLS (wrong version number)",)
    assert error.hint == "The server may be speaking plain HTTP on this port: try http://"
    assert (error.errno, error.reason, error.library) == (1, "WRONG_VERSION_NUMBER", "SSL")
    assert error.errors == (original,)


@pytest.mark.parametrize(
    ("code", "message", "text", "hint"),
    [
        (
            20,
            "unable to get local issuer certificate",
            "the certificate of the server cannot be verified for 'a.test': "
            "unable to get local issuer certificate",
            "If the server's certificate comes from a private CA",
        ),
        (
            62,
            "Hostname mismatch, certificate is not valid for 'a.test'.",
            "the certificate of the server cannot be verified for 'a.test': "
            "hostname mismatch, certificate is not valid for 'a.test'",
            "The URL or server_hostname= asks for 'a.test'",
        ),
        (
            9,
            "certificate is not yet valid",
            "the certificate of the server cannot be verified for 'a.test': "
            "certificate is not yet valid",
            "Is this computer's clock right?",
        ),
        (
            23,
            "certificate revoked",
            "the certificate of the server cannot be verified for 'a.test': certificate revoked",
            "",
        ),
    ],
)
def test_verification_failures(code, message, text, hint):
    original = ssl.SSLCertVerificationError(1, "x")
    original.verify_code = code
    original.verify_message = message
    error = handshake_error(original, "a.test")
    assert type(error) is CertificateError
    assert error.args == (text,)
    assert error.hint.startswith(hint)
    assert bool(error.hint) == bool(hint)
    assert (error.verify_code, error.verify_message) == (code, message)


@pytest.mark.parametrize("original", [ssl.SSLEOFError(8, "eof"), ConnectionResetError(104, "x")])
def test_a_connection_that_ends(original):
    error = handshake_error(original, "a.test", "the proxy")
    assert type(error) is TLSError
    assert error.args == ("the proxy closed the connection during the TLS handshake",)
    assert error.errno == original.errno
