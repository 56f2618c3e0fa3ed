"""Each target of the fuzzer with the inputs that are kept, and with some that are like them."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from . import corpus
from .__main__ import main
from .targets import TARGETS, target

INPUTS = [(name, path.name) for name in TARGETS for path in sorted(corpus.folder(name).iterdir())]

MANY = settings(max_examples=max(settings().max_examples, 600))


@pytest.mark.parametrize(("name", "file"), INPUTS, ids=[f"{name}-{file}" for name, file in INPUTS])
def test_what_was_found_once(name, file):
    TARGETS[name]((corpus.folder(name) / file).read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_inputs_like_those_that_are_kept(name, data):
    TARGETS[name](data.draw(corpus.inputs(name)))


@pytest.mark.siege
@pytest.mark.parametrize("name", TARGETS)
@MANY
@given(data=st.data())
def test_many_inputs_like_those_that_are_kept(name, data):
    TARGETS[name](data.draw(corpus.inputs(name)))


def test_a_run_that_finds_something_keeps_it(tmp_path, monkeypatch, capsys):
    @target
    def broken(data: bytes) -> None:
        assert b"HTTP" not in data

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(corpus, "folder", lambda name: tmp_path / "corpus")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "one").write_bytes(b"HTTP/1.1 200 OK")
    arguments = ["fuzz", "broken", "--seconds", "1", "--with-hypothesis"]
    monkeypatch.setattr(sys, "argv", arguments)
    try:
        with pytest.raises(AssertionError):
            main()
    finally:
        del TARGETS["broken"]
    assert "broken fails" in capsys.readouterr().err
    crashes = [*tmp_path.glob("crash-*")]
    assert crashes
    assert all(b"HTTP" in crash.read_bytes() for crash in crashes)
