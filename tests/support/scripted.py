"""The fixture ``scripted``: a connection of ours to a server with canned responses."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import aiohttpconn
from aiohttpconn import testing

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Iterable

    from .tls import Certificates

__all__ = ["Scripted"]


class Scripted:
    """``async with scripted(pieces) as conn``: the fixture; see ``__call__``.

    ``server`` is the ``ScriptedServer`` of the last call.
    """

    server: testing.ScriptedServer

    def __init__(self, certificates: Callable[[], Certificates]) -> None:
        self._certificates = certificates

    @contextlib.asynccontextmanager
    async def __call__(
        self,
        *responses: bytes | Iterable[bytes],
        close: bool = False,
        reset: bool = False,
        head_only: bool = False,
        tls: bool | ssl.SSLContext = False,
        server: dict[str, Any] | None = None,
        **keywords: Any,
    ) -> AsyncIterator[aiohttpconn.HTTPConnection]:
        """Give an ``HTTPConnection`` to a server that answers each connection in the same way.

        It reads a request and sends the first of *responses*, reads another and sends the
        second, and so on; then it leaves the connection open. A response is bytes, or pieces
        of which each is read by itself. *close* ends with FIN, *reset* with RST.
        *head_only*: do not read request bodies before answering.
        *tls*: True, or a server-side context; the connection is then an ``HTTPSConnection``
        to localhost that trusts the tests' authority. *server*: keywords of ScriptedServer.
        All other keywords go to the connection, which connects when it is first used.
        """
        script: list[testing.Step] = []
        for response in responses:
            pieces = [response] if isinstance(response, bytes) else response
            if head_only:
                script += [testing.expect(), testing.send(*pieces)]
            else:
                script.append(testing.answer(*pieces))
        if close:
            script.append(testing.close())
        if reset:
            script.append(testing.reset())
        kind: type[aiohttpconn.HTTPConnection] = aiohttpconn.HTTPConnection
        server = dict(server or {})
        host = None
        if tls:
            kind, host = aiohttpconn.HTTPSConnection, "localhost"
            server["tls"] = self._certificates().server if tls is True else tls
            keywords.setdefault("context", self._certificates().client)
        async with testing.ScriptedServer(script, **server) as self.server:
            async with kind(host or self.server.host, self.server.port, **keywords) as conn:
                yield conn
