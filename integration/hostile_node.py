"""The command line with a node that lies to others: `python hostile_node.py LIE python -m sennit.cli up …`.

It is a member like any other, with a key of its own. `lies` in its folder has a line for each lie.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path

import pyarrow as pa

from elytra.backends.peer_tasks import PeerTasks
from elytra.backends.task_spec import TaskSpec
from emsqrt.plan import check
from lake.peers.copies.chunks import Chunk, ChunkRequest, ListReply, ListRequest
from lake.peers.copies.copies import Copies
from lake.peers.jobs.messages import TaskDone, TaskPiece
from lake.peers.jobs.server import TaskCall
from lake.peers.queries.fragments import FragmentRequest, LocalFragments
from lake.peers.transport.messages import BODY_BYTES_MAX
from lake.peers.transport.session import Piece
from lake.peers.transport.stop import Stop
from sennit_core.errors import Corrupt
from sennit_core.records import Progress

__all__ = ["LIES", "lies_of", "within"]

_HUGE_ROWS, _HUGE_COLUMNS = 8 << 20, 64
"""Of 8 bytes: 4 GiB, of which some hundred KiB are sent."""


def within(lie: str) -> tuple[str, ...]:
    """Return the command within which a node lies."""
    return sys.executable, __file__, lie


def lies_of(data: Path) -> int:
    """Return how often the node of a folder has lied."""
    file = data / "lies"
    return len(file.read_bytes()) if file.exists() else 0


def _note() -> None:
    folder = Path(sys.argv[sys.argv.index("--data") + 1])
    with (folder / "lies").open("ab") as file:
        file.write(b"\n")


def _wrong_chunks() -> None:
    """Send other bytes of a chunk, too few, and too many."""
    right, numbers = Copies.chunk, count()

    def chunk(self: Copies, request: ChunkRequest) -> tuple[Chunk, bytes]:
        message, body = right(self, request)
        _note()
        other = bytes((body[0] ^ 1, *body[1:]))
        return message, (other, body[:-1], b"", bytes(BODY_BYTES_MAX))[next(numbers) % 4]

    Copies.chunk = chunk  # type: ignore[method-assign]


def _wrong_lists() -> None:
    """Send lists of chunks whose sizes are not the object's, and ones that are not its own."""
    right, numbers = Copies.chunk_list, count()

    def chunk_list(self: Copies, request: ListRequest) -> tuple[ListReply, bytes]:
        message, body = right(self, request)
        _note()
        lies = (
            (ListReply(1 << 62, message.chunk_bytes), body),
            (ListReply(0, message.chunk_bytes), b""),
            (ListReply(message.size, 1), body),
            (ListReply(-message.size, message.chunk_bytes), body),
            (ListReply(message.size << 20, message.chunk_bytes), bytes(BODY_BYTES_MAX)),
        )
        return lies[next(numbers) % len(lies)]

    Copies.chunk_list = chunk_list  # type: ignore[method-assign]


@cache
def _huge_stream() -> bytes:
    zeros = pa.repeat(pa.scalar(0, pa.int64()), _HUGE_ROWS)
    names = [f"v{number}" for number in range(_HUGE_COLUMNS)]
    batch = pa.record_batch([zeros] * _HUGE_COLUMNS, names=names)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, batch.schema, options=options) as stream:
        stream.write_batch(batch)
    found: bytes = sink.getvalue().to_pybytes()
    return found


def _huge_answers() -> None:
    """Answer parts of queries with a few bytes that become gigabytes."""
    _huge_stream()

    def run(
        self: LocalFragments, request: FragmentRequest, stop: Stop, body: bytes = b""
    ) -> Iterator[bytes]:
        _note()
        whole = _huge_stream()
        for start in range(0, len(whole), BODY_BYTES_MAX):
            yield whole[start : start + BODY_BYTES_MAX]

    LocalFragments.run = run  # type: ignore[method-assign]


def _wrong_partials() -> None:
    """Answer tasks of jobs with what no honest node sends, each time something else."""
    right, numbers = PeerTasks.run, count()
    first: list[Piece] = []

    def run(
        self: PeerTasks, call: TaskCall, stop: Stop, progressed: Callable[[Progress], object]
    ) -> Iterator[Piece]:
        _note()
        schema = check(TaskSpec.from_json(call.text).plan).to_arrow()
        nulls = [pa.nulls(_HUGE_ROWS, field.type) for field in schema]
        huge = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_stream(huge, schema, options=options) as stream:
            stream.write_batch(pa.record_batch(nulls, schema=schema))
        done = TaskDone(call.attempt)
        number = next(numbers) % 6
        if number == 0:  # a right one, which is replayed later
            first[:] = right(self, call, stop, progressed)
            yield from first[:-1]
            yield TaskDone("replayed"), b""
        elif number == 1:
            yield from first
        elif number == 2:  # other columns
            yield from [*_pieces(_huge_stream()), (done, b"")]
        elif number == 3:  # some hundred bytes that become more than an executor has
            yield from [*_pieces(huge.getvalue().to_pybytes()), (done, b"")]
        elif number == 4:
            yield from [*_pieces(bytes(range(256)) * 100), (done, b"")]
        else:
            raise Corrupt("the shard", "all", "nothing")

    PeerTasks.run = run  # type: ignore[method-assign]


def _pieces(whole: bytes) -> Iterator[Piece]:
    for start in range(0, len(whole), BODY_BYTES_MAX):
        yield TaskPiece(), whole[start : start + BODY_BYTES_MAX]


LIES: dict[str, Callable[[], None]] = {
    "wrong chunks": _wrong_chunks,
    "wrong lists": _wrong_lists,
    "huge answers": _huge_answers,
    "wrong partials": _wrong_partials,
}

if __name__ == "__main__":
    LIES[sys.argv[1]]()
    sys.argv = ["platform", *sys.argv[5:]]
    runpy.run_module("sennit.cli", run_name="__main__")
