"""Check that a SQL statement only reads the datasets it names.

DuckDB's own parser is used, so there is no second grammar that could disagree: the statement's
syntax tree is requested as JSON and walked, and everything that is not known to be harmless is
refused. Node kinds and table functions are checked against allow-lists (only so a data-modifying
CTE is found, as in `WITH x AS (COPY t TO 'file') SELECT 1`, whose kind is SELECT); scalar functions
against a deny-list. `lake.sql.session` is a second line of defense.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import duckdb

from lake.sql.failures import syntax_error
from lake.sql.pivots import with_named_values
from lake.sql.volatility import is_volatile
from lake.statements.mentions import EXPLAIN, split_explain
from sennit_core.errors import Denied, SqlError, Unsupported

__all__ = [
    "Statement",
    "analyzes",
    "check_statement",
    "compute",
    "explained_query",
    "expression_nodes",
    "expression_text",
    "open_calculator",
    "open_parser",
    "own_nodes",
    "query_nodes",
    "statement_kinds",
    "table_nodes",
]

_TREE_DEPTH_MAX = 8000
_REMEMBERED = 256
_REMEMBERED_TEXT_MAX = 8 << 10
"""Number of cached check results, and longest cached text: at most 2 MiB of text."""
_NUMBER = re.compile(rb"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")
_READING = "one SELECT, WITH, FROM, VALUES, SHOW TABLES, DESCRIBE, EXPLAIN or SUMMARIZE"
# Parsing needs no threads, and the stacks of idle ones would count towards the process's cap.
_PARSER = {"threads": "1", "async_threads": "1", "memory_limit": "256MB"}
# Allow-lists: a node kind or a table function that a later version of DuckDB adds is refused until
# someone has checked it and adds it here.
_NODES = frozenset(
    ("SELECT_NODE", "SET_OPERATION_NODE", "CTE_NODE", "RECURSIVE_CTE_NODE", "STATEMENT_NODE")
)
_TABLE_FUNCTIONS = frozenset(
    (
        "range",
        "generate_series",
        "unnest",
        "repeat",
        "repeat_row",
        "json_each",
        "json_tree",
        "duckdb_functions",
        "duckdb_types",
        "duckdb_keywords",
        "pg_timezone_names",
        "icu_calendar_names",
    )
)
# A deny-list, because DuckDB has some 900 scalar functions that only compute (`design/0050`).
_SCALAR_FUNCTIONS = frozenset(
    (
        # Read the process's environment, settings, or state that an earlier query could have left.
        "getenv",
        "current_setting",
        "getvariable",
        "nextval",
        "currval",
        "setval",
        # Occupy an executor, or write to its log.
        "sleep_ms",
        "pg_sleep",
        "write_log",
        "parse_duckdb_log_message",
        # Show definitions: that of a view contains the paths of shards.
        "pg_get_viewdef",
        "pg_get_expr",
        "pg_get_constraintdef",
        # Shows the least and greatest value in the files, which a policy may hide.
        "stats",
        "inet_client_addr",
        "inet_server_addr",
        "inet_client_port",
        "inet_server_port",
        "add_parquet_key",
        "invoke",
        "which_secret",
        # Read what a string names. The tree shows only the string, so this walk could not check it.
        "query",
        "query_table",
        "glob",
    )
)
_REFUSED_PREFIXES = ("__internal", "read_", "parquet_", "pragma_", "sniff_", "copy_", "pg_read")
_CATALOG_TABLES = frozenset(("tables", "columns", "schemata"))
# What DuckDB's parser makes of SHOW TABLES and its variants, as the name of a table.
_SHOWN = frozenset(("tables", "databases", "schemas", "alltables", "__show_tables_expanded"))
_DESCRIBING = ("DESCRIBE", "SHOW")  # and not SUMMARY, which reads rows
# What an expression of a policy may not have: its value would depend on more than the row.
_NOT_IN_EXPRESSIONS = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "PARAMETER": "a parameter",
    "STAR": "a star",
}
# DuckDB opens a table name that it does not know as a file if the name looks like one. External
# access is off as well, but here the error can name the solution.
_LIKE_A_FILE = re.compile(
    r"[/\\*?]|://|\.(csv|tsv|parquet|json|ndjson|txt|db|duckdb|gz|arrow)$", re.IGNORECASE
)


@dataclass(frozen=True)
class Statement:
    """A statement that passed the check.

    Args:
        tables: Names of the tables it reads, without CTEs, as written, without catalog and schema.
        catalog: Whether it queries the catalog of tables and columns.
        explains: Whether its result is a query plan or profile.
        volatile: Whether it may have another result when it runs again over the same data.
        describes: Whether it reads columns of tables (DESCRIBE), and no row of any.
        form: Its text without numbers, if it is one SELECT that DuckDB runs as it is written; else ().
    """

    tables: frozenset[str]
    catalog: bool
    explains: bool
    volatile: bool
    describes: bool = False
    form: tuple[bytes, ...] = field(default=(), compare=False)

    @property
    def repeatable(self) -> bool:
        """Whether its result depends only on the text, the parameters and the tables' snapshots."""
        return not (self.catalog or self.explains or self.volatile)


