from __future__ import annotations

import gzip
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt.expr import parse_expr
from emsqrt.expr.evaluate import evaluate
from emsqrt.io.inference import infer_schema
from emsqrt.io.parquet_pages import walk_chunks
from emsqrt.io.scan import open_scan
from emsqrt.io.sinks import open_sink
from emsqrt.memory import MemoryBudget
from emsqrt.plan import DatasetRef, Files, FileTarget
from emsqrt.spill import SpillManager
from sennit_core.errors import BadInput, CapTooSmall, NotFound, UnknownColumn, Unsupported
from sennit_core.schema import Schema

MIB = 1 << 20


def table(rows: int) -> pa.Table:
    return pa.table({"n": list(range(rows)), "s": [f"text {n:06d}" for n in range(rows)]})


def read(
    source: Files, schema: Schema, budget_bytes: int = 32 * MIB, **options: object
) -> pa.Table:
    with MemoryBudget(budget_bytes) as budget:
        with open_scan(source, schema, budget, **options) as scan:  # type: ignore[arg-type]
            batches = list(scan)
            assert scan.bytes_done == scan.bytes_total
        return pa.Table.from_batches(batches, None if batches else schema.to_arrow())


@pytest.fixture
def one_page(tmp_path: Path) -> Path:
    """A file whose one row group has one page for each column."""
    path = tmp_path / "one_page.parquet"
    pq.write_table(
        table(200_000),
        path,
        row_group_size=200_000,
        data_page_size=64 * MIB,
        max_rows_per_page=200_000,
        use_dictionary=False,
    )
    return path


def test_pages_are_measured_from_their_headers(one_page: Path) -> None:
    metadata = pq.read_metadata(one_page)
    n, s = walk_chunks(one_page, metadata, frozenset({"n", "s"}))
    assert (n.column, n.row_group, n.dictionary_bytes) == ("n", 0, 0)
    assert 1_600_000 <= n.plain_bytes < 1_700_000
    assert 3_000_000 <= s.plain_bytes < 3_100_000
    assert s.stored_bytes == pytest.approx(
        metadata.row_group(0).column(1).total_compressed_size, rel=0.01
    )


def test_many_small_pages_and_dictionaries_are_distinguished(tmp_path: Path) -> None:
    path = tmp_path / "small.parquet"
    coded = pa.table({"c": [f"value {n % 100}" for n in range(100_000)]})
    pq.write_table(coded, path, data_page_size=8192, row_group_size=50_000)
    chunks = list(walk_chunks(path, pq.read_metadata(path), frozenset({"c"})))
    assert [chunk.row_group for chunk in chunks] == [0, 1]
    assert all(chunk.plain_bytes < 50_000 for chunk in chunks)
    assert all(1000 < chunk.dictionary_bytes < 2000 for chunk in chunks)


@pytest.mark.slow
@given(st.binary(min_size=1, max_size=40), st.integers(0, 3000))
def test_damaged_page_headers_are_refused_or_measured(
    tmp_path_factory: pytest.TempPathFactory, damage: bytes, at: int
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "f.parquet"
    pq.write_table(table(100), path)
    metadata = pq.read_metadata(path)
    data = bytearray(path.read_bytes())
    data[at : at + len(damage)] = damage[: max(len(data) - at, 0)]
    path.write_bytes(data)
    with suppress(BadInput):
        for chunk in walk_chunks(path, metadata, frozenset({"n", "s"})):
            assert chunk.held_bytes >= 0


def test_a_file_is_read_in_batches_that_suit_the_budget(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    pq.write_table(table(100_000), path, data_page_size=64 << 10)
    source = Files((str(path),), "parquet")
    schema = infer_schema(source)
    assert schema == Schema.of(n="Int64", s="Utf8")
    assert read(source, schema, 8 * MIB).equals(table(100_000))


def test_columns_are_pruned_ordered_and_cast(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"a": [1, 2], "b": ["x", "y"], "c": [1.5, None]}), path)
    source = Files((str(path),), "parquet")
    schema = Schema.of(a="Int32", b="Utf8", c="Float64")
    found = read(source, schema, columns=["c", "a"])
    assert found.column_names == ["c", "a"]
    assert (str(found["a"].type), found["a"].to_pylist()) == ("int32", [1, 2])


