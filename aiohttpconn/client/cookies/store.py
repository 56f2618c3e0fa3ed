"""CookieStore (RFC 6265bis): keeps the cookies that responses set, returns them in Cookie fields.

The store holds cookies by host; set_cookie.py parses Set-Cookie fields, jars.py knows
``http.cookiejar``. A jar of the standard library is no replacement: it walks over every host it
knows for each request, 56 ms for 10,000 hosts, and lets a host set cookies for all of co.uk.

A cookie goes back to the host that set it, or to the domain that its Domain attribute names, if
that has no public suffix in it: only there all hosts have one owner. No I/O. Layer: client.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from ...arguments import PLAIN_FUNCTION
from ...hooks import at_once
from ...types import exact
from .by_name import CookiesByName, as_url
from .jars import ask_jar, from_cookie, host_of, tell_jar, to_cookie, to_line
from .set_cookie import (
    StoredCookie,
    check_cookie,
    default_path,
    is_address,
    is_trustworthy,
    may_set,
    overlap,
    parse_set_cookie,
    path_matches,
)
from .suffixes import covers_suffix, public_suffix_check

if TYPE_CHECKING:
    from http.cookiejar import Cookie, CookieJar

    from ...urls import SplitURL

__all__ = ["CookieStore", "cookie_pairs"]

logger = logging.getLogger("aiohttpconn")

MAX_PER_HOST = 50
"""Cookies of one host or domain, the minimum of RFC 6265bis §6.1."""

MAX_HEADER = 8 * 1024
"""Bytes of a Cookie field: many servers refuse a longer one."""

MAX_SIZE = 64 * 1024 * 1024
"""Bytes of all cookies, about 100,000 small ones. The least recently used hosts go first."""

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


class CookieStore(CookiesByName):
    """The cookies of a client: takes them from responses, adds them to requests.

    By name it reads and writes like a mapping, ``store["csrftoken"]``; iteration gives the cookies
    themselves, as ``http.cookiejar.Cookie``.

    *jar*: keep the cookies in this ``http.cookiejar.CookieJar``, for example a
    ``MozillaCookieJar``. Then its policy decides about Domain attributes, too, and it walks over
    every host that it knows for each request.

    *is_public_suffix*: a function that tells whether a domain is one like co.uk, below which
    domains have different owners: no cookie is for all of it. The default is the full list, if
    ``publicsuffixlist`` is installed, else a short one of the most used suffixes.

    *base_url*: a URL to whose host ``store[name] = value`` adds a cookie; a client's own store has
    the client's.
    """

    __slots__ = (
        "_created",
        "_hosts",
        "_is_public_suffix",
        "_jar",
        "_secured",
        "_size",
        "_wide",
    )

    def __init__(
        self,
        jar: CookieJar | None = None,
        *,
        is_public_suffix: Callable[[str], bool] | None = None,
        base_url: str = "",
    ) -> None:
        super().__init__(base_url)
        self._jar = jar
        PLAIN_FUNCTION("is_public_suffix", is_public_suffix)
        self._is_public_suffix = (
            partial(_ask, is_public_suffix) if is_public_suffix is not None else None
        )
        # By StoredCookie.domain, the least recently used first.
        self._hosts: dict[str, _Cookies] = {}
        # The (domain, path) of each Secure cookie, by name and site.
        self._secured: dict[tuple[str, str], set[tuple[str, str]]] = {}
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
        return self._each(None)

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

    def _each(self, name: object) -> Iterator[Cookie]:
        if self._jar is not None:
            return (cookie for cookie in self._jar if name is None or cookie.name == name)
        kept = [cookie for cookies in self._hosts.values() for cookie in cookies.values()]
        return (to_cookie(cookie) for cookie in kept if name is None or cookie.name == name)

    def may_have(self, host: str) -> bool:
        """Whether ``header_for`` may find a cookie for a URL of *host*: a quick look."""
        if host in self._hosts or self._jar is not None:
            return True
        return self._wide and not self._hosts.keys().isdisjoint(_domains_of(host))

    def header_for(self, url: SplitURL) -> str:
        """Return the Cookie field's value of a request for *url*, "" if it has no cookies."""
        if self._jar is not None:
            return ask_jar(self._jar, url, MAX_HEADER)
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
            domain = self._domain_for(url.host, cookie.domain)
            if domain is None:
                continue
            cookie.domain = domain
            cookie.path = cookie.path or default_path(url.target)
            if self._jar is not None:
                lines.append(to_line(cookie, url.host, now))
                continue
            self._receive(cookie, url, now)
        if lines and self._jar is not None:
            tell_jar(self._jar, url, lines)

    def set(
        self, name: str, value: str, *, url_or_host: str, path: str = "/", secure: bool = False
    ) -> None:
        """Set a cookie until ``clear()``, or until a server changes it.

        *url_or_host*: the host that gets the cookie, or a URL with that host; ``.example.org`` is
        that host and all below it. *secure*: send the cookie only over https. Raises
        ``ValueError`` if the cookie cannot be sent, ``InvalidURL`` for an invalid host.
        """
        name, value, path = exact(name), exact(value), exact(path)
        url = as_url(exact(url_or_host))
        check_cookie(name, value, path)
        cookie = StoredCookie(name, f"{name}={value}", url.host, path, inf, secure)
        if self._jar is None:
            self._put(cookie)
            return
        url = url._replace(scheme="https" if secure else "http", host=url.host.removeprefix("."))
        tell_jar(self._jar, url, [to_line(cookie, url.host, 0)])

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
                self._put(from_cookie(cookie))

    def discard(self, cookie: Cookie) -> None:
        """Forget *cookie*, one of those that iteration gives."""
        if self._jar is not None:
            self._jar.clear(cookie.domain, cookie.path, cookie.name)
        else:
            self._remove(self._hosts[host_of(cookie)][cookie.path, cookie.name])

    def clear(self) -> None:
        """Forget all cookies."""
        if self._jar is not None:
            self._jar.clear()
        self._hosts.clear()
        self._secured.clear()
        self._wide = False
        self._size = 0

    def _header(self, url: SplitURL) -> str:
        now = _now()
        secure = is_trustworthy(url)
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
            every = len(found)
            # Drop the least specific ones first, and the oldest of these.
            found.sort(key=lambda cookie: (-len(cookie.path), -cookie.created))
            while excess > 0:
                excess -= len(found.pop().pair) + 2
            found.sort(key=StoredCookie.place)
            header = "; ".join([cookie.pair for cookie in found])
            logger.info(
                "%s gets %d of its %d cookies: a Cookie field has at most %d bytes",
                *(url.authority, len(found), every, MAX_HEADER),
            )
        return header

    def _of_host(self, host: str) -> Iterator[_Cookies]:
        """Yield the cookies of *host* and of its domains, and mark these as just used."""
        if host.startswith("."):
            # The host of a URL may begin with a dot; it must not be taken for a domain.
            return
        keys = [host]
        if self._wide:
            keys += _domains_of(host)
        for key in keys:
            cookies = self._hosts.pop(key, None)
            if cookies is not None:
                self._hosts[key] = cookies
                yield cookies

    def _domain_for(self, host: str, domain: str) -> str | None:
        """Return *host*, or "." and *domain*, of a cookie of *host*; None if it must not be set."""
        if host.startswith(".") or not (domain in ("", host) or host.endswith(f".{domain}")):
            return None
        if not domain:
            return host
        # No list of public suffixes has names that end with a dot.
        name, above = host.removesuffix("."), domain.removesuffix(".")
        single = is_address(host) or "." not in above
        if single or covers_suffix(above, name, self._is_public_suffix or public_suffix_check()):
            return host if domain == host else None
        return f".{domain}"

    def _receive(self, cookie: StoredCookie, url: SplitURL, now: float) -> None:
        """Keep a server's cookie, or remove it if it has expired (RFC 6265bis §5.7)."""
        kept = self._hosts.get(cookie.domain, {})
        if not is_trustworthy(url):
            # "Leave secure cookies alone": those set over http neither shadow nor evict them.
            if any(
                overlap(domain, cookie.domain) and path_matches(cookie.path, path)
                for domain, path in self._secured_near(cookie)
            ):
                return
            if len(kept) >= MAX_PER_HOST and all(each.secure for each in kept.values()):
                logger.info(
                    "the cookie %r of %s is not kept: there are %d Secure ones, and it came over "
                    "http",
                    *(cookie.name, cookie.domain, len(kept)),
                )
                return
        if cookie.expires > now:
            self._put(cookie)
        elif old := kept.get((cookie.path, cookie.name)):
            self._remove(old)

    def _secured_near(self, cookie: StoredCookie) -> Iterator[tuple[str, str]]:
        """Iterate over (domain, path) of the Secure cookies that may overlap with *cookie*."""
        site = _site(cookie.domain)
        # A caller's cookie may be one of a whole top-level domain.
        for each in (site, site.rpartition(".")[2]):
            yield from self._secured.get((cookie.name, each), ())

    def _put(self, cookie: StoredCookie) -> None:
        cookies = self._hosts[cookie.domain] = self._hosts.pop(cookie.domain, {})
        old = cookies.get((cookie.path, cookie.name))
        if old is None:
            self._created += 1
            cookie.created = self._created
        else:
            self._forget(old)
            cookie.created = old.created
        cookies[cookie.path, cookie.name] = cookie
        self._size += cookie.size()
        if cookie.secure:
            place = cookie.name, _site(cookie.domain)
            self._secured.setdefault(place, set()).add((cookie.domain, cookie.path))
        self._wide = self._wide or cookie.domain.startswith(".")
        if len(cookies) > MAX_PER_HOST:
            self._evict(cookies, cookie)
        if self._size > MAX_SIZE:
            self._shrink()

    def _evict(self, cookies: _Cookies, newest: StoredCookie) -> None:
        """Remove one of *cookies* for *newest*: an expired, else a not Secure, else the oldest."""
        now = _now()
        others = [cookie for cookie in cookies.values() if cookie is not newest]
        gone = min(others, key=lambda each: (each.expires > now, each.secure, each.created))
        self._remove(gone)
        logger.info(
            "the cookie %r of %s is forgotten, for %r: it has at most %d cookies",
            *(gone.name, gone.domain, newest.name, MAX_PER_HOST),
        )

    def _remove(self, cookie: StoredCookie) -> None:
        cookies = self._hosts[cookie.domain]
        del cookies[cookie.path, cookie.name]
        self._forget(cookie)
        if not cookies:
            del self._hosts[cookie.domain]

    def _forget(self, cookie: StoredCookie) -> None:
        """Take *cookie*, which is removed or replaced, out of the counts."""
        self._size -= cookie.size()
        if cookie.secure:
            place = cookie.name, _site(cookie.domain)
            self._secured[place].discard((cookie.domain, cookie.path))
            if not self._secured[place]:
                del self._secured[place]

    def _shrink(self) -> None:
        """Remove the least recently used hosts until the size is 10 % below the limit."""
        before = len(self._hosts)
        for cookies in list(self._hosts.values()):
            if self._size <= MAX_SIZE * 0.9:
                break
            for cookie in list(cookies.values()):
                self._remove(cookie)
        logger.info(
            "the cookies of the %d hosts that were not used for the longest time are forgotten: "
            "all cookies have at most %d bytes",
            *(before - len(self._hosts), MAX_SIZE),
        )


def _domains_of(host: str) -> list[str]:
    """Return each domain that *host* belongs to, with "." in front, *host* itself the first."""
    domains = [f".{host}"]
    at = host.find(".")
    while at >= 0:
        domains.append(host[at:])
        at = host.find(".", at + 1)
    return domains


def _site(domain: str) -> str:
    """Return the last two labels of a host or domain: where two overlap, they share these."""
    return ".".join(domain.removeprefix(".").rsplit(".", 2)[-2:])


def _ask(is_public_suffix: Callable[[str], bool], domain: str) -> bool:
    return at_once("is_public_suffix", is_public_suffix(domain))
