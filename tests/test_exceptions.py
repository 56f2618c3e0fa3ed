"""exceptions.py: whose classes they are, what they carry, and that all of it survives a pickle."""

from __future__ import annotations

import http.client
import pickle
import socket
import ssl

import pytest

import aiohttpconn
from aiohttpconn import exceptions
from aiohttpconn.exceptions import (
    BadStatusLine,
    BodyLengthError,
    CertificateError,
    ConnectError,
    ConnectionRefused,
    ConnectTimeout,
    HeadTimeout,
    HeadTooLarge,
    HTTPException,
    IncompleteBody,
    IncompleteRead,
    LineTooLong,
    MalformedResponse,
    NotProcessed,
    ReadTimeout,
    RemoteDisconnected,
    RequestTimeout,
    ResolveError,
    TLSError,
    TotalTimeout,
    TunnelError,
    UnknownProtocol,
    WriteTimeout,
    describe,
    quote,
    redact,
)

from .support import refusing_address

DETAILS = {
    "method": "GET",
    "url": "http://a.test/x",
    "phase": "waiting for the head",
    "elapsed": 0.0125,
    "peer": "('192.0.2.1', 80)",
    "request_sent": True,
    "response_started": False,
}

# The tree -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "bases"),
    [
        (IncompleteBody, (IncompleteRead,)),
        (NotProcessed, (RemoteDisconnected, ConnectionResetError, BadStatusLine)),
        (HeadTooLarge, (LineTooLong,)),
        (MalformedResponse, (HTTPException,)),
        (BodyLengthError, (HTTPException, ValueError)),
        (ConnectError, (OSError,)),
        (ResolveError, (ConnectError, socket.gaierror)),
        (ConnectionRefused, (ConnectError, ConnectionRefusedError)),
        (TunnelError, (ConnectError,)),
        (TLSError, (ConnectError, ssl.SSLError)),
        (CertificateError, (TLSError, ssl.SSLCertVerificationError)),
        (RequestTimeout, (TimeoutError, OSError)),
        (ConnectTimeout, (RequestTimeout,)),
        (ReadTimeout, (RequestTimeout,)),
        (HeadTimeout, (ReadTimeout,)),
        (WriteTimeout, (RequestTimeout,)),
        (TotalTimeout, (RequestTimeout,)),
    ],
)
def test_the_tree(kind, bases):
    for base in bases:
        assert issubclass(kind, base)


def test_a_name_of_http_client_is_http_clients_own_class():
    theirs = [name for name in exceptions.__all__ if hasattr(http.client, name)]
    assert len(theirs) == 14
    for name in theirs:
        assert getattr(exceptions, name) is getattr(http.client, name)
        assert getattr(aiohttpconn, name) is getattr(http.client, name)


# describe() ---------------------------------------------------------------------------------


def test_describe_names_the_request_in_the_text_and_in_attributes():
    exc = describe(ReadTimeout("no response within 1 s"), notes="read=1", **DETAILS)
    assert str(exc) == (
        "GET http://a.test/x: no response within 1 s (waiting for the head, 12.5 ms; read=1)"
    )
    assert {name: getattr(exc, name) for name in DETAILS} == DETAILS


def test_describe_shows_seconds_and_a_hint():
    exc = describe(ConnectError("refused"), url="u", phase="connect", elapsed=2.5, hint="Why?")
    assert str(exc) == "u: refused (connect, 2.5 s). Why?"


@pytest.mark.parametrize(("length", "rest"), [(500, ""), (501, "..."), (200_000, "...")])
def test_describe_shows_the_beginning_of_a_long_url_and_keeps_all_of_it(length, rest):
    url = "http://a.test/".ljust(length, "x")
    exc = describe(HTTPException("no"), method="GET", url=url, phase="connect")
    assert str(exc) == f"GET {url[:500]}{rest}: no (connect, 0.0 ms)"
    assert exc.url == url


def test_describe_keeps_a_first_description():
    exc = describe(HTTPException("x"), **DETAILS)
    text = str(exc)
    assert describe(exc, "other", method="POST") is exc
    assert (str(exc), exc.method) == (text, "GET")


def test_describe_keeps_what_http_clients_classes_carry():
    exc = describe(UnknownProtocol("HTTP/2"), "unknown protocol: HTTP/2", **DETAILS)
    assert exc.version == "HTTP/2"
    assert (
        str(exc) == "GET http://a.test/x: unknown protocol: HTTP/2 (waiting for the head, 12.5 ms)"
    )
    exc = describe(BadStatusLine("ICY 200"), "not a status line: ICY 200", **DETAILS)
    assert exc.line == "ICY 200"
    exc = describe(IncompleteBody(b"ab", 3), "cut", **DETAILS)
    assert (exc.partial, exc.expected) == (b"ab", 3)
    assert str(exc) == repr(exc) == "GET http://a.test/x: cut (waiting for the head, 12.5 ms)"


def test_an_incomplete_body_that_nobody_described_has_http_clients_text():
    assert str(IncompleteRead(b"ab", 3)) == "IncompleteRead(2 bytes read, 3 more expected)"
    assert str(IncompleteBody(b"ab", 3)) == "IncompleteBody(2 bytes read, 3 more expected)"
    assert repr(IncompleteBody(b"ab")) == "IncompleteBody(2 bytes read)"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:secret@a.test/x", "http://a.test/x"),
        ("http://user@a.test", "http://a.test"),
        ("https://us%40er:se:cr@a.test:8/?q=@", "https://a.test:8/?q=@"),
        ("http://a.test/@b", "http://a.test/@b"),
        ("http://a@b@c/", "http://c/"),
        ("/path/@x", "/path/@x"),
        ("*", "*"),
    ],
)
def test_credentials_are_stripped_from_urls(url, shown):
    assert redact(url) == shown
    exc = describe(HTTPException("x"), method="GET", url=url)
    assert exc.url == shown
    assert str(exc).startswith(f"GET {shown}: x")


