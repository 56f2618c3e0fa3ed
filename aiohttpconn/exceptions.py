"""All exceptions that this package raises, and the function that makes their texts.

The type says who is to blame: the caller (``ImproperConnectionState``, ``ValueError``), the
server (the other ``HTTPException``), the network (``OSError``) or the clock (``TimeoutError``).
Names that ``http.client`` has are the standard library's own classes, so that
``except http.client.HTTPException`` keeps working.

    HTTPException                           http.client's
    ├── NotConnected
    ├── InvalidURL
    ├── UnknownProtocol
    ├── UnknownTransferEncoding
    ├── UnimplementedFileMode
    ├── IncompleteRead
    │   └── IncompleteBody                  the same, and its text names the request
    ├── ImproperConnectionState
    │   ├── CannotSendRequest
    │   ├── CannotSendHeader
    │   ├── ResponseNotReady
    │   └── PoolClosed                      a pool or client was used after close()
    ├── BadStatusLine
    │   └── RemoteDisconnected              also a ConnectionResetError
    │       └── NotProcessed                a pipelined request was not answered: safe to resend
    ├── LineTooLong
    │   └── HeadTooLarge                    a line or a whole head over its limit
    ├── MalformedResponse                   breaks RFC 9112 in a way that is refused
    ├── ContentDecodingError                the body does not decode as its Content-Encoding
    ├── BodyTooLarge                        the body is larger than ``max_body``
    ├── RedirectRefused                     a redirect that is not followed; ``location``
    │   └── TooManyRedirects                max_redirects, or a loop
    ├── StatusError                         raise_for_status(): 4xx and 5xx; ``response``
    └── BodyLengthError                     also a ValueError: the caller's Content-Length is wrong
    OSError
    ├── ConnectError                        no connection; ``errors``: every attempt's exception
    │   ├── ResolveError                    also a socket.gaierror
    │   ├── ConnectionRefused               also a ConnectionRefusedError
    │   ├── ConnectionVetoed                also a PermissionError: on_connect said no
    │   ├── TunnelError                     the proxy refused the tunnel
    │   └── TLSError                        also an ssl.SSLError
    │       └── CertificateError            also an ssl.SSLCertVerificationError
    └── TimeoutError
        └── RequestTimeout
            ├── PoolTimeout
            ├── ConnectTimeout
            ├── ReadTimeout
            │   └── HeadTimeout
            ├── WriteTimeout
            └── TotalTimeout

An exception that ends a connect or an exchange carries ``method``, ``url`` (credentials
stripped), ``phase``, ``elapsed`` (seconds), ``peer``, ``request_sent`` and
``response_started`` as attributes, and names them in its text; and ``attempts``, how often a
``Retry`` had the request sent. One that ends a connection before the response's head also has
``unanswered``: True if no byte of a response had arrived. All of them can be pickled.
Layer: the lowest; imports nothing of this package.
"""

from __future__ import annotations

import re
import socket
from http.client import (
    BadStatusLine,
    CannotSendHeader,
    CannotSendRequest,
    HTTPException,
    ImproperConnectionState,
    IncompleteRead,
    InvalidURL,
    LineTooLong,
    NotConnected,
    RemoteDisconnected,
    ResponseNotReady,
    UnimplementedFileMode,
    UnknownProtocol,
    UnknownTransferEncoding,
)
from typing import TYPE_CHECKING, Any, TypeVar

try:
    from ssl import SSLCertVerificationError
    from ssl import SSLError as SSLError
except ImportError:
    # A Python without ssl has everything but https. These stand for bases that nobody can catch.
    if not TYPE_CHECKING:

        class SSLError(OSError):
            """Stands for ``ssl.SSLError``."""

        class SSLCertVerificationError(SSLError, ValueError):
            """Stands for ``ssl.SSLCertVerificationError``."""


__all__ = [
    "BadStatusLine",
    "BodyLengthError",
    "BodyTooLarge",
    "CannotSendHeader",
    "CannotSendRequest",
    "CertificateError",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionRefused",
    "ConnectionVetoed",
    "ContentDecodingError",
    "HTTPException",
    "HeadTimeout",
    "HeadTooLarge",
    "ImproperConnectionState",
    "IncompleteBody",
    "IncompleteRead",
    "InvalidURL",
    "LineTooLong",
    "MalformedResponse",
    "NotConnected",
    "NotProcessed",
    "PoolClosed",
    "PoolTimeout",
    "ReadTimeout",
    "RedirectRefused",
    "RemoteDisconnected",
    "RequestTimeout",
    "ResolveError",
    "ResponseNotReady",
    "StatusError",
    "TLSError",
    "TooManyRedirects",
    "TotalTimeout",
    "TunnelError",
    "UnimplementedFileMode",
    "UnknownProtocol",
    "UnknownTransferEncoding",
    "WriteTimeout",
]

