"""The benchmarks' instruments: tiny runs of them, and their reports of known figures."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.server
import importlib
import json
import re
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiohttpconn

if TYPE_CHECKING:
    from collections.abc import Iterator

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

SVG = "{http://www.w3.org/2000/svg}"


def load(name: str, folder: str = ".") -> Any:
    """Import a module of benchmarks/, which is no package: its scripts are run."""
    paths = [str(BENCHMARKS / folder), str(BENCHMARKS)]
    sys.path[:0] = paths
    try:
        return importlib.import_module(name)
    finally:
        for path in paths:
            sys.path.remove(path)


cancellation = load("cancellation")
clients = load("clients")
experiments = load("experiments")
fairness = load("fairness")
one_server = load("one_server")
fetch_many = load("fetch_many")
own = load("own", "server")
report = load("report")
chart = load("chart")
scenarios = load("scenarios")
summary = load("summary")
workers = load("workers")


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


def test_measures_the_client_too(tmp_path):
    figures, _ = run(
        tmp_path,
        *("--server", "own", "--clients", "client"),
        *("--scenarios", "pipelined_x64,many_hosts_connect"),
    )
    measured = {(r["scenario"], r["client"]): r for r in figures["results"] if "rounds" in r}
    assert not [result for result in figures["results"] if "error" in result]
    assert set(measured) == {
        ("pipelined_x64", "floor"),
        ("pipelined_x64", "client"),
        ("many_hosts_connect", "floor"),
        ("many_hosts_connect", "aiohttpconn"),
        ("many_hosts_connect", "client"),
    }
    # As many as are at once, and so a whole number of those for each connection.
    for client in ("floor", "client"):
        assert measured["pipelined_x64", client]["rounds"][0]["requests"] % (64 * 16) == 0


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


def verdicts(raw: dict[str, Any], text: str) -> dict[str, tuple[str, bool | None]]:
    """Return what was measured, and whether it was reached, of the bars whose text has *text*."""
    judged = report.judge(report.Figures(raw))
    return {v.scenario: (v.measured, v.reached) for v in judged if text in v.bar}


@pytest.mark.parametrize(
    ("client", "cost", "text", "expected"),
    [
        ("client-nocookies", 13.5, "no cookies: ≤ 1.35", ("1.35 ×", True)),
        ("client-nocookies", 13.6, "no cookies: ≤ 1.35", ("1.36 ×", False)),
        ("client", 15, "`Client.get`: ≤ 1.5", ("1.50 ×", True)),
        ("client", 15.1, "`Client.get`: ≤ 1.5", ("1.51 ×", False)),
        ("client", 20, "3.5 × less than aiohttp", ("3.50 ×", True)),
        ("client", 21, "3.5 × less than aiohttp", ("3.33 ×", False)),
    ],
)
def test_the_bars_of_the_client(client, cost, text, expected):
    raw = figures_of(
        {"client": "aiohttpconn", "rounds": costs(10)},
        {"client": "aiohttp", "rounds": costs(70)},
        {"client": client, "rounds": costs(cost)},
    )
    assert verdicts(raw, text)["`get_x64`, asyncio"] == expected


@pytest.mark.parametrize(
    ("wall", "of_ours", "of_rust"),
    [(0.6, ("1.67 ×", True), ("3.33 ×", True)), (0.9, ("1.11 ×", False), ("2.22 ×", False))],
)
def test_pipelining_is_compared_by_requests_per_second(wall, of_ours, of_rust):
    raw = figures_of(
        {"client": "aiohttpconn", "loop": "uvloop", "rounds": costs(10, wall=1)},
        {"client": "wreq", "loop": "uvloop", "rounds": costs(20, wall=3)},
        {"client": "pyreqwest", "loop": "uvloop", "rounds": costs(30, wall=2)},
        {"client": "client", "loop": "uvloop", "rounds": costs(99, wall=99)},
    )
    raw["scenarios"]["pipelined_x64"] = raw["scenarios"]["get_x64"]
    deep = {"scenario": "pipelined_x64", "client": "client", "loop": "uvloop"}
    raw["results"].append(deep | {"rounds": costs(5, wall=wall)})
    name = "`pipelined_x64`, uvloop"
    assert verdicts(raw, "HTTPConnection`'s requests/s") == {name: of_ours}
    assert verdicts(raw, "requests/s of the best in Rust")[name] == of_rust


@pytest.mark.parametrize(
    ("scenario", "few"),
    [
        ("open_10000_hot", "client-64-open"),
        ("open_10000_spread", "client-64-open"),
        ("queued_100000", "client-1000-queued"),
    ],
)
def test_a_crowd_is_compared_with_a_small_one(scenario, few):
    raw = figures_of(
        {"client": "client", "rounds": costs(13, 20)},
        {"client": few, "rounds": costs(10, 16)},
        scenario=scenario,
        only=["client", few],
    )
    expected = ("1.27 (1.25–1.30) ×", True)
    assert verdicts(raw, "≤ 1.3 × that with")[f"`{scenario}`, asyncio"] == expected
    # These have a table of their own, and no column where the others would have no figure.
    tables = summary.summary(raw).split("\n\n")
    assert tables[0].splitlines()[0] == f"| CPU µs per request | `{scenario}` |"
    assert "| client | 16.5 / – |" in tables[0]


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


def test_what_is_ours_has_our_colour():
    raw = figures_of(
        *[{"client": name, "rounds": costs(10)} for name in ("aiohttpconn", "client", "aiohttp")]
    )
    root = ElementTree.fromstring(chart.svg(raw, "light"))
    fills = {
        rect[0].text.split(" ")[0]: rect.get("fill")
        for rect in root.iter(f"{SVG}rect")
        if len(rect)
    }
    assert fills["client"] == fills["aiohttpconn"] == chart.THEMES["light"]["ours"]
    assert fills["aiohttp"] == chart.THEMES["light"]["peer"]


def test_a_chart_of_nothing_says_so():
    root = ElementTree.fromstring(chart.svg(figures_of(), "light"))
    assert any(text.text == "no figures" for text in root.iter(f"{SVG}text"))


# The registry ---------------------------------------------------------------------------------


def test_what_is_only_for_some_names_what_there_is():
    for name, client in clients.CLIENTS.items():
        assert set(client.only) <= set(scenarios.SCENARIOS), name
    for name, scenario in scenarios.SCENARIOS.items():
        assert set(scenario.only) <= set(clients.CLIENTS), name


def test_every_client_has_an_adapter_and_a_pinned_version():
    pinned = ""
    for name in ("requirements.txt", "requirements-niquests.txt"):
        pinned += (BENCHMARKS / name).read_text()
    for name, client in clients.CLIENTS.items():
        assert (BENCHMARKS / "clients" / f"{client.module}.py").is_file(), name
        if client.distribution not in ("", "aiohttpconn"):
            assert re.search(rf"^{client.distribution}(\[\w+\])?==", pinned, re.MULTILINE), name


JOB = clients.Job("pipelined", "/x", 62, 4, "127.0.0.1", 8080, depth=16)


class AllAtOnce(clients.AsyncClient):
    """An adapter whose action makes all requests that are at once on a connection."""

    requests_per_call = 16

    def __init__(self, job: Any) -> None:
        super().__init__(job)
        self.calls = 0

    async def pipelined(self, slot: Any) -> int:
        self.calls += 1
        await asyncio.sleep(0)
        return 62 * self.requests_per_call


class OneByOne(AllAtOnce):
    one_by_one = True
    requests_per_call = 1


@pytest.mark.parametrize(("kind", "slots", "calls"), [(AllAtOnce, 4, 8), (OneByOne, 64, 128)])
async def test_an_action_makes_all_requests_of_a_connection_or_one(kind, slots, calls):
    client = kind(JOB)
    assert len(client.slots) == slots
    assert await client.run(128) == 128
    assert client.calls == calls


# Calibration ----------------------------------------------------------------------------------


class Ready:
    """A worker that takes a millisecond for each request."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.count = 0

    def go(self, count: int) -> dict[str, float]:
        self.asked.append(count)
        return {"wall": count / 1000}


