"""Sorting CSV in the lean child: right order, the records as they were spelled, the same bytes."""

import csv
import io
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emsqrt import Engine, EngineConfig, scan
from emsqrt.text_engine.compile import why_not_text
from sennit_core.errors import BadInput, CapTooSmall, NotFound, UnknownColumn


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


csv.field_size_limit(1 << 30)


def sorted_text(source: Path, *keys: str, cap: str = "32MiB", limit: int | None = None) -> str:
    target = source.with_name("out.csv")
    rows = scan(source)
    rows = rows.sort(*keys) if limit is None else rows.top_k(limit, *keys)
    pipeline = rows.sink(target)
    assert why_not_text(pipeline.plan) is None
    manifest = pipeline.run(mem_cap=cap)
    assert manifest.peak_bytes <= manifest.cap_bytes
    text = target.read_bytes().decode()
    assert manifest.rows_out == sum(1 for _ in csv.reader(io.StringIO(text, newline=""))) - 1
    return text


def test_records_come_in_order_and_as_they_were_spelled(tmp_path: Path) -> None:
    source = write(
        tmp_path / "in.csv",
        'name,n\r\n"b, c",7.00\r\n a ,1.50\r\n"x ""y""\nz",-3\r\nlast,',
    )
    assert sorted_text(source, "n") == 'name,n\n"x ""y""\nz",-3\n a ,1.50\n"b, c",7.00\nlast,\n'


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["b:desc", "a"], ["1,9", "3,9", "2,4", "4,"]),
        (["b"], ["2,4", "1,9", "3,9", "4,"]),
        (["a:desc"], ["4,", "3,9", "2,4", "1,9"]),
    ],
)
def test_keys_have_directions_and_null_comes_last(
    tmp_path: Path, keys: list[str], expected: list[str]
) -> None:
    source = write(tmp_path / "in.csv", "a,b\n1,9\n2,4\n3,9\n4,\n")
    assert sorted_text(source, *keys) == "\n".join(["a,b", *expected, ""])


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, str]]]:
    """20 MB of records with few different keys, so that many are equal."""
    random_ = random.Random(5)
    rows = [
        (random_.randrange(5000), f"{at:07d}{'x' * random_.randrange(60)}") for at in range(300_000)
    ]
    path = tmp_path_factory.mktemp("many") / "in.csv"
    path.write_text("k,v\n" + "".join(f"{key},{value}\n" for key, value in rows))
    return path, rows


@pytest.mark.nightly
def test_the_bytes_are_the_same_at_any_cap_and_equal_records_keep_their_order(
    many: tuple[Path, list[tuple[int, str]]],
) -> None:
    source, rows = many
    expected = "k,v\n" + "".join(
        f"{key},{value}\n" for key, value in sorted(rows, key=lambda r: r[0])
    )
    for cap in ("24MiB", "32MiB", "256MiB"):
        assert sorted_text(source, "k", cap=cap) == expected


@pytest.mark.slow
def test_the_first_rows_alone_can_be_had(many: tuple[Path, list[tuple[int, str]]]) -> None:
    source, rows = many
    best = sorted(rows, key=lambda row: -row[0])[:7]
    found = sorted_text(source, "k:desc", limit=7, cap="24MiB")
    assert found == "k,v\n" + "".join(f"{key},{value}\n" for key, value in best)


@pytest.mark.nightly
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(st.floats(allow_nan=True), st.text(max_size=8)), max_size=30))
def test_any_text_survives(tmp_path: Path, rows: list[tuple[float, str]]) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerow(["f", "s"])
    writer.writerows((repr(value), text.replace("\x00", "")) for value, text in rows)
    source = write(tmp_path / "in.csv", out.getvalue().encode(errors="replace").decode())
    before = list(csv.reader(io.StringIO(source.read_bytes().decode(), newline="")))
    found = list(csv.reader(io.StringIO(sorted_text(source, "s"), newline="")))
    assert sorted(found[1:]) == sorted(before[1:])
    assert [row[1] for row in found[1:]] == sorted((row[1] for row in before[1:]), key=str.encode)


