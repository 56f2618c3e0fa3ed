"""Whether an idle connection may still be used, by the server's Keep-Alive and by its socket.

Layer: pool.
"""

from __future__ import annotations

import re
import select
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..response import HTTPResponse
    from .scheduler import PooledConnection

__all__ = ["LOOK_AFTER", "StaleCheck", "apply_keep_alive"]

LOOK_AFTER = 0.001
"""Seconds of idleness after which a connection's socket is checked before it is used again.

The loop itself sees bytes that came earlier, and the connection closes at once. Only bytes that
came since it last polled wait in the kernel, and it polls more often than that unless it is kept
busy. The check costs 1.0 to 1.2 µs: see benchmarks/micro/stale_look.py.
"""

KEEP_ALIVE_MARGIN = 1.0
"""Seconds before the server's limit, or half of a short limit, from which an idle connection is
not used any more: the server might close it while a request is on its way."""

# Of RFC 2068's Keep-Alive: "timeout=5, max=100".
_HINT = re.compile(rb"(?i)\nkeep-alive:[^\r\n]*")
_TIMEOUT = re.compile(rb"(?i)[:,;\t ]timeout[\t ]*=[\t ]*([0-9]{1,9})")
_MAX = re.compile(rb"(?i)[:,;\t ]max[\t ]*=[\t ]*([0-9]{1,9})")


def apply_keep_alive(connection: PooledConnection, response: HTTPResponse, count: int) -> None:
    """Apply the Keep-Alive limits in *response*, the last of *count* that ended, to *connection*.

    The field says for how long the server keeps the connection, and for how many requests. The
    first response decides: servers count down, or repeat themselves.
    """
    connection.exchanges_left -= count
    if response.number != count:
        return
    hint = _HINT.search(response.head or b"")
    if hint is None:
        return
    if seconds := _TIMEOUT.search(hint[0]):
        limit = float(seconds[1])
        kept = limit - min(KEEP_ALIVE_MARGIN, limit / 2)
        connection.keepalive = min(connection.keepalive, kept)
    if requests := _MAX.search(hint[0]):
        connection.exchanges_left = min(connection.exchanges_left, int(requests[1]))


class StaleCheck:
    """Tell whether an idle connection must not be used any more. *max_age*: seconds, or inf."""

    __slots__ = ("_max_age", "_poll")

    def __init__(self, max_age: float) -> None:
        self._max_age = max_age
        self._poll = select.poll() if hasattr(select, "poll") else None

    def is_old(self, connection: PooledConnection) -> bool:
        """Whether *connection* is older than *max_age*."""
        return monotonic() - connection.connected_at > self._max_age

    def is_stale(self, connection: PooledConnection) -> bool:
        """Whether the idle *connection* has ended, has been idle for too long, or is too old.

        Polls its socket without waiting: no request has asked for anything that can be read there,
        not even for an end of file.
        """
        now = monotonic()
        if not connection.reusable() or now - connection.connected_at > self._max_age:
            return True
        if now - connection.idle_since > connection.keepalive:
            return True
        sock = connection.get_extra_info("socket")
        if sock is None or (number := sock.fileno()) < 0:
            return True
        poll = self._poll
        if poll is None:
            readable = bool(select.select([number], [], [], 0)[0])
        else:
            poll.register(number, select.POLLIN)
            try:
                readable = bool(poll.poll(0))
            finally:
                poll.unregister(number)
        if not readable:
            connection.looked()
        return readable
