"""The same bytes, delivered in every way that a network may deliver them.

    @pytest.mark.parametrize("pieces", deliveries(b"HTTP/1.1 204 No Content\\r\\n\\r\\n"))
    async def test_reads_a_response_however_it_is_delivered(pieces): ...

A delivery is a list of pieces; each is one read of the receiver. Only the functions that return
parameters import pytest. Layer: the test kit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

__all__ = [
    "GARBAGE",
    "MAX_SPLITS",
    "deliveries",
    "named_deliveries",
    "split_points",
    "with_trailing_garbage",
]

PIECE = 20
"""Bytes; shorter than most lines, longer than a CRLF."""

MAX_SPLITS = 24
"""Two-way splits of one input: all of a short input, the telling ones of a long one."""

GARBAGE = b"HTTP/1.1 599 Smuggled\r\nContent-Length: 0\r\n\r\n"
"""Bytes after a response in ``with_trailing_garbage``: a response without a request."""


def deliveries(data: bytes, *, splits: int = MAX_SPLITS) -> list[pytest.ParameterSet]:
    """Return ``pytest.param(pieces, id=...)``s: whole, byte by byte, in 20s, split in two.

    There are at most *splits* two-way splits: all of a short input; of a longer one those in and
    around its CRLFs, those next to its ends, and others evenly spread.
    """
    import pytest

    return [pytest.param(pieces, id=name) for name, pieces in named_deliveries(data, splits=splits)]


def named_deliveries(data: bytes, *, splits: int = MAX_SPLITS) -> list[tuple[str, list[bytes]]]:
    """Return the cases of ``deliveries`` as ``(name, pieces)``, for a loop in one test."""
    named = [("whole", [data])]
    if len(data) > 1:
        named.append(("byte-by-byte", [data[i : i + 1] for i in range(len(data))]))
    if len(data) > PIECE:
        pieces = [data[i : i + PIECE] for i in range(0, len(data), PIECE)]
        named.append((f"in-{PIECE}s", pieces))
    named += [(f"split-at-{i}", [data[:i], data[i:]]) for i in split_points(data, splits)]
    return named


def with_trailing_garbage(data: bytes, garbage: bytes = GARBAGE) -> list[pytest.ParameterSet]:
    """Return deliveries of *data* followed by bytes that do not belong to it.

    The garbage comes in the read that ends *data*, in its own read, and with the last byte.
    """
    import pytest

    return [
        pytest.param([data + garbage], id="garbage-in-the-same-read"),
        pytest.param([data, garbage], id="garbage-in-its-own-read"),
        pytest.param([data[:-1], data[-1:] + garbage], id="garbage-behind-the-last-byte"),
    ]


def split_points(data: bytes, limit: int) -> list[int]:
    """Return up to *limit* indices at which *data* is cut in two, in order."""
    every = range(1, len(data))
    if len(every) <= limit:
        return list(every)
    # Telling splits first: before, inside and after each CRLF; those at the blank line, where a
    # head ends, come before those at the lines above it.
    chosen: dict[int, None] = {}
    for mark in (b"\r\n\r\n", b"\r\n"):
        at = data.find(mark)
        while at >= 0:
            chosen.update(dict.fromkeys(range(at, at + len(mark) + 1)))
            at = data.find(mark, at + 1)
    chosen.update(dict.fromkeys((1, len(data) - 1)))
    telling = [i for i in chosen if 0 < i < len(data)]
    if len(telling) > limit:
        blank_lines, rest = telling[:5], telling[5:]
        step = len(rest) / max(1, limit - len(blank_lines))
        spread = [rest[int(k * step)] for k in range(max(0, limit - len(blank_lines)))]
        return sorted((blank_lines + spread)[:limit])
    step = len(every) / limit
    fill = (every[int(k * step)] for k in range(limit))
    for i in fill:
        if len(telling) == limit:
            break
        if i not in chosen:
            telling.append(i)
    return sorted(telling)
