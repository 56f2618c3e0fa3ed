"""Attacks on a client, row by row: tests carry the ids of ``docs/topics/attacks.md``.

All of C; H12, T3, T4 and T6 under a client's limits; H16 and T5, which a connection does not have;
and from E what a client adds to a request. A request that is refused leaves no byte on the wire.

In depth, ``test_pool.py`` has C9's veto, ``test_cookies.py`` the parsing of C8, ``test_auth.py``
the files of C7, and ``test_decoding.py`` the decoders of T5.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import tracemalloc
import zlib
from typing import Any

import pytest

from aiohttpconn import (
    BodyLengthError,
    BodyTooLarge,
    Client,
    ConnectionPool,
    ConnectionVetoed,
    ContentDecodingError,
    Digest,
    HTTPException,
    InvalidURL,
    LineTooLong,
    Netrc,
    RedirectRefused,
    TooManyRedirects,
    TunnelError,
)
from aiohttpconn.testing import Reply, Request, ScriptedServer, answer, expect, send, serve

from .support import ConnectProxy
from .support.ids import shown

OK = b"HTTP/1.1 200 OK\r\n"
HI = OK + b"Content-Length: 2\r\n\r\nhi"

SECRETS = {
    "Authorization": "Bearer secret",
    "cookie": "session=secret",
    "Proxy-Authorization": "Basic secret",
    "X-Other": "stays",
}


def echo(request: Request) -> Reply:
    fields = "".join(f"{name}: {value}\n" for name, value in request.headers.items())
    return Reply(f"{request.method} {request.target}\n{fields}\n".encode() + request.body)


def to(location: str, status: int = 302, **fields: str) -> Reply:
    return Reply(status=status, headers={"Location": location} | fields)


# -------------------------------------------------------- C1: secrets and other origins

GIVEN: dict[str, dict[str, Any]] = {
    "headers": {"headers": SECRETS},
    "headers, twice": {"headers": [*SECRETS.items(), ("AUTHORIZATION", "secret")]},
    "auth": {"auth": ("me", "secret")},
    "a function": {"auth": lambda request: "Bearer secret"},
    "cookies": {"cookies": {"session": "secret"}},
}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("given", "by"),
    [(given, "request") for given in GIVEN]
    + [(given, "client") for given in GIVEN if given != "cookies"],
)
async def test_c1_secrets_stay_with_their_origin(status, given, by):
    """Another port is another origin; what was taken away does not come back."""
    options = GIVEN[given]
    async with serve(echo) as other, serve(echo) as home:
        home.handler = {"/": to(f"{other.url}there", status), "/back": echo}
        other.handler = {"/there": to(f"{home.url}back", status)}
        settings, own = (options, {}) if by == "client" else ({}, options)
        async with Client(trust_env=False, **settings) as client:
            for _ in range(2):
                home.requests.clear()
                other.requests.clear()
                response = await client.get(home.url, **own)
                first, last = home.requests
                assert "secret" in str(first.headers) or "Authorization" in first.headers
                for request in (other.requests[0], last):
                    assert "secret" not in str(request.headers)
                    names = {name.lower() for name in request.headers}
                    assert names.isdisjoint({"authorization", "cookie", "proxy-authorization"})
                    if "headers" in options:
                        assert request.headers["X-Other"] == "stays"
                assert response.status == 200
                # The next request is one of its own.
                await client.get(f"{home.url}back", **own)
                assert home.requests[-1].headers.items() == [
                    *first.headers.items(),
                ]


async def test_c1_credentials_of_a_url(client):
    async with serve(echo) as other:
        async with serve({"/": to(f"{other.url}x")}) as home:
            url = home.url.replace("http://", "http://me:secret@")
            response = await client.get(url)
            assert "Authorization" in home.requests[0].headers
            assert "Authorization" not in response.text


@pytest.mark.parametrize(
    "change", ["port", "scheme", "host", "a dot", "userinfo", "nothing", "the default port"]
)
async def test_c1_an_origin_is_scheme_host_and_port(change, certificates):
    """CVE-2022-27774 and others: each that changes makes it another; the same written differently
    is the same."""
    hosts = {"a.example": "127.0.0.1", "b.example": "127.0.0.1"}
    async with (
        serve(echo) as home,
        serve(echo) as other,
        serve(echo, tls=certificates.server) as tls,
    ):
        options: dict[str, Any] = {"resolve": hosts | {"localhost": "127.0.0.1"}}
        async with Client(trust_env=False, context=certificates.client, **options) as client:
            location = {
                "port": f"http://a.example:{other.port}/x",
                "scheme": f"https://localhost:{tls.port}/x",
                "host": f"http://b.example:{home.port}/x",
                "a dot": f"http://a.example.:{home.port}/x",
                "userinfo": f"http://other:pw@a.example:{home.port}/x",
                "nothing": f"http://A.Example:{home.port}/x",
                "the default port": "/x",
            }[change]
            home.handler = {"/": to(location), "/x": echo}
            response = await client.get(f"http://a.example:{home.port}/", headers=SECRETS)
            same = change in ("userinfo", "nothing", "the default port")
            assert ("secret" in response.text) is same
            # The user and password of a Location are nobody's.
            assert "b3RoZXI6cHc=" not in response.text


@pytest.mark.parametrize("given", GIVEN)
async def test_c1_http_to_https_on_one_host_keeps_secrets(given, certificates):
    """And none of them goes to the server that was for the proxy."""
    async with (
        serve(lambda request: to("https://localhost/x")) as plain,
        serve(echo, tls=certificates.server) as tls,
        ConnectProxy(routes={"localhost:443": ("127.0.0.1", tls.port)}) as tunnel,
    ):
        proxies = {"http": plain.url, "https": tunnel.url}
        async with Client(trust_env=False, context=certificates.client, proxy=proxies) as client:
            response = await client.get("http://localhost/", **GIVEN[given])
            assert response.url == "https://localhost/x"
            assert ("secret" in response.text) or ("Authorization" in response.text)
            assert "proxy-authorization" not in response.text.lower()
            for name in ("authorization", "cookie"):
                sent = [request.headers.get(name) for request in (*plain.requests, *tls.requests)]
                assert sent[0] == sent[1]


@pytest.mark.parametrize("kind", ["digest", "netrc"])
async def test_c1_c7_no_credentials_are_looked_up_for_a_redirect(kind, client, tmp_path):
    path = tmp_path / "netrc"
    path.write_text("machine localhost login me password secret\ndefault login d password secret\n")
    auth = Digest("me", "secret") if kind == "digest" else Netrc(path, default=True)
    challenge = {"WWW-Authenticate": 'Digest realm="x", nonce="n", qop="auth"'}

    def reply(request: Request) -> Reply:
        seen.append(request.headers.get("Authorization"))
        return Reply(status=401, headers=challenge)

    seen: list[str | None] = []
    async with serve(reply) as other:
        location = f"http://localhost:{other.port}/"
        async with serve({"/": to(location)}) as home:
            response = await client.get(home.url, auth=auth)
            assert (response.status, seen) == (401, [None])


async def test_c1_by_way_of_a_proxy(client):
    """CVE-2026-44431: through a proxy it is no different."""
    async with serve(echo) as proxy:
        first, second = "http://a.example/", "http://b.example/"
        proxy.handler = lambda request: to(second) if request.target == first else echo(request)
        proxied = proxy.url.replace("http://", "http://me:pw@")
        response = await client.get(first, headers=SECRETS, proxy=proxied)
        assert "secret" not in response.text
        assert "Proxy-Authorization: Basic bWU6cHc=\n" in response.text


# ------------------------------------------------------------ C2, C3: refused redirects


async def test_c2_https_to_http_is_refused(certificates):
    async with serve(echo) as plain:
        async with serve({"/": to(plain.url)}, tls=certificates.server) as tls:
            url = f"https://localhost:{tls.port}/"
            async with Client(trust_env=False, context=certificates.client) as client:
                for _ in range(2):
                    with pytest.raises(RedirectRefused) as caught:
                        await client.get(url)
                    assert str(caught.value).startswith(
                        f"GET {url}: {plain.url} is not encrypted, and {url} is: "
                        "allow_downgrade=True follows it (status 302, "
                    )
                assert plain.connections == 0
                # Even an allowed downgrade removes the secrets.
                response = await client.get(url, headers=SECRETS, allow_downgrade=True)
                assert "secret" not in response.text


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "ftp://h/", "data:,x", "gopher://h:70/_x", "javascript:0", "FILE:/x"],
)
async def test_c3_other_schemes_are_refused(location, client):
    async with serve({"/": to(location)}) as server:
        with pytest.raises(RedirectRefused, match="cannot follow Location"):
            await client.get(server.url)


async def test_c3_the_user_of_a_location_is_dropped(client):
    async with serve(echo) as server:
        location = server.url.replace("http://", "http://me:secret@")
        server.handler = {"/": to(f"{location}x"), "/x": echo}
        response = await client.get(server.url)
        assert "Authorization" not in response.text
        assert response.url == f"{server.url}x"
        # A text that names such a Location does not show it either.
        server.handler = {"/": to("ftp://me:secret@h/")}
        with pytest.raises(RedirectRefused) as caught:
            await client.get(server.url)
        assert "secret" not in str(caught.value)


# ------------------------------------------------------------------------------- C4, C5


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_c4_a_body_is_not_kept_where_the_method_changes(status, client):
    """CVE-2023-45803: its length, type and coding go with it."""
    async with serve({"/": to("/x", status), "/x": echo}) as server:
        headers = {"Content-Encoding": "gzip", "Expect": "100-continue", "Digest": "x"}
        for content in (b"secret", [b"secret"], (part for part in [b"secret"])):
            response = await client.post(server.url, content=content, headers=headers)
            assert response.text.startswith("GET /x\n")
            assert "secret" not in response.text
            lower = response.text.lower()
            assert not [n for n in ("content-", "transfer-", "expect", "digest") if n in lower]


@pytest.mark.parametrize("status", [307, 308])
async def test_c4_a_body_that_is_kept_crosses_whole(status, client):
    async with serve(echo) as other, serve({"/": to(other.url, status)}) as home:
        response = await client.post(home.url, json={"a": 1}, headers=SECRETS)
        assert response.text.endswith('\n\n{"a":1}')
        assert "secret" not in response.text


async def test_c5_loops_end(client):
    async with serve({"/a": to("/b"), "/b": to("/a")}) as server:
        with pytest.raises(TooManyRedirects, match="more than max_redirects=10"):
            await client.get(f"{server.url}a")
        assert len(server.requests) == 11


# ---------------------------------------------------------- C6: proxies and credentials


async def test_c6_the_proxys_credentials_are_for_the_proxy(certificates):
    """In CONNECT, and in requests for whole URLs; the origin sees none."""
    async with (
        serve(echo, tls=certificates.server) as origin,
        ConnectProxy(credentials="me:secret") as proxy,
    ):
        proxied = proxy.url.replace("http://", "http://me:secret@")
        async with Client(trust_env=False, context=certificates.client, proxy=proxied) as client:
            url = f"https://localhost:{origin.port}/"
            for _ in range(2):
                assert "Proxy-Authorization" not in (await client.get(url)).text
            assert b"Proxy-Authorization: Basic bWU6c2VjcmV0" in proxy.heads[0]
    async with serve(echo) as origin, serve(echo) as proxy:
        proxied = proxy.url.replace("http://", "http://me:secret@")
        async with Client(trust_env=False, proxy=proxied) as client:
            for options in ({}, {"resend_stale": True}, {"content": [b"x"]}):
                text = (await client.get(origin.url, **options)).text
                assert "Proxy-Authorization: Basic bWU6c2VjcmV0\n" in text
            for options in ({}, {"content": [b"x"]}):
                text = (await client.get(origin.url, proxy=None, **options)).text
                assert "Proxy-Authorization" not in text


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"407 Proxy Authentication Required"])
async def test_c6_a_proxys_challenge_gets_no_credentials_of_the_origin(status, certificates):
    """CVE-2026-86414: CONNECT is answered with 401."""
    refusal = (
        b"HTTP/1.1 " + status + b"\r\nWWW-Authenticate: Digest realm=x, nonce=n, qop=auth\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    async with ConnectProxy(refuse=refusal) as proxy:
        async with Client(trust_env=False, proxy=proxy.url, auth=Digest("me", "secret")) as client:
            for auth in (client._state.settings.auth, ("me", "secret")):
                with pytest.raises(TunnelError, match=status.decode()[:3]):
                    await client.get("https://origin.example/", auth=auth)
        assert all(b"uthorization" not in head for head in proxy.heads)


async def test_c6_the_answer_of_a_proxy_is_not_the_origins(client):
    """A body of a CONNECT that was refused is never shown as a page."""
    refusal = b"HTTP/1.1 503 No\r\nSet-Cookie: a=1\r\nContent-Length: 4\r\n\r\nevil"
    async with ConnectProxy(refuse=refusal) as proxy:
        with pytest.raises(TunnelError):
            await client.get("https://origin.example/", proxy=proxy.url)
        assert list(client.cookies) == []


# ----------------------------------------------------------------------------------- C7


async def test_c7_netrc_is_read_when_it_is_asked_for(tmp_path, monkeypatch):
    path = tmp_path / ".netrc"
    path.write_text("machine 127.0.0.1 login me password secret\n")
    path.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(path))
    async with serve(echo) as server, Client(proxy=None) as client:
        assert "Authorization" not in (await client.get(server.url)).text
        assert "Authorization" in (await client.get(server.url, auth=Netrc())).text


# -------------------------------------------------------------------------- C8: cookies


@pytest.mark.parametrize(
    "line",
    [
        "a=1; Domain=example",
        "a=1; Domain=other.example",
        "a=1; Domain=127.0.0.1",
        "a=1; Secure",
        "__Host-a=1; Path=/",
        "__Secure-a=1",
        "a=" + "x" * 5000,
        "=1",
        "",
    ],
)
async def test_c8_cookies_that_are_refused(line):
    async with serve(echo) as server:
        async with Client(trust_env=False, resolve={"a.example": "127.0.0.1"}) as client:
            server.handler = {"/": Reply(headers={"Set-Cookie": line}), "/x": echo}
            url = f"http://a.example:{server.port}/"
            for path in ("", "x", ""):
                await client.get(f"{url}{path}")
            sent = "".join(f"{cookie}" for cookie in client.cookies)
            assert sent == ""


async def test_c8_a_flood_of_cookies_has_bounds(client):
    lines = [("Set-Cookie", f"c{n}={'x' * 300}") for n in range(200)]
    async with serve({"/": Reply(headers=lines), "/x": echo}) as server:
        for path in ("", "x", "x"):
            response = await client.get(f"{server.url}{path}")
        assert len(list(client.cookies)) == 50
        (cookie,) = (each for each in response.text.splitlines() if each.startswith("Cookie: "))
        assert len(cookie) <= 8 * 1024 + len("Cookie: ")


# --------------------------------------------------------------------- C9: destinations


async def test_c9_each_hop_is_vetted():
    asked: list[tuple[str, str]] = []

    def veto(address: str, host: str, port: int) -> bool:
        asked.append((address, host))
        return host != "inner.example"

    hosts = {"outer.example": "127.0.0.1", "inner.example": "127.0.0.1"}
    async with serve(echo) as server:
        async with Client(trust_env=False, resolve=hosts, on_connect=veto) as client:
            location = f"http://inner.example:{server.port}/secret"
            server.handler = {"/": to(location), "/secret": "secret"}
            with pytest.raises(ConnectionVetoed, match="on_connect refused every address"):
                await client.get(f"http://outer.example:{server.port}/")
            assert [request.path for request in server.requests] == ["/"]
            assert asked == [("127.0.0.1", "outer.example"), ("127.0.0.1", "inner.example")]


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "0x7f000001", "127.0.0.1."]
)
async def test_c9_e11_addresses_in_other_notations_are_none(host, client):
    """Some programs take these hosts for addresses, others for names."""
    for url in (f"http://{host}/", f"http://{host}:80/x"):
        with pytest.raises(InvalidURL, match="not an IPv4 address of four decimal numbers"):
            await client.get(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://a\\@b/",
        "http://a@b@c/",
        " http://a/",
        "http://a /",
        "http://a\t/",
        "http://a\n/",
        "http:/a/",
        "http:a",
        "http://[v1.x]/",
        "http://[::1/",
        "http://a%2fb/",
        "http://a%00/",
        "http://\u2100/",
        "http://*/",
        f"http://{'a' * 300}/",
        f"http://{'漢' * 300}/",
    ],
)
async def test_e11_urls_that_parsers_disagree_about(url, client):
    for options in ({}, {"params": {"a": "b"}}):
        with pytest.raises(InvalidURL):
            await client.get(url, **options)


@pytest.mark.parametrize("path", ["//evil.example/x", "http:evil", "\\\\evil", "/\\evil", "@evil/"])
async def test_e10_a_path_never_becomes_a_host(path):
    async with serve(echo) as server:
        async with Client(trust_env=False, base_url=server.url) as client:
            await client.get("/")
            try:
                response = await client.get(path)
            except InvalidURL:
                assert len(server.requests) == 1
            else:
                assert response.url.startswith(server.url)


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"X-A": "b\r\nX-Evil: 1"}},
        {"headers": {"X-A": "b\nX-Evil: 1"}},
        {"headers": {"X-A: b\r\nX-Evil": "1"}},
        {"headers": {"X-A": "b\x00"}},
        {"headers": {"Host": "a\r\nX-Evil: 1"}},
        {"cookies": {"a": "b\r\nX-Evil: 1"}},
        {"cookies": {"a\r\nX-Evil": "1"}},
        {"auth": ("me\r\nX-Evil: 1", "pw")},
        {"auth": lambda request: "x\r\nX-Evil: 1"},
        {"json": 1, "headers": {"Content-Type": "a\r\nX-Evil: 1"}},
        {"headers": {"Content-Length": "5"}, "json": 1},
        {"headers": {"Content-Length": "1", "Transfer-Encoding": "chunked"}, "content": b"x"},
        {"headers": [("Host", "a"), ("Host", "b")]},
        {"files": {"f": ('a"\r\nX-Evil: 1', b"x", "text/plain\r\nX-Evil: 1")}},
    ],
    ids=shown,
)
async def test_e3_e6_nothing_is_injected(options, client):
    async with serve(echo) as server:
        for _ in range(2):
            with pytest.raises((ValueError, HTTPException)):
                await client.post(server.url, **options)
        assert server.requests == []
        assert b"".join(server.received) == b""


SMUGGLED = b"0\r\n\r\nDELETE /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


def smuggling_bodies() -> dict[str, dict[str, Any]]:
    return {
        "bytes": {"content": SMUGGLED},
        "large": {"content": SMUGGLED * 2000},
        "str": {"content": SMUGGLED.decode()},
        "list": {"content": [SMUGGLED]},
        "iterator": {"content": iter([SMUGGLED])},
        "file": {"content": io.BytesIO(SMUGGLED)},
        "empty": {"content": b""},
        "json": {"json": SMUGGLED.decode()},
        "data": {"data": SMUGGLED},
        "files": {"files": {"f": SMUGGLED}},
    }


@pytest.mark.parametrize("kind", smuggling_bodies())
@pytest.mark.parametrize("name", ["Transfer-Encoding", "transfer-encoding"])
async def test_e8_a_callers_transfer_encoding_puts_the_body_into_chunks(kind, name, client):
    """A server would read the raw body as chunks, and the bytes after them as the next request."""
    async with serve(echo) as server:
        for coding in ("chunked", " Chunked\t"):
            options = smuggling_bodies()[kind]
            response = await client.post(server.url, headers={name: coding}, **options)
            assert response.status == 200
        plain = await client.post(server.url, **smuggling_bodies()[kind])
        assert plain.status == 200
        assert [request.method for request in server.requests] == ["POST"] * 3
        # A form has another boundary each time, of the same length.
        sizes = {len(request.body) for request in server.requests}
        assert len(sizes) == 1
        if kind != "files":
            assert len({request.body for request in server.requests}) == 1
        for request in server.requests[:2]:
            assert "Content-Length" not in request.headers
        assert server.connections == 1


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize(
    "coding", ["gzip", "identity", "gzip, chunked", "chunked, chunked", "x", ""]
)
async def test_e8_no_other_transfer_encoding_is_sent(coding, method, client):
    async with serve(echo) as server:
        for options in ({}, {"content": b"x"}, {"content": iter([b"x"])}):
            with pytest.raises(ValueError, match="Transfer-Encoding") as info:
                await client.request(
                    method, f"{server.url}a", headers={"Transfer-Encoding": coding}, **options
                )
            assert str(info.value) == (
                f"{method} {server.url}a: a request's Transfer-Encoding must be 'chunked' alone, "
                f"which sends the body in chunks, got {coding!r}"
            )
        assert server.connections == 0


@pytest.mark.parametrize("method", ["POST", "GET", "HEAD", "PURGE"])
async def test_e8_without_a_body_there_is_no_transfer_encoding(method, client):
    headers = {"Transfer-Encoding": "chunked"}
    async with serve(echo) as server, ConnectionPool() as pool:
        for send in (client.request, pool.request):
            with pytest.raises(ValueError, match="Transfer-Encoding") as info:
                await send(method, server.url, headers=headers)
            assert str(info.value) == (
                f"{method} {server.url}: the request has a Transfer-Encoding but no body"
            )
        assert server.connections == 0


async def test_e8_several_transfer_encodings_are_refused(client):
    fields = [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")]
    async with serve(echo) as server, ConnectionPool() as pool:
        with pytest.raises(ValueError, match="Transfer-Encoding is given twice"):
            await client.post(server.url, content=b"x", headers=fields)
        with pytest.raises(ValueError, match="Transfer-Encoding is given twice"):
            await pool.request("POST", server.url, b"x", fields)
        assert server.connections == 0


async def test_e8_a_hook_can_ask_for_chunks_too(client):
    def on_request(request):
        request.headers["Transfer-Encoding"] = "chunked"

    async with serve(echo) as server:
        await client.post(server.url, content=SMUGGLED, on_request=on_request)
        await client.post(server.url, content=[SMUGGLED], on_request=on_request)
        assert [request.body for request in server.requests] == [SMUGGLED, SMUGGLED]


async def test_e8_chunks_are_made_anew_behind_a_redirect(client):
    moved = Reply(b"", status=307, headers={"Location": "/"})
    async with serve({"/a": moved, "/": echo}) as server:
        headers = {"Transfer-Encoding": "chunked"}
        await client.post(f"{server.url}a", content=SMUGGLED, headers=headers)
        assert [request.body for request in server.requests] == [SMUGGLED, SMUGGLED]


@pytest.mark.parametrize(
    "body", [SMUGGLED, SMUGGLED.decode(), [SMUGGLED]], ids=["bytes", "str", "list"]
)
@pytest.mark.parametrize(
    "headers", [{"Transfer-Encoding": "chunked"}, [(b"transfer-encoding", b"chunked")]]
)
async def test_e8_a_pool_puts_the_body_into_chunks_too(body, headers):
    async with serve(echo) as server, ConnectionPool() as pool:
        response = await pool.request("POST", server.url, body, headers)
        await response.read()
        assert [request.body for request in server.requests] == [SMUGGLED]
        with pytest.raises(ValueError, match=r"'chunked' alone.* got 'gzip'$"):
            await pool.request("POST", server.url, body, {"Transfer-Encoding": "gzip"})


@pytest.mark.parametrize("length", ["0", "2", "4", "10"])
async def test_e7_a_content_length_that_is_not_the_bodys_is_refused(length, client):
    async with serve(echo) as server:
        for body in (b"abc", [b"abc"]):
            with pytest.raises(BodyLengthError, match=f"announces {length} bytes, the body has"):
                await client.post(server.url, content=body, headers={"Content-Length": length})
        if length != "0":
            with pytest.raises(BodyLengthError, match=f"announces {length} bytes, .* fewer: 0"):
                await client.post(server.url, headers={"Content-Length": length})
        with pytest.raises(ValueError, match="Content-Length and Transfer-Encoding are both given"):
            await client.post(
                server.url,
                content=b"abc",
                headers={"Content-Length": length, "Transfer-Encoding": "chunked"},
            )
        assert server.requests == []


@pytest.mark.parametrize("method", ["GE T", "GET\r\nX-Evil: 1", "", "GET /x", "G\u00c9T"])
async def test_e1_methods_are_tokens(method, client):
    async with serve(echo) as server:
        with pytest.raises(ValueError, match="a method must be a token"):
            await client.request(method, server.url)
        assert server.requests == []


async def test_e2_what_a_browser_escapes_in_a_url_is_escaped(client):
    async with serve(echo) as server:
        for _ in range(2):
            response = await client.get(f"{server.url}a b\"<>\\^`{{|}}[]\u00e4?x=\u00e4 b'{{|}}")
            assert response.text.partition("\n")[0] == (
                "GET /a%20b%22%3C%3E%5C%5E%60%7B|%7D[]%C3%A4?x=%C3%A4%20b%27{|}"
            )


@pytest.mark.parametrize("target", ["@evil.test/", "http://evil.test/", "*", "", "/ x", "/\r\n"])
async def test_e2_e10_a_raw_target_is_a_path_and_one_line(target, client):
    async with serve(echo) as server:
        with pytest.raises(InvalidURL):
            await client.get(server.url, target=target)
        assert server.requests == []


# ----------------------------------------------------------------- C10: the environment


async def test_c10_a_request_of_a_cgi_names_no_proxy(monkeypatch):
    """CVE-2016-5385 ("httpoxy"): a field Proxy of somebody's request becomes HTTP_PROXY."""
    async with serve(echo) as proxy, serve(echo) as origin:
        for name in ("http_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        async with Client() as client:
            assert (await client.get(origin.url)).text.startswith(f"GET {origin.url}\n")
        monkeypatch.setenv("REQUEST_METHOD", "GET")
        async with Client() as client:
            assert (await client.get(origin.url)).text.startswith("GET /\n")


async def test_c10_explicit_arguments_come_first(monkeypatch):
    async with serve(echo) as evil, serve(echo) as origin, serve(echo) as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, evil.url)
        monkeypatch.setenv("no_proxy", "*")
        for settings, options, expected in (
            ({"proxy": None}, {}, "/"),
            ({"proxy": proxy.url}, {}, origin.url),
            ({}, {"proxy": proxy.url}, origin.url),
            ({"trust_env": False}, {}, "/"),
        ):
            async with Client(**settings) as client:
                text = (await client.get(origin.url, **options)).text
                assert text.startswith(f"GET {expected}\n")
        assert evil.connections == 0


