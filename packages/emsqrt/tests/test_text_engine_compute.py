"""Filters, computed columns and computed arguments over text: the same rows as the other tier's."""

from pathlib import Path

import pyarrow.csv
import pyarrow.parquet
import pytest

from emsqrt import Engine, EngineConfig, Pipeline, scan
from emsqrt.errors import ValueOutOfRange
from emsqrt.text_engine.compile import try_compile


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compute") / "in.csv"
    lines = ["id,price,qty,name,day,ok"]
    for at in range(30_000):
        price = "" if at % 13 == 0 else f"{at % 997}.{at % 100:02d}"
        quantity = "" if at % 17 == 0 else str(at % 51)
        day = f"19{90 + at % 9}-{1 + at % 12:02d}-{1 + at % 28:02d}"
        ok = "true" if at % 2 else "false"
        lines.append(f'{at},{price},{quantity},"na""me, {at % 11}",{day},{ok}')
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(EngineConfig(mem_cap_bytes=128 << 20))


PIPELINES = {
    "comparison": lambda rows: rows.filter("price > 500 and qty < 10 or ok"),
    "three values": lambda rows: rows.filter("not (price > 500 and qty < 10)"),
    "text": lambda rows: rows.filter("name like 'na%' and name != 'na\"me, 3'"),
    "day": lambda rows: rows.filter("day >= date '1994-01-01' and day < date '1995-01-01'"),
    "lists": lambda rows: rows.filter("qty in (1, 2, 3) or id between 100 and 120"),
    "nulls": lambda rows: rows.filter("price is null or qty is not null"),
    "columns": lambda rows: rows.select(
        "id", double="price * 2", total="price * qty", big="id > 9"
    ),
    "added": lambda rows: rows.with_columns(id="id + 1", total="price * qty"),
    "groups": lambda rows: (
        rows.filter("ok")
        .group_by("name", big="qty > 20")
        .agg(total="sum(price * qty)", n="count(*)", most="max(id - qty)")
    ),
    "above groups": lambda rows: (
        rows.group_by("name").agg(n="count(*)", s="sum(qty)").filter("s > 61000").sort("s:desc")
    ),
}


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", PIPELINES)
def test_both_tiers_return_the_same_rows(
    source: Path, tmp_path: Path, engine: Engine, name: str
) -> None:
    pipeline: Pipeline = PIPELINES[name](scan(source))
    text_plan = pipeline.sink(tmp_path / "text.csv").plan
    assert try_compile(text_plan, Path()) is not None
    manifest = engine.run(text_plan, mem_cap="32MiB")
    assert manifest.peak_bytes <= manifest.cap_bytes
    engine.run(pipeline.sink(tmp_path / "arrow.parquet").plan)
    expected = pyarrow.parquet.read_table(tmp_path / "arrow.parquet")
    options = pyarrow.csv.ConvertOptions(
        column_types=expected.schema, strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    found = pyarrow.csv.read_csv(tmp_path / "text.csv", convert_options=options)
    assert manifest.rows_out == found.num_rows > 0
    assert found.equals(expected)


def test_expressions_without_a_kernel_program_use_the_other_tier(source: Path) -> None:
    pipeline = scan(source).filter("upper(name) = 'X'").sink("out.csv")
    assert try_compile(pipeline.plan, Path()) is None


def test_a_row_without_a_result_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text(f"a\n1\n{2**63 - 1}\n")
    with pytest.raises(ValueOutOfRange, match="9223372036854775807"):
        scan(source).select(b="a + 1").sink(tmp_path / "out.csv").run(mem_cap="32MiB")
    assert not (tmp_path / "out.csv").exists()
