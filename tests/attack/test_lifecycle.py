"""Objects that are left over: to the collector in any thread, to a loop's end, to Python's end."""

import asyncio
import contextlib
import gc
import itertools
import sys
import threading

import pytest

from aiohttpconn import Client, ConnectionPool, HTTPConnection, NotConnected
from aiohttpconn.testing import ClientGone, Reply, ScriptedServer, serve

from ..support.leaks import happens
from ..support.pooled import OK
from ..support.programs import complaints

# The collector -----------------------------------------------------------------------------


async def idle(server):
    conn = HTTPConnection("127.0.0.1", server.port)
    await conn.request("GET", "/")
    await (await conn.getresponse()).read()
    return conn


async def waiting_for_a_head(server):
    conn = HTTPConnection("127.0.0.1", server.port)
    await conn.request("GET", "/")
    return conn


async def pool(server):
    pool = ConnectionPool()
    response = await pool.request("GET", server.url)
    await response.read()
    return pool


async def client(server):
    client = Client(trust_env=False)
    await client.get(server.url)
    return client


async def unread_response(server):
    conn = HTTPConnection("127.0.0.1", server.port)
    await conn.request("GET", "/unread")
    response = await conn.getresponse()
    response.will_close = True
    return response, conn


LEFT = [idle, waiting_for_a_head, pool, client, unread_response]


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("left", LEFT, ids=lambda left: left.__name__)
async def test_a_sleeping_loop_closes_what_the_collector_finds_in_another_thread(left):
    """Only the end of the connection ends this test: the loop has nothing else to wake for."""
    closed = asyncio.Event()

    async def answer(conn):
        request = await conn.read_until(b"\r\n\r\n")
        if b"/unread" in request:
            await conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        elif left is not waiting_for_a_head:
            await conn.send(OK)
        with contextlib.suppress(ClientGone, ConnectionError):
            await conn.read_all()
        closed.set()

    gc.collect()
    gc.disable()
    thread = None
    try:
        async with ScriptedServer(answer) as server:
            cycle = [await left(server)]
            cycle.append(cycle)
            del cycle
            thread = threading.Thread(target=gc.collect)
            thread.start()
            await closed.wait()
            thread.join()
    finally:
        gc.enable()


COLLECTED_BESIDE = """
import asyncio, gc, sys, threading
from aiohttpconn import HTTPConnection
from aiohttpconn.testing import Reply, serve

if sys.argv[1] == "uvloop":
    from uvloop import new_event_loop
else:
    from asyncio import new_event_loop

async def main():
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
    async with serve(lambda request: Reply(b"x" * 100)) as server:
        for number in range(400):
            conn = HTTPConnection("127.0.0.1", server.port)
            await conn.request("GET", "/")
            response = await conn.getresponse() if number % 3 else None
            if number % 3 == 1:
                await response.read()
            cycle = [conn, response]
            cycle.append(cycle)
    assert not errors, errors

def collect():
    while not ended.is_set():
        gc.collect()

gc.disable()
ended = threading.Event()
thread = threading.Thread(target=collect)
thread.start()
try:
    loop = new_event_loop()
    loop.run_until_complete(main())
    loop.close()
finally:
    ended.set()
    thread.join()
"""


async def output_of(program, *arguments, options=()):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *options, "-c", program, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, complaints(output.decode())


@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_thread_that_collects_all_the_time_harms_nothing(loop):
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    assert await output_of(COLLECTED_BESIDE, loop) == (0, "")


# The end of the loop, and of Python -----------------------------------------------------------