# ----------------------------------------------------- C11: interchangeable connections


async def test_c11_connections_are_not_shared_across_settings(certificates):
    """Neither with another context, nor with another proxy, nor with its other credentials."""
    async with serve(echo, tls=certificates.server) as server, ConnectProxy() as proxy:
        url = f"https://localhost:{server.port}/"
        other = certificates.client_for()
        with_user = proxy.url.replace("http://", "http://me:pw@")
        ways: list[dict[str, Any]] = [
            {},
            {"context": other},
            {"proxy": proxy.url},
            {"proxy": with_user},
            {"proxy": proxy.url, "context": other},
        ]
        async with Client(trust_env=False, context=certificates.client) as client:
            for round_ in range(2):
                for options in ways:
                    response = await client.get(url, **options)
                    assert response.reused is bool(round_)
            assert client.stats().open == len(ways)
            assert proxy.connections == 3


async def test_c11_what_was_verified_by_one_is_not_trusted_by_all(certificates):
    """requests' CVE-2024-35195: verify=False that sticks."""
    from aiohttpconn import CertificateError

    async with serve(echo, tls=certificates.self_signed) as server:
        import ssl

        careless = ssl.create_default_context()
        careless.check_hostname = False
        careless.verify_mode = ssl.CERT_NONE
        url = f"https://localhost:{server.port}/"
        async with Client(trust_env=False, context=certificates.client) as client:
            for _ in range(2):
                assert (await client.get(url, context=careless)).status == 200
                with pytest.raises(CertificateError):
                    await client.get(url)


