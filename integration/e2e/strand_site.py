"""A server whose pages are cross-origin isolated, and which streams rings that Python fills.

    python strand_site.py FOLDER    # FOLDER has the compiled package; the address is printed

Every stream has a ring of its own, written by a process of its own.
"""

from __future__ import annotations

import multiprocessing
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

import strand
from strand.bridge import Bridge, frames, length_prefixed

ISOLATION = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cache-control": "no-store",
}
SCHEMA = strand.build_schema(
    [
        ("id", "u32"),
        {"name": "text", "type": "utf8", "nullable": True},
        ("samples", "i32_array"),
        ("kind", "utf8_ref"),
        ("score", "f64"),
    ]
)
KINDS = ["low", "high"]
outcomes: list[str] = []


def record(n: int) -> tuple[Any, ...]:
    """Return what record number `n` holds; the pages know it too."""
    text = None if n % 7 == 0 else f"{n} größer " * (n % 5)
    return n, text, [n, -n][: n % 3], KINDS[n % 2], n / 4


def produce(ring: strand.Ring, count: int, outcome: Any) -> None:
    """Write `count` records in another process, and return its outcome."""
    try:
        with ring.producer() as writer:
            for start in range(0, count, 500):
                writer.write_record_batch(
                    [record(n) for n in range(start, min(start + 500, count))]
                )
        outcome.put("finished")
    except strand.StrandAbortError:
        outcome.put("aborted")


@contextmanager
def produced(query: Any) -> Iterator[strand.Ring]:
    """A small ring and the process that fills it."""
    context = multiprocessing.get_context("spawn")
    outcome = context.SimpleQueue()
    version, count = int(query.get("version", 6)), int(query["count"])
    metadata = {"intern": KINDS}
    with strand.open_ring(SCHEMA, 256, "16KiB", version=version, metadata=metadata) as ring:
        process = context.Process(target=produce, args=(ring, count, outcome), daemon=True)
        process.start()
        try:
            yield ring
        finally:
            ring.signal_abort()  # for one that was not read to its end
            process.join()
            outcomes.append(outcome.get())


async def socket_stream(websocket: WebSocket) -> None:
    """Carry a stream over a WebSocket."""
    await websocket.accept()
    with produced(websocket.query_params) as ring, ring.consumer() as view:
        await Bridge(view, credit=True).serve(websocket.send_bytes, websocket.iter_bytes())


async def body_stream(request: Request) -> Response:
    """Carry a stream in the body of a response."""

    def parts() -> Iterator[bytes]:
        with produced(request.query_params) as ring, ring.consumer() as view:
            yield from length_prefixed(frames(view))

    return StreamingResponse(parts(), headers=ISOLATION)


async def last_outcome(request: Request) -> Response:
    """Answer how the last producer ended, once it has."""
    return JSONResponse(outcomes[-1] if outcomes else None, headers=ISOLATION)


async def page(request: Request) -> Response:
    """Answer an empty page, or one that runs a module."""
    script = request.path_params.get("name")
    tag = f'<script type="module" src="/{script}.js"></script>' if script else ""
    return HTMLResponse(f"<!doctype html><title>Strand</title><body>{tag}", headers=ISOLATION)


async def module(request: Request) -> Response:
    """Answer a compiled module, whose imports have no endings."""
    path = Path(sys.argv[1]) / request.path_params["path"]
    found = path if path.suffix == ".js" else path.with_name(path.name + ".js")
    if not found.is_file():
        return Response(status_code=404, headers=ISOLATION)
    return FileResponse(found, media_type="text/javascript", headers=ISOLATION)


def main() -> None:
    """Listen on a free port, and print the address."""
    app = Starlette(
        routes=[
            Route("/", page),
            Route("/page/{name}", page),
            Route("/body", body_stream),
            Route("/outcome", last_outcome),
            WebSocketRoute("/socket", socket_stream),
            Route("/{path:path}", module),
        ]
    )
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(app, log_level="warning", lifespan="off", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
