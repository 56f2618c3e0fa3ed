"""net/timeouts.py, and the limits as a connection's callers meet them.

The test owns the clock: it moves it, or lets it tick with the turns of the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from aiohttpconn import (
    Client,
    ConnectionPool,
    ConnectTimeout,
    HeadTimeout,
    HTTPConnection,
    HTTPSConnection,
    ReadTimeout,
    RequestTimeout,
    Timeout,
    TotalTimeout,
    WriteTimeout,
)
from aiohttpconn.net.timeouts import NO_TIMEOUT, Watchdog

from .support import ScriptedServer, close, expect, notify, read_all, send, wait
from .support.clocks import Clock as FakeTime

TINY = 0.03
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"

# Timeout ------------------------------------------------------------------------------------


def test_a_number_holds_per_operation_and_none_never_ends():
    assert Timeout.of(5) == Timeout(connect=5, read=5, write=5)
    assert Timeout.of(2.5).total is None
    assert Timeout.of(None) == Timeout() == NO_TIMEOUT
    limits = Timeout(total=9)
    assert Timeout.of(limits) is limits


# Watchdog, with a clock that the test owns -----------------------------------------------------


class Clock:
    """A loop's clock and timers: ``advance`` moves it and fires what is due."""

    def __init__(self) -> None:
        self.now = 100.0
        self.made = 0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when, callback):
        self.made += 1
        self.timers.append(timer := Timer(when, callback))
        return timer

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [t for t in self.timers if not t.cancelled and t.when <= end]:
            timer = min(due, key=lambda t: t.when)
            self.timers.remove(timer)
            self.now = max(self.now, timer.when)
            timer.callback()
        self.now = end


class Timer:
    def __init__(self, when, callback) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def fired():
    return []


@pytest.fixture
def watchdog(clock, fired):
    return Watchdog(clock, fired.append)


@pytest.mark.parametrize("name", ["read", "write"])
def test_watchdog_fires_when_a_wait_is_over_its_limit(clock, fired, watchdog, name):
    getattr(watchdog, f"arm_{name}")(5)
    clock.advance(4.9)
    assert fired == []
    clock.advance(0.2)
    assert fired == [name]
    clock.advance(100)
    assert fired == [name]


def test_a_write_that_goes_on_does_not_delay_the_exchanges_deadline(clock, fired):
    def expired(name):
        fired.append((name, clock.now))
        if name == "write":
            watchdog.arm_write(5)

    watchdog = Watchdog(clock, expired)
    watchdog.arm_total(107)
    watchdog.arm_write(5)
    clock.advance(8)
    assert fired == [("write", 105), ("total", 107)]


def test_watchdog_fires_at_the_exchanges_deadline(clock, fired, watchdog):
    watchdog.arm_total(103)
    watchdog.arm_read(5)
    clock.advance(3)
    assert fired == ["total"]


def test_a_head_that_arrived_in_time_leaves_the_other_deadlines(clock, fired, watchdog):
    watchdog.arm_head(105)
    watchdog.arm_total(110)
    watchdog.progress(50)
    clock.advance(6)
    assert fired == ["head"]
    watchdog.arm_read(2)
    clock.advance(4)
    assert fired == ["head", "read", "total"]


def test_watchdog_makes_one_timer_for_many_waits(clock, fired, watchdog):
    for _ in range(1000):
        watchdog.arm_read(5)
        watchdog.disarm_read()
    assert clock.made == 1
    clock.advance(100)
    assert (clock.made, fired) == (1, [])


def test_watchdog_sets_an_early_timer_anew(clock, fired, watchdog):
    watchdog.arm_read(5)
    clock.advance(4)
    watchdog.disarm_read()
    watchdog.arm_read(5)
    clock.advance(4)  # the first wait's timer fires, and is set to the second's deadline
    assert (clock.made, fired) == (2, [])
    clock.advance(1)
    assert fired == ["read"]


