"""Memory for reading from sockets, and for the bodies of responses.

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
"""Bytes of one read. More gain nothing, 64 KiB cost a third: benchmarks/micro/buffer_size.py."""

TLS_SCRATCH = SCRATCH_SIZE + 64 * 1024
"""Bytes offered to a TLS layer: room for all that one read from TCP decrypts to, and more."""

_FREED = 8 * 1024 * 1024
"""Bytes up to which a freed body's memory is kept for the next: see ``keep_freed_memory``."""

_Scratch: TypeAlias = tuple[bytearray, dict[int, memoryview]]

_scratches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Scratch] = (
    weakref.WeakKeyDictionary()
)


def reads_in_one_go(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether nothing runs between ``get_buffer`` and ``buffer_updated`` on *loop*."""
    return sys.platform != "win32" or isinstance(loop, asyncio.SelectorEventLoop)


def scratch(loop: asyncio.AbstractEventLoop, size: int) -> tuple[bytearray, memoryview]:
    """Return the buffer that the connections of *loop* read into, and a view of *size* bytes.

    The view is shared, too: it takes as much memory as a fifth of an idle connection.
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
    """Let the C library reuse the memory of freed bodies of up to ``_FREED`` bytes.

    glibc returns the memory of a freed body to the kernel, which then has to clear and map every
    page of the next one: half the cost of a body of 1 MiB. It does so above a threshold: the size
    of the largest block that was mapped and then freed. So this maps and frees one, untouched.
    The process may keep twice as much. Other allocators are not affected. See
    benchmarks/micro/freed_memory.py.
    """
    with suppress(MemoryError):
        bytes(_FREED)
