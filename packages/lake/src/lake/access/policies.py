"""Who may read and change a dataset, which rows and columns they see: rows of the tree `sys`.

A dataset without a policy can be read by every reader and changed by every writer. With one, only
the principals that its rules name have access, and its owner and admins, who see everything. The
most specific rule counts alone: of the user's name, else of the role, else of `*`.

Policies fail closed: if a row is damaged or lost, only the owner and admins have access.

`lake.access.rules` has the rules themselves; executors apply them (`lake.sql.policies`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from elkyn.records import CheckedTable, write_changes
from lake.access.rules import (
    FULL_ACCESS,
    NO_ACCESS,
    READ_ACCESS,
    Access,
    ColumnRule,
    KnownColumn,
    Policy,
    PolicyRule,
    check_rules,
    not_writable,
)
from lake.catalog.catalog import Catalog
from lake.catalog.file_schemas import column_ids
from lake.distributed.foreign_users import SharedRule, foreign_rule, is_foreign
from lake.statements.limits import Requester
from sennit_core.clock import SYSTEM, Clock
from sennit_core.errors import Corrupt, Denied, NotFound, nearest
from sennit_core.records import DatasetInfo, Record, SnapshotInfo

if TYPE_CHECKING:
    from elkyn import ElkynStore

__all__ = ["Policies", "shown_to"]

_IDS = "policies"
"""Id of the row in `/catalog` that names the datasets with a policy."""


@dataclass(frozen=True, slots=True)
class _PolicyIds(Record):
    """Which datasets have a policy, so that a lost row does not open its dataset to everybody."""

    ids: tuple[str, ...] = ()


class Policies:
    """The policies of the datasets of a node.

    Args:
        tree: The namespace `sys`, which only the platform writes.
        catalog: Knows the datasets and their owners.
        clock: Source of times.
    """

    def __init__(self, tree: ElkynStore, catalog: Catalog, *, clock: Clock = SYSTEM) -> None:
        self._tree = tree
        self._catalog = catalog
        self._clock = clock
        self._table = CheckedTable(tree, "/policies", Policy)
        self._ids = CheckedTable(tree, "/catalog", _PolicyIds)
        self._lock = threading.Lock()  # held by changes
        # What the tree holds; a damaged row is its error. Replaced as a whole by each change, so
        # that readers need no lock.
        self._policies: Mapping[str, Policy | Corrupt] = {}
        # Why policies may be missing: then every dataset without one may have had one. The next
        # change, which writes the list anew, ends it.
        self._problem: Corrupt | None = None
        self._observers: list[Callable[[], object]] = []
        self._load()

    def observe(self, observer: Callable[[], object]) -> None:
        """Call a function after each change of a policy."""
        self._observers.append(observer)

    def __bool__(self) -> bool:
        """Whether any dataset has a policy."""
        return bool(self._policies) or self._problem is not None

    def get(self, dataset: str) -> Policy | None:
        """Return the policy of a dataset, by id or name; None if it has none.

        Raises:
            NotFound: There is no such dataset.
            Corrupt: The policy's row is damaged.
        """
        found = self._policies.get(self._catalog.get(dataset).id)
        if isinstance(found, Corrupt):
            raise found
        return found

    def is_open(self, info: DatasetInfo) -> bool:
        """Return whether a dataset is neither encrypted nor has a policy, damaged or not."""
        return not info.encrypted and self._policies.get(info.id, self._problem) is None

    def set(self, dataset: str, rules: Iterable[PolicyRule], author: str = "") -> Policy:
        """Give a dataset a policy; it applies to statements that start from now on.

        The expressions have been checked (`Lake.set_policy`).

        Raises:
            NotFound: There is no such dataset.
        """
        with self._lock:
            info = self._catalog.get(dataset)
            head = self._catalog.manifest(info.id).snapshot
            ids = zip(head.schema.names, column_ids(head), strict=True)
            columns = tuple(KnownColumn(name, number) for name, number in ids)
            policy = Policy(tuple(rules), columns, author, self._clock.now())
            self._write(info.id, policy)
            return policy

    def adopt(self, dataset_id: str, rules: Iterable[SharedRule], writer: str) -> None:
        """Set what another node publishes about access of this node's users to a restricted dataset.

        The writer applies its policy to each query; this hides the dataset, or some of its columns,
        from lists here.

        Args:
            dataset_id: The dataset's id.
            rules: As the writer describes them.
            writer: Its id, which is the author.
        """
        shown = [
            PolicyRule(each.principal, read=each.read, columns=tuple(map(ColumnRule, each.hidden)))
            for each in rules
        ]
        with self._lock:
            policy = Policy(check_rules(shown), (), writer, 0.0)
            if self._policies.get(dataset_id) != policy:
                self._write(dataset_id, policy)

    def remove(self, dataset_id: str) -> bool:
        """Remove the policy of a dataset; return whether it had one, damaged or not."""
        with self._lock:
            if dataset_id not in self._policies:
                return False
            self._write(dataset_id, None)
            return True

    def access(self, dataset_id: str, requester: Requester) -> Access:
        """Return what a user may do with a dataset.

        Raises:
            Corrupt: The policies are damaged, and the user is neither the owner nor an admin.
        """
        if requester.node:
            return self._foreign_access(dataset_id, requester)
        if not self or requester.is_trusted or self._owner(dataset_id) == requester.name:
            return FULL_ACCESS
        found = self._policies.get(dataset_id, self._problem)
        if isinstance(found, Corrupt):
            raise found
        if found is None:
            return FULL_ACCESS
        rules = {rule.principal: rule for rule in found.rules}
        keys = (_user_key(requester.name), f"role:{requester.role}", "*")
        rule = next((rules[key] for key in keys if key in rules), None)
        if rule is None or not rule.read:
            return NO_ACCESS
        return Access(
            True,
            rule.write,
            rule.rows,
            rule.columns,
            requester.name,
            requester.role,
            found.columns,
        )

    def _foreign_access(self, dataset_id: str, requester: Requester) -> Access:
        """As `access`, for a user of a node that the dataset is shared with: it never writes."""
        found = self._policies.get(dataset_id, self._problem)
        if isinstance(found, Corrupt):
            raise found
        if found is None:
            return READ_ACCESS
        rule = foreign_rule(found, requester)
        if rule is None or not rule.read:
            return NO_ACCESS
        # `current_user` is the whole name: `alice` of another node is not the `alice` of this one.
        user, role = (f"{name}@{requester.node}" for name in (requester.name, requester.role))
        return Access(True, False, rule.rows, rule.columns, user, role, found.columns)

    def visible(self, dataset: str, requester: Requester) -> DatasetInfo:
        """Return a dataset that the user may read, by id or name, without hidden columns.

        Raises:
            NotFound: There is none, as far as the user can know.
            Corrupt: Its row, or its policy, is damaged.
        """
        info = self._catalog.find(dataset)
        if info is None:
            raise self.not_found(dataset, requester)
        access = self.access(info.id, requester)
        if not access.read:
            raise self.not_found(dataset, requester)
        return shown_to(info, access)

    def list(self, requester: Requester) -> list[DatasetInfo]:
        """Return the datasets that the user may read, ordered by name, without hidden columns."""
        return [shown_to(info, access) for info, access in self.readable(requester)]

    def readable(self, requester: Requester) -> Iterator[tuple[DatasetInfo, Access]]:
        """Yield the datasets that the user may read, ordered by name, with all their columns."""
        for info in self._catalog.list():
            try:
                access = self.access(info.id, requester)
            except Corrupt:  # its policy is damaged: nobody else may know that it exists
                continue
            if access.read:
                yield info, access

    def not_found(self, name: str, requester: Requester) -> NotFound | Corrupt:
        """Return the error for a name, suggesting only what the user may read."""
        if not self or requester.is_trusted:
            return self._catalog.not_found(name)
        names = tuple(info.name for info in self.list(requester))
        return NotFound("dataset", name, suggestion=nearest(name, names))

    def check_whole(self, dataset: str, requester: Requester, action: str) -> DatasetInfo:
        """Return a dataset of which the user may read all rows and columns.

        Args:
            dataset: Id or name.
            requester: The user.
            action: What the user does, for the error.

        Raises:
            NotFound: There is none, as far as the user can know.
            Denied: The user sees only a part of it.
        """
        info = self.visible(dataset, requester)
        if self.access(info.id, requester).is_restricted:
            raise Denied(
                f"{action} {info.name!r}, of which your policy shows a part",
                needed="a policy without rows and columns",
                hint="query it with SQL, which applies the policy",
            )
        return info

    def is_whole(self, dataset_id: str, requester: Requester) -> bool:
        """Whether a dataset is there, and the user may read all of its rows and columns."""
        try:
            self.check_whole(dataset_id, requester, "reading")
        except (Denied, NotFound, Corrupt):
            return False
        return True

    def check_history(self, snapshot: SnapshotInfo, requester: Requester) -> None:
        """Refuse an earlier snapshot whose columns are not those that the policy is about.

        A column may have had another name then, under which the policy would show it.

        Raises:
            Denied: The user sees only a part of the dataset, and its columns have changed since.
        """
        if not self.access(snapshot.dataset, requester).is_restricted:
            return
        info = self._catalog.get(snapshot.dataset)
        head = self._catalog.manifest(info.id).snapshot
        if (snapshot.schema.fingerprint(), column_ids(snapshot)) != (
            head.schema.fingerprint(),
            column_ids(head),
        ):
            raise Denied(
                f"reading version {snapshot.version} of {info.name!r}, which had other columns",
                needed="a policy without rows and columns",
            )

    def check_change(self, dataset: str, requester: Requester) -> None:
        """Refuse a change, replacement or deletion of an existing dataset as a whole.

        Raises:
            NotFound: There is none, as far as the user can know.
            Denied: The user may not change it, or sees a part of it.
        """
        if self and not requester.is_trusted:
            info = self.visible(dataset, requester)
            access = self.access(info.id, requester)
            if not access.write:
                raise not_writable(info.name)
            if access.is_restricted:
                self.check_whole(info.id, requester, "changing all of")

    def check_upload(self, name: str, mode: str, requester: Requester) -> None:
        """Refuse an upload that appends to, or replaces, a dataset that the user may not change.

        Args:
            name: The dataset, which may not exist.
            mode: Mode of the upload: `create` refuses any existing dataset later.
            requester: The user.
        """
        if not self or mode == "create":
            return
        if self._catalog.find(name) is not None:
            self.check_change(name, requester)

    def check_verify(self, dataset: str | None, requester: Requester) -> None:
        """Refuse a scrub that reports on datasets that the user does not see whole.

        Args:
            dataset: Id or name; None for all.
            requester: The user.
        """
        if not self or requester.is_trusted:
            return  # also of a dataset whose row is damaged, which has no access rights to look up
        if dataset is not None:
            self.check_whole(dataset, requester, "verifying")
        else:
            raise Denied(
                "verifying all datasets, some of which have policies",
                needed="admin",
                hint="name one dataset",
            )

    def check_manage(
        self, dataset: str, requester: Requester, action: str = "managing the policy of"
    ) -> DatasetInfo:
        """Return a dataset whose policy the user may read and set: its owner, and admins.

        Raises:
            NotFound: There is none, as far as the user can know.
            Denied: The user is neither.
        """
        if requester.is_trusted:
            return self._catalog.get(dataset)
        info = self.visible(dataset, requester)
        if info.owner != requester.name:
            raise Denied(f"{action} {info.name!r}", needed="its owner or an admin")
        return info

    def may_watch(self, path: str, requester: Requester) -> bool:
        """Return whether a user may read this path of the namespace `sys` in the realtime tree.

        Lists cannot be filtered there, so while there are policies, only admins read lists as a
        whole. Uploads, queries and jobs are read by their ids, which only their users know.
        """
        if not self or requester.is_trusted:
            return True
        keys = [key for key in path.split("/") if key]
        if keys[:1] in (["nodes"], ["workers"]):
            return True
        if keys[:1] in (["uploads"], ["queries"]):
            return len(keys) > 1
        # All else may name what a policy hides: the text of a view, the problem of a maintenance task.
        if keys[:1] not in (["datasets"], ["snapshots"], ["tags"]):
            return False
        try:
            access = self.access(keys[1], requester) if keys[1:] else NO_ACCESS
        except Corrupt:
            return False
        return access.read and not access.is_restricted

    def _owner(self, dataset_id: str) -> str | None:
        try:
            info = self._catalog.find(dataset_id)
        except Corrupt:
            return None
        # Datasets of an embedded lake have no owner.
        return info.owner or None if info is not None else None

    def _load(self) -> None:
        found: dict[str, Policy | Corrupt] = {}
        ids = self._table.ids()
        try:
            named = self._ids.get(_IDS)
            if named is None and ids:
                raise _lost("the list of access policies")
        except Corrupt as damage:
            self._problem, named = damage, None
        for dataset_id in {*ids, *(named.ids if named is not None else ())}:
            found[dataset_id] = self._read(dataset_id)
        self._policies = found

    def _read(self, dataset_id: str) -> Policy | Corrupt:
        try:
            return self._table.get(dataset_id) or _lost(f"the policy of dataset {dataset_id}")
        except Corrupt as damage:
            return damage

    def _write(self, dataset_id: str, policy: Policy | None) -> None:
        changed = {key: value for key, value in self._policies.items() if key != dataset_id}
        if policy is not None:
            changed[dataset_id] = policy
        write_changes(
            self._tree,
            self._table.change(dataset_id, policy),
            self._ids.change(_IDS, _PolicyIds(tuple(sorted(changed)))),
        )
        self._policies, self._problem = changed, None
        for observer in self._observers:
            observer()


def _lost(what: str) -> Corrupt:
    return Corrupt(
        what,
        expected="a row in the tree",
        found="none",
        hint="only owners and admins have access; an admin can set the policy again",
    )


def shown_to(info: DatasetInfo, access: Access) -> DatasetInfo:
    """Return a dataset's record as the user may see it.

    The numbers of rows and bytes are those of all rows, which a restricted user must not learn.
    """
    if not access.is_restricted:
        return info
    hidden = {column.name for column in access.columns if column.mask is None}
    fields = tuple(field for field in info.schema.fields if field.name not in hidden)
    return replace(info, schema=replace(info.schema, fields=fields), rows=0, bytes=0, shards=0)


def _user_key(name: str) -> str:
    # A token may have any name; one that looks like another kind of principal matches no rule.
    return "" if name == "*" or name.startswith("role:") or is_foreign(name) else name
