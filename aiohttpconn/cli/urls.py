"""URLs and credentials as people type them: the command line's additions to ``urls.py``."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from urllib.parse import unquote_to_bytes

from ..exceptions import InvalidURL, redact
from ..net.tunnel import encode_basic
from ..urls import SplitURL, split_url
from .exits import Failed

__all__ = ["basic_of", "check_scheme", "locate", "typed"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")


def typed(text: str) -> str:
    """Return an argument as UTF-8, made from the bytes that were typed, in any locale.

    Bytes that are not UTF-8 become surrogate escapes.
    """
    return os.fsencode(text).decode("utf-8", "surrogateescape")


def check_scheme(what: str, url: str, known: Collection[str], code: int) -> None:
    """Raise ``Failed`` with *code* if *url*, the *what*, has a scheme that is not *known*."""
    match = _SCHEME.match(url)
    if match is not None and match[1].lower() not in known:
        raise Failed(
            code, f"the {what}'s scheme {match[1]!r} is not supported, {', '.join(known)} are"
        )


def locate(text: str) -> SplitURL:
    """Return the URL *text*, split; the default scheme is ``http``. Raises ``InvalidURL``.

    A blank is refused, as in curl: it is more often a missing quote than a part of a name.
    """
    url = typed(text)
    if _SCHEME.match(url) is None:
        url = f"http://{url}"
    if " " in url:
        raise InvalidURL(
            f"{redact(url)!r} has a blank in it: write it as %20, and put the URL in quotes"
        )
    return split_url(url)


def basic_of(userinfo: str) -> str:
    """Return the user and password of a URL as the value of an Authorization field."""
    user, _, password = userinfo.encode("utf-8", "surrogateescape").partition(b":")
    return encode_basic(b"%b:%b" % (unquote_to_bytes(user), unquote_to_bytes(password)))
