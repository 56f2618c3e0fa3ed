"""Response: what a client's request gives. Around the ``HTTPResponse`` that came over the wire.

One object for each response, made when the body is here, or the head if it is streamed: nothing of
it stands between the socket and the bytes. Content is decoded, as text too. Layer: client.
"""

from __future__ import annotations

import codecs
import re
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from ..exceptions import BodyTooLarge, StatusError, describe, quote
from .decoding import ContentDecoder, decode, split_codings
from .exchange import abandon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from http.client import HTTPMessage

    from ..response import HTTPResponse

__all__ = ["MAX_LINE", "Response", "Timings"]

MAX_LINE = 16 * 1024 * 1024
"""Characters of a line of ``iter_lines`` by default: a server may never send a line's end."""

PIECE = 256 * 1024
"""Bytes that are decoded at once from a stream."""

META_BYTES = 1024
"""Of a document: where HTML says its charset must be declared."""

_CHARSET = re.compile(r"(?i);[\t ]*charset[\t ]*=[\t ]*\"?([A-Za-z0-9_.:+\-]{1,40})")
_META = re.compile(
    rb"(?i)<meta[^>]{1,200}?charset[\t ]*=[\t ]*[\"']?[\t ]*([A-Za-z0-9_.:+\-]{1,40})"
)
_XML = re.compile(rb"<\?xml[^>]{1,200}?encoding[\t ]*=[\t ]*[\"']([A-Za-z0-9_.:+\-]{1,40})")
_MARKUP = re.compile(r"(?i)html|xml")

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# What browsers take these names for: https://encoding.spec.whatwg.org/#names-and-labels
_LABELS = {"iso8859-1": "cp1252", "ascii": "cp1252"}

