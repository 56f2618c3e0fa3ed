"""Response: its head, its text, its lines, its links, where its time went; streams."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gzip
import io
import itertools
import json
import pickle
import re
import zlib
from time import monotonic
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttpconn import (
    BodyTooLarge,
    Client,
    ConnectError,
    ContentDecodingError,
    HTTPException,
    IncompleteRead,
    ReadTimeout,
    RedirectRefused,
    RemoteDisconnected,
    Request,
    Response,
    Retry,
    StatusError,
    Timeout,
    Timings,
    TotalTimeout,
)
from aiohttpconn.client import response as response_module
from aiohttpconn.client.content.codecs import DECODERS
from aiohttpconn.client.links import parse_links
from aiohttpconn.client.response import ERROR_BODY
from aiohttpconn.testing import (
    Reply,
    ScriptedServer,
    answer,
    close,
    close_at,
    expect,
    read_all,
    send,
    serve,
    stall_at,
    wait,
)

from .support.clocks import Clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OK = b"HTTP/1.1 200 OK\r\n"


def respond(content: bytes, *fields: str, status: str = "200 OK") -> bytes:
    """Return a response with *content*, of known length."""
    lines = "".join(f"{field}\r\n" for field in (*fields, f"Content-Length: {len(content)}"))
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1") + content


@contextlib.asynccontextmanager
async def answering(*pieces: bytes, **options: Any) -> AsyncIterator[tuple[Client, str]]:
    """Give a client, and the URL of a server that answers each request with *pieces*."""

    async def script(conn: Any) -> None:
        while True:
            await conn.read_request()
            await conn.send(*pieces)

    async with (
        ScriptedServer(script) as server,
        Client(trust_env=False, **options) as client,
    ):
        yield client, server.url


async def get(*pieces: bytes, path: str = "", **options: Any) -> Response:
    async with answering(*pieces) as (client, url):
        return await client.get(f"{url}{path}", **options)


async def all_lines(response: Response, **options: Any) -> list[str]:
    return [line async for line in response.iter_lines(**options)]


# ----------------------------------------------------------------------------- the head


async def test_a_response_tells_what_its_head_says():
    head = (
        b"HTTP/1.1 201 Made It\r\nContent-Type: text/plain\r\nX-A: 1\r\nx-a: 2\r\n"
        b"Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2; Secure\r\nSet-Cookie: gone=; Max-Age=0\r\n"
        b"Content-Length: 2\r\n\r\n"
    )
    response = await get(head + b"hi", path="p?q=1")
    assert (response.status, response.reason, response.method) == (201, "Made It", "GET")
    assert response.ok is True
    assert response.headers["content-TYPE"] == "text/plain"
    assert response.headers.get_all("X-A") == ["1", "2"]
    assert response.cookies == {"a": "1", "b": "2"}
    assert response.content == b"hi"
    assert response.history == ()
    assert response.links == {}
    assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+/p\?q=1", response.url)
    assert response.raw.raw_headers[1] == ("X-A", "1")
    assert repr(response) == f"<Response [201 Made It] GET {response.url}>"


async def test_reused_and_peername_tell_of_the_connection():
    async with answering(respond(b"")) as (client, url):
        first, second = await client.get(url), await client.get(url)
    assert (first.reused, second.reused) == (False, True)
    assert url == f"http://{first.peername[0]}:{first.peername[1]}/"


async def test_url_is_without_credentials():
    async with serve(lambda request: "") as server, Client(trust_env=False) as client:
        url = server.url.replace("http://", "http://user:secret@")
        response = await client.get(f"{url}a#top")
        assert response.url == f"{server.url}a#top"
        assert "secret" not in repr(response)
        assert "top" not in repr(response)
        assert server.requests[0].headers["Authorization"] == "Basic dXNlcjpzZWNyZXQ="


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "500 Oh No", "599 "])
async def test_raise_for_status_raises_for_400_and_more(status):
    response = await get(respond(b"why", status=status), path="p")
    assert response.ok is False
    with pytest.raises(StatusError) as caught:
        response.raise_for_status()
    assert str(caught.value) == f"GET {response.url}: {status}".rstrip()
    assert caught.value.status == int(status[:3])
    assert caught.value.response is response
    assert caught.value.response.text == "why"


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified", "399 Odd"])
async def test_raise_for_status_returns_the_response_below_400(status):
    response = await get(respond(b"", status=status))
    assert response.raise_for_status() is response


async def test_a_long_reason_is_cut_where_it_is_shown():
    reason = "x" * 60_000
    response = await get(respond(b"", status=f"500 {reason}"))
    assert response.reason == reason
    assert len(repr(response)) < 300
    with pytest.raises(StatusError, match="500 xxxx") as caught:
        response.raise_for_status()
    assert len(str(caught.value)) < 300


async def test_a_long_url_is_cut_where_it_is_shown():
    response = await get(respond(b"[", status="404 No"), path="x" * 9000)
    shown = f"GET {response.url[:500]}..."
    assert repr(response) == f"<Response [404 No] {shown}>"
    with pytest.raises(StatusError) as caught:
        response.raise_for_status()
    assert str(caught.value) == f"{shown}: 404 No"
    with pytest.raises(ValueError, match="Expecting value") as told:
        response.json()
    assert told.value.__notes__ == [f"{shown}: 404, no Content-Type, b'['"]


# --------------------------------------------------------------------------------- text

EURO = "€"

TEXTS = {
    "the header": ("text/plain; charset=iso-8859-15", b"\xa4", EURO),
    "the header, quoted": ('text/plain; a=b; CHARSET = "iso-8859-15"', b"\xa4", EURO),
    "a BOM before the header": ("text/plain; charset=koi8-r", b"\xef\xbb\xbf\xe2\x82\xac", EURO),
    "a BOM of UTF-16 before the header": ("text/html; charset=utf-8", b"\xfe\xff\x20\xac", EURO),
    "the header before meta": (
        "text/html; charset=utf-8",
        b"<meta charset=koi8-r>\xe2\x82\xac",
        EURO,
    ),
    "latin-1 is what browsers take it for": ("text/plain; charset=iso-8859-1", b"\x80", EURO),
    "ascii is what browsers take it for": ("text/plain; charset=us-ascii", b"\x80", EURO),
    "utf-16 with its BOM, big": ("text/plain; charset=utf-16", b"\xfe\xff\x20\xac", EURO),
    "utf-16 with its BOM, little": ("text/plain; charset=utf-16", b"\xff\xfe\xac\x20", EURO),
    "utf-16 without a BOM": ("text/plain; charset=utf-16", b"\xac\x20", EURO),
    "utf-32 with its BOM, big": (
        "text/plain; charset=utf-32",
        b"\0\0\xfe\xff\0\0\x20\xac",
        EURO,
    ),
    "utf-32 without a BOM": ("text/plain; charset=utf-32", b"\xac\x20\0\0", EURO),
    "utf-32, cut": ("text/plain; charset=utf-32", b"\xac\x20", "\ufffd"),
    "a BOM of UTF-8": ("text/plain", b"\xef\xbb\xbf\xe2\x82\xac", EURO),
    "a BOM of UTF-8, said twice": ("text/plain; charset=utf-8", b"\xef\xbb\xbf\xe2\x82\xac", EURO),
    "a BOM of UTF-16": ("text/plain", b"\xff\xfe\xac\x20", EURO),
    "a BOM of UTF-16, the other": ("", b"\xfe\xff\x20\xac", EURO),
    "a BOM before meta": ("text/html", b"\xef\xbb\xbf<meta charset=koi8-r>\xe2\x82\xac", EURO),
    "meta": ("text/html", b"<meta charset=windows-1252>\x80", EURO),
    "meta, without a type": ("", b'<html><META\nname=x charset = "windows-1252" />\x80', EURO),
    "meta, the old one": (
        "text/html",
        b'<meta http-equiv="Content-Type" content="text/html; charset=windows-1252">\x80',
        EURO,
    ),
    "meta that says UTF-16 means UTF-8": (
        "text/html",
        b"<meta charset=utf-16le>\xe2\x82\xac",
        EURO,
    ),
    "meta that says UTF-32 means UTF-8": ("text/html", b"<meta charset=utf-32>\xe2\x82\xac", EURO),
    "no meta in plain text": ("text/plain", b"<meta charset=windows-1252>\xe2\x82\xac", EURO),
    "no meta beyond 1024 bytes": (
        "text/html",
        b" " * 1024 + b"<meta charset=windows-1252>\xe2\x82\xac",
        EURO,
    ),
    "xml": ("application/xml", b"<?xml version='1.0' encoding='windows-1252'?>\x80", EURO),
    "xml, not at the beginning": (
        "application/xml",
        b" <?xml version='1.0' encoding='windows-1252'?>\xe2\x82\xac",
        EURO,
    ),
    "UTF-8": ("application/json", b"\xe2\x82\xac", EURO),
    "UTF-8, broken": ("text/plain", b"a\xffb", "a\ufffdb"),
    "UTF-8, cut": ("text/plain", b"\xe2\x82", "\ufffd"),
    "nothing": ("text/plain; charset=utf-16", b"", ""),
}


@pytest.mark.parametrize("name", TEXTS)
async def test_text_is_decoded_by(name):
    content_type, content, end = TEXTS[name]
    fields = [f"Content-Type: {content_type}"] if content_type else []
    response = await get(respond(content, *fields))
    assert response.text.endswith(end)
    assert not response.text.startswith("\ufeff")
    assert response.content == content


NONSENSE = """
    nonsense undefined hex rot13 base64 zip bz2 idna punycode unicode_escape raw_unicode_escape
    utf-7 quopri uu a..b \x41-\x00 __builtins__ ../../etc/passwd mbcs oem
