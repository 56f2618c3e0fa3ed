"""The same request by ``http.client`` and by us: byte for byte the same, but for what is listed.

``check`` sends a request by both and compares the bytes and the errors. Each difference is listed
in one of two tables, so that none comes in unseen:

- REFUSED: a request that ``http.client`` sends and we refuse, before a byte leaves where that can
  be known. (BOTH lists the requests that neither sends.)
- REWRITES: a request that we send as ``http.client`` sends another one. The rewrite makes that
  other one, and what ``http.client`` sends for it is compared with what we send.

An entry tells to which requests it applies. So random requests, usual and odd ones, prove that
the tables list all differences, and the example of each entry proves that its difference is real.
``http.client`` changed between 3.11 and 3.13: newer ones leave zone ids out of Host and brackets
out of hosts, as we do.

A request is data (``support/requests.py``), and ``support/sent.py`` sends it by either client: by
us in a world without I/O. The last test shows that real sockets get the same bytes.
"""

from __future__ import annotations

import http.client
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import event, given

from aiohttpconn.exceptions import BodyLengthError, CannotSendRequest, InvalidURL
from aiohttpconn.net.tunnel import Tunnel, connect_handshake

from .support import stdlib_client
from .support.closed_world import ClosedWorld
from .support.requests import (
    BODIES,
    GOOD_BODIES,
    LATIN,
    NO_BODY,
    Bodies,
    Request,
    content,
    requests,
    text,
)
from .support.sent import BLOCKSIZE, by_http_client, by_us, send
from .support.strategies import MORE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ZONE = re.compile(rb"(\r\nHost: \[[^]%\r]*)%[^]\r]*")
"""A zone id in Host: RFC 6874 §4, it means nothing on another machine."""


@pytest.fixture(scope="module")
def world() -> Iterator[ClosedWorld]:
    loop = ClosedWorld()
    yield loop
    loop.close()


# The comparison --------------------------------------------------------------------------------


@MORE
@given(request=requests())
def test_both_send_the_same_but_for_what_is_listed(world: ClosedWorld, request: Request) -> None:
    event(check(world, request))


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("method", ["GET", "POST", "put", "HEAD", "DELETE"])
def test_every_body_with_every_framing(world: ClosedWorld, method: str, body: str) -> None:
    framings: list[tuple[str, Any]] = [("X", "y"), ("Transfer-Encoding", "chunked")]
    if body not in NO_BODY | LATIN:
        framings.append(("Content-Length", len(content(body))))
    for header in framings:
        for encode_chunked in (False, True):
            for steps in (False, True):
                for http10 in (False, True):
                    request = Request(method, "/", body, [header], encode_chunked, steps=steps)
                    check(world, replace(request, http10=http10))


def check(world: ClosedWorld, request: Request) -> str:
    """Send *request* by both, and find each difference in the tables; return the outcome."""
    ours = by_us(world, request)
    refused = [entry for entry in REFUSED if entry.applies(request)]
    reasons = refused + [entry for entry in BOTH if entry.applies(request)]
    theirs = by_http_client(rewritten(request))
    if not reasons:
        assert (ours.error, theirs.error) == (None, None)
        assert ours.data == ZONE.sub(rb"\1", theirs.data)
        return "sent"
    assert any(isinstance(ours.error, entry.error) for entry in reasons), f"{ours}, {reasons}"
    if all(entry.early for entry in reasons):
        assert not ours.data, f"refused, but only after some bytes: {ours}"
    if not refused:
        # endheaders() of http.client takes no str at all.
        kinds = (TypeError,) if request.steps and request.body in LATIN else ()
        assert isinstance(theirs.error, (*kinds, *(entry.error for entry in reasons))), theirs
    return f"refused: {reasons[0].name}"


def rewritten(request: Request) -> Request:
    """Return the request for which http.client sends what we send for *request*."""
    for entry in REWRITES:
        request = entry.rewrite(request)
    return request


def each_of(entries: Sequence[Any]) -> Any:
    """Run a test for each entry of a table."""
    return pytest.mark.parametrize("entry", entries, ids=lambda entry: entry.name)


# Requests that we refuse -----------------------------------------------------------------------


