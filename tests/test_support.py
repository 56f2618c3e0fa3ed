"""The tests' tools beside the kit: what they promise must hold, or other tests prove nothing."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from aiohttpconn.testing import ScriptedServer, close, expect, refusing_address, reset, send

from .support import ConnectProxy

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


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


async def ask(server: ScriptedServer, **keywords) -> bytes:
    """Send HEAD, and return all that comes."""
    reader, writer = await asyncio.open_connection(*server.address, **keywords)
    writer.write(HEAD)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_the_right_certificate_is_accepted(certificates):
    async with ScriptedServer([expect(), close()], tls=certificates.server) as server:
        for name in ("localhost", "127.0.0.1", "::1"):
            assert await ask(server, ssl=certificates.client, server_hostname=name) == b""


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
            await ask(server, ssl=certificates.client, server_hostname="localhost")


async def test_mutual_tls(certificates):
    async with ScriptedServer([expect(), close()], tls=certificates.mutual) as server:
        context = certificates.client_with_certificate
        assert await ask(server, ssl=context, server_hostname="localhost") == b""
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
