"""Connecting sockets: to the first address that answers (RFC 8305), or to a Unix path.

It works the same on asyncio and on uvloop, which has no Happy Eyeballs of its own. Whatever
happens, ``CancelledError`` included, only the returned socket stays open. The source of the
addresses decides their order: the resolver lets address families take turns, a caller's own list
stays as it is, and in a pool connections take turns over the addresses. Layer: net.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..exceptions import ConnectError, ConnectionRefused

if TYPE_CHECKING:
    from ..types import SocketOption
    from .resolver import Address

__all__ = [
    "ATTEMPT_DELAY",
    "connect_first",
    "connect_unix",
    "identity",
    "is_open",
    "keepalive_options",
    "read_watcher",
]

ATTEMPT_DELAY = 0.25
"""Seconds from one connection attempt to the next (RFC 8305 §5, "Connection Attempt Delay")."""

MAX_KEEPALIVE = 32767
"""The most seconds between keepalive probes that Linux accepts."""

# Windows' default loop cannot wait for a socket to become writable.
_PROACTOR: Any = getattr(asyncio, "ProactorEventLoop", ())

# Results of connect(2) while the outcome is open; on Windows it is the last one.
_IN_PROGRESS = frozenset(
    {errno.EINPROGRESS, errno.EINTR, getattr(errno, "WSAEWOULDBLOCK", errno.EINPROGRESS)}
)
_poll: Any = getattr(select, "poll", None)

HINT_REFUSED = "Is a server running on that port?"
HINT_REFUSED_UNIX = "Is a server running on that socket?"
HINT_REFUSED_PROXY = "Is the proxy running there?"

_PROXY = "the proxy "


def read_watcher(sock: Any) -> Callable[[int], Any]:
    """Return a function that tells whether *sock* can be read, after as many ms as it is given.

    It can be read at its end, too. None as *sock*, a closed one, or what a dialer has in its place
    and that has no descriptor, never can.
    """
    fileno = getattr(sock, "fileno", None)
    if fileno is None or (number := fileno()) < 0:
        return lambda ms: ()
    if _poll is None:
        return lambda ms: select.select([number], [], [], ms / 1000)[0]
    poll = _poll()
    poll.register(number, select.POLLIN)
    return poll.poll  # type: ignore[no-any-return]


def keepalive_options(seconds: int | None) -> tuple[SocketOption, ...]:
    """Return the options for TCP keepalive probes; none for None.

    *seconds*: without a byte from the peer until the first probe, and from one probe to the next.
    The system decides how many fail before the connection does (Linux: 9). A platform without a
    way to set the time uses its own, often two hours. Raises ``ValueError`` for an invalid time.
    """
    if seconds is None:
        return ()
    if type(seconds) is not int or not 0 < seconds <= MAX_KEEPALIVE:
        raise ValueError(
            f"tcp_keepalive must be 1 to {MAX_KEEPALIVE} whole seconds, or None, got {seconds!r}"
        )
    # macOS has another name for the first one.
    names = (
        "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE",
        "TCP_KEEPINTVL",
    )
    numbers = [getattr(socket, name) for name in names if hasattr(socket, name)]
    times = [(socket.IPPROTO_TCP, number, seconds) for number in numbers]
    return (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *times


async def connect_first(
    addresses: Sequence[Address],
    where: str,
    options: Sequence[SocketOption] = (),
    source: tuple[str, int] | None = None,
    *,
    is_proxy: bool = False,
    skipped: list[Address] | None = None,
) -> socket.socket:
    """Return a TCP socket connected to the first of *addresses* that answers.

    Attempts start in this order: the next one ``ATTEMPT_DELAY`` after the last, or at once when
    one fails. *where* names all addresses in the texts of errors, which speak of a proxy if
    *is_proxy*. *source* is the (host, port) to connect from. *skipped* is filled, also on an error,
    with the addresses that failed, or did not answer before the next one was tried.

    Raises ``ConnectError``, or ``ConnectionRefused`` if all addresses refuse, with ``errors``,
    the ``errno`` of the last error, and ``hint``.
    """
    if not addresses:
        raise ConnectError(
            f"cannot connect to {_PROXY * is_proxy}{where}: the resolver gave no address"
        )
    if skipped is None:
        skipped = []
    if len(addresses) == 1:
        try:
            return await _connect(addresses[0], options, source)
        except OSError as exc:
            skipped.append(addresses[0])
            raise _connect_error([(_shown(addresses[0]), exc)], where, is_proxy) from exc
    loop = asyncio.get_running_loop()
    errors: list[tuple[str, OSError]] = []
    attempts: dict[asyncio.Task[socket.socket], Address] = {}
    started = 0
    try:
        while True:
            if started < len(addresses):
                address = addresses[started]
                attempts[loop.create_task(_connect(address, options, source))] = address
                started += 1
            elif not attempts:
                raise _connect_error(errors, where, is_proxy) from errors[-1][1]
            done, _ = await asyncio.wait(
                attempts,
                timeout=ATTEMPT_DELAY if started < len(addresses) else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not done:
                skipped += [address for address in attempts.values() if address not in skipped]
            for task in done:
                address = attempts.pop(task)
                error = task.exception()
                if error is None:
                    if address in skipped:  # slow, but the first nevertheless
                        skipped.remove(address)
                    return task.result()
                if not isinstance(error, OSError):
                    raise error
                errors.append((_shown(address), error))
                if address not in skipped:
                    skipped.append(address)
    finally:
        for task in attempts:
            # A cancelled attempt closes its own socket. Two may have connected in the same turn.
            if not task.cancel() and not task.cancelled() and task.exception() is None:
                task.result().close()


async def connect_unix(
    path: str | bytes, options: Sequence[SocketOption] = (), *, is_proxy: bool = False
) -> socket.socket:
    """Return a socket connected to the Unix socket at *path*. Raises as ``connect_first`` does."""
    shown = f"Unix socket {os.fsdecode(path)!r}"
    try:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.setblocking(False)
            for level, name, value in options:
                sock.setsockopt(level, name, value)
            await _finish_connect(sock, path)
        except BaseException:
            sock.close()
            raise
    except OSError as exc:
        error = _connect_error([(shown, exc)], shown, is_proxy)
        if isinstance(error, ConnectionRefused) and not is_proxy:
            error.hint = HINT_REFUSED_UNIX
        raise error from exc
    return sock


async def _connect(
    address: Address, options: Sequence[SocketOption], source: tuple[str, int] | None
) -> socket.socket:
    """Return a socket that is connected to *address*."""
    family, kind, proto, sockaddr = address
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as exc:
            if exc.errno != errno.ENOPROTOOPT:  # not TCP: nothing to turn off
                raise
        for level, name, value in options:
            sock.setsockopt(level, name, value)
        if source is not None:
            sock.bind(source)
        await _finish_connect(sock, sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock


async def _finish_connect(sock: socket.socket, sockaddr: Any) -> None:
    """Connect the non-blocking *sock*.

    This does not use ``loop.sock_connect``: uvloop's resolves the address again, which loses an
    IPv6 zone and a turn of the loop, and those of both loops take a Unix socket's EAGAIN (its
    backlog is full) for EINPROGRESS.
    """
    loop = asyncio.get_running_loop()
    if isinstance(loop, _PROACTOR):
        await loop.sock_connect(sock, sockaddr)
        return
    error = sock.connect_ex(sockaddr)
    if error in _IN_PROGRESS:
        # By number: for a socket that is not registered, selectors build an error with its repr.
        number = sock.fileno()
        if _is_writable(number):
            # A server on this computer has answered already, so the loop need not be asked to
            # wait. Yield once, so that a task that connects in a loop does not starve others.
            await asyncio.sleep(0)
        else:
            await _wait_writable(loop, number)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))


def _is_writable(number: int) -> bool:
    """Return whether the descriptor *number* is writable now; False if that cannot be told."""
    if _poll is None:
        return False
    poll = _poll()
    poll.register(number, select.POLLOUT)
    return bool(poll.poll(0))


async def _wait_writable(loop: asyncio.AbstractEventLoop, number: int) -> None:
    writable = loop.create_future()
    loop.add_writer(number, _resolve, writable)
    try:
        await writable
    finally:
        # Stop before the caller closes the descriptor: no loop may poll a closed one.
        loop.remove_writer(number)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def identity(sock: socket.socket) -> tuple[int, os.stat_result]:
    """Return what tells whether the descriptor of *sock* is still that of the same socket."""
    return sock.fileno(), os.fstat(sock.fileno())


def is_open(known: tuple[int, os.stat_result]) -> bool:
    """Whether the descriptor that is *known*, by ``identity``, is still open for its socket."""
    try:
        return os.path.samestat(os.fstat(known[0]), known[1])
    except OSError:
        return False


def _shown(address: Address) -> str:
    """Return an address as host:port, or [host]:port for IPv6."""
    host, port = address[3][:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _connect_error(errors: list[tuple[str, OSError]], where: str, is_proxy: bool) -> ConnectError:
    """Return one error for all attempts, given as (address, its error)."""
    who = _PROXY * is_proxy
    refused = all(isinstance(exc, ConnectionRefusedError) for _, exc in errors)
    if len(errors) > 1:
        each = "; ".join(f"{shown}: {_why(exc)}" for shown, exc in errors)
        text = f"cannot connect to {who}{where}: {each}"
    elif refused:
        text = f"connection refused by {who}{errors[0][0]}"
    else:
        text = f"cannot connect to {who}{errors[0][0]}: {_why(errors[0][1])}"
    error = ConnectionRefused(text) if refused else ConnectError(text)
    error.errno = errors[-1][1].errno
    error.errors = tuple(exc for _, exc in errors)
    if refused:
        error.hint = HINT_REFUSED_PROXY if is_proxy else HINT_REFUSED
    return error


def _why(exc: OSError) -> str:
    # The loops' own texts repeat the address.
    if exc.errno is None or isinstance(exc, socket.gaierror):
        return str(exc)
    return os.strerror(exc.errno).lower()
