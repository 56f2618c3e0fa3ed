"""A child made by fork has none of its parent's connections, and disturbs none of them."""

import asyncio
import os
import sys

import pytest

from aiohttpconn.testing import Reply, serve

from ..support.programs import complaints

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.asyncio(loop_factories=["asyncio"]),
]

PROGRAM = """
import asyncio, gc, os, signal, ssl, sys
from aiohttpconn import Client, ConnectionPool, HTTPConnection, HTTPSConnection, Timeout

url, authorities, loop_kind, child = sys.argv[1:]
signal.alarm(60)
if loop_kind == "uvloop":
    from uvloop import new_event_loop
else:
    from asyncio import new_event_loop
timeout = Timeout(read=30)
options = {"timeout": timeout}
port = int(url.rstrip("/").rpartition(":")[2])
if authorities:
    options["context"] = ssl.create_default_context(cafile=authorities)

async def request(conn):
    await conn.request("GET", "/")
    response = await conn.getresponse()
    assert await response.read() == b"x"

async def first():
    global client, pool, conn, unread
    client = Client(trust_env=False, **options)
    pool = ConnectionPool(**options)
    kind = HTTPSConnection if authorities else HTTPConnection
    conn, unread = kind("127.0.0.1", port, **options), kind("127.0.0.1", port, **options)
    await use()
    await unread.request("GET", "/")

async def use():
    assert (await client.get(url)).content == b"x"
    async with await pool.request("GET", url) as response:
        assert await response.read() == b"x"
    await request(conn)

async def close():
    await client.close()
    await pool.close()
    conn.close()
    unread.close()
    await conn.wait_closed()
    await unread.wait_closed()

loop = new_event_loop()
loop.run_until_complete(first())
pid = os.fork()
if not pid:
    if child == "uses":
        other = new_event_loop()
        other.run_until_complete(use())
        unread.close()  # its request was the parent's
        other.run_until_complete(request(unread))
        other.run_until_complete(close())
        other.close()
    elif child == "closes":
        conn.close()
        unread.close()
        other = new_event_loop()
        other.run_until_complete(client.close())
        other.run_until_complete(pool.close())
        other.close()
    elif child == "drops":
        del client, pool, conn, unread
        gc.collect()
    elif child == "drops its loop":
        del client, pool, conn, unread, loop
        gc.collect()
    elif child == "ends at once":
        os._exit(0)
    sys.exit()
_, status = os.waitpid(pid, 0)
assert status == 0, status

async def second():
    # On the connections that were there before.
    response = await unread.getresponse()
    assert await response.read() == b"x"
    await use()
    await request(unread)
    assert client.stats().open == pool.stats().open == 1
    await close()

loop.run_until_complete(second())
loop.run_until_complete(loop.shutdown_asyncgens())
loop.close()
"""

CHILDREN = ["ends", "ends at once", "closes", "drops", "drops its loop", "uses"]


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize(
    "tls",
    [pytest.param(False, marks=pytest.mark.siege), True],
    ids=["http", "https"],
)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_child_does_not_disturb_its_parent(loop, tls, child, certificates):
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    async with serve(lambda _: Reply(b"x"), tls=certificates.server if tls else None) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "dev", "-W", "ignore::ResourceWarning", "-c", PROGRAM),
            *(server.url, certificates.ca_file if tls else "", loop, child),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert (process.returncode, complaints(output.decode())) == (0, "")
        # The parent's second requests went out on the connections of its first ones.
        assert server.connections == 4 + (4 if child == "uses" else 0)
