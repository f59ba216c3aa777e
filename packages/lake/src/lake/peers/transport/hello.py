"""What two nodes say of themselves before anything else: versions, and what they can do.

Two nodes talk if their ranges of protocol versions overlap. What both of them can do is the
intersection of their features; what needs a feature that a peer lacks is done without that peer, or
refused with its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lake.peers.transport.messages import Message
from sennit_core.errors import Unsupported

__all__ = ["BULK", "FEATURES", "PROTOCOL", "PROTOCOL_MIN", "TASKS", "Hello", "check_protocol"]

PROTOCOL = 1
PROTOCOL_MIN = 1
BULK = "bulk"
"""Serves bulk streams (`lake.peers.transport.bulk_server`)."""
FEATURES = (
    *(
        "broadcast",
        BULK,
        "changes",
        "chunks",
        "fragments",
        "handover",
        "inputs",
        "queue",
        "relay",
        "reports",
    ),
    "returning",
)
"""What this version can do, and `TASKS` if the node has executors for jobs.

`broadcast` runs parts of queries with rows that come along (`lake.peers.queries.sent_rows`), `bulk` sends chunks by streams of their own, `changes` makes changes of other nodes, `chunks` sends objects, `fragments` runs parts of queries,
`handover` follows a dataset to another writer (`lake.peers.handovers.handovers`), `inputs` fetches rows that a change reads
from its sender, `queue` keeps receipts for two weeks (`lake.peers.changes.append_queue`), `relay` forwards connections, `reports` says what the node sees (`lake.peers.members.reports`), `returning`
sends the rows that a change of another node returns.
"""
TASKS = "tasks"
"""Runs tasks of jobs (`lake.peers.jobs.server`)."""


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """The first message in each direction.

    Args:
        name: The node's name.
        version: Of Sennit.
        protocol: The newest version of this protocol that it speaks.
        protocol_min: The oldest.
        duckdb: The version of its DuckDB; aggregate states are exchanged only between equal ones.
        features: What it can do.
        addresses: Where it listens, `host:port`; empty if it cannot be dialed.
    """

    kind: ClassVar[str] = "hello"
    name: str
    version: str
    protocol: int
    protocol_min: int
    duckdb: str
    features: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


def check_protocol(own: Hello, other: Hello) -> int:
    """Return the version of the protocol that two nodes speak.

    Raises:
        Unsupported: There is none.
    """
    newest = min(own.protocol, other.protocol)
    if newest < max(own.protocol_min, other.protocol_min):
        raise Unsupported(
            f"node {other.name} speaks versions {other.protocol_min} to {other.protocol} of the "
            f"protocol, this node {own.protocol_min} to {own.protocol}",
            hint=f"update the older one: they run Sennit {other.version} and {own.version}",
        )
    return newest
