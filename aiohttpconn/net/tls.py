"""TLS: the cached default context, facts and pins, the end of a connection, failed handshakes.

dial.py does the handshake, and resumption.py resumes an earlier one. Layer: net.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any, TypeAlias

from ..exceptions import CertificateError, TLSError, shown_refused
from ..http11.grammar import check_host
from .threads import in_thread

try:
    import ssl
except ImportError:
    HAS_TLS = False
else:
    HAS_TLS = True

__all__ = [
    "HAS_TLS",
    "NO_TLS",
    "FingerprintLike",
    "TLSInfo",
    "TLSSocket",
    "check_fingerprint",
    "check_server_name",
    "default_context",
    "handshake_error",
    "holds_more",
    "is_clean_eof",
    "read_fingerprint",
    "tls_name",
    "trusted_file",
]

BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Environment variables with a file of authorities. They win over ``SSL_CERT_FILE`` and
``SSL_CERT_DIR``, which OpenSSL reads itself: they are for fewer programs."""

DIGEST_SIZE = 32
"""Bytes of a SHA-256."""

ALPN = ["http/1.1"]
"""Protocols that the default contexts offer in the handshake."""

# Making a context takes 20 ms, so it is made once per file and process. None is ever removed.
_contexts: dict[str | None, ssl.SSLContext] = {}
_lock = threading.Lock()

# OpenSSL's reasons for a first record that is not TLS at all; which one it gives depends on its
# version, and on the first bytes that the server sent.
_NOT_TLS = frozenset(
    {
        "HTTP_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
        "UNKNOWN_PROTOCOL",
        "WRONG_VERSION_NUMBER",
    }
)
_NO_COMMON_VERSION = frozenset({"TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL"})

# Verification results of OpenSSL's x509_vfy.h for which there is a hint to the caller.
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})
_WRONG_NAME = frozenset({62, 64})

NO_TLS = "This Python has no ssl module."

HINT_PRIVATE_CA = (
    "If the server's certificate comes from a private CA, pass its file as cafile=, "
    "or an ssl.SSLContext that trusts it as context="
)
HINT_PLAIN_HTTP = "The server may be speaking plain HTTP on this port: try http://"


async def default_context(cafile: str | os.PathLike[str] | None = None) -> ssl.SSLContext:
    """Return the default client context: verification on, TLS 1.2 or later, ALPN http/1.1.

    *cafile* is a PEM file of the authorities to trust instead of the system's, or a folder of such
    files with the names that OpenSSL looks for (``openssl rehash``). A context is
    made once per file, in a thread, and shared by all event loops; a file that changes later
    is not read again. Once made, it is returned without suspending. Raises ``OSError`` that
    names the file if it cannot be read, and ``TLSError`` if it holds no certificate, or if this
    Python has no ``ssl``.
    """
    if not HAS_TLS:
        raise TLSError("https is not possible", hint=NO_TLS)
    key = None if cafile is None else os.fspath(cafile)
    context = _contexts.get(key)
    if context is not None:
        return context
    return await in_thread(_make_context, key)


def trusted_file(environ: Mapping[str, str]) -> str | None:
    """Return the *cafile* that the environment names, None if it names none."""
    return next((environ[name] for name in BUNDLE_VARIABLES if environ.get(name)), None)


def _make_context(cafile: str | None) -> ssl.SSLContext:
    # This runs in a thread. Other callers wait here until the first one has made the context.
    with _lock:
        context = _contexts.get(cafile)
        if context is not None:
            return context
        try:
            if cafile is not None and os.path.isdir(cafile):
                context = ssl.create_default_context(capath=cafile)
            else:
                context = ssl.create_default_context(cafile=cafile)
        except ssl.SSLError as exc:
            raise TLSError(f"cafile {cafile!r} holds no usable certificate: {exc}") from exc
        except OSError as exc:
            raise type(exc)(exc.errno, f"cannot read cafile: {exc.strerror}", cafile) from exc
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Pythons before 3.11.4 set this, which takes a cut connection for a clean end.
        context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
        context.set_alpn_protocols(ALPN)
        # As http.client does: a server may ask for a certificate after the handshake.
        context.post_handshake_auth = True
        _contexts[cafile] = context
        return context


