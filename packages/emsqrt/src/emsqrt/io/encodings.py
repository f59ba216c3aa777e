"""Convert text in a single-byte encoding (Latin-1 and its relatives) to UTF-8.

All readers expect UTF-8. A source in another encoding is wrapped and returns UTF-8; offsets in
errors are translated back to bytes of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from emsqrt.io.codecs import RawStream
from emsqrt.io.sources import ByteSource, Reader, SourceStream
from sennit_core.errors import BadInput

UTF8 = "utf-8"
ENCODINGS = {
    "utf-8": UTF8,
    "utf8": UTF8,
    "us-ascii": UTF8,
    "ascii": UTF8,
    "latin-1": "latin-1",
    "latin1": "latin-1",
    "iso-8859-1": "latin-1",
    "windows-1252": "cp1252",
    "cp1252": "cp1252",
    "iso-8859-15": "iso8859-15",
    "latin-9": "iso8859-15",
}
"""Names of encodings in options, and Python's names. All but UTF-8 have one byte per character, on
which `TranscodedSource.stored_offset` relies."""
_CHUNK_BYTES = 64 << 10
_CONTINUED, _CONTINUATION = 0xC0, 0x80


class TranscodedSource(ByteSource):
    """A source that is converted to UTF-8.

    Args:
        source: the source in another encoding.
        encoding: Python's name of that encoding; one byte per character.
    """

    def __init__(self, source: ByteSource, encoding: str) -> None:
        super().__init__(source.name)
        self.can_reopen = source.can_reopen
        self._source = source
        self._encoding = encoding

    @property
    def codec(self) -> str | None:
        """The codec of the source."""
        return self._source.codec

    @property
    def need_bytes(self) -> int:
        """Memory in addition to the reader's buffer: a chunk before and after conversion."""
        return self._source.need_bytes + 4 * _CHUNK_BYTES

    @property
    def stored_bytes(self) -> int | None:
        """Length as stored."""
        return self._source.stored_bytes

    @property
    def plain_bytes(self) -> None:
        """Not known before reading."""
        return

    def open_raw(self) -> RawStream:
        """Open the stored bytes, which are not UTF-8."""
        return self._source.open_raw()

    def open(self) -> SourceStream:
        """Open the text as UTF-8."""
        stream = self._source.open()
        return SourceStream.over(_Transcoder(stream, self._encoding, self.name), stream)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return `size` bytes of the file from `offset`, as UTF-8, which may be longer."""
        return self._as_utf8(self._source.read_at(offset, size), offset)

    @contextmanager
    def open_ranges(self) -> Iterator[Reader]:
        """Keep the file open for many calls like `read_at`."""
        with self._source.open_ranges() as read:
            yield lambda offset, size: self._as_utf8(read(offset, size), offset)

    def peek(self, size: int) -> bytes:
        """Return the first `size` bytes of UTF-8, or all if there are fewer."""
        return self._as_utf8(self._source.peek(size), 0)[:size]

    def stored_offset(self, offset: int) -> int | None:
        """Return the file's offset of a byte of the UTF-8 text; None if it cannot be read again."""
        if not self.can_reopen:
            return None
        characters, buffer = 0, bytearray(_CHUNK_BYTES)
        with self.open() as stream, memoryview(buffer) as view:
            while offset > 0 and (count := stream.readinto(view[: min(offset, len(view))])):
                text = bytes(view[:count])
                characters += sum(byte & _CONTINUED != _CONTINUATION for byte in text)
                offset -= count
        return characters

    def _as_utf8(self, data: bytes, offset: int) -> bytes:
        return to_utf8(data, self._encoding, self.name, offset)


class _Transcoder:
    """Converts a stream of another encoding to UTF-8, a chunk at a time."""

    def __init__(self, stream: SourceStream, encoding: str, what: str) -> None:
        self._stream, self._encoding, self._what = stream, encoding, what
        self._chunk = memoryview(bytearray(_CHUNK_BYTES))
        self._ready = memoryview(b"")
        self._bytes_read = 0

    def readinto(self, buffer: memoryview, /) -> int:
        if not self._ready:
            count = self._stream.readinto(self._chunk)
            data = bytes(self._chunk[:count])
            self._ready = memoryview(to_utf8(data, self._encoding, self._what, self._bytes_read))
            self._bytes_read += count
        part = self._ready[: len(buffer)]
        buffer[: len(part)] = part
        self._ready = self._ready[len(part) :]
        return len(part)

    def close(self) -> None:
        self._stream.close()


def to_utf8(data: bytes, encoding: str, what: str, offset: int) -> bytes:
    """Return text as UTF-8.

    Args:
        data: the text in another encoding.
        encoding: Python's name of that encoding.
        what: the file, for errors.
        offset: the offset of `data` in the file.

    Raises:
        BadInput: a byte is not a character of the encoding.
    """
    try:
        return data.decode(encoding).encode()
    except UnicodeDecodeError as error:
        raise BadInput(
            what,
            byte_offset=offset + error.start,
            reason=f"byte 0x{data[error.start]:02x} is not a character of {encoding}",
            hint='option encoding "latin-1" maps every byte to a character',
        ) from error