async def test_credentials_of_an_absolute_url_are_in_no_error():
    with refusing_address() as (host, port):
        conn = aiohttpconn.HTTPConnection(host, port)
        with pytest.raises(ConnectionRefused) as info:
            await conn.request("GET", "http://user:secret@a.test/", headers={"Host": "a.test"})
    assert info.value.url == "http://a.test/"
    assert "secret" not in str(info.value) + repr(info.value) + repr(vars(info.value))


def test_quote_escapes_and_cuts():
    assert quote(b"a\r\n\x00") == r"b'a\r\n\x00'"
    assert quote(bytearray(b"x" * 100)) == f"b'{'x' * 100}'"
    assert quote(memoryview(b"x" * 101)) == f"b'{'x' * 100}'... (101 bytes)"


@pytest.mark.parametrize(
    "kind",
    [ConnectError, ResolveError, ConnectionRefused, TunnelError, TLSError, CertificateError],
)
def test_what_ends_a_connect_has_a_phase_and_a_hint(kind):
    exc = kind("why")
    assert (str(exc), exc.args, exc.phase, exc.hint) == ("why", ("why",), "", "")
    exc = kind("why", hint="Try this.")
    assert (str(exc), exc.args, exc.hint) == ("why", ("why",), "Try this.")
    assert kind.hint == ""


# Pickles ------------------------------------------------------------------------------------


def _tunnel_error() -> TunnelError:
    exc = TunnelError("Tunnel connection failed: 407 Proxy Authentication Required")
    exc.status, exc.reason, exc.body = 407, "Proxy Authentication Required", b"go away"
    exc.headers = [("Proxy-Authenticate", "Basic")]
    exc.hint = "Pass the proxy's credentials"
    return exc


def _refused() -> ConnectionRefused:
    exc = ConnectionRefused("connection refused by 127.0.0.1:1", hint="Is a server running?")
    exc.errno = 111
    exc.errors = (ConnectionRefusedError(111, "Connection refused"),)
    return exc


def _certificate_error() -> CertificateError:
    exc = CertificateError("the certificate cannot be verified", hint="Is the clock right?")
    exc.errno, exc.reason, exc.library = 1, "CERTIFICATE_VERIFY_FAILED", "SSL"
    exc.verify_code, exc.verify_message = 18, "self-signed certificate"
    return exc


def _resolve_error() -> ResolveError:
    exc = ResolveError("a.test cannot be resolved")
    exc.errno = socket.EAI_NONAME
    exc.phase = "dns"
    return exc


def _unanswered() -> RemoteDisconnected:
    exc = RemoteDisconnected("Remote end closed connection without response")
    exc.unanswered = True
    return exc


EVERY = [
    *(
        kind("why")
        for name in exceptions.__all__
        if (kind := getattr(exceptions, name))
        not in (IncompleteRead, IncompleteBody, UnknownProtocol, LineTooLong)
    ),
    IncompleteBody(b"part", 7),
    IncompleteBody(b"part"),
    IncompleteRead(b"part", 7),
    UnknownProtocol("HTTP/2"),
    _tunnel_error(),
    _refused(),
    _certificate_error(),
    _resolve_error(),
    _unanswered(),
]


def _state(exc: BaseException) -> dict[str, object]:
    names = "errno strerror filename reason library verify_code verify_message partial expected"
    state = {name: getattr(exc, name, None) for name in f"{names} line version".split()}
    state |= {key: value for key, value in vars(exc).items() if key != "errors"}
    state["errors"] = [repr(each) for each in getattr(exc, "errors", ())]
    return state


@pytest.mark.parametrize("protocol", [0, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize("described", [False, True], ids=["plain", "described"])
@pytest.mark.parametrize("index", range(len(EVERY)), ids=[type(exc).__name__ for exc in EVERY])
def test_a_pickle_keeps_attributes_and_text(index, described, protocol):
    exc = pickle.loads(pickle.dumps(EVERY[index]))
    if described:
        exc = describe(exc, hint="A hint.", **DETAILS)
    again = pickle.loads(pickle.dumps(exc, protocol))
    assert type(again) is type(exc)
    assert str(again) == str(exc)
    assert repr(again) == repr(exc)
    assert again.args == exc.args
    assert _state(again) == _state(exc)


def test_every_exception_is_pickled_above():
    # LineTooLong is never raised itself: HeadTooLarge is, which can be pickled.
    assert {type(exc).__name__ for exc in EVERY} == {*exceptions.__all__} - {"LineTooLong"}


async def test_a_real_error_survives_a_pickle(scripted):
    script = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi"
    async with scripted(script, close=True) as conn:
        await conn.request("GET", "/")
        response = await conn.getresponse()
        with pytest.raises(IncompleteRead) as info:
            await response.read()
    again = pickle.loads(pickle.dumps(info.value))
    assert (again.partial, again.expected, again.method) == (b"hi", 3, "GET")
    assert str(again) == str(info.value)
    assert "IncompleteRead(2 bytes read, 3 more expected)" in str(again)
