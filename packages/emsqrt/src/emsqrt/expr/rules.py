"""Type relations: lossless conversions, common types, result types of decimal arithmetic."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from emsqrt.expr.literals import integer_range
from emsqrt.expr.nodes import Call
from sennit_core.errors import Unsupported
from sennit_core.schema import DataType

NULL = DataType("Binary")
"""The type of an untyped NULL; compared by identity, never by value."""

FROM_TEXT = ("Date", "Timestamp", "Time")
"""Types next to which a text constant is parsed, as in `day >= '2013-01-01'`."""

DIGITS_MAX = 38
"""Limit of a decimal type."""

_UNITS = ("s", "ms", "us", "ns")
_DIGITS = {"8": 3, "16": 5, "32": 10, "64": 19}


def decimal(precision: int, scale: int) -> DataType:
    """Return a decimal type."""
    return DataType("Decimal", precision=precision, scale=scale)


def wide(kind: DataType) -> DataType:
    """Return the type of arithmetic on one number of type `kind`."""
    if kind.is_integer:
        return kind if kind.name == "UInt64" else DataType("Int64")
    return DataType("Float64") if kind.is_float else kind


def as_decimal(kind: DataType) -> DataType:
    """Return the decimal type that holds every integer of `kind`, or `kind` itself."""
    if kind.name == "Decimal":
        return kind
    return decimal(20 if kind.name == "UInt64" else _DIGITS[kind.name.lstrip("UInt")], 0)


def decimal_result(expr: Call, left: DataType, right: DataType) -> DataType:
    """Return the type of an exact sum, difference or product; more than 38 digits overflow."""
    p1, s1 = left.precision or 0, left.scale or 0
    p2, s2 = right.precision or 0, right.scale or 0
    if expr.fn == "mul":
        if s1 + s2 > 38:
            raise Unsupported(f"a product of {left} and {right} has {s1 + s2} decimal places")
        return decimal(min(38, p1 + p2), s1 + s2)
    scale = max(s1, s2)
    return decimal(min(38, max(p1 - s1, p2 - s2) + scale + 1), scale)


def join(left: DataType, right: DataType) -> DataType | None:
    """Return the type in which values of both types can be compared, None when there is none."""
    if left == right:
        return left
    if left.is_numeric and right.is_numeric:
        return _join_numbers(left, right)
    names = {left.name, right.name}
    if names == {"Timestamp"} and (left.zone is None) == (right.zone is None):
        return left if _UNITS.index(left.unit or "s") >= _UNITS.index(right.unit or "s") else right
    if names == {"Date", "Timestamp"}:
        timestamp = left if left.name == "Timestamp" else right
        return timestamp if timestamp.zone is None else None
    return None


def _join_numbers(left: DataType, right: DataType) -> DataType:
    if left.is_float or right.is_float:
        return DataType("Float64")
    if left.is_integer and right.is_integer:
        return _join_integers(left, right)
    digits, scale = digits_of((as_decimal(left), as_decimal(right)))
    return decimal(min(38, digits), scale)


def digits_of(kinds: Iterable[DataType]) -> tuple[int, int]:
    """Return precision and scale that hold all values of these decimals."""
    sizes = [(kind.precision or 0, kind.scale or 0) for kind in kinds]
    scale = max(scale for _, scale in sizes)
    return max(precision - scale for precision, scale in sizes) + scale, scale


def no_decimal_holds(kinds: Iterable[DataType]) -> bool:
    """Return whether no decimal type holds all exact numbers of these types."""
    known = [kind for kind in kinds if kind is not NULL]
    if not any(kind.name == "Decimal" for kind in known):
        return False
    if not all(kind.name == "Decimal" or kind.is_integer for kind in known):
        return False
    return digits_of(map(as_decimal, known))[0] > DIGITS_MAX


def _join_integers(left: DataType, right: DataType) -> DataType:
    for kind in (left, right):
        if widens(left, kind) and widens(right, kind):
            return kind
    return decimal(20, 0) if "UInt64" in (left.name, right.name) else DataType("Int64")


def literal_fits(value: Any, kind: DataType, target: DataType) -> bool:
    """Return whether an integer constant can adopt the integer type of its neighbour."""
    if value is None or not (kind.is_integer and target.is_integer):
        return False
    low, high = integer_range(target)
    return bool(low <= value <= high)


def widens(source: DataType, target: DataType) -> bool:
    """Return whether every value of `source` converts to `target`, so that a cast cannot fail."""
    if source == target or source is NULL:
        return True
    if source.is_integer:
        return _integer_widens(source, target)
    if source.name == "Decimal":
        return _decimal_widens(source, target) or target.name in ("Float64", "Utf8")
    return (source.name, target.name) in {
        ("Float32", "Float64"),
        ("Bool", "Utf8"),
        ("Date", "Utf8"),
        ("Utf8", "Binary"),
        ("Timestamp", "Date"),
        *(("Bool", name) for name in _BOOL_TARGETS),
    }


_BOOL_TARGETS = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")


def _integer_widens(source: DataType, target: DataType) -> bool:
    if target.is_float or target.name == "Utf8":
        return True
    if target.is_integer:
        (low, high), (least, most) = integer_range(source), integer_range(target)
        return least <= low and high <= most
    return target.name == "Decimal" and _decimal_widens(as_decimal(source), target)


def _decimal_widens(source: DataType, target: DataType) -> bool:
    if target.name != "Decimal":
        return False
    s1, s2 = source.scale or 0, target.scale or 0
    return s1 <= s2 and (source.precision or 0) - s1 <= (target.precision or 0) - s2


def may_fail(fn: str, kind: DataType) -> bool:
    """Return whether a fallible function can fail on this type; on floats it never does."""
    return not kind.is_float and (fn not in ("round", "floor", "ceil") or kind.name == "Decimal")


def castable(source: DataType, target: DataType) -> bool:
    """Return whether there is a cast from `source` to `target`."""
    if source == target:
        return True
    if source.is_numeric and target.is_numeric:
        return True
    return target.name in _CASTS.get("Number" if source.is_numeric else source.name, ()) and not (
        source.is_float and target.name == "Utf8"
    )


_CASTS = {
    "Number": ("Utf8", "Bool"),
    "Bool": ("Utf8", *_BOOL_TARGETS),
    "Utf8": (
        *("Bool", "Float32", "Float64", "Decimal", "Binary", "Date", "Timestamp"),
        *_BOOL_TARGETS,
    ),
    "Binary": ("Utf8",),
    "Date": ("Utf8", "Timestamp"),
    "Timestamp": ("Date", "Timestamp"),
}
