"""Permissions of one caller in one store: the rules, evaluated for an identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from elkyn.auth.identity import ADMIN, Identity
from elkyn.storage.writer import Guard
from elkyn.tree.paths import Path, format_path
from elkyn.tree.query import Query
from elkyn.tree.reader import Reader
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import Denied

if TYPE_CHECKING:
    from elkyn.rules.read_set import ReadSet
    from elkyn.store import ElkynStore

__all__ = ["FULL", "Grant"]


@dataclass(slots=True)
class Grant:
    """The permissions that the rules of a store grant to an identity.

    Args:
        identity: the caller; rules are not evaluated for an admin.
        store: the store whose rules apply; None when no rules apply.
        open: whether any client may use a store that has no rules.
        clock: the source of `now` in rules for reading.
    """

    identity: Identity
    store: ElkynStore | None = None
    open: bool = False
    clock: Clock = SYSTEM

    @property
    def unlimited(self) -> bool:
        """Whether the caller may do everything, so that no rule is evaluated."""
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
        """Raise `Denied` when no value may be written at `path`; used before the value is received.

        Args:
            reader: the current tree.
            path: the path of the write.
            below: whether the write updates places below `path`.
        """
        if self.unlimited:
            return
        rules = None if self.store is None else self.store.rules
        now_ms = int(self.clock.now() * 1000)
        if rules is None or not rules.could_write(reader, path, self.identity, now_ms, below=below):
            raise Denied(f"writing {format_path(path)}", "a rule that allows it")

    def check_stream(
        self, reader: Reader, path: Path, query: Query | None = None
    ) -> ReadSet | None:
        """Do what `check_read` does; returns the read set, None when no rule is evaluated."""
        if self.unlimited or self.store is None or self.store.rules is None:
            self.check_read(reader, path, query)
            return None
        now_ms = int(self.clock.now() * 1000)
        rules = self.store.rules
        allowed, read_set = rules.authorize_stream(reader, path, self.identity, now_ms, query)
        if not allowed:
            raise Denied(f"reading {format_path(path)}", "a rule that allows it")
        return read_set

    def index_on(self, path: Path) -> tuple[str, ...] | None:
        """Return the indexes that the rules declare at `path`; None without rules."""
        rules = None if self.store is None else self.store.rules
        return None if rules is None else rules.index_on(path)

    def guard(self) -> Guard | None:
        """Return the check that runs in a write's transaction; None for an unlimited caller."""
        if self.unlimited or self.store is None:
            return None
        return self.store.guard(self.identity)


FULL = Grant(ADMIN)
"""The grant of a caller that may do everything."""
