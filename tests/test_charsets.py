"""Charsets: labels, decoders and declarations, as the standards of browsers say."""

from __future__ import annotations

import codecs
import hashlib
import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttpconn.client.content.charsets import charset_of, find_charset, stated_charset
from aiohttpconn.client.content.labels import check_label, codec_of
from aiohttpconn.client.content.text import TextDecoder

# ------------------------------------------------------------------------------- labels

# https://encoding.spec.whatwg.org/#names-and-labels, by Python's name for the charset.
LABELS = {
    "utf-8": "unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf-8 utf8 x-unicode20utf8",
    "cp866": "866 cp866 csibm866 ibm866",
    "iso8859-2": """csisolatin2 iso-8859-2 iso-ir-101 iso8859-2 iso88592 iso_8859-2
        iso_8859-2:1987 l2 latin2""",
    "iso8859-3": """csisolatin3 iso-8859-3 iso-ir-109 iso8859-3 iso88593 iso_8859-3
        iso_8859-3:1988 l3 latin3""",
    "iso8859-4": """csisolatin4 iso-8859-4 iso-ir-110 iso8859-4 iso88594 iso_8859-4
        iso_8859-4:1988 l4 latin4""",
    "iso8859-5": """csisolatincyrillic cyrillic iso-8859-5 iso-ir-144 iso8859-5 iso88595
        iso_8859-5 iso_8859-5:1988""",
    "iso8859-6": """arabic asmo-708 csiso88596e csiso88596i csisolatinarabic ecma-114 iso-8859-6
        iso-8859-6-e iso-8859-6-i iso-ir-127 iso8859-6 iso88596 iso_8859-6 iso_8859-6:1987""",
    "iso8859-7": """csisolatingreek ecma-118 elot_928 greek greek8 iso-8859-7 iso-ir-126 iso8859-7
        iso88597 iso_8859-7 iso_8859-7:1987 sun_eu_greek""",
    "iso8859-8": """csiso88598e csisolatinhebrew hebrew iso-8859-8 iso-8859-8-e iso-ir-138
        iso8859-8 iso88598 iso_8859-8 iso_8859-8:1988 visual csiso88598i iso-8859-8-i logical""",
    "iso8859-10": "csisolatin6 iso-8859-10 iso-ir-157 iso8859-10 iso885910 l6 latin6",
    "iso8859-13": "iso-8859-13 iso8859-13 iso885913",
    "iso8859-14": "iso-8859-14 iso8859-14 iso885914",
    "iso8859-15": "csisolatin9 iso-8859-15 iso8859-15 iso885915 iso_8859-15 l9",
    "iso8859-16": "iso-8859-16",
    "koi8-r": "cskoi8r koi koi8 koi8-r koi8_r",
    "koi8-u": "koi8-ru koi8-u",
    "mac-roman": "csmacintosh mac macintosh x-mac-roman",
    "cp874": "dos-874 iso-8859-11 iso8859-11 iso885911 tis-620 windows-874",
    "cp1250": "cp1250 windows-1250 x-cp1250",
    "cp1251": "cp1251 windows-1251 x-cp1251",
    "cp1252": """ansi_x3.4-1968 ascii cp1252 cp819 csisolatin1 ibm819 iso-8859-1 iso-ir-100
        iso8859-1 iso88591 iso_8859-1 iso_8859-1:1987 l1 latin1 us-ascii windows-1252 x-cp1252""",
    "cp1253": "cp1253 windows-1253 x-cp1253",
    "cp1254": """cp1254 csisolatin5 iso-8859-9 iso-ir-148 iso8859-9 iso88599 iso_8859-9
        iso_8859-9:1989 l5 latin5 windows-1254 x-cp1254""",
    "cp1255": "cp1255 windows-1255 x-cp1255",
    "cp1256": "cp1256 windows-1256 x-cp1256",
    "cp1257": "cp1257 windows-1257 x-cp1257",
    "cp1258": "cp1258 windows-1258 x-cp1258",
    "mac-cyrillic": "x-mac-cyrillic x-mac-ukrainian",
    "gb18030": """chinese csgb2312 csiso58gb231280 gb2312 gb_2312 gb_2312-80 gbk iso-ir-58 x-gbk
        gb18030""",
    "big5hkscs": "big5 big5-hkscs cn-big5 csbig5 x-x-big5",
    "euc_jp": "cseucpkdfmtjapanese euc-jp x-euc-jp",
    "iso2022_jp": "csiso2022jp iso-2022-jp",
    "cp932": "csshiftjis ms932 ms_kanji shift-jis shift_jis sjis windows-31j x-sjis",
    "cp949": """cseuckr csksc56011987 euc-kr iso-ir-149 korean ks_c_5601-1987 ks_c_5601-1989
        ksc5601 ksc_5601 windows-949""",
    "replacement": "csiso2022kr hz-gb-2312 iso-2022-cn iso-2022-cn-ext iso-2022-kr replacement",
    "utf-16-be": "unicodefffe utf-16be",
    "utf-16-le": "csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16 utf-16le",
    "x-user-defined": "x-user-defined",
}


