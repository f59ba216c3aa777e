"""Reuse parts of a user's uploads in another upload of that user, by their SHA-256.

    client: hash parts -> offer the hashes -> send the parts that the node does not have
    node:                 link a part with that hash into the upload

Only the user's own uploads are searched. A hash does not prove that a user has a file; a proof of
that would still show that another user has uploaded it. So a part that only another user has sent
is never looked at, and offers of it cost and return what offers of an unknown part do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from lake.uploads.upload import check_sha256
from sennit_core.errors import BadInput, NotFound, UsageError
from sennit_core.file_kinds import HEAD_BYTES, check_readable

if TYPE_CHECKING:
    from lake.uploads.parts import PartStore
    from lake.uploads.upload import UploadInfo

__all__ = ["OFFERS_MAX", "reuse_parts"]

OFFERS_MAX = 1000
"""Hashes in a request: those of 8 GiB in parts of the default size."""
FILES_MAX = 100_000
"""Parts of the user's uploads whose names a request reads: about 0.1 CPU seconds."""


def reuse_parts(
    parts: PartStore, upload_id: str, owner: str, offered: Mapping[int, str]
) -> Sequence[int]:
    """Add those parts to an upload that the user's uploads have, without their bytes.

    Args:
        parts: The part store.
        upload_id: The upload.
        owner: Name of the user who offers.
        offered: Hex SHA-256 of parts by their index, at most `OFFERS_MAX`.

    Returns:
        Indexes of the offered parts that the upload has now with these bytes, as durable as if they
        had been sent. None of an encrypted upload, whose parts have a key of their own, or of one whose
        size is not known.

    Raises:
        NotFound: There is no such upload.
        Conflict: It accepts no more parts.
        UsageError: There are too many offers, or one is no part of the upload or no hash.
    """
    if len(offered) > OFFERS_MAX:
        raise UsageError(
            f"{len(offered):,} parts are offered",
            hint=f"offer {OFFERS_MAX:,} parts or fewer at once",
        )
    upload = parts.get(upload_id)
    # By hash: equal parts of a file have one.
    wanted: dict[str, list[int]] = {}
    for index, sha256 in offered.items():
        upload.expected_bytes(index)  # refuses an index outside the upload
        wanted.setdefault(check_sha256(sha256), []).append(index)
    chosen: dict[int, tuple[str, Path]] = {}
    if not upload.encrypted and upload.has_fixed_parts:
        for sha256, path in islice(_own_parts(parts, owner), FILES_MAX):
            for index in wanted.pop(sha256, ()):
                if _fits(path, upload, index):
                    chosen[index] = sha256, path
            if not wanted:
                break
    return parts.link_parts(upload_id, chosen)


def _own_parts(parts: PartStore, owner: str) -> Iterator[tuple[str, Path]]:
    for upload_id in parts.reusable(owner):
        try:
            yield from parts.part_files(upload_id)
        except NotFound:  # aborted meanwhile
            continue


def _fits(path: Path, upload: UploadInfo, index: int) -> bool:
    """Whether an upload would accept the bytes of a file; if not, the client sends them, and learns why."""
    try:
        if path.stat().st_size != upload.expected_bytes(index):
            return False
        if index == 0:
            with path.open("rb") as file:
                check_readable(file.read(HEAD_BYTES), upload.name)
    except (OSError, BadInput):
        return False
    return True
