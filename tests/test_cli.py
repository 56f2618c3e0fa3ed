"""``python -m aiohttpconn URL``: what it sends, what it writes where, and its exit codes.

Most tests call ``main()`` in a thread, on the kind of loop that the test runs on, against
servers in the test's own loop; a few start the program.
"""

from __future__ import annotations

import asyncio
import errno
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from aiohttpconn import ConnectError, InvalidURL, TLSError, __version__
from aiohttpconn.cli import curl, main
from aiohttpconn.cli.exits import Failed, exit_code
from aiohttpconn.cli.options import parse
from aiohttpconn.cli.urls import locate

from .support import (
    ConnectProxy,
    ScriptedServer,
    close,
    expect,
    expect_request,
    notify,
    refusing_address,
    reset,
    send,
)

ROOT = Path(__file__).parent.parent

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n"

pipes = pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="needs /dev/fd")


@dataclass
class Result:
    code: int
    out: bytes
    err: str


@pytest.fixture
async def cli(capfdbinary, monkeypatch):
    """Return ``await cli(*argv)``: run the command line, return its exit code and what it wrote."""
    make_loop = type(asyncio.get_running_loop())

    def run(coroutine):
        with asyncio.Runner(loop_factory=make_loop) as runner:
            return runner.run(coroutine)

    monkeypatch.setattr(curl, "run", run)

    async def call(*argv: str) -> Result:
        code = await asyncio.to_thread(main, argv)
        out, err = capfdbinary.readouterr()
        return Result(code, out, err.decode())

    return call


def answers(*responses: bytes, **keywords) -> ScriptedServer:
    """Return a server that sends *responses* to a request, and closes."""
    return ScriptedServer([expect_request(), send(*responses), close()], **keywords)


def start(*argv: str, shell: str = 'exec "$@"', stdout: int = subprocess.PIPE):
    """Start the program, by a line of shell in which ``"$@"`` is its command."""
    command = [sys.executable, "-W", "error", "-m", "aiohttpconn", *argv]
    if os.name == "posix":
        command = ["sh", "-c", shell, "sh", *command]
    # Buffered output fails late, which is what a user sees.
    environment = {name: os.environ[name] for name in os.environ if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=stdout, stderr=subprocess.PIPE
    )


# Requests --------------------------------------------------------------------------------


