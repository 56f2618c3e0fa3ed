"""``python -m aiohttpconn URL``: what it sends, what it writes where, and its exit codes.

Most tests call ``main()`` in a thread, on the kind of loop that the test runs on, against
servers in the test's own loop; a few start the program.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path

import pytest

from aiohttpconn import (
    BodyTooLarge,
    ConnectError,
    ContentDecodingError,
    InvalidURL,
    PoolTimeout,
    RedirectRefused,
    StatusError,
    TLSError,
    TooManyRedirects,
    __version__,
)
from aiohttpconn.cli import curl, main
from aiohttpconn.cli.exits import Failed, exit_code
from aiohttpconn.cli.options import parse
from aiohttpconn.cli.output import Output
from aiohttpconn.cli.urls import basic_of, locate
from aiohttpconn.client.content.codecs import accept_encoding
from aiohttpconn.pool import routes
from aiohttpconn.testing import Reply, serve

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
from .support.clocks import ticking_loops
from .support.proxies import Socks5Proxy

ROOT = Path(__file__).parent.parent

PROGRAM_SECONDS = 60
"""Seconds after which a program has hung; on a busy machine it may take some to start."""

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n"

pipes = pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="needs /dev/fd")


@dataclass
class Result:
    code: int
    out: bytes
    err: str


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    """Keep the machine's own proxies out of the tests."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def cli(capfdbinary, monkeypatch):
    """Return ``await cli(*argv)``: run the command line, return its exit code and what it wrote.

    With ``ticking=True`` its limits are turns of its loop: see ``TickingClock``.
    """
    library = sys.modules[type(asyncio.get_running_loop()).__module__.partition(".")[0]]

    def run(coroutine):
        with asyncio.Runner(loop_factory=library.new_event_loop) as runner:
            return runner.run(coroutine)

    monkeypatch.setattr(curl, "run", run)

    async def call(*argv: str, ticking: bool = False) -> Result:
        with ticking_loops() if ticking else contextlib.nullcontext():
            code = await asyncio.to_thread(main, argv)
        out, err = capfdbinary.readouterr()
        return Result(code, out, err.decode())

    return call


def answers(*responses: bytes, **keywords) -> ScriptedServer:
    """Return a server that sends *responses* to a request, and closes."""
    return ScriptedServer([expect_request(), send(*responses), close()], **keywords)


@contextlib.contextmanager
def start(*argv: str, shell: str = 'exec "$@"', stdout: int = subprocess.PIPE):
    """Run the program, by a line of shell in which ``"$@"`` is its command; kill it at the end."""
    command = [sys.executable, "-W", "error", "-m", "aiohttpconn", *argv]
    if os.name == "posix":
        command = ["sh", "-c", shell, "sh", *command]
    # Buffered output fails late, which is what a user sees.
    environment = {name: os.environ[name] for name in os.environ if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=stdout, stderr=subprocess.PIPE
    ) as program:
        try:
            yield program
        finally:
            # A test that ends early must not wait for what it has started.
            program.kill()


def outcome(program: subprocess.Popen) -> tuple[int, bytes, bytes]:
    """Return exit code, output and errors of *program*, when it has ended by itself."""
    out, err = program.communicate(timeout=PROGRAM_SECONDS)
    return program.returncode, out, err


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


async def test_user_stands_for_the_one_of_the_url(cli):
    async with answers(OK) as server:
        await cli("-u", "me:ü:x", f"http://user:secret@127.0.0.1:{server.port}/")
    assert b"\r\nAuthorization: Basic bWU6w7w6eA==\r\n" in server.heads[0]
    assert server.heads[0].count(b"Authorization") == 1


async def test_cookies_are_sent_in_one_field(cli):
    async with answers(OK) as server:
        await cli("-b", "a=1; b=ü", "--cookie", "c=3", server.url)
    assert b"\r\nCookie: a=1; b=\xc3\xbc; c=3\r\n" in server.heads[0]


async def test_a_name_need_not_be_looked_up(cli):
    async with answers(OK) as server:
        static = f"Example.org:{server.port}:[::1],127.0.0.1"
        argv = ["--resolve", "example.org:80:192.0.2.1", "--resolve", static]
        assert await cli(*argv, f"http://example.org:{server.port}/") == Result(0, b"hi\n", "")
    assert f"\r\nHost: example.org:{server.port}\r\n".encode() in server.heads[0]


