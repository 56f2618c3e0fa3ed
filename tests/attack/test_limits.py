"""Limits hold wherever a request waits, and wait for nothing that is not theirs.

``total`` ends every public coroutine of a client, a pool, a leased connection, a connection and a
response, each of their waits stalled in turn. The program's default executor may be full: nothing
here waits for a thread of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from aiohttpconn import (
    Auth,
    Client,
    ConnectionPool,
    HTTPConnection,
    HTTPSConnection,
    Retry,
    Timeout,
    TotalTimeout,
)
from aiohttpconn.client.destination import Destination
from aiohttpconn.testing import ScriptedServer, expect, send

from ..support.leaks import happens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

TOTAL = Timeout(total=0.05)
"""The limit of each case, of the tests' own time: it is longer than all that comes before the stall
takes, in turns of the loop."""

HANGS = 20
"""Seconds after which a case hangs: it takes a fraction of one."""

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
OK = HEAD + b"hello"


class World:
    """What a case needs: servers, and an event that is set at its end, for what stalls."""

    def __init__(self, certificates: Any, folder: Any, ticking: Any, monkeypatch: Any) -> None:
        self.certificates = certificates
        self.folder = folder
        self.ticking = ticking
        self.patch = monkeypatch
        self.over = threading.Event()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> World:
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        self.over.set()
        await self._stack.aclose()

    async def server(self, *steps: Any, **options: Any) -> ScriptedServer:
        return await self._stack.enter_async_context(ScriptedServer([*steps], **options))

    async def client(self, **options: Any) -> Client:
        options = {"timeout": TOTAL, "trust_env": False, **options}
        return await self._stack.enter_async_context(Client(**options))

    async def pool(self, **options: Any) -> ConnectionPool:
        return await self._stack.enter_async_context(ConnectionPool(timeout=TOTAL, **options))

    async def connection(self, server: ScriptedServer) -> HTTPConnection:
        conn = HTTPConnection(server.host, server.port, timeout=TOTAL)
        return await self._stack.enter_async_context(conn)

    def stall(self, *_: Any) -> Any:
        """Block a thread until the case is over."""
        self.over.wait(HANGS)

    async def forever(self, *_: Any, **__: Any) -> Any:
        await asyncio.get_running_loop().create_future()

    async def slow_source(self) -> AsyncIterator[bytes]:
        yield b"x"
        await self.forever()


CASES: dict[str, Callable[[World], Awaitable[Any]]] = {}


def case(run: Callable[[World], Awaitable[Any]]) -> Callable[[World], Awaitable[Any]]:
    CASES[run.__name__] = run
    return run


# Waits for a connection ------------------------------------------------------------------------


async def held(world: World, pool: Any, server: ScriptedServer) -> None:
    """Let another request have the only connection, without a limit."""
    holding = pool.request("GET", server.url, timeout=None)
    task = asyncio.ensure_future(holding)
    world._stack.push_async_callback(asyncio.wait, [task])
    world._stack.callback(task.cancel)
    assert await happens(lambda: server.connections == 1)


@case
async def queue_of_a_client(world: World) -> Any:
    server, client = await world.server(), await world.client(limit=1)
    await held(world, client, server)
    return await client.get(server.url)


@case
async def queue_of_a_pool(world: World) -> Any:
    server, pool = await world.server(), await world.pool(limit=1)
    await held(world, pool, server)
    return await pool.request("GET", server.url)


@case
async def queue_of_a_lease(world: World) -> Any:
    server, pool = await world.server(), await world.pool(limit=1)
    await held(world, pool, server)
    async with pool.connection(server.url):
        pass


@case
async def queue_of_a_lease_with_its_own_limit(world: World) -> Any:
    server = await world.server()
    client = await world.client(limit=1, timeout=None)
    await held(world, client, server)
    async with client.pool.connection(server.url, timeout=TOTAL):
        pass


@case
async def queue_of_an_upload(world: World) -> Any:
    server, client = await world.server(), await world.client(limit=1)
    await held(world, client, server)
    async with contextlib.aclosing(world.slow_source()) as body:
        return await client.post(server.url, content=body)


@case
async def queue_of_a_shared_connection(world: World) -> Any:
    server = await world.server()
    client = await world.client(limit=1, pipelining=2)
    await held(world, client.pool, server)
    return await client.get(server.url)


@case
async def rate_limit(world: World) -> Any:
    server = await world.server(expect(), send(OK))
    client = await world.client(rate="1/h")
    assert (await client.get(server.url)).status == 200
    return await client.get(server.url)


@case
async def pause_of_retry_after(world: World) -> Any:
    busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 100\r\nContent-Length: 0\r\n\r\n"
    server = await world.server(expect(), send(busy))
    client = await world.client(respect_retry_after=True)
    assert (await client.get(server.url)).status == 503
    return await client.get(server.url)


# Waits of a connect ----------------------------------------------------------------------------


@case
async def resolver(world: World) -> Any:
    class Stalled:
        resolve = staticmethod(world.forever)

    client = await world.client(resolver=Stalled())
    return await client.get("http://example.test/")


@case
async def getaddrinfo(world: World) -> Any:
    class Module:
        def getaddrinfo(self, *_: Any, **__: Any) -> Any:
            return world.stall()

        def __getattr__(self, name: str) -> Any:
            return getattr(socket, name)

    world.patch.setattr("aiohttpconn.net.resolver.socket", Module())
    client = await world.client()
    return await client.get("http://example.test/")


@case
async def tcp(world: World) -> Any:
    world.patch.setattr("aiohttpconn.net.sockets._finish_connect", world.forever)
    client = await world.client()
    return await client.get("http://127.0.0.1:1/")


@case
async def dialer(world: World) -> Any:
    client = await world.client(dialer=world.forever)
    return await client.get("http://example.test/")


@case
async def dialer_of_a_lease(world: World) -> Any:
    pool = await world.pool(dialer=world.forever)
    async with pool.connection("http://example.test/"):
        pass


@case
async def proxy(world: World) -> Any:
    server = await world.server()
    client = await world.client(proxy=f"http://127.0.0.1:{server.port}")
    return await client.get("https://example.test/")


@case
async def socks_proxy(world: World) -> Any:
    server = await world.server()
    client = await world.client(proxy=f"socks5h://127.0.0.1:{server.port}")
    return await client.get("https://example.test/")


@case
async def tls(world: World) -> Any:
    server = await world.server()
    client = await world.client()
    return await client.get(f"https://127.0.0.1:{server.port}/")


@case
async def on_connect(world: World) -> Any:
    server = await world.server()
    client = await world.client(on_connect=world.forever)
    return await client.get(server.url)


@case
async def connect_of_a_connection(world: World) -> Any:
    server = await world.server()
    async with HTTPSConnection(server.host, server.port, timeout=TOTAL) as conn:
        await conn.connect()


# Waits of a request ----------------------------------------------------------------------------


@case
async def on_request(world: World) -> Any:
    server, client = await world.server(), await world.client(on_request=world.forever)
    return await client.get(server.url)


@case
async def auth(world: World) -> Any:
    class Stalled(Auth):
        authorize = world.forever

    server, client = await world.server(), await world.client(auth=Stalled())
    return await client.get(server.url)


@case
async def expect_100(world: World) -> Any:
    server, client = await world.server(), await world.client()
    return await client.post(server.url, content=b"x" * 100_000, headers={"Expect": "100-continue"})


@case
async def peer_takes_nothing(world: World) -> Any:
    server, client = await world.server(world.forever, receive_buffer=4096), await world.client()
    return await client.post(server.url, content=b"x" * 20_000_000)


@case
async def peer_takes_nothing_of_a_connection(world: World) -> Any:
    server = await world.server(world.forever, receive_buffer=4096)
    conn = await world.connection(server)
    await conn.request("POST", "/", b"x" * 20_000_000)


@case
async def peer_takes_nothing_of_a_body_sent_by_hand(world: World) -> Any:
    server = await world.server(world.forever, receive_buffer=4096)
    conn = await world.connection(server)
    conn.putrequest("POST", "/")
    conn.putheader("Content-Length", "20000000")
    await conn.endheaders()
    await conn.send(b"x" * 20_000_000)
    await conn.getresponse()


@case
async def source(world: World) -> Any:
    server, client = await world.server(), await world.client()
    async with contextlib.aclosing(world.slow_source()) as body:
        return await client.post(server.url, content=body)


@case
async def source_of_a_connection(world: World) -> Any:
    conn = await world.connection(await world.server())
    async with contextlib.aclosing(world.slow_source()) as body:
        await conn.request("POST", "/", body)
    await conn.getresponse()


@case
async def pipe(world: World) -> Any:
    server, client = await world.server(), await world.client()
    reads, writes = os.pipe()
    world._stack.callback(os.close, writes)
    with open(reads, "rb", buffering=0) as file:
        return await client.post(server.url, content=file)


@case
async def disk(world: World) -> Any:
    world.patch.setattr("aiohttpconn.body._NO_WAIT", None)
    world.patch.setattr("aiohttpconn.body._read_at", world.stall)
    server, client = await world.server(), await world.client()
    path = world.folder / "file"
    path.write_bytes(b"x" * 1_000_000)
    with open(path, "rb") as file:
        return await client.post(server.url, content=file)


# Waits for a response --------------------------------------------------------------------------


@case
async def head(world: World) -> Any:
    server, client = await world.server(), await world.client()
    return await client.get(server.url)


@case
async def head_of_a_shared_connection(world: World) -> Any:
    server, client = await world.server(), await world.client(pipelining=4)
    return await client.get(server.url)


@case
async def head_of_a_connection(world: World) -> Any:
    conn = await world.connection(await world.server())
    await conn.request("GET", "/")
    await conn.getresponse()


@case
async def head_of_a_lease(world: World) -> Any:
    server, pool = await world.server(), await world.pool()
    async with pool.connection(server.url) as conn:
        await conn.request("GET", "/")
        await conn.getresponse()


@case
async def body(world: World) -> Any:
    server, client = await world.server(expect(), send(HEAD)), await world.client()
    return await client.get(server.url)


@case
async def body_of_a_pool(world: World) -> Any:
    server, pool = await world.server(expect(), send(HEAD)), await world.pool()
    return await (await pool.request("GET", server.url)).read()


@case
async def body_of_a_stream(world: World) -> Any:
    server, client = await world.server(expect(), send(HEAD + b"he")), await world.client()
    async with client.stream("GET", server.url) as response:
        async for _ in response.iter_bytes():
            pass


@case
async def lines_of_a_stream(world: World) -> Any:
    server, client = await world.server(expect(), send(HEAD + b"he")), await world.client()
    async with client.stream("GET", server.url) as response:
        async for _ in response.iter_lines():
            pass


READS = {
    "read": lambda response: response.read(),
    "read_some": lambda response: response.read(5),
    "read1": lambda response: response.read1(),
    "readline": lambda response: response.readline(),
    "readlines": lambda response: response.readlines(),
    "peek": lambda response: response.peek(),
    "readinto": lambda response: response.readinto(bytearray(5)),
    "readinto1": lambda response: response.readinto1(bytearray(5)),
    "next_line": lambda response: anext(response),
}


def case_of_a_read(name: str, read: Callable[[Any], Awaitable[Any]]) -> None:
    async def run(world: World) -> Any:
        conn = await world.connection(await world.server(expect(), send(HEAD)))
        await conn.request("GET", "/")
        return await read(await conn.getresponse())

    run.__name__ = f"body_by_{name}"
    case(run)


for name, read in READS.items():
    case_of_a_read(name, read)


@case
async def body_that_nobody_reads(world: World) -> Any:
    # The read limit passes first, and ends nothing, as nobody waits.
    server = await world.server(expect(), send(HEAD))
    limits = Timeout(total=0.05, read=0.02)
    conn = await world.connection(server)
    conn.timeout = limits
    await conn.request("GET", "/")
    response = await conn.getresponse()
    await world.ticking.sleep(0.1)
    return await response.read()


@case
async def stream_that_nobody_reads(world: World) -> Any:
    server = await world.server(expect(), send(HEAD + b"he"))
    client = await world.client(timeout=Timeout(total=0.05, read=0.02))
    async with client.stream("GET", server.url) as response:
        await world.ticking.sleep(0.1)
        return await response.read()


@case
async def shared_body_that_nobody_reads(world: World) -> Any:
    # Another request waits behind it, and is sent elsewhere after the read limit.
    server = await world.server(expect(), send(HEAD))
    pool = await world.pool(pipelining=2, limit=1)
    pool._send = pool._send._replace(timeout=Timeout(total=0.05, read=0.02))
    pool._timeout = Timeout(total=0.05, read=0.02)
    response = await pool.request("GET", server.url)
    other = asyncio.ensure_future(pool.request("GET", server.url))
    try:
        await world.ticking.sleep(0.2)
        return await response.read()
    finally:
        with contextlib.suppress(TotalTimeout):
            (await other).close()


@case
async def on_response(world: World) -> Any:
    server = await world.server(expect(), send(OK))
    client = await world.client(on_response=world.forever)
    return await client.get(server.url)


@case
async def redirect(world: World) -> Any:
    moved = b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n"
    server, client = await world.server(expect(), send(moved)), await world.client()
    return await client.get(server.url)


@case
async def refused_wait_of_a_retry(world: World) -> Any:
    # A wait that would end too late does not begin.
    busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    server, client = await world.server(expect(), send(busy)), await world.client()
    response = await client.get(server.url, retry=Retry(attempts=3, backoff=60, statuses={503}))
    assert response.status == 503
    raise TotalTimeout("there is no time for it")


@case
async def retry(world: World) -> Any:
    # It is the time of all attempts, and not of each.
    server, client = await world.server(), await world.client()
    return await client.get(server.url, retry=Retry(attempts=9, backoff=0.0))


@case
async def item_of_fetch_many(world: World) -> Any:
    server, client = await world.server(), await world.client()
    async for result in client.fetch_many([server.url]):
        assert result.error is not None
        raise result.error


# Waits of a download ---------------------------------------------------------------------------


@case
async def body_of_a_download(world: World) -> Any:
    server, client = await world.server(expect(), send(HEAD)), await world.client()
    return await client.download(server.url, world.folder / "file")


@case
async def disk_of_a_download(world: World) -> Any:
    world.patch.setattr(Destination, "_write", world.stall)
    server, client = await world.server(expect(), send(OK)), await world.client()
    return await client.download(server.url, world.folder / "file")


@case
async def progress_of_a_download(world: World) -> Any:
    server, client = await world.server(expect(), send(OK)), await world.client()
    return await client.download(server.url, world.folder / "file", progress=world.forever)


# Tests -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
async def test_total_ends_every_wait(certificates, tmp_path, ticking, monkeypatch, name):
    async with World(certificates, tmp_path, ticking, monkeypatch) as world:
        task = asyncio.ensure_future(CASES[name](world))
        await asyncio.wait({task}, timeout=HANGS)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            pytest.fail(f"{name} has no end")
        with pytest.raises(TotalTimeout):
            await task


class FullExecutor:
    """The loop's default executor, each of whose threads is blocked for as long as the block."""

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._over = threading.Event()
        # More than it has threads, at most 32: the others are queued.
        self._calls = [loop.run_in_executor(None, self._over.wait, HANGS) for _ in range(40)]

    async def __aexit__(self, *exc_info: Any) -> None:
        self._over.set()
        await asyncio.gather(*self._calls)


