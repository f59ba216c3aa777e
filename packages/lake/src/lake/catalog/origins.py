"""Who makes a change and by what, and the record of it in the new snapshot."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lake.catalog.node_key import signer_of
from lake.catalog.provenance import InputSnapshot, Provenance, made_by
from sennit_core.errors import Corrupt, NotFound

if TYPE_CHECKING:
    from elkyn.records import Change
    from lake.catalog.catalog import Catalog
    from lake.catalog.snapshots import AnyManifest

__all__ = ["Origin", "snapshot_document", "verb_of", "with_shown_origin"]

_QUERY_MAX = 4096
"""Longest text of a statement in a snapshot's record."""
_INPUTS_MAX = 1000
"""The most inputs that are described; `SnapshotInfo.inputs` has the ids of all."""


@dataclass
class Origin:
    """Who makes a change, and by what.

    Args:
        statement: The statement, or what else made it.
        author: The user.
        engine: As in `Provenance`.
        hidden: Whether the statement reads or changes encrypted data, so that its text has values
            which may not be stored in the clear.
        datasets: The ids of the datasets that it may read, by the ids of their snapshots.
        snapshot: The id of the new snapshot, by which a repetition after a crash finds it; None for
            any.
        also: Rows that are written in one write with the commit.
    """

    statement: str
    author: str
    engine: str = "sennit"
    hidden: bool = False
    datasets: dict[str, str] = field(default_factory=dict)
    snapshot: str | None = None
    also: Sequence[Change] = ()

    def text(self, *, hidden: bool = False) -> str:
        """Return the statement, or only its verb if it is hidden."""
        if self.hidden or hidden:
            return verb_of(self.statement)
        return self.statement[:_QUERY_MAX]

    def provenance(self, inputs: Iterable[str], catalog: Catalog) -> Provenance:
        """Return the record of a change that read some snapshots."""
        found: list[InputSnapshot] = []
        for snapshot in dict.fromkeys(inputs):
            dataset = self.datasets.get(snapshot)
            if dataset is None or len(found) >= _INPUTS_MAX:
                continue
            # It may have been deleted since it was read.
            with suppress(NotFound, Corrupt):
                number = catalog.stored_manifest(dataset, snapshot).snapshot.version
                found.append(InputSnapshot(dataset, catalog.name(dataset), snapshot, number))
        return made_by(self.engine, tuple(found))


def verb_of(statement: str) -> str:
    """Return the first keyword of a statement; "" if a comment, say, is before it."""
    match = re.match(r"\s*([A-Za-z]+)", statement)
    return "" if match is None else match[1].upper()


def snapshot_document(manifest: AnyManifest) -> dict[str, Any]:
    """Return a snapshot without its shards as JSON.

    `signedBy` is the id of the node that signed it; null if it is not signed.
    """
    signature, provenance = manifest.snapshot.signature, manifest.provenance
    return replace(manifest.snapshot, shards=()).to_json() | {
        "createdAt": manifest.created_at,
        "rows": manifest.rows,
        "bytes": manifest.bytes,
        "shardCount": manifest.shards,
        "ingest": manifest.ingest,
        "provenance": None if provenance is None else provenance.to_json(),
        "signedBy": None if signature is None else signer_of(signature),
    }


def with_shown_origin(manifest: AnyManifest, is_readable: Callable[[str], bool]) -> AnyManifest:
    """Return a snapshot without what names a dataset that a user may not read.

    The text of its statement then is the verb alone: it may name columns, and have values as constants.

    Args:
        manifest: The snapshot.
        is_readable: Whether the user may read all of the dataset with this id.
    """
    snapshot, provenance = manifest.snapshot, manifest.provenance
    described = () if provenance is None else provenance.inputs
    inputs = tuple(each for each in described if is_readable(each.dataset))
    shown = {each.snapshot for each in inputs}
    # An input that is not described may be of any dataset.
    if len(inputs) == len(described) and shown.issuperset(snapshot.inputs):
        return manifest
    query = None if snapshot.query is None else verb_of(snapshot.query)
    kept = tuple(each for each in snapshot.inputs if each in shown)
    return replace(
        manifest,
        snapshot=replace(snapshot, query=query, inputs=kept),
        provenance=None if provenance is None else replace(provenance, inputs=inputs),
    )
