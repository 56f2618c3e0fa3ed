"""http11/head.py: heads encoded, heads read, and how a body is delimited."""

from __future__ import annotations

import random
import re

import pytest

from aiohttpconn.exceptions import (
    BadStatusLine,
    HeadTooLarge,
    HTTPException,
    InvalidURL,
    LineTooLong,
    MalformedResponse,
    UnknownProtocol,
    UnknownTransferEncoding,
)
from aiohttpconn.http11.framing import response_framing
from aiohttpconn.http11.limits import MAX_LINE, Limits
from aiohttpconn.http11.request_head import encode_fields, encode_request_line
from aiohttpconn.http11.response_head import (
    HeadReader,
    ResponseHead,
    check_status_line,
    match_common_head,
    parse_fields,
    parse_response_head,
    split_fields,
)

from .support import named_deliveries

# Requests


def test_a_request_line():
    assert encode_request_line("GET", "/a?b#c") == "GET /a?b#c"
    assert encode_request_line("m-search", "*") == "m-search *"


@pytest.mark.parametrize(
    ("method", "url", "kind"),
    [
        ("G T", "/", ValueError),
        ("", "/", ValueError),
        ("GET", "/ ", InvalidURL),
        ("GET", "/\r\n", InvalidURL),
        ("GET", "/é", UnicodeEncodeError),
    ],
)
def test_a_request_line_that_may_not_be_sent(method, url, kind):
    with pytest.raises(kind):
        encode_request_line(method, url)


@pytest.mark.parametrize(
    ("headers", "lines", "names"),
    [
        ({}, "", {}),
        ([], "", {}),
        ({"X-A": "1", "x-b": "2"}, "X-A: 1\r\nx-b: 2\r\n", {"x-a": "1", "x-b": "2"}),
        ([("A", "1"), ("A", "2")], "A: 1\r\nA: 2\r\n", {"a": "1, 2"}),
        ([(b"A", b"\xe9"), ("B", 3)], "A: é\r\nB: 3\r\n", {"a": "é", "b": "3"}),
        (iter([("A", "")]), "A: \r\n", {"a": ""}),
        ({"A": "\tb c "}, "A: \tb c \r\n", {"a": "\tb c "}),
        ({"Host": "a:80"}, "Host: a:80\r\n", {"host": "a:80"}),
        ({"Content-Length": 5}, "Content-Length: 5\r\n", {"content-length": "5"}),
        (
            [("Transfer-Encoding", "gzip, chunked")],
            "Transfer-Encoding: gzip, chunked\r\n",
            {"transfer-encoding": "gzip, chunked"},
        ),
    ],
)
def test_fields(headers, lines, names):
    assert encode_fields(headers) == (lines, names)


