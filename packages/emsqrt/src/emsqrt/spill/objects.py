"""Segments as objects of S3, Google Cloud Storage or Azure.

A segment is divided into parts, each an object of its own, `prefix/run/segment/00000`: several
blocks in one request, sent in the background, read by range. A part is stored completely or not at
all, and may be sent again, so a retry is safe.
"""

from __future__ import annotations

import logging
import threading
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from emsqrt.spill.clients import ObjectClient, RequestFailed, open_client
from emsqrt.spill.errors import SpillDamaged, SpillError, SpillLost
from emsqrt.spill.retry import Retry
from sennit_core.ids import ID_LENGTH, is_id, new_id

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")
PART_BYTES = 8 << 20
# A segment in a store, and a reader's window in it:
#
#     objects   | 00000: 8 MiB | 00001: 8 MiB | 00002: rest |     `ends` = [8, 16, 18] MiB
#     window            ├────────┤ ends with its part at the latest
_WINDOW_BYTES_MIN = 64 << 10
_WINDOW_BYTES_MAX = 4 << 20
_SHORT_ANSWERS_MAX = 3
_log = logging.getLogger("emsqrt.spill")


def open_object_store(  # noqa: PLR0913 - settings, all by keyword
    uri: str,
    tenant: str | None,
    *,
    concurrency: int = 4,
    retry_max_ms: int = 30_000,
    check: Callable[[], None] = lambda: None,
    part_bytes: int = PART_BYTES,
    buffer_bytes: int | None = None,
    **options: str,
) -> ObjectStore:
    """Open the store of a URI, with a prefix of this run's own."""
    client, prefix = open_client(uri, options)
    return ObjectStore(
        client,
        prefix if tenant is None else f"{prefix}{tenant}/",
        concurrency=concurrency,
        retry=Retry(retry_max_ms, check),
        part_bytes=part_bytes,
        buffer_bytes_max=buffer_bytes,
    )


