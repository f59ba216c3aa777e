"""Read repair: a damaged shard that a statement meets comes back from another node, and the statement runs again.

    executor finds damage ──▶ file moved aside ──▶ fetched from another holder ──▶ the step runs again

A user sees none of it: it happens before the first byte of the answer. A shard without another holder
stays an error, and so does one that nodes send damaged again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lake.catalog.catalog import Catalog
from lake.distributed.remote_shards import RemoteShards
from lake.errors import damaged_object, damaged_shard
from lake.objects.store import ObjectStore
from lake.objects.verification import examine_object
from lake.peers.transport.stop import Stop
from lake.statements.deadline import Deadline
from sennit_core.errors import Cancelled, Corrupt, DeadlineExceeded, SennitError
from sennit_core.logs import get_logger

__all__ = ["ReadRepair", "Repair"]

_log = get_logger(__name__)

_REPAIRS_MAX = 3
"""Of a statement: the first one looks at the shard that the error names, the others at all shards."""

Tables = Sequence[Mapping[str, Any]]
Repair = Callable[[SennitError, Stop], bool]
"""Of an error of a statement, and what stops the repair: whether the statement is to run again."""


class ReadRepair:
    """Replaces damaged shards of datasets that other nodes hold too.

    Args:
        catalog: Records what is damaged.
        objects: The store.
        remote: The network.
    """

    def __init__(self, catalog: Catalog, objects: ObjectStore, remote: RemoteShards) -> None:
        self._catalog = catalog
        self._objects = objects
        self._remote = remote

    def is_replaceable(self, name: str) -> bool:
        """Return whether a shard is not here, and other nodes may have it."""
        return name not in self._objects and self._remote.is_shared(name)

    def of(self, tables: Callable[[], Tables], deadline: Deadline) -> Repair:
        """Return what repairs the tables of a statement, at most a few times.

        Args:
            tables: Returns those that the statement reads, leased, in the form of executor requests.
            deadline: When it is to be over.
        """
        tries = 0

        def repair(error: SennitError, stop: Stop) -> bool:
            nonlocal tries
            if not isinstance(error, Corrupt) or tries == _REPAIRS_MAX:
                return False
            tries += 1
            return self._repair(error, tables(), tries == 1, deadline, stop)

        return repair

    def set_aside(
        self, error: Corrupt, tables: Tables, *, only_named: bool = True, stop: Stop | None = None
    ) -> list[str]:
        """Move the damaged shards aside; return all shards of the tables that other nodes may have.

        Args:
            error: What an executor has found.
            tables: The tables that it has read.
            only_named: Whether to look only at the shard that the error names, if it names one.
            stop: Stops it.

        Raises:
            Cancelled: It was stopped.
        """

        def check() -> None:
            if stop is not None and stop.stopped:
                raise Cancelled("a repair of damaged shards")

        named = damaged_object(error)
        found = {each[2]: each for table in tables for each in _shards_of(table)}
        shared = [name for name in found if self._remote.is_shared(name)]
        is_one = only_named and named in found
        for name in shared:
            if (is_one and name != named) or name not in self._objects:
                continue
            damage = examine_object(self._objects, name, check)
            if damage is not None:
                problem = damaged_shard(*found[name], damage.part, damage.expected, damage.found)
                _log.error("moved aside, and fetched from another node: %s", problem)
                self._catalog.note_object(name, problem)
                if damage.is_content and name in self._objects:
                    self._catalog.note_object(name, None)  # it came back before it was noted
        return shared

    def _repair(
        self, error: Corrupt, tables: Tables, is_first: bool, deadline: Deadline, stop: Stop
    ) -> bool:
        shared = self.set_aside(error, tables, only_named=is_first, stop=stop)
        if not shared:
            return False
        try:
            self._remote.ensure(shared, seconds=deadline.left, stop=stop)
        except (Cancelled, DeadlineExceeded):
            raise
        except SennitError as problem:
            reason = problem.hint or str(problem)
            error.hint = f"no other node has sent an intact copy: {reason}. {error.hint or ''}"
            return False
        return True


def _shards_of(table: Mapping[str, Any]) -> Iterator[tuple[str, int, str]]:
    """Yield the dataset's name, the number and the object of each shard of a table."""
    numbers = table.get("numbers") or ()
    for place, path in enumerate(table.get("paths") or ()):
        yield table["name"], numbers[place] if numbers else place, Path(path).name
