"""The documentation is true: its examples run and print what it says they print.

Every ``python`` block of README.md and docs/ is executed. The blocks of a page share a
namespace and run in order; a block with a bare ``await`` runs as ``python -m asyncio`` would
run it. A ``text`` block under a line that ends with "prints:" is the output of the block above
it, where ``...`` stands for anything; so are the lines below a command in a ``console`` block.

The pages' servers are those of ``Site``, on loopback: ``socket.getaddrinfo`` leads their names
and ports to it, ``SSL_CERT_FILE`` names its authority. Names that it does not have do not
resolve. Examples run in a folder of their own that holds the files they speak of.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import gzip
import http.client
import inspect
import io
import json
import logging
import re
import runpy
import shlex
import signal
import socket
import ssl
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trustme

import aiohttpconn

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "aiohttpconn"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

LANGUAGES = {"python", "console", "text"}
"""Of fenced blocks: python is executed, console shows commands, text is neither."""

MAX_README_LINES = 250

EXAMPLE_SECONDS = 20


class Block(NamedTuple):
    """A fenced block: its language, the number of its first line, its text."""

    language: str
    line: int
    text: str
    introduction: str
    """The last line of prose above it."""


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    language, start, introduction = "", 0, ""
    inside: list[str] | None = None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            if inside is None:
                language, start, inside = line[3:].strip(), number + 1, []
            else:
                found.append(Block(language, start, "".join(inside), introduction))
                inside, introduction = None, ""
        elif inside is not None:
            inside.append(f"{line}\n")
        elif line.strip():
            introduction = line
    assert inside is None, f"{name_of(page)}:{start}: a block that does not end"
    return found


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def pages(*languages: str) -> list[Any]:
    """Return the pages that have blocks of one of *languages*."""
    return [
        pytest.param(page, id=name_of(page))
        for page in PAGES
        if any(block.language in languages for block in blocks(page))
    ]


# The servers that the examples speak to ---------------------------------------------------

INDEX = b"<!doctype html>\n<title>Example Domain</title>\n<h1>Example Domain</h1>\n"
BIG = bytes(range(256)) * 4096 * 3
LINES = b"".join(b'{"event": %d}\n' % number for number in range(1, 4))
FILES = {"photo.jpg": bytes(100_000), "notes.txt": b"one\ntwo\n", "hosts.txt": b"example.org\n"}

PLAIN_NAMES = {("example.org", 80), ("localhost", 8000), ("127.0.0.1", 8000)}
PROXY_NAMES = {("proxy.example.net", 3128)}
TLS_NAMES = {("example.org", 443), ("api.example.com", 443), ("www.example.com", 443)}
PRIVATE_NAMES = {("intranet.example.com", 443)}
"""Served with a certificate of a private authority: the file company-ca.pem."""
REFUSING_NAMES = {("localhost", 9), ("127.0.0.1", 9)}


class Site:
    """Servers in a thread: plain, TLS, TLS of a private authority, a proxy, a Unix socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.routes: dict[tuple[str, int], tuple[str, int]] = {}
        self._resolve = socket.getaddrinfo
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Site:
        authority, private = trustme.CA(), trustme.CA()
        authority.cert_pem.write_to_path(str(self.folder / "trusted.pem"))
        private.cert_pem.write_to_path(str(self.folder / "company-ca.pem"))
        client = private.issue_cert("client@example.com")
        client.private_key_and_cert_chain_pem.write_to_path(str(self.folder / "client.pem"))
        self._tls = _server_context(authority, TLS_NAMES)
        self._private_tls = _server_context(private, PRIVATE_NAMES)
        for name, content in FILES.items():
            (self.folder / name).write_bytes(content)
        self._thread.start()
        self._started.wait(10)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def getaddrinfo(self, host: Any, port: Any, *args: Any, **keywords: Any) -> list[Any]:
        """Stand in for ``socket.getaddrinfo``: our names, IP addresses, and nothing else."""
        name = host.decode() if isinstance(host, bytes) else host
        if (name, port) in self.routes:
            name, port = self.routes[name, port]
        elif not re.fullmatch(r"[0-9.]+|.*:.*", name or ""):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self._resolve(name, port, *args, **keywords)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        handlers: set[asyncio.Task[None]] = set()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            handlers.add(task)
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                while await self._answer(reader, writer):
                    pass
            writer.transport.abort()
            handlers.discard(task)

        async with contextlib.AsyncExitStack() as stack:
            for names, context in (
                (PLAIN_NAMES | PROXY_NAMES, None),
                (TLS_NAMES, self._tls),
                (PRIVATE_NAMES, self._private_tls),
            ):
                server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
                await stack.enter_async_context(server)
                address = server.sockets[0].getsockname()
                self.routes |= dict.fromkeys(names, address)
            server = await asyncio.start_unix_server(handle, self.folder / "app.sock")
            await stack.enter_async_context(server)
            refusing = stack.enter_context(socket.socket())
            refusing.bind(("127.0.0.1", 0))
            self.routes |= dict.fromkeys(REFUSING_NAMES, refusing.getsockname())
            self._started.set()
            await self._stop.wait()
            for task in handlers:
                task.cancel()
            await asyncio.gather(*handlers, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether another may follow."""
        head = (await reader.readexactly(1)).decode("latin-1")
        if head == "\x16":  # TLS, on a plain port
            writer.write(_response(400, "Bad Request", b""))
            return False
        head += (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split(" ", 2)
        fields = dict(re.findall(r"(?m)^([^:\r\n]+): (.*)\r$", head.lower()))
        if method == "CONNECT":
            return await self._tunnel(target, fields, reader, writer)
        if fields.get("expect") == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = b""
        if fields.get("transfer-encoding") == "chunked":
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        elif "content-length" in fields:
            if target == "/limited":
                writer.write(_response(413, "Content Too Large", b"too large\n"))
                return False
            body = await reader.readexactly(int(fields["content-length"]))
        path = re.sub("^http://[^/]*", "", target).partition("?")[0]
        route = getattr(self, f"_{method.lower()}_{path.strip('/').replace('.', '_')}", None)
        if path == "/slow":
            await self._stop.wait()
        elif path == "/chat" and fields.get("upgrade") == "chat":
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\nConnection: Upgrade\r\n\r\n"
            )
            while data := await reader.read(1000):
                writer.write(b"you said: " + data)
            return False
        elif route is not None:
            writer.write(route())
            await writer.drain()
            return not target.startswith("/broken")
        elif method in ("GET", "HEAD"):
            found = {"/": INDEX, "/about": INDEX, "/big.iso": BIG}.get(path)
            if found is None:
                writer.write(_response(404, "Not Found", b"not found\n", no_body=method == "HEAD"))
            else:
                kind = "text/html" if found is INDEX else "application/octet-stream"
                writer.write(_response(200, "OK", found, kind, no_body=method == "HEAD"))
        else:
            answer = json.dumps({"method": method, "path": path, "received": len(body)})
            writer.write(_response(201, "Created", answer.encode(), "application/json"))
        await writer.drain()
        return True

    def _get_gzip(self) -> bytes:
        body = gzip.compress(INDEX)
        return _response(200, "OK", body, "text/html\r\nContent-Encoding: gzip")

    def _get_moved(self) -> bytes:
        return _response(302, "Found", b"", "text/html\r\nLocation: /about")

    def _get_hints(self) -> bytes:
        hint = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
        return hint + _response(200, "OK", INDEX, "text/html")

    def _get_events(self) -> bytes:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Digest\r\n\r\n"
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(line), line) for line in LINES.splitlines(True))
        return head + chunks + b"0\r\nDigest: sha-256=abc\r\n\r\n"

    def _get_broken(self) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this"

    async def _tunnel(
        self,
        target: str,
        fields: dict[str, str],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        if "proxy-authorization" not in fields:
            writer.write(_response(407, "Proxy Authentication Required", b"who are you?\n"))
            return False
        host, _, port = target.rpartition(":")
        upstream = self.routes.get((host, int(port)))
        if upstream is None:
            writer.write(_response(502, "Bad Gateway", b""))
            return False
        there = await asyncio.open_connection(*upstream)
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n")
        ways = [asyncio.create_task(_copy(reader, there[1]))]
        ways.append(asyncio.create_task(_copy(there[0], writer)))
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            there[1].transport.abort()
        return False


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


def _server_context(authority: trustme.CA, names: set[tuple[str, int]]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(name for name, _ in names)).configure_cert(context)
    return context


def _response(
    status: int, reason: str, body: bytes, kind: str = "text/plain", *, no_body: bool = False
) -> bytes:
    head = (
        f"HTTP/1.1 {status} {reason}\r\nServer: example\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + (b"" if no_body else body)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted.pem"))
    monkeypatch.setattr("aiohttpconn.net.tls._contexts", {})
    # What one page adds to the process must not be there for the next test. An audit hook cannot
    # be removed, so none is added: sys.audit, as the package calls it, knows those of the page.
    hooks: list[Any] = []
    monkeypatch.setattr(sys, "addaudithook", hooks.append)
    monkeypatch.setattr(sys, "audit", lambda event, *args: [hook(event, args) for hook in hooks])
    logger = logging.getLogger("aiohttpconn")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", False)
    level = logger.level
    with Site(tmp_path) as site:
        monkeypatch.setattr(socket, "getaddrinfo", site.getaddrinfo)
        yield site
    logger.setLevel(level)


# Examples -----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages("python"))
def test_examples_run_and_print_what_is_shown(page: Path, site: Site) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    with asyncio.Runner() as runner:
        for block in blocks(page):
            if block.language == "python":
                printed = run_example(page, block, namespace, runner)
            elif block.language == "text" and block.introduction.endswith("prints:"):
                where = f"{name_of(page)}:{block.line}"
                assert matches(block.text, printed), f"{where} shows\n{block.text}not\n{printed}"


def run_example(page: Path, block: Block, namespace: dict[str, Any], runner: asyncio.Runner) -> str:
    """Run *block*; return what it printed. A traceback names the line of the page."""
    source = "\n" * (block.line - 1) + block.text
    code = compile(source, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    output = io.StringIO()
    with contextlib.redirect_stdout(output), time_limit():
        if code.co_flags & inspect.CO_COROUTINE:
            runner.run(eval(code, namespace))
        else:
            exec(code, namespace)
    return output.getvalue()


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """End an example that hangs with a traceback that shows where."""

    def end(*args: object) -> None:
        raise AssertionError(f"an example takes more than {EXAMPLE_SECONDS} s")

    if not hasattr(signal, "setitimer"):  # Windows
        yield
        return
    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, EXAMPLE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def matches(shown: str, printed: str) -> bool:
    """Whether *printed* is what is *shown*, with ``...`` for anything."""
    pattern = ".*?".join(map(re.escape, shown.rstrip().split("...")))
    return re.fullmatch(pattern, printed.rstrip(), re.DOTALL) is not None


# Commands -----------------------------------------------------------------------------------

COMMANDS = [
    pytest.param(block.text, id=f"{name_of(page)}:{block.line}")
    for page in PAGES
    for block in blocks(page)
    if block.language == "console"
]
TARGETS = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
NOT_RUN = {"pip"}
"""Programs that would change the environment of the tests."""


@pytest.mark.parametrize("text", COMMANDS)
def test_commands_do_what_is_shown(
    text: str, site: Site, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for command, shown in re.findall(r"(?m)^\$ (.*)\n((?:(?!\$ ).*\n)*)", text):
        program, *arguments = shlex.split(command)
        if program == "make":
            assert set(arguments) <= TARGETS, command
        elif program == "python":
            assert arguments[:2] == ["-m", "aiohttpconn"], command
            monkeypatch.setattr(sys, "argv", ["aiohttpconn", *arguments[2:]])
            with pytest.raises(SystemExit) as ended, time_limit():
                runpy.run_module("aiohttpconn", run_name="__main__", alter_sys=False)
            assert not ended.value.code, command
            if shown:
                assert matches(masked(shown), masked(capfd.readouterr().out)), command
        else:
            assert program in NOT_RUN, command


def masked(output: str) -> str:
    """Replace the numbers, and the blanks that align them: times differ, and so do ports."""
    return re.sub(r"[ \t]*(?<!\w)[\d.:]*\d(?!\w)", " N", output)


# Links, names, lists ------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_fenced_blocks_have_a_language(page: Path) -> None:
    assert {block.language for block in blocks(page)} <= LANGUAGES


def prose(page: Path) -> str:
    """Return the page without its fenced blocks."""
    return re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.*)$", prose(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", prose(page)):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_reached_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {
        (index.parent / link.partition("#")[0]).resolve()
        for link in re.findall(r"\]\(([^)]+\.md[^)]*)\)", prose(index))
    }
    assert set(PAGES) - linked == {index}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_path_of_a_machine(page: Path) -> None:
    found = re.findall(r"(?<![\w/])/(?:home|root|work|Users|tmp)/\S*", page.read_text("utf-8"))
    assert found == []


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_README_LINES


def hot_functions() -> set[str]:
    """Return the functions of the package whose docstring says that they are hot."""
    found = set()

    def search(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                search(child, f"{name}.{child.name}")
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                if re.search(r"\bHot[.:]", ast.get_docstring(child) or ""):
                    found.add(f"{name}.{child.name}")

    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        search(ast.parse(path.read_text(encoding="utf-8")), module)
    return found


def test_the_hot_list_is_that_of_the_code() -> None:
    section = (ROOT / "docs/topics/design.md").read_text("utf-8").partition("### The hot list")[2]
    assert set(re.findall(r"(?m)^\| `([\w.]+)` \|", section)) == hot_functions()


def test_design_names_every_module() -> None:
    design = (ROOT / "docs/topics/design.md").read_text(encoding="utf-8")
    names = {path.name for path in PACKAGE.rglob("*.py") if path.parent.name != "cli"}
    assert {name for name in names if name not in design} == set()


REFERENCE = ROOT / "docs" / "reference.md"


@pytest.mark.parametrize("name", sorted(aiohttpconn.__all__))
def test_the_reference_has_every_public_name(name: str) -> None:
    assert re.search(rf"`{name}\b", REFERENCE.read_text(encoding="utf-8"))


def public_parts() -> Iterator[tuple[str, str]]:
    """Yield (name, what it takes or has) for the public functions and classes."""
    for name in aiohttpconn.__all__:
        thing = getattr(aiohttpconn, name)
        if not getattr(thing, "__module__", "").startswith("aiohttpconn.") or (
            isinstance(thing, type) and issubclass(thing, BaseException)
        ):
            continue
        # Its users make neither, and use little of the protocol.
        if name not in ("HTTPResponse", "HTTP1Protocol"):
            yield from ((name, argument) for argument in inspect.signature(thing).parameters)
        if name in ("HTTPConnection", "Timeout", "DialReport"):
            for member, value in vars(thing).items():
                if not member.startswith("_"):
                    yield name, member
                    if inspect.isfunction(value):
                        yield from (
                            (name, argument) for argument in inspect.signature(value).parameters
                        )


@pytest.mark.parametrize("name", sorted({part for _, part in public_parts()} - {"self", "options"}))
def test_the_reference_has_every_argument(name: str) -> None:
    assert re.search(rf"\b{name}\b", REFERENCE.read_text(encoding="utf-8"))


def test_the_reference_has_what_a_response_has_of_http_client() -> None:
    ours = {name for name in dir(aiohttpconn.HTTPResponse) if not name.startswith("_")}
    theirs = set(dir(http.client.HTTPResponse)) | set(
        http.client.HTTPResponse(_FakeSocket()).__dict__
    )
    text = REFERENCE.read_text(encoding="utf-8")
    assert {name for name in ours & theirs if not re.search(rf"\b{name}\b", text)} == set()


class _FakeSocket:
    """What ``http.client.HTTPResponse`` asks of a socket."""

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO()


def test_every_tested_difference_is_on_the_page() -> None:
    from . import test_against_http_client as responses
    from . import test_requests_against_http_client as requests

    entries = [
        *responses.REFUSED,
        *responses.REWRITES,
        *responses.OTHERWISE,
        *requests.REFUSED,
        *requests.REWRITES,
    ]
    page = prose(ROOT / "docs/topics/differences.md")
    shown = {name.replace("\n", " ") for name in re.findall(r"\*\*(.+?)\*\*", page, re.DOTALL)}
    assert {entry.name.partition(":")[0] for entry in entries} - shown == set()