NOT_SHOWN = "Invalid header value of %s (not shown): it has a control character, %s in position %d"


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"X A": "1"}, "Invalid header name 'X A': it must be a token (RFC 9110 §5.1)"),
        ({"": "1"}, "Invalid header name ''"),
        ({"A": "1\n"}, NOT_SHOWN % ("A", r"'\n'", 1)),
        ({"A": "\n"}, NOT_SHOWN % ("A", r"'\n'", 0)),
        (
            {"A": "1", "B": "\r"},
            NOT_SHOWN % ("B", r"'\r'", 0),
        ),
        (
            {"A": "1\r\nB: 2", "C": "3"},
            NOT_SHOWN % ("A", r"'\r'", 1),
        ),
        (
            {"A": "1\n2", "B": "3\n4"},
            NOT_SHOWN % ("A", r"'\n'", 1),
        ),
        ({"A": "\0"}, NOT_SHOWN % ("A", r"'\x00'", 0)),
        ({"A": b"\x7f"}, NOT_SHOWN % ("A", r"'\x7f'", 0)),
        ([("Host", "a"), ("HOST", "a")], "HOST is given twice: 'a' and 'a'"),
        (
            [("Content-Length", "1"), ("content-length", 1)],
            "content-length is given twice: '1' and '1'",
        ),
        (
            [("Transfer-Encoding", "chunked"), ("Transfer-encoding", "x")],
            "Transfer-encoding is given twice: 'chunked' and 'x'",
        ),
        (
            {"Content-Length": "1", "Transfer-Encoding": "chunked"},
            "Content-Length and Transfer-Encoding are both given (RFC 9112 §6.2)",
        ),
        ({"Content-Length": "+1"}, "Content-Length must be digits, got '+1'"),
        ({"Content-Length": "1_0"}, "Content-Length must be digits, got '1_0'"),
        ({"Content-Length": "-1"}, "Content-Length must be digits, got '-1'"),
        ({"Content-Length": -1}, "Content-Length must be digits, got '-1'"),
        ({"Host": "a@b"}, "not a value for Host (host or host:port): '***@b'"),
        ({"Host": "a b"}, "not a value for Host (host or host:port): 'a b'"),
    ],
)
def test_fields_that_may_not_be_sent(headers, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        encode_fields(headers)


def test_fields_of_other_types():
    with pytest.raises(TypeError, match="the value of A must be str, bytes or int, not NoneType"):
        encode_fields({"A": None})
    with pytest.raises(TypeError, match="a header name must be str or bytes, not int"):
        encode_fields({1: "a"})
    with pytest.raises(UnicodeEncodeError):
        encode_fields({"A": "€"})


# HeadReader: a head in pieces


STATUS = b"HTTP/1.1 200 OK\r\n"
HEAD = STATUS + b"Content-Length: 5\r\nX-A: v\r\n\r\n"
LF_HEAD = HEAD.replace(b"\r\n", b"\n")


def read(pieces, limits=Limits(), used=0):  # noqa: B008 - a frozen default
    """Feed *pieces*; return (length, buffer) as soon as the head is whole."""
    reader = HeadReader(limits, used)
    for piece in pieces:
        if length := reader.feed(piece):
            return length, bytes(reader.buffer)
    return 0, bytes(reader.buffer)


def every_split(data: bytes) -> list[list[bytes]]:
    """Return *data* whole, byte by byte, and cut in two at every byte."""
    bytewise = [data[i : i + 1] for i in range(len(data))]
    return [[data], bytewise, *([data[:i], data[i:]] for i in range(1, len(data)))]


@pytest.mark.parametrize("head", [HEAD, LF_HEAD, STATUS + b"\r\n", STATUS + b"A: b\n\r\n"])
def test_a_head_is_found_however_it_is_delivered(head):
    for pieces in every_split(head):
        assert read(pieces) == (len(head), head)
    # What follows is kept, and is not looked at.
    for pieces in every_split(head + b"\r\n\r\nbody"):
        length, buffer = read(pieces)
        assert length == len(head)
        assert (head + b"\r\n\r\nbody").startswith(buffer)


def test_a_head_that_is_not_whole_is_waited_for():
    for end in range(len(HEAD)):
        assert read([HEAD[:end]]) == (0, HEAD[:end])


def test_a_bad_status_line_is_told_before_the_head_is_whole():
    with pytest.raises(BadStatusLine, match="nonsense"):
        HeadReader().feed(b"nonsense\r\n")
    with pytest.raises(UnknownProtocol, match=r"HTTP/2\.0"):
        HeadReader().feed(b"HTTP/2.0 200 OK\r\n")


LINE_LIMIT = Limits(max_line=32)


@pytest.mark.parametrize(
    ("before", "where"), [(b"", "status line"), (STATUS, "header line"), (HEAD[:-2], "header line")]
)
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_the_length_of_a_line_is_limited_exactly(before, where, end):
    start = b"HTTP/1.1 200 " if not before else b"A: "
    fits = before + start + b"x" * (32 - len(start) - len(end)) + end + b"\r\n"
    over = before + start + b"x" * (33 - len(start) - len(end)) + end + b"\r\n"
    for pieces in every_split(fits):
        assert read(pieces, LINE_LIMIT)[0] == len(fits)
    for pieces in every_split(over):
        with pytest.raises(
            HeadTooLarge, match=f"^got more than 32 bytes when reading {where}$"
        ) as caught:
            read(pieces, LINE_LIMIT)
        assert isinstance(caught.value, LineTooLong)


def test_a_line_without_an_end_is_limited_as_soon_as_it_is_too_long():
    reader = HeadReader(LINE_LIMIT)
    assert reader.feed(STATUS) == 0
    assert reader.feed(b"x" * 32) == 0
    with pytest.raises(HeadTooLarge, match="got more than 32 bytes when reading header line"):
        reader.feed(b"x")


def test_the_default_limit_of_a_line_is_http_clients():
    fits = STATUS + b"A: " + b"x" * (65536 - 5) + b"\r\n\r\n"
    assert read([fits])[0] == len(fits)
    with pytest.raises(HeadTooLarge, match="got more than 65536 bytes when reading header line"):
        read([STATUS + b"A: " + b"x" * (65536 - 4) + b"\r\n\r\n"])
    with pytest.raises(HeadTooLarge, match="got more than 65536 bytes when reading status line"):
        read([b"HTTP/1.1 200 " + b"x" * 65536])


@pytest.mark.parametrize("limit", [0, 1, 3, 100])
def test_the_number_of_fields_is_limited_exactly(limit):
    limits = Limits(max_fields=limit)
    fits = STATUS + b"A: b\r\n" * limit + b"\r\n"
    over = STATUS + b"A: b\r\n" * (limit + 1) + b"\r\n"
    for _, pieces in named_deliveries(fits):
        assert read(pieces, limits)[0] == len(fits)
    for _, pieces in named_deliveries(over):
        with pytest.raises(HTTPException, match=f"^got more than {limit} headers$"):
            read(pieces, limits)


def test_the_default_number_of_fields_is_http_clients():
    assert Limits().max_fields == 100


def test_dropped_and_folded_lines_count_as_fields():
    limits = Limits(max_fields=2)
    with pytest.raises(HTTPException, match="got more than 2 headers"):
        read([STATUS + b"A: b\r\n c\r\nnonsense\r\n\r\n"], limits)


@pytest.mark.parametrize("used", [0, 50])
def test_the_size_of_a_head_is_limited_exactly(used):
    fits = Limits(max_head_bytes=len(HEAD) + used)
    over = Limits(max_head_bytes=len(HEAD) + used - 1)
    for pieces in every_split(HEAD):
        assert read(pieces, fits, used)[0] == len(HEAD)
        with pytest.raises(
            HeadTooLarge, match=f"^got more than {over.max_head_bytes} bytes when reading the head$"
        ):
            read(pieces, over, used)


def test_a_head_without_an_end_is_limited_as_soon_as_it_is_too_long():
    reader = HeadReader(Limits(max_fields=10**6))
    reader.feed(STATUS)
    fed = len(STATUS)
    with pytest.raises(HeadTooLarge, match="got more than 262144 bytes when reading the head"):
        while True:
            assert fed <= 262144
            fed += 6
            reader.feed(b"A: b\r\n")


def test_every_byte_is_looked_at_once(monkeypatch):
    scanned = 0

    class Counting(bytearray):
        def find(self, sub, start=0):
            nonlocal scanned
            at = super().find(sub, start)
            scanned += (at + 1 if at >= 0 else len(self)) - start
            return at

    reader = HeadReader()
    reader.buffer = Counting()
    head = STATUS + b"A: " + b"x" * 5000 + b"\r\nB: y\r\n\r\n"
    for i in range(len(head)):
        reader.feed(head[i : i + 1])
    assert scanned <= len(head) + 3


# parse_response_head


def test_a_head_that_follows_the_grammar_is_kept_as_it_is():
    for strict in (False, True):
        assert parse_response_head(HEAD, strict=strict) == ResponseHead(
            11, 200, "OK", HEAD.decode()
        )


@pytest.mark.parametrize(
    ("wire", "version", "status", "reason"),
    [
        (b"HTTP/1.0 404 Not Found\r\n", 10, 404, "Not Found"),
        (b"HTTP/1.1 200\r\n", 11, 200, ""),
        (b"HTTP/1.1 200 \r\n", 11, 200, ""),
        (b"HTTP/1.1 200   OK \t\r\n", 11, 200, "OK"),
        (b"HTTP/1.9 999 \xc3\xa9\r\n", 11, 999, "\xc3\xa9"),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_status_lines(wire, version, status, reason, strict):
    head = parse_response_head(wire + b"\r\n", strict=strict)
    assert head[:3] == (version, status, reason)


def test_control_characters_in_a_reason_are_taken_out():
    head = parse_response_head(b"HTTP/1.1 200 a\x01\x0b\x1b\x7fb\r\nX: y\r\n\r\n")
    assert (head.reason, head.text) == ("ab", "HTTP/1.1 200 ab\r\nX: y\r\n\r\n")
    with pytest.raises(MalformedResponse, match=r"bad line end or reason in b'HTTP/1\.1 200 a"):
        parse_response_head(b"HTTP/1.1 200 a\x01b\r\n\r\n", strict=True)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\r\n", "OK"),
        (b"HTTP/1.1 200\r\r\r\n", ""),
        (b"HTTP/1.1 200 \x1bA\r\r\n", "A"),
    ],
)
def test_a_cr_before_the_end_of_a_status_line_is_a_space(line, reason):
    head = parse_response_head(line + b"\r\n")
    assert head[:3] == (11, 200, reason)
    with pytest.raises(MalformedResponse, match=r"bad line end or reason in b'HTTP/1\.1 200"):
        parse_response_head(line + b"\r\n", strict=True)


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1\x01 200 OK\r\n",
        b"HTTP/1.1 2\x0100 OK\r\n",
        b"HTTP/1.1 20\x01 OK\r\n",
        b"HTTP/1.1 200\x01OK\r\n",
        b"HTTP/1.1 200 O\rK\r\n",
        b"HTTP/1.1 200 O\0K\r\n",
        b"\x01HTTP/1.1 200 OK\r\n",
    ],
)
def test_control_characters_elsewhere_in_a_status_line(line):
    with pytest.raises(BadStatusLine):
        check_status_line(line)


