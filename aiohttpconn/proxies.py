"""Proxies: choose the one for a URL, from the caller's or from the environment, as curl does.

Names are compared, never resolved. net/handshakes.py speaks to proxies. Pure. Layer: above net,
below the pool.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import unquote

from .exceptions import InvalidURL
from .http11.grammar import check_host
from .http11.request_head import bracketed
from .net.socks import socks4_user, socks5_authentication
from .net.tunnel import Credentials, basic_authorization
from .types import exact
from .urls import encode_host

__all__ = ["PROXY_ALIASES", "PROXY_PORTS", "ProxiesLike", "Proxy", "ProxyRules", "from_environment"]

PROXY_PORTS = {
    "http": 1080,
    "https": 443,
    "socks4": 1080,
    "socks4a": 1080,
    "socks5": 1080,
    "socks5h": 1080,
}
"""The supported schemes of proxies and their default ports, which are those of curl."""

PROXY_ALIASES = {"socks": "socks5"}
"""Other schemes in a proxy's URL. Desktops set ``all_proxy=socks://``, and mean SOCKS5."""

MAX_NAME = 254
"""Characters of a host name with its final dot (RFC 1035 §2.3.4): a longer one matches nothing."""

_SCHEMES = ("http", "https")
_ALL = "all"

# No raw '@', '/', '?' or '#' before the host: parsers disagree about the host of such a URL.
_SCHEME = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.\-]*+)://)?")
_URL = re.compile(_SCHEME.pattern + r"(?:([^/?#@]*+)@)?([^/?#@]*+)/?")
_HOST_PORT = re.compile(r"(\[[^\[\]@/?#]+\]|[^:\[\]%@/?#]+)(?::([0-9]{0,5}))?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

# An entry of NO_PROXY with a port. An IPv6 address that has one is in brackets.
_ENTRY_WITH_PORT = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*):([0-9]{1,5})")

# One to three numbers of an IPv4 address, and a star for the rest or for each number of it.
_IPV4_PREFIX = re.compile(r"(?:[0-9]{1,3}\.){1,3}\*(?:\.\*){0,2}")


# They raise ValueError for credentials that a type of proxy cannot be sent.
_CHECKS: dict[str, Callable[[Credentials], object]] = {
    "socks4": socks4_user,
    "socks4a": socks4_user,
    "socks5": socks5_authentication,
    "socks5h": socks5_authentication,
}


