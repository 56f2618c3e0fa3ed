"""The contract with callers: the framing of responses, quirks of http.client, names and states.

First each row of the table in ``docs/topics/framing.md``, then the behaviour that
``docs/topics/differences.md`` promises. ``test_against_http_client.py`` compares with http.client
itself.
"""

from __future__ import annotations

import asyncio
import http.client
import inspect
import io
import pickle
from dataclasses import dataclass, field

import pytest

import aiohttpconn
from aiohttpconn import (
    BadStatusLine,
    BodyLengthError,
    CannotSendHeader,
    CannotSendRequest,
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    HTTPSConnection,
    ImproperConnectionState,
    IncompleteRead,
    InvalidURL,
    LineTooLong,
    MalformedResponse,
    NotConnected,
    RemoteDisconnected,
    ResponseNotReady,
    UnknownProtocol,
    UnknownTransferEncoding,
)

from .support import (
    ConnectProxy,
    ScriptedServer,
    close,
    expect,
    read_all,
    refusing_address,
    send,
    wait,
)
from .support.answers import AGAIN, Answers

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


# What servers really send


@dataclass(frozen=True)
class Ok:
    """The response is delivered. *fields*: what ``getheader`` returns, by name."""

    body: bytes = b"hi"
    status: int = 200
    reason: str = "OK"
    reused: bool = True
    fields: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """An exception, from ``getresponse()`` or from ``read()``; never is the connection reused."""

    kind: type[Exception]
    text: str
    partial: bytes | None = None


@dataclass(frozen=True)
class Row:
    wire: bytes
    lenient: Ok | Refused
    strict: Ok | Refused | None = None
    """None: the same."""
    method: str = "GET"
    body: bytes | None = None
    end: str = ""


def malformed(text: str) -> Refused:
    return Refused(MalformedResponse, text)


def unknown(text: str) -> Refused:
    return Refused(UnknownTransferEncoding, text)


def broken(text: str, partial: bytes = b"") -> Refused:
    return Refused(IncompleteRead, text, partial)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
DROPPED = {"X-Before": "1", "X-A": None, "Bad Name": None, "Content-Length": "2", "X-After": "2"}