AT_THE_END = """
import asyncio, gc, ssl, sys
from aiohttpconn import Client, ConnectionPool, HTTPConnection, HTTPSConnection

url, authorities, loop_kind, left, end = sys.argv[1:]
if loop_kind == "uvloop":
    from uvloop import new_event_loop
else:
    from asyncio import new_event_loop
port = int(url.rstrip("/").rpartition(":")[2])
options = {"context": ssl.create_default_context(cafile=authorities)} if authorities else {}

class Closes:
    def __init__(self, thing):
        self.thing = thing

    def __del__(self):
        self.thing.close()

async def main():
    global kept
    kept = None
    if left in ("client", "response of a client"):
        kept = client = Client(trust_env=False, **options)
        response = await client.get(url)
        if left != "client":
            kept = response
    elif left == "stream":
        client = Client(trust_env=False, **options)
        block = client.stream("GET", url)
        kept = client, block, await block.__aenter__()
    elif left == "pool":
        kept = ConnectionPool(**options)
        await (await kept.request("GET", url)).read()
    else:
        conn = (HTTPSConnection if authorities else HTTPConnection)("127.0.0.1", port, **options)
        await conn.request("GET", "/")
        response = await conn.getresponse()
        if left in ("connection", "closed by __del__", "closed by a global's __del__"):
            await response.read()
        kept = {
            "connection": conn,
            "unread": (conn, response),
            "response": response,
            "closed by __del__": Closes(conn),
            "closed by a global's __del__": Closes(conn),
        }[left]
    if left == "closed by __del__":
        kept = None

if end == "runner":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())
else:
    loop = new_event_loop()
    loop.run_until_complete(main())
    if end == "generators, close":
        loop.run_until_complete(loop.shutdown_asyncgens())
    if end != "open":
        loop.close()
"""
LEFT_OVER = [
    "client",
    "response of a client",
    "stream",
    "pool",
    "connection",
    "unread",
    "response",
    "closed by __del__",
    "closed by a global's __del__",
]
ENDS = ["runner", "generators, close", "close", "open"]
# Each starts a Python of its own, so most of them are part of the siege.
OFTEN = {
    (True, "client", "runner"),
    (True, "response of a client", "open"),
    (True, "closed by a global's __del__", "open"),
    (True, "unread", "close"),
    (False, "stream", "close"),
}
CASES = [
    pytest.param(*case, marks=[] if case in OFTEN else pytest.mark.siege)
    for case in itertools.product([False, True], LEFT_OVER, ENDS)
]


@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.parametrize(("tls", "left", "end"), CASES)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_program_that_ends_with_something_left_over_prints_nothing(
    loop, tls, left, end, certificates
):
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    authorities = certificates.ca_file if tls else ""
    body = b"x" * (1_000_000 if left in ("unread", "stream", "response") else 1)
    async with serve(lambda _: Reply(body), tls=certificates.server if tls else None) as server:
        given = server.url, authorities, loop, left, end
        assert await output_of(AT_THE_END, *given) == (0, "")


# What others keep -----------------------------------------------------------------------------


async def test_a_connection_that_was_lent_is_of_no_use_after_its_block():
    async with serve({"/": "hi"}) as server, ConnectionPool() as pool:
        async with pool.connection(server.url) as conn:
            await conn.request("GET", "/")
            assert await (await conn.getresponse()).read() == b"hi"
        for use in conn.connect, lambda: conn.request("GET", "/"):
            with pytest.raises(NotConnected, match=r"^the pool that lent .* has taken it back$"):
                await use()
        assert (server.connections, len(server.requests)) == (1, 1)


async def test_an_upload_that_goes_on_after_its_lease_is_ended_with_it():
    begun, released = asyncio.Event(), asyncio.Event()

    async def body():
        yield b"a"
        begun.set()
        await released.wait()
        yield b"secret of another block"

    async with serve({"/": "hi"}) as server, ConnectionPool() as pool:
        async with pool.connection(server.url) as conn:
            sending = asyncio.create_task(conn.request("POST", "/", body=body()))
            await begun.wait()
        async with pool.connection(server.url) as other:
            await other.request("GET", "/")
            released.set()
            with pytest.raises(ConnectionAbortedError):
                await sending
            assert await (await other.getresponse()).read() == b"hi"
        assert [request.method for request in server.requests] == ["GET"]


async def _read(pool, client, url):
    response = await pool.request("GET", url)
    await response.read()


async def _get(pool, client, url):
    await client.get(url)


async def _stream(pool, client, url):
    async with client.stream("GET", url) as response:
        await response.read()


async def _lease(pool, client, url):
    async with pool.connection(url) as conn:
        await conn.request("GET", "/")
        await (await conn.getresponse()).read()


async def _fetch_many(pool, client, url):
    async for _ in client.fetch_many([url]):
        pass


KEPT = [_read, _get, _stream, _lease, _fetch_many]


@pytest.mark.parametrize("use", KEPT, ids=lambda use: use.__name__)
async def test_a_cancelled_task_that_is_kept_keeps_no_connection(use):
    begun = asyncio.Event()

    async def answer(conn):
        await conn.read_until(b"\r\n\r\n")
        await conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nx")
        begun.set()
        with contextlib.suppress(ClientGone, ConnectionError):
            await conn.read_all()

    gc.disable()  # only the task keeps what it keeps
    try:
        async with (
            ScriptedServer(answer) as server,
            ConnectionPool() as pool,
            Client(trust_env=False) as client,
        ):
            task = asyncio.create_task(use(pool, client, f"http://127.0.0.1:{server.port}/"))
            await begun.wait()
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert await happens(lambda: pool.stats().open == client.stats().open == 0)
    finally:
        gc.enable()