@pytest.mark.parametrize(
    ("line", "version"),
    [
        (b"HTTP/2 200 OK\r\n", "HTTP/2"),
        (b"HTTP/2.0 200 OK\r\n", "HTTP/2.0"),
        (b"HTTP/3.1 200\r\n", "HTTP/3.1"),
        (b"HTTP/10.0 200 OK\r\n", "HTTP/10.0"),
    ],
)
def test_other_versions(line, version):
    with pytest.raises(UnknownProtocol) as caught:
        check_status_line(line)
    assert caught.value.version == version


@pytest.mark.parametrize(
    "line", [b"\r\n", b"\n", b"HTTP/0.9 200 OK\r\n", b"HTTP/1.1\r\n", b"x\r\n"]
)
def test_what_is_no_status_line(line):
    with pytest.raises(BadStatusLine) as caught:
        check_status_line(line)
    assert caught.value.line == (line.decode().strip("\r\n") or "''")


LENIENT = {
    "bare-lf": (b"A: b\nC: d\n\n", [("A", "b"), ("C", "d")]),
    "bare-lf-mixed": (b"A: b\r\nC: d\n\r\n", [("A", "b"), ("C", "d")]),
    "fold": (b"A: b\r\n c\r\n\r\n", [("A", "b c")]),
    "fold-with-a-tab": (b"A: b \r\n\t c \r\n\r\n", [("A", "b c")]),
    "folds": (b"A: b\r\n c\r\n d\r\nE: f\r\n\r\n", [("A", "b c d"), ("E", "f")]),
    "fold-of-an-empty-value": (b"A:\r\n b\r\n\r\n", [("A", "b")]),
    "fold-of-blanks": (b"A: b\r\n \t\r\nC: d\r\n\r\n", [("A", "b"), ("C", "d")]),
    "fold-with-a-colon": (b"A: b\r\n C: d\r\n\r\n", [("A", "b C: d")]),
    "blank-before-colon": (b"A : b\r\nC: d\r\n\r\n", [("C", "d")]),
    "blank-in-a-name": (b"A: b\r\nC D: e\r\n\r\n", [("A", "b")]),
    "no-colon": (b"A\r\nC: d\r\n\r\n", [("C", "d")]),
    "no-name": (b": b\r\nC: d\r\n\r\n", [("C", "d")]),
    "fold-of-a-dropped-line": (b"A b\r\n c\r\n d: e\r\nF: g\r\n\r\n", [("F", "g")]),
    "odd-name": (b"A\xe9: b\r\nC(: d\r\nE: f\r\n\r\n", [("E", "f")]),
    "control-characters": (b"A: b\x01\x0b\x0c\x1c\x7fc\r\n\r\n", [("A", "b\x01\x0b\x0c\x1c\x7fc")]),
    "only-dropped-lines": (b"nonsense\r\n\r\n", []),
    "fold-that-looks-like-framing": (
        b"A: b\r\n Content-Length: 5\r\n\r\n",
        [("A", "b Content-Length: 5")],
    ),
    "fold-of-a-length": (b"Content-Length:\r\n 5\r\n\r\n", [("Content-Length", "5")]),
    "fold-in-a-length": (b"Content-Length: 1\r\n 5\r\n\r\n", [("Content-Length", "1 5")]),
    "fold-of-a-coding": (
        b"Transfer-Encoding: gzip,\r\n\tchunked\r\n\r\n",
        [("Transfer-Encoding", "gzip, chunked")],
    ),
    "fold-of-connection": (b"Connection:\r\n   close\r\n\r\n", [("Connection", "close")]),
    "cr-before-a-lines-end": (b"A: b\r\r\nC: d\r\r\r\n\r\n", [("A", "b"), ("C", "d")]),
    "cr-before-the-end-of-an-empty-value": (b"A:\r\r\n\r\n", [("A", "")]),
    "cr-before-the-end-of-a-fold": (b"A: b\r\r\n c\r\r\n\r\n", [("A", "b c")]),
    "cr-before-the-end-of-a-length": (b"Content-Length: 5\r\r\n\r\n", [("Content-Length", "5")]),
}


