"""A store that is opened when the first file is written: most runs of small inputs never spill."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from emsqrt.spill.placement import open_local_store
from emsqrt.spill.spilling import SpillManager
from emsqrt.spill.store import Sink, Store, StoredFile

if TYPE_CHECKING:
    from emsqrt.background import BackgroundWorker
    from emsqrt.executor.context import EntryContext


def open_spill(
    context: EntryContext,
    settings: Mapping[str, Any],
    check: Callable[[], None],
    background: BackgroundWorker,
) -> SpillManager:
    """Return the spill of a run.

    Args:
        context: has the run's spill folder.
        settings: arguments of `SpillManager`, also `uri` for another place and `threads`; with any
            of them the store is opened at once.
        check: as for `SpillManager`.
        background: as for `SpillManager`.
    """
    options = {name: value for name, value in settings.items() if name != "threads"}
    if options:
        place = options.pop("uri", None) or context.spill_dir
        return SpillManager(place, check=check, background=background, **options)
    store = DeferredStore(
        os.fspath(context.spill_place), lambda: open_local_store(context.spill_dir)[0]
    )
    return SpillManager(store.place, check=check, background=background, store=store)


class DeferredStore:
    """Stands for a store in a folder; making, locking and removing the folder costs a millisecond.

    Args:
        place: the folder, for errors.
        open_store: opens the store; may raise, as creating a file may.
    """

    is_remote = False

    def __init__(self, place: str, open_store: Callable[[], Store]) -> None:
        self.place = place
        self._open_store = open_store
        # Several threads may write the first file; None until one has.
        self._lock = threading.Lock()
        self._store: Store | None = None

    @property
    def buffer_bytes(self) -> int:
        """Memory that the store uses now for writing and reading."""
        return 0 if self._store is None else self._store.buffer_bytes

    def create(self, name: str) -> Sink:
        """Begin a file."""
        return self._opened().create(name)

    def open(self, name: str, size_bytes: int) -> StoredFile:
        """Open a finished file of that size."""
        return self._opened().open(name, size_bytes)

    def remove(self, name: str) -> None:
        """Remove a file; a missing file is no error."""
        if self._store is not None:
            self._store.remove(name)

    def close(self) -> None:
        """Remove all remaining files of the run."""
        if self._store is not None:
            self._store.close()

    def _opened(self) -> Store:
        with self._lock:
            if self._store is None:
                self._store = self._open_store()
        return self._store
