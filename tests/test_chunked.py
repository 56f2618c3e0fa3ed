"""http11/chunked.py: the chunked coding taken apart, however it is delivered."""

from __future__ import annotations

import random
import re

import pytest

from aiohttpconn.exceptions import MalformedResponse
from aiohttpconn.http11.chunked import LAST_CHUNK, ChunkedDecoder, encode_chunk
from aiohttpconn.http11.limits import Limits

from .test_heads import every_split


def decode(pieces, decoder=None, **keywords):
    """Feed *pieces* until the coding ends; return (content, decoder, bytes that were not taken)."""
    decoder = decoder or ChunkedDecoder(**keywords)
    content = b""
    for i, piece in enumerate(pieces):
        # The bytes lie in the middle of a buffer that others use too.
        buffer = bytearray(b"\r\n5" + piece + b"\r\n0\r\n\r\n")
        data, pos = decoder.decode(buffer, 3, 3 + len(piece))
        content += data
        if decoder.done or decoder.error is not None:
            return content, decoder, piece[pos - 3 :] + b"".join(pieces[i + 1 :])
        assert pos == 3 + len(piece), "all of it is taken until the coding ends"
    return content, decoder, b""


BODIES = {
    "empty": (b"0\r\n\r\n", b"", []),
    "one-chunk": (b"5\r\nhello\r\n0\r\n\r\n", b"hello", []),
    "several-chunks": (b"2\r\nhe\r\n1\r\nl\r\n2\r\nlo\r\n0\r\n\r\n", b"hello", []),
    "upper-and-lower-case": (
        b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
        b"0123456789" * 2,
        [],
    ),
    "leading-zeros": (b"0005\r\nhello\r\n000\r\n\r\n", b"hello", []),
    "extensions": (b'5;a\r\nhello\r\n1;b="c;\\"d" ; e\r\n!\r\n0;f=g\r\n\r\n', b"hello!", []),
    "trailers": (b"2\r\nhi\r\n0\r\nX-A: 1\r\nX-B:2 \r\n\r\n", b"hi", [("X-A", "1"), ("X-B", "2")]),
    "line-ends-in-the-data": (b"6\r\n\r\n0\r\n\r\r\n0\r\n\r\n", b"\r\n0\r\n\r", []),
}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", BODIES)
def test_a_body_however_it_is_delivered(name, strict):
    wire, expected, trailers = BODIES[name]
    for after in (b"", b"HTTP/1.1 200 OK\r\n"):
        for pieces in every_split(wire + after):
            content, decoder, rest = decode(pieces, strict=strict)
            assert content == expected
            assert decoder.error is None
            assert decoder.done
            assert decoder.trailers == trailers
            assert rest == after
            assert decoder.chunk_left == 0


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_not_whole_is_waited_for(name):
    wire, _, _ = BODIES[name]
    for end in range(len(wire)):
        _, decoder, _ = decode([wire[:end]])
        assert not decoder.done
        assert decoder.error is None


def test_content_is_given_out_as_it_arrives():
    decoder = ChunkedDecoder()
    assert decode([b"5\r\nhe"], decoder)[0] == b"he"
    assert decoder.chunk_left == 3
    assert decode([b"llo\r\n3"], decoder)[0] == b"llo"
    assert decoder.chunk_left == 0
    assert decode([b"0\r\nx"], decoder)[0] == b"x"
    assert decoder.chunk_left == 0x30 - 1


