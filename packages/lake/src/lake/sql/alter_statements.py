"""Take ALTER TABLE apart; each form of it is one function here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from lake.sql.column_definitions import ColumnDefinition, read_definition
from lake.sql.layout_clauses import ResetLayout, SetLayout, reset_layout, set_layout
from lake.sql.statement_reader import Clause, StatementReader
from sennit_core.errors import Unsupported

__all__ = [
    "AddColumn",
    "Alter",
    "Alteration",
    "ChangeType",
    "DropColumn",
    "RenameColumn",
    "RenameTable",
    "SetDefault",
    "SetNullable",
    "parse_alter",
]

_SUPPORTED = (
    "use ADD COLUMN, DROP COLUMN, RENAME COLUMN, RENAME TO, ALTER COLUMN … TYPE, "
    "SET or DROP NOT NULL or DEFAULT, SET or RESET PARTITIONED BY or SORTED BY"
)


@dataclass(frozen=True, slots=True)
class AddColumn:
    """ADD COLUMN name type; NULL in the rows that there are."""

    definition: ColumnDefinition
    if_missing: bool


@dataclass(frozen=True, slots=True)
class DropColumn:
    """DROP COLUMN name."""

    column: str
    if_exists: bool


@dataclass(frozen=True, slots=True)
class RenameColumn:
    """RENAME COLUMN name TO another."""

    column: str
    to: str


@dataclass(frozen=True, slots=True)
class RenameTable:
    """RENAME TO another name."""

    to: str


@dataclass(frozen=True, slots=True)
class ChangeType:
    """ALTER COLUMN name TYPE type."""

    column: str
    type: Clause


@dataclass(frozen=True, slots=True)
class SetNullable:
    """ALTER COLUMN name SET NOT NULL, or DROP NOT NULL."""

    column: str
    nullable: bool


@dataclass(frozen=True, slots=True)
class SetDefault:
    """ALTER COLUMN name SET DEFAULT expression, or DROP DEFAULT."""

    column: str
    default: Clause | None


Alteration: TypeAlias = (
    AddColumn
    | DropColumn
    | RenameColumn
    | RenameTable
    | ChangeType
    | SetNullable
    | SetDefault
    | SetLayout
    | ResetLayout
)


@dataclass(frozen=True, slots=True)
class Alter:
    """ALTER TABLE.

    Args:
        table: The dataset.
        if_exists: Whether a dataset that does not exist is no error.
        alteration: The change.
    """

    table: str
    if_exists: bool
    alteration: Alteration


def parse_alter(reader: StatementReader, _prelude: Clause) -> Alter:
    """Read ALTER TABLE, of which the verb has been read."""
    if not reader.accept("table"):
        raise Unsupported(f"ALTER {reader.word.upper()} is not supported", hint="use ALTER TABLE")
    if_exists = _if_exists(reader)
    table = reader.name()
    parse = _FORMS.get(reader.word)
    if parse is None:
        raise Unsupported(f"ALTER TABLE … {reader.word.upper()} is not supported", hint=_SUPPORTED)
    reader.take()
    alteration = parse(reader)
    if reader.word:
        rest = reader.cut(reader.position, len(reader.tokens)).text
        raise Unsupported(f"ALTER TABLE … {rest} is not supported", hint=_SUPPORTED)
    return Alter(table, if_exists, alteration)


def _add(reader: StatementReader) -> AddColumn:
    reader.accept("column")
    if_missing = reader.accept("if")
    if if_missing:
        reader.expect("not")
        reader.expect("exists")
    definition = read_definition(reader, reader.position, len(reader.tokens))
    reader.position = len(reader.tokens)
    return AddColumn(definition, if_missing)


def _drop(reader: StatementReader) -> DropColumn:
    reader.accept("column")
    if_exists = _if_exists(reader)
    column = DropColumn(reader.name(), if_exists)
    reader.accept("restrict")
    return column


def _rename(reader: StatementReader) -> RenameColumn | RenameTable:
    if reader.accept("to"):
        return RenameTable(reader.name())
    reader.accept("column")
    column = reader.name()
    reader.expect("to")
    return RenameColumn(column, reader.name())


def _alter(reader: StatementReader) -> ChangeType | SetNullable | SetDefault:
    reader.accept("column")
    column = reader.name()
    if reader.words(3) == ("set", "not", "null"):
        reader.position += 3
        return SetNullable(column, nullable=False)
    if reader.words(3) == ("drop", "not", "null"):
        reader.position += 3
        return SetNullable(column, nullable=True)
    if reader.words(2) == ("set", "default"):
        reader.position += 2
        return SetDefault(column, _rest(reader))
    if reader.words(2) == ("drop", "default"):
        reader.position += 2
        return SetDefault(column, None)
    if reader.accept("set"):
        reader.expect("data")
    if not reader.accept("type"):
        raise Unsupported(f"ALTER COLUMN … {reader.word.upper()} is not supported", hint=_SUPPORTED)
    return ChangeType(column, _rest(reader))


def _rest(reader: StatementReader) -> Clause:
    """Return what is left, which has to be a type or an expression."""
    kind = reader.cut(reader.position, len(reader.tokens))
    reader.position = len(reader.tokens)
    return kind


def _if_exists(reader: StatementReader) -> bool:
    found = reader.accept("if")
    if found:
        reader.expect("exists")
    return found


_FORMS: dict[str, Callable[[StatementReader], Alteration]] = {
    "add": _add,
    "drop": _drop,
    "rename": _rename,
    "alter": _alter,
    "set": set_layout,
    "reset": reset_layout,
}
