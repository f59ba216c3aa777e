"""ALTER TABLE: check a change of columns, which the node then makes (`lake.writes.schema_changes`)."""

from __future__ import annotations

from typing import Any

from lake.sql.alter_statements import (
    AddColumn,
    Alteration,
    ChangeType,
    DropColumn,
    RenameColumn,
    RenameTable,
    SetDefault,
    SetNullable,
)
from lake.sql.changing_statement import (
    ChangingStatement,
    check_storable,
    query_for_columns,
    storable,
)
from lake.sql.column_definitions import ColumnDefinition
from lake.sql.defaults import check_default, no_encrypted_default
from lake.sql.layout_clauses import ResetLayout, SetLayout
from lake.sql.query_text import QueryText
from lake.sql.statement_reader import Clause
from lake.sql.tables import Table
from lake.sql.types import column_types, quoted
from lake.writes.schema_changes import find_column
from sennit_core.errors import SqlError, Unsupported
from sennit_core.schema import DataType

__all__ = ["change_of"]


def change_of(
    alteration: Alteration, target: Table, statement: ChangingStatement
) -> dict[str, Any]:
    """Return the change as `lake.writes.schema_changes` has it."""
    match alteration:
        case AddColumn(definition, if_missing):
            kind_name = _type_of(definition, statement)
            return {
                "do": "add",
                "column": definition.name,
                "type": kind_name,
                "if_missing": if_missing,
            }
        case DropColumn(column, if_exists):
            return {"do": "drop", "column": column, "if_exists": if_exists}
        case RenameColumn(column, to):
            return {"do": "rename", "column": column, "to": to}
        case RenameTable(to):
            return {"do": "rename table", "to": to}
        case ChangeType(column, kind):
            found = _type_of(ColumnDefinition(column, kind), statement)
            return {"do": "type", "column": column, "type": found}
        case SetNullable() | SetDefault():
            return _change_of_column(alteration, target, statement)
        case SetLayout(kind, fields):
            return {"do": kind, "fields": fields}
        case ResetLayout(kind):
            return {"do": kind, "fields": ()}


def _change_of_column(
    alteration: SetNullable | SetDefault, target: Table, statement: ChangingStatement
) -> dict[str, Any]:
    column = alteration.column
    if isinstance(alteration, SetDefault):
        default = alteration.default
        sql = None if default is None else _default_of(column, default, target, statement)
        return {"do": "default", "column": column, "sql": sql}
    if not alteration.nullable:
        _check_no_null(column, target, statement)
    return {"do": "nullable", "column": column, "nullable": alteration.nullable}


def _default_of(
    column: str, default: Clause, target: Table, statement: ChangingStatement
) -> str | None:
    field = target.schema.fields[find_column(target.schema, column)]
    sql = check_default(field.name, column_types(target.schema)[field.name], default, statement)
    if sql is not None and target.encrypted:
        raise no_encrypted_default(target.name)
    return sql


def _type_of(definition: ColumnDefinition, statement: ChangingStatement) -> str:
    column = definition.name
    if definition.default is not None:
        raise Unsupported(
            f"column {column!r} with a default at once: rows that exist have no value in a new column",
            hint=f"ADD COLUMN without it, UPDATE the rows, then ALTER COLUMN {column} SET DEFAULT",
        )
    query, required = query_for_columns([definition])
    if required:
        raise Unsupported(
            f"column {column!r} as NOT NULL at once",
            hint="rows that exist have no value in a new column: fill it by UPDATE, and then "
            f"ALTER TABLE … ALTER {column} SET NOT NULL",
        )
    with statement.session(query) as (connection, _):
        relation = statement.bind(connection, query.text)
        query.is_bound = True
        check_storable(relation)
        ((field),) = storable(relation.to_arrow_table().schema)
    return str(DataType.from_arrow(field.type))


def _check_no_null(column: str, target: Table, statement: ChangingStatement) -> None:
    field = target.schema.fields[find_column(target.schema, column)]
    if field.type.name in ("List", "Struct"):
        raise Unsupported(f"NOT NULL for a column of the type {field.type}")
    name = quoted(field.name)
    query = QueryText(f"SELECT count(*) FROM {quoted(target.name)} WHERE {name} IS NULL")
    with statement.session(query) as (connection, _):
        ((nulls,),) = connection.execute(query.text).fetchall()
    if nulls:
        raise SqlError(
            f"column {field.name!r} has no value in {nulls} rows",
            hint=f"UPDATE … SET {field.name} = … WHERE {field.name} IS NULL gives them one",
        )
