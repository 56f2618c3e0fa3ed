"""The chart: figures of run.py's JSON as an SVG, light or dark.

Bars are to scale and start at zero. They show requests per second of CPU (so longer is better, and
slow clients are as readable as quick ones), with CPU µs per request written beside them, and GB/s.
The file is pure text, without scripts or fonts of its own.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from html import escape
from typing import Any

from report import KIN, Figures, Result

__all__ = ["THEMES", "svg"]

WIDTH = 760
LABEL = 120
"""Pixels for the names, left of the bars."""
VALUE = 110
"""Pixels for the values, right of the longest bar."""
BAR, GAP, BETWEEN = 13, 2, 9
TITLE, FOOT = 44, 30

THEMES = {
    "light": {
        "back": "#ffffff",
        "text": "#1f2328",
        "soft": "#59636e",
        "line": "#d1d9e0",
        "ours": "#0969da",
        "ours2": "#54aeff",
        "floor": "#818b98",
        "floor2": "#b7bec7",
        "peer": "#bc6c25",
        "peer2": "#dda15e",
    },
    "dark": {
        "back": "#0d1117",
        "text": "#f0f6fc",
        "soft": "#9198a1",
        "line": "#3d444d",
        "ours": "#4493f8",
        "ours2": "#1f5fb0",
        "floor": "#9198a1",
        "floor2": "#5d656e",
        "peer": "#dda15e",
        "peer2": "#9c6a2c",
    },
}


@dataclass(frozen=True)
class Bar:
    """One bar: its length, in the panel's unit, and the text beside it."""

    client: str
    loop: str
    value: float
    label: str


@dataclass(frozen=True)
class Panel:
    """Bars that share a scale."""

    title: str
    bars: list[Bar]

    def clients(self) -> list[str]:
        """Return the clients, the longest bar first."""
        best: dict[str, float] = {}
        for bar in self.bars:
            best[bar.client] = max(best.get(bar.client, 0.0), bar.value)
        return sorted(best, key=lambda client: -best[client])


def panels(figures: Figures) -> list[Panel]:
    """Return the panels for which *figures* has results."""
    found = []
    for name in ("get_x64", "get_x64_tls"):
        bars = [_cpu_bar(result) for result in figures.of(name) if result.rounds]
        if bars:
            what = figures.scenarios[name]["what"]
            found.append(Panel(f"{what}: requests per second of CPU (CPU µs per request)", bars))
    bars = [_throughput_bar(r) for r in figures.of("stream_256m") if r.rounds]
    if bars:
        found.append(Panel(f"{figures.scenarios['stream_256m']['what']}: GB/s", bars))
    return found


def _cpu_bar(result: Result) -> Bar:
    middle = statistics.median(result.cpu)
    digits = 1 if middle < 100 else 0
    rate = f"{1e6 / middle:,.0f}"
    return Bar(result.client, result.loop, 1e6 / middle, f"{rate} ({middle:,.{digits}f} µs)")


def _throughput_bar(result: Result) -> Bar:
    middle = statistics.median(result.throughput)
    return Bar(result.client, result.loop, middle, f"{middle:.2f}")


def svg(raw: dict[str, Any], theme: str) -> str:
    """Return the chart of run.py's figures in a theme of ``THEMES``."""
    figures, colours = Figures(raw), THEMES[theme]
    body: list[str] = []
    top = 0
    for panel in panels(figures):
        drawn, top = _draw(panel, top, colours)
        body += drawn
    if not body:
        body.append(_text(20, 30, "no figures", colours["text"]))
        top = 40
    body += _legend(top, colours, figures)
    height = top + FOOT
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Benchmarks of HTTP clients" '
        'font-family="system-ui, sans-serif" font-size="12">'
    )
    back = f'<rect width="{WIDTH}" height="{height}" fill="{colours["back"]}"/>'
    return "\n".join([head, back, *body, "</svg>"]) + "\n"


def _draw(panel: Panel, top: int, colours: dict[str, str]) -> tuple[list[str], int]:
    """Return the elements of a panel that begins at *top*, and its lower end."""
    longest = max(bar.value for bar in panel.bars)
    scale = (WIDTH - LABEL - VALUE) / longest
    title = panel.title[0].upper() + panel.title[1:]
    drawn = [_text(12, top + 26, title, colours["text"], weight="600")]
    y = begin = top + TITLE
    for client in panel.clients():
        bars = [bar for bar in panel.bars if bar.client == client]
        middle = y + (len(bars) * (BAR + GAP) - GAP) / 2 + 4
        bold = "600" if client in KIN else ""
        drawn.append(_text(LABEL - 8, middle, client, colours["text"], "end", bold))
        for bar in bars:
            fill = colours[_colour(bar)]
            drawn.append(
                f'<rect x="{LABEL}" y="{y}" width="{bar.value * scale:.2f}" height="{BAR}" '
                f'fill="{fill}"><title>{escape(f"{client} {bar.loop}: {bar.label}")}</title></rect>'
            )
            x = LABEL + bar.value * scale + 6
            drawn.append(_text(x, y + 10.5, bar.label, colours["soft"], size=11))
            y += BAR + GAP
        y += BETWEEN - GAP
    line = f'<line x1="{LABEL}" y1="{begin - 4}" x2="{LABEL}" y2="{y - 2}" stroke-width="1" '
    drawn.append(f'{line}stroke="{colours["line"]}"/>')
    return drawn, y


def _colour(bar: Bar) -> str:
    kind = "ours" if bar.client in KIN else "peer"
    if bar.client.startswith("floor"):
        kind = "floor"
    return kind if bar.loop != "uvloop" else f"{kind}2"


def _legend(top: int, colours: dict[str, str], figures: Figures) -> list[str]:
    python = f"{figures.run['implementation']} {figures.run['python']}"
    note = f"darker: asyncio or threads; lighter: uvloop. {python}, {figures.run['date'][:10]}"
    if colours is THEMES["dark"]:
        note = note.replace("darker", "brighter").replace("lighter", "dimmer")
    return [_text(12, top + 18, note, colours["soft"], size=11)]


def _text(
    x: float,
    y: float,
    text: str,
    fill: str,
    anchor: str = "",
    weight: str = "",
    size: int = 0,
) -> str:
    more = f' text-anchor="{anchor}"' if anchor else ""
    more += f' font-weight="{weight}"' if weight else ""
    more += f' font-size="{size}"' if size else ""
    return f'<text x="{x:g}" y="{y:g}" fill="{fill}"{more}>{escape(text)}</text>'
