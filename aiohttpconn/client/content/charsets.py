"""Charsets: find that of a document, decode text as it arrives. Pure. Layer: client."""

from __future__ import annotations

import codecs
import re

__all__ = ["BOM", "TextDecoder", "charset_of", "header_charset"]

META_BYTES = 1024
"""Bytes at a document's beginning in which HTML requires the declaration of its charset."""

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

# Charsets with a byte order, and the byte order mark of big endian.
_ORDERED = {"utf-16": codecs.BOM_UTF16_BE, "utf-32": codecs.BOM_UTF32_BE}

BOM = "\ufeff"
"""The byte order mark as a character; at the beginning of a text it is not part of it."""

# Browsers read these names so: https://encoding.spec.whatwg.org/#names-and-labels
_LABELS = {"iso8859-1": "cp1252", "ascii": "cp1252"}

# Codecs of Python that are not charsets of documents: some are slow, one hides markup.
_NO_CHARSETS = frozenset(
    {"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape", "utf-7"}
)


def charset_of(content_type: str, content: bytes) -> str:
    """Return Python's name for a document's charset.

    The charset of the header, of a byte order mark, or of an HTML or XML declaration; else UTF-8.
    """
    if name := header_charset(content_type):
        return name
    for bom, name in _BOMS:
        if content.startswith(bom):
            return name
    if not content_type or _MARKUP.search(content_type):
        declared = _META.search(content[:META_BYTES]) or _XML.match(content[:META_BYTES])
        if declared is not None and (name := _codec(declared[1].decode("ascii"))):
            # A document that declares its charset in ASCII is neither UTF-16 nor UTF-32.
            return "utf-8" if name.startswith(("utf-16", "utf-32")) else name
    return "utf-8"


def header_charset(content_type: str) -> str:
    """Return the charset of a Content-Type field, "" if Python does not know it."""
    match = _CHARSET.search(content_type)
    return _codec(match[1]) if match is not None else ""


def _codec(name: str) -> str:
    """Return Python's name for a charset, "" if it is unknown or refused."""
    try:
        found = codecs.lookup(name).name
        b" ".decode(found, "replace")  # LookupError unless it is a text encoding
    except (LookupError, ValueError):
        return ""
    return "" if found in _NO_CHARSETS else _LABELS.get(found, found)


class TextDecoder:
    """Decode a text as it arrives, from Python's charset *name*; invalid bytes become U+FFFD.

    Python's own decoders of UTF-16 and UTF-32 need a byte order mark. This one does not: without
    a mark the text is little-endian (https://encoding.spec.whatwg.org/#shared-utf-16-decoder). A
    mark is returned as ``BOM``.
    """

    __slots__ = ("_begin", "_decoder", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        # The first bytes, until they are enough for a mark.
        self._begin = b""
        self._decoder: codecs.IncrementalDecoder | None = None
        if name not in _ORDERED:
            self._decoder = codecs.getincrementaldecoder(name)("replace")

    def decode(self, data: bytes, final: bool = False) -> str:
        """Return the characters that *data* completes; if *final*, all the rest."""
        if self._decoder is None:
            data = self._begin + data
            mark = _ORDERED[self._name]
            if len(data) < len(mark) and not final:
                self._begin = data
                return ""
            order = "be" if data.startswith(mark) else "le"
            self._decoder = codecs.getincrementaldecoder(f"{self._name}-{order}")("replace")
        return self._decoder.decode(data, final)
