"""Options of clients and requests: types, checks, defaults, merging. Layer: client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from ..net.timeouts import Timeout
from ..net.tls import read_fingerprint
from ..pool.pool import forwards
from ..pool.routes import Route
from ..proxies import ProxyRules
from .auth.schemes import as_auth
from .content.charsets import DEFAULT_ENCODING, check_default
from .content.codecs import accept_encoding
from .content.decoding import MAX_RATIO
from .content.reading import BodyOptions
from .request import Request
from .response import Response
from .retries import Retry

if TYPE_CHECKING:
    import ssl

    from ..net.tls import FingerprintLike
    from ..pool.connections import ConnectionManager
    from ..proxies import ProxiesLike
    from ..types import BodyLike, HeadersLike
    from ..urls import ParamsLike, SplitURL
    from .auth.schemes import Auth, AuthLike
    from .content.charsets import DefaultEncoding
    from .content.encode import DataLike
    from .content.multipart import FilesLike
    from .cookies.store import CookieStore
    from .fields import Fields
    from .retries import RetryBudget

__all__ = [
    "DEFAULT_TIMEOUT",
    "ClientState",
    "OnRequest",
    "OnResponse",
    "RequestOptions",
    "Settings",
    "as_pairs",
    "as_timeout",
    "check_options",
    "default_coding",
    "merge_params",
    "route_for",
]

POOL_SECONDS = 60.0
"""Limit of the wait for a connection, unless the caller gives a ``Timeout``."""

DEFAULT_TIMEOUT = Timeout(connect=10.0, read=30.0, write=30.0, pool=POOL_SECONDS)
"""A client's timeout, unless the caller gives one."""


OnRequest = Callable[[Request], Any]
"""Called before each request of a call; an awaitable result is awaited."""

OnResponse = Callable[[Response], Any]
"""Called with each response of a call, including redirects; an awaitable result is awaited."""


class RequestOptions(TypedDict, total=False):
    """Options of a single request; most of them replace the client's own setting."""

    headers: HeadersLike | None
    params: ParamsLike | None
    target: str | None
    content: BodyLike | None
    json: Any
    data: DataLike | None
    files: FilesLike | None
    cookies: Mapping[str, str] | None
    timeout: float | Timeout | None
    auth: AuthLike
    follow_redirects: bool
    max_redirects: int
    allow_downgrade: bool
    decompress: bool
    max_body: int | None
    max_ratio: float | None
    truncated: Literal["error", "keep"]
    default_encoding: DefaultEncoding
    retry: Retry | None
    proxy: ProxiesLike
    context: ssl.SSLContext | None
    server_hostname: str | None
    fingerprint: FingerprintLike | None
    resend_stale: bool
    on_request: OnRequest | None
    on_response: OnResponse | None


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a call: the client's, with the changes of the call's own options."""

    timeout: Timeout = DEFAULT_TIMEOUT
    auth: Auth | None = None
    follow_redirects: bool = True
    max_redirects: int = 10
    allow_downgrade: bool = False
    decompress: bool = True
    max_body: int | None = None
    max_ratio: float | None = MAX_RATIO
    truncated: Literal["error", "keep"] = "error"
    default_encoding: DefaultEncoding = DEFAULT_ENCODING
    json_dumps: Callable[[Any], str | bytes] | None = None
    json_loads: Callable[[Any], Any] | None = None
    retry: Retry | None = None
    proxies: ProxyRules | None = None
    context: ssl.SSLContext | None = None
    server_hostname: str | None = None
    fingerprint: FingerprintLike | None = None
    resend_stale: bool = True
    on_request: OnRequest | None = None
    on_response: OnResponse | None = None

    def __post_init__(self) -> None:
        if self.retry is not None and not isinstance(self.retry, Retry):
            raise TypeError(f"retry must be None or a Retry, not {type(self.retry).__name__}")
        _check_count("max_redirects", self.max_redirects, "an int, 0 or more")
        if self.max_body is not None:
            _check_count("max_body", self.max_body, "None or an int, 0 bytes or more")
        read_fingerprint(self.fingerprint)
        ratio = self.max_ratio
        if ratio is not None:
            if isinstance(ratio, bool) or not isinstance(ratio, (int, float)):
                raise TypeError(f"max_ratio must be None or a number, not {type(ratio).__name__}")
            if not ratio > 0:
                raise ValueError(f"max_ratio must be above 0, got {ratio!r}")
        if self.truncated not in ("error", "keep"):
            raise ValueError(f"truncated must be 'error' or 'keep', got {self.truncated!r}")
        if self.default_encoding is not DEFAULT_ENCODING:
            check_default(self.default_encoding)
        for name in ("json_dumps", "json_loads", "on_request", "on_response"):
            hook = getattr(self, name)
            if hook is not None and not callable(hook):
                raise TypeError(f"{name} must be None or a callable, not {type(hook).__name__}")

    @property
    def body_options(self) -> BodyOptions:
        """The settings that say how the body of a response is read."""
        return BodyOptions(
            self.max_body,
            self.max_ratio,
            self.truncated == "keep",
            self.default_encoding,
            self.json_loads,
        )

    def changed(self, options: Mapping[str, Any]) -> Settings:
        """Return these settings with the replacements that *options* has."""
        given = {name: options[name] for name in _SETTINGS if name in options}
        if "timeout" in given:
            given["timeout"] = as_timeout(given["timeout"], self.timeout.pool)
        if "auth" in given:
            given["auth"] = as_auth(given["auth"])
        if "proxy" in options:
            given["proxies"] = ProxyRules.of(options["proxy"])
        return replace(self, **given) if given else self


def _check_count(name: str, value: object, expected: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be {expected}, not {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name} must be {expected}, got {value}")


_SETTINGS = tuple(field.name for field in fields(Settings) if field.name != "proxies")
_KNOWN = frozenset(RequestOptions.__annotations__)

# Names that requests, httpx and aiohttp use.
_HINTS = {
    "allow_redirects": "follow_redirects=",
    "body": "content=",
    "proxies": "proxy=",
    "ssl": "context=",
    "stream": "client.stream(...)",
    "verify": "context=, or the client's cafile=",
}


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ``TypeError`` for unknown options."""
    if unknown := options.keys() - _KNOWN:
        named = [
            f"{name} (here: {_HINTS[name]})" if name in _HINTS else name for name in sorted(unknown)
        ]
        raise TypeError(
            f"unknown options: {', '.join(named)}; there are {', '.join(sorted(_KNOWN))}"
        )


