"""POST /api/bundles/export and /import: datasets in a file of the node's machine, for its owner alone."""

from __future__ import annotations

import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import Field

from lake import Lake
from lake.bundles import ExportRequest, ImportRequest, export_bundle, import_bundle
from lake.peers.service import PeerService
from lake.routes.documents import Document
from lake.routes.links import FileState
from lake.routes.owner import check_owner
from lake.routes.report_lines import report_lines
from lake.routes.requester import requester_of
from sennit_core.errors import Denied, NotFound, UsageError
from sennit_core.roles import needs

__all__ = ["router"]

_DATASETS_MAX = 1000
_Path = Annotated[str, Field(max_length=4096)]
_Passphrase = Annotated[str, Field(max_length=4096, repr=False)]


class BundleExport(Document):
    """Body of `POST /api/bundles/export`."""

    datasets: list[Annotated[str, Field(max_length=256)]] = Field(
        min_length=1, max_length=_DATASETS_MAX
    )
    path: _Path
    passphrase: _Passphrase


class BundleImport(Document):
    """Body of `POST /api/bundles/import`; `file` is the file as its owner sees it."""

    path: _Path
    file: FileState
    passphrase: _Passphrase


def router(peers: PeerService, lake: Lake) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["datasets"])
    exports = ThreadPoolExecutor(1, "bundle-export")
    imports = ThreadPoolExecutor(1, "bundle-import")

    @routes.post("/api/bundles/export", openapi_extra=needs("admin"))
    async def export(body: BundleExport, request: Request) -> StreamingResponse:
        """Write datasets to an encrypted file of the node's machine; its owner there only."""
        check_owner(request, "writing a file of the node's machine")
        stop = threading.Event()
        wanted = ExportRequest(
            tuple(body.datasets), Path(body.path), body.passphrase, requester_of(request),
            peers.options.name,
        )  # fmt: skip
        work = export_bundle(lake, wanted, stopped=stop.is_set)
        return await report_lines(exports, work, stop)

    @routes.post("/api/bundles/import", openapi_extra=needs("admin"))
    async def load(body: BundleImport, request: Request) -> StreamingResponse:
        """Import datasets from a file of the node's machine; its owner there only."""
        check_owner(request, "reading a file of the node's machine")
        stop = threading.Event()
        file = _checked(Path(body.path), body.file)
        wanted = ImportRequest(file, body.passphrase, requester_of(request).name)
        work = import_bundle(lake, wanted, peers.seeder, stopped=stop.is_set)
        return await report_lines(imports, work, stop)

    return routes


def _checked(path: Path, seen: FileState) -> Path:
    """Return the path of the file that the client sees too: it may be in a container."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise NotFound("bundle", str(path), hint=str(error)) from None
    if not path.is_absolute() or not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{path} is not a regular file", hint="name a bundle")
    found = (str(status.st_ino), str(status.st_size), str(status.st_mtime_ns))
    if found != (seen.inode, seen.size, seen.mtime_ns):
        raise Denied(
            "importing a file that is another one for the node, or changes just now",
            needed="a file of the node's own machine",
        )
    return path
