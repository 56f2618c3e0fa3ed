"""Type aliases for signatures. Layer: the lowest; it imports nothing of this package."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

if TYPE_CHECKING:
    import array
    import mmap

__all__ = [
    "UNSET",
    "BodyLike",
    "BytesLike",
    "HeadersLike",
    "OnInformational",
    "SocketOption",
    "Unset",
    "exact",
]


class Unset:
    """The type of ``UNSET``, which stands for "not given" where None has a meaning of its own."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()

BytesLike: TypeAlias = "bytes | bytearray | memoryview | array.array[Any] | mmap.mmap"
"""An object with a contiguous buffer; its length is counted in bytes."""

HeaderName: TypeAlias = str | bytes
HeaderValue: TypeAlias = str | bytes | int
HeadersLike: TypeAlias = "Mapping[Any, Any] | Iterable[tuple[HeaderName, HeaderValue]]"
"""Header fields: a mapping, or pairs. They are sent in this order and letter case."""

SocketOption: TypeAlias = tuple[int, int, int | bytes]
"""Arguments of ``socket.setsockopt``: level, name, value."""

OnInformational: TypeAlias = Callable[[int, Any], object]
"""A function that is called with the status and the ``HTTPMessage`` of each 1xx response."""


def exact(value: Any) -> Any:
    """Return *value*, of a subclass of str, bytes, int or float, as the value of that type.

    The methods of a subclass may tell of another text or number: an enum formats itself as its
    name. So each argument that is sent passes here once, where the caller gives it, and what is
    checked is what is sent. Anything else, a bool too, is returned as it is.
    """
    if type(value) in _EXACT:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return bytes(memoryview(value))
    if isinstance(value, int):
        return int.__pos__(value)
    return float.__pos__(value) if isinstance(value, float) else value


_EXACT = frozenset({str, bytes, int, float, bool, type(None)})


class Readable(Protocol):
    """A file: ``read(n)`` returns bytes, or str that is sent as ISO-8859-1."""

    def read(self, n: int, /) -> bytes | str: ...


class AsyncReadable(Protocol):
    """A file whose ``read(n)`` is awaited."""

    def read(self, n: int, /) -> Awaitable[bytes | str]: ...


BodyLike: TypeAlias = (
    "BytesLike | str | Readable | AsyncReadable | Iterable[BytesLike] | AsyncIterable[BytesLike]"
)
"""A request's body; None sends no body."""
