"""Read a query into a tree in which every column names its table, and no two tables have one name.

    parse -> compare with DuckDB's tree -> whitelist -> qualify (sqlglot) -> unique names -> CTEs

What the whitelist does not know, and names that sqlglot and DuckDB might resolve differently, are
reasons to gather. CTEs that are used once, or only select and filter, become derived tables; others stay
tables of their own (`Query.ctes`), which are computed once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import sqlglot
from sqlglot import exp
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, traverse_scope

from lake.peers.sql.aggregates import aggregates_of, call_name
from lake.peers.sql.engine import Engine
from lake.peers.sql.errors import NotDistributed
from lake.peers.sql.fidelity import DIALECT, check_fidelity
from lake.peers.sql.tables import Table

__all__ = ["Query", "read_query"]

_PLAIN = (
    exp.Select,
    exp.From,
    exp.Join,
    exp.Where,
    exp.Group,
    exp.Having,
    exp.Order,
    exp.Ordered,
    exp.Limit,
    exp.Offset,
    exp.Qualify,
    exp.With,
    exp.CTE,
    exp.TableAlias,
    exp.Table,
    exp.Alias,
    exp.Subquery,
    exp.SetOperation,
    exp.Values,
    exp.Tuple,
    exp.Distinct,
    exp.Star,
    exp.Column,
    exp.Identifier,
    exp.Literal,
    exp.Boolean,
    exp.Null,
    exp.DataType,
    exp.DataTypeParam,
    exp.Paren,
    exp.Neg,
    exp.Not,
    exp.Connector,
    exp.Predicate,
    exp.Binary,
    exp.Between,
    exp.In,
    exp.Interval,
    exp.Var,
    exp.Window,
    exp.WindowSpec,
    exp.Filter,
    exp.IgnoreNulls,
    exp.WithinGroup,
    exp.Func,
    exp.Any,
    exp.All,
)
_REFUSED = (
    exp.Dot,
    exp.Lambda,
    exp.Kwarg,
    exp.Parameter,
    exp.Placeholder,
    exp.Unnest,
    exp.Explode,
    exp.Columns,
    exp.Lateral,
    exp.Pivot,
    exp.TableSample,
    exp.Rand,
    exp.Uuid,
    exp.Slice,
    exp.PropertyEQ,
)
_POSITIONS = frozenset(("line", "col", "start", "end"))
_OF_THE_VERSION = frozenset(("version", "hash"))
_REFUSED_ARGUMENTS: tuple[tuple[type[exp.Expr], tuple[str, ...], str], ...] = (
    (exp.With, ("recursive",), "a recursive CTE"),
    (exp.Distinct, ("on",), "DISTINCT ON"),
    (exp.Group, ("totals",), "GROUP BY WITH TOTALS"),
    (exp.SetOperation, ("by_name", "on"), "a set operation BY NAME"),
)


@dataclass(slots=True)
class Query:
    """A query that was read.

    Args:
        tree: Its tree.
        ctes: The queries of CTEs that are computed once, by the names that the tree has for them.
        tables: The tables, by their names in lower case.
        engine: DuckDB's answers.
        sources: The table that each name in the tree is of, where it is one of `tables`.
    """

    tree: exp.Query
    ctes: dict[str, exp.Query]
    tables: dict[str, Table]
    engine: Engine
    sources: dict[str, Table] = field(default_factory=dict)


def read_query(sql: str, tables: Sequence[Table], engine: Engine, prefix: str) -> Query:
    """Read a SELECT.

    Args:
        sql: The text, which DuckDB's parser accepts.
        tables: The tables that it may read.
        engine: DuckDB's answers.
        prefix: What names of the planner's own start with.

    Raises:
        NotDistributed: It is not understood, or not for certain.
    """
    if engine.is_volatile(sql):
        raise NotDistributed("a volatile function has another result on each node")
    try:
        tree = sqlglot.parse_one(sql, dialect=DIALECT)
    except sqlglot.errors.SqlglotError:
        raise NotDistributed("sqlglot does not read this statement") from None
    if not isinstance(tree, exp.Query):
        raise NotDistributed("it is no SELECT")
    _check_nodes(tree)
    check_fidelity(sql, tree, engine)
    named = {table.name.lower(): table for table in tables}
    _check_names(tree, named)
    columns: dict[str, object] = {
        table.name: {each.name: each.type for each in table.columns} for table in tables
    }
    try:
        tree = qualify(tree, schema=columns, dialect=DIALECT, quote_identifiers=True)
    except sqlglot.errors.SqlglotError as error:
        raise NotDistributed(f"a name is not resolved: {str(error).splitlines()[0][:80]}") from None
    _check_nodes(tree)  # once more: a name may have become a whole row
    _drop_positions(tree)
    _expand_group_all(tree, engine.aggregates)
    query = Query(tree, {}, named, engine)
    _number_aliases(query)
    _resolve_ctes(query, prefix)
    _check_columns(query)
    return query


def _drop_positions(tree: exp.Expr) -> None:
    """Remove what sqlglot notes of the text: a third of the time of each copy of a tree."""
    for node in tree.walk():
        node.comments = None
        if node._meta is not None and node._meta.keys() <= _POSITIONS:  # noqa: SLF001 - `meta` makes a dict
            node._meta = None  # noqa: SLF001


def _check_nodes(tree: exp.Expr) -> None:
    for node in tree.walk():
        if isinstance(node, _REFUSED) or not isinstance(node, _PLAIN):
            raise NotDistributed(f"{_shown(node)} is not distributed")
        for kind, arguments, reason in _REFUSED_ARGUMENTS:
            if isinstance(node, kind) and any(node.args.get(each) for each in arguments):
                raise NotDistributed(f"{reason} is not distributed")
        match node:
            case exp.Func() if call_name(node) in _OF_THE_VERSION:
                raise NotDistributed(f"{_shown(node)} depends on DuckDB's version on each node")
            case exp.Join():
                _check_join(node)
            case exp.Table():
                _check_table(node)
            case exp.Limit() | exp.Offset() if not _is_integer(node.expression):
                raise NotDistributed(f"{_shown(node)} is not distributed")
            case exp.Select():
                _check_select(node)


def _shown(node: exp.Expr) -> str:
    return node.sql(dialect=DIALECT, comments=False)[:40] or type(node).__name__


def _check_join(node: exp.Join) -> None:
    method, kind = (node.args.get("method") or "").upper(), (node.args.get("kind") or "").upper()
    if method or kind not in ("", "INNER", "CROSS", "OUTER", "SEMI", "ANTI"):
        raise NotDistributed(f"{method or kind} JOIN is not distributed")
    if not isinstance(node.this, exp.Table | exp.Subquery | exp.Values):
        raise NotDistributed(f"{_shown(node.this)} in FROM is not distributed")


def _check_table(node: exp.Table) -> None:
    if node.args.get("db") or node.args.get("catalog"):
        raise NotDistributed("a table with a schema is not distributed")
    if any(node.args.get(key) for key in ("pivots", "sample", "version", "system_time", "joins")):
        raise NotDistributed(f"{_shown(node)} is not distributed")
    if not isinstance(node.this, exp.Identifier):
        raise NotDistributed("a table function is not distributed")
    alias = node.args.get("alias")
    if alias is not None and alias.args.get("columns"):
        raise NotDistributed("names for the columns of a table are not distributed")


def _is_integer(node: exp.Expr | None) -> bool:
    return isinstance(node, exp.Literal) and not node.is_string and node.this.isdigit()


def _check_select(node: exp.Select) -> None:
    used = {key for key, value in node.args.items() if value}
    unknown = used - {
        *("with_", "expressions", "distinct", "from_", "joins", "where", "group", "having"),
        *("qualify", "order", "limit", "offset"),
    }
    if unknown:
        raise NotDistributed(f"SELECT with {min(unknown).strip('_')} is not distributed")
    if node.args.get("order") is not None and any(
        isinstance(each.this, exp.Var) for each in node.args["order"].expressions
    ):
        raise NotDistributed("ORDER BY ALL is not distributed")


def _check_names(tree: exp.Expr, tables: dict[str, Table]) -> None:
    """Refuse names that mean two things, which sqlglot and DuckDB might resolve differently."""
    _check_ctes(tree, tables)
    columns = {each.name.lower() for table in tables.values() for each in table.columns}
    aliases = Counter(each.alias.lower() for each in tree.find_all(exp.Alias))
    for select in tree.find_all(exp.Select):
        for alias in select.expressions:
            if isinstance(alias, exp.Alias):
                hides = alias.alias.lower() in columns or aliases[alias.alias.lower()] > 1
                if hides and not _is_same_name(alias) and _uses_alias(select, alias):
                    raise NotDistributed(f"the name {alias.alias} is of a column and of a result")


def _check_ctes(tree: exp.Expr, tables: dict[str, Table]) -> None:
    for cte in tree.find_all(exp.CTE):
        if cte.alias.lower() in tables:
            raise NotDistributed(f"the CTE {cte.alias} hides a table")
        if cte.args["alias"].args.get("columns"):
            raise NotDistributed("names for the columns of a CTE are not distributed")
    ctes = Counter(each.alias.lower() for each in tree.find_all(exp.CTE))
    if any(count > 1 for count in ctes.values()):
        raise NotDistributed("two CTEs have one name")


def _is_same_name(alias: exp.Alias) -> bool:
    return isinstance(alias.this, exp.Column) and alias.this.name.lower() == alias.alias.lower()


def _uses_alias(select: exp.Select, alias: exp.Alias) -> bool:
    """Whether a select mentions an alias of its own where DuckDB may mean the alias or a column.

    It means the column in WHERE, GROUP BY and the alias's own expression, and the alias as a key of
    ORDER BY.
    """
    name = alias.alias.lower()
    order = select.args.get("order")
    keys = {id(each.this) for each in order.expressions} if order is not None else set()
    parts = [each for each in select.expressions if each is not alias]
    parts += [found for key in ("having", "qualify", "order") if (found := select.args.get(key))]
    return any(
        not column.table and column.name.lower() == name and id(column) not in keys
        for part in parts
        for column in part.find_all(exp.Column)
    )


def _expand_group_all(tree: exp.Expr, aggregates: frozenset[str]) -> None:
    """Replace GROUP BY ALL by the results that are no aggregates."""
    for select in tree.find_all(exp.Select):
        group = select.args.get("group")
        if group is None or not group.args.get("all"):
            continue
        groups = []
        for each in select.expressions:
            value = each.unalias()
            found = aggregates_of(value, aggregates)
            if found == [value] or not any(True for _ in value.find_all(exp.Column, exp.Query)):
                continue
            if found or value.find(exp.Window, exp.Query):
                raise NotDistributed("GROUP BY ALL with more than aggregates and columns")
            groups.append(value.copy())
        select.set("group", exp.Group(expressions=groups) if groups else None)


def _number_aliases(query: Query) -> None:
    """Rename the tables of all FROM clauses, so that the name of a column's table is unique."""
    done: set[int] = set()
    count = 0
    # Innermost first, so a name that an inner query does not resolve is left for the outer one.
    for scope in traverse_scope(query.tree):
        names: dict[str, str] = {}
        # Not `selected_sources`, which leave out the right sides of SEMI and ANTI.
        for name, node in scope.references:
            if name in names or name not in scope.sources:
                raise NotDistributed(f"the name {name} in FROM is not resolved")
            names[name] = f"q{count}"
            count += 1
            _rename(node, names[name])
        for column in scope.columns:
            if id(column) not in done and column.table in names:
                done.add(id(column))
                column.set("table", exp.to_identifier(names[column.table], quoted=True))
        _resolve_order(scope)


