"""fetch_many: many requests at a time, and an iterator over their results. Layer: client.

Workers take items and put results; the caller's loop takes the results. One worker at a time takes
an item, if there is room for its result, and then starts another worker, so that no worker starts
in vain. The workers refer to the state and not to the iterator, so nothing else keeps the iterator
alive. When the caller drops it, the workers are cancelled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import suppress
from inspect import isasyncgen
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeAlias, Unpack

from ..arguments import FLAG, Checks, check_arguments, count
from ..exceptions import PoolClosed

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from .response import Response
    from .settings import RequestOptions

__all__ = ["FetchMany", "Fetched", "Items"]

Item: TypeAlias = "str | tuple[str, str] | tuple[str, str, Mapping[str, Any]]"
"""A URL, (method, URL), or (method, URL, options)."""

Items: TypeAlias = Iterable[Item] | AsyncIterable[Item]


class Requester(Protocol):
    """The interface of a ``Client`` that ``fetch_many`` needs."""

    def request(
        self, method: str, url: str, **options: Unpack[RequestOptions]
    ) -> Coroutine[Any, Any, Response]:
        """Mirrors ``Client.request``."""


class Fetched(NamedTuple):
    """A result of ``fetch_many``: the ``item``, and either ``response`` or ``error``."""

    item: Any
    response: Response | None
    error: Exception | None

    def result(self) -> Response:
        """Return the response, or raise the error."""
        if self.error is not None:
            raise self.error
        assert self.response is not None, "neither a response nor an error"
        return self.response


class _State:
    """The state that the workers and the iterator share."""

    def __init__(
        self,
        client: Requester,
        items: Items,
        concurrency: int,
        ordered: bool,
        options: RequestOptions,
    ) -> None:
        # Configuration
        self.client = client
        self.concurrency = concurrency
        self.ordered = ordered
        self.options = options
        # The items: one of these
        self.sync: Iterator[Item] | None = None
        self.asynchronous: AsyncIterator[Item] | None = None
        if isinstance(items, AsyncIterable):
            self.asynchronous = aiter(items)
        else:
            self.sync = iter(items)
        # Held by the one worker that waits for room and takes an item.
        self.taking = asyncio.Lock()
        self.room: asyncio.Future[None] | None = None
        self.taken = 0
        self.exhausted = False
        self.failure: BaseException | None = None
        # The results: those that are ready, in order; the others by number until their turn
        self.ready: deque[Fetched] = deque()
        self.early: dict[int, Fetched] = {}
        self.given = 0
        # The waiter of the caller's loop for a result
        self.consumer: asyncio.Future[None] | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        # The tasks, and one that runs while it is made (``asyncio.eager_task_factory``)
        self.workers = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self.started = False
        self.stopped = False

    def start_worker(self) -> None:
        self.started = True
        self.workers += 1
        self.loop = asyncio.get_running_loop()
        task = self.loop.create_task(self.work())
        self.tasks.add(task)
        task.add_done_callback(self.ended)

    def ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self.workers -= 1
        if task.cancelled():
            if not self.stopped:
                self.fail(RuntimeError("fetch_many: other code cancelled the task of a request"))
        elif (exc := task.exception()) is not None:
            self.fail(exc)
        if not self.tasks:
            _wake(self.consumer)

    def fail(self, exc: BaseException) -> None:
        """Take no further item; raise *exc* after all results."""
        self.exhausted = True
        _wake(self.room)
        if self.failure is None:
            self.failure = exc

    async def work(self) -> None:
        """Fetch one item after another."""
        while (taken := await self.take()) is not None:
            number, item = taken
            if self.workers < self.concurrency:
                self.start_worker()
            response, error = None, None
            try:
                method, url, options = _unpacked(item)
                response = await self.client.request(method, url, **{**self.options, **options})
            except PoolClosed as exc:
                self.fail(exc)
                return
            except Exception as exc:
                error = exc
            self.put(number, Fetched(item, response, error))

    async def take(self) -> tuple[int, Item] | None:
        """Return the next item and its number; None at the end, after a failure or a stop."""
        async with self.taking:
            while self.taken - self.given >= 2 * self.concurrency and not self.exhausted:
                self.room = asyncio.get_running_loop().create_future()
                await self.room
            if self.exhausted:
                return None
            try:
                if self.sync is not None:
                    item = next(self.sync)
                else:
                    assert self.asynchronous is not None, "items of neither kind"
                    item = await anext(self.asynchronous)
            except (StopIteration, StopAsyncIteration):
                self.exhausted = True
                return None
            except Exception as exc:
                self.fail(exc)
                return None
            self.taken += 1
            return self.taken - 1, item

    def put(self, number: int, fetched: Fetched) -> None:
        if self.ordered:
            self.early[number] = fetched
            while (due := self.given + len(self.ready)) in self.early:
                self.ready.append(self.early.pop(due))
        else:
            self.ready.append(fetched)
        if self.ready:
            _wake(self.consumer)

    def give(self) -> Fetched:
        """Return a result that is ready, which makes room for another."""
        fetched = self.ready.popleft()
        self.given += 1
        _wake(self.room)
        return fetched

    def stop(self) -> None:
        """Cancel all requests under way."""
        self.stopped = self.exhausted = True
        self.ready.clear()
        self.early.clear()
        for task in self.tasks:
            if not task.get_loop().is_closed():
                task.cancel()


_CHECKS: Checks = {"concurrency": count(1, "request"), "ordered": FLAG}


class FetchMany(AsyncIterator[Fetched]):
    """The results of ``Client.fetch_many``: iterate over them, once.

    After the caller leaves the loop, the requests under way are cancelled as soon as nothing
    refers to this object. ``async with`` and ``aclose()`` also wait until these have ended, and
    close an async generator of items.
    """

    def __init__(
        self,
        client: Requester,
        items: Items,
        concurrency: int,
        ordered: bool,
        options: RequestOptions,
    ) -> None:
        check_arguments(_CHECKS, {"concurrency": concurrency, "ordered": ordered})
        if isinstance(items, (str, bytes)):
            raise TypeError("fetch_many takes an iterable of URLs, not one URL: put it into a list")
        if not isinstance(items, (Iterable, AsyncIterable)):
            raise TypeError(f"items must be an iterable of URLs, not {type(items).__name__}")
        self._state = _State(client, items, concurrency, ordered, options)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Fetched:
        state = self._state
        if state.consumer is not None:
            raise RuntimeError("fetch_many: another task is already waiting for the next result")
        if not state.started and not state.stopped:
            state.start_worker()
        while not state.ready:
            if not state.tasks:
                if (failure := state.failure) is not None:
                    state.failure = None
                    raise failure
                raise StopAsyncIteration
            state.consumer = asyncio.get_running_loop().create_future()
            try:
                await state.consumer
            finally:
                state.consumer = None
        return state.give()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel all requests under way and wait until they have ended. Harmless if repeated."""
        state = self._state
        state.stop()
        if state.tasks:
            await asyncio.wait(state.tasks)
        if isasyncgen(state.asynchronous):
            await state.asynchronous.aclose()

    def __del__(self) -> None:
        state = getattr(self, "_state", None)
        if state is not None and state.loop is not None:
            # In the loop's thread: the garbage collector runs in any thread.
            with suppress(RuntimeError):  # the loop is closed
                state.loop.call_soon_threadsafe(state.stop)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _unpacked(item: Any) -> tuple[str, str, Mapping[str, Any]]:
    """Return the method, URL and options of an item."""
    if isinstance(item, str):
        return "GET", item, {}
    if isinstance(item, tuple) and len(item) in (2, 3):
        method, url, *options = item
        return method, url, options[0] if options else {}
    raise TypeError(
        "an item of fetch_many must be a URL, (method, URL) or (method, URL, options), got "
        f"{item!r:.200}"
    )