@dataclass(frozen=True, slots=True, repr=False)
class Proxy:
    """A proxy. *scheme* is one of ``PROXY_PORTS``; *host* is without brackets.

    The connection to an ``http`` proxy is unencrypted, to an ``https`` proxy in TLS. With
    ``socks5`` and ``socks4`` the client resolves names, with ``socks5h`` and ``socks4a`` the proxy
    does; SOCKS4 knows IPv4 only, and sends no password. Raises ``InvalidURL`` for invalid parts.
    Neither ``repr`` nor ``str`` shows user or password.
    """

    scheme: str
    host: str
    port: int
    username: str | None = None
    password: str | None = None

    def __post_init__(self) -> None:
        for name in ("scheme", "host", "port", "username", "password"):
            object.__setattr__(self, name, exact(getattr(self, name)))
        if self.scheme not in PROXY_PORTS:
            raise InvalidURL(
                f"the proxy scheme {self.scheme!r} is not supported, {', '.join(PROXY_PORTS)} are"
            )
        check_host(self.host)
        if not self.host or not 0 <= self.port <= 65535:
            raise InvalidURL(f"not a proxy's host and port: {self.host!r}, {self.port}")
        if self.credentials is not None:
            check = _CHECKS.get(self.scheme, basic_authorization)
            try:
                check(self.credentials)
            except ValueError as exc:
                raise InvalidURL(str(exc)) from None

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """Return the proxy of *url*; ``host:port`` alone is an HTTP proxy, ``socks://`` SOCKS5.

        User and password are percent-decoded. Raises ``InvalidURL``, whose text shows neither.
        """
        if not isinstance(url, str):
            raise TypeError(f"a proxy must be a str or a Proxy, not {type(url).__name__}")
        url = exact(url)
        match = _URL.fullmatch(url)
        if _CONTROL.search(url):
            raise _invalid(url, "it has a control character")
        if match is None:
            raise _invalid(
                url,
                "it must have no path, and '@', '/', '?' and '#' in user or password "
                "must be percent-encoded",
            )
        scheme = (match[1] or "http").lower()
        scheme = PROXY_ALIASES.get(scheme, scheme)
        user, colon, password = (match[2] or "").partition(":")
        try:
            host, port = _split_host_port(match[3])
            return cls(
                scheme,
                host,
                PROXY_PORTS.get(scheme, 0) if port is None else port,
                _decoded(user) if match[2] else None,
                _decoded(password) if colon else None,
            )
        except InvalidURL as exc:
            raise _invalid(url, str(exc)) from None

    def __str__(self) -> str:
        hidden = "" if self.credentials is None else "***@"
        return f"{self.scheme}://{hidden}{bracketed(self.host)}:{self.port}"

    def __repr__(self) -> str:
        return f"<Proxy {self}>"

    @property
    def is_socks(self) -> bool:
        """Whether it is a SOCKS proxy, which tunnels all traffic and does not know HTTP."""
        return self.scheme.startswith("socks")

    @property
    def credentials(self) -> Credentials | None:
        """(user, password), or None if the proxy has neither."""
        if self.username is None and self.password is None:
            return None
        return self.username or "", self.password or ""

    @property
    def authorization(self) -> str | None:
        """The value of ``Proxy-Authorization`` (RFC 7617, in UTF-8), or None; None for SOCKS."""
        if self.credentials is None or self.is_socks:
            return None
        return basic_authorization(self.credentials)


def _decoded(text: str) -> str:
    # Bytes that are not UTF-8 keep their values: see tunnel.Credentials.
    return unquote(text, errors="surrogateescape")


def _split_host_port(text: str) -> tuple[str, int | None]:
    """Return the encoded host, and the port or None."""
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        raise InvalidURL("it must have a host, or a host and a port")
    port = int(match[2]) if match[2] else None
    if port is not None and port > 65535:
        raise InvalidURL(f"a port must be 0 to 65535, got {port}")
    return encode_host(match[1]), port


def _invalid(url: str, why: str) -> InvalidURL:
    """Return the error for *url*, which its text shows only if no part can be a password."""
    scheme = _SCHEME.match(url)
    assert scheme is not None, "the pattern matches nothing, too"
    host_port = url[scheme.end() :].rpartition("@")[2]
    if _HOST_PORT.fullmatch(host_port):
        return InvalidURL(f"cannot use the proxy {scheme[0] + host_port!r}: {why}")
    return InvalidURL(f"cannot use a proxy's URL (not shown, it may have a password): {why}")


