"""Cookies that the caller gives to a client or a request, checked and converted. Layer: client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...types import Unset
from .store import CookieStore, check_cookie

if TYPE_CHECKING:
    from http.cookiejar import CookieJar

    from ...urls import SplitURL

__all__ = ["cookie_pairs_of", "join_cookies", "store_of"]


def store_of(
    cookies: Mapping[str, str] | CookieJar | CookieStore | Unset | None, base: SplitURL | None
) -> CookieStore | None:
    """Return the store for the ``cookies=`` of a client, None if it keeps no cookies."""
    if cookies is None or isinstance(cookies, CookieStore):
        return cookies
    if isinstance(cookies, Unset):
        return CookieStore()
    if isinstance(cookies, Mapping):
        store = CookieStore()
        for name, value in cookies.items():
            if base is None:
                raise ValueError(
                    "cookies= as a dict needs base_url=, whose host gets them; for another host "
                    "call client.cookies.set(name, value, url_or_host=...)"
                )
            value = _cookie_value(name, value)
            store.set(name, value, url_or_host=base.text, secure=base.scheme == "https")
        return store
    if not hasattr(cookies, "extract_cookies"):
        raise TypeError(
            "cookies must be None, a dict, a CookieStore or an http.cookiejar.CookieJar, not "
            f"{type(cookies).__name__}"
        )
    return CookieStore(cookies)


def cookie_pairs_of(cookies: Mapping[str, str] | None) -> dict[str, str]:
    """Return the ``cookies=`` of a request as "name=value" by name.

    Raises ``TypeError`` and ``ValueError``.
    """
    if cookies is None:
        return {}
    if not isinstance(cookies, Mapping):
        raise TypeError(
            f"cookies must be a mapping of names to values or None, not {type(cookies).__name__}"
        )
    pairs = {}
    for name, given in cookies.items():
        value = _cookie_value(name, given)
        check_cookie(name, value)
        pairs[name] = f"{name}={value}"
    return pairs


def join_cookies(kept: str, own: Mapping[str, str]) -> str:
    """Return a Cookie field's value: those *kept* that *own* does not replace, then *own*."""
    left = [pair for pair in kept.split("; ") if pair and pair.partition("=")[0] not in own]
    return "; ".join([*left, *own.values()])


def _cookie_value(name: Any, value: Any) -> str:
    """Return the value of a cookie as text."""
    if not isinstance(name, str):
        raise TypeError(f"a cookie's name must be a str, not {type(name).__name__}")
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__repr__(value)
    # Do not show the value: it may be secret.
    raise TypeError(
        f"the value of the cookie {name!r} must be a str or an int, not {type(value).__name__}"
    )
