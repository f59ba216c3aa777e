"""Encrypted datasets of a lake: their keys, and decrypted copies of their shards for statements."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lake.keys import KeyRing
from lake.plain_cache import PlainCache, SealedShard
from lake.sealed import Seal
from sennit_core.errors import SennitError

__all__ = ["Hold", "Vault"]


@dataclass(frozen=True, slots=True)
class Hold:
    """What a statement keeps from being removed.

    Args:
        objects: Its lease.
        plain: Decrypted copies.
        folder: Its temporary folder in memory; None if it reads no encrypted dataset.
        temporary_bytes: What it may write there.
    """

    objects: frozenset[str]
    plain: tuple[str, ...] = ()
    folder: Path | None = None
    temporary_bytes: int = 0

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
    """

    def __init__(self, keys: KeyRing, cache: PlainCache) -> None:
        self.keys = keys
        self.cache = cache

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

    def release(self, hold: Hold) -> None:
        """End the use of decrypted copies, and remove the temporary folder."""
        self.cache.release(hold.plain)
        if hold.folder is not None:
            shutil.rmtree(hold.folder, ignore_errors=True)

    def seal(self, dataset: str, name: str, folder: Path) -> Seal:
        """Return what encrypts shards of an existing dataset."""
        return Seal(self.keys.key(dataset, name), dataset, folder)

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