def test_a_round_is_filled_in_whole_rows():
    worker = Ready()
    scenario = scenarios.Scenario("shape", "deep", concurrency=4, depth=16)
    workers.calibrate(worker, scenario, 0.4)
    # Warmed up with all that are at once; a row takes 64 ms, which 0.4 s have six of.
    assert worker.asked[:2] == [64, 64]
    assert worker.count == 384


def test_a_round_of_a_given_count_is_not_calibrated():
    worker = Ready()
    workers.calibrate(worker, scenarios.Scenario("shape", "crowded", count=5000), 0.4)
    assert (worker.asked, worker.count) == ([64], 5000)


def test_children_have_no_proxies(monkeypatch):
    for name in ("http_proxy", "HTTPS_PROXY", "all_proxy", "PYTHONDONTWRITEBYTECODE"):
        monkeypatch.setenv(name, "http://proxy.invalid:3128")
    monkeypatch.setenv("KEPT", "yes")
    environment = workers.environment()
    assert environment["KEPT"] == "yes"
    assert not [name for name in environment if "proxy" in name.lower()]
    assert "PYTHONDONTWRITEBYTECODE" not in environment


# The server -----------------------------------------------------------------------------------


async def test_the_server_tells_how_many_wait_at_once():
    server = await asyncio.get_running_loop().create_server(own.Server, "127.0.0.1", 0)
    origin = "http://{}:{}".format(*server.sockets[0].getsockname())
    waiting = own.delayed.timers

    async def ask(client: Any, count: int) -> list[Any]:
        """Let *count* requests wait for a minute."""
        tasks = [asyncio.ensure_future(client.get(f"{origin}/wait/60000")) for _ in range(count)]
        while len(waiting) < count:
            await asyncio.sleep(0)
        return tasks

    try:
        async with aiohttpconn.Client(limit_per_host=3) as client:
            tasks = await ask(client, 3)
            for transport in list(waiting):
                own.delayed.answer(transport)
            responses = await asyncio.gather(*tasks)
            assert sorted(response.text for response in responses) == ["1", "2", "3"]
            # Who is gone waits no more.
            (task,) = await ask(client, 1)
            task.cancel()
            while waiting:
                await asyncio.sleep(0)
            assert (await client.get(f"{origin}/wait/0")).text == "1"
    finally:
        server.close()
        await server.wait_closed()


