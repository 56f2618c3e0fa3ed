"""TLS of real servers: versions, ALPN, resumption, verification."""

from __future__ import annotations

import hashlib
import ssl

import pytest

from aiohttpconn import CertificateError, Client, ConnectionPool

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]

both_versions = pytest.mark.parametrize("version", VERSIONS, ids=["tls1.2", "tls1.3"])


def context_for(certificates, version, *alpn: str) -> ssl.SSLContext:
    context = certificates.client_for()
    context.minimum_version = context.maximum_version = version
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


@both_versions
async def test_a_version_and_http11_are_agreed_on(origin, certificates, version):
    # All but uvicorn speak HTTP/2 as well.
    context = context_for(certificates, version, "http/1.1")
    async with ConnectionPool(context=context) as pool:
        async with pool.connection(origin.https) as conn:
            await conn.request("GET", "/app/n/7")
            assert await (await conn.getresponse()).read() == b"7"
            tls = conn._protocol.get_extra_info("ssl_object")
            assert tls.version() == version.name.replace("_", ".")
            assert tls.selected_alpn_protocol() == (
                None if origin.name == "uvicorn" else "http/1.1"
            )
        assert pool.stats().idle == 1


@both_versions
async def test_sessions_are_resumed(origin, certificates, version):
    async with ConnectionPool(context=context_for(certificates, version), max_requests=1) as pool:
        reused = []
        for _ in range(3):
            async with pool.connection(origin.https) as conn:
                await conn.request("GET", "/app/n/7")
                assert await (await conn.getresponse()).read() == b"7"
                reused.append(conn.session_reused)
        assert reused == [False, True, True]


async def test_an_authority_that_is_trusted(origin, certificates):
    async with Client(trust_env=False, cafile=certificates.ca_file) as client:
        for number in range(5):
            response = await client.get(f"{origin.https}/app/n/{number}")
            assert (response.content, response.reused) == (b"%d" % number, number > 0)
        large = await client.get(f"{origin.https}/app/chunks?2000")
        assert len(large.content) == 2_000_000
        assert client.stats().open == 1


async def test_an_authority_that_is_not_trusted(origin):
    async with Client(trust_env=False) as client:
        with pytest.raises(CertificateError, match="unable to get local issuer certificate"):
            await client.get(f"{origin.https}/app/n/1")
        assert client.stats().open == 0


async def test_uploads(origin, certificates):
    async with Client(trust_env=False, cafile=certificates.ca_file) as client:
        response = await client.post(f"{origin.https}/app/echo", content=bytes(1024 * 1024))
        assert response.json()["length"] == 1024 * 1024


async def test_a_large_file(file_server, certificates, site):
    async with Client(trust_env=False, cafile=certificates.ca_file) as client:
        response = await client.get(f"{file_server.https}/big.bin")
        assert hashlib.sha256(response.content).hexdigest() == site.digest
