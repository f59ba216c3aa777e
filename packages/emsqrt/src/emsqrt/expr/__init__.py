"""emsqrt.expr: expressions over the columns of a row, with one definition of their meaning.

Layering: nodes, walk <- literals, functions <- text, parser, wire (JSON) <- check (types) <- fold, evaluate
(pyarrow) and sql (DuckDB's dialect). All modules but `evaluate` and its kernels use only the
standard library; import `emsqrt.expr.evaluate` to compute over record batches.
"""

from emsqrt.expr.build import (
    all_of,
    any_of,
    approx_count_distinct,
    avg,
    coalesce,
    col,
    concat,
    count,
    count_distinct,
    first,
    greatest,
    last,
    least,
    max,  # noqa: A004  # the field's word
    mean,
    median,
    min,  # noqa: A004  # the field's word
    nullif,
    quantile,
    quantile_disc,
    stddev,
    sum,  # noqa: A004  # the field's word
    var,
    when,
)
from emsqrt.expr.check import infer
from emsqrt.expr.errors import BadExpression, BadPlan, TypeMismatch, ValueOutOfRange
from emsqrt.expr.fold import fold
from emsqrt.expr.nodes import Agg, Call, Case, Cast, Column, Expr, Literal, Named, SortKey, lit
from emsqrt.expr.parser import parse_expr, parse_named, parse_order
from emsqrt.expr.walk import columns_of
from emsqrt.expr.wire import expr_from_json, expr_to_json

__all__ = [
    "Agg",
    "BadExpression",
    "BadPlan",
    "Call",
    "Case",
    "Cast",
    "Column",
    "Expr",
    "Literal",
    "Named",
    "SortKey",
    "TypeMismatch",
    "ValueOutOfRange",
    "all_of",
    "any_of",
    "approx_count_distinct",
    "avg",
    "coalesce",
    "col",
    "columns_of",
    "concat",
    "count",
    "count_distinct",
    "expr_from_json",
    "expr_to_json",
    "first",
    "fold",
    "greatest",
    "infer",
    "last",
    "least",
    "lit",
    "max",
    "mean",
    "median",
    "min",
    "nullif",
    "parse_expr",
    "parse_named",
    "parse_order",
    "quantile",
    "quantile_disc",
    "stddev",
    "sum",
    "var",
    "when",
]
