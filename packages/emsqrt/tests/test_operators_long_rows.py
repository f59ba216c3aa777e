"""Rows of several MiB leave operators that hold rows, where the cap has room for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pyarrow import parquet

from emsqrt import Engine, EngineConfig, scan
from emsqrt.plan.nodes import JoinKind
from sennit_core.errors import BadInput, CapTooSmall
from sennit_core.schema import Schema
from sennit_core.units import MIB

TEXT_BYTES = 3 * MIB
IDS = (4, 1, 3, 0, 2)
VERBS: dict[str, Callable[[Any], Any]] = {
    "sort": lambda rows: rows.sort("id"),
    "top": lambda rows: rows.sort("id").limit(5),
    "text": lambda rows: rows.sort("t"),
    "distinct": lambda rows: rows.distinct("id"),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "t.parquet"
    texts = [chr(97 + number) * (TEXT_BYTES + number if number % 2 else 10) for number in IDS]
    parquet.write_table(pa.table({"id": IDS, "t": texts}), path, row_group_size=2)
    return path


def run(source: Path, target: Path, verb: str, mem_cap: int) -> list[int]:
    engine = Engine(EngineConfig(spill_dir=target.parent / "spill"))
    VERBS[verb](scan(source)).sink(target).run(mem_cap, engine=engine, in_process=True)
    found = parquet.read_table(target).to_pylist()
    for row in found:
        assert row["t"][:1] == chr(97 + row["id"])
        assert len(row["t"]) == (TEXT_BYTES + row["id"] if row["id"] % 2 else 10)
    return [row["id"] for row in found]


@pytest.mark.parametrize("verb", VERBS)
def test_rows_of_some_mib_come_out(verb: str, source: Path, tmp_path: Path) -> None:
    assert run(source, tmp_path / "out.parquet", verb, 448 * MIB) == [0, 1, 2, 3, 4]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of the same ids backwards, of other long texts, and one without a partner."""
    path = tmp_path_factory.mktemp("other") / "u.parquet"
    rows = [(number, chr(65 + number) * (TEXT_BYTES if number < 2 else 5)) for number in range(6)]
    ids, texts = zip(*rows[::-1], strict=True)
    parquet.write_table(pa.table({"id": ids, "u": texts}), path, row_group_size=2)
    return path


def joined(source: Path, other: Path, target: Path, mem_cap: int, **how: Any) -> list[Any]:
    engine = Engine(EngineConfig(spill_dir=target.parent / "spill"))
    rows = scan(source).join(scan(other), **how)
    rows.sink(target).run(mem_cap, engine=engine, in_process=True)
    found: list[Any] = parquet.read_table(target).to_pylist()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("how", ["inner", "full", "semi", "cross"])
def test_rows_of_some_mib_are_joined(
    how: JoinKind, source: Path, other: Path, tmp_path: Path
) -> None:
    on = () if how == "cross" else "id"
    found = joined(source, other, tmp_path / "out.parquet", 448 * MIB, on=on, how=how)
    ones = {row["id"]: row["t"] for row in parquet.read_table(source).to_pylist()}
    others = {row["id"]: row["u"] for row in parquet.read_table(other).to_pylist()}
    if how == "cross":
        wanted = [(ones[one], others[other]) for one in IDS for other in others]
    elif how == "semi":
        wanted = [(ones[one], None) for one in IDS]
    else:
        wanted = [(ones.get(one), others[one]) for one in (*IDS, 5)[: 6 if how == "full" else 5]]
    assert [(row["t"], row.get("u")) for row in found] == wanted


def test_rows_of_some_mib_are_joined_by_their_texts(source: Path, tmp_path: Path) -> None:
    found = joined(source, source, tmp_path / "out.parquet", 640 * MIB, on="t", how="inner")
    assert [row["id"] for row in found] == list(IDS)


@pytest.mark.nightly
def test_the_cap_that_a_refused_join_names_is_enough(
    source: Path, other: Path, tmp_path: Path
) -> None:
    with pytest.raises(CapTooSmall, match=r"a row to be joined needs 3\.0 MiB") as refusal:
        joined(source, other, tmp_path / "out.parquet", 64 * MIB, on="id")
    mem_cap = refusal.value.needed_bytes
    assert mem_cap < 160 * MIB
    assert len(joined(source, other, tmp_path / "out.parquet", mem_cap, on="id")) == len(IDS)


