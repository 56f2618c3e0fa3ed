"""client/content/encode.py: the bodies of content, json, data and files, and their resending."""

from __future__ import annotations

import array
import asyncio
import collections
import gzip
import io
import json
import math
import mmap
import os
import re
import socket
import subprocess
import sys
import tempfile
import urllib.parse
from decimal import Decimal
from enum import Enum, IntEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttpconn import HTTPConnection
from aiohttpconn.client.content.encode import UNSET, encode_content
from aiohttpconn.exceptions import BodyLengthError
from aiohttpconn.params import PARAM_TYPES, add_params

from .support import ScriptedServer, expect, send
from .support.ids import shown

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
FORM = "application/x-www-form-urlencoded"
SMALL_BUFFER = [(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)]
CHUNKED = b"Transfer-Encoding: chunked\r\n"


class ReadAsync:
    def __init__(self, *pieces) -> None:
        self.pieces = list(pieces)

    async def read(self, n):
        await asyncio.sleep(0)
        return self.pieces.pop(0) if self.pieces else b""


class Fresh:
    """Its ``__iter__`` gives a new iterator each time."""

    def __init__(self, *items) -> None:
        self.items = items
        self.asked = 0

    def __iter__(self):
        self.asked += 1
        yield from self.items


class Shared:
    """No iterator itself, and all its iterators are one."""

    def __init__(self, *items) -> None:
        self.iterator = iter(items)

    def __iter__(self):
        return self.iterator


class Words(str, Enum):  # noqa: UP042 - a StrEnum formats itself as its value
    ONE = "one"


class Numbers(IntEnum):
    TWO = 2


async def agen(*items):
    for item in items:
        await asyncio.sleep(0)
        yield item


async def post(conn, content, body=None) -> None:
    headers = {}
    if content.content_type is not None:
        headers["Content-Type"] = content.content_type
    if content.length is not None:
        headers["Content-Length"] = str(content.length)
    await conn.request("POST", "/x", content.body if body is None else body, headers)
    assert await (await conn.getresponse()).read() == b"hi"


def head(port: int, framing: bytes, content_type: str | None, late: bytes = b"") -> bytes:
    """Return a request's head; *late* puts the client's Content-Length after the type."""
    kind = b"" if content_type is None else b"Content-Type: %b\r\n" % content_type.encode()
    return (
        b"POST /x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept-Encoding: identity\r\n" % port
        + framing
        + kind
        + late
        + b"\r\n"
    )


def expect_body():
    """Read as many bytes as the last head has announced."""

    async def step(server):
        length = re.search(rb"Content-Length: (\d+)", server.heads[-1])
        await server.read_exactly(int(length[1]))

    return step


# ----------------------------------------------------------------------------- the wire

TEXT = "text/plain; charset=utf-8"
IN_MEMORY = {
    "nothing": ({}, None, b""),
    "bytes": ({"content": b"abc"}, None, b"abc"),
    "no bytes": ({"content": b""}, None, b""),
    "str": ({"content": "10 €"}, TEXT, b"10 \xe2\x82\xac"),
    "no str": ({"content": ""}, TEXT, b""),
    "str that is an Enum": ({"content": Words.ONE}, TEXT, b"one"),
    "bytearray": ({"content": bytearray(b"abc")}, None, b"abc"),
    "memoryview": ({"content": memoryview(b"xabcx")[1:4]}, None, b"abc"),
    "array": ({"content": array.array("H", [1, 2])}, None, b"\1\0\2\0"),
    "BytesIO": ({"content": io.BytesIO(b"abc")}, None, b"abc"),
    "json": ({"json": {"a": [1, None, "é"]}}, "application/json", b'{"a":[1,null,"\xc3\xa9"]}'),
    "json null": ({"json": None}, "application/json", b"null"),
    "json empty": ({"json": {}}, "application/json", b"{}"),
    "json with dumps, str": (
        {"json": 1, "dumps": lambda value: f"<é{value}>"},
        "application/json",
        b"<\xc3\xa91>",
    ),
    "json with dumps, bytes": ({"json": 1, "dumps": lambda v: b"<1>"}, "application/json", b"<1>"),
    "data": ({"data": {"a": "b c", "é": "&="}}, FORM, b"a=b+c&%C3%A9=%26%3D"),
    "data, pairs": ({"data": [("a", "1"), ["a", "2"]]}, FORM, b"a=1&a=2"),
    "data, an iterable": ({"data": {"a": "1", "b": "2"}.items()}, FORM, b"a=1&b=2"),
    "data, lists": ({"data": {"a": ["1", 2, None], "b": (), "c": None}}, FORM, b"a=1&a=2"),
    "data, none": ({"data": {}}, FORM, b""),
    "data, others": (
        {"data": {"a": True, "b": False, "c": 1.5, "d": Numbers.TWO, "e": b"\xff", "f": Words.ONE}},
        FORM,
        b"a=true&b=false&c=1.5&d=2&e=%FF&f=one",
    ),
    "data, bytes": ({"data": b"a=b"}, FORM, b"a=b"),
    "data, bytearray": ({"data": bytearray(b"a=b")}, FORM, b"a=b"),
    "data, str": ({"data": "a=é"}, FORM, b"a=\xc3\xa9"),
}


