"""Read and write compressed streams: gzip with the standard library, zstd if a codec is installed.

Compressed input is recognized by its first bytes, never by its name: no UTF-8 text begins with
either magic number. Several consecutive members or frames are one stream, as the tools write them.
"""

from __future__ import annotations

import sys
import zlib
from typing import Any, Protocol

from sennit_core.errors import BadInput, Unsupported

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
MAGIC_BYTES = 4

_INPUT_BYTES = 64 << 10
_STEP_BYTES = 128 << 10
_CHUNK_BYTES = 64 << 10
_GZIP_BYTES = _INPUT_BYTES + _STEP_BYTES + (48 << 10)
_ZSTD_WINDOW_BYTES_MAX = 128 << 20
_GZIP_WBITS = 31
_GZIP_LEVEL = 6
_SUFFIXES = {".gz": "gzip", ".zst": "zstd"}


class RawStream(Protocol):
    """The input of a decompressor."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill the buffer; 0 at the end."""

    def close(self) -> None:
        """Close the file."""


class RawWriter(Protocol):
    """The output of a compressor."""

    def write(self, data: Any, /) -> Any:
        """Append bytes."""


def codec_of(start: bytes) -> str | None:
    """Return "gzip" or "zstd" if a stream begins with its magic number, else None."""
    if start.startswith(GZIP_MAGIC):
        return "gzip"
    return "zstd" if start.startswith(ZSTD_MAGIC) else None


def split_suffix(name: str) -> tuple[str, str | None]:
    """Return a file's name without `.gz` or `.zst`, and the codec of that suffix for a writer."""
    for suffix, codec in _SUFFIXES.items():
        if name.lower().endswith(suffix):
            return name[: -len(suffix)], codec
    return name, None


def decoder_bytes(codec: str | None, start: bytes = b"") -> int:
    """Return the memory of a decompressor; for zstd from the frame header in `start`."""
    if codec is None:
        return 0
    return _GZIP_BYTES if codec == "gzip" else _zstd_window(start) + 3 * _STEP_BYTES


def encoder_bytes(codec: str | None) -> int:
    """Return the memory of a compressor."""
    return {None: 0, "gzip": 384 << 10, "zstd": 5 << 20}[codec]


def zstd_needs_arrow() -> bool:
    """Return whether this Python has no zstd of its own, so that pyarrow's is used."""
    return sys.version_info < (3, 14)


def open_decoder(codec: str, raw: RawStream, what: str) -> RawStream:
    """Return the decompressed stream of `raw`; closing it closes `raw`.

    Raises:
        Unsupported: there is no zstd decoder: Python before 3.14 without pyarrow.
    """
    if codec == "gzip":
        return _Inflater(raw, what, "gzip", lambda: zlib.decompressobj(_GZIP_WBITS), zlib.error)
    if not zstd_needs_arrow():
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]

        return _Inflater(raw, what, "zstd", zstd.ZstdDecompressor, zstd.ZstdError)
    return _ArrowZstd(raw, what)


class _Inflater:
    """Decompresses step by step with an object like zlib's: bounded output, `eof`, `unused_data`."""

    def __init__(self, raw: RawStream, what: str, codec: str, make: Any, error: Any) -> None:
        self._raw, self._what, self._codec = raw, what, codec
        self._make, self._error = make, error
        self._decoder = make()
        self._buffer = memoryview(bytearray(_INPUT_BYTES))
        self._pending: Any = b""
        self._bytes_read = 0
        self._started = False

    def readinto(self, buffer: memoryview, /) -> int:
        filled = 0
        while filled < len(buffer):
            if self._decoder.eof and not self._next_member():
                break
            data = self._step(min(len(buffer) - filled, _STEP_BYTES))
            if data is None:
                break
            buffer[filled : filled + len(data)] = data
            filled += len(data)
        return filled

    def close(self) -> None:
        self._raw.close()

    def _step(self, size: int) -> bytes | None:
        """Return some decompressed bytes, maybe none; None at the end of the stream."""
        if not self._pending and self._needs_input() and not self._fill():
            if self._started:
                raise self._bad(f"the {self._codec} stream ends too early; was it cut off?")
            return None
        self._started = True
        try:
            data: bytes = self._decoder.decompress(self._pending, size)
        except self._error as error:
            raise self._bad(f"the {self._codec} stream is damaged: {error}") from error
        self._pending = getattr(self._decoder, "unconsumed_tail", b"")
        return data

    def _needs_input(self) -> bool:
        return bool(getattr(self._decoder, "needs_input", True))

    def _fill(self) -> bool:
        count = self._raw.readinto(self._buffer) or 0
        self._bytes_read += count
        self._pending = bytes(self._buffer[:count])
        return count > 0

    def _next_member(self) -> bool:
        """Begin the next member; padding of zero bytes is skipped."""
        self._pending = self._decoder.unused_data.lstrip(b"\0")
        while not self._pending:
            if not self._fill():
                return False
            self._pending = self._pending.lstrip(b"\0")
        if len(self._pending) >= MAGIC_BYTES and codec_of(self._pending) != self._codec:
            raise self._bad(f"something that is not {self._codec} follows the {self._codec} stream")
        self._decoder = self._make()
        return True

    def _bad(self, reason: str) -> BadInput:
        return BadInput(
            self._what, byte_offset=self._bytes_read - len(self._pending), reason=reason, hint=_HINT
        )