def check_statement(sql: str, known: frozenset[str] = frozenset()) -> Statement:
    """Parse one statement and refuse all but read-only ones.

    Args:
        sql: The text.
        known: Names of datasets, which may look like file names.

    Raises:
        SqlError: It does not parse (with line, column and offset), or is not one statement.
        Denied: It would write, configure, or read something other than datasets.
        Unsupported: DuckDB cannot serialize the tree of this statement.
    """
    # The cache's memory is bounded only if each text is.
    if len(sql) > _REMEMBERED_TEXT_MAX:
        return _check(sql, known)
    return _remembered(_Text(_without_numbers(sql), sql), known)


@dataclass(frozen=True)
class _Text:
    """A statement's text as a cache key; texts that differ only in numbers are equal."""

    pieces: tuple[bytes, ...]
    # Not part of the key: any text with the same pieces has the same result.
    sql: str = field(compare=False)


@lru_cache(maxsize=_REMEMBERED)
def _remembered(text: _Text, known: frozenset[str]) -> Statement:
    """Check a text, with a cache, because parsing costs more than a small query.

    The result depends only on the arguments, and not on the values of numbers: they do not affect
    which tables and functions a statement uses. DuckDB refuses an invalid number at binding.
    """
    statement = _check(text.sql, known)
    # A PIVOT is several statements, and EXPLAIN, SHOW and DESCRIBE are not for repetition.
    shows = statement.catalog or statement.describes
    is_plain = statement_kinds(text.sql) == ["SELECT"] and not shows
    return replace(statement, form=text.pieces) if is_plain else statement


def _without_numbers(sql: str) -> tuple[bytes, ...]:
    """Return the text before, between and after the numbers, using DuckDB's tokenizer."""
    text = sql.encode("utf-8", "surrogatepass")
    try:
        tokens = duckdb.tokenize(sql)
    except (duckdb.Error, UnicodeError):
        # A text that the tokenizer refuses is its own key; parsing it reports the error.
        return (text,)
    pieces = []
    start = 0
    for offset, kind in tokens:
        number = _NUMBER.match(text, offset) if kind == duckdb.token_type.numeric_const else None
        if number is not None:
            pieces.append(text[start:offset])
            start = number.end()
    return (*pieces, text[start:])


def _check(sql: str, known: frozenset[str]) -> Statement:
    try:
        statements = _parser().extract_statements(sql)
    except duckdb.Error as error:
        raise syntax_error(error, sql) from None
    # Of several statements, the first could end the read-only transaction in which the next runs.
    if len(statements) != 1:
        found = f"{len(statements)} statements" if statements else "no statement"
        raise SqlError(f"{found}; send {_READING}", line=1, column=1, offset=0)
    kind = _kind(statements[0])
    text = sql
    # `json_serialize_sql` has no tree for EXPLAIN; what it explains is checked instead.
    # That of a PIVOT whose columns come from the data is several statements to DuckDB.
    explains = kind == "EXPLAIN" or (kind == "MULTI" and EXPLAIN.match(sql) is not None)
    if explains:
        text = sql[_explained(sql) :]
        kind = _kind_of(text)
    # DuckDB expands a PIVOT whose columns come from the data to several statements.
    if kind == "MULTI":
        # Without a space at the start, from which the tokenizer does not count.
        text, kind = _named_pivot(text.lstrip())
    if kind != "SELECT":
        raise Denied(
            f"{kind.replace('_', ' ')} statements",
            needed=f"{_READING}; or a statement that changes datasets (docs/changing-data.md)",
        )
    tree = tree_of(text)
    if tree["error"]:
        raise Unsupported(f"this form of statement is not supported ({tree['error_message']})")
    walk = _Walk(known)
    walk.visit(tree["statements"])
    volatile = is_volatile(_nodes(tree))
    describes = not explains and _describes(tree)
    return Statement(frozenset(walk.tables), walk.catalog, explains, volatile, describes)