async def test_writes_the_body_and_nothing_else(cli):
    async with answers(OK) as server:
        assert await cli(server.url) == Result(0, b"hi\n", "")
    assert server.heads == [
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: aiohttpconn/%b\r\nAccept: */*\r\n\r\n"
        % (server.port, __version__.encode())
    ]


async def test_a_url_without_scheme_is_http(cli):
    async with answers(OK) as server:
        assert await cli(f"127.0.0.1:{server.port}?x=1#there") == Result(0, b"hi\n", "")
    assert server.heads[0].startswith(b"GET /?x=1 HTTP/1.1\r\n")


async def test_user_and_password_of_the_url_are_not_in_its_target(cli):
    async with answers(OK) as server:
        await cli(f"http://user:p%40ss@127.0.0.1:{server.port}/ä?ü")
    head = server.heads[0]
    assert head.startswith(b"GET /%C3%A4?%C3%BC HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nAuthorization: Basic dXNlcjpwQHNz\r\n" in head


async def test_fields_of_h_replace_add_and_remove(cli):
    async with answers(OK) as server:
        fields = ["Accept:", "User-Agent: me", "X-Empty;", "X: 1", "X: 2", "Host: example.org"]
        await cli(*(part for field in fields for part in ("-H", field)), server.url)
    assert server.heads == [
        b"GET / HTTP/1.1\r\n"
        b"User-Agent: me\r\nX-Empty: \r\nX: 1\r\nX: 2\r\nHost: example.org\r\n\r\n"
    ]


async def test_posts_a_form(cli):
    async with answers(OK) as server:
        assert (await cli("-d", "a=1", "-d", "b=ü", server.url)).code == 0
    assert server.received[0].startswith(b"POST / HTTP/1.1\r\n")
    assert server.received[0].endswith(
        b"\r\nContent-Length: 8\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n"
        b"a=1&b=\xc3\xbc"
    )


async def test_data_goes_with_another_method_and_type(cli):
    async with answers(OK) as server:
        argv = ["-X", "PUT", "--data-raw", "@x", "-H", "content-type: text/plain", server.url]
        assert (await cli(*argv)).code == 0
    assert server.received[0].startswith(b"PUT / HTTP/1.1\r\n")
    assert server.received[0].endswith(b"Content-Length: 2\r\ncontent-type: text/plain\r\n\r\n@x")


async def test_a_post_without_data_says_that_it_has_none(cli):
    async with answers(OK) as server:
        assert (await cli("-X", "POST", server.url)).code == 0
    assert server.heads[0].endswith(b"Accept: */*\r\nContent-Length: 0\r\n\r\n")


async def test_data_can_be_chunked(cli):
    async with answers(OK) as server:
        assert (await cli("-d", "abc", "-H", "Transfer-Encoding: chunked", server.url)).code == 0
    assert server.received[0].endswith(
        b"\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    assert b"Content-Length" not in server.heads[0]


# Responses -------------------------------------------------------------------------------


async def test_include_writes_the_heads(cli):
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with answers(hints + OK) as server:
        assert await cli("-i", server.url) == Result(0, hints + OK, "")


async def test_head_asks_for_and_writes_the_head(cli):
    async with answers(OK[:-3]) as server:
        assert await cli("-I", server.url) == Result(0, OK[:-3], "")
    assert server.heads[0].startswith(b"HEAD / HTTP/1.1\r\n")


async def test_fail_writes_no_body_and_makes_no_file(cli, tmp_path):
    async with answers(NOT_FOUND) as server:
        result = await cli("-f", "-o", str(tmp_path / "page"), server.url)
        assert result == Result(22, b"", f"aiohttpconn: (22) {server.url}: 404 Not Found\n")
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize("body", [b"", b"x" * 300_000])
async def test_output_goes_to_a_file(cli, tmp_path, body):
    path = tmp_path / "page"
    path.write_bytes(b"an older, longer one" * 20_000)
    async with answers(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)) as s:
        assert await cli("-o", str(path), s.url) == Result(0, b"", "")
    assert path.read_bytes() == body


async def test_output_that_cannot_be_written_is_23(cli, tmp_path):
    async with answers(OK) as server:
        path = str(tmp_path / "none" / "page")
        expected = f"aiohttpconn: (23) cannot write to {path!r}: No such file or directory\n"
        assert await cli("-o", path, server.url) == Result(23, b"", expected)


async def test_verbose_tells_on_standard_error(cli):
    async with answers(OK[:17] + b"Name: \xc3\xa4\x9b1m\r\n" + OK[17:]) as server:
        result = await cli("-v", f"http://user:secret@127.0.0.1:{server.port}/")
    assert (result.code, result.out) == (0, b"hi\n")
    lines = result.err.splitlines()
    assert lines[0] == f"* connecting to 127.0.0.1, port {server.port}"
    assert lines[1].startswith(f"* connected to 127.0.0.1:{server.port} (dns ")
    assert lines[2:-1] == [
        "> GET / HTTP/1.1",
        f"> Host: 127.0.0.1:{server.port}",
        "> Authorization: Basic ***",
        f"> User-Agent: aiohttpconn/{__version__}",
        "> Accept: */*",
        ">",
        "< HTTP/1.1 200 OK",
        r"< Name: ä\x9b1m",
        "< Content-Length: 3",
        "<",
    ]
    assert lines[-1].startswith("* 3 bytes of body; request sent in ")


# Exit codes ------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("response", "code", "text"),
    [
        (b"", 52, "Remote end closed connection without response"),
        (b"HTTP/1.1 200 O", 52, "in the middle of the response's head"),
        (b"SSH-2.0-OpenSSH\r\n", 1, "not a status line: "),
        (b"HTTP/2 200 OK\r\n\r\n", 1, "unknown protocol: HTTP/2"),
        (HEAD + b"Content-Length: 9\r\n\r\nhi", 18, "2 bytes read, 7 more expected"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhi", 18, "2 bytes read, 3 more expected"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 56, "not a chunk-size line"),
        (HEAD + b"Transfer-Encoding: brotli\r\n\r\n", 61, "cannot read Transfer-Encoding: brotli"),
        (HEAD + b"A: b\0c\r\n\r\n", 8, "a NUL byte in the head"),
        (HEAD + b"A: %b\r\n\r\n" % (b"x" * 70_000), 56, "got more than 65536 bytes"),
    ],
)
async def test_bad_responses(cli, response, code, text):
    async with answers(response) as server:
        result = await cli(server.url)
        assert (result.code, result.err.count("\n")) == (code, 1)
        assert result.err.startswith(f"aiohttpconn: ({code}) GET {server.url}: ")
    assert text in result.err


async def test_what_arrived_of_a_truncated_body_is_written(cli):
    async with answers(HEAD + b"Content-Length: 9\r\n\r\nhi") as server:
        result = await cli(server.url)
    assert (result.code, result.out) == (18, b"hi")


@pytest.mark.parametrize("response", [b"", HEAD, HEAD + b"Content-Length: 9\r\n\r\nhi"])
async def test_a_reset_is_56(cli, response):
    async with ScriptedServer([expect(), send(response), reset()]) as server:
        assert (await cli(server.url)).code == 56


async def test_a_refused_connection_is_7(cli):
    with refusing_address() as (host, port):
        result = await cli(f"http://{host}:{port}/")
    assert result.code == 7
    assert f"connection refused by {host}:{port}" in result.err


@pytest.mark.parametrize(("argv", "code"), [((), 6), (("-x", "http://nohost.invalid:1"), 5)])
async def test_a_name_without_address(cli, monkeypatch, argv, code):
    def getaddrinfo(host, *args, **keywords):
        raise socket.gaierror(socket.EAI_NONAME, f"nobody knows {host}")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    result = await cli(*argv, "http://nohost.invalid/")
    assert result.code == code
    assert "cannot resolve 'nohost.invalid': nobody knows" in result.err


async def test_max_time_ends_the_wait_for_a_response(cli):
    async with ScriptedServer([expect()]) as server:
        result = await cli("-m", "0.05", server.url)
    assert result.code == 28
    # Less than 0.05 s: connecting took its part of them.
    assert re.search(r": the exchange did not end within 0\.0[0-9]{1,2} s \(", result.err)


async def test_max_time_ends_a_name_lookup_that_cannot_be_interrupted(cli, monkeypatch):
    over = threading.Event()
    lookups = []

    def getaddrinfo(*args, **keywords):
        lookups.append(threading.current_thread())
        over.wait()
        raise socket.gaierror(socket.EAI_NONAME, "too late")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    result = await cli("--max-time", ".05", "http://slow.example/")
    over.set()
    lookups[0].join()
    assert result.code == 28
    assert "not connected within 0.05 s, total=0.05 (dns, " in result.err


@pytest.mark.parametrize(
    ("exc", "attributes", "code"),
    [
        (ConnectError("no route"), {"errno": errno.EHOSTUNREACH}, 7),
        (ConnectError("SYN was never answered"), {"errno": errno.ETIMEDOUT}, 28),
        (TLSError("bad handshake"), {"phase": "tls"}, 35),
        (TLSError("certificate required"), {"phase": "waiting for the head"}, 56),
        (ConnectionResetError("reset"), {"phase": "sending"}, 55),
        (ConnectionResetError("reset"), {"phase": "waiting for the head"}, 56),
    ],
)
def test_codes_that_depend_on_more_than_the_type(exc, attributes, code):
    for name, value in attributes.items():
        setattr(exc, name, value)
    assert exit_code(exc) == code


# TLS -------------------------------------------------------------------------------------


async def test_an_unknown_authority_is_60(cli, certificates):
    async with answers(OK, tls=certificates.server) as server:
        result = await cli(f"https://localhost:{server.port}/")
    assert result.code == 60
    assert "cannot be verified for 'localhost'" in result.err
    assert result.err.endswith(" (here: --cacert FILE, or -k to verify nothing)\n")


async def test_cacert_names_the_authority(cli, certificates):
    async with answers(OK, tls=certificates.server) as server:
        url = f"https://localhost:{server.port}/"
        result = await cli("-v", "--cacert", certificates.ca_file, url)
    assert (result.code, result.out) == (0, b"hi\n")
    assert "\n* TLSv1.3, " in result.err
    assert ", certificate verified\n" in result.err


async def test_insecure_verifies_nothing(cli, certificates):
    async with answers(OK, tls=certificates.self_signed) as server:
        result = await cli("-kv", f"https://127.0.0.1:{server.port}/")
    assert (result.code, result.out) == (0, b"hi\n")
    assert ", certificate NOT verified (-k)\n" in result.err


async def test_a_server_without_tls_is_35(cli):
    async with ScriptedServer([send(b"SSH-2.0-OpenSSH\r\n")]) as server:
        result = await cli(f"https://127.0.0.1:{server.port}/")
    assert result.code == 35
    assert "(tls, " in result.err


async def test_an_authority_file_that_is_none_is_77(cli, tmp_path):
    result = await cli("--cacert", str(tmp_path / "none.pem"), "https://127.0.0.1:1/")
    assert result.code == 77
    assert "cannot read cafile" in result.err


# Proxies ---------------------------------------------------------------------------------


async def test_an_http_url_is_asked_of_the_proxy(cli):
    async with answers(OK) as proxy:
        url = "http://me:pw@example.org/page"
        result = await cli("-x", f"user:pass@127.0.0.1:{proxy.port}", url)
    assert result == Result(0, b"hi\n", "")
    assert proxy.heads == [
        b"GET http://example.org/page HTTP/1.1\r\nHost: example.org\r\n"
        b"Proxy-Authorization: Basic dXNlcjpwYXNz\r\nAuthorization: Basic bWU6cHc=\r\n"
        b"User-Agent: aiohttpconn/%b\r\nAccept: */*\r\n\r\n" % __version__.encode()
    ]


async def test_an_https_url_goes_through_a_tunnel(cli, certificates):
    origin = answers(OK, tls=certificates.server)
    async with origin, ConnectProxy(credentials="user:pass") as proxy:
        argv = ["--cacert", certificates.ca_file, f"https://localhost:{origin.port}/"]
        result = await cli("-v", "-x", f"http://user:pass@127.0.0.1:{proxy.port}", *argv)
        assert (result.code, result.out) == (0, b"hi\n")
    assert proxy.targets == [f"localhost:{origin.port}"]
    assert b"Proxy-Authorization" not in origin.heads[0]
    assert origin.heads[0].startswith(b"GET / HTTP/1.1\r\n")
    note = f"* tunnel to localhost, port {origin.port}: 200 Connection established\n"
    assert note in result.err
    assert "dXNlcjpwYXNz" not in result.err


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_can_speak_tls(cli, certificates, monkeypatch, scheme):
    # The system's authorities do not know the tests' one.
    async def default_context(cafile=None):
        return certificates.client

    monkeypatch.setattr(curl, "default_context", default_context)
    origin = answers(OK, tls=certificates.server)
    tunnel = ConnectProxy(tls=certificates.server)
    async with origin, tunnel if scheme == "https" else answers(OK, tls=tunnel.tls) as proxy:
        argv = ["-x", f"https://localhost:{proxy.port}", f"{scheme}://localhost:{origin.port}/"]
        assert await cli(*argv) == Result(0, b"hi\n", "")
    if scheme == "http":
        assert proxy.heads[0].startswith(b"GET http://localhost:%d/ " % origin.port)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_insecure_is_not_about_the_proxy(cli, certificates, scheme):
    async with ScriptedServer([], tls=certificates.server) as proxy:
        result = await cli("-kx", f"https://localhost:{proxy.port}", f"{scheme}://example.org/")
    assert result.code == 60
    hint = " (here: SSL_CERT_FILE in the environment; --cacert and -k are for the server)\n"
    assert result.err.endswith(hint)


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"refuse": b"HTTP/1.1 403 No\r\n\r\n"}, "Tunnel connection failed: 403 No (proxy, "),
        ({"credentials": "a:b"}, " (here: -x http://user:password@host:port)\n"),
        ({"refuse": b""}, "the proxy closed the connection before answering CONNECT"),
        ({"refuse": b"220 smtp\r\n"}, "the proxy's answer to CONNECT is not valid HTTP"),
    ],
)
async def test_a_refused_tunnel_is_56(cli, keywords, text):
    async with ConnectProxy(**keywords) as proxy:
        result = await cli("-x", f"http://127.0.0.1:{proxy.port}", "https://example.org/")
    assert (result.code, result.out) == (56, b"")
    assert text in result.err


