"""`ElkynStore(mode="replica")`: a follower in this process that writes through its leader."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, Unpack
from urllib.parse import quote

from elkyn.errors import ReplicaLag
from elkyn.options import Following
from elkyn.replication.filtering import parse_paths
from elkyn.replication.leader_client import Answer, LeaderClient, error_of
from elkyn.replication.link import Link
from elkyn.storage.writer import patch_write, put_write
from elkyn.store import ElkynStore, Mode
from elkyn.tree.paths import format_path, parse_path
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import Conflict, Unsupported

__all__ = ["ReplicaStore"]

_HERE_SECONDS = 30.0
_TRIES_MAX = 25


class ReplicaStore(ElkynStore):
    """A replica of a server's namespace: reads are local, writes go to the leader.

    A write returns when the leader has committed it and this replica has received it. Ephemeral
    values of the leader are not replicated.

    Args:
        path: the replica's folder; None keeps it in memory.
        mode: `replica` or `embedded`.
        namespace: the server's namespace.
        clock: the time source of push ids.
        options: see `Following`.

    Attributes:
        replica: the link to the leader; `replica.status` is its state.
    """

    replica: Link

    def __init__(
        self,
        path: str | PathLike[str] | None = None,
        mode: Mode = "replica",
        *,
        namespace: str = "default",
        clock: Clock = SYSTEM,
        **options: Unpack[Following],
    ) -> None:
        super().__init__(path, mode, namespace=namespace, clock=clock, **options)
        self._signed = False
        try:
            url, token = options["cluster_url"], options.get("token")
            self._leader, self._client_requests = LeaderClient(url, token), LeaderClient(url, None)
            self.replica = Link(self, url, token, parse_paths(options.get("paths") or ()))
        except BaseException:
            super().close()
            raise

    def enable_auth(self, secret: str | bytes) -> None:
        """Authorize calls by the rules; writes then send their client's `token` to the leader."""
        super().enable_auth(secret)
        self._signed = True

    def set(
        self, path: str, value: Any, *, token: str | None = None, ephemeral: bool = False
    ) -> Any:
        """Replace the value at `path` on the leader; otherwise like `ElkynStore.set`.

        Raises:
            Unavailable: the leader cannot be reached.
            Denied: the leader's rules deny the write.
            ReplicaLag: the leader has committed the write, but it has not arrived here in time.
        """
        # Only for its checks: a bad value is refused here, without asking the leader.
        put_write(parse_path(path), value)
        return self._write("PUT", path, value, token, ephemeral=ephemeral)

    def update(
        self,
        path: str,
        values: Mapping[str, Any],
        *,
        token: str | None = None,
        ephemeral: bool = False,
    ) -> dict[str, Any]:
        """Replace several children of `path` on the leader; raises like `set`."""
        patch_write(parse_path(path), values)
        shown: dict[str, Any] = self._write("PATCH", path, values, token, ephemeral=ephemeral)
        return shown

    def push(
        self, path: str, value: Any, *, token: str | None = None, ephemeral: bool = False
    ) -> str:
        """Add `value` under a new key on the leader; raises like `set`."""
        key = self.admin.new_push_id()
        self.set(f"{path}/{key}", value, token=token, ephemeral=ephemeral)
        return key

    def transaction(
        self, path: str, function: Callable[[Any], Any], *, token: str | None = None
    ) -> Any:
        """Replace the leader's value by `function(value)`; raises like `set`.

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
        """Replace the leader's rules; raises like `set`."""
        text = json.dumps(dict(source)) if isinstance(source, Mapping) else source
        body = text.encode() if isinstance(text, str) else text
        target = f"/.settings/rules.json?ns={quote(self.namespace)}"
        self._done(self._leader.send("PUT", target, body), "/.settings/rules")

    def _target(self, path: str) -> str:
        keys = parse_path(path)
        return f"{quote(format_path(keys))}.json?ns={quote(self.namespace)}"

    def _send(
        self, method: str, target: str, body: bytes, token: str | None, headers: Mapping[str, str]
    ) -> Answer:
        if not self._signed:
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
        if not self.replica.wait_for(answer.position, _HERE_SECONDS):
            raise ReplicaLag(
                self.position, answer.position, hint="the leader has committed the write"
            )
        return json.loads(answer.body)

    def close(self) -> None:
        """Stop following and close; otherwise like `ElkynStore.close`."""
        self.replica.close()
        self._leader.close()
        self._client_requests.close()
        super().close()
