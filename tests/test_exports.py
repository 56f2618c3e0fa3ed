"""The public names: all that ``http.client`` has, and nothing by accident."""

from __future__ import annotations

import ast
import http
import http.client
import types
from importlib.util import resolve_name

import pytest

import aiohttpconn

from .test_layers import MODULES, PACKAGE, internal

SAME_OBJECTS = """
    HTTPException NotConnected InvalidURL UnknownProtocol UnknownTransferEncoding
    UnimplementedFileMode IncompleteRead ImproperConnectionState CannotSendRequest
    CannotSendHeader ResponseNotReady BadStatusLine LineTooLong RemoteDisconnected
    error HTTPMessage parse_headers responses HTTP_PORT HTTPS_PORT
""".split()
"""Names of http.client that are its own objects here."""

OURS = ["HTTPConnection", "HTTPSConnection", "HTTPResponse"]
"""Names of http.client that are classes of this package."""


@pytest.mark.parametrize("name", SAME_OBJECTS)
def test_is_http_clients_own_object(name):
    assert getattr(aiohttpconn, name) is getattr(http.client, name)


@pytest.mark.parametrize("name", http.HTTPStatus.__members__)
def test_each_status_is_a_constant(name):
    assert getattr(aiohttpconn, name) is getattr(http.client, name)


@pytest.mark.parametrize("name", OURS)
def test_is_a_class_of_its_own(name):
    ours = getattr(aiohttpconn, name)
    assert ours is not getattr(http.client, name)
    assert ours.__module__.startswith("aiohttpconn.")
    assert ours.__doc__


def test_has_every_public_name_of_http_client():
    assert set(http.client.__all__) - set(aiohttpconn.__all__) == set()
    assert set(http.client.__all__) <= {*SAME_OBJECTS, *OURS}


def test_every_exported_name_exists():
    assert [name for name in aiohttpconn.__all__ if not hasattr(aiohttpconn, name)] == []
    assert len(set(aiohttpconn.__all__)) == len(aiohttpconn.__all__)


def test_nothing_else_is_public():
    def is_ours(value: object) -> bool:
        return isinstance(value, types.ModuleType) and value.__name__.startswith("aiohttpconn.")

    names = {name for name, value in vars(aiohttpconn).items() if not is_ours(value)}
    # `from __future__ import annotations` leaves its name behind.
    public = {name for name in names if not name.startswith("_")} - {"annotations"}
    # As in http.client, the statuses are there and `import *` does not bring them.
    public -= set(http.HTTPStatus.__members__)
    exported = {name for name in aiohttpconn.__all__ if not name.startswith("_")}
    assert public - exported == set()


def test_every_exception_is_exported():
    from aiohttpconn import exceptions

    assert set(exceptions.__all__) - set(aiohttpconn.__all__) == set()


def test_has_a_version():
    assert aiohttpconn.__version__.count(".") >= 2


# What modules export to each other

FOR_OTHERS = {
    # Its __all__ is the package's own list of exceptions; these make their texts, and SSLError is
    # the standard library's.
    "exceptions": {
        "MAX_SHOWN",
        "SSLError",
        "cut_url",
        "describe",
        "quote",
        "hide_credentials",
        "redact",
        "shown_refused",
    },
}
"""Names that other modules import although the ``__all__`` of theirs does not have them."""

FOR_USERS = {
    # A plugin: pytest finds its fixtures by their names.
    "testing.fixtures": {"StartServer", "start_server"},
}
"""Names of an ``__all__`` that no other module of the package imports."""

PUBLIC = {"__init__", "testing"}
"""Modules whose ``__all__`` is for the users of the package."""


def parse(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def exported(module: str) -> set[str]:
    """Return the names in the module's ``__all__``, none if it has none."""
    if module == "__init__":
        return set(aiohttpconn.__all__)
    for node in parse(module).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def used_names(module: str) -> set[tuple[str, str]]:
    """Return (module, name) of what *module* takes from other modules of this package."""
    folder = MODULES[module].relative_to(PACKAGE).parent
    package = ".".join(["aiohttpconn", *folder.parts])
    tree = parse(module)
    found, modules = set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package)
            target = internal(origin)
            for alias in node.names if target is not None else ():
                child = internal(f"{origin}.{alias.name}")
                if child in MODULES:
                    modules[alias.asname or alias.name] = child
                else:
                    found.add((target, alias.name))
    # `from ..http11 import grammar`, and then `grammar.check_field(...)`.
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in modules
        ):
            found.add((modules[node.value.id], node.attr))
    return {(target, name) for target, name in found if not name.startswith("__")}


def test_all_is_what_others_import():
    used = set().union(*map(used_names, MODULES))
    missing, needless = [], []
    for module in MODULES:
        names = {name for target, name in used if target == module}
        listed = exported(module)
        if "*" in names:
            names = names - {"*"} | listed
        missing += [(module, name) for name in names - listed - FOR_OTHERS.get(module, set())]
        if module not in PUBLIC:
            needless += [(module, name) for name in listed - names - FOR_USERS.get(module, set())]
    assert sorted(missing) == [], "to be added to the __all__ of their modules"
    assert sorted(needless) == [], "to be taken out of the __all__ of their modules"


def test_exceptions_from_that_rule_are_needed():
    used = set().union(*map(used_names, MODULES))
    for module, names in FOR_OTHERS.items():
        assert {(module, name) for name in names} <= used
        assert names.isdisjoint(exported(module))
    for module, names in FOR_USERS.items():
        assert names <= exported(module)
        assert {(module, name) for name in names}.isdisjoint(used)
