"""Limits of a response's head and framing, each with its reason.

They bound the memory and the work that a peer can cause here. Layer: the wire; pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..arguments import check_arguments, count

__all__ = ["CHUNK_OVERHEAD_RATIO", "DEFAULT_LIMITS", "MAX_EMPTY_LINES", "Limits"]

MAX_FIELDS = 100
"""Field lines of a head: http.client's number."""

MAX_LINE = 65_536
"""Bytes of one line of a head, its line end included: http.client's number."""

MAX_HEAD_BYTES = 256 * 1024
"""Bytes of a response's heads, its 1xx heads included: 100 lines of 64 KiB would be 6.4 MB."""

MAX_EMPTY_LINES = 8
"""Empty lines that are skipped before a status line."""

MAX_INTERIM = 100
"""1xx responses before the final one. RFC 9110 §15.2 sets no limit: they could come for ever."""

MAX_TRAILERS = 100
"""Field lines after a chunked body."""

MAX_CHUNK_LINE = 4096
"""Bytes of one chunk-size line with its extensions."""

MAX_CHUNK_OVERHEAD = 16 * 1024
"""Bytes of a chunked body's framing that are free; beyond them the ratio below applies."""

CHUNK_OVERHEAD_RATIO = 128
"""Bytes of framing allowed per byte of content, where there are extensions: a flood of them must
come with content."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one connection. A response that exceeds one is an error and closes it.

    ``max_fields``: field lines in a head. ``max_line``: bytes of one line. ``max_head_bytes``:
    bytes of all heads of one response. ``max_interim``: 1xx responses. ``max_trailers``: field
    lines of trailers. ``max_chunk_line``: bytes of one chunk-size line. ``max_chunk_overhead``:
    bytes of a chunked body's framing beyond 128 per byte of content, if chunks have extensions.
    """

    max_fields: int = MAX_FIELDS
    max_line: int = MAX_LINE
    max_head_bytes: int = MAX_HEAD_BYTES
    max_interim: int = MAX_INTERIM
    max_trailers: int = MAX_TRAILERS
    max_chunk_line: int = MAX_CHUNK_LINE
    max_chunk_overhead: int = MAX_CHUNK_OVERHEAD

    def __post_init__(self) -> None:
        values = {name: getattr(self, name) for name in _CHECKS}
        check_arguments(_CHECKS, values, "Limits({}=...)")


_CHECKS = dict.fromkeys(Limits.__annotations__, count(0))


DEFAULT_LIMITS = Limits()
