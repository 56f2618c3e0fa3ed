"""urls.py: URLs taken apart, where parsers disagree, references, names outside ASCII."""

from __future__ import annotations

import enum
import re
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from math import inf
from urllib.parse import parse_qsl, unquote, urljoin, urlsplit
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aiohttpconn import urls as module
from aiohttpconn.exceptions import InvalidURL, shown_refused
from aiohttpconn.http11.grammar import check_host, check_host_field, check_target
from aiohttpconn.params import add_params
from aiohttpconn.urls import (
    PLAIN_TARGET,
    PORTS,
    SplitURL,
    check_raw_target,
    encode_host,
    join_base,
    join_location,
    split_url,
)

NO_SCHEME = "it has no scheme: write it with http:// or https://, or give the client a base_url="


def refused(error, function, *arguments) -> str:
    """Call in vain; return the text."""
    with pytest.raises(error) as info:
        function(*arguments)
    assert type(info.value) is error
    return str(info.value)


# ---------------------------------------------------------------------------- splitting


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://a.test", SplitURL("http", "a.test", 80, "/")),
        ("http://a.test/", SplitURL("http", "a.test", 80, "/")),
        ("https://a.test", SplitURL("https", "a.test", 443, "/")),
        ("HTTPS://A.TesT/Path", SplitURL("https", "a.test", 443, "/Path")),
        ("http://a.test:8080/x", SplitURL("http", "a.test", 8080, "/x")),
        ("http://a.test:00080", SplitURL("http", "a.test", 80, "/")),
        ("http://a.test:/x", SplitURL("http", "a.test", 80, "/x")),
        ("http://a.test:0/", SplitURL("http", "a.test", 0, "/")),
        ("http://a.test:65535/", SplitURL("http", "a.test", 65535, "/")),
        ("http://a.test?q", SplitURL("http", "a.test", 80, "/?q")),
        ("http://a.test?", SplitURL("http", "a.test", 80, "/?")),
        ("http://a.test/x?q=1?2/3", SplitURL("http", "a.test", 80, "/x?q=1?2/3")),
        ("http://a.test#f", SplitURL("http", "a.test", 80, "/", fragment="#f")),
        ("http://a.test/x#f?g#h", SplitURL("http", "a.test", 80, "/x", fragment="#f?g#h")),
        ("http://a.test?q#f", SplitURL("http", "a.test", 80, "/?q", fragment="#f")),
        ("http://a.test/x#", SplitURL("http", "a.test", 80, "/x", fragment="#")),
        ("http://a.test//x//y", SplitURL("http", "a.test", 80, "//x//y")),
        ("http://a.test/./x/../y", SplitURL("http", "a.test", 80, "/./x/../y")),
        ("http://u@a.test/", SplitURL("http", "a.test", 80, "/", "u")),
        ("http://u:p:q@a.test/", SplitURL("http", "a.test", 80, "/", "u:p:q")),
        ("http://@a.test/", SplitURL("http", "a.test", 80, "/")),
        ("http://u%40x:%2F@a.test/", SplitURL("http", "a.test", 80, "/", "u%40x:%2F")),
        ("http://a.test/@x:y", SplitURL("http", "a.test", 80, "/@x:y")),
        ("http://a.test?@b.test/", SplitURL("http", "a.test", 80, "/?@b.test/")),
        ("http://a.test#@b.test/", SplitURL("http", "a.test", 80, "/", fragment="#@b.test/")),
        ("http://a_b.test/", SplitURL("http", "a_b.test", 80, "/")),
        ("http://a.test./", SplitURL("http", "a.test.", 80, "/")),
        ("http://127.0.0.1/", SplitURL("http", "127.0.0.1", 80, "/")),
        ("http://1.2.3.4.test/", SplitURL("http", "1.2.3.4.test", 80, "/")),
        ("http://[::1]/", SplitURL("http", "::1", 80, "/")),
        ("http://[::1]:8080/", SplitURL("http", "::1", 8080, "/")),
        ("http://[::FFFF:1.2.3.4]/", SplitURL("http", "::ffff:1.2.3.4", 80, "/")),
        ("http://u@[::1]", SplitURL("http", "::1", 80, "/", "u")),
        ("http://[fe80::1%25eth0]/", SplitURL("http", "fe80::1%eth0", 80, "/")),
        ("http://[fe80::1%eth0]/", SplitURL("http", "fe80::1%eth0", 80, "/")),
        ("http://[FE80::1%25Eth0]/", SplitURL("http", "fe80::1%Eth0", 80, "/")),
        ("http://[fe80::1%2525]/", SplitURL("http", "fe80::1%25", 80, "/")),
    ],
)
def test_a_url_is_taken_apart(url, parts):
    assert split_url(url) == parts


def others(parts: SplitURL) -> SplitURL:
    """Return what others may see of *parts*."""
    return parts._replace(host=parts.host.partition("%")[0], userinfo="", fragment="")