""".split(" ")


@pytest.mark.parametrize("name", [name.strip() for name in NONSENSE if name.strip("\n ")])
async def test_a_charset_that_is_none_counts_for_nothing(name):
    shown = "".join(char for char in name if char > "\x1f")
    response = await get(
        respond(b"\xe2\x82\xac+AD4-", f"Content-Type: text/plain; charset={shown}")
    )
    assert (response.text, response.encoding) == ("€+AD4-", "utf-8")


async def test_encoding_is_what_text_uses():
    response = await get(respond(b"\x80", "Content-Type: text/plain; charset=latin1"))
    assert (response.encoding, response.text) == ("cp1252", "€")
    assert response.text is response.text


# --------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
async def test_json_in_any_utf(encoding):
    response = await get(respond('{"ä": [1, null]}'.encode(encoding)))
    assert response.json() == {"ä": [1, None]}


@pytest.mark.parametrize(
    ("charset", "content", "text"),
    [
        ("gbk", b'"\xd6\xd0"', "中"),
        ("iso-8859-1", b'"\xe4\x80\x81"', "ä€\x81"),
        ("utf-16", b'"\0\xe4\0"\0', "ä"),
        ("utf-16", b'\xfe\xff\0"\0\xe4\0"', "ä"),
        ("utf-32", b'\xff\xfe\0\0"\0\0\0\xe4\0\0\0"\0\0\0', "ä"),
        ("koi8-r", b'\xef\xbb\xbf"\xc3\xa4"', "ä"),
        ("utf-8", b'\xef\xbb\xbf"\xc3\xa4"', "ä"),
        ("utf-9", b'"\xc3\xa4"', "ä"),
    ],
)
async def test_json_has_the_charset_that_is_declared(charset, content, text):
    field = f"Content-Type: application/json; charset={charset}"
    assert (await get(respond(content, field))).json() == text
    # The default is for text: JSON is UTF-8 where nothing else is said.
    assert (await get(respond(b'"\xc3\xa4"'), default_encoding="koi8-r")).json() == "ä"


async def test_json_has_the_encoding_that_is_set():
    response = await get(respond(b'"\xd6\xd0"', "Content-Type: application/json; charset=utf-8"))
    with pytest.raises(UnicodeDecodeError):
        response.json()
    response.encoding = "gb2312"
    assert response.json() == "中"
    for charset, content in (("gbk", b'"\xff"'), ("iso-2022-kr", b'""'), ("cp1253", b'"\xd2"')):
        response = await get(respond(content, f"Content-Type: text/json; charset={charset}"))
        with pytest.raises(UnicodeDecodeError) as caught:
            response.json()
        assert caught.value.__notes__ == [
            f"GET {response.url}: 200, text/json; charset={charset}, {content!r}"
        ]


async def test_json_may_be_read_by_another_function():
    given = []

    def loads(document, **options):
        given.append((document, options))
        return json.loads(document, **options)

    async with answering(respond('{"a": "ä"}'.encode()), json_loads=loads) as (client, url):
        assert (await client.get(url)).json(parse_int=str) == {"a": "ä"}
        async with client.stream("GET", url) as response:
            await response.read()
            assert response.json() == {"a": "ä"}
        assert given == [('{"a": "ä"}'.encode(), {"parse_int": str}), ('{"a": "ä"}'.encode(), {})]
    for fields, content, document in (
        ((), b'\xef\xbb\xbf"\xc3\xa4"', b'"\xc3\xa4"'),
        ((), '"ä"'.encode("utf-16"), '"ä"'),
        (["Content-Type: application/json; charset=latin1"], b'"\xe4"', '"ä"'),
    ):
        async with answering(respond(content, *fields), json_loads=loads) as (client, url):
            assert (await client.get(url)).json() == "ä"
            assert given[-1] == (document, {})

    def refuse(document):
        raise KeyError("no")

    async with answering(respond(b"[]"), json_loads=refuse) as (client, url):
        with pytest.raises(KeyError) as caught:
            (await client.get(url)).json()
        assert caught.value.__notes__ == [f"GET {url}: 200, no Content-Type, b'[]'"]
    with pytest.raises(TypeError, match=r"^json_loads must be a callable, or None, not str$"):
        Client(json_loads="orjson")


async def test_json_takes_the_options_of_json_loads():
    response = await get(respond(b'{"a": 0.1}'))
    assert response.json(parse_float=str) == {"a": "0.1"}


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<html>", json.JSONDecodeError),
        (b"", json.JSONDecodeError),
        (b'"\xff"', UnicodeDecodeError),
    ],
)
async def test_json_that_is_none_says_what_came_instead(content, kind):
    response = await get(respond(content, "Content-Type: text/html", status="502 Bad Gateway"))
    with pytest.raises(kind) as caught:
        response.json()
    assert isinstance(caught.value, ValueError)
    assert caught.value.__notes__ == [f"GET {response.url}: 502, text/html, {content!r}"]


async def test_json_that_is_nested_too_deep_is_a_value_error():
    response = await get(respond(b"[" * 200_000, "Content-Type: application/json"))
    with pytest.raises(ValueError, match="nested") as caught:
        response.json()
    assert str(caught.value) == (
        f"GET {response.url}: 200, application/json, {b'[' * 100!r}... (200000 bytes): its lists "
        "and objects are nested too deep for json.loads"
    )


async def test_json_shows_no_more_than_the_beginning():
    response = await get(respond(b"x" * 5000))
    with pytest.raises(ValueError, match="Expecting value") as caught:
        response.json()
    (note,) = caught.value.__notes__
    assert "no Content-Type" in note
    assert len(note) < 300


# -------------------------------------------------------------------------------- links

LINKS = {
    "one": (['<b>; rel="next"'], {"next": "http://h/d/b"}),
    "a token": (["</b>; rel=next"], {"next": "http://h/b"}),
    "several, in one field": (
        ['<?page=2>; rel="next", <?page=9>; rel="last"'],
        {"next": "http://h/d/a?page=2", "last": "http://h/d/a?page=9"},
    ),
    "several, in two": (
        ['<b>; rel="next"', "<c>;rel=prev"],
        {"next": "http://h/d/b", "prev": "http://h/d/c"},
    ),
    "two relations": (['<b>; rel="next Last"'], {"next": "http://h/d/b", "last": "http://h/d/b"}),
    "the first of a relation": (["<b>; rel=next, <c>; rel=next"], {"next": "http://h/d/b"}),
    "the first rel of a link": (["<b>; rel=next; rel=evil"], {"next": "http://h/d/b"}),
    "a comma and a semicolon in quotes": (
        ['<b>; title="a, <x>; rel=evil"; rel=next'],
        {"next": "http://h/d/b"},
    ),
    "an escaped quote": (['<b>; title="a\\"; rel=evil; \\""; rel=next'], {"next": "http://h/d/b"}),
    "a comma in the URL": (["<b,c;d>; rel=next"], {"next": "http://h/d/b,c;d"}),
    "an absolute URL": (["<https://x.org/>; rel=next"], {"next": "https://x.org/"}),
    "no relation": (["<b>; title=x"], {"http://h/d/b": "http://h/d/b"}),
    "empty elements": (
        [", ,<b> ; rel = next ;; crossorigin ,, <c>; rel=last,"],
        {"next": "http://h/d/b", "last": "http://h/d/c"},
    ),
    "a url= of its own": (["<b>; url=evil; rel=next"], {"next": "http://h/d/b"}),
    "nonsense": (["b; rel=next"], {}),
    "nonsense behind a link": (["<b>; rel=next nonsense <c>; rel=last"], {"next nonsense <c>": ""}),
    "unfinished": (["<b; rel=next"], {}),
    "unfinished quotes": (['<b>; rel="next'], {}),
    "a URL that is none": (["<http://[x>; rel=next, <b>; rel=last"], {"last": "http://h/d/b"}),
}


def links(*values: str) -> dict[str, dict[str, str]]:
    headers = [("Link", value) for value in values]
    return Response(200, headers=headers, url="http://h/d/a").links


@pytest.mark.parametrize("name", LINKS)
def test_links(name):
    values, expected = LINKS[name]
    found = {rel: link["url"] for rel, link in links(*values).items()}
    if name == "nonsense behind a link":
        # A value without quotes ends at the next separator; the rest after it is ignored.
        assert list(found.values()) == ["http://h/d/b"] * len(found)
    else:
        assert found == expected


def test_links_have_their_parameters():
    link = links('<b>; rel="next"; Title="B \\"2\\""; type=text/html; media')["next"]
    assert link == {
        "url": "http://h/d/b",
        "rel": "next",
        "title": 'B "2"',
        "type": "text/html",
        "media": "",
    }


async def test_links_of_a_real_response():
    fields = ('Link: </p?page=2>; rel="next"', "Link: <last>; rel=last")
    response = await get(respond(b"", *fields), path="a/b")
    base = response.url.removesuffix("a/b")
    assert response.links["next"]["url"] == f"{base}p?page=2"
    assert response.links["last"]["url"] == f"{base}a/last"


@given(st.text(alphabet='<>;,="\\ \tabrel', max_size=60))
def test_no_link_field_is_too_odd(value):
    for link in links(value).values():
        assert link["url"].startswith("http://h/")


def test_a_link_field_costs_no_more_than_it_is_long():
    for part in (
        "<a>" + "; x" * 20_000,
        "<a>" + '; t="' * 20_000,
        "<a>;" + "\t" * 60_000,
        "<" * 60_000,
    ):
        links(part)


def test_links_beyond_a_thousand_are_ignored():
    found = links(", ".join(f"<{i}>; rel=r{i}" for i in range(999)), "<x>; rel=x, <y>; rel=y")
    assert len(found) == 1000
    assert list(found)[-1] == "x"


@pytest.mark.parametrize(("base", "reference"), [(100_000, 1), (1, 100_000)])
def test_links_have_4_mi_characters_at_most(base, reference):
    base_url = f"http://h/{'b' * base}/"
    found = parse_links([f"<{'r' * reference}>; rel=r{i}" for i in range(100)], base_url)
    assert len(found) == 4 * 1024 * 1024 // (len(base_url) + reference)


# ------------------------------------------------------------------------------ streams

TEXT = "eins\nzwei äöü\r\n\r\n€\rdrei\n\nfünf"
LINES = ["eins", "zwei äöü", "", "€\rdrei", "", "fünf"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
async def test_lines_wherever_their_text_is_split(encoding):
    data = TEXT.encode(encoding)
    content_type = f"Content-Type: text/plain; charset={encoding}\r\n"
    head = OK + content_type.encode() + b"Transfer-Encoding: chunked\r\n\r\n"
    chunks = [b"%x\r\n%b\r\n" % (1, data[i : i + 1]) for i in range(len(data))]
    async with answering(head, *chunks, b"0\r\n\r\n") as (client, url):
        async with client.stream("GET", url) as response:
            assert await all_lines(response) == LINES
        whole = await client.get(url)
        assert await all_lines(whole) == LINES


@pytest.mark.parametrize("charset", ["utf-16", "utf-32"])
@pytest.mark.parametrize(
    "mark", [b"", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0", b"\0\0\xfe\xff", b"\xff"]
)
async def test_lines_in_any_order_of_bytes_are_those_of_the_text(charset, mark):
    for encoding in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        data = mark + "ab\n€\ud800".encode(encoding, "surrogatepass") + b"\0"
        head = OK + f"Content-Type: text/plain; charset={charset}\r\n".encode()
        head += b"Transfer-Encoding: chunked\r\n\r\n"
        chunks = [b"1\r\n%b\r\n" % data[i : i + 1] for i in range(len(data))]
        async with answering(head, *chunks, b"0\r\n\r\n") as (client, url):
            whole = await client.get(url)
            async with client.stream("GET", url) as response:
                assert await all_lines(response) == await all_lines(whole)
        assert "\n".join(await all_lines(whole)) == whole.text
        # Of the other width, or in the other order, it is no error either.
        assert "\ufffd" in whole.text or len(data) % 2 == 0


@given(st.lists(st.integers(0, len(TEXT.encode()))), st.booleans())
async def test_lines_do_not_depend_on_the_pieces(cuts, coded):
    data = TEXT.encode()
    if coded:
        data = gzip.compress(data, mtime=0)
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    pieces = [data[a:b] for a, b in itertools.pairwise(places)]
    head = OK + b"Transfer-Encoding: chunked\r\n" + b"Content-Encoding: gzip\r\n" * coded + b"\r\n"
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    async with answering(head, *chunks, b"0\r\n\r\n") as (client, url):
        async with client.stream("GET", url) as response:
            assert await all_lines(response) == LINES


@pytest.mark.parametrize(
    ("content_type", "content", "lines"),
    [
        ("", b"<meta charset=koi8-r>\n\xe2", ["<meta charset=koi8-r>", "Б"]),
        ("text/html", b"<!--<meta charset=gbk>--><meta charset=koi8-r>\n\xe2", [ANY, "Б"]),
        ("text/html; charset=koi8-r", b"\xef\xbb\xbf1\n\xe2\x82\xac", ["1", "€"]),
        ("application/xml", b"<?xml version='1.0' encoding='big5'?>\n\xa4\xa4", [ANY, "中"]),
        ("text/html", b"<?xml encoding='big5'?><meta charset=sjis>\n\x82\xa0", [ANY, "あ"]),
        ("text/html", b"<?xml encoding='big5'?>\n\xa4\xa4", [ANY, "中"]),
        ("", b"\xff\xfea\0\n\0\xac\x20", ["a", "€"]),
        ("text/html; charset=gb2312", b"\x80\n\x81\x30\x84\x36", ["€", "¥"]),
        ("text/plain", b"<meta charset=koi8-r>\n\xe2\x82\xac\xff", [ANY, "€\ufffd"]),
        ("text/plain; charset=euc-kr", b"\x8c\x63\n\x8c\x63", ["똠", "똠"]),
        ("text/plain; charset=iso-2022-jp", b"\x1b$B-!\x1b(B\n1", ["①", "1"]),
        ("text/plain; charset=hz-gb-2312", b"~{<:Ky2;\n", ["\ufffd"]),
        ("", b"\xef", ["\ufffd"]),
        ("", b"", []),
        ("text/html", b"", []),
    ],
)
async def test_lines_of_a_stream_have_the_charset_of_the_text(content_type, content, lines):
    head = OK + f"Content-Type: {content_type}\r\n".encode() * bool(content_type)
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    chunks = [b"1\r\n%b\r\n" % content[i : i + 1] for i in range(len(content))]
    async with answering(head, *chunks, b"0\r\n\r\n") as (client, url):
        async with client.stream("GET", url) as response:
            assert await all_lines(response) == lines
        whole = await client.get(url)
        assert whole.text.removesuffix("\n").split("\n") == (lines or [""])


async def test_lines_of_plain_text_come_as_they_arrive():
    for content_type in ("text/plain", "text/event-stream", ""):
        go_on = asyncio.Event()
        data = respond(b"1\n2\n", *[f"Content-Type: {content_type}"] * bool(content_type))
        async with (
            ScriptedServer([answer(data, fault=stall_at(len(data) - 2, go_on))]) as server,
            Client(trust_env=False) as client,
            client.stream("GET", server.url) as response,
        ):
            lines = response.iter_lines()
            assert await anext(lines) == "1"
            go_on.set()
            assert [line async for line in lines] == ["2"]


async def test_lines_that_wait_for_a_charset_come_before_the_error():
    data = respond(b"<p>\n<i>\n...", "Content-Type: text/html")
    async with (
        ScriptedServer([answer(data, fault=close_at(len(data) - 3))]) as server,
        Client(trust_env=False) as client,
        client.stream("GET", server.url) as response,
    ):
        lines = response.iter_lines()
        assert [await anext(lines), await anext(lines)] == ["<p>", "<i>"]
        with pytest.raises(IncompleteRead):
            await anext(lines)


async def test_the_encoding_may_be_set():
    data = respond(b"\xe2\x82\xac", "Content-Type: text/plain; charset=utf-8")
    async with answering(data) as (client, url):
        response = await client.get(url)
        assert (response.encoding, response.text) == ("utf-8", "€")
        response.encoding = "KOI8-R"
        assert (response.encoding, response.text) == ("koi8-r", "Б┌╛")
        assert await all_lines(response) == ["Б┌╛"]
        response.encoding = None
        assert (response.encoding, response.text) == ("utf-8", "€")
        with pytest.raises(LookupError, match=r"^encoding is not the name of a charset: 'utf-9'; "):
            response.encoding = "utf-9"
        with pytest.raises(TypeError, match=r"^encoding must be the name of a charset, not int$"):
            response.encoding = 8
        assert response.text == "€"
        async with client.stream("GET", url) as response:
            response.encoding = "gbk"
            assert response.encoding == "gb18030"
            assert await all_lines(response) == ["鈧\ufffd"]


async def test_a_default_encoding_is_for_what_declares_none():
    given = []

    def detect(content):
        given.append(content)
        return "Big5" if content == b"\xa4\xa4" else None

    async with answering(respond(b"\xa4\xa4")) as (client, url):
        for default, text in (("big5", "中"), (detect, "中"), ("latin-1", "¤¤")):
            response = await client.get(url, default_encoding=default)
            assert (response.text, response.text) == (text, text)
            async with client.stream("GET", url, default_encoding=default) as response:
                assert await all_lines(response) == [text]
        assert given == [b"\xa4\xa4"] * 2
    declared = respond(b"\xc3\xa4", "Content-Type: text/plain; charset=utf-8")
    async with answering(declared, default_encoding=detect) as (client, url):
        assert (await client.get(url)).text == "ä"
        async with client.stream("GET", url) as response:
            assert await all_lines(response) == ["ä"]
    async with answering(respond(b"\xc3\xa4"), default_encoding=detect) as (client, url):
        assert (await client.get(url)).text == "ä"
    assert given[2:] == [b"\xc3\xa4"]


@pytest.mark.parametrize(
    ("default", "error", "text"),
    [
        ("utf-9", LookupError, "default_encoding is not the name of a charset: 'utf-9'; known are"),
        ("rot13", LookupError, "default_encoding is not the name of a charset: 'rot13'; known are"),
        (8, TypeError, "default_encoding must be the name of a charset, not int"),
        (None, TypeError, "default_encoding must be the name of a charset, not NoneType"),
    ],
)
async def test_a_default_encoding_is_checked_where_it_is_given(default, error, text):
    with pytest.raises(error, match=f"^{re.escape(text)}"):
        Client(default_encoding=default)
    async with answering(respond(b"x")) as (client, url):
        with pytest.raises(error, match=f"^{re.escape(text)}"):
            await client.get(url, default_encoding=default)


@pytest.mark.parametrize(("name", "error"), [("utf-9", LookupError), (8, TypeError)])
async def test_a_default_encoding_s_result_is_checked(name, error):
    response = await get(respond(b"x"), default_encoding=lambda content: name)
    with pytest.raises(error, match=r"^default_encoding's result "):
        response.text  # noqa: B018 - a property that raises


@pytest.mark.parametrize("content", [b"x" * 11 + b"\n", b"x" * 11, b"1\n" + b"x" * 11 + b"\n2"])
@pytest.mark.parametrize("cut", [0, 4, 11])
async def test_a_line_that_is_too_long_is_an_error(content, cut):
    data = respond(content)
    at = len(data) - len(content) + cut
    async with answering(*filter(None, (data[:at], data[at:]))) as (client, url):
        async with client.stream("GET", url) as response:
            with pytest.raises(BodyTooLarge) as caught:
                await all_lines(response, max_line=10)
            assert str(caught.value) == (
                f"GET {url}: a line has more than 10 characters: iter_lines(max_line=...) "
                "allows longer ones"
            )
        async with client.stream("GET", url) as response:
            assert "x" * 11 in await all_lines(response, max_line=11)


async def test_bytes_come_in_pieces_of_the_size_that_was_asked_for():
    content = bytes(range(256)) * 5
    for fields, data in (
        ((), content),
        (("Content-Encoding: gzip",), gzip.compress(content)),
        (("Content-Encoding: deflate, gzip",), gzip.compress(zlib.compress(content))),
    ):
        async with answering(respond(data, *fields)) as (client, url):
            for n in (1, 100, 1280, 5000, None):
                async with client.stream("GET", url) as response:
                    pieces = [piece async for piece in response.iter_bytes(n)]
                    assert b"".join(pieces) == content
                    if n is not None:
                        assert {len(piece) for piece in pieces[:-1]} <= {n}
                whole = await client.get(url)
                assert [p async for p in whole.iter_bytes(n)] == (pieces if n else [content])


async def test_pieces_come_as_they_arrive():
    go_on = asyncio.Event()
    response_ = respond(b"first, second")
    async with (
        ScriptedServer([answer(response_, fault=stall_at(len(response_) - 8, go_on))]) as server,
        Client(trust_env=False) as client,
    ):
        async with client.stream("GET", server.url) as response:
            pieces = response.iter_bytes()
            assert await anext(pieces) == b"first"
            go_on.set()
            assert await anext(pieces) == b", second"
            assert [piece async for piece in pieces] == []


@pytest.mark.parametrize("n", [0, -1])
async def test_a_piece_has_at_least_one_byte(n):
    response = await get(respond(b"hi"))
    with pytest.raises(ValueError, match=re.escape(f"iter_bytes(n) needs n above 0, got {n}")):
        [piece async for piece in response.iter_bytes(n)]


async def test_an_empty_stream_has_no_pieces_and_no_lines():
    for fields in ((), ("Content-Encoding: gzip",)):
        async with answering(respond(b"", *fields)) as (client, url):
            async with client.stream("GET", url) as response:
                assert [piece async for piece in response.iter_bytes()] == []
            async with client.stream("GET", url) as response:
                assert await all_lines(response) == []
            async with client.stream("GET", url) as response:
                assert await response.read() == b""
            assert (await client.get(url)).content == b""


async def test_a_stream_can_be_read_whole():
    async with answering(respond(gzip.compress(b'{"a": 1}'), "Content-Encoding: gzip")) as (
        client,
        url,
    ):
        async with client.stream("GET", url) as response:
            with pytest.raises(RuntimeError) as caught:
                response.content  # noqa: B018
            assert str(caught.value) == f"{response!r} is a stream: await response.read() first"
            assert await response.read() == b'{"a": 1}'
            assert (response.content, response.text, response.json()) == (
                b'{"a": 1}',
                '{"a": 1}',
                {"a": 1},
            )
            assert await response.read() == b'{"a": 1}'
            assert await all_lines(response) == ['{"a": 1}']
        # Its body stays.
        assert response.json() == {"a": 1}


READS = {
    "read": lambda response: response.read(),
    "iter_bytes": lambda response: anext(response.iter_bytes()),
    "iter_lines": lambda response: anext(response.iter_lines()),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("fields", [(), ("Content-Encoding: gzip",)])
async def test_a_stream_is_iterated_over_once(read, fields):
    content = gzip.compress(b"a\nb") if fields else b"a\nb"
    async with answering(respond(content, *fields)) as (client, url):
        async with client.stream("GET", url) as response:
            async for _ in response.iter_bytes(1):
                break
            with pytest.raises(RuntimeError) as caught:
                await READS[read](response)
            assert str(caught.value) == (
                f"{response!r}: the stream can be iterated over once, and has been"
            )
            with pytest.raises(RuntimeError, match="iterated over"):
                response.content  # noqa: B018


@pytest.mark.parametrize("read", READS)
async def test_a_stream_that_was_closed_says_so(read):
    async with answering(respond(b"hi")) as (client, url):
        async with client.stream("GET", url) as response:
            pass
        with pytest.raises(RuntimeError) as caught:
            await READS[read](response)
        assert str(caught.value) == (
            f"{response!r}: the stream was closed before it was read, by the end of "
            "'async with client.stream()' or by close()"
        )
        with pytest.raises(RuntimeError, match="the stream was closed"):
            response.content  # noqa: B018


async def test_a_read_that_was_cancelled_can_be_made_again():
    go_on = asyncio.Event()
    data = respond(gzip.compress(b"hello"), "Content-Encoding: gzip")
    async with (
        ScriptedServer([answer(data, fault=stall_at(len(data) - 8, go_on))]) as server,
        Client(trust_env=False) as client,
    ):
        async with client.stream("GET", server.url) as response:
            task = asyncio.ensure_future(response.read())
            while response.raw.received == 0:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go_on.set()
            assert await response.read() == b"hello"


SMALL, LARGE = 64 * 1024, 64 * 1024 + 1


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("size", "stays"), [(0, True), (1, True), (SMALL, True), (2 * LARGE, False)]
)
async def test_a_stream_that_is_left_early_keeps_its_connection_if_little_is_left(
    size, stays, chunked
):
    rest = bytes(size)
    if chunked:
        stays = False  # nobody knows how much is left
        data = OK + b"Transfer-Encoding: chunked\r\n\r\n"
        body = b"%x\r\n%b\r\n" % (size, rest) if size else b""
        body += b"0\r\n\r\n"
    else:
        data, body = OK + b"Content-Length: %d\r\n\r\n" % size, rest
    gone = asyncio.Event()

    async def first(conn: Any) -> None:
        await conn.read_head()
        await conn.send(data)
        await gone.wait()
        await conn.send(body)
        await conn.read_head()
        await conn.send(respond(b"again"))

    async with (
        ScriptedServer([first], [answer(respond(b"new"))]) as server,
        Client(trust_env=False, limit=1) as client,
    ):
        async with client.stream("GET", server.url) as response:
            assert response.status == 200
        gone.set()
        response = await client.get(server.url)
        assert response.content == (b"again" if stays else b"new")
        assert response.reused is stays
        assert client.stats().open == 1


async def test_a_stream_that_is_closed_can_be_closed_again():
    async with answering(respond(b"hi")) as (client, url):
        async with client.stream("GET", url) as response:
            response.close()
            response.close()
        assert client.stats().leased == 0


async def test_an_error_in_the_block_gives_the_connection_back():
    async with answering(respond(b"hi")) as (client, url):
        with pytest.raises(KeyError):
            async with client.stream("GET", url):
                raise KeyError
        assert (client.stats().idle, client.stats().leased) == (1, 0)


# ------------------------------------------------------------ the body of an error status

PROBLEM = b'{"error": "nobody has the number 7"}'

ERRORS: dict[str, tuple[Reply, bytes]] = {
    "with a length": (Reply(PROBLEM, status=404), PROBLEM),
    "in chunks": (Reply([PROBLEM[:9], PROBLEM[9:]], status=500), PROBLEM),
    "coded": (
        Reply(gzip.compress(PROBLEM), status=404, headers={"Content-Encoding": "gzip"}),
        PROBLEM,
    ),
    "empty": (Reply(status=404), b""),
    "large": (Reply(b"x" * 1_000_000, status=404), b"x" * ERROR_BODY),
    "large and coded": (
        Reply(gzip.compress(PROBLEM * 10_000), status=404, headers={"Content-Encoding": "gzip"}),
        (PROBLEM * 10_000)[:ERROR_BODY],
    ),
    "cut short": (Reply(PROBLEM, status=404, fault=close_at(-5)), PROBLEM[:-5]),
    "not what its coding says": (
        Reply(PROBLEM, status=404, headers={"Content-Encoding": "gzip"}),
        b"",
    ),
}


@pytest.mark.parametrize("kind", ERRORS)
async def test_the_body_of_an_error_status_can_be_read_after_the_stream(kind):
    reply, content = ERRORS[kind]
    async with serve({"/": reply}) as server, Client(trust_env=False) as client:
        with pytest.raises(StatusError) as caught:
            async with client.stream("GET", server.url) as response:
                response.raise_for_status()
        error = caught.value
        assert error.response is response
        assert (error.response.content, error.response.text) == (content, content.decode())
        assert await error.response.read() == content
        if content == PROBLEM:
            assert error.response.json() == {"error": "nobody has the number 7"}
        assert client.stats().leased == 0


async def test_a_body_of_an_error_that_does_not_come_is_not_waited_for(monkeypatch, ticking):
    monkeypatch.setattr(response_module, "ERROR_SECONDS", 0.05)
    reply = Reply(PROBLEM, status=503, fault=stall_at(-5))
    async with serve({"/": reply}) as server, Client(trust_env=False) as client:
        with pytest.raises(StatusError) as caught:
            async with client.stream("GET", server.url) as response:
                response.raise_for_status()
        assert caught.value.response.content == PROBLEM[:-5]


async def test_a_cancelled_wait_for_the_body_of_an_error_closes_the_stream():
    reply = Reply(PROBLEM, status=503, fault=stall_at(-5))
    raised = asyncio.Event()
    responses: list[Response] = []

    async def fetch(client: Client, url: str) -> None:
        async with client.stream("GET", url) as response:
            responses.append(response)
            raised.set()
            response.raise_for_status()

    async with serve({"/": reply}) as server, Client(trust_env=False) as client:
        task = asyncio.ensure_future(fetch(client, server.url))
        await raised.wait()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        with pytest.raises(RuntimeError, match="the stream was closed before it was read"):
            responses[0].content  # noqa: B018


async def test_other_errors_leave_a_stream_at_once():
    """Also the one of another response."""
    async with serve({"/": Reply(PROBLEM, status=404)}) as server, Client() as client:
        for error in (ValueError("mine"), StatusError("of another")):
            with pytest.raises(type(error)):
                async with client.stream("GET", server.url) as response:
                    raise error
            with pytest.raises(RuntimeError, match="the stream was closed before it was read"):
                response.content  # noqa: B018


async def test_a_stream_that_was_iterated_over_has_no_content_in_its_error():
    async with serve({"/": Reply(PROBLEM, status=404)}) as server, Client() as client:
        with pytest.raises(StatusError) as caught:
            async with client.stream("GET", server.url) as response:
                assert [piece async for piece in response.iter_bytes()] == [PROBLEM]
                response.raise_for_status()
        with pytest.raises(RuntimeError, match="iterated over"):
            caught.value.response.content  # noqa: B018


async def test_what_cuts_a_stream_short_comes_behind_its_bytes():
    data = respond(b"hello world")
    async with (
        ScriptedServer([answer(data, fault=close_at(len(data) - 6))]) as server,
        Client(trust_env=False) as client,
    ):
        async with client.stream("GET", server.url) as response:
            got = []
            with pytest.raises(IncompleteRead, match=r"5 bytes read, 6 more expected") as caught:
                async for piece in response.iter_bytes():
                    got.append(piece)  # noqa: PERF401
            assert b"".join(got) == b"hello"
            assert str(caught.value).startswith(f"GET {server.url}: ")
        assert client.stats().open == 0


async def test_a_coded_stream_that_ends_early_is_an_error():
    data = gzip.compress(b"hello world")[:-4]
    async with answering(respond(data, "Content-Encoding: gzip")) as (client, url):
        for read in (
            lambda response: response.read(),
            lambda response: all_lines(response),
        ):
            async with client.stream("GET", url) as response:
                with pytest.raises(ContentDecodingError) as caught:
                    await read(response)
                assert str(caught.value).startswith(f"GET {url}: the body is cut short: its gzip")
            # The response was whole: its connection is as good as ever.
            assert client.stats().idle == 1


async def test_a_stream_of_a_slow_server_times_out(ticking):
    data = respond(b"hello")
    async with (
        ScriptedServer([answer(data, fault=stall_at(len(data) - 1))]) as server,
        Client(trust_env=False, timeout=Timeout(read=0.02)) as client,
    ):
        async with client.stream("GET", server.url) as response:
            with pytest.raises(ReadTimeout, match=r"no byte of the body within 0\.02 s"):
                await response.read()
        assert client.stats().open == 0


# ----------------------------------------------------------------------- bounds: T3, T5


def chunked(content: bytes, *fields: str) -> bytes:
    lines = "".join(f"{field}\r\n" for field in fields).encode()
    half = len(content) // 2
    body = b"".join(
        b"%x\r\n%b\r\n" % (len(part), part) for part in (content[:half], content[half:]) if part
    )
    return OK + lines + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


BODIES = {
    "plain": lambda content: respond(content),
    "chunked": lambda content: chunked(content),
    "coded": lambda content: respond(gzip.compress(content), "Content-Encoding: gzip"),
    "coded, chunked": lambda content: chunked(gzip.compress(content), "Content-Encoding: gzip"),
    "coded, not smaller": lambda content: respond(
        gzip.compress(content, 0), "Content-Encoding: gzip"
    ),
    "coded twice": lambda content: respond(
        gzip.compress(zlib.compress(content)), "Content-Encoding: deflate, gzip"
    ),
}
WAYS = {
    "whole": lambda client, url, most: client.get(url, max_body=most),
    "stream, read": None,
    "stream, iterated": None,
}


async def fetch(client: Client, url: str, way: str, **options: Any) -> bytes:
    if way == "whole":
        return (await client.get(url, **options)).content
    async with client.stream("GET", url, **options) as response:
        if way == "stream, read":
            return await response.read()
        return b"".join([piece async for piece in response.iter_bytes()])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("body", BODIES)
async def test_a_body_may_have_max_body_bytes_and_not_one_more(body, way):
    content = bytes(range(256)) * 8
    async with answering(BODIES[body](content)) as (client, url):
        assert await fetch(client, url, way, max_body=len(content)) == content
        with pytest.raises(BodyTooLarge, match=r"more than max_body=2047 bytes") as caught:
            await fetch(client, url, way, max_body=len(content) - 1)
        assert str(caught.value).startswith(f"GET {url}: ")
        assert client.stats().leased == 0
        # For the rest of the client nothing has changed.
        assert await fetch(client, url, way) == content


@pytest.mark.parametrize("way", WAYS)
async def test_a_body_that_announces_too_much_is_not_received(way):
    data = OK + b"Content-Length: 1000000000000\r\n\r\n" + b"x" * 2000
    async with answering(data) as (client, url):
        with pytest.raises(BodyTooLarge, match="max_body=1000 bytes") as caught:
            await fetch(client, url, way, max_body=1000)
        assert "1000000000000 announced" in str(caught.value)
        assert client.stats().open == 0


@pytest.mark.parametrize("way", WAYS)
async def test_a_body_without_an_end_is_not_received(way):
    async def endless(conn: Any) -> None:
        await conn.read_head()
        await conn.send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            await conn.send(b"400\r\n%b\r\n" % bytes(1024))

    async with ScriptedServer([endless]) as server, Client(trust_env=False) as client:
        with pytest.raises(BodyTooLarge, match="max_body=100000 bytes"):
            await fetch(client, server.url, way, max_body=100_000)
        assert client.stats().open == 0


async def test_max_body_is_for_what_the_caller_gets():
    """Without decompress= that is what came over the wire."""
    data = gzip.compress(b"x" * 5000)
    async with answering(respond(data, "Content-Encoding: gzip")) as (client, url):
        options: dict[str, Any] = {"decompress": False}
        assert await fetch(client, url, "whole", max_body=len(data), **options) == data
        with pytest.raises(BodyTooLarge):
            await fetch(client, url, "whole", max_body=len(data) - 1, **options)


BOMB = gzip.compress(bytes(9 * 1024 * 1024))


@pytest.mark.parametrize("way", WAYS)
async def test_a_bomb_is_found_by_its_ratio(way):
    async with answering(respond(BOMB, "Content-Encoding: gzip")) as (client, url):
        with pytest.raises(ContentDecodingError, match="looks like a decompression bomb"):
            await fetch(client, url, way)
        with pytest.raises(BodyTooLarge, match="max_body=1000 bytes"):
            await fetch(client, url, way, max_body=1000, max_ratio=None)


@pytest.mark.parametrize("way", WAYS)
async def test_too_many_codings_are_an_error_that_names_the_url(way):
    fields = ["Content-Encoding: gzip, gzip, gzip", "Content-Encoding: gzip,gzip,gzip"]
    async with answering(respond(b"x", *fields)) as (client, url):
        with pytest.raises(ContentDecodingError) as caught:
            await fetch(client, url, way)
        assert str(caught.value).startswith(f"GET {url}: the body has 6 content codings, at most 5")
        assert client.stats().leased == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("coding", "wire", "content"),
    [
        ("UTF-8", b"x", b"x"),
        ("none", b"x", b"x"),
        ("binary", b"x", b"x"),
        ("aws-chunked", b"x", b"x"),
        ("aws-chunked, gzip", gzip.compress(b"x", mtime=0), b"x"),
        ("rot13", b"x", b"x"),
        ("compress", b"\x1f\x9d\x90", b"\x1f\x9d\x90"),
        ("gzip, rot13", b"x", b"x"),
        ("x\xff, " * 20, b"x", b"x"),
        ("gzip", gzip.compress(b"x", mtime=0) + b"\r\n<!-- 3 ms -->", b"x"),
        ("deflate", zlib.compress(b"x") + bytes(4), b"x"),
    ],
)
async def test_a_body_is_delivered_whatever_its_coding_is_called(coding, wire, content, way):
    async with answering(respond(wire, f"Content-Encoding: {coding}")) as (client, url):
        assert await fetch(client, url, way) == content


@pytest.mark.parametrize("way", WAYS)
async def test_a_coding_that_is_not_installed_is_an_error(monkeypatch, way):
    def missing():
        raise ImportError("no brotli here")

    monkeypatch.setitem(DECODERS, "br", missing)
    async with answering(respond(b"x", "Content-Encoding: br")) as (client, url):
        with pytest.raises(ContentDecodingError) as caught:
            await fetch(client, url, way)
        assert str(caught.value).startswith(
            f"GET {url}: the content coding 'br' is not installed (no brotli here), installed are "
        )
        assert "; pip install 'aiohttpconn[brotli]'" in str(caught.value)
        assert await fetch(client, url, "whole", decompress=False) == b"x"


# ------------------------------------------------------------------------ bodies cut short

PLAIN = b"".join(b"%d hello\n" % i for i in range(100))
CODED = gzip.compress(PLAIN, mtime=0)
CUT = CODED[:-20]
PART = zlib.decompressobj(31).decompress(CUT)

# (response, its last bytes that are not sent, content, the type of its error)
CUT_SHORT = {
    "length": (respond(PLAIN), 10, PLAIN[:-10], IncompleteRead),
    "chunked": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(PLAIN), PLAIN),
        12,
        PLAIN[:-10],
        IncompleteRead,
    ),
    "chunked, before the last chunk": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(PLAIN), PLAIN),
        0,
        PLAIN,
        IncompleteRead,
    ),
    "coding": (respond(CUT, "Content-Encoding: gzip"), 0, PART, ContentDecodingError),
    "coding, to the end of the connection": (
        OK + b"Content-Encoding: gzip\r\n\r\n" + CUT,
        0,
        PART,
        ContentDecodingError,
    ),
    "length and coding": (respond(CODED, "Content-Encoding: gzip"), 20, PART, IncompleteRead),
    "chunked and coding": (
        OK
        + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"%x\r\n%b\r\n" % (len(CODED), CODED),
        22,
        PART,
        IncompleteRead,
    ),
    "nothing of it": (respond(CODED, "Content-Encoding: gzip"), len(CODED), b"", IncompleteRead),
}


@contextlib.asynccontextmanager
async def cutting(name: str) -> AsyncIterator[tuple[Client, str]]:
    """Give a client, and the URL of a server that cuts its answers short."""
    data, missing, _, _ = CUT_SHORT[name]

    async def script(conn: Any) -> None:
        await conn.read_request()
        await conn.send(data[: len(data) - missing])
        await conn.close()

    async with ScriptedServer(script) as server, Client(trust_env=False) as client:
        yield client, server.url


@pytest.mark.parametrize("most", [None, 10_000])
@pytest.mark.parametrize("name", CUT_SHORT)
async def test_the_error_of_a_body_cut_short_has_its_decoded_part(name, most):
    _, _, content, kind = CUT_SHORT[name]
    async with cutting(name) as (client, url):
        with pytest.raises(kind) as caught:
            await client.get(url, max_body=most)
        assert caught.value.partial == content
        assert str(caught.value).startswith(f"GET {url}: ")
        async with client.stream("GET", url, max_body=most) as response:
            with pytest.raises(kind) as caught:
                await response.read()
            assert caught.value.partial == content
        async with client.stream("GET", url, max_body=most) as response:
            got = []
            with pytest.raises(kind) as caught:
                async for piece in response.iter_bytes():
                    got.append(piece)  # noqa: PERF401
            # The pieces have been returned.
            assert (b"".join(got), caught.value.partial) == (content, b"")


@pytest.mark.parametrize("most", [None, 10_000])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_the_error_of_a_slow_body_has_its_decoded_part(framing, most, ticking):
    if framing == "length":
        data = respond(CODED, "Content-Encoding: gzip")[:-20]
    else:
        data = OK + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
        data += b"%x\r\n%b" % (len(CODED), CUT)
    stalled = answer(data + b"x", fault=stall_at(len(data)))
    # A body cut short may be kept, a slow one is no such body.
    options: dict[str, Any] = {"max_body": most, "truncated": "keep"}
    async with (
        ScriptedServer([stalled]) as server,
        Client(trust_env=False, timeout=Timeout(head=30, read=0.01), **options) as client,
    ):
        with pytest.raises(ReadTimeout) as caught:
            await client.get(server.url)
        assert caught.value.partial == PART


@pytest.mark.parametrize("most", [None, 10_000])
@pytest.mark.parametrize("name", CUT_SHORT)
async def test_a_body_cut_short_may_be_kept(name, most):
    _, _, content, _ = CUT_SHORT[name]
    options: dict[str, Any] = {"truncated": "keep", "max_body": most}
    async with cutting(name) as (client, url):
        response = await client.get(url, **options)
        assert (response.content, response.truncated) == (content, True)
        async with client.stream("GET", url, **options) as response:
            assert (await response.read(), response.truncated) == (content, True)
        async with client.stream("GET", url, **options) as response:
            assert response.truncated is False
            assert b"".join([piece async for piece in response.iter_bytes()]) == content
            assert response.truncated is True
        async with client.stream("GET", url, **options) as response:
            lines = await all_lines(response)
            assert "\n".join(lines) == content.decode().removesuffix("\n")


async def test_only_a_body_that_is_cut_short_is_kept():
    broken = CODED[:-8] + bytes(8)
    data = respond(broken, "Content-Encoding: gzip")
    async with answering(data, truncated="keep") as (client, url):
        for way in WAYS:
            with pytest.raises(ContentDecodingError, match="incorrect data check"):
                await fetch(client, url, way)
    with pytest.raises(ContentDecodingError) as caught:
        await get(data)
    assert (caught.value.partial, caught.value.truncated) == (PLAIN, False)
    async with answering(respond(CODED, "Content-Encoding: gzip"), truncated="keep") as (
        client,
        url,
    ):
        response = await client.get(url)
        assert (response.content, response.truncated) == (PLAIN, False)
    with pytest.raises(ValueError, match=r"^truncated must be 'error' or 'keep', got 'yes'$"):
        Client(truncated="yes")


# ------------------------------------------------------------------------------ timings


async def test_the_phases_of_a_request_add_up():
    reply = respond(b"hi")
    async with answering(reply[:-1], reply[-1:], resolve={"host.example": "127.0.0.1"}) as (
        client,
        url,
    ):
        url = url.replace("127.0.0.1", "host.example")
        for reused in (False, True):
            begin = monotonic()
            response = await client.get(url)
            took = monotonic() - begin
            timings = response.timings
            assert isinstance(timings, Timings)
            assert response.reused is reused
            assert timings.total == pytest.approx(sum(filter(None, timings)))
            assert 0 < timings.total <= took + 1e-3
            assert all(part is None or part >= 0 for part in timings)
            assert (timings.dns is None, timings.connect is None) == (reused, reused)
            assert (timings.proxy, timings.tls) == (None, None)
            assert timings.receive is not None


async def test_tls_has_a_phase(certificates):
    async with (
        ScriptedServer([answer(respond(b"hi"))], tls=certificates.server) as server,
        Client(trust_env=False, context=certificates.client) as client,
    ):
        response = await client.get(f"https://localhost:{server.port}/")
        timings = response.timings
        assert timings.tls is not None
        assert timings.tls > 0
        assert timings.proxy is None


async def test_a_tunnel_has_a_phase(certificates):
    from .support import ConnectProxy

    async with (
        ScriptedServer([answer(respond(b"hi"))], tls=certificates.server) as server,
        ConnectProxy() as proxy,
        Client(trust_env=False, context=certificates.client, proxy=proxy.url) as client,
    ):
        timings = (await client.get(f"https://localhost:{server.port}/")).timings
        assert timings.proxy is not None
        assert timings.proxy > 0


async def test_a_wait_for_a_connection_is_queue():
    go_on = asyncio.Event()
    data = respond(b"")
    async with (
        ScriptedServer([answer(data, fault=stall_at(0, go_on)), answer(data)]) as server,
        Client(trust_env=False, limit=1) as client,
    ):
        with Clock() as clock:
            first = asyncio.ensure_future(client.get(server.url))
            await server.wait_connections(1)
            second = asyncio.ensure_future(client.get(server.url))
            while not client.stats().queued:
                await asyncio.sleep(0)
            clock.advance(5)
            go_on.set()
            await first
            timings = (await second).timings
        assert (timings.queue, timings.wait) == (pytest.approx(5), 0)


async def test_receive_is_known_when_a_stream_has_ended():
    for read in READS.values():
        go = asyncio.Event()
        wire = respond(b"hi")
        script = [expect(), send(wire[:-1]), wait(go), send(wire[-1:])]
        async with ScriptedServer(script) as server, Client(trust_env=False) as client:
            async with client.stream("GET", server.url) as response:
                assert response.timings.receive is None
                go.set()
                await read(response)
                if read is READS["read"]:
                    assert response.timings.receive is not None
                    assert response.timings == response.raw.timings


async def test_a_body_in_pieces_counts_as_sent_when_its_last_byte_is():
    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    async with answering(respond(b"")) as (client, url):
        response = await client.post(url, content=body())
        assert response.timings.send > 0


async def test_redirects_have_timings_of_their_own():
    replies = {"/a": Reply(status=302, headers={"Location": "/b"}), "/b": "here"}
    async with serve(replies) as server, Client(trust_env=False) as client:
        response = await client.get(f"{server.url}a")
        (first,) = response.history
        assert first.timings.connect is not None
        assert response.timings.connect is None
        assert first.content == b""
        assert (first.status, first.headers["Location"], first.url) == (302, "/b", f"{server.url}a")


async def test_raw_is_the_response_of_the_connection():
    async with answering(respond(b"hi", "X-A: b")) as (client, url):
        response = await client.get(url)
        assert response.raw.getheader("x-a") == "b"
        assert response.raw.version == 11
        assert response.raw.isclosed()
        assert await response.raw.read() == b""


async def test_unread_bytes_of_a_response_are_no_mans():
    """Bytes after a response close the connection, and no caller sees them."""
    script = [answer(respond(b"hi") + respond(b"smuggled"))]
    async with ScriptedServer(script, [answer(respond(b"new"))]) as server:
        async with Client(trust_env=False) as client:
            assert (await client.get(server.url)).content == b"hi"
            assert client.stats().open == 0
            assert (await client.get(server.url)).content == b"new"


# ------------------------------------------------------------------- the request, attempts


def wire_fields(data: bytes) -> list[tuple[str, str]]:
    """Return the fields of a request's head as it arrived."""
    lines = data.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")[1:]
    return [(name, value) for name, _, value in (line.partition(": ") for line in lines)]


WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("GET", {}),
    "plain, with a field": ("GET", {"headers": {"X-A": "1"}}),
    "plain, with a small body": ("POST", {"json": {"a": 1}}),
    "through a Call": ("GET", {"cookies": {"a": "1"}}),
    "through a Call, with a small body": ("POST", {"json": {"a": 1}, "auth": ("u", "p")}),
    "streamed": ("PUT", {"content": io.BytesIO(b"x" * 100_000)}),
}


@pytest.mark.parametrize("name", WAYS)
async def test_a_response_has_the_request_as_it_went_out(name):
    method, options = WAYS[name]
    heads: list[bytes] = []

    async def script(conn: Any) -> None:
        while True:
            heads.append(await conn.read_head())
            length = re.search(rb"Content-Length: ([0-9]+)", heads[-1])
            if length:
                await conn.read_exactly(int(length[1]))
            await conn.send(respond(b"hi"))

    async with ScriptedServer(script) as server, Client(trust_env=False) as client:
        await client.get(server.url)
        response = await client.request(method, f"{server.url}p?q=1", **options)
        request = response.request
        assert (request.method, request.url) == (method, f"{server.url}p?q=1")
        assert request.headers.pairs() == wire_fields(heads[-1])
        assert request.headers["host"] == server.url.split("/")[2]
        assert response.request is request
        assert repr(request) == f"<Request {method} {server.url}p?q=1>"


