"""net/tunnel.py, socks.py, handshakes.py: without any I/O; at the end set_tunnel, over sockets."""

from __future__ import annotations

import asyncio
import functools
import http.client
import itertools
import pickle
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttpconn import HTTPConnection, HTTPSConnection, dial
from aiohttpconn.exceptions import ConnectTimeout, InvalidURL, TunnelError
from aiohttpconn.http11.limits import Limits
from aiohttpconn.net.handshakes import HANDSHAKES, make_tunnel, start_handshake
from aiohttpconn.net.socks import socks4_handshake, socks5_handshake
from aiohttpconn.net.tunnel import (
    Tunnel,
    TunnelReply,
    basic_authorization,
    connect_handshake,
)

from .support import ScriptedServer, deliveries, expect, send, wait
from .support.proxies import ConnectProxy, Socks5Proxy

EXAMPLE = Tunnel("example.com", 443)
OK = b"HTTP/1.1 200 Connection established\r\n\r\n"


def talk(pieces, tunnel=EXAMPLE, limits=None):
    """Feed *pieces*, then the end of file; return (what was sent, the reply)."""
    handshake = connect_handshake(tunnel, limits)
    sent = next(handshake)
    with pytest.raises(StopIteration) as stop:
        for piece in [*pieces, b"", b""]:
            step = handshake.send(piece)
            if isinstance(step, bytes):
                sent += step
    return sent, stop.value.value


def refused(pieces, **keywords) -> TunnelError:
    with pytest.raises(TunnelError) as info:
        talk(pieces, **keywords)
    return info.value


# What is sent


@pytest.mark.parametrize(
    ("tunnel", "head"),
    [
        (
            Tunnel("example.com", 443),
            b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
        ),
        (Tunnel("::1", 8443), b"CONNECT [::1]:8443 HTTP/1.1\r\nHost: [::1]:8443\r\n\r\n"),
        (
            Tunnel("fe80::1%eth0", 443),
            b"CONNECT [fe80::1]:443 HTTP/1.1\r\nHost: [fe80::1]:443\r\n\r\n",
        ),
        (
            Tunnel("bücher.test", 80),
            b"CONNECT xn--bcher-kva.test:80 HTTP/1.1\r\nHost: xn--bcher-kva.test:80\r\n\r\n",
        ),
        (
            Tunnel("a.test", 443, (("X-B", "2"), (b"x-a", b"1\xe9"), ("N", 5))),
            b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n"
            b"X-B: 2\r\nx-a: 1\xe9\r\nN: 5\r\n\r\n",
        ),
        (
            Tunnel("a.test", 443, (("X", "1"), ("hOST", "b.test"))),
            b"CONNECT a.test:443 HTTP/1.1\r\nX: 1\r\nhOST: b.test\r\n\r\n",
        ),
    ],
)
def test_the_request(tunnel, head):
    assert next(connect_handshake(tunnel)) == head
    assert next(HANDSHAKES["http"](tunnel, None)) == head


@pytest.mark.parametrize(
    "host",
    [
        *("a b", "a\r\nX: 1", "user@a", "a/b", "a?b", "a#b", "a\0b", "[::1]", "x:1", "a\n"),
        *("ü..a", "a..b", "a" * 64, "ü" * 64),
    ],
)
def test_a_host_that_may_not_be_sent_is_refused(host):
    with pytest.raises(InvalidURL, match=r"^not a host name( or an IP address)?: "):
        next(connect_handshake(Tunnel(host, 443)))


@pytest.mark.parametrize(
    ("tunnel", "text"),
    [
        (Tunnel("", 443), "not a host and port for a tunnel: '', 443"),
        (Tunnel("a", 65536), "not a host and port for a tunnel: 'a', 65536"),
        (Tunnel("a", -1), "not a host and port for a tunnel: 'a', -1"),
        (Tunnel("a", 1, (("X Y", "1"),)), "Invalid header name 'X Y'"),
        (Tunnel("a", 1, (("X:", "1"),)), "Invalid header name 'X:'"),
        (Tunnel("a", 1, (("X\r\nY", "1"),)), "Invalid header name 'X\\r\\nY'"),
        (Tunnel("a", 1, (("", "1"),)), "Invalid header name ''"),
        (Tunnel("a", 1, (("X", "1\r\nY: 2"),)), "Invalid header value of X, for the proxy: "),
        (Tunnel("a", 1, (("X", b"\0"),)), "Invalid header value of X, for the proxy: "),
        (Tunnel("a", 1, (("X", "€"),)), "Invalid header value of X, for the proxy: "),
        (Tunnel("a", 1, (("Host", "a b"),)), "not a value for Host (host or host:port): 'a b'"),
        (
            Tunnel("a", 1, (("Host", "a"), ("host", "b"))),
            "the tunnel's headers have more than one Host: ['a', 'b']",
        ),
    ],
)
def test_what_may_not_be_sent_is_refused(tunnel, text):
    with pytest.raises(ValueError) as info:  # noqa: PT011 - the text is asserted below
        next(connect_handshake(tunnel))
    assert str(info.value).startswith(text)


def test_a_secret_is_never_shown():
    tunnel = Tunnel("a.test", 443, (("Proxy-Authorization", "Basic c2VjcmV0\n"),))
    assert repr(tunnel) == "Tunnel('a.test', 443)"
    with pytest.raises(ValueError, match=r"^Invalid header value of Proxy-Authorization") as info:
        next(connect_handshake(tunnel))
    assert "c2VjcmV0" not in str(info.value)
    assert info.value.__suppress_context__


# Consent


