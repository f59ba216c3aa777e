"""Endpoints of remote workers: the list of them, their WebSocket, their inputs and their results.

A worker's token has the role `worker`, which no other route accepts. The protocol is in
`elytra.backends.remote.messages`; here its frames are received and sent.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response, WebSocket
from fastapi.responses import FileResponse, JSONResponse
from starlette.websockets import WebSocketDisconnect, WebSocketState

from elytra.backends.remote.backend import CloseFrame, RemoteBackend
from elytra.backends.remote.messages import SUBPROTOCOL
from sennit_core.errors import BadInput
from sennit_core.roles import needs
from sennit_core.text import camel_case

__all__ = ["router"]

_SEND_SECONDS = 30.0
"""A worker that accepts no bytes for this time is dropped; its attempts are made by others."""
_UNSENT_MAX = 1024
"""Messages for a worker that does not read. Its attempts need three each."""
_MEDIA_TYPE = "application/vnd.apache.arrow.stream"
_HASH = re.compile(r"[0-9a-f]{64}")

Expires = Annotated[int, Query(ge=0, le=(1 << 53))]
Signature = Annotated[str, Query(max_length=64)]


def router(backend: RemoteBackend, doubted_jobs: Callable[[str], Sequence[str]]) -> APIRouter:
    """Return the routes of remote workers.

    Args:
        backend: Runs tasks on them.
        doubted_jobs: Returns the jobs that had ended with rows of a token, which was found to be wrong.
    """
    routes = APIRouter(tags=["workers"])
    handlers = WorkerHandlers(backend, doubted_jobs)
    socket = {"x-websocket-role": "worker"}
    routes.get("/api/workers", openapi_extra=needs("reader") | socket)(handlers.list)
    routes.add_api_websocket_route("/api/workers", handlers.join)
    admin = needs("admin")
    routes.delete("/api/workers/excluded", status_code=204, openapi_extra=admin)(handlers.readmit)
    path = "/api/workers/inputs/{attempt}"
    routes.get(path, openapi_extra=needs("worker"))(handlers.input)
    path = "/api/jobs/{job_id}/partials/{attempt}"
    routes.put(path, openapi_extra=needs("worker"))(handlers.put_partial)
    return routes


class WorkerHandlers:
    """The request handlers of remote workers.

    Args:
        backend: Runs tasks on them.
        doubted_jobs: Returns the jobs that had ended with rows of a token, which was found to be wrong.
    """

    def __init__(
        self, backend: RemoteBackend, doubted_jobs: Callable[[str], Sequence[str]]
    ) -> None:
        self._backend = backend
        self._doubted_jobs = doubted_jobs

    def list(self) -> dict[str, Any]:
        """The workers that are connected, and how their results are checked.

        As a WebSocket with the subprotocol `sennit-worker-1`, this path is where workers connect; that
        needs a token with the role `worker`, in the header or as a second subprotocol
        `sennit-token.TOKEN`.
        """
        options = self._backend.options
        return {
            "trust": options.trust,
            "sampleShare": options.sample_share if options.trust == "sample" else 0.0,
            "workers": [
                {camel_case(name): value for name, value in asdict(each).items()}
                for each in self._backend.sessions()
            ],
            "excluded": [
                {"token": token, "reason": reason, "doubtedJobs": self._doubted_jobs(token)}
                for token, reason in self._backend.excluded().items()
            ],
        }

    def readmit(self, token: Annotated[str, Query(max_length=64)]) -> None:
        """Admit workers with an excluded token again.

        The token is an id as the list has it; empty on a node without authentication.
        """
        self._backend.readmit(token)

    async def join(self, socket: WebSocket) -> None:
        """Serve the connection of a worker until either side closes it."""
        offered = socket.scope.get("subprotocols", ())
        await socket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
        loop = asyncio.get_running_loop()
        unsent: asyncio.Queue[bytes | CloseFrame] = asyncio.Queue()

        def post(message: bytes | CloseFrame) -> None:
            with suppress(RuntimeError):  # the loop is closed, so the connection is too
                loop.call_soon_threadsafe(unsent.put_nowait, message)

        connection = self._backend.connect(_token_of(socket), post)
        sending = asyncio.create_task(_send(socket, unsent))
        receiving = asyncio.create_task(_receive(socket, self._backend, connection))
        try:
            await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            receiving.cancel()
            self._backend.disconnect(connection)
            await asyncio.gather(sending, receiving, return_exceptions=True)
            await _close(socket)

    async def input(
        self, request: Request, attempt: str, expires: Expires, signature: Signature
    ) -> Response:
        """The input of an attempt: a shard's columns as an Arrow IPC stream, behind it small sides of joins.

        Its address is in the task, and valid until the attempt ends.
        """
        file = self._backend.input_file(
            attempt, _token_of(request), path=request.url.path, expires=expires,
            signature=signature,
        )  # fmt: skip
        etag = f'"{file.sha256}"'
        headers = {"ETag": etag, "Cache-Control": "private", "X-Content-Type-Options": "nosniff"}
        known = request.headers.get("If-None-Match", "").split(",")
        if any(tag.strip().removeprefix("W/") in (etag, "*") for tag in known):
            return Response(status_code=304, headers=headers)
        return FileResponse(file.path, headers=headers, media_type=_MEDIA_TYPE)

    async def put_partial(
        self, request: Request, job_id: str, attempt: str, expires: Expires, signature: Signature
    ) -> Response:
        """Receive a result that is too long for a message.

        Its address is in the task. The header X-Sha256 has the SHA-256 of the body.
        """
        del job_id  # part of the signed path
        sha256 = request.headers.get("X-Sha256", "")
        if not _HASH.fullmatch(sha256):
            raise BadInput("the header X-Sha256", reason="it is not a SHA-256 in hex")
        upload = self._backend.upload(
            attempt, _token_of(request), path=request.url.path, expires=expires,
            signature=signature,
        )  # fmt: skip
        with upload:
            async for piece in request.stream():
                if piece:
                    await asyncio.to_thread(upload.write, piece)
            size = await asyncio.to_thread(upload.finish, sha256)
        return JSONResponse({"attempt": attempt, "bytes": size})


def _token_of(connection: Request | WebSocket) -> str:
    """Return what identifies the client's token; "" without authentication."""
    principal = connection.scope.get("state", {}).get("principal")
    return str(getattr(principal, "token_id", ""))


async def _send(socket: WebSocket, unsent: asyncio.Queue[bytes | CloseFrame]) -> None:
    while unsent.qsize() <= _UNSENT_MAX:
        message = await unsent.get()
        if isinstance(message, CloseFrame):
            await _close(socket, message)
            return
        await asyncio.wait_for(socket.send_bytes(message), _SEND_SECONDS)


async def _receive(socket: WebSocket, backend: RemoteBackend, connection: int) -> None:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        backend.receive(connection, message.get("bytes"))


async def _close(socket: WebSocket, frame: CloseFrame | None = None) -> None:
    """Close a socket that may be closed already."""
    if socket.application_state is not WebSocketState.CONNECTED:
        return
    frame = frame or CloseFrame(1011, "the connection failed")
    with suppress(RuntimeError, OSError, WebSocketDisconnect, TimeoutError):
        await asyncio.wait_for(socket.close(frame.code, frame.reason), _SEND_SECONDS)