async def test_each_response_of_a_redirect_has_its_own_request():
    def app(request: Any) -> Reply | str:
        if request.target == "/a":
            return Reply("", status=303, headers={"Location": "/b", "Set-Cookie": "k=v"})
        return "there"

    async with serve(app) as server, Client(trust_env=False) as client:
        for _ in range(2):  # the second time the request is plain at first
            response = await client.post(f"{server.url}a", json=1)
            sent = [one.request for one in (*response.history, response)]
            assert [(one.method, one.url) for one in sent] == [
                ("POST", f"{server.url}a"),
                ("GET", f"{server.url}b"),
            ]
            assert sent[0].headers["Content-Type"] == "application/json"
            assert "Content-Type" not in sent[1].headers
            assert sent[1].headers["Cookie"] == "k=v"


async def test_attempts_counts_what_a_retry_has_sent():
    replies = [503, 503, 200, 200]

    def app(request: Any) -> Reply:
        return Reply("", status=replies.pop(0))

    again = Retry(attempts=3, backoff=0)
    async with serve(app) as server, Client(trust_env=False) as client:
        assert (await client.get(server.url, retry=again)).attempts == 3
        assert (await client.get(server.url, retry=again)).attempts == 1
        replies[:] = [404]
        with pytest.raises(StatusError) as caught:
            (await client.get(server.url)).raise_for_status()
        assert caught.value.attempts == 1
        replies[:] = [503, 503, 503]
        with pytest.raises(StatusError) as caught:
            (await client.get(server.url, retry=again)).raise_for_status()
        assert caught.value.attempts == 3


