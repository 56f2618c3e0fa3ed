"""Decisions: may this be sent again? After how long? Where does this redirect lead, and with what?

Pure but for chance and the calendar. Layer: client.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ..exceptions import (
    CertificateError,
    ConnectError,
    ConnectionVetoed,
    ConnectTimeout,
    IncompleteRead,
    InvalidURL,
    PoolTimeout,
    RedirectRefused,
    ResolveError,
    TotalTimeout,
    TunnelError,
    quote,
    redact,
)
from ..http11.semantics import FIRST_ORIGIN_ONLY, IDEMPOTENT, OF_THE_BODY
from ..urls import SplitURL, join_location, split_url

if TYPE_CHECKING:
    from .fields import Fields

__all__ = [
    "REDIRECTS",
    "Redirect",
    "Retry",
    "RetryBudget",
    "backoff",
    "may_retry",
    "redirect_target",
    "strip_body",
    "strip_secrets",
]

REDIRECTS = frozenset({301, 302, 303, 307, 308})
"""Statuses that lead elsewhere by themselves (RFC 9110 §15.4). 300 and 304 do not."""


# ------------------------------------------------------------------------- redirects


class Redirect(NamedTuple):
    """Where a response leads: the request to send next."""

    url: SplitURL
    method: str
    keeps_body: bool
    crosses: bool
    """Whether it leads to another origin."""


def redirect_target(
    status: int,
    method: str,
    url: SplitURL,
    locations: Sequence[str],
    *,
    allow_downgrade: bool = False,
) -> Redirect | None:
    """Return where a response to *method* *url* leads, None if nowhere else (RFC 9110 §15.4).

    *locations* are the values of its Location fields. 303 becomes GET, and so does POST with 301
    and 302; anything else keeps its method and body. Raises ``RedirectRefused`` for https → http,
    unless *allow_downgrade*, for other schemes, and for what is no single URL.
    """
    if status not in REDIRECTS or not any(locations):
        # An empty Location would lead to *url* itself, and in a circle.
        return None
    location = locations[0]
    if any(other != location for other in locations):
        raise RedirectRefused(f"{len(locations)} different Locations: {_shown(locations)}")
    try:
        target = split_url(join_location(url.text, location))
    except InvalidURL as exc:
        raise RedirectRefused(f"cannot follow Location {_shown([location])}: {exc}") from exc
    if target.host == url.host.partition("%")[0]:
        # RFC 6874 §4: an address's zone is known here alone, and the server means the same host.
        target = target._replace(host=url.host)
    if url.scheme == "https" and target.scheme == "http" and not allow_downgrade:
        raise RedirectRefused(
            f"{redact(target.text)} is not encrypted, and {url.text} is: allow_downgrade=True "
            "follows it"
        )
    changed = method != "HEAD" and (status == 303 or (status in (301, 302) and method == "POST"))
    return Redirect(
        # The user and password of a Location are the server's idea, not the caller's.
        target._replace(userinfo=""),
        "GET" if changed else method,
        keeps_body=not (changed or status == 303),
        crosses=target.origin != url.origin,
    )


def strip_secrets(fields: Fields) -> None:
    """Take away what only the first origin may see. It does not come back later in the chain."""
    for name in FIRST_ORIGIN_ONLY:
        fields.pop(name, None)


def strip_body(fields: Fields) -> None:
    """Take away what describes a body that is not sent any more."""
    for name in list(fields):
        lower = name.lower()
        if lower.startswith("content-") or lower in OF_THE_BODY:
            del fields[name]


def _shown(locations: Sequence[str]) -> str:
    return ", ".join(quote(redact(value).encode("latin-1", "replace")) for value in locations[:3])


# --------------------------------------------------------------------------- retries


@dataclass(frozen=True, slots=True)
class Retry:
    """When a request that failed is sent again.

    ``attempts``: requests in all, the first one included. ``backoff``: seconds before the second;
    each further wait may be twice as long, ``max_backoff`` at most, and each is a random part of
    that (full jitter), so that clients do not come back together. ``statuses``: of responses that
    count as failures. ``methods``: those that may be sent twice; a connect that failed is tried
    again with any. ``respect_retry_after``: wait as long as the server says, up to
    ``max_retry_after`` seconds, beyond which its response is delivered. ``budget``: retries for
    each request of the client in the long run (0.2 is one in five): when everything fails, all
    those retries would only add to it. None is no budget.
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
        if self.attempts < 1:
            raise ValueError(f"Retry(attempts=...) counts the first request, got {self.attempts!r}")
        for name in ("statuses", "methods"):
            given = getattr(self, name)
            if isinstance(given, (str, int)):
                raise TypeError(
                    f"Retry({name}=...) must be a set or another collection, got {given!r}"
                )
        for name in ("backoff", "max_backoff", "max_retry_after"):
            if not getattr(self, name) >= 0:
                raise ValueError(
                    f"Retry({name}=...) must be 0 seconds or more, got {getattr(self, name)!r}"
                )
        if self.budget is not None and not 0 <= self.budget <= 1:
            raise ValueError(f"Retry(budget=...) must be from 0 to 1, got {self.budget!r}")


class RetryBudget:
    """How many retries a client may still make: some for each request, ``BURST`` saved at most."""

    __slots__ = ("_tokens",)

    BURST = 10.0

    def __init__(self) -> None:
        self._tokens = self.BURST

    def earn(self, share: float) -> None:
        """A request is made, which allows for *share* of a retry."""
        self._tokens = min(self._tokens + share, self.BURST)

    def spend(self) -> bool:
        """Take one retry, if there is one."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def may_retry(exc: Exception, method: str, retry: Retry) -> bool:
    """Whether a request that failed with *exc* may succeed, and may be sent, another time."""
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
