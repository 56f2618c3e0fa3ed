"""dial(): open a connection to a destination, and put a protocol on it.

The steps are: resolve, connect, ask the proxy for a tunnel, do TLS. This module sets no timeout:
the caller's ``asyncio.timeout`` may end any step, and the ``DialReport`` tells which one it was.

Until the connection is complete, a private protocol (``_Link``) owns the transport. The caller's
protocol is made at the very end and never sees a half-made connection. TLS is always
``start_tls`` on a TCP transport of our own, because that transport is the one to pause: see
``DialReport.raw_transport``.

After an error, ``CancelledError`` included, nothing stays open: a socket belongs to one ``try``
until a transport owns it, and a transport is aborted. Clean-up never awaits. Layer: net.
"""

from __future__ import annotations

import asyncio
import socket
import weakref
from collections.abc import Callable, Hashable
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ..exceptions import CertificateError, ResolveError, TLSError, TunnelError, quote
from ..hooks import at_once, check_hook
from .destination import Destination, DialReport
from .handshakes import RESOLVED_HERE, start_handshake
from .resolver import Resolves, default_resolver
from .resumption import resuming
from .sockets import connect_first, connect_unix, identity, is_open
from .tls import check_fingerprint, handshake_error, read_fingerprint, tls_name

if TYPE_CHECKING:
    import ssl

    from .tunnel import Handshake, Tunnel, TunnelReply

__all__ = ["dial"]

NO_HANDSHAKE_TIMEOUT = 7 * 86400.0
"""Seconds. asyncio requires a limit, and its default of 60 s could undercut the caller's own."""

LINK_BUFFER = 16 * 1024
"""Bytes of one read during a handshake; proxies' replies are much shorter."""

REFUSAL_SECONDS = 5.0
"""Seconds that a proxy has for the body of a refusal: some neither tell its length nor close."""

P = TypeVar("P", bound=asyncio.BaseProtocol)


async def dial(
    protocol_factory: Callable[[], P],
    destination: Destination,
    report: DialReport | None = None,
    *,
    resolver: Resolves | None = None,
) -> tuple[asyncio.Transport, P]:
    """Connect to *destination*; return the transport and the protocol made by *protocol_factory*.

    *report* is updated on the way. *resolver* is by default the destination's own, or else
    ``default_resolver``. Raises ``ConnectError`` (``ResolveError``, ``ConnectionRefused``,
    ``TunnelError``, ``TLSError``, ``CertificateError``), whose ``errors`` are the exceptions that
    caused it. Raises ``ValueError`` or ``InvalidURL``, before anything is opened, for an invalid
    destination. Each exception has ``phase``, and ``hint`` if there is something to try.
    """
    report = DialReport() if report is None else report
    report.start()
    try:
        check_hook("protocol_factory", protocol_factory, may_await=False)
        plan = _Plan(destination)
        resolver = resolver or destination.resolver or default_resolver
        try:
            made = await _connect(protocol_factory, destination, plan, report, resolver)
        except CertificateError:
            raise
        except TLSError:
            if not report.refused_session:
                raise
            # The session may be why, and nothing was sent to the server: once more without it.
            destination = replace(destination, resume_tls=False)
            plan = _Plan(destination)
            made = await _connect(protocol_factory, destination, plan, report, resolver)
    except Exception as exc:
        exc.phase = report.phase  # type: ignore[attr-defined]
        raise
    finally:
        report.finish()
    return made


async def _connect(
    protocol_factory: Callable[[], P],
    destination: Destination,
    plan: _Plan,
    report: DialReport,
    resolver: Resolves,
) -> tuple[asyncio.Transport, P]:
    """Connect once, by *plan*."""
    if destination.tunnel is not None and destination.tunnel.scheme in RESOLVED_HERE:
        plan.ask_for(await _resolved(destination.tunnel, resolver))
        report.finish()
    sock = await _open_socket(destination, report, resolver)
    return await _build(protocol_factory, destination, plan, sock, report)


class _Plan:
    """Names, session keys and first bytes of a dial, checked before anything is opened."""

    __slots__ = (
        "fingerprint",
        "handshake",
        "origin",
        "origin_name",
        "proxy",
        "proxy_name",
        "request",
    )

    def __init__(self, destination: Destination) -> None:
        if not 0 <= destination.port <= 65535:
            raise ValueError(f"a port must be 0 to 65535, got {destination.port!r}")
        if destination.uds is not None and not hasattr(socket, "AF_UNIX"):
            raise ValueError("there are no Unix sockets on this platform")
        self.fingerprint = read_fingerprint(destination.fingerprint)
        self.origin_name = self.proxy_name = ""
        self.request = b""
        self.handshake: Handshake | None = None
        # Keys of TLS sessions: a session is never used for another name, address or way there.
        # A proxy's credentials are part of the way: two users of one proxy share no session.
        self.proxy: Hashable = None
        self.origin: Hashable = None
        tunnel = destination.tunnel
        if destination.context is not None:
            host = tunnel.host if tunnel is not None else destination.host
            self.origin_name = tls_name(destination.server_hostname or host)
        if tunnel is not None:
            if destination.proxy_context is not None:
                self.proxy_name = tls_name(destination.host)
            self.ask_for(tunnel)
        proxy_context = destination.proxy_context
        does_tls = destination.context is not None or proxy_context is not None
        if destination.resume_tls and does_tls:
            self.proxy = (
                (destination.host, destination.port, destination.uds, destination.source_address),
                repr(destination.socket_options),  # as text: a value may be any buffer
                self.proxy_name,
                weakref.ref(proxy_context) if proxy_context is not None else None,
            )
            # The tunnel, not the bytes sent: the first bytes of SOCKS name no target and no user.
            # A session that was made without the fingerprint may be an older certificate's.
            self.origin = self.proxy, tunnel, self.origin_name, self.fingerprint

    def ask_for(self, tunnel: Tunnel) -> None:
        """Plan to ask the proxy for *tunnel*."""
        self.handshake, self.request = start_handshake(tunnel)


