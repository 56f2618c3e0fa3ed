"""client/cookies/suffixes.py: which domains are public suffixes, with and without the full list."""

from __future__ import annotations

import sys

import pytest

from aiohttpconn.client.cookies import suffixes
from aiohttpconn.client.cookies.store import CookieStore
from aiohttpconn.client.cookies.suffixes import covers_suffix, is_known_suffix, public_suffix_check
from aiohttpconn.urls import split_url


@pytest.mark.parametrize(
    ("domain", "public"),
    [
        ("co.uk", True),
        ("com.au", True),
        ("or.jp", True),
        ("gob.mx", True),
        ("github.io", True),
        ("vercel.app", True),
        ("s3.amazonaws.com", True),
        ("example.com", False),
        ("shop.co.uk", False),
        ("me.github.io", False),
        ("co.com", True),
        ("com.example", False),
        ("xco.uk", False),
        ("web.de", False),
        ("id.me", False),
        ("github.com", False),
    ],
)
def test_the_most_used_suffixes_are_known(domain, public):
    assert is_known_suffix(domain) is public


@pytest.mark.parametrize(
    ("domain", "host", "asked"),
    [
        ("c.test", "a.b.c.test", ["c.test", "b.c.test", "a.b.c.test"]),
        ("b.c.test", "a.b.c.test", ["b.c.test", "a.b.c.test"]),
        ("c.test", "c.test", ["c.test"]),
    ],
)
def test_each_domain_down_to_the_host_is_asked_about(domain, host, asked):
    seen: list[str] = []
    assert covers_suffix(domain, host, lambda each: bool(seen.append(each))) is False
    assert seen == asked
    for each in asked:
        assert covers_suffix(domain, host, each.__eq__)


@pytest.fixture
def no_list(monkeypatch):
    monkeypatch.setitem(sys.modules, "publicsuffixlist", None)
    public_suffix_check.cache_clear()
    yield
    public_suffix_check.cache_clear()


def test_without_the_extra_the_short_list_counts(no_list):
    assert public_suffix_check() is is_known_suffix
    store = CookieStore()
    store.extract(split_url("https://www.shop.co.uk/"), ["a=1; Domain=shop.co.uk"])
    store.extract(split_url("https://www.shop.co.uk/"), ["b=1; Domain=co.uk"])
    assert store.header_for(split_url("https://shop.co.uk/")) == "a=1"


def test_with_the_extra_the_full_list_counts():
    pytest.importorskip("publicsuffixlist", reason="the extra publicsuffix is not installed")
    public_suffix_check.cache_clear()
    store = CookieStore()
    for host, domain in (
        ("www.shop.co.uk", "shop.co.uk"),
        ("www.shop.co.uk", "co.uk"),
        # Not in the short list.
        ("x.me.blogspot.com", "me.blogspot.com"),
        ("a.toyota.aichi.jp", "toyota.aichi.jp"),
        ("a.b.ck", "b.ck"),
        ("a.www.ck", "www.ck"),
        ("a.xn--55qx5d.cn", "xn--55qx5d.cn"),
    ):
        store.extract(split_url(f"https://{host}/"), [f"{domain}=1; Domain={domain}"])
    kept = {cookie.name for cookie in store}
    assert kept == {"shop.co.uk", "me.blogspot.com", "www.ck"}


def test_the_short_list_is_part_of_the_full_one():
    full = pytest.importorskip("publicsuffixlist", reason="the extra publicsuffix is not installed")
    known = full.PublicSuffixList()
    # The full list is another one every week, and few are ever taken out.
    assert len([each for each in suffixes._KNOWN if not known.is_public(each)]) <= 5
    for domain in ("co.uk", "com.au", "or.jp", "go.kr", "gob.mx", "govt.nz", "gouv.fr", "sch.id"):
        assert known.is_public(domain)


def test_nothing_is_loaded_before_a_domain_asks_for_it(no_list, monkeypatch):
    monkeypatch.setattr(suffixes.importlib, "import_module", pytest.fail)
    store = CookieStore()
    lines = ["a=1", "b=1; Domain=org", "c=1; Domain=", "d=1; Domain=evil.test"]
    store.extract(split_url("https://example.org/"), lines)
    store.extract(split_url("https://localhost/"), ["e=1; Domain=localhost"])
    store.extract(split_url("https://127.0.0.1/"), ["f=1; Domain=127.0.0.1"])
    assert {cookie.name for cookie in store} == {"a", "c", "e", "f"}
