"""GET and DELETE /api/datasets, the snapshots of each, and the way back to an earlier one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from lake.catalog.adoption import foreign_dataset
from lake.catalog.origins import snapshot_document, with_shown_origin
from lake.distributed.forks import fork_dataset
from lake.interop.iceberg import publish_iceberg
from lake.routes.requester import requester_of
from sennit_core.errors import Denied
from sennit_core.roles import needs

if TYPE_CHECKING:
    from lake.catalog.snapshots import AnyManifest
    from lake.lake import Lake
    from lake.statements.limits import Requester

__all__ = ["router"]

_SNAPSHOTS_MAX = 1000
_SHARDS_MAX = 1000
_NAME_MAX = 128


class RollbackRequest(BaseModel):
    """Body of POST /api/datasets/{dataset}/rollback."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: Annotated[int, Field(ge=1, le=(1 << 53))]


class ForkRequest(BaseModel):
    """Body of POST /api/datasets/{dataset}/fork."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(max_length=_NAME_MAX)]


class ColumnOrder(BaseModel):
    """Body of POST /api/datasets/{dataset}/reorder-columns."""

    model_config = ConfigDict(extra="forbid", strict=True)

    columns: Annotated[list[str], Field(max_length=100_000)]


class IcebergRequest(BaseModel):
    """Body of POST /api/datasets/{dataset}/iceberg; without a version it is the newest snapshot."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: Annotated[int | None, Field(ge=1, le=(1 << 53))] = None


def router(lake: Lake) -> APIRouter:
    """Return the routes of the catalog; an `{id}` may also be a name."""
    routes = APIRouter(prefix="/api/datasets", tags=["datasets"])

    @routes.get("", openapi_extra=needs("reader"))
    def list_datasets(request: Request, damaged: bool = False) -> list[dict[str, Any]]:
        """All datasets that the user may read, ordered by name; a damaged one has the reason under `damaged`.

        With `?damaged=true` only the damaged ones, which the realtime tree does not show.
        """
        found = lake.policies.list(requester_of(request))
        return [info.to_json() for info in found if info.damaged or not damaged]

    @routes.get("/{dataset}", openapi_extra=needs("reader"))
    def get_dataset(dataset: str, request: Request) -> dict[str, Any]:
        """One dataset; `ingest` describes how its newest data was read.

        With `restricted`, a policy shows a part of it, or its rows are read at another node: hidden
        columns are left out, and the numbers of rows, bytes and shards are 0. A dataset that is linked to a file has the file's name and
        size under `link`, until it is ingested.
        """
        requester = requester_of(request)
        info = lake.policies.visible(dataset, requester)
        at_writer = info.head is None and info.node is not None
        if at_writer or lake.policies.access(info.id, requester).is_restricted:
            return info.to_json() | {"restricted": True}
        return info.to_json() | _described(lake, info.id)

    @routes.delete("/{dataset}", openapi_extra=needs("writer"))
    def delete_dataset(dataset: str, request: Request) -> dict[str, Any]:
        """Delete a dataset with all its snapshots; one of another node once that was removed."""
        requester = requester_of(request)
        lake.policies.check_change(dataset, requester)
        is_foreign = foreign_dataset(lake.catalog.find_known, dataset) is not None
        if is_foreign and not requester.is_trusted:
            raise Denied(f"deleting dataset {dataset!r}, which another node writes", needed="admin")
        return {"deleted": lake.delete(dataset).to_json()}

    _add_snapshots(routes, lake)
    return routes


def _add_snapshots(routes: APIRouter, lake: Lake) -> None:
    @routes.get("/{dataset}/snapshots", openapi_extra=needs("reader"))
    def list_snapshots(
        dataset: str,
        request: Request,
        before: Annotated[int | None, Query(ge=1, le=(1 << 53))] = None,
        limit: Annotated[int, Query(ge=1, le=_SNAPSHOTS_MAX)] = _SNAPSHOTS_MAX,
    ) -> list[dict[str, Any]]:
        """The snapshots of a dataset, newest first, without their shards.

        Those of a long history come in pages: `before` is the last `version` of the page before.
        """
        requester = requester_of(request)
        lake.policies.check_whole(dataset, requester, "listing the snapshots of")
        found = lake.catalog.snapshots(dataset, before=before, limit=limit)
        return [snapshot_document(_seen_by(requester, each, lake)) for each in found]

    @routes.get("/{dataset}/snapshots/{snapshot}", openapi_extra=needs("reader"))
    def get_snapshot(
        dataset: str,
        snapshot: str,
        request: Request,
        offset: Annotated[int, Query(ge=0, le=(1 << 53))] = 0,
        limit: Annotated[int, Query(ge=0, le=_SHARDS_MAX)] = _SHARDS_MAX,
    ) -> dict[str, Any]:
        """One snapshot, by id or as `head`, with its shards from number `offset` on."""
        requester = requester_of(request)
        lake.policies.check_whole(dataset, requester, "reading a snapshot of")
        found = lake.catalog.manifest(dataset, None if snapshot == "head" else snapshot)
        shards = found.snapshot.shards[offset : offset + limit]
        return snapshot_document(_seen_by(requester, found, lake)) | {
            "shards": [shard.to_json() for shard in shards]
        }

    @routes.post("/{dataset}/rollback", openapi_extra=needs("writer"))
    def roll_back(
        dataset: str, target: Annotated[RollbackRequest, Body()], request: Request
    ) -> dict[str, Any]:
        """Commit a snapshot with the columns and rows of an earlier version."""
        requester = requester_of(request)
        lake.policies.check_change(dataset, requester)
        return lake.rollback(dataset, target.version, user=requester.name).to_json()

    @routes.post("/{dataset}/fork", status_code=201, openapi_extra=needs("writer"))
    def fork(
        dataset: str, target: Annotated[ForkRequest, Body()], request: Request
    ) -> dict[str, Any]:
        """Create a dataset with the rows of this one, and the user as its owner, without copying them."""
        requester = requester_of(request)
        info = lake.policies.check_whole(dataset, requester, "forking")
        return fork_dataset(lake, info.id, target.name, user=requester.name).to_json()

    @routes.post("/{dataset}/reorder-columns", openapi_extra=needs("writer"))
    def reorder_columns(
        dataset: str, order: Annotated[ColumnOrder, Body()], request: Request
    ) -> dict[str, Any]:
        """Put the columns in another order, as a new snapshot."""
        requester = requester_of(request)
        lake.policies.check_change(dataset, requester)
        return lake.reorder_columns(dataset, order.columns, user=requester.name).to_json()

    @routes.post("/{dataset}/iceberg", openapi_extra=needs("writer"))
    def publish(
        dataset: str, wanted: Annotated[IcebergRequest, Body()], request: Request
    ) -> dict[str, str]:
        """Write Iceberg metadata of a snapshot; return its path on the node's machine."""
        lake.policies.check_whole(dataset, requester_of(request), "publishing")
        return {"metadata": str(publish_iceberg(lake, dataset, version=wanted.version))}


def _seen_by(requester: Requester, manifest: AnyManifest, lake: Lake) -> AnyManifest:
    if requester.is_trusted or manifest.snapshot.author == requester.name:
        return manifest
    return with_shown_origin(manifest, lambda id_: lake.policies.is_whole(id_, requester))


def _described(lake: Lake, dataset: str) -> dict[str, Any]:
    link = lake.linker.link_of(dataset)
    if link is None:
        return {"ingest": lake.catalog.manifest(dataset).ingest}
    shown = {"name": link.file.name, "size": link.file.size, "upload": link.upload}
    return {"ingest": None, "link": shown}
