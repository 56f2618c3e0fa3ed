"""Client: its arguments and options, its fast path, its life; module-level names of the package."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.cookiejar
import pickle
import re
import subprocess
import sys
import threading
import weakref
import zlib
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from hypothesis import example, given
from hypothesis import strategies as st

import aiohttpconn.client.client as client_module
from aiohttpconn import (
    BodyTooLarge,
    CertificateError,
    Client,
    ConnectionPool,
    ContentDecodingError,
    CookieStore,
    HeadTooLarge,
    HTTPException,
    IncompleteRead,
    InvalidURL,
    Limits,
    PoolClosed,
    PoolTimeout,
    ReadTimeout,
    RedirectRefused,
    Resolver,
    Response,
    Retry,
    StatusError,
    Timeout,
    TooManyRedirects,
    TotalTimeout,
    WriteTimeout,
    run,
)
from aiohttpconn.client import plain as plain_module
from aiohttpconn.client.calls import Call
from aiohttpconn.client.plain import match_target
from aiohttpconn.testing import (
    Reply,
    Request,
    ScriptedServer,
    answer,
    close,
    expect,
    expect_request,
    in_thread,
    refusing_address,
    reset,
    send,
    serve,
    stall_at,
)
from aiohttpconn.urls import split_url

from .support.ids import shown
from .support.proxies import ConnectProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

OK = b"HTTP/1.1 200 OK\r\n"
HI = OK + b"Content-Length: 2\r\n\r\nhi"


def echo(request: Request) -> Reply:
    """Answer with what came: the request line, the fields and the body."""
    fields = "".join(f"{name}: {value}\n" for name, value in request.headers.items())
    return Reply(f"{request.method} {request.target}\n{fields}\n".encode() + request.body)


@contextlib.asynccontextmanager
async def echoing(**options: Any) -> AsyncIterator[tuple[Client, str]]:
    options.setdefault("trust_env", False)
    async with serve(echo) as server, Client(**options) as client:
        yield client, server.url


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The URLs for which the longer way was taken."""
    taken: list[str] = []

    class Counted(Call):
        def __init__(self, context: Any, method: str, url: str, *args: Any, **keywords: Any):
            taken.append(url)
            super().__init__(context, method, url, *args, **keywords)

    monkeypatch.setattr(client_module, "Call", Counted)
    return taken


# ------------------------------------------------------ both paths give the same result

NEXT = "/next"


def chunks(*parts: bytes, trailer: bytes = b"") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n" + trailer + b"\r\n"