def _named_pivot(sql: str) -> tuple[str, str]:
    """Return a PIVOT with its columns named, and its kind."""
    named = with_named_values(sql)
    kind = "MULTI"
    with suppress(duckdb.Error):
        kind = ",".join(statement_kinds(named))
    if kind != "SELECT":
        raise Unsupported(
            "this PIVOT whose columns come from the data is not supported",
            hint="name them: PIVOT t ON c IN ('a', 'b') USING sum(x)",
        )
    return named, kind


def statement_kinds(sql: str) -> list[str]:
    """Parse a text and return the kind of each of its statements, such as `SELECT` or `INSERT`.

    Raises:
        duckdb.Error: It does not parse.
    """
    return [_kind(statement) for statement in _parser().extract_statements(sql)]


def placeholders(sql: str) -> frozenset[str]:
    """Return the names of a statement's placeholders; those of `?` and `$1` are numbers.

    Raises:
        duckdb.Error: It does not parse.
    """
    return frozenset(
        name
        for statement in _parser().extract_statements(sql)
        for name in statement.named_parameters
    )


def table_nodes(sql: str) -> list[dict[str, Any]]:
    """Return the nodes of a query's tree that name a table, in no order.

    Raises:
        SqlError: It does not parse.
        Unsupported: It is no query.
    """
    try:
        tree = tree_of(sql)
    except duckdb.Error as error:
        raise syntax_error(error, sql) from None
    if tree["error"]:
        return []  # `check_statement` says why
    return [node for node in _nodes(tree) if node.get("type") == "BASE_TABLE"]


def expression_nodes(text: str) -> list[dict[str, Any]]:
    """Check that a text is one expression over the columns of one row; return the nodes of its tree.

    Raises:
        SqlError: It does not parse, or is something else, such as two expressions.
        Denied: It uses a function that does not only compute.
        Unsupported: It has a subquery, a window function or a parameter.
    """
    query = f"SELECT (\n{text}\n)"
    check_statement(query)
    (statement,) = tree_of(query)["statements"]
    node = dict(statement["node"])
    expressions = node.pop("select_list", ())
    # Brackets in the text may close those around it, and go on with another clause.
    bare = dict(tree_of("SELECT 1")["statements"][0]["node"])
    del bare["select_list"]
    if node != bare or len(expressions) != 1:
        raise SqlError(f"{text[:80]!r} is no single expression")
    nodes = list(_nodes(expressions))
    for each in nodes:
        if found := _NOT_IN_EXPRESSIONS.get(each.get("class", "")):
            raise Unsupported(
                f"{found} in {text[:80]!r}", hint="use the columns of the row, and constants"
            )
    return nodes


def query_nodes(sql: str) -> list[dict[str, Any]]:
    """Return the nodes of the tree of a query, or of the one that EXPLAIN explains."""
    tree = tree_of(explained_query(sql))
    return [] if tree["error"] else list(_nodes(tree["statements"]))


def own_nodes(sql: str) -> list[dict[str, Any]]:
    """Return the nodes of a query's expressions, without those of subqueries in them."""
    tree = tree_of(sql)
    return [] if tree["error"] else list(_nodes(tree["statements"], enters=_is_in_place))


