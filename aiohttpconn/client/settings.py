"""Options of clients and requests: types, checks, defaults, merging. Layer: client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from ..arguments import (
    CONTEXT,
    FLAG,
    FUNCTION,
    PLAIN_FUNCTION,
    Checks,
    check_arguments,
    choice,
    count,
    instance,
    number,
)
from ..net.timeouts import Timeout
from ..net.tls import check_server_name, read_fingerprint
from ..params import param_pairs
from ..pool.pool import forwards
from ..pool.routes import Route
from ..proxies import ProxyRules
from .auth.schemes import as_auth
from .content.charsets import DEFAULT_ENCODING, check_default
from .content.codecs import accept_encoding
from .content.decoding import MAX_RATIO
from .content.reading import BodyOptions
from .hints import OF_REQUEST, name_unknown
from .request import Request
from .response import Response
from .retries import Retry

if TYPE_CHECKING:
    import ssl

    from ..net.tls import FingerprintLike
    from ..params import ParamsLike
    from ..pool.connections import ConnectionManager
    from ..proxies import ProxiesLike
    from ..types import BodyLike, HeadersLike
    from ..urls import SplitURL
    from .auth.schemes import Auth, AuthLike
    from .content.charsets import DefaultEncoding
    from .content.encode import DataLike
    from .content.multipart import FilesLike
    from .cookies.store import CookieStore
    from .fields import Fields
    from .retries import RetryBudget

__all__ = [
    "DEFAULT_TIMEOUT",
    "SETTING_CHECKS",
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
    cookies: Mapping[str, str | int] | None
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
    body_options: BodyOptions = field(init=False, repr=False, compare=False)
    """The settings that say how the body of a response is read."""

    def __post_init__(self) -> None:
        options = BodyOptions(
            self.max_body,
            self.max_ratio,
            self.truncated == "keep",
            self.default_encoding,
            self.json_loads,
        )
        object.__setattr__(self, "body_options", options)

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


_SETTINGS = tuple(each.name for each in fields(Settings) if each.init and each.name != "proxies")
_KNOWN = frozenset(RequestOptions.__annotations__)

SETTING_CHECKS: Checks = {
    "follow_redirects": FLAG,
    "max_redirects": count(0),
    "allow_downgrade": FLAG,
    "decompress": FLAG,
    "max_body": count(0, "bytes", none=True),
    "max_ratio": number("bytes", above=0, none=True),
    "retry": instance(Retry, "a Retry", none=True),
    "server_hostname": check_server_name,
    "fingerprint": lambda name, value: read_fingerprint(value),
    "resend_stale": FLAG,
    "on_request": FUNCTION,
    "on_response": FUNCTION,
    "truncated": choice("error", "keep"),
    "default_encoding": lambda name, value: check_default(value),
    "json_dumps": PLAIN_FUNCTION,
    "json_loads": PLAIN_FUNCTION,
}
"""The other settings (timeout, auth, proxy, headers, ...) are checked by what reads them."""

_OPTION_CHECKS: Checks = {**SETTING_CHECKS, "context": CONTEXT}


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ``TypeError`` for unknown options, and as the checks do for wrong values."""
    if unknown := options.keys() - _KNOWN:
        raise TypeError(
            f"unknown options: {name_unknown(unknown, OF_REQUEST)}; there are "
            f"{', '.join(sorted(_KNOWN))}"
        )
    check_arguments(_OPTION_CHECKS, options, names=_OPTION_CHECKS.keys() & options.keys())


def as_timeout(value: float | Timeout | None, pool: float | None = POOL_SECONDS) -> Timeout:
    """Return the ``Timeout`` for *value*; a number is the limit of connect, read and write.

    *pool*: the limit of the wait for a connection that goes with a number.
    """
    if isinstance(value, Timeout) or value is None:
        return Timeout.of(value)
    return Timeout.each(value, pool)


def as_pairs(params: ParamsLike | None) -> list[tuple[str, Any]]:
    """Return query parameters as a list of pairs, which can be read more than once."""
    return [] if params is None else param_pairs(params)


def merge_params(params: list[tuple[str, Any]], own: ParamsLike | None) -> list[tuple[str, Any]]:
    """Return a client's *params* with a request's *own*, which replace those of the same name."""
    if not own:
        return params
    pairs = as_pairs(own)
    names = {name for name, _ in pairs}
    return [pair for pair in params if pair[0] not in names] + pairs


@dataclass(slots=True, repr=False)
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