TABLE = {
    # bare LF in the head, no reason, UTF-8 reason, status 999, chunk extensions
    "well-formed": Row(HELLO, Ok()),
    "bare-lf-in-the-head": Row(
        b"HTTP/1.1 200 OK\nContent-Length: 2\nX-A: v\n\nhi",
        Ok(fields={"X-A": "v", "Content-Length": "2"}),
        malformed("bad line end or reason in b'HTTP/1.1 200 OK\\n'"),
    ),
    "bare-lf-after-a-field": Row(
        b"HTTP/1.1 200 OK\r\nX-A: v\nContent-Length: 2\r\n\r\nhi",
        Ok(fields={"X-A": "v", "Content-Length": "2"}),
        malformed("a line that ends without CR in the response's head: b'X-A: v'"),
    ),
    "bare-lf-as-the-blank-line": Row(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nhi",
        Ok(),
        malformed("a line that ends without CR in the response's head: b''"),
    ),
    "no-reason": Row(b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nhi", Ok(reason="")),
    "no-reason-and-no-space": Row(b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", Ok(reason="")),
    "utf-8-reason": Row(
        b"HTTP/1.1 200 tr\xc3\xa8s bien\r\nContent-Length: 2\r\n\r\nhi",
        Ok(reason="tr\xc3\xa8s bien"),
    ),
    "status-999": Row(
        b"HTTP/1.1 999 Request denied\r\nContent-Length: 2\r\n\r\nhi",
        Ok(status=999, reason="Request denied"),
    ),
    "chunk-extensions": Row(CHUNKED + b'2;a=b;c;d="e;f"\r\nhi\r\n0;last\r\n\r\n', Ok()),
    # obs-fold
    "obs-fold": Row(
        b"HTTP/1.1 200 OK\r\nX-A: one\r\n  \t two\r\n\tthree\r\nContent-Length: 2\r\n\r\nhi",
        Ok(fields={"X-A": "one two three", "Content-Length": "2"}),
        malformed("a line that starts with a blank in the response's head: b'  \\t two'"),
    ),
    # `X-A : v`, `Bad Name: x`
    "blank-before-the-colon": Row(
        b"HTTP/1.1 200 OK\r\nX-Before: 1\r\nX-A : v\r\nContent-Length: 2\r\nX-After: 2\r\n\r\nhi",
        Ok(fields=DROPPED),
        malformed("no field name and colon in the response's head: b'X-A : v'"),
    ),
    "blank-in-a-name": Row(
        b"HTTP/1.1 200 OK\r\nX-Before: 1\r\nBad Name: x\r\nContent-Length: 2\r\n"
        b"X-After: 2\r\n\r\nhi",
        Ok(fields=DROPPED),
        malformed("no field name and colon in the response's head: b'Bad Name: x'"),
    ),
    "empty-name": Row(
        b"HTTP/1.1 200 OK\r\nX-Before: 1\r\n: x\r\nContent-Length: 2\r\nX-After: 2\r\n\r\nhi",
        Ok(fields=DROPPED),
        malformed("no field name and colon in the response's head: b': x'"),
    ),
    "fold-on-a-dropped-line": Row(
        b"HTTP/1.1 200 OK\r\nX-Before: 1\r\nBad Name: x\r\n y\r\nContent-Length: 2\r\n"
        b"X-After: 2\r\n\r\nhi",
        Ok(fields=DROPPED),
        malformed("no field name and colon in the response's head: b'Bad Name: x'"),
    ),
    # a line without a colon
    "no-colon": Row(
        b"HTTP/1.1 200 OK\r\nX-Before: 1\r\nnonsense\r\nContent-Length: 2\r\nX-After: 2\r\n\r\nhi",
        Ok(fields=DROPPED),
        malformed("no field name and colon in the response's head: b'nonsense'"),
    ),
    # `Transfer-Encoding : chunked`, `Content-Length : 5`, or either name on a dropped line
    "blank-after-transfer-encoding": Row(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        malformed("transfer-encoding on a malformed line"),
        malformed("no field name and colon"),
    ),
    "blank-after-content-length": Row(
        b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
        malformed("content-length on a malformed line"),
        malformed("no field name and colon"),
    ),
    "tab-after-content-length": Row(
        b"HTTP/1.1 200 OK\r\nContent-Length\t: 5\r\n\r\nhello",
        malformed("content-length on a malformed line"),
        malformed("no field name and colon"),
    ),
    "transfer-encoding-in-a-bad-name": Row(
        b"HTTP/1.1 200 OK\r\nX Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nhi",
        malformed("transfer-encoding on a malformed line"),
        malformed("no field name and colon"),
    ),
    "content-length-without-a-colon": Row(
        b"HTTP/1.1 200 OK\r\nCONTENT-LENGTH 2\r\n\r\nhi",
        malformed("content-length on a malformed line"),
        malformed("no field name and colon"),
    ),
    "content-length-in-a-fold-of-a-dropped-line": Row(
        b"HTTP/1.1 200 OK\r\nBad Name: x\r\n Content-Length: 2\r\n\r\nhi",
        malformed("content-length on a malformed line"),
        malformed("no field name and colon"),
    ),
    # control characters in a value (not NUL, CR, LF)
    "control-characters-in-a-value": Row(
        b"HTTP/1.1 200 OK\r\nX-A: a\x01\x0b\x1f\x7fb\r\nContent-Length: 2\r\n\r\nhi",
        Ok(fields={"X-A": "a\x01\x0b\x1f\x7fb", "Content-Length": "2"}),
        malformed("a control character in a value in the response's head"),
    ),
    # NUL in the head
    "nul-in-a-value": Row(
        b"HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 2\r\n\r\nhi",
        malformed("a NUL byte in the head"),
    ),
    "nul-in-a-name": Row(
        b"HTTP/1.1 200 OK\r\nX\0A: b\r\nContent-Length: 2\r\n\r\nhi",
        malformed("a NUL byte in the head"),
    ),
    "nul-in-the-reason": Row(
        b"HTTP/1.1 200 O\0K\r\nContent-Length: 2\r\n\r\nhi",
        Refused(BadStatusLine, r"not a status line: HTTP/1.1 200 O\x00K"),
    ),
    # two equal Content-Lengths
    "two-equal-content-lengths": Row(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
        Ok(fields={"Content-Length": "2, 2"}),
        malformed("more than one Content-Length: '2, 2'"),
    ),
    "two-equal-content-lengths-in-a-list": Row(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nhi",
        Ok(),
        malformed("more than one Content-Length: '2, 2'"),
    ),
    # two different Content-Lengths, `+5`, `5_0`, `0x5`
    "two-different-content-lengths": Row(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
        malformed("more than one Content-Length: '2, 3'"),
    ),
    "two-different-content-lengths-in-a-list": Row(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2,3\r\n\r\nhi!",
        malformed("more than one Content-Length: '2, 3'"),
    ),
    "content-lengths-of-one-number-spelt-twice": Row(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 02\r\n\r\nhi",
        malformed("more than one Content-Length: '2, 02'"),
    ),
    **{
        f"content-length-{name}": Row(
            b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\nhello" % value,
            malformed(f"Content-Length must be 1 to 19 digits, got {value.decode('latin-1')!r}"),
        )
        for name, value in {
            "with-a-sign": b"+5",
            "negative": b"-5",
            "with-an-underscore": b"5_0",
            "hexadecimal": b"0x5",
            "with-a-blank": b"5 5",
            "of-other-digits": b"\xd9\xa5",
            "with-a-fraction": b"5.0",
            "empty": b"",
            "of-20-digits": b"1" * 20,
        }.items()
    },
    "content-length-with-leading-zeros": Row(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0002\r\n\r\nhi", Ok()
    ),
    # Content-Length and `Transfer-Encoding: chunked`
    "content-length-and-chunked": Row(
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nhi\r\n0\r\n\r\n",
        Ok(reused=False),
        malformed("Content-Length and Transfer-Encoding in one response"),
    ),
    # `Transfer-Encoding: identity`
    "identity-and-content-length": Row(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nhi",
        Ok(reused=False),
        unknown("cannot read Transfer-Encoding: identity"),
    ),
    "identity-until-the-end": Row(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Identity\r\n\r\nhi",
        Ok(reused=False),
        unknown("cannot read Transfer-Encoding: identity"),
        end="close",
    ),
    # any other `Transfer-Encoding` than one `chunked`
    **{
        f"transfer-encoding-{name}": Row(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: %b\r\n\r\nhi" % value,
            unknown(f"cannot read Transfer-Encoding: {text}"),
        )
        for name, value, text in (
            ("gzip", b"gzip", "gzip"),
            ("gzip-chunked", b"gzip, chunked", "gzip, chunked"),
            ("xchunked", b"xchunked", "xchunked"),
            ("chunked-identity", b"chunked, identity", "chunked, identity"),
            ("quoted", b'"chunked"', '"chunked"'),
            ("with-a-parameter", b"chunked;q=1", "chunked;q=1"),
            ("after-an-odd-blank", b"\xa0chunked", "\xa0chunked"),
            ("empty", b"", ""),
        )
    },
    # one `chunked`, but said twice, with an empty member, or in HTTP/1.0
    **{
        f"transfer-encoding-{name}": Row(
            b"HTTP/1.%b 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: %b\r\n\r\n"
            b"2\r\nhi\r\n0\r\n\r\n" % (minor, value),
            Ok(reused=False),
            unknown(f"cannot read Transfer-Encoding: {text}"),
        )
        for name, minor, value, text in (
            ("chunked-chunked", b"1", b"chunked, chunked", "chunked, chunked"),
            ("chunked-twice", b"1", b"chunked\r\nTransfer-Encoding: chunked", "chunked, chunked"),
            ("empty-member", b"1", b", chunked", ", chunked"),
            ("chunked-in-1.0", b"0", b"chunked", "chunked in an HTTP/1.0 response"),
        )
    },
    "transfer-encoding-in-upper-case": Row(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n2\r\nhi\r\n0\r\n\r\n", Ok()
    ),
    # bare CR before the body
    "bare-cr-in-a-value": Row(
        b"HTTP/1.1 200 OK\r\nX-A: a\rb\r\nContent-Length: 2\r\n\r\nhi",
        malformed("a CR inside a line in the response's head: b'X-A: a\\rb'"),
    ),
    "bare-cr-before-a-name": Row(
        b"HTTP/1.1 200 OK\r\n\rX-A: b\r\nContent-Length: 2\r\n\r\nhi",
        malformed("a CR inside a line in the response's head: b'\\rX-A: b'"),
    ),
    "bare-cr-before-crlf": Row(
        b"HTTP/1.1 200 OK\r\nX-A: b\r\r\nContent-Length: 2\r\n\r\nhi",
        Ok(fields={"X-A": "b", "Content-Length": "2"}),
        malformed("a CR inside a line in the response's head: b'X-A: b\\r'"),
    ),
    "bare-cr-in-the-reason": Row(
        b"HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\nhi",
        Refused(BadStatusLine, r"not a status line: HTTP/1.1 200 O\x0dK"),
    ),
    "bare-crs-as-line-ends": Row(
        b"HTTP/1.1 200 OK\rContent-Length: 2\r\rhi",
        Refused(
            BadStatusLine, r"not a status line: HTTP/1.1 200 OK\x0dContent-Length: 2\x0d\x0dhi"
        ),
        end="close",
    ),
    # a fold on Content-Length, Transfer-Encoding or Connection
    "fold-on-content-length": Row(
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n 2\r\n\r\nhi",
        Ok(fields={"Content-Length": "2"}),
        malformed("a line that starts with a blank"),
    ),
    "fold-on-transfer-encoding": Row(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip,\r\n chunked\r\n\r\n0\r\n\r\n",
        unknown("cannot read Transfer-Encoding: gzip, chunked"),
        malformed("a line that starts with a blank"),
    ),
    "fold-on-connection": Row(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive,\r\n close\r\n\r\nhi",
        Ok(fields={"Content-Length": "2", "Connection": "keep-alive, close"}, reused=False),
        malformed("a line that starts with a blank"),
    ),
    # a line of blanks right after the status line
    "blanks-after-the-status-line": Row(
        b"HTTP/1.1 200 OK\r\n \t \r\nContent-Length: 2\r\n\r\nhi",
        malformed("a line that starts with a blank in the response's head: b' \\t '"),
    ),
    "fold-after-the-status-line": Row(
        b"HTTP/1.1 200 OK\r\n X-A: v\r\nContent-Length: 2\r\n\r\nhi",
        malformed("a line that starts with a blank in the response's head: b' X-A: v'"),
    ),
    # chunk framing with bare LF, a size with sign, `0x`, `_`, inner blanks or over 16 digits
    **{
        f"chunk-{name}": Row(CHUNKED + b"2\r\nhi\r\n" + rest, broken(text, partial))
        for name, rest, text, partial in (
            (
                "size-with-bare-lf",
                b"5\nhello\r\n0\r\n\r\n",
                "not a chunk-size line: b'5\\n'",
                b"hi",
            ),
            ("size-with-a-sign", b"+5\r\nhello\r\n0\r\n\r\n", "line: b'+5\\r\\n'", b"hi"),
            ("size-negative", b"-5\r\nhello\r\n0\r\n\r\n", "line: b'-5\\r\\n'", b"hi"),
            ("size-with-0x", b"0x5\r\nhello\r\n0\r\n\r\n", "line: b'0x5\\r\\n'", b"hi"),
            ("size-with-an-underscore", b"0_5\r\nhello\r\n0\r\n\r\n", "line: b'0_5\\r\\n'", b"hi"),
            ("size-with-an-inner-blank", b"0 5\r\nhello\r\n0\r\n\r\n", "line: b'0 5\\r\\n'", b"hi"),
            ("size-after-a-blank", b" 5\r\nhello\r\n0\r\n\r\n", "line: b' 5\\r\\n'", b"hi"),
            ("size-of-17-digits", b"0" * 16 + b"5\r\nhello\r\n0\r\n\r\n", "00005\\r\\n'", b"hi"),
            ("size-empty", b"\r\nhello\r\n0\r\n\r\n", "line: b'\\r\\n'", b"hi"),
            ("size-of-a-comment-only", b";a\r\nhello\r\n0\r\n\r\n", "line: b';a\\r\\n'", b"hi"),
            ("size-no-number", b"xyz\r\nhello\r\n0\r\n\r\n", "line: b'xyz\\r\\n'", b"hi"),
            ("size-of-other-digits", b"\xd9\xa5\r\n", "line: b'\\xd9\\xa5\\r\\n'", b"hi"),
            ("size-with-a-bare-cr", b"5;a\rb\r\nhello\r\n", "line: b'5;a\\rb\\r\\n'", b"hi"),
            ("data-with-bare-lf", b"5\r\nhello\n0\r\n\r\n", "followed by CRLF", b"hihello"),
            ("data-too-long", b"5\r\nhello!\r\n0\r\n\r\n", "followed by CRLF", b"hihello"),
            ("last-with-bare-lf", b"0\n\r\n", "line: b'0\\n'", b"hi"),
            ("trailer-with-bare-lf", b"0\r\nX: y\n\r\n", "a trailer must end with CRLF", b"hi"),
            ("end-with-bare-lf", b"0\r\n\n", "a trailer must end with CRLF", b"hi"),
        )
    },
    "chunk-size-with-blanks-behind-it": Row(
        CHUNKED + b"2 \t\r\nhi\r\n0 \r\n\r\n", Ok(), broken("not a chunk-size line: b'2 \\t\\r\\n'")
    ),
    "chunk-size-of-16-digits": Row(CHUNKED + b"0" * 15 + b"2\r\nhi\r\n0\r\n\r\n", Ok()),
    # bytes after the body
    "bytes-after-the-body": Row(HELLO + AGAIN, Ok(reused=False)),
    "bytes-after-a-chunked-body": Row(CHUNKED + b"2\r\nhi\r\n0\r\n\r\n" + AGAIN, Ok(reused=False)),
    "bytes-after-no-body": Row(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + AGAIN, Ok(b"", reused=False)
    ),
    "crlf-after-the-body": Row(HELLO + b"\r\n", Ok(reused=False)),
    # 204 or 304 with a body
    "204-with-a-body": Row(
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nhi",
        Ok(b"", 204, "No Content", reused=False),
    ),
    "304-with-a-body": Row(
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nhi",
        Ok(b"", 304, "Not Modified", reused=False),
    ),
    "head-with-a-body": Row(HELLO, Ok(b"", reused=False), method="HEAD"),
    "304-that-tells-the-length": Row(
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", Ok(b"", 304, "Not Modified")
    ),
    "head-that-tells-the-length": Row(HELLO[:-2], Ok(b""), method="HEAD"),
    # EOF after the fields, without the blank line
    "end-without-the-blank-line": Row(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
        Refused(RemoteDisconnected, "in the middle of the response's head"),
        end="close",
    ),
    "end-in-the-status-line": Row(
        b"HTTP/1.1 200",
        Refused(RemoteDisconnected, "in the middle of the response's head: b'HTTP/1.1 200'"),
        end="close",
    ),
    "end-without-a-byte": Row(
        b"",
        Refused(RemoteDisconnected, "Remote end closed connection without response"),
        end="close",
    ),
    # `0\r\n` then EOF (last CRLF missing)
    "end-without-the-last-crlf": Row(
        CHUNKED + b"2\r\nhi\r\n0\r\n",
        Ok(reused=False),
        broken("ended before the body did", b"hi"),
        end="close",
    ),
    # a body shorter than its length
    "short-body": Row(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
        broken("IncompleteRead(3 bytes read, 2 more expected)", b"hel"),
        end="close",
    ),
    "short-chunk": Row(
        CHUNKED + b"2\r\nhi\r\n5\r\nhel",
        broken("IncompleteRead(5 bytes read, 2 more expected)", b"hihel"),
        end="close",
    ),
    "end-before-the-last-chunk": Row(
        CHUNKED + b"2\r\nhi\r\n", broken("IncompleteRead(2 bytes read)", b"hi"), end="close"
    ),
    "end-after-a-trailer": Row(
        CHUNKED + b"2\r\nhi\r\n0\r\nX: y\r\n",
        Ok(reused=False),
        broken("IncompleteRead(2 bytes read)", b"hi"),
        end="close",
    ),
    "end-in-a-trailer": Row(
        CHUNKED + b"2\r\nhi\r\n0\r\nX: y", broken("IncompleteRead(2 bytes", b"hi"), end="close"
    ),
    "end-in-a-chunk-size": Row(
        CHUNKED + b"2\r\nhi\r\n0", broken("IncompleteRead(2 bytes read)", b"hi"), end="close"
    ),
    # 103, then 200
    "103-then-200": Row(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + HELLO, Ok()),
    # 413 and close while the upload still runs
    "413-and-close-in-an-upload": Row(
        b"HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nhi",
        Ok(status=413, reason="Too Much", reused=False),
        method="POST",
        body=bytes(8_000_000),
        end="close",
    ),
    "413-and-reset-in-an-upload": Row(
        b"HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nhi",
        Ok(status=413, reason="Too Much", reused=False),
        method="POST",
        body=bytes(8_000_000),
        end="reset",
    ),
    # Status lines of other protocols
    "http-0.9": Row(
        b"HTTP/0.9 200 OK\r\n\r\n", Refused(BadStatusLine, "not a status line: HTTP/0.9 200 OK")
    ),
    "http-0.9-without-a-status-line": Row(
        b"<p>hi</p>\r\n\r\n", Refused(BadStatusLine, "not a status line: <p>hi</p>")
    ),
    "http-0.9-without-a-line-end": Row(
        b"<p>hi</p>", Refused(BadStatusLine, "not a status line: <p>hi</p>"), end="close"
    ),
    "icy": Row(b"ICY 200 OK\r\n\r\n", Refused(BadStatusLine, "not a status line: ICY 200 OK")),
    "lower-case": Row(
        b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        Refused(BadStatusLine, "not a status line: http/1.1 200 OK"),
    ),
    "http-2": Row(b"HTTP/2 200 OK\r\n\r\n", Refused(UnknownProtocol, "unknown protocol: HTTP/2 ")),
    "http-2.0": Row(b"HTTP/2.0 200 OK\r\n\r\n", Refused(UnknownProtocol, "protocol: HTTP/2.0 ")),
    **{
        f"status-{status}": Row(
            b"HTTP/1.1 %b OK\r\nContent-Length: 2\r\n\r\nhi" % status.encode(),
            Refused(BadStatusLine, f"not a status line: HTTP/1.1 {status} OK"),
        )
        for status in ("99", "099", "1000", "-200", "+200", "2e2", "0x64", "20", "2 0")
    },
}


@pytest.mark.parametrize("piece", [0, 20, 1], ids=["whole", "in-20s", "byte-by-byte"])
@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
@pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in TABLE.items()])
async def test_what_servers_really_send(row, strict, piece):
    verdict = row.lenient if row.strict is None or not strict else row.strict
    size = piece or max(len(row.wire), 1)
    pieces = [row.wire[i : i + size] for i in range(0, len(row.wire), size)]
    answers = Answers(pieces, end=row.end, head_only=row.body is not None)
    async with ScriptedServer(answers) as server:
        async with HTTPConnection(*server.address, strict=strict) as conn:
            if isinstance(verdict, Refused):
                response = None
                with pytest.raises(HTTPException) as caught:
                    await conn.request(row.method, "/", row.body)
                    response = await conn.getresponse()
                    await response.read()
                assert isinstance(caught.value, verdict.kind)
                assert verdict.text in str(caught.value)
                assert f"{row.method} {server.url}: " in str(caught.value)
                assert (response is None) == (verdict.partial is None)
                if response is not None:
                    assert caught.value.partial == verdict.partial
                    assert not response.complete
                assert not await answers.reused(conn, server)
                return
            await conn.request(row.method, "/", row.body)
            response = await conn.getresponse()
            assert (response.status, response.reason) == (verdict.status, verdict.reason)
            assert {name: response.getheader(name) for name in verdict.fields} == verdict.fields
            assert await response.read() == verdict.body
            assert response.complete
            assert response.isclosed()
            assert await answers.reused(conn, server) == verdict.reused


