"""Merge a file's rows into a dataset by key.

The file is encoded as for an append, into shards of the staging folder. A statement
(`lake.sql.upsert_worker`) then merges them into the shards with equal keys. If another change comes in
between, the statement runs again, on the shards that were encoded (`lake.writes.upsert_execution`).

If there is no dataset, the file is ingested as a new one, after the same check of its keys. Shards of
an encrypted dataset are encrypted in the staging folder, and decrypted in memory for the statement.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from lake.errors import not_encrypted, without_snapshot
from lake.writes.new_shards import files_of
from lake.writes.upsert_source import UpsertSource
from sennit_core.errors import Conflict, UnknownColumn, UsageError, nearest
from sennit_core.records import DatasetInfo, Progress
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from lake.catalog.catalog import Catalog
    from lake.encryption.sealed import Seal
    from lake.encryption.vault import Vault
    from lake.ingestor import Ingestor, IngestRequest
    from lake.statements.statements import Statements
    from lake.writes.writes import Writer

__all__ = ["Upserts", "check_upsert"]

_REFUSED = {"keepSource": "keep_source", "onBadRow": "on_bad_row"}


class Upserts:
    """Merges files into datasets.

    Args:
        catalog: Knows the datasets.
        ingestor: Encodes the files.
        writer: Has the staging folder.
        statements: Runs the statement.
        vault: Decrypts shards of encrypted datasets.
    """

    def __init__(
        self,
        catalog: Catalog,
        ingestor: Ingestor,
        writer: Writer,
        statements: Statements,
        vault: Vault,
    ) -> None:
        self._catalog = catalog
        self._ingestor = ingestor
        self._writer = writer
        self._statements = statements
        self._vault = vault
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
        """Merge a file's rows into a dataset, or create it; blocks until they are committed.

        Args:
            request: The file, of the mode `upsert`; its option `key` names the columns of the key.
            on_progress: Called with the progress of encoding.
            cancelled: Called several times per second while the file is encoded; True stops that.
        """
        target = check_upsert(self._catalog, request.dataset_name, request.options)
        options = {name: value for name, value in request.options.items() if name != "key"}
        observers: dict[str, Any] = {"on_progress": on_progress, "cancelled": cancelled}
        if target is None:
            key = request.options["key"]
            new = replace(request, mode="create", options=options)
            try:
                return self._ingestor.ingest(
                    new, check=lambda answer, seal: self._check(new, key, answer, seal), **observers
                )
            except Conflict:  # perhaps another upsert has just created it
                target = self._catalog.find(request.dataset_name)
                if target is None:
                    raise
        columns = key_columns(request.options["key"], target.schema)
        encoded = replace(request, mode="append", options=options, all_columns=True)
        with ExitStack() as stack:
            folder = stack.enter_context(self._writer.folder())
            seal = self._ingestor.seal_for(encoded, target, stack)
            answer = self._ingestor.encode(encoded, target, folder, seal, **observers)
            source = stack.enter_context(self._source(request, target.id, columns, answer, seal))
            if source.paths:
                stack.enter_context(self._lock_of(target.id))
                statement = self._statements.upsert(source, request.owner)
                stack.enter_context(statement).result()
        return self._catalog.get(target.id)

    @contextmanager
    def _source(
        self,
        request: IngestRequest,
        dataset: str,
        key: tuple[str, ...],
        answer: dict[str, Any],
        seal: Seal | None,
    ) -> Iterator[UpsertSource]:
        """Yield the rows of a response of `lake.ingest.worker`, in files that can be read."""
        files = files_of(answer["shards"])
        with ExitStack() as stack:
            if seal is None or not files:
                paths = tuple(str(path) for _, path in files)
            else:
                opened = self._vault.opened(dataset, request.dataset_name, files)
                paths = stack.enter_context(opened)
            schema, columns = Schema.from_json(answer["schema"]), answer.get("columns")
            yield UpsertSource(
                request.snapshot,
                dataset,
                request.name,
                paths,
                key,
                schema,
                tuple(columns or range(1, len(schema) + 1)),
                encrypted=seal is not None,
            )

    def _check(
        self, request: IngestRequest, key: object, answer: dict[str, Any], seal: Seal | None
    ) -> None:
        """Refuse rows of a new dataset that have no key of their own."""
        columns = key_columns(key, Schema.from_json(answer["schema"]))
        with self._source(request, request.dataset, columns, answer, seal) as source:
            self._statements.check_keys(source, request.owner)

    def _lock_of(self, dataset: str) -> threading.Lock:
        with self._locks_lock:
            return self._locks.setdefault(dataset, threading.Lock())


def check_upsert(catalog: Catalog, dataset: str, options: Mapping[str, Any]) -> DatasetInfo | None:
    """Return the dataset of an upsert, None if it is to be created, before the file is read.

    Args:
        catalog: Knows the datasets.
        dataset: Its id or name.
        options: Ingest options, with `key`.

    Raises:
        UsageError: There is no key, or an option that an upsert does not have.
        UnknownColumn: The dataset has no column of the key.
        Conflict: It is to be encrypted, and is there and is not.
    """
    for wire, option in _REFUSED.items():
        if wire in options:
            raise UsageError(f"upsert has no option {option!r}", hint="leave it out")
    target = catalog.find(dataset)
    if target is None:
        catalog.check_free(dataset)
        check_key(options.get("key"))
        return None
    if target.head is None:
        raise without_snapshot(target)
    if options.get("encrypt") and not target.encrypted:
        raise not_encrypted(target.name)
    key_columns(options.get("key"), target.schema)
    return target


def check_key(key: object) -> None:
    """Refuse a value that is no key of any dataset.

    Raises:
        UsageError: It is no list of names.
    """
    if not isinstance(key, list | tuple) or not key or not all(isinstance(k, str) for k in key):
        raise UsageError("an upsert needs a list of the columns of its key", hint='key: ["id"]')


def key_columns(key: object, schema: Schema) -> tuple[str, ...]:
    """Return the names of a key's columns as the dataset writes them.

    Args:
        key: A list of names.
        schema: The dataset's columns.

    Raises:
        UsageError: It is none, or names a column twice.
        UnknownColumn: The dataset has no such column.
    """
    check_key(key)
    assert isinstance(key, list | tuple)
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
