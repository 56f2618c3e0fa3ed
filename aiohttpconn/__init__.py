"""``http.client``, awaited: an asyncio-native HTTP/HTTPS client in pure Python."""

from __future__ import annotations

import http as _http
from http.client import HTTPMessage, parse_headers, responses
from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from . import exceptions as _exceptions
from .connection import HTTP_PORT, HTTPS_PORT, HTTPConnection, HTTPSConnection
from .exceptions import *  # noqa: F403
from .exceptions import HTTPException
from .exchange import Timings
from .http11.limits import Limits
from .net.destination import Destination, DialReport
from .net.dial import dial
from .net.loops import new_event_loop, run
from .net.resolver import Resolver
from .net.timeouts import Timeout
from .net.tls import HAS_TLS as _HAS_TLS
from .net.tls import TLSInfo
from .protocol import HTTP1Protocol
from .response import HTTPResponse
from .version import __version__ as __version__

error = HTTPException
"""http.client's older name."""

# http.client's module constants: aiohttpconn.OK, aiohttpconn.NOT_FOUND ...
globals().update(_http.HTTPStatus.__members__)

# The client layer is imported when one of its names is first used (PEP 562).
_LAZY = {
    "Auth": "client.auth.schemes",
    "Basic": "client.auth.schemes",
    "Bearer": "client.auth.schemes",
    "Client": "client.client",
    "ConnectionPool": "pool.pool",
    "CookieStore": "client.cookies.store",
    "Digest": "client.auth.digest",
    "Fetched": "client.fetch_many",
    "Fields": "client.fields",
    "Netrc": "client.auth.schemes",
    "OriginStats": "pool.stats",
    "PoolStats": "pool.stats",
    "Proxy": "proxies",
    "ProxyRules": "proxies",
    "Request": "client.request",
    "RequestOptions": "client.settings",
    "Response": "client.response",
    "Retry": "client.retries",
    "delete": "client.api",
    "get": "client.api",
    "head": "client.api",
    "options": "client.api",
    "patch": "client.api",
    "post": "client.api",
    "put": "client.api",
    "request": "client.api",
}

if _TYPE_CHECKING:
    from .client.api import delete, get, head, options, patch, post, put, request
    from .client.auth.digest import Digest
    from .client.auth.schemes import Auth, Basic, Bearer, Netrc
    from .client.client import Client
    from .client.cookies.store import CookieStore
    from .client.fetch_many import Fetched
    from .client.fields import Fields
    from .client.request import Request
    from .client.response import Response
    from .client.retries import Retry
    from .client.settings import RequestOptions
    from .pool.pool import ConnectionPool
    from .pool.stats import OriginStats, PoolStats
    from .proxies import Proxy, ProxyRules


def __getattr__(name: str) -> object:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


__all__ = [
    "HTTPS_PORT",
    "HTTP_PORT",
    "Auth",
    "Basic",
    "Bearer",
    "Client",
    "ConnectionPool",
    "CookieStore",
    "Destination",
    "DialReport",
    "Digest",
    "Fetched",
    "Fields",
    "HTTP1Protocol",
    "HTTPConnection",
    "HTTPMessage",
    "HTTPResponse",
    "HTTPSConnection",
    "Limits",
    "Netrc",
    "OriginStats",
    "PoolStats",
    "Proxy",
    "ProxyRules",
    "Request",
    "RequestOptions",
    "Resolver",
    "Response",
    "Retry",
    "TLSInfo",
    "Timeout",
    "Timings",
    "delete",
    "dial",
    "error",
    "get",
    "head",
    "new_event_loop",
    "options",
    "parse_headers",
    "patch",
    "post",
    "put",
    "request",
    "responses",
    "run",
    *_exceptions.__all__,
]

if not _TYPE_CHECKING and not _HAS_TLS:
    # In http.client, too, the name is missing from a Python without ssl.
    del HTTPSConnection
    del __all__[__all__.index("HTTPSConnection")]
