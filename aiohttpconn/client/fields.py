"""Fields: a request's header fields, mutable, ordered, case-insensitive, repeatable.

The fields of a response are an ``http.client.HTTPMessage``. Pure. Layer: client.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from ..http11.grammar import check_field

if TYPE_CHECKING:
    from ..types import HeadersLike

__all__ = ["Fields", "field_pairs"]

_MAY_BE_SECRET = re.compile("auth|cookie|cred|key|pass|secret|session|sign|token")
"""Names, in lower case, of fields that may have credentials: X-Api-Key, say."""


class Fields(MutableMapping[str, str]):
    """Header fields, a mapping from names in any case to values.

    Setting a name replaces every field of that name, in the place of the first; ``add`` adds one.
    Reading a repeated name returns its values joined by ``, ``, those of Cookie by ``; ``. Equal
    to a mapping with the same values, regardless of the order and case of the names. A name that
    was deleted is in ``removed``: the client does not add that field either. Raises
    ``ValueError`` or ``TypeError`` for a name or value that must not be sent.
    """

    __slots__ = ("_items", "removed")

    def __init__(self, headers: HeadersLike = ()) -> None:
        # (name in lower case, name, value), in the order in which they are sent.
        self._items: list[tuple[str, str, str]] = []
        # The names, in lower case, of fields that were deleted, or given as None.
        self.removed: frozenset[str] = frozenset()
        for name, value in field_pairs(headers):
            self.add(name, value)

    def __repr__(self) -> str:
        # A repr ends up in logs and bug reports, so it has no credentials.
        secret = _MAY_BE_SECRET.search
        shown = [(name, "***" if secret(lower) else value) for lower, name, value in self._items]
        return f"Fields({shown!r})"

    def __eq__(self, other: object) -> bool:
        return _folded(self) == _folded(other) if isinstance(other, Mapping) else NotImplemented

    def __getitem__(self, name: str) -> str:
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        # RFC 6265 §5.4: the one field whose values must not be separated by a comma.
        return ("; " if name.lower() == "cookie" else ", ").join(values)

    def __setitem__(self, name: str, value: Any) -> None:
        name, value = check_field(name, value)
        lower = name.lower()
        self.removed -= {lower}
        places = [i for i, item in enumerate(self._items) if item[0] == lower]
        if not places:
            self._items.append((lower, name, value))
            return
        self._items[places[0]] = (lower, name, value)
        for place in reversed(places[1:]):
            del self._items[place]

    def __delitem__(self, name: str) -> None:
        lower = name.lower()
        kept = [item for item in self._items if item[0] != lower]
        if len(kept) == len(self._items):
            raise KeyError(name)
        self._items = kept
        self.removed |= {lower}

    def __contains__(self, name: object) -> bool:
        lower = name.lower() if isinstance(name, str) else name
        for item in self._items:  # noqa: SIM110 - any() would call a generator for each item
            if item[0] == lower:
                return True
        return False

    def __iter__(self) -> Iterator[str]:
        names: dict[str, str] = {}
        for lower, name, _ in self._items:
            names.setdefault(lower, name)
        return iter(list(names.values()))

    def __len__(self) -> int:
        return len({item[0] for item in self._items})

    def discard(self, name: str) -> None:
        """Remove the field *name*, if it is there; it may be added again."""
        lower = name.lower()
        self._items = [item for item in self._items if item[0] != lower]

    def add(self, name: str | bytes, value: str | bytes | int) -> None:
        """Add a field at the end, in addition to those of the same name."""
        text, value = check_field(name, value)
        lower = text.lower()
        self.removed -= {lower}
        self._items.append((lower, text, value))

    def get_all(self, name: str) -> list[str]:
        """Return the values of every field *name*, in order."""
        lower = name.lower()
        return [item[2] for item in self._items if item[0] == lower]

    def pairs(self) -> list[tuple[str, str]]:
        """Return all fields as (name, value), in the order in which they are sent."""
        return [(name, value) for _, name, value in self._items]

    def copy(self) -> Fields:
        """Return an independent copy."""
        made = Fields.__new__(Fields)
        made._items = self._items.copy()
        made.removed = self.removed
        return made

    __copy__ = copy

    def override(self, headers: HeadersLike) -> None:
        """Replace the fields that *headers* name; a value of None removes the field."""
        seen: set[str] = set()
        for given, value in field_pairs(headers):
            name, text = check_field(given, "" if value is None else value)
            lower = name.lower()
            if lower not in seen or value is None:
                self.discard(name)
            seen.add(lower)
            if value is None:
                self.removed |= {lower}
            else:
                self.removed -= {lower}
                self._items.append((lower, name, text))


def field_pairs(headers: Any) -> Iterable[tuple[Any, Any]]:
    """Return *headers*, as a caller gives them, as pairs; a repeated field gives several."""
    if isinstance(headers, Fields):
        return headers.pairs()
    if hasattr(headers, "items"):
        items: Iterable[tuple[Any, Any]] = headers.items()
        return items
    if isinstance(headers, (str, bytes)) or not isinstance(headers, Iterable):
        raise TypeError(f"headers must be a mapping or pairs, not {type(headers).__name__}")
    pairs = list(headers)
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            # Do not show the value: it may be secret.
            raise TypeError(
                "headers must be a mapping or pairs of a name and a value, "
                f"got a {type(pair).__name__} among them"
            )
    return pairs


def _folded(fields: Mapping[Any, Any]) -> dict[Any, Any]:
    return {
        name.lower() if isinstance(name, str) else name: value for name, value in fields.items()
    }
