"""The targets: each is a function of any bytes that fails if the package breaks a promise.

``TARGETS`` has them by name. A promise is that no bytes raise anything but documented exceptions,
that the result does not depend on how the bytes are split, that a result written out reads as
itself, and that a result is no longer than its source allows.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import tempfile
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttpconn import HTTPConnection, HTTPResponse, exceptions
from aiohttpconn.client.auth.digest import Digest
from aiohttpconn.client.auth.schemes import Netrc
from aiohttpconn.client.content.charsets import find_charset, header_charset
from aiohttpconn.client.content.decoding import ContentDecoder, split_codings
from aiohttpconn.client.content.labels import codec_of
from aiohttpconn.client.content.multipart import boundary_of, encode_multipart, with_boundary
from aiohttpconn.client.content.text import TextDecoder
from aiohttpconn.client.cookies.store import CookieStore, cookie_pairs
from aiohttpconn.client.fields import Fields
from aiohttpconn.client.links import MAX_LENGTH, MAX_LINKS, parse_links
from aiohttpconn.client.redirects import redirect_target
from aiohttpconn.client.request import Request
from aiohttpconn.http11.chunked import ChunkedDecoder, encode_chunk
from aiohttpconn.http11.framing import response_framing
from aiohttpconn.http11.grammar import FIELD_VALUE
from aiohttpconn.http11.limits import DEFAULT_LIMITS, Limits
from aiohttpconn.http11.response_head import HeadReader, match_common_head, parse_response_head
from aiohttpconn.net.handshakes import start_handshake
from aiohttpconn.net.tunnel import Tunnel
from aiohttpconn.pool.rate_limit import retry_after
from aiohttpconn.proxies import NoProxy, Proxy
from aiohttpconn.urls import join_base, split_url

from ..support.closed_world import ClosedWorld, Peer
from ..support.decoding import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["TARGETS"]

T = TypeVar("T")

TARGETS: dict[str, Callable[[bytes], None]] = {}

SMALL = replace(
    DEFAULT_LIMITS,
    max_line=80,
    max_head_bytes=200,
    max_fields=5,
    max_interim=2,
    max_chunk_line=24,
    max_chunk_overhead=40,
    max_trailers=3,
)
"""Limits that short inputs meet."""

VISIBLE = re.compile(r"[!-~]*")


def target(function: Callable[[bytes], None]) -> Callable[[bytes], None]:
    TARGETS[function.__name__] = function
    return function


def splits(data: bytes) -> Iterator[list[bytes]]:
    """Iterate over ways in which *data* may arrive: byte by byte, and in two at a place of its."""
    yield [data[i : i + 1] for i in range(len(data))]
    at = sum(data) % (len(data) + 1)
    yield [data[:at], data[at:]]


def same_for_all_splits(data: bytes, read: Callable[[list[bytes]], T]) -> T:
    """Return *read* of *data* in one piece, which must be that of all its splits."""
    whole = read([data])
    for pieces in splits(data):
        split = read(pieces)
        assert split == whole, (pieces, split, whole)
    return whole


def or_error(kind: Any, function: Callable[..., T], *arguments: Any, **named: Any) -> Any:
    """Call *function*; return its result, or the type of the exception, which is a *kind*."""
    try:
        return function(*arguments, **named)
    except kind as exc:
        str(exc)
        return type(exc)


# The wire ----------------------------------------------------------------------------------------


@target
def head(data: bytes) -> None:
    """Heads of responses: a tolerant and a strict reader, with usual and with small limits."""
    for limits, strict in itertools.product((DEFAULT_LIMITS, SMALL), (False, True)):
        read = functools.partial(_read_head, limits=limits, strict=strict)
        seen = same_for_all_splits(data, read)
        if isinstance(seen, type):
            continue
        if strict:
            assert _read_head([data], limits, strict=False) == seen, "strict reads it otherwise"
        size, parsed = seen
        text = parsed.text.encode("latin-1")
        again = parse_response_head(text, strict=strict)
        assert again == parsed, "it does not read as itself"
        fields = parsed.fields()
        for _, value in fields:
            assert FIELD_VALUE.fullmatch(value) if strict else not re.search("[\0\r\n]", value)
        assert len(text) <= size + len("HTTP/1.1 200 \r\n\r\n") + len(fields)
        for method in "GET", "HEAD", "CONNECT":
            framing = or_error(
                exceptions.HTTPException, response_framing, parsed, method, strict=strict
            )
            if isinstance(framing, type):
                continue
            fast = match_common_head(
                bytearray(data), 0, len(data), limits.max_fields, limits.max_line
            )
            if fast is not None and method == "GET":
                assert fast[1:4] == (size, parsed.status, parsed.reason)
                if parsed.status >= 200 and parsed.status not in (204, 304):
                    assert fast[5:] == framing[:2]


def _read_head(pieces: Sequence[bytes], limits: Limits, strict: bool) -> Any:
    """Return (length, head) of the head in *pieces*; None if there is no whole one; or an error."""
    reader = HeadReader(limits)
    for piece in pieces:
        try:
            if size := reader.feed(piece):
                return size, parse_response_head(reader.buffer[:size], strict=strict)
        except exceptions.HTTPException as exc:
            return type(exc)
    return type(None)


@target
def chunked(data: bytes) -> None:
    """Bodies in the chunked coding."""
    for limits, strict in itertools.product((DEFAULT_LIMITS, SMALL), (False, True)):
        read = functools.partial(_dechunk, limits=limits, strict=strict)
        content, done, error, trailers, used = same_for_all_splits(data, read)
        assert len(content) <= used <= len(data)
        if strict and done:
            assert _dechunk([data], limits, strict=False) == (content, done, error, trailers, used)
        coded = b"".join(encode_chunk(content[i : i + 7]) for i in range(0, len(content), 7))
        coded += b"0\r\n\r\n"
        again = _dechunk([coded + b"HTTP"], limits, strict)
        assert again == (content, True, None, [], len(coded))


def _dechunk(pieces: Sequence[bytes], limits: Limits, strict: bool) -> Any:
    """Return (content, whether it is whole, error, trailers, bytes of the body)."""
    decoder = ChunkedDecoder(limits, strict)
    content, used = b"", 0
    for piece in pieces:
        got, end = decoder.decode(bytearray(piece), 0, len(piece))
        content += got
        used += end
        if decoder.done or decoder.error is not None:
            break
    error = None if decoder.error is None else type(decoder.error)
    # Where an error is found depends on how the bytes arrive; what came before it does not.
    used = used if error is None else sum(map(len, pieces))
    return content, decoder.done, error, decoder.trailers, used


_WORLD: list[ClosedWorld] = []


@target
def response(data: bytes) -> None:
    """A whole response on a connection: the first byte says how it is asked for and read."""
    if not data:
        return
    if not _WORLD:
        _WORLD.append(ClosedWorld())
    how, wire = data[0], data[1:]
    method = ("GET", "HEAD", "POST", "OPTIONS")[how & 3]
    options: dict[str, Any] = {"strict": bool(how & 4)}
    if how & 8:
        options["limits"] = SMALL
    if how & 16:
        options["high_water"] = 1
    same_for_all_splits(wire, lambda pieces: _exchange(_WORLD[0], pieces, method, options))


def _exchange(
    world: ClosedWorld, pieces: list[bytes], method: str, options: dict[str, Any]
) -> tuple[Any, ...]:
    peer = Peer(world, pieces)
    conn = HTTPConnection("h", dialer=peer.dial, **options)
    wire_size = sum(map(len, pieces))

    async def main() -> tuple[Any, ...]:
        try:
            await conn.request(method, "/")
            got = await conn.getresponse()
        except (exceptions.HTTPException, OSError) as exc:
            failed: Exception = exc
        else:
            return await _read(got, wire_size)
        assert f"{method} http://h/" in str(failed), "the error does not name the request"
        return (type(failed).__mro__[1],)

    try:
        seen = world.run(main())
    finally:
        conn.close()
    assert all(transport.is_closing() for transport in peer.transports)
    return seen


async def _read(got: HTTPResponse, most: int) -> tuple[Any, ...]:
    """Return all that a response is; its body may have *most* bytes."""
    fields = got.getheaders()
    if got.status == 101:
        return got.status, fields
    try:
        body = await got.read()
    except exceptions.IncompleteRead as exc:
        return got.status, fields, exc.partial
    assert len(body) <= most
    return got.status, fields, body, got.trailers.items(), got.will_close


def _ask(tunnel: Tunnel, pieces: Sequence[bytes]) -> Any:
    """Ask for *tunnel*; the proxy sends *pieces*, and closes."""
    handshake, _ = start_handshake(tunnel)
    arrived = b""
    for piece in (*(piece for piece in pieces if piece), b""):
        try:
            arrived += piece
            handshake.send(piece)
        except StopIteration as exc:
            reply = exc.value
            assert reply.leftover == arrived[len(arrived) - len(reply.leftover) :]
            rest = b"".join(pieces)[len(arrived) :]
            return reply._replace(leftover=reply.leftover + rest)
        except exceptions.TunnelError as exc:
            return type(exc), exc.status, exc.reason, exc.headers, exc.body
    raise AssertionError("it goes on behind the end")


@target
def connect(data: bytes) -> None:
    """Answers of an HTTP proxy to CONNECT."""
    same_for_all_splits(data, functools.partial(_ask, Tunnel("example.org", 443)))


@target
def socks(data: bytes) -> None:
    """Answers of SOCKS proxies: the first byte says how they are asked."""
    if not data:
        return
    scheme = ("socks5", "socks5h", "socks4", "socks4a")[data[0] & 3]
    credentials = ("user", "secret") if data[0] & 4 else None
    host = "example.org" if scheme[-1] in "ha" else "192.0.2.1"
    ask = functools.partial(_ask, Tunnel(host, 443, (), scheme, credentials))
    whole = ask([data[1:]])
    # A SOCKS5 proxy that answers what it was not asked yet is refused: then pieces may be better.
    if isinstance(whole[0], int) or scheme.startswith("socks4"):
        same_for_all_splits(data[1:], ask)


# URLs --------------------------------------------------------------------------------------------


def _check_url(split: Any) -> None:
    """Check that a split URL is fit for a request line, and reads as itself."""
    assert split.scheme in ("http", "https")
    assert 0 <= split.port <= 65535
    assert split.host.isascii()
    assert split.host == split.host.lower() or "%" in split.host
    assert split.target.startswith("/")
    assert VISIBLE.fullmatch(split.target)
    assert VISIBLE.fullmatch(split.fragment)
    assert "#" not in split.target
    again = split_url(split.text)
    host = split.host.partition("%")[0]
    assert again == split._replace(userinfo="", fragment="", host=host)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


@target
def url(data: bytes) -> None:
    """URLs of a caller."""
    text = _text(data)
    split = or_error(exceptions.InvalidURL, split_url, text)
    if not isinstance(split, type):
        _check_url(split)
        assert len(split.target) + len(split.fragment) <= 3 * len(data) + 1
    joined = or_error(exceptions.InvalidURL, join_base, "http://base.test/a", text)
    if isinstance(joined, str):
        split = or_error(exceptions.InvalidURL, split_url, joined)
        if not isinstance(split, type) and not re.match("https?:", text, re.I):
            assert split.origin == ("http", "base.test", 80), "it leads to another host"


@target
def location(data: bytes) -> None:
    """Location fields: the first line is the first, another line a second."""
    base = split_url("https://user:pw@example.org:8443/a/b?q#f")
    locations = data.decode("latin-1").split("\n")[:2]
    for status, method in (302, "POST"), (307, "PUT"):
        led = or_error(exceptions.RedirectRefused, redirect_target, status, method, base, locations)
        if led is None or isinstance(led, type):
            continue
        _check_url(led.url)
        assert led.url.scheme == "https"
        assert led.crosses == (led.url.origin != base.origin)
        assert led.keeps_body == (status == 307)
        assert len(led.url.target) <= 3 * len(data) + len(base.target)


@target
def proxy(data: bytes) -> None:
    """URLs of proxies."""
    made = or_error(exceptions.InvalidURL, Proxy.parse, _text(data))
    if isinstance(made, type):
        return
    assert str(made) == str(Proxy.parse(str(made)))
    with contextlib.suppress(ValueError):
        tunnel = Tunnel("example.org", 443, (), made.scheme, made.credentials)
        start_handshake(replace(tunnel, scheme="http" if made.scheme == "https" else made.scheme))


@target
def no_proxy(data: bytes) -> None:
    """NO_PROXY: the first line is a host, the rest the variable."""
    host, _, text = _text(data).partition("\n")
    rules = NoProxy(text)
    matches = rules.matches(host, 443)
    assert len(rules) <= len(text) + 1
    assert NoProxy(f"{text},{text}").matches(host, 443) == matches
    assert NoProxy(f"{text}\n*").matches(host, 443)
    for entry in re.split(r"[\s,;]+", text):
        if re.fullmatch(r"[a-z]{1,20}\.test", entry):
            assert rules.matches(entry, 1)
            assert rules.matches(f"www.{entry}.", 1)


# Fields ------------------------------------------------------------------------------------------


@target
def cookie(data: bytes) -> None:
    """Set-Cookie fields, one on each line."""
    lines = data.decode("latin-1").split("\n")
    where = split_url("https://www.example.org/a/b")
    store = CookieStore()
    store.extract(where, lines)
    assert len(store) <= len(lines)
    sent = store.header_for(where)
    assert FIELD_VALUE.fullmatch(sent)
    assert len(sent) <= len(data) + 2 * len(lines)
    for other in "https://example.com/", "https://org/":
        assert store.header_for(split_url(other)) == "", "a cookie of another site"
    if sent:
        # What goes out is the pairs that came in: each reads as itself.
        pairs = {*sent.split("; ")}
        again = CookieStore()
        again.extract(where, [f"{pair}; path=/; secure" for pair in pairs])
        back = {*again.header_for(where).split("; ")}
        assert back <= pairs
        names = {pair.partition("=")[0] for pair in pairs}
        assert len(back) == len(names) or len(names) > 50
    copy = CookieStore()
    copy.load(store)
    # A jar counts in whole seconds: one that is about to expire may have expired in the copy.
    if all(each.expires is None or each.expires > time.time() + 60 for each in store):
        assert sorted(copy.header_for(where).split("; ")) == sorted(sent.split("; "))
    cookie_pairs(lines)


@target
def link(data: bytes) -> None:
    """Link fields, one on each line."""
    base = "https://example.org/a/b"
    found = parse_links(data.decode("latin-1").split("\n"), base)
    assert sum(map(len, found)) <= MAX_LENGTH + len(data)
    assert len({id(each) for each in found.values()}) <= MAX_LINKS
    for each in found.values():
        assert len(each["url"]) <= len(base) + len(data)


@target
def delay(data: bytes) -> None:
    """Retry-After fields."""
    seconds = retry_after(data.decode("latin-1"))
    assert seconds is None or 0 <= seconds < float("inf")


class _Refusal:
    """A 401, as an ``Auth`` sees it."""

    status = 401

    def __init__(self, challenges: Sequence[str]) -> None:
        self.headers = Fields()
        for challenge in challenges:
            with contextlib.suppress(ValueError):
                self.headers.add("WWW-Authenticate", challenge)


@target
def digest(data: bytes) -> None:
    """WWW-Authenticate fields, one on each line."""
    auth = Digest("user", "secret")
    request = Request("GET", "https://example.org/a?b")
    refusal: Any = _Refusal(data.decode("latin-1").split("\n"))
    for _ in range(5):
        if not auth.challenged(request, refusal):
            break
        auth.authorize(request)
        answer = request.headers["Authorization"]
        assert FIELD_VALUE.fullmatch(answer)
        assert answer.startswith("Digest username")
        assert "secret" not in answer or b"secret" in data
        assert len(answer) <= 2 * len(data) + 500
    else:
        raise AssertionError("it repeats the request again and again")


@target
def netrc(data: bytes) -> None:
    """Files .netrc."""
    path = _netrc_file()
    with open(path, "wb") as file:
        file.write(data)
    auth = or_error((ValueError, OSError), Netrc, path, default=True)
    if isinstance(auth, Netrc):
        request = Request("GET", "https://example.org/")
        with contextlib.suppress(ValueError):
            auth.authorize(request)
        assert FIELD_VALUE.fullmatch(request.headers.get("Authorization", ""))


@functools.cache
def _netrc_file() -> str:
    return os.path.join(tempfile.mkdtemp(prefix="aiohttpconn-fuzz-"), "netrc")


# Contents ----------------------------------------------------------------------------------------


@target
def coding(data: bytes) -> None:
    """Content codings: the first line is Content-Encoding, the rest the body."""
    field, _, body = data.partition(b"\n")
    values = [field.decode("latin-1")]
    limits = {"max_body": 100_000, "max_ratio": None}
    for strict in False, True:
        codings = or_error(exceptions.ContentDecodingError, split_codings, values, strict=strict)
        if isinstance(codings, type):
            continue
        whole = or_error(exceptions.HTTPException, decode, body, codings, **limits)
        for pieces in splits(body):
            assert _decode(pieces, codings, limits) == whole
        if not isinstance(whole, type):
            assert len(whole) <= 100_000
            assert codings or whole == body


def _decode(pieces: Sequence[bytes], codings: Sequence[str], limits: dict[str, Any]) -> Any:
    out = b""
    try:
        decoder = ContentDecoder(codings, **limits)
        for piece in pieces:
            out += decoder.feed(piece, 1000)
            while decoder.pending:
                more = decoder.feed(b"", 1000)
                assert len(more) <= 1000
                out += more
        decoder.finish()
    except exceptions.HTTPException as exc:
        return type(exc)
    return out


_CONTENT_TYPES = (
    "",
    "text/html",
    "application/xml",
    "application/xhtml+xml",
    "text/plain",
    "text/html; charset=utf-16",
    "text/html; charset=x",
    "text/html; charset=iso-2022-jp",
)


@target
def charset(data: bytes) -> None:
    """The beginnings of documents: the first byte is their Content-Type."""
    if not data:
        return
    kind, begin = _CONTENT_TYPES[data[0] % 8], data[1:]
    name = find_charset(kind, begin, "utf-8", whole=True)
    assert name
    for size in range(0, len(begin) + 1, 1 + len(begin) // 50):
        early = find_charset(kind, begin[:size], "utf-8")
        assert early in (None, name), (size, early, name)
    header_charset(begin.decode("latin-1"))
    with_text(name, begin)


_NAMES = sorted(
    {
        codec_of(label)
        for label in """\
