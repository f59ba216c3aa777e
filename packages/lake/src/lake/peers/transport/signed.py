"""Statements that a node signs, and that every other node can verify and forward.

A statement is a kind, a body, and the times from and until which it counts. The signature covers the
canonical JSON of all of that, with a domain of its own, so that a manifest's signature, or that of
another kind of statement, is never valid here. Who signed it follows from the signature, which has the
public key (`lake.catalog.node_key`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from lake.catalog.node_key import NodeKey, check_signature, signer_of
from sennit_core.errors import Denied
from sennit_core.hashing import canonical_json, sha256_hex
from sennit_core.records import Record
from sennit_core.units import KIB

__all__ = ["CLOCK_SKEW_SECONDS", "STATEMENT_BYTES_MAX", "Statement", "sign"]

CLOCK_SKEW_SECONDS = 300.0
"""How far the clocks of two nodes may differ before statements are refused."""
STATEMENT_BYTES_MAX = 64 * KIB
_DOMAIN = b"sennit-peers-1\n"


@dataclass(frozen=True)  # no slots, for its cached digest
class Statement(Record):
    """A signed statement.

    Args:
        kind: What it is; the signature covers it.
        body: Its content.
        issued_at: Unix seconds by the signer's clock.
        expires_at: Unix seconds after which it does not count; 0 if it always does.
        signature: Of all else.
    """

    kind: str
    body: Mapping[str, Any]
    issued_at: float
    expires_at: float
    signature: str = ""

    @property
    def signer(self) -> str:
        """The id of the node that it says it is of; "" if the signature has no valid form."""
        return signer_of(self.signature) or ""

    @cached_property
    def digest(self) -> str:
        """Its SHA-256, by which a later statement can name it."""
        return sha256_hex(canonical_json(self.to_json()))

    def verify(self, kind: str, now: float, *, signer: str | None = None) -> Mapping[str, Any]:
        """Return the body of a statement that counts.

        Args:
            kind: The expected kind.
            now: Unix seconds.
            signer: The only node that it may be of; None for any.

        Raises:
            Denied: It is of another kind or node, its signature is wrong, or its time is over.
        """
        if self.kind != kind:
            raise _refused(kind, f"it is a statement of the kind {self.kind!r}")
        if signer is not None and self.signer != signer:
            raise _refused(kind, f"node {self.signer[:16]} signed it, not {signer[:16]}")
        data = _signed_bytes(self)
        if len(data) > STATEMENT_BYTES_MAX:
            raise _refused(kind, f"it has {len(data)} bytes, of at most {STATEMENT_BYTES_MAX}")
        if not check_signature(self.signature, _DOMAIN, data):
            raise _refused(kind, "its signature is not that of its content")
        if self.issued_at > now + CLOCK_SKEW_SECONDS:
            raise _refused(kind, "it is from the future", hint="compare the clocks of the nodes")
        if self.expires_at and self.expires_at < now - CLOCK_SKEW_SECONDS:
            raise _refused(kind, "it has expired")
        return self.body


def sign(
    key: NodeKey, kind: str, body: Mapping[str, Any], *, now: float, seconds: float | None = None
) -> Statement:
    """Return a statement of this node.

    Args:
        key: The node's key.
        kind: What it is.
        body: Its content, which JSON can represent.
        now: Unix seconds.
        seconds: For how long it counts; None for ever.
    """
    unsigned = Statement(kind, body, now, 0.0 if seconds is None else now + seconds)
    return replace(unsigned, signature=key.sign(_DOMAIN, _signed_bytes(unsigned)))


def _signed_bytes(statement: Statement) -> bytes:
    return canonical_json(replace(statement, signature="").to_json())


def _refused(kind: str, reason: str, hint: str | None = None) -> Denied:
    return Denied(f"accepting a {kind} of a peer: {reason}", hint=hint)