@pytest.mark.parametrize(
    ("url", "origin", "authority", "text"),
    [
        ("http://a.test", ("http", "a.test", 80), "a.test", "http://a.test/"),
        ("http://a.test:443", ("http", "a.test", 443), "a.test:443", "http://a.test:443/"),
        ("https://u:p@A.test:443?q#f", ("https", "a.test", 443), "a.test", "https://a.test/?q"),
        ("http://[::1]:8080/x", ("http", "::1", 8080), "[::1]:8080", "http://[::1]:8080/x"),
        (
            # RFC 6874 §4: no other machine knows the zone, and none is told.
            "http://[fe80::1%eth0]:81/x",
            ("http", "fe80::1%eth0", 81),
            "[fe80::1]:81",
            "http://[fe80::1]:81/x",
        ),
    ],
)
def test_what_is_made_of_the_parts(url, origin, authority, text):
    parts = split_url(url)
    assert (parts.origin, parts.authority, parts.text) == (origin, authority, text)
    assert split_url(text) == others(parts)


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        # Byte for byte: what a browser leaves stays as it is, in whatever spelling.
        ("/%7euser/%2F%2f/~", "/%7euser/%2F%2f/~"),
        ("/a;b=c,d/!$&'()*+=:@", "/a;b=c,d/!$&'()*+=:@"),
        ("/?a=b+c%20d&&=/?", "/?a=b+c%20d&&=/?"),
        ("/%41", "/%41"),
        ("/100%", "/100%"),
        ("/%zz/%4", "/%zz/%4"),
        ("/%%41", "/%%41"),
        ("/a[0]|b'", "/a[0]|b'"),
        ("/?q=[1]|2", "/?q=[1]|2"),
        ("/?{}|\\^`[]%%4?", "/?{}|\\^`[]%%4?"),
        # What a browser escapes is escaped: in a path other characters than in a query.
        ("/a b", "/a%20b"),
        ("/?a b", "/?a%20b"),
        ('/<>"{}^`', "/%3C%3E%22%7B%7D%5E%60"),
        ("/?<>\"'", "/?%3C%3E%22%27"),
        # A browser turns it into a slash, others leave it: escaped, it has one meaning.
        ("/a\\b", "/a%5Cb"),
        ("/é/€/😀", "/%C3%A9/%E2%82%AC/%F0%9F%98%80"),
        ("/e\u0301", "/e%CC%81"),
        ("/\xa0\u3000x", "/%C2%A0%E3%80%80x"),
        # A file's name that is not UTF-8.
        ("/\udcff\udc80", "/%FF%80"),
    ],
)
def test_what_a_browser_escapes_is_escaped(target, sent):
    assert split_url(f"http://a.test{target}").target == sent
    assert split_url(f"http://a.test{sent}").target == sent


# https://url.spec.whatwg.org/#percent-encoded-bytes, of the visible ASCII characters
QUERY_SET = set('"#<>')
SPECIAL_QUERY_SET = QUERY_SET | {"'"}
PATH_SET = QUERY_SET | set("?^`{}")
FRAGMENT_SET = set('"<>`')


@pytest.mark.parametrize(
    ("before", "escaped", "delimiters"),
    [
        ("/", PATH_SET | {"\\"}, "#?"),
        ("/?", SPECIAL_QUERY_SET, "#"),
        ("/#", FRAGMENT_SET, ""),
    ],
)
def test_the_percent_encode_sets_are_those_of_the_url_standard(before, escaped, delimiters):
    for char in map(chr, range(0x21, 0x7F)):
        if char not in delimiters:
            sent = f"%{ord(char):02X}" if char in escaped else char
            parts = split_url(f"http://a.test{before}{char}")
            assert parts.text + parts.fragment == f"http://a.test{before}{sent}"
            # Only a URL that goes out as it stands is sent without being split.
            plain = PLAIN_TARGET.fullmatch(f"{before}{char}") is not None
            assert plain is (sent == char and before != "/#")


@pytest.mark.parametrize("target", ["/", "/a{b}|\\^`<>\"'%zz?#?x", "//b.test/../%41"])
def test_a_raw_target_is_sent_as_it_is(target):
    assert check_raw_target(target) == target


@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        ("", InvalidURL, "target must begin with '/', got '': a connection sends any other one, "),
        ("@b.test/", InvalidURL, "target must begin with '/', got '@b.test/': a connection "),
        ("*", InvalidURL, "target must begin with '/', got '*': a connection "),
        ("http://b.test/", InvalidURL, "target must begin with '/', got 'http://b.test/': a "),
        ("/a b", InvalidURL, "URL can't contain control characters. '/a b' (found at least ' ')"),
        ("/\r\nX: y", InvalidURL, "URL can't contain control characters. '/\\r\\nX: y' "),
        ("/\x7f", InvalidURL, "URL can't contain control characters. '/\\x7f' "),
        ("/é", InvalidURL, "target must be ASCII, got '/é'"),
        (b"/", TypeError, "target must be a str, not bytes: b'/'"),
    ],
)
def test_a_raw_target_that_could_be_more_is_refused(target, error, text):
    assert refused(error, check_raw_target, target).startswith(text)


