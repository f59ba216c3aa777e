"""Which columns of an appended file are those of the dataset: by name, in any order.

A column that the file does not have has its default, as with COPY in DuckDB, which is NULL unless the
dataset says otherwise. A column that the dataset does not have is refused: to leave it out would lose data,
and to add it is ALTER TABLE's.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import pyarrow as pa

from sennit_core.arrow_ipc import open_arrow
from sennit_core.errors import BadInput, nearest
from sennit_core.schema import Schema

__all__ = ["ColumnMatch", "Defaults"]


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the columns of a dataset have in the rows of a file without them.

    Args:
        values: The value of each column that has a default, by its name.
        rowwise: The columns whose default is another value in each row, which an ingest cannot compute.
    """

    values: Mapping[str, pa.Scalar] = field(default_factory=dict)
    rowwise: frozenset[str] = frozenset()

    @classmethod
    def from_json(cls, data: dict[str, Any] | None) -> Self:
        """Read the response of the step `defaults` (`lake.sql.defaults`); None has no defaults."""
        if data is None:
            return cls()
        stream = pa.BufferReader(base64.b64decode(data["values"]))
        with open_arrow(stream, "the defaults") as reader:
            table = reader.read_all()
        values = {name: table.column(name)[0] for name in table.column_names}
        return cls(values, frozenset(data["rowwise"]))


NO_DEFAULTS = Defaults()


@dataclass(frozen=True, slots=True)
class ColumnMatch:
    """The columns of a dataset in a file.

    Args:
        schema: The dataset's columns.
        sources: For each of them, the number of the file's column; None if there is none.
        defaults: What the columns that the file does not have get.
    """

    schema: pa.Schema
    sources: tuple[int | None, ...]
    defaults: Defaults = NO_DEFAULTS

    @classmethod
    def of(
        cls,
        schema: Schema,
        names: Sequence[str],
        *,
        what: str,
        needs_all: bool,
        line: int | None = None,
        defaults: Defaults = NO_DEFAULTS,
    ) -> ColumnMatch:
        """Match the columns of a file with those of its dataset.

        Args:
            schema: The dataset's columns.
            names: The file's columns.
            what: The file's name, for errors.
            needs_all: Whether the file has to have all columns.
            line: Where they are in the file.
            defaults: Those of the dataset.

        Raises:
            BadInput: The dataset does not have one, or the file has none for one that is NOT NULL; or
                the file has to have all, and does not.
        """
        numbers = _numbers(names, schema)
        known_numbers = set(numbers.values())
        unknown = [name for number, name in enumerate(names) if number not in known_numbers]
        missing = [field for field in schema if field.name not in numbers]
        filled = defaults.values
        required = missing
        if not needs_all:
            required = [f for f in missing if not f.nullable and f.name not in filled]
        if unknown or required or len(missing) == len(schema):
            known = ", ".join(schema.names)
            raise BadInput(
                what=what,
                line=line,
                reason=f"its columns are {', '.join(names)}; the dataset has {known}",
                hint=_hint(unknown, [field.name for field in required], schema),
            )
        computed = [each.name for each in missing if each.name in defaults.rowwise]
        if computed:
            raise BadInput(
                what=what,
                line=line,
                reason=f"it has no column {computed[0]!r}, whose default is another value in each row",
                hint="add the column to the file, or load it into a dataset of its own and INSERT "
                "INTO … BY NAME SELECT from there",
            )
        sources = tuple(numbers.get(each) for each in schema.names)
        return cls(schema.to_arrow(), sources, defaults)

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
            self._filled(field, rows) if source is None else columns[source]
            for field, source in zip(self.schema, self.sources, strict=True)
        ]

    def _filled(self, field: pa.Field, rows: int) -> pa.Array:
        value = self.defaults.values.get(field.name)
        return pa.nulls(rows, field.type) if value is None else pa.repeat(value, rows)


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
