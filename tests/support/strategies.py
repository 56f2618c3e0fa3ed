"""Hypothesis strategies for responses: usual, odd, cut and spoilt ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st

from .model import Response

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CONTENTS", "FIELDS", "MORE", "READS", "STATUS_LINES", "cuts", "mostly", "responses"]


_EXAMPLES = settings().max_examples

MORE = settings(max_examples=_EXAMPLES if _EXAMPLES > 1000 else 4 * _EXAMPLES)
"""Settings of the broad tests: four times the profile's examples, but for the long profile."""


def mostly(usual: Sequence[Any], odd: Sequence[Any], weight: int = 4) -> st.SearchStrategy[Any]:
    """Draw from *usual*, and once in *weight* times from *odd*."""
    return st.sampled_from(range(weight)).flatmap(
        lambda n: st.sampled_from(odd if n == weight - 1 else usual)
    )


def alternatives(text: bytes) -> list[bytes]:
    """Return the parts of *text* between its bars; its line ends are for the eye."""
    return text.replace(b"\n", b"").split(b"|")


LINE_ENDS = mostly([b"\r\n"], [b"\n", b"\n", b"\r\r\n", b"\r"], 20)
STATUS_LINES = mostly(
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 404 Not Found", b"HTTP/1.0 200 OK", b"HTTP/1.1 200"],
    alternatives(b"""\
HTTP/1.1 204 No Content|HTTP/1.1 304 Not Modified|HTTP/1.1 999 What|HTTP/1.1 1000 No|
HTTP/1.1 099 No|HTTP/1.1 200 |HTTP/1.1 200  two  blanks |HTTP/1.1 200 caf\xc3\xa9|
HTTP/1.1 200 \xa0OK\x85|HTTP/1.1 200\x0bOK|HTTP/1.1 200 a\tb|HTTP/1.1 200 a\x01\x1fb\x7f|
HTTP/1.1 200 a\x00b|HTTP/1.1 200 a\rb|HTTP/1.1 200 \x1c|HTTP/1.1 2_0 OK|HTTP/1.1  200 OK|
HTTP/1.1\t200 OK| HTTP/1.1 200 OK|HTTP/1.1 +200 OK|HTTP/1.1 0200 OK|HTTP/1.1 abc OK|
HTTP/1.2 200 OK|HTTP/1.9 200 OK|HTTP/1.10 200 OK|HTTP/0.9 200 OK|HTTP/0.8 200 OK|HTTP/1 200 OK|
HTTP/1. 200 OK|HTTP/2 200 OK|HTTP/2.0 200 OK|HTTP/10.0 200 OK|HTTP/2 abc|HTTP/2|HTTP/x 200 OK|
http/1.1 200 OK|ICY 200 OK|HTTP/1.1 101 Switching Protocols||\x00|HTTP/1.1 200OK|HTTP/1.1 20 OK|
HTTP/1.1 2000 OK"""),
    6,
)
FIELDS = mostly(
    alternatives(b"""\
Server: x|X-A: 1|x-a: 2|Set-Cookie: a=b|X: caf\xc3\xa9|Empty:|E: |Connection: keep-alive|
Connection: close|connection: Close"""),
    alternatives(b"""\
Connection: close|Connection: keep-alive|Connection: Close, x|Connection: x,close|
Connection: not-closed|Connection: keep-alive, close|connection: CLOSE|Keep-Alive: timeout=5|
Keep-Alive:|Proxy-Connection: keep-alive|Proxy-Connection: not-keep-alive|
Connection: keep-alived|X-A : v|Bad Name: x|no colon|: no name|From me|From: me| folded|
\tfolded| |X: trailing \t|X:\t  leading|X: \x01\x0b\x0c\x1f|X: a\x00b|X: a\rb|X\x00: a|B@d: v|
(c): v|\xc3\xa9: v|X: \x85\xa0|X: a\x1cb|Content-Length : 5|Transfer-Encoding : chunked|
content-length 5|Content-Length|Content-Length: 2|Content-Length: 2|Content-Length: 3|
Content-Length: +2|Content-Length: 2, 2|Content-Length: 2,3|Content-Length: 0x2|
Content-Length: 5_0|Content-Length: -1|Content-Length:|Content-Length: 2 2|Content-Length: 02|
Content-Length: 2;|Content-Length: \xb2|Content-Length: 0|Content-Length: 99999999999999999999|
Content-Length: 1e1|Transfer-Encoding: chunked|Transfer-Encoding: Chunked|
Transfer-Encoding: chunked |Transfer-Encoding: identity|Transfer-Encoding: gzip|
Transfer-Encoding: gzip, chunked|Transfer-Encoding: chunked, chunked|Transfer-Encoding:|
Transfer-Encoding: xchunked|Transfer-Encoding: chunked,|Transfer-Encoding: identity, chunked|
X-Transfer-Encoding: y|Trailer: X|Content-Type: multipart/mixed; boundary=b|
Content-Type: message/rfc822|Upgrade: h2c"""),
)
CONTENTS = st.one_of(
    st.sampled_from([b"", b"hi", b"a\nbb\n\nccc", b"\r\n\r\n", b"0\r\n\r\n"]),
    st.binary(max_size=40),
)
CHUNK_EXTENSIONS = mostly(
    [b""], [b";a", b";a=b", b' ; a="b"', b" ", b"\t", b";\x01", b"x", b";\xff", b"\r"], 8
)
CHUNK_SIZES = mostly(
    [b"%x", b"%X", b"%02X"], [b"+%x", b"0x%x", b"%x_0", b"-%x", b" %x", b"%017x", b"", b"g"], 10
)
TRAILERS = mostly(
    [b"", b"", b"X: y\r\n"],
    [
        b"X: y\n",
        b"bad\r\n",
        b" x\r\n",
        b"X: \0\r\n",
        b"X: a\r b\r\n",
        b"Content-Length 5\r\n",
        b"X:",
    ],
)


