"""The clients that are compared: a registry, and the base classes of the adapters.

This module imports none of them: each lives in a module of its own here, with a ``class Client``,
and only the worker process that measures it imports that. An adapter has ``open()``, ``run(count)``
and ``close()``; ``run`` comes from the base class, and calls the action of the scenario (a method
``get``, ``connect``, ``stream``, ``readinto``, ``upload_bytes``, ``upload_file``, ``post_json``,
``pipelined`` ...) once per request. An action returns the number of bytes that it got or sent, and
raises ``WrongReply`` for a status other than 200. If an adapter lacks an action, its client cannot
do it (``CANNOT`` says why), and the cell stays empty. fairness.py, one_server.py and
cancellation.py need ``fetch``, ``LIMIT``, maybe ``counters``, and ``DEFAULT``, the number of
connections that the client has by default, 0 if that is not known or not bounded.

All clients send the same requests, as far as their options allow: no content encoding, no cookies
kept, no redirects followed, no proxies of the environment, the certificate verified.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar

__all__ = ["BLOCK", "CLIENTS", "AsyncClient", "Job", "Registered", "SyncClient", "WrongReply"]

BLOCK = 1024 * 1024
"""Bytes that an adapter writes at once, if it has to choose: 256 KiB cost a third more CPU."""


@dataclass(frozen=True)
class Registered:
    """A client: its module here, its distribution, its environment and its loops.

    Attributes:
        module: ``clients.<module>``.
        distribution: its name for pip; "" is the standard library.
        imports: the module whose import is timed; "" is none.
        environment: "" is the environment of run.py; another name is a directory beside it.
        loops: ``asyncio``, ``uvloop`` or both; ``threads`` for clients that block.
        kind: ``ours``, ``floor``, ``stdlib``, ``python``, ``rust`` or ``c``.
        only: the scenarios that it is for, if not for all.
        quick: whether it is part of ``run.py --quick``.
        options: options for the adapter.
    """

    module: str
    distribution: str = ""
    imports: str = ""
    environment: str = ""
    loops: tuple[str, ...] = ("asyncio", "uvloop")
    kind: str = "python"
    only: tuple[str, ...] = ()
    quick: bool = False
    options: dict[str, Any] = field(default_factory=dict)


CLIENTS: dict[str, Registered] = {
    "floor": Registered("floor", kind="floor", quick=True),
    "floor-keep": Registered("floor_keep", kind="floor", only=("read_256m",), quick=True),
    "floor-sendfile": Registered(
        "floor_sendfile",
        loops=("asyncio",),  # uvloop has no sendfile
        kind="floor",
        only=("upload_file_256m",),
        quick=True,
    ),
    "aiohttpconn": Registered("ours", "aiohttpconn", "aiohttpconn", kind="ours", quick=True),
    "aiohttpconn-noresume": Registered(
        "ours",
        "aiohttpconn",
        kind="ours",
        only=("many_hosts_connect_tls",),
        quick=True,
        options={"resume_tls": False},
    ),
    "client": Registered(
        "ours_client", "aiohttpconn", "aiohttpconn.client.client", kind="ours", quick=True
    ),
    "client-nocookies": Registered(
        "ours_client",
        "aiohttpconn",
        kind="ours",
        only=("get_x1", "get_x64", "get_x64_distinct", "get_x64_tls", "get_x1000", "pipelined_x64"),
        quick=True,
        options={"cookies": None},
    ),
    "client-64-open": Registered(
        "ours_client",
        "aiohttpconn",
        kind="ours",
        only=("open_10000_hot", "open_10000_spread"),
        options={"crowd": 64},
    ),
    "client-1000-queued": Registered(
        "ours_client",
        "aiohttpconn",
        kind="ours",
        only=("queued_100000",),
        options={"crowd": 1000},
    ),
    "streams": Registered("streams", kind="stdlib"),
    "http.client": Registered("http_client", loops=("threads",), kind="stdlib"),
    "aiohttp": Registered("aiohttp", "aiohttp", "aiohttp", quick=True),
    "httpx": Registered("httpx", "httpx", "httpx", quick=True),
    "httpx2": Registered("httpx2", "httpx2", "httpx2"),
    "niquests": Registered("niquests", "niquests", "niquests", environment="niquests"),
    "aiosonic": Registered("aiosonic", "aiosonic", "aiosonic"),
    "urllib3": Registered("urllib3", "urllib3", "urllib3", loops=("threads",)),
    "wreq": Registered("wreq", "wreq", "wreq", kind="rust", quick=True),
    "pyreqwest": Registered("pyreqwest", "pyreqwest", "pyreqwest.client", kind="rust", quick=True),
    "curl_cffi": Registered("curl_cffi", "curl_cffi", "curl_cffi.requests", kind="c"),
    "pycurl": Registered("pycurl", "pycurl", "pycurl", loops=("threads",), kind="c", quick=True),
}


class WrongReply(Exception):
    """A reply was not as the scenario expects: this run gives no figures."""


@dataclass(frozen=True)
class Job:
    """The job of a worker process: the scenario's shape, and the server's address.

    ``targets`` are the (host, port) pairs of the action ``connect``. ``cafile`` is "" without
    TLS. ``file`` is the file to upload. ``depth`` and ``crowd`` are the scenario's. ``limit``
    is the number of connections that the client's own pool may have in all; 0 is no limit.
    """

    action: str
    path: str
    size: int
    concurrency: int
    host: str
    port: int
    targets: tuple[tuple[str, int], ...] = ()
    depth: int = 1
    crowd: int = 0
    limit: int = 0
    cafile: str = ""
    file: str = ""
    document: bytes = b""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def tls(self) -> bool:
        return bool(self.cafile)

    @property
    def origin(self) -> str:
        return f"{'https' if self.cafile else 'http'}://{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return self.origin + self.path

    @property
    def urls(self) -> list[str]:
        """A URL for each of ``targets``."""
        scheme = "https" if self.cafile else "http"
        return [f"{scheme}://{host}:{port}{self.path}" for host, port in self.targets]

    def context(self) -> ssl.SSLContext | None:
        """Return a context that trusts the authority of the server, or None without TLS."""
        return ssl.create_default_context(cafile=self.cafile) if self.cafile else None


class _Client:
    """The common base of adapters for both kinds of client.

    ``url`` is the URL of requests. ``body`` is the body that ``upload_bytes`` sends, only set while
    it runs. ``next_url()`` and ``next_target()`` go round the hosts of the action ``connect``.
    """

    CANNOT: ClassVar[dict[str, str]] = {}
    """Reasons why actions are impossible, or under ``""`` why the client is."""

    LIMIT: ClassVar[str] = ""
    DEFAULT: ClassVar[int] = 0
    """The client's name for a ``job.limit`` of 20, and its scope if that is not all connections."""

    threads: ClassVar[bool] = False

    def __init__(self, job: Job) -> None:
        self.job = job
        self.url = job.url
        self.body = b""
        self.next_url: Callable[[], str] = itertools.cycle(job.urls or [job.url]).__next__
        targets = job.targets or ((job.host, job.port),)
        self.next_target: Callable[[], tuple[str, int]] = itertools.cycle(targets).__next__

    @classmethod
    def cannot(cls, action: str) -> str:
        """Return the reason why *action* is impossible, or ""."""
        if not hasattr(cls, action):
            return cls.CANNOT.get(action, "its API has no such thing")
        return cls.CANNOT.get("", "")

    def statistics(self) -> dict[str, Any]:
        """Return further values to record; called after each run."""
        return {}