def test_watchdog_takes_an_earlier_timer_for_an_earlier_deadline(clock, fired, watchdog):
    watchdog.arm_total(200)
    watchdog.arm_read(5)
    assert clock.made == 2
    assert sum(not timer.cancelled for timer in clock.timers) == 1
    clock.advance(5)
    assert fired == ["read"]


def test_progress_begins_a_wait_anew(clock, fired, watchdog):
    watchdog.arm_read(5)
    for _ in range(10):
        clock.advance(4)
        watchdog.progress(5)
    assert fired == []
    clock.advance(5)
    assert fired == ["read"]


def test_progress_without_a_wait_begins_none(clock, fired, watchdog):
    watchdog.arm_write(50)
    watchdog.progress(5)
    clock.advance(20)
    assert fired == []


def test_progress_does_not_move_the_total(clock, fired, watchdog):
    watchdog.arm_total(110)
    watchdog.arm_read(5)
    for _ in range(5):
        clock.advance(2)
        watchdog.progress(5)
    assert fired == ["total"]


def test_a_disarmed_watchdog_fires_nothing(clock, fired, watchdog):
    watchdog.arm_total(110)
    watchdog.arm_read(5)
    watchdog.arm_write(5)
    watchdog.disarm()
    clock.advance(100)
    assert fired == []
    assert all(timer.cancelled for timer in clock.timers)


def test_a_stopped_watchdog_keeps_no_timer(clock, fired, watchdog):
    watchdog.arm_write(5)
    watchdog.stop()
    assert all(timer.cancelled for timer in clock.timers)
    watchdog.stop()


# A connection's limits -------------------------------------------------------------------------


class Blackhole:
    """A listener whose backlog is full: connecting to it takes for ever."""

    def __enter__(self):
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(0)
        self.address = self.listener.getsockname()
        self.clients = []
        for _ in range(3):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(self.address)
            self.clients.append(client)
        return self

    def __exit__(self, *exc_info):
        for sock in (self.listener, *self.clients):
            sock.close()


CONNECTING = [
    pytest.param(Timeout(connect=TINY), ConnectTimeout, f"connect={TINY}", id="connect"),
    pytest.param(TINY, ConnectTimeout, f"connect={TINY}", id="number"),
    pytest.param(Timeout(total=TINY), TotalTimeout, f"total={TINY}", id="total"),
    pytest.param(Timeout(connect=TINY, total=9), ConnectTimeout, f"connect={TINY}", id="first-c"),
    pytest.param(Timeout(connect=9, total=TINY), TotalTimeout, f"total={TINY}", id="first-t"),
]


@pytest.mark.parametrize(("timeout", "kind", "text"), CONNECTING)
async def test_connecting_takes_too_long(ticking, timeout, kind, text):
    with Blackhole() as hole:
        conn = HTTPConnection(*hole.address, timeout=timeout)
        start = ticking.now
        with pytest.raises(kind) as info:
            await conn.request("GET", "/x")
        assert TINY * 0.9 < ticking.now - start < TINY * 1.1
    assert str(info.value).startswith(
        f"GET http://127.0.0.1:{hole.address[1]}/x: not connected within {TINY} s, {text} (connect,"
    )
    assert (info.value.phase, info.value.method) == ("connect", "GET")
    assert not info.value.request_sent
    assert isinstance(info.value, (TimeoutError, OSError, RequestTimeout))
    assert conn.sock is None


async def test_connect_alone_has_its_limits_too(ticking):
    with Blackhole() as hole:
        conn = HTTPConnection(*hole.address, timeout=Timeout(total=TINY))
        with pytest.raises(TotalTimeout) as info:
            await conn.connect()
    assert str(info.value).startswith(
        f"http://127.0.0.1:{hole.address[1]}: not connected within {TINY} s, total={TINY} (connect,"
    )


async def test_a_tls_handshake_takes_too_long(certificates, ticking):
    async with ScriptedServer([wait(asyncio.Event())]) as server:
        conn = HTTPSConnection(
            "127.0.0.1", server.port, context=certificates.client, timeout=Timeout(connect=TINY)
        )
        with pytest.raises(ConnectTimeout, match=r"not connected within 0.03 s") as info:
            await conn.connect()
    assert info.value.phase == "tls"


