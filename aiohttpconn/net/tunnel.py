"""Proxy handshakes as pure generators: they yield bytes to send and are sent the bytes read.

Yielding b"" asks for more bytes; being sent b"" means that the proxy has closed. A generator
returns the proxy's reply, or raises the error that ends the connect. No I/O. Layer: net.
"""

from __future__ import annotations

import ipaddress
import re
from binascii import b2a_base64
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from ..exceptions import HTTPException, TunnelError, quote
from ..http11 import grammar
from ..http11.limits import DEFAULT_LIMITS, Limits
from ..http11.response_head import HeadReader, ResponseHead, parse_response_head

__all__ = [
    "Credentials",
    "Handshake",
    "Tunnel",
    "TunnelReply",
    "basic_authorization",
    "encode_basic",
    "make_tunnel",
    "socks5_authentication",
    "start_handshake",
]

MAX_REFUSAL_BODY = 64 * 1024
"""Bytes of a refusing proxy's body that the error carries: enough for a page that explains it."""

# RFC 7617 §2: characters that neither user nor password may have.
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")

MAX_SOCKS_TEXT = 255
"""Bytes of a name, user or password: SOCKS5 has one byte for the length (RFC 1928 §5, 1929 §2)."""

HINT_CREDENTIALS = (
    "Pass the proxy's credentials: in its URL (http://user:password@...), "
    "or set_tunnel(..., credentials=(user, password))"
)
HINT_SOCKS_CREDENTIALS = (
    "Pass the proxy's credentials: in its URL (socks5h://user:password@...), "
    "or set_tunnel(..., credentials=(user, password))"
)
HINT_NOT_SOCKS = "If it is an HTTP proxy, its URL begins with http://"
HINT_NO_NAMES = "With socks5:// names are resolved here, and the proxy is sent an address"
HINT_NO_ADDRESSES = "With socks5h:// the proxy resolves names itself"

Credentials: TypeAlias = tuple[str, str]
"""(user, password). Surrogate escapes stand for bytes that are not UTF-8."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The server that a proxy is asked to connect to, and the way to ask.

    *scheme*: a key of ``HANDSHAKES``. *credentials*: the proxy's user and password. *headers*:
    fields for an HTTP proxy; a ``Proxy-Authorization`` among them wins over *credentials*.
    """

    host: str
    port: int
    headers: tuple[tuple[str | bytes, str | bytes | int], ...] = ()
    scheme: str = "http"
    credentials: Credentials | None = None

    def __repr__(self) -> str:
        # The fields may hold the proxy's credentials, too.
        how = "" if self.scheme == "http" else f", scheme={self.scheme!r}"
        return f"Tunnel({self.host!r}, {self.port}{how})"


class TunnelReply(NamedTuple):
    """A proxy's reply that grants the tunnel: its head, and the bytes that came after it.

    For a SOCKS proxy *version* is 5, *status* is 0 (its code for success), and there are no fields.
    """

    version: int
    status: int
    reason: str
    fields: list[tuple[str, str]]
    leftover: bytes


Handshake: TypeAlias = Generator[bytes, bytes, TunnelReply]


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
    fields = tuple(_check_field(name, value) for name, value in headers)
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
    return handshake, next(handshake)


# HTTP ------------------------------------------------------------------------------------


def connect_handshake(tunnel: Tunnel, limits: Limits | None = None) -> Handshake:
    """Ask an HTTP proxy for *tunnel* with CONNECT (RFC 9110 §9.3.6), as ``http.client`` does.

    The first ``next()`` raises ``ValueError`` or ``InvalidURL`` if a part of *tunnel* may not be
    sent. Later steps raise ``TunnelError`` if the proxy refuses (the text is http.client's),
    answers with something other than HTTP, or closes before it has answered.
    """
    limits = limits or DEFAULT_LIMITS
    to_send = _encode_connect(tunnel)
    data = b""
    used = 0
    for _ in range(limits.max_interim + 1):
        try:
            reader = HeadReader(limits, used)
            while not (length := reader.feed(data)):
                data = yield to_send
                to_send = b""
                if not data:
                    raise TunnelError("the proxy closed the connection before answering CONNECT")
            head = parse_response_head(reader.buffer[:length])
        except HTTPException as exc:
            what = str(exc) or type(exc).__name__
            raise TunnelError(f"the proxy's answer to CONNECT is not valid HTTP: {what}") from exc
        data = bytes(reader.buffer[length:])
        if head.status >= 200:
            break
        # RFC 9110 §15.2: any number of interim responses may come first.
        used += length
    else:
        raise TunnelError(f"more than {limits.max_interim} interim responses to CONNECT")
    if head.status < 300:
        # RFC 9110 §9.3.6: the tunnel begins after the head, whatever its framing fields say.
        return TunnelReply(head.version, head.status, head.reason, head.fields(), data)
    raise (yield from _refusal(head, data))


def _encode_connect(tunnel: Tunnel) -> bytes:
    """Return the CONNECT request's head; raise ``ValueError`` or ``InvalidURL`` if invalid."""
    target = _authority(_ascii_host(tunnel), tunnel.port)
    fields = [_check_field(name, value) for name, value in tunnel.headers]
    hosts = [value for name, value in fields if name.lower() == "host"]
    if len(hosts) > 1:
        raise ValueError(f"the tunnel's headers have more than one Host: {hosts}")
    for value in hosts:
        grammar.check_host_field(value)
    if not hosts:
        fields.insert(0, ("Host", target))
    if tunnel.credentials is not None:
        authorization = basic_authorization(tunnel.credentials)
        if all(name.lower() != "proxy-authorization" for name, _ in fields):
            fields.append(("Proxy-Authorization", authorization))
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"CONNECT {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


