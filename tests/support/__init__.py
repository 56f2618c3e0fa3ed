"""What tests are written with: real loopback servers run from steps, and ways to deliver bytes."""

from .deliveries import GARBAGE, deliveries, named_deliveries, with_trailing_garbage
from .proxies import ConnectProxy
from .servers import (
    ClientGone,
    Connection,
    ScriptedServer,
    close,
    expect,
    expect_request,
    notify,
    read_all,
    refusing_address,
    reset,
    send,
    wait,
)

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
