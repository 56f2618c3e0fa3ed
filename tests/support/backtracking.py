"""The steps of a regular expression, counted: a matcher that works as ``re`` does, but slowly.

It walks the tree that ``re`` itself parses, and counts each look at a character. So the growth of
a pattern's cost is a number that is the same on every machine: no clock is asked. ``attacks`` makes
the texts that are worst for a pattern out of the same tree.
"""

from __future__ import annotations

import re
import sys
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]

# A repeat of a group calls itself for each round; these calls take no C stack.
DEPTH = 500_000

# Texts of one part of a pattern that are tried in each place.
MOST_WAYS = 16

REPEATS = (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT)
SINGLE = (ops.LITERAL, ops.NOT_LITERAL, ops.ANY, ops.IN)
CATEGORIES = {
    ops.CATEGORY_DIGIT: r"\d",
    ops.CATEGORY_NOT_DIGIT: r"\D",
    ops.CATEGORY_SPACE: r"\s",
    ops.CATEGORY_NOT_SPACE: r"\S",
    ops.CATEGORY_WORD: r"\w",
    ops.CATEGORY_NOT_WORD: r"\W",
}


class TooManySteps(Exception):
    pass


class Matcher:
    """The *pattern* of ``re``; ``steps`` of the last call."""

    def __init__(self, pattern, most=10_000_000):
        text = pattern.pattern
        self.flags = pattern.flags
        self.most = most
        self.steps = 0
        self.text = ""
        self.ascii = re.ASCII if isinstance(text, bytes) else 0
        if isinstance(text, bytes):
            text = text.decode("latin-1")
            self.flags = (self.flags | re.ASCII) & ~re.UNICODE
        self.tree = parser.parse(text, self.flags)
        self.flags |= self.tree.state.flags
        self.memory = {}
        self.root = self.sequence(self.tree, self.flags)

    def run(self, mode, text):
        """Do what *mode*, a method of ``re.Pattern``, does; return the ends of all matches."""
        self.text, self.steps = text, 0
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(DEPTH)
        try:
            if mode in ("match", "fullmatch"):
                end = self.at(0, whole=mode == "fullmatch")
                return [] if end is None else [end]
            ends, start = [], 0
            while start <= len(text):
                self.step()
                end = self.at(start)
                if end is not None:
                    ends.append(end)
                    if mode == "search":
                        break
                start = start + 1 if end is None or end == start else end
            return ends
        finally:
            sys.setrecursionlimit(limit)

    def at(self, start, whole=False):
        found = []

        def end(i):
            if whole and i < len(self.text):
                return False
            found.append(i)
            return True

        return found[-1] if self.root(start, end) else None

    def step(self):
        self.steps += 1
        if self.steps > self.most:
            raise TooManySteps

    # Each node is a function of a position and of what follows it, which is one of a position.

    def sequence(self, items, flags):
        nodes = [self.node(op, args, flags) for op, args in items]
        if len(nodes) == 1:
            return nodes[0]

        def run(i, then, at=0):
            if at == len(nodes):
                return then(i)
            return nodes[at](i, lambda j: run(j, then, at + 1))

        return run

    def node(self, op, args, flags):
        if op in SINGLE:
            test = self.test(op, args, flags)
            return lambda i, then: test(i) and then(i + 1)
        if op in REPEATS:
            return self.repeat(op, *args, flags)
        if op is ops.SUBPATTERN:
            _, added, removed, items = args
            return self.sequence(items, (flags | added) & ~removed)
        if op is ops.ATOMIC_GROUP:
            return self.atomic(self.sequence(args, flags))
        if op is ops.BRANCH:
            ways = [self.sequence(items, flags) for items in args[1]]
            return lambda i, then: any(way(i, then) for way in ways)
        if op in (ops.ASSERT, ops.ASSERT_NOT):
            direction, items = args
            body = self.sequence(items, flags)
            back = items.getwidth()[0] if direction < 0 else 0
            wanted = op is ops.ASSERT

            def look(i, then):
                found = i >= back and body(i - back, lambda j: True)
                return found == wanted and then(i)

            return look
        assert op is ops.AT, f"{op} is not known here"
        return self.anchor(args, flags)

    def anchor(self, where, flags):
        def holds(i):
            self.step()
            text = self.text
            if where in (ops.AT_BEGINNING, ops.AT_BEGINNING_STRING):
                many = flags & re.MULTILINE and where is ops.AT_BEGINNING
                return i == 0 or (many and text[i - 1] == "\n")
            if where is ops.AT_END_STRING:
                return i == len(text)
            if where is ops.AT_END:
                return text[i:] in ("", "\n") or (flags & re.MULTILINE and text[i] == "\n")
            assert where in (ops.AT_BOUNDARY, ops.AT_NON_BOUNDARY), where
            sides = [c.isalnum() or c == "_" for c in (text[i - 1 : i], text[i : i + 1])]
            return (sides[0] != sides[1]) == (where is ops.AT_BOUNDARY)

        return lambda i, then: holds(i) and then(i)

    def atomic(self, body):
        def run(i, then):
            ends = []
            return body(i, lambda j: ends.append(j) or True) and then(ends[-1])

        return run

    def repeat(self, op, low, high, items, flags):
        if len(items) == 1 and items[0][0] in SINGLE:
            return self.repeat_of_one(op, low, high, self.test(*items[0], flags))
        body = self.sequence(items, flags)

        def greedy(i, then, count=0):
            # An empty round is the last one.
            again = count < high and body(
                i, lambda j: (j > i or count < low) and greedy(j, then, count + 1)
            )
            return again or (count >= low and then(i))

        def lazy(i, then, count=0):
            if count >= low and then(i):
                return True
            return count < high and body(
                i, lambda j: (j > i or count < low) and lazy(j, then, count + 1)
            )

        if op is ops.POSSESSIVE_REPEAT:
            return self.atomic(greedy)
        return greedy if op is ops.MAX_REPEAT else lazy

    def repeat_of_one(self, op, low, high, test):
        def run(i, then):
            count = 0
            if op is ops.MIN_REPEAT:
                while count < low or not then(i + count):
                    if count >= high or not test(i + count):
                        return False
                    count += 1
                return True
            while count < high and test(i + count):
                count += 1
            if op is ops.POSSESSIVE_REPEAT:
                return count >= low and then(i + count)
            while count >= low:
                self.step()
                if then(i + count):
                    return True
                count -= 1
            return False

        return run

    def test(self, op, args, flags):
        allowed = self.allowed(op, args, flags)
        known = {}

        def run(i):
            self.step()
            if i >= len(self.text):
                return False
            char = self.text[i]
            if char not in known:
                known[char] = allowed(char)
            return known[char]

        return run

    def allowed(self, op, args, flags):
        """Return the function that tells whether one character matches."""

        def matches(char):
            variants = {char}
            if flags & re.IGNORECASE:
                variants |= {form for form in (char.lower(), char.upper()) if len(form) == 1}
            if op is ops.ANY:
                return bool(flags & re.DOTALL) or char != "\n"
            if op in (ops.LITERAL, ops.NOT_LITERAL):
                return (args in map(ord, variants)) == (op is ops.LITERAL)
            negated = args[0][0] is ops.NEGATE
            items = args[negated:]
            return negated != any(self.item(form, *item) for item in items for form in variants)

        return matches

    def item(self, char, op, args):
        if op is ops.LITERAL:
            return ord(char) == args
        if op is ops.RANGE:
            return args[0] <= ord(char) <= args[1]
        assert op is ops.CATEGORY, op
        return re.match(CATEGORIES[args], char, self.ascii) is not None


