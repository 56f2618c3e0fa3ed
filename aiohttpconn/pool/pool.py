"""ConnectionPool: one object that keeps the connections to many servers. Layer: pool."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypedDict

from ..body import SMALL_BODY
from ..exceptions import InvalidURL
from ..http11.head import encode_fields, encode_request_line
from ..http11.limits import DEFAULT_LIMITS, Limits
from ..http11.semantics import BODY_METHODS, DECIDING, SHARING
from ..net.resolver import Resolver
from ..net.timeouts import Timeout
from ..proxies import Proxy, ProxyRules
from ..types import UNSET, Unset
from ..urls import PORTS, SplitURL, encode_host, split_url
from .connections import Connections
from .requests import Send, exchange, exchange_body, exchange_shared, lend
from .routes import Maker, Route

if TYPE_CHECKING:
    import asyncio
    import os
    import ssl
    from collections.abc import Sequence

    from ..connection import HTTPConnection
    from ..net.resolver import Resolves, StaticLike
    from ..proxies import ProxiesLike
    from ..response import HTTPResponse
    from ..types import BodyLike, HeadersLike, SocketOption
    from .routes import OnConnect
    from .scheduler import Site, Slot

__all__ = [
    "KEEP_ALIVE",
    "ConnectionPool",
    "OriginStats",
    "PoolOptions",
    "PoolStats",
    "forwards",
    "request_head",
]

DNS_TTL = 60.0
"""Seconds for which a pool uses the answer of a name lookup: getaddrinfo tells no lifetime."""

KEEP_ALIVE = "Connection: keep-alive\r\n"
"""Sent although HTTP/1.1 means it anyway: Apache says only to who does for how long it keeps a
connection, and how many requests."""

OriginLike: TypeAlias = str | tuple[str, str, int]
"""A URL of which the origin counts, or (scheme, host, port)."""


class PoolOptions(TypedDict, total=False):
    """Arguments of ``ConnectionPool`` that a ``Client`` passes on."""

    limit: int | None
    limit_per_host: int | None
    keepalive_timeout: float
    max_idle: int | None
    max_requests: int | None
    max_age: float | None
    pipelining: int
    context: ssl.SSLContext | None
    cafile: str | os.PathLike[str] | None
    proxy_context: ssl.SSLContext | None
    resolver: Resolves | None
    resolve: StaticLike | None
    on_connect: OnConnect | None
    min_interval: float | None
    rate: str | None
    respect_retry_after: bool
    strict: bool
    limits: Limits
    high_water: int | None
    uds: str | bytes | None
    source_address: tuple[str, int] | None
    socket_options: Sequence[SocketOption]
    resume_tls: bool


@dataclass(frozen=True, slots=True)
class OriginStats:
    """Connections of one way to one origin, and the requests that wait for one."""

    open: int
    idle: int
    leased: int
    queued: int


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Connections of a pool: ``open`` are ``idle`` or ``leased``; ``queued`` requests wait.

    ``origins``: the same for each origin that has any, by its URL, with " via " and the proxy
    behind it if there is one.
    """

    open: int
    idle: int
    leased: int
    queued: int
    origins: Mapping[str, OriginStats]


