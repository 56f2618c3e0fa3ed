"""Request: what an ``Auth`` and hooks see before it is sent, and a response keeps of it.

Layer: client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .fields import Fields

if TYPE_CHECKING:
    from ..types import HeadersLike

__all__ = ["Request"]


class Request:
    """A request: ``method``, ``url`` and ``headers`` (``Fields``).

    A hook (``on_request``) or an ``Auth`` gets it before it is sent, and may change the headers.
    Method and URL may not be changed: they have already selected the connection, cookies and
    credentials. ``Response.request`` has the headers as they went out.

    *headers*: a mapping or pairs; ``Fields`` are kept, and not copied.
    """

    __slots__ = ("_method", "_url", "headers")

    def __init__(self, method: str, url: str, headers: HeadersLike = ()) -> None:
        self._method = method
        self._url = url
        self.headers = headers if isinstance(headers, Fields) else Fields(headers)

    def __repr__(self) -> str:
        return f"<Request {self._method} {self._url}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Request):
            return NotImplemented
        mine, theirs = (self._method, self._url), (other._method, other._url)
        return mine == theirs and self.headers == other.headers

    def __hash__(self) -> int:
        return hash((self._method, self._url))

    @property
    def method(self) -> str:
        """The method, as it goes out."""
        return self._method

    @property
    def url(self) -> str:
        """The URL, without user and password."""
        return self._url