@pytest.mark.parametrize("name", LABELS)
def test_every_label_of_the_standard_means_its_charset(name):
    for label in LABELS[name].split():
        assert codec_of(label) == name
        assert codec_of(f"\t {label.upper()}\n") == name
        assert stated_charset(f"text/html;charset={label}", b"") == name
    if name not in ("replacement", "x-user-defined"):
        assert codecs.lookup(name).name == name


def test_the_standard_has_228_labels():
    assert sum(len(labels.split()) for labels in LABELS.values()) == 228


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("latin_1", "cp1252"),
        ("iso-2022-jp-2", "iso2022_jp"),
        ("utf_16", "utf-16-le"),
        ("cp936", "gb18030"),
        ("uhc", "cp949"),
        ("cp437", "cp437"),
        ("utf-32", "utf-32"),
        ("utf-8-sig", "utf-8-sig"),
        ("shift_jis_2004", "shift_jis_2004"),
        # No charset of documents, or one that may hide markup.
        *((label, "") for label in ("utf-7", "hz", "iso2022_kr", "rot13", "hex", "x" * 99, "")),
    ],
)
def test_other_labels_are_those_of_python(label, name):
    assert codec_of(label) == name


def test_an_unknown_label_is_an_error_where_a_caller_gives_it():
    assert check_label("Latin1", "x") == "cp1252"
    with pytest.raises(LookupError) as caught:
        check_label("utf-9", "encoding")
    assert str(caught.value) == (
        "encoding is not the name of a charset: 'utf-9'; known are the labels of "
        "https://encoding.spec.whatwg.org and Python's codecs"
    )


# ----------------------------------------------------------------------------- decoders


def decode(name: str, data: bytes) -> str:
    return TextDecoder(name).decode(data, True)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# Digests of the standard's index-*.txt: the characters of 0x80 to 0xFF, U+FFFD where it has none.
SINGLE_BYTE = {
    "cp866": "2e3f89d51df1d1b9",
    "iso8859-2": "da4d3b2f8f06435d",
    "iso8859-3": "c1d9ce25d3762a52",
    "iso8859-4": "54140e6e75ba62ce",
    "iso8859-5": "5372981566958051",
    "iso8859-6": "2b716bc800e7bfe3",
    "iso8859-7": "8d94b0308cf418c9",
    "iso8859-8": "ade2c0790e86ddc8",
    "iso8859-10": "129e084c5bc4da60",
    "iso8859-13": "20a9bcd406361c31",
    "iso8859-14": "80050213abdb4257",
    "iso8859-15": "b9a4a2394ee58552",
    "iso8859-16": "c2bb18a77fe0cd90",
    "koi8-r": "25a9da95cf2db39e",
    "koi8-u": "79b0a6e96024f61a",
    "mac-roman": "94dcdcc19412eb48",
    "cp874": "4bb5efdc1a2832ec",
    "cp1250": "52665a0c49e77322",
    "cp1251": "153baf169d84e269",
    "cp1252": "9ba654722668eee9",
    "cp1253": "fa630499b7db169e",
    "cp1254": "612d01246f4b5106",
    "cp1255": "16925d6a9d5cff62",
    "cp1256": "ae636a90722c9d75",
    "cp1257": "abd51531663d43f8",
    "cp1258": "ded84db6d51e3143",
    "mac-cyrillic": "ab39a8a69bbbd008",
}


