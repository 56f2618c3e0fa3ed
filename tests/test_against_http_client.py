"""The same bytes to ``http.client`` and to us: every difference is listed here, with its reason.

Three kinds of differences, a table for each:

- REFUSED: a response that ``http.client`` takes, or fails at in some other way, and we refuse;
- REWRITES: a response that we read as ``http.client`` reads a tidier one. The rewrite makes that
  tidier one, so that what we see is still compared with what ``http.client`` sees;
- OTHERWISE: what differs while a body is read.

Where none applies, both see the same. Each entry has an example that shows that the difference
is real: what ``http.client`` does, and what we do. Requests are in
``test_requests_against_http_client.py``.
"""

from __future__ import annotations

import http.client
import re
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from aiohttpconn import HTTPConnection
from aiohttpconn.exceptions import (
    BadStatusLine,
    IncompleteRead,
    LineTooLong,
    MalformedResponse,
    RemoteDisconnected,
    UnknownProtocol,
    UnknownTransferEncoding,
)

from .support import model, stdlib_client
from .support.closed_world import ClosedWorld, Peer
from .support.model import Head, Response
from .support.seen import ALL, Read, Seen, by_http_client, by_us, expected_reads, read_all
from .support.strategies import MORE, READS, cuts, responses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Refused ---------------------------------------------------------------------------------------


@dataclass
class Refused:
    """A response that we refuse, and http.client does not: or both do, in different words."""

    name: str
    why: str
    example: bytes
    theirs: object
    error: type[Exception]
    applies: Callable[[Any], bool]
    """Asked of each head; of the last one, given the ``Response``, where it is about framing."""


BAD_FIELDS = [
    Refused(
        "nul in a field",
        "a NUL in a field is how parsers are made to disagree",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nhi",
        ("X", "a\0b"),
        MalformedResponse,
        model.has_nul,
    ),
    Refused(
        "bare CR in a field",
        "RFC 9112 §2.2: a bare CR is no line end, but some parsers take it for one",
        b"HTTP/1.1 200 OK\r\nX: a\rContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi",
        ("Content-Length", "1"),
        MalformedResponse,
        model.has_bare_cr,
    ),
    Refused(
        "fold of nothing",
        "RFC 9112 §2.2: a line of blanks, or a fold, right behind the status line is smuggling",
        b"HTTP/1.1 200 OK\r\n X: y\r\nContent-Length: 2\r\n\r\nhi",
        ("Content-Length", "2"),
        MalformedResponse,
        model.begins_with_a_fold,
    ),
    Refused(
        "framing on a malformed line",
        "where a body ends is never guessed: such a line is neither obeyed nor dropped",
        b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nhi",
        ("body", b"hi"),
        MalformedResponse,
        model.has_framing_on_a_malformed_line,
    ),
]

REFUSED_HEADS = [
    Refused(
        "status line",
        "RFC 9112 §4: HTTP/1.x, three digits; http.client takes what split() and int() take",
        b"HTTP/1.1\t2_0_0 OK\r\nContent-Length: 2\r\n\r\nhi",
        ("status", 200),
        BadStatusLine,
        lambda head: not head.status,
    ),
    *BAD_FIELDS,
]

REFUSED_FRAMING = [
    Refused(
        "101 unasked",
        "RFC 9110 §15.2.2: nobody asked to leave HTTP/1.1, so nobody could read what follows",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        ("status", 101),
        MalformedResponse,
        lambda response: response.head.status == 101,
    ),
    Refused(
        "transfer coding",
        "RFC 9112 §6.3 step 4: only a single chunked can be read",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        ("body", b"2\r\nhi\r\n0\r\n\r\n"),
        UnknownTransferEncoding,
        lambda response: response.framing[1] not in ([], ["chunked"]),
    ),
    Refused(
        "content length",
        "RFC 9110 §8.6: digits; http.client takes what int() takes, and nonsense for no length",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi",
        ("length", 2),
        MalformedResponse,
        lambda response: any(not re.fullmatch("[0-9]{1,19}", v) for v in response.framing[0]),
    ),
    Refused(
        "two lengths",
        "RFC 9112 §6.3 step 5: of two lengths http.client takes the first, some proxy the other",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
        ("body", b"hi"),
        MalformedResponse,
        lambda response: len(set(response.framing[0])) > 1,
    ),
]