@pytest.mark.parametrize("timeout", [TINY, Timeout(read=TINY)], ids=["number", "read"])
async def test_no_head_in_time(scripted, ticking, timeout):
    async with scripted(timeout=timeout) as conn:
        await conn.request("GET", "/x")
        with pytest.raises(ReadTimeout) as info:
            await conn.getresponse()
        url = f"http://127.0.0.1:{conn.port}/x"
        assert str(info.value).startswith(f"GET {url}: no response within {TINY} s (waiting for")
        assert str(info.value).endswith(f" ms; read={TINY})")
        assert info.value.request_sent
        assert not info.value.response_started
        assert info.value.elapsed > TINY * 0.9
        assert conn.sock is None


# Timeout.head, with a clock that the test owns ---------------------------------------------------

HEAD_LIMITS = Timeout(head=120, read=10)


@contextlib.asynccontextmanager
async def asking(kind, server, timeout):
    """Yield an async callable that sends a GET and returns the response at its head."""
    if kind == "connection":
        async with HTTPConnection(*server.address, timeout=timeout) as conn:

            async def ask():
                await conn.request("GET", "/")
                return await conn.getresponse()

            yield ask
    elif kind == "client":
        async with Client(timeout=timeout, trust_env=False) as client:
            async with contextlib.AsyncExitStack() as stack:
                yield lambda: stack.enter_async_context(client.stream("GET", server.url))
    elif kind == "request":
        async with Client(trust_env=False) as client, contextlib.AsyncExitStack() as stack:
            yield lambda: stack.enter_async_context(
                client.stream("GET", server.url, timeout=timeout)
            )
    else:
        pipelining = 2 if kind == "shared" else 1
        async with ConnectionPool(timeout=timeout, pipelining=pipelining) as pool:
            yield lambda: pool.request("GET", server.url)


KINDS = ["connection", "pool", "shared", "client", "request"]


async def turns(n: int = 50) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def until(condition) -> None:
    while not condition():
        await asyncio.sleep(0)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_wait_for_the_head_has_its_own_limit(kind):
    go, more = asyncio.Event(), asyncio.Event()
    cut = OK[:-1]
    steps = [expect(), wait(go), send(cut[:20]), wait(more), send(cut[20:]), read_all()]
    async with ScriptedServer(steps) as server:
        with FakeTime() as clock:
            async with asking(kind, server, HEAD_LIMITS) as ask:
                asked = asyncio.ensure_future(ask())
                await until(lambda: server.conns and server.conns[0].heads)
                clock.advance(60)
                go.set()
                await turns()
                clock.advance(59)  # a part of the head, and 119 s
                assert not asked.done()
                more.set()
                response = await asked
                reading = asyncio.ensure_future(response.read())
                await turns()
                clock.advance(9)  # the limit of the head is over, and it has arrived
                await turns()
                assert not reading.done()
                clock.advance(2)
                with pytest.raises(ReadTimeout, match="no byte of the body within 10 s") as info:
                    await reading
                assert not isinstance(info.value, HeadTimeout)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "part", [b"", b"HTTP/1.1 200 OK\r\nA: b", b"HTTP/1.1 102 Processing\r\n\r\n"]
)
async def test_no_whole_head_in_time(kind, part):
    go = asyncio.Event()
    async with ScriptedServer([expect(), wait(go), send(part), read_all()]) as server:
        with FakeTime() as clock:
            async with asking(kind, server, Timeout(head=5)) as ask:
                asked = asyncio.ensure_future(ask())
                await until(lambda: server.conns and server.conns[0].heads)
                clock.advance(4)
                go.set()
                await turns()
                assert not asked.done()
                clock.advance(1.1)
                with pytest.raises(HeadTimeout, match="no response within 5 s") as info:
                    await asked
                assert str(info.value).endswith("; head=5)")
                assert info.value.phase == "waiting for the head"
                await server.conns[0].wait_ended()


