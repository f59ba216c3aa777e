"""Namespaces: several stores in one folder, each in its own subfolder, opened on first use."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from os import PathLike
from pathlib import Path as FilePath
from typing import Protocol, Self, Unpack

from elkyn.errors import UnknownNamespace
from elkyn.options import Options
from elkyn.recovery import Archiver
from elkyn.store import ElkynStore
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import Closed, UsageError, nearest
from sennit_core.private_files import make_private_folder

__all__ = ["StoreMap", "Stores", "create_hint", "open_namespaces"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z")
_NAME_RULE = "use up to 63 letters, digits, _ and -, starting with a letter or digit"


class StoreMap(Protocol):
    """Stores by namespace: `elkyn.Stores`, or a dict."""

    def __getitem__(self, name: str, /) -> ElkynStore: ...

    def __contains__(self, name: object, /) -> bool: ...

    def __iter__(self) -> Iterator[str]: ...


def create_hint(name: str) -> str:
    """Return the hint of an error about a missing namespace."""
    if _NAME.match(name):
        return f"create it with: elkyn namespace add {name}"
    return f"this is not a valid namespace name: {_NAME_RULE}"


def open_namespaces(
    folder: str | PathLike[str] | None,
    *,
    clock: Clock = SYSTEM,
    create: bool = True,
    archive: str | PathLike[str] | None = None,
    **options: Unpack[Options],
) -> Stores:
    """Return the stores below `folder` (None: in memory).

    Args:
        folder: contains a subfolder for each namespace; created when missing.
        clock: the clock of every store.
        create: whether `stores[name]` creates a missing namespace.
        archive: archive the log of each open store in a subfolder of this folder.
        options: options of every store, see `elkyn.options.Options`.
    """
    return Stores(folder, clock=clock, create=create, archive=archive, **options)


class Stores:
    """The stores of one folder by namespace; owns and closes them. Thread-safe."""

    def __init__(
        self,
        folder: str | PathLike[str] | None,
        *,
        clock: Clock = SYSTEM,
        create: bool = True,
        archive: str | PathLike[str] | None = None,
        **options: Unpack[Options],
    ) -> None:
        self.folder = None if folder is None else FilePath(folder)
        self.create = create
        self._clock = clock
        self._options = options
        self._archive = None if archive is None else FilePath(archive)
        self._archivers: list[Archiver] = []
        # Stores by namespace, never closed before `close`. Guarded by `_lock`.
        self._open: dict[str, ElkynStore] = {}
        self._lock = threading.Lock()
        self._closed = False
        if self.folder is not None:
            make_private_folder(self.folder)

    def __getitem__(self, name: str) -> ElkynStore:
        """Return the store of a namespace, opened or created.

        Raises:
            UsageError: the name is not a valid namespace name.
            UnknownNamespace: there is no such namespace and `create` is off.
        """
        with self._lock:
            return self._get(name, create=self.create)

    def _get(self, name: str, *, create: bool) -> ElkynStore:
        store = self._open.get(name)
        if store is None:
            store = self._open[name] = self._open_store(name, create)
            if self._archive is not None:
                self._archivers.append(Archiver(store, self._archive / name))
        return store

    def add(self, name: str) -> bool:
        """Create a namespace, even if `create` is off; returns False when it exists already.

        Raises:
            UsageError: the name is not a valid namespace name.
        """
        with self._lock:
            if self._exists(name):
                return False
            self._get(name, create=True)
            return True

    def _open_store(self, name: str, create: bool) -> ElkynStore:
        if self._closed:
            raise Closed("the set of stores")
        if not _NAME.match(name):
            raise UsageError(f"{name[:80]!r} is not a valid namespace name: {_NAME_RULE}")
        if not create and not self._exists(name):
            raise UnknownNamespace(name, suggestion=nearest(name, self._names()))
        if self.folder is None:
            return ElkynStore(mode="memory", namespace=name, clock=self._clock, **self._options)
        folder = self.folder / name
        return ElkynStore(folder, namespace=name, clock=self._clock, **self._options)

    def _exists(self, name: str) -> bool:
        return name in self._open or (
            self.folder is not None
            and _NAME.match(name) is not None
            and (self.folder / name / "data.mdb").exists()
        )

    def _names(self) -> list[str]:
        found = set(self._open)
        if self.folder is not None:
            found.update(file.parent.name for file in self.folder.glob("*/data.mdb"))
        return sorted(name for name in found if _NAME.match(name))

    def __contains__(self, name: object) -> bool:
        with self._lock:
            return isinstance(name, str) and self._exists(name)

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter(self._names())

    def close(self) -> None:
        """Close every store; idempotent."""
        with self._lock:
            self._closed = True
            stores = list(self._open.values())
            self._open.clear()
        for archiver in self._archivers:
            # Archives what is left, so it comes before the stores are closed.
            archiver.close()
        for store in stores:
            store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
