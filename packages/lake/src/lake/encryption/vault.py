"""Encrypted datasets of a lake: their keys, and decrypted copies of their shards for statements."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lake.encryption.keys import KeyRing
from lake.encryption.plain_cache import PlainCache, SealedShard
from lake.encryption.sealed import Seal
from sennit_core.errors import SennitError, StorageFull
from sennit_core.ids import new_id

__all__ = ["Hold", "Vault"]


@dataclass(frozen=True, slots=True)
class Hold:
    """What a statement keeps from being removed.

    Args:
        objects: Its lease.
        plain: Decrypted copies.
        folder: Its temporary folder in memory; None if it reads no encrypted dataset.
        temporary_bytes: What it may write there.
        new: Id of the encrypted dataset that the statement may create; "" for none.
        arrived: Folder of rows that other nodes have sent for it; None if there are none.
    """

    objects: frozenset[str]
    plain: tuple[str, ...] = ()
    folder: Path | None = None
    temporary_bytes: int = 0
    new: str = ""
    arrived: Path | None = None

    @property
    def members(self) -> dict[str, Any]:
        """The members of executor requests; none if no encrypted dataset is read."""
        if self.folder is None:
            return {}
        return {"plain": {"folder": str(self.folder), "bytes": self.temporary_bytes}}


class Vault:
    """The encrypted datasets of one lake.

    Args:
        keys: Their keys.
        cache: Decrypted shards.
        encrypts_new: Whether new datasets are encrypted, unless their creator says that they are not.
    """

    def __init__(self, keys: KeyRing, cache: PlainCache, *, encrypts_new: bool = False) -> None:
        self.keys = keys
        self.cache = cache
        self.encrypts_new = encrypts_new

    def is_wanted(self, encrypt: bool | None) -> bool:
        """Return whether a new dataset is encrypted; None if its creator does not say."""
        return self.encrypts_new if encrypt is None else bool(encrypt)

    def unseal(self, tables: Sequence[dict[str, Any]], objects: frozenset[str]) -> Hold:
        """Decrypt the shards of encrypted tables, and replace their paths.

        Args:
            tables: In the form of executor requests. One that cannot be decrypted gets the error as
                `damage`, since a statement may only mention a word that is its name.
            objects: The lease on the shards.
        """
        sealed = [
            table for table in tables if table.get("encrypted") and table.get("paths") is not None
        ]
        if not any(table.get("encrypted") for table in tables):
            return Hold(objects)
        plain: list[str] = []
        try:
            for table in sealed:
                try:
                    table["paths"] = self._decrypt(table)
                    plain += (Path(path).name for path in table["paths"])
                except SennitError as error:
                    table |= {"damage": error.to_json(), "paths": []}
            folder = self.cache.new_folder()
        except BaseException:
            self.cache.release(plain)
            raise
        return Hold(objects, tuple(plain), folder, self.cache.free_bytes)

    def in_memory(self, hold: Hold) -> Hold:
        """Return the hold of a statement that gets rows which must not be on the disk in the clear."""
        if hold.folder is not None:
            return hold
        folder = self.cache.new_folder()
        return replace(hold, folder=folder, temporary_bytes=self.cache.free_bytes)

    def with_new(self, hold: Hold, sql: str) -> Hold:
        """Return the hold of a statement with a key for the dataset that it may create.

        The executor reads whether it is to be encrypted; the key must be durable before that. So a
        statement that only looks like it gets one too, and `forget_new` removes it.

        Raises:
            StorageFull: There is no room for the key.
        """
        folded = sql.casefold()
        words = ("create",) if self.encrypts_new else ("create", "with", "encrypt")
        if self.keys.is_locked or not all(word in folded for word in words):
            return hold
        dataset = new_id()
        self.keys.create(dataset)
        return replace(self.in_memory(hold), new=dataset)

    def forget_new(self, hold: Hold) -> None:
        """Remove the key of a dataset that was not created."""
        # If there is no room to write that, the next start does it.
        with suppress(StorageFull):
            self.keys.forget((hold.new,))

    def release(self, hold: Hold) -> None:
        """End the use of decrypted copies, and remove the temporary folder."""
        self.cache.release(hold.plain)
        for folder in filter(None, (hold.folder, hold.arrived)):
            shutil.rmtree(folder, ignore_errors=True)

    def seal(self, dataset: str, name: str, folder: Path) -> Seal:
        """Return what encrypts shards of an existing dataset."""
        return Seal(self.keys.key(dataset, name), dataset, folder)

    @contextmanager
    def opened(
        self, dataset: str, name: str, files: Sequence[tuple[str, Path]]
    ) -> Iterator[tuple[str, ...]]:
        """Decrypt shards of a dataset that are no objects yet; yield the paths of their copies.

        Args:
            dataset: Its id.
            name: Its name, for errors.
            files: For each shard the id of the object that it will be, and its file.

        Raises:
            StorageFull: They exceed the memory for decrypted data.
        """
        shards = [
            SealedShard(object_id, dataset, name, index, path)
            for index, (object_id, path) in enumerate(files)
        ]
        paths = self.cache.acquire(shards, {dataset: self.keys.key(dataset, name)})
        names = [shard.object for shard in shards]
        try:
            yield tuple(paths)
        finally:
            self.cache.forget(names)
            self.cache.release(names)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Open a temporary folder in memory."""
        folder = self.cache.new_folder()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _decrypt(self, table: dict[str, Any]) -> list[str]:
        dataset = table.get("dataset", table["id"])
        shards = [
            SealedShard(Path(path).name, dataset, table["name"], index)
            for index, path in enumerate(table["paths"])
        ]
        return self.cache.acquire(shards, {dataset: self.keys.key(dataset, table["name"])})
