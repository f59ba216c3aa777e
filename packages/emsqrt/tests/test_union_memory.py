"""UNION of branches that each hold the working set: the second one gets what the first returned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from emsqrt import Pipeline, scan, sql

BRANCHES: dict[str, tuple[Callable[[Pipeline], Pipeline], list[str]]] = {
    "sort": (lambda rows: rows.sort("n"), ["1,b", "1,b", "2,a"]),
    "top": (lambda rows: rows.top_k(2, "n:desc"), ["2,a", "1,b"]),
    "distinct": (lambda rows: rows.distinct(), ["1,b", "2,a"]),
    "group": (lambda rows: rows.group_by("n").agg(t="max(t)"), ["1,b", "2,a"]),
    "join": (lambda rows: rows.join(rows, on=["n", "t"], how="semi"), ["2,a", "1,b", "1,b"]),
}


NAMES = list(BRANCHES)
PAIRS = [(one, other) for at, one in enumerate(NAMES) for other in (one, NAMES[at - 1])]


@pytest.fixture
def two(tmp_path: Path) -> Path:
    path = tmp_path / "two.csv"
    path.write_text("n,t\n2,a\n1,b\n1,b\n")
    return path


@pytest.mark.sample(3)
@pytest.mark.parametrize("names", PAIRS, ids="-".join)
def test_both_branches_of_a_union_get_the_working_set(two: Path, names: tuple[str, str]) -> None:
    (first, rows), (second, more) = (BRANCHES[name] for name in names)
    target = two.with_name("out.csv")
    union = first(scan(two)).union(second(scan(two))).sink(target)
    manifest = union.run(mem_cap="32MiB")
    assert manifest.tier == "text"
    assert manifest.peak_bytes <= manifest.cap_bytes
    assert target.read_text().splitlines()[1:] == [*rows, *more]


@pytest.mark.parametrize("cap", ["16MiB", "128MiB", "512MiB"])
def test_a_union_of_three_sorts_runs_at_every_cap(two: Path, cap: str) -> None:
    target = two.with_name("out.csv")
    branch = scan(two).sort("n")
    branch.union(scan(two).sort("n"), scan(two).sort("n")).sink(target).run(mem_cap=cap)
    assert target.read_text().splitlines()[1:] == ["1,b", "1,b", "2,a"] * 3


def test_a_union_of_sorts_is_sorted_again(two: Path) -> None:
    target = two.with_name("out.jsonl")
    union = scan(two).sort("n").union(scan(two).distinct())
    union.sort("t:desc", "n").limit(4).sink(target).run(mem_cap="24MiB")
    assert [line[-3] for line in target.read_text().splitlines()] == ["b", "b", "b", "a"]


@pytest.mark.nightly
def test_a_parquet_union_of_sorts_gets_the_working_set_twice(two: Path) -> None:
    source = two.with_name("two.parquet")
    pq.write_table(scan(two).collect(), source)
    rows = scan(source).sort("n").union(scan(source).distinct()).collect(mem_cap="64MiB")
    assert rows.column("t").to_pylist() == ["b", "b", "a", "b", "a"]


def test_union_of_sql_removes_equal_rows_of_grouped_branches(two: Path) -> None:
    target = two.with_name("out.csv")
    query = "select n, count(*) as c from two group by n"
    sql(f"{query} union {query}", {"two": scan(two)}).sink(target).run(mem_cap="32MiB")
    assert sorted(target.read_text().splitlines()[1:]) == ["1,2", "2,1"]
