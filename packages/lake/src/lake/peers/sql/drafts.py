"""Steps of a plan while it is made, as trees, and what a query that reads their results moves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from lake.peers.sql.aggregates import ExportState, to_sql
from lake.peers.sql.engine import Engine
from lake.peers.sql.estimates import selectivity, width
from lake.peers.sql.plan import Broadcast, Fragment, Gather, Merge, Step, Unit
from lake.peers.sql.references import Reference, condition_sql
from lake.peers.sql.shard_pruning import remaining_shards
from lake.peers.sql.tables import Shard, Table

__all__ = ["DraftFragment", "DraftMerge", "Drafts"]


@dataclass(frozen=True, slots=True)
class DraftFragment:
    """A fragment, with the estimate of what its units answer."""

    query: exp.Query
    by: str
    sharded: tuple[str, ...]
    units: tuple[Unit, ...]
    remote_units: int
    unit_rows: int
    row_bytes: int
    shards: int

    @property
    def rows(self) -> int:
        """The estimated number of rows of all units."""
        return self.unit_rows * len(self.units)


@dataclass(frozen=True, slots=True)
class DraftMerge:
    """A query of the coordinator, with the estimate of its result."""

    query: exp.Query
    rows: int
    row_bytes: int


@dataclass(slots=True)
class Drafts:
    """All steps that were considered, by the names of their results.

    Args:
        references: The tables in FROM clauses, by their names there.
        engine: DuckDB's answers.
        prefix: What names of results start with.
        nodes: The number of other nodes, which rows may be sent to.
        local: The object ids of shards that the coordinator has.
    """

    references: dict[str, Reference]
    engine: Engine
    prefix: str
    nodes: int
    local: frozenset[str]
    steps: dict[str, DraftFragment | DraftMerge] = field(default_factory=dict)
    gathered: dict[str, str] = field(default_factory=dict)
    _remaining: dict[str, tuple[Shard, ...]] = field(default_factory=dict)
    _inputs: dict[str, list[str]] = field(default_factory=dict)

    def name(self, kind: str) -> str:
        """Return a new name of a result."""
        return f"{self.prefix}{kind}{len(self.steps)}"

    def gather(self, alias: str) -> str:
        """Return the name of the rows of a table in FROM that are gathered."""
        name = f"{self.prefix}gather_{alias}"
        self.gathered[name] = alias
        return name

    def remaining(self, alias: str) -> tuple[Shard, ...]:
        """Return the shards of a table in FROM that pruning leaves."""
        if alias not in self._remaining:
            found = self.references[alias]
            self._remaining[alias] = remaining_shards(found.table, found.conditions, self.engine)
        return self._remaining[alias]

    def results_in(self, query: exp.Expr) -> list[str]:
        """Return the names of results that a query reads itself, each once."""
        names = dict.fromkeys(table.name for table in query.find_all(exp.Table))
        return [name for name in names if name in self.steps or name in self.gathered]

    def inputs_of(self, name: str) -> list[str]:
        """Return the names of results that a step reads itself; its query never changes."""
        if name not in self._inputs:
            self._inputs[name] = self.results_in(self.steps[name].query)
        return self._inputs[name]

    def needed(self, query: exp.Expr) -> list[str]:
        """Return the names of all results that a query depends on, in an order that works."""
        found: dict[str, None] = {}

        def visit(names: list[str]) -> None:
            for name in names:
                if name in self.steps:
                    visit(self.inputs_of(name))
                found[name] = None

        visit(self.results_in(query))
        return list(found)

    def tables_read(self, query: exp.Expr) -> set[str]:
        """Return the names of the statement's tables that a query reads itself, without those of results."""
        return {
            table.name
            for table in query.find_all(exp.Table)
            if table.alias in self.references
            and table.name == self.references[table.alias].table.name
        }

    def tables_of(self, name: str) -> set[str]:
        """Return the names of the statement's tables that a result comes from, also through other results.

        What is neither a table nor a result is under its own name, which no table has.
        """
        if name in self.gathered:
            return {self.references[self.gathered[name]].table.name}
        query = self.steps[name].query
        found = self.tables_read(query)
        for table in query.find_all(exp.Table):
            if table.name in self.gathered or table.name in self.steps:
                found |= self.tables_of(table.name)
            elif table.name not in found:
                found.add(f"{self.prefix}{table.name}")
        return found

    def result_bytes(self, name: str) -> int:
        """Return the estimated size of a result."""
        step = self.steps.get(name)
        if step is not None:
            return step.rows * step.row_bytes
        return self.table_bytes(self.gathered[name])

    def table_bytes(self, alias: str) -> int:
        """Return the estimated size of what a query needs of a table in FROM, wherever its shards are."""
        found = self.references[alias]
        rows = sum(shard.rows for shard in self.remaining(alias))
        columns = found.columns or (narrowest(found.table),)
        return int(rows * self._share([alias]) * self._row_bytes(alias, columns))

    def bytes_of(self, needed: Sequence[str]) -> int:
        """Return the estimate of what all these results move."""
        gathers = self.merged_gathers([name for name in needed if name in self.gathered])
        total = sum(self.gather_step(aliases, "", "").bytes for aliases in gathers.values())
        for name in needed:
            step = self.steps.get(name)
            if isinstance(step, DraftFragment):
                total += self._fragment_bytes(name, step)
        return total

    def merged_gathers(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Return the names in FROM of gathered tables, by the name of the table."""
        found: dict[str, list[str]] = {}
        for name in names:
            alias = self.gathered[name]
            found.setdefault(self.references[alias].table.name, []).append(alias)
        return found

    def gather_step(self, aliases: list[str], result: str, reason: str) -> Gather:
        """Return the step that gathers what all these uses of one table need."""
        found = [self.references[alias] for alias in aliases]
        table = found[0].table
        used = {name for each in found for name in each.columns}
        columns = tuple(each.name for each in table.columns if each.name in used)
        columns = columns or (narrowest(table),)
        conditions = [condition_sql(each.conditions) for each in found]
        texts = None if None in conditions else list(dict.fromkeys(map(str, conditions)))
        condition = None if texts is None else " OR ".join(f"({text})" for text in texts)
        objects = {shard.object: shard for alias in aliases for shard in self.remaining(alias)}
        shards = [shard for shard in table.shards if shard.object in objects]
        remote = sum(shard.rows for shard in shards if shard.object not in self.local)
        size = self._row_bytes(aliases[0], columns)
        listed = ", ".join(quoted(name) for name in columns)
        where = "" if condition is None else f" WHERE {condition}"
        return Gather(
            result=result,
            sql=f"SELECT {listed} FROM {quoted(table.name)}{where}",
            table=table.name,
            columns=columns,
            condition=condition,
            objects=tuple(shard.object for shard in shards),
            bytes=int(remote * self._share(aliases) * size),
            shards=len(table.shards),
            reason=reason,
        )

    def _share(self, aliases: Iterable[str]) -> float:
        """Return the share of a table's rows that some uses of it need."""
        return min(1.0, sum(selectivity(self.references[each].conditions) for each in aliases))

    def _row_bytes(self, alias: str, columns: Iterable[str]) -> int:
        table = self.references[alias].table
        return sum(width(table.type_of(name) or "") for name in columns)

    def step(
        self,
        name: str,
        query: exp.Query,
        tables: Iterable[Table],
        origins: Mapping[str, Iterable[str]],
    ) -> Step:
        """Return a step of the plan.

        Args:
            name: The name of its result.
            query: Its query, with the final names of the results that it reads; not to be used again.
            tables: The tables of the statement.
            origins: The names of the tables that each result comes from, by its final name.
        """
        draft = self.steps[name]
        sharded = draft.sharded if isinstance(draft, DraftFragment) else ()
        read = list(dict.fromkeys(table.name for table in query.find_all(exp.Table)))
        own = [table.name for table in tables]
        if isinstance(draft, DraftMerge):
            size = draft.rows * draft.row_bytes
            return Merge(name, to_sql(query, copy=False), tuple(read), draft.rows, size)
        has_states = query.find(ExportState) is not None
        return Fragment(
            result=name,
            sql=to_sql(query, copy=False),
            by=draft.by,
            sharded=sharded,
            replicated=tuple(each for each in read if each in own and each not in sharded),
            broadcasts=tuple(
                Broadcast(each, tuple(sorted(origins[each]))) for each in read if each not in own
            ),
            units=draft.units,
            unit_rows=draft.unit_rows,
            bytes=self._fragment_bytes(name, draft),
            shards=draft.shards,
            has_states=has_states,
        )

    def _fragment_bytes(self, name: str, draft: DraftFragment) -> int:
        results = draft.remote_units * draft.unit_rows * draft.row_bytes
        nodes = min(self.nodes, draft.remote_units)
        sent = nodes * sum(map(self.result_bytes, self.inputs_of(name)))
        return results + sent


def narrowest(table: Table) -> str:
    """Return the column with the fewest bytes, for rows that are only counted."""
    return min(table.columns, key=lambda column: width(column.type)).name


def quoted(name: str) -> str:
    """Return a name as an identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'
