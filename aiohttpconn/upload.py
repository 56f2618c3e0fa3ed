"""Move a request's body to a protocol: back-pressure, counting, and when to stop.

A body is sent block by block, and after each block the transport's buffer decides whether to
wait. Sending ends early, and without an error, when an answer makes the rest pointless
(``HTTP1Protocol.can_send``).

A regular file is read into one buffer, which the transport has to be done with before the next
read. ``sendfile`` is not used: a slow disk would stop the loop, ``loop.sendfile`` pauses reading
until the whole file is sent, so that an early 413 is not seen, and uvloop has none. On loopback it
is slower, too (``benchmarks/micro/upload_paths.py``).

Layer: above protocol, below connection.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeAlias

from .exceptions import BodyLengthError
from .http11.chunked import LAST_CHUNK, encode_chunk

if TYPE_CHECKING:
    from .body import Body
    from .protocol import HTTP1Protocol

__all__ = ["SLICE", "check_length", "send_body", "send_part"]

SLICE = 1024 * 1024
"""Bytes written at once: never a second copy of a whole body. What fits in a CPU's own cache;
256 KiB cost a quarter more (``benchmarks/micro/upload_paths.py``)."""

TLS_SLICE = 256 * 1024
"""Bytes encrypted at once: while that goes on nothing is sent, and a peer that waits is late."""

CHUNK_COPIED = 256 * 1024
"""Bytes up to which an item is copied to leave in one write with its framing."""

OnBlock: TypeAlias = Callable[[Any], None]


async def send_body(
    protocol: HTTP1Protocol, body: Body, *, chunked: bool, length: int | None, on_block: OnBlock
) -> None:
    """Send *body* whole, as chunks if *chunked*, and mark the request as done.

    *length* is the Content-Length announced, None if there is none. Raises ``BodyLengthError``
    if the body has another length: what is too much is never sent. *on_block* sees each block.
    """
    sent = await send_part(protocol, body, limit=length, on_block=on_block, chunked=chunked)
    if not protocol.can_send:
        return
    if length is not None and sent != length:
        raise _wrong_length(length, sent)
    if chunked:
        protocol.write(LAST_CHUNK)
    protocol.request_done()


async def send_part(
    protocol: HTTP1Protocol,
    body: Body,
    *,
    limit: int | None,
    on_block: OnBlock,
    chunked: bool = False,
) -> int:
    """Send *body*, *limit* bytes at most; return how many bytes of its own were sent.

    Ends early, without an error, when sending has become pointless. Raises ``BodyLengthError``
    before a byte beyond *limit* is sent.
    """
    if limit is not None and body.length is not None and body.length > limit:
        raise _wrong_length(limit, body.length)
    if body.waits:
        return await _in_task(protocol, _send_blocks(protocol, body, chunked, limit, on_block))
    return await _send_blocks(protocol, body, chunked, limit, on_block)


def check_length(body: Body | None, length: int | None) -> None:
    """Raise ``BodyLengthError`` if the body's length is known and not the one announced."""
    if body is not None and length is not None and body.length not in (None, length):
        raise _wrong_length(length, body.length or 0)


def _wrong_length(length: int, got: int) -> BodyLengthError:
    more = "more" if got > length else "fewer"
    return BodyLengthError(
        f"Content-Length announces {length} bytes, the body has {more}: {got} bytes"
    )


async def _in_task(protocol: HTTP1Protocol, sending: Coroutine[Any, Any, int]) -> int:
    """Run *sending* until it ends or is pointless: its source may wait for ever.

    One task for the whole body, so that the caller's generator runs in one task and context.
    """
    task = asyncio.ensure_future(sending)
    stopped = protocol.stop_waiter()
    cancelled: asyncio.CancelledError | None = None
    try:
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError as exc:
        cancelled = exc
    while not task.done():
        # The source may take its time to end, and each cancellation that comes is for it.
        task.cancel()
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as exc:
            cancelled = exc
    if not task.cancelled() and (failure := task.exception()) is not None:
        # Also in place of a cancellation, as if the source had been awaited right here.
        raise failure
    if cancelled is not None:
        try:
            raise cancelled
        finally:
            del cancelled  # it knows this frame
    # A source that is cancelled by itself has not ended: the body is not whole.
    return 0 if task.cancelled() and not protocol.can_send else task.result()


async def _send_blocks(
    protocol: HTTP1Protocol, body: Body, chunked: bool, length: int | None, on_block: OnBlock
) -> int:
    """Send block after block; return the number of bytes, of the body's own."""
    sent = 0
    if not length and length is not None:
        protocol.request_done()  # for the reason below
    most = SLICE if protocol.get_extra_info("ssl_object") is None else TLS_SLICE
    async with aclosing(body.blocks(0 if chunked else most)) as blocks:
        async for block in blocks:
            wanted = protocol.can_send
            if not wanted:
                break
            size = len(block)
            if length is not None and sent + size > length:
                raise _wrong_length(length, sent + size)
            if chunked and size <= CHUNK_COPIED:
                on_block(block)
                block = encode_chunk(block)
                await _write(protocol, block)
            else:
                if chunked:
                    await _write(protocol, b"%X\r\n" % size)
                view = memoryview(block)
                for start in range(0, size, most):
                    piece = view[start : start + most]
                    on_block(piece)
                    await _write(protocol, piece, body.lends)
                if chunked:
                    await _write(protocol, b"\r\n")
            sent += size
            if sent == length:
                # Whole for the peer, whose answer may come before the source says that it has
                # ended: an answer in the middle of a request would cost the connection.
                protocol.request_done()
            if not protocol.can_send:
                # Here, too: the transport may still hold what was lent, and the next block
                # would take its place.
                break
    return sent


async def _write(protocol: HTTP1Protocol, data: bytes | memoryview, lent: bool = False) -> None:
    """Write *data* unless sending is pointless, and wait until the transport takes more.

    What is *lent* is given back: the transport holds none of it any more.
    """
    if protocol.get_extra_info("ssl_object") is not None and _is_readable(protocol):
        # A write that fails makes TLS drop what it has not read, and that may be the answer that
        # says why. The loop reads in its next turn but one.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    if not protocol.can_send:
        return
    if lent and isinstance(data, memoryview):
        await protocol.lend(data)
        return
    if isinstance(data, memoryview) and not isinstance(data.obj, bytes):
        # The transport may keep it, and its owner may change it meanwhile.
        data = bytes(data)
    protocol.write(data)
    await protocol.drain()


def _is_readable(protocol: HTTP1Protocol) -> bool:
    """Whether the kernel holds bytes that the loop has not read yet."""
    sock = protocol.get_extra_info("socket")
    if sock is None or sock.fileno() < 0 or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))