@pytest.mark.parametrize(
    ("url", "fragment"),
    [
        ("http://a.test/#/route?x=1#y", "#/route?x=1#y"),
        ('http://a.test/#a b"<>`', "#a%20b%22%3C%3E%60"),
        ("http://a.test/#é%zz{}|\\^[]'", "#%C3%A9%zz{}|\\^[]'"),
    ],
)
def test_a_fragment_is_kept_and_escaped_as_a_browser_does(url, fragment):
    assert split_url(url).fragment == fragment
    assert split_url(url).text == "http://a.test/"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", NO_SCHEME),
        ("a.test", NO_SCHEME),
        ("a.test:80/x", NO_SCHEME),
        ("//a.test/", NO_SCHEME),
        ("/x", NO_SCHEME),
        ("://a.test", NO_SCHEME),
        ("1http://a.test", NO_SCHEME),
        ("héttp://a.test", NO_SCHEME),
        ("mailto:a", NO_SCHEME),
        ("http:a.test", "http: must be followed by //"),
        ("http:/a.test", "http: must be followed by //"),
        ("https:\\\\a.test", "https: must be followed by //"),
        ("http:/\\a.test", "http: must be followed by //"),
        ("ftp://a.test/", "the scheme 'ftp' is not supported, http and https are"),
        ("file:///etc/passwd", "the scheme 'file' is not supported, http and https are"),
        ("ws+x.y-z://a/", "the scheme 'ws+x.y-z' is not supported, http and https are"),
        (" http://a.test/", "it begins or ends with a blank"),
        ("http://a.test/ ", "it begins or ends with a blank"),
        ("http://a.test/\u3000", "it begins or ends with a blank"),
        ("http://a.test/\nx", "it has the control character '\\n'"),
        ("\thttp://a.test/", "it has the control character '\\t'"),
        ("ht\ttp://a.test/", "it has the control character '\\t'"),
        ("http://a.test\r\n/", "it has the control character '\\r'"),
        ("http://a.test\0/", "it has the control character '\\x00'"),
        ("http://a.test/#\x7f", "it has the control character '\\x7f'"),
        ("http://", "it has no host"),
        ("http:///x", "it has no host"),
        ("http://?q", "it has no host"),
        ("http://#f", "it has no host"),
        ("http://:80/", "it has no host"),
        ("http://a.test:65536/", "a port must be 0 to 65535, got 65536"),
        ("http://a.test:x/", "'a.test:x' is not a host, or a host and a port"),
        ("http://a.test:-1/", "'a.test:-1' is not a host, or a host and a port"),
        ("http://a.test:+80/", "'a.test:+80' is not a host, or a host and a port"),
        ("http://a.test:8_0/", "'a.test:8_0' is not a host, or a host and a port"),
        ("http://a.test:٨٠/", "'a.test:٨٠' is not a host, or a host and a port"),
        ("http://a.test:000080/", "'a.test:000080' is not a host, or a host and a port"),
        ("http://a.test:80:80/", "'a.test:80:80' is not a host, or a host and a port"),
        ("http://a.test: 80/", "'a.test: 80' is not a host, or a host and a port"),
        ("http://::1/", "'::1' is not a host, or a host and a port"),
        ("http://[::1/", "'[::1' is not a host, or a host and a port"),
        ("http://::1]/", "'::1]' is not a host, or a host and a port"),
        ("http://[::1]x/", "'[::1]x' is not a host, or a host and a port"),
        ("http://x[::1]/", "'x[::1]' is not a host, or a host and a port"),
        ("http://[[::1]]/", "'[[::1]]' is not a host, or a host and a port"),
        ("http://[]/", "'[]' is not a host, or a host and a port"),
        ("http://[a.test]/", "not an IPv6 address in brackets: '[a.test]'"),
        ("http://[127.0.0.1]/", "not an IPv6 address in brackets: '[127.0.0.1]'"),
        ("http://[v1.x]/", "not an IPv6 address in brackets: '[v1.x]'"),
        ("http://[::1::]/", "not an IPv6 address in brackets: '[::1::]'"),
        ("http://[:::]/", "not an IPv6 address in brackets: '[:::]'"),
        ("http://[::ffff:0x7f.1]/", "not an IPv6 address in brackets: '[::ffff:0x7f.1]'"),
        ("http://[::1%25]/", "not a host name or an IP address: '::1%'"),
        ("http://[::1%25a b]/", "not a host name or an IP address: '::1%a b'"),
        ("http://[::1%25é]/", "not a host name or an IP address: '::1%é'"),
        ("http://a b/", "not a host name or an IP address: 'a b'"),
        ('http://a"b/', "not a host name or an IP address: 'a\"b'"),
        ("http://a<b/", "not a host name or an IP address: 'a<b'"),
        ("http://a|b/", "not a host name or an IP address: 'a|b'"),
        ("http://a^b/", "not a host name or an IP address: 'a^b'"),
        ("http://a`b/", "not a host name or an IP address: 'a`b'"),
        ("http://a{b}/", "not a host name or an IP address: 'a{b}'"),
    ],
)
def test_what_is_no_url_is_refused(url, why):
    text = refused(InvalidURL, split_url, url)
    assert text == f"cannot use the URL {url!r}: {why}"


def test_without_a_host_a_user_is_no_url():
    text = refused(InvalidURL, split_url, "http://user@/x")
    assert text == "cannot use the URL 'http:///x': it has no host"


def test_a_url_that_utf_8_cannot_encode_is_refused():
    text = refused(InvalidURL, split_url, "http://a.test/\ud800")
    assert text.startswith("a URL must be encodable as UTF-8: '/\\ud800' ('utf-8' codec can't ")
    assert refused(InvalidURL, split_url, "http://\ud800.test/").endswith(
        " at position 1 in '\\ud800.test')"
    )


@pytest.mark.parametrize("url", [b"http://a.test/", None, 5])
def test_what_is_no_str_is_refused(url):
    text = f"a URL must be a str, not {type(url).__name__}: {url!r}"
    assert refused(TypeError, split_url, url) == text
    assert refused(TypeError, join_base, "http://a.test", url) == text