MAX_SHOWN = 100
"""Bytes of a peer's data that an error text quotes."""

E = TypeVar("E", bound=BaseException)


class IncompleteBody(IncompleteRead):
    """The body ended before its framing said so. ``partial`` holds the bytes that this read had.

    This mirrors ``http.client.IncompleteRead``; ``expected`` is the number of missing bytes, or
    None if the framing does not tell.
    """

    text = ""

    def __str__(self) -> str:
        return self.text or IncompleteRead.__repr__(self)

    __repr__ = __str__


class HeadTooLarge(LineTooLong):
    """A line of the response's head, or the whole head, is over its limit.

    This mirrors ``http.client.LineTooLong``, but takes a finished text, so that it can be pickled.
    """

    def __init__(self, text: str) -> None:
        HTTPException.__init__(self, text)


class MalformedResponse(HTTPException):
    """The response breaks RFC 9112 in a way that makes it unsafe to read on."""


class PoolClosed(ImproperConnectionState):
    """The pool, or the client, was closed: by its own ``close()``, or with the event loop."""


class ContentDecodingError(HTTPException):
    """The body does not decode as its Content-Encoding: it is broken, cut short, or a bomb.

    ``partial`` holds the bytes that this read had decoded before; ``truncated`` tells whether the
    body is cut short, and has no other fault.
    """

    partial = b""
    truncated = False


class BodyTooLarge(HTTPException):
    """The body, decoded, has more bytes than ``max_body`` allows."""


class RedirectRefused(HTTPException):
    """A redirect was not followed; the text says why.

    ``location``: the Location field, as it was received. ``response``: the response that has it,
    with the first 64 KiB of its body. ``history``: all responses of the call, this one the last.
    """

    location = ""
    response: Any = None
    history: list[Any] = []  # noqa: RUF012 - replaced, never changed

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, _without_stream(self.__dict__)


class TooManyRedirects(RedirectRefused):
    """More redirects than ``max_redirects``; ``history`` shows whether they form a loop."""


class StatusError(HTTPException):
    """A 4xx or 5xx response, from ``raise_for_status()``: ``status``, and the ``response``."""

    status = 0
    response: Any = None
    method = url = phase = peer = ""
    elapsed = 0.0
    request_sent = response_started = True
    attempts = 1

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, _without_stream(self.__dict__)


def _without_stream(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return *attributes*, without a response whose body was not read: it cannot be pickled."""
    try:
        attributes["response"].content  # noqa: B018 - raises for a stream
    except (KeyError, AttributeError, RuntimeError):
        return {name: value for name, value in attributes.items() if name != "response"}
    return attributes


class NotProcessed(RemoteDisconnected):
    """The connection ended before this pipelined request was processed: it is safe to resend."""

    unanswered = True


class BodyLengthError(HTTPException, ValueError):
    """The body has more or fewer bytes than the Content-Length that the caller gave."""


class ConnectError(OSError):
    """No connection could be made. ``errors`` holds the exception of every address tried."""

    errors: tuple[BaseException, ...] = ()

    phase = ""
    """The step of the connect that failed: dns, connect, proxy or tls."""

    hint = ""
    """A sentence that suggests what to try; "" if there is none."""

    def __init__(self, *args: object, hint: str = "") -> None:
        super().__init__(*args)
        if hint:
            self.hint = hint

    # ssl's classes have their own __str__; the pickle of an OSError leaves errno out.
    __str__ = OSError.__str__

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__, self.errno)


def _restore(
    kind: type[ConnectError], args: tuple[Any, ...], attributes: dict[str, Any], errno: int | None
) -> ConnectError:
    exc = kind(*args)
    exc.__dict__.update(attributes)
    exc.errno = errno
    return exc


class ResolveError(ConnectError, socket.gaierror):
    """The host's name could not be resolved; ``errno`` is getaddrinfo's."""


class ConnectionRefused(ConnectError, ConnectionRefusedError):
    """Every address of the host refused the connection."""


class ConnectionVetoed(ConnectError, PermissionError):
    """``on_connect`` refused every address that the host's name led to."""


class TLSError(ConnectError, SSLError):
    """The TLS handshake failed."""


class CertificateError(TLSError, SSLCertVerificationError):
    """The peer's certificate, or its host name, could not be verified."""


class TunnelError(ConnectError):
    """The proxy refused the tunnel.

    For CONNECT the text is http.client's: ``Tunnel connection failed: 407 …``.

    Attributes: ``status`` (int), ``reason`` (str), ``headers`` (a list of pairs) and ``body``
    (of the proxy's answer, without its framing: 64 KiB at most, and what came within 5 s).
    """

    status = 0
    reason = ""
    headers: list[tuple[str, str]] = []  # noqa: RUF012 - replaced, never changed
    body = b""


class RequestTimeout(TimeoutError):
    """A limit of ``Timeout`` passed. The subclass says which one.

    ``partial`` holds the bytes of the body that the read had, as with ``IncompleteRead``.
    """

    partial = b""


class PoolTimeout(RequestTimeout):
    """``Timeout.pool`` passed and no connection was free: the request was never sent."""


class ConnectTimeout(RequestTimeout):
    """``Timeout.connect`` passed: name lookup, TCP, proxy and TLS together."""


class ReadTimeout(RequestTimeout):
    """``Timeout.read`` passed while the caller waited, and no byte arrived."""


class HeadTimeout(ReadTimeout):
    """``Timeout.head`` passed and the response's head was not complete."""


class WriteTimeout(RequestTimeout):
    """``Timeout.write`` passed and the peer took no byte of the request."""


class TotalTimeout(RequestTimeout):
    """``Timeout.total`` passed before the response's last byte."""


_CREDENTIALS = re.compile(r"(?<=://)[^/?#]*@")


def redact(url: str) -> str:
    """Return *url*, or a path, without user name and password."""
    if "://" not in url and not url.startswith("/"):
        return hide_credentials(url)
    return _CREDENTIALS.sub("", url, count=1)


def hide_credentials(text: str) -> str:
    """Return a host or URL that is refused, without all before its last "@".

    Nobody knows where its password ends.
    """
    before, at, rest = text.rpartition("@")
    return f"***@{rest}" if at and before else text


def shown_refused(text: str) -> str:
    """Return a host or URL that is refused as an error text shows it: see ``hide_credentials``."""
    shown = hide_credentials(text)
    return repr(shown) if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]!r}..."


