"""A slow, plain model of a response as this package means to read it: ``docs/topics/framing.md``.

It was written from these rules and not from the code under test: line by line, with other patterns,
and on whole responses only. Tests compare the fast reader with it, and tell by it which of the
differences from ``http.client`` are meant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BAD_FIELDS", "FIELD_LINE", "Head", "Response", "dechunk"]

FIELD_LINE = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:")
FRAMING_NAME = re.compile("content-length|transfer-encoding", re.I)


@dataclass
class Head:
    """A response's head, in text. All readers agree about where its lines end."""

    start: str
    fields: list[str]
    bare_lf: bool = False
    """Whether one of its lines ended without CR."""
    cr_at_end: bool = False
    """Whether one of its lines had a CR before its end."""

    STATUS_LINE = re.compile(r"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?\r?")
    CONTROLS = re.compile(r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]")

    def __post_init__(self) -> None:
        end = "\r" if self.start.endswith("\r") else ""
        self.start = without_cr_at_end(self.start.removesuffix("\r")) + end
        clean = self.start[:13] + self.CONTROLS.sub("", self.start[13:])
        match = self.STATUS_LINE.fullmatch(clean)
        self.minor, self.status = (match[1], int(match[2])) if match else ("", 0)

    def __bytes__(self) -> bytes:
        lines = [self.start.removesuffix("\r"), *self.fields, "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def values(self, name: str) -> list[str]:
        """Return the values of the field *name* on lines that are fields, unfolded."""
        lines = [line.partition(":") for line in self.unfolded() if FIELD_LINE.match(line)]
        return [value.strip(" \t") for key, _, value in lines if key.lower() == name]

    def unfolded(self) -> list[str]:
        """Return the lines of the fields, each fold replaced by one space."""
        lines: list[str] = []
        for line in self.fields:
            if line[0] in " \t" and lines:
                lines[-1] = " ".join((lines[-1].rstrip(" \t"), line.strip(" \t")))
            else:
                lines.append(line)
        return lines

    def members(self, name: str) -> list[str]:
        return [m.strip(" \t").lower() for v in self.values(name) for m in v.split(",")]

    def without(self, *names: str) -> Head:
        start = tuple(f"{name}:" for name in names)
        return Head(self.start, [f for f in self.unfolded() if not f.lower().startswith(start)])

    def dropped(self) -> Iterator[tuple[int, str]]:
        """Iterate over (number, line) of the lines that are neither a field nor the fold of one."""
        in_field = False
        for number, line in enumerate(self.fields):
            if line[0] not in " \t":
                in_field = bool(FIELD_LINE.match(line))
            if not in_field:
                yield number, line


@dataclass
class Response:
    """A whole response: its 1xx heads, its head, and the bytes after it. *heads* may be cut."""

    data: bytes
    method: str = "GET"
    heads: list[Head] = field(default_factory=list)
    rest: bytes = b""
    whole: bool = False

    def __post_init__(self) -> None:
        self.rest = self.data
        while not self.whole and self.rest:
            lines = re.match(rb"([^\n]*)\n((?:(?!\r?\n)[^\n]*\n)*)\r?\n", self.rest)
            if lines is None:
                start = self.rest.partition(b"\n")[0] if b"\n" in self.rest else b""
                self.heads.append(Head(start.decode("latin-1"), []))
                return
            fields = lines[2].decode("latin-1").split("\n")[:-1]
            fields = [without_cr_at_end(line.removesuffix("\r")) for line in fields]
            bare_lf = re.search(rb"(?<!\r)\n", lines[0]) is not None
            cr_at_end = b"\r\r\n" in lines[0]
            self.heads.append(Head(lines[1].decode("latin-1"), fields, bare_lf, cr_at_end))
            self.rest = self.rest[lines.end() :]
            self.whole = not 100 <= self.head.status < 200 or self.head.status == 101

    @property
    def head(self) -> Head:
        return self.heads[-1]

    @property
    def no_body(self) -> bool:
        return self.head.status in (204, 304) or self.method == "HEAD"

    @property
    def has_both(self) -> bool:
        """Whether Content-Length and Transfer-Encoding are there, whatever they say."""
        head = self.head
        return bool(head.values("content-length")) and bool(head.values("transfer-encoding"))

    @property
    def framing(self) -> tuple[list[str], list[str]]:
        """Return the members of Content-Length and of Transfer-Encoding that count."""
        if self.no_body or self.head.status < 200:
            return [], []
        codings = self.head.members("transfer-encoding")
        if codings == ["identity"]:
            codings = []
        elif {*codings, ""} == {"chunked", ""}:
            codings = ["chunked"]
        return self.head.members("content-length"), codings

    @property
    def doubtful_coding(self) -> bool:
        """Whether transfer codings are said in a way that costs the connection."""
        said = self.head.members("transfer-encoding")
        return bool(said) and (
            self.head.minor == "0" or (self.framing[1] == ["chunked"] and said != ["chunked"])
        )

    def content(self) -> tuple[bytes, bool]:
        """Return the bytes of the body that are here, and whether they are all of it."""
        lengths, codings = self.framing
        if self.no_body:
            return b"", True
        if codings:
            return dechunk(self.rest)
        if lengths:
            return self.rest[: int(lengths[0])], len(self.rest) >= int(lengths[0])
        return self.rest, True


def dechunk(data: bytes) -> tuple[bytes, bool]:
    """Take the chunked coding apart as RFC 9112 §7.1 has it; EOF may stand for the last CRLF."""
    content = b""
    while match := re.match(rb"([0-9A-Fa-f]{1,16})[\t ]*(;[\t\x20-\x7e\x80-\xff]*)?\r\n", data):
        if match.end() > 4096:
            break
        data = data[match.end() :]
        if not int(match[1], 16):
            return content, trailers_are_good(data)
        content += data[: int(match[1], 16)]
        data = data[int(match[1], 16) :]
        if data[:2] != b"\r\n":
            break
        data = data[2:]
    return content, False


def trailers_are_good(data: bytes) -> bool:
    end = re.search(rb"(?:^|\n)\r?\n", data)
    lines = data[: end.end()] if end else data.removesuffix(b"\r") + b"\r\n"
    if re.search(rb"(?<!\r)\n", lines) or not re.search(rb"(?:^|\n)\r\n$", lines):
        return False
    head = Head(
        "", [without_cr_at_end(line) for line in lines.decode("latin-1").split("\r\n")[:-2]]
    )
    return not any(is_bad(head) for is_bad in BAD_FIELDS)


def without_cr_at_end(line: str) -> str:
    """Return *line* with a space for the CRs at its end; leave CRs inside it, or alone in it."""
    return re.sub(r"^([^\r]+)\r+$", r"\1 ", line)


# The faults of a head's fields: each function tells whether a head has one.


def has_nul(head: Head) -> bool:
    return any("\0" in line for line in head.fields)


def has_bare_cr(head: Head) -> bool:
    return any("\r" in line for line in head.fields)


def begins_with_a_fold(head: Head) -> bool:
    return bool(head.fields) and head.fields[0][0] in " \t"


def has_framing_on_a_malformed_line(head: Head) -> bool:
    return any(FRAMING_NAME.search(line) for _, line in head.dropped())


BAD_FIELDS = (
    has_nul,
    has_bare_cr,
    begins_with_a_fold,
    has_framing_on_a_malformed_line,
)
