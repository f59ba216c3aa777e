"""emsqrt.operators: plan nodes at work on streams of record batches.

Layering: operator (what one is) <- columns (batches as the kernel sees them) <- aggregate, sort,
join <- distinct; rows, streams (a batch at a time) <- registry (from plans to operators). All of it
loads pyarrow; what holds rows works in its share of the working set.
"""

from emsqrt.operators.operator import Operator
from emsqrt.operators.registry import make_operator

__all__ = ["Operator", "make_operator"]
