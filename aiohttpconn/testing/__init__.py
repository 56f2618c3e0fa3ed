"""Servers for tests of programs that speak HTTP: correct servers, and servers that go wrong.

- ``serve()``: a small server made from a function, or from a table of paths and replies.
- ``ScriptedServer``: a raw server that follows the steps of its script, byte by byte.
- ``Fault``: a way in which a response goes wrong, such as ``reset_at(k)``; ``faults(response)``
  returns one for every place where the response can be cut.
- ``deliveries(data)``: the same bytes in every way in which they may arrive.
- ``in_thread()``: any of these servers for a client that blocks.

All servers listen on loopback, in the loop of the test. Fixtures of pytest are in
``aiohttpconn.testing.fixtures``; nothing else needs pytest, except that ``deliveries()``,
``with_trailing_garbage()`` and ``faults()`` return its parameters. ``import aiohttpconn`` does not
load this package. Layer: above the public names.
"""

from __future__ import annotations

from .apps import AppServer, Handler, ReplyLike, serve
from .connections import ClientGone, Connection
from .deliveries import GARBAGE, deliveries, named_deliveries, with_trailing_garbage
from .faults import (
    Fault,
    answer,
    close_at,
    close_in_request,
    close_unread,
    drip,
    every_fault,
    faults,
    garbage_after,
    garbage_before,
    reset_at,
    stall_at,
)
from .messages import Reply, Request
from .servers import Script, ScriptedServer, refusing_address
from .steps import (
    Step,
    close,
    expect,
    expect_request,
    notify,
    read_all,
    reset,
    send,
    wait,
)
from .threads import in_thread

__all__ = [
    "GARBAGE",
    "AppServer",
    "ClientGone",
    "Connection",
    "Fault",
    "Handler",
    "Reply",
    "ReplyLike",
    "Request",
    "Script",
    "ScriptedServer",
    "Step",
    "answer",
    "close",
    "close_at",
    "close_in_request",
    "close_unread",
    "deliveries",
    "drip",
    "every_fault",
    "expect",
    "expect_request",
    "faults",
    "garbage_after",
    "garbage_before",
    "in_thread",
    "named_deliveries",
    "notify",
    "read_all",
    "refusing_address",
    "reset",
    "reset_at",
    "send",
    "serve",
    "stall_at",
    "wait",
    "with_trailing_garbage",
]
