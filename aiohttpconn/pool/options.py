"""The checks of a pool's arguments, which are a client's, too. Pure. Layer: pool."""

from __future__ import annotations

from ..arguments import (
    CALLABLE,
    CONTEXT,
    FLAG,
    FUNCTION,
    PATH,
    SOCKET_OPTIONS,
    SOURCE_ADDRESS,
    UDS,
    Checks,
    count,
    having,
    instance,
    mapping,
    number,
)
from ..http11.limits import Limits

__all__ = ["POOL_CHECKS"]

POOL_CHECKS: Checks = {
    "limit": count(1, "connection", none=True),
    "limit_per_host": count(1, "connection", none=True),
    "keepalive_timeout": number("seconds", least=0, none=True),
    "max_idle": count(0, "connections", none=True),
    "max_requests": count(1, "request", none=True),
    "max_age": number("seconds", least=0, none=True),
    "pipelining": count(1, "request"),
    "context": CONTEXT,
    "cafile": PATH,
    "proxy_context": CONTEXT,
    "resolver": having("resolve", "an object with an async resolve(host, port)", none=True),
    "resolve": mapping("a mapping of names to addresses", none=True),
    "on_connect": FUNCTION,
    "dialer": CALLABLE,
    "min_interval": number("seconds", least=0, none=True),
    "respect_retry_after": FLAG,
    "resend_stale": FLAG,
    "strict": FLAG,
    "limits": instance(Limits, "a Limits"),
    "high_water": count(1, "byte", none=True),
    "uds": UDS,
    "source_address": SOURCE_ADDRESS,
    "socket_options": SOCKET_OPTIONS,
    "resume_tls": FLAG,
}
"""The others (timeout, proxy, rate, dialer, ...) are checked by what reads them."""
