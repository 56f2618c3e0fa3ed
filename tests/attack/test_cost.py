"""What a response costs its reader: in calls for each byte on the wire, and in turns of the loop.

No clock is asked. ``benchmarks/micro/chunk_costs.py`` has the times.
"""

from __future__ import annotations

import sys

import pytest

from aiohttpconn.http11.chunked import ChunkedDecoder
from aiohttpconn.http11.grammar import small_chunks


@pytest.fixture(autouse=True)
def compiled():
    """The patterns are there: they are made at their first use."""
    for line_ends in (False, True):
        small_chunks(False, line_ends)


def calls(function, *args):
    """Return (its result, how many functions it calls, of Python and of C)."""
    count = 0

    def profile(frame, event, arg):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        result = function(*args)
    finally:
        sys.setprofile(before)
    return result, count


def chunk(size, line=b"%x", data=b"x"):
    return (line % size) + b"\r\n" + (data * size)[:size] + b"\r\n"


def chunks(*args, **options):
    one = chunk(*args, **options)
    return one * (60_000 // len(one))


SHAPES = {
    # wire, calls for each byte at most
    "1-byte": (chunks(1), 0.01),
    "1-byte-and-a-blank": (chunks(1, b"%x "), 0.01),
    "1-byte-and-an-extension": (chunks(1, b"%x;a"), 0.01),
    "1-byte-and-a-value": (chunks(1, b"%x;name=value"), 0.01),
    "1-byte-and-zeros": (chunks(1, b"0000%x"), 0.01),
    "1-byte-and-46-blanks": (chunks(1, b"%x" + b" " * 46), 0.01),
    "1-byte-CR": (chunks(1, data=b"\r"), 0.01),
    "7-bytes": (chunks(7), 0.01),
    "15-bytes": (chunks(15), 0.01),
    "small-ones-of-all-sizes": (b"".join(map(chunks, range(1, 16))), 0.01),
    "2-bytes-CRLF": (chunks(2, data=b"\r\n"), 1),
    "15-bytes-CRLF": (chunks(15, data=b"\r\n"), 1),
    "16-bytes": (chunks(16), 0.3),
    "16-bytes-and-an-extension": (chunks(16, b"%x;a"), 0.4),
}


@pytest.mark.parametrize(("wire", "most"), SHAPES.values(), ids=SHAPES)
def test_small_chunks_cost_few_calls(wire, most):
    decoder = ChunkedDecoder()
    (_, pos), count = calls(decoder.decode, bytearray(wire), 0, len(wire))
    assert (pos, decoder.error) == (len(wire), None)
    assert count <= most * len(wire) + 60


def test_every_kind_of_small_chunk_costs_less_than_a_call_for_two_bytes():
    kinds = [
        chunk(1, b"%x" + b" " * 47),
        chunk(1, b"%x;" + b"e" * 62),
        chunk(16),
        chunk(1),
        chunk(2, data=b"\r\n"),
        chunk(10, b"000000%x", data=b"1\r\n"),
    ]
    wire = b"".join(first + second for first in kinds for second in kinds) * 30
    decoder = ChunkedDecoder()
    (_, pos), count = calls(decoder.decode, bytearray(wire), 0, len(wire))
    assert (pos, decoder.error) == (len(wire), None)
    assert count <= 0.5 * len(wire)
