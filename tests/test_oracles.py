"""Other parsers as judges of ours, on the same bytes: h11 (Python) and httptools (llhttp, C).

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
from hypothesis import assume, event, given
from hypothesis import strategies as st

from aiohttpconn.exceptions import HTTPException
from aiohttpconn.http11.chunked import ChunkedDecoder
from aiohttpconn.http11.framing import response_framing
from aiohttpconn.http11.response_head import parse_response_head

from .support.model import Head, Response
from .support.strategies import FIELDS, MORE, STATUS_LINES, chunked, cuts, mostly

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# What the judges say ---------------------------------------------------------------------------


class Verdict(NamedTuple):
    """A head as a parser reads it; *error* if it refuses it."""

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
        # llhttp leaves the blanks behind a value to its user (RFC 9112 §5.1).
        self.fields.append((name.decode("latin-1"), value.decode("latin-1").rstrip(" \t")))

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

CONTROL = re.compile(r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Reason(NamedTuple):
    """Why a judge and we differ about a head; *example* is one that they differ about."""

    name: str
    why: str
    example: bytes
    applies: Callable[[Head], bool]


def only_head(data: bytes) -> Head:
    return Response(data).heads[0]


def length_is_bad(head: Head) -> bool:
    values = head.members("content-length")
    return any(not re.fullmatch("[0-9]{1,19}", v) for v in values) or len(set(values)) > 1


def codings(head: Head) -> list[str]:
    return head.members("transfer-encoding")


def has_one_chunked(head: Head) -> bool:
    return {*codings(head), ""} == {"chunked", ""}


def has_malformed_line(head: Head) -> bool:
    return any(True for _ in head.dropped())


def has_fold(head: Head) -> bool:
    return any(line[0] in " \t" for line in head.fields)


def has_no_body(head: Head) -> bool:
    return head.status in (101, 204, 304)


HEAD = b"HTTP/1.1 200 OK\r\n%b\r\n\r\n"

MALFORMED = Reason(
    "malformed line",
    "a line that is no field is dropped, unless it names the framing",
    HEAD % b"X-A : v",
    has_malformed_line,
)
CONTROL_IN_VALUE = Reason(
    "control character in a value",
    "RFC 9110 §5.5 leaves all but NUL, CR and LF to the recipient: they mean nothing",
    HEAD % b"X: a\x0bb",
    lambda head: any(map(CONTROL.search, head.fields)),
)
FRAMING_OF_NOTHING = Reason(
    "framing without a body",
    "RFC 9112 §6.3 step 1: of 101, 204 and 304 it is never looked at",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: x\r\n\r\n",
    lambda head: has_no_body(head) and (length_is_bad(head) or bool(codings(head))),
)

CR_AT_END = Reason(
    "CR before a line's end",
    "RFC 9112 §2.2: a bare CR may be replaced by a space",
    HEAD % b"X: a\r",
    lambda head: head.cr_at_end,
)

# They refuse, we take: what servers send, and what can be read past safely.
TAKEN = {
    "h11": [
        CR_AT_END,
        MALFORMED,
        CONTROL_IN_VALUE,
        FRAMING_OF_NOTHING,
        Reason(
            "control character in a reason",
            "taken out: nobody reads a reason but people",
            b"HTTP/1.1 200 a\x0bb\r\n\r\n",
            lambda head: CONTROL.search(head.start) is not None,
        ),
        Reason(
            "identity",
            "RFC 9112 §7 has it no more, some servers do: it means nothing",
            HEAD % b"Transfer-Encoding: identity",
            lambda head: codings(head) == ["identity"],
        ),
        Reason(
            "chunked twice",
            "RFC 9112 §6.1: nobody sends chunks in chunks: it is read, and ends the connection",
            HEAD % b"Transfer-Encoding: chunked, chunked",
            lambda head: has_one_chunked(head) and codings(head) != ["chunked"],
        ),
        Reason(
            "101",
            "whether somebody asked for it, the connection knows, not the head's parser",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            lambda head: head.status == 101,
        ),
    ],
    "llhttp": [
        CR_AT_END,
        MALFORMED,
        CONTROL_IN_VALUE,
        FRAMING_OF_NOTHING,
        Reason(
            "bare LF",
            "RFC 9112 §2.2: a recipient may take a bare LF for a line's end",
            HEAD.replace(b"\r", b"") % b"X: y",
            lambda head: head.bare_lf,
        ),
        Reason(
            "fold",
            "RFC 9112 §5.2: a fold is replaced by a space",
            HEAD % b"X: a\r\n b",
            has_fold,
        ),
        Reason(
            "version",
            "RFC 9110 §2.5: HTTP/1.2 and later are read as HTTP/1.1",
            b"HTTP/1.9 200 OK\r\n\r\n",
            lambda head: head.minor not in ("0", "1"),
        ),
        Reason(
            "equal lengths",
            "RFC 9112 §6.3 step 5: they may be taken for one",
            HEAD % b"Content-Length: 5\r\nContent-Length: 5",
            lambda head: len(head.members("content-length")) > 1 and not length_is_bad(head),
        ),
        Reason(
            "length beside a coding",
            "RFC 9112 §6.3 step 3: the coding wins, and the connection is not used again",
            HEAD % b"Content-Length: 5\r\nTransfer-Encoding: chunked",
            lambda head: bool(head.members("content-length")) and bool(codings(head)),
        ),
    ],
}

VERSION = Reason(
    "another version",
    "a later protocol's response, or an earlier one's, is not read as if it were HTTP/1",
    b"HTTP/2.0 200 OK\r\n\r\n",
    lambda head: re.match(r"HTTP/1\.", head.start) is None,
)
# They take, we refuse.
REFUSED = {
    "h11": [
        VERSION,
        Reason(
            "length of 20 digits",
            "no 64-bit integer holds it",
            HEAD % b"Content-Length: 99999999999999999999",
            lambda head: any(len(v) > 19 for v in head.members("content-length")),
        ),
    ],
    "llhttp": [
        VERSION,
        Reason(
            "coding",
            "RFC 9112 §6.3 step 4, narrowed: only a single chunked can be read",
            HEAD % b"Transfer-Encoding: gzip",
            lambda head: not has_one_chunked(head) and codings(head) not in ([], ["identity"]),
        ),
        Reason(
            "status",
            "RFC 9112 §4: three digits, from 100 on",
            b"HTTP/1.1 099 No\r\n\r\n",
            lambda head: not head.status,
        ),
    ],
}

JUDGES = {"h11": by_h11, "llhttp": by_llhttp}


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Draw a head with its blank line: a usual one, one with an oddity, a spoilt one."""
    end = draw(mostly([b"\r\n"], [b"\n"], 12))
    data = end.join([draw(STATUS_LINES), *draw(st.lists(FIELDS, max_size=4)), b"", b""])
    for _ in range(draw(mostly([0], [1, 2], 3))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=2)) + data[at + draw(st.integers(0, 2)) :]
    match = re.match(rb"[^\n]*\n((?!\r?\n)[^\n]*\n)*\r?\n", data)
    assume(match is not None)
    return match[0]


