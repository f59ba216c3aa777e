"""The memory that a refusal names is enough for the whole plan: not one refusal a stage."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from fuzz_data import random_table
from fuzz_runs import Ran, run_files, run_text_plan, write_table

from emsqrt import Engine, EngineConfig
from emsqrt.executor.context import EntryContext
from emsqrt.executor.entry import FLOOR_BYTES
from emsqrt.io import parquet_groups
from emsqrt.io.parquet_pages import walk_chunks
from emsqrt.pipeline import Pipeline, scan
from emsqrt.plan import check
from sennit_core.errors import CapTooSmall

Verb = Callable[[Pipeline], Pipeline]
COLUMNS = ["i8", "n", "u8", "t", "f"]
EVERY_AGGREGATE = {
    "c1": "approx_count_distinct(t)",
    "c2": "quantile(n, 0.9)",
    "c3": "count(distinct t)",
    "c4": "avg(distinct i8)",
    "c5": "approx_count_distinct(n)",
    "c6": "sum(n)",
    "c7": "count(*)",
    "c8": "quantile(n, 0)",
    "c9": "first(t)",
}
AGGREGATES: dict[str, Verb] = {
    "every aggregate": lambda rows: rows.group_by("i8").agg(**EVERY_AGGREGATE),
    "no key": lambda rows: rows.agg(**EVERY_AGGREGATE),
    "many quantiles": lambda rows: rows.group_by("u8").agg(
        **{f"c{n}": f"quantile_disc({name}, 0.{n})" for n, name in over(COLUMNS, 9)}
    ),
    "many sketches": lambda rows: rows.group_by("u8").agg(
        **{f"c{n}": f"approx_count_distinct({name})" for n, name in over(COLUMNS, 40)}
    ),
    "many states": lambda rows: rows.group_by("i8").agg(
        **{f"c{n}": f"first({name})" for n, name in over(COLUMNS, 240)}
    ),
}
OTHERS: dict[str, Verb] = {
    "as it is": lambda rows: rows,
    "sort": lambda rows: rows.sort("t", "i8:desc"),
    "distinct": lambda rows: rows.distinct(),
    "distinct by": lambda rows: rows.distinct("i8"),
    "sample": lambda rows: rows.sample(count=9, seed=1),
    "window": lambda rows: rows.window("i8", "n", **{f"w{n}": "lag(n)" for n in range(3)}),
    "join": lambda rows: rows.join(rows, ["i8", "t"], "semi"),
    "union": lambda rows: rows.union(rows.limit(3)),
}
WAYS = ("text", "csv", "jsonl", "parquet")


def over(names: list[str], count: int) -> Iterable[tuple[int, str]]:
    """Return so many numbers with names, which come again and again."""
    return enumerate(itertools.islice(itertools.cycle(names), count), 1)


def refusals(verbs: Iterable[Verb], way: str, rows: int, scratch: Path) -> list[str]:
    """Run a plan from one byte of memory on, with what refusals name; return why they refused."""
    suffix = "csv" if way == "text" else way
    schema, table = random_table(COLUMNS, rows, 7, nul=False)
    path = scratch / f"l.{suffix}"
    write_table(table, schema, path)
    pipeline = scan(path, schema=schema)
    for verb in verbs:
        pipeline = verb(pipeline)
    plan, checked = pipeline.plan, check(pipeline.plan)

    def run(memory_bytes: int) -> Ran | None:
        if way == "text":
            return run_text_plan(plan, memory_bytes, scratch, checked)
        return run_files(plan, memory_bytes, scratch, way, checked)

    memory_bytes, refused = 1, list[str]()
    while len(refused) < 5:
        try:
            run(memory_bytes)
        except CapTooSmall as error:
            memory_bytes = error.needed_bytes
            refused.append(f"{error.because}: {memory_bytes} bytes")
        else:
            break
    return refused


@pytest.mark.nightly
@pytest.mark.parametrize("way", ["text", "jsonl"])
@pytest.mark.parametrize("name", AGGREGATES)
def test_one_refusal_names_the_memory_of_aggregate_states(
    name: str, way: str, tmp_path: Path
) -> None:
    refused = refusals([AGGREGATES[name]], way, 40, tmp_path)
    assert len(refused) <= 1, refused


@pytest.mark.nightly
def test_a_group_of_many_texts_that_was_spilled_is_no_longer_than_its_texts_make_it(
    tmp_path: Path,
) -> None:
    refused = refusals([OTHERS["sort"], AGGREGATES["many states"]], "csv", 40, tmp_path)
    assert len(refused) == 1, refused


@pytest.mark.nightly
@pytest.mark.parametrize("rows", [0, 700])
def test_one_refusal_names_the_memory_of_a_plan_of_several_stages(
    rows: int, tmp_path: Path
) -> None:
    def whole(pipeline: Pipeline) -> Pipeline:
        kept = AGGREGATES["every aggregate"](pipeline.filter("i8 is not null"))
        return kept.distinct("i8").filter("i8 > 0").window((), "i8", r="rank()")

    refused = refusals([whole], "jsonl", rows, tmp_path)
    assert len(refused) == 1, refused


@pytest.mark.nightly
def test_one_refusal_names_the_memory_of_a_wide_window(tmp_path: Path) -> None:
    def wide(pipeline: Pipeline) -> Pipeline:
        more = {f"x{n}": f"i8 + {n}" for n in range(300)}
        return pipeline.select("i8", "n", **more).window("i8", "n", r="row_number()", m="max(x3)")

    refused = refusals([wide], "jsonl", 40, tmp_path)
    assert len(refused) == 1, refused


@pytest.mark.nightly
def test_memory_that_a_process_grew_by_is_named_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema, table = random_table(COLUMNS, 3, 7, nul=False)
    write_table(table, schema, tmp_path / "l.jsonl")
    plan = scan(tmp_path / "l.jsonl", schema=schema).sort("t").plan
    named = []
    for grown_bytes in (0, 3 << 20):
        monkeypatch.setattr(EntryContext, "grown_bytes", lambda _, grown=grown_bytes: grown)
        with pytest.raises(CapTooSmall) as refused:
            run_files(plan, 1 << 20, tmp_path, "jsonl", schema)
        named.append(refused.value.needed_bytes)
    assert named[1] - named[0] == 3 << 20


@pytest.mark.nightly
def test_a_cap_below_the_libraries_is_refused_for_the_whole_plan(tmp_path: Path) -> None:
    schema, table = random_table(COLUMNS, 3, 7, nul=False)
    write_table(table, schema, tmp_path / "l.jsonl")
    rows = scan(tmp_path / "l.jsonl", schema=schema)
    plan = rows.sort("t").window("t", "n", r="rank()").sink(tmp_path / "out.parquet").plan
    with Engine(EngineConfig(spill_dir=tmp_path / "spill")) as engine:
        with pytest.raises(CapTooSmall, match=r"at least [45]\d") as refused:
            engine.run(plan, mem_cap=16 << 20)
        assert refused.value.cap_bytes == 16 << 20
        assert refused.value.needed_bytes > FLOOR_BYTES
        engine.run(plan, mem_cap=refused.value.needed_bytes)


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("cap_mib", [64, 100])
@pytest.mark.parametrize("verb", ["sort", "distinct", "window"])
def test_a_reused_process_accepts_thousands_of_columns_on_the_next_request(
    verb: str, cap_mib: int, tmp_path: Path
) -> None:
    path, names = tmp_path / "wide.csv", ["k", *(f"c{n}" for n in range(1, 3000))]
    lines = [",".join(map(str, (n % 10, *range(n, n + 2999)))) for n in range(60)]
    path.write_text("\n".join([",".join(names), *lines]) + "\n")
    verbs: dict[str, Verb] = {
        "sort": lambda rows: rows.sort("k", "c7:desc"),
        "distinct": lambda rows: rows.distinct("k"),
        "window": lambda rows: rows.window("k", "c1", r="rank()"),
    }
    plan = verbs[verb](scan(path)).sink(tmp_path / "out.arrow").plan
    config = EngineConfig(spill_dir=tmp_path / "spill", mem_cap_bytes=1 << 30)
    with Engine(config) as engine:
        try:
            engine.run(plan, mem_cap=cap_mib << 20)
        except CapTooSmall as error:
            engine.run(plan, mem_cap=error.needed_bytes)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rows", [0, 1, 40, 3000])
def test_one_refusal_is_enough_for_any_two_operators(rows: int, way: str, tmp_path: Path) -> None:
    pairs = itertools.product(OTHERS.items(), {**OTHERS, **AGGREGATES}.items())
    for number, ((one, first), (two, second)) in enumerate(pairs):
        if one == two == "window":  # they would call their columns the same
            continue
        scratch = tmp_path / str(number)
        scratch.mkdir()
        refused = refusals([first, second], way, rows, scratch)
        assert len(refused) <= 1, (one, two, refused)


@pytest.mark.nightly
def test_page_headers_are_read_once_for_all_caps_that_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks: list[object] = []

    def counted(*args: Any) -> Any:
        walks.append(args)
        return walk_chunks(*args)

    monkeypatch.setattr(parquet_groups, "walk_chunks", counted)
    schema, table = random_table(COLUMNS, 40, 7, nul=False)
    write_table(table, schema, tmp_path / "l.parquet")
    plan = scan(tmp_path / "l.parquet", schema=schema).sort("t").plan
    with pytest.raises(CapTooSmall):
        run_files(plan, 1 << 20, tmp_path, "parquet", check(plan))
    assert len(walks) == 2, "by what was refused, and by all trials"