def _rename(node: exp.Expr, name: str) -> None:
    owner = node if isinstance(node, exp.Table | exp.Subquery | exp.Values) else node.parent
    alias = owner.args.get("alias") if owner is not None else None
    if alias is None:
        raise NotDistributed("a table in FROM has no name")
    alias.set("this", exp.to_identifier(name, quoted=True))


def _resolve_order(scope: Scope) -> None:
    """Replace names of results in ORDER BY by what they are."""
    select = scope.expression
    order = select.args.get("order")
    if not isinstance(select, exp.Select) or order is None:
        return
    results = [
        (each.alias, each.this) for each in select.expressions if isinstance(each, exp.Alias)
    ]
    for key in order.expressions:
        if isinstance(key.this, exp.Column) and not key.this.table:
            found = {one.sql(): one for name, one in results if name == key.this.name}
            if len(found) != 1:
                raise NotDistributed(f"ORDER BY {key.this.name} is ambiguous")
            key.set("this", next(iter(found.values())).copy())


def _resolve_ctes(query: Query, prefix: str) -> None:
    """Replace CTEs by derived tables, or by names of tables that are computed once."""
    ctes: dict[str, exp.Query] = {}
    for cte in list(query.tree.find_all(exp.CTE)):
        ctes[cte.alias] = cte.this
    for node in list(query.tree.find_all(exp.With)):
        node.pop()
    uses = Counter(
        table.name for tree in (query.tree, *ctes.values()) for table in tree.find_all(exp.Table)
    )
    for name, body in ctes.items():
        if uses[name] != 1:
            query.ctes[f"{prefix}cte_{name}"] = body
    for tree in (query.tree, *ctes.values()):
        for table in list(tree.find_all(exp.Table)):
            if table.name in ctes:
                if uses[table.name] == 1:
                    alias = exp.TableAlias(this=exp.to_identifier(table.alias, quoted=True))
                    table.replace(exp.Subquery(this=ctes[table.name], alias=alias))
                else:
                    shared = exp.to_identifier(f"{prefix}cte_{table.name}", quoted=True)
                    table.set("this", shared)


def _check_columns(query: Query) -> None:
    """Check that every column names a table, and note which one."""
    for tree in (query.tree, *query.ctes.values()):
        for table in tree.find_all(exp.Table):
            if table.name in query.tables:
                query.sources[table.alias] = query.tables[table.name]
                # The name as DuckDB knows it, though it would find it in lower case too.
                table.set("this", exp.to_identifier(query.tables[table.name].name, quoted=True))
            elif table.name not in query.ctes:
                raise NotDistributed(f"{table.name} is no table of this query")
        if any(isinstance(star.parent, exp.Select) for star in tree.find_all(exp.Star)):
            raise NotDistributed("* of a subquery with two columns of one name")
        for column in tree.find_all(exp.Column):
            if column.args.get("db") or isinstance(column.this, exp.Star):
                raise NotDistributed(f"{_shown(column)} is not distributed")
            owner = column.find_ancestor(exp.Select, exp.SetOperation)
            if not column.table and not isinstance(owner, exp.SetOperation):
                raise NotDistributed(f"{_shown(column)} is not resolved")