@pytest.mark.parametrize(
    "url",
    [
        "user:s3cret@a.test/",
        "//user:s3cret@a.test/",
        "http:user:s3cret@a.test/",
        "http:\\\\user:s3cret@a.test/",
        "http://user:s3cret@a b/",
        "http://user:s3cret@",
        "http://user:s3cret@a.test:x/",
        "http://user:s3cret@x@a.test/",
        "http://us\\er:s3cret@a.test/",
        "http://user:s3cret@a.test/\x01",
        "http://user:s3cret/x@a.test/",
        "http://user:s3cret?x@a.test/",
        "http://user:s3cret#x@a.test/",
        " http://user:s3cret@a.test/",
        "ftp://user:s3cret@a.test/",
    ],
)
def test_no_password_is_shown(url):
    assert "s3cret" not in refused(InvalidURL, split_url, url)
    if not url.startswith((" ", "http")):
        assert "s3cret" not in refused(InvalidURL, join_base, "http://b.test/", url)
    assert "s3cret" not in refused(InvalidURL, join_base, "http://user:s3cret@b.test", "//")


def test_what_is_shown_is_cut():
    for url in (f"ftp://{'x' * 9999}", f"http://{'a' * 9999} b/", f"http://a:{'x' * 9999}"):
        assert len(refused(InvalidURL, split_url, url)) < 700


# ------------------------------------------------------------- disagreements of parsers


@pytest.mark.parametrize(
    "url",
    [
        # A backslash: of the user, for RFC 3986; a slash, for browsers.
        "http://a.test\\@b.test/",
        "http://a.test\\.b.test/",
        "http://a.test:80\\@b.test/",
        "http://u\\p@a.test/",
        # Two '@': the first one, or the last one?
        "http://a.test@b.test@c.test/",
        "http://u:p@a.test:80@b.test/",
        # Brackets: of an address, or of the user?
        "http://[@a.test/",
        "http://[::1]@a.test/",
        "http://u]:p@a.test/",
    ],
)
def test_an_authority_that_may_be_another_is_refused(url):
    text = refused(InvalidURL, split_url, url)
    assert text.endswith(": what stands before the path is ambiguous")


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "0X7F.1",
        "017700000001",
        "127.1",
        "127.0.1",
        "127.0.0.0x1",
        "127.0.0.01",
        "0177.0.0.1",
        "127.0.0.1.",
        "127.0.0.256",
        "127.0.0.1.1",
        "256.1.1.1",
        "1.2.3",
        "0",
        "0x",
        "a.0x7f",
        "a.test.1",
        "a.08",
        "99999999999",
        "127。0。0。1",
        "127．0．0．1",
        "１２７.0.0.1",
        "①②⑦.0.0.1",
        "127.0.0.¹",
        "0ｘ7f.1",
    ],
)
def test_an_address_in_another_notation_is_refused(host):
    text = refused(InvalidURL, encode_host, host)
    assert text == f"not an IPv4 address of four decimal numbers: {host!r}"
    assert refused(InvalidURL, split_url, f"http://{host}/").endswith(text)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.%31",
        "%6cocalhost",
        "a%2Etest",
        "a%2F",
        "a%40b",
        "a%3A80",
        "a%00",
        "a%0d%0a",
        "a%25",
        "%",
        "a%",
        "a%4",
        "a%zz",
        "::1",
        "a:80",
        "%ff.test",
        "%C3.test",
        "%c3%28.test",
        "%ED%A0%80.test",
        "%C3%BC%41.test",
    ],
)
def test_what_no_host_needs_is_refused_in_one(host):
    assert refused(InvalidURL, encode_host, host) == f"not a host name: {host!r}"


LONGEST = f"{'a.' * 126}b"


@pytest.mark.parametrize(
    ("host", "length", "shown"),
    [
        (f"{LONGEST}b", 254, f"{LONGEST[:50]!r}..."),
        (f"{LONGEST}..", 254, f"{LONGEST[:50]!r}..."),
        ("ü" * 254, 254, f"{'ü' * 50!r}..."),
        ("%C3%BC" * 254, 254, f"{'ü' * 50!r}..."),
        # The standard library's time to encode a name grows with the square of its length.
        ("漢" * 300_000, 300_000, f"{'漢' * 50!r}..."),
        (f"[::1%{'a' * 254}]", 258, f"'::1%{'a' * 46}'..."),
    ],
    ids=["ascii", "dots", "beyond-ascii", "escaped", "huge", "zone"],
)
@pytest.mark.parametrize("idna", [True, False])
def test_a_host_has_no_more_characters_than_a_name_can(host, length, shown, idna, monkeypatch):
    if not idna:
        monkeypatch.setitem(sys.modules, "idna", None)
    text = f"not a host name: at most 253 characters, got {length}: {shown}"
    assert refused(InvalidURL, encode_host, host) == text
    assert refused(InvalidURL, split_url, f"http://{host}/").endswith(text)


@pytest.mark.parametrize("idna", [True, False])
def test_a_name_is_measured_when_it_is_encoded_too(idna, monkeypatch):
    if not idna:
        monkeypatch.setitem(sys.modules, "idna", None)
    assert "not a host name: " in refused(InvalidURL, encode_host, ".".join(["漢字ü漢字"] * 40))


@pytest.mark.parametrize("host", [LONGEST, f"{LONGEST}.", f"{'a' * 63}.test", "a" * 63])
def test_a_host_may_be_as_long_as_a_name_can(host):
    assert encode_host(host) == host


@pytest.mark.parametrize("host", ["a" * 64, f"a.{'a' * 64}.test", f"{'a' * 64}."])
def test_a_label_has_63_characters_at_most(host):
    assert refused(InvalidURL, encode_host, host) == (
        f"not a host name: a label has at most 63 characters, got 64: {host!r}"
    )


