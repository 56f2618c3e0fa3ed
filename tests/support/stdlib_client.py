"""The standard library's ``http.client`` without a network: it reads given bytes.

Nothing blocks: after its last byte a peer has closed. ``FakeSocket.starved`` tells that
``http.client`` would wait for ever on a connection that stays open.
"""

from __future__ import annotations

import http.client
import io
from collections import deque
from typing import Any

__all__ = ["FakeSocket", "connection", "response"]


class FakeSocket:
    """A socket whose peer sends *replies*, one per ``makefile()``, and then closes."""

    def __init__(self, *replies: bytes) -> None:
        self._replies = deque(replies)
        self.sent = b""
        self.starved = False
        """Whether a reader has come to the end, and asked for more."""

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Received(self._replies.popleft(), self))

    def sendall(self, data: Any) -> None:
        # Anything but a buffer is a TypeError, as with a real socket: http.client relies on it.
        self.sent += bytes(memoryview(data))

    def setsockopt(self, *args: Any) -> None:
        pass

    def close(self) -> None:
        pass


class _Received(io.RawIOBase):
    def __init__(self, data: bytes, sock: FakeSocket) -> None:
        self._data = io.BytesIO(data)
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = self._data.readinto(buffer)
        if not size:
            self._sock.starved = True
        return size


def connection(sock: FakeSocket, *args: Any, **keywords: Any) -> http.client.HTTPConnection:
    """Return an ``http.client.HTTPConnection(*args, **keywords)`` that connects to *sock*."""
    conn = http.client.HTTPConnection(*args, **keywords)
    conn._create_connection = lambda *_: sock  # type: ignore[attr-defined]
    return conn


def response(data: bytes, method: str = "GET") -> http.client.HTTPResponse:
    """Return the response that ``getresponse()`` makes of *data*, or raise what it raises."""
    conn = connection(FakeSocket(data), "h")
    conn.request(method, "/")
    return conn.getresponse()