@pytest.mark.parametrize(("options", "said"), [("-s", False), ("-sS", True), ("-S", True)])
async def test_silent_says_nothing_of_errors(cli, options, said):
    with refusing_address() as (host, port):
        result = await cli(options, f"http://{host}:{port}/")
    assert (result.code, result.err != "") == (7, said)


# Compressed bodies -----------------------------------------------------------------------

GZIPPED = gzip.compress(b"hello " * 100, mtime=0)


def coded(body: bytes, coding: str = "gzip") -> bytes:
    fields = f"Content-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n"
    return b"HTTP/1.1 200 OK\r\n" + fields.encode() + body


async def test_compressed_asks_for_a_coding_and_takes_it_off(cli):
    async with answers(coded(GZIPPED)) as server:
        assert await cli("--compressed", server.url) == Result(0, b"hello " * 100, "")
    assert f"\r\nAccept-Encoding: {accept_encoding()}\r\n".encode() in server.heads[0]


async def test_a_few_bytes_may_decode_to_many(cli):
    async with answers(coded(gzip.compress(bytes(2_000_000)))) as server:
        assert await cli("--compressed", server.url) == Result(0, bytes(2_000_000), "")


async def test_a_coding_that_was_not_asked_for_stays(cli):
    async with answers(coded(GZIPPED)) as server:
        assert await cli("-H", "Accept-Encoding: gzip", server.url) == Result(0, GZIPPED, "")
    assert b"\r\nAccept-Encoding: gzip\r\n" in server.heads[0]


async def test_include_writes_the_head_of_a_coded_body_as_it_came(cli):
    response = coded(GZIPPED)
    async with answers(response) as server:
        result = await cli("--compressed", "-i", server.url)
    assert result == Result(0, response.removesuffix(GZIPPED) + b"hello " * 100, "")


@pytest.mark.parametrize("coding", ["identity", "none", "identity, NONE", ""])
async def test_two_names_mean_that_there_is_no_coding(cli, coding):
    async with answers(coded(GZIPPED, coding)) as server:
        assert await cli("--compressed", server.url) == Result(0, GZIPPED, "")


@pytest.mark.parametrize("coding", ["gzip", "foo"])
async def test_a_coded_body_may_be_empty_or_not_there(cli, coding):
    async with answers(coded(b"", coding)) as server:
        assert await cli("--compressed", server.url) == Result(0, b"", "")
    head = coded(GZIPPED, coding).removesuffix(GZIPPED)
    async with answers(head) as server:
        assert await cli("--compressed", "-I", server.url) == Result(0, head, "")


@pytest.mark.parametrize(
    ("response", "out", "text"),
    [
        (coded(b"hello"), b"", "the body is not valid gzip: "),
        (coded(GZIPPED[:-1]), b"hello " * 100, "the body is cut short: its gzip stream has no end"),
        # A client delivers these as they are; curl refuses them.
        (coded(GZIPPED, "foo"), b"", "the content coding 'foo' is not known"),
        (coded(GZIPPED, "foo, gzip"), b"", "the content coding 'foo' is not known"),
        (coded(GZIPPED, "UTF-8"), b"", "the content coding 'utf-8' is not known"),
        (coded(GZIPPED, ",gzip" * 6), b"", "the body has 6 content codings, at most 5 are decoded"),
    ],
)
async def test_a_coding_that_cannot_be_taken_off_is_61(cli, response, out, text):
    async with answers(response) as server:
        result = await cli("--compressed", server.url)
    assert (result.code, result.out) == (61, out)
    assert result.err.startswith("aiohttpconn: (61) ")
    assert text in result.err


async def test_writing_lets_others_run_and_ends_with_the_time(tmp_path):
    loop = asyncio.get_running_loop()
    ran = []
    with Output(str(tmp_path / "page"), None) as output:
        loop.call_soon(ran.append, "another")
        await output.write(b"decoded")
    assert ran == ["another"]
    with Output(str(tmp_path / "none"), loop.time()) as output:
        with pytest.raises(TimeoutError, match="the time limit passed before the output"):
            await output.write(b"decoded")
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


# Redirects -------------------------------------------------------------------------------


def redirects(*, status: int = 302, tls=None, **targets: str):
    """Return a server of the pages that *targets* name and redirect; others are what they say."""

    def respond(request):
        if location := targets.get(request.path[1:]):
            return Reply("moved\n", status=status, headers=[("Location", location)])
        return f"{request.method} {request.target}\n"

    return serve(respond, tls=tls)


