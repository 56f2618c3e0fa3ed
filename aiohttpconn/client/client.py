"""Client: requests made as programs want them, on the connections of a pool.

A request of which nothing is special is one ``exchange`` and one look at its response's head:
``Client.request``. Everything else, from a header of the caller's to a redirect, goes through a
``Call`` (calls.py), which is made for it and thrown away. Layer: client.
"""

from __future__ import annotations

import os
import re
from asyncio import get_running_loop
from collections.abc import Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from copy import copy
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any, Self, Unpack

from ..body import SMALL_BODY
from ..exceptions import InvalidURL, redact
from ..http11.head import encode_fields
from ..http11.limits import Limits
from ..http11.semantics import BODILESS_METHODS, BODY_METHODS, DECIDING, SHARING
from ..net.timeouts import Timeout
from ..pool.pool import KEEP_ALIVE, ConnectionPool, PoolOptions, PoolStats
from ..pool.requests import Send, exchange, exchange_shared
from ..proxies import ProxyRules, from_environment
from ..types import UNSET, Unset
from ..urls import PLAIN_TARGET, SplitURL, add_params, split_url
from ..version import __version__
from .auth.schemes import FixedAuth
from .auth.schemes import of as as_auth
from .calls import Call, decoded, keep_cookies, route_for, whole_body
from .content.decoding import MAX_RATIO
from .content.encode import encode_content
from .cookies.jar import store_of
from .fields import Fields
from .policy import REDIRECTS, RetryBudget
from .response import Response, codings_of
from .settings import (
    DEFAULT_TIMEOUT,
    Context,
    Request,
    Settings,
    as_pairs,
    as_timeout,
    check_options,
    default_coding,
    merge_params,
)

if TYPE_CHECKING:
    from http.cookiejar import CookieJar

    from ..pool.scheduler import Site
    from ..proxies import ProxiesLike
    from ..types import HeadersLike
    from ..urls import ParamsLike
    from .auth.schemes import AuthLike
    from .cookies.store import CookieStore
    from .download import Progress
    from .fetching import FetchMany, Items
    from .policy import Retry
    from .settings import OnRequest, OnResponse, RequestOptions

__all__ = ["Client"]

CLIENT_LIMITS = Limits(max_fields=1000, max_line=256 * 1024, max_head_bytes=256 * 1024)
"""What a response may make a client hold: some sites set hundreds of fields."""

MAX_KNOWN = 4096
"""Origins whose beginnings of URLs are remembered; beyond, all are looked at again."""

MAX_NOTES = 64
"""Heads of which is remembered whether there is anything to do about them."""

MAX_NOTE = 4096
"""Bytes of such a head: no server is to fill memory with larger ones."""

MAX_MERGED = 64
"""Combinations of a request's own fields whose text is remembered."""

# Options that say no more than what is sent, and those of them that are a body.
_WITHOUT_CALL = frozenset({"headers", "params", "timeout", "json", "content", "data"})
_BODIES = ("json", "content", "data")

# Fields that stand elsewhere, or decide how a request is sent.
_OWN_FIELDS = DECIDING | {"host"}

_NO_HEADERS: dict[str, str] = {}
_NO_PARAMS: dict[str, Any] = {}

_REREADABLE = frozenset({bytes, dict, list, str, tuple, type(None)})

_match_target = PLAIN_TARGET.fullmatch

# 0.3 µs of a usual head, where ``lower()`` and two times ``in`` take 0.7.
_search_notable = re.compile(rb"(?i)\n(?:set-cookie|content-encoding):").search


