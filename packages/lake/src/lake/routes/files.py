"""GET /files/{dataset}/{snapshot}/{shard}: the shards as plain, verified Parquet files.

Any Parquet reader that supports HTTP ranges can read a dataset from here. The ETag is the object's
id. The shard is verified whole before the response starts, so damage is an HTTP error and not an
aborted body; each chunk is verified again before it is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from lake.routes.requester import requester_of
from sennit_core.errors import Denied, NotFound
from sennit_core.roles import needs

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["router"]

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_MEDIA_TYPE = "application/vnd.apache.parquet"


def router(lake: Lake) -> APIRouter:
    """Return the file route; `shard` is an object id, or `{index}.parquet` in snapshot order."""
    routes = APIRouter(tags=["files"])

    @routes.head(
        "/files/{dataset}/{snapshot}/{shard}",
        include_in_schema=False,
        openapi_extra=needs("reader"),
    )
    @routes.get("/files/{dataset}/{snapshot}/{shard}", openapi_extra=needs("reader"))
    def get_shard(dataset: str, snapshot: str, shard: str, request: Request) -> Response:
        """One shard, or the requested range of it."""
        lake.policies.check_whole(dataset, requester_of(request), "downloading the shards of")
        name, index = _object_of(lake, dataset, snapshot, shard)
        lake.verify_shard(lake.catalog.get(dataset).name, index, name)
        size = lake.objects.digest(name).size
        headers = {"ETag": f'"{name}"', "Accept-Ranges": "bytes", "Cache-Control": "private"}
        if f'"{name}"' in request.headers.get("If-None-Match", ""):
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


def _leased(lake: Lake, name: str, start: int, stop: int) -> Iterator[bytes]:
    with lake.retention.lease((name,)):
        yield from lake.objects.read(name, start, stop)


def _object_of(lake: Lake, dataset: str, snapshot: str, shard: str) -> tuple[str, int]:
    """Return the id of the requested object, and the shard's index in the snapshot."""
    if lake.catalog.get(dataset).encrypted:
        raise Denied(
            f"publish the files of {dataset[:80]!r}, which is encrypted",
            hint="query it: POST /api/query returns Arrow, JSON or CSV",
        )
    wanted = None if snapshot in ("head", "latest") else snapshot
    found = lake.catalog.manifest(dataset, wanted).snapshot
    lake.catalog.check_shards(found)
    objects = [each.object for each in found.shards]
    stem = shard.removesuffix(".parquet")
    if stem.isdecimal() and len(stem) < 10 and int(stem) < len(objects):
        return objects[int(stem)], int(stem)
    if stem in objects:
        return stem, objects.index(stem)
    raise NotFound(kind="shard", name=shard[:80], suggestion=None)


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
    stop = min(int(last) + 1, size) if last else size
    return (start, stop) if start < stop else None
