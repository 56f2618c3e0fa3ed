"""Send a request on an open connection: head, body, back-pressure, counting, and when to stop.

A body is sent block by block, and after each block the transport's buffer decides whether to
wait. Sending ends early, and without an error, when an answer makes it pointless to send on
(``Upload.wanted``).

A regular file is read into one buffer, which the transport has to be done with before the next
read. ``sendfile`` is not used: a slow disk would stop the loop, ``loop.sendfile`` pauses reading
until the whole file is sent, so that an early 413 is not seen, and uvloop does not have it. It is
slower on loopback, too (``benchmarks/micro/upload_paths.py``).

Layer: above protocol, below connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import aclosing
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from .body import SMALL_BODY
from .exceptions import BodyLengthError
from .http11.chunked import LAST_CHUNK, encode_chunk
from .net.sockets import read_watcher

if TYPE_CHECKING:
    from .body import Body
    from .protocol import HTTP1Protocol
    from .response import HTTPResponse
    from .writing import Upload

__all__ = [
    "CONTINUE_TIMEOUT",
    "SLICE",
    "OutgoingRequest",
    "prepare_request",
    "send_part",
    "send_request",
    "start_request",
]

SLICE = 1024 * 1024
"""Bytes written at once, so that there is never a second copy of a whole body. They fit in a CPU's
own cache; 256 KiB cost a quarter more (``benchmarks/micro/upload_paths.py``)."""

TLS_SLICE = 256 * 1024
"""Bytes encrypted at once: nothing is sent meanwhile, and a peer that waits is delayed."""

CHUNK_COPIED = 256 * 1024
"""Bytes up to which an item is copied, to leave in one write with its chunk framing."""

CONTINUE_TIMEOUT = 1.0
"""Seconds that a body waits for ``100 Continue`` (curl's number): servers may never send it."""

OnBlock: TypeAlias = Callable[[Any], None]


class OutgoingRequest(NamedTuple):
    """A request that is ready to be sent: the head is encoded, the framing decided.

    *body* is None if it leaves in one write with the head; if not, it is sent *chunked*, or has
    the *length* that Content-Length announces. *expects*: whether it waits for ``100 Continue``.
    *upgrades*, *closes*: whether the request asks to leave HTTP/1.1, or ends the connection.
    """

    method: str
    target: str
    head: bytes
    body: Body | None
    chunked: bool
    length: int | None
    expects: bool
    upgrades: bool
    closes: bool


def prepare_request(
    method: str,
    target: str,
    head: bytes,
    names: Mapping[str, str],
    body: Body | None,
    chunked: bool,
    length: int | None,
) -> OutgoingRequest:
    """Return the request whose fields are *names*; a small body leaves with *head*.

    *length*: the Content-Length announced; None if there is none, or the caller sends the body
    later. Raises ``ValueError`` for a TRACE request with a body, and ``BodyLengthError`` if the
    body's length is known and not *length*.
    """
    if body is not None and method == "TRACE":
        raise ValueError("a TRACE request must not have a body (RFC 9110 §9.3.8)")
    got = 0 if body is None else body.length
    if length is not None and got not in (None, length):
        raise _wrong_length(length, got or 0)
    # A server that knows that there is no content has nothing to continue with (RFC 9110 §10.1.1).
    empty = got == 0 or length == 0
    expects = not empty and "expect" in names and names["expect"].lower() == "100-continue"
    data = body.data if body is not None else None
    if data is not None and len(data) <= SMALL_BODY and not chunked and not expects:
        head += data
        body = None
    closes = "connection" in names and "close" in names["connection"].lower()
    upgrades = "upgrade" in names
    return OutgoingRequest(method, target, head, body, chunked, length, expects, upgrades, closes)


def start_request(
    protocol: HTTP1Protocol, request: OutgoingRequest, deadline: float | None, more: bool = False
) -> HTTPResponse:
    """Write the head of *request*; return its response. *more*: the caller sends a body later.

    *deadline*: the time by which the exchange must have ended, on the loop's clock.
    """
    whole = request.body is None and not more
    response = protocol.start(request.method, request.target, request.head, whole)
    response.upgrade = request.upgrades
    if request.closes:
        protocol.close_after(response)
    if deadline is not None:
        protocol.arm_total(response, deadline)
    return response


async def send_request(
    protocol: HTTP1Protocol,
    response: HTTPResponse,
    request: OutgoingRequest,
    continue_timeout: float,
    on_block: OnBlock | None,
) -> None:
    """Send the body of *request*, whose *response* ``start_request`` has returned.

    Returns when the body is sent, or when it is pointless to send on, because of an answer or
    because *response* has failed. Raises ``BodyLengthError``, and any error of the body's source.
    """
    body, upload = request.body, protocol.upload
    if body is not None and upload is not None and upload.wanted:
        if request.expects:
            await upload.wait_continue(continue_timeout)
            if response.has_head:
                upload.wanted = False
        if upload.wanted:
            await _send_body(upload, body, request.chunked, request.length, on_block)
        response.sent_at = monotonic()


async def _send_body(
    upload: Upload, body: Body, chunked: bool, length: int | None, on_block: OnBlock | None
) -> None:
    """Send all of *body*, as chunks if *chunked*, and mark the request as sent.

    *length* is the Content-Length announced, None if there is none. Raises ``BodyLengthError``
    if the body has another length; bytes beyond it are never sent. *on_block* gets each block.
    """
    sent = await send_part(upload, body, limit=length, on_block=on_block, chunked=chunked)
    if not upload.wanted:
        return
    if length is not None and sent != length:
        raise _wrong_length(length, sent)
    if chunked:
        upload.write(LAST_CHUNK)
    upload.end()


async def send_part(
    upload: Upload,
    body: Body,
    *,
    limit: int | None,
    on_block: OnBlock | None,
    chunked: bool = False,
) -> int:
    """Send *body*, *limit* bytes at most; return how many of its bytes were sent.

    Ends early, without an error, when it is pointless to send on. Raises ``BodyLengthError``
    before a byte beyond *limit* is sent.
    """
    if limit is not None and body.length is not None and body.length > limit:
        raise _wrong_length(limit, body.length)
    if body.may_block:
        return await _in_task(upload, _send_blocks(upload, body, chunked, limit, on_block))
    return await _send_blocks(upload, body, chunked, limit, on_block)


def _wrong_length(length: int, got: int) -> BodyLengthError:
    more = "more" if got > length else "fewer"
    return BodyLengthError(
        f"Content-Length announces {length} bytes, the body has {more}: {got} bytes"
    )


async def _in_task(upload: Upload, sending: Coroutine[Any, Any, int]) -> int:
    """Run *sending* until it ends or becomes pointless: its source may wait for ever.

    One task sends the whole body, so that the caller's generator runs in one task and context.
    """
    task = asyncio.ensure_future(sending)
    stopped = upload.stop_waiter()
    cancelled: asyncio.CancelledError | None = None
    try:
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError as exc:
        cancelled = exc
    while not task.done():
        # The source may take its time to end; it gets each cancellation that comes meanwhile.
        task.cancel()
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as exc:
            cancelled = exc
    if not task.cancelled() and (failure := task.exception()) is not None:
        # It also replaces a cancellation, as if the source had been awaited right here.
        raise failure
    if cancelled is not None:
        try:
            raise cancelled
        finally:
            del cancelled  # it refers to this frame
    # A source that cancels itself has not ended: the body is incomplete.
    return 0 if task.cancelled() and not upload.wanted else task.result()


async def _send_blocks(
    upload: Upload, body: Body, chunked: bool, length: int | None, on_block: OnBlock | None
) -> int:
    """Send block after block; return how many bytes of the body were sent."""
    sent = 0
    if not length and length is not None:
        upload.end()  # for the reason below
    most = TLS_SLICE if upload.is_tls else SLICE
    async with aclosing(body.blocks(0 if chunked else most)) as blocks:
        async for block in blocks:
            wanted = upload.wanted
            if not wanted:
                break
            size = len(block)
            if length is not None and sent + size > length:
                raise _wrong_length(length, sent + size)
            if chunked and size <= CHUNK_COPIED:
                if on_block is not None:
                    on_block(block)
                block = encode_chunk(block)
                await _write(upload, block)
            else:
                if chunked:
                    await _write(upload, b"%X\r\n" % size)
                view = memoryview(block)
                for start in range(0, size, most):
                    piece = view[start : start + most]
                    if on_block is not None:
                        on_block(piece)
                    await _write(upload, piece, body.reuses_buffer)
                if chunked:
                    await _write(upload, b"\r\n")
            sent += size
            if sent == length:
                # The peer has all of it, and its answer may come before the source says that it
                # has ended. An answer in the middle of a request would cost the connection.
                upload.end()
            if not upload.wanted:
                # Check here, too: the transport may still hold borrowed memory, and the next
                # block would overwrite it.
                break
    return sent


async def _write(upload: Upload, data: bytes | memoryview, borrowed: bool = False) -> None:
    """Write *data* unless sending is pointless, and wait until the transport takes more.

    If *data* is *borrowed*, the transport holds none of it when this returns.
    """
    if upload.is_tls and read_watcher(upload.socket())(0):
        # A write that fails makes TLS drop the bytes that it has not read, and they may be the
        # answer that says why. The loop reads them in its next turn but one.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    if not upload.wanted:
        return
    if borrowed and isinstance(data, memoryview):
        await upload.write_borrowed(data)
        return
    if isinstance(data, memoryview) and not isinstance(data.obj, bytes):
        # The transport may keep the view, and the owner of the memory may change it meanwhile.
        data = bytes(data)
    upload.write(data)
    await upload.drain()