BROKEN = {
    "bare-lf": (b"5\n", "not a chunk-size line: b'5\\n'"),
    "sign": (b"+5\r\n", "not a chunk-size line: b'+5\\r\\n'"),
    "negative": (b"-5\r\n", "not a chunk-size line: b'-5\\r\\n'"),
    "0x": (b"0x5\r\n", "not a chunk-size line: b'0x5\\r\\n'"),
    "underscore": (b"5_0\r\n", "not a chunk-size line: b'5_0\\r\\n'"),
    "inner-blank": (b"5 0\r\n", "not a chunk-size line: b'5 0\\r\\n'"),
    "blank-before": (b" 5\r\n", "not a chunk-size line: b' 5\\r\\n'"),
    "empty": (b"\r\n", "not a chunk-size line: b'\\r\\n'"),
    "17-digits": (b"0" * 17 + b"\r\n", "not a chunk-size line: b'00000000000000000\\r\\n'"),
    "nul-in-an-extension": (b"5;a\0\r\n", "not a chunk-size line: b'5;a\\x00\\r\\n'"),
    "cr-in-an-extension": (b"5;a\rb\r\n", "not a chunk-size line: b'5;a\\rb\\r\\n'"),
    "lf-in-an-extension": (b"5;a\nb\r\n", "not a chunk-size line: b'5;a\\n'"),
    "data-too-long": (b"2\r\nhello\r\n", "chunk data must be followed by CRLF, got b'll'"),
    "data-then-lf": (b"2\r\nhe\n0\r\n\r\n", "chunk data must be followed by CRLF, got b'\\n'"),
    "data-then-cr": (b"2\r\nhe\r0\r\n\r\n", "chunk data must be followed by CRLF, got b'\\r0'"),
    "data-then-size": (b"2\r\nhe0\r\n\r\n", "chunk data must be followed by CRLF, got b'0\\r'"),
    "last-with-bare-lf": (b"0\n\r\n", "not a chunk-size line: b'0\\n'"),
    "end-with-bare-lf": (b"0\r\n\n", "a trailer must end with CRLF: b'\\n'"),
    "trailer-with-bare-lf": (b"0\r\nA: b\n", "a trailer must end with CRLF: b'A: b\\n'"),
    "trailer-with-nul": (b"0\r\nA: \0\r\n\r\n", "a NUL byte in the trailers"),
    "trailer-with-cr": (b"0\r\nA: b\rc\r\n\r\n", "a CR inside a line"),
    "trailer-that-starts-with-a-blank": (b"0\r\n A: b\r\n\r\n", "starts with a blank"),
    "trailer-with-cr-in-the-middle-and-at-the-end": (
        b"0\r\nA: b\rc\r\r\n\r\n",
        "a CR inside a line",
    ),
    "trailer-of-cr": (b"0\r\nA: b\r\n\r\r\n\r\n", "a CR inside a line"),
    "trailer-that-may-frame": (b"0\r\nContent-Length : 5\r\n\r\n", "on a malformed line"),
}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_framing_however_it_is_delivered(name, strict):
    wire, text = BROKEN[name]
    if name == "trailer-that-may-frame" and strict:
        text = "no field name and colon"
    before = b"3\r\nabc\r\n"
    said = b"abc" + (b"he" if b"he" in wire else b"")
    for pieces in every_split(before + wire):
        content, decoder, _ = decode(pieces, strict=strict)
        assert isinstance(decoder.error, MalformedResponse), pieces
        # What was got is quoted as far as it has arrived.
        expected = text.partition(", got ")[0] if "got" in text else text
        assert expected in str(decoder.error)
        assert content == said
        assert not decoder.done
    assert text in str(decode([before + wire], strict=strict)[1].error)


def test_blanks_behind_a_size_are_for_the_lenient():
    wire = b"2 \r\nhi\r\n0\t\r\n\r\n"
    for pieces in every_split(wire):
        content, decoder, _ = decode(pieces)
        assert (content, decoder.done) == (b"hi", True)
        content, decoder, _ = decode(pieces, strict=True)
        assert "not a chunk-size line: b'2 \\r\\n'" in str(decoder.error)
        assert content == b""


@pytest.mark.parametrize("extension", [b";", b";=", b";a=", b';a="', b";a b", b";a;;b"])
def test_malformed_extensions_are_for_the_lenient(extension):
    wire = b"2" + extension + b"\r\nhi\r\n0\r\n\r\n"
    assert decode([wire])[0] == b"hi"
    _, decoder, _ = decode([wire], strict=True)
    assert "not a chunk-size line" in str(decoder.error)


def test_trailers_are_put_right_like_a_heads_fields():
    wire = b"0\r\nA: b\r\n c\r\nD : e\r\nF: g\r\n\r\n"
    for pieces in every_split(wire):
        assert decode(pieces)[1].trailers == [("A", "b c"), ("F", "g")]
        assert "a line that starts with a blank" in str(decode(pieces, strict=True)[1].error)


def test_a_cr_before_the_end_of_a_trailer_is_a_space_unless_strict():
    wire = b"2\r\nhi\r\n0\r\nX-Sum: ten\r\r\nA: b\r\r\n c\r\n\r\n"
    for pieces in every_split(wire):
        content, decoder, _ = decode(pieces)
        assert (content, decoder.done) == (b"hi", True)
        assert decoder.trailers == [("X-Sum", "ten"), ("A", "b c")]
        assert "a CR inside a line" in str(decode(pieces, strict=True)[1].error)


# Limits


@pytest.mark.parametrize("strict", [False, True])
def test_the_length_of_a_size_line_is_limited_exactly(strict):
    limits = Limits(max_chunk_line=20)
    fits = b"2;" + b"a" * 16 + b"\r\nhi\r\n0\r\n\r\n"
    over = b"2;" + b"a" * 17 + b"\r\nhi\r\n0\r\n\r\n"
    for pieces in every_split(fits):
        assert decode(pieces, limits=limits, strict=strict)[1].done
    for pieces in every_split(over):
        content, decoder, _ = decode(pieces, limits=limits, strict=strict)
        assert str(decoder.error) == "a chunk-size line of more than 20 bytes"
        assert content == b""


