"""Whether the parts of a complete upload are those that were received, and make the announced file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from lake.encryption.files import Source
from lake.errors import UploadIncomplete
from lake.uploads.upload import UploadInfo
from sennit_core.errors import BadInput, Conflict, Corrupt, UsageError
from sennit_core.logs import get_logger
from sennit_core.units import MIB

__all__ = ["check_announced", "check_complete", "check_same", "check_whole", "remove_damaged"]

_log = get_logger("sennit.lake")

# An older part may come from the disk when it is read, not from the page cache.
_AT_REST_SECONDS = 600.0


def remove_damaged(
    upload: UploadInfo,
    folder: Path,
    parts: dict[int, tuple[str, str]],
    now: float,
    opened_at: float | None = None,
) -> None:
    """Verify the parts that are old, and delete damaged ones: they can be sent again.

    Args:
        upload: The upload, which is not encrypted.
        folder: Its folder.
        parts: The SHA-256 and the file of each part by its index; damaged ones are removed from it.
        now: Unix seconds.
        opened_at: Verify parts from before this time too, which may not have been durable then.

    Raises:
        Corrupt: A part was damaged after the upload had been complete.
    """
    for index, (sha256, name) in list(parts.items()):
        path = folder / name
        written_at = path.stat().st_mtime
        is_earlier = opened_at is not None and written_at < opened_at
        if now - written_at < _AT_REST_SECONDS and not is_earlier:
            continue
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found == sha256:
            continue
        damage = Corrupt(
            f"part {index} of upload {upload.id}", sha256, found,
            hint="abort the upload and send the file again",
        )  # fmt: skip
        # A client of tus sends only what follows the last byte.
        if upload.state != "receiving" or upload.tus is not None:
            raise damage
        _log.error("%s; it is to be sent again", damage)
        path.unlink()
        del parts[index]


def check_announced(name: str, size: int, part_bytes: int, parts_max: int) -> None:
    """Refuse a file that has no bytes, or too many for its parts.

    Args:
        name: The file's name.
        size: Its announced size.
        part_bytes: Bytes of a part.
        parts_max: Parts that an upload may have.

    Raises:
        UsageError: It would have more parts, or a size below zero.
        BadInput: It is empty.
    """
    if size < 0:
        raise UsageError(f"size is {size}; it cannot be negative")
    if size == 0:
        raise BadInput(what=name, reason="the file is empty")
    if -(-size // part_bytes) > parts_max:
        raise UsageError(
            f"{size} bytes in parts of {part_bytes} would be more than {parts_max} parts",
            hint="use larger partBytes",
        )


def check_complete(upload: UploadInfo, have: frozenset[int], sizes: Sequence[int]) -> None:
    """Refuse to seal an upload whose parts do not make a file.

    Args:
        upload: The upload.
        have: Indexes of its parts.
        sizes: Bytes of its parts, in order.

    Raises:
        UploadIncomplete: Parts are missing; `missing` lists them.
        BadInput: A part before the last is not full.
    """
    missing = upload.missing(have)
    if missing:
        raise UploadIncomplete(
            f"upload {upload.id} lacks {len(missing)} of its parts",
            missing=missing[:100],
            hint="send the missing parts, then complete it again",
        )
    if upload.tus is not None and sum(sizes) != upload.size:
        raise UploadIncomplete(
            f"upload {upload.id} has {sum(sizes)} of {upload.size} bytes",
            missing=[len(sizes)],
            hint="send the rest",
        )
    # Offsets of parts are computed from their indexes, so only the last one may be shorter.
    if upload.tus is None and any(size != upload.part_bytes for size in sizes[:-1]):
        raise BadInput(what=f"upload {upload.id}", reason="a part before the last is not full")


def check_whole(
    upload: UploadInfo, paths: Sequence[Source], stored_hash: Callable[[str], str]
) -> None:
    """Compare the file that the parts make with its announced SHA-256.

    Args:
        upload: The upload, which has such a hash.
        paths: The parts.
        stored_hash: Returns a hash in the form of the upload's record.

    Raises:
        BadInput: It is another file.
    """
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(MIB):
                whole.update(piece)
    if stored_hash(whole.hexdigest()) != upload.sha256:
        found = "" if upload.encrypted else f" as {upload.sha256}"
        reason = f"the file's SHA-256 was declared{found}, the parts make {whole.hexdigest()}"
        raise BadInput(what=upload.name, reason=reason, hint="start the upload again")


def check_same(upload: UploadInfo, index: int, have: str, sha256: str) -> None:
    """Raise `Conflict` if a part that is here is another one than was sent, by their hashes."""
    if have == sha256:
        return
    which = "other bytes" if upload.encrypted else f"SHA-256 {have}, not {sha256}"
    raise Conflict(
        f"part {index} of upload {upload.id} is here with {which}",
        hint="abort the upload and start again if the file has changed",
    )
