"""The protocol tus 1.0 over the part store (https://tus.io/protocols/resumable-upload).

    POST /tus/              create an upload; also with its first bytes, or of partial uploads
    HEAD /tus/{id}          how many bytes it has
    PATCH /tus/{id}         append bytes
    DELETE /tus/{id}        terminate it
    OPTIONS /tus/           what the server can do

A whole upload becomes a dataset as any other one does: the headers Sennit-Dataset and Sennit-Job of the
last response, and of HEAD from then on, name the dataset and the job of its ingest.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from lake.routes.breakable_body import BreakableBody, UploadLocked, UploadWriters
from lake.routes.requester import requester_of
from lake.routes.tus_responses import (
    CHECKSUM_MISMATCH,
    PREFIX,
    TusRoute,
    capabilities,
    empty,
    gone,
    http_date,
    locked,
    refusal,
    wrong_offset,
    wrong_type,
    wrong_version,
)
from lake.uploads.ordered_writer import OrderedWriter
from lake.uploads.receiver import receive
from lake.uploads.tus_headers import VERSION, ChecksumMismatch, parse_checksum, parse_number
from lake.uploads.tus_uploads import TusState, TusUploads
from sennit_core.errors import Denied, NotFound, TooLarge, UsageError
from sennit_core.roles import needs

if TYPE_CHECKING:
    from lake.lake import Lake
    from lake.routes.uploads import SubmitIngest
    from lake.uploads.upload import UploadInfo

__all__ = ["router"]

_BYTES = "application/offset+octet-stream"


def router(lake: Lake, submit_ingest: SubmitIngest) -> APIRouter:
    """Return the routes under `/tus`.

    Args:
        lake: Receives the uploads.
        submit_ingest: Starts the ingest of a whole upload.
    """
    routes = APIRouter(tags=["uploads"], route_class=TusRoute)
    handlers = TusHandlers(lake, submit_ingest)
    # It tells nothing about any upload.
    routes.options(f"{PREFIX}/", openapi_extra=needs("open"))(handlers.options)
    routes.post(PREFIX, openapi_extra=needs("writer"), include_in_schema=False)(handlers.create)
    routes.post(f"{PREFIX}/", openapi_extra=needs("writer"))(handlers.create)
    one = f"{PREFIX}/{{upload_id}}"
    # Appending the last byte starts an ingest, and so does a HEAD after a crash in between.
    routes.head(one, openapi_extra=needs("writer"))(handlers.head)
    routes.patch(one, openapi_extra=needs("writer"))(handlers.append)
    routes.delete(one, openapi_extra=needs("writer"))(handlers.terminate)
    # For clients that can send only GET and POST.
    routes.post(one, openapi_extra=needs("writer"), include_in_schema=False)(handlers.override)
    return routes


class TusHandlers:
    """The request handlers of `/tus`.

    Args:
        lake: Receives the uploads.
        submit_ingest: Starts the ingest of a whole upload.
    """

    def __init__(self, lake: Lake, submit_ingest: SubmitIngest) -> None:
        self._parts = lake.parts
        self._uploads = TusUploads(lake, submit_ingest)
        self._writers = UploadWriters()

    async def options(self, request: Request) -> Response:
        """Tell the version, the extensions and the limits of this server."""
        del request
        return empty(204, capabilities(self._parts.size_max))

    async def create(self, request: Request) -> Response:
        """Create an upload: of the announced length, a partial one, or of partial uploads."""
        if refused := _check_version(request):
            return refused
        headers = request.headers
        if "Upload-Defer-Length" in headers:
            raise UsageError("the length of an upload is needed at its creation")
        state = await asyncio.to_thread(
            self._uploads.create,
            headers.get("Upload-Metadata", ""),
            headers.get("Upload-Concat"),
            None if _is_final(request) else parse_number(headers, "Upload-Length"),
            requester_of(request),
        )
        created = {"Location": f"{PREFIX}/{state.id}"}
        if headers.get("Content-Type", "").startswith(_BYTES) and not _is_final(request):
            upload = self._parts.get(state.id)
            answer = await self._append(request, upload, 0)
            if answer.status_code >= 400:  # the client does not know the upload
                await asyncio.to_thread(self._parts.abort, state.id)
                return answer
            answer.status_code = 201
            answer.headers.update(created)
            return answer
        return empty(201, created | self._headers(state))

    async def head(self, request: Request, upload_id: str) -> Response:
        """Return how many bytes the upload has, and its job once it is whole."""
        if refused := _check_version(request):
            return refused
        try:
            state = await asyncio.to_thread(self._uploads.find, upload_id, requester_of(request))
        except NotFound:
            return gone(upload_id, existed=self._uploads.existed(upload_id))
        more = {
            "Upload-Length": state.size,
            "Upload-Metadata": state.tus.metadata or None,
            "Upload-Concat": state.concat(PREFIX),
        }
        return empty(200, self._headers(state) | more)

    async def append(self, request: Request, upload_id: str) -> Response:
        """Append bytes at the offset, which is the end of the upload."""
        if refused := _check_version(request):
            return refused
        content_type = request.headers.get("Content-Type", "")
        if content_type.partition(";")[0].strip().lower() != _BYTES:
            return wrong_type(content_type)
        try:
            offset = parse_number(request.headers, "Upload-Offset")
            state = await asyncio.to_thread(self._uploads.find, upload_id, requester_of(request))
        except NotFound:
            return gone(upload_id, existed=self._uploads.existed(upload_id))
        if state.tus.sources:
            raise Denied(
                f"append to upload {upload_id}", needed="an upload that is not concatenated"
            )
        if state.upload is None:
            return wrong_offset(upload_id, state.offset, offset)
        return await self._append(request, state.upload, offset)

    async def terminate(self, request: Request, upload_id: str) -> Response:
        """Delete an upload with its bytes."""
        if refused := _check_version(request):
            return refused
        body = BreakableBody(request.stream())
        try:
            async with self._writers.exclusive(upload_id, body):
                await asyncio.to_thread(self._uploads.terminate, upload_id)
        except UploadLocked:
            return locked(upload_id)
        except NotFound:
            return gone(upload_id, existed=self._uploads.existed(upload_id))
        return empty(204, {})

    async def override(self, request: Request, upload_id: str) -> Response:
        """Handle a request by the method of its header X-HTTP-Method-Override."""
        methods = {"PATCH": self.append, "DELETE": self.terminate, "HEAD": self.head}
        wanted = request.headers.get("X-HTTP-Method-Override", "").upper()
        if wanted not in methods:
            raise UsageError(
                f"POST {PREFIX}/{upload_id} needs X-HTTP-Method-Override",
                hint=f"it is one of {', '.join(methods)}; POST {PREFIX}/ creates an upload",
            )
        return await methods[wanted](request, upload_id)

    async def _append(self, request: Request, upload: UploadInfo, offset: int) -> Response:
        checksum = parse_checksum(request.headers.get("Upload-Checksum"))
        body = BreakableBody(request.stream())
        try:
            async with self._writers.exclusive(upload.id, body):
                at = self._parts.position(upload.id)[1]
                if at != offset:
                    return wrong_offset(upload.id, at, offset)
                announced = request.headers.get("Content-Length", "")
                if announced.isdecimal() and offset + int(announced[:20]) > (upload.size or 0):
                    raise TooLarge(
                        f"upload {upload.id}", upload.size or 0, offset + int(announced[:20])
                    )
                with OrderedWriter(
                    self._parts, upload, checksum, is_whole=lambda: body.is_whole
                ) as writer:
                    await receive(body.pieces(), writer)
        except UploadLocked:
            return locked(upload.id)
        except ChecksumMismatch as error:
            return refusal(CHECKSUM_MISMATCH, error)
        state = await asyncio.to_thread(self._uploads.find, upload.id, requester_of(request))
        return empty(204, self._headers(state))

    def _headers(self, state: TusState) -> dict[str, Any]:
        """Return where an upload is: its offset, until when, and then its dataset and job."""
        expires = None if state.upload is None else self._parts.expires_at(state.id)
        return {
            "Upload-Offset": state.offset,
            "Upload-Expires": None if expires is None else http_date(expires),
            "Sennit-Dataset": state.dataset,
            "Sennit-Job": state.job,
        }


def _is_final(request: Request) -> bool:
    return request.headers.get("Upload-Concat", "").startswith("final")


def _check_version(request: Request) -> Response | None:
    found = request.headers.get("Tus-Resumable")
    return None if found == VERSION else wrong_version(found)
