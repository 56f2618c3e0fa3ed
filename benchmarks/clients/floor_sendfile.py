"""The floor for sending a file: ``loop.sendfile``, from the kernel to the kernel."""

from __future__ import annotations

import asyncio

from clients.floor import Answered
from clients.floor import Client as Floor


class Client(Floor):
    async def upload_file(self, bare: Answered) -> int:
        bare.begin()
        bare.transport.write(self.request)
        with open(self.job.file, "rb") as file:
            await asyncio.get_running_loop().sendfile(bare.transport, file, fallback=False)
        return await bare.answer()
