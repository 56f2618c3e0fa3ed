"""A Python without ssl has everything but https, as it has with http.client.

Each test runs a program in a new interpreter in which ``import ssl`` fails.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

WITHOUT = """
import sys
sys.modules["ssl"] = sys.modules["_ssl"] = None
"""


def run(program: str, *arguments: str) -> tuple[int, list[str], str]:
    """Run *program* without ssl, warnings as errors; return its exit code and its two outputs."""
    command = [sys.executable, "-W", "error", "-c", WITHOUT + program, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_the_name_is_missing_as_it_is_from_http_client():
    program = """
import http.client, aiohttpconn
for module in (http.client, aiohttpconn):
    print("HTTPSConnection" in module.__all__, hasattr(module, "HTTPSConnection"))
    try:
        module.HTTPSConnection
    except AttributeError as exc:
        print(str(exc).replace(module.__name__, "MODULE"))
try:
    from aiohttpconn import HTTPSConnection
except ImportError as exc:
    print(str(exc).partition(" from ")[0])
from aiohttpconn import *
print(HTTPConnection, issubclass(CertificateError, (TLSError, ConnectError)))
"""
    missing = ["False False", "module 'MODULE' has no attribute 'HTTPSConnection'"]
    last = "<class 'aiohttpconn.connection.HTTPConnection'> True"
    shown = [*missing, *missing, "cannot import name 'HTTPSConnection'", last]
    assert run(program) == (0, shown, "")


def test_every_module_can_be_imported():
    program = """
import importlib, pkgutil
import aiohttpconn
for module in pkgutil.walk_packages(aiohttpconn.__path__, "aiohttpconn."):
    # The demo is about https; pytest, which the fixtures need, may need ssl.
    if not module.name.endswith((".demo", ".fixtures", ".__main__")):
        importlib.import_module(module.name)
print("ssl" in sys.modules and sys.modules["ssl"])
"""
    assert run(program) == (0, ["None"], "")


REQUESTS = """
import asyncio, pickle, sys
import aiohttpconn
from aiohttpconn.testing import Reply, ScriptedServer, expect, reset, serve

async def tried(awaitable):
    try:
        await awaitable
    except aiohttpconn.TLSError as exc:
        exc = pickle.loads(pickle.dumps(exc))
        print(type(exc).__name__, exc.hint, str(exc).split(" (")[0])

async def main():
    moved = Reply(status=302, headers={"Location": "/"})
    async with serve({"/": "hi", "/moved": moved}) as server:
        host, port, url = server.host, server.port, server.url
        async with aiohttpconn.HTTPConnection(host, port) as conn:
            await conn.request("POST", "/", b"body")
            response = await conn.getresponse()
            print(await response.read(), response.tls, conn)
        async with aiohttpconn.ConnectionPool() as pool:
            print(await (await pool.request("GET", url)).read())
            async with pool.connection(url) as conn:
                await conn.request("GET", "/")
                print(await (await conn.getresponse()).read())
            await tried(pool.request("GET", "https://a.test/"))
            await tried(pool.connection("https://a.test/").__aenter__())
        async with aiohttpconn.Client(proxy=None) as client:
            print((await client.get(url + "moved")).text)
            async with client.stream("GET", url) as response:
                print(await response.read(), response.tls)
            await tried(client.get("https://a.test/"))
            await tried(client.get(url, proxy="https://a.test/"))
    async with ScriptedServer([expect(), reset()]) as server:
        async with aiohttpconn.HTTPConnection(server.host, server.port) as conn:
            await conn.request("GET", "/")
            try:
                await conn.getresponse()
            except ConnectionError as exc:
                print(type(exc).__name__)

if sys.argv[1] == "asyncio":
    asyncio.run(main())
else:
    aiohttpconn.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "the fastest"])
def test_http_works_and_https_says_why_it_does_not(loop):
    code, shown, errors = run(REQUESTS, loop)
    assert (code, errors) == (0, "")
    first, *rest = shown
    assert first.startswith("b'hi' None <HTTPConnection 127.0.0.1:")
    why = "TLSError This Python has no ssl module."
    assert rest[:2] == ["b'hi'", "b'hi'"]
    assert rest[2] == f"{why} GET https://a.test/: https is not possible"
    assert rest[3] == f"{why} https://a.test: https is not possible"
    assert rest[4:6] == ["hi", "b'hi' None"]
    assert rest[6] == f"{why} GET https://a.test/: https is not possible"
    assert rest[7].startswith(f"{why} GET http://127.0.0.1:")
    assert rest[8:] == ["ConnectionResetError"]


CLI = """
import runpy
sys.argv[0] = "aiohttpconn"
runpy.run_module("aiohttpconn", run_name="__main__")
"""


@pytest.mark.parametrize("options", [[], ["-k"]])
def test_the_command_line_says_why(options):
    code, shown, errors = run(CLI, *options, "https://a.test/")
    assert (code, shown) == (1, [])
    assert "https is not possible. This Python has no ssl module." in errors


def test_the_command_line_shows_its_versions():
    code, shown, errors = run(CLI, "--version")
    assert (code, errors) == (0, "")
    assert ", no TLS, " in shown[0]


def test_the_demo_says_why():
    expected = "The demo needs https. This Python has no ssl module.\n"
    assert run(CLI, "demo") == (1, [], expected)
