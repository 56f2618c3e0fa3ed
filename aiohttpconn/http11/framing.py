"""How bodies are delimited (RFC 9112 §6): of responses, by what arrives; of requests, as sent.

Pure functions over heads: no I/O, no clock. chunked.py decodes a chunked body. Layer: the wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

from ..exceptions import MalformedResponse, UnknownTransferEncoding
from .grammar import DIGITS
from .response_head import BLANKS, ResponseHead
from .semantics import BODY_METHODS

__all__ = ["body_framing", "response_framing"]

# ---------------------------------------------------------------------------- responses

Framing: TypeAlias = tuple[int | None, bool, bool]
"""The delimiting of a body: (length, chunked, will_close). The body ends after *length* bytes or
with the last chunk; with neither of them, it ends with the connection."""


def response_framing(head: ResponseHead, method: str | None, strict: bool = False) -> Framing:
    """Decide how the body of a response to *method* is delimited (RFC 9112 §6.3, step by step).

    Raises ``UnknownTransferEncoding`` or ``MalformedResponse`` if that cannot be decided safely.
    """
    version, status, _, text = head
    lower = text.lower()
    will_close = version == 10
    if will_close or "\nconnection:" in lower:
        will_close = _will_close(version, lower, text)

    at = lower.find("\ncontent-length:")
    coded = "\ntransfer-encoding:" in lower
    if coded and (at >= 0 or version == 10):
        # Step 3: a response with both may be smuggling. §6.1: HTTP/1.0 has no transfer codings, so
        # the framing is faulty. The response is delivered, but another parser may have seen it end
        # elsewhere: the connection is never used again.
        will_close = True

    # Step 1: no content, whatever the fields say.
    if status < 200 or status == 204 or status == 304 or method == "HEAD":
        lengths = _values(lower, text, "content-length") if status == 204 else []
        if status == 204 and (coded or any(value.strip("0") for value in lengths)):
            # It says that a body follows, and must not (RFC 9110 §8.6): one may.
            will_close = True
        return 0, False, will_close
    # Step 2: 2xx to CONNECT is a tunnel after the blank line.
    if method == "CONNECT" and status < 300:
        return 0, False, will_close

    length: int | None = None
    if at >= 0:
        length = _content_length(lower, text, at, strict)
    if coded:
        codings = _members(_values(lower, text, "transfer-encoding"))
        # RFC 9110 §5.6.1: empty members of a list are ignored. Sent is one chunked, even if it is
        # said twice: no sender codes chunks in chunks (§6.1).
        named = set(codings) - {""}
        is_doubtful = codings != ["chunked"] or version == 10
        if is_doubtful and (strict or (named != {"chunked"} and codings != ["identity"])):
            # Step 4, narrowed: any other coding is refused, never guessed at.
            raise UnknownTransferEncoding(
                f"cannot read Transfer-Encoding: {', '.join(codings)}"
                f"{' in an HTTP/1.0 response' if version == 10 else ''}"
            )
        if named == {"chunked"}:
            # Step 3: Transfer-Encoding overrides Content-Length.
            if length is not None and strict:
                raise MalformedResponse("Content-Length and Transfer-Encoding in one response")
            return None, True, will_close or is_doubtful
    # Steps 5 and 6: Content-Length. Step 8: until the connection ends.
    return length, False, will_close or length is None


def _content_length(lower: str, text: str, at: int, strict: bool) -> int:
    """Return the Content-Length whose line starts at *at*; equal repetitions count as one."""
    end = text.index("\r", at)
    value = text[at + 16 : end].strip(BLANKS)
    if lower.find("\ncontent-length:", end) >= 0 or "," in value:
        values = [
            v.strip(BLANKS) for v in ",".join(_values(lower, text, "content-length")).split(",")
        ]
        if strict or any(v != values[0] for v in values):
            raise MalformedResponse(f"more than one Content-Length: {', '.join(values)[:100]!r}")
        value = values[0]
    if not DIGITS.fullmatch(value):
        raise MalformedResponse(f"Content-Length must be 1 to 19 digits, got {value[:100]!r}")
    return int(value)


def _will_close(version: int, lower: str, text: str) -> bool:
    """Return whether the connection ends after this response (RFC 9112 §9.3)."""
    options = _members(_values(lower, text, "connection"))
    if "close" in options:
        return True
    if version >= 11:
        return False
    # HTTP/1.0 as http.client reads it: any sign that the peer keeps the connection.
    return not (
        "keep-alive" in options
        or "\nkeep-alive:" in lower
        or "keep-alive" in _members(_values(lower, text, "proxy-connection"))
    )


def _values(lower: str, text: str, name: str) -> list[str]:
    """Return the values of every field *name* in *text*; *lower* is *text* in lower case."""
    found = []
    at = lower.find(f"\n{name}:")
    while at >= 0:
        end = text.index("\r", at)
        found.append(text[at + len(name) + 2 : end].strip(BLANKS))
        at = lower.find(f"\n{name}:", end)
    return found


def _members(values: list[str]) -> list[str]:
    """Return the members of a comma-separated list (RFC 9110 §5.6.1), in lower case."""
    return [member.strip(BLANKS).lower() for value in values for member in value.split(",")]


# ----------------------------------------------------------------------------- requests


class Sized(Protocol):
    """The part of a request's body that framing needs: bytes, or None if they are not known yet."""

    length: int | None


def body_framing(
    method: str,
    body: Sized | None,
    names: Mapping[str, str],
    encode_chunked: bool,
    may_chunk: bool,
) -> tuple[bool, int | None, str]:
    """Return (chunked, length, field line to add) for *body*, given the caller's fields *names*."""
    if "content-length" in names:
        return False, int(names["content-length"]), ""
    if "transfer-encoding" in names:
        if body is None:
            raise ValueError("the request has a Transfer-Encoding but no body")
        return encode_chunked and may_chunk, None, ""
    if body is None:
        return False, 0, "Content-Length: 0\r\n" if method.upper() in BODY_METHODS else ""
    if body.length is not None:
        return False, body.length, f"Content-Length: {body.length}\r\n"
    return may_chunk, None, "Transfer-Encoding: chunked\r\n"
