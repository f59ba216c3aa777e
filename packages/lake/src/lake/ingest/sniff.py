"""Detect a file's format, encoding, delimiter and header from its first bytes.

The result is shown with the dataset; options override each part of it.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import asdict, dataclass
from typing import Any

from lake.ingest.csv_layout import find_layout, has_header
from lake.ingest.json_documents import JSON_ENDINGS, is_json_document
from sennit_core.errors import BadInput, UsageError
from sennit_core.file_kinds import FileKind

__all__ = ["SAMPLE_BYTES", "Sniffed", "sniff", "sniff_encoding", "sniff_format"]

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
    # As in web browsers (WHATWG Encoding Standard): text that is called Latin-1 may contain the
    # additional printable characters of windows-1252.
    "latin-1": "cp1252",
    "iso-8859-1": "cp1252",
}
# An Arrow IPC stream has no magic number; each of its messages begins with the continuation marker
# 0xFFFFFFFF.
_MAGIC = ((b"PAR1", "parquet"), (b"ARROW1", "arrow"), (b"\xff\xff\xff\xff", "arrow-stream"))
_CONTROL_MAX = (
    0.1  # maximum fraction of control characters at the start of a text; a few are accepted
)
_NO_TEXT = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


@dataclass(frozen=True)
class Sniffed:
    """The detected properties of a text file.

    Args:
        encoding: Python codec name.
        start: Offset of the text: the length of the byte order mark.
        delimiter: The field delimiter, one ASCII character.
        header: Whether the first record holds the names.
        newline: LF (also for CRLF), or CR if the text has no LF.
        skipped: Records above the header that are not part of the table, such as a title.
        trailing: Whether each record except the header ends with an extra delimiter.
    """

    encoding: str
    start: int
    delimiter: str
    header: bool
    newline: str = "\n"
    skipped: int = 0
    trailing: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the properties as shown with the dataset."""
        return asdict(self)


def sniff_format(head: bytes, name: str) -> str:
    """Return `parquet`, `arrow`, `arrow-stream`, `jsonl`, `json` or `csv`.

    Args:
        head: The file's first bytes.
        name: The file's name; only its extension distinguishes JSON Lines from other JSON.
    """
    for magic, found in _MAGIC:
        if head.startswith(magic):
            return found
    encoding, start = sniff_encoding(head, {})
    # The patterns for JSON are for UTF-8, and the file may be UTF-16.
    text = _decode(head[start:], encoding, whole=False).encode(errors="replace")
    is_lines = name.lower().endswith((".jsonl", ".ndjson"))
    if is_lines and not text.lstrip().startswith(b"["):
        return "jsonl"
    if is_lines or is_json_document(text, name):
        return "json"
    if name.lower().endswith(JSON_ENDINGS):
        raise BadInput(
            what=name,
            byte_offset=0,
            reason="its name is that of a JSON file, but it begins with neither [ nor {",
            hint="rename it to .csv if it is a CSV file",
        )
    return "csv"


def sniff(head: bytes, name: str, options: dict[str, Any], *, whole: bool) -> Sniffed:
    """Detect a text file's properties from its first bytes.

    Args:
        head: Up to `SAMPLE_BYTES` from the file's start.
        name: The file's name; `.tsv` suggests tabs if the fields are ambiguous.
        options: `encoding`, `delimiter` and `header` override the detection.
        whole: Whether `head` is the whole file.
    """
    encoding, start = sniff_encoding(head, options)
    text = _decode(head[start:], encoding, whole=whole)
    if not text.strip():
        raise BadInput(what=name, byte_offset=0, reason="the file holds no records")
    _refuse_binary(text, name)
    chosen = options.get("delimiter")
    if chosen is not None and (len(chosen) != 1 or not chosen.isascii() or chosen in '"\r\n'):
        raise UsageError(f"delimiter {chosen!r} is not one ASCII character")
    # None means detect; False is an answer.
    header = options.get("header")
    layout = find_layout(text, chosen, tabs=name.lower().endswith(".tsv"), whole=whole)
    if header is None:
        header = has_header(layout.records)
    # CR alone was the line end of classic Mac OS, and some exports still use it.
    newline = "\r" if "\r" in text and "\n" not in text else "\n"
    return Sniffed(
        encoding,
        start,
        layout.delimiter,
        bool(header),
        newline,
        layout.skipped,
        layout.trailing and bool(header),
    )


def _refuse_binary(text: str, name: str) -> None:
    beginning = text[:4096]
    if len(_NO_TEXT.findall(beginning)) > _CONTROL_MAX * len(beginning):
        raise BadInput(
            what=name,
            byte_offset=0,
            reason="this is not text: it has many control characters",
            hint=FileKind("").hint,
        )


def sniff_encoding(head: bytes, options: dict[str, Any]) -> tuple[str, int]:
    """Return Python's name of the encoding, and the length of the byte order mark."""
    asked = options.get("encoding")
    marked = next(((name, len(mark)) for mark, name in _MARKS if head.startswith(mark)), None)
    if asked is not None:
        known = _ENCODINGS.get(str(asked).lower())
        if known is None:
            raise UsageError(f"encoding {asked!r} is none of {', '.join(_ENCODINGS)}")
        return known, marked[1] if marked and marked[0] == known else 0
    if marked:
        return marked
    # ASCII characters in UTF-16 have a zero byte: the second one in little-endian order, the first
    # one in big-endian order.
    even, odd = head[0:4096:2].count(0), head[1:4096:2].count(0)
    if max(even, odd) > len(head[:4096]) // 5:
        return ("utf-16-le", 0) if odd > even else ("utf-16-be", 0)
    return ("utf-8" if _mostly_utf8(head) else "cp1252"), 0


def _mostly_utf8(head: bytes) -> bool:
    if head.isascii():
        return True
    text = head.decode("utf-8", "replace")
    # The sample may end within a character, so replacements at its end do not count. A UTF-8 file
    # may have a few damaged bytes; in cp1252 text nearly every character above ASCII is invalid
    # UTF-8.
    broken = text.rstrip("\ufffd").count("\ufffd")
    return broken * 2 < sum(not character.isascii() for character in text)


def _decode(head: bytes, encoding: str, *, whole: bool) -> str:
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    return decoder.decode(head, final=whole)
