"""Plain requests: everything that ``Client.request`` needs to send one without a ``Call``.

A request is plain if it is one write that nobody has to be asked about: no hook, no retries, no
auth beyond a fixed field, no total timeout, a URL that is sent as it is written, and a body that
is small and in memory. For these the client keeps the text of header fields, of request lines and
the verdict on response heads ready. Everything else is a ``Call``'s business (calls.py).
Layer: client.
"""

from __future__ import annotations

import re
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from ..body import SMALL_BODY
from ..http11.head import encode_fields
from ..http11.semantics import DECIDING, SHARING
from ..pool.requests import KEEP_ALIVE, SendOptions
from ..urls import PLAIN_TARGET, SplitURL, add_params, split_url
from .auth.schemes import FixedAuth
from .calls import give_up, keep_cookies, route_for
from .content.encode import encode_content
from .content.reading import codings_of, decode_body, read_body
from .policy import REDIRECTS
from .response import Response
from .settings import Request, as_timeout

if TYPE_CHECKING:
    from ..pool.scheduler import OriginPool
    from ..response import HTTPResponse
    from .settings import ClientState, RequestOptions

__all__ = ["PlainRequests", "match_target"]

MAX_ORIGINS = 4096
"""Origins that are remembered; one more, and all are learned again."""

MAX_INSPECTED = 64
"""Response heads whose verdict is remembered."""

MAX_INSPECTED_SIZE = 4096
"""Bytes of such a head: no server is to fill memory with larger ones."""

MAX_ENCODED = 64
"""Combinations of a request's own header fields whose text is remembered."""

# The options that a plain request may have, and those of them that are a body.
_OPTIONS = frozenset({"headers", "params", "timeout", "json", "content", "data"})
_BODIES = ("json", "content", "data")

# Fields that stand elsewhere in the head, or decide how a request is sent.
_SPECIAL_FIELDS = DECIDING | {"host"}

_NO_HEADERS: dict[str, str] = {}
_NO_PARAMS: dict[str, Any] = {}

_REREADABLE = frozenset({bytes, dict, list, str, tuple, type(None)})

match_target = PLAIN_TARGET.fullmatch

# 0.3 µs of a usual head, where ``lower()`` and two times ``in`` take 0.7.
_search_notable = re.compile(rb"(?i)\n(?:set-cookie|content-encoding):").search


class KnownOrigin(NamedTuple):
    """An origin that has answered: its pool, and the bytes of a head around the target."""

    pool: OriginPool
    after_target: str
    """The end of the request line, and the first header lines."""
    url: SplitURL


