"""client/redirects.py, retries.py: where a response leads, and which requests are sent again."""

from __future__ import annotations

import errno
import random
import socket
import ssl
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttpconn import exceptions
from aiohttpconn.client.fields import Fields
from aiohttpconn.client.redirects import (
    REDIRECTS,
    Redirect,
    redirect_target,
    strip_body,
    strip_secrets,
)
from aiohttpconn.client.retries import Retry, RetryBudget, backoff, may_retry
from aiohttpconn.exceptions import (
    InvalidURL,
    RedirectRefused,
    ResolveError,
    TunnelError,
    describe,
)
from aiohttpconn.http11.semantics import IDEMPOTENT
from aiohttpconn.pool import rate_limit
from aiohttpconn.pool.rate_limit import retry_after
from aiohttpconn.urls import split_url

HERE = split_url("http://a.test/x/y?z")
METHODS = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH", "QUERY", "post"]


# ---------------------------------------------------------------------------- redirects


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("status", [301, 302])
def test_301_and_302_make_a_get_of_post_alone(status, method):
    expected = ("GET", False) if method == "POST" else (method, True)
    redirect = redirect_target(status, method, HERE, ["/v"])
    assert redirect == Redirect(split_url("http://a.test/v"), *expected, False, False)


@pytest.mark.parametrize(
    ("location", "base"),
    [
        ("/" + "a" * 70_000, HERE),
        ("?" + "\xe9" * 30_000, HERE),
        ("b" * 40_000, split_url("http://a.test/" + "a" * 30_000 + "/")),
        ("/#" + "\xe9" * 30_000, HERE),
        ("http://b.test/" + "a" * 65_523, HERE),
    ],
    ids=["long", "escaped", "relative", "fragment", "just-above"],
)
def test_a_redirect_to_a_url_that_is_too_long_is_refused(location, base):
    with pytest.raises(RedirectRefused, match=r"^a URL of \d{5} characters, at most 65536"):
        redirect_target(302, "GET", base, [location])


def test_a_redirect_to_a_url_of_65536_characters_is_followed():
    url = "http://b.test/" + "a" * 65_522
    assert len(url) == 65_536
    assert redirect_target(302, "GET", HERE, [url]).url.text == url


@pytest.mark.parametrize("method", METHODS)
def test_303_makes_a_get_of_everything_but_head(method):
    redirect = redirect_target(303, method, HERE, ["/v"])
    assert (redirect.method, redirect.keeps_body) == ("HEAD" if method == "HEAD" else "GET", False)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("status", [307, 308])
def test_307_and_308_keep_method_and_body(status, method):
    redirect = redirect_target(status, method, HERE, ["/v"])
    assert (redirect.method, redirect.keeps_body) == (method, True)


@pytest.mark.parametrize("status", [*range(200, 301), 304, 305, 306, *range(309, 600)])
def test_no_other_status_leads_elsewhere(status):
    assert status not in REDIRECTS
    assert redirect_target(status, "GET", HERE, ["/v"]) is None


@pytest.mark.parametrize("locations", [[], [""], ["", ""]])
@pytest.mark.parametrize("status", sorted(REDIRECTS))
def test_without_a_location_no_status_leads_elsewhere(status, locations):
    assert redirect_target(status, "GET", HERE, locations) is None


@pytest.mark.parametrize(
    ("here", "location", "there", "crosses"),
    [
        ("http://a.test/x", "/y", "http://a.test/y", False),
        ("http://a.test/x", "y", "http://a.test/y", False),
        ("http://a.test/x", "?y", "http://a.test/x?y", False),
        ("http://a.test/x", "#y", "http://a.test/x", False),
        ("http://a.test/x", "http://A.TEST:80/y#f", "http://a.test/y", False),
        ("http://a.test/x", "//a.test/y", "http://a.test/y", False),
        ("http://a.test/x", "//b.test/y", "http://b.test/y", True),
        ("http://a.test/x", "http://a.test.:80/", "http://a.test./", True),
        ("http://a.test/x", "http://www.a.test/", "http://www.a.test/", True),
        ("http://a.test/x", "http://a.test:81/", "http://a.test:81/", True),
        ("http://a.test/x", "https://a.test/", "https://a.test/", True),
        ("http://a.test:443/x", "https://a.test/", "https://a.test/", True),
        ("https://a.test/x", "https://a.test:443/y", "https://a.test/y", False),
        ("https://a.test/x", "https://a.test:444/y", "https://a.test:444/y", True),
        ("http://127.0.0.1/", "http://localhost/", "http://localhost/", True),
        ("http://[::1]/", "http://[::1]:80/x", "http://[::1]/x", False),
        ("http://[fe80::1%25a]/", "http://[fe80::1%25b]/", "http://[fe80::1]/", True),
        ("http://[fe80::1%25a]/", "http://[fe80::2]/", "http://[fe80::2]/", True),
        ("http://b\xfccher.test/", "//b\xc3\xbccher.test/", "http://xn--bcher-kva.test/", False),
    ],
)
def test_another_scheme_host_or_port_is_another_origin(here, location, there, crosses):
    redirect = redirect_target(302, "GET", split_url(here), [location])
    assert (redirect.url.text, redirect.crosses) == (there, crosses)


