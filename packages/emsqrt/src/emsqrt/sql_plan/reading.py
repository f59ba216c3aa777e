"""Convert a statement's text, and the tables it may read, to a pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from emsqrt.pipeline import Pipeline, scan
from emsqrt.plan import Plan, Scan, check
from emsqrt.plan.tree import scans_of
from sennit_core.errors import SqlError, TooLarge, Unsupported, UsageError
from sennit_core.extras import install_hint

TEXT_CHARS_MAX = 65_536

Source: TypeAlias = Pipeline | Plan | str | Path


def sql(
    text: str,
    tables: Mapping[str, Source] | None = None,
    params: Sequence[Any] | Mapping[str, Any] | None = None,
    *,
    files: bool = False,
) -> Pipeline:
    """Return the pipeline of a SELECT in DuckDB's dialect.

    `sql("SELECT uid, sum(amount) AS total FROM logs GROUP BY uid", {"logs": "logs.csv"})`. The
    covered subset is in docs/sql.md; every expression has the meaning of `emsqrt.expr`.

    Args:
        text: one statement.
        tables: the table of each name: a pipeline, a plan, or a file's path. The schema of a file
            is inferred from its first bytes.
        params: values for `?` and `$1` in order, or for `$name` by name; they become constants.
        files: whether FROM may name files too: `FROM 'logs.csv'`, `FROM read_csv('logs.txt')`.
            Leave it off for untrusted statements: they could read any file of this process.

    Raises:
        NotFound: there is no such file.
        SqlError: it does not parse, or a name is unknown; with line and column.
        Unsupported: a construct that is not covered, with its name and position; or sqlglot is not
            installed.
        TypeMismatch, UnknownColumn: as `emsqrt.plan.check`.
    """
    if len(text) > TEXT_CHARS_MAX:
        raise TooLarge(what="SQL", limit_bytes=TEXT_CHARS_MAX, actual_bytes=len(text.encode()))
    try:
        import sqlglot
    except ImportError:
        hint = install_hint("sennit-emsqrt", "sqlglot")
        raise Unsupported("SQL needs sqlglot", hint=hint) from None
    from emsqrt.sql_plan.ordered_sets import plain_aggregates
    from emsqrt.sql_plan.parameters import bind, parse_statements
    from emsqrt.sql_plan.query import query_plan

    try:
        statements = parse_statements(text)
    except sqlglot.errors.SqlglotError as error:
        raise _unparsed(error) from None
    except RecursionError:
        raise SqlError("the statement is nested too deep") from None
    if len(statements) != 1 or statements[0] is None:
        count = sum(statement is not None for statement in statements)
        raise SqlError(f"expected one statement, found {count}")
    known = {name: _plan(source) for name, source in (tables or {}).items()}
    statement = plain_aggregates(bind(statements[0], params, text), text)
    if files:
        from emsqrt.sql_plan.files import file_tables

        known |= file_tables(statement, known, text)
    plan = query_plan(statement, known, text)
    check(plan)
    return Pipeline(plan)


def _unparsed(error: Exception) -> SqlError:
    details = getattr(error, "errors", None) or [{}]
    first = details[0]
    line, column = first.get("line"), first.get("col")
    place = f"line {line}, column {column}: " if line else ""
    reason = str(first.get("description") or error).splitlines()[0]
    return SqlError(f"{place}{reason}", line=line, column=column)


def _plan(source: Source) -> Plan:
    """Return a table's plan, with the schemas of its scans resolved."""
    plan = scan(source).plan if isinstance(source, str | Path) else source
    plan = plan.plan if isinstance(plan, Pipeline) else plan
    if not isinstance(plan, Plan):
        raise UsageError(f"a table is a pipeline, a plan or a path, not {source!r}"[:200])
    if any(isinstance(each, Scan) and each.schema is None for each in scans_of(plan)):
        from emsqrt.planner import find_schema

        return find_schema(plan, Path())
    return plan
