"""Text: bytes decoded as the WHATWG Encoding standard says, whole or as they arrive.

Python's codecs do most of the work. This module mends those that read some bytes differently from
the standard's indexes (https://encoding.spec.whatwg.org/#indexes), or not at all: no byte that has
a meaning there becomes U+FFFD. Layer: client; pure.
"""

from __future__ import annotations

import codecs
import functools
import re
from collections.abc import Callable
from typing import NamedTuple

from .labels import ISO_2022_JP, MULTI_BYTE, REPLACEMENT, USER_DEFINED, is_standard

__all__ = ["BOM", "TextDecoder"]

BOM = "\ufeff"
"""The byte order mark as a character; at the beginning of a text it is not part of it."""

_UNKNOWN = "\ufffd"


class TextDecoder:
    """Decode a text as it arrives. *name* is a result of ``codec_of``.

    Bytes without a meaning become U+FFFD, or raise ``UnicodeDecodeError`` if *errors* is
    ``"strict"``. A byte order mark is returned as ``BOM``.
    """

    __slots__ = ("_decode",)

    def __init__(self, name: str, errors: str = "replace") -> None:
        self._decode: Callable[[bytes, bool], str]
        if name == REPLACEMENT:
            self._decode = _Replacement(errors).decode
        elif name == ISO_2022_JP:
            self._decode = _ISO2022JP(errors).decode
        elif name == "utf-32":
            self._decode = _UTF32(errors).decode
        elif is_standard(name) and name not in MULTI_BYTE:
            table = _table(name)
            self._decode = lambda data, final: codecs.charmap_decode(data, errors, table)[0]
        elif name in _MENDED:
            self._decode = _mended(name, errors)
        else:
            self._decode = codecs.getincrementaldecoder(name)(errors).decode

    def decode(self, data: bytes, final: bool = False) -> str:
        """Return the characters that *data* completes; if *final*, all the rest."""
        return self._decode(data, final)


class _Replacement:
    """The ``replacement`` charset: U+FFFD for all of the text."""

    def __init__(self, errors: str) -> None:
        self._errors = errors
        self._begun = False

    def decode(self, data: bytes, final: bool) -> str:
        if self._begun or not data:
            return ""
        if self._errors == "strict":
            why = "a browser reads no text in this charset"
            raise UnicodeDecodeError(REPLACEMENT, data, 0, len(data), why)
        self._begun = True
        return _UNKNOWN


class _UTF32:
    """UTF-32: without a mark little-endian. Python's own decoder needs a mark."""

    def __init__(self, errors: str) -> None:
        self._errors = errors
        # The first bytes, until they are enough for a mark.
        self._begin = b""
        self._decoder: codecs.IncrementalDecoder | None = None

    def decode(self, data: bytes, final: bool) -> str:
        if self._decoder is None:
            data = self._begin + data
            if len(data) < 4 and not final:
                self._begin = data
                return ""
            order = "be" if data.startswith(codecs.BOM_UTF32_BE) else "le"
            self._decoder = codecs.getincrementaldecoder(f"utf-32-{order}")(self._errors)
        return self._decoder.decode(data, final)


class _ISO2022JP:
    """ISO-2022-JP (https://encoding.spec.whatwg.org/#iso-2022-jp-decoder).

    Python's own decoder lacks half-width katakana and some kanji, and fails on an escape sequence
    that does not end. Unlike in browsers, the end of a line among kanji is kept.
    """

    def __init__(self, errors: str) -> None:
        self._errors = errors
        self._set = b"(B"
        # The beginning of an escape sequence or of a kanji.
        self._begin = b""
        self._kanji = TextDecoder("euc_jp", errors)

    def decode(self, data: bytes, final: bool) -> str:
        data = self._begin + data
        self._begin = b""
        parts: list[str] = []
        pos = 0
        while pos < len(data):
            escape = data.find(b"\x1b", pos)
            end = len(data) if escape < 0 else escape
            text, taken = self._characters(data[pos:end])
            parts.append(text)
            if escape < 0:
                self._begin = data[pos + taken :]
                break
            if pos + taken < end:
                parts.append(self._invalid(data, pos + taken))
            pos = escape + 1
            name = data[pos : pos + 2]
            if name in _ESCAPES:
                self._set = name
                pos += 2
            elif len(name) < 2 and not final and any(e.startswith(name) for e in _ESCAPES):
                self._begin = data[escape:]
                break
            else:
                parts.append(self._invalid(data, escape))
        if final and self._begin:
            parts.append(self._invalid(self._begin, 0))
        return "".join(parts)

    def _characters(self, data: bytes) -> tuple[str, int]:
        """Return the characters of *data*, which has no escape, and how many bytes they have."""
        if self._set not in (b"$@", b"$B"):
            table = _ISO_2022_JP_SETS[self._set]
            return codecs.charmap_decode(data, self._errors, table)
        parts: list[str] = []
        end = 0
        for run in _KANJI_OR_NOT.finditer(data):
            pairs, other = run[1], run[2]
            if other is not None:
                parts.append(codecs.charmap_decode(other, self._errors, _LINE_ENDS)[0])
            elif len(pairs) % 2 and run.end() == len(data):
                return "".join([*parts, self._decode_kanji(pairs[:-1])]), len(data) - 1
            elif len(pairs) % 2:
                parts += (self._decode_kanji(pairs[:-1]), self._invalid(pairs, len(pairs) - 1))
            else:
                parts.append(self._decode_kanji(pairs))
            end = run.end()
        return "".join(parts), end

    def _decode_kanji(self, pairs: bytes) -> str:
        data = pairs.translate(_HIGH_BITS)
        text = self._kanji.decode(data, True)
        if _UNKNOWN in text:
            # Here a pair without a meaning is one error, in EUC-JP it may be two.
            text = "".join([_kanji(data[i : i + 2]) for i in range(0, len(data), 2)])
        return text

    def _invalid(self, data: bytes, pos: int) -> str:
        if self._errors == "strict":
            raise UnicodeDecodeError(ISO_2022_JP, data, pos, pos + 1, "invalid sequence")
        return _UNKNOWN


