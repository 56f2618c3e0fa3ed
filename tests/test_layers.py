"""Folders are layers: a module imports only what stands above it in ``ORDER``.

Imports in functions and under TYPE_CHECKING count, too: a module knows the names that it needs to
say its types.
"""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "aiohttpconn"

ORDER = [
    # For all
    "version",
    "exceptions",
    "types",
    "hooks",
    "arguments",
    # The wire
    "http11",
    "http11.limits",
    "http11.grammar",
    "http11.semantics",
    "http11.request_head",
    "http11.response_head",
    "http11.framing",
    "http11.chunked",
    # Getting a transport
    "net",
    "net.loops",
    "net.timeouts",
    "net.threads",
    "net.tls",
    "net.resumption",
    "net.resolver",
    "net.addresses",
    "net.sockets",
    "net.tunnel",
    "net.socks",
    "net.handshakes",
    "net.destination",
    "net.dial",
    # One connection
    "body",
    "params",
    "urls",
    "proxies",
    "exchange",
    "response",
    "failures",
    "buffers",
    "writing",
    "source",
    "ends",
    "protocol",
    "pipelining",
    "opening",
    "upload",
    "endpoint",
    "connection",
    # Many connections
    "pool",
    "pool.rate_limit",
    "pool.scheduler",
    "pool.routes",
    "pool.closing",
    "pool.wait_queue",
    "pool.keepalive",
    "pool.connections",
    "pool.requests",
    "pool.stats",
    "pool.options",
    "pool.pool",
    # What programs ask for
    "client",
    "client.fields",
    "client.content",
    "client.content.labels",
    "client.content.frames",
    "client.content.codecs",
    "client.content.decoding",
    "client.redirects",
    "client.retries",
    "client.waiting",
    "client.cookies",
    "client.cookies.set_cookie",
    "client.cookies.suffixes",
    "client.cookies.jars",
    "client.cookies.by_name",
    "client.cookies.store",
    "client.cookies.given",
    "client.content.multipart",
    "client.content.encode",
    "client.request",
    "client.hints",
    "client.content.charsets",
    "client.content.text",
    "client.links",
    "client.content.reading",
    "client.made",
    "client.response",
    "client.auth",
    "client.auth.schemes",
    "client.auth.asking",
    "client.auth.digest",
    "client.settings",
    "client.sending",
    "client.notable",
    "client.calls",
    "client.plain",
    "client.configured",
    "client.hosts",
    "client.fetch_many",
    "client.destination",
    "client.download",
    "client.client",
    "client.api",
    # What is public, and its users
    "__init__",
    "testing.*",
    "cli.*",
    "__main__",
]
"""Bottom to top. ``x.*``: the modules of a folder, which may import each other without a cycle."""

NO_IO = {"asyncio", "select", "selectors", "socket", "ssl", "threading", "time"}
"""Modules that http11 must not import: it neither waits nor knows what time it is."""


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts[-1] == "__init__" and len(parts) > 1:
        parts = parts[:-1]
    return ".".join(parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def rank(module: str) -> int:
    if module in ORDER:
        return ORDER.index(module)
    folder = module.partition(".")[0] + ".*"
    assert folder in ORDER, f"{module} is in no layer: give it its place in ORDER"
    return ORDER.index(folder)


def imports(module: str, path: Path) -> list[tuple[int, str]]:
    """Return (line, absolute name) of everything that the module imports, wherever it does."""
    package = ["aiohttpconn", *module.split(".")]
    if path.name != "__init__.py" or module == "__init__":
        package.pop()
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # `from .net import dial` may name a module or a thing in one.
            for alias in node.names:
                name = f"{origin}.{alias.name}"
                found.append((node.lineno, name if internal(name) in MODULES else origin))
    return found


def internal(name: str) -> str | None:
    """Return the name within this package, or None for other packages."""
    if name == "aiohttpconn":
        return "__init__"
    return name.removeprefix("aiohttpconn.") if name.startswith("aiohttpconn.") else None


def offences(module: str, path: Path) -> list[str]:
    """Return a line for each import that reaches upwards or sideways."""
    found = []
    for line, name in imports(module, path):
        target = internal(name)
        if target is None or target == module:
            continue
        same_folder = rank(target) == rank(module) and ORDER[rank(module)].endswith(".*")
        if rank(target) >= rank(module) and not same_folder:
            found.append(f"aiohttpconn/{path.relative_to(PACKAGE)}:{line} imports {target}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_from_below(module):
    assert offences(module, MODULES[module]) == []


@pytest.mark.parametrize("module", [m for m in MODULES if m.split(".")[0] == "http11"])
def test_the_wire_knows_no_io(module):
    roots = {name.partition(".")[0] for _, name in imports(module, MODULES[module])}
    assert roots & NO_IO == set()


def test_order_names_only_modules_that_exist():
    named = {name for name in ORDER if not name.endswith(".*")}
    assert named - set(MODULES) == set()


def test_there_is_no_cycle():
    graph = {
        module: {internal(name) for _, name in imports(module, path)} - {None, module}
        for module, path in MODULES.items()
    }
    graphlib.TopologicalSorter(graph).prepare()


LONGEST = 760
"""Lines of a module at most."""

ONE_SUBJECT = {
    "client.response": "one response as callers see it: its head, its facts, its body",
    "connection": "http.client's states, one method for each of its names",
    "pool.connections": "making, checking, leasing, keeping and closing the pool's connections",
    "pool.scheduler": "the one set of invariants that says which request gets which connection",
    "protocol": "one transport: what arrives, in order",
    "response": "the ways of reading a body",
}
"""Modules of more than 450 lines, and the one subject that each of them has."""


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_one_subject(module):
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST
    assert (lines > 450) == (module in ONE_SUBJECT), f"{lines} lines"


def test_the_fast_path_of_a_client_fits_on_a_screen():
    tree = ast.parse(MODULES["client.client"].read_text(encoding="utf-8"))
    (request,) = [
        part
        for part in ast.walk(tree)
        if isinstance(part, ast.AsyncFunctionDef) and part.name == "request"
    ]
    assert request.end_lineno - request.lineno < 65


@pytest.mark.parametrize(
    ("module", "source", "offence"),
    [
        ("exceptions", "from .types import BytesLike", "imports types"),
        ("http11.response_head", "from . import chunked", "imports http11.chunked"),
        ("http11.response_head", "from ..net.tls import x", "imports net.tls"),
        ("http11.response_head", "import aiohttpconn.net.tls", "imports net.tls"),
        ("net.dial", "def f():\n    from .. import connection", "imports connection"),
        ("net.tls", "if TYPE_CHECKING:\n    from .dial import Dial", "imports net.dial"),
        ("protocol", "from aiohttpconn import HTTPConnection", "imports __init__"),
        (
            "net.dial",
            "from ..http11 import response_head\nfrom .tls import x\nimport asyncio",
            None,
        ),
        ("cli.main", "from .. import HTTPConnection\nfrom . import other", None),
    ],
)
def test_sees_what_it_must_see(module, source, offence, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    known = dict.fromkeys([*ORDER, "cli.main", "cli.other"], tmp_path)
    monkeypatch.setitem(globals(), "MODULES", known)
    path = tmp_path / "module.py"
    path.write_text(source)
    found = offences(module, path)
    assert [line.split(" ", 1)[1] for line in found] == ([offence] if offence else [])
