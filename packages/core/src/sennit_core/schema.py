"""Columns and their types: one type system for all engines, file formats and protocols.

A type's text is also its JSON form. Type names and their Arrow counterparts:

    Bool  Int8 Int16 Int32 Int64  UInt8 UInt16 UInt32 UInt64  Float32 Float64
    Decimal(precision,scale)  Utf8  Binary  Date (date32)  Timestamp(unit) Timestamp(unit,zone)
    Time (time64[us])  Duration (duration[us])  List(Type)  Struct(name: Type, name: Type not null)

Arrow itself is imported only by `to_arrow` and `from_arrow`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from sennit_core._type_text import Argument, Term, parse_term, quote_name
from sennit_core.errors import UnknownColumn, UsageError
from sennit_core.text import nearest
from sennit_core.type_names import OTHER_NAMES

if TYPE_CHECKING:  # importing Arrow costs 0.3 s
    import pyarrow as pa

__all__ = ["DataType", "Field", "Schema"]

_PLAIN_NAMES = (
    *("Bool", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64"),
    *("Float32", "Float64", "Utf8", "Binary", "Date", "Time", "Duration"),
)
_NAMES = (*_PLAIN_NAMES, "Decimal", "Timestamp", "List", "Struct")
_UNITS = ("s", "ms", "us", "ns")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]*|[+-][0-9]{2}:[0-9]{2}")
_PRECISION_MAX = 38
_SHORT = 64
"""Longest text of a type that is parsed only once; a hostile one may be of any length."""


@dataclass(frozen=True, slots=True, repr=False)
class DataType:
    """The type of a column; build one with `DataType.parse("Decimal(12,2)")`.

    Args:
        name: the type's name without its arguments.
        precision: total digits of a Decimal, 1 to 38.
        scale: digits of a Decimal after the point, 0 to `precision`.
        unit: `s`, `ms`, `us` or `ns` of a Timestamp.
        zone: the time zone of a Timestamp that names an instant; None for wall-clock time.
        item: the type of a List's items.
        fields: the fields of a Struct.
    """

    name: str
    precision: int | None = None
    scale: int | None = None
    unit: str | None = None
    zone: str | None = None
    item: DataType | None = None
    fields: tuple[Field, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in _NAMES:
            raise UsageError(f"unknown type {self.name!r}", hint=_did_you_mean(self.name))
        if self.name == "Decimal":
            self._check_decimal()
        elif self.precision is not None or self.scale is not None:
            raise UsageError(f"{self.name} has neither precision nor scale")
        if self.name == "Timestamp":
            self._check_timestamp()
        elif self.unit is not None or self.zone is not None:
            raise UsageError(f"{self.name} has neither unit nor zone")
        if self.name == "List" and self.item is None:
            raise UsageError("a List needs the type of its items: List(Int64)")
        if self.name == "Struct":
            _check_names(self.fields, "a Struct")
            if not self.fields:
                raise UsageError("a Struct needs at least one field: Struct(a: Int64)")

    @classmethod
    def parse(cls, text: str) -> DataType:
        """Read a type's text, such as `Timestamp(us,UTC)`.

        Raises:
            UsageError: the text is not a type; the hint names the nearest.
        """
        if isinstance(text, str) and len(text) <= _SHORT:
            return _parse_short(text)
        return _from_term(parse_term(text))

    @classmethod
    def from_arrow(cls, arrow_type: pa.DataType) -> DataType:
        """Return the type that holds every value of an Arrow type.

        Large, view, dictionary and run-end-encoded layouts map to the type of their values.

        Raises:
            Unsupported: there is no such type (null, float16, decimals of more than 38 digits,
                nanosecond times and durations, intervals, unions).
        """
        from sennit_core._arrow import type_from_arrow

        return type_from_arrow(arrow_type)

    def to_arrow(self) -> pa.DataType:
        """Return the Arrow type."""
        from sennit_core._arrow import type_to_arrow

        return type_to_arrow(self)

    @property
    def is_integer(self) -> bool:
        """Whether this is one of the eight integer types."""
        return self.name.startswith(("Int", "UInt"))

    @property
    def is_float(self) -> bool:
        """Whether this is Float32 or Float64."""
        return self.name.startswith("Float")

    @property
    def is_numeric(self) -> bool:
        """Whether this is an integer, a float or a Decimal."""
        return self.is_integer or self.is_float or self.name == "Decimal"

    def __repr__(self) -> str:
        return f"DataType.parse({str(self)!r})"

    def __str__(self) -> str:
        if self.name == "Decimal":
            return f"Decimal({self.precision},{self.scale})"
        if self.name == "Timestamp":
            zone = "" if self.zone is None else f",{self.zone}"
            return f"Timestamp({self.unit}{zone})"
        if self.name == "List":
            return f"List({self.item})"
        if self.name == "Struct":
            return f"Struct({', '.join(map(_struct_field_text, self.fields))})"
        return self.name

    def _check_timestamp(self) -> None:
        if self.unit not in _UNITS:
            raise UsageError(f"a Timestamp's unit is one of {', '.join(_UNITS)}, not {self.unit!r}")
        if self.zone is not None and not _ZONE.fullmatch(self.zone):
            raise UsageError(
                f"not a time zone: {self.zone!r}", hint="write it like UTC, Europe/Rome or +05:30"
            )

    def _check_decimal(self) -> None:
        if self.precision is None or self.scale is None:
            raise UsageError("a Decimal needs precision and scale: Decimal(12,2)")
        if not (1 <= self.precision <= _PRECISION_MAX and 0 <= self.scale <= self.precision):
            raise UsageError(
                f"no Decimal({self.precision},{self.scale}): precision is 1 to {_PRECISION_MAX}, "
                "scale 0 to precision"
            )


@dataclass(frozen=True, slots=True)
class Field:
    """A named, typed column; `type` may be passed as text."""

    name: str
    type: DataType
    nullable: bool = True

    def __post_init__(self) -> None:
        declared: object = self.type
        if isinstance(declared, str):
            object.__setattr__(self, "type", DataType.parse(declared))

    def to_json(self) -> dict[str, Any]:
        """Return `{"name", "type", "nullable"}`."""
        return {"name": self.name, "type": str(self.type), "nullable": self.nullable}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Field:
        """Read the form of `to_json`; `nullable` defaults to true."""
        if not isinstance(document, Mapping) or not {"name", "type"} <= document.keys():
            raise UsageError(f"a field needs name and type: {document!r}")
        unknown = sorted(document.keys() - {"name", "type", "nullable"})
        if unknown:
            raise UsageError(f"a field has no {unknown[0]!r}, only name, type and nullable")
        name, type_text = document["name"], document["type"]
        nullable = document.get("nullable", True)
        if not (isinstance(name, str) and isinstance(type_text, str) and nullable in (True, False)):
            raise UsageError(f"a field's name and type are strings, nullable a boolean: {document}")
        return cls(name, DataType.parse(type_text), bool(nullable))


@dataclass(frozen=True, repr=False)
class Schema:
    """An ordered list of fields with distinct names."""

    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(self.fields))
        _check_names(self.fields, "a schema")

    @classmethod
    def of(cls, /, **types: str | DataType) -> Schema:
        """Build a schema of nullable fields: `Schema.of(id="Int64", at="Timestamp(us)")`."""
        parsed = {n: DataType.parse(t) if isinstance(t, str) else t for n, t in types.items()}
        return cls(tuple(Field(name, data_type) for name, data_type in parsed.items()))

    @property
    def names(self) -> tuple[str, ...]:
        """The fields' names in order."""
        return tuple(field.name for field in self.fields)

    @cached_property
    def _by_name(self) -> dict[str, Field]:
        return {field.name: field for field in self.fields}

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __repr__(self) -> str:
        return f"<Schema {', '.join(map(_struct_field_text, self.fields))}>"

    def __str__(self) -> str:
        return "\n".join(map(_struct_field_text, self.fields))

    def field(self, name: str) -> Field:
        """Return the field called `name`.

        Raises:
            UnknownColumn: there is none; carries the nearest name.
        """
        found = self._by_name.get(name)
        if found is None:
            raise UnknownColumn(name, self.names)
        return found

    def select(self, names: Iterable[str]) -> Schema:
        """Return the schema of these fields, in this order."""
        return Schema(tuple(self.field(name) for name in names))

    def to_json(self) -> dict[str, Any]:
        """Return `{"fields": [{"name", "type", "nullable"}, …]}`."""
        return {"fields": [field.to_json() for field in self.fields]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Schema:
        """Read the form of `to_json`; absent `fields` means none: a tree stores no empty list."""
        if not isinstance(document, Mapping) or document.keys() - {"fields"}:
            raise UsageError(f'a schema is {{"fields": […]}}, not {document!r}')
        fields = document.get("fields") or ()
        if not isinstance(fields, (list, tuple)):
            raise UsageError(f"a schema's fields are a list, not {fields!r}")
        return cls(tuple(map(Field.from_json, fields)))

    def to_arrow(self) -> pa.Schema:
        """Return the Arrow schema."""
        from sennit_core._arrow import schema_to_arrow

        return schema_to_arrow(self)

    @classmethod
    def from_arrow(cls, arrow_schema: pa.Schema) -> Schema:
        """Return the schema of an Arrow schema; its metadata is left out.

        Raises:
            Unsupported: a column's type has no counterpart; the message names the column.
        """
        from sennit_core._arrow import schema_from_arrow

        return schema_from_arrow(arrow_schema)

    def fingerprint(self) -> str:
        """Return the hex SHA-256 of the canonical JSON: equal schemas, equal fingerprints."""
        from sennit_core.hashing import canonical_json, sha256_hex

        return sha256_hex(canonical_json(self.to_json()))


@lru_cache(maxsize=256)
def _parse_short(text: str) -> DataType:
    return _from_term(parse_term(text))


def _from_term(term: Term) -> DataType:
    if term.name not in _NAMES:
        raise UsageError(f"unknown type {term.name!r}", hint=_did_you_mean(term.name))
    arguments = term.arguments
    if term.name in _PLAIN_NAMES:
        if arguments is not None:
            raise UsageError(f"{term.name} accepts no arguments")
        return DataType(term.name)
    return _READERS[term.name](arguments or ())


def _decimal(arguments: tuple[Argument, ...]) -> DataType:
    digits = [_word(argument) for argument in arguments]
    if len(digits) != 2 or not all(text.isascii() and text.isdigit() for text in digits):
        raise UsageError("a Decimal needs precision and scale: Decimal(12,2)")
    return DataType("Decimal", precision=int(digits[0]), scale=int(digits[1]))


def _timestamp(arguments: tuple[Argument, ...]) -> DataType:
    words = [_word(argument) for argument in arguments]
    if len(words) not in (1, 2):
        raise UsageError("a Timestamp needs a unit and perhaps a zone: Timestamp(us,UTC)")
    return DataType("Timestamp", unit=words[0], zone=words[1] if len(words) == 2 else None)


def _list(arguments: tuple[Argument, ...]) -> DataType:
    if len(arguments) != 1 or arguments[0].label is not None:
        raise UsageError("a List needs the type of its items: List(Int64)")
    return DataType("List", item=_from_term(arguments[0].term))


def _struct(arguments: tuple[Argument, ...]) -> DataType:
    fields = []
    for argument in arguments:
        if argument.label is None:
            raise UsageError("a Struct's fields have names: Struct(a: Int64)")
        fields.append(Field(argument.label, _from_term(argument.term), argument.nullable))
    return DataType("Struct", fields=tuple(fields))


_READERS = {"Decimal": _decimal, "Timestamp": _timestamp, "List": _list, "Struct": _struct}


def _word(argument: Argument) -> str:
    if argument.label is not None or argument.term.arguments is not None:
        raise UsageError(f"{argument.term.name!r} is not a plain word")
    return argument.term.name


def _check_names(fields: Iterable[Field], where: str) -> None:
    seen: set[str] = set()
    for field in fields:
        if field.name in seen:
            raise UsageError(f'{where} cannot have two fields called "{field.name}"')
        seen.add(field.name)


def _struct_field_text(field: Field) -> str:
    return f"{quote_name(field.name)}: {field.type}{'' if field.nullable else ' not null'}"


def _did_you_mean(name: str) -> str:
    close = OTHER_NAMES.get(name.lower()) or nearest(name, _NAMES)
    return f"did you mean {close}?" if close else f"types: {', '.join(_NAMES)}"