# Standard output that is a pipe ----------------------------------------------------------


@pipes
async def test_a_slow_reader_gets_everything(cli):
    body = bytes(range(256)) * 2048
    reading, writing = os.pipe()
    chunks = []

    def read():
        while chunk := os.read(reading, 1000):
            chunks.append(chunk)

    async with answers(HEAD + b"Connection: close\r\n\r\n" + body) as server:
        reader = asyncio.create_task(asyncio.to_thread(read))
        result = await cli("-o", f"/dev/fd/{writing}", server.url)
        os.close(writing)
        await reader
    os.close(reading)
    assert result == Result(0, b"", "")
    assert b"".join(chunks) == body


@pipes
async def test_a_reader_that_has_left_is_23_and_quiet(cli):
    reading, writing = os.pipe()
    os.close(reading)
    async with answers(OK) as server:
        assert await cli("-o", f"/dev/fd/{writing}", server.url) == Result(23, b"", "")
    os.close(writing)


@pipes
@pytest.mark.parametrize("blocking", [True, False])
async def test_max_time_holds_while_nobody_reads(cli, blocking):
    reading, writing = os.pipe()
    os.set_blocking(writing, blocking)
    async with answers(HEAD + b"Connection: close\r\n\r\n" + b"x" * 200_000) as server:
        result = await cli("-m", "0.1", "-o", f"/dev/fd/{writing}", server.url)
    os.close(reading)
    os.close(writing)
    expected = "aiohttpconn: (28) nobody read the output until the time was over\n"
    assert result == Result(28, b"", expected)


