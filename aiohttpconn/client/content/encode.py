"""Request bodies: encode content, JSON and forms; tell whether they can be sent again.

Turns the arguments of callers into a body for ``HTTPConnection.request``, its content type and its
length. Multipart forms are in multipart.py; body.py turns a body into blocks. Layer: client.
"""

from __future__ import annotations

import functools
import io
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Mapping,
)
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlencode

from ...body import BLOCKSIZE, Body, byte_view, make_body
from ...hooks import at_once
from ...params import PARAM_TYPES, encode_values
from ...types import UNSET, exact
from ...upload import SLICE
from .multipart import MultipartBody, check_file, encode_multipart, named_values, unread_memory

if TYPE_CHECKING:
    from ...types import BodyLike, BytesLike
    from .multipart import FilesLike

__all__ = ["Content", "DataLike", "encode_content"]

DataLike: TypeAlias = "Mapping[str, Any] | Iterable[tuple[str, Any]] | BytesLike | str"
"""A form: a mapping or pairs, in which a list or set gives several values of one name, and None
leaves a name out; or an encoded form."""

JSON_TYPE = "application/json"
TEXT_TYPE = "text/plain; charset=utf-8"
FORM_TYPE = "application/x-www-form-urlencoded"


class Content:
    """A request's body, ready to send, with its content type and length.

    ``body`` is for ``HTTPConnection.request``, None for no body; ``content_type`` is None if it is
    unknown. ``length`` is the Content-Length in bytes; None if the connection computes it, or if
    the length is unknown, so that the body goes in chunks.
    """

    __slots__ = ("_again", "_begun", "_start", "body", "content_type", "length", "made")

    def __init__(
        self,
        body: Any,
        content_type: str | None = None,
        length: int | None = None,
        again: bool | None = True,
        start: int | None = None,
        made: Body | None = None,
    ) -> None:
        self.body = body
        # The body made of it, for its first sending, if checking it has made one.
        self.made = made
        self.content_type = content_type
        self.length = length
        # Whether the body is the same each time it is sent; None until its iterators are compared.
        self._again = again
        # The position of a file at the first sending.
        self._start = start
        # Whether the body has been read or sent.
        self._begun = False

    def __repr__(self) -> str:
        return f"<Content {type(self.body).__name__} {self.content_type or 'of unknown type'}>"

    @property
    def can_replay(self) -> bool:
        """Whether the same body can be sent again: on a redirect or a new connection."""
        body = self.body
        if isinstance(body, MultipartBody):
            return body.can_replay
        if self._again is None:
            # Compared only when needed: making an iterator may be expensive.
            self._again = iter(body) is not iter(body)
        return self._again and getattr(body, "closed", False) is False

    def begin(self) -> Any:
        """Return the body, to be read or sent from its start, as the first time or again.

        Raises ``ValueError`` as ``replay`` does.
        """
        if self._begun:
            return self.replay()
        self._begun = True
        return self.body if self.made is None else self.made

    def in_memory(self) -> bytes | None:
        """Return the body if it is bytes or bytes-like, else None."""
        body = self.body
        if body is None or type(body) is bytes:
            return body or b""
        data = make_body(body, 1).data
        return None if data is None else bytes(data)

    async def blocks(self) -> AsyncIterator[bytes | memoryview]:
        """Iterate over the body's blocks, each valid only until the next."""
        body = self.begin()
        made = body if isinstance(body, Body) else make_body(body, SLICE)
        async with aclosing(made.blocks(SLICE)) as blocks:
            async for block in blocks:
                yield block

    async def keep_in_memory(self) -> None:
        """Turn the body into bytes; read it, if it is not in memory."""
        if type(self.body) is not bytes:
            self.body = await self.read()
            self.made = self.length = self._start = None
            self._again, self._begun = True, False

    async def read(self) -> bytes:
        """Return the whole body, which can then be sent again only if it ``can_replay``."""
        return b"".join([bytes(block) async for block in self.blocks()])

    async def begin_unless_empty(self) -> Any:
        """Return ``begin()``, or None for a body of unknown length that has not a single byte.

        Such a body is read up to its first block.
        """
        body = self.begin()
        if self.length is not None or body is None or type(body) is bytes:
            return body
        made = body if isinstance(body, Body) else make_body(body, BLOCKSIZE)
        if made.length is not None:
            return made
        blocks = made.blocks()
        first = await anext(blocks, None)
        return None if first is None else _with_first(first, blocks)

    def replay(self) -> Any:
        """Return the body for sending it again, with files back at their first position.

        Raises ``ValueError`` if it cannot be sent again: see ``can_replay``.
        """
        if not self.can_replay:
            raise ValueError(
                f"a {type(self.body).__name__} cannot be sent again: it can be read only once, or "
                "it is a closed file. Give bytes, a list, or files that can seek and stay open"
            )
        if isinstance(self.body, MultipartBody):
            self.body.rewind()
        elif self._start is not None:
            self.body.seek(self._start)
        return self.body


async def _with_first(
    first: bytes | memoryview, blocks: AsyncGenerator[bytes | memoryview, None]
) -> AsyncIterator[bytes | memoryview]:
    async with aclosing(blocks):
        yield first
        async for block in blocks:
            yield block