@pytest.mark.parametrize("name", SINGLE_BYTE)
def test_a_byte_is_the_character_of_the_standard_s_index(name):
    assert digest(decode(name, bytes(range(0x80, 0x100)))) == SINGLE_BYTE[name]
    assert decode(name, bytes(range(0x80))) == bytes(range(0x80)).decode("ascii")


def test_no_byte_of_latin_1_is_lost():
    text = decode("cp1252", bytes(range(256)))
    assert len(set(text)) == 256
    assert text[0x80] + text[0x81] + text[0xFF] == "€\x81ÿ"


def test_user_defined_bytes_are_private_characters():
    assert decode("x-user-defined", b"a\x80\xff") == "a\uf780\uf7ff"


def test_a_charset_that_browsers_refuse_is_one_replacement_character():
    decoder = TextDecoder("replacement")
    parts = [decoder.decode(b""), decoder.decode(b"a"), decoder.decode(b"b", True)]
    assert parts == ["", "\ufffd", ""]


def rows(leads: range, trails: list[int], start: bytes = b"", end: bytes = b"") -> list[bytes]:
    return [start + bytes((lead, trail)) + end for lead in leads for trail in trails]


TRAILS_94 = list(range(0xA1, 0xFF))

# Digests of all characters that pairs of bytes have in the standard's index. Left out: the two
# characters of Big5 and the one of EUC-JP that share Python's with another pair of bytes.
PAIRS = {
    "cp932": (
        rows(range(0x81, 0xFD), [*range(0x40, 0x7F), *range(0x80, 0xFD)]),
        "13dfc48f55064d44",
    ),
    "euc_jp": (rows(range(0xA1, 0xFF), TRAILS_94), "a217d8755e0832bc"),
    "iso2022_jp": (
        rows(range(0x21, 0x7F), list(range(0x21, 0x7F)), b"\x1b$B", b"\x1b(B"),
        "a217d8755e0832bc",
    ),
    "cp949": (rows(range(0x81, 0xFF), list(range(0x41, 0xFF))), "f49bf642f090c1ce"),
    "big5hkscs": (
        [
            pair
            for pair in rows(range(0x87, 0xFF), [*range(0x40, 0x7F), *TRAILS_94])
            if pair not in (b"\xa2\x41", b"\xa2\x42")
        ],
        "7d209328839b5e7e",
    ),
    "gb18030": (
        rows(range(0x81, 0xFF), [*range(0x40, 0x7F), *range(0x80, 0xFF)]),
        "85373408efe24c65",
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_of_bytes_is_the_character_of_the_standard_s_index(name):
    pairs, expected = PAIRS[name]
    found = [decode(name, pair) for pair in pairs]
    assert (
        digest("".join(text for text in found if len(text) == 1 and text != "\ufffd")) == expected
    )


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("gb18030", b"\x80\x81\x30\x81\x30\x81\x30\x84\x36", "€\x80¥"),
        ("gb18030", b"\xa6\xd9\xfe\x59", "︐龴"),
        ("euc_jp", b"\xad\xa1\x8e\xb1\x8f\xb0\xa1\xa1\xc1\xa1\xdd", "①ｱ丂～－"),
        ("iso2022_jp", b"\x1b$B-!!A\x1b(B<\x1b(J\\~\x1b(I1\x1b(B>", "①～<¥‾ｱ>"),
        (
            "iso2022_jp",
            b"\x1b$B0!\n0\x1b$@0!0!!\xff0!\x1b(Iz1\n",
            "亜\n\ufffd亜亜\ufffd\ufffd亜\ufffdｱ\ufffd",
        ),
        (
            "iso2022_jp",
            b"a\x1b$Cb\x1b" + b"(" * 20 + b"\x0e\x1b(",
            "a\ufffd$Cb\ufffd" + "(" * 20 + "\ufffd\ufffd(",
        ),
        ("cp932", b"\x87\x40\xb1\x5c\x7e\xf0\x40", "①ｱ\\~\ue000"),
        ("cp949", b"\x8c\x63\xb0\xa1", "똠가"),
        ("big5hkscs", b"\xa1\x45\xa3\xe1\x87\x7a\xfe\xdd\x88\x62", "‧€㡵砉Ê̄"),
        # The byte after a lead byte that has no such pair is read by itself.
        *((name, b"\x81<b>", "\ufffd<b>") for name in ("gb18030", "big5hkscs", "euc_jp", "cp932")),
        *((name, b"a\xff\xffb", "a\ufffd\ufffdb") for name in ("gb18030", "big5hkscs", "cp949")),
        *((name, b"a\xa4", "a\ufffd") for name in ("gb18030", "big5hkscs", "euc_jp", "cp949")),
    ],
)
def test_bytes_are_read_as_browsers_read_them(name, data, text):
    assert decode(name, data) == text


