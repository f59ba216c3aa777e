"""The planner's rules reach text programs, and every byte of the answer stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emsqrt.pipeline import Pipeline, scan
from emsqrt.text_engine import compile as compiling
from emsqrt.text_engine.compile import try_compile


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Pipeline]:
    monkeypatch.chdir(tmp_path)
    facts = (
        f'{at:05},{at % 40},{at % 7},"text, {at % 11}",{at % 13}.50,x{at}\n' for at in range(6000)
    )
    Path("facts.csv").write_text("id,order,kind,note,price,rest\n" + "".join(facts))
    orders = (f"{at},{at % 5},{'' if at % 6 else at}\n" for at in range(40))
    Path("orders.csv").write_text("order,person,extra\n" + "".join(orders))
    Path("people.csv").write_text("person,city\n1,Rome\n2,Oslo\n3,\n4,Rome\n")
    return {name: scan(f"{name}.csv") for name in ("facts", "orders", "people")}


def steps_of(pipeline: Pipeline) -> list[str]:
    program = try_compile(pipeline.sink("out.csv").plan, Path())
    assert program is not None
    return [step["op"] for step in program["steps"]]


def plans(facts: Pipeline, orders: Pipeline, people: Pipeline) -> dict[str, Pipeline]:
    joined = facts.join(orders, "order").join(people, "person")
    return {
        "filter above a join": joined.filter("kind == 3", "city == 'Rome'"),
        "filter above a sort": facts.sort("kind", "note").filter("order < 3 and 1 + 1 == 2"),
        "first of a sort": facts.sort("kind:desc").limit(30, 4).select("note", "id"),
        "few columns of a sort": facts.sort("price", "note").select("id", "note"),
        "few columns of a join": facts.join(orders, "order").select("id", "person"),
        "sort without effect": facts.sort("note").group_by("kind").agg(n="sum(price)"),
        "order that is there": facts.group_by("kind").agg(n="max(note)").sort("kind"),
        "joins in any order": joined.filter("city == 'Rome'")
        .group_by("city", "kind")
        .agg(n="count(*)", least="min(note)", total="sum(price)"),
        "outer join that is none": facts.join(orders, "order", "left").filter("extra > 2"),
        "union of filtered": facts.union(facts.filter("kind == 1")).filter("kind < 3").sort("id"),
        "names": facts.rename({"id": "order", "order": "id"}).sort("id").select("order"),
        "never": facts.filter("1 > 2").sort("id"),
        "semi": facts.join(orders.filter("extra > 6"), "order", "semi").distinct(),
    }


NAMES = list(plans(*[scan("x.csv")] * 3))


@pytest.mark.slow
@pytest.mark.sample(1)
@pytest.mark.parametrize("name", NAMES)
def test_rules_change_no_byte(
    name: str, tables: dict[str, Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = plans(**tables)[name]

    def answer() -> bytes:
        manifest = pipeline.sink("out.csv").run("40MiB")
        assert manifest.tier == "text"
        return Path("out.csv").read_bytes()

    after = answer()
    monkeypatch.setattr(compiling, "TEXT_RULES", ())
    assert after == answer()
    assert after.count(b"\n") > (0 if name == "never" else 1)


def test_rules_reach_text_programs(tables: dict[str, Pipeline]) -> None:
    made = plans(**tables)
    assert steps_of(made["sort without effect"]) == ["scan", "aggregate"]
    assert steps_of(made["order that is there"]) == ["scan", "aggregate"]
    assert steps_of(made["filter above a join"]).index("filter") == 1
    assert steps_of(made["few columns of a sort"]) == ["scan", "select", "sort", "select"]
    assert "sort" in steps_of(made["first of a sort"])
    assert steps_of(tables["facts"].sort("id")) == ["scan", "sort"]
    assert steps_of(tables["facts"].filter("kind == 1").group_by("kind").agg(n="sum(price)")) == [
        *("scan", "filter", "aggregate"),
    ]


@pytest.mark.slow
def test_a_plan_that_is_explained_is_the_one_that_runs(tables: dict[str, Pipeline]) -> None:
    rows = plans(**tables)["joins in any order"].sink("out.csv")
    program: Any = try_compile(rows.plan, Path())
    planned = rows.planned("40MiB").to_json()["operators"]
    assert [each["operator"] for each in planned] == [name for name, _ in program["operators"]]