async def test_a_redirect_is_followed_if_it_is_asked_for(cli):
    async with redirects(a="b?x", b="/c/d") as server:
        assert await cli(f"{server.url}a") == Result(0, b"moved\n", "")
        assert await cli("-L", f"{server.url}a#part") == Result(0, b"GET /c/d\n", "")
    assert [request.target for request in server.requests] == ["/a", "/a", "/b?x", "/c/d"]


@pytest.mark.parametrize("status", [300, 302, 304])
async def test_a_status_that_leads_nowhere_is_the_last(cli, status):
    fields = b"Location: /b\r\n" if status != 302 else b""
    head = b"HTTP/1.1 %d -\r\n%bContent-Length: 0\r\n\r\n" % (status, fields)
    async with answers(head) as server:
        assert await cli("-Li", server.url) == Result(0, head, "")


async def test_include_writes_the_heads_of_all_responses_and_the_last_body(cli):
    async with redirects(a="/b") as server:
        result = await cli("-Li", f"{server.url}a")
        head = await cli("-LI", f"{server.url}a")
    heads = (
        b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 6\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"
    )
    assert result == Result(0, heads + b"GET /b\n", "")
    assert head.out == heads.replace(b": 7", b": 8")
    assert [request.method for request in server.requests] == ["GET", "GET", "HEAD", "HEAD"]


async def test_verbose_shows_each_hop(cli):
    async with redirects(a="/b") as server:
        result = await cli("-vL", f"{server.url}a")
    assert result.out == b"GET /b\n"
    lines = [line for line in result.err.splitlines() if not re.match(r"[<>] \w+-?\w*:", line)]
    where = f"127.0.0.1, port {server.port}"
    assert [line.partition(" (")[0].partition(";")[0] for line in lines] == [
        f"* connecting to {where}",
        f"* connected to 127.0.0.1:{server.port}",
        "> GET /a HTTP/1.1",
        ">",
        "< HTTP/1.1 302 Found",
        "<",
        "* body ignored",
        f"* redirected to {server.url}b",
        f"* connecting to {where}",
        f"* connected to 127.0.0.1:{server.port}",
        "> GET /b HTTP/1.1",
        ">",
        "< HTTP/1.1 200 OK",
        "<",
        "* 7 bytes of body",
    ]


@pytest.mark.parametrize(
    ("status", "argv", "method", "body"),
    [
        (302, ["-d", "a=1"], "GET", b""),
        (303, ["-d", "a=1"], "GET", b""),
        (307, ["-d", "a=1"], "POST", b"a=1"),
        (308, ["-d", "a=1"], "POST", b"a=1"),
        (302, ["-X", "PUT", "-d", "a=1"], "PUT", b"a=1"),
        (303, ["-X", "PUT", "-d", "a=1"], "GET", b""),
        (301, ["-X", "POST"], "GET", b""),
        (308, ["-X", "POST"], "POST", b""),
        (303, ["-I"], "HEAD", b""),
    ],
)
async def test_which_request_follows_a_redirect(cli, status, argv, method, body):
    async with redirects(status=status, a="/b") as server:
        assert (await cli("-L", *argv, f"{server.url}a")).code == 0
    last = server.requests[1]
    assert (last.method, last.body) == (method, body)
    described = [name for name in last.headers if name.startswith("Content-")]
    expected = ["Content-Length"] if method == "POST" else []
    if body:
        expected = ["Content-Length", "Content-Type"]
    assert described == expected


SECRETS = ["-u", "me:secret", "-b", "a=1", "-H", "Host: example.org", "-H", "X: kept"]


@pytest.mark.parametrize(
    ("argv", "sent"),
    [
        (SECRETS, ["X"]),
        (["-H", "Authorization: t", "-H", "Proxy-Authorization: t", "-H", "Cookie: t"], []),
        ([*SECRETS, "--location-trusted"], ["Authorization", "Cookie", "X"]),
    ],
)
async def test_what_another_server_gets(cli, argv, sent):
    async with redirects() as other, redirects(a=f"{other.url}b") as server:
        await cli("-L", *argv, f"{server.url}a")
    fields = other.requests[0].headers
    own = {"User-Agent", "Accept", "Host"}
    assert sorted(set(fields) - own) == sent
    assert fields["Host"] == f"127.0.0.1:{other.port}"


