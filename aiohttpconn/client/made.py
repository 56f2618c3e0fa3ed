"""Responses that came over no connection: made by hand, or out of a pickle.

Both are an ``HTTPResponse`` that is complete from the start, with a head that was written here and
nothing of its body left to read: the client's ``Response`` has the body. Layer: client.
"""

from __future__ import annotations

from http.client import responses
from typing import TYPE_CHECKING, Any, NamedTuple

from ..http11.chunked import ChunkedDecoder
from ..http11.grammar import FIELD_VALUE
from ..net.destination import DialReport
from ..response import HTTPResponse
from .content.encode import encode_content

if TYPE_CHECKING:
    from http.client import HTTPMessage

    from ..net.tls import TLSInfo
    from .fields import Fields

__all__ = ["Facts", "facts_of", "from_facts", "make_content", "make_raw"]


class Facts(NamedTuple):
    """The parts of an ``HTTPResponse`` that a pickle keeps: all but its connection and body."""

    method: str
    target: str
    origin: str
    peername: Any
    head: bytes
    status: int
    reason: str
    version: int
    trailers: list[tuple[str, str]]
    number: int
    times: tuple[float, float, float, float, float | None]
    durations: dict[str, float] | None
    informational: tuple[tuple[int, HTTPMessage], ...] = ()
    tls: TLSInfo | None = None


class NoConnection:
    """The ``source`` of a response that came over no connection of this process."""

    def __init__(self, origin: str, peername: Any, tls: TLSInfo | None) -> None:
        self.origin = origin
        self.peername = peername
        self.tls = tls

    def get_extra_info(self, name: str) -> None:
        """Return None: nothing more is known."""


def facts_of(raw: HTTPResponse) -> Facts:
    """Return the facts of *raw*, whose body has been read."""
    source, dialed = raw.source, raw.dialed
    assert raw.head is not None, "a response without a head"
    return Facts(
        raw.method,
        raw.target,
        source.origin if source is not None else "",
        raw.peername,
        bytes(raw.head),
        raw.status,
        raw.reason,
        raw.version,
        [*raw.trailers.items()],
        raw.number,
        raw.times(),
        dict(dialed.durations) if dialed is not None else None,
        raw.informational,
        raw.tls,
    )


def from_facts(facts: Facts) -> HTTPResponse:
    """Return a complete ``HTTPResponse`` with *facts*."""
    source: Any = NoConnection(facts.origin, facts.peername, facts.tls)
    raw = HTTPResponse(source, facts.method, facts.target)
    raw.head, raw.status, raw.reason = facts.head, facts.status, facts.reason
    raw.version, raw.will_close, raw.chunked = facts.version, True, False
    raw.remaining, raw.ended = 0, True
    raw.number = facts.number
    raw.asked, raw.started, raw.sent_at, raw.head_at, ended_at = facts.times
    if ended_at is not None:  # it did not fail
        raw.ended_at = ended_at
    raw.interim = facts.informational
    if facts.trailers:
        raw.chunked, raw.decoder = True, ChunkedDecoder()
        raw.decoder.trailers = facts.trailers
    if facts.durations is not None:
        raw.dialed = DialReport()
        raw.dialed.durations = facts.durations
    return raw


def make_raw(
    status: int, reason: str | None, fields: Fields, method: str, url: str
) -> HTTPResponse:
    """Return a complete ``HTTPResponse`` made of these parts; *reason* None is the usual one.

    Raises ``TypeError`` and ``ValueError`` for parts that no response can have.
    """
    if status > 999:
        raise ValueError(f"status must be from 100 to 999, got {status}")
    if reason is None:
        reason = responses.get(status, "")
    elif not FIELD_VALUE.fullmatch(reason):
        raise ValueError(
            f"a reason has only characters of Latin-1, and no control character; got {reason!r}"
        )
    lines = [f"HTTP/1.1 {int(status)} {reason}", *(f"{n}: {v}" for n, v in fields.pairs())]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return from_facts(
        Facts(method, url, "", None, head, int(status), reason, 11, [], 1, (0.0,) * 5, None)
    )


def make_content(
    content: bytes | None, text: str | None, json: dict[str, Any], charset: str
) -> tuple[bytes, str | None]:
    """Return a body and its Content-Type, from one of the three; *json* is ``{"json": value}``.

    *charset*: Python's name for that of *text*, "" for UTF-8.
    """
    if (content is not None) + (text is not None) + len(json) > 1:
        raise TypeError("a response has one body: give content=, text= or json=")
    if json:
        made = encode_content(**json)
        assert type(made.body) is bytes, "JSON is encoded at once"
        return made.body, made.content_type
    if text is not None:
        return text.encode(charset or "utf-8"), "text/plain; charset=utf-8"
    if content is None:
        return b"", None
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise TypeError(f"content must be bytes, not {type(content).__name__}: text= takes a str")
    return bytes(content), None
