"""Quotas of users: bytes of their datasets, and memory, number and rate of their statements.

Each is checked where it cannot be passed twice: bytes at the commit, under the catalog's lock; the
others when a statement is listed, under the list's lock. An upload is refused at its start too if
there is no room at all, before its bytes are sent.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from elkyn.records import Change, CheckedTable
from lake.catalog.usage import StoredBytes
from lake.distributed.foreign_usage import ForeignUsage
from lake.distributed.foreign_users import EVERY_FOREIGN
from lake.objects.durable import PLACE
from sennit_core.clock import Clock
from sennit_core.errors import Busy, StorageFull, UsageError
from sennit_core.hashing import sha256_hex
from sennit_core.records import Record
from sennit_core.units import MIB, format_bytes

if TYPE_CHECKING:
    from elkyn import ElkynStore
    from lake.catalog.catalog import Catalog
    from lake.catalog.commits import Commit
    from sennit_core.records import DatasetInfo

__all__ = ["MEMORY_MIN_BYTES", "Quotas", "UserQuota"]

MEMORY_MIN_BYTES = 128 * MIB
"""DuckDB needs about this much for a statement that sorts or joins at all."""
JOB_WEIGHT_MAX = 100
"""With it, another user still gets each hundredth byte."""
_MINUTE_SECONDS = 60.0
_ASK = "or ask an admin for a higher quota"


@dataclass(frozen=True, slots=True)
class UserQuota(Record):
    """The limits of one user; 0 is no limit.

    Args:
        user: The user; `*@` and the id of a node for all of its users together, or `*@*` for those of
            each node that has none.
        disk_bytes: Bytes of all kept versions of the datasets that the user owns, and of the user's queued
            appends; of users of another node those that their changes have stored here.
        memory_bytes: Memory of the executors of the user's statements together.
        statements: Statements at once, queued ones included.
        statements_per_minute: Statements that start within any 60 seconds.
        job_weight: The user's share of the workers of jobs, against 1 of others.
    """

    user: str
    disk_bytes: int = 0
    memory_bytes: int = 0
    statements: int = 0
    statements_per_minute: int = 0
    job_weight: int = 1


class Quotas:
    """The quotas of one lake.

    Args:
        tree: The `sys` namespace.
        catalog: Knows the datasets; asks `admit_commits` before each commit.
        clock: Source of time.
    """

    def __init__(self, tree: ElkynStore, catalog: Catalog, clock: Clock) -> None:
        self._rows = CheckedTable(tree, "/quotas", UserQuota)
        self._catalog = catalog
        self._clock = clock
        self.stored = StoredBytes(catalog)
        self.foreign = ForeignUsage(tree, catalog, self.stored)
        self.queued_by: Callable[[str], int] = lambda _user: 0
        """Returns the bytes of a user's queued appends; must not block. `QueuedAppends` sets it."""
        # By user, read once: only this process writes the rows.
        self._quotas = {row.user: row for row in self._rows.all().values()}
        # When the statements of the last minute started, of users with such a quota.
        self._starts: defaultdict[str, deque[float]] = defaultdict(deque)
        catalog.admit = self.admit_commits

    def list(self) -> Sequence[UserQuota]:
        """Return all quotas, by user."""
        return [self._quotas[user] for user in sorted(self._quotas)]

    def get(self, user: str) -> UserQuota:
        """Return the quota of a user; without limits if none was set."""
        return self._quotas.get(user) or UserQuota(user)

    def set(self, quota: UserQuota) -> None:
        """Give a user a quota; it applies to what starts from now on.

        Raises:
            UsageError: A number is out of range.
        """
        numbers = quota.disk_bytes, quota.memory_bytes, quota.statements
        if not quota.user or min(*numbers, quota.statements_per_minute) < 0:
            raise UsageError("a quota has a user, and numbers of 0 or more")
        if not 1 <= quota.job_weight <= JOB_WEIGHT_MAX:
            raise UsageError(
                f"a user's weight is from 1 to {JOB_WEIGHT_MAX}, not {quota.job_weight}"
            )
        if 0 < quota.memory_bytes < MEMORY_MIN_BYTES:
            least = format_bytes(MEMORY_MIN_BYTES)
            raise UsageError(f"a statement needs {least}", hint=f"set memory to {least} or more")
        self._rows.put(_key(quota.user), quota)
        self._quotas[quota.user] = quota

    def remove(self, user: str) -> bool:
        """Remove the quota of a user; return whether there was one."""
        if self._quotas.pop(user, None) is None:
            return False
        self._rows.remove(_key(user))
        self._starts.pop(user, None)
        return True

    def check_room(self, user: str, what: str, coming: int | None = None) -> None:
        """Refuse what needs room if the user has none left.

        Args:
            user: The user.
            what: What needs it, for the error.
            coming: Its bytes; None if they are not known yet.

        Raises:
            StorageFull: The user's datasets use the whole quota, or would use more than it.
        """
        limit = self.get(user).disk_bytes
        if limit:
            used = self._used(user)
            if used >= limit or used + (coming or 0) > limit:
                raise self._no_room(user, limit, used, coming, what)

    def shown(self, quota: UserQuota) -> dict[str, Any]:
        """Return a quota and what is used of it, as interfaces show it."""
        return quota.to_json() | {
            "storedBytes": self.stored_by(quota.user),
            "queuedBytes": self.queued_by(quota.user),
        }

    def stored_by(self, user: str) -> int:
        """Return the bytes that a user's disk quota counts, without queued appends.

        Args:
            user: As of `UserQuota`; for `*@*` the users of all other nodes together.
        """
        if user == EVERY_FOREIGN:
            return sum(map(self.foreign.of, self.foreign.nodes()))
        if user.startswith("*@"):
            return self.foreign.of(user.removeprefix("*@"))
        return self.stored.owned_by(user)

    def _used(self, user: str) -> int:
        return self.stored.owned_by(user) + self.queued_by(user)

    def check_foreign(self, node: str, what: str, coming: int) -> None:
        """Refuse bytes of another node's users for which their node's quota has no room.

        Args:
            node: The node's id.
            what: What needs them, for the error.
            coming: The bytes.

        Raises:
            StorageFull: They would use more than the quota.
        """
        limit = self._foreign_quota(f"*@{node}").disk_bytes
        used = self.foreign.of(node) if limit and coming else 0
        if limit and coming and used + coming > limit:
            missing = format_bytes(used + coming - limit)
            raise StorageFull(
                PLACE,
                coming,
                max(0, limit - used),
                message=f"users of node {node[:16]} may store {format_bytes(limit)} at the node that "
                f"writes the dataset, and store {format_bytes(used)}; {what} needs "
                f"{format_bytes(coming)} more, {missing} too many",
                hint="ask an admin of that node for a higher quota, or to let old versions expire",
            )

    def charge_foreign(self, node: str, dataset: DatasetInfo, size: int) -> Change:
        """Return what counts new shards of another node's users, in one write with their commit.

        Args:
            node: The node's id.
            dataset: The dataset that they change; the caller blocks other commits.
            size: Bytes of the new shards.

        Raises:
            StorageFull: As `check_foreign`.
        """
        self.check_foreign(node, f"the change of {dataset.name!r}", size)
        return self.foreign.added(node, dataset.id, size)

    def _foreign_quota(self, user: str) -> UserQuota:
        default = self._quotas.get(EVERY_FOREIGN) or UserQuota(user)
        return replace(self._quotas.get(user) or default, user=user)

    def check_owner(self, user: str, dataset: DatasetInfo) -> None:
        """Refuse a dataset of another owner that a user has no room for.

        Args:
            user: The user who is to own it.
            dataset: The dataset, whose kept versions count.

        Raises:
            StorageFull: They would use more than the user's quota.
            Corrupt: A manifest is damaged.
        """
        if self.get(user).disk_bytes and dataset.owner != user:
            coming = self.stored.bytes_of(dataset)
            self.check_room(user, f"dataset {dataset.name!r}", coming)

    def admit_commits(self, commits: Sequence[Commit]) -> None:
        """Refuse commits that together store more than an owner may; under the catalog's lock.

        Raises:
            StorageFull: It does.
        """
        coming: dict[str, int] = defaultdict(int)
        for commit in commits:
            found = self._catalog.find_known(commit.dataset.id)
            dataset = found or replace(commit.dataset, head=None)
            limit = self.get(dataset.owner).disk_bytes
            if not limit:
                continue
            new = self.stored.bytes_beyond(dataset, commit.manifest)
            coming[dataset.owner] += new
            # What stores nothing, such as a DELETE of whole shards or a rollback, is never refused.
            used = self._used(dataset.owner) if new else 0
            if new and used + coming[dataset.owner] > limit:
                what = f"the change of {dataset.name!r}"
                raise self._no_room(dataset.owner, limit, used, coming[dataset.owner], what)

    def admit_statement(self, user: str, reserved: Sequence[int], executor_bytes: int) -> int:
        """Admit a statement; return the memory that it may use, 0 for no limit of its own.

        The caller holds the lock of the list of statements.

        Args:
            user: The user.
            reserved: The memory of each of the user's other statements.
            executor_bytes: The cap of an executor.

        Raises:
            Busy: The user has too many statements, too many in a minute, or no memory left.
        """
        quota = self._foreign_quota(user) if user.startswith("*@") else self.get(user)
        if quota.statements and len(reserved) >= quota.statements:
            raise Busy(
                f"user {user!r} may run {quota.statements:,} statements at once, and runs "
                f"{len(reserved):,}",
                hint=f"wait until one has ended, {_ASK}",
            )
        memory = 0
        if quota.memory_bytes:
            left = quota.memory_bytes - sum(reserved)
            memory = min(left, executor_bytes)
            if memory < min(MEMORY_MIN_BYTES, executor_bytes):
                raise Busy(
                    f"user {user!r} may use {format_bytes(quota.memory_bytes)} of memory, of which "
                    f"{len(reserved):,} statements use {format_bytes(sum(reserved))}",
                    hint=f"wait until one has ended, {_ASK}",
                )
        self._count_start(quota)
        return memory

    def _no_room(
        self, user: str, limit: int, used: int, coming: int | None, what: str
    ) -> StorageFull:
        needs = ""
        if coming is not None:
            missing = format_bytes(used + coming - limit)
            needs = f"; {what} needs {format_bytes(coming)} more, {missing} too many"
        queued = self.queued_by(user)
        waiting = f" ({format_bytes(queued)} in queued appends)" if queued else ""
        return StorageFull(
            PLACE,
            coming or 0,
            max(0, limit - used),
            message=f"user {user!r} may store {format_bytes(limit)}, and stores {format_bytes(used)}"
            f"{waiting}{needs or f'; there is no room for {what}'}",
            hint=f"delete datasets, let old versions expire, {_ASK}"
            if not queued
            else f"remove queued appends (platform net queue), delete datasets, {_ASK}",
        )

    def _count_start(self, quota: UserQuota) -> None:
        if not quota.statements_per_minute:
            return
        now, starts = self._clock.monotonic(), self._starts[quota.user]
        while starts and starts[0] <= now - _MINUTE_SECONDS:
            starts.popleft()
        if len(starts) >= quota.statements_per_minute:
            wait = starts[0] + _MINUTE_SECONDS - now
            raise Busy(
                f"user {quota.user!r} may start {quota.statements_per_minute:,} statements in a "
                f"minute, and started {len(starts):,}",
                hint=f"wait {wait:.0f} s, {_ASK}",
            )
        starts.append(now)


def _key(user: str) -> str:
    """Return the key of a user's row: a name may have characters that no key has."""
    return sha256_hex(user.encode())[:32]