@st.composite
def chunked(draw: st.DrawFn, content: bytes) -> bytes:
    coded = b""
    at = 0
    while at < len(content):
        size = draw(st.integers(1, len(content) - at))
        line = draw(CHUNK_SIZES)
        line = line % size if b"%" in line else line
        coded += line + draw(CHUNK_EXTENSIONS) + draw(LINE_ENDS)
        coded += content[at : at + size] + draw(LINE_ENDS)
        at += size
    last = draw(mostly([b"0"], [b"000", b"0x0", b"0;last", b"", b"-0", b"00000000000000000"], 8))
    end = draw(mostly([b"\r\n"], [b"", b"\r", b"\n", b"X"], 6))
    return coded + last + draw(LINE_ENDS) + draw(TRAILERS) + end


@st.composite
def responses(draw: st.DrawFn) -> Response:
    """Draw a response: a usual one, one with oddities, a cut one, or a spoilt one."""
    data = b""
    for _ in range(draw(mostly([0], [1, 2], 6))):
        data += draw(
            mostly(
                [b"HTTP/1.1 100 Continue", b"HTTP/1.1 103 Early Hints", b"HTTP/1.1 102 x"],
                [b"HTTP/1.0 100", b"HTTP/1.1 199 x", b"HTTP/2 100 x", b"HTTP/1.1 100\tx"],
            )
        )
        fields = draw(st.lists(FIELDS, max_size=1))
        data += b"".join(b"\r\n" + line for line in fields) + b"\r\n\r\n"
    content = draw(CONTENTS)
    framing = draw(st.sampled_from(["length", "chunked", "chunked", "close", "none"]))
    lines = draw(st.lists(FIELDS, max_size=4))
    if framing == "length":
        lines.insert(0, b"Content-Length: %d" % len(content))
    elif framing == "chunked":
        lines.append(b"Transfer-Encoding: chunked")
        content = draw(chunked(content))
    data += draw(STATUS_LINES) + draw(LINE_ENDS)
    data += b"".join(line + draw(LINE_ENDS) for line in lines) + draw(LINE_ENDS) + content
    what = draw(mostly(["whole"], ["cut", "garbage", "spoilt"], 3))
    if what == "cut":
        data = data[: draw(st.integers(0, len(data)))]
    elif what == "garbage":
        data += draw(st.binary(min_size=1, max_size=8))
    elif what == "spoilt":
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=2)) + data[at + draw(st.integers(0, 1)) :]
    return Response(data, draw(mostly(["GET"], ["HEAD", "POST"])))


READS = st.lists(
    st.tuples(st.sampled_from(["read", "readline", "readinto"]), st.integers(0, 12)), max_size=4
).map(lambda reads: [*reads, ("read", -1)])


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Cut *data* in pieces: not at all, anywhere, or byte by byte."""
    how = draw(st.sampled_from(["whole", "anywhere", "bytes"]))
    if how == "whole":
        return [data]
    if how == "bytes":
        return [data[i : i + 1] for i in range(len(data))]
    at = sorted(draw(st.lists(st.integers(0, len(data)), max_size=5)))
    return [data[i:j] for i, j in zip([0, *at], [*at, len(data)], strict=True)]