class ObjectStore:
    """The files of one run as objects.

    Args:
        client: the client that sends requests.
        prefix: the key prefix before the run's own name; empty, or ends with a slash.
        concurrency: the most requests in flight.
        retry: the retry policy of every request.
        part_bytes: the size of an object, except the last one of a segment.
        buffer_bytes_max: memory for bytes that wait to be sent, and as much again for reading;
            None for one part more than `concurrency`. With too little memory for a full part of
            every open segment, parts get smaller, down to any size.
    """

    is_remote = True

    def __init__(
        self,
        client: ObjectClient,
        prefix: str = "",
        *,
        concurrency: int = 4,
        retry: Retry | None = None,
        part_bytes: int = PART_BYTES,
        buffer_bytes_max: int | None = None,
    ) -> None:
        self.client = client
        self.prefix = f"{prefix}{new_id()}/"
        self.place = f"{client.place}/{self.prefix}".rstrip("/")
        self.part_bytes = part_bytes
        self.room_bytes = buffer_bytes_max or part_bytes * (concurrency + 1)
        self._retry = retry or Retry(30_000)
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="spill")
        # Guarded by `_changed`:
        #
        #     _held_bytes   bytes in buffers of sinks and parts on their way, at most `room_bytes`
        #     _window_bytes   bytes in windows of sources
        #     _sources      open sources, which share `room_bytes`
        #
        # `_ends`: for each finished segment, where its parts end.
        self._ends: dict[str, array[int]] = {}
        self._changed = threading.Condition()
        self._sinks: set[ObjectSink] = set()
        self._held_bytes = 0
        self._window_bytes = 0
        self._sources = 0

    @property
    def buffer_bytes(self) -> int:
        """Bytes that wait to be sent, plus the windows of readers."""
        return self._held_bytes + self._window_bytes

    def create(self, name: str) -> ObjectSink:
        """Begin a file; the first request is sent when its first part is full."""
        sink = ObjectSink(self, name)
        with self._changed:
            self._sinks.add(sink)
        return sink

    def open(self, name: str, size_bytes: int) -> ObjectSource:
        """Open a finished file."""
        ends = self._ends.get(name)
        if ends is None:
            ends = self._ends[name] = self._find_parts(name)
        found = ends[-1] if ends else 0
        if found != size_bytes:
            raise SpillDamaged(f"{self.place}/{name}", f"{size_bytes} bytes", f"{found} bytes")
        with self._changed:
            self._sources += 1
        return ObjectSource(self, name, ends)

    def remove(self, name: str) -> None:
        """Remove a file's parts."""
        ends = self._ends.pop(name, None)
        if ends is not None:
            # The parts of this process are known, so no listing is needed.
            keys = [self.key(name, part) for part in range(len(ends))]
            self.request(lambda: self.client.delete(keys))

    def close(self) -> None:
        """Wait for pending requests, then remove all objects of the run.

        A failure to remove objects is only logged, because the run has ended; `sweep` removes them
        later.
        """
        # First wait: a part that is stored after the listing would be left behind.
        self._threads.shutdown(wait=True)
        try:
            keys = [facts.key for facts in self.request(lambda: [*self.client.list(self.prefix)])]
            if keys:
                self.request(lambda: self.client.delete(keys))
        except SpillError as error:
            _log.warning("objects were left at %s: %s", self.place, error)

    def key(self, name: str, part: int) -> str:
        """Return the key of a part."""
        return f"{self.prefix}{name}/{part:05d}"

    def request(self, call: Callable[[], T]) -> T:
        """Send a request with retries; raise a `SpillError` if it fails in the end."""
        try:
            return self._retry.run(call)
        except RequestFailed as error:
            if error.is_missing:
                raise SpillDamaged(f"a spilled object at {self.place}", found="none") from None
            raise SpillLost(self.place, reason=error.reason) from None

    def fetch(self, key: str, start: int, length: int) -> Buffer:
        """Return a range of a part; a response that is too short is requested again."""
        for _ in range(_SHORT_ANSWERS_MAX):
            data = self.request(lambda: self.client.get(key, start, length))
            found = memoryview(data).nbytes
            # A response may be too short without an error.
            if found == length:
                return data
        raise SpillDamaged(f"{self.place}, {key}", f"{length} bytes at {start}", f"{found} bytes")

    # The interface for sinks and sources.

    def gather(self, sink: ObjectSink, data: memoryview) -> int:
        """Buffer some of the data for a sink; return how much. Waits while the memory is full.

        A full part is sent; when the memory is used up, the part of the fullest sink is sent too.
        """
        with self._changed:
            while self._held_bytes >= self.room_bytes:
                # Sending the largest buffer early frees most with one request. With too many
                # segments for a full part each, parts get smaller in this way (an object may have
                # any size, unlike a part of an upload).
                fullest = max(self._sinks, key=lambda one: len(one.held))
                # All memory is in parts on their way: `_put` notifies when one has arrived.
                if len(fullest.held):
                    self._send(fullest)
                else:
                    self._changed.wait()
            room = min(self.part_bytes - len(sink.held), self.room_bytes - self._held_bytes)
            some = data[:room]
            sink.held += some
            self._held_bytes += len(some)
            if len(sink.held) == self.part_bytes:
                self._send(sink)
            return len(some)

    def send_rest(self, sink: ObjectSink) -> None:
        """Send the rest of a sink's buffer as its last part."""
        with self._changed:
            if len(sink.held):
                self._send(sink)

    def forget(self, sink: ObjectSink) -> None:
        """Drop a sink's buffer; its parts can be opened or removed from now on."""
        with self._changed:
            self._sinks.discard(sink)
            self._ends[sink.name] = sink.ends
            self._release_bytes(len(sink.held))
            sink.held = bytearray()

    def window_bytes(self) -> int:
        """Return how many bytes a source should request at a time, from the number of sources."""
        share = self.room_bytes // max(1, self._sources)
        return max(_WINDOW_BYTES_MIN, min(_WINDOW_BYTES_MAX, share))

    def window_changed(self, delta: int) -> None:
        """Add to the bytes that sources hold."""
        with self._changed:
            self._window_bytes += delta

    def source_closed(self) -> None:
        """Note that a source is closed."""
        with self._changed:
            self._sources -= 1

    def _send(self, sink: ObjectSink) -> None:
        # The buffer moves to the request, uncopied, and counts in `_held_bytes` until it is stored.
        data, sink.held = sink.held, bytearray()
        key = self.key(sink.name, len(sink.ends))
        sink.ends.append((sink.ends[-1] if sink.ends else 0) + len(data))
        sink.sent.append(self._threads.submit(self._put, sink, key, data))

    def _put(self, sink: ObjectSink, key: str, data: bytearray) -> None:
        try:
            # A part that was not sent before the abort need not be sent at all.
            if not sink.is_aborted:
                self.request(lambda: self.client.put(key, data))
        finally:
            with self._changed:
                self._release_bytes(len(data))

    def _release_bytes(self, size: int) -> None:
        self._held_bytes -= size
        self._changed.notify_all()

    def _find_parts(self, name: str) -> array[int]:
        """List the parts of a file of an earlier process."""
        sizes = self.request(lambda: [*self.client.list(f"{self.prefix}{name}/")])
        ends = array("Q")
        for facts in sorted(sizes, key=lambda facts: facts.key):
            ends.append((ends[-1] if ends else 0) + facts.size_bytes)
        return ends


