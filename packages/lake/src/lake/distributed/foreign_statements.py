"""Changes that other nodes ask for: statements over one dataset of this node, run as a user's.

A statement is parsed here again, and sees the one dataset under the name that it has at the other node.
No other dataset, view or earlier version exists for it, so its errors do not mention them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lake.access.policies import Policies
from lake.access.rules import FULL_ACCESS, READ_ACCESS, Access
from lake.catalog.catalog import check_dataset_name
from lake.catalog.list_choice import ALL_LISTS, LeftOuts
from lake.catalog.shard_lists import LeftOut
from lake.distributed.forwarded_changes import Forwarder
from lake.distributed.remote_shards import ForeignChange
from lake.encryption.vault import Hold
from lake.peers.changes.returned_rows import RETURNED_BYTES_MAX
from lake.statements.deadline import Deadline
from lake.statements.limits import Requester
from lake.statements.request import StatementRequest
from lake.statements.running import RunningStatement
from lake.statements.statements import Statements
from lake.statements.tables import StatementTables
from lake.statements.target import find_target
from lake.views.views import ViewInfo
from sennit_core.errors import SennitError
from sennit_core.logs import get_logger
from sennit_core.private_files import FILE_MODE
from sennit_core.records import ShardInfo

if TYPE_CHECKING:
    from lake.lake import Lake
    from lake.peers.transport.stop import Stop
    from lake.writes.writes import ReceiptRows

__all__ = ["ForeignChanges", "MadeChange"]

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MadeChange:
    """A change that was made.

    Args:
        count: The number of changed rows.
        returned: The bytes of RETURNING in the file of the change; None if it has none.
    """

    count: int
    returned: int | None = None


class ForeignChanges:
    """Makes changes for other nodes.

    Args:
        lake: The datasets.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def run(self, change: ForeignChange, receipt: ReceiptRows, stop: Stop) -> MadeChange:
        """Make a change; blocks.

        Args:
            change: The change.
            receipt: Returns what is written with the commit.
            stop: Stops it, unless it is committed.

        Raises:
            SennitError: The error of the statement: nothing was changed.
        """
        check_dataset_name(change.name)
        request = StatementRequest(
            change.sql,
            params=json.loads(change.params) if change.params else None,
            deadline_seconds=change.seconds,
            user=change.user.name,
            role=change.user.role,
            node=change.user.node,
            max_rows=change.max_rows,
            returned_bytes_max=RETURNED_BYTES_MAX,
        )
        target = find_target(
            self._lake.pool,
            request,
            Deadline(change.seconds),
            [each.name for each in change.inputs],
        )
        target.check()
        with _OneDataset(self._lake.statements, change, receipt).start(request) as execution:
            stop.attach(execution.cancel)
            answer = execution.result()
            made = MadeChange(int(answer["count"]))
            if not target.returning or change.place is None:
                return made
            try:
                change.place.touch(FILE_MODE)
                with change.place.open("wb") as file:
                    for piece in execution.payloads():
                        file.write(piece)
                    size = file.tell()
            except OSError as error:
                # The change is committed, so the sender gets its count without the rows.
                _log.warning("the rows that a change returns: %s", error)
                return made
            return replace(made, returned=size)


class _OneDataset(Statements):
    """Statements for which only one dataset exists.

    Args:
        statements: Those of the lake.
        change: Names the dataset.
        receipt: As of `ForeignChanges.run`.
    """

    def __init__(self, statements: Statements, change: ForeignChange, receipt: ReceiptRows) -> None:
        self.__dict__.update(vars(statements))
        self._tables = _OneTable(self._tables, change)
        self._writer = self._writer.with_receipt(receipt)
        # A change is not sent on: a third node would take it for a change of this one.
        self._forwarder = Forwarder(self._pool, self._catalog, self._tables, self.start)

    def start(self, request: StatementRequest) -> RunningStatement:
        """Start it as the one statement that `find_target` has parsed.

        Nothing else may divide the text of another node: what finds a BEGIN where DuckDB's parser finds
        none would start a transaction, for which all datasets exist.
        """
        return self._running.start(
            request.sql,
            request.requester,
            request.engine,
            lambda statement: self.begin(request, statement),
        )

    def _choose_lists(self, request: StatementRequest, sql: str, deadline: Deadline) -> LeftOuts:
        del request, sql, deadline
        return ALL_LISTS

    def _complete(self, error: SennitError, *_names: object) -> SennitError:
        """Return the error as it is: the nearest name would be that of another dataset."""
        return error


class _OneTable(StatementTables):
    """Finds one dataset, under another name, and the rows that came with a change.

    Args:
        tables: Those of the lake, whose parts it shares.
        change: The change.
    """

    def __init__(self, tables: StatementTables, change: ForeignChange) -> None:
        self.__dict__.update(vars(tables))
        self._dataset = change.dataset
        self._name = change.name
        self._inputs = change.inputs
        self.policies = _SharedPolicies(tables.policies)

    def _named(
        self, folded: str, words: frozenset[str] | None
    ) -> tuple[Sequence[str], Sequence[ViewInfo]]:
        del folded, words
        return [self._dataset], []

    def hold(self, *arguments: Any, **options: Any) -> tuple[list[dict[str, Any]], Hold]:
        """As `StatementTables.hold`; the objects that came with the change are leased by its caller."""
        tables, hold = super().hold(*arguments, **options)
        came = [
            {
                "name": each.name, "id": f"{self._dataset}-{number}", "arrived": True,
                "schema": each.schema.to_json(),
                "paths": [str(self.objects.place(found.object)) for found in each.objects],
            }
            for number, each in enumerate(self._inputs)
        ]  # fmt: skip
        return [*tables, *came], hold

    def _lists_catalog(self, folded: str) -> bool:
        del folded
        return False

    def _table(
        self, dataset_id: str, access: Access, text: str, left: LeftOut | None
    ) -> tuple[dict[str, Any], Sequence[ShardInfo]]:
        table, shards = super()._table(dataset_id, access, text, left)
        return {**table, "name": self._name}, shards


class _SharedPolicies(Policies):
    """Lets users of another node change what is shared with it for that, unless it has a policy.

    Args:
        policies: Those of the lake.
    """

    def __init__(self, policies: Policies) -> None:
        self.__dict__.update(vars(policies))
        self._base = policies

    def access(self, dataset_id: str, requester: Requester) -> Access:
        """As `Policies.access`; a policy that was set since the share was looked at counts."""
        found = self._base.access(dataset_id, requester)
        return FULL_ACCESS if found is READ_ACCESS else found