@pytest.mark.parametrize("status", [100, 199, 200, 299, 300, 399, 400, 499, 500, 599, 600, 999])
async def test_every_status_from_100_to_999_is_kept(scripted, status):
    wire = b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status
    async with scripted(wire + HELLO if status < 200 else wire) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert response.status == (status if status >= 200 else 200)


# Quirks of http.client, beyond the table of what servers send


async def test_up_to_100_interim_responses_are_skipped_and_told(scripted):
    told = []
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </%d>\r\n\r\n"
    wire = b"".join(hints % i for i in range(100)) + HELLO

    def tell(status: int, headers: http.client.HTTPMessage) -> None:
        told.append((status, headers["Link"]))

    async with scripted(wire, on_informational=tell) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert (response.status, await response.read()) == (200, b"hi")
    assert told == [(103, f"</{i}>") for i in range(100)]


async def test_more_than_100_interim_responses_are_refused(scripted):
    async with scripted(b"HTTP/1.1 102 Processing\r\n\r\n" * 101 + HELLO) as conn:
        await conn.request("GET", "/")
        with pytest.raises(HTTPException, match="got more than 100 interim responses"):
            await conn.getresponse()
        assert conn.sock is None


@pytest.mark.parametrize(
    ("method", "wire"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
async def test_a_response_without_a_body_is_complete_at_once(scripted, method, wire):
    async with scripted(wire, HELLO) as conn:
        await conn.request(method, "/")
        response = await conn.getresponse()
        assert response.isclosed()
        assert response.complete
        assert response.length == 0
        await conn.request("GET", "/")
        assert (await conn.getresponse()).status == 200
        assert await response.read() == b""


async def read_amt(response):
    return await response.read(100)


async def read1(response):
    return await response.read1(100)


async def readinto(response):
    buffer = bytearray(100)
    return bytes(buffer[: await response.readinto(buffer)])


async def readinto1(response):
    buffer = bytearray(100)
    return bytes(buffer[: await response.readinto1(buffer)])


async def readline(response):
    return await response.readline()


async def peek(response):
    await response.peek()
    return await response.read1()


async def iterate(response):
    async for line in response:
        return line
    return b""


async def iter_bytes(response):
    async for piece in response.iter_bytes():
        return piece
    return b""


WAYS = [read_amt, read1, readinto, readinto1, readline, peek, iterate, iter_bytes]


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", id="length"),
        pytest.param(CHUNKED + b"9\r\nhello", id="chunk"),
        pytest.param(CHUNKED + b"5\r\nhello\r\n", id="between-chunks"),
    ],
)
@pytest.mark.parametrize("way", WAYS)
async def test_a_truncated_body_is_never_taken_for_a_whole_one(way, wire, end):
    answers = Answers(wire, end=end)
    async with ScriptedServer(answers) as server, HTTPConnection(*server.address) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        got = b""
        with pytest.raises(IncompleteRead) as caught:
            while data := await way(response):
                got += data
        assert got == b"hello"
        assert caught.value.partial == b""
        assert not response.complete
        # And it is told as often as it is asked for.
        with pytest.raises(IncompleteRead):
            await way(response)
        assert not await answers.reused(conn, server)


