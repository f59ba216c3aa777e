"""Plan a SELECT over tables whose shards are on several nodes.

    read (sqlglot, compared with DuckDB)  ->  schemes  ->  fragment + merge for each  ->  least bytes

A query that depends on no other (the statement, a derived table, a scalar subquery, a CTE) is planned on
its own, innermost first, and its result is whole for what surrounds it. Each such query has candidates:
one for each scheme that the rules of `distribution` prove, and the gather of the tables that it names.
All are right; the estimate of moved bytes chooses. No error leaves the planner: what is not understood is
gathered, with the reason in the plan.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlglot import exp

from lake.peers.sql.aggregates import to_sql
from lake.peers.sql.blocks import PART, Tail, cut_block, split_tail
from lake.peers.sql.broadcasts import MISSING_ROWS, TOO_MANY_ROWS, check_broadcasts, check_columns
from lake.peers.sql.decorrelation import decorrelated
from lake.peers.sql.distribution import Localizer, WholeTables, reads_away
from lake.peers.sql.drafts import DraftFragment, DraftMerge, Drafts, quoted
from lake.peers.sql.engine import EmptyTables, Engine
from lake.peers.sql.errors import NotDistributed, NotSent
from lake.peers.sql.fallback import (
    gather_all,
    gather_plan,
    gathers_of_query,
    has_columns,
    local_plan,
)
from lake.peers.sql.fragments import draft_fragment
from lake.peers.sql.plan import Cost, DistributedPlan, Fragment, Gather, Merge, Step, computed_first
from lake.peers.sql.references import find_references
from lake.peers.sql.schemes import Scheme, Schemes
from lake.peers.sql.syntax import Query, read_query
from lake.peers.sql.tables import Column, Table

__all__ = ["PlanOptions", "plan_distributed"]

_PREFIX = "__sennit_"
_VALUE_BYTES = 8
_BROADCAST_MARGIN = 2
"""How many times less a plan must move that gathers tables for its fragments: its estimate depends on two
selectivities. Without this, TPC-H 14 with all tables split moved three times as much as a gather."""
_REWRITTEN_MARGIN = 2
"""How many times less a plan with rewritten subqueries must move: its groups are estimated twice."""
_CHANGED_BY_ARROW = re.compile(r"\b(TIME WITH TIME ZONE|BIT|INTERVAL|UHUGEINT)\b")
"""Types whose values DuckDB sends as Arrow data without the time zone or the number of bits, or, beyond 292
years or 38 digits, as others or not at all."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What the planner may assume of the nodes.

    Args:
        nodes: The number of other nodes that hold shards, for the cost of sending rows to all.
        uses_states: Whether all nodes have one version of DuckDB, and may exchange states of
            aggregate functions.
        sends_bytes_max: The most rows, gathered here or computed, that are sent along with a fragment, in
            bytes; 0 for none.
        uses_whole: Whether a fragment may read tables that its nodes have whole.
        strategy: `cheapest`, or `push` or `gather` to have that one wherever it is possible.
    """

    nodes: int = 4
    uses_states: bool = False
    sends_bytes_max: int = 1 << 20
    uses_whole: bool = True
    strategy: str = "cheapest"


def plan_distributed(
    sql: str, tables: Sequence[Table], engine: Engine, options: PlanOptions | None = None
) -> DistributedPlan:
    """Plan a query.

    Args:
        sql: One SELECT that DuckDB's parser accepts, with no parameters.
        tables: All tables that it reads.
        engine: DuckDB's answers.
        options: What may be assumed of the nodes.

    Returns:
        A plan whose result is that of the query over all rows of the tables. If the query is not valid,
        so is the plan's last query, which then has DuckDB's own error.
    """
    options = options or PlanOptions()
    tables = tuple(tables)
    if all(table.is_here for table in tables):
        return local_plan(sql, tables, engine)
    local = frozenset(s.object for table in tables for s in table.shards if 0 in s.nodes)
    try:
        try:
            return _planned(sql, tables, engine, options, local)
        except NotSent:  # by the types of a result, which are known last
            return _planned(sql, tables, engine, replace(options, sends_bytes_max=0), local)
    except NotDistributed as error:
        return gather_all(sql, tables, engine, local, error.reason)
    except Exception as error:  # noqa: BLE001 - a fault of the planner must not be one of the query
        reason = f"the planner failed: {type(error).__name__}"
        return gather_all(sql, tables, engine, local, reason)


def _planned(
    sql: str,
    tables: Sequence[Table],
    engine: Engine,
    options: PlanOptions,
    local: frozenset[str],
) -> DistributedPlan:
    """Plan a query as it is, and with its correlated subqueries rewritten if that gathers rows."""
    prefix = _free_prefix(sql, tables)
    query = read_query(sql, tables, engine, prefix)
    plan = _Planner(sql, tables, query, options, local, prefix).plan()
    if options.strategy == "gather" or plan.cost.is_local or not plan.gathers:
        return plan
    rewritten = decorrelated(query, uses_states=options.uses_states)
    if rewritten is None:
        return plan
    try:
        other = _Planner(sql, tables, rewritten, options, local, prefix).plan()
    except NotDistributed:
        return plan
    is_better = other.fragments and _REWRITTEN_MARGIN * other.moved_bytes < plan.moved_bytes
    return other if is_better else plan


@dataclass(frozen=True, slots=True)
class _Planned:
    """A query of the coordinator whose results are `o0`, `o1`, …, and what comes after.

    Args:
        body: The query.
        tail: ORDER BY, LIMIT and the names of the results.
        rows: The estimated number of its rows.
        way: How the fragment computes it, see `blocks`; `gather` without a fragment of its own.
        refused: Why the fragment does not compute more.
    """

    body: exp.Query
    tail: Tail
    rows: int
    way: str
    refused: str | None = None


class _Planner:
    """Plans one statement."""

    def __init__(
        self,
        sql: str,
        tables: Sequence[Table],
        query: Query,
        options: PlanOptions,
        local: frozenset[str],
        prefix: str,
    ) -> None:
        self._sql = sql
        self._tables = tables
        self._by_name = {table.name: table for table in tables}
        engine = self._engine = query.engine
        self._options = options
        self._prefix = prefix
        self._query = query
        self._drafts = Drafts(
            find_references(self._query),
            engine,
            self._prefix,
            max(1, options.nodes),
            local,
        )
        # The tables that the coordinator reads in place.
        self._here = frozenset(table.name for table in tables if table.is_here)
        self._schemes = Schemes(self._query.sources, uses_whole=options.uses_whole)
        self._results: dict[str, str] = {}
        self._whole = WholeTables(self._result_of, self._drafts.gather)
        self._reasons: dict[str, None] = {}

    def plan(self) -> DistributedPlan:
        """Return the plan that moves least."""
        planned = self._plan(self._query.tree)
        needed = self._drafts.needed(planned.body)
        has_fragments = any(isinstance(self._drafts.steps.get(n), DraftFragment) for n in needed)
        push = self._weighed_bytes(planned) if has_fragments else None
        reason = next(iter(self._reasons), "no rule applies")
        gathers = gathers_of_query(self._drafts, self._query.sources, reason)
        cost = self._cost(push, gathers)
        is_forced = self._options.strategy == "push"
        with self._engine.empty(self._tables) as empty:
            columns = empty.columns(self._sql)
            if push is None or (not is_forced and (cost.is_local or push >= cost.gather)):
                reasons = tuple(self._reasons) or ("fragments would move as much",)
                return self._gather_plan(gathers, columns, cost, reasons)
            steps, final = self._steps(planned, needed, columns)
            try:
                steps = _defined(empty, steps)
            except NotSent:
                raise
            except NotDistributed as error:
                return self._gather_plan(gathers, columns, cost, (error.reason,))
            reads = tuple(dict.fromkeys(table.name for table in final.find_all(exp.Table)))
            final_sql = to_sql(final, copy=False)
            if empty.columns(final_sql) != columns:
                raise NotDistributed("the merged result would have other columns")
        return DistributedPlan(
            sql=self._sql,
            strategy="mixed" if any(isinstance(step, Gather) for step in steps) else "push",
            steps=steps,
            final_sql=final_sql,
            reads=reads,
            columns=columns,
            cost=cost,
            reasons=tuple(self._reasons),
        )

    def _gather_plan(
        self,
        gathers: Sequence[Gather],
        columns: tuple[Column, ...],
        cost: Cost,
        reasons: tuple[str, ...],
    ) -> DistributedPlan:
        """Return the plan that gathers, if the query means the same over what is gathered."""
        if not has_columns(self._sql, self._tables, gathers, columns, self._engine):
            raise NotDistributed(next(iter(reasons), "a column may be used without its name"))
        return gather_plan(self._sql, gathers, columns, cost, reasons, self._tables)

    def _cost(self, push: int | None, gathers: Sequence[Gather]) -> Cost:
        objects = {name for each in gathers for name in each.objects}
        return Cost(push, sum(each.bytes for each in gathers), objects <= self._drafts.local)

    def _plan(self, query: exp.Query) -> _Planned:
        """Return the cheapest way to compute a query that depends on no other."""
        if isinstance(query, exp.Subquery):
            if query.args.get("order") or query.args.get("limit") or query.args.get("offset"):
                raise NotDistributed("ORDER BY or LIMIT of a query in parentheses")
            return self._plan(query.this)
        if isinstance(query, exp.SetOperation):
            return self._plan_set_operation(query)
        body, tail = split_tail(query)
        if not isinstance(body, exp.Select):
            raise NotDistributed("a part of the query is no SELECT")
        refused: dict[str, None] = {}
        candidates = self._split(body, tail, refused)
        candidates += self._pushed_to_one(body, tail, candidates)
        if not candidates or self._options.strategy != "push":
            candidates.append(self._gathered(body, tail))
        best = min(candidates, key=self._weighed_bytes)
        if best.way == "gather" and reads_away(self._query, query, self._here):
            self._reasons |= _reasons_to_gather(candidates) or refused
        elif best.refused is not None:
            self._reasons[best.refused] = None
        return best

    def _split(self, body: exp.Select, tail: Tail, refused: dict[str, None]) -> list[_Planned]:
        """Return the ways to compute a SELECT in units; add to `refused` why others are none."""
        schemes = list(self._schemes.of(body)) if self._options.strategy != "gather" else []
        missing = {id(scheme): self._missing(body, scheme) for scheme in schemes}
        found: list[_Planned] = []
        # First those whose nodes need no rows of others: if they compute more than rows, nothing is sent along, and
        # the others need not be planned, which is most of the time of a join of five tables.
        for scheme in sorted(schemes, key=lambda each: bool(missing[id(each)])):
            if missing[id(scheme)] and any(each.way != "rows" for each in found):
                break
            try:
                self._check_sendable(body, missing[id(scheme)])
                found += self._pushed(body, tail, scheme)
            except NotDistributed as error:
                refused[error.reason] = None
        return found

    def _weighed_bytes(self, planned: _Planned) -> int:
        """Return the estimate of what a plan moves; more if it is less certain to be the best."""
        needed = self._drafts.needed(planned.body)
        kinds = {isinstance(self._drafts.steps.get(name), DraftFragment) for name in needed}
        gathers = any(name in self._drafts.gathered for name in needed)
        margin = _BROADCAST_MARGIN if gathers and True in kinds else 1
        return margin * self._drafts.bytes_of(needed)

    def _plan_set_operation(self, query: exp.SetOperation) -> _Planned:
        rows = 0
        query = query.copy()
        for key in ("this", "expression"):
            planned = self._plan(query.args[key])
            rows += planned.rows
            query.set(key, planned.tail.over(planned.body).subquery(copy=False))
        body, tail = split_tail(query)
        return _Planned(body, tail, rows, "gather")

    def _pushed_to_one(
        self, body: exp.Select, tail: Tail, split: Sequence[_Planned]
    ) -> list[_Planned]:
        """Return the way to compute a SELECT at one node, unless several compute more than its rows."""
        if self._options.strategy == "gather" or any(each.way != "rows" for each in split):
            return []
        scheme = self._schemes.at_one_node(body)
        try:
            return [] if scheme is None else self._pushed(body, tail, scheme)
        except NotDistributed:  # a CTE that is computed first
            return []

    def _pushed(self, body: exp.Select, tail: Tail, scheme: Scheme) -> list[_Planned]:
        """Return the ways to compute a SELECT whose tables are split by a scheme."""
        block, sources = body.copy(), self._query.sources
        localizer = Localizer(self._query, scheme, self._whole)
        keys, _ = localizer.source(block)
        if keys is None and scheme.keys:
            raise NotDistributed("a sharded table is read in a subquery only")
        found = []
        for cut in cut_block(
            block,
            tail,
            reason=None if keys is None else localizer.is_local(block, keys),
            aggregates=self._engine.aggregates,
            uses_states=self._options.uses_states,
        ):
            if any(table.alias in scheme.keys for table in cut.merge.find_all(exp.Table)):
                continue  # a subquery of the merge would read rows that only units have
            draft = draft_fragment(cut, scheme, tail, self._drafts)
            check_broadcasts(draft, self._drafts, self._by_name, self._options.sends_bytes_max)
            name = self._drafts.name("part")
            self._drafts.steps[name] = draft
            for table in cut.merge.find_all(exp.Table):
                if table.name == PART and table.alias == "p":
                    table.set("this", exp.to_identifier(name, quoted=True))
                elif table.name in scheme.whole - self._here and table.alias in sources:
                    # A subquery of the merge, over what only the other nodes have whole.
                    gathered = self._drafts.gather(table.alias)
                    table.set("this", exp.to_identifier(gathered, quoted=True))
            found.append(_Planned(cut.merge, tail, draft.rows, cut.way, cut.refused))
        return found

    def _missing(self, body: exp.Select, scheme: Scheme) -> list[exp.Table]:
        """Return the tables of FROM and WHERE that the nodes of a scheme do not have."""
        parts = (body.args.get("from_"), *(body.args.get("joins") or ()), body.args.get("where"))
        found = []
        for table in (t for part in parts if part is not None for t in part.find_all(exp.Table)):
            source = self._query.sources.get(table.alias)
            if source is None or not (table.alias in scheme.keys or source.name in scheme.whole):
                found.append(table)
        return found

    def _check_sendable(self, body: exp.Select, missing: Sequence[exp.Table]) -> None:
        """Refuse a scheme without planning it, if what its nodes lack cannot be sent to them."""
        bytes_max = self._options.sends_bytes_max
        starts = (body.args.get("from_"), *(body.args.get("joins") or ()))
        direct = {each.this.alias for each in starts if each is not None}
        sent = 0
        for table in missing:
            source = self._query.sources.get(table.alias)
            if not bytes_max or (source is not None and not source.readers):
                raise NotSent(MISSING_ROWS)
            if source is not None and table.alias in direct:
                sent += self._drafts.table_bytes(table.alias)
                if sent > bytes_max:
                    raise NotSent(TOO_MANY_ROWS)

    def _gathered(self, body: exp.Select, tail: Tail) -> _Planned:
        """Return the way that reads no split table; what it contains may still be pushed."""
        block = body.copy()
        nothing = Scheme("node", {}, self._here)
        keys, _ = Localizer(self._query, nothing, self._whole).source(block)
        assert keys is None, "nothing is split"
        rows = 1
        for table in block.find_all(exp.Table):
            step = self._drafts.steps.get(table.name)
            if step is not None:
                rows = max(rows, step.rows)
            elif table.alias in self._query.sources:
                found = self._query.sources[table.alias]
                shards = found.shards if found.is_here else self._drafts.remaining(table.alias)
                rows = max(rows, sum(shard.rows for shard in shards))
        return _Planned(block, tail, rows, "gather")

    def _result_of(self, query: exp.Query) -> str:
        """Plan a query on its own; return the name of the table of its result."""
        text = to_sql(query)
        if text not in self._results:
            planned = self._plan(query)
            rows = planned.rows if planned.tail.limit is None else planned.tail.limit
            name = self._drafts.name("result")
            row_bytes = _VALUE_BYTES * len(planned.tail.names)
            self._drafts.steps[name] = DraftMerge(planned.tail.over(planned.body), rows, row_bytes)
            self._results[text] = name
        return self._results[text]

    def _steps(
        self, planned: _Planned, needed: Sequence[str], columns: tuple[Column, ...]
    ) -> tuple[tuple[Step, ...], exp.Select]:
        """Return the steps of a plan, and its last query."""
        drafts = self._drafts
        names: dict[str, str] = {}
        gathers: dict[str, Gather] = {}
        reason = next(iter(self._reasons), "a fragment needs it whole")
        for table, aliases in drafts.merged_gathers(
            [name for name in needed if name in drafts.gathered]
        ).items():
            result = f"{self._prefix}rows_{len(gathers)}"
            gathers[table] = drafts.gather_step(aliases, result, reason)
            names |= {f"{self._prefix}gather_{alias}": result for alias in aliases}
        steps: list[Step] = list(gathers.values())
        origins = {names.get(name, name): drafts.tables_of(name) for name in needed}
        for name in needed:
            if name in drafts.steps:
                query = self._renamed(drafts.steps[name].query, names)
                steps.append(drafts.step(name, query, self._tables, origins))
        results = self._query.tree.selects
        if len(results) != len(columns) or any(
            isinstance(result.unalias(), exp.Column)
            and result.alias_or_name.casefold() != column.name.casefold()
            for result, column in zip(results, columns, strict=True)
        ):
            raise NotDistributed("the merged result would have other columns")
        named = replace(planned.tail, names=tuple(column.name for column in columns))
        final = named.over(planned.body, tuple(column.type for column in columns))
        return tuple(steps), self._renamed(final, names)

    def _renamed(self, query: exp.Query, names: dict[str, str]) -> exp.Select:
        """Return a query that reads results by their final names."""
        result = query.copy()
        for table in result.find_all(exp.Table):
            if table.name in names:
                table.set("this", exp.to_identifier(names[table.name], quoted=True))
        return result  # type: ignore[return-value]


def _reasons_to_gather(candidates: Sequence[_Planned]) -> dict[str, None]:
    """Return why none of the fragments moves less than a gather, the last candidate; none without."""
    found = [each.refused for each in candidates if each.refused is not None]
    if not found and len(candidates) > 1:
        found = ["fragments would move as much"]
    return dict.fromkeys(found)


def _defined(empty: EmptyTables, steps: Sequence[Step]) -> tuple[Step, ...]:
    """Create the empty tables of steps; return the steps with the columns of what is sent along.

    Raises:
        NotSent: Such a column cannot be.
        NotDistributed: As of `_define`.
    """
    found: list[Step] = []
    first = computed_first(steps)
    for step in steps:
        _define(empty, step, arrives=not isinstance(step, Merge) or step.result in first)
        each = step
        if isinstance(step, Fragment) and step.broadcasts:
            sent = []
            for broadcast in step.broadcasts:
                columns = empty.columns(f"FROM {quoted(broadcast.result)}")
                check_columns(columns)
                sent.append(replace(broadcast, columns=columns))
            each = replace(step, broadcasts=tuple(sent))
        found.append(each)
    return tuple(found)


def _define(empty: EmptyTables, step: Step, *, arrives: bool) -> None:
    """Create the empty table of a step.

    Raises:
        NotDistributed: DuckDB does not run it, as for the sum of dates that an average needs; or Arrow
            does not send its values as they are.
    """
    try:
        empty.define(step.result, step.sql)
    except Exception as error:
        problem = str(error).splitlines()[0][:80]
        raise NotDistributed(f"DuckDB does not run a part: {problem}") from error
    if arrives:
        for column in empty.columns(f"FROM {quoted(step.result)}"):
            if _CHANGED_BY_ARROW.search(column.type):
                raise NotDistributed(f"Arrow does not send every {column.type} as it is")


def _free_prefix(sql: str, tables: Sequence[Table]) -> str:
    """Return what no name of a statement starts with."""
    used = " ".join((sql, *(table.name for table in tables))).lower()
    prefix, number = _PREFIX, 0
    while prefix in used:
        number += 1
        prefix = f"{_PREFIX}{number}_"
    return prefix
