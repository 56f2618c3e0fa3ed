"""Response: what a client's request gives. Around the ``HTTPResponse`` that came over the wire.

One object for each response, made when the body is here, or the head if it is streamed: nothing of
it stands between the socket and the bytes. Content is decoded, as text too. Layer: client.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from ..exceptions import (
    MAX_SHOWN,
    BodyTooLarge,
    StatusError,
    cut_url,
    quote,
)
from ..pool.requests import abandon
from .content.charsets import BOM, TextDecoder, charset_of, header_charset
from .content.reading import PIECE, decode_body, decoded_pieces, read_body, too_large

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from http.client import HTTPMessage

    from ..response import HTTPResponse

__all__ = ["Response", "Timings", "codings_of", "decode_body", "read_body", "too_large"]

MAX_LINE = 16 * 1024 * 1024
"""Characters of a line of ``iter_lines`` by default: a server may never send a line's end."""


class Timings(NamedTuple):
    """Seconds of each phase of the last request of a response.

    ``queue``: until a connection was free. ``dns``, ``connect``, ``proxy``, ``tls``: of making
    one, None where there was nothing to do. ``send``: until the request was handed to the kernel.
    ``wait``: for the head. ``receive``: for the body; None of a stream that has not ended.
    """

    queue: float
    dns: float | None
    connect: float | None
    proxy: float | None
    tls: float | None
    send: float
    wait: float
    receive: float | None

    @property
    def total(self) -> float:
        """The sum."""
        return sum(seconds for seconds in self if seconds is not None)


