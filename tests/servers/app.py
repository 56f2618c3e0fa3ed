"""The ASGI application of the tests. The servers' processes load it: it imports nothing of ours.

/app/echo           JSON: what the request was, and its body's length and SHA-256
/app/n/WORD         WORD
/app/chunks?N       N pieces of 1,000 bytes, without a length
/app/slow?SECONDS   "late", that much later
/app/held?NAME      "late", after a request for /app/let?NAME
/app/mirror         the body, piece by piece as it comes
/app/gate           "begun", and "ended" after a request for /app/open
/app/receive        "received"; meanwhile /app/received?N answers when N bytes have come
/app/refuse         413, without a byte of the body read
/app/halfway        413, when a piece of the body has come
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from typing import Any

_let: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
_gate = asyncio.Event()
_received = 0
_arrival = asyncio.Event()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Mirrors ASGI's application."""
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
    else:
        await _respond(scope, receive, send)


async def _respond(scope: Any, receive: Any, send: Any) -> None:
    path = scope["path"].removeprefix("/app/")
    query = scope["query_string"].decode()
    if path.startswith("n/"):
        await _answer(send, 200, path.removeprefix("n/").encode())
    elif path == "echo":
        await _answer(send, 200, await _echo(scope, receive), b"application/json")
    elif path == "slow":
        await asyncio.sleep(float(query))
        await _answer(send, 200, b"late")
    elif path == "held":
        await _let[query].wait()
        await _answer(send, 200, b"late")
    elif path == "let":
        _let[query].set()
        await _answer(send, 200, b"let")
    elif path == "refuse":
        await _answer(send, 413, b"too much")
    elif path == "halfway":
        await receive()
        await _answer(send, 413, b"enough")
    elif path == "chunks":
        pieces = (b"%03d." % (number % 1000) * 250 for number in range(int(query)))
        await _stream(send, _async(pieces))
    elif path == "mirror":
        await _stream(send, _body(receive))
    elif path == "gate":
        await _stream(send, _through_gate())
    elif path == "open":
        _gate.set()
        await _answer(send, 200, b"opened")
    elif path == "receive":
        await _count(receive)
        await _answer(send, 200, b"received")
    elif path == "received":
        while _received < int(query):
            _arrival.clear()
            await _arrival.wait()
        await _answer(send, 200, b"received")
    else:
        await _answer(send, 404, b"not found")


async def _through_gate() -> AsyncIterator[bytes]:
    _gate.clear()
    yield b"begun"
    await _gate.wait()
    yield b"ended"


async def _count(receive: Any) -> None:
    global _received
    _received = 0
    async for piece in _body(receive):
        _received += len(piece)
        _arrival.set()


async def _echo(scope: Any, receive: Any) -> bytes:
    digest, length = hashlib.sha256(), 0
    async for piece in _body(receive):
        digest.update(piece)
        length += len(piece)
    described = {
        "method": scope["method"],
        "query": scope["query_string"].decode(),
        "headers": {name.decode(): value.decode("latin-1") for name, value in scope["headers"]},
        "length": length,
        "sha256": digest.hexdigest(),
    }
    return json.dumps(described).encode()


async def _body(receive: Any) -> AsyncIterator[bytes]:
    """Iterate over the request's body, up to its end or that of its connection."""
    more = True
    while more:
        event = await receive()
        more = event.get("more_body", False)
        yield event.get("body", b"")


async def _async(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def _stream(send: Any, pieces: AsyncIterator[bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    async for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _answer(send: Any, status: int, body: bytes, kind: bytes = b"text/plain") -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
