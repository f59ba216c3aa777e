"""What a socket is told about data: values and events as messages of the wire protocol."""

from __future__ import annotations

from typing import Any

from elkyn.events import Event
from elkyn.paths import parse_path
from elkyn.server.feed import Batch
from elkyn.server.session import Listen
from elkyn.server.wire import frames_of, push
from elkyn.values import Stored, present

__all__ = ["frames_of_batch", "push_event", "push_value"]


def push_value(listen: Listen, value: Stored) -> str:
    """Return the message that a listen of a whole node starts with."""
    return push("d", _body(listen.name, present(value, True), listen.tag))


def push_event(listen: Listen, event: Event) -> str:
    """Return the message for an event of a listen."""
    path = "/".join((*listen.path, *parse_path(event.path)))
    action = "d" if event.type == "put" else "m"
    return push(action, _body(path, event.exported, listen.tag))


def frames_of_batch(listen: Listen, batch: Batch) -> list[str]:
    """Return the frames for a batch; made once for all clients that listen to the whole node."""
    known: list[str] | None = batch.encoded.get(listen.tag) if listen.query is None else None
    if known is not None:
        return known
    frames = [frame for e in batch.events for frame in frames_of(push_event(listen, e))]
    if listen.query is None:
        batch.encoded[listen.tag] = frames
    return frames


def _body(path: str, data: Any, tag: Any) -> dict[str, Any]:
    return {"p": path, "d": data} if tag is None else {"p": path, "d": data, "t": tag}
