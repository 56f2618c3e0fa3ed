"""Query parameters and fields of forms: values of many types as text. Pure. Layer: as urls.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any, TypeAlias
from urllib.parse import urlencode

from .types import exact

__all__ = ["PARAM_TYPES", "ParamsLike", "add_params", "encode_values", "param_pairs"]

ParamsLike: TypeAlias = "Mapping[str, Any] | Iterable[tuple[str, Any]]"
"""Query parameters. A list or set gives several values of one name, None leaves the name out."""

PARAM_TYPES = (
    "str, bytes, int, float, bool, Decimal, UUID, Enum, date, time, None or a list or set of them"
)
"""The types of values, for errors."""


def add_params(url: str, params: ParamsLike) -> str:
    """Return *url* with *params* added to its query, form-encoded."""
    pairs: list[tuple[str, str | bytes]] = []
    for name, value in param_pairs(params):
        pairs += encode_values(name, value)
    if not pairs:
        return url
    url, hash_sign, fragment = url.partition("#")
    joint = "?" if "?" not in url else "" if url.endswith(("?", "&")) else "&"
    return f"{url}{joint}{urlencode(pairs)}{hash_sign}{fragment}"


def param_pairs(params: ParamsLike) -> list[tuple[str, Any]]:
    """Return *params* as a list of pairs; raise ``TypeError`` if they are none."""
    items: Any = params
    if isinstance(items, (str, bytes)):
        raise TypeError(
            f"params must be a mapping or pairs, not {items!r:.200}: an encoded query goes into "
            "the URL"
        )
    try:
        return list(items.items()) if hasattr(items, "items") else [(name, v) for name, v in items]
    except (TypeError, ValueError) as exc:
        raise TypeError(f"params must be a mapping or pairs, got {items!r:.200}") from exc


def encode_values(name: str, value: Any) -> list[tuple[str, str | bytes]]:
    """Return the pairs of a parameter: one for each item of a list or set, none for None.

    Those of a set are sorted: the same set gives the same URL in each process.
    """
    name = exact(name)
    if isinstance(value, (list, tuple)):
        return [(name, encode_param(name, each)) for each in value if each is not None]
    if isinstance(value, (Set, range)):
        encoded = [encode_param(name, each) for each in value if each is not None]
        if not isinstance(value, range):
            encoded.sort(key=lambda each: each.encode() if isinstance(each, str) else each)
        return [(name, each) for each in encoded]
    return [] if value is None else [(name, encode_param(name, value))]


def encode_param(name: str, value: Any) -> str | bytes:
    """Return a parameter's value for ``urlencode``; raise ``TypeError`` for other types."""
    if isinstance(value, bool):
        return "true" if value else "false"
    value = exact(value)
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray)):
        return bytes(memoryview(value))
    if isinstance(value, (int, float)):
        return repr(value)
    text = _text_of(name, value)
    if text is None:
        raise TypeError(f"the parameter {name!r} must be {PARAM_TYPES}, not {type(value).__name__}")
    return text


def _text_of(name: str, value: Any) -> str | bytes | None:
    """Return a value of the less usual types as text; None for any other type."""
    # Imported by whoever made the value.
    from datetime import date, time
    from decimal import Decimal
    from enum import Enum
    from uuid import UUID

    if isinstance(value, Enum):
        return encode_param(name, value.value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    return str(value) if isinstance(value, (Decimal, UUID)) else None
