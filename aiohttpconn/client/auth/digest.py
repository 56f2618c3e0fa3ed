"""Digest authentication (RFC 7616), and the parser of WWW-Authenticate fields.

``Auth`` and the other schemes are in schemes.py. No I/O. Layer: client.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from contextvars import ContextVar
from typing import TYPE_CHECKING
from urllib.parse import quote

from ...http11.grammar import FIELD_VALUE, TOKEN
from ...urls import Origin, split_url
from .schemes import TOKEN68, Auth, encode_credential

if TYPE_CHECKING:
    from ..request import Request
    from ..response import Response

__all__ = ["Digest"]

MAX_CHALLENGES = 8 * 1024
"""Characters of a response's WWW-Authenticate fields that are read."""

MAX_REPEATS = 3
"""Repeats of one request: the first after the challenge, more after stale nonces."""

MAX_ORIGINS = 256
"""Origins whose last challenge a Digest keeps, to answer it in the first request."""

MAX_SENT = 1024
"""Answers that a Digest recognizes if the server refuses them: one per request under way."""

# RFC 9110 §11.3: challenge = auth-scheme [ 1*SP ( token68 / #auth-param ) ]; challenges and
# parameters stand in one list, with commas between them, empty elements allowed. Devices break
# these rules. As curl does, a value without quotes is read up to the next comma, the comma after
# one with quotes may be missing, and the last quote, too.
_SCHEME = re.compile(
    rf"[\t ,]*+({TOKEN.pattern})(?![\t ]*+=)(?:[\t ]++{TOKEN68}(?=[\t ]*+(?:,|\Z)))?"
)
_PARAM = re.compile(
    rf"[\t ,]*+({TOKEN.pattern})[\t ]*+=[\t ]*+"
    r'(?:"((?>(?:[^"\\]|\\.)*))(?:"|\Z)|([^",]*+)(?=,|\Z))'
)
_ESCAPE = re.compile(r"\\(.)")

# The strongest first; each also with "-sess" (RFC 7616 §6.1).
_HASHES = {"SHA-512-256": "sha512_256", "SHA-256": "sha256", "MD5": "md5"}

# The message from `challenged` to the `authorize` that follows in the same task, whose request may
# be another object: the id of the Digest, method, URL, and how often the request was repeated.
_NOT_REPEATED = (0, "", "", 0)
_repeated: ContextVar[tuple[int, str, str, int]] = ContextVar("_repeated", default=_NOT_REPEATED)


class Digest(Auth):
    """Digest authentication (RFC 7616): the password is never sent.

    Supports MD5, SHA-256 and SHA-512-256 (if ``hashlib`` has it), each also as ``-sess``, and
    answers the strongest of several challenges. Supports ``qop=auth`` and servers without qop, but
    not ``auth-int``; challenges that break the rules are read as curl reads them. The first request
    to an origin goes out without credentials and is repeated after the challenge; later requests
    answer the last challenge in advance. Tasks may share one object. Raises ``ValueError`` for
    control characters.
    """

    __slots__ = ("_challenges", "_password", "_sent", "_username")

    def __init__(self, username: str, password: str) -> None:
        self._username = encode_credential(username, "user name")
        self._password = encode_credential(password, "password")
        # The last challenge of each origin, the least recently used first.
        self._challenges: OrderedDict[Origin, _Challenge] = OrderedDict()
        # The answers that were sent, and how often their request had been repeated by then. Any
        # other Authorization is the caller's own.
        self._sent: OrderedDict[str, int] = OrderedDict()

    def authorize(self, request: Request) -> None:
        headers = request.headers
        before = headers.get("Authorization")
        if before is not None and before not in self._sent:
            return
        origin = split_url(request.url).origin
        challenge = self._challenges.get(origin)
        if challenge is None:
            headers.pop("Authorization", None)
            return
        self._challenges.move_to_end(origin)
        # The server compares it with the request line.
        uri = request.target
        answer = challenge.answer(request.method, uri, self._username, self._password)
        headers["Authorization"] = answer
        *repeated, repeats = _repeated.get()
        if repeated != [id(self), request.method, request.url]:
            repeats = 0
        _repeated.set(_NOT_REPEATED)
        self._sent[answer] = repeats
        if len(self._sent) > MAX_SENT:
            self._sent.popitem(last=False)

    def challenged(self, request: Request, response: Response) -> bool:
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
            # The server refuses the credentials: later requests must not begin with them.
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
    """A Digest challenge, and the count of its answers."""

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
        """Raise ``ValueError`` or ``KeyError`` for *parameters* that are not supported."""
        from secrets import token_hex

        self._realm = parameters.get("realm", "")
        self._nonce = parameters["nonce"]
        self._opaque = parameters.get("opaque")
        self._algorithm = parameters.get("algorithm", "")
        name = self._algorithm.upper() or "MD5"
        self._session = name.endswith("-SESS")
        self._hash = _HASHES[name.removesuffix("-SESS")]
        _digest(self._hash, b"")
        qop = parameters.get("qop", "").lower().replace(",", " ").split()
        self._qop = "auth" in qop
        # RFC 7616 §3.3: a qop that is not defined there is ignored.
        if not self._qop and ("auth-int" in qop or self._session):
            raise ValueError("neither qop=auth nor the challenge of RFC 2069")
        self._userhash = parameters.get("userhash", "").lower() == "true"
        self._utf8 = parameters.get("charset", "").lower() == "utf-8"
        self.stale = parameters.get("stale", "").lower() == "true"
        self.count = 0
        # One for all answers, which differ by their count: "-sess" hashes the first into HA1.
        self._cnonce = token_hex(16)
        self._ha1 = ""

    def strength(self) -> int:
        """Return the rank of its hash, 0 for the strongest."""
        return list(_HASHES.values()).index(self._hash)

    def continues(self, other: _Challenge | None) -> bool:
        """Whether *other* has the same nonce, whose count continues."""
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


def _digest(name: str, data: bytes) -> str:
    """Return a hash in hexadecimal; ``ValueError`` if ``hashlib`` does not have it."""
    import hashlib

    return hashlib.new(name, data).hexdigest()


def _quoted(text: str) -> str:
    """Return *text* as a quoted-string (RFC 9110 §5.6.4)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


# --------------------------------------------------------------------- WWW-Authenticate


def _choose(fields: list[str]) -> _Challenge | None:
    """Return the strongest supported Digest challenge, the first of equal ones; None if none is."""
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

    Reading stops at the first syntax error; of parameters with the same name the last counts.
    """
    found: list[tuple[str, dict[str, str]]] = []
    if not FIELD_VALUE.fullmatch(field):
        return found
    at = 0
    while True:
        match = _PARAM.match(field, at) if found else None
        if match is not None:
            quoted = match[2]
            value = match[3].rstrip("\t ") if quoted is None else _ESCAPE.sub(r"\1", quoted)
            found[-1][1][match[1].lower()] = value
        else:
            match = _SCHEME.match(field, at)
            if match is None:
                break
            found.append((match[1].lower(), {}))
        at = match.end()
    return found
