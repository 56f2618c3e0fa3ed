"""ScriptedServer: a real loopback listener that follows a script.

    script = [expect(), send(b"HTTP/1.1 200 OK\\r\\n\\r\\n", b"hi"), close()]
    async with ScriptedServer(script) as server:
        ...                                     # connect to server.host, server.port
        assert server.heads == [b"GET / HTTP/1.1\\r\\nHost: ...\\r\\n\\r\\n"]

It runs in the loop of the test. A **script** is a list of steps, or one
``async def handler(conn: Connection)``. The n-th connection runs the n-th script, and the last
script serves every further connection. When its script has ended, a connection stays open and
records further bytes, until the client leaves or ``reset()`` cuts it.

A script that fails (an unmet ``expect``, any exception) resets its connection, so that the client
does not wait for ever, and the end of ``async with`` raises the error. A client that leaves in
the middle of a script ends that script quietly (``ClientGone``). Layer: the test kit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from .connections import ClientGone, Connection
from .steps import Step

if TYPE_CHECKING:
    import ssl

__all__ = ["Script", "ScriptedServer", "refusing_address"]

BACKLOG = 100
"""Connections that the kernel holds for a server that has not accepted them."""

Script: TypeAlias = Sequence[Step] | Callable[[Connection], Awaitable[None]]
"""The steps to do with a connection, one after another, or a coroutine function."""


class ScriptedServer:
    """Listen on loopback, and run a script for each connection; ``async with`` starts and ends it.

    *scripts*: see the module; without any, connections are accepted and never answered.
    *tls*: a server-side context. *host*: ``"127.0.0.1"`` or ``"::1"``. *port*: 0 takes a free
    one. *path*: a Unix socket instead. *receive_buffer*: SO_RCVBUF in bytes, small so that it fills
    soon. *accepting*: False leaves every connection in the kernel's backlog, unanswered.

    Attributes: ``host``, ``port``, ``path``, ``tls``, ``scripts``, and ``conns``, a
    ``Connection`` for each one accepted. The end of ``async with`` closes all of them; it raises
    the exception of a script that failed, or a ``BaseExceptionGroup`` of several.
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
        """The number of accepted connections."""
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
        """The server's root URL, with a slash at its end."""
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
        try:
            await self._stop()
        finally:
            self._listener.close()
            for conn in self.conns:
                conn.end()
            if self.path is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.path)
        # Raise even if the test has failed: the server's error is its most likely cause, and
        # Python shows the test's own error as the context.
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            raise BaseExceptionGroup("several scripts failed", self._errors)

    async def _stop(self) -> None:
        """Accept no more, and end the scripts."""
        try:
            if self._accepting:
                # A cancelled sock_accept() loses a socket that it has accepted. So accept no
                # more, and give the last one a turn to be taken.
                self._accepting = False
                with contextlib.suppress(NotImplementedError):  # Windows
                    self._loop.remove_reader(self._listener)
                await asyncio.sleep(0)
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _listen(self) -> socket.socket:
        address: str | tuple[str, int]
        if self.path is not None:
            listener = socket.socket(socket.AF_UNIX)
            address = self.path
        else:
            listener = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET)
            address = self.address
            # A test's second server may take the port of its first; on Windows the option
            # would let two of them share it.
            if os.name == "posix":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            if self._receive_buffer is not None:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
            listener.setblocking(False)
            listener.bind(address)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
        if self.path is None:
            self.port = listener.getsockname()[1]
        return listener

    def _start(self, coro: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        while self._accepting:
            try:
                sock, _ = await self._loop.sock_accept(self._listener)
            except OSError as exc:
                self._errors.append(exc)
                return
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
            if callable(script):
                await script(conn)
            else:
                for step in script:
                    await step(conn)
            await conn.drain()
        except ClientGone:
            pass
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:  # pytest.fail() raises no Exception
            self._errors.append(exc)
            conn.reset_now()
        finally:
            conn.end()


@contextlib.contextmanager
def refusing_address(host: str = "127.0.0.1") -> Iterator[tuple[str, int]]:
    """Yield (host, port) of a port that is taken and not listened on: connects are refused."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        yield host, sock.getsockname()[1]
