"""Tunnels: what a proxy is asked for, and how an HTTP proxy is asked (CONNECT).

A handshake is a pure generator: it yields bytes to send and is sent the bytes read. Yielding b""
asks for more bytes; being sent b"" means that the proxy has closed, or is given up. It returns the
proxy's reply, or raises the error that ends the connect. Yielding that error asks for more bytes of
the body that explains it. SOCKS is in socks.py. No I/O. Layer: net.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from ..exceptions import HTTPException, TunnelError
from ..http11 import grammar
from ..http11.chunked import ChunkedDecoder
from ..http11.framing import response_framing
from ..http11.limits import DEFAULT_LIMITS, Limits
from ..http11.response_head import HeadReader, ResponseHead, parse_response_head
from ..types import exact

__all__ = [
    "Credentials",
    "Handshake",
    "Tunnel",
    "TunnelReply",
    "ascii_host",
    "authority",
    "basic_authorization",
    "check_proxy_field",
    "connect_handshake",
    "encode_basic",
    "encode_credentials",
]

MAX_REFUSAL_BODY = 64 * 1024
"""Bytes of a refusing proxy's body that the error carries: enough for a page that explains it."""

# RFC 7617 §2: characters that neither user nor password may have.
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")

HINT_CREDENTIALS = (
    "Pass the proxy's credentials: in its URL (http://user:password@...), "
    "or set_tunnel(..., credentials=(user, password))"
)

Credentials: TypeAlias = tuple[str, str]
"""(user, password). Surrogate escapes stand for bytes that are not UTF-8."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The server that a proxy is asked to connect to, and the way to ask.

    *scheme*: a key of ``HANDSHAKES`` in handshakes.py. *credentials*: the proxy's user and
    password. *headers*: fields for an HTTP proxy; a ``Proxy-Authorization`` among them wins over
    *credentials*.
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

    For a SOCKS proxy *version* is 5 or 4, *status* is 0, and there are no fields.
    """

    version: int
    status: int
    reason: str
    fields: list[tuple[str, str]]
    leftover: bytes


Handshake: TypeAlias = Generator[bytes | TunnelError, bytes, TunnelReply]


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
    error = TunnelError(f"Tunnel connection failed: {head.status} {head.reason}".strip())
    error.status = head.status
    error.reason = head.reason
    error.headers = head.fields()
    if head.status == 407:
        error.hint = HINT_CREDENTIALS
    try:
        yield from _read_refusal(error, head, data, limits)
        # No byte of this body ever reaches the origin's response: the connection ends here.
        raise error
    finally:
        del error  # its traceback refers to this frame


def _encode_connect(tunnel: Tunnel) -> bytes:
    """Return the CONNECT request's head; raise ``ValueError`` or ``InvalidURL`` if invalid."""
    host = ascii_host(tunnel)
    if ":" in host:
        # RFC 6874 §4: an IPv6 zone means nothing on another machine.
        host = host.partition("%")[0]
    target = authority(host, tunnel.port)
    fields = [check_proxy_field(name, value) for name, value in tunnel.headers]
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


def check_proxy_field(name: str | bytes, value: str | bytes | int) -> tuple[str, str]:
    """Check a field as ``grammar.check_field`` does, but never show its value: it may be secret."""
    name, _ = grammar.check_field(name, "")
    try:
        return grammar.check_field(name, value)
    except ValueError:
        raise ValueError(
            f"Invalid header value of {name}, for the proxy: it has a control character, "
            "or one outside ISO-8859-1"
        ) from None


def _read_refusal(
    error: TunnelError, head: ResponseHead, data: bytes, limits: Limits
) -> Generator[TunnelError, bytes, None]:
    """Read the body that explains *error*, decoded, into ``error.body``, a part at a time.

    A body that cannot be read to its end leaves the part that could.
    """
    try:
        left, chunked, _ = response_framing(head, "CONNECT")
    except HTTPException:
        return
    decoder = ChunkedDecoder(limits) if chunked else None
    left = MAX_REFUSAL_BODY if left is None else min(left, MAX_REFUSAL_BODY)
    while True:
        if decoder is not None:
            data, _ = decoder.decode(bytearray(data), 0, len(data))
        error.body += data[:left]
        left -= len(data)
        if left <= 0 or (decoder is not None and (decoder.done or decoder.error is not None)):
            return
        if not (data := (yield error)):
            return


def basic_authorization(credentials: Credentials) -> str:
    """Return the value of an authorization field for *credentials* (RFC 7617, as UTF-8).

    Raises ``ValueError`` if Basic cannot express them, and never shows them.
    """
    user, password = encode_credentials(credentials)
    if b":" in user:
        raise ValueError("the proxy's user name must not have a colon (RFC 7617 §2)")
    pair = b"%b:%b" % (user, password)
    if _CONTROL.search(pair):
        raise ValueError("the proxy's credentials must not have control characters (RFC 7617 §2)")
    return encode_basic(pair)


def encode_basic(pair: bytes) -> str:
    """Return ``user:password`` as the value of an authorization field (RFC 7617 §2)."""
    return f"Basic {b2a_base64(pair, newline=False).decode('ascii')}"


# For SOCKS, too ------------------------------------------------------------------------


def ascii_host(tunnel: Tunnel) -> str:
    """Return the host, a name as A-labels; raise ``ValueError`` or ``InvalidURL`` if invalid."""
    if not tunnel.host or not 0 <= tunnel.port <= 65535:
        raise ValueError(f"not a host and port for a tunnel: {tunnel.host!r}, {tunnel.port!r}")
    return grammar.ascii_host(tunnel.host)


def authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def encode_credentials(credentials: object) -> tuple[bytes, bytes]:
    """Return user and password as UTF-8; no error holds them, nor does the context of one."""
    match credentials:
        case (str(user), str(password)) if isinstance(credentials, tuple):
            pass
        case _:
            raise TypeError("a proxy's credentials must be (user, password), a tuple of two str")
    user, password = exact(user), exact(password)
    try:
        return user.encode("utf-8", "surrogateescape"), password.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError("the proxy's credentials cannot be encoded as UTF-8") from None
