"""Compressed files are read as what they hold; what is damaged, foreign or a bomb is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from elkyn import ElkynStore
from emsqrt.executor import ExecutorPool
from lake import Lake
from lake.ingest import compressed
from sennit_core.errors import BadInput, TooLarge

from .conftest import Encode, put

CSV = b"a,b\n1,x\n2,y\n"


def zip_of(*files: tuple[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return sink.getvalue()


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd"))


def lz4(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "lz4") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "Zstandard": zstd,
    "bzip2": bz2.compress,
    "xz": lambda data: lzma.compress(data, preset=9),
    "LZ4": lz4,
    "ZIP": lambda data: zip_of(("__MACOSX/._a", b"x"), ("folder/", b""), ("folder/a.csv", data)),
}
SEVERAL = {name: pack for name, pack in PACKERS.items() if name != "ZIP"}


@pytest.mark.parametrize("name", PACKERS)
def test_a_compressed_csv_is_read(encode: Encode, name: str) -> None:
    done = encode(PACKERS[name](CSV), "a.csv.packed", part_bytes=20)

    assert done.table.to_pydict() == {"a": [1, 2], "b": ["x", "y"]}
    assert (done.source["format"], done.source["compression"]) == ("csv", name)
    assert done.source["bytesUnpacked"] == len(CSV)
    assert {shard["byteStart"] for shard in done.answer["shards"]} == {None}


def test_a_compressed_file_may_have_any_format(encode: Encode) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"n": [1, 2]}), sink)
    lines = b'{"n": 1}\n{"n": 2}\n'

    for data, name in (
        (gzip.compress(sink.getvalue()), "a.parquet.gz"),
        (zstd(lines), "a.jsonl.zst"),
        (gzip.compress(b'[{"n": 1}, {"n": 2}]'), "a.json.gz"),
        (lzma.compress("n;t\n1;1,5\n2;2,5\n".encode("utf-16")), "a.csv.xz"),
    ):
        assert encode(data, name).table["n"].to_pylist() == [1, 2]


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", SEVERAL)
def test_every_member_is_read(encode: Encode, name: str) -> None:
    pack = SEVERAL[name]

    done = encode(pack(CSV) + pack(b"3,z\n"), "a.csv.packed")

    assert done.table["a"].to_pylist() == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.sample(4)
@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("damage", ["cut", "junk"])
def test_a_damaged_file_is_refused(encode: Encode, name: str, damage: str) -> None:
    text = b"a,b\n" + b"".join(b"%d,%d\n" % (n * n, n) for n in range(5_000))
    packed = PACKERS[name](text)
    if damage == "cut":
        packed = packed[: len(packed) // 2]
    elif name in ("Zstandard", "LZ4"):  # without a checksum, as these were written here
        packed += b"junk that follows"
    else:
        middle = len(packed) // 2
        packed = packed[:middle] + bytes(30) + packed[middle + 30 :]

    with pytest.raises(BadInput, match=f"not a readable {name} file"):
        encode(packed, "a.csv.packed")


@pytest.mark.sample(2)
@pytest.mark.slow
@pytest.mark.parametrize("name", PACKERS)
def test_a_bomb_is_stopped_at_the_limit(
    encode: Encode, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressed, "_ALWAYS_ALLOWED_BYTES", 1 << 20)
    monkeypatch.setattr(compressed, "RATIO_MAX", 10)

    with pytest.raises(TooLarge, match="unpacked") as caught:
        encode(PACKERS[name](b"a\n" + b"1\n" * (4 << 20)), "bomb.csv.packed")

    assert caught.value.limit_bytes >= 1 << 20


def test_forbidden_content_of_a_compressed_file_is_named(encode: Encode) -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.csv"), io.BytesIO())
    for packed, reason in (
        (zstd(tar.getvalue()), "a tar archive"),
        (gzip.compress(gzip.compress(CSV)), "holds a gzip file"),
        (gzip.compress(b""), "empty"),
        (zip_of(("a.csv", CSV), ("b.csv", CSV)), r"holds 2 files \(a.csv, b.csv\)"),
        (zip_of(("folder/", b"")), "this ZIP is empty"),
    ):
        with pytest.raises(BadInput, match=reason):
            encode(packed, "a.csv.packed")


def test_an_encrypted_zip_is_refused_by_name(encode: Encode) -> None:
    packed = bytearray(zip_of(("a.csv", CSV)))
    packed[6] |= 1  # the flag of the local header, and that of the directory
    packed[packed.index(b"PK\x01\x02") + 8] |= 1

    with pytest.raises(BadInput, match="encrypted"):
        encode(bytes(packed), "a.zip")


@pytest.mark.nightly
def test_an_xz_file_that_needs_gigabytes_is_refused(encode: Encode) -> None:
    greedy = lzma.LZMACompressor(filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 28}])

    with pytest.raises(BadInput, match="Memory usage limit"):
        encode(greedy.compress(CSV) + greedy.flush(), "a.csv.xz")


@pytest.mark.slow
def test_the_largest_upload_is_also_the_largest_unpacked(
    tmp_path: Path, pool: ExecutorPool
) -> None:
    with (
        ElkynStore(mode="memory") as tree,
        Lake(tmp_path, tree=tree, pool=pool, upload_bytes_max=10_000) as small,
        pytest.raises(TooLarge, match="unpacked"),
    ):
        put(small, "a.csv.gz", gzip.compress(b"a\n" + b"1\n" * 10_000))


@pytest.mark.slow
def test_a_dataset_is_named_after_the_file_inside(lake: Lake) -> None:
    put(lake, "Trips.csv.gz", gzip.compress(CSV))

    assert lake.catalog.get("Trips").rows == 2
    for engine in ("duckdb", "emsqrt"):
        table = lake.sql("select a, b from trips order by a", engine=engine).to_arrow()
        assert table.to_pydict() == {"a": [1, 2], "b": ["x", "y"]}
    assert not list(lake.folder.glob("lake/staging/**/unpacked"))
