"""The settings of a client as attributes: they can be read, and assigned.

What is assigned counts from the next request on; a request under way keeps what it began with.
Assigning anything else to a client raises ``AttributeError``. Layer: client.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeAlias, TypeVar, overload
from weakref import ref

from ..arguments import check_arguments
from ..exceptions import InvalidURL, redact
from ..urls import split_url
from ..version import __version__
from .fields import Fields
from .plain import PlainRequests
from .settings import SETTING_CHECKS, as_pairs, default_coding, merge_params

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..net.timeouts import Timeout
    from ..net.tls import FingerprintLike
    from ..params import ParamsLike
    from ..proxies import ProxiesLike, ProxyRules
    from ..types import HeadersLike
    from ..urls import SplitURL
    from .auth.schemes import Auth, AuthLike
    from .content.charsets import DefaultEncoding
    from .retries import Retry
    from .settings import ClientState, OnRequest, OnResponse, RequestOptions

    Truncated: TypeAlias = Literal["error", "keep"]
    Dumps: TypeAlias = Callable[[Any], str | bytes]
    Loads: TypeAlias = Callable[[Any], Any]

__all__ = ["ClientFields", "Configured", "split_base"]

Got = TypeVar("Got", covariant=True)
Given = TypeVar("Given", contravariant=True)


class Setting(Generic[Got, Given]):
    """One of ``Settings`` as an attribute of a client."""

    __slots__ = ("_field", "_name")

    def __init__(self, field: str = "") -> None:
        self._field = field

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self._field = self._field or name

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: Configured, owner: type) -> Got: ...
    def __get__(self, client: Configured | None, owner: type) -> Any:
        return self if client is None else client._setting(self._field)

    def __set__(self, client: Configured, value: Given) -> None:
        client._assign(self._name, value)


class ClientFields(Fields):
    """The header fields of a client, sent with every request; a change counts from the next on."""

    __slots__ = ("_plain",)

    def __init__(self, headers: HeadersLike, decompress: bool) -> None:
        self._plain: Callable[[], PlainRequests | None] = _nothing
        super().__init__()
        self.assign(headers, decompress)

    def assign(self, headers: HeadersLike, decompress: bool) -> None:
        """Begin anew: with the default fields, overridden by *headers*."""
        made = Fields({"Accept-Encoding": default_coding(decompress)})
        made["Accept"] = "*/*"
        made["User-Agent"] = f"aiohttpconn/{__version__}"
        made.override(headers)
        self._items, self.removed = made._items, made.removed
        self._changed()

    def notify(self, plain: PlainRequests) -> None:
        """Tell *plain* of each change from now on; without keeping it alive."""
        self._plain = ref(plain)

    def _changed(self) -> None:
        plain = self._plain()
        if plain is not None:
            plain.forget_fields()

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        self._changed()

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self._changed()

    def discard(self, name: str) -> None:
        super().discard(name)
        self._changed()

    def add(self, name: str | bytes, value: str | bytes | int) -> None:
        super().add(name, value)
        self._changed()

    def override(self, headers: HeadersLike) -> None:
        super().override(headers)
        self._changed()


def _nothing() -> None:
    """Return None: the weak reference before the first client."""


class Configured:
    """The part of ``Client`` that has its settings; see there for what they mean."""

    __slots__ = ("_plain", "_state")

    _state: ClientState
    _plain: PlainRequests

    timeout: Setting[Timeout, float | Timeout | None] = Setting()
    auth: Setting[Auth | None, AuthLike] = Setting()
    follow_redirects: Setting[bool, bool] = Setting()
    max_redirects: Setting[int, int] = Setting()
    allow_downgrade: Setting[bool, bool] = Setting()
    decompress: Setting[bool, bool] = Setting()
    max_body: Setting[int | None, int | None] = Setting()
    max_ratio: Setting[float | None, float | None] = Setting()
    truncated: Setting[Truncated, Truncated] = Setting()
    default_encoding: Setting[DefaultEncoding, DefaultEncoding] = Setting()
    json_dumps: Setting[Dumps | None, Dumps | None] = Setting()
    json_loads: Setting[Loads | None, Loads | None] = Setting()
    retry: Setting[Retry | None, Retry | None] = Setting()
    proxy: Setting[ProxyRules | None, ProxiesLike] = Setting("proxies")
    server_hostname: Setting[str | None, str | None] = Setting()
    fingerprint: Setting[FingerprintLike | None, FingerprintLike | None] = Setting()
    resend_stale: Setting[bool, bool] = Setting()
    on_request: Setting[OnRequest | None, OnRequest | None] = Setting()
    on_response: Setting[OnResponse | None, OnResponse | None] = Setting()

    def _setting(self, field: str) -> Any:
        """Return a field of the client's ``Settings``."""
        return getattr(self._state.settings, field)

    def _assign(self, name: str, value: Any) -> None:
        """Change one setting from the next request on. Raises as the constructor does."""
        state = self._state
        if name in SETTING_CHECKS:
            check_arguments(SETTING_CHECKS, {name: value}, names=(name,))
        settings = state.settings.changed({name: value})
        coding = state.fields_for(settings, None).get("Accept-Encoding")
        if coding is not None and coding != state.fields.get("Accept-Encoding"):
            state.fields["Accept-Encoding"] = coding
        self._prepare(replace(state, settings=settings))

    @property
    def headers(self) -> Fields:
        """The fields sent with every request. Assigning replaces those of the constructor."""
        return self._state.fields

    @headers.setter
    def headers(self, headers: HeadersLike | None) -> None:
        fields, decompress = self._state.fields, self._state.settings.decompress
        assert isinstance(fields, ClientFields), "a derived client is the package's own"
        fields.assign(headers or (), decompress)

    @property
    def params(self) -> list[tuple[str, Any]]:
        """A list of the parameters that are added to every URL; assign it to change them."""
        return list(self._state.params)

    @params.setter
    def params(self, params: ParamsLike | None) -> None:
        self._prepare(replace(self._state, params=as_pairs(params)))

    @property
    def base_url(self) -> str:
        """The URL below which URLs without a scheme lie; "" if there is none."""
        return self._state.base_url

    @base_url.setter
    def base_url(self, base_url: str) -> None:
        split_base(base_url)
        self._prepare(replace(self._state, base_url=base_url.rstrip("/")))

    def _prepare(self, state: ClientState) -> None:
        self._state = state
        self._plain = PlainRequests(state)
        if isinstance(state.fields, ClientFields):
            state.fields.notify(self._plain)

    def _derived(self, options: RequestOptions) -> Self:
        """Return a client on the same pool that makes each request with *options*.

        The options are merged once, not for each request. The derived client need not be closed.
        *options* must not have a body or cookies.
        """
        state = self._state
        settings = state.settings.changed(options)
        made = copy(self)
        old, new = state.settings.timeout, settings.timeout
        # All requests on a shared connection have its limits.
        shares = (old.read, old.write, old.head) == (new.read, new.write, new.head)
        made._prepare(
            replace(
                state,
                settings=settings,
                pipelining=state.pipelining if shares else 1,
                fields=state.fields_for(settings, options.get("headers")),
                params=merge_params(state.params, options.get("params")),
            )
        )
        return made


def split_base(base_url: str) -> SplitURL | None:
    """Return the parts of a client's ``base_url``, None for ""; ``InvalidURL`` if it is none."""
    base = split_url(base_url) if base_url else None
    if base is not None and ("?" in base_url or "#" in base_url):
        raise InvalidURL(
            f"base_url must have neither a query nor a fragment, got {redact(base_url)!r}: "
            "params= are sent with every request"
        )
    return base