_ASCII = "".join("\ufffe" if i in (0x0E, 0x0F) else chr(i) for i in range(0x80))
_ISO_2022_JP_SETS = {
    b"(B": _ASCII,
    b"(J": _ASCII.translate({0x5C: "\xa5", 0x7E: "\u203e"}),
    b"(I": "\ufffe" * 0x21 + "".join(map(chr, range(0xFF61, 0xFFA0))),
}
_ESCAPES = (*_ISO_2022_JP_SETS, b"$@", b"$B")
_KANJI_OR_NOT = re.compile(rb"([\x21-\x7e]++)|([^\x21-\x7e]++)")
_LINE_ENDS = "".join(chr(i) if i in (0x0A, 0x0D) else "\ufffe" for i in range(0x20))
_HIGH_BITS = bytes(i | 0x80 for i in range(256))


@functools.cache
def _kanji(pair: bytes) -> str:
    """Return the character of one *pair* of EUC-JP. There are 94 * 94 of them."""
    char = TextDecoder("euc_jp").decode(pair, True)
    return char if len(char) == 1 else _UNKNOWN


# ---------------------------------------------------------------------- one byte, one character

# Python's koi8-u is RFC 2319's, the standard's KOI8-U has two letters of Belarusian.
_OTHER_BYTES = {
    "koi8-u": {0xAE: "\u045e", 0xBE: "\u040e"},
    "cp1255": {0xCA: "\u05ba"},
}


@functools.cache
def _table(name: str) -> str:
    """Return the 256 characters of a charset; U+FFFE for bytes without a meaning."""
    if name == USER_DEFINED:
        return "".join(map(chr, [*range(0x80), *range(0xF780, 0xF800)]))
    changed = _OTHER_BYTES.get(name, {})
    table = ""
    for byte, char in enumerate(bytes(range(256)).decode(name, "replace")):
        if char == _UNKNOWN:
            # The windows charsets have control characters where Microsoft's tables have nothing.
            char = chr(byte) if byte < 0xA0 else "\ufffe"
        table += changed.get(byte, char)
    return table


# ---------------------------------------------------------------------- several bytes


class _Mend(NamedTuple):
    """The difference between a codec of Python and the standard's charset.

    *find* returns the character that begins some bytes which the codec does not know, and the
    number of its bytes; *changed* has the characters that the codec returns for others.
    """

    find: Callable[[bytes], tuple[str, int] | None]
    changed: dict[str, str]


def _mended(name: str, errors: str) -> Callable[[bytes, bool], str]:
    """Return the ``decode`` of Python's incremental decoder *name*, mended."""
    find, changed = _MENDED[name]

    def on_error(exc: UnicodeError) -> tuple[str, int]:
        assert isinstance(exc, UnicodeDecodeError), "the handler is for decoders alone"
        found = find(exc.object[exc.start : exc.start + 2])
        if found is not None:
            return found[0], exc.start + found[1]
        if errors == "strict":
            raise exc
        return _UNKNOWN, exc.end

    # The registry of error handlers belongs to the whole process.
    handler = f"aiohttpconn.{name}.{errors}"
    codecs.register_error(handler, on_error)
    decoder = codecs.getincrementaldecoder(name)(handler)
    pattern = re.compile(f"[{''.join(changed)}]")

    def decode(data: bytes, final: bool) -> str:
        text = decoder.decode(data, final)
        # Most texts have none of them, and a search is faster than str.translate().
        return pattern.sub(lambda found: changed[found[0]], text) if text else text

    return decode


def _find_gb18030(data: bytes) -> tuple[str, int] | None:
    return ("\u20ac", 1) if data[:1] == b"\x80" else None


def _find_big5(data: bytes) -> tuple[str, int] | None:
    char = _big5_characters().get(data)
    return None if char is None else (char, 2)


