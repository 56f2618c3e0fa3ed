"""The cost of one Client.get in Python, without a socket, and of its settings.

    python benchmarks/micro/client_exchange.py [--rounds 9] [--cases default,cookies] [--differ]

It is shown beside the same exchange on an ``HTTPConnection`` (exchange.py). A part of its name
selects a case. With ``--differ`` every second reply has another head, so that no head repeats the
one before.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import socket
import statistics
import time
from collections.abc import Callable, Coroutine
from typing import Any

import exchange as bare

import aiohttpconn

EXCHANGES = 8_000
DEEP = 16
"""Requests at once on the connection of the case that pipelines."""

URL = "http://127.0.0.1:8080/x"
COOKIE = {"session": "0123456789abcdef"}

Make = Callable[[aiohttpconn.Client], Coroutine[Any, Any, Any]]


class Nowhere(bare.Nowhere):
    """A transport whose socket never receives anything: the pool looks at the socket."""

    def __init__(self, quiet: socket.socket, protocol: aiohttpconn.HTTP1Protocol) -> None:
        super().__init__()
        self._quiet = quiet
        self._protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._quiet if name == "socket" else default

    def close(self) -> None:
        asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)


def get(client: aiohttpconn.Client) -> Coroutine[Any, Any, Any]:
    return client.get(URL)


CASES: dict[str, tuple[dict[str, Any], Make]] = {
    "default": ({}, get),
    "cookies off": ({"cookies": None}, get),
    "timeout None": ({"timeout": None}, get),
    "cookies off, timeout None": ({"cookies": None, "timeout": None}, get),
    "a cookie is sent": ({"base_url": "http://127.0.0.1:8080", "cookies": COOKIE}, get),
    "base_url": ({"base_url": "http://127.0.0.1:8080"}, lambda client: client.get("/x")),
    "headers={...} per request": ({}, lambda client: client.get(URL, headers={"X-Trace": "1"})),
    "timeout=5 per request": ({}, lambda client: client.get(URL, timeout=5)),
    "auth": ({"auth": ("user", "password")}, get),
    "json= (POST)": ({}, lambda client: client.post(URL, json={"id": 1})),
    "pool.request": ({}, lambda client: client.pool.request("GET", URL)),
    f"pipelined, {DEEP} at once": ({"pipelining": DEEP}, get),
}


def lead_nowhere(client: aiohttpconn.Client, dial: Any) -> None:
    """Let *client* connect with *dial*."""
    factory: Any = client._connections.factory
    factory.dialer = lambda: dial


class Case:
    """A client whose connections lead nowhere, and the call to repeat on it."""

    def __init__(self, options: dict[str, Any], make: Make, quiet: socket.socket) -> None:
        self.protocols: list[aiohttpconn.HTTP1Protocol] = []
        self.client = aiohttpconn.Client(limit_per_host=1, trust_env=False, **options)
        self._make = make
        self._deep = options.get("pipelining", 1)

        async def dial(factory: Any, destination: Any, report: Any) -> tuple[Any, Any]:
            protocol = factory()
            transport = Nowhere(quiet, protocol)
            protocol.connection_made(transport)
            report.raw_transport = transport
            self.protocols.append(protocol)
            return transport, protocol

        lead_nowhere(self.client, dial)

    def microseconds(self, replies: tuple[bytes, ...]) -> float:
        """Return the µs of one of ``EXCHANGES``."""
        (protocol,) = self.protocols
        turn = self._turn if self._deep == 1 else self._deep_turn
        turns = EXCHANGES // self._deep
        data = (replies * turns)[:turns]
        gc.collect()
        begin = time.perf_counter()
        turn(protocol, data)
        taken = time.perf_counter() - begin
        assert len(self.protocols) == 1, "the connection was replaced"
        return taken / EXCHANGES * 1e6

    def _turn(self, protocol: aiohttpconn.HTTP1Protocol, data: tuple[bytes, ...]) -> None:
        make, client, size = self._make, self.client, len(data[0])
        for reply in data:
            caller = make(client)
            waiter = caller.send(None)
            protocol.get_buffer(-1)[:size] = reply
            protocol.buffer_updated(size)
            waiter._asyncio_future_blocking = False  # as a task does before it waits
            try:
                caller.send(None)
            except StopIteration:
                pass

    def _deep_turn(self, protocol: Any, data: tuple[bytes, ...]) -> None:
        make, client, deep = self._make, self.client, self._deep
        size = len(data[0]) * deep
        for reply in data:
            callers = [make(client) for _ in range(deep)]
            waiters = [caller.send(None) for caller in callers]
            protocol._write_batch()  # as the loop's next turn would do
            protocol.get_buffer(-1)[:size] = reply * deep
            protocol.buffer_updated(size)
            for caller, waiter in zip(callers, waiters, strict=True):
                waiter._asyncio_future_blocking = False
                try:
                    caller.send(None)
                except StopIteration:
                    pass

    async def check(self) -> None:
        """Make one request, and check its response."""
        task = asyncio.ensure_future(self._make(self.client))
        await asyncio.sleep(0)  # it connects and waits: nothing else suspends it
        (protocol,) = self.protocols
        protocol.get_buffer(-1)[: len(bare.REPLY)] = bare.REPLY
        protocol.buffer_updated(len(bare.REPLY))
        response = await task
        body = response.content if hasattr(response, "content") else await response.read()
        assert (response.status, body) == (200, bare.BODY)


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--cases", default="", help="parts of their names, with commas")
    parser.add_argument("--differ", action="store_true", help="no head is the one before")
    options = parser.parse_args()
    replies = (bare.REPLY, bare.OTHER) if options.differ else (bare.REPLY,)
    pair = socket.socketpair()
    wanted = options.cases.split(",")
    cases = {
        name: Case(*case, pair[0])
        for name, case in CASES.items()
        if any(part in name for part in wanted)
    }
    for case in cases.values():
        await case.check()
    connection, protocol = bare.connected(asyncio.get_running_loop())
    reference = "HTTPConnection"
    costs: dict[str, list[float]] = {reference: []} | {name: [] for name in cases}
    # The first round is not counted: it warms up.
    for number in range(options.rounds + 1):
        taken = {reference: bare.microseconds(connection, protocol, (replies[0], replies[-1]))}
        for name, case in cases.items():
            taken[name] = case.microseconds(replies)
            await asyncio.sleep(0)  # let scheduled callbacks run
        for name, micros in taken.items():
            if number:
                costs[name].append(micros)
    least = min(costs[reference])
    for name, values in costs.items():
        print(
            f"{min(values):6.2f} µs (median {statistics.median(values):6.2f})"
            f"  {min(values) / least:5.2f} ×  {name}"
        )
    protocol.abort()
    for case in cases.values():
        await case.client.close()
    for end in pair:
        end.close()


if __name__ == "__main__":
    asyncio.run(main())
