"""The same response seen by ``http.client`` and by us, so that they can be compared."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttpconn import HTTPConnection, HTTPResponse
from aiohttpconn.exceptions import HTTPException, IncompleteRead

from . import stdlib_client
from .closed_world import Peer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .closed_world import ClosedWorld
    from .model import Response

__all__ = ["ALL", "Read", "Seen", "by_http_client", "by_us", "expected_reads", "read_all"]

NO_RESPONSE = (HTTPException, ConnectionError)

Read = tuple[str, int]
"""A method of a response, and its argument."""

ALL: list[Read] = [("read", -1)]


@dataclass
class Seen:
    """A response as a client sees it. ``error`` was raised instead of a head."""

    error: Exception | None = None
    status: int = 0
    reason: str = ""
    version: int = 0
    fields: list[tuple[str, str]] = field(default_factory=list)
    joined: list[str | None] = field(default_factory=list)
    will_close: bool = False
    chunked: bool = False
    length: int | None = None
    closed: bool = False
    """The result of isclosed() before anything was read."""
    reads: list[Any] = field(default_factory=list)
    """The results of the reads; an exception ends them."""
    closed_at_end: bool = False

    @property
    def body(self) -> Any:
        return self.reads[-1] if self.reads else None

    def see(self, response: Any) -> None:
        self.status, self.reason = response.status, response.reason
        self.version, self.fields = response.version, response.getheaders()
        assert response.headers.items() == response.msg.items() == self.fields
        names = {name.swapcase() for name, _ in self.fields}
        self.joined = [response.getheader(name) for name in sorted(names)]
        assert response.getheader("Not-There") is None
        assert response.getheader("Not-There", ["a", "b"]) == "a, b"
        self.will_close, self.chunked = response.will_close, response.chunked
        self.length, self.closed = response.length, response.isclosed()


def by_http_client(response: Response, reads: Sequence[Read] = ALL) -> Seen:
    seen = Seen()
    try:
        got = stdlib_client.response(response.data, response.method)
    except NO_RESPONSE as exc:
        seen.error = exc
        return seen
    seen.see(got)
    try:
        for name, size in reads:
            if name == "readinto":
                buffer = bytearray(size)
                seen.reads.append(bytes(buffer[: got.readinto(buffer)]))
            else:
                seen.reads.append(getattr(got, name)(None if name == "read" and size < 0 else size))
    except (HTTPException, MemoryError, OverflowError, ValueError) as exc:
        # http.client asks its file for whatever size a peer writes, be it negative.
        seen.reads.append(exc)
    seen.closed_at_end = got.isclosed()
    got.close()
    return seen


def by_us(
    world: ClosedWorld,
    response: Response,
    reads: Sequence[Read] = ALL,
    pieces: Sequence[bytes] = (),
) -> Seen:
    conn = HTTPConnection("h", dialer=Peer(world, pieces or [response.data]).dial)
    return world.run(read_all(conn, response.method, reads))


async def read_all(conn: HTTPConnection, method: str, reads: Sequence[Read]) -> Seen:
    seen = Seen()
    try:
        await conn.request(method, "/")
        got: HTTPResponse = await conn.getresponse()
    except NO_RESPONSE as exc:
        seen.error = exc
        return seen
    seen.see(got)
    try:
        for name, size in reads:
            if name == "readinto":
                buffer = bytearray(size)
                seen.reads.append(bytes(buffer[: await got.readinto(buffer)]))
            else:
                read = getattr(got, name)
                seen.reads.append(await read(None if name == "read" and size < 0 else size))
    except IncompleteRead as exc:
        seen.reads.append(exc)
    seen.closed_at_end = got.isclosed()
    conn.close()
    return seen


def expected_reads(content: bytes, whole: bool, reads: Sequence[Read]) -> Iterator[Any]:
    """Iterate over the results of *reads*; the last is ``IncompleteRead`` if not *whole*."""
    source = io.BytesIO(content)
    for name, size in reads:
        got = source.readline(size) if name == "readline" else source.read(size)
        if not whole and ((name == "read" and size < 0) or (size and not got)):
            yield IncompleteRead(got)
            return
        yield got
