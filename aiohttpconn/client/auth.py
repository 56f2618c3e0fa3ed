"""Authentication (RFC 9110 §11): who the client says it is, by Basic, Bearer, Digest and netrc.

An ``Auth`` is asked for each request, and again when the server has answered 401. It sees the
origin's responses only: what a proxy demands is no business of it. Which origins get credentials
at all, and that a redirect to another one gets none, the client decides. No secret is ever shown
in a ``repr`` or an error. No I/O but for the netrc file. Layer: client.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from urllib.parse import quote

from ..exceptions import InvalidURL
from ..http11.grammar import FIELD_VALUE, TOKEN
from .urls import Origin, encode_host, split_url

if TYPE_CHECKING:
    import os
    from http.client import HTTPMessage

    from .fields import Fields

__all__ = ["Auth", "AuthLike", "Basic", "Bearer", "Digest", "Netrc", "of"]

MAX_CHALLENGES = 8 * 1024
"""Characters of all WWW-Authenticate fields of a response: more are not read."""

MAX_REPEATS = 3
"""How often Digest repeats one request: once, and again for nonces that were stale."""

MAX_ORIGINS = 256
"""Origins whose last challenge a Digest keeps, to answer it before it is asked."""

MAX_SENT = 1024
"""Answers that a Digest knows again when they are refused; as many requests may be under way."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

# RFC 6750 §2.1: b64token, which is RFC 9110's token68
_TOKEN68 = r"[A-Za-z0-9\-._~+/]++=*+"
_BEARER = re.compile(_TOKEN68)

# RFC 9110 §11.3: challenge = auth-scheme [ 1*SP ( token68 / #auth-param ) ]; challenges and
# parameters stand in one list, with commas between them, empty elements allowed.
_END = r"(?=[\t ]*+(?:,|\Z))"
_SCHEME = re.compile(rf"[\t ,]*+({TOKEN.pattern})(?![\t ]*+=)(?:[\t ]++{_TOKEN68}{_END})?")
_PARAM = re.compile(
    rf'[\t ,]*+({TOKEN.pattern})[\t ]*+=[\t ]*+(?:({TOKEN.pattern})|"((?:[^"\\]|\\.)*+)"){_END}'
)
_ESCAPE = re.compile(r"\\(.)")

# The strongest first; each also with "-sess" (RFC 7616 §6.1).
_HASHES = {"SHA-512-256": "sha512_256", "SHA-256": "sha256", "MD5": "md5"}

# What `challenged` tells the `authorize` that follows in its task, the two requests may be two
# objects: whose they are, method, URL, and how often the request has been repeated.
_NOT_REPEATED = (0, "", "", 0)
_repeated: ContextVar[tuple[int, str, str, int]] = ContextVar("_repeated", default=_NOT_REPEATED)


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


