"""The parts of uploads, received in any order, each complete or absent.

Each upload is a folder with `upload.json` and one file per part, whose name has its index and
SHA-256. Parts for an encrypted dataset are encrypted as they arrive (`lake.encrypted_files`). A part gets that name by an atomic rename after its bytes are durable, so the folder's
listing is the state of the upload, and a restart resumes from it. Memory use is constant.

Client input, such as file names, is stored as data and never used in a path.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lake.disk_space import DiskSpace, Usage
from lake.durable import NewFile, fsync_folder, storage_errors, write_whole
from lake.encrypted_files import EncryptedWriter, Source, plain_bytes, source_bytes
from lake.errors import UploadIncomplete
from lake.local_files import LocalFile
from lake.uploads.table import UploadRow, UploadTable
from lake.uploads.upload import MODES, SealedUpload, UploadInfo, check_name, check_sha256
from lake.uploads.upload_keys import UploadKeys
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import BadInput, Conflict, Corrupt, Denied, NotFound, TooLarge, UsageError
from sennit_core.file_kinds import HEAD_BYTES, check_readable
from sennit_core.hashing import canonical_json, sha256_hex
from sennit_core.ids import is_id, new_id
from sennit_core.private_files import FOLDER_MODE, make_private_folder
from sennit_core.units import MIB

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["PART_BYTES", "PartStore", "PartWriter"]

_log = logging.getLogger("sennit.lake")

# A part that was interrupted is sent again whole.
PART_BYTES = 8 * MIB
PART_BYTES_MAX = 256 * MIB
PARTS_MAX = 100_000  # fewer than the six digits of a part's file name allow
# A part that lies here for longer may come from the disk when it is read, not from the page cache.
_AT_REST_SECONDS = 600.0
_PART = re.compile(r"(\d{6})-([0-9a-f]{64})\.part")
_META = "upload.json"
_CHECKSUM = "checksum"


class PartWriter:
    """Writes and hashes one part, which is invisible until `commit`."""

    def __init__(
        self, store: PartStore, upload: UploadInfo, index: int, sha256: str | None
    ) -> None:
        self._store = store
        self._upload = upload
        self._index = index
        self._declared = sha256
        self._limit = upload.expected_bytes(index)
        self._hash = hashlib.sha256()
        self._size = 0
        folder = store.folder(upload.id)
        self._encrypted: EncryptedWriter | None = None
        if upload.encrypted:
            part = store.keys_of(upload).part(upload.id, index, folder)
            self._encrypted = EncryptedWriter(
                lambda data: self._new.write(data), part.name, part.key
            )
        self._new = NewFile(folder)
        # The file's first bytes, until the format check; only the first part has them.
        self._head: bytearray | None = bytearray() if index == 0 else None

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes.

        Raises:
            TooLarge: The part would exceed its size.
            StorageFull: The disk is full.
            BadInput: The file's first bytes are of a format that holds no table.
        """
        size = self._size + memoryview(data).nbytes
        if size > self._limit:
            raise TooLarge(
                what=f"part {self._index} of upload {self._upload.id}",
                limit_bytes=self._limit,
                actual_bytes=size,
            )
        self._store.check_end(self._upload.part_bytes * self._index + size)
        # Again for each piece: other writers may have used the room since the upload's start.
        self._store.space.check_disk(f"the upload {self._upload.name!r}", size - self._size)
        self._look_at(data)
        self._hash.update(data)
        (self._encrypted or self._new).write(data)
        self._size = size

    def commit(self) -> str:
        """Store the part; return its SHA-256 as hex.

        Raises:
            BadInput: The part is too short or its hash differs from the declared one; not stored.
            Conflict: A part with this index and other bytes exists; it is kept.
        """
        if self._head is not None:
            check_readable(bytes(self._head), self._upload.name)
        sha256 = self._hash.hexdigest()
        what = f"part {self._index} of upload {self._upload.id}"
        if self._declared is not None and sha256 != self._declared:
            reason = (
                f"its SHA-256 was declared as {self._declared}, the bytes received have {sha256}"
            )
            raise BadInput(what=what, reason=reason, hint="send the part again")
        if self._upload.size is not None and self._size != self._limit:
            reason = f"it has {self._size} bytes, expected {self._limit}"
            raise BadInput(what=what, reason=reason, hint="send the part again, whole")
        if self._encrypted is not None:
            self._encrypted.finish()
        self._store.keep(self._upload, self._index, sha256, self._new, self._size)
        return sha256

    def _look_at(self, data: bytes | memoryview) -> None:
        """Refuse an image or an archive by its first bytes, before gigabytes are received."""
        if self._head is None:
            return
        self._head += memoryview(data).cast("B")[: HEAD_BYTES - len(self._head)]
        if len(self._head) == HEAD_BYTES:
            check_readable(bytes(self._head), self._upload.name)
            self._head = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._new.__exit__(kind, error, trace)


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
        clock: Clock = SYSTEM,
    ) -> None:
        self.root = Path(root)
        self.space = space or DiskSpace(self.root, lambda: Usage(0, 0))
        self._rows = None if tree is None else UploadTable(tree)
        self._admit = admit
        self._keys = keys
        self._part_bytes = part_bytes
        self._size_max = size_max
        self._clock = clock
        # Held while a part gets its name and while an upload is sealed, not while bytes arrive.
        self._lock = threading.RLock()
        # The bytes of the stored parts of each upload; only for display, and recomputed at startup.
        self._done: dict[str, int] = {}
        with storage_errors(self.root, 0):
            make_private_folder(self.root)
        self._recover()

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

        Raises:
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
            encrypted=encrypted,
        )
        self._create(upload)
        return upload

    def start_in_place(
        self, name: str, file: LocalFile, *, mode: str, options: dict[str, Any], linked: bool
    ) -> UploadInfo:
        """Record a file of this machine as a complete upload without parts.

        Args:
            name: The file's name.
            file: The file, which stays where it is.
            mode: As of `start`.
            options: As of `start`.
            linked: Whether the upload's dataset is created now, linked to the file.
        """
        if not file.size:
            raise BadInput(what=name, reason="the file is empty")
        self.check_end(file.size)
        upload = UploadInfo(
            id=new_id(self._clock),
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
        self._done[upload.id] = upload.size or 0 if upload.file is not None else 0
        self._mirror(upload)

    def get(self, upload_id: str) -> UploadInfo:
        """Return the upload with its received parts.

        Raises:
            NotFound: There is none.
            Corrupt: Its record is damaged.
        """
        try:
            kept = dict(json.loads((self.folder(upload_id) / _META).read_bytes()))
            # Records of earlier versions have none.
            checksum = kept.pop(_CHECKSUM, None)
            if checksum is not None and checksum != sha256_hex(canonical_json(kept)):
                raise ValueError("another checksum")
            return UploadInfo.from_json(kept | {"have": sorted(self._parts(upload_id))})
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
            _check_same(upload, index, have[0], self._stored_hash(upload, sha256))
        if upload.state != "receiving" and have is None:
            raise Conflict(f"upload {upload_id} is {upload.state}; it accepts no more parts")
        limit = upload.expected_bytes(index)
        if expected_bytes is not None and expected_bytes > limit:
            what = f"part {index} of upload {upload_id}"
            raise TooLarge(what=what, limit_bytes=limit, actual_bytes=expected_bytes)
        self.check_end(upload.part_bytes * index + (expected_bytes or 0))
        return PartWriter(self, upload, index, sha256)

    def check_end(self, end: int) -> None:
        """Raise `TooLarge` if a file of at least `end` bytes exceeds the limit.

        A part's index determines its position in the file, so this limits uploads of unknown size
        in any order of their parts.
        """
        if self._size_max is not None and end > self._size_max:
            raise TooLarge(
                what="the upload",
                limit_bytes=self._size_max,
                actual_bytes=end,
                hint="the limit is the setting storage.upload_bytes_max of the node",
            )

    def keep(self, upload: UploadInfo, index: int, sha256: str, new: NewFile, size: int) -> None:
        """Store a received part under its final name; storing the same part again has no effect."""
        upload_id, sha256 = upload.id, self._stored_hash(upload, sha256)
        new.sync()  # not under the lock, for which the other parts would wait
        with self._lock:
            # Asked again: two requests may have sent the same part at the same time.
            have = self._parts(upload_id).get(index)
            if have is not None:
                _check_same(upload, index, have[0], sha256)
                return
            upload = self.get(upload_id)
            if upload.state != "receiving":
                raise Conflict(f"upload {upload_id} is {upload.state}; it accepts no more parts")
            # The name is index and hash: whether the part is here, and which bytes it has, needs no
            # other file.
            new.commit(self.folder(upload_id) / f"{index:06d}-{sha256}.part")
            self._done[upload_id] = self._done.get(upload_id, 0) + size
        self._mirror(upload)

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
            parts = self._parts(upload_id)
            self._remove_damaged(upload, parts)
            missing = upload.missing(frozenset(parts))
            if missing:
                raise UploadIncomplete(
                    f"upload {upload_id} lacks {len(missing)} of its parts",
                    missing=missing[:100],
                    hint="send the missing parts, then complete it again",
                )
            paths = [self._source(upload, index, parts[index][1]) for index in sorted(parts)]
            sizes = [source_bytes(path) for path in paths]
            # Offsets of parts are computed from their indexes, so only the last one may be shorter.
            if any(size != upload.part_bytes for size in sizes[:-1]):
                raise BadInput(
                    what=f"upload {upload_id}", reason="a part before the last is not full"
                )
            if upload.state == "receiving":
                self._check_whole(upload, paths)
                upload = upload.with_state("sealed", size=sum(sizes))
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
            self._done.pop(upload_id, None)
        if self._keys is not None:
            self._keys.forget(upload_id)
        if self._rows is not None:
            self._rows.remove(upload_id)

    def mark(self, upload_id: str, state: str) -> None:
        """Set the state of a sealed upload in the tree (`ingesting`, `failed`)."""
        self._mirror(self.get(upload_id).with_state(state))

    def sweep(self, older_than_seconds: float) -> Sequence[str]:
        """Delete incomplete uploads that are older than this; return their ids."""
        limit = self._clock.now() - older_than_seconds
        stale = [u.id for u in self.list() if u.created_at < limit and u.state == "receiving"]
        for upload_id in stale:
            self.abort(upload_id)
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

    def _remove_damaged(self, upload: UploadInfo, parts: dict[int, tuple[str, str]]) -> None:
        """Verify the parts that have lain here for long; those that are damaged can be sent again.

        An encrypted part is authenticated when it is read.
        """
        if upload.encrypted:
            return
        for index, (sha256, name) in list(parts.items()):
            path = self.folder(upload.id) / name
            if self._clock.now() - path.stat().st_mtime < _AT_REST_SECONDS:
                continue
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found == sha256:
                continue
            damage = Corrupt(
                f"part {index} of upload {upload.id}", sha256, found,
                hint="abort the upload and send the file again",
            )  # fmt: skip
            if upload.state != "receiving":
                raise damage
            _log.error("%s; it is to be sent again", damage)
            path.unlink()
            del parts[index]

    def _check_whole(self, upload: UploadInfo, paths: Sequence[Source]) -> None:
        if upload.sha256 is None:
            return
        whole = hashlib.sha256()
        for path in paths:
            with path.open("rb") as file:
                while piece := file.read(MIB):
                    whole.update(piece)
        if self._stored_hash(upload, whole.hexdigest()) != upload.sha256:
            found = "" if upload.encrypted else f" as {upload.sha256}"
            reason = f"the file's SHA-256 was declared{found}, the parts make {whole.hexdigest()}"
            raise BadInput(what=upload.name, reason=reason, hint="start the upload again")

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
        if size is None:
            self.space.check(f"the upload {name!r}")
            return
        if size < 0:
            raise UsageError(f"size is {size}; it cannot be negative")
        if size == 0:
            raise BadInput(what=name, reason="the file is empty")
        self.check_end(size)
        if -(-size // part_bytes) > PARTS_MAX:
            raise UsageError(
                f"{size} bytes in parts of {part_bytes} would be more than {PARTS_MAX} parts",
                hint="use larger partBytes",
            )
        self.space.check(f"the upload {name!r}", size)

    def _save(self, upload: UploadInfo) -> None:
        kept = upload.to_stored_json()
        kept[_CHECKSUM] = sha256_hex(canonical_json(kept))
        write_whole(self.folder(upload.id) / _META, canonical_json(kept))

    def _mirror(self, upload: UploadInfo) -> None:
        if self._rows is not None:
            row = UploadRow(upload.name, upload.size, self._done.get(upload.id, 0), upload.state)
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
            measure = plain_bytes if upload.encrypted else _file_bytes
            parts = self._parts(upload_id).values()
            self._done[upload_id] = sum(measure(self.folder(upload_id) / name) for _, name in parts)
            self._mirror(upload)
        if self._keys is not None:
            self._keys.forget_others(self._ids())


def _file_bytes(path: Path) -> int:
    return path.stat().st_size


def _check_same(upload: UploadInfo, index: int, have: str, sha256: str) -> None:
    """Raise `Conflict` if a part that is here is another one than was sent, by their hashes."""
    if have == sha256:
        return
    which = "other bytes" if upload.encrypted else f"SHA-256 {have}, not {sha256}"
    raise Conflict(
        f"part {index} of upload {upload.id} is here with {which}",
        hint="abort the upload and start again if the file has changed",
    )
