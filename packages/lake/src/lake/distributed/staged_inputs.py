"""Rows that a change of another node's dataset reads, which its writer fetches from the asking node.

They are objects of the asking node, named by their hashes; the writer reads them as tables of the statement
alone, and writes what it stores of them itself. So no statistics of another node become part of a dataset.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sennit_core.errors import BadInput
from sennit_core.records import Record
from sennit_core.schema import Schema

__all__ = ["StagedInput", "StagedObject", "bytes_of", "check_inputs", "objects_of"]

_INPUTS_MAX = 16
_OBJECTS_MAX = 500
_NAME_MAX = 255
_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class StagedObject(Record):
    """A Parquet file.

    Args:
        object: Its object id.
        bytes: Its size.
    """

    object: str
    bytes: int


@dataclass(frozen=True, slots=True)
class StagedInput(Record):
    """A table of a statement.

    Args:
        name: Its name in the statement.
        schema: Its columns.
        objects: Its rows, in order.
    """

    name: str
    schema: Schema
    objects: tuple[StagedObject, ...]


def objects_of(inputs: Sequence[StagedInput]) -> dict[str, int]:
    """Return the sizes of the objects of tables, by their ids."""
    return {each.object: each.bytes for table in inputs for each in table.objects}


def bytes_of(inputs: Sequence[StagedInput]) -> int:
    """Return the bytes that are fetched."""
    return sum(objects_of(inputs).values())


def check_inputs(inputs: Sequence[StagedInput], dataset: str) -> None:
    """Refuse tables that no node of this version sends.

    Args:
        inputs: The tables.
        dataset: The name of the dataset that the statement changes.

    Raises:
        BadInput: A member is out of range.
    """
    names = {dataset.casefold(), *(each.name.casefold() for each in inputs)}
    objects = [each for table in inputs for each in table.objects]
    is_valid = (
        len(inputs) <= _INPUTS_MAX
        and len(objects) <= _OBJECTS_MAX
        and len(names) == len(inputs) + 1
        and all(0 < len(each.name) <= _NAME_MAX for each in inputs)
        and all(_ID.fullmatch(each.object) and each.bytes > 0 for each in objects)
    )
    if not is_valid:
        reason = f"it has {len(objects)} files in {len(inputs)} tables, or one of them is not valid"
        hint = (
            f"at most {_OBJECTS_MAX} files can be sent: append fewer rows, or partitions, at once"
        )
        raise BadInput("rows for another node", reason=reason, hint=hint)
