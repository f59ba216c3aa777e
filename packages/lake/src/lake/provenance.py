"""Where a snapshot comes from: who made it, by which statement and engine, from which snapshots.

The author, the statement and the ids of the inputs are in `SnapshotInfo`. `Provenance` is the rest of a
manifest's record, which names the inputs so that they are understood when they are gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from lake.node_key import signer_of
from sennit_core.errors import Corrupt, NotFound
from sennit_core.records import Record

if TYPE_CHECKING:
    from lake.catalog import Catalog
    from lake.snapshots import AnyManifest

__all__ = ["InputSnapshot", "Origin", "Provenance", "described_origin", "engine_version", "made_by"]

_QUERY_MAX = 4096
"""Longest text of a statement in a snapshot's record."""
_INPUTS_MAX = 1000
"""The most inputs that are described; `SnapshotInfo.inputs` has the ids of all."""


@dataclass(frozen=True, slots=True)
class InputSnapshot(Record):
    """A snapshot that a statement read.

    Args:
        dataset: Id of its dataset.
        name: The dataset's name at that time.
        snapshot: Its id.
        version: Its number in the dataset.
    """

    dataset: str
    name: str
    snapshot: str
    version: int


@dataclass(frozen=True, slots=True)
class Provenance(Record):
    """How a snapshot was computed.

    Args:
        engine: `duckdb` for a statement, `sennit` for an ingest or a change of the catalog.
        engine_version: Its version.
        lake_version: The version of this package.
        inputs: What was read.
    """

    engine: str
    engine_version: str
    lake_version: str
    inputs: tuple[InputSnapshot, ...] = ()


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


def made_by(engine: str, inputs: tuple[InputSnapshot, ...] = ()) -> Provenance:
    """Return the record of an engine, with the versions of this installation."""
    lake_version = engine_version("sennit")
    return Provenance(engine, engine_version(engine), lake_version, inputs)


def described_origin(manifest: AnyManifest) -> dict[str, Any]:
    """Return the members that show where a snapshot comes from, for its JSON.

    `signedBy` is the id of the node that signed it; null if it is not signed.
    """
    signature, provenance = manifest.snapshot.signature, manifest.provenance
    return {
        "provenance": None if provenance is None else provenance.to_json(),
        "signedBy": None if signature is None else signer_of(signature),
    }


@cache
def engine_version(engine: str) -> str:
    """Return the installed version of an engine; empty if it is unknown."""
    package = "sennit-lake" if engine == "sennit" else engine
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
