"""Charsets: find that of a document, from the beginning of its bytes. Layer: client; pure.

In this order: a byte order mark, the Content-Type field, the declaration in HTML or XML, the
default (https://html.spec.whatwg.org/#determining-the-character-encoding).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from typing import TypeAlias

from ...hooks import at_once, check_hook
from .labels import USER_DEFINED, check_label, codec_of

__all__ = [
    "DEFAULT_ENCODING",
    "DefaultEncoding",
    "charset_of",
    "check_default",
    "find_charset",
    "header_charset",
    "stated_charset",
]

DefaultEncoding: TypeAlias = "str | Callable[[bytes], str | None]"
"""The charset of what declares none: its name, or a function that gets the bytes."""

DEFAULT_ENCODING = "utf-8"

DECLARED_WITHIN = 1024
"""Bytes at a document's beginning in which HTML requires the declaration of its charset."""

_LABEL = r"[A-Za-z0-9_.:+\-]{1,40}+"
_HEADER = re.compile(rf"(?i);[\t ]*+charset[\t ]*+=[\t ]*+[\"']?[\t ]*+({_LABEL})")
_XML = re.compile(
    rb"<\?xml[^>]{1,200}?encoding[\t\n\r ]{0,99}+=[\t\n\r ]{0,99}+[\"'](%b)[\"']" % _LABEL.encode()
)

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def charset_of(content_type: str, content: bytes, default: DefaultEncoding) -> str:
    """Return ``codec_of`` the charset of a document, whose whole bytes are *content*."""
    name = find_charset(content_type, content, default, whole=True)
    assert name is not None, "there are no more bytes to wait for"
    return name


def find_charset(
    content_type: str, begin: bytes, default: DefaultEncoding, *, whole: bool = False
) -> str | None:
    """Return ``codec_of`` the charset of a document that begins with *begin*.

    None means that the next bytes may tell, unless *begin* is the *whole* document. Raises
    ``LookupError`` for an unknown name from *default*.
    """
    more = not whole
    if more and any(bom.startswith(begin) and bom != begin for bom, _ in _BOMS):
        return None
    if name := stated_charset(content_type, begin):
        return name
    more = more and len(begin) < DECLARED_WITHIN
    kind = content_type.lower()
    is_xml = "xml" in kind
    if is_xml or "html" in kind or (not kind and begin.lstrip()[:1] in (b"<", b"")):
        if name := _declared(begin[:DECLARED_WITHIN], is_xml and "html" not in kind, more):
            return name
        if more:
            return None
    if isinstance(default, str):
        return check_label(default, "default_encoding")
    if more:
        return None
    label = at_once("default_encoding", default(begin))
    return DEFAULT_ENCODING if label is None else check_label(label, "default_encoding's result")


def stated_charset(content_type: str, begin: bytes) -> str:
    """Return the charset of a byte order mark, or of a Content-Type field, or ""."""
    name = header_charset(content_type)
    if name.startswith("utf-32"):
        return name  # its own mark begins with that of UTF-16
    for bom, marked in _BOMS:
        if begin.startswith(bom):
            return marked
    return name


def header_charset(content_type: str) -> str:
    """Return the charset of a Content-Type field, "" if it is unknown or there is none."""
    match = _HEADER.search(content_type)
    return codec_of(match[1]) if match is not None else ""


def check_default(default: object) -> None:
    """Raise ``LookupError`` or ``TypeError`` for a ``default_encoding`` that cannot be one."""
    if callable(default):
        check_hook("default_encoding", default, may_await=False)
    else:
        check_label(default, "default_encoding")  # type: ignore[arg-type]


# ------------------------------------------------------------------------- declarations

# https://html.spec.whatwg.org/#prescan-a-byte-stream-to-determine-its-encoding
_TAG = re.compile(rb"</?[A-Za-z][^\t\n\f\r />]*+")
_ATTRIBUTE = re.compile(
    rb"[\t\n\f\r /]*+(?:([^\t\n\f\r />][^\t\n\f\r />=]*+)(?:[\t\n\f\r ]*+(=)[\t\n\f\r ]*+)?)?"
)
_VALUE = re.compile(rb"\"([^\"]*+)\"|'([^']*+)'|([^\t\n\f\r >\"'][^\t\n\f\r >]*+)|(?=>)")

# https://html.spec.whatwg.org/#extracting-character-encodings-from-meta-elements
_IN_CONTENT = re.compile(
    rb"(?i)charset[\t\n\f\r ]*+=[\t\n\f\r ]*+"
    rb"(?:\"([^\"]*+)\"|'([^']*+)'|([^\"'\t\n\f\r ;][^\t\n\f\r ;]*+))"
)


def _declared(begin: bytes, is_xml: bool, more: bool) -> str:
    """Return the charset that HTML or XML declares at its beginning, or "".

    In HTML, an XML declaration counts only if there are no *more* bytes in which a ``<meta>`` may
    come.
    """
    # Without a mark, UTF-16 shows in an XML declaration.
    if begin.startswith(b"<\0?\0x\0"):
        return "utf-16-le"
    if begin.startswith(b"\0<\0?\0x"):
        return "utf-16-be"
    declaration = _XML.match(begin)
    in_xml = _readable(declaration[1]) if declaration is not None else ""
    return (is_xml and in_xml) or _prescan(begin) or ("" if more else in_xml)


def _readable(label: bytes) -> str:
    """Return the charset of a declaration, which was itself read as ASCII."""
    name = codec_of(label.decode("latin-1"))
    if name.startswith(("utf-16", "utf-32")):
        return "utf-8"
    return "cp1252" if name == USER_DEFINED else name


def _prescan(begin: bytes) -> str:
    """Return the charset of the first ``<meta>`` that declares a known one, or ""."""
    pos = begin.find(b"<")
    while pos >= 0:
        if begin.startswith(b"<!--", pos):
            pos = begin.find(b"-->", pos + 2)  # "<!-->" is a whole comment
            if pos < 0:
                break
        elif tag := _TAG.match(begin, pos):
            attributes, pos = _attributes(begin, tag.end())
            if tag[0].lower() == b"<meta" and (name := _meta_charset(attributes)):
                return name
            if pos < 0:
                break
        elif begin.startswith((b"<!", b"</", b"<?"), pos):
            pos = begin.find(b">", pos)
            if pos < 0:
                break
        else:
            pos += 1
        pos = begin.find(b"<", pos)
    return ""


def _attributes(data: bytes, pos: int) -> tuple[dict[bytes, bytes], int]:
    """Return the attributes of a tag from *pos* on, and their end; -1 if *data* ends before."""
    found: dict[bytes, bytes] = {}
    while True:
        attribute = _ATTRIBUTE.match(data, pos)
        assert attribute is not None, "the pattern matches nothing, too"
        name, pos = attribute[1], attribute.end()
        if pos >= len(data):
            return {}, -1
        if name is None:
            return found, pos
        value = b""
        if attribute[2]:
            match = _VALUE.match(data, pos)
            if match is None or match.end() >= len(data):
                return {}, -1
            value, pos = match[match.lastindex or 0], match.end()
        found.setdefault(name.lower(), value.lower())


def _meta_charset(attributes: dict[bytes, bytes]) -> str:
    """Return the charset that a ``<meta>`` with *attributes* declares, or ""."""
    if b"charset" in attributes:
        return _readable(attributes[b"charset"])
    if attributes.get(b"http-equiv") == b"content-type":
        match = _IN_CONTENT.search(attributes.get(b"content", b""))
        if match is not None:
            return _readable(match[match.lastindex or 0])
    return ""
