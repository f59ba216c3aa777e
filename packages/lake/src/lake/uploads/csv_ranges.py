"""Ranges of whole records of a CSV file that is being uploaded: what can be computed before its ingest.

Parts may have arrived in any order. The marks of each part are made once, when they are asked for first, and
kept in memory; the ranges are those of the parts without a gap from the beginning.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from emsqrt.io.records import CsvDialect
from lake.encryption.files import Source, source_bytes
from lake.ingest.csv_cuts import is_regular, record_start_at, record_starts, states_of
from lake.ingest.csv_marks import PartMarks, mark_part
from lake.ingest.sniff import SAMPLE_BYTES, Sniffed, sniff, sniff_format
from lake.ingest.source import PartsFile
from sennit_core.errors import BadInput, Conflict, Unsupported
from sennit_core.records import Record
from sennit_core.units import KIB

if TYPE_CHECKING:
    from lake.uploads.parts import PartStore
    from lake.uploads.upload import UploadInfo

__all__ = ["CsvRanges", "RecordRanges"]

_MARKS_MAX = 1 << 16
"""Parts whose marks are kept: some MiB of memory."""
_TEXT_OPTIONS = ("delimiter", "header", "encoding")


@dataclass(frozen=True, slots=True)
class RecordRanges(Record):
    """The ranges of whole records of a file.

    Args:
        delimiter: The delimiter.
        encoding: The encoding.
        header: The first record with the columns' names, as it is in the file; "" if it has none.
        regular: Whether the ranges were found by the parity of quotes; else by reading everything.
        whole: Whether the last range ends the file; else more records follow as parts arrive.
        bounds: Where the ranges begin, and the last one ends: byte offsets, one more than ranges.
    """

    delimiter: str
    encoding: str
    header: str
    regular: bool
    whole: bool
    bounds: tuple[int, ...]


class CsvRanges:
    """Finds the ranges of uploads; thread-safe.

    Args:
        parts: The part store.
    """

    def __init__(self, parts: PartStore) -> None:
        self._parts = parts
        self._lock = threading.Lock()  # guards `_marks`
        # By upload, index and bytes of the part, with the dialect and the byte before.
        self._marks: OrderedDict[tuple[object, ...], PartMarks] = OrderedDict()

    def find(self, upload_id: str, range_bytes: int) -> RecordRanges:
        """Return ranges of about so many bytes each, cut at starts of parts.

        Raises:
            NotFound: There is no such upload.
            Conflict: Its first part is not here.
            Unsupported: It is no CSV file whose records can be found by bytes.
            BadInput: A record is too long.
        """
        upload = self._parts.get(upload_id)
        sources = self._without_gap(upload)
        sizes = [source_bytes(source) for source in sources]
        ends = list(accumulate(sizes))
        if not ends or not ends[-1]:
            raise Conflict(
                f"the first part of upload {upload_id} is not here", hint="send it first"
            )
        whole = ends[-1] == upload.size
        with io.BufferedReader(PartsFile(sources), 64 * KIB) as file:
            sniffed = _sniff(file, upload, whole=whole)
            dialect = CsvDialect(delimiter=sniffed.delimiter)
            start, header = _after_header(file, sniffed, dialect, upload.name)
            marks = self._mark(upload, sources, sniffed)
            regular = is_regular(marks)
            places = _places(ends[:-1], start, range_bytes)
            if regular:
                inside = dict(zip(ends, states_of(marks)[1:], strict=False))
                cuts = [
                    record_start_at(file, place, dialect, inside=inside[place], what=upload.name)
                    for place in places
                ]
            else:
                cuts = list(record_starts(file, start, places, dialect, upload.name))
            if whole and regular and sum(each.odd for each in marks) % 2:
                raise BadInput(
                    upload.name,
                    byte_offset=max((cut for cut in cuts if cut is not None), default=start),
                    reason="a quote that opens after this byte is never closed",
                )
        found = sorted(
            {start, *(cut for cut in cuts if cut is not None), *([ends[-1]] if whole else [])}
        )
        return RecordRanges(
            sniffed.delimiter, sniffed.encoding, header, regular, whole, tuple(found)
        )

    def read(self, upload_id: str, start: int, stop: int) -> bytes:
        """Return bytes of the parts that are there without a gap from the beginning.

        Raises:
            NotFound: There is no such upload.
            Conflict: Not all of the bytes are here.
        """
        sources = self._without_gap(self._parts.get(upload_id))
        with io.BufferedReader(PartsFile(sources)) as file:
            file.seek(start)
            data = file.read(stop - start)
        if len(data) != stop - start:
            raise Conflict(f"upload {upload_id} has {start + len(data)} bytes without a gap")
        return data

    def _without_gap(self, upload: UploadInfo) -> list[Source]:
        have = upload.have
        count = next((index for index, each in enumerate(have) if each != index), len(have))
        return list(self._parts.sources_of(upload))[:count]

    def _mark(
        self, upload: UploadInfo, sources: Sequence[Source], sniffed: Sniffed
    ) -> list[PartMarks]:
        found: list[PartMarks] = []
        before: int | None = None
        for index, source in enumerate(sources):
            size = source_bytes(source)
            key = (upload.id, index, size, sniffed.delimiter, sniffed.start, before)
            with self._lock:
                marks = self._marks.get(key)
            if marks is None:
                with source.open("rb", buffering=0) as file:
                    if not index:  # what is above the header is no record
                        file.seek(sniffed.start)
                    marks = mark_part(file, ord(sniffed.delimiter), ord('"'), before)
                with self._lock:
                    self._marks[key] = marks
                    if len(self._marks) > _MARKS_MAX:
                        self._marks.popitem(last=False)
            found.append(marks)
            before = marks.last
        return found


def _sniff(file: io.BufferedIOBase, upload: UploadInfo, *, whole: bool) -> Sniffed:
    head = file.read(SAMPLE_BYTES)
    form = sniff_format(head, upload.name)
    if form != "csv":
        raise Unsupported(
            f"records of a file of the format {form}", hint="ingest it, and query that"
        )
    options = {name: upload.options[name] for name in _TEXT_OPTIONS if name in upload.options}
    sniffed = sniff(head, upload.name, options, whole=whole and len(head) < SAMPLE_BYTES)
    if sniffed.encoding.startswith("utf-16"):
        raise Unsupported(
            "records of UTF-16 text, whose delimiters are no single bytes", hint="ingest the file"
        )
    return sniffed


def _after_header(
    file: io.BufferedIOBase, sniffed: Sniffed, dialect: CsvDialect, what: str
) -> tuple[int, str]:
    """Return where the data begins, and the header."""
    start, header = sniffed.start, b""
    for number in range(sniffed.skipped + sniffed.header):
        found = next(record_starts(file, start, [start + 1], dialect, what), None)
        file.seek(start)
        if found is None:  # it has no record after the header yet
            end = file.seek(0, io.SEEK_END)
            file.seek(start)
            return end, file.read(end - start).decode(sniffed.encoding, "replace")
        if number == sniffed.skipped:
            header = file.read(found - start)
        start = found
    return start, header.decode(sniffed.encoding, "replace")


def _places(starts: Sequence[int], first: int, range_bytes: int) -> list[int]:
    """Return the starts of parts at which to cut: each at least a range's bytes after the one before."""
    places: list[int] = []
    for start in starts:
        if start - (places[-1] if places else first) >= range_bytes:
            places.append(start)
    return places
