"""Sets of methods and fields by their meaning, each defined once.

Methods are case-sensitive (RFC 9110 §9.1). Names of fields are in lower case. Layer: the wire;
pure.
"""

from __future__ import annotations

__all__ = [
    "BODILESS_METHODS",
    "BODY_METHODS",
    "COMMON_METHODS",
    "DECIDING",
    "FIRST_ORIGIN_ONLY",
    "FRAMED_BY_FIELDS",
    "FRAMING",
    "IDEMPOTENT",
    "OF_THE_BODY",
    "SHARING",
    "SINGLE",
]

# ------------------------------------------------------------------------------ methods

BODY_METHODS = frozenset({"PATCH", "POST", "PUT"})
"""Methods that define a meaning for a body: without one they send ``Content-Length: 0``
(RFC 9110 §8.6)."""

BODILESS_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS"})
"""Methods that are usually sent without a body, and then without a Content-Length
(RFC 9110 §8.6)."""

COMMON_METHODS = BODY_METHODS | BODILESS_METHODS
"""Methods of nearly all requests (RFC 9110 §9.3, RFC 5789), without CONNECT and TRACE."""

FRAMED_BY_FIELDS = COMMON_METHODS - {"HEAD"}
"""Methods whose responses have the body that the head announces: not HEAD and CONNECT
(RFC 9112 §6.3)."""

IDEMPOTENT = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"})
"""Methods whose requests may be sent twice (RFC 9110 §9.2.2)."""

SHARING = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods whose requests may share a connection: safe and without a body (RFC 9112 §9.3.2)."""

# ------------------------------------------------------------------------------- fields

FRAMING = frozenset({"content-length", "transfer-encoding"})
"""Fields that tell where a body ends (RFC 9112 §6)."""

SINGLE = FRAMING | {"host"}
"""Fields that a request may have only once (RFC 9112 §3.2, §6.3): a second one is a way to smuggle
requests."""

DECIDING = FRAMING | {"connection", "expect", "upgrade"}
"""Fields that decide how a request is sent, or what happens to its connection
(RFC 9110 §7.6.1, §7.8, §10.1.1)."""

CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization"})
"""Fields that identify the sender of a request (RFC 9110 §11.6.2, §11.7.2, RFC 6265 §5.4)."""

FIRST_ORIGIN_ONLY = CREDENTIALS | {"host"}
"""Fields that a redirect to another origin removes, even if the caller has set them
(RFC 9110 §15.4): Host would name the old server."""

OF_THE_BODY = frozenset(
    {"digest", "expect", "last-modified", "repr-digest", "trailer", "transfer-encoding"}
)
"""Fields, besides Content-..., that a redirect removes together with the body (RFC 9110 §15.4):
they describe the body, or how it is sent."""
