"""The tools of the tests: the public kit (``aiohttpconn.testing``), and the tools of our own."""

import pytest

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

# The asserts of the model show their values when they fail, as those of a test module do.
pytest.register_assert_rewrite(f"{__name__}.pool_model")
