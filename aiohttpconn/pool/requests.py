"""One request and its response on a connection of a pool, up to the response's head.

Three ways: ``exchange`` for what is one write, ``exchange_shared`` for such requests that share a
connection with others, ``exchange_body`` for what ``HTTPConnection`` has to send piece by piece.
The connection goes back to the pool by itself, at the response's last byte, and is closed when the
response is. A request on a connection that was there before, and which dies without a byte of an
answer, is sent once more on a new one.

Layer: pool.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from ..client.fields import wants_chunks
from ..exceptions import NotProcessed
from ..failures import expired
from ..http11.semantics import IDEMPOTENT
from ..protocol import HTTP1Protocol
from .connections import LOOK_AFTER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..net.dial import DialReport
    from ..net.timeouts import Timeout
    from ..response import HTTPResponse
    from .connections import Connections
    from .scheduler import Site, Slot

__all__ = [
    "Send",
    "abandon",
    "exchange",
    "exchange_body",
    "exchange_shared",
    "lend",
]

DISCARD_BYTES = 64 * 1024
"""Of a body that nobody wants any more: so much is received to keep the connection."""

MAX_SHARED_SENDS = 4
"""Times that a request is sent on connections which end before its turn. The next one it has alone.
"""


class Send(NamedTuple):
    """How a request is sent: what is the same for most of a client's.

    *deadline*: when it must be over, on the loop's clock. *resend*: whether a request that a stale
    connection has swallowed is sent again.
    """

    timeout: Timeout
    deadline: float | None = None
    resend: bool = True


async def exchange(
    pool: Connections,
    site: Site,
    method: str,
    target: str,
    data: bytes,
    send: Send,
    fresh: bool = False,
) -> HTTPResponse:
    """Send *data*, the whole of a request; return its response, whose head is here.

    Hot: see docs/topics/design.md. From ``take`` to ``start`` nothing awaits that is not needed,
    and whoever is cancelled has the connection closed, and its slot free, before it runs on.
    *fresh* makes a new connection.
    """
    while True:
        slot = site.take()
        if slot is None:
            slot = await pool.acquire(site, send.timeout, send.deadline, method, target)
        protocol = slot.protocol
        dialed = None
        if protocol is not None:
            if fresh:
                pool.renew(slot)
                protocol = None
            elif (
                # A request that must not be sent twice gets the look in any case.
                monotonic() - slot.idle_since > LOOK_AFTER or method not in IDEMPOTENT
            ) and pool.is_stale(slot):
                slot = pool.replace(slot)
                protocol = slot.protocol
        if protocol is None:
            protocol = await pool.open(slot, send.timeout, send.deadline, method, target)
            dialed = pool.report(slot)
        if protocol.timeout is not send.timeout:
            protocol.set_timeout(send.timeout)
        response = protocol.start(method, site.prefix + target, data, True)
        response.dialed = dialed
        waiter = response.head_waiter = protocol.loop.create_future()
        if protocol.timed:
            protocol.begin_head_wait(response)
            if send.deadline is not None:
                protocol.arm_total(response, send.deadline)
        try:
            await waiter
        except BaseException:
            # Aborts the connection, unless the answer was whole: it serves somebody else by now.
            response.close()
            raise
        if response.head is not None:
            if pool.respect_retry_after:
                pool.may_pause(site, response)
            return response
        _check_resend(response, method, send)
        fresh = True


async def exchange_shared(
    pool: Connections, site: Site, method: str, target: str, data: bytes, send: Send
) -> HTTPResponse:
    """Send *data* as ``exchange`` does, maybe behind requests whose answers are not here yet.

    Whoever is cancelled leaves the connection to the others: its response is dropped when it
    comes. What a connection has not answered when it ends is sent on another.
    """
    sends = 0
    while sends < MAX_SHARED_SENDS:
        slot = site.take_shared()
        if slot is None:
            slot = await pool.acquire(
                site, send.timeout, send.deadline, method, target, exclusive=False
            )
        protocol = slot.protocol
        dialed = None
        if (
            slot.depth == 1
            and protocol is not None
            and monotonic() - slot.idle_since > LOOK_AFTER
            and pool.is_stale(slot)
        ):
            slot = pool.replace(slot)
            protocol = slot.protocol
        if protocol is None:
            protocol = await pool.open(slot, send.timeout, send.deadline, method, target)
            dialed = pool.report(slot)
            pool.share(slot)
        elif slot.depth == 1:
            if protocol.timeout is not send.timeout:
                protocol.set_timeout(send.timeout)
            pool.share(slot)
        response = protocol.start(method, site.prefix + target, data, True)
        response.dialed = dialed
        waiter = response.head_waiter = protocol.loop.create_future()
        timer = None
        if protocol.timed:
            protocol.begin_head_wait(response)
            if send.deadline is not None:
                # Its own: the connection's is for the one that is being received.
                timer = protocol.loop.call_at(
                    send.deadline, _late, waiter, protocol, response, send.timeout.total
                )
        try:
            await waiter
        except BaseException:
            abandon(response)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if response.head is not None:
            if send.deadline is not None and not response.ended:
                protocol.arm_total(response, send.deadline)
            if pool.respect_retry_after:
                pool.may_pause(site, response)
            return response
        if not isinstance(response.failure, NotProcessed):
            _check_resend(response, method, send)
            break
        sends += 1
    return await exchange(pool, site, method, target, data, send, fresh=True)


def _late(
    waiter: asyncio.Future[None],
    protocol: HTTP1Protocol,
    response: HTTPResponse,
    total: float | None,
) -> None:
    """The time of a request that shares a connection is over."""
    if not waiter.done():
        exc = expired("total", total, False)
        waiter.set_exception(protocol.describe(exc, response, notes=f"total={total:g}"))


def _check_resend(response: HTTPResponse, method: str, send: Send) -> None:
    """Raise what has ended *response* before its head, unless its request is to be sent again.

    RFC 9110 §9.2.2 and RFC 9112 §9.3.1: on a connection that was there before, without a byte of
    an answer, and a method that may be sent twice.
    """
    again = send.resend and response.dialed is None and method in IDEMPOTENT
    if not again or not getattr(response.failure, "unanswered", False):
        response.raise_failure()
        raise AssertionError("a response ends with a head or with an exception")


async def lend(
    pool: Connections, site: Site, method: str, target: str, send: Send, *, fresh: bool = False
) -> tuple[Slot, DialReport | None]:
    """Return a slot whose connection is open, and the caller's own, and how it was made if it was.

    Take it back with ``settle`` or ``take_back``. *fresh* makes a new connection.
    """
    slot = site.take()
    if slot is None:
        slot = await pool.acquire(site, send.timeout, send.deadline, method, target)
    dialed = None
    if slot.protocol is not None:
        if fresh:
            pool.renew(slot)
        elif pool.is_stale(slot):
            slot = pool.replace(slot)
    if slot.protocol is None:
        await pool.open(slot, send.timeout, send.deadline, method, target)
        dialed = pool.report(slot)
    pool.lend(slot)
    return slot, dialed


async def exchange_body(
    pool: Connections,
    site: Site,
    method: str,
    target: str,
    body: Any,
    fields: Sequence[tuple[str, str]],
    send: Send,
    replay: Callable[[], Any] | None = None,
) -> tuple[HTTPResponse, float]:
    """Send a request whose body is not one write; return (response, when it was sent).

    *body* and *fields* are those of ``HTTPConnection.request``, but a Transfer-Encoding is done
    here. *replay* gives *body* a second time, for a resend; None if that cannot be.
    """
    try:
        in_chunks = wants_chunks(fields, body is not None)
    except ValueError as exc:
        raise ValueError(f"{method} {site.key.origin}{target}: {exc}") from None
    if not any(name.lower() == "connection" for name, _ in fields):
        fields = [("Connection", "keep-alive"), *fields]
    fresh = False
    while True:
        slot, dialed = await lend(pool, site, method, target, send, fresh=fresh)
        conn = slot.conn
        assert conn is not None, "a connection that is open"
        conn.timeout = _left_of(send)
        try:
            await conn.request(method, site.prefix + target, body, fields, encode_chunked=in_chunks)
            sent = monotonic()
            response = await conn.getresponse()
        except BaseException as exc:
            pool.take_back(slot)
            stale = dialed is None and getattr(exc, "unanswered", False)
            if not (stale and send.resend and method in IDEMPOTENT and replay):
                raise
            body = replay()
            fresh = True
            continue
        response.dialed = dialed
        if pool.respect_retry_after:
            pool.may_pause(site, response)
        pool.settle(slot, response)
        return response, sent


def _left_of(send: Send) -> Timeout:
    """Return the limits of one exchange: what is left of those of the whole call."""
    if send.deadline is None:
        return send.timeout
    left = send.deadline - asyncio.get_running_loop().time()
    # Rounded, because errors show it.
    return replace(send.timeout, total=max(round(left, 3), 0.001))


def abandon(response: HTTPResponse) -> None:
    """Give up *response*; if little of it is left, its connection may be used again."""
    response.discard(DISCARD_BYTES)
    source = response.source
    if not response.ended and isinstance(source, HTTP1Protocol):
        source.limit_discard(response)
