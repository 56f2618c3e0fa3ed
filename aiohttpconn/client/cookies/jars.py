"""Cookies as ``http.cookiejar`` has them, which is loaded on first use. Layer: client."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from ...http11.grammar import FIELD_VALUE
from ...http11.request_head import bracketed
from .set_cookie import StoredCookie, check_cookie, is_trustworthy

if TYPE_CHECKING:
    from http.cookiejar import Cookie, CookieJar

    from ...urls import SplitURL

__all__ = ["ask_jar", "from_cookie", "host_of", "tell_jar", "to_cookie", "to_line"]


class _JarResponse:
    """The interface of a response that ``CookieJar.extract_cookies`` needs."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def info(self) -> _JarResponse:
        return self

    def get_all(self, name: str, default: Any = None) -> Any:
        return self._lines if name == "Set-Cookie" else default


def tell_jar(jar: CookieJar, url: SplitURL, lines: list[str]) -> None:
    """Give *lines*, the Set-Cookie fields of a response for *url*, to *jar*."""
    jar.extract_cookies(_JarResponse(lines), _jar_request(url))  # type: ignore[arg-type]


def ask_jar(jar: CookieJar, url: SplitURL, room: int) -> str:
    """Return a jar's Cookie field, without invalid cookies and those beyond *room* bytes."""
    request = _jar_request(url)
    jar.add_cookie_header(request)
    pairs = (request.get_header("Cookie") or "").split("; ")
    kept = []
    room += 2
    for pair in pairs:
        room -= len(pair) + 2
        if room >= 0 and FIELD_VALUE.fullmatch(pair):
            kept.append(pair)
    return "; ".join(kept)


def _jar_request(url: SplitURL) -> Any:
    from urllib.request import Request

    # A jar knows https alone as secure.
    return Request((url._replace(scheme="https") if is_trustworthy(url) else url).text)


def to_line(cookie: StoredCookie, host: str, now: float) -> str:
    """Return a Set-Cookie field that sets exactly *cookie*."""
    line = f"{cookie.pair}; Path={cookie.path}"
    if cookie.domain != host:
        line += f"; Domain={cookie.domain}"
    if cookie.expires != inf:
        line += f"; Max-Age={int(max(0, cookie.expires - now))}"
    if cookie.secure:
        line += "; Secure"
    if cookie.http_only:
        line += "; HttpOnly"
    return line


def _jar_domain(host: str) -> str:
    """Return the domain under which ``http.cookiejar`` stores the cookies of *host*."""
    host = bracketed(host)
    return host if "." in host else f"{host}.local"


def host_of(cookie: Cookie) -> str:
    """Return the host, or "." and the domain, of *cookie*.

    "x.local" may be x or x.local, a host of the local network. A cookie that did not come from a
    store is for x.local, except for localhost and IPv6 addresses, where only x is possible.
    """
    domain: str = cookie.domain
    host: str = getattr(cookie, _HOST, "")
    if host and domain == _jar_domain(host):
        return host
    if domain == "localhost.local":
        return "localhost"
    return domain.removesuffix(".local")[1:-1] if domain.startswith("[") else domain


_HOST = "_aiohttpconn_host"
"""The attribute with the host of a ``Cookie`` that this module made. No server can set it."""


def to_cookie(cookie: StoredCookie) -> Cookie:
    """Return a copy of *cookie* in the standard library's form."""
    from http.cookiejar import Cookie

    wide = cookie.domain.startswith(".")
    session = cookie.expires == inf
    made = Cookie(
        version=0,
        name=cookie.name,
        value=cookie.pair[len(cookie.name) + 1 :],
        port=None,
        port_specified=False,
        domain=_jar_domain(cookie.domain),
        domain_specified=wide,
        domain_initial_dot=wide,
        path=cookie.path,
        path_specified=True,
        secure=cookie.secure,
        expires=None if session else int(cookie.expires),
        discard=session,
        comment=None,
        comment_url=None,
        rest={"HttpOnly": ""} if cookie.http_only else {},
    )
    setattr(made, _HOST, cookie.domain)
    return made


def from_cookie(cookie: Cookie) -> StoredCookie:
    """Return a copy of *cookie*; raise ``ValueError`` if it cannot be sent."""
    value = cookie.value or ""
    check_cookie(cookie.name, value, cookie.path, received=True)
    return StoredCookie(
        cookie.name,
        f"{cookie.name}={value}",
        host_of(cookie),
        cookie.path,
        inf if cookie.expires is None else cookie.expires,
        cookie.secure,
        cookie.has_nonstandard_attr("HttpOnly"),
    )