@pytest.mark.parametrize("idna", [True, False])
def test_a_label_is_measured_when_it_is_encoded(idna, monkeypatch):
    if not idna:
        monkeypatch.setitem(sys.modules, "idna", None)
    assert "too long" in refused(InvalidURL, encode_host, f"{'漢' * 2 + 'ü' * 60}.test")
    # 75 characters, which are 25 when they are composed.
    assert encode_host("\u1112\u1161\u11ab" * 25) == encode_host("한" * 25)


@pytest.mark.parametrize("host", ["*", "*.test", "a*b.test", "*."])
def test_a_star_is_in_no_host(host):
    assert refused(InvalidURL, encode_host, host) == f"not a host name, it has a '*': {host!r}"


@pytest.mark.parametrize("idna", [True, False])
@pytest.mark.parametrize(
    "host",
    [
        "a\uff0fb.test",  # '/'
        "a\uff20b.test",  # '@'
        "a\uff1a80",  # ':'
        "a\uff1fb",  # '?'
        "a\uff03b",  # '#'
        "a\uff05b",  # '%'
        "a\uff3cb",  # a backslash
        "a\u2100b.test",  # 'a/c'
        "a\u2024test",  # '.', a dot for some
        "a\u2488test",  # '1.'
        "a\u3000b",
        "a\u2028b",
        "a\ufffdb",
        "\xad",
        "\u3002",
    ],
)
def test_a_character_that_becomes_another_one_in_a_host_is_refused(host, idna, monkeypatch):
    if not idna:
        monkeypatch.setitem(sys.modules, "idna", None)
    refused(InvalidURL, encode_host, host)
    refused(InvalidURL, split_url, f"http://{host}/")


PIECES = [
    *(
        "http://",
        "https://",
        "//",
        "/",
        "\\",
        "@",
        ":",
        "?",
        "#",
        "[",
        "]",
        "%",
        ".",
        "a.test",
        "b",
    ),
    *(
        "80",
        "0",
        "0x7f",
        "127.0.0.1",
        "::1",
        "%31",
        "%25",
        "%2F",
        "%C3%BC",
        "é",
        "。",
        "１",
        "⁄",
        " ",
    ),
    *(
        "\t",
        "\r\n",
        "\0",
        "u:p",
        "x",
        "-",
        "_",
        ";",
        "&",
        "=",
        "\udc80",
        "\ud800",
        "\xad",
        "\u200d",
    ),
]
URLS = st.one_of(
    st.text(max_size=30),
    st.lists(st.sampled_from(PIECES), max_size=10).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join).map("http://{}".format),
    st.text(max_size=20).map("http://a.test/{}".format),
)


@given(URLS)
def test_what_is_accepted_is_fit_for_the_wire_and_stays_the_same(url):
    try:
        parts = split_url(url)
    except InvalidURL:
        return
    assert PLAIN_TARGET.fullmatch(parts.target)
    check_target(parts.target)
    check_host(parts.host)
    check_host_field(parts.authority)
    assert parts.host.isascii()
    assert parts.host.partition("%")[0] == parts.host.partition("%")[0].lower()
    whole = parts.text + parts.fragment
    assert whole.isascii()
    assert not re.search(r"[\x00-\x20\x7f]", whole)
    assert not re.search(r"#|\\", parts.text.partition("?")[0])
    assert split_url(whole)._replace(fragment="") == others(parts)
    assert split_url(whole).fragment == parts.fragment


@given(URLS)
@example("http://[fe80::1%25eth0]/")
def test_what_is_accepted_has_the_host_that_the_standard_library_sees(url):
    try:
        parts = split_url(url)
    except InvalidURL:
        return
    other = urlsplit(url)
    assert parts.scheme == other.scheme
    assert parts.port == (PORTS[other.scheme] if other.port is None else other.port)
    assert parts.userinfo == other.netloc.rpartition("@")[0]
    host = other.hostname
    assert parts.host.lower() == encode_host(f"[{host}]" if ":" in host else host).lower()


@given(st.text(st.characters(max_codepoint=0x3000), min_size=1, max_size=12))
def test_a_path_keeps_its_characters(path):
    try:
        target = split_url(f"http://a.test/{path}").target
    except InvalidURL:
        return
    assert unquote(target) == unquote(f"/{path.partition('#')[0]}")


# ------------------------------------------------------------------ names outside ASCII

NAMES = [
    ("bücher.test", "xn--bcher-kva.test"),
    ("BÜCHER.Test", "xn--bcher-kva.test"),
    ("bu\u0308cher.test", "xn--bcher-kva.test"),
    ("b%C3%BCcher.test", "xn--bcher-kva.test"),
    ("bücher。test", "xn--bcher-kva.test"),
    ("bücher.test.", "xn--bcher-kva.test."),
    ("ａ.test", "a.test"),
    ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
    ("пример.испытание", "xn--e1afmkfd.xn--80akhbyknj4f"),
    ("مثال.إختبار", "xn--mgbh0fb.xn--kgbechtv"),
    ("xn--bcher-kva.test", "xn--bcher-kva.test"),
]


