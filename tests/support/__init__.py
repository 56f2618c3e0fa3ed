"""What tests are written with: the public kit (``aiohttpconn.testing``), and what only we need."""

from aiohttpconn.testing import (
    GARBAGE,
    ClientGone,
    Connection,
    ScriptedServer,
    close,
    deliveries,
    expect,
    expect_request,
    named_deliveries,
    notify,
    read_all,
    refusing_address,
    reset,
    send,
    wait,
    with_trailing_garbage,
)

from .proxies import ConnectProxy

__all__ = [
    "GARBAGE",
    "ClientGone",
    "ConnectProxy",
    "Connection",
    "ScriptedServer",
    "close",
    "deliveries",
    "expect",
    "expect_request",
    "named_deliveries",
    "notify",
    "read_all",
    "refusing_address",
    "reset",
    "send",
    "wait",
    "with_trailing_garbage",
]
