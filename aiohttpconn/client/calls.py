"""One call of a client, from its arguments to a response: redirects, auth, retries, cookies.

A ``Call`` is made for one call. It holds everything that changes on the way: the URL, the method,
the header fields, the body. A redirect to another origin removes the secrets for the rest of the
call. Layer: client.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..exceptions import RedirectRefused, TotalTimeout, describe
from ..hooks import has_run
from ..http11.semantics import COMMON_METHODS
from ..params import add_params
from ..pool.rate_limit import retry_after
from ..pool.requests import (
    SendOptions,
    abandon,
)
from ..types import exact
from ..urls import SplitURL, check_raw_target, join_base, split_url
from .auth.asking import ask, is_asked, may_wait
from .auth.schemes import Auth, basic_of
from .content.encode import Content, encode_content
from .content.multipart import boundary_of, with_boundary
from .content.reading import codings_of, read_content
from .cookies.given import cookie_pairs_of, join_cookies
from .notable import give_up, keep_cookies, search_notable
from .redirects import REDIRECTS, check_redirect, redirect_target, strip_body, strip_secrets
from .request import Request
from .response import keep_error_body, received
from .retries import backoff, may_retry
from .sending import Sending
from .settings import check_options, merge_params, route_for
from .waiting import within

if TYPE_CHECKING:
    from ..response import HTTPResponse
    from .redirects import Redirect
    from .response import Response
    from .retries import Retry
    from .settings import ClientState

__all__ = ["Call"]

MAX_CHALLENGES = 10
"""Repeats of a request after 401: an ``Auth`` of the caller may ask for any number of them."""

MAX_REFUSAL = 1024 * 1024
"""Bytes of a stream's 401 that an ``Auth`` may wait for, unless ``max_body`` is set."""

_AFTER_RESPONSE = ("challenged", "on_response")

_BODIES = ("content", "json", "data", "files")


