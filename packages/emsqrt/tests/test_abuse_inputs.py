"""Files that are no files of their kind, or hardly: the right rows, or an error that says where."""

from __future__ import annotations

import gzip
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from abuse_runs import carry_out, remaining_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emsqrt import Engine, EngineConfig, scan
from emsqrt.documents import read_document
from emsqrt.pipeline import Pipeline
from sennit_core.errors import (
    BadInput,
    CapTooSmall,
    Corrupt,
    NotFound,
    SennitError,
    TooLarge,
    Unsupported,
    UsageError,
)

OF_THE_FILE = (BadInput, Corrupt, UsageError, CapTooSmall, NotFound)
ROWS = gzip.compress(b"k,v\n" + b"".join(b"%d,%d\n" % (n, n) for n in range(20_000)))
BAD_CSV = {
    "UTF-16": ("k,v\n1,a\n".encode("utf-16"), "not UTF-8|UTF-16"),
    "a header that is not UTF-8": (b"k,v\xff\n1,a\n", "not UTF-8"),
    "too few fields": (b"k,v\n2\n1,a\n", "1 fields"),
    "too many fields": (b"k,v\n2,b,c\n1,a\n", "3 fields"),
    "an open quote": (b'k,v\n1,a\n2,"b\n3,c\n', "never closed"),
    "an open quote at the end": (b'k,v\n1,a\n2,"', "never closed"),
    "an open quote in the header": (b'k,"v\n2,b\n', "never closed"),
    "a header without an end": (b"k," + b"x" * 200_000, "not a header"),
    "a control character for the end": (b"k,v\n1,a\n\x1a", "1 fields"),
    "gzip that is cut": (ROWS[:1000], "ends too early"),
    "gzip's first bytes": (ROWS[:2], "ends too early"),
    "gzip that is damaged": (ROWS[:10] + b"\xff" * 200, "damaged"),
    "something after gzip": (gzip.compress(b"k,v\n2,b\n") + b"garbage", "follows"),
}
ODD_CSV = {
    "a header": (b"k,v\n", b"k,v\n"),
    "a header without a line end": (b"k,v", b"k,v\n"),
    "only NULL": (b"k,v\n,\n,\n", b"k,v\n,\n,\n"),
    "a byte order mark": (b"\xef\xbb\xbfk,v\n2,b\n1,a\n", b"k,v\n1,a\n2,b\n"),
    "all line ends": (b"k,v\r\n2,b\n1,a\r3,c\n", b"k,v\n1,a\n2,b\n3,c\n"),
    "a stray quote": (b'k,v\n2,b"x"\n1,a\n', b'k,v\n1,a\n2,"b""x"""\n'),
    "a column without a name": (b"k,\n2,b\n1,a\n", b'k,""\n1,a\n2,b\n'),
    "a name with a line end": (b'k,"v\nw"\n2,b\n1,a\n', b'k,"v\nw"\n1,a\n2,b\n'),
    "a name with a quote": (b'k,"v""w"\n2,b\n1,a\n', b'k,"v""w"\n1,a\n2,b\n'),
    "a name of a picture": ("k,🦀\n2,b\n1,a\n".encode(), "k,🦀\n1,a\n2,b\n".encode()),
}
BAD_JSONL = {
    "nothing": (b"", "no row"),
    "an array": (b"[1,2]\n", "not an object"),
    "half an object": (b'{"k":1}\n{"k":', "not JSON"),
    "not UTF-8": (b'{"k":"\xff"}\n', "not UTF-8"),
    "very deep": (b'{"k":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "too deep"),
    "a line of a document": (b'{"k":"' + b"x" * (32 << 20) + b'"}\n', "over (1|32).0 MiB"),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "in.csv"


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("target", ["out.csv", "out.parquet"])
def test_a_first_line_defines_columns_up_to_a_share_of_the_cap(tmp_path: Path, target: str) -> None:
    path = tmp_path / "long.jsonl"
    path.write_bytes(b'{"k":1,"t":"' + b"x" * (3 << 20) + b'"}\n{"k":2,"t":"y"}\n')
    rows = scan(path).select("k").sink(tmp_path / target)
    with pytest.raises(BadInput, match=r"(?s)over 2.0 MiB.*64 times") as refused:
        rows.run("128MiB")
    assert refused.value.byte_offset == 0
    assert rows.run("512MiB").rows_out == 2
    assert scan(path).schema().names == ("k", "t")


@pytest.mark.parametrize("tier", ["text", "arrow"])
@pytest.mark.parametrize("name", BAD_CSV)
def test_an_invalid_csv_is_refused(source: Path, name: str, tier: str) -> None:
    data, reason = BAD_CSV[name]
    source.write_bytes(data)
    target = source.with_name("out.csv")
    with pytest.raises(BadInput, match=reason) as caught:
        carry_out(scan(source).sort("k"), tier, target)
    assert caught.value.byte_offset is not None
    assert not target.exists()
    assert remaining_files(source.parent) == []


@pytest.mark.parametrize("tier", ["text", "arrow"])
@pytest.mark.parametrize("name", ODD_CSV)
def test_odd_csv_is_read_as_it_is(source: Path, name: str, tier: str) -> None:
    data, expected = ODD_CSV[name]
    source.write_bytes(data)
    written = carry_out(scan(source).sort("k"), tier, source.with_name("out.csv"))
    assert written.replace(b'"b""x"""', b'b"x"') == expected.replace(b'"b""x"""', b'b"x"')


@pytest.mark.parametrize("name", ["k,k\n1,2\n", "k,v,v\n1,2,3\n", ",\n1,2\n"])
def test_two_columns_of_one_name_are_refused(source: Path, name: str) -> None:
    source.write_text(name)
    with pytest.raises(BadInput, match="both named"):
        carry_out(scan(source).limit(1), "arrow", source.with_name("out.csv"))


@pytest.mark.parametrize("tier", ["text", "arrow"])
@pytest.mark.parametrize("name", BAD_JSONL)
def test_an_invalid_json_lines_file_is_refused(tmp_path: Path, name: str, tier: str) -> None:
    data, reason = BAD_JSONL[name]
    source = tmp_path / "in.jsonl"
    source.write_bytes(data)
    with pytest.raises(BadInput, match=reason):
        carry_out(scan(source).sort("k"), tier, tmp_path / "out.jsonl")
    assert remaining_files(tmp_path) == []


def test_numbers_of_thousands_of_digits_are_floats(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b'{"k":%s}\n{"k":1}\n' % (b"9" * 5000))
    assert str(scan(source).schema()) == "k: Float64"


def test_deeply_nested_values_are_text(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b'{"k":' + b"[" * 400 + b"]" * 400 + b"}\n")
    kind = str(scan(source).schema().fields[0].type)
    assert kind == "List(" * 32 + "Utf8" + ")" * 32


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1PAR1", b"PAR1" + bytes(100) + b"PAR1"])
def test_an_invalid_parquet_file_is_refused(tmp_path: Path, data: bytes) -> None:
    source = tmp_path / "in.parquet"
    source.write_bytes(data)
    with pytest.raises(BadInput, match=r"not a Parquet file|footer is damaged"):
        scan(source).sort("k").sink(tmp_path / "out.csv").run(in_process=True)


@pytest.mark.parametrize(
    "data", [b"", b"ARROW1", b"\xff" * 7 + b"\x7f" + bytes(100), b"\xff\xff\xff\x7f" + bytes(100)]
)
def test_an_invalid_arrow_file_is_refused(tmp_path: Path, data: bytes) -> None:
    source = tmp_path / "in.arrow"
    source.write_bytes(data)
    with pytest.raises(BadInput):
        scan(source).sort("k").sink(tmp_path / "out.csv").run(in_process=True)


def test_paths_that_are_not_files_are_detected(tmp_path: Path) -> None:
    folder, pipe, loop = tmp_path / "d.csv", tmp_path / "p.csv", tmp_path / "l.csv"
    folder.mkdir()
    os.mkfifo(pipe)  # without a writer: opening it would wait for ever
    loop.symlink_to(loop)
    with socket.socket(socket.AF_UNIX) as listener:
        place = os.open(tmp_path, os.O_PATH)
        listener.bind(f"/proc/self/fd/{place}/s.csv")
        os.close(place)
        for path, kind in ((pipe, Unsupported), (tmp_path / "s.csv", Unsupported)):
            with pytest.raises(kind, match="pipe or a socket"):
                scan(path).schema()
    for path in (folder, loop, tmp_path / "none.csv", tmp_path / "none*.csv", pipe / "x.csv"):
        with pytest.raises(NotFound):
            scan(path).schema()
    with pytest.raises(UsageError, match="too long"):
        scan(f"{'x' * 300}.csv").schema()


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["text", "arrow"])
@pytest.mark.parametrize("what", ["grown", "cut", "changed", "removed", "replaced"])
def test_a_file_that_is_touched_while_it_is_read_ends_the_run(
    source: Path, what: str, tier: str
) -> None:
    source.write_text("k,v\n" + "2,b\n1,a\n" * 50_000)

    def touch(_: dict[str, Any]) -> None:
        if what == "grown":
            with source.open("a") as file:
                file.write("3,c\n")
        elif what == "cut":
            os.truncate(source, 4)
        elif what == "changed":
            with source.open("r+b") as file:
                file.write(b"K")
        elif what == "removed":
            source.unlink(missing_ok=True)
        else:
            other = source.with_suffix(".other")
            other.write_bytes(b"k,v\n")
            other.replace(source)

    target = source.with_name("out.csv")
    with pytest.raises(BadInput, match="while it was read"):
        carry_out(scan(source).sort("k"), tier, target, on_news=touch)
    assert not target.exists()
    assert remaining_files(source.parent) == []


@pytest.mark.parametrize("way", ["itself", "a link", "a hard link", "a glob"])
def test_an_output_may_replace_its_input(source: Path, way: str) -> None:
    source.write_text("k,v\n2,b\n1,a\n")
    target = source if way in ("itself", "a glob") else source.with_name("other.csv")
    if way == "a link":
        target.symlink_to(source)
    elif way == "a hard link":
        target.hardlink_to(source)
    read = source.with_name("*.csv") if way == "a glob" else source
    assert carry_out(scan(read).sort("k"), "text", target) == b"k,v\n1,a\n2,b\n"


@pytest.mark.parametrize("opening", ["[", "- ", "{a: ", "? "])
def test_documents_of_any_depth_are_refused(tmp_path: Path, opening: str) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text(opening * 100_000)
    with pytest.raises(UsageError, match=r"deeper than 60|not YAML"):
        read_document(path)


def test_documents_without_an_end_are_refused() -> None:
    with pytest.raises(TooLarge):
        read_document("/dev/zero")


ORDERS = pa.table(
    {
        "id": pa.array(range(300)),
        "name": pa.array([f"name {n % 7}" if n % 5 else None for n in range(300)]),
        "price": pa.array([n / 7 for n in range(300)]),
    }
)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(EngineConfig(mem_cap_bytes=128 << 20, max_parallel_tasks=1)) as kept:
        yield kept


def parquet(path: Path) -> None:
    pq.write_table(ORDERS, path, row_group_size=100, write_page_checksum=True)


def arrow(path: Path) -> None:
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with (
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_file(file, ORDERS.schema, options=options) as writer,
    ):
        writer.write_table(ORDERS, max_chunksize=100)


def check_damage(engine: Engine, folder: Path, kind: str, at: float, bit: int | None) -> None:
    """Flip a bit of a file, or cut it, and sort it: an answer or a clean error."""
    path, target = folder / f"in.{kind}", folder / "out.csv"
    (parquet if kind == "parquet" else arrow)(path)
    data = bytearray(path.read_bytes())
    place = int(at * (len(data) - 1))
    if bit is None:
        del data[place:]
    else:
        data[place] ^= 1 << bit
    path.write_bytes(data)
    target.unlink(missing_ok=True)
    error = failure(scan(path).sort("id:desc").sink(target), engine)
    assert error is None or isinstance(error, OF_THE_FILE), (kind, place, bit, error)
    assert error is not None or bit is not None, "a file that was cut is none"
    assert target.exists() == (error is None)
    assert list(folder.glob(".*.tmp")) == []


def failure(pipeline: Pipeline, engine: Engine) -> SennitError | None:
    """Run a pipeline and return its error."""
    try:
        pipeline.run(engine=engine)
    except SennitError as error:
        return error
    return None


DAMAGE = given(
    st.sampled_from(["parquet", "arrow"]),
    st.floats(0, 1),
    st.one_of(st.none(), st.integers(0, 7)),
)
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.mark.slow
@DAMAGE
@settings(max_examples=20, suppress_health_check=QUIET)
def test_damaged_files_are_survived(
    engine: Engine, tmp_path: Path, kind: str, at: float, bit: int | None
) -> None:
    check_damage(engine, tmp_path, kind, at, bit)


@pytest.mark.parametrize("name", [b"id", b"name", b"price"])
def test_an_arrow_file_with_a_name_that_is_no_text_is_refused(
    name: bytes, engine: Engine, tmp_path: Path
) -> None:
    path = tmp_path / "in.arrow"
    arrow(path)
    data = path.read_bytes()
    assert name in data
    path.write_bytes(data.replace(name, b"\xff" + name[1:]))
    error = failure(scan(path).sort("id:desc").sink(tmp_path / "out.csv"), engine)
    assert isinstance(error, BadInput)
    assert "a name in its schema is not UTF-8" in str(error)


@pytest.mark.nightly
@pytest.mark.parametrize("bit", [0, 7])
def test_wrong_lengths_and_offsets_of_an_arrow_file_are_survived(
    bit: int, engine: Engine, tmp_path: Path
) -> None:
    arrow(tmp_path / "in.arrow")
    size = (tmp_path / "in.arrow").stat().st_size
    for place in range(7, size, 24):  # the last byte of a number of 64 bits
        check_damage(engine, tmp_path, "arrow", place / (size - 1), bit)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@DAMAGE
@settings(max_examples=600, suppress_health_check=QUIET)
def test_many_damaged_files_are_survived(
    engine: Engine, tmp_path: Path, kind: str, at: float, bit: int | None
) -> None:
    check_damage(engine, tmp_path, kind, at, bit)
