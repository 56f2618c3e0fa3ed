"""No module touches private attributes of another module's objects, except for those listed here.

This is the fourth of the architecture's locks. A *reach* is ``thing._name`` if ``_name`` belongs
to a class of another module: one that this module neither defines nor inherits for ``self``. The
list may only shrink: a reach that is not in it fails, and so does an entry that is not needed.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "aiohttpconn"

NAMED_TUPLE = {"_replace", "_asdict", "_fields", "_make"}
"""Public methods of ``NamedTuple``, whatever their names say."""

ALLOWED: dict[str, dict[str, int]] = {}
"""How many times each module may touch each private attribute of others; hot functions only."""


def own_names(tree: ast.Module) -> set[str]:
    """Return the names that the classes of a module define: attributes, slots, methods."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        for part in ast.walk(node):
            if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
                names.add(part.name)
            elif isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store):
                if isinstance(part.value, ast.Name) and part.value.id == "self":
                    names.add(part.attr)
            elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                names.add(part.target.id)
            elif isinstance(part, ast.Assign) and ast.unparse(part.targets[0]) == "__slots__":
                names.update(ast.literal_eval(part.value))
    return names


def reaches(source: str) -> Counter[str]:
    """Count the private attributes of other modules' classes that *source* touches."""
    tree = ast.parse(source)
    own = own_names(tree) | NAMED_TUPLE
    found: Counter[str] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            of_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            of_super = isinstance(node.value, ast.Call) and (
                isinstance(node.value.func, ast.Name) and node.value.func.id == "super"
            )
            if is_private(node.attr) and not of_self and not of_super and node.attr not in own:
                found[node.attr] += 1
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.update(alias.name for alias in node.names if is_private(alias.name))
    return found


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize("module", MODULES)
def test_private_attributes_stay_in_their_module(module):
    found = reaches(MODULES[module].read_text(encoding="utf-8"))
    assert found == Counter(ALLOWED.get(module, {}))


def test_the_list_names_only_modules_that_exist():
    assert ALLOWED.keys() - MODULES.keys() == set()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(x):\n    x._y = 1\n    return x._y", {"_y": 2}),
        ("class A:\n    def f(self, b):\n        return self._y + b.c._z", {"_z": 1}),
        ("class A:\n    def f(self, other):\n        self._y = other._y", {}),
        ("class A:\n    __slots__ = ('_y',)\ndef f(a):\n    return a._y", {}),
        ("class A(B):\n    def f(self):\n        return super()._y()", {}),
        ("from .a import _b, c\nfrom os import _exit", {"_b": 1}),
        ("def f(pair):\n    return pair._replace(x=1), pair.__dict__", {}),
    ],
)
def test_sees_what_it_must_see(source, found):
    assert reaches(source) == Counter(found)
