"""One URL, fetched as curl would: ``python -m aiohttpconn URL``.

Uses what the package offers to everybody, and shows how: an own dialer to see the transport,
``putrequest`` to decide on every field, ``iter_bytes`` to stream.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from .. import (
    CertificateError,
    Destination,
    DialReport,
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    HTTPSConnection,
    Timeout,
    TunnelError,
    __version__,
    dial,
    responses,
    run,
)
from ..net.threads import DaemonThreads
from ..net.tls import default_context
from .exits import BAD_CA_FILE, HTTP_ERROR, Failed, exit_code
from .options import Options, parse
from .output import Notes, Output

__all__ = ["main"]

_EXPECTING_BODY = ("PATCH", "POST", "PUT")


def main(argv: Sequence[str]) -> int:
    """Fetch what *argv* says; return the exit code."""
    try:
        options = parse(argv)
        try:
            run(_Transfer(options).run())
        except (HTTPException, OSError, ValueError) as exc:
            text = (str(exc) or type(exc).__name__) + _hint(exc, options)
            raise Failed(exit_code(exc, proxied=options.proxy is not None), text) from exc
    except SystemExit as exc:
        return int(exc.code or 0)
    except Failed as failed:
        if failed.text:
            Notes().error(failed.code, failed.text)
        return failed.code
    return 0


def _hint(exc: Exception, options: Options) -> str:
    """Return how to do on a command line what the hint of *exc* says about the library."""
    if isinstance(exc, CertificateError):
        if options.asks_proxy or getattr(exc, "phase", "") == "proxy":
            return " (here: SSL_CERT_FILE in the environment; --cacert and -k are for the server)"
        return " (here: --cacert FILE, or -k to verify nothing)"
    if isinstance(exc, TunnelError) and exc.status == 407:
        return " (here: -x http://user:password@host:port)"
    return ""


class _Transfer:
    """One request and its response."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._notes = Notes(options.verbose)
        self._deadline: float | None = None
        # The heads of 1xx responses, which -i shows in front of the final one.
        self._interim = b""

    async def run(self) -> None:
        options = self._options
        loop = asyncio.get_running_loop()
        # --cacert may be a pipe that nobody fills: Ctrl-C need not wait for who reads it.
        loop.set_default_executor(DaemonThreads(2))
        if options.max_time is not None:
            self._deadline = loop.time() + options.max_time
        async with await self._connection() as conn:
            await conn.connect()
            if self._deadline is not None:
                # What connecting took is the request's no more. Rounded, because errors show it.
                left = max(round(self._deadline - loop.time(), 3), 0.001)
                conn.timeout = Timeout(total=left)
            started = perf_counter()  # uvloop's own clock counts milliseconds
            await self._send(conn)
            sent = perf_counter()
            response = await conn.getresponse()
            answered = perf_counter()
            with response, Output(options.output, self._deadline) as output:
                size = await self._receive(response, output)
            self._notes.note(
                f"{size} bytes of body; request sent in {_ms(sent - started)}, head after "
                f"{_ms(answered - sent)}, body in {_ms(perf_counter() - answered)}"
            )

    # -------------------------------------------------------------------- connecting

    async def _connection(self) -> HTTPConnection:
        """Return the connection that leads to the URL, not connected yet."""
        options = self._options
        url, proxy = options.url, options.proxy
        settings: dict[str, Any] = {
            "timeout": Timeout(total=options.max_time),
            "dialer": self._dial,
            "on_informational": self._informational,
        }
        context = proxy_context = None
        if url.scheme == "https":
            context = await self._context()
        if proxy is not None and proxy.scheme == "https":
            # As in curl: what -k and --cacert say is not about the proxy.
            proxy_context = await default_context()
        if proxy is None:
            if context is None:
                return HTTPConnection(url.host, url.port, **settings)
            return HTTPSConnection(url.host, url.port, context=context, **settings)
        if context is None:
            # The proxy itself is asked for the URL.
            if proxy_context is None:
                return HTTPConnection(proxy.host, proxy.port, **settings)
            return HTTPSConnection(proxy.host, proxy.port, context=proxy_context, **settings)
        conn = HTTPSConnection(
            proxy.host, proxy.port, context=context, proxy_context=proxy_context, **settings
        )
        fields = {"User-Agent": f"aiohttpconn/{__version__}"}
        if proxy.authorization:
            fields["Proxy-Authorization"] = proxy.authorization
        conn.set_tunnel(url.host, url.port, fields)
        return conn

    async def _context(self) -> ssl.SSLContext:
        if self._options.insecure:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.set_alpn_protocols(["http/1.1"])
            return context
        try:
            return await default_context(self._options.cafile)
        except OSError as exc:
            raise Failed(BAD_CA_FILE, str(exc)) from exc

    async def _dial(
        self, factory: Callable[[], Any], destination: Destination, report: DialReport
    ) -> tuple[asyncio.Transport, Any]:
        """Do what every connection does, and tell about it."""
        note = self._notes.note
        tunnel = destination.tunnel
        proxied = " (the proxy)" if self._options.proxy is not None else ""
        note(f"connecting to {destination.host}, port {destination.port}{proxied}")
        transport, protocol = await dial(factory, destination, report)
        times = ", ".join(f"{name} {_ms(taken)}" for name, taken in report.durations.items())
        note(f"connected to {_address(transport.get_extra_info('peername'))} ({times})")
        reply = report.proxy_reply
        if tunnel is not None and reply is not None:
            note(f"tunnel to {tunnel.host}, port {tunnel.port}: {reply.status} {reply.reason}")
        ssl_object = transport.get_extra_info("ssl_object")
        if ssl_object is not None:
            verified = ssl_object.context.verify_mode == ssl.CERT_REQUIRED
            cipher = (ssl_object.cipher() or ("no cipher",))[0]
            note(
                f"{ssl_object.version()}, {cipher}, certificate "
                f"{'verified' if verified else 'NOT verified (-k)'}"
            )
        return transport, protocol

    # ----------------------------------------------------------------------- sending

    async def _send(self, conn: HTTPConnection) -> None:
        options = self._options
        target = options.url.absolute if options.asks_proxy else options.url.target
        fields = self._fields()
        conn.putrequest(options.method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in fields:
            conn.putheader(name, value)
        self._notes.head(">", f"{options.method} {target} HTTP/1.1", fields)
        chunked = any(name.lower() == "transfer-encoding" for name, _ in fields)
        await conn.endheaders(options.body, encode_chunked=chunked)

    def _fields(self) -> list[tuple[str, str]]:
        """Return the request's fields: those of ``-H``, after ours that it leaves."""
        options = self._options
        url, proxy, body = options.url, options.proxy, options.body
        given = {name.lower() for name, _ in options.fields} | options.removed
        own = {"Host": url.authority}
        if proxy is not None and url.scheme == "http" and proxy.authorization:
            own["Proxy-Authorization"] = proxy.authorization
        if url.authorization:
            own["Authorization"] = url.authorization
        own["User-Agent"] = f"aiohttpconn/{__version__}"
        own["Accept"] = "*/*"
        if "transfer-encoding" not in given and (body is not None or self._expects_body()):
            own["Content-Length"] = str(len(body or b""))
        if body is not None:
            own["Content-Type"] = "application/x-www-form-urlencoded"
        kept = [(name, value) for name, value in own.items() if name.lower() not in given]
        return kept + options.fields

    def _expects_body(self) -> bool:
        """Whether the method is one that says "Content-Length: 0" (RFC 9110 §8.6)."""
        return self._options.method in _EXPECTING_BODY

    # --------------------------------------------------------------------- receiving

    def _informational(self, status: int, headers: Any) -> None:
        status_line = f"HTTP/1.1 {status} {responses.get(status, '')}".rstrip()
        fields = list(headers.items())
        self._interim += _head(status_line, fields)
        self._notes.head("<", status_line, fields)

    async def _receive(self, response: HTTPResponse, output: Output) -> int:
        """Write the response to *output*; return the size of its body."""
        options = self._options
        status_line = f"HTTP/1.{response.version - 10} {response.status} {response.reason}".rstrip()
        fields = response.raw_headers
        self._notes.head("<", status_line, fields)
        if options.include or options.head_only:
            await output.write(self._interim + _head(status_line, fields))
        if options.fail and response.status >= 400:
            raise Failed(HTTP_ERROR, f"{response.url}: {response.status} {response.reason}")
        # A file that was asked for is made also if there is nothing to write.
        output.open()
        size = 0
        if not options.head_only:
            async for piece in response.iter_bytes():
                await output.write(piece)
                size += len(piece)
        return size


def _head(first_line: str, fields: list[tuple[str, str]]) -> bytes:
    """Return a message's head as bytes."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"{first_line}\r\n{lines}\r\n".encode("latin-1")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


def _address(peername: Any) -> str:
    host, port = peername[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