class NoProxy:
    """The hosts of a NO_PROXY, which need no proxy; a lookup stays fast with thousands of entries.

    Commas, semicolons and blanks separate entries. ``example.org``, ``.example.org`` and
    ``*.example.org`` all mean that host and all below it. An address or a block (``10.0.0.0/8``,
    ``192.168.*``, ``fd00::/8``) is for hosts that are addresses, and ``*`` for every host. An entry
    with a port is only for that port. Other entries match nothing and are no error, because other
    programs read the variable, too. As in curl, ``localhost`` and loopback addresses use the proxy
    unless they are listed.
    """

    __slots__ = ("_every", "_names", "_networks")

    def __init__(self, text: str = "") -> None:
        self._every = False
        # (name, port); port 0 means any.
        self._names: set[tuple[str, int]] = set()
        # By (IP version, prefix length): (network, port). A lone address is its own network.
        self._networks: dict[tuple[int, int], set[tuple[int, int]]] = {}
        for entry in re.split(r"[\s,;]+", text):
            self._add(entry)

    def __len__(self) -> int:
        return self._every + len(self._names) + sum(map(len, self._networks.values()))

    def _add(self, entry: str) -> None:
        if entry == "*":
            self._every = True
            return
        host, port = entry, 0
        if match := _ENTRY_WITH_PORT.fullmatch(entry):
            host, port = match[1], int(match[2])
        if _IPV4_PREFIX.fullmatch(host):
            known = host.rstrip(".*").split(".")
            host = f"{'.'.join([*known, *'000'][:4])}/{8 * len(known)}"
        try:
            network = ipaddress.ip_network(re.sub(r"[\[\]]", "", host), strict=False)
        except ValueError:
            name = host.removeprefix("*").removeprefix(".").removesuffix(".").lower()
            if not name.isascii():
                try:
                    name = encode_host(name)
                except InvalidURL:
                    return
            if name:
                self._names.add((name, port))
        else:
            alike = self._networks.setdefault((network.version, network.prefixlen), set())
            alike.add((int(network.network_address), port))

    def matches(self, host: str, port: int) -> bool:
        """Whether *host*, a name or address as ``split_url`` returns it, needs no proxy."""
        if self._every:
            return True
        if (address := _address(host)) is not None:
            return self._has_address(address, port)
        names = self._names
        name = host.removesuffix(".").lower() if len(host) <= MAX_NAME else ""
        while name and names:
            if (name, 0) in names or (name, port) in names:
                return True
            name = name.partition(".")[2]
        return False

    def _has_address(
        self, address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
    ) -> bool:
        for (version, length), networks in self._networks.items():
            if version == address.version:
                rest = address.max_prefixlen - length
                network = int(address) >> rest << rest
                if (network, 0) in networks or (network, port) in networks:
                    return True
        return False


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return *host* as an address without its zone; None for a name."""
    if ":" not in host and not host[-1:].isdigit():
        return None
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


ProxiesLike: TypeAlias = "str | Proxy | Mapping[str, str | Proxy | None] | ProxyRules | None"
"""A proxy for all URLs, or proxies by the keys of ``ProxyRules.of``; None is no proxy."""

_Key: TypeAlias = tuple[str, str, int]
"""(scheme, host, port) of the URLs that a proxy is for: "all", "" and 0 mean any."""


class ProxyRules:
    """The choice of a proxy for each origin; made by ``of`` or ``from_environment``."""

    __slots__ = ("_direct", "_proxies")

    def __init__(
        self, proxies: Mapping[_Key, Proxy | InvalidURL | None], direct: NoProxy | None = None
    ) -> None:
        # An error stands for a proxy that cannot be used.
        self._proxies = dict(proxies)
        self._direct = direct or None

    def __repr__(self) -> str:
        rules = [
            f"{_shown(key)}: {'unusable' if isinstance(proxy, InvalidURL) else proxy or 'direct'}"
            for key, proxy in self._proxies.items()
        ]
        if self._direct is not None:
            rules.append(f"{len(self._direct)} exceptions")
        return f"<ProxyRules {', '.join(rules) or 'direct'}>"

    @classmethod
    def of(cls, value: ProxiesLike) -> ProxyRules:
        """Return the rules for *value*.

        None means no proxy, a URL or ``Proxy`` is for all URLs. The keys of a mapping are "http",
        "https" and "all", also for one host ("https://example.org") and one port of it
        ("all://example.org:8080"); its values are URLs, ``Proxy`` or None for a direct
        connection. A key with host and port wins over one with the host, that over the scheme,
        and that over "all". NO_PROXY does not apply. Raises ``InvalidURL`` or ``TypeError``.
        """
        if isinstance(value, ProxyRules):
            return value
        if value is None:
            return cls({})
        if not isinstance(value, Mapping):
            value = {_ALL: value}
        return cls({_key(text): _proxy(proxy) for text, proxy in value.items()})

    def proxy_for(self, scheme: str, host: str, port: int) -> Proxy | None:
        """Return the proxy for an origin, None for a direct connection.

        *host* is a name or an address as ``split_url`` returns it. Raises ``InvalidURL`` if the
        environment has a proxy for it that cannot be used.
        """
        proxies = self._proxies
        if not proxies or (self._direct is not None and self._direct.matches(host, port)):
            return None
        host = host.strip("[]").removesuffix(".").lower()
        for key in (
            (scheme, host, port),
            (_ALL, host, port),
            (scheme, host, 0),
            (_ALL, host, 0),
            (scheme, "", 0),
        ):
            if key in proxies:
                break
        else:
            key = _ALL, "", 0
        proxy = proxies.get(key)
        if isinstance(proxy, InvalidURL):
            raise InvalidURL(f"{_shown((scheme, host, port))} needs {proxy}")
        return proxy


def _key(text: str) -> _Key:
    """Parse a key of a mapping of proxies."""
    scheme, _, rest = text.lower().partition("://")
    host, port = "", None
    try:
        if rest:
            host, port = _split_host_port(rest.removesuffix("/"))
    except InvalidURL:
        scheme = ""
    # The host parser allows a '*', but a caller who writes one means a pattern.
    if scheme not in (*_SCHEMES, _ALL) or "*" in host:
        raise InvalidURL(
            "a key of proxies must be 'http', 'https', 'all', or one of them with a host "
            f"('https://example.org'), got {text.rpartition('@')[2]!r}"
        )
    return scheme, host.removesuffix("."), port or 0


def _shown(key: _Key) -> str:
    scheme, host, port = key
    return f"{scheme}://{bracketed(host)}{f':{port}' if port else ''}" if host else scheme


def _proxy(value: str | Proxy | None) -> Proxy | None:
    return value if value is None or isinstance(value, Proxy) else Proxy.parse(value)


_NO_RULES = ProxyRules({})

_VARIABLES = tuple(
    case(f"{name}_proxy") for name in (*_SCHEMES, "all", "no") for case in (str.lower, str.upper)
)
"""The environment variables that are read."""


def from_environment(environ: Mapping[str, str]) -> ProxyRules:
    """Return the rules of ``http_proxy``, ``https_proxy``, ``all_proxy`` and ``no_proxy``.

    The rules are those of curl: the lower-case name wins over the upper-case one, the scheme's
    variable over ``all_proxy``, and an empty value counts as unset. ``HTTP_PROXY`` is read too,
    except under CGI, where a ``Proxy`` field of the request sets it ("httpoxy"). A proxy that
    cannot be used is an error of the request that needs it, whose text names the variable.
    """
    # One by one: copying all of os.environ would be most of the cost of a Client.
    given = {name: environ[name].strip() for name in _VARIABLES if name in environ}
    if not given:
        return _NO_RULES
    if "REQUEST_METHOD" in environ:
        given.pop("HTTP_PROXY", None)
        if "request_method" in environ:
            # On Windows os.environ finds names in any case.
            given.pop("http_proxy", None)
    proxies: dict[_Key, Proxy | InvalidURL | None] = {}
    for scheme in _SCHEMES:
        name = _first(given, f"{scheme}_proxy") or _first(given, "all_proxy")
        if name:
            try:
                proxies[scheme, "", 0] = Proxy.parse(given[name])
            except InvalidURL as exc:
                proxies[scheme, "", 0] = InvalidURL(f"the environment's {name}: {exc}")
    return ProxyRules(proxies, NoProxy(given.get(_first(given, "no_proxy"), "")))


def _first(given: Mapping[str, str], name: str) -> str:
    """Return *name* or its upper-case form, whichever has a value; "" if neither has."""
    return next((each for each in (name, name.upper()) if given.get(each)), "")