UNFINISHED = Refused(
    "unfinished head",
    "a head that ends with the connection was cut off: its fields may be missing",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
    ("status", 200),
    BadStatusLine,
    lambda response: not response.whole,
)

REFUSED = [UNFINISHED, *REFUSED_HEADS, *REFUSED_FRAMING]


def refusals(response: Response) -> list[Refused]:
    """Return the entries of REFUSED that apply. An earlier head's are the only ones."""
    for head in response.heads:
        # Of an unfinished head only the status line is here, and if it is whole, it is judged.
        unfinished = head is response.head and not response.whole
        if unfinished and not head.start:
            return [UNFINISHED]
        found = [entry for entry in REFUSED_HEADS if entry.applies(head)]
        if found or unfinished:
            return found or [UNFINISHED]
    if not response.heads:
        return [UNFINISHED]
    return [entry for entry in REFUSED_FRAMING if entry.applies(response)]


# Rewrites --------------------------------------------------------------------------------------


@dataclass
class Rewrite:
    """How a response is changed so that http.client sees what we see in it.

    Rewrites for fields make the fields that are compared; those for framing come on top, and
    how the body is delimited is compared.
    """

    name: str
    why: str
    example: bytes
    look: str
    theirs: object
    ours: object
    rewrite: Callable[[Response], Head]
    method: str = "GET"


def drop_malformed(response: Response) -> Head:
    dropped = {number for number, _ in response.head.dropped()}
    fields = [line for n, line in enumerate(response.head.fields) if n not in dropped]
    return Head(response.head.start, fields)


def unfold(response: Response) -> Head:
    return Head(response.head.start, response.head.unfolded())


def clean_reason(response: Response) -> Head:
    start = response.head.start
    return replace(response.head, start=start[:13] + Head.CONTROLS.sub("", start[13:]))


def one_length(response: Response) -> Head:
    lengths, _ = response.framing
    if len(lengths) < 2:
        return response.head
    head = response.head.without("content-length")
    return Head(head.start, [*head.fields, f"Content-Length: {lengths[0]}"])


def one_chunked(response: Response) -> Head:
    head = response.head
    if not response.doubtful_coding:
        return head
    if response.framing[1]:
        head = head.without("transfer-encoding")
        head = Head(head.start, [*head.fields, "Transfer-Encoding: chunked"])
    bare = head.without("connection", "keep-alive", "proxy-connection")
    return Head(bare.start, [*bare.fields, "Connection: close"])


def closes_behind_204(response: Response) -> Head:
    head = response.head
    announced = head.values("transfer-encoding") or {*head.values("content-length")} - {"0"}
    if head.status != 204 or not announced:
        return head
    return Head(head.start, [*head.without("connection").fields, "Connection: close"])


def coding_wins(response: Response) -> Head:
    if not response.has_both:
        return response.head
    _, codings = response.framing
    head = response.head.without("content-length" if codings else "transfer-encoding")
    return Head(head.start, [*head.fields, "Connection: close"])


def connection_options(response: Response) -> Head:
    head = response.head
    options = head.members("connection")
    keep = head.minor != "0" or (
        "keep-alive" in options
        or bool(head.values("keep-alive"))
        or "keep-alive" in head.members("proxy-connection")
    )
    said = "close" if "close" in options or not keep else "keep-alive"
    bare = head.without("connection", "keep-alive", "proxy-connection")
    return Head(head.start, [*bare.fields, f"Connection: {said}"])


