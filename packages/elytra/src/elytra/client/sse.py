"""Read the server-sent events of the realtime tree and apply them to the watched value.

The stream format is the WHATWG HTML standard's, section "Server-sent events", which `httpx-sse`
parses; the events `put` and `patch` with `{"path", "data"}` are those of Firebase's REST streaming.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # imported where they are used, as in `elytra.client.transport`
    import httpx
    from httpx_sse import ServerSentEvent


def watched_values(response: httpx.Response) -> Iterator[Any]:
    """Yield the watched value after each change that the response's stream reports."""
    from httpx_sse import EventSource

    # Not `response.iter_lines`: it also ends lines at U+2028, which JSON does not escape.
    return fold(EventSource(response).iter_sse())


def fold(events: Iterable[ServerSentEvent]) -> Iterator[Any]:
    """Yield the watched value after each change.

    Args:
        events: Events of one watched path; `keep-alive` and unknown names change nothing.
    """
    value: Any = None
    for event in events:
        if event.event not in {"put", "patch"}:
            continue
        change = json.loads(event.data)
        keys = [key for key in change["path"].split("/") if key]
        if event.event == "put":
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
