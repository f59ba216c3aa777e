"""Check the expressions of a new access policy, before it is stored."""

from __future__ import annotations

from typing import Any

import duckdb

from lake.sql.failures import query_error
from lake.sql.guard import expression_nodes
from lake.sql.policies import TablePolicy, bound_expression, restricted_rows
from lake.sql.session import rows_of_schema
from lake.sql.volatility import volatile_names
from sennit_core.errors import Denied, SqlError, Unsupported
from sennit_core.schema import Schema

__all__ = ["check_policy"]

# Functions of the session, in addition to those of `volatile_names`.
_SESSION = frozenset(("user", "session_user", "current_catalog"))


def check_policy(request: dict[str, Any]) -> dict[str, Any]:
    """Check the rules of a new policy: step `policy` of the executor entry `lake.sql`.

    Args:
        request: `schema` of the dataset, and `rules` in the form of `TablePolicy`.
    """
    schema = Schema.from_json(request["schema"])
    for rule in request["rules"]:
        _check_rule(schema, TablePolicy.from_json(rule))
        if rule.get("write"):
            _check_writing(schema, TablePolicy.from_json(rule))
    return {}


def _check_rule(schema: Schema, policy: TablePolicy) -> None:
    """Check a rule for a dataset with these columns, and bind its expressions.

    Raises:
        SqlError: An expression is no single expression, or does not fit the columns.
        Denied: It uses a function that does more than compute.
        Unsupported: Its value would depend on something other than the row and the user.
    """
    with duckdb.connect(":memory:", config={"threads": "1", "async_threads": "1"}) as connection:
        source = f"({rows_of_schema(schema)})"
        inconstant = (volatile_names() | _SESSION) - {name.casefold() for name in schema.names}
        masks = [(f"the mask of column {name!r}", mask) for name, mask in policy.columns.items()]
        for where, text in [("rows", policy.rows), *masks]:
            if text is None:
                continue
            bound = bound_expression(text, policy)
            _check_constant(where, bound, inconstant)
            kind = _type_of(connection, where, bound, source, schema)
            if where == "rows" and kind != "BOOLEAN":
                raise SqlError(f"rows: a condition is needed, and {text[:80]!r} is {kind}")
        try:
            connection.execute(restricted_rows(source, "", schema, policy)).fetchall()
        except Denied as error:
            raise SqlError(f"the rule does not fit the dataset: {error.action}") from None


def _check_writing(schema: Schema, policy: TablePolicy) -> None:
    """Check that who may change rows cannot find out values that the rule does not show.

    Rows appear, and are refused, by the condition; a mask is computed again after each change. If one
    of them read a hidden column beside one that the user sets, the user could try values until the
    result changes, and so learn the hidden one.

    Raises:
        SqlError: The condition reads a masked or hidden column, or a mask another one that is shown.
    """
    shown = [field for field in schema.fields if field.name not in policy.columns]
    others = [field for field in schema.fields if field.name in policy.columns]
    with duckdb.connect(":memory:", config={"threads": "1", "async_threads": "1"}) as connection:
        masks = [(f"the mask of column {name!r}", mask) for name, mask in policy.columns.items()]
        for where, text in [("rows", policy.rows), *masks]:
            if text is None:
                continue
            fields = shown if where == "rows" else others
            bound = bound_expression(text, policy)
            query = f"SELECT (\n{bound}\n) FROM ({rows_of_schema(Schema(tuple(fields)))})"
            try:
                if not fields:
                    raise duckdb.BinderException("no column is left")
                connection.execute(query).fetchall()
            except duckdb.Error:
                limit = (
                    "columns that are shown as they are" if where == "rows" else "masked columns"
                )
                raise SqlError(
                    f"{where}: in a rule that may write, it can read only {limit}",
                    hint="who sets one column could find out the value of another by trying",
                ) from None


def _check_constant(where: str, text: str, inconstant: frozenset[str]) -> None:
    """Refuse functions of time and chance, so that a cached result stays right."""
    for node in expression_nodes(text):
        names = [node["function_name"]] if "function_name" in node else node.get("column_names", [])
        # DuckDB reads `current_date` as the name of a column first.
        if len(names) == 1 and (used := str(names[0]).casefold()) in inconstant:
            raise Unsupported(
                f"{where}: {used} has another value at another time",
                hint="use the columns, constants, current_user and current_role",
            )


def _type_of(
    connection: duckdb.DuckDBPyConnection, where: str, text: str, source: str, schema: Schema
) -> str:
    """Bind an expression; return its type."""
    # In WHERE, where DuckDB refuses what is no function of one row, such as sum(x) and unnest(x).
    query = f"SELECT 1 FROM {source} WHERE TRY((\n{text}\n)) IS NULL"
    kind = f"SELECT typeof(any_value(TRY((\n{text}\n)))) FROM {source}"
    try:
        connection.execute(query).fetchall()
        ((found,),) = connection.execute(kind).fetchall()
    except duckdb.Error as error:
        problem = query_error(error, query, shards=(), columns=schema.names, cap_bytes=0)
        raise SqlError(f"{where}: {problem}", hint=problem.hint) from None
    return str(found)
