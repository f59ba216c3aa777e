"""emsqrt.operators: plan nodes at work on streams of record batches.

Layering: wide (128-bit sums), grouping, extremes <- states (one aggregate's parts) <- aggregate,
rows (one batch in, one batch out) <- build. All of it loads pyarrow and numpy; memory is asked of
the budget before it is taken.
"""

from emsqrt.operators.build import Operator, build

__all__ = ["Operator", "build"]
