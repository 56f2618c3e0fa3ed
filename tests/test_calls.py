"""Calls: redirects (RFC 9110 §15.4), what follows from a response, auth, retries, hooks."""

from __future__ import annotations

import asyncio
import errno
import io
import pickle
import random
import socket
from typing import TYPE_CHECKING, Any

import pytest

import aiohttpconn.pool.rate_limit as rate_limit
from aiohttpconn import (
    Auth,
    Basic,
    Bearer,
    Client,
    ConnectError,
    ConnectionRefused,
    ConnectTimeout,
    Digest,
    HTTPConnection,
    IncompleteRead,
    Netrc,
    ReadTimeout,
    RedirectRefused,
    RemoteDisconnected,
    Request,
    ResolveError,
    Response,
    Retry,
    StatusError,
    Timeout,
    TooManyRedirects,
    TotalTimeout,
)
from aiohttpconn.proxies import from_environment
from aiohttpconn.testing import (
    Reply,
    ScriptedServer,
    answer,
    close,
    close_at,
    expect,
    refusing_address,
    reset,
    reset_at,
    send,
    serve,
    stall_at,
)
from aiohttpconn.testing import Request as ServedRequest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OK = b"HTTP/1.1 200 OK\r\n"
HI = OK + b"Content-Length: 2\r\n\r\nhi"


def to(location: str, status: int = 302, **fields: str) -> Reply:
    """Return a reply that leads to *location*."""
    return Reply("elsewhere", status=status, headers={"Location": location} | fields)


def echo(request: ServedRequest) -> Reply:
    fields = "".join(f"{name}: {value}\n" for name, value in request.headers.items())
    return Reply(f"{request.method} {request.target}\n{fields}\n".encode() + request.body)


# ------------------------------------------- redirects: where to, and with which method

METHODS = {
    # status: what becomes of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, PURGE
    301: "GET HEAD GET PUT PATCH DELETE OPTIONS PURGE",
    302: "GET HEAD GET PUT PATCH DELETE OPTIONS PURGE",
    303: "GET HEAD GET GET GET GET GET GET",
    307: "GET HEAD POST PUT PATCH DELETE OPTIONS PURGE",
    308: "GET HEAD POST PUT PATCH DELETE OPTIONS PURGE",
}


@pytest.mark.parametrize("status", METHODS)
async def test_a_redirect_makes_of_a_method(status, client):
    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"]
    async with serve({"/": to("/next", status), "/next": echo}) as server:
        for _ in range(2):
            for method, expected in zip(methods, METHODS[status].split(), strict=True):
                response = await client.request(method, server.url)
                assert (response.status, response.method) == (200, expected)
                assert response.url == f"{server.url}next"
                assert [each.status for each in response.history] == [status]
                assert server.requests[-1].method == expected


@pytest.mark.parametrize("status", METHODS)
@pytest.mark.parametrize("kind", ["bytes", "large", "json", "form", "list", "file", "files"])
async def test_a_body_is_sent_again_or_dropped_with_all_that_describes_it(
    status, kind, client, tmp_path
):
    path = tmp_path / "file"
    path.write_bytes(b"head" + b"a file" * 20_000)
    headers = {
        "Content-Language": "de",
        "Content-MD5": "x",
        "Digest": "y",
        "Content-Type": "text/x",
        "X-Other": "stays",
    }
    with path.open("rb") as file:
        file.seek(4)
        options: dict[str, Any] = {
            "bytes": {"content": b"ab"},
            "large": {"content": b"x" * 200_000},
            "json": {"json": [1]},
            "form": {"data": {"a": "b"}},
            "list": {"content": [b"a", b"b"]},
            "file": {"content": file},
            "files": {"files": {"f": file}},
        }[kind]
        async with serve({"/": to("/next", status), "/next": echo}) as server:
            response = await client.post(server.url, headers=headers, **options)
            first, second = server.requests
    assert first.body
    assert response.status == 200
    if status in (307, 308):
        assert (second.method, second.body) == ("POST", first.body)
        assert second.headers.items() == first.headers.items()
    else:
        assert (second.method, second.body) == ("GET", b"")
        names = {name.lower() for name in second.headers}
        ours = {"host", "connection", "accept-encoding", "accept", "user-agent"}
        assert names == {*ours, "x-other"}


@pytest.mark.parametrize("status", [307, 308])
async def test_a_body_that_is_gone_cannot_be_sent_again(status, client):
    def parts() -> Iterator[bytes]:
        yield b"a"

    async with serve({"/": to("/next", status), "/next": echo}) as server:
        for content in (parts(), io.BufferedReader(Pipe())):
            with pytest.raises(RedirectRefused) as caught:
                await client.post(server.url, content=content)
            assert str(caught.value).startswith(
                f"POST {server.url}: the redirect to {server.url}next needs the body again, but it "
                f"came from an iterator or stream that has been consumed (status {status}, "
            )
            assert caught.value.location == "/next"
            assert caught.value.history == [caught.value.response]
            assert caught.value.response.content == b"elsewhere"
        assert [request.path for request in server.requests] == ["/", "/"]