async def _resolved(tunnel: Tunnel, resolver: Resolves) -> Tunnel:
    """Return *tunnel* with the first address of its host in place of the name.

    This does no Happy Eyeballs. A connection to a SOCKS proxy serves one request, and a refusal
    ends it: a race would take one connection to the proxy per address. The race would also tell
    little, because the proxy's network decides which address can be reached, not this machine's.
    """
    addresses = await resolver.resolve(tunnel.host, tunnel.port)
    if tunnel.scheme == "socks4":
        addresses = [each for each in addresses if each[0] == socket.AF_INET]
        if not addresses:
            why = f"{tunnel.host} has no IPv4 address, and a SOCKS4 proxy knows no other"
            raise TunnelError(why, hint="With socks4a:// the proxy resolves names itself")
    return replace(tunnel, host=addresses[0][3][0])


async def _open_socket(
    destination: Destination, report: DialReport, resolver: Resolves
) -> socket.socket:
    """Return a connected socket; the texts of errors tell a proxy from a server."""
    options = destination.socket_options
    proxied = destination.tunnel is not None
    if destination.uds is not None:
        report.phase = "connect"
        return await connect_unix(destination.uds, options, is_proxy=proxied)
    try:
        addresses = await resolver.resolve(destination.host, destination.port)
    except ResolveError as exc:
        if not proxied:
            raise
        # A copy, because the resolver may raise its own exception for other callers, too.
        error = copy(exc)
        error.args = (f"no address of the proxy: {exc}",)
        raise error from exc
    report.enter("connect")
    where = f"{destination.host}:{destination.port}"
    sock = await connect_first(
        addresses,
        where,
        options,
        destination.source_address,
        is_proxy=proxied,
        skipped=report.skipped,
    )
    try:
        report.address = sock.family, sock.type, sock.proto, sock.getpeername()
    except OSError:
        pass  # the peer may have closed it already
    except BaseException:
        sock.close()
        raise
    return sock


class _Link(asyncio.BufferedProtocol):
    """The owner of a transport until it is handed over: stores bytes and wakes the reader."""

    def __init__(self) -> None:
        self._buffer = bytearray(LINK_BUFFER)
        self._waiter: asyncio.Future[None] | None = None
        self.received = bytearray()
        self.ended = False
        self.lost = False
        self.error: Exception | None = None

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)

    def buffer_updated(self, nbytes: int) -> None:
        self.received += self._buffer[:nbytes]
        self._wake()

    def eof_received(self) -> None:
        self.ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = self.lost = True
        self.error = exc
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read(self) -> bytes:
        """Return the bytes that have arrived, after a wait if there are none; b"" at the end."""
        if not self.received and not self.ended:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = bytes(self.received)
        self.received.clear()
        return data


async def _build(
    protocol_factory: Callable[[], P],
    destination: Destination,
    plan: _Plan,
    sock: socket.socket,
    report: DialReport,
) -> tuple[asyncio.Transport, P]:
    """Take over the connected *sock*; return the transport and the protocol on it."""
    loop = asyncio.get_running_loop()
    context = destination.context
    raw, link = await _adopt(loop, sock)
    report.raw_transport = transport = raw
    try:
        if plan.handshake is not None:
            report.enter("proxy")
            outer = destination.proxy_context
            if outer is not None:
                transport, link = await _start_tls(
                    loop, transport, link, outer, plan.proxy_name, "the proxy", plan.proxy, report
                )
            report.proxy_reply = await _ask_proxy(
                transport, link, plan.handshake, plan.request, report
            )
        if context is not None:
            report.enter("tls")
            transport, link = await _start_tls(
                loop,
                transport,
                link,
                context,
                plan.origin_name,
                "the server",
                plan.origin,
                report,
                plan.fingerprint,
            )
        return transport, _hand_over(transport, link, protocol_factory)
    except BaseException:
        raw.abort()
        raise


