"""client/auth/asking.py and how a call asks: async methods, a lock, bodies, signatures, resends."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import hmac
import io
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest

from aiohttpconn import Auth, Bearer, Client, Digest, Request, Response, Timeout, TotalTimeout, run
from aiohttpconn.client.auth.asking import ask, is_asked
from aiohttpconn.client.request import RequestBody
from aiohttpconn.testing import Reply, ScriptedServer, close, expect, expect_request, send, serve
from aiohttpconn.testing import Request as ServedRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HI = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
UNAUTHORIZED = Reply("no", status=401, headers={"WWW-Authenticate": "Bearer"})


# async methods


class Async(Auth):
    """Waits in both methods; asks again once."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def authorize(self, request: Request) -> None:
        await asyncio.sleep(0)
        self.seen.append(f"authorize {request.method} {request.url}")
        request.headers["Authorization"] = f"X {len(self.seen)}"

    async def challenged(self, request: Request, response: Response) -> bool:
        await asyncio.sleep(0)
        self.seen.append(f"{response.status} {response.text} {request.headers['Authorization']}")
        return len(self.seen) < 3


def wants(value: str) -> Any:
    def reply(request: ServedRequest) -> Reply:
        if request.headers["Authorization"] == value:
            return Reply(b"welcome " + request.body)
        return UNAUTHORIZED

    return reply


async def test_async_methods_are_awaited_for_each_request(client):
    async with serve(wants("X 3")) as server:
        auth = Async()
        response = await client.post(server.url, content=b"body", auth=auth)
        assert (response.status, response.text) == (200, "welcome body")
        asked = f"authorize POST {server.url}"
        assert auth.seen == [asked, "401 no X 1", asked]
        # The same connection: the 401 was read.
        assert server.connections == 1


async def test_a_refusal_that_async_challenged_accepts_is_returned_whole(client):
    async with serve({"/": UNAUTHORIZED}) as server:
        auth = Async()
        response = await client.get(server.url, auth=auth)
        assert (response.status, response.text) == (401, "no")
        assert len(server.requests) == 2
        async with client.stream("GET", server.url, auth=auth) as response:
            assert response.status == 401
            assert [piece async for piece in response.iter_bytes()] == [b"no"]


async def test_a_streams_refusal_is_read_only_so_far(client):
    reply = Reply([bytes(64 * 1024)] * 17, status=401)
    async with serve({"/": reply}) as server:
        with pytest.raises(Exception, match="max_body=1048576"):
            async with client.stream("GET", server.url, auth=Async()):
                raise AssertionError("the body is too large")
        # Not of a stream: the caller wants it in memory anyway.
        assert len((await client.get(server.url, auth=Async())).content) == 17 * 64 * 1024


async def test_a_function_may_be_async(client):
    async def function(request: Request) -> str | None:
        await asyncio.sleep(0)
        return "X 1" if request.url.endswith("?in") else None

    async with serve(lambda request: str(request.headers["Authorization"])) as server:
        assert (await client.get(f"{server.url}?in", auth=function)).text == "X 1"
        assert (await client.get(server.url, auth=function)).text == "None"

        async def wrong(request: Request) -> str:
            return "s3cret\n"

        with pytest.raises(ValueError, match=r"^wrong\(\) returned a str that cannot be sent"):
            await client.get(server.url, auth=wrong)


async def test_a_subclass_of_a_fixed_scheme_is_asked_for_each_request(client):
    class Counting(Bearer):
        def __init__(self) -> None:
            super().__init__("x")
            self.count = 0

        async def authorize(self, request: Request) -> None:
            self.count += 1
            request.headers["Authorization"] = f"Bearer {self.count}"

    async with serve(lambda request: request.headers["Authorization"]) as server:
        async with Client(trust_env=False, auth=Counting()) as client:
            texts = [(await client.get(server.url)).text for _ in range(3)]
            assert texts == ["Bearer 1", "Bearer 2", "Bearer 3"]