@pytest.mark.parametrize("pieces", deliveries(OK))
def test_success_however_it_is_delivered(pieces):
    sent, reply = talk(pieces)
    assert sent == b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"
    assert reply == TunnelReply(11, 200, "Connection established", [], b"")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.0 299 OK\r\n\r\n",
    ],
)
def test_the_framing_of_a_consent_is_ignored(head):
    _, reply = talk([head + b"hello"])
    assert reply.leftover == b"hello"
    assert reply.version == 10


def test_the_fields_of_a_consent_are_kept():
    _, reply = talk([b"HTTP/1.1 200 OK\r\nVia: x\r\nA:  b \r\n\r\n"])
    assert reply.fields == [("Via", "x"), ("A", "b")]


@pytest.mark.parametrize(
    "pieces", deliveries(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\n" + OK)
)
def test_interim_responses_are_skipped(pieces):
    assert talk(pieces)[1].status == 200


# Refusal


@pytest.mark.parametrize(
    "pieces",
    deliveries(b"HTTP/1.1 403 Not here\r\nContent-Length: 5\r\nX: y\r\n\r\nsorryHTTP/1.1 200 OK"),
)
def test_refusal_however_it_is_delivered(pieces):
    error = refused(pieces)
    assert type(error) is TunnelError
    assert str(error) == "Tunnel connection failed: 403 Not here"
    assert (error.status, error.reason, error.body) == (403, "Not here", b"sorry")
    assert error.headers == [("Content-Length", "5"), ("X", "y")]
    assert error.hint == ""


def test_a_refusal_without_a_reason():
    assert str(refused([b"HTTP/1.1 502\r\n\r\n"])) == "Tunnel connection failed: 502"


def test_a_407_has_a_hint():
    error = refused([b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"])
    assert str(error) == "Tunnel connection failed: 407 Proxy Authentication Required"
    assert error.hint == (
        "Pass the proxy's credentials: in its URL (http://user:password@...), "
        "or set_tunnel(..., credentials=(user, password))"
    )


@pytest.mark.parametrize("status", [b"101", b"301", b"304", b"999"])
def test_every_other_final_status_is_a_refusal_but_101_is_interim(status):
    error = refused([b"HTTP/1.1 %b X\r\n\r\n" % status])
    if status == b"101":
        assert str(error) == "the proxy closed the connection before answering CONNECT"
    else:
        assert str(error) == f"Tunnel connection failed: {status.decode()} X"


def test_a_refusal_whose_body_is_cut_off():
    assert refused([b"HTTP/1.1 500 X\r\nContent-Length: 9\r\n\r\nab"]).body == b"ab"


def test_the_body_of_a_refusal_is_bounded():
    head = b"HTTP/1.1 500 X\r\nContent-Length: 99999999999\r\n\r\n"
    handshake = connect_handshake(Tunnel("a", 1))
    next(handshake)
    handshake.send(head)
    with pytest.raises(TunnelError) as info:
        for _ in range(100):
            handshake.send(bytes(10_000))
    assert len(info.value.body) == 65536
    # Without a length, it ends with the connection, within the same bound.
    assert len(refused([b"HTTP/1.1 500 X\r\n\r\n" + bytes(70_000)]).body) == 65536
    assert refused([b"HTTP/1.1 500 X\r\n\r\nab", b"cd"]).body == b"abcd"
    chunks = b"%X\r\n%b\r\n" % (60_000, bytes(60_000))
    head = b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert len(refused([head, chunks, chunks, chunks]).body) == 65536


@pytest.mark.parametrize(
    "pieces",
    deliveries(
        b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;x=y\r\nsor\r\n2\r\nry\r\n0\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
    ),
)
def test_the_body_of_a_refusal_is_decoded(pieces):
    error = refused(pieces)
    assert (str(error), error.body) == ("Tunnel connection failed: 403 No", b"sorry")


@pytest.mark.parametrize(
    ("fields", "body", "read"),
    [
        (b"Transfer-Encoding: chunked", b"3\r\nsor\r\nxx\r\n", b"sor"),
        (b"Transfer-Encoding: chunked", b"9\r\nsorry", b"sorry"),
        (b"Transfer-Encoding: gzip", b"sorry", b""),
        (b"Content-Length: 3\r\nContent-Length: 4", b"sorry", b""),
        (b"Content-Length: 1\r\nTransfer-Encoding: chunked", b"3\r\nsor\r\n0\r\n\r\n", b"sor"),
    ],
)
def test_the_body_of_a_refusal_that_is_broken_leaves_the_refusal(fields, body, read):
    error = refused([b"HTTP/1.1 403 No\r\n%b\r\n\r\n%b" % (fields, body)])
    assert (str(error), error.body) == ("Tunnel connection failed: 403 No", read)


# Nonsense


@pytest.mark.parametrize("pieces", [[], [b""], [b"HTTP/1.1 200 OK\r\n"]])
def test_the_end_before_the_answer(pieces):
    error = refused(pieces)
    assert str(error) == "the proxy closed the connection before answering CONNECT"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "SSH-2.0-OpenSSH"),
        (b"HTTP/2 200 OK\r\n\r\n", "HTTP/2"),
        (b"HTTP/1.1 200 OK\r\nA\0: b\r\n\r\n", "NUL"),
        (b"HTTP/1.1 200 " + b"x" * 70_000, "65536"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 101 + b"\r\n", "100 headers"),
    ],
)
def test_an_answer_that_is_not_http(answer, why):
    error = refused([answer])
    assert str(error).startswith("the proxy's answer to CONNECT is not valid HTTP: ")
    assert why in str(error)


def test_interim_responses_are_bounded():
    interim = b"HTTP/1.1 102 Wait\r\n\r\n"
    limits = Limits(max_interim=3)
    assert talk([interim * 3 + OK], limits=limits)[1].status == 200
    error = refused([interim * 4 + OK], limits=limits)
    assert str(error) == "more than 3 interim responses to CONNECT"
    error = refused([interim * 3 + OK], limits=Limits(max_head_bytes=50))
    assert "got more than 50 bytes" in str(error)


