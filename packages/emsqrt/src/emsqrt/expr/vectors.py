"""Load `spec/semantics/*.json` into Arrow, for the tests of every engine with pyarrow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from emsqrt.expr.literals import parse_spelling
from sennit_core.schema import DataType


def load_cases(file: Path) -> list[dict[str, Any]]:
    """Return the cases of one file of vectors."""
    document = json.loads(file.read_text("utf-8"))
    cases: list[dict[str, Any]] = document["cases"]
    return cases


def column(spelled: Iterable[Any], kind: DataType) -> Any:
    """Return an Arrow array of values in the spelling of plan JSON."""
    values = [parse_spelling(v, kind) if isinstance(v, str) else v for v in spelled]
    return pa.array(values, kind.to_arrow())


def batch(columns: Iterable[Mapping[str, Any]]) -> Any:
    """Return a record batch of a case's `columns`."""
    made = {each["name"]: column(each["values"], DataType.parse(each["type"])) for each in columns}
    return pa.RecordBatch.from_pydict(made)


def same_values(left: Any, right: Any, *, tolerance: float = 0.0) -> bool:
    """Return whether two lists of Python values are equal; NaN equals NaN, floats roughly."""
    return len(left) == len(right) and all(
        _same(a, b, tolerance) for a, b in zip(left, right, strict=True)
    )


def _same(left: Any, right: Any, tolerance: float) -> bool:
    if left is None or right is None or not isinstance(left, float):
        return bool(left == right)
    number = float(right)
    if left != left or number != number:
        return left != left and number != number
    return left == number or abs(left - number) <= tolerance * abs(number)
