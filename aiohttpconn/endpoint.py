"""Endpoint: the address that a connection leads to, and the protocol that is open there.

Configuration, connecting, and the ownership of the transport. The states of requests and
responses are connection.py's. Layer: above protocol and opening, below connection.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from http.client import HTTP_PORT, HTTPMessage
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from .arguments import (
    CALLABLE,
    CONTEXT,
    FLAG,
    PLAIN_FUNCTION,
    PORT,
    SOCKET_OPTIONS,
    SOURCE_ADDRESS,
    TEXT,
    UDS,
    Checks,
    check_arguments,
    count,
    instance,
    number,
)
from .body import BLOCKSIZE
from .ends import CLOSE_SECONDS
from .exceptions import TunnelError
from .exchange import HIGH_WATER
from .http11.limits import DEFAULT_LIMITS, Limits
from .http11.request_head import bracketed, split_host_port
from .net.destination import Destination, DialReport
from .net.dial import dial
from .net.handshakes import make_tunnel
from .net.loops import call_in_loop
from .net.sockets import read_watcher
from .net.timeouts import Timeout
from .net.tls import TLSSocket
from .opening import Opening
from .protocol import CLOSED, IDLE, HTTP1Protocol
from .response import HTTPResponse, make_message
from .upload import CONTINUE_TIMEOUT

if TYPE_CHECKING:
    import ssl

    from .net.tunnel import Tunnel
    from .opening import Dialer
    from .types import OnInformational, SocketOption

__all__ = ["ConnectionOptions", "Endpoint"]

logger = logging.getLogger("aiohttpconn")


_CHECKS: Checks = {
    "host": TEXT,
    "port": PORT,
    "source_address": SOURCE_ADDRESS,
    "blocksize": count(1, "byte"),
    "strict": FLAG,
    "max_response_headers": count(0, "fields", none=True),
    "limits": instance(Limits, "a Limits"),
    "uds": UDS,
    "socket_options": SOCKET_OPTIONS,
    "dialer": CALLABLE,
    "high_water": count(1, "byte"),
    "continue_timeout": number("seconds", least=0),
    "on_informational": PLAIN_FUNCTION,
    "proxy_context": CONTEXT,
    "resume_tls": FLAG,
}


class ConnectionOptions(TypedDict, total=False):
    """Arguments of ``HTTPConnection`` that ``HTTPSConnection`` passes on."""

    timeout: float | Timeout | None
    source_address: tuple[str, int] | None
    blocksize: int
    strict: bool
    max_response_headers: int | None
    limits: Limits
    uds: str | bytes | None
    socket_options: Sequence[SocketOption]
    dialer: Dialer[HTTP1Protocol]
    high_water: int
    continue_timeout: float
    on_informational: OnInformational | None
    proxy_context: ssl.SSLContext | None
    resume_tls: bool


class Endpoint:
    """The part of ``HTTPConnection`` below its requests; see there for the arguments."""

    response_class: type[HTTPResponse] = HTTPResponse
    default_port: ClassVar[int] = HTTP_PORT
    debuglevel = 0
    _scheme: ClassVar[str] = "http"

    # Slots take a third of the memory: benchmarks/micro/slots.py. Callers' additions go into the
    # __dict__.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_closes",
        "_closing",
        "_context",
        "_continue_timeout",
        "_debug",
        "_dial_report",
        "_dialer",
        "_fingerprint",
        "_high_water",
        "_limits",
        "_look",
        "_on_informational",
        "_opening",
        "_plain_rest",
        "_protocol",
        "_proxy_context",
        "_proxy_fields",
        "_resume_tls",
        "_server_hostname",
        "_socket_options",
        "_timeout",
        "_timeout_given",
        "_tls_socket",
        "_tunnel",
        "_uds",
        "blocksize",
        "host",
        "max_response_headers",
        "port",
        "source_address",
        "strict",
    )

    def __init__(
        self,
        host: str,
        port: int | None = None,
        timeout: float | Timeout | None = None,
        source_address: tuple[str, int] | None = None,
        blocksize: int = BLOCKSIZE,
        *,
        strict: bool = False,
        max_response_headers: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
        uds: str | bytes | None = None,
        socket_options: Sequence[SocketOption] = (),
        dialer: Dialer[HTTP1Protocol] = dial,
        high_water: int = HIGH_WATER,
        continue_timeout: float = CONTINUE_TIMEOUT,
        on_informational: OnInformational | None = None,
        proxy_context: ssl.SSLContext | None = None,
        resume_tls: bool = True,
    ) -> None:
        if isinstance(timeout, bool):
            raise TypeError(
                f"timeout must be seconds, a Timeout or None, got {timeout}: if that is strict, "
                f"which came third in Python 2, write strict={timeout}"
            )
        check_arguments(_CHECKS, locals())
        # Configuration
        self.host, self.port = self._get_hostport(host, port)
        self._timeout = Timeout.of(timeout)
        self._timeout_given = timeout
        self.source_address = source_address
        self.blocksize = blocksize
        self.strict = strict
        self.max_response_headers = max_response_headers
        self._limits = limits
        self._uds = uds
        self._socket_options = tuple(socket_options)
        self._dialer = dialer
        self._high_water = high_water
        self._continue_timeout = continue_timeout
        self._on_informational = on_informational
        self._proxy_context = proxy_context
        self._resume_tls = resume_tls
        self._tunnel: Tunnel | None = None
        self._context: ssl.SSLContext | None = None
        self._server_hostname: str | None = None
        self._fingerprint: bytes | None = None
        # The text after the URL in the heads of most requests, before the caller's fields.
        self._plain_rest = ""
        self._debug = logger.isEnabledFor(logging.DEBUG)

        # Per connection
        self._protocol: HTTP1Protocol | None = None
        # Whether the open socket can be read at once: _look(0).
        self._look = read_watcher(None)
        self._closes = 0
        self._closing: HTTP1Protocol | None = None
        # The connect that is under way: close() ends it.
        self._opening: Opening | None = None
        self._dial_report: DialReport | None = None
        self._tls_socket: TLSSocket | None = None
        self._proxy_fields: list[tuple[str, str]] | None = None
        self._reset()

    def _reset(self) -> None:
        """Forget the request that is under way, if there is one."""
        raise NotImplementedError

    def __repr__(self) -> str:
        protocol = self._protocol
        if protocol is None or protocol.state is CLOSED:
            state = "not connected"
        else:
            count = protocol.exchanges
            state = f"{protocol.state.name.lower()}, {count} request{'' if count == 1 else 's'}"
            ssl_object = protocol.get_extra_info("ssl_object")
            if ssl_object is not None:
                version = (ssl_object.version() or "TLS").lower().replace("tlsv", "tls")
                state = f"{version} {state}"
        where = f"{bracketed(self.host)}:{self.port}"
        if self._uds is not None:
            where = str(self._uds)
        if self._tunnel is not None:
            where = f"{bracketed(self._tunnel.host)}:{self._tunnel.port} through {where}"
        return f"<{type(self).__name__} {where} {state}>"

    def __del__(self) -> None:
        # The attributes are missing if __init__ raised.
        protocol = getattr(self, "_protocol", None)
        if protocol is None or protocol.transport is None or protocol.state is CLOSED:
            return
        self._protocol = None
        try:
            warnings.warn(
                f"unclosed {self._scheme} connection to {self.host}:{self.port}: call close(), or "
                f"use 'async with {type(self).__name__}(...)'",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
        finally:
            call_in_loop(protocol.loop, protocol.release_to_response)

    # -------------------------------------------------------------------- configuration

    def _get_hostport(self, host: str, port: int | None) -> tuple[str, int]:
        """Return host without brackets, and port; ``InvalidURL`` if one of them is invalid."""
        return split_host_port(host, port, self.default_port)

    def set_tunnel(
        self,
        host: str,
        port: int | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        scheme: str = "http",
        credentials: tuple[str, str] | None = None,
    ) -> None:
        """Connect to *host*:*port* through a proxy, which is this connection's own host.

        *headers* go to an HTTP proxy only: ``Proxy-Authorization`` belongs here. *scheme*:
        "http" asks with CONNECT; "socks5" resolves *host* here and asks a SOCKS proxy for its
        address; "socks5h" has the proxy resolve it; "socks4" and "socks4a" are the same for SOCKS4.
        *credentials*: (user, password) for the proxy.
        Raises ``RuntimeError`` if connected, ``InvalidURL``, ``ValueError`` or ``TypeError`` for
        values that may not be sent.
        Mirrors ``http.client.HTTPConnection.set_tunnel`` of Python 3.12 (CONNECT in HTTP/1.1).
        """
        if self.sock is not None:
            raise RuntimeError("Can't set up tunnel for established connection")
        host, port = self._get_hostport(host, port)
        fields = (headers or {}).items()
        self._tunnel = make_tunnel(host, port, fields, scheme, credentials)
        self._proxy_fields = None
        self._plain_rest = ""

    def get_proxy_response_headers(self) -> HTTPMessage | None:
        """Return the fields of the proxy's last answer to CONNECT, even of a refusal; else None.

        Mirrors ``http.client.HTTPConnection.get_proxy_response_headers``.
        """
        return None if self._proxy_fields is None else make_message(self._proxy_fields)

    def set_debuglevel(self, level: int) -> None:
        """Print heads as they are sent and received, as http.client does, for *level* > 0."""
        self.debuglevel = level

    @property
    def timeout(self) -> float | Timeout | None:
        """Seconds per operation, a ``Timeout``, or None; a new value applies from now on."""
        return self._timeout_given

    @timeout.setter
    def timeout(self, value: float | Timeout | None) -> None:
        self._timeout = Timeout.of(value)
        self._timeout_given = value
        if self._protocol is not None:
            self._protocol.set_timeout(self._timeout)

    @property
    def sock(self) -> Any:
        """The transport's socket, or None while not connected.

        Over TLS it also answers ``getpeercert``, ``cipher``, ``version``,
        ``selected_alpn_protocol`` and the like, as http.client's ``sock`` does.
        """
        protocol = self._protocol
        if protocol is None or protocol.state is CLOSED:
            return None
        sock, ssl_object = (protocol.get_extra_info(name) for name in ("socket", "ssl_object"))
        if sock is None or ssl_object is None:
            return sock
        made = TLSSocket(sock, ssl_object)
        if made != self._tls_socket:  # the same one, as long as the connection is
            self._tls_socket = made
        return self._tls_socket

    @property
    def dial_times(self) -> dict[str, float]:
        """Seconds that the phases of the last connect took: dns, connect, proxy, tls."""
        report = self._dial_report
        return dict(report.durations) if report is not None else {}

    def lead_through(self, tunnel: Tunnel | None) -> None:
        """Connect through *tunnel*, as ``set_tunnel`` would have made it."""
        self._tunnel = tunnel
        self._plain_rest = ""

    # ----------------------------------------------------------------------- connecting

    def _check_alone(self) -> None:
        """Raise ``RuntimeError`` while another task connects: its connect goes on."""
        if self._opening is not None and not self._opening.closed:
            raise RuntimeError(
                "another task is connecting this connection already: one task at a time uses it"
            )

    async def _connect(self, deadline: float | None, method: str, url: str) -> None:
        """Connect by *deadline*, on the loop's clock; errors name the request."""
        sys.audit("http.client.connect", self, self.host, self.port)
        if self._protocol is not None:
            self._protocol.close()
            self._protocol = None
        loop = asyncio.get_running_loop()
        opening = self._opening = Opening(method, url, self._origin())
        self._dial_report = report = opening.report
        try:
            protocol = await opening.open(
                self._dialer,
                lambda: self._make_protocol(loop),
                self._destination,
                self._timeout,
                deadline,
            )
        except TunnelError as exc:
            if exc.status:
                self._proxy_fields = exc.headers
            raise
        finally:
            if self._opening is opening:
                self._opening = None
        self._protocol = protocol
        self._look = read_watcher(protocol.get_extra_info("socket"))
        if report.resumed and protocol.transport is not None:
            protocol.keep_first_request()
        if report.proxy_reply is not None:
            self._proxy_fields = report.proxy_reply.fields
            if self.debuglevel > 0:
                for name, value in self._proxy_fields:
                    print("header:", f"{name}: {value}")
        if self._debug:
            logger.debug("connected %r", self)

    async def _destination(self) -> Destination:
        return Destination(
            self.host,
            self.port,
            uds=self._uds,
            source_address=self.source_address,
            socket_options=self._socket_options,
            context=self._context,
            server_hostname=self._server_hostname,
            tunnel=self._tunnel,
            proxy_context=self._proxy_context,
            resume_tls=self._resume_tls,
            fingerprint=self._fingerprint,
        )

    def _make_protocol(self, loop: asyncio.AbstractEventLoop) -> HTTP1Protocol:
        limits = self._limits
        if self.max_response_headers is not None:
            limits = replace(limits, max_fields=self.max_response_headers)
        return HTTP1Protocol(
            loop,
            self._origin(),
            limits=limits,
            strict=self.strict,
            high_water=self._high_water,
            timeout=self._timeout,
            response_class=self.response_class,
            on_informational=self._on_informational,
        )

    def _origin(self) -> str:
        tunnel = self._tunnel
        host, port = (tunnel.host, tunnel.port) if tunnel is not None else (self.host, self.port)
        suffix = "" if port == self.default_port else f":{port}"
        return f"{self._scheme}://{bracketed(host)}{suffix}"

    def adopt(self, protocol: HTTP1Protocol, report: DialReport | None) -> None:
        """Use *protocol*, which is open and leads here, for a lease; *report* is its connect's."""
        self._dial_report = report
        if report is not None and report.proxy_reply is not None:
            self._proxy_fields = report.proxy_reply.fields
        self._protocol = protocol
        self._look = read_watcher(protocol.get_extra_info("socket"))
        protocol.set_timeout(self._timeout)

    def _close_protocol(self) -> None:
        """Close the protocol, gracefully if it is idle, and end a connect that is under way."""
        self._closes += 1
        if self._opening is not None:
            self._opening.close()
        protocol, self._protocol, self._tls_socket = self._protocol, None, None
        self._closing = protocol or self._closing
        if protocol is not None and protocol.state is not CLOSED:
            if protocol.state is IDLE:
                protocol.close()
            else:
                protocol.abort()

    async def wait_closed(self) -> None:
        """Wait until the socket that ``close()`` ended has closed, 1 s at most."""
        protocol = self._closing
        # One that was left to a response is closed by its last byte, not by close().
        if protocol is not None and protocol.state is CLOSED:
            await protocol.wait_closed(CLOSE_SECONDS)
        if self._closing is protocol:  # another task may have closed another one meanwhile
            self._closing = None