@pytest.mark.parametrize("name", LENIENT)
def test_what_servers_are_known_to_send_is_put_right(name):
    wire, fields = LENIENT[name]
    head = parse_response_head(STATUS + wire)
    assert head.fields() == fields
    assert head.text.startswith("HTTP/1.1 200 OK\r\n")
    assert head.text.endswith("\r\n\r\n")
    assert head.text.count("\n") == len(fields) + 2
    with pytest.raises(MalformedResponse):
        parse_response_head(STATUS + wire, strict=True)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("wire", "text"),
    [
        (b"A: b\0c\r\n\r\n", "a NUL byte in the head"),
        (b"A\0 b\r\n\r\n", "a NUL byte in the head"),
        (b"A: b\rc\r\n\r\n", "a CR inside a line in the response's head: b'A: b\\rc'"),
        (b"A: b\r c\r\r\n\r\n", "a CR inside a line in the response's head: b'A: b\\r c\\r'"),
        (b"A: b\r\n\r\r\n\r\n", "a CR inside a line in the response's head: b'\\r'"),
        (b"\rA: b\r\n\r\n", "a CR inside a line in the response's head: b'\\rA: b'"),
        (b" A: b\r\n\r\n", "a line that starts with a blank in the response's head: b' A: b'"),
        (b"\t\r\n\r\n", "a line that starts with a blank in the response's head: b'\\t'"),
    ],
)
def test_what_is_refused_in_a_head(wire, text, strict):
    with pytest.raises(MalformedResponse, match=re.escape(text)):
        parse_response_head(STATUS + wire, strict=strict)


