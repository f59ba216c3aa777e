"""Values and events as messages of the realtime wire protocol, pushed to a socket."""

from __future__ import annotations

from typing import Any

from elkyn.server.realtime.feed import Batch
from elkyn.server.realtime.session import Listen
from elkyn.server.realtime.wire import frames_of, push
from elkyn.server.resume import id_of
from elkyn.storage.terms import Terms
from elkyn.tree.events import Event
from elkyn.tree.paths import parse_path
from elkyn.tree.values import Stored, present

__all__ = ["frames_of_batch", "push_event", "push_value"]

_NAMED = "ids"  # key of `Batch.encoded` for messages with event ids; no tag can equal it


def push_value(listen: Listen, value: Stored) -> str:
    """Return the first message of a listen of a whole node: its current value."""
    return push("d", _body(listen.name, present(value, True), listen.tag, ""))


def push_event(listen: Listen, event: Event, terms: Terms) -> str:
    """Return the message for an event of a listen; `terms` are those of its store."""
    path = "/".join((*listen.path, *parse_path(event.path)))
    action = "d" if event.type == "put" else "m"
    name = id_of(terms, event.position, event.time_ms) if listen.names else ""
    return push(action, _body(path, event.exported, listen.tag, name))


def frames_of_batch(listen: Listen, batch: Batch, terms: Terms) -> list[str]:
    """Return the frames for a batch; encoded once for all clients that listen to the whole node."""
    # Clients of the node differ in two ways only: whether events carry ids, and (for SDKs that tag
    # listens) the tag. Each variant is encoded once per batch.
    key = _NAMED if listen.names else listen.tag
    known: list[str] | None = batch.encoded.get(key) if listen.query is None else None
    if known is not None:
        return known
    frames = [frame for e in batch.events for frame in frames_of(push_event(listen, e, terms))]
    if listen.query is None:
        batch.encoded[key] = frames
    return frames


def _body(path: str, data: Any, tag: Any, name: str) -> dict[str, Any]:
    body = {"p": path, "d": data}
    if tag is not None:
        body["t"] = tag
    if name:
        body["i"] = name
    return body
