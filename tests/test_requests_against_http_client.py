"""The same request by ``http.client`` and by us: byte for byte the same, but for what is listed.

Two kinds of differences, a table for each:

- REFUSED: a request that we refuse, before a byte of it leaves where that can be known;
- REWRITES: a request that we send as ``http.client`` sends another one. The rewrite makes that
  other one, so that what we send is still compared with what ``http.client`` sends.

Each entry has an example that shows that the difference is real. ``http.client`` changed between
3.11 and 3.13: newer ones leave zone ids out of Host and brackets out of hosts, as we do.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import functools
import http.client
import io
import mmap
import re
import tempfile
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from aiohttpconn import HTTPConnection
from aiohttpconn.exceptions import BodyLengthError, CannotSendRequest, InvalidURL
from aiohttpconn.net.tunnel import Tunnel, connect_handshake

from .support import stdlib_client
from .support.closed_world import ClosedWorld, Peer
from .support.strategies import MORE, mostly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BLOCKSIZE = 8
"""Bytes read at once from a file: small, so that bodies have several blocks."""

ZONE = re.compile(rb"(\r\nHost: \[[^]%\r]*)%[^]\r]*")
"""A zone id in Host: RFC 6874 §4, it means nothing on another machine."""

# Requests --------------------------------------------------------------------------------------


class Pairs(list):  # type: ignore[type-arg]
    """Pairs as http.client wants headers: what it iterates over are names."""

    def items(self) -> Any:
        return iter(list(tuple.__iter__(pair)) for pair in list.__iter__(self))

    def __iter__(self) -> Iterator[Any]:
        return (pair[0] for pair in list.__iter__(self))


@dataclass
class Request:
    """A request, by ``request()`` or, with *steps*, by ``putrequest()`` and what follows.

    *headers*: (name, value, ...). *body*: the name of one of BODIES.
    """

    method: str = "GET"
    url: str = "/"
    body: str = "None"
    headers: list[tuple[Any, ...]] = field(default_factory=list)
    encode_chunked: bool = False
    mapping: bool = True
    host: tuple[Any, ...] = ("example.org",)
    tunnel: tuple[Any, ...] = ()
    http10: bool = False
    steps: bool = False
    skip_host: bool = False
    skip_accept_encoding: bool = False
    sends: tuple[str, ...] = ()
    """What ``send()`` sends behind the head: names of BODIES."""

    def names(self) -> list[str]:
        return [text(name).lower() for name, *_ in self.headers]

    def values(self, name: str) -> list[str]:
        return [
            ", ".join(map(text, values))
            for key, *values in self.headers
            if text(key).lower() == name
        ]

    @property
    def chosen_framing(self) -> bool:
        """Whether the caller says how the body is delimited."""
        return self.steps or "content-length" in self.names() or "transfer-encoding" in self.names()

    def all_headers(self) -> Any:
        if self.mapping:
            return {name: value for name, value in self.headers}
        return [(name, value) for name, value in self.headers]


def text(value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        return value.decode("latin-1")
    return str(value)


def mapped(content: bytes, position: int = 0) -> mmap.mmap:
    made = mmap.mmap(-1, len(content))
    made[:] = content
    made.seek(position)
    return made


def on_disk(content: bytes, mode: str = "w+b", position: int = 0, **keywords: Any) -> Any:
    file = tempfile.TemporaryFile(mode, **keywords)  # noqa: SIM115
    file.write(content if "b" in mode else content.decode("latin-1"))
    file.seek(position)
    return file


class Readable:
    """An object with a read(), and nothing else."""

    def __init__(self, *blocks: Any) -> None:
        self._blocks = [*blocks, b""]

    def read(self, size: int) -> Any:
        return self._blocks.pop(0)


LONG = bytes(range(32, 62))
BODIES: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "str": lambda: "caf\xe9",
    "empty str": lambda: "",
    "bytes": lambda: b"hello",
    "empty bytes": lambda: b"",
    "long bytes": lambda: LONG,
    "bytearray": lambda: bytearray(b"hello"),
    "empty bytearray": bytearray,
    "memoryview": lambda: memoryview(b"hello"),
    "memoryview of items": lambda: memoryview(array.array("H", [1, 2, 3])),
    "strided memoryview": lambda: memoryview(b"h-e-l-l-o-")[::2],
    "array": lambda: array.array("B", b"hello"),
    "array of items": lambda: array.array("I", [1, 2]),
    "empty array": lambda: array.array("I"),
    "ctypes": lambda: (ctypes.c_char * 5)(*b"hello"),
    "mmap": lambda: mapped(LONG),
    "mmap from 3 on": lambda: mapped(b"hello", 3),
    "BytesIO": lambda: io.BytesIO(LONG),
    "empty BytesIO": io.BytesIO,
    "StringIO": lambda: io.StringIO("caf\xe9 " * 4),
    "empty StringIO": io.StringIO,
    "file": lambda: on_disk(LONG),
    "file from 3 on": lambda: on_disk(b"hello", position=3),
    "empty file": lambda: on_disk(b""),
    "raw file": lambda: on_disk(LONG, buffering=0),
    "text file": lambda: on_disk(b"caf\xe9 " * 4, "w+", encoding="utf-8"),
    "Readable": lambda: Readable(b"he", bytearray(b"llo")),
    "list": lambda: [b"he", b"", b"llo"],
    "tuple": lambda: (b"hello",),
    "empty list": list,
    "list of empty": lambda: [b"", b""],
    "list of buffers": lambda: [bytearray(b"he"), memoryview(b"llo")],
    "list of arrays": lambda: [array.array("H", [1, 2])],
    "generator": lambda: (bytes([c]) * n for n, c in enumerate(b"hello")),
    # What no body may be.
    "not latin": lambda: "\u20ac",
    "StringIO not latin": lambda: io.StringIO("\u20ac"),
    "int": lambda: 5,
    "dict": lambda: {b"a": b"b"},
    "empty dict": dict,
    "list of str": lambda: ["hello"],
    "list of int": lambda: [1, 2],
}
EMPTY = {name for name in BODIES if name.startswith("empty")} | {"None", "list of empty"}
NO_BODY = {"int", "dict", "empty dict", "list of str", "list of int"}
LATIN = {"not latin", "StringIO not latin"}


class Bodies:
    """``with Bodies() as body: body("file")`` makes bodies, and closes those that are files."""

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def __call__(self, name: str) -> Any:
        body = BODIES[name]()
        if isinstance(body, io.IOBase):
            self._stack.callback(body.close)
        return body


@functools.cache
def content(name: str) -> bytes:
    """Return the bytes that the body *name* is to put on the wire, without its framing."""
    with Bodies() as body:
        return content_of(body(name))


def content_of(body: Any) -> bytes:
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode("latin-1")
    if hasattr(body, "read"):
        read = b"".join if isinstance(body, Readable) else lambda parts: parts[0]
        parts = [body.read(99)] if not isinstance(body, Readable) else body._blocks
        return read([p.encode("latin-1") if isinstance(p, str) else p for p in parts])
    try:
        return bytes(memoryview(body))
    except TypeError:
        return b"".join(bytes(item) for item in body)


@dataclass
class Sent:
    """What was sent, and what was raised."""

    data: bytes
    error: Exception | None = None


def by_http_client(request: Request) -> Sent:
    with Bodies() as body:
        return _by_http_client(request, body)


def _by_http_client(request: Request, body: Bodies) -> Sent:
    sock = stdlib_client.FakeSocket()
    try:
        conn = stdlib_client.connection(sock, *request.host, blocksize=BLOCKSIZE)
        if request.http10:
            conn._http_vsn, conn._http_vsn_str = 10, "HTTP/1.0"  # type: ignore[attr-defined]
        if request.tunnel:
            conn.set_tunnel(*request.tunnel)
            conn._tunnel = lambda: None  # type: ignore[attr-defined]
        if not request.steps:
            headers: Any = Pairs(request.headers)
            conn.request(
                request.method,
                request.url,
                body(request.body),
                headers,
                encode_chunked=request.encode_chunked,
            )
            return Sent(sock.sent)
        conn.putrequest(
            request.method, request.url, request.skip_host, request.skip_accept_encoding
        )
        for name, *values in request.headers:
            conn.putheader(name, *values)
        conn.endheaders(body(request.body), encode_chunked=request.encode_chunked)
        for name in request.sends:
            conn.send(body(name))
    except (ValueError, TypeError, http.client.HTTPException) as exc:
        return Sent(sock.sent, exc)
    return Sent(sock.sent)


def by_us(world: ClosedWorld, request: Request) -> Sent:
    peer = Peer(world, [], end="stay")

    async def main() -> None:
        conn = HTTPConnection(*request.host, blocksize=BLOCKSIZE, dialer=peer.dial)
        if request.http10:
            conn._http_vsn, conn._http_vsn_str = 10, "HTTP/1.0"
        if request.tunnel:
            conn.set_tunnel(*request.tunnel)
        with Bodies() as body:
            try:
                await send(conn, request, body)
            finally:
                conn.close()

    try:
        world.run(main())
    except (ValueError, TypeError, http.client.HTTPException) as exc:
        return Sent(b"".join(peer.sent), exc)
    return Sent(b"".join(peer.sent))


async def send(conn: HTTPConnection, request: Request, body: Bodies) -> None:
    if not request.steps:
        await conn.request(
            request.method,
            request.url,
            body(request.body),
            request.all_headers(),
            encode_chunked=request.encode_chunked,
        )
        return
    conn.putrequest(request.method, request.url, request.skip_host, request.skip_accept_encoding)
    for name, *values in request.headers:
        conn.putheader(name, *values)
    await conn.endheaders(body(request.body), encode_chunked=request.encode_chunked)
    for name in request.sends:
        await conn.send(body(name))


@pytest.fixture(scope="module")
def world() -> Iterator[ClosedWorld]:
    loop = ClosedWorld()
    yield loop
    loop.close()


# Refused ---------------------------------------------------------------------------------------


@dataclass
class Refused:
    """A request that we refuse. *early*: before a byte of it has left."""

    name: str
    why: str
    example: Request
    error: type[Exception]
    applies: Callable[[Request], bool]
    early: bool = True


TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
HOST = re.compile(
    r"([A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*(:[0-9]*)?|\[[0-9A-Fa-f:.]+\](:[0-9]*)?"
)


def twice(request: Request) -> bool:
    names = request.names()
    if request.steps and not request.skip_host and not request.http10:
        names.append("host")
    return any(names.count(name) > 1 for name in ("host", "content-length", "transfer-encoding"))


def wrong_length(request: Request) -> bool:
    lengths = request.values("content-length")
    if not lengths or not re.fullmatch("[0-9]{1,19}", lengths[0]):
        return False
    if request.body in NO_BODY | LATIN:
        return False
    if request.steps and request.body == "None":
        return False
    return int(lengths[0]) != len(content(request.body))


def unannounced(request: Request) -> bool:
    if not request.sends or request.body != "None" or "transfer-encoding" in request.names():
        return False
    sent = sum(len(content(name)) for name in request.sends if name not in NO_BODY | LATIN)
    length = (request.values("content-length") or ["0"])[0]
    return length.isdigit() and sent > int(length)


def netloc(url: str) -> str:
    match = re.match("https?://([^/?#]*)", url)
    return match[1] if match else ""


REFUSED = [
    Refused(
        "method",
        "RFC 9110 §9.1: a method is a token; with a blank in it, it is a request of its own",
        Request("GET /admin", "/"),
        ValueError,
        lambda r: not TOKEN.fullmatch(r.method),
    ),
    Refused(
        "header name",
        "RFC 9110 §5.1: a name is a token; http.client sends one with a blank in it",
        Request(headers=[("Bad Name", "x")]),
        ValueError,
        lambda r: any(not TOKEN.fullmatch(text(name)) for name, *_ in r.headers),
    ),
    Refused(
        "header value",
        "RFC 9110 §5.5: no control characters; http.client sends NUL, and folds",
        Request(headers=[("X", "a\0b")]),
        ValueError,
        lambda r: any(
            re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text(v)) for _, *vs in r.headers for v in vs
        ),
    ),
    Refused(
        "single field given twice",
        "two of Host, Content-Length or Transfer-Encoding are how requests are smuggled",
        Request(headers=[("Host", "a"), ("HOST", "b")]),
        ValueError,
        twice,
    ),
    Refused(
        "coding without a body",
        "the peer would take the next request for the chunks that were announced",
        Request("POST", headers=[("Transfer-Encoding", "chunked")]),
        ValueError,
        lambda r: not r.steps and r.body == "None" and "transfer-encoding" in r.names(),
    ),
    Refused(
        "length beside a coding",
        "RFC 9112 §6.2: a sender must not send Content-Length beside Transfer-Encoding",
        Request(
            "POST", body="bytes", headers=[("Content-Length", 5), ("Transfer-Encoding", "chunked")]
        ),
        ValueError,
        lambda r: {"content-length", "transfer-encoding"} <= set(r.names()),
    ),
    Refused(
        "Content-Length that is no number",
        "RFC 9110 §8.6: digits",
        Request("POST", body="bytes", headers=[("Content-Length", "+5")]),
        ValueError,
        lambda r: any(not re.fullmatch("[0-9]{1,19}", v) for v in r.values("content-length")),
    ),
    Refused(
        "Host that is none",
        "RFC 9110 §7.2: a host and perhaps a port; what is no host routes nowhere, or elsewhere",
        Request(headers=[("Host", "a b")]),
        ValueError,
        lambda r: any(not HOST.fullmatch(v) for v in r.values("host")),
    ),
    Refused(
        "credentials in an absolute URL",
        "RFC 9110 §4.2.4: http.client puts them into Host, where they are logged",
        Request(url="http://user:secret@example.com/"),
        InvalidURL,
        lambda r: (
            not HOST.fullmatch(re.sub(r"(?<=[0-9a-f])%[^]]*(?=])", "", netloc(r.url)))
            and not (r.skip_host or r.http10 or (not r.steps and "host" in r.names()))
        ),
    ),
    Refused(
        "host",
        "RFC 3986 §3.2.2: what is neither a name nor an address is found before it is resolved",
        Request(host=("exa<mple.org",)),
        InvalidURL,
        lambda r: bool(re.search(r"[<>@/\\\"]", r.host[0])),
    ),
    Refused(
        "port",
        "a port is digits, 0 to 65535; http.client takes what int() takes, and fails to connect",
        Request(host=("example.org:+80",)),
        InvalidURL,
        lambda r: (
            bool(re.search(r":[^0-9:\]]+[0-9]*$", r.host[0]))
            or any(isinstance(port, int) and port > 65535 for port in r.host[1:])
        ),
    ),
    Refused(
        "CONNECT without a port",
        "RFC 9110 §9.3.6: the target of CONNECT is host:port",
        Request("CONNECT", "/"),
        InvalidURL,
        lambda r: r.method == "CONNECT" and not re.fullmatch("[^/?#@]+:[0-9]+", r.url),
    ),
    Refused(
        "TRACE with a body",
        "RFC 9110 §9.3.8: a TRACE request must not have a body",
        Request("TRACE", body="bytes"),
        ValueError,
        lambda r: r.method == "TRACE" and r.body != "None",
    ),
    Refused(
        "wrong Content-Length",
        "the rest of the body, or of the next request, would be taken for the other",
        Request("POST", body="bytes", headers=[("Content-Length", "4")]),
        BodyLengthError,
        wrong_length,
        early=False,
    ),
    Refused(
        "body that is none",
        "a dict's keys are no body; http.client finds that out after the head was sent",
        Request("POST", body="empty dict"),
        TypeError,
        lambda r: r.body in NO_BODY,
        early=False,
    ),
    Refused(
        "putheader without a value",
        "a header has a value, if only ''",
        Request(steps=True, headers=[("X",)]),
        TypeError,
        lambda r: any(not values for _, *values in r.headers),
    ),
    Refused(
        "value that is a buffer",
        "a header value is str, bytes or int; a memoryview is data",
        Request(headers=[("X", memoryview(b"x"))]),
        TypeError,
        lambda r: any(isinstance(v, memoryview) for _, *vs in r.headers for v in vs),
    ),
    Refused(
        "send of more than announced",
        "what follows the body that Content-Length announced, or did not, is the next request",
        Request("POST", steps=True, sends=("bytes",)),
        BodyLengthError,
        unannounced,
        early=False,
    ),
    Refused(
        "send behind a body",
        "endheaders(body) ends the request",
        Request("POST", steps=True, body="bytes", sends=("bytes",)),
        CannotSendRequest,
        lambda r: bool(r.sends) and r.body != "None",
        early=False,
    ),
]

BOTH = [
    Refused(
        "value that is neither str, bytes nor int",
        "",
        Request(headers=[("X", None)]),
        TypeError,
        lambda r: any(v is None or isinstance(v, float) for _, *vs in r.headers for v in vs),
    ),
    Refused(
        "value that is not Latin-1",
        "",
        Request(headers=[("X", "\u20ac")]),
        UnicodeEncodeError,
        lambda r: any("\u20ac" in text(v) for _, *vs in r.headers for v in vs),
    ),
    Refused(
        "URL with a blank or a control character",
        "",
        Request(url="/a b"),
        InvalidURL,
        lambda r: bool(re.search(r"[\x00-\x20\x7f]", r.url)),
    ),
    Refused(
        "URL that is not ASCII",
        "",
        Request(url="/caf\xe9"),
        UnicodeEncodeError,
        lambda r: not r.url.isascii(),
    ),
    Refused(
        "host with a blank or a control character",
        "",
        Request(host=("exam ple.org",)),
        InvalidURL,
        lambda r: bool(re.search(r"[\x00-\x20\x7f]", r.host[0])),
    ),
    Refused(
        "port that is no number",
        "",
        Request(host=("example.org:x",)),
        InvalidURL,
        lambda r: bool(re.search(":[a-z]+$", r.host[0])),
    ),
    Refused(
        "text that is not Latin-1",
        "",
        Request("POST", body="not latin"),
        UnicodeEncodeError,
        lambda r: r.body in LATIN,
        early=False,
    ),
]

# Rewrites --------------------------------------------------------------------------------------


@dataclass
class Rewrite:
    """What http.client must be given so that it sends what we send."""

    name: str
    why: str
    example: Request
    rewrite: Callable[[Request], Request]
    real: bool = True
    """Whether http.client, of this Python, needs it for the example."""


FILES = {"file", "file from 3 on", "empty file", "raw file"}
ITEMS = {"memoryview of items", "array of items", "strided memoryview", "list of arrays"}


def as_bytes(names: set[str], when: Callable[[Request], bool]) -> Callable[[Request], Request]:
    """Return a rewrite that puts bytes in the place of bodies."""

    def rewrite(request: Request) -> Request:
        body, sends = request.body, request.sends
        if when(request):
            body = bytes_body(body) if body in names else body
        sends = tuple(bytes_body(name) if name in names else name for name in sends)
        return replace(request, body=body, sends=sends)

    return rewrite


def bytes_body(name: str) -> str:
    listed = name == "list of arrays"
    data = content(name)
    made = f"bytes of {name}"
    BODIES.setdefault(made, lambda: [data] if listed else data)
    return made


def address_alone(request: Request) -> Request:
    def bracket(host: tuple[Any, ...]) -> tuple[Any, ...]:
        if not host:
            return host
        port_given = len(host) > 1 and host[1] is not None
        name = host[0]
        if not port_given and name.count(":") > 1 and "]" not in name:
            name = f"[{name}]"
        elif port_given and name.startswith("["):
            name = name.removeprefix("[").removesuffix("]")
        return (name, *host[1:])

    return replace(request, host=bracket(request.host), tunnel=bracket(request.tunnel))


def joined_values(request: Request) -> Request:
    headers = [
        (name, ", ".join(map(text, values)))
        if len(values) > 1 and all(isinstance(v, (str, bytes, bytearray, int)) for v in values)
        else (name, *values)
        for name, *values in request.headers
    ]
    return replace(request, headers=headers)


REWRITES = [
    Rewrite(
        "file",
        "a regular file's length is known: Content-Length, and no chunks",
        Request("POST", body="file"),
        as_bytes(FILES, lambda r: not r.chosen_framing),
    ),
    Rewrite(
        "mmap",
        "it is a buffer as well as a file, and its length is known",
        Request("POST", body="mmap"),
        as_bytes({"mmap", "mmap from 3 on"}, lambda r: True),
    ),
    Rewrite(
        "chunk of items",
        "a chunk's size counts bytes; http.client writes len(), which counts items",
        Request("POST", body="list of arrays"),
        as_bytes(ITEMS, lambda r: True),
    ),
    Rewrite(
        "several values",
        "RFC 9112 §5.2: http.client folds the line, which must not be sent any more",
        Request(steps=True, headers=[("X", "a", b"b", 3)]),
        joined_values,
    ),
    Rewrite(
        "names in bytes",
        "a name is a name in bytes too; http.client adds a second Host, and a second framing",
        Request(headers=[(b"Host", b"other.example")]),
        lambda r: replace(r, headers=[(text(n), *v) for n, *v in r.headers]),
    ),
    Rewrite(
        "str to endheaders and send",
        "a str body is sent as ISO-8859-1 everywhere; http.client does so in request() alone",
        Request("POST", steps=True, headers=[("Content-Length", "4")], body="str"),
        as_bytes({"str", "empty str"}, lambda r: r.steps),
    ),
    Rewrite(
        "IPv6 address alone",
        "'::1' is an address; http.client takes its last digits for a port",
        Request(host=("::1",)),
        address_alone,
    ),
    Rewrite(
        "brackets beside a port",
        "the brackets are no part of the host; 3.11's http.client sends two pairs of them",
        Request(host=("[::1]", 8080)),
        address_alone,
        real=not hasattr(http.client.HTTPConnection, "_wrap_ipv6"),
    ),
]


# The comparison --------------------------------------------------------------------------------


def check(world: ClosedWorld, request: Request) -> str:
    """Send *request* by both, and find each difference in the tables; return what applied."""
    ours = by_us(world, request)
    refused = [entry for entry in REFUSED if entry.applies(request)]
    reasons = refused + [entry for entry in BOTH if entry.applies(request)]
    theirs = by_http_client(rewritten(request))
    if not reasons:
        assert (ours.error, theirs.error) == (None, None)
        assert ours.data == ZONE.sub(rb"\1", theirs.data)
        return "sent"
    assert any(isinstance(ours.error, entry.error) for entry in reasons), f"{ours}, {reasons}"
    if all(entry.early for entry in reasons):
        assert not ours.data, f"refused, but only after some bytes: {ours}"
    if not refused:
        # endheaders() of http.client takes no str at all.
        kinds = (TypeError,) if request.steps and request.body in LATIN else ()
        assert isinstance(theirs.error, (*kinds, *(entry.error for entry in reasons))), theirs
    return f"refused: {reasons[0].name}"


def rewritten(request: Request) -> Request:
    for entry in REWRITES:
        request = entry.rewrite(request)
    return request


NAMES = [name for name in BODIES if name not in NO_BODY | LATIN]
URLS = mostly(
    ["/", "", "/a?b=c#d", "http://example.com/x", "https://example.com:8080"],
    [
        "*",
        "/%zz",
        "/a b",
        "/a\r\nX: y",
        "/caf\xe9",
        "http://[::1]:80/",
        "http://[fe80::1%eth0]/",
        "http://u@h/",
        "HTTP://example.com/",
        "httpx",
        "http:///x",
        "example.com:443",
        "/\x7f",
    ],
    8,
)
METHODS = mostly(
    ["GET", "POST", "put", "PATCH", "HEAD", "DELETE"],
    ["OPTIONS", "CONNECT", "TRACE", "post", "X-Y", "G T", "G\r\nT", "", "G\xc9T", "M\0"],
    8,
)
HEADERS = mostly(
    [
        ("X", "y"),
        ("x-a", b"bytes"),
        ("X-Int", 5),
        ("Accept-Encoding", "gzip"),
        ("Host", "other.example:81"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "5"),
        ("Content-Length", 0),
    ],
    [
        (b"X", b"y"),
        (b"host", "a"),
        (b"Content-Length", 5),
        ("accept-encoding", ""),
        ("TRANSFER-ENCODING", "gzip"),
        ("content-length", "05"),
        ("Content-Length", "+5"),
        ("Content-Length", b"30"),
        ("Host", "a b"),
        ("Host", ""),
        ("Host", "[::1]:80"),
        ("Host", "u@h"),
        ("X", True),
        ("X", HTTPStatus.OK),
        ("X", "caf\xe9"),
        ("X", "\u20ac"),
        ("X", "a\0b"),
        ("X", "a\r\n b"),
        ("X", "a\r\nb"),
        ("X", "a\n"),
        ("X", "\tblank "),
        ("X", None),
        ("X", 1.5),
        ("X", bytearray(b"x")),
        ("X", memoryview(b"x")),
        ("Bad Name", "x"),
        ("X\r\n", "x"),
        ("", "x"),
        ("X:", "x"),
        ("N\xe4me", "x"),
        (b"N\xe4me", "x"),
        ("Connection", "close"),
        ("Upgrade", "h2c"),
    ],
    6,
)
HOSTS = mostly(
    [("example.org",), ("example.org", 80), ("example.org", 8080), ("example.org:8080",)],
    [
        ("[::1]",),
        ("[::1]:81",),
        ("::1",),
        ("::1", 80),
        ("[::1]", 81),
        ("fe80::1%eth0", 80),
        ("[fe80::1%eth0]:81",),
        ("127.0.0.1:",),
        ("b\xfccher.example",),
        ("example.org", 443),
        ("example.org", 70000),
        ("example.org:x",),
        ("example.org:+80",),
        ("exam ple.org",),
        ("exa<mple.org",),
        ("ex\r\nample",),
        ("",),
        ("a_b",),
        ("example.org", 0),
    ],
    8,
)
TUNNELS = mostly(
    [()], [("t.example",), ("t.example", 443), ("[::1]:80",), ("b\xfccher.example", 80)], 6
)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    steps = draw(st.booleans())
    headers = draw(st.lists(HEADERS, max_size=3))
    if steps:
        headers = [(n, v, *draw(mostly([()], [("2", b"3"), (4,), ("\n",)], 8))) for n, v in headers]
        headers += draw(mostly([[]], [[("No-Value",)]], 20))
    names = NAMES if draw(st.sampled_from(range(8))) else [*NO_BODY, *LATIN]
    body = draw(st.sampled_from(names))
    sends: Any = ()
    if steps:
        body = draw(st.sampled_from(["None", body]))
        sends = draw(st.lists(st.sampled_from(NAMES), max_size=2))
    request = Request(
        draw(METHODS),
        draw(URLS),
        body,
        headers,
        draw(st.booleans()),
        False,
        draw(HOSTS),
        draw(TUNNELS),
        http10=draw(mostly([False], [True], 8)),
        steps=steps,
        skip_host=steps and draw(st.booleans()),
        skip_accept_encoding=steps and draw(st.booleans()),
        sends=tuple(name for name in sends if name != "None"),
    )
    if not steps:
        request.mapping = len(dict(headers)) == len(headers)
    return request


@MORE
@given(request=requests())
def test_both_send_the_same_but_for_what_is_listed(world: ClosedWorld, request: Request) -> None:
    event(check(world, request))


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("method", ["GET", "POST", "put", "HEAD", "DELETE"])
def test_every_body_with_every_framing(world: ClosedWorld, method: str, body: str) -> None:
    framings: list[tuple[str, Any]] = [("X", "y"), ("Transfer-Encoding", "chunked")]
    if body not in NO_BODY | LATIN:
        framings.append(("Content-Length", len(content(body))))
    for header in framings:
        for encode_chunked in (False, True):
            for steps in (False, True):
                for http10 in (False, True):
                    request = Request(method, "/", body, [header], encode_chunked, steps=steps)
                    check(world, replace(request, http10=http10))


# Each difference is real -----------------------------------------------------------------------


def names(entries: Sequence[Any]) -> Any:
    return pytest.mark.parametrize("entry", entries, ids=lambda entry: entry.name)


@names(REFUSED)
def test_what_we_refuse(world: ClosedWorld, entry: Refused) -> None:
    assert by_http_client(entry.example).error is None
    assert isinstance(by_us(world, entry.example).error, entry.error)
    assert entry.applies(entry.example)
    check(world, entry.example)


@names(BOTH)
def test_what_both_refuse(world: ClosedWorld, entry: Refused) -> None:
    assert isinstance(by_http_client(entry.example).error, entry.error)
    assert isinstance(by_us(world, entry.example).error, entry.error)
    check(world, entry.example)


@names(REWRITES)
def test_what_we_send_as_http_client_sends_something_else(
    world: ClosedWorld, entry: Rewrite
) -> None:
    theirs, ours = by_http_client(entry.example), by_us(world, entry.example)
    assert (theirs.data != ours.data) == entry.real
    assert by_http_client(entry.rewrite(entry.example)).data == ours.data
    check(world, entry.example)


def test_a_zone_id_is_not_sent(world: ClosedWorld) -> None:
    request = Request(host=("[fe80::1%eth0]:81",))
    theirs, ours = by_http_client(request), by_us(world, request)
    assert b"\r\nHost: [fe80::1]:81\r\n" in ours.data
    newer = hasattr(http.client, "_strip_ipv6_iface")
    assert (b"%eth0" in theirs.data) == (not newer)
    check(world, request)


@pytest.mark.parametrize("host", [("t.example", 443), ("::1", 80), ("b\xfccher.example", 8443)])
@pytest.mark.parametrize("headers", [{}, {"Proxy-Authorization": "Basic eDp5"}, {"Host": "h"}])
def test_connect_is_that_of_http_client_since_3_12(
    host: tuple[str, int], headers: dict[str, str]
) -> None:
    # One reply for CONNECT, one for the request behind it.
    sock = stdlib_client.FakeSocket(b"HTTP/1.1 200 OK\r\n\r\n", b"")
    conn = stdlib_client.connection(sock, "proxy.example")
    conn.set_tunnel(*host, headers=dict(headers))
    ours = next(connect_handshake(Tunnel(*host, tuple(headers.items()))))
    if hasattr(conn, "get_proxy_response_headers"):
        conn.connect()
        # Brackets (RFC 9110 §7.2): 3.12 and 3.13 forget them in Host, early 3.12 in the target too.
        theirs = re.sub(rb"(CONNECT |\r\nHost: )(::1)(?=:)", rb"\1[\2]", sock.sent)
        if "Host" not in headers and headers:
            # http.client puts its Host behind the caller's fields, we put ours in front of them.
            assert sorted(theirs.split(b"\r\n")) == sorted(ours.split(b"\r\n"))
        else:
            assert theirs == ours
        return
    # 3.11: HTTP/1.0, no Host, no brackets, and no IDNA.
    try:
        conn.connect()
    except UnicodeEncodeError:
        assert host[0].startswith("b\xfc")
        return
    line = sock.sent.partition(b"\r\n")[0]
    assert line == f"CONNECT {host[0]}:{host[1]} HTTP/1.0".encode()
    literal = f"[{host[0]}]" if ":" in host[0] else host[0]
    assert ours.startswith(f"CONNECT {literal}:{host[1]} HTTP/1.1\r\n".encode())
    assert b"\r\nHost: " in ours


# Over real sockets -----------------------------------------------------------------------------


@pytest.mark.parametrize("body", NAMES)
async def test_real_sockets_get_what_the_closed_world_gets(scripted: Any, body: str) -> None:
    request = Request("POST", "/x", body)
    world = ClosedWorld()
    try:
        expected = world.run_beside(lambda: by_us(world, request))
    finally:
        world.close()
    async with scripted(b"HTTP/1.1 204 No Content\r\n\r\n", blocksize=BLOCKSIZE) as conn:
        with Bodies() as body_of:
            await send(conn, request, body_of)
        await (await conn.getresponse()).read()
        host = f"{conn.host}:{conn.port}".encode()
        assert scripted.server.received == [expected.data.replace(b"example.org", host)]
