"""Facts about TLS, on sockets and responses; ``server_hostname=``; pinned certificates."""

from __future__ import annotations

import asyncio
import pickle
import socket
import ssl
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from aiohttpconn import (
    CertificateError,
    Client,
    ConnectionPool,
    HTTPConnection,
    HTTPSConnection,
    Retry,
    TLSInfo,
    dial,
)
from aiohttpconn.net.tls import read_fingerprint
from aiohttpconn.testing import Reply, ScriptedServer, read_all, serve

from .support import ConnectProxy
from .support.pooled import fetch
from .support.proxies import Socks5Proxy

if TYPE_CHECKING:
    from .support.tls import Certificates

WRONG = "ab" * 32


def digest_of(context: ssl.SSLContext) -> str:
    """Return the fingerprint of a server's certificate, as any other client sees it."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname = False
    anyone.verify_mode = ssl.CERT_NONE
    client = anyone.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    der = client.getpeercert(True)
    assert der is not None
    return sha256(der).hexdigest()


@pytest.fixture
def tls(certificates: Certificates) -> dict[str, Any]:
    return {"context": certificates.client}


# conn.sock


async def test_the_sock_of_a_connection_answers_for_tls(certificates):
    context = certificates.server_for(alpn=["http/1.1"])
    client = certificates.client_for()
    client.set_alpn_protocols(["http/1.1"])
    async with serve({"/": "hi"}, tls=context) as server:
        async with HTTPSConnection("localhost", server.port, context=client) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            sock = conn.sock
            assert ("DNS", "localhost") in sock.getpeercert()["subjectAltName"]
            assert sha256(sock.getpeercert(binary_form=True)).hexdigest() == digest_of(context)
            assert sock.cipher()[1] == "TLSv1.3"
            assert sock.version() == "TLSv1.3"
            assert sock.selected_alpn_protocol() == "http/1.1"
            assert sock.server_hostname == "localhost"
            assert sock.server_side is False
            assert sock.session_reused is False
            assert sock.context.verify_mode == ssl.CERT_REQUIRED
            assert sock.shared_ciphers() is None or isinstance(sock.shared_ciphers(), list)
            assert sock.compression() is None
            assert sock.pending() >= 0
            assert isinstance(sock.get_channel_binding("tls-unique"), bytes)
            # And for TCP.
            assert sock.getpeername() == ("127.0.0.1", server.port)
            assert sock.getsockname()[0] == "127.0.0.1"
            assert sock.fileno() > 0
            assert repr(sock).startswith("<TLSSocket TLSv1.3 <")
            await response.read()
            # It is the same one as long as the connection is.
            assert conn.sock is sock
            await conn.request("GET", "/")
            await (await conn.getresponse()).read()
            assert conn.sock is sock
            conn.close()
            assert conn.sock is None
            await conn.connect()
            assert conn.sock is not sock
            assert len({sock, conn.sock}) == 2


@pytest.mark.parametrize("name", ["read", "write", "unwrap", "do_handshake", "no_such_name"])
async def test_the_sock_does_not_read_or_write(certificates, tls, name):
    async with ScriptedServer([read_all()], tls=certificates.server) as server:
        async with HTTPSConnection("localhost", server.port, **tls) as conn:
            await conn.connect()
            with pytest.raises(AttributeError):
                getattr(conn.sock, name)


async def test_a_leased_connection_answers_too(certificates, tls):
    async with serve({"/": "hi"}, tls=certificates.server) as server:
        async with ConnectionPool(**tls) as pool:
            async with pool.connection(f"https://localhost:{server.port}/") as conn:
                assert conn.sock.version() == "TLSv1.3"


async def test_without_tls_the_sock_is_the_transports():
    async with serve({"/": "hi"}) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            await conn.connect()
            assert not hasattr(conn.sock, "getpeercert")


# response.tls


def check(info: TLSInfo | None, digest: str) -> None:
    assert info is not None
    assert (info.version(), info.selected_alpn_protocol()) == ("TLSv1.3", None)
    assert info.cipher()[1] == "TLSv1.3"
    assert ("DNS", "localhost") in info.getpeercert()["subjectAltName"]
    assert sha256(info.getpeercert(True)).hexdigest() == info.fingerprint == digest
    assert info.server_hostname == "localhost"
    assert repr(info) == f"<TLSInfo TLSv1.3 {info.cipher()[0]} localhost>"


@pytest.mark.parametrize("end", ["keep-alive", "close"])
async def test_a_response_has_the_facts_also_after_the_end(certificates, tls, end):
    reply = Reply(body=b"hi", headers={"Connection": end})
    digest = digest_of(certificates.server)
    async with serve({"/": reply}, tls=certificates.server) as server:
        url = f"https://localhost:{server.port}/"
        async with Client(proxy=None, **tls) as client:
            response = await client.get(url)
            if end == "keep-alive":
                check(response.tls, digest)
                assert response.tls is response.raw.tls
            async with client.stream("GET", url) as streamed:
                check(streamed.tls, digest)
                await streamed.read()
        check(response.tls, digest)
        async with HTTPSConnection("localhost", server.port, **tls) as conn:
            await conn.request("GET", "/")
            raw = await conn.getresponse()
            await raw.read()
        check(raw.tls, digest)
        check(pickle.loads(pickle.dumps(raw.tls)), digest)
        check(pickle.loads(pickle.dumps(response)).tls, digest)


async def test_a_response_says_whether_its_session_was_resumed(certificates):
    context = certificates.client_for()
    async with serve({"/": "hi"}, tls=certificates.server_for()) as server:
        seen = []
        for _ in range(2):
            async with Client(proxy=None, context=context) as client:
                response = await client.get(f"https://localhost:{server.port}/")
                seen.append(response.tls.session_reused)
                assert response.tls.getpeercert()
        assert seen == [False, True]


async def test_a_server_that_is_not_verified_has_an_empty_certificate(certificates):
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    async with serve({"/": "hi"}, tls=certificates.self_signed) as server:
        async with Client(proxy=None, context=unverified) as client:
            response = await client.get(f"https://localhost:{server.port}/")
            assert response.tls.getpeercert() == {}
            assert response.tls.fingerprint == digest_of(certificates.self_signed)


async def test_http_has_no_tls_whatever_the_way_to_its_proxy(certificates, tls):
    async with serve({"/": "hi"}) as server, Client(proxy=None) as client:
        response = await client.get(server.url)
        assert response.tls is None
        assert pickle.loads(pickle.dumps(response)).tls is None
        assert response.raw.tls is None
    proxied = serve(lambda request: "from the proxy", tls=certificates.server)
    async with proxied as proxy:
        through = f"https://localhost:{proxy.port}"
        async with Client(proxy=through, proxy_context=tls["context"]) as client:
            response = await client.get("http://some.test/")
            assert (response.text, response.tls) == ("from the proxy", None)


# server_hostname


async def test_server_hostname_of_a_request(certificates, tls):
    """It is verified, and each name has connections of its own."""
    async with serve({"/": "hi"}, tls=certificates.wrong_host) as server:
        url = f"https://localhost:{server.port}/"
        async with Client(proxy=None, **tls) as client:
            with pytest.raises(CertificateError, match="for 'localhost'"):
                await client.get(url)
            response = await client.get(url, server_hostname="wrong.example")
            assert response.tls.server_hostname == "wrong.example"
            with pytest.raises(CertificateError, match="for 'localhost'"):
                await client.get(url)
            [request] = server.requests
            assert request.headers["Host"] == f"localhost:{server.port}"
        async with Client(proxy=None, server_hostname="wrong.example", **tls) as client:
            for _ in range(2):
                assert (await client.get(url)).status == 200


async def test_server_hostname_is_not_for_the_server_that_a_redirect_leads_to(certificates, tls):
    async with serve({"/": "there"}, tls=certificates.server) as other:
        moved = Reply(status=302, headers={"Location": f"https://localhost:{other.port}/"})
        async with serve({"/": moved}, tls=certificates.wrong_host) as server:
            async with Client(proxy=None, server_hostname="wrong.example", **tls) as client:
                response = await client.get(f"https://localhost:{server.port}/")
                assert response.text == "there"
                assert response.tls.server_hostname == "localhost"


# Pinned certificates


@pytest.mark.parametrize("form", ["hex", "colons", "bytes"])
async def test_the_right_certificate(certificates, tls, form):
    pin = digest_of(certificates.server)
    given: Any = {
        "hex": pin,
        "colons": bytes.fromhex(pin).hex(":").upper(),
        "bytes": bytes.fromhex(pin),
    }[form]
    async with serve({"/": "hi"}, tls=certificates.server) as server:
        url = f"https://localhost:{server.port}/"
        async with HTTPSConnection("localhost", server.port, fingerprint=given, **tls) as conn:
            await conn.request("GET", "/")
            assert await (await conn.getresponse()).read() == b"hi"
        async with ConnectionPool(fingerprint=given, **tls) as pool:
            assert await fetch(pool, url) == b"hi"
        async with Client(proxy=None, fingerprint=given, **tls) as client:
            assert (await client.get(url)).text == "hi"
        async with Client(proxy=None, **tls) as client:
            assert (await client.get(url, fingerprint=given)).text == "hi"


@pytest.mark.parametrize("resumes", [False, True])
async def test_another_certificate_is_an_error_before_a_request_T16(certificates, resumes):
    tls = {"context": certificates.client_for()}
    context = certificates.server_for()
    text = (
        f"the certificate of the server has the fingerprint {digest_of(context)}, "
        rf"expected fingerprint={WRONG} \(tls, .*\)\. If the server has a new certificate"
    )
    async with serve({"/": "hi"}, tls=context) as server:
        url = f"https://localhost:{server.port}/"
        if resumes:  # sessions that were made without a pin, and with the right one
            for pin in (None, digest_of(context)):
                async with Client(proxy=None, fingerprint=pin, **tls) as client:
                    await client.get(url)
            server.requests.clear()
        for _ in range(2):
            async with HTTPSConnection("localhost", server.port, fingerprint=WRONG, **tls) as conn:
                with pytest.raises(CertificateError, match=rf"^GET {url}: {text}"):
                    await conn.request("GET", "/")
            async with ConnectionPool(fingerprint=WRONG, **tls) as pool:
                with pytest.raises(CertificateError, match=rf"^GET {url}: {text}") as info:
                    await fetch(pool, url)
                assert pool.stats().open == 0
            async with Client(proxy=None, fingerprint=WRONG, retry=Retry(), **tls) as client:
                with pytest.raises(CertificateError, match=rf"^GET {url}: {text}"):
                    await client.get(url)
        assert isinstance(info.value, ssl.SSLCertVerificationError)
        assert server.requests == []
        assert [conn.received for conn in server.conns[2 * resumes :]] == [b""] * 6


async def test_a_resumed_session_is_checked_too(certificates):
    context, tls = certificates.server_for(), {"context": certificates.client_for()}
    pin = digest_of(context)
    async with serve({"/": "hi"}, tls=context) as server:
        url, seen = f"https://localhost:{server.port}/", []
        for _ in range(2):
            async with Client(proxy=None, fingerprint=pin, **tls) as client:
                seen.append((await client.get(url)).tls.session_reused)
        assert seen == [False, True]
        # No session of another pin is resumed: it would have the certificate of then.
        async with Client(proxy=None, **tls) as client:
            assert (await client.get(url)).tls.session_reused is False


async def test_connections_of_another_pin_are_not_used(certificates, tls):
    pin = digest_of(certificates.server)
    async with serve({"/": "hi"}, tls=certificates.server) as server:
        url = f"https://localhost:{server.port}/"
        async with Client(proxy=None, **tls) as client:
            await client.get(url)
            with pytest.raises(CertificateError):
                await client.get(url, fingerprint=WRONG)
            await client.get(url, fingerprint=pin)
            await client.get(url, fingerprint=bytes.fromhex(pin))
            await client.get(url)
            assert len([conn for conn in server.conns if conn.heads]) == 2


async def test_the_rest_is_verified_as_well(certificates):
    async with ScriptedServer([read_all()], tls=certificates.self_signed) as server:
        pin = digest_of(certificates.self_signed)
        async with Client(proxy=None, fingerprint=pin) as client:
            with pytest.raises(CertificateError, match=r"(?i)self.signed certificate"):
                await client.get(f"https://localhost:{server.port}/")


async def test_a_pin_is_enough_for_a_context_that_verifies_nothing(certificates):
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    async with serve({"/": "hi"}, tls=certificates.self_signed) as server:
        url = f"https://localhost:{server.port}/"
        async with Client(proxy=None, context=unverified) as client:
            pin = digest_of(certificates.self_signed)
            assert (await client.get(url, fingerprint=pin)).text == "hi"
            with pytest.raises(CertificateError, match="expected fingerprint"):
                await client.get(url, fingerprint=WRONG)


@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h"])
async def test_a_pin_is_for_the_origin_and_not_for_its_proxy(certificates, tls, scheme):
    context = certificates.server_for()
    pin = digest_of(context)
    async with serve({"/": "hi"}, tls=context) as server:
        url = f"https://localhost:{server.port}/"
        own = {"tls": certificates.server} if scheme == "https" else {}
        async with (Socks5Proxy if "socks" in scheme else ConnectProxy)(**own) as proxy:
            through = f"{scheme}://localhost:{proxy.port}"
            options = {"fingerprint": pin, "proxy_context": tls["context"], **tls}
            options["resolve"] = {"localhost": "127.0.0.1"}
            async with Client(proxy=through, **options) as client:
                assert (await client.get(url)).text == "hi"
                with pytest.raises(CertificateError, match="expected fingerprint"):
                    await client.get(url, fingerprint=WRONG)
            assert len(server.requests) == 1


async def test_a_pin_follows_redirects(certificates, tls):
    """It fails rather than trusts a server that is not the pinned one."""
    async with serve({"/": "there"}, tls=certificates.server_for()) as other:
        moved = Reply(status=302, headers={"Location": f"https://localhost:{other.port}/"})
        async with serve({"/": moved}, tls=certificates.server) as server:
            pin = digest_of(certificates.server)
            async with Client(proxy=None, fingerprint=pin, **tls) as client:
                with pytest.raises(CertificateError, match="expected fingerprint"):
                    await client.get(f"https://localhost:{server.port}/")
        assert other.requests == []


async def test_http_has_nothing_to_pin():
    async with serve({"/": "hi"}) as server:
        async with Client(proxy=None, fingerprint=WRONG, server_hostname="a.test") as client:
            assert (await client.get(server.url)).text == "hi"
            await client.get(server.url, fingerprint=None)
        assert server.connections == 1


@pytest.mark.parametrize("does_tls", [False, True])
async def test_a_dialer_of_its_own_way_is_checked(certificates, tls, does_tls):
    context = certificates.server if does_tls else None
    async with serve({"/": "hi"}, tls=context) as server:

        async def own(factory: Any, destination: Any, report: Any) -> Any:
            loop, context = asyncio.get_running_loop(), destination.context if does_tls else None
            return await loop.create_connection(
                factory, "localhost", server.port, ssl=context, family=socket.AF_INET
            )

        async with Client(proxy=None, dialer=own, **tls) as client:
            url = f"https://localhost:{server.port}/"
            found = "has the fingerprint .*" if does_tls else "is missing"
            with pytest.raises(CertificateError, match=f"of the server {found}, expected"):
                await client.get(url, fingerprint=WRONG)
            assert server.requests == []
            if does_tls:
                pin = digest_of(certificates.server)
                assert (await client.get(url, fingerprint=pin)).text == "hi"


async def test_a_dialer_cannot_lose_the_pin(certificates, tls):
    async def forgetful(factory: Any, destination: Any, report: Any) -> Any:
        return await dial(factory, replace(destination, fingerprint=None), report)

    async with ScriptedServer([read_all()], tls=certificates.server) as server:
        async with Client(proxy=None, dialer=forgetful, **tls) as client:
            with pytest.raises(CertificateError, match="expected fingerprint"):
                await client.get(f"https://localhost:{server.port}/", fingerprint=WRONG)


@pytest.mark.parametrize("given", ["", "ab", "ab" * 20, "xy" * 32, b"ab" * 32, WRONG + "00"])
def test_what_is_no_fingerprint(given):
    text = "^fingerprint must be the SHA-256 of a certificate: 64 hexadecimal digits"
    with pytest.raises(ValueError, match=text):
        read_fingerprint(given)
    for make in (HTTPSConnection, lambda *_, **options: Client(**options)):
        with pytest.raises(ValueError, match=text):
            make("a.test", fingerprint=given)
    with pytest.raises(ValueError, match=text):
        ConnectionPool(fingerprint=given)


def test_a_fingerprint_is_text_or_bytes():
    with pytest.raises(TypeError, match=r"^fingerprint must be a str or bytes, not int$"):
        Client(fingerprint=3)
