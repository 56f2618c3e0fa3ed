"""Hosts: which item of ``fetch_many`` begins next, so that a slow host delays no other.

The requests that may be under way are *places*, and hosts share them out as origins share out the
connections of a pool: see ``pool.scheduler.reserved``. An item whose host has its share waits,
after those of the same host. Every method costs the same however many hosts and items there are.
No I/O, no event loop. Layer: client.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from typing import Any, TypeAlias

from ..pool.scheduler import reserved

__all__ = ["Host", "Hosts"]

_match_host = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//(?:[^/?#@]*@)?([^/?#]*)").match


class Host:
    """A host, with its port: how many requests are under way there, and the items that wait."""

    __slots__ = ("items", "name", "running")

    def __init__(self, name: str) -> None:
        self.name = name
        self.running = 0
        self.items: deque[Waiting] = deque()


Waiting: TypeAlias = tuple[Host, int, Any]
"""An item that waits: its host, its number, and the item."""


class Hosts:
    """The hosts that have a request under way or an item that waits.

    *places*: requests under way in all, *per_host*: at one host. ``complete`` is set when no
    further items will come: a host that is the only one left may then have all places.
    """

    def __init__(self, places: int, per_host: float) -> None:
        self._per_host = per_host
        self._reserve, self._large = reserved(places)
        self.free = places
        # Items that wait.
        self.waiting = 0
        self.complete = False
        self._hosts: dict[str, Host] = {}
        # Hosts with items that wait, in turn: those that may have any free place, and those that
        # leave the reserve to others. One that has as many requests as it may is in neither.
        self._few: OrderedDict[Host, None] = OrderedDict()
        self._many: OrderedDict[Host, None] = OrderedDict()

    def of(self, url: Any) -> Host:
        """Return the host of *url*; "" is the host of URLs without one, which have a base URL."""
        match = _match_host(url) if isinstance(url, str) else None
        name = match[1].lower() if match is not None else ""
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = Host(name)
        return host

    def begin(self, host: Host) -> bool:
        """Begin a request at *host*, none of whose items waits, if it may have a place now."""
        running = host.running
        if (
            not self.free
            or running >= self._per_host
            or (running >= self._large and not self._spares())
        ):
            return False
        host.running = running + 1
        self.free -= 1
        return True

    def end(self, host: Host) -> None:
        """End a request at *host*."""
        running = host.running
        host.running = running - 1
        self.free += 1
        if host.items:
            # It stays in its line, unless it had just as many requests as make the difference.
            if running in (self._large, self._per_host):
                self._queue(host)
        elif running == 1:
            del self._hosts[host.name]

    def add(self, item: Waiting) -> None:
        """Let *item* wait: ``begin`` gave its host no place."""
        host = item[0]
        host.items.append(item)
        self.waiting += 1
        if len(host.items) == 1:
            self._queue(host)

    def ready(self) -> bool:
        """Whether an item that waits may begin."""
        return self.free > 0 and bool(self._few or (self._many and self._spares()))

    def next(self) -> Waiting:
        """Begin the request of the item whose turn it is, and return that; one must be ready."""
        host, _ = (self._few or self._many).popitem(last=False)
        item = host.items.popleft()
        self.waiting -= 1
        self.free -= 1
        host.running += 1
        if host.items:
            self._queue(host)
        return item

    def clear(self) -> None:
        """Forget all items that wait."""
        for host in self._hosts.values():
            host.items.clear()
        self._few.clear()
        self._many.clear()
        self.waiting = 0

    def _spares(self) -> bool:
        """Whether a host that has many requests under way may have another."""
        return self.free > self._reserve or (self.complete and len(self._hosts) == 1)

    def _queue(self, host: Host) -> None:
        """Put *host* into its line, in which it keeps its place."""
        few = host.running < self._large
        (self._many if few else self._few).pop(host, None)
        if host.running < self._per_host:
            (self._few if few else self._many)[host] = None
