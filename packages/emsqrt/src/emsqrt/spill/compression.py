"""Whether a block is worth compressing, and with what.

A block is stored raw when compressing would keep more than 0.8 of it. `auto` compresses for stores
across a network; on a local disk it does so only while the disk proves slower than LZ4 pays for
(about 150 MB/s), because processor time is what spilling must not waste; on taken cores least of
all, so that time in line for a core does not count against the disk. A sample is tried first, and
after a miss the next blocks are stored raw untried: 1, 2, 4 … 64 of them.
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
_SKIPS_MAX = 64
_SLOW_BYTES_PER_SECOND = 150e6
_MEASURED_BYTES_MIN = 64 << 20


class Packer:
    """Chooses for each block, from what the last ones gained.

    Args:
        codec: `auto`, `lz4`, `zstd` (needs pyarrow, or Python 3.14) or `none`.
        is_remote: whether the store is across a network.
    """

    def __init__(self, codec: Codec, *, is_remote: bool) -> None:
        if codec not in ("auto", "lz4", "zstd", "none"):
            raise UsageError(f'no codec is called "{codec}"; there are auto, lz4, zstd and none')
        self._codec = codec
        self._is_remote = is_remote
        self._zstd = Zstd() if codec == "zstd" else None
        self._skip = 0
        self._skips = 1
        self._written_bytes = 0
        self._seconds = 0.0

    @property
    def compresses(self) -> bool:
        """Whether a block would be tried now."""
        if self._codec == "auto":
            return self._is_remote or self._is_slow()
        return self._codec != "none"

    def measured(self, written_bytes: int, seconds: float) -> None:
        """Learn how fast the store takes bytes; waiting for a core is not its doing."""
        self._written_bytes += written_bytes
        self._seconds += seconds

    def pack(self, raw: memoryview, scratch: memoryview) -> tuple[int, memoryview]:
        """Return the codec and the bytes to store: `raw` itself, or a part of `scratch`."""
        if not self.compresses:
            return RAW, raw
        if self._skip:
            self._skip -= 1
            return RAW, raw
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
    """Zstandard from wherever there is one: the standard library (3.14), or pyarrow."""

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
        )  # a buffer's view is as long as its room

    def decompress(stored: memoryview, raw_bytes: int) -> memoryview:
        return memoryview(codec.decompress(stored, raw_bytes, asbytes=True))

    return compress, decompress


def _missing() -> tuple[_Compress, _Decompress]:
    raise Unsupported(
        "codec zstd needs pyarrow, or Python 3.14",
        hint="install sennit-emsqrt[arrow], or use codec lz4",
    )
