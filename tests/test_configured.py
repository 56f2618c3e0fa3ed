"""The settings of a client as attributes: what is assigned counts from the next request on."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from aiohttpconn import Bearer, Client, InvalidURL, ProxyRules, Retry, StatusError, Timeout
from aiohttpconn.client.settings import Settings
from aiohttpconn.testing import Reply, serve
from aiohttpconn.testing import Request as ServedRequest

from .test_arguments import SETTINGS, Wrong

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def echo(request: ServedRequest) -> Reply:
    if request.target == "/moved":
        return Reply("", status=302, headers={"Location": "/there"})
    if request.target == "/busy":
        return Reply("", status=503)
    return Reply("hello")


@pytest.fixture
async def server() -> AsyncIterator[Any]:
    async with serve(echo) as server:
        yield server


@pytest.fixture
async def client(server: Any) -> AsyncIterator[Client]:
    """A client whose requests are plain: it has made some."""
    async with Client(base_url=server.url, trust_env=False) as client:
        for _ in range(2):
            await client.get("/")
        server.requests.clear()
        yield client


async def fields(client: Client, server: Any, **options: Any) -> dict[str, str]:
    """Return the fields of two requests, which are the same."""
    for _ in range(2):
        await client.get("/", **options)
    first, second = (dict(request.headers) for request in server.requests[-2:])
    assert first == second
    return first


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The URLs of the requests that were not plain."""
    made: list[str] = []
    original = Client._call

    def record(self: Client, method: str, url: str, *arguments: Any) -> Any:
        made.append(url)
        return original(self, method, url, *arguments)

    monkeypatch.setattr(Client, "_call", record)
    return made


async def test_the_headers_of_a_client_can_be_changed(client, server, calls):
    client.headers["X-A"] = "1"
    assert (await fields(client, server))["X-A"] == "1"
    assert len(calls) == 1  # the first of the two; the next are plain again
    client.headers["x-a"] = "2"
    client.headers.add("X-B", "3")
    assert {"x-a": "2", "X-B": "3"}.items() <= (await fields(client, server)).items()
    del client.headers["X-A"]
    assert "x-a" not in await fields(client, server)
    client.headers.update({"X-C": "4"})
    assert client.headers.pop("X-B") == "3"
    sent = await fields(client, server, headers={"X-D": "5"})
    assert (sent["X-C"], sent["X-D"], sent.get("X-B")) == ("4", "5", None)
    client.headers.override({"User-Agent": None, "X-C": "6"})
    sent = await fields(client, server, headers={"X-D": "5"})
    assert (sent["X-C"], sent.get("User-Agent")) == ("6", None)
    calls.clear()
    await client.get("/")
    await client.get("/", headers={"X-D": "5"})
    assert calls == []


async def test_assigned_headers_are_those_of_the_constructor(client, server):
    kept = client.headers
    client.headers["X-A"] = "1"
    client.headers = {"X-B": "2"}
    sent = await fields(client, server)
    assert (sent.get("X-A"), sent["X-B"], sent["Accept"]) == (None, "2", "*/*")
    assert client.headers is kept  # so that a reference to it is not left behind
    kept["X-C"] = "3"
    assert (await fields(client, server))["X-C"] == "3"
    client.headers = None
    own = {"Host", "Connection", "Accept-Encoding", "Accept", "User-Agent"}
    assert (await fields(client, server)).keys() == own


async def test_a_request_sends_what_the_headers_were_when_it_began(client, server):
    requests = client.fetch_many(["/", "/"], concurrency=1)
    client.headers["X-A"] = "1"
    async for result in requests:
        result.result()
    assert all("X-A" not in request.headers for request in server.requests)


async def test_headers_that_may_not_be_sent_are_refused_and_change_nothing(client, server):
    for change in (
        lambda: client.headers.__setitem__("X-A", "a\n"),
        lambda: setattr(client, "headers", {"X A": "b"}),
        lambda: setattr(client, "headers", 3),
    ):
        with pytest.raises((ValueError, TypeError)):
            change()
    assert (await fields(client, server))["Accept"] == "*/*"


