"""download: to a file, continued where it broke off, and never a wrong byte in it."""

from __future__ import annotations

import asyncio
import errno
import gzip
import json
import random
import re
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import aiohttpconn.client.download as download_module
from aiohttpconn import (
    BodyTooLarge,
    Client,
    HTTPException,
    IncompleteRead,
    ReadTimeout,
    StatusError,
    Timeout,
    TotalTimeout,
)
from aiohttpconn.client.destination import PartFile
from aiohttpconn.testing import (
    Fault,
    Reply,
    Request,
    ScriptedServer,
    answer,
    close_at,
    refusing_address,
    reset_at,
    serve,
    stall_at,
)

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = random.Random(1).randbytes(50_000)
ETAG = '"v1"'
DATES = {
    "Last-Modified": "Mon, 23 Nov 2026 11:00:00 GMT",
    "Date": "Mon, 23 Nov 2026 12:00:00 GMT",
}


class Files:
    """A server of one file that knows ranges (RFC 9110 §14), and how each response goes wrong."""

    def __init__(self, content: bytes = CONTENT, **fields: str) -> None:
        self.content = content
        self.fields = fields or {"ETag": ETAG}
        self.faults: list[Fault | None] = []
        self.ranges: list[tuple[str | None, str | None]] = []
        self.at_most: int | None = None
        self.heeds_if_range = True

    def __call__(self, request: Request) -> Reply:
        asked, condition = request.headers.get("Range"), request.headers.get("If-Range")
        self.ranges.append((asked, condition))
        fault = self.faults.pop(0) if self.faults else None
        content, status, fields = self.content, 200, dict(self.fields)
        validators = (self.fields.get("ETag"), self.fields.get("Last-Modified"))
        if asked and (condition in validators or not self.heeds_if_range):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            size = len(content)
            if start >= size:
                return Reply(status=416, headers=fields | {"Content-Range": f"bytes */{size}"})
            end = size if self.at_most is None else min(size, start + self.at_most)
            fields["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
            content, status = content[start:end], 206
        return Reply(content, status=status, headers=fields, fault=fault)


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which pass at once."""
    seconds: list[float] = []
    original = asyncio.sleep

    async def sleep(wait: float, *args: Any) -> None:
        if wait:
            seconds.append(wait)
        await original(0)

    monkeypatch.setattr(download_module.asyncio, "sleep", sleep)
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    return seconds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.bin"


def files_beside(path: Path) -> set[str]:
    return {each.name for each in path.parent.iterdir()} - {path.name}


def leave_a_part(
    path: Path, content: bytes, url: str, validator: str = ETAG, **version: object
) -> None:
    """Leave what a download has left that broke off."""
    path.with_name(f"{path.name}.part").write_bytes(content)
    path.with_name(f"{path.name}.part.json").write_text(
        json.dumps({"url": url, "validator": validator} | version)
    )


# ------------------------------------------------------------------- complete downloads


@pytest.mark.parametrize("size", [0, 1, 50_000, 3 * 1024 * 1024 + 1])
async def test_a_body_goes_into_a_file(size, client, path):
    content = random.Random(2).randbytes(size)
    async with serve(Files(content)) as server:
        response = await client.download(server.url, path)
        assert (response.status, response.url) == (200, server.url)
        assert path.read_bytes() == content
        assert files_beside(path) == set()
        with pytest.raises(RuntimeError, match="iterated over"):
            response.content  # noqa: B018
        # What is there is replaced.
        server.handler.content = b"new"
        await client.download(server.url, str(path))
        assert path.read_bytes() == b"new"
        assert server.handler.ranges == [(None, None)] * 2
        assert client.stats().leased == 0


async def test_progress_tells_how_much_is_there(client, path, monkeypatch):
    monkeypatch.setattr(download_module, "BLOCK", 10_000)
    seen: list[tuple[int, int | None]] = []

    async def later(*args: Any) -> None:
        await asyncio.sleep(0)
        seen.append(args)

    async with serve(Files()) as server:
        for progress in (lambda *args: seen.append(args), later):
            seen.clear()
            await client.download(server.url, path, progress=progress)
            assert seen[-1] == (50_000, 50_000)
            assert {total for _, total in seen} == {50_000}
            assert seen == sorted(seen)
        # Where the size is not known, it is not told.
        server.handler = lambda request: Reply([b"abc", b"def"])
        seen.clear()
        await client.download(server.url, path, progress=later)
        assert seen[-1] == (6, None)


async def test_progress_is_told_where_the_download_begins(client, path, monkeypatch):
    seen: list[tuple[int, int | None]] = []
    files = Files()
    async with serve(files) as server:
        await client.download(server.url, path, progress=lambda *args: seen.append(args))
        assert (seen[0], seen.count((0, 50_000))) == ((0, 50_000), 1)
        seen.clear()
        leave_a_part(path, CONTENT[:5_000], server.url)
        await client.download(server.url, path, progress=lambda *args: seen.append(args))
        assert (seen[0], seen.count((5_000, 50_000))) == ((5_000, 50_000), 1)
        # A part that is of no use: it begins with the first byte.
        seen.clear()
        leave_a_part(path, CONTENT[:5_000], server.url, '"v0"')
        await client.download(server.url, path, progress=lambda *args: seen.append(args))
        assert seen[0] == (0, 50_000)
        # An empty file: it begins, and that is all.
        seen.clear()
        files.content = b""
        await client.download(server.url, path, progress=lambda *args: seen.append(args))
        assert seen == [(0, 0)]


async def test_progress_tells_that_a_download_begins_anew(client, path, monkeypatch):
    monkeypatch.setattr(download_module, "BLOCK", 1)
    files = Files()
    files.faults = [close_at(20_000)]
    seen: list[int] = []
    async with serve(files) as server:

        def changing(request: Request) -> Reply:
            reply = files(request)
            files.fields = {"ETag": '"v2"'}
            return reply

        server.handler = changing
        await client.download(server.url, path, progress=lambda there, _: seen.append(there))
    again = seen.index(0, 1)
    assert seen[:again] == sorted(seen[:again])
    assert seen[again:] == sorted(seen[again:])
    assert seen.count(0) == 2


async def test_progress_of_a_download_that_breaks_off_never_goes_back(client, path, monkeypatch):
    """Also where the head of a response comes, and nothing of its body."""
    monkeypatch.setattr(download_module, "BLOCK", 1)
    seen: list[tuple[int, int | None]] = []

    class LastFiles(Files):
        def __call__(self, request: Request) -> Reply:
            reply = super().__call__(request)
            empty = len(self.ranges) in (2, 3, 4)
            return replace(reply, fault=close_at(-len(reply.body))) if empty else reply

    files = LastFiles()
    files.faults = [close_at(20_000)]
    async with serve(files) as server:
        await client.download(server.url, path, progress=lambda *args: seen.append(args))
        assert len({asked for asked, _ in files.ranges[1:]}) == 1
        assert len(files.ranges) == 5
        assert seen == sorted(seen)
        assert seen[-1] == (50_000, 50_000)
        assert path.read_bytes() == CONTENT


async def test_of_a_slow_download_there_is_progress(client, path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(download_module, "monotonic", lambda: now)
    go_on = asyncio.Event()
    seen: list[int] = []
    reply = Reply(b"x" * 100, fault=stall_at(-50, go_on))

    def progress(there: int, total: int | None) -> None:
        seen.append(there)

    async with serve({"/": reply}) as server:
        task = asyncio.ensure_future(client.download(server.url, path, progress=progress))
        while not (server.requests and client.stats().leased):
            await asyncio.sleep(0)
        now = 1.0
        go_on.set()
        await task
    assert seen[-1] == 100
    assert len(seen) in (1, 2)


@pytest.mark.parametrize("error", [KeyError, BrokenPipeError, TimeoutError])
async def test_an_error_of_progress_ends_it(error, client, path):
    """Also one that would be tried again if it were the network's."""

    def progress(there: int, total: int | None) -> None:
        raise error("progress")

    async with serve(Files()) as server:
        with pytest.raises(error, match="progress"):
            await client.download(server.url, path, progress=progress)
        assert len(server.requests) == 1
        assert not path.exists()
        assert client.stats().leased == 0


async def test_options_are_those_of_a_request(client, path):
    async with serve({"/": "x" * 100}) as server:
        await client.download(
            server.url,
            path,
            params=iter([("a", "b")]),
            headers=iter([("X-A", "1"), ("X-A", "2")]),
            auth=("me", "pw"),
        )
        (request,) = server.requests
        assert request.target == "/?a=b"
        assert request.headers.get_all("X-A") == ["1", "2"]
        assert request.headers["Authorization"] == "Basic bWU6cHc="
        assert request.headers.get_all("Accept-Encoding") == ["identity"]
        await client.download(server.url, path, headers={"accept-encoding": "gzip"})
        assert server.requests[1].headers.get_all("Accept-Encoding") == ["gzip"]
        with pytest.raises(BodyTooLarge):
            await client.download(server.url, path, max_body=99)
        with pytest.raises(TypeError, match="unknown options: verify"):
            await client.download(server.url, path, verify=False)
        for name in ("Range", "range", "If-Range", b"Range"):
            with pytest.raises(ValueError, match="download sets Range and If-Range itself"):
                await client.download(server.url, path, headers={name: "bytes=0-1"})


async def test_redirects_and_bases(path):
    replies = {"/a": Reply(status=302, headers={"Location": "/b"}), "/b": "there"}
    async with serve(replies) as server:
        async with Client(trust_env=False, base_url=server.url) as client:
            response = await client.download("a", path)
            assert path.read_bytes() == b"there"
            assert response.url == f"{server.url}b"
            assert len(response.history) == 1


@pytest.mark.parametrize("status", [400, 404, 416, 500])
async def test_an_error_status_is_an_error(status, client, path):
    async with serve({"/": Reply("no", status=status)}) as server:
        with pytest.raises(StatusError) as caught:
            await client.download(server.url, path)
        assert caught.value.status == status
        assert str(caught.value).startswith(f"GET {server.url}: {status} ")
        assert not path.exists()
        assert files_beside(path) == set()


@pytest.mark.parametrize("coding", [None, "gzip", "br"])
async def test_the_body_of_an_error_can_be_read(coding, client, path):
    text = '{"error": "gone"}'
    body = gzip.compress(text.encode()) if coding else text.encode()
    fields = {"Content-Encoding": coding} if coding else {}
    async with serve({"/": Reply(body, status=410, headers=fields)}) as server:
        with pytest.raises(StatusError) as caught:
            await client.download(server.url, path)
        if coding != "br":
            assert caught.value.response.json() == {"error": "gone"}
        assert isinstance(caught.value.response.content, bytes)
        # As much as an error needs, of any size.
        server.handler = lambda request: Reply(b"x" * 1_000_000, status=500)
        with pytest.raises(StatusError) as caught:
            await client.download(server.url, path)
        assert caught.value.response.content == b"x" * 65_536
        assert client.stats().leased == 0


@pytest.mark.parametrize("status", [300, 302, 304])
async def test_what_leads_elsewhere_is_no_file(status, client, path):
    reply = Reply(status=status, headers={"Location": "/b"})
    async with serve({"/": reply}) as server:
        with pytest.raises(StatusError) as caught:
            await client.download(server.url, path, follow_redirects=False)
        assert (
            str(caught.value)
            == f"GET {server.url}: {status}: a response with this status is not a file"
        )
        assert caught.value.response.headers["Location"] == "/b"
        assert files_beside(path) == set()


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "identity", "aws-chunked", "x, y"])
async def test_a_body_that_is_encoded_all_the_same_is_what_is_stored(coding, client, path):
    """x.tar.gz with its coding, as curl -O writes it."""
    content = gzip.compress(CONTENT)
    files = Files(content, **{"ETag": ETAG, "Content-Encoding": coding})
    files.faults = [close_at(5_000)]
    seen: list[tuple[int, int | None]] = []
    async with serve(files) as server:
        await client.download(server.url, path, progress=lambda *args: seen.append(args))
        assert path.read_bytes() == content
        assert len(files.ranges) == 2
        assert seen[-1] == (len(content), len(content))


