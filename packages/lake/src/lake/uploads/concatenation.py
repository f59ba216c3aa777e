"""Make one upload of several partial ones: of their parts, without copying unless they are encrypted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lake.uploads.ordered_writer import OrderedWriter
from sennit_core.errors import Conflict, UsageError
from sennit_core.units import MIB

if TYPE_CHECKING:
    from lake.uploads.parts import PartStore
    from lake.uploads.upload import UploadInfo

__all__ = ["concatenate", "find_sources"]


def find_sources(parts: PartStore, ids: Sequence[str]) -> list[UploadInfo]:
    """Return the uploads to concatenate.

    Raises:
        NotFound: There is no such upload.
        UsageError: One is not a partial upload.
        Conflict: One is not whole.
    """
    found = [parts.get(upload_id) for upload_id in ids]
    for upload in found:
        if upload.tus is None or not upload.tus.partial:
            raise UsageError(
                f"upload {upload.id} is not a partial upload",
                hint="create it with Upload-Concat: partial",
            )
        done = parts.position(upload.id)[1]
        if done != upload.size:
            raise Conflict(
                f"upload {upload.id} has {done} of {upload.size} bytes",
                hint="send the rest, then concatenate it",
            )
    return found


def concatenate(parts: PartStore, sources: Sequence[UploadInfo], target: UploadInfo) -> None:
    """Add the bytes of other uploads to an upload; the others stay.

    Args:
        parts: The part store.
        sources: The uploads, in order; the same one may be there twice.
        target: The upload, just started.

    Raises:
        Conflict: The target is encrypted, and the bytes of a source are not.
    """
    if target.encrypted and not all(source.encrypted for source in sources):
        raise Conflict(
            f"the dataset of {target.name!r} is encrypted, and the bytes of a partial upload are not",
            hint="give partial uploads the metadata of the final one, or send the file as one upload",
        )
    for source in sources:
        if target.encrypted or source.encrypted:  # a part's key is that of its upload
            _copy(parts, source, target)
        else:
            _link(parts, source, target)


def _link(parts: PartStore, source: UploadInfo, target: UploadInfo) -> None:
    index = parts.position(target.id)[0]
    files = dict(enumerate(parts.part_files(source.id), index))
    linked = parts.link_parts(target.id, files)
    if len(linked) != len(files):
        raise Conflict(
            f"upload {source.id} was removed while it was concatenated", hint="send it again"
        )


def _copy(parts: PartStore, source: UploadInfo, target: UploadInfo) -> None:
    with OrderedWriter(parts, target) as writer:
        for path in parts.sources_of(source):
            with path.open("rb") as file:
                while piece := file.read(MIB):
                    writer.write(piece)
        writer.commit()
