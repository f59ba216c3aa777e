"""What manifests and lists of other nodes' datasets cost this node, and how much of that a publisher may cause.

A publisher decides how many lists its manifests name and how large they are. Each is a file here, and what
is known of its shards stays in memory. So the bytes and files of one publisher are counted before an
object is fetched: the size of one is known from its list of chunks, which its id proves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lake.catalog.snapshots import METADATA_BYTES_MAX
from lake.objects.store import ObjectStore
from sennit_core.errors import Denied, StorageFull
from sennit_core.units import GIB, format_bytes

__all__ = ["MetadataBudget", "MetadataLimits", "MetadataUse"]


@dataclass(frozen=True, slots=True)
class MetadataLimits:
    """The most that one publisher may cause.

    Args:
        object_bytes: Bytes of one manifest or list.
        bytes: Of all of them together.
        objects: Their number.
        shards: Shards of the newest versions of all datasets; each needs some 200 bytes of memory.
    """

    object_bytes: int = METADATA_BYTES_MAX
    bytes: int = 4 * GIB
    objects: int = 100_000
    shards: int = 4_000_000


@dataclass(frozen=True, slots=True)
class _Used:
    writer: str
    bytes: int = 0
    objects: int = 0
    shards: int = 0


class MetadataBudget:
    """What a publisher may still cause; of one version of a dataset, in one event loop.

    Args:
        limits: The limits of the publisher.
        used: What its datasets use.
        check_room: Raises `StorageFull` if the disk has no room for so many bytes and another file.
    """

    def __init__(
        self, limits: MetadataLimits, used: Iterable[_Used], check_room: Callable[[int], object]
    ) -> None:
        self._limits = limits
        used = tuple(used)
        self._bytes = limits.bytes - sum(each.bytes for each in used)
        self._objects = limits.objects - sum(each.objects for each in used)
        self._shards = limits.shards - sum(each.shards for each in used)
        self._check_room = check_room

    def check(self, lists: int, shards: int) -> None:
        """Refuse a manifest that names too much, before any of its lists is fetched.

        Args:
            lists: How many are to be fetched.
            shards: How many more shards it has than the version that it follows.

        Raises:
            Denied: It does.
        """
        if lists > self._objects:
            raise Denied(
                f"publishing more than {self._limits.objects:,} manifests and lists of shards"
            )
        if shards > self._shards:
            raise Denied(f"publishing more than {self._limits.shards:,} shards")

    def admit(self, size: int) -> str:
        """Count an object that is about to be fetched; return why it is not to be, "" if it is."""
        if size > self._limits.object_bytes:
            return f"it has {size} bytes, of at most {self._limits.object_bytes}"
        if size > self._bytes or not self._objects:
            most = f"{format_bytes(self._limits.bytes)} and {self._limits.objects:,} objects"
            return f"manifests and lists of its publisher have more than {most}"
        try:
            self._check_room(size)
        except StorageFull as problem:
            return str(problem)
        self._bytes -= size
        self._objects -= 1
        return ""


class MetadataUse:
    """What the metadata of each adopted dataset uses.

    Args:
        objects: The store.
        check_room: As of `MetadataBudget`.
        limits: Of each publisher.
    """

    def __init__(
        self,
        objects: ObjectStore,
        check_room: Callable[[int], object],
        limits: MetadataLimits | None = None,
    ) -> None:
        self._objects = objects
        self._check_room = check_room
        self.limits = limits or MetadataLimits()
        self._used: dict[str, _Used] = {}

    def note(self, dataset: str, writer: str, names: Iterable[str], shards: int) -> None:
        """Measure what a dataset uses; reads the sizes of files.

        Args:
            dataset: Its id.
            writer: Its publisher.
            names: Its manifests and lists.
            shards: The number of its shards.
        """
        sizes = [
            self._objects.place(name).stat().st_size for name in names if name in self._objects
        ]
        self._used[dataset] = _Used(writer, sum(sizes), len(sizes), shards)

    def forget(self, dataset: str) -> None:
        """Note that a dataset is gone."""
        self._used.pop(dataset, None)

    def shards_of(self, dataset: str) -> int:
        """Return the shards of a dataset as it was measured; 0 if it was not."""
        found = self._used.get(dataset)
        return 0 if found is None else found.shards

    def budget(self, writer: str) -> MetadataBudget:
        """Return what a publisher may still cause."""
        used = [each for each in list(self._used.values()) if each.writer == writer]
        return MetadataBudget(self.limits, used, self._check_room)