@dataclass
class Refused:
    """Requests that we refuse with *error*; *early*: before a byte has left.

    *applies* tells whether a request is one of them. *why* is empty where http.client refuses them,
    too.
    """

    name: str
    why: str
    example: Request
    error: type[Exception]
    applies: Callable[[Request], bool]
    early: bool = True


TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
HOST = re.compile(
    r"([A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*(:[0-9]*)?|\[[0-9A-Fa-f:.]+\](:[0-9]*)?"
)


def twice(request: Request) -> bool:
    """Whether a field that must be single is there twice, our own Host included."""
    names = request.names()
    if request.steps and not request.skip_host and not request.http10:
        names.append("host")
    return any(names.count(name) > 1 for name in ("host", "content-length", "transfer-encoding"))


def wrong_length(request: Request) -> bool:
    """Whether the Content-Length given is not that of the body."""
    lengths = request.values("content-length")
    if not lengths or not re.fullmatch("[0-9]{1,19}", lengths[0]):
        return False
    if request.body in NO_BODY | LATIN:
        return False
    if request.steps and request.body == "None":
        return False
    return int(lengths[0]) != len(content(request.body))


def unannounced(request: Request) -> bool:
    """Whether ``send()`` sends more than the head has announced."""
    if not request.sends or request.body != "None" or "transfer-encoding" in request.names():
        return False
    sent = sum(len(content(name)) for name in request.sends if name not in NO_BODY | LATIN)
    length = (request.values("content-length") or ["0"])[0]
    return length.isdigit() and sent > int(length)


def netloc(url: str) -> str:
    """Return the authority of an absolute URL, else ''."""
    match = re.match("https?://([^/?#]*)", url)
    return match[1] if match else ""


