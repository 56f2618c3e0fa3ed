"""What do HTTPConnection's __slots__ save, against attributes in an instance's __dict__?

Verdict: TODO
"""

from __future__ import annotations

import timeit
import tracemalloc
from typing import Any

from aiohttpconn import HTTPConnection

SLOTS = HTTPConnection.__slots__

# What request() and getresponse() of a GET read, and what they set.
READ = (
    *("_state", "_plain_rest", "_protocol", "_timeout", "debuglevel"),
    *("_response", "_exchange", "_protocol", "_unsent", "debuglevel"),
)
SET = ("_exchange", "_state", "_exchange", "_unsent", "_state", "_response")


def without_slots() -> Any:
    """Return the same class with an ordinary __dict__."""
    names = {name: value for name, value in vars(HTTPConnection).items() if name not in SLOTS}
    del names["__slots__"]
    return type("Plain", (), names)


def access(kind: Any) -> float:
    """Return the ns of one access, of those that one exchange makes."""
    lines = [f"c.{name}" for name in READ] + [f"c.{name} = None" for name in SET]
    names = {"made": kind("127.0.0.1", 8080)}
    timer = timeit.Timer("; ".join(lines), setup="c = made", globals=names)
    return min(timer.repeat(repeat=15, number=100_000)) / 100_000 / len(lines) * 1e9


def memory(kind: Any) -> float:
    """Return the bytes of one object with what its attributes hold."""
    kind("127.0.0.1", 8080)
    tracemalloc.start()
    held = [kind("127.0.0.1", 8080) for _ in range(1_000)]
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / len(held)


def main() -> None:
    print(f"{len(SLOTS) - 2} attributes")
    for name, kind in (("__slots__", HTTPConnection), ("__dict__", without_slots())):
        print(f"{access(kind):6.2f} ns an access  {memory(kind):6.0f} bytes an object  {name}")


if __name__ == "__main__":
    main()