async def test_an_auth_has_the_calls_total_time(client, ticking):
    class Slow(Auth):
        async def authorize(self, request: Request) -> None:
            await asyncio.Event().wait()

    async with serve(lambda request: "hi") as server:
        with pytest.raises(TotalTimeout, match=r"authorize did not end within 0\.01 s"):
            await client.get(server.url, auth=Slow(), timeout=Timeout(total=0.01))
        assert server.requests == []


# One lock


class TokenServer:
    """Gives tokens, and answers to those that are good."""

    def __init__(self) -> None:
        self.made = 0
        self.good = ""
        self.slow = False

    async def __call__(self, request: ServedRequest) -> Reply:
        if request.path == "/token":
            assert request.headers["Authorization"] is None
            if self.slow:
                await asyncio.sleep(0)
            self.made += 1
            self.good = f"t{self.made}"
            return Reply(self.good)
        if request.headers["Authorization"] == f"Bearer {self.good}":
            return Reply("welcome")
        return UNAUTHORIZED


class Token(Auth):
    """A token that is fetched with the client that asks for it, once for all."""

    serialized = True

    def __init__(self, client: Client, url: str) -> None:
        self.client = client
        self.url = url
        self.token: str | None = None

    async def authorize(self, request: Request) -> None:
        if self.token is None:
            self.token = (await self.client.get(f"{self.url}token")).text
        request.headers["Authorization"] = f"Bearer {self.token}"

    async def challenged(self, request: Request, response: Response) -> bool:
        if request.headers["Authorization"] == f"Bearer {self.token}":
            self.token = None
        return True


@pytest.mark.parametrize("limits", [{}, {"limit": 1}, {"limit": 3}, {"pipelining": 8}])
async def test_twenty_requests_refresh_once(limits):
    handler = TokenServer()
    async with serve(handler) as server, Client(trust_env=False, **limits) as client:
        auth = Token(client, server.url)
        for made in (1, 2, 3):
            responses = await asyncio.gather(
                *(client.get(server.url, auth=auth) for _ in range(20))
            )
            assert {response.text for response in responses} == {"welcome"}
            assert handler.made == made
            # The server forgets the token: twenty 401, one refresh.
            handler.good = "none"


async def test_streams_that_are_refused_leave_the_connection_to_the_refresh():
    handler = TokenServer()
    async with serve(handler) as server, Client(trust_env=False, limit=2) as client:
        auth = Token(client, server.url)
        auth.token = "old"

        async def read() -> bytes:
            async with client.stream("GET", server.url, auth=auth) as response:
                return await response.read()

        assert set(await asyncio.gather(*(read() for _ in range(20)))) == {b"welcome"}
        assert handler.made == 1


async def test_an_auth_of_the_client_itself_makes_its_own_requests_without_it():
    handler = TokenServer()
    async with serve(handler) as server, Client(trust_env=False, limit=1) as bare:
        auth = Token(bare, server.url)
        async with Client(trust_env=False, limit=1, auth=auth) as client:
            auth.client = client
            assert (await client.get(server.url)).text == "welcome"
            assert handler.made == 1
            handler.good = "none"
            assert (await client.get(server.url)).text == "welcome"


async def test_a_task_that_the_auth_leaves_behind_is_authorized_as_any_other(client):
    tasks: list[asyncio.Task[Response]] = []
    go_on = asyncio.Event()

    class Spawning(Auth):
        async def authorize(self, request: Request) -> None:
            request.headers["Authorization"] = "X"
            if not tasks:
                tasks.append(asyncio.create_task(self.later(request.url)))

        async def later(self, url: str) -> Response:
            await go_on.wait()
            return await client.get(url, auth=self)

    async with serve(lambda request: str(request.headers["Authorization"])) as server:
        auth = Spawning()
        assert (await client.get(server.url, auth=auth)).text == "X"
        assert not is_asked(auth)
        go_on.set()
        assert (await tasks[0]).text == "X"