def expression_text(node: dict[str, Any]) -> str | None:
    """Return the text of an expression's tree; None if DuckDB cannot write it.

    Its placeholders get the letter `p` before their names, so that those with numbers have names.
    """
    (statement,) = tree_of("SELECT 1")["statements"]
    named = json.loads(json.dumps(node))
    for each in _nodes(named):
        if each.get("class") == "PARAMETER":
            each["identifier"] = f"p{each['identifier']}"
    node = {**statement["node"], "select_list": [named]}
    tree = json.dumps({"error": False, "statements": [{**statement, "node": node}]})
    try:
        text = _parser().execute("SELECT json_deserialize_sql(?)", [tree]).fetchall()[0][0]
    except duckdb.Error:
        return None
    return f"({text.removeprefix('SELECT ')})"


def explained_query(sql: str) -> str:
    """Return the query that EXPLAIN explains, any other statement as it is."""
    return split_explain(sql)[1]


def analyzes(sql: str) -> bool:
    """Return whether an EXPLAIN runs the query, to show its profile."""
    return "analy" in split_explain(sql)[0].casefold()


def compute(expression: str) -> Any:
    """Return the value of an expression without tables, subqueries, columns and parameters.

    Raises:
        SqlError: It does not parse, or is no such expression.
        Denied: It uses a function that does not only compute.
        duckdb.Error: It has no value.
    """
    query = f"SELECT {expression}"
    check_statement(query)
    # A subquery may read a table function, and count for as long as it likes.
    if any(node.get("class") == "SUBQUERY" for node in _nodes(tree_of(query))):
        raise SqlError(f"{expression} has a subquery", hint="write a constant")
    return _parser().execute(query).fetchall()[0][0]


