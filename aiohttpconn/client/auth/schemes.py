"""Authentication (RFC 9110 §11) of the client to origins: Basic, Bearer and netrc.

The client asks an ``Auth`` for each request, whenever it is sent, and after a 401. An ``Auth`` sees
the responses of origins only, not those of proxies. The client decides which origins get
credentials; a redirect to another origin gets none. No ``repr`` and no error shows a secret. Digest
is in digest.py, and how an ``Auth`` is asked in asking.py. No I/O except for the netrc file.
Layer: client.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias
from urllib.parse import unquote

from ...arguments import FLAG, PATH, Checks, check_arguments
from ...exceptions import InvalidURL
from ...hooks import check_hook
from ...net.tunnel import encode_basic
from ...types import exact
from ...urls import encode_host, split_url

if TYPE_CHECKING:
    import os

    from ..request import Request
    from ..response import Response

__all__ = [
    "TOKEN68",
    "Auth",
    "AuthLike",
    "Basic",
    "Bearer",
    "Netrc",
    "as_auth",
    "basic_of",
    "encode_credential",
    "is_fixed",
    "lock_of",
]

TOKEN68 = r"[A-Za-z0-9\-._~+/]++=*+"
"""A pattern of token68 in RFC 9110 §11.2, the same as b64token in RFC 6750 §2.1."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BEARER = re.compile(TOKEN68)


_Value: TypeAlias = str | bytes | None

AuthLike: TypeAlias = "Auth | tuple[str, str] | Callable[[Any], _Value | Awaitable[_Value]] | None"
"""An ``Auth``, a pair of user and password, or a function from a request to its Authorization; it
may be a coroutine function."""


class Auth:
    """Base of authentication: a subclass overrides ``authorize``, and perhaps ``challenged``.

    Both may be coroutine functions. The client calls them in the task that sends the request, and
    awaits them within its total timeout. A request that they make themselves, with the same client
    or another, goes out without this ``Auth``.

    Class attributes, for a subclass to set:
        serialized: of all requests of an event loop, one at a time calls a method of the object;
            the others wait. For a token that is fetched once for all of them.
        requires_body: ``request.body`` is bytes, whatever the caller gave: a file or an iterable
            is read into memory first.
    """

    __slots__ = ("_locks",)

    serialized: ClassVar[bool] = False
    requires_body: ClassVar[bool] = False

    def __repr__(self) -> str:
        # All that it holds is secret.
        return f"<{type(self).__name__}>"

    def authorize(self, request: Request) -> Awaitable[None] | None:
        """Set ``request.headers["Authorization"]``, unless the caller has set one.

        Called each time that the request is sent: again after a stale connection, too. The
        headers are those that go out, Host and a known Content-Length included, and may all be
        changed; ``Connection`` and fields for a proxy are added later.
        """
        return None

    def challenged(self, request: Request, response: Response) -> Awaitable[bool] | bool:
        """Whether to authorize and send *request* again after *response*, a 401.

        The body of *response* is there only if this is a coroutine function, or ``serialized``.
        """
        return False


class _Fixed(Auth):
    """The same credentials for every request."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def authorize(self, request: Request) -> Awaitable[None] | None:
        if "Authorization" not in request.headers:
            request.headers["Authorization"] = self._value
        return None


class Basic(_Fixed):
    """Basic authentication (RFC 7617), in UTF-8: anyone who reads the request has the password.

    Raises ``ValueError`` for a colon in *username* and for control characters.
    """

    __slots__ = ()

    def __init__(self, username: str, password: str) -> None:
        user, secret = (
            encode_credential(username, "user name"),
            encode_credential(password, "password"),
        )
        if b":" in user:
            raise ValueError(
                "a user name for Basic authentication must have no colon (RFC 7617 §2)"
            )
        super().__init__(encode_basic(b"%b:%b" % (user, secret)))


def basic_of(userinfo: str) -> Basic:
    """Return the Basic authentication of a URL's user and password."""
    user, _, password = userinfo.partition(":")
    # Percent-encoded bytes that are not UTF-8 keep their values.
    return Basic(*(unquote(text, errors="surrogateescape") for text in (user, password)))


class Bearer(_Fixed):
    """A bearer token (RFC 6750). Raises ``ValueError`` for characters that it must not have."""

    __slots__ = ()

    def __init__(self, token: str) -> None:
        encode_credential(token, "bearer token")
        token = exact(token)
        if not _BEARER.fullmatch(token):
            raise ValueError(
                "a bearer token consists of letters, digits and -._~+/, with any = at its end "
                "(RFC 6750 §2.1)"
            )
        super().__init__(f"Bearer {token}")


