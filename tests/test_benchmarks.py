"""The benchmarks' instrument: a tiny run of it, and the report and the chart of known figures."""

from __future__ import annotations

import contextlib
import http.server
import importlib
import json
import re
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

SVG = "{http://www.w3.org/2000/svg}"


def load(name: str) -> Any:
    """Import a module of benchmarks/, which is no package: its scripts are run."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


report = load("report")
chart = load("chart")
scenarios = load("scenarios")
summary = load("summary")


def run(folder: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """Run benchmarks/run.py in one short round; return its JSON and what it printed."""
    figures = folder / "figures.json"
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--json", str(figures)]
    command += ["--loops", "asyncio", "--rounds", "1", "--seconds", "0.01", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(figures.read_text()), done.stdout


# The whole instrument -----------------------------------------------------------------------


def test_measures_clients_beside_the_floor(tmp_path):
    figures, printed = run(
        tmp_path,
        *("--server", "own", "--clients", "aiohttpconn,floor"),
        *("--scenarios", "get_x1,chunked_64k"),
        *("--svg", str(tmp_path / "chart"), "--markdown", str(tmp_path / "report.md")),
    )
    assert {(r["scenario"], r["client"], r["loop"]) for r in figures["results"]} == {
        ("get_x1", "floor", "asyncio"),
        ("get_x1", "aiohttpconn", "asyncio"),
        ("chunked_64k", "floor", "asyncio"),
        ("chunked_64k", "aiohttpconn", "asyncio"),
    }
    for result in figures["results"]:
        assert "error" not in result
        (measured,) = result["rounds"]
        assert measured["requests"] >= 1
        assert measured["cpu"] > 0
        assert measured["wall"] > 0
    assert figures["run"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert figures["run"]["machine"]["cores"] >= 1
    assert figures["run"]["versions"]["aiohttpconn"]
    assert figures["scenarios"]["chunked_64k"]["size"] == 65536
    assert "## get_x1" in printed
    assert (tmp_path / "report.md").read_text() == printed
    for theme in ("light", "dark"):
        ElementTree.parse(tmp_path / f"chart-{theme}.svg")


@contextlib.contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server that answers everything alike; gives HOST:PORT."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield "{}:{}".format(*server.server_address)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [(404, b"", "404"), (200, b"short", "5 bytes, not 62")],
    ids=["wrong status", "wrong length"],
)
def test_a_wrong_reply_is_an_error_and_no_figure(tmp_path, status, body, said):
    with answering(status, body) as address:
        figures, printed = run(
            tmp_path, "--server", address, "--clients", "aiohttpconn", "--scenarios", "get_x1"
        )
    assert len(figures["results"]) == 2
    for result in figures["results"]:
        assert result["error"].startswith("WrongReply: ")
        assert said in result["error"]
        assert "rounds" not in result
    assert "| aiohttpconn | asyncio |  |  |  |  |  |" in printed
    assert "error: WrongReply" in printed


# The report -----------------------------------------------------------------------------------


def figures_of(*results: dict[str, Any], scenario: str = "get_x64", **more: Any) -> dict[str, Any]:
    shape = {"what": "small JSON", "size": 62, "unit": "request"} | more
    return {
        "run": {
            "date": "2026-11-23 12:00 UTC",
            "command": "benchmarks/run.py",
            "quick": False,
            "python": "3.11.7",
            "implementation": "CPython",
            "machine": {"cpu": "a CPU", "cores": 2, "system": "Linux"},
            "pinned": {"client": 0, "server": 1},
            "servers": ["nginx 1.22.1"],
            "versions": {"aiohttp": "3.14.5"},
            "loops": ["asyncio", "uvloop"],
            "rounds": 3,
            "seconds": 10.0,
        },
        "scenarios": {scenario: shape},
        "results": [{"scenario": scenario, "loop": "asyncio"} | result for result in results],
    }


def costs(*micros: float, wall: float = 1.0) -> list[dict[str, float]]:
    return [{"requests": 1000, "cpu": micro / 1000, "wall": wall} for micro in micros]


def test_ratios_are_of_the_same_round():
    raw = figures_of(
        {"client": "floor", "rounds": costs(10, 20, 40)},
        {"client": "aiohttpconn", "rounds": costs(15, 26, 80)},
    )
    text = report.markdown(raw)
    # 1.5, 1.3 and 2: the ratio of the medians, 26 / 20, would be 1.3.
    assert "1.50 (1.30–2.00)" in text
    assert "| aiohttpconn | asyncio | 26.0 (15.0–80.0) | 1,000" in text


def test_a_blocking_client_stands_beside_asyncio():
    raw = figures_of(
        {"client": "floor", "rounds": costs(10)},
        {"client": "urllib3", "loop": "threads", "rounds": costs(200)},
    )
    assert "| urllib3 | threads | 200 | 1,000 | 0.0 | 20.0 |  |" in report.markdown(raw)


def test_empty_cells_say_why():
    raw = figures_of(
        {"client": "floor", "rounds": costs(10)},
        {"client": "wreq", "cannot": "it has no such thing"},
        {"client": "httpx", "missing": "not installed"},
        {"client": "aiohttp", "rounds": costs(90), "error": "nothing within 60 s"},
    )
    text = report.markdown(raw)
    for client in ("wreq", "httpx", "aiohttp"):
        assert f"| {client} | asyncio |  |  |  |  |  |" in text
    assert (
        "Empty: wreq: it has no such thing; httpx: not installed; "
        "aiohttp: error: nothing within 60 s." in text
    )


@pytest.mark.parametrize(("cost", "reached"), [(14, "yes"), (15, "yes"), (15.1, "**no**")], ids=str)
def test_a_bar_that_is_a_limit(cost, reached):
    raw = figures_of(
        {"client": "floor", "rounds": costs(10)}, {"client": "aiohttpconn", "rounds": costs(cost)}
    )
    value = f"{cost / 10:.2f}"
    line = f"| `get_x64`, asyncio | ≤ 1.5 × the floor | {value} × | {reached} |"
    assert line in report.markdown(raw)


def test_a_bar_without_figures_is_not_measured():
    raw = figures_of({"client": "aiohttpconn", "rounds": costs(14)})
    verdicts = report.judge(report.Figures(raw))
    assert verdicts
    assert {verdict.reached for verdict in verdicts} == {None}
    assert "| `get_x64`, asyncio | ≤ 1.5 × the floor |  | not measured |" in report.markdown(raw)


def test_the_best_client_in_rust_counts():
    raw = figures_of(
        {"client": "aiohttpconn", "rounds": costs(10)},
        {"client": "wreq", "rounds": costs(30)},
        {"client": "pyreqwest", "rounds": costs(14)},
    )
    (verdict,) = [
        v for v in report.judge(report.Figures(raw)) if "Rust" in v.bar and "asyncio" in v.scenario
    ]
    assert (verdict.measured, verdict.reached) == ("1.40 ×", False)


def test_throughput_compares_gigabytes_per_second():
    shape = {"scenario": "read_256m", "unit": "bytes", "size": 1_000_000, "what": "1 MB"}
    raw = figures_of(
        {"client": "floor", "rounds": costs(10, wall=0.25)},
        {"client": "aiohttpconn", "rounds": costs(10, wall=0.5), "peak": 1_200_000},
        **shape,
    )
    text = report.markdown(raw)
    assert "| aiohttpconn | asyncio | 2.00 | 0.01 | 1.1 | 0.50 |  |" in text
    assert "| `read_256m`, asyncio | ≥ 0.75 × the floor | 0.50 × | **no** |" in text
    assert "| `read_256m`, asyncio | peak ≤ 1.15 × the body | 1.20 × | **no** |" in text


# The chart ------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_bars_are_to_scale(theme):
    raw = figures_of(
        {"client": "floor", "rounds": costs(10)},
        {"client": "aiohttpconn", "rounds": costs(20)},
        {"client": "a<b>&c", "rounds": costs(100)},
        {"client": "wreq", "cannot": "it has no such thing"},
    )
    root = ElementTree.fromstring(chart.svg(raw, theme))
    bars = {
        rect[0].text: float(rect.get("width", "")) for rect in root.iter(f"{SVG}rect") if len(rect)
    }
    widths = list(bars.values())
    assert [next(iter(name.split(" "))) for name in bars] == ["floor", "aiohttpconn", "a<b>&c"]
    # Requests per second of CPU: half of the cost is a bar twice as long.
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.001)
    assert widths[0] / widths[2] == pytest.approx(10, rel=0.001)
    assert {rect.get("x") for rect in root.iter(f"{SVG}rect") if len(rect)} == {"120"}
    texts = [text.text or "" for text in root.iter(f"{SVG}text")]
    assert "50,000 (20.0 µs)" in texts
    assert not any("wreq" in text for text in texts)


def test_a_chart_of_nothing_says_so():
    root = ElementTree.fromstring(chart.svg(figures_of(), "light"))
    assert any(text.text == "no figures" for text in root.iter(f"{SVG}text"))


# The registry ---------------------------------------------------------------------------------


def test_every_client_has_an_adapter_and_a_pinned_version():
    clients = load("clients").CLIENTS
    pinned = ""
    for name in ("requirements.txt", "requirements-niquests.txt"):
        pinned += (BENCHMARKS / name).read_text()
    for name, client in clients.items():
        assert (BENCHMARKS / "clients" / f"{client.module}.py").is_file(), name
        if client.distribution not in ("", "aiohttpconn"):
            assert re.search(rf"^{client.distribution}(\[\w+\])?==", pinned, re.MULTILINE), name


# The published figures ------------------------------------------------------------------------

ROOT = BENCHMARKS.parent
PUBLISHED = BENCHMARKS / "results" / "full.json"


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    return json.loads(PUBLISHED.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", summary.HOMES)
def test_a_page_shows_the_published_figures(published, name):
    page = (ROOT / name).read_text(encoding="utf-8")
    assert page == summary.placed(page, summary.HOMES[name](published))
    # The page says which run it was.
    assert f"Python {published['run']['python'].rpartition('.')[0]}" in page


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_published_chart_is_of_the_published_figures(published, theme):
    shown = (ROOT / f"docs/topics/performance-{theme}.svg").read_text(encoding="utf-8")
    assert shown == chart.svg(published, theme)


def test_the_published_report_is_of_the_published_figures(published):
    shown = (BENCHMARKS / "results" / "full.md").read_text(encoding="utf-8")
    assert shown == report.markdown(published)


def test_the_published_run_was_whole(published):
    run = published["run"]
    assert not run["quick"]
    assert run["rounds"] >= 5
    assert run["loops"] == ["asyncio", "uvloop"]
    assert set(published["scenarios"]) == set(scenarios.SCENARIOS)
    assert not re.search(r"/(home|root|tmp|work|usr)/", json.dumps(published))


def test_a_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="has no <!-- figures"):
        summary.placed("a page", "tables")
