"""The parts of uploads, received in any order, each complete or absent.

Each upload is a folder with `upload.json` and one file per part, whose name has its index and
SHA-256. Parts for an encrypted dataset are encrypted as they arrive (`lake.encryption.files`). A part gets that name by an atomic rename after its bytes are durable, so the folder's
listing is the state of the upload, and a restart resumes from it. Memory use is constant.

Client input, such as file names, is stored as data and never used in a path.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lake._failpoints import reached
from lake.encryption.files import Source, plain_bytes, source_bytes
from lake.links.local_files import LocalFile
from lake.objects.disk_space import DiskSpace, Usage
from lake.objects.durable import NewFile, fsync_file, fsync_folder, storage_errors, write_whole
from lake.uploads.part_checks import (
    check_announced,
    check_complete,
    check_same,
    check_whole,
    remove_damaged,
)
from lake.uploads.part_writer import PartWriter
from lake.uploads.progress import Progress
from lake.uploads.sync_queue import SyncQueue
from lake.uploads.table import FinishedTable, UploadRow, UploadTable
from lake.uploads.tus_upload import TusUpload
from lake.uploads.upload import MODES, SealedUpload, UploadInfo, check_name, check_sha256
from lake.uploads.upload_keys import UploadKeys
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import (
    BadInput,
    Busy,
    Conflict,
    Corrupt,
    Denied,
    NotFound,
    TooLarge,
    UsageError,
)
from sennit_core.ids import is_id, new_id
from sennit_core.private_files import FOLDER_MODE, make_private_folder
from sennit_core.units import MIB

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["EXPIRE_SECONDS", "PART_BYTES", "PartStore"]

_log = logging.getLogger("sennit.lake")

# A part that was interrupted is sent again whole.
PART_BYTES = 8 * MIB
PART_BYTES_MAX = 256 * MIB
PARTS_MAX = 100_000  # fewer than the six digits of a part's file name allow
UPLOADS_MAX = 4096
"""Open uploads of a node. Each costs a folder, and a start with a resume key reads their records."""
EXPIRE_SECONDS = 24 * 3600.0
_PART = re.compile(r"(\d{6})-([0-9a-f]{64})\.part")
_META = "upload.json"


class PartStore:
    """The uploads of one node.

    Args:
        root: Folder of the uploads; created if missing.
        tree: Tree in which `/uploads/{id}` mirrors each upload's state; None for no mirror.
        admit: Called with (name, mode, options) before an upload starts; raises to refuse it.
        part_bytes: Default size of parts.
        size_max: Largest accepted upload, in bytes; None for no limit except the disk.
        space: Knows the disk's reserve and the lake's quota; None for the default reserve.
        keys: Which uploads are encrypted, and their keys; None encrypts none.
        expire_seconds: How long an incomplete upload stays after its last part.
        sync: Whether a part is durable once it is stored (`always`), or within a second (`interval`).
        clock: Source of time for ids and expiry.
    """

    def __init__(  # noqa: PLR0913 - independent settings, all but two by keyword
        self,
        root: Path | str,
        tree: ElkynStore | None = None,
        *,
        admit: Callable[[str, str, dict[str, Any]], None] | None = None,
        part_bytes: int = PART_BYTES,
        size_max: int | None = None,
        space: DiskSpace | None = None,
        keys: UploadKeys | None = None,
        expire_seconds: float = EXPIRE_SECONDS,
        sync: str = "always",
        clock: Clock = SYSTEM,
    ) -> None:
        self.root = Path(root)
        self.space = space or DiskSpace(self.root, lambda: Usage(0, 0))
        self._rows = None if tree is None else UploadTable(tree)
        self.finished = None if tree is None else FinishedTable(tree)
        self.expire_seconds = expire_seconds
        # Whether a complete upload has an ingest that is not over; its owner, if any, knows.
        self.is_needed: Callable[[str], bool] = lambda _: True
        self._admit = admit
        self._keys = keys
        self._part_bytes = part_bytes
        self.size_max = size_max
        self._clock = clock
        # Held while a part gets its name and while an upload is sealed, not while bytes arrive.
        self._lock = threading.RLock()
        self._progress = Progress()
        self._syncs = SyncQueue() if sync == "interval" else None
        # Parts from before may have been lost, or cut, by a power failure if they were not synced.
        self._opened_at = clock.now()
        with storage_errors(self.root, 0):
            make_private_folder(self.root)
        self._recover()

    def close(self) -> None:
        """Make all parts durable."""
        if self._syncs is not None:
            self._syncs.close()

    def start(  # noqa: PLR0913 - members of the request, all but two by keyword
        self,
        name: str,
        size: int | None,
        *,
        sha256: str | None = None,
        part_bytes: int | None = None,
        mode: str = "create",
        options: dict[str, Any] | None = None,
        resume_key: str | None = None,
        owner: str | None = None,
        tus: TusUpload | None = None,
    ) -> UploadInfo:
        """Start an upload, or return the unfinished upload with the same resume key.

        Args:
            name: The file's name on the client; only its stem is used, as the dataset's name.
            size: Bytes of the whole file; None if unknown.
            sha256: Hex SHA-256 of the whole file; verified by `seal`.
            part_bytes: Size of every part except the last.
            mode: Ingest mode, of `MODES`.
            options: Ingest options, stored with the upload.
            resume_key: The client's name for the file; None always starts a new upload.
            owner: The user's name; None if no other upload may reuse its parts.
            tus: What it has if it is one of tus.

        Raises:
            Busy: There are too many uploads.
            Conflict: The dataset exists (raised by `admit`).
            StorageFull: The disk has too little free space.
        """
        encrypted = self._keys is not None and self._keys.wanted(name, mode, options or {})
        if resume_key:
            for known in self.list():
                if known.is_resumed_by(resume_key, size, mode, options or {}, encrypted=encrypted):
                    return known
        if mode not in MODES:
            raise UsageError(f"mode {mode!r} is none of {', '.join(MODES)}")
        if sha256 is not None:
            check_sha256(sha256)
        each = self._part_bytes if part_bytes is None else part_bytes
        if not 1 <= each <= PART_BYTES_MAX:
            raise UsageError(f"partBytes is {each}; it must be between 1 and {PART_BYTES_MAX}")
        self._check_size(name, size, each)
        if len(self._progress) >= UPLOADS_MAX:
            raise Busy(
                f"the node has {UPLOADS_MAX:,} unfinished uploads",
                hint="finish or abort some; those that are left expire",
            )
        upload = UploadInfo(
            id=new_id(self._clock),
            dataset=new_id(self._clock),
            name=check_name(name),
            size=size,
            sha256=sha256,
            part_bytes=each,
            mode=mode,
            options=dict(options or {}),
            created_at=self._clock.now(),
            resume_key=resume_key,
            owner=owner,
            encrypted=encrypted,
            tus=tus,
        )
        self._create(upload)
        return upload

    def start_in_place(
        self,
        name: str,
        file: LocalFile,
        *,
        mode: str,
        options: dict[str, Any],
        linked: bool,
        upload_id: str | None = None,
    ) -> UploadInfo:
        """Record a file of this machine as a complete upload without parts.

        Args:
            name: The file's name.
            file: The file, which stays where it is.
            mode: As of `start`.
            options: As of `start`.
            linked: Whether the upload's dataset is created now, linked to the file.
            upload_id: Its id; a new one by default. It must not exist.
        """
        if not file.size:
            raise BadInput(what=name, reason="the file is empty")
        self.check_end(file.size)
        upload = UploadInfo(
            id=upload_id or new_id(self._clock),
            dataset=new_id(self._clock),
            name=name,
            size=file.size,
            part_bytes=file.size,
            mode=mode,
            options=options,
            created_at=self._clock.now(),
            state="sealed",
            file=file,
            linked=linked,
        )
        self._create(upload)
        return upload

    def check(self, name: str, mode: str, options: dict[str, Any]) -> None:
        """Refuse an upload that `admit` refuses, such as one of a dataset that exists."""
        if self._admit is not None:
            self._admit(name, mode, options)

    def _create(self, upload: UploadInfo) -> None:
        if upload.tus is None or not upload.tus.partial:
            self.check(upload.name, upload.mode, upload.options)
        with storage_errors(self.root, 0):
            self.folder(upload.id).mkdir(mode=FOLDER_MODE)
        if upload.encrypted:
            self.keys_of(upload).create(upload.id)
            if upload.sha256 is not None:
                upload = replace(upload, sha256=self._stored_hash(upload, upload.sha256))
        # A folder without this record is removed at startup: its id was never returned.
        self._save(upload)
        fsync_folder(self.root)
        done = upload.size or 0 if upload.file is not None else 0
        with self._lock:
            self._progress.add(upload, done, upload.created_at)
        self._mirror(upload)

    def get(self, upload_id: str) -> UploadInfo:
        """Return the upload with its received parts.

        Raises:
            NotFound: There is none.
            Corrupt: Its record is damaged.
        """
        try:
            stored = (self.folder(upload_id) / _META).read_bytes()
            return UploadInfo.from_stored(stored, sorted(self._parts(upload_id)))
        except FileNotFoundError:
            raise NotFound(kind="upload", name=upload_id, suggestion=None) from None
        except (ValueError, KeyError, TypeError, BadInput) as error:
            raise Corrupt(
                f"the record of upload {upload_id}",
                found=str(error)[:100],
                hint="abort the upload and send the file again",
            ) from None

    def list(self) -> Sequence[UploadInfo]:
        """Return all uploads, oldest first, without those whose record is damaged."""
        found = []
        with self._lock:
            for upload_id in self._ids():
                with suppress(Corrupt):
                    found.append(self.get(upload_id))
        return found

    def open_part(
        self,
        upload_id: str,
        index: int,
        *,
        sha256: str | None = None,
        expected_bytes: int | None = None,
    ) -> PartWriter:
        """Return a context manager that writes part `index`.

        Args:
            upload_id: The upload.
            index: Index from 0; part i starts at byte i * part_bytes.
            sha256: The part's hex SHA-256 as declared by the client; None skips the check.
            expected_bytes: The length announced by the client; refused at once if too large.

        Raises:
            Conflict: The upload is already complete, or this part exists with another hash.
        """
        if sha256 is not None:
            check_sha256(sha256)
        upload = self.get(upload_id)
        have = self._parts(upload_id).get(index)
        if have is not None and sha256 is not None:
            check_same(upload, index, have[0], self._stored_hash(upload, sha256))
        if upload.state != "receiving" and have is None:
            raise Conflict(f"upload {upload_id} is {upload.state}; it accepts no more parts")
        limit = upload.expected_bytes(index)
        if expected_bytes is not None and expected_bytes > limit:
            what = f"part {index} of upload {upload_id}"
            raise TooLarge(what=what, limit_bytes=limit, actual_bytes=expected_bytes)
        start = upload.part_bytes * index
        self.check_end(start + (expected_bytes or 0))
        return PartWriter(self, upload, index, sha256, start)

    def position(self, upload_id: str) -> tuple[int, int]:
        """Return the number of parts of an upload that gets them in order, and their bytes."""
        with self._lock:
            return len(self._parts(upload_id)), self._progress.done(upload_id)

    def open_next(self, upload: UploadInfo, index: int, start: int) -> PartWriter:
        """Return a writer of the next part of an upload that gets them in order.

        Args:
            upload: The upload.
            index: Index of the part.
            start: Offset of its first byte in the file.

        Raises:
            UsageError: The upload has too many parts.
        """
        if index >= PARTS_MAX:
            raise UsageError(
                f"upload {upload.id} came in {PARTS_MAX:,} requests",
                hint="send it again with more bytes in each request",
            )
        return PartWriter(self, upload, index, None, start)

    def reusable(self, owner: str, *, besides: str = "") -> Sequence[str]:
        """Return a user's uploads whose parts others may reuse, except one; the last changed first."""
        with self._lock:
            return self._progress.reusable(owner, besides=besides)

    def part_files(self, upload_id: str) -> Sequence[tuple[str, Path]]:
        """Return the SHA-256 and the file of each part of an upload that is not encrypted, in order."""
        folder, found = self.folder(upload_id), sorted(self._parts(upload_id).items())
        return [(sha256, folder / name) for _, (sha256, name) in found]

    def link_parts(self, upload_id: str, chosen: Mapping[int, tuple[str, Path]]) -> Sequence[int]:
        """Add parts of other uploads to this one without copying their bytes; none is encrypted.

        Returns the indexes of those that it has now, durable as parts that were sent: a file may be
        gone, or have as many links as the file system allows.

        Args:
            upload_id: The upload, which still receives.
            chosen: SHA-256 and file of each part, by its index in this upload.
        """
        linked = {}
        with self._lock:
            upload = self._check_receives(upload_id)
            have = self._parts(upload_id)
            for index, (sha256, source) in chosen.items():
                path = self.folder(upload_id) / f"{index:06d}-{sha256}.part"
                if index not in have:
                    with suppress(OSError):
                        os.link(source, path)
                        reached("reuse-linked")
                        self._note_part(upload_id, path, path.stat().st_size)
                        linked[index] = path
                elif have[index][0] == sha256:
                    linked[index] = path
        if linked and self._syncs is None:
            # They may come from a time in which parts were made durable later (`interval`).
            for path in linked.values():
                fsync_file(path)
            fsync_folder(self.folder(upload_id))
        self._mirror(upload)
        return sorted(linked)

    def sources_of(self, upload: UploadInfo) -> Sequence[Source]:
        """Return the parts that an upload has, in order."""
        return [
            self._source(upload, index, name)
            for index, (_, name) in sorted(self._parts(upload.id).items())
        ]

    def check_end(self, end: int) -> None:
        """Raise `TooLarge` if a file of at least `end` bytes exceeds the limit.

        A part's index determines its position in the file, so this limits uploads of unknown size
        in any order of their parts.
        """
        if self.size_max is not None and end > self.size_max:
            raise TooLarge(
                what="the upload",
                limit_bytes=self.size_max,
                actual_bytes=end,
                hint="the limit is the setting storage.upload_bytes_max of the node",
            )

    def keep(self, upload: UploadInfo, index: int, sha256: str, new: NewFile, size: int) -> None:
        """Store a received part under its final name; storing the same part again has no effect."""
        upload_id, sha256 = upload.id, self._stored_hash(upload, sha256)
        if self._syncs is None:
            new.sync()  # not under the lock, for which the other parts would wait
        with self._lock:
            # Asked again: two requests may have sent the same part.
            have = self._parts(upload_id).get(index)
            if have is not None:
                check_same(upload, index, have[0], sha256)
            else:
                upload = self._name_part(upload_id, index, sha256, new, size)
        if self._syncs is None:
            # Not under the lock either: sealing the upload syncs the same folder with the record. Also
            # for a part that was here: the request that brought it may still wait for its sync.
            try:
                fsync_folder(self.folder(upload_id))
            except FileNotFoundError:  # aborted meanwhile
                raise NotFound(kind="upload", name=upload_id, suggestion=None) from None
        if have is None:
            self._mirror(upload)

    def _name_part(
        self, upload_id: str, index: int, sha256: str, new: NewFile, size: int
    ) -> UploadInfo:
        """Give a received part its final name, which its folder makes durable when it is synced."""
        upload = self._check_receives(upload_id)
        # The name says whether the part is here and which bytes it has, without another file.
        path = self.folder(upload_id) / f"{index:06d}-{sha256}.part"
        new.commit(path, sync=self._syncs is None, sync_folder=False)
        self._note_part(upload_id, path, size)
        return upload

    def _check_receives(self, upload_id: str) -> UploadInfo:
        upload = self.get(upload_id)
        if upload.state != "receiving":
            raise Conflict(f"upload {upload_id} is {upload.state}; it accepts no more parts")
        return upload

    def _note_part(self, upload_id: str, path: Path, size: int) -> None:
        if self._syncs is not None:
            self._syncs.add(path)
        self._progress.add_bytes(upload_id, size, self._clock.now())

    def seal(self, upload_id: str) -> SealedUpload:
        """Mark the upload as complete, so that it accepts no more parts; may be repeated.

        Raises:
            UploadIncomplete: Parts are missing; `missing` lists them.
            BadInput: The whole file's SHA-256 differs from the one declared at the start.
            Corrupt: A part was damaged after the upload had been complete.
        """
        with self._lock:
            upload = self.get(upload_id)
            if upload.file is not None:
                return SealedUpload(upload, (Path(upload.file.path),), upload.file.size)
            if upload.tus is not None and upload.tus.partial:
                raise Conflict(
                    f"upload {upload_id} is a part of a file",
                    hint="concatenate it with the others: POST /tus/ with Upload-Concat: final;…",
                )
            parts = self._parts(upload_id)
            if not upload.encrypted:  # an encrypted part is authenticated when it is read
                since = None if self._syncs is None else self._opened_at
                remove_damaged(upload, self.folder(upload_id), parts, self._clock.now(), since)
            paths = self.sources_of(upload)
            sizes = [source_bytes(path) for path in paths]
            check_complete(upload, frozenset(parts), sizes)
            if upload.state == "receiving":
                if self._syncs is not None:  # from here on an ingest relies on them
                    self._syncs.flush()
                if upload.sha256 is not None:
                    check_whole(upload, paths, lambda sha256: self._stored_hash(upload, sha256))
                upload = upload.with_state("sealed", size=sum(sizes))
                self._progress.touch(upload_id, self._clock.now())  # its ingest is submitted next
                # From here on no part is accepted, also after a restart: an ingest reads these
                # files.
                self._save(upload)
                self._mirror(upload)
            return SealedUpload(upload=upload, paths=tuple(paths), size=sum(sizes))

    def abort(self, upload_id: str) -> None:
        """Delete the upload and its parts; not an error if it does not exist."""
        folder = self.folder(upload_id)
        with self._lock:
            if folder.exists():
                # Delete the record first: an upload without one is deleted at the next start.
                (folder / _META).unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)
                fsync_folder(self.root)
            self._progress.remove(upload_id)
        if self._keys is not None:
            self._keys.forget(upload_id)
        if self._rows is not None:
            self._rows.remove(upload_id)

    def mark(self, upload_id: str, state: str) -> None:
        """Set the state of a sealed upload in the tree (`ingesting`, `failed`)."""
        self._mirror(self.get(upload_id).with_state(state))

    def expires_at(self, upload_id: str) -> float:
        """Return when an upload is deleted if it gets no other part; Unix seconds."""
        with self._lock:
            return self._progress.changed_at(upload_id) + self.expire_seconds

    def sweep(self) -> Sequence[str]:
        """Delete uploads that got no part for long and that no ingest needs; return their ids."""
        now = self._clock.now()
        with self._lock:
            stale = [
                upload.id
                for upload in self.list()
                if upload.file is None
                and self.expires_at(upload.id) < now
                and (upload.state == "receiving" or not self.is_needed(upload.id))
            ]
            for upload_id in stale:
                self.abort(upload_id)
        if self.finished is not None:
            self.finished.sweep(now - self.expire_seconds)
        return stale

    def folder(self, upload_id: str) -> Path:
        """Return the upload's folder; refuse an invalid id."""
        if not is_id(upload_id):
            raise NotFound(kind="upload", name=upload_id[:80], suggestion=None)
        return self.root / upload_id

    def keys_of(self, upload: UploadInfo) -> UploadKeys:
        """Return the keys, of which an encrypted upload has one."""
        if self._keys is None:
            raise Denied(f"read upload {upload.id}, which is encrypted", needed="the lake's key")
        return self._keys

    def _stored_hash(self, upload: UploadInfo, sha256: str) -> str:
        """Return a hash as names of files and the record have it."""
        return self.keys_of(upload).tag(upload.id, sha256) if upload.encrypted else sha256

    def _source(self, upload: UploadInfo, index: int, name: str) -> Source:
        path = self.folder(upload.id) / name
        return self.keys_of(upload).part(upload.id, index, path) if upload.encrypted else path

    def _ids(self) -> Iterator[str]:
        for folder in sorted(self.root.iterdir()):
            if is_id(folder.name) and (folder / _META).exists():
                yield folder.name

    def _parts(self, upload_id: str) -> dict[int, tuple[str, str]]:
        try:
            names = [path.name for path in self.folder(upload_id).iterdir()]
        except FileNotFoundError:
            raise NotFound(kind="upload", name=upload_id, suggestion=None) from None
        found = (_PART.fullmatch(name) for name in names)
        return {int(match[1]): (match[2], match[0]) for match in found if match}

    def _check_size(self, name: str, size: int | None, part_bytes: int) -> None:
        if size is not None:
            check_announced(name, size, part_bytes, PARTS_MAX)
            self.check_end(size)
        self.space.check(f"the upload {name!r}", size or 0)

    def _save(self, upload: UploadInfo) -> None:
        write_whole(self.folder(upload.id) / _META, upload.to_stored())

    def _mirror(self, upload: UploadInfo) -> None:
        if self._rows is not None:
            row = UploadRow(upload.name, upload.size, self._progress.done(upload.id), upload.state)
            # Ephemeral: for display. It is written anew at each start.
            self._rows.put(upload.id, row, ephemeral=True)

    def _recover(self) -> None:
        for folder in self.root.iterdir():
            if is_id(folder.name) and not (folder / _META).exists():
                shutil.rmtree(folder, ignore_errors=True)
        for upload_id in self._ids():
            # Parts whose bytes were not complete when the process ended.
            for leftover in self.folder(upload_id).glob("*.incoming"):
                leftover.unlink()
            try:
                upload = self.get(upload_id)
            except Corrupt as damage:  # aborting it removes it
                _log.error("%s", damage)
                continue
            measure: Callable[[Path], int] = plain_bytes if upload.encrypted else os.path.getsize
            parts = self._parts(upload_id).values()
            done = sum(measure(self.folder(upload_id) / name) for _, name in parts)
            changed_at = max(upload.created_at, self.folder(upload_id).stat().st_mtime)
            self._progress.add(upload, done, min(changed_at, self._clock.now()))
            self._mirror(upload)
        if self._keys is not None:
            self._keys.forget_others(self._ids())