def as_timeout(value: float | Timeout | None, pool: float | None = POOL_SECONDS) -> Timeout:
    """Return the ``Timeout`` for *value*; a number is the limit of connect, read and write.

    *pool*: the limit of the wait for a connection that goes with a number.
    """
    if isinstance(value, Timeout) or value is None:
        return Timeout.of(value)
    return Timeout(connect=value, read=value, write=value, pool=pool)


def as_pairs(params: ParamsLike | None) -> list[tuple[str, Any]]:
    """Return query parameters as a list of pairs, which can be read more than once."""
    if isinstance(params, (str, bytes)):
        raise TypeError(
            f"params must be a mapping or pairs, not {params!r}: an encoded query goes into the URL"
        )
    return list(params.items() if isinstance(params, Mapping) else params or ())


def merge_params(params: list[tuple[str, Any]], own: ParamsLike | None) -> list[tuple[str, Any]]:
    """Return a client's *params* with a request's *own*, which replace those of the same name."""
    if not own:
        return params
    pairs = as_pairs(own)
    names = {name for name, _ in pairs}
    return [pair for pair in params if pair[0] not in names] + pairs


@dataclass(slots=True)
class ClientState:
    """The state that all calls of a client share."""

    connections: ConnectionManager
    settings: Settings
    fields: Fields
    base_url: str
    params: list[tuple[str, Any]]
    cookies: CookieStore | None
    budget: RetryBudget
    pipelining: int

    def fields_for(self, settings: Settings, headers: HeadersLike | None) -> Fields:
        """Return the fields of a request: the client's, overridden by its own *headers*."""
        fields = self.fields.copy()
        if headers:
            fields.override(headers)
        decodes, may_decode = self.settings.decompress, settings.decompress
        # A range of an encoded body cannot be decoded.
        wanted = may_decode and "range" not in fields
        if wanted != decodes and fields.get("Accept-Encoding") == default_coding(decodes):
            # It is still the default.
            fields["Accept-Encoding"] = default_coding(wanted)
        return fields


def default_coding(decompress: bool) -> str:
    """Return the default Accept-Encoding."""
    return accept_encoding() if decompress else "identity"


def route_for(url: SplitURL, settings: Settings) -> Route:
    """Return the route to the origin of *url*."""
    origin = url.origin
    proxy = settings.proxies.proxy_for(*origin) if settings.proxies is not None else None
    forward = proxy is not None and forwards(proxy, url.scheme)
    if url.scheme != "https":
        return Route(*origin, proxy, settings.context, None, forward)
    pin = read_fingerprint(settings.fingerprint)
    return Route(*origin, proxy, settings.context, settings.server_hostname, forward, pin)
