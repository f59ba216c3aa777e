"""A Python client for a served tree, which the command line uses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Self
from urllib.parse import quote, urlencode

from elkyn.errors import Diverged, NotSynced
from elkyn.replication.leader_client import LeaderClient
from elkyn.tree.events import Event
from elkyn.tree.paths import format_path, parse_path
from sennit_core.errors import Denied, NotFound, Unauthenticated, Unavailable, UsageError

__all__ = ["RemoteTree"]

_SILENCE_SECONDS = 75
_BOUNDS = {
    "start_at": "startAt",
    "start_after": "startAfter",
    "end_at": "endAt",
    "end_before": "endBefore",
    "equal_to": "equalTo",
}
_NAMESPACES = "/.settings/namespaces.json"
_LIMITS = {"limit_to_first": "limitToFirst", "limit_to_last": "limitToLast"}


class RemoteTree:
    """A tree on a server; the methods are those of `ElkynStore`.

    Args:
        url: the server's URL, without a path.
        token: the credential sent with every request; None for none.
        namespace: the namespace to use; None for the server's default.
        timeout_seconds: how long to wait for a response.

    Raises:
        Unauthenticated: the server rejects the token, or denies it the request.
        UsageError: the server rejects the request as invalid, with its message.
        Unavailable: the server cannot be reached or is too busy.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        namespace: str | None = None,
        *,
        timeout_seconds: float = 60,
    ) -> None:
        self._client = LeaderClient(url, token, timeout_seconds=timeout_seconds, what="the server")
        self._namespace = namespace

    def get(self, path: str, *, export: bool = False) -> Any:
        """Return the value at `path`, None when there is none."""
        return self._ask("GET", path, {"format": "export"} if export else {})

    def keys(self, path: str) -> list[str]:
        """Return the keys of the children of `path`."""
        found = self._ask("GET", path, {"shallow": "true"})
        return list(found) if isinstance(found, dict) else []

    def set(self, path: str, value: Any) -> Any:
        """Replace the value at `path`; None deletes."""
        return self._ask("PUT", path, body=value)

    def update(self, path: str, values: Mapping[str, Any]) -> Any:
        """Replace several children of `path` in one atomic write."""
        return self._ask("PATCH", path, body=dict(values))

    def push(self, path: str, value: Any) -> str:
        """Add `value` under a new key; returns the key."""
        return str(self._ask("POST", path, body=value)["name"])

    def delete(self, path: str) -> None:
        """Delete the value at `path`, with all its children."""
        self._ask("DELETE", path)

    def query(self, path: str, *, order_by: str = "$key", **window: Any) -> dict[str, Any]:
        """Return the children of `path` that a query selects; see `ElkynStore.query`."""
        query = {"orderBy": json.dumps(order_by)}
        for name, value in window.items():
            if name in _LIMITS:
                query[_LIMITS[name]] = str(value)
            elif isinstance(value, tuple):
                query[_BOUNDS[name]] = ",".join(map(json.dumps, value))
            else:
                query[_BOUNDS[name]] = json.dumps(value)
        found = self._ask("GET", path, query)
        if isinstance(found, list):
            return {str(key): child for key, child in enumerate(found) if child is not None}
        return found or {}

    def watch(self, path: str) -> Iterator[Event]:
        """Yield `put "/"` of the value now, then every change, until the server ends it."""
        target = self._target(path, {})
        headers = {"Accept": "text/event-stream"}
        with self._client.stream(target, headers, _SILENCE_SECONDS) as answer:
            if answer.status != 200:
                raise _refusal(answer.status, answer.read(), f"watching {path}")
            fields: dict[str, str] = {}
            for raw in answer:
                line = raw.decode().rstrip("\r\n")
                if line:
                    name, _colon, value = line.partition(":")
                    fields[name] = value.removeprefix(" ")
                    continue
                event, fields = _event(path, fields), {}
                if event is not None:
                    yield event

    def namespaces(self) -> list[str]:
        """Return the names of the server's namespaces."""
        return [str(name) for name in json.loads(self._send("GET", _NAMESPACES))["namespaces"]]

    def create_namespace(self, name: str) -> bool:
        """Create a namespace; returns False when it exists already."""
        data = json.dumps({"name": name}).encode()
        return bool(json.loads(self._send("POST", _NAMESPACES, data))["created"])

    def text(self, page: str) -> str:
        """Return a page of the server as text, for example `/metrics`."""
        return self._send("GET", page).decode()

    def _ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None
    ) -> Any:
        data = b"" if method in ("GET", "DELETE") else json.dumps(body).encode()
        return json.loads(self._send(method, self._target(path, query or {}), data))

    def _target(self, path: str, query: Mapping[str, str]) -> str:
        asked = dict(query)
        if self._namespace is not None:
            asked["ns"] = self._namespace
        return quote(format_path(parse_path(path))) + ".json?" + urlencode(asked)

    def _send(self, method: str, target: str, data: bytes = b"") -> bytes:
        answer = self._client.send(method, target, data)
        if answer.status not in (200, 201, 204):
            raise _refusal(answer.status, answer.body, f"{method} {target}")
        return answer.body

    def close(self) -> None:
        """Close the kept-alive connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _event(path: str, fields: Mapping[str, str]) -> Event | None:
    kind = fields.get("event")
    if kind in ("cancel", "auth_revoked"):
        raise Denied(f"watching {path}", "a rule and a credential that allow it")
    if kind == "diverged":
        raise Diverged
    if kind == NotSynced.code:
        raise NotSynced
    if kind not in ("put", "patch"):
        return None
    body = json.loads(fields["data"])
    position = int(fields.get("id", "0").partition(".")[0])  # the id is POSITION.TERM
    return Event("put" if kind == "put" else "patch", body["path"], body["data"], position)


def _refusal(status: int, body: bytes, asked: str) -> Exception:
    try:
        text = str(json.loads(body)["error"])
    except (ValueError, LookupError, TypeError):
        text = f"the server answered {status}"
    if status == 401:
        return Unauthenticated(asked, message=f"the server refuses {asked}: {text}")
    if status == 404:
        return NotFound("page", asked, message=text)
    if status in (429, 500, 502, 503, 504, 507):
        return Unavailable(
            "the server", message=f"the server cannot process the request now: {text}"
        )
    return UsageError(text)
