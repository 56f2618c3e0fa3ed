"""The experiments: a load, a server, and a trouble; and how one is run and judged."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttpconn import Client, HTTPConnection, HTTPResponse, Retry, Timeout, new_event_loop
from aiohttpconn.client.response import Response
from aiohttpconn.protocol import HTTP1Protocol

from . import links
from .loads import LOADS, Site, Tally, count_sent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .servers import Server

__all__ = ["ON_LINKS", "ON_SERVERS", "Experiment", "Row", "run"]

LIMIT = Timeout(60, connect=20, read=20, write=20, pool=60)
"""Of each request: longer than any trouble lasts."""

GIVE_UP_SECONDS = 90
"""After an experiment's time, until what has not ended counts as lost."""

MAX_GROWTH = 48
"""MiB of memory that an experiment may take beyond what it had after its first third."""

CLOSE_SECONDS = 5.0
"""Until all sockets of a client that was closed are gone."""

ANY = ("any",)


@dataclass(frozen=True)
class Experiment:
    """*load* on *server*, while *trouble* comes every *period* seconds.

    *may_fail*: the errors that its requests may have: () is none, ``ANY`` every documented one.
    """

    name: str
    server: str
    load: str
    trouble: str = ""
    period: float = 1.0
    may_fail: tuple[str, ...] = ()
    https: bool = False
    fault: links.Fault | None = None
    options: dict[str, Any] = field(default_factory=dict)


PIPELINED = {"pipelining": 4}
RETRIES = {"retry": Retry(attempts=5, backoff=0.2, budget=None)}

# A server that closes an idle connection as a POST comes leaves open whether it has read it: such
# a request is not sent again. See docs/topics/reliability.md.
POST_MAY_FAIL = ("RemoteDisconnected", "ConnectionReset", "ConnectionLost", "ConnectionResetError")

ON_SERVERS = [
    Experiment("GETs", "nginx", "gets"),
    Experiment("GETs, https", "nginx", "gets", https=True),
    Experiment("pipelined GETs", "nginx", "gets", options=PIPELINED),
    Experiment("fetch_many", "nginx", "many"),
    Experiment("pool and leases", "nginx", "pool"),
    Experiment("uploads", "nginx", "uploads", may_fail=POST_MAY_FAIL),
    Experiment("downloads", "nginx", "downloads"),
    Experiment("reloads", "nginx", "gets", "reload"),
    Experiment("reloads, pipelined", "nginx", "gets", "reload", options=PIPELINED),
    Experiment("killed workers", "nginx", "gets", "kill", 0.5, ANY, options=RETRIES),
    Experiment(
        "killed workers, downloads", "nginx", "downloads", "kill", 0.5, ANY, options=RETRIES
    ),
    Experiment("killed workers, uploads", "nginx", "uploads", "kill", 0.5, ANY, options=RETRIES),
    Experiment(
        "killed workers, pipelined", "nginx", "gets", "kill", 0.5, ANY, options=PIPELINED | RETRIES
    ),
    Experiment("reloads", "haproxy", "gets", "reload"),
    Experiment("uploads, https", "haproxy", "uploads", "", 1, POST_MAY_FAIL, https=True),
    Experiment("killed", "haproxy", "many", "kill", 2, ANY, options=RETRIES),
    Experiment("GETs", "squid", "gets"),
    Experiment("CONNECT", "squid", "many", https=True),
    Experiment("reloads", "squid", "gets", "reload", 2, ANY, options=RETRIES),
    Experiment(
        "killed, CONNECT", "squid", "downloads", "kill", 3, ANY, https=True, options=RETRIES
    ),
]

ON_LINKS = [
    *(
        Experiment(name, "link", load, may_fail=ANY, fault=fault, options=RETRIES)
        for name, fault, load in zip(
            links.FAULTS,
            links.FAULTS.values(),
            ("gets", "downloads", "many", "uploads", "gets"),
            strict=True,
        )
    ),
    Experiment("blackhole of 3 s", "link", "gets", "blackhole", 5, ANY, options=RETRIES),
    Experiment("down for 2 s", "link", "downloads", "down", 4, ANY, options=RETRIES),
]


@dataclass
class Row:
    """The result of an experiment: a line of the table."""

    experiment: str
    loop: str
    made: int = 0
    served: int = 0
    resent: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    descriptors: tuple[int, int] = (0, 0)
    memory: tuple[int, int] = (0, 0)
    faults: list[str] = field(default_factory=list)


def run(
    experiment: Experiment,
    server: Server,
    seconds: float,
    uvloop: bool,
    ca_file: str,
    link: links.Link | None = None,
) -> Row:
    """Run *experiment* for *seconds* in a loop of its own; return its row, with its faults."""
    loop = new_event_loop() if uvloop else asyncio.new_event_loop()
    kind = type(loop).__module__.partition(".")[0]
    row = Row(f"{experiment.server}: {experiment.name}", kind)
    loop.set_exception_handler(lambda _, context: row.faults.append(f"the loop says {context}"))
    tally = Tally()
    end_count = count_sent(tally)
    try:
        with tempfile.TemporaryDirectory() as folder:
            main = _main(experiment, server, seconds, ca_file, link, tally, row, Path(folder))
            loop.run_until_complete(main)
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        end_count()
        loop.close()
    _judge(experiment, tally, row)
    return row


