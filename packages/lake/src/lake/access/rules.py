"""Rules of access policies, and what follows from them for one user.

The executors import this module too, so it needs neither the tree nor the catalog
(`lake.access.policies`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sennit_core.errors import Denied, UsageError
from sennit_core.hashing import canonical_json, sha256_hex
from sennit_core.records import Record

__all__ = [
    "FULL_ACCESS",
    "NO_ACCESS",
    "READ_ACCESS",
    "Access",
    "ColumnRule",
    "KnownColumn",
    "Policy",
    "PolicyRule",
    "check_rules",
    "not_writable",
    "outdated",
    "policy_key",
    "written_elsewhere",
]

RULES_MAX = 256
EXPRESSION_MAX = 4096


@dataclass(frozen=True, slots=True)
class ColumnRule(Record):
    """A column that is masked by an expression, or hidden.

    Args:
        name: The column.
        mask: SQL over the columns of the dataset, whose value is shown; None hides the column.
    """

    name: str
    mask: str | None = None


@dataclass(frozen=True, slots=True)
class PolicyRule(Record):
    """What a principal may do.

    Args:
        principal: A user's name, `role:` and a role, or `*` for all others; each with `@` and the id
            of another node for its users, or `*@*` for those of all other nodes.
        read: Whether it may read.
        write: Whether it may change, replace and delete the dataset; with `rows` or `columns`, only
            change rows that it sees.
        rows: SQL condition over the dataset's columns: only rows that fulfil it exist for the
            principal. `current_user` and `current_role` are the principal's.
        columns: Columns that are masked or hidden.
    """

    principal: str
    read: bool = True
    write: bool = False
    rows: str | None = None
    columns: tuple[ColumnRule, ...] = ()

    @property
    def expressions(self) -> list[str]:
        """The SQL expressions of the rule."""
        masks = [column.mask for column in self.columns]
        return [text for text in (self.rows, *masks) if text is not None]


@dataclass(frozen=True, slots=True)
class KnownColumn(Record):
    """A column as a policy's author knew it: its name may be given to another column later."""

    name: str
    id: int


@dataclass(frozen=True, slots=True)
class Policy(Record):
    """The rules of a dataset.

    Args:
        rules: At most one for each principal.
        columns: The dataset's columns when it was set.
        author: Who set it.
        set_at: Unix seconds.
    """

    rules: tuple[PolicyRule, ...] = ()
    columns: tuple[KnownColumn, ...] = ()
    author: str = ""
    set_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Access:
    """What a user may do with a dataset.

    Args:
        read: Whether it exists for the user.
        write: Whether the user may change it.
        rows: The condition of the rows that the user sees; None for all rows.
        columns: Columns that the user does not see as they are.
        user: The user's name, for `current_user`.
        role: The user's role, for `current_role`.
        known: The columns that the policy was written for.
    """

    read: bool = True
    write: bool = True
    rows: str | None = None
    columns: tuple[ColumnRule, ...] = ()
    user: str = ""
    role: str = ""
    known: tuple[KnownColumn, ...] = ()

    def check_columns(self, dataset: str, columns: Mapping[str, int]) -> None:
        """Refuse to show a part of a dataset in which a name means another column than before.

        Args:
            dataset: Its name.
            columns: The ids of its columns by their names.

        Raises:
            Denied: A column was renamed, and its name given to another one.
        """
        for column in self.known if self.is_restricted else ():
            if columns.get(column.name, column.id) != column.id:
                raise outdated(dataset, f"{column.name!r} is another column now")

    @property
    def is_restricted(self) -> bool:
        """Whether the user sees only a part of the dataset."""
        return self.rows is not None or bool(self.columns)

    def to_json(self) -> dict[str, Any]:
        """Return the form of executor requests, without what does not affect the result."""
        text = " ".join(filter(None, (self.rows, *(column.mask for column in self.columns))))
        folded = text.casefold()
        return {
            "rows": self.rows,
            "columns": [[column.name, column.mask] for column in self.columns],
            # So users of one rule share instances and cached results, unless it depends on them.
            "user": self.user if "current_user" in folded else "",
            "role": self.role if "current_role" in folded else "",
        }


FULL_ACCESS = Access()
READ_ACCESS = Access(write=False)
NO_ACCESS = Access(read=False, write=False)


def check_rules(rules: Iterable[PolicyRule]) -> tuple[PolicyRule, ...]:
    """Return rules that make sense together; their expressions are checked in an executor.

    Raises:
        UsageError: A principal has two rules, or a rule contradicts itself.
    """
    rules = tuple(rules)
    if len(rules) > RULES_MAX:
        raise UsageError(f"a policy has at most {RULES_MAX} rules, not {len(rules)}")
    seen: set[str] = set()
    for rule in rules:
        who = rule.principal
        if not who or who in seen:
            raise UsageError(f"rule {who!r}: a principal has one rule, and a name")
        seen.add(who)
        if rule.write and not rule.read:
            raise UsageError(
                f"rule {who!r}: a principal that may write reads the dataset too",
                hint="leave out read, or write",
            )
        names = [column.name for column in rule.columns]
        if len(set(names)) < len(names):
            raise UsageError(f"rule {who!r}: a column is listed twice")
        for text in rule.expressions:
            if not text.strip() or len(text) > EXPRESSION_MAX:
                problem = (
                    "empty" if len(text) <= EXPRESSION_MAX else f"over {EXPRESSION_MAX} characters"
                )
                raise UsageError(f"rule {who!r}: an expression is {problem}")
    return rules


def policy_key(policies: Mapping[str, Mapping[str, Any] | None]) -> str:
    """Return a digest of the policies that a query runs under; "" if there are none.

    Two queries over the same snapshots with equal keys have equal results, so a cache of results or
    of instances needs the key besides the snapshots.

    Args:
        policies: For each table, by its id, the member `policy` of the executor's request.
    """
    restricted = {key: policy for key, policy in policies.items() if policy is not None}
    return sha256_hex(canonical_json(restricted)) if restricted else ""


def outdated(table: str, problem: str) -> Denied:
    """Return the error for a policy that no longer fits its dataset."""
    return Denied(
        f"reading dataset {table!r}, whose policy does not fit it: {problem}",
        needed="its owner or an admin to set the policy again",
    )


def written_elsewhere(name: str, node: str) -> Denied:
    """Return the error for a change of a dataset that another node writes."""
    return Denied(
        f"changing dataset {name!r}, which node {node[:16]} writes",
        needed="to be done at that node",
        hint="change a copy of your own: platform fork",
    )


def not_writable(name: str) -> Denied:
    """Return the error for a change of a dataset that the user may only read."""
    return Denied(
        f"changing dataset {name!r}",
        needed="a policy that lets you write",
        hint="its owner or an admin can set one",
    )