class _Fixed(Auth):
    """The same credentials for every request."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def authorize(self, request: AuthRequest) -> None:
        if "Authorization" not in request.headers:
            request.headers["Authorization"] = self._value


class Basic(_Fixed):
    """Basic authentication (RFC 7617), in UTF-8: who reads the request has the password.

    Raises ``ValueError`` for a colon in *username* and for control characters.
    """

    __slots__ = ()

    def __init__(self, username: str, password: str) -> None:
        credentials = _encoded(username, "user name") + b":" + _encoded(password, "password")
        if ":" in username:
            raise ValueError("a user name for Basic authentication may have no colon (RFC 7617 §2)")
        super().__init__(f"Basic {b2a_base64(credentials, newline=False).decode()}")


class Bearer(_Fixed):
    """A bearer token (RFC 6750). Raises ``ValueError`` for characters that none may have."""

    __slots__ = ()

    def __init__(self, token: str) -> None:
        _encoded(token, "bearer token")
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


class Digest(Auth):
    """Digest authentication (RFC 7616): the password is never sent.

    MD5, SHA-256 and SHA-512-256 (where ``hashlib`` has it), each also as ``-sess``; of several
    challenges the strongest is answered. ``qop=auth``, and servers without qop; ``auth-int``
    is not answered. The first request to an origin goes out bare and is repeated once it has
    been challenged; later ones answer the last challenge beforehand. Any number of tasks may
    use one object. Raises ``ValueError`` for control characters.
    """

    __slots__ = ("_challenges", "_password", "_sent", "_username")

    def __init__(self, username: str, password: str) -> None:
        self._username = _encoded(username, "user name")
        self._password = _encoded(password, "password")
        # The last challenge of each origin, the least recently used first.
        self._challenges: OrderedDict[Origin, _Challenge] = OrderedDict()
        # The answers that were sent, and how often their request had been repeated by then. An
        # Authorization that is not here is the caller's own.
        self._sent: OrderedDict[str, int] = OrderedDict()

    def authorize(self, request: AuthRequest) -> None:
        headers = request.headers
        before = headers.get("Authorization")
        if before is not None and before not in self._sent:
            return
        url = split_url(request.url)
        challenge = self._challenges.get(url.origin)
        if challenge is None:
            headers.pop("Authorization", None)
            return
        self._challenges.move_to_end(url.origin)
        answer = challenge.answer(request.method, url.target, self._username, self._password)
        headers["Authorization"] = answer
        *repeated, repeats = _repeated.get()
        if repeated != [id(self), request.method, request.url]:
            repeats = 0
        _repeated.set(_NOT_REPEATED)
        self._sent[answer] = repeats
        if len(self._sent) > MAX_SENT:
            self._sent.popitem(last=False)

    def challenged(self, request: AuthRequest, response: AuthResponse) -> bool:
        if response.status != 401:
            return False
        repeats = 0
        if (before := request.headers.get("Authorization")) is not None:
            if before not in self._sent:
                return False
            repeats = self._sent[before]
        challenge = _choose(response.headers.get_all("WWW-Authenticate") or [])
        if challenge is None:
            return False
        origin = split_url(request.url).origin
        if repeats and not challenge.stale:
            # The credentials are refused: later requests shall not begin with them.
            self._challenges.pop(origin, None)
            return False
        if repeats >= MAX_REPEATS:
            return False
        if not challenge.continues(self._challenges.get(origin)):
            self._challenges[origin] = challenge
            self._challenges.move_to_end(origin)
            if len(self._challenges) > MAX_ORIGINS:
                self._challenges.popitem(last=False)
        _repeated.set((id(self), request.method, request.url, repeats + 1))
        return True


class _Challenge:
    """A Digest challenge, and how often it was answered."""

    __slots__ = (
        "_algorithm",
        "_cnonce",
        "_ha1",
        "_hash",
        "_nonce",
        "_opaque",
        "_qop",
        "_realm",
        "_session",
        "_userhash",
        "_utf8",
        "count",
        "stale",
    )

    def __init__(self, parameters: dict[str, str]) -> None:
        """Raise ``ValueError`` or ``KeyError`` if *parameters* ask for what we cannot do."""
        from secrets import token_hex

        self._realm = parameters["realm"]
        self._nonce = parameters["nonce"]
        self._opaque = parameters.get("opaque")
        self._algorithm = parameters.get("algorithm", "")
        name = self._algorithm.upper() or "MD5"
        self._session = name.endswith("-SESS")
        self._hash = _HASHES[name.removesuffix("-SESS")]
        _digest(self._hash, b"")
        qop = parameters.get("qop", "").lower().replace(",", " ").split()
        self._qop = "auth" in qop
        if not self._qop and (qop or self._session):
            raise ValueError("neither qop=auth nor the challenge of RFC 2069")
        self._userhash = parameters.get("userhash", "").lower() == "true"
        self._utf8 = parameters.get("charset", "").lower() == "utf-8"
        self.stale = parameters.get("stale", "").lower() == "true"
        self.count = 0
        # One for all answers, which their count tells apart: "-sess" hashes the first into HA1.
        self._cnonce = token_hex(16)
        self._ha1 = ""

    def strength(self) -> int:
        """Return its hash's place among those that we know, the strongest first."""
        return list(_HASHES.values()).index(self._hash)

    def continues(self, other: _Challenge | None) -> bool:
        """Whether *other* has the same nonce, whose count goes on."""
        return other is not None and (self._nonce, self._realm, self._algorithm) == (
            other._nonce,
            other._realm,
            other._algorithm,
        )

    def answer(self, method: str, uri: str, username: bytes, password: bytes) -> str:
        """Return the Authorization of a request (RFC 7616 §3.4)."""
        realm = self._realm.encode("latin-1")
        if not self._ha1:
            self._ha1 = self._hashed(b"%b:%b:%b" % (username, realm, password))
            if self._session:
                self._ha1 = self._hashed(f"{self._ha1}:{self._nonce}:{self._cnonce}")
        self.count += 1
        nc = f"{self.count:08x}"
        ha2 = self._hashed(f"{method}:{uri}")
        middle = f"{nc}:{self._cnonce}:auth:" if self._qop else ""
        response = self._hashed(f"{self._ha1}:{self._nonce}:{middle}{ha2}")
        parts = [
            self._user(username, realm),
            f"realm={_quoted(self._realm)}",
            f"nonce={_quoted(self._nonce)}",
            f"uri={_quoted(uri)}",
            f'response="{response}"',
        ]
        if self._algorithm:
            parts.append(f"algorithm={self._algorithm}")
        if self._opaque is not None:
            parts.append(f"opaque={_quoted(self._opaque)}")
        if self._qop:
            parts.append(f'qop=auth, nc={nc}, cnonce="{self._cnonce}"')
        if self._userhash:
            parts.append("userhash=true")
        return f"Digest {', '.join(parts)}"

    def _user(self, username: bytes, realm: bytes) -> str:
        if self._userhash:
            return f'username="{self._hashed(b"%b:%b" % (username, realm))}"'
        if self._utf8 and not username.isascii():
            return f"username*=UTF-8''{quote(username, safe='')}"  # RFC 7616 §3.4: RFC 5987
        return f"username={_quoted(username.decode('latin-1'))}"

    def _hashed(self, data: str | bytes) -> str:
        return _digest(self._hash, data.encode("latin-1") if isinstance(data, str) else data)