def test_a_size_line_without_an_end_is_limited():
    for pieces in ([b"2;" + b"a" * 5000], [b"2;", b"a" * 2000, b"a" * 3000]):
        _, decoder, _ = decode(pieces)
        assert str(decoder.error) == "a chunk-size line of more than 4096 bytes"


def test_extensions_are_limited_by_the_content():
    limits = Limits(max_chunk_overhead=150)
    # 144 bytes of framing for 1 byte of content: 150 bytes are free, 128 more with each byte.
    chunk = b"1;" + b"a" * 138 + b"\r\nx\r\n"
    wire = chunk * 20 + LAST_CHUNK
    for pieces in every_split(wire):
        content, decoder, _ = decode(pieces, limits=limits)
        assert str(decoder.error) == (
            "286 bytes of framing with chunk extensions for 1 bytes of content"
        )
        assert content == b"x"


def test_extensions_that_cost_the_peer_as_much_are_read():
    chunk = b"10;" + b"a" * 200 + b"\r\n" + b"x" * 16 + b"\r\n"
    assert decode([chunk * 1000 + LAST_CHUNK])[0] == b"x" * 16000


def test_sizes_without_extensions_are_read_however_they_are_delivered():
    # The longest plain framing there is, 20 bytes for one of content, and beyond what is free.
    wire = (b"0" * 15 + b"1\r\nx\r\n") * 60 + LAST_CHUNK
    for pieces in every_split(wire):
        content, decoder, _ = decode(pieces, limits=Limits(max_chunk_overhead=100))
        assert decoder.error is None
        assert content == b"x" * 60


@pytest.mark.parametrize("limit", [0, 1, 3, 100])
def test_the_number_of_trailers_is_limited_exactly(limit):
    limits = Limits(max_trailers=limit)
    fits = b"0\r\n" + b"A: b\r\n" * limit + b"\r\n"
    over = b"0\r\n" + b"A: b\r\n" * (limit + 1) + b"\r\n"
    for wire in (fits, over):
        for pieces in every_split(wire)[:40]:
            _, decoder, _ = decode(pieces, limits=limits)
            if wire is fits:
                assert len(decoder.trailers) == limit
                assert decoder.done
            else:
                assert str(decoder.error) == f"got more than {limit} trailers"


def test_the_length_of_a_trailer_is_limited():
    limits = Limits(max_line=20)
    fits = b"0\r\nA: " + b"b" * 15 + b"\r\n\r\n"
    over = b"0\r\nA: " + b"b" * 16 + b"\r\n\r\n"
    for pieces in every_split(fits):
        assert decode(pieces, limits=limits)[1].done
    for pieces in every_split(over):
        assert "a trailer of more than 20 bytes" in str(decode(pieces, limits=limits)[1].error)


def test_the_size_of_all_trailers_is_limited():
    limits = Limits(max_head_bytes=50)
    fits = b"0\r\n" + b"A: b\r\n" * 8 + b"\r\n"
    assert decode([fits], limits=limits)[1].done
    for pieces in every_split(b"0\r\n" + b"A: b\r\n" * 9 + b"\r\n"):
        assert "trailers of more than 50 bytes" in str(decode(pieces, limits=limits)[1].error)


def test_a_huge_chunk_allocates_nothing():
    decoder = ChunkedDecoder()
    content, _, _ = decode([b"FFFFFFFFFFFFFFFF\r\nabc"], decoder)
    assert content == b"abc"
    assert decoder.chunk_left == 2**64 - 1 - 3


def test_every_byte_of_a_long_line_is_looked_at_once(monkeypatch):
    # Delivered byte by byte, the part of a line that has arrived is never scanned again.
    looked_at = 0

    class Counting(bytearray):
        def find(self, sub, start, end):
            nonlocal looked_at
            looked_at += end - start
            return super().find(sub, start, end)

    wire = b"5;" + b"a" * 4000 + b"\r\nhello\r\n0\r\n\r\n"
    decoder = ChunkedDecoder()
    for i in range(len(wire)):
        decoder.decode(Counting(wire[i : i + 1]), 0, 1)
    assert decoder.done
    assert looked_at <= len(wire)


# The end of the connection


