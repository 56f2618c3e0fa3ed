"""Routes to origins, and the connections that lead there: proxies, TLS, addresses.

Layer: pool.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from ..connection import connection_to
from ..exceptions import ConnectError, ConnectionVetoed, ConnectTimeout, InvalidURL, cut_url
from ..hooks import awaited
from ..net.addresses import AddressOrder
from ..net.destination import Destination
from ..net.dial import dial
from ..net.handshakes import make_tunnel
from ..net.sockets import ATTEMPT_DELAY
from ..net.tls import default_context
from ..urls import SplitURL

if TYPE_CHECKING:
    import asyncio
    import ssl

    from ..connection import HTTPConnection
    from ..net.destination import DialReport
    from ..net.resolver import Address, Resolves
    from ..net.timeouts import Timeout
    from ..opening import Dialer
    from ..proxies import Proxy
    from .scheduler import PooledConnection

__all__ = ["ConnectionFactory", "OnConnect", "OriginDialer", "Route", "name_proxy"]

OnConnect = Callable[[str, str, int], object]
"""Called with (address, host, port) before a connect, and awaited if need be.

False, or an exception, forbids it. None allows it, and so does what is true.
"""


class Route(NamedTuple):
    """A way to an origin. Connections of one route are interchangeable, others never.

    *forward*: the proxy is sent whole URLs, instead of being asked for a tunnel. *fingerprint*: the
    SHA-256 of the certificate that the origin must have.
    """

    scheme: str
    host: str
    port: int
    proxy: Proxy | None = None
    context: ssl.SSLContext | None = None
    server_hostname: str | None = None
    forward: bool = False
    fingerprint: bytes | None = None

    @property
    def authority(self) -> str:
        """The value of a Host field: no default port, no zone of an IPv6 address."""
        return SplitURL(self.scheme, self.host, self.port, "").authority

    @property
    def origin(self) -> str:
        """The origin as the beginning of a URL."""
        return f"{self.scheme}://{self.authority}"


class OriginDialer:
    """Connect to one origin, whose connections take turns over its addresses.

    It makes them with *dialer*, whose ``Destination`` has it as its resolver.
    """

    __slots__ = ("_dialer", "_doubt", "_max_age", "_on_connect", "_order", "_resolver")

    def __init__(
        self,
        resolver: Resolves,
        on_connect: OnConnect | None,
        dialer: Dialer[Any] = dial,
        max_age: float | None = None,
    ) -> None:
        self._dialer = dialer
        self._resolver = resolver
        self._on_connect = on_connect
        self._max_age = inf if max_age is None else max_age
        self._order = AddressOrder()
        # (host, since): answers for *host* that are older lead nowhere.
        self._doubt: tuple[str, float] | None = None

    async def __call__(
        self, factory: Callable[[], Any], destination: Destination, report: DialReport
    ) -> tuple[asyncio.Transport, Any]:
        destination = replace(destination, resolver=self)
        began = monotonic()
        try:
            return await self._dial(factory, destination, report)
        except ConnectError:
            # If every address has failed, the name may have moved since it was looked up.
            if report.phase != "connect" or not await self._has_moved(destination, began, report):
                raise
        return await self._dial(factory, destination, report)

    async def _dial(
        self, factory: Callable[[], Any], destination: Destination, report: DialReport
    ) -> tuple[asyncio.Transport, Any]:
        """Connect once, and learn from it which addresses work."""
        winner, failed = None, report.skipped
        began = monotonic()
        try:
            made = await self._dialer(factory, destination, report)
            winner = report.address
        except BaseException as exc:
            # A connect that its caller has soon ended tells nothing about the addresses.
            given_up = not isinstance(exc, OSError)
            if given_up and monotonic() - began <= ATTEMPT_DELAY:
                raise
            if given_up and report.phase == "connect":
                self._doubt = destination.host, monotonic()
            elif report.phase == "tls" and report.address and destination.tunnel is None:
                failed = [*failed, report.address]
            raise
        finally:
            self._order.attempted(failed, winner)
        return made

    async def _has_moved(self, destination: Destination, began: float, report: DialReport) -> bool:
        """Whether another lookup gives an address that has not failed in this connect."""
        report.enter("dns")
        try:
            addresses = await self._renewed(destination.host, destination.port, began)
        except OSError:
            addresses = []
        report.enter("connect")
        return any(address not in report.skipped for address in addresses)

    async def resolve(self, host: str, port: int) -> list[Address]:
        """Return the allowed addresses of *host*, in the order in which to try them."""
        # The connections that are closed for their age are followed by some to current addresses.
        since = monotonic() - self._max_age
        if self._doubt is not None and self._doubt[0] == host:
            (_, doubted), self._doubt = self._doubt, None
            since = max(since, doubted)
        addresses = await self._renewed(host, port, since) if since > -inf else []
        if not addresses:
            addresses = await self._resolver.resolve(host, port)
            addresses = await self._vetted(addresses, host, port)
        return self._order.order(addresses)

    async def _renewed(self, host: str, port: int, since: float) -> list[Address]:
        """Return the allowed addresses by an answer newer than *since*; [] if it cannot be told."""
        refresh = getattr(self._resolver, "refresh", None)
        if refresh is None:
            return []
        return await self._vetted(await refresh(host, port, since), host, port)

    async def _vetted(self, addresses: list[Address], host: str, port: int) -> list[Address]:
        """Return those of *addresses* that ``on_connect`` allows; at least one of them."""
        on_connect = self._on_connect
        if on_connect is None or not addresses:
            return addresses
        allowed, refused = [], []
        for address in addresses:
            ip = address[3][0]
            try:
                verdict = await awaited("on_connect", on_connect(ip, host, port))
                allows = verdict is None or bool(verdict)
            except Exception as exc:
                refused.append(exc)
            else:
                if allows:
                    allowed.append(address)
                else:
                    refused.append(PermissionError(f"on_connect refused {ip}"))
        if allowed:
            return allowed
        error = ConnectionVetoed(f"on_connect refused every address of {host!r}: {refused[-1]}")
        error.errors = tuple(refused)
        raise error from refused[-1]


class ConnectionFactory:
    """Makes a pool's connections, each for a route, with the options that all of them share.

    *destination_options* are fields of ``Destination``, *protocol_options* arguments of
    ``HTTP1Protocol``; see ``ConnectionPool`` for the others.
    """

    def __init__(
        self,
        *,
        resolver: Resolves,
        on_connect: OnConnect | None,
        dialer: Dialer[Any] = dial,
        max_answer_age: float | None = None,
        context: ssl.SSLContext | None,
        cafile: str | None,
        proxy_context: ssl.SSLContext | None,
        fingerprint: bytes | None = None,
        destination_options: dict[str, Any] | None = None,
        protocol_options: dict[str, Any] | None = None,
    ) -> None:
        self._dialer = dialer
        self._resolver = resolver
        self._on_connect = on_connect
        self._max_answer_age = max_answer_age
        self._context = context
        self._cafile = cafile
        self._proxy_context = proxy_context
        self._fingerprint = fingerprint
        # The file of authorities to trust in place of the system's, where no other is given.
        self.trusted: str | None = None
        self._destination_options = destination_options or {}
        self.protocol_options = protocol_options or {}

    def dialer(self) -> OriginDialer:
        """Return a dialer for one origin."""
        return OriginDialer(self._resolver, self._on_connect, self._dialer, self._max_answer_age)

    async def destination(self, route: Route) -> Destination:
        """Return the destination of *route*'s connections, with TLS and tunnel."""
        options = self._destination_options
        context = proxy_context = fingerprint = None
        if route.scheme == "https":
            fingerprint = route.fingerprint or self._fingerprint
            context = route.context or self._context
            if context is None:
                context = await default_context(self._cafile or self.trusted)
        proxy = route.proxy
        if proxy is None:
            return Destination(
                route.host,
                route.port,
                context=context,
                server_hostname=route.server_hostname,
                fingerprint=fingerprint,
                **options,
            )
        if proxy.scheme == "https":
            proxy_context = self._proxy_context or await default_context(self.trusted)
        if route.forward:
            return Destination(proxy.host, proxy.port, context=proxy_context, **options)
        credentials = None
        if proxy.username is not None:
            credentials = proxy.username, proxy.password or ""
        scheme = "http" if proxy.scheme == "https" else proxy.scheme
        try:
            tunnel = make_tunnel(route.host, route.port, (), scheme, credentials)
        except ValueError as exc:
            # A redirect may lead there: it is no fault of the caller's.
            raise InvalidURL(
                f"{route.origin} cannot be reached through the proxy {proxy}: {exc}"
            ) from None
        return Destination(
            proxy.host,
            proxy.port,
            context=context,
            server_hostname=route.server_hostname,
            fingerprint=fingerprint,
            tunnel=tunnel,
            proxy_context=proxy_context,
            **options,
        )

    def lease(self, connection: PooledConnection, timeout: Timeout) -> HTTPConnection:
        """Return an ``HTTPConnection`` on *connection*, which is open."""
        origin = connection.origin_pool
        assert origin.destination is not None, "a connection that is open has a destination"
        conn = connection_to(
            origin.destination, timeout=timeout, dialer=origin.dial, **self.protocol_options
        )
        conn.adopt(connection, connection.report)
        return conn


# Phases that concern the proxy, if it is sent whole URLs.
_CONNECTING = ("dns", "connect", "tls")


def name_proxy(exc: Any, route: Route) -> None:
    """Say in *exc* that the proxy of *route*, if it has one, was not reached.

    A connection to a proxy is made like any other. For a tunnel ``dial()`` says so itself, unless
    its time was up.
    """
    if route.proxy is None:
        return
    begins, text = f"{exc.method} {cut_url(exc.url)}: ", str(exc)
    unsaid = exc.phase in _CONNECTING
    if not route.forward:
        # Earlier, SOCKS may have looked up the server's name; later, the proxy was reached.
        unsaid = exc.phase == "connect" and isinstance(exc, ConnectTimeout)
    if unsaid and text.startswith(begins):
        rest = text.removeprefix(begins)
        exc.args = (f"{begins}the proxy {route.proxy} was not reached: {rest}",)
