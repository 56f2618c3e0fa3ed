"""E12: no text of ours shows a secret, no error, traceback, pickle of an error, repr or log.

A secret is marked, and put into each place that takes one; then the request fails, in each way, or
is answered. Data is no text: headers, ``location`` and what a server sent are kept as they came.
"""

import asyncio
import base64
import gc
import logging
import pickle
import re
import traceback

import pytest

import aiohttpconn
from aiohttpconn import (
    Basic,
    Bearer,
    Client,
    ConnectionPool,
    Digest,
    HTTPConnection,
    HTTPSConnection,
    InvalidURL,
    RedirectRefused,
)
from aiohttpconn.exceptions import redact
from aiohttpconn.net.tls import HAS_TLS
from aiohttpconn.testing import Reply, serve

from ..support import ScriptedServer, close, expect, refusing_address

USER, PASSWORD = "us3rMARK", "s3cr3tMARK"
PAIR = f"{USER}:{PASSWORD}"
MARKS = [USER, PASSWORD, base64.b64encode(PAIR.encode()).decode()]

TIMEOUT = 10


def shown_in(text):
    """Return the marks that *text*, a str or bytes, shows."""
    text = text if isinstance(text, str) else text.decode("latin-1")
    return [mark for mark in MARKS if mark in text]


def check_error(exc, data=()):
    """Fail if *exc* shows a mark. *data*: the attributes that hold what a peer has sent."""
    while exc is not None:
        attributes = {name: value for name, value in vars(exc).items() if name not in data}
        # The lines of source in a traceback are those of this test.
        trace = re.sub(r"(?m)^    .*\n", "", "".join(traceback.format_exception(exc)))
        texts = [str(exc), repr(exc), repr(exc.args), repr(attributes), trace]
        if not data:
            texts.append(pickle.dumps(exc))
        for text in texts:
            assert not shown_in(text), text
        exc = exc.__cause__ or exc.__context__


def check_objects():
    """Fail if the ``repr`` of an object of this package, or of a task, shows a mark."""
    for thing in gc.get_objects():
        kind = type(thing)
        module = kind.__module__ if isinstance(kind.__module__, str) else ""
        ours = module.startswith("aiohttpconn.") and not module.startswith("aiohttpconn.testing")
        if ours or isinstance(thing, (asyncio.Task, asyncio.BaseTransport)):
            assert not shown_in(repr(thing)), repr(thing)


@pytest.fixture(autouse=True)
def _no_log_shows_a_mark(caplog):
    caplog.set_level(logging.DEBUG)
    yield
    assert not shown_in(caplog.text), caplog.text


@pytest.fixture
async def port():
    async with serve(lambda request: Reply(b"x")) as server:
        yield server.port


# Hosts --------------------------------------------------------------------------------------

HOSTS = [
    f"{PAIR}@a",
    f"{PAIR}@a:80",
    f"http://{PAIR}@a/",
    f"http://{PAIR}@a:80",
    f"//{PAIR}@a",
    f"{PAIR}@",
    f"{PAIR}@[::1]",
    f"[{PAIR}@::1]",
    f"{USER}:/{PASSWORD}?@#@a",
    f"{PAIR}@a b\r\n",
    f"{PAIR}é@ä",
]


async def _connection(host):
    HTTPConnection(host)


async def _connection_port(host):
    HTTPConnection(host, 80)


async def _tunnel(host):
    HTTPConnection("a", 80).set_tunnel(host)


async def _tunnel_port(host):
    HTTPConnection("a", 80).set_tunnel(host, 443)


async def _host_field(host):
    await HTTPConnection("a", 80).request("GET", "/", headers={"Host": host})


async def _putheader(host):
    conn = HTTPConnection("a", 80)
    conn.putrequest("GET", "/", skip_host=True)
    conn.putheader("Host", host)


async def _clients_host_field(host):
    async with Client() as client:
        await client.get("http://a/", headers={"Host": host})


async def _server_name(host):
    HTTPSConnection("a", server_hostname=host)


async def _clients_server_name(host):
    Client(server_hostname=host)


async def _requests_server_name(host):
    async with Client() as client:
        await client.get("https://a/", server_hostname=host)


async def _no_proxy(host):
    Client(proxy={f"https://{host}": "http://a"})


TAKE_A_HOST = [
    _connection,
    _connection_port,
    _tunnel,
    _tunnel_port,
    _host_field,
    _putheader,
    _clients_host_field,
    _no_proxy,
]
if HAS_TLS:
    TAKE_A_HOST += [_server_name, _clients_server_name, _requests_server_name]


@pytest.mark.parametrize("take", TAKE_A_HOST, ids=lambda take: take.__name__)
@pytest.mark.parametrize("host", HOSTS, ids=ascii)
async def test_a_host_with_credentials_is_refused_unseen(take, host):
    with pytest.raises((InvalidURL, ValueError)) as info:
        await take(host)
    check_error(info.value)