# The command line ------------------------------------------------------------------------


def test_without_arguments_shows_help(capsys):
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: python -m aiohttpconn [options] URL\n")
    assert "examples:\n" in err


def test_help_and_version_are_no_errors(capsys):
    assert main(["--help"]) == 0
    assert "--max-time SECONDS" in capsys.readouterr().out
    assert main(["--version"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"aiohttpconn {__version__} (")
    assert err == ""


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (["-v"], 2, "no URL given"),
        (["--location", "x.org"], 2, "unrecognized arguments: --location"),
        (["-I", "-d", "x", "x.org"], 2, "only one of them"),
        (["-m", "soon", "x.org"], 2, "expected seconds, got 'soon'"),
        (["-m", "nan", "x.org"], 2, "expected seconds, got 'nan'"),
        (["-X", "GET /", "x.org"], 2, "a method must be a token"),
        (["-H", "nothing", "x.org"], 2, "expected 'Name: value', got 'nothing'"),
        (["-H", "a b: c", "x.org"], 2, "Invalid header name 'a b'"),
        (["-H", "a: b\r\nc: d", "x.org"], 2, "it has a control character"),
        (["http://x.org:99999/"], 3, "a port must be 0 to 65535, got 99999"),
        (["ftp://x.org/"], 1, "'ftp' is not supported"),
        (["-x", "http://", "x.org"], 5, "the proxy: no host"),
        (["-x", "socks5://x:1", "x.org"], 7, "the proxy: 'socks5' is not supported"),
        (["-d", "@/none", "x.org"], 26, "cannot read '/none': No such file or directory"),
    ],
)
def test_what_is_wrong_with_the_arguments(capsys, argv, code, text):
    assert main(argv) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err


