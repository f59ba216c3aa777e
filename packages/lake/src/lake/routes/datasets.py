"""GET and DELETE /api/datasets, and the snapshots of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

from lake.snapshots import Manifest

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["router"]


def router(lake: Lake) -> APIRouter:
    """Routes of the catalog; an `{id}` may be a name as well."""
    routes = APIRouter(prefix="/api/datasets", tags=["datasets"])

    @routes.get("")
    def list_datasets(damaged: bool = False) -> list[dict[str, Any]]:
        """All datasets, by name; one that is damaged has the reason under `damaged`.

        With `?damaged=true` only those: what a page that follows the tree cannot see there.
        """
        found = lake.catalog.list()
        return [info.to_json() for info in found if info.damaged or not damaged]

    @routes.get("/{dataset}")
    def get_dataset(dataset: str) -> dict[str, Any]:
        """One dataset, and under `ingest` how its newest data was read."""
        info = lake.catalog.get(dataset)
        return info.to_json() | {"ingest": lake.catalog.manifest(info.id).ingest}

    @routes.delete("/{dataset}")
    def delete_dataset(dataset: str) -> dict[str, Any]:
        """Delete a dataset with all its snapshots."""
        return {"deleted": lake.delete(dataset).to_json()}

    @routes.get("/{dataset}/snapshots")
    def list_snapshots(dataset: str) -> list[dict[str, Any]]:
        """Its snapshots, newest first, with their shards."""
        return [_shown(manifest) for manifest in lake.catalog.manifests(dataset)]

    return routes


def _shown(manifest: Manifest) -> dict[str, Any]:
    return manifest.snapshot.to_json() | {
        "createdAt": manifest.created_at,
        "rows": manifest.rows,
        "bytes": manifest.bytes,
        "ingest": manifest.ingest,
    }
