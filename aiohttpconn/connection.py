"""HTTPConnection, HTTPSConnection: http.client's API, awaited.

A connection reopens itself; the state of one transport is in ``HTTP1Protocol``. Here are
http.client's three sending states (idle, request started, request sent) with its errors, the
head and body of a request, and the ownership of the transport when a response closes it.

If a request is cancelled or fails between its first byte and the head of its response, the
connection is closed, so that it is never half used; the next request opens a new one.

Layer: the top of the core.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Container, Mapping
from http.client import HTTP_PORT, HTTPS_PORT
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn, Self, Unpack

from .arguments import CONTEXT, PATH, Checks, check_arguments
from .body import SMALL_BODY, Body, make_body
from .endpoint import ConnectionOptions, Endpoint
from .exceptions import (
    BodyLengthError,
    CannotSendHeader,
    CannotSendRequest,
    NotConnected,
    ResponseNotReady,
    describe,
)
from .failures import closed_here
from .http11.framing import body_framing
from .http11.grammar import ORIGIN_FORM, check_field
from .http11.request_head import check_single_fields, encode_fields, encode_request_line, host_field
from .http11.semantics import BODILESS_METHODS, BODY_METHODS, DECIDING, SINGLE
from .net.loops import has_ended
from .net.tls import check_server_name, default_context, read_fingerprint
from .protocol import BODY, CLOSED, IDLE, UPGRADED, HTTP1Protocol
from .types import exact
from .upload import prepare_request, send_part, send_request, start_request

if TYPE_CHECKING:
    import os
    import ssl

    from .net.destination import Destination
    from .net.tls import FingerprintLike
    from .response import HTTPResponse
    from .types import BodyLike, HeadersLike

__all__ = [
    "HTTPS_PORT",
    "HTTP_PORT",
    "HTTPConnection",
    "HTTPSConnection",
    "connection_to",
]

# http.client's states, under its names: they appear in the texts of its errors.
_IDLE = "Idle"
_STARTED = "Request-started"
_SENT = "Request-sent"

# What is missing if getresponse() finds no response to wait for.
_NOT_SENT = {
    _IDLE: "no request is under way; an 'await' in front of conn.request(...) may be missing",
    _STARTED: "the head was not sent; an 'await' in front of conn.endheaders() may be missing",
    _SENT: "the connection is closed",
}

_ANY_LENGTH = -1
"""``send`` takes chunks that the caller has made: only the caller knows where they end."""

# States in which a request may be written: nothing is on its way, or an earlier body is unread.
_READY = (IDLE, BODY)

# Fields that change which other fields are sent, or how.
_DECIDING = DECIDING | {"accept-encoding", "host"}

_match_origin_form = ORIGIN_FORM.fullmatch

# Methods of http.client.HTTPConnection that its subclasses override, to check more or less than it
# does, or to connect in another way. Nothing here calls them.
_NEVER_CALLED = frozenset(
    {"_create_connection", "_encode_request", "_get_content_length", "_is_textIO", "_output"}
    | {"_read_readable", "_send_output", "_send_request", "_tunnel", "_wrap_ipv6"}
    | {"_validate_host", "_validate_method", "_validate_path"}
)

_NO_HEADERS: Mapping[str, str] = {}
_NO_NAMES: dict[str, str] = {}

logger = logging.getLogger("aiohttpconn")


class HTTPConnection(Endpoint):
    """A connection to one HTTP server, opened on first use and again after it was lost.

    Mirrors ``http.client.HTTPConnection``: the same names, states and errors, with ``await``
    where there is I/O. One task uses a connection at a time: a second one that connects, sends or
    waits for the response meanwhile gets an error, and the first goes on.

    Arguments:
        host: a name or an address, with ``:port`` if *port* is None; IPv6 in brackets, zone ids
            allowed. ``InvalidURL`` for anything else.
        port: the TCP port; by default ``default_port``.
        timeout: seconds per operation, or a ``Timeout``; None waits for ever.
        source_address: ``(host, port)`` to connect from.
        blocksize: bytes read at once from a body that is a file; at least 1 MiB, or 256 KiB over
            TLS, from a regular file that is not sent in chunks.
        strict: refuse deviations from RFC 9112 in a response that are corrected otherwise: the
            table in docs/topics/framing.md has them.
        max_response_headers: field lines of a head; short for ``limits=Limits(max_fields=...)``.
        limits: bounds of a response's heads and framing, see ``Limits``.
        uds: the path of a Unix socket to connect to; *host* then only names the server.
        socket_options: arguments of ``setsockopt``, each (level, name, value).
        dialer: an async callable ``(protocol_factory, destination, report)`` that returns
            ``(transport, protocol)``; by default ``net.dial.dial``.
        high_water: unread bytes of a response at which reading pauses; over TLS up to 320 KiB
            that are already decrypted may come on top.
        continue_timeout: seconds that a body waits for ``100 Continue`` if the request has
            ``Expect: 100-continue``.
        on_informational: called with (status, headers) of each 1xx response; not async.
        proxy_context: for TLS to the proxy of ``set_tunnel``; None connects to it without TLS.
        resume_tls: resume TLS sessions of earlier connections of the same context to the same
            server, which saves sending the certificate; False makes each handshake a full one.
    """

    auto_open = 1
    _http_vsn = 11
    _http_vsn_str = "HTTP/1.1"

    __slots__ = (
        "_exchange",
        "_last_fields",
        "_last_headers",
        "_lines",
        "_method",
        "_names",
        "_response",
        "_sending",
        "_state",
        "_unsent",
        "_url",
    )

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if unused := sorted(_NEVER_CALLED & vars(cls).keys()):
            # A check that is never made would be taken for one that passes.
            raise TypeError(
                f"{cls.__name__} overrides {', '.join(unused)} of http.client, which nothing calls "
                "here: override request() and putrequest(), or give a dialer="
            )

    def _reset(self) -> None:
        # The headers of an earlier request, and the field lines that they were sent as.
        self._last_headers: tuple[tuple[str, str], ...] = ()
        self._last_fields: tuple[str, dict[str, str]] = "", _NO_NAMES

        # Per exchange
        self._state = _IDLE
        self._method = ""
        self._url = ""
        self._lines: list[str] = []
        self._names: dict[str, str] = {}
        # Bytes that send() may still send; None if no request waits for them.
        self._unsent: int | None = None
        # The exchange whose body a task is sending with send().
        self._sending: HTTPResponse | None = None
        # The response that getresponse() will return, and the last one that it returned, if unread.
        self._exchange: HTTPResponse | None = None
        self._response: HTTPResponse | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()
        await self.wait_closed()

    # ----------------------------------------------------------------------- connecting

    async def connect(self) -> None:
        """Connect, with tunnel and TLS if they are set; ``request`` does it by itself.

        Raises ``ConnectError`` (``ResolveError``, ``ConnectionRefused``, ``TLSError``,
        ``CertificateError``, ``TunnelError``), or ``ConnectTimeout``. If cancelled, it leaves
        nothing open. Mirrors ``http.client.HTTPConnection.connect``.
        """
        # A connect that the caller makes is not for the last request.
        self._check_alone()
        named = (self._method, self._url) if self._state is _STARTED else ("", "")
        await self._connect(None, *named)

    async def _opened(self, deadline: float | None) -> HTTP1Protocol:
        """Return the protocol of an open connection, opening one if ``auto_open`` says so."""
        protocol = self._protocol
        if protocol is None or protocol.state is CLOSED:
            if not self.auto_open:
                raise NotConnected()
            if deadline is None:
                await self.connect()
            else:
                await self._connect(deadline, self._method, self._url)
            protocol = self._protocol
            assert protocol is not None, "connect() returned without a connection"
        return protocol

    def close(self) -> None:
        """Close the connection and drop an unread response; the next request opens a new one.

        Does not wait: ``wait_closed`` does. Mirrors ``http.client.HTTPConnection.close``.
        """
        if self._debug and self.sock is not None:
            logger.debug("closing %r", self)
        unread = self._response, self._exchange
        self._reset()
        self._close_protocol()
        for response in unread:
            if response is not None:
                response.close()

    # ------------------------------------------------------------------------- requests

    async def request(
        self,
        method: str,
        url: str,
        body: BodyLike | None = None,
        headers: HeadersLike = _NO_HEADERS,
        *,
        encode_chunked: bool = False,
    ) -> None:
        """Send a request: the head and all of *body*. Mirrors http.client's ``request``.

        *url* is sent byte for byte ('' is '/'). *body*: str (as ISO-8859-1), bytes-like, a file, an
        iterable or async iterable of bytes, or an object with an async ``read(n)``.
        *headers*: a mapping or pairs; Host, Accept-Encoding, and Content-Length or
        Transfer-Encoding are added unless given. *encode_chunked* makes chunks even if
        Transfer-Encoding is given.

        If an answer other than 2xx arrives before the body is sent, sending stops without an
        error, and the connection closes after that response. Raises ``CannotSendRequest`` while
        another request is unanswered; ``ValueError``, ``InvalidURL``, ``TypeError`` or
        ``UnicodeEncodeError`` for a request that may not be sent, before a byte leaves;
        ``BodyLengthError``; ``OSError`` and ``RequestTimeout`` from connecting and sending.
        Hot: see docs/topics/design.md.
        """
        if self._state is not _IDLE:
            raise CannotSendRequest(self._state)
        if not headers:
            fields, names = "", _NO_NAMES
        elif type(headers) is dict and tuple(headers.items()) == self._last_headers:
            fields, names = self._last_fields
        else:
            fields, names = self._encode_headers(headers)
        if (
            body is not None
            or method not in BODILESS_METHODS
            or _match_origin_form(url) is None
            or type(method) is not str
            or type(url) is not str
            or (names and not _DECIDING.isdisjoint(names))
        ):
            if (
                type(body) is not bytes
                or method not in BODY_METHODS
                or len(body) > SMALL_BODY
                or _match_origin_form(url) is None
                or type(method) is not str
                or type(url) is not str
                or (names and not _DECIDING.isdisjoint(names))
            ):
                await self._request(exact(method), exact(url), body, fields, names, encode_chunked)
                return
            fields = f"Content-Length: {len(body)}\r\n{fields}"
        rest = self._plain_rest or self._make_plain_rest()
        data = f"{method} {url}{rest}{fields}\r\n".encode("latin-1")
        if body:
            data += body
        protocol = self._protocol
        # The running loop is not compared here: on Python 3.11 to ask for it is a system call.
        if (
            protocol is None
            or protocol.state not in _READY
            or self._timeout.total is not None
            or (protocol.exchanges and protocol.state is IDLE and self._look(0))
        ):
            await self._begin(method, url, data, names)
            return
        sys.audit("http.client.send", self, data)
        if self.debuglevel > 0:
            print("send:", repr(data))
        try:
            self._exchange = protocol.start(method, url, data, True)
            self._state = _SENT
        except BaseException:
            self._abort()
            raise

    async def _request(
        self,
        method: str,
        url: str,
        body: Any,
        fields: str,
        names: Mapping[str, str],
        encode_chunked: bool,
    ) -> None:
        """Send a request with a body, with fields that decide how it is sent, or an unusual URL."""
        made = None if body is None else make_body(body, self.blocksize)
        may_chunk = self._http_vsn == 11
        chunked, length, auto = body_framing(method, made, names, encode_chunked, may_chunk)
        head = f"{self._start_lines(method, url, names)}{auto}{fields}\r\n".encode("latin-1")
        await self._begin(method, url or "/", head, names, made, chunked, length)

    def _encode_headers(self, headers: HeadersLike) -> tuple[str, dict[str, str]]:
        """Return the result of ``encode_fields``, kept: the next request may have the same."""
        encoded = encode_fields(headers)
        # With python -b, comparing bytes with str is an error.
        if type(headers) is dict and not sys.flags.bytes_warning:
            items = tuple(headers.items())
            for name, value in items:
                # 1 == True, but they are sent as different values.
                if type(name) is not str or type(value) is not str:
                    return encoded
            self._last_headers, self._last_fields = items, encoded
        return encoded

    def _make_plain_rest(self) -> str:
        self._plain_rest = self._start_lines("GET", "/", {}).partition("/")[2]
        return self._plain_rest

    def _start_lines(
        self,
        method: str,
        url: str,
        names: Container[str],
        skip_host: bool = False,
        skip_accept_encoding: bool = False,
    ) -> str:
        """Return the request line and the fields that http.client adds by itself."""
        line = f"{encode_request_line(method, url or '/')} {self._http_vsn_str}\r\n"
        if self._http_vsn != 11:
            return line
        if not skip_host and "host" not in names:
            tunnel = self._tunnel
            host, port = (self.host, self.port) if tunnel is None else (tunnel.host, tunnel.port)
            line += f"Host: {host_field(url, host, port, self.default_port)}\r\n"
        if not skip_accept_encoding and "accept-encoding" not in names:
            line += "Accept-Encoding: identity\r\n"
        return line

    async def _begin(
        self,
        method: str,
        url: str,
        head: bytes,
        names: Mapping[str, str],
        body: Body | None = None,
        chunked: bool = False,
        length: int | None = None,
        more: bool = False,
        deadline: float | None = None,
    ) -> None:
        """Send *head* and *body* on an open connection; on any failure, close it."""
        # Not within the try below, which closes: the new protocol, the other loop or task goes on.
        self._check_alone()
        protocol = self._protocol
        if protocol is not None:
            if protocol.state is UPGRADED:
                raise CannotSendRequest("Upgraded")
            if protocol.loop is not asyncio.get_running_loop() and not has_ended(protocol.loop):
                raise RuntimeError(
                    "this connection belongs to another event loop: make one for each"
                )
        self._method, self._url = method, url
        self._state = _STARTED
        closes = self._closes
        total = self._timeout.total
        if total is not None and deadline is None:
            deadline = asyncio.get_running_loop().time() + total
        try:
            request = prepare_request(method, url, head, names, body, chunked, length)
            report = None
            if protocol is not None and (
                has_ended(protocol.loop)
                or (protocol.exchanges and protocol.state is IDLE and self._look(0))
            ):
                # No request asked for what can be read, and the loop has had no turn to see it.
                protocol.abort()
            if protocol is None or protocol.state not in _READY:
                protocol = await self._opened(deadline)
                if protocol.state is CLOSED and self.auto_open:
                    # The server has closed it already, and nothing was sent.
                    protocol = await self._opened(deadline)
                report = self._dial_report
            self._observe(request.head)
            exchange = self._exchange = start_request(protocol, request, deadline, more)
            exchange.dialed = report
            if request.body is not None:
                await send_request(
                    protocol, exchange, request, self._continue_timeout, self._observe
                )
                # The connection may have broken during the request, without an answer.
                exchange.raise_failure()
                if exchange.closed:
                    # close() was called while the body was sent, after an early head.
                    raise protocol.describe(closed_here(exchange), exchange)
        except BaseException as exc:
            if self._closes == closes:
                self._give_up(exc)
            raise
        if self._exchange is exchange:
            self._state = _SENT

    def _observe(self, data: Any) -> None:
        """Report sent *data* to the audit hooks, and print it as http.client's debug level does."""
        sys.audit("http.client.send", self, data)
        if self.debuglevel > 0:
            print("send:", repr(bytes(data) if isinstance(data, memoryview) else data))

    def _abort(self) -> None:
        """Close at once, even during an exchange. Never waits: cancelled tasks call it."""
        protocol = self._protocol
        if protocol is not None:
            protocol.abort()
        # The response before has another exchange: what has arrived of it stays readable.
        self._response = None
        self.close()

    def _give_up(self, exc: BaseException) -> None:
        """Close because of *exc*; if it is our own, let it name the request."""
        if isinstance(exc, BodyLengthError):
            if self._exchange is not None and self._protocol is not None:
                self._protocol.describe(exc, self._exchange)
            else:
                url = f"{self._origin()}{self._url}" if self._url[:1] == "/" else self._url
                describe(exc, method=self._method, url=url, phase="preparing")
        self._abort()

    # ------------------------------------------------------------ requests step by step

    def putrequest(
        self, method: str, url: str, skip_host: bool = False, skip_accept_encoding: bool = False
    ) -> None:
        """Begin a request. Mirrors ``http.client.HTTPConnection.putrequest``.

        *skip_host* and *skip_accept_encoding* leave those fields to ``putheader``. Raises
        ``CannotSendRequest`` unless idle, and ``ValueError``, ``InvalidURL`` or
        ``UnicodeEncodeError`` for a method or URL that may not be sent.
        """
        if self._state is not _IDLE:
            raise CannotSendRequest(self._state)
        method, url = exact(method), exact(url)
        line = self._start_lines(method, url, {}, skip_host, skip_accept_encoding)
        self._state = _STARTED
        self._method, self._url = method, url or "/"
        self._lines = [line]
        self._names = {} if skip_host or self._http_vsn != 11 else {"host": ""}

    def putheader(self, header: str | bytes, *values: str | bytes | int) -> None:
        """Add a field; several *values* are joined by ``, ``. Mirrors http.client's.

        Raises ``CannotSendHeader`` outside of a request, ``ValueError`` for an invalid field.
        """
        if self._state is not _STARTED or not self._lines:
            raise CannotSendHeader(*self._why_no_header())
        parts = [check_field(header, value) for value in values]
        if not parts:
            raise TypeError(f"putheader({header!r}) needs at least one value")
        name = parts[0][0]
        value = ", ".join(part[1] for part in parts)
        lower = name.lower()
        if lower in SINGLE and lower in self._names:
            raise ValueError(f"{name} is given twice")
        check_single_fields({**self._names, lower: value})
        before = self._names.get(lower)
        self._names[lower] = value if not before else f"{before}, {value}"
        self._lines.append(f"{name}: {value}\r\n")

    def _why_no_header(self) -> tuple[str, ...]:
        """Return the text of a ``CannotSendHeader``; http.client's has none."""
        return ("the request is being sent by another task",) if self._state is _STARTED else ()

    async def endheaders(
        self, message_body: BodyLike | None = None, *, encode_chunked: bool = False
    ) -> None:
        """Send the head and *message_body*, in one write if that is bytes-like and small.

        Without *message_body*, ``send`` may follow. Raises the errors of ``request``, and
        ``CannotSendHeader`` outside of a request. Mirrors http.client's ``endheaders``.
        """
        if self._state is not _STARTED or not self._lines:
            raise CannotSendHeader(*self._why_no_header())
        head = ("".join(self._lines) + "\r\n").encode("latin-1")
        names, self._lines, self._names = self._names, [], {}
        try:
            made = None if message_body is None else make_body(message_body, self.blocksize)
        except BaseException:
            self.close()
            raise
        length = int(names["content-length"]) if "content-length" in names else None
        chunked = encode_chunked and made is not None and self._http_vsn == 11
        more = made is None
        announced = None if more else length
        await self._begin(self._method, self._url, head, names, made, chunked, announced, more)
        protocol = self._protocol
        if more and protocol is not None:
            self._unsent = _ANY_LENGTH if "transfer-encoding" in names else length or 0
            if not self._unsent and protocol.upload is not None:
                protocol.upload.end()

    async def send(self, data: BodyLike) -> None:
        """Send *data*, a part of the body, unchanged: bytes-like, an iterable of such, or a file.

        After an answer that makes the body pointless, *data* is dropped; ``getresponse`` returns
        that answer. Raises ``BodyLengthError`` for more than Content-Length announced,
        ``CannotSendRequest`` before ``endheaders``, and while another task sends. Mirrors
        ``http.client.HTTPConnection.send``.
        """
        protocol, unsent, exchange = self._protocol, self._unsent, self._exchange
        if self._state is not _SENT or unsent is None:
            raise CannotSendRequest(self._state)
        if self._sending is exchange:
            raise CannotSendRequest(f"{self._state}: another task is sending the body")
        upload = protocol.upload if protocol is not None else None
        if upload is None or not upload.wanted:
            return
        self._sending = exchange
        try:
            body = make_body(data, self.blocksize)
            limit = None if unsent == _ANY_LENGTH else unsent
            sent = await send_part(upload, body, limit=limit, on_block=self._observe)
            if exchange is not None and self._exchange is exchange:  # no other task has ended it
                exchange.sent_at = monotonic()
                if limit is not None:
                    self._unsent = unsent - sent
                    if not self._unsent:
                        upload.end()
        except BaseException as exc:
            if self._exchange is exchange:
                self._give_up(exc)
            raise
        finally:
            if self._sending is exchange:
                self._sending = None

    # ------------------------------------------------------------------------ responses

    async def getresponse(self) -> HTTPResponse:
        """Return the response of the request that was sent, as soon as its head has arrived.

        Raises ``ResponseNotReady`` without a request, while an earlier response is unread, or while
        another task waits for this one; ``RemoteDisconnected``, ``BadStatusLine``,
        ``UnknownProtocol``, ``LineTooLong`` and other ``HTTPException`` if something else came;
        ``RequestTimeout``. On any of these, and when cancelled, the connection is closed.
        Mirrors ``http.client.HTTPConnection.getresponse``.
        Hot: see docs/topics/design.md.
        """
        previous = self._response
        if previous is not None:
            if not previous.closed and (previous.buffered or not previous.ended):
                raise ResponseNotReady(f"{self._state}: the response before it is unread")
            self._response = None
        response = self._exchange
        protocol = self._protocol
        if response is None or protocol is None:
            raise ResponseNotReady(f"{self._state}: {_NOT_SENT[self._state]}")
        if response.head_waiter is not None:
            raise ResponseNotReady(f"{self._state}: another task waits for this response")
        if self._unsent:
            self._check_sent(protocol, response)
        if response.head is None and not response.ended:
            waiter = response.head_waiter = protocol.loop.create_future()
            timed = protocol.timed  # timeout= may be set meanwhile
            try:
                if timed:
                    protocol.begin_wait(response)
                await waiter
            except BaseException:
                if self._protocol is protocol:
                    self._abort()
                raise
            if timed:
                protocol.end_wait(response)
            if self._exchange is not response and response.head is not None:
                # close() in another task, after the head had come: no body is left to read.
                raise protocol.describe(closed_here(response), response)
        if response.head is None:
            if self._protocol is protocol:
                self._abort()
                lost = protocol.lost_request(response)
                if lost is not None and self.auto_open:
                    return await self._send_again(response, lost)
            response.raise_failure()
            raise AssertionError("a response ends with a head or with an exception")
        self._exchange = None
        self._unsent = None
        self._state = _IDLE
        if self.debuglevel > 0:
            response.debuglevel = self.debuglevel
            response.debug_head()
        upload = protocol.upload
        if (
            response.will_close or (upload is not None and upload.open)
        ) and protocol.state is not UPGRADED:
            # The transport is the response's now; the next request opens another, also if it
            # would land in the middle of this one's body.
            self._protocol = None
            self._closing = protocol
            if not response.ended:
                protocol.release_to_response()
        elif response.buffered or not response.ended:
            self._response = response
        return response

    async def _send_again(self, failed: HTTPResponse, data: bytes) -> HTTPResponse:
        """Send *data*, the whole request of *failed*, on a new connection; return its response."""
        fields = ("connection", "close", failed.last), ("upgrade", "", failed.upgrade)
        names = {name: value for name, value, given in fields if given}
        await self._begin(failed.method, failed.target, data, names, deadline=failed.deadline)
        return await self.getresponse()

    def _check_sent(self, protocol: HTTP1Protocol, response: HTTPResponse) -> None:
        """End a request made step by step; raise ``BodyLengthError`` if its body is too short."""
        upload = protocol.upload
        if self._sending is response or response.has_head or upload is None or not upload.open:
            return
        if self._unsent == _ANY_LENGTH:
            upload.end()
            return
        exc = BodyLengthError(f"Content-Length announces {self._unsent} bytes that were not sent")
        self._give_up(exc)
        raise exc

    def detach(self) -> tuple[asyncio.Transport, bytes]:
        """Give away the transport after 101 or 2xx to CONNECT, and the bytes after the head.

        HTTP has ended on it. Reading is paused: call ``set_protocol`` on it, process the bytes,
        then ``resume_reading``. Raises ``NotConnected``, ``HTTPException`` if it has not.
        """
        protocol = self._protocol
        if protocol is None:
            raise NotConnected()
        detached = protocol.detach()
        self._protocol = None
        return detached

    # ----------------------------------------------------------------------- for a pool

    def hand_over(self) -> tuple[HTTP1Protocol | None, list[HTTP1Protocol]]:
        """End a lease: close for good, but keep a protocol that may serve another exchange.

        Returns that protocol, or None, and those whose sockets may still be closing. It need not
        be the one that ``adopt`` was given: the user may have closed that and opened another.
        """
        protocol, given = self._protocol, self._closing
        clean = self._state is _IDLE and self._exchange is None and self._sending is None
        kept = protocol if protocol is not None and clean and protocol.reusable() else None
        if kept is not None:
            self._protocol = None
        elif given is not None:
            # A response has it, and nobody reads that response any more.
            given.abort()
        self.close()
        self._dialer = _lend_no_more
        left = [each for each in (given, self._closing) if each is not None and each is not kept]
        return kept, left


