"""GET and DELETE /api/datasets, and the snapshots of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

from lake.snapshots import Manifest
from sennit_core.roles import needs

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["router"]


def router(lake: Lake) -> APIRouter:
    """Return the routes of the catalog; an `{id}` may also be a name."""
    routes = APIRouter(prefix="/api/datasets", tags=["datasets"])

    @routes.get("", openapi_extra=needs("reader"))
    def list_datasets(damaged: bool = False) -> list[dict[str, Any]]:
        """All datasets, ordered by name; a damaged one has the reason under `damaged`.

        With `?damaged=true` only the damaged ones, which the realtime tree does not show.
        """
        found = lake.catalog.list()
        return [info.to_json() for info in found if info.damaged or not damaged]

    @routes.get("/{dataset}", openapi_extra=needs("reader"))
    def get_dataset(dataset: str) -> dict[str, Any]:
        """One dataset; `ingest` describes how its newest data was read."""
        info = lake.catalog.get(dataset)
        return info.to_json() | {"ingest": lake.catalog.manifest(info.id).ingest}

    @routes.delete("/{dataset}", openapi_extra=needs("writer"))
    def delete_dataset(dataset: str) -> dict[str, Any]:
        """Delete a dataset with all its snapshots."""
        return {"deleted": lake.delete(dataset).to_json()}

    @routes.get("/{dataset}/snapshots", openapi_extra=needs("reader"))
    def list_snapshots(dataset: str) -> list[dict[str, Any]]:
        """The snapshots of a dataset, newest first, with their shards."""
        return [_shown(manifest) for manifest in lake.catalog.manifests(dataset)]

    return routes


def _shown(manifest: Manifest) -> dict[str, Any]:
    return manifest.snapshot.to_json() | {
        "createdAt": manifest.created_at,
        "rows": manifest.rows,
        "bytes": manifest.bytes,
        "ingest": manifest.ingest,
    }