# Credentials, for both kinds of proxies


@pytest.mark.parametrize(
    ("credentials", "value"),
    [
        (("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        (("test", "123\u00a3"), "Basic dGVzdDoxMjPCow=="),  # RFC 7617 §2.1
        (("user", "a:b"), "Basic dXNlcjphOmI="),
        (("", ""), "Basic Og=="),
        (("\udce9", ""), "Basic 6To="),
    ],
)
def test_basic_authorization(credentials, value):
    assert basic_authorization(credentials) == value


def test_credentials_of_an_http_proxy_are_a_field():
    _, head = start_handshake(make_tunnel("a.test", 443, credentials=("user", "secret")))
    assert head == (
        b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n"
        b"Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n\r\n"
    )


def test_a_field_of_the_callers_wins_over_credentials():
    fields = {"proxy-authorization": "Bearer x"}.items()
    _, head = start_handshake(make_tunnel("a.test", 443, fields, credentials=("user", "secret")))
    assert head == (
        b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nproxy-authorization: Bearer x\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("scheme", "credentials", "text"),
    [
        ("http", ("a:b", "secret"), "the proxy's user name must not have a colon (RFC 7617 §2)"),
        *[
            (
                "http",
                credentials,
                "the proxy's credentials must not have control characters (RFC 7617 §2)",
            )
            for credentials in (("a", "secret\r\n"), ("secret\0", ""), ("a", "secret\x7f"))
        ],
        *[
            (scheme, ("a", "secret\ud800"), "the proxy's credentials cannot be encoded as UTF-8")
            for scheme in ("http", "socks5")
        ],
        *[
            (
                "socks5h",
                credentials,
                "a SOCKS proxy takes a user name of 1 to 255 bytes, and a password of up to 255",
            )
            for credentials in (("", "secret"), ("é" * 128, "secret"), ("secret", "x" * 256))
        ],
    ],
)
def test_credentials_that_cannot_be_sent(scheme, credentials, text):
    with pytest.raises(ValueError) as info:  # noqa: PT011 - the text is asserted below
        make_tunnel("a.test", 443, (), scheme, credentials)
    assert str(info.value) == text
    # A traceback shows the context of an error too, and this one's would hold the secret.
    assert info.value.__suppress_context__ or info.value.__context__ is None


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
@pytest.mark.parametrize(
    "credentials", ["ab", ("secret",), ("a", "b", "secret"), (b"a", b"secret"), ["a", "secret"], 1]
)
def test_credentials_of_another_type(scheme, credentials):
    with pytest.raises(TypeError) as info:
        make_tunnel("a.test", 443, (), scheme, credentials)
    assert str(info.value) == "a proxy's credentials must be (user, password), a tuple of two str"


def test_a_tunnel_is_all_that_leads_to_it():
    tunnels = [
        Tunnel("a.test", 443),
        Tunnel("a.test", 443, scheme="socks5"),
        Tunnel("a.test", 443, scheme="socks5h"),
        Tunnel("a.test", 443, scheme="socks5h", credentials=("user", "secret")),
        Tunnel("a.test", 443, scheme="socks5h", credentials=("user", "other")),
        Tunnel("a.test", 443, (("X", "1"),)),
    ]
    assert len(set(tunnels)) == len(tunnels)
    assert tunnels[3] == Tunnel("a.test", 443, (), "socks5h", ("user", "secret"))
    assert pickle.loads(pickle.dumps(tunnels[3])) == tunnels[3]
    assert repr(tunnels[3]) == f"{tunnels[3]}" == "Tunnel('a.test', 443, scheme='socks5h')"


@pytest.mark.parametrize("scheme", ["", "https", "socks", "socks6", "SOCKS5"])
def test_a_scheme_that_makes_no_tunnels(scheme):
    with pytest.raises(ValueError, match=r"^a tunnel's scheme must be one of http, ") as info:
        make_tunnel("a.test", 443, scheme=scheme)
    assert str(info.value) == (
        f"a tunnel's scheme must be one of http, socks4, socks4a, socks5, socks5h, got {scheme!r}"
    )


def test_a_name_that_idna_turns_into_something_else():
    # U+2100, "account of", is a/c to IDNA; U+FE6B is @.
    for host in ("\u2100.test", "user\ufe6ba.test"):
        for scheme in HANDSHAKES:
            with pytest.raises(InvalidURL, match=r"^not a host name or an IP address: '"):
                make_tunnel(host, 443, scheme=scheme)


# SOCKS5

SOCKS = Tunnel("example.com", 443, scheme="socks5h")
SOCKS_USER = Tunnel("example.com", 443, scheme="socks5h", credentials=("user", "s3cret"))
SOCKS_OK = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
NAMED = b"\x05\x01\x00\x03\x0bexample.com\x01\xbb"
SIGN_IN = b"\x01\x04user\x06s3cret"


def ask(answers, tunnel=SOCKS):
    """Answer each question with the next of *answers*, a list of pieces, then end.

    Return (questions, the reply).
    """
    handshake = socks5_handshake(tunnel)
    questions = [next(handshake)]
    with pytest.raises(StopIteration) as stop:
        for piece in itertools.chain(*answers, [b"", b""]):
            question = handshake.send(piece)
            if question:
                questions.append(question)
    return questions, stop.value.value


def unanswered(answers, tunnel=SOCKS) -> TunnelError:
    with pytest.raises(TunnelError) as info:
        ask(answers, tunnel)
    assert type(info.value) is TunnelError
    assert info.value.status == 0
    assert "s3cret" not in f"{info.value} {vars(info.value)}"
    return info.value


@pytest.mark.parametrize(
    ("host", "port", "request_"),
    [
        ("example.com", 443, NAMED),
        ("Example.COM.", 80, b"\x05\x01\x00\x03\x0cExample.COM.\x00P"),
        ("bücher.test", 80, b"\x05\x01\x00\x03\x12xn--bcher-kva.test\x00P"),
        ("192.0.2.7", 8080, b"\x05\x01\x00\x01\xc0\x00\x02\x07\x1f\x90"),
        ("::1", 65535, b"\x05\x01\x00\x04" + bytes(15) + b"\x01\xff\xff"),
        (
            "2001:db8::a",
            0,
            b"\x05\x01\x00\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x0a\x00\x00",
        ),
        # Not how an address is written: what it means is for the proxy to say.
        ("127.1", 1, b"\x05\x01\x00\x03\x05127.1\x00\x01"),
    ],
)
def test_what_a_socks_proxy_is_asked(host, port, request_):
    for scheme in ("socks5", "socks5h"):
        tunnel = Tunnel(host, port, scheme=scheme)
        assert HANDSHAKES[scheme] is socks5_handshake
        assert ask([[b"\x05\x00"], [SOCKS_OK]], tunnel)[0] == [b"\x05\x01\x00", request_]


def test_a_name_of_255_bytes_is_the_longest():
    labels = ".".join(["a" * 63] * 3)
    longest = f"{labels}.{'b' * 63}"
    questions, _ = ask([[b"\x05\x00"], [SOCKS_OK]], Tunnel(longest, 80, scheme="socks5h"))
    assert questions[1] == b"\x05\x01\x00\x03\xff" + longest.encode() + b"\x00P"
    with pytest.raises(ValueError, match=r"^a SOCKS proxy takes names up to 255 bytes, got 256$"):
        make_tunnel(f"{longest}.", 80, scheme="socks5h")


@pytest.mark.parametrize(
    ("tunnel", "error", "text"),
    [
        (Tunnel("a b", 1), InvalidURL, "not a host name or an IP address: 'a b'"),
        (Tunnel("a\0", 1), InvalidURL, "not a host name or an IP address: 'a\\x00'"),
        (Tunnel("", 1), ValueError, "not a host and port for a tunnel: '', 1"),
        (Tunnel("a", 65536), ValueError, "not a host and port for a tunnel: 'a', 65536"),
        (Tunnel("a" * 64, 1), InvalidURL, f"not a host name: '{'a' * 64}' has a label"),
        (Tunnel("1::2::3", 1), ValueError, "not an IPv6 address: '1::2::3'"),
        (
            Tunnel("fe80::1%eth0", 1),
            ValueError,
            "a host for a SOCKS proxy cannot have a zone, or any '%', got 'fe80::1%eth0'",
        ),
        (
            Tunnel("a%41", 1),
            ValueError,
            "a host for a SOCKS proxy cannot have a zone, or any '%', got 'a%41'",
        ),
        (Tunnel("a", 1, (("X", "1"),)), ValueError, "a SOCKS proxy takes no header fields"),
    ],
)
def test_what_a_socks_proxy_cannot_be_asked(tunnel, error, text):
    with pytest.raises(error) as info:
        next(socks5_handshake(tunnel))
    assert type(info.value) is error
    assert str(info.value).startswith(text)


@pytest.mark.parametrize("pieces", deliveries(SOCKS_OK))
def test_socks_consent_however_it_is_delivered(pieces):
    questions, reply = ask([[b"\x05", b"\x00"], pieces])
    assert questions == [b"\x05\x01\x00", NAMED]
    assert reply == TunnelReply(5, 0, "succeeded", [], b"")


@pytest.mark.parametrize(
    "address",
    [
        b"\x01\xc0\x00\x02\x07",
        b"\x04" + bytes(16),
        b"\x03\x00",
        b"\x03\x05a.net",
        b"\x03\xff" + b"n" * 255,
    ],
    ids=["ipv4", "ipv6", "no name", "name", "long name"],
)
def test_the_bound_address_is_read_exactly(address):
    reply = b"\x05\x00\x00" + address + b"\x12\x34"
    assert ask([[b"\x05\x00"], [reply]])[1].leftover == b""
    assert ask([[b"\x05\x00"], [reply + b"HTTP/1.1"]])[1].leftover == b"HTTP/1.1"
    assert ask([[b"\x05\x00"], [reply[:-1], reply[-1:] + b"H"]])[1].leftover == b"H"
    # One byte less is not enough.
    error = unanswered([[b"\x05\x00"], [reply[:-1]]])
    assert str(error) == "the SOCKS proxy closed the connection before answering in full"


@pytest.mark.parametrize("pieces", deliveries(b"\x01\x00"))
def test_a_user_signs_in(pieces):
    questions, reply = ask([[b"\x05\x02"], pieces, [SOCKS_OK]], SOCKS_USER)
    assert questions == [b"\x05\x02\x00\x02", SIGN_IN, NAMED]
    assert reply.status == 0


def test_a_user_need_not_sign_in_where_nobody_asks():
    assert ask([[b"\x05\x00"], [SOCKS_OK]], SOCKS_USER)[0] == [b"\x05\x02\x00\x02", NAMED]


@pytest.mark.parametrize(
    ("credentials", "request_"),
    [
        (("é", "ü"), b"\x01\x02\xc3\xa9\x02\xc3\xbc"),
        (("a:b", ":"), b"\x01\x03a:b\x01:"),
        (("token", ""), b"\x01\x05token\x00"),
        (("\udcff", "\0\n"), b"\x01\x01\xff\x02\x00\n"),
        (("u" * 255, "p" * 255), b"\x01\xff" + b"u" * 255 + b"\xff" + b"p" * 255),
    ],
)
def test_how_credentials_are_sent_to_a_socks_proxy(credentials, request_):
    tunnel = Tunnel("example.com", 443, scheme="socks5", credentials=credentials)
    questions, _ = ask([[b"\x05\x02"], [b"\x01\x00"], [SOCKS_OK]], tunnel)
    assert questions[1] == request_


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1, "general failure"),
        (2, "not allowed by the proxy's rules"),
        (3, "network unreachable"),
        (4, "host unreachable"),
        (5, "connection refused"),
        (6, "TTL expired"),
        (7, "the proxy does not support CONNECT"),
        (8, "the proxy does not support this type of address"),
        (9, "unknown reply 0x09"),
        (255, "unknown reply 0xff"),
    ],
)
def test_each_refusal_of_a_socks_proxy(code, reason):
    # Its first two bytes say it all: what some proxies leave out behind them is not missed.
    for reply in (bytes([5, code]), bytes([5, code]) + SOCKS_OK[2:]):
        error = unanswered([[b"\x05\x00"], [reply]])
        assert str(error) == f"the SOCKS proxy could not connect to example.com:443: {reason}"
        assert error.reason == reason
        assert bool(error.hint) == (code == 8)


