"""The scenarios: the shape of each as data, with a name that describes it.

A scenario has a client's *action* (a method of the client classes), the path, the number of
requests at once, and the transport. The number of requests follows from time: run.py calibrates it
for each client, so that every round of every client takes about the same time.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KIB", "MIB", "REPLY", "SCENARIOS", "Scenario"]

KIB = 1024
MIB = 1024 * 1024

REPLY = b'{"id": 1, "name": "something", "tags": ["a", "b"], "ok": true}'
"""The small JSON document: the answer to the small GETs, and the body of a POST."""

BIG = 256 * MIB


@dataclass(frozen=True)
class Scenario:
    """One shape of traffic.

    Attributes:
        name: its name everywhere.
        what: a description for people.
        action: the method of a client that does it once.
        path: the path of the request.
        size: bytes of a reply's body, or of the body that is sent.
        concurrency: the number of connections that are busy at once.
        depth: requests at once on each of them.
        crowd: the number of others: idle connections, or requests that wait for a connection.
        unit: the figure to report: ``request`` (CPU per request), ``bytes`` (throughput),
            ``memory`` (of an idle connection), ``import`` (of a module).
        tls: whether it goes over TLS.
        most: the maximum number of requests in one round.
        count: requests in one round, if it takes too long to find out how many fit.
        rounds: the maximum number of rounds, if more would tell nothing new.
        own_server: whether server/own.py serves it even if nginx is there, which cannot do it
            fairly.
        only: the clients that it is for, if not for all.
        quick: whether it is part of ``run.py --quick``.
    """

    name: str
    what: str
    action: str = "get"
    path: str = "/x"
    size: int = len(REPLY)
    concurrency: int = 64
    depth: int = 1
    crowd: int = 0
    unit: str = "request"
    tls: bool = False
    most: int = 1_000_000
    count: int = 0
    rounds: int = 1_000
    own_server: bool = False
    only: tuple[str, ...] = ()
    quick: bool = False

    @property
    def at_once(self) -> int:
        """The maximum number of requests under way."""
        return self.concurrency * self.depth


_ALL = (
    Scenario("get_x1", "small JSON, one request after the other", concurrency=1),
    Scenario("get_x64", "small JSON over 64 kept-alive connections", quick=True),
    Scenario(
        "get_x64_distinct",
        "small JSON over 64 kept-alive connections, the head of every reply another (X-Request-Id)",
        path="/distinct",
    ),
    Scenario("get_x64_tls", "small JSON over 64 kept-alive TLS connections", tls=True, quick=True),
    Scenario("get_x1000", "small JSON over 1,000 kept-alive connections", concurrency=1000),
    Scenario(
        "pipelined_x64",
        "small JSON over 64 connections, 16 requests at once on each",
        action="pipelined",
        depth=16,
        # nginx writes each answer by itself, and would be the bottleneck: no client gets more than
        # 130,000 answers a second from it, nor does the floor.
        own_server=True,
    ),
    Scenario(
        "post_json_x64",
        "POST of a small JSON document over 64 kept-alive connections",
        action="post_json",
        path="/post",
        own_server=True,
    ),
    Scenario(
        "many_hosts_connect",
        "small JSON, a new connection each time, 16 at once, to 64 hosts in turn",
        action="connect",
        concurrency=16,
        most=4000,
    ),
    Scenario(
        "many_hosts_connect_tls",
        "small JSON, a new TLS connection each time, 16 at once, to 64 hosts in turn; clients that "
        "resume sessions do",
        action="connect",
        concurrency=16,
        tls=True,
        most=4000,
        quick=True,
    ),
    Scenario(
        "chunked_64k",
        "a chunked body of 64 KiB read whole, over 16 connections",
        path="/chunked",
        size=64 * KIB,
        concurrency=16,
        unit="bytes",
    ),
    Scenario(
        "read_1m",
        "1 MiB read whole, over 16 connections",
        path="/1m",
        size=MIB,
        concurrency=16,
        unit="bytes",
    ),
    Scenario(
        "read_256m",
        "256 MiB read whole into one bytes object",
        path="/256m",
        size=BIG,
        concurrency=1,
        unit="bytes",
        quick=True,
    ),
    Scenario(
        "stream_256m",
        "256 MiB piece by piece, each dropped",
        action="stream",
        path="/256m",
        size=BIG,
        concurrency=1,
        unit="bytes",
        quick=True,
    ),
    Scenario(
        "readinto_256m",
        "256 MiB into the caller's buffer of 256 KiB",
        action="readinto",
        path="/256m",
        size=BIG,
        concurrency=1,
        unit="bytes",
        quick=True,
    ),
    Scenario(
        "stream_256m_tls",
        "256 MiB piece by piece over TLS",
        action="stream",
        path="/256m",
        size=BIG,
        concurrency=1,
        unit="bytes",
        tls=True,
    ),
    Scenario(
        "upload_bytes_256m",
        "POST of one bytes object of 256 MiB",
        action="upload_bytes",
        path="/upload",
        size=BIG,
        concurrency=1,
        unit="bytes",
        own_server=True,
        quick=True,
    ),
    Scenario(
        "upload_file_256m",
        "POST of a file of 256 MiB, never whole in memory",
        action="upload_file",
        path="/upload",
        size=BIG,
        concurrency=1,
        unit="bytes",
        own_server=True,
        quick=True,
    ),
    Scenario(
        "idle_10000",
        "10,000 idle kept-alive connections, each after one request",
        action="idle",
        concurrency=10_000,
        unit="memory",
        rounds=1,
        own_server=True,
    ),
    Scenario(
        "open_10000_hot",
        "small JSON, 64 at once to one host, while 10,000 connections are open to 64 hosts; and "
        "while only those 64 are",
        action="open_hot",
        crowd=10_000,
        own_server=True,
        only=("client", "client-64-open"),
    ),
    Scenario(
        "open_10000_spread",
        "small JSON, 64 at once to 64 hosts in turn, while 10,000 connections are open to them; "
        "and while only one is to each",
        action="open_spread",
        crowd=10_000,
        own_server=True,
        only=("client", "client-64-open"),
    ),
    Scenario(
        "queued_100000",
        "small JSON over 64 connections, for which 100,000 other requests wait in a queue; and "
        "1,000",
        action="queued",
        crowd=100_000,
        count=20_000,
        only=("client", "client-1000-queued"),
    ),
    Scenario(
        "import_time",
        "import of the module, over import asyncio, ssl, http.client",
        action="import",
        concurrency=1,
        unit="import",
        quick=True,
    ),
)

SCENARIOS = {scenario.name: scenario for scenario in _ALL}
