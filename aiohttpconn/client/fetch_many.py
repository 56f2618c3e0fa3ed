"""fetch_many: many requests at a time, and an iterator over their results. Layer: client.

Workers take items and put results; the caller's loop takes the results. An item begins if its host
may have another request (hosts.py), else it waits, and later ones are taken, up to ``READ_AHEAD``.
One worker at a time takes items, if there is room for a result. A worker that has found its item
calls another one, so that none starts in vain; one that finds nothing waits until it is called.

The workers refer to the state and not to the iterator, so nothing else keeps the iterator alive.
When the caller drops it, the workers are cancelled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from inspect import isasyncgen
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeAlias, Unpack

from ..arguments import FLAG, Checks, check_arguments, count
from ..exceptions import InvalidURL, PoolClosed, redact, shown_refused
from ..net.loops import call_in_loop, forget_frames_if_cancelled
from .hosts import Host, Hosts

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from .response import Response
    from .settings import RequestOptions

__all__ = ["FetchMany", "Fetched", "Items"]

Item: TypeAlias = "str | tuple[str, str] | tuple[str, str, Mapping[str, Any]]"
"""A URL, (method, URL), or (method, URL, options)."""

Items: TypeAlias = Iterable[Item] | AsyncIterable[Item]

Found: TypeAlias = tuple[Host, int, Item]
"""An item that was taken: its host, its number, and the item."""

READ_AHEAD = 1000
"""Items that are taken and wait because their hosts have their share of the requests under way."""


class Requester(Protocol):
    """The interface of a ``Client`` that ``fetch_many`` needs."""

    def request(
        self, method: str, url: str, **options: Unpack[RequestOptions]
    ) -> Coroutine[Any, Any, Response]:
        """Mirrors ``Client.request``."""


if TYPE_CHECKING:
    # For a type checker one of the two is None: a look at one of them tells about the other.

    class _Answered(NamedTuple):
        item: Any
        response: Response
        error: None

        def result(self) -> Response: ...

    class _Failed(NamedTuple):
        item: Any
        response: None
        error: Exception

        def result(self) -> Response: ...

    Fetched: TypeAlias = _Answered | _Failed
else:

    class Fetched(NamedTuple):
        """A result of ``fetch_many``: the ``item``, and either ``response`` or ``error``."""

        item: Any
        response: Response | None
        error: Exception | None

        def __repr__(self) -> str:
            item = self.item
            if isinstance(item, str):
                # Of a URL that is refused nobody knows where its password ends.
                refused = isinstance(self.error, InvalidURL)
                item = shown_refused(item) if refused else repr(redact(item))
            else:
                item = repr(item)
            return f"Fetched(item={item}, response={self.response!r}, error={self.error!r})"

        def result(self) -> Response:
            """Return the response, or raise the error."""
            if self.error is not None:
                raise self.error
            assert self.response is not None, "neither a response nor an error"
            return self.response


_make: Any = Fetched


class _State:
    """The state that the workers and the iterator share."""

    def __init__(
        self,
        client: Requester,
        items: Items,
        concurrency: int,
        ordered: bool,
        options: RequestOptions,
        per_host: float,
    ) -> None:
        # Configuration
        self.client = client
        self.concurrency = concurrency
        self.window = 2 * concurrency
        self.ordered = ordered
        self.options = options
        # The items: one of these
        self.sync: Iterator[Item] | None = None
        self.asynchronous: AsyncIterator[Item] | None = None
        if isinstance(items, AsyncIterable):
            self.asynchronous = aiter(items)
        else:
            self.sync = iter(items)
        # Whether a worker waits for the next one
        self.taking = False
        self.taken = 0
        # Items are taken while fewer wait: once there are so many, not before half have begun.
        self.ahead = READ_AHEAD
        self.exhausted = False
        self.failure: BaseException | None = None
        # The requests under way, and the items that were taken and wait
        self.hosts = Hosts(concurrency, per_host)
        self.begun = 0
        # The results: those that are ready, in order; the others by number until their turn
        self.ready: deque[Fetched] = deque()
        self.early: dict[int, Fetched] = {}
        self.given = 0
        # The waiter of the caller's loop for a result
        self.consumer: asyncio.Future[None] | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        # The tasks, and one that runs while it is made (``asyncio.eager_task_factory``)
        self.workers = 0
        # The workers that have nothing to do, and whether one was woken or made and has not run
        self.idle: deque[asyncio.Future[None]] = deque()
        self.coming = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self.started = False
        self.stopped = False

    # -------------------------------------------------------------------------- workers

    def start_worker(self) -> None:
        self.started = self.coming = True
        self.workers += 1
        self.loop = asyncio.get_running_loop()
        work = self.work()
        try:
            task = self.loop.create_task(work)
        except BaseException as exc:
            work.close()
            self.coming = False
            self.workers -= 1
            if not isinstance(exc, Exception):
                raise
            # The caller of this has a result to give, or an item to fetch, which must not be lost.
            self.fail(exc)
            return
        self.tasks.add(task)
        task.add_done_callback(self.ended)

    def ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self.workers -= 1
        if task.cancelled():
            if not self.stopped:
                self.coming = False  # it may have been that one
                self.fail(RuntimeError("fetch_many: other code cancelled the task of a request"))
        elif (exc := task.exception()) is not None:
            self.fail(exc)
        if not self.tasks:
            _wake(self.consumer)

    def fail(self, exc: BaseException) -> None:
        """Take no further item; raise *exc* after all results."""
        self.exhaust()
        if self.failure is None:
            self.failure = exc

    def exhaust(self) -> None:
        """Take no further item."""
        self.exhausted = self.hosts.complete = True
        self.release_workers()

    async def work(self) -> None:
        """Fetch one item after another."""
        hosts = self.hosts
        while (found := self.find() or await self.wait_for_item()) is not None:
            self.begun += 1
            if self.exhausted or (hosts.free and (hosts.waiting < self.ahead or hosts.ready())):
                self.call_worker()
            host, number, item = found
            response, error = None, None
            try:
                method, url, options = _unpacked(item)
                response = await self.client.request(method, url, **{**self.options, **options})
            except PoolClosed as exc:
                hosts.clear()
                self.fail(exc)
                return
            except Exception as exc:
                error = exc
            finally:
                hosts.end(host)
            self.put(number, _make(item, response, error))

    def call_worker(self) -> None:
        """Let one more worker look for work, if there is any; let all end if there will be none."""
        if self.exhausted and not self.hosts.waiting:
            self.release_workers()
        elif not self.coming and (self.may_begin() or self.may_take()):
            if self.idle:
                self.coming = True
                _wake(self.idle.popleft())
            elif self.workers <= self.concurrency:
                # One more than there are requests: it may have to wait for an item.
                self.start_worker()

    def release_workers(self) -> None:
        """Let all idle workers look for work, and end if there will be none."""
        while self.idle:
            _wake(self.idle.popleft())

    # ---------------------------------------------------------------------------- items

    def find(self) -> Found | None:
        """Return the next item to fetch, whose request counts as begun; None if there is none now.

        An item that waits goes before one that is still to be taken.
        """
        self.coming = False
        if self.hosts.waiting and self.may_begin():
            return self.hosts.next()
        found, items = None, self.sync
        try:
            while found is None and items is not None and self.may_take():
                found = self.sort_in(next(items))
        except StopIteration:
            self.exhaust()
        except Exception as exc:
            self.fail(exc)
        return found

    async def wait_for_item(self) -> Found | None:
        """Return what ``find`` does, as soon as there is something; None if there will be nothing.

        Of an async iterable, one worker at a time takes items.
        """
        found = None
        while found is None and (self.hosts.waiting or not self.exhausted):
            if self.asynchronous is not None and self.may_take():
                self.taking = True
                try:
                    item = await anext(self.asynchronous)
                except StopAsyncIteration:
                    self.exhaust()
                except Exception as exc:
                    self.fail(exc)
                else:
                    found = self.sort_in(item)
                finally:
                    self.taking = False
            elif not (self.may_begin() or self.may_take()):
                idle = asyncio.get_running_loop().create_future()
                self.idle.append(idle)
                await idle
            found = found or self.find()
        return found

    def may_begin(self) -> bool:
        """Whether an item that waits may begin now: its host has a place, and its result room."""
        return self.hosts.ready() and (self.ordered or self.held() < self.window)

    def may_take(self) -> bool:
        """Whether an item may be taken now: there is a place, and room for the item."""
        return (
            self.hosts.free > 0
            and not self.taking
            and not self.exhausted
            and self.hosts.waiting < self.ahead
            and self.held() < self.window
        )

    def held(self) -> int:
        """Return how many results are to come, or there and not given: they have a bound."""
        return (self.taken if self.ordered else self.begun) - self.given

    def sort_in(self, item: Item) -> Found | None:
        """Number *item*, and begin it if its host may have another request; else let it wait."""
        host = self.hosts.of(item if type(item) is str else _url_of(item))
        found = host, self.taken, item
        self.taken += 1
        if not host.items and self.hosts.begin(host):
            return found
        self.hosts.add(found)
        self.ahead = READ_AHEAD if self.hosts.waiting < READ_AHEAD else READ_AHEAD // 2
        return None

    # -------------------------------------------------------------------------- results

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
        if self.held() == self.window:
            # Nothing began, or was taken, until there is room for its result.
            self.given += 1
            self.call_worker()
        else:
            self.given += 1
        return fetched

    def stop(self) -> None:
        """Cancel all requests under way."""
        self.stopped = self.exhausted = True
        self.hosts.clear()
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
        per_host: float = inf,
    ) -> None:
        check_arguments(_CHECKS, {"concurrency": concurrency, "ordered": ordered})
        if isinstance(items, (str, bytes)):
            raise TypeError("fetch_many takes an iterable of URLs, not one URL: put it into a list")
        if not isinstance(items, (Iterable, AsyncIterable)):
            raise TypeError(f"items must be an iterable of URLs, not {type(items).__name__}")
        self._state = _State(client, items, concurrency, ordered, options, per_host)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Fetched:
        state = self._state
        if state.consumer is not None:
            raise RuntimeError("fetch_many: another task is already waiting for the next result")
        if not state.started and not state.stopped:
            state.call_worker()
        while not state.ready:
            if not state.tasks:
                if (failure := state.failure) is not None:
                    state.failure = None
                    raise failure
                raise StopAsyncIteration
            state.consumer = asyncio.get_running_loop().create_future()
            try:
                await state.consumer
            except asyncio.CancelledError:
                forget_frames_if_cancelled()
                raise
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
            call_in_loop(state.loop, state.stop)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _url_of(item: Any) -> Any:
    """Return the URL of an item; anything else if it is not valid."""
    return item[1] if isinstance(item, tuple) and len(item) > 1 else item


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