def test_the_target_in_a_refusal():
    for host, shown in (("::1", "[::1]:443"), ("bücher.test", "xn--bcher-kva.test:443")):
        error = unanswered([[b"\x05\x00"], [b"\x05\x05"]], Tunnel(host, 443, scheme="socks5"))
        assert str(error) == f"the SOCKS proxy could not connect to {shown}: connection refused"


def test_a_hint_for_a_proxy_that_knows_not_all_types_of_addresses():
    answers = [[b"\x05\x00"], [b"\x05\x08"]]
    error = unanswered(answers)
    assert error.hint == "With socks5:// names are resolved here, and the proxy is sent an address"
    error = unanswered(answers, Tunnel("::1", 443, scheme="socks5"))
    assert error.hint == "With socks5h:// the proxy resolves names itself"


SIGN_IN_HINT = (
    "Pass the proxy's credentials: in its URL (socks5h://user:password@...), "
    "or set_tunnel(..., credentials=(user, password))"
)


@pytest.mark.parametrize(
    ("tunnel", "answers", "text", "hint"),
    [
        (SOCKS, [b"\x05\xff"], "the SOCKS proxy wants authentication", SIGN_IN_HINT),
        (
            SOCKS_USER,
            [b"\x05\xff"],
            "the SOCKS proxy requires something other than a user name and password",
            "",
        ),
        (
            SOCKS,
            [b"\x05\x02"],
            "the SOCKS proxy chose method 0x02, which was not offered",
            "",
        ),
        (
            SOCKS_USER,
            [b"\x05\x01"],
            "the SOCKS proxy chose method 0x01, which was not offered",
            "",
        ),
        *[
            (
                SOCKS_USER,
                [b"\x05\x02", bytes([1, status])],
                "the SOCKS proxy refused the user name and password",
                SIGN_IN_HINT,
            )
            for status in (1, 255)
        ],
    ],
)
def test_a_user_that_a_socks_proxy_does_not_take(tunnel, answers, text, hint):
    error = unanswered([[answer] for answer in answers], tunnel)
    assert str(error) == text
    assert error.hint == hint


