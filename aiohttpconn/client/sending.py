"""Sending: one request of a call on its way out: authorized, encoded, on a connection.

A request that a stale connection has lost goes out again from here, with its body from the start
and authorized anew: a nonce, a count or a signature must not be sent twice. Layer: client.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from ..body import SMALL_BODY
from ..hooks import has_run
from ..http11.request_head import encode_fields
from ..http11.semantics import BODILESS_METHODS, BODY_METHODS, DECIDING, SHARING
from ..pool.requests import (
    ADDED,
    encode_small_request,
    exchange,
    exchange_shared,
    exchange_streamed,
    prepare,
)
from .auth.asking import ask
from .auth.schemes import is_fixed

if TYPE_CHECKING:
    from ..pool.connections import ConnectionManager
    from ..pool.requests import SendOptions
    from ..pool.scheduler import OriginPool
    from ..response import HTTPResponse
    from ..upload import OutgoingRequest
    from .auth.schemes import Auth
    from .content.encode import Content
    from .request import Request

__all__ = ["Sending"]

Caller: TypeAlias = Callable[..., Any]
"""Calls a function of the user, named by the first argument, within the call's total time."""


class Sending:
    """A request to *origin*, and what it takes to send it."""

    __slots__ = ("_auth", "_before", "_call", "_content", "_origin", "_request", "head")

    def __init__(
        self,
        request: Request,
        content: Content | None,
        auth: Auth | None,
        origin: OriginPool,
        call: Caller,
    ) -> None:
        self._request = request
        self._content = content
        self._origin = origin
        self._call = call
        # The head that was sent last.
        self.head = b""
        # None if the fields of the first sending are those of any other.
        self._auth: Auth | None = None
        if auth is not None:
            if is_fixed(auth):
                auth.authorize(request)
            else:
                self._auth = auth
                self._before = request.headers.copy()

    async def exchange(
        self, connections: ConnectionManager, send: SendOptions, shares: bool
    ) -> HTTPResponse:
        """Send the request; return its response, whose head is there.

        *shares*: it may go out on a connection that others use at the same time.
        """
        anew = self._auth is not None
        if anew:
            await self._authorize()
        request, content, origin = self._request, self._content, self._origin
        method, target = request.method, request.target
        if method in BODILESS_METHODS:
            body = await self._begin_body()
        else:  # nothing to wait for: no coroutine is made
            body = None if content is None else content.begin()
        fields, names = self._encode_fields()
        if method == "CONNECT" or "upgrade" in names:
            raise ValueError(
                f"{method} {request.url}: CONNECT and Upgrade need their own connection: "
                "client.pool.connection(url)"
            )
        small = body is None or (type(body) is bytes and len(body) <= SMALL_BODY)
        if small and DECIDING.isdisjoint(names):
            data = self._encode(names, fields, body)
            start = exchange_shared if shares and body is None and method in SHARING else exchange
            remake = self._remake if anew else None
            return await start(connections, origin, method, target, data, send, remake=remake)
        length = None if body is None or content is None else content.length
        prepared = prepare(origin, method, target, names, fields, body, length)
        self.head = prepared.head
        again = anew if content is None else content.can_replay
        replay = self._replay if again else None
        return await exchange_streamed(connections, origin, method, target, prepared, send, replay)

    async def _authorize(self) -> None:
        """Have the ``Auth`` authorize the request: the last to see it, it sees what goes out."""
        auth, request = self._auth, self._request
        if auth is None:
            return  # there is only the body to begin again
        request.headers = headers = self._before.copy()
        for name, value in self._implied():
            if name not in headers:
                headers[name] = value
        has_run(
            "authorize",
            await self._call("authorize", partial(ask, auth, auth.authorize), request),
        )

    def _implied(self) -> list[tuple[str, str]]:
        """Return the fields that go out without being given, and that an ``Auth`` may want."""
        implied = [("Host", self._origin.authority)]
        content, request = self._content, self._request
        body = content.body if content is not None else b""
        known = type(body) is bytes and (content is not None or request.method in BODY_METHODS)
        if known and "transfer-encoding" not in request.headers:
            implied.append(("Content-Length", str(len(body))))
        return implied

    async def _begin_body(self) -> Any:
        """Return the body, from its start; None if there is none.

        With a method that usually has no body, one that yields nothing is none: RFC 9112 §6.3
        would have it framed, and some servers refuse a GET with a Transfer-Encoding.
        """
        content, request = self._content, self._request
        if content is None:
            return None
        if request.method not in BODILESS_METHODS or "transfer-encoding" in request.headers:
            return content.begin()
        return await self._call("reading the body", content.begin_unless_empty)

    def _encode_fields(self) -> tuple[str, dict[str, str]]:
        """Return the field lines, and {lower-case name: value}, as ``encode_fields`` does.

        A name with the value "" has no line: it was removed, so the head does not have it either.
        """
        headers = self._request.headers
        pairs = headers.pairs()
        if self._auth is not None:
            # The connection adds these, each in its place.
            implied = self._implied()
            pairs = [pair for pair in pairs if pair not in implied]
        fields, names = encode_fields(pairs)
        if left_out := headers.removed & ADDED:
            names = dict.fromkeys(left_out, "") | names
        return fields, names

    async def _remake(self) -> bytes:
        """Return the same small request once more."""
        await self._authorize()
        body = await self._begin_body()
        fields, names = self._encode_fields()
        return self._encode(names, fields, body)

    def _encode(self, names: dict[str, str], fields: str, body: bytes | None) -> bytes:
        """Return the small request, for one write."""
        request = self._request
        data = encode_small_request(
            self._origin, request.method, request.target, names, fields, body
        )
        self.head = data[: len(data) - len(body)] if body else data
        return data

    async def _replay(self) -> OutgoingRequest:
        """Return the same request once more, with its body from the start."""
        await self._authorize()
        request, content = self._request, self._content
        body = await self._begin_body()
        length = None if body is None or content is None else content.length
        fields, names = self._encode_fields()
        made = prepare(self._origin, request.method, request.target, names, fields, body, length)
        self.head = made.head
        return made
