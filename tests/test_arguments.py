"""Arguments are checked where they are given: by each constructor, and for each request.

A table has wrong values for every argument of every public constructor. An argument that is not in
it fails a test, so that a new one gets its check.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from typing import Any

import pytest

from aiohttpconn import (
    Basic,
    Bearer,
    Client,
    ConnectionPool,
    CookieStore,
    Digest,
    HTTPConnection,
    HTTPException,
    HTTPSConnection,
    Limits,
    Netrc,
    Proxy,
    Request,
    Resolver,
    Response,
    Retry,
    Timeout,
)
from aiohttpconn.client.settings import RequestOptions
from aiohttpconn.pool.pool import PoolOptions

Wrong = tuple[Any, type[Exception], str]
"""A value, the error, and a part of its text."""


def types(what: str, *values: Any) -> list[Wrong]:
    """Return *values*, each of a wrong type."""
    return [(value, TypeError, f"must be {what}, not {type(value).__name__}") for value in values]


def bad(what: str, *values: Any) -> list[Wrong]:
    """Return *values*, each wrong in itself."""
    return [(value, ValueError, f"must be {what}, got {value!r}") for value in values]


def count(least: int, unit: str = "", *, none: bool = False) -> list[Wrong]:
    what = f"an int, {least} {unit}".rstrip() + " or more" + ", or None" * none
    wrong = types(what, "1", 1.0, True, [])
    return wrong + bad(what, least - 1, -5) + ([] if none else types(what, None))


def number(what: str, *values: Any, none: bool = False) -> list[Wrong]:
    what = f"a number of {what}" + ", or None" * none
    return types(what, "1", True, [1]) + bad(what, *values, math.nan)


FLAG = types("True or False", 0, 1, "no", None)
FUNCTION = types("a callable, or None", "f", 1, [])
CONTEXT = types("an ssl.SSLContext, or None", False, True, "x", 3)
PATH = types("a path, or None", 3, False, b"ca.pem")
TIMEOUT: list[Wrong] = [
    (value, kind, f"timeout must be seconds above 0, a Timeout or None, got {value!r}")
    for value, kind in (
        ("5", TypeError),
        (True, TypeError),
        ([1], TypeError),
        (0, ValueError),
        (-1, ValueError),
        (math.nan, ValueError),
    )
]
SECONDS = number("seconds, above 0", 0, -1, none=True)
HEADERS = [(value, TypeError, "headers must be a mapping or pairs") for value in ("x", 5, ["A: b"])]
PARAMS: list[Wrong] = [
    ("a=b", TypeError, "params must be"),
    (3, TypeError, "params must be"),
    ([1], TypeError, "params must be"),
]
AUTH = [(value, TypeError, "auth must be None") for value in (3, "user:password", ("user",), str)]
PROXY: list[Wrong] = [
    (3, TypeError, "proxy"),
    (True, TypeError, "proxy"),
    ("ftp://h", HTTPException, "proxy"),
    ({"http": 5}, TypeError, "proxy"),
    ({"gopher": "http://h"}, HTTPException, "a key of proxies must be"),
]
CREDENTIAL: list[Wrong] = [
    (3, TypeError, "must be a str, not int"),
    (None, TypeError, "must be a str, not NoneType"),
    ("a\nb", ValueError, "must have no control character"),
]
LIMITS = types("a Limits", 5, None, {"max_line": 3}, Limits)
UDS = types("the path of a socket, or None", 3, True, ["x"])
ADDRESS = [
    *types("(host, port), or None", "1.2.3.4", 80),
    *bad("(host, port), or None", ("1.2.3.4",), (1, "h"), ()),
]
SOCKET_OPTIONS = [
    *types("a list of (level, name, value)", None, 5),
    *bad("a list of (level, name, value)", "abc", [1], [(1, 2)]),
]

FINGERPRINT: list[Wrong] = [
    (3, TypeError, "fingerprint must be a str or bytes, not int"),
    ("abc", ValueError, "fingerprint must be the SHA-256 of a certificate"),
    (b"abc", ValueError, "fingerprint must be the SHA-256 of a certificate"),
]

SETTINGS: dict[str, list[Wrong]] = {
    "timeout": TIMEOUT,
    "auth": AUTH,
    "follow_redirects": FLAG,
    "max_redirects": count(0),
    "allow_downgrade": FLAG,
    "decompress": FLAG,
    "max_body": count(0, "bytes", none=True),
    "max_ratio": number("bytes, above 0", 0, -1, none=True),
    "truncated": types("'error' or 'keep'", True, None) + bad("'error' or 'keep'", "drop"),
    "default_encoding": [
        (3, TypeError, "default_encoding must be"),
        ("klingon", LookupError, "default_encoding"),
    ],
    "retry": types("a Retry, or None", 3, True, {"attempts": 3}),
    "proxy": PROXY,
    "server_hostname": types("a str, or None", 3, False, b"h"),
    "fingerprint": FINGERPRINT,
    "resend_stale": FLAG,
    "on_request": FUNCTION,
    "on_response": FUNCTION,
    "headers": HEADERS,
    "params": PARAMS,
}
"""Arguments of a client that a request has as options, too."""

POOL: dict[str, list[Wrong]] = {
    "limit": count(1, "connection", none=True),
    "limit_per_host": count(1, "connection", none=True),
    "keepalive_timeout": number("seconds, 0 or more", -1, none=True),
    "max_idle": count(0, "connections", none=True),
    "max_requests": count(1, "request", none=True),
    "max_age": number("seconds, 0 or more", -0.1, none=True),
    "pipelining": count(1, "request"),
    "context": CONTEXT,
    "cafile": PATH,
    "proxy_context": CONTEXT,
    "resolver": [
        *types("an object with an async resolve(host, port), or None", 3, False, "1.1.1.1", {}),
        (Resolver, TypeError, "not the class Resolver"),
    ],
    "resolve": [
        *types("a mapping of names to addresses, or None", 3, "a", [("a", "1.2.3.4")]),
        ({"a": "b"}, ValueError, "resolve='a': expected an IP address or a list of them"),
        ({"a": 5}, ValueError, "resolve='a': expected an IP address or a list of them"),
        ({"1.2.3.4": "1.2.3.4"}, ValueError, "resolve='1.2.3.4': expected a name"),
        ({1: "1.2.3.4"}, TypeError, "resolve=1: a name must be a str, not int"),
    ],
    "on_connect": FUNCTION,
    "dialer": types("a callable", None, 3, "x"),
    "min_interval": [
        *number("seconds, 0 or more", -1, none=True),
        (math.inf, ValueError, "min_interval must be 0 seconds or more, got inf"),
    ],
    "rate": [
        (value, ValueError, 'rate must be like "10/s"') for value in ("x", 5, "0/s", "", "10/y")
    ],
    "respect_retry_after": FLAG,
    "strict": FLAG,
    "limits": LIMITS,
    "high_water": count(1, "byte", none=True),
    "uds": UDS,
    "source_address": ADDRESS,
    "socket_options": SOCKET_OPTIONS,
    "tcp_keepalive": [(0, ValueError, "tcp_keepalive"), ("60", ValueError, "tcp_keepalive")],
    "resume_tls": FLAG,
}

CONNECTION: dict[str, list[Wrong]] = {
    "host": types("a str", 3, None, b"h"),
    "port": [
        ([], TypeError, "port must be an int, or None, not list"),
        (True, TypeError, "port must be an int, or None, not bool"),
        (1.5, TypeError, "port must be an int, or None, not float"),
        (-1, HTTPException, "a port must be 0 to 65535, got -1"),
        (65536, HTTPException, "a port must be 0 to 65535, got 65536"),
    ],
    "timeout": [
        *(wrong for wrong in TIMEOUT if wrong[0] is not True),
        (True, TypeError, "if that is strict, which came third in Python 2, write strict=True"),
    ],
    "source_address": ADDRESS,
    "blocksize": count(1, "byte"),
    "strict": FLAG,
    "max_response_headers": count(0, "fields", none=True),
    "limits": LIMITS,
    "uds": UDS,
    "socket_options": SOCKET_OPTIONS,
    "dialer": types("a callable", None, 3, "x"),
    "high_water": count(1, "byte"),
    "continue_timeout": number("seconds, 0 or more", -1),
    "on_informational": FUNCTION,
    "proxy_context": CONTEXT,
    "resume_tls": FLAG,
}

CONSTRUCTORS: dict[type, tuple[dict[str, Any], dict[str, list[Wrong]]]] = {
    Client: (
        {},
        {
            **SETTINGS,
            **POOL,
            "base_url": [
                *types("a str", 3, None, b"http://h/"),
                ("no scheme", HTTPException, "no scheme"),
                ("http://h/?a", HTTPException, "query"),
            ],
            "cookies": [(3, TypeError, "cookies must be"), ("a=b", TypeError, "cookies must be")],
            "trust_env": FLAG,
            "json_dumps": FUNCTION,
            "json_loads": FUNCTION,
        },
    ),
    ConnectionPool: (
        {},
        {
            **POOL,
            "timeout": TIMEOUT,
            "proxy": PROXY,
            "resend_stale": FLAG,
            "fingerprint": FINGERPRINT,
        },
    ),
    HTTPConnection: ({"host": "h"}, CONNECTION),
    HTTPSConnection: (
        {"host": "h"},
        {
            **CONNECTION,
            "context": CONTEXT,
            "cafile": PATH,
            "server_hostname": types("a str, or None", 3, False, b"h"),
            "fingerprint": FINGERPRINT,
        },
    ),
    Timeout: (
        {},
        {name: SECONDS for name in ("total", "connect", "read", "write", "pool", "head")},
    ),
    Limits: ({}, {name: count(0) for name in inspect.signature(Limits).parameters}),
    Retry: (
        {},
        {
            "attempts": count(1, "request"),
            "backoff": number("seconds, 0 or more", -1),
            "max_backoff": number("seconds, 0 or more", -1),
            "max_retry_after": number("seconds, 0 or more", -0.1),
            "statuses": types("a set or another collection of ints", 503, None)
            + bad("a set or another collection of ints", "503", ["503"]),
            "methods": types("a set or another collection of str", 5, None)
            + bad("a set or another collection of str", "GET", [b"GET"]),
            "respect_retry_after": FLAG,
            "budget": number("retries per request, from 0 to 1", 1.1, -1, none=True),
        },
    ),
    Resolver: (
        {},
        {
            "ttl": number("seconds, 0 or more", -1),
            "max_entries": count(1, "name"),
            "threads": count(1, "thread", none=True),
            "static": [
                *types("a mapping of names to addresses, or None", 3, "a"),
                ({"a": "b"}, ValueError, "static 'a': expected an IP address"),
            ],
        },
    ),
    Basic: ({"username": "u", "password": "p"}, {"username": CREDENTIAL, "password": CREDENTIAL}),
    Digest: ({"username": "u", "password": "p"}, {"username": CREDENTIAL, "password": CREDENTIAL}),
    Bearer: ({}, {"token": [*CREDENTIAL, ("a b", ValueError, "a bearer token consists of")]}),
    Netrc: (
        {},
        {
            "path": types("a path, or None", 3, True),
            "default": FLAG,
        },
    ),
    Request: (
        {"method": "GET", "url": "http://h/"},
        {"method": types("a str", 3, None), "url": types("a str", b"", None), "headers": HEADERS},
    ),
    Response: (
        {"status": 200},
        {
            "status": [
                *types("an int, 100 or more", "200", None, True, 200.0),
                *bad("an int, 100 or more", 99),
                (1000, ValueError, "status must be from 100 to 999, got 1000"),
            ],
            "content": [("x", TypeError, "content must be bytes, not str: text= takes a str")],
            "text": types("a str, or None", b"x"),
            "json": [(object(), TypeError, "not JSON serializable")],
            "headers": HEADERS,
            "reason": [
                *types("a str, or None", 3),
                (
                    "a\nb",
                    ValueError,
                    "a reason has only characters of Latin-1, and no control character",
                ),
            ],
            "url": types("a str", 3, None),
            "request": types("a Request, or None", "http://h/", 3),
            "history": types("a sequence of responses", 3, None),
        },
    ),
}

OTHERS = {"self"}

CASES = [
    pytest.param(kind, needed, name, *wrong, id=f"{kind.__name__}-{name}-{number}")
    for kind, (needed, table) in CONSTRUCTORS.items()
    for name, values in table.items()
    for number, wrong in enumerate(values)
]


@pytest.mark.parametrize(("kind", "needed", "name", "value", "error", "text"), CASES)
def test_a_constructor_refuses(kind, needed, name, value, error, text):
    with pytest.raises(error) as caught:
        kind(**{**needed, name: value})
    assert text in str(caught.value)
    assert name in str(caught.value) or "a " in text or kind in (Basic, Bearer, Digest, Response)


def parameters(kind: type) -> set[str]:
    names: set[str] = set()
    for each in kind.__mro__[:-1] if issubclass(kind, HTTPConnection) else (kind,):
        for name, parameter in inspect.signature(each).parameters.items():
            if parameter.kind is not parameter.VAR_KEYWORD:
                names.add(name)
    if kind is Client:
        names |= PoolOptions.__annotations__.keys()
    return names - OTHERS


@pytest.mark.parametrize("kind", CONSTRUCTORS)
def test_every_argument_is_in_the_table(kind):
    known = CONSTRUCTORS[kind][1].keys()
    if kind is Request:
        known |= {"target", "content"}  # which only the package gives
    assert parameters(kind) - known == set()


def test_a_client_takes_all_that_a_pool_takes():
    assert parameters(ConnectionPool) <= parameters(Client)


# ------------------------------------------------------------------------- of a request

OPTIONS: dict[str, list[Wrong]] = {
    **SETTINGS,
    "context": CONTEXT,
    "cookies": [(3, TypeError, "cookies must be"), ("a=b", TypeError, "cookies must be")],
    "target": [(3, TypeError, "target"), ("a\n", HTTPException, "target")],
    "content": [(3, TypeError, "content")],
    "json": [(object(), TypeError, "not JSON serializable")],
    "data": [(3, TypeError, "data")],
    "files": [(3, TypeError, "files")],
}


def test_every_option_is_in_the_table():
    assert RequestOptions.__annotations__.keys() - OPTIONS.keys() == set()


@pytest.mark.parametrize("way", ["request", "stream", "fetch_many", "download"])
async def test_an_option_of_a_request_is_checked_before_a_byte_is_sent(way, client, tmp_path):
    url = "http://nowhere.invalid/"
    ways: dict[str, Any] = {
        "request": lambda given: client.get(url, **given),
        "stream": lambda given: client.stream("GET", url, **given),
        "fetch_many": lambda given: client.fetch_many([], **given),
        "download": lambda given: client.download(url, tmp_path / "file", **given),
    }
    late = (
        {"target", "content", "json", "data", "files", "cookies"} if way == "fetch_many" else set()
    )
    for name, values in OPTIONS.items():
        for value, error, text in values:
            if name in late:
                continue  # they are for each request, and read by it
            with pytest.raises(error) as caught:
                made = ways[way]({name: value})
                if asyncio.iscoroutine(made):
                    await made
            assert text in str(caught.value), name
    assert client.stats().open == 0
    assert not (tmp_path / "file").exists()


FETCH_MANY: dict[str, list[Wrong]] = {
    "concurrency": count(1, "request"),
    "ordered": FLAG,
    "items": [
        ("http://h/", TypeError, "takes an iterable of URLs, not one URL"),
        (b"http://h/", TypeError, "takes an iterable of URLs, not one URL"),
        (5, TypeError, "items must be an iterable of URLs, not int"),
    ],
}
DOWNLOAD: dict[str, list[Wrong]] = {
    "url": [(3, TypeError, "a URL must be a str, not int")],
    "path": [
        (3, TypeError, "path must be a path, not int"),
        (None, TypeError, "path must be a path, not NoneType"),
    ],
    "resume": FLAG,
    "progress": FUNCTION,
}


async def test_fetch_many_checks_its_own_arguments_at_once(client):
    names = set(inspect.signature(Client.fetch_many).parameters) - {"self", "options"}
    assert names == FETCH_MANY.keys()
    for name, values in FETCH_MANY.items():
        for value, error, text in values:
            with pytest.raises(error) as caught:
                client.fetch_many(**{"items": [], name: value})
            assert text in str(caught.value)


async def test_download_checks_its_own_arguments_before_the_request(client, tmp_path):
    names = set(inspect.signature(Client.download).parameters) - {"self", "options"}
    assert names == DOWNLOAD.keys()
    given = {"url": "http://nowhere.invalid/", "path": tmp_path / "file"}
    for name, values in DOWNLOAD.items():
        for value, error, text in values:
            with pytest.raises(error) as caught:
                await client.download(**{**given, name: value})
            assert text in str(caught.value), (name, value)
    assert client.stats().open == 0


# ------------------------------------------------------------------- names of other clients


@pytest.mark.parametrize(
    ("name", "hint"),
    {
        "verify": "context=, or cafile=",
        "cert": "context=, an ssl.SSLContext with load_cert_chain()",
        "proxies": "proxy=",
        "http2": "HTTP/1.1 is all that there is",
        "transport": "limit=, uds=, resolve= or dialer=; for tests aiohttpconn.testing",
        "connector": "limit= and the other arguments of ConnectionPool",
        "max_connections": "limit=",
        "allow_redirects": "follow_redirects=",
    }.items(),
)
def test_a_client_has_a_hint_for_the_names_of_others(name, hint):
    with pytest.raises(TypeError) as caught:
        Client(**{name: 1})
    assert str(caught.value) == f"Client() has no argument {name} (here: {hint}): see help(Client)"


def test_an_argument_that_no_client_has_is_named():
    with pytest.raises(TypeError, match=r"^Client\(\) has no argument tiemout: see help\(Client\)"):
        Client(tiemout=1)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("status_code", ": here it is status"),
        ("iter_content", ": here it is iter_bytes()"),
        ("x", ""),
    ],
)
def test_a_response_has_a_hint_for_the_names_of_others(name, hint):
    response = Response(200)
    with pytest.raises(AttributeError) as caught:
        getattr(response, name)
    assert str(caught.value) == f"'Response' object has no attribute {name!r}{hint}"
    assert not hasattr(response, name)


async def test_no_hint_is_for_a_name_that_there_is(client):
    from aiohttpconn.client import hints

    assert hints.OF_CLIENT.keys() & parameters(Client) == set()
    assert hints.OF_REQUEST.keys() & RequestOptions.__annotations__.keys() == set()
    assert [name for name in hints.OF_RESPONSE if hasattr(Response(200), name)] == []


async def test_what_is_right_is_taken(client, tmp_path):
    """The checks refuse nothing that has a meaning."""
    Client(limit=None, limit_per_host=None, max_age=0, keepalive_timeout=0, max_redirects=0)
    Client(timeout=None, retry=Retry(statuses=[503], methods=("GET",)), max_ratio=1)
    Client(cafile=tmp_path / "no.pem", source_address=("127.0.0.1", 0), resolver=Resolver())
    Client(resolve={"a": "1.2.3.4", "b": ["::1", "1.2.3.4"]}, cookies=CookieStore(), proxy=None)
    Client(proxy=Proxy.parse("http://p:80"), auth=("u", "p"), limits=Limits(max_fields=0))
    HTTPConnection("h", "80", 5, None, 1, socket_options=[(1, 2, 3)], uds=b"/x")
    Timeout(total=1, read=0.5)