@pytest.mark.parametrize("wire", [CHUNKED + b"9\r\nhello", CHUNKED + b"2\r\nhe\r\n7\r\nllo"])
async def test_partial_has_the_bytes_of_the_last_broken_chunk(scripted, wire):
    async with scripted(wire, close=True) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        with pytest.raises(IncompleteRead, match="4 more expected") as caught:
            await response.read()
        assert (caught.value.partial, caught.value.expected) == (b"hello", 4)


async def test_one_default_context_serves_all_connections(monkeypatch):
    from aiohttpconn.net import tls

    made = []
    make = tls.ssl.create_default_context
    monkeypatch.setattr(tls, "_contexts", {})
    monkeypatch.setattr(
        tls.ssl, "create_default_context", lambda **keywords: made.append(1) or make(**keywords)
    )
    with refusing_address() as address:
        connections = [HTTPSConnection(*address) for _ in range(3)]
        assert made == []
        for conn in connections:
            with pytest.raises(ConnectionRefusedError):
                await conn.connect()
    assert made == [1]


async def test_putheader_joins_values_on_one_line():
    async with ScriptedServer([expect(), send(HELLO)]) as server:
        async with HTTPConnection(*server.address) as conn:
            conn.putrequest("GET", "/", skip_accept_encoding=True)
            conn.putheader("A", "b", b"c", 4)
            await conn.endheaders()
            await conn.getresponse()
        host = f"{server.host}:{server.port}".encode()
        assert server.heads == [b"GET / HTTP/1.1\r\nHost: " + host + b"\r\nA: b, c, 4\r\n\r\n"]


