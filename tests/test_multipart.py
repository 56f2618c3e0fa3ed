"""client/content/multipart.py: a form on the wire, the refusals, and its cost."""

from __future__ import annotations

import array
import asyncio
import email.parser
import email.policy
import io
import mmap
import os
import re
import socket
import tempfile
import tracemalloc
from enum import Enum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttpconn import HTTPConnection
from aiohttpconn.client.content import multipart
from aiohttpconn.client.content.encode import encode_content
from aiohttpconn.client.content.multipart import MultipartBody, encode_multipart
from aiohttpconn.exceptions import BodyLengthError

from .support import ScriptedServer, expect, notify, send, wait

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
TOO_LARGE = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!"
BIG = bytes(range(256)) * 1024  # 256 KiB: more than goes out in one piece


class ReadingAsync:
    def __init__(self, *pieces) -> None:
        self.pieces = list(pieces)

    async def read(self, n):
        await asyncio.sleep(0)
        return self.pieces.pop(0) if self.pieces else b""


class OwnRead(io.FileIO):
    """A regular file that may read something else than its bytes: it is asked."""

    def read(self, n=-1):
        return super().read(n)


async def gathered(body) -> bytes:
    """Return what *body* sends."""
    if isinstance(body, MultipartBody):
        return b"".join([bytes(block) async for block in body])
    return body if isinstance(body, bytes) else b"".join(body)


def form(files, fields=(), boundary="B"):
    return encode_multipart(fields, files, boundary)


async def encoded(files, fields=()) -> bytes:
    """Return the parts of the form, without what is around them."""
    data = await gathered(form(files, fields)[0])
    assert data.startswith(b"--B\r\n")
    assert data.endswith(b"\r\n--B--\r\n")
    return data[5:-9]


def fields_of(content, port: int) -> bytes:
    """Return the head of a request with *content*."""
    length = b"Transfer-Encoding: chunked\r\n"
    if content.length is not None:
        length = b""
    elif isinstance(content.body, bytes):
        length = b"Content-Length: %d\r\n" % len(content.body)
    head = b"POST /x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept-Encoding: identity\r\n" % port
    head += length + b"Content-Type: %b\r\n" % content.content_type.encode()
    if content.length is not None:
        head += b"Content-Length: %d\r\n" % content.length
    return head + b"\r\n"


async def post(conn, content) -> None:
    headers = {"Content-Type": content.content_type}
    if content.length is not None:
        headers["Content-Length"] = str(content.length)
    await conn.request("POST", "/x", content.body, headers)


