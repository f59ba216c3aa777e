"""Requests of any size, against memory that has one."""

from __future__ import annotations

import asyncio
import json

import pytest

from sennit._asgi import Message, Receive, Scope, Send
from sennit.limits import BODY_BYTES_MAX, HEAD_BYTES_MAX, BodyLimit


async def count(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the size of the body, as the application behind the limit sees it."""
    size = 0
    message: Message = {"more_body": True}
    while message.get("more_body"):
        message = await receive()
        size += len(message.get("body", b""))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def ask(
    pieces: list[bytes], *, path: str = "/api/query", known: bool = True, announced: int = 0
) -> tuple[int, bytes, int]:
    """The status and the body of the answer, and how many pieces were taken for it."""
    left, sent = list(pieces), []

    async def receive() -> Message:
        body = left.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(left)}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-length", str(announced).encode())] if announced else []
    state = {"principal": "somebody" if known else None}
    scope: Scope = {"type": "http", "path": path, "headers": headers, "state": state}
    asyncio.run(BodyLimit(count)(scope, receive, send))
    return sent[0]["status"], sent[1]["body"], len(pieces) - len(left)


def test_a_body_within_the_limit_arrives_whole() -> None:
    assert ask([b"x" * 1000] * 30)[:2] == (200, b"30000")


@pytest.mark.parametrize(("known", "limit"), [(True, BODY_BYTES_MAX), (False, HEAD_BYTES_MAX)])
def test_a_body_beyond_the_limit_is_not_read_to_its_end(known: bool, limit: int) -> None:
    status, body, taken = ask([b"x" * 10_000] * 1000, known=known)
    assert status == 413
    assert json.loads(body)["details"]["limitBytes"] == limit
    assert taken == limit // 10_000 + 1


def test_a_body_that_announces_too_much_is_not_read_at_all() -> None:
    assert ask([b"x"], announced=1 << 40)[::2] == (413, 0)


def test_uploads_stream_past_the_limit() -> None:
    assert ask([b"x" * (1 << 20)] * 4, path="/api/upload")[:2] == (200, b"4194304")