async def test_connect_is_http_1_1_with_host():
    async with ScriptedServer([expect(), send(HELLO)]) as server:
        routes = {"example.com:8080": server.address}
        async with ConnectProxy(routes=routes) as proxy:
            async with HTTPConnection(*proxy.address) as conn:
                conn.set_tunnel("example.com", 8080, {"X-A": "v"})
                await conn.request("GET", "/")
                assert (await conn.getresponse()).status == 200
        assert proxy.heads == [
            b"CONNECT example.com:8080 HTTP/1.1\r\nHost: example.com:8080\r\nX-A: v\r\n\r\n"
        ]
        assert b"\r\nHost: example.com:8080\r\n" in server.heads[0]
        assert b"X-A" not in server.heads[0]


async def test_the_proxys_fields_can_be_seen():
    reply = b"HTTP/1.1 200 Yes\r\nX-Proxy: a\r\n\r\n"
    async with ScriptedServer([expect(), send(HELLO)]) as server:
        async with ConnectProxy(routes={"example.com:80": server.address}, reply=reply) as proxy:
            async with HTTPConnection(*proxy.address) as conn:
                assert conn.get_proxy_response_headers() is None
                conn.set_tunnel("example.com")
                await conn.connect()
                assert conn.get_proxy_response_headers().items() == [("X-Proxy", "a")]


async def test_geturl_and_fileno_of_a_finished_response(scripted):
    async with scripted([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"hi"]) as conn:
        await conn.request("GET", "/a?b")
        response = await conn.getresponse()
        assert response.fileno() == conn.sock.fileno()
        await response.read()
        assert response.geturl() == response.url == f"http://{conn.host}:{conn.port}/a?b"
        with pytest.raises(ValueError, match=r"<HTTPResponse \[200 OK\] .*> has no socket any mor"):
            response.fileno()


HEAD_OF_100 = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + b"A: b\r\n" * 99
LINE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: %b\r\n\r\nhi"