class Call:
    """One call: make it, ``await run()``, drop it. Raises at once if the request cannot be sent."""

    def __init__(
        self,
        state: ClientState,
        method: str,
        url: str,
        options: Mapping[str, Any],
        *,
        stream: bool,
        began: float,
    ) -> None:
        check_options(options)
        self._state = state
        self._stream = stream
        self._settings = settings = state.settings.changed(options)
        self._began = began
        # Whether the request may share a connection. Its limits must be those of the client's
        # other requests. A stream may not: the requests after it would wait for its reader.
        self._shares = state.pipelining > 1 and "timeout" not in options and not stream
        if not type(method) is type(url) is str:
            method, url = exact(method), exact(url)
        upper = method.upper()
        # Methods are case-sensitive, but a caller who writes "get" means GET
        # (https://fetch.spec.whatwg.org normalizes the same way).
        self._method = upper if upper in COMMON_METHODS else method
        self._url = self._target_url(url, options)
        self._fields = state.fields_for(settings, options.get("headers"))
        self._content = self._encode(options)
        self._auth = settings.auth
        if "authorization" in self._fields.removed:
            self._auth = None
        elif self._url.userinfo and "auth" not in options:
            self._auth = basic_of(self._url.userinfo)
        self._url = self._url._replace(userinfo="")
        self._url_text = self._url.text
        self._whole_url = self._url_text + self._url.fragment
        own = options.get("cookies", {})
        self._own_cookies = cookie_pairs_of(own)
        self._cookies = None if own is None else state.cookies
        # When the call asked for the request that is under way.
        self._asked = began
        # The head of the request that was sent last.
        self._head = b""
        self._history: list[Response] = []
        self._challenges = 0
        # Whether a server on the way refused to be asked first: see _repeats_unasked.
        self._unasked = False
        self._deadline: float | None = None

    @property
    def url(self) -> str:
        """The URL of the next request, without user and password."""
        return self._url_text

    def _target_url(self, url: str, options: Mapping[str, Any]) -> SplitURL:
        state = self._state
        if state.base_url and isinstance(url, str):
            url = join_base(state.base_url, url)
        params, target = options.get("params"), options.get("target")
        if target is not None:
            if params:
                raise ValueError("params= and target= exclude each other: target= is sent as it is")
            return split_url(url)._replace(target=check_raw_target(target))
        pairs = merge_params(state.params, params) if params else state.params
        if pairs and isinstance(url, str):
            url = add_params(url, pairs)
        return split_url(url)

    def _encode(self, options: Mapping[str, Any]) -> Content | None:
        """Return the body if the caller gave one; add the header fields that describe it."""
        given = {name: options[name] for name in _BODIES if options.get(name) is not None}
        if not given:
            return None
        fields = self._fields
        own = fields.get("Content-Type") if "files" in given else None
        if own is not None:
            given["boundary"] = boundary_of(own)
        content = encode_content(**given, dumps=self._settings.json_dumps)
        kind = content.content_type
        if own is not None and kind is not None:
            fields["Content-Type"] = with_boundary(own, kind)
        elif not (kind is None or "content-type" in fields.removed or "content-type" in fields):
            fields["Content-Type"] = kind
        return content

    # -------------------------------------------------------------------------- running

    async def run(self, first: HTTPResponse | None = None, head: bytes = b"") -> Response:
        """Send the request and all that its responses lead to; return the last response.

        *first*: the response to the first request, if that has been sent already, with *head*.
        """
        self._head = head
        settings = self._settings
        if settings.timeout.total is not None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.time() + settings.timeout.total
        retry = settings.retry
        if retry is not None and retry.budget is not None:
            self._state.budget.earn(retry.budget)
        if self._auth is not None and is_asked(self._auth):
            self._auth = None
        attempt = 1
        while True:
            raw: HTTPResponse | None = None
            redirect, again, wait = None, False, None
            try:
                if first is None:
                    raw, request = await self._send()
                else:
                    raw, request = first, None
                    first = None
                    if self._content is not None:
                        self._content.begin()
                notable = search_notable(raw.head or b"") is not None
                if notable and self._cookies is not None:
                    keep_cookies(self._cookies, self._url, raw)
                try:
                    redirect, refused = self._redirect(raw), None
                except RedirectRefused as exc:
                    exc.response = await self._refused(raw)
                    exc.response.attempts = attempt
                    exc.history = [*self._history, exc.response]
                    raise
                again = redirect is not None
                if raw.status == 401 and request is not None and self._may_challenge():
                    again, refused = await self._challenged(request, raw, notable)
                elif raw.status == 417 and request is not None:
                    again = self._repeats_unasked(request)
                if not again:
                    wait = self._wait_before_retry(raw, attempt)
                if refused is not None:
                    response = refused
                elif again or wait is not None:
                    # Nobody reads this body, so it is not decoded.
                    abandon(raw)
                    response = self._received(raw, b"")
                else:
                    response = await self._finish(raw, notable, self._stream)
            except BaseException as exc:
                if raw is not None:
                    give_up(raw, self._shares)
                wait = self._wait_after(exc, attempt) if isinstance(exc, Exception) else None
                if wait is None:
                    if hasattr(exc, "attempts"):
                        exc.attempts = attempt
                    raise
            else:
                response.history, response.attempts = tuple(self._history), attempt
                if settings.on_response is not None:
                    try:
                        has_run(
                            "on_response",
                            await self._call("on_response", settings.on_response, response),
                        )
                    except BaseException:
                        give_up(raw, self._shares)
                        raise
                if redirect is not None:
                    self._history.append(response)
                    self._follow(redirect)
                elif not again and wait is None:
                    return response
            if wait is None:
                attempt = 1
            else:
                attempt += 1
                await asyncio.sleep(wait)
            self._asked = monotonic()

    async def _send(self) -> tuple[HTTPResponse, Request]:
        """Send one request; return its response, and the request."""
        settings, connections = self._settings, self._state.connections
        connections.bind(self._method, self._url_text)
        auth = self._auth
        if auth is not None and auth.requires_body and self._content is not None:
            await self._call("reading the body", self._content.keep_in_memory)
        request = Request(
            self._method,
            self._url_text,
            self._fields.copy(),
            target=self._url.target,
            content=self._content,
        )
        self._add_cookies(request)
        origin = connections.origin(route_for(self._url, settings))
        if settings.on_request is not None:
            has_run("on_request", await self._call("on_request", settings.on_request, request))
        if self._unasked:
            request.headers.discard("Expect")
        sending = Sending(request, self._content, auth, origin, self._call)
        send = SendOptions(settings.timeout, self._deadline, settings.resend_stale)
        raw = await sending.exchange(connections, send, self._shares)
        self._head = sending.head
        return raw, request

    async def _call(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call *function*, one of the caller's; await its result, if needed, within ``total``."""
        result = function(*arguments)
        if not inspect.isawaitable(result):
            return result
        return await within(self._deadline, partial(self._late, name), result)

    def _late(self, name: str) -> TotalTimeout:
        total = self._settings.timeout.total
        return describe(
            TotalTimeout(f"{name} did not end within {total:g} s"),
            method=self._method,
            url=self._url_text,
            phase=name,
            elapsed=monotonic() - self._began,
            request_sent=name in _AFTER_RESPONSE,
            response_started=name in _AFTER_RESPONSE,
            notes=f"total={total:g}",
        )

    async def _finish(self, raw: HTTPResponse, notable: bool, stream: bool) -> Response:
        """Return the call's response: with its whole body, or as a stream."""
        settings, url = self._settings, self._url_text
        codings = codings_of(raw, url) if notable and settings.decompress else []
        options = settings.body_options
        if stream:
            return self._received(raw, None, options, codings)
        if options.max_body is None and self._stream:
            # The caller wants no body in memory, whatever its size.
            options = options._replace(max_body=MAX_REFUSAL)
        content, truncated = await read_content(raw, codings, url, options)
        response = self._received(raw, content, options)
        response.truncated = truncated
        return response

    def _received(self, raw: HTTPResponse, content: bytes | None, *options: Any) -> Response:
        return received(raw, self._whole_url, content, self._asked, self._head, *options)

    # -------------------------------------------------------------------------- cookies

    def _add_cookies(self, request: Request) -> None:
        """Add a Cookie field, unless the caller has set one."""
        if "cookie" in request.headers or "cookie" in request.headers.removed:
            return
        store = self._cookies
        kept = store.header_for(self._url) if store is not None else ""
        own = self._own_cookies
        if cookies := join_cookies(kept, own) if own else kept:
            request.headers["Cookie"] = cookies

    # --------------------------------------------------------- redirects and challenges

    def _redirect(self, raw: HTTPResponse) -> Redirect | None:
        """Return the redirect to follow, None if *raw* is none. Raises ``RedirectRefused``."""
        settings = self._settings
        if raw.status not in REDIRECTS or not settings.follow_redirects:
            return None
        locations = [value for name, value in raw.raw_headers if name.lower() == "location"]
        try:
            redirect = redirect_target(
                raw.status,
                self._method,
                self._url,
                locations,
                allow_downgrade=settings.allow_downgrade,
            )
            if redirect is not None:
                content = self._content
                check_redirect(
                    redirect,
                    [*(response.url for response in self._history), self._url_text],
                    settings.max_redirects,
                    content is None or content.can_replay,
                )
        except RedirectRefused as exc:
            exc.location = locations[0]
            raise describe(
                exc,
                method=self._method,
                url=self._url_text,
                phase=f"status {raw.status}",
                elapsed=monotonic() - self._began,
                request_sent=True,
                response_started=True,
            ) from exc.__cause__
        return redirect

    async def _refused(self, raw: HTTPResponse) -> Response:
        """Return *raw*, a redirect that is refused, with the body that an error keeps."""
        settings = self._settings
        response = self._received(raw, None, settings.body_options)
        response.history = tuple(self._history)
        await keep_error_body(response, decode=settings.decompress)
        return response

    def _follow(self, redirect: Redirect) -> None:
        """Turn the call to the request that *redirect* asks for."""
        if not redirect.keeps_body:
            self._content = None
            strip_body(self._fields)
        if redirect.upgrades:
            # It was for the proxy, and the server would get it now.
            self._fields.discard("Proxy-Authorization")
        elif redirect.crosses:
            strip_secrets(self._fields)
            self._auth = None
            self._own_cookies = {}
            # Another server has another name. A pin stays: it fails rather than trusts.
            self._settings = replace(self._settings, server_hostname=None)
        self._method = redirect.method
        self._url = redirect.url
        self._url_text = redirect.url.text
        self._whole_url = self._url_text + redirect.url.fragment

    def _may_challenge(self) -> bool:
        """Whether to ask the call's ``Auth`` about a 401: the request could go out again."""
        if self._auth is None or type(self._auth).challenged is Auth.challenged:
            return False
        if self._content is not None and not self._content.can_replay:
            return False
        self._challenges += 1
        return self._challenges <= MAX_CHALLENGES

    async def _challenged(
        self, request: Request, raw: HTTPResponse, notable: bool
    ) -> tuple[bool, Response | None]:
        """Ask the ``Auth`` about *raw*, a 401; return its answer, and the response if it is read.

        The body is received before anything waits: the ``Auth`` may need the connection.
        """
        auth = self._auth
        assert auth is not None, "the caller has checked"
        whole = None
        if may_wait(auth):
            whole = await self._finish(raw, notable, stream=False)
        response = self._received(raw, None) if whole is None else whole
        question = partial(ask, auth, auth.challenged)
        answer = await self._call("challenged", question, request, response)
        return has_run("challenged", answer), whole

    def _repeats_unasked(self, request: Request) -> bool:
        """Return whether *request*, answered by 417, goes out again without its Expect field.

        RFC 9110 §10.1.1: the server, or a proxy before it, cannot meet the expectation.
        """
        if self._unasked or "expect" not in request.headers:
            return False
        self._unasked = self._content is None or self._content.can_replay
        return self._unasked

    # -------------------------------------------------------------------------- retries

    def _wait_before_retry(self, raw: HTTPResponse, attempt: int) -> float | None:
        """Return the seconds to wait before the request is sent again because of its status."""
        retry = self._settings.retry
        if retry is None or raw.status not in retry.statuses or self._method not in retry.methods:
            return None
        wait = backoff(retry, attempt)
        if retry.respect_retry_after:
            asked = retry_after(raw.getheader("Retry-After"))
            if asked is not None:
                if asked > retry.max_retry_after:
                    return None
                wait = max(wait, asked)
        return self._allowed(retry, attempt, wait)

    def _wait_after(self, exc: Exception, attempt: int) -> float | None:
        """Return the seconds to wait before the request is sent again after *exc*."""
        retry = self._settings.retry
        if retry is None or not may_retry(exc, self._method, retry):
            return None
        return self._allowed(retry, attempt, backoff(retry, attempt))

    def _allowed(self, retry: Retry, attempt: int, wait: float) -> float | None:
        """Return *wait*, or None if no other attempt is allowed."""
        if attempt >= retry.attempts:
            return None
        if self._content is not None and not self._content.can_replay:
            return None
        late = asyncio.get_running_loop().time() + wait
        if self._deadline is not None and late >= self._deadline:
            return None
        if retry.budget is not None and not self._state.budget.spend():
            return None
        return wait