@contextmanager
def open_calculator() -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection, in a transaction, to a locked database without tables, for expressions."""
    with closing(open_parser()) as connection:
        connection.execute("BEGIN TRANSACTION READ ONLY")
        yield connection


@lru_cache(maxsize=1)
def _parser() -> duckdb.DuckDBPyConnection:
    """Return a database for parsing, and for expressions; it has no tables."""
    parser = duckdb.connect(":memory:", config=_PARSER)
    parser.execute("SET python_enable_replacements = false")
    parser.execute("SET enable_external_access = false")
    parser.execute("SET GLOBAL TimeZone = 'UTC'")
    # Last, as it prevents the statements above.
    parser.execute("SET lock_configuration = true")
    return parser


def open_parser() -> duckdb.DuckDBPyConnection:
    """Open a connection for binding: it reaches no data, and its temporary tables end with it."""
    return _parser().cursor()


def tree_of(text: str) -> Any:
    """Return the syntax tree of a statement, as of `json_serialize_sql`; not to be changed.

    Raises:
        SqlError: It is nested too deeply.
        duckdb.Error: It does not parse.
    """
    # Several checks of one statement look at it, one after the other.
    return _tree_of(text) if len(text) > _REMEMBERED_TEXT_MAX else _last_tree_of(text)


def _tree_of(text: str) -> Any:
    """Python's recursion limit must not be below DuckDB's."""
    tree = _parser().execute("SELECT json_serialize_sql(?)", [text]).fetchall()[0][0]
    usual = sys.getrecursionlimit()
    # The limit applies to the whole interpreter, so it is restored.
    sys.setrecursionlimit(max(usual, _TREE_DEPTH_MAX))
    try:
        return json.loads(tree)
    except RecursionError:
        raise SqlError("the statement is nested too deeply") from None
    finally:
        sys.setrecursionlimit(usual)


_last_tree_of = lru_cache(maxsize=4)(_tree_of)


def _explained(sql: str) -> int:
    match = EXPLAIN.match(sql)
    if match is None:
        raise Unsupported("EXPLAIN must be the first word of the statement")
    return match.end()


def _kind_of(text: str) -> str:
    try:
        statements = _parser().extract_statements(text)
    except duckdb.Error:
        raise Unsupported("this form of EXPLAIN is not supported") from None
    return _kind(statements[0]) if len(statements) == 1 else "MULTI"


def _kind(statement: duckdb.Statement) -> str:
    try:
        return str(statement.type.name)
    except ValueError:  # DuckDB has more kinds than its Python module has names
        return "SUCH"


class _Walk:
    """Visits the whole tree; collects tables and refuses nodes that are not allowed."""

    def __init__(self, known: frozenset[str]) -> None:
        self.tables: set[str] = set()
        self.catalog = False
        self._known = frozenset(name.casefold() for name in known)

    def visit(self, tree: Any) -> None:
        # CTE names are collected from the whole tree first, without their scopes. A dataset with
        # the name of a CTE in another part of the statement then gets no view, so it is not found.
        # A file with such a name cannot be opened either: external access is off.
        nodes = list(_nodes(tree))
        ctes = {
            entry["key"].casefold()
            for node in nodes
            for entry in (node.get("cte_map") or {}).get("map", ())
        }
        ctes |= {node["cte_name"].casefold() for node in nodes if node.get("cte_name")}
        for node in nodes:
            self._check_node(node, ctes)

    def _check_node(self, node: dict[str, Any], ctes: set[str]) -> None:
        kind = node.get("type")
        # This finds a CTE that modifies data: its statement's kind is SELECT.
        if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _NODES:
            word = kind.removesuffix("_NODE").removesuffix("_QUERY")
            raise Denied(f"{word} inside a query", needed=_READING)
        if kind == "BASE_TABLE":
            self._check_table(node, ctes)
        elif kind == "TABLE_FUNCTION":
            self._check_table_function(node["function"])
        elif kind == "SHOW_REF":
            self._check_show(node)
        if "function_name" in node:
            _check_function(node)

    def _check_table(self, node: dict[str, Any], ctes: set[str]) -> None:
        path = [part.casefold() for part in (node.get("qualified_name") or {}).get("path", ())]
        name = node["table_name"]
        if len(path) > 1 and path[-2] == "information_schema":
            if path[-1] not in _CATALOG_TABLES:
                raise Denied(f"reading information_schema.{path[-1]}", needed="tables or columns")
            self.catalog = True
            return
        # `lake.sql.history` replaces the clause before a statement runs.
        if node.get("at_clause"):
            raise Unsupported(f"AT is not supported for {name!r}", hint="use it with a dataset")
        # A qualified name never refers to a CTE.
        if name.casefold() not in ctes or len(path) > 1:
            self._check_name(name)

    def _check_name(self, name: str) -> None:
        if name.casefold() not in self._known and _LIKE_A_FILE.search(name):
            raise Denied(
                f"reading the file {name!r}",
                needed="a dataset",
                hint="upload the file, then use the dataset's name in SQL",
            )
        self.tables.add(name)

    def _check_table_function(self, function: dict[str, Any]) -> None:
        name = function.get("function_name", "").casefold()
        if name not in _TABLE_FUNCTIONS:
            raise Denied(
                f"the table function {name}",
                needed="a dataset",
                hint="SQL cannot read files or settings of the node; upload a file first",
            )

    def _check_show(self, node: dict[str, Any]) -> None:
        if node.get("query") is None:
            shown = node.get("table_name", "")
            # SHOW TABLES arrives here as the name "tables" with its quotes, SHOW ALL TABLES as
            # __show_tables_expanded without any.
            if shown.startswith('"') and shown.endswith('"'):
                shown = shown[1:-1].replace('""', '"')
            if shown.casefold() in _SHOWN:
                self.catalog = True
            else:
                self._check_name(shown)


def _check_function(node: dict[str, Any]) -> None:
    name = str(node["function_name"]).casefold()
    if name in _SCALAR_FUNCTIONS or name.startswith(_REFUSED_PREFIXES):
        raise Denied(f"the function {name}", needed="a function that only computes")


def _describes(tree: Any) -> bool:
    """Return whether a statement describes tables, and names none outside of that."""
    found = [node.get("type") for node in _nodes(tree, enters=_is_read)]
    return "SHOW_REF" in found and "BASE_TABLE" not in found


def _is_read(node: dict[str, Any]) -> bool:
    return node.get("show_type") not in _DESCRIBING


def _is_in_place(node: dict[str, Any]) -> bool:
    return node.get("class") != "SUBQUERY"


def _nodes(
    tree: Any, enters: Callable[[dict[str, Any]], bool] = lambda _: True
) -> Iterator[dict[str, Any]]:
    """Yield all objects of the tree, without recursion: trees of long expressions are deep.

    Args:
        tree: The tree.
        enters: Whether to go on below an object.
    """
    waiting = [tree]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            if enters(item):
                waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