@pytest.mark.parametrize(
    "line",
    [
        b"Content-Length : 5",
        b"Content-Length\t: 5",
        b"Content-Length 5",
        b"content-length",
        b"Content-Length\xa0: 5",
        b"X Content-Length: 5",
        b"(Content-Length): 5",
        b"Transfer-Encoding : chunked",
        b"TRANSFER-ENCODING chunked",
        b"\xffTransfer-Encoding: chunked",
        b"nonsense\r\n Content-Length: 5",
        b"nonsense\r\n\tTransfer-Encoding: chunked",
    ],
)
def test_a_line_that_might_frame_the_body_is_never_guessed_at(line):
    for wire in (line + b"\r\n\r\n", b"A: b\r\n" + line + b"\r\n\r\n"):
        for data in (wire, wire.replace(b"\r\n", b"\n")):
            with pytest.raises(MalformedResponse, match="in the response's head"):
                parse_response_head(STATUS + data)


def test_a_quoted_line_is_cut():
    with pytest.raises(MalformedResponse, match=r"head: b'a b{98}'\.\.\. \(60002 bytes\)$"):
        parse_response_head(STATUS + b"a " + b"b" * 60000 + b"\r\n\r\n", strict=True)


def test_split_fields_strips_blanks_and_nothing_else():
    text = "A:b\r\nC: \t d e \t\r\nF:\r\nG: \xa0h\x85\r\nI: j:k\r\n"
    assert split_fields(text) == [
        ("A", "b"),
        ("C", "d e"),
        ("F", ""),
        ("G", "\xa0h\x85"),
        ("I", "j:k"),
    ]


def test_what_is_put_right_stays_so():
    for wire, fields in LENIENT.values():
        text = parse_fields(wire.decode("latin-1"), 0, False)
        assert split_fields(text) == fields
        assert parse_fields(text + "\r\n", 0, False) == text


FOLDED = {
    "connection": ("Connection:\r\n   close", "Content-Length: 5", (5, False, True)),
    "connection-in-a-list": ("Connection: x,\r\n\tCLOSE", "Content-Length: 5", (5, False, True)),
    "length": ("Content-Length:\r\n 5", "A: b", (5, False, False)),
    "coding": ("Transfer-Encoding:\r\n\t chunked", "A: b", (None, True, False)),
    "framing-inside-a-value": (
        "A: b\r\n Content-Length: 7",
        "Content-Length: 5",
        (5, False, False),
    ),
}


@pytest.mark.parametrize("name", FOLDED)
def test_a_fold_on_any_field_is_one_space(name):
    line, other, expected = FOLDED[name]
    assert framing(line, other) == framing(other, line) == expected
    with pytest.raises(MalformedResponse, match="a line that starts with a blank"):
        framing(line, other, strict=True)


