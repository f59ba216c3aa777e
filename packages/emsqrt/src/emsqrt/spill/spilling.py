"""`SpillManager`: writes blocks that do not fit a run's memory to a store and reads them back."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from emsqrt.background import BackgroundWorker
from emsqrt.spill.compression import KEPT_MAX, Codec, Packer, Zstd
from emsqrt.spill.core_wait import CoreWait
from emsqrt.spill.errors import SpillFull
from emsqrt.spill.placement import open_local_store
from emsqrt.spill.reader import SegmentReader
from emsqrt.spill.segment import Segment, read_segment
from emsqrt.spill.writer import SegmentWriter
from sennit_core.errors import Closed, UsageError

if TYPE_CHECKING:
    from emsqrt.spill.store import Store

_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
# Shorter writes are not corrected for the time that the thread waited for a core.
_LONG_SECONDS = 1e-3
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


@dataclass(slots=True)
class SpillStats:
    """Statistics of a run's spilling.

    Args:
        written_bytes: bytes written in the whole run, as stored, with heads and indexes.
        raw_bytes: the same bytes before compression.
        read_bytes: raw bytes read back.
        segments: the number of finished segments.
        live_bytes: bytes stored now.
        peak_bytes: the most bytes stored at once.
    """

    written_bytes: int = 0
    raw_bytes: int = 0
    read_bytes: int = 0
    segments: int = 0
    live_bytes: int = 0
    peak_bytes: int = 0


class SpillManager:
    """Writes, reads back and removes the segments of one run; safe to use from several threads.

    Every block is verified when it is read (XXH3, in its head and over its bytes). A block that
    cannot be written or read back unchanged raises `SpillFull`, `SpillLost` or `SpillDamaged`.

    Args:
        uri: a folder, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`. Each
            run creates a folder or prefix of its own below it, which `close` removes.
        quota_bytes: the most bytes stored at once; None for no quota.
        codec: `auto`, `lz4`, `zstd` or `none`; see `emsqrt.spill.compression`.
        concurrency: the most requests to an object store in flight.
        retry_max_ms: how long a failed request to an object store is retried.
        check: called before each block; an exception that it raises (cancelled, out of time) ends
            the work.
        tenant: the tenant, which has a folder of its own below `uri`.
        scratch: memory for one block as stored; without it the manager allocates the memory that
            compression needs, and counts it in `buffer_bytes`.
        force_shared_memory: spill even to a file system in memory (tmpfs, ramfs).
        on_shared_bytes: called with each change of the bytes stored in memory in that case, which
            are charged to the cap.
        background: the background thread that operators may use for spilling.
        store: used instead of the store of `uri`; closed by this manager.
        options: options of the object store: `endpoint`, `region`, `access_key_id`,
            `secret_access_key`, … (see `emsqrt.spill.clients`); a folder has none.
    """

    def __init__(  # noqa: PLR0913 - settings, all by keyword
        self,
        uri: str | Path,
        *,
        quota_bytes: int | None = None,
        codec: Codec = "auto",
        concurrency: int = 4,
        retry_max_ms: int = 30_000,
        check: Callable[[], None] = lambda: None,
        tenant: str | None = None,
        scratch: memoryview | None = None,
        force_shared_memory: bool = False,
        on_shared_bytes: Callable[[int], None] | None = None,
        background: BackgroundWorker | None = None,
        store: Store | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        if tenant is not None and not _TENANT.fullmatch(tenant):
            raise UsageError(f'"{tenant}" names no tenant: a-z, 0-9, - and _, at most 63 of them')
        self.tenant = tenant
        self.quota_bytes = quota_bytes
        self.check = check
        self.background = background or BackgroundWorker()
        self.stats = SpillStats()
        self._lock = threading.Lock()
        self._counter = 0
        # Guarded by `_lock`:
        #
        #     stats.live_bytes   sum of `_live`: bytes of each segment, stored or about to be
        #     _counter          the number in the last segment's name
        #     _readers, _writers   open ones, which `close` ends
        self._live: dict[str, int] = {}
        self._readers: set[SegmentReader] = set()
        self._writers: set[SegmentWriter] = set()
        self._scratch = scratch
        self._scratch_lock = threading.Lock()
        self._own_scratch_bytes = 0
        self._zstd: Zstd | None = None
        self._on_shared_bytes = on_shared_bytes
        self._closed = False
        if store is None:
            remote: dict[str, Any] = {
                "concurrency": concurrency,
                "retry_max_ms": retry_max_ms,
                "check": check,
            }
            remote.update(options or {})
            store, in_memory = _open_store(uri, tenant, force_shared_memory, remote)
            self._on_shared_bytes = on_shared_bytes if in_memory else None
        self.store = store
        self._packer = Packer(codec, is_remote=store.is_remote)
        self._core_wait = CoreWait()

    @property
    def place(self) -> str:
        """The folder or URI of the spill, without secrets."""
        return self.store.place

    @property
    def buffer_bytes(self) -> int:
        """Memory used in addition to the callers' buffers: for compression, and by the store."""
        return self._own_scratch_bytes + self.store.buffer_bytes

    def create(self, name: str, schema_hash: int = 0) -> SegmentWriter:
        """Begin a segment.

        Args:
            name: its purpose; need not be unique.
            schema_hash: the hash of its rows' schema; a reader raises SpillDamaged for another one.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(
                f'invalid segment name "{name}": letters, digits, . - and _, at most 80'
            )
        with self._lock:
            if self._closed:
                raise Closed("the spill")
            self._counter += 1
            number = self._counter
        writer = SegmentWriter(self, f"{name}-{number:06d}", schema_hash)
        with self._lock:
            self._writers.add(writer)
        return writer

    def open(self, segment: Segment, scratch: memoryview | None = None) -> SegmentReader:
        """Open a segment for reading from its first block on.

        Args:
            segment: the segment that the writer's `finish` returned.
            scratch: memory for one block as stored; without it, readers share the manager's.
        """
        with self._lock:
            if self._closed:
                raise Closed("the spill")
        reader = SegmentReader(self, segment, scratch)
        with self._lock:
            self._readers.add(reader)
        return reader

    def adopt(self, name: str, size_bytes: int) -> Segment:
        """Return the segment in the file `name` of the store, from the trailer at its end."""
        source = self.store.open(name, size_bytes)
        try:
            segment = read_segment(source, self.place, name, size_bytes)
        finally:
            source.close()
        self.grow(name, size_bytes)
        number = name.rpartition("-")[2]
        with self._lock:  # its name must not be used for a new segment
            self._counter = max(self._counter, int(number) if number.isdigit() else 0)
        return segment

    def remove(self, segment: Segment) -> None:
        """Remove a segment and free its part of the quota. May be called twice."""
        self.store.remove(segment.name)
        self.forget(segment.name)

    def close(self) -> None:
        """Remove all remaining segments of the run. May be called twice."""
        self.background.wait_idle()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            readers, writers = list(self._readers), list(self._writers)
        # Outside of the lock: a reader or writer that ends calls back to leave its set.
        for reader in readers:
            reader.close()
        for writer in writers:
            writer.abort()
        self._core_wait.close()
        try:
            self.store.close()
        finally:
            for name in list(self._live):
                self.forget(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # The interface for writers and readers.

    def grow(self, name: str, stored_bytes: int) -> None:
        """Charge bytes that are about to be stored; SpillFull if they exceed the quota."""
        with self._lock:
            # Before the bytes are written: a full quota leaves the segment as it is, and it may be
            # tried again.
            live = self.stats.live_bytes + stored_bytes
            if self.quota_bytes is not None and live > self.quota_bytes:
                raise SpillFull(
                    path=self.place,
                    needed_bytes=stored_bytes,
                    quota_bytes=self.quota_bytes,
                    hint="raise the spill quota, or the memory cap so that less is spilled",
                )
            self._live[name] = self._live.get(name, 0) + stored_bytes
            self.stats.live_bytes = live
            self.stats.peak_bytes = max(self.stats.peak_bytes, live)
        if self._on_shared_bytes is not None:
            self._on_shared_bytes(stored_bytes)

    def forget(self, name: str) -> None:
        """Release the bytes that a segment was charged."""
        with self._lock:
            freed = self._live.pop(name, 0)
            self.stats.live_bytes -= freed
        if freed and self._on_shared_bytes is not None:
            self._on_shared_bytes(-freed)

    def pack_and_write(self, raw: memoryview, write: Callable[[int, memoryview], int]) -> None:
        """Pack a block and write it while holding the scratch memory."""
        # No scratch memory is needed, so blocks of several threads are written at the same time.
        if not self._packer.compresses:
            self._write_timed(0, raw, len(raw), write)
            return
        with self._scratch_lock:
            codec, stored = self._packer.pack(raw, self.scratch(int(len(raw) * KEPT_MAX) + 1))
            self._write_timed(codec, stored, len(raw), write)

    def _write_timed(
        self,
        codec: int,
        stored: memoryview,
        raw_bytes: int,
        write: Callable[[int, memoryview], int],
    ) -> None:
        # Compression is decided by the speed of the disk: time in which another thread had the core
        # would make a fast disk look slow.
        waited = self._core_wait.seconds()
        started = time.perf_counter()
        written = write(codec, stored)
        seconds = time.perf_counter() - started
        if seconds > _LONG_SECONDS:  # subtract the time that the thread waited for a core
            seconds = max(0.0, seconds - (self._core_wait.seconds() - waited))
        with self._lock:
            self._packer.measured(written, seconds)
            self.stats.written_bytes += written
            self.stats.raw_bytes += raw_bytes

    def scratch(self, size: int) -> memoryview:
        """Return memory for a stored block; the caller holds `scratch_lock`."""
        # Memory that the caller passed is never replaced; the manager's own grows with the longest
        # block.
        if self._scratch is None or (self._own_scratch_bytes and len(self._scratch) < size):
            self._scratch = memoryview(bytearray(size))
            self._own_scratch_bytes = size
        return self._scratch

    @property
    def scratch_lock(self) -> threading.Lock:
        """Held while the manager's scratch memory is used."""
        return self._scratch_lock

    def zstd(self) -> Zstd:
        """Return Zstandard, imported when it is first needed."""
        if self._zstd is None:
            self._zstd = Zstd()
        return self._zstd

    def writer_ended(self, writer: SegmentWriter, *, finished: bool) -> None:
        """Note that a writer finished or was aborted."""
        with self._lock:
            self._writers.discard(writer)
            self.stats.segments += finished

    def reader_ended(self, reader: SegmentReader) -> None:
        """Note that a reader was closed."""
        with self._lock:
            self._readers.discard(reader)

    def was_read(self, raw_bytes: int) -> None:
        """Count a block that was read."""
        with self._lock:
            self.stats.read_bytes += raw_bytes


def _open_store(
    uri: str | Path, tenant: str | None, force_shared_memory: bool, options: dict[str, Any]
) -> tuple[Store, bool]:
    """Open the store of a URI for one tenant; also return whether it is in memory."""
    text = os.fspath(uri)
    if "://" in text and not text.startswith("file://"):
        from emsqrt.spill.objects import open_object_store

        return open_object_store(text, tenant, **options), False
    root = Path(text.removeprefix("file://"))
    return open_local_store(root if tenant is None else root / tenant, force=force_shared_memory)
