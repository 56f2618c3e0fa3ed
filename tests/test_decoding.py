"""client/content/decoding.py: content codings, however they are delivered, within bounds."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import pickle
import random
import re
import sys
import tracemalloc
import types
import zlib

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttpconn.client.content import codecs, decoding
from aiohttpconn.client.content.codecs import DECODERS, Members, accept_encoding
from aiohttpconn.client.content.decoding import (
    MAX_CODINGS,
    MAX_LENGTH,
    RATIO_FREE,
    ContentDecoder,
    split_codings,
)
from aiohttpconn.exceptions import BodyTooLarge, ContentDecodingError

from .support import named_deliveries
from .support.decoding import decode
from .support.strategies import cuts
from .test_heads import every_split

if sys.version_info >= (3, 14):
    from compression.zstd import CompressionParameter, ZstdCompressor
else:
    from backports.zstd import CompressionParameter, ZstdCompressor


def zstd(data: bytes) -> bytes:
    compressor = ZstdCompressor(options={CompressionParameter.checksum_flag: 1})
    return compressor.compress(data, ZstdCompressor.FLUSH_FRAME)


def zstd_coder():
    return ZstdCompressor(), ZstdCompressor.FLUSH_BLOCK


MiB = 1 << 20
UNLIMITED = {"max_body": None, "max_ratio": None}


def raw_deflate(data: bytes, level: int = 9) -> bytes:
    coder = zlib.compressobj(level, zlib.DEFLATED, -15)
    return coder.compress(data) + coder.flush()


ENCODERS = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "deflate": zlib.compress,
    "br": lambda data: brotli.compress(data, quality=1),
    "zstd": zstd,
}


def encode(data: bytes, codings: list[str]) -> bytes:
    for coding in codings:
        data = ENCODERS[coding](data)
    return data


def stream(pieces, codings, max_length=MAX_LENGTH, **limits) -> bytes:
    """Decode *pieces* as they arrive, at most *max_length* bytes at a time."""
    decoder = ContentDecoder(codings, **{**UNLIMITED, **limits})
    assert not decoder.pending
    body = bytearray()
    for piece in pieces:
        out = decoder.feed(piece, max_length)
        body += out
        while decoder.pending:
            assert len(out) <= max_length
            out = decoder.feed(b"", max_length)
            body += out
        assert len(out) <= max_length
        assert decoder.feed(b"", max_length) == b"", "nothing was pending"
    decoder.finish()
    return bytes(body)


def both(data, codings, **limits):
    """Return what decoding at once and decoding as it arrives come to: bytes, or (type, text)."""
    outcomes = []
    for way in (decode, lambda *args, **keywords: stream([args[0]], args[1], **keywords)):
        try:
            outcomes.append(way(data, codings, **{**UNLIMITED, **limits}))
        except (ContentDecodingError, BodyTooLarge) as exc:
            outcomes.append((type(exc), str(exc)))
    return outcomes


def refused(data, codings, **limits) -> str:
    """Return the text with which *data* is refused, at once and as it arrives."""
    with pytest.raises(ContentDecodingError) as info:
        decode(data, codings, **{**UNLIMITED, **limits})
    for pieces in ([data], [data[i : i + 1] for i in range(min(len(data), 200))] + [data[200:]]):
        with pytest.raises(ContentDecodingError):
            stream(pieces, codings, **limits)
    return str(info.value)


# What is decoded


HELLO = b"hello, hello, hello"
HELLO_RAW = b"\xcbH\xcd\xc9\xc9\xd7Q\xc8@\xa2\x00"
HELLO_TRAILER = b"\x9f\xa1\xca\t\x13\x00\x00\x00"
HELLO_GZIP = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03" + HELLO_RAW + HELLO_TRAILER
EMPTY_GZIP = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00"
HELLO_ZLIB = b"x\x9c" + HELLO_RAW + b"D(\x06\xd5"
HELLO_BR = b"\x1b\x12\x00\xf8\x8d\x94n\xdeD\tR\x86\x96l,o\x11O$\xd0q\x00"
HELLO_ZSTD = b"(\xb5/\xfd$\x13m\x00\x008hello, \x01\x00\xe2\x8a\x11u\xf3\x98\x8e"
SKIPPABLE = b"\x5a\x2a\x4d\x18\x04\x00\x00\x00(\xb5/\xfd"
WINDOW = b"(\xb5/\xfd\x00\x58"  # the header of a frame of unknown size: a window of 2 MiB

CASES = {
    "gzip": (["gzip"], HELLO_GZIP, HELLO),
    "gzip-with-every-field": (
        ["gzip"],
        b"\x1f\x8b\x08\x1e\x00\x00\x00\x00\x00\x03\x04\x00abcdname\x00comment\x00\xe2H"
        + HELLO_RAW
        + HELLO_TRAILER,
        HELLO,
    ),
    "gzip-of-nothing": (["gzip"], EMPTY_GZIP, b""),
    "gzip-members": (["gzip"], HELLO_GZIP + EMPTY_GZIP + HELLO_GZIP, HELLO * 2),
    "gzip-padded": (["gzip"], HELLO_GZIP + bytes(9), HELLO),
    "gzip-padded-members": (["gzip"], HELLO_GZIP + bytes(3) + HELLO_GZIP + b"\0", HELLO * 2),
    "deflate": (["deflate"], HELLO_ZLIB, HELLO),
    "deflate-small-window": (["deflate"], b"\x18\x19" + HELLO_RAW + b"D(\x06\xd5", HELLO),
    "deflate-of-nothing": (["deflate"], b"x\x9c\x03\x00\x00\x00\x00\x01", b""),
    "raw-deflate": (["deflate"], HELLO_RAW, HELLO),
    "raw-deflate-stored": (["deflate"], b"\x01\x05\x00\xfa\xffhello", b"hello"),
    # What looks like zlib's header at the first glance, but not at the second.
    "raw-deflate-padded": (["deflate"], b"\x08\x02\x00\xfd\xffhi\x03\x00", b"hi"),
    "raw-deflate-padded-more": (
        ["deflate"],
        b"\x88\x1c\x00\xe3\xff" + b"28 bytes: as many as it says" + b"\x03\x00",
        b"28 bytes: as many as it says",
    ),
    "raw-deflate-of-nothing": (["deflate"], b"\x03\x00", b""),
    "br": (["br"], HELLO_BR, HELLO),
    "br-of-nothing": (["br"], b";", b""),
    "zstd": (["zstd"], HELLO_ZSTD, HELLO),
    "zstd-without-checksum": (
        ["zstd"],
        b"(\xb5/\xfd\x00\x00m\x00\x008hello, \x01\x00\xe2\x8a\x11",
        HELLO,
    ),
    "zstd-of-nothing": (["zstd"], b"(\xb5/\xfd \x00\x01\x00\x00", b""),
    "zstd-raw-blocks": (
        ["zstd"],
        WINDOW + b"\x10\x00\x00he" + b"\x00\x00\x00" + b"\x19\x00\x00llo",
        b"hello",
    ),
    "zstd-repeated": (
        ["zstd"],
        WINDOW + b"\x02\x01\x00a" + b"\x53\x00\x00b",
        b"a" * 32 + b"b" * 10,
    ),
    "zstd-longest-header": (
        ["zstd"],
        b"(\xb5/\xfd\xc3\x58" + bytes(4) + b"\x05\0\0\0\0\0\0\0" + b"\x29\0\0hello",
        b"hello",
    ),
    "zstd-frames": (
        ["zstd"],
        HELLO_ZSTD + SKIPPABLE + HELLO_ZSTD + b"(\xb5/\xfd \x00\x01\x00\x00",
        HELLO * 2,
    ),
    "zstd-skippable-first": (["zstd"], SKIPPABLE + HELLO_ZSTD, HELLO),
    "br-in-gzip": (
        ["br", "gzip"],
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x93\x16b\xf8\xd1;%\xef\x9e\x0bgP\xdb\xb4"
        b"\x1c\x9d|A\x7f\x95\x0b\x85\x0c\x00}\xff\x85\xc1\x16\x00\x00\x00",
        HELLO,
    ),
    "gzip-in-br": (["gzip", "br"], b"\x0b\x0e\x80" + HELLO_GZIP + b"\x03", HELLO),
    "nothing-in-br": (["gzip", "br"], b";", b""),
    "all-five": (
        ["deflate", "gzip", "br", "zstd", "deflate"],
        encode(HELLO, ["deflate", "gzip", "br", "zstd", "deflate"]),
        HELLO,
    ),
    "identity": ([], HELLO, HELLO),
}


@pytest.mark.parametrize("max_length", [1, 3, MAX_LENGTH])
@pytest.mark.parametrize("name", CASES)
def test_a_body_however_it_is_delivered(name, max_length):
    codings, wire, body = CASES[name]
    for pieces in every_split(wire):
        assert stream(pieces, codings, max_length) == body


@pytest.mark.parametrize("name", CASES)
def test_a_body_at_once(name):
    codings, wire, body = CASES[name]
    assert decode(wire, codings, **UNLIMITED) == body
    assert decode(wire, tuple(codings), max_body=len(body), max_ratio=0.0) == body


# Text, zeros, and bytes that nothing makes shorter: many blocks of each kind.
LARGE = b"".join(b'{"id": %d},' % n for n in range(9000)) + bytes(300_000)
LARGE += random.Random(5).randbytes(30_000) + b"end"

CHAINS = [["gzip"], ["deflate"], ["br"], ["zstd"], ["gzip", "br"], ["zstd", "deflate"]]


@pytest.mark.parametrize("codings", CHAINS, ids=",".join)
def test_a_large_body_however_it_is_delivered(codings):
    wire = encode(LARGE, codings)
    assert len(wire) < len(LARGE) / 3
    assert decode(wire, codings, **UNLIMITED) == LARGE
    for name, pieces in named_deliveries(wire, splits=4):
        if name != "byte-by-byte":
            assert stream(pieces, codings) == LARGE
    for max_length in (1000, 65_536, 10 * MiB, sys.maxsize):
        assert stream([wire], codings, max_length) == LARGE


def flushed(coding: str, messages: list[bytes]) -> list[bytes]:
    """Return *messages* in one stream, each flushed: what a server sends as it has it."""
    if coding == "br":
        coder = brotli.Compressor()
        return [coder.process(message) + coder.flush() for message in messages]
    if coding == "zstd":
        coder, how = zstd_coder()
    else:
        coder, how = zlib.compressobj(wbits=31 if coding == "gzip" else 15), zlib.Z_SYNC_FLUSH
    return [coder.compress(message) + coder.flush(how) for message in messages]


@pytest.mark.parametrize("max_length", [1000, MAX_LENGTH])
@pytest.mark.parametrize("coding", ENCODERS)
def test_what_was_flushed_comes_out_at_once(coding, max_length):
    messages = [b"one", b"x" * 200_000, LARGE[-30_000:], b"four"]
    decoder = ContentDecoder([coding], **UNLIMITED)
    for message, wire in zip(messages, flushed(coding, messages), strict=True):
        got = decoder.feed(wire, max_length)
        while decoder.pending:
            got += decoder.feed(b"", max_length)
        assert got == message
    with pytest.raises(ContentDecodingError, match=rf"^the body is cut short: its {coding} stream"):
        decoder.finish()


@pytest.mark.parametrize("codings", [["gzip"], ["deflate"], ["br"], ["zstd"], ["gzip", "br"], []])
def test_a_body_without_a_byte_is_empty(codings):
    assert decode(b"", codings, **UNLIMITED) == b""
    assert stream([], codings) == b""
    assert stream([b"", b""], codings) == b""


# Feeding


def test_what_is_not_fetched_stays_pending():
    decoder = ContentDecoder(["gzip"], **UNLIMITED)
    assert decoder.feed(HELLO_GZIP, 5) == b"hello"
    assert decoder.pending
    with pytest.raises(ValueError, match=r"^finish\(\) was called too early: feed\(b''\) while"):
        decoder.finish()
    # More may be fed all the same.
    assert decoder.feed(HELLO_GZIP, 5) == b", hel"
    assert decoder.feed(b"", 1000) == b"lo, hello"
    assert decoder.feed(b"", 1000) == HELLO
    while decoder.pending:
        assert decoder.feed(b"") == b""
    decoder.finish()


def test_no_byte_is_lost_that_was_fed_too_early():
    body = random.Random(7).randbytes(300_000)
    wire = gzip.compress(body)
    decoder = ContentDecoder(["gzip"], **UNLIMITED)
    got = decoder.feed(wire[:200_000], 10) + decoder.feed(wire[200_000:], 10)
    while decoder.pending:
        got += decoder.feed(b"")
    decoder.finish()
    assert got == body


@pytest.mark.parametrize("max_length", [0, -1])
def test_an_unlimited_length_cannot_be_asked_for(max_length):
    decoder = ContentDecoder(["gzip"], **UNLIMITED)
    with pytest.raises(ValueError, match=rf"^max_length must be 1 or more, got {max_length}$"):
        decoder.feed(HELLO_GZIP, max_length)


@pytest.mark.parametrize("data", [b"<html>", HELLO_ZLIB])
def test_an_error_is_final(data):
    decoder = ContentDecoder(["gzip"], **UNLIMITED)
    with pytest.raises(ContentDecodingError) as info:
        decoder.feed(data)
    assert not decoder.pending
    for again in (lambda: decoder.feed(HELLO_GZIP), lambda: decoder.feed(b""), decoder.finish):
        with pytest.raises(ContentDecodingError) as second:
            again()
        assert second.value is info.value


# What is not whole, or not right


@pytest.mark.parametrize("name", [name for name in CASES if name != "identity"])
def test_a_body_that_is_cut_short_is_an_error(name):
    codings, wire, body = CASES[name]
    for end in range(1, len(wire)):
        cut = wire[:end]
        outcome, streamed = both(cut, codings)
        assert outcome == streamed
        if isinstance(outcome, bytes):
            # Between two members, or in the padding after them.
            assert name.startswith(("gzip-members", "gzip-padded", "zstd-frames", "zstd-skip"))
            assert body.startswith(outcome)
            assert len(outcome) in (0, len(HELLO), 2 * len(HELLO))
        else:
            kind, text = outcome
            assert kind is ContentDecodingError
            assert re.match(
                rf"the body is cut short: its \w+ stream has no end \(after {end} bytes, decoded "
                r"to \d+\)$",
                text,
            )


def test_the_coding_that_is_cut_short_is_named():
    wire = gzip.compress(HELLO_ZLIB[:-1])
    assert refused(wire, ["deflate", "gzip"]) == (
        "the body is cut short: its deflate stream has no end "
        f"(after {len(wire)} bytes, decoded to 19)"
    )
    wire = gzip.compress(HELLO_BR, mtime=0)[:-1]
    assert refused(wire, ["br", "gzip"]) == (
        "the body is cut short: its gzip stream has no end "
        f"(after {len(wire)} bytes, decoded to {len(HELLO_BR)})"
    )


BROKEN = {
    "gzip-of-text": (
        ["gzip"],
        b"<html>hello</html>",
        "the body is not valid gzip: Error -3 while decompressing data: incorrect header check "
        "(after 0 decoded bytes; it begins with b'<html>hello</htm')",
    ),
    "gzip-checksum": (
        ["gzip"],
        HELLO_GZIP[:-8] + b"\0" + HELLO_GZIP[-7:],
        "the body is not valid gzip: Error -3 while decompressing data: incorrect data check "
        "(after 19 decoded bytes; it begins with "
        "b'\\x1f\\x8b\\x08\\x00\\x00\\x00\\x00\\x00\\x02\\x03\\xcbH\\xcd\\xc9\\xc9\\xd7')",
    ),
    "gzip-length": (
        ["gzip"],
        HELLO_GZIP[:-4] + b"\x14\0\0\0",
        "the body is not valid gzip: Error -3 while decompressing data: incorrect length check ",
    ),
    "gzip-reserved-flags": (
        ["gzip"],
        b"\x1f\x8b\x08\xe0" + HELLO_GZIP[4:],
        "the body is not valid gzip: Error -3 while decompressing data: unknown header flags set",
    ),
    "zlib-checksum": (
        ["deflate"],
        HELLO_ZLIB[:-1] + b"\0",
        "the body is not valid deflate: Error -3 while decompressing data: incorrect data check ",
    ),
    "zlib-dictionary": (
        ["deflate"],
        b"x\xbb\0\0\0\1" + HELLO_RAW,
        "the body is not valid deflate: Error 2 while decompressing data",
    ),
    "deflate-of-text": (
        ["deflate"],
        b"<html>",
        "the body is not valid deflate: Error -3 while decompressing data: ",
    ),
    "br-of-text": (
        ["br"],
        b"\xff\xff<html>",
        "the body is not valid br: brotli: decoder failed (after 0 decoded bytes; "
        "it begins with b'\\xff\\xff<html>')",
    ),
    "br-then-more": (["br"], HELLO_BR + b"!", "the body is not valid br: bytes after the end "),
    "zstd-of-text": (["zstd"], b"<html>hello", "the body is not valid zstd: "),
    "zstd-checksum": (["zstd"], HELLO_ZSTD[:-1] + b"\0", "the body is not valid zstd: "),
    "zstd-reserved-block": (["zstd"], WINDOW + b"\x0f\0\0a", "the body is not valid zstd: "),
    "zstd-reserved-bit": (["zstd"], b"(\xb5/\xfd\x08\x58\1\0\0", "the body is not valid zstd: "),
    "zstd-block-too-large": (
        ["zstd"],
        WINDOW + b"\x0a\x00\x10a\1\0\0",  # one byte, 131,073 times
        "the body is not valid zstd: ",
    ),
    "zstd-window-of-16-MiB": (
        ["zstd"],
        b"(\xb5/\xfd\x00\x70\1\0\0",
        "the body is not valid zstd: ",
    ),
    "zstd-dictionary": (["zstd"], b"(\xb5/\xfd\x01\x58\x07\1\0\0", "the body is not valid zstd: "),
    "gzip-in-br-broken": (
        ["gzip", "br"],
        brotli.compress(b"<html>"),
        "the body is not valid gzip: Error -3 while decompressing data: incorrect header check "
        "(after 0 decoded bytes; it begins with b'<html>')",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_an_error(name):
    codings, wire, text = BROKEN[name]
    assert refused(wire, codings).startswith(text)
    for pieces in every_split(wire):
        with pytest.raises(ContentDecodingError) as info:
            stream(pieces, codings)
        assert info.value.__cause__ is not None
        assert " not valid " in str(info.value)
        assert info.value.truncated is False


def test_the_errors_cause_is_the_codecs():
    with pytest.raises(ContentDecodingError) as info:
        decode(b"<html>", ["gzip"], **UNLIMITED)
    assert isinstance(info.value.__cause__, zlib.error)
    with pytest.raises(ContentDecodingError) as info:
        decode(b"\xff\xff", ["br"], **UNLIMITED)
    assert isinstance(info.value.__cause__, brotli.error)


def test_a_window_of_8_MiB_is_allowed():
    assert decode(b"(\xb5/\xfd\x00\x68\x19\0\0abc", ["zstd"], **UNLIMITED) == b"abc"


def test_bytes_after_the_end_of_br_are_an_error_when_they_come_later_too():
    with pytest.raises(ContentDecodingError) as info:
        stream([HELLO_BR, b"HTTP/1.1 200 OK\r\n"], ["br"])
    assert str(info.value).startswith(
        "the body is not valid br: bytes after the end of the stream (after 19 decoded bytes; "
    )


AFTER_THE_END = {
    "gzip": (["gzip"], HELLO_GZIP, b"garbage"),
    "gzip, a line end": (["gzip"], HELLO_GZIP, b"\r\n"),
    "gzip, padded": (["gzip"], HELLO_GZIP, b"\0\0\0!!"),
    "gzip, almost a member": (["gzip"], HELLO_GZIP, b"\x1f\x8a"),
    "gzip, after two": (["gzip"], HELLO_GZIP * 2, b"garbage"),
    "gzip, a member after garbage": (["gzip"], HELLO_GZIP, b"!" + HELLO_GZIP),
    "zlib": (["deflate"], HELLO_ZLIB, b"garbage"),
    "zlib, twice": (["deflate"], HELLO_ZLIB, HELLO_ZLIB),
    "raw deflate": (["deflate"], HELLO_RAW, b"\0"),
    "zstd": (["zstd"], HELLO_ZSTD, b"!" * 8),
    "zstd, zeros": (["zstd"], HELLO_ZSTD, bytes(8)),
    "zstd, almost a frame": (["zstd"], HELLO_ZSTD, b"\x5f\x2a\x4d\x19"),
    "gzip in gzip": (["gzip", "gzip"], gzip.compress(HELLO_GZIP + b"inner"), b"outer"),
}


@pytest.mark.parametrize("name", AFTER_THE_END)
def test_bytes_after_a_complete_stream_are_ignored(name):
    codings, wire, more = AFTER_THE_END[name]
    body = decode(wire, codings, **UNLIMITED)
    assert body in (HELLO, HELLO * 2)
    assert decode(wire + more, codings, **UNLIMITED) == body
    for pieces in every_split(wire + more):
        for max_length in (1, 5, MAX_LENGTH):
            assert stream(pieces, codings, max_length) == body
    assert decode(wire + more + bytes(range(256)) * 1000, codings, **UNLIMITED) == body


def test_a_member_that_has_begun_is_no_garbage():
    for more in (b"\x1f", b"\x1f\x8b", HELLO_GZIP[:-1]):
        with pytest.raises(ContentDecodingError) as info:
            decode(HELLO_GZIP + more, ["gzip"], **UNLIMITED)
        assert (info.value.truncated, info.value.partial[:19]) == (True, HELLO)
    with pytest.raises(ContentDecodingError, match="not valid gzip") as info:
        decode(HELLO_GZIP + b"\x1f\x8b\x09\0", ["gzip"], **UNLIMITED)
    assert (info.value.truncated, info.value.partial) == (False, HELLO)


LOG = b"".join(b"%d: line of a log\n" % i for i in range(20_000))


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_the_error_of_a_body_cut_short_has_what_was_decoded(coding):
    wire = encode(LOG, [coding])
    for cut in (len(wire) - 1, len(wire) - 9, len(wire) // 2, 1):
        with pytest.raises(ContentDecodingError) as info:
            decode(wire[:cut], [coding], **UNLIMITED)
        assert info.value.truncated is True
        partial = info.value.partial
        assert LOG.startswith(partial)
        assert f"decoded to {len(partial)})" in str(info.value)
        again = pickle.loads(pickle.dumps(info.value))
        assert (again.partial, again.truncated) == (partial, True)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("size", [1, 19, 5000, len(LOG)])
def test_zlib_gives_every_byte_before_its_error(coding, size):
    body = LOG[:size]
    wire = encode(body, [coding])
    checksum = len(wire) - (8 if coding == "gzip" else 4)
    wrong = wire[:checksum] + bytes([wire[checksum] ^ 1]) + wire[checksum + 1 :]
    for pieces in ([wrong], [wrong[:5], wrong[5:]]):
        for max_length in (1, 7, MAX_LENGTH) if size < len(LOG) else (MAX_LENGTH,):
            decoder = ContentDecoder([coding], **UNLIMITED)
            got = b""
            with pytest.raises(ContentDecodingError, match="incorrect data check"):
                for piece in pieces:
                    got += decoder.feed(piece, max_length)
                    while decoder.pending:
                        got += decoder.feed(b"", max_length)
            assert got == body
    with pytest.raises(ContentDecodingError) as info:
        decode(wrong, [coding], **UNLIMITED)
    assert info.value.partial == body


def test_zlib_gives_every_byte_before_an_error_in_the_middle():
    wire = gzip.compress(LOG)
    middle = len(wire) // 2
    wrong = wire[:middle] + b"\xff" * 40 + wire[middle + 40 :]
    with pytest.raises(ContentDecodingError, match="not valid gzip") as info:
        decode(wrong, ["gzip"], **UNLIMITED)
    partial = info.value.partial
    # The bytes that zlib itself returns if it gets one byte after the other.
    alone, seen = zlib.decompressobj(31), b""
    with pytest.raises(zlib.error):
        for place in range(len(wrong)):
            seen += alone.decompress(wrong[place : place + 1])
    assert partial == seen
    assert len(partial) > 10_000


def test_the_context_begins_the_text():
    with pytest.raises(ContentDecodingError, match=r"^GET http://a\.test/: the body is not valid"):
        decode(b"<html>", ["gzip"], context="GET http://a.test/", **UNLIMITED)
    with pytest.raises(BodyTooLarge, match=r"^GET http://a\.test/: the body, decoded from gzip, "):
        decode(HELLO_GZIP, ["gzip"], max_body=1, max_ratio=None, context="GET http://a.test/")


# Which codings there are


def test_accept_encoding_names_what_is_installed():
    assert accept_encoding() == "gzip, deflate, br, zstd"


@pytest.fixture
def fresh():
    """Installed codecs are looked up once: clear that before and after."""
    accept_encoding.cache_clear()
    yield
    accept_encoding.cache_clear()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (["brotli", "brotlicffi"], "gzip, deflate, zstd"),
        (["backports.zstd", "_zstd"], "gzip, deflate, br"),
        (["brotli", "brotlicffi", "backports.zstd", "_zstd"], "gzip, deflate"),
    ],
)
def test_accept_encoding_leaves_out_what_is_not_installed(monkeypatch, missing, expected):
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    assert accept_encoding() == expected


@pytest.mark.usefixtures("fresh")
def test_a_brotli_that_cannot_limit_its_output_is_not_used(monkeypatch):
    old = types.ModuleType("brotli")
    old.Decompressor = type("Decompressor", (), {"process": None, "is_finished": None})
    monkeypatch.setitem(sys.modules, "brotli", old)
    monkeypatch.setitem(sys.modules, "brotlicffi", None)
    assert accept_encoding() == "gzip, deflate, zstd"
    assert refused(HELLO_BR, ["br"]) == (
        "the content coding 'br' is not installed (there is neither brotli nor brotlicffi, 1.2 or "
        "later), installed are gzip, deflate, zstd; pip install 'aiohttpconn[brotli]'"
    )


@pytest.mark.usefixtures("fresh")
def test_brotlicffi_is_used_where_brotli_is_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "brotli", None)
    monkeypatch.setitem(sys.modules, "brotlicffi", brotli)  # it has the same names
    assert accept_encoding() == "gzip, deflate, br, zstd"
    assert decode(HELLO_BR, ["br"], **UNLIMITED) == HELLO


@pytest.mark.usefixtures("fresh")
def test_zstd_that_is_not_installed_is_named(monkeypatch):
    for name in ("backports.zstd", "_zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    assert refused(HELLO_ZSTD, ["gzip", "zstd"]) == (
        "the content coding 'zstd' is not installed (there is neither backports.zstd nor, in "
        "Python 3.14, compression.zstd), installed are gzip, deflate, br; "
        "pip install 'aiohttpconn[zstd]'"
    )


def test_a_coding_that_is_not_known_is_named():
    assert refused(b"x", ["gzip", "compress"]) == (
        "the content coding 'compress' is not known, installed are gzip, deflate, br, zstd"
    )
    assert "'x\\n\\x1b" + 97 * "x" + "'" in refused(b"x", ["x\n\x1b" + 1000 * "x"])


def test_importing_the_module_imports_no_codec(monkeypatch):
    for name in ("brotli", "backports.zstd", "zlib"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    spec = importlib.util.spec_from_file_location(
        "aiohttpconn.client.content.codecs_again", codecs.__file__
    )
    monkeypatch.setitem(sys.modules, spec.name, module := importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    assert {"brotli", "backports.zstd", "zlib"}.isdisjoint(sys.modules)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        (["gzip"], ["gzip"]),
        (["GZip"], ["gzip"]),
        (["x-gzip"], ["gzip"]),
        (["identity"], []),
        (["gzip, br"], ["gzip", "br"]),
        (["gzip", "br"], ["gzip", "br"]),
        ([" gzip\t,\tBR , ,", "", "identity, zstd,"], ["gzip", "br", "zstd"]),
        # Names that say nothing of the bytes.
        (["UTF-8"], []),
        (["none", "binary", "aws-chunked"], []),
        (["aws-chunked,gzip"], ["gzip"]),
        (["gzip", "utf-8, identity"], ["gzip"]),
        (["br, ISO-8859-1"], ["br"]),
        # Browsers decode nothing where one coding is unknown.
        (["gzip;q=1"], []),
        (["compress"], []),
        (["gzip, rot13"], []),
        (["rot13, gzip"], []),
        (["a,b,c", "d,e,f,g"], []),
        (["gzip," * 6 + "rot13"], []),
    ],
)
def test_codings_are_listed_over_all_lines(values, expected):
    assert split_codings(values) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["x-gzip, identity", "none", "BR"], ["gzip", "br"]),
        (["rot13, gzip"], ["rot13", "gzip"]),
        (["UTF-8", "aws-chunked,binary"], ["utf-8", "aws-chunked", "binary"]),
        (["a,b,c", "identity,none", "d,e"], ["a", "b", "c", "d", "e"]),
    ],
)
def test_with_strict_unknown_codings_are_listed_as_by_curl(values, expected):
    assert split_codings(values, strict=True) == expected


@pytest.mark.parametrize(
    ("values", "count", "shown"),
    [
        (["gzip, gzip, gzip, gzip, gzip, gzip"], 6, "'gzip, gzip, gzip, gzip, gzip, gzip'"),
        (["gzip"] * 6, 6, "'gzip, gzip, gzip, gzip, gzip, gzip'"),
        (["none,x-gzip,br", "br,br,utf-8", "gzip,zstd"], 6, "'gzip, br, br, br, gzip, zstd'"),
        (["gzip," * 1000] * 10, 10_000, "'" + ("gzip, " * 20)[:100] + "'"),
    ],
)
def test_more_than_five_codings_are_refused(values, count, shown):
    assert MAX_CODINGS == 5
    with pytest.raises(ContentDecodingError) as info:
        split_codings(iter(values))
    assert str(info.value) == (
        f"the body has {count} content codings, at most 5 are decoded: {shown}"
    )


# A coding of one's own


@pytest.mark.usefixtures("fresh")
def test_a_new_coding_is_one_line(monkeypatch):
    monkeypatch.setitem(DECODERS, "bzip2", bz2.BZ2Decompressor)
    assert accept_encoding() == "gzip, deflate, br, zstd, bzip2"
    wire = bz2.compress(HELLO)
    for pieces in every_split(wire):
        for max_length in (1, 5, MAX_LENGTH):
            assert stream(pieces, ["bzip2"], max_length) == HELLO
    assert decode(gzip.compress(wire), ["bzip2", "gzip"], **UNLIMITED) == HELLO
    assert decode(bz2.compress(LARGE), ["bzip2"], **UNLIMITED) == LARGE
    assert refused(wire[:-1], ["bzip2"]).startswith("the body is cut short: its bzip2 stream ")
    assert decode(wire + b"!", ["bzip2"], **UNLIMITED) == HELLO
    assert refused(b"<html>", ["bzip2"]) == (
        "the body is not valid bzip2: Invalid data stream "
        "(after 0 decoded bytes; it begins with b'<html>')"
    )
    with pytest.raises(BodyTooLarge):
        decode(bz2.compress(bytes(MiB)), ["bzip2"], max_body=1000, max_ratio=None)


def test_too_little_memory_is_not_the_bodys_fault(monkeypatch):
    class Greedy:
        needs_input, eof, unused_data = True, False, b""

        def decompress(self, data, max_length):
            return bytearray(sys.maxsize)

    monkeypatch.setitem(DECODERS, "greedy", Greedy)
    with pytest.raises(MemoryError):
        decode(b"x", ["greedy"], **UNLIMITED)


def test_streams_of_any_decoder_may_follow_one_another(monkeypatch):
    # As the standard library's zstd is used, where there is one.
    monkeypatch.setitem(DECODERS, "bzip2", lambda: Members(bz2.BZ2Decompressor, (b"BZh",)))
    one, empty = bz2.compress(HELLO), bz2.compress(b"")
    for pieces in every_split(one + empty + one):
        for max_length in (1, 5, MAX_LENGTH):
            assert stream(pieces, ["bzip2"], max_length) == HELLO * 2
    assert decode(one + b"\0", ["bzip2"], **UNLIMITED) == HELLO
    assert refused(one + b"BZ", ["bzip2"]).startswith("the body is cut short: ")


# Bounds


def zeros_in_gzip(count: int) -> bytes:
    """Return *count* MiB of zeros as gzip, as fast as one; its checksum is not right."""
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = coder.compress(bytes(MiB)) + coder.flush(zlib.Z_FULL_FLUSH)
    block = coder.compress(bytes(MiB)) + coder.flush(zlib.Z_FULL_FLUSH)
    return HELLO_GZIP[:10] + block * count + b"\x03\0" + bytes(8)


GIB_IN_GZIP = zeros_in_gzip(1024)
GIB_IN_ZSTD = WINDOW + b"\x02\x00\x10\0" * 8192 + b"\1\0\0"  # one byte, 131,072 times, 8,192 times
BOMBS = {
    "gzip": (["gzip"], GIB_IN_GZIP),
    "deflate": (["deflate"], GIB_IN_GZIP[10:]),
    "zstd": (["zstd"], GIB_IN_ZSTD),
    "zstd-frames": (["zstd"], zstd(bytes(MiB)) * 1024),
    "br": (["br"], brotli.compress(bytes(16 * MiB), quality=1)),
    "gzip-in-gzip": (["gzip", "gzip"], gzip.compress(GIB_IN_GZIP)),
    "zstd-in-br": (["zstd", "br"], brotli.compress(GIB_IN_ZSTD, quality=1)),
    "five": (["gzip"] * 5, encode(bytes(16 * MiB), ["gzip"] * 5)),
}


@pytest.mark.parametrize("way", ["at-once", "as-it-arrives"])
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_no_more_than_was_asked_for(name, way):
    codings, wire = BOMBS[name]
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge) as info:
            if way == "at-once":
                decode(wire, codings, max_body=MiB, max_ratio=None)
            else:
                stream([wire], codings, max_body=MiB)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(info.value) == (
        f"the body, decoded from {', '.join(codings)}, has more than max_body=1048576 bytes; "
        "a larger max_body= would allow it"
    )
    assert peak < 4 * MiB


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_known_by_its_ratio(name):
    codings, wire = BOMBS[name]
    for outcome in both(wire, codings, max_ratio=8.0):
        assert outcome == (
            ContentDecodingError,
            f"the body looks like a decompression bomb: {len(wire)} bytes of {', '.join(codings)} "
            f"decoded to {max(RATIO_FREE, 8 * len(wire)) + 1} or more, beyond max_ratio=8; a "
            "larger max_ratio= would allow it",
        )


MEMBERS = {
    "gzip": (EMPTY_GZIP, b""),
    "gzip-of-one-byte": (gzip.compress(b"x", mtime=0), b"x"),
    "zstd": (zstd(b""), b""),
    "zstd-skippable": (SKIPPABLE[:4] + bytes(4), b""),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_members_that_take_longer_to_begin_than_to_decode_are_counted(name):
    member, body = MEMBERS[name]
    coding = name[:4]
    for outcome in both(member * 1000, [coding]):
        assert outcome == body * 1000
    for kind, text in both(member * 50_000, [coding]):
        assert kind is ContentDecodingError
        found = re.fullmatch(
            rf"the body looks like a decompression bomb: its {coding} stream has (\d+) members or "
            r"frames in (\d+) bytes, decoded to (\d+): beyond 1000 there may be one for every 256 "
            "encoded or 4096 decoded bytes",
            text,
        )
        assert found is not None
        count, encoded, decoded = map(int, found.groups())
        assert count == 1001 + encoded // 256 + decoded // 4096
        assert decoded == (count - 1) * len(body)


def test_members_are_counted_however_they_are_delivered():
    decoder = ContentDecoder(["gzip"], **UNLIMITED)
    for _ in range(1000 + 1000 * len(EMPTY_GZIP) // 256):
        assert decoder.feed(EMPTY_GZIP) == b""
    with pytest.raises(ContentDecodingError, match=r"has 10[0-9]{2} members or frames in 2"):
        for _ in range(10):
            decoder.feed(EMPTY_GZIP)


@pytest.mark.parametrize("data", [bytes(4096), random.Random(1).randbytes(240)])
def test_members_of_a_useful_size_are_as_many_as_they_like(data):
    # bgzip makes less than 256 bytes, too, of 64 KiB that are all the same.
    member = gzip.compress(data, mtime=0)
    for body in both(member * 3000, ["gzip"]):
        assert body == data * 3000


def test_a_ratio_is_measured_beyond_what_is_free():
    free, more = zstd(bytes(RATIO_FREE)), zstd(bytes(RATIO_FREE + 1))
    for body in both(free, ["zstd"], max_ratio=1.0):
        assert body == bytes(RATIO_FREE)
    assert [kind for kind, _ in both(more, ["zstd"], max_ratio=1.0)] == [ContentDecodingError] * 2
    for body in both(more, ["zstd"], max_ratio=(RATIO_FREE + 1) / len(more)):
        assert len(body) == RATIO_FREE + 1


def test_a_stream_is_measured_as_it_arrives():
    decoder = ContentDecoder(["gzip"], max_body=None, max_ratio=100.0)
    got = len(decoder.feed(GIB_IN_GZIP[:10_000]))
    with pytest.raises(
        ContentDecodingError, match=r"bomb: 10000 bytes of gzip decoded to 8388609 or"
    ):
        while decoder.pending:
            got += len(decoder.feed(b""))
    assert got <= RATIO_FREE


@pytest.mark.parametrize("codings", [*CHAINS, []], ids=lambda codings: ",".join(codings))
def test_a_body_may_be_just_as_long_as_is_allowed(codings):
    wire = encode(LARGE, codings)
    for max_length in (1000, MAX_LENGTH):
        assert stream([wire], codings, max_length, max_body=len(LARGE)) == LARGE
        with pytest.raises(BodyTooLarge):
            stream([wire], codings, max_length, max_body=len(LARGE) - 1)
    assert decode(wire, codings, max_body=len(LARGE), max_ratio=None) == LARGE
    with pytest.raises(BodyTooLarge):
        decode(wire, codings, max_body=len(LARGE) - 1, max_ratio=None)


@pytest.mark.parametrize("max_body", [0, -1])
@pytest.mark.parametrize("coding", ENCODERS)
def test_no_byte_may_be_allowed(coding, max_body):
    assert both(ENCODERS[coding](b""), [coding], max_body=max_body) == [b"", b""]
    for kind, _ in both(ENCODERS[coding](HELLO), [coding], max_body=max_body):
        assert kind is BodyTooLarge


@pytest.mark.parametrize("limits", [{"max_body": 10**40}, {"max_ratio": 1e300}, {}])
def test_limits_may_be_without_limit(limits):
    assert both(HELLO_GZIP, ["gzip"], **limits) == [HELLO, HELLO]
    assert both(EMPTY_GZIP + HELLO_GZIP, ["gzip"], **limits) == [HELLO, HELLO]


NAMED_GZIP = EMPTY_GZIP[:3] + b"\x08" + EMPTY_GZIP[4:10] + b"name" * 5 + b"\0" + EMPTY_GZIP[10:]
LONG_SKIPPABLE = SKIPPABLE[:4] + b"\x20\0\0\0" + bytes(32)


@pytest.mark.parametrize(
    ("codings", "inner", "body"),
    [
        (["gzip", "br"], NAMED_GZIP * 1000, b""),
        (["gzip", "br"], HELLO_GZIP + bytes(40_000), HELLO),
        (["zstd", "br"], LONG_SKIPPABLE * 999 + HELLO_ZSTD, HELLO),
        (["zstd", "br"], WINDOW + bytes(39_999) + b"\1\0\0", b""),
        (["gzip", "br", "gzip"], NAMED_GZIP * 1000, b""),
    ],
    ids=["empty-members", "padding", "skippable-frames", "empty-blocks", "in-the-middle"],
)
def test_what_lies_between_codings_is_bounded(monkeypatch, codings, inner, body):
    wire = encode(inner, codings[1:])
    assert both(wire, codings, max_body=len(body), max_ratio=1.0) == [body, body]
    monkeypatch.setattr(decoding, "NESTED_FREE", 30_000)
    for limits, bound in (({"max_ratio": 100.0}, 30_000), ({"max_body": 1000}, 31_000)):
        for outcome in both(wire, codings, **limits):
            assert outcome == (
                ContentDecodingError,
                f"the body looks like a decompression bomb: {len(wire)} bytes of "
                f"{', '.join(codings)} decoded to {bound + 1} or more in an inner coding, "
                "although encoded data hardly shrink again; max_ratio=None and a larger max_body= "
                "would allow it",
            )
    assert both(wire, codings) == [body, body]


def test_errors_can_be_pickled():
    for limits in ({}, {"max_body": 5}):
        with pytest.raises((ContentDecodingError, BodyTooLarge)) as info:
            decode(HELLO_GZIP[:-1], ["gzip"], **{**UNLIMITED, **limits})
        again = pickle.loads(pickle.dumps(info.value))
        assert (type(again), str(again)) == (type(info.value), str(info.value))


# Whatever arrives


BODIES = st.one_of(
    st.binary(max_size=300),
    st.tuples(st.binary(min_size=1, max_size=9), st.integers(1, 40_000)).map(lambda x: x[0] * x[1]),
    st.integers(0, len(LARGE)).map(lambda start: LARGE[start : start + 60_000]),
)
CODINGS = st.lists(st.sampled_from(list(ENCODERS)), min_size=1, max_size=3)
MAX_LENGTHS = st.sampled_from([7, 100, 5000, 65_536, MAX_LENGTH])


@given(st.data(), BODIES, CODINGS, MAX_LENGTHS)
def test_any_body_survives_any_codings(data, body, codings, max_length):
    wire = encode(body, codings)
    if len(body) > 5000:
        max_length = max(max_length, 1000)
        pieces = [wire[:9], wire[9 : len(wire) // 2], wire[len(wire) // 2 :]]
    else:
        pieces = data.draw(cuts(wire))
    assert stream(pieces, codings, max_length) == body
    assert decode(wire, codings, max_body=len(body), max_ratio=None) == body


@given(st.data(), st.binary(max_size=200), CODINGS)
def test_any_cut_is_noticed(data, body, codings):
    wire = encode(body, codings)
    end = data.draw(st.integers(1, len(wire)))
    for outcome in both(wire[:end], codings):
        if end == len(wire):
            assert outcome == body
        else:
            assert outcome[0] is ContentDecodingError


@given(st.data(), st.binary(max_size=200), st.sampled_from(["gzip", "zstd"]))
def test_no_wrong_byte_gives_a_wrong_body(data, body, coding):
    wire = bytearray(encode(body, [coding]))
    at = data.draw(st.integers(0, len(wire) - 1))
    wire[at] ^= data.draw(st.integers(1, 255))
    for outcome in both(bytes(wire), [coding]):
        # Not every byte counts: gzip's clock does not.
        assert outcome == body or outcome[0] is ContentDecodingError


@given(st.data(), CODINGS, MAX_LENGTHS)
def test_no_bytes_whatever_raise_anything_else(data, codings, max_length):
    wire = bytearray(encode(data.draw(st.binary(max_size=100)), codings))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(wire)))
        wire[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    outcomes = both(bytes(wire), codings, max_body=MiB)
    try:
        got = stream(data.draw(cuts(bytes(wire))), codings, max_length, max_body=MiB)
    except (ContentDecodingError, BodyTooLarge) as exc:
        got = type(exc), str(exc)
    # libzstd checks a frame that it gets whole more strictly than one that comes in pieces.
    if "zstd" not in codings:
        for outcome in outcomes:
            assert outcome == got if isinstance(got, bytes) else outcome[0] is got[0]
