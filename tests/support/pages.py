"""The answers of the servers of the documentation's examples, which site.py serves.

A page is a method of ``Pages`` named after the method and the first part of the path; it makes a
``Reply`` of a ``Request``, or the bytes of a response that no ``Reply`` stands for. No I/O.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import re
from base64 import b64encode
from collections import Counter
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aiohttpconn.testing import Reply, Request

__all__ = ["Pages"]

INDEX = b"<!doctype html>\n<title>Example Domain</title>\n<h1>Example Domain</h1>\n"
BIG = bytes(range(256)) * 4096 * 3
LINES = b"".join(b'{"event": %d}\n' % number for number in range(1, 4))
PEOPLE = {"1": {"id": 1, "name": "Ada"}, "2": {"id": 2, "name": "Grace"}}

USER, PASSWORD = "user", "password"
REALM, NONCE = "staff", "dcd98b7102dd2f0e8b11d0f600bfb0c0"


class Pages:
    """The pages of all hosts, and how often each was visited."""

    def __init__(self) -> None:
        self._visits: Counter[str] = Counter()

    def answer(self, request: Request) -> bytes:
        """Return the response to *request*."""
        self._visits[request.path] += 1
        name = re.sub(r"\W", "_", request.path.split("/")[1]) or "index"
        method = "get" if request.method == "HEAD" else request.method.lower()
        page = getattr(self, f"{method}_{name}", None)
        if page is None:
            page = _not_found if method == "get" else _received
        made = page(request)
        return made.encode(request) if isinstance(made, Reply) else made

    def get_index(self, request: Request) -> Reply:
        return _page(INDEX)

    get_about = get_index

    def get_gzip(self, request: Request) -> Reply:
        return _page(gzip.compress(INDEX), **{"Content-Encoding": "gzip"})

    def get_bomb(self, request: Request) -> Reply:
        return _page(_bomb(), **{"Content-Encoding": "gzip"})

    def get_sjis(self, request: Request) -> Reply:
        return _page("あ".encode("shift_jis"), "text/plain")

    def get_pages(self, request: Request) -> Reply:
        number = int(request.path.rpartition("/")[2])
        text = f"<title>Page {number}</title>\n{'<p>Some text.</p>' * 20}\n".encode()
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            return _page(gzip.compress(text, 1), **{"Content-Encoding": "gzip"})
        return _page(text)

    # Redirects

    def get_moved(self, request: Request) -> Reply:
        return _redirect("/about")

    def get_loop(self, request: Request) -> Reply:
        return _redirect("/loop")

    def get_elsewhere(self, request: Request) -> Reply:
        return _redirect("https://www.example.com/headers")

    def get_plain(self, request: Request) -> Reply:
        return _redirect("http://example.org/")

    # An API

    def get_headers(self, request: Request) -> Reply:
        return _json(dict(request.headers.items()))

    def get_search(self, request: Request) -> Reply:
        return _json(_query(request))

    def get_people(self, request: Request) -> Reply:
        number = request.path.removeprefix("/people").strip("/")
        if not number:
            return _json([*PEOPLE.values()])
        if number not in PEOPLE:
            return _json({"error": f"nobody has the number {number}"}, status=404)
        return _json(PEOPLE[number])

    def get_items(self, request: Request) -> Reply:
        number = int(_query(request).get("page", 1))
        following = {"Link": f'</items?page={number + 1}>; rel="next"'} if number < 3 else {}
        return _json([f"item {number}.{place}" for place in (1, 2)], **following)

    def post_login(self, request: Request) -> Reply:
        return _json({}, **{"Set-Cookie": "session=abc; Secure; HttpOnly; Path=/"})

    def get_me(self, request: Request) -> Reply:
        if "session=abc" not in request.headers.get("Cookie", ""):
            return _json({"error": "log in first"}, status=401)
        return _json({"name": "Ada"})

    def get_account(self, request: Request) -> Reply:
        token = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if request.headers["Authorization"] != f"Basic {token}":
            return _json({}, status=401, **{"WWW-Authenticate": 'Basic realm="staff"'})
        return _json({"name": USER})

    def get_private(self, request: Request) -> Reply:
        if not _answers_challenge(request):
            challenge = f'Digest realm="{REALM}", nonce="{NONCE}", qop="auth", algorithm=SHA-256'
            return _json({}, status=401, **{"WWW-Authenticate": challenge})
        return _json({"name": USER})

    def post_token(self, request: Request) -> Reply:
        basic = f"Basic {b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
        given = request.headers["Authorization"], request.body
        if given != (basic, b"grant_type=client_credentials"):
            return _json({"error": "invalid_client"}, status=401)
        token = f"token{self._visits[request.path]}"
        return _json({"access_token": token, "token_type": "Bearer", "expires_in": 3600})

    def get_report(self, request: Request) -> Reply:
        if not (request.headers["Authorization"] or "").startswith("Bearer token"):
            return _json({}, status=401, **{"WWW-Authenticate": "Bearer"})
        return _json({"report": request.path})

    # Failures that pass

    def get_busy(self, request: Request) -> Reply:
        if self._visits[request.path] <= 2:
            return _page(b"busy\n", "text/plain", 503, **{"Retry-After": "0"})
        return _page(b"at last\n", "text/plain")

    def get_quota(self, request: Request) -> Reply:
        if self._visits[request.path] == 1:
            return _page(b"too many\n", "text/plain", 429, **{"Retry-After": "1"})
        return _page(b"welcome back\n", "text/plain")

    def get_broken(self, request: Request) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nConnection: close\r\n\r\nonly this"

    def get_flaky_iso(self, request: Request) -> bytes:
        response = _ranged(request, BIG).encode(request)
        if "Range" in request.headers:
            return response
        return response[: len(response) // 2].replace(b"\r\n", b"\r\nConnection: close\r\n", 1)

    # Hints, trailers, and other things beside a body

    def get_big_iso(self, request: Request) -> Reply:
        return _ranged(request, BIG)

    def get_hints(self, request: Request) -> bytes:
        hint = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
        return hint + _page(INDEX).encode(request)

    def get_events(self, request: Request) -> bytes:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Digest\r\n\r\n"
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(line), line) for line in LINES.splitlines(True))
        return head + chunks + b"0\r\nDigest: sha-256=abc\r\n\r\n"


def _page(body: bytes, kind: str = "text/html", status: int = 200, **headers: str) -> Reply:
    return Reply(
        body, status=status, headers={"Server": "example", "Content-Type": kind, **headers}
    )


def _json(value: Any, status: int = 200, **headers: str) -> Reply:
    return _page(json.dumps(value).encode(), "application/json", status, **headers)


def _redirect(location: str) -> Reply:
    return _page(b"", status=302, Location=location)


def _not_found(request: Request) -> Reply:
    return _page(b"not found\n", "text/plain", 404)


def _received(request: Request) -> Reply:
    what = {"method": request.method, "path": request.path, "received": len(request.body)}
    return _json(what, status=201)


def _query(request: Request) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(request.target).query))


def _ranged(request: Request, body: bytes) -> Reply:
    """Return *body*, or the rest of it from the position that the request wants."""
    kind, fields = "application/octet-stream", {"ETag": '"1"', "Accept-Ranges": "bytes"}
    match = re.fullmatch(r"bytes=([0-9]+)-", request.headers.get("Range", ""))
    if match is None or request.headers.get("If-Range", '"1"') != '"1"':
        return _page(body, kind, **fields)
    start = int(match[1])
    fields["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
    return _page(body[start:], kind, 206, **fields)


def _answers_challenge(request: Request) -> bool:
    """Whether the request has the password's digest (RFC 7616 §3.4)."""
    authorization = request.headers.get("Authorization", "")
    given = dict(re.findall(r'(\w+)="?([^",]*)"?', authorization.removeprefix("Digest ")))

    def hashed(*parts: str) -> str:
        return hashlib.sha256(":".join(parts).encode()).hexdigest()

    return given.get("response") == hashed(
        hashed(USER, REALM, PASSWORD),
        NONCE,
        given.get("nc", ""),
        given.get("cnonce", ""),
        "auth",
        hashed(request.method, request.target),
    )


@functools.cache
def _bomb() -> bytes:
    """Return 16 MiB of zeros as some 16 KiB."""
    return gzip.compress(bytes(16 * 1024 * 1024))