utf-8 utf-16le utf-16be utf-32 cp1252 iso-8859-8 koi8-u gb18030 big5 euc-jp shift_jis euc-kr
iso-2022-jp x-user-defined replacement cp037 utf-8-sig johab shift_jisx0213 euc_jis_2004 gbk
mac-cyrillic ibm866 windows-874""".split()
    }
    - {""}
)


@target
def text(data: bytes) -> None:
    """Texts in any charset, which the first byte says."""
    if data:
        with_text(_NAMES[data[0] % len(_NAMES)], data[1:])


def with_text(name: str, content: bytes) -> None:
    """Decode *content*, in a charset, whole and in pieces."""
    decoded = same_for_all_splits(content, lambda pieces: _decode_text(name, "replace", pieces))
    assert len(decoded) <= 2 * len(content) + 1
    strict = same_for_all_splits(content, lambda pieces: _decode_text(name, "strict", pieces))
    assert isinstance(strict, type) or strict == decoded


def _decode_text(name: str, errors: str, pieces: Sequence[bytes]) -> Any:
    decoder = TextDecoder(name, errors)
    try:
        return "".join([*map(decoder.decode, pieces), decoder.decode(b"", True)])
    except UnicodeDecodeError:
        return UnicodeDecodeError


_PART = re.compile(
    rb'Content-Disposition: form-data; name="([^"\r\n]*)"(?:; filename="([^"\r\n]*)")?\r\n'
    rb"(?:Content-Type: ([^\r\n]*)\r\n)?\r\n"
)


@target
def multipart(data: bytes) -> None:
    """Forms: their names and values stand between zero bytes; and content types with boundaries."""
    own = data.decode("latin-1")
    named = boundary_of(with_boundary(own, "multipart/form-data; boundary=made"))
    assert named is None or named in (boundary_of(own), "made")
    texts = data.split(b"\0")
    pairs = [(_text(name), value) for name, value in itertools.zip_longest(texts[::2], texts[1::2])]
    values = [(name, value or b"") for name, value in pairs]
    files = [(name, (name, value, None)) for name, value in values]
    if b"bOuNdArY" in data:
        return
    made = or_error(ValueError, encode_multipart, values, files, "bOuNdArY")
    if isinstance(made, type):
        return
    body, kind, length = made
    body = body if isinstance(body, bytes) else b"".join(body)
    assert boundary_of(kind) == "bOuNdArY"
    assert len(body) == length
    assert body.endswith(b"\r\n--bOuNdArY--\r\n")
    parts = body.removesuffix(b"\r\n--bOuNdArY--\r\n").split(b"--bOuNdArY\r\n")[1:]
    parts = [part.removesuffix(b"\r\n") for part in parts[:-1]] + parts[-1:]
    read = [(_PART.match(part), part) for part in parts]
    assert len(read) == 2 * len(values), "a value is taken for a part"
    for (match, part), (name, value), has_filename in zip(
        read, values * 2, [False] * len(values) + [True] * len(values), strict=True
    ):
        assert match is not None
        assert part[match.end() :] == value
        for char, escaped in ('"', "%22"), ("\r", "%0D"), ("\n", "%0A"):
            name = name.replace(char, escaped)
        wanted = name.encode("utf-8", "surrogateescape")
        assert match[1] == wanted
        assert match[2] == (wanted if has_filename else None)