def test_a_value_that_does_not_fit_the_wanted_type_is_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"a": [1, 300]}), path)
    with pytest.raises(BadInput, match=r"column 'a' is int64, not int8"):
        read(Files((str(path),), "parquet"), Schema.of(a="Int8"))


def test_pages_over_the_budget_are_refused_before_reading_with_the_need(one_page: Path) -> None:
    source = Files((str(one_page),), "parquet")
    schema = infer_schema(source)
    with (
        MemoryBudget(4 * MIB, whole_bytes=64 * MIB) as budget,
        pytest.raises(CapTooSmall, match=r"row group 0 of one_page.*column s has a 2\.9 MiB") as e,
    ):
        open_scan(source, schema, budget)
    assert e.value.cap_bytes == 64 * MIB
    needed = e.value.needed_bytes - 60 * MIB
    assert read(source, schema, needed).num_rows == 200_000
    with MemoryBudget(4 * MIB) as budget, open_scan(source, schema, budget, ["n"]):
        pass


def test_several_files_are_one_source_and_the_hungriest_decides(
    one_page: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small.parquet"
    pq.write_table(table(10), small)
    source = Files((str(small), str(one_page)), "parquet")
    assert read(source, infer_schema(source)).num_rows == 200_010
    with MemoryBudget(4 * MIB) as budget, pytest.raises(CapTooSmall, match="one_page"):
        open_scan(source, infer_schema(source), budget)


@pytest.mark.parametrize("form", ["file", "stream"])
def test_arrow_files_and_streams_are_read_alike(tmp_path: Path, form: str) -> None:
    path = tmp_path / "f.arrow"
    opened = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    with pa.OSFile(str(path), "wb") as out, opened(out, table(1).schema) as writer:
        writer.write_table(table(5000), max_chunksize=1000)
    source = Files((str(path),), "arrow")
    assert read(source, infer_schema(source), columns=["s"]).equals(table(5000).select(["s"]))


def test_no_files_are_no_rows() -> None:
    source, schema = Files((), "csv"), Schema.of(a="Int64")
    with MemoryBudget(MIB) as budget, open_scan(source, schema, budget) as scan:
        assert list(scan) == []


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_a_file_of_another_format_is_bad_input(tmp_path: Path, format: str) -> None:  # noqa: A002
    path = tmp_path / "f"
    path.write_text("a,b\n1,2\n" * 100)
    with pytest.raises(BadInput, match="this is not"):
        infer_schema(Files((str(path),), format))


def test_missing_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"missing\.csv"):
        infer_schema(Files((str(tmp_path / "missing.csv"),), "csv"))
    with pytest.raises(Unsupported, match="'flights' is not resolved"):
        infer_schema(DatasetRef("flights"))
    path = tmp_path / "f.parquet"
    pq.write_table(table(1), path)
    with MemoryBudget(MIB) as budget, pytest.raises(UnknownColumn, match='"m"'):
        open_scan(Files((str(path),), "parquet"), Schema.of(m="Int64"), budget)


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_a_sink_shows_its_file_only_when_it_is_whole(tmp_path: Path, format: str) -> None:  # noqa: A002
    path = tmp_path / "new" / f"out.{format}"
    schema = Schema.of(n="Int64", s="Utf8")
    with MemoryBudget(32 * MIB) as budget:
        sink = open_sink(FileTarget(str(path), format), schema, budget, bytes)
        with sink:
            for batch in table(50_000).to_batches(max_chunksize=7000):
                sink.write(batch)
            assert [file.suffix for file in path.parent.iterdir()] == [".tmp"]
    assert (sink.rows, sink.bytes) == (50_000, path.stat().st_size)
    assert list(path.parent.iterdir()) == [path]
    source = Files((str(path),), format)
    assert read(source, infer_schema(source)).equals(table(50_000))


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_a_sink_that_fails_leaves_the_old_file(tmp_path: Path, format: str) -> None:  # noqa: A002
    path = tmp_path / f"out.{format}"
    path.write_text("before")
    with MemoryBudget(32 * MIB) as budget:
        sink = open_sink(FileTarget(str(path), format), Schema.of(n="Int64"), budget, bytes)
        with pytest.raises(AttributeError), sink:
            sink.write("not a batch")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_parquet_file_keeps_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "empty.parquet"
    schema = Schema.of(n="Int64", d="Decimal(9,2)")
    with (
        MemoryBudget(32 * MIB) as budget,
        open_sink(FileTarget(str(path), "parquet"), schema, budget, bytes),
    ):
        pass
    assert infer_schema(Files((str(path),), "parquet")) == schema
    assert read(Files((str(path),), "parquet"), schema).num_rows == 0


