"""Request: what an ``Auth`` and hooks see before it is sent, and a response keeps of it.

Layer: client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..arguments import TEXT, Checks, check_arguments
from ..exceptions import redact
from ..types import exact
from ..urls import split_url
from .fields import Fields

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..types import HeadersLike
    from .content.encode import Content

__all__ = ["Request"]


_CHECKS: Checks = {"method": TEXT, "url": TEXT}


class Request:
    """A request: ``method``, ``url``, ``target``, ``headers`` (``Fields``) and ``body``.

    A hook (``on_request``) or an ``Auth`` gets it before it is sent, and may change the headers.
    Method and URL may not be changed: they have already selected the connection, cookies and
    credentials. ``Response.request`` has the headers as they went out.

    *headers*: a mapping or pairs; ``Fields`` are kept, and not copied.
    """

    __slots__ = ("_content", "_method", "_target", "_url", "headers")

    def __init__(
        self,
        method: str,
        url: str,
        headers: HeadersLike = (),
        *,
        target: str | None = None,
        content: Content | None = None,
    ) -> None:
        self._method: str = method
        self._url: str = url
        self._target = target
        self._content = content
        if not isinstance(headers, Fields):
            # A program's own request: the client's have fields.
            check_arguments(_CHECKS, {"method": method, "url": url})
            self._method, self._url = exact(method), exact(url)
            headers = Fields(headers)
        self.headers = headers

    def __repr__(self) -> str:
        return f"<Request {self._method} {redact(self._url)}>"

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
        """The URL, without user, password and fragment."""
        return self._url

    @property
    def target(self) -> str:
        """Path and query, as they go out; a proxy that gets the whole URL gets them at its end."""
        return split_url(self._url).target if self._target is None else self._target

    @property
    def body(self) -> bytes | RequestBody:
        """The body: ``b""`` if there is none, a ``RequestBody`` if it is not in memory as bytes.

        It is always bytes for an ``Auth`` with ``requires_body``. A ``Response.request`` has kept
        none, whatever was sent.
        """
        content = self._content
        if content is None:
            return b""
        data = content.in_memory()
        return RequestBody(content) if data is None else data


class RequestBody:
    """A body that is read while it is sent: a file, a form with files, an iterable.

    If it can be sent twice it can also be read before, as often as wanted: by ``read``, or block
    by block with ``async for``. Any other is gone once it is read, and reading it raises
    ``ValueError``.
    """

    __slots__ = ("_content",)

    def __init__(self, content: Content) -> None:
        self._content = content

    def __repr__(self) -> str:
        return f"<RequestBody {type(self._content.body).__name__}>"

    @property
    def can_read(self) -> bool:
        """Whether it can be read and sent after that."""
        return self._content.can_replay

    def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        """Iterate over its blocks, each valid only until the next."""
        return self._readable().blocks()

    async def read(self) -> bytes:
        """Return all of it."""
        return await self._readable().read()

    def _readable(self) -> Content:
        if not self.can_read:
            raise ValueError(
                "this body can be read only once, and sending it does that: an Auth with "
                "requires_body = True gets it as bytes"
            )
        return self._content