@pytest.mark.parametrize("idna", [True, False])
@pytest.mark.parametrize(("name", "host"), NAMES)
def test_a_name_outside_ascii_is_encoded(name, host, idna, monkeypatch):
    if not idna:
        monkeypatch.setitem(sys.modules, "idna", None)
    assert encode_host(name) == host
    assert split_url(f"http://{name}/").authority == host


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("faß.test", "xn--fa-hia.test"),
        ("βόλος.test", "xn--nxasmm1c.test"),
        ("क्\u200dष.test", "xn--11b2ezcw70k.test"),
        ("straẞe.test", "xn--strae-oqa.test"),
        ("Ꭰ.test", "xn--58d.test"),
        ("\U0002f868.test", "xn--snl.test"),
        ("i♥b.test", None),
    ],
)
def test_a_name_that_needs_a_newer_idna_than_the_standard_librarys_is_refused_without(
    name, host, monkeypatch
):
    if host is not None:
        assert encode_host(name) == host
    monkeypatch.setitem(sys.modules, "idna", None)
    assert refused(InvalidURL, encode_host, name) == (
        f'{name!r} needs a newer IDNA than the standard library\'s: pip install "aiohttpconn[idna]"'
    )


@given(st.text(st.characters(min_codepoint=0x80), min_size=1, max_size=3))
@example("\u1160")
@example("\U0002f868")
def test_both_ways_lead_to_the_same_host(name):
    try:
        with_idna = encode_host(f"a{name}b.test")
        without = module._to_ascii_2003(f"a{name}b.test")
    except InvalidURL:
        return
    assert without == with_idna


# --------------------------------------------------------------------------- references


@pytest.mark.parametrize(
    ("location", "url"),
    [
        # RFC 3986 §5.4.1
        ("g", "http://a/b/c/g"),
        ("./g", "http://a/b/c/g"),
        ("g/", "http://a/b/c/g/"),
        ("/g", "http://a/g"),
        ("//g", "http://g"),
        ("?y", "http://a/b/c/d;p?y"),
        ("g?y", "http://a/b/c/g?y"),
        ("#s", "http://a/b/c/d;p?q#s"),
        ("g#s", "http://a/b/c/g#s"),
        ("g?y#s", "http://a/b/c/g?y#s"),
        (";x", "http://a/b/c/;x"),
        ("g;x", "http://a/b/c/g;x"),
        ("g;x?y#s", "http://a/b/c/g;x?y#s"),
        ("", "http://a/b/c/d;p?q"),
        (".", "http://a/b/c/"),
        ("./", "http://a/b/c/"),
        ("..", "http://a/b/"),
        ("../", "http://a/b/"),
        ("../g", "http://a/b/g"),
        ("../..", "http://a/"),
        ("../../", "http://a/"),
        ("../../g", "http://a/g"),
        # §5.4.2
        ("../../../g", "http://a/g"),
        ("../../../../g", "http://a/g"),
        ("/./g", "http://a/g"),
        ("/../g", "http://a/g"),
        ("g.", "http://a/b/c/g."),
        (".g", "http://a/b/c/.g"),
        ("g..", "http://a/b/c/g.."),
        ("..g", "http://a/b/c/..g"),
        ("./../g", "http://a/b/g"),
        ("./g/.", "http://a/b/c/g/"),
        ("g/./h", "http://a/b/c/g/h"),
        ("g/../h", "http://a/b/c/h"),
        ("g;x=1/./y", "http://a/b/c/g;x=1/y"),
        ("g;x=1/../y", "http://a/b/c/y"),
        ("g?y/./x", "http://a/b/c/g?y/./x"),
        ("g?y/../x", "http://a/b/c/g?y/../x"),
        ("g#s/../x", "http://a/b/c/g#s/../x"),
        # Where urllib.parse.urljoin does something else
        ("?", "http://a/b/c/d;p?"),
        ("x//y", "http://a/b/c/x//y"),
        ("/x//../y", "http://a/x/y"),
        ("http://g/x/../y", "http://g/y"),
        # More
        ("//g?y", "http://g?y"),
        ("//g/..", "http://g/"),
        ("https://g", "https://g"),
        ("HTTP://G/x", "HTTP://G/x"),
        ("http://u:p@g:81/x#f", "http://u:p@g:81/x#f"),
        ("g:8", None),
        (" \tg\t ", "http://a/b/c/g"),
        ("1:2", "http://a/b/c/1:2"),
        ("./a:b", "http://a/b/c/a:b"),
        ("a/b:c", "http://a/b/c/a/b:c"),
        ("%2e%2e/g", "http://a/b/c/%2e%2e/g"),
        ("\\\\g\\x", "http://a/b/c/\\\\g\\x"),
    ],
)
def test_where_a_location_leads(location, url):
    if url is None:
        text = refused(InvalidURL, join_location, "http://a/b/c/d;p?q", location)
        assert text == f"not a URL to be redirected to: {shown_refused(location)}"
    else:
        assert join_location("http://a/b/c/d;p?q", location) == url


@pytest.mark.parametrize(
    "location",
    ["http:g", "http:/g", "http:", "mailto:x@y", "javascript:alert(1)", "data:,x", "a:b"],
)
def test_a_location_with_a_scheme_and_no_host_is_refused(location):
    text = refused(InvalidURL, join_location, "http://a/", location)
    assert text == f"not a URL to be redirected to: {shown_refused(location)}"


