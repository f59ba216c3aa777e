"""Groups of text: the results of SQL, the same bytes at any cap, and clear errors."""

import random
from pathlib import Path

import duckdb
import pytest

from emsqrt import Pipeline, scan
from emsqrt.text_engine.compile import why_not_text
from sennit_core.errors import SennitError


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150,000 records of 40,000 groups, with NULLs, floats that do not add up exactly, dates."""
    random_ = random.Random(11)
    path = tmp_path_factory.mktemp("agg") / "in.csv"
    lines = ["k,s,i,f,d"]
    for _ in range(150_000):
        key = random_.randrange(40_000)
        number = "" if key % 7 == 0 else str(random_.randrange(-1000, 1000))
        real = "" if key % 11 == 0 else repr(random_.uniform(-1e3, 1e3))
        lines.append(f"{key},text {key % 90},{number},{real},2024-{1 + key % 12:02d}-17")
    path.write_text("\n".join(lines))
    return path


def run(pipeline: Pipeline, target: Path, cap: str) -> bytes:
    plan = pipeline.sink(target)
    assert why_not_text(plan.plan) is None
    manifest = plan.run(mem_cap=cap)
    assert manifest.peak_bytes <= manifest.cap_bytes
    assert manifest.rows_out == target.read_bytes().count(b"\n") - 1
    return target.read_bytes()


AGGS = {
    "n": "count(*)",
    "si": "sum(i)",
    "sf": "sum(f)",
    "af": "avg(f)",
    "vf": "stddev(f)",
    "lo": "min(s)",
    "hi": "max(d)",
    "u": "count(distinct i)",
    "m": "median(f)",
    "qs": "quantile_disc(s, 0.6)",
    "qd": "quantile_disc(d, 0.1)",
}
SQL = ", ".join(f"{call} as {name}" for name, call in AGGS.items())


@pytest.mark.nightly
@pytest.mark.parametrize("keys", [["k"], ["s"], ["d", "s"], []])
def test_groups_are_those_of_sql_at_any_cap(source: Path, tmp_path: Path, keys: list[str]) -> None:
    grouped = scan(source).group_by(*keys).agg(**AGGS)
    texts = {run(grouped, tmp_path / "out.csv", cap) for cap in ("24MiB", "256MiB")}
    assert len(texts) == 1
    by = f"group by {', '.join(keys)} order by {', '.join(keys)}" if keys else ""
    columns = ", ".join([*keys, SQL])
    with duckdb.connect(config={"threads": 1}) as oracle:
        expected = oracle.execute(f"select {columns} from '{source}' {by}").fetchall()
        found = oracle.execute(f"from read_csv('{tmp_path / 'out.csv'}', header=true)").fetchall()
    assert len(found) == len(expected)
    for got, wanted in zip(found, expected, strict=True):
        for value, right in zip(got, wanted, strict=True):
            is_real = isinstance(right, float) and value is not None
            assert value == (pytest.approx(right, rel=1e-9, abs=1e-9) if is_real else right)


def test_different_records_are_sorted_and_come_once(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("a,b\n2,x\n1,\n2,x\n,y\n1,\n")
    assert run(scan(source).distinct(), tmp_path / "out.csv", "24MiB") == b"a,b\n1,\n2,x\n,y\n"


@pytest.mark.nightly
def test_groups_may_be_sorted_and_cut_again(source: Path, tmp_path: Path) -> None:
    top = scan(source).group_by("k").agg(n="count(*)").top_k(3, "n:desc", "k")
    header, *rows = run(top, tmp_path / "out.csv", "26MiB").decode().splitlines()
    counts = [int(row.split(",")[1]) for row in rows]
    assert header == "k,n"
    assert len(rows) == 3
    assert counts == sorted(counts, reverse=True)


@pytest.mark.slow
def test_no_rows_are_one_group_without_keys(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("a\n")
    found = run(scan(source).agg(n="count(*)", s="min(a)"), tmp_path / "out.csv", "24MiB")
    assert found == b"n,s\n0,\n"


def test_a_sum_beyond_its_type_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text(f"a\n{2**63 - 1}\n1\n")
    with pytest.raises(SennitError, match="out of range for Int64"):
        scan(source).agg(s="sum(a)").sink(tmp_path / "out.csv").run(mem_cap="24MiB")
    assert not (tmp_path / "out.csv").exists()
