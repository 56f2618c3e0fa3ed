"""Cookies by name: the side of a store that reads and writes like a mapping. Layer: client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ...http11.request_head import bracketed
from ...urls import SplitURL, split_url
from .jars import host_of
from .set_cookie import check_cookie, cookie_value, overlap

if TYPE_CHECKING:
    from http.cookiejar import Cookie

__all__ = ["CookiesByName", "as_url"]

T = TypeVar("T")

_NO_HOST = (
    "the cookie {!r} is kept for no host, or for several: give the client a base_url=, whose host "
    "gets it, or call set(name, value, url_or_host=...)"
)


def as_url(url_or_host: str) -> SplitURL:
    """Return the URL of a caller who gave one, or a host."""
    return split_url(url_or_host if "://" in url_or_host else f"http://{url_or_host}")


class CookiesByName(ABC):
    """The mapping from names to values, on top of a store's cookies.

    *base_url*: to its host a new cookie is added, and its host's come first.
    """

    __slots__ = ("_home",)

    def __init__(self, base_url: str) -> None:
        self._home = split_url(base_url) if base_url else None

    @abstractmethod
    def _each(self, name: object) -> Iterator[Cookie]:
        """Iterate over the cookies *name*, or over all if it is None."""

    @abstractmethod
    def set(
        self, name: str, value: str, *, url_or_host: str, path: str = "/", secure: bool = False
    ) -> None: ...

    @abstractmethod
    def load(self, cookies: Iterable[Cookie]) -> None: ...

    @abstractmethod
    def discard(self, cookie: Cookie) -> None: ...

    def __getitem__(self, name: str) -> str:
        """Return the value of the cookie *name*; that of the client's own host, if several have it.

        Raises ``KeyError`` without one, and ``ValueError`` for different values of several hosts.
        """
        found = self._named(name)
        if not found:
            raise KeyError(name)
        if len({cookie.value for cookie in found}) > 1:
            home = self._named(name, self._home.host) if self._home is not None else []
            if not home:
                hosts = ", ".join(sorted({host_of(cookie) for cookie in found})[:5])
                raise ValueError(
                    f"there are several cookies {name!r}, of {hosts}: call "
                    "get(name, url_or_host=...)"
                )
            found = home
        return found[0].value or ""

    def __setitem__(self, name: str, value: str | int) -> None:
        """Change the value of the cookie *name*, or add it for the host of *base_url*.

        Raises ``ValueError`` if it cannot be sent, or if it is not clear for which host it is.
        """
        value = cookie_value(name, value)
        check_cookie(name, value)
        home = self._home
        found = self._named(name, home.host if home is not None else "")
        if home is not None and not found:
            host = f"{home.scheme}://{bracketed(home.host)}"
            self.set(name, value, url_or_host=host, secure=home.scheme == "https")
            return
        if home is None and len({cookie.domain for cookie in found}) != 1:
            raise ValueError(_NO_HOST.format(name))
        for cookie in found:
            cookie.value = value
        self.load(found)

    def __delitem__(self, name: str) -> None:
        """Forget the cookies *name* of all hosts; raise ``KeyError`` if there is none."""
        found = self._named(name)
        if not found:
            raise KeyError(name)
        for cookie in found:
            self.discard(cookie)

    def __contains__(self, name: object) -> bool:
        return bool(self._named(name))

    @overload
    def get(self, name: str, default: None = None, *, url_or_host: str = "") -> str | None: ...
    @overload
    def get(self, name: str, default: T, *, url_or_host: str = "") -> str | T: ...
    def get(self, name: str, default: Any = None, *, url_or_host: str = "") -> Any:
        """Return the value of the cookie *name*, *default* without one.

        *url_or_host*: look only at the cookies that go to this host, whatever their path; of
        several, take the one with the longest. Raises ``ValueError`` for different values, as
        ``store[name]`` does.
        """
        if url_or_host:
            found = self._named(name, as_url(url_or_host).host)
            return found[0].value or "" if found else default
        try:
            return self[name]
        except KeyError:
            return default

    def keys(self) -> list[str]:
        """Return the name of each cookie; one that several hosts have is there several times."""
        return [name for name, _ in self.items()]

    def values(self) -> list[str]:
        """Return the value of each cookie."""
        return [value for _, value in self.items()]

    def items(self) -> list[tuple[str, str]]:
        """Return name and value of each cookie."""
        kept = self._each(None)
        return [(cookie.name, cookie.value or "") for cookie in kept if not cookie.is_expired()]

    def update(self, cookies: Mapping[str, str | int]) -> None:
        """Set each of *cookies*, as ``store[name] = value`` does."""
        for name, value in cookies.items():
            self[name] = value

    def _named(self, name: object, host: str = "") -> list[Cookie]:
        """Return the cookies *name*; with *host*, those that go there, the longest path first."""
        if not isinstance(name, str):
            return []
        found = [
            cookie
            for cookie in self._each(name)
            if not cookie.is_expired() and (not host or overlap(host, host_of(cookie)))
        ]
        if host:
            found.sort(key=lambda cookie: -len(cookie.path))
        return found