# ---------------------------------------------------------------------- H12, H16: heads


@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        (b"X: y\r\n" * 1001, HTTPException, "got more than 1000 headers"),
        (b"X: %b\r\n" % (b"y" * 262_144), LineTooLong, "got more than 262144 bytes"),
        (b"X: %b\r\n" % (b"y" * 1_000) * 300, LineTooLong, "got more than 262144 bytes"),
        (b"X-%b" % (b"y" * 300_000), LineTooLong, "got more than 262144 bytes"),
    ],
    ids=["fields", "a line", "a head", "without an end"],
)
async def test_h12_a_head_has_bounds(fields, kind, text, client):
    for pieces in (1, 5):
        data = OK + fields + b"\r\n"
        size = len(data) // pieces + 1
        script = [expect(), send(*(data[at : at + size] for at in range(0, len(data), size)))]
        async with ScriptedServer(script) as server:
            with pytest.raises(kind, match=text):
                await client.get(server.url)
        assert client.stats().open == 0


async def test_h12_what_large_sites_send_is_taken(client):
    head = OK + b"X-%d: y\r\n" * 900 % tuple(range(900)) + b"Content-Length: 2\r\n\r\n"
    async with ScriptedServer([answer(head + b"hi")] * 2) as server:
        for _ in range(2):
            response = await client.get(server.url)
            assert len(response.headers) == 901


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_h16_two_locations_that_differ_are_refused(status, client):
    locations = b"Location: /a\r\nX: y\r\nLOCATION: http://evil.example/\r\n"
    reply = b"HTTP/1.1 %d X\r\n%bContent-Length: 0\r\n\r\n" % (status, locations)
    async with ScriptedServer([answer(reply)] * 3) as server:
        for _ in range(2):
            with pytest.raises(RedirectRefused) as caught:
                await client.get(server.url)
            assert str(caught.value).startswith(
                f"GET {server.url}: 2 different Locations: b'/a', b'http://evil.example/' "
                f"(status {status}, "
            )


