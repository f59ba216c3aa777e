"""Infer the type of each JSON field over a whole file, also for values of mixed types.

Arrow infers a block's types quickly, but refuses a block in which a field is both a number and a
string. Such a block is examined here, value by value. Types are Arrow's, with three additional ones
that exist only until the whole file has been read:

- `MIXED`: numbers, booleans and strings. Becomes text: strings unchanged, others as written in the
  file (`1.10` stays `1.10`).
- `ANY`: objects or lists among other values. Becomes text that holds JSON.
- `LARGE`: integers beyond 2^53, which a float cannot hold; with floats they are `MIXED`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import pyarrow as pa

__all__ = ["ANY", "LARGE", "MIXED", "Written", "infer", "is_mixed", "merge", "rewrite", "settle"]

# Arrow's JSON reader infers none of these three types, so they cannot be confused with a type that
# it found.
MIXED = pa.large_string()
ANY = pa.large_binary()
LARGE = pa.uint64()
# Beyond it, a double (IEEE 754 binary64) does not hold every integer.
EXACT_MAX = 2**53
_INT64 = range(-(2**63), 2**63)
_NULL = type(None)


class Written(float):
    """A number with a fraction or an exponent, with its text in the file."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Self:
        """Parse the number."""
        made = super().__new__(cls, text)
        made.text = text
        return made


def infer(values: Sequence[Any], infer_text: Callable[[Sequence[str]], pa.DataType]) -> pa.DataType:
    """Return the type that holds all values, parsed by `json` with `Written` for floats.

    Args:
        values: Values of one field; None where it is null or absent.
        infer_text: Returns the type of strings: text or timestamp.
    """
    # Exact types, not `isinstance`: in Python, a bool is an int.
    kinds = set(map(type, values)) - {_NULL}
    if not kinds:
        return pa.null()
    if kinds == {dict}:
        objects = [value for value in values if value is not None]
        names = dict.fromkeys(name for each in objects for name in each)
        return pa.struct(
            [(name, infer([each.get(name) for each in objects], infer_text)) for name in names]
        )
    if kinds == {list}:
        items = [item for value in values if value is not None for item in value]
        return pa.list_(infer(items, infer_text))
    if kinds & {dict, list}:
        return ANY
    if kinds == {str}:
        return infer_text([value for value in values if value is not None])
    return pa.bool_() if kinds == {bool} else _infer_number(values, kinds)


def _infer_number(values: Sequence[Any], kinds: set[type]) -> pa.DataType:
    if kinds & {str, bool}:
        return MIXED
    integers = [value for value in values if type(value) is int]
    low, high = min(integers, default=0), max(integers, default=0)
    # No type of the engines holds it, so it is kept as written.
    if low not in _INT64 or high not in _INT64:
        return MIXED
    found = LARGE if max(-low, high) > EXACT_MAX else pa.int64()
    return found if Written not in kinds else merge(found, pa.float64())


def merge(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Return the type that holds all values of both types."""
    types = pa.types
    if one.equals(other) or types.is_null(other):
        return one
    if types.is_null(one):
        return other
    if types.is_struct(one) and types.is_struct(other):
        return pa.struct(merge_fields(one, other))
    if types.is_list(one) and types.is_list(other):
        return pa.list_(merge(one.value_type, other.value_type))
    pair = {one, other}
    # One is nested and the other is not, or they are a list and an object.
    if ANY in pair or any(types.is_nested(each) for each in pair):
        return ANY
    # They differ in unit or zone.
    if all(types.is_timestamp(each) for each in pair):
        return pa.timestamp("us")
    if all(types.is_string(each) or types.is_timestamp(each) for each in pair):
        return pa.string()
    if pair == {pa.int64(), LARGE}:
        return LARGE
    return pa.float64() if pair == {pa.int64(), pa.float64()} else MIXED


def merge_fields(one: Any, other: Any) -> list[pa.Field]:
    """Return the fields of both structs or schemas, in order of first appearance."""
    found = {field.name: field.type for field in one}
    for field in other:
        found[field.name] = merge(found.get(field.name, pa.null()), field.type)
    return [pa.field(name, each) for name, each in found.items()]


def is_mixed(found: pa.DataType) -> bool:
    """Whether values must be rewritten before Arrow can read them as the final type."""
    if found in (MIXED, ANY):
        return True
    if pa.types.is_struct(found):
        # Parquet has no struct without fields, so such objects are stored as the text {}.
        return found.num_fields == 0 or any(is_mixed(field.type) for field in found)
    return pa.types.is_list(found) and is_mixed(found.value_type)


def settle(found: pa.DataType) -> pa.DataType:
    """Return the type to store: always-null fields and objects without fields become text."""
    types = pa.types
    if found in (MIXED, ANY) or types.is_null(found):
        return pa.string()
    if found == LARGE:
        return pa.int64()
    if types.is_timestamp(found):
        return pa.timestamp("us", tz=found.tz)
    if types.is_struct(found):
        if not found.num_fields:
            return pa.string()
        return pa.struct([field.with_type(settle(field.type)) for field in found])
    return pa.list_(settle(found.value_type)) if types.is_list(found) else found


def rewrite(value: Any, found: pa.DataType) -> Any:
    """Return the value with mixed parts replaced by text."""
    if value is None or not is_mixed(found):
        return value
    if found == MIXED:
        return value if isinstance(value, str) else _text(value)
    if found == ANY or (isinstance(value, dict) and not found.num_fields):
        return _text(value)
    if isinstance(value, dict):
        types = {field.name: field.type for field in found}
        return {name: rewrite(each, types[name]) for name, each in value.items()}
    return [rewrite(item, found.value_type) for item in value]


def _text(value: Any) -> str:
    """Return the JSON text of a value, with numbers as written in the file."""
    return "".join(_pieces(value))


def _pieces(value: Any) -> Iterator[str]:
    if isinstance(value, Written):
        yield value.text
    elif isinstance(value, dict):
        for index, (name, each) in enumerate(value.items()):
            yield f"{', ' if index else '{'}{json.dumps(name, ensure_ascii=False)}: "
            yield from _pieces(each)
        yield "}" if value else "{}"
    elif isinstance(value, list):
        yield "["
        for index, each in enumerate(value):
            yield ", " if index else ""
            yield from _pieces(each)
        yield "]"
    else:
        yield json.dumps(value, ensure_ascii=False)