class PlainRequests:
    """What a client's plain requests have in common, made once. Read by ``Client.request``.

    One for each client, and for each that is derived from it: all of it depends on the settings.
    """

    __slots__ = (
        "_state",
        "base_url",
        "connections",
        "cookies",
        "encoded_fields",
        "fields",
        "inspected_heads",
        "max_body",
        "origins",
        "send",
        "shared_methods",
    )

    def __init__(self, state: ClientState) -> None:
        settings = state.settings
        self._state = state
        self.connections = state.connections
        self.base_url = state.base_url
        self.cookies = state.cookies
        self.max_body = settings.max_body
        self.send = SendOptions(settings.timeout, None, settings.resend_stale)
        self.shared_methods = SHARING if state.pipelining > 1 else frozenset[str]()
        special = (
            state.params
            or not isinstance(settings.auth, FixedAuth | None)
            or settings.retry
            or settings.on_request
            or settings.on_response
            or settings.timeout.total is not None
        )
        # Encoded header lines of a plain request; None if no request can be plain.
        self.fields = None if special else self._encode_fields((), None)
        # The same with a request's own fields, by these and the type of its body.
        self.encoded_fields: dict[tuple[tuple[tuple[str, str], ...], str | None], str | None] = {}
        # By the beginning of a URL, up to its path.
        self.origins: dict[str, KnownOrigin] = {}
        # By a response's head: whether ``finish`` or a ``Call`` has to do something about it.
        self.inspected_heads: dict[bytes, bool] = {}

    # ------------------------------------------------------------------ requests

    def with_options(
        self, url: str, options: RequestOptions
    ) -> tuple[str, str | None, bytes | None, SendOptions]:
        """Return (URL, fields, body, how to send it) of a request with *options*.

        The fields are None if the request is not plain.
        """
        send = self.send
        if type(url) is not str or not _OPTIONS.issuperset(options):
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
            # An iterator can be read once, and a redirect may need the body again.
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
        encoded = self.encoded_fields
        try:
            fields = encoded.get(key)
        except TypeError:  # a value such as a list: the Call says what is wrong with it
            return url, None, None, send
        if fields is None and key not in encoded:
            if len(encoded) >= MAX_ENCODED:
                encoded.clear()
            fields = encoded[key] = self._encode_fields(items, kind)
        if body is not None and fields is not None:
            fields = f"Content-Length: {len(body)}\r\n{fields}"
        if params:
            url = add_params(url, params)
        return url, fields, body, send

    def _encode_fields(self, items: tuple[tuple[Any, Any], ...], kind: str | None) -> str | None:
        """Return the client's header lines merged with *items*; None if that is not all of them."""
        for name, value in items:
            # Others may be equal, and are sent differently: 1 and True are.
            if type(name) is not str or not (value is None or type(value) is str):
                return None
        state = self._state
        fields = state.fields_for(state.settings, items)
        if kind is not None and "content-type" not in fields:
            fields["Content-Type"] = kind
        if (auth := state.settings.auth) is not None:
            auth.authorize(Request("", "", fields))
        text, names = encode_fields(fields.pairs())
        plain = "accept-encoding" in names and "cookie" not in names
        return text if plain and _SPECIAL_FIELDS.isdisjoint(names) else None

    def with_cookies(self, fields: str, url: SplitURL) -> str:
        """Return *fields* with the cookies that are kept for *url*."""
        assert self.cookies is not None, "the caller has looked"
        header = self.cookies.header_for(url)
        return f"{fields}Cookie: {header}\r\n" if header else fields

    def remember_origin(self, url: str) -> None:
        """Let the requests for the origin of *url*, which has answered, be plain from now on."""
        if self.fields is None:
            return
        if self.base_url and url.startswith("/"):
            url = self.base_url + url
        slash = url.find("/", 8)
        prefix = url[:slash]
        known = self.origins.get(prefix)
        if slash < 0 or (known is not None and not known.pool.evicted):
            return
        origin = split_url(f"{prefix}/")
        # The prefix must be an origin and nothing else, spelled as ``text`` spells it.
        if origin.text != f"{prefix}/":
            return
        if len(self.origins) >= MAX_ORIGINS:
            self.origins.clear()
        pool = self.connections.origin(route_for(origin, self._state.settings))
        fields = f"Host: {pool.authority}\r\n{KEEP_ALIVE}{pool.proxy_authorization}"
        self.origins[prefix] = KnownOrigin(pool, f" HTTP/1.1\r\n{fields}", origin)

    # ----------------------------------------------------------------- responses

    def inspect(self, head: bytes, status: int) -> bool:
        """Return whether a response with *head* is more than its body; remember it.

        It is if it redirects, sets cookies or is encoded, and the client cares.
        """
        settings = self._state.settings
        notable = self.redirects(status)
        if not notable and _search_notable(head) is not None:
            lower = head.lower()
            notable = (self.cookies is not None and b"\nset-cookie:" in lower) or (
                settings.decompress and b"\ncontent-encoding:" in lower
            )
        if len(head) <= MAX_INSPECTED_SIZE:
            if len(self.inspected_heads) >= MAX_INSPECTED:
                self.inspected_heads.clear()
            self.inspected_heads[head] = notable
        return notable

    def redirects(self, status: int) -> bool:
        """Return whether a response with *status* is followed by another request."""
        return status in REDIRECTS and self._state.settings.follow_redirects

    async def finish(
        self, raw: HTTPResponse, url: SplitURL, notable: bool, began: float, head_at: float
    ) -> Response:
        """Return the response of *raw*: keep its cookies, read its body, decode it.

        *began*, *head_at*: when the call began and the head was here, by ``monotonic()``.
        """
        settings, text = self._state.settings, url.text
        try:
            if notable and self.cookies is not None:
                keep_cookies(self.cookies, url, raw)
            codings = codings_of(raw, text) if notable and settings.decompress else []
            data = await read_body(raw, settings.max_body, bool(codings))
            ended = monotonic()
            limits = settings.max_body, settings.max_ratio
            content = decode_body(raw, data, codings, text, limits)
        except BaseException:
            give_up(raw, raw.method in self.shared_methods)
            raise
        return Response(raw, text, content, began, raw.started, head_at, ended)
