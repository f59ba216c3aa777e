"""What can go wrong in the lake beyond the shared errors, and how damage is reported."""

from __future__ import annotations

from dataclasses import dataclass, field

from sennit_core.errors import Conflict, Corrupt

__all__ = ["UploadIncomplete", "damaged_dataset", "damaged_shard", "is_damage_of"]


@dataclass(eq=False)
class UploadIncomplete(Conflict):
    """An upload was completed while parts of it are missing.

    Args:
        missing: Indexes of the missing parts, in order, at most the first hundred.
    """

    missing: list[int] = field(default_factory=list)
    code = "upload-incomplete"


def damaged_shard(
    dataset: str, index: int, object_id: str, part: str, expected: str, found: str
) -> Corrupt:
    """The error for a shard whose bytes are not those of its object.

    Args:
        dataset: The dataset's name.
        index: The shard's place in the snapshot.
        object_id: The shard's object.
        part: What of the object is damaged, such as `chunk 3`.
        expected: What it should be.
        found: What it is.
    """
    return Corrupt(
        f'dataset "{dataset}": {part} of shard {index} (object {object_id})',
        expected=expected,
        found=found,
        hint=_advice(dataset),
    )


def damaged_dataset(
    dataset: str, what: str, problem: str, *, expected: str | None = None
) -> Corrupt:
    """The error for a dataset whose manifest or catalog row cannot be used.

    Args:
        dataset: The dataset's name, or its id when the name is lost.
        what: The damaged part, such as `the manifest of snapshot 01h…`.
        problem: What was found.
        expected: What it should be.
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
    """Whether the error, perhaps rebuilt from another process, is about the dataset of this name."""
    return error.what.startswith(f'dataset "{dataset}": ')
