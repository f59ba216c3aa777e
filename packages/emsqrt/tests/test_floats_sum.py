"""The float sum: no order, cut or tree of merges changes a bit; C agrees with plain Python."""

import json
import math
import random
import runpy
from array import array
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emsqrt._kernel import (
    float_sum,
    float_sum_merge,
    float_sum_value,
    float_sum_variance,
)
from emsqrt.floats import FloatSum, square, variance
from sennit_core.errors import Corrupt

TESTS = Path(__file__).resolve().parent
SPEC = TESTS.parents[2] / "spec" / "float-sum.json"
VECTORS = json.loads(SPEC.read_text("utf-8"))

near = st.integers(-60, 60).flatmap(lambda e: st.floats(-1, 1).map(lambda x: math.ldexp(x, e)))
any_float = st.floats(width=64) | near
finite = st.floats(allow_nan=False, allow_infinity=False) | near
# Squares of smaller values underflow; the specification says what is lost then.
moderate = st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-100)


def floats(spelled: list[str]) -> list[float]:
    return [float.fromhex(text) for text in spelled]


def in_c(values: list[float], *, squares: bool = False) -> bytes:
    return float_sum(array("d", values), squares)


def same(left: float | None, right: float | None) -> bool:
    """Whether both are the same bits, any NaN being one."""
    if left is None or right is None:
        return left is right
    return left.hex() == right.hex()


@pytest.mark.parametrize("vector", VECTORS["sums"], ids=lambda v: v["name"])
def test_vectors_of_sums(vector: dict[str, Any]) -> None:
    values, squares = floats(vector["values"]), vector.get("squares", False)
    state = FloatSum.of_squares(values) if squares else FloatSum.of(values)
    native = in_c(values, squares=squares)
    assert state.to_bytes().hex() == native.hex() == vector["state"]
    assert state.value().hex() == float_sum_value(native).hex() == vector["value"]


@pytest.mark.parametrize("vector", VECTORS["merges"], ids=lambda v: v["name"])
def test_vectors_of_merges(vector: dict[str, Any]) -> None:
    raw = [bytes.fromhex(state) for state in vector["states"]]
    merged = FloatSum()
    for data in raw:
        merged = merged.merge(FloatSum.from_bytes(data))
    together = float_sum_merge(b"".join(raw))
    assert merged.to_bytes().hex() == together.hex() == vector["state"]
    assert merged.value().hex() == float_sum_value(together).hex() == vector["value"]


@pytest.mark.parametrize("vector", VECTORS["variances"], ids=lambda v: v["name"])
def test_vectors_of_variances(vector: dict[str, Any]) -> None:
    values = floats(vector["values"])
    found = variance(len(values), FloatSum.of(values), FloatSum.of_squares(values))
    native = float_sum_variance(len(values), in_c(values), in_c(values, squares=True))
    assert same(found, native)
    assert (None if found is None else found.hex()) == vector["variance"]
    assert (None if found is None else math.sqrt(found).hex()) == vector["stddev"]


def test_the_vectors_are_those_of_the_reference() -> None:
    assert runpy.run_path(str(TESTS / "float_vectors.py"))["text"]() == SPEC.read_text("utf-8")


@pytest.mark.slow
@given(st.lists(any_float, max_size=30), st.randoms(), st.integers(1, 5))
def test_no_order_cut_or_tree_changes_a_bit(
    values: list[float], draw: random.Random, cuts: int
) -> None:
    expected = FloatSum.of(values).to_bytes()
    mixed = draw.sample(values, len(values))
    parts = [FloatSum.of(mixed[start::cuts]) for start in range(cuts)]
    while len(parts) > 1:
        left, right = (parts.pop(draw.randrange(len(parts))) for _ in range(2))
        parts.append(left.merge(right))
    assert parts[0].to_bytes() == expected


@pytest.mark.slow
@given(st.lists(any_float, max_size=40), st.integers(0, 40))
def test_c_returns_the_bits_of_plain_python(values: list[float], cut: int) -> None:
    whole, plain = in_c(values), FloatSum.of(values)
    assert whole == plain.to_bytes()
    assert same(float_sum_value(whole), plain.value())
    assert float_sum_merge(in_c(values[:cut]) + in_c(values[cut:])) == whole


@pytest.mark.slow
@given(st.lists(any_float, max_size=20))
def test_c_squares_and_varies_as_plain_python_does(values: list[float]) -> None:
    total, squares = FloatSum.of(values), FloatSum.of_squares(values)
    native = in_c(values, squares=True)
    assert native == squares.to_bytes()
    found = float_sum_variance(len(values), in_c(values), native)
    assert same(found, variance(len(values), total, squares))


@pytest.mark.slow
@given(st.lists(finite, min_size=1, max_size=40))
def test_the_error_stays_within_the_bound(values: list[float]) -> None:
    found = FloatSum.of(values)
    exact = sum(map(Fraction, values), Fraction(0))
    largest = max(abs(Fraction(value)) for value in values)
    error = found.exact() - exact
    assert abs(error) <= len(values) * largest / Fraction(2**80)
    if not error and math.isfinite(found.value()):
        assert found.value() == math.fsum(values)


@given(st.floats(-1e150, 1e150).filter(lambda x: x == 0 or abs(x) > 1e-140))
def test_a_square_is_exact_in_two_parts(value: float) -> None:
    assert sum(map(Fraction, square(value))) == Fraction(value) ** 2


@given(st.lists(moderate, min_size=2, max_size=20), moderate.map(lambda x: x * 1000))
def test_variance_is_that_of_exact_arithmetic(values: list[float], shift: float) -> None:
    moved = [value + shift for value in values]
    found = variance(len(moved), FloatSum.of(moved), FloatSum.of_squares(moved))
    mean = sum(map(Fraction, moved), Fraction(0)) / len(moved)
    spread = [(Fraction(value) - mean) * (Fraction(value) - mean) for value in moved]
    exact = sum(spread, Fraction(0)) / (len(moved) - 1)
    largest = Fraction(max(abs(value) for value in moved))
    assert found is not None
    assert abs(Fraction(found) - exact) <= exact / 2**52 + largest * largest / 2**70


@settings(max_examples=20)
@given(st.integers(1, 2**64 - 1), st.floats(1e-300, 1e300))
def test_sums_of_many_values_carry_beyond_64_bits(count: int, value: float) -> None:
    state = FloatSum.of([value])
    many = FloatSum(state.top, *[tuple(part * count for part in state.sums)])  # type: ignore[arg-type]
    merged = float_sum_merge(many.to_bytes() * 2)
    assert merged == many.merge(many).to_bytes()
    assert float_sum_value(merged).hex() == many.merge(many).value().hex()


def test_damaged_states_are_refused() -> None:
    good = FloatSum.of([1.0]).to_bytes()
    for bad in (good[:-1], b"\x35" + good[1:], good[:4] + b"\x01" + good[5:]):
        with pytest.raises(Corrupt):
            FloatSum.from_bytes(bad)
        with pytest.raises(ValueError, match="not the state"):
            float_sum_value(bad)
