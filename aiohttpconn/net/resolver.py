"""Resolving names: ``getaddrinfo`` in threads of its own, one lookup at a time per name.

``getaddrinfo`` cannot be interrupted, and a dead name may hold a thread for half a minute. In
the loop's own executor such names would block every file read. Here they block other names only
when they outnumber the threads, which ``CROWD`` lets grow.

sockets.py connects to the addresses. Layer: net.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from time import monotonic
from typing import Any, Protocol, TypeAlias

from ..arguments import Checks, check_arguments, count, mapping, number
from ..exceptions import InvalidURL, ResolveError
from ..http11.grammar import check_host
from .threads import DaemonThreads

__all__ = ["Address", "Resolver", "Resolves", "StaticLike", "default_resolver", "interleave"]

MAX_ENTRIES = 4096
"""Names that a cache holds at most, in some 4 MB; the oldest is dropped first."""

NEGATIVE_TTL = 1.0
"""Seconds for which it is cached that there is no such name, if answers are cached at all: a
scraper asks for the same dead host a thousand times. Other errors are not cached. SERVFAIL and a
DNS server that does not answer (EAI_AGAIN) are temporary, and a retry comes within the second."""

THREADS = 16
"""Concurrent lookups while they are quick: at 20 ms each, 800 names a second."""

CROWD = 32
"""Factor by which the threads may grow while lookups hang: to 512, in 9 MB
(benchmarks/micro/resolver_threads.py). A pool of 100 connections with 10 s to connect leaves 100
names in getaddrinfo each time, and that may take 40 s for one of them."""

_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})

Address: TypeAlias = tuple[int, int, int, tuple[Any, ...]]
"""Arguments of ``socket.socket`` and ``connect``: family, type, proto, sockaddr."""

StaticLike: TypeAlias = "Mapping[str, str | Sequence[str]]"
"""A mapping from a name, or "name:port", to its IP address or a sequence of them."""

_PORT = re.compile(r"[0-9]{1,5}")


class Resolves(Protocol):
    """The interface of a resolver, ours or a caller's own."""

    async def resolve(self, host: str, port: int) -> list[Address]:
        """Return the addresses of *host*, with *port* in them; at least one.

        The connection attempts follow their order: see ``interleave``. Raises ``OSError``,
        preferably ``ResolveError``, if there is none. A caller whose time is over cancels it.

        A resolver that keeps answers should have ``Resolver.refresh``, too: when no address of an
        answer could be connected to, a pool calls it.
        """
        ...


_CHECKS: Checks = {
    "ttl": number("seconds", least=0),
    "max_entries": count(1, "name"),
    "threads": count(1, "thread", none=True),
    "static": mapping("a mapping of names to addresses", none=True),
}


