"""http11/grammar.py: each rule of the RFCs as a pattern, and the validators of what is sent."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aiohttpconn.exceptions import InvalidURL, shown_refused
from aiohttpconn.http11 import grammar
from aiohttpconn.http11.grammar import (
    check_field,
    check_host,
    check_host_field,
    check_method,
    check_target,
)

TCHARS = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""RFC 9110 §5.6.2, spelt out."""

VALUE_CHARS = "\t" + "".join(map(chr, (*range(0x20, 0x7F), *range(0x80, 0x100))))
"""RFC 9110 §5.5: VCHAR, obs-text, SP and HTAB."""

EVERY_CHAR = [chr(i) for i in range(0x110)]
"""Latin-1, and a few beyond it."""


def test_a_token_is_of_tchars():
    for char in EVERY_CHAR:
        assert bool(grammar.TOKEN.fullmatch(char)) == (char in TCHARS), char
        assert bool(grammar.TOKEN.fullmatch(f"a{char}b")) == (char in TCHARS), char
    assert not grammar.TOKEN.fullmatch("")


def test_a_field_value_has_no_control_characters():
    for char in EVERY_CHAR:
        assert bool(grammar.FIELD_VALUE.fullmatch(f"a{char}b")) == (char in VALUE_CHARS), char
    assert grammar.FIELD_VALUE.fullmatch("")


PACKAGE = Path(grammar.__file__).parent.parent


def test_no_group_repeats_possessively():
    # CPython before 3.11.5 goes on in the wrong place behind one (gh-106052).
    for path in PACKAGE.rglob("*.py"):
        without_sets = re.sub(r"\[(?:\\.|[^\]\\])*\]", "[]", path.read_text("utf-8"))
        assert not re.search(r"(?<!\\)\)(?:[*+?]|\{[0-9,]+\})\+", without_sets), path
    assert not re.search(r"(?>(?:(?!ab)[a-z])*)c", "abc")


@pytest.mark.parametrize("pattern", ["MESSAGE_HEAD", "PLAIN_HEAD"])
def test_a_head_follows_the_grammar_character_by_character(pattern):
    compiled = getattr(grammar, pattern)

    def match(text):
        return compiled.match(text.encode("latin-1") if pattern == "PLAIN_HEAD" else text)

    assert match("HTTP/1.1 200 OK\r\nX-A: v\r\nX-B:\r\n\r\n")
    for char in EVERY_CHAR[:256]:
        reason = f"HTTP/1.1 200 O{char}K\r\nX-A: v\r\n\r\n"
        name = f"HTTP/1.1 200 OK\r\nX{char}A: v\r\n\r\n"
        value = f"HTTP/1.1 200 OK\r\nX-A: v{char}w\r\n\r\n"
        assert bool(match(reason)) == (char in VALUE_CHARS), char
        # A colon ends the name: what follows is its value.
        assert bool(match(name)) == (char in TCHARS or char == ":"), char
        assert bool(match(value)) == (char in VALUE_CHARS), char


@pytest.mark.parametrize("head", ["HTTP/1.1 200 OK\r\n{}\r\n", "HTTP/1.1 200 OK\r\nX: y\r\n{}\r\n"])
@pytest.mark.parametrize(
    "line",
    ["X-A : v\r\n", " X-A: v\r\n", ": v\r\n", "X-A\r\n", "X-A: v\n", "\r\r\n", "\n", " \r\n"],
)
def test_a_head_with_a_malformed_line_is_none(head, line):
    text = head.format(line)
    assert not grammar.MESSAGE_HEAD.fullmatch(text)
    assert not grammar.PLAIN_HEAD.match(text.encode())


@pytest.mark.parametrize(
    "line",
    [
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nX: y\r\ntransfer-encoding: gzip",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked ",
        "Transfer-Encoding:",
        "Content-Length: +5",
        "Content-Length: 5_0",
        "Content-Length: 5 ",
        "Content-Length: 5, 5",
        "Content-Length:",
        "Content-Length: \xb2",
        "Content-Length: " + "1" * 20,
        "Connection: close",
        "Connection: keep-alive, close",
        "connection: Close",
        "CONTENT-LENGTH: x",
        "tRANSFER-eNCODING: x",
        "CONNECTION: x",
    ],
)
def test_a_head_whose_framing_takes_thought_is_not_plain(line):
    head = f"HTTP/1.1 200 OK\r\n{line}\r\n\r\n"
    assert grammar.MESSAGE_HEAD.fullmatch(head)
    assert not grammar.PLAIN_HEAD.match(head.encode("latin-1"))


@pytest.mark.parametrize("status_line", ["HTTP/1.0 200 OK", "HTTP/1.1 100 C", "HTTP/1.1 101 S"])
def test_neither_http_1_0_nor_an_interim_response_is_plain(status_line):
    assert grammar.MESSAGE_HEAD.fullmatch(f"{status_line}\r\n\r\n")
    assert not grammar.PLAIN_HEAD.match(f"{status_line}\r\n\r\n".encode())


