"""Rules for datasets and their history: names, and which snapshots expire."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import pairwise

from lake.catalog.tables import SnapshotRow
from sennit_core.errors import NotFound, UsageError

__all__ = ["check_dataset_name", "check_tag", "expired", "kept_versions", "moment", "snapshot_at"]

_NAME_MAX = 128
_TAGS_MAX = 1000


def expired(rows: Mapping[str, SnapshotRow], keep: int, before: float) -> set[str]:
    """Return the snapshots that were replaced before a time, except the newest ones."""
    newest = sorted(rows, key=lambda snapshot: rows[snapshot].version, reverse=True)
    return {
        older
        for newer, older in pairwise(newest)
        if rows[newer].created_at < before and older not in newest[:keep]
    }


def check_tag(name: str, tags: Mapping[str, str]) -> None:
    """Refuse what is no name for a tag, or one too many.

    Raises:
        UsageError: It is.
    """
    if not name or len(name) > _NAME_MAX or not name.isprintable() or name != name.strip():
        raise UsageError(f"{name[:80]!r} is not a name for a tag")
    if name not in tags and len(tags) >= _TAGS_MAX:
        raise UsageError(f"a dataset has at most {_TAGS_MAX} tags")


def snapshot_at(
    dataset: str, rows: Mapping[str, SnapshotRow], version: int | None, time: float | None
) -> str:
    """Return the snapshot with a version, or the newest at a time.

    Raises:
        NotFound: There is none.
    """
    if version is not None:
        what = f"version {version}"
        found = [(0.0, name) for name, row in rows.items() if row.version == version]
    else:
        assert time is not None, "a version or a time"
        what = f"state at {moment(time)}"
        found = [(row.version, name) for name, row in rows.items() if row.created_at <= time]
    if not found:
        hint = kept_versions(rows.values())
        raise NotFound(f"{what} of dataset", dataset, suggestion=None, hint=hint)
    return max(found)[1]


def kept_versions(rows: Iterable[SnapshotRow]) -> str:
    """Return a hint that names the versions there are."""
    kept = sorted((row.version, row.created_at) for row in rows)
    first, last = kept[0], kept[-1]
    return f"there are versions {first[0]} to {last[0]}, the first of {moment(first[1])}"


def moment(seconds: float) -> str:
    """Return a time as text."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds")
    except (ValueError, OverflowError, OSError):  # beyond the years 1 to 9999
        return f"{seconds:.0f} s after 1970"


def check_dataset_name(name: str) -> str:
    """Return the name; raise UsageError if it is not a valid dataset name."""
    if not name or not name.isprintable() or name != name.strip():
        raise UsageError(f"{name[:80]!r} is not a dataset name")
    if len(name) > _NAME_MAX:
        raise UsageError(f"the dataset name has {len(name)} characters; {_NAME_MAX} are allowed")
    return name