def test_a_fold_does_not_join_the_digits_of_a_length():
    with pytest.raises(MalformedResponse, match="must be 1 to 19 digits, got '1 5'"):
        framing("Content-Length: 1\r\n 5")


# response_framing: RFC 9112 §6.3, by its steps

LENGTH, CHUNKED, UNTIL_END = (5, False, False), (None, True, False), (None, False, True)
NOTHING = (0, False, False)


def framing(*lines: str, status=200, version="1.1", method="GET", strict=False):
    wire = f"HTTP/{version} {status} X\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\n"
    head = parse_response_head(wire.encode("latin-1"), strict=strict)
    return response_framing(head, method, strict)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Content-Length: 5",),
        ("Transfer-Encoding: chunked",),
        ("Transfer-Encoding: nonsense",),
        ("Content-Length: nonsense",),
        ("Content-Length: 1", "Content-Length: 2"),
    ],
)
def test_step_1_no_content_whatever_the_fields_say(lines, strict):
    for status in (100, 103, 199, 304):
        assert framing(*lines, status=status, strict=strict) == NOTHING
    # What announces a body behind a 204 may send one.
    assert framing(*lines, status=204, strict=strict) == (0, False, bool(lines))
    for status in (200, 404, 500):
        assert framing(*lines, status=status, method="HEAD", strict=strict) == NOTHING


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("coding", ["chunked", "identity", "nonsense"])
def test_step_1_both_framing_fields_cost_the_connection_even_without_content(coding, strict):
    lines = ("Content-Length: 1", f"Transfer-Encoding: {coding}")
    for status in (204, 304):
        assert framing(*lines, status=status, strict=strict) == (0, False, True)
    for status in (200, 404):
        assert framing(*lines, status=status, method="HEAD", strict=strict) == (0, False, True)


@pytest.mark.parametrize("lines", [("Content-Length: 5",), ("Transfer-Encoding: gzip",)])
def test_step_2_connect_is_a_tunnel(lines):
    assert framing(*lines, status=200, method="CONNECT") == NOTHING
    assert framing(*lines, status=299, method="CONNECT") == NOTHING
    assert framing("Content-Length: 5", status=407, method="CONNECT") == LENGTH


@pytest.mark.parametrize("value", ["chunked", "Chunked", "CHUNKED", " chunked\t"])
def test_step_3_chunked(value):
    assert framing(f"Transfer-Encoding:{value}") == CHUNKED


def test_step_3_chunked_beside_a_length():
    lines = ("Content-Length: 5", "Transfer-Encoding: chunked")
    for order in (lines, lines[::-1]):
        assert framing(*order) == (None, True, True)
        with pytest.raises(
            MalformedResponse, match=r"^Content-Length and Transfer-Encoding in one response$"
        ):
            framing(*order, strict=True)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        (["gzip"], "gzip"),
        (["gzip, chunked"], "gzip, chunked"),
        (["gzip", "chunked"], "gzip, chunked"),
        (["chunked", "gzip"], "chunked, gzip"),
        (["identity, chunked"], "identity, chunked"),
        (["chunked, identity"], "chunked, identity"),
        (["xchunked"], "xchunked"),
        (["chunkedx"], "chunkedx"),
        (["chunked;q=1"], "chunked;q=1"),
        (['"chunked"'], '"chunked"'),
        (["\xa0chunked"], "\xa0chunked"),
        ([""], ""),
        ([","], ", "),
        (["identity", "identity"], "identity, identity"),
        (["chunked", "chunked", "gzip"], "chunked, chunked, gzip"),
    ],
)
def test_step_4_any_other_coding(lines, shown, strict):
    for more in ([], ["Content-Length: 5"]):
        with pytest.raises(UnknownTransferEncoding) as caught:
            framing(*[f"Transfer-Encoding: {line}" for line in lines], *more, strict=strict)
        assert str(caught.value) == f"cannot read Transfer-Encoding: {shown}"


ONE_CHUNKED_IN_DOUBT = [
    ("1.1", ["chunked, chunked"], "chunked, chunked"),
    ("1.1", ["chunked", "Chunked"], "chunked, chunked"),
    ("1.1", ["chunked,\r\n chunked"], "chunked, chunked"),
    ("1.1", ["chunked,"], "chunked, "),
    ("1.1", [",chunked"], ", chunked"),
    ("1.1", ["", "chunked"], ", chunked"),
    ("1.0", ["chunked"], "chunked in an HTTP/1.0 response"),
    ("1.0", ["chunked", "chunked"], "chunked, chunked in an HTTP/1.0 response"),
]


