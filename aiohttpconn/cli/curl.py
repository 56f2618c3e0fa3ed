"""Fetching one URL as curl does: ``python -m aiohttpconn URL``.

It uses the parts of this package below ``Client``: the client's decisions (redirects, proxies,
decoding) around ``HTTPConnection``, which lets a command line set every field, and see each connect
and each interim response.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from .. import (
    CertificateError,
    Destination,
    DialReport,
    Fields,
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    InvalidURL,
    RedirectRefused,
    Timeout,
    TooManyRedirects,
    __version__,
    responses,
    run,
)
from ..client.content.codecs import accept_encoding
from ..client.content.decoding import ContentDecoder, split_codings
from ..client.redirects import REDIRECTS, redirect_target, strip_body, strip_secrets
from ..connection import connection_to
from ..http11.semantics import BODY_METHODS
from ..net.tls import HAS_TLS, NO_TLS, default_context
from ..pool.pool import forwards
from ..pool.routes import ConnectionFactory, OriginDialer, Route
from ..urls import PORTS, join_location, split_url
from .exits import (
    BAD_CA_FILE,
    HTTP_ERROR,
    PROXY_NOT_RESOLVED,
    UNSUPPORTED_PROTOCOL,
    Failed,
    exit_code,
)
from .options import Options, parse
from .output import Notes, Output
from .urls import basic_of, check_scheme

if TYPE_CHECKING:
    import ssl

    from ..client.redirects import Redirect
    from ..net.resolver import Resolves

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Fetch the URL in *argv*; return the exit code."""
    silent = False
    try:
        options = parse(argv)
        silent = options.silent
        _fetch(options)
    except SystemExit as exc:
        return int(exc.code or 0)
    except Failed as failed:
        if failed.text and not silent:
            Notes().error(failed.code, failed.text)
        return failed.code
    return 0


def _fetch(options: Options) -> None:
    """Fetch the URL of *options*; raise ``Failed`` if that fails."""
    transfer = _Transfer(options)
    try:
        run(transfer.run())
    except (HTTPException, OSError, ValueError) as exc:
        route = transfer.route
        text = (str(exc) or type(exc).__name__) + _hint(exc, route)
        raise Failed(exit_code(exc, route.proxy), text) from exc


def _hint(exc: Exception, route: Route) -> str:
    """Return the command line's version of the hint of *exc*, which is about the library."""
    if isinstance(exc, CertificateError):
        if route.forward or getattr(exc, "phase", "") == "proxy":
            return " (here: SSL_CERT_FILE in the environment; --cacert and -k are for the server)"
        return " (here: --cacert FILE, or -k to verify nothing)"
    text = str(exc)
    if "the proxy's credentials" in text:
        return " (here: -U user:password)"
    if "allow_downgrade=" in text:
        return " (here: --proto-redir http)"
    return ""


