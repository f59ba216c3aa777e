"""Files in FROM: `'orders.parquet'`, `'data/*.csv'`, `read_csv('orders.txt', delim = ';')`."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from sqlglot import exp

from emsqrt.io.locations import STANDARD_NAMES, has_magic
from emsqrt.pipeline import SUFFIX_FORMATS, plain_suffix, scan
from emsqrt.plan import Plan
from emsqrt.planner import find_schema
from emsqrt.sql_plan.errors import fail, refuse
from sennit_core.errors import Unsupported

Node: TypeAlias = Any

_READERS = {
    "read_csv": "csv",
    "read_csv_auto": "csv",
    "read_parquet": "parquet",
    "parquet_scan": "parquet",
    "read_json": "jsonl",
    "read_json_auto": "jsonl",
    "read_ndjson": "jsonl",
    "read_ndjson_auto": "jsonl",
    "read_arrow": "arrow",
}
_OPTIONS = {
    "delim": "delimiter",
    "sep": "delimiter",
    "nullstr": "null_values",
    "skip": "skip_rows",
    "max_line_size": "record_bytes_max",
}
"""DuckDB's option names that differ from the reader's; the others are the same."""


def file_tables(statement: Node, known: dict[str, Plan], text: str) -> dict[str, Plan]:
    """Return the plans of the files that a statement reads as tables, by their names in the plan.

    Calls of `read_csv` and the like become plain names in the statement. Without an alias, a file's
    table name is the file name without folders and suffixes, as in DuckDB.

    Args:
        statement: the syntax tree, which is changed.
        known: the tables of the caller; their names override those of files.
        text: the statement, for positions in errors.

    Raises:
        NotFound: there is no such file.
        Unsupported: its name has no known suffix.
        SqlError: a reader is called with arguments other than paths and constant options.
    """
    found: dict[str, Plan] = {}
    for node in list(statement.find_all(exp.Table)):
        if isinstance(node.this, exp.Identifier):
            if node.name in known or not _names_file(node):
                continue
            key, paths = node.name, [node.name]
            options: dict[str, Any] = {}
        else:
            key, (paths, options) = node.this.sql(dialect="duckdb"), _call(node.this, text)
        if key not in found:
            found[key] = _scan(node, paths, options, text)
        node.set("this", exp.to_identifier(key, quoted=True))
        if not node.alias:
            alias = exp.to_identifier(_stem(paths[0]), quoted=True)
            node.set("alias", exp.TableAlias(this=alias))
    return found


def _names_file(node: Node) -> bool:
    """Return whether a table name is a file: it is quoted, and looks like one or exists."""
    name = str(node.name)
    if not node.this.args.get("quoted") or node.args.get("db") is not None:
        return False
    looks = "/" in name or has_magic(name) or name in STANDARD_NAMES
    return looks or plain_suffix(name) in SUFFIX_FORMATS or Path(name).exists()


def _scan(node: Node, paths: list[str], options: dict[str, Any], text: str) -> Plan:
    if options.get("format") is None and all(path in STANDARD_NAMES for path in paths):
        options = {**options, "format": "csv"}
    try:
        pipeline = scan(*paths, **options)
    except Unsupported as error:
        fail(node, text, str(error), "write read_csv('…'), read_parquet('…') or read_json('…')")
    return find_schema(pipeline.plan, Path())


def _call(node: Node, text: str) -> tuple[list[str], dict[str, Any]]:
    """Return the paths and options of a call such as `read_csv(['a.csv', 'b.csv'], header = false)`."""
    name = str(node.this if isinstance(node, exp.Anonymous) else node.sql_name()).lower()
    if name not in _READERS:
        refuse(node, text, f"{name} in FROM", f"there are {', '.join(_READERS)}")
    operands = [] if isinstance(node.this, str) or node.this is None else [node.this]
    operands += node.expressions
    if not operands:
        fail(node, text, f"{name} needs a path")
    source, *rest = operands
    paths = _value(source, text)
    options: dict[str, Any] = {"format": _READERS[name]}
    for each in rest:
        if not isinstance(each, exp.EQ | exp.PropertyEQ | exp.Kwarg):
            fail(each, text, f"{name} needs options as name = value")
        options |= _option(each.this.name.lower(), _value(each.expression, text))
    return [paths] if isinstance(paths, str) else list(paths), options


def _option(name: str, value: Any) -> dict[str, Any]:
    if name == "ignore_errors":
        return {"bad_rows": "reject" if value else "fail"}
    if name == "nullstr" and isinstance(value, str):
        value = [value]
    return {_OPTIONS.get(name, name): value}


def _value(node: Node, text: str) -> Any:
    """Return a constant: text, a number, true, false, or a list of them."""
    if isinstance(node, exp.Array):
        return [_value(each, text) for each in node.expressions]
    if isinstance(node, exp.Boolean):
        return bool(node.this)
    if isinstance(node, exp.Literal):
        if node.is_string:
            return str(node.this)
        if str(node.this).isdigit():
            return int(node.this)
    return fail(node, text, f"{node.sql(dialect='duckdb')} is not a constant that a reader accepts")


def _stem(path: str) -> str:
    name = PurePosixPath(path).name
    return name.partition(".")[0] or name or path
