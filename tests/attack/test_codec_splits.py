"""The same bytes and the same error come of a broken body, however it is delivered.

Each coding, and each way to break it: cut, a byte changed, another inserted or left out, at each
place; delivered whole, byte by byte, and split at each place.
"""

from __future__ import annotations

import random
import re

import pytest

from aiohttpconn.client.content.decoding import ContentDecoder
from aiohttpconn.exceptions import BodyTooLarge, ContentDecodingError

from ..test_decoding import ENCODERS, raw_deflate, zstd

TEXT = b"hello, hello, hello! " + bytes(range(60)) + b"hello " * 30


def decoded(pieces, codings, max_body=None):
    """Return (the decoded bytes, the text of the error or "")."""
    out = []
    try:
        decoder = ContentDecoder(codings, max_body=max_body, max_ratio=None)
        for piece in pieces:
            out.append(decoder.feed(piece))
            while decoder.pending:
                out.append(decoder.feed(b""))
        decoder.finish()
    except (ContentDecodingError, BodyTooLarge) as exc:
        return b"".join(out), without_quotation(str(exc))
    return b"".join(out), ""


def without_quotation(text):
    """The bytes that an error quotes are those that had arrived."""
    return re.sub(r"; it begins with b(['\"]).*\1\)", ")", text)


STREAMS = {name: (name, encode(TEXT)) for name, encode in ENCODERS.items()}
STREAMS |= {
    "raw-deflate": ("deflate", raw_deflate(TEXT)),
    "gzip-members": ("gzip", ENCODERS["gzip"](b"hello") + ENCODERS["gzip"](b", world") + b"\0\0"),
    "zstd-frames": ("zstd", zstd(b"hello") + b"\x5a\x2a\x4d\x18\2\0\0\0ab" + zstd(b", world")),
    "zstd-blocks": ("zstd", zstd(random.Random(3).randbytes(300))),
}


def broken(wire, seed=0):
    """Yield *wire* broken in each way at each place."""
    made = random.Random(seed)
    for place in range(len(wire)):
        yield wire[:place]
        yield wire[:place] + bytes([wire[place] ^ 1 << made.randrange(8)]) + wire[place + 1 :]
        yield wire[:place] + b"\xff" + wire[place + 1 :]
        yield wire[:place] + wire[place + 1 :]
        yield wire[:place] + made.randbytes(1) + wire[place:]
        yield wire[:place] + made.randbytes(3)
    yield wire + b"x"
    yield wire + wire[:7]
    yield wire + wire[:-3]


def splits(wire, step=1):
    yield [wire[i : i + 1] for i in range(len(wire))]
    yield [wire[i : i + 7] for i in range(0, len(wire), 7)]
    for place in range(1, len(wire), step):
        yield [wire[:place], wire[place:]]


def check(coding, wires, step):
    for wire in wires:
        expected = decoded([wire], [coding])
        for pieces in splits(wire, step):
            assert decoded(pieces, [coding]) == expected, (wire, pieces)


@pytest.mark.parametrize("name", STREAMS)
def test_a_broken_body_however_it_is_delivered(name):
    coding, wire = STREAMS[name]
    wires = list(broken(wire))
    check(coding, wires[:: max(1, len(wires) // 60)], step=5)


@pytest.mark.siege
@pytest.mark.parametrize("name", STREAMS)
def test_every_broken_body_at_every_split(name):
    coding, wire = STREAMS[name]
    check(coding, broken(wire, seed=1), step=1)
