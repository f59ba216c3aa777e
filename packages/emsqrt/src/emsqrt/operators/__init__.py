"""emsqrt.operators: plan nodes that run on streams of record batches.

Layering: operator (the protocol) <- columns (batches in the kernel's representation) <- aggregate,
sort, join <- distinct; rows, streams (one batch at a time) <- registry (from plans to operators).
All modules import pyarrow; operators that hold rows work in their share of the working set.
"""

from emsqrt.operators.operator import Operator
from emsqrt.operators.registry import make_operator

__all__ = ["Operator", "make_operator"]