async def _adopt(
    loop: asyncio.AbstractEventLoop, sock: socket.socket
) -> tuple[asyncio.Transport, _Link]:
    """Return a transport that owns *sock*, and the protocol that owns the transport."""
    link = _Link()
    unix = sock.family == getattr(socket, "AF_UNIX", None)
    create: Any = loop.create_unix_connection if unix else loop.create_connection
    known = None
    try:
        if not isinstance(loop, asyncio.BaseEventLoop):
            known = identity(sock)
        transport, _ = await create(lambda: link, sock=sock)
    except BaseException:
        # asyncio closes the socket object, at the loop's next turn. uvloop has closed the
        # descriptor by now, if it took it at all, but before 0.23 it does not tell the object: to
        # close that would close a descriptor that belongs to someone else by now.
        if known is None or is_open(known):
            sock.close()
        else:
            sock.detach()
        raise
    return transport, link


async def _ask_proxy(
    transport: asyncio.Transport,
    link: _Link,
    handshake: Handshake,
    to_send: bytes,
    report: DialReport,
) -> TunnelReply:
    """Send *to_send*, the first bytes of *handshake*, and run the handshake to its end."""
    reply: TunnelReply
    step: bytes | TunnelError = to_send
    giving_up: asyncio.TimerHandle | None = None
    try:
        while True:
            if isinstance(step, bytes):
                if step:
                    transport.write(step)
            elif giving_up is None:
                report.refusal = step
                loop = asyncio.get_running_loop()
                giving_up = loop.call_later(REFUSAL_SECONDS, link.eof_received)
            step = handshake.send(await link.read())
    except StopIteration as stop:
        reply = stop.value
    except TunnelError:
        report.refusal = None
        raise
    finally:
        del step  # the traceback of a refusal refers to this frame
        if giving_up is not None:
            giving_up.cancel()
    # Nothing has been sent to the origin yet, so any further bytes are the proxy's own. If they
    # counted as the origin's response or TLS handshake, the proxy could inject data.
    stray = reply.leftover + link.received
    if stray:
        raise TunnelError(f"the proxy sent more than its answer to CONNECT: {quote(stray)}")
    if link.ended:
        raise TunnelError("the proxy closed the connection after answering CONNECT")
    return reply


async def _start_tls(
    loop: asyncio.AbstractEventLoop,
    transport: asyncio.Transport,
    link: _Link,
    context: ssl.SSLContext,
    name: str,
    peer: str,
    origin: Hashable,
    report: DialReport,
    fingerprint: bytes | None = None,
) -> tuple[asyncio.Transport, _Link]:
    """Do TLS on *transport*; return the TLS transport and the protocol that owns it.

    A session that was made for an equal *origin* is resumed; None resumes no session. The
    certificate must have the SHA-256 *fingerprint*, if there is one.
    """
    if link.received:
        raise TLSError(
            f"{peer} spoke before the TLS handshake: {quote(link.received)}",
            hint="Does it speak TLS on this port?",
        )
    upper = _Link()
    wrapped: asyncio.Transport | None = None
    resumed = resuming(context, origin, loop) if origin is not None else None
    if not link.ended:
        try:
            wrapped = await loop.start_tls(
                transport,
                upper,
                cast("ssl.SSLContext", resumed) if resumed is not None else context,
                server_hostname=name,
                ssl_handshake_timeout=NO_HANDSHAKE_TIMEOUT,
            )
        except asyncio.CancelledError:
            if resumed is not None:
                resumed.abandoned()
            raise
        except OSError as exc:
            if resumed is not None:
                report.refused_session = resumed.failed()
            raise handshake_error(exc, name, peer) from exc
    if wrapped is None or upper.ended:
        # The connection was lost before or right after the handshake: in TLS 1.3 a client hears
        # that the server misses its certificate only when its own part of the handshake is done.
        if resumed is not None:
            report.refused_session = resumed.failed()
        reason = upper.error or link.error or ConnectionResetError("connection lost")
        raise handshake_error(reason, name, peer) from upper.error
    ssl_object = wrapped.get_extra_info("ssl_object")
    if fingerprint is not None:
        try:
            check_fingerprint(ssl_object, fingerprint, peer)
        except CertificateError:
            if resumed is not None:
                resumed.failed()
            raise
    if resumed is not None:
        resumed.finished(ssl_object)
        report.resumed |= bool(ssl_object.session_reused)
    return wrapped, upper


def _hand_over(transport: asyncio.Transport, link: _Link, protocol_factory: Callable[[], P]) -> P:
    """Make the caller's protocol, put it on *transport* in place of *link*, and catch it up.

    uvloop never calls ``connection_lost`` after a cancelled ``create_connection``: another reason
    for not giving it the caller's protocol.
    """
    protocol = at_once("protocol_factory", protocol_factory())
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    data = memoryview(link.received)
    if isinstance(protocol, asyncio.BufferedProtocol):
        while data:
            buffer = memoryview(protocol.get_buffer(len(data)))
            count = min(len(buffer), len(data))
            buffer[:count] = data[:count]
            protocol.buffer_updated(count)
            data = data[count:]
    elif isinstance(protocol, asyncio.Protocol) and data:
        protocol.data_received(bytes(data))
    if link.lost:
        protocol.connection_lost(link.error)
    elif link.ended and isinstance(protocol, (asyncio.BufferedProtocol, asyncio.Protocol)):
        # The transport is closing by itself, and calls connection_lost next.
        protocol.eof_received()
    return protocol
