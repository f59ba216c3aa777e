"""Files that are appended to a dataset which another node writes: encoded here, committed there.

The file is read as for a dataset of this node, into shards with the dataset's columns. The writer fetches
them and runs a statement over them: an INSERT, or for an upsert a MERGE. So the file's format, its errors
and its types are a matter of this node, and what becomes part of the dataset one of its writer.

An upload has the id of its change: a repeated ingest, after a crash of this node, is a repetition for the
writer, which has made it or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lake.distributed.queued_appends import expiry_of
from lake.distributed.remote_shards import Changed, ForeignChange
from lake.distributed.staged_inputs import StagedInput, StagedObject
from lake.peers.transport.stop import SECONDS_MAX
from lake.sql.types import quoted
from lake.statements.limits import Requester
from lake.writes.new_shards import adopt_shards, files_of
from lake.writes.upsert_source import UpsertSource
from lake.writes.upserts import key_columns
from sennit_core.errors import Cancelled, UsageError
from sennit_core.ids import id_time
from sennit_core.logs import get_logger
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from lake.distributed.remote_shards import RemoteShards
    from lake.ingestor import Ingestor, IngestRequest
    from lake.maintenance.retention import Retention
    from lake.objects.store import ObjectStore
    from lake.statements.statements import Statements
    from lake.writes.writes import Writer
    from sennit_core.records import DatasetInfo, Progress, ShardInfo

__all__ = ["SENT_MODES", "ForeignAppends", "check_options"]

_log = get_logger(__name__)
SENT_MODES = ("append", "upsert")
"""Modes of an ingest into a dataset of another node."""
_REFUSED = ("keepSource", "onBadRow", "encrypt", "partitionBy", "sortBy")
_REPEATED_SECONDS = 23 * 3600.0
"""An upload is repeated for so long: a writer knows for a day what it has made."""
_POLL_SECONDS = 0.2
_MAX_NAME = 200


class ForeignAppends:
    """Appends files to datasets of other nodes.

    Args:
        ingestor: Encodes the files.
        writer: Has the staging folder.
        statements: Checks keys.
        objects: Stores the rows until the writer has fetched them.
        retention: Leases them.
        remote: The network.
    """

    def __init__(
        self,
        ingestor: Ingestor,
        writer: Writer,
        statements: Statements,
        objects: ObjectStore,
        retention: Retention,
        remote: RemoteShards,
    ) -> None:
        self._ingestor = ingestor
        self._writer = writer
        self._statements = statements
        self._objects = objects
        self._retention = retention
        self._remote = remote

    def append(
        self,
        request: IngestRequest,
        target: DatasetInfo,
        *,
        on_progress: Callable[[Progress], object] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        """Append a file, or merge it by key; blocks until the writer has committed it, or it is queued.

        Args:
            request: The file.
            target: The dataset.
            on_progress: Called with the progress of encoding.
            cancelled: Called several times per second; True stops the work.

        Raises:
            UsageError: An option has no effect at another node.
            Unavailable: The writer cannot be reached; the hint says whether it may be committed.
            SennitError: The writer's error: nothing was changed.
        """
        check_options(request.mode, request.options)
        own = ("key", "queue")
        options = {name: value for name, value in request.options.items() if name not in own}
        is_upsert = request.mode == "upsert"
        encoded = replace(request, mode="append", options=options, all_columns=is_upsert)
        with self._writer.folder() as folder:
            answer = self._ingestor.encode(
                encoded, target, folder, on_progress=on_progress, cancelled=cancelled
            )
            if not answer["shards"]:
                return
            key = key_columns(request.options["key"], target.schema) if is_upsert else ()
            if is_upsert:
                self._check_keys(request, target, key, answer)
            names = [each["object"] for each in answer["shards"]]
            try:
                with self._retention.lease(names):
                    shards = adopt_shards(self._objects, answer["shards"])
                    made = _wait(
                        self._remote.change(_change(request, target, key, answer, shards)),
                        cancelled,
                    )
            finally:
                self._retention.discard(names)
        if not made.is_here:
            _log.warning("version %d of %s has not arrived yet", made.version, target.name)

    def _check_keys(
        self,
        request: IngestRequest,
        target: DatasetInfo,
        key: tuple[str, ...],
        answer: dict[str, Any],
    ) -> None:
        schema, columns = Schema.from_json(answer["schema"]), answer.get("columns")
        paths = tuple(str(path) for _, path in files_of(answer["shards"]))
        self._statements.check_keys(
            UpsertSource(
                request.snapshot, target.id, request.name, paths, key, schema,
                tuple(columns or range(1, len(schema) + 1)),
            ),
            request.owner,
        )  # fmt: skip


def check_options(mode: str, options: Mapping[str, Any]) -> None:
    """Refuse options that another node does not know.

    Raises:
        UsageError: One is there.
    """
    if options.get("queue") and mode == "upsert":
        # The rows that it would replace then are others than its user knows.
        raise UsageError("an upsert cannot be queued", hint="only appends can: --mode append")
    for name in _REFUSED:
        if options.get(name):
            raise UsageError(
                f"an append to a dataset that another node writes has no option {name!r}",
                hint="leave it out",
            )


def _change(
    request: IngestRequest,
    target: DatasetInfo,
    key: tuple[str, ...],
    answer: dict[str, Any],
    shards: Sequence[ShardInfo],
) -> ForeignChange:
    """Return the change that appends shards, or merges them."""
    schema = Schema.from_json(answer["schema"])
    # In the history of the dataset the rows have the file's name.
    name = f"{request.name[:_MAX_NAME]} (file)"
    files = tuple(StagedObject(each.object, each.bytes) for each in shards)
    is_queued = bool(request.options.get("queue"))
    # So that it is the same in a repetition.
    is_repeated = request.is_upload or request.file is not None
    expires = id_time(request.snapshot) + _REPEATED_SECONDS if is_repeated else None
    if is_queued:
        expires = expiry_of(request.snapshot)
    return ForeignChange(
        target.id,
        target.name,
        _statement(target.name, name, schema.names, key),
        "",
        Requester(request.owner),
        SECONDS_MAX,
        inputs=(StagedInput(name, schema, files),),
        id=request.snapshot if is_repeated or is_queued else "",
        expires_at=expires,
        appends=not key,
        queue=is_queued,
        is_repeated=is_repeated,
    )


def _statement(table: str, rows: str, columns: Sequence[str], key: Sequence[str]) -> str:
    target, source = quoted(table), quoted(rows)
    if not key:
        return f"INSERT INTO {target} BY NAME FROM {source}"
    names = list(map(quoted, columns))
    found = " AND ".join(f"t.{name} = s.{name}" for name in map(quoted, key))
    values = [f"{name} = s.{name}" for name in names if name not in set(map(quoted, key))]
    update = f"WHEN MATCHED THEN UPDATE SET {', '.join(values)} " if values else ""
    return (
        f"MERGE INTO {target} AS t USING {source} AS s ON {found} {update}"
        f"WHEN NOT MATCHED THEN INSERT ({', '.join(names)}) "
        f"VALUES ({', '.join(f's.{name}' for name in names)})"
    )


def _wait(change: Future[Changed], cancelled: Callable[[], bool] | None) -> Changed:
    try:
        while True:
            try:
                return change.result(None if cancelled is None else _POLL_SECONDS)
            except FutureTimeout:
                if change.done():
                    raise
                if cancelled is not None and cancelled():
                    change.cancel()
    except FutureCancelled:
        raise Cancelled("the append") from None
