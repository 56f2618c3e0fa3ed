"""Client: complete requests, with redirects, cookies and decoding, on pooled connections.

A plain request (plain.py) is one ``exchange`` and one look at its response's head:
``Client.request``. Every other request, and every redirect, goes through a ``Call`` (calls.py),
which is made for it and thrown away. Layer: client.
"""

from __future__ import annotations

import os
from asyncio import get_running_loop
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from ..arguments import ANY_PATH, FLAG, FUNCTION, TEXT, Checks, check_arguments
from ..exceptions import StatusError, redact
from ..http11.limits import Limits
from ..http11.semantics import BODILESS_METHODS, BODY_METHODS
from ..net.tls import trusted_file
from ..pool.pool import ConnectionPool, PoolOptions
from ..pool.requests import exchange, exchange_shared
from ..proxies import ProxyRules, from_environment
from ..types import UNSET, Unset
from .auth.schemes import as_auth
from .calls import Call
from .configured import ClientFields, Configured, split_base
from .content.charsets import DEFAULT_ENCODING
from .content.decoding import MAX_RATIO
from .cookies.given import store_of
from .hints import OF_CLIENT, name_unknown
from .plain import match_target
from .response import Response, keep_error_body, received
from .retries import RetryBudget
from .settings import (
    DEFAULT_TIMEOUT,
    SETTING_CHECKS,
    ClientState,
    Settings,
    as_pairs,
    as_timeout,
    check_options,
)

if TYPE_CHECKING:
    from http.cookiejar import CookieJar

    from ..net.timeouts import Timeout
    from ..net.tls import FingerprintLike
    from ..params import ParamsLike
    from ..pool.stats import PoolStats
    from ..proxies import ProxiesLike
    from ..types import HeadersLike
    from .auth.schemes import AuthLike
    from .content.charsets import DefaultEncoding
    from .cookies.store import CookieStore
    from .download import Progress
    from .fetch_many import FetchMany, Items
    from .retries import Retry
    from .settings import OnRequest, OnResponse, RequestOptions

__all__ = ["Client"]

CLIENT_LIMITS = Limits(max_fields=1000, max_line=256 * 1024, max_head_bytes=256 * 1024)
"""Limits of a client's response heads: some sites send hundreds of fields."""


_CHECKS: Checks = {**SETTING_CHECKS, "base_url": TEXT, "trust_env": FLAG}
_DOWNLOAD_CHECKS: Checks = {"path": ANY_PATH, "resume": FLAG, "progress": FUNCTION}


