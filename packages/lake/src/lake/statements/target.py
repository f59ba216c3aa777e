"""What a statement changes, which an executor finds out: only executors parse SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lake.statements.deadline import Deadline
from sennit_core.errors import Unsupported

if TYPE_CHECKING:
    from emsqrt.executor import ExecutorPool
    from lake.statements.request import StatementRequest

__all__ = ["Target", "find_target"]

_ENTRY = "lake.sql"
_ROW_VERBS = ("insert", "update", "delete", "merge", "truncate")


@dataclass(frozen=True, slots=True)
class Target:
    """What a statement changes.

    Args:
        verb: Its verb.
        table: The dataset as named in it.
        returning: Whether it has RETURNING.
        history: Whether it has AT clauses.
        reads: The names of what it reads, with that of what it changes if its query reads it.
    """

    verb: str
    table: str
    returning: bool
    history: bool
    reads: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse a form that is not sent to another node.

        Raises:
            Unsupported: It is one.
        """
        where = "of a dataset that another node writes"
        if self.verb not in _ROW_VERBS:
            raise Unsupported(f"{self.verb.upper()} {where}", hint="run it at that node")
        if self.history:
            raise Unsupported(f"an AT clause in a change {where}", hint="run it at that node")

    @property
    def changes_rows(self) -> bool:
        """Whether it changes rows alone, not columns or the dataset as a whole."""
        return self.verb in _ROW_VERBS


def find_target(
    pool: ExecutorPool, request: StatementRequest, deadline: Deadline, known: Sequence[str] = ()
) -> Target:
    """Return what a statement changes.

    Args:
        pool: The executors.
        request: The statement.
        deadline: When it is to be over.
        known: Names of datasets, which may look like names of files.

    Raises:
        SqlError: It is no statement that changes something, or several.
    """
    with pool.submit(
        _ENTRY,
        {"engine": "target", "sql": request.sql, "known": list(known)},
        deadline_seconds=deadline.left,
        user=request.user,
        priority=request.priority,
        restartable=True,
    ) as execution:
        found = execution.result()["target"]
        return Target(**found | {"reads": tuple(found["reads"])})
