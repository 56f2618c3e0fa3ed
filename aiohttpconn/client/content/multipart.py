"""Multipart forms (RFC 7578, RFC 2046 §5.1): fields and files as one body, never whole in memory.

Owns the heads of parts and the boundaries between them. body.py reads files without blocking the
loop; encode.py encodes the values of fields.

A form is a list of *segments*: bytes, which join heads and small contents, and ``FilePart``, which
is read while it is sent. Names, types and access to files are checked before. Layer: client.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, TypeAlias

from ...body import SMALL_BODY, Body, byte_view, make_body
from ...exceptions import BodyLengthError
from ...http11.grammar import TOKEN, check_field
from ...types import exact
from ...upload import SLICE

__all__ = [
    "FilesLike",
    "MultipartBody",
    "boundary_of",
    "check_file",
    "encode_multipart",
    "named_values",
    "unread_memory",
    "with_boundary",
]

FilesLike: TypeAlias = "Mapping[str, Any] | Iterable[tuple[str, Any]]"
"""Files of a form, by the names of their fields: each a file object, bytes-like, str, a path, or a
tuple (filename, content[, content type[, headers]])."""

READ_BLOCK = 64 * 1024
"""Bytes of one ``read()`` of an object; a regular file is read in ``SLICE`` of upload.py."""

OCTET_STREAM = "application/octet-stream"

# RFC 2046 §5.1.1: boundary = 0*69<bchars> bcharsnospace
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")

# WHATWG HTML, "multipart/form-data encoding algorithm": what browsers escape in names.
_ESCAPES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})

# The other control characters, but for the tab.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


# RFC 9110 §5.6.6: parameters = *( OWS ";" OWS [ token "=" ( token / quoted-string ) ] )
_BOUNDARY_PARAM = re.compile(
    r'(?i)multipart/[^;]*+;(?:.*;)?[\t ]*boundary=(?:"((?>(?:[^"\\]|\\.)*))"|([^;\t ]++))'
)


def boundary_of(content_type: str) -> str | None:
    """Return the boundary that a caller's own *content_type* of a form names, or None."""
    found = _BOUNDARY_PARAM.match(content_type)
    if found is None:
        return None
    return found[2] if found[1] is None else re.sub(r"\\(.)", r"\1", found[1])


def with_boundary(own: str, made: str) -> str:
    """Return a caller's *own* content type with the boundary of *made*, that of the body.

    Unchanged if it names one already, or if it is not that of a multipart body.
    """
    if not own.lower().startswith("multipart/") or boundary_of(own) is not None:
        return own
    return f"{own.rstrip('; ')}; {made.partition('; ')[2]}"


def encode_multipart(
    fields: Iterable[tuple[str, str | bytes]], files: FilesLike, boundary: str | None = None
) -> tuple[bytes | list[bytes | memoryview] | MultipartBody, str, int | None]:
    """Return (body, content type, length) of a form: its *fields*, then its *files*.

    The body is bytes if all of it is in memory and at most 64 KiB, else an iterable for
    ``HTTPConnection.request``. The length is in bytes, None if that of a file is unknown.
    *boundary* must not occur in a part; the default is random.

    Raises ``ValueError`` for invalid characters in a part's head, for a boundary that RFC 2046
    does not allow and for files that cannot be read; ``TypeError``; and the ``OSError`` of a path.
    """
    if boundary is None:
        import secrets

        # A file that contained the boundary could end its part: it must not be predictable.
        boundary = secrets.token_hex(16)
    elif not _BOUNDARY.fullmatch(boundary):
        raise ValueError(
            "a boundary must be 1 to 70 letters, digits, blanks and '()+_,-./:=?, and not end "
            f"with a blank (RFC 2046 §5.1.1): {boundary!r}"
        )
    shown = boundary if TOKEN.fullmatch(boundary) else f'"{boundary}"'
    segments = _join(_parts(fields, files), boundary.encode("ascii"))
    content_type = f"multipart/form-data; boundary={shown}"
    memory = [segment for segment in segments if not isinstance(segment, FilePart)]
    if len(memory) == len(segments):
        length = sum(map(len, memory))
        if length <= SMALL_BODY:
            return b"".join(memory), content_type, length
        return memory, content_type, length
    form = MultipartBody(segments)
    return form, content_type, form.length


