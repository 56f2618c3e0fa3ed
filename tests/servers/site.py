"""The files that the static servers have to serve, the same for all.

/small.txt          12 bytes
/text.txt           100,000 bytes of text, which compress well
/big.bin            32 MiB
/folder/            an index.html
/n/0.txt ...        their own numbers, 1,000 of them
"""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BIG", "NUMBERED", "SMALL", "TEXT", "Site"]

SMALL = b"hello, world"
TEXT = b"".join(b"%09d\n" % number for number in range(10_000))
BIG = 32 * 1024 * 1024
"""Bytes of the large file."""

NUMBERED = 1000
"""How many small files there are."""

_BLOCK = bytes(range(256)) * 4096


class Site:
    """The folder. ``digest`` is the SHA-256 of the large file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "folder").mkdir(parents=True)
        (folder / "n").mkdir()
        (folder / "folder" / "index.html").write_bytes(b"<!doctype html><p>here")
        (folder / "small.txt").write_bytes(SMALL)
        (folder / "text.txt").write_bytes(TEXT)
        for number in range(NUMBERED):
            (folder / "n" / f"{number}.txt").write_bytes(b"%d" % number)
        self.digest = _write_big(folder / "big.bin")
        # Of what is younger than a second, apache2 gives a weak ETag, and no part can be continued.
        past = time.time() - 3600
        for path in folder.rglob("*"):
            os.utime(path, (past, past))


def _write_big(path: Path) -> str:
    """Write a file in which no two places are alike, as far as a test would mix them up."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for number in range(BIG // len(_BLOCK)):
            block = b"%032d" % number + _BLOCK[32:]
            digest.update(block)
            file.write(block)
    return digest.hexdigest()
