"""``HTTPConnection`` in any order of steps: http.client's states, and each request's response."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
)

from aiohttpconn import (
    CannotSendHeader,
    CannotSendRequest,
    HTTPConnection,
    HTTPException,
    IncompleteRead,
    ResponseNotReady,
    TunnelError,
)
from aiohttpconn.exceptions import BodyLengthError, RequestTimeout
from aiohttpconn.http11.chunked import encode_chunk

from ..support.model import Response
from .machine import LOOPS, Machine, run_machine, turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttpconn import HTTPResponse
    from aiohttpconn.testing import Connection

IDLE, STARTED, SENT = "Idle", "Request-started", "Request-sent"
DOCUMENTED = (HTTPException, OSError)


@dataclass
class Answer:
    """A response on its way: *wire*, of which the server has sent *sent* bytes."""

    name: str
    method: str
    wire: bytes
    closes: bool = False
    """Whether its head says that the connection ends with it."""
    glued: bytes = b""
    sent: int = 0
    over: bool = False
    """Whether the server will send no more of it: its connection has ended."""

    @property
    def read(self) -> Response:
        return Response(self.wire[: self.sent], self.method)

    @property
    def has_head(self) -> bool:
        return self.read.whole

    @property
    def content(self) -> bytes:
        """The part of its body that has been sent."""
        return self.read.content()[0] if self.has_head else b""

    @property
    def is_whole(self) -> bool:
        return self.sent == len(self.wire) or (self.over and self.until_eof)

    @property
    def keeps(self) -> bool:
        """Whether its connection serves another request."""
        return not (self.closes or self.glued)

    @property
    def until_eof(self) -> bool:
        return b"until: eof" in self.wire


@dataclass
class Link:
    """A connection: the server's end, and the answers that it owes, the first one first."""

    conn: Connection
    owed: list[Answer] = field(default_factory=list)
    upgraded: bool = False


@dataclass
class Request:
    """The request that was sent and has no response yet. *unsent*: bytes of a body in parts."""

    name: str
    method: str
    link: Link
    answer: Answer | None = None
    unsent: int | None = None
    upgrades: bool = False


@dataclass
class Unread:
    """The response that was returned and is not read to its end."""

    response: HTTPResponse
    answer: Answer
    link: Link
    at: int = 0

    @property
    def rest(self) -> bytes:
        return self.answer.content[self.at :]


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "interim": draw(st.sampled_from([b"", b"", b"HTTP/1.1 103 Early\r\nX: y\r\n\r\n"])),
        "status": draw(st.sampled_from([200, 200, 200, 204, 304, 500])),
        "framing": draw(st.sampled_from(["length", "length", "chunked", "eof"])),
        "lines": draw(st.integers(0, 4)),
        "closes": draw(st.sampled_from([False, False, False, True])),
        "glued": draw(st.sampled_from([b"", b"", b"", b"x", b"HTTP/1.1 200 OK\r\n\r\n"])),
    }


