"""The answers of real servers: chunks, codings, ranges, redirects, large bodies, empty ones."""

from __future__ import annotations

import hashlib

import pytest

from aiohttpconn import BodyTooLarge, Client

from .site import BIG, SMALL, TEXT

MIB = 1024 * 1024

CHUNKS = b"".join(b"%03d." % number * 250 for number in range(200))


async def test_chunks(origin):
    async with Client(trust_env=False) as client:
        for _ in range(3):
            response = await client.get(f"{origin.http}/app/chunks?200")
            assert response.content == CHUNKS
            assert response.headers["Transfer-Encoding"] == "chunked"
        assert response.reused
        async with client.stream("GET", f"{origin.http}/app/chunks?200") as response:
            assert b"".join([piece async for piece in response.iter_bytes()]) == CHUNKS
        # A stream that is left early costs its connection at most.
        async with client.stream("GET", f"{origin.http}/app/chunks?5000") as response:
            async for piece in response.iter_bytes(1000):
                assert piece == CHUNKS[:1000]
                break
        assert (await client.get(f"{origin.http}/app/n/1")).content == b"1"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
async def test_a_coding_is_negotiated(file_server, coding):
    has = {"apache2": ("gzip", "br"), "lighttpd": ("gzip", "deflate")}
    coded = coding in has.get(file_server.name, ("gzip",))
    async with Client(trust_env=False, headers={"Accept-Encoding": coding}) as client:
        for _ in range(2):
            response = await client.get(f"{file_server.http}/text.txt")
            assert response.content == TEXT
            assert response.headers["Content-Encoding"] == (coding if coded else None)
            assert response.raw.received < len(TEXT) / 2 or not coded
        async with client.stream("GET", f"{file_server.http}/text.txt") as response:
            assert b"".join([piece async for piece in response.iter_bytes()]) == TEXT
        raw = await client.get(f"{file_server.http}/text.txt", decompress=False)
        assert (raw.content == TEXT) is not coded
        assert client.stats().open == 1


async def test_no_coding_is_asked_for_without_decompress(file_server):
    async with Client(trust_env=False, decompress=False) as client:
        response = await client.get(f"{file_server.http}/text.txt")
        assert (response.content, response.headers["Content-Encoding"]) == (TEXT, None)
        assert response.headers["Content-Length"] == str(len(TEXT))


async def test_ranges(file_server):
    async with Client(trust_env=False, decompress=False) as client:
        url = f"{file_server.http}/text.txt"
        for asked, expected in [
            ("bytes=0-9", TEXT[:10]),
            ("bytes=500-", TEXT[500:]),
            ("bytes=-10", TEXT[-10:]),
        ]:
            response = await client.get(url, headers={"Range": asked})
            assert (response.status, response.content) == (206, expected)
            assert response.headers["Content-Range"].endswith(f"/{len(TEXT)}")
        response = await client.get(url, headers={"Range": f"bytes={len(TEXT)}-"})
        assert response.status == 416
        # apache2 and lighttpd do not say how much there is.
        assert response.headers["Content-Range"] in (None, f"bytes */{len(TEXT)}")
        response = await client.get(url, headers={"Range": "bytes=0-1,5000-5001"})
        assert response.headers["Content-Type"].startswith("multipart/byteranges")
        assert client.stats().open == 1


async def test_head(file_server):
    async with Client(trust_env=False, decompress=False) as client:
        for path, size in [("/text.txt", len(TEXT)), ("/big.bin", BIG), ("/small.txt", 12)] * 2:
            response = await client.head(file_server.http + path)
            assert (response.status, response.content) == (200, b"")
            assert response.headers["Content-Length"] == str(size)
        response = await client.head(f"{file_server.http}/missing")
        assert (response.status, response.content) == (404, b"")
        assert (await client.get(f"{file_server.http}/small.txt")).content == SMALL
        assert client.stats().open == 1


async def test_head_of_what_is_coded(file_server):
    async with Client(trust_env=False) as client:
        response = await client.head(f"{file_server.http}/text.txt")
        assert (response.status, response.content) == (200, b"")
        assert (await client.get(f"{file_server.http}/small.txt")).content == SMALL
        assert client.stats().open == 1


async def test_what_has_not_changed_is_not_sent(file_server):
    async with Client(trust_env=False, decompress=False) as client:
        first = await client.get(f"{file_server.http}/text.txt")
        for condition in (
            {"If-None-Match": first.headers["ETag"]},
            {"If-Modified-Since": first.headers["Last-Modified"]},
        ):
            response = await client.get(f"{file_server.http}/text.txt", headers=condition)
            assert (response.status, response.content) == (304, b"")
        response = await client.get(
            f"{file_server.http}/text.txt", headers={"If-None-Match": '"other"'}
        )
        assert (response.status, response.content) == (200, TEXT)
        assert client.stats().open == 1


