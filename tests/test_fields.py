"""client/fields.py: the fields of a request: their order, their names in any case, repetition."""

from __future__ import annotations

import copy
import enum
import pickle
from collections.abc import MutableMapping
from http.client import HTTPMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttpconn.client.fields import Fields


def refused(error, function, *arguments) -> str:
    """Call in vain; return the text."""
    with pytest.raises(error) as info:
        function(*arguments)
    assert type(info.value) is error
    return str(info.value)


def message(*pairs: tuple[str, str]) -> HTTPMessage:
    made = HTTPMessage()
    for name, value in pairs:
        made.add_header(name, value)
    return made


class Kind(str, enum.Enum):  # noqa: UP042 - another str() than StrEnum's
    A = "a"


@pytest.mark.parametrize(
    ("headers", "pairs"),
    [
        ((), []),
        ({}, []),
        ({"A": "1", "b": "2"}, [("A", "1"), ("b", "2")]),
        ([("B", "1"), ("a", "2"), ("b", "3")], [("B", "1"), ("a", "2"), ("b", "3")]),
        (iter([("A", "1")]), [("A", "1")]),
        ([(b"A", b"\xe9"), (bytearray(b"B"), bytearray(b"x"))], [("A", "é"), ("B", "x")]),
        (
            {"A": 5, "B": "", "C": "\t", "D": Kind.A},
            [("A", "5"), ("B", ""), ("C", "\t"), ("D", "a")],
        ),
        (message(("A", "1"), ("B", "2"), ("a", "3")), [("A", "1"), ("B", "2"), ("a", "3")]),
        (Fields([("A", "1"), ("B", "2"), ("a", "3")]), [("A", "1"), ("B", "2"), ("a", "3")]),
    ],
)
def test_fields_are_kept_in_order_and_as_they_are_written(headers, pairs):
    fields = Fields(headers)
    assert fields.pairs() == pairs
    assert all(type(name) is type(value) is str for name, value in fields.pairs())
    made = Fields({"x": "y"})
    made.override(pairs)
    assert made.pairs() == [("x", "y"), *pairs]


def test_it_is_a_mapping():
    fields = Fields([("Accept", "a"), ("X", "1"), ("accept", "b")])
    assert isinstance(fields, MutableMapping)
    assert fields["ACCEPT"] == "a, b"
    assert fields.get_all("aCCept") == ["a", "b"]
    assert fields.get_all("Y") == []
    assert fields.get("y") is None
    assert list(fields) == ["Accept", "X"]
    assert len(fields) == 2
    assert dict(fields) == {"Accept": "a, b", "X": "1"}
    assert list(fields.items()) == [("Accept", "a, b"), ("X", "1")]
    assert "accept" in fields
    assert "Accep" not in fields
    assert 5 not in fields
    assert refused(KeyError, fields.__getitem__, "Y") == "'Y'"
    assert bool(Fields()) is False
    assert repr(fields) == "Fields([('Accept', 'a'), ('X', '1'), ('accept', 'b')])"


def test_cookies_are_joined_as_cookies_are():
    assert Fields([("cookie", "a=1"), ("Cookie", "b=2")])["COOKIE"] == "a=1; b=2"


def test_setting_replaces_all_of_a_name_in_the_place_of_the_first():
    fields = Fields([("A", "1"), ("B", "2"), ("a", "3"), ("C", "4"), ("A", "5")])
    fields["a"] = "6"
    assert fields.pairs() == [("a", "6"), ("B", "2"), ("C", "4")]
    fields["D"] = 7
    assert fields.pairs() == [("a", "6"), ("B", "2"), ("C", "4"), ("D", "7")]
    assert fields.setdefault("d", "8") == "7"
    fields.update({"b": "9"}, e="10")
    assert fields.pairs() == [("a", "6"), ("b", "9"), ("C", "4"), ("D", "7"), ("e", "10")]


def test_adding_keeps_what_is_there():
    fields = Fields({"A": "1"})
    fields.add("a", "2")
    fields.add(b"B", b"3")
    assert fields.pairs() == [("A", "1"), ("a", "2"), ("B", "3")]


def test_deleting_takes_all_of_a_name():
    fields = Fields([("A", "1"), ("B", "2"), ("a", "3")])
    del fields["a"]
    assert fields.pairs() == [("B", "2")]
    assert refused(KeyError, fields.__delitem__, "A") == "'A'"
    assert fields.pop("b") == "2"
    assert fields.pop("b", None) is None
    assert fields.pairs() == []
    fields.add("A", "1")
    fields.clear()
    assert len(fields) == 0


def test_what_overrides_comes_behind_and_none_takes_away():
    fields = Fields([("A", "1"), ("B", "2"), ("a", "3"), ("C", "4")])
    fields.override({"a": "5", "c": None, "D": "6", "E": None})
    assert fields.pairs() == [("B", "2"), ("a", "5"), ("D", "6")]


def test_what_overrides_may_be_repeated():
    fields = Fields({"A": "1"})
    fields.override([("a", "2"), (b"A", "3"), (bytearray(b"a"), 4)])
    assert fields.pairs() == [("a", "2"), ("A", "3"), ("a", "4")]
    fields.override([("A", "5"), ("A", None)])
    assert fields.pairs() == []
    fields.override([("A", None), ("A", "6"), ("a", "7")])
    assert fields.pairs() == [("A", "6"), ("a", "7")]
    fields.override(Fields([("a", "8"), ("A", "9")]))
    assert fields.pairs() == [("a", "8"), ("A", "9")]
    fields.override(message(("a", "1"), ("A", "2")))
    assert fields.pairs() == [("a", "1"), ("A", "2")]