class TLSInfo:
    """Facts about TLS to a server, with the names that ``ssl.SSLSocket`` has for them.

    They stay when the connection has ended. ``session_reused``: whether an earlier session was
    resumed. ``server_hostname``: the name that was verified, or would have been.
    """

    __slots__ = (
        "_alpn",
        "_cert",
        "_cipher",
        "_der",
        "_version",
        "server_hostname",
        "session_reused",
    )

    def __init__(self, ssl_object: Any) -> None:
        self._version: str | None = ssl_object.version()
        self._cipher: tuple[str, str, int] | None = ssl_object.cipher()
        self._alpn: str | None = ssl_object.selected_alpn_protocol()
        self._cert: dict[str, Any] | None = ssl_object.getpeercert()
        self._der: bytes | None = ssl_object.getpeercert(True)
        self.server_hostname: str | None = ssl_object.server_hostname
        self.session_reused: bool | None = ssl_object.session_reused

    def __repr__(self) -> str:
        cipher = self._cipher[0] if self._cipher is not None else "no cipher"
        return f"<TLSInfo {self._version} {cipher} {self.server_hostname}>"

    def version(self) -> str | None:
        """Return the protocol: "TLSv1.3"."""
        return self._version

    def cipher(self) -> tuple[str, str, int] | None:
        """Return the cipher: its name, the protocol that defines it, its secret bits."""
        return self._cipher

    def selected_alpn_protocol(self) -> str | None:
        """Return the protocol that ALPN has chosen, "http/1.1"; None without ALPN."""
        return self._alpn

    def getpeercert(self, binary_form: bool = False) -> Any:
        """Return the server's certificate as a dict, {} if it was not verified; or as DER bytes.

        Mirrors ``ssl.SSLSocket.getpeercert``.
        """
        return self._der if binary_form else self._cert

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the server's certificate in hexadecimal, as ``fingerprint=`` takes it."""
        return _sha256(self._der or b"").hex()


# The questions of ssl.SSLSocket about TLS. Not those that read, write or end it: only the transport
# may do that.
_ASKED_OF_TLS = frozenset(
    {
        "cipher",
        "compression",
        "context",
        "get_channel_binding",
        "get_unverified_chain",
        "get_verified_chain",
        "getpeercert",
        "pending",
        "selected_alpn_protocol",
        "selected_npn_protocol",
        "server_hostname",
        "server_side",
        "session",
        "session_reused",
        "shared_ciphers",
        "version",
    }
)


class TLSSocket:
    """The socket of a TLS connection: answers for TLS, like ``ssl.SSLSocket``, and for TCP.

    ``getpeercert``, ``cipher``, ``version`` and the like are those of the ``ssl.SSLObject``, all
    other names those of the transport's socket. It neither reads nor writes.
    """

    __slots__ = ("_sock", "_tls")

    def __init__(self, sock: Any, ssl_object: Any) -> None:
        self._sock = sock
        self._tls = ssl_object

    def __repr__(self) -> str:
        return f"<TLSSocket {self._tls.version()} {self._sock!r}>"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tls if name in _ASKED_OF_TLS else self._sock, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TLSSocket) and self._tls is other._tls

    def __hash__(self) -> int:
        return hash(self._tls)


FingerprintLike: TypeAlias = str | bytes
"""The SHA-256 of a certificate in DER: hexadecimal, with or without colons, or its 32 bytes."""


def _sha256(der: bytes) -> bytes:
    import hashlib  # only for those who ask

    return hashlib.sha256(der).digest()


def read_fingerprint(given: FingerprintLike | None) -> bytes | None:
    """Return the 32 bytes of *given*; raise ``TypeError`` or ``ValueError`` if it is no SHA-256."""
    if given is None or (isinstance(given, bytes) and len(given) == DIGEST_SIZE):
        return given
    if not isinstance(given, (str, bytes)):
        raise TypeError(f"fingerprint must be a str or bytes, not {type(given).__name__}")
    try:
        digest = bytes.fromhex(given.replace(":", "")) if isinstance(given, str) else b""
    except ValueError:
        digest = b""
    if len(digest) != DIGEST_SIZE:
        raise ValueError(
            "fingerprint must be the SHA-256 of a certificate: 64 hexadecimal digits, with or "
            f"without colons, or 32 bytes; got {given!r}"
        )
    return digest


def check_fingerprint(ssl_object: Any, expected: bytes, peer: str = "the server") -> None:
    """Raise ``CertificateError`` unless the certificate in *ssl_object* has the SHA-256 *expected*.

    *ssl_object* is ``transport.get_extra_info("ssl_object")``: None has no certificate.
    """
    der = ssl_object.getpeercert(True) if ssl_object is not None else None
    got = _sha256(der) if der else None
    if got == expected:
        return
    found = f"has the fingerprint {got.hex()}" if got is not None else "is missing"
    error = CertificateError(
        f"the certificate of {peer} {found}, expected fingerprint={expected.hex()}"
    )
    error.hint = "If the server has a new certificate that is right, pin the new fingerprint"
    raise error


