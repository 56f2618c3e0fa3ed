"""Attacks on a connection, row by row: tests carry the ids of ``docs/topics/attacks.md``.

A request is refused before a byte is sent: the server has received nothing. A response fails with
an ``HTTPException``, and its connection is never used again.

The page names the tests of rows that are missing here. Of some rows, a part belongs to the client
and its pool (``test_client_security.py``):

- E6: the client makes cookies, credentials, forms and ranges. Nobody can set the HTTP version as
  text, and E1 to E5 are all other strings.
- E10: the client joins a URL to its base. Here a path never becomes another host.
- E11: the client refuses 2130706433 and 0x7f.1. Here they are names.
- T12: ``Keep-Alive: timeout`` is for pools.
- T16: the context is a part of the pool's key (C11), so verify=False cannot stick.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import tracemalloc

import pytest

from aiohttpconn import (
    BadStatusLine,
    BodyLengthError,
    CertificateError,
    ConnectTimeout,
    HTTP1Protocol,
    HTTPConnection,
    HTTPException,
    HTTPSConnection,
    IncompleteRead,
    InvalidURL,
    Limits,
    LineTooLong,
    MalformedResponse,
    RemoteDisconnected,
    Timeout,
    TLSError,
    TotalTimeout,
    UnknownProtocol,
    UnknownTransferEncoding,
)

from .support import (
    GARBAGE,
    ClientGone,
    ConnectProxy,
    ScriptedServer,
    close,
    expect,
    expect_request,
    named_deliveries,
    notify,
    read_all,
    send,
    with_trailing_garbage,
)
from .support.answers import AGAIN, Answers

try:
    import fcntl
    import termios
except ImportError:  # Windows
    fcntl = None

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CONTROLS = [chr(i) for i in (*range(0x20), 0x7F)]


# E: what a caller can inject


@contextlib.asynccontextmanager
async def nothing_sent():
    """Give an open connection to a server that must not receive a byte on it."""
    async with ScriptedServer([read_all()]) as server:
        async with HTTPConnection(*server.address) as conn:
            await conn.connect()
            yield conn
        await server.wait_connections(1)
        await server.conns[0].wait_ended()
        assert server.received == [b""]


BAD_METHODS = ["GET /x", "GET\r\nX: y", "G\0T", "G\tT", "GET\x7f", "GÉT", "", "G:T", "(GET)"]


@pytest.mark.parametrize("method", BAD_METHODS, ids=lambda method: f"E1-{method!a}")
async def test_a_method_that_is_no_token_is_refused(method):
    async with nothing_sent() as conn:
        with pytest.raises(ValueError, match="a method must be a token") as caught:
            await conn.request(method, "/")
        assert repr(method) in str(caught.value)
        with pytest.raises(ValueError, match="a method must be a token"):
            await conn.request(method, "/", b"body", {"A": "b"})
        with pytest.raises(ValueError, match="a method must be a token"):
            conn.putrequest(method, "/")


@pytest.mark.parametrize("char", [" ", *CONTROLS], ids=lambda char: f"E2-{char!a}")
async def test_a_target_with_control_characters_is_refused(char):
    async with nothing_sent() as conn:
        for url in (f"/{char}x", f"/x{char}", f"x{char}y", f"http://example.com/{char}"):
            for call in (
                lambda url=url: conn.request("GET", url),
                lambda url=url: conn.request("POST", url, b"body"),
            ):
                with pytest.raises(InvalidURL, match="URL can't contain control characters"):
                    await call()
            with pytest.raises(InvalidURL, match="URL can't contain control characters"):
                conn.putrequest("GET", url)


@pytest.mark.parametrize("char", ["é", "\x80", "€"], ids=lambda char: f"E2-{char!a}")
async def test_a_target_outside_ascii_is_refused(char):
    async with nothing_sent() as conn:
        for method in ("GET", "POST"):
            with pytest.raises(UnicodeEncodeError):
                await conn.request(method, "/" + char)


@pytest.mark.parametrize("char", [c for c in CONTROLS if c != "\t"], ids=lambda c: f"E3-{c!a}")
async def test_a_value_with_control_characters_is_refused(char):
    async with nothing_sent() as conn:
        for value in (
            f"a{char}",
            f"{char}b",
            f"a{char} b",
            f"a{char}Evil: yes",
            f"a{char}b".encode(),
        ):
            for headers in ({"A": value}, [("X", "y"), ("A", value), ("Z", "z")]):
                with pytest.raises(
                    ValueError, match=r"Invalid header value of A .*: it has a contr"
                ):
                    await conn.request("GET", "/", headers=headers)
        conn.putrequest("GET", "/")
        with pytest.raises(ValueError, match="Invalid header value"):
            conn.putheader("A", f"a{char}b")
        with pytest.raises(ValueError, match="Invalid header value"):
            conn.putheader("A", "fine", f"a{char}b")


@pytest.mark.parametrize(
    "name",
    ["", "A B", "A:", "A\r\nB", "A\n", "A\0", "A\x7f", "A\xa0B", "É", "€", "A(B)", " A", "A\t"],
    ids=lambda name: f"E3-{name!a}",
)
async def test_a_name_that_is_no_token_is_refused(name):
    async with nothing_sent() as conn:
        with pytest.raises(ValueError, match="Invalid header name") as caught:
            await conn.request("GET", "/", headers={name: "v"})
        assert repr(name) in str(caught.value)
        conn.putrequest("GET", "/")
        with pytest.raises(ValueError, match="Invalid header name"):
            conn.putheader(name, "v")


BAD_HOSTS = [
    "a b",
    "a\r\nX: y",
    "a\0",
    "a\x7f",
    "u@a",
    "u:p@a",
    "a/b",
    "a?b",
    "a#b",
    "a\\b",
    "<a>",
    "a%zz",
]


@pytest.mark.parametrize("host", BAD_HOSTS, ids=lambda host: f"E4-{host!a}")
async def test_a_host_that_is_none_is_refused(host):
    shown = {"u@a": "***@a", "u:p@a": "***@a"}.get(host, host)
    with pytest.raises(InvalidURL, match=re.escape(f"not a host name or an IP address: {shown!r}")):
        HTTPConnection(host, 80)
    async with nothing_sent() as conn:
        with pytest.raises(ValueError, match=r"not a value for Host|Invalid header value"):
            await conn.request("GET", "/", headers={"Host": host})
        conn.putrequest("GET", "/", skip_host=True)
        with pytest.raises(ValueError, match=r"not a value for Host|Invalid header value"):
            conn.putheader("Host", host)


@pytest.mark.parametrize("host", ["a\r\nX: y", "a b", "u@a", "a/b", "a#b", "é\r\n"])
def test_a_tunnels_host_that_is_none_is_refused_E5(host):
    conn = HTTPConnection("proxy.example", 3128)
    with pytest.raises(InvalidURL, match="not a host name or an IP address"):
        conn.set_tunnel(host, 443)


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"A": "b\r\nEvil: yes"}, "Invalid header value"),
        ({"A": "b\0"}, "Invalid header value"),
        ({"A\r\nB": "c"}, "Invalid header name"),
        ({"A B": "c"}, "Invalid header name"),
        ({"Host": "a@b"}, "not a value for Host"),
        ({"Host": "a", "host": "b"}, "more than one Host"),
    ],
    ids=lambda value: f"E5-{value}" if isinstance(value, str) else None,
)
async def test_a_tunnels_fields_are_checked(headers, text):
    async with ScriptedServer([read_all()]) as server:
        async with HTTPConnection(*server.address) as conn:
            with pytest.raises(ValueError, match=text):
                conn.set_tunnel("example.com", 443, headers)
                await conn.connect()
    assert server.connections == 0


@pytest.mark.parametrize(
    ("body", "length", "got"),
    [
        (b"hello", 4, "more: 5 bytes"),
        (b"hello", 6, "fewer: 5 bytes"),
        (b"", 1, "fewer: 0 bytes"),
        (None, 1, "fewer: 0 bytes"),
        ("hello", 4, "more: 5 bytes"),
        (bytearray(100_000), 99_999, "more: 100000 bytes"),
    ],
    ids=["E7-more", "E7-fewer", "E7-none", "E7-absent", "E7-str", "E7-large"],
)
async def test_a_body_of_known_size_that_is_not_the_announced_one_is_refused(body, length, got):
    async with nothing_sent() as conn:
        text = f"Content-Length announces {length} bytes, the body has {got}"
        with pytest.raises(BodyLengthError, match=text):
            await conn.request("POST", "/", body, {"Content-Length": str(length)})


async def blocks(*items):
    for item in items:
        yield item


@pytest.mark.parametrize("make", [lambda *items: iter(items), blocks], ids=["E7-iter", "E7-aiter"])
@pytest.mark.parametrize(
    ("items", "length", "got", "sent"),
    [
        ([b"abc", b"def"], 5, "more: 6 bytes", b"abc"),
        ([b"abc", b"def"], 7, "fewer: 6 bytes", b"abcdef"),
        ([], 1, "fewer: 0 bytes", b""),
    ],
    ids=["more", "fewer", "none"],
)
async def test_a_body_that_turns_out_longer_or_shorter_ends_the_connection(
    make, items, length, got, sent
):
    async with ScriptedServer([read_all()]) as server:
        async with HTTPConnection(*server.address) as conn:
            with pytest.raises(BodyLengthError, match=f"{length} bytes, the body has {got}"):
                await conn.request("POST", "/", make(*items), {"Content-Length": str(length)})
            assert conn.sock is None
        await server.conns[0].wait_ended()
        # Aborted, so that the server never takes what it got for a whole request.
        _, _, body = server.received[0].partition(b"\r\n\r\n")
        assert sent.startswith(body)


async def test_send_sends_no_more_than_announced_E7():
    async with ScriptedServer([read_all()]) as server:
        async with HTTPConnection(*server.address) as conn:
            conn.putrequest("POST", "/")
            conn.putheader("Content-Length", "5")
            await conn.endheaders()
            await conn.send(b"abc")
            with pytest.raises(BodyLengthError, match="announces 2 bytes, the body has more: 3"):
                await conn.send(b"def")
            assert conn.sock is None


async def test_getresponse_before_all_is_sent_ends_the_connection_E7():
    async with ScriptedServer([read_all()]) as server:
        async with HTTPConnection(*server.address) as conn:
            conn.putrequest("POST", "/")
            conn.putheader("Content-Length", "5")
            await conn.endheaders()
            await conn.send(b"abc")
            with pytest.raises(BodyLengthError, match="announces 2 bytes that were not sent"):
                await conn.getresponse()
            assert conn.sock is None


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ([("Content-Length", "2"), ("Transfer-Encoding", "chunked")], "are both given"),
        ([("transfer-encoding", "chunked"), ("content-length", "2")], "are both given"),
        ([("Content-Length", "2"), ("Content-length", "2")], "is given twice"),
        ([("Content-Length", "2"), ("Content-Length", "3")], "is given twice"),
        ([("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "x")], "is given twice"),
        ([("Host", "a"), ("host", "b")], "is given twice"),
        ([("Content-Length", "2, 2")], "Content-Length must be digits, got '2, 2'"),
        ([("Content-Length", " 2")], "Content-Length must be digits, got ' 2'"),
        ([("Content-Length", "+2")], "Content-Length must be digits"),
        ([("Content-Length", "0x2")], "Content-Length must be digits"),
    ],
    ids=lambda value: f"E8-{value}" if isinstance(value, str) else None,
)
async def test_framing_fields_that_contradict_each_other_are_refused(fields, text):
    async with nothing_sent() as conn:
        with pytest.raises(ValueError, match=re.escape(text)):
            await conn.request("POST", "/", b"hi", fields)
        conn.putrequest("POST", "/", skip_host=True)
        with pytest.raises(ValueError, match=re.escape(text)):
            for name, value in fields:
                conn.putheader(name, value)


async def test_a_host_beside_putrequests_own_is_refused_E8():
    async with nothing_sent() as conn:
        conn.putrequest("GET", "/")
        with pytest.raises(ValueError, match="Host is given twice"):
            conn.putheader("Host", "other.example")


@pytest.mark.parametrize("body", [b"x", b"", iter([b"x"])], ids=["E9-bytes", "E9-empty", "E9-iter"])
async def test_trace_has_no_body(body):
    async with nothing_sent() as conn:
        with pytest.raises(ValueError, match="a TRACE request must not have a body"):
            await conn.request("TRACE", "/", body)


async def test_trace_has_no_body_step_by_step_E9():
    async with ScriptedServer([expect(), send(HELLO)]) as server:
        async with HTTPConnection(*server.address) as conn:
            conn.putrequest("TRACE", "/")
            with pytest.raises(ValueError, match="a TRACE request must not have a body"):
                await conn.endheaders(b"x")
            # The half-made request is gone.
            await conn.request("GET", "/")
            assert (await conn.getresponse()).status == 200
        assert [head.split(b" ")[0] for head in server.heads] == [b"GET"]


@pytest.mark.parametrize(
    "url", ["/", "example.com", "http://example.com/", "u@a:1", "a:1/", ":1", "[fe80::1%25eth0]:1"]
)
async def test_connect_takes_an_authority_E9(url):
    async with nothing_sent() as conn:
        with pytest.raises(InvalidURL, match=r"CONNECT takes host:port as its URL \(RFC 9110"):
            await conn.request("CONNECT", url)


@pytest.mark.parametrize("url", ["//evil.example/x", "http:evil.example", "http:/evil", "/@evil"])
async def test_a_path_never_becomes_another_host_E10(url):
    async with ScriptedServer([expect(), send(HELLO)]) as server:
        async with HTTPConnection(*server.address) as conn:
            await conn.request("GET", url)
            await conn.getresponse()
        host = f"\r\nHost: {server.host}:{server.port}\r\n".encode()
        assert host in server.heads[0]


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://a\\@b/", "must not have credentials"),
        ("http://u:p@a/", "must not have credentials"),
        ("http://[v1.x]/", "no host, or host:port"),
        ("http://a:b/", "no host, or host:port"),
        ("http://a%zz/", "no host, or host:port"),
    ],
    ids=lambda value: f"E11-{value}" if "/" in value else "",
)
async def test_an_absolute_url_whose_authority_is_odd_is_refused(url, text):
    async with nothing_sent() as conn:
        with pytest.raises(InvalidURL, match=text) as caught:
            await conn.request("GET", url)
        assert "u:p" not in str(caught.value)


@pytest.mark.parametrize("host", [" example.com", "[v1.x]", "[::1", "::1]", "[a]b", "[::1]x"])
def test_an_odd_host_is_refused_E11(host):
    with pytest.raises(InvalidURL):
        HTTPConnection(host)


async def test_a_zone_is_not_sent_E11(tmp_path):
    path = tmp_path / "socket"
    async with ScriptedServer([*[expect(), send(HELLO)] * 2], path=path) as server:
        async with HTTPConnection("[fe80::1%25eth0]:8080", uds=str(path)) as conn:
            assert conn.host == "fe80::1%25eth0"
            await conn.request("GET", "/")
            await (await conn.getresponse()).read()
            await conn.request("GET", "http://[fe80::2%25eth0]:8081/")
            await (await conn.getresponse()).read()
        assert b"\r\nHost: [fe80::1]:8080\r\n" in server.heads[0]
        assert b"\r\nHost: [fe80::2]:8081\r\n" in server.heads[1]


# H and F: what a server can send


OK = b"HTTP/1.1 200 OK\r\n"

FAILS = {
    "H2-bare-cr-in-a-value": (
        OK + b"A: b\rc\r\nContent-Length: 0\r\n\r\n",
        MalformedResponse,
        "a CR inside a line",
    ),
    "H2-bare-cr-in-the-status-line": (
        b"HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n",
        BadStatusLine,
        "not a status line",
    ),
    "H2-bare-cr-before-the-blank-line": (
        OK + b"Content-Length: 0\r\n\r\r\n\r\n",
        MalformedResponse,
        "a CR inside a line",
    ),
    "H2-bare-cr-before-a-cr-at-the-end": (
        OK + b"A: b\rc\r\r\nContent-Length: 0\r\n\r\n",
        MalformedResponse,
        "a CR inside a line",
    ),
    "H3-nul-in-a-value": (
        OK + b"A: \0\r\nContent-Length: 0\r\n\r\n",
        MalformedResponse,
        "a NUL byte in the head",
    ),
    "H3-nul-in-a-name": (
        OK + b"A\0: b\r\nContent-Length: 0\r\n\r\n",
        MalformedResponse,
        "a NUL byte in the head",
    ),
    "H4-framing-on-a-line-without-a-colon": (
        OK + b"Transfer-Encoding chunked\r\n\r\n",
        MalformedResponse,
        "transfer-encoding on a malf",
    ),
    "H4-framing-in-a-name-with-a-space": (
        OK + b"X Content-Length: 0\r\n\r\n",
        MalformedResponse,
        "content-length on a malformed line",
    ),
    "H5-space-before-the-colon": (
        OK + b"Content-Length : 0\r\n\r\n",
        MalformedResponse,
        "content-length on a malformed line",
    ),
    "H5-tab-before-the-colon": (
        OK + b"Transfer-Encoding\t: chunked\r\n\r\n",
        MalformedResponse,
        "transfer-encoding on a malformed line",
    ),
    "H6-fold-inside-a-content-length": (
        OK + b"Content-Length: 1\r\n 0\r\n\r\n",
        MalformedResponse,
        "Content-Length must be 1 to 19 digits, got '1 0'",
    ),
    "H6-fold-of-a-list-of-codings": (
        OK + b"Transfer-Encoding: gzip,\r\n chunked\r\n\r\n",
        UnknownTransferEncoding,
        "cannot read Transfer-Encoding: gzip, chunked",
    ),
    "H6-framing-in-the-fold-of-a-malformed-line": (
        OK + b"nonsense\r\n Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
        MalformedResponse,
        "transfer-encoding on a malformed line",
    ),
    "H7-blank-line-after-the-status-line": (
        OK + b" \r\nContent-Length: 0\r\n\r\n",
        MalformedResponse,
        "starts with a blank",
    ),
    "H7-field-behind-a-blank": (
        OK + b"\tContent-Length: 0\r\n\r\n",
        MalformedResponse,
        "starts with a blank",
    ),
    **{
        f"H8-{line.decode()}": (
            line + b"\r\nContent-Length: 0\r\n\r\n",
            BadStatusLine,
            "not a status line: " + line.decode().replace("\t", r"\x09"),
        )
        for line in (
            b"HTTP/1.1  200 OK",
            b"HTTP/1.1\t200 OK",
            b"HTTP/1.1 20 OK",
            b"HTTP/1.1 2000 OK",
            b"HTTP/1.1 -20 OK",
            b"HTTP/01.1 200 OK",
            b"HTTP/1.10 200 OK",
            b"HTTP/1.1.1 200 OK",
            b"http/1.1 200 OK",
            b"HTTP/ 200 OK",
            b"HTTP 200 OK",
            b"HTTP/1.1 OK",
            b"HTTP/1.1",
            b"200 OK",
            b" HTTP/1.1 200 OK",
            b"HTTP/1.1 2.0 OK",
        )
    },
    "H8-HTTP/2.0": (b"HTTP/2.0 200 OK\r\n\r\n", UnknownProtocol, "unknown protocol: HTTP/2.0"),
    "H9-http-0.9": (b"<html>\r\nhi\r\n\r\n", BadStatusLine, "not a status line: <html>"),
    "H14-101-that-nobody-asked-for": (
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        MalformedResponse,
        "101 although the request did not ask to upgrade",
    ),
    "F1-two-lengths": (
        OK + b"Content-Length: 2\r\nContent-Length: 0\r\n\r\nhi",
        MalformedResponse,
        "more than one Content-Length: '2, 0'",
    ),
    "F1-two-lengths-in-a-list": (
        OK + b"Content-Length: 42, 30\r\n\r\n",
        MalformedResponse,
        "more than one Content-Length",
    ),
    "F2-lengths-spelt-differently": (
        OK + b"Content-Length: 042,42\r\n\r\n",
        MalformedResponse,
        "more than one Content-Length: '042, 42'",
    ),
    **{
        f"F3-{value.decode('latin-1')}": (
            OK + b"Content-Length: " + value + b"\r\n\r\n",
            MalformedResponse,
            "Content-Length must be 1 to 19 digits",
        )
        for value in (
            b"-1",
            b"+5",
            b"0x10",
            b"1_000",
            b"5 5",
            b"\xd9\xa3",
            b"\xb2",
            b"",
            b"1e3",
            b"1;2",
            b"18446744073709551616",
        )
    },
    **{
        f"{row}-{value.decode()}": (
            OK + b"Content-Length: 2\r\nTransfer-Encoding: " + value + b"\r\n\r\nhi",
            UnknownTransferEncoding,
            f"cannot read Transfer-Encoding: {value.decode()}",
        )
        for row, value in (
            ("F5", b"gzip"),
            ("F5", b"chunked, identity"),
            ("F5", b"xchunked"),
            ("F5", b"chunked;x"),
            ("F6", b"gzip, chunked"),
            ("F6", b"deflate, gzip, chunked"),
            ("F7", b"chunked, chunked, gzip"),
        )
    },
    "F8-gzip-in-http-1.0": (
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        UnknownTransferEncoding,
        "cannot read Transfer-Encoding: gzip in an HTTP/1.0 response",
    ),
    **{
        f"F9-{size.decode('latin-1')}": (
            CHUNKED + size + b"\r\nhello\r\n0\r\n\r\n",
            IncompleteRead,
            "not a chunk-size line",
        )
        for size in (
            b"",
            b"-5",
            b"+5",
            b"0x5",
            b"0_5",
            b" 5",
            b"5 5",
            b"0" * 17 + b"5",
            b"\xd9\xa5",
            b"5h",
        )
    },
    "F10-text-after-a-size": (
        CHUNKED + b"5 a\r\nhello\r\n0\r\n\r\n",
        IncompleteRead,
        "not a chunk-size line",
    ),
    "F11-bare-lf-after-a-size": (
        CHUNKED + b"5\nhello\r\n0\r\n\r\n",
        IncompleteRead,
        "not a chunk-size line: b'5\\n'",
    ),
    "F11-bare-lf-after-a-chunk": (
        CHUNKED + b"5\r\nhello\n0\r\n\r\n",
        IncompleteRead,
        "must be followed by CRLF",
    ),
    "F11-other-bytes-after-a-chunk": (
        CHUNKED + b"5\r\nhelloXX0\r\n\r\n",
        IncompleteRead,
        "must be followed by CRLF",
    ),
    "F11-bare-lf-at-the-end": (
        CHUNKED + b"5\r\nhello\r\n0\r\n\n",
        IncompleteRead,
        "must end with CRLF",
    ),
    **{
        f"F12-{char!a}-in-an-extension": (
            CHUNKED + b"5;a" + char + b"b\r\nhello\r\n0\r\n\r\n",
            IncompleteRead,
            "not a chunk-size line",
        )
        for char in (b"\r", b"\n", b"\0", b"\x01", b"\x7f")
    },
    "F16-nul-in-a-trailer": (CHUNKED + b"0\r\nA: \0\r\n\r\n", IncompleteRead, "a NUL byte"),
    "F16-framing-on-a-malformed-trailer": (
        CHUNKED + b"0\r\nContent-Length : 5\r\n\r\n",
        IncompleteRead,
        "on a malformed line",
    ),
    "F16-too-many-trailers": (
        CHUNKED + b"0\r\n" + b"A: b\r\n" * 101 + b"\r\n",
        IncompleteRead,
        "got more than 100 trailers",
    ),
}


@pytest.mark.parametrize("piece", [0, 1], ids=["whole", "byte-by-byte"])
@pytest.mark.parametrize(
    ("wire", "kind", "text"),
    [pytest.param(*case, id=ascii(name).strip("'")) for name, case in FAILS.items()],
)
async def test_what_fails(wire, kind, text, piece):
    pieces = [wire] if not piece else [wire[i : i + 1] for i in range(len(wire))]
    answers = Answers(pieces)
    async with ScriptedServer(answers) as server, HTTPConnection(*server.address) as conn:
        await conn.request("GET", "/secret")
        with pytest.raises(HTTPException) as caught:
            response = await conn.getresponse()
            await response.read()
        assert isinstance(caught.value, kind)
        assert text in str(caught.value)
        # Aborted at once: nothing that still arrives is ever read.
        assert conn.sock is None
        assert not await answers.reused(conn, server)


ACCEPTED = {
    "H1-bare-lf": (b"HTTP/1.1 200 OK\nA: b\nContent-Length: 2\n\nhi", "OK", {"A": "b"}),
    "H3-control-characters": (
        OK + b"A: b\x01c\r\nContent-Length: 2\r\n\r\nhi",
        "OK",
        {"A": "b\x01c"},
    ),
    "H4-name-with-a-space": (OK + b"A B: c\r\nContent-Length: 2\r\n\r\nhi", "OK", {"A B": None}),
    "H4-empty-name": (OK + b": c\r\nContent-Length: 2\r\n\r\nhi", "OK", {"": None}),
    "H4-no-colon": (OK + b"c\r\nContent-Length: 2\r\n\r\nhi", "OK", {"c": None}),
    "H5-space-before-a-colon": (OK + b"A : c\r\nContent-Length: 2\r\n\r\nhi", "OK", {"A": None}),
    "H2-cr-before-a-lines-end": (
        b"HTTP/1.1 200 OK\r\r\nX-Sum: ten\r\r\nContent-Length: 2\r\r\n\r\nhi",
        "OK",
        {"X-Sum": "ten", "Content-Length": "2"},
    ),
    "H2-cr-before-a-trailers-end": (
        CHUNKED + b"2\r\nhi\r\n0\r\nX-Sum: ten\r\r\n\r\n",
        "OK",
        {"X-Sum": None},
    ),
    "H6-fold": (OK + b"A: b\r\n\t c\r\nContent-Length: 2\r\n\r\nhi", "OK", {"A": "b c"}),
    "H6-fold-on-content-length": (
        OK + b"Content-Length:\r\n 2\r\n\r\nhi",
        "OK",
        {"Content-Length": "2"},
    ),
    "H6-fold-on-transfer-encoding": (
        OK + b"Transfer-Encoding:\r\n chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "OK",
        {"Transfer-Encoding": "chunked"},
    ),
    "H6-framing-inside-a-folded-value": (
        OK + b"A: b\r\n Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nhi",
        "OK",
        {"A": "b Transfer-Encoding: chunked", "Transfer-Encoding": None},
    ),
    "H6-fold-in-a-trailer": (
        CHUNKED + b"2\r\nhi\r\n0\r\nConnection:\r\n close\r\n\r\n",
        "OK",
        {"Connection": None},
    ),
    "H8-http-1.2": (b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nhi", "OK", {}),
    "H11-crlf-before-the-status-line": (b"\r\n" + HELLO, "OK", {}),
    "H11-lf-before-the-status-line": (b"\n\r\n" + HELLO, "OK", {}),
    "H10-no-reason": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", "", {}),
    "H10-space-without-a-reason": (b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nhi", "", {}),
    "H10-obs-text": (b"HTTP/1.1 200 \xc3\x9f\r\nContent-Length: 2\r\n\r\nhi", "\xc3\x9f", {}),
    "H10-control-characters": (b"HTTP/1.1 200 a\x1bb\r\nContent-Length: 2\r\n\r\nhi", "ab", {}),
    "F2-equal-lengths": (OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi", "OK", {}),
    "F2-equal-lengths-in-a-list": (OK + b"Content-Length: 2, 2\r\n\r\nhi", "OK", {}),
    "F10-blanks-after-a-size": (CHUNKED + b"2 \t\r\nhi\r\n0  \r\n\r\n", "OK", {}),
    "F16-trailers-never-frame": (
        CHUNKED + b"2\r\nhi\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\n\r\n",
        "OK",
        {"Content-Length": None, "Transfer-Encoding": "chunked"},
    ),
}


NO_STATUS_LINES = [
    b"<html>hi</html>",
    b"HTTP/0.9 200 OK",
    b"HTTP/1.1  200 OK",
    b"HTTP/1.1  2",
    b"220 mail",
]


@pytest.mark.parametrize("wire", NO_STATUS_LINES, ids=lambda wire: f"H8-H9-{wire.decode()}")
@pytest.mark.parametrize("line_end", [b"", b"\r", b"\n", b"\r\n"])
@pytest.mark.parametrize("early", [False, True], ids=["in-time", "during-the-upload"])
async def test_no_status_line_is_told_as_such_even_where_it_is_cut_or_early(wire, line_end, early):
    async def body():
        yield b"x" * 1000
        await asyncio.Event().wait()

    for _, pieces in named_deliveries(wire + line_end, splits=2):
        async with ScriptedServer([expect(), send(*pieces), close()]) as server:
            async with HTTPConnection(*server.address) as conn:
                with pytest.raises(BadStatusLine) as caught:
                    await conn.request("POST", "/", body() if early else b"x")
                    await conn.getresponse()
                assert not isinstance(caught.value, RemoteDisconnected)
                assert caught.value.line == wire.decode()
                assert f"not a status line: {wire.decode()} (" in str(caught.value)


@pytest.mark.parametrize("size", range(1, 18))
async def test_a_status_line_that_is_cut_is_no_bad_one(size):
    async with ScriptedServer([expect(), send(b"HTTP/1.1 404 Nope"[:size]), close()]) as server:
        async with HTTPConnection(*server.address) as conn:
            await conn.request("GET", "/")
            with pytest.raises(RemoteDisconnected, match="in the middle of the response's head"):
                await conn.getresponse()


@pytest.mark.parametrize("piece", [0, 1], ids=["whole", "byte-by-byte"])
@pytest.mark.parametrize(
    ("wire", "reason", "fields"), [pytest.param(*case, id=name) for name, case in ACCEPTED.items()]
)
async def test_what_is_accepted(wire, reason, fields, piece):
    pieces = [wire] if not piece else [wire[i : i + 1] for i in range(len(wire))]
    answers = Answers(pieces)
    async with ScriptedServer(answers) as server, HTTPConnection(*server.address) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert (response.status, response.reason, response.version) == (200, reason, 11)
        assert {name: response.getheader(name) for name in fields} == fields
        assert await response.read() == b"hi"
        assert await answers.reused(conn, server)


@pytest.mark.parametrize(
    "stray", [b"\r\n", b"\n", b"x", GARBAGE], ids=["H11-crlf", "H11-lf", "F17-byte", "F17-response"]
)
async def test_bytes_while_idle_close_the_connection(stray):
    answers = Answers([HELLO, stray])
    async with ScriptedServer(answers) as server, HTTPConnection(*server.address) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert await response.read() == b"hi"
        await answers.sent.wait()
        assert conn.sock is None
        assert not await answers.reused(conn, server)


# Each: what is sent again and again, the error, and how many bytes may be taken before it.
ENDLESS = {
    "H12-a-line": (OK, b"x" * 1000, LineTooLong, "got more than 65536 bytes when reading header"),
    "H12-a-status-line": (b"", b"HTTP/1.1 200 " + b"x" * 1000, LineTooLong, "reading status line"),
    "H12-fields": (OK, b"A: b\r\n", HTTPException, "got more than 100 headers"),
    "H12-long-fields": (
        OK,
        b"A: " + b"b" * 60_000 + b"\r\n",
        LineTooLong,
        "262144 bytes when reading the head",
    ),
    "H12-folds": (OK + b"A: b\r\n", b" c\r\n", HTTPException, "got more than 100 headers"),
    "H12-nonsense": (OK, b"nonsense\r\n", HTTPException, "got more than 100 headers"),
    "H13-interim-responses": (
        b"",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        HTTPException,
        "more than 100 interim responses",
    ),
    "H13-large-interim-responses": (
        b"",
        b"HTTP/1.1 103 Hints\r\nA: " + b"b" * 20_000 + b"\r\n\r\n",
        LineTooLong,
        "262144 bytes when reading the head",
    ),
    "F12-extensions": (
        CHUNKED,
        b"1;" + b"a" * 4000 + b"\r\nx\r\n",
        IncompleteRead,
        "bytes of framing with chunk extensions for",
    ),
    "F12-an-extension": (CHUNKED + b"1;", b"a" * 1000, IncompleteRead, "line of more than 4096"),
    "F9-a-size": (CHUNKED, b"0" * 1000, IncompleteRead, "a chunk-size line of more than 4096"),
    "F16-trailers": (CHUNKED + b"0\r\n", b"A: b\r\n", IncompleteRead, "more than 100 trailers"),
    "F16-a-trailer": (CHUNKED + b"0\r\nA: ", b"b" * 1000, IncompleteRead, "more than 65536 bytes"),
}


@pytest.mark.parametrize(
    ("start", "again", "kind", "text"),
    [pytest.param(*case, id=name) for name, case in ENDLESS.items()],
)
async def test_what_never_ends_is_cut_off(start, again, kind, text):
    async def flood(conn):
        await conn.read_head()
        await conn.send(start)
        while True:
            await conn.send(again)
            await asyncio.sleep(0)

    async with ScriptedServer(flood) as server, HTTPConnection(*server.address) as conn:
        await conn.request("GET", "/")
        with pytest.raises(kind, match=text):
            response = await conn.getresponse()
            await response.read()
        assert conn.sock is None
        # The server has seen the abort: nobody reads on.
        await server.conns[0].wait_ended()


async def test_a_hundred_interim_responses_share_one_heads_budget_H13(scripted):
    hints = b"HTTP/1.1 103 Hints\r\nA: bbbbbbbbbb\r\n\r\n"
    for final in (HELLO, *[[hints, HELLO[:i], HELLO[i:]] for i in (1, 20, 38)]):
        pieces = [hints, final] if isinstance(final, bytes) else final
        enough = Limits(max_head_bytes=len(hints) + len(HELLO) - 2)
        async with scripted(pieces, limits=enough) as conn:
            await conn.request("GET", "/")
            assert (await conn.getresponse()).status == 200
        too_few = Limits(max_head_bytes=len(hints) + len(HELLO) - 3)
        async with scripted(pieces, limits=too_few) as conn:
            await conn.request("GET", "/")
            with pytest.raises(LineTooLong, match="bytes when reading the head"):
                await conn.getresponse()


UPGRADE = b"HTTP/1.1 101 Switching\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([UPGRADE + b"leftover"], id="H14-leftover-in-the-same-read"),
        pytest.param([UPGRADE[:-1], UPGRADE[-1:] + b"leftover"], id="H14-leftover-behind-a-split"),
    ],
)
async def test_101_that_was_asked_for_gives_the_raw_stream(pieces):
    class Echo(asyncio.Protocol):
        def __init__(self):
            self.got = asyncio.get_running_loop().create_future()

        def data_received(self, data):
            self.got.set_result(data)

    script = [expect(), send(*pieces), expect(b"ping"), send(b"pong")]
    async with ScriptedServer(script) as server, HTTPConnection(*server.address) as conn:
        await conn.request("GET", "/", headers={"Upgrade": "echo", "Connection": "upgrade"})
        response = await conn.getresponse()
        assert (response.status, await response.read()) == (101, b"")
        transport, leftover = conn.detach()
        assert leftover == b"leftover"
        echo = Echo()
        transport.set_protocol(echo)
        transport.resume_reading()
        transport.write(b"ping")
        assert await echo.got == b"pong"
        transport.abort()


FRAMING = {
    "nonsense": b"Content-Length: x\r\n",
    "an-odd-coding": b"Transfer-Encoding: y\r\n",
    "a-length": b"Content-Length: 5\r\n",
    "two-lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n",
    "chunked": b"Transfer-Encoding: chunked\r\n",
}


@pytest.mark.parametrize("fields", FRAMING.values(), ids=FRAMING)
@pytest.mark.parametrize(
    ("method", "status"),
    [("GET", 204), ("GET", 304), ("HEAD", 200), ("HEAD", 404), ("GET", 103), ("GET", 199)],
    ids=lambda value: f"H15-{value}" if isinstance(value, str) else None,
)
async def test_framing_fields_of_a_response_without_content_are_ignored(method, status, fields):
    wire = b"HTTP/1.1 %d X\r\n" % status + fields + b"\r\n"
    if status < 200:
        wire += b"HTTP/1.1 204 X\r\n\r\n"
    for _, pieces in named_deliveries(wire, splits=2):
        answers = Answers(pieces)
        async with ScriptedServer(answers) as server, HTTPConnection(*server.address) as conn:
            await conn.request(method, "/")
            response = await conn.getresponse()
            assert response.status == (status if status >= 200 else 204)
            assert await response.read() == b""
            assert (response.complete, response.chunked, response.length) == (True, False, 0)
            # A 204 that announces a body may have one.
            assert await answers.reused(conn, server) == (status != 204)


@pytest.mark.parametrize("fields", [b"", *FRAMING.values()], ids=["none", *FRAMING])
async def test_framing_fields_of_a_2xx_to_connect_are_ignored_H15(fields):
    wire = b"HTTP/1.1 200 Yes\r\n" + fields + b"\r\n"
    whole = [("leftover", [wire + b"raw"]), ("split", [wire[:-1], wire[-1:] + b"raw"])]
    for _, pieces in [*whole, *named_deliveries(wire, splits=2)]:
        async with ScriptedServer([expect(), send(*pieces)]) as server:
            async with HTTPConnection(*server.address) as conn:
                await conn.request("CONNECT", "example.com:443")
                response = await conn.getresponse()
                assert (response.status, await response.read()) == (200, b"")
                assert (response.chunked, response.length) == (False, 0)
                assert not response.will_close
                transport, leftover = conn.detach()
                assert leftover == (b"raw" if pieces[-1].endswith(b"raw") else b"")
                transport.abort()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("coding", [b"chunked", b"identity", b"Identity\r\r", b"\r\n identity"])
async def test_both_framing_fields_cost_the_connection_F4(coding, method):
    body = {b"GET": b"2\r\nhi\r\n0\r\n\r\n" if coding == b"chunked" else b"hi"}.get(
        method.encode(), b""
    )
    for order in (
        b"Content-Length: 2\r\nTransfer-Encoding:%b\r\n",
        b"Transfer-Encoding:%b\r\nContent-Length: 2\r\n",
    ):
        wire = OK + order % coding + b"\r\n" + body
        for _, pieces in named_deliveries(wire, splits=4):
            answers = Answers(pieces)
            async with ScriptedServer(answers) as server, HTTPConnection(*server.address) as conn:
                await conn.request(method, "/")
                response = await conn.getresponse()
                assert await response.read() == (b"hi" if body else b"")
                assert (response.will_close, response.complete) == (True, True)
                assert not await answers.reused(conn, server)


@pytest.mark.parametrize("value", [b"\r\n   close", b"x,\r\n\tClose", b"keep-alive\r\r\n , close"])
async def test_a_folded_close_is_obeyed_H6(value):
    wire = OK + b"Connection: " + value + b"\r\nContent-Length: 2\r\n\r\nhi"
    for _, pieces in named_deliveries(wire):
        answers = Answers(pieces)
        async with ScriptedServer(answers) as server, HTTPConnection(*server.address) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            assert await response.read() == b"hi"
            assert response.will_close
            assert not await answers.reused(conn, server)


async def test_chunked_wins_over_a_length_and_closes_F4():
    for order in (
        b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
    ):
        wire = OK + order + b"\r\n5\r\nhello\r\n0\r\n\r\n"
        for _, pieces in named_deliveries(wire, splits=4):
            answers = Answers(pieces)
            async with ScriptedServer(answers) as server, HTTPConnection(*server.address) as conn:
                await conn.request("GET", "/")
                response = await conn.getresponse()
                assert await response.read() == b"hello"
                assert response.will_close
                assert not await answers.reused(conn, server)


@pytest.mark.parametrize("read", [lambda r: r.read(), lambda r: r.read(10**15)], ids=["all", "amt"])
@pytest.mark.parametrize(
    "head",
    [
        pytest.param(OK + b"Content-Length: 999999999999999999\r\n\r\n", id="F13-length"),
        pytest.param(CHUNKED + b"FFFFFFFFFFFFFFFF\r\n", id="F13-chunk"),
    ],
)
async def test_an_announced_size_allocates_nothing(head, read):
    async with ScriptedServer(
        [expect(), send(head, b"x" * 100, b"y" * 100_000), close()]
    ) as server:
        async with HTTPConnection(*server.address) as conn:
            await conn.request("GET", "/")
            tracemalloc.start()
            try:
                response = await conn.getresponse()
                data = b""
                with contextlib.suppress(IncompleteRead):
                    data = await read(response)
                with pytest.raises(IncompleteRead) as caught:
                    await response.read()
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert len(data) + len(caught.value.partial) in (100_100, 0)
            # A fixed step of the reader's (2 MiB), whatever is announced, and the test's own.
            assert peak < 20 * 2**20


@pytest.mark.parametrize(
    ("wire", "partial"),
    [
        pytest.param(OK + b"Content-Length: 5\r\n\r\nhe", b"he", id="F14-in-the-body"),
        pytest.param(OK + b"Content-Length: 5\r\n\r\n", b"", id="F14-before-the-body"),
        pytest.param(CHUNKED, b"", id="F14-before-the-first-chunk"),
        pytest.param(CHUNKED + b"5\r\nhe", b"he", id="F14-in-a-chunk"),
        pytest.param(CHUNKED + b"2\r\nhe", b"he", id="F14-after-chunk-data"),
        pytest.param(CHUNKED + b"2\r\nhe\r\n", b"he", id="F14-before-the-last-chunk"),
        pytest.param(CHUNKED + b"2\r\nhe\r\n0", b"he", id="F14-in-the-last-chunk"),
    ],
)
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_the_end_inside_a_body(wire, partial, end):
    answers = Answers(wire, end=end)
    async with ScriptedServer(answers) as server, HTTPConnection(*server.address) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        with pytest.raises(IncompleteRead) as caught:
            await response.read()
        assert caught.value.partial == partial
        assert response.isclosed()
        assert not response.complete
        assert not await answers.reused(conn, server)


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(b"0\r\n", id="F15-no-last-crlf"),
        pytest.param(b"0\r\n\r", id="F15-half-of-it"),
        pytest.param(b"0\r\nA: b\r\n", id="F15-after-a-trailer"),
        pytest.param(b"0\r\nA: b\r\n\r", id="F15-half-of-it-after-a-trailer"),
    ],
)
@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
async def test_the_end_before_the_last_crlf(rest, strict):
    answers = Answers(CHUNKED + b"2\r\nhi\r\n" + rest, end="close")
    async with ScriptedServer(answers) as server:
        async with HTTPConnection(*server.address, strict=strict) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            if strict:
                with pytest.raises(IncompleteRead):
                    await response.read()
            else:
                assert await response.read() == b"hi"
                assert response.trailers.items() == ([("A", "b")] if b"A" in rest else [])
            assert response.complete != strict
            assert not await answers.reused(conn, server)


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(b"0\r\nA", id="F15-in-a-name"),
        pytest.param(b"0\r\nA: b", id="F15-in-a-value"),
        pytest.param(b"0\r\nA: b\r", id="F15-in-its-line-end"),
        pytest.param(b"0\r\nA: b\r\nC: d", id="F15-in-the-second-trailer"),
        pytest.param(b"0\r\nA: b\r\n c", id="F15-in-a-fold"),
    ],
)
@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
async def test_the_end_inside_a_trailer(rest, strict):
    wire = CHUNKED + b"2\r\nhi\r\n" + rest
    for _, pieces in named_deliveries(wire, splits=4):
        answers = Answers(pieces, end="close")
        async with ScriptedServer(answers) as server:
            async with HTTPConnection(*server.address, strict=strict) as conn:
                await conn.request("GET", "/")
                response = await conn.getresponse()
                with pytest.raises(IncompleteRead) as caught:
                    await response.read()
                assert caught.value.partial == b"hi"
                assert not response.complete
                assert not await answers.reused(conn, server)


async def test_trailers_are_kept_apart_F16(scripted):
    wire = CHUNKED + b"2\r\nhi\r\n0\r\nSet-Cookie: a=b\r\nContent-Length: 9\r\n\r\n"
    async with scripted(wire) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert await response.read() == b"hi"
        assert response.trailers.items() == [("Set-Cookie", "a=b"), ("Content-Length", "9")]
        assert response.getheaders() == [("Transfer-Encoding", "chunked")]


WHOLE = {
    "length": (HELLO, "GET", b"hi"),
    "chunked": (CHUNKED + b"2\r\nhi\r\n0\r\n\r\n", "GET", b"hi"),
    "trailers": (CHUNKED + b"2\r\nhi\r\n0\r\nA: b\r\n\r\n", "GET", b"hi"),
    "empty": (OK + b"Content-Length: 0\r\n\r\n", "GET", b""),
    "head": (HELLO[:-2], "HEAD", b""),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", "GET", b""),
    "304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "GET", b""),
}


@pytest.mark.parametrize("name", WHOLE)
async def test_bytes_after_a_response_poison_the_connection_F17_F18(name):
    # Poisoning: httpcore hands this injected response to the next request.
    wire, method, body = WHOLE[name]
    for param in with_trailing_garbage(wire):
        answers = Answers(param.values[0])
        async with ScriptedServer(answers) as server, HTTPConnection(*server.address) as conn:
            await conn.request(method, "/")
            response = await conn.getresponse()
            assert await response.read() == body
            assert response.complete
            await answers.sent.wait()
            assert conn.sock is None
            assert not await answers.reused(conn, server)


@pytest.mark.parametrize("fields", FRAMING.values(), ids=FRAMING)
async def test_the_framing_of_a_granted_tunnel_is_ignored_F19(fields):
    reply = b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n"
    async with ScriptedServer([expect(), send(HELLO)]) as server:
        routes = {"example.com:80": server.address}
        async with ConnectProxy(routes=routes, reply=reply) as proxy:
            async with HTTPConnection(*proxy.address) as conn:
                conn.set_tunnel("example.com", 80)
                await conn.request("GET", "/")
                assert await (await conn.getresponse()).read() == b"hi"


async def test_bytes_before_tls_in_a_tunnel_are_an_injection_F19(certificates):
    async with ScriptedServer([read_all()], tls=certificates.server) as server:
        routes = {"localhost:443": server.address}
        async with ConnectProxy(routes=routes, leftover=HELLO) as proxy:
            async with HTTPSConnection(*proxy.address, context=certificates.client) as conn:
                conn.set_tunnel("localhost", 443)
                with pytest.raises(OSError, match="the proxy sent more than its answer to CONNECT"):
                    await conn.request("GET", "/secret")
        assert b"secret" not in b"".join(server.received)


async def test_a_refused_tunnel_is_never_the_origins_answer_F20():
    refuse = b"HTTP/1.1 403 No\r\nContent-Length: 5\r\nSet-Cookie: evil=1\r\n\r\nfalse" + HELLO
    async with ConnectProxy(refuse=refuse) as proxy, HTTPConnection(*proxy.address) as conn:
        conn.set_tunnel("example.com", 80)
        with pytest.raises(OSError, match="Tunnel connection failed: 403 No") as caught:
            await conn.request("GET", "/", headers={"Cookie": "secret"})
        assert caught.value.body == b"false"
        assert conn.sock is None
        with pytest.raises(HTTPException):
            await conn.getresponse()
        assert b"secret" not in b"".join(proxy.received)


async def test_a_reply_before_the_request_poisons_the_connection_F21():
    # Sent before anything was asked: it is no answer to what is asked later.
    async def speak_first(conn):
        await conn.send(GARBAGE)
        with contextlib.suppress(ClientGone):
            await conn.let_client_read()
        spoken.set()
        await conn.read_all()

    spoken = asyncio.Event()
    async with ScriptedServer(speak_first, [expect(), send(HELLO)]) as server:
        async with HTTPConnection(*server.address) as conn:
            await conn.connect()
            await spoken.wait()
            await conn.request("GET", "/")
            assert (await conn.getresponse()).status == 200
        assert server.connections == 2


async def test_responses_are_matched_in_order_F22():
    async def both(conn):
        await conn.read_head()
        await conn.send(OK + b"Content-Length: 3\r\n\r\n")
        await conn.read_head()
        await conn.send(b"one" + OK + b"Content-Length: 3\r\n\r\ntwo")

    async with ScriptedServer(both) as server, HTTPConnection(*server.address) as conn:
        await conn.request("GET", "/1")
        first = await conn.getresponse()
        await conn.request("GET", "/2")
        assert await first.read() == b"one"
        assert await (await conn.getresponse()).read() == b"two"
        assert server.connections == 1


async def test_pipelined_responses_in_one_read_F22():
    responses = [OK + b"Content-Length: 3\r\n\r\none", CHUNKED + b"3\r\ntwo\r\n0\r\n\r\n", HELLO]
    wire = b"".join(responses)
    loop = asyncio.get_running_loop()
    for _, pieces in named_deliveries(wire):
        sent = asyncio.Event()
        script = [expect(), expect(), expect(), send(*pieces, b"!"), notify(sent), read_all()]
        async with ScriptedServer(script) as server:
            transport, protocol = await loop.create_connection(
                lambda: HTTP1Protocol(loop), *server.address
            )
            exchanges = [
                protocol.start("GET", path, b"GET %b HTTP/1.1\r\n\r\n" % path.encode(), True)
                for path in ("/1", "/2", "/3")
            ]
            await sent.wait()
            assert [response.complete for response in exchanges] == [True, True, True]
            assert [await response.read() for response in exchanges] == [b"one", b"two", b"hi"]
            await server.conns[0].wait_ended()
            assert transport.is_closing()


async def test_more_responses_than_requests_F22():
    async def three(conn):
        await conn.read_head()
        await conn.send(OK + b"Content-Length: 3\r\n\r\n")
        await conn.read_head()
        await conn.send(b"one" + OK + b"Content-Length: 3\r\n\r\ntwo" + GARBAGE)
        await conn.read_all()

    async with ScriptedServer(three, [expect(), send(HELLO)]) as server:
        async with HTTPConnection(*server.address) as conn:
            await conn.request("GET", "/1")
            first = await conn.getresponse()
            await conn.request("GET", "/2")
            assert await first.read() == b"one"
            assert await (await conn.getresponse()).read() == b"two"
            await conn.request("GET", "/3")
            assert await (await conn.getresponse()).read() == b"hi"
        assert server.connections == 2


# T: time and resources


async def test_a_tls_handshake_that_stalls_T1(certificates, ticking):
    # A plain server that never answers the ClientHello.
    async with ScriptedServer([read_all()]) as server:
        conn = HTTPSConnection(
            *server.address, context=certificates.client, timeout=Timeout(connect=0.02)
        )
        with pytest.raises(ConnectTimeout, match=r"not connected within 0\.02 s.*\(tls"):
            await conn.request("GET", "/")
        assert conn.sock is None


@pytest.mark.parametrize(
    "start",
    [b"HTTP/1.1 200 ", OK + b"Content-Length: 99999999\r\n\r\n"],
    ids=["T2-head", "T2-body"],
)
async def test_a_slow_drip_ends_with_the_total(start, ticking):
    async def drip(conn):
        await conn.read_head()
        await conn.send(start)
        while True:
            await conn.send(b"x")
            await conn.let_client_read()

    async with ScriptedServer(drip) as server:
        async with HTTPConnection(*server.address, timeout=Timeout(total=0.05, read=9)) as conn:
            await conn.request("GET", "/")
            with pytest.raises(TotalTimeout, match=r"did not end within 0\.05 s"):
                response = await conn.getresponse()
                await response.read()


SIZE = 64 * 2**20
STALLED_TURNS = 200
"""Turns of the loop in which a socket takes no byte: nobody reads at its other end."""


class Pump:
    """A script that sends as much as the client lets it, and counts."""

    def __init__(self, head: bytes, block: bytes, *, tls: bool) -> None:
        self.sent = 0
        self.stalled = asyncio.Event()
        self._head = head
        self._block = block
        self._tls = tls

    async def __call__(self, conn):
        await conn.read_head()
        await conn.send(self._head)
        idle = 0
        pending = b""
        while idle < STALLED_TURNS:
            if not pending:
                pending = self._block
                if self._tls:
                    conn.tls.write(pending)
                    pending = conn._outgoing.read()
            try:
                done = conn.sock.send(pending)
                pending = pending[done:]
                self.sent += done
                idle = 0
            except BlockingIOError:
                idle += 1
            except ConnectionError:
                return
            await asyncio.sleep(0)
        self.in_kernel = queued(conn.sock)
        self.stalled.set()


def queued(sock: socket.socket) -> int:
    """Return the bytes that *sock* has not handed over to its peer's kernel."""
    answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    return struct.unpack("i", answer)[0]