class Resolver:
    """Resolve names with the system's ``getaddrinfo``.

    *ttl*: seconds for which an answer is cached; 0 asks every time. *max_entries*: names in the
    cache. *threads*: concurrent lookups, in threads of this resolver's own; ``CROWD`` times as
    many while lookups hang. By default it shares ``THREADS`` with the others of the process.

    *static*: names that are never looked up, like those of ``curl --resolve``: a name or
    "name:port", and an IP address or a list of them, in the order of the attempts. The name "*"
    stands for all names without an entry of their own. No entry changes an IP address. Raises
    ``ValueError`` for an invalid argument or entry.

    Event loops in different threads may share a resolver; then they share lookups, too.
    """

    def __init__(
        self,
        *,
        ttl: float = 0.0,
        max_entries: int = MAX_ENTRIES,
        threads: int | None = None,
        static: StaticLike | None = None,
    ) -> None:
        check_arguments(_CHECKS, locals())
        # Configuration
        self.ttl = ttl
        self.max_entries = max_entries
        self._static = _read_static(static or {})
        self._threads = _shared if threads is None else _make_threads(threads)
        # Per name, the oldest first: with one ttl for all they are the first to expire
        self._cache: OrderedDict[str, _Answer] = OrderedDict()
        # Per lookup under way: the futures that wait for it
        self._lookups: dict[str, _Waiters] = {}
        # Guards both. A forked child makes a new lock, because it has none of the threads.
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<Resolver ttl={self.ttl:g}, {len(self._cache)} cached, {len(self._lookups)} asked>"

    async def resolve(self, host: str, port: int) -> list[Address]:
        """Return the stream addresses of *host*, with *port* in them; never an empty list.

        The order is getaddrinfo's (RFC 6724), ``interleave``d. For an IP address, also one with
        a zone (``fe80::1%eth0``), and for a static or cached name it does not suspend. Callers
        that ask for the same name at the same time share one lookup, for whatever port; a
        cancelled caller leaves it to the others. Raises ``ResolveError`` with getaddrinfo's
        ``errno``.
        """
        name = _name(host)
        known = self._known(name, host, port)
        if known is not None:
            return known
        waiter: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._ask(name, port, waiter)
        answer = await waiter
        return answer.addresses_for(host, port)

    async def refresh(self, host: str, port: int, since: float) -> list[Address]:
        """Return the addresses of *host* from an answer that is newer than *since*.

        *since* is a time of ``time.monotonic()``. An older answer is dropped from the cache. The
        list is empty if no answer for *host* is cached or asked for, so that another lookup would
        bring nothing new. Raises as ``resolve`` does.
        """
        name = _name(host)
        with self._guard():
            answer = self._cache.get(name)
            if answer is not None and answer.since < since:
                del self._cache[name]
            elif answer is None and name not in self._lookups:
                return []
        return await self.resolve(host, port)

    def _known(self, name: str, host: str, port: int) -> list[Address] | None:
        """Return the addresses of *host*, alias *name*, if no lookup is needed; else None."""
        answer = self._cached(name)
        if answer is not None:
            return answer.addresses_for(host, port)
        if _may_be_numeric(host):
            try:
                return _look_up(host, port, socket.AI_NUMERICHOST)
            except socket.gaierror as exc:
                if ":" in host:
                    raise _resolve_error(host, exc) from exc
        if self._static:
            name = name.removesuffix(".")
            for key in ((name, port), (name, 0), ("*", port), ("*", 0)):
                if key in self._static:
                    return [_with_port(address, port) for address in self._static[key]]
        return None

    def _cached(self, name: str) -> _Answer | None:
        """Return the cached answer for *name*, if it is still valid."""
        answer = self._cache.get(name)
        return answer if answer is not None and monotonic() < answer.until else None

    def _guard(self) -> threading.Lock:
        """Return the lock, a new one in a forked child."""
        if self._pid != os.getpid():
            self._pid, self._lock, self._lookups = os.getpid(), threading.Lock(), {}
        return self._lock

    def _ask(self, name: str, port: int, waiter: asyncio.Future[_Answer]) -> None:
        """Let *waiter* wait for the lookup of *name* that is under way, or for a new one."""
        with self._guard():
            is_new = name not in self._lookups
            # A thread may have finished the lookup since the caller searched the cache.
            if is_new and (answer := self._cached(name)) is not None:
                waiter.set_result(answer)
                return
            waiters = self._lookups.setdefault(name, {})
            waiters.setdefault(waiter.get_loop(), []).append(waiter)
        if is_new:
            try:
                self._threads.submit(self._work, name, port)
            except BaseException as exc:  # there is no thread, and none can be started
                self._finish(name, _Answer(port, [], exc))
                if not isinstance(exc, Exception):
                    raise

    def _work(self, name: str, port: int) -> None:
        """Look *name* up. This runs in a thread."""
        with self._lock:
            # While other names hang, all callers may have been cancelled before this lookup
            # starts. It would only delay the callers that still wait for other names.
            if all(waiter.cancelled() for waiter in chain(*self._lookups[name].values())):
                del self._lookups[name]
                return
        try:
            # With the first caller's port. It makes no difference to names, but a test that
            # replaces getaddrinfo may lead a port elsewhere.
            answer = _Answer(port, interleave(_look_up(name.encode("ascii"), port)))
        except BaseException as exc:
            # The frames of a traceback would live as long as the answer.
            answer = _Answer(port, [], exc.with_traceback(None))
        self._finish(name, answer)

    def _finish(self, name: str, answer: _Answer) -> None:
        """Cache *answer*, and give it to all waiters. This runs in any thread."""
        with self._lock:
            waiters = self._lookups.pop(name)
            self._keep(name, answer)
        for loop, futures in waiters.items():
            try:
                loop.call_soon_threadsafe(_wake, futures, answer)
            except RuntimeError:
                pass  # that loop is closed: nothing waits there any more

    def _keep(self, name: str, answer: _Answer) -> None:
        """Cache *answer*. Called with the lock held."""
        ttl = self.ttl
        if answer.error is not None:
            # Others, such as a lack of descriptors, are temporary, or not even the name's.
            lasting = isinstance(answer.error, socket.gaierror) and (
                answer.error.errno in _NO_SUCH_NAME
            )
            ttl = min(ttl, NEGATIVE_TTL) if lasting else 0
        if ttl <= 0:
            return
        now = monotonic()
        answer.since = now
        answer.until = now + ttl
        self._cache[name] = answer
        self._cache.move_to_end(name)
        while self._cache:
            oldest = next(iter(self._cache.values()))
            if now < oldest.until and len(self._cache) <= self.max_entries:
                break
            self._cache.popitem(last=False)