async def test_a_client_goes_without_the_garbage_collector(server):
    async with Client(trust_env=False) as client:
        client.headers["X-A"] = "1"
        client.timeout = 5
        await client.get(server.url)
    gc.disable()
    try:
        gone = weakref.ref(client), weakref.ref(client._plain)
        del client
        assert [one() for one in gone] == [None, None]
    finally:
        gc.enable()


async def test_every_setting_is_an_attribute_that_can_be_read(server):
    given: dict[str, Any] = {
        "timeout": Timeout(read=5),
        "auth": Bearer("abc"),
        "follow_redirects": False,
        "max_redirects": 3,
        "allow_downgrade": True,
        "decompress": False,
        "max_body": 1000,
        "max_ratio": 5.0,
        "truncated": "keep",
        "default_encoding": "koi8-r",
        "json_dumps": repr,
        "json_loads": len,
        "retry": Retry(),
        "server_hostname": "name.test",
        "fingerprint": "ab" * 32,
        "resend_stale": False,
        "on_request": print,
        "on_response": print,
        "proxy": ProxyRules.of("http://p:8080"),
    }
    assert given.keys() >= set(Settings.__annotations__) - {"proxies", "context", "body_options"}
    async with Client(**given, trust_env=False) as made, Client(trust_env=False) as assigned:
        for name, value in given.items():
            assert getattr(made, name) is value
            setattr(assigned, name, value)
            assert getattr(assigned, name) is value
        assert assigned._state.settings == made._state.settings
        assert assigned.headers == made.headers


async def test_assigned_settings_hold_from_the_next_request_on(client, server):
    client.auth = ("user", "password")
    assert (await fields(client, server))["Authorization"] == "Basic dXNlcjpwYXNzd29yZA=="
    client.auth = None
    assert "Authorization" not in await fields(client, server)
    client.decompress = False
    assert (await fields(client, server))["Accept-Encoding"] == "identity"
    client.decompress = True
    assert (await fields(client, server))["Accept-Encoding"].startswith("gzip")
    client.params = {"a": 1}
    assert client.params == [("a", 1)]
    await client.get("/")
    assert server.requests[-1].target == "/?a=1"
    client.params = None
    client.follow_redirects = False
    assert (await client.get("/moved")).status == 302
    client.follow_redirects = True
    assert (await client.get("/moved")).url.endswith("/there")
    client.timeout = 5
    assert client.timeout == Timeout(connect=5, read=5, write=5, pool=60)
    assert (await client.get("/")).text == "hello"
    client.base_url = f"{server.url}deep/"
    await client.get("er")
    assert server.requests[-1].target == "/deep/er"
    server.requests.clear()
    client.base_url = server.url
    client.retry = Retry(attempts=2, backoff=0)
    assert (await client.get("/busy")).attempts == len(server.requests) == 2
    seen: list[int] = []
    client.on_response = lambda response: seen.append(response.status)
    with pytest.raises(StatusError):
        (await client.get("/busy", retry=None)).raise_for_status()
    assert seen == [503]


async def test_what_is_wrong_is_refused_when_it_is_assigned(client):
    wrong: dict[str, list[Wrong]] = {
        **SETTINGS,
        "base_url": [("no scheme", InvalidURL, "no scheme"), (3, TypeError, "must be a str")],
    }
    for name, values in wrong.items():
        before = getattr(client, name)
        for value, error, text in values:
            with pytest.raises(error) as caught:
                setattr(client, name, value)
            assert text in str(caught.value), name
            assert getattr(client, name) == before
    assert (await client.get("/")).status == 200


@pytest.mark.parametrize("name", ["verify", "limit", "tiemout", "trust_env", "pool", "cookies"])
async def test_an_attribute_that_is_no_setting_cannot_be_assigned(name, client):
    with pytest.raises(AttributeError, match=name):
        setattr(client, name, 1)