class Pipe(io.RawIOBase):
    """A file that cannot be read twice."""

    def __init__(self) -> None:
        self._data = [b"ab"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._data.pop() if self._data else b""
        buffer[: len(data)] = data
        return len(data)


async def test_a_body_that_is_gone_need_not_be_sent_again(client):
    async with serve({"/": to("/next", 303), "/next": echo}) as server:
        response = await client.post(server.url, content=(part for part in (b"a",)))
        assert response.text.startswith("GET /next\n")


LOCATIONS = {
    "/b": "/b",
    "b": "/d/b",
    "../b": "/b",
    "../../../b": "/b",
    "./": "/d/",
    "?x=y": "/d/a?x=y",
    "#top": "/d/a?q",
    "/b#top": "/b",
    "/b?x=%2F#top": "/b?x=%2F",
    "/a b": "/a%20b",
    "/%zz": "/%zz",
    "/b|c": "/b|c",
    "/[b]{c}?[b]{c}'": "/[b]%7Bc%7D?[b]{c}%27",
    "//{host}/b": "/b",
    "HTTP://{host}/b": "/b",
    "http://{host}": "/",
    "http://{host}?x": "/?x",
    "  /b\t": "/b",
    "/\u00c3\u00bc": "/%C3%BC",
    "/b?\u00c3\u00bc=1": "/b?%C3%BC=1",
    "/\xff": "/%FF",
    "/a/./b/../c": "/a/c",
}


@pytest.mark.parametrize("location", LOCATIONS)
async def test_a_location_leads_to(location, client):
    """Raw UTF-8 is encoded, and every part that is missing is taken from the request's URL."""
    expected = LOCATIONS[location]
    if expected == "/d/a?q":
        # It leads to itself, which is where it would lead again.
        replies = [
            answer(
                b"HTTP/1.1 301 M\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % location.encode()
            )
        ]
        async with ScriptedServer([*replies, answer(HI)]) as server:
            response = await client.get(f"{server.url}d/a?q")
            assert (response.status, response.url) == (200, f"{server.url}d/a?q#top")
            assert server.heads[1].startswith(b"GET /d/a?q HTTP/1.1\r\n")
        return

    async def reply(request: ServedRequest) -> Reply:
        if request.target == "/d/a?q":
            return to(location.replace("{host}", request.headers["Host"]))
        return Reply(request.target)

    async with serve(reply) as server:
        response = await client.get(f"{server.url}d/a?q")
        assert response.text == expected
        fragment = "#top" if location.endswith("#top") else ""
        assert response.url == f"{server.url[:-1]}{expected}{fragment}"


@pytest.mark.parametrize(
    "location",
    [
        "ftp://h/",
        "file:///etc/passwd",
        "data:text/html,x",
        "javascript:alert(1)",
        "mailto:a@b",
        "http:/x",
        "http:x",
        "http://h:x/",
        "http://h:99999/",
        "http://a@b@c/",
        "http://h\\@evil/",
        "http://[::1/",
        "http://0x7f.1/",
        "http://2130706433/",
        "http://h h/",
    ],
)
async def test_a_location_that_cannot_be_followed_is_an_error(location, client):
    async with serve({"/": to(location, 301)}) as server:
        for _ in range(2):
            with pytest.raises(RedirectRefused) as caught:
                await client.get(server.url)
            text = str(caught.value)
            assert text.startswith(f"GET {server.url}: cannot follow Location ")
            assert "(status 301, " in text
            assert caught.value.location == location
            assert caught.value.history == [caught.value.response]
            assert caught.value.response.headers["Location"] == location
            assert (caught.value.method, caught.value.url) == ("GET", server.url)
        response = await client.get(server.url, follow_redirects=False)
        assert response.headers["Location"] == location
        assert len(server.requests) == 3


async def test_a_refused_redirect_is_in_its_error_whole(client):
    """An app's own scheme, with which a login ends, and a Location that no text would show."""
    location = f"app://cb?code={'x' * 5000}&state=s#f"
    replies = {"/": to("/login", 303), "/login": to(location, 302, **{"Set-Cookie": "a=1"})}
    async with serve(replies) as server:
        with pytest.raises(RedirectRefused) as caught:
            await client.get(f"{server.url}?a=b#part")
    error = caught.value
    assert len(str(error)) < 1000
    assert error.location == location
    assert (error.response.status, error.response.text) == (302, "elsewhere")
    assert error.response.headers["Location"] == location
    assert error.response.url == f"{server.url}login#part"
    assert error.response.cookies == {"a": "1"}
    assert [each.status for each in error.history] == [303, 302]
    assert error.history[-1] is error.response
    assert error.response.history == (error.history[0],)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.location) == (str(error), location)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "body", "content"),
    [
        ("Content-Length: 4", b"body", b"body"),
        ("Content-Encoding: gzip\r\nContent-Length: 4", b"body", b""),
        ("Content-Length: 65536", b"x" * 65536, b"x" * 65536),
        ("Content-Length: 65538", b"x" * 65538, b"x" * 65536),
        ("Content-Length: 5", b"body", b"body"),
        ("Transfer-Encoding: chunked", b"zz\r\n", b""),
    ],
)
async def test_a_refused_redirect_keeps_the_body_that_an_error_keeps(
    fields, body, content, stream, client
):
    head = f"HTTP/1.1 302 F\r\nLocation: app://cb\r\n{fields}\r\n\r\n".encode()
    async with ScriptedServer([answer(head + body), close()]) as server:
        with pytest.raises(RedirectRefused, match="cannot follow Location b'app://cb'") as caught:
            if stream:
                async with client.stream("GET", server.url):
                    pass
            else:
                await client.get(server.url)
    assert caught.value.response.content == content
    assert client.stats().leased == 0


async def test_the_same_location_twice_is_one(client):
    location = b"HTTP/1.1 302 F\r\nLocation: /b\r\nlocation: /b\r\nContent-Length: 0\r\n\r\n"
    async with ScriptedServer([answer(location), answer(HI)]) as server:
        assert (await client.get(server.url)).content == b"hi"


@pytest.mark.parametrize("status", [300, 304, 305, 306, 399, 201])
async def test_other_statuses_lead_nowhere(status, client):
    async with serve({"/": to("/next", status), "/next": "next"}) as server:
        response = await client.get(server.url)
        assert (response.status, response.history) == (status, ())


@pytest.mark.parametrize("fields", [{}, {"Location": ""}])
async def test_a_redirect_without_location_is_a_response(fields, client):
    async with serve({"/": Reply("here", status=302, headers=fields)}) as server:
        for _ in range(2):
            response = await client.get(server.url)
            assert (response.status, response.text, response.history) == (302, "here", ())


# ------------------------------------------------------------------- redirects: how far


def count(request: ServedRequest) -> Reply:
    number = int(request.path.strip("/") or 0)
    return to(f"/{number + 1}")


async def test_redirects_end(client):
    async with serve(count) as server:
        for options, most in (({}, 10), ({"max_redirects": 3}, 3), ({"max_redirects": 0}, 0)):
            server.requests.clear()
            with pytest.raises(TooManyRedirects) as caught:
                await client.get(server.url, **options)
            error = caught.value
            assert str(error).startswith(
                f"GET {server.url}{most or ''}: more than max_redirects={most}: {server.url}"
            )
            assert [each.url for each in error.history] == [
                f"{server.url}{n or ''}" for n in range(most + 1)
            ]
            assert error.history[-1] is error.response
            assert error.location == error.response.headers["Location"] == f"/{most + 1}"
            assert len(server.requests) == most + 1
        assert client.stats().leased == 0


async def test_a_loop_shows_in_the_error(client):
    async with serve({"/a": to("/b"), "/b": to("/a")}) as server:
        with pytest.raises(TooManyRedirects) as caught:
            await client.get(f"{server.url}a", max_redirects=2)
        a, b = f"{server.url}a", f"{server.url}b"
        assert f"more than max_redirects=2: {a} → {b} → {a} → {b}" in str(caught.value)
        assert [each.url for each in caught.value.history] == [a, b, a]
        assert [each.status for each in caught.value.history] == [302, 302, 302]


async def test_history_has_the_responses_in_between(client):
    replies = {"/": to("/b", 301, **{"X-A": "1"}), "/b": to("/c", 307), "/c": "end"}
    async with serve(replies) as server:
        response = await client.get(server.url)
        assert [each.status for each in response.history] == [301, 307]
        assert [each.url for each in response.history] == [server.url, f"{server.url}b"]
        assert response.history[0].headers["X-A"] == "1"
        # Nobody has received what they said.
        assert [each.content for each in response.history] == [b"", b""]
        assert [len(each.history) for each in response.history] == [0, 1]


async def test_a_stream_follows_redirects(client):
    async with serve({"/": to("/b"), "/b": "end"}) as server:
        async with client.stream("GET", server.url) as response:
            assert await response.read() == b"end"
            assert response.url == f"{server.url}b"
            assert len(response.history) == 1


@pytest.mark.parametrize("size", [10, 200_000])
async def test_the_body_of_a_redirect_is_not_decoded(size, client):
    """CVE-2026-21441: what is thrown away may be a bomb, or nonsense."""
    reply = Reply(b"x" * size, status=302, headers={"Location": "/b", "Content-Encoding": "gzip"})
    async with serve({"/": reply, "/b": "end"}) as server:
        for _ in range(2):
            response = await client.get(server.url)
            assert response.text == "end"
            # A large one costs its connection.
            assert response.reused is (size == 10)


