"""``python -m aiohttpconn demo``: what it prints, that it checks what it says, its certificate."""

from __future__ import annotations

import datetime
import gzip
import re
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from aiohttpconn import CertificateError, HTTPSConnection, TunnelError
from aiohttpconn.cli import demo, main

from .support import ScriptedServer
from .support.programs import complaints

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "aiohttpconn" / "cli"

INTRODUCTION = """\
An HTTPS server and a proxy run inside this process; no network is used.
dns, connect, proxy and tls make a connection; wait is for the head, receive for the body.
"""

VISIT = """
On LOOP, times in ms dns connect proxy tls send wait receive
GET /hello N N - N N N N
 200 OK, <HTTPSConnection 127.0.0.1:PORT tls1.3 idle, 1 request>
POST /upload - - - - N N N
 a file of 2 MiB; the server got the same SHA-256
GET /download 2 4 6 8 MiB - - - - N N N
 chunked; the SHA-256 in its trailer is right; one connection for all three
GET /hello, through the proxy N N N N N N N
 200 OK; the proxy relayed TLS, and read nothing
500 pages with Client, 64 at once over 8 connections
 N s, so N pages/s; 1.1 MB of text, which came as gzip
 the first of them, N ms from the call to the last byte:
 queue N
 dns N
 connect N
 tls N
 send N
 wait N
 receive N
"""

NO_UVLOOP = "\nuvloop, a faster event loop, is not installed: python -m pip install uvloop\n"

THE_END = "\nEverything arrived as it was sent.\n"


def shape(text: str) -> str:
    """Return what the demo printed, but for the versions, numbers and blanks of this run."""
    text = text.partition("\n")[2]
    text = re.sub(r" +█+$", "", text, flags=re.MULTILINE)
    text = re.sub(" +", " ", text)
    text = re.sub(r"\d+\.\d\d s, so \d+ pages", "N s, so N pages", text)
    text = re.sub(r"(?<= )\d+\.\d(?=[ \n])(?! MB)", "N", text)
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", text)
    return text.replace("On asyncio,", "On LOOP,")


@pytest.fixture
def no_uvloop(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)


def test_the_program_shows_everything_and_leaves_nothing():
    command = [sys.executable, "-W", "error", "-X", "dev", "-m", "aiohttpconn", "demo"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.returncode, complaints(result.stderr)) == (0, "")
    assert max(map(len, result.stdout.splitlines())) <= 100
    end = THE_END if "\nOn uvloop" in result.stdout else NO_UVLOOP + THE_END
    visits = VISIT + VISIT.replace("LOOP", "uvloop") if end == THE_END else VISIT
    assert shape(result.stdout) == INTRODUCTION + visits + end


def test_shows_what_it_can_without_uvloop(capsys, no_uvloop):
    assert main(["demo"]) == 0
    out, err = capsys.readouterr()
    assert shape(out) == INTRODUCTION + VISIT + NO_UVLOOP + THE_END
    assert err == ""


def _wrong(status, body):
    return b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n?"


async def _damaged(writer):
    body = demo.random.Random(3).randbytes(demo.DOWNLOAD_SIZE)
    chunk = b"%X\r\n%b\r\n" % (len(body), body)
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    writer.write(chunk + b"0\r\nSHA-256: 0\r\n\r\n")


async def _truncated(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n")
    await writer.drain()
    raise EOFError("enough")


async def _refused(reader, writer):
    writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("HOST", "192.0.2.1", "on a"),
        ("_response", _wrong, "/hello gave another greeting"),
        ("_send_download", _damaged, "the download arrived damaged"),
        ("_send_download", _truncated, "GET https://127.0.0.1:PORT/download: IncompleteRead(4 "),
        ("_tunnel", _refused, "https://127.0.0.1:PORT: Tunnel connection failed: 403 Forbidden"),
        ("page", lambda number: gzip.compress(b"another"), "/page/"),
    ],
)
def test_a_failure_is_one_line_and_1(capsys, monkeypatch, no_uvloop, name, value, text):
    monkeypatch.setattr(demo, name, value)
    assert main(["demo"]) == 1
    out, err = capsys.readouterr()
    assert THE_END not in out
    assert err.startswith("The demo failed: ")
    assert err.count("\n") == 1
    assert text in re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", err)


def test_takes_no_arguments(capsys):
    assert main(["demo", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: python -m aiohttpconn demo")
    assert main(["demo", "https://example.org/"]) == 2
    assert "unrecognized arguments: https://example.org/" in capsys.readouterr().err


async def test_the_proxy_leads_to_this_machine_only():
    async with demo._serving(demo._tunnel) as port:
        async with HTTPSConnection("127.0.0.1", port) as conn:
            conn.set_tunnel("example.org", 443)
            with pytest.raises(TunnelError, match="Tunnel connection failed: 403 Forbidden"):
                await conn.connect()


# The certificate -------------------------------------------------------------------------


def certificate(name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((FOLDER / name).read_bytes())


@pytest.mark.parametrize("name", ["test-authority.pem", "test-server.pem"])
def test_the_certificates_are_labelled_and_last(name):
    assert "TEST" in (FOLDER / name).read_text("ascii").splitlines()[0]
    found = certificate(name)
    assert "TEST" in found.subject.rfc4514_string()
    assert found.not_valid_before_utc.year == 2020
    assert found.not_valid_after_utc > datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)


def test_nobody_can_sign_with_the_authority():
    assert "PRIVATE KEY" not in (FOLDER / "test-authority.pem").read_text("ascii")
    authority = certificate("test-authority.pem").public_key()
    assert authority != certificate("test-server.pem").public_key()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
async def test_the_certificate_stands_the_strictest_verification(name):
    context = demo._client_context()
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    async with demo._serving(demo._answer, demo._server_context()) as port:
        async with HTTPSConnection(
            "127.0.0.1", port, context=context, server_hostname=name
        ) as conn:
            await conn.request("GET", "/hello")
            assert await (await conn.getresponse()).read() == demo.GREETING


async def test_nobody_else_trusts_the_authority():
    async with ScriptedServer([], tls=demo._server_context()) as server:
        with pytest.raises(CertificateError):
            await HTTPSConnection(*server.address).connect()
