"""net/tunnel.py: CONNECT as a generator, without any I/O."""

from __future__ import annotations

import pytest

from aiohttpconn.exceptions import InvalidURL, TunnelError
from aiohttpconn.http11.limits import Limits
from aiohttpconn.net.tunnel import HANDSHAKES, Tunnel, TunnelReply, connect_handshake

from .support import deliveries

EXAMPLE = Tunnel("example.com", 443)
OK = b"HTTP/1.1 200 Connection established\r\n\r\n"


def talk(pieces, tunnel=EXAMPLE, limits=None):
    """Feed *pieces*, then the end of file; return (what was sent, the reply)."""
    handshake = connect_handshake(tunnel, limits)
    sent = next(handshake)
    with pytest.raises(StopIteration) as stop:
        for piece in [*pieces, b"", b""]:
            sent += handshake.send(piece)
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
    "host", ["a b", "a\r\nX: 1", "user@a", "a/b", "a?b", "a#b", "a\0b", "[::1]", "x:1", "a\n"]
)
def test_a_host_that_may_not_be_sent_is_refused(host):
    with pytest.raises(InvalidURL, match=r"^not a host name or an IP address: "):
        next(connect_handshake(Tunnel(host, 443)))


@pytest.mark.parametrize(
    ("tunnel", "text"),
    [
        (Tunnel("", 443), "not a tunnel's host and port: '', 443"),
        (Tunnel("a", 65536), "not a tunnel's host and port: 'a', 65536"),
        (Tunnel("a", -1), "not a tunnel's host and port: 'a', -1"),
        (Tunnel("ü..a", 1), "not a tunnel's host: 'ü..a' ("),
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
    assert not hasattr(error, "hint")


def test_a_refusal_without_a_reason():
    assert str(refused([b"HTTP/1.1 502\r\n\r\n"])) == "Tunnel connection failed: 502"


def test_a_407_has_a_hint():
    error = refused([b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"])
    assert str(error) == "Tunnel connection failed: 407 Proxy Authentication Required"
    assert error.hint == (
        "Pass the proxy's credentials: set_tunnel(..., headers={'Proxy-Authorization': ...})"
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
    # Without a length, only what has come with the head, and no more than the bound of it.
    assert len(refused([b"HTTP/1.1 500 X\r\n\r\n" + bytes(70_000)]).body) == 65536
    assert refused([b"HTTP/1.1 500 X\r\n\r\nab", b"cd"]).body == b"ab"


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