async def test_whoever_is_cancelled_leaves_the_lock_to_the_next(client):
    started, hold = asyncio.Event(), asyncio.Event()

    class Held(Auth):
        serialized = True
        token = ""
        made = 0

        async def authorize(self, request: Request) -> None:
            if not self.token:
                self.made += 1
                started.set()
                await hold.wait()
                self.token = f"t{self.made}"
            request.headers["Authorization"] = self.token

    async with serve(lambda request: request.headers["Authorization"]) as server:
        auth = Held()
        tasks = [asyncio.create_task(client.get(server.url, auth=auth)) for _ in range(5)]
        await started.wait()
        started.clear()
        tasks[0].cancel()
        # One that only waits, too.
        tasks[3].cancel()
        await started.wait()
        hold.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        kinds = [type(result) for result in results]
        cancelled = asyncio.CancelledError
        assert kinds == [cancelled, Response, Response, cancelled, Response]
        assert auth.made == 2
        assert {results[n].text for n in (1, 2, 4)} == {"t2"}


async def test_a_refresh_that_fails_fails_its_own_request_alone(client):
    class Failing(Auth):
        serialized = True
        calls = 0

        async def authorize(self, request: Request) -> None:
            self.calls += 1
            await asyncio.sleep(0)
            if self.calls == 1:
                raise KeyError("no token")
            request.headers["Authorization"] = "t"

    async with serve(lambda request: request.headers["Authorization"]) as server:
        auth = Failing()
        results = await asyncio.gather(
            *(client.get(server.url, auth=auth) for _ in range(3)), return_exceptions=True
        )
        assert [type(result) for result in results] == [KeyError, Response, Response]


def test_a_lock_serves_one_loop_after_another():
    class Slow(Auth):
        serialized = True
        running = 0
        most = 0

        async def authorize(self, request: Request) -> None:
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.sleep(0)
            self.running -= 1

    auth = Slow()

    async def main() -> None:
        request = Request("GET", "http://a.test/")
        await asyncio.gather(*(ask(auth, auth.authorize, request) for _ in range(5)))

    for _ in range(3):
        run(main())
    assert auth.most == 1
    # Locks of closed loops are not kept.
    assert len(auth._locks) == 1


async def test_one_that_is_not_serialized_is_asked_at_once(client):
    all_there = asyncio.Barrier(3)

    class Free(Auth):
        async def authorize(self, request: Request) -> None:
            await all_there.wait()

    async with serve(lambda request: "hi") as server:
        await asyncio.gather(*(client.get(server.url, auth=Free()) for _ in range(3)))
        auth = Free()
        await asyncio.gather(*(client.get(server.url, auth=auth) for _ in range(3)))


async def test_a_question_that_is_dropped_leaves_nothing():
    class Waiting(Auth):
        serialized = True

        async def authorize(self, request: Request) -> None:
            await asyncio.Event().wait()

    auth = Waiting()
    coroutine = ask(auth, auth.authorize, Request("GET", "http://a.test/"))
    coroutine.send(None)
    coroutine.close()
    del coroutine
    gc.collect()
    assert not is_asked(auth)


# The body, and what goes out


class Signed(Auth):
    """An HMAC over the method, the target, fields that go out, and the body."""

    requires_body = True
    names = ("host", "content-type", "content-length", "cookie", "x-own")

    def __init__(self, key: bytes) -> None:
        self.key = key

    def authorize(self, request: Request) -> None:
        assert isinstance(request.body, bytes)
        fields = [f"{name}: {request.headers.get(name, '')}" for name in self.names]
        parts = [request.method, request.target, *fields, hashlib.sha256(request.body).hexdigest()]
        request.headers["Signature"] = sign(self.key, parts)


def sign(key: bytes, parts: list[str]) -> str:
    return b64encode(hmac.digest(key, "\n".join(parts).encode("latin-1"), "sha256")).decode()


