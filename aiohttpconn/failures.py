"""Failures of exchanges: the exceptions, and the texts that describe them.

Pure functions; their callers read the clock. Layer: above response, below protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from .exceptions import (
    BadStatusLine,
    HeadTimeout,
    IncompleteBody,
    ReadTimeout,
    RemoteDisconnected,
    RequestTimeout,
    SSLError,
    TLSError,
    TotalTimeout,
    UnknownProtocol,
    WriteTimeout,
    describe,
    quote,
)
from .http11.response_head import check_status_line

if TYPE_CHECKING:
    from .response import HTTPResponse

__all__ = [
    "closed_here",
    "describe_exchange",
    "expired",
    "incomplete",
    "no_response",
    "stray_bytes",
]

E = TypeVar("E", bound=BaseException)

# Texts for http.client's exceptions whose own text is nothing but the peer's bytes.
_TEXTS: dict[type[BaseException], str] = {
    BadStatusLine: "not a status line: %s",
    UnknownProtocol: "unknown protocol: %s",
}

# A status line of which the end completes the beginning of any other.
_STATUS_LINE = b"HTTP/1.1 200 OK"

_EXPIRED: dict[str, tuple[type[RequestTimeout], str]] = {
    "head": (HeadTimeout, "no response"),
    "read": (ReadTimeout, "no response"),
    "write": (WriteTimeout, "the peer took no byte of the request"),
    "total": (TotalTimeout, "the exchange did not end"),
}


def no_response(exc: Exception | None, received: bytes | bytearray, interim: int) -> BaseException:
    """Return the exception for a connection that ended before the head, with or without *exc*.

    *received* is the part of the head that had arrived, *interim* the size of 1xx heads before it.
    """
    failure = _without_head(exc, received)
    # Also set on classes of the standard library, as describe() does with its attributes.
    failure.unanswered = not received and not interim  # type: ignore[attr-defined]
    return failure


def stray_bytes() -> RemoteDisconnected:
    """Return the exception for a reused connection with bytes that begin no response.

    They belong to the response before, so that this request has no answer. The text does not show
    them: how many there are depends on how they arrive.
    """
    failure = RemoteDisconnected("bytes behind the last response, and no response")
    failure.unanswered = True  # type: ignore[attr-defined]
    return failure


def _without_head(exc: Exception | None, received: bytes | bytearray) -> BaseException:
    if isinstance(exc, SSLError):
        return TLSError(f"the TLS connection failed: {exc}")
    if exc is not None:
        return ConnectionResetError(f"connection lost before a response: {exc}")
    if not received:
        return RemoteDisconnected("Remote end closed connection without response")
    got = bytes(received)
    if b"\n" not in got:
        start = got.removesuffix(b"\r")
        try:
            check_status_line(start + _STATUS_LINE[len(start) :] + b"\n")
        except (BadStatusLine, UnknownProtocol):
            # It is no beginning of a status line; as a whole line it tells what it is.
            try:
                check_status_line(got + b"\n")
            except (BadStatusLine, UnknownProtocol) as bad:
                return bad
    return RemoteDisconnected(
        f"Remote end closed connection in the middle of the response's head: {quote(got[-60:])}"
    )


def incomplete(response: HTTPResponse, text: str) -> IncompleteBody:
    """Return the exception for a body that ended too early."""
    expected = response.remaining
    if response.decoder is not None:
        expected = response.decoder.chunk_left or None
    exc = IncompleteBody(b"", expected)
    more = "" if expected is None else f", {expected} more expected"
    exc.text = f"IncompleteRead({response.received} bytes read{more}): {text}"
    return exc


def closed_here(response: HTTPResponse) -> BaseException:
    """Return the exception for a response that this program's own ``close()`` cut off."""
    if response.has_head:
        return incomplete(response, "the connection was closed by this program")
    return ConnectionAbortedError("the connection was closed by this program")


def expired(name: str, limit: float | None, in_body: bool) -> RequestTimeout:
    """Return the exception for the limit *name* of ``Timeout``, which was *limit* seconds."""
    kind, what = _EXPIRED[name]
    if name == "read" and in_body:
        what = "no byte of the body"
    return kind(f"{what} within {limit:g} s" if limit is not None else f"{what} in time")


def describe_exchange(
    exc: E, response: HTTPResponse, *, elapsed: float, request_sent: bool, reused: int, notes: str
) -> E:
    """Give *exc* the details of the exchange of *response*; see ``exceptions.describe``."""
    started = response.head is not None
    phase = "sending"
    if started:
        phase = "receiving the body"
    elif request_sent:
        phase = "waiting for the head"
    if reused:
        times = f"connection reused {reused} time{'' if reused == 1 else 's'}"
        notes = f"{notes}; {times}" if notes else times
    return describe(
        exc,
        _TEXTS.get(type(exc), "%s") % exc,
        method=response.method,
        url=response.url,
        phase=phase,
        elapsed=elapsed,
        peer=str(response.peername or ""),
        request_sent=request_sent,
        response_started=started,
        notes=notes,
    )