def test_files_of_a_glob_are_read_one_after_the_other(tmp_path: Path) -> None:
    write(tmp_path / "part2.csv", "k\n1\n9")
    write(tmp_path / "part1.csv", "k\n5\n")
    scan(tmp_path / "part*.csv").sort("k:desc").sink(tmp_path / "out.csv").run(mem_cap="24MiB")
    assert (tmp_path / "out.csv").read_text() == "k\n9\n5\n1\n"


@pytest.mark.slow
def test_files_with_other_columns_go_to_the_other_tier(tmp_path: Path) -> None:
    write(tmp_path / "part1.csv", "k,v\n5,a\n")
    write(tmp_path / "part2.csv", "v,k\nb,1\n")
    scan(tmp_path / "part*.csv").sort("k").sink(tmp_path / "out.csv").run(mem_cap="64MiB")
    assert (tmp_path / "out.csv").read_text() == "k,v\n1,b\n5,a\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("k,v\n1,a\n2\n", "line 3, byte 8.*1 fields, expected 2"),
        ("k,v\n" + "1,a\n" * 300_000 + "x,a\n", "line 300002, byte .*Int64, and 'x' is not"),
    ],
)
def test_a_record_that_is_wrong_is_named_and_nothing_is_written(
    tmp_path: Path, text: str, words: str
) -> None:
    source = write(tmp_path / "in.csv", text)
    with pytest.raises(BadInput, match=words) as caught:
        sorted_text(source, "k")
    assert caught.value.byte_offset == len(text) - len(text.splitlines()[-1]) - 1
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.nightly
def test_a_record_that_cannot_fit_is_refused_with_its_size(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", "k,v\n1,a\n2," + "y" * 8_000_000 + "\n")
    with pytest.raises(CapTooSmall, match="the record at byte 8 of"):
        sorted_text(source, "k", cap="24MiB")
    assert sorted_text(source, "k", cap="512MiB").startswith("k,v\n1,a\n2,yyyy")
    (tmp_path / "out.csv").unlink()
    with pytest.raises(CapTooSmall):
        sorted_text(source, "v", cap="24MiB")
    assert not (tmp_path / "out.csv").exists()


def test_missing_files_and_columns_are_reported(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        scan(tmp_path / "no.csv").sort("k").sink(tmp_path / "out.csv").run(mem_cap="24MiB")
    source = write(tmp_path / "in.csv", "name,n\na,1\n")
    with pytest.raises(UnknownColumn, match="name"):
        sorted_text(source, "nmae")


@pytest.mark.slow
def test_a_cap_that_cannot_work_is_refused_before_reading(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", "k\n1\n")
    with pytest.raises(CapTooSmall) as caught:
        sorted_text(source, "k", cap="4MiB")
    sorted_text(source, "k", cap=str(caught.value.needed_bytes + (1 << 20)))


def test_the_command_sorts_from_pipe_to_pipe(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "emsqrt.cli", "sort", "-", "-", "--by", "n", "--quiet"]
    done = subprocess.run(
        [*command, "--mem-cap", "24MiB"], input=b"n,s\n2,b\n1,a\n", capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"n,s\n1,a\n2,b\n"


@pytest.mark.slow
def test_an_engine_runs_thin_plans_alongside_others(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", "k\n2\n1\n")
    with Engine(EngineConfig(mem_cap_bytes=32 << 20, spill_dir=tmp_path / "spill")) as engine:
        for _ in range(2):
            engine.run(scan(source).sort("k").sink(tmp_path / "out.csv").plan)
    assert (tmp_path / "out.csv").read_text() == "k\n1\n2\n"
    assert not any((tmp_path / "spill").glob("*/*"))