MAX_URL = 500
"""Characters of a URL that an error text shows: a redirect may lead to one of 256 KiB."""


def cut_url(url: str) -> str:
    """Return *url* as an error text shows it, cut to ``MAX_URL``."""
    return url if len(url) <= MAX_URL else f"{url[:MAX_URL]}..."


def quote(data: bytes | bytearray | memoryview) -> str:
    """Return a peer's bytes as an error text shows them: escaped, and cut to ``MAX_SHOWN``."""
    shown = repr(bytes(data[:MAX_SHOWN]))
    return shown if len(data) <= MAX_SHOWN else f"{shown}... ({len(data)} bytes)"


# C0 and C1 control characters: a terminal would obey them.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

MAX_TEXT = 300
"""Characters of an exception's own text that a description keeps: the peer wrote parts of it."""


def _shown(text: str) -> str:
    """Return *text* cut to ``MAX_TEXT``, control characters escaped."""
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]}... ({len(text)} characters)"
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def describe(
    exc: E,
    text: str = "",
    *,
    method: str = "",
    url: str = "",
    phase: str = "",
    elapsed: float = 0.0,
    peer: str = "",
    request_sent: bool = False,
    response_started: bool = False,
    notes: str = "",
    hint: str = "",
) -> E:
    """Give *exc* the request's attributes and a text that names them; return it.

    *text* defaults to the exception's own. The text shows only the beginning of a long *url*; the
    attribute has all of it. *notes* are shown after the phase, and *hint* is a sentence at the end.
    An exception that has a description keeps it.
    """
    if hasattr(exc, "request_sent"):
        return exc
    exc.method = method  # type: ignore[attr-defined]
    exc.url = url = redact(url)  # type: ignore[attr-defined]
    exc.phase = phase  # type: ignore[attr-defined]
    exc.elapsed = elapsed  # type: ignore[attr-defined]
    exc.peer = peer  # type: ignore[attr-defined]
    exc.request_sent = request_sent  # type: ignore[attr-defined]
    exc.response_started = response_started  # type: ignore[attr-defined]
    exc.attempts = 1  # type: ignore[attr-defined]
    where = f"{phase}, {elapsed * 1e3:.1f} ms" if elapsed < 1 else f"{phase}, {elapsed:.1f} s"
    if notes:
        where = f"{where}; {notes}"
    message = f"{method} {cut_url(url)}".strip()
    message = f"{message}: {_shown(text or str(exc))} ({where})"
    if hint:
        message = f"{message}. {hint}"
    if isinstance(exc, IncompleteBody):
        exc.text = message
    else:
        exc.args = (message,)
    return exc