class MultipartBody:
    """A form whose files are read while it is sent: an async iterable of blocks.

    ``length`` is its size in bytes, None if that of a file is unknown. A block is valid only until
    the next one.
    """

    __slots__ = ("_segments", "length")

    def __init__(self, segments: list[bytes | memoryview | FilePart]) -> None:
        self._segments = segments
        sizes = [part.length if isinstance(part, FilePart) else len(part) for part in segments]
        known = [size for size in sizes if size is not None]
        self.length = sum(known) if len(known) == len(sizes) else None

    @property
    def can_replay(self) -> bool:
        """Whether ``rewind()`` can bring all files back to their first position."""
        return all(part.can_replay for part in self._segments if isinstance(part, FilePart))

    def rewind(self) -> None:
        """Bring the files back to their first position, to send the same bytes again."""
        for segment in self._segments:
            if isinstance(segment, FilePart):
                segment.rewind()

    def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        return self._blocks()

    async def _blocks(self) -> AsyncGenerator[bytes | memoryview, None]:
        for segment in self._segments:
            if not isinstance(segment, FilePart):
                yield segment
                continue
            async with aclosing(segment.blocks()) as blocks:
                async for block in blocks:
                    yield block


class FilePart:
    """The content of a part that is read while it is sent: a path, a file, or a large buffer.

    A path is opened when its turn comes and closed after it. ``length`` is in bytes, None if it
    is unknown.
    """

    __slots__ = ("_in_memory", "_path", "_source", "_start", "_what", "length")

    _source: Any

    def __init__(self, source: Any, what: str, path: Any = None) -> None:
        """Read *source*, named *what* in errors; for a *path*, *source* is the file open now."""
        body, start = check_file(source, what)
        self._what = what
        self._path = path
        self._source = None if path is not None else source
        self._start = start
        self._in_memory = body.data is not None
        self.length = body.length

    @property
    def can_replay(self) -> bool:
        """Whether the same bytes can be read again."""
        if self._path is not None:
            return True
        known = self._start is not None or self._in_memory
        return known and getattr(self._source, "closed", False) is False

    def rewind(self) -> None:
        """Bring a file back to its first position."""
        if self._path is None and self._start is not None:
            self._source.seek(self._start)

    async def blocks(self) -> AsyncGenerator[bytes | memoryview, None]:
        """Iterate over the content; ``BodyLengthError`` if its length has changed."""
        source = self._source if self._path is None else self._opened()
        start, length = self._start, self.length
        sent = 0
        try:
            body = make_body(source, READ_BLOCK)
            if start is not None and length is not None and body.length is not None:
                # A regular file is read by offsets, because a thread of an earlier attempt may
                # still move its position. A file that grows keeps the announced length.
                body.offset, body.length = start, length
            async with aclosing(body.blocks(SLICE)) as blocks:
                async for block in blocks:
                    sent += len(block)
                    if length is not None and sent > length:
                        break
                    yield block
        finally:
            if self._path is not None:
                source.close()
        if length is not None and sent != length:
            # Raise before the boundary is sent, which would make the part look whole.
            more = "more" if sent > length else "fewer"
            raise BodyLengthError(
                f"{self._what} has {more} bytes than the {length} it had when the request "
                f"was made: {sent} were read"
            )

    def _opened(self) -> Any:
        # In the loop's thread: the path was opened a moment ago, so the kernel has it cached.
        return open(self._path, "rb")


# ----------------------------------------------------------------- arguments of callers