async def test_referer_and_fragment_are_not_sent(client):
    async with serve({"/a": to("/b#x"), "/b": echo}) as server:
        response = await client.get(f"{server.url}a?secret#part")
        assert "Referer" not in response.text
        assert "#" not in response.text
        assert (response.url, response.history[0].url) == (
            f"{server.url}b#x",
            f"{server.url}a?secret#part",
        )


async def test_a_fragment_is_kept_and_inherited(client):
    """RFC 9110 §10.2.2. It is not sent, nor in an error: it may be a secret."""
    replies = {"/a": to("/b"), "/b": to("/c#d"), "/c": to("/d"), "/d": Reply("no", status=404)}
    async with serve(replies) as server:
        for url, arrived in (("d#x", "d#x"), ("d", "d"), ("a#x", "d#d"), ("d?q#x y", "d?q#x%20y")):
            response = await client.get(server.url + url)
            assert response.url == server.url + arrived
            with pytest.raises(StatusError) as caught:
                response.raise_for_status()
            assert "#" not in str(caught.value) + repr(response)
        assert (await client.get(f"{server.url}d#x", params={"k": "v"})).url == (
            f"{server.url}d?k=v#x"
        )
        async with client.stream("GET", f"{server.url}b#x") as response:
            assert response.url == f"{server.url}d#d"
        async with Client(trust_env=False, base_url=server.url) as based:
            assert (await based.get("/d#x")).url == f"{server.url}d#x"
        assert all("#" not in request.target for request in server.requests)


# --------------------------------------------------------------------------- the target


@pytest.mark.parametrize("target", ["/", "/a{b}|\\^`<>\"'%zz?{c}#d?e", "//x/../%41%7e", "/a?b=c"])
@pytest.mark.parametrize("url", ["", "elsewhere/%41?q=1#part"])
async def test_a_target_is_sent_byte_for_byte(target, url, client, tmp_path):
    async with serve(echo) as server:
        for method, options in (("GET", {}), ("POST", {"content": b"x"})):
            response = await client.request(method, server.url + url, target=target, **options)
            assert response.text.startswith(f"{method} {target}\n")
            shown = server.url[:-1] + target + ("#part" if "#" in url else "")
            assert response.url == shown
        assert (await client.get(server.url)).text.startswith("GET /\n")
        async with client.stream("GET", server.url, target=target) as response:
            assert (await response.read()).startswith(f"GET {target}\n".encode())
        async for result in client.fetch_many([server.url], target=target):
            assert result.response.text.startswith(f"GET {target}\n")
        path = tmp_path / "file"
        await client.download(server.url, path, target=target)
        assert path.read_text().startswith(f"GET {target}\n")
        async with Client(trust_env=False, base_url=server.url, params={"k": "v"}) as based:
            assert (await based.get("/x", target=target)).text.startswith(f"GET {target}\n")
            with pytest.raises(ValueError, match="params= and target= exclude each other"):
                await based.get("/x", target=target, params={"a": "b"})


async def test_a_target_through_a_proxy_and_after_a_redirect(client):
    async with serve(echo) as proxy:
        response = await client.get("http://a.test/", target="/{x}", proxy=proxy.url)
        assert response.text.startswith("GET http://a.test/{x}\n")
    async with serve({"/{x}/y": to("z"), "/{x}/z": echo, "/%7Bx%7D/z": echo}) as server:
        response = await client.get(server.url, target="/{x}/y")
        # A Location is escaped like any other URL.
        assert response.text.startswith("GET /%7Bx%7D/z\n")


async def test_auth_sees_the_target_that_is_sent(client):
    seen = []

    def sign(request: Request) -> str:
        seen.append(request.target)
        return "Signature x"

    challenge = {"WWW-Authenticate": 'Digest realm="x", nonce="n", qop="auth"'}

    def digest(request: ServedRequest) -> Reply:
        sent = request.headers.get("Authorization", "")
        return (
            Reply(sent, status=200 if f'uri="{request.target}"' in sent else 401)
            if sent
            else (Reply(status=401, headers=challenge))
        )

    async with serve(digest) as server:
        await client.get(f"{server.url}a b?q={{}}#f", auth=sign)
        await client.get(server.url, target="/{x}?'", auth=sign)
        assert seen == ["/a%20b?q={}", "/{x}?'"]
        for options in ({}, {"target": "/{x}?'|"}):
            response = await client.get(f"{server.url}[x]{{}}", auth=Digest("me", "pw"), **options)
            assert response.status == 200


async def test_params_are_sent_once():
    async with serve({"/": to("/b?c=d"), "/b": echo}) as server:
        async with Client(trust_env=False, params={"k": "v"}) as client:
            response = await client.get(server.url, params={"a": "b"})
            assert server.requests[0].target == "/?k=v&a=b"
            assert response.text.startswith("GET /b?c=d\n")


async def test_the_callers_host_stays_with_its_origin(client):
    async with serve(echo) as other:
        replies = {"/": to("/b"), "/b": to(other.url)}
        async with serve(replies) as server:
            response = await client.get(server.url, headers={"Host": "name.example"})
            assert [each.headers["Host"] for each in server.requests] == ["name.example"] * 2
            assert f"Host: 127.0.0.1:{other.port}\n" in response.text


# ------------------------------------------------------------------------------ cookies


async def test_cookies_are_kept_and_sent_on_the_way(client):
    replies = {
        "/": to("/b", **{"Set-Cookie": "a=1"}),
        "/b": to("/c", **{"Set-Cookie": "a=; Max-Age=0"}),
        "/c": echo,
    }
    async with serve(replies) as server:
        response = await client.get(server.url, cookies={"mine": "x"})
        sent = [request.headers.get("Cookie") for request in server.requests]
        assert sent == ["mine=x", "a=1; mine=x", "mine=x"]
        assert "Cookie: mine=x\n" in response.text


async def test_cookies_are_for_their_host(client):
    """Ports do not part them (RFC 6265bis §8.5), names do."""
    hosts = {"a.example": "127.0.0.1", "b.example": "127.0.0.1"}
    async with Client(trust_env=False, resolve=hosts) as client:
        async with serve(echo) as server:
            b = f"http://b.example:{server.port}/echo"
            server.handler = {"/": to(b, **{"Set-Cookie": "a=1"}), "/echo": echo}
            response = await client.get(f"http://a.example:{server.port}/", cookies={"mine": "x"})
            assert "Cookie" not in response.text
            a = await client.get(f"http://a.example:{server.port}/echo")
            assert "Cookie: a=1\n" in a.text


async def test_a_requests_own_cookie_replaces_a_kept_one(client):
    fields = [("Set-Cookie", "k=kept"), ("Set-Cookie", "other=1"), ("Set-Cookie", "K=2")]
    async with serve({"/": Reply(headers=fields), "/echo": echo}) as server:
        await client.get(server.url)
        for _ in range(2):
            response = await client.get(f"{server.url}echo", cookies={"k": "own", "n": 5})
            assert "Cookie: other=1; K=2; k=own; n=5\n" in response.text
            response = await client.get(f"{server.url}echo", cookies={})
            assert "Cookie: k=kept; other=1; K=2\n" in response.text