@pytest.mark.parametrize(
    ("line", "groups"),
    [
        ("Content-Length: 5", (b"5", None)),
        ("content-length: 0005", (b"0005", None)),
        ("Transfer-Encoding: chunked", (None, b"chunked")),
        ("transfer-encoding: chunked\r\nConnection: keep-alive", (None, b"chunked")),
        ("Content-Length-X: 7\r\nX-Content-Length: 8\r\nContent-Type: x", (None, None)),
    ],
)
def test_a_plain_head_tells_its_framing(line, groups):
    head = f"HTTP/1.1 200 OK\r\n{line}\r\n\r\nbody".encode()
    assert grammar.PLAIN_HEAD.match(head).groups() == groups


@pytest.mark.parametrize(
    ("line", "groups"),
    [
        ("HTTP/1.1 200 OK\r\n", ("1", "200", "OK")),
        ("HTTP/1.0 404 Not Found\r\n", ("0", "404", "Not Found")),
        ("HTTP/1.9 999\r\n", ("9", "999", None)),
        ("HTTP/1.1 200 \n", ("1", "200", "")),
        ("HTTP/1.1  200 OK\r\n", None),
        ("HTTP/1.1\t200 OK\r\n", None),
        ("HTTP/1.1 200\tOK\r\n", None),
        ("HTTP/01.1 200 OK\r\n", None),
        ("HTTP/1.10 200 OK\r\n", None),
        ("HTTP/1 200 OK\r\n", None),
        ("HTTP/2.0 200 OK\r\n", None),
        ("Http/1.1 200 OK\r\n", None),
        (" HTTP/1.1 200 OK\r\n", None),
        ("HTTP/1.1 099 OK\r\n", None),
        ("HTTP/1.1 1000 OK\r\n", None),
        ("HTTP/1.1 20 OK\r\n", None),
        ("HTTP/1.1 2\u0660\u0660 OK\r\n", None),
        ("HTTP/1.1 200OK\r\n", None),
        ("HTTP/1.1 200 OK\r", None),
        ("HTTP/1.1 200 OK", None),
    ],
)
def test_status_lines(line, groups):
    match = grammar.STATUS_LINE.fullmatch(line)
    assert (match.groups() if match else None) == groups


@pytest.mark.parametrize(
    ("line", "size"),
    [
        (b"0\r\n", b"0"),
        (b"1aF\r\n", b"1aF"),
        (b"f" * 16 + b"\r\n", b"f" * 16),
        (b"5 \t\r\n", b"5"),
        (b"5;\r\n", b"5"),
        (b"5 ; a = b\r\n", b"5"),
        (b"5;a\xff\r\n", b"5"),
        (b"f" * 17 + b"\r\n", None),
        (b"\r\n", None),
        (b" 5\r\n", None),
        (b"5\n", None),
        (b"5\r", None),
        (b"5 a\r\n", None),
        (b"+5\r\n", None),
        (b"0x5\r\n", None),
        (b"5_0\r\n", None),
        (b"g\r\n", None),
        (b"5;a\rb\r\n", None),
        (b"5;a\nb\r\n", None),
        (b"5;a\0\r\n", None),
        (b"5;a\x7f\r\n", None),
    ],
)
def test_chunk_size_lines(line, size):
    match = grammar.CHUNK_SIZE_LINE.fullmatch(line)
    assert (match[1] if match else None) == size


@pytest.mark.parametrize(
    ("extension", "right"),
    [
        (b"", True),
        (b";a", True),
        (b" ; a = b", True),
        (b";a=b;c", True),
        (b';a="b;\\"c"', True),
        (b';a="b', False),
        (b";", False),
        (b";=b", False),
        (b";a=", False),
        (b";a b", False),
        (b" ", False),
    ],
)
def test_chunk_extensions_when_strict(extension, right):
    assert bool(grammar.STRICT_CHUNK_EXT.fullmatch(extension)) == right
    assert grammar.CHUNK_SIZE_LINE.fullmatch(b"5" + extension + b"\r\n")


def test_digits_are_ascii_and_at_most_19():
    for right in ("0", "00", "9" * 19):
        assert grammar.DIGITS.fullmatch(right)
    for wrong in ("", "+5", "-5", " 5", "5 ", "5_0", "0x5", "5.0", "\u0665", "\xb2", "9" * 20):
        assert not grammar.DIGITS.fullmatch(wrong)


# What is sent


def test_every_token_is_a_method():
    check_method(TCHARS)
    check_method("get")


@pytest.mark.parametrize("method", ["", "G T", "GET\r\n", "GET\0", "G\x7fT", "G(T", "GÉT", "GET "])
def test_what_is_no_method(method):
    text = "a method must be a token of letters, digits and !#$%&'*+-.^_`|~: "
    with pytest.raises(ValueError, match=re.escape(text + repr(method))):
        check_method(method)


