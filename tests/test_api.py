"""aiohttpconn.get() and friends, and the names that are imported when they are first used."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import aiohttpconn
from aiohttpconn.testing import Reply, Request, serve, stall_at

ROOT = Path(__file__).parent.parent

VERBS = ["get", "head", "post", "put", "patch", "delete", "options"]


def echo(request: Request) -> Reply:
    fields = "".join(f"{name}: {value}\n" for name, value in request.headers.items())
    return Reply(f"{request.method} {request.target}\n{fields}\n".encode() + request.body)


# ---------------------------------------------------------------------------- functions


@pytest.mark.parametrize("verb", VERBS)
async def test_a_request_without_a_client(verb):
    async with serve(echo) as server:
        response = await getattr(aiohttpconn, verb)(
            f"{server.url}x", params={"a": "b"}, headers={"X-A": "1"}, proxy=None
        )
        assert (response.status, response.method) == (200, verb.upper())
        assert response.url == f"{server.url}x?a=b"
        if verb != "head":
            assert response.text.startswith(f"{verb.upper()} /x?a=b\n")
            assert "X-A: 1\n" in response.text
        # Its connection is closed.
        await server.conns[0].wait_ended()


async def test_request_takes_any_method():
    async with serve(echo) as server:
        response = await aiohttpconn.request("PURGE", server.url, proxy=None)
        assert response.text.startswith("PURGE /\n")
        response = await aiohttpconn.post(server.url, json=[1], proxy=None)
        assert response.json is not None
        assert response.text.endswith("\n\n[1]")


async def test_redirects_and_their_cookies_are_followed():
    replies = {
        "/": Reply(status=302, headers={"Location": "/b", "Set-Cookie": "a=1"}),
        "/b": echo,
    }
    async with serve(replies) as server:
        response = await aiohttpconn.get(server.url, proxy=None)
        assert "Cookie: a=1\n" in response.text
        assert len(response.history) == 1
        # The next one knows nothing of it.
        assert "Cookie" not in (await aiohttpconn.get(f"{server.url}b", proxy=None)).text


async def test_what_fails_leaves_nothing(ticking):
    reply = Reply("hi", fault=stall_at(0))
    async with serve({"/": reply}) as server:
        with pytest.raises(aiohttpconn.ReadTimeout):
            await aiohttpconn.get(server.url, timeout=0.01, proxy=None)
        task = asyncio.ensure_future(aiohttpconn.get(server.url, proxy=None))
        await server.wait_connections(2)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    with pytest.raises(aiohttpconn.InvalidURL):
        await aiohttpconn.get("example.org")
    with pytest.raises(TypeError, match="unknown options: verify"):
        await aiohttpconn.get("http://h/", verify=False)


async def test_the_environment_names_proxies(monkeypatch):
    async with serve(echo) as proxy:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", proxy.url)
        text = (await aiohttpconn.get("http://origin.example/x")).text
        assert text.startswith("GET http://origin.example/x\n")


# -------------------------------------------------------------------------------- names


def run_python(program: str) -> str:
    """Run *program* in a new interpreter where warnings are errors; return what it prints."""
    command = [sys.executable, "-W", "error", "-c", program]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_the_client_is_imported_when_it_is_first_used():
    printed = run_python(
        """
import sys, aiohttpconn
def loaded(): return sorted(name for name in sys.modules if name.startswith("aiohttpconn.client"))
print(loaded(), "Client" in dir(aiohttpconn), "get" in dir(aiohttpconn), loaded())
print("Client" in vars(aiohttpconn), hasattr(aiohttpconn, "Nonsense"), loaded())
aiohttpconn.Timeout(5), aiohttpconn.HTTPSConnection("h")
print(loaded())
aiohttpconn.Retry
print("aiohttpconn.client.retries" in sys.modules, "aiohttpconn.client.client" in sys.modules)
aiohttpconn.Client
print("aiohttpconn.client.client" in sys.modules, "Client" in vars(aiohttpconn))
"""
    )
    assert printed.splitlines() == [
        "[] True True []",
        "False False []",
        "[]",
        "True False",
        "True True",
    ]


def test_what_a_client_needs_only_sometimes_is_not_imported_with_it():
    """Making one, with everything at its default."""
    printed = run_python(
        """
