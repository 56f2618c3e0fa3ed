"""Messages of serve(): a Request, and a Reply that encodes itself for it.

Pure: no I/O. Layer: the test kit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from http.client import HTTPMessage, responses
from typing import TYPE_CHECKING, Any

from ..http11.chunked import LAST_CHUNK, encode_chunk
from ..http11.semantics import FRAMING

if TYPE_CHECKING:
    from ..types import HeadersLike
    from .faults import Fault

__all__ = ["Reply", "Request"]


@dataclass(frozen=True)
class Request:
    """A complete request that ``serve()`` has read; ``body`` is without chunked framing."""

    method: str
    target: str
    version: str
    """``"HTTP/1.1"`` or ``"HTTP/1.0"``."""
    headers: HTTPMessage
    body: bytes
    connection: int
    """The number of the server's connection that it came on, counted from 0."""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


@dataclass(frozen=True)
class Reply:
    """A response of ``serve()``.

    *body*: str is sent as UTF-8, an iterable of bytes as chunks, one for each item.
    *headers*: sent as they are, wrong ones too. With a Content-Length or Transfer-Encoding
    among them, the body is sent as it is. *reason*: None stands for the usual one.
    *fault*: a ``Fault``, the way in which the response goes wrong.
    """

    body: bytes | str | Iterable[bytes] = b""
    _: KW_ONLY
    status: int = 200
    headers: HeadersLike = ()
    reason: str | None = None
    fault: Fault | None = None

    def __post_init__(self) -> None:
        if self.fault is not None and self.fault.early:
            raise ValueError(f"{self.fault} comes before the reply: use serve(faults=[...])")

    def encode(self, request: Request) -> bytes:
        """Return the response to *request*: its head, and its body if it may have one."""
        pairs: Any = self.headers.items() if isinstance(self.headers, Mapping) else self.headers
        fields = [(_text(name), _text(value)) for name, value in pairs]
        names = {name.lower() for name, _ in fields}
        body = self.body.encode() if isinstance(self.body, str) else self.body
        parts = [body] if isinstance(body, bytes) else list(body)
        bodiless = self.status < 200 or self.status in (204, 304)  # RFC 9112 §6.3
        if not bodiless and names.isdisjoint(FRAMING):
            if isinstance(body, bytes) or request.version == "HTTP/1.0":
                fields.append(("Content-Length", str(sum(map(len, parts)))))
            else:
                parts = [*(encode_chunk(part) for part in parts if part), LAST_CHUNK]
                fields.append(("Transfer-Encoding", "chunked"))
        if "connection" not in names and _ends(request):
            fields.append(("Connection", "close"))
        reason = responses.get(self.status, "") if self.reason is None else self.reason
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        head = f"HTTP/1.1 {self.status} {reason}\r\n{lines}\r\n".encode("latin-1")
        return head if bodiless or request.method == "HEAD" else head + b"".join(parts)


def _ends(request: Request) -> bool:
    """Return whether no other request may follow on the connection (RFC 9112 §9.3)."""
    return request.version == "HTTP/1.0" or "close" in request.headers.get("Connection", "").lower()


def _text(value: str | bytes | int) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