async def _main(
    experiment: Experiment,
    server: Server,
    seconds: float,
    ca_file: str,
    link: links.Link | None,
    tally: Tally,
    row: Row,
    folder: Path,
) -> None:
    url = server.https if experiment.https else server.http
    options: dict[str, Any] = {
        "trust_env": False,
        "timeout": LIMIT,
        "cafile": ca_file if experiment.https else None,
        "proxy": server.proxy,
        "limit_per_host": 30,
        **experiment.options,
    }
    async with Client(**options) as client:
        await client.get(f"{url}/id/first")  # some loops open a descriptor for their first
    tally.sent = 0
    descriptors = _descriptors()
    until = time.monotonic() + seconds
    memory: list[int] = []
    asyncio.get_running_loop().call_later(seconds / 3, lambda: memory.append(_memory()))
    async with Client(**options) as client:
        site = Site(url, client, tally, folder, until)
        trouble = asyncio.create_task(_trouble(experiment, server, link, until))
        try:
            async with asyncio.timeout(seconds + GIVE_UP_SECONDS):
                await LOADS[experiment.load](site)
        except TimeoutError:
            row.faults.append(f"requests hang: {client.stats()}")
        await trouble
        if (leased := client.stats().leased) or client.stats().queued:
            row.faults.append(f"{leased} places are not given back: {client.stats()}")
    del client, site
    row.memory = (*memory[:1], _memory()) if memory else (_memory(), _memory())  # type: ignore[assignment]
    await _until_gone(descriptors)
    left = _descriptors()
    row.descriptors = len(descriptors), len(left)
    if len(left) > len(descriptors):
        row.faults.append(f"descriptors are open: {dict(left.items() - descriptors.items())}")
    others = asyncio.all_tasks() - {asyncio.current_task()}
    row.faults += [f"a task is left: {task!r}" for task in others]


async def _trouble(
    experiment: Experiment, server: Server, link: links.Link | None, until: float
) -> None:
    actions: dict[str, Callable[[], Awaitable[None] | None]] = {
        "reload": server.reload,
        "kill": server.kill,
    }
    if link is not None:
        made = link

        async def blackhole() -> None:
            made.set(links.BLACKHOLE)
            await asyncio.sleep(3)
            made.set(links.Fault())

        async def down() -> None:
            made.take_down(True)
            await asyncio.sleep(2)
            made.take_down(False)

        actions |= {"blackhole": blackhole, "down": down}
        link.set(experiment.fault or links.Fault())
    while experiment.trouble:
        await asyncio.sleep(experiment.period * random.uniform(0.5, 1))
        if time.monotonic() > until:
            break
        done = actions[experiment.trouble]()
        if done is not None:
            await done


def _judge(experiment: Experiment, tally: Tally, row: Row) -> None:
    """Fill *row*: the counts, and what is wrong with them."""
    row.made, row.served, row.lost = tally.made, tally.served, tally.lost
    row.failed = dict(tally.failed)
    row.resent = tally.sent - tally.made
    row.faults += [f"the response of {what} is wrong" for what in tally.wrong[:5]]
    if not tally.served:
        row.faults.append("nothing was served")
    if row.lost:
        row.faults.append(f"{row.lost} requests are lost")
    if experiment.may_fail != ANY:
        wrong = {name: n for name, n in row.failed.items() if name not in experiment.may_fail}
        if wrong:
            row.faults.append(f"requests failed that should not: {wrong}")
    if row.memory[1] - row.memory[0] > MAX_GROWTH:
        row.faults.append(f"it has {row.memory[1] - row.memory[0]} MiB more than at its third")
    gc.collect()
    kinds = (HTTP1Protocol, HTTPConnection, HTTPResponse, Response, Client)
    left = Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, kinds))
    if left:
        row.faults.append(f"objects are left: {dict(left)}")


async def _until_gone(descriptors: dict[int, str]) -> None:
    """Wait until no more are open than *descriptors*, for as long as sockets may take to close."""
    until = time.monotonic() + CLOSE_SECONDS
    while len(_descriptors()) > len(descriptors) and time.monotonic() < until:
        await asyncio.sleep(0.02)


def _descriptors() -> dict[int, str]:
    """Return what each open descriptor is, nothing where the system does not say."""
    found: dict[int, str] = {}
    with contextlib.suppress(OSError):
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # the one of this listing
                found[int(number)] = os.readlink(f"/proc/self/fd/{number}")
    return found


def _memory() -> int:
    """Return the MiB of memory that this process has, 0 where the system does not say."""
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") // 2**20
    return 0
