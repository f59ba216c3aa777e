"""The format version of a store's files, stored under `format` in the database `meta`.

    elkyn 1    packed rows and branches (`rows`), later a log
    elkyn 2    rows by shapes, short nodes, idempotency keys in the log
    elkyn 3    integers with leading zeros and characters above U+FFFF in the SDKs' order (`key_order`)

Rows of every version from `OLDEST` on are supported. A file is marked `elkyn 3` with the first write of
a program that writes such rows, so that a program that only supports 2 refuses it instead of misreading
it.
"""

from __future__ import annotations

import re
from pathlib import Path as FilePath
from typing import Any

import lmdb

from elkyn.errors import OtherFormat
from elkyn.storage.environment import Txn, translated
from sennit_core.errors import Corrupt

__all__ = [
    "CURRENT",
    "KEY",
    "OLDEST",
    "check_file",
    "check_format",
    "check_transaction",
    "is_older",
    "mark_of",
]

OLDEST, CURRENT = 1, 3
KEY = b"format"

_MARK = re.compile(rb"elkyn ([0-9]{1,9})")


def is_older(mark: bytes | None) -> bool:
    """Whether the store's keys may be in the order of format 2."""
    return mark is not None and mark != mark_of(CURRENT)


def mark_of(version: int) -> bytes:
    """Return the mark of a version."""
    return b"elkyn %d" % version


def check_format(folder: FilePath, mark: bytes | None) -> None:
    """Refuse a store whose format is not supported.

    Raises:
        OtherFormat: a newer program wrote it, or one that is too old.
        Corrupt: the mark is not that of any version.
    """
    if mark is None:
        return
    found = _MARK.fullmatch(mark)
    if found is None:
        what = f"the store at {folder}"
        raise Corrupt(what, expected=mark_of(CURRENT).decode(), found=repr(mark))
    if not OLDEST <= int(found[1]) <= CURRENT:
        raise OtherFormat(str(folder), int(found[1]), OLDEST, CURRENT)


def check_transaction(folder: FilePath, txn: Txn, databases: dict[str, Any]) -> None:
    """Do what `check_format` does in the transaction that opens a store."""
    check_format(folder, txn.get(KEY, db=databases["meta"]))


def check_file(folder: FilePath) -> None:
    """Do what `check_format` does for a file that is not open."""
    with translated(folder), lmdb.open(str(folder), readonly=True, lock=False, max_dbs=1) as env:
        try:
            databases = {"meta": env.open_db(b"meta", create=False)}
        except lmdb.NotFoundError:
            return
        with env.begin() as txn:
            check_transaction(folder, txn, databases)
