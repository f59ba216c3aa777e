"""The writes of `ElkynStore(mode="replica")`: its leader commits them, and the replica follows it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from elkyn.auth.store_auth import StoreAuth
from elkyn.errors import ReplicaLag
from elkyn.options import Following
from elkyn.replication.filtering import parse_paths
from elkyn.replication.leader_client import Answer, LeaderClient, error_of
from elkyn.replication.link import Link
from elkyn.replication.replicated_store import ReplicatedStore
from elkyn.storage.writer import patch_write, put_write
from elkyn.tree.paths import format_path, parse_path
from sennit_core.errors import Conflict, Unsupported

__all__ = ["LeaderWrites"]

_HERE_SECONDS = 30.0
_TRIES_MAX = 25


class LeaderWrites:
    """Sends the writes of a replica to its leader, and returns when they have arrived here.

    Reads of a replica are local. Ephemeral values of the leader are not replicated. Each write raises
    `Unavailable` if the leader cannot be reached, `Denied` if its rules deny the write, and
    `ReplicaLag` if it has committed the write, but the write has not arrived here in time.

    Args:
        store: the replica's store; nothing else may write to it.
        auth: the store's; once it is enabled, the credential of a write is its own `token`.
        options: `cluster_url`, `token` and `paths`, see `Following`.

    Attributes:
        link: follows the leader; `link.status` is the state of the replica.
    """

    def __init__(self, store: ReplicatedStore, auth: StoreAuth, options: Following) -> None:
        self._store = store
        self._auth = auth
        url, token = options["cluster_url"], options.get("token")
        self._leader, self._client_requests = LeaderClient(url, token), LeaderClient(url, None)
        self.link = Link(store, url, token, parse_paths(options.get("paths") or ()))

    def put(self, path: str, value: Any, token: str | None, *, ephemeral: bool) -> Any:
        """Replace the leader's value at `path`; see `ElkynStore.set`."""
        # Only for its checks: a bad value is refused here, without asking the leader.
        put_write(parse_path(path), value)
        return self._write("PUT", path, value, token, ephemeral=ephemeral)

    def patch(
        self, path: str, values: Mapping[str, Any], token: str | None, *, ephemeral: bool
    ) -> dict[str, Any]:
        """Replace several children of the leader's `path`; see `ElkynStore.update`."""
        patch_write(parse_path(path), values)
        shown: dict[str, Any] = self._write("PATCH", path, values, token, ephemeral=ephemeral)
        return shown

    def transaction(self, path: str, function: Callable[[Any], Any], token: str | None) -> Any:
        """Replace the leader's value by `function(value)`; see `ElkynStore.transaction`.

        Raises:
            Conflict: the value changed each time before the new one could be written.
        """
        target = self._target(path)
        # Optimistic: compare-and-set by ETag, as the leader runs no function of this process.
        for _try in range(_TRIES_MAX):
            read = self._send("GET", target, b"", token, {"X-Firebase-ETag": "true"})
            if read.status != 200:
                raise error_of(read, path)
            value = function(json.loads(read.body))
            put_write(parse_path(path), value)
            etag = {"If-Match": read.headers["etag"]}
            answer = self._send("PUT", target, json.dumps(value).encode(), token, etag)
            if answer.status != 412:
                return self._done(answer, path)
        raise Conflict(f"the value at {path} changes faster than it can be replaced")

    def set_rules(self, source: str | bytes | Mapping[str, Any]) -> None:
        """Replace the leader's rules; see `ElkynStore.set_rules`."""
        text = json.dumps(dict(source)) if isinstance(source, Mapping) else source
        body = text.encode() if isinstance(text, str) else text
        target = f"/.settings/rules.json?ns={quote(self._store.namespace)}"
        self._done(self._leader.send("PUT", target, body), "/.settings/rules")

    def _target(self, path: str) -> str:
        keys = parse_path(path)
        return f"{quote(format_path(keys))}.json?ns={quote(self._store.namespace)}"

    def _send(
        self, method: str, target: str, body: bytes, token: str | None, headers: Mapping[str, str]
    ) -> Answer:
        if not self._auth.enabled:
            return self._leader.send(method, target, body, headers)
        shown = {} if token is None else {"Authorization": f"Bearer {token}"}
        return self._client_requests.send(method, target, body, {**headers, **shown})

    def _write(
        self, method: str, path: str, value: Any, token: str | None, *, ephemeral: bool
    ) -> Any:
        if ephemeral:
            raise Unsupported("ephemeral writes are not replicated: write them on the leader")
        body = json.dumps(value).encode()
        return self._done(self._send(method, self._target(path), body, token, {}), path)

    def _done(self, answer: Answer, path: str) -> Any:
        if answer.status not in (200, 204):
            raise error_of(answer, path)
        # Read your own writes: the position of the write came with the answer.
        if not self.link.wait_for(answer.position, _HERE_SECONDS):
            raise ReplicaLag(
                self._store.position, answer.position, hint="the leader has committed the write"
            )
        return json.loads(answer.body)

    def close(self) -> None:
        """Stop following, and close the connections to the leader; idempotent."""
        self.link.close()
        self._leader.close()
        self._client_requests.close()