class ConnectionMachine(Machine):
    """The machine. Its attributes are the model; ``conn`` is what is tested."""

    @initialize()
    def start(self) -> None:
        self.names = map(str, itertools.count())
        self.tunnel = ""
        server = self.server = self.start_server(self.script)
        self.conn = HTTPConnection(server.host, server.port, timeout=5)
        self.state = IDLE
        self.link: Link | None = None
        self.pending: Request | None = None
        self.unread: Unread | None = None
        # The request that is made step by step.
        self.begun = ""
        self.known = 0

    async def script(self, conn: Connection) -> None:
        if self.tunnel:
            assert (await conn.read_head()).startswith(b"CONNECT origin.test:80 HTTP/1.1\r\n")
            code = 200 if self.tunnel == "granted" else 403
            await conn.send(b"HTTP/1.1 %d Proxy\r\nContent-Length: 0\r\n\r\n" % code)
        await asyncio.get_running_loop().create_future()

    async def shut(self) -> None:
        self.conn.close()
        if self.unread is not None:
            self.unread.response.close()
        await self.conn.wait_closed()

    # ---------------------------------------------------------------------------- the model

    async def opened(self) -> Link:
        """Return the link of a request that was sent: the open one, or a new one."""
        if self.link is None:
            self.known += 1
            await self.server.wait_connections(self.known)
            self.link = Link(self.server.conns[self.known - 1])
        assert len(self.server.conns) == self.known, "it has opened a connection of its own accord"
        return self.link

    async def lose(self, link: Link | None = None) -> None:
        """The client gives up *link*, or the open one: nothing more comes of its answers."""
        link = link or self.link
        if link is None:
            return
        if link is self.link:
            self.link = None
        for answer in link.owed:
            answer.over = True
        await self.ended(link.conn)

    async def over(self) -> None:
        """The exchange has failed: the connection is closed, and ready for the next request."""
        self.state, self.pending = IDLE, None
        await self.lose()

    async def sent(self, method: str, body: bytes, **more: Any) -> None:
        """A request was sent whole: it is the server's next, and it is what was meant."""
        link = await self.opened()
        head, got = await asyncio.wait_for(link.conn.read_request(), 10)
        name = self.name
        assert head.startswith(f"{method} /{name} HTTP/1.1\r\n".encode()), head
        if b"chunked" in head:
            got = Response(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + got
            ).content()[0]
        assert got == body
        self.state = SENT
        self.pending = Request(name, method, link, **more)

    @property
    def blocked(self) -> bool:
        """Whether an earlier response is unread."""
        unread = self.unread
        if unread is None or unread.answer.closes:
            return False  # one that closes is no more the connection's
        return not self.is_read(unread)

    def is_read(self, unread: Unread) -> bool:
        """Whether *unread* has nothing left to read, but perhaps the error of its end."""
        return (unread.answer.is_whole or unread.answer.over) and not unread.rest

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "conn"):
            return
        assert self.conn._state == self.state
        assert (self.conn.sock is not None) == (self.link is not None), self.conn
        repr(self.conn)
        if self.unread is not None:
            response, answer = self.unread.response, self.unread.answer
            assert response.getheader("X-Name") == answer.name
            assert response.complete == answer.is_whole

    # ----------------------------------------------------------------------------- requests

    @rule(kind=st.sampled_from(["GET", "GET", "HEAD", "POST", "parts", "file", "upgrade"]))
    def request(self, kind: str) -> None:
        self.run(self._request(kind))

    async def _request(self, kind: str) -> None:
        conn, body, headers = self.conn, b"body" * 3, {}
        method = kind if kind.isupper() else "GET" if kind == "upgrade" else "PUT"
        given: Any = {"POST": body, "parts": _parts(body), "file": iter([body])}.get(kind)
        if kind == "upgrade":
            headers = {"Connection": "upgrade", "Upgrade": "x"}
        if self.state is not IDLE or (self.link is not None and self.link.upgraded):
            with pytest.raises(CannotSendRequest):
                await conn.request(method, "/no", given, headers)
            if kind == "parts":
                await given.aclose()
            return
        self.name = next(self.names)
        if self.link is None and self.tunnel == "refused":
            with pytest.raises(TunnelError):
                await conn.request(method, f"/{self.name}", given, headers)
            if kind == "parts":
                await given.aclose()
            self.known += 1
            return
        await conn.request(method, f"/{self.name}", given, headers)
        await self.sent(method, body if given is not None else b"", upgrades=kind == "upgrade")

    @rule()
    def putrequest(self) -> None:
        if self.state is not IDLE:
            with pytest.raises(CannotSendRequest):
                self.conn.putrequest("GET", "/no")
            return
        self.name = next(self.names)
        self.conn.putrequest("POST", f"/{self.name}")
        self.state = STARTED

    @rule(in_parts=st.booleans())
    def endheaders(self, in_parts: bool) -> None:
        self.run(self._endheaders(in_parts))

    async def _endheaders(self, in_parts: bool) -> None:
        conn = self.conn
        if self.state is not STARTED:
            with pytest.raises(CannotSendHeader):
                conn.putheader("X", "y")
            with pytest.raises(CannotSendHeader):
                await conn.endheaders()
            return
        conn.putheader("Content-Length", "8")
        refused = self.link is None and self.tunnel == "refused"
        upgraded = self.link is not None and self.link.upgraded
        if refused or upgraded:
            with pytest.raises(TunnelError if refused else CannotSendRequest):
                await conn.endheaders(b"12345678")
            self.known += refused
            self.state = IDLE if refused else self.state
            if upgraded:
                conn.close()
                await self.over()
            return
        if not in_parts:
            await conn.endheaders(b"12345678")
            await self.sent("POST", b"12345678")
            return
        await conn.endheaders()
        link = await self.opened()
        head = await link.conn.read_head()
        assert head.startswith(f"POST /{self.name} HTTP/1.1\r\n".encode())
        self.state = SENT
        self.pending = Request(self.name, "POST", link, unsent=8)

    @precondition(lambda self: self.pending and self.pending.unsent and not self.pending.answer)
    @rule(size=st.sampled_from([3, 5, 8, 9]))
    def send(self, size: int) -> None:
        self.run(self._send(size))

    async def _send(self, size: int) -> None:
        pending = self.pending
        assert pending is not None
        assert pending.unsent is not None
        if self.link is None:
            # The server has left: the rest is dropped, and getresponse() says so.
            await self.conn.send(bytes(size))
            return
        if size > pending.unsent:
            with pytest.raises(BodyLengthError):
                await self.conn.send(bytes(size))
            await self.over()
            return
        await self.conn.send(bytes(size))
        pending.unsent -= size
        assert await pending.link.conn.read_exactly(size) == bytes(size)

    # -------------------------------------------------------------------------- the server

    @precondition(lambda self: self.pending and self.pending.answer is None and self.link)
    @rule(how=answers())
    def answer(self, how: dict[str, Any]) -> None:
        """The server makes up its mind; it sends nothing yet."""
        pending = self.pending
        assert pending is not None
        if pending.unsent:
            return
        pending.answer = self.answer_to(pending, **how)
        pending.link.owed.append(pending.answer)

    def answer_to(
        self,
        request: Request,
        interim: bytes,
        status: int,
        framing: str,
        lines: int,
        closes: bool,
        glued: bytes,
    ) -> Answer:
        if request.upgrades and status == 200:
            head = b"HTTP/1.1 101 Go\r\nUpgrade: x\r\nX-Name: %b\r\n\r\n" % request.name.encode()
            return Answer(request.name, request.method, head)
        content = b"".join(b"%b.%d\n" % (request.name.encode(), i) for i in range(lines))
        head = b"HTTP/1.1 %d X\r\nX-Name: %b\r\n" % (status, request.name.encode())
        bodiless = request.method == "HEAD" or status in (204, 304)
        if closes:
            head += b"Connection: close\r\n"
        if bodiless or framing == "length":
            if status not in (204, 304):
                head += b"Content-Length: %d\r\n" % len(content)
            body = content
        elif framing == "chunked":
            head += b"Transfer-Encoding: chunked\r\n"
            body = b"".join(map(encode_chunk, content.splitlines(True))) + b"0\r\n\r\n"
        else:
            head += b"until: eof\r\n"
            body, glued = content, b""
        closes = closes or (framing == "eof" and not bodiless)
        wire = interim + head + b"\r\n" + (b"" if bodiless else body)
        return Answer(request.name, request.method, wire, closes, glued)

    def owing(self) -> Link | None:
        """Return the link whose next answer is not sent whole."""
        links = [self.unread.link if self.unread else None, self.link]
        for link in links:
            if link is None or link.conn.sock.fileno() < 0:
                continue
            if any(not each.is_whole and not each.over for each in link.owed):
                return link
        return None

    @precondition(lambda self: self.owing())
    @rule(size=st.sampled_from([1, 7, 40, 1000, 1000]))
    def serve(self, size: int) -> None:
        """The server sends some bytes of the answer that it owes."""
        link = self.owing()
        assert link is not None
        self.run(self._serve(link, size))

    async def _serve(self, link: Link, size: int) -> None:
        answer = next(each for each in link.owed if not each.is_whole and not each.over)
        piece = answer.wire[answer.sent : answer.sent + size]
        is_last = answer.sent + len(piece) == len(answer.wire) and not answer.until_eof
        answer.sent += len(piece)
        if (
            self.pending is not None
            and self.pending.link is link
            and self.pending.name != answer.name
        ):
            answer.glued = b""  # these bytes would be those of the next answer
        await link.conn.send(piece + (answer.glued if is_last else b""))
        await link.conn.let_client_read()
        await turns()
        if is_last and answer.wire.startswith(b"HTTP/1.1 101"):
            link.upgraded = True
        if answer.until_eof and answer.sent == len(answer.wire):
            await link.conn.close()
            answer.over = True
            await turns()
            await self.lose(link)
        elif is_last and not answer.keeps:
            await self.lose(link)

    @precondition(lambda self: self.link)
    @rule(how=st.sampled_from(["close", "reset", "stray"]))
    def end(self, how: str) -> None:
        """The server ends the connection, or sends bytes that nothing asked for."""
        assert self.link is not None
        if self.link.upgraded or (
            how == "stray" and self.link.owed and not all(each.is_whole for each in self.link.owed)
        ):
            return
        if how == "stray" and self.pending is not None:
            return  # it would be an answer
        self.run(self._end(self.link, how))

    async def _end(self, link: Link, how: str) -> None:
        conn = link.conn
        if how == "stray":
            await conn.send(b"stray")
        elif how == "close":
            await conn.close()
        else:
            await conn.reset()
        await turns()
        await self.lose(link)

    # ----------------------------------------------------------------------------- responses

    @rule()
    def getresponse(self) -> None:
        self.run(self._getresponse())

    async def _getresponse(self) -> None:
        conn, pending = self.conn, self.pending
        if self.blocked or pending is None:
            with pytest.raises(ResponseNotReady):
                await conn.getresponse()
            return
        if pending.unsent and self.link is not None:
            with pytest.raises(BodyLengthError):
                await conn.getresponse()
            await self.over()
            return
        answer = pending.answer
        if answer is not None and answer.has_head:
            self.take(await conn.getresponse(), answer)
        elif self.link is None:
            with pytest.raises(DOCUMENTED):
                await conn.getresponse()
            await self.over()

    def take(self, response: HTTPResponse, answer: Answer) -> None:
        """*response* was returned: it is that of its request."""
        pending = self.pending
        assert pending is not None
        assert response.getheader("X-Name") == pending.name == answer.name
        assert response.status == answer.read.head.status
        self.state, self.pending = IDLE, None
        self.leave()
        self.unread = Unread(response, answer, pending.link)
        if self.link is pending.link and answer.closes:
            self.link = None  # it is the response's, and the next request opens another

    def leave(self) -> None:
        """Drop the response before: the program has no more use for it."""
        if self.unread is not None:
            self.unread = None

    @precondition(
        lambda self: (
            self.pending
            and not self.blocked
            and self.link
            and not self.pending.unsent
            and not (self.pending.answer and self.pending.answer.has_head)
        )
    )
    @rule(
        cause=st.sampled_from(["answer", "cancel", "timeout", "close", "reset", "left"]),
        how=answers(),
    )
    def getresponse_waits(self, cause: str, how: dict[str, Any]) -> None:
        self.run(self._getresponse_waits(cause, how))

    async def _getresponse_waits(self, cause: str, how: dict[str, Any]) -> None:
        pending, link = self.pending, self.link
        assert pending is not None
        assert link is not None
        task = asyncio.ensure_future(self.conn.getresponse())
        await turns()
        assert not task.done()
        with pytest.raises(ResponseNotReady):
            await self.conn.getresponse()
        if cause == "answer":
            if pending.answer is None:
                pending.answer = self.answer_to(pending, **how)
                link.owed.append(pending.answer)
            answer = pending.answer
            while not answer.has_head:
                await self._serve(link, 13)
            self.take(await task, answer)
            return
        kinds = await self.cut(task, cause, link)
        if cause == "timeout":
            kinds = (RequestTimeout,)
        with pytest.raises(kinds):
            await task
        await self.over()

    async def cut(self, task: asyncio.Future[Any], cause: str, link: Link) -> tuple[Any, ...]:
        """End the wait of *task*; return the kinds of error that it may have."""
        if cause == "cancel":
            task.cancel()
            return (asyncio.CancelledError,)
        if cause == "timeout":
            self.clock.advance(6)
        elif cause == "left":
            self.conn.close()
        elif cause == "close":
            await link.conn.close()
        else:
            await link.conn.reset()
        await turns()
        return DOCUMENTED

    # ------------------------------------------------------------------------------ reading

    @precondition(lambda self: self.unread)
    @rule(
        how=st.sampled_from(["read", "read1", "readline", "readall", "peek", "close"]),
        size=st.integers(0, 9),
    )
    def read(self, how: str, size: int) -> None:
        self.run(self._read(how, size))

    async def _read(self, how: str, size: int) -> None:
        unread = self.unread
        assert unread is not None
        response, answer, rest = unread.response, unread.answer, unread.rest
        if how == "close":
            response.close()
            if not answer.is_whole:
                await self.lose(unread.link)
            self.unread = None
            return
        ended = answer.is_whole or answer.over
        wanted = {"read": rest[:size], "readall": rest}.get(how)
        if how == "readline":
            line = rest.partition(b"\n")
            wanted = (line[0] + line[1])[:size]
            if not ended and not line[1] and len(rest) < size:
                return
        if not ended and (
            how == "readall"
            or (how == "read" and len(rest) < size)
            or (how in ("read1", "peek") and not rest)
        ):
            return  # it would wait: see read_waits
        cut = ended and not answer.is_whole
        try:
            if how == "readall":
                got = await response.read()
            else:
                got = await getattr(response, how)(size)
        except IncompleteRead as exc:
            partial = exc.partial
        else:
            partial = None
        if partial is not None:
            assert cut, "a whole body is incomplete"
            assert partial == (rest if how == "readall" else b"")
            unread.at += len(partial)
            return
        assert not (cut and how == "readall"), "a body that was cut is whole"
        if wanted is not None:
            assert got == wanted
        else:
            assert rest.startswith(got)
            assert bool(got) == bool(rest and (size or how == "peek"))
        unread.at += 0 if how == "peek" else len(got)

    @precondition(
        lambda self: self.unread and not self.unread.answer.is_whole and not self.unread.answer.over
    )
    @rule(cause=st.sampled_from(["answer", "cancel", "timeout", "close", "reset"]))
    def read_waits(self, cause: str) -> None:
        self.run(self._read_waits(cause))

    async def _read_waits(self, cause: str) -> None:
        unread = self.unread
        assert unread is not None
        task = asyncio.ensure_future(unread.response.read())
        await turns()
        assert not task.done()
        rest = unread.rest
        if cause == "answer" or (unread.answer.until_eof and cause == "close"):
            while not unread.answer.is_whole:
                await self._serve(unread.link, 9)
            assert await task == unread.rest
            unread.at += len(unread.rest)
            return
        kinds = await self.cut(task, cause, unread.link)
        if cause == "cancel":
            with pytest.raises(kinds):
                await task
            return  # nothing is lost of what had arrived: the next read has it
        with pytest.raises(kinds) as info:
            await task
        if isinstance(info.value, IncompleteRead):
            assert info.value.partial == rest
        if unread.link is self.link:
            self.link = None
        for answer in unread.link.owed:
            answer.over = True
        await self.ended(unread.link.conn)
        self.unread = None

    # ------------------------------------------------------------------- the connection itself

    @rule()
    def close(self) -> None:
        self.run(self._close())

    async def _close(self) -> None:
        unread = self.unread
        own = unread is not None and self.conn._response is unread.response
        self.conn.close()
        if unread is not None and (own or unread.link is self.link):
            self.unread = None
            await self.lose(unread.link)
        await self.over()

    @precondition(lambda self: self.state is IDLE and not self.blocked)
    @rule()
    def connect(self) -> None:
        self.run(self._connect())

    async def _connect(self) -> None:
        if self.link is not None:
            return
        if self.tunnel == "refused":
            with pytest.raises(TunnelError):
                await self.conn.connect()
            self.known += 1
            return
        await self.conn.connect()
        await self.opened()

    @rule(granted=st.booleans())
    def set_tunnel(self, granted: bool) -> None:
        if self.link is not None:
            with pytest.raises(RuntimeError, match="established"):
                self.conn.set_tunnel("origin.test")
            return
        self.conn.set_tunnel("origin.test")
        self.tunnel = "granted" if granted else "refused"

    @rule()
    def detach(self) -> None:
        self.run(self._detach())

    async def _detach(self) -> None:
        if self.link is not None and self.link.upgraded and self.pending is not None:
            return  # a program that has not seen the 101 asks for no transport
        if self.link is None or not self.link.upgraded:
            with pytest.raises(HTTPException):
                self.conn.detach()
            return
        transport, rest = self.conn.detach()
        assert rest == b""
        transport.close()
        link, self.link, self.unread = self.link, None, None
        await turns()
        await self.ended(link.conn)


async def _parts(body: bytes) -> AsyncIterator[bytes]:
    for at in range(len(body)):
        yield body[at : at + 1]
        await asyncio.sleep(0)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_connection_is_what_its_model_is(loop):
    run_machine(ConnectionMachine, loop, examples=25, steps=30)


@pytest.mark.siege
@pytest.mark.parametrize("loop", LOOPS)
def test_a_connection_is_what_its_model_is_for_long(loop):
    run_machine(ConnectionMachine, loop, examples=500, steps=50)
