"""Output: bodies to a file or standard output, everything else to standard error."""

from __future__ import annotations

import asyncio
import os
import select
import stat
import sys
from types import TracebackType
from typing import Self

from .exits import WRITE_ERROR, Failed

__all__ = ["Notes", "Output"]

PIPE_PIECE = getattr(select, "PIPE_BUF", 512)
"""Bytes that a writable pipe accepts without blocking (POSIX)."""


class Output:
    """The destination of a response: the file *path*, or standard output if that is "-".

    ``open()`` makes the file, and may be called again. A slow reader of standard output makes
    ``write()``, and so the server, wait. It never blocks the event loop, so that time limits and
    Ctrl-C work. *deadline* is the time at which all writing ends, by the loop's clock.
    """

    def __init__(self, path: str, deadline: float | None) -> None:
        self._path = path
        self._deadline = deadline
        self._fd = -1
        self._polled = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._fd >= 0 and self._path != "-":
            os.close(self._fd)

    def open(self) -> None:
        """Open and empty the file; raise ``Failed`` if that fails."""
        if self._fd >= 0:
            return
        if self._path == "-":
            if sys.stdout is None:
                raise Failed(WRITE_ERROR, "standard output is closed")
            self._fd = sys.stdout.fileno()
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
            try:
                self._fd = os.open(self._path, flags, 0o666)
            except OSError as exc:
                raise self._failed(exc) from exc
        self._polled = os.name == "posix" and not stat.S_ISREG(os.fstat(self._fd).st_mode)

    async def write(self, data: bytes) -> None:
        """Write all of *data*; raise ``Failed`` if that fails, with no text for a closed pipe."""
        # A few bytes may decode to a huge body, so yield: nothing else in this loop waits.
        await asyncio.sleep(0)
        if self._deadline is not None and asyncio.get_running_loop().time() >= self._deadline:
            raise TimeoutError("the time limit passed before the output was written")
        self.open()
        view = memoryview(data)
        while view:
            if self._polled and not self._is_writable():
                await self._wait_writable()
            try:
                size = os.write(self._fd, view[:PIPE_PIECE] if self._polled else view)
            except BlockingIOError:
                # The program that gave us this descriptor has made it non-blocking.
                self._polled = True
            except BrokenPipeError:
                raise Failed(WRITE_ERROR) from None
            except OSError as exc:
                raise self._failed(exc) from exc
            else:
                view = view[size:]

    def _is_writable(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(0))

    async def _wait_writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(self._fd, ready.set)
        try:
            async with asyncio.timeout_at(self._deadline):
                await ready.wait()
        except TimeoutError:
            raise TimeoutError("the output was not read within the time limit") from None
        finally:
            loop.remove_writer(self._fd)

    def _failed(self, exc: OSError) -> Failed:
        where = "standard output" if self._path == "-" else repr(self._path)
        return Failed(WRITE_ERROR, f"cannot write to {where}: {exc.strerror or exc}")


class Notes:
    """Standard error, with the marks of ``curl -v``; only errors unless *verbose*."""

    def __init__(self, verbose: bool = False) -> None:
        self._verbose = verbose

    def note(self, text: str) -> None:
        """Show *text*, a step of the transfer, if verbose."""
        if self._verbose:
            _print(f"* {text}")

    def head(self, mark: str, first_line: str, fields: list[tuple[str, str]]) -> None:
        """Show a message's head, line by line; *mark* is ">" or "<"."""
        if self._verbose:
            _print(f"{mark} {first_line}")
            for name, value in fields:
                _print(f"{mark} {name}: {_hidden(name, value)}")
            _print(mark)

    def error(self, code: int, text: str) -> None:
        """Show *text*, the reason for exit code *code*."""
        _print(f"aiohttpconn: ({code}) {text}")


def _hidden(name: str, value: str) -> str:
    """Return a field's value without credentials: this output ends up in bug reports."""
    if name.lower() in ("authorization", "proxy-authorization"):
        return f"{value.partition(' ')[0]} ***"
    return value


def _print(text: str) -> None:
    """Print *text* on standard error. Control characters are escaped: a server may send some."""
    if sys.stderr is None:
        return  # print() would take standard output instead
    # Fields are ISO-8859-1 by RFC 9110 §5.5, and mostly UTF-8 in practice.
    if not text.isascii() and max(text) <= "\xff":
        text = text.encode("latin-1").decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in text)
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        pass