@pytest.mark.nightly
def test_the_cap_that_a_refusal_names_is_enough(source: Path, tmp_path: Path) -> None:
    with pytest.raises(CapTooSmall) as refusal:
        run(source, tmp_path / "out.parquet", "sort", 40 * MIB)
    mem_cap = refusal.value.needed_bytes
    assert mem_cap < 80 * MIB
    assert run(source, tmp_path / "out.parquet", "sort", mem_cap) == [0, 1, 2, 3, 4]


GROUPINGS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "count by text": (lambda rows: rows.group_by("t").agg(n="count(*)"), "t, count(*) n from r group by t"),
    "distinct": (lambda rows: rows.select("t").distinct(), "distinct t from r"),
    "max": (lambda rows: rows.group_by("k").agg(m="max(t)"), "k, max(t) m from r group by k"),
    "first": (lambda rows: rows.agg(m="first(t)"), "first(t) m from r"),
    "different": (
        lambda rows: rows.group_by("k").agg(n="count(distinct t)"),
        "k, count(distinct t) n from r group by k",
    ),
}  # fmt: skip


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("grouping", "count"), [*((name, 12) for name in GROUPINGS), ("count by text", 70), ("max", 70)]
)
def test_groups_of_long_texts_come_out(grouping: str, count: int, tmp_path: Path) -> None:
    texts = [f"{at % (count - 3)}" * (TEXT_BYTES // 2 if at % 4 else 1) for at in range(count)]
    rows = pa.table({"k": [at % (count - 2) for at in range(count)], "t": texts})
    parquet.write_table(rows, tmp_path / "r.parquet", row_group_size=2)
    build, query = GROUPINGS[grouping]
    made = build(scan(tmp_path / "r.parquet")).sink(tmp_path / "out.parquet")
    engine = Engine(EngineConfig(spill_dir=tmp_path / "spill"))
    manifest = made.run(512 * MIB, engine=engine, in_process=True)
    found = parquet.read_table(tmp_path / "out.parquet").to_pydict()
    reference = duckdb.connect()
    reference.execute("create table r as from read_parquet(?)", [str(tmp_path / "r.parquet")])
    wanted = reference.execute(f"select {query}").fetchall()
    assert sorted(zip(*found.values(), strict=True)) == sorted(wanted)
    assert (manifest.spilled_bytes > 64 * MIB) == (count == 70)


@pytest.mark.nightly
@pytest.mark.parametrize("grouping", GROUPINGS)
def test_refusals_of_long_groups_lead_to_a_cap_that_works(grouping: str, tmp_path: Path) -> None:
    rows = pa.table({"k": [1, 2, 1], "t": ["x" * TEXT_BYTES, "y", "z" * TEXT_BYTES]})
    parquet.write_table(rows, tmp_path / "r.parquet", row_group_size=2)
    build, _ = GROUPINGS[grouping]
    made = build(scan(tmp_path / "r.parquet")).sink(tmp_path / "out.parquet")
    caps = [40 * MIB]
    while caps[-1] < 1024 * MIB:
        try:
            made.run(caps[-1], in_process=True)
            break
        except CapTooSmall as refused:
            caps.append(refused.needed_bytes)
    assert 2 <= len(caps) <= 4
    assert parquet.read_table(tmp_path / "out.parquet").num_rows in (1, 2, 3)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_record_longer_than_the_plan_allows_is_bad_input(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"in.{kind}"
    path.write_text("a\n" + "y" * MIB if kind == "csv" else '{"a":"' + "y" * MIB + '"}')
    schema, limit = Schema.of(a="Utf8"), "500KiB"
    rows = scan(path, schema=schema, recordBytesMax=limit).with_column("b", "upper(a)")
    with pytest.raises(BadInput, match=r"(longer than|over) 500"):
        rows.sink(tmp_path / "out.parquet").run("256MiB", in_process=True)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_long_record_is_read_with_a_cap_that_refusals_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"in.{kind}"
    long = "y" * (8 * MIB)
    path.write_text(f"a\n{long}\n" if kind == "csv" else f'{{"a":"{long}"}}\n')
    rows = scan(path, schema=Schema.of(a="Utf8")).select(n="length(a)")
    caps = [48 * MIB]
    while caps[-1] < 1024 * MIB:
        try:
            rows.sink(tmp_path / "out.parquet").run(caps[-1], in_process=True)
            break
        except CapTooSmall as refused:
            caps.append(refused.needed_bytes)
    assert 2 <= len(caps) <= 4
    assert parquet.read_table(tmp_path / "out.parquet").to_pylist() == [{"n": 8 * MIB}]