# Experiments with each client -----------------------------------------------------------------


def contender(name: str = "peer", limit: str = "`limit=20`") -> Any:
    return experiments.Contender(name, "client", "1.0", limit)


def test_our_client_takes_part_with_and_without_a_limit_per_host(monkeypatch):
    versions = {"client": "1.0", "aiohttp": "3.14.5"}
    monkeypatch.setattr(experiments, "find_versions", lambda: versions)
    monkeypatch.setattr(experiments, "of_adapter", lambda name, attribute: f"`{name}'s`")
    found, absent = experiments.contenders("client,aiohttp,httpx,urllib3")
    assert [(one.name, one.limit, one.options) for one in found] == [
        ("aiohttpconn", "`client's`", {}),
        ("aiohttpconn", "`limit=20, limit_per_host=8`", {"limit_per_host": 8}),
        ("aiohttpconn", "`limit=20, limit_per_host=None`", {"limit_per_host": None}),
        ("aiohttp", "`aiohttp's`", {}),
    ]
    assert absent == {
        "httpx": "not installed",
        "urllib3": "blocks, and what waits are threads",
    }


@pytest.mark.parametrize(
    ("ending", "seconds", "error"),
    [
        ("os.mkdir('hangs'); time.sleep(60)", 1, "nothing more within 1 s"),
        ("sys.exit(3)", 60, "ended with status 3"),
        ("print(json.dumps({'error': 'OSError: no'}))", 60, "OSError: no"),
        ("pass", 60, ""),
    ],
    ids=["hangs", "fails", "says why", "ends well"],
)
def test_what_a_child_had_found_stays(tmp_path, monkeypatch, ending, seconds, error):
    script = tmp_path / "script.py"

    class Patient(subprocess.Popen):
        """Its time begins when the script hangs: a busy machine may need it all to start."""

        def communicate(self, *args: Any, timeout: float | None = None) -> Any:
            while not Path("hangs").exists():
                time.sleep(0.01)
            return super().communicate(*args, timeout=timeout)

    monkeypatch.chdir(tmp_path)
    if "hangs" in ending:
        monkeypatch.setattr(experiments.subprocess, "Popen", Patient)
    script.write_text(
        "import json, os, sys, time\n"
        "print(json.dumps({'first': sys.argv[1]}), flush=True)\n"
        "print('a warning', file=sys.stderr, flush=True)\n"
        f"{ending}\n"
    )
    endpoint = load("servers").Endpoint("own", "", (("127.0.0.1", 1),) * 3)
    outcome = experiments.run(str(script), contender(), "asyncio", endpoint, ["--seed"], seconds)
    assert (outcome.found, outcome.error) == ({"first": "--seed"}, error)
    assert outcome.said == "a warning\n"