class _Function(Auth):
    """The caller's function, called for each request."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def authorize(self, request: Request) -> Awaitable[None] | None:
        if "Authorization" in request.headers:
            return None
        value = self._function(request)
        if isawaitable(value):
            return self._awaited(request, value)
        self._set(request, value)
        return None

    async def _awaited(self, request: Request, value: Awaitable[Any]) -> None:
        self._set(request, await value)

    def _set(self, request: Request, value: _Value) -> None:
        if value is None:
            return
        try:
            request.headers["Authorization"] = value
        except (TypeError, ValueError):
            # The text of the original error would show the value.
            name = getattr(self._function, "__name__", type(self._function).__name__)
            raise ValueError(
                f"{name}() returned a {type(value).__name__} that cannot be sent as Authorization; "
                "it must return None or a str or bytes of ISO-8859-1 without control characters"
            ) from None


_NETRC_CHECKS: Checks = {"path": PATH, "default": FLAG}


class Netrc(Auth):
    """Basic authentication with the entry of a netrc file for the request's host.

    *path*: ``~/.netrc`` if None. The constructor reads the file, once. *default*: use its
    ``default`` entry too, for any other host. The client asks only for the host that the caller
    has named: a redirect to another origin gets no credentials, even if the file has some for it.

    Raises ``OSError`` if the file cannot be read, ``PermissionError`` if anyone but its owner can
    read ``~/.netrc``, ``ValueError`` if it is not a netrc file. ``authorize`` raises
    ``ValueError`` for an entry that Basic authentication cannot send.
    """

    __slots__ = ("_default", "_entries")

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, default: bool = False
    ) -> None:
        check_arguments(_NETRC_CHECKS, locals())
        hosts = _read_netrc(path)
        fallback = hosts.pop("default", None)
        self._default = fallback if default else None
        self._entries: dict[str, tuple[str, str]] = {}
        for name, entry in hosts.items():
            try:
                self._entries[encode_host(f"[{name}]" if ":" in name else name)] = entry
            except InvalidURL:
                continue  # it cannot be the host of a URL, so no request matches it

    def authorize(self, request: Request) -> None:
        entry = self._entries.get(split_url(request.url).host, self._default)
        if entry is not None and any(entry):
            Basic(*entry).authorize(request)


def as_auth(value: AuthLike) -> Auth | None:
    """Return the ``Auth`` for *value*, None for None; raise ``TypeError`` for other types."""
    given: Any = value
    if given is None or isinstance(given, Auth):
        return given
    if isinstance(given, tuple) and len(given) == 2:
        return Basic(*given)
    if callable(given) and not isinstance(given, type):
        check_hook("auth", given, may_await=True)
        return _Function(given)
    raise TypeError(
        "auth must be None, (user, password), an Auth such as Bearer(token), or a function from a "
        f"request to its Authorization; got {type(given).__name__}"
    )


def lock_of(auth: Auth) -> asyncio.Lock:
    """Return the lock of a ``serialized`` *auth* for the running loop."""
    # A subclass need not call __init__, and may be a frozen dataclass.
    locks: dict[asyncio.AbstractEventLoop, asyncio.Lock] | None = getattr(auth, "_locks", None)
    if locks is None:
        locks = {}
        object.__setattr__(auth, "_locks", locks)
    # A lock of asyncio's belongs to one loop: the first in which anyone has to wait for it.
    loop = asyncio.get_running_loop()
    lock = locks.get(loop)
    if lock is None:
        for ended in [other for other in locks if other.is_closed()]:
            del locks[ended]
        lock = locks[loop] = asyncio.Lock()
    return lock


def is_fixed(auth: Auth | None) -> bool:
    """Whether *auth* does the same for every request: a subclass may do something else."""
    return auth is None or type(auth) in (Basic, Bearer)


def encode_credential(text: str, what: str) -> bytes:
    """Return *text* as UTF-8 (NFC, as RFC 7616 §4 asks for); an error does not show it."""
    if not isinstance(text, str):
        raise TypeError(f"a {what} must be a str, not {type(text).__name__}")
    text = exact(text)
    if _CONTROL.search(text):
        raise ValueError(f"a {what} must have no control character")
    if not text.isascii():
        from unicodedata import normalize

        text = normalize("NFC", text)
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError(f"a {what} must be encodable as UTF-8") from None


def _read_netrc(path: str | os.PathLike[str] | None) -> dict[str, tuple[str, str]]:
    """Return user and password of each entry; an error shows nothing of the file."""
    from netrc import NetrcParseError, netrc

    shown = "~/.netrc" if path is None else str(path)
    try:
        hosts = netrc(path).hosts
    except NetrcParseError as exc:
        if exc.lineno is None:
            raise PermissionError(
                f"{shown} holds passwords: it must be yours, and no one else may have access to it "
                f"(chmod 600 {shown})"
            ) from None
        raise ValueError(
            f"{shown} is not a netrc file: line {exc.lineno} is not what was expected there. "
            "A password with blanks must be in double quotes"
        ) from None
    except UnicodeDecodeError:
        raise ValueError(f"{shown} is not a netrc file: it must be in UTF-8") from None
    return {name: (login, password) for name, (login, _, password) in hosts.items()}
