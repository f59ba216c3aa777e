"""Elkyn: a realtime tree database, embedded or served over Firebase's REST protocol.

Layering: `tree` (values, queries, events; no files) < `auth.principal` < `rules` < `storage` (LMDB) <
`auth` < `admin`, `replication.divergence` < `replication` (logs and protocol, a replica's writes) <
`store` (the embedded database) < `replication.snapshots`, `replication.followers` < `server`,
`replication.follower_sessions`, `replication.leader_proxy`, `replication.routes` (HTTP and WebSockets,
replication over them) < `cli`. `sennit_core` is the only other Sennit package that it imports; LMDB
and MessagePack are imported with the first store.
"""

from typing import TYPE_CHECKING, Any

from sennit_core.ownership import check_distribution

check_distribution(__file__, "sennit-elkyn")

if TYPE_CHECKING:
    from elkyn.errors import (
        BadPath,
        BadRules,
        BadValue,
        PositionGone,
        PreconditionFailed,
        StoreInUse,
    )
    from elkyn.namespaces import Stores, open_namespaces
    from elkyn.recovery import Archiver, archive_log, backup_folder, restore
    from elkyn.store import ElkynStore
    from elkyn.tree.events import Event
    from elkyn.tree.live_query import ViewEvent
    from elkyn.tree.query import Query
    from elkyn.tree.watch import Callback, Subscription, ViewSubscription

_HOMES = {
    "Archiver": "recovery",
    "BadPath": "errors",
    "BadRules": "errors",
    "BadValue": "errors",
    "Callback": "tree.watch",
    "ElkynStore": "store",
    "Event": "tree.events",
    "PositionGone": "errors",
    "PreconditionFailed": "errors",
    "Query": "tree.query",
    "StoreInUse": "errors",
    "Stores": "namespaces",
    "Subscription": "tree.watch",
    "ViewEvent": "tree.live_query",
    "ViewSubscription": "tree.watch",
    "archive_log": "recovery",
    "backup_folder": "recovery",
    "open_namespaces": "namespaces",
    "restore": "recovery",
}

__all__ = [
    "Archiver",
    "BadPath",
    "BadRules",
    "BadValue",
    "Callback",
    "ElkynStore",
    "Event",
    "PositionGone",
    "PreconditionFailed",
    "Query",
    "StoreInUse",
    "Stores",
    "Subscription",
    "ViewEvent",
    "ViewSubscription",
    "archive_log",
    "backup_folder",
    "open_namespaces",
    "restore",
]


def __getattr__(name: str) -> Any:
    """Import the module of a public name on first access."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"elkyn.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
