"""JSON Lines, other dialects and compressed files: both tiers read and write the same."""

import csv
import gzip
import io
import json
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emsqrt import Pipeline, col, scan
from emsqrt.executor.context import EntryContext
from emsqrt.local_runner import _Standard
from emsqrt.memory import MemoryBudget
from emsqrt.plan import plan_to_json
from emsqrt.session import run_plan
from emsqrt.text_engine.compile import try_compile
from emsqrt.text_engine.session import run_text
from sennit_core.errors import BadInput, UsageError
from sennit_core.schema import DataType, Field, Schema

CAP_BYTES = 64 << 20


def run_both(pipeline: Pipeline, folder: Path, suffix: str) -> tuple[bytes, bytes]:
    """Run a pipeline in each tier, and return what the lean one wrote, and the other one."""
    texts = []
    for tier in ("text", "arrow"):
        target = folder / f"{tier}{suffix}"
        plan = pipeline.sink(target).plan
        with ExitStack() as stack:
            budget = stack.enter_context(MemoryBudget(CAP_BYTES))
            context = EntryContext(
                "a test", CAP_BYTES, _Standard(), lambda _: None, folder / "spill", None, budget
            )
            stack.enter_context(closing(context))
            if tier == "text":
                program = try_compile(plan, folder)
                assert program is not None, "the text tier accepts it"
                report = run_text(program, context)
            else:
                run_plan(plan_to_json(plan), context, folder)
        data = target.read_bytes()
        texts.append(gzip.decompress(data) if suffix.endswith(".gz") else data)
    assert report["rowsOut"] == len(rows_of(texts[1])) - (".csv" in suffix)
    return texts[0], texts[1]


def rows_of(text: bytes) -> list[list[float | str]]:
    """Return the fields of a CSV text; numbers are what they are, however they are spelled."""
    return [
        [number_of(field) for field in row]
        for row in csv.reader(io.StringIO(text.decode(), newline=""))
    ]


def number_of(field: str) -> float | str:
    try:
        return float(field)
    except ValueError:
        return field