async def test_an_upload_of_a_file_does_not_wait_for_the_default_executor(tmp_path, monkeypatch):
    monkeypatch.setattr("aiohttpconn.body._NO_WAIT", None)
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)
    async with FullExecutor(), ScriptedServer([expect(), expect(100_000), send(OK)]) as server:
        async with Client(trust_env=False) as client:
            with open(path, "rb") as file:
                response = await asyncio.wait_for(client.post(server.url, content=file), HANGS)
    assert response.content == b"hello"


async def test_an_upload_of_a_pipe_does_not_wait_for_the_default_executor():
    reads, writes = os.pipe()
    os.write(writes, b"x" * 100)
    os.close(writes)
    script = [expect(), expect(b"64\r\n" + b"x" * 100 + b"\r\n0\r\n\r\n"), send(OK)]
    async with FullExecutor(), ScriptedServer(script) as server:
        async with Client(trust_env=False) as client:
            with open(reads, "rb") as file:
                response = await asyncio.wait_for(client.post(server.url, content=file), HANGS)
    assert response.content == b"hello"


async def test_a_download_does_not_wait_for_the_default_executor(tmp_path):
    async with FullExecutor(), ScriptedServer([expect(), send(OK)]) as server:
        async with Client(trust_env=False) as client:
            await asyncio.wait_for(client.download(server.url, tmp_path / "file"), HANGS)
    assert (tmp_path / "file").read_bytes() == b"hello"


