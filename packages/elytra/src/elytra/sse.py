"""Parse server-sent events of the realtime tree and apply them to the watched value.

The stream format is the WHATWG HTML standard's, section "Server-sent events"; the events `put` and
`patch` with `{"path", "data"}` are those of Firebase's REST streaming.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event: its name and its data lines, joined by newlines."""

    name: str
    data: str


def parse_events(lines: Iterable[str]) -> Iterator[ServerEvent]:
    """Parse lines (without line ends) into events; comments and unknown fields are skipped."""
    name, data = "message", list[str]()
    for line in lines:
        if not line:
            if data:
                yield ServerEvent(name, "\n".join(data))
            name, data = "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)


def fold(events: Iterable[ServerEvent]) -> Iterator[Any]:
    """Yield the watched value after each change.

    Args:
        events: Events of one watched path; `keep-alive` and unknown names change nothing.
    """
    value: Any = None
    for event in events:
        if event.name not in {"put", "patch"}:
            continue
        change = json.loads(event.data)
        keys = [key for key in change["path"].split("/") if key]
        if event.name == "put":
            value = _put(value, keys, change["data"])
        else:
            for key, item in change["data"].items():
                value = _put(value, [*keys, *[part for part in key.split("/") if part]], item)
        yield value


def _put(value: Any, keys: list[str], item: Any) -> Any:
    """Return the value with `item` at the path; values yielded earlier are not changed."""
    if not keys:
        return item
    head, *rest = keys
    children = dict(value) if isinstance(value, dict) else {}
    child = _put(children.get(head), rest, item)
    if child is None:
        children.pop(head, None)
    else:
        children[head] = child
    return children or None
