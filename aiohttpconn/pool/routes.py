"""Ways to an origin, and the connections that lead there: proxies, TLS, addresses.

Layer: pool.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..connection import HTTPConnection, HTTPSConnection
from ..exceptions import ConnectionVetoed, ConnectTimeout, cut_url
from ..net.dial import dial
from ..net.sockets import preferred
from ..net.tls import default_context
from ..urls import SplitURL

if TYPE_CHECKING:
    import asyncio
    import ssl

    from ..net.dial import Destination, DialReport
    from ..net.resolver import Address, Resolves
    from ..proxies import Proxy

__all__ = ["Dialer", "Maker", "OnConnect", "Route", "name_proxy"]

OnConnect = Callable[[str, str, int], object]
"""Called with (address, host, port) before a connect; False, or what it raises, forbids it."""


class Route(NamedTuple):
    """A way to an origin. Connections of one route may stand for each other, others never.

    *forward*: the proxy is asked for whole URLs, instead of for a tunnel.
    """

    scheme: str
    host: str
    port: int
    proxy: Proxy | None = None
    context: ssl.SSLContext | None = None
    server_hostname: str | None = None
    forward: bool = False

    @property
    def authority(self) -> str:
        """What a Host field says: no default port, no zone of an IPv6 address."""
        return SplitURL(self.scheme, self.host, self.port, "").authority

    @property
    def origin(self) -> str:
        """The origin as the beginning of a URL."""
        return f"{self.scheme}://{self.authority}"


class Dialer:
    """Connects for one site; the address that worked last is tried first (RFC 8305 §4)."""

    __slots__ = ("_on_connect", "_resolver", "_winner")

    def __init__(self, resolver: Resolves, on_connect: OnConnect | None) -> None:
        self._resolver = resolver
        self._on_connect = on_connect
        self._winner: Any = None

    async def __call__(
        self, factory: Callable[[], Any], destination: Destination, report: DialReport
    ) -> tuple[asyncio.Transport, Any]:
        made = await dial(factory, destination, report, resolver=self)
        self._winner = made[0].get_extra_info("peername")
        return made

    async def resolve(self, host: str, port: int) -> list[Address]:
        """Mirrors ``net.resolver.Resolves``: what was vetted is what is connected to."""
        addresses = await self._resolver.resolve(host, port)
        if self._on_connect is not None:
            addresses = self._vetted(self._on_connect, addresses, host, port)
        return preferred(addresses, self._winner)

    def _vetted(
        self, on_connect: OnConnect, addresses: list[Address], host: str, port: int
    ) -> list[Address]:
        allowed, refused = [], []
        for address in addresses:
            ip = address[3][0]
            try:
                verdict = on_connect(ip, host, port)
            except Exception as exc:
                refused.append(exc)
            else:
                if verdict is False:
                    refused.append(PermissionError(f"on_connect refused {ip}"))
                else:
                    allowed.append(address)
        if allowed:
            return allowed
        error = ConnectionVetoed(f"on_connect refused every address of {host!r}: {refused[-1]}")
        error.errors = tuple(refused)
        raise error from refused[-1]


class Maker:
    """Makes connections, each for a route: what is the same for all of a pool's.

    *options* are arguments of ``HTTPConnection``; see ``ConnectionPool`` for the others.
    """

    def __init__(
        self,
        *,
        resolver: Resolves,
        on_connect: OnConnect | None,
        context: ssl.SSLContext | None,
        cafile: str | None,
        proxy_context: ssl.SSLContext | None,
        options: dict[str, Any],
    ) -> None:
        self._resolver = resolver
        self._on_connect = on_connect
        self._context = context
        self._cafile = cafile
        self._proxy_context = proxy_context
        self._options = options

    def dialer(self) -> Dialer:
        """Return what connects for one route."""
        return Dialer(self._resolver, self._on_connect)

    async def make(self, route: Route, dialer: Dialer) -> HTTPConnection:
        """Return a new connection for *route*, not connected yet."""
        options = {**self._options, "dialer": dialer}
        proxy = route.proxy
        if proxy is not None and proxy.scheme == "https" and self._proxy_context is None:
            self._proxy_context = await default_context()
        kind: type[HTTPConnection] = HTTPConnection
        if route.scheme == "https":
            kind = HTTPSConnection
            options["context"] = route.context or self._context
            options["server_hostname"] = route.server_hostname
            if options["context"] is None:
                options["cafile"] = self._cafile
        if proxy is None:
            return kind(route.host, route.port, **options)
        if route.forward:
            if proxy.scheme == "https":
                return HTTPSConnection(
                    proxy.host, proxy.port, context=self._proxy_context, **options
                )
            return HTTPConnection(proxy.host, proxy.port, **options)
        if proxy.scheme == "https":
            options["proxy_context"] = self._proxy_context
        conn = kind(proxy.host, proxy.port, **options)
        credentials = None
        if proxy.username is not None:
            credentials = proxy.username, proxy.password or ""
        scheme = "http" if proxy.scheme == "https" else proxy.scheme
        conn.set_tunnel(route.host, route.port, scheme=scheme, credentials=credentials)
        return conn


# Phases in which it is the proxy that is connected to, if it is asked for whole URLs.
_CONNECTING = ("dns", "connect", "tls")


def name_proxy(exc: Any, route: Route) -> None:
    """Say in *exc* that it is the proxy of *route*, if it has one, that was not reached.

    Its connection was made as any other. Of a tunnel ``dial()`` says it, where there was time.
    """
    if route.proxy is None:
        return
    begins, text = f"{exc.method} {cut_url(exc.url)}: ", str(exc)
    unsaid = exc.phase in _CONNECTING
    if not route.forward:
        # Before that, SOCKS may have looked up the server's name; behind it, there is the proxy.
        unsaid = exc.phase == "connect" and isinstance(exc, ConnectTimeout)
    if unsaid and text.startswith(begins):
        rest = text.removeprefix(begins)
        exc.args = (f"{begins}the proxy {route.proxy} was not reached: {rest}",)