async def test_tls_and_names_do_not_wait_for_the_default_executor(certificates, tmp_path):
    # A file of authorities that this process has not read yet.
    authorities = tmp_path / "authorities.pem"
    with open(certificates.ca_file, "rb") as file:
        authorities.write_bytes(file.read())
    server = ScriptedServer([expect(), send(OK)], tls=certificates.server)
    async with FullExecutor(), server:
        async with Client(trust_env=False, cafile=authorities) as client:
            url = f"https://localhost:{server.port}/"
            response = await asyncio.wait_for(client.get(url), HANGS)
    assert response.content == b"hello"


async def test_a_thread_that_still_writes_keeps_its_file_to_itself(tmp_path, ticking, monkeypatch):
    # The disk is late: total has ended the download, and the file is closed when the thread is
    # done with it, and not before.
    over = threading.Event()
    real, files = Destination._write, []

    def late(self: Any, data: Any) -> None:
        files.append(self._file)
        over.wait(HANGS)
        assert not files[0].closed
        real(self, data)

    monkeypatch.setattr(Destination, "_write", late)
    async with ScriptedServer([expect(), send(OK)]) as server:
        async with Client(trust_env=False, timeout=TOTAL) as client:
            with pytest.raises(TotalTimeout, match=r"GET .*: writing the file did not end within"):
                await client.download(server.url, tmp_path / "file")
    assert not files[0].closed
    over.set()
    assert await happens(lambda: files[0].closed)
    assert not (tmp_path / "file").exists()
