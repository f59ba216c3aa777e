from __future__ import annotations

import gzip
import io
import itertools
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emsqrt.io.codecs import Encoder, codec_of, decoder_bytes, open_decoder
from emsqrt.io.locations import Location, expand_locations, glob_matches, parse_location
from emsqrt.io.sources import LocalSource, StandardSource, open_source
from sennit_core.errors import BadInput, NotFound, Unsupported, UsageError

TEXT = b"".join(b"%d,row %d\n" % (n, n * n) for n in range(30_000))


class Raw:
    """Returns bytes in portions, as a socket would."""

    def __init__(self, data: bytes, portion: int = 1000) -> None:
        self._file, self._portion = io.BytesIO(data), portion

    def readinto(self, buffer: memoryview, /) -> int:
        return self._file.readinto(buffer[: self._portion])

    def close(self) -> None:
        self._file.close()


def decoded(data: bytes, codec: str = "gzip", portion: int = 1000) -> bytes:
    stream = open_decoder(codec, Raw(data, portion), "in.csv.gz")
    out, buffer = bytearray(), memoryview(bytearray(4097))
    while count := stream.readinto(buffer):
        out += buffer[:count]
    stream.close()
    return bytes(out)


def zstd(data: bytes, *options: str) -> bytes:
    return subprocess.run(["zstd", "-qc", *options], input=data, capture_output=True).stdout


def encoded(data: bytes, codec: str, cuts: list[int] | None = None) -> bytes:
    out = io.BytesIO()
    encoder = Encoder(codec, out)
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts or ())})
    for start, end in itertools.pairwise(edges):
        encoder.write(data[start:end])
    encoder.finish()
    return out.getvalue()


@pytest.mark.slow
@pytest.mark.sample(1)
@pytest.mark.parametrize("portion", [1, 7, 1000, 1 << 20])
def test_gzip_of_several_members_is_one_stream(portion: int) -> None:
    data = gzip.compress(TEXT[:70_000]) + gzip.compress(b"") + gzip.compress(TEXT[70_000:])
    assert decoded(data, portion=portion) == TEXT
    assert decoded(data + b"\0" * 600, portion=portion) == TEXT


