"""Memory and time that HTTPConnection's __slots__ save, against an instance's __dict__.

Verdict (38 attributes; Python 3.11 / 3.13): with __slots__ 6.0 / 7.4 ns an access and 560 / 540
bytes an object, without 7.6 to 9.4 / 8.4 to 9.2 ns and 1.8 / 2.1 kB: CPython shares the keys of a
__dict__, or keeps values inside the object, for 30 attributes at most. The 16 accesses timed here
gain 0.02 to 0.05 µs an exchange, so memory is the reason. Subclasses and callers may still add
attributes: __dict__ is among the slots, and is made when needed.
"""

from __future__ import annotations

import gc
import timeit
import tracemalloc
from typing import Any

from aiohttpconn import HTTPConnection
from aiohttpconn.endpoint import Endpoint

PARTS = (Endpoint, HTTPConnection)
SLOTS = {name for part in PARTS for name in part.__slots__}

# Attributes that request() and getresponse() of a GET read, and those that they set.
READ = (
    *("_state", "_plain_rest", "_protocol", "_timeout", "debuglevel"),
    *("_response", "_exchange", "_protocol", "_unsent", "debuglevel"),
)
SET = ("_exchange", "_state", "_exchange", "_unsent", "_state", "_response")


def without_slots() -> Any:
    """Return the same class with an ordinary __dict__."""
    plain: Any = object
    for part in PARTS:
        names = {name: value for name, value in vars(part).items() if name not in SLOTS}
        del names["__slots__"]
        plain = type("Plain", (plain,), names)
    return plain


def access(kind: Any) -> float:
    """Return the mean ns of one access, over those that one exchange makes."""
    lines = [f"c.{name}" for name in READ] + [f"c.{name} = None" for name in SET]
    names = {"made": kind("127.0.0.1", 8080)}
    timer = timeit.Timer("; ".join(lines), setup="c = made", globals=names)
    return min(timer.repeat(repeat=15, number=100_000)) / 100_000 / len(lines) * 1e9


def memory(kind: Any) -> float:
    """Return the bytes of one object and of its attributes' values."""
    kind("127.0.0.1", 8080)
    gc.collect()  # empties the free lists, whose objects are not traced
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
