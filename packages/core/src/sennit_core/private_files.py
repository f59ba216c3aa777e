"""Folders and files that only their owner can read.

A data folder holds datasets, tokens and password hashes, so everything below it is 0700 (folders),
0600 (files) or 0400 (files that never change). Libraries ask for these modes where they make
folders and files; they do not change the umask, which belongs to the program. A server calls
`claim_folder` when it starts, which also corrects permissions that an earlier version or another
tool left too open.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sennit_core.errors import Denied, UsageError

__all__ = [
    "FILE_MODE",
    "FOLDER_MODE",
    "READ_ONLY_MODE",
    "ClaimedFolder",
    "claim_folder",
    "make_private_folder",
]

FOLDER_MODE = 0o700
FILE_MODE = 0o600
READ_ONLY_MODE = 0o400

_OTHERS = 0o077
_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class ClaimedFolder:
    """The result of `claim_folder`; `messages` are warnings for the log.

    Args:
        mended: How many files and folders other accounts could access; their modes were changed.
        messages: Sentences: what was changed, and what could not be.
    """

    mended: int = 0
    messages: tuple[str, ...] = ()


def make_private_folder(path: Path) -> Path:
    """Make a folder and its missing parents with mode 0700; leave existing folders unchanged."""
    for folder in reversed([path, *path.parents]):
        if not folder.exists():
            folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    if not path.is_dir():
        raise UsageError(f"{path} is a file, not a folder", hint="name a folder")
    return path


def claim_folder(path: Path) -> ClaimedFolder:
    """Make `path` and everything below it private, before a server uses it.

    Symbolic links below it are neither followed nor changed.

    Raises:
        Denied: The folder belongs to another account.
        UsageError: It is a file.
    """
    make_private_folder(path)
    messages = [*_check_owner(path), *_check_parents(path.resolve())]
    examples: list[str] = []
    mended = 0
    for entry, mode in _open_to_others(path):
        private = mode & ~_OTHERS
        Path(entry).chmod(private)
        mended += 1
        if len(examples) < _EXAMPLES:
            shown = os.path.relpath(entry, path)
            examples.append(f"{shown} ({mode:04o}, now {private:04o})")
    if mended:
        more = "" if mended <= len(examples) else f" and {mended - len(examples)} more"
        messages.append(
            f"other accounts could access {path}; permissions changed: {', '.join(examples)}{more}"
        )
    return ClaimedFolder(mended, tuple(messages))


def _check_owner(path: Path) -> list[str]:
    owner, ours = path.stat().st_uid, os.geteuid()
    if owner == ours:
        return []
    if ours != 0:
        raise Denied(
            "use the data folder",
            message=f"{path} belongs to user {owner}, this process runs as user {ours}",
            hint=f"run as user {owner}, change the owner (chown -R), or use another folder",
        )
    return [f"{path} belongs to user {owner}, who can read all that root writes there"]


def _check_parents(path: Path) -> list[str]:
    """Warn of folders above in which another account could rename or replace this one."""
    for parent in path.parents:
        found = parent.stat()
        writable = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if writable and not found.st_mode & stat.S_ISVTX:
            return [f"other accounts can write to {parent}, so they can rename or replace {path}"]
    return []


def _open_to_others(root: Path) -> Iterator[tuple[str, int]]:
    """Yield the folder and everything below it that has permissions for others, outermost first."""
    mode = stat.S_IMODE(root.stat().st_mode)
    if mode & _OTHERS:
        yield str(root), mode
    waiting = [str(root)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    continue
                mode = stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode)
                if mode & _OTHERS:
                    yield entry.path, mode
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