FIELD_REWRITES = [
    Rewrite(
        "malformed field",
        "email.parser drops every field behind a malformed line, we drop that line",
        b"HTTP/1.1 200 OK\r\nBad Name: x\r\nContent-Length: 2\r\n\r\nhi",
        "fields",
        [],
        [("Content-Length", "2")],
        drop_malformed,
    ),
    Rewrite(
        "name that is no token",
        "RFC 9110 §5.1: email.parser takes more characters in a name than HTTP has",
        b"HTTP/1.1 200 OK\r\nX@Y: z\r\nContent-Length: 0\r\n\r\n",
        "fields",
        [("X@Y", "z"), ("Content-Length", "0")],
        [("Content-Length", "0")],
        drop_malformed,
    ),
    Rewrite(
        "obs-fold",
        "RFC 9112 §5.2: a fold becomes a space; http.client leaves its line end in the value",
        b"HTTP/1.1 200 OK\r\nX: a\r\n\tb\r\nContent-Length: 0\r\n\r\n",
        "fields",
        [("X", "a\r\n\tb"), ("Content-Length", "0")],
        [("X", "a b"), ("Content-Length", "0")],
        unfold,
    ),
    Rewrite(
        "CR before a line's end",
        "RFC 9112 §2.2: it becomes a space; email.parser takes it for the end of all fields",
        b"HTTP/1.1 200 OK\r\nX: a\r\r\nContent-Length: 2\r\n\r\nhi",
        "fields",
        [("X", "a")],
        [("X", "a"), ("Content-Length", "2")],
        # Response takes it off, so that rewriting its last head does it.
        lambda r: r.head,
    ),
    Rewrite(
        "blanks behind a value",
        "RFC 9110 §5.5: blanks around a value are no part of it; http.client keeps those behind it",
        b"HTTP/1.1 200 OK\r\nX: a \t\r\nContent-Length: 0\r\n\r\n",
        "fields",
        [("X", "a \t"), ("Content-Length", "0")],
        [("X", "a"), ("Content-Length", "0")],
        lambda r: Head(r.head.start, [line.rstrip(" \t") for line in r.head.fields]),
    ),
    Rewrite(
        "controls in a reason",
        "control characters in a reason mean nothing, and harm whoever logs them",
        b"HTTP/1.1 200 O\x1b[31mK\r\nContent-Length: 0\r\n\r\n",
        "reason",
        "O\x1b[31mK",
        "O[31mK",
        clean_reason,
    ),
    Rewrite(
        "interim responses",
        "RFC 9110 §15.2: every 1xx but 101 may be skipped; http.client knows 100 only",
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "status",
        103,
        200,
        # Response takes the 1xx heads off, so that rewriting its last head alone does it.
        lambda r: r.head,
    ),
]

FRAMING_REWRITES = [
    # Before those that take one of the two fields away.
    Rewrite(
        "chunked twice",
        "RFC 9112 §6.1: nobody codes chunks in chunks; http.client knows only the first field",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "body",
        b"2\r\nhi\r\n0\r\n\r\n",
        b"hi",
        one_chunked,
    ),
    Rewrite(
        "chunked of HTTP/1.0",
        "RFC 9112 §6.1: both read it as chunked, but we never use such a connection again",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "will_close",
        False,
        True,
        one_chunked,
    ),
    Rewrite(
        "chunked beside a length",
        "RFC 9112 §6.1: both read it as chunked, but we never use such a connection again",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n0\r\n\r\n",
        "will_close",
        False,
        True,
        coding_wins,
    ),
    Rewrite(
        "identity beside a length",
        "RFC 9112 §6.3: the length holds in both, but we never use such a connection again",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nhi",
        "will_close",
        False,
        True,
        coding_wins,
    ),
    Rewrite(
        "list of equal lengths",
        "RFC 9112 §6.3 step 5: equal lengths, in one field or in several, are that length",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nhi",
        "length",
        None,
        2,
        one_length,
    ),
    Rewrite(
        "204 that announces a body",
        "RFC 9110 §8.6: it must not, so one may follow, and we never use such a connection again",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n",
        "will_close",
        False,
        True,
        closes_behind_204,
    ),
    Rewrite(
        "chunked without a body",
        "RFC 9112 §6.3 step 1: 204, 304 and the answer to HEAD have no body to be chunked",
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        "chunked",
        True,
        False,
        lambda r: r.head.without("transfer-encoding") if r.no_body else r.head,
    ),
    Rewrite(
        "blanks behind chunked",
        "blanks around a value are no part of it: http.client takes 'chunked ' for no coding",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked \r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "body",
        b"2\r\nhi\r\n0\r\n\r\n",
        b"hi",
        lambda r: Head(r.head.start, [line.rstrip(" \t") for line in r.head.fields]),
    ),
    Rewrite(
        "connection options",
        "RFC 9110 §7.6.1: Connection is a list; http.client looks for 'close' in the first field",
        b"HTTP/1.1 200 OK\r\nConnection: not-closed\r\nContent-Length: 0\r\n\r\n",
        "will_close",
        True,
        False,
        connection_options,
    ),
    Rewrite(
        "close of HTTP/1.0",
        "RFC 9112 §9.3: close wins; in HTTP/1.0, http.client never looks for it",
        b"HTTP/1.0 200 OK\r\nKeep-Alive: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "will_close",
        False,
        True,
        connection_options,
    ),
]

