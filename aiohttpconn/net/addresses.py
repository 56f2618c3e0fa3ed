"""AddressOrder: which of an origin's addresses its next connection tries first.

Connections take turns over the addresses of the family that the resolver puts first, so that all
of a service's servers get their share. Addresses that refuse, or that another one overtakes, rest
for a while: they are still tried, but last. sockets.py makes the attempts. Layer: net.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from .resolver import interleave

if TYPE_CHECKING:
    from .resolver import Address

__all__ = ["AddressOrder"]

REST_SECONDS = 30.0
"""Seconds for which an address that did not answer is tried last. Then one connection finds out
whether it answers again, and loses 250 ms at most (``sockets.ATTEMPT_DELAY``)."""

MAX_USES = 1024
"""Uses that are remembered; one more clears them all. A name has a few addresses, but each answer
may have others."""


class AddressOrder:
    """The order in which the connections of one origin try its addresses.

    The address used least recently comes first, which is round robin if the answers stay the
    same, and works for answers in any order. Families take turns in one list (RFC 8305 §4).
    """

    __slots__ = ("_resting", "_turn", "_used")

    def __init__(self) -> None:
        # When an address was last the first, as (None, sockaddr), or the second after another one,
        # as (the first's sockaddr, sockaddr).
        self._used: dict[Hashable, int] = {}
        self._turn = 0
        # Until when an address, by its sockaddr, or a whole family, by its number, rests.
        self._resting: dict[Hashable, float] = {}

    def order(self, addresses: Sequence[Address]) -> list[Address]:
        """Return *addresses* in the order in which to try them; the first one counts as used."""
        if len(addresses) < 2:
            return list(addresses)
        now, used = monotonic(), self._used
        fit = [address for address in addresses if not self._rests(address, now)]
        last = [address for address in addresses if address not in fit] if fit else []
        fit = fit or list(addresses)
        preferred = [address for address in fit if address[0] == addresses[0][0]] or fit
        first = min(preferred, key=lambda address: used.get((None, address[3]), 0))
        rest = [address for address in fit if address is not first]
        # The second one gets the connections that the first refuses: these are spread, too.
        rest.sort(key=lambda address: (address[0] != first[0], used.get((first[3], address[3]), 0)))
        ordered = interleave([first, *rest]) + last
        self._use(None, first)
        self._use(first[3], ordered[1])
        return ordered

    def _rests(self, address: Address, now: float) -> bool:
        until = self._resting.get
        return until(address[3], 0.0) > now or until(address[0], 0.0) > now

    def _use(self, after: Any, address: Address) -> None:
        if len(self._used) >= MAX_USES:
            self._used.clear()
        self._turn += 1
        self._used[after, address[3]] = self._turn

    def attempted(self, skipped: Iterable[Address], winner: Address | None) -> None:
        """Record that *skipped* did not answer, and *winner*, if there is one, did.

        If they are of another family than *winner*, all of that family rests: on a network where
        IPv6 leads nowhere, only one connection has to find out.
        """
        now = monotonic()
        resting = {key: until for key, until in self._resting.items() if until > now}
        for address in skipped:
            resting[address[3]] = now + REST_SECONDS
            if winner is not None and address[0] != winner[0]:
                resting[address[0]] = now + REST_SECONDS
        if winner is not None:
            resting.pop(winner[0], None)
            resting.pop(winner[3], None)
        self._resting = resting
