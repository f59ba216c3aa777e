"""Examine the folder of a lake: each finding says what was found, and what to do.

The folder is examined first, which needs no open lake, and then the lake itself. No stored data is
read: that is what `verify` is for. Opening the lake finishes what a crash has interrupted, as always.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lake.objects.disk_space import RESERVE_BYTES, RESERVE_FILES
from sennit_core.errors import SennitError
from sennit_core.private_files import FOLDER_MODE
from sennit_core.records import Record
from sennit_core.units import format_bytes

if TYPE_CHECKING:
    from lake.lake import Lake

__all__ = ["Finding", "examine"]

_PARTS = ("lake", "lake/objects", "elkyn/sys")
_SMALL_SHARDS = 100  # of one dataset; fewer cost its queries little
_SCRUB_DAYS = 90.0
_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Finding(Record):
    """The result of one check.

    Args:
        check: What was examined, in a word or two.
        level: `ok`, `warning`, or `error`: the lake or a dataset cannot be used as it is.
        found: What was found.
        advice: What to do; empty if nothing is to be done.
    """

    check: str
    level: str
    found: str
    advice: str = ""


def examine(folder: Path, open_lake: Callable[[], Lake]) -> Iterator[Finding]:
    """Examine a lake; yield the result of each check.

    Args:
        folder: Its folder.
        open_lake: Opens it.
    """
    if not (folder / "lake").is_dir():
        advice = "name the folder of a lake, or create one: `lake init --data DIR`"
        yield Finding("folder", "error", f"{folder} is no lake", advice)
        return
    yield from _examine_folder(folder)
    was_clean = (folder / "lake" / "ended-cleanly").exists()
    try:
        lake = open_lake()
    except SennitError as error:
        yield Finding("open", "error", str(error), error.hint or "")
        return
    except OSError as error:
        yield Finding("open", "error", str(error), "check the owner and the modes of the folder")
        return
    with lake:
        yield _last_end(was_clean)
        for check in _CHECKS:
            yield from check(lake)


def _examine_folder(folder: Path) -> Iterator[Finding]:
    missing = [part for part in _PARTS if not (folder / part).is_dir()]
    if missing:
        advice = "restore the folder from a backup; what is missing is created empty"
        yield Finding("layout", "error", f"{', '.join(missing)} are missing", advice)
    else:
        yield Finding("layout", "ok", "all parts are there")
    yield _permissions(folder)
    yield _disk(folder)


def _permissions(folder: Path) -> Finding:
    exposed = []
    for part in ("", *_PARTS):
        path = folder / part
        if not path.is_dir():
            continue
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            advice = f"run as its owner, user {path.stat().st_uid}"
            return Finding("permissions", "error", f"{path} cannot be written", advice)
        if stat.S_IMODE(path.stat().st_mode) & ~FOLDER_MODE:
            exposed.append(str(path))
    if exposed:
        found = f"other accounts can access {', '.join(exposed)}"
        return Finding("permissions", "warning", found, f"chmod -R go= {folder}")
    return Finding("permissions", "ok", "only the owner has access")


def _disk(folder: Path) -> Finding:
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    found = f"{format_bytes(free)} free"
    if free < RESERVE_BYTES or (disk.f_files and disk.f_favail < RESERVE_FILES):
        advice = "free some space: uploads and changes are refused, deletions work"
        return Finding("disk", "error", f"{found}, {disk.f_favail:,} inodes", advice)
    if free < 10 * RESERVE_BYTES:
        return Finding("disk", "warning", found, "free some space before it is used up")
    return Finding("disk", "ok", found)


def _last_end(was_clean: bool) -> Finding:
    if was_clean:
        return Finding("last end", "ok", "clean")
    found = "the last process was killed, or is the first; what it left was removed"
    return Finding("last end", "warning", found)


def _catalog(lake: Lake) -> Iterator[Finding]:
    if lake.catalog.problem is not None:
        problem = lake.catalog.problem
        yield Finding("catalog", "error", str(problem), problem.hint or "restore a backup")
        return
    yield Finding("catalog", "ok", f"{len(lake.catalog.list()):,} datasets")


def _datasets(lake: Lake) -> Iterator[Finding]:
    for stats in lake.storage.usage():
        if stats.damaged is not None:
            advice = "docs/damage.md: upload it again, or roll back to an intact version"
            yield Finding(f"dataset {stats.name}", "error", stats.damaged, advice)
        if stats.small_shards >= _SMALL_SHARDS:
            found = f"{stats.small_shards:,} of {stats.shards:,} shards are small"
            yield Finding(f"dataset {stats.name}", "warning", found, f"lake compact {stats.name}")


def _objects(lake: Lake) -> Iterator[Finding]:
    damaged = len(lake.objects.quarantined())
    if damaged:
        advice = "`lake verify` names the datasets; upload the data again"
        yield Finding("quarantine", "error", f"{damaged:,} damaged objects", advice)
    if lake.retention.withheld:
        found = f"{lake.retention.withheld:,} objects stay, as a damaged manifest may need them"
        yield Finding("unused objects", "warning", found, "`lake verify` names it; `lake rm` it")


def _keys(lake: Lake) -> Iterator[Finding]:
    sealed = sum(info.encrypted and info.node is None for info in lake.catalog.list())
    if sealed and lake.vault.keys.is_locked:
        found = f"{sealed:,} encrypted datasets, and no key"
        yield Finding("keys", "warning", found, "use --key-file or --passphrase-file")


def _scrub(lake: Lake) -> Iterator[Finding]:
    state = lake.scrubber.state
    ended = 0.0 if state is None else state.finished_at
    if not ended:
        if lake.catalog.list():
            yield Finding("scrub", "warning", "the data was never read as a whole", "lake scrub")
        return
    when = datetime.fromtimestamp(ended, UTC).isoformat(sep=" ", timespec="seconds")
    days = (datetime.now(UTC).timestamp() - ended) / _DAY_SECONDS
    level, advice = ("warning", "lake scrub") if days > _SCRUB_DAYS else ("ok", "")
    yield Finding("scrub", level, f"the last one ended {when}", advice)


def _uploads(lake: Lake) -> Iterator[Finding]:
    waiting = len(lake.parts.list())
    if waiting:
        advice = "a node finishes them; else they are deleted after a week"
        yield Finding("uploads", "warning", f"{waiting:,} are incomplete", advice)


_CHECKS = (_catalog, _datasets, _objects, _keys, _scrub, _uploads)