# URLs ---------------------------------------------------------------------------------------

URLS = [
    "http://{}@127.0.0.1:{refused}/",
    "http://{}@127.0.0.1:{port}/",
    "http://{}@127.0.0.1:{port}/x y",
    "http://{}@local host/",
    "http://{}@a:99999/",
    "http://{}@a:abc/",
    "http:{}@a/",
    "http:/{}@a/",
    "http:\\\\{}@a/",
    "ftp://{}@a/",
    "{}@a/",
    "//{}@a/",
    "http://{}/x@a/",
    "http://{}?x@a/",
    "http://{}#x@a/",
    "http://{}\n@a/",
    "http://{}@",
    " http://{}@a/",
    "http://{}@a\\x/",
    "http://{}é@0x7f.1/",
    "http://{}@*/",
    "http://{}@@a/",
    "http://{}@-a.․./",
    "http://{}@nothing.invalid/",
    "http://{}:x@[::1/",
    "HTTP://{}@[v1.x]/",
    "http://{}@a/\x7f",
    "http://{}@1.2.3.4.5/",
    "https://{}@127.0.0.1:{refused}/",
]


async def _get(url, port):
    async with Client(timeout=TIMEOUT, trust_env=False) as client:
        response = await client.get(url)
        check_objects()
        assert not shown_in(f"{response!r} {response.url} {response.request!r}")


async def _stream(url, port):
    async with Client(timeout=TIMEOUT, trust_env=False) as client:
        async with client.stream("GET", url) as response:
            check_objects()
            await response.read()


async def _pool(url, port):
    async with ConnectionPool(timeout=TIMEOUT) as pool:
        async with await pool.request("GET", url) as response:
            check_objects()
            await response.read()


async def _lease(url, port):
    async with ConnectionPool(timeout=TIMEOUT) as pool:
        async with pool.connection(url):
            check_objects()


async def _base_url(url, port):
    async with Client(base_url=url, timeout=TIMEOUT, trust_env=False) as client:
        assert not shown_in(repr(client))
        await client.get("x")
        check_objects()


async def _proxy(url, port):
    async with Client(proxy=url, timeout=TIMEOUT) as client:
        await client.get(f"http://127.0.0.1:{port}/")
        check_objects()


async def _tunnelling_proxy(url, port):
    async with Client(proxy=url, timeout=TIMEOUT) as client:
        await client.get(f"https://127.0.0.1:{port}/")


async def _connections_request(url, port):
    # A connection takes two slashes for the beginning of a path.
    url = url.removeprefix("//")
    async with HTTPConnection("127.0.0.1", port, timeout=TIMEOUT) as conn:
        await conn.request("GET", url)
        check_objects()
        response = await conn.getresponse()
        assert not shown_in(repr(response))
        await response.read()


async def _fetch_many(url, port):
    async with Client(timeout=TIMEOUT, trust_env=False) as client:
        async for fetched in client.fetch_many([url]):
            assert not shown_in(repr(fetched))
            check_objects()
            fetched.result()


@pytest.fixture
def download(tmp_path):
    async def download(url, port):
        async with Client(timeout=TIMEOUT, trust_env=False) as client:
            await client.download(url, tmp_path / "file")
        check_objects()
        for path in tmp_path.iterdir():
            assert not shown_in(path.read_bytes())

    return download


TAKE_A_URL = [
    _get,
    _stream,
    _pool,
    _lease,
    _base_url,
    _proxy,
    _connections_request,
    _fetch_many,
]
if HAS_TLS:
    TAKE_A_URL.append(_tunnelling_proxy)


@pytest.fixture
def environment(monkeypatch):
    async def environment(url, port):
        for name in "http_proxy", "https_proxy", "all_proxy":
            if "\n" not in url:
                monkeypatch.setenv(name, url)
        async with Client(timeout=TIMEOUT) as client:
            await client.get(f"http://a.example:{port}/")
            check_objects()

    return environment


async def attempt(take, url, port):
    with refusing_address() as (_, refused):
        try:
            # Not within `raises`: some of these URLs are right.
            await take(url.format(PAIR, refused=refused, port=port), port)
        except (OSError, ValueError, aiohttpconn.HTTPException) as exc:
            check_error(exc)


@pytest.mark.parametrize("take", TAKE_A_URL, ids=lambda take: take.__name__)
@pytest.mark.parametrize("url", URLS, ids=ascii)
async def test_a_url_with_credentials_goes_unseen(take, url, port):
    await attempt(take, url, port)


@pytest.mark.parametrize("url", URLS, ids=ascii)
async def test_a_downloads_url_goes_unseen(url, port, download):
    await attempt(download, url, port)


@pytest.mark.parametrize("url", URLS, ids=ascii)
async def test_a_proxy_of_the_environment_goes_unseen(url, port, environment):
    await attempt(environment, url, port)


