"""The result of a query in Python, as notebooks and scripts use it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from lake import Lake, Result


def result(**columns: Any) -> Result:
    return Result(pa.table(columns), {})


def test_rows_are_fetched_one_by_one_all_or_by_iteration() -> None:
    found = result(a=[1, 2, 3], b=["x", None, "z"])
    assert found.fetchone() == (1, "x")
    assert found.fetchall() == [(2, None), (3, "z")]
    assert (found.fetchone(), found.fetchall()) == (None, [])
    assert list(found) == found.rows == [(1, "x"), (2, None), (3, "z")]


def test_it_is_shown_as_an_aligned_table() -> None:
    shown = repr(result(city=["Oslo", None, "北京"], km=[1.5, 12.0, None]))
    assert shown.splitlines() == [
        "city  km",
        "Oslo  1.5",
        "NULL  12.0",
        "北京  NULL",
        "(3 rows)",
    ]


def test_what_is_shown_is_bounded_and_harmless() -> None:
    wide = {f"c{index}": ["x" * 1000] * 50 for index in range(100)}
    shown = repr(result(**wide))
    assert len(shown) < 50_000
    assert "(50 rows and 100 columns; the first 20 rows and the first 20 columns)" in shown
    evil = result(**{"<b>": ["<script>\x1b[2J"]})
    assert "\x1b" not in repr(evil) + evil._repr_html_()
    assert "<th>&lt;b&gt;</th>" in evil._repr_html_()
    assert "<script>" not in evil._repr_html_()


def test_frames_go_in_and_come_out(lake: Lake) -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    lake.append("t", pandas.DataFrame({"a": [1, 2]}))
    lake.append("t", polars.DataFrame({"a": [3]}))
    found = lake.sql("SELECT a FROM t ORDER BY a")
    assert found.df()["a"].tolist() == found.pl()["a"].to_list() == [1, 2, 3]
    assert found.arrow().num_rows == 3
