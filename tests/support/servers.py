"""ScriptedServer: a real loopback listener that does what its script says.

    script = [expect(), send(b"HTTP/1.1 200 OK\\r\\n\\r\\n", b"hi"), close()]
    async with ScriptedServer(script) as server:
        ...                                     # connect to server.host, server.port
        assert server.heads == [b"GET / HTTP/1.1\\r\\nHost: ...\\r\\n\\r\\n"]

It runs in the loop of the test, over raw non-blocking sockets: a script decides where a TCP
segment and a TLS record end, and whether a connection ends with FIN, RST or close_notify.

A **script** is a list of steps, or one ``async def handler(conn: Connection)``. The n-th
connection runs the n-th script, the last script serves every further one. When its script has
ended, a connection stays open, and what arrives is recorded, until the client leaves or
``reset()`` cuts it. A **step** is any ``async def step(conn)``; those most used are made by
``expect()``, ``expect_request()``, ``send()``, ``close()``, ``reset()``, ``wait()``,
``notify()`` and ``read_all()``.

A script that fails (an ``expect`` not met, any exception) resets its connection, so that the
client does not wait for ever, and the error is raised where ``async with`` ends. A client that
leaves in the middle of a script ends that script quietly (``ClientGone``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
import stat
import struct
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self, TypeAlias

try:
    import fcntl
    import termios
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "ClientGone",
    "Connection",
    "Script",
    "ScriptedServer",
    "Step",
    "close",
    "expect",
    "expect_request",
    "notify",
    "read_all",
    "refusing_address",
    "reset",
    "send",
    "wait",
]

READ_SIZE = 65536
"""Bytes asked of one recv()."""

TURNS_TO_READ = 50
"""Turns of the loop a client gets to read a piece: two do, unless it has paused reading."""

TURNS_UNSEEN = 6
"""The same where the client's socket cannot be looked at."""


class ClientGone(ConnectionError):
    """The client left in the middle of a script; ends the script, and fails nothing."""


# Steps ---------------------------------------------------------------------------------


def expect(what: bytes | re.Pattern[bytes] | int | None = None) -> Step:
    """Read what a client sends, and fail if it is not *what*.

    None: a request head, whatever it says. bytes: exactly these. A compiled pattern: a
    request head in which it is found. An int: that many bytes.
    """

    async def step(conn: Connection) -> None:
        if what is None:
            await conn.read_head()
        elif isinstance(what, int):
            await conn.read_exactly(what)
        elif isinstance(what, bytes):
            await conn.read_expected(what)
        else:
            head = await conn.read_head()
            assert what.search(head), f"the server expected {what.pattern!r} in the head {head!r}"

    return step


def expect_request() -> Step:
    """Read a whole request: its head, and the body that its framing announces."""

    async def step(conn: Connection) -> None:
        await conn.read_request()

    return step


def send(*pieces: bytes) -> Step:
    """Send *pieces*, each as a segment (over TLS a record) that the client reads by itself."""

    async def step(conn: Connection) -> None:
        await conn.send(*pieces)

    return step


def close(*, notify: bool = True) -> Step:
    """Send FIN, over TLS a close_notify before it unless *notify* is False."""

    async def step(conn: Connection) -> None:
        await conn.close(notify=notify)

    return step


def reset() -> Step:
    """Cut the connection with RST, after the client has read what was sent."""

    async def step(conn: Connection) -> None:
        await conn.reset()

    return step


def wait(event: asyncio.Event) -> Step:
    """Do nothing, not even read, until the test sets *event*."""

    async def step(conn: Connection) -> None:
        await event.wait()

    return step


def notify(event: asyncio.Event) -> Step:
    """Set *event*: tells the test that the script has come so far."""

    async def step(conn: Connection) -> None:
        event.set()

    return step


def read_all() -> Step:
    """Read until the client's end of file."""

    async def step(conn: Connection) -> None:
        await conn.read_all()

    return step


# A connection ----------------------------------------------------------------------------