@given(st.sampled_from([*LABELS, "utf-32", "cp437"]), st.binary(max_size=12))
def test_a_text_does_not_depend_on_its_pieces(name, data):
    decoder = TextDecoder(name)
    pieces = [decoder.decode(data[i : i + 1]) for i in range(len(data))]
    assert "".join([*pieces, decoder.decode(b"", True)]) == decode(name, data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("cp1253", b"\xd2"),
        ("gb18030", b"\xff"),
        ("big5hkscs", b"\xa4"),
        ("replacement", b"x"),
        ("utf-32", b"x"),
    ],
)
def test_a_strict_decoder_replaces_nothing(name, data):
    with pytest.raises(UnicodeDecodeError):
        TextDecoder(name, "strict").decode(data, True)
    assert TextDecoder("gb18030", "strict").decode(b"\x80", True) == "€"


# ------------------------------------------------------------------------- declarations

# (bytes at the beginning, charset that they declare); "" is none.
DECLARED = [
    (b"<meta charset=koi8-r>", "koi8-r"),
    (b"<META/CHARSET = 'koi8-r' >", "koi8-r"),
    (
        b'<html lang=de>\n<head a="<meta charset=gbk>">\n<meta\n name=x\n charset="koi8-r"/>',
        "koi8-r",
    ),
    (b"<!-- <meta charset=gbk> --><meta charset=koi8-r>", "koi8-r"),
    (b"<!--><meta charset=koi8-r>", "koi8-r"),
    (b"<!-- <meta charset=gbk>", ""),
    (b"<!doctype html><meta charset=koi8-r>", "koi8-r"),
    (b"<?php <meta charset=koi8-r>", ""),
    (b"</meta charset=gbk><meta charset=koi8-r>", "koi8-r"),
    (b"<metadata charset=gbk><meta charset=koi8-r>", "koi8-r"),
    (b"<p charset=gbk><meta charset=koi8-r>", "koi8-r"),
    (b"<p title='<meta charset=gbk>'><meta charset=koi8-r>", "koi8-r"),
    (b"<meta name=charset content='charset=gbk'><meta charset=koi8-r>", "koi8-r"),
    (b"<meta name=description content='text/html; charset=gbk'>", ""),
    (b"<meta data-charset=gbk>", ""),
    (b"<meta charset=utf-9><meta charset=koi8-r>", "koi8-r"),
    (b"<meta charset='><meta charset=koi8-r>", ""),
    (b"<meta charset=><meta charset=koi8-r>", "koi8-r"),
    (b"<meta charset><meta charset=koi8-r>", "koi8-r"),
    (b"<meta charset=koi8-r charset=gbk>", "koi8-r"),
    (b"<meta charset=koi8-r", ""),
    (b"< meta charset=koi8-r>", ""),
    (b"<meta http-equiv=Content-Type content='text/html; charset=koi8-r'>", "koi8-r"),
    (b"<meta content='text/html; charset = \"koi8-r\"' http-equiv=content-type>", "koi8-r"),
    (b'<meta http-equiv="content-type" content="charset charset=koi8-r;x">', "koi8-r"),
    (b"<meta http-equiv=content-type content=text/html>", ""),
    (b"<meta http-equiv=content-type><meta content='text/html; charset=gbk'>", ""),
    (b"<meta http-equiv=refresh content='text/html; charset=gbk'>", ""),
    (b"<meta charset=utf-16>", "utf-8"),
    (b"<meta charset=x-user-defined>", "cp1252"),
    (b"<meta charset=iso-2022-kr>", "replacement"),
    (b"<?xml version='1.0' encoding=\"koi8-r\"?>", "koi8-r"),
    (b"<?xml version='1.0' encoding='utf-16'?>", "utf-8"),
    (b"<?xml version='1.0' encoding='utf-9'?>", ""),
    ("<?xml".encode("utf-16-le"), "utf-16-le"),
    ("<?xml".encode("utf-16-be"), "utf-16-be"),
    (b"=" * 1003 + b"<meta charset=koi8-r>", "koi8-r"),
    (b"=" * 1004 + b"<meta charset=koi8-r>", ""),
    (b"<" * 1024, ""),
    (b"<a " * 300 + b">" * 300, ""),
]


