"""HTTP endpoints of uploads: a whole file in one request, or parts in any order, repeatable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from lake.ingestor import dataset_name
from lake.routes.documents import Bytes, Document, check_document, parse_json, read_document
from lake.routes.requester import requester_of
from lake.uploads.forms import FORM_FIELDS_BYTES_MAX, FormReader
from lake.uploads.part_reuse import OFFERS_MAX, reuse_parts
from lake.uploads.receiver import WholeUpload, receive, receive_body
from sennit_core.errors import SennitError, UsageError
from sennit_core.roles import needs
from sennit_core.units import KIB, MIB

if TYPE_CHECKING:
    from lake.lake import Lake
    from lake.statements.limits import Requester
    from lake.uploads.csv_ranges import CsvRanges
    from lake.uploads.upload import UploadInfo
    from sennit_core.records import JobInfo

__all__ = ["OfferParts", "StartUpload", "SubmitIngest", "router"]

CONTENT_BYTES_MAX = 64 * MIB
"""Of one response, which is in memory."""
Offset = Annotated[int, Query(ge=0, le=1 << 53)]
RangeBytes = Annotated[int, Query(alias="bytes", ge=64 * KIB, le=1 << 40)]


class StartUpload(Document):
    """The body of `POST /api/start-upload`."""

    name: str
    size: int | None = Field(default=None, ge=0)
    sha256: str | None = None
    part_bytes: Bytes | None = None
    mode: Literal["create", "append", "replace", "upsert"] = "create"
    options: dict[str, Any] = Field(default_factory=dict)
    resume_key: str | None = Field(default=None, max_length=256)


class OfferParts(Document):
    """The body of `POST /api/uploads/{id}/reuse`: hex SHA-256 of parts by their index."""

    parts: dict[Annotated[str, Field(pattern=r"^[0-9]{1,6}$")], str] = Field(max_length=OFFERS_MAX)


class SubmitIngest(Protocol):
    """Starts the ingest of a complete upload as a job."""

    def __call__(self, upload_id: str, *, submitted_by: str) -> tuple[str, JobInfo]:
        """Seal an upload and start its ingest; a repeated call returns the same job.

        Args:
            upload_id: The upload.
            submitted_by: Name of the user.

        Returns:
            The id of the dataset, and the job.

        Raises:
            UploadIncomplete: Parts are missing.
            NotFound: There is no such upload.
        """
        ...


def router(lake: Lake, submit_ingest: SubmitIngest) -> APIRouter:
    """Return the routes under `/api/upload…`.

    Args:
        lake: Receives the uploads.
        submit_ingest: Starts the ingest of a complete upload.
    """
    routes = APIRouter(tags=["uploads"])
    handlers = UploadHandlers(lake, submit_ingest)
    routes.post("/api/upload", openapi_extra=needs("writer"))(handlers.upload)
    routes.post("/api/start-upload", openapi_extra=needs("writer"))(handlers.start)
    routes.post("/api/upload-chunk", openapi_extra=needs("writer"))(handlers.put_form_part)
    routes.put("/api/uploads/{upload_id}/parts/{index}", openapi_extra=needs("writer"))(
        handlers.put_part
    )
    routes.get("/api/uploads/{upload_id}", openapi_extra=needs("reader"))(handlers.get)
    routes.get("/api/uploads/{upload_id}/ranges", openapi_extra=needs("writer"))(handlers.ranges)
    routes.get("/api/uploads/{upload_id}/content", openapi_extra=needs("writer"))(handlers.content)
    routes.post("/api/uploads/{upload_id}/reuse", openapi_extra=needs("writer"))(handlers.reuse)
    routes.delete("/api/uploads/{upload_id}", openapi_extra=needs("writer"))(handlers.abort)
    routes.post("/api/uploads/{upload_id}/complete", openapi_extra=needs("writer"))(
        handlers.complete
    )
    return routes


class UploadHandlers:
    """The request handlers of `/api/upload…`.

    Args:
        lake: Receives the uploads.
        submit_ingest: Starts the ingest of a complete upload.
    """

    def __init__(self, lake: Lake, submit_ingest: SubmitIngest) -> None:
        self._lake = lake
        self._parts = lake.parts
        self._submit_ingest = submit_ingest

    @cached_property
    def _ranges(self) -> CsvRanges:
        # Only here: it needs numpy and pyarrow, and few requests need it.
        from lake.uploads.csv_ranges import CsvRanges

        return CsvRanges(self._parts)

    async def start(self, request: Request) -> dict[str, Any]:
        """Start an upload, or return the unfinished upload with the same resumeKey."""
        document = await read_document(request, StartUpload)
        requester = requester_of(request)
        upload = await asyncio.to_thread(self._start, document, requester)
        others = self._parts.reusable(requester.name, besides=upload.id)
        return upload.to_json() | {"reusable": bool(others) and not upload.encrypted}

    async def reuse(self, request: Request, upload_id: str) -> dict[str, Any]:
        """Reuse offered parts that the user's other uploads have, so that they need not be sent."""
        document = await read_document(request, OfferParts)
        offered = {int(index): sha256 for index, sha256 in document.parts.items()}
        user = requester_of(request).name
        reused = await asyncio.to_thread(reuse_parts, self._parts, upload_id, user, offered)
        return {"reused": reused}

    async def put_part(self, request: Request, upload_id: str, index: int) -> dict[str, Any]:
        """Receive one part as the raw body; receiving the same part again has no effect."""
        writer = await asyncio.to_thread(
            self._parts.open_part,
            upload_id,
            index,
            sha256=request.headers.get("X-Sha256"),
            expected_bytes=_content_length(request),
        )
        with writer:
            size = await receive_body(request, writer)
        return {"index": index, "bytes": size}

    async def put_form_part(self, request: Request) -> dict[str, Any]:
        """Receive one part as a form: the fields uploadId, index and sha256, then the file."""
        form = _form(request)
        fields: dict[str, str] = {}
        async for part in form:
            if part.filename is None and part.name != "file":
                fields[part.name] = await part.text()
                continue
            upload_id, index = _part_address(fields)
            writer = await asyncio.to_thread(
                self._parts.open_part, upload_id, index, sha256=fields.get("sha256")
            )
            with writer:
                size = await receive(part.pieces(), writer)
            return {"index": index, "bytes": size}
        raise UsageError("the form has no file")

    async def upload(self, request: Request) -> dict[str, Any]:
        """Receive a whole file, raw (named by ?name=) or as a form, and ingest it as a dataset."""
        query = request.query_params
        if not request.headers.get("Content-Type", "").startswith("multipart/"):
            if "name" not in query:
                raise UsageError("a raw upload is named by ?name=", hint="or send a form")
            size = _content_length(request)
            upload = await self._start_whole(request, query["name"], size, query)
            return await self._receive_whole(request, upload, request.stream())
        # The size of a form's fields is limited, so the rest of a long body must be the file.
        self._parts.check_end(max(0, (_content_length(request) or 0) - FORM_FIELDS_BYTES_MAX))
        fields = dict(query)
        async for part in _form(request):
            if part.filename is None:
                fields[part.name] = await part.text()
                continue
            name = fields.get("name", part.filename)
            upload = await self._start_whole(request, name, None, fields)
            return await self._receive_whole(request, upload, part.pieces())
        raise UsageError("the form has no file")

    async def get(self, upload_id: str) -> dict[str, Any]:
        """Return the upload and the indexes of its received parts."""
        upload = await asyncio.to_thread(self._parts.get, upload_id)
        return upload.to_json()

    def ranges(
        self, request: Request, upload_id: str, range_bytes: RangeBytes = 16 * MIB
    ) -> dict[str, Any]:
        """Return byte ranges of whole CSV records, of the parts without a gap from the beginning."""
        self._lake.check_upload_target(upload_id, requester_of(request))
        return self._ranges.find(upload_id, range_bytes).to_json()

    def content(self, request: Request, upload_id: str, start: Offset, stop: Offset) -> Response:
        """Return bytes that were received, such as one of the ranges."""
        self._lake.check_upload_target(upload_id, requester_of(request))
        if not 0 < stop - start <= CONTENT_BYTES_MAX:
            raise UsageError(
                f"start {start} and stop {stop} are no range of 1 to {CONTENT_BYTES_MAX:,} bytes"
            )
        data = self._ranges.read(upload_id, start, stop)
        return Response(data, media_type="application/octet-stream")

    async def abort(self, upload_id: str) -> Response:
        """Delete an upload; deleting it twice is not an error."""
        await asyncio.to_thread(self._parts.abort, upload_id)
        return Response(status_code=204)

    async def complete(self, request: Request, upload_id: str) -> dict[str, Any]:
        """Seal an upload and start its ingest; completing it twice returns the same job."""
        requester = requester_of(request)

        def submit() -> tuple[str, JobInfo]:
            self._lake.check_upload_target(upload_id, requester)
            return self._submit_ingest(upload_id, submitted_by=requester.name)

        dataset_id, job = await asyncio.to_thread(submit)
        return {"datasetId": dataset_id, "jobId": job.id}

    def _start(self, document: StartUpload, requester: Requester) -> UploadInfo:
        name = dataset_name(document.name, document.options)
        self._lake.policies.check_upload(name, document.mode, requester)
        self._lake.quotas.check_room(requester.name, f"an upload of {name!r}")
        return self._parts.start(
            document.name,
            document.size,
            sha256=document.sha256,
            part_bytes=document.part_bytes,
            mode=document.mode,
            options=document.options,
            resume_key=document.resume_key,
            owner=requester.name,
        )

    async def _start_whole(
        self, request: Request, name: str, size: int | None, fields: Mapping[str, str]
    ) -> UploadInfo:
        document = {"name": name, "size": size, "mode": fields.get("mode", "create")}
        if "options" in fields:
            document["options"] = parse_json(fields["options"].encode())
        start = check_document(document, StartUpload)
        return await asyncio.to_thread(self._start, start, requester_of(request))

    async def _receive_whole(
        self, request: Request, upload: UploadInfo, pieces: AsyncIterator[bytes]
    ) -> dict[str, Any]:
        try:
            with WholeUpload(self._parts, upload) as writer:
                await receive(pieces, writer)
        except BaseException:  # also when the client disconnected: it could not complete the upload
            await asyncio.to_thread(self._parts.abort, upload.id)
            raise
        try:
            return await self.complete(request, upload.id)
        except SennitError:
            await asyncio.to_thread(self._parts.abort, upload.id)
            raise


def _form(request: Request) -> FormReader:
    return FormReader(request.headers.get("Content-Type", ""), request.stream())


def _content_length(request: Request) -> int | None:
    announced = request.headers.get("Content-Length", "")
    return int(announced) if announced.isdecimal() else None


def _part_address(fields: Mapping[str, str]) -> tuple[str, int]:
    upload_id, index = fields.get("uploadId"), fields.get("index", "")
    if upload_id is None or not index.isdecimal():
        raise UsageError(
            "the form must contain uploadId and index before its file",
            hint="append uploadId, index and sha256 to the form first, the file last",
        )
    return upload_id, int(index)
