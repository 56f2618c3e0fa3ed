"""No text of a server or a caller costs more than in proportion to its length: no pattern does.

Each pattern of the package is run, by a matcher that counts its steps, on the texts that are worst
for it, made out of its own tree (``tests/support/backtracking.py``). No clock is asked.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import pathlib
import pkgutil
import re
from collections import defaultdict

import pytest

import aiohttpconn
from aiohttpconn.http11.grammar import small_chunks

from ..support.backtracking import Matcher, TooManySteps, attacks

PACKAGE = pathlib.Path(aiohttpconn.__file__).parent
FUNCTIONS = {"match", "search", "fullmatch", "split", "findall", "finditer", "sub", "subn"}

# Patterns that functions make as they run: one of each.
MADE_LATER = {
    "client/content/text.py": [re.compile("[\x80\u20ac]")],
    "http11/grammar.py": [small_chunks(*which) for which in itertools.product([0, 1], repeat=2)],
}
LATER_MODES = {"client/content/text.py": "sub", "http11/grammar.py": "match"}

# Steps for each character that need no second look, and the growth of four times the text.
FEW = 12
GROWTH = 5


def modules():
    for module in pkgutil.walk_packages(aiohttpconn.__path__, "aiohttpconn."):
        if not module.name.endswith("__main__"):
            yield importlib.import_module(module.name)


def source_of(module):
    return ast.parse(pathlib.Path(module.__file__).read_text(encoding="utf-8"))


def is_re(node):
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "re"
        and node.func.attr in {"compile", *FUNCTIONS}
    )


def patterns():
    """Return {(where, pattern): the methods it is used with}, of all modules."""
    by_name, found = defaultdict(set), defaultdict(set)
    trees = {module: source_of(module) for module in modules()}
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in FUNCTIONS:
                name = node.value
                text = name.id if isinstance(name, ast.Name) else getattr(name, "attr", "")
                by_name[text].add(node.attr)
    for module, tree in trees.items():
        file = pathlib.Path(module.__file__).relative_to(PACKAGE).as_posix()
        assigned = set()
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern):
                found[f"{file}:{name}", value] |= by_name[name] or {"fullmatch", "match"}
            elif isinstance(getattr(value, "__self__", None), re.Pattern):
                found[f"{file}:{name}", value.__self__].add(value.__name__)
        for statement in tree.body:
            if isinstance(statement, (ast.Assign, ast.AnnAssign)):
                assigned.update(filter(is_re, ast.walk(statement)))
        for call in ast.walk(tree):
            if not is_re(call) or call in assigned:
                continue
            where = f"{file}:{call.lineno}"
            pattern = call.args[0]
            if isinstance(pattern, ast.Constant):
                flags = re.DOTALL if "DOTALL" in ast.unparse(call) else 0
                made = [re.compile(pattern.value, flags)]
            else:
                made = MADE_LATER[file]
            mode = call.func.attr if call.func.attr in FUNCTIONS else LATER_MODES[file]
            for one in made:
                found[where, one].add(mode)
    return found


FOUND = patterns()


def cost(matcher, mode, text):
    try:
        matcher.run(mode, text)
    except TooManySteps:
        return matcher.most
    return matcher.steps


def growing(pattern, mode, size=120):
    """Return the texts of which four times as much costs more than about four times as much."""
    matcher = Matcher(pattern, most=200_000)
    found = []
    for prefix, pump, suffix in attacks(pattern):
        if not pump:
            continue
        text = prefix + pump * (size // len(pump) + 1) + suffix
        first = cost(matcher, mode, text)
        if first > FEW * len(text):
            longer = prefix + pump * (4 * size // len(pump) + 4) + suffix
            if first == matcher.most or cost(matcher, mode, longer) > GROWTH * first:
                found.append((prefix, pump, suffix))
    return found


def test_patterns_are_found():
    names = {where for where, _ in FOUND}
    assert len(FOUND) > 80
    assert {
        "client/content/charsets.py:_XML",
        "proxies.py:_URL",
        "client/cookies/set_cookie.py:_YEAR",
        "http11/grammar.py:PLAIN_HEAD",
        "client/hosts.py:_match_host",
    } <= names
    assert any(where.startswith("client/content/text.py:2") for where in names), "a local one"


@pytest.mark.parametrize(
    ("pattern", "mode"),
    [
        pytest.param(pattern, mode, id=f"{where}-{mode}")
        for (where, pattern), used in FOUND.items()
        for mode in sorted(used)
    ],
)
def test_no_pattern_grows_faster_than_its_text(pattern, mode):
    assert growing(pattern, mode) == []


@pytest.mark.parametrize(
    ("pattern", "mode"),
    [
        (r"(a+)+b", "match"),
        (r"\s+$", "search"),
        (r"a*a*b", "match"),
        (r"(?:a|aa)*c", "fullmatch"),
        (r'"(?:[^"\\]|\\.)*"', "search"),
        (r"x.*y.*z", "match"),
    ],
)
def test_patterns_that_grow_are_seen(pattern, mode):
    assert growing(re.compile(pattern), mode)


def test_the_matcher_finds_what_re_finds():
    for where, pattern in FOUND:
        matcher = Matcher(pattern)
        texts = list(attacks(pattern))
        for prefix, pump, suffix in texts[:: 1 + len(texts) // 40]:
            for text in (prefix + pump * 3 + suffix, prefix + pump * 2 + suffix + pump):
                given = text.encode("latin-1") if isinstance(pattern.pattern, bytes) else text
                for mode in ("match", "fullmatch", "search"):
                    match = getattr(pattern, mode)(given)
                    ends = [] if match is None else [match.end()]
                    assert matcher.run(mode, text) == ends, (where, mode, text)