@contextlib.asynccontextmanager
async def two_on_one_connection(server):
    """Yield the clock and the tasks of two requests, sent on the same connection."""
    with FakeTime() as clock:
        async with ConnectionPool(timeout=HEAD_LIMITS, pipelining=2, limit=1) as pool:
            tasks = [asyncio.ensure_future(pool.request("GET", server.url)) for _ in range(2)]
            await until(lambda: server.conns and len(server.conns[0].heads) == 2)
            yield clock, *tasks


async def test_on_a_shared_connection_the_wait_for_a_head_begins_at_its_turn():
    go, end = asyncio.Event(), asyncio.Event()
    steps = [expect(), expect(), wait(go), send(OK[:-1]), wait(end), send(b"i"), read_all()]
    async with ScriptedServer(steps) as server:
        async with two_on_one_connection(server) as (clock, first, second):
            clock.advance(119)
            go.set()
            response = await first
            clock.advance(5)
            end.set()
            assert await response.read() == b"hi"
            clock.advance(119)
            await turns()
            assert not second.done()
            clock.advance(2)
            with pytest.raises(HeadTimeout, match="no response within 120 s"):
                await second


async def test_a_body_that_nobody_reads_holds_up_the_others_for_the_read_limit_only():
    go = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    steps = [expect(), expect(), wait(go), send(head), read_all()]
    async with ScriptedServer(steps, [expect(), send(OK)]) as server:
        async with two_on_one_connection(server) as (clock, first, second):
            clock.advance(119)
            go.set()
            response = await first
            clock.advance(11)
            assert await (await second).read() == b"hi"
            response.close()


async def test_a_body_stops_coming(scripted, ticking):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"
    async with scripted(head, timeout=Timeout(read=TINY)) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        with pytest.raises(ReadTimeout) as info:
            await response.read()
        assert f": no byte of the body within {TINY} s (receiving the body, " in str(info.value)
        assert info.value.response_started
        # What had arrived stays readable.
        assert await response.read(5) == b"hello"
        with pytest.raises(ReadTimeout):
            await response.read(5)
        assert not response.complete
        assert conn.sock is None


async def test_a_caller_that_does_not_wait_meets_no_limit(scripted):
    with FakeTime() as clock:
        async with scripted(OK, OK, timeout=5) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            clock.advance(8)  # the caller's own work
            assert await response.read() == b"hi"
            clock.advance(8)  # idle: the timer fires, and means nothing
            await turns()
            await conn.request("GET", "/")
            assert await (await conn.getresponse()).read() == b"hi"
            assert scripted.server.connections == 1


@pytest.fixture
def drip(ticking):
    """Answer with a byte every third of TINY, for three times TINY."""

    async def answer(conn) -> None:
        await conn.read_head()
        await conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        for i in range(9):
            await ticking.sleep(TINY / 3)
            await conn.send(b"%d" % i)

    return answer


async def test_a_slow_drip_satisfies_read(drip, ticking):
    async with ScriptedServer(drip) as server:
        async with HTTPConnection(server.host, server.port, timeout=TINY) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            start = ticking.now
            assert await response.read() == b"012345678"
            assert ticking.now - start > TINY * 2


async def test_a_slow_drip_does_not_satisfy_total(drip):
    async with ScriptedServer(drip) as server:
        limits = Timeout(total=TINY * 1.5, read=9)
        async with HTTPConnection(server.host, server.port, timeout=limits) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            with pytest.raises(TotalTimeout) as info:
                await response.read()
    assert ": the exchange did not end within 0.045 s (receiving the body, " in str(info.value)
    assert str(info.value).endswith("; total=0.045)")


@pytest.mark.parametrize("connected", [False, True])
async def test_total_covers_the_wait_for_the_head(scripted, ticking, connected):
    async with scripted(timeout=Timeout(total=TINY)) as conn:
        if connected:
            await conn.connect()
        await conn.request("GET", "/")
        with pytest.raises(TotalTimeout, match=r"the exchange did not end within 0\.03 s"):
            await conn.getresponse()


