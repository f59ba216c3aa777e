"""Event streams (`text/event-stream`) with Firebase's events: put, patch, keep-alive, cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, TypeAlias

from elkyn.events import Event
from elkyn.server.handle import dump
from elkyn.watch import Subscription
from sennit_core.errors import Closed, Denied

__all__ = ["encode", "run_stream"]

Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_KEEP_ALIVE = b"event: keep-alive\ndata: null\n\n"
_CANCEL = b"event: cancel\ndata: null\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


def encode(event: Event) -> bytes:
    """Return an event as it goes over the wire."""
    data = dump({"path": event.path, "data": event.data})
    return b"event: %b\ndata: %b\n\n" % (event.type.encode(), data)


async def run_stream(
    subscription: Subscription,
    receive: Receive,
    send: Send,
    *,
    keep_alive_seconds: float,
    check: Callable[[], None],
) -> None:
    """Send events until the client leaves, the subscription ends, or reading is denied.

    Args:
        subscription: closed by whoever made it; closing it ends the stream.
        receive: ASGI's, to notice that the client is gone.
        send: ASGI's.
        keep_alive_seconds: silence after which a keep-alive is sent.
        check: raises `Denied` when the client may not read any more; asked at each keep-alive.
    """
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    gone = asyncio.create_task(_until_gone(receive))
    pump = asyncio.create_task(_pump(subscription, send, keep_alive_seconds, check))
    try:
        await asyncio.wait({gone, pump}, return_when=asyncio.FIRST_COMPLETED)
        if pump.done():
            pump.result()
    finally:
        for task in (gone, pump):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _pump(
    subscription: Subscription,
    send: Send,
    keep_alive_seconds: float,
    check: Callable[[], None],
) -> None:
    async def write(data: bytes, *, more: bool = True) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": more})

    with suppress(Closed):
        while True:
            event = await subscription.next(keep_alive_seconds)
            if event is not None:
                events = [event, *subscription.take_waiting()]
                await write(b"".join(map(encode, events)))
                continue
            try:
                check()
            except Denied:
                await write(_CANCEL)
                break
            await write(_KEEP_ALIVE)
    await write(b"", more=False)