async def test_100_fields_and_lines_of_64_kib_are_the_default_limits(scripted):
    responses = [
        HEAD_OF_100 + b"\r\nhi",
        LINE % (b"x" * (65536 - 5)),
        LINE % (b"x" * (65536 - 4)),
    ]
    async with scripted(*responses) as conn:
        for _ in range(2):
            await conn.request("GET", "/")
            response = await conn.getresponse()
            assert await response.read() == b"hi"
        await conn.request("GET", "/")
        with pytest.raises(LineTooLong, match="got more than 65536 bytes when reading header line"):
            await conn.getresponse()
        assert conn.sock is None


@pytest.mark.parametrize("limit", [None, 2, 101])
async def test_the_number_of_fields_can_be_set(scripted, limit):
    async with scripted(HEAD_OF_100 + b"A: b\r\n\r\nhi", max_response_headers=limit) as conn:
        assert conn.max_response_headers == limit
        await conn.request("GET", "/")
        if limit == 101:
            assert len((await conn.getresponse()).getheaders()) == 101
            return
        with pytest.raises(HTTPException, match=f"got more than {limit or 100} headers"):
            await conn.getresponse()


async def test_the_target_is_sent_byte_for_byte():
    targets = ["/a b".replace(" ", "%20"), "/#frag", '/%zz?<>"{}|\\^`', "//x//../y", "*", "?q"]
    async with ScriptedServer([*[expect(), send(HELLO)] * len(targets)]) as server:
        async with HTTPConnection(*server.address) as conn:
            for target in targets:
                await conn.request("GET", target)
                await (await conn.getresponse()).read()
        assert [head.split(b" ")[1].decode() for head in server.heads] == targets


async def test_an_empty_url_is_a_slash():
    async with ScriptedServer([expect(), send(HELLO)]) as server:
        async with HTTPConnection(*server.address) as conn:
            await conn.request("GET", "")
            await conn.getresponse()
        assert server.heads[0].startswith(b"GET / HTTP/1.1\r\n")


# Names, signatures, attributes, exceptions

KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY


def positional(function) -> list[tuple[str, object]]:
    """Return (name, default) of the parameters that may be given by position, self left out."""
    return [
        (name, None if p.default is p.empty else p.default)
        for name, p in inspect.signature(function).parameters.items()
        if p.kind is p.POSITIONAL_OR_KEYWORD and name != "self"
    ]


def test_the_signature_of_httpconnection():
    assert positional(HTTPConnection) == [
        ("host", None),
        ("port", None),
        ("timeout", None),
        ("source_address", None),
        ("blocksize", 65536),
    ]
    added = inspect.signature(HTTPConnection).parameters
    assert added["strict"].default is False
    assert added["max_response_headers"].default is None
    assert all(added[name].kind is KEYWORD_ONLY for name in ("strict", "max_response_headers"))


def test_the_signature_of_httpsconnection():
    assert positional(HTTPSConnection) == [("host", None), ("port", None)]
    conn = HTTPSConnection(
        "example.com", 8443, timeout=5, source_address=("", 0), context=None, blocksize=9
    )
    assert (conn.timeout, conn.source_address, conn.blocksize) == (5, ("", 0), 9)
    with pytest.raises(TypeError):
        HTTPSConnection("example.com", 8443, 5)


@pytest.mark.parametrize(
    ("name", "parameters", "keywords"),
    [
        (
            "putrequest",
            [
                ("method", None),
                ("url", None),
                ("skip_host", False),
                ("skip_accept_encoding", False),
            ],
            [],
        ),
        ("putheader", [("header", None)], []),
        ("endheaders", [("message_body", None)], ["encode_chunked"]),
        ("send", [("data", None)], []),
        (
            "request",
            [("method", None), ("url", None), ("body", None), ("headers", {})],
            ["encode_chunked"],
        ),
        ("getresponse", [], []),
        ("connect", [], []),
        ("close", [], []),
        ("wait_closed", [], []),
        (
            "set_tunnel",
            [("host", None), ("port", None), ("headers", None)],
            ["scheme", "credentials"],
        ),
        ("get_proxy_response_headers", [], []),
        ("set_debuglevel", [("level", None)], []),
    ],
)
def test_the_signatures_of_a_connections_methods(name, parameters, keywords):
    method = getattr(HTTPConnection, name)
    assert positional(method) == parameters
    found = inspect.signature(method).parameters
    assert [n for n, p in found.items() if p.kind is KEYWORD_ONLY] == keywords
    waits = {"endheaders", "send", "request", "getresponse", "connect", "wait_closed"}
    assert inspect.iscoroutinefunction(method) == (name in waits)


@pytest.mark.parametrize(
    ("name", "parameters", "waits"),
    [
        ("read", [("amt", None)], True),
        ("read1", [("n", -1)], True),
        ("readinto", [("b", None)], True),
        ("readinto1", [("b", None)], True),
        ("peek", [("n", -1)], True),
        ("readline", [("limit", -1)], True),
        ("readlines", [("hint", -1)], True),
        ("getheader", [("name", None), ("default", None)], False),
        ("getheaders", [], False),
        ("info", [], False),
        ("geturl", [], False),
        ("getcode", [], False),
        ("fileno", [], False),
        ("isclosed", [], False),
        ("close", [], False),
        ("readable", [], False),
    ],
)
def test_the_signatures_of_a_responses_methods(name, parameters, waits):
    method = getattr(HTTPResponse, name)
    assert positional(method) == parameters
    assert inspect.iscoroutinefunction(method) == waits


def test_the_attributes_of_a_connection():
    for name in ("auto_open", "debuglevel", "_http_vsn", "_http_vsn_str"):
        assert getattr(HTTPConnection, name) == getattr(http.client.HTTPConnection, name), name
    assert HTTPConnection.response_class is HTTPResponse
    assert (HTTPConnection.default_port, HTTPSConnection.default_port) == (80, 443)
    conn = HTTPConnection("example.com:81", timeout=3, source_address=("127.0.0.1", 0), blocksize=5)
    assert (conn.host, conn.port) == ("example.com", 81)
    assert (conn.timeout, conn.source_address, conn.blocksize) == (3, ("127.0.0.1", 0), 5)
    assert (conn.sock, conn.max_response_headers) == (None, None)


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("example.com", None, ("example.com", 80)),
        ("example.com:8080", None, ("example.com", 8080)),
        ("example.com:", None, ("example.com", 80)),
        ("example.com", 8080, ("example.com", 8080)),
        ("[::1]:8080", None, ("::1", 8080)),
        ("[::1]", None, ("::1", 80)),
        ("::1", None, ("::1", 80)),
        ("[fe80::1%eth0]:81", None, ("fe80::1%eth0", 81)),
        ("::1", 81, ("::1", 81)),
    ],
)
def test_host_and_port(host, port, expected):
    conn = HTTPConnection(host, port)
    assert (conn.host, conn.port) == expected


