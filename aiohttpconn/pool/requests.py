"""One request and its response on a connection of a pool, up to the response's head.

``exchange`` sends nearly all requests: in one write, on a connection of their own.
``exchange_shared`` does the same on a connection that others use at the same time.
``exchange_streamed`` sends a body in several writes. The connection goes back to the pool by
itself, at the response's last byte, and is closed when the response is. If a reused connection
ends without a byte of an answer, the request is sent once more on a new one.

Layer: pool.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from ..body import BLOCKSIZE, Body, make_body
from ..exceptions import BodyLengthError, NotProcessed, describe
from ..failures import expired
from ..http11.framing import body_framing
from ..http11.request_head import encode_request_line
from ..http11.semantics import BODY_METHODS, IDEMPOTENT
from ..protocol import CLOSED, HTTP1Protocol
from ..upload import (
    CONTINUE_TIMEOUT,
    OutgoingRequest,
    prepare_request,
    send_request,
    start_request,
)
from .keepalive import LOOK_AFTER

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Mapping

    from ..net.destination import DialReport
    from ..net.timeouts import Timeout
    from ..response import HTTPResponse
    from .connections import ConnectionManager
    from .scheduler import OriginPool, PooledConnection

__all__ = [
    "ADDED",
    "KEEP_ALIVE",
    "SendOptions",
    "abandon",
    "encode_small_request",
    "exchange",
    "exchange_shared",
    "exchange_streamed",
    "prepare",
]

KEEP_ALIVE = "Connection: keep-alive\r\n"
"""Redundant in HTTP/1.1, but Apache sends its Keep-Alive limits only to clients that send it."""

ADDED = frozenset({"accept-encoding", "connection"})
"""Fields that a head gets unless the request has them, or was told to leave them out."""

DISCARD_BYTES = 64 * 1024
"""Bytes of an abandoned body that are received to keep the connection. More, or a rest whose size
nobody knows, closes it at once."""

MAX_SHARED_SENDS = 4
"""Times that a request is sent on shared connections that end before it is processed. The next
connection is its own."""


class SendOptions(NamedTuple):
    """Options for sending a request, the same for most requests of a client.

    *deadline*: the time by which the request must have ended, on the loop's clock. *resend*:
    whether it is sent again after a stale connection has lost it.
    """

    timeout: Timeout
    deadline: float | None = None
    resend: bool = True


# ---------------------------------------------------------------------------- one write


async def exchange(
    pool: ConnectionManager,
    origin: OriginPool,
    method: str,
    target: str,
    data: bytes,
    send: SendOptions,
    fresh: bool = False,
    remake: Callable[[], Awaitable[bytes]] | None = None,
) -> HTTPResponse:
    """Send *data*, a whole request; return its response, whose head has arrived.

    Hot: see docs/topics/design.md. There is no await from ``acquire_nowait`` to ``start`` that is
    not needed, and no call outside the ``try`` while the connection is the request's alone. The
    connection of a task that is cancelled is closed, and its place free, before the task runs on.
    *fresh* makes a new connection. *remake* makes *data* anew for a resend, if
    the same bytes must not be sent twice.
    """
    lost = False
    while True:
        connection = origin.acquire_nowait()
        asked = None
        if connection is None:
            asked = monotonic()
            connection = await pool.acquire(origin, send.timeout, send.deadline, method, target)
        response = None
        try:
            dialed = None
            if connection.transport is not None:
                if fresh:
                    connection = pool.reset(connection)
                elif (
                    # Before a request that must not be sent twice it is always checked.
                    connection.may_hold_more
                    or monotonic() - connection.idle_since > LOOK_AFTER
                    or method not in IDEMPOTENT
                ) and pool.is_stale(connection):
                    connection = pool.replace(connection)
            if connection.transport is None:
                dialed = await pool.open(
                    connection, send.timeout, send.deadline, method, target, lost
                )
                if connection.state is CLOSED:
                    lost = True
                    continue
            if connection.timeout is not send.timeout:
                connection.set_timeout(send.timeout)
            response = connection.start(method, origin.prefix + target, data, True)
            response.dialed = dialed
            if asked is not None:
                response.asked = asked
            waiter = response.head_waiter = connection.loop.create_future()
            if connection.timed:
                connection.begin_head_wait(response)
                if send.deadline is not None:
                    connection.arm_total(response, send.deadline)
            await waiter
            if response.head is not None:
                if pool.respects_retry_after:
                    pool.pause_on_retry_after(origin, response)
                return response
        except BaseException:
            if response is None:
                pool.give_up(connection)
            else:
                # Aborts the connection, unless the answer is complete: it serves others by now.
                response.close()
            raise
        if not _may_resend(response.failure, method, dialed, send, fresh):
            response.raise_failure()
            raise AssertionError("a response ends with a head or with an exception")
        if remake is not None:
            data = await remake()
        fresh = True


def encode_small_request(
    origin: OriginPool,
    method: str,
    target: str,
    names: Mapping[str, str],
    fields: str,
    body: bytes | None,
) -> bytes:
    """Return a whole request, for one write. *fields* and *names* come from ``encode_fields``.

    Raises ``ValueError`` and ``InvalidURL`` for a request that may not be sent.
    """
    if method == "TRACE" and body is not None:
        raise ValueError(
            f"TRACE {origin.url}{target}: a TRACE request must not have a body (RFC 9110 §9.3.8)"
        )
    framing = ""
    if body is not None:
        framing = f"Content-Length: {len(body)}\r\n"
    elif method in BODY_METHODS:
        framing = "Content-Length: 0\r\n"
    head = _encode_head(origin, method, target, names, fields, framing)
    return head + body if body else head


def _encode_head(
    origin: OriginPool,
    method: str,
    target: str,
    names: Mapping[str, str],
    fields: str,
    framing: str,
) -> bytes:
    line = encode_request_line(method, f"{origin.prefix}{target}")
    host = "" if "host" in names else f"Host: {origin.authority}\r\n"
    keep = "" if "connection" in names else KEEP_ALIVE
    coding = "" if "accept-encoding" in names else "Accept-Encoding: identity\r\n"
    own = f"{host}{keep}{coding}{origin.proxy_authorization}{framing}"
    return f"{line} HTTP/1.1\r\n{own}{fields}\r\n".encode("latin-1")


# ------------------------------------------------ one write, one connection for several


async def exchange_shared(
    pool: ConnectionManager,
    origin: OriginPool,
    method: str,
    target: str,
    data: bytes,
    send: SendOptions,
    remake: Callable[[], Awaitable[bytes]] | None = None,
) -> HTTPResponse:
    """Send *data* as ``exchange`` does, on a connection that others may use at the same time.

    Hot: see docs/topics/design.md. A request that is cancelled leaves the connection to the
    others: its response is dropped when it comes. A request that is unanswered when its
    connection ends is sent on another.
    """
    sends = 0
    lost = False
    while sends < MAX_SHARED_SENDS:
        connection = origin.acquire_shared_nowait()
        asked = None
        if connection is None:
            asked = monotonic()
            connection = await pool.acquire(
                origin, send.timeout, send.deadline, method, target, exclusive=False
            )
        response = timer = None
        try:
            dialed = None
            if connection.in_flight == 1:
                # The first of the requests that will share it.
                if (
                    connection.transport is not None
                    and (
                        connection.may_hold_more or monotonic() - connection.idle_since > LOOK_AFTER
                    )
                    and pool.is_stale(connection)
                ):
                    connection = pool.replace(connection)
                if connection.transport is None:
                    dialed = await pool.open(
                        connection, send.timeout, send.deadline, method, target, lost
                    )
                    if connection.state is CLOSED:
                        lost = True
                        continue
                if connection.timeout is not send.timeout:
                    connection.set_timeout(send.timeout)
                pool.share(connection)
            response = connection.start(method, origin.prefix + target, data, True)
            response.dialed = dialed
            if asked is not None:
                response.asked = asked
            waiter = response.head_waiter = connection.loop.create_future()
            if connection.timed:
                connection.begin_head_wait(response)
                if send.deadline is not None:
                    # A timer of its own: the connection's is for the exchange being received.
                    timer = connection.loop.call_at(
                        send.deadline, _late, waiter, connection, response, send.timeout.total
                    )
            await waiter
            if response.head is not None:
                if send.deadline is not None and not response.ended:
                    connection.arm_total(response, send.deadline)
                if pool.respects_retry_after:
                    pool.pause_on_retry_after(origin, response)
                return response
        except BaseException:
            if response is None:
                pool.give_up(connection)
            else:
                abandon(response)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if not isinstance(response.failure, NotProcessed):
            # On a new connection that others shared it is one of those that were not answered.
            alone = dialed if connection.exchanges == response.number else None
            if not _may_resend(response.failure, method, alone, send):
                response.raise_failure()
                raise AssertionError("a response ends with a head or with an exception")
            sends = MAX_SHARED_SENDS
        sends += 1
        if remake is not None:
            data = await remake()
    return await exchange(pool, origin, method, target, data, send, fresh=True, remake=remake)


def _late(
    waiter: asyncio.Future[None],
    protocol: HTTP1Protocol,
    response: HTTPResponse,
    total: float | None,
) -> None:
    """Fail a request on a shared connection: its total time has passed."""
    if not waiter.done():
        exc = expired("total", total, False)
        waiter.set_exception(protocol.describe(exc, response, notes=f"total={total:g}"))


# ----------------------------------------------------------------------- several writes


def prepare(
    origin: OriginPool,
    method: str,
    target: str,
    names: Mapping[str, str],
    fields: str,
    body: Any,
    length: int | None = None,
) -> OutgoingRequest:
    """Return the request that ``exchange_streamed`` sends, with its framing decided.

    *body* is one of ``HTTPConnection.request``, or a ``Body``; *length* is its size in bytes, if
    the caller knows it. *fields* and *names* come from ``encode_fields``. A Transfer-Encoding among
    them must be ``chunked``, and the body is then sent so. Raises ``ValueError``, ``InvalidURL``,
    ``TypeError`` and ``BodyLengthError`` for a request that may not be sent.
    """
    made = body if body is None or type(body) is Body else make_body(body, BLOCKSIZE)
    if made is not None and made.length is None:
        made.length = length
    try:
        coding = names.get("transfer-encoding")
        if coding is not None and coding.strip(" \t").lower() != "chunked":
            # RFC 9112 §6.3: after this field a server parses chunks, and takes anything else for
            # the next request.
            raise ValueError(
                "a request's Transfer-Encoding must be 'chunked' alone, which sends the body in "
                f"chunks, got {coding!r}"
            )
        chunked, length, framing = body_framing(method, made, names, True, True)
    except ValueError as exc:
        raise ValueError(f"{method} {origin.url}{target}: {exc}") from None
    head = _encode_head(origin, method, target, names, fields, framing)
    try:
        return prepare_request(method, origin.prefix + target, head, names, made, chunked, length)
    except BodyLengthError as exc:
        raise describe(exc, method=method, url=f"{origin.url}{target}", phase="preparing") from None


async def exchange_streamed(
    pool: ConnectionManager,
    origin: OriginPool,
    method: str,
    target: str,
    request: OutgoingRequest,
    send: SendOptions,
    replay: Callable[[], OutgoingRequest | Awaitable[OutgoingRequest]] | None = None,
) -> HTTPResponse:
    """Send *request*; return its response, whose head has arrived.

    *replay* makes *request* again, with its body from the start, for a resend; None if that is not
    possible.
    """
    fresh = False
    while True:
        asked = monotonic()
        connection, dialed = await pool.connected(
            origin, send.timeout, send.deadline, method, target, fresh=fresh
        )
        response = await _exchange_alone(pool, connection, request, send)
        if response.head is not None:
            response.dialed = dialed
            response.asked = asked
            if pool.respects_retry_after:
                pool.pause_on_retry_after(origin, response)
            return response
        can_replay = request.body is None or replay is not None
        if not (can_replay and _may_resend(response.failure, method, dialed, send, fresh)):
            response.raise_failure()
            raise AssertionError("a response ends with a head or with an exception")
        if replay is not None:
            again = replay()
            request = again if isinstance(again, OutgoingRequest) else await again
        fresh = True


async def _exchange_alone(
    pool: ConnectionManager,
    connection: PooledConnection,
    request: OutgoingRequest,
    send: SendOptions,
) -> HTTPResponse:
    """Send *request* on a connection of its own; return its response.

    Returns after the response's head, or after the failure that came instead.
    """
    try:
        # The pool must not have it before the body is sent: an answer may be complete earlier.
        pool.take_over(connection)
        if connection.timeout is not send.timeout:
            connection.set_timeout(send.timeout)
        response = start_request(connection, request, send.deadline)
        try:
            await send_request(connection, response, request, CONTINUE_TIMEOUT, None)
            if response.head is None and not response.ended:
                waiter = response.head_waiter = connection.loop.create_future()
                if connection.timed:
                    connection.begin_wait(response)
                await waiter
                if connection.timed:
                    connection.end_wait(response)
        except BaseException as exc:
            if isinstance(exc, BodyLengthError):
                connection.describe(exc, response)
            response.close()
            raise
    except BaseException:
        pool.give_up(connection)
        raise
    pool.release(connection)
    return response


# ----------------------------------------------------------------------------- all ways


def _may_resend(
    failure: BaseException | None,
    method: str,
    dialed: DialReport | None,
    send: SendOptions,
    fresh: bool = False,
) -> bool:
    """Whether a request that ended with *failure*, and no head, is sent once more.

    RFC 9110 §9.2.2 and RFC 9112 §9.3.1: if the connection was reused, no byte of an answer has
    come, and the method may be sent twice. A new connection counts as reused if it resumed a TLS
    session, which may be why it ended; *fresh*: unless the request has been sent again already.
    """
    reused = dialed is None or (dialed.resumed and not fresh)
    again = send.resend and reused and method in IDEMPOTENT
    return again and getattr(failure, "unanswered", False)


def abandon(response: HTTPResponse) -> None:
    """Abandon *response*: close its connection, unless the known rest of its body is small."""
    response.discard(DISCARD_BYTES)
    source = response.source
    if not response.ended and isinstance(source, HTTP1Protocol):
        source.limit_discard(response)
