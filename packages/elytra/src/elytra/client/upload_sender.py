"""Send one file to a node as parallel parts, and resume an interrupted upload."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elytra.client.transport import Transport
from elytra.client.upload_progress import OnProgress, TransferProgress
from sennit_core.errors import BadInput, Conflict, UsageError
from sennit_core.file_kinds import HEAD_BYTES, check_readable
from sennit_core.units import KIB

_SLICE_BYTES = 256 * KIB
_EDGE_BYTES = 64 * KIB
_OFFER_PARTS = 16  # 128 MiB of default parts: hashed in a tenth of a second on two cores


@dataclass(frozen=True, slots=True)
class SendOptions:
    """Options of an upload.

    Args:
        parallel: Number of parts sent concurrently.
        part_bytes: Size of a part; None lets the node choose.
        resume: Resume an interrupted upload of the same file.
        reuse: If it resumes uploads, send no part that other uploads of the user have.
        mode: What completing the upload does, "create", "append", "replace" or "upsert".
        retry_seconds: How long each part is retried while the node is unreachable.
        ingest: Options for reading the file, such as {"delimiter": ";"}.
    """

    parallel: int = 4
    part_bytes: int | None = None
    resume: bool = True
    reuse: bool = True
    mode: str = "create"
    retry_seconds: float = 60.0
    ingest: dict[str, Any] | None = None


def send_file(
    transport: Transport,
    path: Path,
    name: str,
    options: SendOptions,
    on_progress: OnProgress | None = None,
) -> str:
    """Send every part of a file that the node does not have yet.

    Args:
        transport: The node.
        path: The file; it must not change during the upload.
        name: The name of the new dataset.
        options: Parallelism, part size, resumption.
        on_progress: Called from the sending threads, one at a time.

    Returns:
        The id of the upload; the node has all of its parts.

    Raises:
        BadInput: The file's first bytes show that it holds no table; nothing is sent.
        SennitError: The node's error; Unavailable when the node stays unreachable.
        Conflict: The file changed while it was being sent.
    """
    if options.parallel < 1:
        raise UsageError(f"parallel must be 1 or more, not {options.parallel}")
    with _open_for_pread(path) as file:
        _check_file(file, path)
        before = os.fstat(file)
        upload = _start(transport, file, name, options)
        progress = TransferProgress(before.st_size, on_progress)
        part_bytes = int(upload["partBytes"])
        have = set(upload["have"])
        part = _Part(transport, file, upload["uploadId"], progress, options.retry_seconds, {})
        spans = {
            index: (begin, min(part_bytes, before.st_size - begin))
            for index, begin in enumerate(range(0, before.st_size, part_bytes))
        }
        for index in have & spans.keys():
            progress.set(index, spans[index][1])
        missing = [(index, *spans[index]) for index in spans if index not in have]
        # Nodes of earlier versions do not say it.
        if options.resume and options.reuse and upload.get("reusable"):
            missing = _reuse(part, missing, options.parallel)
        _send_all(part, missing, options.parallel)
        after = os.fstat(file)
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            transport.request("DELETE", f"/api/uploads/{upload['uploadId']}")
            raise Conflict(f"{path} changed while it was being sent", hint="send it again")
    return str(upload["uploadId"])


def check_file(path: Path) -> None:
    """Refuse a file that cannot become a dataset, before anything is sent.

    Raises:
        UsageError: The path is a directory or another file that is not regular.
        BadInput: The file is empty, or of a kind that holds no table, such as an image.
        OSError: It cannot be opened.
    """
    with _open_for_pread(path) as file:
        _check_file(file, path)


def _check_file(file: int, path: Path) -> None:
    mode = os.fstat(file).st_mode
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path} is a directory", hint="name a file")
    if not stat.S_ISREG(mode):
        raise UsageError(
            f"{path} is not a regular file",
            hint="write its contents to a file and upload that; a part is sent again after a failure",
        )
    head = os.pread(file, HEAD_BYTES, 0)
    if not head:
        raise BadInput(what=str(path), reason="the file is empty")
    check_readable(head, str(path))


@contextmanager
def _open_for_pread(path: Path) -> Iterator[int]:
    # Opening a FIFO would wait for a writer; a regular file ignores O_NONBLOCK.
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield file
    finally:
        os.close(file)


def _start(transport: Transport, file: int, name: str, options: SendOptions) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": name,
        "size": os.fstat(file).st_size,
        "mode": options.mode,
        "options": options.ingest or {},
    }
    if options.part_bytes is not None:
        document["partBytes"] = options.part_bytes
    if options.resume:
        document["resumeKey"] = _resume_key(file, name)
    answer: dict[str, Any] = transport.json("POST", "/api/start-upload", document, repeatable=True)
    return answer


def _resume_key(file: int, name: str) -> str:
    """Name this state of this file: its size, its time, and both its ends."""
    status = os.fstat(file)
    key = hashlib.sha256(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    key.update(os.pread(file, _EDGE_BYTES, 0))
    key.update(os.pread(file, _EDGE_BYTES, max(0, status.st_size - _EDGE_BYTES)))
    return key.hexdigest()


def _reuse(
    part: _Part, missing: list[tuple[int, int, int]], parallel: int
) -> list[tuple[int, int, int]]:
    """Offer parts to the node, which may have them of other uploads; return those that are to be sent.

    Parts are hashed for it before they are sent, which delays the first one. So offers end with the
    first of them of which the node has no part.
    """
    with ThreadPoolExecutor(parallel, thread_name_prefix="elytra-upload") as threads:
        taken: set[int] = set()
        for start in range(0, len(missing), _OFFER_PARTS):
            offered = missing[start : start + _OFFER_PARTS]
            for (index, _, _), sha256 in zip(
                offered, threads.map(lambda span: part.hash(*span[1:]), offered), strict=True
            ):
                part.hashes[index] = sha256
            reused = part.offer([index for index, _, _ in offered])
            for index, _, size_bytes in offered:
                if index in reused:
                    part.progress.set(index, size_bytes)
            taken |= reused
            if not reused:
                break
    return [span for span in missing if span[0] not in taken]


def _send_all(part: _Part, missing: list[tuple[int, int, int]], parallel: int) -> None:
    with ThreadPoolExecutor(parallel, thread_name_prefix="elytra-upload") as threads:
        sending = [threads.submit(part.send, *span) for span in missing]
        done, waiting = wait(sending, return_when=FIRST_EXCEPTION)
        for future in waiting:
            future.cancel()
        for future in done:
            future.result()


@dataclass(frozen=True, slots=True)
class _Part:
    transport: Transport
    file: int
    upload_id: str
    progress: TransferProgress
    retry_seconds: float
    # Of parts that were offered and not taken, which need not be read twice.
    hashes: dict[int, str]

    def hash(self, begin: int, size_bytes: int) -> str:
        digest = hashlib.sha256()
        for piece in self._slices(begin, size_bytes):
            digest.update(piece)
        return digest.hexdigest()

    def offer(self, indexes: Sequence[int]) -> set[int]:
        answer = self.transport.json(
            "POST",
            f"/api/uploads/{self.upload_id}/reuse",
            {"parts": {str(index): self.hashes[index] for index in indexes}},
            repeatable=True,
        )
        return set(answer["reused"]) & set(indexes)

    def send(self, index: int, begin: int, size_bytes: int) -> None:
        sha256 = self.hashes.get(index) or self.hash(begin, size_bytes)
        self.transport.put(
            f"/api/uploads/{self.upload_id}/parts/{index}",
            lambda: self._body(index, begin, size_bytes),
            headers={"X-Sha256": sha256, "Content-Length": str(size_bytes)},
            retry_seconds=self.retry_seconds,
        )
        self.progress.set(index, size_bytes)

    def _body(self, index: int, begin: int, size_bytes: int) -> Iterator[bytes]:
        done_bytes = 0
        for piece in self._slices(begin, size_bytes):
            self.progress.set(index, done_bytes)  # what is yielded is not yet delivered
            yield piece
            done_bytes += len(piece)

    def _slices(self, begin: int, size_bytes: int) -> Iterator[bytes]:
        position, end = begin, begin + size_bytes
        while position < end:
            piece = os.pread(self.file, min(_SLICE_BYTES, end - position), position)
            if not piece:
                raise Conflict("the file became shorter while it was being sent")
            yield piece
            position += len(piece)
