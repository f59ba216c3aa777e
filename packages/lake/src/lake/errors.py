"""Errors of the lake in addition to the shared ones, and errors for damage."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from sennit_core.errors import Conflict, Corrupt, Denied, SennitError, Unsupported
from sennit_core.records import DatasetInfo

__all__ = [
    "UploadIncomplete",
    "ciphertext_elsewhere",
    "damaged_dataset",
    "damaged_object",
    "damaged_shard",
    "is_damage_of",
    "not_encrypted",
    "not_ingested",
    "restricted_elsewhere",
    "without_snapshot",
]

_OBJECT = re.compile(r"\(object ([0-9a-f]{64})\)$")


@dataclass(eq=False)
class UploadIncomplete(Conflict):
    """An upload was completed, but some of its parts are missing.

    Args:
        missing: Indexes of the missing parts, in order, at most the first hundred.
    """

    missing: list[int] = field(default_factory=list)
    code = "upload-incomplete"


def damaged_shard(
    dataset: str, index: int, object_id: str, part: str, expected: str, found: str
) -> Corrupt:
    """Return the error for a shard whose bytes do not match its object's hashes.

    Args:
        dataset: The dataset's name.
        index: The shard's index in the snapshot.
        object_id: The shard's object.
        part: The damaged part of the object, such as `chunk 3`.
        expected: The expected value.
        found: The value found.
    """
    return Corrupt(
        f'dataset "{dataset}": {part} of shard {index} (object {object_id})',
        expected=expected,
        found=found,
        hint=_advice(dataset),
    )


def damaged_object(error: Corrupt) -> str | None:
    """Return the object of the shard that an error, possibly from another process, is about."""
    found = _OBJECT.search(error.what)
    return None if found is None else found[1]


def damaged_dataset(
    dataset: str, what: str, problem: str, *, expected: str | None = None
) -> Corrupt:
    """Return the error for a dataset whose manifest or catalog row is damaged.

    Args:
        dataset: The dataset's name, or its id if the name is lost.
        what: The damaged part, such as `the manifest of snapshot 01h…`.
        problem: The problem found.
        expected: The expected value.
    """
    return Corrupt(
        f'dataset "{dataset}": {what}', expected=expected, found=problem, hint=_advice(dataset)
    )


def _advice(dataset: str) -> str:
    return (
        f'`platform verify "{dataset}"` lists all damage; restore the data folder from a backup, or '
        f'delete the dataset (`platform datasets "{dataset}" --delete`) and load its data again'
    )


def is_damage_of(error: Corrupt, dataset: str) -> bool:
    """Return whether the error, possibly from another process, is about this dataset."""
    return error.what.startswith(f'dataset "{dataset}": ')


def not_ingested(dataset: str) -> Conflict:
    """Return the error for a use of a linked dataset that needs its shards."""
    return Conflict(
        f'dataset "{dataset}" is linked to a file that is not ingested yet, so it has no snapshot',
        hint="queries can read it; for all else wait until its ingest job is done (`platform jobs`), "
        "or replace it: `platform put FILE --copy --mode replace`",
    )


def restricted_elsewhere(dataset: str, node: str) -> Unsupported:
    """Return the error for a use of a dataset of which the writer sends only what a user may see."""
    return Unsupported(
        f"this use of dataset {dataset!r}, of which node {node[:16]} sends only what the user may see",
        hint="read it with a query; CREATE TABLE my_copy AS FROM … keeps what you see of it",
    )


def ciphertext_elsewhere(dataset: str, node: str) -> Denied:
    """Return the error for reading a copy whose key this node does not have."""
    return Denied(
        f"reading {dataset!r}, a copy of an encrypted dataset of node {node[:16]}",
        needed="the key, which only that node has",
        hint="ask that node to share the dataset",
    )


def without_snapshot(info: DatasetInfo) -> SennitError:
    """Return the error for a use of a dataset that needs its shards, which it does not have here."""
    if info.node is not None:
        return restricted_elsewhere(info.name, info.node)
    return not_ingested(info.name)


def not_encrypted(dataset: str) -> Conflict:
    """Return the error for rows that are to be encrypted, of a dataset that is not."""
    return Conflict(
        f"dataset {dataset!r} exists and is not encrypted", hint="upload it under another name"
    )
