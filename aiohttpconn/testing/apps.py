"""serve(): a small HTTP/1.1 server for programs under test, made from a function or a table.

    async with serve({"/name": "Ada", "/old": Reply(status=410)}) as server:
        ...                                         # server.url is http://127.0.0.1:PORT/
        assert [request.target for request in server.requests] == ["/name"]

An exception in a handler, or a request that is not HTTP, fails the test where ``async with`` ends.
Layer: the test kit, on top of ScriptedServer.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ..http11.chunked import ChunkedDecoder
from ..response import make_message
from .connections import CHUNKED, Connection, shown
from .faults import Fault, answer, steps_of
from .messages import Reply, Request
from .servers import ScriptedServer
from .steps import send

if TYPE_CHECKING:
    import os
    import ssl

__all__ = ["AppServer", "Handler", "ReplyLike", "serve"]

REQUEST_LINE = re.compile(r"(\S+) (\S+) (HTTP/1\.[01])")
EXPECTS_CONTINUE = re.compile(rb"(?im)^expect:[ \t]*100-continue[ \t]*\r$")
CLOSES = re.compile(rb"(?im)^connection:.*\bclose\b")

ReplyLike: TypeAlias = Reply | bytes | str
"""A response; bytes and str are the body of a 200."""

Handler: TypeAlias = (
    Callable[[Request], ReplyLike | Awaitable[ReplyLike]]
    | Mapping[str, ReplyLike | Callable[[Request], ReplyLike | Awaitable[ReplyLike]]]
)
"""A function or coroutine function, or a mapping from paths to functions and replies."""


def serve(
    handler: Handler,
    *,
    faults: Sequence[Fault | None] = (),
    tls: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    path: str | os.PathLike[str] | None = None,
) -> AppServer:
    """Return a server that answers each request with the reply that *handler* gives.

    *handler*: a function of the ``Request``, awaited if it is a coroutine function, or a mapping
    from paths to functions and replies; other paths are 404. *faults*: the n-th fault is for the
    responses of the n-th connection, the last one for every further connection; None is no fault,
    and the fault of a ``Reply`` takes precedence. The other arguments are ``ScriptedServer``'s.
    """
    return AppServer(handler, faults=faults, tls=tls, host=host, port=port, path=path)


class AppServer(ScriptedServer):
    """The server of ``serve()``: it keeps connections alive, reads whole requests, knows HEAD.

    ``requests`` holds every ``Request`` that was read, in order; ``handler`` may be replaced.
    """

    def __init__(
        self, handler: Handler, *, faults: Sequence[Fault | None] = (), **keywords: Any
    ) -> None:
        super().__init__(self._converse, **keywords)
        self.handler = handler
        self.requests: list[Request] = []
        self._faults = faults or (None,)

    async def _converse(self, conn: Connection) -> None:
        number = self.conns.index(conn)
        fault = self._faults[min(number, len(self._faults) - 1)]
        if fault is not None and fault.early:
            await answer(fault=fault)(conn)
            return
        while not conn.closed:
            request = await _read(conn, number)
            self.requests.append(request)
            reply = await self._reply(request)
            response = reply.encode(request)
            actual = reply.fault or fault
            for step in [send(response)] if actual is None else steps_of(actual, response):
                await step(conn)
            if CLOSES.search(response, 0, response.index(b"\r\n\r\n")):
                await conn.close()

    async def _reply(self, request: Request) -> Reply:
        handler = self.handler
        found = handler if callable(handler) else handler.get(request.path, NOT_FOUND)
        reply: Any = found(request) if callable(found) else found
        if inspect.isawaitable(reply):
            reply = await reply
        if isinstance(reply, bytes | str):
            return Reply(reply)
        if not isinstance(reply, Reply):
            what = f"{request.method} {request.target}"
            raise TypeError(
                f"a handler must return a Reply, bytes or str, got {reply!r} for {what}"
            )
        return reply


NOT_FOUND = Reply("not found\n", status=404)


async def _read(conn: Connection, number: int) -> Request:
    head = await conn.read_head()
    line, *lines = head[:-4].decode("latin-1").split("\r\n")
    parts = REQUEST_LINE.fullmatch(line)
    if parts is None:
        raise AssertionError(f"the server expected a request, got {shown(head)}")
    if EXPECTS_CONTINUE.search(head):
        await conn.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await conn.read_body(head)
    if CHUNKED.search(head):
        decoder = ChunkedDecoder()
        body, _ = decoder.decode(bytearray(body), 0, len(body))
        if decoder.error is not None:
            raise decoder.error
    fields = (field.partition(":") for field in lines)
    headers = make_message((name, value.strip(" \t")) for name, _, value in fields)
    return Request(parts[1], parts[2], parts[3], headers, body, number)