@pytest.mark.parametrize(
    ("answers", "expected", "got"),
    [
        ([b"\x04\x00"], 5, "b'\\x04\\x00'"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], 5, "b'HT'"),
        ([b"\x05\x02", b"\x05\x00"], 1, "b'\\x05\\x00'"),
        ([b"\x05\x02", b"user s3cret?"], 1, "b'us'"),
        ([b"\x05\x02", b"\x01\x00", b"\x00\x5a"], 5, "b'\\x00Z'"),
    ],
)
def test_an_answer_of_another_version(answers, expected, got):
    error = unanswered([[answer] for answer in answers], SOCKS_USER)
    assert str(error) == (
        f"the proxy does not speak SOCKS5: expected an answer of version {expected}, "
        f"got one that begins with {got}"
    )
    assert error.hint == "If it is an HTTP proxy, its URL begins with http://"


def test_a_bound_address_of_an_unknown_type():
    error = unanswered([[b"\x05\x00"], [b"\x05\x00\x00\x02"]])
    assert str(error) == "the SOCKS proxy's reply has an address of unknown type 0x02"


def test_an_answer_that_comes_before_its_question():
    # An echo of the credentials is not shown.
    for answers in ([b"\x05\x00" + SOCKS_OK], [b"\x05\x02", b"\x01\x00" + b"usr s3cret"]):
        error = unanswered([[answer] for answer in answers], SOCKS_USER)
        assert str(error) == "the SOCKS proxy sent 10 bytes more than its answer"


@pytest.mark.parametrize(
    ("answers", "what"),
    [
        ([], "the greeting"),
        ([b"\x05"], "the greeting"),
        ([b"\x05\x02"], "the user name and password"),
        ([b"\x05\x02", b"\x01"], "the user name and password"),
        ([b"\x05\x02", b"\x01\x00"], "the request for example.com:443"),
        ([b"\x05\x02", b"\x01\x00", b"\x05"], "the request for example.com:443"),
        *[([b"\x05\x02", b"\x01\x00", SOCKS_OK[:n]], "in full") for n in range(2, len(SOCKS_OK))],
        ([b"\x05\x00", b"\x05\x00\x00\x03"], "in full"),
        ([b"\x05\x00", b"\x05\x00\x00\x03\xffabc"], "in full"),
    ],
)
def test_a_socks_proxy_that_leaves(answers, what):
    error = unanswered([[answer] for answer in answers], SOCKS_USER)
    assert str(error) == f"the SOCKS proxy closed the connection before answering {what}"