async def test_errors_carry_their_attempts():
    async with (
        ScriptedServer(*[[expect(), close()]] * 4) as server,
        Client(trust_env=False) as client,
    ):
        for retry, attempts in ((None, 1), (Retry(attempts=3, backoff=0), 3)):
            with pytest.raises(RemoteDisconnected) as caught:
                await client.get(server.url, retry=retry)
            assert caught.value.attempts == attempts
            assert pickle.loads(pickle.dumps(caught.value)).attempts == attempts


# --------------------------------------------------------------------- made by hand, pickled


def test_a_response_can_be_made_by_hand():
    response = Response(200, json={"a": [1, None]}, url="http://h/p")
    assert (response.status, response.reason, response.ok) == (200, "OK", True)
    assert (response.url, response.method) == ("http://h/p", "GET")
    assert response.content == b'{"a":[1,null]}'
    assert response.json() == {"a": [1, None]}
    assert dict(response.headers) == {"Content-Type": "application/json"}
    assert response.raise_for_status() is response
    assert (response.history, response.attempts, response.reused) == ((), 1, False)
    assert (response.peername, response.cookies, response.links) == (None, {}, {})
    assert response.timings.total == 0
    assert repr(response) == "<Response [200 OK] GET http://h/p>"
    assert response.request == Request("GET", "http://h/p")


