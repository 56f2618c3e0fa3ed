"""The command line. Only ``python -m aiohttpconn`` imports it; the library does not.

``main`` only chooses: curl.py fetches a URL, demo.py is ``demo``.
Layer: above the whole core.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ..net.tls import HAS_TLS, NO_TLS

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Run ``python -m aiohttpconn`` with the arguments *argv*; return its exit code."""
    try:
        if argv[:1] == ["demo"] and not HAS_TLS:
            print(f"The demo needs https. {NO_TLS}", file=sys.stderr)
            code = 1
        elif argv[:1] == ["demo"]:
            from .demo import main as show

            code = show(argv[1:])
        else:
            from .curl import main as fetch

            code = fetch(argv)
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130  # a shell's code for a program that SIGINT ended
    except BrokenPipeError:
        # The reader of our output has closed it. Text that print() still holds has nowhere to
        # go, and must not fail again when the interpreter ends.
        code = 23
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
