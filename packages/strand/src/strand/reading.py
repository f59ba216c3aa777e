"""Iterating over a ring: wait, hand out, and give back what is not looked at any more."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sennit_core.errors import DeadlineExceeded, UsageError
from strand import layout
from strand.errors import LeaseHeld
from strand.role import NAP_NANOSECONDS

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from strand import _native
    from strand.view import StrandView

__all__ = ["batches", "payloads", "record_views", "rows"]

GROUP_RECORDS_MAX = 4096


def rows(view: StrandView) -> Iterator[tuple[Any, ...]]:
    """Yield tuples; see `StrandView.__iter__`."""
    seq = view.window_start
    while has_record(view, seq, None):
        stop = min(view.committed_count, seq + GROUP_RECORDS_MAX)
        yield from view.tuples(seq, stop)
        view.acknowledge_read(stop)
        seq = stop


def record_views(view: StrandView, timeout_seconds: float | None) -> Iterator[np.ndarray[Any, Any]]:
    """Yield numpy structured arrays; see `StrandView.record_views`."""
    seq = view.window_start
    while has_record(view, seq, timeout_seconds):
        for piece in view.records(seq, view.committed_count):
            yield piece
            seq += len(piece)
            view.acknowledge_read(seq)


def payloads(view: StrandView, timeout_seconds: float | None) -> Iterator[memoryview]:
    """Yield the payloads of a block ring; see `StrandView.payloads`."""
    if not view.map.is_blocks:
        raise UsageError("this needs a block ring; read typed records with a cursor")
    seq = view.window_start
    while has_record(view, seq, timeout_seconds):
        lease = view._read_block(seq)  # noqa: SLF001 - of one package
        payload = memoryview(lease)
        yield payload
        _end_lease(payload, lease)
        seq += 1
        view.acknowledge_read(seq)


def batches(
    view: StrandView, *, copy: bool, timeout_seconds: float | None
) -> Iterator[pa.RecordBatch]:
    """Yield Arrow batches; see `StrandView.batches`."""
    if not view.map.is_blocks:
        yield from _gathered(view, timeout_seconds)
        return
    from strand.batches import decode_batch, decode_schema

    held: deque[_native.Lease] = deque()
    seq = view.window_start
    if view._arrow_schema is None:  # noqa: SLF001
        if not has_record(view, seq, timeout_seconds):
            return
        lease = view._read_block(seq)  # noqa: SLF001
        view._arrow_schema = decode_schema(lease)  # noqa: SLF001
        _give_back(view, held, lease)
        seq += 1
    while has_record(view, seq, timeout_seconds, held):
        lease = view._read_block(seq)  # noqa: SLF001
        seq += 1
        batch = decode_batch(lease, view._arrow_schema, copy=copy)  # noqa: SLF001
        _give_back(view, held, lease)
        del lease
        yield batch
        del batch
        _give_back(view, held)


def has_record(
    view: StrandView,
    seq: int,
    timeout_seconds: float | None,
    held: deque[_native.Lease] | None = None,
) -> bool:
    """Wait for record `seq`; False at the end of the stream."""
    if view.committed_count > seq:
        return True
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    while True:
        nap = NAP_NANOSECONDS / 1e9
        if deadline is not None:
            nap = max(0.0, min(nap, deadline - time.monotonic()))
        if held:
            _give_back(view, held)
        if view.wait_for_commit(seq, nap) > seq:
            return True
        if view._status() == layout.EOS:  # noqa: SLF001
            return view.committed_count > seq
        if deadline is not None and time.monotonic() >= deadline:
            raise DeadlineExceeded("waiting for the next payload", timeout_seconds)


def _gathered(view: StrandView, timeout_seconds: float | None) -> Iterator[pa.RecordBatch]:
    seq = view.window_start
    while has_record(view, seq, timeout_seconds):
        stop = view.committed_count
        batch = view.to_arrow(seq, stop)
        view.acknowledge_read(stop)
        seq = stop
        yield batch


def _end_lease(payload: memoryview, lease: _native.Lease) -> None:
    try:
        payload.release()
    except BufferError:
        held = True
    else:
        held = not lease.release()
    if held:
        raise LeaseHeld(
            "the previous payload is still looked at, and its bytes are about to be reused",
            hint="copy what you keep (`bytes(payload)`) and drop slices and arrays over it",
        )


def _give_back(
    view: StrandView, held: deque[_native.Lease], lease: _native.Lease | None = None
) -> None:
    """Acknowledge, in order, what is no longer looked at; `lease` is the newest."""
    if lease is not None:
        held.append(lease)
    done = 0
    while held and held[0].release():
        held.popleft()
        done += 1
    if done:
        view.acknowledge_read(view.acknowledged_count + done)