REFUSED = [
    Refused(
        "method",
        "RFC 9110 §9.1: a method is a token; with a blank in it, it is a request of its own",
        Request("GET /admin", "/"),
        ValueError,
        lambda r: not TOKEN.fullmatch(r.method),
    ),
    Refused(
        "header name",
        "RFC 9110 §5.1: a name is a token; http.client sends one with a blank in it",
        Request(headers=[("Bad Name", "x")]),
        ValueError,
        lambda r: any(not TOKEN.fullmatch(text(name)) for name, *_ in r.headers),
    ),
    Refused(
        "header value",
        "RFC 9110 §5.5: no control characters; http.client sends NUL, and folds",
        Request(headers=[("X", "a\0b")]),
        ValueError,
        lambda r: any(
            re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text(v)) for _, *vs in r.headers for v in vs
        ),
    ),
    Refused(
        "single field given twice",
        "two of Host, Content-Length or Transfer-Encoding are how requests are smuggled",
        Request(headers=[("Host", "a"), ("HOST", "b")]),
        ValueError,
        twice,
    ),
    Refused(
        "coding without a body",
        "the peer would take the next request for the chunks that were announced",
        Request("POST", headers=[("Transfer-Encoding", "chunked")]),
        ValueError,
        lambda r: not r.steps and r.body == "None" and "transfer-encoding" in r.names(),
    ),
    Refused(
        "length beside a coding",
        "RFC 9112 §6.2: a sender must not send Content-Length beside Transfer-Encoding",
        Request(
            "POST", body="bytes", headers=[("Content-Length", 5), ("Transfer-Encoding", "chunked")]
        ),
        ValueError,
        lambda r: {"content-length", "transfer-encoding"} <= set(r.names()),
    ),
    Refused(
        "Content-Length that is no number",
        "RFC 9110 §8.6: digits",
        Request("POST", body="bytes", headers=[("Content-Length", "+5")]),
        ValueError,
        lambda r: any(not re.fullmatch("[0-9]{1,19}", v) for v in r.values("content-length")),
    ),
    Refused(
        "Host that is none",
        "RFC 9110 §7.2: a host and perhaps a port; what is no host routes nowhere, or elsewhere",
        Request(headers=[("Host", "a b")]),
        ValueError,
        lambda r: any(not HOST.fullmatch(v) for v in r.values("host")),
    ),
    Refused(
        "credentials in an absolute URL",
        "RFC 9110 §4.2.4: http.client puts them into Host, where they are logged",
        Request(url="http://user:secret@example.com/"),
        InvalidURL,
        lambda r: (
            not HOST.fullmatch(re.sub(r"(?<=[0-9a-f])%[^]]*(?=])", "", netloc(r.url)))
            and not (r.skip_host or r.http10 or (not r.steps and "host" in r.names()))
        ),
    ),
    Refused(
        "host",
        "RFC 3986 §3.2.2: what is neither a name nor an address is found before it is resolved",
        Request(host=("exa<mple.org",)),
        InvalidURL,
        lambda r: bool(re.search(r"[<>@/\\\"]", r.host[0])),
    ),
    Refused(
        "port",
        "a port is digits, 0 to 65535; http.client takes what int() takes, and fails to connect",
        Request(host=("example.org:+80",)),
        InvalidURL,
        lambda r: (
            bool(re.search(r":[^0-9:\]]+[0-9]*$", r.host[0]))
            or any(isinstance(port, int) and port > 65535 for port in r.host[1:])
        ),
    ),
    Refused(
        "CONNECT without a port",
        "RFC 9110 §9.3.6: the target of CONNECT is host:port",
        Request("CONNECT", "/"),
        InvalidURL,
        lambda r: r.method == "CONNECT" and not re.fullmatch("[^/?#@]+:[0-9]+", r.url),
    ),
    Refused(
        "TRACE with a body",
        "RFC 9110 §9.3.8: a TRACE request must not have a body",
        Request("TRACE", body="bytes"),
        ValueError,
        lambda r: r.method == "TRACE" and r.body != "None",
    ),
    Refused(
        "wrong Content-Length",
        "the rest of the body, or of the next request, would be taken for the other",
        Request("POST", body="bytes", headers=[("Content-Length", "4")]),
        BodyLengthError,
        wrong_length,
        early=False,
    ),
    Refused(
        "body that is none",
        "a dict's keys are no body; http.client finds that out after the head was sent",
        Request("POST", body="empty dict"),
        TypeError,
        lambda r: r.body in NO_BODY,
        early=False,
    ),
    Refused(
        "putheader without a value",
        "a header has a value, if only ''",
        Request(steps=True, headers=[("X",)]),
        TypeError,
        lambda r: any(not values for _, *values in r.headers),
    ),
    Refused(
        "value that is a buffer",
        "a header value is str, bytes or int; a memoryview is data",
        Request(headers=[("X", memoryview(b"x"))]),
        TypeError,
        lambda r: any(isinstance(v, memoryview) for _, *vs in r.headers for v in vs),
    ),
    Refused(
        "send of more than announced",
        "what follows the body that Content-Length announced, or did not, is the next request",
        Request("POST", steps=True, sends=("bytes",)),
        BodyLengthError,
        unannounced,
        early=False,
    ),
    Refused(
        "send behind a body",
        "endheaders(body) ends the request",
        Request("POST", steps=True, body="bytes", sends=("bytes",)),
        CannotSendRequest,
        lambda r: bool(r.sends) and r.body != "None",
        early=False,
    ),
]


@each_of(REFUSED)
def test_what_we_refuse(world: ClosedWorld, entry: Refused) -> None:
    assert by_http_client(entry.example).error is None
    assert isinstance(by_us(world, entry.example).error, entry.error)
    assert entry.applies(entry.example)
    check(world, entry.example)


# Requests that both refuse ---------------------------------------------------------------------

BOTH = [
    Refused(
        "value that is neither str, bytes nor int",
        "",
        Request(headers=[("X", None)]),
        TypeError,
        lambda r: any(v is None or isinstance(v, float) for _, *vs in r.headers for v in vs),
    ),
    Refused(
        "value that is not Latin-1",
        "",
        Request(headers=[("X", "\u20ac")]),
        UnicodeEncodeError,
        lambda r: any("\u20ac" in text(v) for _, *vs in r.headers for v in vs),
    ),
    Refused(
        "URL with a blank or a control character",
        "",
        Request(url="/a b"),
        InvalidURL,
        lambda r: bool(re.search(r"[\x00-\x20\x7f]", r.url)),
    ),
    Refused(
        "URL that is not ASCII",
        "",
        Request(url="/caf\xe9"),
        UnicodeEncodeError,
        lambda r: not r.url.isascii(),
    ),
    Refused(
        "host with a blank or a control character",
        "",
        Request(host=("exam ple.org",)),
        InvalidURL,
        lambda r: bool(re.search(r"[\x00-\x20\x7f]", r.host[0])),
    ),
    Refused(
        "port that is no number",
        "",
        Request(host=("example.org:x",)),
        InvalidURL,
        lambda r: bool(re.search(":[a-z]+$", r.host[0])),
    ),
    Refused(
        "text that is not Latin-1",
        "",
        Request("POST", body="not latin"),
        UnicodeEncodeError,
        lambda r: r.body in LATIN,
        early=False,
    ),
]