class ObjectSink:
    """A file being written: bytes are collected into parts, which other threads send."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self.name = name
        self.held = bytearray()
        self.ends: array[int] = array("Q")
        self.sent: list[Future[None]] = []
        self.is_aborted = False
        self._store = store

    def write(self, parts: Sequence[memoryview]) -> None:
        """Buffer all `parts`; raises the error of a part that was sent before."""
        self._settle(wait=False)
        for part in parts:
            written = 0
            while written < len(part):
                written += self._store.gather(self, part[written:])

    def finish(self) -> None:
        """Send the rest and wait until the whole file is stored."""
        self._store.send_rest(self)
        self._settle(wait=True)
        self._store.forget(self)

    def abort(self) -> None:
        """Drop the buffer, and try to remove the parts that were sent."""
        self._store.forget(self)
        self.is_aborted = True
        for future in self.sent:
            future.exception()
        self.sent.clear()
        try:
            self._store.remove(self.name)
        except SpillError as error:
            _log.warning("objects were left at %s: %s", self._store.place, error)

    def _settle(self, *, wait: bool) -> None:
        """Raise the first error of the parts that were sent; with `wait`, wait for all parts."""
        left = []
        for future in self.sent:
            if wait or future.done():
                future.result()
            else:
                left.append(future)
        self.sent = left


class ObjectSource:
    """A finished file being read, a window at a time."""

    def __init__(self, store: ObjectStore, name: str, ends: array[int]) -> None:
        self._store = store
        self._name = name
        self._ends = ends
        self._window = memoryview(b"")
        self._start = 0
        self._open = True

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill the target from windows; a range larger than a window is requested directly."""
        filled = 0
        while filled < len(target):
            at = offset + filled
            if not self._start <= at < self._start + len(self._window):
                self._load(at, len(target) - filled)
            some = self._window[at - self._start :][: len(target) - filled]
            target[filled : filled + len(some)] = some
            filled += len(some)

    def close(self) -> None:
        """Release the window."""
        if self._open:
            self._open = False
            self._keep(memoryview(b""), 0)
            self._store.source_closed()

    def _load(self, offset: int, wanted: int) -> None:
        """Fetch the window that begins at `offset`; it ends with its part at the latest."""
        part = bisect_right(self._ends, offset)
        if part == len(self._ends):
            raise SpillDamaged(f"{self._store.place}/{self._name}", found=f"no byte {offset}")
        begin = self._ends[part - 1] if part else 0
        # At least what is wanted now, so that a long block costs one request.
        size = max(wanted, self._store.window_bytes())
        length = min(size, self._ends[part] - offset)
        self._keep(memoryview(b""), 0)
        data = self._store.fetch(self._store.key(self._name, part), offset - begin, length)
        self._keep(memoryview(data).cast("B"), offset)

    def _keep(self, window: memoryview, start: int) -> None:
        self._store.window_changed(len(window) - len(self._window))
        self._window, self._start = window, start


def sweep_objects(
    uri: str, older_than_seconds: float, retry_max_ms: int = 30_000, /, **options: str
) -> int:
    """Remove the objects of dead runs below a URI; return their number.

    A store has no locks that a dead process would release, so a run counts as dead when all its
    objects are older than `older_than_seconds`. Use a longer time than any run lasts.

    Args:
        uri: the spill URI of the runs, with the tenant.
        older_than_seconds: the least age of the newest object of a dead run.
        retry_max_ms: how long a request is retried.
        options: the options of the store.
    """
    client, prefix = open_client(uri, options)
    retry = Retry(retry_max_ms)
    newest: dict[str, float] = {}
    keys: dict[str, list[str]] = {}
    for facts in retry.run(lambda: [*client.list(prefix)]):
        run = facts.key[len(prefix) :].partition("/")[0]
        if len(run) == ID_LENGTH and is_id(run):
            newest[run] = max(newest.get(run, 0.0), facts.modified)
            keys.setdefault(run, []).append(facts.key)
    limit = time.time() - older_than_seconds
    dead = [key for run, at in newest.items() if at < limit for key in keys[run]]
    if dead:
        retry.run(lambda: client.delete(dead))
    return len(dead)


__all__ = ["ObjectStore", "open_object_store", "sweep_objects"]
