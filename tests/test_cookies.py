"""client/cookies/store.py: cookies that are kept, those sent back, and their cost in memory."""

from __future__ import annotations

import sys
from http.cookiejar import Cookie, CookieJar, LWPCookieJar, MozillaCookieJar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttpconn.client.cookies import store as cookies
from aiohttpconn.client.cookies.set_cookie import MAX_AGE, OVERHEAD
from aiohttpconn.client.cookies.store import CookieStore, cookie_pairs
from aiohttpconn.client.cookies.suffixes import is_known_suffix
from aiohttpconn.exceptions import InvalidURL
from aiohttpconn.http11.grammar import FIELD_VALUE
from aiohttpconn.urls import split_url

NOW = 1_700_000_000.0
"""14 November 2023, 22:13:20 GMT."""


class Clock:
    """The clock of the store, which stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = NOW


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(cookies, "_now", lambda: clock.now)
    return clock


def received(url, *lines, store=None, **keywords) -> CookieStore:
    store = CookieStore(**keywords) if store is None else store
    store.extract(split_url(url), lines)
    return store


def header(store, url) -> str:
    return store.header_for(split_url(url))


def names(sent: str) -> list[str]:
    return [pair.partition("=")[0] for pair in sent.split("; ")]


# Hosts and domains


@pytest.mark.parametrize(
    ("origin", "line"),
    [
        ("http://example.org/", "a=1"),
        ("http://EXAMPLE.org/", "a=1"),
        ("http://example.org/", "a=1; Domain="),
        ("http://example.org/", "a=1; Domain"),
        ("http://example.org/", "a=1; Domain=evil.test; Domain="),
        ("http://example.org:8080/", "a=1"),
    ],
)
def test_a_cookie_goes_back_to_the_host_that_set_it_and_to_no_other(origin, line):
    store = received(origin, line)
    assert header(store, "http://example.org/") == "a=1"
    assert header(store, "https://example.org:8443/x") == "a=1"
    for other in ["www.example.org", "org", "example.org.", "xexample.org", "example.com"]:
        assert header(store, f"http://{other}/") == ""


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "domain", ["example.com", ".example.com", "Example.COM", "evil.test; Domain=example.com"]
)
def test_a_cookie_for_a_domain_goes_to_all_its_hosts(scheme, domain):
    store = received(f"{scheme}://www.example.com/", f"a=1; Domain={domain}")
    for host in ["www.example.com", "example.com", "api.example.com", "x.y.example.com"]:
        assert header(store, f"{scheme}://{host}/") == "a=1"
        assert store.may_have(host)
    for host in ["xexample.com", "com", "example.org", "example.com.", "example.com.evil.test"]:
        assert header(store, f"{scheme}://{host}/") == ""
        assert not store.may_have(host)


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("www.shop.co.uk", "co.uk"),
        ("www.shop.co.uk", "uk"),
        ("example.org", "org"),
        ("me.github.io", "github.io"),
        ("www.shop.com.au", "com.au"),
        ("example.or.jp", "or.jp"),
        # No suffix itself, but one is below it: other buckets would get the cookie.
        ("bucket.s3.amazonaws.com", "amazonaws.com"),
        ("s3.amazonaws.com", "amazonaws.com"),
    ],
)
def test_a_public_suffix_has_no_cookies(host, domain):
    for keywords in ({}, {"jar": CookieJar()}, {"is_public_suffix": is_known_suffix}):
        assert len(received(f"https://{host}/", f"a=1; Domain={domain}", **keywords)) == 0


def test_the_host_only_flag_is_part_of_what_a_cookie_is():
    """RFC 6265bis §5.7: name, path, domain and the flag."""
    store = received("http://x.test/", "sid=new; Path=/", "sid=; Domain=x.test; Max-Age=0")
    assert header(store, "http://x.test/") == "sid=new"
    received("http://x.test/", "sid=wide; Path=/; Domain=x.test", store=store)
    assert header(store, "http://x.test/") == "sid=new; sid=wide"
    assert header(store, "http://www.x.test/") == "sid=wide"
    received("http://x.test/", "sid=; Path=/; Max-Age=0", store=store)
    assert header(store, "http://x.test/") == "sid=wide"
    received("http://www.x.test/", "sid=; Path=/; Domain=x.test; Max-Age=0", store=store)
    assert len(store) == 0


def test_the_host_only_flag_is_kept_in_a_jar():
    jar = CookieJar()
    received("http://x.test/", "sid=new; Path=/", "sid=; Domain=x.test; Max-Age=0", jar=jar)
    assert header(CookieStore(jar), "http://x.test/") == "sid=new"


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("example.org", "example.com"),
        ("example.org", "www.example.org"),
        ("example.org", "ample.org"),
        ("example.org", "..example.org"),
        ("example.org", "..org"),
        ("example.org", "example.org."),
        ("example.org.", "example.org"),
        ("127.0.0.1", "0.0.1"),
        ("127.0.0.1", "1"),
        ("[::1]", "1"),
        ("localhost", "local"),
        ("localhost", "localhost.local"),
        ("xn--bcher-kva.test", "bücher.test"),
    ],
)
def test_a_domain_that_does_not_cover_the_host_refuses_the_cookie(host, domain):
    assert len(received(f"http://{host}/", f"a=1; Domain={domain}")) == 0


@pytest.mark.parametrize(
    ("host", "line"),
    [
        ("127.0.0.1", "a=1"),
        ("127.0.0.1", "a=1; Domain=127.0.0.1"),
        ("[::1]", "a=1"),
        ("[FE80::1%25eth0]", "a=1"),
        ("localhost", "a=1; Domain=localhost"),
        ("bücher.test", "a=1"),
        ("example.org.", "a=1; Domain=example.org."),
    ],
)
def test_any_host_of_a_url_can_have_cookies(host, line):
    store = received(f"http://{host}/", line)
    assert header(store, f"http://{host}/") == "a=1"
    assert len(store) == 1


def test_a_host_that_is_written_like_a_domain_gets_and_sets_nothing():
    store = CookieStore()
    store.set("a", "1", url_or_host=".example.org")
    received("http://.example.org/", "b=2", store=store)
    assert header(store, "http://.example.org/") == ""
    assert header(store, "http://www.example.org/") == "a=1"


# Schemes


@pytest.mark.parametrize("make_jar", [lambda: None, CookieJar])
@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "127.1.2.3:81", "[::1]"])
def test_on_this_machine_secure_cookies_need_no_https(host, make_jar):
    url = f"http://{host}/"
    lines = ["a=1; Secure", "__Host-b=2; Secure; Path=/", "__Secure-c=3; Secure"]
    store = received(url, *lines, jar=make_jar())
    assert header(store, url) == "a=1; __Host-b=2; __Secure-c=3"
    received(url, "a=4", store=store)
    assert "a=4" in header(store, url)
    assert header(store, "http://a.test/") == ""


def test_a_secure_cookie_is_sent_over_https_alone():
    store = received("https://example.org/", "a=1; Secure", "b=2")
    assert header(store, "https://example.org/") == "a=1; b=2"
    assert header(store, "http://example.org/") == "b=2"


def test_a_secure_cookie_cannot_be_set_over_http():
    assert len(received("http://example.org/", "a=1; secure", "b=2; Secure=no")) == 0


@pytest.mark.parametrize(
    ("kept_path", "line", "kept"),
    [
        ("/", "a=2", True),
        ("/", "a=2; Path=/login", True),
        ("/login", "a=2; Path=/login/en", True),
        ("/", "a=; Max-Age=0", True),
        ("/login", "a=2; Path=/", False),
        ("/", "A=2", False),
    ],
)
def test_http_leaves_secure_cookies_alone(kept_path, line, kept):
    store = received("https://example.org/", f"a=1; Secure; Path={kept_path}")
    received("http://example.org/", line, store=store)
    assert (len(store) == 1) is kept
    assert "a=1" in header(store, "https://example.org/login/en")


@pytest.mark.parametrize(
    ("kept", "url", "line", "refused"),
    [
        ("a=1; Secure", "http://www.a.test/", "a=2; Domain=a.test", True),
        ("a=1; Secure", "http://www.a.test/", "a=2", False),
        ("a=1; Secure", "http://a.test/", "a=2; Domain=a.test", True),
        ("a=1; Secure; Domain=a.test", "http://a.test/", "a=2", True),
        ("a=1; Secure; Domain=a.test", "http://x.a.test/", "a=2", True),
        ("a=1; Secure; Domain=a.test", "http://b.test/", "a=2", False),
        ("a=1; Secure; Path=/x", "http://a.test/", "a=2; Domain=a.test; Path=/x/y", True),
        ("a=1; Secure; Path=/x", "http://a.test/", "a=2; Domain=a.test; Path=/y", False),
        ("a=1", "http://a.test/", "a=2; Domain=a.test", False),
    ],
)
def test_http_does_not_shadow_secure_cookies_of_a_domain(kept, url, line, refused):
    store = received("https://a.test/", kept)
    received(url, line, store=store)
    assert len(store) == 2 - refused


@pytest.mark.parametrize(
    ("origin", "line", "kept"),
    [
        ("https://a.test/", "__Secure-a=1; Secure", True),
        ("https://a.test/", "__Secure-a=1", False),
        ("https://a.test/", "__sEcuRe-a=1", False),
        ("http://a.test/", "__Secure-a=1", False),
        ("http://a.test/", "__Secure-a=1; Secure", False),
        ("https://a.test/x/y", "__Host-a=1; Secure; Path=/", True),
        ("https://a.test/", "__Host-a=1; Secure", False),
        ("https://a.test/", "__Host-a=1; Secure; Path=/x", False),
        ("https://a.test/", "__Host-a=1; Path=/", False),
        ("https://a.test/", "__hOST-a=1; Path=/", False),
        ("https://a.test/", "__Host-a=1; Secure; Path=/; Domain=a.test", False),
        ("http://a.test/", "__Host-a=1; Path=/", False),
    ],
)
def test_the_promise_of_a_name_is_kept(origin, line, kept):
    assert len(received(origin, line)) == kept


# Paths


@pytest.mark.parametrize(
    ("path", "cookie_path", "sent"),
    [
        ("/", "/", True),
        ("/a", "/", True),
        ("/a", "/a", True),
        ("/a/", "/a", True),
        ("/a/b", "/a", True),
        ("/a/b", "/a/", True),
        ("/a?b", "/a", True),
        ("/a", "/a/", False),
        ("/ab", "/a", False),
        ("/", "/a", False),
        ("/A", "/a", False),
        ("/?/a", "/a", False),
    ],
)
def test_paths_match(path, cookie_path, sent):
    store = received("http://a.test/elsewhere", f"n=1; Path={cookie_path}")
    assert header(store, f"http://a.test{path}") == ("n=1" if sent else "")


@pytest.mark.parametrize(
    ("url", "line", "path"),
    [
        ("http://a.test", "n=1", "/"),
        ("http://a.test/x", "n=1", "/"),
        ("http://a.test/x/", "n=1", "/x"),
        ("http://a.test/x/y", "n=1", "/x"),
        ("http://a.test/x/y?z=/a/b", "n=1", "/x"),
        ("http://a.test/x/y", "n=1; Path", "/x"),
        ("http://a.test/x/y", "n=1; Path=", "/x"),
        ("http://a.test/x/y", "n=1; Path=b", "/x"),
        ("http://a.test/x/y", 'n=1; Path="/"', "/x"),
        ("http://a.test/x/y", "n=1; pAtH = /b ", "/b"),
        ("http://a.test/x/y", "n=1; Path=/b; Path=/c", "/c"),
        ("http://a.test/x/y", f"n=1; Path=/{'b' * 1023}", "/" + "b" * 1023),
        ("http://a.test/x/y", f"n=1; Path=/{'b' * 1024}", "/x"),
    ],
)
def test_the_path_of_a_cookie(url, line, path):
    assert [cookie.path for cookie in received(url, line)] == [path]


def test_longer_paths_come_first_then_older_cookies():
    store = received("http://a.test/", "a=1", "b=1; Path=/x/y", "c=1; Path=/x", "d=1; Path=/x/y")
    received("http://a.test/", "b=2; Path=/x/y", "a=2", store=store)
    assert header(store, "http://a.test/x/y") == "b=2; d=1; c=1; a=2"


# What a field may say


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        ("a=1", "a=1"),
        ("  a \t= 1 \t; Path=/", "a=1"),
        ("a=", "a="),
        ("a=b=c==", "a=b=c=="),
        ('a="b c"', 'a="b c"'),
        ("a=b,c d", "a=b,c d"),
        ("a=\t1\t2\t", "a=1\t2"),
        ("a=\xe4\xff", "a=\xe4\xff"),
        ("a[b]=1", "a[b]=1"),
        ("a=1;;;=;HttpOnly;SameSite=Lax;Foo=bar;Partitioned", "a=1"),
        ("expires=1; path=/", "expires=1"),
        ("a=1; Domain=" + "x" * 1025, "a=1"),
        ("a=1" + ";" * 31 + "; Path=/x", ""),
        ("a=1" + ";" * 32 + "; Path=/x", "a=1"),
        ("", ""),
        ("a", ""),
        ("=", ""),
        ("=a", ""),
        (" =a", ""),
        ("; a=1", ""),
        ("a; b=1", ""),
        ("a=1\x00", ""),
        ("a=1\r\nX: y", ""),
        ("a=1\n", ""),
        ("a\x01b=1", ""),
        ("a=1\x7f", ""),
        ("a=1; Path=/\x1b", ""),
        ("a=€", ""),
    ],
)
def test_what_is_kept_of_a_field(line, sent):
    store = received("http://a.test/", line)
    assert header(store, "http://a.test/") == sent
    if "Path=/x" not in line:
        assert cookie_pairs([line]) == dict([sent.split("=", 1)] if sent else [])


def test_4096_bytes_of_name_and_value_are_kept_and_no_more():
    value = "x" * 4093
    store = received("http://a.test/", f"abc={value}", f"abcd={value}")
    assert header(store, "http://a.test/") == f"abc={value}"


def test_fields_are_not_split_at_commas():
    assert cookie_pairs(["a=1, b=2"]) == {"a": "1, b=2"}


def test_the_last_cookie_of_a_name_counts(clock):
    assert cookie_pairs(["a=1", "b=2", "a=3"]) == {"b": "2", "a": "3"}
    assert cookie_pairs(["a=1", "a=; Max-Age=0"]) == {}
    assert cookie_pairs(["a=; Max-Age=0", "a=2"]) == {"a": "2"}


# Times


@pytest.mark.parametrize(
    ("attributes", "seconds"),
    [
        ("Max-Age=60", 60),
        ("max-age=060", 60),
        ("Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT", 60),
        ("Expires=Tue, 14 Nov 2023 22:14:20 GMT", 60),
        ("Expires=Tue, 14-Nov-23 22:14:20 GMT", 60),
        ("Expires=Tuesday, 14-Nov-2023 22:14:20 GMT", 60),
        ("Expires=Tue Nov 14 22:14:20 2023", 60),
        ("Expires=14 nov 23 22:14:20", 60),
        ("Expires=2023 November 14 22:14:20 -0500 (EST)", 60),
        ("Expires=22:14:20;Max-Age=60", 60),
        ("Expires=Tue, 14 Nov 2023 22:14:20 GMT; Max-Age=+5", 60),
        ("Expires=Tue, 14 Nov 2023 22:14:20 GMT; Max-Age=5_0", 60),
        ("Expires=Tue, 14 Nov 2023 22:14:20 GMT; Max-Age=٣", 60),
        ("Max-Age=" + "9" * 1000, MAX_AGE),
        ("Expires=Fri, 31 Dec 9999 23:59:59 GMT", MAX_AGE),
        ("Expires=Tue, 01-Jan-69 00:00:00 GMT", MAX_AGE),
    ],
)
def test_a_cookie_ends_at_its_time(clock, attributes, seconds):
    if not attributes.isascii():
        attributes = attributes.encode().decode("latin-1")
    store = received("http://a.test/", f"a=1; {attributes}")
    clock.now = NOW + seconds - 1
    assert header(store, "http://a.test/") == "a=1"
    clock.now = NOW + seconds
    assert header(store, "http://a.test/") == ""
    assert len(store) == 0


@pytest.mark.parametrize(
    "attributes",
    [
        "",
        "Max-Age=",
        "Max-Age=1.5",
        "Max-Age=--1",
        "Expires=",
        "Expires=0",
        "Expires=never",
        "Expires=Tue, 31 Feb 2023 22:14:20 GMT",
        "Expires=Tue, 00 Nov 2023 22:14:20 GMT",
        "Expires=Tue, 14 Nov 2023 24:14:20 GMT",
        "Expires=Tue, 14 Nov 2023 22:60:20 GMT",
        "Expires=Tue, 14 Nov 2023 22:14 GMT",
        "Expires=Tue, 14 Nov 1600 22:14:20 GMT",
        "Expires=Tue, 14 Foo 2023 22:14:20 GMT",
        "Expires=Tue, 14 Nov 20231 22:14:20 GMT",
        "Expires=" + "9" * 1000,
    ],
)
def test_without_a_time_a_cookie_stays(clock, attributes):
    store = received("http://a.test/", f"a=1; {attributes}")
    clock.now = NOW + 10 * MAX_AGE
    assert header(store, "http://a.test/") == "a=1"


@pytest.mark.parametrize(
    "attributes",
    [
        "Max-Age=0",
        "Max-Age=-1",
        "Max-Age=-" + "9" * 1000,
        "Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        "Expires=Thu, 01-Jan-70 00:00:00 GMT",
        "Expires=Fri, 31-Dec-99 00:00:00 GMT",
        "Expires=Mon, 01 Jan 1601 00:00:00 GMT",
        "Expires=Tue, 14 Nov 2023 22:13:20 GMT",
        "Expires=Fri, 31 Dec 9999 23:59:59 GMT; Max-Age=0",
    ],
)
def test_a_time_that_has_passed_removes_the_cookie(clock, attributes):
    store = received("http://a.test/x/y", "a=1", "b=1", "a=1; Path=/")
    received("http://a.test/x/z", f"a=; {attributes}", store=store)
    assert header(store, "http://a.test/x/") == "b=1; a=1"


# Limits


def test_a_host_has_50_cookies_and_the_oldest_goes():
    store = received("http://a.test/", *[f"c{n}=1; Path=/p{n % 3}" for n in range(50)])
    received("http://b.test/", "other=1", store=store)
    received("http://a.test/", "c0=2; Path=/p0", "c50=1; Path=/", store=store)
    kept = {cookie.name for cookie in store if cookie.domain == "a.test"}
    assert kept == {f"c{n}" for n in range(1, 51)}
    assert header(store, "http://b.test/") == "other=1"


def test_http_cannot_push_out_secure_cookies(caplog):
    store = received("https://a.test/", "kept=1; Secure")
    received("http://a.test/", *[f"c{n}=1" for n in range(200)], store=store)
    assert len(store) == 50
    assert header(store, "https://a.test/").startswith("kept=1; c151=1;")
    store = received("https://a.test/", *[f"c{n}=1; Secure" for n in range(50)])
    with caplog.at_level("INFO", "aiohttpconn"):
        received("http://a.test/", "new=s3cret", store=store)
    assert names(header(store, "https://a.test/")) == [f"c{n}" for n in range(50)]
    assert caplog.messages == [
        "the cookie 'new' of a.test is not kept: there are 50 Secure ones, and it came over http"
    ]


@pytest.mark.parametrize("domain", ["", "; Domain=a.test"])
def test_the_newest_cookie_is_kept_and_what_goes_for_it_is_logged(domain, caplog):
    store = received("https://a.test/", *[f"c{n}=1; Secure{domain}" for n in range(50)])
    with caplog.at_level("INFO", "aiohttpconn"):
        received("https://a.test/", f"csrf=s3cret{domain}", store=store)
    assert names(header(store, "https://a.test/")) == [*(f"c{n}" for n in range(1, 50)), "csrf"]
    assert caplog.messages == [
        f"the cookie 'c0' of {'.' * bool(domain)}a.test is forgotten, for 'csrf': it has at most "
        "50 cookies"
    ]


def test_an_expired_cookie_goes_first(clock, caplog):
    lines = [f"c{n}=1; Secure" for n in range(49)]
    store = received("https://a.test/", *lines, "old=1; Secure; Max-Age=5")
    clock.now += 5
    with caplog.at_level("INFO", "aiohttpconn"):
        received("https://a.test/", "new=1", store=store)
    assert {cookie.name for cookie in store} == {*(f"c{n}" for n in range(49)), "new"}
    assert "the cookie 'old' of a.test is forgotten, for 'new'" in caplog.text


def test_a_field_has_8_kib_and_the_least_specific_of_the_oldest_are_left_out(caplog):
    value = "x" * 2000
    lines = [f"old={value}", f"new={value}", f"deep1={value}; Path=/d", f"deep2={value}; Path=/d"]
    store = received("http://a.test/", *lines, f"last={value}")
    with caplog.at_level("INFO", "aiohttpconn"):
        sent = header(store, "http://a.test/d")
    assert caplog.messages == [
        "a.test gets 4 of its 5 cookies: a Cookie field has at most 8192 bytes"
    ]
    assert names(sent) == ["deep1", "deep2", "new", "last"]
    assert len(sent) <= cookies.MAX_HEADER
    assert header(store, "http://a.test/").count("=") == 3
    assert len(store) == 5


@pytest.mark.parametrize(("make_jar", "left"), [(lambda: None, "b"), (CookieJar, "a")])
def test_a_field_may_have_8_kib_exactly(make_jar, left):
    store = received("http://a.test/", "a=" + "x" * 4093, "b=" + "x" * 4093, jar=make_jar())
    assert len(header(store, "http://a.test/")) == 8192
    received("http://a.test/", "a=" + "x" * 4094, store=store)
    assert names(header(store, "http://a.test/")) == [left]


def test_hosts_that_were_not_used_for_long_go_when_there_are_too_many(monkeypatch, caplog):
    monkeypatch.setattr(cookies, "MAX_SIZE", 100 * (OVERHEAD + 5))
    store = CookieStore()
    for n in range(100):
        received(f"http://h{n}.test/", "abc=", store=store)
        assert header(store, "http://h0.test/") == "abc="
    assert len(store) == 100
    with caplog.at_level("INFO", "aiohttpconn"):
        received("http://new.test/", "a=1", store=store)
    assert caplog.messages == [
        "the cookies of the 11 hosts that were not used for the longest time are forgotten: all "
        "cookies have at most 50500 bytes"
    ]
    assert len(store) == 90
    assert header(store, "http://h0.test/") == "abc="
    assert header(store, "http://new.test/") == "a=1"
    gone = [n for n in range(100) if not header(store, f"http://h{n}.test/")]
    assert gone == list(range(1, 12))


def test_the_size_is_what_is_kept(clock):
    store = CookieStore()
    for n in range(120):
        received(f"https://h{n % 2}.test/", f"c{n % 70}={'x' * n}; Max-Age={n % 7}", store=store)
    clock.now += 3
    for n in range(2):
        header(store, f"https://h{n}.test/")
    kept = sum(len(f"{c.name}={c.value}") + len(c.path) + OVERHEAD for c in store)
    assert store._size == kept > 0


def test_the_secure_cookies_are_those_that_are_kept(clock, monkeypatch):
    monkeypatch.setattr(cookies, "MAX_SIZE", 60 * OVERHEAD)
    store = CookieStore()
    for n in range(300):
        secure = "; Secure" * (n % 3 > 0)
        line = f"c{n % 9}=x; Max-Age={n % 7}; Path=/{n % 8}{secure}"
        received(f"https://h{n % 5}.test/", line, store=store)
        clock.now += n % 2
        header(store, f"https://h{n % 5}.test/{n % 8}")
    secured = {(c.name, c.domain, c.path) for c in store if c.secure}
    places = store._secured.items()
    assert {(name, *place) for (name, _), kept in places for place in kept} == secured
    assert 0 < len(secured) < len(store)
    for cookie in list(store):
        store.discard(cookie)
    assert (store._secured, store._size) == ({}, 0)


def test_secure_cookies_of_other_sites_are_not_looked_at(monkeypatch):
    """A crawler keeps the same name for 100,000 hosts, and each http response may set it."""
    compared: list[str] = []

    def overlap(one: str, other: str) -> bool:
        compared.append(one)
        return original(one, other)

    original = cookies.overlap
    store = CookieStore()
    for n in range(500):
        received(f"https://www.h{n}.test/", f"a=1; Secure; Domain=h{n}.test", store=store)
    monkeypatch.setattr(cookies, "overlap", overlap)
    for url in ("http://www.h7.test/", "http://other.test/"):
        received(url, "a=2", store=store)
    assert compared == [".h7.test"]
    assert header(store, "http://www.h7.test/") == ""
    assert header(store, "http://other.test/") == "a=2"


@pytest.mark.parametrize("kept", [".test", ".x.test", "a.x.test", ".a.x.test"])
@pytest.mark.parametrize("line", ["a=2", "a=2; Domain=x.test", "a=2; Domain=a.x.test"])
def test_a_secure_cookie_of_the_caller_s_is_not_shadowed_either(kept, line):
    store = CookieStore()
    store.set("a", "1", url_or_host=kept, secure=True)
    received("http://a.x.test/", line, store=store)
    assert [cookie.value for cookie in store] == ["1"]


# Domains, with a public suffix list


def is_public_suffix(domain: str) -> bool:
    return domain in {"org", "uk", "co.uk", "test"}


@pytest.mark.parametrize(
    ("origin", "domain", "hosts"),
    [
        ("https://www.a.co.uk/", "a.co.uk", {"www.a.co.uk", "a.co.uk", "x.y.a.co.uk"}),
        ("https://www.a.co.uk/", ".A.co.uk", {"www.a.co.uk", "a.co.uk", "x.y.a.co.uk"}),
        ("https://a.co.uk/", "a.co.uk", {"www.a.co.uk", "a.co.uk", "x.y.a.co.uk"}),
        ("https://www.a.co.uk/", "", {"www.a.co.uk"}),
        ("https://www.a.co.uk/", "co.uk", set()),
        ("https://www.a.co.uk/", "uk", set()),
        ("https://a.co.uk/", "b.co.uk", set()),
        ("https://a.co.uk/", "www.a.co.uk", set()),
        ("https://co.uk/", "co.uk", {"co.uk"}),
        ("http://www.a.co.uk/", "a.co.uk", {"www.a.co.uk", "a.co.uk", "x.y.a.co.uk"}),
        ("https://127.0.0.1/", "127.0.0.1", {"127.0.0.1"}),
        ("https://127.0.0.1/", "0.0.1", set()),
        # Names with a dot at their end are others, but suffixes are the same.
        ("https://a.co.uk./", "a.co.uk.", {"a.co.uk.", "www.a.co.uk.", "x.y.a.co.uk."}),
        ("https://www.a.co.uk./", "co.uk.", set()),
        ("https://www.a.co.uk./", "uk.", set()),
        ("https://co.uk./", "co.uk.", {"co.uk."}),
        ("https://www.a.co.uk./", "a.co.uk", set()),
    ],
)
@pytest.mark.parametrize("check", [None, is_public_suffix, is_known_suffix])
def test_a_cookie_may_be_for_a_domain_that_has_one_owner(origin, domain, hosts, check):
    store = received(origin, f"n=1; Domain={domain}", is_public_suffix=check)
    everyone = ["www.a.co.uk", "a.co.uk", "x.y.a.co.uk", "b.co.uk", "co.uk", "127.0.0.1"]
    everyone += [f"{host}." for host in everyone[:-1]]
    assert {host for host in everyone if header(store, f"https://{host}/")} == hosts


def test_cookies_of_host_and_domains_come_in_one_order():
    store = CookieStore(is_public_suffix=is_public_suffix)
    lines = ["a=1; Domain=b.test", "b=1", "c=1; Domain=a.b.test; Path=/x", "d=1; Domain=b.test"]
    received("https://a.b.test/", *lines, store=store)
    assert header(store, "https://a.b.test/x") == "c=1; a=1; b=1; d=1"
    assert header(store, "https://b.test/x") == "a=1; d=1"


def test_http_leaves_secure_cookies_of_the_domain_alone():
    store = CookieStore(is_public_suffix=is_public_suffix)
    received("https://b.test/", "a=1; Secure; Domain=b.test", store=store)
    received("http://a.b.test/", "a=2", store=store)
    assert header(store, "https://a.b.test/") == "a=1"


# The caller's cookies


@pytest.mark.parametrize(
    ("place", "hosts"),
    [
        ("a.test", {"a.test"}),
        ("http://a.test/x/y?z", {"a.test"}),
        ("https://user:pw@A.test:8443", {"a.test"}),
        (".a.test", {"a.test", "x.a.test"}),
    ],
)
def test_a_caller_sets_a_cookie(place, hosts):
    store = CookieStore()
    store.set("n", "1 2", url_or_host=place)
    sent = {host for host in ["a.test", "x.a.test", "test"] if header(store, f"http://{host}/q")}
    assert sent == hosts
    assert header(store, "http://a.test/") == "n=1 2"


def test_a_callers_cookie_has_a_path_and_may_be_secure():
    store = CookieStore()
    store.set("n", "1", url_or_host="a.test", path="/x", secure=True)
    store.set("m", "", url_or_host="[::1]:8080")
    store.set("abc", "x" * 4093, url_or_host="b.test")
    assert header(store, "https://a.test/x") == "n=1"
    assert header(store, "http://a.test/x") == header(store, "https://a.test/") == ""
    assert header(store, "http://[::1]/") == "m="


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("", "1"), "a cookie's name must have no '=', ';', blank or control character: ''"),
        (("a=b", "1"), "a cookie's name must have no '=', ';', blank or control character: 'a=b'"),
        (("a b", "1"), "a cookie's name must have no '=', ';', blank or control character: 'a b'"),
        (("a\n", "1"), "a cookie's name must have no '=', ';', blank or control character: 'a\\n'"),
        (("€", "1"), "a cookie's name must have no '=', ';', blank or control character: '€'"),
        (("a", "s3cret; b=2"), "the value of the cookie 'a' has a ';', a control character"),
        (("a", "s3cret\r\nX: y"), "the value of the cookie 'a' has a ';', a control character"),
        (("a", "s3cret€"), "the value of the cookie 'a' has a ';', a control character"),
        (("a", " s3cret"), "the value of the cookie 'a' has a ';', a control character"),
        (("a", "s3cret\t"), "the value of the cookie 'a' has a ';', a control character"),
        (("a", "s3cret" * 700), "the value of the cookie 'a' has a ';', a control character"),
    ],
)
def test_a_cookie_that_cannot_be_sent_is_refused(arguments, text):
    store = CookieStore()
    with pytest.raises(ValueError) as info:  # noqa: PT011 - the text is asserted below
        store.set(*arguments, url_or_host="a.test")
    assert str(info.value).startswith(text)
    assert "s3cret" not in str(info.value)
    assert len(store) == 0


@pytest.mark.parametrize("path", ["", "x", "/;", "/\n", "/€"])
def test_a_path_that_cannot_be_is_refused(path):
    with pytest.raises(ValueError, match=r"^a cookie's path must begin with '/' and have no ';': "):
        CookieStore().set("a", "1", url_or_host="a.test", path=path)


@pytest.mark.parametrize("place", ["", "a b", "::1", "ftp://a.test", "http://"])
def test_a_host_that_is_none_is_refused(place):
    with pytest.raises(InvalidURL, match=r"^cannot use the URL "):
        CookieStore().set("a", "1", url_or_host=place)


def test_a_server_changes_the_cookie_that_a_caller_has_set_for_its_domain():
    store = CookieStore()
    store.set("sid", "old", url_or_host=".a.test")
    received("http://www.a.test/", "sid=new; Domain=a.test", "x=1; Domain=a.test", store=store)
    assert header(store, "http://other.a.test/") == "sid=new; x=1"
    received("http://www.a.test/", "sid=; Domain=.A.test; Max-Age=0", store=store)
    assert header(store, "http://www.a.test/") == "x=1"


# By name


def test_a_store_reads_like_a_mapping():
    store = received("https://a.test/x/", "csrftoken=abc", "b=; Path=/", "gone=1; Max-Age=0")
    assert store["csrftoken"] == store.get("csrftoken") == "abc"
    assert store["b"] == ""
    assert (store.get("x"), store.get("x", "none")) == (None, "none")
    assert ("b" in store, "gone" in store, None in store) == (True, False, False)
    assert dict(store) == {"csrftoken": "abc", "b": ""}
    assert (store.keys(), store.values()) == (["csrftoken", "b"], ["abc", ""])
    assert store.items() == [("csrftoken", "abc"), ("b", "")]
    with pytest.raises(KeyError, match="'x'"):
        store["x"]
    with pytest.raises(KeyError, match="'x'"):
        del store["x"]


@pytest.mark.parametrize("make_jar", [lambda: None, CookieJar])
def test_a_store_writes_like_a_mapping(make_jar):
    store = CookieStore(make_jar(), base_url="https://a.test/api")
    store["a"] = "1"
    store.update({"b": 2, "c": "3"})
    assert header(store, "https://a.test/") == "a=1; b=2; c=3"
    assert header(store, "http://a.test/") == header(store, "https://b.test/") == ""
    received("https://a.test/", "d=4; Path=/x; HttpOnly; Max-Age=999", store=store)
    store["a"] = "new"
    store["d"] = "new"
    assert header(store, "https://a.test/x") == "d=new; a=new; b=2; c=3"
    (d,) = (cookie for cookie in store if cookie.name == "d")
    assert (d.path, d.has_nonstandard_attr("HttpOnly"), d.discard) == ("/x", True, False)
    del store["b"]
    assert dict(store) == {"a": "new", "c": "3", "d": "new"}
    with pytest.raises(ValueError, match=r"^the value of the cookie 'a' has a ';'"):
        store["a"] = "1; 2"
    with pytest.raises(TypeError, match="must be a str or an int, not float"):
        store["a"] = 1.5


@pytest.mark.parametrize("make_jar", [lambda: None, CookieJar])
def test_without_a_base_url_a_cookie_that_is_kept_can_be_changed(make_jar):
    store = received("http://www.a.test/", "a=1; Domain=a.test", "b=2", jar=make_jar())
    store["a"] = "new"
    assert header(store, "http://x.a.test/") == "a=new"
    received("http://c.test/", "b=2", store=store)
    assert store["b"] == "2"
    for name in ("b", "x"):
        with pytest.raises(
            ValueError, match=f"^the cookie '{name}' is kept for no host, or for se"
        ):
            store[name] = "s3cret"
    assert header(store, "http://c.test/") == "b=2"


def test_a_name_that_several_hosts_have():
    store = received("http://a.test/x/", "n=1; Path=/", "n=2; Path=/x")
    received("http://b.test/", "n=3", store=store)
    with pytest.raises(
        ValueError, match=r"^there are several cookies 'n', of a.test, b.test: call g"
    ):
        store["n"]
    assert store.items() == [("n", "1"), ("n", "2"), ("n", "3")]
    assert (store.keys(), store.values()) == (["n", "n", "n"], ["1", "2", "3"])
    assert store.get("n", url_or_host="a.test") == "2"
    assert store.get("n", url_or_host="https://b.test:8443/q") == "3"
    assert store.get("n", "none", url_or_host="c.test") == "none"
    home = CookieStore(base_url="http://b.test")
    home.load(store)
    assert home["n"] == "3"
    home["n"] = "4"
    assert (header(home, "http://b.test/"), header(home, "http://a.test/")) == ("n=4", "n=1")
    del home["n"]
    assert len(home) == 0


def test_clear_forgets_everything():
    store = received("http://a.test/", "a=1")
    store.set("b", "2", url_or_host=".test")
    store.clear()
    assert (len(store), list(store), header(store, "http://a.test/")) == (0, [], "")
    assert store._size == 0
    received("http://a.test/", "c=3", store=store)
    assert header(store, "http://a.test/") == "c=3"


def test_repr_shows_no_cookie():
    assert repr(received("http://a.test/", "name=s3cret")) == "<CookieStore 1 cookies>"


# http.cookiejar


def test_a_client_that_asks_for_no_jar_does_not_import_http_cookiejar(monkeypatch):
    for name in ("http.cookiejar", "urllib.request"):
        monkeypatch.setitem(sys.modules, name, None)
    store = received("https://a.test/", "a=1; Max-Age=60; Secure", "b=2")
    store.set("c", "3", url_or_host="a.test")
    assert header(store, "https://a.test/") == "a=1; b=2; c=3"
    assert len(store) == 3


def test_cookies_are_given_out_as_the_standard_librarys(clock):
    store = received("https://a.test/x/", "a=1; Max-Age=60; HttpOnly", "b=2; Secure; Path=/")
    store.set("c", "3", url_or_host=".test")
    a, b, c = store
    assert type(a) is Cookie
    assert (a.name, a.value, a.domain, a.path, a.secure) == ("a", "1", "a.test", "/x", False)
    assert (a.expires, a.discard, a.has_nonstandard_attr("HttpOnly")) == (NOW + 60, False, True)
    assert (b.secure, b.expires, b.discard, b.has_nonstandard_attr("HttpOnly")) == (
        True,
        None,
        True,
        False,
    )
    assert (c.domain, c.domain_specified, c.domain_initial_dot) == (".test", True, True)


@pytest.mark.parametrize("kind", [MozillaCookieJar, LWPCookieJar])
def test_cookies_survive_a_file(tmp_path, kind):
    path = str(tmp_path / "cookies.txt")
    store = received("https://a.test/x/", "a=1; Max-Age=600; HttpOnly", "b=2 3; Secure; Path=/")
    store.set("c", "3", url_or_host=".test")
    saved = kind(path)
    for cookie in store:
        saved.set_cookie(cookie)
    saved.save(ignore_discard=True)
    loaded = kind(path)
    loaded.load(ignore_discard=True)
    again = CookieStore()
    again.load(loaded)
    for url in ["https://a.test/x/", "http://a.test/x", "https://b.test/", "https://x.a.test/x"]:
        assert sorted(header(again, url).split("; ")) == sorted(header(store, url).split("; "))
    assert header(again, "https://a.test/x/").count("=") == 3


def test_the_jar_of_a_store_has_copies_that_the_standard_library_understands():
    store = received("https://a.test/", "a=1; Max-Age=600", "b=2; Secure")
    jar = store.jar
    assert type(jar) is CookieJar
    assert header(CookieStore(jar), "https://a.test/") == "a=1; b=2"
    assert header(CookieStore(jar), "http://a.test/") == "a=1"
    jar.clear()
    assert len(store) == 2


DOTLESS = ["localhost", "api", "[::1]", "[::ffff:1.2.3.4]", "127.0.0.1", "a.test"]


@pytest.mark.parametrize("host", DOTLESS)
def test_the_jar_of_a_store_sends_what_the_store_sends(host):
    url = f"http://{host}/"
    store = received(url, "a=1")
    assert header(CookieStore(store.jar), url) == header(store, url) == "a=1"
    for source in (store, store.jar):
        again = CookieStore()
        again.load(source)
        assert header(again, url) == "a=1"
        assert header(again, "http://localhost.local/") == ""


@pytest.mark.parametrize("host", ["localhost", "[::1]", "[::ffff:1.2.3.4]", "127.0.0.1", "a.test"])
@pytest.mark.parametrize("kind", [MozillaCookieJar, LWPCookieJar])
def test_what_another_jar_has_received_comes_back_to_its_host(host, kind, tmp_path):
    url = f"http://{host}/"
    jar = kind(tmp_path / "jar")
    received(url, "a=1; Max-Age=1000", store=CookieStore(jar))
    jar.save()
    read = kind(tmp_path / "jar")
    read.load()
    store = CookieStore()
    store.load(read)
    assert header(store, url) == "a=1"
    assert header(store, "http://localhost.local/") == ""


def test_a_host_of_the_local_network_keeps_its_cookies():
    jar = CookieJar()
    received("http://api.local/", "a=1", store=CookieStore(jar))
    (cookie,) = jar
    cookie.set_nonstandard_attr("_aiohttpconn_host", "api")
    store = CookieStore()
    store.load(jar)
    assert (header(store, "http://api.local/"), header(store, "http://api/")) == ("a=1", "")


def test_what_a_server_may_set_can_be_loaded():
    store = received("http://a.test/", "a\tb c=1; path=/x\ty")
    again = CookieStore()
    again.load(store)
    assert [(each.name, each.path) for each in again] == [("a\tb c", "/x\ty")]
    with pytest.raises(ValueError, match=r"^a cookie's name must have no '=', ';', blank"):
        store["a b"] = "1"


def test_what_cannot_be_sent_cannot_be_loaded():
    (cookie,) = received("http://a.test/", "a=1")
    cookie.value = "s3cret\r\nX: y"
    with pytest.raises(ValueError, match=r"^the value of the cookie 'a' has a ';'") as info:
        CookieStore().load([cookie])
    assert "s3cret" not in str(info.value)
    (cookie,) = received("http://a.test/", "a=1")
    cookie.value = None
    store = CookieStore()
    store.load([cookie])
    assert header(store, "http://a.test/") == "a="


# A jar of the caller's


def test_a_callers_jar_holds_the_cookies():
    jar = CookieJar()
    store = CookieStore(jar)
    assert store.jar is jar
    received("https://a.test/x/y", "a=1; Secure; Max-Age=60; HttpOnly", "b=2; Path=/", store=store)
    assert header(store, "https://a.test/x/") == "a=1; b=2"
    assert header(store, "http://a.test/x/") == "b=2"
    assert header(store, "https://b.test/") == ""
    a, b = jar
    assert (a.path, a.secure, a.has_nonstandard_attr("HttpOnly")) == ("/x", True, True)
    assert (b.path, b.secure, b.expires) == ("/", False, None)
    received("https://a.test/x/y", "a=; Max-Age=0", store=store)
    assert (len(store), [cookie.name for cookie in store]) == (1, ["b"])
    store.clear()
    assert len(jar) == 0


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "a.test", "bücher.test"])
def test_a_callers_jar_knows_every_host(host):
    store = CookieStore(CookieJar())
    url = split_url(f"http://{host}:8080/")
    store.extract(url, [f"a=1; Domain={url.host}"])
    store.set("b", "2", url_or_host=host)
    assert header(store, f"http://{host}/") == "a=1; b=2"


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("http://a.test/", "a=1; Secure"),
        ("https://a.test/", "__Host-a=1; Secure"),
        ("https://a.test/", "a=1\x01"),
        ("https://a.test/", "a"),
        ("https://a.test/", "a=" + "x" * 4096),
        ("https://a.test/", "a=1; Domain=b.test"),
        ("https://127.0.0.1/", "a=1; Domain=0.0.1"),
    ],
)
def test_a_callers_jar_is_not_told_what_is_refused(url, line):
    jar = CookieJar()
    received(url, line, jar=jar)
    assert len(jar) == 0


def test_a_callers_jar_decides_about_domains_too():
    jar = CookieJar()
    received("http://www.a.test/", "a=1; Domain=a.test", jar=jar)
    assert header(CookieStore(jar), "http://x.a.test/") == "a=1"
    store = received(
        "https://www.a.co.uk/",
        "a=1; Domain=co.uk",
        "b=1; Domain=a.co.uk",
        jar=CookieJar(),
        is_public_suffix=is_public_suffix,
    )
    assert header(store, "https://x.a.co.uk/") == "b=1"
    assert header(store, "https://b.co.uk/") == ""


def test_a_caller_sets_cookies_in_a_jar():
    store = CookieStore(CookieJar())
    store.set("a", "1", url_or_host=".b.test", path="/x", secure=True)
    (cookie,) = received("http://c.test/", "c=3")
    store.load([cookie])
    assert header(store, "https://www.b.test/x") == "a=1"
    assert header(store, "http://www.b.test/x") == header(store, "https://www.b.test/") == ""
    assert header(store, "http://c.test/") == "c=3"


def test_what_a_jar_says_is_cut_to_what_may_be_sent():
    jar = CookieJar()
    for name in ("bad", "a", "b", "c"):
        (cookie,) = received("http://a.test/", f"{name}={'x' * 4000}")
        if name == "bad":
            cookie.value = "1\r\nX: y"
        jar.set_cookie(cookie)
    sent = header(CookieStore(jar), "http://a.test/")
    assert names(sent) == ["a", "b"]


# Anything at all

HOSTS = ["a.test", "b.a.test", "test", "a.test.", "127.0.0.1", "localhost"]
NAMES = ["a", "b", "__Host-c", "__Secure-d"]
LINES = st.builds(
    lambda name, value, attributes: "; ".join([f"{name}={value}", *attributes]),
    st.sampled_from(NAMES),
    st.text("xyz", max_size=2),
    st.lists(
        st.sampled_from(
            ["Secure", "Path=/", "Path=/x", "Max-Age=0", "Max-Age=9", "HttpOnly", "Foo"]
            + [f"Domain={host}" for host in HOSTS]
        )
    ),
)
URLS = st.builds(
    lambda scheme, host, path: f"{scheme}://{host}{path}",
    st.sampled_from(["http", "https"]),
    st.sampled_from(HOSTS),
    st.sampled_from(["/", "/x", "/x/y"]),
)


@given(st.lists(st.tuples(URLS, st.lists(st.one_of(LINES, st.text()), max_size=4))))
def test_a_host_never_gets_what_another_has_set(exchanges):
    store = CookieStore()
    wide = set()
    for at, (url, lines) in enumerate(exchanges):
        host = split_url(url).host
        # The value names its host: what comes back must.
        received(url, *[line.replace("=", f"={host}!{at}", 1) for line in lines], store=store)
        if any(". Domain=a.test" in line.replace(";", ".") for line in lines):
            wide.add(host)
    for host in HOSTS:
        for scheme in ("http", "https"):
            sent = header(store, f"{scheme}://{host}/x/y")
            assert FIELD_VALUE.fullmatch(sent)
            origins = {pair.split("=", 1)[1].split("!")[0] for pair in sent.split("; ") if pair}
            # Only those that asked for it share cookies, and only below what they have asked for.
            family = wide & {"a.test", "b.a.test"} if host.endswith("a.test") else set()
            assert origins <= {host} | family
            if scheme == "http" and host not in ("localhost", "127.0.0.1"):
                assert "__" not in sent


@given(st.lists(st.text()))
def test_nothing_that_a_server_sends_raises(lines):
    for jar in (None, CookieJar()):
        store = CookieStore(jar)
        received("https://a.test/", *lines, store=store)
        assert FIELD_VALUE.fullmatch(header(store, "https://a.test/"))
    cookie_pairs(lines)