async def test_total_begins_with_each_request(scripted):
    with FakeTime() as clock:
        async with scripted(OK, OK, OK, timeout=Timeout(total=5)) as conn:
            for _ in range(3):
                await conn.request("GET", "/")
                clock.advance(4)
                assert await (await conn.getresponse()).read() == b"hi"
            assert scripted.server.connections == 1


async def test_total_holds_though_an_earlier_body_ends_later(ticking):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
    ready = asyncio.Event()
    script = [expect(), send(head), expect(), send(b"body"), wait(ready)]
    async with ScriptedServer(script) as server:
        async with HTTPConnection(server.host, server.port, timeout=Timeout(total=TINY)) as conn:
            await conn.request("GET", "/")
            first = await conn.getresponse()
            await conn.request("GET", "/")
            assert await first.read() == b"body"
            with pytest.raises(TotalTimeout, match="the exchange did not end"):
                await conn.getresponse()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("kind", ["bytes", "iterable", "async", "file"])
@pytest.mark.parametrize(
    ("timeout", "error"),
    [
        pytest.param(Timeout(write=TINY), WriteTimeout, id="write"),
        pytest.param(Timeout(total=TINY), TotalTimeout, id="total"),
    ],
)
async def test_a_server_that_takes_no_body(
    certificates, tmp_path, ticking, timeout, error, kind, tls
):
    hold = asyncio.Event()
    block = b"x" * 65536
    path = tmp_path / "body"

    async def blocks():
        while True:
            yield block

    context = certificates.server if tls else None
    async with ScriptedServer([expect(), wait(hold)], receive_buffer=4096, tls=context) as server:
        options = {
            "timeout": timeout,
            "socket_options": [(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)],
        }
        conn = HTTPConnection(server.host, server.port, **options)
        if tls:
            options["context"] = certificates.client
            conn = HTTPSConnection("localhost", server.port, **options)
        async with conn:
            if kind == "bytes":
                body = block * 400
            elif kind == "iterable":
                body = (block for _ in range(10**6))
            elif kind == "async":
                body = blocks()
            else:
                with path.open("wb") as file:
                    file.truncate(len(block) * 400)
                body = path.open("rb")
            with pytest.raises(error) as info:
                await conn.request("POST", "/", body)
            if kind == "file":
                body.close()
            elif kind == "async":
                await body.aclose()
            if error is WriteTimeout:
                assert f"the peer took no byte of the request within {TINY} s" in str(info.value)
                assert "(sending, " in str(info.value)
                assert str(info.value).endswith(f"; write={TINY})")
                assert not info.value.request_sent
            assert conn.sock is None


