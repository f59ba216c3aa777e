"""Ingest files as datasets: encode in an executor, adopt the shards, commit in one step.

All steps before the commit are invisible and repeatable; the upload is kept until the dataset is
committed. The snapshot has the upload's id, so that after a crash one lookup in the catalog shows
whether the ingest was committed.

What a crash leaves at each step, and who removes it:

    executor writes staging/<upload>/*.parquet     staging is emptied at the next start
    lease the shards' ids                          (in memory only)
    adopt: chunk list, fsync, rename               unreferenced objects: the sweep at the start
    write the manifest object                      the same
    one write of the tree: dataset, snapshot, ids  the commit
    delete the upload                              a repeated ingest finds the snapshot

A repeated ingest starts over from the upload; shards with equal bytes are the same objects.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from lake._failpoints import reached
from lake.catalog.catalog import Catalog, check_dataset_name
from lake.catalog.file_schemas import (
    column_ids,
    defaults_of,
    overall_stats,
    stats_with,
    with_new_shards,
)
from lake.catalog.layouts import Layout, layout_of
from lake.catalog.provenance import made_by
from lake.catalog.reject_files import RejectFiles
from lake.catalog.snapshots import AnyManifest, Manifest
from lake.encryption.files import EncryptedFile, Source
from lake.encryption.sealed import Seal
from lake.encryption.vault import Vault
from lake.errors import not_encrypted
from lake.links.local_files import LocalFile
from lake.maintenance.retention import Retention
from lake.objects.disk_space import DiskSpace
from lake.objects.durable import storage_errors
from lake.objects.store import ObjectStore
from lake.statements.foreground import FOREGROUND
from lake.uploads.upload import SealedUpload
from lake.writes.new_shards import adopt_shards
from sennit_core.clock import Clock
from sennit_core.errors import BadInput, Cancelled, Conflict, UsageError
from sennit_core.file_kinds import unpacked_name
from sennit_core.private_files import make_private_folder
from sennit_core.records import DatasetInfo, Progress, ShardInfo, SnapshotInfo
from sennit_core.schema import Schema
from sennit_core.units import MIB

if TYPE_CHECKING:
    from emsqrt.executor import Execution, ExecutorPool

__all__ = ["CheckEncoded", "IngestRequest", "Ingestor", "dataset_name"]

ENTRY = "lake.ingest"
_POLL_SECONDS = 0.2

CheckEncoded: TypeAlias = Callable[[dict[str, Any], "Seal | None"], object]
"""Checks the response of `lake.ingest.worker`, with what its shards are encrypted with."""

_ENDINGS = (
    *(".csv", ".tsv", ".tab", ".txt", ".parquet", ".arrow", ".feather", ".xlsx", ".xlsm"),
    *(".jsonl", ".ndjson", ".json", ".geojson"),
)


@dataclass(frozen=True)
class IngestRequest:
    """A file to ingest as a dataset, or to append to one.

    Args:
        snapshot: Id of the new snapshot.
        dataset: Id of the dataset, if it is created.
        name: The file's name.
        paths: Its bytes, in order.
        mode: `create`, `append`, `replace` or `upsert`.
        options: Ingest options; `name` names the dataset.
        owner: Owner of the dataset.
        file: The file, if it is read in place; it must not change meanwhile.
        linked: Whether the dataset exists already, linked to the file.
        is_upload: Whether the bytes are parts that the lake received.
        all_columns: Whether a file to append has to have all columns of the dataset.
    """

    snapshot: str
    dataset: str
    name: str
    paths: tuple[Source, ...]
    mode: str
    options: dict[str, Any]
    owner: str = ""
    file: LocalFile | None = None
    linked: bool = False
    is_upload: bool = False
    all_columns: bool = False

    @classmethod
    def of(cls, sealed: SealedUpload, owner: str) -> Self:
        """Return the request for a complete upload."""
        upload = sealed.upload
        return cls(
            snapshot=upload.id,
            dataset=upload.dataset,
            name=upload.name,
            paths=sealed.paths,
            mode=upload.mode,
            options=upload.options,
            owner=owner,
            file=upload.file,
            linked=upload.linked,
            is_upload=upload.file is None,
        )

    @property
    def encrypted(self) -> bool:
        """Whether its bytes are encrypted."""
        return any(isinstance(path, EncryptedFile) for path in self.paths)

    @property
    def dataset_name(self) -> str:
        """The dataset's name."""
        return dataset_name(self.name, self.options)


