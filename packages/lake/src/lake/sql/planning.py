"""Convert a statement to an EM-√ plan: checked as for DuckDB, over shards of datasets only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emsqrt.plan import Files, Plan, Rename, Scan, Sink, StreamTarget, Union, plan_to_json
from emsqrt.plan.tree import scans_of
from emsqrt.sql_plan import sql
from lake.catalog.file_schemas import rows_of_files
from lake.sql.guard import check_statement, open_calculator
from lake.sql.parameters import params_of
from lake.sql.pruning import prune
from lake.sql.tables import Table
from lake.sql.tables_read import used_tables
from lake.sql.view_query import ViewQuery
from sennit_core.errors import InternalError, Unsupported

if TYPE_CHECKING:
    from emsqrt.executor import EntryContext

__all__ = ["plan_query"]


def plan_query(request: dict[str, Any], context: EntryContext) -> dict[str, Any]:
    """Convert a statement to a plan.

    Returns:
        `plan` (JSON, with a stream sink), `inputs` (ids of the snapshots it reads) and `shards`
        (their files, to be verified before the plan runs).

    Raises:
        SqlError, Denied, NotFound: As for DuckDB.
        Unsupported: EM-√ does not support the statement.
    """
    del context
    tables = [Table.from_json(table) for table in request["tables"]]
    text = request["sql"]
    # The same check as for DuckDB, before EM-√'s own parser (sqlglot) sees the text: a statement
    # that is refused by one engine must not be answered by the other.
    statement = check_statement(text, frozenset(table.name for table in tables))
    if statement.explains or statement.catalog:
        raise Unsupported(
            "EM-√ answers SELECT statements over datasets",
            hint="use engine=auto for EXPLAIN, SHOW and DESCRIBE",
        )
    used = used_tables(tables, statement.tables)
    linked = next((table.name for table in used if table.link is not None), None)
    if linked is not None:
        raise Unsupported(
            f'EM-√ reads shards, and dataset "{linked}" is linked to a file that is not ingested yet',
            hint="use engine=duckdb, or wait until its ingest job is done",
        )
    if any(table.policy is not None for table in used):
        raise Unsupported(
            "EM-√ does not apply access policies", hint="use engine=duckdb, which does"
        )
    # Names resolve to exactly these sources; `sql` is not called with `files=True`, so no name can
    # be read as a path.
    used = _pruned(used, text, request)
    sources: dict[str, Plan] = {}
    for table in used:  # a view comes after what it reads
        source = _source(table) if table.view is None else _view(table.view, sources)
        sources |= dict.fromkeys((table.name, table.id), source)
    plan = sql(text, sources, params_of(request)).plan
    # Such a plan reads an empty placeholder file, which `_check_sources` would report as an
    # internal error.
    _refuse_no_from(plan)
    _check_sources(plan, used)
    return {
        "plan": plan_to_json(Sink(plan, StreamTarget("arrow"))),
        "inputs": [table.snapshot for table in used if table.snapshot is not None],
        # Verified by the process that runs the plan, just before it opens them.
        "shards": [shard.to_json() for table in used for shard in table.shards],
    }


def _pruned(used: list[Table], text: str, request: dict[str, Any]) -> list[Table]:
    """Return the datasets without shards that the query needs no row of."""
    if not any(table.statistics for table in used):
        return used
    with open_calculator() as connection:
        # The plan runs later, so it has another time than this transaction.
        pruned = prune(connection, text, params_of(request), used, clocks=False)
        return pruned.of(used)


def _view(view: ViewQuery, sources: dict[str, Plan]) -> Plan:
    query = sql(view.sql, sources)
    if not view.columns:
        return query.plan
    names = zip(query.schema().names, view.columns, strict=False)
    return Rename(query.plan, tuple((old, new) for old, new in names if old != new))


def _source(table: Table) -> Plan:
    parts = [
        rows_of_files(Files(paths, "parquet"), table.schema, columns)
        for columns, paths in table.files()
    ]
    # A dataset without shards keeps an empty list of files here; `lake.sql.external` replaces it.
    if not parts:
        return Scan(Files((), "parquet"), table.schema)
    return parts[0] if len(parts) == 1 else Union(tuple(parts))


def _refuse_no_from(plan: Plan) -> None:
    """Refuse a SELECT without FROM, also below another SELECT: it reads no shard."""
    from emsqrt.sql_plan.sources import EMPTY_FILE

    sources = [scan.source for scan in scans_of(plan)]
    if any(isinstance(each, Files) and each.paths == (EMPTY_FILE,) for each in sources):
        raise Unsupported("EM-√ answers SELECT statements over datasets")


def _check_sources(plan: Plan, used: list[Table]) -> None:
    """Check, as a second line of defense, that the plan reads only these shards."""
    shards = {paths for table in used for _, paths in table.files()} | {()}
    for scan in scans_of(plan):
        if not isinstance(scan.source, Files) or scan.source.paths not in shards:
            raise InternalError("a plan made from SQL reads something other than datasets")