async def test_h16_two_content_types(client):
    """The first one counts for text, and both are there to be seen."""
    types = (
        b"Content-Type: text/plain; charset=latin-1\r\nContent-Type: text/html; charset=utf-8\r\n"
    )
    async with ScriptedServer([answer(OK + types + b"Content-Length: 1\r\n\r\n\xe4")]) as server:
        response = await client.get(server.url)
        assert len(response.headers.get_all("Content-Type")) == 2
        assert response.text == "ä"


# ----------------------------------------------------------------------- T3, T5: bodies


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_t3_a_body_without_an_end_costs_max_body(framing, coding, client):
    """Neither more memory nor more bytes than that, or what the kernel has taken meanwhile."""
    sent = 0

    async def endless(conn: Any) -> None:
        nonlocal sent
        await conn.read_head()
        fields = {
            "length": b"Content-Length: 9000000000000000000\r\n",
            "chunked": b"Transfer-Encoding: chunked\r\n",
            "close": b"",
        }[framing]
        await conn.send(OK + fields + b"Content-Encoding: %b\r\n\r\n" % coding.encode())
        encoder = zlib.compressobj(0, wbits=31) if coding == "gzip" else None
        block = bytes(65536)
        while True:
            data = block if encoder is None else encoder.compress(block)
            if data and framing == "chunked":
                data = b"%x\r\n%b\r\n" % (len(data), data)
            await conn.send(data)
            sent += len(data)

    async with ScriptedServer(endless) as server:
        tracemalloc.start()
        try:
            with pytest.raises(BodyTooLarge, match="max_body=200000 bytes"):
                await client.get(server.url, max_body=200_000)
            async with client.stream("GET", server.url, max_body=200_000) as response:
                with pytest.raises(BodyTooLarge):
                    async for _ in response.iter_bytes():
                        pass
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 10 * 1024 * 1024
        assert sent < 60 * 1024 * 1024
        # Some bytes of the stream may still come until its rest is known to be too much.
        while client.stats().leased:
            await asyncio.sleep(0)