def _check_field(name: str | bytes, value: str | bytes | int) -> tuple[str, str]:
    """Check a field as ``grammar.check_field`` does, but never show its value: it may be secret."""
    name, _ = grammar.check_field(name, "")
    try:
        return grammar.check_field(name, value)
    except ValueError:
        raise ValueError(
            f"Invalid header value of {name}, for the proxy: it has a control character, "
            "or one outside ISO-8859-1"
        ) from None


def _refusal(head: ResponseHead, data: bytes) -> Generator[bytes, bytes, TunnelError]:
    """Read the rest of a short body that explains the refusal; return the error."""
    fields = head.fields()
    lengths = {value for name, value in fields if name.lower() == "content-length"}
    known = len(lengths) == 1 and grammar.DIGITS.fullmatch(length := lengths.pop())
    wanted = min(int(length), MAX_REFUSAL_BODY) if known else MAX_REFUSAL_BODY
    body = bytearray(data)
    while known and len(body) < wanted:
        data = yield b""
        if not data:
            break
        body += data
    # No byte of this body ever reaches the origin's response: the connection ends here.
    error = TunnelError(f"Tunnel connection failed: {head.status} {head.reason}".strip())
    error.status = head.status
    error.reason = head.reason
    error.headers = fields
    error.body = bytes(body[:wanted])
    if head.status == 407:
        error.hint = HINT_CREDENTIALS
    return error


def basic_authorization(credentials: Credentials) -> str:
    """Return the value of an authorization field for *credentials* (RFC 7617, as UTF-8).

    Raises ``ValueError`` if Basic cannot express them, and never shows them.
    """
    user, password = _encode_credentials(credentials)
    if b":" in user:
        raise ValueError("the proxy's user name must not have a colon (RFC 7617 §2)")
    pair = b"%b:%b" % (user, password)
    if _CONTROL.search(pair):
        raise ValueError("the proxy's credentials must not have control characters (RFC 7617 §2)")
    return encode_basic(pair)


def encode_basic(pair: bytes) -> str:
    """Return ``user:password`` as the value of an authorization field (RFC 7617 §2)."""
    return f"Basic {b2a_base64(pair, newline=False).decode('ascii')}"


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
    host = _ascii_host(tunnel)
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
    where = _authority(host, tunnel.port)
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
    user, password = _encode_credentials(credentials)
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
    received += yield question
    answer = yield from _take(received, 2, what)
    if answer[0] != version:
        raise TunnelError(
            f"the proxy does not speak SOCKS5: expected an answer of version {version}, "
            f"got one that begins with {quote(answer)}",
            hint=HINT_NOT_SOCKS,
        )
    return answer[1]


def _take(received: bytearray, count: int, what: str) -> Generator[bytes, bytes, bytes]:
    """Take *count* bytes from *received*, waiting for more as needed."""
    while len(received) < count:
        data = yield b""
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
    return TunnelError(text, hint=HINT_SOCKS_CREDENTIALS)


def _unconnected(code: int, where: str, request: bytes) -> TunnelError:
    """Return the error for the reply *code* to *request*."""
    reason = _REFUSALS.get(code, f"unknown reply 0x{code:02x}")
    error = TunnelError(f"the SOCKS proxy could not connect to {where}: {reason}")
    error.reason = reason
    if code == _BAD_ADDRESS_TYPE:
        error.hint = HINT_NO_NAMES if request[3] == _NAME else HINT_NO_ADDRESSES
    return error


# Both ----------------------------------------------------------------------------------


def _ascii_host(tunnel: Tunnel) -> str:
    """Return the host, a name as A-labels; raise ``ValueError`` or ``InvalidURL`` if invalid."""
    grammar.check_host(tunnel.host)
    if not tunnel.host or not 0 <= tunnel.port <= 65535:
        raise ValueError(f"not a host and port for a tunnel: {tunnel.host!r}, {tunnel.port!r}")
    try:
        host = tunnel.host.encode("idna").decode("ascii")
    except UnicodeError as exc:
        raise ValueError(f"not a host for a tunnel: {tunnel.host!r} ({exc})") from exc
    # Check again: IDNA turns some characters into '/' and '@'.
    grammar.check_host(host)
    return host


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _encode_credentials(credentials: object) -> tuple[bytes, bytes]:
    """Return user and password as UTF-8; no error holds them, nor does the context of one."""
    match credentials:
        case (str(user), str(password)) if isinstance(credentials, tuple):
            pass
        case _:
            raise TypeError("a proxy's credentials must be (user, password), a tuple of two str")
    try:
        return user.encode("utf-8", "surrogateescape"), password.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError("the proxy's credentials cannot be encoded as UTF-8") from None


HANDSHAKES: dict[str, Callable[[Tunnel, Limits | None], Handshake]] = {
    "http": connect_handshake,
    "socks5": socks5_handshake,
    "socks5h": socks5_handshake,
}
"""The handshake of each type of proxy. With "socks5" ``dial()`` resolves the host, and asks for
an address; with "socks5h" and "http" the proxy resolves it."""
