"""E13: what is checked is what is sent. A subclass cannot show another text than it has.

Each place that takes a str, bytes or a number gets one of a subclass: an enum, or a class whose
every method says something else. What goes out is what goes out for the plain value, or nothing.
"""

from __future__ import annotations

import asyncio
import enum
import re

import pytest

from aiohttpconn import (
    Basic,
    Bearer,
    Client,
    ConnectionPool,
    CookieStore,
    HTTPConnection,
    InvalidURL,
    Proxy,
    Request,
    Timeout,
)
from aiohttpconn.client.fields import Fields

LIE = "lie\r\nX-Lie: 1"


def liar(kind):
    """Return a subclass of *kind* all of whose methods give something other than its value."""

    def text(self, *args, **options):
        return LIE

    def number(self, *args, **options):
        return 666

    def never(self, *args, **options):
        return False

    def always(self, *args, **options):
        return True

    def parts(self, *args, **options):
        return (LIE, LIE, LIE)

    methods = {"__str__": text, "__format__": text, "__repr__": text, "__reduce__": None}
    if issubclass(kind, str):
        texts = "lower upper strip lstrip rstrip replace removeprefix removesuffix title casefold"
        methods |= dict.fromkeys([*texts.split(), "__getitem__", "__add__", "__radd__"], text)
        methods |= dict.fromkeys(["translate", "join", "format", "__mod__"], text)
        methods |= dict.fromkeys(["partition", "rpartition"], parts)
        methods["split"] = methods["rsplit"] = methods["splitlines"] = lambda *args: [LIE]
        methods["encode"] = lambda *args, **options: LIE.encode()
        methods["__iter__"] = lambda self: iter(LIE)
        methods |= dict.fromkeys(["find", "rfind", "index", "count"], lambda *args: 0)
        methods |= {"isascii": always, "isdigit": always, "startswith": never, "endswith": never}
        methods |= {"__contains__": never, "__len__": lambda self: 3}
    elif issubclass(kind, (bytes, bytearray)):
        methods |= {"decode": text, "__bytes__": lambda self: LIE.encode(), "__len__": number}
        methods["__iter__"] = lambda self: iter(LIE.encode())
        methods["__getitem__"] = lambda self, key: LIE.encode()
        methods |= dict.fromkeys(["lower", "strip", "replace"], lambda *args: LIE.encode())
    else:
        methods |= dict.fromkeys(["__index__", "__int__", "__abs__", "__neg__"], number)
        methods |= {"__float__": lambda self: 666.0, "__bool__": never}
        methods |= dict.fromkeys(["__add__", "__radd__", "__mul__", "__rmul__"], number)
    del methods["__reduce__"]
    return type(f"Lying{kind.__name__}", (kind,), methods)


LIARS = {kind: liar(kind) for kind in (str, bytes, int, float)}


class Loud(str):
    __slots__ = ()


def enum_of(base, value):
    """Return a member of an enum of *base* with *value*."""
    if base in (enum.StrEnum, enum.IntEnum):
        return base("Color", {"RED": value}).RED
    kind = enum.Enum("Color", {"RED": value}, type=base)
    return kind.RED


SUBCLASSES = {
    str: {
        "StrEnum": lambda value: enum_of(enum.StrEnum, value),
        "str-Enum": lambda value: enum_of(str, value),
        "subclass": Loud,
        "liar": LIARS[str],
    },
    int: {
        "IntEnum": lambda value: enum_of(enum.IntEnum, value),
        "int-Enum": lambda value: enum_of(int, value),
        "liar": LIARS[int],
    },
    bytes: {"bytes-Enum": lambda value: enum_of(bytes, value), "liar": LIARS[bytes]},
    float: {"float-Enum": lambda value: enum_of(float, value), "liar": LIARS[float]},
}


