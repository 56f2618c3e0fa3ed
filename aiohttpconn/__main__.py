"""``python -m aiohttpconn``: a small curl, and ``demo``. Layer: the top; nothing imports it."""

from __future__ import annotations

import os
import sys

from .cli import main

if __name__ == "__main__":
    # Where a shell has closed standard input, output or error (`>&-`), the next socket would
    # get that descriptor, and what is written there.
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)
    sys.exit(main(sys.argv[1:]))