def sized(content: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % len(content) + content


GZIP = b"Content-Encoding: gzip\r\n"
COOKIES = b"Set-Cookie: a=1\r\nSet-Cookie: b=2; Path=/x\r\nSet-Cookie: c=3; Secure\r\n"

# The bytes of a response, and what its server does then.
RESPONSES: dict[str, tuple[bytes, str]] = {
    "plain": (HI, ""),
    "plain, closed": (HI, "close"),
    "plain, Connection: close": (OK + b"Connection: close\r\n" + sized(b"hi"), "close"),
    "another reason": (b"HTTP/1.1 200 Fine\r\n" + sized(b"hi"), ""),
    "no reason": (b"HTTP/1.1 200\r\n" + sized(b"hi"), ""),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n" + sized(b"hi"), "close"),
    "HTTP/1.0, kept": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + sized(b"hi"), ""),
    "empty": (OK + sized(b""), ""),
    "chunked": (OK + chunks(b"a", b"bc"), ""),
    "chunked, empty": (OK + chunks(), ""),
    "chunked, trailers": (OK + chunks(b"a", trailer=b"X-T: 1\r\n"), ""),
    "until the end": (OK + b"\r\nall of it", "close"),
    "until the end, nothing": (OK + b"\r\n", "close"),
    "until a reset": (OK + b"\r\nall of it", "reset"),
    "100 KiB": (OK + sized(bytes(100 * 1024)), ""),
    "a scratch buffer less its head": (OK + sized(b"x" * (256 * 1024 - 200)), ""),
    "a scratch buffer": (OK + sized(b"y" * 256 * 1024), ""),
    "more than a scratch buffer": (OK + sized(b"z" * (256 * 1024 + 1)), ""),
    "chunked, more than that": (OK + chunks(b"u" * 256 * 1024, b"v" * 100_000), ""),
    "3 MiB": (OK + sized(b"w" * 3 * 1024 * 1024), ""),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
    "204 with a length": (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", ""),
    "304": (b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\nContent-Length: 5\r\n\r\n', ""),
    "100 before it": (b"HTTP/1.1 100 Continue\r\n\r\n" + HI, ""),
    "103 before it": (b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" * 3 + HI, ""),
    "101": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", ""),
    "gzip": (OK + GZIP + sized(gzip.compress(b"hi" * 100)), ""),
    "gzip, chunked": (OK + GZIP + chunks(gzip.compress(b"hi")[:9], gzip.compress(b"hi")[9:]), ""),
    "gzip, empty": (OK + GZIP + sized(b""), ""),
    "gzip, none": (OK + GZIP + sized(b"hi"), ""),
    "gzip, cut": (OK + GZIP + sized(gzip.compress(b"hi")[:-3]), ""),
    "gzip, garbage behind": (OK + GZIP + sized(gzip.compress(b"hi") + b"x"), ""),
    "gzip, with 204": (b"HTTP/1.1 204 No Content\r\n" + GZIP + b"\r\n", ""),
    "gzip twice": (
        OK + GZIP + b"content-encoding: GZIP\r\n" + sized(gzip.compress(gzip.compress(b"hi"))),
        "",
    ),
    "identity": (OK + b"Content-Encoding: identity\r\n" + sized(b"hi"), ""),
    "a coding that is none": (OK + b"Content-Encoding: rot13\r\n" + sized(b"hi"), ""),
    "cookies": (OK + COOKIES + sized(b"hi"), ""),
    "cookies and gzip": (OK + COOKIES + GZIP + sized(gzip.compress(b"hi")), ""),
    "cookies, cut": (OK + COOKIES + b"Content-Length: 5\r\n\r\nhi", "close"),
    "cookies, many": (OK + b"Set-Cookie: d=4; Max-Age=60\r\n" * 30 + sized(b"hi"), ""),
    "cookies, odd": (OK + b"set-COOKIE:  e = 5 ;x\r\nSet-Cookie: =\r\n" + sized(b"hi"), ""),
    "301": (b"HTTP/1.1 301 Moved\r\nLocation: /next\r\n" + sized(b"gone"), ""),
    "302 with cookies": (b"HTTP/1.1 302 F\r\nLocation: next\r\n" + COOKIES + sized(b""), ""),
    "302, closed": (b"HTTP/1.1 302 F\r\nLocation: /next\r\n\r\n", "close"),
    "302, never whole": (b"HTTP/1.1 302 F\r\nLocation: /next\r\nContent-Length: 9\r\n\r\n", ""),
    "302, large": (b"HTTP/1.1 302 F\r\nLocation: /next\r\n" + sized(bytes(200_000)), ""),
    "302 without Location": (b"HTTP/1.1 302 F\r\n" + sized(b"here"), ""),
    "302, two Locations": (
        b"HTTP/1.1 302 F\r\nLocation: /next\r\nLocation: /other\r\n" + sized(b""),
        "",
    ),
    "302 to nowhere": (b"HTTP/1.1 302 F\r\nLocation: ftp://x/\r\n" + sized(b""), ""),
    "302 to itself": (b"HTTP/1.1 302 F\r\nLocation: /x\r\n" + sized(b""), ""),
    "303": (b"HTTP/1.1 303 See\r\nLocation: /next\r\n" + sized(b""), ""),
    "307": (b"HTTP/1.1 307 T\r\nLocation: /next\r\n" + sized(b""), ""),
    "308": (b"HTTP/1.1 308 P\r\nLocation: /next\r\n" + sized(b""), ""),
    "300": (b"HTTP/1.1 300 Choices\r\nLocation: /next\r\n" + sized(b"choose"), ""),
    "401": (b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\n" + sized(b""), ""),
    "407": (b"HTTP/1.1 407 No\r\n" + sized(b""), ""),
    "500": (b"HTTP/1.1 500 Oh\r\n" + sized(b"no"), ""),
    "503": (b"HTTP/1.1 503 Later\r\nRetry-After: 1\r\n" + sized(b""), ""),
    "999": (b"HTTP/1.1 999 Odd\r\n" + sized(b""), ""),
    "cut in the head": (OK + b"Content-Le", "close"),
    "nothing at all": (b"", "close"),
    "a reset": (b"", "reset"),
    "cut in the body": (OK + b"Content-Length: 9\r\n\r\nhi", "close"),
    "reset in the body": (OK + b"Content-Length: 9\r\n\r\nhi", "reset"),
    "cut in a chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhi", "close"),
    "cut in the gzip": (OK + GZIP + b"Content-Length: 9\r\n\r\n\x1f\x8b", "close"),
    "no HTTP": (b"SSH-2.0-OpenSSH\r\n", "close"),
    "HTTP/2": (b"HTTP/2 200 OK\r\n\r\n", "close"),
    "a field that is none": (OK + b"Bad Field\r\n" + sized(b"hi"), ""),
    "two lengths": (OK + b"Content-Length: 1\r\n" + sized(b"hi"), ""),
    "a chunk that is none": (OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", ""),
    "900 fields": (OK + b"X: y\r\n" * 900 + sized(b"hi"), ""),
    "1100 fields": (OK + b"X: y\r\n" * 1100 + sized(b"hi"), ""),
    "200 KiB of head": (OK + b"X: %b\r\n" % (b"y" * 200_000) + sized(b"hi"), ""),
    "300 KiB of head": (OK + b"X: %b\r\n" % (b"y" * 300_000) + sized(b"hi"), ""),
    "two responses": (HI + HI, ""),
}

SHORT: dict[str, Any] = {}
LONG: dict[str, Any] = {"resend_stale": True}
"""An option that changes nothing, but that only a Call supports."""


class Case:
    """A server with one response for ``/x``, and what a client makes of it in either way."""

    def __init__(self, data: bytes, end: str, pieces: int) -> None:
        self._end = end
        size = max(1, len(data) // pieces)
        self._pieces = [data[at : at + size] for at in range(0, len(data), size)]

    async def script(self, conn: Any) -> None:
        while True:
            head, _ = await conn.read_request()
            if b" /x HTTP" not in head:
                await conn.send(HI)
                continue
            await conn.send(*self._pieces)
            if self._end == "close":
                await conn.let_client_read()
                await conn.close()
                return
            if self._end == "reset":
                await conn.reset()
                return

    async def seen(self, method: str, options: dict[str, Any], **settings: Any) -> dict[str, Any]:
        """Return all that can be seen of a request and its response."""
        seen: dict[str, Any] = {}
        async with ScriptedServer(self.script) as server:
            timeout = Timeout(read=0.03) if self._end == "" else 30
            async with Client(trust_env=False, timeout=timeout, **settings) as client:
                await client.get(f"{server.url}warm")
                try:
                    response = await client.request(method, f"{server.url}x", **options)
                except Exception as exc:
                    seen |= self._error(exc)
                else:
                    seen |= self._response(response)
                    seen["history"] = [self._response(each) for each in response.history]
                seen["kept"] = sorted(str(cookie) for cookie in client.cookies or ())
                stats = client.stats()
                seen["stats"] = (stats.leased, stats.queued)
            seen["sent"] = server.received
            text = re.sub(rf"\b(127\.0\.0\.1(:|', )){server.port}\b", "PORT", repr(seen))
        # How long it took, and the moment at which a cookie expires.
        seen["text"] = re.sub(r"[0-9.]+ m?s\b|expires=[0-9]+", "TIME", text)
        return seen

    @staticmethod
    def _error(exc: Exception) -> dict[str, Any]:
        names = ("url", "method", "phase", "peer", "request_sent", "response_started", "partial")
        return {
            "error": type(exc),
            "message": str(exc),
            "cause": repr(exc.__cause__),
            "attributes": {name: getattr(exc, name, None) for name in names},
            "history": [each.status for each in getattr(exc, "history", [])],
        }

    @staticmethod
    def _response(response: Response) -> dict[str, Any]:
        return {
            "status": response.status,
            "reason": response.reason,
            "method": response.method,
            "url": response.url,
            "headers": response.headers.items(),
            "content": (len(response.content), zlib.crc32(response.content), response.text[:100]),
            "reused": response.reused,
            "whole": response.raw.isclosed(),
            "trailers": response.raw.trailers.items(),
            "phases": [part is not None for part in response.timings],
        }


@pytest.mark.parametrize("name", RESPONSES)
async def test_the_short_way_gives_what_the_long_way_gives(name, calls, ticking):
    data, end = RESPONSES[name]
    for pieces in (1, 2, 7):
        case = Case(data, end, pieces)
        for method in ("GET", "HEAD", "DELETE") if pieces == 1 else ("GET",):
            calls.clear()
            short = await case.seen(method, SHORT)
            # The warm-up; if /x leads elsewhere, that too.
            assert len(calls) == 1 + (REDIRECTS.get(name, 0))
            long = await case.seen(method, LONG)
            assert short["text"] == long["text"]
            without = await case.seen(method, SHORT, cookies=None, decompress=False)
            assert without["kept"] == []
            same = await case.seen(method, LONG, cookies=None, decompress=False)
            assert without["text"] == same["text"]


REDIRECTS = {
    name: 1
    for name, (data, _) in RESPONSES.items()
    if data[9:12] in (b"301", b"302", b"303", b"307", b"308")
}
"""The responses that a Call takes over."""


@pytest.mark.parametrize(
    "name", ["plain", "gzip", "cookies", "302 with cookies", "cut in the body"]
)
async def test_so_it_is_with_a_body(name, ticking):
    case = Case(*RESPONSES[name], pieces=1)
    for options in (
        {"json": {"a": [1, "ä"]}},
        {"data": {"a": "b c", "d": ["1", "2"]}},
        {"content": b"bytes"},
        {"content": b""},
        {"content": "text"},
        {"json": 0, "headers": {"Content-Type": "application/x"}, "params": {"q": "ü"}},
    ):
        for method in ("POST", "PUT", "PATCH"):
            short = await case.seen(method, options)
            long = await case.seen(method, options | LONG)
            assert short["text"] == long["text"]


OPTIONS: list[dict[str, Any]] = [
    {"headers": {"X-A": "b"}},
    {"headers": {"user-agent": "me"}},
    {"headers": {"User-Agent": None, "Accept": None}},
    {"headers": {"Accept-Encoding": None}},
    {"headers": {"Accept-Encoding": "br"}},
    {"headers": {"Range": "bytes=0-1"}},
    {"headers": {"Host": "other.example"}},
    {"headers": {"Cookie": "x=y"}},
    {"headers": {"X-A": 1}},
    {"headers": {"X-A": True}},
    {"headers": {"X-A": b"\xe4"}},
    {"headers": {b"X-A": "b"}},
    {"headers": [("X-A", "1"), ("X-A", "2")]},
    {"headers": {"Connection": "close"}},
    {"headers": {"Expect": "100-continue"}},
    {"headers": {"Authorization": "Bearer x"}},
    {"headers": {"bad name": "b"}},
    {"headers": {"X-A": "b\r\nX-Evil: 1"}},
    {"headers": {"X-A": ["b"]}},
    {"headers": {"X-A": "€"}},
    {"headers": {}},
    {"headers": None},
    {"params": {"a": "b c", "d": 1}},
    {"params": [("a", "1"), ("a", "2")]},
    {"params": {"a": None}},
    {"params": {"a": object()}},
    {"params": "a=b"},
    {"params": {}},
    {"params": None},
    {"timeout": 5},
    {"timeout": None},
    {"timeout": Timeout(total=5)},
    {"timeout": Timeout(read=5)},
    {"timeout": 0},
    {"timeout": "5"},
    {"json": None, "data": None, "content": None},
    {"json": {"a": 1}, "data": {"b": 2}},
    {"json": {1, 2}},
    {"content": 5},
    {"unknown": 1},
]


@pytest.mark.parametrize("options", OPTIONS, ids=shown)
async def test_so_it_is_with_options(options, ticking):
    case = Case(HI, "", 1)
    for method in ("GET", "POST"):
        short = await case.seen(method, options)
        long = await case.seen(method, options | LONG)
        assert short["text"] == long["text"]


@pytest.mark.parametrize("end", ["known", "unknown"])
async def test_what_can_be_read_once_is_read_once(end):
    """Both paths look at the options, but only one reads the iterator."""
    async with echoing() as (client, url):
        if end == "known":
            await client.get(url)
        response = await client.post(
            url,
            params=iter([("a", "b")]),
            data=iter([("c", "d")]),
            headers=iter([("X-A", "e")]),
        )
        first, *_ = response.text.splitlines()
        assert first == "POST /?a=b"
        assert "X-A: e" in response.text
        assert response.text.endswith("\n\nc=d")


@pytest.mark.parametrize("tls", [False, True])
async def test_a_body_in_several_reads_is_whole(tls, certificates):
    """uvloop, and TLS on both loops, read on before the task runs that waits for the head."""
    context = certificates.server if tls else None
    sizes = iter([size for size in range(256 * 1024 - 100, 256 * 1024 + 40, 20) for _ in range(2)])

    async def script(conn: Any) -> None:
        while True:
            await conn.read_request()
            await conn.send(OK + sized(CONTENT[: next(sizes)]))

    async with (
        ScriptedServer(script, tls=context) as server,
        Client(trust_env=False, context=certificates.client) as client,
    ):
        url = f"{server.url}".replace("127.0.0.1", "localhost")
        for size in range(256 * 1024 - 100, 256 * 1024 + 40, 20):
            for _ in range(2):
                assert (await client.get(url)).content == CONTENT[:size]


CONTENT = bytes(range(256)) * 1025


# ------------------------------------------------------------------------ known origins

HOSTS = st.sampled_from(
    """
    h h.example H h. h.. 127.0.0.1 127.0.0.1. 0x7f.1 2130706433 [::1] [::1%25eth0] [::FFFF:1.2.3.4]
    bücher.example xn--bcher-kva.example h_x a%62c h%2fx user@h user:pw@h u@v@h h\\x h;x h,x h!x
    """.split()
)
PORTS = st.sampled_from(["", ":", ":80", ":443", ":8080", ":0080", ":0", ":65536", ":x", ":80:80"])
SCHEMES = st.sampled_from(["http://", "https://", "HTTP://", "Https://", "http:/", "ftp://", "//"])
TAILS = st.text(alphabet="/?#@\\%:.a2f ;&=[]\u00e4", max_size=8)
URLS = st.one_of(
    st.tuples(SCHEMES, HOSTS, PORTS, TAILS).map("".join),
    st.text(alphabet="htps:/?#@\\%.a[]0 ", max_size=30).map("http://".__add__),
)


class Nowhere:
    """Stands in for a client's call, so that no request is sent."""

    def __init__(self, context: Any, method: str, url: str, *args: Any, **keywords: Any) -> None:
        split_url(url)

    async def run(self) -> None:
        return None


@given(st.lists(URLS, max_size=6), st.sampled_from(["", "http://h.example/b", "http://h//b/"]))
@example(["http://h/x", "http://h?/x"], "")
@example(["http://h/x", "http://h#/x", "http://h\\/x"], "")
@example(["http://h@evil/x", "http://h/x"], "")
@example(["http://h:80/x", "http://h/x"], "")
def test_what_is_known_of_an_origin_is_what_its_url_says(urls, base):
    client = Client(trust_env=False, base_url=base)
    for url in urls:
        try:
            split_url(url)
        except InvalidURL:
            continue
        client._plain.remember_origin(url)
    for prefix, (pool, head, origin) in client._plain.origins.items():
        whole = split_url(f"{prefix}/some/path?q")
        assert whole == origin._replace(target="/some/path?q")
        assert whole.text == f"{prefix}/some/path?q"
        assert pool.key[:3] == whole.origin
        assert head == f" HTTP/1.1\r\nHost: {whole.authority}\r\nConnection: keep-alive\r\n"


@given(st.lists(URLS, min_size=1, max_size=4), URLS)
def test_the_short_way_is_taken_only_where_it_leads_to_the_same(learned, url):
    """With any origins remembered, origin and target are those of split_url."""
    client = Client(trust_env=False)
    for each in [*learned, url]:
        with contextlib.suppress(InvalidURL):
            split_url(each)
            client._plain.remember_origin(each)
    slash = url.find("/", 8)
    known = client._plain.origins.get(url[:slash])
    if known is not None and match_target(url, slash) is not None:
        expected = split_url(url)
        assert known[2]._replace(target=url[slash:]) == expected
        assert expected.text == url


async def test_an_origin_is_learned_once_it_has_answered(calls):
    async with echoing() as (client, url):
        for _ in range(3):
            await client.get(f"{url}a?b")
        assert calls == [f"{url}a?b"]
        # Whatever is not as it is sent, takes the longer way.
        for odd in (f"{url}a#b", f"{url}ä", f"{url}a b", url.replace("http", "HTTP"), url[:-1]):
            calls.clear()
            await client.get(odd)
            await client.get(odd)
            assert calls == [odd, odd]


async def test_an_origin_that_did_not_answer_is_not_learned(calls):
    with refusing_address() as (host, port):
        async with Client(trust_env=False) as client:
            for _ in range(2):
                with pytest.raises(ConnectionRefusedError):
                    await client.get(f"http://{host}:{port}/")
            assert len(calls) == 2
            assert client._plain.origins == {}


async def test_a_site_that_was_forgotten_is_learned_again(calls, monkeypatch):
    async with serve(echo) as server, serve(echo) as other:
        async with Client(trust_env=False, keepalive_timeout=15) as client:
            await client.get(server.url)
            origin = client._plain.origins[server.url[:-1]].pool
            origin.evicted = True
            del client._connections.scheduler.origins[origin.key]
            await client.get(server.url)
            await client.get(server.url)
            assert len(calls) == 2
            assert client._plain.origins[server.url[:-1]].pool is not origin
            await client.get(other.url)


async def test_what_is_remembered_has_bounds(monkeypatch):
    monkeypatch.setattr(plain_module, "MAX_ORIGINS", 4)
    numbers = iter(range(1000))

    def reply(request: Request) -> Reply:
        return Reply(headers={"X-Number": str(next(numbers)), "X-Large": request.target})

    async with serve(reply) as server:
        hosts = {f"h{number}.example": "127.0.0.1" for number in range(10)}
        async with Client(trust_env=False, resolve=hosts) as client:
            for host in hosts:
                for _ in range(20):
                    url = f"http://{host}:{server.port}/"
                    await client.get(url, headers={"X-A": str(next(numbers))})
            assert len(client._plain.origins) <= 4
            assert len(client._plain.inspected_heads) <= plain_module.MAX_INSPECTED
            assert len(client._plain.encoded_fields) <= plain_module.MAX_ENCODED
            client._plain.inspected_heads.clear()
            for _ in range(2):
                await client.get(f"{url}{'x' * 5000}")
            assert client._plain.inspected_heads == {}


# ------------------------------------------------------------------- methods and bodies

AGENT = b"Accept: */*\r\nUser-Agent: "
CODINGS = b"Accept-Encoding: gzip, deflate, br, zstd\r\n"


async def received(client: Client, method: str, path: str = "/", **options: Any) -> bytes:
    """Return the bytes that a request is; its Host, Connection and User-Agent are cut out."""
    async with ScriptedServer([expect_request(), send(HI)]) as server:
        await client.request(method, f"{server.url.rstrip('/')}{path}", **options)
        (data,) = server.received
    data = data.replace(b"Host: 127.0.0.1:%d\r\n" % server.port, b"")
    data = data.replace(b"Connection: keep-alive\r\n", b"")
    return re.sub(rb"User-Agent: aiohttpconn/[^\r\n]+\r\n", b"", data)


DEFAULT = CODINGS + b"Accept: */*\r\n"


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "PURGE", "TRACE"])
async def test_a_request_without_a_body(client, method):
    sent = await received(client, method, "/a/b?c=d")
    assert sent == method.encode() + b" /a/b?c=d HTTP/1.1\r\n" + DEFAULT + b"\r\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_a_request_without_the_body_that_it_should_have(client, method):
    sent = await received(client, method)
    assert sent == (method.encode() + b" / HTTP/1.1\r\nContent-Length: 0\r\n" + DEFAULT + b"\r\n")


@pytest.mark.parametrize("method", ["get", "Post", "pUT", "head", "patch", "delete", "options"])
async def test_the_usual_methods_may_be_written_in_any_case(client, method):
    sent = await received(client, method)
    assert sent.startswith(method.upper().encode() + b" / ")


async def test_other_methods_are_sent_as_they_are(client):
    assert (await received(client, "purge")).startswith(b"purge / ")


@pytest.mark.parametrize("options", [{}, {"content": [b"a", b"b"]}, {"content": bytes(100_000)}])
async def test_a_request_asks_to_keep_the_connection(options):
    # Apache sends its Keep-Alive limits only to clients that send this field.
    for own in {}, {"Connection": "close"}:
        async with echoing(base_url="") as (client, url):
            for _ in range(2):
                response = await client.post(url, headers=own, **options)
                fields = [line for line in response.text.split("\n") if "onnection: " in line]
                assert fields == [f"Connection: {own.get('Connection', 'keep-alive')}"]


VERBS = ["get", "head", "post", "put", "patch", "delete", "options"]


@pytest.mark.parametrize("verb", VERBS)
async def test_each_method_has_a_function(verb):
    async with echoing(base_url="") as (client, url):
        response = await getattr(client, verb)(f"{url}x", params={"a": "b"}, headers={"X-A": "1"})
        assert response.method == verb.upper()
        if verb != "head":
            assert response.text.startswith(f"{verb.upper()} /x?a=b\n")
            assert "X-A: 1\n" in response.text


async def one_by_one(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        await asyncio.sleep(0)
        yield part


FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"

BODIES: dict[str, tuple[Callable[[], dict[str, Any]], bytes, bytes]] = {
    "bytes": (lambda: {"content": b"ab"}, b"Content-Length: 2\r\n", b"ab"),
    "no bytes": (lambda: {"content": b""}, b"Content-Length: 0\r\n", b""),
    "text": (
        lambda: {"content": "ä"},
        b"Content-Length: 2\r\nContent-Type: text/plain; charset=utf-8\r\n",
        b"\xc3\xa4",
    ),
    "large bytes": (
        lambda: {"content": b"x" * 70_000},
        b"Content-Length: 70000\r\n",
        b"x" * 70_000,
    ),
    "a memoryview": (lambda: {"content": memoryview(b"ab")}, b"Content-Length: 2\r\n", b"ab"),
    "a list": (lambda: {"content": [b"a", b"b"]}, b"Content-Length: 2\r\n", b"ab"),
    "a generator": (
        lambda: {"content": (part for part in (b"a", b"b"))},
        CHUNKED,
        b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n",
    ),
    "an async generator": (
        lambda: {"content": one_by_one(b"a", b"b")},
        CHUNKED,
        b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n",
    ),
    "json": (
        lambda: {"json": {"ä": [1, None]}},
        b"Content-Length: 15\r\nContent-Type: application/json\r\n",
        '{"ä":[1,null]}'.encode(),
    ),
    "json, false": (
        lambda: {"json": False},
        b"Content-Length: 5\r\nContent-Type: application/json\r\n",
        b"false",
    ),
    "a form": (
        lambda: {"data": {"a": "b c", "d": ["1", "2"], "e": None}},
        b"Content-Length: 13\r\n" + FORM,
        b"a=b+c&d=1&d=2",
    ),
    "a form of pairs": (lambda: {"data": [("a", "1")]}, b"Content-Length: 3\r\n" + FORM, b"a=1"),
    "a form that is encoded": (lambda: {"data": "a=1"}, b"Content-Length: 3\r\n" + FORM, b"a=1"),
    "an empty form": (lambda: {"data": {}}, b"Content-Length: 0\r\n" + FORM, b""),
    "a type of its own": (
        lambda: {"json": 1, "headers": {"content-type": "application/x"}},
        b"Content-Length: 1\r\ncontent-type: application/x\r\n",
        b"1",
    ),
    "nothing": (
        lambda: {"content": None, "json": None, "data": None, "files": None},
        b"Content-Length: 0\r\n",
        b"",
    ),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_body_is_sent_as(client, name):
    make, fields, body = BODIES[name]
    for method in ("POST", "PUT", "PATCH"):
        sent = await received(client, method, **make())
        head, _, rest = sent.partition(b"\r\n\r\n")
        assert rest == body
        lines = head.split(b"\r\n")
        assert lines[0] == method.encode() + b" / HTTP/1.1"
        assert sorted(lines[1:]) == sorted((DEFAULT + fields).split(b"\r\n")[:-1])


async def test_files_are_a_multipart_form_of_known_length(client, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"content")
    with path.open("rb") as file:
        sent = await received(client, "POST", data={"b": "c"}, files={"f": file})
    head, _, body = sent.partition(b"\r\n\r\n")
    boundary = re.search(rb"Content-Type: multipart/form-data; boundary=(\S+)", head)
    assert boundary is not None
    assert b"Content-Length: %d" % len(body) in head
    assert body.startswith(b"--%b\r\n" % boundary[1])
    assert b'name="b"\r\n\r\nc\r\n' in body
    assert b'name="f"; filename="a.txt"' in body
    assert b"content\r\n--%b--" % boundary[1] in body


async def test_a_get_may_have_a_body(client):
    sent = await received(client, "GET", content=b"ab")
    assert sent == b"GET / HTTP/1.1\r\nContent-Length: 2\r\n" + DEFAULT + b"\r\nab"


async def test_one_body_at_a_time(client):
    with pytest.raises(TypeError) as caught:
        await client.post("http://h/", json=1, content=b"")
    assert str(caught.value) == (
        "a request has one body, got json= and content=: only data= and files= go together"
    )


async def test_what_leaves_http_is_refused(client):
    async with ScriptedServer() as server:
        for method, headers in (
            ("CONNECT", {}),
            ("GET", {"Upgrade": "websocket", "Connection": "Upgrade"}),
            ("GET", {"UPGRADE": "h2c"}),
        ):
            with pytest.raises(ValueError, match="need their own connection") as caught:
                await client.request(method, server.url, headers=headers)
            assert "client.pool.connection(url)" in str(caught.value)
        assert server.connections == 0


# ---------------------------------------------------------------- arguments and options


async def test_what_a_client_has_unless_it_is_told():
    async with Client() as client:
        settings = client._state.settings
        assert settings.timeout == Timeout(connect=10, read=30, write=30, pool=60)
        assert (settings.follow_redirects, settings.max_redirects) == (True, 10)
        assert (settings.decompress, settings.max_body, settings.retry) == (True, None, None)
        assert (settings.resend_stale, settings.auth) == (True, None)
        assert isinstance(client.cookies, CookieStore)
        scheduler = client.pool._connections.scheduler
        # An eighth of all connections is for other hosts than the one that has most.
        assert (scheduler.limit, scheduler.limit_per_host, scheduler.reserve) == (114, 100, 14)
        assert isinstance(client.pool, ConnectionPool)
    assert (CLIENT_LIMITS.max_fields, CLIENT_LIMITS.max_head_bytes) == (1000, 256 * 1024)


CLIENT_LIMITS = client_module.CLIENT_LIMITS


async def test_its_limits_are_for_the_head_of_a_response():
    async def script(conn: Any) -> None:
        while True:
            head, _ = await conn.read_request()
            kind, number = re.search(rb"/([a-z]+)/([0-9]+) ", head).groups()
            fields = b"X: y\r\n" * int(number)
            if kind == b"size":
                fields = b"X: %b\r\n" % (b"y" * (int(number) - 43))
            await conn.send(OK + fields + b"Content-Length: 0\r\n\r\n")

    async with ScriptedServer(script) as server, Client(trust_env=False) as client:
        assert (await client.get(f"{server.url}fields/999")).status == 200
        assert (await client.get(f"{server.url}size/262144")).status == 200
        with pytest.raises(HTTPException, match="more than 1000 headers"):
            await client.get(f"{server.url}fields/1000")
        with pytest.raises(HeadTooLarge, match="more than 262144 bytes"):
            await client.get(f"{server.url}size/262145")
    async with (
        ScriptedServer(script) as server,
        Client(trust_env=False, limits=Limits(max_fields=5)) as client,
    ):
        with pytest.raises(HTTPException, match="more than 5 headers"):
            await client.get(f"{server.url}fields/5")


async def test_an_option_that_there_is_not_is_named(client):
    for made in (
        lambda: client.get("http://h/", allow_redirects=False),
        lambda: client.post("http://h/", allow_redirects=False, json=1),
    ):
        with pytest.raises(TypeError) as caught:
            await made()
        assert str(caught.value).startswith(
            "unknown options: allow_redirects (here: follow_redirects=); there are allow_"
        )
    for lazy in (client.stream, client.fetch_many):
        with pytest.raises(TypeError, match=r"unknown options: verify \(here: context="):
            lazy("GET", "http://h/", verify=False) if lazy == client.stream else lazy(
                [], verify=False
            )


@pytest.mark.parametrize("url", [b"http://h/", None, 5, ["http://h/"]])
async def test_a_url_is_a_str(client, url):
    for options in ({}, {"params": {"a": "b"}}, {"json": 1}):
        with pytest.raises(TypeError) as caught:
            await client.get(url, **options)
        assert str(caught.value) == f"a URL must be a str, not {type(url).__name__}: {url!r}"
    async with Client(base_url="http://h") as based:
        with pytest.raises(TypeError, match="a URL must be a str"):
            await based.get(url)


async def test_a_url_must_be_whole_without_a_base(client):
    for url in ("/path", "path", "example.org", "localhost:8080/x", ""):
        with pytest.raises(InvalidURL, match=re.escape(f"cannot use the URL {url!r}")):
            await client.get(url)


JOINS = {
    ("", "x"): "/x",
    ("", "/x"): "/x",
    ("/", "/x"): "/x",
    ("", ""): "/",
    ("/v1", "x"): "/v1/x",
    ("/v1", "/x"): "/v1/x",
    ("/v1/", "/x"): "/v1/x",
    ("/v1/", "x/y?z"): "/v1/x/y?z",
    ("/v1", ""): "/v1",
    ("/v1", "?a=b"): "/v1?a=b",
    ("/v1//", "x"): "/v1/x",
}


@pytest.mark.parametrize(("base", "url"), JOINS)
async def test_a_url_is_below_its_base(base, url, calls):
    async with serve(echo) as server:
        root = server.url.rstrip("/")
        async with Client(trust_env=False, base_url=f"{root}{base}") as client:
            for _ in range(2):
                response = await client.get(url)
                assert response.text.startswith(f"GET {JOINS[base, url]}\n")
                assert response.url == f"{root}{JOINS[base, url]}"


async def test_an_absolute_url_needs_no_base():
    async with echoing(base_url="http://elsewhere.example/") as (client, url):
        for _ in range(2):
            assert (await client.get(f"{url}x")).url == f"{url}x"


@pytest.mark.parametrize("url", ["//evil.example/x", "http:x", "https:/x", "\\\\evil", "ftp://h/"])
async def test_a_url_does_not_lead_away_from_its_base(url):
    async with Client(base_url="http://h.example/b") as client:
        with pytest.raises(InvalidURL):
            await client.get(url)


@pytest.mark.parametrize("base", ["http://h?a=b", "http://h/#x", "http://u:pw@h/?x"])
def test_a_base_has_neither_query_nor_fragment(base):
    with pytest.raises(InvalidURL) as caught:
        Client(base_url=base)
    assert str(caught.value) == (
        f"base_url must have neither a query nor a fragment, got {base.replace('u:pw@', '')!r}: "
        "params= are sent with every request"
    )


@pytest.mark.parametrize("base", ["h.example", "/x", "ftp://h", "http://", "http://h:x"])
def test_a_base_is_a_url(base):
    with pytest.raises(InvalidURL, match="cannot use the URL"):
        Client(base_url=base)


async def test_headers_of_client_and_request():
    client_headers = [("X-A", "1"), ("X-B", "2"), ("x-b", "3"), ("User-Agent", "me")]
    async with echoing(headers=client_headers) as (client, url):
        for options in (SHORT, LONG):
            text = (await client.get(url, **options)).text
            assert "X-A: 1\nX-B: 2\nx-b: 3\n" in text
            assert "User-Agent: me\n" in text
            text = (await client.get(url, headers={"x-B": "4", "X-A": None}, **options)).text
            assert "X-A" not in text
            assert "x-B: 4\n" in text
            assert "3" not in text.partition("x-B")[2]
            # What a request changes, it changes for itself.
            assert "X-A: 1\nX-B: 2\nx-b: 3\n" in (await client.get(url, **options)).text


async def test_a_host_of_the_callers():
    async with echoing(headers={"Host": "a.example"}) as (client, url):
        for options in ({}, {"headers": {"X-A": "1"}}, LONG):
            text = (await client.get(url, **options)).text
            assert text.count("Host: a.example\n") == text.count("Host:") == 1
        text = (await client.get(url, headers={"host": "b.example"})).text
        assert text.count("b.example") == text.lower().count("host:") == 1


async def test_params_of_client_and_request():
    async with echoing(params=iter([("key", "k"), ("a", "1")])) as (client, url):
        for _ in range(2):
            assert (await client.get(f"{url}?z#f")).text.startswith("GET /?z&key=k&a=1\n")
        text = (await client.get(url, params={"a": "2", "b": "3"})).text
        assert text.startswith("GET /?key=k&a=2&b=3\n")
        assert (await client.get(url, params={"a": None})).text.startswith("GET /?key=k\n")
        assert (await client.get(url, params=iter([("a", "x")]))).text.startswith("GET /?key=k&a=x")


@pytest.mark.parametrize("params", ["a=b", b"a=b"])
async def test_params_are_not_a_query(params, client):
    with pytest.raises(TypeError) as caught:
        await client.get("http://h/", params=params)
    assert str(caught.value) == (
        f"params must be a mapping or pairs, not {params!r}: an encoded query goes into the URL"
    )
    with pytest.raises(TypeError, match="params must be a mapping or pairs"):
        Client(params=params)


async def test_timeouts_of_client_and_request(ticking):
    """Each gives up where the other would not."""
    go_on = asyncio.Event()
    script = [answer(HI), answer(HI, fault=stall_at(4))]
    patient = [answer(HI), answer(HI, fault=stall_at(4, go_on))]
    async with ScriptedServer(script, patient) as server:
        async with Client(trust_env=False, timeout=Timeout(read=60)) as client:
            await client.get(server.url)
            with pytest.raises(ReadTimeout, match=r"no response within 0\.01 s"):
                await client.get(server.url, timeout=0.01)
        async with Client(trust_env=False, timeout=0.01) as client:
            await client.get(server.url, timeout=None)
            task = asyncio.ensure_future(client.get(server.url, timeout=None))
            while not server.conns[-1].heads[1:]:
                await asyncio.sleep(0)
            await ticking.sleep(0.02)
            go_on.set()
            assert (await task).content == b"hi"


async def test_a_number_leaves_the_wait_for_a_connection_as_it_is(ticking):
    go_on = asyncio.Event()
    async with ScriptedServer([answer(HI, fault=stall_at(0, go_on)), answer(HI)]) as server:
        async with Client(trust_env=False, limit=1, timeout=Timeout(read=5, pool=0.02)) as client:
            first = asyncio.ensure_future(client.get(server.url))
            await server.wait_connections(1)
            for options in ({}, {"timeout": 9}, {"timeout": 9, "resend_stale": True}):
                with pytest.raises(PoolTimeout) as caught:
                    await client.get(f"{server.url}x", **options)
                assert str(caught.value).startswith(
                    f"GET {server.url}x: no connection was free within 0.02 s "
                    "(waiting for a connection, "
                )
            go_on.set()
            await first


async def test_decompress_of_client_and_request():
    def reply(request: Request) -> Reply:
        coding = request.headers["Accept-Encoding"]
        return Reply(gzip.compress(coding.encode()), headers={"Content-Encoding": "gzip"})

    def undone(response: Response) -> str:
        return gzip.decompress(response.content).decode()

    async with serve(reply) as server:
        async with Client(trust_env=False) as client:
            for _ in range(2):
                assert (await client.get(server.url)).text == "gzip, deflate, br, zstd"
            assert undone(await client.get(server.url, decompress=False)) == "identity"
            response = await client.get(
                server.url, decompress=False, headers={"Accept-Encoding": "gzip"}
            )
            assert undone(response) == "gzip"
        async with Client(trust_env=False, decompress=False) as client:
            for _ in range(2):
                assert undone(await client.get(server.url)) == "identity"
            response = await client.get(server.url, decompress=True)
            assert response.text == "gzip, deflate, br, zstd"
        async with Client(trust_env=False, headers={"accept-encoding": "gzip"}) as client:
            assert (await client.get(server.url)).text == "gzip"
            assert undone(await client.get(server.url, decompress=False)) == "gzip"


async def test_a_range_is_asked_for_of_what_is_not_encoded():
    """Half of a gzip stream is of no use; whoever wants it asks for it."""
    async with echoing() as (client, url):
        for options in ({}, LONG):
            text = (await client.get(url, headers={"Range": "bytes=5-"}, **options)).text
            assert "Accept-Encoding: identity\n" in text
            headers = {"Range": "bytes=5-", "Accept-Encoding": "gzip"}
            assert (
                "Accept-Encoding: gzip\n"
                in (await client.get(url, headers=headers, **options)).text
            )


async def test_max_body_and_max_ratio_of_client_and_request():
    bomb = gzip.compress(bytes(9 * 1024 * 1024))
    replies = {"/": "x" * 100, "/bomb": Reply(bomb, headers={"Content-Encoding": "gzip"})}
    async with serve(replies) as server:
        async with Client(trust_env=False, max_body=99) as client:
            with pytest.raises(BodyTooLarge):
                await client.get(server.url)
            assert (await client.get(server.url, max_body=100)).text == "x" * 100
            assert (await client.get(server.url, max_body=None)).text == "x" * 100
        async with Client(trust_env=False) as client:
            with pytest.raises(BodyTooLarge):
                await client.get(server.url, max_body=99)
            with pytest.raises(ContentDecodingError, match="bomb"):
                await client.get(f"{server.url}bomb")
            response = await client.get(f"{server.url}bomb", max_ratio=None)
            assert len(response.content) == 9 * 1024 * 1024
        async with Client(trust_env=False, max_ratio=None) as client:
            assert (await client.get(f"{server.url}bomb")).status == 200
            with pytest.raises(ContentDecodingError, match="bomb"):
                await client.get(f"{server.url}bomb", max_ratio=2)


async def test_redirect_settings_of_client_and_request():
    def reply(request: Request) -> Reply:
        number = int(request.path.strip("/") or 0)
        return (
            Reply(status=302, headers={"Location": f"/{number + 1}"}) if number < 5 else Reply("5")
        )

    async with serve(reply) as server:
        async with Client(trust_env=False) as client:
            assert (await client.get(server.url)).text == "5"
            assert (await client.get(server.url, follow_redirects=False)).status == 302
            with pytest.raises(TooManyRedirects, match="more than max_redirects=4: "):
                await client.get(server.url, max_redirects=4)
            assert (await client.get(server.url, max_redirects=5)).text == "5"
        async with Client(trust_env=False, follow_redirects=False) as client:
            for _ in range(2):
                assert (await client.get(server.url)).status == 302
            assert (await client.get(server.url, follow_redirects=True)).text == "5"
        async with Client(trust_env=False, max_redirects=1) as client:
            for _ in range(2):
                with pytest.raises(TooManyRedirects):
                    await client.get(server.url)
            assert (await client.get(server.url, max_redirects=9)).text == "5"


async def test_allow_downgrade_of_client_and_request(certificates):
    async with serve({"/": "plain"}) as plain:
        location = {"Location": plain.url}
        async with serve(
            {"/": Reply(status=301, headers=location)}, tls=certificates.server
        ) as tls:
            url = f"https://localhost:{tls.port}/"
            options: dict[str, Any] = {"trust_env": False, "context": certificates.client}
            async with Client(**options) as client:
                with pytest.raises(RedirectRefused, match="allow_downgrade=True follows it"):
                    await client.get(url)
                assert (await client.get(url, allow_downgrade=True)).text == "plain"
            async with Client(**options, allow_downgrade=True) as client:
                assert (await client.get(url)).text == "plain"
                with pytest.raises(RedirectRefused):
                    await client.get(url, allow_downgrade=False)


async def test_auth_of_client_and_request():
    async with echoing(auth=("me", "pw")) as (client, url):
        assert "Authorization: Basic bWU6cHc=\n" in (await client.get(url)).text
        assert "Authorization: Basic YTpi\n" in (await client.get(url, auth=("a", "b"))).text
        assert "Authorization" not in (await client.get(url, auth=None)).text


async def test_retry_of_client_and_request():
    retry = Retry(attempts=2, backoff=0)
    async with serve({"/": Reply(status=503)}) as server:
        async with Client(trust_env=False) as client:
            for options, requests in (({}, 1), ({"retry": retry}, 2), ({"retry": None}, 1)):
                server.requests.clear()
                assert (await client.get(server.url, **options)).status == 503
                assert len(server.requests) == requests
        async with Client(trust_env=False, retry=retry) as client:
            for options, requests in (({}, 2), ({"retry": None}, 1)):
                server.requests.clear()
                await client.get(server.url, **options)
                assert len(server.requests) == requests


async def test_resend_stale_of_client_and_request():
    """A connection that dies without a byte of an answer, once it has served a request."""
    dies = [answer(HI), expect(), close()]
    for kept, options, works in (
        (True, {}, True),
        (True, {"resend_stale": False}, False),
        (False, {}, False),
        (False, {"resend_stale": True}, True),
    ):
        async with (
            ScriptedServer(dies, [answer(HI)]) as server,
            Client(trust_env=False, resend_stale=kept) as client,
        ):
            await client.get(server.url)
            if works:
                assert (await client.get(server.url, **options)).content == b"hi"
            else:
                with pytest.raises(ConnectionResetError, match="without response"):
                    await client.get(server.url, **options)


async def test_proxy_of_client_and_request():
    """The proxy is asked for whole URLs, of http; the origin for paths."""
    async with serve(echo) as proxy, serve(echo) as other, serve(echo) as origin:
        url = origin.url
        async with Client(trust_env=False, proxy=proxy.url) as client:
            for _ in range(2):
                assert (await client.get(f"{url}x")).text.startswith(f"GET {url}x\n")
            assert (await client.get(f"{url}x", proxy=None)).text.startswith("GET /x\n")
            assert len(origin.requests) == 1
            assert (await client.get(f"{url}x", proxy=other.url)).text.startswith(f"GET {url}x\n")
            assert len(other.requests) == 1
            # Of the calls before nothing has stayed.
            assert (await client.get(f"{url}x")).text.startswith(f"GET {url}x\n")
        async with Client(trust_env=False) as client:
            assert (await client.get(f"{url}x")).text.startswith("GET /x\n")
            rules = {"http": None, f"http://127.0.0.1:{origin.port}": proxy.url}
            assert (await client.get(f"{url}x", proxy=rules)).text.startswith(f"GET {url}x\n")
            assert (await client.get(f"{url}x")).text.startswith("GET /x\n")


async def test_errors_by_way_of_a_proxy_name_the_url():
    async with (
        ScriptedServer(
            [answer(HI), expect(), reset()], [expect(), send(b"nonsense\r\n"), close()]
        ) as proxy,
        Client(trust_env=False, proxy=proxy.url, resend_stale=False) as client,
    ):
        url = "http://origin.example/x"
        response = await client.get(url)
        assert response.url == url
        for _ in range(2):
            with pytest.raises((ConnectionResetError, HTTPException)) as caught:
                await client.get(url)
            assert str(caught.value).startswith(f"GET {url}: ")
            assert caught.value.url == url


async def test_the_environment_names_proxies_unless_it_is_not_trusted(monkeypatch):
    async with serve(echo) as proxy, serve(echo) as origin:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        url = origin.url
        async with Client() as client:
            assert (await client.get(url)).text.startswith(f"GET {url}\n")
            assert (await client.get(url, proxy=None)).text.startswith("GET /\n")
        for options in ({"trust_env": False}, {"proxy": None}):
            async with Client(**options) as client:
                assert (await client.get(url)).text.startswith("GET /\n")
        monkeypatch.setenv("no_proxy", "127.0.0.0/8")
        async with Client() as client:
            assert (await client.get(url)).text.startswith("GET /\n")


async def test_a_proxy_of_the_environment_that_cannot_be_used_fails_its_own_requests(monkeypatch):
    async with serve(echo) as origin:
        monkeypatch.setenv("https_proxy", "quic://user:s3cret@proxy.test")
        monkeypatch.delenv("http_proxy", raising=False)
        async with Client() as client:
            for _ in range(2):
                assert (await client.get(origin.url)).status == 200
                with pytest.raises(InvalidURL) as caught:
                    await client.get("https://a.test/x")
                assert str(caught.value) == (
                    "https://a.test:443 needs the environment's https_proxy: cannot use the proxy "
                    "'quic://proxy.test': the proxy scheme 'quic' is not supported, "
                    "http, https, socks4, socks4a, socks5, socks5h are"
                )
            fetched = client.fetch_many(["https://a.test/", origin.url])
            assert [type(each.error) async for each in fetched if each.error] == [InvalidURL]


@pytest.mark.parametrize(
    ("proxy", "url", "text"),
    [
        (
            "socks4://user:s3cret@127.0.0.1:9",
            "http://[::1]:8/x",
            "http://[::1]:8 cannot be reached through the proxy socks4://***@127.0.0.1:9: "
            "a SOCKS4 proxy knows no IPv6 address, got '::1'",
        ),
        (
            "socks4a://127.0.0.1:9",
            "https://0.0.0.7/",
            "https://0.0.0.7 cannot be reached through the proxy socks4a://127.0.0.1:9: "
            "a SOCKS4 proxy cannot be asked for 0.0.0.7: it would expect a name",
        ),
        (
            "socks5h://127.0.0.1:9",
            "http://[fe80::1%25eth0]/",
            "http://[fe80::1] cannot be reached through the proxy socks5h://127.0.0.1:9: "
            "a host for a SOCKS proxy cannot have a zone, or any '%', got 'fe80::1%eth0'",
        ),
    ],
)
async def test_a_host_that_a_proxy_cannot_be_asked_for_is_an_invalid_url(proxy, url, text):
    async with Client(proxy=proxy) as client:
        with pytest.raises(InvalidURL) as caught:
            await client.get(url)
        assert str(caught.value) == text


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
async def test_the_environment_names_authorities_unless_it_is_not_trusted(
    name, certificates, monkeypatch, tmp_path
):
    for each in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, certificates.ca_file)
    proxy = ConnectProxy(tls=certificates.server)
    async with serve(echo, tls=certificates.server) as server, proxy:
        url = f"https://localhost:{server.port}/"
        async with Client() as client:
            assert (await client.get(url)).status == 200
            # An https proxy is no server of the caller's choice, and is verified all the same.
            through = f"https://localhost:{proxy.port}"
            assert (await client.get(url, proxy=through)).status == 200
        other = tmp_path / "other.pem"
        trustme.CA().cert_pem.write_to_path(str(other))
        # Whatever the caller gives comes first.
        for options in ({"trust_env": False}, {"cafile": str(other)}):
            async with Client(**options) as client:
                with pytest.raises(CertificateError):
                    await client.get(url)
        monkeypatch.setenv(name, str(tmp_path / "missing.pem"))
        async with Client() as client:
            with pytest.raises(FileNotFoundError, match=r"cannot read cafile: .*missing\.pem"):
                await client.get(url)
        async with Client(cafile=certificates.ca_file) as client:
            assert (await client.get(url)).status == 200


async def test_context_of_client_and_request(certificates):
    async with serve(echo, tls=certificates.server) as server:
        url = f"https://localhost:{server.port}/"
        async with Client(trust_env=False) as client:
            with pytest.raises(CertificateError):
                await client.get(url)
            for _ in range(2):
                assert (await client.get(url, context=certificates.client)).status == 200
            # Its connection is not for those that verify by other authorities.
            with pytest.raises(CertificateError):
                await client.get(url)
        async with Client(trust_env=False, cafile=certificates.ca_file) as client:
            assert (await client.get(url)).status == 200
            assert (await client.get(url)).reused is True
        with pytest.raises(ValueError, match="cafile= makes a context"):
            Client(context=certificates.client, cafile=certificates.ca_file)


async def test_cookies_are_kept_unless_they_are_off():
    def reply(request: Request) -> Reply:
        name = request.path.strip("/")
        return Reply(request.headers.get("Cookie", ""), headers={"Set-Cookie": f"{name}=1"})

    async with serve(reply) as server:
        url = server.url
        async with Client(trust_env=False) as client:
            assert (await client.get(f"{url}a")).text == ""
            assert (await client.get(f"{url}b")).text == "a=1"
            assert (await client.get(f"{url}b", cookies={"x": "y"})).text == "a=1; b=1; x=y"
            assert (await client.get(f"{url}b", headers={"Cookie": "mine"})).text == "mine"
            assert (await client.get(f"{url}c", cookies=None)).text == ""
            assert (await client.get(f"{url}a", cookies={})).text == "a=1; b=1"
            assert [str(cookie) for cookie in client.cookies] == [
                "<Cookie a=1 for 127.0.0.1/>",
                "<Cookie b=1 for 127.0.0.1/>",
            ]
        async with Client(trust_env=False, cookies=None) as client:
            assert client.cookies is None
            for _ in range(3):
                assert (await client.get(f"{url}a")).text == ""
            assert (await client.get(f"{url}a", cookies={"x": "y"})).text == "x=y"
        async with Client(trust_env=False, base_url=url, cookies={"x": "y"}) as client:
            for _ in range(2):
                assert (await client.get("/x")).text == ("x=y" if _ == 0 else "x=1")
        jar = http.cookiejar.CookieJar()
        async with Client(trust_env=False, cookies=jar) as client:
            await client.get(f"{url}a")
            assert (await client.get(f"{url}a")).text == "a=1"
        assert [cookie.name for cookie in jar] == ["a"]
        store = CookieStore()
        async with Client(trust_env=False, cookies=store) as client:
            assert client.cookies is store
            await client.get(f"{url}a")
        async with Client(trust_env=False, cookies=store) as client:
            assert (await client.get(f"{url}b")).text == "a=1"


@pytest.mark.parametrize(
    ("cookies", "text"),
    [
        ({"a": None}, "the value of the cookie 'a' must be a str or an int, not NoneType"),
        ({1: "a"}, "a cookie's name must be a str, not int"),
    ],
)
def test_a_cookie_that_cannot_be(cookies, text):
    with pytest.raises(TypeError, match=text):
        Client(base_url="http://example.org/", cookies=cookies)


def test_a_cookie_may_be_a_number():
    client = Client(base_url="http://example.org/", cookies={"a": 1})
    assert [(cookie.name, cookie.value) for cookie in client.cookies.jar] == [("a", "1")]


def test_cookies_that_are_none():
    with pytest.raises(ValueError, match="cookies= as a dict needs base_url="):
        Client(cookies={"a": "b"})
    assert list(Client(cookies={}).cookies) == []
    for wrong in ("a=b", [("a", "b")], 5):
        with pytest.raises(TypeError) as caught:
            Client(cookies=wrong)
        assert str(caught.value) == (
            "cookies must be None, a dict, a CookieStore or an http.cookiejar.CookieJar, not "
            f"{type(wrong).__name__}"
        )


async def test_a_cookie_of_the_callers_is_checked(client):
    for cookies in ({"a b": "c"}, {"a": "b\r\nX: y"}, {"a": "b;c"}, {"a": "€"}):
        with pytest.raises(ValueError, match="cookie"):
            await client.get("http://h/", cookies=cookies)


async def test_pool_options_are_the_pools():
    vetoed: list[tuple[str, str, int]] = []
    async with serve(echo) as server:
        async with Client(
            trust_env=False,
            limit=3,
            limit_per_host=2,
            max_requests=2,
            resolve={"name.example": "127.0.0.1"},
            on_connect=lambda *args: vetoed.append(args),
        ) as client:
            url = f"http://name.example:{server.port}/"
            responses = await asyncio.gather(*(client.get(url) for _ in range(8)))
            assert server.connections == 4
            assert {response.status for response in responses} == {200}
            assert vetoed == [("127.0.0.1", "name.example", server.port)] * 4
            with pytest.raises(ValueError, match="resolve= is for the resolver made here"):
                Client(resolve={}, resolver=Resolver())


# --------------------------------------------------------------------------- life cycle


def test_a_client_shows_what_it_is():
    assert repr(Client()) == "<Client 0 open, 0 idle, 0 queued>"
    assert repr(Client(base_url="http://me:secret@h.example/v1/")) == (
        "<Client http://h.example/v1 0 open, 0 idle, 0 queued>"
    )


async def test_stats_are_the_pools():
    async with echoing() as (client, url):
        await client.get(url)
        assert client.stats() == client.pool.stats()
        assert (client.stats().open, client.stats().idle) == (1, 1)


async def test_a_closed_client_says_so():
    async with echoing() as (client, url):
        await client.get(url)
        await client.close()
        await client.close()
        assert client.stats().open == 0
        enter = client.__aenter__
        for made in (
            lambda: client.get(url),
            lambda: client.get(url, resend_stale=True),
            lambda: client.stream("GET", url).__aenter__(),
            enter,
        ):
            with pytest.raises(PoolClosed, match="the client is closed") as caught:
                await made()
            if made is not enter:
                assert str(caught.value).startswith(f"GET {url}: the client is closed (")
                assert (caught.value.method, caught.value.url) == ("GET", url)
                assert (caught.value.attempts, caught.value.request_sent) == (1, False)


async def test_closing_ends_what_is_under_way():
    async with (
        ScriptedServer([answer(HI, fault=stall_at(0))]) as server,
        Client(trust_env=False, limit=1) as client,
    ):
        waiting = [asyncio.ensure_future(client.get(server.url)) for _ in range(3)]
        await server.wait_connections(1)
        while client.stats().queued < 2:
            await asyncio.sleep(0)
        await client.close()
        first, *others = await asyncio.gather(*waiting, return_exceptions=True)
        assert type(first) is ConnectionAbortedError
        assert [type(other) for other in others] == [PoolClosed] * 2


async def test_it_can_be_used_without_async_with():
    async with serve(echo) as server:
        client = Client(trust_env=False)
        try:
            assert (await client.get(server.url)).status == 200
        finally:
            await client.close()


async def test_a_client_that_is_not_closed_warns_and_leaves_nothing():
    async with serve(echo) as server:
        client = Client(trust_env=False)
        await client.get(server.url)
        gone = weakref.ref(client)
        with pytest.warns(ResourceWarning, match="unclosed client, 1 open, 1 idle, 0 queued"):
            del client
        assert gone() is None
        await server.conns[0].wait_ended()


def test_one_client_in_one_loop_after_the_other():
    """A client of a module, and asyncio.run() for each thing that is done with it."""
    client = Client(trust_env=False)
    with in_thread(serve(echo)) as server:

        async def use() -> list[bool]:
            responses = [await client.get(server.url) for _ in range(3)]
            responses += await asyncio.gather(*(client.get(server.url) for _ in range(3)))
            return [response.ok for response in responses]

        async def use_and_close() -> list[bool]:
            async with client:
                return await use()

        assert asyncio.run(use()) == [True] * 6
        assert asyncio.run(use()) == [True] * 6
        assert run(use()) == [True] * 6
        assert asyncio.run(use_and_close()) == [True] * 6


@pytest.mark.parametrize("runner", ["asyncio.run", "aiohttpconn.run"])
def test_a_client_of_a_module_that_nobody_closes_works_and_prints_nothing(runner):
    program = f"""
import asyncio, aiohttpconn
from aiohttpconn.testing import in_thread, serve
client = aiohttpconn.Client(trust_env=False)
with in_thread(serve(lambda request: "hi")) as server:
    async def main():
        return [(await client.get(server.url)).reused for _ in range(2)]
    print([{runner}(main()) for _ in range(2)], client.stats().open)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (result.stdout, result.stderr) == ("[[False, True], [False, True]] 0\n", "")


def test_one_client_in_two_loops_at_a_time_is_an_error():
    client = Client(trust_env=False)

    async def use() -> None:
        await client.get(server.url)

    with in_thread(serve(echo)) as server:

        async def main() -> None:
            async with client:
                await client.get(server.url)
                errors: list[BaseException] = []

                def other() -> None:
                    try:
                        asyncio.run(use())
                    except BaseException as exc:
                        errors.append(exc)

                thread = threading.Thread(target=other)
                thread.start()
                thread.join()
                assert [str(exc) for exc in errors] == [
                    f"GET {server.url}: this client belongs to another event loop: "
                    "make one for each"
                ]
                assert (await client.get(server.url)).status == 200

        asyncio.run(main())


async def test_many_requests_share_a_few_connections():
    async with echoing(limit_per_host=4) as (client, url):
        responses = await asyncio.gather(*(client.get(f"{url}{n}") for n in range(200)))
        assert [response.text.partition("\n")[0] for response in responses] == [
            f"GET /{n}" for n in range(200)
        ]
        assert client.stats().open == 4


async def test_pipelined_requests_get_their_own_responses():
    async with echoing(pipelining=8, limit_per_host=2) as (client, url):
        await client.get(url)
        responses = await asyncio.gather(*(client.get(f"{url}{n}") for n in range(100)))
        assert [response.text.partition("\n")[0] for response in responses] == [
            f"GET /{n}" for n in range(100)
        ]


async def test_a_pipelined_body_that_fails_is_its_own_error():
    """On both paths; the requests after it are sent again."""
    bad = OK + GZIP + sized(b"no gzip")

    async def script(conn: Any) -> None:
        while True:
            head, _ = await conn.read_request()
            if b" /cut " in head:
                await conn.send(OK + b"Content-Length: 9\r\n\r\nhi")
                await conn.close()
                return
            await conn.send(bad if b" /bad " in head else HI)

    async with ScriptedServer(script) as server:
        async with Client(trust_env=False, pipelining=4, limit_per_host=1) as client:
            await client.get(server.url)
            paths = ["", "bad", "", "cut", "", ""]
            for options in (SHORT, {"max_ratio": 300}):
                results = await asyncio.gather(
                    *(client.get(f"{server.url}{path}", **options) for path in paths),
                    return_exceptions=True,
                )
                kinds = {"": Response, "bad": ContentDecodingError}
                for path, result in zip(paths, results, strict=True):
                    if path == "cut":
                        assert isinstance(result, IncompleteRead), result
                    else:
                        assert type(result) is kinds[path], result
            assert client.stats().leased == 0


async def test_nobody_waits_behind_a_stream():
    """It may be read slowly: it has its connection for itself."""
    replies = {"/": "small", "/large": b"x" * 1_000_000}
    async with (
        serve(replies) as server,
        Client(trust_env=False, pipelining=8, limit_per_host=2) as client,
    ):
        await client.get(server.url)
        async with client.stream("GET", f"{server.url}large") as response:
            others = await asyncio.gather(*(client.get(server.url) for _ in range(10)))
            assert all(other.raw.peername for other in others)
            assert {request.connection for request in server.requests[2:]} == {1}
            assert len(await response.read()) == 1_000_000


async def test_a_stream_is_sent_once(client):
    async with serve(echo) as server:
        stream = client.stream("GET", server.url)
        async with stream as response:
            assert response.status == 200
        with pytest.raises(RuntimeError, match=r"was sent already: call client\.stream\(\) again"):
            async with stream:
                pass


async def test_a_stream_has_all_options():
    async with serve(echo) as server, Client(trust_env=False) as client:
        async with client.stream(
            "POST", f"{server.url}x", params={"a": "b"}, json={"c": 1}, headers={"X-A": "1"}
        ) as response:
            text = (await response.read()).decode()
        assert text.startswith("POST /x?a=b\n")
        assert text.endswith('\n\n{"c":1}')


# ----------------------------------------------------------------------- total timeouts


async def test_total_covers_the_wait_for_a_connection(ticking):
    async with (
        ScriptedServer([answer(HI, fault=stall_at(0))]) as server,
        Client(trust_env=False, limit=1) as client,
    ):
        first = asyncio.ensure_future(client.get(server.url))
        await server.wait_connections(1)
        with pytest.raises(TotalTimeout) as caught:
            await client.get(f"{server.url}x", timeout=Timeout(total=0.01))
        assert str(caught.value).startswith(f"GET {server.url}x: no connection was free within")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


@pytest.mark.parametrize("at", [0, 10, len(HI) - 1])
async def test_total_covers_head_and_body(at, ticking):
    async with (
        ScriptedServer([answer(HI, fault=stall_at(at))]) as server,
        Client(trust_env=False, timeout=Timeout(total=0.02)) as client,
    ):
        with pytest.raises(TotalTimeout, match=r"the exchange did not end within 0\.02 s"):
            await client.get(server.url)
        assert client.stats().open == 0


async def test_total_covers_the_body_of_a_stream(ticking):
    async with (
        ScriptedServer([answer(HI, fault=stall_at(len(HI) - 1))]) as server,
        Client(trust_env=False) as client,
    ):
        async with client.stream("GET", server.url, timeout=Timeout(total=0.02)) as response:
            with pytest.raises(TotalTimeout):
                await response.read()


async def test_total_covers_redirects(ticking):
    """Each is fast enough, and they are too many."""
    go_on = asyncio.Event()

    async def reply(request: Request) -> Reply:
        if request.path == "/3":
            await go_on.wait()
        number = int(request.path.strip("/") or 0)
        return Reply(status=302, headers={"Location": f"/{number + 1}"})

    async with serve(reply) as server, Client(trust_env=False) as client:
        with pytest.raises(TotalTimeout) as caught:
            await client.get(server.url, timeout=Timeout(total=0.05))
        assert caught.value.url == f"{server.url}3"
        go_on.set()


async def test_total_covers_a_body_that_is_sent(client, ticking):
    async with ScriptedServer([expect()], receive_buffer=4096) as server:
        with pytest.raises((TotalTimeout, WriteTimeout)) as caught:
            await client.post(
                server.url, content=bytes(8 * 1024 * 1024), timeout=Timeout(total=0.03)
            )
        assert type(caught.value) is TotalTimeout
        assert client.stats().open == 0


# ------------------------------------------------------------------------------- errors


SECRETS = "http://user:secret@"


LOOP = b"HTTP/1.1 302 F\r\nLocation: /x\r\n" + sized(b"")

ERRORS: dict[str, tuple[list[Any], type[Exception], dict[str, Any]]] = {
    "unanswered": ([expect(), close()], ConnectionResetError, {}),
    "cut": ([expect(), send(OK + b"Content-Length: 9\r\n\r\nhi"), close()], HTTPException, {}),
    "nonsense": ([expect(), send(b"SSH-2.0\r\n\r\n")], HTTPException, {}),
    "no gzip": ([answer(OK + GZIP + sized(b"no gzip"))], ContentDecodingError, {}),
    "a loop": ([answer(LOOP)] * 2, TooManyRedirects, {"max_redirects": 1}),
    "a status": ([answer(b"HTTP/1.1 404 No\r\n" + sized(b""))], StatusError, {"on_response": None}),
    "too large": ([answer(HI)], BodyTooLarge, {"max_body": 1}),
    "read": ([answer(HI, fault=stall_at(0))], ReadTimeout, {"timeout": Timeout(read=0.01)}),
    "total": ([answer(HI, fault=stall_at(0))], TotalTimeout, {"timeout": Timeout(total=0.01)}),
    "refused": ([], ConnectionRefusedError, {}),
}


@pytest.mark.parametrize("name", ERRORS)
async def test_an_error_names_method_and_url_without_credentials_and_can_be_pickled(name, client):
    script, kind, options = ERRORS[name]
    with refusing_address() as (host, port):
        async with ScriptedServer(script) as server:
            url = server.url if script else f"http://{host}:{port}/"
            with pytest.raises(kind) as caught:
                response = await client.get(f"{url.replace('http://', SECRETS)}p?q=1#f", **options)
                response.raise_for_status()
    error = caught.value
    text = str(error)
    assert text.startswith(f"GET {url}{'x' if name == 'a loop' else 'p?q=1'}: ")
    assert "secret" not in text + repr(error) + repr(vars(error))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), text)
    for attribute in vars(error).keys() - {"history", "response"}:
        assert repr(getattr(again, attribute)) == repr(getattr(error, attribute))


async def test_a_url_that_is_none_shows_no_credentials(client):
    for url in (f"{SECRETS}h:x/", f"{SECRETS}h h/", "ftp://user:secret@h/", f"{SECRETS}/"):
        with pytest.raises(InvalidURL) as caught:
            await client.get(url)
        assert "secret" not in str(caught.value)


def test_every_setting_can_be_given_to_a_request():
    from aiohttpconn.client.settings import RequestOptions, Settings

    names = {name.replace("proxies", "proxy") for name in Settings.__dataclass_fields__}
    names -= {"json_dumps", "json_loads", "body_options"}  # one document is json.dumps() away
    assert names <= set(RequestOptions.__annotations__)
