"""What simulated nodes store and sign: objects, versions of datasets, and statements."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import ormsgpack

from lake.peers.copies.placement import Placement
from lake.peers.members.statuses import NodeStatus, Suspicion, parse
from lake.peers.sharing.publications import ENTRY_SECONDS, EVERYONE
from lake.peers.sharing.sharing import SharedDataset
from lake.peers.transport.signed import CLOCK_SKEW_SECONDS, Statement
from sennit_core.errors import Denied
from sennit_core.hashing import canonical_json, object_id

CHUNK = 64
_STATUS_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object; `name` is its id, whatever happened to `data`."""

    name: str
    data: bytes
    digests: tuple[str, ...]

    @classmethod
    def of(cls, data: bytes) -> StoredObject:
        chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
        digests = tuple(hashlib.sha256(chunk).hexdigest() for chunk in chunks)
        return cls(object_id(len(data), CHUNK, digests), data, digests)

    @property
    def total(self) -> int:
        """What a query counts of it."""
        return int.from_bytes(self.data[-8:], "big")


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a dataset: its manifest, and the names and sizes of its shards."""

    dataset: str
    number: int
    manifest: str
    shards: tuple[tuple[str, int], ...]

    @property
    def names(self) -> set[str]:
        return {self.manifest, *(name for name, _ in self.shards)}


def manifest_of(dataset: str, number: int, shards: tuple[tuple[str, int], ...]) -> StoredObject:
    return StoredObject.of(canonical_json([dataset, number, [list(each) for each in shards]]))


def version_of(manifest: StoredObject) -> Version:
    dataset, number, shards = json.loads(manifest.data)
    return Version(dataset, number, manifest.name, tuple((name, size) for name, size in shards))


def described(version: Version, factor: int) -> dict[str, Any]:
    """Return what the writer publishes of a version."""
    shared = SharedDataset(
        version.dataset, version.dataset, "ann", f"s{version.number}", version.manifest,
        version.number, 1.0, (EVERYONE,), Placement(factor),
    )  # fmt: skip
    return dict(shared.to_json())


class Signer:
    """Signs statuses, suspicions and entries without cryptography, which nobody here forges.

    Times count as in `Statement.verify`, so clocks that differ too much have the same effects.
    """

    def __init__(self, node: str) -> None:
        self._node = node

    def sign_status(self, status: NodeStatus, now: float) -> Statement:
        return self._sign("status", status.to_json(), now, _STATUS_SECONDS)

    def sign_suspicion(self, suspicion: Suspicion, now: float) -> Statement:
        return self._sign("suspicion", suspicion.to_json(), now, _STATUS_SECONDS)

    def sign(self, body: Mapping[str, Any], now: float) -> Statement:
        return self._sign("publication", body, now, ENTRY_SECONDS)

    def _sign(self, kind: str, body: Mapping[str, Any], now: float, seconds: float) -> Statement:
        unsigned = Statement(kind, body, now, now + seconds)
        return replace(unsigned, signature=_signature(self._node, unsigned))


class GossipSigner(Signer):
    """Reads gossip."""

    def read(self, statement: Statement, now: float) -> NodeStatus | Suspicion:
        found = parse(statement)
        _check(statement, found.node if isinstance(found, NodeStatus) else found.by, now)
        return found


class EntrySigner(Signer):
    """Reads entries."""

    def read(self, entry: Statement, now: float) -> Mapping[str, Any]:
        _check(entry, str(entry.body["publisher"]), now)
        return entry.body


def _signature(node: str, statement: Statement) -> str:
    # Not the canonical form, which takes a fifth of the time of a history.
    signed = (statement.kind, statement.issued_at, statement.expires_at, statement.body)
    digest = zlib.crc32(ormsgpack.packb(signed, option=ormsgpack.OPT_SORT_KEYS))
    return f"{node}:{digest:08x}"


def _check(statement: Statement, signer: str, now: float) -> None:
    if statement.signature != _signature(signer, statement):
        raise Denied("accepting a forged statement")
    if statement.issued_at > now + CLOCK_SKEW_SECONDS:
        raise Denied("accepting a statement from the future")
    if statement.expires_at < now - CLOCK_SKEW_SECONDS:
        raise Denied("accepting a statement that has expired")
