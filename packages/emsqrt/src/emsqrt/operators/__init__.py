"""emsqrt.operators: plan nodes at work on streams of record batches.

Layering: operator (what one is) <- wide (128-bit sums), grouping, extremes
<- states (one aggregate's parts) <- aggregate; rows (a batch at a time) <- registry (from plans to
operators). All of it loads pyarrow and numpy; memory is asked of the budget before it is taken.
"""

from emsqrt.operators.operator import Operator
from emsqrt.operators.registry import make_operator

__all__ = ["Operator", "make_operator"]