async def test_a_coding_is_removed_where_that_is_asked_for(client, path):
    reply = Reply(gzip.compress(CONTENT), headers={"Content-Encoding": "gzip", "ETag": ETAG})
    seen: list[tuple[int, int | None]] = []
    async with serve({"/": reply}) as server:
        await client.download(
            server.url, path, decompress=True, progress=lambda *args: seen.append(args)
        )
        assert path.read_bytes() == CONTENT
        # How large it will be, nobody knows.
        assert (seen[0], seen[-1]) == ((0, None), (50_000, None))


# ------------------------------------------------------------------------------- breaks

HEAD = 100
"""Bytes of a response at which all of its head, and less than 100 bytes of body, are there."""


@pytest.mark.parametrize("fault", [close_at, reset_at])
@pytest.mark.parametrize("k", [0, 10, HEAD, 1_000, 30_000, 50_000])
async def test_it_goes_on_where_it_broke_off(fault, k, client, path, sleeps):
    """Before the head, within it, and at any byte of the body."""
    files = Files()
    files.faults = [fault(k), None]
    async with serve(files) as server:
        if k < HEAD:
            # There is nothing yet that could be continued.
            with pytest.raises(ConnectionError):
                await client.download(server.url, path)
            await client.download(server.url, path)
        else:
            response = await client.download(server.url, path)
            assert response.status == 206
            asked, condition = files.ranges[1]
            assert condition == ETAG
            assert re.fullmatch("bytes=[1-9][0-9]*-", asked or "")
            assert len(sleeps) == 1
        assert path.read_bytes() == CONTENT
        assert files_beside(path) == set()