@functools.lru_cache(4096)
def _find_jis(data: bytes) -> tuple[str, int] | None:
    """Find characters of NEC and IBM, which Python has in Shift_JIS: one index serves both."""
    row, cell = (byte - 0xA1 for byte in data) if len(data) == 2 else (-1, -1)
    if not (0 <= row < 94 and 0 <= cell < 94):
        return None
    lead = row // 2 + (0x81 if row < 62 else 0xC1)
    trail = cell + 0x9F if row % 2 else cell + (0x40 if cell < 63 else 0x41)
    try:
        return bytes((lead, trail)).decode("cp932"), 2
    except UnicodeDecodeError:
        return None


# Characters of Microsoft's table where Python has those of the standard JIS X 0208.
_JIS_CHANGED = {
    "\u301c": "\uff5e",
    "\u2016": "\u2225",
    "\u2212": "\uff0d",
    "\xa2": "\uffe0",
    "\xa3": "\uffe1",
    "\xac": "\uffe2",
}

# GB 18030-2022: characters that had private code points before.
_GB_CHANGED = dict(
    zip(
        "\ue5e5\ue7c7\ue78d\ue78e\ue78f\ue790\ue791\ue792\ue793\ue794\ue795\ue796"
        "\ue81e\ue826\ue82b\ue82c\ue832\ue843\ue854\ue864",
        "\u3000\u1e3f\ufe10\ufe12\ufe11\ufe13\ufe14\ufe15\ufe16\ufe17\ufe18\ufe19"
        "\u9fb4\u9fb5\u9fb6\u9fb7\u9fb8\u9fb9\u9fba\u9fbb",
        strict=True,
    )
)

_BIG5_CHANGED = {
    "\u2022": "\u2027",
    "\uff64": "\ufe51",
    "\u203e": "\xaf",
    "\u223c": "\uff5e",
    "\u2641": "\u2295",
    "\u2609": "\u2299",
    "\xa5": "\uffe5",
    "\xa2": "\uffe0",
    "\xa3": "\uffe1",
}

_MENDED = {
    "gb18030": _Mend(_find_gb18030, _GB_CHANGED),
    "big5hkscs": _Mend(_find_big5, _BIG5_CHANGED),
    "euc_jp": _Mend(_find_jis, _JIS_CHANGED),
}

# Characters of the standard's Big5 index that Python's big5hkscs lacks: HKSCS-2008, and symbols
# and variants of others. Each run of characters follows the two bytes of its first one.
_BIG5_EXTRA = (
    "877a㡵𡵓𣚞𦀡㻬𥣞㫵竼龗𤅡𨤍𣇪𠪊𣉞䌊蒄龖鐯䤰蘓墖靊鈘秐稲晠権袝瑌篅枂稬剏遆 "
    "87be㓦珄𥶹瓆鿇垳䤯呌䄱𣚎堘穲𧭥讏䚮𦺈䆁𥶙箮𢒼鿈𢓁𢓉𢓌鿉蔄𣖻䂴鿊䓡𪷿拁灮鿋 "
    "8e69箸 8e6f簆 8e7e糎 8eab緒 8eb4縝 8ecd者 8ed0耨 8f57菁 8f69蒨 8f6e萏 "
    "8fcb覦覩 8ffe起 906d都 907a銹 90dc靜 90f1響 91bf鼖 9244蔃 92af兙兛兝兞 "
    "92c8鍮 92d1瑹 9447浧 94ca禛 95d9邗 9644靝 96ed瀞 96fc嬨 9b76爁 9b78矗 "
    "9b7b纇 9bc6駖 9bde釔 9bec惞 9bf6澶 9c42輶 9c53侻 9c62營 9c68鄄 9c6b鷰 "
    "9c77菏 9cbc尐秣 9cd0婧 9d57輋 9d5a筑 9dc4拐 9ea9恢 9eef痹 9efd汊 9f60鬮 "
    "9f66鼗 9fcb僭 9fd8弌 a063蠏 a077拎 a0d5瑨 a0df煢 a0e4牐 "
    "a3c0␀␁␂␃␄␅␆␇␈␉␊␋␌␍␎␏␐␑␒␓␔␕␖␗␘␙␚␛␜␝␞␟␡€ c6cf廴 c6d3无 c6d5癶 "
    "c6d7隶 c6de〃仝 fa5f倩 fa66偽 fabd包 fac5卄 fad5卿 fb48嘅 fbb8婷 fbf3幵 "
    "fbf9廐 fc4f彘 fc6c悤 fcb9撐 fce2晴 fcf1杞 fdb7沜渝 fdbb港 fdf1煮 fe52猪 "
    "fe6f瑜 feaa瓩 fedd砉 "
)


@functools.cache
def _big5_characters() -> dict[bytes, str]:
    found: dict[bytes, str] = {}
    for run in _BIG5_EXTRA.split():
        # A row has the second bytes 0x40 to 0x7E and 0xA1 to 0xFE.
        lead, trail = bytes.fromhex(run[:4])
        for char in run[4:]:
            found[bytes((lead, trail))] = char
            trail = 0xA1 if trail == 0x7E else trail + 1
    return found
