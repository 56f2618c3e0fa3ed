"""Requests as data: everything that a caller may give to ``request()`` or to ``putrequest()``.

A ``Request`` can be made again for each client. Its bodies are named, because a file or a generator
can be read only once: ``Bodies`` makes a new one each time, ``content`` has the bytes of each.
``requests()`` draws random ones.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import functools
import io
import mmap
import tempfile
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from hypothesis import strategies as st

from .strategies import mostly

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "BODIES",
    "GOOD_BODIES",
    "LATIN",
    "NO_BODY",
    "Bodies",
    "Request",
    "content",
    "requests",
    "text",
]


@dataclass
class Request:
    """A request, made by ``request()`` or, with *steps*, by ``putrequest()`` and ``endheaders()``.

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
    """Names of BODIES that ``send()`` sends after ``endheaders()``."""

    def names(self) -> list[str]:
        """Return the names of its headers, in lower case."""
        return [text(name).lower() for name, *_ in self.headers]

    def values(self, name: str) -> list[str]:
        """Return the values given for *name*, as text."""
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
        """Return the headers as our ``request()`` takes them: a mapping, or pairs."""
        if self.mapping:
            return {name: value for name, value in self.headers}
        return [(name, value) for name, value in self.headers]


def text(value: Any) -> str:
    """Return a header's name or value as text."""
    if isinstance(value, (bytes, bytearray)):
        return value.decode("latin-1")
    return str(value)


# Bodies ----------------------------------------------------------------------------------------


def mapped(content: bytes, position: int = 0) -> mmap.mmap:
    """Return *content* in an mmap that is at *position*."""
    made = mmap.mmap(-1, len(content))
    made[:] = content
    made.seek(position)
    return made


def on_disk(content: bytes, mode: str = "w+b", position: int = 0, **keywords: Any) -> Any:
    """Return a file on disk with *content* that is at *position*."""
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
"""Several blocks of BLOCKSIZE."""

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
    # No body: of a type, or of characters, that cannot be sent.
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
"""Values of a type that is no body."""

LATIN = {"not latin", "StringIO not latin"}
"""Text that is not Latin-1."""


class Bodies:
    """``with Bodies() as body: body("file")`` makes bodies, and closes their files at the end."""

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
    """Return the bytes of the body *name*, as the peer is to get them."""
    with Bodies() as body:
        return content_of(body(name))


def content_of(body: Any) -> bytes:
    """Return the bytes of *body*, by other means than the package has."""
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


# Random requests -------------------------------------------------------------------------------

GOOD_BODIES = [name for name in BODIES if name not in NO_BODY | LATIN]
"""Names of BODIES that can be sent."""
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
    """Draw a request: mostly a usual one, with an oddity or several at times."""
    steps = draw(st.booleans())
    headers = draw(st.lists(HEADERS, max_size=3))
    if steps:
        headers = [(n, v, *draw(mostly([()], [("2", b"3"), (4,), ("\n",)], 8))) for n, v in headers]
        headers += draw(mostly([[]], [[("No-Value",)]], 20))
    names = GOOD_BODIES if draw(st.sampled_from(range(8))) else [*NO_BODY, *LATIN]
    body = draw(st.sampled_from(names))
    sends: Any = ()
    if steps:
        body = draw(st.sampled_from(["None", body]))
        sends = draw(st.lists(st.sampled_from(GOOD_BODIES), max_size=2))
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
