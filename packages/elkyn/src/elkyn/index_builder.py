"""Builds and drops indexes in the background, between commits, as the rules declare them.

A thread runs while there is work. Each step is one transaction that adds or removes some rows and
records its progress, so that a crash loses only the current step; writes continue in between.
"""

from __future__ import annotations

import hashlib
import threading
from functools import partial
from time import monotonic

from elkyn import _failpoints
from elkyn.auth.store_auth import RULES, StoreAuth
from elkyn.storage.disk import Disk
from elkyn.storage.indexes import Indexes, Pattern
from elkyn.storage.transactions import WriteTransaction
from elkyn.storage.writer import Writer
from elkyn.tree.ordering import BY_VALUE, Index
from elkyn.tree.paths import parse_path
from sennit_core.errors import Closed
from sennit_core.logs import get_logger

__all__ = ["IndexBuilder"]

# The first step, and the smallest one.
_STEP_ROWS = 200
_STEP_ROWS_MAX = 20_000
_STEP_SECONDS = 0.02
"""How long a step should delay writes; the step before decides how many rows fit."""

# Python's locks are not fair: without a pause this thread would get the writer's lock again at
# once.
_YIELD_SECONDS = 0.0005
_RETRY_SECONDS = 5.0

_log = get_logger(__name__)


class IndexBuilder:
    """Owns the thread that builds and drops indexes."""

    def __init__(self, disk: Disk, writer: Writer, auth: StoreAuth) -> None:
        self._disk = disk
        self._writer = writer
        self._auth = auth
        # None while there is nothing to build or drop. Guarded by `_idle`.
        self._thread: threading.Thread | None = None
        self._idle = threading.Condition()
        self._stop = threading.Event()
        # True when the rules may have changed since `_declare` looked at them.
        self._changed = False
        # Rows of the next step: doubled after a fast step, halved after a slow one.
        self._rows = _STEP_ROWS
        if self._behind():
            self.notice()

    def notice(self) -> None:
        """Start the thread if needed: the rules have changed."""
        with self._idle:
            self._changed = True
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="elkyn-index", daemon=True)
                self._thread.start()

    def wait(self, timeout_seconds: float | None) -> bool:
        """Wait until the indexes match the rules; False after the timeout."""
        with self._idle:
            return self._idle.wait_for(lambda: self._thread is None, timeout_seconds)

    def close(self) -> None:
        """Stop after the step under way; the next start of the store continues from there."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _behind(self) -> bool:
        with self._disk.snapshot() as view:
            definitions = Indexes.read(view.tree)
            digest = _digest(view.tree.setting(RULES))
        return definitions.rules != digest or definitions.unfinished is not None

    def _run(self) -> None:
        while True:
            try:
                busy = self._work()
            except Closed:
                busy = False
                self._stop.set()
            except Exception:  # noqa: BLE001 - queries do without; the thread must live to try again
                _log.exception("building the indexes of the rules failed; trying again")
                busy = not self._stop.wait(_RETRY_SECONDS)
            with self._idle:
                # Decided under the lock of `notice`: rules that change now either find this thread
                # or start another.
                if self._stop.is_set() or not (busy or self._changed):
                    self._thread = None
                    self._idle.notify_all()
                    return

    def _work(self) -> bool:
        """Do one step; returns whether there may be more."""
        if self._changed:
            # Before the rules are read: a change after this is seen by the next step.
            self._changed = False
            self._declare()
        with self._writer.between_commits():
            before = monotonic()
            busy = self._disk.write(partial(_step, rows_max=self._rows), ephemeral=False)
            fast = monotonic() - before < _STEP_SECONDS
        self._rows = (
            min(2 * self._rows, _STEP_ROWS_MAX) if fast else max(self._rows // 2, _STEP_ROWS)
        )
        _failpoints.reached("indexed")
        self._stop.wait(_YIELD_SECONDS)  # lets a waiting writer acquire the lock
        return busy

    def _declare(self) -> None:
        with self._disk.snapshot() as view:
            digest = _digest(view.tree.setting(RULES))
            if Indexes.read(view.tree).rules == digest:
                return
        rules = self._auth.rules
        wanted: list[tuple[Pattern, Index]] = []
        for pattern, names in () if rules is None else rules.indexes():
            wanted += [(pattern, _index(name)) for name in names]

        def declare(view: WriteTransaction) -> None:
            Indexes.keep(view.tree, Indexes.read(view.tree).declared(digest, wanted))

        with self._writer.between_commits():
            self._disk.write(declare, ephemeral=False)


def _step(view: WriteTransaction, rows_max: int) -> bool:
    definitions, indexes = Indexes.read(view.tree), view.tree.indexes
    one = definitions.unfinished
    if one is None or indexes is None:
        return False
    if one.state == "building":
        definitions = definitions.with_one(indexes.build_some(one, rows_max))
    elif indexes.drop_some(one, rows_max):
        definitions = definitions.without(one)
    Indexes.keep(view.tree, definitions)
    return True


def _index(name: str) -> Index:
    return BY_VALUE if name == BY_VALUE.name else Index("child", parse_path(name))


def _digest(source: bytes | None) -> str:
    return "" if source is None else hashlib.sha256(source).hexdigest()[:16]