def test_an_experiment_is_made_in_a_process_of_its_own(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "from experiments import child, options, report\n"
        "async def experiment(client):\n"
        "    report(limit=client.job.limit, counters=client.counters())\n"
        "    raise ValueError('no\\nmore')\n"
        "sys.exit(child(*options('').parse_args().child, experiment))\n"
    )
    endpoint = load("servers").Endpoint("own", "", (("127.0.0.1", 1),) * 3)
    outcome = experiments.run(str(script), contender(), "asyncio", endpoint, [], 60)
    assert outcome.found == {"limit": 20, "counters": {"leased": 0, "queued": 0}}
    assert outcome.error == "ValueError: no more"


def outcomes(*found: dict[str, Any], **more: Any) -> list[Any]:
    return [experiments.Outcome(one, **more) for one in found]


def test_the_table_of_fairness():
    even = {"at_once": 20, "first": 0.4, "more": 0.02, "crowd": 5.04}
    rows = [
        (contender("fair"), outcomes(even, even | {"first": 0.41})),
        (contender("dead"), outcomes({"first": 4.9}, {}, error="nothing more within 60 s")),
    ]
    assert experiments.table(fairness.COLUMNS, rows, {"gone": "not installed"}) == (
        "| client | limit | connections to the slow host | the one, s | 10 more, s "
        "| until the 200 are done, s |\n"
        "|---|---|---:|---:|---:|---:|\n"
        "| fair 1.0 | `limit=20` | 20 | 0.400 / 0.410 | 0.020 | 5.0 |\n"
        "| dead 1.0 | `limit=20` | – | 4.900 / – | – | – |\n"
        "\n"
        "Missing: dead 1.0: nothing more within 60 s; gone: not installed.\n"
    )