@pytest.mark.parametrize(
    ("here", "location", "upgrades"),
    [
        ("http://a.test/x", "https://a.test/y", True),
        ("http://a.test:80/x", "https://A.test:443/y", True),
        ("http://[::1]/", "https://[::1]/", True),
        ("http://[fe80::1%25a]/", "https://[fe80::1]/", True),
        ("http://a.test/x", "/y", False),
        ("http://a.test/x", "https://www.a.test/", False),
        ("http://www.a.test/x", "https://a.test/", False),
        ("http://a.test/x", "https://a.test./", False),
        ("http://a.test/x", "https://a.test:8443/", False),
        ("http://a.test:8080/x", "https://a.test/", False),
        ("http://a.test:443/x", "https://a.test/", False),
        ("http://a.test/x", "https://a.test:80/", False),
        ("https://a.test/x", "https://a.test/", False),
    ],
)
def test_http_to_https_on_one_host_and_default_ports_is_an_upgrade(here, location, upgrades):
    assert redirect_target(302, "GET", split_url(here), [location]).upgrades is upgrades


@pytest.mark.parametrize(
    ("here", "location", "there"),
    [
        ("http://a.test/x#f", "/y", "http://a.test/y#f"),
        ("http://a.test/x#f", "https://b.test/", "https://b.test/#f"),
        ("http://a.test/x#f", "/y#g", "http://a.test/y#g"),
        ("http://a.test/x#f", "/y#", "http://a.test/y#"),
        ("http://a.test/x#f", "#g", "http://a.test/x#g"),
        ("http://a.test/x", "/y#g", "http://a.test/y#g"),
    ],
)
def test_a_fragment_is_inherited(here, location, there):
    """RFC 9110 §10.2.2."""
    url = redirect_target(302, "GET", split_url(here), [location]).url
    assert url.text + url.fragment == there


@pytest.mark.parametrize("location", ["/y", "y", "//[fe80::1]/y", "http://[FE80::1]:80/y"])
def test_an_address_keeps_its_zone_which_no_server_knows(location):
    redirect = redirect_target(302, "GET", split_url("http://[fe80::1%25a]/x"), [location])
    assert redirect.url == split_url("http://[fe80::1%25a]/y")
    assert not redirect.crosses


def test_user_and_password_of_a_location_are_dropped():
    redirect = redirect_target(302, "GET", split_url("http://u:p@a.test/"), ["//v:q@a.test/y"])
    assert redirect.url == split_url("http://a.test/y")
    redirect = redirect_target(302, "GET", split_url("http://u:p@a.test/"), ["/y"])
    assert redirect.url.userinfo == ""


def test_the_same_location_several_times_is_one():
    assert redirect_target(302, "GET", HERE, ["/v", "/v"]).url.text == "http://a.test/v"