def test_row_groups_that_cannot_match_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    pq.write_table(table(10_000), path, row_group_size=1000)
    source = Files((str(path),), "parquet")
    schema = infer_schema(source)
    for text, groups in [
        ("n >= 9500", 1),
        ("n < 1000 and s >= 'text'", 1),
        ("2500 > n and n > 1500", 2),
        ("n = 77 or n = 9999", 10),
        ("n in (5, 5005)", 2),
        ("n between 100 and 200", 1),
        ("n is null", 0),
        ("n + 1 = 5", 10),
        ("n = 'x'", 10),
    ]:
        found = read(source, schema, predicate=parse_expr(text))
        assert found.num_rows == groups * 1000, text


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("Decimal(9,2)", Decimal("0.10"), "x >= 0.1"),
        ("Decimal(9,2)", Decimal("0.10"), "x in (0.1, 5)"),
        ("Decimal(9,2)", Decimal("0.30"), "x <= 0.3"),
        ("Float64", 0.1, "x <= Decimal(2,1) '0.1'"),
        ("Int64", 2**53 + 1, "x = 9007199254740992.0"),
        ("UInt64", 2**63 + 1, "x <= 9223372036854775808.0"),
        ("Float64", 2.0**53, "x = 9007199254740993"),
    ],
)
def test_a_float_and_an_exact_number_compare_alike_with_bounds_and_values(
    tmp_path: Path, kind: str, value: object, text: str
) -> None:
    path, schema = tmp_path / "f.parquet", Schema.of(x=kind)
    rows = pa.table({"x": [value]}, schema=schema.to_arrow())
    pq.write_table(rows, path, store_decimal_as_integer=True)
    predicate = parse_expr(text)

    assert evaluate(predicate, rows.to_batches()[0]).to_pylist() == [True]
    found = read(Files((str(path),), "parquet"), schema, predicate=predicate)
    assert found.num_rows == 1


NUMBERS: dict[str, list[object]] = {
    "Float64": [None, float("nan"), 0.0, -0.0, -2.5, 0.1],
    "Decimal(18,1)": [None, *map(Decimal, ("0", "0.1", "-2.5", "0.3"))],
    "Int64": [None, 0, 2**53, 2**53 + 1],
}
CONSTANTS = (
    *("9007199254740993", "0.0", "0.1", "0.3", "-2.5", "9007199254740992.0"),
    "Decimal(2,1) '0.1'",
)