def judge(name: str, data: bytes) -> str:
    """Compare *name*'s verdict with ours; return what came of it."""
    theirs, ours = JUDGES[name](data), by_us(data)
    head = only_head(data)
    if bool(theirs.error) == bool(ours.error):
        if not theirs.error:
            agree(name, head, theirs, ours)
        return "both refuse" if theirs.error else "both take"
    table = TAKEN if theirs.error else REFUSED
    for reason in table[name]:
        if reason.applies(head):
            return f"only we {'take' if theirs.error else 'refuse'}: {reason.name}"
    raise AssertionError(f"{data!r}: {name} says {theirs}, we say {ours}")


def agree(name: str, head: Head, theirs: Verdict, ours: Verdict) -> None:
    assert ours.status == theirs.status
    if name == "h11":
        # h11 makes one Content-Length of several, and lower case of a coding.
        single = ("content-length", "transfer-encoding")
        theirs, ours = (
            v._replace(fields=[f for f in v.fields if f[0].lower() not in single])
            for v in (theirs, ours)
        )
        if not has_no_body(head):
            assert (ours.length, ours.chunked) == (theirs.length, theirs.chunked)
        if has_fold(head):
            # RFC 9112 §5.2: obs-fold begins with OWS, which h11 leaves before its space. On both
            # sides, for values that have such blanks elsewhere.
            theirs, ours = (
                v._replace(fields=[(n, re.sub(r"[\t ]+ ", " ", value)) for n, value in v.fields])
                for v in (theirs, ours)
            )
    assert ours.fields == theirs.fields


