"""httpx2, with the adapter in _httpx.py."""

from __future__ import annotations

import httpx2

from clients._httpx import HttpxClient


class Client(HttpxClient):
    library = httpx2