# Python's codecs of this kind are no charset of a document: some are slow, one hides markup.
_NO_CHARSETS = frozenset(
    {"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "utf-7"}
)

_LINK = re.compile(
    r"[\t ]*<([^<>]{0,4000})>((?:[\t ]*;[\t ]*[^;,\"]{1,200}(?:\"[^\"]{0,1000}\")?)*)[\t ]*,?"
)
_LINK_PARAM = re.compile(
    r";[\t ]*([A-Za-z0-9!#$&+\-.^_`|~*]{1,100})[\t ]*=[\t ]*(?:\"([^\"]*)\"|([^;,\"]*))"
)


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
        # The codings of a stream, and (max_body, max_ratio).
        self._codings: Sequence[str] = ()
        self._limits: tuple[int | None, float | None] = (None, None)
        # time.monotonic(): the call began, the request was sent, head and body were here.
        self._began = began
        self._sent = sent
        self._head_at = head_at
        self._ended = ended

    def __repr__(self) -> str:
        return f"<Response [{self.status} {self.reason}] {self.raw.method} {self.url}>"

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
        from .cookies import cookie_pairs

        return cookie_pairs(self.headers.get_all("Set-Cookie", []))

    @property
    def links(self) -> dict[str, dict[str, str]]:
        """The Link fields (RFC 8288) by their ``rel``: ``links["next"]["url"]`` is absolute."""
        from urllib.parse import urljoin

        found: dict[str, dict[str, str]] = {}
        for value in self.headers.get_all("Link", []):
            at = 0
            while match := _LINK.match(value, at):
                at = match.end()
                link = {
                    name.lower(): quoted or plain.strip()
                    for name, quoted, plain in _LINK_PARAM.findall(match[2])
                }
                try:
                    link["url"] = urljoin(self.url, match[1])
                except ValueError:
                    continue
                for rel in link.get("rel", link["url"]).split():
                    found.setdefault(rel, link)
        return found

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
        error = StatusError(f"{self.method} {self.url}: {self.status} {self.reason}".rstrip())
        error.status = self.status
        error.response = self
        raise error

    # -------------------------------------------------------------------------- body

    @property
    def content(self) -> bytes:
        """The body, decoded. Raises ``RuntimeError`` if a stream was not read yet: ``read()``."""
        if self._content is None:
            raise RuntimeError(f"{self!r} is a stream: await response.read() first")
        return self._content

    @property
    def encoding(self) -> str:
        """What ``text`` decodes with: the header's charset, a BOM, what HTML says, UTF-8."""
        content = self.content
        content_type = self.raw.getheader("Content-Type", "")
        match = _CHARSET.search(content_type)
        if match is not None and (name := _codec(match[1])):
            return name
        for bom, name in _BOMS:
            if content.startswith(bom):
                return name
        if not content_type or _MARKUP.search(content_type):
            declared = _META.search(content[:META_BYTES]) or _XML.match(content[:META_BYTES])
            if declared is not None and (name := _codec(declared[1].decode("ascii"))):
                # A document that can say so in ASCII is no UTF-16.
                return "utf-8" if name.startswith("utf-16") else name
        return "utf-8"

    @property
    def text(self) -> str:
        """The body as text; what cannot be decoded is U+FFFD. See ``encoding``."""
        if self._text is None:
            self._text = self.content.decode(_with_bom(self.encoding), "replace")
        return self._text

    def json(self, **options: Any) -> Any:
        """Return the body's JSON; *options* go to ``json.loads``. Raises ``ValueError``."""
        import json

        try:
            return json.loads(self.content, **options)
        except ValueError as exc:
            kind = self.raw.getheader("Content-Type", "no Content-Type")
            exc.add_note(
                f"{self.method} {self.url}: {self.status}, {kind}, {quote(self.content[:101])}"
            )
            raise

    async def read(self) -> bytes:
        """Return the body, decoded, reading what has not been read: afterwards ``content`` has it.

        Raises ``BodyTooLarge``, ``ContentDecodingError``, ``IncompleteRead``, ``RequestTimeout``.
        """
        if self._content is None:
            max_body, max_ratio = self._limits
            data = await read_body(self.raw, max_body)
            if self._codings and data:
                data = decode(
                    data,
                    self._codings,
                    max_body=max_body,
                    max_ratio=max_ratio,
                    context=self._context(),
                )
            self._content = data
            self._ended = monotonic()
        return self._content

    async def iter_bytes(self, n: int | None = None) -> AsyncIterator[bytes]:
        """Iterate over the body, decoded: in pieces of *n* bytes, or as they come.

        Raises what ``read`` raises, after the pieces before it.
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
        max_body, max_ratio = self._limits
        if not self._codings:
            async for piece in self.raw.iter_bytes():
                if max_body is not None and self.raw.received > max_body:
                    raise too_large(self.raw, max_body)
                yield piece
        else:
            decoder = ContentDecoder(
                self._codings, max_body=max_body, max_ratio=max_ratio, context=self._context()
            )
            empty = True
            async for piece in self.raw.iter_bytes():
                empty = False
                if out := decoder.feed(piece, PIECE):
                    yield out
                while decoder.pending:
                    if out := decoder.feed(b"", PIECE):
                        yield out
            if not empty:
                decoder.finish()
        self._ended = monotonic()

    async def iter_lines(self, *, max_line: int = MAX_LINE) -> AsyncIterator[str]:
        r"""Iterate over the lines of the body as text, without their ends: ``\n`` or ``\r\n``.

        Of a stream the charset is the header's, or UTF-8. Raises ``BodyTooLarge`` for a line of
        more than *max_line* characters, and what ``read`` raises.
        """
        name = self.encoding if self._content is not None else ""
        if not name:
            match = _CHARSET.search(self.raw.getheader("Content-Type", ""))
            name = (match is not None and _codec(match[1])) or "utf-8"
        decoder = codecs.getincrementaldecoder(_with_bom(name))("replace")
        kept: list[str] = []
        size = 0
        async for piece in self.iter_bytes():
            *lines, rest = decoder.decode(piece).split("\n")
            for line in lines:
                yield ("".join([*kept, line]) if kept else line).removesuffix("\r")
                kept.clear()
                size = 0
            if rest:
                kept.append(rest)
                size += len(rest)
                if size > max_line:
                    raise BodyTooLarge(
                        f"{self._context()}: a line of more than {max_line} characters: give "
                        "iter_lines(max_line=...) for longer ones"
                    )
        kept.append(decoder.decode(b"", True))
        if last := "".join(kept):
            yield last.removesuffix("\r")

    def close(self) -> None:
        """Give up what was not read. If it is little, the connection may be used again."""
        if not self.raw._ended:
            abandon(self.raw)
        else:
            self.raw.close()

    def _context(self) -> str:
        return f"{self.method} {self.url}"

    def _begin_stream(
        self, codings: Sequence[str], max_body: int | None, max_ratio: float | None
    ) -> None:
        """Let the body be read by the caller."""
        self._limits = max_body, max_ratio
        self._codings = codings


def codings_of(raw: HTTPResponse) -> list[str]:
    """Return the content codings of *raw*, in the order in which they were put on."""
    return split_codings(
        value for name, value in raw.raw_headers if name.lower() == "content-encoding"
    )


async def read_body(raw: HTTPResponse, max_body: int | None) -> bytes:
    """Read the rest of *raw* as it comes over the wire, *max_body* bytes at most."""
    if max_body is None:
        return await raw.read()
    # Coded content that does not compress is a little larger than it is.
    most = max_body + max_body // 8 + 1024
    length = raw.length
    if length is not None:
        if length > most:
            raise too_large(raw, max_body)
        return await raw.read()
    data = await raw.read(most + 1)
    if len(data) > most:
        raise too_large(raw, max_body)
    # What ended it too early, if it did.
    return data + await raw.read() if not raw.complete else data


def too_large(raw: HTTPResponse, max_body: int) -> BodyTooLarge:
    """Return the error for a body beyond *max_body*; its connection is over."""
    length = raw.length
    raw.close()
    announced = f", {length} announced" if length is not None else ""
    return describe(
        BodyTooLarge(f"a body of more than max_body={max_body} bytes{announced}"),
        method=raw.method,
        url=raw.url,
        phase="receiving the body",
        elapsed=monotonic() - raw.started,
        peer=str(raw.peername or ""),
        request_sent=True,
        response_started=True,
    )


def _codec(name: str) -> str | None:
    """Return Python's name for a charset, None if it has none, or one that is refused."""
    try:
        found = codecs.lookup(name).name
        b"".decode(found)  # LookupError for what is no text encoding
    except (LookupError, UnicodeError, ValueError):
        return None
    return None if found in _NO_CHARSETS else _LABELS.get(found, found)


def _with_bom(encoding: str) -> str:
    """Return the codec that also takes a BOM, which is no part of the text."""
    return "utf-8-sig" if encoding == "utf-8" else encoding
