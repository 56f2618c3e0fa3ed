"""``http.client``, awaited: an asyncio-native HTTP/HTTPS client in pure Python."""

from __future__ import annotations

import http as _http
from http.client import HTTPMessage, parse_headers, responses

from . import exceptions as _exceptions
from .connection import HTTP_PORT, HTTPS_PORT, HTTPConnection, HTTPSConnection
from .exceptions import *  # noqa: F403
from .exceptions import HTTPException
from .http11.limits import Limits
from .net.dial import Destination, DialReport, dial
from .net.loops import new_event_loop, run
from .net.timeouts import Timeout
from .protocol import HTTP1Protocol
from .response import HTTPResponse

__version__ = "0.1.0"

error = HTTPException
"""http.client's older name."""

# http.client's module constants: aiohttpconn.OK, aiohttpconn.NOT_FOUND ...
globals().update(_http.HTTPStatus.__members__)

__all__ = [
    "HTTPS_PORT",
    "HTTP_PORT",
    "Destination",
    "DialReport",
    "HTTP1Protocol",
    "HTTPConnection",
    "HTTPMessage",
    "HTTPResponse",
    "HTTPSConnection",
    "Limits",
    "Timeout",
    "dial",
    "error",
    "new_event_loop",
    "parse_headers",
    "responses",
    "run",
    *_exceptions.__all__,
]