@pytest.mark.parametrize("name", JUDGES)
@MORE
@given(data=heads())
def test_a_judge_and_we_agree_or_say_why(name: str, data: bytes) -> None:
    event(judge(name, data))


def reasons(table: dict[str, list[Reason]]) -> Any:
    pairs = [(name, reason) for name, found in table.items() for reason in found]
    return pytest.mark.parametrize(
        ("name", "reason"), pairs, ids=[f"{name}-{reason.name}" for name, reason in pairs]
    )


@reasons(TAKEN)
def test_what_a_judge_refuses_and_we_take(name: str, reason: Reason) -> None:
    assert JUDGES[name](reason.example).error
    assert not by_us(reason.example).error
    assert reason.applies(only_head(reason.example))


@reasons(REFUSED)
def test_what_a_judge_takes_and_we_refuse(name: str, reason: Reason) -> None:
    assert not JUDGES[name](reason.example).error
    assert by_us(reason.example).error
    assert reason.applies(only_head(reason.example))


@given(data=heads())
def test_strict_takes_nothing_that_h11_refuses(data: bytes) -> None:
    """But for what is no matter of grammar: 101, and the framing of a response without a body."""
    ours, theirs = by_us(data, strict=True), by_h11(data)
    if ours.error:
        event("refused")
        return
    event("taken")
    assert not theirs.error or ours.status in (101, 204, 304), theirs
    # What strict takes, the default reads in the same way.
    assert by_us(data) == ours


# Bodies ----------------------------------------------------------------------------------------


def body_by_h11(coded: bytes) -> tuple[bytes, bool, str]:
    """Return (content, whether it is whole, error) of a chunked body."""
    conn = h11.Connection(h11.CLIENT)
    conn.send(h11.Request(method="GET", target="/", headers=[("Host", "h")]))
    conn.send(h11.EndOfMessage())
    conn.receive_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + coded)
    content = b""
    try:
        while True:
            match conn.next_event():
                case h11.Data(data=data):
                    content += bytes(data)
                case h11.EndOfMessage():
                    return content, True, ""
                case h11.NEED_DATA:
                    return content, False, ""
    except h11.RemoteProtocolError as exc:
        return content, False, str(exc)


def body_by_us(pieces: Sequence[bytes], strict: bool = False) -> tuple[bytes, bool, str]:
    decoder = ChunkedDecoder(strict=strict)
    content = b""
    for piece in pieces:
        data, _ = decoder.decode(bytearray(piece), 0, len(piece))
        content += data
        if decoder.error is not None or decoder.done:
            break
    return content, decoder.done, str(decoder.error or "")


@given(data=st.data(), content=st.binary(max_size=40))
def test_h11_and_we_take_chunks_apart_in_the_same_way(data: st.DataObject, content: bytes) -> None:
    coded = data.draw(chunked(content))
    coded = coded[: data.draw(st.integers(0, len(coded)))] if data.draw(st.booleans()) else coded
    theirs, ours = body_by_h11(coded), body_by_us([coded])
    assert body_by_us(data.draw(cuts(coded))) == ours
    if theirs[2] or ours[2]:
        # Ours ends at the first broken byte, h11's perhaps a line later: what came out before
        # is the same, as far as both went.
        event("one or both refuse")
        assert ours[0].startswith(theirs[0]) or theirs[0].startswith(ours[0])
        assert not (ours[1] and not theirs[2])
    else:
        event("both take")
        assert ours == theirs