async def test_it_goes_on_as_long_as_there_is_progress(client, path, sleeps):
    files = Files()
    files.faults = [close_at(5_000)] * 9 + [None]
    seen: list[int] = []
    async with serve(files) as server:
        await client.download(server.url, path, progress=lambda there, _: seen.append(there))
        assert path.read_bytes() == CONTENT
        assert len(files.ranges) == 10
        assert seen == sorted(seen)
        assert set(sleeps) == {0.2}


async def test_it_ends_where_there_is_none(client, path, sleeps):
    files = Files()
    files.faults = [close_at(5_000)] + [close_at(HEAD - 20)] * 100
    async with serve(files) as server:
        with pytest.raises((IncompleteRead, ConnectionError)):
            await client.download(server.url, path)
        assert len(files.ranges) == 1 + download_module.ATTEMPTS.attempts
        assert sleeps == [0.2, 0.4, 0.8, 1.6, 3.2][: len(sleeps)]
        # What is there, stays for the next time.
        assert files_beside(path) == {"file.bin.part", "file.bin.part.json"}
        files.faults.clear()
        assert (await client.download(server.url, path)).status == 206
        assert path.read_bytes() == CONTENT


async def test_max_body_is_for_the_whole_of_a_continued_one(client, path, monkeypatch):
    """Neither the next call nor a server that breaks off again and again gets beyond it."""
    monkeypatch.setattr(download_module, "BLOCK", 1)
    files = Files()
    async with serve(files) as server:
        files.faults = [close_at(15_000)] * 10
        with pytest.raises(BodyTooLarge, match="more than max_body=40000 bytes"):
            await client.download(server.url, path, max_body=40_000)
        files.faults.clear()
        with pytest.raises(BodyTooLarge, match="more than max_body=40000 bytes"):
            await client.download(server.url, path, max_body=40_000)
        assert path.with_name("file.bin.part").stat().st_size <= 40_000
        assert not path.exists()
        # What is there can be continued with more.
        assert (await client.download(server.url, path, max_body=50_000)).status == 206
        assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("options", [{"resume": False}, {}])
async def test_a_part_without_a_validator_is_not_continued(options, client, path):
    files = Files(**({} if "resume" in options else {"X-A": "b"}))
    files.faults = [close_at(5_000)]
    async with serve(files) as server:
        with pytest.raises(IncompleteRead):
            await client.download(server.url, path, **options)
        await client.download(server.url, path, **options)
        assert files.ranges == [(None, None)] * 2
        assert path.read_bytes() == CONTENT


VALIDATORS: dict[str, tuple[dict[str, str], str | None]] = {
    "a strong ETag": ({"ETag": '"x"'}, '"x"'),
    "an empty ETag": ({"ETag": '""'}, '""'),
    "a weak ETag": ({"ETag": 'W/"x"'}, None),
    "a weak ETag and a date": ({"ETag": 'W/"x"'} | DATES, None),
    "no ETag": ({"ETag": "x"}, None),
    "an ETag and a date": ({"ETag": '"x"'} | DATES, '"x"'),
    "a date": (DATES, DATES["Last-Modified"]),
    "a date without Date": ({"Last-Modified": DATES["Last-Modified"]}, None),
    "a date of this second": ({"Last-Modified": DATES["Date"], "Date": DATES["Date"]}, None),
    "a date that is none": ({"Last-Modified": "yesterday", "Date": DATES["Date"]}, None),
    "nothing": ({"X-A": "b"}, None),
    "no ranges": ({"ETag": '"x"', "Accept-Ranges": "none"}, None),
}


