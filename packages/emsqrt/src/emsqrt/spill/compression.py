"""Decide whether to compress a block, and with which codec.

A block is stored raw if more than 0.8 of it would remain. `auto` compresses for stores across a
network. On a local disk it does so only while the disk is measured to be slower than about
150 MB/s, where LZ4 starts to pay off, because spilling should not waste CPU time. Time that the
thread waits for a core is not counted as disk time: on busy cores compression pays off least. A
sample is compressed first, and after each miss the next 1, 2, 4 … 64 blocks are stored raw without
a trial.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from emsqrt._kernel import lz4_compress
from sennit_core.errors import Unsupported, UsageError

Codec = Literal["auto", "lz4", "zstd", "none"]
RAW, LZ4, ZSTD = 0, 1, 2

KEPT_MAX = 0.8
_SAMPLE_BYTES = 8 << 10
_SAMPLE_FROM = 64 << 10  # smaller blocks are tried whole
# Blocks after which the next trial comes at the latest: with the longest wait, one block in 65 is
# still tried, so that a change in the data is noticed.
_SKIPS_MAX = 64
# Measured with TPC-H orders as CSV: a gigabyte costs 0.6 CPU seconds raw and 2.6 with LZ4, which
# leaves 0.46 of it (design/0035).
_SLOW_BYTES_PER_SECOND = 150e6
_MEASURED_BYTES_MIN = 64 << 20


class Packer:
    """Chooses a codec for each block, from how well the last blocks compressed.

    Args:
        codec: `auto`, `lz4`, `zstd` (needs pyarrow, or Python 3.14) or `none`.
        is_remote: whether the store is across a network.
    """

    def __init__(self, codec: Codec, *, is_remote: bool) -> None:
        if codec not in ("auto", "lz4", "zstd", "none"):
            raise UsageError(f'unknown codec "{codec}"; use auto, lz4, zstd or none')
        self._codec = codec
        self._is_remote = is_remote
        self._zstd = Zstd() if codec == "zstd" else None
        # `_skip`: blocks that are still stored raw without a trial. `_skips`: how many after the
        # next miss.
        self._skip = 0
        self._skips = 1
        self._written_bytes = 0
        self._seconds = 0.0

    @property
    def compresses(self) -> bool:
        """Whether the next block would be compressed on trial."""
        if self._codec == "auto":
            return self._is_remote or self._is_slow()
        return self._codec != "none"

    def measured(self, written_bytes: int, seconds: float) -> None:
        """Record the speed of a write; `seconds` must not include time waiting for a core."""
        self._written_bytes += written_bytes
        self._seconds += seconds

    def pack(self, raw: memoryview, scratch: memoryview) -> tuple[int, memoryview]:
        """Return the codec and the bytes to store: `raw` itself, or a part of `scratch`."""
        if not self.compresses:
            return RAW, raw
        if self._skip:
            self._skip -= 1
            return RAW, raw
        # The room is what the result may have: the compressor stops as soon as it is full.
        stored = self._try(raw, scratch[: int(len(raw) * KEPT_MAX)])
        if stored is None:
            self._skip, self._skips = self._skips, min(_SKIPS_MAX, 2 * self._skips)
            return RAW, raw
        self._skips = 1
        return (LZ4 if self._zstd is None else ZSTD), stored

    def _try(self, raw: memoryview, room: memoryview) -> memoryview | None:
        if self._zstd is not None:
            stored = self._zstd.compress(raw)
            return stored if len(stored) <= KEPT_MAX * len(raw) else None
        if len(raw) >= _SAMPLE_FROM:
            # A sample from the middle; it may be 0.05 worse than the block must be.
            middle = len(raw) // 2
            sample = raw[middle : middle + _SAMPLE_BYTES]
            if not lz4_compress(sample, room[: int(_SAMPLE_BYTES * (KEPT_MAX + 0.05))]):
                return None
        made = lz4_compress(raw, room)
        return room[:made] if made else None

    def _is_slow(self) -> bool:
        if self._written_bytes < _MEASURED_BYTES_MIN:
            return False
        return self._written_bytes < _SLOW_BYTES_PER_SECOND * self._seconds


class Zstd:
    """Zstandard from the standard library (3.14) or from pyarrow."""

    def __init__(self) -> None:
        self.compress, self.decompress = _stdlib() or _arrow() or _missing()


_Compress = Callable[[memoryview], memoryview]
_Decompress = Callable[[memoryview, int], memoryview]


def _stdlib() -> tuple[_Compress, _Decompress] | None:
    try:
        import compression.zstd as zstd  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    library: Any = zstd

    def compress(raw: memoryview) -> memoryview:
        return memoryview(library.compress(raw, level=1))

    def decompress(stored: memoryview, raw_bytes: int) -> memoryview:
        # One byte more than expected, so that a longer result is noticed and not cut off.
        made = library.ZstdDecompressor().decompress(stored, max_length=raw_bytes + 1)
        return memoryview(made)

    return compress, decompress


def _arrow() -> tuple[_Compress, _Decompress] | None:
    try:
        import pyarrow as pa
    except ImportError:
        return None
    codec = pa.Codec("zstd", compression_level=1)

    def compress(raw: memoryview) -> memoryview:
        return memoryview(
            codec.compress(raw, asbytes=True)
        )  # the view of the buffer is as long as its capacity, so cut it

    def decompress(stored: memoryview, raw_bytes: int) -> memoryview:
        return memoryview(codec.decompress(stored, raw_bytes, asbytes=True))

    return compress, decompress


def _missing() -> tuple[_Compress, _Decompress]:
    raise Unsupported(
        "codec zstd needs pyarrow, or Python 3.14",
        hint="install sennit-emsqrt[arrow], or use codec lz4",
    )