async def test_a_content_length_that_is_wrong_is_a_usage_error(cli):
    async with ScriptedServer([expect(b"")]) as server:
        result = await cli("-H", "Content-Length: 7", "-d", "abc", server.url)
    assert result.code == 2
    assert "Content-Length announces 7 bytes, the body has fewer: 3 bytes" in result.err


@pytest.mark.parametrize(
    ("option", "text", "sent"),
    [
        ("-d", "a\nb", b"a\nb"),
        ("-d", "@FILE", b"one=1two=2"),
        ("-d", "@-", b"stdin"),
        ("--data-binary", "@FILE", b"one=1\r\ntwo=2\n\0"),
        ("--data-binary", "@-", b"std\nin"),
        ("--data-raw", "@FILE", b"@FILE"),
        ("-d", "", b""),
    ],
)
def test_what_data_means(tmp_path, monkeypatch, option, text, sent):
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_bytes(b"one=1\r\ntwo=2\n\0")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"std\nin")))
    options = parse([option, text, "example.org"])
    assert (options.method, options.body) == ("POST", sent)


def test_a_file_that_cannot_be_read_is_26(tmp_path):
    with pytest.raises(Failed) as caught:
        parse(["--data-binary", f"@{tmp_path}", "example.org"])
    assert caught.value.code == 26