async def test_the_same_server_gets_secrets_once_more_unless_they_were_elsewhere(cli):
    async with redirects() as other, redirects(a="/b") as server:
        other.handler = lambda request: Reply("", status=302, headers={"Location": server.url})
        await cli("-L", *SECRETS, f"{server.url}a")
        a, b = server.requests
        assert a.headers.items() == b.headers.items()
        server.handler = lambda request: (
            "back\n"
            if request.path == "/"
            else Reply("", status=302, headers={"Location": other.url})
        )
        await cli("-L", *SECRETS, f"{server.url}a")
    assert "Authorization" in server.requests[2].headers
    assert "Authorization" not in server.requests[3].headers
    assert server.requests[3].headers["Host"] == f"127.0.0.1:{server.port}"


# The user and password of the second request, with --location-trusted. "A" is the server that was
# asked first, "B" another. libcurl 8.23.0 sends the same.
TRUSTED = [
    # -u and -H go everywhere, and what a URL has does not count beside them.
    *[
        (argv, f"http://{user}A/a", location, "o:o")
        for argv in (["-u", "o:o"], ["-H", "Authorization: Basic bzpv"])
        for user in ("", "u:u@")
        for location in ("/b", "http://A/b", "http://B/b", "http://r:r@A/b", "http://r:r@B/b")
    ],
    ([], "http://u:u@A/a", "/b", "u:u"),
    ([], "http://u:u@A/a", "b?c", "u:u"),
    ([], "http://u:u@A/a", "http://A/b", None),
    ([], "http://u:u@A/a", "http://B/b", None),
    ([], "http://u:u@A/a", "//B/b", None),
    ([], "http://u:u@A/a", "http://r:r@A/b", "r:r"),
    ([], "http://u:u@A/a", "http://r:r@B/b", "r:r"),
    ([], "http://u:u@A/a", "//r%40:r@B/b", "r@:r"),
    ([], "http://A/a", "/b", None),
    ([], "http://A/a", "http://B/b", None),
    ([], "http://A/a", "http://r:r@A/b", "r:r"),
    ([], "http://A/a", "http://r:r@B/b", "r:r"),
]


@pytest.mark.parametrize(("argv", "url", "location", "user"), TRUSTED)
async def test_whose_credentials_a_trusted_redirect_sends(cli, argv, url, location, user):
    async with redirects() as other, redirects() as server:

        def located(text: str) -> str:
            for name, each in ("A", server), ("B", other):
                text = text.replace(name, f"127.0.0.1:{each.port}")
            return text

        moved = Reply("", status=302, headers={"Location": located(location)})
        server.handler = lambda request: moved if request.path == "/a" else "ok"
        assert (await cli("--location-trusted", *argv, located(url))).code == 0
        last = (other.requests or server.requests)[-1]
    sent = last.headers["Authorization"]
    assert (sent and b64decode(sent.removeprefix("Basic ")).decode()) == user


async def test_credentials_of_a_location_hold_for_what_is_relative_to_it(cli):
    async with redirects(b="/c", c="d") as other:
        async with redirects(a=f"http://r:r@127.0.0.1:{other.port}/b") as server:
            await cli("--location-trusted", f"{server.url}a")
    assert server.requests[0].headers["Authorization"] is None
    sent = [(each.path, each.headers["Authorization"]) for each in other.requests]
    assert sent == [(path, "Basic cjpy") for path in ("/b", "/c", "/d")]


async def test_user_and_password_of_a_location_are_not_used(cli):
    async with redirects() as server:
        location = f"http://user:secret@127.0.0.1:{server.port}/b"
        server.handler = {"/a": Reply("", status=302, headers={"Location": location}), "/b": "ok"}
        assert (await cli("-L", f"{server.url}a")).out == b"ok"
    assert "Authorization" not in server.requests[1].headers


@pytest.mark.parametrize(
    ("argv", "code", "requests"),
    [
        ([], 47, 51),
        (["--max-redirs", "0"], 47, 1),
        (["--max-redirs", "2"], 47, 3),
        (["--max-redirs", "60"], 0, 61),
        (["--max-redirs", "-1"], 0, 61),
    ],
)
async def test_too_many_redirects_are_47(cli, tmp_path, argv, code, requests):
    pages = {f"p{number}": f"/p{number + 1}" for number in range(60)}
    async with redirects(**pages) as server:
        result = await cli("-L", *argv, "-o", str(tmp_path / "page"), f"{server.url}p0")
    assert (result.code, len(server.requests)) == (code, requests)
    assert (tmp_path / "page").exists() == (code == 0)
    if code:
        page = f"{server.url}p{requests - 1} leads to {server.url}p{requests}"
        limit = f"--max-redirs {requests - 1} is reached"
        assert result.err == f"aiohttpconn: (47) {page}, but {limit}\n"


