"""Detect the kind of a file from its first bytes, to refuse files that hold no table.

The client checks a file before sending it, and the server checks the first bytes of an upload, so
this module uses only the standard library. It names a kind only when it is certain: text files and
all supported formats yield None.

Sources: the `file(1)` database, and the formats' own specifications.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from sennit_core.errors import BadInput

__all__ = ["HEAD_BYTES", "FileKind", "check_readable", "find_unreadable", "unpacked_name"]

HEAD_BYTES = 4096
"""Enough for every magic number: tar's is at byte 257; an Office document's entries come first."""

READABLE = "CSV, TSV, Excel (.xlsx), JSON, JSON Lines, Parquet or Arrow"
_AS_TABLE = f"export its table as {READABLE}"
_TAR_MARK_OFFSET = 257
_PACKED_ENDINGS = (".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz", ".lz4", ".zip")


@dataclass(frozen=True)
class FileKind:
    """A kind of file that cannot become a dataset.

    Args:
        name: With its article: "a PNG image".
        hint: What the user can do instead.
    """

    name: str
    hint: str = f"upload {READABLE}; .gz, .zst, .bz2, .xz, .lz4 and a .zip of one file are unpacked"


_IMAGE = "a table cannot be read from an image"
_EXCEL = FileKind("an Excel workbook", "save the sheet as CSV (UTF-8) and upload that")
_MARKS: tuple[tuple[int, bytes, FileKind], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", FileKind("a PNG image", _IMAGE)),
    (0, b"\xff\xd8\xff", FileKind("a JPEG image", _IMAGE)),
    (0, b"GIF87a", FileKind("a GIF image", _IMAGE)),
    (0, b"GIF89a", FileKind("a GIF image", _IMAGE)),
    (0, b"II*\x00", FileKind("a TIFF image", _IMAGE)),
    (0, b"MM\x00*", FileKind("a TIFF image", _IMAGE)),
    (8, b"WEBP", FileKind("a WebP image", _IMAGE)),
    (8, b"WAVE", FileKind("a WAV sound file")),
    (0, b"OggS", FileKind("an Ogg media file")),
    (0, b"ID3", FileKind("an MP3 sound file")),
    (4, b"ftyp", FileKind("an MP4 or QuickTime video")),
    (0, b"\x1aE\xdf\xa3", FileKind("a Matroska or WebM video")),
    (0, b"%PDF-", FileKind("a PDF document", _AS_TABLE)),
    (0, b"{\\rtf", FileKind("an RTF document", _AS_TABLE)),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
     FileKind("a Microsoft Office document of the old format (.xls, .doc)", _EXCEL.hint)),
    (0, b"\x7fELF", FileKind("an ELF program")),
    (0, b"MZ\x90\x00", FileKind("a Windows program")),
    (0, b"\xca\xfe\xba\xbe", FileKind("a Java class or a macOS program")),
    (0, b"\x00asm", FileKind("a WebAssembly module")),
    (0, b"SQLite format 3\x00", FileKind("an SQLite database", _AS_TABLE)),
    (8, b"DUCK", FileKind("a DuckDB database", "COPY its tables TO 'table.parquet'")),
    (0, b"\x89HDF\r\n\x1a\n", FileKind("an HDF5 file", _AS_TABLE)),
    (0, b"CDF\x01", FileKind("a NetCDF file", _AS_TABLE)),
    (0, b"CDF\x02", FileKind("a NetCDF file", _AS_TABLE)),
    (0, b"\x93NUMPY", FileKind("a NumPy array", _AS_TABLE)),
    (0, b"Obj\x01", FileKind("an Avro file", _AS_TABLE)),
    (0, b"ORC", FileKind("an ORC file", _AS_TABLE)),
    (0, b"FEA1", FileKind("a Feather file of version 1", "write it again as Feather version 2")),
    (0, b"PARE", FileKind("an encrypted Parquet file", "write it again without encryption")),
    (0, b"Rar!\x1a\x07", FileKind("a RAR archive", "unpack it and upload the files in it")),
    (0, b"7z\xbc\xaf\x27\x1c", FileKind("a 7z archive", "unpack it and upload the files in it")),
    (0, b"PK\x05\x06", FileKind("a ZIP archive without files", "put a file into it")),
    (_TAR_MARK_OFFSET, b"ustar",
     FileKind("a tar archive", "unpack it and upload the files in it")),
)  # fmt: skip

# Entries near the start of a ZIP archive that identify a document format.
_ZIP_ENTRIES: tuple[tuple[bytes, FileKind], ...] = (
    (b"word/", FileKind("a Word document", _AS_TABLE)),
    (b"ppt/", FileKind("a PowerPoint document", _AS_TABLE)),
    (b"opendocument.spreadsheet",
     FileKind("an OpenDocument spreadsheet", "save the sheet as CSV (UTF-8) and upload that")),
    (b"opendocument.", FileKind("an OpenDocument document", _AS_TABLE)),
    (b"application/epub+zip", FileKind("an EPUB book")),
    (b"META-INF/", FileKind("a Java archive")),
)  # fmt: skip


def find_unreadable(head: bytes) -> FileKind | None:
    """Return the kind of an unreadable file; None when the file may be readable.

    Args:
        head: The file's first `HEAD_BYTES` bytes, or all of a shorter file. The contents of a
            compressed file are checked too if the standard library can unpack them.
    """
    for offset, mark, kind in _MARKS:
        if head.startswith(mark, offset) and _is_sure(kind, head):
            return kind
    if head.startswith(b"PK\x03\x04"):
        return next((kind for entry, kind in _ZIP_ENTRIES if entry in head), None)
    inner = _unpacked(head)
    if inner is None:
        return None
    found = find_unreadable(inner)
    return None if found is None else FileKind(f"{found.name}, compressed", found.hint)


def check_readable(head: bytes, name: str) -> None:
    """Raise `BadInput` that names the file's kind, when the file cannot be read."""
    kind = find_unreadable(head)
    if kind is not None:
        raise BadInput(what=name, reason=f"this is {kind.name}", hint=kind.hint)


