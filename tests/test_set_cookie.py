"""client/cookies/set_cookie.py: what a Set-Cookie says. What becomes of it: test_cookies.py."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttpconn.client.cookies.set_cookie import (
    MAX_AGE,
    OVERHEAD,
    default_path,
    is_address,
    is_trustworthy,
    may_set,
    overlap,
    parse_date,
    parse_set_cookie,
    path_matches,
)
from aiohttpconn.urls import split_url

NOW = 1_700_000_000.0
"""14 November 2023, 22:13:20 GMT."""


def parsed(line: str) -> dict[str, object]:
    """Return what is said beside name and value, as far as it is said."""
    cookie = parse_set_cookie(line, NOW)
    assert cookie is not None
    said = {name: getattr(cookie, name) for name in ("domain", "path", "secure", "http_only")}
    said = {name: value for name, value in said.items() if value}
    return said if cookie.expires == inf else {**said, "expires": cookie.expires - NOW}


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ("", {}),
        (
            "; Domain=A.Test; Path=/x; Secure; HttpOnly; Max-Age=5",
            {"domain": "a.test", "path": "/x", "secure": True, "http_only": True, "expires": 5},
        ),
        (
            ";dOMAIN=.a.test;pATH=/;sECURE=no;hTTPONLY=",
            {"domain": "a.test", "path": "/", "secure": True, "http_only": True},
        ),
        ("; Domain=..a.test", {"domain": ".a.test"}),
        ("; Domain=a.test; Domain=", {}),
        ("; Path=x", {}),
        ("; Path=/x; Path=x", {}),
        (";\tPath\t=\t/a b\t", {"path": "/a b"}),
        ("; Path=/x=y", {"path": "/x=y"}),
        ("; Securely; Http-Only; Max-Ages=1", {}),
        ("; Max-Age=0", {"expires": -inf}),
        ("; Max-Age=-5; Expires=Fri, 31 Dec 2100 00:00:00 GMT", {"expires": -inf}),
        ("; Max-Age=x; Expires=Tue, 14 Nov 2023 22:13:21 GMT", {"expires": 1}),
        ("; Max-Age=99999999999", {"expires": MAX_AGE}),
        ("; Max-Age=" + "9" * 1024, {"expires": MAX_AGE}),
        ("; Max-Age=" + "9" * 1025, {}),
        ("; Expires=Fri, 31 Dec 2100 00:00:00 GMT", {"expires": MAX_AGE}),
        ("; Expires=never", {}),
    ],
)
def test_attributes(attributes, said):
    assert parsed(f"a=1{attributes}") == said


def test_name_and_value():
    cookie = parse_set_cookie('\t a b = "c=d" ; Path=/xy', NOW)
    assert (cookie.name, cookie.pair) == ("a b", 'a b="c=d"')
    assert cookie.size() == len('a b="c=d"') + len("/xy") + OVERHEAD
    cookie.created = 3
    assert cookie.place() == (-3, 3)


@pytest.mark.parametrize("line", ["", "a", "=1", " =1", ";a=1", "a=\n", "a=1; Path=/\0", "a=€"])
def test_what_is_no_cookie_is_refused(line):
    assert parse_set_cookie(line, NOW) is None


def test_name_and_value_have_a_limit():
    assert parse_set_cookie(f"ab={'x' * 4094}", NOW) is not None
    assert parse_set_cookie(f"ab={'x' * 4095}", NOW) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Tue, 14 Nov 2023 22:13:20 GMT", NOW),
        ("Tue Nov 14 22:13:20 2023", NOW),
        ("Tuesday, 14-Nov-23 22:13:20 GMT", NOW),
        ("22:13:20 14 november 2023", NOW),
        ("14 Nov 2023 22:13:20 PST -0800", NOW),
        ("2023 14 Nov 22:13:20", NOW),
        ("14th Nov 2023x 22:13:20.5", NOW),
        ("1 jan 1970 0:0:0", 0.0),
        ("1 jan 70 0:0:0", 0.0),
        ("1 jan 69 0:0:0", 3_124_224_000.0),
        ("1 jan 1601 0:0:0", -11_644_473_600.0),
        ("1 jan 1600 0:0:0", None),
        ("29 feb 2023 0:0:0", None),
        ("29 feb 2024 0:0:0", 1_709_164_800.0),
        ("32 jan 2024 0:0:0", None),
        ("1 jan 2024 24:0:0", None),
        ("1 jan 2024 0:60:0", None),
        ("1 jan 2024 0:0:60", None),
        ("1 jan 2024 0:0", None),
        ("1 jan 0:0:0", None),
        ("jan 2024 0:0:0", None),
        ("1 2024 0:0:0", None),
        ("001 jan 2024 0:0:0", None),
        ("1 jan 02024 0:0:0", None),
        ("", None),
    ],
)
def test_dates(text, seconds):
    assert parse_date(text) == seconds


@given(st.text(st.characters(max_codepoint=255)))
def test_nothing_raises(text):
    for line in (text, f"a=1; Expires={text}", f"a=1; Max-Age={text}"):
        cookie = parse_set_cookie(line, NOW)
        if cookie is not None:
            assert cookie.pair.startswith(f"{cookie.name}=")
            assert cookie.expires <= NOW + MAX_AGE or cookie.expires == inf


@pytest.mark.parametrize(
    ("url", "line", "may"),
    [
        ("http://a.test/", "a=1", True),
        ("http://a.test/", "a=1; Secure", False),
        ("https://a.test/", "a=1; Secure", True),
        ("https://a.test/", "__Secure-a=1", False),
        ("https://a.test/", "__secure-a=1; Secure", True),
        ("http://a.test/", "__Secure-a=1", False),
        ("http://localhost:8080/", "a=1; Secure", True),
        ("http://127.0.0.1/", "__Host-a=1; Secure; Path=/", True),
        ("http://[::1]/", "__Secure-a=1; Secure", True),
        ("http://localhost/", "__Host-a=1; Path=/", False),
        ("https://a.test/", "__Host-a=1; Secure; Path=/", True),
        ("https://a.test/", "__HOST-a=1; Path=/", False),
        ("https://a.test/", "__Host-a=1; Secure", False),
        ("https://a.test/", "__Host-a=1; Secure; Path=/x", False),
        ("https://a.test/", "__Host-a=1; Secure; Path=/; Domain=a.test", False),
    ],
)
def test_what_a_url_may_set(url, line, may):
    assert may_set(split_url(url), parse_set_cookie(line, NOW)) is may


@pytest.mark.parametrize(
    ("target", "path"),
    [("/", "/"), ("/x", "/"), ("/x/", "/x"), ("/x/y", "/x"), ("/x/y?/z/", "/x"), ("//", "/")],
)
def test_the_default_path(target, path):
    assert default_path(target) == path


@pytest.mark.parametrize(
    ("path", "cookie_path", "matches"),
    [
        ("/", "/", True),
        ("/x", "/", True),
        ("/x", "/x", True),
        ("/x/", "/x", True),
        ("/x/y", "/x", True),
        ("/x/y", "/x/", True),
        ("/x", "/x/", False),
        ("/xy", "/x", False),
        ("/", "/x", False),
        ("/X", "/x", False),
    ],
)
def test_paths(path, cookie_path, matches):
    assert path_matches(path, cookie_path) is matches


@pytest.mark.parametrize(
    ("url", "trustworthy"),
    [
        ("https://a.test/", True),
        ("http://localhost:3000/", True),
        ("http://127.0.0.1/", True),
        ("http://127.255.0.9/", True),
        ("http://[::1]:80/", True),
        ("http://[0:0:0:0:0:0:0:1]/", True),
        ("http://[::1%25lo]/", True),
        ("http://a.test/", False),
        ("http://128.0.0.1/", False),
        ("http://127.0.0.1.test/", False),
        ("http://127.test/", False),
        ("http://localhost.test/", False),
        # Not every resolver keeps these on this machine.
        ("http://app.localhost/", False),
        ("http://localhost./", False),
        ("http://[::2]/", False),
        ("http://[::ffff:127.0.0.1]/", False),
    ],
)
def test_https_and_this_machine_are_trustworthy(url, trustworthy):
    assert is_trustworthy(split_url(url)) is trustworthy


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("a.test", "a.test", True),
        ("a.test", ".a.test", True),
        ("x.a.test", ".a.test", True),
        (".x.a.test", ".a.test", True),
        ("a.test", "x.a.test", False),
        (".x.a.test", "a.test", False),
        (".a.test", "xa.test", False),
        (".a.test", ".b.test", False),
    ],
)
def test_whether_one_host_gets_both(one, other, both):
    assert overlap(one, other) is overlap(other, one) is both


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", True), ("::1", True), ("fe80::1%a", True), ("a.test", False), ("1.a", False)],
)
def test_addresses(host, address):
    assert is_address(host) is address
