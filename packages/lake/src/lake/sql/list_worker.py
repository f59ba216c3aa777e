"""Choose the lists of shards that a statement needs, before any of their shards is known.

Step `lists` of the executor entry `lake.sql`. In its tables, a summary (`lake.catalog.list_summaries`) stands for each
shard. What is left out here is examined once more by the statement itself, in its own transaction
(`lake.sql.pruning`), so this step may be wrong about the time.

Response: `leftOut`, by the id of each dataset the numbers of the summaries that are not needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb

from lake.sql.guard import check_statement, open_calculator
from lake.sql.parameters import params_of
from lake.sql.pruning import prune
from lake.sql.query_text import rows_query
from lake.sql.tables import Table
from lake.sql.tables_read import used_tables
from lake.sql.write_statements import CreateTable, Delete, Insert, Merge, Update, Write, parse_write
from lake.sql.write_worker import hits_of, matches_of, reads_target
from sennit_core.errors import SennitError

__all__ = ["choose_lists", "query_of"]


def choose_lists(request: dict[str, Any]) -> dict[str, Any]:
    """Choose the lists; none are left out of a statement that has an error."""
    tables = [Table.from_json(table) for table in request["tables"]]
    try:
        write = parse_write(request["sql"])
        text, prunes = (request["sql"], _all) if write is None else query_of(write, tables)
        names = check_statement(text, frozenset(table.name for table in tables)).tables
        used = [table for table in used_tables(tables, names) if prunes(table) or table.view]
        with open_calculator() as connection:
            # Only a change can run again with all lists, if it has another time.
            params, clocks = params_of(request), write is not None
            pruned = prune(connection, text, params, used, clocks=clocks)
    except (SennitError, duckdb.Error):
        return {"leftOut": {}}  # the statement finds the error too, and reports it
    return {
        "leftOut": {
            each.id: sorted(set(range(len(whole.paths or ()))) - set(each.numbers))
            for each in pruned.tables
            for whole in tables
            if whole.id == each.id
        }
    }


def _all(_: Table) -> bool:
    return True


def query_of(write: Write, tables: list[Table]) -> tuple[str, Callable[[Table], bool]]:
    """Return the query that a change looks for its rows with, and what may be left out of it."""
    folded = write.table.casefold()
    target = next((each for each in tables if folded in (each.name.casefold(), each.id)), None)
    match write:
        case Insert() | CreateTable():
            return rows_query(write).text, _all
        case Delete() | Update() if target is not None:
            return hits_of(write, target).text, _all
        case Merge() if target is not None:
            found = target
            may_prune = not reads_target(write, found, tables)
            text = matches_of(write, found).text
            return text, lambda table: may_prune and table.id == found.id
    return "SELECT 1", _all