async def test_a_cookie_of_a_domain_goes_to_its_other_hosts():
    names = ("www.example.com", "api.example.com", "example.com", "example.org")
    hosts = dict.fromkeys(names, "127.0.0.1")
    line = {"Set-Cookie": "sid=1; Domain=example.com; Path=/"}
    async with (
        serve({"/": Reply(headers=line), "/echo": echo}) as server,
        Client(trust_env=False, resolve=hosts) as client,
    ):
        await client.get(f"http://www.example.com:{server.port}/")
        for host in names:
            for _ in range(2):
                text = (await client.get(f"http://{host}:{server.port}/echo")).text
                assert ("Cookie: sid=1\n" in text) is (host != "example.org")


async def test_secure_cookies_of_this_machine(client):
    fields = [
        ("Set-Cookie", "a=1; Secure; HttpOnly; SameSite=None"),
        ("Set-Cookie", "__Host-b=2; Secure; Path=/"),
    ]
    async with serve({"/": Reply(headers=fields), "/echo": echo}) as server:
        for host in ("localhost", "127.0.0.1"):
            url = f"http://{host}:{server.port}/"
            await client.get(url)
            assert "Cookie: a=1; __Host-b=2\n" in (await client.get(f"{url}echo")).text


async def test_cookies_of_a_client_read_and_write_like_a_mapping():
    async with serve(
        {"/": Reply(headers={"Set-Cookie": "csrftoken=abc"}), "/echo": echo}
    ) as server:
        async with Client(trust_env=False, base_url=server.url, cookies={"a": 1}) as client:
            await client.get("/")
            assert client.cookies["csrftoken"] == client.cookies.get("csrftoken") == "abc"
            client.cookies["csrftoken"] = "def"
            client.cookies["mine"] = "x"
            text = (await client.get("/echo")).text
            assert "Cookie: a=1; csrftoken=def; mine=x\n" in text
            assert dict(client.cookies) == {"a": "1", "csrftoken": "def", "mine": "x"}


async def test_cookies_that_are_off_stay_off(client):
    async with serve({"/": to("/b", **{"Set-Cookie": "a=1"}), "/b": echo}) as server:
        response = await client.get(server.url, cookies=None)
        assert "Cookie" not in response.text
        assert list(client.cookies) == []


# --------------------------------------------------------------------------------- auth


def protected(request: ServedRequest) -> Reply:
    if request.headers.get("Authorization") == "Basic bWU6cHc=":
        return Reply("welcome")
    return Reply("no", status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})


@pytest.mark.parametrize(
    "auth",
    [
        ("me", "pw"),
        Basic("me", "pw"),
        lambda request: "Basic bWU6cHc=",
        lambda request: b"Basic bWU6cHc=",
    ],
)
async def test_basic(auth, client):
    async with serve(protected) as server:
        assert (await client.get(server.url, auth=auth)).text == "welcome"
        assert len(server.requests) == 1
        response = await client.get(server.url, auth=("me", "wrong"))
        assert (response.status, response.text) == (401, "no")


async def test_bearer(client):
    async with serve(echo) as server:
        text = (await client.get(server.url, auth=Bearer("abc"))).text
        assert "Authorization: Bearer abc\n" in text


async def test_user_and_password_of_a_url(client):
    async with serve(protected) as server:
        url = server.url.replace("http://", "http://me:pw@")
        for _ in range(2):
            assert (await client.get(url)).text == "welcome"
        # Whoever names an auth means it, and a URL without one has none.
        assert (await client.get(url, auth=None)).status == 401
        assert (await client.get(server.url)).status == 401
        async with Client(trust_env=False, auth=("a", "b")) as other:
            assert (await other.get(url)).text == "welcome"
            assert (await other.get(server.url)).status == 401
        async with Client(trust_env=False, base_url=url) as based:
            assert (await based.get("/x")).text == "welcome"
    async with serve(echo) as server:
        url = server.url.replace("http://", "http://m%40e:p%3aw@")
        assert "Authorization: Basic bUBlOnA6dw==\n" in (await client.get(url)).text
        url = server.url.replace("http://", "http://a%0ab:c@")
        with pytest.raises(ValueError, match="a user name must have no control character"):
            await client.get(url)


async def test_a_function_is_asked_for_each_request(client):
    seen: list[tuple[str, str]] = []

    def function(request: Request) -> str | None:
        seen.append((request.method, request.url))
        return f"X {len(seen)}" if len(seen) > 1 else None

    async with serve({"/": to("/b", 303), "/b": echo}) as server:
        response = await client.post(server.url, auth=function)
        assert "Authorization" not in server.requests[0].headers
        assert "Authorization: X 2\n" in response.text
        assert seen == [("POST", server.url), ("GET", f"{server.url}b")]


async def test_the_callers_own_authorization_comes_first(client):
    async with serve(echo) as server:
        text = (
            await client.get(server.url, auth=("me", "pw"), headers={"authorization": "mine"})
        ).text
        assert text.lower().count("authorization: ") == 1
        assert "authorization: mine\n" in text


async def test_netrc(client, tmp_path: Path):
    path = tmp_path / "netrc"
    path.write_text("machine 127.0.0.1 login me password pw\n")
    async with serve(protected) as server:
        assert (await client.get(server.url, auth=Netrc(path))).text == "welcome"
        # It is never read unless it is asked for.
        assert (await client.get(server.url)).status == 401


class DigestServer:
    """A server that wants Digest authentication of "me" and "pw" (RFC 7616)."""

    def __init__(self, realm: str = "x") -> None:
        self.realm = realm
        self.nonces = iter(range(1, 100))
        self.nonce = ""
        self.stale_after = 100
        self.answered = 0

    def __call__(self, request: ServedRequest) -> Reply:
        import hashlib
        import re

        given = dict(re.findall(r'(\w+)="?([^",]+)"?', request.headers.get("Authorization", "")))
        if given and given["nonce"] == self.nonce and self.answered < self.stale_after:

            def digest(text: str) -> str:
                return hashlib.sha256(text.encode()).hexdigest()

            ha1 = digest(f"me:{self.realm}:pw")
            ha2 = digest(f"{request.method}:{request.target}")
            middle = f"{given['nonce']}:{given['nc']}:{given['cnonce']}:{given['qop']}"
            if given["response"] == digest(f"{ha1}:{middle}:{ha2}"):
                self.answered += 1
                return Reply(b"welcome " + request.body)
        stale = ", stale=true" if given and self.answered >= self.stale_after else ""
        self.nonce = f"n{next(self.nonces)}"
        self.answered = 0
        challenge = (
            f'Basic realm="y", Digest realm="{self.realm}", qop="auth", algorithm=SHA-256, '
            f'nonce="{self.nonce}"{stale}'
        )
        return Reply("no", status=401, headers={"WWW-Authenticate": challenge})


