"""What nodes say of themselves, and of others that do not answer: the content of gossip.

A status is a statement of its node; it counts until one with a greater number arrives. A suspicion is a
statement of another node that this status was not confirmed when it was probed; the suspected node
refutes it by a status with a greater number. Both are verified before they are used or passed on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from lake.catalog.node_key import NodeKey
from lake.peers.transport.addresses import ADDRESSES_MAX
from lake.peers.transport.signed import Statement, sign
from sennit_core.errors import Denied, UsageError
from sennit_core.records import Record

__all__ = ["NodeStatus", "Signer", "StatementSigner", "Suspicion", "parse"]

_STATUS = "status"
_SUSPICION = "suspicion"
_STATUS_SECONDS = 24 * 3600.0
_SUSPICION_SECONDS = 600.0
_TEXT_MAX = 255
_FEATURES_MAX = 64


@dataclass(frozen=True, slots=True)
class NodeStatus(Record):
    """A node, as it describes itself.

    Args:
        node: Its id.
        number: Greater than that of its earlier statuses, across restarts too.
        state: `alive`, `leaving` while it hands over what it stores, or `left`.
        addresses: Where it listens; empty if it cannot be dialed.
        zone: The failure domain that it is in, such as an office; "" if it is in none.
        version: Of Sennit.
        duckdb: The version of its DuckDB.
        features: What it can do (`lake.peers.transport.hello`).
        capacity: Bytes that it offers for copies.
        used: Bytes of them that are in use.
    """

    node: str
    number: int
    state: Literal["alive", "leaving", "left"] = "alive"
    addresses: tuple[str, ...] = ()
    zone: str = ""
    version: str = ""
    duckdb: str = ""
    features: tuple[str, ...] = ()
    capacity: int = 0
    used: int = 0

    def check(self) -> None:
        """Refuse a status that no node of this version makes.

        Raises:
            UsageError: A member is too large.
        """
        texts = (*self.addresses, *self.features, self.zone, self.version, self.duckdb, self.node)
        too_long = any(len(text) > _TEXT_MAX for text in texts)
        if too_long or len(self.addresses) > ADDRESSES_MAX or len(self.features) > _FEATURES_MAX:
            raise UsageError(f"the status of node {self.node[:16]} is too large")


@dataclass(frozen=True, slots=True)
class Suspicion(Record):
    """A node did not answer.

    Args:
        node: Its id.
        number: That of its status which was not confirmed.
        by: The node that says so.
    """

    node: str
    number: int
    by: str


class Signer(Protocol):
    """Signs and verifies gossip; the simulation of large networks has one without signatures."""

    def sign_status(self, status: NodeStatus, now: float) -> Statement:
        """Return the statement of this node's status."""
        ...

    def sign_suspicion(self, suspicion: Suspicion, now: float) -> Statement:
        """Return the statement of this node's suspicion."""
        ...

    def read(self, statement: Statement, now: float) -> NodeStatus | Suspicion:
        """Return what a statement says.

        Raises:
            Denied: It is not of the node that it is about, or by; or does not count.
            UsageError: It is malformed.
        """
        ...


class StatementSigner:
    """Signs with the node's key.

    Args:
        key: The key.
    """

    def __init__(self, key: NodeKey) -> None:
        self._key = key

    def sign_status(self, status: NodeStatus, now: float) -> Statement:
        """Return the statement of this node's status."""
        return sign(self._key, _STATUS, status.to_json(), now=now, seconds=_STATUS_SECONDS)

    def sign_suspicion(self, suspicion: Suspicion, now: float) -> Statement:
        """Return the statement of this node's suspicion."""
        body = suspicion.to_json()
        return sign(self._key, _SUSPICION, body, now=now, seconds=_SUSPICION_SECONDS)

    def read(self, statement: Statement, now: float) -> NodeStatus | Suspicion:
        """Return what a statement says."""
        found = parse(statement)
        body_of = found.node if isinstance(found, NodeStatus) else found.by
        statement.verify(statement.kind, now, signer=body_of)
        return found


def parse(statement: Statement) -> NodeStatus | Suspicion:
    """Return what a statement says, without verifying it; raises as `Signer.read`."""
    if statement.kind == _STATUS:
        status = NodeStatus.from_known(statement.body)
        status.check()
        return status
    if statement.kind == _SUSPICION:
        return Suspicion.from_known(statement.body)
    raise Denied(f"accepting gossip of the kind {statement.kind[:40]!r}")
