"""CookieStore (RFC 6265bis): keeps the cookies that responses set, returns them in Cookie fields.

The store holds cookies by host; set_cookie.py parses Set-Cookie fields. Import and export use
``http.cookiejar``, loaded on first use. Its own jar is no replacement: it walks over every host it
knows for each request, 56 ms for 10,000 hosts, and lets a host set cookies for all of co.uk.

A cookie goes back only to the host that set it: a Domain attribute must cover that host, and has
no other effect. Only a public suffix list tells which hosts of a domain have the same owner; with
one, a cookie may be for a domain. No I/O. Layer: client.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from math import inf
from typing import TYPE_CHECKING, Any

from ...http11.grammar import FIELD_VALUE
from ...http11.request_head import bracketed
from ...urls import SplitURL, split_url
from .set_cookie import (
    MAX_COOKIE,
    StoredCookie,
    default_path,
    is_address,
    may_set,
    parse_set_cookie,
    path_matches,
)

if TYPE_CHECKING:
    from http.cookiejar import Cookie, CookieJar

__all__ = ["CookieStore", "check_cookie", "cookie_pairs"]

MAX_PER_HOST = 50
"""Cookies of one host, the minimum of RFC 6265bis §6.1. The oldest is removed first."""

MAX_HEADER = 8 * 1024
"""Bytes of a Cookie field: many servers refuse a longer one."""

MAX_SIZE = 64 * 1024 * 1024
"""Bytes of all cookies, about 100,000 small ones. The least recently used hosts go first."""

# A caller's cookie: a name without "=" and blanks, a value without blanks at its ends.
_NAME = re.compile(r"[\x21-\x3a\x3c\x3e-\x7e\x80-\xff]+")
_VALUE = re.compile(r"(?![\t ])[\t\x20-\x3a\x3c-\x7e\x80-\xff]*(?<![\t ])")
_PATH = re.compile(r"/[\x20-\x3a\x3c-\x7e\x80-\xff]*")

_now = time.time

_Cookies = dict[tuple[str, str], StoredCookie]
"""The cookies of a host or domain by (path, name), the oldest first."""


def cookie_pairs(set_cookie_values: Iterable[str]) -> dict[str, str]:
    """Return the cookies that one response sets, by name, without those that it deletes."""
    pairs: dict[str, str] = {}
    now = _now()
    for line in set_cookie_values:
        cookie = parse_set_cookie(line, now)
        if cookie is not None:
            pairs.pop(cookie.name, None)
            if cookie.expires > now:
                pairs[cookie.name] = cookie.pair[len(cookie.name) + 1 :]
    return pairs


class CookieStore:
    """The cookies of a client: takes them from responses, adds them to requests.

    *jar*: keep the cookies in this ``http.cookiejar.CookieJar``, for example a
    ``MozillaCookieJar``. Then its policy decides about Domain attributes, and it walks over every
    host that it knows for each request.

    *is_public_suffix*: a function that tells whether a domain is one like co.uk, below which
    domains have different owners: ``publicsuffixlist.PublicSuffixList().is_public``. With it, a
    server may set cookies for its whole domain over https, but not over http, where anyone on the
    path could set them.
    """

    __slots__ = ("_created", "_hosts", "_is_public_suffix", "_jar", "_size", "_wide")

    def __init__(
        self,
        jar: CookieJar | None = None,
        *,
        is_public_suffix: Callable[[str], bool] | None = None,
    ) -> None:
        self._jar = jar
        self._is_public_suffix = is_public_suffix
        # By StoredCookie.domain, the least recently used first.
        self._hosts: dict[str, _Cookies] = {}
        # Whether the store may have cookies of a domain.
        self._wide = False
        self._size = 0
        self._created = 0

    def __repr__(self) -> str:
        # Names and values are secrets.
        return f"<CookieStore {len(self)} cookies>"

    def __len__(self) -> int:
        if self._jar is not None:
            return len(self._jar)
        return sum(map(len, self._hosts.values()))

    def __iter__(self) -> Iterator[Cookie]:
        """Iterate over ``http.cookiejar.Cookie`` objects: copies, unless the store has a *jar*."""
        if self._jar is not None:
            return iter(self._jar)
        kept = [cookie for cookies in self._hosts.values() for cookie in cookies.values()]
        return map(_to_cookie, kept)

    @property
    def jar(self) -> CookieJar:
        """The caller's jar; without one, a new jar with copies of the present cookies."""
        if self._jar is not None:
            return self._jar
        from http.cookiejar import CookieJar

        jar = CookieJar()
        for cookie in self:
            jar.set_cookie(cookie)
        return jar

    def may_have(self, host: str) -> bool:
        """Whether ``header_for`` may find a cookie for a URL of *host*: a quick look."""
        return self._wide or self._jar is not None or host in self._hosts

    def header_for(self, url: SplitURL) -> str:
        """Return the Cookie field's value of a request for *url*, "" if it has no cookies."""
        if self._jar is not None:
            return _ask_jar(self._jar, url)
        if not self._wide and url.host not in self._hosts:
            return ""
        return self._header(url)

    def extract(self, url: SplitURL, set_cookie_values: Iterable[str]) -> None:
        """Keep the cookies of the response for *url*, except those that it must not set."""
        now = _now()
        lines: list[str] = []
        for line in set_cookie_values:
            cookie = parse_set_cookie(line, now)
            if cookie is None or not may_set(url, cookie):
                continue
            asked = cookie.domain
            domain = self._domain_for(url, asked)
            if domain is None:
                continue
            cookie.domain = domain
            cookie.path = cookie.path or default_path(url.target)
            if self._jar is not None:
                lines.append(_to_line(cookie, url.host, now))
                continue
            # The server may change a domain's cookie that the caller has set.
            if asked and (cookie.path, cookie.name) in self._hosts.get(f".{asked}", ()):
                cookie.domain = f".{asked}"
            self._receive(cookie, url, now)
        if lines and self._jar is not None:
            _tell_jar(self._jar, url, lines)

    def set(
        self, name: str, value: str, *, url_or_host: str, path: str = "/", secure: bool = False
    ) -> None:
        """Set a cookie until ``clear()``, or until a server changes it.

        *url_or_host*: the host that gets the cookie, or a URL with that host; ``.example.org`` is
        that host and all below it. *secure*: send the cookie only over https. Raises
        ``ValueError`` if the cookie cannot be sent, ``InvalidURL`` for an invalid host.
        """
        url = split_url(url_or_host if "://" in url_or_host else f"http://{url_or_host}")
        check_cookie(name, value, path)
        cookie = StoredCookie(name, f"{name}={value}", url.host, path, inf, secure)
        if self._jar is None:
            self._put(cookie)
            return
        url = url._replace(scheme="https" if secure else "http", host=url.host.removeprefix("."))
        _tell_jar(self._jar, url, [_to_line(cookie, url.host, 0)])

    def load(self, cookies: Iterable[Cookie]) -> None:
        """Add copies of *cookies*, which may be an ``http.cookiejar.CookieJar``.

        A jar stores a host without a dot as ``host.local``. ``load`` turns ``localhost.local`` into
        ``localhost``, and others into ``host`` only if the cookie came from a ``CookieStore`` and
        not from a file. Raises ``ValueError`` for a cookie that cannot be sent.
        """
        for cookie in cookies:
            if self._jar is not None:
                self._jar.set_cookie(cookie)
            else:
                self._put(_from_cookie(cookie))

    def clear(self) -> None:
        """Forget all cookies."""
        if self._jar is not None:
            self._jar.clear()
        self._hosts.clear()
        self._wide = False
        self._size = 0

    def _header(self, url: SplitURL) -> str:
        now = _now()
        secure = url.scheme == "https"
        path = url.target.partition("?")[0]
        found: list[StoredCookie] = []
        expired: list[StoredCookie] = []
        for cookies in self._of_host(url.host):
            for cookie in cookies.values():
                if cookie.expires <= now:
                    expired.append(cookie)
                elif (secure or not cookie.secure) and path_matches(path, cookie.path):
                    found.append(cookie)
        for cookie in expired:
            self._remove(cookie)
        found.sort(key=StoredCookie.place)
        header = "; ".join([cookie.pair for cookie in found])
        if (excess := len(header) - MAX_HEADER) > 0:
            # Drop the least specific ones first, and the oldest of these.
            found.sort(key=lambda cookie: (-len(cookie.path), -cookie.created))
            while excess > 0:
                excess -= len(found.pop().pair) + 2
            found.sort(key=StoredCookie.place)
            header = "; ".join([cookie.pair for cookie in found])
        return header

    def _of_host(self, host: str) -> Iterator[_Cookies]:
        """Yield the cookies of *host* and of its domains, and mark these as just used."""
        if host.startswith("."):
            # The host of a URL may begin with a dot; it must not be taken for a domain.
            return
        keys = [host]
        if self._wide and not is_address(host):
            labels = host.split(".")
            keys += [f".{'.'.join(labels[at:])}" for at in range(len(labels))]
        for key in keys:
            cookies = self._hosts.pop(key, None)
            if cookies is not None:
                self._hosts[key] = cookies
                yield cookies

    def _domain_for(self, url: SplitURL, domain: str) -> str | None:
        """Return the host, or "." and the domain, of a cookie; None if it must not be set."""
        host = url.host
        covers = domain in ("", host) or (host.endswith(f".{domain}") and not is_address(host))
        if host.startswith(".") or not covers:
            return None
        if not domain or is_address(host) or "." not in host:
            return host
        if self._is_public_suffix is None:
            return host if self._jar is None else f".{domain}"
        if self._is_public_suffix(domain):
            return host if domain == host else None
        # No public suffix list has names that end with a dot.
        return host if url.scheme != "https" or host.endswith(".") else f".{domain}"

    def _receive(self, cookie: StoredCookie, url: SplitURL, now: float) -> None:
        """Keep a server's cookie, or remove it if it has expired (RFC 6265bis §5.7)."""
        # "Leave secure cookies alone": a cookie set over http must not shadow a secure one.
        if url.scheme != "https" and any(
            kept.secure and kept.name == cookie.name and path_matches(cookie.path, kept.path)
            for cookies in self._of_host(url.host)
            for kept in cookies.values()
        ):
            return
        if cookie.expires > now:
            self._put(cookie)
        elif old := self._hosts.get(cookie.domain, {}).get((cookie.path, cookie.name)):
            self._remove(old)

    def _put(self, cookie: StoredCookie) -> None:
        cookies = self._hosts[cookie.domain] = self._hosts.pop(cookie.domain, {})
        old = cookies.get((cookie.path, cookie.name))
        if old is None:
            self._created += 1
            cookie.created = self._created
        else:
            self._size -= old.size()
            cookie.created = old.created
        cookies[cookie.path, cookie.name] = cookie
        self._size += cookie.size()
        self._wide = self._wide or cookie.domain.startswith(".")
        if len(cookies) > MAX_PER_HOST:
            # Secure ones last: cookies set over http must not evict them.
            self._remove(min(cookies.values(), key=lambda kept: (kept.secure, kept.created)))
        if self._size > MAX_SIZE:
            self._shrink()

    def _remove(self, cookie: StoredCookie) -> None:
        cookies = self._hosts[cookie.domain]
        del cookies[cookie.path, cookie.name]
        self._size -= cookie.size()
        if not cookies:
            del self._hosts[cookie.domain]

    def _shrink(self) -> None:
        """Remove the least recently used hosts until the size is 10 % below the limit."""
        for domain in list(self._hosts):
            if self._size <= MAX_SIZE * 0.9:
                break
            self._size -= sum(cookie.size() for cookie in self._hosts.pop(domain).values())