async def _lend_no_more(*_: object) -> NoReturn:
    raise NotConnected("the pool that lent this connection has taken it back")


_CHECKS: Checks = {"context": CONTEXT, "server_hostname": check_server_name, "cafile": PATH}


class HTTPSConnection(HTTPConnection):
    """A connection to an HTTPS server. Mirrors ``http.client.HTTPSConnection`` of Python 3.12.

    All arguments after *port* are keyword-only. Beyond those of ``HTTPConnection``:
        context: an ``ssl.SSLContext``; by default one that verifies certificate and host name,
            made once and shared.
        server_hostname: the name to ask the server for, and to verify, instead of *host*.
        cafile: a PEM file of the authorities to trust instead of the system's.
        fingerprint: the SHA-256 that the server's certificate must have, beside all that *context*
            verifies: hexadecimal, with or without colons, or 32 bytes. ``CertificateError`` if it
            has another, before a byte of a request is sent.
    """

    default_port = HTTPS_PORT
    _scheme = "https"
    __slots__ = ("_cafile",)

    def __init__(
        self,
        host: str,
        port: int | None = None,
        *,
        context: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        cafile: str | os.PathLike[str] | None = None,
        fingerprint: FingerprintLike | None = None,
        **options: Unpack[ConnectionOptions],
    ) -> None:
        check_arguments(_CHECKS, locals())
        super().__init__(host, port, **options)
        if context is not None and cafile is not None:
            raise ValueError("cafile= makes a context: give it, or context=, not both")
        self._context = context
        self._server_hostname = server_hostname
        self._cafile = cafile
        self._fingerprint = read_fingerprint(fingerprint)

    @property
    def session_reused(self) -> bool | None:
        """Whether TLS to the server resumed an earlier session; None while not connected.

        Mirrors ``ssl.SSLSocket.session_reused`` of http.client's ``sock``.
        """
        protocol = self._protocol
        if protocol is None or protocol.state is CLOSED:
            return None
        reused = getattr(protocol.get_extra_info("ssl_object"), "session_reused", None)
        return None if reused is None else bool(reused)

    async def _destination(self) -> Destination:
        if self._context is None:
            self._context = await default_context(self._cafile)
        return await super()._destination()


def connection_to(destination: Destination, **options: Any) -> HTTPConnection:
    """Return a connection that leads to *destination*, not connected yet.

    *options* are other arguments of ``HTTPConnection``.
    """
    kind: type[HTTPConnection] = HTTPConnection
    if destination.context is not None:
        kind = HTTPSConnection
        options["context"] = destination.context
        options["server_hostname"] = destination.server_hostname
        options["fingerprint"] = destination.fingerprint
    conn = kind(
        destination.host,
        destination.port,
        source_address=destination.source_address,
        uds=destination.uds,
        socket_options=destination.socket_options,
        resume_tls=destination.resume_tls,
        proxy_context=destination.proxy_context,
        **options,
    )
    conn.lead_through(destination.tunnel)
    return conn