def test_the_table_of_cancellation():
    clean = {
        "cancelled": 10_012,
        "errors": {},
        "wrong": 0,
        "hung": 0,
        "counters": {"leased": 0, "queued": 0},
        "at_once": 20,
        "later_wrong": 0,
        "later_errors": {},
        "hanging": 0,
    }
    dead = clean | {
        "errors": {"ReadError": 1500},
        "wrong": 2,
        "counters": {"busy": 20, "requests": 0},
        "at_once": 0,
        "later_wrong": 1,
        "later_errors": {"PoolTimeout": 3},
        "hanging": 57,
    }
    told_nothing = clean | {"counters": None}
    said = "Traceback:\n  File\n\nValueError: x\n"
    rows = [
        (contender("clean"), outcomes(clean, clean)),
        (contender("dead"), outcomes(dead, said=said)),
        (contender("silent"), outcomes(told_nothing)),
        (contender("hung"), outcomes({"cancelled": 7})),
    ]
    lines = experiments.table(cancellation.COLUMNS, rows, {}).splitlines()[2:]
    assert lines == [
        "| clean 1.0 | `limit=20` | 10,012 | none | none | zero | 20 | none | nothing |",
        "| dead 1.0 | `limit=20` | 10,012 | 1,500 ReadError | **3** | 20 busy "
        "| **0**, 3 PoolTimeout | **57** | 2 lines |",
        "| silent 1.0 | `limit=20` | 10,012 | none | none | not told | 20 | none | nothing |",
        "| hung 1.0 | `limit=20` | 7 | – | – | – | – | – | nothing |",
    ]


class Scripted(clients.AsyncClient):
    """An adapter that does what the test says; the job is for two hosts."""

    def __init__(self, fetch: Any) -> None:
        targets = (("127.0.0.1", 1), ("127.0.0.1", 2))
        super().__init__(clients.Job("fetch", "/x", 62, 20, "127.0.0.1", 1, targets=targets))
        self._fetch = fetch

    async def fetch(self, url: str) -> bytes:
        return await self._fetch(url)


def answer_to(url: str) -> bytes:
    """Return what server/own.py answers."""
    if "/wait/" in url:
        return b"20"
    return scenarios.REPLY if url.endswith("/x") else bytes(64 * 1024)


async def waits(url: str) -> bytes:
    await asyncio.sleep(3600)
    return b""


async def answers(url: str) -> bytes:
    return answer_to(url)


async def answers_another(url: str) -> bytes:
    return answer_to("/x" if "/wait/" in url else "/wait/2")


async def turns_into_something_else(url: str) -> bytes:
    try:
        return await waits(url)
    except asyncio.CancelledError:
        raise OSError("closed") from None


async def test_counts_what_becomes_of_cancelled_calls(monkeypatch):
    monkeypatch.setattr(cancellation, "LATEST", 0.0)
    cancelling = cancellation.Cancelling(Scripted(waits), 150, 1)
    await cancelling.run()
    # Who is under way when the last one is cancelled is cancelled too.
    assert 150 <= cancelling.cancelled <= 150 + cancellation.CALLERS
    assert (cancelling.wrong, cancelling.hung, cancelling.errors) == (0, 0, {})


async def test_counts_other_exceptions_than_the_cancellation(monkeypatch):
    monkeypatch.setattr(cancellation, "LATEST", 0.0)
    cancelling = cancellation.Cancelling(Scripted(turns_into_something_else), 50, 1)
    await cancelling.run()
    # Some are cancelled before they have begun.
    assert cancelling.errors["OSError"] > 0
    assert cancelling.cancelled + cancelling.errors["OSError"] >= 50


async def test_counts_answers_to_other_requests(monkeypatch):
    monkeypatch.setattr(cancellation, "LATEST", 0.0)
    for fetch, right in ((answers, True), (answers_another, False)):
        cancelling = cancellation.Cancelling(Scripted(fetch), 10, 1)
        await cancelling.run()
        assert (cancelling.wrong == 0) is right


async def test_gives_up_where_a_cancelled_call_hangs(monkeypatch):
    monkeypatch.setattr(cancellation, "LATEST", 0.0)
    monkeypatch.setattr(cancellation, "PATIENCE", 0.01)
    over = asyncio.Event()

    async def hears_nothing(url: str) -> bytes:
        try:
            return await waits(url)
        except asyncio.CancelledError:
            await over.wait()
            return answer_to(url)

    cancelling = cancellation.Cancelling(Scripted(hears_nothing), 1_000_000, 1)
    await cancelling.run()
    assert 0 < cancelling.hung <= cancellation.CALLERS
    over.set()
    own_task = asyncio.current_task()
    await asyncio.wait([task for task in asyncio.all_tasks() if task is not own_task])


