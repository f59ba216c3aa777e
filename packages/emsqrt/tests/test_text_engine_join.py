"""Joins, selections, unions and limits over text: SQL's results, in the order of the left side."""

import csv
import random
import struct
from array import array
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt import Pipeline, scan
from emsqrt._kernel import CsvParser, KeySpec, pack_join_rows
from emsqrt.plan import JoinKind
from emsqrt.text_engine.compile import why_not_text


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two files with keys in common, some missing on either side, some twice, some NULL."""
    random_ = random.Random(3)
    folder = tmp_path_factory.mktemp("join")
    left, right = folder / "left.csv", folder / "right.csv"
    lines = ["id,b,l"]
    for at in range(60_000):
        key = "" if at % 50 == 0 else str(random_.randrange(40_000))
        lines.append(f'{key},{at % 3},"left, {at}"')
    left.write_text("\n".join(lines))
    lines = ["k,b,r"]
    for at in range(50_000):
        key = "" if at % 60 == 0 else str(random_.randrange(40_000))
        lines.append(f"{key},{at % 3},right {at} {'x' * (at % 100)}")
    right.write_text("\r\n".join(lines) + "\r\n")
    return left, right


def run(pipeline: Pipeline, target: Path, cap: str) -> str:
    plan = pipeline.sink(target)
    assert why_not_text(plan.plan) is None
    manifest = plan.run(mem_cap=cap)
    assert manifest.peak_bytes <= manifest.cap_bytes
    text = target.read_bytes().decode()
    assert manifest.rows_out == text.count("\n") - 1
    return text


HOW: list[JoinKind] = ["inner", "left", "right", "full", "semi", "anti"]


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_a_join_returns_the_rows_of_sql_at_any_cap(
    files: tuple[Path, Path], tmp_path: Path, how: JoinKind
) -> None:
    left, right = files
    joined = scan(left).join(scan(right), on=[("id", "k")], how=how)
    texts = {run(joined, tmp_path / "out.csv", cap) for cap in ("26MiB", "32MiB", "256MiB")}
    assert len(texts) == 1
    columns = "l.*" if how in ("semi", "anti") else "l.*, r.*"
    query = f"select {columns} from '{left}' l {how} join '{right}' r on l.id = r.k order by all"
    with duckdb.connect(config={"threads": 1}) as oracle:
        expected = oracle.execute(query).fetchall()
        found = f"select * from read_csv('{tmp_path / 'out.csv'}', header=true) order by all"
        assert oracle.execute(found).fetchall() == expected


@pytest.mark.slow
def test_the_order_is_that_of_the_left_side(files: tuple[Path, Path], tmp_path: Path) -> None:
    left, right = files
    joined = scan(left).join(scan(right), on=[("id", "k")])
    text = run(joined, tmp_path / "out.csv", "26MiB")
    places = [int(line.split('"')[1].removeprefix("left, ")) for line in text.splitlines()[1:]]
    assert places == sorted(places)


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("how", HOW)
def test_a_small_left_side_is_built_and_its_order_kept(
    files: tuple[Path, Path], tmp_path: Path, how: JoinKind
) -> None:
    few, right = tmp_path / "few.csv", files[1]
    few.write_text("".join(files[0].read_text().splitlines(keepends=True)[:3000]))
    joined = scan(few).join(scan(right), on=[("id", "k")], how=how)
    assert "build left, sorted after" in joined.sink(tmp_path / "out.csv").explain("26MiB")
    rows = list(csv.reader(run(joined, tmp_path / "out.csv", "26MiB").splitlines()))[1:]

    def place(row: list[str]) -> tuple[float, int]:
        left, other = (row[2], row[5:])
        return (
            float(left.split()[1]) if left else 1e9,
            int(other[0].split()[1]) if other and other[0] else 0,
        )

    assert rows == sorted(rows, key=place)
    columns = "l.*" if how in ("semi", "anti") else "l.*, r.*"
    query = f"select {columns} from '{few}' l {how} join '{right}' r on l.id = r.k"
    with duckdb.connect(config={"threads": 1}) as oracle:
        expected = oracle.execute(query).fetchall()
    wanted = [["" if value is None else str(value) for value in row] for row in expected]
    assert sorted(rows) == sorted(wanted)


def test_a_key_of_one_name_comes_once_and_a_clash_gets_a_suffix(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    left, right = files
    both = scan(left).join(scan(right).rename({"k": "id"}), on=["id"], how="left")
    header, first, *_ = run(both, tmp_path / "out.csv", "64MiB").split("\n")
    assert header == "id,b,l,b_right,r"
    assert first == ',0,"left, 0",,'


@pytest.mark.slow
@pytest.mark.sample(1)
@pytest.mark.parametrize("how", ["inner", "left", "right", "full"])
def test_a_key_of_one_name_has_the_value_of_the_side_that_has_a_row(
    files: tuple[Path, Path], tmp_path: Path, how: JoinKind
) -> None:
    left, right = files
    renamed = scan(right).rename({"k": "id"})
    both = scan(left).join(renamed, on=["id", "b"], how=how)
    header = run(both, tmp_path / "out.csv", "32MiB").split("\n", 1)[0]
    assert header == "id,b,l,r"
    query = f"""select coalesce(l.id, r.k), coalesce(l.b, r.b), l.l, r.r from '{left}' l
        {how} join '{right}' r on l.id = r.k and l.b = r.b order by all"""
    with duckdb.connect(config={"threads": 1}) as oracle:
        expected = oracle.execute(query).fetchall()
        found = f"select * from read_csv('{tmp_path / 'out.csv'}', header=true) order by all"
        assert oracle.execute(found).fetchall() == expected


def test_each_row_is_paired_with_all_others(files: tuple[Path, Path], tmp_path: Path) -> None:
    left, right = files
    few = scan(left).limit(3).join(scan(right).limit(2), on=[], how="cross")
    text = run(few, tmp_path / "out.csv", "24MiB")
    assert [line.split(",")[-1][:8] for line in text.splitlines()] == ["r"] + [
        "right 0 ",
        "right 1 ",
    ] * 3


fields = st.text(st.sampled_from('ab ,;"'), max_size=5)


@given(
    st.lists(st.lists(fields, min_size=4, max_size=4), min_size=1, max_size=6),
    st.sets(st.integers(0, 3)),
)
def test_truncated_lines_leave_the_others_unchanged(
    records: list[list[str]], dropped: set[int]
) -> None:
    spelled = [
        ['"' + field.replace('"', '""') + '"' if set(field) & set(',"') else field for field in row]
        for row in records
    ]
    text = "".join(",".join(row) + "\n" for row in spelled).encode()
    parser = CsvParser(memoryview(bytearray(1 << 16)), field_count=4, columns=[])
    columns, _ = parser.parse(text, 0)
    out = memoryview(bytearray(1 << 12))
    size, rows = pack_join_rows(columns, KeySpec([]), "line", 0, out, array("I", sorted(dropped)))
    at, found = 0, []
    while at < size:
        (row_bytes,) = struct.unpack_from("<I", out, at)
        found.append(bytes(out[at + 8 : at + row_bytes]).decode())
        at += row_bytes
    assert rows == len(records)
    assert found == [
        ",".join(field for place, field in enumerate(row) if place not in dropped)
        for row in spelled
    ]


def test_fields_are_chosen_reordered_and_renamed(files: tuple[Path, Path], tmp_path: Path) -> None:
    left, _ = files
    text = run(scan(left).select("l", key="id").limit(2, 1), tmp_path / "out.csv", "24MiB")
    header, first, second, rest = text.split("\n")
    assert (header, rest) == ("l,key", "")
    assert first.startswith('"left, 1",')
    assert second.startswith('"left, 2",')


def test_a_union_of_text_goes_one_after_the_other(files: tuple[Path, Path], tmp_path: Path) -> None:
    left, _ = files
    part = scan(left).limit(2)
    text = run(part.union(scan(left).limit(1)), tmp_path / "out.csv", "24MiB")
    assert [line.split('"')[1] for line in text.splitlines()[1:]] == [
        "left, 0",
        "left, 1",
        "left, 0",
    ]


def test_a_file_that_is_only_copied_is_checked_and_counted(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    _, right = files
    text = run(scan(right), tmp_path / "out.csv", "24MiB")
    assert text == right.read_bytes().decode().replace("\r\n", "\n")