@pytest.mark.parametrize(("begin", "name"), DECLARED)
def test_a_document_declares_its_charset(begin, name):
    assert charset_of("text/html", begin, "iso-8859-16") == (name or "iso8859-16")
    if begin.startswith(b"<"):
        assert charset_of("", begin, "utf-8") == (name or "utf-8")
    assert charset_of("text/plain", begin, "utf-8") == "utf-8"
    assert charset_of("text/html; charset=cp1251", begin, "utf-8") == "cp1251"
    assert charset_of("text/html; charset=cp1251", b"\xef\xbb\xbf" + begin, "gbk") == "utf-8"


@pytest.mark.parametrize("kind", ["text/html", "application/xml", "application/xhtml+xml", ""])
@pytest.mark.parametrize(("begin", "name"), DECLARED)
def test_a_stream_finds_the_charset_of_the_whole(begin, name, kind):
    whole = charset_of(kind, begin, "iso-8859-16")
    for end in itertools.chain(range(min(len(begin), 60)), [len(begin)]):
        found = find_charset(kind, begin[:end], "iso-8859-16")
        assert found in (None, whole)
    assert find_charset(kind, begin + b" " * 1024, "iso-8859-16") == charset_of(
        kind, begin + b" " * 1024, "iso-8859-16"
    )


def test_xml_is_read_as_xml_and_html_as_html():
    both = b"<?xml version='1.0' encoding='big5'?><meta charset='koi8-r'/>"
    assert charset_of("image/svg+xml", both, "utf-8") == "big5hkscs"
    assert charset_of("application/xhtml+xml", both, "utf-8") == "koi8-r"
    assert charset_of("", both, "utf-8") == "koi8-r"


@pytest.mark.parametrize(
    ("begin", "found"),
    [
        (b"", None),
        (b"\xef\xbb", None),
        (b"\xff", None),
        (b"\xfe", None),
        (b"\xff\xfe", "utf-16-le"),
        (b"\xef\xbb\xbf", "utf-8"),
        (b"\xef\xbbx", "koi8-r"),
        (b"a", "koi8-r"),
    ],
)
def test_a_byte_order_mark_is_waited_for(begin, found):
    assert find_charset("text/plain; charset=koi8-r", begin, "utf-8") == found


def test_what_begins_with_no_tag_is_no_document_without_a_type():
    assert find_charset("", b"1\n", "koi8-r") == "koi8-r"
    assert find_charset("", b" \n", "koi8-r") is None
    assert find_charset("", b" <", "koi8-r") is None
    assert find_charset("text/html", b"1\n", "koi8-r") is None
    assert charset_of("", b"1 <meta charset=gbk>", "koi8-r") == "koi8-r"


def test_a_header_s_charset_is_searched_in_linear_time():
    start = time.process_time()
    assert stated_charset(f"text/html; charset={' ' * 20_000}\xe9", b"") == ""
    # Less than a millisecond; what is quadratic takes seconds.
    assert time.process_time() - start < 1


def test_a_header_s_charset_may_have_any_quotes():
    for value in (
        "koi8-r",
        '"koi8-r"',
        "'koi8-r'",
        " koi8-r ; x=y",
        '"koi8-r',
        "koi8-r, text/html",
    ):
        assert stated_charset(f"text/html; a=b ;Charset ={value}", b"") == "koi8-r"
    for kind in ("text/html; charset=", "text/html; charset=utf-9", "charset=koi8-r", ""):
        assert stated_charset(kind, b"") == ""