@pytest.mark.parametrize(
    ("location", "code", "text"),
    [
        ("ftp://127.0.0.1/", 1, "the Location's scheme 'ftp' is not supported, http, https are"),
        ("file:///etc/passwd", 1, "the Location's scheme 'file' is not supported"),
        ("http://[x]/", 3, "cannot follow Location b'http://[x]/': "),
        ("http://127.0.0.1:99999/", 3, "a port must be 0 to 65535, got 99999"),
        ("mailto:me", 3, "not a URL to be redirected to: 'mailto:me'"),
    ],
)
async def test_a_redirect_to_what_cannot_be_fetched(cli, location, code, text):
    async with redirects(a=location) as server:
        result = await cli("-L", f"{server.url}a")
    assert (result.code, result.out) == (code, b"")
    assert text in result.err


async def test_a_redirect_from_https_to_http_has_to_be_allowed(cli, certificates):
    plain = redirects()
    async with plain, redirects(tls=certificates.server, a=f"{plain.url}b") as server:
        argv = ["-L", "--cacert", certificates.ca_file, f"https://localhost:{server.port}/a"]
        refused = await cli(*argv)
        assert plain.requests == []
        allowed = await cli("--proto-redir", "http", *argv)
    assert (refused.code, refused.out) == (1, b"")
    assert refused.err == (
        f"aiohttpconn: (1) {plain.url}b is not encrypted, and https://localhost:{server.port}/a "
        "is: allow_downgrade=True follows it (here: --proto-redir http)\n"
    )
    assert allowed == Result(0, b"GET /b\n", "")


@pytest.mark.parametrize(
    ("protocols", "schemes"),
    [
        ("=https", {"https"}),
        ("http", {"http", "https"}),
        ("+http", {"http", "https"}),
        ("=http", {"http"}),
        ("=HTTP,https", {"http", "https"}),
        ("=http,+https,-http", {"https"}),
        ("=https,all", {"http", "https"}),
    ],
)
def test_what_protocols_mean(protocols, schemes):
    assert parse(["--proto-redir", protocols, "example.org"]).redirect_schemes == schemes
    assert parse(["example.org"]).redirect_schemes is None


async def test_redirects_can_be_kept_from_http(cli):
    async with redirects(a="/b") as server:
        result = await cli("-L", "--proto-redir", "=https", f"{server.url}a")
    expected = f"--proto-redir does not let {server.url}a lead to {server.url}b"
    assert result == Result(1, b"", f"aiohttpconn: (1) {expected}\n")


async def test_max_time_is_for_all_redirects_together(cli):
    moved = b"HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n"

    async def slow(conn) -> None:
        await conn.read_head()
        for _ in range(20):  # many, since the program's clock stands while nothing runs
            await asyncio.sleep(0.002)
        await conn.send(moved)
        await conn.close()

    async with ScriptedServer(slow, [expect()]) as server:
        result = await cli("-L", "-m", "0.3", server.url, ticking=True)
    assert result.code == 28
    assert re.search(rf"GET {server.url}next: the exchange did not end within 0\.[0-2]", result.err)


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
        result = await cli("-m", "0.05", server.url, ticking=True)
    assert result.code == 28
    # Less than 0.05 s: connecting took its part of them.
    assert re.search(r": the exchange did not end within 0\.0[0-9]{1,2} s \(", result.err)


async def test_max_time_ends_a_name_lookup_that_cannot_be_interrupted(cli, monkeypatch):
    over = threading.Event()
    lookups = []

    def getaddrinfo(*args, **keywords):
        lookups.append(threading.current_thread())
        over.wait(PROGRAM_SECONDS)
        raise socket.gaierror(socket.EAI_NONAME, "too late")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    result = await cli("--max-time", ".05", "http://slow.example/", ticking=True)
    over.set()
    lookups[0].join()
    assert result.code == 28
    assert "not connected within 0.05 s, total=0.05 (dns, " in result.err


