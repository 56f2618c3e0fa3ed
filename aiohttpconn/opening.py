"""Open a connection for a request: dial within the limits, and name the request in every error.

Layer: above net, below connection.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from .exceptions import ConnectTimeout, TotalTimeout, describe
from .net.destination import DialReport
from .net.loops import abort_at_shutdown
from .net.tls import check_fingerprint, read_fingerprint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .net.destination import Destination
    from .net.timeouts import Timeout
    from .protocol import HTTP1Protocol

__all__ = ["Dialer", "Opening"]

E = TypeVar("E", bound=BaseException)
P = TypeVar("P", bound="HTTP1Protocol")

Dialer: TypeAlias = "Callable[[Callable[[], P], Destination, DialReport], \
Awaitable[tuple[asyncio.Transport, P]]]"
"""Connects a transport and puts the factory's protocol on it; ``net.dial.dial`` is one."""


class Opening:
    """One connect that is under way. Its owner may end it at any moment with ``close()``.

    *method* and *url* are those of the request that wants the connection; both are empty if
    ``connect()`` was called by hand. *origin* is the beginning of URLs without a host.
    """

    __slots__ = ("_began", "_limit", "_method", "_url", "closed", "report")

    def __init__(self, method: str, url: str, origin: str) -> None:
        self._method = method
        self._url = f"{origin}{url}" if url.startswith("/") else url or origin
        self._began = monotonic()
        self._limit: asyncio.Timeout | None = None
        self.closed = False
        self.report = DialReport()

    async def open(
        self,
        dial: Dialer[P],
        make_protocol: Callable[[], P],
        destination: Callable[[], Awaitable[Destination]],
        timeout: Timeout,
        deadline: float | None,
    ) -> P:
        """Return a connected protocol. *deadline*: the request's, on the loop's clock.

        Raises the errors of ``HTTPConnection.connect``. If cancelled, it leaves nothing open.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        if deadline is None and timeout.total is not None:
            deadline = started + timeout.total
        total_by = inf if deadline is None else deadline
        connect_by = inf if timeout.connect is None else started + timeout.connect
        when = min(total_by, connect_by)
        limit = self._limit = asyncio.timeout_at(when if when < inf else None)
        made: P | None = None
        try:
            async with limit:
                place = await destination()
                transport, made = await dial(make_protocol, place, self.report)
            if self.closed:
                raise closed_here()
            if place.fingerprint is not None:
                _check_pin(place, transport)
            made.raw_transport = self.report.raw_transport or transport
            abort_at_shutdown(loop, made)
            protocol, made = made, None
            # There is no await since: the transport always has an owner.
            return protocol
        except (OSError, ValueError) as exc:
            failed: Exception = exc
            if limit.expired() and self.closed:
                failed = closed_here()
            elif limit.expired() and self.report.refusal is not None:
                failed, self.report.refusal = self.report.refusal, None
            elif limit.expired() and connect_by <= total_by:
                failed = ConnectTimeout(_late("connect", timeout.connect))
            elif limit.expired():
                failed = TotalTimeout(_late("total", timeout.total))
            elif not isinstance(exc, OSError):
                raise
            self.describe(failed, getattr(failed, "hint", ""))
            if failed is exc:
                raise
            raise failed from None
        finally:
            self._limit = None
            if made is not None:
                made.abort()

    def describe(self, exc: E, hint: str = "") -> E:
        """Give *exc* the details of the request and of the phase; see ``exceptions.describe``."""
        return describe(
            exc,
            method=self._method,
            url=self._url,
            phase=self.report.phase,
            # Not the loop's clock: uvloop's counts whole milliseconds.
            elapsed=monotonic() - self._began,
            hint=hint,
        )

    def close(self) -> None:
        """End the connect: its task gets ``ConnectionAbortedError``."""
        self.closed = True
        if self._limit is not None:
            with suppress(RuntimeError):  # the connect has ended already, or the loop does not run
                self._limit.reschedule(asyncio.get_running_loop().time())


def _check_pin(place: Destination, transport: asyncio.Transport) -> None:
    """Check the certificate: a dialer that does TLS in its own way need not have done it."""
    pin = read_fingerprint(place.fingerprint)
    assert pin is not None, "there is a fingerprint"
    check_fingerprint(transport.get_extra_info("ssl_object"), pin)


def closed_here() -> ConnectionAbortedError:
    return ConnectionAbortedError("closed by this program while connecting")


def _late(name: str, seconds: float | None) -> str:
    return f"not connected within {seconds:g} s, {name}={seconds:g}"
