"""Programs that tests run in development mode, and the one thing that they may say."""

from __future__ import annotations

import re

__all__ = ["SLOW_STEP", "complaints"]

SLOW_STEP = re.compile(r"Executing <.*> took [0-9.]+ seconds")
"""A line of the logger ``asyncio`` in debug mode, of a step of 0.1 s: the machine may be busy."""


def complaints(output: str) -> str:
    """Return the lines of *output*, of a program run with ``-X dev``, but for slow steps."""
    lines = output.splitlines(keepends=True)
    return "".join(line for line in lines if not SLOW_STEP.fullmatch(line.rstrip("\n")))