@pytest.mark.parametrize(
    ("exc", "attributes", "code"),
    [
        (ConnectError("no route"), {"errno": errno.EHOSTUNREACH}, 7),
        (ConnectError("SYN was never answered"), {"errno": errno.ETIMEDOUT}, 28),
        (PoolTimeout("no connection was free"), {}, 28),
        (StatusError("404 Not Found"), {}, 22),
        (ContentDecodingError("not gzip"), {}, 61),
        (BodyTooLarge("more than max_body"), {}, 63),
        (TooManyRedirects("more than 50"), {}, 47),
        (RedirectRefused("not encrypted"), {}, 1),
        (TLSError("bad handshake"), {"phase": "tls"}, 35),
        (TLSError("certificate required"), {"phase": "waiting for the head"}, 56),
        (ConnectionResetError("reset"), {"phase": "sending"}, 55),
        (ConnectionResetError("reset"), {"phase": "waiting for the head"}, 56),
    ],
)
def test_codes_of_what_seldom_happens(exc, attributes, code):
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


async def test_the_environment_names_the_authority_as_for_curl(cli, certificates, monkeypatch):
    monkeypatch.setenv("CURL_CA_BUNDLE", certificates.ca_file)
    async with ScriptedServer(
        *[[expect(), send(OK), close()]] * 2, tls=certificates.server
    ) as server:
        url = f"https://localhost:{server.port}/"
        assert await cli(url) == Result(0, b"hi\n", "")
        monkeypatch.setenv("CURL_CA_BUNDLE", "/no/such/file")
        assert (await cli(url)).code == 77
        assert await cli("--cacert", certificates.ca_file, url) == Result(0, b"hi\n", "")


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
    monkeypatch.setattr(routes, "default_context", default_context)
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
        ({"credentials": "a:b"}, " (here: -U user:password)\n"),
        ({"refuse": b""}, "the proxy closed the connection before answering CONNECT"),
        ({"refuse": b"220 smtp\r\n"}, "the proxy's answer to CONNECT is not valid HTTP"),
    ],
)
async def test_a_refused_tunnel_is_56(cli, keywords, text):
    async with ConnectProxy(**keywords) as proxy:
        result = await cli("-x", f"http://127.0.0.1:{proxy.port}", "https://example.org/")
    assert (result.code, result.out) == (56, b"")
    assert text in result.err


@pytest.mark.parametrize("scheme", ["socks", "socks5", "socks5h"])
async def test_a_socks_proxy_makes_tunnels(cli, scheme):
    async with answers(OK) as server:
        target = f"example.org:{server.port}"
        routes = {target: server.address}
        async with Socks5Proxy(credentials="user:pass", routes=routes) as proxy:
            argv = ["-v", "--resolve", f"{target}:127.0.0.1", f"http://{target}/"]
            result = await cli("-x", f"{scheme}://user:pass@127.0.0.1:{proxy.port}", *argv)
    assert (result.code, result.out) == (0, b"hi\n")
    # With socks5h the proxy gets the name.
    where = target if scheme == "socks5h" else f"127.0.0.1:{server.port}"
    assert proxy.targets == [where]
    assert server.heads[0].startswith(b"GET / HTTP/1.1\r\nHost: example.org:")
    assert f"* tunnel to example.org, port {server.port}: 0 succeeded\n" in result.err


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"refuse": 5}, "connection refused"),
        ({"credentials": "user:other"}, " (here: -U user:password)\n"),
    ],
)
async def test_a_socks_proxy_that_refuses_is_97(cli, keywords, text):
    async with Socks5Proxy(**keywords) as proxy:
        argv = ["-U", "user:pass", "http://127.0.0.1:1/"]
        result = await cli("-x", f"socks5h://127.0.0.1:{proxy.port}", *argv)
    assert (result.code, result.out) == (97, b"")
    assert text in result.err


async def test_a_socks_proxy_without_address_is_6(cli):
    result = await cli("-x", "socks5h://nohost.invalid", "http://127.0.0.1/")
    assert result.code == 6


@pytest.mark.parametrize(
    ("user", "credentials"), [("", b"dXNlcjpwYXNz"), ("an:other@", b"YW46b3RoZXI=")]
)
async def test_proxy_user_is_for_a_proxy_without_one(cli, user, credentials):
    async with answers(OK) as proxy:
        url = f"{user}127.0.0.1:{proxy.port}"
        assert (await cli("-x", url, "-U", "user:pass", "example.org")).code == 0
    assert b"\r\nProxy-Authorization: Basic %b\r\n" % credentials in proxy.heads[0]


