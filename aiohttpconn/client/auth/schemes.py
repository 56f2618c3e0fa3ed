"""Authentication (RFC 9110 §11): who the client says it is, by Basic, Bearer and netrc.

An ``Auth`` is asked for each request, and again when the server has answered 401. It sees the
origin's responses only: what a proxy demands is no business of it. Which origins get credentials
at all, and that a redirect to another one gets none, the client decides. No secret is ever shown
in a ``repr`` or an error. Digest is in digest.py. No I/O but for the netrc file. Layer: client.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ...exceptions import InvalidURL
from ...net.tunnel import encode_basic
from ...urls import encode_host, split_url

if TYPE_CHECKING:
    import os
    from http.client import HTTPMessage

    from ..fields import Fields

__all__ = [
    "TOKEN68",
    "Auth",
    "AuthLike",
    "AuthRequest",
    "AuthResponse",
    "Basic",
    "Bearer",
    "FixedAuth",
    "Netrc",
    "as_auth",
    "encode_credential",
]

TOKEN68 = r"[A-Za-z0-9\-._~+/]++=*+"
"""A pattern of RFC 9110 §11.2's token68, which is RFC 6750 §2.1's b64token."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BEARER = re.compile(TOKEN68)


class AuthRequest(Protocol):
    """What an ``Auth`` needs of a request."""

    @property
    def method(self) -> str: ...

    @property
    def url(self) -> str: ...

    @property
    def headers(self) -> Fields: ...


class AuthResponse(Protocol):
    """What an ``Auth`` needs of a response."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> HTTPMessage: ...


AuthLike: TypeAlias = "Auth | tuple[str, str] | Callable[[Any], str | bytes | None] | None"
"""An ``Auth``, a user and a password, or a function from a request to its Authorization."""


class Auth:
    """Says who the client is. A subclass overrides ``authorize``, and perhaps ``challenged``.

    Both are called in the task of the call that sends the request.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        # Nothing of what it holds: it is secret.
        return f"<{type(self).__name__}>"

    def authorize(self, request: AuthRequest) -> None:
        """Set ``request.headers["Authorization"]``, unless the caller has set one."""

    def challenged(self, request: AuthRequest, response: AuthResponse) -> bool:
        """Whether to authorize and send *request* again, after this response to it."""
        return False


class FixedAuth(Auth):
    """The same credentials for every request."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def authorize(self, request: AuthRequest) -> None:
        if "Authorization" not in request.headers:
            request.headers["Authorization"] = self._value


class Basic(FixedAuth):
    """Basic authentication (RFC 7617), in UTF-8: who reads the request has the password.

    Raises ``ValueError`` for a colon in *username* and for control characters.
    """

    __slots__ = ()

    def __init__(self, username: str, password: str) -> None:
        user, secret = (
            encode_credential(username, "user name"),
            encode_credential(password, "password"),
        )
        if ":" in username:
            raise ValueError("a user name for Basic authentication may have no colon (RFC 7617 §2)")
        super().__init__(encode_basic(b"%b:%b" % (user, secret)))


class Bearer(FixedAuth):
    """A bearer token (RFC 6750). Raises ``ValueError`` for characters that none may have."""

    __slots__ = ()

    def __init__(self, token: str) -> None:
        encode_credential(token, "bearer token")
        if not _BEARER.fullmatch(token):
            raise ValueError(
                "a bearer token is of letters, digits and -._~+/, and = at its end (RFC 6750 §2.1)"
            )
        super().__init__(f"Bearer {token}")


class _Function(Auth):
    """A function of the caller's, called for each request."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[Any], str | bytes | None]) -> None:
        self._function = function

    def authorize(self, request: AuthRequest) -> None:
        if "Authorization" in request.headers:
            return
        value = self._function(request)
        if value is None:
            return
        try:
            request.headers["Authorization"] = value
        except (TypeError, ValueError):
            # Its text would show the value.
            name = getattr(self._function, "__name__", type(self._function).__name__)
            raise ValueError(
                f"{name}() gave a {type(value).__name__} that cannot be sent as Authorization; "
                "it must return None or a str or bytes of ISO-8859-1 without control characters"
            ) from None


class Netrc(Auth):
    """Basic authentication with what a netrc file has for the request's host, and no other.

    *path*: ``~/.netrc`` if None. The file is read here, once. *default*: use its ``default``
    entry too, for any host. The client asks only for the host that its caller has named: what
    a redirect leads to on another origin gets no credentials, whatever the file has for it.

    Raises ``OSError`` if the file cannot be read, ``PermissionError`` if others than its owner
    can read ``~/.netrc``, ``ValueError`` if it is no netrc file. ``authorize`` raises
    ``ValueError`` for an entry that Basic authentication cannot send.
    """

    __slots__ = ("_default", "_entries")

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, default: bool = False
    ) -> None:
        hosts = _read_netrc(path)
        fallback = hosts.pop("default", None)
        self._default = fallback if default else None
        self._entries: dict[str, tuple[str, str]] = {}
        for name, entry in hosts.items():
            try:
                self._entries[encode_host(f"[{name}]" if ":" in name else name)] = entry
            except InvalidURL:
                continue  # it is no host of a URL, so no request is ever for it

    def authorize(self, request: AuthRequest) -> None:
        entry = self._entries.get(split_url(request.url).host, self._default)
        if entry is not None and any(entry):
            Basic(*entry).authorize(request)


def as_auth(value: AuthLike) -> Auth | None:
    """Return the ``Auth`` that a caller means by *value*; ``TypeError`` if it can mean none."""
    given: Any = value
    if given is None or isinstance(given, Auth):
        return given
    if isinstance(given, tuple) and len(given) == 2:
        return Basic(*given)
    if callable(given) and not isinstance(given, type) and not iscoroutinefunction(given):
        return _Function(given)
    raise TypeError(
        "auth must be None, (user, password), an Auth such as Bearer(token), or a function, no "
        f"async one, from a request to its Authorization, not {type(given).__name__}"
    )


def encode_credential(text: str, what: str) -> bytes:
    """Return *text* as UTF-8 (NFC, as RFC 7616 §4 wants it); an error does not show it."""
    if not isinstance(text, str):
        raise TypeError(f"a {what} must be a str, not {type(text).__name__}")
    if _CONTROL.search(text):
        raise ValueError(f"a {what} may have no control character")
    if not text.isascii():
        from unicodedata import normalize

        text = normalize("NFC", text)
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError(f"a {what} must be encodable as UTF-8") from None


def _read_netrc(path: str | os.PathLike[str] | None) -> dict[str, tuple[str, str]]:
    """Return user and password of each entry; an error never shows a word of the file."""
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
