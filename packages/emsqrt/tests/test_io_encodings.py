"""CSV that is not UTF-8: refused by line and byte, or read in the encoding that is named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emsqrt import Pipeline, scan
from emsqrt.io.encodings import TranscodedSource
from emsqrt.io.sources import LocalSource
from sennit_core.errors import BadInput, SennitError, Unsupported
from sennit_core.schema import Schema

TEXT = "name,city,n\nAda,London,3\nJosé,München,1\nZoë,München,2\n"


@pytest.fixture
def latin(tmp_path: Path) -> Path:
    path = tmp_path / "latin.csv"
    path.write_text(TEXT, "latin-1")
    return path


def grouped(rows: Pipeline) -> Pipeline:
    return rows.group_by("city").agg(n="sum(n)")


def refused(rows: Pipeline) -> SennitError:
    with pytest.raises(SennitError) as caught:
        rows.sink(Path(rows.plan.input.source.paths[0]).with_name("out.csv")).run(mem_cap="64MiB")  # type: ignore[attr-defined]
    return caught.value


@pytest.mark.parametrize("tier", ["text", "arrow"])
def test_text_that_is_not_utf8_is_refused_by_line_and_byte(latin: Path, tier: str) -> None:
    rows = scan(latin) if tier == "text" else scan(latin, skip_rows=0)
    error = refused(grouped(rows))
    assert isinstance(error, BadInput)
    assert (error.line, error.byte_offset) == (3, TEXT.index("José"))
    assert "'name' is not UTF-8" in str(error)
    assert 'encoding "latin-1"' in (error.hint or "")


@pytest.mark.sample(1)
@pytest.mark.parametrize("tier", ["text", "arrow"])
@pytest.mark.parametrize("encoding", ["latin-1", "windows-1252", "ISO-8859-15"])
def test_other_encodings_are_read_as_utf8(latin: Path, tier: str, encoding: str) -> None:
    options: dict[str, Any] = {} if tier == "text" else {"skip_rows": 0}
    target = latin.with_name("out.csv")
    latin.write_text(TEXT.replace("Ada", "€5" if encoding != "latin-1" else "Ada"), encoding)
    rows = scan(latin, encoding=encoding, **options)
    manifest = grouped(rows).sink(target).run(mem_cap="64MiB")
    assert manifest.tier == tier
    assert target.read_text("utf-8") == "city,n\nLondon,3\nMünchen,3\n"


def test_the_encoding_of_a_file_that_is_utf8_can_be_named_in_the_text_tier(latin: Path) -> None:
    latin.write_text(TEXT, "utf-8")
    target = latin.with_name("out.csv")
    manifest = scan(latin, encoding="utf-8").sort("n").sink(target).run(mem_cap="32MiB")
    assert manifest.tier == "text"
    assert target.read_text("utf-8").splitlines()[1] == "José,München,1"


@pytest.mark.sample(1)
@pytest.mark.parametrize("tier", ["text", "arrow"])
def test_faults_in_other_encodings_have_line_and_byte_of_the_file(latin: Path, tier: str) -> None:
    latin.write_text(TEXT.replace("2\n", "two\n"), "latin-1")
    schema = Schema.of(name="Utf8", city="Utf8", n="Int64")
    options: dict[str, Any] = {} if tier == "text" else {"skip_rows": 0}
    error = refused(grouped(scan(latin, schema=schema, encoding="latin-1", **options)))
    assert isinstance(error, BadInput)
    assert (error.line, error.byte_offset) == (4, TEXT.index("Zoë"))


def test_bytes_without_a_character_are_refused_by_byte(latin: Path) -> None:
    latin.write_bytes(b"name\nAda\n\x81\n")
    error = refused(scan(latin, encoding="windows-1252").sort("name"))
    assert isinstance(error, BadInput)
    assert error.byte_offset == 9
    assert "0x81" in str(error)


@pytest.mark.slow
def test_records_that_are_not_utf8_are_skipped_on_request(latin: Path) -> None:
    rows = scan(latin, bad_rows="reject").collect(mem_cap="64MiB")
    assert rows.column("name").to_pylist() == ["Ada"]


@pytest.mark.slow
def test_an_unknown_encoding_is_refused_with_those_that_are_read(latin: Path) -> None:
    with pytest.raises(Unsupported, match=r"utf-32 is not read, only in utf-8.*windows-1252"):
        scan(latin, encoding="utf-32").collect()


@given(st.binary(max_size=200_000).map(bytearray), st.integers(1, 70_000))
def test_transcoding_in_pieces_equals_decoding_at_once(data: bytearray, piece: int) -> None:
    class Held(LocalSource):
        def __init__(self) -> None:
            super().__init__(Path(__file__))

        def open_raw(self) -> io.BytesIO:
            return io.BytesIO(data)

        def read_at(self, offset: int, size: int) -> bytes:
            return bytes(data[offset : offset + size])

    source = TranscodedSource(Held(), "latin-1")
    if source.codec:
        return
    whole, buffer = bytearray(), memoryview(bytearray(piece))
    with source.open() as stream:
        while count := stream.readinto(buffer):
            whole += buffer[:count]
        assert stream.stored_bytes == len(data)
    assert whole == bytes(data).decode("latin-1").encode()
    assert source.peek(piece) == whole[:piece]
    half = len(data) // 2
    assert source.stored_offset(len(bytes(data[:half]).decode("latin-1").encode())) == half