def dataset_name(file_name: str, options: dict[str, Any]) -> str:
    """Return the option `name`, else the file's name without its extension."""
    chosen = options.get("name")
    if chosen is not None:
        return check_dataset_name(str(chosen))
    file_name = unpacked_name(file_name)
    lower = file_name.lower()
    ending = next((end for end in _ENDINGS if lower.endswith(end)), "")
    stem = file_name[: len(file_name) - len(ending)].strip()
    return check_dataset_name(stem or file_name)


class Ingestor:
    """Ingests files into datasets.

    Args:
        objects: Stores the shards.
        catalog: Commits the datasets.
        retention: Leases the shards until they are committed.
        pool: Runs the encoding.
        staging: Folder for files that are not objects yet; its owner empties it at startup.
        clock: Source of commit times.
        keep_source: Default of the option `keepSource`: whether to keep the original file.
        upload_bytes_max: Largest unpacked size of a compressed file; None for no limit.
        space: Limits what an ingest may write.
        vault: Has the keys of encrypted datasets.
        rejects: Stores the rows that were left out.
    """

    def __init__(  # noqa: PLR0913 - the components of a lake
        self,
        objects: ObjectStore,
        catalog: Catalog,
        retention: Retention,
        pool: ExecutorPool,
        staging: Path,
        *,
        clock: Clock,
        keep_source: bool = False,
        upload_bytes_max: int | None = None,
        space: DiskSpace,
        vault: Vault,
        rejects: RejectFiles,
    ) -> None:
        self._vault = vault
        self._space = space
        self._objects = objects
        self._catalog = catalog
        self._retention = retention
        self._pool = pool
        self._staging = staging
        self._clock = clock
        self._rejects = rejects
        self._keep_source_default = keep_source
        self._upload_bytes_max = upload_bytes_max

    def ingest(
        self,
        request: IngestRequest,
        *,
        on_progress: Callable[[Progress], object] | None = None,
        cancelled: Callable[[], bool] | None = None,
        check: CheckEncoded | None = None,
    ) -> DatasetInfo:
        """Encode the file and commit the dataset; blocks until it is committed.

        Args:
            request: The file.
            on_progress: Called with the progress of encoding.
            cancelled: Called several times per second; True stops the work.
            check: Called with the executor's response before the commit, which it may refuse.

        Raises:
            BadInput: The file cannot be read, with line and byte offset where they are known.
            Conflict: The mode is `create` and the dataset exists.
            Cancelled: `cancelled` returned True.
        """
        # Checked here only to refuse early; `_commit` decides, after minutes of encoding.
        target = self._target(request)
        self._space.check(f"the ingest of {request.name!r}")
        # Named by the upload, so that a repetition removes what a killed attempt has left.
        folder = self._staging / request.snapshot
        with storage_errors(folder, 0):
            shutil.rmtree(folder, ignore_errors=True)
            make_private_folder(folder)
        try:
            with ExitStack() as stack:
                seal = self.seal_for(request, target, stack)
                answer = self.encode(request, target, folder, seal, on_progress, cancelled)
                if check is not None:
                    check(answer, seal)
                reached("ingest-encoded")
                return self._adopt_and_commit(request, answer, seal, cancelled)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def encode(
        self,
        request: IngestRequest,
        target: DatasetInfo | None,
        folder: Path,
        seal: Seal | None = None,
        on_progress: Callable[[Progress], object] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> dict[str, Any]:
        """Write the file's rows as shards into a folder; return the response of `lake.ingest.worker`.

        Args:
            request: The file.
            target: The dataset whose columns they get, if the mode is `append`.
            folder: Where to write.
            seal: What encrypts them; None for no encryption.
            on_progress: As of `ingest`.
            cancelled: As of `ingest`.

        Raises:
            BadInput: The file cannot be read.
            Cancelled: `cancelled` returned True.
        """
        worker_request = {
            "paths": [_sent(path) for path in request.paths],
            "name": request.name,
            "folder": str(folder),
            "options": request.options,
            **self._columns_of(request, target if request.mode == "append" else None),
            "bytesMax": self._upload_bytes_max,
            "space": self._space.limit().to_json(),
            "seal": None if seal is None else seal.to_json(),
            "statements": str(self._staging.parent / FOREGROUND),
            "waits": request.linked,
            "allColumns": request.all_columns,
            "hashSource": request.file is not None and seal is None,
        }
        _check_file(request)
        # Not restartable: an attempt may run for minutes and writes files from the start.
        with self._pool.submit(
            ENTRY, worker_request, on_progress=on_progress, user=request.owner, bounded=False
        ) as execution:
            try:
                answer = _wait(execution, cancelled)
            except BadInput as error:
                if seal is None:
                    raise
                raise _without_values(error) from None
        _check(cancelled)
        _check_file(request)  # it was read in between, and had one state
        return answer

    def seal_for(
        self, request: IngestRequest, target: DatasetInfo | None, stack: ExitStack
    ) -> Seal | None:
        """Return what encrypts the shards; None if the dataset is not encrypted.

        Args:
            request: The file.
            target: The dataset; None if it is created.
            stack: Removes the folder of files that are not encrypted yet.
        """
        # Also if the dataset that it was to be appended to is gone.
        asked = request.options.get("encrypt")
        wanted = request.encrypted or self._vault.is_wanted(asked)
        if target is not None and (asked or request.encrypted) and not target.encrypted:
            raise not_encrypted(target.name)
        if not (wanted if target is None else target.encrypted):
            return None
        if request.is_upload and not request.encrypted:
            raise Conflict(
                f"the upload {request.name!r} began before its dataset was encrypted",
                hint="abort it, and upload the file again: its parts are not encrypted",
            )
        if request.options.get("keepSource"):
            raise UsageError("the source of an encrypted dataset cannot be kept")
        if request.options.get("onBadRow") == "skip":
            raise UsageError("rejected rows of an encrypted dataset cannot be kept")
        if target is None:
            # Durable before the dataset. If the ingest fails, the next start removes it: only then
            # it is certain that the commit did not reach the disk.
            key, dataset = self._vault.keys.create(request.dataset), request.dataset
        else:
            key, dataset = self._vault.keys.key(target.id, target.name), target.id
        folder = stack.enter_context(self._vault.folder())
        return Seal(key, dataset, folder, self._vault.cache.free_bytes)

    def _columns_of(self, request: IngestRequest, target: DatasetInfo | None) -> dict[str, Any]:
        """Return the columns and the layout of the dataset to append to, for the executor."""
        if target is None:
            return {}
        head = self._catalog.stored_manifest(target.id).snapshot
        if request.options.get("partitionBy") or request.options.get("sortBy"):
            raise UsageError(
                f"dataset {target.name!r} exists, and has a layout of its own",
                hint="ALTER TABLE … SET PARTITIONED BY or SET SORTED BY changes it",
            )
        return {
            "schema": target.schema.to_json(),
            "columns": column_ids(head),
            "layout": layout_of(head).to_json(),
            "defaults": self._defaults_of(head),
        }

    def _defaults_of(self, head: SnapshotInfo) -> dict[str, Any] | None:
        """Return the values of the columns that the file may lack; DuckDB computes them."""
        if not head.defaults:
            return None
        request = {
            "engine": "defaults",
            "schema": head.schema.to_json(),
            "defaults": defaults_of(head),
        }
        with self._pool.submit("lake.sql", request, restartable=True) as execution:
            return execution.result()

    def _adopt_and_commit(
        self,
        request: IngestRequest,
        answer: dict[str, Any],
        seal: Seal | None,
        cancelled: Callable[[], bool] | None,
    ) -> DatasetInfo:
        objects = [shard["object"] for shard in answer["shards"]]
        try:
            with ExitStack() as leases:
                # No snapshot references the shards yet, and another dataset may have shards of the
                # same content: without the lease, deleting that dataset would delete these.
                leases.enter_context(self._retention.lease(objects))
                source = None
                kept = request.options.get("keepSource", self._keep_source_default)
                if kept and seal is None:
                    source = self._keep_source(request)
                    objects.append(source)
                    leases.enter_context(self._retention.lease((source,)))
                shards = adopt_shards(
                    self._objects,
                    answer["shards"],
                    source,
                    after_first=lambda: reached("ingest-half-adopted"),
                )
                reached("ingest-adopted")
                _check(cancelled)  # the last time: a committed dataset is not taken back
                return self._commit(request, answer, shards, seal)
        except BaseException:
            self._retention.discard(objects)
            raise

    def _target(self, request: IngestRequest) -> DatasetInfo | None:
        """Return the dataset to append to or replace; refuse an existing name before encoding."""
        if request.linked:
            return self._linked(request)
        name = request.dataset_name
        if request.mode == "create":
            self._catalog.check_free(name)
            return None
        return self._catalog.find(name)

    def _linked(self, request: IngestRequest) -> DatasetInfo:
        """Return the dataset that is linked to the file."""
        found = self._catalog.find(request.dataset)
        if found is None:
            raise Conflict(f"the dataset of {request.name} was deleted in the meantime")
        if found.head is not None:
            raise Conflict(f"dataset {found.name!r} was replaced in the meantime")
        return found

    def _keep_source(self, request: IngestRequest) -> str:
        """Store the original file as one object; return its id."""
        with self._objects.open_writer(bounded=True) as writer:
            for path in request.paths:
                with path.open("rb", buffering=0) as part:
                    while piece := part.read(MIB):
                        writer.write(piece)
            return writer.commit().object

    def _commit(
        self,
        request: IngestRequest,
        answer: dict[str, Any],
        shards: tuple[ShardInfo, ...],
        seal: Seal | None,
    ) -> DatasetInfo:
        schema = Schema.from_json(answer["schema"])
        self._catalog.commit_locks.wait(self._catalog.find_id(request.dataset_name))
        # An append derives its shards from the head, so no other commit may come in between.
        with self._catalog.writing():
            target = self._target(request)  # the name may have been used since the first check
            dataset = target or DatasetInfo(
                id=request.dataset,
                name=request.dataset_name,
                owner=request.owner,
                schema=schema,
                encrypted=seal is not None,
            )
            if (dataset.id if dataset.encrypted else None) != (seal and seal.dataset):
                raise Conflict(f"dataset {dataset.name!r} was changed in the meantime")
            # The upload's id, so that `Lake._committed` recognizes a commit after a crash.
            snapshot = SnapshotInfo(
                request.snapshot, dataset.head, dataset.id, schema, (), {}, request.owner, None, ()
            )
            described = _described(request, answer, dataset)
            manifest: AnyManifest
            if target is not None and request.mode == "append":
                stored = self._catalog.stored_manifest(target.id)
                head = stored.snapshot
                # The executor encoded to the columns that the dataset had at the first check.
                if (schema, tuple(answer["columns"])) != (head.schema, column_ids(head)):
                    raise BadInput(what=request.name, reason="the dataset's columns have changed")
                base, shards = with_new_shards(head, shards)
                snapshot = replace(
                    snapshot,
                    shards=shards,
                    columns=base.columns,
                    last_column=base.last_column,
                    file_schemas=base.file_schemas,
                    defaults=base.defaults,
                    **layout_of(base).members(),
                )
                snapshot = replace(snapshot, stats=stats_with(head, snapshot))
                manifest = stored.extended(
                    snapshot, self._clock.now(), described, made_by("sennit")
                )
            else:
                layout = Layout.from_json(answer.get("layout"))
                snapshot = replace(snapshot, shards=shards, **layout.members())
                snapshot = replace(snapshot, stats=overall_stats(snapshot))
                manifest = Manifest(
                    snapshot, self._clock.now(), described, provenance=made_by("sennit")
                )
            if answer.get("rejects"):
                self._rejects.keep(dataset.id, snapshot.id, Path(answer["rejects"]["file"]))
            reached("ingest-manifest")
            return self._catalog.commit(dataset, manifest, expected_head=dataset.head)


def _sent(source: Source) -> str | dict[str, Any]:
    return source.to_json() if isinstance(source, EncryptedFile) else str(source)


def _without_values(error: BadInput) -> BadInput:
    """Return the error without its reason, which may quote the file: a job's row has its error."""
    reason = "it does not fit; no value is shown, because the dataset is encrypted"
    return BadInput(error.what, error.line, error.byte_offset, reason)


def _described(
    request: IngestRequest, answer: dict[str, Any], dataset: DatasetInfo
) -> dict[str, Any]:
    """Return how the data was read; a manifest is not encrypted, and findings quote values."""
    source, report = answer["source"], answer["report"]
    if dataset.encrypted:
        source = {"format": source["format"], "bytes": source["bytes"]}
        report = {"widened": [], "renamed": [], "notes": []}
    return {"name": request.name, "source": source, "report": report}


def _wait(execution: Execution, cancelled: Callable[[], bool] | None) -> dict[str, Any]:
    while cancelled is not None and not execution.done:
        if cancelled():
            execution.cancel()
            break
        execution.wait(_POLL_SECONDS)
    return execution.result()


def _check_file(request: IngestRequest) -> None:
    if request.file is not None:
        request.file.check(request.dataset_name)


def _check(cancelled: Callable[[], bool] | None) -> None:
    """Raise Cancelled if cancellation was requested; called only before the commit."""
    if cancelled is not None and cancelled():
        raise Cancelled("the ingest")


def committed(catalog: Catalog, request: IngestRequest) -> DatasetInfo | None:
    """Return the dataset if this upload has already been committed to it."""
    name = dataset_name(request.name, request.options)
    # A created dataset has the id that the upload assigned; an appended one is found by its
    # name.
    for key in (request.dataset, name):
        info = catalog.find_known(key)
        if info is not None and catalog.has_snapshot(info.id, request.snapshot):
            return info
    return None
