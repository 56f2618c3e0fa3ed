"""Ids of cases that are values: ``parametrize(..., ids=shown)``.

Each of the processes that share a run of the tests has to give a case the same id.
"""

import re

__all__ = ["shown"]

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def shown(value: object) -> str:
    """Return the ``repr`` of *value*, without the addresses of objects."""
    return _ADDRESS.sub("", repr(value))
