"""Set-Cookie fields (RFC 6265bis §5.6): their parser, and the rules for those who set cookies.

The store is in store.py. Pure. Layer: client.
"""

from __future__ import annotations

import re
import socket
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Any

from ...http11.grammar import FIELD_VALUE
from ...types import exact

if TYPE_CHECKING:
    from ...urls import SplitURL

__all__ = [
    "StoredCookie",
    "check_cookie",
    "cookie_value",
    "default_path",
    "is_address",
    "is_trustworthy",
    "may_set",
    "overlap",
    "parse_set_cookie",
    "path_matches",
]

MAX_COOKIE = 4096
"""Bytes of a name and its value: RFC 6265bis §5.6 refuses more."""

MAX_ATTRIBUTE = 1024
"""Bytes of an attribute's value: RFC 6265bis §5.6 ignores longer ones."""

MAX_ATTRIBUTES = 32
"""Attributes of a Set-Cookie that are read: RFC 6265bis defines 7, a field may have 64 KiB."""

MAX_AGE = 400 * 24 * 3600
"""The most seconds that a cookie with a date is kept (RFC 6265bis §5.5)."""

OVERHEAD = 500
"""Bytes of memory that a cookie takes in addition to its text."""

# RFC 6265bis §5.6.2: the value of Max-Age
_SECONDS = re.compile(r"-?[0-9]+")

# RFC 6265bis §5.1.1: the tokens of a date, and the delimiters between them.
_DELIMITERS = re.compile(r"[\t\x20-\x2f\x3b-\x40\x5b-\x60\x7b-\x7e]+")
_TIME = re.compile(r"([0-9]{1,2}+):([0-9]{1,2}+):([0-9]{1,2}+)(?![0-9])")
_DAY = re.compile(r"([0-9]{1,2}+)(?![0-9])")
_YEAR = re.compile(r"([0-9]{2,4}+)(?![0-9])")
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]

# A caller's cookie: a name without "=" and blanks, a value without blanks at its ends.
_NAME = re.compile(r"[\x21-\x3a\x3c\x3e-\x7e\x80-\xff]+")
_VALUE = re.compile(r"(?![\t ])[\t\x20-\x3a\x3c-\x7e\x80-\xff]*(?<![\t ])")
_PATH = re.compile(r"/[\t\x20-\x3a\x3c-\x7e\x80-\xff]*")

# The name of a cookie that a server may have set: blanks inside it are allowed.
_RECEIVED_NAME = re.compile(r"(?![\t ])[\t\x20-\x3a\x3c\x3e-\x7e\x80-\xff]+(?<![\t ])")

_IPV6_LOOPBACK = b"\0" * 15 + b"\1"


class StoredCookie:
    """A cookie. *domain*: its host, or "." and a domain. *pair*: "name=value" as it is sent.

    Domain, path and name are its identity. The dot is RFC 6265bis' host-only flag: without it, the
    cookie is for that host only.
    """

    __slots__ = ("created", "domain", "expires", "http_only", "name", "pair", "path", "secure")

    def __init__(
        self,
        name: str,
        pair: str,
        domain: str,
        path: str,
        expires: float = inf,
        secure: bool = False,
        http_only: bool = False,
    ) -> None:
        self.name = name
        self.pair = pair
        self.domain = domain
        self.path = path
        self.expires = expires
        self.secure = secure
        self.http_only = http_only
        self.created = 0

    def size(self) -> int:
        """Return roughly the bytes of memory that the cookie takes."""
        return len(self.pair) + len(self.path) + OVERHEAD

    def place(self) -> tuple[int, int]:
        """Return the sort key of RFC 6265bis §5.8.3: longer paths first, then older cookies."""
        return -len(self.path), self.created


def parse_set_cookie(line: str, now: float) -> StoredCookie | None:
    """Parse a Set-Cookie field's value (RFC 6265bis §5.6); None if the cookie is refused.

    Domain and path are "" if the field has no valid one.
    """
    if not FIELD_VALUE.fullmatch(line):
        return None
    pair, *attributes = line.split(";", MAX_ATTRIBUTES + 1)
    name, equals, value = pair.partition("=")
    name, value = name.strip(" \t"), value.strip(" \t")
    # Without a name, the value could look like another cookie's name and value.
    if not name or not equals or len(name) + len(value) > MAX_COOKIE:
        return None
    found: dict[str, str] = {}
    for attribute in attributes[:MAX_ATTRIBUTES]:
        key, _, text = attribute.partition("=")
        text = text.strip(" \t")
        if len(text) <= MAX_ATTRIBUTE:
            found[key.strip(" \t").lower()] = text
    domain = found.get("domain", "").lower().removeprefix(".")
    path = found.get("path", "")
    if not path.startswith("/"):
        path = ""
    expires = _expiry(found, now)
    return StoredCookie(
        name, f"{name}={value}", domain, path, expires, "secure" in found, "httponly" in found
    )