@pytest.mark.parametrize("case", IN_MEMORY)
async def test_what_is_in_memory_is_sent_with_its_length_and_again(scripted, case):
    arguments, content_type, expected = IN_MEMORY[case]
    content = encode_content(**arguments)
    assert (content.content_type, content.length, content.can_replay) == (content_type, None, True)
    async with scripted(OK, OK) as conn:
        await post(conn, content)
        await post(conn, content, content.replay())
        framing = b"Content-Length: %d\r\n" % len(expected)
        request = head(conn.port, framing, content_type) + expected
        assert scripted.server.received == [request * 2]


def test_nothing_has_no_body():
    content = encode_content()
    assert (content.body, content.content_type, content.replay()) == (None, None, None)


IN_CHUNKS = {
    "generator": (lambda: (item for item in (b"ab", b"", b"c")), False),
    "async generator": (lambda: agen(b"ab", b"", b"c"), False),
    "iterator": (lambda: iter([b"ab", b"c"]), False),
    "map": (lambda: map(bytes, [b"ab", b"c"]), False),
    "iterable whose iterators are one": (lambda: Shared(b"ab", b"c"), False),
    "async read": (lambda: ReadAsync(b"ab", b"c"), False),
    "iterable": (lambda: Fresh(b"ab", b"c"), True),
    "deque": (lambda: collections.deque([b"ab", bytearray(b"c")]), True),
}


@pytest.mark.parametrize("case", IN_CHUNKS)
async def test_what_is_made_on_the_way_is_sent_in_chunks(scripted, case):
    make, again = IN_CHUNKS[case]
    content = encode_content(content=make())
    assert (content.content_type, content.length, content.can_replay) == (None, None, again)
    async with scripted(OK, OK) as conn:
        await post(conn, content)
        if again:
            await post(conn, content, content.replay())
        request = head(conn.port, CHUNKED, None) + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
        assert scripted.server.received == [request * (1 + again)]


@pytest.mark.parametrize(
    ("items", "sent"),
    [
        ([b"ab", bytearray(), memoryview(b"c"), array.array("H", [1])], b"abc\1\0"),
        ((b"ab",), b"ab"),
        ([], b""),
        ((), b""),
    ],
    ids=["list", "tuple", "empty list", "empty tuple"],
)
async def test_a_list_has_a_length(scripted, items, sent):
    given = items if isinstance(items, tuple) else items.copy()
    content = encode_content(content=given)
    assert (content.length, content.can_replay) == (len(sent), True)
    if isinstance(given, list):
        given.append(b"too late")
    async with scripted(OK, OK) as conn:
        await post(conn, content)
        await post(conn, content, content.replay())
        late = b"Content-Length: %d\r\n" % len(sent)
        assert scripted.server.received == [(head(conn.port, b"", None, late) + sent) * 2]


def opened(path):
    """Return files of all kinds that stand at byte 3."""
    files = [path.open("rb"), path.open("rb", buffering=0), path.open("r+b")]
    temporary = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed by its user
    temporary.write(path.read_bytes())
    temporary.flush()
    files.append(temporary)
    for file in files:
        file.seek(3)
    return files


