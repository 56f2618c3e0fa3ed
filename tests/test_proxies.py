"""proxies.py: URLs of proxies, NO_PROXY, the environment, and mappings."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttpconn.exceptions import InvalidURL
from aiohttpconn.proxies import NoProxy, Proxy, ProxyRules, from_environment

ROOT = Path(__file__).parent.parent

P = Proxy("http", "proxy.test", 3128)
Q = Proxy("socks5h", "tor.test", 9050)
R = Proxy("https", "other.test", 443)


def refused(error, function, *arguments) -> str:
    """Call in vain; return the text."""
    with pytest.raises(error) as info:
        function(*arguments)
    assert type(info.value) is error
    return str(info.value)


# ------------------------------------------------------------------------ a proxy's URL


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy.test:3128", P),
        ("http://proxy.test:3128/", P),
        ("proxy.test:3128", P),
        ("HTTP://Proxy.Test:3128", P),
        ("proxy.test", Proxy("http", "proxy.test", 1080)),
        ("http://proxy.test", Proxy("http", "proxy.test", 1080)),
        ("http://proxy.test:", Proxy("http", "proxy.test", 1080)),
        ("http://proxy.test:80", Proxy("http", "proxy.test", 80)),
        ("https://proxy.test", Proxy("https", "proxy.test", 443)),
        ("socks5://proxy.test", Proxy("socks5", "proxy.test", 1080)),
        ("socks5h://proxy.test", Proxy("socks5h", "proxy.test", 1080)),
        ("socks5h://proxy.test:9050", Proxy("socks5h", "proxy.test", 9050)),
        ("http://127.0.0.1:8080", Proxy("http", "127.0.0.1", 8080)),
        ("[::1]:8080", Proxy("http", "::1", 8080)),
        ("http://[fe80::1%25eth0]", Proxy("http", "fe80::1%eth0", 1080)),
        ("http://bücher.test", Proxy("http", "xn--bcher-kva.test", 1080)),
        ("http://user:secret@proxy.test", Proxy("http", "proxy.test", 1080, "user", "secret")),
        ("user:secret@proxy.test:80", Proxy("http", "proxy.test", 80, "user", "secret")),
        ("http://user@proxy.test", Proxy("http", "proxy.test", 1080, "user", None)),
        ("http://user:@proxy.test", Proxy("http", "proxy.test", 1080, "user", "")),
        ("http://:secret@proxy.test", Proxy("http", "proxy.test", 1080, "", "secret")),
        ("http://@proxy.test:3128", P),
        ("http://u%2fs:p%40%3A%25@p.test", Proxy("http", "p.test", 1080, "u/s", "p@:%")),
        ("http://a:b:c@proxy.test", Proxy("http", "proxy.test", 1080, "a", "b:c")),
        ("http://%C3%BC:ü@proxy.test", Proxy("http", "proxy.test", 1080, "ü", "ü")),
        # Bytes that are not UTF-8 stay what they are.
        ("http://a:%ff@proxy.test", Proxy("http", "proxy.test", 1080, "a", "\udcff")),
        ("socks5://a%3Ab:c@proxy.test", Proxy("socks5", "proxy.test", 1080, "a:b", "c")),
        ("socks4://proxy.test", Proxy("socks4", "proxy.test", 1080)),
        ("SOCKS4A://me:unsent@proxy.test:9", Proxy("socks4a", "proxy.test", 9, "me", "unsent")),
        # As desktops write it.
        ("socks://proxy.test", Proxy("socks5", "proxy.test", 1080)),
        ("Socks://proxy.test:9050/", Proxy("socks5", "proxy.test", 9050)),
    ],
)  # fmt: skip
def test_parses(url, proxy):
    parsed = Proxy.parse(url)
    assert parsed == proxy
    assert hash(parsed) == hash(proxy)
    if parsed.credentials is None:
        assert Proxy.parse(str(parsed)) == parsed


UNSHOWN = "cannot use a proxy's URL (not shown, it may have a password): "
PERCENT = (
    "it must have no path, and '@', '/', '?' and '#' in user or password must be percent-encoded"
)
SUPPORTED = "is not supported, http, https, socks4, socks4a, socks5, socks5h are"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("", UNSHOWN + "it must have a host, or a host and a port"),
        ("http://", UNSHOWN + "it must have a host, or a host and a port"),
        ("http://:3128", UNSHOWN + "it must have a host, or a host and a port"),
        ("http://proxy:port", UNSHOWN + "it must have a host, or a host and a port"),
        ("::1", UNSHOWN + "it must have a host, or a host and a port"),
        ("proxy:3128:user:secret", UNSHOWN + "it must have a host, or a host and a port"),
        ("http:proxy:3128", UNSHOWN + "it must have a host, or a host and a port"),
        ("http://user%3Asecret%40proxy", UNSHOWN + "it must have a host, or a host and a port"),
        (
            "http://proxy:65536",
            "cannot use the proxy 'http://proxy:65536': a port must be 0 to 65535, got 65536",
        ),
        (
            "http://user:secret@proxy:99999",
            "cannot use the proxy 'http://proxy:99999': a port must be 0 to 65535, got 99999",
        ),
        (
            "http://user:secret@pro xy",
            "cannot use the proxy 'http://pro xy': not a host name or an IP address: 'pro xy'",
        ),
        ("http://1.2.3", "cannot use the proxy 'http://1.2.3': not an IPv4 address of four"),
        ("http://[::g]", "cannot use the proxy 'http://[::g]': not an IPv6 address in brackets"),
        *[
            (f"{scheme}://user:secret@proxy", f"cannot use the proxy '{scheme}://proxy': the proxy "
             f"scheme '{scheme}' {SUPPORTED}")
            for scheme in ("socks6", "socks4h", "ftp", "socks5x")
        ],
        ("http://proxy/path", UNSHOWN + PERCENT),
        ("http://user:sec/ret@proxy", "cannot use the proxy 'http://proxy': " + PERCENT),
        ("http://user:12/secret@proxy:1", "cannot use the proxy 'http://proxy:1': " + PERCENT),
        ("http://user:sec@ret@proxy", "cannot use the proxy 'http://proxy': " + PERCENT),
        ("http://user:sec#ret@proxy", "cannot use the proxy 'http://proxy': " + PERCENT),
        ("http://user:sec?ret@proxy", "cannot use the proxy 'http://proxy': " + PERCENT),
        ("http://proxy\r\nX: secret", UNSHOWN + "it has a control character"),
        ("http://user:sec\0ret@proxy", "cannot use the proxy 'http://proxy': it has a control"),
        (
            "http://us%3Aer:secret@proxy",
            "cannot use the proxy 'http://proxy': the proxy's user name must not have a colon",
        ),
        (
            "http://user:secret%0d%0a@proxy",
            "cannot use the proxy 'http://proxy': the proxy's credentials must not have control",
        ),
        (
            "socks5h://:secret@proxy",
            "cannot use the proxy 'socks5h://proxy': a SOCKS proxy takes a user name of 1 to 255",
        ),
        (
            f"socks4a://{'secret' * 50}@proxy",
            "cannot use the proxy 'socks4a://proxy': a SOCKS4 proxy takes a user name of up to 255",
        ),
        (
            f"socks5://user:{'secret' * 50}@proxy",
            "cannot use the proxy 'socks5://proxy': a SOCKS proxy takes a user name of 1 to 255",
        ),
    ],
)  # fmt: skip
def test_what_is_no_proxy_and_no_text_shows_a_password(url, text):
    found = refused(InvalidURL, Proxy.parse, url)
    assert found.startswith(text)
    assert "secret" not in found
    assert "ret@" not in found
    assert "user:" not in found


@pytest.mark.parametrize("url", [None, b"http://secret", 1])
def test_a_proxy_of_another_type(url):
    text = refused(TypeError, Proxy.parse, url)
    assert text == f"a proxy must be a str or a Proxy, not {type(url).__name__}"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("socks", "p", 1), f"the proxy scheme 'socks' {SUPPORTED}"),
        (("http", "", 1), "not a proxy's host and port: '', 1"),
        (("http", "p", -1), "not a proxy's host and port: 'p', -1"),
        (("http", "[::1]", 1), "not a host name or an IP address: '[::1]'"),
        (("http", "p\r\nX: y", 1), "not a host name or an IP address: 'p\\r\\nX: y'"),
        (("http", "p", 1, "a:b", "secret"), "the proxy's user name must not have a colon"),
        (("socks5", "p", 1, None, "secret"), "a SOCKS proxy takes a user name of 1 to 255 bytes"),
        (("http", "p", 1, "a", "\ud800secret"), "the proxy's credentials cannot be encoded as"),
    ],
)
def test_a_proxy_made_by_hand_is_checked_too_E5(arguments, text):
    found = refused(InvalidURL, Proxy, *arguments)
    assert found.startswith(text)
    assert "secret" not in found


def test_nothing_shows_a_proxys_user():
    proxy = Proxy.parse("socks5h://user:secret@[::1]:9050")
    assert str(proxy) == f"{proxy}" == "socks5h://***@[::1]:9050"
    assert repr(proxy) == "<Proxy socks5h://***@[::1]:9050>"
    rules = ProxyRules.of({"https": proxy, "all://a.test:81": None, "all": "b.test:1"})
    assert repr(rules) == (
        "<ProxyRules https: socks5h://***@[::1]:9050, all://a.test:81: direct, all: http://b.test:1>"
    )
    rules = from_environment(
        {"http_proxy": "http://user:secret@p.test", "no_proxy": "a,b,10.0.0.0/8"}
    )
    assert repr(rules) == "<ProxyRules http: http://***@p.test:1080, 3 exceptions>"
    assert repr(ProxyRules.of(None)) == "<ProxyRules direct>"


@pytest.mark.parametrize(
    ("url", "credentials", "authorization"),
    [
        ("http://p", None, None),
        ("http://a:open%20sesame@p", ("a", "open sesame"), "Basic YTpvcGVuIHNlc2FtZQ=="),
        ("https://test:123%C2%A3@p", ("test", "123£"), "Basic dGVzdDoxMjPCow=="),
        ("http://token@p", ("token", ""), "Basic dG9rZW46"),
        ("http://:x@p", ("", "x"), "Basic Ong="),
        # As it was given, byte for byte.
        ("http://%e9:@p", ("\udce9", ""), "Basic 6To="),
        # Never for SOCKS, where a user may have a colon.
        ("socks5://a%3Ab:c@p", ("a:b", "c"), None),
    ],
)  # fmt: skip
def test_credentials(url, credentials, authorization):
    proxy = Proxy.parse(url)
    assert proxy.credentials == credentials
    assert proxy.authorization == authorization


def test_proxies_are_keys_C11():
    urls = ["http://p", "https://p:1080", "http://a@p", "http://a:@p", "http://b@p", "http://p:1"]
    proxies = [Proxy.parse(url) for url in urls]
    assert len(set(proxies)) == len(urls)
    assert pickle.loads(pickle.dumps(proxies[3])) == proxies[3]
    assert [proxy.is_socks for proxy in (P, Q, R)] == [False, True, False]
    with pytest.raises(dataclasses.FrozenInstanceError):
        P.host = "other.test"


# ----------------------------------------------------------------------------- NO_PROXY


@pytest.mark.parametrize(
    ("text", "host", "expected"),
    [
        # curl's own table of names, tests/unit/unit1614.c has most of these
        ("", "example.org", False),
        (" , ,", "example.org", False),
        ("*", "example.org", True),
        ("*", "::1", True),
        ("a.test, *", "example.org", True),
        ("example.org", "example.org", True),
        ("example.org", "EXAMPLE.Org", True),
        ("EXAMPLE.ORG", "example.org", True),
        ("example.org.", "example.org", True),
        ("example.org", "example.org.", True),
        (".example.org.", "www.example.org.", True),
        ("example.org", "www.example.org", True),
        ("example.org", "a.b.example.org", True),
        ("example.org", "badexample.org", False),
        ("example.org", "org", False),
        ("www.example.org", "example.org", False),
        (".example.org", "example.org", True),
        (".example.org", "www.example.org", True),
        (".example.org", "badexample.org", False),
        ("*.example.org", "www.example.org", True),
        ("*.example.org", "example.org", True),
        ("*.example.org", "badexample.org", False),
        ("..example.org", "example.org", False),
        ("example.*", "example.org", False),
        ("org", "example.org", True),
        (".", "example.org", False),
        (".", "", False),
        ("*.", "example.org", False),
        ("a.test,example.org", "example.org", True),
        ("a.test example.org", "example.org", True),
        ("a.test\t,\n example.org ,b.test", "example.org", True),
        ("a.test;example.org", "example.org", True),
        (" ; a.test ;\texample.org; ", "example.org", True),
        (" ; a.test ;\texample.org; ", "", False),
        ("bücher.test", "xn--bcher-kva.test", True),
        (".bücher.test", "www.xn--bcher-kva.test", True),
        ("xn--bcher-kva.test", "xn--bcher-kva.test", True),
        ("\u2100.test", "a/c.test", False),
        # localhost is a host like others
        ("", "localhost", False),
        ("a.test", "127.0.0.1", False),
        ("localhost", "localhost", True),
        ("localhost", "127.0.0.1", False),
        ("127.0.0.1", "localhost", False),
        # Addresses
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.11", False),
        ("192.0.2.1", "1.192.0.2.1", False),
        ("0.2.1", "192.0.2.1", False),
        (".2.1", "192.0.2.1", False),
        ("192.0.2.1,a.test", "a.test", True),
        ("::1", "::1", True),
        ("[::1]", "::1", True),
        ("::1", "[::1]", True),
        ("0:0:0:0:0:0:0:1", "::1", True),
        ("::1", "::2", False),
        ("FE80::1", "fe80::1%eth0", True),
        ("fe80::1%eth0", "fe80::1", True),
        ("127.0.0.1", "::ffff:127.0.0.1", False),
        # Blocks
        ("192.0.2.0/24", "192.0.2.255", True),
        ("192.0.2.0/24", "192.0.3.0", False),
        ("192.0.2.77/24", "192.0.2.1", True),
        ("192.0.2.0/255.255.255.0", "192.0.2.1", True),
        ("10.0.0.0/8", "10.255.0.1", True),
        ("10.0.0.0/8", "11.0.0.0", False),
        ("0.0.0.0/0", "192.0.2.1", True),
        ("0.0.0.0/0", "::1", False),
        ("::/0", "192.0.2.1", False),
        ("::/0", "2001:db8::1", True),
        ("fd00::/8", "fd12::1", True),
        ("[fd00::]/8", "fd12::1", True),
        ("fd00::/8", "fe80::1", False),
        ("192.0.2.1/32", "192.0.2.1", True),
        ("192.168.*", "192.168.7.1", True),
        ("192.168.*", "192.169.7.1", False),
        ("192.168.*", "192.168.example.org", False),
        ("192.168.*.*", "192.168.7.1", True),
        ("10.*", "10.255.0.1", True),
        ("10.*.*.*", "10.255.0.1", True),
        ("10.*", "100.0.0.1", False),
        ("192.0.2.*", "192.0.2.9", True),
        ("192.0.2.*", "192.0.20.9", False),
        ("300.*", "10.0.0.1", False),
        ("192.*.2.1", "192.0.2.1", False),
        ("*.168.1.1", "192.168.1.1", False),
        # A name is no address, whatever it resolves to
        ("0.0.0.0/0 ::/0", "example.org", False),
        ("10.0.0.0/8", "10.example.org", False),
        ("10.0.0.0/8", "10.0.0.0", True),
        # What is no entry is passed over
        ("10.0.0.0/33,a.test", "10.0.0.1", False),
        ("10.0.0.0/33,a.test", "a.test", True),
        ("10.0.0.0/x", "10.0.0.1", False),
        ("10/8", "10.0.0.1", False),
        ("[::1", "::1", True),
        ("http://example.org", "example.org", False),
    ],
)  # fmt: skip
def test_no_proxy(text, host, expected):
    assert NoProxy(text).matches(host, 443) is expected


@pytest.mark.parametrize(
    ("entry", "host"),
    [
        ("example.org:8080", "example.org"),
        (".example.org:8080", "www.example.org"),
        ("192.0.2.1:8080", "192.0.2.1"),
        ("192.0.2.0/24:8080", "192.0.2.9"),
        ("192.0.2.*:8080", "192.0.2.9"),
        ("[::1]:8080", "::1"),
        ("[fd00::/8]:8080", "fd00::1"),
    ],
)
def test_an_entry_with_a_port_is_for_that_port(entry, host):
    assert NoProxy(entry).matches(host, 8080)
    assert not NoProxy(entry).matches(host, 443)
    assert NoProxy(f"{entry} {entry.replace(':8080', ':443')}").matches(host, 443)
    both = NoProxy(f"{entry} {entry.replace('8080', '1')}")
    assert [both.matches(host, port) for port in (1, 2, 8080)] == [True, False, True]


def test_an_ipv6_address_without_brackets_has_no_port():
    assert NoProxy("2001:db8::1:8080").matches("2001:db8::1:8080", 443)
    assert not NoProxy("2001:db8::1:8080").matches("2001:db8::1", 8080)


def test_thousands_of_entries_are_looked_up_by_label():
    """The lookups in the sets are counted, not timed."""

    class Counting(set):
        asked = 0

        def __contains__(self, item):
            Counting.asked += 1
            return super().__contains__(item)

    names = [f"host{i}.test" for i in range(5000)]
    blocks = [f"10.{i >> 8}.{i & 255}.0/24" for i in range(5000)]
    rules = NoProxy(",".join(names + blocks))
    assert len(rules) == 10_000
    rules._names = Counting(rules._names)
    rules._networks = {key: Counting(value) for key, value in rules._networks.items()}
    assert rules.matches("a.b.host4999.test", 443)
    assert not rules.matches("a.b.host5000.test", 443)
    assert rules.matches("10.19.135.1", 443)
    assert not rules.matches("10.19.136.1", 443)
    assert Counting.asked < 25


def test_a_host_of_any_length_costs_little():
    # A redirect may lead to it: 32768 labels would be as many lookups of 32 KiB.
    rules = NoProxy("example.org")
    name = ".".join(["a" * 40] * 5 + ["b" * 36, "example.org"])
    assert len(f"{name}.") == 254
    assert rules.matches(f"{name}.", 443)
    assert not rules.matches(f"a.{name}", 443)
    assert not rules.matches("a." * 32768 + "example.org", 443)


PIECES = st.text("a.*:/[]% ,;01é", max_size=30)


@given(PIECES, PIECES, st.integers(0, 65535))
def test_whatever_no_proxy_says_fails_nothing(text, host, port):
    assert NoProxy(text).matches(host, port) in (True, False)


# ---------------------------------------------------------------------- the environment


def env(scheme="http", host="example.org", port=80, **environ) -> Proxy | None:
    return from_environment(environ).proxy_for(scheme, host, port)


def test_an_empty_environment_names_no_proxy():
    assert env() is None
    assert env("https", http_proxy="proxy.test:3128") is None
    assert env("http", https_proxy="proxy.test:3128", ftp_proxy="x.test") is None


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_the_variables_for_http(name):
    assert env("http", **{name: "proxy.test:3128"}) == P


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_the_variables_for_https(name):
    assert env("https", **{name: "proxy.test:3128"}) == P


def test_which_variable_wins():
    assert env(http_proxy="proxy.test:3128", HTTP_PROXY="x") == P
    assert env("https", https_proxy="proxy.test:3128", HTTPS_PROXY="x", ALL_PROXY="y") == P
    assert env(HTTP_PROXY="proxy.test:3128", all_proxy="x") == P
    assert env(all_proxy="proxy.test:3128", ALL_PROXY="x") == P
    assert env(http_proxy="proxy.test:3128", no_proxy="a", NO_PROXY="example.org") == P
    assert env(http_proxy="proxy.test:3128", no_proxy="example.org", NO_PROXY="a") is None
    # Only these spellings.
    assert env(Http_Proxy="proxy.test:3128") is None


@pytest.mark.parametrize("empty", ["", " ", "\r\n"])
def test_an_empty_value_is_none(empty):
    assert env(http_proxy=empty) is None
    assert env(http_proxy=empty, HTTP_PROXY="proxy.test:3128") == P
    assert env(http_proxy=empty, all_proxy="proxy.test:3128") == P
    assert env(http_proxy="proxy.test:3128", no_proxy=empty, NO_PROXY="example.org") is None


def test_blanks_around_a_value_do_not_count():
    assert env(http_proxy=" proxy.test:3128\r\n") == P


def test_under_cgi_a_clients_field_is_no_proxy_C10():
    cgi = {"REQUEST_METHOD": "GET", "HTTP_PROXY": "evil.test:3128"}
    assert env("http", **cgi) is None
    assert env("http", **cgi, all_proxy="proxy.test:3128") == P
    assert env("http", **cgi, http_proxy="proxy.test:3128") == P
    assert env("https", **cgi, HTTPS_PROXY="proxy.test:3128") == P


def test_under_cgi_on_windows_too_C10():
    class Environ(dict):
        """os.environ there: it knows names in upper case, and finds them in any."""

        def __getitem__(self, name):
            return super().__getitem__(name.upper())

        def get(self, name, default=None):
            return super().get(name.upper(), default)

        def __contains__(self, name):
            return super().__contains__(name.upper())

    cgi = Environ(REQUEST_METHOD="GET", HTTP_PROXY="evil.test:3128", HTTPS_PROXY="proxy.test:3128")
    assert from_environment(cgi).proxy_for("http", "a.test", 80) is None
    assert from_environment(cgi).proxy_for("https", "a.test", 443) == P


def test_no_proxy_is_for_all_schemes_and_for_ports():
    rules = from_environment(
        {"all_proxy": "proxy.test:3128", "no_proxy": "example.org:8443, 10.0.0.0/8, .a.test"}
    )
    assert rules.proxy_for("https", "example.org", 443) == P
    assert rules.proxy_for("https", "example.org", 8443) is None
    assert rules.proxy_for("http", "10.1.2.3", 80) is None
    assert rules.proxy_for("http", "b.a.test", 80) is None
    assert rules.proxy_for("http", "localhost", 80) == P


def test_an_error_names_the_variable_and_the_origin_that_needs_it_C10():
    rules = from_environment(
        {"HTTPS_PROXY": "http://user:secret@p:99999", "all_proxy": "quic://127.0.0.1:1080/"}
    )
    assert repr(rules) == "<ProxyRules http: unusable, https: unusable>"
    text = refused(InvalidURL, rules.proxy_for, "https", "a.test", 8443)
    assert text == (
        "https://a.test:8443 needs the environment's HTTPS_PROXY: cannot use the proxy "
        "'http://p:99999': a port must be 0 to 65535, got 99999"
    )
    text = refused(InvalidURL, rules.proxy_for, "http", "::1", 80)
    assert text.startswith("http://[::1]:80 needs the environment's all_proxy: ")
    assert text.endswith(SUPPORTED)


def test_an_exception_needs_no_proxy_that_can_be_used():
    rules = from_environment({"all_proxy": "quic://p", "no_proxy": "a.test"})
    assert rules.proxy_for("http", "a.test", 80) is None
    refused(InvalidURL, rules.proxy_for, "http", "b.test", 80)


def test_socks_alone_is_socks5():
    assert env("https", all_proxy="socks://proxy.test") == Proxy("socks5", "proxy.test", 1080)


def test_a_variable_that_is_not_needed_is_not_read():
    environ = {
        "http_proxy": "proxy.test:3128",
        "https_proxy": "proxy.test:3128",
        "all_proxy": "quic://127.0.0.1:1080/",
    }
    assert from_environment(environ).proxy_for("https", "a.test", 443) == P


# ----------------------------------------------------------------- arguments of callers


def test_one_proxy_for_all():
    for value in ("http://proxy.test:3128", P, {"all": P}, {"http": P, "https": P}):
        rules = ProxyRules.of(value)
        assert rules.proxy_for("http", "a.test", 80) == P
        assert rules.proxy_for("https", "::1", 443) == P
    assert ProxyRules.of(None).proxy_for("http", "a.test", 80) is None
    assert ProxyRules.of({}).proxy_for("http", "a.test", 80) is None
    assert ProxyRules.of(rules) is rules


def test_a_key_for_fewer_urls_wins():
    rules = ProxyRules.of(
        {
            "all": "proxy.test:3128",
            "https": Q,
            "https://example.org": None,
            "https://Example.org:8443/": R,
            "all://b.test": "other.test:1",
            "all://b.test:81": "other.test:2",
            "http://b.test:80": "other.test:3",
            "https://[::1]": "other.test:4",
            "http://bücher.test.": "other.test:5",
            "HTTP://127.0.0.1": "other.test:6",
        }
    )

    def found(scheme, host, port):
        proxy = rules.proxy_for(scheme, host, port)
        return proxy if proxy is None or proxy.host != "other.test" else proxy.port

    assert found("http", "a.test", 80) == P
    assert found("https", "a.test", 443) == Q
    assert found("https", "example.org", 443) is None
    assert found("https", "EXAMPLE.org.", 443) is None
    assert found("https", "example.org", 8443) == 443
    assert found("http", "example.org", 8443) == P
    assert found("https", "www.example.org", 443) == Q
    assert [found("http", "b.test", port) for port in (80, 81, 82)] == [3, 2, 1]
    assert found("https", "b.test", 443) == 1
    assert found("https", "::1", 443) == found("https", "[::1]", 443) == 4
    assert found("http", "xn--bcher-kva.test", 80) == 5
    assert found("http", "127.0.0.1", 80) == 6
    # Other schemes are the caller's to refuse.
    assert found("ftp", "a.test", 21) == P


def test_a_host_that_shall_be_direct_is_so_though_all_others_have_a_proxy():
    rules = ProxyRules.of({"all": P, "all://localhost": None, "http": None})
    assert rules.proxy_for("https", "localhost", 443) is None
    assert rules.proxy_for("http", "a.test", 80) is None
    assert rules.proxy_for("https", "a.test", 443) == P


@pytest.mark.parametrize(
    "key",
    ["", "ftp", "no", "example.org", "://a.test", "https://a b", "https://u:secret@a", "u:secret@a",
     "http://*", "https://*.example.org", "https://a.test/path", "https://a:70000", "all:",
     "http:a.test"],
)  # fmt: skip
def test_a_key_that_means_nothing(key):
    text = refused(InvalidURL, ProxyRules.of, {key: P})
    assert text == (
        "a key of proxies must be 'http', 'https', 'all', or one of them with a host "
        f"('https://example.org'), got {key.rpartition('@')[2]!r}"
    )


@pytest.mark.parametrize("value", ["", "socks6://a.test", {"http": "http://a:b:c"}])
def test_a_value_that_is_no_proxy(value):
    refused(InvalidURL, ProxyRules.of, value)


@pytest.mark.parametrize("value", [1, b"http://a.test", {"http": 1}, ["http://a.test"]])
def test_a_value_of_another_type(value):
    text = refused(TypeError, ProxyRules.of, value)
    assert text.startswith("a proxy must be a str or a Proxy, not ")


# --------------------------------------------------------------------------- the module


def test_is_pure():
    """Nothing that it needs waits: asyncio comes with the package's own ``__init__`` alone."""
    program = """
import sys, types
for name in ("aiohttpconn", "aiohttpconn.net", "aiohttpconn.client"):
    package = sys.modules[name] = types.ModuleType(name)
    package.__path__ = [name.replace(".", "/")]
import aiohttpconn.proxies
assert "asyncio" not in sys.modules and "aiohttpconn.connection" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)
