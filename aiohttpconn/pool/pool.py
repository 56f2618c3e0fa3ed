"""ConnectionPool: one object that keeps the connections to many servers. Layer: pool."""

from __future__ import annotations

import warnings
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypedDict

from ..arguments import check_arguments
from ..body import SMALL_BODY
from ..exceptions import InvalidURL
from ..http11.limits import DEFAULT_LIMITS, Limits
from ..http11.request_head import encode_fields
from ..http11.semantics import DECIDING, SHARING
from ..net.dial import dial
from ..net.loops import call_in_loop
from ..net.resolver import Resolver
from ..net.sockets import keepalive_options
from ..net.timeouts import Timeout
from ..net.tls import read_fingerprint
from ..proxies import Proxy, ProxyRules
from ..types import UNSET, Unset, exact
from ..urls import PORTS, SplitURL, encode_host, split_url
from .connections import ConnectionManager
from .options import POOL_CHECKS
from .requests import (
    SendOptions,
    encode_small_request,
    exchange,
    exchange_shared,
    exchange_streamed,
    prepare,
)
from .routes import ConnectionFactory, Route
from .stats import pool_stats

if TYPE_CHECKING:
    import asyncio
    import os
    import ssl
    from collections.abc import Sequence

    from ..connection import HTTPConnection
    from ..net.resolver import Resolves, StaticLike
    from ..net.tls import FingerprintLike
    from ..opening import Dialer
    from ..proxies import ProxiesLike
    from ..response import HTTPResponse
    from ..types import BodyLike, HeadersLike, SocketOption
    from .routes import OnConnect
    from .scheduler import PooledConnection
    from .stats import PoolStats

__all__ = [
    "ConnectionPool",
    "PoolOptions",
    "forwards",
]

LIMIT = 114
"""Connections of a pool in all. One origin may have 100 of them (``scheduler.reserved``), which may
all connect at once to a server with a small backlog, such as asyncio's default. The kernel drops
the SYN of each one beyond that, and sends it again after a second."""

TCP_KEEPALIVE = 60
"""Seconds after which TCP probes a silent connection: before NAT gateways and load balancers forget
it, which then neither deliver a request nor say so."""

DNS_TTL = 60.0
"""Seconds for which a pool uses the answer of a name lookup: getaddrinfo reports no lifetime."""

OriginLike: TypeAlias = str | tuple[str, str, int]
"""A URL, of which only the origin counts, or (scheme, host, port)."""


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
    dialer: Dialer[Any]
    min_interval: float | None
    rate: str | None
    respect_retry_after: bool
    strict: bool
    limits: Limits
    high_water: int | None
    uds: str | bytes | None
    source_address: tuple[str, int] | None
    socket_options: Sequence[SocketOption]
    tcp_keepalive: int | None
    resume_tls: bool