class _Answer:
    """The addresses that a lookup found for one port, or the error that it ended with."""

    __slots__ = ("addresses", "error", "port", "since", "until")

    def __init__(
        self, port: int, addresses: list[Address], error: BaseException | None = None
    ) -> None:
        self.port = port
        self.addresses = addresses
        self.error = error
        # The time of monotonic() from which, and until which, it is cached.
        self.since = self.until = 0.0

    def addresses_for(self, host: str, port: int) -> list[Address]:
        """Return a new list of the addresses, with *port* in them, or raise a new error."""
        if self.error is not None:
            raise _resolve_error(host, self.error) from self.error
        if port == self.port:
            return self.addresses.copy()
        return [_with_port(address, port) for address in self.addresses]


_Waiters: TypeAlias = dict[asyncio.AbstractEventLoop, list[asyncio.Future[_Answer]]]


def interleave(addresses: Sequence[Address]) -> list[Address]:
    """Return *addresses* with the families taking turns, each in its own order (RFC 8305 §4).

    The first address stays the first. If its family leads nowhere, the second attempt to connect
    uses the other family.
    """
    first = [address for address in addresses if address[0] == addresses[0][0]]
    other = [address for address in addresses if address[0] != addresses[0][0]]
    turns = min(len(first), len(other))
    return [*chain(*zip(first, other, strict=False)), *first[turns:], *other[turns:]]


def _wake(waiters: list[asyncio.Future[_Answer]], answer: _Answer) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(answer)


def _may_be_numeric(host: str) -> bool:
    # The C library would take "*" for an address, too.
    return ":" in host or host[-1:].isdigit()


def _look_up(host: str | bytes, port: int, flags: int = 0) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, kind, proto, sockaddr) for family, kind, proto, _, sockaddr in found]


def _with_port(address: Address, port: int) -> Address:
    # An IPv6 sockaddr has flowinfo and scope after the port.
    family, kind, proto, sockaddr = address
    return family, kind, proto, (sockaddr[0], port, *sockaddr[2:])


def _name(host: str) -> str:
    """Return *host* as it is looked up: ASCII, lower case. Raise ``ResolveError`` if invalid."""
    try:
        name = host.encode("idna").decode("ascii").lower()
        if "\0" in name:
            raise UnicodeError("it has a NUL")
    except UnicodeError as exc:
        raise _resolve_error(host, exc) from exc
    return name


def _resolve_error(host: str, exc: BaseException) -> ResolveError:
    """Return an error for one caller: each gets its own text and traceback."""
    errno: int | None
    if isinstance(exc, UnicodeError):
        why, errno = f"not a valid host name ({exc})", socket.EAI_NONAME
    elif isinstance(exc, OSError):
        why, errno = exc.strerror or str(exc), exc.errno
    else:
        why, errno = str(exc) or type(exc).__name__, socket.EAI_FAIL
    error = ResolveError(f"cannot resolve {host!r}: {why}")
    error.errno = errno
    error.errors = (exc,)
    return error


def _read_static(static: Mapping[Any, Any]) -> dict[tuple[str, int], list[Address]]:
    """Return addresses by name and port, where 0 is all ports; raise ``ValueError`` if invalid."""
    found: dict[tuple[str, int], list[Address]] = {}
    for key, value in static.items():
        where = f"static {key!r}"
        if not isinstance(key, str):
            raise TypeError(f"{where}: a name must be a str, not {type(key).__name__}")
        if _numeric(key):
            raise ValueError(f"{where}: expected a name; an IP address is never looked up")
        host, colon, digits = key.partition(":")
        port = int(digits) if _PORT.fullmatch(digits) else 0
        try:
            check_host(host)
            name = _name(host).removesuffix(".")
        except (InvalidURL, ResolveError) as exc:
            raise ValueError(f"{where}: {exc}") from exc
        if not name or _numeric(name) or (colon and not 0 < port < 65536):
            raise ValueError(f"{where}: expected a name, or a name and a port of 1 to 65535")
        if "*" in name and name != "*":
            raise ValueError(f"{where}: '*' stands for all names, not for a part of one")
        if (name, port) in found:
            raise ValueError(f"{where}: this name is given twice")
        several = isinstance(value, Iterable) and not isinstance(value, str)
        each = [_numeric(text) for text in (value if several else [value])]
        if not each or not all(each):
            raise ValueError(f"{where}: expected an IP address or a list of them, got {value!r}")
        found[name, port] = list(chain(*each))
    return found


def _numeric(text: object) -> list[Address]:
    """Return the address of *text*, an IP address, with port 0; an empty list if it is not one."""
    if not isinstance(text, str) or not _may_be_numeric(text):
        return []
    try:
        return _look_up(text, 0, socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []


def _make_threads(count: int) -> DaemonThreads:
    return DaemonThreads(count, limit=count * CROWD)


# For all resolvers without threads of their own. It starts no thread before it needs one.
_shared = _make_threads(THREADS)

default_resolver = Resolver()
"""The resolver of callers that give none: it asks the system every time."""