@pytest.mark.parametrize(
    ("fetch", "expected"),
    [
        (answers, {"at_once": 20}),
        (answers_another, {"later_wrong": 60}),
        (waits, {"hanging": 60}),
    ],
)
async def test_capacity_is_what_the_server_says(monkeypatch, fetch, expected):
    monkeypatch.setattr(cancellation, "PATIENCE", 0.02)
    usual = {"at_once": 0, "later_wrong": 0, "later_errors": {}, "hanging": 0}
    assert await cancellation.capacity(Scripted(fetch)) == usual | expected


def test_with_the_defaults_each_client_has_as_many_connections_as_by_itself(monkeypatch):
    versions = {"client": "1.0", "aiohttp": "3.14.5", "wreq": "0.13.0"}
    defaults = {"client": "114", "aiohttp": "100", "wreq": "0"}
    monkeypatch.setattr(experiments, "find_versions", lambda: versions)
    monkeypatch.setattr(experiments, "of_adapter", lambda name, attribute: defaults[name])
    found, absent = experiments.contenders("client,aiohttp,wreq", defaults=True)
    assert [(one.name, one.limit, one.connections) for one in found] == [
        ("aiohttpconn", "its own", 114),
        ("aiohttpconn", "`limit_per_host=8`", 114),
        ("aiohttpconn", "`limit_per_host=None`", 114),
        ("aiohttp", "its own", 100),
    ]
    assert absent == {"wreq": "its default is not known here"}


async def test_one_server_is_asked_twice(capsys):
    asked = []

    async def fetch(url: str) -> bytes:
        asked.append(url)
        return b"112"

    await one_server.experiment(Scripted(fetch))
    found: dict[str, Any] = {}
    for line in capsys.readouterr().out.splitlines():
        found |= json.loads(line)
    assert found.keys() == {"new_first", "new_last", "open_first", "open_last", "at_once"}
    assert found["at_once"] == 112
    assert len(asked) == 401
    found |= {"new_first": 0.11, "new_last": 0.25, "open_last": 0.21}
    row = experiments.table(one_server.COLUMNS, [(contender(), outcomes(found))], {})
    assert row.splitlines()[2] == "| peer 1.0 | `limit=20` | 112 | 0.11 | 0.25 | 0.21 |"


async def test_fairness_times_the_one_request_behind_a_crowd(monkeypatch, capsys):
    monkeypatch.setattr(fairness, "HEAD_START", 0.0)
    free = asyncio.Event()

    async def fetch(url: str) -> bytes:
        if "/wait/" in url:
            await free.wait()
            return b"8"
        free.set()
        return b""

    await fairness.experiment(Scripted(fetch))
    found: dict[str, Any] = {}
    for line in capsys.readouterr().out.splitlines():
        found |= json.loads(line)
    assert found.keys() == {"first", "more", "crowd", "at_once"}
    assert found["at_once"] == 8
    assert 0 <= found["first"] <= found["crowd"] < 5


# fetch_many -----------------------------------------------------------------------------------


def parts(*resident: float, traced: tuple[float, ...] = (0,) * 4) -> tuple[list[Any], list[Any]]:
    return (
        [{"rate": 50_000.4, "resident": value * 2**20, "traced": 0} for value in resident],
        [{"rate": 9_000, "resident": 0, "traced": value * 1024} for value in traced],
    )


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        (parts(30, 30, 30.5, 30.25), "yes (+384 KiB resident, +0 KiB traced)"),
        (parts(30, 32, 34, 36), "**no** (+5,120 KiB resident, +0 KiB traced)"),
        (parts(30, 99, 30, 30), "yes (+0 KiB resident, +0 KiB traced)"),
        (
            parts(30, 30, 30, 30, traced=(2000, 2100, 2200, 2300)),
            "**no** (+0 KiB resident, +250 KiB traced)",
        ),
    ],
    ids=["flat", "resident memory grows", "a moment's peak", "Python's objects grow"],
)
def test_memory_is_flat_or_not(measured, verdict):
    text = fetch_many.report({"asyncio": measured}, 100_000)
    assert text.splitlines()[-1] == f"asyncio: flat after the first 10,000: {verdict}"
    assert text.splitlines()[2].startswith("| 10,000 | 50,000 | 30.0 |")


