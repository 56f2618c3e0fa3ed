"""uvicorn and hypercorn: streams both ways, answers that come early, upgrades they refuse."""

from __future__ import annotations

import pytest

from aiohttpconn import Client, ConnectionPool, Timeout, WriteTimeout

MIB = 1024 * 1024

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture(params=["uvicorn", "hypercorn"])
def application(request):
    """Return each of the application servers."""
    return request.getfixturevalue(request.param)


both_schemes = pytest.mark.parametrize("scheme", ["http", "https"])


@pytest.fixture
async def client(certificates):
    async with Client(trust_env=False, cafile=certificates.ca_file) as client:
        yield client


@both_schemes
async def test_a_response_is_read_while_it_is_made(application, client, scheme):
    base = getattr(application, scheme)
    async with client.stream("GET", f"{base}/app/gate") as response:
        pieces = response.iter_bytes()
        assert await anext(pieces) == b"begun"
        await client.get(f"{base}/app/open")
        assert [piece async for piece in pieces] == [b"ended"]


@both_schemes
async def test_a_body_is_received_while_it_is_made(application, client, scheme):
    base = getattr(application, scheme)

    async def body():
        for number in range(1, 4):
            yield bytes(1000)
            await client.get(f"{base}/app/received?{number * 1000}")

    response = await client.post(f"{base}/app/receive", content=body())
    assert (response.status, response.content) == (200, b"received")


@both_schemes
async def test_a_body_comes_back_while_it_is_sent(application, client, scheme):
    # No more than the kernel holds: what is received meanwhile is not read yet.
    data = b"".join(b"%07d\n" % number for number in range(MIB // 16))
    response = await client.post(f"{getattr(application, scheme)}/app/mirror", content=data)
    assert response.content == data


@pytest.mark.xfail(
    reason="a body is sent whole before its response is read", raises=WriteTimeout, strict=True
)
async def test_more_comes_back_than_the_kernel_holds(application):
    async with Client(trust_env=False, timeout=Timeout(write=0.2)) as client:
        response = await client.post(f"{application.http}/app/mirror", content=bytes(64 * MIB))
        assert len(response.content) == 64 * MIB


# hypercorn resets its TLS connections behind such an answer, and what comes before a write that
# fails, no event loop delivers.
@pytest.mark.parametrize(
    ("name", "scheme"), [("uvicorn", "http"), ("uvicorn", "https"), ("hypercorn", "http")]
)
@pytest.mark.parametrize("path", ["refuse", "halfway"])
@pytest.mark.parametrize("expect", [False, True], ids=["at once", "expect"])
async def test_an_answer_comes_before_the_body_has(
    request, certificates, name, scheme, path, expect
):
    base = getattr(request.getfixturevalue(name), scheme)
    headers = {"Expect": "100-continue"} if expect else {}
    # They end the connection, and do not say so: another POST might meet it.
    async with Client(trust_env=False, cafile=certificates.ca_file, max_requests=1) as client:
        for _ in range(3):
            response = await client.post(
                f"{base}/app/{path}", content=bytes(2 * MIB), headers=headers
            )
            assert response.status == 413
            assert response.content == {"refuse": b"too much", "halfway": b"enough"}[path]
        assert (await client.get(f"{base}/app/n/1")).content == b"1"


async def test_an_endless_upload_stops_when_it_is_refused(application, client):
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            sent += 1
            yield bytes(65536)

    response = await client.post(f"{application.http}/app/halfway", content=endless())
    assert response.status == 413
    assert client.stats().leased == 0
    once = sent
    await client.get(f"{application.http}/app/n/1")
    assert sent == once


@both_schemes
async def test_a_websocket_is_refused(application, certificates, scheme):
    base = getattr(application, scheme)
    async with ConnectionPool(cafile=certificates.ca_file) as pool:
        async with pool.connection(base) as conn:
            await conn.request("GET", "/app/n/1", headers=UPGRADE)
            response = await conn.getresponse()
            assert (response.status, await response.read()) == (403, b"")
        # Both end the connection, and uvicorn does not say so.
        response = await pool.request("GET", f"{base}/app/n/2")
        assert await response.read() == b"2"
        assert response.number == 1
        assert pool.stats().open == 1
