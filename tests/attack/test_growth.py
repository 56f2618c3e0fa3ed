"""No text of a server or a caller costs more than in proportion to its length: no pattern does.

Each pattern of the package is run, by a matcher that counts its steps, on the texts that are worst
for it, made out of its own tree (``tests/support/backtracking.py``); no clock is asked. Parsers are
measured by the CPU time of texts of two lengths, with room for noise.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import pathlib
import pkgutil
import random
import re
from collections import defaultdict
from time import process_time

import pytest

import aiohttpconn
from aiohttpconn import CookieStore, HTTPException, Proxy
from aiohttpconn.client.content.charsets import find_charset, header_charset
from aiohttpconn.client.content.decoding import ContentDecoder, split_codings
from aiohttpconn.client.content.multipart import boundary_of, encode_multipart
from aiohttpconn.client.content.reading import lines_of
from aiohttpconn.client.content.text import TextDecoder
from aiohttpconn.client.cookies.set_cookie import parse_date, parse_set_cookie
from aiohttpconn.client.fields import Fields
from aiohttpconn.client.links import parse_links
from aiohttpconn.exceptions import redact
from aiohttpconn.http11.chunked import ChunkedDecoder
from aiohttpconn.http11.grammar import check_host, small_chunks
from aiohttpconn.http11.limits import Limits
from aiohttpconn.http11.request_head import split_host_port
from aiohttpconn.http11.response_head import HeadReader, parse_response_head
from aiohttpconn.params import add_params
from aiohttpconn.pool.rate_limit import retry_after
from aiohttpconn.proxies import NoProxy
from aiohttpconn.urls import join_location, split_url

from ..support.backtracking import Matcher, TooManySteps, attacks
from ..test_decoding import ENCODERS

PACKAGE = pathlib.Path(aiohttpconn.__file__).parent
FUNCTIONS = {"match", "search", "fullmatch", "split", "findall", "finditer", "sub", "subn"}

# Patterns that functions make as they run: one of each.
MADE_LATER = {
    "client/content/text.py": [re.compile("[\x80\u20ac]")],
    "http11/grammar.py": [small_chunks(*which) for which in itertools.product([0, 1], repeat=2)],
}
LATER_MODES = {"client/content/text.py": "sub", "http11/grammar.py": "match"}

# Steps for each character that need no second look, and the growth of four times the text.
FEW = 12
GROWTH = 5


def modules():
    for module in pkgutil.walk_packages(aiohttpconn.__path__, "aiohttpconn."):
        # pytest rewrites its plugin when it loads it, which an import before would prevent.
        if not module.name.endswith(("__main__", "testing.fixtures")):
            yield importlib.import_module(module.name)


def source_of(module):
    return ast.parse(pathlib.Path(module.__file__).read_text(encoding="utf-8"))


def is_re(node):
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "re"
        and node.func.attr in {"compile", *FUNCTIONS}
    )


def patterns():
    """Return {(where, pattern): the methods it is used with}, of all modules."""
    by_name, found = defaultdict(set), defaultdict(set)
    trees = {module: source_of(module) for module in modules()}
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in FUNCTIONS:
                name = node.value
                text = name.id if isinstance(name, ast.Name) else getattr(name, "attr", "")
                by_name[text].add(node.attr)
    for module, tree in trees.items():
        file = pathlib.Path(module.__file__).relative_to(PACKAGE).as_posix()
        assigned = set()
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern):
                found[f"{file}:{name}", value] |= by_name[name] or {"fullmatch", "match"}
            elif isinstance(getattr(value, "__self__", None), re.Pattern):
                found[f"{file}:{name}", value.__self__].add(value.__name__)
        for statement in tree.body:
            if isinstance(statement, (ast.Assign, ast.AnnAssign)):
                assigned.update(filter(is_re, ast.walk(statement)))
        for call in ast.walk(tree):
            if not is_re(call) or call in assigned:
                continue
            where = f"{file}:{call.lineno}"
            pattern = call.args[0]
            if isinstance(pattern, ast.Constant):
                flags = re.DOTALL if "DOTALL" in ast.unparse(call) else 0
                made = [re.compile(pattern.value, flags)]
            else:
                made = MADE_LATER[file]
            mode = call.func.attr if call.func.attr in FUNCTIONS else LATER_MODES[file]
            for one in made:
                found[where, one].add(mode)
    return found


FOUND = patterns()


def cost(matcher, mode, text):
    try:
        matcher.run(mode, text)
    except TooManySteps:
        return matcher.most
    return matcher.steps


def growing(pattern, mode, size=120):
    """Return the texts of which four times as much costs more than about four times as much."""
    matcher = Matcher(pattern, most=200_000)
    found = []
    for prefix, pump, suffix in attacks(pattern):
        if not pump:
            continue
        text = prefix + pump * (size // len(pump) + 1) + suffix
        first = cost(matcher, mode, text)
        if first > FEW * len(text):
            longer = prefix + pump * (4 * size // len(pump) + 4) + suffix
            if first == matcher.most or cost(matcher, mode, longer) > GROWTH * first:
                found.append((prefix, pump, suffix))
    return found


def test_patterns_are_found():
    names = {where for where, _ in FOUND}
    assert len(FOUND) > 80
    assert {
        "client/content/charsets.py:_XML",
        "proxies.py:_URL",
        "client/cookies/set_cookie.py:_YEAR",
        "http11/grammar.py:PLAIN_HEAD",
        "client/hosts.py:_match_host",
    } <= names
    assert any(where.startswith("client/content/text.py:2") for where in names), "a local one"


@pytest.mark.parametrize(
    ("pattern", "mode"),
    [
        pytest.param(pattern, mode, id=f"{where}-{mode}")
        for (where, pattern), used in FOUND.items()
        for mode in sorted(used)
    ],
)
def test_no_pattern_grows_faster_than_its_text(pattern, mode):
    assert growing(pattern, mode) == []


@pytest.mark.parametrize(
    ("pattern", "mode"),
    [
        (r"(a+)+b", "match"),
        (r"\s+$", "search"),
        (r"a*a*b", "match"),
        (r"(?:a|aa)*c", "fullmatch"),
        (r'"(?:[^"\\]|\\.)*"', "search"),
        (r"x.*y.*z", "match"),
    ],
)
def test_patterns_that_grow_are_seen(pattern, mode):
    assert growing(re.compile(pattern), mode)


def test_the_matcher_finds_what_re_finds():
    for where, pattern in FOUND:
        matcher = Matcher(pattern)
        texts = list(attacks(pattern))
        for prefix, pump, suffix in texts[:: 1 + len(texts) // 40]:
            for text in (prefix + pump * 3 + suffix, prefix + pump * 2 + suffix + pump):
                given = text.encode("latin-1") if isinstance(pattern.pattern, bytes) else text
                for mode in ("match", "fullmatch", "search"):
                    match = getattr(pattern, mode)(given)
                    ends = [] if match is None else [match.end()]
                    assert matcher.run(mode, text) == ends, (where, mode, text)


# ------------------------------------------------------------------------- whole parsers


def run(coroutine):
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


async def all_of(iterator):
    return [item async for item in iterator]


async def given(items):
    for item in items:
        yield item


def refused(function, *args):
    try:
        function(*args)
    except (ValueError, HTTPException, OSError):
        pass


def feed_head(n):
    reader = HeadReader(Limits(max_line=10**9, max_head_bytes=10**9, max_fields=10**9))
    for _ in range(n):
        reader.feed(b"A")


def feed_folds(n):
    head = b"HTTP/1.1 200 OK\r\nA: b\r\n" + b" c\r\n" * n + b"\r\n"
    parse_response_head(head)


def feed_chunks(n, piece=b"1;a\r\nx\r\n"):
    decoder = ChunkedDecoder()
    for byte in piece * n:
        decoder.decode(bytearray((byte,)), 0, 1)
    assert decoder.error is None


def feed_chunk_lines(n):
    limits = Limits(max_chunk_line=10**9, max_chunk_overhead=10**9)
    decoder = ChunkedDecoder(limits)
    decoder.decode(bytearray(b"1;"), 0, 2)
    for _ in range(n):
        decoder.decode(bytearray(b"a"), 0, 1)


def feed_trailers(n):
    limits = Limits(max_trailers=10**9, max_head_bytes=10**9)
    wire = bytearray(b"0\r\n" + b"A: b\r\n" * n + b"\r\n")
    decoder = ChunkedDecoder(limits)
    decoder.decode(wire, 0, len(wire))
    assert decoder.done


def feed_codec(n, coding="gzip"):
    wire = ENCODERS[coding](random.Random(n).randbytes(n))
    decoder = ContentDecoder([coding], max_body=None, max_ratio=None)
    for byte in wire:
        decoder.feed(bytes([byte]))
    decoder.finish()


def read_lines(n, piece):
    texts = given([piece] * n)
    run(all_of(lines_of(texts, 10**9, "")))


def keep_cookies(n):
    store = CookieStore()
    url = split_url("http://example.test/")
    for i in range(n):
        store.extract(url, [f"a{i}=b; Path=/"])
    store.header_for(url)


def change_fields(n):
    fields = Fields([(f"X-{i}", "1") for i in range(n)])
    fields.pairs()


def no_proxy(n):
    rules = NoProxy("example.test," * n + "10.0.0.0/8," * n + ".a" * n)
    rules.matches("b.test", 80)
    rules.matches("a." * 120, 80)


PARSERS = {
    # a function of a length, and the length at which it is measured first
    "split_url-path": (lambda n: split_url("http://a.test/" + "é" * n), 4000),
    "split_url-host": (lambda n: refused(split_url, f"http://{'a.' * n}/"), 20000),
    "split_url-at": (lambda n: refused(split_url, "http://" + "@" * n), 20000),
    "split_url-colons": (lambda n: refused(split_url, f"http://[{':' * n}]/"), 20000),
    "check_host": (lambda n: refused(check_host, ":" * n + "!"), 20000),
    "split_host_port": (lambda n: refused(split_host_port, ":" * n, None, 80), 20000),
    "join_location-dots": (lambda n: join_location("http://a.test/b", "/.." * n), 8000),
    "join_location-down": (lambda n: join_location("http://a.test/b", "/a/.." * n), 8000),
    "join_location-escapes": (lambda n: join_location("http://a.test/b", "\xe9" * n), 8000),
    "redact": (lambda n: redact("://" * n + "a@"), 20000),
    "redact-at": (lambda n: redact("http://" + "a@" * n), 20000),
    "add_params": (lambda n: add_params("http://a.test/", [("a", "é b")] * n), 800),
    "add_params-list": (lambda n: add_params("http://a.test/", {"a": ["b"] * n}), 800),
    "proxy": (lambda n: refused(Proxy.parse, "http://" + "a:" * n + "@"), 20000),
    "no_proxy": (no_proxy, 400),
    "set_cookie": (lambda n: parse_set_cookie("a=b" + "; c=d" * n, 0.0), 20000),
    "set_cookie-date": (lambda n: parse_set_cookie("a=b; Expires=" + "1 " * n, 0.0), 20000),
    "parse_date": (lambda n: parse_date("12:" * n), 8000),
    "parse_date-digits": (lambda n: parse_date("1" * n), 20000),
    "cookies-kept": (keep_cookies, 100),
    "links": (lambda n: parse_links(["<a>; rel=b," * n], "http://a.test/"), 100),
    "links-params": (lambda n: parse_links(["<a>" + "; b=c" * n], "http://a.test/"), 1000),
    "links-quoted": (lambda n: parse_links(['<a>; b="' + '\\"' * n], "http://a.test/"), 20000),
    "header_charset": (lambda n: header_charset("; charset=" * n), 8000),
    "header_charset-blanks": (lambda n: header_charset("a; charset=" + " " * n), 20000),
    "find_charset": (
        lambda n: find_charset("text/html", b"<meta " + b"a=b " * n, "utf-8", whole=True),
        20000,
    ),
    "find_charset-comments": (
        lambda n: find_charset("text/html", b"<!--" * n, "utf-8", whole=True),
        20000,
    ),
    "boundary": (lambda n: boundary_of("multipart/form-data" + '; boundary="' * n), 8000),
    "multipart": (lambda n: encode_multipart([("a", "b")] * n, {}), 800),
    "retry_after": (lambda n: retry_after("1" * n), 20000),
    "codings": (lambda n: refused(split_codings, ["a," * n]), 8000),
    "head-bytes": (feed_head, 4000),
    "head-folds": (feed_folds, 800),
    "head-lines": (
        lambda n: refused(parse_response_head, b"HTTP/1.1 200 OK\r\n" + b"A b\r\n" * n + b"\r\n"),
        800,
    ),
    "chunks-bytes": (feed_chunks, 400),
    "chunk-line": (feed_chunk_lines, 4000),
    "trailers": (feed_trailers, 200),
    "codec-gzip": (feed_codec, 1000),
    "codec-deflate": (lambda n: feed_codec(n, "deflate"), 1000),
    "codec-br": (lambda n: feed_codec(n, "br"), 1000),
    "codec-zstd": (lambda n: feed_codec(n, "zstd"), 1000),
    "lines-of-pieces": (lambda n: read_lines(n, "a"), 8000),
    "lines-of-ends": (lambda n: read_lines(n, "\n"), 4000),
    "lines-of-long-pieces": (lambda n: read_lines(n, "a" * 100 + "\n"), 4000),
    "text-utf-8": (lambda n: TextDecoder("utf-8").decode(b"\xff" * n, True), 8000),
    "text-2022": (lambda n: TextDecoder("iso2022_jp").decode(b"\x1b$B\x1b(B" * n, True), 400),
    "fields": (change_fields, 400),
}

# A length eight times as long may cost 24 times as much: eight times, three times over. Square
# growth costs 64 times as much.
TIMES, MOST = 8, 24


def seconds(function, n):
    """Return the CPU time of a call: the least of three, of enough calls to be measured."""
    best = float("inf")
    for _ in range(3):
        began = process_time()
        calls = 0
        while calls < 1 or process_time() - began < 0.0005:
            function(n)
            calls += 1
        best = min(best, (process_time() - began) / calls)
    return best


@pytest.mark.parametrize("name", PARSERS)
def test_no_parser_grows_faster_than_its_text(name):
    function, n = PARSERS[name]
    # Memory and caches make a single measurement unsure, and no chance makes three of them wrong.
    for _ in range(3):
        growth = seconds(function, TIMES * n) / seconds(function, n)
        if growth <= MOST:
            return
    raise AssertionError(f"{TIMES} times the length costs {growth:.0f} times as much")


def test_a_parser_that_grows_is_seen():
    def square(n):
        for i in range(n):
            for _ in range(i):
                pass

    assert seconds(square, TIMES * 200) / seconds(square, 200) > MOST