@pytest.mark.parametrize("name", VALIDATORS)
async def test_a_version_is_known_by(name, client, path):
    fields, validator = VALIDATORS[name]
    files = Files(**fields)
    files.faults = [close_at(5_000)]
    async with serve(files) as server:
        if validator is None:
            with pytest.raises(IncompleteRead):
                await client.download(server.url, path)
            assert len(files.ranges) == 1
        else:
            await client.download(server.url, path)
            assert files.ranges[1][1] == validator
            assert path.read_bytes() == CONTENT


async def test_a_file_that_has_changed_begins_anew(client, path):
    files = Files()
    files.faults = [close_at(5_000)]
    async with serve(files) as server:

        def changing(request: Request) -> Reply:
            reply = files(request)
            files.content, files.fields = CONTENT[::-1] + b"more", {"ETag": '"v2"'}
            return reply

        server.handler = changing
        response = await client.download(server.url, path)
        assert response.status == 200
        assert path.read_bytes() == CONTENT[::-1] + b"more"


async def test_a_file_that_changes_each_time_ends(client, path):
    numbers = iter(range(1000))

    def reply(request: Request) -> Reply:
        etag = f'"{next(numbers)}"'
        return Reply(CONTENT, headers={"ETag": etag}, fault=close_at(5_000))

    async with serve(reply) as server:
        with pytest.raises(IncompleteRead):
            await client.download(server.url, path)
        assert len(server.requests) <= 1 + download_module.ATTEMPTS.attempts


async def test_a_part_that_is_thrown_away_each_time_ends(client, path):
    """It breaks off, what is sent for the rest does not fit, and so on."""

    def reply(request: Request) -> Reply:
        if "Range" in request.headers:
            return Reply(b"x", status=206, headers={"Content-Range": "bytes 0-0/50000"})
        return Reply(CONTENT, headers={"ETag": ETAG}, fault=close_at(5_000))

    async with serve(reply) as server:
        with pytest.raises((IncompleteRead, HTTPException)):
            await client.download(server.url, path)
        assert len(server.requests) <= 1 + download_module.ATTEMPTS.attempts


async def test_a_server_that_does_not_heed_if_range_is_found_out(client, path):
    """Its ETag tells that what it sends belongs to something else."""
    files = Files()
    files.heeds_if_range = False
    async with serve(files) as server:
        leave_a_part(path, b"y" * 5_000, server.url, '"v0"')
        assert (await client.download(server.url, path)).status == 200
        assert path.read_bytes() == CONTENT
        assert files.ranges == [("bytes=4999-", '"v0"'), (None, None)]


async def test_a_server_that_does_not_heed_if_range_is_found_out_by_a_date(client, path):
    files = Files(**DATES)
    files.heeds_if_range = False
    async with serve(files) as server:
        before = "Mon, 23 Nov 2026 10:00:00 GMT"
        leave_a_part(path, b"y" * 5_000, server.url, before)
        assert (await client.download(server.url, path)).status == 200
        assert path.read_bytes() == CONTENT
        assert files.ranges == [("bytes=4999-", before), (None, None)]


@pytest.mark.parametrize(
    "fields",
    [
        {"Content-Range": "bytes 4998-49999/50000"},
        {"Content-Range": "bytes 5000-49999/50000"},
        {"Content-Range": "bytes */50000"},
        {"Content-Range": "bytes +4999-49999/50000"},
        {"Content-Range": "bytes 4999-49999/5_0000"},
        {"Content-Range": "bytes 4999-4998/50000"},
        {"Content-Range": "bytes 4999-49999/49999"},
        {"Content-Range": "bytes 4999-49999/0"},
        {"Content-Range": "items 4999-49999/50000"},
        {"Content-Type": "multipart/byteranges; boundary=x"},
        {"Content-Range": "bytes 4999-49999/50000", "Content-Encoding": "gzip"},
        {"Content-Range": "bytes 4999-49999/50000", "ETag": '"v2"'},
        {"Content-Range": "bytes 4999-49999/50000", "ETag": 'W/"v1"'},
        {"Content-Range": "bytes 4999-49999/50000", "Content-Type": "Multipart/ByteRanges"},
    ],
    ids=str,
)
async def test_c12_a_part_that_was_not_asked_for_is_not_used(fields, client, path):
    def reply(request: Request) -> Reply:
        if "Range" in request.headers:
            return Reply(b"x" * 45_001, status=206, headers=fields)
        return Reply(CONTENT, headers={"ETag": ETAG})

    async with serve(reply) as server:
        leave_a_part(path, CONTENT[:5_000], server.url)
        assert (await client.download(server.url, path)).status == 200
        assert path.read_bytes() == CONTENT
        assert len(server.requests) == 2