@pytest.mark.parametrize(
    ("here", "locations", "text"),
    [
        (
            "http://a.test/",
            ["/v", "/w"],
            "2 different Locations: b'/v', b'/w'",
        ),
        ("http://a.test/", ["/v", ""], "2 different Locations: b'/v', b''"),
        ("http://a.test/", ["", "/v"], "2 different Locations: b'', b'/v'"),
        (
            "http://a.test/",
            ["http://u:p@b.test/", "//b", "c", "d"],
            "4 different Locations: b'http://b.test/', b'//b', b'c'",
        ),
        (
            "https://a.test/",
            ["http://u:p@a.test/x"],
            "http://a.test/x is not encrypted, and https://a.test/ is: "
            "allow_downgrade=True follows it",
        ),
        (
            "http://a.test/",
            ["file:///etc/passwd"],
            "cannot follow Location b'file:///etc/passwd': cannot use the URL "
            "'file:///etc/passwd': the scheme 'file' is not supported, http and https are",
        ),
        (
            "http://a.test/",
            ["javascript:alert(1)"],
            "cannot follow Location b'javascript:alert(1)': "
            "not a URL to be redirected to: 'javascript:alert(1)'",
        ),
        (
            "http://a.test/",
            ["http://u:p@b.test\\@c/"],
            "cannot follow Location b'http://c/': cannot use the URL 'http://c/': "
            "what stands before the path is ambiguous",
        ),
        (
            "http://a.test/",
            ["http://b.test/\x01"],
            "cannot follow Location b'http://b.test/\\x01': cannot use the URL "
            "'http://b.test/\\x01': it has the control character '\\x01'",
        ),
        (
            "http://a.test/",
            ["http://0x7f.1/"],
            "cannot follow Location b'http://0x7f.1/': cannot use the URL 'http://0x7f.1/': "
            "not an IPv4 address of four decimal numbers: '0x7f.1'",
        ),
    ],
)
@pytest.mark.parametrize("status", sorted(REDIRECTS))
def test_a_redirect_that_is_not_followed_is_refused(status, here, locations, text):
    with pytest.raises(RedirectRefused) as info:
        redirect_target(status, "GET", split_url(here), locations)
    assert type(info.value) is RedirectRefused
    assert str(info.value) == text
    assert info.value.__cause__ is None or type(info.value.__cause__) is InvalidURL


def test_from_https_to_http_is_followed_when_it_is_allowed():
    redirect = redirect_target(
        302, "GET", split_url("https://a.test/"), ["http://a.test/"], allow_downgrade=True
    )
    assert (redirect.url.text, redirect.crosses) == ("http://a.test/", True)


@given(st.sampled_from(sorted(REDIRECTS)), st.sampled_from(METHODS), st.binary(max_size=30))
def test_whatever_a_server_says_is_followed_or_refused(status, method, location):
    try:
        redirect = redirect_target(status, method, HERE, [location.decode("latin-1")])
    except RedirectRefused:
        return
    assert redirect is None or redirect.url.scheme in ("http", "https")


SENT = [
    ("Host", "a.test"),
    ("Accept", "*/*"),
    ("AUTHORIZATION", "Basic 1"),
    ("authorization", "Basic 2"),
    ("Cookie", "a=1"),
    ("cookie", "b=2"),
    ("Proxy-Authorization", "Basic 3"),
    ("X-Token", "mine"),
]


def test_another_origin_gets_no_secrets_and_every_one_of_them_is_gone():
    fields = Fields(SENT)
    strip_secrets(fields)
    assert fields.pairs() == [("Accept", "*/*"), ("X-Token", "mine")]
    # Nothing brings them back: the next hop, to the first origin again, has these fields.
    strip_secrets(fields)
    assert fields.pairs() == [("Accept", "*/*"), ("X-Token", "mine")]


def test_what_describes_a_body_goes_with_it():
    described = [
        *("Content-Length", "content-type", "CONTENT-ENCODING", "Content-Language"),
        *("Content-Location", "Content-Digest", "Content-Disposition", "Content-MD5"),
        *("Transfer-Encoding", "Trailer", "Expect", "Digest", "Repr-Digest", "Last-Modified"),
    ]
    others = ["Accept", "X-Content", "Contents", "Authorization", "If-Match", "TE"]
    fields = Fields([(name, "1") for name in [*others[:3], *described, *described, *others[3:]]])
    strip_body(fields)
    assert [name for name, _ in fields.pairs()] == others


# ------------------------------------------------------------------- retryable failures


def failed(kind: type[Exception], phase: str = "", *arguments: object) -> Exception:
    return describe(kind(*arguments), "text", phase=phase)


