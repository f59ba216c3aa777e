"""The TLS identity of a node: a self-signed certificate of its Ed25519 key.

The key is the identity, and the certificate only carries it through TLS 1.3, so its other members are
constants. No authority and no clock decides about trust: who connects compares the node id, the hash
of the key in the certificate, with the one that it expects, and the listener compares it with the list
of members. TLS itself proves that the other side has the private key (RFC 8446, CertificateVerify).

A member presents its certificate in both directions. A node that is about to join is not known yet, so
the listener also accepts a connection without a certificate, on which only an invite can be redeemed.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from lake.catalog.node_key import NodeKey, node_id
from sennit_core.errors import BadInput

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

__all__ = ["FINGERPRINT_LENGTH", "Identity", "fingerprint", "id_of_certificate"]

_NOT_BEFORE = datetime(2020, 1, 1)  # noqa: DTZ001 - X.509 wants naive UTC; constants, see above
_NOT_AFTER = datetime(2999, 1, 1)  # noqa: DTZ001
_SERIAL = 1
_GROUP = 4
FINGERPRINT_LENGTH = 39
"""Characters of a fingerprint: 32 hex digits in groups of four."""


class Identity:
    """A node's key as TLS needs it.

    Args:
        key: The node's key.
    """

    def __init__(self, key: NodeKey) -> None:
        self.key = key

    @property
    def id(self) -> str:
        """The node's id."""
        return self.key.id

    @cached_property
    def certificate(self) -> bytes:
        """The node's certificate, in DER."""
        from cryptography.hazmat.primitives.serialization import Encoding

        return self._certificate.public_bytes(Encoding.DER)

    def server_context(self, certificates: Iterable[bytes]) -> ssl.SSLContext:
        """Return the context of a listener.

        Args:
            certificates: Those of the members. Members that are admitted later can be added by
                `load_verify_locations`; one that was removed is still to be refused after the
                handshake, because OpenSSL forgets no certificate.
        """
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_OPTIONAL
        for certificate in certificates:
            context.load_verify_locations(cadata=certificate)
        return context

    def client_context(self, *, anonymous: bool = False) -> ssl.SSLContext:
        """Return the context of outgoing connections.

        The caller compares the server's id with the expected one before it sends anything: OpenSSL
        is not asked to, as it would need the certificate, and an invite has only the id.

        Args:
            anonymous: Whether to present no certificate, because the server does not know it yet.
        """
        context = self._context(ssl.PROTOCOL_TLS_CLIENT, anonymous=anonymous)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    def _context(self, protocol: int, *, anonymous: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if not anonymous:
            self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        """Load the key into a context. It accepts only files, so the key is in memory as one."""
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        private = self.key.private_key().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        descriptor = os.memfd_create("node-key", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, private + self._certificate.public_bytes(Encoding.PEM))
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)

    @cached_property
    def _certificate(self) -> Certificate:
        from cryptography import x509
        from cryptography.x509.oid import NameOID

        private = self.key.private_key()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.id)])
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(private.public_key())
            .serial_number(_SERIAL)
            .not_valid_before(_NOT_BEFORE)
            .not_valid_after(_NOT_AFTER)
            .sign(private, None)
        )


def id_of_certificate(certificate: bytes) -> str:
    """Return the id of the node that a certificate is of.

    Args:
        certificate: In DER.

    Raises:
        BadInput: It is not a certificate of an Ed25519 key.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except (ValueError, TypeError) as error:
        raise BadInput("a peer's certificate", reason=str(error)) from error
    if not isinstance(key, Ed25519PublicKey):
        raise BadInput("a peer's certificate", reason="its key is not an Ed25519 key")
    return node_id(key.public_bytes_raw())


def fingerprint(node: str) -> str:
    """Return a node id as people compare it: its first 32 digits in groups of four."""
    return ":".join(node[start : start + _GROUP] for start in range(0, 32, _GROUP))