import sys, asyncio, http.client, ssl
import aiohttpconn
aiohttpconn.Client()
unwanted = '''http.cookiejar urllib.request netrc json zstandard brotli idna
    aiohttpconn.client.fetch_many aiohttpconn.client.download aiohttpconn.client.api
    aiohttpconn.testing aiohttpconn.cli uvloop hashlib secrets'''.split()
print(*[name for name in unwanted if name in sys.modules])
"""
    )
    assert printed.split() in ([], ["brotli"])


@pytest.mark.parametrize("name", sorted(aiohttpconn._LAZY))
def test_each_name_is_what_its_module_has(name):
    value = getattr(aiohttpconn, name)
    assert name in dir(aiohttpconn)
    assert name in aiohttpconn.__all__
    assert value is getattr(aiohttpconn, name)
    assert value.__module__ == f"aiohttpconn.{aiohttpconn._LAZY[name]}"
    assert value.__doc__


def test_no_name_is_hidden_by_a_module():
    """A submodule is an attribute of the package once it is imported, whoever imports it."""
    printed = run_python(
        """
import pkgutil, importlib, types, aiohttpconn
for module in pkgutil.walk_packages(aiohttpconn.__path__, "aiohttpconn."):
    if module.name != "aiohttpconn.__main__":
        try:
            importlib.import_module(module.name)
        except ImportError:
            pass
hidden = [name for name in aiohttpconn.__all__
          if isinstance(getattr(aiohttpconn, name), types.ModuleType)]
print(hidden, aiohttpconn.request.__name__, callable(aiohttpconn.options))
"""
    )
    assert printed == "[] request True\n"


def test_import_star_brings_every_name():
    printed = run_python(
        """
before = set(globals())
from aiohttpconn import *
new = set(globals()) - before - {"before"}
import aiohttpconn
print(sorted(set(aiohttpconn.__all__) ^ new), Client is aiohttpconn.Client, get is aiohttpconn.get)
"""
    )
    assert printed == "[] True True\n"


def test_a_name_that_there_is_not():
    with pytest.raises(AttributeError) as caught:
        aiohttpconn.Sesssion  # noqa: B018
    assert str(caught.value) == "module 'aiohttpconn' has no attribute 'Sesssion'"
    with pytest.raises(ImportError, match="cannot import name 'Session'"):
        from aiohttpconn import Session  # noqa: F401


def test_modules_are_found_beside_lazy_names():
    import aiohttpconn.client.api
    import aiohttpconn.exceptions

    assert isinstance(aiohttpconn.client, types.ModuleType)
    assert aiohttpconn.client.api.get is aiohttpconn.get
    assert aiohttpconn.exceptions.StatusError is aiohttpconn.StatusError


VALUES: list[Any] = [
    aiohttpconn.Timeout(total=5, read=1),
    aiohttpconn.Retry(attempts=4, statuses=(500,)),
    aiohttpconn.Proxy.parse("socks5h://me:pw@h:1"),
    aiohttpconn.Limits(max_fields=5),
    aiohttpconn.Fields({"A": "b"}),
    aiohttpconn.Timings(0.1, None, None, None, None, 0.1, 0.1, None),
    aiohttpconn.Fetched("http://h/", None, OSError("x")),
    aiohttpconn.PoolStats(0, 0, 0, 0, {}),
    aiohttpconn.OriginStats(0, 0, 0, 0),
    aiohttpconn.ProxyRules.of("http://h:1"),
    aiohttpconn.Basic("me", "pw"),
    aiohttpconn.Bearer("abc"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_settings_and_results_can_be_pickled_and_copied(value):
    for made in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)):
        assert type(made) is type(value)
        assert made == value or repr(made) == repr(value)
