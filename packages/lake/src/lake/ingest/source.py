"""Read an upload as one stream: parts joined, decoded to UTF-8, split at record ends."""

from __future__ import annotations

import codecs
import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import BinaryIO

from emsqrt.io.records import CsvDialect, last_record_end, split_records
from lake.encryption.files import Source, source_bytes
from sennit_core.errors import BadInput
from sennit_core.units import MIB

__all__ = ["PartsFile", "TextBlock", "TextSource", "mend"]

RECORD_BYTES_MAX = 64 * MIB
_READ_BYTES = MIB
# The name of a codec error handler, registered at the end of this module.
_FALLBACK = "sennit-cp1252"


class PartsFile(io.RawIOBase):
    """A sequence of files as one seekable file; only one of them is open at a time."""

    def __init__(self, paths: Sequence[Source]) -> None:
        super().__init__()
        self._paths = list(paths)
        sizes = [source_bytes(path) for path in self._paths]
        # Offset of each part in the joined bytes, then the end of the last one.
        self._starts = [0, *accumulate(sizes)]
        self.size = self._starts[-1]
        self._position = 0
        # (index, file) of the part that was read last; an upload may have more parts than a process
        # may have open files.
        self._open: tuple[int, BinaryIO] | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Position in the joined bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position in the joined bytes."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read from the part at the position; returns fewer bytes at the end of a part."""
        if self._position >= self.size:
            return 0
        # The last part that starts at or before the position, so empty parts are skipped.
        index = bisect_right(self._starts, self._position) - 1
        file = self._part(index)
        file.seek(self._position - self._starts[index])
        count = file.readinto(buffer)  # type: ignore[attr-defined]
        self._position += count
        return int(count)

    def close(self) -> None:
        """Close the open part."""
        if self._open is not None:
            self._open[1].close()
            self._open = None
        super().close()

    def _part(self, index: int) -> BinaryIO:
        if self._open is None or self._open[0] != index:
            if self._open is not None:
                self._open[1].close()
            self._open = (index, self._paths[index].open("rb", buffering=0))
        return self._open[1]


@dataclass(frozen=True)
class TextBlock:
    """Whole records in UTF-8, and their position in the source.

    Args:
        data: UTF-8 text of whole records.
        start: Byte offset in the source, in its own encoding.
        stop: Start of the next block.
        line: Line number of the first record, from 1.
        mended: Whether bytes that are not UTF-8 were read as cp1252.
    """

    data: bytes
    start: int
    stop: int
    line: int
    mended: bool = False


