"""emsqrt.floats: sums of floats that no order, cut or tree of merges can change.

Layering: `exact` (one value at a time, standard library only) <- `grouped` (numpy, many groups at
once). Both follow `spec/float-sum.md`, whose vectors also bind the C and JavaScript engines.
"""

from emsqrt.floats.exact import STATE_BYTES, FloatSum, square, variance

__all__ = ["STATE_BYTES", "FloatSum", "square", "variance"]