class Response:
    """A response of ``Client``. After ``request``, ``get`` and the like its body is here.

    Of ``Client.stream`` it is read by ``read()``, ``iter_bytes()`` or ``iter_lines()``.

    Attributes: ``status`` (int), ``url`` (str, that of the last request), ``history`` (the
    responses that redirected to this one), ``raw`` (the ``HTTPResponse``: its body is as it came
    over the wire, and read already).
    """

    __slots__ = (
        "__weakref__",
        "_began",
        "_codings",
        "_content",
        "_ended",
        "_head_at",
        "_limits",
        "_sent",
        "_text",
        "history",
        "raw",
        "status",
        "url",
    )

    def __init__(
        self,
        raw: HTTPResponse,
        url: str,
        content: bytes | None,
        began: float,
        sent: float,
        head_at: float,
        ended: float | None,
    ) -> None:
        self.raw = raw
        self.status = raw.status
        self.url = url
        self.history: Sequence[Response] = ()
        # None: a stream that was not read whole.
        self._content = content
        self._text: str | None = None
        # The codings of a stream, None once it is iterated over; and (max_body, max_ratio).
        self._codings: Sequence[str] | None = ()
        self._limits: tuple[int | None, float | None] = (None, None)
        # time.monotonic(): the call began, the request was sent, head and body were here.
        self._began = began
        self._sent = sent
        self._head_at = head_at
        self._ended = ended

    def __repr__(self) -> str:
        return f"<Response [{self._shown_status()}] {self._context()}>"

    def _shown_status(self) -> str:
        """Return status and reason, which is the peer's, as they may stand in a text."""
        reason = self.reason[:MAX_SHOWN].encode("ascii", "backslashreplace").decode()
        return f"{self.status} {reason}".rstrip()

    # -------------------------------------------------------------------------- head

    @property
    def reason(self) -> str:
        """The reason phrase; it means nothing to programs."""
        return self.raw.reason

    @property
    def method(self) -> str:
        """The method of the last request: a redirect may have changed it."""
        return self.raw.method

    @property
    def headers(self) -> HTTPMessage:
        """The fields, names in any case: ``headers["Content-Type"]``, ``headers.get_all(name)``."""
        return self.raw.headers

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        return self.status < 400

    @property
    def cookies(self) -> dict[str, str]:
        """What this response sets, by name."""
        from .cookies.store import cookie_pairs

        return cookie_pairs(self.headers.get_all("Set-Cookie", []))

    @property
    def links(self) -> dict[str, dict[str, str]]:
        """The Link fields (RFC 8288) by their ``rel``: ``links["next"]["url"]`` is absolute.

        A link without ``rel`` is found by its URL, and of several with the same the first. After
        1,000 links, or 4 Mi characters of URLs, the rest is ignored.
        """
        from .links import parse_links

        return parse_links(self.headers.get_all("Link", []), self.url)

    @property
    def peername(self) -> Any:
        """What ``socket.getpeername`` gave: (address, port, ...); a proxy's, if there is one."""
        return self.raw.peername

    @property
    def reused(self) -> bool:
        """Whether the connection had served a request before."""
        return self.raw.number > 1

    @property
    def timings(self) -> Timings:
        """How long each phase took; see ``Timings``."""
        dialed = self.raw.dialed
        phases = dialed.durations if dialed is not None else {}
        started = self.raw.started
        return Timings(
            max(started - self._began - sum(phases.values()), 0.0),
            phases.get("dns"),
            phases.get("connect"),
            phases.get("proxy"),
            phases.get("tls"),
            self._sent - started,
            self._head_at - self._sent,
            None if self._ended is None else self._ended - self._head_at,
        )

    def raise_for_status(self) -> Response:
        """Return the response; raise ``StatusError`` if its status is 400 or more."""
        if self.status < 400:
            return self
        error = StatusError(f"{self._context()}: {self._shown_status()}")
        error.status = self.status
        error.response = self
        raise error

    # -------------------------------------------------------------------------- body

    @property
    def content(self) -> bytes:
        """The body, decoded. Raises ``RuntimeError`` of a stream that ``read()`` has not read."""
        if self._content is None:
            self._unread_codings()
            raise RuntimeError(f"{self!r} is a stream: await response.read() first")
        return self._content

    @property
    def encoding(self) -> str:
        """What ``text`` decodes with: the header's charset, a BOM, what HTML says, UTF-8."""
        return charset_of(self.raw.getheader("Content-Type", ""), self.content)

    @property
    def text(self) -> str:
        """The body as text; what cannot be decoded is U+FFFD. See ``encoding``.

        UTF-16 and UTF-32 without a byte order mark are little-endian, as for browsers.
        """
        if self._text is None:
            text = TextDecoder(self.encoding).decode(self.content, True)
            self._text = text.removeprefix(BOM)
        return self._text

    def json(self, **options: Any) -> Any:
        """Return the body's JSON; *options* go to ``json.loads``. Raises ``ValueError``."""
        import json

        try:
            return json.loads(self.content, **options)
        except ValueError as exc:
            exc.add_note(self._told_json())
            raise
        except RecursionError:
            raise ValueError(
                f"{self._told_json()}: its lists and objects are nested too deep for json.loads"
            ) from None

    def _told_json(self) -> str:
        """Return what came, of which JSON was expected."""
        kind = self.raw.getheader("Content-Type", "no Content-Type")
        return f"{self._context()}: {self.status}, {kind}, {quote(self.content)}"

    async def read(self) -> bytes:
        """Return the body, decoded, which a stream has still to receive; then ``content`` has it.

        Raises ``BodyTooLarge``, ``ContentDecodingError``, ``IncompleteRead``, ``RequestTimeout``,
        and ``RuntimeError`` if a stream was closed, or if an iteration over it has begun.
        """
        if self._content is None:
            codings = self._unread_codings()
            data = await read_body(self.raw, self._limits[0], bool(codings))
            self._content = decode_body(self.raw, data, codings, self.url, self._limits)
            self._ended = monotonic()
        return self._content

    async def iter_bytes(self, n: int | None = None) -> AsyncIterator[bytes]:
        """Iterate over the body, decoded: in pieces of *n* bytes, or as they come.

        Of a stream once. Raises what ``read`` raises, after the pieces before it.
        """
        if n is not None and n <= 0:
            raise ValueError(f"iter_bytes(n) needs n above 0, got {n}")
        if self._content is not None:
            step = n or PIECE
            for start in range(0, len(self._content), step):
                yield self._content[start : start + step]
            return
        pieces = self._pieces()
        if n is None:
            async for piece in pieces:
                yield piece
        else:
            kept = bytearray()
            async for piece in pieces:
                kept += piece
                while len(kept) >= n:
                    yield bytes(kept[:n])
                    del kept[:n]
            if kept:
                yield bytes(kept)

    async def _pieces(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it comes, decoded."""
        codings = self._unread_codings()
        self._codings = None
        max_body = self._limits[0]
        if not codings:
            async for piece in self.raw.iter_bytes():
                if max_body is not None and self.raw.received > max_body:
                    raise too_large(self.raw, max_body)
                yield piece
        else:
            async for piece in decoded_pieces(self.raw, codings, self.url, self._limits):
                yield piece
        self._ended = monotonic()

    async def iter_lines(self, *, max_line: int = MAX_LINE) -> AsyncIterator[str]:
        r"""Iterate over the lines of the body as text, without their ends: ``\n`` or ``\r\n``.

        As ``text`` has them, but of a stream the charset is the header's, or UTF-8. Raises
        ``BodyTooLarge`` for a line of more than *max_line* characters, and what ``read`` raises.
        """
        if self._content is not None:
            name = self.encoding
        else:
            name = header_charset(self.raw.getheader("Content-Type", "")) or "utf-8"
        decoder = TextDecoder(name)
        kept: list[str] = []
        size = 0
        begun = False
        async for piece in self.iter_bytes():
            text = decoder.decode(piece)
            if text and not begun:
                text = text.removeprefix(BOM)
                begun = True
            *lines, rest = text.split("\n")
            for line in lines:
                if size + len(line) > max_line:
                    raise self._line_too_long(max_line)
                yield ("".join([*kept, line]) if kept else line).removesuffix("\r")
                kept.clear()
                size = 0
            if rest:
                kept.append(rest)
                size += len(rest)
                if size > max_line:
                    raise self._line_too_long(max_line)
        kept.append(decoder.decode(b"", True))
        if last := "".join(kept):
            yield last.removesuffix("\r")

    def _line_too_long(self, max_line: int) -> BodyTooLarge:
        return BodyTooLarge(
            f"{self._context()}: a line of more than {max_line} characters: give "
            "iter_lines(max_line=...) for longer ones"
        )

    def close(self) -> None:
        """Give up what was not read. If it is little, the connection may be used again."""
        if not self.raw.ended:
            abandon(self.raw)
        else:
            self.raw.close()

    def _context(self) -> str:
        return f"{self.method} {cut_url(self.url)}"

    def _unread_codings(self) -> Sequence[str]:
        """Return the codings of a stream that can still be read."""
        codings = self._codings
        if codings is None:
            raise RuntimeError(f"{self!r}: the stream was iterated over, which can be done once")
        if self.raw.closed:
            raise RuntimeError(
                f"{self!r}: the stream was closed, at the end of 'async with client.stream()' or "
                "by close(), before it was read"
            )
        return codings

    def _begin_stream(
        self, codings: Sequence[str], max_body: int | None, max_ratio: float | None
    ) -> None:
        """Let the body be read by the caller."""
        self._limits = max_body, max_ratio
        self._codings = codings