@pytest.mark.parametrize("more", [[], ["Content-Length: 5"], ["Connection: keep-alive"]])
@pytest.mark.parametrize(("version", "lines", "shown"), ONE_CHUNKED_IN_DOUBT)
def test_step_4_one_chunked_in_doubt_is_read_and_never_reused(version, lines, shown, more):
    fields = [*(f"Transfer-Encoding: {line}" for line in lines), *more]
    for order in (fields, fields[::-1]):
        assert framing(*order, version=version) == (None, True, True)
    strictly = [line.replace("\r\n", "") for line in fields]
    with pytest.raises(UnknownTransferEncoding) as caught:
        framing(*strictly, version=version, strict=True)
    assert str(caught.value) == f"cannot read Transfer-Encoding: {shown}"


def test_step_4_a_coding_of_http_1_0_costs_the_connection_even_without_content():
    for lines in (["Transfer-Encoding: chunked"], ["Transfer-Encoding: gzip"]):
        for more in ([], ["Connection: keep-alive"]):
            assert framing(*lines, *more, version="1.0", method="HEAD") == (0, False, True)
            assert framing(*lines, *more, version="1.0", status=304) == (0, False, True)
    with pytest.raises(UnknownTransferEncoding, match=r"gzip in an HTTP/1.0 response$"):
        framing("Transfer-Encoding: gzip", version="1.0")


def test_identity_is_ignored_unless_strict():
    # A response with both is never followed by another on its connection.
    assert framing("Transfer-Encoding: identity", "Content-Length: 5") == (5, False, True)
    assert framing("Content-Length: 5", "Transfer-Encoding:\r\n identity") == (5, False, True)
    assert framing("Transfer-Encoding: Identity") == UNTIL_END
    with pytest.raises(UnknownTransferEncoding, match=r"^cannot read Transfer-Encoding: identity$"):
        framing("Transfer-Encoding: identity", strict=True)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "value", ["", "+5", "-5", "5_0", "0x5", "5 5", "5.0", "\xb2", "\xa05", "1" * 20, "five", ";5"]
)
def test_step_5_a_length_that_is_none(value, strict):
    with pytest.raises(MalformedResponse) as caught:
        framing(f"Content-Length: {value}", strict=strict)
    assert str(caught.value) == f"Content-Length must be 1 to 19 digits, got {value!r}"


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        (["1", "2"], "'1, 2'"),
        (["1", "1", "2"], "'1, 1, 2'"),
        (["42, 30"], "'42, 30'"),
        (["042,42"], "'042, 42'"),
        (["5, 5", "6"], "'5, 5, 6'"),
        (["5,"], "'5, '"),
    ],
)
def test_step_5_lengths_that_differ(lines, shown, strict):
    with pytest.raises(MalformedResponse) as caught:
        framing(*[f"Content-Length: {line}" for line in lines], strict=strict)
    assert str(caught.value) == f"more than one Content-Length: {shown}"


@pytest.mark.parametrize("lines", [["5", "5"], ["5, 5"], ["5 ,\t5", " 5"], ["5", "5", "5"]])
def test_step_5_equal_lengths_count_as_one_unless_strict(lines):
    fields = [f"Content-Length: {line}" for line in lines]
    assert framing(*fields) == LENGTH
    with pytest.raises(MalformedResponse, match=r"^more than one Content-Length: '5, 5"):
        framing(*fields, strict=True)


def test_step_5_equal_nonsense_is_nonsense():
    with pytest.raises(MalformedResponse, match="must be 1 to 19 digits, got '\\+5'"):
        framing("Content-Length: +5", "Content-Length: +5")


@pytest.mark.parametrize(
    ("value", "length"), [("0", 0), ("5", 5), ("0005", 5), ("\t5 ", 5), ("9" * 19, 10**19 - 1)]
)
def test_step_6_a_length(value, length):
    assert framing(f"Content-Length:{value}") == (length, False, False)
    assert framing(f"content-LENGTH:{value}", strict=True) == (length, False, False)


def test_step_8_until_the_end():
    assert framing() == UNTIL_END
    assert framing("X-Content-Length: 5", "Content-Lengths: 5", "A: Content-Length: 5") == UNTIL_END
    assert framing("X-Transfer-Encoding: chunked", "A: b, chunked") == UNTIL_END