def check_cookie(name: str, value: str, path: str = "/") -> None:
    """Raise ``ValueError`` unless a caller's cookie can be sent. The value is never shown."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"a cookie's name must have no '=', ';', blank or control character: {name!r}"
        )
    if not _VALUE.fullmatch(value) or len(name) + len(value) > MAX_COOKIE:
        raise ValueError(
            f"the value of the cookie {name!r} has a ';', a control character, a character outside "
            f"ISO-8859-1 or a blank at an end, or more than {MAX_COOKIE} bytes: encode it"
        )
    if not _PATH.fullmatch(path):
        raise ValueError(f"a cookie's path must begin with '/' and have no ';': {path!r}")


# ----------------------------------------------------------------------- http.cookiejar


class _JarResponse:
    """The interface of a response that ``CookieJar.extract_cookies`` needs."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def info(self) -> _JarResponse:
        return self

    def get_all(self, name: str, default: Any = None) -> Any:
        return self._lines if name == "Set-Cookie" else default


def _tell_jar(jar: CookieJar, url: SplitURL, lines: list[str]) -> None:
    from urllib.request import Request

    jar.extract_cookies(_JarResponse(lines), Request(url.text))  # type: ignore[arg-type]


def _ask_jar(jar: CookieJar, url: SplitURL) -> str:
    """Return a jar's Cookie field, without invalid cookies and those beyond ``MAX_HEADER``."""
    from urllib.request import Request

    request = Request(url.text)
    jar.add_cookie_header(request)
    pairs = (request.get_header("Cookie") or "").split("; ")
    kept = []
    room = MAX_HEADER + 2
    for pair in pairs:
        room -= len(pair) + 2
        if room >= 0 and FIELD_VALUE.fullmatch(pair):
            kept.append(pair)
    return "; ".join(kept)


def _to_line(cookie: StoredCookie, host: str, now: float) -> str:
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


def _host_of(cookie: Cookie) -> str:
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


def _to_cookie(cookie: StoredCookie) -> Cookie:
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


def _from_cookie(cookie: Cookie) -> StoredCookie:
    value = cookie.value or ""
    check_cookie(cookie.name, value, cookie.path)
    return StoredCookie(
        cookie.name,
        f"{cookie.name}={value}",
        _host_of(cookie),
        cookie.path,
        inf if cookie.expires is None else cookie.expires,
        cookie.secure,
        cookie.has_nonstandard_attr("HttpOnly"),
    )