@pytest.mark.parametrize("index", range(4))
async def test_a_regular_file_is_sent_from_its_position_each_time(scripted, tmp_path, index):
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    files = opened(path)
    content = encode_content(content=files[index])
    assert (content.body, content.length, content.can_replay) == (files[index], None, True)
    async with scripted(OK, OK) as conn:
        await post(conn, content)
        assert files[index].tell() == 10
        await post(conn, content, content.replay())
        request = head(conn.port, b"Content-Length: 7\r\n", None) + b"3456789"
        assert scripted.server.received == [request * 2]
    for file in files:
        file.close()
    assert not content.can_replay


class Seeks:
    """An object that reads, seeks, tells and closes, and is no class of io."""

    def __init__(self, data):
        self._file = io.BytesIO(data)

    def __getattr__(self, name):
        return getattr(self._file, name)


def unusual(path):
    """Return files that are read as they are, at byte 3; of the last one nobody knows the size."""
    spooled = tempfile.SpooledTemporaryFile()  # noqa: SIM115 - closed by its user
    spooled.write(path.read_bytes())
    with gzip.open(path.with_suffix(".gz"), "wb") as file:
        file.write(path.read_bytes())
    files = [
        spooled,
        type("Own", (io.BytesIO,), {})(path.read_bytes()),
        io.BufferedReader(io.BytesIO(path.read_bytes())),
        Seeks(path.read_bytes()),
        gzip.open(path.with_suffix(".gz"), "rb"),  # noqa: SIM115
    ]
    for file in files:
        file.seek(3)
    return files


@pytest.mark.parametrize("index", range(5))
async def test_other_files_that_seek_are_sent_from_their_position_each_time(
    scripted, tmp_path, index
):
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    files = unusual(path)
    content = encode_content(content=files[index])
    assert (content.length, content.can_replay) == (None, True)
    async with scripted(OK, OK) as conn:
        await post(conn, content)
        await post(conn, content, content.replay())
        if index == len(files) - 1:
            request = head(conn.port, CHUNKED, None) + b"7\r\n3456789\r\n0\r\n\r\n"
        else:
            request = head(conn.port, b"Content-Length: 7\r\n", None) + b"3456789"
        assert scripted.server.received == [request * 2]
    for file in files:
        file.close()
    assert not content.can_replay


async def test_a_mapped_file_is_not_locked(scripted, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        mapped.seek(3)
        content = encode_content(content=mapped)
        async with scripted(OK, OK) as conn:
            await post(conn, content)
            await post(conn, content, content.replay())
            request = head(conn.port, b"Content-Length: 7\r\n", None) + b"3456789"
            assert scripted.server.received == [request * 2]
    assert not content.can_replay


async def test_a_pipe_is_sent_once(scripted):
    reading, writing = os.pipe()
    with open(reading, "rb") as file:
        os.write(writing, b"abc")
        os.close(writing)
        content = encode_content(content=file)
        assert (content.length, content.can_replay) == (None, False)
        async with scripted(OK) as conn:
            await post(conn, content)
            request = head(conn.port, CHUNKED, None) + b"3\r\nabc\r\n0\r\n\r\n"
            assert scripted.server.received == [request]


def test_bytesio_is_memory_from_its_position_on():
    file = io.BytesIO(b"0123456789")
    whole = encode_content(content=file)
    assert whole.body is file.getvalue()
    file.seek(3)
    rest = encode_content(content=file)
    assert file.tell() == 3
    file.seek(0)
    file.write(b"abcdefghijkl")
    assert (whole.body, bytes(rest.body)) == (b"0123456789", b"3456789")
    file.seek(100)
    assert bytes(encode_content(content=file).body) == b""


@pytest.mark.parametrize("kind", ["content", "files"])
@pytest.mark.parametrize("change", [-1, 1], ids=["shrinks", "grows"])
async def test_a_file_that_changes_while_it_is_sent(tmp_path, kind, change):
    path = tmp_path / "a"
    size = 5 * 1024 * 1024
    with path.open("wb") as file:
        file.truncate(size)

    async def changed(server):
        os.truncate(path, size + change)

    answered = [expect(), changed, expect_body(), send(OK)]
    async with ScriptedServer(answered, receive_buffer=65536) as server:
        async with HTTPConnection(server.host, server.port, socket_options=SMALL_BUFFER) as conn:
            with path.open("rb") as file:
                content = encode_content(**{kind: file if kind == "content" else {"f": file}})
                if change > 0:
                    # It has the length that was announced.
                    await post(conn, content)
                    return
                with pytest.raises(BodyLengthError, match="fewer") as info:
                    await post(conn, content)
    assert f"{size}" in str(info.value)
    assert f"{size - 1}" in str(info.value)


# ------------------------------------------------------------------------------ replays


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: iter([b"a"]), "list_iterator"),
        (lambda: agen(b"a"), "async_generator"),
        (lambda: ReadAsync(b"a"), "ReadAsync"),
    ],
    ids=["iterator", "async generator", "async read"],
)
async def test_what_cannot_be_sent_again_says_so(make, name):
    content = encode_content(content=make())
    with pytest.raises(ValueError) as info:  # noqa: PT011 - the text is asserted below
        content.replay()
    assert str(info.value) == (
        f"a {name} cannot be sent again: it can be read only once, or it is a closed file. "
        "Give bytes, a list, or files that can seek and stay open"
    )