@pytest.mark.parametrize(
    ("version", "lines", "will_close"),
    [
        ("1.1", [], False),
        ("1.1", ["Connection: close"], True),
        ("1.1", ["Connection: Close"], True),
        ("1.1", ["Connection: keep-alive, close"], True),
        ("1.1", ["Connection: keep-alive", "connection:\tclose\t"], True),
        ("1.1", ["Connection: keep-alive"], False),
        ("1.1", ["Connection: closed"], False),
        ("1.1", ["X-Connection: close"], False),
        ("1.1", ["Proxy-Connection: close"], False),
        ("1.0", [], True),
        ("1.0", ["Connection: keep-alive"], False),
        ("1.0", ["Connection: Keep-Alive"], False),
        ("1.0", ["Keep-Alive: timeout=5"], False),
        ("1.0", ["Proxy-Connection: keep-alive"], False),
        ("1.0", ["Connection: keep-alive, close"], True),
        ("1.0", ["Connection: other"], True),
    ],
)
def test_whether_the_connection_closes(version, lines, will_close):
    assert framing("Content-Length: 5", *lines, version=version) == (5, False, will_close)


# match_common_head: the same verdict, by one match

PLAIN_LINES = (
    """
Content-Length: 5|content-length: 7|Content-length: 5|CONTENT-LENGTH: 5|Content-Length:5
Content-Length: 5 |Content-Length: |Content-Length: 12345678901234567890|Content-Length : 5
Content-Lengt: 1|Content-Length-X: 5|X-Content-Length: 9|Transfer-Encoding: chunked
transfer-encoding: chunked|Transfer-Encoding: gzip|Transfer-Encoding:|TRANSFER-ENCODING: chunked
Connection: close|Connection: keep-alive|connection: Keep-Alive|Connection: Keep-Alive, close
Connection-X: close|Content-Type: x|Cookie: a=b|Trailer: x|X: y|c: 1|t: x|Date: x|A:|A: \t\xe9
""".strip()
    .replace("\n", "|")
    .split("|")
)


def test_a_plain_head_is_read_as_the_longer_way_reads_it():
    chance = random.Random(9112)
    matched = 0
    for _ in range(20_000):
        lines = [f"HTTP/1.{chance.choice('1110')} {chance.choice((200, 404, 999, 100))} OK"]
        lines += chance.choices(PLAIN_LINES, k=chance.randrange(5))
        wire = "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")
        buffer = bytearray(wire + b"body\r\n\r\n")
        plain = match_common_head(buffer, 0, len(buffer), 100, MAX_LINE)
        if plain is None:
            continue
        matched += 1
        head = parse_response_head(wire, strict=True)
        length, chunked, will_close = response_framing(head, "GET", strict=True)
        whole, size, *found = plain
        assert found == [head.status, head.reason, wire, length, chunked]
        assert head.text == wire.decode("latin-1")
        assert size == len(wire)
        assert whole == (size + length if head.status == 200 and length is not None else -1)
        assert will_close == (length is None and not chunked)
    assert matched > 2000


@pytest.mark.parametrize("end", [0, 1, 4096, 4097])
def test_a_plain_head_is_found_in_long_and_short_reads(end):
    buffer = bytearray(HEAD + b"x" * 5000)
    for size in (len(HEAD) + end, 4096, 4097):
        found = match_common_head(buffer, 0, size, 100, MAX_LINE)
        assert found == (len(HEAD) + 5, len(HEAD), 200, "OK", HEAD, 5, False)


def test_a_head_that_is_not_whole_is_not_plain():
    # The scratch buffer holds what earlier reads left behind.
    buffer = bytearray(HEAD)
    for size in range(len(HEAD)):
        assert match_common_head(buffer, 0, size, 100, MAX_LINE) is None
    long = bytearray(STATUS + b"A: " + b"x" * 5000 + b"\r\n\r\n")
    assert match_common_head(long, 0, len(long) - 1, 100, MAX_LINE) is None
    assert match_common_head(long, 0, len(long), 100, MAX_LINE) is not None


@pytest.mark.parametrize("limit", [0, 1, 100])
def test_a_plain_head_has_no_more_fields_than_allowed(limit):
    for count in (limit, limit + 1):
        for line in (b"a:\r\n", b"a: " + b"b" * 100 + b"\r\n"):
            wire = bytearray(STATUS + line * count + b"\r\n")
            found = match_common_head(wire, 0, len(wire), limit, MAX_LINE)
            assert (found is not None) == (count <= limit)


def test_a_plain_head_is_no_longer_than_a_line_may_be():
    wire = bytearray(HEAD)
    assert match_common_head(wire, 0, len(wire), 100, len(HEAD)) is not None
    assert match_common_head(wire, 0, len(wire), 100, len(HEAD) - 1) is None