async def test_the_attributes_of_a_response(scripted):
    head = b"HTTP/1.0 200 Fine\r\nContent-Length: 5\r\nX-A: 1\r\nx-a: 2\r\n\r\n"
    async with scripted([head, b"he", b"llo"]) as conn:
        await conn.request("POST", "/path", b"data")
        response = await conn.getresponse()
        assert (response.status, response.code, response.getcode()) == (200, 200, 200)
        assert (response.reason, response.version) == ("Fine", 10)
        assert response.headers is response.msg is response.info()
        assert type(response.headers) is http.client.HTTPMessage
        assert response.headers.get_all("X-A") == ["1", "2"]
        assert response.getheader("X-A") == "1, 2"
        assert response.getheader("X-B", "none") == "none"
        assert response.getheaders() == [("Content-Length", "5"), ("X-A", "1"), ("x-a", "2")]
        assert response.length == 5
        assert await response.read(2) == b"he"
        assert response.length == 3
        assert (response.chunked, response.chunk_left) == (False, None)
        assert response.will_close
        assert not response.closed
        assert response.readable()
        assert (response.debuglevel, response.method) == (0, "POST")
        assert response.url == f"http://{conn.host}:{conn.port}/path"
        assert await response.read() == b"llo"
        assert response.length == 0
        response.close()
        assert response.closed


async def test_the_attributes_of_a_chunked_response(scripted):
    async with scripted([CHUNKED + b"5\r\nhel", b"lo\r\n0\r\nX-T: v\r\n\r\n"]) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert (response.chunked, response.length, response.version) == (True, None, 11)
        assert response.chunk_left in (2, 0)
        assert await response.read() == b"hello"
        assert response.chunk_left == 0
        assert response.trailers.items() == [("X-T", "v")]
        assert response.getheader("X-T") is None


async def test_a_body_is_iterated_by_lines(scripted):
    body = b"one\ntwo\r\n\nlast"
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n" + body
    async with scripted(wire, wire) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert [line async for line in response] == io.BytesIO(body).readlines()
        await conn.request("GET", "/")
        response = await conn.getresponse()
        assert await response.readlines() == io.BytesIO(body).readlines()


def test_the_tree_of_exceptions():
    ours = aiohttpconn
    assert issubclass(RemoteDisconnected, ConnectionResetError)
    assert issubclass(RemoteDisconnected, BadStatusLine)
    for kind in (CannotSendRequest, CannotSendHeader, ResponseNotReady):
        assert issubclass(kind, ImproperConnectionState)
    for kind in (ours.ConnectError, ours.TunnelError, ours.TLSError, ours.ConnectionRefused):
        assert issubclass(kind, OSError)
    for kind in (ours.ConnectTimeout, ours.ReadTimeout, ours.WriteTimeout, ours.TotalTimeout):
        assert issubclass(kind, TimeoutError)
    assert issubclass(BodyLengthError, ValueError)
    assert issubclass(ours.IncompleteBody, IncompleteRead)
    assert issubclass(ours.HeadTooLarge, LineTooLong)
    assert issubclass(ours.ResolveError, aiohttpconn.exceptions.socket.gaierror)


@pytest.mark.parametrize(
    ("wire", "kind"),
    [
        (b"nonsense\r\n\r\n", BadStatusLine),
        (b"HTTP/3 200 OK\r\n\r\n", UnknownProtocol),
        (b"", RemoteDisconnected),
        (b"HTTP/1.1 200 OK\r\nA: %b\r\n\r\n" % bytes(70000), LineTooLong),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", MalformedResponse),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\n", UnknownTransferEncoding),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", IncompleteRead),
    ],
)
async def test_errors_tell_the_request_and_can_be_pickled(scripted, wire, kind):
    async with scripted(wire, close=True) as conn:
        await conn.request("GET", "/path")
        with pytest.raises(kind) as caught:
            await (await conn.getresponse()).read()
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is type(caught.value)
    for exc in (caught.value, copy):
        url = f"http://{conn.host}:{conn.port}/path"
        assert str(exc).startswith(f"GET {url}: ")
        assert (exc.method, exc.url, exc.request_sent) == ("GET", url, True)
        assert exc.response_started == (kind is IncompleteRead)
        assert exc.phase == (
            "receiving the body" if kind is IncompleteRead else "waiting for the head"
        )
        assert exc.elapsed >= 0
        assert conn.host in exc.peer
    assert getattr(copy, "partial", None) == getattr(caught.value, "partial", None)


async def test_a_connect_error_is_an_oserror():
    with refusing_address() as address:
        conn = HTTPConnection(*address)
        with pytest.raises(OSError, match=r"GET http://.*/: .*connection refused by 127.0.0.1:"):
            await conn.request("GET", "/")


@pytest.mark.parametrize(
    "call",
    [
        lambda conn: conn.request("GET", "/\N{SNOWMAN}"),
        lambda conn: conn.request("GET", "/", headers={"A": "\N{SNOWMAN}"}),
        lambda conn: conn.request("POST", "/", "\N{SNOWMAN}"),
    ],
    ids=["url", "value", "body"],
)
async def test_text_that_cannot_be_encoded(call):
    async with ScriptedServer() as server, HTTPConnection(*server.address) as conn:
        with pytest.raises(UnicodeEncodeError):
            await call(conn)
    assert server.connections == 0


async def test_the_error_for_a_body_outside_latin_1_tells_what_to_do():
    conn = HTTPConnection("example.com")
    with pytest.raises(
        UnicodeEncodeError, match=r"body \('€'\) is not valid Latin-1\. Use body\.enc"
    ):
        await conn.request("POST", "/", "5 €")