@pytest.mark.parametrize(
    ("options", "body", "kind"),
    [
        ({}, b"", None),
        ({"content": b"\x00\xff"}, b"\x00\xff", None),
        ({"content": bytearray(b"hi")}, b"hi", None),
        ({"text": "é"}, b"\xc3\xa9", "text/plain; charset=utf-8"),
        ({"json": None}, b"null", "application/json"),
        ({"text": "<p>", "headers": {"content-type": "text/html"}}, b"<p>", "text/html"),
        (
            {"text": "é", "headers": {"Content-Type": "text/plain; charset=iso-8859-1"}},
            b"\xe9",
            "text/plain; charset=iso-8859-1",
        ),
    ],
)
async def test_the_body_of_a_response_made_by_hand(options, body, kind):
    response = Response(203, **options)
    assert response.headers.get("Content-Type") == kind
    assert response.content == body
    assert response.text == options.get("text", response.text)
    assert await response.read() == body
    assert b"".join([piece async for piece in response.iter_bytes()]) == body
    response.close()
    assert response.content == body


def test_a_response_made_by_hand_answers_its_request():
    request = Request("POST", "https://h/x", {"X-A": "1"})
    response = Response(404, request=request, reason="Not Here", headers=[("Set-Cookie", "a=1")])
    assert response.request is request
    assert (response.method, response.url) == ("POST", "https://h/x")
    assert response.cookies == {"a": "1"}
    with pytest.raises(StatusError) as caught:
        response.raise_for_status()
    error = caught.value
    assert str(error) == "POST https://h/x: 404 Not Here"
    assert (error.method, error.url, error.phase) == ("POST", "https://h/x", "received")
    assert (error.request_sent, error.response_started) == (True, True)
    assert (error.elapsed, error.peer, error.attempts) == (0, "", 1)


