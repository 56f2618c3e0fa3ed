"""Uploads to real servers: lengths, chunks, files, Expect, and answers that come early."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os

import pytest

from aiohttpconn import Client

from .origins import MAX_UPLOAD
from .site import SMALL

MIB = 1024 * 1024
DATA = os.urandom(MIB)
DIGEST = hashlib.sha256(DATA).hexdigest()


def described(response) -> dict:
    assert response.status == 200, response.content
    return json.loads(response.content)


async def pieces(count: int = 16):
    for at in range(count):
        size = len(DATA) // count
        yield DATA[at * size : (at + 1) * size]


async def test_a_body_of_bytes(origin):
    async with Client(trust_env=False) as client:
        got = described(await client.post(f"{origin.http}/app/echo", content=DATA))
        assert (got["method"], got["length"], got["sha256"]) == ("POST", MIB, DIGEST)
        assert got["headers"]["content-length"] == str(MIB)
        # Any size, also those of one write; and the connection serves them all.
        for size in 0, 1, 65536, 65537, 200_000:
            got = described(await client.put(f"{origin.http}/app/echo", content=DATA[:size]))
            assert got["sha256"] == hashlib.sha256(DATA[:size]).hexdigest()
        assert client.stats().open == 1


async def test_a_body_in_chunks(origin):
    async with Client(trust_env=False) as client:
        for _ in range(2):
            response = await client.post(f"{origin.http}/app/echo", content=pieces())
            got = described(response)
            assert (got["length"], got["sha256"]) == (MIB, DIGEST)
        assert response.reused
        if not origin.has_files:
            # What is in front of an application may gather them.
            assert got["headers"]["transfer-encoding"] == "chunked"


async def test_a_file(origin, tmp_path):
    path = tmp_path / "data"
    path.write_bytes(DATA)
    async with Client(trust_env=False) as client:
        with path.open("rb") as file:
            got = described(await client.put(f"{origin.http}/app/echo", content=file))
        assert (got["length"], got["sha256"]) == (MIB, DIGEST)
        assert got["headers"]["content-length"] == str(MIB)


async def test_a_form_with_files(origin, tmp_path):
    path = tmp_path / "data.bin"
    path.write_bytes(DATA)
    async with Client(trust_env=False) as client:
        response = await client.post(
            f"{origin.http}/app/echo",
            data={"name": "Ada"},
            files={"a": path, "b": ("b.txt", io.BytesIO(b"hello"), "text/plain")},
        )
        got = described(response)
        assert got["headers"]["content-type"].startswith("multipart/form-data; boundary=")
        assert got["headers"]["content-length"] == str(got["length"])
        assert got["length"] > MIB


async def test_json_and_forms(origin):
    async with Client(trust_env=False) as client:
        got = described(await client.post(f"{origin.http}/app/echo", json={"a": [1, 2]}))
        assert got["headers"]["content-type"] == "application/json"
        got = described(await client.post(f"{origin.http}/app/echo?x=1", data={"a": "b c"}))
        assert (got["query"], got["length"]) == ("x=1", 5)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_expect_is_accepted(origin, chunked):
    async with Client(trust_env=False) as client:
        response = await client.post(
            f"{origin.http}/app/echo",
            content=pieces() if chunked else DATA,
            headers={"Expect": "100-continue"},
        )
        got = described(response)
        assert (got["length"], got["sha256"]) == (MIB, DIGEST)
        # The server has said so: 100 Continue is not waited for until its time is over.
        assert response.timings.wait + response.timings.send < 0.9
        again = await client.get(f"{origin.http}/app/n/1")
        assert (again.content, again.reused) == (b"1", True)


class Upload:
    """A body that tells how much of it was asked for."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sent = 0

    async def __aiter__(self):
        while self.sent < self.size:
            self.sent += MIB
            yield DATA


async def test_a_body_that_is_too_large_is_refused_before_it_is_sent(file_server):
    upload = Upload(4 * MAX_UPLOAD)
    headers = {"Expect": "100-continue", "Content-Length": str(upload.size)}
    async with Client(trust_env=False) as client:
        url = f"{file_server.http}/small.txt"
        response = await client.post(url, content=upload, headers=headers)
        assert (response.status, upload.sent) == (413, 0)
        assert (await client.get(url)).content == SMALL


async def test_a_body_that_is_too_large_is_refused_while_it_is_sent(file_server):
    async with Client(trust_env=False) as client:
        url = f"{file_server.http}/small.txt"
        response = await client.post(url, content=bytes(4 * MAX_UPLOAD))
        assert response.status == 413
        assert (await client.get(url)).content == SMALL


async def test_haproxy_refuses_the_expectation(haproxy):
    upload = Upload(MIB)
    async with Client(trust_env=False) as client:
        headers = {"Expect": "100-continue"}
        response = await client.post(f"{haproxy.http}/plainly/", content=upload, headers=headers)
        assert (response.status, upload.sent) == (417, 0)


async def test_uploads_at_once(origin):
    async with Client(trust_env=False) as client:
        answers = await asyncio.gather(
            *(
                client.post(f"{origin.http}/app/echo", content=DATA[:size])
                for size in range(100_000, 500_000, 20_000)
            )
        )
        assert [described(answer)["length"] for answer in answers] == [
            *range(100_000, 500_000, 20_000)
        ]