@pytest.mark.parametrize("scheme", HANDSHAKES)
def test_a_proxy_that_leaves_at_a_question_is_not_asked_again(scheme):
    handshake, _ = start_handshake(Tunnel("192.0.2.1", 443, (), scheme))
    with pytest.raises(TunnelError, match="closed the connection before answering"):
        handshake.send(b"")


@given(st.lists(st.binary(max_size=300), max_size=8), st.sampled_from([SOCKS, SOCKS_USER]))
def test_whatever_a_socks_proxy_says_ends_in_consent_or_a_tunnel_error(pieces, tunnel):
    handshake = socks5_handshake(tunnel)
    next(handshake)
    with pytest.raises((StopIteration, TunnelError)):
        for piece in [b"\x05\x00", *pieces, b"", b""]:
            handshake.send(piece)


# SOCKS4

SOCKS4 = Tunnel("example.com", 443, scheme="socks4a")
GRANTED = b"\x00\x5a" + bytes(6)


def ask4(pieces, tunnel=SOCKS4):
    """Answer with *pieces*, then end; return (what was asked, the reply)."""
    handshake = socks4_handshake(tunnel)
    asked = next(handshake)
    with pytest.raises(StopIteration) as stop:
        for piece in [*pieces, b"", b""]:
            asked += handshake.send(piece)
    return asked, stop.value.value


def unanswered4(pieces, tunnel=SOCKS4) -> TunnelError:
    with pytest.raises(TunnelError) as info:
        ask4(pieces, tunnel)
    assert type(info.value) is TunnelError
    assert info.value.status == 0
    return info.value


@pytest.mark.parametrize(
    ("tunnel", "request_"),
    [
        (SOCKS4, b"\x04\x01\x01\xbb\x00\x00\x00\x01\x00example.com\x00"),
        (
            Tunnel("bücher.test", 80, credentials=("me", "")),
            b"\x04\x01\x00P\x00\x00\x00\x01me\x00xn--bcher-kva.test\x00",
        ),
        (Tunnel("192.0.2.7", 8080), b"\x04\x01\x1f\x90\xc0\x00\x02\x07\x00"),
        # SOCKS4 has no place for a password: as with curl, it is not sent.
        (
            Tunnel("192.0.2.7", 0, credentials=("ü", "s3cret")),
            b"\x04\x01\x00\x00\xc0\x00\x02\x07\xc3\xbc\x00",
        ),
        (Tunnel("0.0.0.0", 65535), b"\x04\x01\xff\xff\x00\x00\x00\x00\x00"),
    ],
)
def test_what_a_socks4_proxy_is_asked(tunnel, request_):
    for scheme in ("socks4", "socks4a"):
        assert HANDSHAKES[scheme] is socks4_handshake
    assert ask4([GRANTED], tunnel)[0] == request_


@pytest.mark.parametrize(
    ("tunnel", "error", "text"),
    [
        (Tunnel("a b", 1), InvalidURL, "not a host name or an IP address: 'a b'"),
        (Tunnel("a", 65536), ValueError, "not a host and port for a tunnel: 'a', 65536"),
        (Tunnel("::1", 1), ValueError, "a SOCKS4 proxy knows no IPv6 address, got '::1'"),
        (Tunnel("fe80::1%eth0", 1), ValueError, "a SOCKS4 proxy knows no IPv6 address, got 'fe80"),
        (Tunnel("0.0.0.7", 1), ValueError, "a SOCKS4 proxy cannot be asked for 0.0.0.7: it would"),
        (Tunnel("a", 1, (("X", "1"),)), ValueError, "a SOCKS proxy takes no header fields"),
        (
            Tunnel(".".join(["a" * 63] * 4) + ".", 1),
            ValueError,
            "a SOCKS proxy takes names up to 255 bytes, got 256",
        ),
        (
            Tunnel("a", 1, credentials=("a\0b", "")),
            ValueError,
            "a SOCKS4 proxy takes a user name of up to 255 bytes, none of them zero",
        ),
        (
            Tunnel("a", 1, credentials=("s3cret" * 50, "")),
            ValueError,
            "a SOCKS4 proxy takes a user name of up to 255 bytes, none of them zero",
        ),
    ],
)
def test_what_a_socks4_proxy_cannot_be_asked(tunnel, error, text):
    with pytest.raises(error) as info:
        next(socks4_handshake(tunnel))
    assert type(info.value) is error
    assert str(info.value).startswith(text)


@pytest.mark.parametrize("pieces", deliveries(GRANTED))
def test_socks4_consent_however_it_is_delivered(pieces):
    assert ask4(pieces)[1] == TunnelReply(4, 0, "granted", [], b"")


@pytest.mark.parametrize("reply", [b"\x00\x5a\x01\xbb\xc0\x00\x02\x07", b"\x00Z" + b"\xff" * 6])
def test_the_address_in_a_socks4_reply_is_read_exactly(reply):
    assert ask4([reply])[1].leftover == b""
    assert ask4([reply + b"HTTP/1.1"])[1].leftover == b"HTTP/1.1"
    assert ask4([reply[:-1], reply[-1:] + b"H"])[1].leftover == b"H"


@pytest.mark.parametrize(
    ("code", "reason", "hint"),
    [
        (91, "rejected or failed", ""),
        (92, "the proxy cannot reach identd on this machine", "Pass the user that the proxy"),
        (93, "identd on this machine names another user", "Pass the user that the proxy expects"),
        (94, "unknown reply 94", ""),
        (0, "unknown reply 0", ""),
        (255, "unknown reply 255", ""),
    ],
)
def test_each_refusal_of_a_socks4_proxy(code, reason, hint):
    reply = bytes([0, code]) + bytes(6)
    for pieces in ([reply], [reply[n : n + 1] for n in range(8)]):
        error = unanswered4(pieces)
        where = "the SOCKS proxy could not connect to example.com:443"
        assert (str(error), error.reason) == (f"{where}: {reason}", reason)
        assert error.hint.startswith(hint)
        assert bool(error.hint) is bool(hint)


