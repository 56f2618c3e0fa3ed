"""Every argument that takes a callable either awaits an async one or refuses it.

A coroutine function that is called and not awaited has done nothing, and the coroutine that it
returns is true: a hook that vetoes addresses (C9) would veto none. The table has each callable
argument of the public names; one that is not in it fails a test.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
from pathlib import Path

import pytest

import aiohttpconn
import aiohttpconn.testing
from aiohttpconn import (
    Auth,
    Client,
    ConnectionPool,
    ConnectionVetoed,
    CookieStore,
    Destination,
    HTTP1Protocol,
    HTTPConnection,
    Resolver,
    dial,
)
from aiohttpconn.client.settings import RequestOptions
from aiohttpconn.endpoint import ConnectionOptions
from aiohttpconn.pool.pool import PoolOptions
from aiohttpconn.testing import Fault, ScriptedServer, close_at, every_fault, expect, send, serve

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"

# The forms of a function: its result at once, to be awaited, or none because nothing of it runs.


async def result_of(function, arguments):
    await asyncio.sleep(0)
    result = function(*arguments)
    return await result if inspect.isawaitable(result) else result


class AsyncObject:
    def __init__(self, function):
        self.function = function

    async def __call__(self, *arguments):
        return await result_of(self.function, arguments)

    async def method(self, *arguments):
        return await result_of(self.function, arguments)


def coroutine_function(function):
    async def hook(*arguments):
        return await result_of(function, arguments)

    return hook


def generator_function(function):
    def hook(*arguments):
        yield function(*arguments)

    return hook


def async_generator_function(function):
    async def hook(*arguments):
        yield function(*arguments)

    return hook


def hidden(form):
    """Return *form* in a function that looks as if it had a result at once."""

    def make(function):
        hook = form(function)
        return lambda *arguments: hook(*arguments)

    return make


ASYNC = {
    "coroutine-function": coroutine_function,
    "partial": lambda function: functools.partial(coroutine_function(function)),
    "method": lambda function: AsyncObject(function).method,
    "object": AsyncObject,
    "partial-of-object": lambda function: functools.partial(AsyncObject(function)),
    "lambda": hidden(coroutine_function),
    "future": lambda function: lambda *given: asyncio.ensure_future(result_of(function, given)),
}
NEVER_RUN = {
    "generator": generator_function,
    "async-generator": async_generator_function,
    "lambda-of-a-generator": hidden(generator_function),
    "lambda-of-an-async-generator": hidden(async_generator_function),
}

# The hooks. Each function gives one, in the form *form*, does what calls it, and returns whether
# its result counted.


async def on_connect(form, **options):
    async def unreached(conn):
        raise AssertionError("a connection was made")

    hook = form(lambda address, host, port: False)
    async with ScriptedServer(unreached) as server:
        async with Client(on_connect=hook, trust_env=False) as client:
            with pytest.raises(ConnectionVetoed) as caught:
                await client.get(server.url)
        async with ConnectionPool(on_connect=hook) as pool:
            with pytest.raises(ConnectionVetoed):
                await pool.request("GET", server.url)
            with pytest.raises(ConnectionVetoed):
                async with pool.connection(server.url) as conn:
                    await conn.connect()
        assert server.connections == 0
    if isinstance(caught.value.errors[0], TypeError):
        raise caught.value.errors[0]
    return True


async def get(url, options=None, **arguments):
    async with Client(**arguments, trust_env=False) as client:
        return await client.get(url, **(options or {}))


def in_client_and_request(name):
    """Return a way to give the hook *name* to a client, to a request, and by assignment."""

    async def ways(hook, url):
        await get(url, **{name: hook})
        await get(url, {name: hook})
        async with Client(trust_env=False) as client:
            setattr(client, name, hook)
            await client.get(url)

    return ways


async def on_request(form):
    def mark(request):
        request.headers["X-Hook"] = "was-here"

    async with ScriptedServer([expect(), send(OK)]) as server:
        await in_client_and_request("on_request")(form(mark), server.url)
        return all(b"X-Hook: was-here\r\n" in head for head in server.heads)


async def on_response(form):
    def refuse(response):
        raise LookupError(response.status)

    async with ScriptedServer([expect(), send(OK)]) as server:
        for options in ({"on_response": form(refuse)}, {}):
            arguments = {} if options else {"on_response": form(refuse)}
            with pytest.raises(LookupError, match="200"):
                await get(server.url, options, **arguments)
    return True


async def auth(form):
    async with ScriptedServer([expect(), send(OK)]) as server:
        await in_client_and_request("auth")(form(lambda request: "Token x"), server.url)
        return all(b"Authorization: Token x\r\n" in head for head in server.heads)


async def auth_methods(form):
    asked = []

    def method(function):
        made = form(function)
        # A function becomes a method by itself.
        return made if inspect.isfunction(made) else lambda self, *given: made(self, *given)

    class Own(Auth):
        authorize = method(lambda self, request: request.headers.add("X-Hook", "was-here"))
        challenged = method(lambda self, request, response: asked.append(response.status))

    refusal = b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"
    async with ScriptedServer([expect(), send(refusal)]) as server:
        await get(server.url, auth=Own())
        return b"X-Hook: was-here\r\n" in server.heads[0] and asked == [401]


async def resolver(form):
    class Own:
        pass

    own = Own()
    own.resolve = form(
        lambda host, port: Resolver(static={"a.test": "127.0.0.1"}).resolve(host, port)
    )
    async with ScriptedServer([expect(), send(OK)]) as server:
        response = await get(f"http://a.test:{server.port}/", resolver=own)
    return response.ok


async def progress(form, tmp_path=Path("unused")):
    def refuse(size, total):
        raise LookupError(size)

    async with ScriptedServer([expect(), send(OK)]) as server, Client(trust_env=False) as client:
        with pytest.raises(LookupError):
            await client.download(server.url, tmp_path / "file", progress=form(refuse))
    return True


async def dialer(form):
    hook = form(lambda factory, destination, report: dial(factory, destination, report))
    async with ScriptedServer([expect(), send(OK)]) as server:
        assert (await get(server.url, dialer=hook)).ok
        async with ConnectionPool(dialer=hook) as pool:
            await (await pool.request("GET", server.url)).read()
        async with HTTPConnection(*server.address, dialer=hook) as conn:
            await conn.request("GET", "/")
            return (await conn.getresponse()).status == 200


async def default_encoding(form):
    async def ways(hook, url):
        return [
            (await get(url, default_encoding=hook)).text,
            (await get(url, {"default_encoding": hook})).text,
        ]

    latin = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\n\xe9"
    async with ScriptedServer([expect(), send(latin)]) as server:
        return await ways(form(lambda begin: "iso-8859-1"), server.url) == ["\xe9", "\xe9"]


async def json_dumps(form):
    hook = form(lambda value: b"7")
    async with serve(lambda request: request.body) as server:
        async with Client(json_dumps=hook, trust_env=False) as client:
            return (await client.post(server.url, json=1)).content == b"7"


async def json_loads(form):
    hook = form(lambda document, **options: "loaded")
    async with serve({"/": "1"}) as server:
        response = await get(server.url, json_loads=hook)
    return response.json() == "loaded"


async def is_public_suffix(form):
    cookie = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Domain=b.test\r\nContent-Length: 0\r\n\r\n"
    store = CookieStore(is_public_suffix=form(lambda domain: domain == "b.test"))
    async with ScriptedServer([expect(), send(cookie)]) as server:
        url = f"http://a.b.test:{server.port}/"
        await get(url, cookies=store, resolve={"a.b.test": "127.0.0.1"})
    return len(store) == 0


async def on_informational(form, loop_errors=None):
    told = []
    async with ScriptedServer([expect(), send(HINTS, OK)]) as server:
        hook = form(lambda status, headers: told.append(status))
        async with HTTPConnection(*server.address, on_informational=hook) as conn:
            await conn.request("GET", "/")
            assert await (await conn.getresponse()).read() == b"hi"
    if loop_errors:
        raise loop_errors.pop()["exception"]
    return told == [103]


async def protocol_factory(form):
    loop = asyncio.get_running_loop()
    async with ScriptedServer([expect(), send(OK)]) as server:
        destination = Destination(*server.address)
        transport, protocol = await dial(form(lambda: HTTP1Protocol(loop)), destination)
        transport.abort()
        await protocol.wait_closed(9)
    return isinstance(protocol, HTTP1Protocol)


async def steps(form):
    fault = Fault("own", form(lambda response: [send(response)]))
    for script in ({}, {"faults": [fault]}):
        reply = aiohttpconn.testing.Reply("hi", fault=fault) if not script else "hi"
        async with serve({"/": reply}, **script) as server:
            assert (await get(server.url)).text == "hi"
    return True


async def kinds(form):
    return [fault.name for fault in every_fault(OK, form(close_at))][:1] == ["close-at-0"]


async def handler(form):
    for given in (form(lambda request: "hi"), {"/": form(lambda request: "hi")}):
        async with serve(given) as server:
            assert (await get(server.url)).text == "hi"
    return True


async def scripts(form):
    async def script(conn):
        await conn.read_head()
        await conn.send(OK)

    async with ScriptedServer(form(script)) as server:
        return (await get(server.url)).ok


HOOKS = {
    # What is awaited.
    "on_connect": (on_connect, True),
    "on_request": (on_request, True),
    "on_response": (on_response, True),
    "auth": (auth, True),
    "Auth's methods": (auth_methods, True),
    "resolver's resolve": (resolver, True),
    "progress": (progress, True),
    "dialer": (dialer, True),
    "handler": (handler, True),
    "scripts": (scripts, True),
    # What is needed at once.
    "on_informational": (on_informational, False),
    "default_encoding": (default_encoding, False),
    "json_dumps": (json_dumps, False),
    "json_loads": (json_loads, False),
    "is_public_suffix": (is_public_suffix, False),
    "protocol_factory": (protocol_factory, False),
    "steps": (steps, False),
    "kinds": (kinds, False),
}


async def used(name, form, loop_errors, tmp_path):
    use, _ = HOOKS[name]
    more = {"loop_errors": loop_errors, "tmp_path": tmp_path}
    wanted = inspect.signature(use).parameters
    return await use(form, **{key: more[key] for key in more if key in wanted})


@pytest.mark.parametrize("name", HOOKS)
async def test_a_function_is_called(name, loop_errors, tmp_path):
    assert await used(name, lambda function: function, loop_errors, tmp_path)


@pytest.mark.parametrize("form", ASYNC.values(), ids=ASYNC)
@pytest.mark.parametrize("name", HOOKS)
async def test_an_async_function_is_awaited_or_refused_C9(name, form, loop_errors, tmp_path):
    if HOOKS[name][1]:
        assert await used(name, form, loop_errors, tmp_path)
    else:
        with pytest.raises(TypeError, match="not async"):
            await used(name, form, loop_errors, tmp_path)


@pytest.mark.parametrize("form", NEVER_RUN.values(), ids=NEVER_RUN)
@pytest.mark.parametrize("name", HOOKS)
async def test_a_function_of_which_nothing_runs_is_refused(name, form, loop_errors, tmp_path):
    # A function for auth= returns what cannot be a header's value.
    with pytest.raises((TypeError, ValueError)):
        await used(name, form, loop_errors, tmp_path)


# The table is whole


def callable_arguments():
    """Return the names of all arguments and options of public names that take a callable."""
    package = Path(aiohttpconn.__file__).parent
    aliases = {"Callable"}
    for path in package.rglob("*.py"):
        for name, meaning in re.findall(
            r"^ *(\w+)(?:: TypeAlias)? = ((?:.*[(\\]\n)?(?: {4}.*\n)*.*)$",
            path.read_text(),
            re.MULTILINE,
        ):
            if re.search(r"\bCallable\[|\bSequence\[Step\]", meaning):
                aliases.add(name)
    assert {"Dialer", "OnConnect", "AuthLike", "Handler", "Script", "Progress"} <= aliases
    word = re.compile(rf"\b(?:{'|'.join(aliases)})\b")
    found = set()
    for module in (aiohttpconn, aiohttpconn.testing):
        for public in module.__all__:
            thing = getattr(module, public)
            things = [thing]
            if inspect.isclass(thing):
                things += [each for name, each in vars(thing).items() if not name.startswith("_")]
            for each in things:
                try:
                    parameters = inspect.signature(each).parameters.values()
                except (TypeError, ValueError):
                    continue  # not callable
                found |= {each.name for each in parameters if word.search(str(each.annotation))}
    for options in (RequestOptions, PoolOptions, ConnectionOptions):
        found |= {name for name, kind in options.__annotations__.items() if word.search(str(kind))}
    return found


def test_every_callable_argument_is_in_the_table():
    assert callable_arguments() - HOOKS.keys() == set()
    assert HOOKS.keys() - callable_arguments() == {"Auth's methods", "resolver's resolve"}


@pytest.mark.parametrize("verdict", [False, 0, "", []])
async def test_on_connect_refuses_by_all_that_is_false_but_none_C9(verdict):
    assert await on_connect(lambda _: lambda address, host, port: verdict)
    assert await on_connect(lambda _: coroutine_function(lambda address, host, port: verdict))


@pytest.mark.parametrize("verdict", [None, True, 1])
async def test_on_connect_allows_C9(verdict):
    async with ScriptedServer([expect(), send(OK)]) as server:
        for form in (lambda function: function, coroutine_function):
            hook = form(lambda address, host, port: verdict)
            assert (await get(server.url, on_connect=hook)).ok


async def test_on_connect_is_awaited_within_the_limits_C9(ticking):
    async def never(address, host, port):
        await asyncio.Event().wait()

    async with ScriptedServer([expect()]) as server:
        with pytest.raises(aiohttpconn.ConnectTimeout):
            await get(server.url, on_connect=never, timeout=aiohttpconn.Timeout(connect=0.02))
        assert server.connections == 0