class Connection:
    """The server's end of one connection: what a script reads from and writes to.

    ``received`` holds every byte that was read (over TLS: decrypted), ``heads`` the request
    heads that scripts have read, ``tls`` the ``ssl.SSLObject``, ``error`` why TLS failed.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        self.sock = sock
        self.received = bytearray()
        self.heads: list[bytes] = []
        self.tls: ssl.SSLObject | None = None
        self.error: ssl.SSLError | None = None
        self.was_reset = False
        """The client ended the connection with RST."""
        self._loop = asyncio.get_running_loop()
        self._consumed = 0  # of received, by the script
        self._eof = False
        self._ended = asyncio.Event()
        self._client_fd: tuple[int, int] | bool | None = False  # False: not looked for yet
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        if context is not None:
            self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    # Reading

    async def read_head(self) -> bytes:
        """Return the next request head, with its blank line."""
        head = await self.read_until(b"\r\n\r\n")
        self.heads.append(head)
        return head

    async def read_request(self) -> tuple[bytes, bytes]:
        """Return the next request: its head, and its body as it came over the wire."""
        head = await self.read_head()
        if re.search(rb"(?im)^transfer-encoding:.*\bchunked\s*$", head):
            body = b""
            while True:
                line = await self.read_until(b"\r\n")
                body += line
                size = int(line.partition(b";")[0], 16)
                if size == 0:
                    break
                body += await self.read_exactly(size + 2)
            while not body.endswith(b"\r\n\r\n"):
                body += await self.read_until(b"\r\n")
            return head, body
        length = re.search(rb"(?im)^content-length:\s*(\d+)\s*$", head)
        return head, await self.read_exactly(int(length[1])) if length else b""

    async def read_until(self, separator: bytes) -> bytes:
        """Return all bytes up to the next *separator*, and it."""
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
        """Read *expected*; fail at the first read that differs."""
        while True:
            got = bytes(self.received[self._consumed : self._consumed + len(expected)])
            assert expected.startswith(got), f"the server expected {expected!r}, got {got!r}"
            if len(got) == len(expected):
                break
            await self._read_more(f"waiting for {expected!r}")
        self._take(len(expected))

    async def read_all(self) -> bytes:
        """Return all bytes until the client's end of file."""
        while not self._eof:
            with contextlib.suppress(ClientGone):
                await self._read_more("reading to the end")
        return self._take(len(self.received) - self._consumed)

    async def read_some(self) -> bytes:
        """Return what has arrived, at least one byte; b"" at the client's end of file."""
        if self._consumed == len(self.received) and not self._eof:
            with contextlib.suppress(ClientGone):
                await self._read_more("reading")
        return self._take(len(self.received) - self._consumed)

    async def wait_ended(self) -> None:
        """Wait until the client has closed or reset the connection, and the script has ended."""
        await self._ended.wait()

    # Writing

    async def send(self, *pieces: bytes) -> None:
        """Send *pieces*, each read by itself: the next leaves when the client has read the last.

        Over TLS each piece is a record of its own (up to 16 KiB).
        """
        for i, piece in enumerate(pieces):
            if i:
                await self.let_client_read()
            if self.tls is not None:
                self.tls.write(piece)
                piece = self._outgoing.read()
            await self._send_raw(piece)

    async def let_client_read(self) -> None:
        """Turn the loop until the client, which shares it, has taken all that was sent.

        The client's socket lives in this process: the kernel tells how much is unread in it.
        Ends after ``TURNS_TO_READ`` turns: a client that has paused reading never reads.
        """
        for turn in range(TURNS_TO_READ):
            await asyncio.sleep(0)
            unread = self._unread_by_client()
            if unread == 0 or (unread is None and turn >= TURNS_UNSEEN):
                break
        # The client's protocol has it; one more turn lets the task see it that waits for it.
        await asyncio.sleep(0)

    async def close(self, *, notify: bool = True) -> None:
        """Send FIN; over TLS a close_notify before it, unless *notify* is False.

        The reading side stays open: no RST follows, whatever the client still sends.
        """
        if self.tls is not None and notify:
            # The client's close_notify is not waited for.
            with contextlib.suppress(ssl.SSLError):
                self.tls.unwrap()
            await self._send_raw(self._outgoing.read())
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    async def reset(self) -> None:
        """Send RST, after the client has read what was sent."""
        await self.let_client_read()
        self._reset_now()

    # The rest is for ScriptedServer

    async def handshake(self) -> None:
        """Do TLS's handshake, if the connection has TLS."""
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
        """Record what still arrives, until the client leaves."""
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

    def _reset_now(self) -> None:
        self._eof = True
        if self.sock.fileno() >= 0:
            if self.sock.family != getattr(socket, "AF_UNIX", None):
                linger = struct.pack("ii", 1, 0)
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.sock.close()

    async def _read_more(self, doing: str) -> None:
        """Append what arrives next to ``received``; raise ClientGone at end of file."""
        while self.tls is not None and not self._eof:
            try:
                data = self.tls.read(READ_SIZE)
            except ssl.SSLWantReadError:
                await self._feed_tls(doing)
                continue
            except ssl.SSLError as exc:  # close_notify, an alert, or nonsense
                self.error = None if isinstance(exc, ssl.SSLZeroReturnError) else exc
                data = b""
            if not data:
                break
            self.received += data
            return
        else:
            if not self._eof and (data := await self._recv_raw()):
                self.received += data
                return
        self._eof = True
        raise ClientGone(
            f"the client left while the server was {doing};"
            f" unread so far: {bytes(self.received[self._consumed :])!r}"
        )

    async def _feed_tls(self, doing: str) -> None:
        """Hand the next bytes of the socket to TLS; raise ClientGone where they end."""
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
        if fcntl is None:
            return None
        if self._client_fd is False:
            self._client_fd = _find_peer(self.sock)
        if not isinstance(self._client_fd, tuple):
            return None
        fd, inode = self._client_fd
        try:
            if os.fstat(fd).st_ino != inode:
                return 0
            answer = fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0")
        except OSError:  # closed meanwhile
            return 0
        return int(struct.unpack("i", answer)[0])