def test_texts_about_a_response_made_by_hand_have_no_credentials():
    request = Request("GET", "http://user:secret@h/x")
    response = Response(404, request=request)
    with pytest.raises(StatusError) as caught:
        response.raise_for_status()
    assert str(caught.value) == "GET http://h/x: 404 Not Found"
    assert repr(response) == "<Response [404 Not Found] GET http://h/x>"
    assert repr(request) == "<Request GET http://h/x>"


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((200,), {"reason": "a\r\nb"}, "ValueError: a reason has only characters of Latin-1"),
        ((200,), {"reason": "Ω"}, "ValueError: a reason has only characters of Latin-1"),
        (
            (200,),
            {"text": "Ω", "headers": {"Content-Type": "text/plain; charset=latin-1"}},
            "UnicodeEncodeError: ",
        ),
        ((200,), {"content": "é"}, "TypeError: content must be bytes, not str: text= takes a str"),
        ((200,), {"text": "a", "json": None}, "TypeError: a response has one body"),
        ((200,), {"headers": 3}, "TypeError: headers must be a mapping or pairs"),
        ((200,), {"headers": {"a": "b\n"}}, "ValueError: Invalid header value"),
    ],
)
def test_what_no_response_can_have_is_refused(arguments, options, error):
    with pytest.raises((TypeError, ValueError)) as caught:
        Response(*arguments, **options)
    assert f"{type(caught.value).__name__}: {caught.value}".startswith(error)


