"""The clients that are compared: a registry, and the base classes of the adapters.

Imports none of them: each lives in a module of its own here, with a ``class Client``, and only
the worker process that measures it imports that. An adapter has ``open()``, ``run(count)`` and
``close()``; ``run`` comes from the base class, and calls the action of the scenario (a method
``get``, ``connect``, ``stream``, ``readinto``, ``upload_bytes``, ``upload_file``, ``post_json``,
``pipelined``) once per request. An action returns how many bytes it got or sent, and raises
``WrongReply`` for a status other than 200. What an adapter does not define, its client cannot do
(``CANNOT`` tells why): the cell stays empty.

All send the same requests as nearly as they let themselves be told: no content encoding, no
cookies kept, no redirects followed, no proxies of the environment, the certificate verified.
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

PIPELINE = 16
"""Requests written at once by the action ``pipelined``."""

BLOCK = 1024 * 1024
"""Bytes that an adapter writes at once, where it has to choose: 256 KiB cost a third more CPU."""


@dataclass(frozen=True)
class Registered:
    """A client: its module here, what it is installed as, and where and on what it runs.

    Attributes:
        module: ``clients.<module>``.
        distribution: what pip calls it; "" is the standard library.
        imports: the module whose import is timed; "" is none.
        environment: "" is the environment of run.py; another name is a directory beside it.
        loops: of ``asyncio``, ``uvloop``; ``threads`` for clients that block.
        kind: ``ours``, ``floor``, ``stdlib``, ``python``, ``rust`` or ``c``.
        only: the scenarios that it is for, if not for all.
        quick: part of ``run.py --quick``.
        options: passed to the adapter.
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
    """A reply was not what the scenario expects: nothing of this run is a figure."""


@dataclass(frozen=True)
class Job:
    """What a worker process is told: the scenario's shape, and where the server is.

    ``targets`` are the (host, port) pairs of the action ``connect``. ``cafile`` is "" without
    TLS. ``file`` is the file to upload.
    """

    action: str
    path: str
    size: int
    concurrency: int
    host: str
    port: int
    targets: tuple[tuple[str, int], ...] = ()
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
        """One for each of ``targets``."""
        scheme = "https" if self.cafile else "http"
        return [f"{scheme}://{host}:{port}{self.path}" for host, port in self.targets]

    def context(self) -> ssl.SSLContext | None:
        """Return a context that knows the authority of the server, None without TLS."""
        return ssl.create_default_context(cafile=self.cafile) if self.cafile else None


class _Client:
    """What adapters for both kinds of client have.

    ``url`` is what is asked for. ``body`` is what ``upload_bytes`` sends: there while it runs.
    ``next_url()`` and ``next_target()`` go round the hosts of the action ``connect``.
    """

    CANNOT: ClassVar[dict[str, str]] = {}
    """Why an action, or the client altogether under ``""``, is impossible."""

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
        """Return why *action* is impossible, "" if it is not."""
        if not hasattr(cls, action):
            return cls.CANNOT.get(action, "its API has no such thing")
        return cls.CANNOT.get("", "")

    def statistics(self) -> dict[str, Any]:
        """Return what else is worth recording; called after each run."""
        return {}


class AsyncClient(_Client):
    """The base of adapters for asyncio clients: a task for each of ``job.concurrency`` slots."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.slots: list[Any] = [None] * job.concurrency

    async def open(self) -> None:
        """Make the client. ``slots`` may be filled here: each action gets that of its task."""

    async def close(self) -> None:
        """Close everything."""

    async def run(self, count: int) -> int:
        """Do *count* requests; return how many it were in fact."""
        job = self.job
        act = getattr(self, job.action)
        per_call = PIPELINE if job.action == "pipelined" else 1
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
        """Raise ``WrongReply`` where only the end of a run can tell."""

    async def get(self, slot: Any) -> int:
        """Make one GET of ``url``; return the bytes of the body."""
        raise NotImplementedError

    async def idle_at_once(self, count: int) -> None:
        """Open *count* connections of a pool: the server answers when all have asked."""
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
        """Do *count* requests; return how many it were in fact."""
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