def _find_peer(sock: socket.socket) -> tuple[int, int] | None:
    """Return (descriptor, inode) of the other end of *sock*, if it lives in this process."""
    if sock.fileno() < 0 or sock.family == getattr(socket, "AF_UNIX", None):
        return None
    try:
        wanted = sock.getpeername()
    except OSError:
        return None
    for name in os.listdir("/dev/fd"):
        fd = int(name)
        try:
            status = os.fstat(fd)
            if not stat.S_ISSOCK(status.st_mode):
                continue
            with socket.socket(fileno=os.dup(fd)) as copy:
                if copy.family == sock.family and copy.getsockname() == wanted:
                    return fd, status.st_ino
        except OSError:
            continue
    return None


Step: TypeAlias = Callable[[Connection], Awaitable[None]]
Script: TypeAlias = "Sequence[Step] | Callable[[Connection], Awaitable[None]]"


# The server ------------------------------------------------------------------------------


class ScriptedServer:
    """Listen on loopback, and run a script for each connection; see the module.

    *tls*: a server-side context. *host*: ``"127.0.0.1"`` or ``"::1"``. *port*: 0 takes a free
    one. *path*: a Unix socket instead. *receive_buffer*: SO_RCVBUF, to fill it soon.
    *accepting*: False leaves every connection in the kernel's backlog, unanswered.
    """

    def __init__(
        self,
        *scripts: Script,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        path: str | os.PathLike[str] | None = None,
        receive_buffer: int | None = None,
        accepting: bool = True,
    ) -> None:
        self.scripts: tuple[Script, ...] = scripts or ((),)
        self.tls = tls
        self.host = host
        self.port = port
        self.path = None if path is None else os.fspath(path)
        self.conns: list[Connection] = []
        self._receive_buffer = receive_buffer
        self._accepting = accepting
        self._errors: list[BaseException] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._arrival = asyncio.Event()

    @property
    def connections(self) -> int:
        """How many connections have been accepted."""
        return len(self.conns)

    @property
    def received(self) -> list[bytes]:
        """All bytes that arrived, per connection."""
        return [bytes(conn.received) for conn in self.conns]

    @property
    def heads(self) -> list[bytes]:
        """The request heads that scripts have read, connection by connection."""
        return [head for conn in self.conns for head in conn.heads]

    @property
    def address(self) -> tuple[str, int]:
        """(host, port)."""
        return self.host, self.port

    @property
    def url(self) -> str:
        """The server's root URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}/"

    async def wait_connections(self, n: int) -> None:
        """Wait until *n* connections have been accepted."""
        while len(self.conns) < n:
            self._arrival.clear()
            await self._arrival.wait()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._listener = self._listen()
        if self._accepting:
            self._start(self._accept())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()
        for conn in self.conns:
            conn.end()
        if self.path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
        # Raised even if the test has failed: the server's error is most likely why, and
        # Python shows the test's own as its context.
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            raise BaseExceptionGroup("several scripts failed", self._errors)

    def _listen(self) -> socket.socket:
        if self.path is not None:
            listener = socket.socket(socket.AF_UNIX)
            address: object = self.path
        else:
            listener = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
            address = (self.host, self.port)
            # A test's second server may take the port of its first; on Windows the option
            # would let two of them share it.
            if os.name == "posix":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            if self._receive_buffer is not None:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
            listener.setblocking(False)
            listener.bind(address)  # type: ignore[arg-type]
            listener.listen(100)
        except BaseException:
            listener.close()
            raise
        if self.path is None:
            self.port = listener.getsockname()[1]
        return listener

    def _start(self, coro: Awaitable[None]) -> None:
        task = asyncio.ensure_future(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        while True:
            sock, _ = await self._loop.sock_accept(self._listener)
            sock.setblocking(False)
            if self.path is None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            script = self.scripts[min(len(self.conns), len(self.scripts) - 1)]
            conn = Connection(sock, self.tls)
            self.conns.append(conn)
            self._start(self._serve(conn, script))
            self._arrival.set()

    async def _serve(self, conn: Connection, script: Script) -> None:
        try:
            await conn.handshake()
            await self.converse(conn, script)
            await conn.drain()
        except ClientGone:
            pass
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            self._errors.append(exc)
            conn._reset_now()
        finally:
            conn.end()

    async def converse(self, conn: Connection, script: Script) -> None:
        """Run *script*."""
        if callable(script):
            await script(conn)
        else:
            for step in script:
                await step(conn)


@contextlib.contextmanager
def refusing_address(host: str = "127.0.0.1"):
    """Yield (host, port) of a port that is taken and not listened on: connects are refused."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        yield sock.getsockname()[:2]
