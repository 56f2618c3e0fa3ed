"""Other parsers as judges of ours: h11 (strict, Python) and httptools (llhttp, C) on the same heads.

Where one of them takes a head that we refuse, or refuses one that we take, the reason stands in
a table here. Where we and h11 both take it, the framing is the same; where we and llhttp do, the
fields are.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import h11
import httptools
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from aiohttpconn.exceptions import HTTPException
from aiohttpconn.http11.chunked import ChunkedDecoder
from aiohttpconn.http11.head import parse_response_head, response_framing

from .support import model
from .support.model import Head, Response
from .support.strategies import FIELDS, STATUS_LINES, chunked, cuts, mostly

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# What the judges say ---------------------------------------------------------------------------


class Verdict(NamedTuple):
    """What a parser made of a head; *error* if it refuses it."""

    error: str = ""
    status: int = 0
    fields: list[tuple[str, str]] = []  # noqa: RUF012 - never changed
    length: int | None = None
    chunked: bool = False


def by_us(data: bytes, method: str = "GET", strict: bool = False) -> Verdict:
    try:
        head = parse_response_head(bytearray(data), strict=strict)
        length, is_chunked, _ = response_framing(head, method, strict)
    except HTTPException as exc:
        return Verdict(f"{type(exc).__name__}: {exc}")
    return Verdict("", head.status, head.fields(), length, is_chunked)


def by_h11(data: bytes, method: str = "GET") -> Verdict:
    conn = h11.Connection(h11.CLIENT, max_incomplete_event_size=10**6)
    conn.send(h11.Request(method=method, target="/", headers=[("Host", "h")]))
    conn.send(h11.EndOfMessage())
    conn.receive_data(data)
    try:
        response = conn.next_event()
        assert response is not h11.NEED_DATA, data
    except h11.RemoteProtocolError as exc:
        return Verdict(str(exc))
    fields = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in response.headers.raw_items()]
    # The reader it has chosen for the body tells the framing.
    reader: Any = conn._reader
    kind = type(reader).__name__
    length = getattr(reader, "_length", None) if kind == "ContentLengthReader" else None
    return Verdict("", response.status_code, fields, length, kind == "ChunkedReader")


class Listener:
    def __init__(self) -> None:
        self.fields: list[tuple[str, str]] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.complete = True


def by_llhttp(data: bytes) -> Verdict:
    listener = Listener()
    parser = httptools.HttpResponseParser(listener)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as exc:
        if not listener.complete:
            return Verdict(str(exc))
    if not listener.complete:
        return Verdict("it waits for more")
    return Verdict("", parser.get_status_code(), listener.fields)


# Where they may differ from us -----------------------------------------------------------------


class Reason(NamedTuple):
    """Why a judge and we differ about a head. *example* is one that they differ about."""

    name: str
    why: str
    example: bytes
    applies: Callable[[Head], bool]


def head_of(data: bytes) -> Head:
    return Response(data).heads[0]


def bad_length(head: Head) -> bool:
    values = head.members("content-length")
    return any(not re.fullmatch("[0-9]{1,19}", v) for v in values) or len(set(values)) > 1


def codings(head: Head) -> list[str]:
    return head.members("transfer-encoding")


def has_bare_lf(data: bytes) -> bool:
    return re.search(rb"(?<!\r)\n", data) is not None


def field_lines(head: Head) -> list[str]:
    return [line for line in head.fields if line[0] not in " \t"]


HEAD = b"HTTP/1.1 200 OK\r\n%b\r\n\r\n"

# h11 refuses, we take: what servers send, and what can be read past safely.
WE_FORGIVE = [
    Reason(
        "malformed line",
        "a line that is no field is dropped, unless it names the framing",
        HEAD % b"X-A : v",
        lambda head: any(True for _ in head.dropped()),
    ),
    Reason(
        "control character in a value",
        "harmless but for NUL, CR and LF; RFC 9110 §5.5 leaves it to the recipient",
        HEAD % b"X: a\x0bb",
        lambda head: any(re.search(r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]", f) for f in head.fields),
    ),
    Reason(
        "control character in a reason",
        "taken out: nobody reads a reason but people",
        b"HTTP/1.1 200 a\x0bb\r\n\r\n",
        lambda head: re.search(r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]", head.start) is not None,
    ),
    Reason(
        "identity",
        "RFC 9112 §7 has it no more, some servers have: it means nothing, and is ignored",
        HEAD % b"Transfer-Encoding: identity",
        lambda head: codings(head) == ["identity"],
    ),
    Reason(
        "framing without a body",
        "RFC 9112 §6.3 step 1: of 204 and 304 it is never looked at",
        b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: gzip\r\n\r\n",
        lambda head: head.status in (204, 304) and (bad_length(head) or bool(codings(head))),
    ),
    Reason(
        "status of 6xx and more",
        "RFC 9110 §15 asks to treat it as 5xx, not to refuse it",
        b"HTTP/1.1 999 Denied\r\n\r\n",
        lambda head: head.status >= 600,
    ),
    Reason(
        "fold of a value's blanks",
        "RFC 9112 §5.2: what a fold leaves of an empty value is one",
        HEAD % b"X: a\r\n ",
        lambda head: any(line[0] in " \t" for line in head.fields),
    ),
    Reason(
        "version",
        "RFC 9110 §2.5: HTTP/1.2 and later are read as HTTP/1.1",
        b"HTTP/1.9 200 OK\r\n\r\n",
        lambda head: head.minor not in ("0", "1"),
    ),
    Reason(
        "white space of Unicode",
        "NEL and NBSP are obs-text, half of a UTF-8 character; to h11's \\s some are white space",
        HEAD % b"X: a\x85",
        lambda head: re.search(r"[\x1c-\x1f\x85\xa0]", str(bytes(head), "latin-1")) is not None,
    ),
]

# h11 takes, we refuse.
WE_ARE_STRICTER = [
    Reason(
        "101 unasked",
        "it is the connection that knows that nobody asked",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        lambda head: head.status == 101,
    ),
    Reason(
        "fold on framing",
        "what says where the body ends is not folded",
        HEAD % b"Content-Length:\r\n 5",
        model.has_a_folded_framing_field,
    ),
    Reason(
        "coding of HTTP/1.0",
        "RFC 9112 §6.1: it has none, so the framing is faulty",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        lambda head: head.minor == "0" and bool(codings(head)),
    ),
    Reason(
        "length of 20 digits",
        "no 64-bit integer holds it",
        HEAD % b"Content-Length: 99999999999999999999",
        bad_length,
    ),
]
