"""Where a snapshot comes from: who made it, by which statement and engine, from which snapshots.

The author, the statement and the ids of the inputs are in `SnapshotInfo`. `Provenance` is the rest of a
manifest's record, which names the inputs so that they are understood when they are gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from sennit_core.records import Record

__all__ = ["InputSnapshot", "Provenance", "engine_version", "made_by"]


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


def made_by(engine: str, inputs: tuple[InputSnapshot, ...] = ()) -> Provenance:
    """Return the record of an engine, with the versions of this installation."""
    lake_version = engine_version("sennit")
    return Provenance(engine, engine_version(engine), lake_version, inputs)


@cache
def engine_version(engine: str) -> str:
    """Return the installed version of an engine; empty if it is unknown."""
    package = "sennit-lake" if engine == "sennit" else engine
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