@pytest.mark.parametrize("url", URLS, ids=ascii)
async def test_a_location_goes_unseen(url, client):
    with refusing_address() as (_, refused):
        location = url.format(PAIR, refused=refused, port=refused).replace("\n", "")
    reply = Reply(b"", status=302, headers={"Location": location.encode().decode("latin-1")})
    async with serve(lambda request: reply) as server:
        with pytest.raises((OSError, aiohttpconn.HTTPException)) as info:
            await client.get(server.url)
    # Location is data: it is kept as it was received.
    data = ("location", "response", "history") if type(info.value) is RedirectRefused else ()
    check_error(info.value, data)


# Fields, cookies and auth -------------------------------------------------------------------

WITH_A_SECRET = {
    "Authorization": {"headers": {"Authorization": f"Bearer {PASSWORD}"}},
    "Cookie": {"headers": {"Cookie": f"sid={PASSWORD}"}},
    "an API key": {"headers": {"X-Api-Key": PASSWORD}},
    "Basic": {"auth": Basic(USER, PASSWORD)},
    "a pair": {"auth": (USER, PASSWORD)},
    "Bearer": {"auth": Bearer(PASSWORD)},
    "Digest": {"auth": Digest(USER, PASSWORD)},
    "cookies": {"cookies": {"sid": PASSWORD}},
    "json": {"json": {"password": PASSWORD}},
    "data": {"data": {"password": PASSWORD}},
    "content": {"content": PASSWORD.encode()},
    "files": {"files": {"f": ("name", PASSWORD.encode(), "text/plain")}},
}
WRONG = {
    "a line end": lambda value: f"{value}\n",
    "no Latin-1": lambda value: f"{value}€",
    "a list": lambda value: [value],
    "a dict": lambda value: {"a": value},
    "a float": lambda value: type("Number", (float,), {"__repr__": lambda self: value})(1.5),
}


@pytest.mark.parametrize("name", ["Authorization", "Cookie", "X-Api-Key", "Any-Other"])
@pytest.mark.parametrize("wrong", WRONG)
async def test_the_value_of_a_field_that_may_not_be_sent_is_not_shown(name, wrong):
    headers = {name: WRONG[wrong](PASSWORD)}
    for kind in "connection", "pool", "client", "defaults", "proxy", "putheader":
        with pytest.raises((ValueError, TypeError)) as info:
            if kind == "connection":
                await HTTPConnection("a").request("GET", "/", headers=headers)
            elif kind == "pool":
                async with ConnectionPool() as pool:
                    await pool.request("GET", "http://a/", headers=headers)
            elif kind == "client":
                async with Client() as client:
                    await client.get("http://a/", headers=headers)
            elif kind == "defaults":
                Client(headers=headers)
            elif kind == "proxy":
                HTTPConnection("a").set_tunnel("b", 1, headers)
            else:
                conn = HTTPConnection("a")
                conn.putrequest("GET", "/")
                conn.putheader(name, *headers.values())
        check_error(info.value)


@pytest.mark.parametrize("options", WITH_A_SECRET)
@pytest.mark.parametrize("end", ["refused", "closed", "401", "200"])
async def test_no_object_or_error_shows_what_is_sent(options, end, client):
    given = WITH_A_SECRET[options]
    if end in ("401", "200"):
        reply = Reply(
            b"x",
            status=int(end),
            headers={"WWW-Authenticate": 'Digest realm="r", nonce="n", qop="auth"'},
        )
        async with serve(lambda request: reply) as server:
            async with client.stream("POST", server.url, **given) as response:
                check_objects()
                await response.read()
            answer = await client.post(server.url, **given)
            check_objects()
        assert not shown_in(f"{answer!r} {answer.request!r}")
        if end == "401":
            with pytest.raises(aiohttpconn.StatusError) as info:
                answer.raise_for_status()
            check_error(info.value, data=("response",))
        return
    async with ScriptedServer([expect(b"POST"), close()]) as server:
        with refusing_address() as (_, refused):
            port = refused if end == "refused" else server.port
            with pytest.raises((OSError, aiohttpconn.HTTPException)) as info:
                await client.post(f"http://127.0.0.1:{port}/", **given)
        check_objects()
        check_error(info.value)


async def test_cookies_that_a_server_sets_go_unseen(client):
    cookies = [
        ("Set-Cookie", f"sid={PASSWORD}; HttpOnly"),
        ("Set-Cookie", f"bad={PASSWORD}; Domain=elsewhere.example"),
        ("Set-Cookie", f"__Host-a={PASSWORD}; Path=/x"),
        ("Set-Cookie", f"{'long' * 2000}={PASSWORD}"),
    ]
    async with serve(lambda request: Reply(b"x", headers=cookies)) as server:
        await client.get(server.url)
        check_objects()
        assert not shown_in(repr(client.cookies))


def test_redact_keeps_an_at_sign_in_a_path():
    assert redact("http://u:p@a/@scope/x") == "http://a/@scope/x"
    assert redact("https://a/@user") == "https://a/@user"