def verifies(key: bytes) -> Any:
    def reply(request: ServedRequest) -> Reply:
        fields = [f"{name}: {request.headers.get(name, '')}" for name in Signed.names]
        assert len(request.headers.get_all("Host")) == 1
        digest = hashlib.sha256(request.body).hexdigest()
        expected = sign(key, [request.method, request.target, *fields, digest])
        assert request.headers["Signature"] == expected
        return Reply(str(len(request.body)))

    return reply


async def blocks() -> AsyncIterator[bytes]:
    yield b"some "
    yield b"blocks"


BODIES: dict[str, Any] = {
    "none": lambda: {},
    "bytes": lambda: {"content": b"body"},
    "large": lambda: {"content": bytes(100_000)},
    "json": lambda: {"json": {"a": 1}},
    "form": lambda: {"data": {"a": "ü"}},
    "text": lambda: {"content": "ü"},
    "bytearray": lambda: {"content": bytearray(b"body")},
    "list": lambda: {"content": [b"a", b"b"]},
    "iterator": lambda: {"content": iter([b"a", b"b"])},
    "async": lambda: {"content": blocks()},
    "memory": lambda: {"content": io.BytesIO(b"in memory")},
    "files": lambda: {"files": {"f": ("f", io.BytesIO(bytes(100_000)))}, "data": {"a": "b"}},
    "chunked": lambda: {"content": b"body", "headers": {"Transfer-Encoding": "chunked"}},
}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("body", BODIES)
async def test_a_signature_is_of_what_goes_out(body, method):
    auth = Signed(b"key")
    async with (
        serve(verifies(b"key")) as server,
        Client(trust_env=False, auth=auth, headers={"X-Own": "1"}) as client,
    ):
        url = f"{server.url}a b/%7e?q=ü&r=%20"
        response = await client.request(method, url, cookies={"a": "b"}, **BODIES[body]())
        assert response.status == 200
        sent = server.requests[-1]
        if sent.body:
            assert response.text == str(len(sent.body))


async def test_a_file_is_read_for_an_auth_and_sent(client, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"skipped" + bytes(3_000_000))
    async with serve(verifies(b"key")) as server:
        with path.open("rb") as file:
            file.seek(7)
            response = await client.put(server.url, content=file, auth=Signed(b"key"))
        assert response.text == "3000000"
        with path.open("rb") as file:
            response = await client.put(server.url, files={"f": file}, auth=Signed(b"key"))
        assert int(response.text) > 3_000_007


async def test_a_body_that_is_not_in_memory_can_be_read_before_it_is_sent(client, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"skipped" + bytes(3_000_000))
    bodies: list[Any] = []

    class Hashing(Auth):
        async def authorize(self, request: Request) -> None:
            body = request.body
            assert isinstance(body, RequestBody)
            bodies.append(body)
            digest = hashlib.sha256()
            async for block in body:
                digest.update(block)
            assert len(await body.read()) == 3_000_000
            request.headers["Digest"] = digest.hexdigest()

    def reply(request: ServedRequest) -> str:
        return str(hashlib.sha256(request.body).hexdigest() == request.headers["Digest"])

    async with serve(reply) as server:
        with path.open("rb") as file:
            file.seek(7)
            assert (await client.put(server.url, content=file, auth=Hashing())).text == "True"
        whole = [b"\0" * 1_000_000] * 3
        assert (await client.put(server.url, content=whole, auth=Hashing())).text == "True"
    assert all(body.can_read for body in bodies[1:])
    assert repr(bodies[0]) == "<RequestBody BufferedReader>"


async def test_a_body_that_can_be_read_once_is_left_for_sending(client):
    class Reading(Auth):
        async def authorize(self, request: Request) -> None:
            body = request.body
            assert isinstance(body, RequestBody)
            assert not body.can_read
            with pytest.raises(ValueError, match=r"^this body can be read only once, and sending"):
                await body.read()

    async with serve(lambda request: request.body) as server:
        response = await client.post(server.url, content=blocks(), auth=Reading())
        assert response.text == "some blocks"


