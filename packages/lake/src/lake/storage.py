"""What a lake stores with: its objects, catalog, retention, keys, and the scrub of all of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lake.access.quotas import Quotas
from lake.catalog.catalog import Catalog
from lake.catalog.node_key import NodeKey
from lake.catalog.reject_files import RejectFiles
from lake.catalog.usage import DatasetUsage, unmeasured
from lake.distributed.fork_origins import ForkOrigins
from lake.encryption.keys import KeyRing, read_secret
from lake.encryption.plain_cache import PlainCache
from lake.encryption.vault import Vault
from lake.maintenance.dataset_access import DatasetAccess
from lake.maintenance.retention import Retention
from lake.maintenance.retention_rules import RetentionRules
from lake.maintenance.scrub import Scrub
from lake.maintenance.scrubber import Scrubber
from lake.objects.disk_space import DiskSpace
from lake.objects.durable import NewFile, fsync_folder, storage_errors, write_whole
from lake.objects.store import ObjectStore
from lake.objects.verification import check_mode
from lake.statements.foreground import Foreground
from lake.storage_options import StorageOptions
from sennit_core.clock import Clock
from sennit_core.errors import Corrupt, StorageFull
from sennit_core.private_files import make_private_folder
from sennit_core.records import DatasetInfo

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["Storage"]


class Storage:
    """The storage of one lake.

    Args:
        folder: The data folder.
        tree: The `sys` namespace.
        options: How it stores.
        clock: Source of time.

    Raises:
        Denied: The passphrase or key is wrong; nothing was changed.
    """

    def __init__(
        self, folder: Path, tree: ElkynStore, options: StorageOptions, clock: Clock
    ) -> None:
        self._pid = os.getpid()
        self.verify_always = check_mode(options.verify)
        self.staging = folder / "lake" / "staging"
        self._ended_cleanly = folder / "lake" / "ended-cleanly"
        # First, as a wrong passphrase must change nothing.
        secret = read_secret(
            passphrase=options.passphrase,
            key_file=options.key_file,
            passphrase_file=options.passphrase_file,
        )
        keys = KeyRing(folder / "lake" / "keys.json", secret)
        self.space = DiskSpace(
            folder,
            lambda: self.objects.usage(),
            quota_bytes=options.quota_bytes,
            quota_objects=options.quota_objects,
            reserve_bytes=options.reserve_bytes,
        )
        self.objects = ObjectStore(
            folder / "lake" / "objects",
            space=self.space,
            on_restored=lambda name: self.catalog.note_object(name, None),
        )
        self.node_key = NodeKey(
            folder / "lake" / "node.key", keys, encrypt=options.encrypt_node_key
        )
        self.catalog = Catalog(tree, self.objects, clock=clock, key=self.node_key)
        self.rejects = RejectFiles(folder / "lake" / "rejects", self.catalog)
        self.retention = Retention(
            self.objects, self.catalog, tree, grace_seconds=options.grace_seconds, clock=clock
        )
        cache = PlainCache(
            folder, self.objects, budget_bytes=options.plain_bytes, keep=not self.verify_always
        )
        self.vault = Vault(keys, cache, encrypts_new=options.encrypt)
        self.access = DatasetAccess(tree, clock)
        self.retention_rules = RetentionRules(tree, self.catalog, options.retention)
        self.quotas = Quotas(tree, self.catalog, clock)
        self.forks = ForkOrigins(tree)
        self.foreground = Foreground(folder / "lake")
        self.scrubber = Scrubber(
            tree, self.new_scrub, clock=clock, rate_bytes=options.scrub_rate_bytes
        )

    @property
    def is_own_process(self) -> bool:
        """Whether this process opened it, and is not forked from the one that did."""
        return os.getpid() == self._pid

    def new_scrub(self, check: Callable[[], object]) -> Scrub:
        """Return a scrub that calls `check` between pieces of a file."""
        return Scrub(self.catalog, self.objects, self.retention, check)

    @contextmanager
    def new_file(self, dataset: str, *, encrypt: bool | None = None) -> Iterator[NewFile]:
        """Open a temporary file for rows to ingest; in memory alone if the dataset is encrypted.

        Args:
            dataset: Its name.
            encrypt: Whether it is to be encrypted, if it does not exist; None for the lake's default.
        """
        found = self.catalog.find(dataset)
        sealed = self.vault.is_wanted(encrypt) if found is None else found.encrypted
        with ExitStack() as stack:
            folder = stack.enter_context(self.vault.folder()) if sealed else self.staging
            yield stack.enter_context(NewFile(folder))

    def recover(self) -> None:
        """Delete the remains of a crash: staging files, unreferenced objects, unused keys."""
        with storage_errors(self.staging, 0):
            shutil.rmtree(self.staging, ignore_errors=True)
            make_private_folder(self.staging)
        # Knowing the references takes a read of every manifest, which a clean end makes needless.
        if not self._ended_cleanly.exists():
            self.retention.sweep()
            self.rejects.sweep()
        with storage_errors(self._ended_cleanly, 0):
            self._ended_cleanly.unlink(missing_ok=True)
            fsync_folder(self._ended_cleanly.parent)
        self.retention.sweep_retired()
        self.forget_unused_keys()

    def forget_unused_keys(self) -> None:
        """Remove the data keys of datasets that are gone, or whose first ingest failed.

        Call it only while no such ingest is under way. Without its key, copies of a dataset's
        objects elsewhere are unreadable too.
        """
        known = self.vault.keys.datasets()
        if known and self.catalog.problem is None:
            kept = self.catalog.removal.trash
            gone = [
                each for each in known if self.catalog.find_id(each) is None and each not in kept
            ]
            self.forget_keys(*gone)

    def forget_keys(self, *datasets: str) -> None:
        """Remove the data keys of deleted datasets, and of what they were forks."""
        # If there is no room to write that, the next start does it.
        with suppress(StorageFull):
            self.vault.keys.forget(datasets)
            for dataset in datasets:
                self.forks.remove(dataset)

    def close(self) -> None:
        """Stop the scrub, record that no object is without a reference, remove decrypted shards."""
        self.scrubber.close()
        if self.retention.is_settled:
            # Without it, for example on a full disk, the next start has more to do.
            with suppress(StorageFull, OSError):
                write_whole(self._ended_cleanly, b"")
        self.vault.cache.close()
        self.foreground.close()

    def status(self) -> dict[str, Any]:
        """Return the use of the disk and the quota, and the state of the scrub, for /api/stats."""
        state = self.scrubber.state
        return {
            **self.space.to_json(),
            "quarantined": len(self.objects.quarantined()),
            "retired": self.retention.retired,
            "encryption": "locked" if self.vault.keys.is_locked else "unlocked",
            "scrub": None if state is None else state.to_json(),
        }

    def usage(self, dataset: str | None = None) -> list[DatasetUsage]:
        """Return what each dataset stores, or one, and whether it is damaged.

        Args:
            dataset: Id or name; None for all.

        Raises:
            NotFound: There is no such dataset.
        """
        chosen = self.catalog.list() if dataset is None else [self.catalog.get(dataset)]
        return [self._usage_of(info) for info in chosen]

    def _usage_of(self, info: DatasetInfo) -> DatasetUsage:
        found, damage = unmeasured(info), info.damaged
        try:
            found = self.quotas.stored.of(info)
            if info.head is not None and info.node is None:
                shards = self.catalog.manifest(info.id).snapshot.shards
                # Known after a restart too, unlike the findings of a scrub.
                missing = sum(not self.objects.place(each.object).exists() for each in shards)
                if missing:
                    gone = f"{missing:,} shards are missing, or damaged and in quarantine"
                    damage = damage or gone
        except Corrupt as error:  # the others are still to be listed
            damage = damage or str(error)
        return replace(found, damaged=damage)