@pytest.mark.parametrize(
    ("environment", "argv", "through"),
    [
        ({"http_proxy": "PROXY"}, [], True),
        ({"HTTP_PROXY": "PROXY"}, [], True),
        ({"all_proxy": "PROXY"}, [], True),
        ({"https_proxy": "PROXY"}, [], False),
        ({"http_proxy": "PROXY", "no_proxy": "127.0.0.1"}, [], False),
        ({"http_proxy": "PROXY", "NO_PROXY": "127.0.0.0/8"}, ["--noproxy", ""], True),
        ({"http_proxy": "PROXY"}, ["--noproxy", "*"], False),
        ({"http_proxy": "PROXY"}, ["-x", ""], False),
        ({"http_proxy": "http://192.0.2.1", "ALL_PROXY": "x://"}, ["-x", "PROXY"], True),
        ({"NO_PROXY": "127.0.0.1"}, ["-x", "PROXY"], False),
        ({"NO_PROXY": "127.0.0.1"}, ["-x", "PROXY", "--noproxy", "example.org"], True),
        ({}, ["-x", "PROXY", "--noproxy", "example.org,127.0.0.1"], False),
    ],
)
async def test_which_proxy_is_asked(cli, monkeypatch, environment, argv, through):
    direct, proxied = serve(lambda request: "direct"), serve(lambda request: "through")
    async with direct as server, proxied as proxy:
        for name, value in environment.items():
            monkeypatch.setenv(name, value.replace("PROXY", proxy.url))
        argv = [part.replace("PROXY", proxy.url) for part in argv]
        result = await cli(*argv, server.url)
    assert result == Result(0, b"through" if through else b"direct", "")


async def test_the_environment_names_a_proxy_for_https(cli, certificates, monkeypatch):
    origin = answers(OK, tls=certificates.server)
    async with origin, ConnectProxy(credentials="user:pass") as proxy:
        monkeypatch.setenv("https_proxy", f"http://user:pass@127.0.0.1:{proxy.port}")
        url = f"https://localhost:{origin.port}/"
        assert await cli("--cacert", certificates.ca_file, url) == Result(0, b"hi\n", "")
    assert proxy.targets == [f"localhost:{origin.port}"]


async def test_a_proxy_of_the_environment_that_is_not_needed_is_not_read(cli, monkeypatch):
    monkeypatch.setenv("https_proxy", "quic://proxy.test")
    async with answers(OK) as server:
        assert await cli(server.url) == Result(0, b"hi\n", "")


async def test_an_environment_that_names_no_proxy_is_5(cli, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "user:secret@")
    result = await cli("http://example.org/")
    assert result.code == 5
    assert "the environment's HTTP_PROXY: cannot use " in result.err
    assert "secret" not in result.err


