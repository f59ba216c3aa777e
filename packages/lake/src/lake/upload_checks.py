"""What is checked of an upload before its first byte is received."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lake.catalog.adoption import check_own
from lake.distributed.foreign_appends import SENT_MODES, check_options
from lake.ingestor import dataset_name
from lake.writes.upserts import check_upsert
from sennit_core.errors import Conflict

if TYPE_CHECKING:
    from lake.catalog.catalog import Catalog
    from lake.distributed.remote_shards import RemoteShards
    from lake.encryption.vault import Vault

__all__ = ["check_upload", "is_encrypted"]


def check_upload(
    catalog: Catalog,
    vault: Vault,
    remote: RemoteShards,
    name: str,
    mode: str,
    options: dict[str, Any],
) -> None:
    """Validate an upload before it starts: its options, and that its dataset's name is free.

    Args:
        catalog: Knows the datasets.
        vault: Has the keys of encrypted datasets.
        remote: Knows whether the writer of a dataset makes changes for users of this node.
        name: The file's name.
        mode: Mode of the upload.
        options: Its options.

    Raises:
        Conflict: The mode is `create` and the dataset exists.
        UsageError: The mode is `upsert` and there is no key.
        Denied: The dataset is to be encrypted, and the lake has no key; or another node writes it,
            which does not append rows for this one.
    """
    if mode == "create":
        catalog.check_free(dataset_name(name, options))
    else:
        known = catalog.find_known(dataset_name(name, options))
        # Before its bytes are sent.
        if (
            known is not None
            and known.node
            and mode in SENT_MODES
            and remote.accepts_changes(known.id)
        ):
            check_options(mode, options)
        else:
            check_own(known)
    if mode == "upsert":
        check_upsert(catalog, dataset_name(name, options), options)
    elif mode not in ("create", "append", "replace"):
        raise Conflict(f"unknown mode {mode!r}")
    if is_encrypted(catalog, vault, name, options):
        vault.keys.check_unlocked("encrypt a dataset")


def is_encrypted(catalog: Catalog, vault: Vault, name: str, options: dict[str, Any]) -> bool:
    """Return whether the dataset of an upload is, or will be, encrypted."""
    asked = options.get("encrypt")
    existing = catalog.find_known(dataset_name(name, options))
    if existing is None:
        return vault.is_wanted(asked)
    return bool(asked) or existing.encrypted
