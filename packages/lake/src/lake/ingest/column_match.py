"""Which columns of an appended file are those of the dataset: by name, in any order.

A column that the file does not have is NULL, as with appends of Delta and Iceberg tables. A column that
the dataset does not have is refused: to leave it out would lose data, and to add it is ALTER TABLE's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from sennit_core.errors import BadInput, nearest
from sennit_core.schema import Schema

__all__ = ["ColumnMatch"]


@dataclass(frozen=True, slots=True)
class ColumnMatch:
    """The columns of a dataset in a file.

    Args:
        schema: The dataset's columns.
        sources: For each of them, the number of the file's column; None if there is none.
    """

    schema: pa.Schema
    sources: tuple[int | None, ...]

    @classmethod
    def of(
        cls,
        schema: Schema,
        names: Sequence[str],
        *,
        what: str,
        needs_all: bool,
        line: int | None = None,
    ) -> ColumnMatch:
        """Match the columns of a file with those of its dataset.

        Args:
            schema: The dataset's columns.
            names: The file's columns.
            what: The file's name, for errors.
            needs_all: Whether the file has to have all columns.
            line: Where they are in the file.

        Raises:
            BadInput: The dataset does not have one, or the file has none for one that is NOT NULL; or
                the file has to have all, and does not.
        """
        numbers = _numbers(names, schema)
        known_numbers = set(numbers.values())
        unknown = [name for number, name in enumerate(names) if number not in known_numbers]
        missing = [field for field in schema if field.name not in numbers]
        required = missing if needs_all else [f for f in missing if not f.nullable]
        if unknown or required or len(missing) == len(schema):
            known = ", ".join(schema.names)
            raise BadInput(
                what=what,
                line=line,
                reason=f"its columns are {', '.join(names)}; the dataset has {known}",
                hint=_hint(unknown, [field.name for field in required], schema),
            )
        return cls(schema.to_arrow(), tuple(numbers.get(each) for each in schema.names))

    @property
    def missing(self) -> list[str]:
        """The dataset's columns that the file does not have."""
        pairs = zip(self.schema.names, self.sources, strict=True)
        return [name for name, source in pairs if source is None]

    @property
    def nullable_schema(self) -> pa.Schema:
        """The dataset's columns as those of shards whose rows are yet to be checked for NULL."""
        return pa.schema([field.with_nullable(nullable=True) for field in self.schema])

    def arranged(self, columns: Sequence[pa.Array], rows: int) -> list[pa.Array]:
        """Return the dataset's columns of a batch of the file."""
        return [
            pa.nulls(rows, field.type) if source is None else columns[source]
            for field, source in zip(self.schema, self.sources, strict=True)
        ]


def _numbers(names: Sequence[str], schema: Schema) -> dict[str, int]:
    """Return the number of the file's column for each name of the dataset's; case does not count."""
    folded: dict[str, int] = {}
    for number, name in enumerate(names):
        folded.setdefault(name.casefold(), number)
    return {each: folded[each.casefold()] for each in schema.names if each.casefold() in folded}


def _hint(unknown: list[str], required: list[str], schema: Schema) -> str:
    if unknown:
        near = nearest(unknown[0], schema.names)
        guess = f"is {unknown[0]!r} {near!r}? " if near else ""
        return f"{guess}ALTER TABLE … ADD COLUMN adds a column to the dataset"
    return f"the file has no column {required[0] if required else schema.names[0]!r}"
