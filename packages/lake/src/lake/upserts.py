"""Merge a file's rows into a dataset by key.

The file is encoded as for an append, into shards of the staging folder. A statement
(`lake.sql.upsert_worker`) then merges them into the shards with equal keys. If another change comes in
between, the statement runs again, on the shards that were encoded.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from lake.errors import not_ingested
from lake.file_schemas import column_ids
from sennit_core.errors import BadInput, UnknownColumn, Unsupported, UsageError, nearest
from sennit_core.records import DatasetInfo, Progress, SnapshotInfo
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from lake.catalog import Catalog
    from lake.ingestor import Ingestor, IngestRequest
    from lake.running import RunningStatement
    from lake.writes import Writer

__all__ = ["UPSERT_ATTEMPTS", "UpsertSource", "Upserts", "check_upsert"]

UPSERT_ATTEMPTS = 16
"""Each append in between repeats an upsert; a small one takes about as long as several appends."""

_REFUSED = {"encrypt": "encrypt", "keepSource": "keep_source", "onBadRow": "on_bad_row"}


@dataclass(frozen=True, slots=True)
class UpsertSource:
    """Rows to merge into a dataset, encoded to its columns.

    Args:
        snapshot: Id of the new snapshot.
        dataset: The dataset's id.
        name: The file's name, for errors.
        paths: The shards.
        key: The names of the key's columns.
        schema: The columns of the shards.
        columns: Their ids.
    """

    snapshot: str
    dataset: str
    name: str
    paths: tuple[str, ...]
    key: tuple[str, ...]
    schema: Schema
    columns: tuple[int, ...]

    @property
    def text(self) -> str:
        """The change in words, for the snapshot's record."""
        return f"upsert by {', '.join(self.key)}"

    @property
    def members(self) -> dict[str, Any]:
        """The members of the executor's request."""
        return {"source": list(self.paths), "key": list(self.key), "name": self.name}

    def check(self, head: SnapshotInfo) -> None:
        """Refuse a state of the dataset with other columns than the rows were encoded to.

        Raises:
            BadInput: It has others.
        """
        if (self.schema, self.columns) != (head.schema, column_ids(head)):
            raise BadInput(self.name, reason="the dataset's columns have changed", hint="try again")


class Upserts:
    """Merges files into datasets.

    Args:
        catalog: Knows the datasets.
        ingestor: Encodes the files.
        writer: Has the staging folder.
        start: Starts the statement (`Statements.upsert`).
    """

    def __init__(
        self,
        catalog: Catalog,
        ingestor: Ingestor,
        writer: Writer,
        start: Callable[[UpsertSource, str], RunningStatement],
    ) -> None:
        self._catalog = catalog
        self._ingestor = ingestor
        self._writer = writer
        self._start = start
        # Of two upserts into one dataset the second would be in vain; weak, so an entry goes with
        # its last user.
        self._locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._locks_lock = threading.Lock()

    def ingest(
        self,
        request: IngestRequest,
        *,
        on_progress: Callable[[Progress], object] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> DatasetInfo:
        """Merge a file's rows into a dataset; blocks until they are committed.

        Args:
            request: The file, of the mode `upsert`; its option `key` names the columns of the key.
            on_progress: Called with the progress of encoding.
            cancelled: Called several times per second while the file is encoded; True stops that.
        """
        target, columns = check_upsert(self._catalog, request.dataset_name, request.options)
        options = {name: value for name, value in request.options.items() if name != "key"}
        encoded = replace(request, mode="append", options=options, all_columns=True)
        folder = self._writer.open_folder()
        try:
            answer = self._ingestor.encode(
                encoded, target, folder, on_progress=on_progress, cancelled=cancelled
            )
            source = UpsertSource(
                request.snapshot, target.id, request.name,
                tuple(shard["file"] for shard in answer["shards"]), columns,
                Schema.from_json(answer["schema"]), tuple(answer["columns"]),
            )  # fmt: skip
            if source.paths:
                with self._lock_of(target.id), self._start(source, request.owner) as execution:
                    execution.result()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return self._catalog.get(target.id)

    def _lock_of(self, dataset: str) -> threading.Lock:
        with self._locks_lock:
            return self._locks.setdefault(dataset, threading.Lock())


def check_upsert(
    catalog: Catalog, dataset: str, options: Mapping[str, Any]
) -> tuple[DatasetInfo, tuple[str, ...]]:
    """Return the dataset of an upsert and the columns of its key, before the file is read.

    Args:
        catalog: Knows the datasets.
        dataset: Its id or name.
        options: Ingest options, with `key`.

    Raises:
        NotFound: There is no such dataset.
        UnknownColumn: It has no column of the key.
        Unsupported: It is encrypted.
    """
    target = catalog.get(dataset)
    if target.head is None:
        raise not_ingested(target.name)
    if target.encrypted:
        raise Unsupported(
            f"upsert into {target.name!r}, which is encrypted",
            hint="append the rows to another encrypted dataset, and use MERGE INTO",
        )
    for wire, option in _REFUSED.items():
        if wire in options:
            raise UsageError(f"upsert has no option {option!r}", hint="leave it out")
    return target, key_columns(options.get("key"), target.schema)


def key_columns(key: object, schema: Schema) -> tuple[str, ...]:
    """Return the names of a key's columns as the dataset writes them.

    Args:
        key: A list of names.
        schema: The dataset's columns.

    Raises:
        UsageError: It is none, or names a column twice.
        UnknownColumn: The dataset has no such column.
    """
    if not isinstance(key, list | tuple) or not key or not all(isinstance(k, str) for k in key):
        raise UsageError("an upsert needs a list of the columns of its key", hint='key: ["id"]')
    known = {name.casefold(): name for name in schema.names}
    for name in key:
        if name.casefold() not in known:
            raise UnknownColumn(
                name=name, known=schema.names, suggestion=nearest(name, schema.names)
            )
    found = tuple(known[name.casefold()] for name in key)
    if len(set(found)) < len(found):
        raise UsageError(f"the key names a column twice: {', '.join(key)}")
    return found
