"""emsqrt.floats: float sums that are independent of order, partitioning and merge tree.

`exact` implements `spec/float-sum.md` in Python, one value at a time; engines use
`_kernel/float_sum.c`. The specification's vectors test both, and the JavaScript engine.
"""

from emsqrt.floats.exact import STATE_BYTES, FloatSum, square, variance

__all__ = ["STATE_BYTES", "FloatSum", "square", "variance"]
