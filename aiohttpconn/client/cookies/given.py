"""Cookies that the caller gives to a client or a request, checked and converted. Layer: client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...http11.request_head import bracketed
from ...types import Unset, exact
from .set_cookie import check_cookie, cookie_value
from .store import CookieStore

if TYPE_CHECKING:
    from http.cookiejar import CookieJar

    from ...urls import SplitURL

__all__ = ["cookie_pairs_of", "join_cookies", "store_of"]


def store_of(
    cookies: Mapping[str, str | int] | CookieJar | CookieStore | Unset | None, base: SplitURL | None
) -> CookieStore | None:
    """Return the store for the ``cookies=`` of a client, None if it keeps no cookies."""
    if cookies is None or isinstance(cookies, CookieStore):
        return cookies
    # With an address's zone, which ``text`` leaves out.
    base_url = "" if base is None else f"{base.scheme}://{bracketed(base.host)}"
    if isinstance(cookies, Unset):
        return CookieStore(base_url=base_url)
    if isinstance(cookies, Mapping):
        store = CookieStore(base_url=base_url)
        for name, value in cookies.items():
            if base is None:
                raise ValueError(
                    "cookies= as a dict needs base_url=, whose host gets them; for another host "
                    "call client.cookies.set(name, value, url_or_host=...)"
                )
            store[name] = value
        return store
    if not hasattr(cookies, "extract_cookies"):
        raise TypeError(
            "cookies must be None, a dict, a CookieStore or an http.cookiejar.CookieJar, not "
            f"{type(cookies).__name__}"
        )
    return CookieStore(cookies, base_url=base_url)


def cookie_pairs_of(cookies: Mapping[str, str | int] | None) -> dict[str, str]:
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
        value = cookie_value(name, given)
        name = exact(name)
        check_cookie(name, value)
        pairs[name] = f"{name}={value}"
    return pairs


def join_cookies(kept: str, own: Mapping[str, str]) -> str:
    """Return a Cookie field's value: those *kept* that *own* does not replace, then *own*."""
    left = [pair for pair in kept.split("; ") if pair and pair.partition("=")[0] not in own]
    return "; ".join([*left, *own.values()])
