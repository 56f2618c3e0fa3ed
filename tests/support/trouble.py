"""The ways in which every request of a pool fails, for tests of what a failure leaves behind.

    async with Trouble("refused", certificates, monkeypatch) as trouble:
        async with ConnectionPool(**trouble.options) as pool:
            with pytest.raises(trouble.error):
                await pool.request("GET", trouble.url)

``TROUBLES`` has their names: each is a method of ``Trouble`` that sets it up.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import os
import socket
from typing import TYPE_CHECKING, Any

from aiohttpconn import (
    BadStatusLine,
    CertificateError,
    ConnectionVetoed,
    IncompleteRead,
    ResolveError,
)
from aiohttpconn.testing import (
    ScriptedServer,
    close,
    expect,
    read_all,
    refusing_address,
    reset,
    send,
)

from .pool_requests import answering
from .pooled import OK
from .proxies import ConnectProxy

if TYPE_CHECKING:
    import pytest

__all__ = ["TROUBLES", "Trouble"]


class Trouble:
    """One way in which every request fails: ``url``, the pool's ``options``, and the ``error``."""

    def __init__(self, name: str, certificates: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name = name
        self.options: dict[str, Any] = {}
        self.error: type[BaseException] = OSError
        self._certificates = certificates
        self._monkeypatch = monkeypatch
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Trouble:
        await self._stack.__aenter__()
        await getattr(self, self.name)()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._stack.__aexit__(*exc_info)

    async def _serve(self, script: Any, **keywords: Any) -> ScriptedServer:
        """Start a server that runs *script*, and send the requests there."""
        server = await self._stack.enter_async_context(ScriptedServer(script, **keywords))
        self.url = server.url
        return server

    async def refused(self) -> None:
        host, port = self._stack.enter_context(refusing_address())
        self.url = f"http://{host}:{port}/"

    async def unknown_name(self) -> None:
        class Unknown:
            async def resolve(self, host: str, port: int) -> Any:
                await asyncio.sleep(0)
                raise ResolveError("no such name")

        self.url = "http://nowhere.test/"
        self.options["resolver"] = Unknown()

    async def broken_resolver(self) -> None:
        class Broken:
            async def resolve(self, host: str, port: int) -> Any:
                await asyncio.sleep(0)
                raise KeyError(host)

        self.url = "http://nowhere.test/"
        self.options["resolver"] = Broken()
        self.error = KeyError

    async def vetoed(self) -> None:
        await self._serve(answering)

        def on_connect(address: str, host: str, port: int) -> None:
            raise RuntimeError("not there")

        self.options["on_connect"] = on_connect
        self.error = ConnectionVetoed

    async def no_descriptor(self) -> None:
        await self._serve(answering)

        def fail(*args: Any) -> Any:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        class Module:
            socket = staticmethod(fail)

            def __getattr__(self, name: str) -> Any:
                return getattr(socket, name)

        self._monkeypatch.setattr("aiohttpconn.net.sockets.socket", Module())

    async def untrusted(self) -> None:
        await self._serve(answering, tls=self._certificates.untrusted)
        self.options["context"] = self._certificates.client
        self.error = CertificateError

    async def no_tls(self) -> None:
        server = await self._serve([send(OK), read_all()])
        self.url = server.url.replace("http:", "https:")
        self.options["context"] = self._certificates.client

    async def refusing_proxy(self) -> None:
        proxy = ConnectProxy(refuse=b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
        await self._stack.enter_async_context(proxy)
        self.url = "https://example.test/"
        self.options.update(proxy=proxy.url, context=self._certificates.client)

    async def closes_at_once(self) -> None:
        await self._serve([close(), read_all()])

    async def resets_at_once(self) -> None:
        await self._serve([reset()])

    async def resets_in_the_head(self) -> None:
        await self._serve([expect(), send(OK[:20]), reset()])

    async def closes_in_the_body(self) -> None:
        await self._serve([expect(), send(OK[:-1]), close(), read_all()])
        self.error = IncompleteRead

    async def nonsense(self) -> None:
        await self._serve([expect(), send(b"nonsense\r\n\r\n"), read_all()])
        self.error = BadStatusLine


TROUBLES = [name for name, value in vars(Trouble).items() if inspect.iscoroutinefunction(value)]
TROUBLES = [name for name in TROUBLES if not name.startswith("_")]
