"""Certificates that are right, and certificates of which each is wrong in one way.

``certificates`` (a session fixture of ``tests/conftest.py``) is a ``Certificates``.
"""

from __future__ import annotations

import datetime
import functools
import ssl
from typing import TYPE_CHECKING

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Certificates"]

NAMES = ("localhost", "127.0.0.1", "::1")
"""The names in the right certificate."""


class Certificates:
    """A certificate authority, server contexts and client contexts; each made on first use.

    Server side: ``server`` (right), ``wrong_host``, ``expired``, ``self_signed``, ``untrusted``
    (of an authority that nobody knows), ``mutual`` (asks for a client's certificate).
    Client side: ``client`` (knows the authority), ``client_with_certificate``.
    Files: ``ca_file``; ``client_file`` (certificate and key).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @functools.cached_property
    def ca(self) -> trustme.CA:
        return trustme.CA()

    @functools.cached_property
    def ca_file(self) -> str:
        path = self._folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(path))
        return str(path)

    @functools.cached_property
    def client_file(self) -> str:
        path = self._folder / "client.pem"
        cert = self.ca.issue_cert("client@example.com")
        cert.private_key_and_cert_chain_pem.write_to_path(str(path))
        return str(path)

    def server_for(
        self,
        *names: str,
        alpn: Sequence[str] = (),
        maximum_version: ssl.TLSVersion | None = None,
    ) -> ssl.SSLContext:
        """Return a new server context with a right certificate for *names* (default ``NAMES``)."""
        context = self._context(self.ca.issue_cert(*(names or NAMES)))
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if maximum_version is not None:
            context.maximum_version = maximum_version
        return context

    def client_for(self, **keywords: object) -> ssl.SSLContext:
        """Return a new client context that knows the authority."""
        context = ssl.create_default_context(**keywords)  # type: ignore[arg-type]
        # As the package's own context: see aiohttpconn/net/tls.py.
        context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
        self.ca.configure_trust(context)
        return context

    @functools.cached_property
    def server(self) -> ssl.SSLContext:
        return self.server_for()

    @functools.cached_property
    def wrong_host(self) -> ssl.SSLContext:
        return self.server_for("wrong.example")

    @functools.cached_property
    def expired(self) -> ssl.SSLContext:
        end = datetime.datetime(2001, 1, 2, tzinfo=datetime.UTC)
        start = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
        return self._context(self.ca.issue_cert(*NAMES, not_before=start, not_after=end))

    @functools.cached_property
    def untrusted(self) -> ssl.SSLContext:
        return self._context(trustme.CA().issue_cert(*NAMES))

    @functools.cached_property
    def self_signed(self) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        start = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
        end = datetime.datetime(2101, 1, 1, tzinfo=datetime.UTC)
        cert = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(key, hashes.SHA256())
        )
        path = self._folder / "self-signed.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + cert.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    @functools.cached_property
    def mutual(self) -> ssl.SSLContext:
        context = self.server_for()
        context.verify_mode = ssl.CERT_REQUIRED
        self.ca.configure_trust(context)
        return context

    @functools.cached_property
    def client(self) -> ssl.SSLContext:
        return self.client_for()

    @functools.cached_property
    def client_with_certificate(self) -> ssl.SSLContext:
        context = self.client_for()
        context.load_cert_chain(self.client_file)
        return context

    def _context(self, cert: trustme.LeafCert) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        cert.configure_cert(context)
        return context