@pytest.mark.parametrize("total", ["50000", "*"])
@pytest.mark.parametrize("block", [10_000, 1024 * 1024])
async def test_more_than_its_content_range_says_is_not_used(
    total, block, client, path, monkeypatch
):
    monkeypatch.setattr(download_module, "BLOCK", block)
    seen: list[int] = []

    def reply(request: Request) -> Reply:
        if "Range" in request.headers:
            fields = {"Content-Range": f"bytes 4999-49999/{total}"}
            return Reply(b"x" * 50_000, status=206, headers=fields)
        return Reply(CONTENT, headers={"ETag": ETAG})

    async with serve(reply) as server:
        leave_a_part(path, CONTENT[:5_000], server.url)
        response = await client.download(
            server.url, path, progress=lambda there, _: seen.append(there)
        )
        assert response.status == 200
        assert path.read_bytes() == CONTENT
        assert len(server.requests) == 2
        assert max(seen) == 50_000


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("bytes 4999-50999/51000", 206),  # it has grown
        ("bytes 4999-48999/49000", 206),  # it has shrunk
        ("bytes 4999-50999/*", 206),  # beyond the end
        ("bytes 4999-50999/51000", 200),
    ],
)
async def test_another_size_is_another_version(given, status, client, path):
    """Although the ETag is the same; the size is that of the first answer."""
    files = Files()
    files.faults = [close_at(5_000)]

    def reply(request: Request) -> Reply:
        if "Range" not in request.headers:
            return files(request)
        start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        fields = {"ETag": ETAG, "Content-Range": given.replace("4999", str(start), 1)}
        return Reply(b"x" * 10_000, status=status, headers=fields)

    async with serve(reply) as server:
        assert (await client.download(server.url, path)).status == 200
        assert path.read_bytes() == CONTENT
        assert len(server.requests) == 3


async def test_the_size_of_an_earlier_call_counts(client, path):
    async with serve(Files(CONTENT + b"more")) as server:
        leave_a_part(path, CONTENT[:5_000], server.url, size=50_000)
        assert (await client.download(server.url, path)).status == 200
        assert path.read_bytes() == CONTENT + b"more"
        # A part that is larger than its file is not even asked for.
        server.handler.ranges.clear()
        leave_a_part(path, CONTENT + b"other", server.url, size=50_000)
        await client.download(server.url, path)
        assert server.handler.ranges == [(None, None)]


@pytest.mark.parametrize("known", [True, False], ids=["with a length", "in chunks"])
async def test_a_slice_of_an_unknown_total_is_not_the_end_of_a_known_size(known, client, path):
    """Only the first answer has told the size, or the first slice."""
    number = iter(range(1_000))

    def reply(request: Request) -> Reply:
        if "Range" not in request.headers:
            body = CONTENT if known else [CONTENT]
            return Reply(body, headers={"ETag": ETAG}, fault=close_at(20_000))
        start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        end = min(start + 10_001, len(CONTENT))
        total = "*" if next(number) or known else "50000"
        fields = {"ETag": ETAG, "Content-Range": f"bytes {start}-{end - 1}/{total}"}
        return Reply(CONTENT[start:end], status=206, headers=fields)

    async with serve(reply) as server:
        await client.download(server.url, path)
        assert path.read_bytes() == CONTENT
        assert len(server.requests) in (4, 5)


@pytest.mark.parametrize("unit", ["bytes", "Bytes", "BYTES"])
async def test_a_unit_may_be_in_any_case(unit, client, path):
    fields = {"ETag": ETAG, "Content-Range": f"{unit} 4999-49999/50000"}
    async with serve({"/": Reply(CONTENT[4_999:], status=206, headers=fields)}) as server:
        leave_a_part(path, CONTENT[:5_000], server.url)
        await client.download(server.url, path)
        assert path.read_bytes() == CONTENT
        assert len(server.requests) == 1


async def test_a_200_with_a_range_has_only_that(client, path):
    """Some servers answer a Range so."""
    fields = {"ETag": ETAG, "Content-Range": "bytes 4999-49999/50000"}
    async with serve({"/": Reply(CONTENT[4_999:], headers=fields)}) as server:
        leave_a_part(path, CONTENT[:5_000], server.url)
        await client.download(server.url, path)
        assert path.read_bytes() == CONTENT
        assert len(server.requests) == 1


@pytest.mark.parametrize("given", ["bytes 5000-49999/50000", "bytes 0-9/50000"])
async def test_a_200_with_another_range_is_not_used(given, client, path):
    def reply(request: Request) -> Reply:
        if "Range" in request.headers:
            return Reply(b"x" * 10, headers={"ETag": ETAG, "Content-Range": given})
        return Reply(CONTENT, headers={"ETag": ETAG})

    async with serve(reply) as server:
        leave_a_part(path, CONTENT[:5_000], server.url)
        await client.download(server.url, path)
        assert path.read_bytes() == CONTENT
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    "given", ["bytes 0-49999/50000", "bytes 0-49999/*", "bytes */50000", "items 3-4/50", "x"]
)
@pytest.mark.parametrize("continued", [True, False])
async def test_a_200_with_the_range_of_all_is_the_whole(given, continued, client, path):
    """A range that is none means nothing in a 200 (RFC 9110 §14.4)."""
    async with serve({"/": Reply(CONTENT, headers={"Content-Range": given})}) as server:
        if continued:
            leave_a_part(path, b"y" * 5_000, server.url)
        await client.download(server.url, path)
        assert path.read_bytes() == CONTENT
        assert len(server.requests) == 1


async def test_a_206_may_leave_out_the_coding_but_not_change_it(client, path):
    """RFC 9110 §15.3.7: what If-Range has proved is not repeated."""
    fields = {"Content-Range": "bytes 4999-49999/50000"}
    replies: list[Reply] = []
    async with serve(lambda request: replies.pop(0)) as server:
        for coding, sent, requests in (("gzip", "", 1), ("gzip", "GZIP", 1), ("gzip", "br", 2)):
            seen = len(server.requests)
            own = fields | ({"Content-Encoding": sent} if sent else {})
            replies = [Reply(CONTENT[4_999:], status=206, headers=own), Reply(CONTENT)]
            leave_a_part(path, CONTENT[:5_000], server.url, coding=coding)
            await client.download(server.url, path)
            assert path.read_bytes() == CONTENT
            assert len(server.requests) - seen == requests


