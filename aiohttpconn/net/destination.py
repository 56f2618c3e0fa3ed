"""Destination: a server and the way to it. DialReport: how far a connect on that way has come.

dial.py makes the connection. Layer: net.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    import ssl

    from ..exceptions import TunnelError
    from ..types import SocketOption
    from .resolver import Address, Resolves
    from .tls import FingerprintLike
    from .tunnel import Tunnel, TunnelReply

__all__ = ["Destination", "DialReport"]


@dataclass(frozen=True, slots=True)
class Destination:
    """A server to connect to, and the way to it.

    *host*, *port*: the end of the TCP connection: the proxy, if *tunnel* is set. *uds*: the path
    of a Unix socket to connect to instead. *source_address*: (host, port) to connect from.
    *context*: TLS to the origin; None means no TLS. *server_hostname*: the name to verify there,
    by default the tunnel's host or *host*. *proxy_context*: TLS to the proxy itself.
    *resume_tls*: whether TLS may resume sessions of earlier connections of the same context to
    the same destination. *fingerprint*: the SHA-256 that the origin's certificate must have, beside
    all that *context* verifies. *resolver*: looks the names up; a pool sets it.
    """

    host: str
    port: int
    uds: str | bytes | None = None
    source_address: tuple[str, int] | None = None
    socket_options: tuple[SocketOption, ...] = ()
    context: ssl.SSLContext | None = None
    server_hostname: str | None = None
    tunnel: Tunnel | None = None
    proxy_context: ssl.SSLContext | None = None
    resume_tls: bool = True
    fingerprint: FingerprintLike | None = None
    resolver: Resolves | None = field(default=None, compare=False, repr=False)


class DialReport:
    """The progress of ``dial()``, updated while it runs, so that a timeout can name the phase.

    ``phase``: "dns", "connect", "proxy" (tunnel, and TLS to the proxy) or "tls". ``durations``:
    the seconds of each phase; the last one counts up to its end or failure. ``proxy_reply``: the
    reply that grants the tunnel. ``refusal``: the error of a proxy that refuses it, while the body
    that explains it is read: a limit that expires meanwhile is not why the connect failed.
    ``raw_transport``: the TCP transport below all TLS, or the
    transport itself if there is no TLS. ``resumed``: whether TLS to the server, or to the proxy,
    resumed a session; ``refused_session``: whether a handshake failed that had offered one.
    ``address``: the address that TCP is connected to.
    ``skipped``: addresses that failed, or did not answer before the next one was tried.

    Flow control belongs on ``raw_transport``. A paused TLS transport goes on reading records
    from TCP, and loses them when FIN or RST then arrives: uvloop loses all of them, asyncio those
    beyond one buffer of a ``BufferedProtocol``. With TCP paused, TLS holds no records, provided
    that ``get_buffer()`` offers as much as one read of TLS can hold (256 KiB and a record of
    16 KiB), or the rest of the message. Data that does not fit waits for one turn of the loop,
    and FIN may be faster.
    """

    __slots__ = (
        "_since",
        "address",
        "durations",
        "phase",
        "proxy_reply",
        "raw_transport",
        "refusal",
        "refused_session",
        "resumed",
        "skipped",
    )

    def __init__(self) -> None:
        self.phase = "dns"
        self.durations: dict[str, float] = {}
        self.proxy_reply: TunnelReply | None = None
        self.refusal: TunnelError | None = None
        self.raw_transport: asyncio.Transport | None = None
        self.resumed = False
        self.refused_session = False
        self.address: Address | None = None
        self.skipped: list[Address] = []
        self._since = 0.0

    def __repr__(self) -> str:
        spent = ", ".join(f"{name} {taken * 1e3:.1f} ms" for name, taken in self.durations.items())
        return f"<DialReport {self.phase}{': ' if spent else ''}{spent}>"

    def start(self) -> None:
        """Begin the first phase."""
        self.phase = "dns"
        self._since = time.perf_counter()

    def enter(self, phase: str) -> None:
        """End the current phase and begin *phase*."""
        self.finish()
        self.phase = phase

    def finish(self) -> None:
        """End the current phase."""
        now = time.perf_counter()
        self.durations[self.phase] = self.durations.get(self.phase, 0.0) + now - self._since
        self._since = now