async def test_digest(client):
    async with serve(DigestServer()) as server:
        auth = Digest("me", "pw")
        for number in range(3):
            response = await client.get(f"{server.url}?{number}", auth=auth)
            assert response.text == "welcome "
            assert response.history == ()
        # The first is asked for it, the others know it.
        assert len(server.requests) == 4
        assert "nc=00000003" in server.requests[-1].headers["Authorization"]
        response = await client.post(server.url, content=b"a body", auth=Digest("me", "pw"))
        assert response.text == "welcome a body"
        response = await client.get(server.url, auth=Digest("me", "wrong"))
        assert response.status == 401


async def test_digest_goes_on_with_a_new_nonce(client):
    handler = DigestServer()
    async with serve(handler) as server:
        auth = Digest("me", "pw")
        handler.stale_after = 2
        for _ in range(6):
            assert (await client.get(server.url, auth=auth)).text == "welcome "


async def test_a_body_that_is_gone_gets_its_401(client):
    async with serve(DigestServer()) as server:
        response = await client.post(
            server.url, content=(part for part in [b"a"]), auth=Digest("me", "pw")
        )
        assert (response.status, response.text) == (401, "no")
        assert len(server.requests) == 1


async def test_digest_of_many_at_once(client):
    async with serve(DigestServer()) as server:
        auth = Digest("me", "pw")
        await client.get(server.url, auth=auth)
        responses = await asyncio.gather(
            *(client.get(f"{server.url}{n}", auth=auth) for n in range(20))
        )
        assert {response.text for response in responses} == {"welcome "}


async def test_an_auth_that_never_gives_up_is_given_up(client):
    class Stubborn(Auth):
        def challenged(self, request: Any, response: Any) -> bool:
            return True

    async with serve({"/": Reply(status=401)}) as server:
        assert (await client.get(server.url, auth=Stubborn())).status == 401
        assert len(server.requests) == 11


async def test_an_error_of_an_auth_is_the_callers(client):
    def function(request: Request) -> str:
        raise KeyError("no token")

    async with serve(echo) as server:
        with pytest.raises(KeyError, match="no token"):
            await client.get(server.url, auth=function)
        assert server.requests == []
        assert client.stats().open == 0


# ------------------------------------------------------------------------------ retries


