"""Export datasets to a bundle: their newest snapshots, pinned while they are read.

A bundle has what a node sends to others of a shared dataset: the manifest, its lists and the shards, and
not the files that were ingested. The objects are read, verified and encrypted a piece at a time, and the
file gets its name when it is whole and durable.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lake.bundles.format import (
    DATASETS_MAX,
    OBJECTS_MAX,
    BundleDataset,
    BundleHead,
    BundleReport,
    BundleWriter,
    file_bytes_of,
)
from lake.errors import without_snapshot
from lake.objects.durable import NewFile, free_bytes
from lake.statements.limits import Requester
from sennit_core.errors import (
    Cancelled,
    Conflict,
    Corrupt,
    Denied,
    StorageFull,
    Unsupported,
    UsageError,
)
from sennit_core.units import MIB

if TYPE_CHECKING:
    from lake.lake import Lake
    from sennit_core.records import DatasetInfo

__all__ = ["ExportRequest", "export_bundle"]

_REPORT_BYTES = 16 * MIB


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export.

    Args:
        datasets: Ids or names.
        file: An absolute path at which there is no file yet.
        passphrase: Encrypts the file.
        requester: The user.
        node_name: What this node is called.
    """

    datasets: tuple[str, ...]
    file: Path
    passphrase: str
    requester: Requester
    node_name: str = ""

    def __repr__(self) -> str:
        return f"ExportRequest({self.datasets}, {str(self.file)!r})"  # not the passphrase


def export_bundle(
    lake: Lake,
    request: ExportRequest,
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[BundleReport]:
    """Write a bundle; yield its progress, and at the end its size.

    Args:
        lake: The datasets.
        request: What to export.
        stopped: Asked between two pieces; True stops the work, which leaves no file.

    Raises:
        NotFound: There is no such dataset, as far as the user can know.
        Denied: The user sees a part of one, or the file's place is not allowed.
        Unsupported: One is encrypted or has a policy, which a bundle does not carry.
        Conflict: There is a file, or a dataset has changed meanwhile.
        Corrupt: An object is damaged.
        Unavailable: A shard is on no node that can be reached.
        StorageFull: There is no room for the file.
    """
    _check_place(lake, request.file)
    datasets = _chosen(lake, request)
    found = [_described(lake, info) for info in datasets]
    names = {name for _, objects in found for name in objects}
    if len(names) > OBJECTS_MAX:
        raise UsageError(
            f"{len(names):,} objects are more than a bundle has ({OBJECTS_MAX:,})",
            hint="export fewer datasets into one bundle",
        )
    with lake.retention.lease(names):
        _check_unchanged(lake, found)
        for info, (_, objects) in zip(datasets, found, strict=True):
            if info.node is not None:
                lake.remote.ensure_received(info, objects)
        yield from _write(lake, request, [each for each, _ in found], names, stopped)


def _check_place(lake: Lake, file: Path) -> None:
    if not file.is_absolute() or not file.parent.is_dir():
        raise UsageError(f"{file} is not a file in a folder that exists", hint="make the folder")
    # The node removes what it does not know there, and a backup of it would have the bundle.
    if file.parent.resolve().is_relative_to(lake.folder.resolve()):
        raise Denied("writing a bundle into the node's data folder", needed="another folder")
    if file.exists() or file.is_symlink():
        raise Conflict(f"there is a file {file}", hint="name another one, or remove it")


def _chosen(lake: Lake, request: ExportRequest) -> list[DatasetInfo]:
    found: dict[str, DatasetInfo] = {}
    for name in request.datasets:
        info = lake.policies.check_whole(name, request.requester, "exporting")
        if info.encrypted:
            raise Unsupported(
                f"a bundle of {info.name!r}, which is encrypted with a key of this node's lake",
                hint=f"export a copy: CREATE TABLE copy WITH (encrypt = false) AS FROM {info.name}",
            )
        if not lake.policies.is_open(info):
            raise Unsupported(
                f"a bundle of {info.name!r}: it has an access policy, which no bundle carries",
                hint="export a copy of the rows that may be seen: CREATE TABLE copy AS SELECT …",
            )
        if info.head is None:
            raise without_snapshot(info)
        found[info.id] = info
    if not 0 < len(found) <= DATASETS_MAX:
        raise UsageError(f"a bundle has 1 to {DATASETS_MAX:,} datasets, not {len(found):,}")
    return list(found.values())


def _described(lake: Lake, info: DatasetInfo) -> tuple[BundleDataset, frozenset[str]]:
    """Return the head of a dataset as of now, and its objects without files that were ingested."""
    assert info.head is not None, "it was checked"
    adopter = lake.catalog.adopter
    manifest, version = adopter.manifest_of(info, info.head)
    whole = adopter.read_whole(manifest)
    lists = (name for each in whole.lists for name in each.objects)
    shards = (shard.object for shard in whole.snapshot.shards)
    dataset = BundleDataset(info.id, info.name, info.head, version, manifest)
    return dataset, frozenset((manifest, *lists, *shards))


def _check_unchanged(lake: Lake, found: list[tuple[BundleDataset, frozenset[str]]]) -> None:
    """Refuse a snapshot that went before its objects were leased, some of which may be gone."""
    catalog = lake.catalog
    for dataset, _ in found:
        info = catalog.get(dataset.id)
        is_there = catalog.has_snapshot(dataset.id, dataset.snapshot)
        if (
            not is_there
            or catalog.adopter.manifest_of(info, dataset.snapshot)[0] != dataset.manifest
        ):
            raise Conflict(
                f"dataset {dataset.name!r} has changed meanwhile", hint="export it again"
            )
        catalog.check_shards(catalog.manifest(dataset.id, dataset.snapshot).snapshot)


def _write(
    lake: Lake,
    request: ExportRequest,
    datasets: list[BundleDataset],
    names: set[str],
    stopped: Callable[[], bool],
) -> Iterator[BundleReport]:
    sizes = {name: lake.objects.path(name).stat().st_size for name in names}
    total, done, reported = sum(sizes.values()), 0, 0
    _check_room(lake, request.file, file_bytes_of(len(sizes), total))
    key = lake.storage.node_key
    shown = tuple(each.name for each in datasets)
    yield BundleReport("export", 0, total, len(sizes), shown, key.id)
    with NewFile(request.file.parent) as new:
        writer = BundleWriter(new.write, request.passphrase)
        now = lake.clock.now()
        writer.start(BundleHead(1, tuple(datasets), 0, "", request.node_name, now), sizes, key)
        for name in sorted(names):
            size = 0
            for piece in lake.objects.read(name):
                if stopped():
                    raise Cancelled("the export of a bundle")
                writer.write(piece)
                size, done = size + len(piece), done + len(piece)
                if done - reported >= _REPORT_BYTES:
                    reported = done
                    yield BundleReport("export", done, total, len(sizes), shown, key.id)
            if size != sizes[name]:
                raise Corrupt(f"object {name}", expected=f"{size} bytes", found=f"{sizes[name]}")
        writer.finish()
        new.commit(request.file)
        written = new.size
    yield BundleReport(
        "export", total, total, len(sizes), shown, key.id, file_bytes=written, done=True
    )


def _check_room(lake: Lake, file: Path, needed: int) -> None:
    free = free_bytes(file.parent)
    if needed > free:
        raise StorageFull(file.parent, needed, free, hint="write the bundle to another disk")
    if os.stat(file.parent).st_dev == os.stat(lake.folder).st_dev:  # noqa: PTH116 - compared
        lake.space.check_disk("the bundle", needed)