async def test_fetch_many_reads_memory_at_every_part(capsys):
    server = await asyncio.get_running_loop().create_server(own.Server, "127.0.0.1", 0)
    host = "{}:{}".format(*server.sockets[0].getsockname())
    options = argparse.Namespace(urls=20, concurrency=4, ordered=True, trace=False)
    try:
        await fetch_many.fetch([host], options)
    finally:
        server.close()
        await server.wait_closed()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == fetch_many.PARTS
    assert all(line["rate"] > 0 and line["traced"] == 0 for line in lines)


# Small ones -----------------------------------------------------------------------------------


def micro(monkeypatch: Any, name: str, *arguments: str, **constants: int) -> Any:
    """Import a file of benchmarks/micro/, and make it quick."""
    module = load(name, "micro")
    for constant, value in constants.items():
        monkeypatch.setattr(module, constant, value)
    monkeypatch.setattr(sys, "argv", [name, "--rounds", "1", *arguments])
    return module


def test_an_exchange_of_the_client_is_measured_in_every_case(monkeypatch, capsys):
    monkeypatch.setattr(load("exchange", "micro"), "EXCHANGES", 32)
    module = micro(monkeypatch, "client_exchange", EXCHANGES=32)
    asyncio.run(module.main())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("×  ")[1] for line in lines] == ["HTTPConnection", *module.CASES]


def test_cases_are_chosen_by_a_part_of_their_names(monkeypatch, capsys):
    monkeypatch.setattr(load("exchange", "micro"), "EXCHANGES", 32)
    module = micro(monkeypatch, "client_exchange", "--cases=base,auth", "--differ", EXCHANGES=32)
    asyncio.run(module.main())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("×  ")[1] for line in lines] == ["HTTPConnection", "base_url", "auth"]


def test_a_look_at_a_socket_is_measured_in_every_way(monkeypatch, capsys):
    micro(monkeypatch, "stale_look", LOOKS=2).main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["asyncio"] * 6 + ["uvloop"] * 6


def test_all_books_of_idle_connections_agree(monkeypatch, capsys):
    module = micro(monkeypatch, "idle_books", STEPS=3, CROWDS=((6, 2),))
    for way in module.WAYS.values():
        books = way()
        first, second = sites = module.fill(books, 6, 2)
        kept = books.take(first)
        assert kept.origin is first
        books.put(kept)
        assert books.take(first) is kept
        oldest = books.oldest()
        assert oldest.origin is first
        books.end(oldest)
        assert books.oldest().origin is second
        assert [books.take(site).origin for site in sites] == sites
    module.main()
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(module.WAYS)


def test_making_a_client_is_measured(monkeypatch, capsys):
    micro(monkeypatch, "client_creation").main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(")  ")[2] for line in lines[:-2]] == [
        "import asyncio, ssl, http.client",
        "import aiohttpconn",
        "aiohttpconn.Client, whose first use imports it",
        "Client(), the first",
        "Client(), the second",
        "Client(), later",
        "ConnectionPool()",
    ]


@pytest.mark.parametrize("name", ["run", "fairness", "one_server", "cancellation", "fetch_many"])
def test_every_script_explains_itself(monkeypatch, capsys, name):
    module = load(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as caught:
        module.main()
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert f"usage: {name}.py" in printed
    # The parent's way to call its children is nobody else's.
    assert "--child" not in printed


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
