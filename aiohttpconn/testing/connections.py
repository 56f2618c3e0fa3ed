"""Connection: the server's end of one connection, which scripts read from and write to.

It uses a raw non-blocking socket and ``ssl.SSLObject``, no transport: so a script decides where a
TCP segment and a TLS record end, and whether a connection ends with FIN, RST or close_notify.
servers.py accepts connections, and steps.py has the steps of a script. Layer: the test kit.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct

from .peers import Peer, find_peer, unread_bytes

with contextlib.suppress(ImportError):  # a Python without it: no server does TLS
    import ssl

__all__ = ["CHUNKED", "ClientGone", "Connection", "shown"]

READ_SIZE = 65536
"""Bytes that one recv() asks for."""

TURNS_TO_READ = 50
"""Turns of the loop that a client gets to read a piece: two suffice, unless it pauses reading."""

TURNS_UNSEEN = 6
"""The same if the client's socket cannot be inspected."""

MAX_SHOWN = 1000
"""Bytes that the text of an error quotes: most heads are shorter."""

CONTENT_LENGTH = re.compile(rb"(?im)^content-length:[ \t]*(\d{1,18})[ \t]*\r$")
CHUNKED = re.compile(rb"(?im)^transfer-encoding:.*\bchunked[ \t]*\r$")
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n")


class ClientGone(ConnectionError):
    """The client left in the middle of a script: the script ends, and no test fails for it."""


def shown(data: bytes | bytearray) -> str:
    """Return *data* as error texts show it: escaped, and cut to ``MAX_SHOWN``."""
    if len(data) <= MAX_SHOWN:
        return repr(bytes(data))
    return f"{bytes(data[:MAX_SHOWN])!r}... ({len(data)} bytes)"


