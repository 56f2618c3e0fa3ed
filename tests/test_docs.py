"""The documentation is true: its examples run and print what it says they print.

Every ``python`` block of README.md and docs/ is executed. The blocks of a page share a
namespace and run in order. A ``text`` block under a line that ends with "prints:" is the output
of the block above it, where ``...`` stands for anything; so are the lines below a command in a
``console`` block, where numbers may differ, too.

The servers that the examples speak to are those of ``tests/support/site.py``, on loopback:
``socket.getaddrinfo`` leads names and ports to them, ``SSL_CERT_FILE`` names their authority.
Other names do not resolve. Examples run in the site's folder, which has the files they speak of.
"""

from __future__ import annotations

import ast
import contextlib
import http.client
import inspect
import io
import logging
import re
import runpy
import shlex
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import aiohttpconn
from aiohttpconn.client.settings import RequestOptions
from aiohttpconn.pool.pool import PoolOptions

from .support.clocks import ticking_loops
from .support.site import Site
from .test_layers import ORDER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "aiohttpconn"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

LANGUAGES = {"python", "console", "text"}
"""Languages of fenced blocks: python is executed, console shows commands, text is neither."""

MAX_README_LINES = 250

EXAMPLE_SECONDS = 60


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


# Examples -----------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted.pem"))
    proxies = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    bundles = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    for name in (*proxies, *map(str.upper, proxies), *bundles):
        # First set, so that what an example sets is taken back, too.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr("aiohttpconn.net.tls._contexts", {})
    # A page must add nothing to the process that the next test would meet. An audit hook cannot be
    # removed, so none is added: sys.audit, as the package calls it, knows the hooks of the page.
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


@pytest.mark.parametrize("page", pages("python"))
def test_examples_run_and_print_what_is_shown(page: Path, site: Site) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    for block in blocks(page):
        if block.language == "python":
            printed = run_example(page, block, namespace)
        elif block.language == "text" and block.introduction.endswith("prints:"):
            where = f"{name_of(page)}:{block.line}"
            assert matches(block.text, printed), f"{where} shows\n{block.text}not\n{printed}"


def run_example(page: Path, block: Block, namespace: dict[str, Any]) -> str:
    """Run *block*; return what it printed. A traceback names the line of the page."""
    source = "\n" * (block.line - 1) + block.text
    code = compile(source, str(page), "exec", dont_inherit=True)
    output = io.StringIO()
    # Their limits are short, and a busy machine must not change what they print.
    with contextlib.redirect_stdout(output), time_limit(), ticking_loops():
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
            if not shown:
                continue
            # demo is the only target that is short enough to run here.
            assert arguments == ["demo"], command
        elif program == "python":
            assert arguments[:2] == ["-m", "aiohttpconn"], command
            del arguments[:2]
        else:
            assert program in NOT_RUN, command
            continue
        monkeypatch.setattr(sys, "argv", ["aiohttpconn", *arguments])
        with pytest.raises(SystemExit) as ended, time_limit():
            runpy.run_module("aiohttpconn", run_name="__main__")
        assert not ended.value.code, command
        printed = "".join(capfd.readouterr())
        assert matches(masked(shown), masked(printed)), f"{command} prints\n{printed}"


def masked(output: str) -> str:
    """Replace numbers, the blanks that align them, and bars: times differ, and so do ports."""
    output = re.sub(r"[ \t]*█+", "", output)
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
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and re.search(
                r"\bHot[.:]", ast.get_docstring(child) or ""
            ):
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


def test_design_has_the_layers_in_their_order() -> None:
    layers = next(block.text for block in blocks(ROOT / "docs/topics/design.md"))
    shown = re.findall(r"(?m)^ {0,2}(\w+)\.py ", layers)
    folders = {name for name in ORDER if (PACKAGE / name.replace(".", "/")).is_dir()}
    folders |= {"__main__", "testing.*", "cli.*"}
    assert shown == [name.rpartition(".")[2] for name in ORDER if name not in folders]


REFERENCE = ROOT / "docs" / "reference.md"


def missing_in_reference(names: Iterable[str], heading: str = "") -> set[str]:
    """Return those of *names* that are not there, or not in the section below *heading*."""
    text = REFERENCE.read_text(encoding="utf-8")
    if heading:
        text = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return {name for name in names if not re.search(rf"\b{name}\b", text)}


def test_the_reference_has_every_public_name() -> None:
    assert missing_in_reference(aiohttpconn.__all__) == set()


def arguments(thing: Any) -> set[str]:
    """Return the names of its arguments; what ``**options`` may be is for other tests."""
    parameters = inspect.signature(thing).parameters.values()
    named = {each.name for each in parameters if each.kind is not each.VAR_KEYWORD}
    return named - {"self", "cls"}


def test_the_reference_has_every_argument() -> None:
    for name in (
        "HTTPConnection",
        "HTTPSConnection",
        "Timeout",
        "Limits",
        "Destination",
        "dial",
        "run",
    ):
        assert missing_in_reference(arguments(getattr(aiohttpconn, name))) == set(), name


FOR_THE_POOL = {"adopt", "hand_over", "lead_through"}
"""Methods of a connection that the pool calls, and no program."""


def test_the_reference_has_every_method_and_its_arguments() -> None:
    for kind in (aiohttpconn.HTTPConnection, aiohttpconn.Timeout, aiohttpconn.DialReport):
        own = [vars(base) for base in kind.__mro__ if base.__module__.startswith("aiohttpconn.")]
        for name, value in [item for names in own for item in names.items()]:
            if not name.startswith("_") and name not in FOR_THE_POOL:
                wanted = {name, *(arguments(value) if inspect.isfunction(value) else ())}
                assert missing_in_reference(wanted) == set(), f"{kind.__name__}.{name}"


