"""emsqrt.floats: sums of floats that no order, cut or tree of merges can change.

`exact` reads `spec/float-sum.md` one value at a time; `_kernel/float_sum.c` is what engines use. The
specification's vectors bind both, and the JavaScript engine.
"""

from emsqrt.floats.exact import STATE_BYTES, FloatSum, square, variance

__all__ = ["STATE_BYTES", "FloatSum", "square", "variance"]