def test_every_visible_ascii_character_may_stand_in_a_target():
    check_target("".join(map(chr, range(0x21, 0x7F))))


@pytest.mark.parametrize("char", [chr(i) for i in (*range(0x21), 0x7F)])
def test_no_other_ascii_character_may(char):
    text = f"URL can't contain control characters. {'/' + char!r} (found at least {char!r})"
    with pytest.raises(InvalidURL, match=re.escape(text)):
        check_target("/" + char)


@pytest.mark.parametrize("char", ["\x80", "é", "€"])
def test_a_target_is_ascii(char):
    with pytest.raises(UnicodeEncodeError):
        check_target("/" + char)


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "example.com.",
        "a_b.example",
        "127.0.0.1",
        "::1",
        "fe80::1%eth0",
        "fe80::1%25eth0",
        "::ffff:1.2.3.4",
        "bücher.example",
        "%41.example",
        "",
    ],
)
def test_hosts(host):
    check_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "a b",
        "a\r\nb",
        "a\0",
        "a\x7f",
        "user@host",
        "a/b",
        "a?b",
        "a#b",
        "a\\b",
        "[::1]",
        "[v1.x]",
        "a%zz",
        "<a>",
        "::1 ",
        "::g",
        "fe80::1%",
        "fe80::1%a b",
    ],
)
def test_what_is_no_host(host):
    with pytest.raises(
        InvalidURL, match=re.escape(f"not a host name or an IP address: {shown_refused(host)}")
    ):
        check_host(host)


@pytest.mark.parametrize(
    "value", ["a", "a:80", "a:", "127.0.0.1:80", "[::1]", "[::1]:80", "", "xn--bcher-kva.example"]
)
def test_host_fields(value):
    check_host_field(value)


@pytest.mark.parametrize(
    "value",
    [
        "a b",
        "a\r\nb",
        "u@a",
        "a/b",
        "a?b",
        "a#b",
        "a:80:80",
        "a:x",
        "::1",
        "a, b",
        "a\\b",
        "bücher",
    ],
)
def test_what_is_no_host_field(value):
    text = f"not a value for Host (host or host:port): {shown_refused(value)}"
    with pytest.raises(ValueError, match=re.escape(text)):
        check_host_field(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [("a", "a"), (b"\xe9", "é"), (bytearray(b"a"), "a"), (5, "5"), (-1, "-1"), (True, "True")],
)
def test_values_as_text(value, text):
    assert check_field("A", value) == ("A", text)


@pytest.mark.parametrize("value", [None, 1.5, ["a"], object])
def test_what_is_no_value(value):
    text = f"the value of A must be str, bytes or int, not {type(value).__name__}"
    with pytest.raises(TypeError, match=f"^{text}$"):
        check_field("A", value)


def test_fields_are_made_str():
    assert check_field(b"X-A", b"\xe9\tb") == ("X-A", "é\tb")
    assert check_field("X-A", 5) == ("X-A", "5")


@pytest.mark.parametrize("name", ["", "X A", "X:A", "X\r\nA", "X\0A", "X\xa0A", "É", b"X A"])
def test_a_name_that_may_not_be_sent(name):
    with pytest.raises(ValueError, match=r"Invalid header name .*: it must be a token \(RFC 9110"):
        check_field(name, "v")


def test_a_name_of_another_type():
    with pytest.raises(TypeError, match="a header name must be str or bytes, not int: 5"):
        check_field(5, "v")


@pytest.mark.parametrize("char", [chr(i) for i in (*range(9), *range(10, 32), 127)])
def test_a_value_that_may_not_be_sent(char):
    for value in (f"a{char}b", f"a{char}b".encode()):
        text = (
            f"Invalid header value of X-A (not shown): it has a control character, {char!r} in "
            "position 1"
        )
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
            check_field("X-A", value)


SECRET_NAMES = ["Authorization", "COOKIE", "X-Api-Key"]


@pytest.mark.parametrize("name", SECRET_NAMES)
@pytest.mark.parametrize("value", ["s3cret\n", b"s3cret\n", bytearray(b"s3cret\ns3cret\0")])
def test_a_secret_that_may_not_be_sent_is_not_shown(name, value):
    with pytest.raises(ValueError, match="Invalid header value") as info:
        check_field(name, value)
    assert str(info.value) == (
        f"Invalid header value of {name} (not shown): it has a control character, '\\n' in "
        "position 6"
    )


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_secret_of_another_type_or_charset_is_not_shown(name):
    text = f"the value of {name} must be str, bytes or int, not list"
    with pytest.raises(TypeError, match=f"^{text}$"):
        check_field(name, ["s3cret"])
    with pytest.raises(UnicodeEncodeError, match=f"'.u20ac' in position 6: .* {name} is") as info:
        check_field(name, "s3cret€€s3cret")
    assert "s3cret" not in f"{info.value!r} {info.value.object}"


def test_a_value_outside_latin_1():
    with pytest.raises(UnicodeEncodeError):
        check_field("X-A", "€")