NOT_MADE_BY_CALLERS = {"ProxyRules", "Request", "RequestOptions"}

IN_SECTIONS = {
    "Authentication": ["Auth", "Basic", "Bearer", "Digest", "Netrc"],
    "Client": ["Client", "Fetched", "Fields", "Request", "RequestOptions"],
    "ConnectionPool": ["ConnectionPool", "OriginStats", "PoolStats"],
    "Cookies": ["CookieStore"],
    "Proxies": ["Proxy", "ProxyRules"],
    "Resolver": ["Resolver"],
    "Response": ["Response", "Timings"],
    "Retry": ["Retry"],
}


@pytest.mark.parametrize("heading", IN_SECTIONS)
def test_the_reference_has_what_the_client_layer_has(heading: str) -> None:
    wanted = set()
    for kind in IN_SECTIONS[heading]:
        thing = getattr(aiohttpconn, kind)
        wanted.add(kind)
        if kind not in NOT_MADE_BY_CALLERS:
            wanted |= arguments(thing)
        for name, value in vars(thing).items():
            if not name.startswith("_"):
                method = getattr(value, "__func__", value)
                wanted |= {name, *(arguments(method) if inspect.isfunction(method) else ())}
    assert missing_in_reference(wanted, heading) == set()


def test_the_reference_has_every_option() -> None:
    assert missing_in_reference(RequestOptions.__annotations__, "Client") == set()
    assert missing_in_reference(PoolOptions.__annotations__, "ConnectionPool") == set()


def test_every_class_of_the_client_layer_is_in_a_section() -> None:
    of_the_client_layer = {
        name
        for name in aiohttpconn.__all__
        if inspect.isclass(thing := getattr(aiohttpconn, name))
        and thing.__module__.startswith("aiohttpconn.client.")
    }
    assert of_the_client_layer - {kind for kinds in IN_SECTIONS.values() for kind in kinds} == set()


SIGNATURES = [
    pytest.param(match, id=match[1])
    for block in blocks(REFERENCE)
    if (match := re.fullmatch(r"(\w+)\((.*?)(?:, \.\.\.)?\)\n", block.text, re.DOTALL))
]


@pytest.mark.parametrize("shown", SIGNATURES)
def test_signatures_in_the_reference_have_the_defaults_of_the_code(shown: re.Match[str]) -> None:
    names = {name: getattr(aiohttpconn, name) for name in aiohttpconn.__all__}
    exec(f"def made({shown[2]}): pass", names)
    actual = inspect.signature(names[shown[1]]).parameters
    for name, parameter in inspect.signature(names["made"]).parameters.items():
        if parameter.default is not ...:
            assert parameter.default == actual[name].default, name
        assert parameter.kind is actual[name].kind, name


def test_the_reference_has_what_a_response_has_of_http_client() -> None:
    theirs = http.client.HTTPResponse(_FakeSocket())
    ours = {name for name in dir(aiohttpconn.HTTPResponse) if not name.startswith("_")}
    assert missing_in_reference(ours & {*dir(theirs), "method"}) == set()


class _FakeSocket:
    """The part of a socket that ``http.client.HTTPResponse`` uses."""

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO()


def test_every_tested_difference_is_on_the_page() -> None:
    from . import test_against_http_client as responses
    from . import test_calls_against_http_client as calls
    from . import test_requests_against_http_client as requests

    entries = [
        *responses.REFUSED,
        *responses.REWRITES,
        *responses.OTHERWISE,
        *requests.REFUSED,
        *requests.REWRITES,
        *calls.OTHERWISE,
    ]
    page = prose(ROOT / "docs/topics/differences.md")
    shown = {name.replace("\n", " ") for name in re.findall(r"\*\*(.+?)\*\*", page, re.DOTALL)}
    assert {entry.name.partition(":")[0] for entry in entries} - shown == set()


ATTACKS = ROOT / "docs" / "topics" / "attacks.md"


def cited_rows(source: str) -> set[str]:
    """Return the ids of rows of the catalogue of attacks in *source*: ``H6-fold``, ``test_c1_...``.

    A test's name may have several, in either case: ``test_c1_c7_...``, ``..._F17_F18``.
    """
    names = re.findall(r"def (test_\w+)", source)
    tokens = [token.upper() for name in names for token in name.split("_")]
    found = {token for token in tokens if re.fullmatch(r"[EHFTC][1-9][0-9]?", token)}
    return found | set(re.findall(r"(?<![\w%\\])[EHFTC][1-9][0-9]?(?!\w)", source))


def test_rows_are_found_where_they_are_cited() -> None:
    source = """
        # C3: another
        def test_c1_c7_one(): ids=["E7-more", f"E1-{x}"]
        def test_http11_two_F17_F18(): b"%C3 h11 H2x"
    """
    assert cited_rows(source) == {"C1", "C3", "C7", "E1", "E7", "F17", "F18"}


def test_every_attack_that_is_cited_is_on_the_page() -> None:
    rows = re.findall(r"(?m)^\| ([EHFTC][0-9]+) \|", ATTACKS.read_text(encoding="utf-8"))
    assert len(rows) == len(set(rows))
    sources = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    cited = {path: cited_rows(path.read_text(encoding="utf-8")) for path in sources}
    assert set().union(*cited.values()) >= {"E1", "H1", "F1", "T1", "C1"}
    missing = {path.name: ids - set(rows) for path, ids in cited.items() if ids - set(rows)}
    assert missing == {}


def test_the_attacks_name_tests_that_are_there() -> None:
    named = set(re.findall(r"`(test_\w+\.py)`", ATTACKS.read_text(encoding="utf-8")))
    assert named <= {path.name for path in (ROOT / "tests").rglob("test_*.py")}
