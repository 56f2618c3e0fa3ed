"""A body that decodes to much more than came holds the loop for no longer than a few steps of it.

Turns of the loop are counted between one call of a codec and the next: no clock is asked.
"""

from __future__ import annotations

import asyncio
import gzip
import zlib

import pytest

from aiohttpconn import Client, ContentDecodingError
from aiohttpconn.client.content import codecs
from aiohttpconn.client.content.decoding import STEP, ContentDecoder, decode_in_steps
from aiohttpconn.testing import Reply, serve

from ..test_decoding import ENCODERS, MiB

LARGE = 8 * MiB
UNLIMITED = {"max_body": None, "max_ratio": None}

TEXT = b"".join(b"%d, %d\n" % (i, i * i) for i in range(100_000))


def serving(wire, coding="gzip"):
    return serve({"/": Reply(wire, headers={"Content-Encoding": coding})})


def coded(data, codings):
    for coding in codings:
        data = ENCODERS[coding](data)
    return data


BODIES = {
    "zeros": bytes(LARGE) + b"\n",
    "text": TEXT * 3,
}


WIRES = {body: gzip.compress(body, 1) for body in BODIES.values()}


class Pulse:
    """Count how often another task has its turn, and the work that codecs do between two turns."""

    def __init__(self, monkeypatch):
        self.most = self.now = self.turns = 0
        feed = ContentDecoder.feed

        def counted(decoder, data, *args):
            try:
                return feed(decoder, data, *args)
            finally:
                self.now += decoder.work
                self.most = max(self.most, self.now)

        monkeypatch.setattr(ContentDecoder, "feed", counted)

    async def beat(self):
        while True:
            self.now = 0
            self.turns += 1
            await asyncio.sleep(0)


@pytest.fixture
async def pulse(monkeypatch):
    made = Pulse(monkeypatch)
    task = asyncio.ensure_future(made.beat())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def by_get(client, url):
    return (await client.get(url)).content


async def by_read(client, url):
    async with client.stream("GET", url) as response:
        return await response.read()


async def by_bytes(client, url):
    async with client.stream("GET", url) as response:
        return b"".join([piece async for piece in response.iter_bytes()])


async def by_large_bytes(client, url):
    async with client.stream("GET", url) as response:
        return b"".join([piece async for piece in response.iter_bytes(4 * MiB)])


async def by_lines(client, url):
    async with client.stream("GET", url) as response:
        lines = [line async for line in response.iter_lines(max_line=2 * LARGE)]
        return "".join(f"{line}\n" for line in lines).encode()


WAYS = {
    "get": by_get,
    "read": by_read,
    "iter": by_bytes,
    "iter-n": by_large_bytes,
    "lines": by_lines,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("kind", BODIES)
async def test_other_tasks_run_while_a_body_is_decoded(pulse, way, kind):
    body = BODIES[kind]
    async with serving(WIRES[body]) as server:
        async with Client(trust_env=False, max_body=None, max_ratio=None) as client:
            assert await way(client, server.url) == body
    assert pulse.turns >= len(body) // STEP // 2
    assert pulse.most <= 3 * STEP


@pytest.mark.parametrize(
    "codings",
    [["gzip"], ["deflate"], ["br"], ["zstd"], ["gzip", "br"], ["br", "zstd", "gzip", "deflate"]],
    ids="-".join,
)
async def test_other_tasks_run_whatever_the_coding_is(pulse, codings):
    body = TEXT * 2
    wire = coded(body, codings)
    async with serving(wire, ", ".join(codings)) as server:
        async with Client(trust_env=False, max_body=None, max_ratio=None) as client:
            assert await by_get(client, server.url) == body
            assert await by_bytes(client, server.url) == body
    assert pulse.turns >= len(body) // STEP
    assert pulse.most <= 3 * STEP


async def test_a_download_lets_other_tasks_run(pulse, tmp_path):
    body = BODIES["zeros"]
    async with serving(WIRES[body]) as server:
        async with Client(trust_env=False, max_ratio=None) as client:
            await client.download(server.url, tmp_path / "file", decompress=True)
    assert (tmp_path / "file").read_bytes() == body
    assert pulse.most <= 3 * STEP


HOLLOW = {
    # Nothing comes out of them, however much goes in.
    "empty-blocks": ("deflate", zlib.compress(b"")[:2] + b"\0\0\0\xff\xff" * (MiB // 5 * 8)),
    "empty-members": ("gzip", gzip.compress(b"", mtime=0) * 900),
    "empty-frames": ("zstd", ENCODERS["zstd"](b"") * 900),
    "skippable-frames": ("zstd", b"\x50\x2a\x4d\x18\0\0\4\0" * 1 + bytes(4 * 65536)),
}


@pytest.mark.parametrize("kind", HOLLOW)
def test_a_call_does_the_work_of_one_step(kind, monkeypatch):
    coding, wire = HOLLOW[kind]
    members = 0
    make = codecs.Members._count_member

    def count(self):
        nonlocal members
        members += 1
        make(self)

    monkeypatch.setattr(codecs.Members, "_count_member", count)
    decoder = ContentDecoder([coding], **UNLIMITED)
    data = wire
    while data or decoder.pending:
        members = 0
        assert decoder.feed(data) == b""
        data = b""
        assert decoder.work <= 2 * STEP
        assert members <= 300


def test_a_small_body_is_decoded_in_one_go():
    for coding in ENCODERS:
        steps = decode_in_steps(coded(TEXT[:200_000], [coding]), [coding], **UNLIMITED)
        with pytest.raises(StopIteration):
            next(steps)


async def test_a_reading_that_is_cancelled_while_it_decodes_is_not_taken_for_the_whole(pulse):
    body = BODIES["zeros"]
    async with serving(WIRES[body]) as server:
        async with Client(trust_env=False, max_body=None, max_ratio=None) as client:
            async with client.stream("GET", server.url) as response:
                reading = asyncio.ensure_future(response.read())
                while not pulse.most:
                    await asyncio.sleep(0)
                # A second reader has no body: the first has taken it.
                with pytest.raises(RuntimeError, match="can be iterated over once, and has been"):
                    await response.read()
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reading
                with pytest.raises(RuntimeError, match="can be iterated over once, and has been"):
                    await response.read()
                with pytest.raises(RuntimeError):
                    _ = response.content
            assert (await client.get(server.url)).content == body


async def test_a_body_that_breaks_late_has_its_error_and_all_before_it():
    wire = gzip.compress(TEXT)
    wire = wire[:-8] + bytes(8)
    async with serving(wire) as server:
        async with Client(trust_env=False) as client:
            with pytest.raises(ContentDecodingError, match="incorrect data check") as caught:
                await client.get(server.url)
    assert caught.value.partial == TEXT