async def test_a_refused_tunnel():
    refuse = b"HTTP/1.1 407 Auth Needed\r\nContent-Length: 4\r\nX-A: v\r\n\r\nwhy!"
    async with ConnectProxy(refuse=refuse) as proxy, HTTPConnection(*proxy.address) as conn:
        conn.set_tunnel("example.com", 443)
        with pytest.raises(OSError, match="Tunnel connection failed: 407 Auth Needed") as caught:
            await conn.connect()
        assert isinstance(caught.value, aiohttpconn.TunnelError)
        assert (caught.value.status, caught.value.reason) == (407, "Auth Needed")
        assert dict(caught.value.headers)["X-A"] == "v"
        assert caught.value.body == b"why!"
        assert conn.sock is None


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("example.com:http", "nonnumeric port: 'http'"),
        ("example.com:8_0", "nonnumeric port: '8_0'"),
        ("example.com:-1", "nonnumeric port: '-1'"),
        ("example.com:65536", "a port must be 0 to 65535, got 65536"),
        ("exam ple.com", "not a host name or an IP address: 'exam ple.com'"),
        ("example\r\n.com", "not a host name or an IP address"),
        ("example\x7f.com", "not a host name or an IP address"),
    ],
)
def test_a_host_that_is_none(host, text):
    with pytest.raises(InvalidURL, match=text):
        HTTPConnection(host)


@pytest.mark.parametrize("char", [" ", "\t", "\r", "\n", "\0", "\x1f", "\x7f"])
async def test_a_target_with_a_control_character_or_a_space(char):
    async with ScriptedServer() as server, HTTPConnection(*server.address) as conn:
        with pytest.raises(InvalidURL, match="URL can't contain control characters") as caught:
            await conn.request("GET", f"/a{char}b")
        assert f"(found at least {char!r})" in str(caught.value)
    assert server.connections == 0


# States


async def test_a_request_before_getresponse_is_refused(scripted):
    async with scripted(HELLO) as conn:
        await conn.request("GET", "/")
        for begin in (conn.request("GET", "/"), None):
            with pytest.raises(CannotSendRequest, match="Request-sent"):
                await begin if begin is not None else conn.putrequest("GET", "/")
        assert (await conn.getresponse()).status == 200


async def test_putrequest_twice_is_refused(scripted):
    async with scripted(HELLO) as conn:
        conn.putrequest("GET", "/")
        with pytest.raises(CannotSendRequest, match="Request-started"):
            conn.putrequest("GET", "/")
        with pytest.raises(CannotSendRequest, match="Request-started"):
            await conn.request("GET", "/")
        await conn.endheaders()
        assert (await conn.getresponse()).status == 200


async def test_headers_out_of_order_are_refused(scripted):
    async with scripted(HELLO) as conn:
        with pytest.raises(CannotSendHeader):
            conn.putheader("A", "b")
        with pytest.raises(CannotSendHeader):
            await conn.endheaders()
        conn.putrequest("GET", "/")
        await conn.endheaders()
        with pytest.raises(CannotSendHeader):
            conn.putheader("A", "b")
        with pytest.raises(CannotSendHeader):
            await conn.endheaders()
        assert (await conn.getresponse()).status == 200


async def test_getresponse_without_a_request_is_refused(scripted):
    async with scripted(HELLO) as conn:
        with pytest.raises(ResponseNotReady, match="Idle"):
            await conn.getresponse()
        conn.putrequest("GET", "/")
        with pytest.raises(ResponseNotReady, match="Request-started"):
            await conn.getresponse()
        await conn.endheaders()
        assert (await conn.getresponse()).status == 200
        with pytest.raises(ResponseNotReady, match="Idle"):
            await conn.getresponse()


async def test_a_request_is_allowed_while_the_previous_body_is_unread():
    async with ScriptedServer([expect(), send(HELLO), expect(), send(AGAIN)]) as server:
        async with HTTPConnection(*server.address) as conn:
            await conn.request("GET", "/1")
            first = await conn.getresponse()
            await conn.request("GET", "/2")
            with pytest.raises(ResponseNotReady, match="Request-sent"):
                await conn.getresponse()
            assert await first.read() == b"hi"
            assert await (await conn.getresponse()).read() == b"again"
        assert server.connections == 1


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", id="it-says-so"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", id="until-the-end"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", id="http-1.0"),
    ],
)
async def test_a_response_that_closes_takes_the_socket(head):
    first = [expect(), send(head, b"hel"), wait(asked := asyncio.Event()), send(b"lo"), close()]
    async with ScriptedServer(first, [expect(), send(HELLO), read_all()]) as server:
        async with HTTPConnection(*server.address) as conn:
            await conn.request("GET", "/1")
            response = await conn.getresponse()
            assert response.will_close
            assert conn.sock is None
            assert response.fileno() > 0
            await conn.request("GET", "/2")
            assert await (await conn.getresponse()).read() == b"hi"
            asked.set()
            assert await response.read() == b"hello"
        assert server.connections == 2


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("auto_open", [1, 0])
async def test_a_disconnect_closes_and_a_retry_reconnects(end, auto_open):
    answers = Answers(b"", end=end)
    async with ScriptedServer(answers) as server, HTTPConnection(*server.address) as conn:
        await conn.connect()
        conn.auto_open = auto_open
        await conn.request("GET", "/")
        with pytest.raises(ConnectionError) as caught:
            await conn.getresponse()
        assert isinstance(caught.value, RemoteDisconnected) == (end == "close")
        assert conn.sock is None
        if auto_open:
            assert not await answers.reused(conn, server)
        else:
            with pytest.raises(NotConnected):
                await conn.request("GET", "/")


async def test_close_makes_any_state_idle(scripted):
    async with scripted(HELLO) as conn:
        conn.putrequest("GET", "/")
        conn.close()
        conn.putrequest("GET", "/")
        await conn.endheaders()
        conn.close()
        await conn.request("GET", "/")
        response = await conn.getresponse()
        conn.close()
        assert response.closed
        assert conn.sock is None
        with pytest.raises(ResponseNotReady, match="Idle"):
            await conn.getresponse()


async def test_a_connection_is_an_async_context(scripted):
    async with scripted(HELLO) as conn:
        async with conn as same:
            assert same is conn
            await conn.request("GET", "/")
            await conn.getresponse()
        assert conn.sock is None
