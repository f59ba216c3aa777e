"""How a lake stores: what it verifies, how much it may write, how long objects stay, and its keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lake.encryption.plain_cache import PLAIN_BYTES
from lake.maintenance.retention_rules import KEEP_ALL, RetentionRule
from lake.maintenance.scrubber import RATE_BYTES
from lake.objects.disk_space import RESERVE_BYTES
from lake.uploads.parts import EXPIRE_SECONDS

__all__ = ["StorageOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageOptions:
    """Options of `Lake`, each by its name.

    Args:
        verify: `open` verifies a shard at its first read in each process, and when its file has
            changed; `always` verifies it at every read.
        quota_bytes: Most bytes of all objects together; None for no limit.
        quota_objects: Largest number of objects; None for no limit.
        reserve_bytes: Bytes of the disk that uploads, ingests and statements leave free.
        grace_seconds: How long the objects of expired snapshots, and others that maintenance has
            retired, stay for readers outside of this process.
        scrub_days: About how many days apart a thread reads and verifies everything; 0 for never.
        scrub_rate_bytes: Bytes per second that it reads at most.
        compact_seconds: About how far apart small shards are compacted; 0 for never. As of the next
            ones, the task also runs on request (`Lake.maintenance`).
        statistics_seconds: About how far apart shards without statistics of a column are written anew;
            0 for never.
        expire_seconds: About how far apart versions expire that `retention` or the rule of their
            dataset does not keep; 0 for never.
        retention: The rule of datasets without one; by default every version stays.
        sweep_seconds: About how far apart objects that nothing references are deleted; 0 for never.
        cleanup_seconds: About how far apart the cleanup runs (`lake.maintenance.cleanup`); 0 for never.
        unused_seconds: It removes datasets that were not used for so long; 0 for none.
        cleanup_bytes: It removes the least recently used ones while all datasets of this node with
            their versions have more bytes; 0 for no limit.
        trash_seconds: How long removed datasets can be restored.
        upload_sync: Whether an uploaded part is durable when it is answered (`always`), or within a
            second (`interval`); a complete upload always is.
        upload_seconds: How long incomplete and failed uploads stay after their last part.
        orphan_seconds: Objects that nothing references are deleted if they are older.
        encrypt: Whether new datasets are encrypted, unless their creator says that they are not.
        encrypt_node_key: Whether the node's private key is encrypted with the same secret.
        passphrase: Unlocks encrypted datasets; or one of the next two, None leaves them locked.
        passphrase_file: A private file whose first line is the passphrase.
        key_file: A private file of 32 or more random bytes, instead of a passphrase.
        plain_bytes: Most memory (tmpfs) for decrypted shards and statements that read them.
    """

    verify: str = "open"
    quota_bytes: int | None = None
    quota_objects: int | None = None
    reserve_bytes: int = RESERVE_BYTES
    grace_seconds: float = 0.0
    scrub_days: float = 0.0
    scrub_rate_bytes: int = RATE_BYTES
    compact_seconds: float = 0.0
    statistics_seconds: float = 0.0
    expire_seconds: float = 0.0
    retention: RetentionRule = KEEP_ALL
    sweep_seconds: float = 0.0
    cleanup_seconds: float = 0.0
    unused_seconds: float = 0.0
    cleanup_bytes: int = 0
    trash_seconds: float = 7 * 24 * 3600.0
    upload_sync: str = "always"
    upload_seconds: float = EXPIRE_SECONDS
    orphan_seconds: float = 24 * 3600.0
    encrypt: bool = False
    encrypt_node_key: bool = False
    passphrase: str | None = None
    passphrase_file: Path | None = None
    key_file: Path | None = None
    plain_bytes: int = PLAIN_BYTES

    def __repr__(self) -> str:
        return "StorageOptions(…)"  # the passphrase is in no log and no traceback
