"""`elkyn backup`, `restore`, `archive`, `verify` and `compact`: the files of a store."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path as FilePath

from elkyn.cli.command import Subparsers, add_command, existing
from sennit_core.errors import NotFound, UsageError
from sennit_core.private_files import make_private_folder

__all__ = ["register"]


def register(subparsers: Subparsers) -> None:
    """Add the commands."""
    backup = add_command(
        subparsers, "backup", _backup, "copy a tree to a folder, even while a server has it open"
    )
    backup.add_argument("target", type=FilePath, help="a folder that does not exist yet")
    restore = add_command(
        subparsers, "restore", _restore, "create a tree from a backup and the log archived since"
    )
    restore.add_argument("backup", type=FilePath, help="the folder of the backup")
    restore.add_argument("--archive", type=FilePath, help="the folder of `elkyn archive`")
    restore.add_argument("--position", type=int, help="the last position to restore")
    restore.add_argument(
        "--time", help="the last time to restore, for example 2026-01-31T12:00:00Z"
    )
    archive = add_command(
        subparsers, "archive", _archive, "append the log's new entries to an archive folder"
    )
    archive.add_argument("target", type=FilePath, help="the archive folder; created when missing")
    add_command(subparsers, "verify", _verify, "check every row of a tree and its log")
    add_command(subparsers, "compact", _compact, "return the file's free space to the disk")


def _folder(options: argparse.Namespace) -> FilePath:
    folder: FilePath = options.data / options.namespace
    return folder


def _backup(options: argparse.Namespace) -> int:
    from elkyn.recovery import backup_folder

    if not (_folder(options) / "data.mdb").is_file():
        raise NotFound("namespace", options.namespace)
    backup_folder(_folder(options), options.target)
    print(f"backed up to {options.target}")
    return 0


def _restore(options: argparse.Namespace) -> int:
    from elkyn.recovery import restore

    make_private_folder(options.data)
    position = restore(
        options.backup,
        _folder(options),
        archive=options.archive,
        until_position=options.position,
        until_ms=None if options.time is None else _milliseconds(options.time),
    )
    print(f"restored {options.namespace} at position {position}")
    return 0


def _milliseconds(text: str) -> int:
    try:
        timestamp = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a time", hint="use 2026-01-31T12:00:00Z") from None
    if timestamp.tzinfo is None:
        timestamp = timestamp.replace(tzinfo=UTC)
    return int(timestamp.timestamp() * 1000)


def _archive(options: argparse.Namespace) -> int:
    from elkyn.namespaces import open_namespaces
    from elkyn.recovery import archive_log

    with open_namespaces(options.data) as stores:
        position = archive_log(existing(stores, options.namespace), options.target)
    print(f"archived up to position {position}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from elkyn.storage.disk import verify_folder

    if not (_folder(options) / "data.mdb").is_file():
        raise NotFound("namespace", options.namespace)
    found = verify_folder(_folder(options))
    for problem in found:
        print(problem)
    if not found:
        print(f"{options.namespace} is undamaged")
    return 1 if found else 0


def _compact(options: argparse.Namespace) -> int:
    from elkyn.namespaces import open_namespaces

    with open_namespaces(options.data) as stores:
        store = existing(stores, options.namespace)
        before = store.admin.file_bytes
        store.admin.compact()
        print(f"{before:,} bytes before, {store.admin.file_bytes:,} now")
    return 0
