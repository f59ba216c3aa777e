"""Makes `spec/float-sum.json` from the plain Python reading of the specification.

Run as a script it prints the file; `test_floats_vectors.py` checks that it is in step.
"""

import json
import math
import random
import struct
from pathlib import Path
from typing import Any

from emsqrt.floats import FloatSum, variance

Vector = dict[str, Any]

SPEC = Path(__file__).resolve().parents[3] / "spec" / "float-sum.json"

TINY, HUGE = 5e-324, 1.7976931348623157e308


def named_values() -> dict[str, list[float]]:
    draw = random.Random(40)
    wide = [draw.choice((-1, 1)) * 2.0 ** draw.uniform(-1000, 1000) for _ in range(20)]
    bits = [struct.unpack("<d", draw.randbytes(8))[0] for _ in range(30)]
    return {
        "nothing": [],
        "zeros of both signs": [0.0, -0.0],
        "one": [1.0],
        "one tenth ten times": [0.1] * 10,
        "cancels to what binary64 loses": [1e16, 1.0, -1e16],
        "cancels to nothing": [1e300, -1e300],
        "a small value survives next to large ones": [2.0**60, 2.0**-20, -(2.0**60)],
        "below the third bin is dropped": [2.0**200, 1.0, -(2.0**200)],
        "tie rounds to even": [2.0**53, 1.0],
        "above a tie rounds up": [2.0**53, 1.0, 2.0**-30],
        "tie at an odd mantissa": [2.0**53 + 2, 1.0],
        "negative": [-1.5, -2.25, 0.125],
        "border of two bins": [2.0**-40, 2.0**-41, 2.0**-39, 2.0**0 - 2.0**-53],
        "lowest bits of subnormals": [TINY, TINY, -3 * TINY],
        "subnormal to normal": [2.2250738585072014e-308, -TINY],
        "largest": [HUGE],
        "overflow to infinity": [HUGE, HUGE],
        "negative overflow": [-HUGE, -HUGE],
        "overflow on the way is none": [HUGE, HUGE, -HUGE],
        "infinity": [1.0, float("inf")],
        "negative infinity": [float("-inf"), HUGE],
        "both infinities": [float("inf"), float("-inf")],
        "not a number": [1.0, float("nan"), float("inf")],
        "money": [round(draw.uniform(0, 1000), 2) for _ in range(40)],
        "wide exponents": wide,
        "random bits": [value for value in bits if value == value],
    }


def named_squares() -> dict[str, list[float]]:
    return {
        "exact product": [3.0, -4.0],
        "product with an error term": [0.1, 1 / 3, 1e8 + 0.1],
        "product underflows": [1e-170, 2.0**-484, 2.0**-485, TINY],
        "product overflows": [1e200],
        "infinity squared": [float("-inf"), 2.0],
        "largest exact square": [2.0**511, 1.0],
    }


def named_samples() -> dict[str, list[float]]:
    return {
        "one value has no variance": [2.0],
        "two values": [1.0, 2.0],
        "equal values": [0.1] * 7,
        "small spread around a large mean": [1e9 + step / 1024 for step in range(9)],
        "tenths": [step / 10 for step in range(20)],
        "infinity": [1.0, float("inf")],
    }


def vectors() -> Vector:
    sums = [
        _vector(name, values, FloatSum.of(values), squares=False)
        for name, values in named_values().items()
    ] + [
        _vector(name, values, FloatSum.of_squares(values), squares=True)
        for name, values in named_squares().items()
    ]
    cuts = {name: values for name, values in named_values().items() if len(values) > 2}
    return {
        "sums": sums,
        "merges": [_merge(name, values) for name, values in cuts.items()],
        "variances": [_variance(name, values) for name, values in named_samples().items()],
    }


def _vector(name: str, values: list[float], state: FloatSum, *, squares: bool) -> Vector:
    vector: Vector = {"name": name, "values": [value.hex() for value in values]}
    if squares:
        vector["squares"] = True
    return {**vector, "state": state.to_bytes().hex(), "value": state.value().hex()}


def _merge(name: str, values: list[float]) -> Vector:
    third = max(1, len(values) // 3)
    parts = [values[:third], values[third : 2 * third], values[2 * third :]]
    states = [FloatSum.of(part) for part in parts]
    merged = states[2].merge(states[0]).merge(states[1])
    return {
        "name": name,
        "states": [state.to_bytes().hex() for state in states],
        "state": merged.to_bytes().hex(),
        "value": merged.value().hex(),
    }


def _variance(name: str, values: list[float]) -> Vector:
    result = variance(len(values), FloatSum.of(values), FloatSum.of_squares(values))
    return {
        "name": name,
        "values": [value.hex() for value in values],
        "variance": None if result is None else result.hex(),
        "stddev": None if result is None else math.sqrt(result).hex(),
    }


def text() -> str:
    return json.dumps(vectors(), indent=1) + "\n"


if __name__ == "__main__":
    print(text(), end="")  # noqa: T201  # the file is the program's output
