"""Authentication (RFC 9110 §11) of the client to origins: Basic, Bearer and netrc.

The client asks an ``Auth`` for each request, and again after a 401. An ``Auth`` sees the responses
of origins only, not those of proxies. The client decides which origins get credentials; a redirect
to another origin gets none. No ``repr`` and no error shows a secret. Digest is in digest.py. No
I/O except for the netrc file. Layer: client.
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
"""A pattern of token68 in RFC 9110 §11.2, the same as b64token in RFC 6750 §2.1."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BEARER = re.compile(TOKEN68)


class AuthRequest(Protocol):
    """The interface of a request that an ``Auth`` needs."""

    @property
    def method(self) -> str: ...

    @property
    def url(self) -> str: ...

    @property
    def headers(self) -> Fields: ...


class AuthResponse(Protocol):
    """The interface of a response that an ``Auth`` needs."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> HTTPMessage: ...


AuthLike: TypeAlias = "Auth | tuple[str, str] | Callable[[Any], str | bytes | None] | None"
"""An ``Auth``, a pair of user and password, or a function from a request to its Authorization."""


class Auth:
    """Base of authentication: a subclass overrides ``authorize``, and perhaps ``challenged``.

    The client calls both in the task that sends the request.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        # All that it holds is secret.
        return f"<{type(self).__name__}>"

    def authorize(self, request: AuthRequest) -> None:
        """Set ``request.headers["Authorization"]``, unless the caller has set one."""

    def challenged(self, request: AuthRequest, response: AuthResponse) -> bool:
        """Whether to authorize and send *request* again after *response*."""
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
    """Basic authentication (RFC 7617), in UTF-8: anyone who reads the request has the password.

    Raises ``ValueError`` for a colon in *username* and for control characters.
    """

    __slots__ = ()

    def __init__(self, username: str, password: str) -> None:
        user, secret = (
            encode_credential(username, "user name"),
            encode_credential(password, "password"),
        )
        if ":" in username:
            raise ValueError(
                "a user name for Basic authentication must have no colon (RFC 7617 §2)"
            )
        super().__init__(encode_basic(b"%b:%b" % (user, secret)))


class Bearer(FixedAuth):
    """A bearer token (RFC 6750). Raises ``ValueError`` for characters that it must not have."""

    __slots__ = ()

    def __init__(self, token: str) -> None:
        encode_credential(token, "bearer token")
        if not _BEARER.fullmatch(token):
            raise ValueError(
                "a bearer token consists of letters, digits and -._~+/, with any = at its end "
                "(RFC 6750 §2.1)"
            )
        super().__init__(f"Bearer {token}")


class _Function(Auth):
    """The caller's function, called for each request."""

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
            # The text of the original error would show the value.
            name = getattr(self._function, "__name__", type(self._function).__name__)
            raise ValueError(
                f"{name}() returned a {type(value).__name__} that cannot be sent as Authorization; "
                "it must return None or a str or bytes of ISO-8859-1 without control characters"
            ) from None


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
        hosts = _read_netrc(path)
        fallback = hosts.pop("default", None)
        self._default = fallback if default else None
        self._entries: dict[str, tuple[str, str]] = {}
        for name, entry in hosts.items():
            try:
                self._entries[encode_host(f"[{name}]" if ":" in name else name)] = entry
            except InvalidURL:
                continue  # it cannot be the host of a URL, so no request matches it

    def authorize(self, request: AuthRequest) -> None:
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
    if callable(given) and not isinstance(given, type) and not iscoroutinefunction(given):
        return _Function(given)
    raise TypeError(
        "auth must be None, (user, password), an Auth such as Bearer(token), or a function, not "
        f"an async one, from a request to its Authorization; got {type(given).__name__}"
    )


def encode_credential(text: str, what: str) -> bytes:
    """Return *text* as UTF-8 (NFC, as RFC 7616 §4 asks for); an error does not show it."""
    if not isinstance(text, str):
        raise TypeError(f"a {what} must be a str, not {type(text).__name__}")
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