def named_values(given: Any, what: str) -> Iterator[tuple[str, Any]]:
    """Iterate over (name, value) of a mapping or pairs; ``TypeError`` if *given* is neither."""
    if not isinstance(given, Iterable) or hasattr(given, "read"):
        raise TypeError(
            f"{what} must be a mapping or pairs of name and value, got {type(given).__name__}; "
            "content= sends bytes as they are"
        )
    for pair in given.items() if isinstance(given, Mapping) else given:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(
                f"{what} must be a mapping or pairs of name and value, got a "
                f"{type(pair).__name__} in place of a pair"
            )
        name, value = pair
        if not isinstance(name, str):
            raise TypeError(f"a name in {what} must be a str, not {type(name).__name__}: {name!r}")
        yield exact(name), value


def check_file(file: Any, what: str) -> tuple[Body, int | None]:
    """Return *file*, an object that reads or bytes-like, as a ``Body``, and its position.

    The position is None if the file cannot seek. Raises ``TypeError`` for a text file,
    ``ValueError`` for one that is closed or not open for reading; *what* is its name in errors.
    """
    # A text file has both attributes. A response of another client has only ``encoding``.
    is_text = getattr(file, "encoding", None) is not None and hasattr(file, "errors")
    if is_text or isinstance(file, io.TextIOBase):
        raise TypeError(f"{what} is a text file: open it in binary mode, or read it into a str")
    if getattr(file, "closed", False) is True:
        raise ValueError(f"{what} is a closed file")
    body = make_body(file, READ_BLOCK)
    # Only for the io classes: these methods may be coroutine functions of other classes.
    stream = body.file or file
    is_io = isinstance(stream, io.IOBase)
    if is_io and not stream.readable():
        raise ValueError(f"{what} is a file that is not open for reading: open it with 'rb'")
    if body.length is not None and body.data is None:
        return body, body.offset
    return body, stream.tell() if is_io and stream.seekable() else None


def unread_memory(file: io.BytesIO) -> bytes | memoryview:
    """Return the present content of *file* from its position on, without a copy."""
    value, start = file.getvalue(), file.tell()
    return memoryview(value)[start:] if start else value


# -------------------------------------------------------------------------------- parts

_Content: TypeAlias = "bytes | memoryview | FilePart"


def _parts(
    fields: Iterable[tuple[str, str | bytes]], files: FilesLike
) -> Iterator[tuple[bytes, _Content]]:
    """Iterate over (head, content) of all parts."""
    for name, value in fields:
        yield _head(name, None, []), value.encode() if isinstance(value, str) else value
    for name, value in named_values(files, "files="):
        yield _file_part(name, value)


def _join(parts: Iterable[tuple[bytes, _Content]], boundary: bytes) -> list[_Content]:
    """Return the form's segments; small ones are joined, to leave in one write."""
    segments: list[_Content] = []
    small: list[bytes | memoryview] = []
    size = 0
    delimiter = b"--%b\r\n" % boundary
    for head, content in parts:
        small += (delimiter, head)
        delimiter = b"\r\n--%b\r\n" % boundary
        if isinstance(content, FilePart) or len(content) > SMALL_BODY:
            segments += (b"".join(small), content)
            small, size = [], 0
            continue
        small.append(content)
        size += len(head) + len(content)
        if size > SMALL_BODY:
            segments.append(b"".join(small))
            small, size = [], 0
    # A form without parts is only the last line, as browsers send it.
    end = b"\r\n--%b--\r\n" if segments or small else b"--%b--\r\n"
    segments.append(b"".join([*small, end % boundary]))
    return segments


