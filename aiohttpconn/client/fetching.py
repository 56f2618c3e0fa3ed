"""fetch_many: many requests at a time, their results as they come. Layer: client.

Workers take items and put results, the loop's user takes them. At most ``concurrency`` requests
are under way and as many results wait, so that no more items are taken than that. The workers know
the state and not the iterator: when that is dropped, nobody else holds it, and they are cancelled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeAlias, Unpack

from ..exceptions import PoolClosed

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from .calls import RequestOptions
    from .response import Response

__all__ = ["FetchMany", "Fetched", "Items"]

Item: TypeAlias = "str | tuple[str, str] | tuple[str, str, Mapping[str, Any]]"
"""A URL, (method, URL), or (method, URL, options)."""

Items: TypeAlias = Iterable[Item] | AsyncIterable[Item]


class Requester(Protocol):
    """What fetches: a ``Client``."""

    def request(
        self, method: str, url: str, **options: Unpack[RequestOptions]
    ) -> Coroutine[Any, Any, Response]:
        """Mirrors ``Client.request``."""


class Fetched(NamedTuple):
    """A result of ``fetch_many``: ``item`` is what was given, and one of the others is None."""

    item: Any
    response: Response | None
    error: Exception | None

    def result(self) -> Response:
        """Return the response; raise the error if there is none."""
        if self.error is not None:
            raise self.error
        assert self.response is not None, "neither a response nor an error"
        return self.response


class _State:
    """What the workers and the iterator share."""

    def __init__(self, client: Requester, items: Items, concurrency: int, ordered: bool) -> None:
        # Configuration
        self.client = client
        self.concurrency = concurrency
        self.ordered = ordered
        # The items: one of these
        self.sync: Iterator[Item] | None = None
        self.asynchronous: AsyncIterator[Item] | None = None
        if isinstance(items, AsyncIterable):
            self.asynchronous = aiter(items)
        else:
            self.sync = iter(items)
        # An async iterator gives one item at a time.
        self.taking: asyncio.Lock | None = None
        self.taken = 0
        self.exhausted = False
        self.failure: BaseException | None = None
        # The results: in the order in which they are given, or by number until it is their turn
        self.ready: deque[Fetched] = deque()
        self.early: dict[int, Fetched] = {}
        self.given = 0
        # Who waits
        self.consumer: asyncio.Future[None] | None = None
        self.blocked: deque[asyncio.Future[None]] = deque()
        self.tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin, or go on, with as many workers as there may be and are items for."""
        if self.taking is None:
            self.taking = asyncio.Lock()
            loop = asyncio.get_running_loop()
            for _ in range(self.concurrency):
                task = loop.create_task(self.work())
                self.tasks.add(task)
                task.add_done_callback(self.ended)

    def ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            self.fail(exc)
        self.wake()

    def fail(self, exc: BaseException) -> None:
        """Take no further item; *exc* is raised when all results have been given."""
        self.exhausted = True
        if self.failure is None:
            self.failure = exc

    def wake(self) -> None:
        if self.consumer is not None and not self.consumer.done():
            self.consumer.set_result(None)

    async def work(self) -> None:
        """Fetch one item after the other."""
        while True:
            while self.taken - self.given >= 2 * self.concurrency and not self.exhausted:
                room = asyncio.get_running_loop().create_future()
                self.blocked.append(room)
                await room
            taken = await self.take()
            if taken is None:
                return
            number, item = taken
            response, error = None, None
            try:
                if isinstance(item, str):
                    response = await self.client.request("GET", item)
                else:
                    method, url, *options = item
                    response = await self.client.request(method, url, **dict(*options))
            except PoolClosed as exc:
                self.fail(exc)
                return
            except Exception as exc:
                error = exc
            self.put(number, Fetched(item, response, error))

    async def take(self) -> tuple[int, Item] | None:
        """Return the next item and its number, None if there is none."""
        try:
            if self.exhausted:
                return None
            if self.sync is not None:
                item = next(self.sync)
            else:
                item = await self.take_async()
        except (StopIteration, StopAsyncIteration):
            self.exhausted = True
            return None
        except Exception as exc:
            self.fail(exc)
            return None
        self.taken += 1
        return self.taken - 1, item

    async def take_async(self) -> Item:
        """Return the next item; ``StopAsyncIteration`` if there is none, or no other is wanted."""
        assert self.asynchronous is not None and self.taking is not None, "not started"
        async with self.taking:
            if self.exhausted:
                raise StopAsyncIteration
            return await anext(self.asynchronous)

    def put(self, number: int, fetched: Fetched) -> None:
        if self.ordered:
            self.early[number] = fetched
            while (due := self.given + len(self.ready)) in self.early:
                self.ready.append(self.early.pop(due))
        else:
            self.ready.append(fetched)
        if self.ready:
            self.wake()

    def give(self) -> Fetched:
        """Return a result that is ready; who waited for room goes on."""
        fetched = self.ready.popleft()
        self.given += 1
        while self.blocked:
            room = self.blocked.popleft()
            if not room.done():
                room.set_result(None)
                break
        return fetched

    def stop(self) -> None:
        """End all that is under way."""
        self.exhausted = True
        for task in self.tasks:
            if not task.get_loop().is_closed():
                task.cancel()


class FetchMany(AsyncIterator[Fetched]):
    """The results of ``Client.fetch_many``: iterate over them, once.

    Leaving the loop ends it as soon as nobody holds this object. ``async with`` and ``aclose()``
    wait until what was under way has ended.
    """

    def __init__(
        self,
        client: Requester,
        items: Items,
        concurrency: int,
        ordered: bool,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be 1 request or more, got {concurrency!r}")
        if isinstance(items, str):
            raise TypeError("fetch_many takes many URLs, not one: put it into a list")
        self._state = _State(client, items, concurrency, ordered)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Fetched:
        state = self._state
        state.start()
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
        """End all that is under way, and wait until it has ended. Harmless if repeated."""
        state = self._state
        state.stop()
        if state.tasks:
            await asyncio.wait(state.tasks)
        source: Any = state.sync if state.asynchronous is None else state.asynchronous
        if hasattr(source, "aclose"):
            await source.aclose()
        elif hasattr(source, "close"):
            source.close()

    def __del__(self) -> None:
        state = getattr(self, "_state", None)
        if state is not None:
            state.stop()
