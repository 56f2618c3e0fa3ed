"""The demo's second part: many pages with ``Client``, and the phases of one request.

``scrape()`` is an ordinary program that uses this package; the rest shows its results.
"""

from __future__ import annotations

import gzip
from time import perf_counter
from typing import TYPE_CHECKING

from ..client.client import Client
from ..exchange import Timings

if TYPE_CHECKING:
    import ssl

    from ..client.response import Response

__all__ = ["ScrapeError", "page", "scrape"]

PAGES = 500
AT_ONCE = 64
CONNECTIONS = 8

BAR = 36
"""Columns of a waterfall."""


class ScrapeError(Exception):
    """A page is missing or wrong."""


def page(number: int) -> bytes:
    """Return a page of the demo's server, compressed; it links to the next one."""
    paragraphs = f"<p>Paragraph of page {number}.</p>\n" * (20 + number % 100)
    text = f'<h1>Page {number}</h1>\n{paragraphs}<a href="/page/{number + 1}">next</a>\n'
    return gzip.compress(text.encode(), 1)


async def scrape(origin: str, context: ssl.SSLContext) -> None:
    """Fetch ``PAGES`` pages of the server at *origin*, and show the time and size."""
    urls = (f"{origin}/page/{number}" for number in range(1, PAGES + 1))
    first: Response | None = None
    size = 0
    began = perf_counter()
    async with Client(context=context, limit_per_host=CONNECTIONS, proxy=None) as client:
        async for result in client.fetch_many(urls, concurrency=AT_ONCE):
            response = result.result().raise_for_status()
            number = result.item.rpartition("/")[2]
            if f"<h1>Page {number}</h1>" not in response.text:
                raise ScrapeError(f"{result.item} has another page")
            size += len(response.content)
            if first is None:
                first = response
        taken = perf_counter() - began
        connections = client.stats().open
    print(f"{PAGES} pages with Client, {AT_ONCE} at once over {connections} connections")
    print(
        f"  {taken:.2f} s, so {PAGES / taken:.0f} pages/s; {size / 1e6:.1f} MB of text, "
        "which came as gzip"
    )
    if first is not None:
        _show_waterfall(first)


def _show_waterfall(response: Response) -> None:
    """Show the phases of one request as a waterfall, each bar at its place in time."""
    timings = response.timings
    print(f"  the first of them, {timings.total * 1e3:.1f} ms from the call to the last byte:")
    start = 0.0
    for phase, seconds in zip(Timings._fields, timings, strict=True):
        if seconds is not None:
            left = round(start / timings.total * BAR)
            start += seconds
            right = round(start / timings.total * BAR)
            bar = " " * left + "█" * (right - left)
            print(f"    {phase:<8}{seconds * 1e3:>6.1f}  {bar}".rstrip())
