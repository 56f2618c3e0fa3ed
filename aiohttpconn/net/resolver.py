"""Names to addresses: ``getaddrinfo`` in a thread, one lookup at a time per name. Layer: net."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from ..exceptions import ResolveError

__all__ = ["Address", "Resolver", "default_resolver"]

MAX_ENTRIES = 1024
"""Names that a cache holds at most; the oldest goes first."""

Address: TypeAlias = tuple[int, int, int, tuple[Any, ...]]
"""Arguments of ``socket.socket`` and ``connect``: family, type, proto, sockaddr."""

_Key: TypeAlias = tuple[str, int]


class Resolver:
    """Resolve names with the system's ``getaddrinfo``, in its order.

    *ttl*: seconds for which an answer is used again; 0 asks every time. *max_entries*: answers
    kept. May be shared by event loops in different threads.
    """

    def __init__(self, *, ttl: float = 0.0, max_entries: int = MAX_ENTRIES) -> None:
        # Configuration
        self.ttl = ttl
        self.max_entries = max_entries
        # Per answer: until when it holds, and what it is. Older ones first.
        self._cache: dict[_Key, tuple[float, list[Address]]] = {}
        # Per lookup under way
        self._lookups: WeakKeyDictionary[
            asyncio.AbstractEventLoop, dict[_Key, asyncio.Future[list[Address]]]
        ] = WeakKeyDictionary()

    async def resolve(self, host: str, port: int) -> list[Address]:
        """Return the stream addresses of *host* in getaddrinfo's order; never an empty list.

        An IP address, also one with a zone (``fe80::1%eth0``), is answered without suspending.
        Callers that ask for the same name meanwhile share one lookup, and one that is cancelled
        leaves it to the others. Raises ``ResolveError`` with getaddrinfo's ``errno``.
        """
        if ":" in host or host[-1:].isdigit():
            try:
                return _lookup(host, port, socket.AI_NUMERICHOST)
            except socket.gaierror as exc:
                if ":" in host:
                    raise _resolve_error(host, exc) from exc
        key = host, port
        if self.ttl > 0:
            until, addresses = self._cache.get(key, (0.0, []))
            if time.monotonic() < until:
                return list(addresses)
        try:
            name = host.encode("idna")
        except UnicodeError as exc:
            raise _resolve_error(host, exc) from exc
        loop = asyncio.get_running_loop()
        lookups = self._lookups.setdefault(loop, {})
        lookup = lookups.get(key)
        if lookup is None:
            lookup = lookups[key] = loop.run_in_executor(None, _lookup, name, port)
            lookup.add_done_callback(lambda done: self._finished(lookups, key, done))
        # asyncio.wait leaves the lookup alone when this caller is cancelled.
        await asyncio.wait([lookup])
        try:
            return list(lookup.result())
        except OSError as exc:
            # One exception per caller: each gets its own text and traceback.
            raise _resolve_error(host, exc) from exc

    def _finished(
        self,
        lookups: dict[_Key, asyncio.Future[list[Address]]],
        key: _Key,
        lookup: asyncio.Future[list[Address]],
    ) -> None:
        lookups.pop(key, None)
        # exception() also tells asyncio that somebody looked, where all callers have left.
        if lookup.cancelled() or lookup.exception() is not None or self.ttl <= 0:
            return
        self._cache.pop(key, None)
        while self._cache and len(self._cache) >= self.max_entries:
            self._cache.pop(next(iter(self._cache)), None)
        self._cache[key] = time.monotonic() + self.ttl, lookup.result()


def _lookup(host: str | bytes, port: int, flags: int = 0) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, kind, proto, sockaddr) for family, kind, proto, _, sockaddr in found]


def _resolve_error(host: str, exc: Exception) -> ResolveError:
    if isinstance(exc, OSError):
        error = ResolveError(f"cannot resolve {host!r}: {exc.strerror or exc}")
        error.errno = exc.errno
    else:
        error = ResolveError(f"cannot resolve {host!r}: not a valid host name ({exc})")
        error.errno = socket.EAI_NONAME
    error.errors = (exc,)
    return error


default_resolver = Resolver()
"""Used where no other resolver is given: asks the system every time."""