class Recorder:
    """A server of origins and of a proxy: it answers 200, and keeps each request as it came."""

    def __init__(self):
        self.got = []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *exc):
        self.server.close()
        await self.server.wait_closed()

    async def serve(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                self.got.append(head + body)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def of_client(**given):
    """Return the place of an argument of a client's request; ``...`` stands for the value."""

    async def send(server, value):
        options = {name: put(each, value) for name, each in given.items()}
        method, url = options.pop("method", "GET"), options.pop("url", "/p")
        async with Client(trust_env=False, base_url=server.url) as client:
            await client.request(method, url, **options)

    return send


def put(where, value):
    if where is ...:
        return value
    if isinstance(where, dict):
        return {put(name, value): put(each, value) for name, each in where.items()}
    if isinstance(where, (list, tuple)):
        return type(where)(put(each, value) for each in where)
    return where() if callable(where) else where


def of_connection(*args, **options):
    async def send(server, value):
        async with HTTPConnection("127.0.0.1", server.port) as conn:
            await conn.request(*put(args, value), **put(options, value))
            await (await conn.getresponse()).read()

    return send


def of_constructor(**given):
    async def send(server, value):
        options = {"trust_env": False, "base_url": server.url, **put(given, value)}
        async with Client(**options) as client:
            await client.get("/p")

    return send


async def whole_url(server, value):
    async with Client(trust_env=False, proxy=server.url) as client:
        await client.get(value)


async def base_url(server, value):
    async with Client(trust_env=False, proxy=server.url, base_url=value) as client:
        await client.get("p")


async def pool_request(server, value):
    async with ConnectionPool(proxy=server.url) as pool:
        await (await pool.request("GET", value)).read()


async def pool_method(server, value):
    async with ConnectionPool() as pool:
        await (await pool.request(value, server.url)).read()


async def step_by_step_method(server, value):
    async with HTTPConnection("127.0.0.1", server.port) as conn:
        conn.putrequest(value, "/p")
        await conn.endheaders()
        await (await conn.getresponse()).read()


async def step_by_step_url(server, value):
    async with HTTPConnection("127.0.0.1", server.port) as conn:
        conn.putrequest("GET", value)
        await conn.endheaders()
        await (await conn.getresponse()).read()


async def step_by_step_header(server, value):
    async with HTTPConnection("127.0.0.1", server.port) as conn:
        conn.putrequest("GET", "/p")
        conn.putheader(value if isinstance(value, (str, bytes)) else "X-A", value, "2")
        await conn.endheaders()
        await (await conn.getresponse()).read()


async def host(server, value):
    conn = HTTPConnection(value, server.port, dialer=dialer_to(server))
    async with conn:
        await conn.request("GET", "/p")
        await (await conn.getresponse()).read()


async def host_and_port(server, value):
    conn = HTTPConnection("example.test", value, dialer=dialer_to(server))
    async with conn:
        await conn.request("GET", "/p")
        await (await conn.getresponse()).read()


def dialer_to(server):
    async def dial(factory, destination, report):
        loop = asyncio.get_running_loop()
        return await loop.create_connection(factory, "127.0.0.1", server.port)

    return dial


async def tunnel(server, value):
    async with HTTPConnection("127.0.0.1", server.port) as conn:
        conn.set_tunnel(value, 80, headers={"X-A": value})
        await conn.request("GET", "/p")
        await (await conn.getresponse()).read()


async def tunnel_port(server, value):
    async with HTTPConnection("127.0.0.1", server.port) as conn:
        conn.set_tunnel("example.test", value, headers={"X-A": value})
        await conn.request("GET", "/p")
        await (await conn.getresponse()).read()


async def tunnel_credentials(server, value):
    async with HTTPConnection("127.0.0.1", server.port) as conn:
        conn.set_tunnel("example.test", 80, credentials=(value, value))
        await conn.request("GET", "/p")
        await (await conn.getresponse()).read()


async def proxy_parts(server, value):
    proxy = Proxy("http", "127.0.0.1", server.port, value, value)
    async with Client(trust_env=False, proxy=proxy) as client:
        await client.get("http://example.test/")


async def proxy_url(server, value):
    url = type(value)(f"http://u:p@127.0.0.1:{server.port}") if type(value) is not str else None
    if isinstance(value, enum.Enum):
        url = enum_of(enum.StrEnum, f"http://u:p@127.0.0.1:{server.port}")
    async with Client(
        trust_env=False, proxy=url or f"http://u:p@127.0.0.1:{server.port}"
    ) as client:
        await client.get("http://example.test/")


async def kept_cookie(server, value):
    store = CookieStore()
    store.set(value, value, url_or_host="127.0.0.1")
    async with Client(trust_env=False, cookies=store) as client:
        await client.get(server.url)


async def cookie_host(server, value):
    store = CookieStore()
    store.set("a", "b", url_or_host=value)
    async with Client(trust_env=False, cookies=store, proxy=server.url) as client:
        await client.get("http://example.test/p")


async def hook_fields(server, value):
    def change(request):
        request.headers["X-B"] = value
        request.headers.add(value if isinstance(value, (str, bytes)) else "X-A", value)

    async with Client(trust_env=False, on_request=change) as client:
        await client.get(server.url)


async def auth_function(server, value):
    async with Client(trust_env=False, auth=lambda request: value) as client:
        await client.get(server.url)


async def retried_method(server, value):
    async with Client(trust_env=False) as client:
        async with client.stream(value, server.url) as response:
            await response.read()


FILE = ("a.txt", b"x", "text/plain")

# The place, and the plain value that it gets.
PLACES = {
    "method": (of_client(method=...), "PURGE"),
    "common-method": (of_client(method=...), "GET"),
    "lower-method": (of_client(method=...), "get"),
    "post-method": (of_client(method=..., content=b"x"), "POST"),
    "stream-method": (retried_method, "GET"),
    "path": (of_client(url=...), "/a?b=c#d"),
    "path-to-be-escaped": (of_client(url=...), "/a b?ü"),
    "whole-url": (whole_url, "http://user:pass@example.test:81/a?b"),
    "base-url": (base_url, "http://example.test:81/a"),
    "target": (of_client(target=...), "/a?b=%zz"),
    "pool-url": (pool_request, "http://example.test:81/a?b"),
    "pool-method": (pool_method, "GET"),
    "header-value": (of_client(headers={"X-A": ...}), "value"),
    "header-name": (of_client(headers={...: "1"}), "X-Name"),
    "header-pairs": (of_client(headers=[(..., ...)]), "name"),
    "header-host": (of_client(headers={"Host": ...}), "example.test"),
    "header-bytes": (of_client(headers={"X-A": ...}), b"value"),
    "header-name-bytes": (of_client(headers=[(..., "1")]), b"X-Name"),
    "header-int": (of_client(headers={"X-A": ...}), 5),
    "header-range": (of_client(headers={"Range": ...}), "bytes=0-5"),
    "fields": (of_client(headers=lambda: Fields({"A": "b"})), "unused"),
    "client-header": (of_constructor(headers={...: ...}), "name"),
    "client-header-int": (of_constructor(headers={"X-A": ...}), 5),
    "content-length": (of_client(method="POST", headers={"Content-Length": ...}, content=b"x"), 1),
    "params-name": (of_client(params={...: "1"}), "na me"),
    "params-value": (of_client(params={"a": ...}), "va lue&"),
    "params-values": (of_client(params={"a": [..., ...]}), "va lue&"),
    "params-set": (of_client(params={"a": lambda: frozenset()}), "unused"),
    "params-bytes": (of_client(params={"a": ...}), b"va lue"),
    "params-int": (of_client(params={"a": ...}), 5),
    "params-float": (of_client(params={"a": ...}), 1.5),
    "client-params": (of_constructor(params={...: ...}), "a b"),
    "cookie": (of_client(cookies={...: ...}), "name"),
    "cookie-int": (of_client(cookies={"a": ...}), 5),
    "client-cookie": (of_constructor(cookies={...: ...}), "name"),
    "kept-cookie": (kept_cookie, "name"),
    "cookie-host": (cookie_host, "example.test"),
    "auth-pair": (of_client(auth=(..., ...)), "name"),
    "auth-function": (auth_function, "Token abc"),
    "auth-function-bytes": (auth_function, b"Token abc"),
    "hook": (hook_fields, "name"),
    "hook-int": (hook_fields, 5),
    "content-str": (of_client(method="POST", content=...), "text"),
    "content-bytes": (of_client(method="POST", content=...), b"text"),
    "data-str": (of_client(method="POST", data=...), "a=b"),
    "data-bytes": (of_client(method="POST", data=...), b"a=b"),
    "data-name": (of_client(method="POST", data={...: "1"}), "na me"),
    "data-value": (of_client(method="POST", data={"a": ...}), "va lue"),
    "data-int": (of_client(method="POST", data={"a": ...}), 5),
    "json-str": (of_client(method="POST", json={...: ...}), "text"),
    "json-int": (of_client(method="POST", json={"a": ...}), 5),
    "json-float": (of_client(method="POST", json={"a": ...}), 1.5),
    "files-name": (of_client(method="POST", files={...: FILE}), "na\nme"),
    "files-filename": (of_client(method="POST", files={"a": (..., b"x", None)}), 'f"i'),
    "files-type": (of_client(method="POST", files={"a": ("a", b"x", ...)}), "text/html"),
    "files-content": (of_client(method="POST", files={"a": ("a", ...)}), b"text"),
    "files-text": (of_client(method="POST", files={"a": ("a", ...)}), "text"),
    "files-header": (of_client(method="POST", files={"a": ("a", b"x", None, {...: ...})}), "name"),
    "form-name": (of_client(method="POST", data={...: ...}, files={"f": FILE}), "na\nme"),
    "timeout": (of_client(timeout=...), 60),
    "timeout-float": (of_client(timeout=...), 60.0),
    "max-body": (of_client(max_body=...), 60),
    "connection-method": (of_connection(..., "/p"), "GET"),
    "connection-odd-method": (of_connection(..., "/p"), "PURGE"),
    "connection-post": (of_connection(..., "/p", b"x"), "POST"),
    "connection-url": (of_connection("GET", ...), "/a?b"),
    "connection-whole-url": (of_connection("GET", ...), "http://example.test:81/a?b"),
    "connection-star": (of_connection("OPTIONS", ...), "*"),
    "connection-empty": (of_connection("GET", ...), ""),
    "connection-headers": (of_connection("GET", "/", None, {...: ...}), "name"),
    "connection-headers-bytes": (of_connection("GET", "/", None, {...: ...}), b"name"),
    "connection-length": (of_connection("POST", "/", b"x", {"Content-Length": ...}), 1),
    "connection-int": (of_connection("GET", "/", None, {"X-A": ...}), 5),
    "connection-body-str": (of_connection("POST", "/", ...), "text"),
    "connection-body-bytes": (of_connection("POST", "/", ...), b"text"),
    "putrequest-method": (step_by_step_method, "GET"),
    "putrequest-url": (step_by_step_url, "/a?b"),
    "putheader": (step_by_step_header, "name"),
    "putheader-bytes": (step_by_step_header, b"name"),
    "putheader-int": (step_by_step_header, 5),
    "host": (host, "Example.test"),
    "host-with-port": (host, "example.test"),
    "port": (host_and_port, 81),
    "tunnel-host": (tunnel, "example.test"),
    "tunnel-port": (tunnel_port, 81),
    "tunnel-credentials": (tunnel_credentials, "name"),
    "proxy-credentials": (proxy_parts, "name"),
    "proxy-url": (proxy_url, "name"),
}

REFUSED = (TypeError, ValueError, InvalidURL)


async def sent(place, value):
    """Return the requests that came of it, without what differs each time; or the error."""
    async with Recorder() as server:
        try:
            await place(server, value)
        except REFUSED as exc:
            return type(exc).__name__
        wire = b"".join(server.got)
    wire = wire.replace(b"%d" % server.port, b"PORT")
    return re.sub(rb"[0-9a-f]{32}", b"BOUNDARY", wire)


@pytest.mark.parametrize(
    ("place", "plain", "make"),
    [
        pytest.param(place, plain, make, id=f"{name}-{kind}")
        for name, (place, plain) in PLACES.items()
        for kind, make in SUBCLASSES[type(plain)].items()
    ],
)
async def test_what_is_checked_is_what_is_sent(place, plain, make):
    expected = await sent(place, plain)
    assert isinstance(expected, bytes)
    got = await sent(place, make(plain))
    # To refuse it is right, too.
    assert got in (expected, "TypeError", "ValueError", "InvalidURL")


BAD = "a\r\nX-Lie: 1"


@pytest.mark.parametrize(
    "name", [name for name, (_, plain) in PLACES.items() if type(plain) is str]
)
async def test_what_is_not_fit_to_be_sent_stays_so(name):
    place = PLACES[name][0]

    class Hides(str):
        """It looks well to whoever asks it."""

        __slots__ = ()

        def __str__(self):
            return "well"

        __format__ = __iter__ = lambda self, *args: "well"

        def __eq__(self, other):
            return True

        def __hash__(self):
            return hash("GET")

        def encode(self, *args):
            return b"well"

    expected, got = await sent(place, BAD), await sent(place, Hides(BAD))
    assert got == expected or isinstance(got, str)
    assert b"\r\nX-Lie: 1" not in (got if isinstance(got, bytes) else b"").partition(b"\r\n\r\n")[0]


def test_numbers_are_kept_as_plain_ones():
    for make in SUBCLASSES[int].values():
        limits = Timeout(total=make(5), read=make(7))
        assert (repr(limits.total), repr(limits.read)) == ("5", "7")
    assert repr(Timeout(total=LIARS[float](1.5)).total) == "1.5"
    assert repr(Timeout.of(LIARS[int](5)).read) == "5"


def test_a_request_of_a_program_holds_plain_texts():
    request = Request(LIARS[str]("GET"), LIARS[str]("http://example.test/"))
    assert (type(request.method), type(request.url)) == (str, str)


def test_credentials_are_those_that_were_checked():
    lie = LIARS[str]("name")
    for auth, plain in ((Basic(lie, lie), Basic("name", "name")), (Bearer(lie), Bearer("name"))):
        fields, others = Request("GET", "http://a.test/"), Request("GET", "http://a.test/")
        auth.authorize(fields)
        plain.authorize(others)
        assert fields.headers == others.headers