REWRITES = FIELD_REWRITES + FRAMING_REWRITES


def rewritten(response: Response, rewrites: Sequence[Rewrite]) -> Response:
    for entry in rewrites:
        head = entry.rewrite(response)
        response = Response(bytes(head) + response.rest, response.method)
    return response


# Otherwise -------------------------------------------------------------------------------------


@dataclass
class Otherwise:
    """Compare how a response is read, and the state after it. Both clients do *reads*."""

    name: str
    why: str
    example: bytes
    reads: list[Read]
    look: str
    theirs: object
    ours: object
    method: str = "GET"
    later: Later | None = None

    def their_answers(self) -> list[object]:
        """Return what this Python's http.client may answer."""
        if self.later is None:
            return [self.theirs]
        if sys.version_info >= self.later.since:
            return [self.later.theirs]
        return [self.theirs, self.later.theirs]


@dataclass
class Later:
    """What http.client does from Python *since* on. Older lines may have it from a later patch."""

    since: tuple[int, int, int]
    theirs: object


def chunks(coded: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + coded


CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"
OTHERWISE = [
    Otherwise(
        f"complete at once: {name}",
        "there is nothing to wait for, so no read is needed to set the connection free",
        example,
        [],
        "closed",
        False,
        True,
        method,
    )
    for name, method, example in (
        ("HEAD", "HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("204", "GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("304", "GET", b"HTTP/1.1 304 Not Modified\r\n\r\n"),
        ("Content-Length: 0", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    )
]
OTHERWISE += [
    Otherwise(
        f"short reads: {name}",
        "a truncated body is never taken for a whole one: IncompleteRead is behind what arrived",
        CUT,
        [(name, 4), (name, 4)],
        "reads",
        [b"hel", b""],
        [b"hel", ("IncompleteRead", b"", 2)],
    )
    for name in ("read", "read1", "readinto", "readline")
]
OTHERWISE += [
    Otherwise(
        "bytes of a broken chunk",
        "every byte that arrived is in partial; http.client loses those of the last chunk",
        chunks(b"2\r\nhi\r\n5\r\nthe"),
        ALL,
        "reads",
        [("IncompleteRead", b"hi", None)],
        [("IncompleteRead", b"hithe", 2)],
    ),
    Otherwise(
        "short reads: chunks",
        "what arrived is returned before IncompleteRead is raised, and not thrown away",
        chunks(b"2\r\nhi\r\n5\r\nthe"),
        [("read", 9), ("read", 9)],
        "reads",
        [("IncompleteRead", b"hi", None)],
        [b"hithe", ("IncompleteRead", b"", 2)],
    ),
    Otherwise(
        "close of a broken response",
        "a response that broke off ended its connection: will_close says so once it is known",
        chunks(b"x\r\n"),
        [],
        "will_close",
        False,
        True,
    ),
    Otherwise(
        "limit of readline",
        "io.IOBase.readline counts its limit from each peek on, and returns more than it may",
        chunks(b"1\r\na\r\n3\r\nbcd\r\n0\r\n\r\n"),
        [("readline", 2)],
        "reads",
        [b"abc"],
        [b"ab"],
    ),
    Otherwise(
        "peek beyond the body",
        "peek shows what can be read, and that ends with the body",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP",
        [("peek", 9)],
        "reads",
        [b"hiHTTP"],
        [b"hi"],
    ),
    Otherwise(
        "white space around a reason",
        "str.strip() takes NBSP, and half a UTF-8 character, for white space; HTTP has SP and HTAB",
        b"HTTP/1.1 200 vor\xc3\xa0\r\nContent-Length: 0\r\n\r\n",
        [],
        "reason",
        "vor\xc3",
        "vor\xc3\xa0",
    ),
    Otherwise(
        "line end of a bad status line",
        "BadStatusLine.line is the line, without its line end",
        b"ICY 200 OK\r\n\r\n",
        [],
        "error",
        ("BadStatusLine", "ICY 200 OK\r\n"),
        ("BadStatusLine", "ICY 200 OK"),
    ),
    Otherwise(
        "hundred fields",
        "http.client counts the blank line: its limit of 100 fields is one of 99",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 99 + b"Content-Length: 0\r\n\r\n",
        [],
        "error",
        ("HTTPException", "got more than 100 headers"),
        None,
        later=Later((3, 15, 0), None),
    ),
    Otherwise(
        "head of megabytes",
        "100 lines of 64 KiB are 6.4 MB: a head as a whole has a limit too, 256 KiB",
        b"HTTP/1.1 200 OK\r\n" + (b"X: " + b"y" * 60_000 + b"\r\n") * 5 + b"\r\n",
        [],
        "error",
        None,
        ("LineTooLong", "got more than 262144 bytes when reading the head"),
    ),
    Otherwise(
        "endless interim responses",
        "a peer could send 1xx for ever: 100 of them are enough",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 101 + b"HTTP/1.1 204 No Content\r\n\r\n",
        [],
        "error",
        None,
        ("HTTPException", "got more than 100 interim responses"),
        later=Later((3, 14, 8), ("HTTPException", "got more than 100 interim responses")),
    ),
    Otherwise(
        "endless chunk line",
        "a chunk-size line is framing: what is wrong with it makes the body incomplete",
        chunks(b"2;" + b"x" * 70_000 + b"\r\nhi\r\n0\r\n\r\n"),
        ALL,
        "reads",
        [("LineTooLong", "got more than 65536 bytes when reading chunk size")],
        [("IncompleteRead", b"", None)],
    ),
    Otherwise(
        "body beyond memory",
        "an announced length sizes nothing here; http.client hands it to malloc()",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999\r\n\r\nhi",
        ALL,
        "reads",
        [("OverflowError", "cannot fit 'int' into an index-sized integer")],
        [("IncompleteRead", b"hi", 9999999999999999997)],
        later=Later((3, 14, 8), [("IncompleteRead", b"hi", 9999999999999999997)]),
    ),
]
OTHERWISE += [
    Otherwise(
        f"loose chunks: {name}",
        "RFC 9112 §7.1: where chunks end is never guessed; http.client reads int()'s grammar",
        chunks(coded),
        ALL,
        "reads",
        [theirs],
        [("IncompleteRead", partial, None)],
    )
    for name, coded, theirs, partial in (
        ("sign", b"+2\r\nhi\r\n0\r\n\r\n", b"hi", b""),
        ("0x", b"0x2\r\nhi\r\n0\r\n\r\n", b"hi", b""),
        ("underscore", b"0_2\r\nhi\r\n0\r\n\r\n", b"hi", b""),
        ("leading blank", b" 2\r\nhi\r\n0\r\n\r\n", b"hi", b""),
        ("17 digits", b"00000000000000002\r\nhi\r\n0\r\n\r\n", b"hi", b""),
        ("bare LF", b"2\nhi\r\n0\r\n\r\n", b"hi", b""),
        ("control in extension", b"2;\x01\r\nhi\r\n0\r\n\r\n", b"hi", b""),
        ("no CRLF behind data", b"2\r\nhi!!0\r\n\r\n", b"hi", b"hi"),
        ("cut last line", b"2\r\nhi\r\n0", b"hi", b"hi"),
        ("bare LF behind a trailer", b"2\r\nhi\r\n0\r\nX: y\n\r\n", b"hi", b"hi"),
        ("NUL in a trailer", b"2\r\nhi\r\n0\r\nX: \0\r\n\r\n", b"hi", b"hi"),
    )
]


@pytest.fixture(scope="module")
def world() -> Iterator[ClosedWorld]:
    loop = ClosedWorld()
    yield loop
    loop.close()


# The comparison --------------------------------------------------------------------------------


def compare(theirs: Seen, ours: Seen, *names: str) -> None:
    for name in names:
        assert getattr(ours, name) == getattr(theirs, name), f"{name}: {ours}, not {theirs}"


def is_skipped(head: Head) -> bool:
    """Whether http.client takes *head* for a 100, skips it, and goes on with what follows."""
    try:
        version, status = head.start.split(None, 2)[:2]
        return version.startswith("HTTP/") and int(status) == 100
    except ValueError:
        return False


def check_error(response: Response, theirs: Seen, ours: Seen) -> None:
    """We refused: there must be a reason in the table, or http.client does so too."""
    entries = refusals(response)
    error = ours.error
    # An error of http.client's behind a head that it skips is about another head than ours.
    skipped = bool(response.heads) and is_skipped(response.head)
    assert entries, f"refused without a reason in the table: {error!r}"
    if isinstance(error, UnknownProtocol):
        # Of a later version http.client says the same, if the rest of the line is good to it.
        version = (response.heads[-1].start or response.rest.decode("latin-1")).split(" ")[0]
        assert re.fullmatch(r"HTTP/([2-9]|[1-9][0-9]+)(\.[0-9]+)?", version), error
        assert error.version == version
        if isinstance(theirs.error, UnknownProtocol) and not skipped:
            assert error.version == theirs.error.version
        return
    assert any(isinstance(error, entry.error) for entry in entries), f"{error!r}: {entries}"
    if (
        isinstance(theirs.error, BadStatusLine)
        and entries[0].error is BadStatusLine
        and not skipped
    ):
        assert isinstance(error, type(theirs.error)), f"{error!r}, not {theirs.error!r}"
        if not isinstance(error, RemoteDisconnected):
            # OTHERWISE: "line end of a bad status line".
            assert error.line == (theirs.error.line.rstrip("\r\n") or "''")


def check_body(response: Response, theirs: Seen, ours: Seen, reads: Sequence[Read]) -> None:
    content, whole = response.content()
    expected = list(expected_reads(content, whole, reads))
    last = expected[-1]
    if isinstance(last, IncompleteRead):
        assert ours.reads[:-1] == expected[:-1]
        assert isinstance(ours.body, IncompleteRead), ours.body
        assert ours.body.partial == last.partial
        if isinstance(theirs.body, IncompleteRead) and not response.framing[1]:
            assert ours.body.expected == theirs.body.expected
            assert ours.body.partial == theirs.body.partial
        # OTHERWISE: "short reads", "bytes of a broken chunk", "loose chunks".
    else:
        assert ours.reads == expected
        if whole:
            # OTHERWISE: "limit of readline".
            overrun = response.framing[1] and any(name == "readline" for name, _ in reads)
            assert theirs.reads == expected or (overrun and b"".join(theirs.reads) == content)
            assert theirs.closed_at_end
    assert ours.closed_at_end


def check(
    world: ClosedWorld,
    response: Response,
    reads: Sequence[Read] = ALL,
    pieces: Sequence[bytes] = (),
) -> None:
    """See *response* by both, and find each difference in the tables."""
    ours = by_us(world, response, reads, pieces)
    if ours.error is not None:
        check_error(response, by_http_client(response, ()), ours)
        return
    assert not refusals(response), f"accepted: {ours}"
    tidy = rewritten(response, FIELD_REWRITES)
    theirs = by_http_client(tidy, reads)
    compare(theirs, ours, "status", "version", "fields", "joined")
    # OTHERWISE: "white space around a reason".
    assert ours.reason.strip() == theirs.reason
    framed = rewritten(tidy, FRAMING_REWRITES)
    if framed.data != tidy.data:
        theirs = by_http_client(framed, reads)
    compare(theirs, ours, "chunked", "length")
    # OTHERWISE: "close of a broken response".
    assert ours.will_close == theirs.will_close or (ours.will_close and not framed.content()[1])
    # OTHERWISE: "complete at once".
    assert ours.closed or not theirs.closed
    check_body(framed, theirs, ours, reads)


# Responses of every sort -----------------------------------------------------------------------


@MORE
@given(data=st.data(), response=responses(), reads=READS)
def test_both_see_the_same_but_for_what_is_listed(
    world: ClosedWorld, data: st.DataObject, response: Response, reads: list[Read]
) -> None:
    check(world, response, reads)
    check(world, response, reads, data.draw(cuts(response.data)))
    refused = refusals(response)
    event(f"refused: {refused[0].name}" if refused else "compared")


@pytest.mark.parametrize("start", [b"HTTP/2 100 x", b"HTTP/2 +100", b"HTTP/1.1 0100 x"])
@pytest.mark.parametrize("next_start", [b"HTTP/x 200 OK", b"HTTP/3 200 OK", b"bad"])
def test_a_head_that_only_http_client_takes_for_a_100(
    world: ClosedWorld, start: bytes, next_start: bytes
) -> None:
    check(world, Response(start + b"\r\n\r\n" + next_start + b"\r\n\r\n"))


# Each difference is real -----------------------------------------------------------------------


def shown(what: Any) -> Any:
    """Return *what* with exceptions as tuples: http.client's class, and what it says."""
    if isinstance(what, list):
        return [shown(item) for item in what]
    if not isinstance(what, Exception):
        return what
    kinds = [kind.__name__ for kind in type(what).__mro__]
    name = next((kind for kind in kinds if hasattr(http.client, kind)), kinds[0])
    if isinstance(what, IncompleteRead):
        return name, what.partial, what.expected
    if isinstance(what, BadStatusLine):
        return name, what.line
    # Ours name the request before http.client's text and the phase behind it.
    return name, re.sub(r"^GET http://[^ ]+: | \(waiting for the head, .*$", "", str(what))


def names(entries: Sequence[Any]) -> Any:
    return pytest.mark.parametrize("entry", entries, ids=lambda entry: entry.name)


@names(OTHERWISE)
def test_what_differs_in_reading(world: ClosedWorld, entry: Otherwise) -> None:
    response = Response(entry.example, entry.method)
    theirs = by_http_client(response, entry.reads)
    ours = by_us(world, response, entry.reads)
    assert shown(getattr(theirs, entry.look)) in entry.their_answers()
    assert shown(getattr(ours, entry.look)) == entry.ours


@names(REWRITES)
def test_what_we_read_as_http_client_reads_a_tidier_one(world: ClosedWorld, entry: Rewrite) -> None:
    response = Response(entry.example, entry.method)
    theirs, ours = by_http_client(response), by_us(world, response)
    assert getattr(theirs, entry.look) == entry.theirs
    assert getattr(ours, entry.look) == entry.ours
    tidier = rewritten(response, [entry])
    if entry.rewrite(response) is not response.head:
        assert tidier.data != response.data
    if entry.look != "fields":
        # Fields are compared before the rewrites for framing, which change them.
        assert getattr(by_http_client(tidier), entry.look) == entry.ours
    check(world, response)


@names(REFUSED)
def test_what_we_refuse(world: ClosedWorld, entry: Refused) -> None:
    response = Response(entry.example)
    look, value = entry.theirs
    theirs, ours = by_http_client(response), by_us(world, response)
    assert theirs.error is None
    assert (look, value) in theirs.fields or getattr(theirs, look, None) == value
    assert isinstance(ours.error, entry.error)
    assert entry in refusals(response)
    check(world, response)


def test_what_keeps_http_client_waiting_for_ever(world: ClosedWorld) -> None:
    data = b"HTTP/1.1 200 OK\r\nBad Name: x\r\nContent-Length: 2\r\n\r\nhi"
    sock = stdlib_client.FakeSocket(data)
    theirs = stdlib_client.connection(sock, "h")
    theirs.request("GET", "/")
    assert theirs.getresponse().read() == b"hi"
    assert sock.starved, "it did not read on after the body"
    # The peer stays: a read that waited for it would be a Hang.
    conn = HTTPConnection("h", dialer=Peer(world, [data], end="stay").dial)
    assert world.run(read_all(conn, "GET", ALL)).reads == [b"hi"]


def test_a_finished_response_keeps_its_url_and_says_that_it_has_no_descriptor(
    world: ClosedWorld,
) -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    theirs = stdlib_client.response(data)
    theirs.read()
    with pytest.raises(AttributeError, match="'HTTPResponse' object has no attribute 'url'"):
        theirs.geturl()
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'fileno'"):
        theirs.fileno()

    async def main() -> None:
        async with HTTPConnection("h", 81, dialer=Peer(world, [data]).dial) as conn:
            await conn.request("GET", "/x?y")
            response = await conn.getresponse()
            assert await response.read() == b"hi"
            assert response.geturl() == response.url == "http://h:81/x?y"
            with pytest.raises(ValueError, match="has no socket any more"):
                response.fileno()

    world.run(main())


@pytest.mark.parametrize("hint", range(-1, 9))
def test_both_read_as_many_lines_for_a_hint(world: ClosedWorld, hint: int) -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nab\nc\nde\n"
    read: Read = ("readlines", hint)
    theirs, ours = by_http_client(Response(data), [read]), by_us(world, Response(data), [read])
    assert ours.reads == theirs.reads


@pytest.mark.parametrize("size", [65_536, 65_537])
@pytest.mark.parametrize(
    ("start", "what"), [(b"", "status line"), (b"HTTP/1.1 204 No\r\n", "header line")]
)
def test_both_have_the_same_limit_of_a_line(
    world: ClosedWorld, size: int, start: bytes, what: str
) -> None:
    line = (b"X: " if start else b"HTTP/1.1 204 ").ljust(size - 2, b"x") + b"\r\n"
    response = Response(start + line + b"\r\n")
    theirs, ours = by_http_client(response), by_us(world, response)
    if size > 65_536:
        assert isinstance(theirs.error, LineTooLong)
        assert str(theirs.error) == f"got more than 65536 bytes when reading {what}"
        assert shown(ours.error) == shown(theirs.error)
    else:
        assert (ours.status, ours.fields) == (theirs.status, theirs.fields)
        assert ours.status == 204


# Over real sockets -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [entry for entry in REFUSED + REWRITES + OTHERWISE if len(entry.example) < 1000],
    ids=lambda entry: entry.name,
)
async def test_real_sockets_give_what_the_closed_world_gives(scripted: Any, entry: Any) -> None:
    method = getattr(entry, "method", "GET")
    reads = getattr(entry, "reads", ALL)
    world = ClosedWorld()
    try:
        expected = world.run_beside(lambda: by_us(world, Response(entry.example, method), reads))
    finally:
        world.close()
    async with scripted(entry.example, close=True) as conn:
        seen = await read_all(conn, method, reads)
    for one in (seen, expected):
        one.error, one.reads = shown(one.error), shown(one.reads)
    assert seen == expected