def _file_part(name: str, value: Any) -> tuple[bytes, _Content]:
    """Return (head, content) of the file *value* in the field *name*."""
    what = f"the file {name!r}"
    if not isinstance(value, tuple):
        filename = _filename(value) or name
        content, content_type, headers = value, None, ()
    elif 2 <= len(value) <= 4:
        filename, content = value[:2]
        content_type = value[2] if len(value) > 2 else None
        headers = value[3] if len(value) > 3 and value[3] is not None else ()
    else:
        raise TypeError(
            f"{what} must be (filename, content[, content type[, headers]]), "
            f"got a tuple of {len(value)}"
        )
    for text, role in ((filename, "filename"), (content_type, "content type")):
        if text is not None and not isinstance(text, str):
            raise TypeError(
                f"the {role} of {what} must be a str or None, not {type(text).__name__}"
            )
    filename, content_type = exact(filename), exact(content_type)
    fields = _part_fields(what, headers)
    if all(field.lower() != "content-type" for field, _ in fields):
        if content_type is None and filename is not None:
            content_type = _guess_type(filename)
        if content_type is not None:
            fields.insert(0, check_field("Content-Type", content_type))
    elif content_type is not None:
        raise ValueError(f"{what} has two content types, one of them in its headers: give one")
    return _head(name, filename, fields), _content(content, what)


def _part_fields(what: str, headers: Any) -> list[tuple[str, str]]:
    """Return the caller's fields of a part, checked."""
    items = headers.items() if hasattr(headers, "items") else headers
    fields = [check_field(field, value) for field, value in items]
    for field, _ in fields:
        if field.lower() == "content-disposition":
            raise ValueError(
                f"the headers of {what} must not have a Content-Disposition: "
                "the client makes it of the name and the filename"
            )
    return fields


def _content(content: Any, what: str) -> _Content:
    content = exact(content)
    if isinstance(content, str):
        return content.encode()
    if isinstance(content, bytes):
        return content
    if type(content) is io.BytesIO and not content.closed:
        return unread_memory(content)
    if isinstance(content, os.PathLike):
        # open() would block until a named pipe has its other end.
        if not stat.S_ISREG(os.stat(content).st_mode):
            raise ValueError(f"{what} is not a regular file: {os.fspath(content)!r}")
        with open(content, "rb") as file:
            return FilePart(file, what, content)
    if not hasattr(content, "read"):
        try:
            view = byte_view(content, what)
        except TypeError:
            raise TypeError(
                f"{what} must be a file, bytes-like, str, a path or a tuple, "
                f"got {type(content).__name__}"
            ) from None
        if len(view) <= SMALL_BODY:
            return bytes(view)
    return FilePart(content, what)


def _filename(value: Any) -> str | None:
    """Return the last part of the name of a path or file, None if it has no name."""
    name = value if isinstance(value, os.PathLike) else getattr(value, "name", None)
    # A file opened by its descriptor has that, an int, for a name.
    if not isinstance(name, (str, bytes, os.PathLike)):
        return None
    return os.path.basename(os.fsdecode(name)) or None


def _guess_type(filename: str) -> str:
    """Return the content type for the name's suffix."""
    import mimetypes

    # Only the last part, and as a path: mimetypes takes a name like "data:a/b,c" for a URL with a
    # type of its own. A compressed file has not the type of its content.
    kind, coding = mimetypes.guess_type(f"./{filename.rpartition('/')[2]}")
    return kind if kind is not None and coding is None else OCTET_STREAM


def _head(name: str, filename: str | None, fields: list[tuple[str, str]]) -> bytes:
    """Return a part's head with its blank line (RFC 7578 §4.2)."""
    disposition = b'Content-Disposition: form-data; name="%b"' % _escaped(name)
    if filename is not None:
        disposition += b'; filename="%b"' % _escaped(filename)
    lines = "".join(f"{field}: {value}\r\n" for field, value in fields).encode("latin-1")
    return b"%b\r\n%b\r\n" % (disposition, lines)


def _escaped(name: str) -> bytes:
    """Return a name for use between quotes: UTF-8, escaped as browsers do it."""
    if found := _CONTROL.search(name):
        raise ValueError(
            f"a name in a form must not have control characters: {name!r} has {found[0]!r}"
        )
    # Bytes of filenames that are not UTF-8 keep their values.
    return name.translate(_ESCAPES).encode("utf-8", "surrogateescape")