class Client:
    """An HTTP client: what a browser does between a program and the connections of a pool.

    Redirects are followed, cookies kept, bodies decoded, within limits. Belongs to the event loop
    that it is first used in. Close it: ``async with``, or ``close()``.

    Arguments, all by keyword; each that is about requests can be given to a request too:
        base_url: what URLs without a scheme are below.
        headers, params: sent with every request; a request's own replace those of their names.
        timeout: a ``Timeout``, or seconds for each operation; 10 s to connect, 30 s to read and
            write by default. None waits for ever. A number leaves the wait for a connection as it
            is: 60 s, or what ``Timeout(pool=)`` of the client says.
        follow_redirects, max_redirects: whether, and how many; ``TooManyRedirects`` beyond.
        allow_downgrade: whether a redirect may lead from https to http.
        decompress: decode gzip, deflate, and what is installed of br and zstd; ask for it.
        max_body: bytes of a body, decoded, at most; ``BodyTooLarge`` beyond. None is no limit.
        max_ratio: bytes that each byte of an encoded body may decode to, beyond the first 8 MiB.
        cookies: kept by default; None keeps and sends none. A dict is sent to the host of
            *base_url*; an ``http.cookiejar.CookieJar`` of the caller's is used, and can be saved.
        auth: (user, password), ``Bearer``, ``Digest``, ``Netrc`` or a callable.
        retry: a ``Retry``; by default only a request that a stale connection has swallowed is sent
            again.
        proxy: a URL, or a dict by scheme or origin; None is none. By default the environment's.
        trust_env: whether the environment names proxies.
        on_request, on_response: called, and awaited if need be, with each ``Request`` before it
            is sent, and each ``Response``, redirects among them.
        resend_stale, limit, limit_per_host, keepalive_timeout, pipelining, context, cafile,
            resolver and others: as ``ConnectionPool`` has them.
    """

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
        cookies: Mapping[str, str] | CookieJar | CookieStore | Unset | None = UNSET,
        auth: AuthLike = None,
        retry: Retry | None = None,
        proxy: ProxiesLike | Unset = UNSET,
        trust_env: bool = True,
        on_request: OnRequest | None = None,
        on_response: OnResponse | None = None,
        resend_stale: bool = True,
        **pool: Unpack[PoolOptions],
    ) -> None:
        if unknown := pool.keys() - PoolOptions.__annotations__.keys():
            raise TypeError(
                f"Client() has no argument {', '.join(sorted(unknown))}: see help(Client)"
            )
        base = split_url(base_url) if base_url else None
        if base is not None and ("?" in base_url or "#" in base_url):
            raise InvalidURL(
                f"base_url must have neither a query nor a fragment, got {redact(base_url)!r}: "
                "params= are sent with every request"
            )
        if not isinstance(proxy, Unset):
            rules: ProxyRules | None = ProxyRules.of(proxy)
        else:
            rules = from_environment(os.environ) if trust_env else None
        settings = Settings(
            timeout=as_timeout(timeout),
            auth=as_auth(auth),
            follow_redirects=follow_redirects,
            max_redirects=max_redirects,
            allow_downgrade=allow_downgrade,
            decompress=decompress,
            max_body=max_body,
            max_ratio=max_ratio,
            retry=retry,
            proxies=rules,
            resend_stale=resend_stale,
            on_request=on_request,
            on_response=on_response,
        )
        pool.setdefault("limits", CLIENT_LIMITS)
        self._pool = ConnectionPool(**pool)
        self._cookies = store_of(cookies, base)
        fields = Fields({"Accept-Encoding": default_coding(decompress)})
        fields["Accept"] = "*/*"
        fields["User-Agent"] = f"aiohttpconn/{__version__}"
        if headers:
            fields.override(headers)
        self._prepare(
            Context(
                connections=self._pool._connections,
                settings=settings,
                fields=fields,
                base_url=base_url.rstrip("/"),
                params=as_pairs(params),
                cookies=self._cookies,
                budget=RetryBudget(),
                pipelining=pool.get("pipelining", 1),
            )
        )

    def _prepare(self, context: Context) -> None:
        """Make what the requests need of which nothing is special."""
        settings = context.settings
        self._context = context
        self._connections = context.connections
        self._base_url = context.base_url
        self._follows = settings.follow_redirects
        self._decompresses = settings.decompress
        self._max_body = settings.max_body
        self._send = Send(settings.timeout, None, settings.resend_stale)
        self._shares = SHARING if context.pipelining > 1 else frozenset[str]()
        # The fields of the requests of which nothing is special; None if there are none.
        special = (
            context.params
            or not isinstance(settings.auth, FixedAuth | None)
            or settings.retry
            or settings.on_request
            or settings.on_response
            or settings.timeout.total is not None
        )
        self._fields = None if special else self._merge((), None)
        # With those of a request's own, by these and the type of its body.
        self._merged: dict[tuple[tuple[tuple[str, str], ...], str | None], str | None] = {}
        # By the beginning of a URL: where it leads, what stands behind the target, the origin.
        self._known: dict[str, tuple[Site, str, SplitURL]] = {}
        # By a response's head: whether there is anything to do about it.
        self._notes: dict[bytes, bool] = {}

    def _derived(self, options: RequestOptions) -> Client:
        """Return a client on the same pool that makes each request with *options*.

        What they cost is paid once. It need not be closed. A body and cookies are no settings.
        """
        context = self._context
        settings = context.settings.changed(options)
        made = copy(self)
        old, new = context.settings.timeout, settings.timeout
        # The limits of a connection that is shared are those of all who share it.
        shares = (old.read, old.write) == (new.read, new.write)
        made._prepare(
            replace(
                context,
                settings=settings,
                pipelining=context.pipelining if shares else 1,
                fields=context.fields_for(settings, options.get("headers")),
                params=merge_params(context.params, options.get("params")),
            )
        )
        return made

    def __repr__(self) -> str:
        base = f"{redact(self._base_url)} " if self._base_url else ""
        return f"<Client {base}{self._connections!r}>"

    async def __aenter__(self) -> Self:
        self._connections.bind()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    @property
    def cookies(self) -> CookieStore | None:
        """The cookies that are kept; None if they are off."""
        return self._cookies

    @property
    def pool(self) -> ConnectionPool:
        """The pool whose connections this client uses."""
        return self._pool

    def stats(self) -> PoolStats:
        """Return how many connections there are, and what they do."""
        return self._pool.stats()

    async def close(self) -> None:
        """Close all connections, and wait until their sockets are gone; see the pool's."""
        await self._pool.close()

    # ------------------------------------------------------------------ requests

    async def request(self, method: str, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Send a request, and return its response when its body is here, decoded.

        *options*: ``headers`` (None as a value takes one away), ``params``; a body as ``content``,
        ``json``, ``data`` (a form) and ``files`` (multipart), None for none; ``cookies`` to send
        beside those that are kept, None to send and keep none; and, for this request alone, the
        client's ``timeout``, ``auth``, ``follow_redirects``, ``max_redirects``,
        ``allow_downgrade``, ``decompress``, ``max_body``, ``max_ratio``, ``retry``, ``proxy``,
        ``context``, ``resend_stale``, ``on_request``, ``on_response``.

        Raises, before a byte is sent, ``InvalidURL``, ``ValueError`` and ``TypeError``; then
        ``PoolTimeout``, ``PoolClosed``, ``ConnectError``, ``RequestTimeout``, ``HTTPException``
        (among them ``RedirectRefused``, ``BodyTooLarge``, ``ContentDecodingError``) and
        ``OSError``. A status is no error: see ``Response.raise_for_status``.
        Hot: see docs/topics/design.md.
        """
        began = monotonic()
        asked = url
        fields: str | None = self._fields
        body: bytes | None = None
        send = self._send
        if options and fields is not None:
            url, fields, body, send = self._with_options(url, options)
        if (
            fields is not None
            and method in (BODILESS_METHODS if body is None else BODY_METHODS)
            and type(url) is str
        ):
            if self._base_url and url.startswith("/") and not url.startswith("//"):
                url = self._base_url + url
            slash = url.find("/", 8)
            known = self._known.get(url[:slash])
            connections = self._connections
            if (
                known is not None
                and _match_target(url, slash) is not None
                and connections.loop is get_running_loop()
                and not connections.closed
                and not known[0].retired
            ):
                site, host, origin = known
                target = url[slash:]
                cookies = self._cookies
                if cookies is not None and cookies.may_have(origin.host):
                    header = cookies.header_for(origin._replace(target=target))
                    if header:
                        fields = f"{fields}Cookie: {header}\r\n"
                if body is not None:
                    fields = f"Content-Length: {len(body)}\r\n{fields}"
                data = f"{method} {site.prefix}{target}{host}{fields}\r\n".encode("latin-1")
                if body:
                    data += body
                if body is None and method in self._shares and send is self._send:
                    raw = await exchange_shared(connections, site, method, target, data, send)
                else:
                    raw = await exchange(connections, site, method, target, data, send)
                # Invariant: what follows is what Call.run() makes of a response that is neither a
                # redirect nor, as this client has neither, to be retried or authorized.
                head_at = monotonic()
                if raw.status in REDIRECTS and self._follows:
                    call = Call(self._context, method, asked, options, stream=False, began=began)
                    return await call.run(raw)
                head = raw.head
                notable = self._notes.get(head)  # type: ignore[arg-type]
                if notable is None:
                    notable = self._look_at(head)
                if notable and cookies is not None:
                    keep_cookies(cookies, origin._replace(target=target), raw)
                content: bytes = raw.first  # type: ignore[assignment]
                most = self._max_body
                if (
                    raw.ended
                    and len(content) == raw.buffered
                    and raw.failure is None
                    and (most is None or len(content) <= most)
                ):
                    raw.first = b""
                    raw.buffered = 0
                    ended = head_at
                else:
                    coded = notable and self._decompresses and bool(codings_of(raw, url))
                    content = await whole_body(raw, most, method in self._shares, coded)
                    ended = monotonic()
                if notable and self._decompresses:
                    content = decoded(raw, content, url, self._context.settings)
                return Response(raw, url, content, began, raw.started, head_at, ended)
        call = Call(self._context, method, asked, options, stream=False, began=began)
        response = await call.run()
        if self._fields is not None:
            self._learn(url)
        return response

    def _with_options(
        self, url: str, options: RequestOptions
    ) -> tuple[str, str | None, bytes | None, Send]:
        """Return (URL, fields, body, how to send it) of a request with the simpler *options*.

        The fields are None if there is more to it, which is a ``Call``'s business.
        """
        send = self._send
        if type(url) is not str or not _WITHOUT_CALL.issuperset(options):
            return url, None, None, send
        if "timeout" in options:
            timeout = as_timeout(options["timeout"], send.timeout.pool)
            if timeout.total is not None:
                return url, None, None, send
            send = send._replace(timeout=timeout)
        given: dict[str, Any] = {
            name: options[name]  # type: ignore[literal-required]
            for name in _BODIES
            if options.get(name) is not None
        }
        body = kind = None
        if given:
            # What can be read once is for the Call, which may have to follow.
            if not _REREADABLE.issuperset(map(type, (given.get("data"), given.get("content")))):
                return url, None, None, send
            content = encode_content(**given)
            body, kind = content.body, content.content_type
            if type(body) is not bytes or len(body) > SMALL_BODY:
                return url, None, None, send
        headers = options.get("headers") or _NO_HEADERS
        params = options.get("params") or _NO_PARAMS
        if type(headers) is not dict or type(params) not in (dict, list):
            return url, None, None, send
        items = tuple(headers.items())
        key = items, kind
        merged = self._merged
        try:
            fields = merged.get(key)
        except TypeError:  # a value such as a list: the Call says what is wrong with it
            return url, None, None, send
        if fields is None and key not in merged:
            if len(merged) >= MAX_MERGED:
                merged.clear()
            fields = merged[key] = self._merge(items, kind)
        if params:
            url = add_params(url, params)
        return url, fields, body, send

    def _merge(self, items: tuple[tuple[Any, Any], ...], kind: str | None) -> str | None:
        """Return the fields of the client with those of a request, None if that is not all."""
        for name, value in items:
            # Others may be equal, and are sent differently: 1 and True are.
            if type(name) is not str or not (value is None or type(value) is str):
                return None
        fields = self._context.fields_for(self._context.settings, items)
        if kind is not None and "content-type" not in fields:
            fields["Content-Type"] = kind
        if (auth := self._context.settings.auth) is not None:
            auth.authorize(Request("", "", fields))
        text, names = encode_fields(fields.pairs())
        plain = "accept-encoding" in names and "cookie" not in names
        return text if plain and _OWN_FIELDS.isdisjoint(names) else None

    def _look_at(self, head: bytes | None) -> bool:
        """Return whether there is anything to do about a response with *head*; remember it."""
        assert head is not None, "a response with a head"
        notable = _search_notable(head) is not None
        if notable:
            lower = head.lower()
            notable = (self._cookies is not None and b"\nset-cookie:" in lower) or (
                self._decompresses and b"\ncontent-encoding:" in lower
            )
        if len(head) <= MAX_NOTE:
            if len(self._notes) >= MAX_NOTES:
                self._notes.clear()
            self._notes[head] = notable
        return notable

    def _learn(self, url: str) -> None:
        """Remember the beginning of *url*, an origin that has answered: see ``request``."""
        if self._base_url and url.startswith("/"):
            url = self._base_url + url
        slash = url.find("/", 8)
        prefix = url[:slash]
        known = self._known.get(prefix)
        if slash < 0 or (known is not None and not known[0].retired):
            return
        origin = split_url(f"{prefix}/")
        # What stands there must be an origin and nothing else, as it is written in text.
        if origin.text != f"{prefix}/":
            return
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        site = self._connections.site(route_for(origin, self._context.settings))
        host = f" HTTP/1.1\r\nHost: {site.authority}\r\n{KEEP_ALIVE}{site.fields}"
        self._known[prefix] = site, host, origin

    # What they return is request()'s coroutine: one around it would cost as much again.

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

        The response's body is for the block to read: ``iter_bytes()``, ``iter_lines()``,
        ``read()``. What is not read there is given up. Arguments and errors are ``request``'s.
        """
        return _Stream(Call(self._context, method, url, options, stream=True, began=monotonic()))

    def fetch_many(
        self,
        items: Items,
        *,
        concurrency: int = 64,
        ordered: bool = False,
        **options: Unpack[RequestOptions],
    ) -> FetchMany:
        """Fetch many URLs: ``async for result in client.fetch_many(urls)``.

        *items*: an iterable or async iterable of URLs, or of (method, URL), or of (method, URL,
        options); without an end if need be, as no more than 2 × *concurrency* are taken before
        their results are. Each result is a ``Fetched``: its ``item``, and its ``response`` or its
        ``error``. They come as they are finished, or, if *ordered*, as the items came. *options*
        are ``request``'s, for all. Requests wait for a connection for as long as it takes, unless
        a ``Timeout(pool=)`` is given.

        Leaving the loop ends what is under way. An error of *items* is raised when the results
        before it have been given.
        """
        from .fetching import FetchMany

        check_options(options)
        client = self
        if not isinstance(options.get("timeout"), Timeout):
            # They wait for each other: that is no failure.
            patience = replace(self._context.settings.timeout, pool=None)
            client = self._derived({"timeout": patience})
        own: Any = {
            name: options.pop(name)
            for name in ("content", "json", "data", "files", "cookies")
            if name in options
        }
        return FetchMany(client._derived(options), items, concurrency, ordered, own)

    async def download(
        self,
        url: str,
        path: str | os.PathLike[str],
        *,
        resume: bool = True,
        progress: Progress | None = None,
        **options: Unpack[RequestOptions],
    ) -> Response:
        """Download *url* to the file *path*; return the response, whose body is in the file.

        Until it is whole it is in ``path.part``. With *resume*, a part that is there already, of
        this URL and not changed since, is continued, and so is a download that breaks off; the
        response is then the last one: a 206.
        *progress*: called, and awaited if need be, with (bytes there, bytes in all or None).
        Raises ``StatusError`` for all but 2xx, ``OSError`` of the file, and what ``request`` does.
        """
        from .download import download

        check_options(options)
        # An iterator can be read once, and each attempt is a request.
        options["params"] = params = as_pairs(options.get("params"))
        whole = Call(self._context, "GET", url, {"params": params}, stream=True, began=0.0).url
        return await download(self, url, path, resume, progress, options, whole)


class _Stream(AbstractAsyncContextManager[Response]):
    """A response whose body is read by a block."""

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
        if self._response is not None:
            self._response.close()
