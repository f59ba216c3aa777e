"""Rows of a query as files for a plan: of a view, or of what a policy shows of a dataset.

EM-√ neither runs all of SQL nor applies policies. So DuckDB writes the rows of such a source as Parquet
files first, in the process that runs the plan after it: into the folder of the run, or into memory if
encrypted datasets are read.

A source in a request: `sql`, `tables` and `plain` as of `lake.sql.write_worker`, `space`, and `name`, the
path of the files in the plan before they exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsqrt.plan import Files, Plan, Scan, plan_from_json, plan_to_json, rewrite
from lake.sql.changing_statement import ChangingStatement, check_storable
from lake.sql.query_text import QueryText
from sennit_core.errors import StorageFull
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext

__all__ = ["columns_of_source", "with_written_sources"]


def columns_of_source(source: dict[str, Any], context: EntryContext) -> Schema:
    """Return the columns of a source, without reading a row.

    Raises:
        SqlError: A view cannot be used any more.
        Unsupported: A column has a type that no dataset has.
    """
    statement = _statement(source, context.spill_dir, context)
    with statement.session(QueryText(source["sql"])) as (connection, _):
        return statement.columns_of(statement.bind(connection, source["sql"]))


def with_written_sources(
    plan: Mapping[str, Any], sources: Sequence[dict[str, Any]], context: EntryContext
) -> dict[str, Any]:
    """Return a plan with files of the rows of its sources.

    Args:
        plan: The plan's JSON.
        sources: What it reads.
        context: The process.
    """
    files = {source["name"]: _write(source, context) for source in sources}

    def bound(node: Plan) -> Plan:
        if isinstance(node, Scan) and isinstance(node.source, Files):
            (*_, path) = node.source.paths
            if path in files:
                return Scan(Files(files[path], "parquet"), node.schema, node.columns)
        return node

    return plan_to_json(rewrite(plan_from_json(plan), bound))


def _statement(source: dict[str, Any], folder: Path, context: EntryContext) -> ChangingStatement:
    statement = ChangingStatement({"params": None, **source, "folder": str(folder)}, context)
    statement.allow_unencrypted_rows()  # the folder is in memory then
    return statement


def _write(source: dict[str, Any], context: EntryContext) -> tuple[str, ...]:
    memory = source.get("plain")
    folder = Path(context.spill_dir if memory is None else memory["folder"]) / source["name"]
    folder.mkdir(mode=0o700, parents=True)
    statement = _statement(source, folder, context)
    try:
        with statement.session(QueryText(source["sql"])) as (connection, _):
            relation = statement.bind(connection, source["sql"])
            check_storable(relation)
            return tuple(str(shard.path) for shard in statement.write(relation))
    except StorageFull as error:
        if memory is None:
            raise
        raise StorageFull(
            "the memory for decrypted data",
            error.needed_bytes,
            message="the rows of a view, or what a policy shows of an encrypted dataset, exceed "
            "what security.plain_bytes leaves",
            hint="raise security.plain_bytes, or run the query with SQL",
        ) from None