def encode_content(
    *,
    content: BodyLike | None = None,
    json: Any = UNSET,
    data: DataLike | None = None,
    files: FilesLike | None = None,
    dumps: Callable[[Any], str | bytes] | None = None,
    boundary: str | None = None,
) -> Content:
    """Return the body for one of the arguments, or for *data* and *files* together.

    *content* is sent as it is, a str as UTF-8, a BytesIO with its present content. *json* is any
    value that ``json`` or *dumps* can encode, including None. *data* is a form; bytes and str are
    an encoded form. *files*, even if empty, make it a multipart form, with *boundary* or a random
    one between its parts.

    Raises ``TypeError`` and ``ValueError`` for a body that cannot be sent, and the ``OSError`` of
    a path in *files*, before a byte is sent; the items of iterables and the data of objects with
    ``read()`` are checked while they are sent.
    """
    if boundary is not None and files is None:
        raise TypeError("boundary= needs files=; files={} makes a multipart form of data= alone")
    if json is not UNSET:
        if content is not None or data is not None or files is not None:
            raise _too_many(content, json, data, files)
        return Content(_encode_json(json, dumps), JSON_TYPE)
    if content is not None:
        if data is not None or files is not None:
            raise _too_many(content, json, data, files)
        return _raw(content)
    if files is not None:
        if isinstance(data, (str, bytes, bytearray, memoryview)):
            raise TypeError(
                f"data= must be a mapping or pairs beside files=, got {type(data).__name__}"
            )
        fields = [] if data is None else _form_fields(data)
        body, content_type, length = encode_multipart(fields, files, boundary)
        return Content(body, content_type, None if isinstance(body, bytes) else length)
    return Content(None) if data is None else _form(data)


def _too_many(content: Any, json: Any, data: Any, files: Any) -> TypeError:
    values = {"content=": content, "data=": data, "files=": files}
    given = [name for name, value in values.items() if value is not None]
    if json is not UNSET:
        given.insert(0, "json=")
    return TypeError(
        f"a request has one body, got {' and '.join(given)}: only data= and files= go together"
    )


# --------------------------------------------------------------------------------- JSON


@functools.cache
def _json_encoder() -> Callable[[Any], str]:
    """Return json.dumps with fixed options; json.dumps itself makes an encoder for each call."""
    from json import JSONEncoder

    return JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def _encode_json(value: Any, dumps: Callable[[Any], str | bytes] | None) -> bytes:
    text: Any = _json_encoder()(value) if dumps is None else at_once("json_dumps", dumps(value))
    text = exact(text)
    if isinstance(text, str):
        # The only characters that UTF-8 lacks are lone surrogates, which JSON can escape.
        return text.encode("utf-8", "backslashreplace")
    if isinstance(text, bytes):
        return text
    raise TypeError(f"dumps= must return str or bytes, got {type(text).__name__}")


# ------------------------------------------------------------------------------ content


def _raw(content: Any) -> Content:
    """Return the body of *content*, which is sent as it is.

    Bytes have no content type: only the caller knows it (RFC 9110 §8.3).
    """
    if type(content) is bytes:
        return Content(content)
    if isinstance(content, str):
        return Content(exact(content).encode(), TEXT_TYPE)
    if type(content) is io.BytesIO and not content.closed:
        # It is memory, as a mapped file is: sent from its position, which does not change.
        return Content(unread_memory(content))
    if hasattr(content, "read"):
        body, start = check_file(content, "content=")
        return Content(content, again=body.data is not None or start is not None, start=start)
    if isinstance(content, (list, tuple)):
        items = list(content)
        length = sum(len(byte_view(item, "an item of content=")) for item in items)
        return Content(items, length=length)
    try:
        body = make_body(content, 1)
    except TypeError:
        raise TypeError(
            "content= must be str, bytes-like, a file, an iterable or an async iterable of bytes, "
            f"got {type(content).__name__}; json= sends a document, data= a form"
        ) from None
    if body.data is not None:
        return Content(content)
    again = False if isinstance(content, AsyncIterable) else None
    return Content(content, again=again, made=body)


# -------------------------------------------------------------------------------- forms


def _form(data: Any) -> Content:
    """Return an urlencoded form.

    Bytes and str are encoded forms, as for curl and ``urllib.request``; other bytes go into
    ``content``.
    """
    if isinstance(data, str):
        return Content(exact(data).encode(), FORM_TYPE)
    if isinstance(data, (bytes, bytearray, memoryview)):
        return Content(bytes(memoryview(data)), FORM_TYPE)
    return Content(urlencode(_form_fields(data)).encode("ascii"), FORM_TYPE)


def _form_fields(data: Any) -> list[tuple[str, str | bytes]]:
    """Return the fields of a form: one for each item of a list, none for None."""
    fields: list[tuple[str, str | bytes]] = []
    for name, value in named_values(data, "data="):
        fields += _form_values(name, value)
    return fields


def _form_values(name: str, value: Any) -> list[tuple[str, str | bytes]]:
    try:
        return encode_values(name, value)
    except TypeError:
        hint = ""
        if hasattr(value, "read"):
            hint = "; a file goes into files="
        raise TypeError(
            f"the form's field {name!r} must be {PARAM_TYPES}, not {type(value).__name__}{hint}"
        ) from None
