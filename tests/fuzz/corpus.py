"""The corpus: ``corpus/NAME/`` has the inputs of a target, and ``inputs`` draws more like them."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

__all__ = ["folder", "inputs", "kept"]


def folder(name: str) -> Path:
    """Return the folder of the target *name*."""
    return Path(__file__).parent / "corpus" / name


def kept(name: str) -> list[bytes]:
    """Return the inputs that are kept for the target *name*."""
    return [path.read_bytes() for path in sorted(folder(name).iterdir())]


def inputs(name: str) -> st.SearchStrategy[bytes]:
    """Draw inputs for the target *name*: pieces of those that are kept, cut, joined and spoilt."""
    whole = st.sampled_from(kept(name))
    cut = st.builds(lambda data, i, j: data[i:j], whole, st.integers(0, 40), st.integers(0, 400))
    piece = st.one_of(whole, cut, cut, st.binary(max_size=8))
    return st.lists(piece, min_size=1, max_size=4).map(b"".join)
