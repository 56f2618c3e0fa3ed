"""The handshakes of all types of proxies, by the scheme of a tunnel. No I/O. Layer: net."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .socks import socks4_handshake, socks5_handshake
from .tunnel import Tunnel, check_proxy_field, connect_handshake

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..http11.limits import Limits
    from .tunnel import Credentials, Handshake

__all__ = ["RESOLVED_HERE", "make_tunnel", "start_handshake"]

HANDSHAKES: dict[str, Callable[[Tunnel, Limits | None], Handshake]] = {
    "http": connect_handshake,
    "socks4": socks4_handshake,
    "socks4a": socks4_handshake,
    "socks5": socks5_handshake,
    "socks5h": socks5_handshake,
}
"""The handshake of each type of proxy."""

RESOLVED_HERE = frozenset({"socks4", "socks5"})
"""The schemes with which ``dial()`` resolves the host, and asks for an address; with the others the
proxy resolves it."""


def make_tunnel(
    host: str,
    port: int,
    headers: Iterable[tuple[str | bytes, str | bytes | int]] = (),
    scheme: str = "http",
    credentials: Credentials | None = None,
) -> Tunnel:
    """Return a ``Tunnel`` that has passed every check that needs no proxy.

    Raises ``InvalidURL``, ``ValueError`` or ``TypeError`` for a part that may not be sent; no
    text shows a field's value or the credentials.
    """
    fields = tuple(check_proxy_field(name, value) for name, value in headers)
    tunnel = Tunnel(host, port, fields, scheme, credentials)
    start_handshake(tunnel)
    return tunnel


def start_handshake(tunnel: Tunnel) -> tuple[Handshake, bytes]:
    """Return the handshake that asks for *tunnel*, and the first bytes to send.

    Raises ``ValueError`` or ``InvalidURL`` if a part of *tunnel* may not be sent.
    """
    make = HANDSHAKES.get(tunnel.scheme)
    if make is None:
        raise ValueError(
            f"a tunnel's scheme must be one of {', '.join(HANDSHAKES)}, got {tunnel.scheme!r}"
        )
    handshake = make(tunnel, None)
    first = next(handshake)
    assert isinstance(first, bytes), "a refusal before a question"
    return handshake, first
