"""Snapshot manifests: the state of a dataset as immutable objects.

A manifest is canonical JSON: `{"v": 2, "snapshot": SnapshotInfo, "lists": [ShardList], "createdAt": …,
"ingest": …, "name": …, "provenance": …}`. Its member `snapshot.signature` is the node's signature of
the same document without that member, so it covers all shards: those of lists by the ids of the
lists. The first shards of a snapshot are in its lists, which are objects of their
own, `{"v": 1, "shards": [ShardInfo]}`; the rest are in the manifest itself. A list of many shards has a
summary, an object of the same form. So a commit to a large
dataset writes what it changes, and most snapshots share most of their lists (`lake.catalog.manifests`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeAlias

from lake.catalog.node_key import NodeKey, can_sign, check_signature
from lake.catalog.provenance import Provenance
from lake.objects.store import ObjectStore
from sennit_core.errors import Corrupt, NotFound
from sennit_core.hashing import canonical_json
from sennit_core.records import Record, ShardInfo, SnapshotInfo
from sennit_core.units import MIB

__all__ = [
    "METADATA_BYTES_MAX",
    "AnyManifest",
    "Manifest",
    "ShardList",
    "StoredManifest",
    "ids_in_list",
    "read_list",
    "read_stored",
    "write_list",
    "write_stored",
]

METADATA_BYTES_MAX = 64 * MIB
"""Of a manifest or a list of another node, which is read as a whole."""
_VERSION = 2
_LIST_VERSION = 1
_DOMAIN = b"sennit-manifest-2\n"
_OBJECT = re.compile(rb'"object":"([0-9a-f]{64})"')
_SOURCE = re.compile(rb'"sourceObject":"([0-9a-f]{64})"')
_LIST_STARTS = b'{"shards":['


@dataclass(frozen=True, slots=True)
class ShardList(Record):
    """Consecutive shards of a snapshot, stored as an object that later snapshots share.

    Args:
        object: Its object id.
        shards: Their number.
        rows: Rows of all.
        bytes: Stored bytes of all.
        summary: Object id of its summary (`lake.catalog.list_summaries`), which has the form of a list; None
            if it has none, as in manifests of earlier versions of Sennit.
    """

    object: str
    shards: int
    rows: int
    bytes: int
    summary: str | None = None

    @property
    def objects(self) -> tuple[str, ...]:
        """The ids of its objects."""
        return (self.object,) if self.summary is None else (self.object, self.summary)

    @classmethod
    def of(cls, name: str, shards: Iterable[ShardInfo]) -> ShardList:
        """Return the list with an object id and these shards."""
        shards = tuple(shards)
        rows, stored = sum(s.rows for s in shards), sum(s.bytes for s in shards)
        return cls(name, len(shards), rows, stored)


@dataclass(frozen=True)
class Manifest:
    """A snapshot with all its shards.

    Args:
        snapshot: The snapshot.
        created_at: Unix seconds.
        ingest: How its newest data was read (`source`, `report`); None for computed data.
        name: The dataset's name at the commit, to identify it if its catalog row is damaged.
        lists: Those that the first of its shards are in; empty before it is stored.
        provenance: What computed it; None in manifests of earlier versions of Sennit.
    """

    snapshot: SnapshotInfo
    created_at: float
    ingest: Mapping[str, Any] | None = None
    name: str | None = None
    lists: tuple[ShardList, ...] = ()
    provenance: Provenance | None = None

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.rows for shard in self.snapshot.shards)

    @property
    def bytes(self) -> int:
        """Stored bytes of all shards."""
        return sum(shard.bytes for shard in self.snapshot.shards)

    @property
    def shards(self) -> int:
        """The number of shards."""
        return len(self.snapshot.shards)

    def listed(self) -> list[tuple[ShardList, tuple[ShardInfo, ...]]]:
        """Return each list with its shards."""
        shards = iter(self.snapshot.shards)
        return [(each, tuple(islice(shards, each.shards))) for each in self.lists]


@dataclass(frozen=True)
class StoredManifest:
    """A manifest as it is stored, without the shards of its lists.

    Args:
        snapshot: The snapshot with the shards that are in no list.
        lists: The lists, whose shards come first.
        created_at: As in `Manifest`.
        ingest: As in `Manifest`.
        name: As in `Manifest`.
        provenance: As in `Manifest`.
    """

    snapshot: SnapshotInfo
    lists: tuple[ShardList, ...]
    created_at: float
    ingest: Mapping[str, Any] | None
    name: str | None
    provenance: Provenance | None = None

    @property
    def list_objects(self) -> tuple[str, ...]:
        """The objects of its lists, and of their summaries."""
        summaries = (each.summary for each in self.lists)
        return (*(each.object for each in self.lists), *filter(None, summaries))

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(each.rows for each in self.lists) + sum(s.rows for s in self.snapshot.shards)

    @property
    def bytes(self) -> int:
        """Stored bytes of all shards."""
        return sum(each.bytes for each in self.lists) + sum(s.bytes for s in self.snapshot.shards)

    @property
    def shards(self) -> int:
        """The number of shards."""
        return sum(each.shards for each in self.lists) + len(self.snapshot.shards)

    def extended(
        self,
        snapshot: SnapshotInfo,
        created_at: float,
        ingest: Mapping[str, Any] | None = None,
        provenance: Provenance | None = None,
    ) -> StoredManifest:
        """Return the manifest of a snapshot with these shards, and others after them.

        Args:
            snapshot: The new snapshot; its shards are the added ones.
            created_at: As in `Manifest`.
            ingest: As in `Manifest`.
            provenance: As in `Manifest`.
        """
        whole = replace(snapshot, shards=(*self.snapshot.shards, *snapshot.shards))
        return StoredManifest(whole, self.lists, created_at, ingest, None, provenance)

    def with_shards(self, listed: Iterable[ShardInfo]) -> Manifest:
        """Return the whole manifest.

        Args:
            listed: The shards of its lists.
        """
        snapshot = self.snapshot
        if self.lists:
            snapshot = replace(snapshot, shards=(*listed, *snapshot.shards))
        return Manifest(
            snapshot, self.created_at, self.ingest, self.name, self.lists, self.provenance
        )


AnyManifest: TypeAlias = Manifest | StoredManifest


def write_stored(
    objects: ObjectStore, manifest: StoredManifest, key: NodeKey | None = None
) -> tuple[str, StoredManifest]:
    """Store a manifest; return its object id, and the manifest with its signature.

    Args:
        objects: The store.
        manifest: The manifest.
        key: Signs it; None leaves it unsigned.
    """
    signed = replace(manifest, snapshot=replace(manifest.snapshot, signature=None))
    document = _document_of(signed)
    if key is not None and can_sign():
        signature = key.sign(_DOMAIN, canonical_json(document))
        document["snapshot"]["signature"] = signature
        signed = replace(signed, snapshot=replace(signed.snapshot, signature=signature))
    return objects.put_bytes(canonical_json(document)).object, signed


def _document_of(manifest: StoredManifest) -> dict[str, Any]:
    return {
        "v": _VERSION,
        "snapshot": manifest.snapshot.to_json(),
        "lists": [each.to_json() for each in manifest.lists],
        "createdAt": manifest.created_at,
        "ingest": manifest.ingest,
        "name": manifest.name,
        "provenance": None if manifest.provenance is None else manifest.provenance.to_json(),
    }


def write_list(objects: ObjectStore, shards: Iterable[ShardInfo]) -> ShardList:
    """Store shards as a list."""
    shards = tuple(shards)
    document = {"v": _LIST_VERSION, "shards": [shard.to_json() for shard in shards]}
    return ShardList.of(objects.put_bytes(canonical_json(document)).object, shards)


def read_stored(objects: ObjectStore, name: str) -> StoredManifest:
    """Read a manifest, and verify its bytes and its signature if it has one.

    Raises:
        Corrupt: It is missing, damaged, not a manifest of this version, or its signature is wrong.
    """
    data, document = _document(objects, name, "manifest", _VERSION)
    try:
        _check_signed(name, data, document["snapshot"].get("signature"))
        provenance = document.get("provenance")
        return StoredManifest(
            snapshot=SnapshotInfo.from_json(document["snapshot"]),
            lists=tuple(map(ShardList.from_json, document["lists"])),
            created_at=document["createdAt"],
            ingest=document["ingest"],
            name=document["name"],
            provenance=None if provenance is None else Provenance.from_json(provenance),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        # The bytes are intact, but they are not a manifest.
        raise Corrupt(f"manifest {name}", expected="a manifest", found=str(error)) from error


def read_list(objects: ObjectStore, name: str) -> tuple[ShardInfo, ...]:
    """Read a list and verify its bytes.

    Raises:
        Corrupt: It is missing, damaged, or not a list of this version.
    """
    _, document = _document(objects, name, "list of shards", _LIST_VERSION)
    try:
        return tuple(map(ShardInfo.from_json, document["shards"]))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        what = f"list of shards {name}"
        raise Corrupt(what, expected="a list of shards", found=str(error)) from error


def ids_in_list(objects: ObjectStore, stored: ShardList) -> frozenset[str]:
    """Return the ids of the shards and sources of a list, without making records of them.

    Raises:
        Corrupt: It is missing, damaged, or not the one that the manifest describes.
    """
    what = f"list of shards {stored.object}"
    ids = _ids_in_text(_data(objects, stored.object, what), stored.shards)
    if ids is not None:
        return ids
    _, document = _document(objects, stored.object, "list of shards", _LIST_VERSION)
    try:
        shards = document["shards"]
        rows, size = sum(each["rows"] for each in shards), sum(each["bytes"] for each in shards)
        found = ShardList(stored.object, len(shards), rows, size)
        names = [each["object"] for each in shards]
        names += filter(None, (each.get("sourceObject") for each in shards))
        if found == replace(stored, summary=None) and all(isinstance(name, str) for name in names):
            return frozenset(names)
    except (LookupError, TypeError, AttributeError) as error:
        raise Corrupt(what, expected="a list of shards", found=str(error)) from error
    raise Corrupt(what, expected=str(stored), found=str(found))


def _ids_in_text(data: bytes, shards: int) -> frozenset[str] | None:
    """Return the ids in the canonical JSON of a list; None if it is doubtful.

    Parsing is most of the time that counting references takes. In a string, quotes follow a
    backslash, so only a member matches; a column named `object` has an object of statistics.
    """
    objects, sources = _OBJECT.findall(data), _SOURCE.findall(data)
    is_whole = (len(objects), len(sources)) == (shards, data.count(b'"sourceObject":'))
    if not is_whole or not data.startswith(_LIST_STARTS):
        return None
    return frozenset(map(bytes.decode, (*objects, *sources)))


def _check_signed(name: str, data: bytes, signature: str | None) -> None:
    """Compare a manifest with its signature; one without a signature is of an earlier version."""
    if signature is None or not can_sign():
        return
    # The bytes that were signed: canonical JSON has each member in one form, and `stats` after this
    # one. The signature covers all else, so it cannot be in the document twice.
    place = canonical_json({"signature": signature})[1:-1] + b","
    if data.count(place) != 1 or not check_signature(signature, _DOMAIN, data.replace(place, b"")):
        raise Corrupt(
            f"manifest {name}",
            expected="a signature of its content",
            found="one that is not",
            hint="it was not written by the node that it names: restore it from a backup",
        )


def _data(objects: ObjectStore, name: str, what: str) -> bytes:
    """Return the bytes of an object; `objects.read` verifies each chunk, so they are undamaged."""
    try:
        return b"".join(objects.read(name))
    except NotFound as error:
        raise Corrupt(what, expected="an object", found="none") from error


def _document(
    objects: ObjectStore, name: str, kind: str, version: int
) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes of a JSON object, and what they mean."""
    what = f"{kind} {name}"
    data = _data(objects, name, what)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:  # another node may have written it
        raise Corrupt(what, expected="JSON", found=str(error)) from error
    if not isinstance(document, dict) or document.get("v") != version:
        raise Corrupt(what, expected=f"v {version}", found=str(document)[:40])
    return data, document