async def test_a_server_that_reads_slowly_meets_no_write_limit(ticking):
    limit = 4 * TINY

    async def slow(conn) -> None:
        await conn.read_head()
        for _ in range(6):
            await ticking.sleep(limit / 2)
            await conn.read_exactly(100_000)
        await conn.read_exactly(400_000)
        await conn.send(OK)

    # What the kernel holds counts as taken, and it asks for more once a third of that is gone:
    # small buffers, so that each of the server's reads is seen.
    small = (socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    async with ScriptedServer(slow, receive_buffer=16_384) as server:
        async with HTTPConnection(
            *server.address, timeout=Timeout(write=limit), socket_options=[small]
        ) as conn:
            await conn.request("POST", "/", b"x" * 1_000_000)
            assert await (await conn.getresponse()).read() == b"hi"


# How many timers it costs -----------------------------------------------------------------------


async def test_many_exchanges_make_one_timer(monkeypatch):
    # By identity: each loop makes one of the two by calling the other.
    made = {}
    loop = asyncio.get_running_loop()

    def counting(make):
        def counted(*args, **options):
            timer = make(*args, **options)
            made[id(timer)] = timer
            return timer

        return counted

    body = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
    script = []
    for _ in range(20):
        script += [expect(), send(body, b"body")]
    async with ScriptedServer(script) as server:
        limits = Timeout(total=9, read=5, write=5)
        async with HTTPConnection(server.host, server.port, timeout=limits) as conn:
            await conn.connect()
            monkeypatch.setattr(loop, "call_at", counting(loop.call_at))
            monkeypatch.setattr(loop, "call_later", counting(loop.call_later))
            for _ in range(20):
                await conn.request("GET", "/")
                assert await (await conn.getresponse()).read() == b"body"
            monkeypatch.undo()
            # One for the total, and one that is earlier for the first wait.
            assert 1 <= len(made) <= 2, made


async def test_no_limit_makes_no_timer(scripted):
    async with scripted(OK) as conn:
        await conn.request("GET", "/")
        assert await (await conn.getresponse()).read() == b"hi"
        assert conn._protocol._watchdog is None


async def test_a_closed_connection_keeps_no_timer():
    seen = asyncio.Event()
    async with ScriptedServer([expect(), notify(seen), close()]) as server:
        async with HTTPConnection(server.host, server.port, timeout=60) as conn:
            await conn.request("GET", "/")
            protocol = conn._protocol
            protocol.watchdog().arm_read(60)
            timer = protocol._watchdog._handle
            with pytest.raises(ConnectionResetError):
                await conn.getresponse()
            assert timer.cancelled()


async def test_the_end_of_one_read_keeps_the_limit_of_the_next_exchange(scripted, ticking):
    # A task whose body is complete wakes after another has sent the next request.
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n"
    limits = Timeout(read=TINY)
    async with scripted([head, b"x" * 300_000], timeout=limits) as conn:
        await conn.request("GET", "/1")
        response = await conn.getresponse()
        reading = asyncio.create_task(response.read())
        while not response.complete:
            await asyncio.sleep(0)
        await conn.request("GET", "/2")
        with pytest.raises(ReadTimeout):
            await conn.getresponse()
        assert len(await reading) == 300_000


async def test_a_limit_that_is_lifted_by_a_1xx_ends_no_later_body():
    event = asyncio.Event()

    def lift(status, headers):
        conn.timeout = None

    script = [
        expect(),
        send(b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh"),
        wait(event),
        send(b"i"),
    ]
    async with ScriptedServer(script) as server:
        with FakeTime() as clock:
            async with HTTPConnection(
                *server.address, timeout=Timeout(read=5), on_informational=lift
            ) as conn:
                await conn.request("GET", "/")
                response = await conn.getresponse()
                reading = asyncio.ensure_future(response.read())
                await turns()
                clock.advance(15)
                event.set()
                assert await reading == b"hi"


@pytest.mark.asyncio(loop_factories=["asyncio"])  # uvloop runs its timers before it reads
async def test_a_head_that_waited_in_the_kernel_restarts_the_read_limit():
    async def handler(conn):
        await conn.read_head()
        conn.sock.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh")
        # As if the program had blocked the loop: its next turn reads, and then calls timers.
        asyncio.get_running_loop().call_later(0, clock.advance, 8)
        await turns()
        await conn.send(b"i")

    async with ScriptedServer(handler) as server:
        with FakeTime() as clock:
            async with HTTPConnection(*server.address, timeout=Timeout(read=5)) as conn:
                await conn.request("GET", "/")
                response = await conn.getresponse()
                assert await response.read() == b"hi"


async def test_each_exchange_has_its_own_total(ticking):
    """The second one's limit counts from its own start, behind a body that is not read yet."""
    async with ScriptedServer(
        [
            expect(),
            send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"),
            expect(),
            send(b"llo"),
            read_all(),
        ]
    ) as server:
        async with HTTPConnection(*server.address, Timeout(total=30)) as conn:
            await conn.request("GET", "/1")
            first = await conn.getresponse()
            protocol = conn._protocol
            long = first.deadline
            conn.timeout = Timeout(total=0.05)
            await conn.request("GET", "/2")
            second = conn._exchange
            assert second.deadline < long
            # The nearer of the two is on.
            assert protocol._watchdog._total == second.deadline
            assert await first.read() == b"hello"
            assert protocol._watchdog._total == second.deadline
            with pytest.raises(TotalTimeout, match=r"/2: .* within 0\.05 s"):
                await conn.getresponse()