@pytest.mark.parametrize(
    ("name", "value", "error", "text"),
    [
        ("", "1", ValueError, "Invalid header name '': it must be a token (RFC 9110 §5.1)"),
        ("A B", "1", ValueError, "Invalid header name 'A B': it must be a token (RFC 9110 §5.1)"),
        ("A:", "1", ValueError, "Invalid header name 'A:': it must be a token (RFC 9110 §5.1)"),
        ("A\r\nB", "1", ValueError, "Invalid header name 'A\\r\\nB': it must be a token (RFC"),
        ("Ä", "1", ValueError, "Invalid header name 'Ä': it must be a token (RFC 9110 §5.1)"),
        (b"\xc4", "1", ValueError, "Invalid header name 'Ä': it must be a token (RFC 9110 §5.1)"),
        (5, "1", TypeError, "a header name must be str or bytes, not int: 5"),
        (None, "1", TypeError, "a header name must be str or bytes, not NoneType: None"),
        ("A", "1\r\nB: 2", ValueError, "Invalid header value of A (not shown): it has a control"),
        ("A", "1\n 2", ValueError, "Invalid header value of A (not shown): it has a control"),
        ("A", "\0", ValueError, "Invalid header value of A (not shown): it has a control"),
        ("A", b"\x7f", ValueError, "Invalid header value of A (not shown): it has a control"),
        ("A", "€", UnicodeEncodeError, "'latin-1' codec can't encode character '\\u20ac' in"),
        ("A", 1.5, TypeError, "the value of A must be str, bytes or int, not float"),
        ("A", ["1"], TypeError, "the value of A must be str, bytes or int, not list"),
    ],
)
def test_what_may_not_be_sent_is_refused_and_changes_nothing(name, value, error, text):
    fields = Fields({"A": "0"})
    for function in (
        fields.__setitem__,
        fields.add,
        lambda name, value: Fields([(name, value)]),
        lambda name, value: fields.override([(name, value)]),
    ):
        assert refused(error, function, name, value).startswith(text)
        assert fields.pairs() == [("A", "0")]


def test_none_is_no_value_but_for_override():
    text = "the value of A must be str, bytes or int, not NoneType"
    assert refused(TypeError, Fields, {"A": None}) == text
    assert refused(TypeError, Fields().add, "A", None) == text
    assert refused(ValueError, Fields().override, {"A B": None}).startswith("Invalid header name")


@pytest.mark.parametrize("copied", [Fields.copy, copy.copy, copy.deepcopy, Fields])
def test_a_copy_changes_by_itself(copied):
    fields = Fields([("A", "1"), ("a", "2")])
    other = copied(fields)
    assert type(other) is Fields
    assert other.pairs() == fields.pairs()
    other["A"] = "3"
    other.add("B", "4")
    assert fields.pairs() == [("A", "1"), ("a", "2")]
    fields.add("C", "5")
    assert other.pairs() == [("A", "3"), ("B", "4")]


def test_fields_can_be_pickled():
    fields = Fields([("A", "1"), ("a", "2")])
    assert pickle.loads(pickle.dumps(fields)).pairs() == fields.pairs()


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        (Fields([("A", "1"), ("B", "2"), ("a", "3")]), True),
        (Fields([("b", "2"), ("a", "1"), ("a", "3")]), True),
        (Fields([("B", "2"), ("A", "1, 3")]), True),
        ({"a": "1, 3", "b": "2"}, True),
        ({"A": "1, 3"}, False),
        ({"A": "3, 1", "B": "2"}, False),
        ({"A": "1, 3", "B": "2", 5: 5}, False),
        (Fields(), False),
        ([("A", "1"), ("B", "2"), ("a", "3")], False),
        (None, False),
    ],
)
def test_fields_are_equal_in_any_case_and_order_of_names(other, equal):
    fields = Fields([("A", "1"), ("B", "2"), ("a", "3")])
    assert (fields == other) is equal
    assert (other == fields) is equal
    assert (fields != other) is not equal
    assert refused(TypeError, hash, fields) == "unhashable type: 'Fields'"


NAMES = st.sampled_from(["A", "a", "B", "b", "C"])
STEPS = st.lists(
    st.tuples(st.sampled_from(["set", "add", "delete", "override"]), NAMES, st.integers(0, 9)),
    max_size=20,
)


@given(STEPS)
def test_it_is_what_a_list_of_pairs_would_be(steps):
    fields = Fields()
    pairs: list[tuple[str, str]] = []
    for step, name, number in steps:
        value = str(number)
        others = [pair for pair in pairs if pair[0].lower() != name.lower()]
        if step == "set":
            fields[name] = value
            at = next((i for i, p in enumerate(pairs) if p[0].lower() == name.lower()), len(pairs))
            before = [pair for pair in pairs[:at] if pair in others]
            pairs = [*before, (name, value), *others[len(before) :]]
        elif step == "add":
            fields.add(name, value)
            pairs = [*pairs, (name, value)]
        elif step == "delete":
            assert fields.pop(name, None) == (
                ", ".join(v for n, v in pairs if n.lower() == name.lower()) or None
            )
            pairs = others
        else:
            fields.override({name: value})
            pairs = [*others, (name, value)]
        assert fields.pairs() == pairs
        assert len(fields) == len(list(fields)) == len({n.lower() for n, _ in pairs})
