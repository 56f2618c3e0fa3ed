"""What the machines have in common: a loop of their own, a clock, and a server that obeys."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, TypeVar

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from aiohttpconn.testing import Connection, ScriptedServer

from ..support.clocks import Clock
from ..support.leaks import guard

try:
    import uvloop
except ImportError:
    uvloop = None

__all__ = ["LOOPS", "Machine", "run_machine", "turns"]

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
if uvloop is not None:
    LOOPS["uvloop"] = uvloop.new_event_loop

T = TypeVar("T")

TURNS = 12
"""Turns of the loop in which all that is ready has come: an answer takes two."""

PAUSES = 1000
"""Pauses of 5 ms in which the end of a connection must come: the kernel of a busy machine may
deliver late."""


async def turns(count: int = TURNS) -> None:
    """Let the loop turn *count* times."""
    for _ in range(count):
        await asyncio.sleep(0)


class Machine(RuleBasedStateMachine):
    """A state machine whose rules ``run`` coroutines, in a loop that stands between them."""

    new_loop: ClassVar[Callable[[], asyncio.AbstractEventLoop]]

    def __init__(self) -> None:
        super().__init__()
        self.loop = guard(self.new_loop())
        self.clock = Clock()
        self.clock.start(self.loop)
        self.servers: list[ScriptedServer] = []

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run *main*, and let all that it began come to rest."""

        async def settled() -> T:
            try:
                return await main
            finally:
                await turns()

        return self.loop.run_until_complete(settled())

    def start_server(self, script: Any) -> ScriptedServer:
        """Start a server, which runs *script* for each connection until the machine's end."""
        server = ScriptedServer(script)
        self.run(server.__aenter__())
        self.servers.append(server)
        return server

    def teardown(self) -> None:
        try:
            self.run(self.shut())
            for server in self.servers:
                self.run(server.__aexit__(None, None, None))
            left = asyncio.all_tasks(self.loop)
            assert not left, f"tasks are left: {left}"
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.clock.stop()
            self.loop.close()

    async def shut(self) -> None:
        """Close all that the machine has opened."""
        raise NotImplementedError

    async def ended(self, conn: Connection) -> None:
        """Assert that the client has ended its side of *conn*, and let it be gone."""
        for _ in range(PAUSES):
            if conn.sock.fileno() < 0:
                return
            with contextlib.suppress(BlockingIOError):
                try:
                    if not conn.sock.recv(65536):
                        break
                except ConnectionError:
                    break
            await asyncio.sleep(0.005)
        else:
            raise AssertionError("the client has not ended a connection that it does not use")
        conn.reset_now()


def run_machine(kind: type[Machine], loop: str, *, examples: int, steps: int) -> None:
    """Run *kind* on the loop of that name, in so many examples of so many steps at most."""
    made = type(f"{kind.__name__}_{loop}", (kind,), {"new_loop": staticmethod(LOOPS[loop])})
    # In the long profile they are more.
    examples = max(examples, settings().max_examples // 2)
    run_state_machine_as_test(
        made, settings=settings(max_examples=examples, stateful_step_count=steps)
    )