async def test_two_content_ranges_are_none(client, path):
    head = (
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 4999-49999/50000\r\n"
        b"Content-Range: bytes 0-45000/50000\r\nContent-Length: 45001\r\nConnection: close\r\n\r\n"
    )
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n"
    scripts = [[answer(head + b"x" * 45_001)], [answer(whole + CONTENT)]]
    async with ScriptedServer(*scripts) as server:
        leave_a_part(path, CONTENT[:5_000], server.url)
        await client.download(server.url, path)
        assert path.read_bytes() == CONTENT


async def test_a_part_of_a_size_that_is_not_known(client, path):
    fields = {"Content-Range": "bytes 4999-49999/*"}
    async with serve({"/": Reply(CONTENT[4_999:], status=206, headers=fields)}) as server:
        leave_a_part(path, CONTENT[:5_000], server.url)
        await client.download(server.url, path)
        assert path.read_bytes() == CONTENT
        assert len(server.requests) == 1


async def test_of_a_size_that_is_not_known_the_content_range_tells_where_it_ends(client, path):
    """The first body ends with its connection, and too early."""
    head = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes %d-49999/*\r\n\r\n"
    first = head % 4_999 + CONTENT[4_999:30_000]
    second = head % 29_999 + CONTENT[29_999:]
    scripts = [[answer(each, fault=close_at(len(each)))] for each in (first, second)]
    async with ScriptedServer(*scripts) as server:
        leave_a_part(path, CONTENT[:5_000], server.url)
        await client.download(server.url, path)
        assert path.read_bytes() == CONTENT
        assert server.connections == 2


async def test_a_server_may_send_less_than_was_asked_for(client, path):
    """RFC 9110 §14.2: the rest is asked for."""
    files = Files()
    files.at_most = 10_001
    async with serve(files) as server:
        leave_a_part(path, CONTENT[:5_000], server.url)
        await client.download(server.url, path)
        assert path.read_bytes() == CONTENT
        assert [asked for asked, _ in files.ranges] == [
            f"bytes={start}-" for start in (4_999, 14_999, 24_999, 34_999, 44_999)
        ]


@pytest.mark.parametrize("sent", [b"", CONTENT[4_999:5_000]])
async def test_a_server_that_sends_nothing_more_is_left(sent, client, path, sleeps):
    fields = {"Content-Range": "bytes 4999-49999/50000", "Content-Length": str(len(sent))}
    async with serve({"/": Reply(sent, status=206, headers=fields)}) as server:
        leave_a_part(path, CONTENT[:5_000], server.url)
        with pytest.raises(HTTPException) as caught:
            await client.download(server.url, path)
        assert str(caught.value) == (
            f"GET {server.url}: the server sends none of the missing bytes from byte 5000 on"
        )
        assert len(server.requests) == 5
        assert path.with_name("file.bin.part").read_bytes() == CONTENT[:5_000]


async def test_a_part_although_the_whole_was_asked_for(client, path):
    fields = {"Content-Range": "bytes 0-9/50000"}
    async with serve({"/": Reply(CONTENT[:10], status=206, headers=fields)}) as server:
        with pytest.raises(StatusError) as caught:
            await client.download(f"{server.url}#secret", path)
        assert str(caught.value) == (
            f"GET {server.url}: 206: the server sent a part, but the request has no Range"
        )
        assert (caught.value.method, caught.value.url) == ("GET", server.url)
        assert not path.exists()


@pytest.mark.parametrize("size", [1, 50_000])
async def test_a_whole_part_is_finished_with_its_last_byte(size, client, path):
    """A part that is whole already, left by an earlier run that came to no end."""
    content = CONTENT[:size]
    files = Files(content)
    seen: list[tuple[int, int | None]] = []
    async with serve(files) as server:
        leave_a_part(path, content, server.url)
        response = await client.download(server.url, path, progress=lambda *args: seen.append(args))
        assert (response.status, response.headers["Content-Length"]) == (206, "1")
        assert files.ranges == [(f"bytes={size - 1}-", ETAG)]
        assert seen == [(size, size)]
        assert path.read_bytes() == content
        assert files_beside(path) == set()


async def test_more_is_there_than_there_should_be(client, path):
    files = Files()
    async with serve(files) as server:
        for extra in (b"m", b"more"):
            files.ranges.clear()
            leave_a_part(path, CONTENT + extra, server.url)
            assert (await client.download(server.url, path)).status == 200
            assert path.read_bytes() == CONTENT
            asked = f"bytes={50_000 + len(extra) - 1}-"
            assert files.ranges == [(asked, ETAG), (None, None)]
            assert files_beside(path) == set()


async def test_a_416_is_never_a_success(client, path):
    """Even if it says that the size is the one of the part."""
    fields = {"Content-Range": "bytes */50000"}
    async with serve({"/": Reply(status=416, headers=fields)}) as server:
        leave_a_part(path, CONTENT, server.url)
        with pytest.raises(StatusError, match="416") as caught:
            await client.download(server.url, path)
        assert caught.value.status == 416
        assert len(server.requests) == 2
        assert not path.exists()


async def test_a_416_that_says_nothing(client, path):
    def reply(request: Request) -> Reply:
        return Reply(status=416) if "Range" in request.headers else Reply(CONTENT)

    async with serve(reply) as server:
        leave_a_part(path, CONTENT[:5_000], server.url)
        assert (await client.download(server.url, path)).status == 200
        assert path.read_bytes() == CONTENT


# ----------------------------------------------------------- parts of earlier downloads


class Breaking(Files):
    """Breaks the first response off, and then each connection, until it is told to go on."""

    def __init__(self, **fields: str) -> None:
        super().__init__(**fields)
        self.faults = [close_at(5_000)] + [reset_at(0)] * 5

    def go_on(self) -> None:
        self.faults.clear()
        self.ranges.clear()


SIGNED = {"X-Amz-Signature": "s3cr3t", "user": "me"}


