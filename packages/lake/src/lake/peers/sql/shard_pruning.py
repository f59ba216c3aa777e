"""Which shards of a table have rows that conditions let through, by the bounds of the shards.

As in `lake.sql.pruning`, DuckDB itself compares the constants of the query, as written, with the bounds
in the column's type, so types are compared as in the query. Where a bound is not known, or an expression
has an error, the shard is read.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from sqlglot import exp

from lake.ingest.partitions import bucket_of
from lake.peers.sql.aggregates import to_sql
from lake.peers.sql.engine import Engine
from lake.peers.sql.tables import Bounds, Shard, Table, key_class

__all__ = ["remaining_shards"]

_COMPARISONS: dict[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_MIRRORED = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_LIST_MAX = 64
_CONSTANTS = (
    *(exp.Literal, exp.Cast, exp.DataType, exp.DataTypeParam, exp.Interval, exp.Var, exp.Paren),
    *(exp.Neg, exp.Add, exp.Sub, exp.Mul),
)
_HASHED = {"INTEGER": pa.int64(), "VARCHAR": pa.string(), "DATE": pa.date32()}
_UNKNOWN = Bounds()


def remaining_shards(
    table: Table, conditions: Sequence[exp.Expr], engine: Engine
) -> tuple[Shard, ...]:
    """Return the shards that may have rows which meet all conditions.

    Args:
        table: The table.
        conditions: Conditions over its columns alone.
        engine: DuckDB's answers.
    """
    shards = tuple(each for each in table.shards if each.rows)
    pruner = _Pruner(table, shards)
    tests = [text for each in conditions if (text := pruner.test(each)) is not None]
    if tests and shards:
        kept = engine.rows(pruner.query(tests))
        shards = tuple(
            shard for shard, (keep,) in zip(shards, kept, strict=True) if keep is not False
        )
    for condition in conditions:
        buckets = _buckets(table, condition, engine)
        if buckets is not None:
            shards = tuple(shard for shard in shards if shard.bucket in buckets)
    return shards


class _Pruner:
    """Translates conditions on rows to conditions on the bounds of their shard."""

    def __init__(self, table: Table, shards: Sequence[Shard]) -> None:
        self._table = table
        self._shards = shards
        self._names = {each.name.casefold(): each for each in table.columns}
        self._used: dict[str, int] = {}

    def test(self, node: exp.Expr) -> str | None:
        """Return the test of a condition; None if it is not understood."""
        match node:
            case exp.Paren():
                return self.test(node.this)
            case exp.And():
                found = [self.test(node.this), self.test(node.expression)]
                return " AND ".join(f"({text})" for text in found if text) or None
            case exp.Or():
                one, other = self.test(node.this), self.test(node.expression)
                return f"(({one}) OR ({other}))" if one and other else None
            case exp.Between() if not node.args.get("symmetric"):
                lower, upper = node.args["low"], node.args["high"]
                low = self._compare(node.this, ">=", [lower], other_end=upper)
                high = self._compare(node.this, "<=", [upper], other_end=lower)
                return " AND ".join(text for text in (low, high) if text) or None
            case exp.In():
                return self._compare(node.this, "=", node.expressions)
            case exp.Is() if isinstance(node.expression, exp.Null):
                place = self._place(node.this)
                return None if place is None else f"coalesce(n{place} > 0, true)"
            case exp.Not() if isinstance(node.this, exp.Is):
                place = self._place(node.this.this)
                is_null = isinstance(node.this.expression, exp.Null)
                return f"coalesce(n{place} < r, true)" if is_null and place is not None else None
        sign = _COMPARISONS.get(type(node))
        if sign is None:
            return None
        return self._compare(node.this, sign, [node.expression]) or self._compare(
            node.expression, _MIRRORED[sign], [node.this]
        )

    def query(self, tests: Sequence[str]) -> str:
        """Return the query that computes tests for every shard."""
        columns = [f"unnest({[shard.rows for shard in self._shards]}::BIGINT[]) AS r"]
        for name, place in self._used.items():
            kind = self._names[name].type
            bounds = [_bounds_of(shard, name) for shard in self._shards]
            for letter, texts in (("a", [b.low for b in bounds]), ("z", [b.high for b in bounds])):
                listed = ", ".join("NULL" if text is None else _quoted(text) for text in texts)
                values = f"CAST([{listed}] AS VARCHAR[])"
                columns.append(f"TRY_CAST(unnest({values}) AS {kind}) AS {letter}{place}")
            nulls = ", ".join("NULL" if b.nulls is None else str(b.nulls) for b in bounds)
            columns.append(f"unnest(CAST([{nulls}] AS BIGINT[])) AS n{place}")
        test = " AND ".join(f"coalesce(TRY({text}), true)" for text in tests)
        return f"SELECT {test} FROM (SELECT {', '.join(columns)})"

    def _compare(
        self,
        value: exp.Expr,
        sign: str,
        constants: Sequence[exp.Expr],
        other_end: exp.Expr | None = None,
    ) -> str | None:
        """Return the test of a comparison with one of constants; None if it is not understood.

        Args:
            value: The column.
            sign: The comparison.
            constants: What it is compared with.
            other_end: The other end of BETWEEN, which also decides as what type all are compared.
        """
        place = self._place(value)
        if place is None or not _are_constants(constants):
            return None
        kind = self._names[value.name.casefold()].type.upper()
        if kind == "VARCHAR" and not all(map(_is_string, constants)):
            return None  # the column would be cast, which keeps no order
        others = constants if other_end is None else [*constants, other_end]
        rounded = "CAST({} AS DOUBLE)" if _are_rounded(kind, others) else "{}"
        low, high = rounded.format(f"a{place}"), rounded.format(f"z{place}")
        tests = []
        for constant in constants:
            text = rounded.format(to_sql(constant))
            below = f"coalesce({low} {'<=' if sign == '=' else sign} {text}, true)"
            above = f"coalesce({high} {'>=' if sign == '=' else sign} {text}, true)"
            both = f"({below} AND {above})"
            tests.append({"=": both}.get(sign, below if sign.startswith("<") else above))
        return f"({' OR '.join(tests)})"

    def _place(self, node: exp.Expr) -> int | None:
        if not isinstance(node, exp.Column) or node.name.casefold() not in self._names:
            return None
        return self._used.setdefault(node.name.casefold(), len(self._used))


def _bounds_of(shard: Shard, name: str) -> Bounds:
    for column, bounds in shard.bounds.items():
        if column.casefold() == name:
            return bounds
    return _UNKNOWN


def _buckets(table: Table, condition: exp.Expr, engine: Engine) -> set[int | None] | None:
    """Return the buckets that a condition on the partition key leaves; None for all."""
    if table.key is None:
        return None
    kind = table.type_of(table.key.column)
    arrow = None if kind is None else _HASHED.get(key_class(kind))
    match condition:
        case exp.EQ():
            column, constants = condition.this, [condition.expression]
        case exp.In():
            column, constants = condition.this, condition.expressions
        case _:
            return None
    is_key = (
        isinstance(column, exp.Column) and column.name.casefold() == table.key.column.casefold()
    )
    if arrow is None or not is_key or not _are_constants(constants):
        return None
    if len({_is_string(each) for each in constants}) > 1:
        return None  # the texts are numbers then
    cast = f"TRY_CAST(c AS {kind})"
    if _is_string(constants[0]):
        test = f"{cast} IS NOT NULL"
    elif arrow == pa.string():
        return None  # a number equals several texts
    else:
        # A constant that the column's type does not hold as it is, such as 1.5, has no bucket, and a
        # DOUBLE may equal several BIGINTs.
        test = f"{cast} = c AND typeof(c) NOT IN ('DOUBLE', 'FLOAT', 'VARCHAR')"
    listed = ", ".join(map(to_sql, constants))
    # In one list, all have the type that they have in IN.
    rows = engine.rows(f"SELECT {cast}, {test} FROM (SELECT unnest([{listed}]) AS c)")
    if not all(is_exact for _, is_exact in rows):
        return None
    try:
        return {bucket_of(value, arrow, table.key.buckets) for value, _ in rows}
    except pa.ArrowException:  # a date outside of Python's years
        return None


def _are_constants(nodes: Sequence[exp.Expr]) -> bool:
    return 0 < len(nodes) <= _LIST_MAX and all(map(_is_constant, nodes))


def _are_rounded(kind: str, constants: Sequence[exp.Expr]) -> bool:
    """Return whether DuckDB may compare exact numbers as DOUBLE, as one of several constants is one."""
    is_exact = "INT" in kind or kind.startswith("DECIMAL")
    return is_exact and len(constants) > 1 and not all(map(_is_number, constants))


def _is_number(node: exp.Expr) -> bool:
    """Return whether a constant is an integer or a decimal, as written."""
    number = node.this if isinstance(node, exp.Neg) else node
    return isinstance(number, exp.Literal) and "e" not in number.this.lower()


def _is_string(node: exp.Expr) -> bool:
    return isinstance(node, exp.Literal) and bool(node.is_string)


def _is_constant(node: exp.Expr) -> bool:
    return all(isinstance(each, _CONSTANTS) for each in node.walk())


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