def test_responses_are_compared():
    def make(**options: Any) -> Response:
        return Response(options.pop("status", 200), **{"text": "a", "url": "http://h/"} | options)

    assert make() == make()
    assert hash(make()) == hash(make())
    assert make() == make(headers={"content-type": "text/plain; charset=utf-8"})
    for other in (
        make(status=201),
        make(text="b"),
        make(url="http://h/x"),
        make(headers={"X-A": "1"}),
        make(request=Request("POST", "http://h/")),
        200,
    ):
        assert make() != other


async def test_a_stream_is_equal_to_nothing_else_and_cannot_be_pickled_until_it_is_read():
    async with answering(respond(b"hi")) as (client, url):
        whole = await client.get(url)
        async with client.stream("GET", url) as response:
            assert response == response
            assert response != whole
            with pytest.raises(TypeError, match=r"is a stream: await response\.read\(\) before"):
                pickle.dumps(response)
            error = StatusError("no")
            error.response = response
            assert pickle.loads(pickle.dumps(error)).response is None
            await response.read()
            assert response == whole == pickle.loads(pickle.dumps(response))


async def test_a_pickle_has_the_charset_that_a_function_found():
    async with answering(
        respond(b"\x82\xa0"), default_encoding=lambda content: "sjis", json_loads=lambda data: 1
    ) as (client, url):
        again = pickle.loads(pickle.dumps(await client.get(url)))
        assert (again.text, again.encoding) == ("あ", "cp932")


async def test_a_response_is_the_same_out_of_a_pickle():
    head = b"Trailer: X-T\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a=1\r\n\r\n"

    async def script(conn: Any) -> None:
        await conn.read_request()
        await conn.send(b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n")
        await conn.read_request()
        await conn.send(b"HTTP/1.1 404 Gone\r\n" + head + b"2\r\nhi\r\n0\r\nX-T: 1\r\n\r\n")

    async with ScriptedServer(script) as server, Client(trust_env=False) as client:
        response = await client.get(f"{server.url}a")
    for other in (pickle.loads(pickle.dumps(response)), copy.copy(response)):
        assert other == response
        assert repr(other) == repr(response)
        assert [one.url for one in other.history] == [f"{server.url}a"]
        assert other.request == response.request
        assert other.timings == response.timings
        assert other.history[0].timings == response.history[0].timings
        assert other.history[0].timings.connect is not None
        assert (other.peername, other.reused) == (response.peername, response.reused)
        assert other.peername[0] == server.host
        assert other.raw.trailers.items() == [("X-T", "1")]
        assert (other.raw.version, other.raw.url) == (11, f"{server.url}b")
        assert (other.text, other.cookies) == ("hi", {"a": "1"})
        assert await other.read() == b"hi"
    with pytest.raises(StatusError) as caught:
        response.raise_for_status()
    assert pickle.loads(pickle.dumps(caught.value)).response == response


# --------------------------------------------------------------- what all errors of a client say

FAILURES: dict[str, tuple[list[Any], type[Exception], dict[str, Any]]] = {
    "no answer": ([close()], RemoteDisconnected, {}),
    "cut short": (
        [send(OK + b"Content-Length: 9\r\n\r\nhi"), close()],
        IncompleteRead,
        {},
    ),
    "too large": ([send(respond(b"x" * 9))], BodyTooLarge, {"max_body": 3}),
    "not as it is coded": (
        [send(respond(b"no gzip", "Content-Encoding: gzip"))],
        ContentDecodingError,
        {},
    ),
    "a bad status line": ([send(b"SSH-2.0\r\n\r\n"), close()], HTTPException, {}),
    "a bad redirect": (
        [send(respond(b"", "Location: gopher://h/", status="302 Found"))],
        RedirectRefused,
        {},
    ),
    "late": ([read_all()], ReadTimeout, {"timeout": Timeout(read=0.02)}),
    "late in all": ([read_all()], TotalTimeout, {"timeout": Timeout(total=0.02)}),
    "no connection": ([], ConnectError, {"proxy": "http://127.0.0.1:1"}),
}


@pytest.mark.parametrize("warm", [False, True], ids=["new", "warm"])
@pytest.mark.parametrize("name", FAILURES)
async def test_an_error_of_a_client_names_the_request_and_has_its_attempts(name, warm, ticking):
    fails, kind, options = FAILURES[name]
    answered = [expect(), send(respond(b"hi"))]
    fresh = [expect(), *fails] if fails else []
    # A request with a total limit, or through a proxy, takes a connection that may be new.
    script = [*(answered if warm else []), *fresh]
    async with ScriptedServer(script, fresh) as server, Client(trust_env=False) as client:
        if warm:  # then the request is plain, if its options are
            await client.get(server.url)
        with pytest.raises(kind) as caught:
            await client.post(server.url, **options)
    error: Any = caught.value
    assert str(error).startswith(f"POST {server.url}: ")
    assert (error.method, error.url, error.attempts) == ("POST", server.url, 1)
