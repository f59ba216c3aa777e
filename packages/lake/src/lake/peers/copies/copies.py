"""The copies of shared objects in a node's store: fetched, served, counted and dropped.

What is downloaded is written to `lake/incoming-copies/{object}.{dataset}`, chunk by verified chunk, so that a
transfer goes on where it stopped, after a restart too. A complete file is moved into the store. One that
nobody wants any more is removed after an hour: a query that was stopped may be repeated.

A request for a chunk is served only to a node that may have the object. The receiver verifies it, and asks
again for one that is wrong, and so this node verifies the object too: a damaged copy goes to quarantine,
counts no more, and is fetched again (read repair).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lake.objects.durable import storage_errors
from lake.objects.store import ObjectStore
from lake.peers.copies.bandwidth import CopyBandwidth, Hours
from lake.peers.copies.chunks import Chunk, ChunkRequest, ListReply, ListRequest
from lake.peers.copies.have_messages import HaveReply, HaveRequest, have_bits
from lake.peers.copies.placement import Candidate
from lake.peers.copies.replication import (
    FetchCopy,
    Replication,
    ReplicationOptions,
    SharedObjects,
    StopFetch,
)
from lake.peers.copies.transfers import (
    ObjectComplete,
    TransferOptions,
    Transfers,
    WriteChunk,
    at_most,
)
from lake.peers.sharing.held import HeldObjects
from sennit_core.errors import Corrupt, NotFound, SennitError
from sennit_core.hashing import CHUNK_BYTES, ObjectDigest
from sennit_core.ids import is_id
from sennit_core.logs import get_logger
from sennit_core.private_files import FILE_MODE, make_private_folder

__all__ = ["Copies", "CopyOptions"]

_log = get_logger(__name__)
_FOLDER = "incoming-copies"
_UNFINISHED_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """How copies are kept.

    Args:
        replication: Times of replication.
        transfers: Numbers of transfers.
        bytes_per_second: Of copies, in each direction; 0 for no limit.
        hours: When copies are transferred.
    """

    replication: ReplicationOptions = field(default_factory=ReplicationOptions)
    transfers: TransferOptions = field(default_factory=TransferOptions)
    bytes_per_second: int = 0
    hours: Hours = field(default_factory=Hours)


class Copies:
    """The copies of one node. Methods that read or write files are for other threads than the loop's.

    Args:
        node: The node's id.
        objects: The store.
        held: What of it is of shared datasets.
        folder: Of the lake, for unfinished files.
        drop: Deletes copies that nothing else needs.
        options: How copies are kept.
    """

    def __init__(
        self,
        node: str,
        objects: ObjectStore,
        held: HeldObjects,
        folder: Path,
        drop: Callable[[Iterable[str]], object],
        options: CopyOptions | None = None,
    ) -> None:
        chosen = options or CopyOptions()
        self._objects = objects
        self.held = held
        self._drop = drop
        self._folder = make_private_folder(folder / _FOLDER)
        self._node, self._options = node, chosen
        self.replication = Replication(node, held.has, chosen.replication)
        self.bandwidth = CopyBandwidth(chosen.bytes_per_second, chosen.hours)
        self.transfers = Transfers(chosen.transfers, self.bandwidth)
        self.loss_seconds = chosen.replication.loss_seconds

    def clear(self) -> None:
        """Forget the nodes of a network that was left, and what was being fetched from them."""
        self.replication = Replication(self._node, self.held.has, self._options.replication)
        self.transfers = Transfers(self._options.transfers, self.bandwidth)
        self.held.clear()
        self.sweep((), seconds=0)

    # Serving

    def have(
        self, request: HaveRequest, may_send: Callable[[str, str], bool]
    ) -> tuple[HaveReply, bytes]:
        """Answer which of some objects this node has; what the peer may not have is not there.

        Args:
            request: The request.
            may_send: Of a dataset and an object: whether this node has it, and the peer may read it.

        Raises:
            BadInput: The request is not valid.
        """
        return HaveReply(), have_bits(
            [
                may_send(dataset, name) and not self.replication.is_leaving(name)
                for dataset, name in request.pairs
            ]
        )

    def chunk_list(self, request: ListRequest) -> tuple[ListReply, bytes]:
        """Return the chunk hashes of an object.

        Raises:
            NotFound: This node does not have it.
        """
        with self._repairing(request.object):
            digest = self._objects.digest(request.object)
        return ListReply(digest.size, digest.chunk_bytes), bytes.fromhex("".join(digest.chunks))

    def chunk_size(self, request: ChunkRequest) -> int:
        """Return the bytes of a chunk of an object, without reading it; raises as `chunk_list`."""
        size = self._objects.path(request.object).stat().st_size
        return max(min(CHUNK_BYTES, size - request.index * CHUNK_BYTES), 0)

    def chunk(self, request: ChunkRequest) -> tuple[Chunk, bytes]:
        """Return a chunk of an object, verified if it is doubted; raises as `chunk_list`."""
        start = request.index * CHUNK_BYTES
        with self._repairing(request.object):
            found = b"" if request.doubted else self._objects.read_chunk(request.object, start)
            # Verified, as also a file that was cut off has no such chunk.
            found = found or b"".join(
                self._objects.read(request.object, start, start + CHUNK_BYTES)
            )
        if not found:
            raise NotFound("chunk", f"{request.object[:16]}/{request.index}", suggestion=None)
        return Chunk(), found

    def _repairing(self, name: str) -> _Repairing:
        return _Repairing(self._objects, name)

    # Fetching

    def kept_chunks(self, dataset: str, name: str) -> Mapping[int, str]:
        """Return the hashes of the whole chunks that an unfinished file has."""
        found: dict[int, str] = {}
        with suppress(FileNotFoundError), self._place(dataset, name).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                found[len(found)] = hashlib.sha256(chunk).hexdigest()
        return found

    def write(self, effect: WriteChunk) -> bool:
        """Verify a chunk, and write it; return whether it is right.

        Raises:
            StorageFull: There is no room for it.
        """
        if hashlib.sha256(effect.data).hexdigest() != effect.digest:
            return False
        place = self._place(effect.dataset, effect.object)
        with storage_errors(place, len(effect.data)):
            _write_at(place, effect.data, effect.offset)
        return True

    def complete(self, effect: ObjectComplete) -> None:
        """Move a complete file into the store, and note of which dataset it is.

        Each chunk was verified before it was written, and readers verify it again.

        Raises:
            Corrupt: The file was cut off after it was written.
            StorageFull: There is no room for it.
        """
        place = self._place(effect.dataset, effect.object)
        try:
            if effect.size == 0:
                place.touch(mode=FILE_MODE)
            found = ObjectDigest(effect.object, effect.size, effect.chunk_bytes, effect.chunks)
            self._objects.adopt(place, found)
        finally:
            place.unlink(missing_ok=True)
        self._objects.sync_names()
        self.held.receive(effect.dataset, effect.object)

    @property
    def wanted(self) -> Collection[tuple[str, str]]:
        """The objects that somebody wants and this node lacks, each after its dataset."""
        return {*self.transfers.objects, *self.replication.fetching}

    def sweep(
        self, wanted: Collection[tuple[str, str]], *, seconds: float = _UNFINISHED_SECONDS
    ) -> None:
        """Remove unfinished files of objects that are not wanted any more.

        Args:
            wanted: Objects that are, each after its dataset.
            seconds: How long the others are kept after they were written to.
        """
        kept = {self._place(*each) for each in wanted}
        limit = time.time() - seconds
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # it was just completed
                if path not in kept and path.stat().st_mtime <= limit:
                    path.unlink()

    def incoming_bytes(self) -> int:
        """Return the bytes of the unfinished files."""
        found = 0
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # it was just completed
                found += path.stat().st_size
        return found

    def drop(self, names: Iterable[str]) -> None:
        """Delete copies that other nodes hold."""
        self._drop(names)

    def _place(self, dataset: str, name: str) -> Path:
        self._objects.place(name)  # refuses what is no object id
        assert is_id(dataset), "the description of the dataset was checked"
        return self._folder / f"{name}.{dataset}"

    # Planning

    def tick(
        self,
        now: float,
        datasets: Sequence[SharedObjects],
        candidates: Sequence[Candidate],
        alive: Collection[str],
        room_bytes: int,
    ) -> Iterator[object]:
        """Let time pass; see `Replication.tick`.

        Args:
            now: Seconds that never run backwards.
            datasets: As there.
            candidates: As there.
            alive: As there.
            room_bytes: What is left of the space that this node offers; a copy that does not fit
                into it is not fetched.
        """
        for effect in self.replication.tick(now, datasets, candidates, alive):
            match effect:
                case FetchCopy(dataset, name, size, sources, copies):
                    if sources and size <= room_bytes:
                        room_bytes -= size
                        self.transfers.want(
                            dataset, name, sources, priority=copies, admit=at_most(size)
                        )
                case StopFetch(dataset, name):
                    self.transfers.cancel(dataset, name)
                case _:
                    yield effect


def _write_at(path: Path, data: bytes | memoryview, offset: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        os.pwrite(descriptor, data, offset)
    finally:
        os.close(descriptor)


class _Repairing:
    """Moves an object into quarantine if reading it shows damage."""

    def __init__(self, objects: ObjectStore, name: str) -> None:
        self._objects = objects
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Corrupt):
            return
        _log.error("a copy is damaged and fetched again: %s", error)
        with suppress(SennitError, OSError):
            self._objects.quarantine(self._name)
