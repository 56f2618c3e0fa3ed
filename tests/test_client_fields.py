"""Fields that a client's request gets from its defaults and its body, and how they are removed."""

from __future__ import annotations

import asyncio
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from aiohttpconn import Basic, Client, Digest, Retry, Timeout, TotalTimeout
from aiohttpconn.testing import Reply, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SHORT: dict[str, Any] = {}
LONG: dict[str, Any] = {"retry": Retry()}
"""Options with which a request is a plain one, and with which it is not."""

DEFAULTS = ["Host", "Connection", "Accept-Encoding", "Accept", "User-Agent"]


async def names_sent(client: Client, server: Any, method: str = "GET", **options: Any) -> list[str]:
    """Send three requests, the last on the short way where there is one; return its fields."""
    for _ in range(3):
        await client.request(method, server.url, **options)
    assert len({tuple(request.headers.keys()) for request in server.requests[-2:]}) == 1
    return [*server.requests[-1].headers.keys()]


# -------------------------------------------------------------------------- None removes


@pytest.mark.parametrize("options", [SHORT, LONG], ids=["short", "long"])
@pytest.mark.parametrize("name", ["Connection", "Accept-Encoding", "Accept", "User-Agent"])
async def test_none_removes_a_default_field(name, options):
    rest = [each for each in DEFAULTS if each != name]
    async with serve(lambda request: "") as server:
        async with Client(trust_env=False, headers={name.lower(): None}) as client:
            assert await names_sent(client, server, **options) == rest
            assert await names_sent(client, server, headers={"X-A": "1"}, **options) == [
                *rest,
                "X-A",
            ]
            # A request may have it again.
            with_own = {"headers": {name: "keep-alive"}, **options}
            assert sorted(await names_sent(client, server, **with_own)) == sorted(DEFAULTS)
        async with Client(trust_env=False) as client:
            assert await names_sent(client, server, headers={name: None}, **options) == rest
            assert await names_sent(client, server, **options) == DEFAULTS
            with_body = {"headers": {name: None}, "content": b"x", **options}
            assert sorted(await names_sent(client, server, "POST", **with_body)) == sorted(
                [*rest, "Content-Length"]
            )


async def test_none_removes_all_of_them():
    removed = dict.fromkeys(DEFAULTS[1:])
    async with serve(lambda request: "") as server:
        async with Client(trust_env=False, headers=removed) as client:
            assert await names_sent(client, server) == ["Host"]
            assert await names_sent(client, server, decompress=False) == ["Host"]
            iterator = {"content": iter([b"x"]), "headers": {"Accept": "text/x"}}
            await client.post(server.url, **iterator)
            assert [*server.requests[-1].headers.keys()] == ["Host", "Transfer-Encoding", "Accept"]


async def test_a_hook_removes_a_default_field():
    def hook(request: Any) -> None:
        del request.headers["Accept-Encoding"]
        request.headers.override({"Connection": None})

    async with serve(lambda request: "") as server:
        async with Client(trust_env=False, on_request=hook) as client:
            assert await names_sent(client, server) == ["Host", "Accept", "User-Agent"]


@pytest.mark.parametrize("body", [{"json": 1}, {"data": {"a": 1}}, {"content": "x"}])
@pytest.mark.parametrize("options", [SHORT, LONG], ids=["short", "long"])
async def test_none_removes_the_type_of_a_body(body, options):
    async with serve(lambda request: "") as server, Client(trust_env=False) as client:
        sent = {**body, **options}
        assert "Content-Type" in await names_sent(client, server, "POST", **sent)
        sent["headers"] = {"content-type": None}
        assert "Content-Type" not in await names_sent(client, server, "POST", **sent)


@pytest.mark.parametrize("auth", [("user", "password"), Basic("user", "password")])
async def test_none_removes_credentials(auth):
    async with serve(lambda request: Reply(status=401, headers={"WWW-Authenticate": "Basic"})) as s:
        async with Client(trust_env=False, auth=auth) as client:
            assert "Authorization" in await names_sent(client, s)
            assert await names_sent(client, s, headers={"Authorization": None}) == DEFAULTS
            url = s.url.replace("http://", "http://u:p@")
            await client.get(url, headers={"Authorization": None})
            assert s.requests[-1].headers["Authorization"] is None
            digest = {"auth": Digest("user", "password"), "headers": {"authorization": None}}
            assert await names_sent(client, s, **digest) == DEFAULTS


@pytest.mark.parametrize("options", [SHORT, LONG], ids=["short", "long"])
async def test_none_removes_cookies(options):
    set_cookie = Reply(headers={"Set-Cookie": "a=1; Path=/"})
    async with serve(lambda request: set_cookie) as server, Client(trust_env=False) as client:
        assert "Cookie" in await names_sent(client, server, **options)
        assert "Cookie" not in await names_sent(client, server, headers={"Cookie": None}, **options)
        assert "Cookie" in await names_sent(client, server, **options)


async def test_a_redirect_removes_no_default():
    def answer(request: Any) -> Any:
        if request.path == "/":
            return Reply(status=302, headers={"Location": "http://localhost:1/".replace("1", port)})
        return Reply(headers={"Set-Cookie": "b=2"})

    async with serve(answer) as server, Client(trust_env=False, resolve=RESOLVE) as client:
        port = server.url.rsplit(":", 1)[1].strip("/") + "/x#"
        await client.get(f"http://localhost:{port.partition('/')[0]}/x")
        headers = {"Cookie": "own=1", "Content-Type": "text/x"}
        await client.get(server.url, headers=headers)
        last = server.requests[-1]
        # Its own cookie was for the first origin; the second has one of its own.
        assert last.headers["Cookie"] == "b=2"
        assert [name for name in last.headers if name in DEFAULTS] == DEFAULTS