def test_an_iterable_is_not_asked_before_it_must_be():
    iterable = Fresh(b"a")
    content = encode_content(content=iterable)
    assert iterable.asked == 0
    assert content.can_replay


def test_a_closed_file_is_not_sent_again(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    with (tmp_path / "a").open("rb") as file:
        content = encode_content(content=file)
    with pytest.raises(
        ValueError, match=r"^a BufferedReader cannot be sent again: .* or it is a closed file"
    ):
        content.replay()


# -------------------------------------------------------------------- refused arguments


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ({"content": b"", "json": None}, "json= and content="),
        ({"content": b"", "data": {}}, "content= and data="),
        ({"content": b"", "files": {}}, "content= and files="),
        ({"json": 1, "data": {}}, "json= and data="),
        ({"json": 1, "files": {}}, "json= and files="),
        ({"json": 1, "data": {}, "files": {}}, "json= and data= and files="),
        ({"content": b"", "data": {}, "files": {}}, "content= and data= and files="),
    ],
)
def test_two_bodies_are_a_type_error(arguments, given):
    with pytest.raises(TypeError) as info:
        encode_content(**arguments)
    assert str(info.value) == (
        f"a request has one body, got {given}: only data= and files= go together"
    )


@pytest.mark.parametrize("content", [{"a": 1}, 5, 5.0, True, object(), Decimal(1)], ids=shown)
def test_what_cannot_be_content_is_told_what_can(content):
    with pytest.raises(TypeError) as info:
        encode_content(content=content)
    assert str(info.value) == (
        "content= must be str, bytes-like, a file, an iterable or an async iterable of bytes, got "
        f"{type(content).__name__}; json= sends a document, data= a form"
    )


@pytest.mark.parametrize("items", [["text"], [5], (None,), [[b"a"]], [b"", ""]], ids=repr)
def test_an_item_that_is_not_bytes_is_refused_before_a_byte_is_sent(items):
    with pytest.raises(TypeError) as info:
        encode_content(content=items)
    name = type(items[-1]).__name__
    assert str(info.value) == f"an item of content= must be bytes-like, got {name}"


@pytest.mark.parametrize("mode", ["r", "w+", "r+"])
def test_text_files_are_refused(tmp_path, mode):
    (tmp_path / "a").write_bytes(b"abc")
    text = r"^content= is a text file: open it in binary mode, or read it into a str$"
    with (tmp_path / "a").open(mode) as file, pytest.raises(TypeError, match=text):
        encode_content(content=file)
    with tempfile.NamedTemporaryFile("w+") as file, pytest.raises(TypeError, match=text):
        encode_content(content=file)
    with pytest.raises(TypeError, match=text):
        encode_content(content=io.StringIO("abc"))


def test_a_response_with_an_encoding_is_no_text_file():
    body = ReadAsync(b"a")
    body.encoding = "utf-8"
    assert encode_content(content=body).body is body


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with (tmp_path / "a").open("wb") as file:
        text = "^content= is a file that is not open for reading: open it with 'rb'$"
        with pytest.raises(ValueError, match=text):
            encode_content(content=file)
    closed = io.BytesIO()
    closed.close()
    for content in (file, closed):
        with pytest.raises(ValueError, match=r"^content= is a closed file$"):
            encode_content(content=content)