def unpacked_name(name: str) -> str:
    """Return a name without its compression suffix: `sales.csv.gz` becomes `sales.csv`."""
    ending = next((each for each in _PACKED_ENDINGS if name.lower().endswith(each)), "")
    return name[: len(name) - len(ending)]


def _is_sure(kind: FileKind, head: bytes) -> bool:
    """Whether a matched magic number is not the start of a text such as `ORC,ELF` or `id;ftyp`."""
    binary = re.search(rb"[\x00-\x08\x0e-\x1a]", head[:HEAD_BYTES]) is not None
    return binary or kind.name in ("a PDF document", "an RTF document")


def _unpacked(head: bytes) -> bytes | None:
    """Return the first unpacked bytes of a compressed file; None if it is not one or is damaged.

    A damaged file is not reported here: the reader reports the damage and its position.
    """
    unpack = next((unpack for mark, unpack in _UNPACKERS if head.startswith(mark)), None)
    return None if unpack is None else unpack(head)


def _gunzip(head: bytes) -> bytes | None:
    import zlib

    try:
        return zlib.decompressobj(wbits=31).decompress(head, HEAD_BYTES)
    except zlib.error:
        return None


def _bunzip(head: bytes) -> bytes | None:
    import bz2

    try:
        return bz2.BZ2Decompressor().decompress(head, HEAD_BYTES)
    except OSError:
        return None


def _unxz(head: bytes) -> bytes | None:
    import lzma

    limit = 128 << 20  # of memory: a file may ask for gigabytes
    try:
        return lzma.LZMADecompressor(memlimit=limit).decompress(head, HEAD_BYTES)
    except lzma.LZMAError:
        return None


_UNPACKERS: tuple[tuple[bytes, Callable[[bytes], bytes | None]], ...] = (
    (b"\x1f\x8b", _gunzip),
    (b"BZh", _bunzip),
    (b"\xfd7zXZ\x00", _unxz),
)
