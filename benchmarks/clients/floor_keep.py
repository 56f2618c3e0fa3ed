"""The floor that keeps the body in fresh memory, with the cost of the kernel's page faults."""

from __future__ import annotations

import mmap

from clients.floor import Bare, WrongReply
from clients.floor import Client as Floor


class Keeping(Bare):
    """Land each reply in memory that was allocated for it."""

    body: memoryview | None = None
    first = b""

    def begin(self, size: int) -> None:
        # Anonymous memory, which nothing touches before bytes land in it.
        self.memory = mmap.mmap(-1, size)
        self.body = memoryview(self.memory)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.body or self.scratch

    def buffer_updated(self, nbytes: int) -> None:
        if self.body is not None:
            self.body = self.body[nbytes:]
        super().buffer_updated(nbytes)


class Client(Floor):
    protocol = Keeping

    async def get(self, bare: Keeping) -> int:
        bare.begin(self.reply)
        await bare.exchange(self.request, self.reply)
        if not bare.memory[:13] == b"HTTP/1.1 200 ":
            raise WrongReply(repr(bare.memory[:13]))
        bare.body = None
        del bare.memory
        return self.job.size