async def test_a_folder_without_its_slash_redirects(file_server):
    async with Client(trust_env=False) as client:
        response = await client.get(f"{file_server.http}/folder?x=1")
        assert (response.status, response.content) == (200, b"<!doctype html><p>here")
        assert response.url == f"{file_server.http}/folder/?x=1"
        assert [(each.status, each.url) for each in response.history] == [
            (301, f"{file_server.http}/folder?x=1")
        ]
        assert response.reused
        response = await client.get(f"{file_server.http}/folder", follow_redirects=False)
        assert (response.status, len(response.content) > 0) == (301, file_server.name != "lighttpd")
        assert client.stats().open == 1


async def test_a_large_body(file_server, site):
    async with Client(trust_env=False) as client:
        response = await client.get(f"{file_server.http}/big.bin")
        assert len(response.content) == BIG
        assert hashlib.sha256(response.content).hexdigest() == site.digest
        del response
        digest = hashlib.sha256()
        async with client.stream("GET", f"{file_server.http}/big.bin") as response:
            async for piece in response.iter_bytes():
                digest.update(piece)
        assert digest.hexdigest() == site.digest
        assert response.reused


async def test_a_large_body_is_refused(file_server):
    async with Client(trust_env=False, max_body=MIB) as client:
        url = f"{file_server.http}/big.bin"
        with pytest.raises(BodyTooLarge, match=rf"max_body={MIB} bytes, {BIG} announced"):
            await client.get(url)
        with pytest.raises(BodyTooLarge, match=f"a body of more than max_body={MIB} bytes"):
            await client.get(f"{file_server.http}/app/chunks?{4 * MIB // 1000}")
        async with client.stream("GET", url) as response:
            with pytest.raises(BodyTooLarge, match=rf"max_body={MIB} bytes"):
                async for _ in response.iter_bytes():
                    pass
        assert client.stats().open == 0
        assert (await client.get(f"{file_server.http}/small.txt")).content == SMALL


async def test_a_large_body_in_chunks(origin):
    async with Client(trust_env=False) as client:
        response = await client.get(f"{origin.http}/app/chunks?4000")
        assert len(response.content) == 4_000_000
        assert response.content.startswith(CHUNKS)


async def test_a_download_goes_on_where_it_was_left(file_server, site, tmp_path):
    class Enough(Exception):
        pass

    def stop(received, total):
        assert total == BIG
        if received > 5 * MIB:
            raise Enough

    path = tmp_path / "big.bin"
    url = f"{file_server.http}/big.bin"
    async with Client(trust_env=False) as client:
        with pytest.raises(Enough):
            await client.download(url, path, progress=stop)
        left = (tmp_path / "big.bin.part").stat().st_size
        assert 5 * MIB < left < BIG
        seen = []
        response = await client.download(url, path, progress=lambda n, total: seen.append(n))
        assert response.status == 206
        assert seen[0] == left
        assert seen[-1] == BIG
        assert seen == sorted(set(seen))
        assert hashlib.sha256(path.read_bytes()).hexdigest() == site.digest
        assert sorted(each.name for each in tmp_path.iterdir()) == ["big.bin"]


async def test_a_download_that_lacks_nothing_ends(file_server, tmp_path):
    class Enough(Exception):
        pass

    def stop(received, total):
        if received == total:
            raise Enough

    path = tmp_path / "text.txt"
    url = f"{file_server.http}/text.txt"
    async with Client(trust_env=False) as client:
        with pytest.raises(Enough):
            await client.download(url, path, progress=stop)
        seen = []
        response = await client.download(url, path, progress=lambda *args: seen.append(args))
        assert (response.status, response.headers["Content-Length"]) == (206, "1")
        assert seen == [(len(TEXT), len(TEXT))]
        assert path.read_bytes() == TEXT
        assert sorted(each.name for each in tmp_path.iterdir()) == ["text.txt"]


async def test_trailers(nginx, haproxy):
    # nginx sends them if asked to; haproxy passes them on.
    async with Client(trust_env=False) as client:
        for server in nginx, haproxy:
            async with client.stream("GET", f"{server.http}/trailers?3") as response:
                assert await response.read() == CHUNKS[:3000]
                assert response.raw.trailers["X-Rows"] == "3"
            assert (await client.get(f"{server.http}/small.txt")).reused
