"""Arguments: checked where the caller gives them, by one table for each constructor.

A wrong value fails in the constructor, with its name and what it has to be, and not at the first
request. Pure. Layer: above hooks and types.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, TypeAlias

from .hooks import check_hook
from .types import UNSET

__all__ = [
    "ANY_PATH",
    "CALLABLE",
    "CONTEXT",
    "FLAG",
    "FUNCTION",
    "NAME",
    "PATH",
    "PLAIN_FUNCTION",
    "PORT",
    "SOCKET_OPTIONS",
    "SOURCE_ADDRESS",
    "TEXT",
    "UDS",
    "Checks",
    "check_arguments",
    "choice",
    "collection",
    "count",
    "having",
    "instance",
    "mapping",
    "number",
    "sequence",
]


class Check:
    """A check of one argument: what it must be, in words; its types; and which values are good.

    Raises ``TypeError`` and ``ValueError`` with *what*. bool counts as int only if *types* says so.
    """

    __slots__ = ("_none", "_types", "_valid", "_what")

    def __init__(
        self,
        what: str,
        types: type | tuple[type, ...],
        valid: Callable[[Any], bool] | None = None,
        *,
        none: bool = False,
    ) -> None:
        self._what = f"{what}, or None" if none else what
        self._types = types
        self._valid = valid
        self._none = none

    def __call__(self, name: str, value: Any) -> None:
        if value is None and self._none:
            return
        types = self._types
        if not isinstance(value, types) or (
            (value is True or value is False) and types is not bool and types is not object
        ):
            raise TypeError(f"{name} must be {self._what}, not {type(value).__name__}")
        if self._valid is not None and not self._valid(value):
            raise ValueError(f"{name} must be {self._what}, got {value!r:.200}")


CheckFunction: TypeAlias = Callable[[str, Any], object]
Checks: TypeAlias = Mapping[str, CheckFunction]
"""The checks of a constructor's arguments, by their names."""


def check_arguments(
    checks: Checks, given: Mapping[str, Any], shown: str = "{}", names: Iterable[str] | None = None
) -> None:
    """Check the arguments *given*, all that *checks* knows or those of *names*.

    *shown*: how an error names an argument. Raises ``TypeError`` and ``ValueError``.
    """
    for name in checks if names is None else names:
        if (value := given[name]) is not UNSET:
            checks[name](shown.format(name), value)


def count(least: int, unit: str = "", *, none: bool = False) -> Check:
    """Return the check of a number of things."""
    what = f"an int, {least} {unit}".rstrip() + " or more"
    return Check(what, int, lambda value: value >= least, none=none)


def number(
    unit: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    none: bool = False,
) -> Check:
    """Return the check of a number of *unit*; nan is never one."""
    bounds = []
    if least is not None and most is not None:
        bounds.append(f"from {least:g} to {most:g}")
    elif least is not None:
        bounds.append(f"{least:g} or more")
    elif above is not None:
        bounds.append(f"above {above:g}")

    def valid(value: float) -> bool:
        low = value >= least if least is not None else value > (above or 0)
        return low and (most is None or value <= most)

    return Check(", ".join([f"a number of {unit}", *bounds]), (int, float), valid, none=none)


def choice(*values: str) -> Check:
    """Return the check of one of several words."""
    return Check(" or ".join(map(repr, values)), str, lambda value: value in values)


def collection(what: str, kind: type) -> Check:
    """Return the check of a collection of *kind*; a str is none."""

    def valid(value: Any) -> bool:
        return not isinstance(value, (str, bytes)) and all(isinstance(one, kind) for one in value)

    return Check(what, Collection, valid)


def sequence(what: str) -> Check:
    """Return the check of a sequence; a str is none."""
    return Check(what, Sequence, lambda value: not isinstance(value, (str, bytes)))


def mapping(what: str, *, none: bool = False) -> Check:
    """Return the check of a mapping."""
    return Check(what, Mapping, none=none)


def instance(kind: type, what: str, *, none: bool = False) -> Check:
    """Return the check of an object of a class."""
    return Check(what, kind, none=none)


def having(method: str, what: str, *, none: bool = False) -> Callable[[str, Any], None]:
    """Return the check of an object that has *method*, of whatever class."""

    def check(name: str, value: Any) -> None:
        if value is None and none:
            return
        if isinstance(value, type) or not callable(getattr(value, method, None)):
            kind = (
                f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
            )
            raise TypeError(f"{name} must be {what}{', or None' if none else ''}, not {kind}")

    return check


def _function(name: str, value: Any) -> None:
    _CALLABLE(name, value)
    check_hook(name, value, may_await=True)


def _plain_function(name: str, value: Any) -> None:
    _CALLABLE(name, value)
    check_hook(name, value, may_await=False)


def _is_address(value: Any) -> bool:
    return len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


def _are_options(value: Any) -> bool:
    return all(isinstance(one, (tuple, list)) and len(one) in (3, 4) for one in value)


FLAG = Check("True or False", bool)
TEXT = Check("a str", str)
NAME = Check("a str", str, none=True)
CALLABLE = Check("a callable", Callable)  # type: ignore[arg-type]
_CALLABLE = Check("a callable", Callable, none=True)  # type: ignore[arg-type]
FUNCTION: CheckFunction = _function
"""A hook whose result is awaited if it has to be: see hooks.py."""
PLAIN_FUNCTION: CheckFunction = _plain_function
"""A hook whose result is needed at once."""
ANY_PATH = Check("a path", (str, bytes, PathLike))
PATH = Check("a path", (str, PathLike), none=True)
UDS = Check("the path of a socket", (str, bytes), none=True)
PORT = Check("an int", (int, str), none=True)
"""A str of digits is one for http.client, too."""
SOURCE_ADDRESS = Check("(host, port)", (tuple, list), _is_address, none=True)
SOCKET_OPTIONS = Check("a list of (level, name, value)", Collection, _are_options)
CONTEXT = having("wrap_bio", "an ssl.SSLContext", none=True)
"""Known by its method: importing ``ssl`` may fail, and takes its time."""