@pytest.mark.parametrize("end", range(8))
def test_a_socks4_proxy_that_leaves(end):
    assert str(unanswered4([GRANTED[:end]])) == (
        "the SOCKS proxy closed the connection before answering the request for example.com:443"
    )


@pytest.mark.parametrize(
    ("answer", "got"),
    [(b"\x05\xff", "b'\\x05\\xff'"), (b"\x04\x5a" + bytes(6), "b'\\x04Z'"), (b"HTTP/1.1", "b'HT'")],
)
def test_an_answer_that_is_not_socks4(answer, got):
    error = unanswered4([answer])
    assert str(error) == (
        "the proxy does not speak SOCKS4: expected an answer of version 0, "
        f"got one that begins with {got}"
    )
    assert error.hint == (
        "If it is an HTTP proxy, its URL begins with http://; that of a SOCKS5 proxy with socks5://"
    )


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_whatever_a_socks4_proxy_says_ends_in_consent_or_a_tunnel_error(pieces):
    handshake = socks4_handshake(SOCKS4)
    next(handshake)
    with pytest.raises((StopIteration, TunnelError)):
        for piece in [*pieces, b"", b""]:
            handshake.send(piece)


# set_tunnel

OK_HI = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
ANSWER = [expect(), send(OK_HI)]


async def get(conn, path="/"):
    await conn.request("GET", path)
    response = await conn.getresponse()
    return await response.read()


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_connection_through_a_socks_proxy(certificates, tls, bytewise):
    context = certificates.server_for("origin.test") if tls else None
    async with ScriptedServer(ANSWER * 2, tls=context) as server:
        async with Socks5Proxy(
            credentials="user:s3cret",
            bytewise=bytewise,
            routes={"origin.test:8443": server.address},
        ) as proxy:
            if tls:
                conn = HTTPSConnection(*proxy.address, context=certificates.client)
            else:
                conn = HTTPConnection(*proxy.address)
            async with conn:
                conn.set_tunnel(
                    "origin.test", 8443, scheme="socks5h", credentials=("user", "s3cret")
                )
                assert "s3cret" not in repr(conn)
                assert await get(conn) == b"hi"
                assert await get(conn) == b"hi"
                assert conn.get_proxy_response_headers().keys() == []
                assert list(conn.dial_times)[:3] == ["dns", "connect", "proxy"]
            assert proxy.targets == ["origin.test:8443"]
        # In origin-form, for the origin: the proxy is not seen, nor does the origin see its user.
        assert server.heads[0].startswith(b"GET / HTTP/1.1\r\nHost: origin.test:8443\r\n")
        assert b"roxy" not in b"".join(server.heads)
        assert server.connections == 1


class Addresses:
    """A resolver that knows the answer."""

    def __init__(self, *hosts):
        self._hosts = hosts

    async def resolve(self, host, port):
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 0, (each, port, 0, 0))
            if ":" in each
            else (socket.AF_INET, socket.SOCK_STREAM, 0, (each, port))
            for each in (self._hosts if host == "origin.test" else [host])
        ]


async def test_with_socks5_the_name_is_resolved_here(certificates):
    context = certificates.server_for("origin.test")
    async with ScriptedServer(ANSWER, tls=context) as server:
        async with Socks5Proxy(routes={"192.0.2.7:443": server.address}) as proxy:
            dialer = functools.partial(dial, resolver=Addresses("192.0.2.7", "192.0.2.8"))
            async with HTTPSConnection(
                *proxy.address, context=certificates.client, dialer=dialer
            ) as conn:
                conn.set_tunnel("origin.test", scheme="socks5")
                # The certificate is the name's nonetheless.
                assert await get(conn) == b"hi"
        assert proxy.targets == ["192.0.2.7:443"]
        assert server.heads[0].startswith(b"GET / HTTP/1.1\r\nHost: origin.test\r\n")


@pytest.mark.parametrize(
    ("scheme", "request_"),
    [
        ("socks4", b"\x04\x01\x00P\xc0\x00\x02\x07me\x00"),
        ("socks4a", b"\x04\x01\x00P\x00\x00\x00\x01me\x00origin.test\x00"),
    ],
)
async def test_a_connection_through_a_socks4_proxy(scheme, request_):
    script = [expect(request_), *map(send, [GRANTED[:1], GRANTED[1:]]), *ANSWER, *ANSWER]
    async with ScriptedServer(script) as proxy:
        # The first address that SOCKS4 knows.
        dialer = functools.partial(dial, resolver=Addresses("2001:db8::1", "192.0.2.7"))
        async with HTTPConnection(*proxy.address, dialer=dialer) as conn:
            conn.set_tunnel("origin.test", scheme=scheme, credentials=("me", "s3cret"))
            assert await get(conn) == b"hi"
            assert await get(conn) == b"hi"
        assert b"s3cret" not in b"".join(proxy.received)


async def test_socks4_needs_an_ipv4_address():
    dialer = functools.partial(dial, resolver=Addresses("2001:db8::1"))
    async with ScriptedServer([]) as proxy, HTTPConnection(*proxy.address, dialer=dialer) as conn:
        conn.set_tunnel("origin.test", scheme="socks4")
        with pytest.raises(TunnelError) as info:
            await conn.request("GET", "/")
        assert "origin.test has no IPv4 address, and a SOCKS4 proxy knows no other" in str(
            info.value
        )
        assert info.value.phase == "dns"
        assert proxy.connections == 0