@each_of(BOTH)
def test_what_both_refuse(world: ClosedWorld, entry: Refused) -> None:
    assert isinstance(by_http_client(entry.example).error, entry.error)
    assert isinstance(by_us(world, entry.example).error, entry.error)
    check(world, entry.example)


# Requests that we send as http.client sends another --------------------------------------------


@dataclass
class Rewrite:
    """Requests for which http.client sends what we send only if it is given another.

    *rewrite* returns that other one, and requests that are none of these as they are.
    """

    name: str
    why: str
    example: Request
    rewrite: Callable[[Request], Request]
    real: bool = True
    """Whether http.client of this Python sends something else for the example."""


FILES = {"file", "file from 3 on", "empty file", "raw file", "BytesIO", "empty BytesIO"}
ITEMS = {"memoryview of items", "array of items", "strided memoryview", "list of arrays"}


def as_bytes(names: set[str], when: Callable[[Request], bool]) -> Callable[[Request], Request]:
    """Return a rewrite that replaces bodies called *names* by their bytes.

    It replaces the body of a request *when* it may, and what ``send()`` sends always.
    """

    def rewrite(request: Request) -> Request:
        body, sends = request.body, request.sends
        if when(request):
            body = bytes_body(body) if body in names else body
        sends = tuple(bytes_body(name) if name in names else name for name in sends)
        return replace(request, body=body, sends=sends)

    return rewrite


def bytes_body(name: str) -> str:
    """Return the name of a body with the bytes of the body *name*."""
    listed = name == "list of arrays"
    data = content(name)
    made = f"bytes of {name}"
    BODIES.setdefault(made, lambda: [data] if listed else data)
    return made


def address_alone(request: Request) -> Request:
    """Put an IPv6 address in brackets unless a port stands beside it."""

    def bracket(host: tuple[Any, ...]) -> tuple[Any, ...]:
        if not host:
            return host
        port_given = len(host) > 1 and host[1] is not None
        name = host[0]
        if not port_given and name.count(":") > 1 and "]" not in name:
            name = f"[{name}]"
        elif port_given and name.startswith("["):
            name = name.removeprefix("[").removesuffix("]")
        return (name, *host[1:])

    return replace(request, host=bracket(request.host), tunnel=bracket(request.tunnel))


def joined_values(request: Request) -> Request:
    """Join several values of a header by commas."""
    headers = [
        (name, ", ".join(map(text, values)))
        if len(values) > 1 and all(isinstance(v, (str, bytes, bytearray, int)) for v in values)
        else (name, *values)
        for name, *values in request.headers
    ]
    return replace(request, headers=headers)


REWRITES = [
    Rewrite(
        "file",
        "the length of a file that can seek is known: Content-Length, and no chunks",
        Request("POST", body="file"),
        as_bytes(FILES, lambda r: not r.chosen_framing),
    ),
    Rewrite(
        "mmap",
        "it is a buffer as well as a file, and its length is known",
        Request("POST", body="mmap"),
        as_bytes({"mmap", "mmap from 3 on"}, lambda r: True),
    ),
    Rewrite(
        "chunk of items",
        "a chunk's size counts bytes; http.client writes len(), which counts items",
        Request("POST", body="list of arrays"),
        as_bytes(ITEMS, lambda r: True),
    ),
    Rewrite(
        "several values",
        "RFC 9112 §5.2: http.client folds the line, which must not be sent any more",
        Request(steps=True, headers=[("X", "a", b"b", 3)]),
        joined_values,
    ),
    Rewrite(
        "names in bytes",
        "a name is a name in bytes too; http.client adds a second Host, and a second framing",
        Request(headers=[(b"Host", b"other.example")]),
        lambda r: replace(r, headers=[(text(n), *v) for n, *v in r.headers]),
    ),
    Rewrite(
        "str to endheaders and send",
        "a str body is sent as ISO-8859-1 everywhere; http.client does so in request() alone",
        Request("POST", steps=True, headers=[("Content-Length", "4")], body="str"),
        as_bytes({"str", "empty str"}, lambda r: r.steps),
    ),
    Rewrite(
        "IPv6 address alone",
        "'::1' is an address; http.client takes its last digits for a port",
        Request(host=("::1",)),
        address_alone,
    ),
    Rewrite(
        "brackets beside a port",
        "the brackets are no part of the host; 3.11's http.client sends two pairs of them",
        Request(host=("[::1]", 8080)),
        address_alone,
        real=not hasattr(http.client.HTTPConnection, "_wrap_ipv6"),
    ),
]