class TextSource:
    """Reads ranges of a CSV or JSON text as blocks of whole records.

    Args:
        paths: The parts.
        encoding: A Python codec name: `utf-8`, `utf-16-le`, `utf-16-be`, `cp1252`.
        dialect: How records end.
        line_end: The line end to count for line numbers: LF, or CR in a file that has no LF.
        block_bytes: Bytes to read at a time.
        what: The file's name, for errors.
    """

    def __init__(
        self,
        paths: Sequence[Source],
        encoding: str,
        dialect: CsvDialect,
        *,
        line_end: bytes = b"\n",
        block_bytes: int = MIB,
        what: str = "CSV",
    ) -> None:
        self._paths = paths
        self.encoding = encoding
        self.dialect = dialect
        self.line_end = line_end
        self._block_bytes = block_bytes
        self._what = what

    def blocks(self, start: int, stop: int, line: int = 1) -> Iterator[TextBlock]:
        """Yield the records of the source range [start, stop), whose ends are record boundaries.

        Raises:
            BadInput: A record is too long, or a quote is never closed, with its line and offset.
        """
        with PartsFile(self._paths) as file:
            stream = _Utf8Stream(file, self.encoding, start, stop)
            # Advanced only by blocks that were yielded; for an error it is the start of the bad
            # record's block.
            place = _Place(start, line, self)
            records = split_records(
                stream,
                self.dialect,
                block_bytes=self._block_bytes,
                record_bytes_max=RECORD_BYTES_MAX,
                offset=start,
                what=self._what,
            )
            while True:
                try:
                    block = next(records, None)
                except BadInput as error:
                    raise BadInput(
                        what=self._what,
                        line=place.line,
                        byte_offset=place.offset,
                        reason=error.reason,
                        hint=error.hint,
                    ) from None
                if block is None:
                    return
                # Copied: the splitter reuses its buffer for the next block.
                yield self._finish(bytes(block.data), place, final=stream.ended)

    @contextmanager
    def open_stream(self, start: int, stop: int) -> Iterator[io.BufferedIOBase]:
        """Open the source range [start, stop) as a UTF-8 stream, without splitting it."""
        with PartsFile(self._paths) as file:
            yield io.BufferedReader(_Utf8Stream(file, self.encoding, start, stop), MIB)

    def length(self, data: bytes) -> int:
        """Return the length in bytes of UTF-8 text in the source's encoding."""
        if self.encoding == "utf-8":
            return len(data)
        text = data.decode()
        # One byte a character.
        if self.encoding == "cp1252":
            return len(text)
        return len(text.encode(self.encoding, "surrogatepass"))

    def _finish(self, data: bytes, place: _Place, *, final: bool) -> TextBlock:
        if final:
            self._refuse_open_quote(data, place)
        # `place` advances by the original bytes, not the mended ones: offsets are those of the
        # source.
        clean, mended = (data, False) if self.encoding != "utf-8" else mend(data)
        start, line = place.offset, place.line
        place.pass_by(data)
        return TextBlock(clean, start, place.offset, line, mended)

    def _refuse_open_quote(self, data: bytes, place: _Place) -> None:
        # With line ends after it, the last record ends within the text, unless a quote is still
        # open.
        whole = data + b"\n\n"
        end = last_record_end(whole, len(whole), self.dialect)
        if end >= len(data):
            return
        place.pass_by(data[:end])
        raise BadInput(
            what=self._what,
            line=place.line,
            byte_offset=place.offset,
            reason="the record that starts here opens a quote that is never closed",
        )


class _Place:
    """Tracks the source offset and the line number of the next record."""

    def __init__(self, offset: int, line: int, source: TextSource) -> None:
        self.offset = offset
        self.line = line
        self._source = source

    def pass_by(self, data: bytes) -> None:
        self.line += data.count(self._source.line_end)
        self.offset += self._source.length(data)


class _Utf8Stream(io.RawIOBase):
    """A source range, decoded to UTF-8; `ended` is set when the end has been reported."""

    def __init__(self, file: PartsFile, encoding: str, start: int, stop: int) -> None:
        super().__init__()
        self._file = file
        self._stop = min(stop, file.size)
        # None reads UTF-8 without a copy; `mend` checks it later, block by block.
        self._decoder = None if encoding == "utf-8" else _decoder(encoding)
        # Decoded text that did not fit in the caller's buffer.
        self._pending = b""
        self.ended = False
        file.seek(start)

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        count = self._fill(buffer) if self._decoder else self._raw(buffer)
        self.ended = count == 0
        return count

    def _raw(self, buffer: memoryview) -> int:
        rest = self._stop - self._file.tell()
        return self._file.readinto(buffer[:rest]) if rest > 0 else 0

    def _fill(self, buffer: memoryview) -> int:
        assert self._decoder is not None
        # A loop, as a piece may decode to nothing, such as half of a UTF-16 character.
        while not self._pending:
            raw = bytearray(_READ_BYTES)
            count = self._raw(memoryview(raw))
            self._pending = self._decoder.decode(raw[:count], final=count == 0).encode()
            if count == 0:
                break
        piece = self._pending[: len(buffer)]
        self._pending = self._pending[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    errors = _FALLBACK if encoding == "cp1252" else "replace"
    return codecs.getincrementaldecoder(encoding)(errors)


def mend(data: bytes) -> tuple[bytes, bool]:
    """Return valid UTF-8 unchanged; otherwise convert each invalid byte from cp1252."""
    if data.isascii():
        return data, False
    try:
        data.decode()
    except UnicodeDecodeError:
        return data.decode("utf-8", _FALLBACK).encode(), True
    return data, False


def _as_cp1252(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    wrong = error.object[error.start : error.end]
    # Five bytes are undefined in cp1252; they become the control character of the same number, so
    # that no byte is lost.
    text = "".join(bytes([b]).decode("cp1252", "ignore") or chr(b) for b in wrong)
    return text, error.end


codecs.register_error(_FALLBACK, _as_cp1252)