async def test_a_note_has_no_secrets(client, path):
    """Neither user and password nor the query are in it; and only its owner may read it."""
    files = Breaking()
    async with serve(files) as server:
        url = server.url.replace("http://", "http://user:secret@") + "a?token=hidden#part"
        with pytest.raises((ConnectionError, IncompleteRead)):
            await client.download(url, path, params=SIGNED)
        note = path.with_name("file.bin.part.json")
        text = note.read_text()
        for secret in ("user", "secret", "token", "hidden", "Amz", "s3cr3t", "part", "me"):
            assert f"{secret}" not in text.replace(server.url, "")
        assert json.loads(text)["url"] == f"{server.url}a"
        assert note.stat().st_mode & 0o777 == 0o600
        files.go_on()
        # The same query: it goes on, whatever the fragment is.
        url = f"{server.url}a?token=hidden&X-Amz-Signature=s3cr3t&user=me#x"
        await client.download(url, path)
        assert files.ranges[0][1] == ETAG
        assert path.read_bytes() == CONTENT


async def test_a_signed_url_goes_on_with_another_query(client, path):
    files = Breaking()
    async with serve(files) as server:
        with pytest.raises((ConnectionError, IncompleteRead)):
            await client.download(server.url, path, params=SIGNED)
        files.go_on()
        files.faults = [None, close_at(5_000)]
        response = await client.download(server.url, path, params=SIGNED | {"sig": "new"})
        assert (response.status, len(files.ranges)) == (206, 1)
        assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "fields",
    [
        {"ETag": '"v2"'},
        {"X-A": "without"},
        {"ETag": ETAG, "Content-Range": "bytes START-49999/*"},
        {"ETag": ETAG, "Content-Range": "bytes START-50999/51000"},
    ],
    ids=str,
)
async def test_another_query_needs_the_same_etag_and_size(fields, client, path):
    files = Breaking()
    async with serve(files) as server:
        with pytest.raises((ConnectionError, IncompleteRead)):
            await client.download(server.url, path, params={"id": "1"})
        other = Files(CONTENT[::-1])

        def reply(request: Request) -> Reply:
            if "Range" not in request.headers:
                return other(request)
            start = request.headers["Range"].removeprefix("bytes=").removesuffix("-")
            given = {"Content-Range": f"bytes {start}-49999/50000"} | fields
            given["Content-Range"] = given["Content-Range"].replace("START", start)
            return Reply(b"x" * (50_000 - int(start)), status=206, headers=given)

        server.handler = reply
        server.requests.clear()
        await client.download(server.url, path, params={"id": "2"})
        assert len(server.requests) == 2
        assert path.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize(
    ("fields", "before", "after"),
    [(DATES, "?a=1", "?a=2"), (DATES, "", "?a=1"), (DATES, "?a=1", ""), ({}, "b?a=1", "c?a=1")],
)
async def test_a_date_or_another_path_is_not_enough(fields, before, after, client, path):
    files = Breaking(**fields)
    async with serve(files) as server:
        with pytest.raises((ConnectionError, IncompleteRead)):
            await client.download(server.url + before, path)
        files.go_on()
        await client.download(server.url + after, path)
        assert files.ranges == [(None, None)]
        assert path.read_bytes() == CONTENT


async def test_a_date_is_enough_for_the_same_query(client, path):
    files = Breaking(**DATES)
    async with serve(files) as server:
        for _ in range(2):
            with pytest.raises((ConnectionError, IncompleteRead)):
                await client.download(f"{server.url}?a=1", path)
            files.faults = [reset_at(0)] * 5
        files.go_on()
        await client.download(f"{server.url}?a=1", path)
        assert files.ranges[0][1] == DATES["Last-Modified"]
        assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "info",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        '"x"',
        '{"url": "URL"}',
        '{"url": "URL", "validator": 5}',
        '{"url": "URL", "validator": ""}',
        '{"url": "URL", "validator": "\\"x\\"\\r\\nX-Evil: 1"}',
        '{"url": "http://other/", "validator": "\\"v1\\""}',
        '{"url": "URL", "validator": "\\"v1\\"", "size": "50000"}',
        '{"url": "URL", "validator": "\\"v1\\"", "size": true}',
        '{"url": "URL", "validator": "\\"v1\\"", "coding": 5}',
        '{"url": "URL", "validator": "\\"v1\\"", "query": "x"}',
        '{"url": "URL", "validator": "\\"v1\\"", "size": 50000',
        "[" * 20_000,
        "\xff",
    ],
)
async def test_a_note_that_is_none_counts_for_nothing(info, client, path):
    files = Files()
    async with serve(files) as server:
        path.with_name("file.bin.part").write_bytes(b"other")
        path.with_name("file.bin.part.json").write_text(
            info.replace("URL", server.url), encoding="latin-1"
        )
        await client.download(server.url, path)
        assert files.ranges == [(None, None)]
        assert path.read_bytes() == CONTENT
        assert files_beside(path) == set()


async def test_a_note_without_its_part_counts_for_nothing(client, path):
    files = Files()
    async with serve(files) as server:
        leave_a_part(path, b"", server.url)
        path.with_name("file.bin.part").unlink()
        await client.download(server.url, path)
        assert files.ranges == [(None, None)]
        leave_a_part(path, b"", server.url)
        await client.download(server.url, path)
        assert files.ranges == [(None, None)] * 2
        assert path.read_bytes() == CONTENT


async def test_a_part_is_not_looked_at_without_resume(client, path):
    files = Files()
    async with serve(files) as server:
        leave_a_part(path, CONTENT[:5_000], server.url)
        await client.download(server.url, path, resume=False)
        assert files.ranges == [(None, None)]
        assert path.read_bytes() == CONTENT


# --------------------------------------------------------------------------------- ends