class AsyncClient(_Client):
    """The base of adapters for asyncio clients: a task for each slot, so for each connection.

    An action makes all the requests that share a connection at once; with ``one_by_one`` it makes
    one request, and there is a slot for each.
    """

    one_by_one: ClassVar[bool] = False

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.per_call = 1 if self.one_by_one else job.depth
        self.slots: list[Any] = [None] * (job.concurrency * job.depth // self.per_call)

    async def open(self) -> None:
        """Make the client. This may fill ``slots``: each action gets the slot of its task."""

    async def close(self) -> None:
        """Close everything."""

    async def run(self, count: int) -> int:
        """Do *count* requests; return the actual number."""
        job = self.job
        act = getattr(self, job.action)
        per_call = self.per_call
        calls = self._left = -(-count // per_call)
        size = job.size * per_call
        work = [self._work(act, slot, size) for slot in self.slots[:calls]]
        await asyncio.gather(*work)
        self.check()
        return calls * per_call

    async def _work(self, act: Callable[[Any], Awaitable[int]], slot: Any, size: int) -> None:
        while self._left > 0:
            self._left -= 1
            got = await act(slot)
            if got != size:
                raise WrongReply(f"{got} bytes, not {size}")

    def check(self) -> None:
        """Raise ``WrongReply`` for errors that only the end of a run can show."""

    async def get(self, slot: Any) -> int:
        """Make one GET of ``url``; return the bytes of the body."""
        raise NotImplementedError

    async def fetch(self, url: str) -> bytes:
        """GET *url*; return the body."""
        raise NotImplementedError

    def counters(self) -> dict[str, int] | None:
        """Return the pool's numbers of leases and of waiting requests, or None if it has none.

        All are zero when nothing is under way.
        """
        return None

    async def idle_at_once(self, count: int) -> None:
        """Open *count* connections of a pool: the server answers when all requests have come."""
        usual, self.url = self.url, f"{self.job.origin}/hold/{count}"
        await asyncio.gather(*[self.get(None) for _ in range(count)])
        self.url = usual


class SyncClient(_Client):
    """The base of adapters for clients that block: a thread for each slot."""

    threads = True

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.slots: list[Any] = [None] * job.concurrency
        self._lock = threading.Lock()

    def open(self) -> None:
        """Make the client."""

    def close(self) -> None:
        """Close everything."""

    def run(self, count: int) -> int:
        """Do *count* requests; return the actual number."""
        job = self.job
        act = getattr(self, job.action)
        # next() of an iterator is atomic under the GIL.
        left = iter(range(count))
        if job.concurrency == 1:
            self._work(act, self.slots[0], left)
            return count
        with ThreadPoolExecutor(job.concurrency) as pool:
            futures = [pool.submit(self._work, act, slot, left) for slot in self.slots[:count]]
            for future in futures:
                future.result()
        return count

    def _work(self, act: Callable[[Any], int], slot: Any, left: Any) -> None:
        size = self.job.size
        for _ in left:
            got = act(slot)
            if got != size:
                raise WrongReply(f"{got} bytes, not {size}")