def attacks(pattern):
    """Yield (prefix, pump, suffix): a text is the prefix, the pump many times, and the suffix."""
    matcher = Matcher(pattern)
    tests = list(_tests(matcher, matcher.tree, matcher.flags))
    kinds = {}
    for code in [*range(0x21, 0x7F), *range(0x21), *range(0x7F, 0x100), 0x3002, 0x1F600]:
        if code > 0xFF and isinstance(pattern.pattern, bytes):
            continue
        kinds.setdefault(tuple(test(chr(code)) for test in tests), chr(code))
    chars = list(kinds.values())
    ends = ["", *{kinds.get((False,) * len(tests), "\0"), "\0", "\n"}]
    made = _Samples(matcher, chars)
    found = {("", char) for char in chars}
    found.update(("", text) for text in made.texts(matcher.tree, matcher.flags))
    found.update(made.pumps(matcher.tree, matcher.flags, ""))
    for prefix, pump in sorted(found):
        for suffix in ends:
            yield prefix, pump, suffix
        if prefix:
            # Many beginnings, each of which may read up to the end.
            yield "", prefix + pump, ""


def _tests(matcher, items, flags):
    for op, args in items:
        if op in SINGLE:
            yield matcher.allowed(op, args, flags)
        else:
            for inner, inner_flags in _inside(op, args, flags):
                yield from _tests(matcher, inner, inner_flags)


def _inside(op, args, flags):
    if op in REPEATS:
        return [(args[2], flags)]
    if op is ops.SUBPATTERN:
        return [(args[3], (flags | args[1]) & ~args[2])]
    if op is ops.ATOMIC_GROUP:
        return [(args, flags)]
    if op is ops.BRANCH:
        return [(items, flags) for items in args[1]]
    if op in (ops.ASSERT, ops.ASSERT_NOT):
        return [(args[1], flags)]
    return []


class _Samples:
    """Texts that parts of a pattern match, made of *chars*."""

    def __init__(self, matcher, chars):
        self.matcher = matcher
        self.chars = chars

    def texts(self, items, flags):
        """Return texts that *items* match: the shortest, the longest, and with each part varied."""
        parts = [self.ways(op, args, flags) for op, args in items]
        short = [ways[0] for ways in parts]
        texts = ["".join(short), "".join(ways[-1] for ways in parts)]
        for i, ways in enumerate(parts):
            texts += ["".join([*short[:i], way, *short[i + 1 :]]) for way in ways[1:MOST_WAYS]]
        return list(dict.fromkeys(texts))

    def ways(self, op, args, flags):
        if op in SINGLE:
            allowed = self.matcher.allowed(op, args, flags)
            return [char for char in self.chars if allowed(char)] or ["\0"]
        if op in REPEATS:
            once = self.texts(args[2], flags)
            return [once[0] * args[0], *(text * max(args[0], 1) for text in once)]
        if op in (ops.ASSERT, ops.ASSERT_NOT, ops.AT):
            return [""]
        return [t for inner, inside in _inside(op, args, flags) for t in self.texts(inner, inside)]

    def pumps(self, items, flags, prefix):
        """Yield (prefix, pump) for each repeat in *items*: what leads there, what it repeats."""
        for op, args in items:
            if op in REPEATS and args[1] > 1:
                for text in self.texts(args[2], flags):
                    yield prefix, text
            for inner, inside in _inside(op, args, flags):
                yield from self.pumps(inner, inside, prefix)
            prefix += self.ways(op, args, flags)[0]