@each_of(REWRITES)
def test_what_we_send_as_http_client_sends_something_else(
    world: ClosedWorld, entry: Rewrite
) -> None:
    theirs, ours = by_http_client(entry.example), by_us(world, entry.example)
    assert (theirs.data != ours.data) == entry.real
    assert by_http_client(entry.rewrite(entry.example)).data == ours.data
    check(world, entry.example)


def test_a_zone_id_is_not_sent(world: ClosedWorld) -> None:
    request = Request(host=("[fe80::1%eth0]:81",))
    theirs, ours = by_http_client(request), by_us(world, request)
    assert b"\r\nHost: [fe80::1]:81\r\n" in ours.data
    newer = hasattr(http.client, "_strip_ipv6_iface")
    assert (b"%eth0" in theirs.data) == (not newer)
    check(world, request)


# CONNECT ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [("t.example", 443), ("::1", 80), ("b\xfccher.example", 8443)])
@pytest.mark.parametrize("headers", [{}, {"Proxy-Authorization": "Basic eDp5"}, {"Host": "h"}])
def test_connect_is_that_of_http_client_since_3_12(
    host: tuple[str, int], headers: dict[str, str]
) -> None:
    # One reply is for CONNECT, one for the request after it.
    sock = stdlib_client.FakeSocket(b"HTTP/1.1 200 OK\r\n\r\n", b"")
    conn = stdlib_client.connection(sock, "proxy.example")
    conn.set_tunnel(*host, headers=dict(headers))
    ours = next(connect_handshake(Tunnel(*host, tuple(headers.items()))))
    if hasattr(conn, "get_proxy_response_headers"):
        conn.connect()
        # Brackets (RFC 9110 §7.2): 3.12 and 3.13 forget them in Host, early 3.12 in the target too.
        theirs = re.sub(rb"(CONNECT |\r\nHost: )(::1)(?=:)", rb"\1[\2]", sock.sent)
        if "Host" not in headers and headers:
            # http.client puts its Host after the caller's fields, we put ours before them.
            assert sorted(theirs.split(b"\r\n")) == sorted(ours.split(b"\r\n"))
        else:
            assert theirs == ours
        return
    # 3.11: HTTP/1.0, no Host, no brackets, and no IDNA.
    try:
        conn.connect()
    except UnicodeEncodeError:
        assert host[0].startswith("b\xfc")
        return
    line = sock.sent.partition(b"\r\n")[0]
    assert line == f"CONNECT {host[0]}:{host[1]} HTTP/1.0".encode()
    literal = f"[{host[0]}]" if ":" in host[0] else host[0]
    assert ours.startswith(f"CONNECT {literal}:{host[1]} HTTP/1.1\r\n".encode())
    assert b"\r\nHost: " in ours


# Over real sockets -----------------------------------------------------------------------------


@pytest.mark.parametrize("body", GOOD_BODIES)
async def test_real_sockets_get_what_the_closed_world_gets(scripted: Any, body: str) -> None:
    request = Request("POST", "/x", body)
    world = ClosedWorld()
    try:
        expected = world.run_beside(lambda: by_us(world, request))
    finally:
        world.close()
    async with scripted(b"HTTP/1.1 204 No Content\r\n\r\n", blocksize=BLOCKSIZE) as conn:
        with Bodies() as body_of:
            await send(conn, request, body_of)
        await (await conn.getresponse()).read()
        host = f"{conn.host}:{conn.port}".encode()
        assert scripted.server.received == [expected.data.replace(b"example.org", host)]
