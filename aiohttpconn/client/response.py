"""Response: the result of a client's request, around the ``HTTPResponse`` from the wire.

The client makes one ``Response`` when the body has arrived, or when the head of a stream has: no
layer of its own lies between the socket and the bytes. It decodes content codings and charsets.
Layer: client.
"""

from __future__ import annotations

import asyncio
from codecs import BOM_UTF8
from typing import TYPE_CHECKING, Any

from ..arguments import NAME, TEXT, Checks, check_arguments, count, instance, sequence
from ..exceptions import (
    MAX_SHOWN,
    ContentDecodingError,
    HTTPException,
    IncompleteRead,
    StatusError,
    cut_url,
    quote,
    redact,
)
from ..hooks import at_once
from ..http11.response_head import split_fields
from ..pool.requests import abandon
from ..types import UNSET
from .content.charsets import charset_of, header_charset, stated_charset
from .content.labels import check_label
from .content.reading import (
    PIECE,
    BodyOptions,
    body_pieces,
    codings_of,
    is_truncation,
    lines_of,
    read_content,
    text_pieces,
)
from .content.text import BOM, TextDecoder
from .fields import Fields
from .hints import OF_RESPONSE
from .made import facts_of, from_facts, make_content, make_raw
from .request import Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from http.client import HTTPMessage

    from ..exchange import Timings
    from ..net.tls import TLSInfo
    from ..response import HTTPResponse
    from ..types import HeadersLike
    from .made import Facts

__all__ = ["Response", "keep_error_body", "received", "status_error"]

ERROR_BODY = 64 * 1024
"""Bytes of its body that the response of an error keeps: messages and pages of errors are small."""

ERROR_SECONDS = 1.0
"""Time in which they have to come: an error is late enough."""

DEFAULTS = BodyOptions()

MAX_LINE = 16 * 1024 * 1024
"""Default limit of ``iter_lines`` for a line, in characters: a server may never send its end."""


_CHECKS: Checks = {
    "status": count(100),
    "text": NAME,
    "reason": NAME,
    "url": TEXT,
    "request": instance(Request, "a Request", none=True),
    "history": sequence("a sequence of responses"),
}