texts = st.text(st.sampled_from("ab ,;\"'\té€\\|"), max_size=6)
records = st.lists(
    st.tuples(
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.integers(-(10**9), 10**9).map(lambda cents: cents / 100),
        st.none() | texts,
        st.none() | st.dates().map(str),
        st.none() | st.booleans(),
    ),
    min_size=1,
    max_size=12,
)
NAMES = ("i", "f", "t", "d", "b")
QUICK = settings(
    max_examples=settings().max_examples // 10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def write_jsonl(path: Path, rows: list[tuple[object, ...]]) -> Path:
    typed = (1, 0.5, "text", "2020-01-01", True)  # so that every column has its type
    lines = [json.dumps(dict(zip(NAMES, row, strict=True))) for row in [typed, *rows]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.slow
@QUICK
@given(records)
def test_json_lines_come_and_go_as_in_the_arrow_tier(
    tmp_path: Path, rows: list[tuple[object, ...]]
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    for suffix in (".jsonl", ".csv", ".jsonl.gz"):
        text, arrow = run_both(scan(source).sort("i", "t"), tmp_path, suffix)
        assert text == arrow


def spell(value: object, delimiter: str, quoted: bool) -> str:
    if value is None:
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if text == "" or (isinstance(value, str) and quoted) or set(text) & {delimiter, '"'}:
        return '"' + text.replace('"', '""') + '"'
    return text


@pytest.mark.slow
@QUICK
@given(
    records,
    st.sampled_from([",", ";", "\t", "|"]),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_csv_of_any_dialect_returns_the_rows_of_the_arrow_tier(
    tmp_path: Path,
    rows: list[tuple[object, ...]],
    delimiter: str,
    quoted: bool,
    end: str,
    marked: bool,
) -> None:
    typed = (1, 0.5, "text", "2020-01-01", True)
    lines = [delimiter.join(NAMES)]
    lines += [delimiter.join(spell(v, delimiter, quoted) for v in row) for row in [typed, *rows]]
    source = tmp_path / "in.csv"
    source.write_bytes((b"\xef\xbb\xbf" if marked else b"") + (end.join(lines) + end).encode())
    made = scan(source, delimiter=delimiter)
    plans = {
        "sort": made.sort("t", "i"),
        "filter": made.filter(col("i") > 0),
        "agg": made.group_by("t", "b").agg("sum(f)", "count(*)", "max(i)", "min(d)"),
        "join": made.join(made.select("t", "i"), on=["t"], how="left"),
    }
    for plan in plans.values():
        text, arrow = run_both(plan, tmp_path, ".csv")
        assert rows_of(text) == rows_of(arrow)
        text, arrow = run_both(plan, tmp_path, ".jsonl")
        assert text == arrow


def test_other_words_for_null(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text('a,b\n1,NA\nNA,x\n-,"NA"\n3,\n')
    read = scan(source, nullValues=["NA", "-"])
    text, arrow = run_both(read.sort("b"), tmp_path, ".jsonl")
    assert text == arrow
    assert json.loads(text.splitlines()[0]) == {"a": 3, "b": ""}
    text, arrow = run_both(read, tmp_path, ".csv")
    assert text == arrow == b'a,b\n1,\n,x\n,NA\n3,""\n'


def test_options_have_the_names_of_plans_and_pythons() -> None:
    assert scan("a.csv", null_values=["-"]).plan == scan("a.csv", nullValues=["-"]).plan
    rows = scan("a.csv")
    ended = rows.sink("a.parquet", row_group_rows=9)
    assert ended.plan == rows.sink("a.parquet", rowGroupRows=9).plan
    with pytest.raises(UsageError, match="null_values and nullValues are the same option"):
        scan("a.csv", nullValues=["-"], null_values=["+"])


def test_compressed_files(tmp_path: Path) -> None:
    source = tmp_path / "in.csv.gz"
    source.write_bytes(gzip.compress(b"a,b\n2,y\n1,x\n"))
    text, arrow = run_both(scan(source).sort("a"), tmp_path, ".csv.gz")
    assert text == arrow == b"a,b\n1,x\n2,y\n"


@pytest.mark.nightly
@pytest.mark.parametrize("line", ["[1]", '{"i": "x"}', '{"i": 1', '{"i": 99999999999999999999}'])
def test_a_line_that_is_no_row_is_refused_with_its_place(tmp_path: Path, line: str) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"i": 1}\n' * 200_000 + line + "\n")
    with pytest.raises(BadInput) as refused:
        run_both(scan(source).sort("i"), tmp_path, ".jsonl")
    assert refused.value.byte_offset == 200_000 * 9


def test_lists_and_objects_are_for_the_arrow_tier(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"a": [1, 2], "b": 1}\n')
    assert try_compile(scan(source).sink(tmp_path / "out.csv").plan, tmp_path) is None


def test_a_byte_order_mark_of_json_lines_is_no_part_of_the_first(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b'\xef\xbb\xbf{"a":2,"b":"x"}\n{"a":1,"b":"y"}\n')
    text, arrow = run_both(scan(source).sort("a"), tmp_path, ".csv")
    assert text == arrow == b"a,b\n1,y\n2,x\n"


def test_line_ends_are_the_same_for_any_line_ends_of_the_input(tmp_path: Path) -> None:
    source, other = tmp_path / "in.csv", tmp_path / "other.csv"
    other.write_bytes(b"a,b\n4,w\n")

    for header in (b"a,b\r\n", b"a,b\n"):
        source.write_bytes(header + b'2,x\r\n1,"y\r\nz"\r\n3,\r\n')
        for plan in (
            scan(source),
            scan(source, other),
            scan(source).sort("a"),
            scan(source).limit(2),
        ):
            text, arrow = run_both(plan, tmp_path, ".csv")
            assert text.replace(b"y\r\nz", b"").count(b"\r") == 0
            assert b"y\r\nz" in text
            assert rows_of(text) == rows_of(arrow)


@pytest.mark.slow
def test_a_limit_looks_at_the_records_that_it_passes_on(tmp_path: Path) -> None:
    source, schema = (
        tmp_path / "in.csv",
        Schema(tuple(Field(name, DataType.parse("Int64")) for name in "ab")),
    )
    source.write_bytes(b"a,b\n1,2\n3,4,5\n6,7\n")
    rows = scan(source, schema=schema)

    for plan in (rows.limit(2), rows.limit(2).sort("a")):
        with pytest.raises(BadInput) as refused:
            plan.sink(tmp_path / "out.csv").run("64MiB")
        assert refused.value.byte_offset == 8
    assert rows.limit(1).sink(tmp_path / "out.csv").run("64MiB").rows_in == 1
    assert (tmp_path / "out.csv").read_bytes() == b"a,b\n1,2\n"