class ConnectionPool:
    """Connections to any number of servers: limited, fair, kept alive, never leaked.

    Belongs to the event loop that it is first used in. Close it: ``async with``, or ``close()``.

    Arguments:
        limit: connections in all; None is no limit. When it is reached, an idle connection to
            another origin is closed, or the request waits: origins take turns.
        limit_per_host: connections to one origin; None is no limit.
        keepalive_timeout: seconds for which an idle connection is kept; less if the server says so
            (``Keep-Alive: timeout=``). 0 keeps none.
        max_idle: idle connections kept; the oldest is closed. None is ``limit``.
        max_requests: requests on one connection, None for any number.
        max_age: seconds after which a connection serves no further request; None for any age.
        pipelining: requests on one connection at a time, for ``request`` with GET, HEAD and
            OPTIONS and the pool's own timeout; with 1 there is no pipelining. What is slow, also
            to be read, then delays what is behind it; what was not answered when its connection
            ends is sent again.
        timeout: seconds per operation, or a ``Timeout``; None waits for ever.
        context: an ``ssl.SSLContext`` for https; by default one that verifies, shared by all.
        cafile: a PEM file of the authorities to trust instead of the system's.
        proxy: the proxy for all, a URL or ``Proxy``; or a dict by scheme or origin: see
            ``ProxyRules``.
        proxy_context: an ``ssl.SSLContext`` for https proxies.
        resolver: looks names up; by default a ``Resolver`` that keeps answers for a minute.
        resolve: names that are not looked up: {"example.org": "192.0.2.1"}; see ``Resolver``.
        on_connect: called with (address, host, port) before a connect. False, or an exception,
            forbids that address: what keeps programs from being led to internal servers.
        min_interval: seconds from one request to an origin to the next.
        rate: requests to an origin in any such period: "10/s", "100/m".
        respect_retry_after: whether a 429 or 503 with Retry-After pauses its origin.
        resend_stale: whether a request that a connection has swallowed when it died, without a byte
            of an answer, is sent once more on a new one, if its method may be sent twice.
        strict, limits, high_water, uds, source_address, socket_options, resume_tls: as
            ``HTTPConnection`` has them.
    """

    def __init__(
        self,
        *,
        limit: int | None = 100,
        limit_per_host: int | None = 8,
        keepalive_timeout: float = 15.0,
        max_idle: int | None = None,
        max_requests: int | None = None,
        max_age: float | None = None,
        pipelining: int = 1,
        timeout: float | Timeout | None = None,
        context: ssl.SSLContext | None = None,
        cafile: str | os.PathLike[str] | None = None,
        proxy: ProxiesLike = None,
        proxy_context: ssl.SSLContext | None = None,
        resolver: Resolves | None = None,
        resolve: StaticLike | None = None,
        on_connect: OnConnect | None = None,
        min_interval: float | None = None,
        rate: str | None = None,
        respect_retry_after: bool = False,
        resend_stale: bool = True,
        strict: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        high_water: int | None = None,
        uds: str | bytes | None = None,
        source_address: tuple[str, int] | None = None,
        socket_options: Sequence[SocketOption] = (),
        resume_tls: bool = True,
    ) -> None:
        if context is not None and cafile is not None:
            raise ValueError("cafile= makes a context: give it, or context=, not both")
        if resolver is not None and resolve is not None:
            raise ValueError("resolve= is for the pool's own resolver: give it, or resolver=")
        options: dict[str, Any] = {
            "strict": strict,
            "limits": limits,
            "uds": uds,
            "source_address": source_address,
            "socket_options": tuple(socket_options),
            "resume_tls": resume_tls,
        }
        if high_water is not None:
            options["high_water"] = high_water
        self._timeout = Timeout.of(timeout)
        self._send = Send(self._timeout, None, resend_stale)
        self._proxies = ProxyRules.of(proxy)
        self._connections = Connections(
            limit=limit,
            limit_per_host=limit_per_host,
            keepalive_timeout=keepalive_timeout,
            max_idle=max_idle,
            max_requests=max_requests,
            max_age=max_age,
            pipelining=pipelining,
            min_interval=min_interval,
            rate=rate,
            respect_retry_after=respect_retry_after,
            maker=Maker(
                resolver=resolver or Resolver(ttl=DNS_TTL, static=resolve),
                on_connect=on_connect,
                context=context,
                cafile=None if cafile is None else str(cafile),
                proxy_context=proxy_context,
                options=options,
            ),
        )

    def __repr__(self) -> str:
        return f"<ConnectionPool {self._connections!r}>"

    async def __aenter__(self) -> Self:
        self._connections.bind()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def __del__(self) -> None:
        connections = getattr(self, "_connections", None)
        if connections is None or connections.closed or not connections.slots.open:
            return
        try:
            warnings.warn(
                f"unclosed pool, {connections!r}: call close() of the client or pool, or use "
                "'async with'",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
        finally:
            loop = connections.loop
            if loop is not None and loop.is_running():
                # In its thread, and not in the middle of anything: the collector runs anywhere.
                loop.call_soon_threadsafe(connections.shut)
            else:
                connections.shut()

    # ------------------------------------------------------------------ connections

    def connection(
        self,
        origin: OriginLike,
        *,
        timeout: float | Timeout | Unset | None = UNSET,
        proxy: str | Proxy | Unset | None = UNSET,
    ) -> AbstractAsyncContextManager[HTTPConnection]:
        """Lend a connection to *origin*: ``async with pool.connection(url) as conn``.

        It is open, and the caller's alone until the end of the block, where it goes back if its
        last response was read to the end, and is closed if not. A request on it that fails is not
        sent again. *timeout* and *proxy* replace the pool's; None is none. Entering raises
        ``PoolTimeout`` if no connection was free in time, ``PoolClosed``, and what
        ``HTTPConnection.connect`` raises.

        Through an HTTP proxy it is a tunnel, for http too.
        """
        limits = self._timeout if isinstance(timeout, Unset) else Timeout.of(timeout)
        return _Lease(self._connections, self._route(origin, proxy, may_forward=False), limits)

    async def request(
        self,
        method: str,
        url: str,
        body: BodyLike | None = None,
        headers: HeadersLike = (),
        *,
        timeout: float | Timeout | Unset | None = UNSET,
        proxy: str | Proxy | Unset | None = UNSET,
        resend_stale: bool | Unset = UNSET,
    ) -> HTTPResponse:
        """Send a request; return its response as soon as its head is here.

        The connection goes back to the pool when the response was read to its end, and is closed
        when the response is closed, or dropped. *body* and *headers* are those of
        ``HTTPConnection.request``. *timeout*, *proxy* and *resend_stale* replace the pool's.
        Nothing is followed, decoded or kept: that is what ``Client`` does.

        Raises ``InvalidURL``, ``PoolTimeout``, ``PoolClosed``, and what ``connect``, ``request``
        and ``getresponse`` of ``HTTPConnection`` raise.
        """
        connections = self._connections
        loop = connections.bind()
        route, target = self._routed(url, proxy)
        site = connections.site(route)
        send = self._sending(timeout, resend_stale, loop)
        fields, names = encode_fields(headers) if headers else ("", {})
        if method == "CONNECT" or "upgrade" in names:
            raise ValueError("what leaves HTTP needs a connection of its own: pool.connection(url)")
        small = body if type(body) is bytes and len(body) <= SMALL_BODY else None
        if (body is not None and small is None) or not DECIDING.isdisjoint(names):
            items = list(headers.items() if isinstance(headers, Mapping) else headers)
            if site.fields:
                items += [tuple(site.fields.rstrip().split(": ", 1))]
            replay = (lambda: body) if isinstance(body, (bytes, str)) or body is None else None
            response, _ = await exchange_body(
                connections, site, method, target, body, items, send, replay
            )
        else:
            head = request_head(site, method, target, names, fields, small)
            shared = site.pipelining > 1 and body is None and method in SHARING
            start = exchange_shared if shared and isinstance(timeout, Unset) else exchange
            response = await start(connections, site, method, target, head, send)
        if not response.ended:
            response.hold_weakly()
        return response

    def _sending(
        self,
        timeout: float | Timeout | Unset | None,
        resend: bool | Unset,
        loop: asyncio.AbstractEventLoop,
    ) -> Send:
        if isinstance(timeout, Unset) and isinstance(resend, Unset) and self._timeout.total is None:
            return self._send
        limits = self._timeout if isinstance(timeout, Unset) else Timeout.of(timeout)
        deadline = None if limits.total is None else loop.time() + limits.total
        return Send(limits, deadline, self._send.resend if isinstance(resend, Unset) else resend)

    def _routed(self, url: str, proxy: str | Proxy | Unset | None) -> tuple[Route, str]:
        parts = _split(url)
        return self._route_of(parts, proxy, may_forward=True), parts.target

    def _route(
        self, origin: OriginLike, proxy: str | Proxy | Unset | None, *, may_forward: bool
    ) -> Route:
        if isinstance(origin, str):
            return self._route_of(_split(origin), proxy, may_forward=may_forward)
        scheme, host, port = origin
        if scheme not in PORTS or type(port) is not int or not 0 <= port <= 65535:
            raise InvalidURL(f"an origin is (http or https, host, port), got {origin!r}")
        host = encode_host(f"[{host}]" if ":" in host else host)
        parts = SplitURL(scheme, host, port, "/")
        return self._route_of(parts, proxy, may_forward=may_forward)

    def _route_of(
        self, parts: SplitURL, proxy: str | Proxy | Unset | None, *, may_forward: bool
    ) -> Route:
        if isinstance(proxy, Unset):
            chosen = self._proxies.proxy_for(*parts.origin)
        else:
            chosen = Proxy.parse(proxy) if isinstance(proxy, str) else proxy
        forward = may_forward and chosen is not None and forwards(chosen, parts.scheme)
        return Route(*parts.origin, chosen, forward=forward)

    # ------------------------------------------------------------------ the pool itself

    def stats(self) -> PoolStats:
        """Return how many connections there are, and what they do."""
        slots = self._connections.slots
        origins = {
            f"{site.key.origin}{f' via {site.key.proxy}' if site.key.proxy else ''}": OriginStats(
                site.open, len(site.idle), site.open - len(site.idle), len(site.waiters)
            )
            for site in slots.sites.values()
            if site.open or site.waiters
        }
        idle = len(slots.idle)
        return PoolStats(slots.open, idle, slots.open - idle, slots.queued, origins)

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._connections.closed

    async def close(self) -> None:
        """Close all connections, and wait until their sockets are gone, some 2 s at most.

        Requests that wait for a connection get ``PoolClosed``, those that are on their way
        ``ConnectionAbortedError``. Harmless if repeated.
        """
        self._connections.shut()
        await self._connections.wait_closed()


class _Lease(AbstractAsyncContextManager["HTTPConnection"]):
    """A connection that is lent."""

    def __init__(self, connections: Connections, route: Route, timeout: Timeout) -> None:
        self._connections = connections
        self._route = route
        self._timeout = timeout
        self._slot: Slot | None = None

    async def __aenter__(self) -> HTTPConnection:
        if self._slot is not None:
            raise RuntimeError("this connection is lent already: call pool.connection() again")
        connections = self._connections
        connections.bind()
        site = connections.site(self._route)
        slot, _ = await lend(connections, site, "", "", Send(self._timeout))
        conn = slot.conn
        assert conn is not None, "a connection that is open"
        conn.timeout = self._timeout
        self._slot = slot
        return conn

    async def __aexit__(self, *exc_info: object) -> None:
        slot, self._slot = self._slot, None
        if slot is not None:
            self._connections.take_back(slot)


def _split(url: str) -> SplitURL:
    """Return the parts of a URL that has no user and password."""
    parts = split_url(url)
    if parts.userinfo:
        raise ValueError("a pool sends no credentials of a URL: send an Authorization field")
    return parts


def forwards(proxy: Proxy, scheme: str) -> bool:
    """Whether *proxy* is asked for whole URLs of *scheme*: HTTP proxies are, for http."""
    return scheme == "http" and not proxy.is_socks


def request_head(
    site: Site, method: str, target: str, names: Mapping[str, str], fields: str, body: bytes | None
) -> bytes:
    """Return the bytes of a request in one write. *fields* are the caller's, of *names*.

    Raises ``ValueError`` and ``InvalidURL`` for what may not be sent.
    """
    if method == "TRACE" and body is not None:
        raise ValueError("a TRACE request must not have a body (RFC 9110 §9.3.8)")
    line = encode_request_line(method, f"{site.prefix}{target}")
    host = "" if "host" in names else f"Host: {site.authority}\r\n"
    keep = "" if "connection" in names else KEEP_ALIVE
    coding = "" if "accept-encoding" in names else "Accept-Encoding: identity\r\n"
    length = ""
    if body is not None:
        length = f"Content-Length: {len(body)}\r\n"
    elif method in BODY_METHODS:
        length = "Content-Length: 0\r\n"
    own = f"{host}{keep}{coding}{site.fields}{length}"
    head = f"{line} HTTP/1.1\r\n{own}{fields}\r\n".encode("latin-1")
    return head + body if body else head
