"""CREATE VIEW and DROP VIEW in an executor: check and bind the query, write nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lake.sql.guard import check_statement, placeholders, table_nodes
from lake.sql.query_text import QueryText
from lake.sql.tables import Table
from lake.sql.types import quoted
from lake.sql.write_statements import CreateView, DropView
from sennit_core.errors import Conflict, Denied, NotFound, SqlError, TooLarge, Unsupported

if TYPE_CHECKING:
    from lake.sql.changing_statement import ChangingStatement

__all__ = ["create_view", "drop_view"]

_TEXT_MAX = 64 << 10
_ANOTHER_NAME = "use another name: datasets and views share their names"


def create_view(write: CreateView, statement: ChangingStatement) -> dict[str, Any]:
    """Return the response for CREATE VIEW: the text, its columns and what it reads."""
    existing = statement.find(write.table)
    if existing is not None:
        if existing.view is None:
            raise Conflict(f"a dataset named {existing.name!r} exists", hint=_ANOTHER_NAME)
        if write.if_missing:
            return {"table": existing.name, "count": 0}
        if not write.replaces:
            raise Conflict(
                f"a view named {existing.name!r} exists",
                hint="use CREATE OR REPLACE VIEW, or CREATE VIEW IF NOT EXISTS",
            )
        _check_owner(existing)
    if len(write.query.text) > _TEXT_MAX:
        raise TooLarge(f"the query of view {write.table!r}", _TEXT_MAX, len(write.query.text))
    query = QueryText("SELECT * FROM (", write.query, "\n)")
    if write.columns:
        query = QueryText(
            "SELECT * FROM (", write.query, f"\n) AS v({', '.join(map(quoted, write.columns))})"
        )
    statement.allow_unencrypted_rows()  # a view has none
    with statement.session(query) as (connection, _):
        reads = _reads(write)
        relation = statement.bind(connection, query.text)
        query.is_bound = True
        # Without rows, for names that two columns share, and types that no dataset has.
        schema = statement.columns_of(relation)
    return {
        "action": "create view",
        "table": write.table if existing is None else existing.name,
        "base": None if existing is None else existing.id,
        "query": write.query.text,
        "names": list(write.columns),
        "reads": reads,
        "schema": schema.to_json(),
        "count": 0,
    }


def drop_view(write: DropView, statement: ChangingStatement) -> dict[str, Any]:
    """Return the response for DROP VIEW."""
    existing = statement.find(write.table)
    if existing is None:
        if write.if_exists:
            return {"table": write.table, "count": 0}
        raise NotFound("view", write.table)
    if existing.view is None:
        raise SqlError(f"{existing.name!r} is a dataset", hint="use DROP TABLE")
    _check_owner(existing)
    return {"action": "drop view", "table": existing.name, "base": existing.id, "count": 0}


def _check_owner(view: Table) -> None:
    if not view.writable:
        raise Denied(f"changing view {view.name!r}", needed="its owner or an admin")


def _reads(write: CreateView) -> list[str]:
    """Return the names in the query, once for each occurrence; refuse what no view can have."""
    text = write.query.text
    found = check_statement(text)
    if found.catalog or found.explains:
        raise Unsupported("a view that reads the catalog, or explains", hint="query it directly")
    if names := placeholders(text):
        raise SqlError(f"a view cannot have parameters, such as ${min(names)}")
    listed = [node["table_name"] for node in table_nodes(text)]
    named = [name for name in listed if name in found.tables]
    return sorted([*named, *(found.tables - set(named))])
