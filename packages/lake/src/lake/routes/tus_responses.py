"""What responses of tus have in common: headers, and the status codes of the protocol."""

from __future__ import annotations

from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from fastapi import Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.types import Message, Receive, Scope, Send

from lake.uploads.tus_headers import ALGORITHMS, EXTENSIONS, VERSION
from sennit_core.errors import Conflict, NotFound, SennitError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PREFIX", "TusRoute", "capabilities", "empty", "http_date", "refusal"]

PREFIX = "/tus"
CHECKSUM_MISMATCH = 460
LOCKED = 423


class TusRoute(APIRoute):
    """A route whose responses, those to errors included, name the version of the protocol."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI 3)."""

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                version = (b"tus-resumable", VERSION.encode())
                message = {**message, "headers": [*message.get("headers", []), version]}
            await send(message)

        await super().handle(scope, receive, send_marked)


def capabilities(size_max: int | None) -> dict[str, str]:
    """Return the headers that tell what the server can do."""
    found = {
        "Tus-Version": VERSION,
        "Tus-Extension": EXTENSIONS,
        "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
    }
    return found if size_max is None else {**found, "Tus-Max-Size": str(size_max)}


def empty(status: int, headers: Mapping[str, Any]) -> Response:
    """Return a response without a body; headers whose value is None are left out."""
    texts = {name: str(value) for name, value in headers.items() if value is not None}
    return Response(status_code=status, headers={"Cache-Control": "no-store", **texts})


def refusal(status: int, error: SennitError, **headers: str) -> JSONResponse:
    """Return an error under a status of the protocol."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return JSONResponse(
        error.to_json(), status_code=status, headers={"Cache-Control": "no-store", **more}
    )


def wrong_version(found: str | None) -> JSONResponse:
    """Return the response to a request of another version of the protocol."""
    error = UsageError(
        f"the header Tus-Resumable is {found!r}"
        if found
        else "the header Tus-Resumable is missing",
        hint=f"this server speaks tus {VERSION}",
    )
    return refusal(412, error, Tus_Version=VERSION)


def wrong_type(found: str) -> JSONResponse:
    """Return the response to a body that is announced as something else than bytes to append."""
    error = UsageError(
        f"the Content-Type is {found[:80]!r}", hint="use application/offset+octet-stream"
    )
    return refusal(415, error)


def wrong_offset(upload_id: str, offset: int, sent: int) -> JSONResponse:
    """Return the response to bytes of another place than the end of the upload."""
    error = Conflict(
        f"upload {upload_id} is at offset {offset}, and these bytes are for offset {sent}",
        hint="ask for the offset with HEAD, and go on there",
    )
    return refusal(409, error, Upload_Offset=str(offset))


def locked(upload_id: str) -> JSONResponse:
    """Return the response to a request while another one writes to the upload."""
    error = Conflict(
        f"another request writes to upload {upload_id}", hint="wait until it has ended"
    )
    return refusal(LOCKED, error, Retry_After="1")


def gone(upload_id: str, *, existed: bool) -> JSONResponse:
    """Return the response for an upload that was terminated or has expired, or never was."""
    error = NotFound("upload", upload_id[:80], hint="create another one: POST /tus/")
    return refusal(410 if existed else 404, error)


def http_date(seconds: float) -> str:
    """Return Unix seconds in the form of HTTP (RFC 9110, section 5.6.7)."""
    return formatdate(seconds, usegmt=True)