async def test_a_hook_comes_before_the_signature(client):
    async def hook(request: Request) -> None:
        request.headers["X-Own"] = "from the hook"

    async with serve(verifies(b"key")) as server:
        response = await client.post(server.url, content=b"x", auth=Signed(b"key"), on_request=hook)
        assert response.text == "1"
        assert server.requests[0].headers["X-Own"] == "from the hook"


async def test_an_auth_may_change_what_it_sees(client):
    class Changing(Auth):
        def authorize(self, request: Request) -> None:
            request.headers["Host"] = "other.test"
            del request.headers["User-Agent"]

    async with ScriptedServer([expect(), send(HI)]) as server:
        await client.get(server.url, auth=Changing())
        assert server.heads[0].count(b"\r\nHost: ") == 1
        assert b"\r\nHost: other.test\r\n" in server.heads[0]
        assert b"User-Agent" not in server.heads[0]


async def test_the_order_of_fields_is_that_of_any_request(client):
    async with ScriptedServer([expect(), send(HI), expect(), send(HI)]) as server:
        await client.get(server.url, auth=lambda request: "X")
        await client.get(server.url, auth=Bearer("X"))
        one, two = server.heads
        assert one.replace(b"Authorization: X\r\n", b"") == two.replace(
            b"Authorization: Bearer X\r\n", b""
        )


def test_a_request_made_by_hand_has_a_target_and_no_body():
    request = Request("GET", "http://a.test/b c?d")
    assert (request.target, request.body) == ("/b%20c?d", b"")


# Resends


class Numbered(Auth):
    """A field that must not be sent twice."""

    count = 0

    def authorize(self, request: Request) -> None:
        self.count += 1
        request.headers.add("Number", str(self.count))
        request.headers["Authorization"] = f"N {self.count}"


def numbers(server: ScriptedServer) -> list[list[bytes]]:
    return [
        [line[8:] for line in head.split(b"\r\n") if line.startswith(b"Number: ")]
        for head in server.heads
    ]


@pytest.mark.parametrize("pipelining", [1, 4])
@pytest.mark.parametrize("kind", ["none", "small", "large", "list", "expect"])
async def test_an_auth_is_asked_again_when_a_stale_connection_has_lost_the_request(
    kind, pipelining
):
    options: dict[str, Any] = {
        "none": {},
        "small": {"content": b"x"},
        "large": {"content": bytes(100_000)},
        "list": {"content": [b"a", b"b"]},
        # A field that decides how it is sent: the same without a body.
        "expect": {"headers": {"Connection": "keep-alive"}},
    }[kind]
    method = "GET" if kind in ("none", "expect") else "PUT"
    first = [expect_request(), send(HI), expect_request(), close()]
    async with (
        ScriptedServer(first, [expect_request(), send(HI)]) as server,
        Client(trust_env=False, auth=Numbered(), pipelining=pipelining) as client,
    ):
        await client.request(method, server.url, **options)
        await client.request(method, server.url, **options)
        assert numbers(server) == [[b"1"], [b"2"], [b"3"]]
        assert server.connections == 2


@pytest.mark.parametrize("pipelining", [1, 4])
async def test_digest_counts_a_resend(pipelining):
    challenge = (
        b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n"
        b'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"\r\n\r\n'
    )
    first = [expect(), send(challenge), expect(), send(HI), expect(), close()]
    async with (
        ScriptedServer(first, [expect(), send(HI)]) as server,
        Client(trust_env=False, auth=Digest("u", "p"), pipelining=pipelining) as client,
    ):
        await client.get(server.url)
        await client.get(server.url)
        counts = [head.partition(b"nc=")[2][:8] for head in server.heads]
        assert counts == [b"", b"00000001", b"00000002", b"00000003"]


async def test_without_resends_an_auth_is_asked_once():
    first = [expect(), send(HI), expect(), close()]
    async with ScriptedServer(first) as server:
        async with Client(trust_env=False, auth=Numbered(), resend_stale=False) as client:
            await client.get(server.url)
            with pytest.raises(ConnectionError):
                await client.get(server.url)
        assert numbers(server) == [[b"1"], [b"2"]]