class Connection:
    """The server's end of one connection, made by a ``ScriptedServer``.

    Attributes: ``sock``; ``received``, every byte that was read (over TLS: decrypted);
    ``heads``, the request heads that scripts have read; ``tls``, the ``ssl.SSLObject`` or None;
    ``error``, why TLS failed; ``closed``, whether the server has sent FIN or RST;
    ``was_reset``, whether the client has ended the connection with RST.

    All methods that read, except ``read_all`` and ``read_some``, raise ``ClientGone`` if the client
    leaves before there is enough to read. So do methods that write to a client that has left.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        self.sock = sock
        self.received = bytearray()
        self.heads: list[bytes] = []
        self.tls: ssl.SSLObject | None = None
        self.error: ssl.SSLError | None = None
        self.closed = False
        self.was_reset = False
        self._loop = asyncio.get_running_loop()
        self._consumed = 0  # of received, by the script
        self._eof = False
        self._ended = asyncio.Event()
        self._peer: Peer | None = None
        self._peer_sought = False
        if context is not None:
            self._incoming = ssl.MemoryBIO()
            self._outgoing = ssl.MemoryBIO()
            self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    # Reading

    async def read_head(self) -> bytes:
        """Return the next request head, with its blank line."""
        head = await self.read_until(b"\r\n\r\n")
        self.heads.append(head)
        return head

    async def read_body(self, head: bytes) -> bytes:
        """Return the body that *head* announces as it came over the wire, with chunk framing."""
        if not CHUNKED.search(head):
            length = CONTENT_LENGTH.search(head)
            return await self.read_exactly(int(length[1])) if length else b""
        body = bytearray()
        while True:
            line = await self.read_until(b"\r\n")
            size = CHUNK_SIZE.fullmatch(line)
            if size is None:
                raise AssertionError(f"the server expected a chunk-size line, got {shown(line)}")
            body += line
            if not int(size[1], 16):
                break
            body += await self.read_exactly(int(size[1], 16) + 2)
        while line != b"\r\n":  # the trailers, and the blank line that ends them
            line = await self.read_until(b"\r\n")
            body += line
        return bytes(body)

    async def read_request(self) -> tuple[bytes, bytes]:
        """Return the next request: its head, and its body as ``read_body`` returns it."""
        head = await self.read_head()
        return head, await self.read_body(head)

    async def read_until(self, separator: bytes) -> bytes:
        """Return all bytes up to the next *separator*, which is included."""
        start = self._consumed
        while (at := self.received.find(separator, start)) < 0:
            start = max(self._consumed, len(self.received) - len(separator) + 1)
            await self._read_more(f"waiting for {separator!r}")
        return self._take(at + len(separator) - self._consumed)

    async def read_exactly(self, n: int) -> bytes:
        """Return the next *n* bytes."""
        while len(self.received) - self._consumed < n:
            await self._read_more(f"waiting for {n} bytes")
        return self._take(n)

    async def read_expected(self, expected: bytes) -> None:
        """Read *expected*; raise ``AssertionError`` at the first read that differs."""
        while True:
            got = bytes(self.received[self._consumed : self._consumed + len(expected)])
            if not expected.startswith(got):
                raise AssertionError(f"the server expected {shown(expected)}, got {shown(got)}")
            if len(got) == len(expected):
                break
            await self._read_more(f"waiting for {shown(expected)}")
        self._take(len(expected))

    async def read_all(self) -> bytes:
        """Return all bytes until the client's end of file."""
        await self.drain()
        return self._take(len(self.received) - self._consumed)

    async def read_some(self) -> bytes:
        """Return the bytes that have arrived, at least one; b"" at the client's end of file."""
        if self._consumed == len(self.received) and not self._eof:
            with contextlib.suppress(ClientGone):
                await self._read_more("reading")
        return self._take(len(self.received) - self._consumed)

    async def wait_ended(self) -> None:
        """Wait until the client has closed or reset the connection, and the script has ended."""
        await self._ended.wait()

    # Writing

    async def send(self, *pieces: bytes) -> None:
        """Send *pieces*, each of which the client reads before the next one is sent.

        Over TLS each piece is a record of its own (up to 16 KiB). A client that does not share
        the server's loop may read several at once: see ``let_client_read``.
        """
        for i, piece in enumerate(pieces):
            if i:
                await self.let_client_read()
            if self.tls is not None:
                self.tls.write(piece)
                piece = self._outgoing.read()
            await self._send_raw(piece)

    async def let_client_read(self) -> None:
        """Yield to the loop until the client, which shares it, has read all bytes sent.

        The client's socket lives in this process, so the kernel tells how much is unread in it.
        The wait ends after ``TURNS_TO_READ`` turns, because a client may have paused reading. A
        client in another thread or process may read later, and sees several pieces at once.
        """
        for turn in range(TURNS_TO_READ):
            await asyncio.sleep(0)
            unread = self._unread_by_client()
            if unread == 0 or (unread is None and turn >= TURNS_UNSEEN):
                break
        # The client's protocol has the bytes; in one more turn the task that waits sees them.
        await asyncio.sleep(0)

    async def close(self, *, notify: bool = True) -> None:
        """Send FIN, over TLS after a close_notify unless *notify* is False.

        The reading side stays open: no RST follows, whatever the client goes on to send.
        """
        self.closed = True
        if self.tls is not None and notify:
            # This does not wait for the client's close_notify.
            with contextlib.suppress(ssl.SSLError):
                self.tls.unwrap()
            await self._send_raw(self._outgoing.read())
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    async def reset(self) -> None:
        """Send RST, after the client has read all bytes sent."""
        await self.let_client_read()
        self.reset_now()

    # For ScriptedServer

    async def handshake(self) -> None:
        """Do the TLS handshake, if the connection has TLS."""
        while self.tls is not None:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._send_raw(self._outgoing.read())
                await self._feed_tls("in the handshake")
                continue
            except ssl.SSLError as exc:
                self.error = exc
                await self._send_raw(self._outgoing.read())  # the alert
                raise ClientGone(f"the TLS handshake failed: {exc}") from exc
            await self._send_raw(self._outgoing.read())
            return

    async def drain(self) -> None:
        """Record further bytes until the client leaves."""
        while not self._eof:
            with contextlib.suppress(ClientGone):
                await self._read_more("draining")

    def end(self) -> None:
        """Close the socket, whatever its state."""
        self.sock.close()
        self._ended.set()

    def _take(self, n: int) -> bytes:
        taken = bytes(self.received[self._consumed : self._consumed + n])
        self._consumed += n
        return taken

    def reset_now(self) -> None:
        self.closed = self._eof = True
        if self.sock.fileno() >= 0:
            if self.sock.family in (socket.AF_INET, socket.AF_INET6):
                linger = struct.pack("ii", 1, 0)
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.sock.close()

    async def _read_more(self, doing: str) -> None:
        """Append the next bytes to ``received``; raise ClientGone at end of file."""
        data = b""
        if not self._eof:
            data = await (self._recv_raw() if self.tls is None else self._recv_tls(self.tls, doing))
        if not data:
            self._eof = True
            raise ClientGone(
                f"the client left while the server was {doing};"
                f" unread so far: {shown(self.received[self._consumed :])}"
            )
        self.received += data

    async def _recv_tls(self, tls: ssl.SSLObject, doing: str) -> bytes:
        """Return the next decrypted bytes; b"" at the end of TLS, whether clean or not."""
        while True:
            try:
                return tls.read(READ_SIZE)
            except ssl.SSLWantReadError:
                await self._feed_tls(doing)
            except ssl.SSLZeroReturnError:  # close_notify
                return b""
            except ssl.SSLError as exc:  # an alert, or nonsense
                self.error = exc
                return b""

    async def _feed_tls(self, doing: str) -> None:
        """Hand the next bytes of the socket to TLS; raise ClientGone if there are none."""
        data = await self._recv_raw()
        if not data:
            self._eof = True
            raise ClientGone(f"the client left, without close_notify, while the server was {doing}")
        self._incoming.write(data)

    async def _recv_raw(self) -> bytes:
        if self.sock.fileno() < 0:
            return b""
        try:
            return await self._loop.sock_recv(self.sock, READ_SIZE)
        except ConnectionError:
            self.was_reset = True
            return b""

    async def _send_raw(self, data: bytes) -> None:
        if not data:
            return
        if self.sock.fileno() < 0:
            raise ClientGone("the connection is closed")
        try:
            await self._loop.sock_sendall(self.sock, data)
        except ConnectionError as exc:
            raise ClientGone(f"the client left while the server was sending: {exc}") from exc

    def _unread_by_client(self) -> int | None:
        """Return how many bytes the client's kernel buffer holds; None if it cannot be told."""
        if not self._peer_sought:
            self._peer_sought = True
            self._peer = find_peer(self.sock)
        return None if self._peer is None else unread_bytes(self._peer)
