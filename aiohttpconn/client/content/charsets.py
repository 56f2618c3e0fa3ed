"""Which charset the bytes of a document are in, whatever its server says. Pure. Layer: client."""

from __future__ import annotations

import codecs
import re

__all__ = ["BOM", "TextDecoder", "charset_of", "header_charset"]

META_BYTES = 1024
"""Of a document: where HTML says its charset must be declared."""

_CHARSET = re.compile(r"(?i);[\t ]*charset[\t ]*=[\t ]*\"?([A-Za-z0-9_.:+\-]{1,40})")
_META = re.compile(
    rb"(?i)<meta[^>]{1,200}?charset[\t ]*=[\t ]*[\"']?[\t ]*([A-Za-z0-9_.:+\-]{1,40})"
)
_XML = re.compile(rb"<\?xml[^>]{1,200}?encoding[\t ]*=[\t ]*[\"']([A-Za-z0-9_.:+\-]{1,40})")
_MARKUP = re.compile(r"(?i)html|xml")

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# Those whose bytes have an order, which a byte order mark tells: the mark of the bigger end first.
_ORDERED = {"utf-16": codecs.BOM_UTF16_BE, "utf-32": codecs.BOM_UTF32_BE}

BOM = "\ufeff"
"""The byte order mark as a character: no part of a text that it begins."""

# What browsers take these names for: https://encoding.spec.whatwg.org/#names-and-labels
_LABELS = {"iso8859-1": "cp1252", "ascii": "cp1252"}

# Python's codecs of this kind are no charset of a document: some are slow, one hides markup.
_NO_CHARSETS = frozenset(
    {"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape", "utf-7"}
)


def charset_of(content_type: str, content: bytes) -> str:
    """Return Python's name for a document's charset.

    That of the header, of a byte order mark, of what HTML or XML declares; else UTF-8.
    """
    if name := header_charset(content_type):
        return name
    for bom, name in _BOMS:
        if content.startswith(bom):
            return name
    if not content_type or _MARKUP.search(content_type):
        declared = _META.search(content[:META_BYTES]) or _XML.match(content[:META_BYTES])
        if declared is not None and (name := _codec(declared[1].decode("ascii"))):
            # A document that can say so in ASCII is neither UTF-16 nor UTF-32.
            return "utf-8" if name.startswith(("utf-16", "utf-32")) else name
    return "utf-8"


def header_charset(content_type: str) -> str:
    """Return the charset of a Content-Type field, "" if it has none that Python knows."""
    match = _CHARSET.search(content_type)
    return _codec(match[1]) if match is not None else ""


def _codec(name: str) -> str:
    """Return Python's name for a charset, "" if it has none, or one that is refused."""
    try:
        found = codecs.lookup(name).name
        b" ".decode(found, "replace")  # LookupError for what is no text encoding
    except (LookupError, ValueError):
        return ""
    return "" if found in _NO_CHARSETS else _LABELS.get(found, found)


class TextDecoder:
    """Decode a text in the charset *name*, Python's, as it comes; U+FFFD for what does not fit.

    Unlike Python's own for UTF-16 and UTF-32 it wants no byte order mark: without one, the
    smaller end is first (https://encoding.spec.whatwg.org/#shared-utf-16-decoder). A mark that it
    keeps is given out, as ``BOM``.
    """

    __slots__ = ("_begin", "_decoder", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        # The first bytes, until there are as many as a mark has.
        self._begin = b""
        self._decoder: codecs.IncrementalDecoder | None = None
        if name not in _ORDERED:
            self._decoder = codecs.getincrementaldecoder(name)("replace")

    def decode(self, data: bytes, final: bool = False) -> str:
        """Return what *data* ends; of *final* ones, all that is left."""
        if self._decoder is None:
            data = self._begin + data
            mark = _ORDERED[self._name]
            if len(data) < len(mark) and not final:
                self._begin = data
                return ""
            order = "be" if data.startswith(mark) else "le"
            self._decoder = codecs.getincrementaldecoder(f"{self._name}-{order}")("replace")
        return self._decoder.decode(data, final)