class Sleeps:
    """The waits between attempts, which pass at once; and chance, which is what it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds: list[float] = []
        self.part = 1.0
        original = asyncio.sleep

        async def sleep(seconds: float, *args: Any) -> None:
            if seconds:
                self.seconds.append(seconds)
            await original(0)

        monkeypatch.setattr("aiohttpconn.client.calls.asyncio.sleep", sleep)
        monkeypatch.setattr(random, "uniform", lambda low, high: low + (high - low) * self.part)


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> Sleeps:
    return Sleeps(monkeypatch)


def failing(times: int, reply: Reply) -> Any:
    """Return a handler that answers with *reply* at first, and then as it should."""
    left = iter(range(times))
    return lambda request: reply if next(left, None) is not None else Reply(request.body or "fine")


async def test_nothing_is_retried_unless_it_is_asked_for(client, sleeps):
    async with serve(failing(1, Reply(status=503))) as server:
        assert (await client.get(server.url)).status == 503
        assert len(server.requests) == 1
    with refusing_address() as (host, port):
        with pytest.raises(ConnectionRefusedError):
            await client.get(f"http://{host}:{port}/")
    assert sleeps.seconds == []


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_statuses_that_are_retried(status, client, sleeps):
    async with serve(failing(2, Reply("later", status=status))) as server:
        response = await client.get(server.url, retry=Retry())
        assert (response.text, response.history) == ("fine", ())
        assert len(server.requests) == 3
        assert sleeps.seconds == [0.1, 0.2]
        # Small bodies that nobody reads do not cost the connection.
        assert server.connections == 1


@pytest.mark.parametrize("status", [400, 401, 404, 408, 500, 501])
async def test_statuses_that_are_not(status, client, sleeps):
    async with serve(failing(1, Reply(status=status))) as server:
        assert (await client.get(server.url, retry=Retry())).status == status
        assert len(server.requests) == 1
        response = await client.get(server.url, retry=Retry(statuses={status}))
        assert response.status == 200


async def test_the_last_response_is_delivered(client, sleeps):
    async with serve(failing(9, Reply("later", status=503))) as server:
        response = await client.get(server.url, retry=Retry(attempts=4))
        assert (response.status, response.text) == (503, "later")
        assert len(server.requests) == 4
        server.requests.clear()
        assert (await client.get(server.url, retry=Retry(attempts=1))).status == 503
        assert len(server.requests) == 1


async def test_waits_are_a_random_part_of_what_doubles(client, sleeps):
    async with serve({"/": Reply(status=503)}) as server:
        retry = Retry(attempts=6, backoff=1, max_backoff=5, budget=None)
        await client.get(server.url, retry=retry)
        assert sleeps.seconds == [1, 2, 4, 5, 5]
        sleeps.seconds.clear()
        sleeps.part = 0.25
        await client.get(server.url, retry=retry)
        assert sleeps.seconds == [0.25, 0.5, 1, 1.25, 1.25]


METHODS_THAT_MAY = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"]


async def test_methods_that_are_retried(client, sleeps):
    async with serve({"/": Reply(status=503)}) as server:
        for method in [*METHODS_THAT_MAY, "POST", "PATCH", "PURGE"]:
            server.requests.clear()
            await client.request(method, server.url, retry=Retry(attempts=2))
            assert len(server.requests) == 1 + (method in METHODS_THAT_MAY)
        server.requests.clear()
        await client.post(server.url, retry=Retry(attempts=2, methods={"POST"}))
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("after", "waits"),
    [
        ("3", [3.0]),
        ("0", [0.1]),
        ("0.5", [0.5]),
        ("1.25", [1.25]),
        ("60.5", None),
        (".5", [0.1]),
        ("1.", [0.1]),
        ("1.5.1", [0.1]),
        ("1e1", [0.1]),
        (" 2 ", [2.0]),
        ("60", [60.0]),
        ("61", None),
        ("-1", [0.1]),
        ("1_0", [0.1]),
        ("soon", [0.1]),
        ("Fri, 31 Dec 1999 23:59:59 GMT", [0.1]),
        ("Fri, 31 Dec 2999 23:59:59 GMT", None),
        ("99999999999999999999", [0.1]),
    ],
)
async def test_retry_after(after, waits, client, sleeps):
    reply = Reply("later", status=503, headers={"Retry-After": after})
    async with serve(failing(1, reply)) as server:
        response = await client.get(server.url, retry=Retry())
        if waits is None:
            # Too long to wait: the caller decides.
            assert (response.status, response.text, sleeps.seconds) == (503, "later", [])
        else:
            assert (response.status, sleeps.seconds) == (200, waits)


async def test_retry_after_as_a_date(client, sleeps, monkeypatch):
    monkeypatch.setattr(rate_limit.time, "time", lambda: 1_000_000_000.0)
    reply = Reply(status=503, headers={"Retry-After": "Sun, 09 Sep 2001 01:46:45 GMT"})
    async with serve(failing(1, reply)) as server:
        await client.get(server.url, retry=Retry())
        assert sleeps.seconds == [5.0]


async def test_retry_after_may_be_ignored(client, sleeps):
    async with serve(failing(1, Reply(status=503, headers={"Retry-After": "3"}))) as server:
        await client.get(server.url, retry=Retry(respect_retry_after=False))
        assert sleeps.seconds == [0.1]


@pytest.mark.parametrize("body", ["bytes", "large", "list", "file", "generator"])
async def test_bodies_are_sent_again_if_they_can_be(body, client, sleeps, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with path.open("rb") as file:
        content: Any = {
            "bytes": b"content",
            "large": b"content" * 20_000,
            "list": [b"con", b"tent"],
            "file": file,
            "generator": (part for part in [b"content"]),
        }[body]
        async with serve(failing(1, Reply(status=503))) as server:
            response = await client.put(server.url, content=content, retry=Retry())
            if body == "generator":
                assert (response.status, len(server.requests)) == (503, 1)
            else:
                assert response.status == 200
                first, second = server.requests
                assert first.body == second.body == response.content
                assert first.body.startswith(b"content")


FAILURES = {
    "closed": [expect(), close()],
    "reset": [expect(), reset()],
    "cut in the head": [expect(), send(OK), close()],
    "cut in the body": [answer(HI, fault=close_at(len(HI) - 1))],
    "reset in the body": [answer(HI, fault=reset_at(len(HI) - 1))],
    "read timeout": [answer(HI, fault=stall_at(5))],
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_failures_that_are_retried(failure, client, sleeps, ticking):
    for method, works in (("GET", True), ("POST", False)):
        async with ScriptedServer(FAILURES[failure], [answer(HI)]) as server:
            options: dict[str, Any] = {"retry": Retry(), "timeout": Timeout(read=0.01)}
            if works:
                assert (await client.request(method, server.url, **options)).content == b"hi"
                assert server.connections == 2
            else:
                with pytest.raises((ConnectionError, IncompleteRead, ReadTimeout)):
                    await client.request(method, server.url, **options)
                assert server.connections == 1
    assert sleeps.seconds == [0.1]


async def test_a_connect_that_failed_is_retried_with_any_method(client, sleeps):
    with refusing_address() as (host, port):
        for method in ("GET", "POST"):
            sleeps.seconds.clear()
            with pytest.raises(ConnectionRefusedError):
                await client.request(method, f"http://{host}:{port}/", retry=Retry(attempts=3))
            assert sleeps.seconds == [0.1, 0.2]


@pytest.mark.parametrize(
    "data",
    [b"nonsense\r\n\r\n", OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhi"],
)
async def test_answers_that_are_wrong_are_not_retried(data, client, sleeps):
    from aiohttpconn import HTTPException

    async with ScriptedServer([answer(data), close()]) as server:
        with pytest.raises(HTTPException):
            await client.get(server.url, retry=Retry())
        assert server.connections == 1


async def test_a_certificate_is_no_better_the_next_time(client, certificates, sleeps):
    from aiohttpconn import CertificateError

    async with ScriptedServer([answer(HI)], tls=certificates.server) as server:
        with pytest.raises(CertificateError):
            await client.get(f"https://localhost:{server.port}/", retry=Retry())
        assert sleeps.seconds == []


async def test_a_budget_ends_retries_when_everything_fails(client, sleeps):
    async with serve({"/": Reply(status=503)}) as server:
        retry = Retry(attempts=3, budget=0.1)
        for _ in range(20):
            await client.get(server.url, retry=retry)
        # 10 are saved, and 20 requests earn 2, of which the first ones find the budget full.
        assert 10 <= len(sleeps.seconds) <= 12
        sleeps.seconds.clear()
        await client.get(server.url, retry=Retry(attempts=3, budget=None))
        assert len(sleeps.seconds) == 2


async def test_the_deadline_comes_before_a_retry(client, sleeps, ticking):
    async with serve({"/": Reply("later", status=503, headers={"Retry-After": "20"})}) as server:
        response = await client.get(server.url, retry=Retry(), timeout=Timeout(total=10))
        assert (response.status, response.text, sleeps.seconds) == (503, "later", [])
    async with ScriptedServer([answer(HI, fault=stall_at(3))]) as server:
        with pytest.raises(TotalTimeout):
            await client.get(server.url, retry=Retry(), timeout=Timeout(total=0.02))
        assert server.connections == 1


async def test_a_cancelled_wait_leaves_nothing(client):
    reply = Reply(b"x" * 10, status=503)
    async with serve({"/": reply}) as server:
        task = asyncio.ensure_future(client.get(server.url, retry=Retry(backoff=50)))
        while not server.requests or client.stats().leased:
            await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.stats().leased == 0


async def test_a_stream_is_retried_until_its_head_is_here(client, sleeps):
    script = [answer(b"HTTP/1.1 503 S\r\nContent-Length: 0\r\n\r\n")]
    async with ScriptedServer([*script, answer(HI, fault=close_at(len(HI) - 1))]) as server:
        async with client.stream("GET", server.url, retry=Retry()) as response:
            assert response.status == 200
            with pytest.raises(IncompleteRead):
                await response.read()
        assert sleeps.seconds == [0.1]


async def test_redirects_and_retries_together(client, sleeps):
    failing_once = failing(1, Reply(status=503))
    async with serve({"/": to("/b"), "/b": failing_once}) as server:
        response = await client.get(server.url, retry=Retry(attempts=2))
        assert response.status == 200
        assert [request.path for request in server.requests] == ["/", "/b", "/b"]
        assert [each.status for each in response.history] == [302]


async def test_each_request_of_a_call_has_its_attempts(client, sleeps):
    first, second = failing(1, Reply(status=503)), failing(1, Reply(status=503))

    def reply(request: ServedRequest) -> Reply:
        if request.path == "/b":
            return second(request)
        found = first(request)
        return found if found.status == 503 else to("/b")

    async with serve(reply) as server:
        response = await client.get(server.url, retry=Retry(attempts=2))
        assert response.status == 200
        assert [request.path for request in server.requests] == ["/", "/", "/b", "/b"]


@pytest.mark.parametrize(
    "wrong",
    [{"attempts": 0}, {"backoff": -1}, {"max_backoff": -1}, {"budget": 2}, {"max_retry_after": -1}],
)
def test_a_retry_that_makes_no_sense(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=rf"Retry\({name}=...\)"):
        Retry(**wrong)


# -------------------------------------------------------------------------------- hooks


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_hooks_see_every_request_and_response(kind, sleeps):
    seen: list[tuple[str, ...]] = []

    def on_request(request: Request) -> None:
        seen.append((request.method, request.url, request.headers["X-A"]))
        request.headers["X-Number"] = str(len(seen))

    def on_response(response: Response) -> None:
        seen.append((str(response.status), response.url, response.content.decode()))

    async def async_on_request(request: Request) -> None:
        await asyncio.sleep(0)
        on_request(request)

    async def async_on_response(response: Response) -> None:
        await asyncio.sleep(0)
        on_response(response)

    hooks: dict[str, Any] = {"on_request": on_request, "on_response": on_response}
    if kind == "async":
        hooks = {"on_request": async_on_request, "on_response": async_on_response}
    later = failing(1, Reply("later", status=503))
    async with (
        serve({"/": to("/b", 303), "/b": later}) as server,
        Client(trust_env=False, headers={"X-A": "1"}, retry=Retry(), **hooks) as client,
    ):
        url = server.url
        response = await client.post(url, content=b"x")
        assert response.text == "fine"
        assert seen == [
            ("POST", url, "1"),
            ("303", url, ""),
            ("GET", f"{url}b", "1"),
            ("503", f"{url}b", ""),
            ("GET", f"{url}b", "1"),
            ("200", f"{url}b", "fine"),
        ]
        assert [request.headers["X-Number"] for request in server.requests] == ["1", "3", "5"]
        seen.clear()
        await client.get(f"{url}b", on_request=None, on_response=None)
        assert seen == []


async def test_on_response_may_read_a_stream(client):
    async def on_response(response: Response) -> None:
        if response.status >= 400:
            await response.read()
            response.raise_for_status()

    replies = {"/": "x" * 200_000, "/no": Reply("why not", status=404)}
    async with serve(replies) as server:
        async with client.stream("GET", server.url, on_response=on_response) as response:
            assert len(await response.read()) == 200_000
        with pytest.raises(StatusError) as caught:
            await client.get(f"{server.url}no", on_response=on_response)
        assert caught.value.response.text == "why not"
        with pytest.raises(StatusError):
            async with client.stream("GET", f"{server.url}no", on_response=on_response):
                pass


@pytest.mark.parametrize("kind", ["raises", "is cancelled"])
@pytest.mark.parametrize("hook", ["on_request", "on_response"])
@pytest.mark.parametrize("way", ["get", "stream"])
async def test_a_hook_that_fails_leaves_nothing(kind, hook, way, client):
    begun = asyncio.Event()

    async def fail(_: Any) -> None:
        begun.set()
        if kind == "raises":
            raise KeyError("hook")
        await asyncio.Event().wait()

    async def fetch() -> None:
        if way == "get":
            await client.get(server.url, **{hook: fail})
        else:
            async with client.stream("GET", server.url, **{hook: fail}):
                pass

    async with serve({"/": b"x" * 1_000_000}) as server:
        task = asyncio.ensure_future(fetch())
        await begun.wait()
        if kind == "raises":
            with pytest.raises(KeyError, match="hook"):
                await task
        else:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert client.stats().leased == 0
        assert len(server.requests) == (hook == "on_response")


async def test_a_hook_that_fails_is_not_retried(client, sleeps):
    def fail(_: Any) -> None:
        raise ConnectionResetError("of the hook")

    async with serve({"/": to("/b"), "/b": "end"}) as server:
        with pytest.raises(ConnectionResetError, match="of the hook"):
            await client.get(server.url, on_response=fail, retry=Retry())
        assert len(server.requests) == 1


async def test_what_a_hook_sets_is_checked(client):
    def evil(request: Request) -> None:
        request.headers["X-A"] = "b\r\nX-Evil: 1"

    async with serve(echo) as server:
        with pytest.raises(ValueError, match="X-A"):
            await client.get(server.url, on_request=evil)
        assert server.requests == []


async def test_a_request_tells_what_it_is(client):
    seen: list[str] = []
    async with serve(echo) as server:
        await client.get(f"{server.url}x", on_request=lambda request: seen.append(repr(request)))
        assert seen == [f"<Request GET {server.url}x>"]


@pytest.mark.parametrize("name", ["url", "method"])
async def test_a_hook_cannot_change_where_a_request_goes(name, client):
    """The connection, cookies and credentials are chosen by it: a change would be lost."""

    def on_request(request: Request) -> None:
        setattr(request, name, "http://elsewhere.test/")

    async with serve(echo) as server:
        with pytest.raises(AttributeError, match=name):
            await client.get(server.url, on_request=on_request)
        assert server.connections == 0


@pytest.mark.parametrize("hook", ["on_request", "on_response"])
@pytest.mark.parametrize("way", ["get", "stream"])
@pytest.mark.parametrize("kind", ["coroutine", "future"])
async def test_total_is_for_hooks_too(hook, way, kind, client, ticking):
    async def waits(_: Any) -> None:
        await asyncio.Event().wait()

    def future(_: Any) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    options: Any = {
        hook: waits if kind == "coroutine" else future,
        "timeout": Timeout(total=0.05),
        "retry": Retry(),
    }
    async with serve({"/": b"x" * 1_000_000}) as server:
        with pytest.raises(TotalTimeout) as caught:
            if way == "get":
                await client.get(server.url, **options)
            else:
                async with client.stream("GET", server.url, **options):
                    pass
        error: Any = caught.value
        assert str(error).startswith(
            f"GET {server.url}: {hook} did not end within 0.05 s ({hook}, "
        )
        assert str(error).endswith(" ms; total=0.05)")
        answered = hook == "on_response"
        assert (error.method, error.url, error.phase) == ("GET", server.url, hook)
        assert (error.request_sent, error.response_started) == (answered, answered)
        assert len(server.requests) == answered
        assert client.stats().leased == 0
        assert (await client.get(server.url)).status == 200


@pytest.mark.parametrize("hook", ["on_request", "on_response"])
async def test_a_timeout_of_a_hooks_own_stays_its_own(hook, client, ticking):
    own = TimeoutError("the hook's")

    async def late(_: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise own from None

    async def at_once(_: Any) -> None:
        raise own

    async with serve({"/": "hi"}) as server:
        for function, total in ((at_once, 10), (late, 0.02)):
            with pytest.raises(TimeoutError) as caught:
                await client.get(server.url, timeout=Timeout(total=total), **{hook: function})
            assert caught.value is own


@pytest.mark.parametrize("hook", ["on_request", "on_response"])
async def test_a_cancel_is_not_lost_where_total_ends_a_hook(hook, client, ticking):
    """Both in the same turn of the loop: the cancel counts."""

    async def waits(_: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            task.cancel()
            raise

    options: Any = {hook: waits, "timeout": Timeout(total=0.02)}
    async with serve({"/": "hi"}) as server:
        task = asyncio.ensure_future(client.get(server.url, **options))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert client.stats().leased == 0


# ------------------------------------------------------------------------------ options

REFUSED: list[tuple[str, Any, type[Exception], str]] = [
    ("headers", "x", TypeError, "headers must be a mapping or pairs, not str"),
    ("headers", b"A: b", TypeError, "headers must be a mapping or pairs, not bytes"),
    ("headers", 5, TypeError, "headers must be a mapping or pairs, not int"),
    *(
        ("headers", headers, TypeError, "a mapping or pairs of a name and a value, got a " + what)
        for headers, what in (
            (["A: b"], "str among them"),
            (["ab"], "str among them"),
            ([("A", "b"), ("A", "b", "c")], "tuple among them"),
        )
    ),
]


@pytest.mark.parametrize(("name", "value", "kind", "text"), REFUSED)
async def test_what_cannot_be_is_refused_when_it_is_given(name, value, kind, text, client):
    async with serve(echo) as server:
        for way in (
            lambda: Client(**{name: value}),
            lambda: client.get(server.url, **{name: value}),
            lambda: client.stream("GET", server.url, **{name: value}),
            lambda: client.fetch_many([server.url], **{name: value}),
        ):
            with pytest.raises(kind) as caught:
                made = way()
                if asyncio.iscoroutine(made):
                    await made
            assert text in str(caught.value)
        assert server.connections == 0


COOKIES: list[tuple[Any, str]] = [
    ("a=b", "cookies must be a mapping of names to values or None, not str"),
    ("", "cookies must be a mapping of names to values or None, not str"),
    ([("a", "b")], "cookies must be a mapping of names to values or None, not list"),
    ({"a": 1.5}, "the value of the cookie 'a' must be a str or an int, not float"),
    ({"a": None}, "the value of the cookie 'a' must be a str or an int, not NoneType"),
    ({"a": True}, "the value of the cookie 'a' must be a str or an int, not bool"),
    ({"a": b"b"}, "the value of the cookie 'a' must be a str or an int, not bytes"),
    ({1: "b"}, "a cookie's name must be a str, not int"),
]


@pytest.mark.parametrize(("cookies", "text"), COOKIES)
async def test_what_is_no_cookie_is_refused(cookies, text, client):
    async with serve(echo) as server:
        with pytest.raises(TypeError) as caught:
            await client.get(server.url, cookies=cookies)
        assert str(caught.value) == text
        assert server.connections == 0


async def test_a_cookie_may_be_an_int(client):
    async with serve(echo) as server:
        await client.get(server.url, cookies={"a": 1, "b": "2", "c": -30})
        assert server.requests[0].headers["Cookie"] == "a=1; b=2; c=-30"


# ----------------------------------------------------------------- an unreachable proxy


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
@pytest.mark.parametrize("url", ["http://192.0.2.1/x", "https://192.0.2.1/x"])
async def test_that_it_is_a_proxy_that_is_down_is_said(scheme, url):
    with refusing_address() as (host, port):
        for way in ("given", "environment"):
            proxy = f"{scheme}://user:secret@{host}:{port}"
            given: Any = {"proxy": proxy}
            if way == "environment":
                given = {"proxy": from_environment({"all_proxy": proxy})}
            async with Client(**given) as client:
                with pytest.raises(ConnectionRefused) as caught:
                    await client.get(url)
            text = str(caught.value)
            if scheme == "http" and url.startswith("http:"):
                assert text.startswith(
                    f"GET {url}: the proxy http://***@{host}:{port} was not reached: "
                    f"connection refused by {host}:{port} (connect, "
                )
            else:
                assert text.startswith(
                    f"GET {url}: connection refused by the proxy {host}:{port} (connect, "
                )
                assert text.endswith(" ms). Is the proxy running there?")
            assert "secret" not in text
            assert caught.value.errno == errno.ECONNREFUSED


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
@pytest.mark.parametrize("url", ["http://192.0.2.1/x", "https://192.0.2.1/x"])
async def test_that_it_is_a_proxy_whose_name_is_not_known_is_said(scheme, url):
    given = ResolveError("cannot resolve 'p.test': nobody knows")
    given.errno = socket.EAI_NONAME

    class Nothing:
        async def resolve(self, host: str, port: int) -> list[Any]:
            if host == "p.test":
                raise given
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, (host, port))]

    async with Client(proxy=f"{scheme}://user:secret@p.test:80", resolver=Nothing()) as client:
        with pytest.raises(ResolveError) as caught:
            await client.get(url)
    forwarded = scheme == "http" and url.startswith("http:")
    who = (
        "the proxy http://***@p.test:80 was not reached" if forwarded else "no address of the proxy"
    )
    assert str(caught.value).startswith(
        f"GET {url}: {who}: cannot resolve 'p.test': nobody knows (dns, "
    )
    assert caught.value.errno == socket.EAI_NONAME
    if not forwarded:
        # The resolver's own may be somebody else's, too.
        assert str(given) == "cannot resolve 'p.test': nobody knows"
        assert caught.value.__cause__ is given


async def test_each_address_of_a_proxy_is_named_behind_it():
    with refusing_address() as (host, port):
        addresses = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, (host, port)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, (host, port)),
        ]

        class Two:
            async def resolve(self, host: str, port: int) -> list[Any]:
                return addresses

        async with Client(proxy=f"http://p.test:{port}", resolver=Two()) as client:
            with pytest.raises(ConnectionRefused) as caught:
                await client.get("https://192.0.2.1/")
            refused = f"{host}:{port}: connection refused"
            assert f"cannot connect to the proxy p.test:{port}: {refused}; {refused} (" in str(
                caught.value
            )
            addresses.clear()
            with pytest.raises(
                ConnectError, match=f"cannot connect to the proxy p.test:{port}: the"
            ):
                await client.get("https://192.0.2.1/")


async def test_a_connection_with_a_tunnel_says_so_too(tmp_path):
    with refusing_address() as (host, port):
        conn = HTTPConnection(host, port)
        conn.set_tunnel("192.0.2.1", 80)
        with pytest.raises(ConnectionRefused, match=f"refused by the proxy {host}:{port} "):
            await conn.request("GET", "/")
    conn = HTTPConnection("p.test", 80, uds=str(tmp_path / "missing"))
    conn.set_tunnel("192.0.2.1", 80)
    with pytest.raises(ConnectError, match="cannot connect to the proxy Unix socket '/"):
        await conn.request("GET", "/")


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
@pytest.mark.parametrize("url", ["http://192.0.2.1/x", "https://192.0.2.1/x"])
async def test_that_it_is_a_proxy_that_does_not_answer_is_said(scheme, url, ticking):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        host, port = listener.getsockname()
        with socket.socket() as first, socket.socket() as second:
            for sock in (first, second):
                # Of a full backlog the kernel drops what comes.
                sock.setblocking(False)
                sock.connect_ex((host, port))
            limits = Timeout(connect=0.03)
            async with Client(proxy=f"{scheme}://{host}:{port}", timeout=limits) as client:
                with pytest.raises(ConnectTimeout) as caught:
                    await client.get(url)
    assert str(caught.value).startswith(
        f"GET {url}: the proxy {scheme}://{host}:{port} was not reached: "
        "not connected within 0.03 s, connect=0.03 (connect, "
    )


async def test_a_proxy_that_was_reached_is_not_blamed():
    async with ScriptedServer([expect(), close()]) as server:
        async with Client(proxy=server.url) as client:
            with pytest.raises(RemoteDisconnected) as caught:
                await client.get("http://192.0.2.1/")
        assert "was not reached" not in str(caught.value)


# ------------------------------------------------------------------------- cancellation


async def test_cancelled_anywhere_it_leaves_nothing():
    """At each turn of the loop; the client's one connection is there for the next request."""

    def reply(request: ServedRequest) -> Reply:
        return {"/": to("/b"), "/b": Reply(b"x" * 300_000)}[request.path]

    async with serve(reply) as server:
        for turns in range(60):
            async with Client(trust_env=False, limit=1) as client:
                task = asyncio.ensure_future(client.get(server.url))
                for _ in range(turns):
                    await asyncio.sleep(0)
                done = task.done()
                task.cancel()
                result = (await asyncio.gather(task, return_exceptions=True))[0]
                if done:
                    assert len(result.content) == 300_000
                    break
                assert client.stats().queued == 0
                assert (await client.get(server.url)).status == 200
                assert client.stats().open == 1
        else:
            raise AssertionError("60 turns were not enough")