class _Transfer:
    """A request, and the requests of its redirects."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._notes = Notes(options.verbose)
        self._deadline: float | None = None

        # Changed by redirects
        self._url = options.url
        self._method = options.method
        self._body = options.body
        self._fields = _fields(options)
        self._userinfo = options.userinfo
        self._redirects = 0

        # Per request
        self.route = Route(*options.url.origin)
        # The heads of 1xx responses, which -i shows in front of the final one.
        self._interim = b""

    async def run(self) -> None:
        options = self._options
        loop = asyncio.get_running_loop()
        if options.max_time is not None:
            self._deadline = loop.time() + options.max_time
        timeout = Timeout(total=options.max_time)
        with Output(options.output, self._deadline) as output:
            while followed := await self._exchange(timeout, output):
                self._follow(*followed)
                timeout = self._left()

    async def _exchange(self, timeout: Timeout, output: Output) -> tuple[Redirect, str] | None:
        """Send one request; return the redirect to follow and its Location, or None at the end."""
        async with await self._connection(timeout) as conn:
            await conn.connect()
            # The connect has taken some of the request's time.
            conn.timeout = self._left()
            began = monotonic()
            await self._send(conn)
            sent = monotonic()
            with await conn.getresponse() as response:
                answered = monotonic()
                await self._show_head(response, output)
                redirect = self._redirect(response)
                body = "body ignored"
                if redirect is None:
                    body = f"{await self._receive(response, output)} bytes of body"
            self._notes.note(
                f"{body}; request sent in {_ms(sent - began)}, head after "
                f"{_ms(answered - sent)}, body in {_ms(monotonic() - answered)}"
            )
            if redirect is None:
                return None
            return redirect, response.headers["Location"]

    def _left(self) -> Timeout:
        """Return the remaining time of ``--max-time``."""
        if self._deadline is None:
            return Timeout()
        # Rounded, because errors show it.
        left = round(self._deadline - asyncio.get_running_loop().time(), 3)
        return Timeout(total=max(left, 0.001))

    # -------------------------------------------------------------------- connecting

    async def _connection(self, timeout: Timeout) -> HTTPConnection:
        """Return a connection to the URL's server, not connected yet."""
        options, url = self._options, self._url
        try:
            proxy = options.proxies.proxy_for(*url.origin)
        except InvalidURL as exc:
            raise Failed(PROXY_NOT_RESOLVED, str(exc)) from exc
        if proxy is not None and proxy.credentials is None and options.proxy_user is not None:
            user, password = options.proxy_user
            proxy = replace(proxy, username=user, password=password)
        forward = proxy is not None and forwards(proxy, url.scheme)
        self.route = Route(*url.origin, proxy, forward=forward)
        # As in curl, -k and --cacert do not apply to the proxy.
        factory = ConnectionFactory(
            resolver=options.resolver,
            on_connect=None,
            context=await self._context() if url.scheme == "https" else None,
            cafile=None,
            proxy_context=None,
        )
        return connection_to(
            await factory.destination(self.route),
            dialer=_Dialer(options.resolver, self._notes, self.route),
            timeout=timeout,
            on_informational=self._informational,
        )

    async def _context(self) -> ssl.SSLContext:
        if not HAS_TLS:
            raise Failed(UNSUPPORTED_PROTOCOL, f"https is not possible. {NO_TLS}")
        if self._options.insecure:
            import ssl

            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.set_alpn_protocols(["http/1.1"])
            return context
        try:
            cafile = self._options.cafile or os.environ.get("CURL_CA_BUNDLE") or None
            return await default_context(cafile)
        except OSError as exc:
            raise Failed(BAD_CA_FILE, str(exc)) from exc

    # ----------------------------------------------------------------------- sending

    async def _send(self, conn: HTTPConnection) -> None:
        method, route, url = self._method, self.route, self._url
        target = url.text if route.forward else url.target
        fields = self._fields_for(route)
        conn.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in fields:
            conn.putheader(name, value)
        self._notes.head(">", f"{method} {target} HTTP/1.1", fields)
        chunked = "transfer-encoding" in self._fields
        await conn.endheaders(self._body, encode_chunked=chunked)

    def _fields_for(self, route: Route) -> list[tuple[str, str]]:
        """Return a request's fields: those for *route*, then those of all requests."""
        own = {"Host": route.authority}
        if route.forward and route.proxy is not None and route.proxy.authorization:
            own["Proxy-Authorization"] = route.proxy.authorization
        removed = {name.lower() for name, value in self._options.fields if value is None}
        return [
            (name, value)
            for name, value in own.items()
            if name not in self._fields and name.lower() not in removed
        ] + self._fields.pairs()

    # --------------------------------------------------------------------- receiving

    def _informational(self, status: int, headers: Any) -> None:
        status_line = f"HTTP/1.1 {status} {responses.get(status, '')}".rstrip()
        fields = list(headers.items())
        self._interim += _head(status_line, fields)
        self._notes.head("<", status_line, fields)

    async def _show_head(self, response: HTTPResponse, output: Output) -> None:
        options = self._options
        status_line = f"HTTP/1.{response.version - 10} {response.status} {response.reason}".rstrip()
        fields = response.raw_headers
        self._notes.head("<", status_line, fields)
        if options.include or options.head_only:
            await output.write(self._interim + _head(status_line, fields))
        self._interim = b""

    async def _receive(self, response: HTTPResponse, output: Output) -> int:
        """Write the body of the last response to *output*; return its size."""
        options = self._options
        if options.fail and response.status >= 400:
            raise Failed(HTTP_ERROR, f"{response.url}: {response.status} {response.reason}")
        # Make the file even if there is nothing to write.
        output.open()
        size = 0
        if not options.head_only:
            decoder: ContentDecoder | None = None
            async for piece in response.iter_bytes():
                if options.compressed and decoder is None:
                    # As in curl, nothing is wrong with the coding of a body that is empty.
                    decoder = _decoder(response)
                for data in (piece,) if decoder is None else _decoded(decoder, piece):
                    await output.write(data)
                    size += len(data)
            if decoder is not None:
                decoder.finish()
        return size

    # --------------------------------------------------------------------- redirects

    def _redirect(self, response: HTTPResponse) -> Redirect | None:
        """Return the redirect of *response* to follow, if any. Raises ``RedirectRefused``."""
        options = self._options
        if response.status not in REDIRECTS or not options.follow:
            return None
        locations = response.headers.get_all("Location", [])
        for location in locations:
            check_scheme("Location", location, PORTS, UNSUPPORTED_PROTOCOL)
        schemes = options.redirect_schemes
        downgrade = schemes is not None and "http" in schemes
        redirect = redirect_target(
            response.status, self._method, self._url, locations, allow_downgrade=downgrade
        )
        if redirect is None:
            return None
        target = redirect.url
        if schemes is not None and target.scheme not in schemes:
            raise RedirectRefused(
                f"--proto-redir does not let {self._url.text} lead to {target.text}"
            )
        if self._redirects >= options.max_redirects:
            raise TooManyRedirects(
                f"{self._url.text} leads to {target.text}, but --max-redirs "
                f"{options.max_redirects} is reached"
            )
        return redirect

    def _follow(self, redirect: Redirect, location: str) -> None:
        """Make the next request the one that *redirect*, made of *location*, asks for."""
        self._redirects += 1
        if not redirect.keeps_body:
            self._body = None
            strip_body(self._fields)
        if self._options.trusted:
            self._take_credentials(location)
            if redirect.crosses:
                self._fields.pop("host", None)
        elif redirect.crosses:
            strip_secrets(self._fields)
        self._method = redirect.method
        self._url = redirect.url
        self._notes.note(f"redirected to {self._url.text}")

    def _take_credentials(self, location: str) -> None:
        """Take the user and password of *location*, unless the caller has given others.

        As in curl 8, those in a URL go with it and what is relative to it, and no further.
        """
        if self._userinfo is None:
            return
        url = self._url
        base = f"{url.scheme}://{self._userinfo}@{url.authority}{url.target}"
        self._userinfo = split_url(join_location(base, location)).userinfo
        self._fields.pop("authorization", None)
        if self._userinfo:
            self._fields["Authorization"] = basic_of(self._userinfo)


