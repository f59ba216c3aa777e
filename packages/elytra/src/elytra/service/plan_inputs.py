"""The inputs of a job's plan: what each source of it is bound to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from elytra.service.shard_pruning import conditions_on_scans, matching_shards
from elytra.service.shard_ranges import key_ranges
from elytra.service.work import Shard
from elytra.shard_joins import KeyRanges
from elytra.splitter import DatasetSize, Rules
from emsqrt.plan import DatasetRef, Plan
from lake.catalog.file_schemas import columns_of_files
from lake.objects.verification import ShardFile
from sennit_core.schema import Schema

if TYPE_CHECKING:
    from lake.statements.plan_sources import PlanSource

__all__ = ["PlanInputs"]


@dataclass
class PlanInputs:
    """The sources of a plan, as they are found.

    Args:
        pinned: For each source of the submitted plan that of the bound one.
        schemas: The columns of each.
        shards: The shards of those that are snapshots.
        queries: The others, in the form of executor requests.
        names: The ids of the datasets that are read, by name.
        memory: The members of executor requests for temporary files in memory.
        encrypted: Whether an encrypted dataset is read.
    """

    pinned: dict[DatasetRef, DatasetRef] = field(default_factory=dict)
    schemas: dict[DatasetRef, Schema] = field(default_factory=dict)
    shards: dict[DatasetRef, tuple[Shard, ...]] = field(default_factory=dict)
    queries: dict[DatasetRef, Mapping[str, Any]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    memory: Mapping[str, Any] = field(default_factory=dict)
    encrypted: bool = False

    @property
    def needs_whole(self) -> bool:
        """Whether one task must run the plan: rows of a query are in the process that ran it.

        So are those of encrypted datasets, since partials are not encrypted.
        """
        return bool(self.queries) or self.encrypted

    @property
    def size_bytes(self) -> int:
        """Stored bytes of all shards."""
        return sum(shard.info.bytes for each in self.shards.values() for shard in each)

    def size_of(self, ref: DatasetRef) -> DatasetSize | None:
        """Return the size of a source, for the splitter; None for a query."""
        shards = self.shards.get(ref)
        if shards is None:
            return None
        return DatasetSize(len(shards), sum(shard.info.bytes for shard in shards))

    def ranges_of(self, ref: DatasetRef, column: str) -> KeyRanges | None:
        """Return how the values of a column are spread over the shards of a source, for the splitter."""
        shards = self.shards.get(ref)
        return None if shards is None else key_ranges(shards, self.schemas[ref], column)

    @property
    def rules(self) -> Rules:
        """What a split of a plan over these sources may do."""
        return Rules(self.size_of, self.ranges_of)

    def leave_out_shards(self, plan: Plan) -> None:
        """Leave out the shards in which no row can pass the filters of the bound plan."""
        for ref, conditions in conditions_on_scans(plan).items():
            if ref in self.shards and conditions:
                shards = matching_shards(self.shards[ref], self.schemas[ref], conditions)
                self.shards[ref] = shards

    def add(self, asked: DatasetRef, source: PlanSource, *, verify_always: bool) -> None:
        """Bind a source of the plan.

        Args:
            asked: As the plan names it.
            source: What it is.
            verify_always: Whether its shards are verified at every read.
        """
        snapshot = source.snapshot
        ref = DatasetRef(source.id, source.state)
        self.pinned[asked] = ref
        self.schemas[ref] = source.schema
        self.names |= source.datasets
        self.memory = source.memory or self.memory
        self.encrypted |= source.encrypted
        if snapshot is None:
            assert source.query is not None, "a query, if no snapshot"
            self.queries[ref] = {**source.query, "name": f"source-{len(self.queries)}"}
            return
        files = columns_of_files(snapshot)
        (name,) = source.datasets
        self.shards[ref] = tuple(
            Shard(
                info,
                ShardFile(name, index, path, verify_always),
                files[info.file_schema] if files else None,
                source.encrypted,
            )
            for index, (info, path) in enumerate(zip(snapshot.shards, source.paths, strict=True))
        )
