"""`ElkynStore`: a tree on disk or in memory, used in this process.

Layering: `tree` < `storage` < `auth.store_auth` < `index_builder`, `subscriptions`, `admin`,
`local_writes` < `replication.leader_writes` < `store`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, get_args, overload

from elkyn.admin import StoreAdmin
from elkyn.auth.store_auth import StoreAuth
from elkyn.auth.subscription_authorizer import SubscriptionAuthorizer
from elkyn.index_builder import IndexBuilder
from elkyn.local_writes import LocalWrites
from elkyn.options import Following, open_disk
from elkyn.storage.oplog import Oplog
from elkyn.storage.transactions import ReadTransaction
from elkyn.storage.writer import Writer
from elkyn.subscriptions import Bounds, Subscriptions
from elkyn.tree.events import Watchers
from elkyn.tree.paths import Path, parse_path
from elkyn.tree.push_ids import PushIds
from elkyn.tree.query import Query, Window, run_query
from elkyn.tree.values import present
from elkyn.tree.watch import Callback, Subscription, ViewSubscription
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import Unsupported, UsageError

if TYPE_CHECKING:
    from elkyn.replication.leader_writes import LeaderWrites
    from elkyn.replication.link import Link
    from elkyn.rules import RuleSet

__all__ = ["ElkynStore"]

Mode = Literal["standalone", "memory", "replica", "embedded"]

_REPLICA_MODES = ("replica", "embedded")


class ElkynStore:
    """A realtime tree: JSON values at paths, atomic writes, and events for subscribers.

    All methods are thread-safe. Writes are serialized and durable when they return; reads never
    wait for writes. An `ephemeral` write is not synced to the disk: readers and subscribers see it
    like any other, it survives the end of this process, and a crash of the machine may lose it.

    After `enable_auth`, each call acts for the user that its `token` names (without a token, for an
    unauthenticated caller), and the store's rules authorize it: a call that they deny raises
    `Denied`.

    Args:
        path: the store's folder, created when missing; None in mode `memory`.
        mode: `standalone`; `memory` for a store that ends with the process; `replica` (or
            `embedded`, the same) for a store that follows a server: reads are local, writes go to
            the server and are here when they return, see `LeaderWrites`.
        namespace: the store's name, for servers and messages.
        clock: the time source of server values and push ids.
        options: see `Options`, and `Following` for a replica.

    Attributes:
        replica: the link of a replica to its leader; None for other stores.
        admin: everything that applications do not need: see `StoreAdmin`.
        oplog: the log of durable writes.

    Raises:
        StoreInUse: another process, or another store in this process, has the folder open.
    """

    replica: Link | None = None
    _leader: LeaderWrites | None = None

    def __init__(
        self,
        path: str | PathLike[str] | None = None,
        mode: Mode = "standalone",
        *,
        namespace: str = "default",
        clock: Clock = SYSTEM,
        **options: Unpack[Following],
    ) -> None:
        if mode not in get_args(Mode):
            known = ", ".join(f'"{name}"' for name in get_args(Mode))
            raise Unsupported(f'unknown mode "{mode}"; use one of {known}')
        if ("cluster_url" in options) != (mode in _REPLICA_MODES):
            raise UsageError('cluster_url and mode="replica" need each other: pass both or neither')
        if mode not in _REPLICA_MODES and (path is None) == (mode == "standalone"):
            needs = "needs a folder" if path is None else "accepts no folder"
            raise UsageError(
                f'a store in mode "{mode}" {needs}',
                hint='use ElkynStore("data/tree") to keep values on disk, or ElkynStore(mode="memory")',
            )
        self.namespace = namespace
        self.path = None if path is None else FilePath(path)
        self.mode = mode
        self._disk = open_disk(self.path, clock, options)
        self._watchers = Watchers()
        self._writer = Writer(self._disk, self._watchers, clock)
        self._auth = StoreAuth(self._disk, self._writer, clock)
        self._index_builder = IndexBuilder(self._disk, self._writer, self._auth)
        self._push_ids = PushIds(clock)
        self.admin = StoreAdmin(
            self._disk,
            self._writer,
            self._watchers,
            self._auth,
            self._index_builder,
            self._push_ids,
        )
        self._authorizer = SubscriptionAuthorizer(self._auth, self._disk, clock, self.admin.observe)
        # Indexes and open subscriptions follow every change of the rules, also one that came from a
        # leader.
        self._auth.listeners = (self._index_builder.notice, self._authorizer.rules_changed)
        self._subscriptions = Subscriptions(self._disk, self._writer, self._watchers)
        self._lock = threading.Lock()
        self._closed = False
        self.oplog = Oplog(self._disk)
        # Every write goes through it: to the writer here, or to the leader of a replica.
        self._writes: LocalWrites | LeaderWrites = LocalWrites(self._writer, self._auth)
        if mode in _REPLICA_MODES:
            self._follow(options)

    def _follow(self, options: Following) -> None:
        # Imported by replicas alone: most stores need neither sockets nor an HTTP client.
        from elkyn.replication.leader_writes import LeaderWrites

        try:
            self._leader = self._writes = LeaderWrites(self, self._auth, options)
        except BaseException:
            self.close()
            raise
        self.replica = self._leader.link

    def __repr__(self) -> str:
        return f"<ElkynStore {self.namespace} at {self.path or 'memory'}>"

    def get(self, path: str, *, token: str | None = None, export: bool = False) -> Any:
        """Return the value at `path`, None when there is none; dict keys are in Firebase's order.

        Args:
            path: the path to read; `/x/.priority` is the priority of `/x`.
            token: the reader's ID token.
            export: show priorities, as `.priority` and `.value`.
        """
        keys = parse_path(path)
        authorizer = self._auth.authorizer_for_token(token)
        with self.admin.snapshot() as view:
            authorizer.check_read(view, keys)
            return present(view.get(keys), export)

    def keys(self, path: str, *, token: str | None = None) -> list[str]:
        """Return the keys of the children of `path` in order, without reading their values."""
        keys = parse_path(path)
        with self._reading(keys, token) as view:
            return view.keys(keys) or []

    @contextmanager
    def _reading(
        self, keys: Path, token: str | None, query: Query | None = None
    ) -> Iterator[ReadTransaction]:
        authorizer = self._auth.authorizer_for_token(token)
        with self.admin.snapshot() as view:
            authorizer.check_read(view, keys, query)
            yield view

    def set(
        self, path: str, value: Any, *, token: str | None = None, ephemeral: bool = False
    ) -> Any:
        """Replace the value at `path`; None deletes. Returns the value, server values resolved.

        Raises:
            BadPath: the path breaks a limit.
            BadValue: the value holds something that a tree cannot store; the error names the path.
            Denied: the rules deny the write; nothing has changed.
            StorageFull: the disk is full; nothing has changed.
            Unavailable: a replica cannot reach its leader.
            ReplicaLag: the leader has committed the write, but it has not arrived in time.
        """
        return self._writes.put(path, value, token, ephemeral=ephemeral)

    def update(
        self,
        path: str,
        values: Mapping[str, Any],
        *,
        token: str | None = None,
        ephemeral: bool = False,
    ) -> dict[str, Any]:
        """Replace several children of `path` in one atomic write; the others stay unchanged.

        Args:
            path: the path to which the keys of `values` are relative.
            values: new values by child; keys may be paths (`"a/b"`), None deletes.
            token: the writer's ID token.
            ephemeral: make the write ephemeral, not durable.

        Raises:
            BadPath: one of the paths is an ancestor of another, or breaks a limit.
            Denied: the rules deny the write of one of the paths; nothing has changed.
        """
        return self._writes.patch(path, values, token, ephemeral=ephemeral)

    def push(
        self, path: str, value: Any, *, token: str | None = None, ephemeral: bool = False
    ) -> str:
        """Add `value` under a new key that sorts after all earlier ones; returns the key."""
        key = self._push_ids.new()
        self._writes.put(f"{path}/{key}", value, token, ephemeral=ephemeral)
        return key

    def delete(self, path: str, *, token: str | None = None, ephemeral: bool = False) -> None:
        """Delete the value at `path`, with all its children."""
        self.set(path, None, token=token, ephemeral=ephemeral)

    def transaction(
        self, path: str, function: Callable[[Any], Any], *, token: str | None = None
    ) -> Any:
        """Replace the value at `path` by `function(value)`, with no other write in between.

        Args:
            path: the path to read and write.
            function: gets the current value and returns the new one (None deletes). It must not
                write to the store, and may be called again: when the database file has to grow, or
                on a replica when the leader's value has changed. An exception from it aborts the
                write.
            token: the caller's ID token.

        Returns:
            The new value.

        Raises:
            Conflict: on a replica, the leader's value changed each time before it could be replaced.
        """
        return self._writes.transaction(path, function, token)

    def enable_auth(self, secret: str | bytes) -> None:
        """Authorize calls by the rules from now on, and accept tokens signed with `secret` (HS256).

        The store keeps the rules but not the secret: call this each time the store is opened.
        """
        self._auth.enable(secret)

    def create_token(self, uid: str, *, expires_seconds: float | None = 3600, **claims: Any) -> str:
        """Return a signed token for the user `uid`.

        Args:
            uid: the user's id, `auth.uid` in rules.
            expires_seconds: how long the token is valid; None: it never expires.
            claims: custom claims; rules see them as `auth.<name>` and `auth.token.<name>`.

        Raises:
            UsageError: `enable_auth` was not called, or a claim has a reserved name.
        """
        return self._auth.create_token(uid, claims, expires_seconds)

    def set_rules(self, source: str | bytes | Mapping[str, Any]) -> None:
        """Replace the rules, which the store keeps.

        Args:
            source: rules in Firebase's language: JSON with comments, or the same as a mapping.

        Raises:
            BadRules: the new rules are malformed or fail type checking; the old ones stay in force.
        """
        self._writes.set_rules(source)

    def setup_default_rules(self) -> None:
        """Set rules that let each user read and write `/users/<their uid>`, and nothing else."""
        from elkyn.rules import DEFAULT_RULES

        self.set_rules(DEFAULT_RULES)

    @property
    def rules(self) -> RuleSet | None:
        """The compiled rules; None when none were set: then only admins may read and write."""
        return self._auth.rules

    @property
    def position(self) -> int:
        """The number of durable writes so far: the index of the last entry of `oplog`."""
        return self._disk.position

    def query(
        self,
        path: str,
        *,
        order_by: str = "$key",
        token: str | None = None,
        **window: Unpack[Window],
    ) -> dict[str, Any]:
        """Return the children of `path`, sorted, and limited to a range or to the first or last ones.

        Args:
            path: the parent of the children.
            order_by: `$key`, `$value`, `$priority`, or a path inside each child.
            token: the reader's ID token.
            window: `start_at=`, `start_after=`, `end_at=`, `end_before=`, `equal_to=` (a value, or
                a tuple of a value and a key), `limit_to_first=`, `limit_to_last=`.
        """
        keys, query = parse_path(path), Query.build(order_by, **window)
        with self._reading(keys, token, query) as view:
            found = run_query(query, view, keys)
            return {key: present(child) for key, child in found.items()}

    @overload
    def watch(
        self,
        path: str,
        query: Query | None = None,
        *,
        events: None = None,
        token: str | None = None,
        **bounds: Unpack[Bounds],
    ) -> Subscription: ...

    @overload
    def watch(
        self,
        path: str,
        query: Query | None = None,
        *,
        events: Iterable[str],
        token: str | None = None,
        **bounds: Unpack[Bounds],
    ) -> ViewSubscription: ...

    def watch(
        self,
        path: str,
        query: Query | None = None,
        *,
        events: Iterable[str] | None = None,
        token: str | None = None,
        **bounds: Unpack[Bounds],
    ) -> Subscription | ViewSubscription:
        """Subscribe to `path`: its value now, then every change in commit order.

        Args:
            path: the path to watch; changes below it and above it count.
            query: watch only the children that it selects.
            events: some of `value`, `child_added`, `child_changed`, `child_removed`, `child_moved`;
                None for `put` and `patch`, the first of which is `put "/"`.
            token: the reader's ID token; the subscription ends with `Denied` as soon as the rules
                deny the read or the token expires.
            bounds: `queue_events=` and `queue_bytes=`, the limits of the queue; a listener that
                exceeds one is resynchronised.
        """
        self.admin.divergence.check()
        keys = parse_path(path)
        permission = self._authorizer.authorize(keys, token, query)
        feed: Subscription | ViewSubscription
        if events is None:
            feed = self._subscriptions.changes(keys, query, bounds)
        else:
            feed = self._subscriptions.events(keys, query, events, bounds)
        if permission is not None:
            permission.attach(feed)
        return feed

    def on(
        self,
        path: str,
        event: str,
        callback: Callable[..., object],
        query: Query | None = None,
        *,
        token: str | None = None,
    ) -> Callback:
        """Call `callback` with the value at `path` now and after every change.

        Args:
            path: the path to watch.
            event: `value`, `child_added`, `child_changed`, `child_removed` or `child_moved`.
            callback: gets the value, and for child events also the child's key and the key before
                it; runs on its own thread, one call at a time, in commit order.
            query: watch only the children that it selects.
            token: the reader's ID token; the calls end when the rules deny the read later.
        """
        self.admin.divergence.check()
        keys = parse_path(path)
        permission = self._authorizer.authorize(keys, token, query)
        attach = None if permission is None else permission.attach
        return self._subscriptions.call(keys, query, event, callback, attach)

    def close(self) -> None:
        """End subscriptions and callbacks, finish running calls, close the files; idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self._leader is not None:
            self._leader.close()
        self._subscriptions.close()
        self._index_builder.close()
        self._writer.close()
        self._disk.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