@pytest.mark.parametrize(
    ("received", "url"),
    [
        (b"/caf\xc3\xa9?q=\xe2\x82\xac", "http://a.test/caf%C3%A9?q=%E2%82%AC"),
        (b"caf\xe9", "http://a.test/x/caf%E9"),
        (b"?\xff", "http://a.test/x/y?%FF"),
        (b"/%C3%A9\xc3\xa9%", "http://a.test/%C3%A9%C3%A9%"),
        (b"/[x]|{y}?[x]|{y}'", "http://a.test/[x]|%7By%7D?[x]|{y}%27"),
        (b"/a b", "http://a.test/a%20b"),
        (b"//b\xc3\xbccher.test/\xc3\xbc", "http://xn--bcher-kva.test/%C3%BC"),
        (b"http://b\xc3\xbccher.test", "http://xn--bcher-kva.test/"),
        (b"http://b.test/#\xc3\xbc \t\x01{", "http://b.test/#%C3%BC%20%09%01{"),
        (b"http://b.test?\xfc", "http://b.test/?%FC"),
        (b"/x//\xfc", "http://a.test/x//%FC"),
        (b"?u=http://b.test/\xfc", "http://a.test/x/y?u=http://b.test/%FC"),
    ],
)
def test_bytes_of_a_location_keep_their_values(received, url):
    joined = join_location("http://a.test/x/y?z", received.decode("latin-1"))
    parts = split_url(joined)
    assert parts.text + parts.fragment == url


@pytest.mark.parametrize(
    ("location", "why"),
    [
        (b"http://b\xfccher.test/", "not a host name: 'b\ufffdcher.test' ("),
        (b"http:///b.test/", "it has no host"),
        (b"///b.test/", "it has no host"),
        (b"//b.test\\@c.test/", "what stands before the path is ambiguous"),
        (b"ht\ttp://b.test/", "it has the control character '\\t'"),
        (b"\x01http://b.test/", "it has the control character '\\x01'"),
        (b"/x\x00", "it has the control character '\\x00'"),
        (b"//b.test:x/", "'b.test:x' is not a host, or a host and a port"),
        (b"//127.1/", "not an IPv4 address of four decimal numbers: '127.1'"),
        (b"ftp://b.test/", "the scheme 'ftp' is not supported, http and https are"),
    ],
)
def test_a_location_that_leads_nowhere_is_refused(location, why):
    joined = join_location("http://a.test/", location.decode("latin-1"))
    assert f": {why}" in refused(InvalidURL, split_url, joined)


@given(
    st.lists(st.sampled_from(["a", "..", ".", "", "b;c", "a:b", "..."]), max_size=6).map("/".join),
    st.sampled_from(["", "?q", "?q/../r"]),
)
def test_relative_paths_lead_where_the_standard_library_says(path, query):
    # It drops empty segments, which RFC 3986 keeps.
    if "//" in path or path.startswith("a:b"):
        return
    ours = join_location("http://h/1/2/3", path + query)
    assert ours == urljoin("http://h/1/2/3", path + query)


@given(st.binary(max_size=30).map(lambda data: data.decode("latin-1")))
def test_whatever_a_location_says_it_leads_to_a_url_or_is_refused(location):
    try:
        parts = split_url(join_location("http://a.test/x/y?z", location))
    except InvalidURL:
        return
    assert PLAIN_TARGET.fullmatch(parts.target)
    if "//" not in location:
        assert parts.host == "a.test"


# -------------------------------------------------------------------------------- bases


@pytest.mark.parametrize(
    ("base", "url", "joined"),
    [
        ("http://a.test", "", "http://a.test"),
        ("http://a.test/", "", "http://a.test/"),
        ("http://a.test", "x", "http://a.test/x"),
        ("http://a.test", "/x", "http://a.test/x"),
        ("http://a.test/", "/x", "http://a.test/x"),
        ("http://a.test/api", "x/y", "http://a.test/api/x/y"),
        ("http://a.test/api/", "/x", "http://a.test/api/x"),
        ("http://a.test/api", "?q=1", "http://a.test/api?q=1"),
        ("http://a.test/api/", "?q=1", "http://a.test/api?q=1"),
        ("http://a.test/api", "x?q=http://b.test", "http://a.test/api/x?q=http://b.test"),
        ("http://a.test/api", "#f", "http://a.test/api/#f"),
        ("http://a.test/api", "x/a:b", "http://a.test/api/x/a:b"),
        ("http://a.test/api", "/a:b", "http://a.test/api/a:b"),
        ("http://a.test/api", "1:b", "http://a.test/api/1:b"),
        ("http://a.test/api", "../x", "http://a.test/api/../x"),
        ("http://a.test/api", "@b.test", "http://a.test/api/@b.test"),
        ("http://a.test/api", ":80", "http://a.test/api/:80"),
        ("http://a.test", ".b.test/", "http://a.test/.b.test/"),
        ("http://a.test/api", "/\\b.test", "http://a.test/api/\\b.test"),
        ("http://u:p@a.test/api", "x", "http://u:p@a.test/api/x"),
        ("http://a.test/api", "http://b.test/x", "http://b.test/x"),
        ("http://a.test/api", "HTTPS://b.test/x", "HTTPS://b.test/x"),
        # split_url refuses these.
        ("http://a.test/api", "http:x", "http:x"),
        ("http://a.test/api", "https:/x", "https:/x"),
    ],
)
def test_what_is_below_a_base(base, url, joined):
    assert join_base(base, url) == joined


@pytest.mark.parametrize("url", ["//b.test/", "///x", "\\\\b.test", "\\x", "ftp://b.test", "a:b"])
def test_what_may_lead_away_from_the_base_is_refused(url):
    assert refused(InvalidURL, join_base, "http://u:p@a.test/api", url) == (
        f"{url!r} is neither a path below 'http://a.test/api' nor a whole URL"
    )


