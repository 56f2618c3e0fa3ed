"""Decode a whole body at once, as a client does in steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttpconn.client.content.decoding import decode_in_steps, decode_small

if TYPE_CHECKING:
    from collections.abc import Sequence


def decode(
    data: bytes,
    codings: Sequence[str],
    *,
    max_body: int | None,
    max_ratio: float | None,
    context: str = "",
) -> bytes:
    """Return the decoded *data*; arguments and errors are those of ``decode_in_steps``."""
    out = decode_small(data, codings, max_body=max_body, max_ratio=max_ratio)
    if out is not None:
        return out
    steps = decode_in_steps(data, codings, max_body=max_body, max_ratio=max_ratio, context=context)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            decoded: bytes = end.value
            return decoded
