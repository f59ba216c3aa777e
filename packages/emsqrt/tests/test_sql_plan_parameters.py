"""Parameters of SQL: constants by place or by name, never a part of the text."""

from __future__ import annotations

from typing import Any

import pytest

from emsqrt import scan, sql
from emsqrt.plan import explain
from sennit_core.errors import SqlError, Unsupported
from sennit_core.schema import Schema

TABLES = {"t": scan("t.csv", schema=Schema.of(a="Int64", b="Utf8", c="Float64"))}


def planned(text: str, params: Any) -> str:
    return explain(sql(text, TABLES, params).plan)


@pytest.mark.parametrize(
    ("text", "params", "meant"),
    [
        ("SELECT a FROM t WHERE b = ? AND a > ?", ["x", -5], "SELECT a FROM t WHERE b = 'x' AND a > -5"),
        ("SELECT a FROM t WHERE a > $2 AND b = $1", ["x", 5], "SELECT a FROM t WHERE a > 5 AND b = 'x'"),
        ("SELECT a FROM t WHERE c > $low LIMIT $n", {"low": 1.5, "n": 3},
         "SELECT a FROM t WHERE c > 1.5e0 LIMIT 3"),
        ("SELECT a FROM t WHERE b = ?", ["' OR 1 = 1 --"], "SELECT a FROM t WHERE b = ''' OR 1 = 1 --'"),
        ("SELECT a, '?' AS q FROM t WHERE true = ?", [True], "SELECT a, '?' AS q FROM t WHERE true = true"),
    ],
)  # fmt: skip
def test_a_parameter_is_the_constant(text: str, params: Any, meant: str) -> None:
    assert planned(text, params) == planned(meant, None)


@pytest.mark.parametrize(
    ("params", "message"), [([], "no value"), (None, "no value"), ([1, 2], r"\$2")]
)
def test_values_and_parameters_go_together(params: Any, message: str) -> None:
    with pytest.raises(SqlError, match=message):
        planned("SELECT a FROM t WHERE a = ?", params)


@pytest.mark.parametrize("value", [[1], {"a": 1}, b"x", float("nan"), float("inf")])
def test_a_non_constant_is_refused(value: Any) -> None:
    with pytest.raises(Unsupported, match="parameter"):
        planned("SELECT a FROM t WHERE a = ?", [value])
