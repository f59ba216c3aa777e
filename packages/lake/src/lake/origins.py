"""Who makes a change and by what, and the record of it in the new snapshot."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lake.node_key import signer_of
from lake.provenance import InputSnapshot, Provenance, made_by
from sennit_core.errors import Corrupt, NotFound

if TYPE_CHECKING:
    from lake.catalog import Catalog
    from lake.snapshots import AnyManifest

__all__ = ["Origin", "described_origin"]

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
    """

    statement: str
    author: str
    engine: str = "sennit"
    hidden: bool = False
    datasets: dict[str, str] = field(default_factory=dict)

    def text(self, *, hidden: bool = False) -> str:
        """Return the statement, or only its verb if it is hidden."""
        if self.hidden or hidden:
            return "".join(self.statement.split(maxsplit=1)[:1]).upper()
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


def described_origin(manifest: AnyManifest) -> dict[str, Any]:
    """Return the members that show where a snapshot comes from, for its JSON.

    `signedBy` is the id of the node that signed it; null if it is not signed.
    """
    signature, provenance = manifest.snapshot.signature, manifest.provenance
    return {
        "provenance": None if provenance is None else provenance.to_json(),
        "signedBy": None if signature is None else signer_of(signature),
    }