class _Dialer(OriginDialer):
    """The dialer of a client's connections, which also notes each step."""

    def __init__(self, resolver: Resolves, notes: Notes, route: Route) -> None:
        super().__init__(resolver, on_connect=None)
        self._note = notes.note
        self._proxied = " (the proxy)" if route.proxy is not None else ""

    async def __call__(
        self, factory: Callable[[], Any], destination: Destination, report: DialReport
    ) -> tuple[asyncio.Transport, Any]:
        note = self._note
        tunnel = destination.tunnel
        note(f"connecting to {destination.host}, port {destination.port}{self._proxied}")
        transport, protocol = await super().__call__(factory, destination, report)
        times = ", ".join(f"{name} {_ms(taken)}" for name, taken in report.durations.items())
        note(f"connected to {_address(transport.get_extra_info('peername'))} ({times})")
        reply = report.proxy_reply
        if tunnel is not None and reply is not None:
            note(f"tunnel to {tunnel.host}, port {tunnel.port}: {reply.status} {reply.reason}")
        ssl_object = transport.get_extra_info("ssl_object")
        if ssl_object is not None:
            verified = ssl_object.context.verify_mode.name == "CERT_REQUIRED"
            cipher = (ssl_object.cipher() or ("no cipher",))[0]
            note(
                f"{ssl_object.version()}, {cipher}, certificate "
                f"{'verified' if verified else 'NOT verified (-k)'}"
            )
        return transport, protocol


def _fields(options: Options) -> Fields:
    """Return all requests' fields: our own, unless ``-H`` replaces them, then those of ``-H``."""
    fields = Fields()
    if options.authorization:
        fields["Authorization"] = options.authorization
    fields["User-Agent"] = f"aiohttpconn/{__version__}"
    fields["Accept"] = "*/*"
    if options.compressed:
        fields["Accept-Encoding"] = accept_encoding()
    if options.cookies:
        fields["Cookie"] = "; ".join(options.cookies)
    body = options.body
    has_length = all(name.lower() != "transfer-encoding" for name, _ in options.fields)
    # RFC 9110 §8.6: a request whose method expects a body also says that there is none.
    if has_length and (body is not None or options.method in BODY_METHODS):
        fields["Content-Length"] = len(body or b"")
    if body is not None:
        fields["Content-Type"] = "application/x-www-form-urlencoded"
    fields.override(options.fields)  # type: ignore[arg-type]  # None removes one
    return fields


def _decoder(response: HTTPResponse) -> ContentDecoder:
    """Return a decoder for the body. It has no limits, because no byte of the body is kept."""
    codings = split_codings(response.headers.get_all("Content-Encoding", []), strict=True)
    context = f"{response.method} {response.url}"
    return ContentDecoder(codings, max_body=None, max_ratio=None, context=context)


def _decoded(decoder: ContentDecoder, data: bytes) -> Iterator[bytes]:
    """Decode *data*, the next piece of a body; yield the decoded pieces."""
    yield decoder.feed(data)
    while decoder.pending:
        yield decoder.feed(b"")


def _head(first_line: str, fields: list[tuple[str, str]]) -> bytes:
    """Return a message's head as bytes."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"{first_line}\r\n{lines}\r\n".encode("latin-1")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


def _address(peername: Any) -> str:
    host, port = peername[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