_HINT = "the offset counts compressed bytes; fetch the file again, or test it with the codec's tool"


class _ArrowZstd:
    """zstd with Arrow's codec, for Python without one."""

    def __init__(self, raw: RawStream, what: str) -> None:
        try:
            import pyarrow as pa
        except ImportError as error:
            raise Unsupported(
                f"{what} is compressed with zstd, and no zstd decoder is installed",
                hint="install emsqrt[arrow], or use Python 3.14",
            ) from error
        self._raw, self._what = raw, what
        self._counted = _CountedFile(raw)
        self._stream = pa.CompressedInputStream(pa.PythonFile(self._counted, mode="r"), "zstd")

    def readinto(self, buffer: memoryview, /) -> int:
        try:
            return int(self._stream.readinto(buffer))
        except OSError as error:
            raise BadInput(
                self._what,
                byte_offset=self._counted.bytes_read,
                reason=f"the zstd stream is damaged or ends too early: {error}",
                hint=_HINT,
            ) from error

    def close(self) -> None:
        self._stream.close()
        self._raw.close()


class _CountedFile:
    """The file object that Arrow reads."""

    closed = False

    def __init__(self, raw: RawStream) -> None:
        self._raw = raw
        self.bytes_read = 0

    def read(self, size: int = -1) -> bytes:
        buffer = bytearray(min(size, _INPUT_BYTES) if size >= 0 else _INPUT_BYTES)
        count = self._raw.readinto(memoryview(buffer)) or 0
        self.bytes_read += count
        return bytes(buffer[:count])

    def close(self) -> None:
        """The owner closes the stream below."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def writable(self) -> bool:
        return False


class Encoder:
    """Compresses in chunks of one size, so that the output depends on the content alone.

    Args:
        codec: "gzip" or "zstd".
        out: receives the compressed bytes; stays open.
    """

    def __init__(self, codec: str, out: RawWriter) -> None:
        self._out = out
        self._chunk = memoryview(bytearray(_CHUNK_BYTES))
        self._count = 0
        self._codec = _gzip_encoder() if codec == "gzip" else _zstd_encoder(out)

    def write(self, data: Any) -> int:
        """Append uncompressed bytes."""
        view = memoryview(data).cast("B")
        at = 0
        while at < len(view):
            size = min(len(view) - at, _CHUNK_BYTES - self._count)
            self._chunk[self._count : self._count + size] = view[at : at + size]
            at, self._count = at + size, self._count + size
            if self._count == _CHUNK_BYTES:
                self._compress()
        return len(view)

    def finish(self) -> None:
        """Write the end of the stream."""
        self._compress()
        if rest := self._codec.flush():
            self._out.write(rest)

    def _compress(self) -> None:
        count, self._count = self._count, 0
        if count and (data := self._codec.compress(self._chunk[:count])):
            self._out.write(data)


def _gzip_encoder() -> Any:
    return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WBITS)


def _zstd_encoder(out: RawWriter) -> Any:
    if not zstd_needs_arrow():
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]

        return zstd.ZstdCompressor()
    return _ArrowEncoder(out)


class _ArrowEncoder:
    """zstd with Arrow's codec, which writes to the output itself."""

    def __init__(self, out: RawWriter) -> None:
        try:
            import pyarrow as pa
        except ImportError as error:
            raise Unsupported(
                "no zstd encoder is installed",
                hint="install emsqrt[arrow], use Python 3.14, or write .gz",
            ) from error
        self._stream = pa.CompressedOutputStream(pa.PythonFile(_Writable(out), mode="w"), "zstd")

    def compress(self, data: memoryview) -> bytes:
        self._stream.write(data)
        return b""

    def flush(self) -> bytes:
        self._stream.close()
        return b""


class _Writable:
    closed = False

    def __init__(self, out: RawWriter) -> None:
        self.write = out.write

    def flush(self) -> None:
        """The owner flushes."""

    def close(self) -> None:
        """The owner closes."""


def _zstd_window(start: bytes) -> int:
    """Return the window of the first frame (RFC 8878, section 3.1.1.1), or the largest one."""
    if len(start) < MAGIC_BYTES + 1:
        return _ZSTD_WINDOW_BYTES_MAX
    head = start[MAGIC_BYTES]
    at = MAGIC_BYTES + 1
    if not head & 0x20:  # no single segment: a window descriptor follows
        if len(start) <= at:
            return _ZSTD_WINDOW_BYTES_MAX
        exponent, mantissa = start[at] >> 3, start[at] & 7
        whole = 1 << (10 + exponent)
        return whole + (whole >> 3) * mantissa
    at += (0, 1, 2, 4)[head & 3]
    width = (1, 2, 4, 8)[head >> 6]
    size = int.from_bytes(start[at : at + width], "little") + (256 if width == 2 else 0)
    return min(size, _ZSTD_WINDOW_BYTES_MAX)
