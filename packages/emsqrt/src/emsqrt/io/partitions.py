"""Columns in folder names, as Hive writes them: `country=DE/day=2024-01-31/part-0.parquet`.

Characters that a file name cannot contain are percent-encoded; NULL and the empty text have special
names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from urllib.parse import quote, unquote

from emsqrt.io.locations import Location
from sennit_core.errors import BadInput
from sennit_core.schema import DataType, Field, Schema

NULL_NAME = "__HIVE_DEFAULT_PARTITION__"
_SAFE = " !$&()+,;@^_`{}~-."
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")


def folder_name(column: str, text: str | None) -> str:
    """Return the name of the folder for rows with this value.

    Args:
        column: the column.
        text: its value as CSV text, None for NULL.
    """
    value = NULL_NAME if text is None else quote(text, safe=_SAFE)
    return f"{quote(column, safe=_SAFE)}={value}"


def values_in(place: Location) -> dict[str, str | None]:
    """Return the columns and values in the folder names of a file."""
    found: dict[str, str | None] = {}
    for part in place.folders:
        name, mark, value = part.partition("=")
        if mark and name:
            found[unquote(name)] = None if value == NULL_NAME else unquote(value)
    return found


def partition_columns(places: Sequence[Location]) -> tuple[str, ...]:
    """Return the columns in the folder names of all files.

    Raises:
        BadInput: some files have other columns in their folder names than the first file.
    """
    if not places:
        return ()
    names = tuple(values_in(places[0]))
    for place in places:
        found = tuple(values_in(place))
        if found != names:
            raise BadInput(
                str(place),
                reason=f"its folder names have the columns {list(found)}, those of {places[0]} "
                f"{list(names)}",
                hint='to ignore folder names, set the option "partitions": false',
            )
    return names


def partition_schema(places: Sequence[Location]) -> Schema:
    """Return the columns in folder names with the type that fits all their values.

    Whole numbers are Int64, dates Date, everything else Utf8.
    """
    names = partition_columns(places)
    values = [values_in(place) for place in places]
    fields = [
        Field(name, DataType.parse(_type_of([each[name] for each in values]))) for name in names
    ]
    return Schema(tuple(fields))


def _type_of(values: Sequence[str | None]) -> str:
    present = [value for value in values if value is not None]
    if present and all(_INTEGER.fullmatch(value) for value in present):
        return "Int64"
    return "Date" if present and all(map(_is_date, present)) else "Utf8"


def _is_date(text: str) -> bool:
    try:
        return len(text) == 10 and date.fromisoformat(text) is not None
    except ValueError:
        return False


def merged_schema(schema: Schema, places: Sequence[Location]) -> Schema:
    """Return a file's columns without those in folder names, then the columns in folder names."""
    by_folder = partition_schema(places)
    kept = tuple(field for field in schema if field.name not in by_folder)
    return Schema((*kept, *by_folder))