def test_json_has_a_lone_surrogate_escaped():
    for dumps in (None, lambda value: json.dumps(value, ensure_ascii=False)):
        made = encode_content(json=["\ud800", "ä\udfff😀", {"\udc00": "\\"}], dumps=dumps)
        expected = '["\\ud800","ä\\udfff😀",{"\\udc00":"\\\\"}]'.encode()
        assert made.body.replace(b", ", b",").replace(b": ", b":") == expected
        assert json.loads(made.body) == ["\ud800", "ä\udfff😀", {"\udc00": "\\"}]


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]], ids=repr)
def test_json_has_no_nan(value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_content(json=value)


def test_what_json_cannot_say_is_a_type_error():
    with pytest.raises(TypeError, match="Object of type set is not JSON serializable"):
        encode_content(json={1})
    with pytest.raises(TypeError, match=r"^dumps= must return str or bytes, got NoneType$"):
        encode_content(json=1, dumps=lambda value: None)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            5,
            "data= must be a mapping or pairs of name and value, got int; content= sends",
        ),
        (io.BytesIO(b"a"), "data= must be a mapping or pairs of name and value, got BytesIO; cont"),
        (
            ["ab"],
            "data= must be a mapping or pairs of name and value, got a str in place of a pair",
        ),
        ([("a",)], "data= must be a mapping or pairs of name and value, got a tuple in place of a"),
        ({5: "a"}, "a name in data= must be a str, not int: 5"),
        (
            {"a": object()},
            f"the form's field 'a' must be {PARAM_TYPES}, not object",
        ),
        ({"a": [["b"]]}, f"the form's field 'a' must be {PARAM_TYPES}, not list"),
        (
            {"a": io.BytesIO()},
            f"the form's field 'a' must be {PARAM_TYPES}, not BytesIO; a file goes into files=",
        ),
    ],
)
@pytest.mark.parametrize("files", [None, {}], ids=["urlencoded", "multipart"])
def test_what_is_no_form_is_a_type_error(data, text, files):
    with pytest.raises(TypeError) as info:
        encode_content(data=data, files=files)
    assert str(info.value).startswith(text)


@pytest.mark.parametrize("data", [b"a=b", "a=b", bytearray(b"a=b")], ids=repr)
def test_an_encoded_form_has_no_files(data):
    with pytest.raises(TypeError) as info:
        encode_content(data=data, files={})
    assert str(info.value) == (
        f"data= must be a mapping or pairs beside files=, got {type(data).__name__}"
    )


@pytest.mark.parametrize("arguments", [{}, {"data": {}}, {"json": 1}, {"content": b""}], ids=repr)
def test_a_boundary_without_files_is_a_type_error(arguments):
    with pytest.raises(TypeError) as info:
        encode_content(boundary="B", **arguments)
    assert str(info.value) == (
        "boundary= needs files=; files={} makes a multipart form of data= alone"
    )


# -------------------------------------------------------- comparison with other clients

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)


@given(st.lists(st.tuples(TEXTS, st.one_of(TEXTS, st.integers(), st.booleans())), max_size=5))
def test_a_form_is_what_the_query_of_a_url_is(pairs):
    body = encode_content(data=pairs).body
    assert add_params("", pairs) == (f"?{body.decode()}" if pairs else "")
    words = [(n, str(v).lower() if isinstance(v, bool) else str(v)) for n, v in pairs]
    assert urllib.parse.parse_qsl(body.decode(), keep_blank_values=True) == words


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_json_is_what_the_standard_library_makes(value):
    body = encode_content(json=value).body
    expected = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    assert body == expected.encode()


# -------------------------------------------------------------------------------- other


def test_repr():
    assert repr(encode_content(json=1)) == "<Content bytes application/json>"
    assert repr(encode_content(content=[])) == "<Content list of unknown type>"
    assert repr(UNSET) == "UNSET"


def test_loads_modules_when_they_are_needed():
    program = """
import sys
from aiohttpconn import HTTPConnection
from aiohttpconn.client.content.encode import encode_content
unwanted = {"json", "mimetypes", "secrets"}
print(sorted(unwanted & set(sys.modules)))
encode_content(json=1), encode_content(files={"f": b""})
print(sorted(unwanted & set(sys.modules)))
"""
    command = [sys.executable, "-S", "-W", "error", "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "[]\n['json', 'mimetypes', 'secrets']\n"
