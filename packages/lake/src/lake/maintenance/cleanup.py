"""The cleanup: which datasets and uploads are no longer used, and their way through the trash.

    dataset --(unused for long, or the least recently used one beyond the limit)--> trash
    trash   --(storage.trash_hours)--> objects unlinked by `lake.maintenance.retention`
    upload  --(no part for storage.upload_hours)--> deleted

Off unless a setting turns it on. What is in use, pinned, tagged, shared, kept, or read by a view stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lake._failpoints import reached
from lake.catalog.removal import TrashRow
from lake.ingestor import dataset_name
from lake.maintenance.dataset_access import WRITTEN_SECONDS
from sennit_core.errors import Corrupt, NotFound
from sennit_core.logs import get_logger
from sennit_core.records import DatasetInfo, Record
from sennit_core.units import format_bytes

if TYPE_CHECKING:
    from lake import Lake
    from lake.storage_options import StorageOptions

__all__ = ["Cleanup", "Unused"]

_audit = get_logger("sennit.audit")
_DAY_SECONDS = 86_400.0
_IDLE_SECONDS_MIN = WRITTEN_SECONDS
"""A limit of bytes removes no dataset that was used more recently, such as one that was just made."""


@dataclass(frozen=True, slots=True)
class Unused(Record):
    """A dataset that the policy would remove.

    Args:
        id: Its id.
        name: Its name.
        owner: Its owner.
        bytes: Bytes of the distinct shards of its versions.
        used_at: Its last use, in Unix seconds.
        reason: Why it would be removed.
        stays: Why it is not; "" if it is.
    """

    id: str
    name: str
    owner: str
    bytes: int
    used_at: float
    reason: str
    stays: str = ""


class Cleanup:
    """The cleanup of one lake.

    Args:
        lake: The lake.
        options: The policy.
    """

    def __init__(self, lake: Lake, options: StorageOptions) -> None:
        self._lake = lake
        self._catalog = lake.catalog
        self._access = lake.storage.access
        self._trash = lake.catalog.removal
        self._clock = lake.clock
        self._unused_seconds = options.unused_seconds
        self._bytes_max = options.cleanup_bytes
        self._trash_seconds = options.trash_seconds

    def plan(self) -> list[Unused]:
        """Return what a run would remove now, least recently used first; changes nothing."""
        if not self._unused_seconds and not self._bytes_max:
            return []
        found = sorted(self._own_datasets(), key=lambda each: each.used_at)
        protection = _Protection(self._lake)
        left = sum(each.bytes for each in found)
        planned = []
        for each in found:
            reason = self._reason(each, left)
            if not reason:
                continue
            stays = protection.of(self._catalog.get(each.id))
            planned.append(replace(each, reason=reason, stays=stays))
            left -= 0 if stays else each.bytes
        return planned

    def run(self, part: str, check: Callable[[], None]) -> int:
        """Do one part of the cleanup, of `PARTS`; return how much it removed."""
        return {"datasets": self._datasets, "trash": self._empty_trash, "uploads": self._uploads}[
            part
        ](check)

    PARTS = ("datasets", "trash", "uploads")

    def trash(self) -> dict[str, TrashRow]:
        """Return the datasets that can be restored, by id."""
        return self._trash.trash.all()

    def restore(self, dataset: str, name: str | None = None) -> DatasetInfo:
        """Put a dataset of the trash back, with all its versions.

        Args:
            dataset: Its id, or its name if the trash has one of this name.
            name: Another name for it, if its own is in use.

        Raises:
            NotFound: It is not in the trash.
            Conflict: The name is in use.
        """
        found = [
            each
            for each, row in self.trash().items()
            if dataset == each or dataset.casefold() == row.name.casefold()
        ]
        if len(found) != 1:
            hint = "name it by its id: " + ", ".join(found) if found else None
            raise NotFound("dataset in the trash", dataset[:80], hint=hint)
        info = self._lake.retention.restore(found[0], name)
        reached("trash-restored")
        self._access.note([info.id])
        _audit.info("dataset %r (%s) was restored from the trash", info.name, info.id)
        return info

    def forget(self, info: DatasetInfo) -> None:
        """Remove what belonged to a dataset that is deleted."""
        lake = self._lake
        # After the dataset: a crash in between leaves a policy of nothing, as no id is used twice.
        lake.policies.remove(info.id)
        lake.reserve.spend(lambda: lake.storage.retention_rules.forget(info.id))
        lake.reserve.spend(lambda: self._access.forget(info.id))
        lake.reserve.spend(lambda: lake.storage.forget_keys(info.id))
        lake.storage.rejects.remove(info.id)
        lake.linker.forget(info)

    def _datasets(self, check: Callable[[], None]) -> int:
        moved = 0
        for each in self.plan():
            check()
            if not each.stays and self._move(each):
                moved += 1
        return moved

    def _move(self, unused: Unused) -> bool:
        """Move a dataset to the trash, unless it has been used since the plan was made."""
        info = self._catalog.find_known(unused.id)
        if info is None or self._used_at(info) != unused.used_at:
            return False
        now = self._clock.now()
        row = TrashRow(
            info.name, info.owner, unused.bytes, unused.reason, now, now + self._trash_seconds, info
        )
        stays = self._lake.retention.move_to_trash(
            info.id, row.until, lambda: self._catalog.removal.to_trash(info, row)
        )
        if not stays:
            self._lake.result_cache.drop_dataset(info.id)
            # Names and ids, as the audit log of deletions.
            _audit.info(
                "the cleanup moved dataset %r (%s) of %s to the trash: %s",
                info.name, info.id, info.owner or "nobody", unused.reason,
            )  # fmt: skip
        return not stays

    def _empty_trash(self, check: Callable[[], None]) -> int:
        self._lake.retention.sweep_retired()
        now, gone = self._clock.now(), 0
        for dataset, row in self.trash().items():
            check()
            if row.until > now:
                continue
            # What a dataset has beside its objects goes before the row, so that a crash repeats it.
            self.forget(row.info)
            reached("trash-forgotten")
            self._trash.forget(dataset)
            _audit.info("dataset %r (%s) left the trash", row.name, dataset)
            gone += 1
        return gone

    def _uploads(self, check: Callable[[], None]) -> int:
        check()
        expired = self._lake.parts.sweep()
        for upload in expired:
            _audit.info("upload %s expired", upload)
        return len(expired)

    def _own_datasets(self) -> list[Unused]:
        """Return the datasets that this node alone decides about."""
        found = []
        for dataset in self._catalog.ids():
            with suppress(Corrupt, NotFound):
                info = self._catalog.get(dataset)
                if info.node is None and info.head is not None:
                    size = self._lake.quotas.stored.of(info).stored_bytes
                    used_at = self._used_at(info)
                    found.append(Unused(info.id, info.name, info.owner, size, used_at, ""))
        return found

    def _used_at(self, info: DatasetInfo) -> float:
        """Return when a dataset was last read or changed."""
        newest = self._catalog.snapshots(info.id, limit=1)
        changed_at = newest[0].created_at if newest else info.created_at
        return max(self._access.used_at(info.id), changed_at)

    def _reason(self, dataset: Unused, left_bytes: int) -> str:
        """Return why the policy removes a dataset while the datasets have so many bytes."""
        unused_seconds = self._clock.now() - dataset.used_at
        # A use within the hour before a crash may not be recorded.
        if self._unused_seconds and unused_seconds > self._unused_seconds + WRITTEN_SECONDS:
            return f"it was not used for {unused_seconds / _DAY_SECONDS:.0f} days"
        if self._bytes_max and left_bytes > self._bytes_max and unused_seconds > _IDLE_SECONDS_MIN:
            return f"the datasets have {format_bytes(left_bytes)}, and it was used least recently"
        return ""


class _Protection:
    """Why datasets stay although the policy would remove them.

    Args:
        lake: The lake.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._read_by: dict[str, str] = {}
        for view in lake.catalog.views.all():
            self._read_by |= dict.fromkeys((name.casefold() for name in view.reads), view.name)
        self._awaited = {
            dataset_name(upload.name, upload.options).casefold() for upload in lake.parts.list()
        }

    def of(self, info: DatasetInfo) -> str:
        """Return why a dataset stays; "" if nothing protects it."""
        reasons: Sequence[tuple[str, Callable[[], object]]] = (
            ("it is kept", lambda: self._lake.storage.access.is_kept(info.id)),
            ("it is damaged", lambda: info.damaged is not None),
            ("it is shared", lambda: info.visibility != "private"),
            ("a version has a tag", lambda: self._lake.catalog.tags(info.id)),
            (
                f"the view {self._read_by.get(info.name.casefold())!r} reads it",
                lambda: info.name.casefold() in self._read_by,
            ),
            ("an upload is for it", lambda: info.name.casefold() in self._awaited),
        )
        for reason, applies in reasons:
            if applies():
                return reason
        return self._lake.retention.use_of(self._lake.catalog.all_objects(info.id))
