"""fetch_many: any items, results as they finish, nothing read ahead, nothing leaked."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import sys
import threading
import tracemalloc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from aiohttpconn import (
    Client,
    Fetched,
    InvalidURL,
    PoolClosed,
    PoolTimeout,
    Response,
    Timeout,
)
from aiohttpconn.client.fetch_many import FetchMany
from aiohttpconn.client.hosts import Hosts
from aiohttpconn.testing import Reply, ScriptedServer, answer, reset, serve, stall_at
from aiohttpconn.testing import Request as ServedRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

ANYWHERE = {"*": "127.0.0.1"}

HI = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def echo(request: ServedRequest) -> Reply:
    fields = "".join(f"{name}: {value}\n" for name, value in request.headers.items())
    return Reply(f"{request.method} {request.target}\n{fields}\n".encode() + request.body)


class Answers:
    """A client without a network: each request ends when it is released, or at once."""

    def __init__(self, at_once: bool = True) -> None:
        self.at_once = at_once
        self.waiting: dict[str, asyncio.Future[None]] = {}
        self.most = 0
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self.cancelled = 0
        self.errors: dict[str, BaseException] = {}

    async def request(self, method: str, url: str, **options: Any) -> Any:
        self.calls.append((method, url, options))
        future = self.waiting[url] = asyncio.get_running_loop().create_future()
        self.most = max(self.most, len(self.waiting))
        try:
            if self.at_once:
                await asyncio.sleep(0)
            else:
                await future
            if url in self.errors:
                raise self.errors[url]
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            del self.waiting[url]
        return f"got {url}"

    def release(self, url: str) -> None:
        self.waiting[url].set_result(None)


class Source:
    """Items that are counted as they are taken: numbers, or URLs of a host each."""

    def __init__(self, n: int, fails_at: int = -1, hosts: bool = False) -> None:
        self.taken = 0
        self._n = n
        self._before = "http://host-" if hosts else ""
        self._fails_at = fails_at
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        try:
            for number in range(self._n):
                if number == self._fails_at:
                    raise KeyError("no more")
                self.taken += 1
                yield f"{self._before}{number}"
        finally:
            self.ended = True

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            for item in self:
                await asyncio.sleep(0)
                yield item
        finally:
            self.ended = True


KINDS: dict[str, Callable[[Source], Any]] = {
    "sync": lambda source: iter(source),
    "async": lambda source: aiter(source),
}


def fetch(client: Any, items: Any, concurrency: int = 4, ordered: bool = False) -> FetchMany:
    return FetchMany(client, items, concurrency, ordered, {})


async def turns(n: int = 50) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


def fetch_tasks() -> set[asyncio.Task[Any]]:
    return {
        task
        for task in asyncio.all_tasks()
        if "fetch_many.py" in repr(task.get_coro()) or "_State.work" in repr(task)
    }


# ------------------------------------------------------------------------------ results


async def test_results_of_real_requests():
    async with serve(echo) as server, Client(trust_env=False) as client:
        urls = [f"{server.url}{number}" for number in range(50)]
        results = [result async for result in client.fetch_many(urls)]
        assert sorted(result.item for result in results) == sorted(urls)
        for result in results:
            assert isinstance(result, Fetched)
            assert isinstance(result.response, Response)
            assert result.error is None
            assert result.result() is result.response
            assert result.response.url == result.item
        assert client.stats().leased == 0


ITERABLES: dict[str, Callable[[], Any]] = {
    "list": lambda: ["a", "b", "c"],
    "tuple": lambda: ("a", "b", "c"),
    "dict": lambda: {"a": 1, "b": 2, "c": 3},
    "iterator": lambda: iter("abc"),
    "generator": lambda: (item for item in "abc"),
    "map": lambda: map(str, "abc"),
}


@pytest.mark.parametrize("kind", ITERABLES)
async def test_items_of_any_iterable(kind):
    results = await collect(fetch(Answers(), ITERABLES[kind](), ordered=True))
    assert results == [Fetched(item, f"got {item}", None) for item in "abc"]


async def test_items_of_an_async_iterable():
    class Custom:
        def __init__(self) -> None:
            self.left = list("abc")

        def __aiter__(self) -> Custom:
            return self

        async def __anext__(self) -> str:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop(0)

    for items in (Custom(), aiter(Source(3))):
        results = [result.response async for result in fetch(Answers(), items, ordered=True)]
        assert len(results) == 3


async def test_items_may_have_a_method_and_options():
    async with serve(echo) as server, Client(trust_env=False) as client:
        url = server.url
        items: list[Any] = [
            url,
            ("HEAD", url),
            ("POST", url, {"json": [1], "headers": {"X-B": "2"}}),
            ("GET", url, {"params": {"a": "b"}}),
        ]
        results = [
            result.result()
            async for result in client.fetch_many(items, ordered=True, headers={"X-A": "1"})
        ]
        assert [result.method for result in results] == ["GET", "HEAD", "POST", "GET"]
        assert [request.headers["X-A"] for request in server.requests] == ["1"] * 4
        assert results[2].text.endswith("\n\n[1]")
        assert "X-B: 2\n" in results[2].text
        assert results[3].text.startswith("GET /?a=b\n")


async def test_no_items_no_results():
    for items in ([], iter(()), aiter(Source(0))):
        assert [result async for result in fetch(Answers(), items)] == []


async def test_options_are_for_all():
    """Each that a request has; what an item has comes before them."""
    async with serve(echo) as server:
        async with Client(trust_env=False, params={"key": "k"}) as client:
            results = client.fetch_many(
                [("POST", server.url), ("PUT", server.url, {"json": 2, "params": {"a": "c"}})],
                ordered=True,
                params={"a": "b"},
                json={"x": 1},
                cookies={"c": "d"},
                auth=("me", "pw"),
                decompress=False,
            )
            first, second = [result.result().text async for result in results]
            assert first.startswith("POST /?key=k&a=b\n")
            assert first.endswith('\n\n{"x":1}')
            assert second.startswith("PUT /?key=k&a=c\n")
            assert second.endswith("\n\n2")
            for text in (first, second):
                assert "Authorization: Basic bWU6cHc=\n" in text
                assert "Cookie: c=d\n" in text
                assert "Accept-Encoding: identity\n" in text
            # The client is as it was.
            text = (await client.get(server.url)).text
            assert text.startswith("GET /?key=k\n")
            assert "Authorization" not in text


async def test_cookies_are_the_clients():
    replies = {"/": Reply(headers={"Set-Cookie": "a=1"})}
    async with serve(replies) as server, Client(trust_env=False) as client:
        async for result in client.fetch_many([server.url]):
            assert result.result().cookies == {"a": "1"}
        assert [str(cookie) for cookie in client.cookies] == ["<Cookie a=1 for 127.0.0.1/>"]


async def test_a_client_of_ones_own_is_what_fetches():
    class Counting(Client):
        def __init__(self) -> None:
            super().__init__(trust_env=False)
            self.count = 0

        async def request(self, method: str, url: str, **options: Any) -> Response:
            self.count += 1
            return await super().request(method, url, **options)

    async with serve(echo) as server, Counting() as client:
        results = [result.result() async for result in client.fetch_many([server.url] * 3)]
        assert len(results) == 3


# ---------------------------------------------------------------- order and concurrency


async def test_results_come_as_they_are_finished_or_in_order():
    for ordered, expected in ((False, "2013"), (True, "0123")):
        answers = Answers(at_once=False)
        got: list[str] = []

        async def consume(answers: Answers, ordered: bool, got: list[str]) -> None:
            async for result in fetch(answers, list("0123"), ordered=ordered):
                got.append(result.item)  # noqa: PERF401 - the test looks at it meanwhile

        task = asyncio.ensure_future(consume(answers, ordered, got))
        await turns()
        for url in "2013":
            answers.release(url)
            await turns(5)
            if ordered:
                assert got == list("0123"[: len(got)])
            else:
                assert got[-1] == url
        await task
        assert "".join(got) == expected


@pytest.mark.parametrize("concurrency", [1, 2, 7])
async def test_no_more_requests_at_a_time_than_asked_for(concurrency):
    answers = Answers(at_once=False)
    results = fetch(answers, map(str, range(20)), concurrency)
    task = asyncio.ensure_future(collect(results))
    while not task.done():
        await turns(20)
        assert len(answers.waiting) == min(
            concurrency, 20 - (len(answers.calls) - len(answers.waiting))
        )
        for url in list(answers.waiting)[:1]:
            answers.release(url)
    assert answers.most == concurrency
    assert len(task.result()) == 20


async def collect(results: Any) -> list[Fetched]:
    return [result async for result in results]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("concurrency", [1, 3, 8])
async def test_no_more_is_taken_than_twice_what_is_asked_for(kind, ordered, concurrency):
    """With a caller of any slowness, and many hosts."""
    source = Source(100, hosts=True)
    results = fetch(Answers(), KINDS[kind](source), concurrency, ordered)
    assert source.taken == 0
    given = 0
    async for _ in results:
        given += 1
        await turns(60)
        assert source.taken == min(100, given + 2 * concurrency)
    assert (given, source.taken) == (100, 100)


@pytest.mark.parametrize("ordered", [False, True])
async def test_one_that_is_slow_holds_up_no_more_than_that(ordered):
    answers = Answers(at_once=False)
    source = Source(100)
    got: list[str] = []

    async def consume() -> None:
        async for result in fetch(answers, iter(source), 3, ordered):
            got.append(result.item)  # noqa: PERF401 - the test looks at it meanwhile

    task = asyncio.ensure_future(consume())
    for _ in range(150):
        await turns(6)
        for url in [url for url in answers.waiting if url != "0"]:
            answers.release(url)
    if ordered:
        # 0 is first, and 5 others wait for it.
        assert (got, source.taken) == ([], 6)
    else:
        assert (len(got), source.taken) == (99, 100)
    answers.release("0")
    for _ in range(150):
        await turns(6)
        for url in list(answers.waiting):
            answers.release(url)
    await task
    assert sorted(got, key=int) == [str(number) for number in range(100)]
    if ordered:
        assert got == sorted(got, key=int)


async def test_few_items_make_few_tasks():
    before = asyncio.all_tasks()
    answers = Answers(at_once=False)
    results = fetch(answers, list("ab"), concurrency=10_000)
    task = asyncio.ensure_future(anext(results))
    await turns()
    assert len(asyncio.all_tasks() - before - {task}) <= 3
    answers.release("a")
    await task
    await results.aclose()


async def test_items_without_an_end():
    def forever() -> Iterator[str]:
        while True:
            yield "x"

    class Same(Answers):
        async def request(self, method: str, url: str, **options: Any) -> str:
            await asyncio.sleep(0)
            return url

    async with fetch(Same(), forever(), 10) as results:
        count = 0
        async for _ in results:
            count += 1
            if count == 1000:
                break


async def test_a_source_that_is_slow_holds_up_no_results():
    more = asyncio.Event()

    async def items() -> AsyncIterator[str]:
        yield "a"
        await more.wait()
        yield "b"

    results = fetch(Answers(), items())
    assert (await anext(results)).item == "a"
    task = asyncio.ensure_future(anext(results))
    await turns()
    assert not task.done()
    more.set()
    assert (await task).item == "b"
    with pytest.raises(StopAsyncIteration):
        await anext(results)


async def test_a_source_is_asked_for_one_item_at_a_time():
    inside = 0

    class Strict:
        def __init__(self) -> None:
            self.left = 20

        def __aiter__(self) -> Strict:
            return self

        async def __anext__(self) -> str:
            nonlocal inside
            assert inside == 0
            inside += 1
            await asyncio.sleep(0)
            inside -= 1
            self.left -= 1
            if self.left < 0:
                raise StopAsyncIteration
            return str(self.left)

    assert len(await collect(fetch(Answers(), Strict(), 8))) == 20


# -------------------------------------------------------------------------------- hosts


def urls_of(host: str, count: int) -> list[str]:
    return [f"http://{host}/{number}" for number in range(count)]


def under_way(answers: Answers, host: str) -> int:
    return sum(url.startswith(f"http://{host}/") for url in answers.waiting)


class Held(Answers):
    """Requests to hosts whose names begin with "slow" end when they are released, others at once.

    ``most_slow``: the most slow ones under way when another one began.
    """

    most_slow = 0
    held = True

    def let_go(self) -> None:
        self.held = False
        for url in self.waiting:
            self.release(url)

    async def request(self, method: str, url: str, **options: Any) -> Any:
        self.at_once = not (self.held and url.startswith("http://slow"))
        if self.at_once and self.held:
            slow = sum(other.startswith("http://slow") for other in self.waiting)
            self.most_slow = max(self.most_slow, slow)
        return await super().request(method, url, **options)


async def asynchronous(items: Any) -> AsyncIterator[Any]:
    for item in items:
        await asyncio.sleep(0)
        yield item


@pytest.mark.parametrize("asynchronously", [False, True])
@pytest.mark.parametrize("concurrency", [2, 5, 20, 64])
async def test_a_slow_host_delays_no_other(concurrency, asynchronously):
    """All pages of fast hosts are there while the slow one has answered nothing."""
    answers = Held()
    fast = [f"http://fast-{number % 10}/{number}" for number in range(1000)]
    items: Any = urls_of("slow", 200) + fast
    results = fetch(answers, asynchronous(items) if asynchronously else items, concurrency)
    got = {(await anext(results)).item for _ in fast}
    assert got == set(fast)
    # It has most of the places, and not all.
    assert answers.most_slow == concurrency - max(1, concurrency // 8)
    answers.let_go()
    assert got | {result.item async for result in results} == {*urls_of("slow", 200), *fast}


async def test_slow_pages_of_a_server_delay_no_other_server():
    """With real requests, and the defaults."""
    let_go = asyncio.Event()

    async def slow(request: ServedRequest) -> str:
        await let_go.wait()
        return "slow"

    async with serve(slow) as busy, serve(echo) as other, Client(trust_env=False) as client:
        urls = [f"{busy.url}{number}" for number in range(200)]
        urls += [f"{other.url}{number}" for number in range(1000)]
        async with client.fetch_many(urls) as results:
            got = {(await anext(results)).result().url for _ in range(1000)}
            assert got == set(urls[200:])
            assert len(busy.heads) == 56
            let_go.set()
            assert {result.result().url async for result in results} == set(urls[:200])


async def test_a_host_that_is_paused_or_limited_delays_no_other():
    """A pause of an hour, and a request an hour: the rest of their pages would wait for days."""

    def busy(request: ServedRequest) -> Reply:
        return Reply("later", status=503, headers={"Retry-After": "3600"})

    async with serve(busy) as paused, serve(echo) as other:
        async with Client(trust_env=False, respect_retry_after=True) as client:
            assert (await client.get(paused.url)).status == 503
            urls = [f"{paused.url}{number}" for number in range(200)]
            urls += [f"{other.url}{number}" for number in range(1000)]
            async with client.fetch_many(urls) as results:
                got = {(await anext(results)).result().url for _ in range(1000)}
            assert got == set(urls[200:])
            assert client.stats().queued == 0
        async with Client(trust_env=False, rate="1/h", resolve=ANYWHERE) as client:
            urls = [f"http://slow.test:{other.port}/{number}" for number in range(200)]
            urls += [f"http://{number}.test:{other.port}/" for number in range(100)]
            async with client.fetch_many(urls, concurrency=8) as results:
                got = {(await anext(results)).result().url for _ in range(101)}
            assert got == {urls[0], *urls[200:]}


async def test_several_slow_hosts_delay_no_other():
    answers = Held()
    slow = [url for name in "abcd" for url in urls_of(f"slow-{name}", 100)]
    fast = urls_of("fast", 500)
    async with fetch(answers, slow + fast, 64) as results:
        assert {(await anext(results)).item for _ in fast} == set(fast)
        # Those that come late have a quarter of the reserve each.
        counts = [under_way(answers, f"slow-{name}") for name in "abcd"]
        assert counts == [56, 2, 2, 2]


async def test_hosts_get_as_many_places_each():
    """The one that came first gives places to the others as its requests end."""
    answers = Held()
    items = [url for name in "abc" for url in urls_of(f"slow-{name}", 300)]
    async with fetch(answers, items, 64) as results:
        for number in range(300):
            if number:
                answers.release(next(url for url in answers.waiting))
            task = asyncio.ensure_future(anext(results))
            await turns(5)
            if number:
                await task
            else:
                task.cancel()
        counts = [under_way(answers, f"slow-{name}") for name in "abc"]
        assert sum(counts) == 56
        assert max(counts) - min(counts) <= 3


async def test_the_only_host_has_all_places_when_no_other_can_come():
    answers = Answers(at_once=False)
    for count, expected in ((100, 8), (5000, 7)):
        # Of 5,000 items the last ones are not known yet: they may be of another host.
        async with fetch(answers, urls_of("one", count), 8) as results:
            task = asyncio.ensure_future(anext(results))
            await turns()
            assert len(answers.waiting) == expected
            task.cancel()


@pytest.mark.parametrize("kind", KINDS)
async def test_items_whose_hosts_have_their_share_are_taken_up_to_a_thousand(kind):
    answers = Answers(at_once=False)
    source = Source(3000)
    async with fetch(answers, KINDS[kind](source), 8) as results:
        task = asyncio.ensure_future(anext(results))
        while source.taken < 7 + 1000:
            await asyncio.sleep(0)
        await turns(100)
        assert (source.taken, len(answers.waiting)) == (7 + 1000, 7)
        task.cancel()
    # In the order of the items, no more are taken than may begin before the first one ends.
    source = Source(3000)
    async with fetch(answers, KINDS[kind](source), 8, ordered=True) as results:
        task = asyncio.ensure_future(anext(results))
        await turns(100)
        assert (source.taken, len(answers.waiting)) == (16, 7)
        task.cancel()


async def test_no_host_gets_more_places_than_it_may_have_connections():
    let_go = asyncio.Event()

    async def slow(request: ServedRequest) -> str:
        await let_go.wait()
        return "slow"

    async with serve(slow) as server:
        options: dict[str, Any] = {"limit_per_host": 2, "resolve": ANYWHERE}
        async with Client(trust_env=False, **options) as client:
            urls = [f"http://{name}.test:{server.port}/" for name in "abcd" for _ in range(20)]
            async with client.fetch_many(urls, concurrency=20) as results:
                task = asyncio.ensure_future(collect(results))
                while len(server.heads) < 8:
                    await asyncio.sleep(0)
                await turns()
                assert client.stats().queued == 0
                let_go.set()
                assert len(await task) == 80


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("concurrency", [1, 2, 3, 9])
async def test_every_item_has_its_result_whatever_the_order_of_the_hosts(ordered, concurrency):
    for seed in range(30):
        chance = random.Random(seed)
        answers = Answers(at_once=False)
        hosts = [f"host-{number}" for number in range(chance.choice([1, 2, 5]))]
        urls = [f"http://{chance.choice(hosts)}/{number}" for number in range(60)]
        items: Any = asynchronous(urls) if seed % 2 else urls
        task = asyncio.ensure_future(collect(fetch(answers, items, concurrency, ordered)))
        while not task.done():
            await turns(chance.randrange(1, 6))
            assert len(answers.waiting) <= concurrency
            for url in chance.sample(list(answers.waiting), min(2, len(answers.waiting))):
                answers.release(url)
        got = [result.item for result in task.result()]
        assert (got if ordered else sorted(got)) == (urls if ordered else sorted(urls))


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://example.org/a", "example.org"),
        ("HTTP://Example.ORG?x=//y", "example.org"),
        ("http://me:pw@example.org#f", "example.org"),
        ("https://example.org:8443", "example.org:8443"),
        ("http://[::1]:80/", "[::1]:80"),
        ("//example.org/a", "example.org"),
        ("/relative//path", ""),
        ("", ""),
        (5, ""),
    ],
)
def test_the_host_of_a_url(url, name):
    assert Hosts(1, 1).of(url).name == name


# ------------------------------------------------------------------------------- errors


async def test_errors_are_results():
    async with ScriptedServer([answer(HI), reset()]) as server, Client(trust_env=False) as client:
        items: list[Any] = [
            server.url,
            "http://h:x/",
            ("GET", server.url, {"unknown": 1}),
            ("BAD METHOD", server.url),
            ("GET",),
            ("GET", server.url, {}, {}),
            b"http://h/",
            5,
            ["GET", server.url],
            None,
        ]
        results = await collect(client.fetch_many(items, ordered=True))
        assert [result.item for result in results] == items
        first, *others = results
        assert first.result().content == b"hi"
        assert [type(other.error) for other in others] == [
            InvalidURL,
            TypeError,
            ValueError,
            *[TypeError] * 6,
        ]
        for other in others:
            assert other.response is None
            with pytest.raises(type(other.error)) as caught:
                other.result()
            assert caught.value is other.error
        assert str(others[3].error) == (
            "an item of fetch_many must be a URL, (method, URL) or (method, URL, options), got "
            "('GET',)"
        )


async def test_one_error_is_one_result():
    answers = Answers()
    answers.errors["1"] = OSError("1")
    results = await collect(fetch(answers, list("0123"), ordered=True))
    assert [type(result.error) for result in results] == [type(None), OSError, *[type(None)] * 2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("fails_at", [0, 1, 7, 19])
async def test_an_error_of_the_source_comes_after_the_results_before_it(kind, ordered, fails_at):
    results = fetch(Answers(), KINDS[kind](Source(20, fails_at)), 3, ordered)
    got = []
    with pytest.raises(KeyError, match="no more"):
        async for result in results:
            got.append(result.item)  # noqa: PERF401 - an exception ends it
    assert sorted(got, key=int) == [str(number) for number in range(fails_at)]
    # It is told once.
    assert await collect(results) == []


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_pool_that_is_closed_ends_it(ordered):
    """The results before it still come."""
    go_on = asyncio.Event()

    async def reply(request: ServedRequest) -> Reply:
        if request.path == "/3":
            await go_on.wait()
        return Reply(request.path)

    async with serve(reply) as server:
        client = Client(trust_env=False)
        got = []
        with pytest.raises(PoolClosed):
            items = (f"{server.url}{number}" for number in range(1000))
            async for result in client.fetch_many(items, concurrency=4, ordered=ordered):
                if result.error is None:
                    got.append(result.response.text)
                if len(got) == 3:
                    await client.close()
        assert got[:3] == ["/0", "/1", "/2"]
        assert len(got) < 12
        go_on.set()


async def test_a_closed_client_fetches_nothing():
    client = Client(trust_env=False)
    await client.close()
    with pytest.raises(PoolClosed, match="the client is closed"):
        await collect(client.fetch_many(["http://h/"] * 10))


async def test_a_request_that_is_cancelled_from_elsewhere_is_no_silence():
    answers = Answers(at_once=False)
    results = fetch(answers, list("abc"), 2, ordered=True)
    task = asyncio.ensure_future(collect(results))
    await turns()
    (first, *_) = fetch_tasks()
    first.cancel()
    await turns()
    for url in list(answers.waiting):
        answers.release(url)
    await turns()
    for url in list(answers.waiting):
        answers.release(url)
    with pytest.raises(RuntimeError, match="other code cancelled the task of a request"):
        await task


async def test_what_makes_no_sense_is_an_error_at_once():
    async with Client(trust_env=False) as client:
        with pytest.raises(TypeError, match="unknown options: tiemout"):
            client.fetch_many([], tiemout=5)
        with pytest.raises(ValueError, match="seconds above 0"):
            client.fetch_many([], timeout=0)


# ----------------------------------------------------------------------------- timeouts


@pytest.mark.parametrize("timeout", ["not given", 5, Timeout(pool=0.01)])
async def test_requests_wait_for_each_other_unless_that_is_limited(timeout, ticking):
    go_on = asyncio.Event()
    async with (
        ScriptedServer([answer(HI, fault=stall_at(0, go_on))], [answer(HI)]) as server,
        Client(trust_env=False, limit=1, timeout=Timeout(pool=0.01), resolve=ANYWHERE) as client,
    ):
        options = {} if timeout == "not given" else {"timeout": timeout}
        urls = [f"http://{name}.test:{server.port}/" for name in "abc"]
        results = client.fetch_many(urls, **options)
        task = asyncio.ensure_future(collect(results))
        await ticking.sleep(0.03)
        go_on.set()
        kinds = {type(result.error) for result in await task}
        if isinstance(timeout, Timeout):
            assert PoolTimeout in kinds
        else:
            assert kinds == {type(None)}


# --------------------------------------------------------------------------------- ends


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ordered", [False, True])
async def test_leaving_the_loop_ends_all(kind, ordered):
    for after in range(12):
        answers = Answers()
        source = Source(10_000, hosts=True)
        count = 0
        async for _ in fetch(answers, KINDS[kind](source), 4, ordered):
            count += 1
            if count > after:
                break
        # Nobody holds it: what is under way is cancelled.
        await turns(10)
        assert fetch_tasks() == set()
        assert answers.waiting == {}
        assert source.taken <= after + 1 + 8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["aclose", "cancel", "async with"])
async def test_it_can_end_at_any_moment(kind, end):
    """At each turn of the loop: no task, no request, no generator is left."""
    for moment in range(40):
        answers = Answers()
        source = Source(1000)
        held = KINDS[kind](source)
        results: Any = fetch(answers, held, 3)

        async def consume(results: Any) -> None:
            async for _ in results:
                await asyncio.sleep(0)

        task = asyncio.ensure_future(consume(results))
        if end == "async with":
            async with results:
                await turns(moment)
                task.cancel()
                await asyncio.wait([task])
        elif end == "aclose":
            await turns(moment)
            await results.aclose()
            await results.aclose()
            await asyncio.wait([task])
            assert task.exception() is None
        else:
            await turns(moment)
            task.cancel()
            await asyncio.wait([task])
        gone = weakref.ref(results)
        del task, results
        assert gone() is None
        if end == "cancel":
            await turns(8)
        assert fetch_tasks() == set()
        assert answers.waiting == {}
        del held
        await turns(4)
        assert source.ended or not source.taken


async def test_an_async_generator_is_closed_at_the_end():
    source = Source(100)
    held = aiter(source)
    async with fetch(Answers(), held, 2) as results:
        await anext(results)
        await turns()
        assert not source.ended
    assert source.ended


async def test_it_ends_when_the_error_of_the_loop_is_handled():
    answers = Answers()
    try:
        async for _ in fetch(answers, iter(Source(1000)), 3):
            raise KeyError("of the loop")
    except KeyError:
        pass
    await turns(10)
    assert fetch_tasks() == set()
    assert answers.waiting == {}


async def test_after_its_end_there_is_nothing():
    results = fetch(Answers(), list("abc"))
    await anext(results)
    await results.aclose()
    assert await collect(results) == []
    unused = fetch(Answers(), list("abc"))
    await unused.aclose()
    assert await collect(unused) == []


async def test_a_file_of_the_callers_is_not_closed(tmp_path):
    path = tmp_path / "urls"
    path.write_text("a\nb\nc\n")
    with path.open() as file:
        async with fetch(Answers(), file, 1) as results:
            await anext(results)
        assert not file.closed


async def test_a_loop_can_be_left_and_taken_up_again():
    results = fetch(Answers(), list("abcd"), 2, ordered=True)
    async for result in results:
        assert result.item == "a"
        break
    assert [result.item async for result in results] == ["b", "c", "d"]


async def test_two_at_a_time_is_an_error():
    answers = Answers(at_once=False)
    results = fetch(answers, list("ab"))
    first = asyncio.ensure_future(anext(results))
    await turns()
    with pytest.raises(RuntimeError, match="another task is already waiting for the next result"):
        await anext(results)
    answers.release("a")
    assert (await first).item == "a"
    await results.aclose()


async def test_a_cancelled_wait_for_a_result_loses_none():
    answers = Answers(at_once=False)
    results = fetch(answers, list("ab"), ordered=True)
    task = asyncio.ensure_future(anext(results))
    await turns()
    answers.release("a")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await turns()
    answers.release("b")
    assert [result.item async for result in results] == ["a", "b"]


async def test_real_requests_that_are_under_way_are_cancelled():
    async with (
        ScriptedServer([answer(HI, fault=stall_at(3))]) as server,
        Client(trust_env=False, limit=2, resolve=ANYWHERE) as client,
    ):
        urls = [f"http://{name}.test:{server.port}/" for name in "abcdefghij"]
        async with client.fetch_many(urls, concurrency=5) as results:
            task = asyncio.ensure_future(anext(results))
            await server.wait_connections(2)
            while client.stats().queued < 3:
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        stats = client.stats()
        assert (stats.open, stats.queued) == (0, 0)


def test_a_loop_that_ends_in_the_middle_is_no_trouble():
    async def main() -> None:
        results = fetch(Answers(at_once=False), list("abc"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.001):
                await anext(results)
        kept.append(results)

    kept: list[FetchMany] = []
    asyncio.run(main())
    kept.clear()
    gc.collect()


# ------------------------------------------------------------------------------- memory


class Same:
    """Gives each request a result of a kilobyte, at once."""

    async def request(self, method: str, url: str, **options: Any) -> Any:
        await asyncio.sleep(0)
        return bytearray(1024)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_memory_does_not_grow_with_the_items(ordered):
    sizes = []
    count = 0
    tracemalloc.start()
    try:
        items = (str(number) for number in range(20_000))
        async for _ in fetch(Same(), items, 64, ordered):
            count += 1
            if count % 5_000 == 0:
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert count == 20_000
    assert max(sizes[1:]) < sizes[0] + 200_000
    assert max(sizes) < 2_000_000


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks that begin at once are Python 3.12's")
@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.parametrize("concurrency", [1, 4, 64])
async def test_tasks_that_begin_at_once_are_no_more_than_asked_for(concurrency):
    loop: Any = asyncio.get_running_loop()
    now = most = 0

    class Counting:
        async def request(self, method: str, url: str, **options: Any) -> Any:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1

    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    try:
        results = [each async for each in fetch(Counting(), map(str, range(200)), concurrency)]
    finally:
        loop.set_task_factory(None)
    assert len(results) == 200
    assert most == concurrency


async def test_collected_in_another_thread_it_is_stopped_in_its_own():
    never = asyncio.get_running_loop().create_future()
    stopped: list[int] = []

    class Endless:
        async def request(self, method: str, url: str, **options: Any) -> Any:
            await never

    results: Any = fetch(Endless(), ["/"])
    state = results._state
    stop, state.stop = state.stop, lambda: stopped.append(threading.get_ident()) or stop()
    waits = results.__anext__()
    waits.send(None)
    await turns()
    waits.close()
    cycle = [results]
    cycle.append(cycle)
    gc.disable()
    try:
        del results, waits, cycle
        await asyncio.to_thread(gc.collect)
    finally:
        gc.enable()
    while state.tasks:
        await asyncio.sleep(0)
    assert stopped == [threading.get_ident()]


def test_only_requests_with_the_same_limits_share_connections():
    """All requests on a shared connection have its limits."""
    client = Client(trust_env=False, pipelining=4, timeout=Timeout(read=30, write=30))
    for timeout, shares in (
        (Timeout(read=30, write=30, connect=3, pool=None), True),
        (5, False),
        (Timeout(read=5, write=30), False),
        (Timeout(read=30, write=5), False),
    ):
        for each in (
            client._derived({"timeout": timeout}),
            client._derived({"timeout": timeout})._derived({"headers": {"X-A": "b"}}),
        ):
            assert bool(each._plain.shared_methods) == shares, timeout
            assert each._state.pipelining == (4 if shares else 1), timeout