def holds_more(ssl_object: Any) -> bool:
    """Return whether TLS holds bytes that it has decrypted, or can, and not delivered.

    It takes a byte if there is one: only for a connection that ends then.
    """
    try:
        return bool(ssl_object.read(1))
    except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
        return False
    except (OSError, ValueError):
        return True  # broken: the next use would fail


def is_clean_eof(ssl_object: object) -> bool:
    """Return whether the TLS peer ended with close_notify, and not just with a FIN or RST.

    *ssl_object* is ``transport.get_extra_info("ssl_object")``. Call this in ``eof_received`` or
    in ``connection_lost``: asyncio calls both on truncation too, uvloop only the latter. It takes
    a byte from the connection if there is one, so it is for the end only. When unsure, it returns
    False.

    The rule comes from experiments with asyncio of 3.11.7, 3.12.1 and 3.13.0 and uvloop 0.23, TLS
    1.2 and 1.3, close_notify alone, with FIN in the same segment, with RST after it, and FIN or
    RST without it, reading paused and not: one more read gives b"" or SSLZeroReturnError
    after close_notify, SSLWantReadError after truncation, and a byte if the loop has
    thrown away data that it had not delivered. ``tests/test_tls.py`` repeats them.
    """
    read = getattr(ssl_object, "read", None)
    if read is None:
        return False
    try:
        return bool(read(1) == b"")
    except ssl.SSLZeroReturnError:
        return True
    except (OSError, ValueError):
        return False


def check_server_name(argument: str, value: object) -> None:
    """Raise ``TypeError`` or ``InvalidURL`` unless *value* is a host without its port, or None."""
    if value is not None:
        if not isinstance(value, str):
            raise TypeError(f"{argument} must be a str, or None, not {type(value).__name__}")
        check_host(value)


def tls_name(host: str) -> str:
    """Return the name that TLS sends (SNI) and verifies for *host*.

    A name is sent as A-labels (IDNA) without its trailing dot, an IP address without its zone.
    Raises ``ValueError`` if *host* is no such name.
    """
    name = host.partition("%")[0] if ":" in host else host.removesuffix(".")
    if not name or name.startswith(".") or not name.isprintable() or " " in name:
        raise ValueError(f"TLS needs a server name to verify, and {shown_refused(host)} is not one")
    try:
        return name.encode("idna").decode("ascii")
    except UnicodeError as exc:
        raise ValueError(f"TLS cannot verify {host!r}: not a valid host name ({exc})") from exc


def handshake_error(exc: Exception, name: str, peer: str = "the server") -> TLSError:
    """Return the ``TLSError`` that a failed handshake raises; its text says what went wrong.

    *name* is the name that was verified, *peer* the other end: the server or the proxy.
    ``errno``, ``reason``, ``library``, ``verify_code`` and ``verify_message`` are those of *exc*,
    and ``hint`` is advice to the caller, or "".
    """
    hint = ""
    error: TLSError
    if isinstance(exc, ssl.SSLCertVerificationError):
        error = CertificateError(_verification_text(exc, name, peer))
        if exc.verify_code in _UNKNOWN_AUTHORITY:
            hint = HINT_PRIVATE_CA
        elif exc.verify_code in _WRONG_NAME:
            hint = f"The URL or server_hostname= asks for {name!r}; the certificate has other names"
        elif exc.verify_code == _NOT_YET_VALID:
            hint = "Is this computer's clock right?"
    elif isinstance(exc, ssl.SSLEOFError) or not isinstance(exc, ssl.SSLError):
        error = TLSError(f"{peer} closed the connection during the TLS handshake")
    elif exc.reason in _NOT_TLS:
        error = TLSError(f"{peer} did not answer with TLS ({_words(exc.reason)})")
        hint = HINT_PLAIN_HTTP
    elif exc.reason in _NO_COMMON_VERSION:
        error = TLSError(
            f"{peer} offers no TLS version that is allowed here ({_words(exc.reason)})"
        )
    else:
        error = TLSError(f"the TLS handshake with {peer} failed: {_words(exc.reason) or exc}")
    for attribute in ("errno", "reason", "library", "verify_code", "verify_message"):
        if hasattr(exc, attribute):
            setattr(error, attribute, getattr(exc, attribute))
    error.errors = (exc,)
    error.hint = hint
    return error


def _verification_text(exc: ssl.SSLCertVerificationError, name: str, peer: str) -> str:
    """Return why a certificate was refused."""
    message = exc.verify_message.rstrip(".")
    if message[1:2].islower():  # not "IP address mismatch"
        message = message[:1].lower() + message[1:]
    return f"the certificate of {peer} cannot be verified for {name!r}: {message}"


def _words(reason: str | None) -> str:
    """Return OpenSSL's ``SSLV3_ALERT_HANDSHAKE_FAILURE`` as words."""
    return (reason or "").replace("_", " ").lower()
