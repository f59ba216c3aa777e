"""The rows of an upsert, once they are encoded to the columns of their dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lake.catalog.file_schemas import column_ids
from sennit_core.errors import BadInput
from sennit_core.records import SnapshotInfo
from sennit_core.schema import Schema

__all__ = ["UpsertSource"]


@dataclass(frozen=True, slots=True)
class UpsertSource:
    """Rows to merge into a dataset, encoded to its columns.

    Args:
        snapshot: Id of the new snapshot.
        dataset: The dataset's id.
        name: The file's name, for errors.
        paths: The shards, which are not encrypted.
        key: The names of the key's columns.
        schema: The columns of the shards.
        columns: Their ids.
        encrypted: Whether the dataset is encrypted, so that no error may quote a value.
    """

    snapshot: str
    dataset: str
    name: str
    paths: tuple[str, ...]
    key: tuple[str, ...]
    schema: Schema
    columns: tuple[int, ...]
    encrypted: bool = False

    @property
    def text(self) -> str:
        """The change in words, for the snapshot's record."""
        return f"upsert by {', '.join(self.key)}"

    @property
    def members(self) -> dict[str, Any]:
        """The members of the executor's request."""
        return {
            "source": list(self.paths),
            "key": list(self.key),
            "name": self.name,
            "schema": self.schema.to_json(),
            "columns": self.columns,
        }

    def check(self, head: SnapshotInfo) -> None:
        """Refuse a state of the dataset with other columns than the rows were encoded to.

        Raises:
            BadInput: It has others.
        """
        if (self.schema, self.columns) != (head.schema, column_ids(head)):
            raise BadInput(self.name, reason="the dataset's columns have changed", hint="try again")