@pytest.mark.slow
@given(
    st.sampled_from(sorted(NUMBERS)).flatmap(
        lambda kind: st.tuples(
            st.just(kind), st.lists(st.sampled_from(NUMBERS[kind]), min_size=1, max_size=4)
        )
    ),
    st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    st.sampled_from(CONSTANTS),
)
def test_nothing_that_matches_is_ever_left_out(
    tmp_path_factory: pytest.TempPathFactory,
    column: tuple[str, list[object]],
    test: str,
    bound: str,
) -> None:
    kind, values = column
    path, schema = tmp_path_factory.mktemp("numbers") / "f.parquet", Schema.of(x=kind)
    rows = pa.table({"x": values}, schema=schema.to_arrow())
    pq.write_table(rows, path, row_group_size=2)
    predicate = parse_expr(f"x {test} {bound}")
    source = Files((str(path),), "parquet")

    def kept(found: pa.Table) -> list[str]:
        batches = [evaluate(predicate, batch) for batch in found.to_batches()]
        return [
            str(value)
            for batch, mask in zip(found.to_batches(), batches, strict=True)
            for value in batch["x"].filter(mask).to_pylist()
        ]

    assert kept(read(source, schema, predicate=predicate)) == kept(rows)


@pytest.mark.slow
def test_a_row_group_that_does_not_fit_is_read_in_passes(one_page: Path, tmp_path: Path) -> None:
    source = Files((str(one_page),), "parquet")
    schema = infer_schema(source)
    with pytest.raises(CapTooSmall, match="column s has a"):
        read(source, schema, 9 * MIB)
    with SpillManager(tmp_path / "spill") as spill:
        found = read(source, schema, 9 * MIB, spill=lambda: spill)
        assert spill.stats.segments == 1
        assert spill.stats.live_bytes == 0
    assert found.equals(table(200_000))


def test_a_single_page_that_does_not_fit_is_refused(one_page: Path, tmp_path: Path) -> None:
    source = Files((str(one_page),), "parquet")
    with (
        SpillManager(tmp_path / "spill") as spill,
        pytest.raises(CapTooSmall, match=r"row group 0 of one_page.*column s has a 2\.9 MiB page"),
    ):
        read(source, infer_schema(source), 3 * MIB, spill=lambda: spill)


def test_damage_in_a_row_group_is_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    pq.write_table(table(50_000), path, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[3000:3100] = bytes(100)
    path.write_bytes(data)
    source = Files((str(path),), "parquet")
    with pytest.raises(BadInput, match=r"cannot be read|bad page header"):
        read(source, Schema.of(n="Int64", s="Utf8"))


def test_an_encrypted_footer_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    path.write_bytes(b"PARE" + bytes(100) + b"PARE")
    with pytest.raises(BadInput, match="encrypted"):
        infer_schema(Files((str(path),), "parquet"))


def test_parquet_is_not_read_from_a_pipe_or_from_gzip(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    path.write_bytes(gzip.compress(b"PAR1"))
    with MemoryBudget(MIB) as budget, pytest.raises(BadInput, match="inside gzip"):
        open_scan(Files((str(path),), "parquet"), Schema.of(n="Int64"), budget)


@pytest.mark.parametrize("text", ["1e-999999999", "100000000", "x"])
def test_texts_are_read_as_decimals_or_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    source = Files((str(path),), "parquet")
    schema = Schema.of(t="Decimal(10,2)")
    pq.write_table(pa.table({"t": ["7", None, "2.50"]}), path)
    assert read(source, schema)["t"].to_pylist() == [Decimal(7), None, Decimal("2.5")]
    pq.write_table(pa.table({"t": ["7", text]}), path)
    with pytest.raises(BadInput, match=f"'{text}' is not a Decimal"):
        read(source, schema)


def test_a_folder_with_a_decimal_that_is_none_is_refused(tmp_path: Path) -> None:
    for text in ("2.5", "1e-999999999"):
        folder = tmp_path / text / f"p={text}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"a": [1]}), folder / "in.parquet")
    schema = Schema.of(a="Int64", p="Decimal(10,2)")
    rows = read(Files((str(tmp_path / "2.5"),), "parquet"), schema)
    assert rows["p"].to_pylist() == [Decimal("2.5")]
    with pytest.raises(BadInput, match="the folder p=1e-999999999 is not"):
        read(Files((str(tmp_path / "1e-999999999"),), "parquet"), schema)