def _expiry(attributes: dict[str, str], now: float) -> float:
    """Return when a cookie expires, in seconds since the epoch; Max-Age overrides Expires."""
    max_age = attributes.get("max-age", "")
    if _SECONDS.fullmatch(max_age):
        seconds = int(max_age)
        return now + min(seconds, MAX_AGE) if seconds > 0 else -inf
    date = parse_date(attributes.get("expires", ""))
    return inf if date is None else min(date, now + MAX_AGE)


def parse_date(text: str) -> float | None:
    """Return the timestamp of a cookie's date (RFC 6265bis §5.1.1), None if it is invalid."""
    clock = day = month = year = None
    for token in _DELIMITERS.split(text):
        if clock is None and (match := _TIME.match(token)):
            clock = int(match[1]), int(match[2]), int(match[3])
        elif day is None and (match := _DAY.match(token)):
            day = int(match[1])
        elif month is None and token[:3].lower() in _MONTHS:
            month = _MONTHS.index(token[:3].lower()) + 1
        elif year is None and (match := _YEAR.match(token)):
            year = int(match[1])
            if year < 100:
                year += 1900 if year >= 70 else 2000
    if clock is None or day is None or month is None or year is None or year < 1601:
        return None
    try:
        return datetime(year, month, day, *clock, tzinfo=UTC).timestamp()
    except ValueError:
        return None


def may_set(url: SplitURL, cookie: StoredCookie) -> bool:
    """Whether *url* may set *cookie*: by Secure and the prefix of its name (RFC 6265bis §4.1.3)."""
    if cookie.secure and not is_trustworthy(url):
        return False
    name = cookie.name.lower()
    if name.startswith("__host-"):
        return cookie.secure and cookie.path == "/" and not cookie.domain
    return cookie.secure or not name.startswith("__secure-")


def is_trustworthy(url: SplitURL) -> bool:
    """Whether nobody on the way can read or forge what *url* leads to: https, or this machine.

    https://www.w3.org/TR/secure-contexts/#is-origin-trustworthy, without the names below localhost:
    some resolvers ask others for them.
    """
    host = url.host
    if url.scheme == "https" or host == "localhost":
        return True
    if ":" in host:
        return socket.inet_pton(socket.AF_INET6, host.partition("%")[0]) == _IPV6_LOOPBACK
    return host.startswith("127.") and is_address(host)


def overlap(one: str, other: str) -> bool:
    """Whether a host gets the cookies of both: each is a host, or "." and a domain."""
    return (
        one == other
        or (one.startswith(".") and f".{other.removeprefix('.')}".endswith(one))
        or (other.startswith(".") and f".{one.removeprefix('.')}".endswith(other))
    )


def default_path(target: str) -> str:
    """Return the path of a cookie whose Set-Cookie has none (RFC 6265bis §5.1.4)."""
    path = target.partition("?")[0]
    return path[: path.rfind("/")] or "/"


def path_matches(path: str, cookie_path: str) -> bool:
    """Whether *path* is *cookie_path* or lies below it (RFC 6265bis §5.1.4)."""
    return path.startswith(cookie_path) and (
        cookie_path[-1] == "/" or path[len(cookie_path) : len(cookie_path) + 1] in ("", "/")
    )


def is_address(host: str) -> bool:
    """Whether a URL's host is an IP address: the last label of a name is never a number."""
    return ":" in host or host.rpartition(".")[2].isdigit()


def cookie_value(name: Any, value: Any) -> str:
    """Return the value of a caller's cookie as text; raise ``TypeError`` if it is no str or int."""
    if not isinstance(name, str):
        raise TypeError(f"a cookie's name must be a str, not {type(name).__name__}")
    value = exact(value)
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    # Do not show the value: it may be secret.
    raise TypeError(
        f"the value of the cookie {name!r} must be a str or an int, not {type(value).__name__}"
    )


def check_cookie(name: str, value: str, path: str = "/", *, received: bool = False) -> None:
    """Raise ``ValueError`` unless a caller's cookie can be sent. The value is never shown.

    *received*: a server may have set it, so its name may have blanks.
    """
    if not (_RECEIVED_NAME if received else _NAME).fullmatch(name):
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
