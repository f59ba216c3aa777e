"""POST /api/link and GET /api/datasets/{id}/paths: files of the node's machine, for its owner alone.

Both take or return paths of the node's file system, so they serve only requests from the same machine
with the admin token of the data folder, which only the node's own user can read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from lake.links.linking import LinkRequest
from lake.routes.owner import check_owner
from lake.routes.requester import requester_of
from sennit_core.roles import needs

if TYPE_CHECKING:
    from lake.lake import Lake
    from lake.routes.uploads import SubmitIngest

__all__ = ["FileState", "router"]

_PATH_MAX = 4096


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class FileState(_Document):
    """The file as its owner sees it; numbers as text, as some are too large for JSON's."""

    inode: Annotated[str, Field(max_length=20)]
    size: Annotated[str, Field(max_length=20)]
    mtime_ns: Annotated[str, Field(max_length=21)]


class LinkDocument(_Document):
    """Body of POST /api/link."""

    path: Annotated[str, Field(max_length=_PATH_MAX)]
    file: FileState
    mode: Literal["create", "append", "replace", "upsert"] = "create"
    options: dict[str, Any] = Field(default_factory=dict)
    only: bool = False


def router(lake: Lake, submit_ingest: SubmitIngest) -> APIRouter:
    """Return the routes of linked files.

    Args:
        lake: The lake.
        submit_ingest: Starts the ingest of a complete upload as a job.
    """
    routes = APIRouter(tags=["datasets"])

    @routes.post("/api/link", openapi_extra=needs("admin"))
    async def link(document: Annotated[LinkDocument, Body()], request: Request) -> dict[str, Any]:
        """Link a file where it is as a dataset, and ingest it; the owner on this machine only."""
        check_owner(request, "linking a file of the node")
        return await asyncio.to_thread(_link, document, requester_of(request).name)

    @routes.get("/api/datasets/{dataset}/paths", openapi_extra=needs("admin"))
    def paths(dataset: str, request: Request) -> dict[str, Any]:
        """The files of a dataset's newest snapshot; the owner on this machine only."""
        check_owner(request, "reading paths of the node")
        link = lake.linker.link_of(dataset)
        if link is None:
            return {"paths": [str(path) for path in lake.resolve(dataset)[1]], "linked": False}
        link.file.check(dataset)
        return {"paths": [link.file.path], "linked": True}

    def _link(document: LinkDocument, owner: str) -> dict[str, Any]:
        if not document.only:
            lake.quotas.check_room(owner, "a file to ingest")
        linked = lake.linker.link(
            LinkRequest(
                document.path,
                document.file.model_dump(by_alias=True),
                document.mode,
                document.options,
                document.only,
                owner,
            )
        )
        dataset, job = linked.dataset, None
        if linked.upload is not None:
            dataset, job = submit_ingest(linked.upload, submitted_by=owner)
        return {
            "datasetId": dataset,
            "jobId": None if job is None else job.id,
            "linked": linked.reason is None,
            "reason": linked.reason,
        }

    return routes
