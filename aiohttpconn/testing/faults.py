"""Faults: exchanges that go wrong at a byte that the test chooses.

    script = [answer(OK), answer(OK, fault=reset_at(30))]
    async with ScriptedServer(script) as server: ...

    @pytest.mark.parametrize("fault", faults(OK))
    async def test_a_response_that_ends_early(fault): ...

A test gives a fault to ``answer()`` for one exchange, to a ``Reply`` for one response of
``serve()``, or to ``serve(faults=...)`` for connections. ``ScriptedServer(accepting=False)`` and
``refusing_address()`` are for failures before there is an exchange.

Positions are bytes of the whole response, head included; negative ones count from its end.
Nothing here uses a clock: a late response waits for an ``asyncio.Event``. Layer: the test kit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..arguments import PLAIN_FUNCTION
from ..hooks import at_once
from .deliveries import GARBAGE, MAX_SPLITS, split_points
from .steps import Step, close, expect, expect_request, read_all, reset, send, wait

if TYPE_CHECKING:
    import pytest

    from .connections import Connection

__all__ = [
    "Fault",
    "answer",
    "close_at",
    "close_in_request",
    "close_unread",
    "drip",
    "every_fault",
    "faults",
    "garbage_after",
    "garbage_before",
    "reset_at",
    "stall_at",
    "steps_of",
]


@dataclass(frozen=True, slots=True, eq=False)
class Fault:
    """A way to go wrong: steps that replace the sending of a response.

    *name*: the id of a parametrized test. *steps*: a function that turns the bytes of a response
    into steps. *early*: the steps replace the reading of the request, too; they get b"".
    """

    name: str
    steps: Callable[[bytes], Sequence[Step]]
    early: bool = False

    def __post_init__(self) -> None:
        PLAIN_FUNCTION("steps", self.steps)

    def __repr__(self) -> str:
        return f"<Fault {self.name}>"


def steps_of(fault: Fault, response: bytes) -> Sequence[Step]:
    """Return the steps of *fault* for *response*; ``TypeError`` if its function is async."""
    return at_once("steps", fault.steps(response))


def answer(*pieces: bytes, fault: Fault | None = None) -> Step:
    """Read a request, then send *pieces* as ``send`` does, or take the steps of *fault*.

    The n-th ``answer`` of a script is for the n-th request of the connection.
    """
    if fault is None:
        steps = [expect_request(), send(*pieces)]
    elif fault.early:
        steps = [*steps_of(fault, b"")]
    else:
        steps = [expect_request(), *steps_of(fault, b"".join(pieces))]

    async def step(conn: Connection) -> None:
        for each in steps:
            await each(conn)

    return step


# The response is cut -----------------------------------------------------------------------


def close_at(k: int, *, notify: bool = True) -> Fault:
    """Send *k* bytes of the response, then FIN; over TLS after close_notify if *notify*."""
    return Fault(f"close-at-{k}", lambda response: [send(response[:k]), close(notify=notify)])


def reset_at(k: int) -> Fault:
    """Send *k* bytes of the response, then RST when the client has read them."""
    return Fault(f"reset-at-{k}", lambda response: [send(response[:k]), reset()])


# It is late --------------------------------------------------------------------------------


def stall_at(k: int, until: asyncio.Event | None = None) -> Fault:
    """Send *k* bytes of the response, and the others when *until* is set; with None never.

    ``stall_at(0, event)`` delays the whole response.
    """
    if until is None:
        return Fault(f"stall-at-{k}", lambda response: [send(response[:k]), read_all()])
    return Fault(
        f"stall-at-{k}", lambda response: [send(response[:k]), wait(until), send(response[k:])]
    )


def drip(n: int = 1) -> Fault:
    """Send the response in pieces of *n* bytes, each of which the client reads by itself."""
    if n < 1:
        raise ValueError(f"a piece has at least one byte, got {n}")
    return Fault(
        f"drip-{n}",
        lambda response: [send(*(response[i : i + n] for i in range(0, len(response), n)))],
    )


# Other bytes come with it ------------------------------------------------------------------


def garbage_before(garbage: bytes = GARBAGE) -> Fault:
    """Send *garbage* directly before the response; by default it is another response."""
    return Fault("garbage-before", lambda response: [send(garbage + response)])


def garbage_after(garbage: bytes = GARBAGE) -> Fault:
    """Send *garbage* directly after the response; by default it is another response."""
    return Fault("garbage-after", lambda response: [send(response + garbage)])


# The request is not read -------------------------------------------------------------------


def close_unread(*, rst: bool = False) -> Fault:
    """Send FIN, or RST, before any byte of the request is read."""
    return Fault("reset-unread" if rst else "close-unread", lambda _: [_end(rst)], early=True)


def close_in_request(n: int, *, rst: bool = False) -> Fault:
    """Send FIN, or RST, after reading the request's head and *n* bytes of its body.

    After a FIN the server goes on reading, so that a client which goes on sending can finish;
    a RST fails the client's next write.
    """
    name = f"{'reset' if rst else 'close'}-in-request-{n}"
    return Fault(name, lambda _: [expect(), expect(n), _end(rst)], early=True)


def _end(rst: bool) -> Step:
    return reset() if rst else close()


# All of them -------------------------------------------------------------------------------


def faults(
    response: bytes,
    *kinds: Callable[[int], Fault],
    positions: int = MAX_SPLITS,
) -> list[pytest.ParameterSet]:
    """Return the faults of ``every_fault`` as ``pytest.param(fault, id=fault.name)``s."""
    import pytest

    every = every_fault(response, *kinds, positions=positions)
    return [pytest.param(fault, id=fault.name) for fault in every]


def every_fault(
    response: bytes,
    *kinds: Callable[[int], Fault],
    positions: int = MAX_SPLITS,
) -> list[Fault]:
    """Return FIN and RST at every telling byte of *response*, for a loop in one test.

    *kinds*: other faults, made from a position, such as ``stall_at``. *positions*: the maximum
    number of positions: 0, and those at which ``deliveries`` splits. At each of them the response
    is cut short, with two exceptions: a response that ends with the connection is complete at a
    FIN after its head, and a chunked one that lacks only its trailers and last CRLF is accepted
    as complete.
    """
    places = [0, *split_points(response, positions - 1)] if response and positions > 0 else []
    for kind in kinds:
        PLAIN_FUNCTION("a kind of fault", kind)
    return [
        at_once("a kind of fault", kind(k))
        for kind in kinds or (close_at, reset_at)
        for k in places
    ]
