"""Random responses, to compare the ways in which the protocol receives them.

Most are tidy, because the fast ways take only those: a 200 with a Content-Length, all of it there.
The others have an oddity or several that a fast way must leave to a slower one. ``random_exchange``
draws whatever a server may send; ``wire_responses`` draws responses of which most leave the
connection open, so that others can follow them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from aiohttpconn import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Choice = Callable[[Sequence[Any]], Any]

__all__ = ["TIGHT_LIMITS", "random_exchange", "wire_responses"]

NAMES = (
    *("Content-Length",) * 6,
    *("content-length", "CONTENT-LENGTH", "Content-Length ", "Contentx", "Content-Type"),
    *("Transfer-Encoding", "transfer-encoding", "Connection", "connection", "Proxy-Connection"),
    *("Keep-Alive", "X", "Date", "X y", ""),
)
VALUES = {
    "content-length": ("0", "1", "3", "5", "5", "03", "+5", "5 ", "5,5", "", "9" * 20),
    "transfer-encoding": (*("chunked",) * 5, "Chunked", "identity", "gzip", "chunked, chunked"),
    "connection": ("keep-alive", "Keep-Alive", "close", "keep-alive, close", "x"),
}
OTHER_VALUES = ("", "a", "b c", "\x7f", "\x0b", "\0", "\r", "x" * 30)
BODIES = (
    *(b"", b"a", b"abc", b"abcde", b"abcde", b"abcdef"),
    *(b"3\r\nabc\r\n0\r\n\r\n", b"1\r\na\r\n0\r\nT: x\r\n\r\n", b"3;e\r\nabc\r\n0\r\n\r\nX"),
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
)
USUAL_FIELDS = ("Server: s", "Date: d", "Connection: keep-alive", 'ETag: "1"', "X:", "Y: \xe9")
LENGTH_NAMES = (*("Content-Length",) * 8, "content-length", "CONTENT-LENGTH", "Content-length")
ODD_LINES = (
    *("Connection: close", "connection: keep-alive, close", "Keep-Alive: timeout=5"),
    *("Content-Length: 3", "Transfer-Encoding: chunked", "Content-Length : 3", " folded"),
    *("no colon", "X y: z", ": z", "X: \0", "X: \r", "X: \x7f", "X: \n", "X: a\nY: b"),
)
TIGHT_LIMITS = (
    *(Limits(max_fields=n) for n in range(4)),
    *(Limits(max_line=n) for n in (0, 20, 40, 80)),
    *(Limits(max_head_bytes=n) for n in (0, 30, 100)),
)
"""Limits that many of these responses exceed."""


def random_exchange(choice: Choice) -> tuple[str, bytes]:
    """Return (method, the bytes of its response). *choice* is that of a ``random.Random``."""
    method = choice(("GET",) * 6 + ("HEAD", "POST", "CONNECT", "get"))
    interim = choice((b"",) * 6 + (b"HTTP/1.1 103 Hint\r\nLink: a\r\n\r\n",))
    if choice((True, False)):
        return method, interim + make_tidy_response(choice)
    return method, interim + make_head(choice) + choice(BODIES)


def make_tidy_response(choice: Choice) -> bytes:
    """Return a response that a fast way takes, unless one of a few oddities is in it."""
    body = choice((b"", b"a", b"abc", b"abc", b"abcde"))
    length = choice((len(body),) * 12 + (len(body) + 1, f"0{len(body)}"))
    lines = [choice(USUAL_FIELDS) for _ in range(choice(range(4)))]
    lines.insert(choice(range(len(lines) + 1)), f"{choice(LENGTH_NAMES)}: {length}")
    if choice((True,) + (False,) * 5):
        lines.insert(choice(range(len(lines) + 1)), choice(ODD_LINES))
    status = choice(("200 OK",) * 12 + ("200 Fine", "200", "204 No Content", "404 Not Found"))
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *lines, ""))
    behind = choice((b"",) * 12 + (b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    return head.encode("latin-1") + body + behind


def make_head(choice: Choice) -> bytes:
    """Return a response's head: up to five fields, many of which delimit the body."""
    fields = ""
    for _ in range(choice(range(6))):
        name = choice(NAMES)
        value = choice(VALUES.get(name.lower().strip(), OTHER_VALUES))
        end = choice(("\r\n",) * 12 + ("\n", "\r\n\tfolded\r\n"))
        fields += f"{name}{choice((': ', ': ', ':', ':  '))}{value}{end}"
    version = choice(("HTTP/1.1",) * 12 + ("HTTP/1.0", "HTTP/1.5", "HTTP/2.0"))
    status = choice((200,) * 8 + (201, 204, 304, 404, 100, 102, 101, 999))
    reason = choice((" OK",) * 5 + ("", " ", "  a ", " a\x01b", " \xe9"))
    return f"{version} {status}{reason}\r\n{fields}\r\n".encode("latin-1")


FIELDS_OF_200 = (
    *(b"Server: s\r\n",) * 8,
    *(b"Server: t\r\n", b"", b"Server:  s\r\n", b"server: s\r\n"),
    *(b"Connection: close\r\n", b"Connection: keep-alive\r\n"),
)
CHUNKED_BODIES = (b"0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\nT: x\r\n\r\n")
OTHER_RESPONSES = (
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 Fine\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n folded\r\n\r\nabc",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
)
INTERIM = (b"",) * 30 + (
    b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
)


@st.composite
def wire_responses(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw (method, its response); most have a length, and leave the connection open."""
    method = draw(st.sampled_from(("GET",) * 8 + ("HEAD", "OPTIONS")))
    kind = draw(st.sampled_from(("length",) * 20 + ("chunked", "other")))
    data = draw(st.sampled_from(INTERIM))
    fields = draw(st.sampled_from(FIELDS_OF_200))
    if kind == "length":
        body = draw(st.sampled_from((b"", b"a", b"abc", b"abc", b"x" * 300)))
        length = draw(st.sampled_from((b"%d",) * 6 + (b"%02d",))) % len(body)
        data += b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: " + length + b"\r\n\r\n"
        return method, data if method == "HEAD" else data + body
    if kind == "chunked":
        data += b"HTTP/1.1 200 OK\r\n" + fields + b"Transfer-Encoding: chunked\r\n\r\n"
        return method, data + draw(st.sampled_from(CHUNKED_BODIES))
    return method, data + draw(st.sampled_from(OTHER_RESPONSES))
