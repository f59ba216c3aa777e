"""Uploads of tus: their creation, where they are, and the ingest of those that are whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lake.ingestor import dataset_name
from lake.uploads.concatenation import concatenate, find_sources
from lake.uploads.table import FinishedRow
from lake.uploads.tus_headers import parse_concat, parse_metadata
from lake.uploads.tus_upload import TusUpload
from sennit_core.errors import NotFound, SennitError, UsageError
from sennit_core.ids import id_time, is_id

if TYPE_CHECKING:
    from lake.lake import Lake
    from lake.routes.uploads import SubmitIngest
    from lake.statements.limits import Requester
    from lake.uploads.upload import UploadInfo

__all__ = ["TusState", "TusUploads"]

_PARTIAL_NAME = "partial"


@dataclass(frozen=True, slots=True)
class TusState:
    """Where an upload is.

    Args:
        id: Its id.
        offset: The bytes it has.
        size: Those that it will have.
        tus: Its members of the protocol.
        upload: Its record; None once its ingest has removed it.
        dataset: Id of its dataset, once it is whole.
        job: Id of the job of its ingest.
    """

    id: str
    offset: int
    size: int
    tus: TusUpload
    upload: UploadInfo | None = None
    dataset: str | None = None
    job: str | None = None

    def concat(self, prefix: str) -> str | None:
        """Return the header Upload-Concat; None for an upload that is no part and has none."""
        if self.tus.partial:
            return "partial"
        if not self.tus.sources:
            return None
        return "final;" + " ".join(f"{prefix}/{each}" for each in self.tus.sources)


class TusUploads:
    """The uploads of tus in a lake.

    Args:
        lake: Receives them.
        submit_ingest: Starts the ingest of a whole one.
    """

    def __init__(self, lake: Lake, submit_ingest: SubmitIngest) -> None:
        self._lake = lake
        self._parts = lake.parts
        self._submit_ingest = submit_ingest

    def create(
        self, metadata: str, concat: str | None, size: int | None, requester: Requester
    ) -> TusState:
        """Create an upload.

        Args:
            metadata: The header Upload-Metadata. Its key `filename` (or `name`) names the file; `mode`
                and `options`, which is JSON, are as in `/api/start-upload`, and `sha256` is the whole
                file's hash.
            concat: The header Upload-Concat.
            size: The header Upload-Length; None for a concatenation.
            requester: The user.

        Raises:
            UsageError: A header is malformed, or the file has no name.
            Conflict: The dataset exists; or a partial upload is not whole.
            StorageFull: There is no room, or no quota left.
        """
        members = parse_metadata(metadata)
        is_partial, source_ids = parse_concat(concat)
        sources = find_sources(self._parts, source_ids)
        name = members.get("filename") or members.get("name") or ""
        if not name and not is_partial:
            raise UsageError(
                "the upload has no name",
                hint="add it to Upload-Metadata: filename, a space, and the name in Base64",
            )
        mode, options = members.get("mode", "create"), _options(members)
        if name and not is_partial:
            self._lake.policies.check_upload(dataset_name(name, options), mode, requester)
        self._lake.quotas.check_room(requester.name, f"an upload of {name or _PARTIAL_NAME!r}")
        upload = self._parts.start(
            name or _PARTIAL_NAME,
            sum(source.size or 0 for source in sources) if sources else size,
            sha256=members.get("sha256"),
            mode=mode,
            options=options,
            owner=requester.name,
            tus=TusUpload(metadata, is_partial, tuple(source_ids)),
        )
        if not sources:
            return TusState(upload.id, 0, upload.size or 0, TusUpload(metadata, is_partial), upload)
        try:
            concatenate(self._parts, sources, upload)
            return self.find(upload.id, requester)
        except BaseException:  # the client does not know it
            self._parts.abort(upload.id)
            raise

    def find(self, upload_id: str, requester: Requester) -> TusState:
        """Return where an upload is; start the ingest of a whole one that has none.

        Raises:
            NotFound: There is no such upload.
            SennitError: The ingest cannot start.
        """
        finished = self._finished(upload_id)
        try:
            upload = self._parts.get(upload_id)
        except NotFound:
            if finished is None:
                raise
            # Its ingest has removed it. Without a job the node ended between two writes.
            tus = TusUpload(finished.metadata, sources=finished.sources)
            return TusState(
                upload_id,
                finished.size,
                finished.size,
                tus,
                None,
                finished.dataset,
                finished.job or None,
            )
        if upload.tus is None:
            raise NotFound("upload of tus", upload_id)
        size = upload.size or 0
        offset = self._parts.position(upload_id)[1]
        state = TusState(upload_id, offset, size, upload.tus, upload)
        if offset < size or upload.tus.partial:
            return state
        if finished is None or not finished.job:
            finished = self._finish(upload, requester)
        return TusState(upload_id, size, size, upload.tus, None, finished.dataset, finished.job)

    def terminate(self, upload_id: str) -> None:
        """Delete an upload.

        Raises:
            NotFound: There is no such upload, or its ingest has removed it.
        """
        if self._parts.get(upload_id).tus is None:
            raise NotFound("upload of tus", upload_id)
        self._parts.abort(upload_id)
        if self._parts.finished is not None and upload_id in self._parts.finished:
            self._parts.finished.remove(upload_id)

    def existed(self, upload_id: str) -> bool:
        """Return whether an id that is not there now has the form of one that was made before."""
        return is_id(upload_id) and id_time(upload_id) <= self._lake.clock.now()

    def _finished(self, upload_id: str) -> FinishedRow | None:
        table = self._parts.finished
        return table.get(upload_id) if table is not None and is_id(upload_id) else None

    def _finish(self, upload: UploadInfo, requester: Requester) -> FinishedRow:
        assert upload.tus is not None
        assert self._parts.finished is not None
        self._lake.check_upload_target(upload.id, requester)
        row = FinishedRow(
            upload.size or 0, upload.dataset, "", self._lake.clock.now(),
            upload.tus.metadata, upload.tus.sources,
        )  # fmt: skip
        # Before the job: its ingest removes the upload, and the client may ask only after that.
        self._parts.finished.put(upload.id, row)
        try:
            dataset, job = self._submit_ingest(upload.id, submitted_by=requester.name)
        except SennitError:
            self._parts.finished.remove(upload.id)
            raise
        row = FinishedRow(row.size, dataset, job.id, row.ended_at, row.metadata, row.sources)
        self._parts.finished.put(upload.id, row)
        return row


def _options(members: dict[str, str]) -> dict[str, Any]:
    text = members.get("options")
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UsageError("`options` in Upload-Metadata is not a JSON object")
    return found
