"""Exit codes: curl's numbers, so that scripts written for curl understand ours.

See "EXIT CODES" in curl(1). The table here maps our exceptions to them.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ..exceptions import (
    BadStatusLine,
    BodyLengthError,
    BodyTooLarge,
    CertificateError,
    ConnectError,
    ContentDecodingError,
    HeadTooLarge,
    HTTPException,
    IncompleteRead,
    InvalidURL,
    RedirectRefused,
    RemoteDisconnected,
    ResolveError,
    StatusError,
    TLSError,
    TooManyRedirects,
    TunnelError,
    UnknownProtocol,
    UnknownTransferEncoding,
)

if TYPE_CHECKING:
    from ..proxies import Proxy

__all__ = [
    "BAD_CA_FILE",
    "BAD_SETTING",
    "HTTP_ERROR",
    "MALFORMED_URL",
    "NOT_CONNECTED",
    "PROXY_NOT_RESOLVED",
    "READ_ERROR",
    "UNSUPPORTED_PROTOCOL",
    "USAGE",
    "WRITE_ERROR",
    "Failed",
    "exit_code",
]

UNSUPPORTED_PROTOCOL = 1
USAGE = 2
MALFORMED_URL = 3
PROXY_NOT_RESOLVED = 5
HOST_NOT_RESOLVED = 6
NOT_CONNECTED = 7
WEIRD_REPLY = 8
PARTIAL = 18
HTTP_ERROR = 22
WRITE_ERROR = 23
READ_ERROR = 26
TIMEOUT = 28
TLS_FAILED = 35
TOO_MANY_REDIRECTS = 47
BAD_SETTING = 49
EMPTY_REPLY = 52
SEND_FAILED = 55
RECEIVE_FAILED = 56
CERTIFICATE_REFUSED = 60
BAD_CODING = 61
BODY_TOO_LARGE = 63
BAD_CA_FILE = 77
PROXY_FAILED = 97

# The first match counts: subclasses stand above their bases.
_CODES: list[tuple[type[BaseException], int]] = [
    (TimeoutError, TIMEOUT),  # PoolTimeout is one, too
    (ResolveError, HOST_NOT_RESOLVED),
    (CertificateError, CERTIFICATE_REFUSED),
    (TunnelError, RECEIVE_FAILED),
    (TLSError, TLS_FAILED),
    (ConnectError, NOT_CONNECTED),
    (InvalidURL, MALFORMED_URL),
    (BodyLengthError, USAGE),
    (UnknownProtocol, UNSUPPORTED_PROTOCOL),
    (UnknownTransferEncoding, BAD_CODING),
    (ContentDecodingError, BAD_CODING),
    (BodyTooLarge, BODY_TOO_LARGE),
    (StatusError, HTTP_ERROR),
    (TooManyRedirects, TOO_MANY_REDIRECTS),
    (RedirectRefused, UNSUPPORTED_PROTOCOL),
    (HeadTooLarge, RECEIVE_FAILED),
    (RemoteDisconnected, EMPTY_REPLY),
    (BadStatusLine, UNSUPPORTED_PROTOCOL),
    (IncompleteRead, PARTIAL),
    (HTTPException, WEIRD_REPLY),
    (OSError, RECEIVE_FAILED),
    (ValueError, USAGE),
]


class Failed(Exception):
    """A reason to exit with *code*, and to show *text*, unless it is empty, on standard error."""

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


def exit_code(exc: BaseException, proxy: Proxy | None = None) -> int:
    """Return curl's exit code for *exc*. *proxy* is the proxy that we connected to, if any."""
    code = next(code for kind, code in _CODES if isinstance(exc, kind))
    phase = getattr(exc, "phase", "")
    if code == HOST_NOT_RESOLVED and proxy is not None and not proxy.is_socks:
        code = PROXY_NOT_RESOLVED
    elif isinstance(exc, TunnelError) and proxy is not None and proxy.is_socks:
        code = PROXY_FAILED
    elif isinstance(exc, RedirectRefused) and exc.__cause__ is not None:
        code = MALFORMED_URL
    elif code == NOT_CONNECTED and getattr(exc, "errno", None) == errno.ETIMEDOUT:
        code = TIMEOUT
    elif (code == PARTIAL and exc.__cause__ is not None) or (
        # A reset, or bytes that make no sense, and not just a body that is too short. A TLS 1.3
        # server reports a missing client certificate only after the handshake.
        code == TLS_FAILED and phase not in ("proxy", "tls")
    ):
        code = RECEIVE_FAILED
    elif code == RECEIVE_FAILED and phase == "sending":
        code = SEND_FAILED
    return code
