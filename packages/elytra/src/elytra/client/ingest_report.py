"""How a file was read: the detected format and the changes that ingest made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sennit_core.records import DatasetInfo

__all__ = ["IngestReport", "IngestedDataset", "Note", "Renaming", "Widening"]


@dataclass(frozen=True, slots=True)
class Widening:
    """A column whose inferred type was widened because a value did not fit.

    Args:
        column: The column.
        line: Line of the first such value.
        value: The value, shortened.
        old: The type before.
        new: The type of the whole column after.
    """

    column: str
    line: int | None
    value: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Renaming:
    """A column that had no name, or the same name as another column.

    Args:
        index: Which column, from 0.
        old: The name in the file.
        new: The name in the dataset.
    """

    index: int
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence about the file, a column or a line."""

    text: str
    column: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class IngestReport:
    """How a dataset's newest data was read; `to_json` returns the node's whole report.

    Args:
        name: The file's name.
        format: `csv`, `json`, `jsonl`, `parquet`, `arrow` or `arrow-stream`.
        bytes: Size of the file as it was sent.
        compression: Compression format; None for an uncompressed file.
        encoding: Encoding of a text file.
        delimiter: Delimiter of a CSV file.
        header: Whether a CSV file has a header.
        widened: Columns whose inferred type was widened.
        renamed: Columns that were renamed.
        notes: Everything else.
    """

    name: str
    format: str
    bytes: int
    compression: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    header: bool | None = None
    widened: tuple[Widening, ...] = ()
    renamed: tuple[Renaming, ...] = ()
    notes: tuple[Note, ...] = ()
    _document: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the node's report unchanged: `name`, `source` and `report`."""
        return dict(self._document)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> IngestReport:
        """Read what `GET /api/datasets/{id}` has under `ingest`; absent members are empty."""
        source, report = document.get("source") or {}, document.get("report") or {}
        return cls(
            name=document.get("name", ""),
            format=source.get("format", ""),
            bytes=source.get("bytes", 0),
            compression=source.get("compression"),
            encoding=source.get("encoding"),
            delimiter=source.get("delimiter"),
            header=source.get("header"),
            widened=tuple(
                Widening(each["column"], each.get("line"), str(each.get("value", "")), each["from"],
                         each["to"])
                for each in _objects(report.get("widened"))
            ),
            renamed=tuple(
                Renaming(each["column"], each.get("from", ""), each["to"])
                for each in _objects(report.get("renamed"))
            ),
            notes=tuple(
                Note(each["note"], each.get("column"), each.get("line"))
                for each in _objects(report.get("notes"))
            ),
            _document=document,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class IngestedDataset(DatasetInfo):
    """A dataset, and the report of the file that was just ingested into it.

    Args:
        ingest: The report; None when there is none, as for computed data.
        queued: Id of the append, if it waits for the node that writes the dataset; None if it does not.
    """

    ingest: IngestReport | None = None
    queued: str | None = None


def _objects(found: Any) -> Iterable[Mapping[str, Any]]:
    return [each for each in found or () if isinstance(each, Mapping)]