ZEROS = bytes(9 * 1024 * 1024)
BOMBS = {
    "gzip": (gzip.compress(ZEROS), "gzip"),
    "deflate": (zlib.compress(ZEROS), "deflate"),
    "gzip, gzip": (gzip.compress(gzip.compress(ZEROS)), "gzip, gzip"),
    "members": (gzip.compress(bytes(1024 * 1024)) * 9, "gzip"),
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("way", ["whole", "stream"])
async def test_t5_a_bomb_costs_no_more_than_it_may(bomb, way, client):
    data, coding = BOMBS[bomb]
    reply = Reply(data, headers={"Content-Encoding": coding})

    async def fetch(**options: Any) -> None:
        if way == "whole":
            await client.get(server.url, **options)
        else:
            async with client.stream("GET", server.url, **options) as response:
                async for _ in response.iter_bytes():
                    pass

    async with serve({"/": reply}) as server:
        with pytest.raises(ContentDecodingError, match="looks like a decompression bomb"):
            await fetch()
        with pytest.raises((BodyTooLarge, ContentDecodingError)):
            await fetch(max_body=100_000)


async def test_t5_codings_are_counted_over_all_lines(client):
    """CVE-2022-32206 and CVE-2023-23916."""
    lines = [("Content-Encoding", "gzip")] * 6
    async with serve({"/": Reply(b"x", headers=lines)}) as server:
        for _ in range(2):
            with pytest.raises(ContentDecodingError, match="6 content codings, at most 5"):
                await client.get(server.url)


async def test_t5_what_is_thrown_away_is_not_decoded(client, monkeypatch):
    """CVE-2026-21441: of redirects, retries and challenges."""
    bomb = BOMBS["gzip"][0]
    reply = Reply(bomb, status=302, headers={"Location": "/x", "Content-Encoding": "gzip"})
    async with serve({"/": reply, "/x": "x"}) as server:
        for _ in range(2):
            assert (await client.get(server.url)).text == "x"


# ------------------------------------------------------------------------------- T4, T6


async def test_t4_a_slow_reader_holds_up_the_server(client):
    """A stream that nobody reads keeps no more than its high water."""
    sent = 0

    async def endless(conn: Any) -> None:
        nonlocal sent
        await conn.read_head()
        await conn.send(OK + b"\r\n")
        while True:
            await conn.send(bytes(65536))
            sent += 65536

    async with ScriptedServer(endless) as server:
        async with client.stream("GET", server.url) as response:
            before = -1
            while sent != before:
                before = sent
                for _ in range(100):
                    await asyncio.sleep(0)
            assert response.raw.buffered <= 512 * 1024
        assert client.stats().open == 0


async def test_t6_cancelled_requests_leave_nothing():
    """At every turn of the loop that a request lasts, with more of them than connections."""
    async with serve(echo) as server:
        async with Client(trust_env=False, limit=4) as client:
            for number in range(60):
                tasks = [asyncio.ensure_future(client.get(server.url)) for _ in range(10)]
                for _ in range(number % 12):
                    await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                stats = client.stats()
                assert (stats.leased, stats.queued) == (0, 0)
            responses = await asyncio.gather(*(client.get(server.url) for _ in range(20)))
            assert {response.status for response in responses} == {200}
            # The fourth is left to other origins.
            assert client.stats().open == 3