async def test_each_redirect_has_its_own_proxy(cli):
    async with redirects() as server:
        moved = Reply("", status=302, headers={"Location": server.url})
        async with serve(lambda request: moved) as proxy:
            argv = ["-x", f"user:pass@127.0.0.1:{proxy.port}", "--noproxy", "127.0.0.1"]
            assert (await cli("-L", *argv, "http://example.org/a")).out == b"GET /\n"
    assert proxy.requests[0].target == "http://example.org/a"
    assert "Proxy-Authorization" in proxy.requests[0].headers
    assert "Proxy-Authorization" not in server.requests[0].headers


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
        result = await cli("-m", "0.3", "-o", f"/dev/fd/{writing}", server.url, ticking=True)
    os.close(reading)
    os.close(writing)
    expected = "aiohttpconn: (28) the output was not read within the time limit\n"
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
    help_text = capsys.readouterr().out
    for option in ("--max-time SECONDS", "--location ", "--proxy URL", "--noproxy HOSTS"):
        assert option in help_text
    assert main(["--version"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"aiohttpconn {__version__} (")
    assert err == ""


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (["-v"], 2, "no URL given"),
        (["--retry", "3", "x.org"], 2, "unrecognized arguments: --retry"),
        (["--max-redirs", "-2", "x.org"], 2, "expected a number of -1 or more, got '-2'"),
        (["--proto-redir", "=https,ftp", "x.org"], 2, "expected http, https or all, "),
        (["-b", "cookies.txt", "x.org"], 2, "got 'cookies.txt'; cookie files are not supported"),
        (["-b", "a=\n", "x.org"], 2, "it has a control character"),
        (["-u", "name", "x.org"], 2, "expected a user and a password, with ':' between them"),
        (["-U", "name", "x.org"], 2, "expected a user and a password, with ':' between them"),
        (["--resolve", "x.org", "x.org"], 49, "expected a name, or a name and a port"),
        (["--resolve", "x.org:80:y.org", "x.org"], 49, "expected an IP address or a list of them"),
        (["-I", "-d", "x", "x.org"], 2, "only one of them"),
        (["-m", "soon", "x.org"], 2, "expected seconds, got 'soon'"),
        (["-m", "nan", "x.org"], 2, "expected seconds, got 'nan'"),
        (["-X", "GET /", "x.org"], 2, "a method must be a token"),
        (["-H", "nothing", "x.org"], 2, "expected 'Name: value', got 'nothing'"),
        (["-H", "a b: c", "x.org"], 2, "Invalid header name 'a b'"),
        (["-H", "a: b\r\nc: d", "x.org"], 2, "it has a control character"),
        (["http://x.org:99999/"], 3, "a port must be 0 to 65535, got 99999"),
        (["ftp://x.org/"], 1, "the URL's scheme 'ftp' is not supported, http, https are"),
        (["-x", "http://", "x.org"], 5, "it must have a host, or a host and a port"),
        (["-x", "socks6://x:1", "x.org"], 7, "the proxy's scheme 'socks6' is not supported"),
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
        ("HTTPS://Example.org:443", "https://example.org/", ""),
        ("http://example.org:/?a#b?c", "http://example.org/?a", ""),
        ("https://example.org:80/../x", "https://example.org:80/../x", ""),
        ("localhost:8000/http://x", "http://localhost:8000/http://x", ""),
        ("http://[::1]:8000/", "http://[::1]:8000/", ""),
        ("http://[fe80::1%25eth0]/", "http://[fe80::1]/", ""),
        ("http://example.org/%6d", "http://example.org/%6d", ""),
        ("http://bücher.example/ä ö".replace(" ", "%20"), None, ""),
        ("http://u@h/", "http://h/", "Basic dTo="),
        ("http://u:a:b@h/@", "http://h/@", "Basic dTphOmI="),
        ("http://%C3%BC:@h/", "http://h/", "Basic w7w6"),
        ("http://u:%FF@h/", "http://h/", "Basic dTr/"),
        # What a terminal has sent that is not UTF-8, as Python gives it.
        ("http://\udcfc@h/\udce4", "http://h/%E4", "Basic /Do="),
    ],
)
def test_where_urls_lead(url, absolute, authorization):
    url = locate(url)
    absolute = absolute or "http://xn--bcher-kva.example/%C3%A4%20%C3%B6"
    assert (url.text, basic_of(url.userinfo) if url.userinfo else "") == (absolute, authorization)


def test_a_zone_is_for_connecting_only():
    url = locate("http://[fe80::1%25eth0]:8000/")
    assert (url.host, url.authority) == ("fe80::1%eth0", "[fe80::1]:8000")


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
        "http://exa%6dple.org/",  # a name that needs no escape: others do not decode it
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
    for url in ("http://u:secret@host/a b", "u:secret@host/a b", "http://u:secret@host:port/"):
        with pytest.raises(InvalidURL) as caught:
            locate(url)
        assert "host" in str(caught.value)
        assert "secret" not in str(caught.value)


# The program -----------------------------------------------------------------------------


async def test_the_program_fetches():
    async with answers(OK) as server:
        with start("-i", server.url) as program:
            ended = await asyncio.to_thread(outcome, program)
    assert ended == (0, OK, b"")


@pytest.fixture
def heeding_sigint():
    """Let programs get SIGINT: a shell has what it starts in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGINT for one process")
async def test_ctrl_c_is_130(heeding_sigint):
    asked = asyncio.Event()
    async with ScriptedServer([expect(), notify(asked)]) as server:
        with start(server.url) as program:
            await asked.wait()
            program.send_signal(signal.SIGINT)
            ended = await asyncio.to_thread(outcome, program)
    assert ended == (130, b"", b"")


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
async def test_a_closed_standard_output_is_23():
    async with answers(OK) as server:
        with start(server.url, shell='exec "$@" >&-') as program:
            code, _, err = await asyncio.to_thread(outcome, program)
    assert (code, err) == (23, b"aiohttpconn: (23) standard output is closed\n")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_that_nobody_reads_is_23_and_quiet(option):
    reading, writing = os.pipe()
    os.close(reading)
    with start(option, stdout=writing) as program:
        code, _, err = outcome(program)
    os.close(writing)
    assert (code, err) == (23, b"")