class Response:
    """A response of a ``Client``. After ``request``, ``get`` and the like it has its whole body.

    The body of a response of ``Client.stream`` is read with ``read()``, ``iter_bytes()`` or
    ``iter_lines()``.

    Attributes: ``status`` (int), ``url`` (str, of the last request), ``history`` (the responses
    that redirected to this one), ``attempts`` (how often a ``Retry`` had the last request sent; 1
    without a retry), ``raw`` (the ``HTTPResponse``; its body is not decoded, and has been read
    already), ``truncated`` (bool: the body is cut short, and ``truncated="keep"`` allowed that).

    A program may make one, for a test or a cache: ``Response(200, json={"ok": True})``. The body is
    one of *content*, *text* and *json*, which also set a Content-Type unless *headers* have one: a
    text is encoded in the charset of that. *request* is what it answers; *url* is the request's if
    it is not given.

    Two are equal if method, URL, status, fields and body are. One whose body is here can be
    pickled; headers and cookies of its request are in the pickle, the client's functions are not.
    """

    __slots__ = (
        "__weakref__",
        "_codings",
        "_content",
        "_encoding",
        "_encoding_set",
        "_options",
        "_request",
        "_text",
        "attempts",
        "history",
        "raw",
        "status",
        "truncated",
        "url",
    )

    raw: HTTPResponse
    status: int
    url: str
    history: Sequence[Response]
    attempts: int
    truncated: bool
    # None for a stream that has not been read whole.
    _content: bytes | None
    _text: str | None
    # The charset that was found, or set.
    _encoding: str | None
    _encoding_set: bool
    _options: BodyOptions
    # The codings of a stream, None after iteration has begun.
    _codings: Sequence[str] | None
    # The head of the request as it went out, until the first use of ``request``.
    _request: bytes | Request

    def __init__(
        self,
        status: int,
        *,
        content: bytes | None = None,
        text: str | None = None,
        json: Any = UNSET,
        headers: HeadersLike | None = None,
        reason: str | None = None,
        url: str = "",
        request: Request | None = None,
        history: Sequence[Response] = (),
    ) -> None:
        check_arguments(_CHECKS, locals())
        if request is None:
            request = Request("GET", url)
        fields = Fields(headers or ())
        charset = header_charset(fields.get("Content-Type", ""))
        body, kind = make_content(content, text, {} if json is UNSET else {"json": json}, charset)
        if kind is not None and "content-type" not in fields:
            fields["Content-Type"] = kind
        raw = make_raw(status, reason, fields, request.method, url or request.url)
        received(raw, url or request.url, body, 0.0, request, made=self)
        self.history = history

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Response):
            return NotImplemented
        if self is other:
            return True
        # A stream that has not been read is equal to nothing else.
        return self._content is not None and self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash((self.status, self.url))

    def _compared(self) -> tuple[Any, ...]:
        fields = [(name.lower(), value) for name, value in self.raw.raw_headers]
        return self.status, self.url, self.method, fields, self._content

    def __reduce__(self) -> tuple[Any, ...]:
        if self._content is None:
            raise TypeError(f"{self!r} is a stream: await response.read() before it is pickled")
        # A subclass of the caller's may have a __dict__.
        state = {name: getattr(self, name) for name in _PICKLED} | getattr(self, "__dict__", {})
        # A function may not be picklable, but the charset that it found is.
        state["_encoding"] = self.encoding
        state["_options"] = DEFAULTS
        return _restore, (type(self), facts_of(self.raw), state)

    def __repr__(self) -> str:
        return f"<Response [{self._shown_status()}] {self._context()}>"

    if not TYPE_CHECKING:  # a type checker is to report such names

        def __getattr__(self, name: str) -> Any:
            hint = f": here it is {OF_RESPONSE[name]}" if name in OF_RESPONSE else ""
            kind = type(self).__name__
            raise AttributeError(
                f"{kind!r} object has no attribute {name!r}{hint}", name=name, obj=self
            )

    def _shown_status(self) -> str:
        """Return status and reason for a text, the server's reason cut and escaped."""
        reason = self.reason[:MAX_SHOWN].encode("ascii", "backslashreplace").decode()
        return f"{self.status} {reason}".rstrip()

    # ----------------------------------------------------------------------------- head

    @property
    def reason(self) -> str:
        """The reason phrase; it has no meaning for programs."""
        return self.raw.reason

    @property
    def method(self) -> str:
        """The method of the last request: a redirect may have changed it."""
        return self.raw.method

    @property
    def request(self) -> Request:
        """The last request: its ``method``, ``url``, and ``headers`` as they went out.

        Those are all fields of its head, also the ones that the client adds. To an HTTP proxy they
        have its credentials.
        """
        sent = self._request
        if not isinstance(sent, Request):
            head = sent.decode("latin-1")
            fields = Fields(split_fields(head, head.index("\n") + 1))
            url = self.url.partition("#")[0]
            sent = self._request = Request(self.method, url, fields)
        return sent

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
        """The cookies that this response sets, by name."""
        from .cookies.store import cookie_pairs

        return cookie_pairs(self.headers.get_all("Set-Cookie", []))

    @property
    def links(self) -> dict[str, dict[str, str]]:
        """The links of the Link fields (RFC 8288) by ``rel``: ``links["next"]["url"]`` is absolute.

        The key of a link without ``rel`` is its URL. Of several links with the same key the first
        counts. The rest after 1,000 links, or 4 Mi characters of URLs, is ignored.
        """
        from .links import parse_links

        return parse_links(self.headers.get_all("Link", []), self.url)

    @property
    def peername(self) -> Any:
        """The result of ``socket.getpeername``: (address, port, ...) of the server or its proxy."""
        return self.raw.peername

    @property
    def trailers(self) -> HTTPMessage:
        """The fields after a chunked body; empty until it has ended, and if none came."""
        return self.raw.trailers

    @property
    def informational(self) -> tuple[tuple[int, HTTPMessage], ...]:
        """The 1xx responses that came before this one: (status, headers) of each."""
        return self.raw.informational

    @property
    def tls(self) -> TLSInfo | None:
        """Facts about TLS to the server: its certificate, the cipher, the version; None for http.

        Each fact has the name that ``ssl.SSLSocket`` has for it.
        """
        return self.raw.tls

    @property
    def reused(self) -> bool:
        """Whether the connection had served another request before."""
        return self.raw.number > 1

    @property
    def timings(self) -> Timings:
        """The seconds of each phase."""
        return self.raw.timings

    def raise_for_status(self) -> Response:
        """Return the response; raise ``StatusError`` if its status is 400 or more."""
        if self.status < 400:
            return self
        raise status_error(self, self._shown_status())

    # ----------------------------------------------------------------------------- body

    @property
    def content(self) -> bytes:
        """The decoded body. Raises ``RuntimeError`` for a stream before ``read()``."""
        if self._content is None:
            self._unread_codings()
            raise RuntimeError(f"{self!r} is a stream: await response.read() first")
        return self._content

    @property
    def encoding(self) -> str:
        """Python's name for the charset of ``text`` and ``iter_lines``; it may be set.

        From a byte order mark, the header, or the HTML or XML itself; else ``default_encoding``.
        The names of documents mean what the WHATWG Encoding standard says: ``iso-8859-1`` is
        cp1252. Setting takes any such name, and None to find the charset again; it raises
        ``LookupError`` for an unknown one.
        """
        if self._encoding is None:
            default = self._options.default_encoding
            self._encoding = charset_of(self._content_type(), self.content, default)
        return self._encoding

    @encoding.setter
    def encoding(self, name: str | None) -> None:
        self._encoding = None if name is None else check_label(name, "encoding")
        self._encoding_set = name is not None
        self._text = None

    def _content_type(self) -> str:
        kind: str = self.raw.getheader("Content-Type", "")
        return kind

    @property
    def text(self) -> str:
        """The body as text, decoded with ``encoding``; undecodable bytes become U+FFFD.

        UTF-16 and UTF-32 without a byte order mark are little-endian, as in browsers.
        """
        if self._text is None:
            text = TextDecoder(self.encoding).decode(self.content, True)
            self._text = text.removeprefix(BOM)
        return self._text

    def json(self, **options: Any) -> Any:
        """Return the body's JSON; *options* go to ``json.loads``, or the client's ``json_loads``.

        The charset is the one set as ``encoding``, that of a byte order mark or of the header;
        else UTF-8 (RFC 8259 §8.1), or UTF-16 and UTF-32 where ``json.loads`` finds them. A
        function of the client's gets bytes of UTF-8, and a text that was in another charset as
        str. Raises ``ValueError``, also for bytes that the charset does not have, and the errors
        of that function.
        """
        import json

        loads = self._options.json_loads
        try:
            if loads is None:
                return json.loads(self._json_document(), **options)
            return at_once("json_loads", loads(self._json_document(), **options))
        except RecursionError:
            raise ValueError(
                f"{self._json_details()}: its lists and objects are nested too deep for json.loads"
            ) from None
        except Exception as exc:
            exc.add_note(self._json_details())
            raise

    def _json_document(self) -> bytes | str:
        content = self.content
        if self._encoding_set:
            name = self.encoding
        elif header_charset(self._content_type()):
            name = stated_charset(self._content_type(), content)
        else:
            import json

            name = json.detect_encoding(content)
            if name not in ("utf-8", "utf-8-sig"):
                return content.decode(name)
        if name in ("utf-8", "utf-8-sig"):
            return content.removeprefix(BOM_UTF8)
        return TextDecoder(name, "strict").decode(content, True).removeprefix(BOM)

    def _json_details(self) -> str:
        """Return the request, and the beginning of the body that is not JSON."""
        kind = self.raw.getheader("Content-Type", "no Content-Type")
        return f"{self._context()}: {self.status}, {kind}, {quote(self.content)}"

    async def read(self) -> bytes:
        """Receive the rest of a stream; return the decoded body, which ``content`` then has too.

        Raises ``BodyTooLarge``, ``ContentDecodingError``, ``IncompleteRead``, ``RequestTimeout``,
        and ``RuntimeError`` if the stream is closed or an iteration over it has begun.
        """
        if self._content is None:
            codings = self._unread_codings()
            url, options = self._sent_url(), self._options
            self._content, self.truncated = await read_content(
                self.raw, codings, url, options, self._end_reading
            )
        return self._content

    def _end_reading(self) -> None:
        """Let nobody else read the stream: its bytes are being decoded, which takes turns."""
        self._codings = None

    async def iter_bytes(self, n: int | None = None) -> AsyncIterator[bytes]:
        """Iterate over the decoded body in pieces of *n* bytes, or as they arrive.

        A stream can be iterated over once. Raises the errors of ``read``, after the pieces that
        arrived before the error.
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
        """Iterate over the decoded body as it arrives."""
        codings = self._unread_codings()
        self._codings = None
        try:
            async for piece in body_pieces(self.raw, codings, self._sent_url(), self._options):
                yield piece
        except (IncompleteRead, ContentDecodingError) as exc:
            if not self._options.keeps_truncated or not is_truncation(exc):
                raise
            self.truncated = True

    async def iter_lines(self, *, max_line: int = MAX_LINE) -> AsyncIterator[str]:
        r"""Iterate over the lines of the body as text, without their ends: ``\n`` or ``\r\n``.

        Decodes as ``text`` does. Of a stream, at most the first 1024 bytes are searched for the
        charset, and are given to a function in ``default_encoding``; only a document that may
        be HTML or XML, or such a function, makes the first lines wait for them. Raises
        ``BodyTooLarge`` for a line of more than *max_line* characters, and the errors of ``read``.
        """
        name = self._encoding if self._content is None else self.encoding
        kind, default = self._content_type(), self._options.default_encoding
        texts = text_pieces(self.iter_bytes(), name, kind, default)
        async for line in lines_of(texts, max_line, self._context()):
            yield line

    def close(self) -> None:
        """Discard the unread body. The connection is closed at once, unless 64 KiB or less is left.

        That rest is received, within a second, and the connection used again. A chunked body, and
        one that ends with the connection, do not tell how much is left.
        """
        if not self.raw.ended:
            abandon(self.raw)
        else:
            self.raw.close()

    def _context(self) -> str:
        # Only a response made by hand may have credentials in its URL.
        return f"{self.method} {cut_url(redact(self._sent_url()))}"

    def _sent_url(self) -> str:
        """Return the URL without its fragment, which was not sent and may hold a secret."""
        return self.url.partition("#")[0]

    def _unread_codings(self) -> Sequence[str]:
        """Return the codings of a stream; raise ``RuntimeError`` if it can no longer be read."""
        codings = self._codings
        if codings is None:
            raise RuntimeError(f"{self!r}: the stream can be iterated over once, and has been")
        if self.raw.closed:
            raise RuntimeError(
                f"{self!r}: the stream was closed before it was read, by the end of "
                "'async with client.stream()' or by close()"
            )
        return codings


def status_error(response: Response, why: str) -> StatusError:
    """Return the error of *response*, whose status is not what the caller needs."""
    error = StatusError(f"{response._context()}: {why}")
    error.status = response.status
    error.response = response
    # As other errors have them: see exceptions.describe.
    error.method, error.url = response.method, redact(response._sent_url())
    error.phase, error.elapsed = "received", response.timings.total
    error.peer = str(response.peername or "")
    error.attempts = response.attempts
    return error


async def keep_error_body(response: Response, *, decode: bool = False) -> None:
    """Read the body of *response*, a stream that ends in an error, so that ``content`` has it.

    At most ``ERROR_BODY`` bytes, and only those that arrive within ``ERROR_SECONDS``; no error of
    the body is raised. *decode*: remove content codings also if the request did not want that.
    """
    raw = response.raw
    codings = response._codings
    if response._content is not None or codings is None or raw.closed:
        return
    kept = bytearray()
    try:
        if decode:
            codings = codings_of(raw, response.url)
        options = response._options._replace(max_body=None)
        pieces = body_pieces(raw, codings, response.url, options)
        async with asyncio.timeout(ERROR_SECONDS):
            async for piece in pieces:
                kept += piece
                if len(kept) >= ERROR_BODY:
                    break
    except (HTTPException, OSError):
        pass
    response._content = bytes(kept[:ERROR_BODY])


_PICKLED = tuple(name for name in Response.__slots__ if name not in ("__weakref__", "raw"))

_new = object.__new__


def received(
    raw: HTTPResponse,
    url: str,
    content: bytes | None,
    began: float,
    request: bytes | Request,
    options: BodyOptions = DEFAULTS,
    codings: Sequence[str] = (),
    made: Response | None = None,
) -> Response:
    """Return the response that a client has received; *made* is filled in, or a new one.

    *content*: the decoded body, None for a stream; then *codings* are those of the stream.
    *began*: ``monotonic()`` when the call began. *request*: the head of the request, as it was
    sent.
    """
    response = _new(Response) if made is None else made
    raw.asked = began
    response.raw = raw
    response.status = raw.status
    response.url = url
    response.history = ()
    response.attempts = 1
    response.truncated = False
    response._content = content
    response._text = None
    response._encoding = None
    response._encoding_set = False
    response._options = options
    response._codings = codings
    response._request = request
    return response


def _restore(kind: type[Response], facts: Facts, state: dict[str, Any]) -> Response:
    """Return the response of a pickle."""
    response = _new(kind)
    response.raw = from_facts(facts)
    for name, value in state.items():
        setattr(response, name, value)
    return response