NEVER = """
    BodyLengthError BodyTooLarge CannotSendHeader CannotSendRequest ContentDecodingError
    ConnectionVetoed CertificateError HTTPException HeadTooLarge ImproperConnectionState InvalidURL
    BadStatusLine LineTooLong MalformedResponse NotConnected PoolClosed PoolTimeout RedirectRefused
    ResponseNotReady StatusError TooManyRedirects TotalTimeout UnimplementedFileMode UnknownProtocol
    UnknownTransferEncoding ResolveError
""".split()
"""Failures that a retry would repeat, or that leave no time for one."""

IF_IDEMPOTENT = """
    ConnectError ConnectTimeout ConnectionRefused HeadTimeout IncompleteBody IncompleteRead
    NotProcessed ReadTimeout RemoteDisconnected RequestTimeout TLSError TunnelError WriteTimeout
""".split()
"""Failures after which the server may have handled the request, and a retry may succeed."""

ARGUMENTS: dict[str, tuple[object, ...]] = {
    "BadStatusLine": ("x",),
    "LineTooLong": ("x",),
    "HeadTooLarge": ("x",),
    "RemoteDisconnected": ("x",),
    "NotProcessed": ("x",),
    "UnknownProtocol": ("x",),
    "IncompleteRead": (b"",),
    "IncompleteBody": (b"",),
}


def test_each_exception_is_thought_of():
    assert sorted([*NEVER, *IF_IDEMPOTENT]) == sorted(exceptions.__all__)


@pytest.mark.parametrize("name", exceptions.__all__)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "get"])
def test_what_may_be_tried_again_once_something_was_sent(name, method):
    exc = failed(getattr(exceptions, name), "waiting for the head", *ARGUMENTS.get(name, ()))
    assert may_retry(exc, method, Retry()) == (name in IF_IDEMPOTENT and method in IDEMPOTENT)


@pytest.mark.parametrize(
    ("exc", "again"),
    [
        (ConnectionResetError(), True),
        (BrokenPipeError(), True),
        (ConnectionAbortedError(), True),
        (TimeoutError(), True),
        (OSError(errno.EMFILE, ""), False),
        (FileNotFoundError(), False),
        (PermissionError(), False),
        (ssl.SSLError(), False),
        (ValueError(), False),
        (RuntimeError(), False),
        (KeyError(), False),
    ],
)
def test_of_others_what_the_network_did_is_tried_again(exc, again):
    assert may_retry(exc, "GET", Retry()) is again
    assert may_retry(exc, "POST", Retry()) is False
    assert may_retry(exc, "POST", Retry(methods={"POST"})) is again
    assert may_retry(exc, "GET", Retry(methods=())) is False


@pytest.mark.parametrize("phase", ["dns", "connect", "proxy", "tls"])
@pytest.mark.parametrize(
    "name", ["ConnectError", "ConnectTimeout", "ConnectionRefused", "TLSError"]
)
def test_a_connect_is_tried_again_with_any_method(name, phase):
    exc = failed(getattr(exceptions, name), phase)
    assert may_retry(exc, "POST", Retry())
    assert may_retry(exc, "POST", Retry(methods=()))


@pytest.mark.parametrize("phase", ["dns", "connect", "proxy", "tls"])
@pytest.mark.parametrize("name", ["CertificateError", "ConnectionVetoed", "PoolTimeout"])
def test_a_connect_that_must_not_be_is_not_tried_again(name, phase):
    assert not may_retry(failed(getattr(exceptions, name), phase), "GET", Retry())


@pytest.mark.parametrize(
    ("number", "again"),
    [(socket.EAI_AGAIN, True), (socket.EAI_NONAME, False), (socket.EAI_FAIL, False), (None, False)],
)
def test_a_name_is_looked_up_again_if_the_resolver_says_so(number, again):
    exc = failed(ResolveError, "dns", number, "text")
    exc.errno = number
    assert may_retry(exc, "POST", Retry()) is again


@pytest.mark.parametrize(
    ("status", "again"),
    [(0, True), (301, True), (400, False), (407, False), (499, False), (500, True), (502, True)],
)
def test_a_proxy_that_says_no_is_not_asked_again(status, again):
    exc = failed(TunnelError, "proxy")
    exc.status = status
    assert may_retry(exc, "POST", Retry()) is again


def test_limits_of_a_retry():
    assert Retry(attempts=1, backoff=0, max_backoff=0, max_retry_after=0, budget=0).budget == 0
    assert Retry(budget=1).budget == 1
    assert Retry(budget=None).budget is None


