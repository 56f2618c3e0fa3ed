"""The same request sent by ``http.client`` and by us, so that the bytes can be compared."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttpconn import HTTPConnection

from . import stdlib_client
from .closed_world import Peer
from .requests import Bodies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .closed_world import ClosedWorld
    from .requests import Request

__all__ = ["BLOCKSIZE", "Sent", "by_http_client", "by_us", "send"]

BLOCKSIZE = 8
"""Bytes read at once from a file: small, so that bodies have several blocks."""


@dataclass
class Sent:
    """The bytes that a client has sent, and the error that it raised."""

    data: bytes
    error: Exception | None = None


class Pairs(list):  # type: ignore[type-arg]
    """Pairs as http.client wants headers: ``items()`` has the pairs, the iterator has the names."""

    def items(self) -> Any:
        return iter(list(tuple.__iter__(pair)) for pair in list.__iter__(self))

    def __iter__(self) -> Iterator[Any]:
        return (pair[0] for pair in list.__iter__(self))


def by_http_client(request: Request) -> Sent:
    """Send *request* with ``http.client``."""
    with Bodies() as body:
        return _by_http_client(request, body)


def _by_http_client(request: Request, body: Bodies) -> Sent:
    sock = stdlib_client.FakeSocket()
    try:
        conn = stdlib_client.connection(sock, *request.host, blocksize=BLOCKSIZE)
        if request.http10:
            conn._http_vsn, conn._http_vsn_str = 10, "HTTP/1.0"  # type: ignore[attr-defined]
        if request.tunnel:
            conn.set_tunnel(*request.tunnel)
            conn._tunnel = lambda: None  # type: ignore[attr-defined]
        if not request.steps:
            headers: Any = Pairs(request.headers)
            conn.request(
                request.method,
                request.url,
                body(request.body),
                headers,
                encode_chunked=request.encode_chunked,
            )
            return Sent(sock.sent)
        conn.putrequest(
            request.method, request.url, request.skip_host, request.skip_accept_encoding
        )
        for name, *values in request.headers:
            conn.putheader(name, *values)
        conn.endheaders(body(request.body), encode_chunked=request.encode_chunked)
        for name in request.sends:
            conn.send(body(name))
    except (ValueError, TypeError, http.client.HTTPException) as exc:
        return Sent(sock.sent, exc)
    return Sent(sock.sent)


def by_us(world: ClosedWorld, request: Request) -> Sent:
    """Send *request* with the package, in a world without I/O."""
    peer = Peer(world, [], end="stay")

    async def main() -> None:
        conn = HTTPConnection(*request.host, blocksize=BLOCKSIZE, dialer=peer.dial)
        if request.http10:
            conn._http_vsn, conn._http_vsn_str = 10, "HTTP/1.0"
        if request.tunnel:
            conn.set_tunnel(*request.tunnel)
        with Bodies() as body:
            try:
                await send(conn, request, body)
            finally:
                conn.close()

    try:
        world.run(main())
    except (ValueError, TypeError, http.client.HTTPException) as exc:
        return Sent(b"".join(peer.sent), exc)
    return Sent(b"".join(peer.sent))


async def send(conn: HTTPConnection, request: Request, body: Bodies) -> None:
    """Send *request* on *conn*."""
    if not request.steps:
        await conn.request(
            request.method,
            request.url,
            body(request.body),
            request.all_headers(),
            encode_chunked=request.encode_chunked,
        )
        return
    conn.putrequest(request.method, request.url, request.skip_host, request.skip_accept_encoding)
    for name, *values in request.headers:
        conn.putheader(name, *values)
    await conn.endheaders(body(request.body), encode_chunked=request.encode_chunked)
    for name in request.sends:
        await conn.send(body(name))
