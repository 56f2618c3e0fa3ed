"""Retries: which requests are sent again, after how long, and within which budget.

Pure except for the random backoff. Layer: client.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Collection
from dataclasses import dataclass, field

from ..arguments import FLAG, Checks, check_arguments, collection, count, number
from ..exceptions import (
    CertificateError,
    ConnectError,
    ConnectionVetoed,
    ConnectTimeout,
    IncompleteRead,
    PoolTimeout,
    ResolveError,
    TotalTimeout,
    TunnelError,
)
from ..http11.semantics import IDEMPOTENT

__all__ = ["Retry", "RetryBudget", "backoff", "may_retry"]


@dataclass(frozen=True, slots=True)
class Retry:
    """Rules for sending a failed request again.

    ``attempts``: requests in all, including the first. ``backoff``: the most seconds before the
    second; the maximum doubles with each wait, up to ``max_backoff``, and the wait is a random
    part of it (full jitter), so that clients do not return at the same time. ``statuses``: of
    responses that count as failures. ``methods``: those that may be sent twice; a failed connect
    is tried again with any method. ``respect_retry_after``: wait as long as the server asks; if
    that is more than ``max_retry_after`` seconds, its response is returned. ``budget``: retries
    per request of the client in the long run (0.2 is one in five), so that retries do not
    overload a server that fails; None is no budget.
    """

    attempts: int = 3
    backoff: float = 0.1
    max_backoff: float = 10.0
    statuses: Collection[int] = frozenset({429, 502, 503, 504})
    methods: Collection[str] = field(default=IDEMPOTENT)
    respect_retry_after: bool = True
    max_retry_after: float = 60.0
    budget: float | None = 0.2

    def __post_init__(self) -> None:
        values = {name: getattr(self, name) for name in _CHECKS}
        check_arguments(_CHECKS, values, "Retry({}=...)")


_SECONDS = number("seconds", least=0)
_CHECKS: Checks = {
    "attempts": count(1, "request"),
    "backoff": _SECONDS,
    "max_backoff": _SECONDS,
    "statuses": collection("a set or another collection of ints", int),
    "methods": collection("a set or another collection of str", str),
    "respect_retry_after": FLAG,
    "max_retry_after": _SECONDS,
    "budget": number("retries per request", least=0, most=1, none=True),
}


class RetryBudget:
    """Retries that a client has left: each request earns a share, up to ``BURST`` in all."""

    __slots__ = ("_tokens",)

    BURST = 10.0

    def __init__(self) -> None:
        self._tokens = self.BURST

    def earn(self, share: float) -> None:
        """Add *share* of a retry, for one request."""
        self._tokens = min(self._tokens + share, self.BURST)

    def spend(self) -> bool:
        """Take one retry; False if none is left."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def may_retry(exc: Exception, method: str, retry: Retry) -> bool:
    """Whether a request that failed with *exc* may be sent again, with a chance to succeed."""
    if isinstance(exc, (PoolTimeout, TotalTimeout, CertificateError, ConnectionVetoed)):
        return False
    if isinstance(exc, ResolveError):
        return exc.errno == socket.EAI_AGAIN
    if isinstance(exc, TunnelError) and 400 <= exc.status < 500:
        return False
    connecting = isinstance(exc, (ConnectError, ConnectTimeout))
    if connecting and getattr(exc, "phase", "") in _CONNECT_PHASES:
        return True  # nothing was sent
    if not isinstance(exc, (ConnectionError, TimeoutError, IncompleteRead, ConnectError)):
        return False
    return method in retry.methods


_CONNECT_PHASES = ("dns", "connect", "proxy", "tls")


def backoff(retry: Retry, attempt: int) -> float:
    """Return the seconds to wait after the *attempt*-th request, counted from 1."""
    longest = min(retry.backoff * 2.0 ** min(attempt - 1, 30), retry.max_backoff)
    return random.uniform(0, longest)