@pytest.mark.parametrize(
    ("wire", "lenient", "strict"),
    [
        (b"", False, False),
        (b"2\r\nhi", False, False),
        (b"2\r\nhi\r\n", False, False),
        (b"2\r\nhi\r\n0", False, False),
        (b"2\r\nhi\r\n0\r", False, False),
        (b"2\r\nhi\r\n0\r\n", True, False),
        (b"2\r\nhi\r\n0\r\n\r", True, False),
        (b"2\r\nhi\r\n0\r\nA: b\r\n", True, False),
        (b"2\r\nhi\r\n0\r\nA: b\r\n\r", True, False),
        (b"2\r\nhi\r\n0\r\nA: b\r\n c\r\n", True, False),
        (b"2\r\nhi\r\n0\r\nA: b", False, False),
        (b"2\r\nhi\r\n0\r\nA: b\r", False, False),
        (b"2\r\nhi\r\n0\r\nA: b\r\nC", False, False),
        (b"2\r\nhi\r\n0\r\nA: b\r\n c", False, False),
        (b"2\r\nhi\r\n0\r\nContent-Length : 5\r\n", False, False),
        (b"2\r\nhi\r\n0\r\n\r\n", True, True),
    ],
)
def test_whether_a_body_that_ends_there_is_whole(wire, lenient, strict):
    for pieces in every_split(wire) if wire else [[]]:
        decoder = decode(pieces)[1]
        assert decoder.feed_eof() == lenient
        # The trailers before the missing CRLF are kept.
        assert [name for name, _ in decoder.trailers] == (["A"] if lenient and b"A" in wire else [])
        assert decode(pieces, strict=True)[1].feed_eof() == strict


def test_a_broken_body_is_never_whole():
    _, decoder, _ = decode([b"0\r\nA: b\n"])
    assert decoder.error is not None
    assert not decoder.feed_eof()


# Sending


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_chunk(kind):
    assert encode_chunk(kind(b"hello")) == b"5\r\nhello\r\n"
    assert encode_chunk(kind(b"x" * 300)) == b"12C\r\n" + b"x" * 300 + b"\r\n"


def test_what_is_encoded_is_decoded():
    data = [b"a", b"b" * 20, bytes(range(256))]
    wire = b"".join(map(encode_chunk, data)) + LAST_CHUNK
    content, decoder, _ = decode([wire], strict=True)
    assert content == b"".join(data)
    assert decoder.done


def test_texts_quote_what_the_peer_sent_and_cut_it():
    _, decoder, _ = decode([b"x" * 3000 + b"\r\n"])
    assert re.search(r"^not a chunk-size line: b'x{100}'\.\.\. \(3002 bytes\)$", str(decoder.error))


def small_bodies():
    """Yield (wire, content) of chunks that are taken together, with others between them."""
    made = random.Random(7)
    extensions = [b"", b"", b" ", b";a", b";name=value", b'; q="x y"', b"\t ; n", b";" + b"e" * 61]
    for _ in range(60):
        wire, content = b"", b""
        for _ in range(made.randrange(1, 9)):
            size = made.choice([1, 1, 2, 2, 3, 4, 5, 7, 10, 15, 16, 17])
            data = bytes(made.choice(b"\r\n\r\n01;a") for _ in range(size))
            digits = made.choice([b"%x", b"%X", b"0%x", b"0000000%x"]) % size
            wire += digits + made.choice(extensions) + b"\r\n" + data + b"\r\n"
            content += data
        yield wire + LAST_CHUNK, content


def test_small_chunks_however_they_are_delivered():
    for wire, content in small_bodies():
        for pieces in every_split(wire):
            got, decoder, rest = decode(pieces)
            assert (got, decoder.error, decoder.done, rest) == (content, None, True, b"")


def test_small_chunks_of_which_one_is_broken():
    good = b"1\r\nx\r\n2\r\n\r\n\r\n" * 3
    for bad, text in (
        (b"1 x\r\ny\r\n", "not a chunk-size line: b'1 x\\r\\n'"),
        (b"1;\0\r\ny\r\n", "not a chunk-size line: b'1;\\x00\\r\\n'"),
        (b"1\ny\r\n", "not a chunk-size line: b'1\\n'"),
        (b"2\r\ny\r\n1\r\n", "chunk data must be followed by CRLF, got b'\\n"),
        (b"0000000000000001f\r\n", "not a chunk-size line: b'0000000000000001f\\r\\n'"),
    ):
        for pieces in every_split(good + bad + good):
            content, decoder, _ = decode(pieces)
            assert str(decoder.error).startswith(text)
            assert content == b"x\r\n" * 3 + b"y\r" * bad.startswith(b"2")


def test_strict_small_chunks():
    wire = b'1;a\r\nx\r\n1 ; b = "c"\r\ny\r\n01\r\nz\r\n'
    for pieces in every_split(wire + LAST_CHUNK):
        content, decoder, _ = decode(pieces, strict=True)
        assert (content, decoder.done) == (b"xyz", True)
    for bad in (b"1 \r\n", b"1;\r\n", b"1;=\r\n", b'1;a="\r\n'):
        for pieces in every_split(wire + bad + b"x\r\n" + LAST_CHUNK):
            content, decoder, _ = decode(pieces, strict=True)
            assert content == b"xyz"
            assert str(decoder.error) == f"not a chunk-size line: {bad!r}"
