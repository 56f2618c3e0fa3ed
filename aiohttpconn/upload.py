"""Move a request's body to a protocol: back-pressure, counting, and when to stop.

A body is sent block by block, and after each block the transport's buffer decides whether to
wait. Sending ends early, and without an error, when an answer makes the rest pointless
(``HTTP1Protocol.can_send``). Regular files go from the kernel to the kernel where the transport
is a plain socket.

``loop.sendfile`` is not used: it pauses reading until the whole file is sent, so an early 413
is not seen, and uvloop has none. Here ``os.sendfile`` runs on a duplicate of the descriptor,
which both loops let us watch while their transport goes on reading.

Layer: above protocol, below connection.
"""

from __future__ import annotations

import asyncio
import errno
import os
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

SLICE = 256 * 1024
"""Bytes written at once of a body in memory: never a second copy of the whole."""

SENDFILE_MAX = 4 * 1024 * 1024
"""Bytes asked of one ``os.sendfile``: the loop runs in between."""

# What a broken connection's write fails with, beside ConnectionError and TimeoutError.
_UNREACHABLE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ENOTCONN})

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
    if body.file is not None and not chunked and _can_sendfile(protocol):
        return await _send_file(protocol, body, on_block)
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
    try:
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
        if not task.cancelled() and (exc := task.exception()) is not None:
            # Also in place of a cancellation, as if the source had been awaited right here.
            raise exc
    # A source that is cancelled by itself has not ended: the body is not whole.
    return 0 if task.cancelled() and not protocol.can_send else task.result()


async def _send_blocks(
    protocol: HTTP1Protocol, body: Body, chunked: bool, length: int | None, on_block: OnBlock
) -> int:
    """Send block after block; return the number of bytes, of the body's own."""
    sent = 0
    if not length and length is not None:
        protocol.request_done()  # for the reason below
    async with aclosing(body.blocks()) as blocks:
        async for block in blocks:
            if not protocol.can_send:
                break
            size = len(block)
            if length is not None and sent + size > length:
                raise _wrong_length(length, sent + size)
            if chunked and size <= SLICE:
                on_block(block)
                block = encode_chunk(block)
                await _write(protocol, block)
            else:
                if chunked:
                    await _write(protocol, b"%X\r\n" % size)
                view = memoryview(block)
                for start in range(0, size, SLICE):
                    piece = view[start : start + SLICE]
                    on_block(piece)
                    # The transport may keep a piece, and its owner may change it meanwhile.
                    await _write(protocol, piece if isinstance(view.obj, bytes) else bytes(piece))
                if chunked:
                    await _write(protocol, b"\r\n")
            sent += size
            if sent == length:
                # Whole for the peer, whose answer may come before the source says that it has
                # ended: an answer in the middle of a request would cost the connection.
                protocol.request_done()
    return sent


async def _write(protocol: HTTP1Protocol, data: bytes | memoryview) -> None:
    """Write *data* unless sending is pointless, and wait until the transport takes more."""
    if protocol.get_extra_info("ssl_object") is not None and _is_readable(protocol):
        # A write that fails makes TLS drop what it has not read, and that may be the answer that
        # says why. The loop reads in its next turn but one.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    if protocol.can_send:
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


def _can_sendfile(protocol: HTTP1Protocol) -> bool:
    return (
        hasattr(os, "sendfile")
        and protocol.get_extra_info("ssl_object") is None
        and protocol.get_extra_info("socket") is not None
    )


async def _send_file(protocol: HTTP1Protocol, body: Body, on_block: OnBlock) -> int:
    """Send a regular file without reading it; return the number of bytes sent."""
    file, offset, left = body.file, body.offset, body.length
    assert file is not None and left is not None, "only a file with a length is sent so"
    # What the transport still holds, the head, has to be on its way first.
    await protocol.flushed()
    if not protocol.can_send:
        return 0
    loop = protocol.loop
    out = os.dup(protocol.get_extra_info("socket").fileno())
    try:
        while left and protocol.can_send:
            try:
                sent = os.sendfile(out, file.fileno(), offset, min(left, SENDFILE_MAX))
            except (BlockingIOError, InterruptedError):
                ready = loop.create_future()
                loop.add_writer(out, _wake, ready)
                try:
                    await protocol.wait_writable(ready)
                finally:
                    loop.remove_writer(out)
                continue
            except OSError as exc:
                broken = isinstance(exc, (ConnectionError, TimeoutError))
                if broken or exc.errno in _UNREACHABLE:
                    # What the peer may have answered is still to be read.
                    await protocol.wait_broken()
                    break
                # The file, or its file system. Reading it works, or says what is wrong with it.
                if offset > body.offset:
                    raise
                return await _send_blocks(protocol, body, False, left, on_block)
            if not sent:
                break
            on_block(file)
            offset += sent
            left -= sent
            if left:
                await asyncio.sleep(0)
    finally:
        os.close(out)
        if offset > body.offset:
            file.seek(offset)
    return offset - body.offset


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