class ConnectionPool:
    """Connections to any number of servers: limited, fair, kept alive, never leaked.

    Belongs to the event loop that it is first used in. Close it: ``async with``, or ``close()``.

    Arguments:
        limit: connections in all; None is no limit. When it is reached, an idle connection to
            another origin is closed, or the request waits: origins take turns.
        limit_per_host: connections to one origin; None is no limit. By default one origin leaves
            an eighth of *limit*, at least one connection, to others.
        keepalive_timeout: seconds for which an idle connection is kept; less if the server says so
            (``Keep-Alive: timeout=``). 0 keeps none.
        max_idle: idle connections kept; the oldest is closed. None is ``limit``.
        max_requests: requests on one connection, None for any number.
        max_age: seconds after which a connection serves no further request; None for any age.
        pipelining: requests on one connection at a time, for ``request`` with GET, HEAD and
            OPTIONS and the pool's own timeout; with 1 there is no pipelining. A response that is
            slow, or is read slowly, then delays those after it; a request that is unanswered when
            its connection ends is sent again.
        timeout: seconds per operation, or a ``Timeout``; None waits for ever.
        context: an ``ssl.SSLContext`` for https; by default one that verifies, shared by all.
        cafile: a PEM file of the authorities to trust instead of the system's.
        fingerprint: the SHA-256 that the certificates of all https servers must have, beside all
            that *context* verifies: hexadecimal, or 32 bytes. Not for proxies.
        proxy: the proxy for all requests, a URL or ``Proxy``; or a dict by scheme or origin: see
            ``ProxyRules``.
        proxy_context: an ``ssl.SSLContext`` for https proxies.
        resolver: looks names up; by default a ``Resolver`` that keeps answers for a minute. A new
            connection uses no answer older than *max_age*. Connections of one origin take turns
            over its addresses.
        resolve: names that are not looked up: {"example.org": "192.0.2.1"}; see ``Resolver``.
        on_connect: called with (address, host, port) before a connect, and awaited if it is async.
            False, or an exception, forbids that address. It keeps a program from being led to
            internal servers.
        dialer: makes the connections, as for ``HTTPConnection``. Its ``Destination`` has a
            ``resolver`` that obeys *resolver*, *resolve* and *on_connect*: ``dial`` uses it.
        min_interval: seconds from the beginning of one request to an origin to the next.
        rate: requests to an origin in any such period: "10/s", "100/m".
        respect_retry_after: whether a 429 or 503 with Retry-After pauses its origin.
        resend_stale: whether a request is sent once more, on a new connection, if a reused one
            ended without a byte of an answer, and if its method may be sent twice.
        tcp_keepalive: seconds of silence after which TCP probes a connection, idle or not, and from
            one probe to the next; None sends no probes. Not for Unix sockets.
        strict, limits, high_water, uds, source_address, socket_options, resume_tls: as
            ``HTTPConnection`` has them.
    """

    def __init__(
        self,
        *,
        limit: int | None = LIMIT,
        limit_per_host: int | Unset | None = UNSET,
        keepalive_timeout: float = 15.0,
        max_idle: int | None = None,
        max_requests: int | None = None,
        max_age: float | None = None,
        pipelining: int = 1,
        timeout: float | Timeout | None = None,
        context: ssl.SSLContext | None = None,
        cafile: str | os.PathLike[str] | None = None,
        fingerprint: FingerprintLike | None = None,
        proxy: ProxiesLike = None,
        proxy_context: ssl.SSLContext | None = None,
        resolver: Resolves | None = None,
        resolve: StaticLike | None = None,
        on_connect: OnConnect | None = None,
        dialer: Dialer[Any] = dial,
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
        tcp_keepalive: int | None = TCP_KEEPALIVE,
        resume_tls: bool = True,
    ) -> None:
        check_arguments(POOL_CHECKS, locals())
        if context is not None and cafile is not None:
            raise ValueError("cafile= makes a context: give it, or context=, not both")
        if resolver is not None and resolve is not None:
            raise ValueError("resolve= is for the resolver made here: give it, or resolver=")
        probes = keepalive_options(tcp_keepalive) if uds is None else ()
        protocol_options: dict[str, Any] = {"strict": strict, "limits": limits}
        if high_water is not None:
            protocol_options["high_water"] = high_water
        self._timeout = Timeout.of(timeout)
        self._send = SendOptions(self._timeout, None, resend_stale)
        self._proxies = ProxyRules.of(proxy)
        self._connections = ConnectionManager(
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
            factory=ConnectionFactory(
                dialer=dialer,
                resolver=resolver or _own_resolver(DNS_TTL, resolve),
                on_connect=on_connect,
                max_answer_age=max_age,
                context=context,
                cafile=None if cafile is None else str(cafile),
                proxy_context=proxy_context,
                fingerprint=read_fingerprint(fingerprint),
                destination_options={
                    "uds": uds,
                    "source_address": source_address,
                    # The caller's own come later, and win.
                    "socket_options": (*probes, *socket_options),
                    "resume_tls": resume_tls,
                },
                protocol_options=protocol_options,
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
        if connections is None or connections.closed or not connections.scheduler.connection_count:
            return
        try:
            warnings.warn(
                f"unclosed {connections.noun}, {connections!r}: call its close(), or use "
                "'async with'",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
        finally:
            if connections.loop is not None:
                call_in_loop(connections.loop, connections.close_nowait)

    # ---------------------------------------------------------------------- connections

    def connection(
        self,
        origin: OriginLike,
        *,
        timeout: float | Timeout | Unset | None = UNSET,
        proxy: str | Proxy | Unset | None = UNSET,
    ) -> AbstractAsyncContextManager[HTTPConnection]:
        """Lease a connection to *origin*: ``async with pool.connection(url) as conn``.

        It is open, and the caller's alone until the end of the block. There it goes back to the
        pool if its last response was read to the end, and is closed if not. A request on it that
        fails is not sent again. *timeout* and *proxy* replace the pool's; None means no limit, or
        no proxy. Entering raises ``PoolTimeout`` if no connection was free in time,
        ``PoolClosed``, and the errors of ``HTTPConnection.connect``.

        Through an HTTP proxy it is a tunnel, even for http.
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
        """Send a request; return its response as soon as its head has arrived.

        The connection goes back to the pool when the response was read to its end, and is closed
        when the response is closed, or dropped. *body* and *headers* are those of
        ``HTTPConnection.request``. *timeout*, *proxy* and *resend_stale* replace the pool's.
        A ``Client`` also follows redirects, decodes bodies and keeps cookies; a pool does not.

        Raises ``InvalidURL``, ``PoolTimeout``, ``PoolClosed``, and the errors of ``connect``,
        ``request`` and ``getresponse`` of ``HTTPConnection``.
        """
        connections = self._connections
        method, url = exact(method), exact(url)
        loop = connections.bind(method, url)
        route, target = self._routed(url, proxy)
        origin = connections.origin(route)
        send = self._sending(timeout, resend_stale, loop)
        fields, names = encode_fields(headers) if headers else ("", {})
        if method == "CONNECT" or "upgrade" in names:
            raise ValueError("CONNECT and Upgrade need their own connection: pool.connection(url)")
        small = body if type(body) is bytes and len(body) <= SMALL_BODY else None
        if (body is None or small is not None) and DECIDING.isdisjoint(names):
            data = encode_small_request(origin, method, target, names, fields, small)
            shared = origin.pipelining > 1 and body is None and method in SHARING
            start = exchange_shared if shared and isinstance(timeout, Unset) else exchange
            response = await start(connections, origin, method, target, data, send)
        else:
            replay = None
            if isinstance(body, (bytes, str)):
                replay = partial(prepare, origin, method, target, names, fields, body)
            request = prepare(origin, method, target, names, fields, body)
            response = await exchange_streamed(
                connections, origin, method, target, request, send, replay
            )
        if not response.ended:
            response.hold_weakly()
        return response

    def _sending(
        self,
        timeout: float | Timeout | Unset | None,
        resend: bool | Unset,
        loop: asyncio.AbstractEventLoop,
    ) -> SendOptions:
        if isinstance(timeout, Unset) and isinstance(resend, Unset) and self._timeout.total is None:
            return self._send
        limits = self._timeout if isinstance(timeout, Unset) else Timeout.of(timeout)
        deadline = None if limits.total is None else loop.time() + limits.total
        return SendOptions(
            limits, deadline, self._send.resend if isinstance(resend, Unset) else resend
        )

    def _routed(self, url: str, proxy: str | Proxy | Unset | None) -> tuple[Route, str]:
        parts = _split(url)
        return self._route_of(parts, proxy, may_forward=True), parts.target

    def _route(
        self, origin: OriginLike, proxy: str | Proxy | Unset | None, *, may_forward: bool
    ) -> Route:
        if isinstance(origin, str):
            return self._route_of(_split(origin), proxy, may_forward=may_forward)
        scheme, host, port = map(exact, origin)
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
        """Return the numbers of connections and of waiting requests, in all and by origin."""
        return pool_stats(self._connections.scheduler)

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._connections.closed

    async def close(self) -> None:
        """Close all connections, and wait until their sockets have closed, some 2 s at most.

        Requests that wait for a connection get ``PoolClosed``, those that are on their way
        ``ConnectionAbortedError``. Harmless if repeated.
        """
        self._connections.close_nowait()
        await self._connections.wait_closed()


class _Lease(AbstractAsyncContextManager["HTTPConnection"]):
    """A connection that is leased to a block."""

    def __init__(self, connections: ConnectionManager, route: Route, timeout: Timeout) -> None:
        self._connections = connections
        self._route = route
        self._timeout = timeout
        self._connection: PooledConnection | None = None

    async def __aenter__(self) -> HTTPConnection:
        if self._connection is not None:
            raise RuntimeError("this connection is leased already: call pool.connection() again")
        connections = self._connections
        loop = connections.bind()
        origin = connections.origin(self._route)
        total = self._timeout.total
        deadline = None if total is None else loop.time() + total
        connection, _ = await connections.connected(origin, self._timeout, deadline, "", "")
        self._connection = connection
        return connections.lease(connection, self._timeout)

    async def __aexit__(self, *exc_info: object) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._connections.end_lease(connection)


def _split(url: str) -> SplitURL:
    """Return the parts of *url*; ``ValueError`` if it has a user or a password."""
    parts = split_url(url)
    if parts.userinfo:
        raise ValueError("a pool does not send a URL's credentials: send an Authorization field")
    return parts


def _own_resolver(ttl: float, resolve: StaticLike | None) -> Resolver:
    """Return the pool's own resolver; errors name the argument of the pool."""
    try:
        return Resolver(ttl=ttl, static=resolve)
    except (TypeError, ValueError) as exc:
        raise type(exc)(f"resolve={str(exc).removeprefix('static ')}") from None


def forwards(proxy: Proxy, scheme: str) -> bool:
    """Whether requests of *scheme* send whole URLs to *proxy*: to HTTP proxies, for http."""
    return scheme == "http" and not proxy.is_socks
