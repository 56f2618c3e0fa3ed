"""HTTPResponse: what callers read. The head's side of it; reader.py has the body's.

A response is made when its request is sent, and is the exchange's one object: the protocol
fills its head in, feeds its body, and ends it. Layer: above reader, below protocol.
"""

from __future__ import annotations

import asyncio
from http.client import HTTPMessage
from math import inf
from typing import TYPE_CHECKING, Any

from .http11.head import split_fields
from .reader import GIVEN_UP, HIGH_WATER, BodyReader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .http11.chunked import ChunkedDecoder
    from .net.dial import DialReport
    from .reader import Source

__all__ = ["HTTPResponse", "make_message"]


def make_message(fields: Iterable[tuple[str, str]]) -> HTTPMessage:
    """Return *fields* as http.client's message class, without the parser that drops fields."""
    message = HTTPMessage()
    for name, value in fields:
        message.set_raw(name, value)
    return message


class HTTPResponse(BodyReader):
    """A response, made by ``HTTPConnection.getresponse``. Mirrors ``http.client.HTTPResponse``.

    Attributes, filled once the head has arrived: ``status`` (int), ``reason`` (str),
    ``version`` (10 or 11), ``will_close``, ``chunked``, ``method``, ``target``, ``peername``
    (what ``socket.getpeername`` gave) and ``debuglevel``.

    Unlike http.client's, HEAD, 204, 304 and empty bodies are complete at once, a truncated
    body raises ``IncompleteRead`` from every way of reading, and ``trailers`` are kept.
    """

    __slots__ = (
        "__weakref__",
        "_fields",
        "_head",
        "_head_waiter",
        "_headers",
        "_trailers",
        "chunked",
        "deadline",
        "debuglevel",
        "decoder",
        "dialed",
        "last",
        "method",
        "number",
        "reason",
        "started",
        "status",
        "target",
        "upgrade",
        "version",
        "will_close",
    )

    # Set by the protocol's start(): time.monotonic(), and how many exchanges the connection had.
    started: float
    number: int

    # Set with the head, before anybody holds the response.
    chunked: bool
    reason: str
    status: int
    version: int
    will_close: bool

    def __init__(
        self,
        source: Source | None,
        method: str = "GET",
        target: str = "",
        high_water: int = HIGH_WATER,
    ) -> None:
        # The body's side, flat: see reader.py.
        self._source = source
        self._high_water = high_water
        self._first = b""
        self._offset = 0
        self._rest = None
        self._buffered = 0
        self._waiter = None
        self._paused = False
        self._closed = False
        self._ended = False
        self._exception = None
        self.received = 0
        self.landing = None

        self.method = method
        self.target = target
        self.debuglevel = 0
        # Whether the request asked to leave HTTP/1.1: 101 is an answer to nothing else.
        self.upgrade = False
        # When Timeout.total ends it, on the loop's clock.
        self.deadline = inf
        # Of the connect that was made for it; None on a connection that was there.
        self.dialed: DialReport | None = None
        # Whether the request said that the connection ends after its response.
        self.last = False
        self.decoder: ChunkedDecoder | None = None
        # The head, bytes that follow the grammar; its fields are split when asked for.
        self._head: bytes | None = None
        self._head_waiter: asyncio.Future[None] | None = None
        self._fields: list[tuple[str, str]] | None = None
        self._headers: HTTPMessage | None = None
        self._trailers: HTTPMessage | None = None

    def __repr__(self) -> str:
        if self._head is None:
            return f"<HTTPResponse {self.method} {self.url} waiting for its head>"
        read = self.received - self._buffered
        total = None if self.left is None else self.received + self.left
        unit, per = ("B", 1) if max(read, total or 0) < 1000 else ("kB", 1000)
        shown = ["?" if n is None else f"{n / per:.{0 if per == 1 else 1}f}" for n in (read, total)]
        return f"<HTTPResponse [{self.status} {self.reason}] {'/'.join(shown)} {unit} read>"

    # -------------------------------------------------------------------- head

    @property
    def url(self) -> str:
        """The URL that was asked for: the target, behind the origin unless it is absolute."""
        if self._source is None or not self.target.startswith("/"):
            return self.target
        return f"{self._source.origin}{self.target}"

    @property
    def peername(self) -> Any:
        """What ``socket.getpeername`` gave for the connection that the response came on."""
        return self._source.peername if self._source is not None else None

    @property
    def code(self) -> int:
        """``status`` under its older name."""
        return self.status

    @property
    def raw_headers(self) -> list[tuple[str, str]]:
        """The fields as (name, value), in order, in the peer's case, repeated ones apart."""
        if self._fields is None:
            head = self._head.decode("latin-1") if self._head is not None else "\n"
            self._fields = split_fields(head, head.index("\n") + 1)
        return self._fields

    @property
    def headers(self) -> HTTPMessage:
        """The fields as ``http.client.HTTPMessage``: made when first asked for."""
        if self._headers is None:
            self._headers = make_message(self.raw_headers)
        return self._headers

    @property
    def msg(self) -> HTTPMessage:
        """``headers`` under its older name."""
        return self.headers

    def getheader(self, name: str, default: Any = None) -> Any:
        """Return the field *name*, repeated ones joined by ``, ``; else *default*.

        An iterable default that is no str is joined too, as http.client does.
        """
        lower = name.lower()
        values: Any = [value for key, value in self.raw_headers if key.lower() == lower]
        if not values:
            values = default
            if isinstance(values, str) or not hasattr(values, "__iter__"):
                return values
        return ", ".join(values)

    def getheaders(self) -> list[tuple[str, str]]:
        """Return all fields as a list of (name, value)."""
        return list(self.raw_headers)

    def info(self) -> HTTPMessage:
        """Return ``headers``."""
        return self.headers

    def geturl(self) -> str:
        """Return the URL that was asked for."""
        return self.url

    def getcode(self) -> int:
        """Return ``status``."""
        return self.status

    # -------------------------------------------------------------------- body

    @property
    def length(self) -> int | None:
        """Bytes of the body not read yet, or None where the framing does not tell."""
        return None if self.left is None else self._buffered + self.left

    @property
    def chunk_left(self) -> int | None:
        """Bytes of the current chunk that have not arrived; None where the body is not chunked."""
        return None if self.decoder is None else self.decoder.chunk_left

    @property
    def complete(self) -> bool:
        """Whether the whole response, as its framing announced it, has arrived."""
        return self._head is not None and self._ended and self._exception is None

    @property
    def trailers(self) -> HTTPMessage:
        """The fields after a chunked body; empty before it is ``complete`` and where none came."""
        if not self._ended:
            return make_message(())
        if self._trailers is None:
            decoder = self.decoder
            self._trailers = make_message(decoder.trailers if decoder is not None else ())
        return self._trailers

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._closed

    def isclosed(self) -> bool:
        """Whether there is nothing more to read: the body was read whole, or ``close()``."""
        return self._closed or (self._ended and not self._buffered)

    def readable(self) -> bool:
        """Return True, as http.client's does."""
        return True

    def fileno(self) -> int:
        """Return the socket's descriptor; ``ValueError`` once the response is finished."""
        source = None if self._ended else self._source
        sock = source.get_extra_info("socket") if source is not None else None
        if sock is None:
            raise ValueError(f"{self!r} has no socket any more")
        return int(sock.fileno())

    def close(self) -> None:
        """Give up what was not read. An incomplete body costs the connection: it is aborted.

        Later reads return b"". A read that is waiting in another task raises ``IncompleteRead``.
        """
        if self._closed:
            return
        self._closed = True
        if self._source is not None and not self._ended:
            self._source.abort()
        if self._exception is not None and self._waiter is None and self._head is not None:
            self._exception = GIVEN_UP
        self._first = b""
        self._offset = 0
        self._rest = None
        self._buffered = 0

    def loosen(self) -> None:
        """Let the connection end if nobody but it knows this response any more."""
        if not self._ended and self._source is not None:
            self._source.loosen(self)

    def discard(self, limit: int) -> None:
        """Give up what was not read, but let it come if it is *limit* bytes or less.

        What ``close()`` is for a caller, this is for who wants the connection again: the body is
        dropped as it arrives. One that is larger, or that somebody waits for in another task,
        costs the connection, as ``close()`` does.
        Nobody may read afterwards.
        """
        source = self._source
        late = self._head is not None and (self.will_close or (self.left or 0) > limit)
        if self._ended or source is None or late or self._waiter is not None:
            self.close()
            return
        self._closed = True
        self._need = self.received + limit
        self._first = b""
        self._offset = 0
        self._rest = None
        self._buffered = 0
        if self._paused:
            self._resume()

    def __enter__(self) -> HTTPResponse:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> HTTPResponse:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    # ----------------------------------------------------------------- feeding

    def set_exception(self, exc: BaseException) -> None:
        """The response ends here, and why. Who waits for its head gets *exc*."""
        if not self._ended:
            BodyReader.set_exception(self, exc)
            waiter = self._head_waiter
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def raise_failure(self) -> None:
        """Raise what came instead of the head, if something did."""
        exc = self._exception
        if self._head is None and exc is not None:
            # Once: a traceback that leads back to its exception would wait for the collector.
            self._exception = None
            try:
                raise exc
            finally:
                del exc

    @property
    def has_head(self) -> bool:
        """Whether ``getresponse()`` would not have to wait: the head is here, or never will be."""
        return self._head is not None or self._ended

    def debug_head(self) -> None:
        """Print the head as http.client does at ``debuglevel`` 1."""
        if self._head is not None:
            line, end, _ = self._head.decode("latin-1").partition("\n")
            print("reply:", repr(line + end))
            for name, value in self.raw_headers:
                print("header:", f"{name}:", value)
