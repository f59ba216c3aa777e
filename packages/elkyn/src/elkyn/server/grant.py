"""What one caller may do with one store: the rules asked for an identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from elkyn.identity import ADMIN, Identity
from elkyn.paths import Path, format_path
from elkyn.query import Query
from elkyn.reading import Reader
from elkyn.writer import Guard
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import Denied

if TYPE_CHECKING:
    from elkyn.rules.footprint import ReadSet
    from elkyn.store import ElkynStore

__all__ = ["FULL", "Grant"]


@dataclass(slots=True)
class Grant:
    """An identity in front of the rules of a store.

    Args:
        identity: who asks; rules are not asked for an admin.
        store: whose rules count; None when there are none to ask.
        open: whether a store without rules is open to everybody.
        clock: gives `now` to rules for reading.
    """

    identity: Identity
    store: ElkynStore | None = None
    open: bool = False
    clock: Clock = SYSTEM

    @property
    def unlimited(self) -> bool:
        """Whether no rule is asked."""
        return self.identity.admin or (
            self.open and self.store is not None and self.store.rules is None
        )

    def check_read(self, reader: Reader, path: Path, query: Query | None = None) -> None:
        """Raise `Denied` when the caller may not read `path`."""
        if self.identity.admin or self.unlimited:
            return
        rules = None if self.store is None else self.store.rules
        now_ms = int(self.clock.now() * 1000)
        if rules is None or not rules.may_read(reader, path, self.identity, now_ms, query):
            raise Denied(f"reading {format_path(path)}", "a rule that allows it")

    def check_could_write(self, reader: Reader, path: Path, *, below: bool = False) -> None:
        """Raise `Denied` when no value at `path` may be written, before the value is read.

        Args:
            reader: the tree as it is.
            path: what is to be written.
            below: the write is an update of places below `path`.
        """
        if self.unlimited:
            return
        rules = None if self.store is None else self.store.rules
        now_ms = int(self.clock.now() * 1000)
        if rules is None or not rules.could_write(reader, path, self.identity, now_ms, below=below):
            raise Denied(f"writing {format_path(path)}", "a rule that allows it")

    def judge(self, reader: Reader, path: Path, query: Query | None = None) -> ReadSet | None:
        """Do what `check_read` does; returns what the answer rests on, None when no rule is asked."""
        if self.unlimited or self.store is None or self.store.rules is None:
            self.check_read(reader, path, query)
            return None
        now_ms = int(self.clock.now() * 1000)
        rules = self.store.rules
        allowed, footprint = rules.authorize_stream(reader, path, self.identity, now_ms, query)
        if not allowed:
            raise Denied(f"reading {format_path(path)}", "a rule that allows it")
        return footprint

    def index_on(self, path: Path) -> tuple[str, ...] | None:
        """Return the indexes that the rules declare at `path`; None: there are no rules."""
        rules = None if self.store is None else self.store.rules
        return None if rules is None else rules.index_on(path)

    def guard(self) -> Guard | None:
        """Return what a write asks inside its transaction, None for a caller who may do it all."""
        if self.unlimited or self.store is None:
            return None
        return self.store.guard(self.identity)


FULL = Grant(ADMIN)
"""For callers who may do everything in a store that has no rules to ask."""