def test_zstd_frames_are_one_stream() -> None:
    assert decoded(zstd(TEXT[:99]) + zstd(TEXT[99:]), "zstd") == TEXT


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_a_stream_that_was_cut_off_is_bad_input(codec: str) -> None:
    data = encoded(TEXT, codec)
    with pytest.raises(BadInput, match=r"in\.csv\.gz.*ends too early") as raised:
        decoded(data[: len(data) // 2], codec)
    assert raised.value.byte_offset == len(data) // 2


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_a_damaged_stream_is_bad_input(codec: str) -> None:
    data = bytearray(encoded(TEXT, codec))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(BadInput, match="damaged"):
        decoded(bytes(data), codec)


def test_rubbish_after_gzip_is_refused() -> None:
    with pytest.raises(BadInput, match="not gzip follows"):
        decoded(gzip.compress(TEXT) + b"rubbish")


@pytest.mark.slow
@settings(max_examples=settings().max_examples // 4)
@given(st.lists(st.integers(0, len(TEXT)), max_size=5), st.sampled_from(["gzip", "zstd"]))
def test_compressed_bytes_depend_on_content_alone(cuts: list[int], codec: str) -> None:
    found = encoded(TEXT, codec, cuts)
    assert found == encoded(TEXT, codec)
    assert decoded(found, codec, 1 << 16) == TEXT


def test_the_tools_read_the_written_files() -> None:
    for codec, tool in (("gzip", ["gzip", "-dc"]), ("zstd", ["zstd", "-dqc"])):
        back = subprocess.run(tool, input=encoded(TEXT, codec), capture_output=True, check=True)
        assert back.stdout == TEXT


def test_a_zstd_window_is_read_from_the_frame() -> None:
    small, large = zstd(TEXT), zstd(TEXT, "--long=27", "--no-content-size")
    assert decoder_bytes("zstd", small[:32]) < 4 << 20
    assert decoder_bytes("zstd", large[:32]) >= 1 << 20
    assert codec_of(small) == "zstd"
    assert codec_of(b"a,b\n") is None


def test_compression_is_detected_by_content_not_by_name(tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.csv.gz", tmp_path / "packed.csv"
    plain.write_bytes(TEXT)
    packed.write_bytes(gzip.compress(TEXT))
    assert LocalSource(plain).path == plain
    source = LocalSource(packed)
    assert (source.codec, source.path, source.plain_bytes) == ("gzip", None, None)
    assert source.peek(100) == TEXT[:100]
    with source.open() as stream:
        stream.skip(1000)
        buffer = memoryview(bytearray(10))
        assert stream.readinto(buffer) == 10
        assert 0 < stream.stored_bytes <= packed.stat().st_size
    assert bytes(buffer) == TEXT[1000:1010]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd])
def test_standard_input_returns_peeked_bytes_again(pipe: tuple[int, int], compress: object) -> None:
    data = compress(TEXT[:30_000])  # type: ignore[operator]
    os.write(pipe[1], data)
    os.close(pipe[1])
    source = StandardSource(pipe[0])
    assert source.peek(10) == TEXT[:10]
    assert source.peek(20_000) == TEXT[:20_000]
    out, buffer = bytearray(), memoryview(bytearray(777))
    with source.open() as stream:
        while count := stream.readinto(buffer):
            out += buffer[:count]
        assert stream.stored_bytes == len(data)
    assert out == TEXT[:30_000]
    with pytest.raises(Unsupported, match="only once"):
        source.open()


def test_standard_input_is_read_in_a_real_process(tmp_path: Path) -> None:
    program = (
        "import sys; from emsqrt.io.sources import open_source\n"
        "source = open_source('-'); head = source.peek(5)\n"
        "buffer = memoryview(bytearray(1 << 20))\n"
        "with source.open() as stream:\n"
        "    total = 0\n"
        "    while count := stream.readinto(buffer): total += count\n"
        "print(head, total, 'numpy' in sys.modules, 'pyarrow' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    for data in (TEXT, zlib.compress(TEXT, wbits=31)):
        done = subprocess.run(command, input=data, capture_output=True, check=True)
        assert done.stdout.decode().strip() == f"{TEXT[:5]!r} {len(TEXT)} False False"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("b.csv", "a.csv", "c.txt", "deep/x.csv", "deep/er/y.csv", ".hidden/z.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("*.csv", ["a.csv", "b.csv"]),
        ("**/*.csv", ["a.csv", "b.csv", "deep/er/y.csv", "deep/x.csv"]),
        ("[bc].*", ["b.csv", "c.txt"]),
        (".", ["a.csv", "b.csv", "deep/er/y.csv", "deep/x.csv"]),
        ("deep/x.csv", ["deep/x.csv"]),
    ],
)
def test_globs_and_folders_are_their_files_in_order(
    files: Path, text: str, names: list[str]
) -> None:
    found = expand_locations([text], files, [".csv"])
    assert [os.path.relpath(place.path, files) for place in found] == names


def test_a_file_whose_name_looks_like_a_glob_is_that_file(files: Path) -> None:
    (files / "odd[1].csv").write_text("x")
    assert [Path(p.path).name for p in expand_locations(["odd[1].csv"], files)] == ["odd[1].csv"]


def test_missing_sources_are_named(files: Path) -> None:
    with pytest.raises(NotFound, match=r"nothing-\*\.csv"):
        expand_locations(["nothing-*.csv"], files)
    with pytest.raises(NotFound, match=r"missing\.csv"):
        expand_locations(["missing.csv"], files)
    with pytest.raises(NotFound, match=r"missing\.csv"):
        open_source(files / "missing.csv")


def test_uris_are_places() -> None:
    assert parse_location("file:///tmp/a%20b.csv") == Location("file", "/tmp/a b.csv")
    assert parse_location("s3://bucket/k/x.csv") == Location("s3", "bucket/k/x.csv")
    assert str(parse_location("gs://b/k")) == "gs://b/k"
    assert parse_location("-").is_standard
    with pytest.raises(Unsupported, match="http"):
        parse_location("http://example.org/a.csv")
    with pytest.raises(UsageError, match="no bucket"):
        parse_location("s3:///key")
    with pytest.raises(UsageError, match="only once"):
        expand_locations(["-", "-"])


@pytest.mark.parametrize(
    ("path", "pattern", "matches"),
    [
        ("b/x/y.csv", "b/*.csv", False),
        ("b/x/y.csv", "b/**/*.csv", True),
        ("b/y.csv", "b/**/*.csv", True),
        ("b/x/y.csv", "b/**", True),
        ("b/x/y.txt", "b/*/?.csv", False),
    ],
)
def test_only_two_stars_pass_a_slash(path: str, pattern: str, matches: bool) -> None:
    assert glob_matches(path, pattern) is matches


def test_the_folders_below_a_glob_are_known(files: Path) -> None:
    place = expand_locations(["**/y.csv"], files)[0]
    assert place.folders == ("deep", "er")