@pytest.mark.parametrize("base", ["http://a.test?q", "http://a.test/x?", "http://a.test#f"])
@pytest.mark.parametrize("url", ["", "x", "?r"])
def test_below_a_query_is_nothing(base, url):
    assert refused(InvalidURL, join_base, base, url) == (
        f"{base!r} has a query or fragment, so nothing can be below it"
    )
    assert join_base(base, "http://b.test/") == "http://b.test/"


@given(URLS)
def test_a_base_keeps_its_host(url):
    try:
        parts = split_url(join_base("http://a.test/api", url))
    except InvalidURL:
        return
    assert parts.host == "a.test" or url.lower().startswith(("http://", "https://"))


# --------------------------------------------------------------------------- parameters


class Colour(str, enum.Enum):  # noqa: UP042 - another str() than StrEnum's
    RED = "red"


class Level(int, enum.Enum):
    HIGH = 3


class Plain(enum.Enum):
    ONE = 1.5
    DAY = date(2026, 2, 3)
    YES = True


class Ratio(float, enum.Enum):
    HALF = 0.5


@pytest.mark.parametrize(
    ("params", "query"),
    [
        ({}, ""),
        ([], ""),
        ({"a": None}, ""),
        ({"a": []}, ""),
        ({"a": "1"}, "?a=1"),
        ({"a": "1", "b": ""}, "?a=1&b="),
        ([("a", 1), ("b", 2.5), ("a", 3)], "?a=1&b=2.5&a=3"),
        ({"a": [1, None, "x"], "b": ("y",)}, "?a=1&a=x&b=y"),
        ({"a": True, "b": False}, "?a=true&b=false"),
        (
            {"a": -1, "b": 10**20, "c": 1e300, "d": inf},
            "?a=-1&b=1" + "0" * 20 + "&c=1e%2B300&d=inf",
        ),
        ({"a b": "c d", "e&f": "g=h+i%j/k?"}, "?a+b=c+d&e%26f=g%3Dh%2Bi%25j%2Fk%3F"),
        ({"ä": "€", "b": b"\xff\0", "c": bytearray(b"x")}, "?%C3%A4=%E2%82%AC&b=%FF%00&c=x"),
        ({"a": "\r\n#"}, "?a=%0D%0A%23"),
        ({"a": Colour.RED, "b": Level.HIGH, "c": Ratio.HALF}, "?a=red&b=3&c=0.5"),
        ({"a": Plain.ONE, "b": Plain.DAY, "c": Plain.YES}, "?a=1.5&b=2026-02-03&c=true"),
        ({"a": Decimal("1.10"), "b": Decimal("1E+3")}, "?a=1.10&b=1E%2B3"),
        ({"a": UUID(int=10)}, "?a=00000000-0000-0000-0000-00000000000a"),
        ({"a": date(2026, 2, 3), "b": time(4, 5)}, "?a=2026-02-03&b=04%3A05%3A00"),
        (
            {"a": datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)},
            "?a=2026-02-03T04%3A05%3A06%2B00%3A00",
        ),
        ({"a": {"z", "b", "ä"}, "b": frozenset({10, 9, None})}, "?a=b&a=z&a=%C3%A4&b=10&b=9"),
        ({"a": {}.keys(), "b": {"x": 1}.keys(), "c": range(3)}, "?b=x&c=0&c=1&c=2"),
        ({"a": [Decimal(1), UUID(int=0), None]}, f"?a=1&a={UUID(int=0)}"),
        (iter([("a", 1)]), "?a=1"),
    ],
)
def test_params_are_added(params, query):
    assert add_params("http://a.test/x", params) == f"http://a.test/x{query}"


@pytest.mark.parametrize(
    ("url", "with_params"),
    [
        ("http://a.test", "http://a.test?b=1"),
        ("http://a.test/?", "http://a.test/?b=1"),
        ("http://a.test/?a=0", "http://a.test/?a=0&b=1"),
        ("http://a.test/?a=0&", "http://a.test/?a=0&b=1"),
        ("http://a.test/?b=0", "http://a.test/?b=0&b=1"),
        ("http://a.test/#f?a", "http://a.test/?b=1#f?a"),
        ("http://a.test/?a=0#f", "http://a.test/?a=0&b=1#f"),
    ],
)
def test_params_stand_behind_those_that_are_there(url, with_params):
    assert add_params(url, {"b": 1}) == with_params


@pytest.mark.parametrize("value", [{}, {1j}, object(), 1j, [[1]], memoryview(b"x"), timedelta(1)])
def test_a_parameter_of_another_type_is_refused(value):
    (shown,) = value if isinstance(value, (list, set)) else (value,)
    assert refused(TypeError, add_params, "http://a.test", {"a": value}) == (
        "the parameter 'a' must be str, bytes, int, float, bool, Decimal, UUID, Enum, date, time, "
        f"None or a list or set of them, not {type(shown).__name__}"
    )


@pytest.mark.parametrize("params", ["a=1", b"a=1"])
def test_a_query_as_text_is_no_params(params):
    assert refused(TypeError, add_params, "http://a.test", params) == (
        f"params must be a mapping or pairs, not {params!r}: an encoded query goes into the URL"
    )


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5))))
def test_params_arrive_as_they_are(pairs):
    try:
        parts = split_url(add_params("http://a.test/", pairs))
    except UnicodeEncodeError:
        return
    assert parse_qsl(parts.target[2:], keep_blank_values=True) == pairs
