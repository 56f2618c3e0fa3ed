"""Plain requests: the prepared parts with which ``Client.request`` sends one without a ``Call``.

A request is plain if one write sends it and no decision is left to make: no hook, no retry, no
auth but a fixed header field, no total timeout, a URL that goes out as it is written, and a small
body in memory. For plain requests the client caches encoded header lines, the beginnings of URLs
that lead to known origins, and the inspection of response heads. A ``Call`` (calls.py) sends every
other request. Layer: client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..body import SMALL_BODY
from ..http11.request_head import encode_fields
from ..http11.semantics import DECIDING, SHARING
from ..params import add_params
from ..pool.requests import ADDED, KEEP_ALIVE, SendOptions
from ..urls import PLAIN_TARGET, SplitURL, split_url
from .auth.schemes import is_fixed
from .content.encode import encode_content
from .content.reading import codings_of, read_content
from .notable import give_up, keep_cookies, search_notable
from .redirects import REDIRECTS
from .request import Request
from .response import received
from .settings import as_timeout, route_for

if TYPE_CHECKING:
    from ..pool.scheduler import OriginPool
    from ..response import HTTPResponse
    from .response import Response
    from .settings import ClientState, RequestOptions

__all__ = ["PlainRequests", "match_target"]

MAX_ORIGINS = 4096
"""Origins that are remembered; one more clears them all."""

MAX_INSPECTED = 64
"""Response heads that are remembered; one more clears them all."""

MAX_INSPECTED_SIZE = 4096
"""Bytes of such a head: a server must not fill memory with larger ones."""

MAX_ENCODED = 64
"""Combinations of a request's own header fields that are remembered in encoded form."""

# The options that a plain request may have, and those of them that are a body.
_OPTIONS = frozenset({"headers", "params", "timeout", "json", "content", "data"})
_BODIES = ("json", "content", "data")

# Header fields that have their own place in the head, or decide how a request is sent.
_SPECIAL_FIELDS = DECIDING | {"host"}

# Fields that a request gets from its body, its auth, the cookies or the pool.
_FROM_ELSEWHERE = ADDED | {"authorization", "content-type", "cookie"}

_NO_HEADERS: dict[str, str] = {}
_NO_PARAMS: dict[str, Any] = {}

_REREADABLE = frozenset({bytes, dict, list, str, tuple, type(None)})

match_target = PLAIN_TARGET.fullmatch


class KnownOrigin(NamedTuple):
    """An origin that has answered: its connections, and the head of a request around the target."""

    pool: OriginPool
    after_target: str
    """The rest of the request line and the first header lines, which may have credentials."""
    url: SplitURL

    def __repr__(self) -> str:
        return f"<KnownOrigin {self.url.scheme}://{self.url.authority}>"


class PlainRequests:
    """The shared state of a client's plain requests; ``Client.request`` reads it.

    Each client and each derived client has its own, because all of it depends on the settings.
    """

    __slots__ = (
        "__weakref__",
        "_stale",
        "_state",
        "base_url",
        "body_options",
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
        self.body_options = settings.body_options
        self.send = SendOptions(settings.timeout, None, settings.resend_stale)
        self.shared_methods = SHARING if state.pipelining > 1 else frozenset[str]()
        special = (
            state.params
            or not is_fixed(settings.auth)
            or settings.retry
            or settings.on_request
            or settings.on_response
            or settings.timeout.total is not None
        )
        # Whether the client's fields have changed since they were encoded.
        self._stale = False
        # Encoded header lines of a plain request; None if no request can be plain.
        self.fields = None if special else self._encode_fields((), None)
        # The same merged with a request's own fields; the key is those and the body's type.
        self.encoded_fields: dict[tuple[tuple[tuple[str, str], ...], str | None], str | None] = {}
        # By the URL's beginning, up to its path.
        self.origins: dict[str, KnownOrigin] = {}
        # By a response's head: whether the response is more than its body.
        self.inspected_heads: dict[bytes, bool] = {}

    # ------------------------------------------------------------------------- requests

    def with_options(
        self, url: str, options: RequestOptions
    ) -> tuple[str, str | None, bytes | None, SendOptions]:
        """Return (URL, header lines, body, send options) of a request with *options*.

        The header lines are None if the request is not plain.
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
            content = encode_content(**given, dumps=self._state.settings.json_dumps)
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
        except TypeError:  # a value such as a list: the Call raises the error that explains it
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
        """Return the client's header lines merged with *items*; None for a special field."""
        for name, value in items:
            # Other types may be equal as keys and yet be sent differently, as 1 and True are.
            if type(name) is not str or not (value is None or type(value) is str):
                return None
        state = self._state
        fields = state.fields_for(state.settings, items)
        # Such a field comes from elsewhere, and a Call knows that it is not wanted.
        if not fields.removed.isdisjoint(_FROM_ELSEWHERE):
            return None
        if kind is not None and "content-type" not in fields:
            fields["Content-Type"] = kind
        if (auth := state.settings.auth) is not None:
            auth.authorize(Request("", "", fields))
        text, names = encode_fields(fields.pairs())
        plain = "accept-encoding" in names and "cookie" not in names
        return text if plain and _SPECIAL_FIELDS.isdisjoint(names) else None

    def with_cookies(self, fields: str, url: SplitURL) -> str:
        """Return the header lines *fields* with the stored cookies for *url*."""
        assert self.cookies is not None, "the caller has checked"
        header = self.cookies.header_for(url)
        return f"{fields}Cookie: {header}\r\n" if header else fields

    def forget_fields(self) -> None:
        """Encode the client's fields anew after the next request: they have changed."""
        if self.fields is not None:
            self.fields, self._stale = None, True
            self.encoded_fields.clear()

    def remember_origin(self, url: str) -> None:
        """Make later requests to the origin of *url* plain; call it after a response."""
        if self._stale:
            self._stale = False
            self.fields = self._encode_fields((), None)
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

    # ------------------------------------------------------------------------ responses

    def inspect(self, head: bytes, status: int) -> bool:
        """Return whether a response with *head* is more than its body, and remember the answer.

        It is more if it redirects, sets cookies or is encoded, and the client handles that.
        """
        settings = self._state.settings
        notable = self.redirects(status)
        if not notable and search_notable(head) is not None:
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
        """Whether the client follows a response with *status* to another URL."""
        return status in REDIRECTS and self._state.settings.follow_redirects

    async def finish(
        self,
        raw: HTTPResponse,
        url: SplitURL,
        notable: bool,
        began: float,
        request: bytes,
    ) -> Response:
        """Store the cookies of *raw*, read its body, decode it; return the ``Response``.

        *began*: ``monotonic()`` when the call began. *request*: the head of the request.
        """
        settings, text = self._state.settings, url.text
        try:
            if notable and self.cookies is not None:
                keep_cookies(self.cookies, url, raw)
            codings = codings_of(raw, text) if notable and settings.decompress else []
            content, truncated = await read_content(raw, codings, text, self.body_options)
        except BaseException:
            give_up(raw, raw.method in self.shared_methods)
            raise
        response = received(raw, text, content, began, request, self.body_options)
        response.truncated = truncated
        return response
