"""SOCKS handshakes: how SOCKS5 and SOCKS4 proxies are asked for a tunnel.

The generators are those that tunnel.py describes. No I/O. Layer: net.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Generator
from typing import TYPE_CHECKING

from ..exceptions import TunnelError, quote
from .tunnel import TunnelReply, ascii_host, authority, encode_credentials

if TYPE_CHECKING:
    from ..http11.limits import Limits
    from .tunnel import Credentials, Handshake, Tunnel

__all__ = ["socks4_handshake", "socks4_user", "socks5_authentication", "socks5_handshake"]

MAX_SOCKS_TEXT = 255
"""Bytes of a name, user or password: SOCKS5 has one byte for the length (RFC 1928 §5, 1929 §2)."""

HINT_CREDENTIALS = (
    "Pass the proxy's credentials: in its URL (socks5h://user:password@...), "
    "or set_tunnel(..., credentials=(user, password))"
)
HINT_NOT_SOCKS = "If it is an HTTP proxy, its URL begins with http://"
HINT_NOT_SOCKS4 = f"{HINT_NOT_SOCKS}; that of a SOCKS5 proxy with socks5://"
HINT_NO_NAMES = "With socks5:// names are resolved here, and the proxy is sent an address"
HINT_NO_ADDRESSES = "With socks5h:// the proxy resolves names itself"
HINT_USER = "Pass the user that the proxy expects: in its URL (socks4a://user@...)"

# SOCKS5 ----------------------------------------------------------------------------------

_VERSION = 5
_NO_AUTHENTICATION, _USER_PASSWORD, _NONE_ACCEPTABLE = 0x00, 0x02, 0xFF
_IPV4, _NAME, _IPV6 = 0x01, 0x03, 0x04
_ADDRESS_LENGTHS = {_IPV4: 4, _IPV6: 16}
_BAD_ADDRESS_TYPE = 8

# RFC 1928 §6: REP.
_REFUSALS = {
    1: "general failure",
    2: "not allowed by the proxy's rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "the proxy does not support CONNECT",
    _BAD_ADDRESS_TYPE: "the proxy does not support this type of address",
}


def socks5_handshake(tunnel: Tunnel, limits: Limits | None = None) -> Handshake:
    """Ask a SOCKS5 proxy for *tunnel* with CONNECT (RFC 1928, with credentials RFC 1929 too).

    An address is sent as an address, a name for the proxy to resolve. *limits* are for HTTP and
    unused: no answer here is longer than 262 bytes. Raises as ``connect_handshake`` does; the
    ``reason`` of a ``TunnelError`` is the meaning of the proxy's reply, its ``status`` stays 0.
    """
    if tunnel.headers:
        raise ValueError("a SOCKS proxy takes no header fields")
    host = ascii_host(tunnel)
    request = _encode_socks5_request(host, tunnel.port)
    methods = bytes([_NO_AUTHENTICATION])
    authentication = b""
    if tunnel.credentials is not None:
        methods += bytes([_USER_PASSWORD])
        authentication = socks5_authentication(tunnel.credentials)
    received = bytearray()
    hello = bytes([_VERSION, len(methods)]) + methods
    method = yield from _ask(received, hello, _VERSION, "the greeting")
    if method == _USER_PASSWORD and authentication:
        failed = yield from _ask(received, authentication, 1, "the user name and password")
        if failed:
            raise _refused("the SOCKS proxy refused the user name and password")
    elif method == _NONE_ACCEPTABLE and authentication:
        raise TunnelError("the SOCKS proxy requires something other than a user name and password")
    elif method == _NONE_ACCEPTABLE:
        raise _refused("the SOCKS proxy wants authentication")
    elif method != _NO_AUTHENTICATION:
        raise TunnelError(f"the SOCKS proxy chose method 0x{method:02x}, which was not offered")
    where = authority(host, tunnel.port)
    code = yield from _ask(received, request, _VERSION, f"the request for {where}")
    if code:
        raise _unconnected(code, where, request)
    yield from _bound_address(received)
    return TunnelReply(_VERSION, 0, "succeeded", [], bytes(received))


def _encode_socks5_request(host: str, port: int) -> bytes:
    """Return the request for CONNECT; raise ``ValueError`` if SOCKS5 cannot express *host*."""
    if "%" in host:
        raise ValueError(f"a host for a SOCKS proxy cannot have a zone, or any '%', got {host!r}")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if ":" in host:
            raise ValueError(f"not an IPv6 address: {host!r}") from None
        name = host.encode("ascii")
        if len(name) > MAX_SOCKS_TEXT:
            raise ValueError(
                f"a SOCKS proxy takes names up to {MAX_SOCKS_TEXT} bytes, got {len(name)}"
            ) from None
        target = bytes([_NAME, len(name)]) + name
    else:
        target = bytes([_IPV4 if address.version == 4 else _IPV6]) + address.packed
    return b"\x05\x01\x00" + target + port.to_bytes(2, "big")


def socks5_authentication(credentials: Credentials) -> bytes:
    """Return the request that carries *credentials* (RFC 1929 §2, as UTF-8).

    Raises ``ValueError`` if it cannot express them, and never shows them. A password may be
    empty: the RFC does not allow that, but proxies do, for a token in place of the user.
    """
    user, password = encode_credentials(credentials)
    if not user or max(len(user), len(password)) > MAX_SOCKS_TEXT:
        raise ValueError(
            f"a SOCKS proxy takes a user name of 1 to {MAX_SOCKS_TEXT} bytes, "
            f"and a password of up to {MAX_SOCKS_TEXT}"
        )
    return b"\x01%c%b%c%b" % (len(user), user, len(password), password)


def _ask(
    received: bytearray, question: bytes, version: int, what: str
) -> Generator[bytes, bytes, int]:
    """Send *question*; return the second byte of the answer, whose first must be *version*."""
    if received:
        # The bytes are never shown: they may be an echo of our own, credentials included.
        raise TunnelError(f"the SOCKS proxy sent {len(received)} bytes more than its answer")
    answer = yield from _take(received, 2, what, question)
    if answer[0] != version:
        raise TunnelError(
            f"the proxy does not speak SOCKS5: expected an answer of version {version}, "
            f"got one that begins with {quote(answer)}",
            hint=HINT_NOT_SOCKS,
        )
    return answer[1]


def _take(
    received: bytearray, count: int, what: str, question: bytes = b""
) -> Generator[bytes, bytes, bytes]:
    """Take *count* bytes from *received*, sending *question* and waiting for more as needed."""
    while len(received) < count:
        data = yield question
        question = b""
        if not data:
            raise TunnelError(f"the SOCKS proxy closed the connection before answering {what}")
        received += data
    taken = bytes(received[:count])
    del received[:count]
    return taken


def _bound_address(received: bytearray) -> Generator[bytes, bytes, None]:
    """Skip the end of a reply, after REP: RSV, ATYP, BND.ADDR and BND.PORT have no use here."""
    what = "in full"
    _, kind = yield from _take(received, 2, what)
    if kind == _NAME:
        (length,) = yield from _take(received, 1, what)
    elif kind in _ADDRESS_LENGTHS:
        length = _ADDRESS_LENGTHS[kind]
    else:
        raise TunnelError(f"the SOCKS proxy's reply has an address of unknown type 0x{kind:02x}")
    yield from _take(received, length + 2, what)


def _refused(text: str) -> TunnelError:
    """Return the error of a proxy that wants other credentials."""
    return TunnelError(text, hint=HINT_CREDENTIALS)


def _unconnected(code: int, where: str, request: bytes) -> TunnelError:
    """Return the error for the reply *code* to *request*."""
    error = _not_connected(where, _REFUSALS.get(code, f"unknown reply 0x{code:02x}"))
    if code == _BAD_ADDRESS_TYPE:
        error.hint = HINT_NO_NAMES if request[3] == _NAME else HINT_NO_ADDRESSES
    return error


def _not_connected(where: str, reason: str) -> TunnelError:
    error = TunnelError(f"the SOCKS proxy could not connect to {where}: {reason}")
    error.reason = reason
    return error


# SOCKS4 ----------------------------------------------------------------------------------

_GRANTED = 90
_REPLY_LENGTH = 8

_SOCKS4_REFUSALS = {
    91: "rejected or failed",
    92: "the proxy cannot reach identd on this machine",
    93: "identd on this machine names another user",
}

_NAME_FOLLOWS = b"\x00\x00\x00\x01"
"""An address 0.0.0.x, with x above 0: SOCKS4A has a name instead."""


def socks4_handshake(tunnel: Tunnel, limits: Limits | None = None) -> Handshake:
    """Ask a SOCKS4 proxy for *tunnel* with CONNECT, or a SOCKS4A proxy if its host is a name.

    The protocol is that of openssh.com/txt/socks4.protocol and socks4a.protocol: IPv4 only, and a
    user name without a password. Otherwise as ``socks5_handshake``.
    """
    if tunnel.headers:
        raise ValueError("a SOCKS proxy takes no header fields")
    host = ascii_host(tunnel)
    request = _encode_socks4_request(host, tunnel.port, socks4_user(tunnel.credentials))
    where = authority(host, tunnel.port)
    received = bytearray()
    what = f"the request for {where}"
    # Version 0, or the proxy is of another kind, whose answer may be shorter.
    first = yield from _take(received, 1, what, request)
    if first != b"\x00":
        raise TunnelError(
            "the proxy does not speak SOCKS4: expected an answer of version 0, got one that begins "
            f"with {quote(first + received[:1])}",
            hint=HINT_NOT_SOCKS4,
        )
    code, *_ = yield from _take(received, _REPLY_LENGTH - 1, what)
    if code != _GRANTED:
        error = _not_connected(where, _SOCKS4_REFUSALS.get(code, f"unknown reply {code}"))
        if code in (92, 93):
            error.hint = HINT_USER
        raise error
    return TunnelReply(4, 0, "granted", [], bytes(received))


def _encode_socks4_request(host: str, port: int, user: bytes) -> bytes:
    """Return the request for CONNECT; raise ``ValueError`` if SOCKS4 cannot express *host*."""
    name = b""
    try:
        address = ipaddress.IPv4Address(host).packed
    except ValueError:
        if ":" in host:
            raise ValueError(f"a SOCKS4 proxy knows no IPv6 address, got {host!r}") from None
        address, name = _NAME_FOLLOWS, host.encode("ascii") + b"\x00"
        if len(name) > MAX_SOCKS_TEXT:
            raise ValueError(
                f"a SOCKS proxy takes names up to {MAX_SOCKS_TEXT} bytes, got {len(name) - 1}"
            ) from None
    else:
        if address[:3] == _NAME_FOLLOWS[:3] and address[3]:
            raise ValueError(f"a SOCKS4 proxy cannot be asked for {host}: it would expect a name")
    return b"\x04\x01" + port.to_bytes(2, "big") + address + user + b"\x00" + name


def socks4_user(credentials: Credentials | None) -> bytes:
    """Return the user of *credentials* as SOCKS4 sends it; there is no place for a password.

    Raises ``ValueError`` if it cannot be sent, and never shows it.
    """
    if credentials is None:
        return b""
    user, _ = encode_credentials(credentials)
    if b"\x00" in user or len(user) > MAX_SOCKS_TEXT:
        raise ValueError(
            f"a SOCKS4 proxy takes a user name of up to {MAX_SOCKS_TEXT} bytes, none of them zero"
        )
    return user