def unread(fd: int) -> int:
    """Return the bytes that wait in the kernel to be read."""
    return struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0"))[0]


@pytest.mark.skipif(fcntl is None, reason="asks the kernel how much it holds")
@pytest.mark.parametrize("high_water", [16 * 1024, 256 * 1024], ids=["T4-16k", "T4-256k"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("coding", ["length", "chunked", "until-the-end"])
async def test_a_reader_that_stops_stops_the_server(certificates, coding, tls, high_water):
    block = b"x" * 16_000
    head = OK + b"\r\n"
    if coding == "length":
        head = OK + b"Content-Length: %d\r\n\r\n" % SIZE
    elif coding == "chunked":
        head = CHUNKED
        block = b"%X\r\n%b\r\n" % (len(block), block)
    pump = Pump(head, block, tls=tls)
    async with ScriptedServer(pump, tls=certificates.server if tls else None) as server:
        kind, keywords = HTTPConnection, {}
        host = server.host
        if tls:
            kind, keywords, host = HTTPSConnection, {"context": certificates.client}, "localhost"
        async with kind(host, server.port, high_water=high_water, **keywords) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            # It reads a little, then no more.
            assert await response.read(1000) == b"x" * 1000
            await pump.stalled.wait()
            # TLS hands over a whole read of TCP's at once.
            most = high_water + (256 * 1024 if tls else 0)
            assert high_water // 2 <= response.buffered <= most
            taken = pump.sent - pump.in_kernel - unread(response.fileno())
            # Plus framing, TLS records, and what TLS has read and not handed over.
            assert taken <= 1000 + most + (256 * 1024 if tls else 1024)
            assert pump.sent < SIZE
            response.close()


@pytest.mark.skipif(fcntl is None, reason="asks the kernel how much it holds")
async def test_unread_bytes_of_an_idle_connection_are_bounded_T4():
    # A server that goes on after a whole response: the first stray byte ends it.
    pump = Pump(HELLO, GARBAGE * 1000, tls=False)
    async with ScriptedServer(pump) as server, HTTPConnection(*server.address) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert await response.read() == b"hi"
        await server.conns[0].wait_ended()
        assert conn.sock is None


@pytest.mark.parametrize("end", ["", "close", "reset"])
@pytest.mark.parametrize("chunked", [False, True], ids=["T7-bytes", "T7-async-iterable"])
async def test_an_early_refusal_stops_the_upload(end, chunked):
    sent = 0

    async def upload():
        nonlocal sent
        while True:
            sent += 16_000
            yield bytes(16_000)

    wire = b"HTTP/1.1 413 Too Much\r\nContent-Length: 4\r\n\r\nstop"
    answers = Answers(wire, end=end, head_only=True)
    async with ScriptedServer(answers) as server, HTTPConnection(*server.address) as conn:
        await conn.request("POST", "/", upload() if chunked else bytes(SIZE))
        response = await conn.getresponse()
        assert (response.status, await response.read()) == (413, b"stop")
        assert response.will_close
        assert sent < SIZE
        assert not await answers.reused(conn, server)
    assert len(server.received[0]) < SIZE


async def test_an_answer_that_a_failed_write_overtakes_T7():
    # Answer and RST are both in the kernel when the next block is written, before the loop reads.
    go = asyncio.Event()

    async def refuse(conn):
        await conn.read_head()
        await conn.read_exactly(len(b"5\r\nfirst\r\n"))
        conn.sock.send(b"HTTP/1.1 413 Too Much\r\nContent-Length: 4\r\n\r\nstop")
        conn.reset_now()
        go.set()

    async def upload():
        yield b"first"
        await go.wait()
        while True:
            yield bytes(16_000)

    async with ScriptedServer(refuse) as server, HTTPConnection(*server.address) as conn:
        await conn.request("POST", "/", upload())
        response = await conn.getresponse()
        assert (response.status, await response.read()) == (413, b"stop")
        assert response.complete
        assert conn.sock is None


@pytest.mark.parametrize("make", [blocks, lambda *items: iter(items)], ids=["T7-aiter", "T7-iter"])
async def test_an_upload_that_never_waits_leaves_the_loop_its_turns(make, scripted):
    # Otherwise it would not see an early answer, and no timeout would fire.
    turns = 0
    loop = asyncio.get_running_loop()

    def count():
        nonlocal turns, handle
        turns += 1
        handle = loop.call_soon(count)

    async with scripted(HELLO) as conn:
        await conn.connect()
        handle = loop.call_soon(count)
        await conn.request("POST", "/", make(*[b"x"] * 6400))
        handle.cancel()
        assert turns >= 100
        assert (await conn.getresponse()).status == 200


async def test_a_peer_that_ends_while_the_request_is_sent_T11():
    answers = Answers(b"", end="close", head_only=True)
    async with ScriptedServer(answers) as server, HTTPConnection(*server.address) as conn:
        with pytest.raises(RemoteDisconnected, match="closed connection without response"):
            await conn.request("POST", "/", bytes(SIZE))
            await conn.getresponse()
        assert not await answers.reused(conn, server)


EXPECT = {"Expect": "100-continue"}


async def test_expect_that_is_never_answered_T8():
    async with ScriptedServer([expect_request(), send(HELLO)]) as server:
        async with HTTPConnection(*server.address, continue_timeout=0.01) as conn:
            await conn.request("POST", "/", b"body", EXPECT)
            assert (await conn.getresponse()).status == 200
        assert server.received[0].endswith(b"\r\n\r\nbody")


async def test_expect_that_is_answered_with_100_T8():
    script = [expect(), send(b"HTTP/1.1 100 Continue\r\n\r\n"), expect(4), send(HELLO)]
    async with ScriptedServer([*script, expect(), send(AGAIN)]) as server:
        async with HTTPConnection(*server.address, continue_timeout=1000) as conn:
            await conn.request("POST", "/", b"body", EXPECT)
            response = await conn.getresponse()
            assert (response.status, await response.read()) == (200, b"hi")
            await conn.request("GET", "/")
            assert await (await conn.getresponse()).read() == b"again"
        assert server.connections == 1


@pytest.mark.parametrize("split", [False, True], ids=["whole", "its-body-later"])
@pytest.mark.parametrize("status", [200, 302, 401, 417, 500], ids=lambda status: f"T8-{status}")
async def test_a_final_status_instead_of_100(status, split):
    # Go's CVE-2024-24791: the connection must not be used again, and the body not be sent.
    head = b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\n" % status
    answers = Answers([head, b"no"] if split else head + b"no", head_only=True)
    async with ScriptedServer(answers) as server:
        async with HTTPConnection(*server.address, continue_timeout=1000) as conn:
            await conn.request("POST", "/", b"body", EXPECT)
            response = await conn.getresponse()
            assert (response.status, await response.read()) == (status, b"no")
            assert not await answers.reused(conn, server)
        assert server.received[0].endswith(b"\r\n\r\n")


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("end", ["T10-reset", "T11-close"])
async def test_the_end_after_a_whole_response(name, end):
    wire, method, body = WHOLE[name]
    answers = Answers(wire, end=end[4:])
    async with ScriptedServer(answers) as server, HTTPConnection(*server.address) as conn:
        await conn.request(method, "/")
        response = await conn.getresponse()
        await answers.sent.wait()
        assert await response.read() == body
        assert response.complete
        assert not await answers.reused(conn, server)


@pytest.mark.parametrize("end", ["T10-reset", "T11-close"])
async def test_the_end_while_reading_is_paused_loses_nothing(end):
    # The unread bytes lie in the client's kernel: RST and FIN must not overtake them.
    body = bytes(range(256)) * 128
    answers = Answers(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body, end=end[4:])
    async with ScriptedServer(answers) as server:
        async with HTTPConnection(*server.address, high_water=4096) as conn:
            await conn.request("GET", "/")
            response = await conn.getresponse()
            assert await response.read(10) == body[:10]
            await answers.sent.wait()
            assert response.buffered <= 4096
            assert await response.read() == body[10:]
            assert response.complete


@pytest.mark.parametrize(
    "field",
    [
        b"Connection: close",
        b"Connection: Close",
        b"connection: keep-alive, close",
        b"Connection: keep-alive\r\nConnection: close",
        b"Connection: close, TE",
        b"Connection:\tclose\t",
        b"Connection: ,close",
    ],
    ids=lambda field: f"T12-{ascii(field)[2:-1]}",
)
async def test_close_is_honoured_on_any_line_and_in_any_list(field):
    answers = Answers(OK + field + b"\r\nContent-Length: 2\r\n\r\nhi")
    async with ScriptedServer(answers) as server, HTTPConnection(*server.address) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert response.will_close
        assert await response.read() == b"hi"
        assert not await answers.reused(conn, server)


async def test_a_connection_that_is_dropped_is_told_and_closed_T13():
    async with ScriptedServer([expect(), send(HELLO)]) as server:
        conn = HTTPConnection(*server.address)
        await conn.request("GET", "/")
        await (await conn.getresponse()).read()
        kept = [conn]
        del conn
        with pytest.warns(ResourceWarning, match=r"unclosed http connection to 127\.0\.0\.1:"):
            kept.clear()
        await server.conns[0].wait_ended()


@pytest.mark.may_leak("a loop that is closed leaves its transports behind")
@pytest.mark.filterwarnings("ignore:unclosed")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_was_closed_T13():
    async def leave_open():
        async with ScriptedServer([expect(), send(HELLO)]) as server:
            conn = HTTPConnection(*server.address)
            await conn.request("GET", "/")
            response = await conn.getresponse()
            return conn, response

    loop = asyncio.new_event_loop()
    conn, response = loop.run_until_complete(leave_open())
    loop.close()
    response.close()
    conn.close()
    assert conn.sock is None


TRUNCATED = {
    "until-the-end": (OK + b"\r\nhello", False),
    "http-1.0": (b"HTTP/1.0 200 OK\r\n\r\nhello", False),
    "identity": (OK + b"Transfer-Encoding: identity\r\n\r\nhello", False),
    "length": (OK + b"Content-Length: 5\r\n\r\nhello", True),
    "chunked": (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", True),
}


@pytest.mark.parametrize("name", TRUNCATED, ids=lambda name: f"T15-{name}")
@pytest.mark.parametrize("end", ["truncate", "reset", "close"])
async def test_tls_truncation(certificates, name, end):
    wire, whole = TRUNCATED[name]
    for pieces in ([wire], [wire[:-2], wire[-2:]]):
        answers = Answers(pieces, end=end)
        async with ScriptedServer(answers, tls=certificates.server) as server:
            async with HTTPSConnection(
                "localhost", server.port, context=certificates.client
            ) as conn:
                await conn.request("GET", "/")
                response = await conn.getresponse()
                if whole or end == "close":
                    assert await response.read() == b"hello"
                    assert response.complete
                else:
                    with pytest.raises(IncompleteRead) as caught:
                        await response.read()
                    assert caught.value.partial == b"hello"
                    assert not response.complete
                assert not await answers.reused(conn, server)


@pytest.mark.parametrize("end", ["truncate", "reset"])
async def test_tls_truncation_in_a_head_T15(certificates, end):
    answers = Answers(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", end=end)
    async with ScriptedServer(answers, tls=certificates.server) as server:
        async with HTTPSConnection("localhost", server.port, context=certificates.client) as conn:
            await conn.request("GET", "/")
            with pytest.raises(ConnectionError):
                await conn.getresponse()
            assert not await answers.reused(conn, server)


PRIVATE_CA = (
    "If the server's certificate comes from a private CA, pass its file as cafile=, "
    "or an ssl.SSLContext that trusts it as context="
)


@pytest.mark.parametrize(
    ("which", "why", "hint"),
    [
        pytest.param("expired", "certificate has expired", "", id="T16-expired"),
        pytest.param("self_signed", "self-signed certificate", PRIVATE_CA, id="T16-self-signed"),
        pytest.param("untrusted", "unable to get local issuer", PRIVATE_CA, id="T16-untrusted"),
        pytest.param(
            "wrong_host",
            "certificate is not valid for 'localhost'",
            "The URL or server_hostname= asks for 'localhost'; the certificate has other names",
            id="T16-wrong-host",
        ),
    ],
)
async def test_a_certificate_that_is_wrong(certificates, which, why, hint):
    async with ScriptedServer([read_all()], tls=getattr(certificates, which)) as server:
        conn = HTTPSConnection("localhost", server.port, context=certificates.client)
        with pytest.raises(CertificateError) as caught:
            await conn.request("GET", "/path", headers={"Authorization": "secret"})
        text = (
            str(caught.value)
            .replace("self signed", "self-signed")
            .replace("Hostname mismatch, ", "")
        )
        assert text.startswith(f"GET https://localhost:{server.port}/path: ")
        assert (
            "the certificate of localhost" in text or "cannot be verified for 'localhost'" in text
        )
        assert why in text
        assert text.endswith(hint)
        assert conn.sock is None
    assert server.received in ([b""], [])


async def test_the_default_context_trusts_no_private_authority_T16(certificates):
    async with ScriptedServer([read_all()], tls=certificates.server) as server:
        conn = HTTPSConnection("localhost", server.port)
        with pytest.raises(CertificateError, match="pass its file as cafile="):
            await conn.request("GET", "/")
    async with ScriptedServer([expect(), send(HELLO)], tls=certificates.server) as server:
        async with HTTPSConnection("localhost", server.port, cafile=certificates.ca_file) as conn:
            await conn.request("GET", "/")
            assert (await conn.getresponse()).status == 200


@pytest.mark.parametrize(
    ("names", "right"),
    [
        pytest.param(["127.0.0.1"], True, id="T16-ip-san"),
        pytest.param(["127.0.0.2"], False, id="T16-other-ip-san"),
        pytest.param(["localhost"], False, id="T16-no-ip-san"),
    ],
)
async def test_an_ip_address_needs_an_ip_san(certificates, names, right):
    server_context = certificates.server_for(*names)
    async with ScriptedServer([expect(), send(HELLO)], tls=server_context) as server:
        async with HTTPSConnection(*server.address, context=certificates.client) as conn:
            if right:
                await conn.request("GET", "/")
                assert (await conn.getresponse()).status == 200
                return
            with pytest.raises(CertificateError, match=r"not valid for '127\.0\.0\.1'"):
                await conn.request("GET", "/")


async def test_the_certificate_in_a_tunnel_is_the_origins_T16(certificates):
    async with ScriptedServer([read_all()], tls=certificates.wrong_host) as server:
        async with ConnectProxy(routes={"localhost:443": server.address}) as proxy:
            async with HTTPSConnection(*proxy.address, context=certificates.client) as conn:
                conn.set_tunnel("localhost", 443)
                with pytest.raises(CertificateError, match="not valid for 'localhost'"):
                    await conn.request("GET", "/")


async def test_a_server_that_speaks_plain_http_T16(certificates):
    async with ScriptedServer([send(HELLO), read_all()]) as server:
        async with HTTPSConnection(*server.address, context=certificates.client) as conn:
            with pytest.raises(TLSError, match=r"did not answer with TLS .*try http://"):
                await conn.request("GET", "/")
