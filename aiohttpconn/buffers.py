"""Memory that bytes are read into, and that bodies are kept in.

Layer: above exchange, below protocol.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from contextlib import suppress
from typing import TypeAlias

__all__ = ["SCRATCH_SIZE", "TLS_SCRATCH", "reads_in_one_go", "scratch"]

SCRATCH_SIZE = 256 * 1024
"""Bytes of one read; more gain nothing, 64 KiB cost a third: benchmarks/micro/buffer_size.py."""

TLS_SCRATCH = SCRATCH_SIZE + 64 * 1024
"""Bytes offered to a TLS layer: what one read from TCP can decrypt to has to fit, and more."""

_FREED = 8 * 1024 * 1024
"""Bytes of bodies whose memory is kept for the next ones: see ``keep_freed_memory``."""

_Scratch: TypeAlias = tuple[bytearray, dict[int, memoryview]]

_scratches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Scratch] = (
    weakref.WeakKeyDictionary()
)


def reads_in_one_go(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether nothing runs between ``get_buffer`` and ``buffer_updated`` on *loop*."""
    return sys.platform != "win32" or isinstance(loop, asyncio.SelectorEventLoop)


def scratch(loop: asyncio.AbstractEventLoop, size: int) -> tuple[bytearray, memoryview]:
    """Return the buffer that the connections of *loop* read into, and a view of *size* bytes.

    The view is shared, too: it weighs as much as a fifth of an idle connection.
    """
    found = _scratches.get(loop)
    if found is None:
        keep_freed_memory()
        found = _scratches[loop] = bytearray(TLS_SCRATCH), {}
    buffer, views = found
    view = views.get(size)
    if view is None:
        view = views[size] = memoryview(buffer)[:size]
    return buffer, view


def keep_freed_memory() -> None:
    """Let the C library use the memory of bodies again, for those of up to ``_FREED`` bytes.

    glibc gives the memory of a freed body back to the kernel, which then has to clear and map
    every page of the next one: half the cost of a body of 1 MiB. It does so above a threshold,
    which is the largest block that it had mapped and that was freed: so one is, untouched.
    Twice as much may stay with the process. Other allocators take no notice. See
    benchmarks/micro/freed_memory.py.
    """
    with suppress(MemoryError):
        bytes(_FREED)
