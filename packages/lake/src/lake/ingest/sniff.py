"""Looks at a file's first bytes: its format, encoding, delimiter and whether it has a header.

What was found is shown with the dataset, and every answer can be given instead by an option.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from lake.ingest.columns import infer_kind
from sennit_core.errors import BadInput, UsageError

__all__ = ["Sniffed", "sniff", "sniff_format"]

SAMPLE_BYTES = 1 << 18
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_ENCODINGS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "utf-16-le": "utf-16-le",
    "utf-16-be": "utf-16-be",
    "cp1252": "cp1252",
    "windows-1252": "cp1252",
    "latin-1": "cp1252",
    "iso-8859-1": "cp1252",
}
_DELIMITERS = ",;\t|"
_MAGIC = ((b"PAR1", "parquet"), (b"ARROW1", "arrow"), (b"\xff\xff\xff\xff", "arrow-stream"))
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "ZIP (or a spreadsheet)",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"%PDF": "PDF",
    b"SQLite format 3": "SQLite",
}


@dataclass(frozen=True)
class Sniffed:
    """How a text file is written.

    Args:
        encoding: Python codec name.
        start: Bytes of the byte order mark, where the text begins.
        delimiter: One ASCII character between fields.
        header: Whether the first record holds the names.
        newline: LF (also for CRLF), or CR where the text has no other.
    """

    encoding: str
    start: int
    delimiter: str
    header: bool
    newline: str = "\n"

    def to_json(self) -> dict[str, Any]:
        """What is shown with the dataset."""
        return asdict(self)


def sniff_format(head: bytes, name: str) -> str:
    """`parquet`, `arrow`, `arrow-stream`, `jsonl` or `csv`; refuses what is none of them.

    Args:
        head: The file's first bytes.
        name: The file's name; only its ending tells JSON lines from other text.
    """
    for magic, found in _MAGIC:
        if head.startswith(magic):
            return found
    for magic, packed in _PACKED.items():
        if head.startswith(magic):
            raise BadInput(
                what=name,
                byte_offset=0,
                reason=f"this is a {packed} file",
                hint="unpack or export it, and upload the CSV, Parquet, Arrow or JSON lines file",
            )
    ending = name.lower().rpartition(".")[2]
    return "jsonl" if ending in ("jsonl", "ndjson") else "csv"


def sniff(head: bytes, name: str, options: dict[str, Any], *, whole: bool) -> Sniffed:
    """Look at a text file's first bytes.

    Args:
        head: Up to `SAMPLE_BYTES` from the file's start.
        name: The file's name; `.tsv` speaks for tabs when fields do not tell.
        options: `encoding`, `delimiter` and `header` are taken as given where present.
        whole: `head` is all there is.
    """
    encoding, start = _encoding(head, options)
    text = _decode(head[start:], encoding, whole=whole)
    if not text.strip():
        raise BadInput(what=name, byte_offset=0, reason="the file holds no records")
    delimiter = options.get("delimiter") or _delimiter(text, name, whole=whole)
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
        raise UsageError(f"delimiter {delimiter!r} is not one ASCII character")
    header = options.get("header")
    if header is None:
        header = _has_header(_records(text, delimiter, whole=whole))
    newline = "\r" if "\r" in text and "\n" not in text else "\n"
    return Sniffed(encoding, start, delimiter, bool(header), newline)


def _encoding(head: bytes, options: dict[str, Any]) -> tuple[str, int]:
    asked = options.get("encoding")
    marked = next(((name, len(mark)) for mark, name in _MARKS if head.startswith(mark)), None)
    if asked is not None:
        known = _ENCODINGS.get(str(asked).lower())
        if known is None:
            raise UsageError(f"encoding {asked!r} is none of {', '.join(_ENCODINGS)}")
        return known, marked[1] if marked and marked[0] == known else 0
    if marked:
        return marked
    even, odd = head[0:4096:2].count(0), head[1:4096:2].count(0)
    if max(even, odd) > len(head[:4096]) // 5:
        return ("utf-16-le", 0) if odd > even else ("utf-16-be", 0)
    return ("utf-8" if _mostly_utf8(head) else "cp1252"), 0


def _mostly_utf8(head: bytes) -> bool:
    if head.isascii():
        return True
    text = head.decode("utf-8", "replace")
    broken = text.rstrip("\ufffd").count("\ufffd")
    return broken * 2 < sum(not character.isascii() for character in text)


def _decode(head: bytes, encoding: str, *, whole: bool) -> str:
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    return decoder.decode(head, final=whole)


def _records(text: str, delimiter: str, *, whole: bool, limit: int = 200) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    records = []
    try:
        for record in reader:
            if record:
                records.append(record)
            if len(records) > limit:
                break
    except csv.Error:
        pass  # an over-long field: what came before it is the sample
    # The sample's end may have cut its last record.
    return records if whole or len(records) < 2 else records[:-1]


def _delimiter(text: str, name: str, *, whole: bool) -> str:
    best, best_score = ",", (0.0, 0)
    for delimiter in "\t,;|" if name.lower().endswith(".tsv") else _DELIMITERS:
        widths = Counter(len(record) for record in _records(text, delimiter, whole=whole))
        if not widths:
            continue
        width, count = widths.most_common(1)[0]
        score = (round(count / widths.total(), 2), width)
        if width > 1 and score > best_score:
            best, best_score = delimiter, score
    return best


def _has_header(records: list[list[str]]) -> bool:
    """Whether the first record holds names.

    Text above a column of numbers or dates is a name; else a number above numbers is a value; where
    everything is text, the first record is taken for names.
    """
    first, *rest = records or [[]]
    below = list(zip(*(record for record in rest if len(record) == len(first)), strict=False))
    typed_below = [index for index, column in enumerate(below) if _typed(column)]
    if not below:
        return not any(_typed([field]) for field in first)
    if any(first[index] and not _typed([first[index]]) for index in typed_below):
        return True
    return not any(first[index] for index in typed_below)


def _typed(fields: Sequence[str]) -> bool:
    text = pa.array([field or None for field in fields], pa.string())
    return infer_kind(text).kind not in ("text", "null")