def parsed(content_type: str, data: bytes) -> list:
    """Take a form apart with the standard library's parser of mail."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + data)
    assert not message.defects
    return list(message.iter_parts())


# ---------------------------------------------------------------------------- the bytes

WIRE = {
    "bytes": (
        b"abc",
        b'name="f"; filename="f"\r\nContent-Type: application/octet-stream\r\n\r\nabc',
    ),
    "empty": (
        b"",
        b'name="f"; filename="f"\r\nContent-Type: application/octet-stream\r\n\r\n',
    ),
    "str": (
        "10 €",
        b'name="f"; filename="f"\r\nContent-Type: application/octet-stream\r\n\r\n10 \xe2\x82\xac',
    ),
    "bytearray": (
        bytearray(b"abc"),
        b'name="f"; filename="f"\r\nContent-Type: application/octet-stream\r\n\r\nabc',
    ),
    "array": (
        array.array("H", [1, 2]),
        b'name="f"; filename="f"\r\nContent-Type: application/octet-stream\r\n\r\n\1\0\2\0',
    ),
    "filename": (
        ("a.txt", b"abc"),
        b'name="f"; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\nabc',
    ),
    "no filename": ((None, b"abc"), b'name="f"\r\n\r\nabc'),
    "no filename, a type": (
        (None, '{"a":1}', "application/json"),
        b'name="f"\r\nContent-Type: application/json\r\n\r\n{"a":1}',
    ),
    "compressed": (
        ("a.tar.gz", b"abc"),
        b'name="f"; filename="a.tar.gz"\r\nContent-Type: application/octet-stream\r\n\r\nabc',
    ),
    "content type": (
        ("a.txt", b"abc", "text/x; a=b"),
        b'name="f"; filename="a.txt"\r\nContent-Type: text/x; a=b\r\n\r\nabc',
    ),
    "headers": (
        ("a.txt", b"abc", None, {"X-A": "caf\xe9", "X-B": 5}),
        b'name="f"; filename="a.txt"\r\nContent-Type: text/plain\r\n'
        b"X-A: caf\xe9\r\nX-B: 5\r\n\r\nabc",
    ),
    "a content type among the headers": (
        ("a.txt", b"abc", None, [("X", "1"), ("content-type", "text/y")]),
        b'name="f"; filename="a.txt"\r\nX: 1\r\ncontent-type: text/y\r\n\r\nabc',
    ),
    "BytesIO": (
        io.BytesIO(b"abc"),
        b'name="f"; filename="f"\r\nContent-Type: application/octet-stream\r\n\r\nabc',
    ),
}


@pytest.mark.parametrize("case", WIRE)
async def test_a_small_form_in_memory_is_one_bytes_object(case):
    value, expected = WIRE[case]
    body, content_type, length = form({"f": value})
    assert body == b"--B\r\nContent-Disposition: form-data; " + expected + b"\r\n--B--\r\n"
    assert (type(body), content_type, length) == (
        bytes,
        "multipart/form-data; boundary=B",
        len(body),
    )


async def test_fields_stand_before_files_and_names_may_repeat(scripted):
    content = encode_content(
        data=[("a", "1"), ("b", ["x", None, 2]), ("c", True), ("d", b"\xff\x00"), ("e", "é")],
        files=[("f", b"one"), ("f", ("2", b"two"))],
        boundary="B",
    )
    assert content.length is None  # the connection finds it
    octets = b"Content-Type: application/octet-stream\r\n\r\n"
    async with scripted(OK) as conn:
        await post(conn, content)
        await (await conn.getresponse()).read()
        assert scripted.server.received == [
            fields_of(content, conn.port) + b"--B\r\n"
            b'Content-Disposition: form-data; name="a"\r\n\r\n1\r\n--B\r\n'
            b'Content-Disposition: form-data; name="b"\r\n\r\nx\r\n--B\r\n'
            b'Content-Disposition: form-data; name="b"\r\n\r\n2\r\n--B\r\n'
            b'Content-Disposition: form-data; name="c"\r\n\r\ntrue\r\n--B\r\n'
            b'Content-Disposition: form-data; name="d"\r\n\r\n\xff\x00\r\n--B\r\n'
            b'Content-Disposition: form-data; name="e"\r\n\r\n\xc3\xa9\r\n--B\r\n'
            b'Content-Disposition: form-data; name="f"; filename="f"\r\n' + octets + b"one"
            b'\r\n--B\r\nContent-Disposition: form-data; name="f"; filename="2"\r\n'
            + octets
            + b"two\r\n--B--\r\n"
        ]


async def test_a_file_goes_out_with_a_length(scripted, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        file.seek(4)
        content = encode_content(files={"f": file, "g": path}, boundary="B")
        assert content.length == 213
        async with scripted(OK) as conn:
            await post(conn, content)
            await (await conn.getresponse()).read()
            part = b'; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\n'
            assert scripted.server.received == [
                fields_of(content, conn.port)
                + b'--B\r\nContent-Disposition: form-data; name="f"'
                + part
                + b'456789\r\n--B\r\nContent-Disposition: form-data; name="g"'
                + part
                + b"0123456789\r\n--B--\r\n"
            ]
        assert file.tell() == 10


async def test_an_object_with_an_async_read_makes_chunks(scripted, tmp_path):
    content = encode_content(files={"f": (None, ReadingAsync(b"ab", b"c"))}, boundary="B")
    assert (content.length, content.can_replay) == (None, False)
    async with scripted(OK) as conn:
        await post(conn, content)
        await (await conn.getresponse()).read()
        assert scripted.server.received == [
            fields_of(content, conn.port)
            + b'31\r\n--B\r\nContent-Disposition: form-data; name="f"\r\n\r\n\r\n'
            b"2\r\nab\r\n"
            b"1\r\nc\r\n"
            b"9\r\n\r\n--B--\r\n\r\n"
            b"0\r\n\r\n"
        ]


async def test_a_form_without_anything_is_its_last_line():
    assert form({})[0] == b"--B--\r\n"
    assert form([], [("a", "1")])[0] == (
        b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--B--\r\n'
    )


@pytest.mark.parametrize(
    ("value", "filename"),
    [
        ("{path}/d/a.txt", "a.txt"),
        (b"{path}/d/b.txt", "b.txt"),
        ("<stdin>", "<stdin>"),
        (3, "f"),
        (None, "f"),
        ("", "f"),
        ("d/", "f"),
    ],
)
async def test_a_file_brings_the_last_part_of_its_name(value, filename):
    file = ReadingAsync()
    file.name = value
    assert b'; filename="%b"\r\n' % filename.encode() in await encoded({"f": file})


async def test_a_path_may_have_bytes_that_are_no_text(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt"))
    path.write_bytes(b"x")
    assert b'; filename="\xff.txt"\r\nContent-Type: text/plain\r\n' in await encoded({"f": path})


@pytest.mark.parametrize("name", ["data:text/html,x", "//[x.txt", "http://[", "x/data:a/b,", "a;b"])
async def test_a_filename_is_no_url(name):
    """``mimetypes`` would find the type in the first, and raise for the second."""
    kind = b"text/plain" if name.endswith(".txt") else b"application/octet-stream"
    assert b"\r\nContent-Type: %b\r\n\r\n" % kind in await encoded({"f": (name, b"")})


# -------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ('a"b', b"a%22b"),
        ("a\r\nb", b"a%0D%0Ab"),
        ('x"\r\n\r\n--B\r\nContent-Disposition: form-data; name="y', b"x%22%0D%0A%0D%0A--B%0D%0A"),
        ("日本.txt", "日本.txt".encode()),
        ("a\\b%22\t;\x85\u2028", "a\\b%22\t;\x85\u2028".encode()),
        ("", b""),
    ],
)
async def test_names_are_escaped_as_browsers_do(name, shown):
    data = await encoded([(name, (name, b""))], [(name, "v")])
    assert data.count(b'name="' + shown) == 3  # the field, the file, its filename
    assert data.count(b"\n--B\r\n") == 1
    assert data.count(b"\r\n") == 2 + 1 + 1 + 3


@pytest.mark.parametrize("char", [*map(chr, range(32)), "\x7f"])
def test_other_control_characters_in_names_are_refused(char):
    if char in "\t\r\n":
        return
    name = f"a{char}b"
    text = f"a name in a form must not have control characters: {name!r} has {char!r}"
    for make in (
        lambda: form([], [(name, "x")]),
        lambda: form({name: b""}),
        lambda: form({"f": (name, b"")}),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
            make()


@pytest.mark.parametrize("code", [0xD800, 0xDC0A, 0xDC22, 0xDC7F], ids=hex)
def test_a_name_that_is_no_text_is_refused(code):
    """Only surrogates that encode non-ASCII bytes of file names pass."""
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
        form({chr(code): b""})


class Kind(str, Enum):  # noqa: UP042 - a StrEnum formats itself as its value
    ONE = "one"


async def test_an_enum_of_str_is_its_value():
    assert await encoded([], [(Kind.ONE, Kind.ONE)]) == (
        b'Content-Disposition: form-data; name="one"\r\n\r\none'
    )
    content = encode_content(data={Kind.ONE: Kind.ONE}, files={Kind.ONE: b""}, boundary="B")
    assert content.body.count(b'"one"') == 3
    assert b"\r\n\r\none\r\n" in content.body


# ------------------------------------------------------------------------ refused parts


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (("a", b"", "text/plain\r\nX: y"), "Invalid header value of Content-Type (not shown)"),
        (("a", b"", "text\0"), "Invalid header value of Content-Type (not shown)"),
        (("a", b"", "€"), "'latin-1' codec can't encode character '\\u20ac' in position 0"),
        (("a", b"", None, {"X": "a\r\n\r\nb"}), "Invalid header value of X (not shown)"),
        (("a", b"", None, {"X": "a\nb"}), "Invalid header value of X (not shown)"),
        (("a", b"", None, {"X: y\r\nZ": "a"}), "Invalid header name 'X: y\\r\\nZ'"),
        (("a", b"", None, {"": "a"}), "Invalid header name ''"),
        (
            ("a", b"", None, {"content-Disposition": "x"}),
            "the headers of the file 'f' must not have a Content-Disposition: "
            "the client makes it of the name and the filename",
        ),
        (
            ("a", b"", "a/b", {"content-type": "x"}),
            "the file 'f' has two content types, one of them in its headers: give one",
        ),
    ],
)
def test_a_part_head_that_may_not_be_sent_is_a_value_error(value, text):
    with pytest.raises(ValueError) as info:  # noqa: PT011 - the text is asserted below
        form({"f": value})
    assert str(info.value).startswith(text)


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (5, "files= must be a mapping or pairs of name and value, got int"),
        ([b"abc"], "files= must be a mapping or pairs of name and value, got a bytes in place of"),
        (["ab"], "files= must be a mapping or pairs of name and value, got a str in place of"),
        ([("a", b"", "x")], "files= must be a mapping or pairs of name and value, got a tuple in"),
        (io.BytesIO(b"a"), "files= must be a mapping or pairs of name and value, got BytesIO; con"),
        ({5: b""}, "a name in files= must be a str, not int: 5"),
        ({b"a": b""}, "a name in files= must be a str, not bytes: b'a'"),
        (
            {"f": None},
            "the file 'f' must be a file, bytes-like, str, a path or a tuple, got NoneType",
        ),
        ({"f": ["a", b""]}, "the file 'f' must be a file, bytes-like, str, a path or a tuple, got"),
        ({"f": ("a", ("b", b""))}, "the file 'f' must be a file, bytes-like, str, a path or a t"),
        ({"f": (b"",)}, "the file 'f' must be (filename, content[, content type[, headers]]), go"),
        ({"f": ("a", b"", "", {}, 5)}, "the file 'f' must be (filename, content[, content type["),
        ({"f": (b"a", b"")}, "the filename of the file 'f' must be a str or None, not bytes"),
        ({"f": ("a", b"", 5)}, "the content type of the file 'f' must be a str or None, not int"),
        ({"f": ("a", b"", None, {"X": []})}, "the value of X must be str, bytes or int, not list"),
        (
            {"f": io.StringIO("a")},
            "the file 'f' is a text file: open it in binary mode, or read it into a str",
        ),
    ],
)
def test_what_is_no_file_is_a_type_error(files, text):
    with pytest.raises(TypeError) as info:
        form(files)
    assert str(info.value).startswith(text)


@pytest.mark.parametrize("mode", ["r", "w", "r+"])
def test_text_files_are_refused(tmp_path, mode):
    (tmp_path / "a").write_bytes(b"abc")
    with (tmp_path / "a").open(mode) as file:
        with pytest.raises(TypeError, match=r"^the file 'f' is a text file: open it in binary"):
            form({"f": file})
    with tempfile.NamedTemporaryFile(mode + ("" if "+" in mode else "+")) as file:
        with pytest.raises(TypeError, match=r"^the file 'f' is a text file: open it in binary"):
            form({"f": file})


def test_files_that_cannot_be_read_are_refused(tmp_path):
    path = tmp_path / "a"
    with path.open("wb") as file:
        text = "^the file 'f' is a file that is not open for reading: open it with 'rb'$"
        with pytest.raises(ValueError, match=text):
            form({"f": file})
    with pytest.raises(ValueError, match=r"^the file 'f' is a closed file$"):
        form({"f": file})
    closed = io.BytesIO()
    closed.close()
    with pytest.raises(ValueError, match=r"^the file 'f' is a closed file$"):
        form({"f": closed})


def test_paths_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        form({"f": tmp_path / "missing"})
    with pytest.raises(ValueError, match=r"^the file 'f' is not a regular file: '/.*'$"):
        form({"f": tmp_path})
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match=r"^the file 'f' is not a regular file: '/.*/fifo'$"):
        form({"f": tmp_path / "fifo"})


# --------------------------------------------------------------------------- boundaries


def test_the_boundary_is_random():
    types = [encode_multipart([], {})[1] for _ in range(100)]
    assert len(set(types)) == 100
    assert all(re.fullmatch(r"multipart/form-data; boundary=[0-9a-f]{32}", kind) for kind in types)


@pytest.mark.parametrize("boundary", ["a", "a" * 70, "a b", "'()+_,-./:=?", "0", "-"])
def test_a_boundary_may_be_given(boundary):
    body, content_type, _ = encode_multipart([("a", "v")], {}, boundary)
    assert body.startswith(b"--%b\r\n" % boundary.encode())
    assert body.endswith(b"\r\n--%b--\r\n" % boundary.encode())
    (part,) = parsed(content_type, body)
    assert part.get_payload(decode=True) == b"v"


@pytest.mark.parametrize(
    "boundary", ["", " ", "a ", "a" * 71, 'a"', "a\r\nb", "a\n", "é", "a;b", "a\\", "a\0", "a@b"]
)
def test_a_boundary_that_rfc_2046_does_not_allow_is_refused(boundary):
    with pytest.raises(ValueError) as info:  # noqa: PT011 - the text is asserted below
        encode_multipart([], {}, boundary)
    assert str(info.value) == (
        "a boundary must be 1 to 70 letters, digits, blanks and '()+_,-./:=?, and not end "
        f"with a blank (RFC 2046 §5.1.1): {boundary!r}"
    )


# ---------------------------------------------------------------- an independent parser

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SENDABLE = NAMES.filter(lambda name: not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", name))


@given(
    fields=st.lists(st.tuples(SENDABLE, st.one_of(SENDABLE, st.binary(max_size=20))), max_size=3),
    files=st.lists(st.tuples(SENDABLE, SENDABLE, st.binary(max_size=50)), max_size=3),
)
def test_any_name_and_content_is_one_part_for_another_parser(fields, files):
    if not fields and not files:
        return
    given = [(name, (filename, content)) for name, filename, content in files]
    body, content_type, _ = encode_multipart(fields, given)
    parts = parsed(content_type, body)
    values = [v.encode() if isinstance(v, str) else v for _, v in fields]
    assert [part.get_payload(decode=True) for part in parts] == [*values, *(c for _, _, c in files)]
    assert [part.keys() for part in parts] == [
        *[["Content-Disposition"] for _ in fields],
        *[["Content-Disposition", "Content-Type"] for _ in files],
    ]


@given(NAMES)
def test_any_name_is_refused_or_stays_within_its_quotes(name):
    try:
        body, _, _ = form({name: (name, b"")})
    except ValueError:
        assert re.search(r"[\x00-\x1f\x7f]", name)
        return
    line = body.split(b"\r\n")[1]
    match = re.fullmatch(
        rb'Content-Disposition: form-data; name="([^"\r\n]*)"; filename="([^"\r\n]*)"', line
    )
    assert match is not None
    assert match[1] == match[2]
    assert match[1].decode() == name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    assert body.count(b"\r\n") == 6


# ---------------------------------------------------------------------------- streaming


async def test_much_memory_is_not_copied():
    body, _, length = form([("a", b"small"), ("b", BIG), ("c", ("c", b"x")), ("d", BIG)])
    assert (type(body), length) == (list, len(b"".join(body)))
    assert [piece is BIG for piece in body] == [False, True, False, True, False]


async def test_small_contents_are_joined():
    body, _, length = form([(str(i), bytes(30_000)) for i in range(7)])
    assert [len(piece) // 30_000 for piece in body] == [3, 3, 1]
    assert length == len(b"".join(body))


@pytest.mark.parametrize("size", [65536 - 58, 65536 - 57])
def test_up_to_64_kib_are_one_bytes_object(size):
    body, _, length = form([], [("a", bytes(size))])
    assert (type(body), length) == (bytes if length <= 65536 else list, size + 58)


async def test_a_bytearray_is_not_locked(scripted):
    memory = bytearray(BIG)
    content = encode_content(files={"f": (None, memory)}, boundary="B")
    memory += b"x"
    memory.pop()
    async with scripted(OK) as conn:
        await post(conn, content)
        await (await conn.getresponse()).read()
        assert scripted.server.received[0].endswith(b"\r\n\r\n" + BIG + b"\r\n--B--\r\n")
    memory += b"x"
    assert content.can_replay


def opened(path):
    """Return files of all kinds that stand at byte 3 of the bytes of *path*."""
    data = path.read_bytes()
    temporary = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed by its user
    spooled = tempfile.SpooledTemporaryFile()  # noqa: SIM115
    for file in (temporary, spooled):
        file.write(data)
        file.flush()
    files = [path.open("rb"), path.open("rb", buffering=0), OwnRead(path), temporary, spooled]
    with path.open("rb") as file:
        files.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    files += [path.open("r+b"), type("Own", (io.BytesIO,), {})(data), io.BytesIO(data)]
    files += [io.BufferedReader(io.BytesIO(data))]
    for file in files:
        file.seek(3)
    return files


@pytest.mark.parametrize("index", range(10))
async def test_files_are_read_from_their_position_each_time(tmp_path, index):
    path = tmp_path / "a"
    path.write_bytes(BIG)
    files = opened(path)
    body, _, length = form({"f": (None, files[index])})
    head = b'--B\r\nContent-Disposition: form-data; name="f"\r\n\r\n'
    expected = head + BIG[3:] + b"\r\n--B--\r\n"
    assert length == len(expected)
    assert await gathered(body) == expected
    if isinstance(body, MultipartBody):
        assert body.can_replay
        body.rewind()
        assert await gathered(body) == expected
        files[index].close()
        assert not body.can_replay
    for file in files:
        file.close()


async def test_a_form_is_sent_again(scripted, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    with OwnRead(path) as file:
        file.seek(3)
        content = encode_content(files={"f": file}, boundary="B")
        async with scripted(OK, OK) as conn:
            await post(conn, content)
            await (await conn.getresponse()).read()
            assert content.replay() is content.body
            await post(conn, content)
            await (await conn.getresponse()).read()
            (received,) = scripted.server.received
    assert received[: len(received) // 2] * 2 == received
    assert received.endswith(b"\r\n\r\n3456789\r\n--B--\r\n")


async def test_the_same_file_may_be_given_twice(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(BIG)
    with path.open("rb") as file:
        body, _, length = form({"f": file, "g": file})
        data = await gathered(body)
        assert data.count(BIG) == 2
        assert len(data) == length


async def test_a_path_is_open_only_while_it_is_read(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(BIG)

    def descriptors():
        return sum(os.path.realpath(f"/dev/fd/{fd}") == str(path) for fd in os.listdir("/dev/fd"))

    body, _, _ = form({"f": path, "g": b""})
    assert descriptors() == 0
    blocks = aiter(body)
    await anext(blocks)
    assert descriptors() == 0
    await anext(blocks)
    assert descriptors() == 1
    await blocks.aclose()
    assert descriptors() == 0
    assert body.can_replay
    assert len(await gathered(body)) == body.length
    assert descriptors() == 0


def sparse(path, size):
    with path.open("wb") as file:
        file.truncate(size)


def forgetting(listener) -> int:
    """Serve one request; return the size of its body."""
    memory = bytearray(1 << 18)
    with listener.accept()[0] as sock:
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(4096)
        length = int(re.search(rb"Content-Length: (\d+)", head)[1])
        left = length - len(head.partition(b"\r\n\r\n")[2])
        while left:
            left -= sock.recv_into(memory)
        sock.sendall(OK)
    return length


@pytest.mark.parametrize("by_path", [False, True], ids=["file", "path"])
async def test_a_file_of_64_mib_takes_few(tmp_path, by_path):
    path = tmp_path / "a"
    sparse(path, 64 * 1024 * 1024)
    with socket.create_server(("127.0.0.1", 0)) as listener, path.open("rb") as file:
        serving = asyncio.get_running_loop().run_in_executor(None, forgetting, listener)
        async with HTTPConnection("127.0.0.1", listener.getsockname()[1]) as conn:
            await conn.connect()
            tracemalloc.start()
            try:
                content = encode_content(files={"f": path if by_path else file})
                await post(conn, content)
                await (await conn.getresponse()).read()
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert await serving == content.length > 64 * 1024 * 1024
    # The block read, its copy for the transport, and the server's own.
    assert peak < 4_500_000


# -------------------------------------------------------------------- files that change


@pytest.mark.parametrize("by_path", [False, True], ids=["file", "path"])
@pytest.mark.parametrize("now", [0, 100, 300_000])
async def test_a_file_that_shrinks_ends_the_request(tmp_path, by_path, now):
    path = tmp_path / "a"
    path.write_bytes(BIG * 2)
    async with ScriptedServer([expect()]) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            with path.open("rb") as file:
                content = encode_content(files={"f": path if by_path else file}, boundary="B")
                os.truncate(path, now)
                with pytest.raises(BodyLengthError) as info:
                    await post(conn, content)
    assert (
        f"the file 'f' has fewer bytes than the 524288 it had when the request was made: {now} "
        "were read"
    ) in str(info.value)
    # What would have made it look whole is not there.
    assert b"--B--" not in server.received[0]
    assert server.received[0].count(b"--B") == 1


@pytest.mark.parametrize("by_path", [False, True], ids=["file", "path"])
async def test_a_file_that_grows_has_the_length_announced(scripted, tmp_path, by_path):
    path = tmp_path / "a"
    path.write_bytes(BIG)
    with path.open("rb") as file:
        content = encode_content(files={"f": (None, path if by_path else file)}, boundary="B")
        with path.open("ab") as other:
            other.write(b"more")
        async with scripted(OK) as conn:
            await post(conn, content)
            await (await conn.getresponse()).read()
            assert scripted.server.received[0].endswith(b"\r\n\r\n" + BIG + b"\r\n--B--\r\n")


async def test_of_memory_that_grows_nothing_more_is_sent():
    memory = bytearray(BIG)
    body, _, _ = form({"f": memory})
    memory += b"more"
    sent = []
    text = "^the file 'f' has more bytes than the 262144 it had when the request was made: 262148"
    with pytest.raises(BodyLengthError, match=text):
        async for block in body:
            sent.append(bytes(block))  # noqa: PERF401 - it raises, and what came before counts
    assert len(sent) == 1
    assert sent[0].endswith(b"\r\n\r\n")


async def test_a_file_closed_meanwhile_is_an_error(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(BIG)
    with path.open("rb") as file:
        body, _, _ = form({"f": file})
    assert not body.can_replay
    with pytest.raises(ValueError, match="closed file"):
        await gathered(body)


# ------------------------------------------------------------------------------ endings


@pytest.mark.parametrize("by_path", [False, True], ids=["file", "path"])
async def test_an_early_answer_leaves_a_form_that_can_be_sent_again(tmp_path, by_path):
    path = tmp_path / "a"
    sparse(path, 8 * 1024 * 1024)
    first = [expect(), send(TOO_LARGE)]
    seen = asyncio.Event()
    with path.open("rb") as file:
        content = encode_content(files={"f": path if by_path else file}, boundary="B")
        async with ScriptedServer(first, [expect(), notify(seen)], receive_buffer=4096) as server:
            async with HTTPConnection(server.host, server.port) as conn:
                await post(conn, content)
                assert (await conn.getresponse()).status == 413
        assert content.can_replay
        data = b"".join([bytes(block) async for block in content.replay()])
        assert len(data) == content.length


async def test_a_cancelled_upload_closes_its_path(tmp_path):
    path = tmp_path / "a"
    sparse(path, 8 * 1024 * 1024)
    arrived, never = asyncio.Event(), asyncio.Event()
    script = [expect(), notify(arrived), wait(never)]
    async with ScriptedServer(script, receive_buffer=4096) as server:
        async with HTTPConnection(server.host, server.port) as conn:
            task = asyncio.ensure_future(post(conn, encode_content(files={"f": path})))
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        never.set()


def test_modules_for_files_are_loaded_when_there_are_files():
    assert not {"mimetypes", "secrets"} & set(vars(multipart))