RESOLVE = {"localhost": "127.0.0.1"}


# ------------------------------------------------------------------------------ multipart


@pytest.mark.parametrize(
    ("own", "sent"),
    [
        ("multipart/form-data", "multipart/form-data; boundary={}"),
        ("Multipart/Form-Data; charset=utf-8;", "Multipart/Form-Data; charset=utf-8; boundary={}"),
        ("multipart/mixed", "multipart/mixed; boundary={}"),
        ("multipart/form-data; boundary=own-1", "multipart/form-data; boundary=own-1"),
        (
            'multipart/x; Boundary="own 1"; a=b',
            'multipart/x; Boundary="own 1"; a=b',
        ),
        ("application/x-own", "application/x-own"),
    ],
)
async def test_a_content_type_of_the_caller_s_has_the_boundary_of_the_form(own, sent):
    async with serve(lambda request: "") as server:
        async with Client(trust_env=False, headers={"content-type": own}) as client:
            await client.post(server.url, files={"f": b"x"})
        async with Client(trust_env=False) as client:
            await client.post(server.url, files={"f": b"x"}, headers={"Content-Type": own})
        for request in server.requests:
            boundary = request.body[2 : request.body.index(b"\r\n")].decode()
            assert request.headers["Content-Type"] == sent.format(boundary)
            assert request.headers.get_all("Content-Type") == [sent.format(boundary)]
            assert request.body.endswith(f"--{boundary}--\r\n".encode())
            assert ("own" in boundary) == (boundary in own)


async def test_a_boundary_that_no_form_can_have_is_an_error():
    async with Client(trust_env=False) as client:
        for boundary in ('"own "', "ö" * 3, "x" * 71):
            headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
            with pytest.raises(ValueError, match="a boundary must be 1 to 70 letters"):
                await client.post("http://127.0.0.1:1/", files={"f": b"x"}, headers=headers)


# ------------------------------------------------------------------------ empty iterables


async def no_items() -> AsyncIterator[bytes]:
    for _ in ():
        yield b""


async def items(*blocks: bytes) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block


def generated(*blocks: bytes) -> Iterator[bytes]:
    yield from blocks


class Pipe:
    """A file of unknown length."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        return self._file.read(size)


EMPTY = {
    "iterator": lambda: iter([]),
    "generator": generated,
    "blocks without bytes": lambda: generated(b"", b""),
    "async generator": no_items,
    "file": lambda: Pipe(b""),
    "set": set,
}


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("name", EMPTY)
async def test_a_body_that_yields_nothing_is_no_body(name, method):
    async with serve(lambda request: "") as server, Client(trust_env=False) as client:
        for options in (SHORT, LONG):
            await client.request(method, server.url, content=EMPTY[name](), **options)
            assert [*server.requests[-1].headers.keys()] == DEFAULTS


@pytest.mark.parametrize("name", EMPTY)
async def test_a_method_with_a_body_sends_an_empty_one(name):
    async with serve(lambda request: "") as server, Client(trust_env=False) as client:
        await client.post(server.url, content=EMPTY[name]())
        assert server.requests[-1].headers["Transfer-Encoding"] == "chunked"
        headers = {"Transfer-Encoding": "chunked"}
        await client.request("DELETE", server.url, content=EMPTY[name](), headers=headers)
        assert server.requests[-1].headers["Transfer-Encoding"] == "chunked"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_body_that_yields_something_is_sent_whole(method):
    large = b"x" * 300_000
    async with serve(lambda request: "") as server, Client(trust_env=False) as client:
        for content, body in (
            (iter([b"", b"ab", b"c"]), b"abc"),
            (generated(large, b"", large), large * 2),
            (items(b"a", b"b"), b"ab"),
            (Pipe(large), large),
        ):
            await client.request(method, server.url, content=content)
            assert server.requests[-1].body == body
            assert server.requests[-1].headers["Transfer-Encoding"] == "chunked"


async def test_the_total_time_ends_the_wait_for_a_first_block(ticking):
    async def never() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async with Client(trust_env=False, timeout=Timeout(total=0.01)) as client:
        with pytest.raises(TotalTimeout, match=r"reading the body did not end within 0\.01 s"):
            await client.get("http://127.0.0.1:1/", content=never())


# ---------------------------------------------------------------------------- json_dumps


async def test_json_may_be_written_by_another_function():
    given = []

    def dumps(value: Any) -> bytes:
        given.append(value)
        return json.dumps(value, default=str).encode()

    async with serve(lambda request: request.body) as server:
        async with Client(trust_env=False, json_dumps=dumps) as client:
            for options in (SHORT, SHORT, LONG):
                response = await client.post(server.url, json={"a": {1}.__class__}, **options)
                assert response.json() == {"a": "<class 'set'>"}
                assert server.requests[-1].headers["Content-Type"] == "application/json"
            assert given == [{"a": set}] * len(given)
        async with Client(trust_env=False, json_dumps=lambda value: "\ud800") as client:
            assert (await client.post(server.url, json=1)).content == b"\\ud800"
        async with Client(trust_env=False) as client:
            assert (await client.post(server.url, json="\ud800ä")).content == b'"\\ud800\xc3\xa4"'
    with pytest.raises(TypeError, match=r"^json_dumps must be a callable, or None, not str$"):
        Client(json_dumps="orjson")