async def test_a_refusal_of_a_socks_proxy_names_the_request():
    async with Socks5Proxy(refuse=2) as proxy, HTTPConnection(*proxy.address) as conn:
        conn.set_tunnel("example.org", scheme="socks5h", credentials=("user", "s3cret"))
        with pytest.raises(TunnelError) as info:
            await conn.request("GET", "/x", headers={"Authorization": "Basic b3JpZ2lu"})
        assert str(info.value).startswith(
            "GET http://example.org/x: the SOCKS proxy could not connect to example.org:80: "
            "not allowed by the proxy's rules (proxy, "
        )
        assert (info.value.phase, info.value.status) == ("proxy", 0)
        assert conn.sock is None
        assert conn.get_proxy_response_headers() is None
        # C6: what is the origin's never reaches a proxy that has not opened the tunnel.
        assert b"b3JpZ2lu" not in b"".join(proxy.received)


async def test_wrong_credentials_have_a_hint_and_are_never_shown():
    async with Socks5Proxy(credentials="user:right") as proxy:
        async with HTTPConnection(*proxy.address) as conn:
            for credentials, text in (
                (None, "the SOCKS proxy wants authentication"),
                (("user", "s3cret"), "the SOCKS proxy refused the user name and password"),
            ):
                conn.set_tunnel("a.test", scheme="socks5h", credentials=credentials)
                with pytest.raises(TunnelError) as info:
                    await conn.connect()
                assert str(info.value).startswith(f"http://a.test: {text} (proxy, ")
                assert str(info.value).endswith(f". {SIGN_IN_HINT}")
                assert "s3cret" not in f"{info.value!r} {vars(info.value)} {conn!r}"


async def test_a_timeout_in_a_socks_handshake_names_the_proxy(ticking):
    hold = asyncio.Event()
    async with ScriptedServer([expect(3), send(b"\x05\x00"), wait(hold)]) as proxy:
        async with HTTPConnection(*proxy.address, timeout=0.02) as conn:
            conn.set_tunnel("a.test", scheme="socks5h")
            with pytest.raises(ConnectTimeout) as info:
                await conn.request("GET", "/")
            assert info.value.phase == "proxy"
            assert str(info.value).startswith(
                "GET http://a.test/: not connected within 0.02 s, connect=0.02 (proxy, "
            )
            assert conn.sock is None


async def test_credentials_for_an_http_proxy():
    async with ScriptedServer(ANSWER) as server:
        async with ConnectProxy(
            credentials="user:s3cret", routes={"a.test:80": server.address}
        ) as proxy:
            async with HTTPConnection(*proxy.address) as conn:
                conn.set_tunnel("a.test", credentials=("user", "s3cret"))
                assert await get(conn) == b"hi"
        assert b"roxy" not in b"".join(server.received)


async def test_sessions_are_resumed_on_the_same_way_only_C11(certificates):
    context = certificates.client_for()
    tunnel = {"host": "localhost", "port": 443, "scheme": "socks5h"}
    ways = [
        tunnel,
        tunnel,
        {**tunnel, "credentials": ("user", "s3cret")},
        {**tunnel, "credentials": ("other", "s3cret")},
        {**tunnel, "credentials": ("user", "s3cret")},
        {**tunnel, "port": 444},
    ]

    async def answer_all(server_conn):
        while True:
            await server_conn.read_head()
            await server_conn.send(OK_HI)

    async with ScriptedServer(answer_all, tls=certificates.server_for()) as server:
        routes = {"localhost:443": server.address, "localhost:444": server.address}
        async with Socks5Proxy(routes=routes) as proxy:
            reused = []
            for way in ways:
                async with HTTPSConnection(*proxy.address, context=context) as conn:
                    conn.set_tunnel(**way)
                    assert await get(conn) == b"hi"
                    reused.append(conn.session_reused)
    assert reused == [False, True, False, False, True, False]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"host": "a b"}, InvalidURL),
        ({"host": "a", "scheme": "socks6"}, ValueError),
        ({"host": "::1", "scheme": "socks4"}, ValueError),
        ({"host": "a", "scheme": "socks4a", "headers": {"X": "1"}}, ValueError),
        ({"host": "a", "scheme": "socks5", "headers": {"X": "1"}}, ValueError),
        ({"host": "a", "scheme": "socks5h", "credentials": ("", "x")}, ValueError),
        ({"host": "a", "credentials": "user:x"}, TypeError),
        ({"host": "a", "headers": {"X": "a\nb"}}, ValueError),
        ({"host": "a", "headers": {"Host": "a b"}}, ValueError),
        ({"host": "a..b"}, InvalidURL),
    ],
)
def test_what_set_tunnel_refuses_at_once_leaves_the_connection_as_it_was(arguments, error):
    conn = HTTPConnection("proxy.test")
    conn.set_tunnel("before.test")
    with pytest.raises(error):
        conn.set_tunnel(**arguments)
    assert repr(conn) == "<HTTPConnection before.test:80 through proxy.test:80 not connected>"


def test_the_value_of_a_field_for_the_proxy_is_not_shown():
    conn = HTTPConnection("proxy.test")
    with pytest.raises(ValueError, match=r"^Invalid header value of Proxy-Authorization, ") as info:
        conn.set_tunnel("a.test", headers={"Proxy-Authorization": "Basic s3cret\n"})
    assert "s3cret" not in str(info.value)


def test_set_tunnel_takes_what_http_client_takes():
    for conn in (http.client.HTTPConnection("p.test"), HTTPConnection("p.test")):
        conn.set_tunnel("a.test", 443, {"X": "1"})
        conn.set_tunnel("a.test:443")
        conn.set_tunnel("a.test", headers=None)