async def test_a_server_that_is_away_for_a_while(client, path, sleeps):
    with refusing_address() as (host, port):
        url = f"http://{host}:{port}/"
        with pytest.raises(ConnectionRefusedError):
            await client.download(url, path)
        assert sleeps == []
        leave_a_part(path, CONTENT[:5_000], url)
        with pytest.raises(ConnectionRefusedError):
            await client.download(url, path)
        assert sleeps == [0.4, 0.8, 1.6, 3.2]


async def test_a_read_timeout_is_continued_a_total_one_is_not(client, path, ticking):
    files = Files()
    async with serve(files) as server:
        files.faults = [stall_at(5_000)]
        await client.download(server.url, path, timeout=Timeout(read=0.02))
        assert path.read_bytes() == CONTENT
        files.faults = [stall_at(5_000)]
        with pytest.raises(TotalTimeout):
            await client.download(server.url, path, timeout=Timeout(total=0.02))
        files.faults = [stall_at(5_000)]
        with pytest.raises(ReadTimeout):
            await client.download(server.url, path, timeout=Timeout(read=0.02), resume=False)


async def test_cancelled_it_can_be_continued(client, path):
    files = Files(random.Random(3).randbytes(4_000_000))
    files.faults = [stall_at(3_000_000)]
    written = asyncio.Event()
    async with serve(files) as server:

        def progress(there: int, total: int | None) -> None:
            if there:
                written.set()

        task = asyncio.ensure_future(client.download(server.url, path, progress=progress))
        await written.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.stats().leased == 0
        assert not path.exists()
        response = await client.download(server.url, path)
        assert response.status == 206
        assert path.read_bytes() == files.content


async def test_what_a_cancelled_one_writes_late_is_in_no_other_file(client, path, monkeypatch):
    files = Files(b"old" * 1_000)
    began, go_on, written = asyncio.Event(), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def late(self: Any, data: bytearray) -> None:
        file = self._file
        loop.call_soon_threadsafe(began.set)
        go_on.wait(10)
        file.write(data)
        loop.call_soon_threadsafe(written.set)

    async with serve(files) as server:
        with monkeypatch.context() as patched:
            patched.setattr(PartFile, "_write", late)
            task = asyncio.ensure_future(client.download(server.url, path))
            await began.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        files.content, files.fields = b"new", {"ETag": '"v2"'}
        await client.download(server.url, path)
        go_on.set()
        await written.wait()
        await asyncio.sleep(0)
        assert path.read_bytes() == b"new"


async def test_cancelled_at_any_turn_the_next_one_is_right(client, path):
    files = Files()
    async with serve(files) as server:
        for turns in range(40):
            task = asyncio.ensure_future(client.download(server.url, path))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                break
        await client.download(server.url, path)
        assert path.read_bytes() == CONTENT
        assert files_beside(path) == set()


async def test_errors_of_the_disk(client, path, monkeypatch):
    async with serve(Files()) as server:
        with pytest.raises(FileNotFoundError, match=r"no/such/file\.part"):
            await client.download(server.url, path.parent / "no" / "such" / "file")
        assert client.stats().leased == 0
        folder = path.parent / "folder"
        folder.mkdir()
        with pytest.raises(IsADirectoryError):
            await client.download(server.url, folder)

        def full(self: Any, data: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(PartFile, "_write", full)
            with pytest.raises(OSError, match="No space left on device"):
                await client.download(server.url, path)
        assert client.stats().leased == 0
        assert not path.exists()
        await client.download(server.url, path)
        assert path.read_bytes() == CONTENT


async def test_a_body_that_cannot_be_decoded(client, path):
    data = gzip.compress(CONTENT)[:-8]
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(data)}\r\n\r\n"
    async with ScriptedServer([answer(head.encode() + data)]) as server:
        with pytest.raises(HTTPException, match="the body is cut short"):
            await client.download(server.url, path, decompress=True)
        assert not path.exists()


# ----------------------------------------------------------------- impossible responses


async def test_a_directory_is_refused_before_anything_is_asked_for(client, tmp_path):
    target = tmp_path / "a"
    target.mkdir()
    async with serve({"/": "x"}) as server:
        for path in (target, str(target), f"{target}/"):
            with pytest.raises(IsADirectoryError) as caught:
                await client.download(server.url, path)
            assert caught.value.errno == errno.EISDIR
            assert str(target) in str(caught.value)
        assert server.connections == 0
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("headers", ["x", b"x", 5, ["A: b"]])
async def test_what_are_no_headers_is_refused(headers, client, path):
    async with serve({"/": "x"}) as server:
        with pytest.raises(TypeError, match="headers must be a mapping or pairs"):
            await client.download(server.url, path, headers=headers)
        assert server.connections == 0


async def test_asyncios_timeout_ends_a_download_that_gains_a_byte_each_time(client, path):
    """A Timeout would not: it is for each request."""
    requests = 0

    def drip(request: Request) -> Reply:
        nonlocal requests
        requests += 1
        given = request.headers.get("Range")
        if given is None:
            fields = {"ETag": ETAG, "Content-Length": "1000000"}
            return Reply(b"x" * 100, headers=fields, fault=close_at(-1))
        start = int(given.removeprefix("bytes=").removesuffix("-"))
        if requests == 20:
            # Here, so that nothing is waited for.
            limit.reschedule(0)
        content_range = f"bytes {start}-{start + 1}/1000000"
        headers = {"ETag": ETAG, "Content-Range": content_range}
        return Reply(b"xx", status=206, headers=headers)

    async with serve(drip) as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit:
                await client.download(server.url, path, timeout=Timeout(total=5))
    assert limit.expired()
    assert requests >= 20
    assert client.stats().leased == 0
    assert path.with_name(f"{path.name}.part").stat().st_size >= 100
