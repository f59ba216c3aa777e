"""The same pipelines in Python and in TypeScript are the same plans, byte for byte.

`spec/plans.json` has the canonical text and the hash of each; `packages/elytra/js/tests/plans.test.ts`
builds the same ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from elytra.functions.javascript import JavascriptStep
from elytra.pipelines.pipeline import Pipeline
from emsqrt.expr import coalesce, col, concat, count, lit, median, when
from emsqrt.plan import Aggregate, plan_hash
from emsqrt.plan.wire import canonical_plan
from sennit_core.schema import DataType, Field, Schema

GOLDEN = json.loads((Path(__file__).parents[3] / "spec/plans.json").read_text())
SCHEMA = Schema(
    (
        Field("price", DataType("Float64")),
        Field("qty", DataType("Int64")),
        Field("country", DataType("Utf8")),
        Field("tags", DataType("List", item=DataType("Utf8"))),
        Field("at", DataType("Timestamp", unit="us", zone="UTC")),
    )
)


class _Node:
    """A runner that knows one dataset's columns."""

    def dataset(self, id_or_name: str) -> Any:
        return type("Found", (), {"schema": SCHEMA})()

    def sql(self, query: str) -> Any:
        raise AssertionError(f"the schema is known without {query!r}")


def _sales(name: str = "sales", **place: Any) -> Pipeline:
    return Pipeline.over(_NODE, name, **place)


_NODE: Any = _Node()
price, qty, country = col("price"), col("qty"), col("country")

PIPELINES: dict[str, Callable[[], Pipeline]] = {
    "scan": _sales,
    "scan of a version": lambda: _sales(version=3),
    "scan of a tag": lambda: _sales(version="löschen"),
    "scan of a time": lambda: _sales(timestamp=datetime(2026, 1, 31, 5, 0, 0, 250000, tzinfo=UTC)),
    "filter": lambda: _sales().filter(price * qty > 500),
    "filters": lambda: _sales().filter(price > 0.1).filter(country != "US"),
    "logic": lambda: _sales().filter((price > 1) & (qty < 5) & ~country.is_null() | (qty == 7)),
    "tests": lambda: _sales().filter(
        country.is_in(["a", "b"]) & qty.between(1, 5) & country.is_not_null()
    ),
    "texts": lambda: _sales().select(
        "country",
        low=country.lower(),
        size=country.length(),
        hello=concat("hi ", country, '"\\\n\u20ac\U0001f44d'),
    ),
    "constants": lambda: _sales().select(
        a=lit(1),
        b=lit(-2.5),
        c=lit(2**63),
        d=lit(-(2**70)),
        e=lit(True),
        f=lit(None),
        g=lit(5, "Float64"),
        h=lit("1.50", "Decimal(4,2)"),
        i=lit(b"\x00\xff"),
        j=lit("2013-01-31", "Date"),
        k=lit(datetime(2013, 1, 31, 5, tzinfo=UTC)),
        m=lit(1e300),
        n=lit(5e-324),
        o=lit(float("inf")),
        p=lit(0.0),
        q=lit(-7, "Int8"),
    ),
    "case": lambda: _sales().select(
        size=when(qty > 10).then("big").when(qty > 1).then("some").otherwise("one"),
        none=when(qty > 10).then(1),
    ),
    "casts": lambda: _sales().select(a=qty.cast("Utf8"), b=country.try_cast("Int32")),
    "columns": lambda: (
        _sales()
        .with_columns(total=price * qty, qty=qty + 1)
        .rename({"total": "sum"})
        .cast({"qty": "Float64"})
    ),
    "drop": lambda: _sales().drop("tags", "at"),
    "drop after others": lambda: (
        _sales().rename({"qty": "n"}).with_column("m", col("n") % 7).drop("n", "at")
    ),
    "group": lambda: (
        _sales()
        .group_by("country", cheap=price < 5)
        .agg(
            n=count(),
            total=(price * qty).sum(),
            mean=price.avg(),
            different=qty.count_distinct(),
            middle=median(price),
        )
    ),
    "count": lambda: _sales().count(),
    "sum": lambda: _sales().sum("price"),
    "mean of the only column": lambda: _sales().select("price").mean(),
    "sort": lambda: _sales().sort("country", "price:desc", "qty:desc:nulls_first"),
    "top": lambda: _sales().top_k(10, (price * qty).desc()),
    "limits": lambda: _sales().limit(10, 5).head().take(3),
    "distinct": lambda: _sales().distinct("country"),
    "samples": lambda: _sales().sample(0.1, seed=7).sample(count=5),
    "explode": lambda: _sales().explode("tags", "tag", outer=True, position="at_item"),
    "expect": lambda: _sales().expect(unique=["country"], not_null=["price"], rows=">0"),
    "join": lambda: _sales().join(_sales("people"), {"country": "land"}, "left"),
    "join of itself": lambda: (
        _sales().join(_sales().select("country", "price"), "country").drop("price_right")
    ),
    "union": lambda: _sales().union(_sales("more"), by_name=True),
    "window": lambda: _sales().window(
        partition_by="country",
        order_by="at",
        n="row_number()",
        before="lag(price, 2)",
        running="sum(qty) rows between 2 preceding and current row",
    ),
    "called functions": lambda: _called(),
    "map to a value": lambda: _sales().map({"value": price * qty}),
    "reduce of rows": lambda: _sales().reduce(lambda total, r: total + r.price * r.qty, 0),
    "reduce to a count": lambda: _sales().reduce(lambda n, r: n + 1, 0),
    "reduce of a column": lambda: _sales().map(price).reduce(lambda a, b: a + b),
    "reduce to a maximum": lambda: _sales().map(price).reduce(lambda a, b: max(a, b)),
    "coalesce": lambda: _sales().select(x=coalesce(price, 0)),
}


def _called() -> Any:
    """Functions of JavaScript alone, which Python's pipelines do not write."""
    known = "((scope) => { const { known } = scope; return ((r) => known.includes(r.country)\n) })"
    kept = JavascriptStep("filter", known + '({["known"]: ["é", "b"]})', "step 1, filter")
    total = "((scope) => { const {  } = scope; return ((r) => r.price * r.qty\n) })({})"
    made = JavascriptStep("map", total, "step 2, map", "row", True)
    value = Schema((Field("value", DataType("Float64")),))
    rows = made.over(kept.over(_sales().plan, SCHEMA), value)
    return SimpleNamespace(plan=Aggregate(rows, (), (("count", count()),)))


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_has_the_plan_of_the_specification(name: str) -> None:
    plan = PIPELINES[name]().plan
    assert canonical_plan(plan).decode() == GOLDEN[name]["plan"]
    assert plan_hash(plan) == GOLDEN[name]["hash"]


def test_the_specification_has_no_other_plans() -> None:
    assert set(GOLDEN) == set(PIPELINES)
