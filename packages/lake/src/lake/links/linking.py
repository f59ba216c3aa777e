"""Link files of the node's own machine as datasets, and start their ingest.

    examine the file in an executor      DuckDB reads what the ingest will store: it is linked
    record an upload without parts       the ingest reads the file where it is
    write the link, then the dataset     from here on queries read the file
    ingest, commit                       the head is the first snapshot, which later queries read
    remove link and upload

A file that cannot be linked is ingested where it is, and becomes visible with its commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lake._failpoints import reached
from lake.catalog.catalog import Catalog
from lake.ingestor import dataset_name
from lake.links.links import Link, Links, may_exist
from lake.links.local_files import LocalFile
from lake.uploads.parts import PartStore
from lake.uploads.upload import check_name
from sennit_core.clock import Clock
from sennit_core.errors import Denied, Unsupported
from sennit_core.ids import new_id
from sennit_core.records import DatasetInfo
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from emsqrt.executor import ExecutorPool

__all__ = ["LinkRequest", "Linked", "Linker"]

_ENTRY = "lake.sql"


@dataclass(frozen=True, slots=True)
class LinkRequest:
    """A file to link.

    Args:
        path: Its absolute path on the node's machine.
        seen: `inode`, `size` and `mtimeNs` as the client sees them; None trusts the path.
        mode: `create`, `append`, `replace` or `upsert`; only a new dataset is linked.
        options: Ingest options.
        only: Whether the file is never ingested.
        owner: The owner of the new dataset.
    """

    path: str
    seen: Mapping[str, str] | None = None
    mode: str = "create"
    options: Mapping[str, Any] | None = None
    only: bool = False
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Linked:
    """What became of a file.

    Args:
        dataset: Id of the dataset.
        upload: The upload to ingest; None if the file is only linked.
        reason: Why the file is not linked, but ingested first; None if it is linked.
    """

    dataset: str
    upload: str | None
    reason: str | None


class Linker:
    """Links files.

    Args:
        folder: The node's data folder, whose files are not linked.
        catalog: Gets the datasets.
        parts: Records the uploads that ingest the files.
        pool: Examines the files.
        clock: Source of ids.
    """

    def __init__(
        self,
        folder: Path,
        catalog: Catalog,
        parts: PartStore,
        pool: ExecutorPool,
        *,
        clock: Clock,
    ) -> None:
        self._folder = folder
        self._catalog = catalog
        self.links = Links(folder / "lake" / "links")
        self._parts = parts
        self._pool = pool
        self._clock = clock

    def link(self, request: LinkRequest) -> Linked:
        """Link a file, or record it as an upload that is ingested where it is.

        Raises:
            Denied: The node may not, or cannot, read the file.
            Unsupported: `only` is set, and the file cannot be linked.
            BadInput: The file holds no table.
            Conflict: The mode is `create` and the dataset exists.
        """
        file = LocalFile.find(request.path, outside=self._folder)
        _check_seen(file, request.seen)
        options = dict(request.options or {})
        name = check_name(file.name)
        self._parts.check(name, request.mode, options)
        found = self._examine(file, name, options, request)
        reason = found.get("reason")
        if request.only and reason is not None:
            raise Unsupported(f"{name} cannot be linked: {reason}", hint="leave out --link-only")
        upload = None
        if not request.only:
            upload = self._parts.start_in_place(
                name, file, mode=request.mode, options=options, linked=reason is None
            )
        if reason is not None:
            assert upload is not None
            return Linked(upload.dataset, upload.id, reason)
        dataset = DatasetInfo(
            id=new_id(self._clock) if upload is None else upload.dataset,
            name=dataset_name(name, options),
            owner=request.owner,
            schema=Schema.from_json(found["schema"]),
            bytes=file.size,
        )
        upload_id = None if upload is None else upload.id
        try:
            self.links.add(Link(dataset.id, file, found["reader"], upload_id))
            reached("link-written")
            self._catalog.add_linked(dataset)
        except BaseException:
            self.links.remove(dataset.id)
            if upload is not None:
                self._parts.abort(upload.id)
            raise
        reached("link-committed")
        return Linked(dataset.id, upload_id, None)

    def link_of(self, dataset: str) -> Link | None:
        """Return the link of a dataset, by id or name; None if it has a snapshot."""
        info = self._catalog.get(dataset)
        return self.links.get(info.id, info.name) if info.head is None else None

    def uploads(self) -> dict[str, str]:
        """Return the uploads that ingest linked files: dataset ids by upload ids."""
        return self.links.of_uploads()

    def sweep(self) -> None:
        """Remove what a crash left: links without their dataset, and uploads of such links."""
        self.links.sweep(self._is_linked)
        for upload in self._parts.list():
            if upload.linked and not may_exist(self._catalog, upload.dataset):
                self._parts.abort(upload.id)

    def forget(self, dataset: DatasetInfo) -> None:
        """Remove the link of a dataset that was ingested or deleted, and the upload of a deleted one."""
        upload = next(
            (key for key, each in self.links.of_uploads().items() if each == dataset.id), None
        )
        if upload is not None:
            self._parts.abort(upload)
        self.links.remove(dataset.id)

    def _is_linked(self, dataset_id: str) -> bool:
        if not may_exist(self._catalog, dataset_id):
            return False
        info = self._catalog.find_known(dataset_id)
        return info is None or info.head is None

    def _examine(
        self, file: LocalFile, name: str, options: dict[str, Any], request: LinkRequest
    ) -> dict[str, Any]:
        if request.mode != "create":
            return {"reason": f"mode {request.mode} adds to a dataset"}
        members = {
            "engine": "link",
            "name": name,
            "file": file.to_json(),
            "folder": str(self._folder),
            "options": options,
        }
        with self._pool.submit(
            _ENTRY, members, user=request.owner, restartable=True, bounded=False
        ) as execution:
            return execution.result()


def _check_seen(file: LocalFile, seen: Mapping[str, str] | None) -> None:
    """Refuse a path at which the client sees another file.

    The client may reach the node through a tunnel or from a container: its paths are then not those
    of the node.
    """
    if seen is not None and dict(seen) != file.state:
        raise Denied(
            "linking a file that is another one for the node, or changes just now",
            needed="a file of the node's own machine",
            hint="upload it: `platform put FILE --copy`",
        )