def of(value: AuthLike) -> Auth | None:
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


def _encoded(text: str, what: str) -> bytes:
    """Return *text* as UTF-8 (NFC, as RFC 7616 §4 wants it); an error does not show it."""
    if not isinstance(text, str):
        raise TypeError(f"a {what} must be a str, not {type(text).__name__}")
    if _CONTROL.search(text):
        raise ValueError(f"a {what} may have no control character")
    if not text.isascii():
        from unicodedata import normalize

        text = normalize("NFC", text)
    try:
        return text.encode()
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


def _digest(name: str, data: bytes) -> str:
    """Return a hash in hexadecimal; ``ValueError`` if this ``hashlib`` does not have it."""
    import hashlib

    return hashlib.new(name, data).hexdigest()


def _quoted(text: str) -> str:
    """RFC 9110 §5.6.4: quoted-string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


# Reading WWW-Authenticate


def _choose(fields: list[str]) -> _Challenge | None:
    """Return the strongest Digest challenge that can be answered, of equal ones the first."""
    found: list[_Challenge] = []
    room = MAX_CHALLENGES
    for field in fields:
        room -= len(field)
        if room < 0:
            break
        for scheme, parameters in _challenges(field):
            if scheme == "digest":
                try:
                    found.append(_Challenge(parameters))
                except (KeyError, ValueError):
                    continue
    return min(found, key=_Challenge.strength, default=None)


def _challenges(field: str) -> list[tuple[str, dict[str, str]]]:
    """Return the challenges of one field as (scheme, parameters), names in lower case.

    What follows a mistake is not read, and the challenge that it is in is left out.
    """
    found: list[tuple[str, dict[str, str]]] = []
    if not FIELD_VALUE.fullmatch(field):
        return found
    at = 0
    while True:
        match = _PARAM.match(field, at) if found else None
        if match is not None:
            name = match[1].lower()
            if name in found[-1][1]:
                return found[:-1]
            value = match[2]
            found[-1][1][name] = _ESCAPE.sub(r"\1", match[3]) if value is None else value
        else:
            match = _SCHEME.match(field, at)
            if match is None:
                break
            found.append((match[1].lower(), {}))
        at = match.end()
    return found[:-1] if field[at:].strip("\t ,") else found
