"""Proxy handshakes as pure generators: they yield bytes to send and are sent the bytes read.

Yielding b"" asks for more bytes, being sent b"" means that the proxy has closed. What a
generator returns is the proxy's reply, what it raises ends the connect. No I/O. Layer: net.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from ..exceptions import HTTPException, TunnelError
from ..http11 import grammar
from ..http11.head import HeadReader, ResponseHead, parse_response_head
from ..http11.limits import DEFAULT_LIMITS, Limits

__all__ = ["HANDSHAKES", "Handshake", "Tunnel", "TunnelReply", "connect_handshake"]

MAX_REFUSAL_BODY = 64 * 1024
"""Bytes of a refusing proxy's body that the error carries: a page that explains it, not more."""

HINT_CREDENTIALS = (
    "Pass the proxy's credentials: set_tunnel(..., headers={'Proxy-Authorization': ...})"
)


@dataclass(frozen=True, slots=True)
class Tunnel:
    """Where a proxy shall connect to, and the fields of the request that asks it to."""

    host: str
    port: int
    headers: tuple[tuple[str | bytes, str | bytes | int], ...] = ()

    def __repr__(self) -> str:
        # The fields may hold the proxy's credentials.
        return f"Tunnel({self.host!r}, {self.port})"


class TunnelReply(NamedTuple):
    """A proxy's consent: its head, and the bytes that came behind it."""

    version: int
    status: int
    reason: str
    fields: list[tuple[str, str]]
    leftover: bytes


Handshake: TypeAlias = Generator[bytes, bytes, TunnelReply]


def connect_handshake(tunnel: Tunnel, limits: Limits | None = None) -> Handshake:
    """Ask an HTTP proxy for *tunnel* with CONNECT (RFC 9110 §9.3.6), as ``http.client`` does.

    The first ``next()`` raises ``ValueError`` or ``InvalidURL`` for what may not be sent. Later:
    ``TunnelError`` if the proxy refuses (its text is http.client's), answers with something
    else than HTTP, or closes before it has answered.
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
    """Return the CONNECT request's head; ``ValueError`` or ``InvalidURL`` if it may not be sent."""
    grammar.check_host(tunnel.host)
    if not tunnel.host or not 0 <= tunnel.port <= 65535:
        raise ValueError(f"not a tunnel's host and port: {tunnel.host!r}, {tunnel.port!r}")
    try:
        host = tunnel.host.encode("idna").decode("ascii")
    except UnicodeError as exc:
        raise ValueError(f"not a tunnel's host: {tunnel.host!r} ({exc})") from exc
    target = f"[{host}]:{tunnel.port}" if ":" in host else f"{host}:{tunnel.port}"
    fields = [_check_field(name, value) for name, value in tunnel.headers]
    hosts = [value for name, value in fields if name.lower() == "host"]
    if len(hosts) > 1:
        raise ValueError(f"the tunnel's headers have more than one Host: {hosts}")
    for value in hosts:
        grammar.check_host_field(value)
    if not hosts:
        fields.insert(0, ("Host", target))
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
    # No byte of it ever reaches the origin's response: the connection ends here.
    error = TunnelError(f"Tunnel connection failed: {head.status} {head.reason}".strip())
    error.status = head.status
    error.reason = head.reason
    error.headers = fields
    error.body = bytes(body[:wanted])
    if head.status == 407:
        vars(error)["hint"] = HINT_CREDENTIALS
    return error


HANDSHAKES: dict[str, Callable[[Tunnel, Limits | None], Handshake]] = {"http": connect_handshake}
"""How to ask each type of proxy for a tunnel, by the scheme of the proxy's URL."""