# URLs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "absolute", "authorization"),
    [
        ("example.org", "http://example.org/", ""),
        ("HTTPS://Example.org:443", "https://Example.org/", ""),
        ("http://example.org:/?a#b?c", "http://example.org/?a", ""),
        ("https://example.org:80/../x", "https://example.org:80/../x", ""),
        ("localhost:8000/http://x", "http://localhost:8000/http://x", ""),
        ("http://[::1]:8000/", "http://[::1]:8000/", ""),
        ("http://[fe80::1%25eth0]/", "http://[fe80::1]/", ""),
        ("http://exa%6dple.org/%6d", "http://example.org/%6d", ""),
        ("http://bücher.example/ä ö".replace(" ", "%20"), None, ""),
        ("http://u@h/", "http://h/", "Basic dTo="),
        ("http://u:a:b@h/@", "http://h/@", "Basic dTphOmI="),
        ("http://%C3%BC:@h/", "http://h/", "Basic w7w6"),
    ],
)
def test_where_urls_lead(url, absolute, authorization):
    location = locate(url)
    absolute = absolute or "http://xn--bcher-kva.example/%C3%A4%20%C3%B6"
    assert (location.absolute, location.authorization) == (absolute, authorization)


def test_a_zone_is_for_connecting_only():
    location = locate("http://[fe80::1%25eth0]:8000/")
    assert (location.host, location.authority) == ("fe80::1%eth0", "[fe80::1]:8000")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/path",
        "http://",
        "http:///path",
        "http://:80/",
        "http://user@/",
        "http://a:b:80/",
        "http://host:port/",
        "http://host:65536/",
        "http://::1/",
        "http://[::1/",
        "http://[nine]/",
        "http://[::1]x/",
        "http://a\\@b/",
        "http://a%2Fb/",
        "http://a%40b/",
        "http://a／b/",  # IDNA makes it '/'
        f"http://{'ä' * 64}/",
        "http://host/a b",
        "http://host/\r\nX: y",
        "http://host/\x7f",
    ],
)
def test_urls_that_lead_nowhere(url):
    with pytest.raises(InvalidURL):
        locate(url)


def test_no_error_shows_a_password():
    for url in ("http://user:secret@host/a b", "http://user:secret@host:port/"):
        with pytest.raises(InvalidURL) as caught:
            locate(url)
        assert "host" in str(caught.value)
        assert "secret" not in str(caught.value)


# The program -----------------------------------------------------------------------------


async def test_the_program_fetches():
    async with answers(OK) as server:
        with start("-i", server.url) as program:
            out, err = await asyncio.to_thread(program.communicate)
    assert (program.returncode, out, err) == (0, OK, b"")


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGINT for one process")
async def test_ctrl_c_is_130():
    asked = asyncio.Event()
    async with ScriptedServer([expect(), notify(asked)]) as server:
        with start(server.url) as program:
            await asked.wait()
            program.send_signal(signal.SIGINT)
            out, err = await asyncio.to_thread(program.communicate)
    assert (program.returncode, out, err) == (130, b"", b"")


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
async def test_a_closed_standard_output_is_23():
    async with answers(OK) as server:
        with start(server.url, shell='exec "$@" >&-') as program:
            _, err = await asyncio.to_thread(program.communicate)
    assert (program.returncode, err) == (23, b"aiohttpconn: (23) standard output is closed\n")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_that_nobody_reads_is_23_and_quiet(option):
    reading, writing = os.pipe()
    os.close(reading)
    with start(option, stdout=writing) as program:
        _, err = program.communicate()
    os.close(writing)
    assert (program.returncode, err) == (23, b"")
