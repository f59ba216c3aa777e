"""What a principal may do in one store: the store's rules, evaluated for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from elkyn.auth.principal import ADMIN, Principal
from elkyn.storage.writer import WriteCheck
from elkyn.tree.paths import Path, format_path
from elkyn.tree.query import Query
from elkyn.tree.reader import Overlay, Reader
from elkyn.tree.values import Stored
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import Denied

if TYPE_CHECKING:
    from elkyn.rules import RuleSet
    from elkyn.rules.read_set import ReadSet
    from elkyn.storage.transactions import ReadTransaction

__all__ = ["UNRESTRICTED", "Authorizer", "RuleSource"]


class RuleSource(Protocol):
    """Has the rules of a store that are in force now."""

    @property
    def rules(self) -> RuleSet | None:
        """The compiled rules; None when none were ever set."""
        ...


@dataclass(slots=True)
class Authorizer:
    """Authorizes the reads and writes of one principal in one store.

    Args:
        principal: the client; rules are not evaluated for an admin.
        source: has the store's rules, which are read at each check, so that a write is checked by
            the rules in force at its commit; None when no rules apply.
        open_without_rules: whether any client may use a store that has no rules.
        clock: the source of `now` in rules for reading.
    """

    principal: Principal
    source: RuleSource | None = None
    open_without_rules: bool = False
    clock: Clock = SYSTEM

    @property
    def unrestricted(self) -> bool:
        """Whether the principal may do everything, so that no rule is evaluated."""
        return self.principal.admin or (
            self.open_without_rules and self.source is not None and self.source.rules is None
        )

    @property
    def rules(self) -> RuleSet | None:
        """The rules in force; None without rules: then only admins are authorized."""
        return None if self.source is None else self.source.rules

    def check_read(self, reader: Reader, path: Path, query: Query | None = None) -> None:
        """Raise `Denied` when the principal may not read `path`."""
        if self.principal.admin or self.unrestricted:
            return
        rules, now_ms = self.rules, int(self.clock.now() * 1000)
        if rules is None or not rules.may_read(reader, path, self.principal, now_ms, query):
            raise Denied(f"reading {format_path(path)}", "a rule that allows it")

    def check_could_write(self, reader: Reader, path: Path, *, below: bool = False) -> None:
        """Raise `Denied` when no value may be written at `path`; used before the value is received.

        Args:
            reader: the current tree.
            path: the path of the write.
            below: whether the write updates places below `path`.
        """
        if self.unrestricted:
            return
        rules, now_ms = self.rules, int(self.clock.now() * 1000)
        if rules is None or not rules.could_write(
            reader, path, self.principal, now_ms, below=below
        ):
            raise Denied(f"writing {format_path(path)}", "a rule that allows it")

    def check_stream(
        self, reader: Reader, path: Path, query: Query | None = None
    ) -> ReadSet | None:
        """Do what `check_read` does; returns the read set, None when no rule is evaluated."""
        rules = self.rules
        if self.unrestricted or rules is None:
            self.check_read(reader, path, query)
            return None
        now_ms = int(self.clock.now() * 1000)
        allowed, read_set = rules.authorize_stream(reader, path, self.principal, now_ms, query)
        if not allowed:
            raise Denied(f"reading {format_path(path)}", "a rule that allows it")
        return read_set

    def write_check(self) -> WriteCheck | None:
        """Return the check that runs in a write's transaction; None for an admin."""
        # Without rules too: the store may have got some before the write is committed.
        return None if self.principal.admin else self._check_write

    def _check_write(
        self, view: ReadTransaction, places: list[tuple[Path, Stored]], now_ms: int
    ) -> None:
        if self.unrestricted:
            return
        rules = self.rules
        # Inside the write's transaction, before anything was written: `newData` is the tree with
        # these places laid over it.
        after = Overlay(view, places)
        if rules is None or not rules.may_write(view, after, places, self.principal, now_ms):
            paths = ", ".join(format_path(path) for path, _new in places[:3])
            raise Denied(f"writing {paths}", "a rule that allows it")

    def index_on(self, path: Path) -> tuple[str, ...] | None:
        """Return the indexes that the rules declare at `path`; None without rules."""
        rules = self.rules
        return None if rules is None else rules.index_on(path)


UNRESTRICTED = Authorizer(ADMIN)
"""Authorizes everything."""