# -------------------------------------------------------------------------------- waits


def test_each_wait_may_be_twice_as_long_up_to_the_longest(monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda low, high: (low, high))
    retry = Retry(backoff=0.5, max_backoff=3.0)
    assert [backoff(retry, n) for n in range(1, 6)] == [
        *((0, 0.5), (0, 1.0), (0, 2.0), (0, 3.0), (0, 3.0)),
    ]
    assert backoff(retry, 100_000) == (0, 3.0)
    assert backoff(Retry(backoff=0), 5) == (0, 0)


@given(st.integers(1, 2000), st.floats(0, 1e6), st.floats(0, 1e6))
def test_no_wait_is_longer_than_it_may_be(attempt, first, longest):
    wait = backoff(Retry(backoff=first, max_backoff=longest), attempt)
    assert 0 <= wait <= longest


NOW = 1_700_000_000.0
"""14 November 2023, 22:13:20 GMT."""


@pytest.fixture(params=["UTC", "EST+5", "CET-1"])
def somewhere(request, monkeypatch):
    """Let it be NOW, in several places."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    monkeypatch.setattr(rate_limit.time, "time", lambda: NOW)
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        ("120", 120.0),
        (" 120\t", 120.0),
        ("007", 7.0),
        ("1.5", 1.5),
        ("9999999999", 9_999_999_999.0),
        ("9" * 19, 1e19),
        # RFC 9110 §5.6.7: the three forms of a date
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tuesday, 14-Nov-23 22:14:20 GMT", 60.0),
        ("Tue Nov 14 22:14:20 2023", 60.0),
        ("Tue, 14 Nov 2023 22:14:20 -0000", 60.0),
        ("Tue, 14 Nov 2023 23:14:20 +0100", 60.0),
        ("Tue, 14 Nov 2023 22:14:20", 60.0),
        ("Tue, 14 Nov 2023 22:13:20 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        # Nonsense
        ("-5", None),
        ("+5", None),
        ("1e3", None),
        ("1_0", None),
        ("\xb2", None),
        ("5 s", None),
        ("5, 6", None),
        ("9" * 20, None),
        ("9" * 60_000, None),
        ("tomorrow", None),
        ("Tue, 31 Feb 2023 22:14:20 GMT", None),
        ("Tue, 14 Nov 2023 25:14:20 GMT", None),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("(" * 60_000, None),
    ],
)
def test_what_a_server_says_of_when_to_come_back(value, seconds, somewhere):
    assert retry_after(value) == seconds


PIECES = [
    "Tue,",
    " ",
    "14",
    "Nov",
    "2023",
    "22:14:20",
    "GMT",
    "+9999",
    "-",
    "(",
    ")",
    '"',
    "\\",
    "1",
]


@given(
    st.one_of(
        st.text(st.characters(max_codepoint=255)),
        st.lists(st.sampled_from(PIECES), max_size=8).map(" ".join),
    )
)
def test_whatever_a_server_says_of_it_nothing_raises(value):
    seconds = retry_after(value)
    assert seconds is None or seconds >= 0


def test_a_budget_allows_a_share_of_the_requests_to_be_retried():
    budget = RetryBudget()
    # What is saved at the beginning.
    assert [budget.spend() for _ in range(11)] == [True] * 10 + [False]
    allowed = []
    for _ in range(20):
        budget.earn(0.25)
        allowed.append(budget.spend())
    assert allowed == [False, False, False, True] * 5


def test_a_budget_saves_no_more_than_ten():
    budget = RetryBudget()
    for _ in range(1000):
        budget.earn(1.0)
    assert sum(budget.spend() for _ in range(1000)) == 10
    budget.earn(0.0)
    assert not budget.spend()


@given(st.floats(0, 1), st.lists(st.booleans(), max_size=200))
def test_no_more_is_spent_than_was_earned(share, steps):
    budget = RetryBudget()
    earned, spent = 10.0, 0
    for spend in steps:
        if spend:
            spent += budget.spend()
        else:
            budget.earn(share)
            earned += share
        assert spent <= earned + 1e-9


def test_methods_and_statuses():
    assert {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"} == IDEMPOTENT
    assert Retry().methods == IDEMPOTENT
    assert sorted(Retry().statuses) == [429, 502, 503, 504]
