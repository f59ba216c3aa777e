"""/files: the shards of datasets as plain, verified Parquet files, and lists of them.

    /files/{dataset}                         the snapshots
    /files/{dataset}/{snapshot}              the files of a snapshot
    /files/{dataset}/{snapshot}/{shard}      a file

Any Parquet reader that supports HTTP ranges can read a dataset from here. A dataset is named by its
name or id, a snapshot by its id, its version or `head`, a shard by its object id or, with `.parquet`,
its number. The lists have the stable address of each file: `head` may be another snapshot at the next
request, and a reader makes several.

The ETag is the object's id. The shard is verified whole before the response starts, so damage is an
HTTP error and not an aborted body; each chunk is verified again before it is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from lake.catalog.layouts import partition_names
from lake.catalog.snapshots import Manifest, StoredManifest
from lake.routes.requester import requester_of
from sennit_core.errors import Denied, NotFound
from sennit_core.roles import needs

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["router"]

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_MEDIA_TYPE = "application/vnd.apache.parquet"
_DIGITS_MAX = 9
_SNAPSHOTS_MAX = 1000
_FILES_MAX = 10_000


def router(lake: Lake) -> APIRouter:
    """Return the file routes."""
    routes = APIRouter(tags=["files"])
    _add_lists(routes, lake)

    @routes.head(
        "/files/{dataset}/{snapshot}/{shard}",
        include_in_schema=False,
        openapi_extra=needs("reader"),
    )
    @routes.get("/files/{dataset}/{snapshot}/{shard}", openapi_extra=needs("reader"))
    def get_shard(dataset: str, snapshot: str, shard: str, request: Request) -> Response:
        """One shard, or the requested range of it."""
        lake.policies.check_whole(dataset, requester_of(request), "downloading the shards of")
        manifest = _manifest(lake, dataset, snapshot)
        name, index = _object_of(lake, manifest, shard)
        lake.storage.access.note([manifest.snapshot.dataset])
        lake.verify_shard(lake.catalog.get(manifest.snapshot.dataset).name, index, name)
        size = lake.objects.digest(name).size
        headers = {
            "ETag": f'"{name}"',
            "Accept-Ranges": "bytes",
            "Cache-Control": "private",
            # The meaning of `head`, and of names, in this response.
            "Content-Location": f"{_folder(manifest)}/{index}.parquet",
        }
        if _has_tag(request.headers.get("If-None-Match", ""), name):
            return Response(status_code=304, headers=headers)
        wanted = _range(request, size, f'"{name}"')
        if wanted is None:
            unsatisfiable = headers | {"Content-Range": f"bytes */{size}"}
            return Response(status_code=416, headers=unsatisfiable)
        start, stop = wanted
        partial = (start, stop) != (0, size)
        headers["Content-Length"] = str(stop - start)
        if partial:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        return StreamingResponse(
            iter(()) if request.method == "HEAD" else _leased(lake, name, start, stop),
            status_code=206 if partial else 200,
            headers=headers,
            media_type=_MEDIA_TYPE,
        )

    return routes


def _add_lists(routes: APIRouter, lake: Lake) -> None:
    @routes.get("/files/{dataset}", openapi_extra=needs("reader"))
    def list_snapshots(
        dataset: str,
        request: Request,
        before: Annotated[int | None, Query(ge=1, le=(1 << 53))] = None,
        limit: Annotated[int, Query(ge=1, le=_SNAPSHOTS_MAX)] = _SNAPSHOTS_MAX,
    ) -> list[dict[str, Any]]:
        """The snapshots of a dataset, newest first, each with the address of its files.

        Those of a long history come in pages: `before` is the last `version` of the page before.
        """
        lake.policies.check_whole(dataset, requester_of(request), "listing the files of")
        found = lake.catalog.snapshots(dataset, before=before, limit=limit)
        return [_summary(manifest) for manifest in found]

    @routes.get("/files/{dataset}/{snapshot}", openapi_extra=needs("reader"))
    def list_files(
        dataset: str,
        snapshot: str,
        request: Request,
        offset: Annotated[int, Query(ge=0, le=(1 << 53))] = 0,
        limit: Annotated[int, Query(ge=0, le=_FILES_MAX)] = _FILES_MAX,
    ) -> dict[str, Any]:
        """The files of a snapshot from number `offset` on, in the order of its rows.

        Each has its stable address, and the values of what it is partitioned by, such as
        `{"month(ts)": 650}`: months since 1970, as in Apache Iceberg. `shards` is the number of all.
        """
        lake.policies.check_whole(dataset, requester_of(request), "listing the files of")
        manifest = _manifest(lake, dataset, snapshot)
        shards = manifest.snapshot.shards[offset : offset + limit]
        files = [
            {
                "path": f"{_folder(manifest)}/{index}.parquet",
                "object": shard.object,
                "rows": shard.rows,
                "bytes": shard.bytes,
                "partition": partition_names(manifest.snapshot, shard),
            }
            for index, shard in enumerate(shards, offset)
        ]
        schema = manifest.snapshot.schema.to_json()
        return _summary(manifest) | {"schema": schema, "files": files}


def _leased(lake: Lake, name: str, start: int, stop: int) -> Iterator[bytes]:
    with lake.retention.lease((name,)):
        yield from lake.objects.read(name, start, stop)


def _manifest(lake: Lake, dataset: str, snapshot: str) -> Manifest:
    """Return the manifest of a snapshot by id, version or `head`."""
    if snapshot.isdecimal() and len(snapshot) <= _DIGITS_MAX:
        return lake.catalog.manifest_at(dataset, version=int(snapshot))
    return lake.catalog.manifest(dataset, None if snapshot in ("head", "latest") else snapshot)


def _summary(manifest: Manifest | StoredManifest) -> dict[str, Any]:
    return {
        "snapshot": manifest.snapshot.id,
        "version": manifest.snapshot.version,
        "createdAt": manifest.created_at,
        "rows": manifest.rows,
        "bytes": manifest.bytes,
        "shards": manifest.shards,
        "path": _folder(manifest),
    }


def _folder(manifest: Manifest | StoredManifest) -> str:
    return f"/files/{quote(manifest.snapshot.dataset)}/{quote(manifest.snapshot.id)}"


def _object_of(lake: Lake, manifest: Manifest, shard: str) -> tuple[str, int]:
    """Return the id of the requested object, and the shard's index in the snapshot."""
    if lake.catalog.get(manifest.snapshot.dataset).encrypted:
        raise Denied(
            "publish the files of an encrypted dataset",
            hint="query it: POST /api/query returns Arrow, JSON or CSV",
        )
    lake.catalog.check_shards(manifest.snapshot)
    objects = [each.object for each in manifest.snapshot.shards]
    stem = shard.removesuffix(".parquet")
    if stem.isdecimal() and len(stem) <= _DIGITS_MAX and int(stem) < len(objects):
        return objects[int(stem)], int(stem)
    if stem in objects:
        return stem, objects.index(stem)
    raise NotFound(kind="shard", name=shard[:80], suggestion=None)


def _has_tag(header: str, name: str) -> bool:
    """Whether a list of ETags, as of If-None-Match, names the object."""
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or f'"{name}"' in tags


def _range(request: Request, size: int, etag: str) -> tuple[int, int] | None:
    """Return the requested bytes [start, stop); None if the range is unsatisfiable.

    As in RFC 9110, an unknown unit, several ranges, or an `If-Range` that does not match return the
    whole file.
    """
    match = _RANGE.fullmatch(request.headers.get("Range", ""))
    if match is None or request.headers.get("If-Range", etag) != etag or match.group() == "bytes=-":
        return 0, size
    first, last = match.groups()
    if not first:
        length = min(int(last), size)
        return (size - length, size) if length else None
    start = int(first)
    if last and int(last) < start:  # invalid, and so to be ignored
        return 0, size
    stop = min(int(last) + 1, size) if last else size
    return (start, stop) if start < stop else None
