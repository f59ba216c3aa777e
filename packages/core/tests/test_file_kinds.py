"""Files that cannot become a dataset are named by their first bytes; text never is."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sqlite3
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sennit_core.errors import BadInput
from sennit_core.file_kinds import HEAD_BYTES, check_readable, find_unreadable, unpacked_name

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01"
BINARY = b"\x00\x01\x02\x03" * 16


def zip_of(**entries: str) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, text in entries.items():
            archive.writestr(name, text)
    return sink.getvalue()


def tar_of(name: str, text: bytes) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
    return sink.getvalue()


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (PNG, "PNG image"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF" + BINARY, "JPEG image"),
        (b"GIF89a" + BINARY, "GIF image"),
        (b"RIFF\x00\x00\x00\x00WEBP" + BINARY, "WebP image"),
        (b"%PDF-1.7\n1 0 obj", "PDF document"),
        (b"\x7fELF\x02\x01\x01" + BINARY, "ELF program"),
        (b"\x00\x00\x00\x18ftypmp42" + BINARY, "MP4"),
        (b"\x89HDF\r\n\x1a\n" + BINARY, "HDF5"),
        (b"Obj\x01" + BINARY, "Avro"),
        (b"ORC" + BINARY, "ORC"),
        (b"Rar!\x1a\x07\x01\x00", "RAR archive"),
        (b"7z\xbc\xaf\x27\x1c\x00\x04", "7z archive"),
        (b"\x00" * 8 + b"DUCK" + BINARY, "DuckDB database"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + BINARY, "Office"),
        (tar_of("a.csv", b"a,b\n"), "tar archive"),
        (gzip.compress(tar_of("a.csv", b"a,b\n")), "tar archive, compressed"),
        (bz2.compress(PNG + BINARY), "PNG image, compressed"),
        (lzma.compress(PNG + BINARY), "PNG image, compressed"),
        (zip_of(**{"[Content_Types].xml": "<x/>", "word/document.xml": "<x/>"}), "Word document"),
        (zip_of(mimetype="application/vnd.oasis.opendocument.spreadsheet"), "OpenDocument"),
    ],
    ids=lambda value: value if isinstance(value, str) else "head",  # archives hold the time
)
def test_a_file_that_is_no_table_is_named(head: bytes, name: str) -> None:
    with pytest.raises(BadInput, match=name) as caught:
        check_readable(head[:HEAD_BYTES], "upload.csv")

    assert caught.value.hint


def test_a_real_sqlite_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as database:
        database.execute("create table t (a)")
    database.close()

    with pytest.raises(BadInput, match="SQLite database"):
        check_readable(path.read_bytes()[:HEAD_BYTES], "a.db")


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"a,b\n1,2\n",
        b"ORC,ELF,ID3\n1,2,3\n",
        b"FEA1;PARE\n1;2\n",
        "naïve;ftyp\n".encode("utf-16"),
        gzip.compress(b"a,b\n1,2\n"),
        gzip.compress(b"a,b\n1,2\n")[:15],
        b"\x1f\x8b damaged",
        b"BZh damaged",
        lzma.compress(b"a,b\n"),
        zip_of(**{"data.csv": "a,b\n1,2\n"}),
        b"PAR1" + BINARY,
        b"ARROW1\x00\x00" + BINARY,
        b'[{"a": 1}]',
    ],
    ids=lambda _: "head",
)
def test_readable_files_are_not_refused(head: bytes) -> None:
    assert find_unreadable(head) is None


@pytest.mark.slow
@given(st.text(st.characters(blacklist_categories=("Cc", "Cs")), min_size=1))
def test_no_text_is_mistaken_for_a_binary_file(text: str) -> None:
    known = text.startswith(("%PDF-", "{\\rtf"))

    assert known or find_unreadable(text.encode()) is None


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("a.csv.gz", "a.csv"),
        ("A.CSV.GZ", "A.CSV"),
        ("a.csv", "a.csv"),
        ("a.zip", "a"),
        ("gz", "gz"),
    ],
)
def test_a_compressed_name_loses_its_last_ending(name: str, inside: str) -> None:
    assert unpacked_name(name) == inside