class Client(Configured):
    """An HTTP client: follows redirects, keeps cookies, decodes bodies, reuses connections.

    All of it within limits. The arguments that are about requests are attributes, too, which may be
    assigned: ``client.headers["X-A"] = "1"``, ``client.timeout = 5``. A client belongs to the event
    loop in which it is first used. Close it: ``async with``, or ``close()``.

    Arguments, all by keyword; a request takes each one that is about requests, too:
        base_url: the URL below which URLs without a scheme lie.
        headers, params: sent with every request; a request's own replace those of the same name.
        timeout: a ``Timeout``, or seconds for each operation; by default 10 s to connect, 30 s to
            read and to write. None waits for ever. A number does not change how long a request
            waits for a connection: 60 s, or the ``Timeout(pool=)`` of the client.
        follow_redirects, max_redirects: whether to follow redirects, and how many before
            ``TooManyRedirects``.
        allow_downgrade: whether a redirect may lead from https to http.
        decompress: ask for and decode gzip and deflate, and br and zstd if they are installed.
        max_body: the most bytes of a decoded body; more is ``BodyTooLarge``. None is no limit.
        max_ratio: the most bytes that an encoded byte may decode to, after the first 8 MiB.
        truncated: "keep" delivers what came of a body that is cut short; else it is an error.
        default_encoding: the charset of a text that declares none: its name, or a function of the
            bytes (of a stream the first 1024 or more) that returns a name or None.
        json_dumps, json_loads: functions in place of those of ``json``.
        cookies: kept by default; None keeps and sends none. A dict is sent to the host of
            *base_url*. An ``http.cookiejar.CookieJar`` is used in place of the client's own store,
            and the caller can save it.
        auth: (user, password), ``Bearer``, ``Digest``, ``Netrc`` or a callable.
        retry: a ``Retry``; by default the client resends only a request that a stale connection
            has swallowed.
        proxy: a URL, or a dict by scheme or origin; None is no proxy. By default the proxies of
            the environment.
        trust_env: whether to read proxies and a file of authorities from the environment.
        server_hostname: the name to ask an https server for, and to verify, instead of the URL's.
            It is not used for another origin that a redirect leads to.
        fingerprint: the SHA-256 that the certificates of https servers must have, beside all that
            the context verifies, also after a redirect: hexadecimal, or 32 bytes.
        on_request, on_response: called with each ``Request`` before it is sent, and with each
            ``Response``, including redirects; an awaitable result is awaited.
        resend_stale, limit, limit_per_host, keepalive_timeout, pipelining, context, cafile,
            resolver and others: as ``ConnectionPool`` has them.
    """

    __slots__ = ("__weakref__", "_connections", "_pool")

    def __init__(
        self,
        *,
        base_url: str = "",
        headers: HeadersLike | None = None,
        params: ParamsLike | None = None,
        timeout: float | Timeout | None = DEFAULT_TIMEOUT,
        follow_redirects: bool = True,
        max_redirects: int = 10,
        allow_downgrade: bool = False,
        decompress: bool = True,
        max_body: int | None = None,
        max_ratio: float | None = MAX_RATIO,
        truncated: Literal["error", "keep"] = "error",
        default_encoding: DefaultEncoding = DEFAULT_ENCODING,
        json_dumps: Callable[[Any], str | bytes] | None = None,
        json_loads: Callable[[Any], Any] | None = None,
        cookies: Mapping[str, str | int] | CookieJar | CookieStore | Unset | None = UNSET,
        auth: AuthLike = None,
        retry: Retry | None = None,
        proxy: ProxiesLike | Unset = UNSET,
        trust_env: bool = True,
        server_hostname: str | None = None,
        fingerprint: FingerprintLike | None = None,
        on_request: OnRequest | None = None,
        on_response: OnResponse | None = None,
        resend_stale: bool = True,
        **pool: Unpack[PoolOptions],
    ) -> None:
        if unknown := pool.keys() - PoolOptions.__annotations__.keys():
            raise TypeError(
                f"Client() has no argument {name_unknown(unknown, OF_CLIENT)}: see help(Client)"
            )
        check_arguments(_CHECKS, locals())
        base = split_base(base_url)
        environ = os.environ if trust_env else {}
        rules = from_environment(environ) if isinstance(proxy, Unset) else ProxyRules.of(proxy)
        settings = Settings(
            timeout=as_timeout(timeout),
            auth=as_auth(auth),
            follow_redirects=follow_redirects,
            max_redirects=max_redirects,
            allow_downgrade=allow_downgrade,
            decompress=decompress,
            max_body=max_body,
            max_ratio=max_ratio,
            truncated=truncated,
            default_encoding=default_encoding,
            json_dumps=json_dumps,
            json_loads=json_loads,
            retry=retry,
            proxies=rules,
            server_hostname=server_hostname,
            fingerprint=fingerprint,
            resend_stale=resend_stale,
            on_request=on_request,
            on_response=on_response,
        )
        pool.setdefault("limits", CLIENT_LIMITS)
        self._pool = ConnectionPool(**pool)
        self._connections = self._pool._connections
        self._connections.noun = "client"
        self._connections.factory.trusted = trusted_file(environ)
        self._prepare(
            ClientState(
                connections=self._connections,
                settings=settings,
                fields=ClientFields(headers or (), decompress),
                base_url=base_url.rstrip("/"),
                params=as_pairs(params),
                cookies=store_of(cookies, base),
                budget=RetryBudget(),
                pipelining=pool.get("pipelining", 1),
            )
        )

    def __repr__(self) -> str:
        base_url = self._state.base_url
        base = f"{redact(base_url)} " if base_url else ""
        return f"<Client {base}{self._connections!r}>"

    async def __aenter__(self) -> Self:
        self._connections.bind()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    @property
    def cookies(self) -> CookieStore | None:
        """The client's cookies; None if it keeps none."""
        return self._state.cookies

    @property
    def pool(self) -> ConnectionPool:
        """The pool whose connections this client uses."""
        return self._pool

    def stats(self) -> PoolStats:
        """Return how many connections are idle, in use and waited for."""
        return self._pool.stats()

    async def close(self) -> None:
        """Close all connections and wait until their sockets are closed."""
        await self._pool.close()

    # ------------------------------------------------------------------------- requests

    async def request(self, method: str, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Send a request; return its response once the whole body is here, decoded.

        *options*: ``headers`` (a value of None removes one), ``params``, or ``target`` to send as
        it is; a body as ``content``, ``json``, ``data`` and ``files``; ``cookies`` to send beside
        the kept ones (None: send and keep none); and, instead of the client's, ``timeout``,
        ``auth``, ``follow_redirects``, ``max_redirects``, ``allow_downgrade``, ``decompress``,
        ``max_body``, ``max_ratio``, ``truncated``, ``default_encoding``, ``retry``, ``proxy``,
        ``context``, ``server_hostname``, ``fingerprint``, ``resend_stale``, ``on_request``,
        ``on_response``.

        Raises ``InvalidURL``, ``ValueError`` and ``TypeError`` before a byte is sent; later
        ``PoolTimeout``, ``PoolClosed``, ``ConnectError``, ``RequestTimeout``, ``HTTPException``
        (among them ``RedirectRefused``, ``BodyTooLarge``, ``ContentDecodingError``), ``OSError``.
        A status is no error: see ``Response.raise_for_status``. Hot: see docs/topics/design.md.
        """
        began = monotonic()
        plain = self._plain
        asked, fields, send = url, plain.fields, plain.send
        body = known = None
        if options and fields is not None:
            url, fields, body, send = plain.with_options(url, options)
        if fields is not None and type(url) is str:
            if plain.base_url and url.startswith("/") and not url.startswith("//"):
                url = plain.base_url + url
            slash = url.find("/", 8)
            known = plain.origins.get(url[:slash])
        connections = plain.connections
        if (
            known is None
            or fields is None
            or method not in (BODILESS_METHODS if body is None else BODY_METHODS)
            or match_target(url, slash) is None
            or type(method) is not str
            or connections.loop is not get_running_loop()
            or connections.closed
            or known.pool.evicted
        ):
            response = await self._call(method, asked, options, began).run()
            plain.remember_origin(url)
            return response
        pool, after_target, origin = known
        target = url[slash:]
        if plain.cookies is not None and plain.cookies.may_have(origin.host):
            fields = plain.with_cookies(fields, origin._replace(target=target))
        head = f"{method} {pool.prefix}{target}{after_target}{fields}\r\n".encode("latin-1")
        data = head + body if body else head
        if method in plain.shared_methods and body is None and send is plain.send:
            raw = await exchange_shared(connections, pool, method, target, data, send)
        else:
            raw = await exchange(connections, pool, method, target, data, send)
        # Invariant: each branch below does with the response what Call.run() does. A plain request
        # has no hook, retry or auth that could take part.
        notable = plain.inspected_heads.get(raw.head)  # type: ignore[arg-type]
        if notable is None:
            notable = plain.inspect(raw.head or b"", raw.status)
        if notable and plain.redirects(raw.status):
            return await self._call(method, asked, options, began).run(raw, head)
        content: bytes = raw.first  # type: ignore[assignment]
        whole = raw.ended and len(content) == raw.buffered and raw.failure is None
        if notable or not whole or (plain.max_body is not None and len(content) > plain.max_body):
            at = origin._replace(target=target)
            return await plain.finish(raw, at, notable, began, head)
        raw.first, raw.buffered = b"", 0
        return received(raw, url, content, began, head, plain.body_options)

    def _call(self, method: str, url: str, options: RequestOptions, began: float) -> Call:
        return Call(self._state, method, url, options, stream=False, began=began)

    # They return request()'s coroutine itself: a wrapping coroutine would double the cost.

    def get(self, url: str, **options: Unpack[RequestOptions]) -> Coroutine[Any, Any, Response]:
        """``await request("GET", url, ...)``."""
        return self.request("GET", url, **options)

    def head(self, url: str, **options: Unpack[RequestOptions]) -> Coroutine[Any, Any, Response]:
        """``await request("HEAD", url, ...)``."""
        return self.request("HEAD", url, **options)

    def post(self, url: str, **options: Unpack[RequestOptions]) -> Coroutine[Any, Any, Response]:
        """``await request("POST", url, ...)``."""
        return self.request("POST", url, **options)

    def put(self, url: str, **options: Unpack[RequestOptions]) -> Coroutine[Any, Any, Response]:
        """``await request("PUT", url, ...)``."""
        return self.request("PUT", url, **options)

    def patch(self, url: str, **options: Unpack[RequestOptions]) -> Coroutine[Any, Any, Response]:
        """``await request("PATCH", url, ...)``."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str, **options: Unpack[RequestOptions]) -> Coroutine[Any, Any, Response]:
        """``await request("DELETE", url, ...)``."""
        return self.request("DELETE", url, **options)

    def options(self, url: str, **options: Unpack[RequestOptions]) -> Coroutine[Any, Any, Response]:
        """``await request("OPTIONS", url, ...)``."""
        return self.request("OPTIONS", url, **options)

    def stream(
        self, method: str, url: str, **options: Unpack[RequestOptions]
    ) -> AbstractAsyncContextManager[Response]:
        """Send a request: ``async with client.stream("GET", url) as response``.

        The block reads the response's body with ``iter_bytes()``, ``iter_lines()`` or ``read()``;
        its end discards the rest. A ``StatusError`` of the response that leaves the block keeps
        the first 64 KiB of an unread body, as far as they arrive within a second. Arguments and
        errors are those of ``request``.
        """
        return _Stream(Call(self._state, method, url, options, stream=True, began=monotonic()))

    def fetch_many(
        self,
        items: Items,
        *,
        concurrency: int = 64,
        ordered: bool = False,
        **options: Unpack[RequestOptions],
    ) -> FetchMany:
        """Fetch many URLs: ``async for result in client.fetch_many(urls)``.

        *items*: an iterable or async iterable of URLs, of (method, URL), or of (method, URL,
        options). It may be endless: at most 2 × *concurrency* items are taken ahead of their
        results, and 1,000 that wait because their hosts have their share: a host gets most of
        *concurrency*, never all of it while others may come. Each result is a ``Fetched`` with its
        ``item`` and its ``response`` or ``error``. Results come as they finish, or in the order of
        the items if *ordered*. *options* are those of ``request``, for all items. A request waits
        for a connection without a limit, unless the caller gives a ``Timeout(pool=)``.

        Leaving the loop cancels the requests under way. An error of *items* is raised after the
        results of the items before it.
        """
        from .fetch_many import FetchMany

        check_options(options)
        timeout = options.get("timeout", replace(self.timeout, pool=None))
        # The requests wait for each other: that is no failure.
        options["timeout"] = as_timeout(timeout, None)
        own: Any = {
            name: options.pop(name)
            for name in ("target", "content", "json", "data", "files", "cookies")
            if name in options
        }
        # More would only wait for a connection, and hold a place that another host could have.
        per_host = self._connections.scheduler.limit_per_host * self._state.pipelining
        return FetchMany(self._derived(options), items, concurrency, ordered, own, per_host)

    async def download(
        self,
        url: str,
        path: str | bytes | os.PathLike[Any],
        *,
        resume: bool = True,
        progress: Progress | None = None,
        **options: Unpack[RequestOptions],
    ) -> Response:
        """Download *url* to the file *path*; return the response, whose body is in the file.

        A symlink leads to the file that is replaced; that keeps its mode. An incomplete download
        is in ``path.part``. With *resume*, the download continues such a part if it is of this
        URL and of the same version, and continues after the connection breaks; the response is
        then the last one, a 206. A device or a FIFO is written to directly, and not continued.
        The file has the bytes that the server stores, with their content coding, unless
        *options* have ``decompress=True``.

        *progress*: called with (bytes written, total bytes or None), before the first write and
        after each one; an awaitable result is awaited. Raises the ``OSError`` of a path that
        cannot be written to, before a request; ``StatusError`` for all but 2xx, whose
        ``response`` has the first 64 KiB of its body; and the errors of ``request``.
        """
        from .download import download

        check_arguments(_DOWNLOAD_CHECKS, locals())
        check_options(options)
        # An iterator can be read once, but each attempt is a request of its own.
        options["params"] = params = as_pairs(options.get("params"))
        place: RequestOptions = {"params": params, "target": options.get("target")}
        whole = Call(self._state, "GET", url, place, stream=True, began=0.0).url
        settings = self._state.settings.changed(options)
        return await download(self, url, path, resume, progress, options, whole, settings)


class _Stream(AbstractAsyncContextManager[Response]):
    """The context manager of ``Client.stream``: sends the request, closes the response."""

    def __init__(self, call: Call) -> None:
        self._call: Call | None = call
        self._response: Response | None = None

    async def __aenter__(self) -> Response:
        call, self._call = self._call, None
        if call is None:
            raise RuntimeError("this request was sent already: call client.stream() again")
        self._response = await call.run()
        return self._response

    async def __aexit__(self, *exc_info: object) -> None:
        response = self._response
        if response is None:
            return
        try:
            error = exc_info[1]
            if isinstance(error, StatusError) and error.response is response:
                await keep_error_body(response)
        finally:
            response.close()
